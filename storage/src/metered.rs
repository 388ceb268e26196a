//! The one place where every request to an object store is counted, timed and traced.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};
use tracing::{Instrument as _, Span, debug_span, field};

use crate::TRACE;
use crate::metrics::{Operation, StoreMetrics};
use crate::observation::{self, Observation};

/// An object store whose requests are noted in `metrics`.
#[derive(Debug)]
pub(crate) struct Metered {
    objects: Arc<dyn ObjectStore>,
    metrics: Arc<StoreMetrics>,
}

impl Metered {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, metrics: Arc<StoreMetrics>) -> Self {
        Self { objects, metrics }
    }

    fn begin(&self, operation: Operation, key: &str) -> Request {
        Request::begin(&self.metrics, operation, key)
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

/// A request under way. One that is dropped before it ended was given up, and has no latency.
#[derive(Clone, Debug)]
struct Request {
    metrics: Arc<StoreMetrics>,
    operation: Operation,
    started: Instant,
    span: Span,
    /// Whose work it is; bodies are read where that is not known any more.
    observation: Option<Arc<Observation>>,
}

impl Request {
    fn begin(metrics: &Arc<StoreMetrics>, operation: Operation, key: &str) -> Self {
        metrics.begun(operation);
        Self::new(metrics, operation, key)
    }

    fn new(metrics: &Arc<StoreMetrics>, operation: Operation, key: &str) -> Self {
        let span = debug_span!(
            target: TRACE,
            "store",
            otel.kind = "client",
            operation = operation.name(),
            key,
            bytes = field::Empty,
            error = field::Empty,
        );
        Self {
            metrics: metrics.clone(),
            operation,
            started: Instant::now(),
            span,
            observation: observation::current(),
        }
    }

    fn end(self, bytes: u64, error: Option<&Error>) {
        let time = self.started.elapsed();
        let failed = error.filter(|error| is_failure(error));
        let Self {
            metrics, operation, ..
        } = &self;
        metrics.ended(*operation, bytes, time, failed.is_some());
        if let Some(observation) = &self.observation {
            observation.store(bytes, time);
        }
        self.span.record("bytes", bytes);
        if let Some(error) = failed {
            self.span.record("error", field::display(error));
        }
    }

    /// What `asked` gives, after which the request has ended.
    async fn over<T>(self, bytes: u64, asked: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let result = asked.instrument(self.span.clone()).await;
        let bytes = if result.is_ok() { bytes } else { 0 };
        self.end(bytes, result.as_ref().err());
        result
    }
}

/// Whether the store did not do what it should.
fn is_failure(error: &Error) -> bool {
    !matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
    )
}

/// What a request gives piece by piece; it ends with the last piece.
struct Pieces<T> {
    pieces: BoxStream<'static, Result<T>>,
    size: fn(&T) -> u64,
    bytes: u64,
    request: Option<Request>,
}

impl<T> Pieces<T> {
    fn over(
        pieces: BoxStream<'static, Result<T>>,
        request: Request,
        size: fn(&T) -> u64,
    ) -> BoxStream<'static, Result<T>>
    where
        T: Send + 'static,
    {
        Self {
            pieces,
            size,
            bytes: 0,
            request: Some(request),
        }
        .boxed()
    }
}

impl<T> Stream for Pieces<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let span = self.request.as_ref().map(|request| request.span.clone());
        let _entered = span.as_ref().map(Span::enter);
        let polled = self.pieces.as_mut().poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(piece))) => self.bytes += (self.size)(piece),
            Poll::Ready(ended) => {
                if let Some(request) = self.request.take() {
                    let error = ended.as_ref().and_then(|piece| piece.as_ref().err());
                    request.end(self.bytes, error);
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pieces.size_hint()
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let operation = match options.mode {
            PutMode::Create => Operation::PutIfAbsent,
            PutMode::Overwrite | PutMode::Update(_) => Operation::Put,
        };
        let bytes = payload.content_length() as u64;
        let request = self.begin(operation, location.as_ref());
        let put = self.objects.put_opts(location, payload, options);
        request.over(bytes, put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let request = self.begin(Operation::PutPart, location.as_ref());
        let begun = self.objects.put_multipart_opts(location, options);
        let upload = request.over(0, begun).await?;
        Ok(Box::new(MeteredUpload {
            upload,
            metrics: self.metrics.clone(),
            key: location.to_string(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = match (&options.range, options.head) {
            (_, true) => Operation::Head,
            (Some(_), _) => Operation::GetRange,
            (None, _) => Operation::Get,
        };
        let request = self.begin(operation, location.as_ref());
        let asked = self.objects.get_opts(location, options);
        let mut result = match asked.instrument(request.span.clone()).await {
            Ok(result) => result,
            Err(error) => {
                request.end(0, Some(&error));
                return Err(error);
            }
        };
        if operation == Operation::Head {
            request.end(0, None);
            return Ok(result);
        }
        result.payload = match result.payload {
            GetResultPayload::Stream(pieces) => {
                let size = |piece: &Bytes| piece.len() as u64;
                GetResultPayload::Stream(Pieces::over(pieces, request, size))
            }
            // Read in one go by whoever has it; a stream of it would be read in small pieces.
            file @ GetResultPayload::File(..) => {
                request.end(result.range.end - result.range.start, None);
                file
            }
        };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let request = self.begin(Operation::GetRange, location.as_ref());
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        let asked = self.objects.get_ranges(location, ranges);
        request.over(bytes, asked).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // Back ends delete many objects with one request, so that the time of one is not known:
        // each is timed from the answer before it.
        let mut request = Request::new(&self.metrics, Operation::Delete, "");
        self.objects
            .delete_stream(locations)
            .map(move |deleted| {
                let next = Request {
                    started: Instant::now(),
                    ..request.clone()
                };
                request.metrics.begun(Operation::Delete);
                std::mem::replace(&mut request, next).end(0, deleted.as_ref().err());
                deleted
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let key = prefix.map_or("", Path::as_ref);
        let request = self.begin(Operation::List, key);
        Pieces::over(self.objects.list(prefix), request, |_| 0)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let request = self.begin(Operation::List, prefix.map_or("", Path::as_ref));
        let listed = self.objects.list_with_offset(prefix, offset);
        Pieces::over(listed, request, |_| 0)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let request = self.begin(Operation::List, prefix.map_or("", Path::as_ref));
        let listed = self.objects.list_with_delimiter(prefix);
        request.over(0, listed).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let request = self.begin(Operation::Copy, to.as_ref());
        let copied = self.objects.copy_opts(from, to, options);
        request.over(0, copied).await
    }
}

/// An object written in parts.
#[derive(Debug)]
struct MeteredUpload {
    upload: Box<dyn MultipartUpload>,
    metrics: Arc<StoreMetrics>,
    key: String,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        let request = Request::begin(&self.metrics, Operation::PutPart, &self.key);
        Box::pin(request.over(bytes, self.upload.put_part(data)))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let request = Request::begin(&self.metrics, Operation::PutPart, &self.key);
        request.over(0, self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let request = Request::begin(&self.metrics, Operation::PutPart, &self.key);
        request.over(0, self.upload.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;
    use crate::{Put, Store};

    #[tokio::test]
    async fn every_request_is_counted_once_by_what_it_asks() {
        let store = Store::from_objects(Arc::new(InMemory::new()), "test");
        let bytes = Bytes::from_static(b"0123456789");
        let observation = Arc::<Observation>::default();
        let work = async {
            let first = store.put_if_absent("a", bytes.clone()).await.unwrap();
            let second = store.put_if_absent("a", bytes.clone()).await.unwrap();
            assert_eq!((first, second), (Put::Created, Put::AlreadyThere));
            store.overwrite("b", bytes.clone()).await.unwrap();
            assert_eq!(store.get("a").await.unwrap().unwrap(), bytes);
            assert_eq!(store.get("none").await.unwrap(), None);
            store.get_range("a", 2..5).await.unwrap();
            assert_eq!(store.list("").await.unwrap().len(), 2);
            store.under("x").folders().await.unwrap();
            let upload = store.objects().put_multipart(&"c".into()).await;
            let mut upload = upload.unwrap();
            upload.put_part(bytes.clone().into()).await.unwrap();
            upload.complete().await.unwrap();
            let keys = ["a", "b", "c"].map(str::to_owned);
            store.delete(keys.to_vec()).await.unwrap();
            assert!(store.get_range("a", 0..1).await.is_err());
        };
        observation::observed(observation.clone(), work).await;
        let count = |operation| {
            let of = store.metrics().operation(operation);
            assert_eq!(of.latency().count(), of.requests(), "{operation:?}");
            (of.requests(), of.bytes(), of.errors())
        };
        assert_eq!(count(Operation::PutIfAbsent), (2, 10, 0));
        assert_eq!(count(Operation::Put), (1, 10, 0));
        assert_eq!(count(Operation::Get), (2, 10, 0));
        assert_eq!(count(Operation::GetRange), (2, 3, 0));
        assert_eq!(count(Operation::List), (2, 0, 0));
        assert_eq!(count(Operation::PutPart), (3, 10, 0));
        assert_eq!(count(Operation::Delete), (3, 0, 0));
        let observed = observation.observed();
        assert_eq!((observed.store_requests, observed.store_bytes), (15, 43));
    }
}
