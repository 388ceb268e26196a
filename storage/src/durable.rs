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
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::RngExt as _;

/// A directory, with durable exclusive creation.
#[derive(Debug)]
pub(crate) struct DurableDirectory {
    files: LocalFileSystem,
    root: PathBuf,
    /// Directories known to be durable in their parents. Another process may have made one and
    /// crashed before its fsync, so existing is not enough.
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

impl DurableDirectory {
    /// The directory `root`, made if it is missing.
    pub(crate) fn new(root: &FsPath) -> io::Result<Self> {
        let durable = Arc::default();
        make_durable(&std::path::absolute(root)?, &durable)?;
        let root = root.canonicalize()?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        Ok(Self {
            files,
            root,
            durable,
        })
    }

    fn file(&self, location: &Path) -> PathBuf {
        location
            .parts()
            .fold(self.root.clone(), |path, part| path.join(part.as_ref()))
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
            return self.files.put_opts(location, payload, options).await;
        }
        let (file, durable) = (self.file(location), self.durable.clone());
        let created =
            tokio::task::spawn_blocking(move || create(&file, &payload, &durable)).await?;
        match created {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: error.into(),
                })
            }
            Err(error) => Err(Error::Generic {
                store: "local",
                source: error.into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// Creates `file` with these bytes, or fails with `AlreadyExists`; durable either way.
fn create(
    file: &FsPath,
    payload: &PutPayload,
    durable: &Mutex<HashSet<PathBuf>>,
) -> io::Result<()> {
    let directory = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_durable(directory, durable)?;
    if file.exists() {
        // Whoever made it may have crashed before its own fsync.
        File::open(file)?.sync_all()?;
        sync_directory(directory)?;
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary_name = name.to_owned();
    // Names ending in '#' and digits are those the listing leaves out.
    temporary_name.push(format!("#{}", rand::rng().random::<u64>()));
    let temporary = directory.join(temporary_name);
    let linked = write_and_link(&temporary, file, payload);
    let removed = fs::remove_file(&temporary);
    if let Err(error) = linked {
        if error.kind() == io::ErrorKind::AlreadyExists {
            File::open(file)?.sync_all()?;
            sync_directory(directory)?;
        }
        return Err(error);
    }
    removed?;
    sync_directory(directory)
}

fn write_and_link(temporary: &FsPath, file: &FsPath, payload: &PutPayload) -> io::Result<()> {
    let mut handle = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(temporary)?;
    for bytes in payload {
        handle.write_all(bytes)?;
    }
    handle.sync_all()?;
    fs::hard_link(temporary, file)
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
    if !directory.is_dir() {
        make_durable(parent, durable)?;
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    match sync_directory(parent) {
        // Above the store there may be directories this user may not open.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
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
