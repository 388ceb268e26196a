//! Slices.

use array::{NodePath, OutputAxis};
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use axum::response::Response;
use futures::TryStreamExt as _;
use serde::Deserialize;
use storage::Transaction;

use super::answer::{Caching, streamed};
use super::asked::{Asked, Common, Source, check_expected};
use super::extract::{Labelled, Path, Shared};
use crate::auth::Scope;
use crate::error::{Failure, Problem};
use crate::format::{Answer, Format};
use crate::state::State;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DataQuery {
    /// What to read, as NumPy indexes: `0:10,:,5`, `...,-1`, `[1,4,9]`. All if left out.
    pub(crate) slice: Option<String>,
    /// Refuse slices that reach past the array instead of cutting them off.
    strict: Option<bool>,
    /// The shape the answer must have, like `3,4`; 412 otherwise.
    expected_shape: Option<String>,
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`.
    decode: Option<String>,
    /// What cells must satisfy not to be missing, like `t2m>=300 and t2m<310`; of this array or of
    /// others of its shape.
    r#where: Option<String>,
    /// `octet-stream` (the default), `npy`, `json`, `arrow`, `csv`, `netcdf` or `png`.
    f: Option<String>,
    /// Colours of a png: `viridis` (the default), `magma`, `inferno`, `plasma`, `cividis`, `turbo`,
    /// `gray`, `RdBu`, `RdBu_r` or `coolwarm`.
    colormap: Option<String>,
    /// The values that the first and the last colour of a png stand for, like `250,310`; those of the
    /// data if left out.
    range: Option<String>,
}

impl Labelled<DataQuery> {
    fn common(&self) -> Common<'_> {
        let query = &self.fixed;
        Common {
            slice: query.slice.as_deref(),
            strict: query.strict,
            decode: query.decode.as_deref(),
            f: query.f.as_deref(),
            colormap: query.colormap.as_deref(),
            range: query.range.as_deref(),
            labels: &self.labels,
            condition: query.r#where.as_deref(),
        }
    }
}

/// Reads a slice.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/data/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), DataQuery,
        ("sel.{dimension}" = Option<String>, Query, description = "Labels along a dimension, by its coordinate variable: `2020-01-01/2020-01-31`, `850,500`, `nearest::12.3`")),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/csv"), (Vec<u8> = "application/x-netcdf"), (Vec<u8> = "image/png"))),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>), (status = 304), (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 416, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn read(
    Shared(state): Shared<State>,
    Path((repository, reference, path)): Path<(String, String, String)>,
    query: Labelled<DataQuery>,
    OriginalUri(uri): OriginalUri,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let pinned = state.snapshot(&repository, &reference).await?;
    let asked = Asked::of_commit(&state, &pinned, &path, &headers, query.common()).await?;
    let shape = asked.selection.output_shape();
    check_expected(query.fixed.expected_shape.as_deref(), &shape)?;
    let caching = asked.caching(&pinned, &uri, &[]);
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    if asked.is_streamed(&headers)? {
        return pinned
            .settle(stream(&asked, &caching, &headers, version).await)
            .await;
    }
    pinned
        .settle(answer(&asked, &caching, &headers).await)
        .await
}

/// Reads a slice as a transaction sees it, and notes that.
pub(crate) async fn read_staged(
    state: &State,
    (transaction, scope): (&Transaction, &Scope),
    path: &NodePath,
    query: &Labelled<DataQuery>,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let source = Source::Transaction(transaction, scope);
    let array = transaction.array(path).await?;
    let asked = Asked::new(state, source, array, headers, query.common()).await?;
    let shape = asked.selection.output_shape();
    check_expected(query.fixed.expected_shape.as_deref(), &shape)?;
    transaction.note_region(path, asked.selection.hull()?);
    for (array, _) in &asked.conditions {
        transaction.note_region(array.node().path(), asked.selection.hull()?);
    }
    answer(&asked, &Caching::none(), headers).await
}

async fn answer(
    asked: &Asked<'_>,
    caching: &Caching,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let (tensor, reservation) = asked.read().await?;
    let axes = asked
        .selection
        .output()
        .iter()
        .filter_map(|axis| match axis {
            OutputAxis::Array(axis) => Some(*axis),
            OutputAxis::New => None,
        });
    let answer = Answer {
        variables: vec![asked.variable(&asked.name(), tensor, asked.dimensions(), true)?],
        coordinates: asked.coordinates(axes).await?,
    };
    asked.send(answer, reservation, caching, headers).await
}

/// Sends a long result while it is read. The answer begins when the first piece is there.
async fn stream(
    asked: &Asked<'_>,
    caching: &Caching,
    headers: &HeaderMap,
    version: Version,
) -> Result<Response, Failure> {
    let engine = asked.state.engine();
    let mut pieces = engine
        .stream(&asked.array, &asked.selection, asked.decode)
        .await?;
    let (length, data_type) = (pieces.total_bytes, pieces.data_type.clone());
    let limit = asked.state.limits().streamed_bytes;
    if length > limit {
        let detail = format!(
            "the slice is {length} bytes, the most in one answer is {limit}: ask for parts of it with slice="
        );
        return Err(Failure::too_large(limit, detail));
    }
    let first = pieces.try_next().await?;
    let first = futures::stream::iter(first.map(Ok));
    let pieces = futures::StreamExt::chain(first, pieces).map_err(Failure::from);
    let media_type = Format::OctetStream.media_type();
    let mut response = streamed::streamed(media_type, pieces, length, caching, (headers, version));
    let tensor = Format::tensor_header(&data_type, &asked.selection.output_shape());
    if let Ok(tensor) = HeaderValue::from_str(&tensor) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("tensor"), tensor);
    }
    Ok(response)
}
