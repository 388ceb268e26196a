//! Numbers in attributes.

use array::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::Error;

/// A number as JSON writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Without a fraction or exponent; of at most 64 bits.
    Integer(i128),
    Float(f64),
}

impl Number {
    pub(super) fn to_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// Modulo 2^64; 0 for NaN.
    pub(super) fn to_i64(self) -> i64 {
        match self {
            Self::Integer(value) => value as i64,
            Self::Float(value) => value as i64,
        }
    }

    pub(super) fn is_nan(self) -> bool {
        matches!(self, Self::Float(value) if value.is_nan())
    }

    /// The number, if `value` is one; booleans are 0 and 1.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(truth) => Some(Self::Integer(i128::from(*truth))),
            Value::Number(number) => {
                let integer = number.as_i64().map(i128::from);
                let integer = integer.or_else(|| number.as_u64().map(i128::from));
                integer
                    .map(Self::Integer)
                    .or_else(|| number.as_f64().map(Self::Float))
            }
            _ => None,
        }
    }

    /// The number a `_FillValue` stands for: also non-finite ones by name and, as xarray's Zarr v3
    /// encoding has it for floats, base64 of a little-endian `f64`.
    pub(super) fn from_fill_value(data_type: &DataType, value: &Value) -> Option<Self> {
        let Value::String(text) = value else {
            let number = Self::from_json(value)?;
            // JSON has the shortest digits of the value the array holds.
            return Some(match (data_type, number) {
                (DataType::Float32, number) => Self::Float(f64::from(number.to_f64() as f32)),
                (_, number) => number,
            });
        };
        match text.as_str() {
            "NaN" => Some(Self::Float(f64::NAN)),
            "Infinity" => Some(Self::Float(f64::INFINITY)),
            "-Infinity" => Some(Self::Float(f64::NEG_INFINITY)),
            text if data_type.is_float() => {
                let bytes = BASE64.decode(text).ok()?.try_into().ok()?;
                Some(Self::Float(f64::from_le_bytes(bytes)))
            }
            _ => None,
        }
    }
}

/// `scale_factor` or `add_offset`: a number, or a list of one.
pub(super) fn factor(
    attributes: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Number>, Error> {
    let value = match attributes.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) if items.len() == 1 => &items[0],
        Some(value) => value,
    };
    match Number::from_json(value) {
        Some(number) => Ok(Some(number)),
        None => Err(not_a_number(name, value)),
    }
}

/// The items of a list, or the value itself; nothing for `null`.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(value) => std::slice::from_ref(value),
    }
}

pub(super) fn not_a_number(name: &str, value: &Value) -> Error {
    Error::Attribute {
        name: name.to_owned(),
        reason: format!("is {}, not a number", shortened(value.to_string())),
    }
}

/// Text as it may stand in an error.
pub(crate) fn quoted(text: &str) -> String {
    shortened(format!("{text:?}"))
}

fn shortened(mut text: String) -> String {
    if text.len() > 80 {
        text.truncate(text.floor_char_boundary(80));
        text.push('…');
    }
    text
}

pub(crate) fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. }
    )
}

pub(crate) fn is_real(data_type: &DataType) -> bool {
    let is_number = data_type.is_integer() || data_type.is_float();
    is_number || *data_type == DataType::Bool || is_time(data_type)
}
