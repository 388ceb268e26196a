//! Object stores by their URL.

mod azure;
mod chain;
mod deferred;
mod google;
mod s3;
mod storage_class;

use std::path::Path as FsPath;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{Attributes, ObjectStore, RetryConfig, memory::InMemory};
use url::Url;

pub(crate) use self::chain::{NoCredentials, load as load_aws};
pub(crate) use self::s3::S3Place;
use crate::Error;
use crate::clock::StoreClock;
use crate::durable::DurableDirectory;

/// Retries inside the client library: server errors, and time-outs of reads. It never repeats a
/// put-if-absent that timed out; the caller does, knowing that it may meet its own object.
const REQUEST_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of a store over those of the environment, by the names of the variables in lower case.
pub(crate) type Given<'a> = &'a [(&'a str, &'a str)];

/// A store, and the part of it a URL names.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    pub(crate) is_local: bool,
    pub(crate) clock: StoreClock,
    /// What shards are stored with.
    pub(crate) shard_attributes: Attributes,
}

/// The kinds of stores there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory of this machine.
    Local(std::path::PathBuf),
    /// The memory of this process.
    Memory,
    S3(Url),
    Google(Url),
    Azure(Url),
}

impl Kind {
    /// What `url` names; what has no scheme is a directory.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not understood.
    pub(crate) fn of(url: &str) -> Result<Self, Error> {
        let parsed = match Url::parse(url) {
            // A single letter is a Windows drive, not a scheme.
            Ok(parsed) if parsed.scheme().len() > 1 => parsed,
            _ => return Ok(Self::Local(url.into())),
        };
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(path) => Ok(Self::Local(path)),
                Err(()) => Err(invalid(format!("{url} is not a local path"))),
            },
            "memory" => Ok(Self::Memory),
            "s3" | "s3a" => Ok(Self::S3(parsed)),
            "gs" => Ok(Self::Google(parsed)),
            "az" | "azure" | "abfs" | "abfss" => Ok(Self::Azure(parsed)),
            scheme => Err(invalid(format!(
                "{scheme:?} in {url:?} is none of file, memory, s3, gs, az; a local directory needs no scheme"
            ))),
        }
    }
}

impl Backend {
    /// The store at `url`, with these settings over those of the environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL or a setting is not understood or the store cannot be set up.
    pub(crate) fn open(url: &str, given: Given<'_>) -> Result<Self, Error> {
        let clock = StoreClock::default();
        let kind = Kind::of(url)?;
        let objects: Arc<dyn ObjectStore> = match &kind {
            Kind::Local(path) => return Self::local(path),
            Kind::Memory => Arc::new(InMemory::new()),
            Kind::S3(_) => s3::open(url, given, &clock)?,
            Kind::Google(_) => google::open(url, given, &clock)?,
            Kind::Azure(_) => azure::open(url, given, &clock)?,
        };
        let prefix = match &kind {
            Kind::S3(parsed) | Kind::Google(parsed) | Kind::Azure(parsed) => {
                Path::from_url_path(parsed.path())
                    .map_err(|error| invalid(format!("{url}: {error}")))?
            }
            Kind::Local(_) | Kind::Memory => Path::default(),
        };
        Ok(Self {
            objects,
            prefix,
            is_local: false,
            clock,
            shard_attributes: storage_class::attributes(&kind, given)?,
        })
    }

    fn local(path: &FsPath) -> Result<Self, Error> {
        let directory = DurableDirectory::new(path)
            .map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        Ok(Self {
            objects: Arc::new(directory),
            prefix: Path::default(),
            is_local: true,
            clock: StoreClock::default(),
            shard_attributes: Attributes::default(),
        })
    }
}

/// Settings of a client library by the names they have as environment variables, in lower case.
fn parse<K: FromStr>(given: Given<'_>) -> Result<Vec<(K, String)>, Error> {
    let others = given.iter().filter(|(name, _)| !is_own(name));
    let parse = |(name, value): &(&str, &str)| match name.parse() {
        Ok(key) => Ok((key, (*value).to_owned())),
        Err(_) => Err(invalid(format!("it has no setting {name:?}"))),
    };
    others.map(parse).collect()
}

/// Whether a setting is Quarr's, not of a client library.
fn is_own(name: &str) -> bool {
    name == storage_class::SETTING
}

/// What a setting is given as, else what the environment has; what is empty is not set.
fn setting(given: Given<'_>, name: &str) -> Option<String> {
    let found = given.iter().find(|(known, _)| *known == name);
    let found = match found {
        Some((_, value)) => Some((*value).to_owned()),
        None => std::env::var(name.to_ascii_uppercase()).ok(),
    };
    found.filter(|value| !value.is_empty())
}

fn retry() -> RetryConfig {
    RetryConfig {
        retry_timeout: REQUEST_RETRY_TIMEOUT,
        ..RetryConfig::default()
    }
}

fn invalid(reason: String) -> Error {
    Error::invalid("store", reason)
}
