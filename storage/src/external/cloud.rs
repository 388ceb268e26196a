//! Objects of cloud stores, by the credentials and endpoints of the environment.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use url::Url;

use super::{Content, changed, unreachable};
use crate::Error;
use crate::backend::Backend;

/// Buckets of which a client is kept.
const MAX_CLIENTS: usize = 256;

/// Clients of cloud stores, one for each bucket.
#[derive(Debug, Default)]
pub(super) struct Clouds(Mutex<HashMap<String, Arc<dyn ObjectStore>>>);

impl Clouds {
    /// Length and etag of an object; `None` if there is none.
    pub(super) async fn look(&self, url: &Url) -> Result<Option<Content>, Error> {
        let (objects, path) = self.object(url)?;
        match objects.head(&path).await {
            Ok(meta) => Ok(Some(content(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreachable(url.as_str(), crate::error::chain(&error))),
        }
    }

    /// Reads a range of an object with this etag.
    pub(super) async fn read(
        &self,
        url: &Url,
        etag: &str,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let (objects, path) = self.object(url)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let length = range.end - range.start;
        // An etag that was made up means nothing to the store.
        let is_own = etag.starts_with(MADE_UP);
        let options = GetOptions {
            if_match: (!is_own).then(|| etag.to_owned()),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let failed = |error: object_store::Error| match error {
            object_store::Error::NotFound { .. } => {
                changed(url.as_str(), "it is not there any more")
            }
            object_store::Error::Precondition { .. } => {
                changed(url.as_str(), "it was modified since")
            }
            error => unreachable(url.as_str(), crate::error::chain(&error)),
        };
        let found = objects.get_opts(&path, options).await.map_err(failed)?;
        if content(&found.meta).etag != etag {
            return Err(changed(url.as_str(), "it was modified since"));
        }
        if found.range.end - found.range.start != length {
            let reason = format!("it has {} bytes, too few", found.meta.size);
            return Err(changed(url.as_str(), reason));
        }
        let bytes = found.bytes().await.map_err(failed)?;
        if bytes.len() as u64 != length {
            let reason = format!("{} bytes came instead of {length}", bytes.len());
            return Err(unreachable(url.as_str(), reason));
        }
        Ok(bytes)
    }

    fn object(&self, url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), Error> {
        let invalid = |reason: String| Error::invalid("source", format!("{url}: {reason}"));
        let path = Path::from_url_path(url.path()).map_err(|error| invalid(error.to_string()))?;
        let bucket = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(objects) = clients.get(&bucket) {
            return Ok((objects.clone(), path));
        }
        let objects = Backend::open(&bucket, &[])?.objects;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(bucket, objects.clone());
        Ok((objects, path))
    }
}

/// What an etag starts with where the store has none.
const MADE_UP: &str = "quarr:";

fn content(meta: &ObjectMeta) -> Content {
    let made_up = || {
        format!(
            "{MADE_UP}{}-{}",
            meta.size,
            meta.last_modified.timestamp_micros()
        )
    };
    Content {
        length: meta.size,
        etag: meta.e_tag.clone().unwrap_or_else(made_up),
    }
}
