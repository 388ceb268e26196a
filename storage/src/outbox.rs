//! A prefix of an object store that other programs read: objects that may be replaced, under
//! exactly the keys they ask for.

use std::path::Path as FsPath;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use tokio::io::AsyncReadExt as _;

use crate::{Error, Store};

/// Files up to this size are one request; larger ones go in parts of this size.
const PART_BYTES: usize = 16 << 20;
/// Parts of a file on their way at once.
const PARTS_IN_FLIGHT: usize = 3;

/// A prefix of an object store to write for others. Cloning is cheap.
///
/// Where a [`Store`] escapes what is unusual in a key, this takes keys as they are, because Zarr
/// clients look for the names of arrays unescaped.
#[derive(Clone, Debug)]
pub struct Outbox(Store);

impl Outbox {
    /// Everything under the prefix of `store`.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// What the store was opened as.
    pub fn url(&self) -> &str {
        self.0.url()
    }

    /// Whether objects are files of this machine.
    pub fn is_local(&self) -> bool {
        self.0.is_local()
    }

    fn location(&self, key: &str) -> Result<Path, Error> {
        let prefix = self.0.prefix().as_ref();
        let whole = match (prefix, key) {
            ("", key) => key.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, key) => format!("{prefix}/{key}"),
        };
        Path::parse(whole).map_err(|error| Error::Invalid {
            what: "key",
            reason: format!("{key:?} cannot be the name of an object: {error}"),
        })
    }

    /// Writes `key`, replacing what was there. A reader sees the old object or the new one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that no object can have; [`Error::Store`] if the store failed.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        let put = self
            .0
            .objects()
            .put(&self.location(key)?, bytes.into())
            .await;
        put.map(drop).map_err(|source| failed(key, source))
    }

    /// Writes `key` with what is in a file, in parts if it is large. The object is there when all of
    /// it is, or not at all.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed; [`Error::Invalid`] if the file cannot be read.
    pub async fn put_file(&self, key: &str, file: &FsPath) -> Result<(), Error> {
        let unreadable = |error: std::io::Error| Error::Invalid {
            what: "file",
            reason: format!("{}: {error}", file.display()),
        };
        let location = self.location(key)?;
        let mut source = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let length = source.metadata().await.map_err(unreadable)?.len();
        if length <= PART_BYTES as u64 {
            let mut bytes = Vec::with_capacity(length as usize);
            source.read_to_end(&mut bytes).await.map_err(unreadable)?;
            return self.put(key, bytes.into()).await;
        }
        let upload = self.0.objects().put_multipart(&location).await;
        let upload = upload.map_err(|source| failed(key, source))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut part = vec![0; PART_BYTES];
        let sent = loop {
            match source.read(&mut part).await {
                Ok(0) => break Ok(()),
                Err(error) => break Err(unreadable(error)),
                Ok(read) => {
                    if let Err(error) = writer.wait_for_capacity(PARTS_IN_FLIGHT).await {
                        break Err(failed(key, error));
                    }
                    writer.write(&part[..read]);
                }
            }
        };
        match sent {
            Ok(()) => writer
                .finish()
                .await
                .map(drop)
                .map_err(|source| failed(key, source)),
            Err(error) => {
                // Parts without their end are no object; stores expire them.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }

    /// Reads a whole object; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        match self.0.objects().get(&self.location(key)?).await {
            Ok(found) => {
                let bytes = found.bytes().await;
                bytes.map(Some).map_err(|source| failed(key, source))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(key, source)),
        }
    }

    /// Whether there is an object with this key.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn has(&self, key: &str) -> Result<bool, Error> {
        match self.0.objects().head(&self.location(key)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(failed(key, source)),
        }
    }

    /// Up to `most` keys under `folder`, relative to it.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn list(&self, folder: &str, most: usize) -> Result<Vec<String>, Error> {
        let location = self.location(folder)?;
        let mut listed = self.0.objects().list(Some(&location));
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(found) = listed.next().await
        {
            let found = found.map_err(|source| failed(folder, source))?.location;
            let key = found.as_ref().strip_prefix(location.as_ref());
            let key = key.unwrap_or_default().trim_start_matches('/');
            if !key.is_empty() {
                keys.push(key.to_owned());
            }
        }
        Ok(keys)
    }

    /// Deletes these objects; those that are gone already are no error.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let locations = keys.iter().map(|key| self.location(key));
        let locations = locations.collect::<Result<Vec<_>, _>>()?;
        let locations = futures::stream::iter(locations.into_iter().map(Ok)).boxed();
        let mut results = self.0.objects().delete_stream(locations);
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(failed("delete", source)),
            }
        }
        Ok(())
    }
}

fn failed(key: &str, source: object_store::Error) -> Error {
    Error::Store {
        key: key.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_taken_as_they_are_and_objects_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let outbox = Outbox::new(store.under("a"));
        std::fs::create_dir(directory.path().join("a")).unwrap();
        for text in ["one", "two"] {
            outbox.put("50% ~/zarr.json", text.into()).await.unwrap();
            let file = directory.path().join("a/50% ~/zarr.json");
            assert_eq!(std::fs::read(file).unwrap(), text.as_bytes());
        }
        assert_eq!(outbox.list("", 9).await.unwrap(), ["50% ~/zarr.json"]);
        assert_eq!(outbox.list("50% ~", 9).await.unwrap(), ["zarr.json"]);
        assert!(outbox.list("", 0).await.unwrap().is_empty());
        assert!(outbox.has("50% ~/zarr.json").await.unwrap());
        let keys = ["50% ~/zarr.json".to_owned(), "gone".to_owned()];
        outbox.delete(&keys).await.unwrap();
        assert_eq!(outbox.get(&keys[0]).await.unwrap(), None);
        assert!(outbox.put("a/../b", "x".into()).await.is_err());
    }

    #[tokio::test]
    async fn a_large_file_goes_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("large");
        let bytes: Vec<u8> = (0..PART_BYTES + 5).map(|at| (at % 251) as u8).collect();
        std::fs::write(&file, &bytes).unwrap();
        let outbox = Outbox::new(Store::open("memory://").unwrap());
        outbox.put_file("whole", &file).await.unwrap();
        assert_eq!(outbox.get("whole").await.unwrap().unwrap(), bytes);
    }
}
