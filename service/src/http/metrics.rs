//! Counts for Prometheus.

use std::fmt::Write as _;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use query::Tier;

use super::extract::Shared;
use crate::state::State;

/// Source: Prometheus text exposition format 0.0.4.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counts of the read path: caches, requests to the store, memory.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(Shared(state): Shared<State>) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], text(&state)).into_response()
}

fn text(state: &State) -> String {
    let engine = state.engine();
    let counters = engine.counters();
    let mut text = Text::default();
    let tiers = Tier::ALL.map(|tier| (tier.name(), tier));
    text.family(
        "quarr_cache_hits_total",
        "counter",
        "Lookups in a cache that found something.",
    );
    for (name, tier) in tiers {
        text.sample(
            "quarr_cache_hits_total",
            &format!("cache=\"{name}\""),
            counters.hits(tier),
        );
    }
    text.family(
        "quarr_cache_misses_total",
        "counter",
        "Lookups in a cache that found nothing.",
    );
    for (name, tier) in tiers {
        text.sample(
            "quarr_cache_misses_total",
            &format!("cache=\"{name}\""),
            counters.misses(tier),
        );
    }
    text.family("quarr_cache_bytes", "gauge", "Bytes in a cache.");
    for ((name, _), bytes) in tiers.iter().zip(engine.cached_bytes()) {
        text.sample("quarr_cache_bytes", &format!("cache=\"{name}\""), bytes);
    }
    let (requests, bytes) = counters.requests();
    let (used, limit) = engine.memory();
    let (waiting, refused) = engine.queue();
    for (name, kind, help, value) in [
        (
            "quarr_chunk_requests_total",
            "counter",
            "Reads of chunks that went to the store.",
            requests,
        ),
        (
            "quarr_chunk_request_bytes_total",
            "counter",
            "Bytes these asked for.",
            bytes,
        ),
        (
            "quarr_chunk_hedges_total",
            "counter",
            "Reads sent again because the store was slow.",
            counters.hedges(),
        ),
        (
            "quarr_work_bytes",
            "gauge",
            "Memory that requests have taken.",
            used,
        ),
        (
            "quarr_work_limit_bytes",
            "gauge",
            "Memory of all requests together.",
            limit,
        ),
        (
            "quarr_work_waiting",
            "gauge",
            "Requests that wait for memory.",
            waiting,
        ),
        (
            "quarr_work_refused_total",
            "counter",
            "Requests refused for want of memory.",
            refused,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(name, "", value);
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let labels = match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
