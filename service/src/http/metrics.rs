//! Metrics for Prometheus; `docs/operations.md` has a table of them all.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use query::Tier;
use storage::metrics::Operation;

use super::extract::Shared;
use super::gpu;
use crate::jobs::JobSpec;
use crate::state::State;
use crate::telemetry::exposition::{Exposition, Kind, MEDIA_TYPE};
use crate::telemetry::process::Process;
use crate::telemetry::{Phase, Refused};

/// Counts of requests, caches, the object store, memory, threads, CUDA devices, commits, jobs and the
/// process.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(Shared(state): Shared<State>) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], text(&state)).into_response()
}

fn text(state: &State) -> String {
    let mut text = Exposition::default();
    requests(&mut text, state);
    caches(&mut text, state);
    store(&mut text, state);
    work(&mut text, state);
    gpu::expose(&mut text, state.engine().devices());
    jobs(&mut text, state);
    process(&mut text, state);
    text.into_text()
}

fn requests(text: &mut Exposition, state: &State) {
    let telemetry = state.telemetry();
    let requests = telemetry.requests();
    let mut family = text.family(
        "quarr_http_request_duration_seconds",
        Kind::Histogram,
        "Time from the head of a request to the end of its answer.",
    );
    for (route, (method, class), times) in requests.times() {
        let labels = [("route", &*route), ("method", method), ("status", class)];
        family.histogram(&labels, &times);
    }
    text.single(
        "quarr_http_requests_in_flight",
        Kind::Gauge,
        "Requests that are being answered.",
        requests.running_count(),
    );
    text.single(
        "quarr_http_requests_waiting",
        Kind::Gauge,
        "Requests that wait for others to end.",
        state
            .serving()
            .map_or(0, |(_, admission)| admission.waiting()),
    );
    text.single(
        "quarr_http_requests_aborted_total",
        Kind::Counter,
        "Requests whose answer was not taken to its end.",
        requests.aborted(),
    );
    let (received, sent) = requests.bytes();
    text.single(
        "quarr_http_received_bytes_total",
        Kind::Counter,
        "Bytes of bodies of requests.",
        received,
    );
    text.single(
        "quarr_http_sent_bytes_total",
        Kind::Counter,
        "Bytes of bodies of answers.",
        sent,
    );
    text.single(
        "quarr_http_connections",
        Kind::Gauge,
        "Connections of clients.",
        telemetry.connections(),
    );
    let mut family = text.family(
        "quarr_http_refused_total",
        Kind::Counter,
        "Requests and connections refused or cut, by the limit they passed.",
    );
    for why in Refused::ALL {
        family.sample(&[("limit", why.name())], telemetry.refused(why));
    }
}

fn caches(text: &mut Exposition, state: &State) {
    let engine = state.engine();
    let counters = engine.counters();
    let mut family = text.family(
        "quarr_cache_hits_total",
        Kind::Counter,
        "Lookups in a cache that found something.",
    );
    for tier in Tier::ALL {
        family.sample(&[("cache", tier.name())], counters.hits(tier));
    }
    let mut family = text.family(
        "quarr_cache_misses_total",
        Kind::Counter,
        "Lookups in a cache that found nothing.",
    );
    for tier in Tier::ALL {
        family.sample(&[("cache", tier.name())], counters.misses(tier));
    }
    let mut family = text.family("quarr_cache_bytes", Kind::Gauge, "Bytes in a cache.");
    for (tier, bytes) in Tier::ALL.iter().zip(engine.cached_bytes()) {
        family.sample(&[("cache", tier.name())], bytes);
    }
    let (requests, bytes) = counters.requests();
    text.single(
        "quarr_chunk_requests_total",
        Kind::Counter,
        "Reads of chunks that went to the store.",
        requests,
    );
    text.single(
        "quarr_chunk_request_bytes_total",
        Kind::Counter,
        "Bytes these asked for.",
        bytes,
    );
    text.single(
        "quarr_chunk_hedges_total",
        Kind::Counter,
        "Reads sent again because the store was slow.",
        counters.hedges(),
    );
}

fn store(text: &mut Exposition, state: &State) {
    let metrics = state.store().metrics();
    let each = Operation::ALL.map(|operation| {
        let labels = [("operation", operation.name())];
        (labels, metrics.operation(operation))
    });
    let mut family = text.family(
        "quarr_store_requests_total",
        Kind::Counter,
        "Requests to the object store.",
    );
    for (labels, of) in &each {
        family.sample(labels, of.requests());
    }
    let mut family = text.family(
        "quarr_store_errors_total",
        Kind::Counter,
        "Requests that the object store failed.",
    );
    for (labels, of) in &each {
        family.sample(labels, of.errors());
    }
    let mut family = text.family(
        "quarr_store_bytes_total",
        Kind::Counter,
        "Bytes of objects read and written.",
    );
    for (labels, of) in &each {
        family.sample(labels, of.bytes());
    }
    let mut family = text.family(
        "quarr_store_request_duration_seconds",
        Kind::Histogram,
        "Time of a request to the object store, to the last byte of its answer.",
    );
    for (labels, of) in &each {
        family.histogram(labels, of.latency());
    }
    text.single(
        "quarr_commits_total",
        Kind::Counter,
        "Commits that went through.",
        metrics.commits(),
    );
    text.single(
        "quarr_commit_retries_total",
        Kind::Counter,
        "Log entries made again because another writer was faster.",
        metrics.retries(),
    );
    text.single(
        "quarr_commit_conflicts_total",
        Kind::Counter,
        "Commits refused because of what others had committed.",
        metrics.conflicts(),
    );
}

fn work(text: &mut Exposition, state: &State) {
    let engine = state.engine();
    let (threads, busy, queued) = engine.threads();
    text.single(
        "quarr_cpu_threads",
        Kind::Gauge,
        "Threads that decode and compute.",
        threads,
    );
    text.single(
        "quarr_cpu_threads_busy",
        Kind::Gauge,
        "Those that are at work.",
        busy,
    );
    text.single(
        "quarr_cpu_queue_length",
        Kind::Gauge,
        "Pieces of work that wait for a thread.",
        queued,
    );
    let (used, limit) = engine.memory();
    let (waiting, refused) = engine.queue();
    text.single(
        "quarr_work_bytes",
        Kind::Gauge,
        "Memory that requests have taken.",
        used,
    );
    text.single(
        "quarr_work_limit_bytes",
        Kind::Gauge,
        "Memory of all requests together.",
        limit,
    );
    text.single(
        "quarr_work_waiting",
        Kind::Gauge,
        "Requests that wait for memory.",
        waiting,
    );
    text.single(
        "quarr_work_refused_total",
        Kind::Counter,
        "Requests refused for want of memory.",
        refused,
    );
    text.single(
        "quarr_transactions_open",
        Kind::Gauge,
        "Open transactions in memory.",
        state.transactions_open(),
    );
}

fn jobs(text: &mut Exposition, state: &State) {
    let here = state.jobs().here();
    let mut family = text.family(
        "quarr_jobs",
        Kind::Gauge,
        "Jobs of this server that have not ended.",
    );
    // Those that are none are told as well: who waits for them to begin finds the series.
    for kind in JobSpec::NAMES {
        let of = here.iter().find(|of| of.kind == kind);
        let (running, queued) = of.map_or((0, 0), |of| (of.running, of.queued));
        family.sample(&[("kind", kind), ("state", "running")], running);
        family.sample(&[("kind", kind), ("state", "queued")], queued);
    }
    let mut family = text.family(
        "quarr_jobs_ended_total",
        Kind::Counter,
        "Jobs that ended on this server.",
    );
    for (kind, state, count) in state.telemetry().jobs_ended() {
        family.sample(&[("kind", kind), ("state", state)], count);
    }
    let mut family = text.family(
        "quarr_job_done_bytes",
        Kind::Gauge,
        "Bytes that the running jobs have done.",
    );
    for of in &here {
        family.sample(&[("kind", of.kind)], of.done_bytes);
    }
    let mut family = text.family(
        "quarr_job_total_bytes",
        Kind::Gauge,
        "Bytes of the running jobs.",
    );
    for of in &here {
        family.sample(&[("kind", of.kind)], of.total_bytes);
    }
}

fn process(text: &mut Exposition, state: &State) {
    let telemetry = state.telemetry();
    let mut family = text.family("quarr_build_info", Kind::Gauge, "1, with the version.");
    family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.single(
        "quarr_draining",
        Kind::Gauge,
        "1 once the server was asked to end.",
        u8::from(telemetry.phase() > Phase::Serving),
    );
    text.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "When the process began, in seconds since 1970.",
        telemetry.started_at().timestamp_millis() as f64 / 1e3,
    );
    let now = Process::now();
    let numbers = [
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Memory of the process.",
            now.resident_bytes.map(|bytes| bytes as f64),
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Open files, sockets and pipes.",
            now.open_files.map(|count| count as f64),
        ),
        (
            "process_max_fds",
            Kind::Gauge,
            "The most there may be.",
            now.open_files_most.map(|count| count as f64),
        ),
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "Time of all threads.",
            now.cpu_seconds,
        ),
    ];
    for (name, kind, help, value) in numbers {
        if let Some(value) = value {
            text.single(name, kind, help, value);
        }
    }
}
