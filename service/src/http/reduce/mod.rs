//! Reductions: what the query parameters mean, and how the results become an answer.

mod groups;
mod measures;

use std::sync::Arc;

use array::{DataType, OutputAxis, Tensor};
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use compute::histogram::Bins;
use compute::order::OrderStatistics;
use compute::{Reducer, Reduction};
use query::{Aggregation, Measure, Role};
use serde::Deserialize;

use super::asked::{Asked, Common, check_expected, check_size};
use super::extract::{Labelled, Path, Shared};
use crate::error::{Failure, Problem};
use crate::format::{Answer, Variable};
use crate::state::State;
use groups::{group, vector, window_labels, windows};
use measures::{bytes_of, keeps_attributes, measure, measured_type, parse_number, weights};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReduceQuery {
    /// What to reduce, as in `data`.
    slice: Option<String>,
    /// Refuse slices that reach past the array instead of cutting them off.
    strict: Option<bool>,
    /// The shape the answer must have, like `3,4`; 412 otherwise.
    expected_shape: Option<String>,
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`.
    decode: Option<String>,
    /// What cells must satisfy to count, like `t2m>=300 and t2m<310`; of this array or of others of
    /// its shape.
    r#where: Option<String>,
    /// `octet-stream` (the default), `npy`, `json`, `arrow`, `csv`, `netcdf` or `png`.
    f: Option<String>,
    /// Colours of a png: `viridis` (the default), `magma`, `inferno`, `plasma`, `cividis`, `turbo`,
    /// `gray`, `RdBu`, `RdBu_r` or `coolwarm`.
    colormap: Option<String>,
    /// The values that the first and the last colour of a png stand for, like `250,310`, or the ends
    /// of a histogram's bins; those of the data if left out.
    range: Option<String>,
    /// sum, prod, mean, min, max, count, std, var, any, all, argmin, argmax, median, quantile or
    /// histogram; several, comma separated, in one pass.
    #[serde(default)]
    #[param(required = true)]
    reduce: String,
    /// Dimension names or axis numbers of the slice's result, comma separated; all if left out, or
    /// with `groupby` and `coarsen` none but theirs.
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
    /// Quantiles, from 0 to 1, comma separated.
    q: Option<String>,
    /// How quantiles between two values are found, as NumPy names it: `linear` (the default),
    /// `lower`, `higher`, `midpoint`, `nearest`, `hazen`, `weibull` …
    method: Option<String>,
    /// One pass less for medians and quantiles of many values: the header `Error-Bound` says how far
    /// the answer may be from the exact one.
    approximate: Option<bool>,
    /// Number of bins of a histogram (10 if left out), or their edges, comma separated.
    bins: Option<String>,
    /// Weights for sum, mean, std, var, sum_of_weights and sum_of_squares: the name or path of an
    /// array, or `area` for the cosine of the latitude.
    weights: Option<String>,
    /// Groups along a dimension: of a time coordinate, like `time.month`, `time.season`, or of the
    /// values of a coordinate, like `level`.
    groupby: Option<String>,
    /// What becomes of a last window of `coarsen` that is too short: `exact` (an error; the default),
    /// `trim` (left out) or `pad` (kept).
    boundary: Option<String>,
}

impl Labelled<ReduceQuery> {
    pub(crate) fn common(&self) -> Common<'_> {
        let query = &self.fixed;
        // The range is that of the bins.
        let range = query.range.as_deref().filter(|_| !self.has_histogram());
        Common {
            slice: query.slice.as_deref(),
            strict: query.strict,
            decode: query.decode.as_deref(),
            f: query.f.as_deref(),
            colormap: query.colormap.as_deref(),
            range,
            labels: &self.labels,
            condition: query.r#where.as_deref(),
        }
    }

    /// Whether anything is to be reduced.
    pub(crate) fn is_reduction(&self) -> bool {
        !self.fixed.reduce.is_empty()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.fixed.reduce.split(',').map(str::trim)
    }

    /// What tells its answers apart, besides the selection and the format.
    fn canonical(&self) -> String {
        let query = &self.fixed;
        let texts = [
            Some(query.reduce.as_str()),
            query.over.as_deref(),
            query.dtype.as_deref(),
            query.q.as_deref(),
            query.method.as_deref(),
            query.bins.as_deref(),
            query.range.as_deref().filter(|_| self.has_histogram()),
            query.weights.as_deref(),
            query.groupby.as_deref(),
            query.boundary.as_deref(),
        ];
        let flags = [query.keepdims, query.skipna, query.approximate];
        let numbers = [query.ddof.map(u64::from), query.min_count];
        format!("{texts:?} {flags:?} {numbers:?} {:?}", self.windows)
    }

    fn has_histogram(&self) -> bool {
        self.names().any(|name| name == "histogram")
    }
}

/// What is asked of a reduction.
pub(crate) struct Reductions {
    pub(crate) aggregation: Aggregation,
    names: Vec<String>,
    /// By place in the slice's result, whether it goes.
    gone: Vec<bool>,
    keepdims: bool,
    /// Coordinates of grouped axes.
    groups: Vec<(usize, Variable)>,
    /// Whether the one quantile is no dimension.
    one_quantile: bool,
    approximate: bool,
}

/// Reduces a slice.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/reduce/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), ReduceQuery,
        ("sel.{dimension}" = Option<String>, Query, description = "Labels along a dimension, by its coordinate variable: `2020-01-01/2020-01-31`, `850,500`, `nearest::12.3`"),
        ("coarsen.{dimension}" = Option<u64>, Query, description = "Reduce windows of so many cells along a dimension")),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/csv"), (Vec<u8> = "application/x-netcdf"), (Vec<u8> = "image/png"))),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>), (status = 304), (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 416, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn reduce(
    Shared(state): Shared<State>,
    Path((repository, reference, path)): Path<(String, String, String)>,
    query: Labelled<ReduceQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let pinned = state.snapshot(&repository, &reference).await?;
    let asked = Asked::of_commit(&state, &pinned, &path, &headers, query.common()).await?;
    let mut reductions = pinned.settle(Reductions::new(&asked, &query).await).await?;
    let shape = reductions.shape(&asked, 0);
    check_expected(query.fixed.expected_shape.as_deref(), &shape)?;
    for (nth, measure) in reductions.aggregation.measures.iter().enumerate() {
        let element = asked
            .format
            .element_bytes(&DataType::Complex128, shape.len());
        let results = measure.results() as u64;
        check_size(&state, &reductions.shape(&asked, nth), element)?;
        check_size(&state, &[results], element)?;
    }
    let named = query.canonical();
    let caching = asked.caching(&pinned, &uri, &[&named]);
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    pinned
        .settle(answer(&asked, &mut reductions, &query, &caching, &headers).await)
        .await
}

async fn answer(
    asked: &Asked<'_>,
    reductions: &mut Reductions,
    query: &Labelled<ReduceQuery>,
    caching: &super::answer::Caching,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let engine = asked.state.engine();
    reductions.find_bins(asked, &query.fixed).await?;
    let (array, selection) = (&asked.array, &asked.selection);
    let aggregation = &reductions.aggregation;
    let needed = engine.aggregate_bytes(array, selection, aggregation)?;
    let results: usize = aggregation.measures.iter().map(Measure::results).sum();
    let shape = reductions.shape(asked, 0);
    let element = asked
        .format
        .element_bytes(&DataType::Complex128, shape.len());
    let cells = array::shape::elements(&shape).unwrap_or(u64::MAX);
    let written = cells.saturating_mul(element).saturating_mul(results as u64);
    let reservation = engine.reserve(needed.saturating_add(written)).await?;
    let (tensors, error_bound) = match reductions.approximate {
        true => {
            let found = engine
                .aggregate_approximately(array, selection, asked.decode, aggregation, &reservation)
                .await?;
            (found.tensors, Some(found.error_bound))
        }
        false => {
            let tensors = engine
                .aggregate_within(array, selection, asked.decode, aggregation, &reservation)
                .await?;
            (tensors, None)
        }
    };
    let answer = reductions.answer(asked, tensors).await?;
    let mut response = asked.send(answer, reservation, caching, headers).await?;
    if let Some(bound) = error_bound
        && let Ok(value) = HeaderValue::from_str(&bound.to_string())
    {
        response.headers_mut().insert("error-bound", value);
    }
    Ok(response)
}

impl Reductions {
    pub(crate) async fn new(
        asked: &Asked<'_>,
        query: &Labelled<ReduceQuery>,
    ) -> Result<Self, Failure> {
        let fixed = &query.fixed;
        let dimensions = asked.dimensions();
        let mut roles = vec![Role::Kept; asked.array.metadata().dimensions()];
        let mut groups = Vec::new();
        if let Some(text) = &fixed.groupby {
            let (axis, grouping, labels) = group(asked, text).await?;
            roles[axis] = Role::Grouped(Arc::new(grouping));
            groups.push((axis, labels));
        }
        for (dimension, window) in &query.windows {
            let axis = asked.axis(&format!("coarsen.{dimension}"), dimension)?;
            if roles[axis] != Role::Kept {
                let detail = format!("{dimension} is grouped already");
                return Err(Failure::bad_request("coarsen", detail));
            }
            let grouping = windows(asked, axis, dimension, *window, fixed.boundary.as_deref())?;
            if let Some(labels) = window_labels(asked, axis, &grouping).await? {
                groups.push((axis, labels));
            }
            roles[axis] = Role::Grouped(Arc::new(grouping));
        }
        let is_grouped = fixed.groupby.is_some() || !query.windows.is_empty();
        let over = match (&fixed.over, is_grouped) {
            (None, true) => vec![false; dimensions.len()],
            (over, _) => axes(over.as_deref(), &dimensions)?,
        };
        // Axes that an index dropped are kept, with length 1.
        let mut gone = vec![false; dimensions.len()];
        for (place, axis) in asked.selection.output().iter().enumerate() {
            let is_over = over[place];
            match axis {
                OutputAxis::Array(axis) if is_over && roles[*axis].is_kept() => {
                    roles[*axis] = Role::Reduced;
                    gone[place] = true;
                }
                OutputAxis::Array(_) => {}
                OutputAxis::New => gone[place] = is_over,
            }
        }
        let names: Vec<String> = query.names().map(str::to_owned).collect();
        let mut numbered = names.iter().enumerate();
        if let Some((_, twice)) = numbered.find(|(nth, name)| names[..*nth].contains(name)) {
            let detail = format!("{twice:?} is named twice");
            return Err(Failure::bad_request("reduce", detail));
        }
        let mut reductions = Self {
            aggregation: Aggregation {
                measures: Vec::new(),
                roles,
                conditions: asked.conditions.clone(),
                passes: None,
            },
            gone,
            keepdims: fixed.keepdims.unwrap_or(false),
            groups,
            one_quantile: fixed.q.as_deref().is_some_and(|q| !q.contains(',')),
            approximate: fixed.approximate.unwrap_or(false),
            names,
        };
        let weights = match &fixed.weights {
            Some(name) => Some(Arc::new(weights(asked, name).await?)),
            None => None,
        };
        for name in reductions.names.clone() {
            let measure = measure(asked, fixed, &name, weights.as_ref())?;
            if is_grouped && measure.is_position() {
                let detail = format!("{name} has no position to give inside groups and windows");
                return Err(Failure::bad_request("reduce", detail));
            }
            reductions.aggregation.measures.push(measure);
        }
        let has_order = reductions.aggregation.measures.iter();
        let mut has_order = has_order.filter(|m| matches!(m, Measure::Order(_)));
        if reductions.approximate && has_order.next().is_none() {
            let detail = "only medians and quantiles can be approximate";
            return Err(Failure::bad_request("approximate", detail));
        }
        Ok(reductions)
    }

    /// Takes the range of the data for bins that have none.
    async fn find_bins(&mut self, asked: &Asked<'_>, query: &ReduceQuery) -> Result<(), Failure> {
        let bins = query.bins.as_deref().unwrap_or("10");
        let is_open = query.range.is_none() && !bins.contains(',');
        let is_histogram = |measure: &Measure| matches!(measure, Measure::Histogram(_));
        let Some(at) = self
            .aggregation
            .measures
            .iter()
            .position(is_histogram)
            .filter(|_| is_open)
        else {
            return Ok(());
        };
        let ends = [Reducer::Min, Reducer::Max].map(|reducer| {
            let reduction = Reduction::new(reducer);
            Measure::Plain(Reduction {
                as_float64: true,
                skip_missing: Some(true),
                ..reduction
            })
        });
        let over_all = Aggregation {
            measures: ends.to_vec(),
            roles: vec![Role::Reduced; self.aggregation.roles.len()],
            conditions: self.aggregation.conditions.clone(),
            passes: None,
        };
        let engine = asked.state.engine();
        let (array, selection) = (&asked.array, &asked.selection);
        let found = match engine
            .aggregate(array, selection, asked.decode, &over_all)
            .await
        {
            Ok(tensors) => {
                let end = |tensor: &Tensor| compute::numbers(&tensor.data_type, bytes_of(tensor));
                let ends: Vec<f64> = tensors.iter().filter_map(end).flatten().collect();
                match ends[..] {
                    [low, high] if !low.is_nan() => Some((low, high)),
                    _ => None,
                }
            }
            Err(query::Error::Compute(compute::Error::Empty { .. })) => None,
            Err(error) => return Err(error.into()),
        };
        let count = parse_number("bins", bins)?;
        let bins = Bins::over_values(&measured_type(asked)?, count, found)?;
        self.aggregation.measures[at] = Measure::Histogram(Arc::new(bins));
        Ok(())
    }

    /// Lengths of the result of a measure.
    pub(crate) fn shape(&self, asked: &Asked<'_>, nth: usize) -> Vec<u64> {
        let selected = asked.selection.output_shape();
        let mut shape = Vec::new();
        for (place, axis) in asked.selection.output().iter().enumerate() {
            let length = match axis {
                OutputAxis::Array(axis) => match &self.aggregation.roles[*axis] {
                    Role::Grouped(grouping) => grouping.groups as u64,
                    _ => selected[place],
                },
                OutputAxis::New => 1,
            };
            match (self.gone[place], self.keepdims) {
                (true, true) => shape.push(1),
                (true, false) => {}
                (false, _) => shape.push(length),
            }
        }
        match &self.aggregation.measures[nth] {
            Measure::Order(statistics) if self.has_quantiles(statistics) => {
                shape.insert(0, statistics.len() as u64);
            }
            Measure::Histogram(bins) => shape.push(bins.len() as u64),
            _ => {}
        }
        shape
    }

    fn has_quantiles(&self, statistics: &OrderStatistics) -> bool {
        statistics.name() == "quantile" && !self.one_quantile
    }

    /// Names of the dimensions of the result of a measure.
    fn dimensions(&self, asked: &Asked<'_>, nth: usize) -> Vec<Option<String>> {
        let own = asked.dimensions();
        let mut dimensions = Vec::new();
        for (place, axis) in asked.selection.output().iter().enumerate() {
            if self.gone[place] && !self.keepdims {
                continue;
            }
            let group = match axis {
                OutputAxis::Array(axis) => self.groups.iter().find(|(of, _)| of == axis),
                OutputAxis::New => None,
            };
            dimensions.push(match group {
                Some((_, labels)) => labels.dimensions.first().cloned().flatten(),
                None => own[place].clone(),
            });
        }
        match &self.aggregation.measures[nth] {
            Measure::Order(statistics) if self.has_quantiles(statistics) => {
                dimensions.insert(0, Some("quantile".to_owned()));
            }
            Measure::Histogram(_) => dimensions.push(Some("bin".to_owned())),
            _ => {}
        }
        dimensions
    }

    async fn answer(&self, asked: &Asked<'_>, tensors: Vec<Tensor>) -> Result<Answer, Failure> {
        let mut variables = Vec::new();
        for (nth, tensor) in tensors.into_iter().enumerate() {
            let measure = &self.aggregation.measures[nth];
            let name = match self.names.len() {
                1 => asked.name(),
                _ => self.names[nth].clone(),
            };
            let tensor = Tensor {
                shape: self.shape(asked, nth),
                ..tensor
            };
            let keeps = keeps_attributes(measure);
            let dimensions = self.dimensions(asked, nth);
            variables.push(asked.variable(&name, tensor, dimensions, keeps)?);
        }
        let kept = asked
            .selection
            .output()
            .iter()
            .zip(&self.gone)
            .filter(|(_, gone)| !**gone);
        let kept = kept.filter_map(|(axis, _)| match axis {
            OutputAxis::Array(axis) if self.aggregation.roles[*axis].is_kept() => Some(*axis),
            _ => None,
        });
        let mut coordinates = asked.coordinates(kept).await?;
        coordinates.extend(self.groups.iter().map(|(_, labels)| labels.clone()));
        for measure in &self.aggregation.measures {
            match measure {
                Measure::Histogram(bins) => coordinates.push(vector(
                    "bin_edges",
                    "bin_edge",
                    bins.edge_type(),
                    bins.edge_bytes(),
                )),
                Measure::Order(statistics) if self.has_quantiles(statistics) => {
                    let q = statistics
                        .q()
                        .iter()
                        .flat_map(|q| q.to_le_bytes())
                        .collect();
                    coordinates.push(vector("quantile", "quantile", DataType::Float64, q));
                }
                _ => {}
            }
        }
        Ok(Answer {
            variables,
            coordinates,
        })
    }
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
