//! Every request, from its head to the last byte of its answer: counted, timed, traced, logged.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use storage::observation::{Observation, Observed, observed, observed_now};
use tracing::{Instrument as _, debug, info};

use super::admission::Permit;
use crate::state::State;
use crate::telemetry::requests::{NO_ROUTE, Running, method_name};
use crate::telemetry::trace::{Trace, within};

/// Source: W3C Server Timing.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Query parameters that a slow request is logged with: what was selected, and nothing that may be
/// a secret.
const LOGGED_PARAMETERS: [&str; 9] = [
    "slice", "reduce", "over", "groupby", "decode", "f", "keepdims", "chunk", "list",
];
/// And those that begin so.
const LOGGED_PREFIXES: [&str; 2] = ["sel.", "coarsen."];
/// Most of them that is logged, in bytes.
const LOGGED_BYTES: usize = 512;

pub(crate) async fn observe(
    Shared(state): Shared<State>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route: Arc<str> = matched.map_or(NO_ROUTE, MatchedPath::as_str).into();
    let trace = Trace::begin(request.headers(), method, &route);
    let number = state.telemetry().requests().begin(Running {
        method,
        route,
        id: trace.id.clone(),
        started,
    });
    let uri = request.uri();
    let mut finish = Finish {
        path: uri.path().to_owned(),
        selection: logged(uri.query().unwrap_or("")),
        state,
        number,
        trace: trace.clone(),
        observation: Arc::default(),
        status: None,
        bytes: 0,
        is_whole: false,
        is_endless: false,
    };
    let counted = finish.state.clone();
    let request = request.map(|body| {
        Body::new(Received {
            body,
            state: counted,
        })
    });
    let work = next.run(request).instrument(trace.span.clone());
    let work = observed(finish.observation.clone(), within(trace.id.clone(), work));
    let mut response = work.await;
    let status = response.status();
    finish.status = Some(status);
    let permit = response.extensions_mut().remove::<Permit>();
    let headers = response.headers_mut();
    trace.answer(headers);
    let media_type = headers.get(header::CONTENT_TYPE);
    finish.is_endless = media_type.is_some_and(|media_type| media_type == "text/event-stream");
    let seen = finish.observation.observed();
    if seen.is_read
        && let Ok(timing) = HeaderValue::from_str(&timing(&seen, started.elapsed()))
    {
        headers.insert(SERVER_TIMING, timing);
    }
    response.map(|body| {
        Body::new(Sent {
            body,
            // Who follows events for hours takes no room from others.
            _permit: permit.filter(|_| !finish.is_endless),
            finish,
        })
    })
}

/// Times of the parts of a request until its answer began, in milliseconds. Fetching and decoding
/// are added up over what was done at the same time.
fn timing(seen: &Observed, total: Duration) -> String {
    let parts = [
        ("plan", seen.plan),
        ("fetch", seen.store),
        ("decode", seen.pool),
        ("encode", seen.encode),
        ("total", total),
    ];
    let parts = parts.map(|(name, time)| format!("{name};dur={:.3}", millis(time)));
    parts.join(", ")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The parameters of a query that may be logged.
fn logged(query: &str) -> String {
    let is_logged = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or("");
        LOGGED_PARAMETERS.contains(&name)
            || LOGGED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let parameters: Vec<&str> = query.split('&').filter(is_logged).collect();
    let mut text = parameters.join("&");
    let mut end = text.len().min(LOGGED_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What is to be done when a request has ended, however it ended.
struct Finish {
    state: State,
    number: u64,
    path: String,
    selection: String,
    trace: Trace,
    observation: Arc<Observation>,
    /// `None` until there is an answer.
    status: Option<StatusCode>,
    bytes: u64,
    is_whole: bool,
    is_endless: bool,
}

impl Drop for Finish {
    fn drop(&mut self) {
        let telemetry = self.state.telemetry();
        let status = self.status.filter(|_| self.is_whole || self.is_endless);
        let Some((running, time)) = telemetry.requests().end(self.number, status) else {
            return;
        };
        let span = &self.trace.span;
        if let Some(status) = self.status {
            span.record("http.response.status_code", status.as_u16());
        }
        if status.is_none_or(|status| status.is_server_error()) {
            span.record("otel.status_code", "ERROR");
        }
        let seen = self.observation.observed();
        // One macro for each level: the level of a line is fixed where it is written.
        macro_rules! line {
            ($log:ident, $message:literal) => {
                $log!(
                    trace_id = %self.trace.id,
                    request_id = %self.trace.request_id,
                    method = running.method,
                    route = %running.route,
                    path = %self.path,
                    selection = %self.selection,
                    status = self.status.map_or(0, |status| status.as_u16()),
                    complete = self.is_whole,
                    bytes = self.bytes,
                    total_ms = millis(time),
                    plan_ms = millis(seen.plan),
                    fetch_ms = millis(seen.store),
                    decode_ms = millis(seen.pool),
                    wait_ms = millis(seen.pool_wait),
                    encode_ms = millis(seen.encode),
                    chunks = seen.chunks,
                    cache_hits = seen.cache_hits,
                    cache_misses = seen.cache_misses,
                    store_requests = seen.store_requests,
                    store_bytes = seen.store_bytes,
                    $message
                )
            };
        }
        match telemetry.slow() {
            Some(slow) if time >= slow && !self.is_endless => line!(info, "slow request"),
            _ => line!(debug, "request"),
        }
    }
}

/// The body of a request, counted.
struct Received {
    body: Body,
    state: State,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.state
                .telemetry()
                .requests()
                .received(data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer: what is done for it while it is sent is noted for its request, too.
struct Sent {
    body: Body,
    _permit: Option<Permit>,
    finish: Finish,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, finish, .. } = &mut *self;
        let span = finish.trace.span.clone();
        let poll = || span.in_scope(|| Pin::new(&mut *body).poll_frame(context));
        let polled = observed_now(finish.observation.clone(), poll);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    finish.bytes += data.len() as u64;
                    let requests = finish.state.telemetry().requests();
                    requests.sent(data.len() as u64);
                }
            }
            Poll::Ready(None) => finish.is_whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        // Of a body whose length is known, nobody may ask for what comes after its last byte.
        if finish.bytes > 0 && has_ended(body) {
            finish.is_whole = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // An answer without a body, or to HEAD, is whole when it is dropped.
        if self.finish.bytes == 0 && has_ended(&self.body) {
            self.finish.is_whole = true;
        }
    }
}

/// Whether nothing more is to come of a body.
fn has_ended(body: &Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// An error of a body, as the code below has it.
pub(crate) fn io_error(kind: io::ErrorKind, reason: &'static str) -> axum::Error {
    axum::Error::new(io::Error::new(kind, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_selected_is_logged_and_nothing_else_of_a_query() {
        let query = "slice=0:4&token=s3cret&sel.time=2020&X-Amz-Signature=s3cret&reduce=mean";
        assert_eq!(logged(query), "slice=0:4&sel.time=2020&reduce=mean");
        let long = format!("slice={}é", "1,".repeat(300));
        assert_eq!(logged(&long).len(), LOGGED_BYTES);
        let split = format!("slice={}é", "x".repeat(LOGGED_BYTES - 7));
        assert_eq!(logged(&split).len(), LOGGED_BYTES - 1);
    }

    #[test]
    fn timings_are_in_milliseconds() {
        let seen = Observed {
            plan: Duration::from_micros(1500),
            ..Observed::default()
        };
        let text = timing(&seen, Duration::from_secs(2));
        assert!(
            text.starts_with("plan;dur=1.500, fetch;dur=0.000"),
            "{text}"
        );
        assert!(text.ends_with("total;dur=2000.000"), "{text}");
    }
}
