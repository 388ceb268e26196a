//! `/v1/status`: what the server is doing.

use axum::Json;
use query::Tier;
use serde::{Deserialize, Serialize};
use storage::metrics::Operation;

use super::extract::Shared;
use super::gpu::GpuInfo;
use crate::state::State;
use crate::telemetry::process::Process;
use crate::telemetry::{Phase, Refused};

/// Most running requests that are listed.
const LISTED: usize = 100;

/// What the server is doing now, and has done since it began.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StatusInfo {
    /// Version of the program.
    version: String,
    /// `serving`, `draining` (it is not ready, and ends soon) or `stopping`.
    phase: String,
    /// When it began, RFC 3339.
    started: String,
    /// Seconds since then.
    uptime_seconds: f64,
    /// Its store, without what may be secret in a URL.
    store: String,
    requests: RequestsInfo,
    jobs: Vec<JobsInfo>,
    memory: MemoryInfo,
    threads: ThreadsInfo,
    gpu: GpuInfo,
    caches: Vec<CacheInfo>,
    store_operations: Vec<OperationInfo>,
    commits: CommitsInfo,
    /// Transactions in memory.
    open_transactions: u64,
    process: ProcessInfo,
}

/// Requests.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct RequestsInfo {
    /// Being answered.
    running: u64,
    /// Waiting for others.
    waiting: u64,
    /// Answers that were not taken to their end.
    aborted: u64,
    /// Connections.
    connections: u64,
    /// Refused or cut, by the limit they passed.
    refused: Vec<RefusedInfo>,
    /// Those being answered for longest, at most 100.
    oldest: Vec<RunningInfo>,
}

/// A limit, and how often it was passed.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct RefusedInfo {
    limit: String,
    count: u64,
}

/// A request that is being answered.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct RunningInfo {
    method: String,
    /// The template of its route.
    route: String,
    trace_id: String,
    seconds: f64,
}

/// Jobs of one kind that this server works on.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct JobsInfo {
    kind: String,
    running: u64,
    queued: u64,
    /// Bytes that those running have done.
    done_bytes: u64,
    /// Bytes of those running.
    total_bytes: u64,
}

/// Memory for the work of requests.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct MemoryInfo {
    used_bytes: u64,
    limit_bytes: u64,
    /// Requests that wait for it.
    waiting: u64,
    /// Requests that were refused for want of it.
    refused: u64,
}

/// Threads that decode and compute.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct ThreadsInfo {
    all: u64,
    busy: u64,
    /// Pieces of work that wait for one.
    queued: u64,
}

/// A cache.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct CacheInfo {
    name: String,
    bytes: u64,
    hits: u64,
    misses: u64,
    /// Part of the lookups that found something; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    hit_rate: Option<f64>,
}

/// One thing the object store was asked.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct OperationInfo {
    operation: String,
    requests: u64,
    errors: u64,
    bytes: u64,
    /// Mean time; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_ms: Option<f64>,
}

/// Commits of this process.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct CommitsInfo {
    /// That went through.
    made: u64,
    /// Log entries made again because another writer was faster.
    retries: u64,
    /// Refused because of what others had committed.
    conflicts: u64,
}

/// The process, where the system tells.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct ProcessInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files_most: Option<u64>,
}

/// What the server is doing: requests, jobs, memory, CUDA devices, caches, its object store.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = StatusInfo)))]
pub(crate) async fn status(Shared(state): Shared<State>) -> Json<StatusInfo> {
    let telemetry = state.telemetry();
    let (used_bytes, limit_bytes) = state.engine().memory();
    let (waiting, refused) = state.engine().queue();
    let (all, busy, queued) = state.engine().threads();
    let metrics = state.store().metrics();
    let phase = match telemetry.phase() {
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Stopping => "stopping",
    };
    let started = telemetry.started_at();
    Json(StatusInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: phase.to_owned(),
        started: started.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        uptime_seconds: telemetry.uptime().as_secs_f64(),
        store: without_secrets(state.store().url()),
        requests: requests(&state),
        jobs: jobs(&state),
        memory: MemoryInfo {
            used_bytes,
            limit_bytes,
            waiting,
            refused,
        },
        threads: ThreadsInfo { all, busy, queued },
        gpu: GpuInfo::from(state.engine().devices()),
        caches: caches(&state),
        store_operations: store_operations(&state),
        commits: CommitsInfo {
            made: metrics.commits(),
            retries: metrics.retries(),
            conflicts: metrics.conflicts(),
        },
        open_transactions: state.transactions_open(),
        process: process(),
    })
}

fn requests(state: &State) -> RequestsInfo {
    let telemetry = state.telemetry();
    let running = telemetry.requests().running();
    let refused = Refused::ALL.map(|why| RefusedInfo {
        limit: why.name().to_owned(),
        count: telemetry.refused(why),
    });
    let oldest = running.iter().take(LISTED).map(|running| RunningInfo {
        method: running.method.to_owned(),
        route: running.route.to_string(),
        trace_id: running.id.to_string(),
        seconds: running.started.elapsed().as_secs_f64(),
    });
    RequestsInfo {
        running: running.len() as u64,
        waiting: state
            .serving()
            .map_or(0, |(_, admission)| admission.waiting()),
        aborted: telemetry.requests().aborted(),
        connections: telemetry.connections(),
        refused: refused.into(),
        oldest: oldest.collect(),
    }
}

fn jobs(state: &State) -> Vec<JobsInfo> {
    let here = state.jobs().here().into_iter();
    here.map(|of| JobsInfo {
        kind: of.kind.to_owned(),
        running: of.running,
        queued: of.queued,
        done_bytes: of.done_bytes,
        total_bytes: of.total_bytes,
    })
    .collect()
}

fn caches(state: &State) -> Vec<CacheInfo> {
    let counters = state.engine().counters();
    let sizes = Tier::ALL.iter().zip(state.engine().cached_bytes());
    let info = |(tier, bytes): (&Tier, u64)| {
        let (hits, misses) = (counters.hits(*tier), counters.misses(*tier));
        let lookups = hits + misses;
        CacheInfo {
            name: tier.name().to_owned(),
            bytes,
            hits,
            misses,
            hit_rate: (lookups > 0).then(|| hits as f64 / lookups as f64),
        }
    };
    sizes.map(info).collect()
}

fn store_operations(state: &State) -> Vec<OperationInfo> {
    let info = |operation: Operation| {
        let of = state.store().metrics().operation(operation);
        let count = of.latency().count();
        let total_ms = of.latency().total().as_secs_f64() * 1e3;
        OperationInfo {
            operation: operation.name().to_owned(),
            requests: of.requests(),
            errors: of.errors(),
            bytes: of.bytes(),
            mean_ms: (count > 0).then(|| total_ms / count as f64),
        }
    };
    Operation::ALL.map(info).into()
}

fn process() -> ProcessInfo {
    let now = Process::now();
    ProcessInfo {
        resident_bytes: now.resident_bytes,
        open_files: now.open_files,
        open_files_most: now.open_files_most,
    }
}

/// A URL without user, password and query, in which secrets are passed on.
pub(crate) fn without_secrets(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return text.to_owned();
    };
    let has_user = !url.username().is_empty() || url.password().is_some();
    if url.query().is_none() && !has_user {
        return text.to_owned();
    }
    url.set_query(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secrets() {
        for (url, shown) in [
            ("./quarr-data", "./quarr-data"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("s3://key:secret@bucket/prefix", "s3://bucket/prefix"),
            ("az://c/p?sv=1&sig=secret", "az://c/p"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
