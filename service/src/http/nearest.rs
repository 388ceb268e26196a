//! The rows of a slice that are nearest to given vectors.

use std::sync::Arc;

use array::{DataType, Elements, Tensor, shape};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use compute::nearest::{Neighbours, Queries};
use serde::Deserialize;
use serde_json::Map;

use super::answer::Caching;
use super::asked::{Asked, Common, check_size};
use super::extract::{Body, Labelled, Path, Shared};
use crate::error::{Failure, Problem};
use crate::format::{Answer, Variable};
use crate::state::State;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NearestQuery {
    /// The rows to search, two dimensions, as NumPy indexes: `:1000,:`. All if left out.
    slice: Option<String>,
    /// Refuse slices that reach past the array instead of cutting them off.
    strict: Option<bool>,
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`.
    decode: Option<String>,
    /// `json` (the default), `arrow`, `csv` or `netcdf`.
    f: Option<String>,
}

/// Vectors whose nearest rows are wanted.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NearestBody {
    /// The vectors, each as long as a row.
    vectors: Vec<Vec<f64>>,
    /// How many rows to find for each.
    #[schema(minimum = 1)]
    k: usize,
    /// `cosine` (the default), `l2` or `ip`.
    metric: Option<String>,
}

/// Finds the rows nearest to vectors.
///
/// The answer has `indices` along the first dimension of the slice and `scores`, best first; -1 and NaN
/// where there are no more.
#[utoipa::path(post, path = "/v1/repos/{repository}/refs/{reference}/nearest/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), NearestQuery,
        ("sel.{dimension}" = Option<String>, Query, description = "Labels along a dimension, by its coordinate variable: `2020-01-01/2020-01-31`, `850,500`, `nearest::12.3`")),
    request_body = NearestBody,
    responses(
        (status = 200, content((Object = "application/json"), (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (String = "text/csv"), (Vec<u8> = "application/x-netcdf"))),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 413, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn search(
    Shared(state): Shared<State>,
    Path((repository, reference, path)): Path<(String, String, String)>,
    query: Labelled<NearestQuery>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let body: NearestBody = serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request("body", error.to_string()))?;
    let fixed = &query.fixed;
    let common = Common {
        slice: fixed.slice.as_deref(),
        strict: fixed.strict,
        decode: fixed.decode.as_deref(),
        f: fixed
            .f
            .as_deref()
            .or(takes_anything(&headers).then_some("json")),
        labels: &query.labels,
        ..Common::default()
    };
    let pinned = state.snapshot(&repository, &reference).await?;
    let asked = Asked::of_commit(&state, &pinned, &path, &headers, common).await?;
    check_rows(&asked)?;
    let found = [body.vectors.len() as u64, body.k as u64];
    let element = [DataType::Int64, DataType::Float64]
        .map(|data_type| asked.format.element_bytes(&data_type, found.len()));
    let element: u64 = element.iter().sum();
    check_size(&state, &found, element).map_err(|failure| failure.about("k"))?;
    let queries = Arc::new(queries(&body)?);
    let engine = state.engine();
    let (array, selection) = (&asked.array, &asked.selection);
    let needed = engine.nearest_bytes(array, selection, asked.decode, &queries)?;
    let cells = shape::elements(&found).unwrap_or(u64::MAX);
    let values = (queries.count() as u64).saturating_mul(8 * queries.length() as u64);
    let needed = needed
        .saturating_add(values)
        .saturating_add(cells.saturating_mul(element));
    let reservation = engine.reserve(needed).await?;
    let neighbours = engine
        .nearest(array, selection, asked.decode, &queries, &reservation)
        .await;
    let neighbours = pinned.settle(neighbours.map_err(Failure::from)).await?;
    let answer = Answer {
        variables: variables(&neighbours, &found),
        coordinates: Vec::new(),
    };
    asked
        .send(answer, reservation, &Caching::none(), &headers)
        .await
}

/// Whether the client has not said which formats it takes.
fn takes_anything(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_none_or(|accept| matches!(accept.trim(), "" | "*/*"))
}

/// Refuses to look at more than any answer may be made of.
fn check_rows(asked: &Asked<'_>) -> Result<(), Failure> {
    let limit = asked.state.limits().streamed_bytes;
    let size = asked.array.metadata().data_type.size_bytes().unwrap_or(8) as u64;
    let cells = shape::elements(&asked.selection.selected_shape()).ok();
    match cells.and_then(|cells| cells.checked_mul(size)) {
        Some(bytes) if bytes <= limit => Ok(()),
        _ => {
            let detail = format!(
                "the rows of the slice are over {limit} bytes, the most for one answer: search parts of them with slice="
            );
            Err(Failure::too_large(limit, detail))
        }
    }
}

fn queries(body: &NearestBody) -> Result<Queries, Failure> {
    let metric = body.metric.as_deref().map(str::parse).transpose()?;
    let length = body.vectors.first().map_or(0, Vec::len);
    if body.vectors.is_empty() {
        return Err(Failure::bad_request(
            "vectors",
            "there are none: give one or more",
        ));
    }
    if let Some(other) = body.vectors.iter().find(|vector| vector.len() != length) {
        let detail = format!("vectors of {length} and of {} elements", other.len());
        return Err(Failure::bad_request("vectors", detail));
    }
    let values = body.vectors.concat();
    Ok(Queries::new(
        metric.unwrap_or_default(),
        body.k,
        length,
        &values,
    )?)
}

fn variables(neighbours: &Neighbours, shape: &[u64]) -> Vec<Variable> {
    let variable = |name: &str, data_type, bytes| Variable {
        name: name.to_owned(),
        dimensions: ["query", "neighbour"]
            .map(|name| Some(name.to_owned()))
            .to_vec(),
        tensor: Tensor {
            data_type,
            shape: shape.to_vec(),
            elements: Elements::Fixed(bytes),
        },
        attributes: Map::new(),
    };
    let rows = neighbours.rows.iter().flat_map(|row| row.to_le_bytes());
    let scores = neighbours
        .scores
        .iter()
        .flat_map(|score| score.to_le_bytes());
    vec![
        variable("indices", DataType::Int64, rows.collect()),
        variable("scores", DataType::Float64, scores.collect()),
    ]
}
