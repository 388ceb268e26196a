//! Which trace a request belongs to: W3C trace context in and out, and the id that problems, logs
//! and answers name it by.
//!
//! Source: W3C Trace Context, "traceparent".

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use rand::RngExt as _;
use storage::TRACE;
use tracing::{Span, debug_span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Longest `X-Request-Id` of a client that is taken over.
const LONGEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// The id of the trace that whoever asks works for.
pub fn current_id() -> Option<String> {
    CURRENT.try_with(ToString::to_string).ok()
}

/// `future`, for the trace `id`.
pub fn within<F: Future>(id: Arc<str>, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(id, future)
}

/// One request in its trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// 32 hexadecimal digits. That of the trace if there is one, else made up.
    pub id: Arc<str>,
    /// What the client calls the request; the same as `id` if it has no name for it.
    pub request_id: Arc<str>,
    /// The work of the request. Not there if nobody collects traces.
    pub span: Span,
    parent: String,
}

impl Trace {
    /// The trace of a request with these headers, and a span for it.
    pub fn begin(headers: &HeaderMap, method: &str, route: &str) -> Self {
        let span = debug_span!(
            target: TRACE,
            "request",
            otel.name = format_args!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = field::Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = field::Empty,
        );
        let above = single(headers, "traceparent").and_then(parse);
        let above = above.map(|above| {
            // Several lines are one list.
            let states = headers.get_all("tracestate").iter();
            let states: Vec<&str> = states.filter_map(|state| state.to_str().ok()).collect();
            let state = states.join(",").parse::<TraceState>().unwrap_or_default();
            let (id, span, flags) = above;
            SpanContext::new(id, span, flags, true, state)
        });
        let mut own = None;
        if !span.is_disabled() {
            if let Some(above) = &above {
                let parent = Context::new().with_remote_span_context(above.clone());
                // Fails only where nobody collects traces.
                let _ = span.set_parent(parent);
            }
            own = Some(span.context().span().span_context().clone());
        }
        let own = own.filter(SpanContext::is_valid);
        let mut random = rand::rng();
        let id = own.as_ref().or(above.as_ref()).map_or_else(
            // Of 128 random bits, all are never 0.
            || TraceId::from(random.random::<u128>()),
            SpanContext::trace_id,
        );
        let (span_id, flags) = match &own {
            Some(own) => (own.span_id(), own.trace_flags()),
            None => (
                SpanId::from(random.random::<u64>()),
                TraceFlags::NOT_SAMPLED,
            ),
        };
        let parent = format!("00-{id}-{span_id}-{:02x}", flags.to_u8() & 1);
        let id: Arc<str> = id.to_string().into();
        let request_id = single(headers, "x-request-id").filter(|id| is_plain(id));
        Self {
            request_id: request_id.map_or_else(|| id.clone(), Into::into),
            id,
            span,
            parent,
        }
    }

    /// Says in an answer what the request is called.
    pub fn answer(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.request_id) {
            headers.insert("x-request-id", id);
        }
        if let Ok(parent) = HeaderValue::from_str(&self.parent) {
            headers.insert("traceparent", parent);
        }
    }
}

/// A header that is given once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_plain(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(is_plain)
}

fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = text.split('-');
    let hex = |part: Option<&str>, length: usize| {
        let part = part.filter(|part| part.len() == length)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.bytes().all(is_hex).then(|| part.to_owned())
    };
    let version = hex(parts.next(), 2)?;
    let (trace, span) = (hex(parts.next(), 32)?, hex(parts.next(), 16)?);
    let flags = u8::from_str_radix(&hex(parts.next(), 2)?, 16).ok()?;
    // Later versions may say more.
    if version == "ff" || version == "00" && parts.next().is_some() {
        return None;
    }
    let (trace, span) = (
        TraceId::from_hex(&trace).ok()?,
        SpanId::from_hex(&span).ok()?,
    );
    let is_valid = trace != TraceId::INVALID && span != SpanId::INVALID;
    is_valid.then_some((trace, span, TraceFlags::new(flags & 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOVE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn begin(name: &'static str, value: &str) -> Trace {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        Trace::begin(&headers, "GET", "/x")
    }

    #[test]
    fn a_request_goes_on_with_the_trace_of_its_client() {
        let trace = begin("traceparent", ABOVE);
        assert_eq!(&*trace.id, "0af7651916cd43dd8448eb211c80319c");
        let mut headers = HeaderMap::new();
        trace.answer(&mut headers);
        let answered = headers["traceparent"].to_str().unwrap();
        let (id, span, _) = parse(answered).unwrap();
        assert_eq!(id.to_string(), *trace.id);
        assert_ne!(span.to_string(), "b7ad6b7169203331");
        assert_eq!(headers["x-request-id"], *trace.id);
    }

    #[test]
    fn what_is_no_trace_context_is_not_taken_over() {
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
            let trace = begin("traceparent", wrong);
            assert_eq!(trace.id.len(), 32);
            assert_ne!(&*trace.id, "0af7651916cd43dd8448eb211c80319c");
        }
        let later = ABOVE.replacen("00", "01", 1) + "-more";
        assert!(parse(&later).is_some());
    }

    #[test]
    fn a_client_may_name_its_request_in_plain_words_only() {
        assert_eq!(
            &*begin("x-request-id", "job-7/part.3").request_id,
            "job-7/part.3"
        );
        for wrong in ["", "a b", "\"}{", &"x".repeat(129)] {
            let trace = begin("x-request-id", wrong);
            assert_eq!(trace.request_id, trace.id, "{wrong}");
        }
    }
}
