//! An object store that notes every request and can hand out damaged bytes.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A request that reached the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A read of these bytes of an object.
    Get(String, Range<u64>),
    /// A read of an object that is not there.
    GetAbsent(String),
    /// A request for an object's size.
    Head(String),
    /// A write of so many bytes.
    Put(String, usize),
    /// A listing.
    List(String),
}

/// What is wrong with the one damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The byte at this offset is combined with this mask by exclusive or.
    Flip(u64, u8),
    /// Only the first so many bytes are left.
    Truncate(u64),
    /// Other bytes stand under its name.
    Replace(Bytes),
    /// It is gone.
    Remove,
}

impl Damage {
    /// The bytes the store now has, or `None` if it has none.
    #[must_use]
    pub fn apply(&self, bytes: &Bytes) -> Option<Bytes> {
        match self {
            Self::Flip(offset, mask) => {
                let mut bytes = bytes.to_vec();
                bytes[*offset as usize] ^= mask;
                Some(bytes.into())
            }
            Self::Truncate(length) => Some(bytes.slice(..*length as usize)),
            Self::Replace(other) => Some(other.clone()),
            Self::Remove => None,
        }
    }

    /// Whether a read of `range` can tell.
    #[must_use]
    pub fn shows_in(&self, range: &Range<u64>) -> bool {
        match self {
            Self::Flip(offset, _) => range.contains(offset),
            Self::Truncate(length) => range.end > *length,
            Self::Replace(_) | Self::Remove => true,
        }
    }
}

/// A store over another one. Cloning gives another view of the same log and damage.
#[derive(Clone, Debug)]
pub struct Watched {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    damage: Option<(Path, Damage)>,
}

impl Watched {
    /// Watches `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// Damages the object `key` from now on, or none. What is stored stays as it is.
    pub fn set_damage(&self, damage: Option<(&str, Damage)>) {
        self.state().damage = damage.map(|(key, damage)| (Path::from(key), damage));
    }

    fn damage_of(&self, location: &Path) -> Option<Damage> {
        let state = self.state();
        state
            .damage
            .as_ref()
            .filter(|(path, _)| path == location)
            .map(|(_, damage)| damage.clone())
    }

    fn note(&self, request: Request) {
        self.state().requests.push(request);
    }

    /// Reads as the inner store would if it held the damaged bytes.
    async fn read(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        let Some(damage) = self.damage_of(location) else {
            return self.inner.get_opts(location, options).await;
        };
        let range = options.range.take();
        let whole = self.inner.get_opts(location, options).await?;
        let (mut meta, attributes) = (whole.meta.clone(), whole.attributes.clone());
        let Some(bytes) = damage.apply(&whole.bytes().await?) else {
            return Err(not_found(location));
        };
        meta.size = bytes.len() as u64;
        let range = match range {
            None => 0..meta.size,
            Some(range) => {
                range
                    .as_range(meta.size)
                    .map_err(|error| object_store::Error::Generic {
                        store: "watched",
                        source: Box::new(error),
                    })?
            }
        };
        let part = bytes.slice(range.start as usize..range.end as usize);
        let payload = GetResultPayload::Stream(stream::iter([Ok(part)]).boxed());
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
        })
    }
}

fn not_found(location: &Path) -> object_store::Error {
    object_store::Error::NotFound {
        path: location.to_string(),
        source: "damaged".into(),
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watched {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let length = payload.content_length();
        self.note(Request::Put(location.to_string(), length));
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.note(Request::Put(location.to_string(), 0));
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let found = self.read(location, options).await;
        let key = location.to_string();
        match &found {
            Ok(_) if is_head => self.note(Request::Head(key)),
            Ok(result) => self.note(Request::Get(key, result.range.clone())),
            Err(_) => self.note(Request::GetAbsent(key)),
        }
        found
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note(Request::List(
            prefix.map(Path::to_string).unwrap_or_default(),
        ));
        let removed = {
            let state = self.state();
            state
                .damage
                .clone()
                .filter(|(_, damage)| *damage == Damage::Remove)
        };
        let kept = move |found: &Result<ObjectMeta>| {
            let gone =
                matches!((found, &removed), (Ok(meta), Some((path, _))) if meta.location == *path);
            std::future::ready(!gone)
        };
        self.inner.list(prefix).filter(kept).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.note(Request::List(
            prefix.map(Path::to_string).unwrap_or_default(),
        ));
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
