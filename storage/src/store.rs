//! The object store as a repository needs it: put-if-absent, get, ranged get, list, delete.
//!
//! Nothing here trusts what it reads; callers check hashes.

use std::fmt;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig, aws, azure,
    gcp, memory::InMemory,
};
use url::Url;

use crate::Error;
use crate::durable::DurableDirectory;

/// Retries inside the client library, for reads and idempotent writes.
const REQUEST_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

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
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} {})", self.url, self.prefix)
    }
}

impl Store {
    /// Opens the store at `url`: a directory, `file://…`, `memory://`, `s3://bucket/prefix`,
    /// `gs://…` or `az://…`. Credentials and endpoints of cloud stores come from the environment
    /// variables of their own tools (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    ///
    /// A local directory is created when something is written.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL is not understood or the store cannot be set up.
    pub fn open(url: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::invalid("store", reason);
        let parsed = match Url::parse(url) {
            // A single letter is a Windows drive, not a scheme.
            Ok(parsed) if parsed.scheme().len() > 1 => parsed,
            _ => return Self::local(FsPath::new(url)),
        };
        let retry = RetryConfig {
            retry_timeout: REQUEST_RETRY_TIMEOUT,
            ..Default::default()
        };
        let failed = |error: object_store::Error| invalid(format!("{url}: {error}"));
        let objects: Arc<dyn ObjectStore> = match parsed.scheme() {
            "file" => {
                let path = parsed
                    .to_file_path()
                    .map_err(|()| invalid(format!("{url} is not a local path")))?;
                return Self::local(&path);
            }
            "memory" => Arc::new(InMemory::new()),
            "s3" | "s3a" => Arc::new(
                aws::AmazonS3Builder::from_env()
                    .with_url(url)
                    .with_conditional_put(aws::S3ConditionalPut::ETagMatch)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?,
            ),
            "gs" => Arc::new(
                gcp::GoogleCloudStorageBuilder::from_env()
                    .with_url(url)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?,
            ),
            "az" | "azure" | "abfs" | "abfss" => Arc::new(
                azure::MicrosoftAzureBuilder::from_env()
                    .with_url(url)
                    .with_retry(retry)
                    .build()
                    .map_err(failed)?,
            ),
            scheme => {
                let reason = format!(
                    "{scheme:?} in {url:?} is none of file, memory, s3, gs, az; a local directory needs no scheme"
                );
                return Err(invalid(reason));
            }
        };
        let prefix = Path::from_url_path(parsed.path())
            .map_err(|error| invalid(format!("{url}: {error}")))?;
        Ok(Self {
            objects,
            prefix,
            url: url.into(),
            is_local: false,
        })
    }

    fn local(path: &FsPath) -> Result<Self, Error> {
        let directory = DurableDirectory::new(path)
            .map_err(|error| Error::invalid("store", format!("{}: {error}", path.display())))?;
        Ok(Self {
            url: path.display().to_string().into(),
            objects: Arc::new(directory),
            prefix: Path::default(),
            is_local: true,
        })
    }

    /// A store over any back end; `url` is what messages call it.
    pub fn from_objects(objects: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self {
            objects,
            prefix: Path::default(),
            url: url.into(),
            is_local: false,
        }
    }

    /// What the store was opened as.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The part of this store under `name`.
    #[must_use]
    pub fn under(&self, name: &str) -> Self {
        Self {
            prefix: self.prefix.clone().join(name),
            ..self.clone()
        }
    }

    fn location(&self, key: &str) -> Path {
        Path::from_iter(self.prefix.parts().chain(Path::from(key).parts()))
    }

    /// Creates `key`, unless it exists.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed or gave no clear answer.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, Error> {
        let options = PutOptions {
            mode: PutMode::Create,
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
        if self.put_if_absent(key, bytes.clone()).await? == Put::Created {
            return Ok(());
        }
        if self.is_local {
            if self.get_existing(key).await? != bytes {
                return Err(Error::corrupt(
                    key,
                    "other bytes are stored under this name",
                ));
            }
            return Ok(());
        }
        let failed = |source| Error::Store {
            key: key.to_owned(),
            source,
        };
        let found = self
            .objects
            .head(&self.location(key))
            .await
            .map_err(failed)?;
        if found.size != bytes.len() as u64 {
            let reason = format!(
                "it has {} bytes where {} were to be written",
                found.size,
                bytes.len()
            );
            return Err(Error::corrupt(key, reason));
        }
        Ok(())
    }

    /// Writes `key`, replacing what was there. For hints only.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn overwrite(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
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
        Ok(self.get_with_time(key).await?.map(|(bytes, _)| bytes))
    }

    /// Reads a whole object and when the store says it was written.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn get_with_time(&self, key: &str) -> Result<Option<(Bytes, DateTime<Utc>)>, Error> {
        let failed = |source| Error::Store {
            key: key.to_owned(),
            source,
        };
        match self.objects.get(&self.location(key)).await {
            Ok(found) => {
                let time = found.meta.last_modified;
                Ok(Some((found.bytes().await.map_err(failed)?, time)))
            }
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
        let wanted = range.end - range.start;
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
                match self.objects.head(&self.location(key)).await {
                    Ok(meta) => Err(Error::corrupt(
                        key,
                        format!(
                            "a range of {wanted} bytes cannot be read from its {}: {source}",
                            meta.size
                        ),
                    )),
                    Err(_) => Err(Error::Store {
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
        let location = self.location(prefix);
        let failed = |source| Error::Store {
            key: prefix.to_owned(),
            source,
        };
        let found: Vec<ObjectMeta> = self
            .objects
            .list(Some(&location))
            .try_collect()
            .await
            .map_err(failed)?;
        let own = self.prefix.parts().count();
        let relative = |meta: ObjectMeta| {
            let key: Vec<_> = meta
                .location
                .parts()
                .skip(own)
                .map(|p| p.as_ref().to_owned())
                .collect();
            (key.join("/"), meta.size)
        };
        Ok(found.into_iter().map(relative).collect())
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
    /// [`Error::Store`] if the store failed.
    pub async fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
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
