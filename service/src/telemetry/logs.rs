//! Where log lines and spans go.

use std::io::IsTerminal as _;

use storage::TRACE;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::otlp::Traces;

/// Writes log lines to standard error, for people on a terminal and as JSON elsewhere, and sends
/// traces if there is somebody to send them to. `RUST_LOG` says what is logged: `info` without it.
///
/// # Errors
/// What is wrong with `RUST_LOG`, in words.
pub fn begin(traces: Option<&Traces>) -> Result<(), String> {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = match asked.is_empty() {
        true => EnvFilter::new("info"),
        false => EnvFilter::try_new(&asked).map_err(|error| format!("RUST_LOG: {error}"))?,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match std::io::stderr().is_terminal() {
        true => lines.boxed(),
        false => lines.json().boxed(),
    };
    // Spans are for traces: lines have what they need themselves.
    let lines = lines
        .with_filter(filter)
        .with_filter(filter_fn(|about| !about.is_span()));
    let spans = traces.map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer())
            .with_location(false)
            .with_threads(true)
            .with_target(false)
            .with_filter(filter_fn(|about| about.target() == TRACE))
    });
    let subscriber = Registry::default().with(spans).with(lines);
    subscriber.try_init().map_err(|error| error.to_string())
}
