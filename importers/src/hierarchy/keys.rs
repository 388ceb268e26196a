//! The objects of a hierarchy by their keys, wherever they are.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use storage::Externals;
use storage::Store;
use tokio::runtime::Handle;
use url::Url;

use crate::Error;

/// Most files a directory of a hierarchy may have.
const MAX_LISTED: usize = 20_000_000;

/// A directory, or a prefix of an object store. Its functions block.
#[derive(Debug)]
pub(crate) enum Keys {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A prefix of an object store, and the runtime its requests run on.
    Store(Store, Handle),
    /// A folder of a web server, which cannot be listed.
    Web(Externals, String, Handle),
}

/// What is directly in a directory.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) folders: Vec<String>,
    pub(super) files: Vec<String>,
}

/// An object below a directory: its key from there, and its size.
pub(super) type Listed = (String, u64);

impl Keys {
    /// What messages call an object.
    pub(super) fn shown(&self, key: &str) -> PathBuf {
        match self {
            Self::Directory(root) if key.is_empty() => root.clone(),
            Self::Directory(root) => root.join(key),
            Self::Store(store, _) => {
                PathBuf::from(format!("{}/{key}", store.url().trim_end_matches('/')))
            }
            Self::Web(_, url, _) => PathBuf::from(web_url(url, key)),
        }
    }

    /// The URL of an object, or its local path.
    pub(super) fn url(&self, key: &str) -> String {
        match self {
            Self::Directory(_) => {
                let path = self.shown(key);
                let whole = std::path::absolute(&path).unwrap_or(path);
                whole.to_string_lossy().into_owned()
            }
            Self::Store(store, _) => {
                // Names of folders may hold what URLs escape.
                let url = Url::parse(store.url()).map(|mut url| {
                    if let Ok(mut path) = url.path_segments_mut() {
                        path.pop_if_empty().extend(key.split('/'));
                    }
                    url.into()
                });
                url.unwrap_or_else(|_| self.shown(key).to_string_lossy().into_owned())
            }
            Self::Web(_, url, _) => web_url(url, key),
        }
    }

    /// Reads a whole object of `most` bytes or less; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Storage`] if it cannot be read; [`Error::Malformed`] if it is
    /// longer.
    pub(super) fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Directory(_) => {
                let path = self.shown(key);
                match read_file(&path, most) {
                    Ok(found) => Ok(Some(found.ok_or_else(|| self.too_long(key, most))?)),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(source) => Err(Error::Read { path, source }),
                }
            }
            Self::Store(store, runtime) => {
                let found = runtime.block_on(store.get_at_most(key, most));
                match found {
                    Err(storage::Error::Corrupt { .. }) => Err(self.too_long(key, most)),
                    other => Ok(other?),
                }
            }
            Self::Web(files, url, runtime) => runtime.block_on(async {
                let file = match files.open(&web_url(url, key)).await {
                    Err(storage::Error::NotFound { .. }) => return Ok(None),
                    other => other?,
                };
                if file.length() > most {
                    return Err(self.too_long(key, most));
                }
                Ok(Some(file.read(0..file.length()).await?))
            }),
        }
    }

    /// Whether it can be told what there is.
    pub(super) fn can_list(&self) -> bool {
        !matches!(self, Self::Web(..))
    }

    fn too_long(&self, key: &str, most: u64) -> Error {
        Error::Malformed {
            path: self.shown(key),
            reason: format!("it is longer than {most} bytes"),
        }
    }

    /// What is directly in the directory `key`; nothing where that cannot be told.
    ///
    /// # Errors
    /// As [`Keys::get`]; [`Error::Unsupported`] for a symbolic link.
    pub(super) fn members(&self, key: &str) -> Result<Members, Error> {
        let mut members = Members::default();
        match self {
            Self::Directory(_) => {
                let folder = self.shown(key);
                self.each(&folder, |name, is_folder, _| {
                    let kind = if is_folder {
                        &mut members.folders
                    } else {
                        &mut members.files
                    };
                    kind.push(name);
                })?;
            }
            Self::Store(store, runtime) => {
                members.folders = runtime.block_on(below(store, key).folders())?;
            }
            Self::Web(..) => {}
        }
        members.folders.sort_unstable();
        members.files.sort_unstable();
        Ok(members)
    }

    /// Every object below the directory `key`; nothing where that cannot be told.
    ///
    /// # Errors
    /// As [`Keys::members`]; [`Error::Unsupported`] if there are too many.
    pub(super) fn below(&self, key: &str) -> Result<Vec<Listed>, Error> {
        let mut found = match self {
            Self::Directory(_) => {
                let mut found = Vec::new();
                let mut folders = vec![String::new()];
                while let Some(inside) = folders.pop() {
                    let folder = self.shown(key).join(&inside);
                    self.each(&folder, |name, is_folder, length| {
                        let path = match inside.is_empty() {
                            true => name,
                            false => format!("{inside}/{name}"),
                        };
                        match is_folder {
                            true => folders.push(path),
                            false => found.push((path, length)),
                        }
                    })?;
                    self.check_count(key, found.len() + folders.len())?;
                }
                found
            }
            Self::Store(store, runtime) => runtime.block_on(below(store, key).list(""))?,
            Self::Web(..) => Vec::new(),
        };
        self.check_count(key, found.len())?;
        found.sort_unstable();
        Ok(found)
    }

    fn check_count(&self, key: &str, count: usize) -> Result<(), Error> {
        if count <= MAX_LISTED {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: self.shown(key).display().to_string(),
            reason: format!("it has more than {MAX_LISTED} files"),
        })
    }

    /// Calls `visit` with the name of each file and folder in a local folder, whether it is a
    /// folder, and its length.
    fn each(&self, folder: &Path, mut visit: impl FnMut(String, bool, u64)) -> Result<(), Error> {
        let failed = |source| Error::Read {
            path: folder.to_owned(),
            source,
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                // It could lead anywhere, or round in a circle.
                return Err(Error::Unsupported {
                    what: entry.path().display().to_string(),
                    reason: "it is a symbolic link, which is not followed: put what it stands for \
                             in its place"
                        .into(),
                });
            }
            let length = match kind.is_dir() {
                true => 0,
                false => entry.metadata().map_err(failed)?.len(),
            };
            visit(name, kind.is_dir(), length);
        }
        Ok(())
    }
}

/// The URL of a key: before a query, which may be a signature.
fn web_url(url: &str, key: &str) -> String {
    let (path, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    format!("{}/{key}{query}", path.trim_end_matches('/'))
}

fn below(store: &Store, key: &str) -> Store {
    key.split('/')
        .filter(|name| !name.is_empty())
        .fold(store.clone(), |store, name| store.under(name))
}

fn is_absent(error: &io::Error) -> bool {
    // A file where a folder is looked for: no object has that key.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.kind() == io::ErrorKind::InvalidFilename
}

/// The bytes of a regular file; `None` if there are more than `most`.
fn read_file(path: &Path, most: u64) -> io::Result<Option<Bytes>> {
    // Opening a pipe would wait for its writer.
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Err(io::Error::other(
            "it is a symbolic link, which is not followed",
        ));
    }
    if metadata.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((read as u64 <= most).then(|| bytes.into()))
}
