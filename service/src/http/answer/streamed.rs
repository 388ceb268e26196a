//! Bodies that are sent while they are made.
//!
//! The digest is known when all is sent, so it comes as a trailer, to those who take trailers: all
//! clients of HTTP/2, and those of HTTP/1.1 that say `TE: trailers`. HTTP/1.1 has trailers only in
//! chunked bodies, which do not say their length before; without a trailer, the length is said.
//!
//! A body that fails, or is not as long as was said, breaks the connection: it never ends as if it
//! were whole.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use sha2::{Digest as _, Sha256};
use tracing::error;

use super::{Caching, REPR_DIGEST, digest, set};
use crate::error::Failure;

/// 200 with a body of `length` bytes that come piece by piece.
pub(crate) fn streamed(
    media_type: &'static str,
    pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
    length: u64,
    caching: &Caching,
    (headers, version): (&HeaderMap, Version),
) -> Response {
    let is_multiplexed = version >= Version::HTTP_2;
    let has_trailer = is_multiplexed || takes_trailers(headers);
    let pieces: Source = Arc::new(Mutex::new(Some(Box::pin(pieces))));
    let asked = Arc::new(AtomicU64::new(0));
    tokio::spawn(end_when_stalled(
        Arc::downgrade(&pieces),
        Arc::downgrade(&asked),
    ));
    let body = Pieces {
        pieces,
        asked,
        left: length,
        says_length: is_multiplexed || !has_trailer,
        digest: has_trailer.then(Sha256::new),
        is_done: false,
    };
    let says_length = body.says_length;
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    caching.apply(headers);
    set(headers, header::CONTENT_TYPE, media_type);
    if says_length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if has_trailer {
        set(headers, header::TRAILER, "Repr-Digest");
    }
    response
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    texts.any(|text| {
        let mut items = text.split(',');
        items.any(|item| {
            let name = item.split(';').next().unwrap_or("").trim();
            name.eq_ignore_ascii_case("trailers")
        })
    })
}

/// How long a reader may take nothing of what is there for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pieces; none once the reader was given up.
type Source = Arc<Left>;
type Left = Mutex<Option<BoxStream<'static, Result<Bytes, Failure>>>>;

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives up a reader who does not ask for more: its memory is wanted by others.
async fn end_when_stalled(pieces: Weak<Left>, asked: Weak<AtomicU64>) {
    let mut before = u64::MAX;
    loop {
        let (Some(asked), Some(pieces)) = (asked.upgrade(), pieces.upgrade()) else {
            return;
        };
        let now = asked.load(Ordering::Relaxed);
        if now == before {
            *lock(&pieces) = None;
            return;
        }
        before = now;
        drop((asked, pieces));
        tokio::time::sleep(PATIENCE).await;
    }
}

struct Pieces {
    pieces: Source,
    /// How often more was asked for.
    asked: Arc<AtomicU64>,
    /// Bytes still to come.
    left: u64,
    says_length: bool,
    digest: Option<Sha256>,
    is_done: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let polled = match &mut *lock(&self.pieces) {
            Some(pieces) => pieces.as_mut().poll_next(context),
            None => Poll::Ready(Some(Err(Failure::busy("the reader took nothing for long")))),
        };
        let piece = ready!(polled);
        let left = match &piece {
            Some(Ok(piece)) => self.left.checked_sub(piece.len() as u64),
            Some(Err(_)) => Some(self.left),
            None => (self.left == 0).then_some(0),
        };
        let Some(left) = left else {
            self.is_done = true;
            error!(left = self.left, "a streamed answer has another length");
            return Poll::Ready(Some(Err(io::Error::other("another length"))));
        };
        self.left = left;
        match piece {
            Some(Ok(piece)) => {
                if let Some(digest) = &mut self.digest {
                    digest.update(&piece);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(failure)) => {
                self.is_done = true;
                let detail = failure.problem().detail.clone();
                error!(%detail, "a streamed answer failed");
                Poll::Ready(Some(Err(io::Error::other(detail))))
            }
            None => {
                self.is_done = true;
                let trailer = self.digest.take().map(|sha256| {
                    let mut trailers = HeaderMap::new();
                    set(&mut trailers, REPR_DIGEST, &digest(&sha256.finalize()));
                    Ok(Frame::trailers(trailers))
                });
                Poll::Ready(trailer)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }

    fn size_hint(&self) -> SizeHint {
        match self.says_length {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use futures::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn pieces(last: Result<Bytes, Failure>) -> impl Stream<Item = Result<Bytes, Failure>> {
        let pieces = stream::iter([Ok(Bytes::from_static(b"one ")), last]);
        // Slowly enough for each to be on its way before the next.
        pieces.then(|piece| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            piece
        })
    }

    fn answer(headers: &HeaderMap, version: Version, length: u64) -> Response {
        let pieces = pieces(Ok(Bytes::from_static(b"two")));
        streamed("x/y", pieces, length, &Caching::none(), (headers, version))
    }

    fn te() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::TE, "gzip, trailers;q=0.5".parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn the_digest_is_a_trailer_for_those_who_take_one() {
        for (headers, version, has_length, has_trailer) in [
            (HeaderMap::new(), Version::HTTP_11, true, false),
            (te(), Version::HTTP_11, false, true),
            (HeaderMap::new(), Version::HTTP_2, true, true),
        ] {
            let response = answer(&headers, version, 7);
            let sent = response.headers().clone();
            assert_eq!(sent.contains_key(header::CONTENT_LENGTH), has_length);
            assert_eq!(sent.contains_key(header::TRAILER), has_trailer);
            let body = response.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned();
            assert_eq!(body.to_bytes(), "one two");
            let expected = digest(&Sha256::digest("one two"));
            let found = trailers.map(|trailers| trailers[REPR_DIGEST].clone());
            assert_eq!(found.is_some(), has_trailer);
            assert!(found.is_none_or(|found| found == expected));
        }
    }

    #[tokio::test]
    async fn another_length_and_a_failure_are_errors() {
        for length in [6, 8] {
            let body = answer(&te(), Version::HTTP_11, length).into_body();
            assert!(body.collect().await.is_err(), "{length}");
        }
        let failing = pieces(Err(Failure::busy("no more")));
        let request = (&te(), Version::HTTP_11);
        let response = streamed("x/y", failing, 4, &Caching::none(), request);
        assert!(response.into_body().collect().await.is_err());
    }

    /// What a server sends to a client of HTTP/1.1 until it closes.
    async fn exchange(te: &str, is_failing: bool) -> String {
        let handler = move |version: Version, headers: HeaderMap| async move {
            let last = match is_failing {
                true => Err(Failure::busy("no more")),
                false => Ok(Bytes::from_static(b"two")),
            };
            streamed(
                "x/y",
                pieces(last),
                7,
                &Caching::none(),
                (&headers, version),
            )
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(handler));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{te}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A broken connection is an answer too.
        let _ = client.read_to_end(&mut answer).await;
        server.abort();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn connections_carry_trailers_and_break_on_failure() {
        let te = "TE: trailers\r\n";
        let whole = exchange(te, false).await;
        let trailer = format!("repr-digest: {}", digest(&Sha256::digest("one two")));
        assert!(
            whole.contains(&format!("\r\n0\r\n{trailer}\r\n\r\n")),
            "{whole}"
        );
        let broken = exchange(te, true).await;
        assert!(
            broken.contains("one ") && !broken.contains("\r\n0\r\n"),
            "{broken}"
        );
        let plain = exchange("", false).await;
        assert!(plain.contains("content-length: 7"), "{plain}");
        assert!(plain.ends_with("one two"), "{plain}");
        let short = exchange("", true).await;
        assert!(short.ends_with("one "), "{short}");
    }
}
