//! JSON: type, shape, dimensions and values of a variable.
//!
//! An answer of one variable is an object with `data_type`, `shape`, `dimensions` and `values`, nested
//! lists; one of several has such objects by name under `variables`. `attributes` and `coordinates`,
//! objects by name as well, are there if there are any.

use array::{DataType, Tensor};
use half::{bf16, f16};
use serde_json::{Value, json};

use super::cells::{self, array};
use super::{Answer, Variable};

/// An answer as text.
pub(super) fn encode(answer: &Answer) -> Vec<u8> {
    let mut text = String::new();
    match &answer.variables[..] {
        [variable] => write_variable(variable, &mut text),
        variables => {
            text.push_str("{\"variables\":");
            write_members(variables.iter(), &mut text);
            text.push('}');
        }
    }
    let mut coordinates = answer.proper_coordinates().peekable();
    if coordinates.peek().is_some() {
        text.pop();
        text.push_str(",\"coordinates\":");
        write_members(coordinates, &mut text);
        text.push('}');
    }
    text.into_bytes()
}

/// Bytes an element takes, at most.
pub(super) fn element_bytes(data_type: &DataType) -> u64 {
    let bytes = data_type.size_bytes().unwrap_or(32) as u64;
    match data_type {
        DataType::Complex64 | DataType::Complex128 => 2 * NUMBER_BYTES,
        // Raw bytes are lists of numbers below 256.
        _ => NUMBER_BYTES.max(4 * bytes),
    }
}

fn write_members<'a>(variables: impl Iterator<Item = &'a Variable>, text: &mut String) {
    text.push('{');
    for (place, variable) in variables.enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&json!(variable.name).to_string());
        text.push(':');
        write_variable(variable, text);
    }
    text.push('}');
}

fn write_variable(variable: &Variable, text: &mut String) {
    let tensor = &variable.tensor;
    let mut head = json!({
        "data_type": tensor.data_type.to_json(),
        "shape": tensor.shape,
        "dimensions": variable.dimensions,
    });
    if !variable.attributes.is_empty() {
        head["attributes"] = json!(variable.attributes);
    }
    text.push_str(&head.to_string());
    text.pop();
    text.push_str(",\"values\":");
    write_values(tensor, text);
    text.push('}');
}

/// Appends the elements as nested lists; numbers JSON cannot hold as text (`"NaN"`, `"Infinity"`).
fn write_values(tensor: &Tensor, text: &mut String) {
    let value = |element: &[u8]| scalar(&tensor.data_type, element);
    nest(&mut cells::bytes(tensor).map(value), &tensor.shape, text);
}

fn nest(flat: &mut impl Iterator<Item = Value>, shape: &[u64], text: &mut String) {
    match shape.split_first() {
        None => {
            if let Some(value) = flat.next() {
                text.push_str(&value.to_string());
            }
        }
        Some(_) if empty_lists(shape) > MAX_EMPTY_LISTS => text.push_str("[]"),
        Some((&length, rest)) => {
            text.push('[');
            for position in 0..length {
                if position > 0 {
                    text.push(',');
                }
                nest(flat, rest, text);
            }
            text.push(']');
        }
    }
}

/// Empty lists written for a tensor without elements; one list stands for more than these.
const MAX_EMPTY_LISTS: u64 = 1 << 16;

/// How many empty lists an array of this shape is; 0 if it has elements.
fn empty_lists(shape: &[u64]) -> u64 {
    let above = shape.iter().take_while(|&&length| length > 0);
    if above.clone().count() == shape.len() {
        return 0;
    }
    above.fold(1, |product, &length| product.saturating_mul(length))
}

/// Most bytes of JSON text a number takes, with its comma.
const NUMBER_BYTES: u64 = 25;

/// A number; what JSON cannot hold, as text.
pub(crate) fn float(value: f64) -> Value {
    match value {
        value if value.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        value => json!(value),
    }
}

fn scalar(data_type: &DataType, bytes: &[u8]) -> Value {
    match data_type {
        DataType::Bool => json!(bytes[0] != 0),
        DataType::Int8 => json!(i8::from_le_bytes(array(bytes))),
        DataType::Int16 => json!(i16::from_le_bytes(array(bytes))),
        DataType::Int32 => json!(i32::from_le_bytes(array(bytes))),
        DataType::Int64 | DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => {
            json!(i64::from_le_bytes(array(bytes)))
        }
        DataType::UInt8 => json!(bytes[0]),
        DataType::UInt16 => json!(u16::from_le_bytes(array(bytes))),
        DataType::UInt32 => json!(u32::from_le_bytes(array(bytes))),
        DataType::UInt64 => json!(u64::from_le_bytes(array(bytes))),
        DataType::Float16 => float(f16::from_le_bytes(array(bytes)).to_f64()),
        DataType::BFloat16 => float(bf16::from_le_bytes(array(bytes)).to_f64()),
        // The shortest text that reads back as the same float32.
        DataType::Float32 => {
            let value = f32::from_le_bytes(array(bytes));
            float(if value.is_finite() {
                value.to_string().parse().unwrap_or(f64::from(value))
            } else {
                f64::from(value)
            })
        }
        DataType::Float64 => float(f64::from_le_bytes(array(bytes))),
        DataType::Complex64 => {
            json!([
                scalar(&DataType::Float32, &bytes[..4]),
                scalar(&DataType::Float32, &bytes[4..])
            ])
        }
        DataType::Complex128 => {
            json!([
                scalar(&DataType::Float64, &bytes[..8]),
                scalar(&DataType::Float64, &bytes[8..])
            ])
        }
        _ => cells::text(data_type, bytes).map_or_else(|| json!(bytes), |text| json!(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn written(answer: &Answer) -> Value {
        serde_json::from_slice(&encode(answer)).unwrap()
    }

    #[test]
    fn lists_nest_and_spell_what_json_cannot_hold() {
        let floats = samples::floats(&[2, 2], &[1.5, f32::NAN, 0.1, f32::INFINITY]);
        let variable = samples::variable("v", &["", "x"], floats);
        assert_eq!(
            written(&Answer::of(variable)),
            json!({
                "data_type": "float32", "shape": [2, 2], "dimensions": [null, "x"],
                "values": [[1.5, "NaN"], [0.1, "Infinity"]]
            })
        );
    }

    #[test]
    fn coordinates_and_attributes_come_by_name() {
        let mut answer = samples::grid();
        let one = written(&answer);
        assert_eq!(one["attributes"], json!({"units": "K"}));
        assert_eq!(one["coordinates"]["lat"]["values"], json!([-10.0, 10.0]));
        // What is asked for is not its own coordinate.
        answer.variables.push(answer.coordinates[0].clone());
        let two = written(&answer);
        assert_eq!(two["variables"]["lat"]["values"], json!([-10.0, 10.0]));
        assert_eq!(two["variables"]["t"]["shape"], json!([2, 3]));
        assert_eq!(two.get("coordinates"), None);
    }

    #[test]
    fn nothing_stays_small() {
        for (shape, expected) in [
            (vec![0], "[]"),
            (vec![1 << 40, 0], "[]"),
            (vec![2, 0], "[[],[]]"),
            (vec![0, 2], "[]"),
        ] {
            let mut text = String::new();
            write_values(
                &samples::tensor(DataType::Int8, &shape, Vec::new()),
                &mut text,
            );
            assert_eq!(text, expected);
        }
    }
}
