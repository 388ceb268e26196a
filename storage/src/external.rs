//! Files elsewhere: local ones, over HTTP, in cloud stores.
//!
//! ```text
//! url ─► AllowList::check ─► local (pread) │ http (ranged, If-Match) │ cloud (ranged, If-Match)
//!                              each with the etag that says which content is meant
//! ```
//!
//! A file is read by ranges, each on condition that the file is still the one whose etag was noted;
//! of what is not, no byte is given out. Nothing here is written but scratch files. Invariant:
//! nothing is touched that the [`AllowList`] has not admitted, redirects and resolved addresses
//! included. What the bytes mean, and whether their hash is right, is the caller's.

mod address;
mod allowed;
mod cloud;
mod http;
mod local;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use url::Url;

pub use self::allowed::AllowList;
use self::cloud::Clouds;
use self::http::Http;
use crate::Error;

/// Requests in flight at once, of all who read through the same [`Externals`].
const MAX_REQUESTS: usize = 64;
/// Bytes of one request of a download; so many in flight at once.
const DOWNLOAD_BYTES: u64 = 8 << 20;
const DOWNLOADS_AT_ONCE: usize = 4;

/// Opens and reads files elsewhere, within the rules of an [`AllowList`]. Cloning is cheap; clients
/// and the bound on requests are shared.
#[derive(Clone, Debug)]
pub struct Externals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    allowed: AllowList,
    requests: Semaphore,
    http: Http,
    clouds: Clouds,
}

/// A file elsewhere, as it was when it was opened. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ExternalFile {
    files: Externals,
    place: Arc<Place>,
    length: u64,
    etag: Arc<str>,
}

/// What a URL names.
#[derive(Clone, Debug)]
enum Place {
    Local(std::path::PathBuf),
    Http(Url),
    Cloud(Url),
}

/// The length of a file and the tag of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    length: u64,
    etag: String,
}

impl Default for Externals {
    /// One that reads nothing.
    fn default() -> Self {
        Self::new(AllowList::nothing())
    }
}

impl Externals {
    /// Reads what `allowed` admits.
    pub fn new(allowed: AllowList) -> Self {
        Self(Arc::new(Inner {
            requests: Semaphore::new(MAX_REQUESTS),
            http: Http::new(allowed.clone()),
            clouds: Clouds::default(),
            allowed,
        }))
    }

    /// What may be read.
    pub fn allowed(&self) -> &AllowList {
        &self.0.allowed
    }

    /// Opens a file: looks up its length and etag. `url` is `file:///…`, `http(s)://…`, `s3://…`,
    /// `gs://…`, `az://…` or a local path.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL is not understood; [`Error::Forbidden`] if it may not be read;
    /// [`Error::NotFound`] if there is no such file; [`Error::Unreachable`] if it cannot be read.
    pub async fn open(&self, url: &str) -> Result<ExternalFile, Error> {
        let place = Place::of(url)?;
        self.0.allowed.check(&place)?;
        let _turn = self.turn(url).await?;
        let found = match &place {
            Place::Local(path) => local::look(path, &self.0.allowed).await?,
            Place::Http(url) => self.0.http.look(url).await?,
            Place::Cloud(url) => self.0.clouds.look(url).await?,
        };
        let content = found.ok_or_else(|| Error::NotFound {
            what: "file",
            name: url.to_owned(),
            suggestions: Vec::new(),
        })?;
        let place = match place {
            // The same file however it was called, as what reads it later will find it.
            Place::Local(path) => Place::Local(path.canonicalize().unwrap_or(path)),
            other => other,
        };
        Ok(ExternalFile {
            files: self.clone(),
            place: Arc::new(place),
            length: content.length,
            etag: content.etag.into(),
        })
    }

    /// Reads `range` of the file at `url` if its etag is `etag`.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file is gone, has another etag or ends before the range does;
    /// [`Error::Forbidden`], [`Error::Invalid`] and [`Error::Unreachable`] as [`Externals::open`].
    pub async fn get_range(
        &self,
        url: &str,
        etag: &str,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let place = Place::of(url)?;
        self.0.allowed.check(&place)?;
        self.read(&place, etag, range).await
    }

    async fn read(&self, place: &Place, etag: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let _turn = self.turn(&place.url()).await?;
        match place {
            Place::Local(path) => local::read(path, &self.0.allowed, etag, range).await,
            Place::Http(url) => self.0.http.read(url, etag, range).await,
            Place::Cloud(url) => self.0.clouds.read(url, etag, range).await,
        }
    }

    async fn turn(&self, url: &str) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let turn = self.0.requests.acquire().await;
        turn.map_err(|_| unreachable(url, "the process is stopping"))
    }
}

impl ExternalFile {
    /// Its URL, `file:///…` of a local file, without symbolic links.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// The last part of its path.
    pub fn name(&self) -> String {
        let url = self.place.url();
        let path = url.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// The path of a local file.
    pub fn local_path(&self) -> Option<&Path> {
        match &*self.place {
            Place::Local(path) => Some(path),
            _ => None,
        }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What tells this content from others at the same place: of a local file its length, time of
    /// change and inode; else what the server says.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Reads `range`, if the file has not changed since it was opened.
    ///
    /// # Errors
    /// As [`Externals::get_range`].
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        self.files.read(&self.place, &self.etag, range).await
    }

    /// Copies the file to `path`, which is created or replaced, and calls `progress` with the bytes
    /// that are there after each piece. Holds at most 32 MiB. A copy that failed may be there in
    /// part.
    ///
    /// # Errors
    /// As [`Externals::get_range`]; [`Error::Unreachable`] with the path if it cannot be written.
    pub async fn download(
        &self,
        path: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let failed = |error: std::io::Error| unreachable(&path.display().to_string(), error);
        let mut out = tokio::fs::File::create(path).await.map_err(failed)?;
        let starts = (0..self.length).step_by(DOWNLOAD_BYTES as usize);
        let pieces = futures::stream::iter(starts).map(|start| {
            let end = self.length.min(start + DOWNLOAD_BYTES);
            async move { Ok::<_, Error>((start, self.read(start..end).await?)) }
        });
        let mut pieces = pieces.buffered(DOWNLOADS_AT_ONCE);
        while let Some((start, piece)) = pieces.try_next().await? {
            out.seek(std::io::SeekFrom::Start(start))
                .await
                .map_err(failed)?;
            out.write_all(&piece).await.map_err(failed)?;
            progress(start + piece.len() as u64);
        }
        out.flush().await.map_err(failed)
    }
}

impl Place {
    /// What `url` names; a local path has no scheme.
    fn of(url: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::invalid("source", reason);
        let parsed = match Url::parse(url) {
            // A single letter is a Windows drive, not a scheme.
            Ok(parsed) if parsed.scheme().len() > 1 => parsed,
            _ => return Ok(Self::Local(url.into())),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let reason = "a URL with a user name or password, which would be kept with the data: \
                          give credentials by the environment";
            return Err(invalid(reason.to_owned()));
        }
        if has_hidden_steps(&parsed) {
            return Err(invalid(format!(
                "{url}: a path with an encoded slash, backslash or \"..\""
            )));
        }
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(path) => Ok(Self::Local(path)),
                Err(()) => Err(invalid(format!("{url} is not a local path"))),
            },
            "http" | "https" if parsed.host().is_some() => Ok(Self::Http(parsed)),
            "s3" | "gs" | "az" if parsed.host().is_some() => Ok(Self::Cloud(parsed)),
            "http" | "https" | "s3" | "gs" | "az" => Err(invalid(format!("{url} names no host"))),
            scheme => Err(invalid(format!(
                "{scheme:?} in {url:?} is none of file, http, https, s3, gs, az"
            ))),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Local(path) => match Url::from_file_path(path) {
                Ok(url) => url.into(),
                Err(()) => path.display().to_string(),
            },
            Self::Http(url) | Self::Cloud(url) => url.as_str().to_owned(),
        }
    }
}

/// Whether a server may take the path for another one than it looks like.
fn has_hidden_steps(url: &Url) -> bool {
    if url.scheme() == "file" {
        // The path is resolved before it is compared.
        return false;
    }
    let path = url.path().to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%00"];
    let has_encoded = encoded.iter().any(|code| path.contains(code));
    has_encoded || path.split('/').any(|step| step == ".." || step == ".")
}

pub(super) fn unreachable(url: &str, reason: impl std::fmt::Display) -> Error {
    Error::Unreachable {
        url: url.to_owned(),
        reason: reason.to_string(),
    }
}

pub(super) fn changed(url: &str, reason: impl Into<String>) -> Error {
    Error::Changed {
        url: url.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
