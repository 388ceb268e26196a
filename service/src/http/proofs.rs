//! Proofs of what a region of an array holds.

use array::{ArrayMetadata, Bounds, Region, Selection, Sharding, Statistics};
use axum::response::Response;
use compute::Reducer;
use serde::Deserialize;
use storage::proof::REDUCERS;

use super::answer::ok;
use super::asked::check_size;
use super::extract::{Path, Query, Shared};
use crate::error::{Failure, Problem};
use crate::state::{State, node_path};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofQuery {
    /// NumPy's notation; the smallest box around what it selects is proven. Everything if left out.
    slice: Option<String>,
    /// One inner chunk, by its place in the grid of inner chunks, `3,0,4`, instead of a slice.
    chunk: Option<String>,
    /// Prove what the slice, made of whole chunks, comes to instead of its values: `min`, `max`,
    /// `count`, `sum`, `mean`, `var` or `std`, from the statistics the array is stored with.
    reduce: Option<String>,
}

/// The region of the inner chunk at this place in the grid of inner chunks.
fn inner_chunk(metadata: &ArrayMetadata, place: &str) -> Result<Region, Failure> {
    let wrong = |detail: String| Failure::bad_request("chunk", detail);
    let place = place.split(',').filter(|part| !part.is_empty());
    let place: Vec<u64> = place
        .map(|part| {
            part.trim()
                .parse()
                .map_err(|_| wrong(format!("{part:?} is no place")))
        })
        .collect::<Result<_, _>>()?;
    let sharding = Sharding::of(metadata)?;
    let lengths = sharding
        .as_ref()
        .map_or(metadata.chunk_shape(), Sharding::inner_shape);
    let shape = metadata.shape();
    let outside = || {
        let grid = shape
            .iter()
            .zip(lengths)
            .map(|(n, c)| n.div_ceil(*c).to_string());
        let grid: Vec<String> = grid.collect();
        wrong(format!("the grid of inner chunks is {}", grid.join(" × ")))
    };
    if place.len() != shape.len() {
        return Err(outside());
    }
    let (mut start, mut extent) = (Vec::new(), Vec::new());
    for ((at, length), whole) in place.iter().zip(lengths).zip(shape) {
        let first = at.checked_mul(*length).filter(|first| first < whole);
        let first = first.ok_or_else(outside)?;
        start.push(first);
        extent.push((*length).min(whole - first));
    }
    Ok(Region::new(start, extent)?)
}

/// Refuses a reduction that does not follow from statistics.
fn check_reducer(metadata: &ArrayMetadata, reducer: Reducer) -> Result<(), Failure> {
    let (data_type, attributes) = (&metadata.data_type, &metadata.attributes);
    match compute::reduce_statistics(&Statistics::EMPTY, reducer, data_type, attributes) {
        // There may be values to choose from.
        Ok(_) | Err(compute::Error::Empty { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Proves what a slice of an array holds, or what it comes to: from its encoded inner chunks to an entry of the log.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/proof/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), ProofQuery),
    responses((status = 200, content_type = "application/json", body = Object), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, body = Problem), (status = 422, body = Problem)))]
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
    let region = match (&query.chunk, &query.slice) {
        (Some(_), Some(_)) => {
            let detail = "chunk and slice both say what to prove: give one of them";
            return Err(Failure::bad_request("chunk", detail));
        }
        (Some(chunk), None) => inner_chunk(metadata, chunk)?,
        (None, slice) => {
            let selection: Selection = slice.as_deref().unwrap_or("").parse()?;
            selection.resolve(metadata.shape(), Bounds::Clamp)?.hull()?
        }
    };
    if let Some(reduce) = &query.reduce {
        let detail = || format!("{reduce:?} is none of {}", REDUCERS.join(", "));
        let known = reduce
            .parse()
            .ok()
            .filter(|_| REDUCERS.contains(&reduce.as_str()));
        let reducer = known.ok_or_else(|| Failure::bad_request("reduce", detail()))?;
        // Whether statistics answer it does not depend on their values.
        check_reducer(metadata, reducer)?;
    } else {
        let element_bytes = metadata.data_type.size_bytes().unwrap_or(16);
        check_size(&state, region.shape(), element_bytes as u64)?;
    }
    let prove = async || {
        let snapshot = &pinned.snapshot;
        let proof = match &query.reduce {
            Some(reduce) => snapshot.prove_statistics(&path, &region, reduce).await,
            None => snapshot.prove(&path, &region).await,
        };
        pinned.settle(proof.map_err(Failure::from)).await
    };
    let mut proof = prove().await?;
    if !proof.is_published && state.publish(pinned.snapshot.repository()).await? {
        proof = prove().await?;
    }
    Ok(ok("application/json", proof.bytes))
}
