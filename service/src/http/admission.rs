//! What a request may take before anything is done for it: length of its URL and head, a place
//! among those that are worked on, time, and how slowly its body may come.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::observe::io_error;
use crate::auth::Limited;
use crate::error::Failure;
use crate::serving::Limits;
use crate::state::State;
use crate::telemetry::Refused;

/// Paths that answer however much there is to do: who looks after a busy server needs them.
const ALWAYS: [&str; 5] = ["/livez", "/readyz", "/metrics", "/v1/status", "/v1/limits"];

/// How many requests are worked on.
#[derive(Debug)]
pub struct Admission {
    free: Arc<Semaphore>,
    waiting: AtomicU64,
}

/// A place among the requests that are worked on: an extension of the answer that is held until it
/// is sent.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    _place: Arc<OwnedSemaphorePermit>,
}

impl Admission {
    /// Room for so many requests.
    pub fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicU64::default(),
        }
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes a place, waiting for it in turn.
    ///
    /// # Errors
    /// 503 if too many wait already, or none is free in time.
    async fn enter(&self, limits: &Limits) -> Result<Permit, Failure> {
        if let Ok(place) = self.free.clone().try_acquire_owned() {
            return Ok(Permit {
                _place: Arc::new(place),
            });
        }
        let waiting = Waiting::new(&self.waiting);
        let ahead = waiting.1;
        if ahead >= limits.queued_requests {
            return Err(Failure::overloaded(
                limits.queued_requests,
                format!("{ahead} requests wait already: try again later"),
            ));
        }
        let place = self.free.clone().acquire_owned();
        match tokio::time::timeout(limits.queue_timeout, place).await {
            Ok(Ok(place)) => Ok(Permit {
                _place: Arc::new(place),
            }),
            _ => Err(Failure::overloaded(
                limits.requests,
                format!(
                    "the requests before it took longer than {}: try again later",
                    humantime::format_duration(limits.queue_timeout)
                ),
            )),
        }
    }
}

/// One that waits, after so many others.
struct Waiting<'a>(&'a AtomicU64, u64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self(count, before)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets a request in, if a server has limits: a program that asks itself has none.
pub(crate) async fn admit(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let Some((limits, admission)) = state.serving() else {
        return next.run(request).await;
    };
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = address.map(|ConnectInfo(address)| *address);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let refuse = |why: Refused, failure: Failure| {
        let response = failure.into_response();
        let limited = Limited {
            address,
            asked: Some((&method, &path)),
            status: Some(response.status().as_u16()),
        };
        state.refuse(why, limited);
        response
    };
    let url = request
        .uri()
        .path_and_query()
        .map_or(0, |url| url.as_str().len()) as u64;
    if url > limits.url_bytes {
        return refuse(Refused::Url, Failure::url_too_long(limits.url_bytes, url));
    }
    let (count, bytes) = size(request.headers());
    if bytes > limits.header_bytes {
        let detail = format!("{bytes} bytes, the most is {}", limits.header_bytes);
        let failure = Failure::headers_too_large(limits.header_bytes, detail);
        return refuse(Refused::Headers, failure);
    }
    if count > limits.headers {
        let detail = format!("there are {count}, the most is {}", limits.headers);
        let failure = Failure::headers_too_large(limits.headers, detail);
        return refuse(Refused::Headers, failure);
    }
    let permit = match ALWAYS.contains(&request.uri().path()) {
        true => None,
        false => match admission.enter(limits).await {
            Ok(permit) => Some(permit),
            Err(failure) => return refuse(Refused::Requests, failure),
        },
    };
    let arrival = Arc::new(Arrival::new(Instant::now()));
    let request = request.map(|body| {
        Body::new(Arriving {
            body,
            arrival: arrival.clone(),
            window: limits.progress_timeout,
            least: limits.progress_bytes,
            came: 0,
            waiting: None,
        })
    });
    let answered = tokio::select! {
        answered = next.run(request) => Some(answered),
        () = arrival.deadline(limits.request_timeout) => None,
    };
    let mut response = match answered {
        None => refuse(Refused::Deadline, Failure::deadline(limits.request_timeout)),
        Some(_) if arrival.is_stalled() => {
            let failure = Failure::slow_body(limits.progress_bytes, limits.progress_timeout);
            let mut response = refuse(Refused::SlowBody, failure);
            // What is left of the body is not waited for.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            response
        }
        Some(response) => response,
    };
    if let Some(permit) = permit {
        response.extensions_mut().insert(permit);
    }
    response
}

/// How many headers there are, and their bytes as HTTP/1.1 writes them.
fn size(headers: &HeaderMap) -> (u64, u64) {
    let bytes = headers
        .iter()
        .map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64);
    (headers.len() as u64, bytes.sum())
}

/// How a body comes.
#[derive(Debug)]
struct Arrival {
    /// When some of it came last.
    last: Mutex<Instant>,
    stalled: AtomicBool,
}

impl Arrival {
    fn new(now: Instant) -> Self {
        Self {
            last: Mutex::new(now),
            stalled: AtomicBool::default(),
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Waits until nothing of the body has come for so long.
    async fn deadline(&self, after: Duration) {
        loop {
            let due = *self.last() + after;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A body that fails if it comes too slowly. Time in which nobody asks for it does not count.
struct Arriving {
    body: Body,
    arrival: Arc<Arrival>,
    window: Duration,
    least: u64,
    /// Bytes that came in this window.
    came: u64,
    /// The end of this window, while more is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.came += bytes;
                *this.arrival.last() = Instant::now();
                if this.came >= this.least {
                    this.came = 0;
                    this.waiting = None;
                }
                return polled;
            }
            Poll::Ready(_) => return polled,
            Poll::Pending => {}
        }
        let window = this.window;
        let waiting = this
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(window)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.arrival.stalled.store(true, Ordering::Relaxed);
        let reason = "the body comes too slowly";
        Poll::Ready(Some(Err(io_error(std::io::ErrorKind::TimedOut, reason))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
