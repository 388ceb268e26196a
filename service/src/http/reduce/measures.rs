//! What is computed of each cell, from the query parameters.

use std::sync::Arc;

use array::{DataType, Elements, ResolvedSelection, Tensor};
use compute::cf::{CfDecoder, Decode};
use compute::histogram::Bins;
use compute::order::{Method, OrderStatistics};
use compute::weighted::WeightedReduction;
use compute::{Reducer, Reduction};
use query::{AxisWeights, Measure};

use super::ReduceQuery;
use crate::error::Failure;
use crate::http::asked::Asked;

pub(super) fn parse_number<T: std::str::FromStr>(
    parameter: &str,
    text: &str,
) -> Result<T, Failure> {
    let refused = || Failure::bad_request(parameter, format!("{text:?} is not such a number"));
    text.trim().parse().map_err(|_| refused())
}

pub(super) fn numbers(parameter: &str, text: &str) -> Result<Vec<f64>, Failure> {
    text.split(',')
        .map(|number| parse_number(parameter, number))
        .collect()
}

/// The bytes of elements of a fixed size.
pub(super) fn bytes_of(tensor: &Tensor) -> &[u8] {
    match &tensor.elements {
        Elements::Fixed(bytes) => bytes,
        Elements::Variable(elements) => elements.bytes(),
    }
}

/// Type of the elements that are measured.
pub(super) fn measured_type(asked: &Asked<'_>) -> Result<DataType, Failure> {
    let metadata = asked.array.metadata();
    let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, asked.decode)?;
    let decoded = decoder
        .as_ref()
        .map_or(&metadata.data_type, CfDecoder::data_type);
    Ok(match asked.conditions.is_empty() {
        true => decoded.clone(),
        false => compute::predicate::Predicate::data_type(decoded)?,
    })
}

pub(super) fn measure(
    asked: &Asked<'_>,
    query: &ReduceQuery,
    name: &str,
    weights: Option<&Arc<AxisWeights>>,
) -> Result<Measure, Failure> {
    let as_float64 = match query.dtype.as_deref() {
        None => false,
        Some("float64") => true,
        Some(other) => {
            let detail = format!("{other:?}: only float64 can be asked for");
            return Err(Failure::bad_request("dtype", detail));
        }
    };
    if let Some(weights) = weights {
        let reduction = WeightedReduction {
            reducer: name.parse()?,
            skip_missing: query.skipna,
        };
        return Ok(Measure::Weighted(reduction, weights.clone()));
    }
    Ok(match name {
        "median" => Measure::Order(OrderStatistics::median(query.skipna)),
        "quantile" => {
            let Some(q) = &query.q else {
                let detail = "a quantile needs q=, like q=0.1,0.9";
                return Err(Failure::bad_request("q", detail));
            };
            let method: Method = query.method.as_deref().unwrap_or("linear").parse()?;
            let q = numbers("q", q)?;
            Measure::Order(OrderStatistics::quantiles(q, method, query.skipna)?)
        }
        "histogram" => {
            let data_type = measured_type(asked)?;
            let bins = query.bins.as_deref().unwrap_or("10");
            let bins = if bins.contains(',') {
                Bins::between(&data_type, numbers("bins", bins)?)?
            } else {
                let count = parse_number("bins", bins)?;
                match query
                    .range
                    .as_deref()
                    .map(|range| numbers("range", range))
                    .transpose()?
                {
                    None => Bins::over_values(&data_type, count, None)?,
                    Some(range) => match range[..] {
                        [low, high] => Bins::uniform(&data_type, count, (low, high))?,
                        _ => {
                            let detail = "a range is two numbers, like 250,310";
                            return Err(Failure::bad_request("range", detail));
                        }
                    },
                }
            };
            Measure::Histogram(Arc::new(bins))
        }
        name => Measure::Plain(Reduction {
            reducer: name.parse()?,
            skip_missing: query.skipna,
            ddof: query.ddof.unwrap_or(0),
            min_count: query.min_count.unwrap_or(0),
            as_float64,
        }),
    })
}

/// Whether a reduction of an array is of what the array's attributes say, its units above all.
pub(super) fn keeps_attributes(measure: &Measure) -> bool {
    match measure {
        Measure::Plain(reduction) => matches!(
            reduction.reducer,
            Reducer::Sum | Reducer::Mean | Reducer::Min | Reducer::Max | Reducer::Std
        ),
        Measure::Order(_) => true,
        Measure::Weighted(..) | Measure::Histogram(_) => false,
    }
}

/// Weights along some of the array's axes, for the positions that are selected.
pub(super) async fn weights(asked: &Asked<'_>, name: &str) -> Result<AxisWeights, Failure> {
    let dimensions = asked.array.metadata().dimensions();
    let selected = asked.selection.axes();
    if name == "area" {
        for (axis, selected) in selected.iter().enumerate() {
            let Some(coordinate) = asked.coordinate(axis).await? else {
                continue;
            };
            if let Ok(all) = coordinate.area_weights() {
                let values = (0..selected.len()).map(|nth| all[selected.position(nth) as usize]);
                let axes = (0..dimensions).map(|other| other == axis);
                return Ok(AxisWeights {
                    axes: axes.collect(),
                    values: values.collect(),
                });
            }
        }
        let detail = "area weights need a latitude: a coordinate named lat or latitude, or with units degrees_north";
        return Err(Failure::bad_request("weights", detail));
    }
    let array = asked.other("weights", name).await?;
    let names = array.metadata().dimension_names().unwrap_or_default();
    let own = asked.array.metadata().dimension_names().unwrap_or_default();
    let mut of = Vec::new();
    for (name, &length) in names.iter().zip(array.metadata().shape()) {
        let axis = own.iter().position(|own| own.is_some() && own == name);
        match axis {
            Some(axis) if asked.array.metadata().shape()[axis] == length => of.push(axis),
            _ => {
                let name = name.as_deref().unwrap_or("(unnamed)");
                let detail = format!("the array has no dimension {name:?} of length {length}");
                return Err(Failure::bad_request("weights", detail));
            }
        }
    }
    if of.len() != array.metadata().dimensions() || !of.is_sorted_by(|a, b| a < b) {
        let detail = "the weights' dimensions must be named, and in the order of the array's";
        return Err(Failure::bad_request("weights", detail));
    }
    let selection = of.iter().map(|&axis| selected[axis].clone()).collect();
    let selection = ResolvedSelection::of_axes(selection);
    let tensor = asked.read_values(&array, &selection, Decode::Cf).await?;
    let Some(values) = compute::numbers(&tensor.data_type, bytes_of(&tensor)) else {
        let detail = format!("{} are no weights", tensor.data_type);
        return Err(Failure::bad_request("weights", detail));
    };
    let axes = (0..dimensions).map(|axis| of.contains(&axis)).collect();
    Ok(AxisWeights { axes, values })
}
