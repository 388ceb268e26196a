//! An object store that takes so many changes and no more, as for a process that is killed: what it
//! did until then is done, the rest never happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A store over another one. Clones share what is left.
#[derive(Clone, Debug)]
pub struct Stopping {
    inner: Arc<dyn ObjectStore>,
    left: Arc<AtomicI64>,
}

impl Stopping {
    /// A store over `inner` that takes this many writes and deletions.
    pub fn after(inner: Arc<dyn ObjectStore>, changes: i64) -> Self {
        Self {
            inner,
            left: Arc::new(AtomicI64::new(changes)),
        }
    }

    /// Whether a change was refused.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn change(left: &AtomicI64, location: &Path) -> Result<()> {
        if left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            path: location.to_string(),
            source: "the process was stopped".into(),
        })
    }
}

impl fmt::Display for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopping {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Stopping {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        Self::change(&self.left, location)?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Self::change(&self.left, location)?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let left = self.left.clone();
        let allowed = locations.map(move |location| {
            let location = location?;
            Self::change(&left, &location)?;
            Ok(location)
        });
        self.inner.delete_stream(allowed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        Self::change(&self.left, to)?;
        self.inner.copy_opts(from, to, options).await
    }
}
