//! Serves connections within limits: how many, how long they may idle, how slowly a head may come
//! or an answer be taken; and ends them gently.
//!
//! ```text
//! accept ─► place free? ─► secure(stream) ─► Watched ─► HTTP/1.1 or HTTP/2 ─► router
//!              └ no: 503                        └─ Activity ─► cut, ended or kept
//! ```
//!
//! Limits of single requests are in `http::admission`; they need no socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::auth::Limited;
use crate::state::State;
use crate::telemetry::{Phase, Refused, Telemetry};

/// What clients of a server may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections.
    pub connections: u64,
    /// Most requests that are worked on.
    pub requests: u64,
    /// Most requests that wait.
    pub queued_requests: u64,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// How long an answer may take to begin, after the last of the request came.
    pub request_timeout: Duration,
    /// How long the head of a request may take to come.
    pub header_timeout: Duration,
    /// How long a connection may do nothing.
    pub idle_timeout: Duration,
    /// In this time …
    pub progress_timeout: Duration,
    /// … so many bytes of a body have to come or go.
    pub progress_bytes: u64,
    /// Most bytes of a URL.
    pub url_bytes: u64,
    /// Most bytes of all headers of a request.
    pub header_bytes: u64,
    /// Most headers of a request.
    pub headers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            requests: 512,
            queued_requests: 1024,
            queue_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(600),
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            progress_timeout: Duration::from_secs(30),
            progress_bytes: 16 << 10,
            url_bytes: 32 << 10,
            header_bytes: 64 << 10,
            headers: 128,
        }
    }
}

impl Limits {
    /// How often connections are looked at: several times within the shortest time there is.
    fn look_interval(&self) -> Duration {
        let shortest = self.header_timeout.min(self.idle_timeout);
        let shortest = shortest.min(self.progress_timeout) / 4;
        shortest.clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// What is answered where there is no room for a connection.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 117\r\n\r\n\
    {\"type\":\"/problems/overloaded\",\"title\":\"The service has too much to do\",\"status\":503,\
    \"detail\":\"too many connections\"}";
/// Connections that are told so at once; others are just closed.
const TOLD_AT_ONCE: usize = 64;
/// How long they may take to hear it.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after the system had no file for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until the server stops; then finishes what was begun. `secure` makes
/// what HTTP is spoken over of a connection.
pub async fn serve<S, F>(
    listener: TcpListener,
    secure: impl Fn(TcpStream) -> F + Clone + Send + 'static,
    router: Router,
    state: State,
    limits: Limits,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
    let most = most.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let places = Arc::new(Semaphore::new(most));
    let telling = Arc::new(Semaphore::new(TOLD_AT_ONCE));
    let limits = Arc::new(limits);
    let stopping = state.telemetry().reached(Phase::Stopping);
    let mut stopping = std::pin::pin!(stopping);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            state.refuse(Refused::Connections, Limited::connection(address));
            if let Ok(turn) = telling.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(TELL_TIMEOUT, tell_full(stream)).await;
                    drop(turn);
                });
            }
            continue;
        };
        // Small answers would wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let secured = secure(stream);
        let connection = Connection {
            router: router.clone(),
            state: state.clone(),
            limits: limits.clone(),
            address,
        };
        tokio::spawn(async move {
            let telemetry = connection.state.telemetry();
            let _open = Open::new(telemetry);
            match tokio::time::timeout(connection.limits.header_timeout, secured).await {
                Ok(Ok(stream)) => connection.clone().run(stream).await,
                Ok(Err(error)) => debug!(%error, %address, "a connection was not made"),
                Err(_) => {
                    let limited = Limited::connection(address);
                    connection.state.refuse(Refused::HeaderTimeout, limited);
                }
            }
            drop(place);
        });
    }
    drop(listener);
    // All places are free when all connections have ended.
    let _ = places.acquire_many(most as u32).await;
}

/// Waits a little after an error that is not about one connection.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        warn!(%error, "no connection can be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Says that there is no room, and waits until the client has heard it: closing with bytes unread
/// would take the answer away.
async fn tell_full(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Counts a connection for as long as it is there.
struct Open<'a>(&'a Telemetry);

impl<'a> Open<'a> {
    fn new(telemetry: &'a Telemetry) -> Self {
        telemetry.connected();
        Self(telemetry)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

#[derive(Clone)]
struct Connection {
    router: Router,
    state: State,
    limits: Arc<Limits>,
    address: SocketAddr,
}

impl Connection {
    async fn run<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let io = TokioIo::new(Watched {
            stream,
            activity: activity.clone(),
        });
        let (router, address) = (self.router, self.address);
        let answering = activity.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answering = Answering::new(answering.clone());
            let router = router.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(address));
                // A router never fails.
                let response = router.oneshot(request).await;
                response.map(|response: Response<Body>| {
                    response.map(|body| Answer {
                        body,
                        _answering: answering,
                    })
                })
            }
        });
        let builder = http(&self.limits);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let limited = Limited::connection(address);
        let telemetry = self.state.telemetry();
        let mut stopping = std::pin::pin!(telemetry.reached(Phase::Stopping));
        let mut look = tokio::time::interval(self.limits.look_interval());
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_ending = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        if is_too_large(error.as_ref()) {
                            self.state.refuse(Refused::Headers, limited);
                        }
                        debug!(%error, %address, "a connection ended with an error");
                    }
                    return;
                }
                () = &mut stopping, if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = look.tick() => match activity.verdict(&self.limits) {
                    Verdict::Keep => {}
                    Verdict::End if is_ending => return,
                    Verdict::End => {
                        is_ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::Cut(why) => {
                        self.state.refuse(why, limited);
                        debug!(%address, why = why.name(), "a connection was cut");
                        return;
                    }
                },
            }
        }
    }
}

/// Whether a connection ended because the head of a request was too large.
fn is_too_large(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let error = error.downcast_ref::<hyper::Error>();
    error.is_some_and(hyper::Error::is_parse_too_large)
}

/// Room for what a head has besides headers, and for headers as they come.
const HEAD_SLACK_BYTES: u64 = 16 << 10;
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 256;

fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let head = limits.header_bytes + limits.url_bytes + HEAD_SLACK_BYTES;
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` is stricter, but for a connection that idles.
        .header_read_timeout(limits.idle_timeout)
        .max_headers(usize::try_from(limits.headers).unwrap_or(usize::MAX))
        .max_buf_size(usize::try_from(head).unwrap_or(usize::MAX).max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.progress_timeout)
        .keep_alive_timeout(limits.progress_timeout);
    builder
}

/// What a connection does.
#[derive(Debug)]
struct Activity {
    /// Requests that are being answered.
    requests: AtomicU64,
    written: AtomicU64,
    /// Whether the client has to take something before more can be written.
    is_blocked: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// Since when nothing is answered.
    idle: Instant,
    /// Since when a head is coming.
    head: Option<Instant>,
    /// HTTP/2 has more than heads to say while nothing is answered.
    is_http2: Option<bool>,
    /// Since when the client has to take something, and what was written by then.
    blocked: Option<(Instant, u64)>,
    /// What was written when it was last looked at.
    written: u64,
}

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// It does nothing: it ends when what was begun is done.
    End,
    /// It ends at once.
    Cut(Refused),
}

impl Activity {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            requests: AtomicU64::default(),
            written: AtomicU64::default(),
            is_blocked: AtomicBool::default(),
            times: Mutex::new(Times {
                idle: now,
                // A connection that was made is to be used.
                head: Some(now),
                is_http2: None,
                blocked: None,
                written: 0,
            }),
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return;
        }
        let mut times = self.times();
        // The preface of HTTP/2 begins so, and no request of HTTP/1.1 does.
        let begins_http2 = bytes.starts_with(b"PRI ");
        let is_http2 = *times.is_http2.get_or_insert(begins_http2);
        if !is_http2 && times.head.is_none() {
            times.head = Some(Instant::now());
        }
    }

    fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        self.is_blocked.store(false, Ordering::Relaxed);
    }

    fn verdict(&self, limits: &Limits) -> Verdict {
        let now = Instant::now();
        let mut times = self.times();
        let written = self.written.load(Ordering::Relaxed);
        if self.is_blocked.load(Ordering::Relaxed) {
            let (since, before) = *times.blocked.get_or_insert((now, written));
            if written - before >= limits.progress_bytes {
                times.blocked = Some((now, written));
            } else if now - since >= limits.progress_timeout {
                return Verdict::Cut(Refused::SlowReader);
            }
            // The end of an answer is on its way, though its request has ended here.
            return Verdict::Keep;
        }
        times.blocked = None;
        if written != times.written {
            times.written = written;
            times.idle = now;
        }
        if self.requests.load(Ordering::Relaxed) > 0 {
            return Verdict::Keep;
        }
        if times
            .head
            .is_some_and(|since| now - since >= limits.header_timeout)
        {
            return Verdict::Cut(Refused::HeaderTimeout);
        }
        match now - times.idle >= limits.idle_timeout {
            true => Verdict::End,
            false => Verdict::Keep,
        }
    }
}

/// A request that is being answered, for as long as it is.
struct Answering(Arc<Activity>);

impl Answering {
    fn new(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.times().head = None;
        Self(activity)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.times().idle = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is being sent.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose reads and writes are noted.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.activity.read(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn note<T>(&self, polled: &Poll<io::Result<T>>, bytes: impl Fn(&T) -> usize) {
        match polled {
            Poll::Ready(Ok(written)) => self.activity.wrote(bytes(written)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.is_blocked.store(true, Ordering::Relaxed),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&polled, |written| *written);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.note(&polled, |()| 0);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.note(&polled, |()| 0);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(&polled, |written| *written);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
