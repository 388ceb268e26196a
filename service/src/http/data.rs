//! Slices and reductions.

use array::{Bounds, DataType, NodePath, OutputAxis, ResolvedSelection, Selection, Tensor, shape};
use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::Response;
use compute::cf::{CfDecoder, Decode};
use compute::{Reducer, Reduction};
use query::ArrayReader;
use serde::Deserialize;
use storage::{ArrayNode, Transaction};

use super::answer::{Caching, ok};
use super::extract::{Path, Query};
use crate::error::{Failure, Problem};
use crate::format::Format;
use crate::state::{Pinned, State, node_path};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataQuery {
    /// What to read, as NumPy indexes: `0:10,:,5`, `...,-1`, `[1,4,9]`. All if left out.
    slice: Option<String>,
    /// Refuse slices that reach past the array instead of cutting them off.
    strict: Option<bool>,
    /// The shape the answer must have, like `3,4`; 412 otherwise.
    expected_shape: Option<String>,
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`.
    decode: Option<String>,
    /// `octet-stream` (the default), `npy` or `json`.
    f: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReduceQuery {
    /// What to reduce, as in `data`.
    slice: Option<String>,
    /// Refuse slices that reach past the array instead of cutting them off.
    strict: Option<bool>,
    /// The shape the answer must have, like `3,4`; 412 otherwise.
    expected_shape: Option<String>,
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`.
    decode: Option<String>,
    /// `octet-stream` (the default), `npy` or `json`.
    f: Option<String>,
    /// sum, prod, mean, min, max, count, std, var, any, all, argmin or argmax.
    reduce: String,
    /// Dimension names or axis numbers of the slice's result, comma separated; all if left out.
    over: Option<String>,
    /// Keep reduced dimensions with length 1.
    keepdims: Option<bool>,
    /// Leave out NaN; by default for floats.
    skipna: Option<bool>,
    /// Delta degrees of freedom of std and var.
    ddof: Option<u32>,
    /// Fewest valid values a sum needs.
    min_count: Option<u64>,
    /// `float64` gives the accumulator whatever the array's type.
    dtype: Option<String>,
}

/// An array and what of it is asked for.
struct Asked {
    array: ArrayReader,
    selection: ResolvedSelection,
    decode: Decode,
    format: Format,
}

/// What reads and reductions have in common.
type Common<'a> = (
    Option<&'a str>,
    Option<bool>,
    Option<&'a str>,
    Option<&'a str>,
);

impl Asked {
    async fn of_commit(
        state: &State,
        (name, reference, path): &(String, String, String),
        headers: &HeaderMap,
        common: Common<'_>,
    ) -> Result<(Pinned, Self), Failure> {
        let pinned = state.snapshot(name, reference).await?;
        let node = pinned.snapshot.array(&node_path(path)?).await;
        let node = pinned.settle(node.map_err(Failure::from)).await?;
        let asked = Self::new(state, node, headers, common)?;
        Ok((pinned, asked))
    }

    fn new(
        state: &State,
        node: ArrayNode,
        headers: &HeaderMap,
        (slice, strict, decode, f): Common<'_>,
    ) -> Result<Self, Failure> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let format = Format::negotiate(f, accept)?;
        let decode = match decode {
            None | Some("cf") => Decode::Cf,
            Some("mask") => Decode::Mask,
            Some("raw") => Decode::Raw,
            Some(other) => {
                return Err(Failure::bad_request(
                    "decode",
                    format!("{other:?} is none of cf, mask, raw"),
                ));
            }
        };
        let selection: Selection = slice.unwrap_or("").parse()?;
        let array = state.engine().open(node)?;
        let bounds = if strict == Some(true) {
            Bounds::Strict
        } else {
            Bounds::Clamp
        };
        let selection = selection.resolve(array.metadata().shape(), bounds)?;
        let (chunks, limit) = (
            array.inner_chunks_at_most(&selection),
            state.limits().chunks,
        );
        if chunks > limit {
            let detail = format!(
                "the slice touches up to {chunks} inner chunks, the most in one answer is {limit}: ask for parts of it with slice="
            );
            return Err(Failure::too_large(limit, detail));
        }
        Ok(Self {
            array,
            selection,
            decode,
            format,
        })
    }

    /// The selected values.
    async fn read(&self, state: &State) -> Result<Tensor, Failure> {
        let metadata = self.array.metadata();
        let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, self.decode)?;
        let data_type = decoder
            .as_ref()
            .map_or(&metadata.data_type, CfDecoder::data_type);
        let shape = self.selection.output_shape();
        check_size(state, &shape, self.format.element_bytes(data_type))?;
        let engine = state.engine();
        Ok(engine
            .read(&self.array, &self.selection, self.decode)
            .await?)
    }

    /// Names of the dimensions of the slice's result.
    fn dimensions(&self) -> Vec<Option<String>> {
        let names = self.array.metadata().dimension_names();
        let name = |axis: &OutputAxis| match axis {
            OutputAxis::Array(axis) => names.and_then(|names| names[*axis].clone()),
            OutputAxis::New => None,
        };
        self.selection.output().iter().map(name).collect()
    }

    fn caching(&self, pinned: &Pinned, uri: &Uri, parts: &[&str]) -> Caching {
        let selection = self.selection.canonical();
        let mut named = vec![selection.as_str(), self.format.media_type()];
        let decode = format!("{:?}", self.decode);
        named.push(&decode);
        named.extend(parts);
        Caching::new(pinned, uri, &named)
    }

    fn answer(
        &self,
        tensor: &Tensor,
        dimensions: &[Option<String>],
        caching: &Caching,
    ) -> Result<Response, Failure> {
        let body = self.format.encode(tensor, dimensions)?;
        let mut response = ok(self.format.media_type(), body);
        caching.apply(response.headers_mut());
        if let Ok(value) = HeaderValue::from_str(&Format::tensor_header(tensor)) {
            response
                .headers_mut()
                .insert(HeaderName::from_static("tensor"), value);
        }
        Ok(response)
    }
}

fn check_expected(expected: Option<&str>, found: &[u64]) -> Result<(), Failure> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let lengths: Result<Vec<u64>, _> = expected
        .split(',')
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::parse)
        .collect();
    let lengths = lengths
        .map_err(|_| Failure::bad_request("expected_shape", format!("{expected:?} is no shape")))?;
    if lengths == found {
        return Ok(());
    }
    Err(Failure::precondition(
        "expected_shape",
        format!("the answer has shape {found:?}, not {lengths:?}"),
    ))
}

pub(crate) fn check_size(
    state: &State,
    lengths: &[u64],
    element_bytes: u64,
) -> Result<(), Failure> {
    let limit = state.limits().answer_bytes;
    let bytes = shape::elements(lengths)
        .ok()
        .and_then(|count| count.checked_mul(element_bytes));
    match bytes {
        Some(bytes) if bytes <= limit => Ok(()),
        _ => {
            let asked = bytes.map_or("over 2^64".to_owned(), |bytes| bytes.to_string());
            let detail = format!(
                "shape {lengths:?} is {asked} bytes, the most in one answer is {limit}: ask for parts of it with slice="
            );
            Err(Failure::too_large(limit, detail))
        }
    }
}

/// Reads a slice.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/data/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), DataQuery),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"))),
        (status = 304), (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn read(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    Query(query): Query<DataQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let common = (
        query.slice.as_deref(),
        query.strict,
        query.decode.as_deref(),
        query.f.as_deref(),
    );
    let (pinned, asked) = Asked::of_commit(&state, &path, &headers, common).await?;
    let shape = asked.selection.output_shape();
    check_expected(query.expected_shape.as_deref(), &shape)?;
    let caching = asked.caching(&pinned, &uri, &[]);
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    let tensor = pinned.settle(asked.read(&state).await).await?;
    asked.answer(&tensor, &asked.dimensions(), &caching)
}

/// Reads a slice as a transaction sees it, and notes that.
pub(crate) async fn read_staged(
    state: &State,
    transaction: &Transaction,
    path: &NodePath,
    query: &DataQuery,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let common = (
        query.slice.as_deref(),
        query.strict,
        query.decode.as_deref(),
        query.f.as_deref(),
    );
    let asked = Asked::new(state, transaction.array(path).await?, headers, common)?;
    let shape = asked.selection.output_shape();
    check_expected(query.expected_shape.as_deref(), &shape)?;
    transaction.note_region(path, asked.selection.hull()?);
    let tensor = asked.read(state).await?;
    asked.answer(&tensor, &asked.dimensions(), &Caching::none())
}

/// Reduces a slice.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/reduce/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), ReduceQuery),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"))),
        (status = 304), (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn reduce(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    Query(query): Query<ReduceQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let common = (
        query.slice.as_deref(),
        query.strict,
        query.decode.as_deref(),
        query.f.as_deref(),
    );
    let (pinned, asked) = Asked::of_commit(&state, &path, &headers, common).await?;
    let reducer: Reducer = query.reduce.parse()?;
    let as_float64 = match query.dtype.as_deref() {
        None => false,
        Some("float64") => true,
        Some(other) => {
            return Err(Failure::bad_request(
                "dtype",
                format!("{other:?}: only float64 can be asked for"),
            ));
        }
    };
    let reduction = Reduction {
        reducer,
        skip_missing: query.skipna,
        ddof: query.ddof.unwrap_or(0),
        min_count: query.min_count.unwrap_or(0),
        as_float64,
    };
    let dimensions = asked.dimensions();
    let over = axes(query.over.as_deref(), &dimensions)?;
    // Axes of the array that are reduced; those an index dropped are kept, with length 1.
    let mut reduced = vec![false; asked.array.metadata().dimensions()];
    for (place, axis) in asked.selection.output().iter().enumerate() {
        if let OutputAxis::Array(axis) = axis {
            reduced[*axis] = over[place];
        }
    }
    let keepdims = query.keepdims.unwrap_or(false);
    let full_shape = asked.selection.output_shape();
    let kept = |place: &usize| keepdims || !over[*place];
    let places: Vec<usize> = (0..full_shape.len()).filter(kept).collect();
    let shape: Vec<u64> = places
        .iter()
        .map(|&p| if over[p] { 1 } else { full_shape[p] })
        .collect();
    check_expected(query.expected_shape.as_deref(), &shape)?;
    let widest = DataType::Complex128;
    check_size(&state, &shape, asked.format.element_bytes(&widest))?;
    let named = format!("{reduction:?} {reduced:?} {keepdims}");
    let caching = asked.caching(&pinned, &uri, &[&named]);
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    let engine = state.engine();
    let tensor = engine
        .reduce(
            &asked.array,
            &asked.selection,
            asked.decode,
            reduction,
            &reduced,
        )
        .await;
    let tensor = pinned.settle(tensor.map_err(Failure::from)).await?;
    let tensor = Tensor { shape, ..tensor };
    let names: Vec<Option<String>> = places
        .iter()
        .map(|&place| dimensions[place].clone())
        .collect();
    asked.answer(&tensor, &names, &caching)
}

/// Which of the dimensions `over` names.
fn axes(over: Option<&str>, dimensions: &[Option<String>]) -> Result<Vec<bool>, Failure> {
    let Some(over) = over else {
        return Ok(vec![true; dimensions.len()]);
    };
    let mut reduced = vec![false; dimensions.len()];
    for name in over
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let is_named = |dimension: &Option<String>| dimension.as_deref() == Some(name);
        if dimensions
            .iter()
            .filter(|dimension| is_named(dimension))
            .count()
            > 1
        {
            let detail = format!("{name:?} names several dimensions of the slice: give numbers");
            return Err(Failure::bad_request("over", detail));
        }
        let named = dimensions.iter().position(is_named);
        let numbered = || {
            let number: i64 = name.parse().ok()?;
            let number = if number < 0 {
                number + dimensions.len() as i64
            } else {
                number
            };
            usize::try_from(number)
                .ok()
                .filter(|&number| number < dimensions.len())
        };
        let Some(axis) = named.or_else(numbered) else {
            let known: Vec<&str> = dimensions.iter().flatten().map(String::as_str).collect();
            let detail = format!(
                "{name:?} is no dimension of the slice; it has {}",
                known.join(", ")
            );
            return Err(Failure::bad_request("over", detail));
        };
        if std::mem::replace(&mut reduced[axis], true) {
            return Err(Failure::bad_request(
                "over",
                format!("{name:?} is named twice"),
            ));
        }
    }
    Ok(reduced)
}
