//! Where exports go: files and directories that appear whole or not at all, and buckets.
//!
//! ```text
//! DEST.partial-… (a directory, locked) ─► everything written ─► flushed ─► renamed to DEST
//! ```
//!
//! A file is written inside such a directory: the HDF5 library locks files itself.
//!
//! What a killed export leaves behind is locked by nobody: the next export to the same place removes
//! it. In a bucket, where nothing can be renamed, the root's metadata comes last.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use storage::{Outbox, Store};

use super::ExportFormat;
use crate::Error;
use crate::blocking::blocking;

/// Between the name of a destination and what tells one unfinished export to it from another.
const PARTIAL: &str = ".partial-";
/// Unfinished exports to one destination that may be there at once.
const PARTIALS_MAX: u32 = 1000;
/// Keys that are deleted together.
const DELETED_AT_ONCE: usize = 1000;

/// Where an export goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A file or directory.
    Local(PathBuf),
    /// An object, or everything under a prefix, of an object store.
    Bucket(Store),
}

impl Destination {
    /// A path, or a URL: `file:`, `s3:`, `gs:`, `az:` and what else [`Store::open`] takes.
    ///
    /// # Errors
    /// [`Error::Storage`] if the URL is not understood; [`Error::Option`] for one that names no
    /// object.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            None => Ok(Self::Local(PathBuf::from(text))),
            Some("file") => {
                let path = text.trim_start_matches("file://");
                Ok(Self::Local(PathBuf::from(path)))
            }
            Some(_) => {
                let (_, rest) = text.split_once("://").unwrap_or_default();
                if !rest.trim_end_matches('/').contains('/') && !text.starts_with("memory:") {
                    return Err(Error::Option {
                        option: "destination",
                        reason: format!("{text:?} names a whole bucket: give a prefix in it"),
                    });
                }
                Ok(Self::Bucket(Store::open(text)?))
            }
        }
    }

    /// Whether something is there: the file or object, or anything under the prefix if `format` is one
    /// of directories.
    ///
    /// # Errors
    /// [`Error::Storage`] if the bucket cannot be asked.
    pub async fn is_taken(&self, format: ExportFormat) -> Result<bool, Error> {
        match self {
            Self::Local(path) => {
                let path = path.clone();
                blocking(move || Ok(fs::symlink_metadata(path).is_ok())).await
            }
            Self::Bucket(store) => {
                let outbox = Outbox::new(store.clone());
                match format.is_directory() {
                    true => Ok(!outbox.list("", 1).await?.is_empty()),
                    false => Ok(outbox.has("").await?),
                }
            }
        }
    }

    /// The last part of its name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Local(path) => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            Self::Bucket(store) => {
                let url = store.url().trim_end_matches('/');
                url.rsplit('/').next().unwrap_or_default().to_owned()
            }
        }
    }
}

/// A file or directory that is being written and has not yet its name.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The directory that is locked.
    folder: PathBuf,
    /// What is written: that directory, or a file in it.
    path: PathBuf,
    destination: PathBuf,
    overwrite: bool,
    is_directory: bool,
    /// Whether nobody removes it any more.
    is_done: bool,
    /// Locked for as long as this is alive.
    _lock: File,
}

impl Partial {
    /// A new directory beside `destination`. Blocks.
    ///
    /// # Errors
    /// [`Error::Exists`] if the destination exists and is not to be overwritten; [`Error::Write`] if
    /// nothing can be written beside it.
    pub(crate) fn directory(destination: &Path, overwrite: bool) -> Result<Self, Error> {
        Self::new(destination, overwrite, true)
    }

    /// A new file beside `destination`. Blocks.
    ///
    /// # Errors
    /// As [`Partial::directory`].
    pub(crate) fn file(destination: &Path, overwrite: bool) -> Result<Self, Error> {
        Self::new(destination, overwrite, false)
    }

    fn new(destination: &Path, overwrite: bool, is_directory: bool) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        let invalid = || failed(destination)(io::ErrorKind::InvalidInput.into());
        let name = destination.file_name().ok_or_else(invalid)?.to_owned();
        let folder = match destination.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        check_destination(destination, overwrite, is_directory)?;
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        clean_up(&folder, &name)?;
        for number in 0..PARTIALS_MAX {
            let mut partial = name.clone();
            partial.push(format!("{PARTIAL}{}-{number}", std::process::id()));
            let partial = folder.join(partial);
            match fs::create_dir(&partial) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(failed(&partial))?,
            }
            let lock = File::open(&partial).map_err(failed(&partial))?;
            match lock.try_lock() {
                // Whoever cleans up took it for a leftover.
                Err(TryLockError::WouldBlock) => continue,
                // A file system without locks: nobody can tell a leftover, so nobody removes one.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            let path = match is_directory {
                true => partial.clone(),
                false => partial.join(&name),
            };
            if !is_directory {
                File::create_new(&path).map_err(failed(&path))?;
            }
            return Ok(Self {
                folder: partial,
                path,
                destination: destination.to_owned(),
                overwrite,
                is_directory,
                is_done: false,
                _lock: lock,
            });
        }
        Err(failed(destination)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes what was written and gives it its name. Blocks.
    ///
    /// # Errors
    /// [`Error::Exists`] if the destination appeared meanwhile; [`Error::Write`] if that failed.
    pub(crate) fn publish(mut self) -> Result<(), Error> {
        let destination = self.destination.clone();
        let failed = |source| Error::Write {
            path: destination.clone(),
            source,
        };
        flush(&self.path, self.is_directory).map_err(failed)?;
        let rename = |flags| renameat_with(CWD, &self.path, CWD, &self.destination, flags);
        match rename(RenameFlags::NOREPLACE) {
            Ok(()) => self.is_done = self.is_directory,
            Err(Errno::EXIST) if !self.overwrite => {
                return Err(Error::Exists {
                    what: self.destination.display().to_string(),
                });
            }
            Err(Errno::EXIST) if self.is_directory => match rename(RenameFlags::EXCHANGE) {
                // Old and new changed places at once; what has our name now is the old one.
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOSYS) => self.set_aside_and_rename().map_err(failed)?,
                Err(error) => return Err(failed(error.into())),
            },
            // Not every file system can refuse to replace; what was there was checked before.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {
                fs::rename(&self.path, &self.destination).map_err(failed)?;
                self.is_done = self.is_directory;
            }
            Err(error) => return Err(failed(error.into())),
        }
        let folder = self.destination.parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|file| file.sync_all());
        // Some file systems do not sync directories; the name is there all the same.
        let _ = synced;
        Ok(())
    }

    /// Replaces a directory where two cannot change places at once: for a moment there is none.
    fn set_aside_and_rename(&mut self) -> io::Result<()> {
        let mut aside = self.folder.clone().into_os_string();
        aside.push("-old");
        let aside = PathBuf::from(aside);
        fs::rename(&self.destination, &aside)?;
        if let Err(error) = fs::rename(&self.path, &self.destination) {
            fs::rename(&aside, &self.destination)?;
            return Err(error);
        }
        self.is_done = true;
        remove(&aside)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_done {
            // What is left of a failed export, or of what it replaced, is of no use. If it stays, the
            // next export to this place removes it.
            let _ = remove(&self.folder);
        }
    }
}

/// Refuses a destination that is in the way.
fn check_destination(destination: &Path, overwrite: bool, is_directory: bool) -> Result<(), Error> {
    let Ok(found) = fs::symlink_metadata(destination) else {
        return Ok(());
    };
    if !overwrite {
        return Err(Error::Exists {
            what: destination.display().to_string(),
        });
    }
    if is_directory && !found.is_dir() || !is_directory && found.is_dir() {
        let (there, wanted) = match is_directory {
            true => ("a file", "a directory"),
            false => ("a directory", "a file"),
        };
        return Err(Error::Option {
            option: "--overwrite",
            reason: format!(
                "{} is {there} and would become {wanted}: remove it first",
                destination.display()
            ),
        });
    }
    if is_directory && !looks_like_zarr(destination) {
        return Err(Error::Option {
            option: "--overwrite",
            reason: format!(
                "{} is a directory that holds no Zarr array or group, so it is not replaced: remove it first",
                destination.display()
            ),
        });
    }
    Ok(())
}

fn looks_like_zarr(directory: &Path) -> bool {
    let is_empty = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    let has = |name: &&str| directory.join(name).is_file();
    is_empty || ["zarr.json", ".zgroup", ".zarray"].iter().any(has)
}

/// Removes what killed exports to this destination left.
///
/// # Errors
/// [`Error::Leftover`] for what cannot be removed.
fn clean_up(folder: &Path, name: &OsString) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    let mut start = name.clone();
    start.push(PARTIAL);
    let start = start.to_string_lossy().into_owned();
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&start) {
            continue;
        }
        let path = entry.path();
        // Locked by its exporter if that is alive.
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if file.try_lock().is_err() {
            continue;
        }
        remove(&path).map_err(|source| Error::Leftover {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a file, or everything in a directory, durable.
fn flush(path: &Path, is_directory: bool) -> io::Result<()> {
    let opened = File::open(path)?;
    if !is_directory {
        return opened.sync_all();
    }
    // One request for the whole file system, instead of one for each of many files.
    #[cfg(target_os = "linux")]
    {
        rustix::fs::syncfs(&opened)?;
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            flush(&entry.path(), entry.file_type()?.is_dir())?;
        }
        opened.sync_all()
    }
}

/// A directory or a prefix that is being filled.
#[derive(Clone, Debug)]
pub(crate) enum Folder {
    Directory(Arc<Partial>),
    Bucket(Outbox),
}

impl Folder {
    /// Opens a place for many objects, empty.
    ///
    /// # Errors
    /// [`Error::Exists`] if something is there and is not to be overwritten; else as
    /// [`Partial::directory`].
    pub(crate) async fn open(destination: &Destination, overwrite: bool) -> Result<Self, Error> {
        match destination {
            Destination::Local(path) => {
                let path = path.clone();
                let partial = blocking(move || Partial::directory(&path, overwrite)).await?;
                Ok(Self::Directory(Arc::new(partial)))
            }
            Destination::Bucket(store) => {
                let outbox = Outbox::new(store.clone());
                let found = outbox.list("", 1).await?;
                if !found.is_empty() && !overwrite {
                    return Err(Error::Exists {
                        what: store.url().to_owned(),
                    });
                }
                if !found.is_empty() {
                    empty(&outbox).await?;
                }
                Ok(Self::Bucket(outbox))
            }
        }
    }

    pub(crate) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        match self {
            Self::Directory(partial) => {
                let path = partial.path().join(key);
                blocking(move || {
                    let failed = |source| Error::Write {
                        path: path.clone(),
                        source,
                    };
                    if let Some(folder) = path.parent() {
                        fs::create_dir_all(folder).map_err(failed)?;
                    }
                    fs::write(&path, &bytes).map_err(failed)
                })
                .await
            }
            Self::Bucket(outbox) => Ok(outbox.put(key, bytes).await?),
        }
    }

    /// Everything was put: it may be seen.
    pub(crate) async fn publish(self) -> Result<(), Error> {
        let Self::Directory(partial) = self else {
            return Ok(());
        };
        let partial = Arc::into_inner(partial).ok_or(Error::Cancelled)?;
        blocking(move || partial.publish()).await
    }
}

/// Deletes all under a prefix, what makes it a Zarr hierarchy first.
async fn empty(outbox: &Outbox) -> Result<(), Error> {
    let roots = ["zarr.json", ".zmetadata", ".zgroup", ".zarray"];
    let roots: Vec<String> = roots.iter().map(|name| (*name).to_owned()).collect();
    let mut is_zarr = false;
    for root in &roots {
        is_zarr |= outbox.has(root).await?;
    }
    if !is_zarr {
        return Err(Error::Option {
            option: "--overwrite",
            reason: format!(
                "{} holds other things than a Zarr array or group, so it is not replaced: delete them first",
                outbox.url()
            ),
        });
    }
    outbox.delete(&roots).await?;
    loop {
        let keys = outbox.list("", DELETED_AT_ONCE).await?;
        if keys.is_empty() {
            return Ok(());
        }
        outbox.delete(&keys).await?;
    }
}

/// One file or object: written to a file of this machine, then given its name or uploaded.
#[derive(Debug)]
pub(crate) enum Single {
    Local(Partial),
    Bucket {
        store: Store,
        file: tempfile::NamedTempFile,
    },
}

impl Single {
    /// Opens a place for one file.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(crate) async fn open(destination: &Destination, overwrite: bool) -> Result<Self, Error> {
        match destination {
            Destination::Local(path) => {
                let path = path.clone();
                let partial = blocking(move || Partial::file(&path, overwrite)).await?;
                Ok(Self::Local(partial))
            }
            Destination::Bucket(store) => {
                if !overwrite && Outbox::new(store.clone()).has("").await? {
                    return Err(Error::Exists {
                        what: store.url().to_owned(),
                    });
                }
                let file = tempfile::NamedTempFile::new().map_err(|source| Error::Write {
                    path: std::env::temp_dir(),
                    source,
                })?;
                Ok(Self::Bucket {
                    store: store.clone(),
                    file,
                })
            }
        }
    }

    /// The file to write.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Local(partial) => partial.path(),
            Self::Bucket { file, .. } => file.path(),
        }
    }

    /// Everything was written: it may be seen.
    pub(crate) async fn publish(self) -> Result<(), Error> {
        match self {
            Self::Local(partial) => blocking(move || partial.publish()).await,
            Self::Bucket { store, file } => {
                Ok(Outbox::new(store).put_file("", file.path()).await?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_appears_whole_and_replaces_whole() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("a.zarr");
        for text in ["one", "two"] {
            let partial = Partial::directory(&destination, true).unwrap();
            fs::write(partial.path().join("zarr.json"), text).unwrap();
            fs::write(partial.path().join(text), text).unwrap();
            partial.publish().unwrap();
            assert_eq!(names(&destination), [text, "zarr.json"]);
            assert_eq!(names(folder.path()), ["a.zarr"]);
        }
        let refused = Partial::directory(&destination, false).unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "{refused}");
        assert!(Partial::file(&destination, true).is_err());
    }

    #[test]
    fn what_was_not_made_by_an_export_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        assert!(Partial::directory(folder.path(), true).is_err());
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("a.npy");
        let partial = Partial::file(&destination, false).unwrap();
        fs::write(&destination, "other").unwrap();
        assert!(matches!(partial.publish(), Err(Error::Exists { .. })));
        assert_eq!(names(folder.path()), ["a.npy"]);
        assert_eq!(fs::read(&destination).unwrap(), b"other");
    }

    #[test]
    fn leftovers_go_and_running_exports_stay() {
        let folder = tempfile::tempdir().unwrap();
        let destination = folder.path().join("a.npy");
        let running = Partial::file(&destination, false).unwrap();
        fs::write(folder.path().join("a.npy.partial-1-0"), "left").unwrap();
        fs::create_dir(folder.path().join("a.npy.partial-2-0")).unwrap();
        fs::write(folder.path().join("b.npy.partial-1-0"), "other").unwrap();
        let second = Partial::file(&destination, false).unwrap();
        let kept = names(folder.path());
        assert_eq!(kept.len(), 3, "{kept:?}");
        assert!(kept.contains(&"b.npy.partial-1-0".to_owned()));
        drop((running, second));
        assert_eq!(names(folder.path()), ["b.npy.partial-1-0"]);
    }
}
