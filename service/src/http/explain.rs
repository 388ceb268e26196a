//! What a read or a reduction would cost.

use axum::Json;
use axum::http::HeaderMap;
use query::Computation;
use serde::Serialize;

use super::asked::Asked;
use super::extract::{Labelled, Path, Shared};
use super::reduce::{ReduceQuery, Reductions};
use crate::error::{Failure, Problem};
use crate::state::State;

/// The plan of a read, or with `reduce` of a reduction.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Explained {
    /// The selection, canonical.
    selection: String,
    /// Shape of the answer.
    shape: Vec<u64>,
    /// Stored chunks it touches.
    chunks: u64,
    /// Those that are all fill value and have no object.
    absent_chunks: u64,
    /// Those whose statistics answer, so that they are not read.
    chunks_in_statistics: u64,
    /// Inner chunks that are decoded, or found decoded.
    inner_chunks: u64,
    /// What of them is in a cache.
    cached: Cached,
    /// Encoded bytes of these inner chunks.
    needed_bytes: u64,
    /// Reads of chunks the store would see now. Pages of the manifest and footers of shards are
    /// known after this plan.
    requests: Requests,
    /// The same with nothing known but the pages of the manifest: footers are among them.
    cold_requests: Requests,
    /// Bytes the inner chunks decode to.
    decoded_bytes: u64,
    /// Memory that is taken before the work starts.
    memory_bytes: u64,
    /// Time the requests are taken to need.
    store_ms: f64,
    /// What a request is taken to cost: the model ranges are merged by.
    costs: Costs,
    /// Who makes a reduction; absent if values are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    compute: Option<Compute>,
}

/// Who makes a reduction, and why.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Compute {
    /// `statistics`, `cpu`, or `gpu`: CUDA devices, as far as they have memory and streams for it.
    on: &'static str,
    reason: String,
    /// Time CUDA devices are taken to need, copies included and decoding left out; where there are
    /// some that can do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_ms: Option<f64>,
    /// Time the processor is taken to need, decoding left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<f64>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Cached {
    /// Decoded, in memory.
    decoded: u64,
    /// Encoded, in memory.
    encoded: u64,
    /// Encoded, on disk.
    disk: u64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Requests {
    /// How many.
    count: u64,
    /// Bytes they read.
    bytes: u64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Costs {
    /// Until the first byte.
    latency_ms: f64,
    /// Bytes per second of one request.
    bandwidth: u64,
}

impl From<Computation> for Compute {
    fn from(computation: Computation) -> Self {
        let decision = match computation {
            Computation::Statistics => {
                return Self {
                    on: "statistics",
                    reason: "statistics tell all of it".to_owned(),
                    gpu_ms: None,
                    cpu_ms: None,
                };
            }
            Computation::Decided(decision) => decision,
        };
        let estimate = decision.estimate;
        Self {
            on: if decision.is_on_device { "gpu" } else { "cpu" },
            reason: decision.reason,
            gpu_ms: estimate.map(|estimate| estimate.device_seconds * 1e3),
            cpu_ms: estimate.map(|estimate| estimate.processor_seconds * 1e3),
        }
    }
}

impl From<query::Requests> for Requests {
    fn from(requests: query::Requests) -> Self {
        Self {
            count: requests.count,
            bytes: requests.bytes,
        }
    }
}

/// Says what a read or a reduction with these parameters would cost, and runs nothing.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/explain/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), ReduceQuery),
    responses((status = 200, body = Explained), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn explain(
    Shared(state): Shared<State>,
    Path((repository, reference, path)): Path<(String, String, String)>,
    query: Labelled<ReduceQuery>,
    headers: HeaderMap,
) -> Result<Json<Explained>, Failure> {
    let pinned = state.snapshot(&repository, &reference).await?;
    let mut common = query.common();
    // The plan itself is JSON, whatever the answer would be.
    common.f = common.f.or(Some("octet-stream"));
    let asked = Asked::of_commit(&state, &pinned, &path, &headers, common).await?;
    let reductions = match query.is_reduction() {
        true => Some(pinned.settle(Reductions::new(&asked, &query).await).await?),
        false => None,
    };
    let engine = state.engine();
    let aggregation = reductions
        .as_ref()
        .map(|reductions| &reductions.aggregation);
    let explained = engine
        .explain(
            &asked.array,
            &asked.selection,
            asked.decode,
            aggregation,
            &asked.conditions,
        )
        .await;
    let explained = pinned.settle(explained.map_err(Failure::from)).await?;
    let costs = engine.costs();
    Ok(Json(Explained {
        selection: asked.selection.canonical(),
        shape: match &reductions {
            Some(reductions) => reductions.shape(&asked, 0),
            None => asked.selection.output_shape(),
        },
        chunks: explained.chunks,
        absent_chunks: explained.absent_chunks,
        chunks_in_statistics: explained.chunks_in_statistics,
        inner_chunks: explained.inner_chunks,
        cached: Cached {
            decoded: explained.cached_decoded,
            encoded: explained.cached_encoded,
            disk: explained.cached_on_disk,
        },
        needed_bytes: explained.needed_bytes,
        requests: explained.requests.into(),
        cold_requests: explained.cold_requests.into(),
        decoded_bytes: explained.decoded_bytes,
        memory_bytes: explained.memory_bytes,
        store_ms: explained.store_time.as_secs_f64() * 1e3,
        costs: Costs {
            latency_ms: costs.latency.as_secs_f64() * 1e3,
            bandwidth: costs.bandwidth,
        },
        compute: explained.computation.map(Compute::from),
    }))
}
