//! Files of this machine.

use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{AllowList, Content, Place, changed, unreachable};
use crate::Error;

/// Length and etag of a file; `None` if there is none.
pub(super) async fn look(path: &Path, allowed: &AllowList) -> Result<Option<Content>, Error> {
    let (path, allowed) = (path.to_owned(), allowed.clone());
    blocking(&path.clone(), move || {
        Ok(open(&path, &allowed)?.map(|(_, metadata)| content(&metadata)))
    })
    .await
}

/// Reads a range of a file with this etag.
pub(super) async fn read(
    path: &Path,
    allowed: &AllowList,
    etag: &str,
    range: Range<u64>,
) -> Result<Bytes, Error> {
    let (path, allowed, etag) = (path.to_owned(), allowed.clone(), etag.to_owned());
    blocking(&path.clone(), move || {
        let url = || Place::Local(path.clone()).url();
        let Some((file, metadata)) = open(&path, &allowed)? else {
            return Err(changed(&url(), "it is not there any more"));
        };
        let found = content(&metadata);
        if found.etag != etag {
            return Err(changed(&url(), difference(&etag, &found.etag)));
        }
        if range.start > range.end || range.end > found.length {
            let reason = format!("it has {} bytes, too few", found.length);
            return Err(changed(&url(), reason));
        }
        let length = usize::try_from(range.end - range.start);
        let length = length.map_err(|_| array::Error::TooLarge { what: "range" })?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| array::Error::TooLarge { what: "range" })?;
        bytes.resize(length, 0);
        match file.read_exact_at(&mut bytes, range.start) {
            Ok(()) => Ok(bytes.into()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(changed(&url(), "it became shorter while it was read"))
            }
            Err(error) => Err(unreachable(&url(), error)),
        }
    })
    .await
}

/// Opens a regular file that is allowed; `None` if there is none.
fn open(path: &Path, allowed: &AllowList) -> Result<Option<(File, Metadata)>, Error> {
    let url = || Place::Local(path.to_owned()).url();
    let mut options = OpenOptions::new();
    options.read(true);
    // Opening a pipe would wait for who writes to it.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreachable(&url(), error)),
    };
    if !allowed.is_everything() {
        // What was opened, and not what the path may mean by now.
        let resolved = opened_path(&file, path).map_err(|error| unreachable(&url(), error))?;
        allowed.check_file(path, &resolved)?;
    }
    let metadata = file
        .metadata()
        .map_err(|error| unreachable(&url(), error))?;
    if !metadata.is_file() {
        return Err(unreachable(&url(), "it is not a regular file"));
    }
    Ok(Some((file, metadata)))
}

#[cfg(target_os = "linux")]
fn opened_path(file: &File, _: &Path) -> std::io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn opened_path(_: &File, path: &Path) -> std::io::Result<PathBuf> {
    path.canonicalize()
}

/// The etag of a local file is its length, its time of change in nanoseconds and its inode.
fn content(metadata: &Metadata) -> Content {
    let nanoseconds =
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Content {
        length: metadata.len(),
        etag: format!("{}-{nanoseconds}-{}", metadata.len(), metadata.ino()),
    }
}

/// What is different, of two etags that are.
fn difference(expected: &str, found: &str) -> String {
    let parts = |etag: &str| -> Vec<String> { etag.rsplitn(3, '-').map(str::to_owned).collect() };
    match (parts(expected).as_slice(), parts(found).as_slice()) {
        ([_, _, expected], [_, _, found]) if expected != found => {
            format!("it has {found} bytes instead of {expected}")
        }
        ([_, expected, _], [_, found, _]) if expected != found => {
            "it was modified since".to_owned()
        }
        ([_, _, _], [_, _, _]) => "another file is in its place".to_owned(),
        _ => "it is another file".to_owned(),
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(unreachable(&path.display().to_string(), error)),
    }
}
