//! Answers equal those of xarray, recorded by `tests/golden/make.py`.

use array::{DataType, TimeUnit};
use compute::cf::{CfDecoder, Decode};
use compute::{Error, Reducer, Reduction};
use half::f16;
use serde_json::Value;

use crate::chunked::Chunked;

pub(crate) fn data_type(descr: &str) -> DataType {
    let time = |unit| (unit, 1);
    match descr {
        "|b1" => DataType::Bool,
        "|i1" => DataType::Int8,
        "|u1" => DataType::UInt8,
        "<i2" => DataType::Int16,
        "<u2" => DataType::UInt16,
        "<i4" => DataType::Int32,
        "<u4" => DataType::UInt32,
        "<i8" => DataType::Int64,
        "<u8" => DataType::UInt64,
        "<f2" => DataType::Float16,
        "<f4" => DataType::Float32,
        "<f8" => DataType::Float64,
        "<c8" => DataType::Complex64,
        "<c16" => DataType::Complex128,
        "<M8[ns]" => {
            let (unit, scale_factor) = time(TimeUnit::Nanosecond);
            DataType::DateTime64 { unit, scale_factor }
        }
        "<m8[s]" => {
            let (unit, scale_factor) = time(TimeUnit::Second);
            DataType::TimeDelta64 { unit, scale_factor }
        }
        other => panic!("{other} is not in the golden files"),
    }
}

pub(crate) fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

pub(crate) fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

/// Floats as `f64`, and the precision of their type.
fn floats(data_type: &DataType, bytes: &[u8]) -> Option<(Vec<f64>, f64)> {
    fn all<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> f64) -> Vec<f64> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|&bytes| read(bytes))
            .collect()
    }
    match data_type {
        DataType::Float16 => Some((all(bytes, |b| f16::from_le_bytes(b).to_f64()), 1e-3)),
        DataType::Float32 | DataType::Complex64 => {
            Some((all(bytes, |b| f64::from(f32::from_le_bytes(b))), 1e-6))
        }
        DataType::Float64 | DataType::Complex128 => Some((all(bytes, f64::from_le_bytes), 1e-14)),
        _ => None,
    }
}

/// Whether results are those of NumPy, up to the rounding of its narrower accumulators.
fn agree(data_type: &DataType, found: &[u8], wanted: &[u8]) -> bool {
    let (Some((found, precision)), Some((wanted, _))) =
        (floats(data_type, found), floats(data_type, wanted))
    else {
        return found == wanted;
    };
    let close = |a: f64, b: f64| a == b || (a - b).abs() <= precision * (a.abs() + b.abs() + 1.0);
    let parts = if data_type.is_complex() { 2 } else { 1 };
    let is_nan = |parts: &[f64]| parts.iter().any(|part| part.is_nan());
    let mut pairs = found.chunks(parts).zip(wanted.chunks(parts));
    // A complex number is NaN if either part is; which one may differ.
    found.len() == wanted.len()
        && pairs
            .all(|(a, b)| (is_nan(a) && is_nan(b)) || a.iter().zip(b).all(|(&a, &b)| close(a, b)))
}

fn reduction(case: &Value) -> Reduction {
    let reducer: Reducer = case["reducer"].as_str().unwrap().parse().unwrap();
    Reduction {
        skip_missing: case["skipna"].as_bool(),
        ddof: case["ddof"].as_u64().unwrap_or(0) as u32,
        min_count: case["min_count"].as_u64().unwrap_or(0),
        ..Reduction::new(reducer)
    }
}

#[test]
fn reductions_are_xarrays() {
    for row in rows(include_str!("../golden/reduce.json")) {
        let data_type_in = data_type(row["data_type"].as_str().unwrap());
        let shape: Vec<u64> = serde_json::from_value(row["shape"].clone()).unwrap();
        let values = bytes(&row["values"]);
        for case in row["cases"].as_array().unwrap() {
            let reduction = reduction(case);
            let axes: Vec<usize> = serde_json::from_value(case["axes"].clone()).unwrap();
            let reduced: Vec<bool> = (0..shape.len()).map(|axis| axes.contains(&axis)).collect();
            for chunk_shape in [[2, 3, 4], [1, 2, 3], [1, 1, 1]] {
                let array = Chunked {
                    data_type: &data_type_in,
                    shape: &shape,
                    bytes: &values,
                    chunk_shape: &chunk_shape,
                };
                let found = array.reduce(reduction, &reduced);
                let what = format!("{data_type_in} {case} in chunks of {chunk_shape:?}");
                if case.get("error").is_some() {
                    assert!(
                        matches!(found, Err(Error::Empty { .. })),
                        "{what}: {found:?}"
                    );
                    continue;
                }
                let result = reduction.data_type(&data_type_in).unwrap();
                assert_eq!(
                    result,
                    data_type(case["data_type"].as_str().unwrap()),
                    "{what}"
                );
                let (found, wanted) = (found.unwrap(), bytes(&case["result"]));
                assert!(
                    agree(&result, &found, &wanted),
                    "{what}: {found:?}, not {wanted:?}"
                );
            }
        }
    }
}

#[test]
fn decoded_values_are_xarrays() {
    for row in rows(include_str!("../golden/decode.json")) {
        let stored = data_type(row["data_type"].as_str().unwrap());
        let values = bytes(&row["values"]);
        for case in row["cases"].as_array().unwrap() {
            let what = format!("{stored} {case}");
            let attributes = case["attributes"].as_object().unwrap();
            let decoder = CfDecoder::new(&stored, attributes, Decode::Cf).unwrap();
            let (found_type, found) = match &decoder {
                None => (&stored, values.clone()),
                Some(decoder) => (decoder.data_type(), decoder.decode(&values)),
            };
            assert_eq!(
                *found_type,
                data_type(case["data_type"].as_str().unwrap()),
                "{what}"
            );
            let wanted = bytes(&case["result"]);
            match (floats(found_type, &found), floats(found_type, &wanted)) {
                (Some((found, _)), Some((wanted, _))) => {
                    let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
                    assert!(
                        found.iter().zip(&wanted).all(same),
                        "{what}: {found:?} {wanted:?}"
                    );
                }
                _ => assert_eq!(found, wanted, "{what}"),
            }
        }
    }
}
