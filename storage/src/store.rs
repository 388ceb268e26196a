//! The object store as a repository needs it: put-if-absent, get, ranged get, list, delete.
//!
//! Nothing here trusts what it reads; callers check hashes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Attributes, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use tracing::warn;

use crate::Error;
use crate::backend::Backend;
use crate::clock::StoreClock;
use crate::durable::NotWritten;
use crate::external::Externals;
use crate::metered::Metered;
use crate::metrics::StoreMetrics;
use crate::object::SHARDS;

/// Attempts at writing an object whose outcome is unclear.
const MAX_ATTEMPTS: u32 = 6;
/// Pause after the first such attempt; it doubles after each, to 3 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What a put-if-absent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is there now.
    Created,
    /// An object was there already, or the answer was lost and it may be our own.
    AlreadyThere,
}

/// A prefix of an object store. Cloning is cheap.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Arc<str>,
    /// Reading back what is already there costs no request worth saving.
    is_local: bool,
    clock: StoreClock,
    externals: Externals,
    /// What shards are stored with.
    shard_attributes: Attributes,
    /// Whether writes are refused before they are asked for.
    is_read_only: bool,
    metrics: Arc<StoreMetrics>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} {})", self.url, self.prefix)
    }
}

impl Store {
    /// Opens the store at `url`: a directory, `file://…`, `memory://`, `s3://bucket/prefix`,
    /// `gs://…` or `az://…`. Credentials, endpoints and settings of cloud stores come from the
    /// environment variables of their own tools (`AWS_…`, `GOOGLE_…`, `AZURE_…`), from where these
    /// tools look besides, and from `QUARR_SHARD_STORAGE_CLASS`: `docs/stores.md`.
    ///
    /// Makes no request. A local directory is created when something is written.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL is not understood or the store cannot be set up.
    pub fn open(url: &str) -> Result<Self, Error> {
        Self::open_with(url, &[])
    }

    /// As [`Store::open`], with settings of a cloud store's client over those of the environment,
    /// by the names of the variables in lower case: `("aws_endpoint", "http://localhost:9000")`.
    /// Directories and memory have none and ignore them.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL or a setting is not understood or the store cannot be set up.
    pub fn open_with(url: &str, settings: &[(&str, &str)]) -> Result<Self, Error> {
        let backend = Backend::open(url, settings)?;
        let metrics = Arc::<StoreMetrics>::default();
        Ok(Self {
            objects: Arc::new(Metered::new(backend.objects, metrics.clone())),
            prefix: backend.prefix,
            url: url.into(),
            is_local: backend.is_local,
            clock: backend.clock,
            externals: Externals::default(),
            shard_attributes: backend.shard_attributes,
            is_read_only: false,
            metrics,
        })
    }

    /// A store over any back end; `url` is what messages call it.
    pub fn from_objects(objects: Arc<dyn ObjectStore>, url: &str) -> Self {
        let metrics = Arc::<StoreMetrics>::default();
        Self {
            objects: Arc::new(Metered::new(objects, metrics.clone())),
            prefix: Path::default(),
            url: url.into(),
            is_local: false,
            clock: StoreClock::default(),
            externals: Externals::default(),
            shard_attributes: Attributes::default(),
            is_read_only: false,
            metrics,
        }
    }

    /// The same store, of which nothing is changed: whoever tries gets [`Error::ReadOnly`].
    #[must_use]
    pub fn read_only(self) -> Self {
        Self {
            is_read_only: true,
            ..self
        }
    }

    /// Whether it is one that [`Store::read_only`] made.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn check_writable(&self) -> Result<(), Error> {
        match self.is_read_only {
            true => Err(Error::ReadOnly),
            false => Ok(()),
        }
    }

    /// The same store, whose repositories may refer to files elsewhere: those that `externals` may
    /// read. Without this, to none.
    #[must_use]
    pub fn with_externals(self, externals: Externals) -> Self {
        Self { externals, ..self }
    }

    /// Reads the files elsewhere that its repositories refer to.
    pub fn externals(&self) -> &Externals {
        &self.externals
    }

    /// What it was asked since it was opened, and how it answered.
    pub fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    /// What the store was opened as.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether requests to it leave this machine, as far as its URL tells.
    pub fn is_remote(&self) -> bool {
        !self.is_local && !self.url.starts_with("memory:")
    }

    /// The part of this store under `name`.
    #[must_use]
    pub fn under(&self, name: &str) -> Self {
        Self {
            prefix: self.prefix.clone().join(name),
            ..self.clone()
        }
    }

    /// The store itself, under no prefix.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Where in it this one begins.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn location(&self, key: &str) -> Path {
        Path::from_iter(self.prefix.parts().chain(Path::from(key).parts()))
    }

    /// Creates `key`, unless it exists.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed or gave no clear answer; [`Error::ReadOnly`].
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, Error> {
        self.put_with(key, bytes, Attributes::default()).await
    }

    /// The same for an object with what shards are stored with.
    pub(crate) async fn put_as_shard(&self, key: &str, bytes: Bytes) -> Result<Put, Error> {
        let attributes = self.shard_attributes.clone();
        self.put_with(key, bytes, attributes).await
    }

    async fn put_with(
        &self,
        key: &str,
        bytes: Bytes,
        attributes: Attributes,
    ) -> Result<Put, Error> {
        self.check_writable()?;
        let options = PutOptions {
            mode: PutMode::Create,
            attributes,
            ..Default::default()
        };
        match self
            .objects
            .put_opts(&self.location(key), bytes.into(), options)
            .await
        {
            Ok(_) => Ok(Put::Created),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(Put::AlreadyThere),
            Err(source) => Err(Error::Store {
                key: key.to_owned(),
                source,
            }),
        }
    }

    /// Creates an object that never changes, or finds it there with the same bytes.
    ///
    /// The name is a hash of the content, so what is there is compared in length only; on a local
    /// disk, where that is cheap, byte by byte.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if another object has the name; [`Error::Store`] if the store failed.
    pub async fn put_immutable(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        let wanted = bytes.clone();
        let check = |found: &Found| {
            let is_same = match found {
                Found::Bytes(found) => *found == wanted,
                Found::Length(length) => *length == wanted.len() as u64,
            };
            let other = || "another object has this name".to_owned();
            is_same.then_some(()).ok_or_else(other)
        };
        let attributes = match key.starts_with(SHARDS) {
            true => self.shard_attributes.clone(),
            false => Attributes::default(),
        };
        self.put_settled(key, bytes, attributes, self.is_local, check)
            .await
    }

    /// Creates an object that never changes but whose bytes may differ from those found there:
    /// `check` says whether these mean the same.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with what `check` says; [`Error::Store`] if the store failed.
    pub(crate) async fn put_equivalent<F>(
        &self,
        key: &str,
        bytes: Bytes,
        check: F,
    ) -> Result<(), Error>
    where
        F: Fn(&Bytes) -> Result<(), String>,
    {
        let check = |found: &Found| match found {
            Found::Bytes(found) => check(found),
            Found::Length(_) => Ok(()),
        };
        self.put_settled(key, bytes, Attributes::default(), true, check)
            .await
    }

    /// Creates an object whose name allows one content only: an unclear outcome is settled by
    /// looking, and by writing it again.
    async fn put_settled<F>(
        &self,
        key: &str,
        bytes: Bytes,
        attributes: Attributes,
        compares_bytes: bool,
        check: F,
    ) -> Result<(), Error>
    where
        F: Fn(&Found) -> Result<(), String>,
    {
        let mut attempts = Attempts::default();
        loop {
            let put = self.put_with(key, bytes.clone(), attributes.clone()).await;
            let put = match put {
                Ok(Put::Created) => return Ok(()),
                Err(Error::ReadOnly) => return Err(Error::ReadOnly),
                Err(Error::Store { key, source }) if is_refusal(&source) => {
                    return Err(Error::Store { key, source });
                }
                put => put,
            };
            let found = if compares_bytes {
                self.get(key).await.map(|found| found.map(Found::Bytes))
            } else {
                self.length(key).await.map(|found| found.map(Found::Length))
            };
            let unclear = match (found, put) {
                // A local disk says "already exists" only once the object is durable; seeing it is
                // not enough there.
                (Ok(Some(_)), Err(error)) if self.is_local => error,
                (Ok(Some(found)), _) => {
                    return check(&found).map_err(|reason| Error::corrupt(key, reason));
                }
                (Ok(None), Ok(_)) => contradiction(key),
                (Ok(None), Err(error)) | (Err(error), _) => error,
            };
            attempts.pause(unclear).await?;
        }
    }

    /// The size of an object in bytes; `None` if there is none.
    async fn length(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.objects.head(&self.location(key)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Store {
                key: key.to_owned(),
                source,
            }),
        }
    }

    /// Whether this is a local disk, where what can be read may yet be lost in a crash.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// How far the store's clock is ahead of this machine's, if that is known.
    pub fn clock_ahead(&self) -> Option<TimeDelta> {
        self.clock.ahead()
    }

    /// Writes `key`, replacing what was there. For hints only.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed; [`Error::ReadOnly`].
    pub async fn overwrite(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        self.check_writable()?;
        let failed = |source| Error::Store {
            key: key.to_owned(),
            source,
        };
        self.objects
            .put(&self.location(key), bytes.into())
            .await
            .map(drop)
            .map_err(failed)
    }

    /// Reads a whole object; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let failed = |source| Error::Store {
            key: key.to_owned(),
            source,
        };
        match self.objects.get(&self.location(key)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    /// Reads a whole object of at most `most` bytes; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is longer, of which nothing is read; [`Error::Store`] if the store
    /// failed.
    pub async fn get_at_most(&self, key: &str, most: u64) -> Result<Option<Bytes>, Error> {
        let failed = |source| Error::Store {
            key: key.to_owned(),
            source,
        };
        match self.objects.get(&self.location(key)).await {
            Ok(found) if found.meta.size > most => {
                let size = found.meta.size;
                Err(Error::corrupt(
                    key,
                    format!("{size} bytes, the most is {most}"),
                ))
            }
            Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    /// Reads an object that must exist.
    ///
    /// # Errors
    /// [`Error::Missing`] if it does not; [`Error::Store`] if the store failed.
    pub async fn get_existing(&self, key: &str) -> Result<Bytes, Error> {
        self.get(key).await?.ok_or_else(|| Error::Missing {
            key: key.to_owned(),
        })
    }

    /// Reads exactly `range` of an object that must exist.
    ///
    /// # Errors
    /// [`Error::Missing`] if it does not exist; [`Error::Corrupt`] if it ends before the range does;
    /// [`Error::Store`] if the store failed.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let end = range.end;
        let wanted = end.saturating_sub(range.start);
        match self.objects.get_range(&self.location(key), range).await {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(bytes) => Err(Error::corrupt(
                key,
                format!("{} bytes where {wanted} were expected", bytes.len()),
            )),
            Err(object_store::Error::NotFound { .. }) => Err(Error::Missing {
                key: key.to_owned(),
            }),
            Err(source) => {
                // A range past the end of a truncated object is the object's fault, not the store's.
                match self.length(key).await {
                    Ok(Some(length)) if length < end => Err(Error::corrupt(
                        key,
                        format!("it has {length} bytes, too few for a range up to {end}"),
                    )),
                    _ => Err(Error::Store {
                        key: key.to_owned(),
                        source,
                    }),
                }
            }
        }
    }

    /// Every object under `prefix` (a folder; `""` for all), with keys relative to this store.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let found = self.list_with_times(prefix).await?;
        Ok(found
            .into_iter()
            .map(|(key, size, _)| (key, size))
            .collect())
    }

    /// The objects under `prefix` (a folder) whose keys come after `key`, as [`Store::list`] gives
    /// them.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub(crate) async fn list_after(
        &self,
        prefix: &str,
        key: &str,
    ) -> Result<Vec<(String, u64)>, Error> {
        let failed = |source| Error::Store {
            key: prefix.to_owned(),
            source,
        };
        let (folder, after) = (self.location(prefix), self.location(key));
        self.objects
            .list_with_offset(Some(&folder), &after)
            .map_ok(|meta| (self.key(&meta.location), meta.size))
            .try_collect()
            .await
            .map_err(failed)
    }

    /// The key of an object, relative to this store.
    fn key(&self, location: &Path) -> String {
        let parts = location.parts().skip(self.prefix.parts().count());
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        parts.join("/")
    }

    /// Every object under `prefix` (a folder), with its key relative to this store, its size and
    /// when it was written, by the store's clock.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn list_with_times(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, u64, DateTime<Utc>)>, Error> {
        let failed = |source| Error::Store {
            key: prefix.to_owned(),
            source,
        };
        self.objects
            .list(Some(&self.location(prefix)))
            .map_ok(|meta| (self.key(&meta.location), meta.size, meta.last_modified))
            .try_collect()
            .await
            .map_err(failed)
    }

    /// Names of the folders directly under this store.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn folders(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Store {
            key: String::new(),
            source,
        };
        let listed = self
            .objects
            .list_with_delimiter(Some(&self.prefix))
            .await
            .map_err(failed)?;
        let name = |path: Path| path.filename().map(str::to_owned);
        Ok(listed
            .common_prefixes
            .into_iter()
            .filter_map(name)
            .collect())
    }

    /// Deletes these objects; those that are gone already are no error.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed; [`Error::ReadOnly`].
    pub async fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        self.check_writable()?;
        let locations: Vec<_> = keys.iter().map(|key| Ok(self.location(key))).collect();
        let results: Vec<_> = self
            .objects
            .delete_stream(futures::stream::iter(locations).boxed())
            .collect()
            .await;
        for result in results {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => {
                    return Err(Error::Store {
                        key: "delete".to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether the store refused a write for good: it is surely not there, and will not be.
pub(crate) fn is_refusal(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::NotSupported { .. } => true,
        object_store::Error::Generic { source, .. } => source.is::<NotWritten>(),
        _ => false,
    }
}

/// The store said that an object exists and then that it does not: a write of it is under way.
fn contradiction(key: &str) -> Error {
    Error::Store {
        key: key.to_owned(),
        source: object_store::Error::Generic {
            store: "object store",
            source: "it says that the object exists and that it does not".into(),
        },
    }
}

/// What was found where an object was to be created.
enum Found {
    Bytes(Bytes),
    Length(u64),
}

/// Counts the attempts at one write.
#[derive(Debug, Default)]
struct Attempts(u32);

impl Attempts {
    /// Waits before the next attempt, or fails with `error` after the last one.
    async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.0 += 1;
        if self.0 >= MAX_ATTEMPTS {
            return Err(error);
        }
        warn!(attempt = self.0, %error, "unclear outcome of a write, writing again");
        tokio::time::sleep(FIRST_PAUSE * 2u32.pow(self.0 - 1)).await;
        Ok(())
    }
}
