//! Many points in one request.

use array::{DataType, Elements, OutputAxis, Tensor};
use axum::http::HeaderMap;
use axum::response::Response;
use compute::labels::{Labels, Match};
use query::Points;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::asked::{Asked, Common, check_size};
use super::extract::{Body, Path, Query, Shared};
use crate::error::{Failure, Problem};
use crate::format::{Answer, Variable};
use crate::state::State;

/// Most points in one request.
const MAX_POINTS: usize = 1 << 20;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PointsQuery {
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`.
    decode: Option<String>,
    /// `octet-stream` (the default), `npy`, `json`, `arrow`, `csv` or `netcdf`.
    f: Option<String>,
}

/// Points: positions, or labels of coordinate variables.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PointsBody {
    /// By dimension, the position of each point: whole numbers, from the end if negative.
    #[serde(default)]
    #[schema(value_type = Object)]
    positions: Map<String, Value>,
    /// By dimension, the label of each point.
    #[serde(default)]
    #[schema(value_type = Object)]
    labels: Map<String, Value>,
    /// How labels are looked up: `exact` (the default), `nearest`, `pad` or `backfill`.
    method: Option<String>,
}

/// Reads points: the answer's first dimension is the points, dimensions they do not name follow.
#[utoipa::path(post, path = "/v1/repos/{repository}/refs/{reference}/points/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), PointsQuery),
    request_body = PointsBody,
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/csv"), (Vec<u8> = "application/x-netcdf"))),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 413, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn read(
    Shared(state): Shared<State>,
    Path((repository, reference, path)): Path<(String, String, String)>,
    Query(query): Query<PointsQuery>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let body: PointsBody = serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request("body", error.to_string()))?;
    let pinned = state.snapshot(&repository, &reference).await?;
    let common = Common {
        decode: query.decode.as_deref(),
        f: query.f.as_deref(),
        ..Common::default()
    };
    let asked = Asked::of_commit(&state, &pinned, &path, &headers, common).await?;
    let points = pinned.settle(points(&asked, &body).await).await?;
    let shape = asked.array.metadata().shape();
    let rest = points
        .axes
        .iter()
        .zip(shape)
        .filter(|(axis, _)| axis.is_none());
    let mut lengths = vec![points.count as u64];
    lengths.extend(rest.map(|(_, &length)| length));
    let element = asked
        .format
        .element_bytes(&DataType::Complex128, lengths.len());
    check_size(&state, &lengths, element)?;
    let chunks = points.count as u64;
    if chunks > state.limits().chunks {
        let limit = state.limits().chunks;
        return Err(Failure::too_large(
            limit,
            format!("{chunks} points touch too many chunks"),
        ));
    }
    let engine = state.engine();
    let cells = array::shape::elements(&lengths).unwrap_or(u64::MAX);
    let needed = engine.points_bytes(&asked.array, &points)?;
    let needed = needed.saturating_add(cells.saturating_mul(element));
    let reservation = engine.reserve(needed).await?;
    let tensor = engine
        .points(&asked.array, &points, asked.decode, &reservation)
        .await;
    let tensor = pinned.settle(tensor.map_err(Failure::from)).await?;
    let names = asked.dimensions();
    let outputs = asked.selection.output().iter().zip(&names);
    let is_rest = |axis: usize| points.axes[axis].is_none();
    let others = outputs.filter_map(|(axis, name)| match axis {
        OutputAxis::Array(axis) if is_rest(*axis) => Some(name.clone()),
        _ => None,
    });
    let dimensions = std::iter::once(Some("point".to_owned()))
        .chain(others)
        .collect();
    let axes = (0..points.axes.len()).filter(|&axis| is_rest(axis));
    let mut coordinates = asked.coordinates(axes).await?;
    for (axis, positions) in points.axes.iter().enumerate() {
        let name = asked
            .array
            .metadata()
            .dimension_names()
            .and_then(|n| n[axis].clone());
        if let (Some(positions), Some(name)) = (positions, name)
            && asked.format.holds_coordinates()
        {
            coordinates.push(position_variable(&format!("{name}_position"), positions));
        }
    }
    let answer = Answer {
        variables: vec![asked.variable(&asked.name(), tensor, dimensions, true)?],
        coordinates,
    };
    let caching = super::answer::Caching::none();
    asked.send(answer, reservation, &caching, &headers).await
}

fn position_variable(name: &str, positions: &[u64]) -> Variable {
    Variable {
        name: name.to_owned(),
        dimensions: vec![Some("point".to_owned())],
        tensor: Tensor {
            data_type: DataType::Int64,
            shape: vec![positions.len() as u64],
            elements: Elements::Fixed(positions.iter().flat_map(|p| p.to_le_bytes()).collect()),
        },
        attributes: Map::new(),
    }
}

/// The points of a request.
async fn points(asked: &Asked<'_>, body: &PointsBody) -> Result<Points, Failure> {
    let shape = asked.array.metadata().shape().to_vec();
    let mut axes: Vec<Option<Vec<u64>>> = vec![None; shape.len()];
    let mut count: Option<usize> = None;
    let given = body
        .positions
        .iter()
        .map(|(name, values)| (name, values, false));
    let given = given.chain(
        body.labels
            .iter()
            .map(|(name, values)| (name, values, true)),
    );
    for (name, values, is_label) in given {
        let axis = asked.axis("body", name)?;
        let Some(values) = values.as_array() else {
            return Err(Failure::bad_request("body", format!("{name} is no list")));
        };
        if values.len() > MAX_POINTS {
            let detail = format!(
                "{} points, the most in one request are {MAX_POINTS}",
                values.len()
            );
            return Err(Failure::too_large(MAX_POINTS as u64, detail));
        }
        if count.is_some_and(|count| count != values.len()) {
            let detail = format!(
                "{name} has {} points, others have another number",
                values.len()
            );
            return Err(Failure::bad_request("body", detail));
        }
        count = Some(values.len());
        let positions = match is_label {
            true => labelled(asked, axis, name, values, body.method.as_deref()).await?,
            false => values
                .iter()
                .map(|value| position(name, value, shape[axis]))
                .collect::<Result<_, _>>()?,
        };
        if axes[axis].replace(positions).is_some() {
            return Err(Failure::bad_request(
                "body",
                format!("{name} is given twice"),
            ));
        }
    }
    match count {
        Some(count) => Ok(Points { axes, count }),
        None => Err(Failure::bad_request(
            "body",
            "it names no point: give positions or labels",
        )),
    }
}

fn position(name: &str, value: &Value, size: u64) -> Result<u64, Failure> {
    let refused = || {
        let detail = format!("{name}: {value} is no position along {size} cells");
        Failure::bad_request("body", detail)
    };
    let position = value.as_i64().ok_or_else(refused)?;
    let position = match position {
        0.. => position.unsigned_abs(),
        _ => size
            .checked_sub(position.unsigned_abs())
            .ok_or_else(refused)?,
    };
    if position < size {
        Ok(position)
    } else {
        Err(refused())
    }
}

async fn labelled(
    asked: &Asked<'_>,
    axis: usize,
    name: &str,
    values: &[Value],
    method: Option<&str>,
) -> Result<Vec<u64>, Failure> {
    let Some(coordinate) = asked.coordinate(axis).await? else {
        let detail = format!("there is no coordinate variable {name:?}: give positions");
        return Err(Failure::bad_request("body", detail));
    };
    let method = match method {
        None | Some("exact") => Match::Exact,
        Some("nearest") => Match::Nearest,
        Some("pad" | "ffill") => Match::Pad,
        Some("backfill" | "bfill") => Match::Backfill,
        Some(other) => {
            let detail = format!("method {other:?} is none of exact, nearest, pad, backfill");
            return Err(Failure::bad_request("body", detail));
        }
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let labels = Labels::List(values.iter().map(text).collect(), method);
    let found = coordinate.select(&labels)?;
    Ok((0..found.len()).map(|nth| found.position(nth)).collect())
}
