//! A store that is set up with the first request to it.
//!
//! Setting up may ask others, for credentials or where a bucket is. If it fails, that is the answer
//! to the request, and the next one tries again.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::OnceCell;

type SetUp = dyn Fn() -> BoxFuture<'static, Result<AmazonS3>> + Send + Sync;

/// A store that is set up with the first request to it. Clones share it.
#[derive(Clone)]
pub(super) struct Deferred(Arc<Inner>);

struct Inner {
    name: String,
    set_up: Box<SetUp>,
    store: OnceCell<AmazonS3>,
}

impl Deferred {
    /// One that `set_up` makes; `name` is what it is called until then.
    pub(super) fn new<F, R>(name: String, set_up: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<AmazonS3>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            name,
            set_up: Box::new(move || set_up().boxed()),
            store: OnceCell::new(),
        }))
    }

    async fn store(&self) -> Result<&AmazonS3> {
        self.0.store.get_or_try_init(|| (self.0.set_up)()).await
    }

    /// The stream that `make` makes of the store.
    fn stream<T, F>(&self, make: F) -> BoxStream<'static, Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&AmazonS3) -> BoxStream<'static, Result<T>> + Send + 'static,
    {
        let this = self.clone();
        stream::once(async move { this.store().await.map(make) })
            .try_flatten()
            .boxed()
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deferred({})", self.0.name)
    }
}

impl fmt::Display for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

#[async_trait]
impl ObjectStore for Deferred {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store()
            .await?
            .put_opts(location, payload, options)
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store()
            .await?
            .put_multipart_opts(location, options)
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store().await?.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store().await?.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.stream(move |store| store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.stream(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.stream(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store().await?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store().await?.copy_opts(from, to, options).await
    }
}
