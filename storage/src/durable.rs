//! A local directory as an object store that survives crashes.
//!
//! Creating an object: write a temporary file, fsync it, hard-link it to its name, fsync the
//! directory and every directory that was made for it. The link fails if the name exists, so of
//! several writers one wins, and a name never shows half an object. Everything else is
//! `object_store`'s local back end.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use rand::RngExt as _;

use crate::page_cache;

/// A directory, with durable exclusive creation. It need not exist before the first write.
#[derive(Debug)]
pub(crate) struct DurableDirectory {
    root: PathBuf,
    /// Reads and everything else; set once the directory exists.
    files: OnceLock<LocalFileSystem>,
    /// Directories known to be durable in their parents. Another process may have made one and
    /// crashed before its fsync, so existing is not enough.
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A write that failed before the object could appear.
#[derive(Debug, thiserror::Error)]
#[error("nothing was written")]
pub(crate) struct NotWritten(#[source] io::Error);

impl NotWritten {
    /// Whether the system does not let this process write there.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(
            self.0.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    }
}

impl DurableDirectory {
    /// The directory `root`.
    pub(crate) fn new(root: &FsPath) -> io::Result<Self> {
        Ok(Self {
            root: std::path::absolute(root)?,
            files: OnceLock::new(),
            durable: Arc::default(),
        })
    }

    /// The files in the directory; `None` while it does not exist.
    fn files(&self) -> Result<Option<&LocalFileSystem>> {
        if let Some(files) = self.files.get() {
            return Ok(Some(files));
        }
        if !self.root.try_exists().map_err(failed)? {
            return Ok(None);
        }
        let files = LocalFileSystem::new_with_prefix(&self.root)?;
        Ok(Some(self.files.get_or_init(|| files)))
    }

    fn existing_files(&self) -> Result<&LocalFileSystem> {
        self.files()?.ok_or_else(|| Error::NotFound {
            path: self.root.display().to_string(),
            source: "the directory does not exist".into(),
        })
    }

    /// A range that can be read without waiting.
    fn get_at_once(&self, location: &Path, options: &GetOptions) -> Option<GetResult> {
        let Some(GetRange::Bounded(range)) = &options.range else {
            return None;
        };
        let is_conditional = options.if_match.is_some()
            || options.if_none_match.is_some()
            || options.if_modified_since.is_some()
            || options.if_unmodified_since.is_some();
        if is_conditional || options.version.is_some() || options.head {
            return None;
        }
        let (bytes, metadata) = page_cache::read(&self.file(location), range)?;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: metadata.modified().ok()?.into(),
            size: metadata.len(),
            e_tag: None,
            version: None,
        };
        Some(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta,
            range: range.clone(),
            attributes: Attributes::default(),
        })
    }

    fn file(&self, location: &Path) -> PathBuf {
        location
            .parts()
            .fold(self.root.clone(), |path, part| path.join(part.as_ref()))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic {
        store: "local",
        source: error.into(),
    }
}

impl fmt::Display for DurableDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableDirectory {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            let files = self.existing_files()?;
            return files.put_opts(location, payload, options).await;
        }
        let (file, durable) = (self.file(location), self.durable.clone());
        match tokio::task::spawn_blocking(move || create(&file, &payload, &durable)).await? {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(CreateError::AlreadyExists) => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "another writer was first".into(),
            }),
            Err(CreateError::NotWritten(error)) => Err(failed(NotWritten(error))),
            Err(CreateError::NotDurable(error)) => Err(failed(error)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.existing_files()?
            .put_multipart_opts(location, options)
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(found) = self.get_at_once(location, &options) {
            return Ok(found);
        }
        self.existing_files()?.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.existing_files()?.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.existing_files() {
            Ok(files) => files.delete_stream(locations),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.files() {
            Ok(Some(files)) => files.list(prefix),
            Ok(None) => stream::empty().boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.files() {
            Ok(Some(files)) => files.list_with_offset(prefix, offset),
            Ok(None) => stream::empty().boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.files()? {
            Some(files) => files.list_with_delimiter(prefix).await,
            None => Ok(ListResult {
                common_prefixes: Vec::new(),
                objects: Vec::new(),
            }),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.existing_files()?.copy_opts(from, to, options).await
    }
}

/// Why an object was not created.
enum CreateError {
    /// It was there before, and is durable.
    AlreadyExists,
    /// It did not appear.
    NotWritten(io::Error),
    /// It is there, but may not survive a crash.
    NotDurable(io::Error),
}

/// Creates `file` with these bytes; durable when it returns.
fn create(
    file: &FsPath,
    payload: &PutPayload,
    durable: &Mutex<HashSet<PathBuf>>,
) -> Result<(), CreateError> {
    use CreateError::{AlreadyExists, NotDurable, NotWritten};
    let no_parent = || NotWritten(io::ErrorKind::InvalidInput.into());
    let directory = file.parent().ok_or_else(no_parent)?;
    // Whoever made what is there may have crashed before its own fsync.
    let make_found_durable = || {
        File::open(file)?.sync_all()?;
        sync_directory(directory)
    };
    make_durable(directory, durable).map_err(NotWritten)?;
    if file.exists() {
        make_found_durable().map_err(NotDurable)?;
        return Err(AlreadyExists);
    }
    let linked = match link_new(file, directory, payload) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The directory was removed since it was made durable.
            durable
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
            make_durable(directory, durable).map_err(NotWritten)?;
            link_new(file, directory, payload)
        }
        linked => linked,
    };
    match linked {
        Ok(()) => sync_directory(directory).map_err(NotDurable),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            make_found_durable().map_err(NotDurable)?;
            Err(AlreadyExists)
        }
        Err(error) => Err(NotWritten(error)),
    }
}

/// Writes the bytes to a temporary file in `directory` and links it to `file`.
fn link_new(file: &FsPath, directory: &FsPath, payload: &PutPayload) -> io::Result<()> {
    let mut temporary_name = file
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    // Names ending in '#' and digits are those the listing leaves out.
    temporary_name.push(format!("#{}", rand::rng().random::<u64>()));
    let temporary = directory.join(temporary_name);
    let written = write_durably(&temporary, payload).and_then(|()| fs::hard_link(&temporary, file));
    // A temporary file that stays, as after a crash, only takes space.
    let _ = fs::remove_file(&temporary);
    written
}

fn write_durably(file: &FsPath, payload: &PutPayload) -> io::Result<()> {
    let mut handle = OpenOptions::new().write(true).create_new(true).open(file)?;
    for bytes in payload {
        handle.write_all(bytes)?;
    }
    handle.sync_all()
}

/// Makes `directory` and what is missing above it, and makes each durable in its parent.
fn make_durable(directory: &FsPath, durable: &Mutex<HashSet<PathBuf>>) -> io::Result<()> {
    let known = || durable.lock().unwrap_or_else(PoisonError::into_inner);
    if known().contains(directory) {
        return Ok(());
    }
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    make_durable(parent, durable)?;
    if !directory.is_dir() {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    match sync_directory(parent) {
        // Above the store there may be directories that cannot be opened or synced.
        Err(error)
            if matches!(
                error.kind(),
                PermissionDenied | ReadOnlyFilesystem | InvalidInput
            ) => {}
        other => other?,
    }
    known().insert(directory.to_owned());
    Ok(())
}

fn sync_directory(directory: &FsPath) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_racing_writers_one_creates_the_object() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(DurableDirectory::new(directory.path()).unwrap());
        for round in 0..20 {
            let location = Path::from(format!("a/b/{round}"));
            let writers = (0..8u8).map(|writer| {
                let (store, location) = (store.clone(), location.clone());
                tokio::spawn(async move {
                    let options = PutOptions {
                        mode: PutMode::Create,
                        ..Default::default()
                    };
                    let put = store
                        .put_opts(&location, vec![writer; 100].into(), options)
                        .await;
                    put.is_ok().then_some(writer)
                })
            });
            let won: Vec<u8> = futures::future::join_all(writers)
                .await
                .into_iter()
                .filter_map(std::result::Result::unwrap)
                .collect();
            assert_eq!(won.len(), 1, "round {round}");
            let bytes = store.get(&location).await.unwrap().bytes().await.unwrap();
            assert_eq!(bytes, vec![won[0]; 100]);
        }
        let left = fs::read_dir(directory.path().join("a/b")).unwrap().count();
        assert_eq!(left, 20, "no temporary file is left");
    }
}
