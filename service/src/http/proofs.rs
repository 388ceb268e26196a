//! Proofs of what a region of an array holds.

use array::{Bounds, Selection};
use axum::extract::State as Shared;
use axum::response::Response;
use serde::Deserialize;

use super::answer::ok;
use super::data::check_size;
use super::extract::{Path, Query};
use crate::error::{Failure, Problem};
use crate::state::{State, node_path};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofQuery {
    /// NumPy's notation; the smallest box around what it selects is proven. Everything if left out.
    slice: Option<String>,
}

/// Proves what a slice of an array holds: from its encoded inner chunks to an entry of the log.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/proof/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), ProofQuery),
    responses((status = 200, content_type = "application/json", body = Object), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, body = Problem)))]
pub(crate) async fn prove(
    Shared(state): Shared<State>,
    Path((name, reference, path)): Path<(String, String, String)>,
    Query(query): Query<ProofQuery>,
) -> Result<Response, Failure> {
    let pinned = state.snapshot(&name, &reference).await?;
    let path = node_path(&path)?;
    let array = pinned.snapshot.array(&path).await;
    let array = pinned.settle(array.map_err(Failure::from)).await?;
    let metadata = array.metadata();
    let selection: Selection = query.slice.as_deref().unwrap_or("").parse()?;
    let region = selection.resolve(metadata.shape(), Bounds::Clamp)?.hull()?;
    let element_bytes = metadata.data_type.size_bytes().unwrap_or(16);
    check_size(&state, region.shape(), element_bytes as u64)?;
    let proof = pinned.snapshot.prove(&path, &region).await;
    let proof = pinned.settle(proof.map_err(Failure::from)).await?;
    Ok(ok("application/json", proof))
}
