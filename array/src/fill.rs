//! Fill values: what an element that was never written holds.
//!
//! Source: Zarr v3 core, "Fill value", and the zarr-extensions registry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use half::{bf16, f16};
use serde_json::{Number, Value, json};

use crate::{DataType, Error};

/// Longest variable-length fill value, in bytes.
const MAX_VARIABLE_BYTES: usize = 1 << 20;

/// One element in its in-memory bytes: little-endian, or the text or bytes of a variable-length type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FillValue(Vec<u8>);

impl FillValue {
    /// Zero, `false`, empty, or NaT.
    pub fn default_for(data_type: &DataType) -> Self {
        match data_type {
            DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => {
                Self(i64::MIN.to_le_bytes().to_vec())
            }
            _ => Self(vec![0; data_type.size_bytes().unwrap_or(0)]),
        }
    }

    /// A fill value from the in-memory bytes of one element.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the length is not the data type's, or a string is not UTF-8.
    pub fn from_bytes(data_type: &DataType, bytes: Vec<u8>) -> Result<Self, Error> {
        let fits = match data_type.size_bytes() {
            Some(size) => bytes.len() == size,
            None => bytes.len() <= MAX_VARIABLE_BYTES,
        };
        if !fits {
            return Err(Error::invalid(
                "fill value",
                format!("{} bytes for {data_type}", bytes.len()),
            ));
        }
        if *data_type == DataType::String && std::str::from_utf8(&bytes).is_err() {
            return Err(Error::invalid("fill value", "not UTF-8"));
        }
        Ok(Self(bytes))
    }

    /// The in-memory bytes of one element.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the `fill_value` member of a `zarr.json`.
    ///
    /// Floats may be numbers, `"NaN"`, `"Infinity"`, `"-Infinity"` or their bits as `"0x…"`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the value is not one of `data_type`.
    pub fn parse(data_type: &DataType, value: &Value) -> Result<Self, Error> {
        let bytes = parse_bytes(data_type, value)
            .ok_or_else(|| Error::invalid("fill value", format!("{value} is not a {data_type}")))?;
        Self::from_bytes(data_type, bytes)
    }

    /// The `fill_value` member of a `zarr.json`, such that [`FillValue::parse`] gives it back bit
    /// for bit.
    pub fn to_json(&self, data_type: &DataType) -> Value {
        let bytes = self.0.as_slice();
        match data_type {
            DataType::Bool => json!(bytes.first().is_some_and(|&b| b != 0)),
            DataType::Int8 => json!(i8::from_le_bytes(array(bytes))),
            DataType::Int16 => json!(i16::from_le_bytes(array(bytes))),
            DataType::Int32 => json!(i32::from_le_bytes(array(bytes))),
            DataType::Int64 | DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => {
                json!(i64::from_le_bytes(array(bytes)))
            }
            DataType::UInt8 => json!(u8::from_le_bytes(array(bytes))),
            DataType::UInt16 => json!(u16::from_le_bytes(array(bytes))),
            DataType::UInt32 => json!(u32::from_le_bytes(array(bytes))),
            DataType::UInt64 => json!(u64::from_le_bytes(array(bytes))),
            DataType::Float16 | DataType::BFloat16 | DataType::Float32 | DataType::Float64 => {
                float_to_json(data_type, bytes)
            }
            DataType::Complex64 => {
                json!([
                    float_to_json(&DataType::Float32, &bytes[..4]),
                    float_to_json(&DataType::Float32, &bytes[4..])
                ])
            }
            DataType::Complex128 => {
                json!([
                    float_to_json(&DataType::Float64, &bytes[..8]),
                    float_to_json(&DataType::Float64, &bytes[8..])
                ])
            }
            DataType::RawBits { .. } => Value::Array(bytes.iter().map(|&b| json!(b)).collect()),
            DataType::RawBytes { .. } | DataType::VariableLengthBytes => {
                json!(BASE64.encode(bytes))
            }
            DataType::NullTerminatedBytes { .. } => {
                let end = bytes
                    .iter()
                    .rposition(|&b| b != 0)
                    .map_or(0, |last| last + 1);
                json!(BASE64.encode(&bytes[..end]))
            }
            DataType::FixedLengthUtf32 { .. } => {
                let text: String = bytes
                    .chunks_exact(4)
                    .map(|c| u32::from_le_bytes(array(c)))
                    .map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect();
                json!(text.trim_end_matches('\0'))
            }
            DataType::String => json!(String::from_utf8_lossy(bytes)),
        }
    }
}

/// `bytes` as an array; zeros where its length does not fit, which construction rules out.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    debug_assert_eq!(bytes.len(), N);
    bytes.try_into().unwrap_or([0; N])
}

fn parse_bytes(data_type: &DataType, value: &Value) -> Option<Vec<u8>> {
    fn integer<T: TryFrom<i128>>(value: &Value) -> Option<T> {
        let number = match value {
            Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => i128::from(n),
                (None, Some(n)) => i128::from(n),
                // Written by tools that print whole floats: 0.0 for 0.
                (None, None) => n
                    .as_f64()
                    .filter(|f| f.fract() == 0.0 && f.abs() < 9e15)
                    .map(|f| f as i128)?,
            },
            _ => return None,
        };
        T::try_from(number).ok()
    }
    match data_type {
        DataType::Bool => match value {
            Value::Bool(b) => Some(vec![u8::from(*b)]),
            Value::Number(_) => integer::<u8>(value).filter(|&n| n <= 1).map(|n| vec![n]),
            _ => None,
        },
        DataType::Int8 => integer::<i8>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::Int16 => integer::<i16>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::Int32 => integer::<i32>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::Int64 => integer::<i64>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::UInt8 => integer::<u8>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::UInt16 => integer::<u16>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::UInt32 => integer::<u32>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::UInt64 => integer::<u64>(value).map(|n| n.to_le_bytes().to_vec()),
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => match value {
            Value::String(text) if text == "NaT" => Some(i64::MIN.to_le_bytes().to_vec()),
            _ => integer::<i64>(value).map(|n| n.to_le_bytes().to_vec()),
        },
        DataType::Float16 | DataType::BFloat16 | DataType::Float32 | DataType::Float64 => {
            float_from_json(data_type, value)
        }
        DataType::Complex64 | DataType::Complex128 => {
            let part = if *data_type == DataType::Complex64 {
                DataType::Float32
            } else {
                DataType::Float64
            };
            match value {
                Value::Array(parts) if parts.len() == 2 => {
                    let mut bytes = float_from_json(&part, &parts[0])?;
                    bytes.extend(float_from_json(&part, &parts[1])?);
                    Some(bytes)
                }
                Value::Number(_) => {
                    let mut bytes = float_from_json(&part, value)?;
                    bytes.resize(2 * bytes.len(), 0);
                    Some(bytes)
                }
                _ => None,
            }
        }
        DataType::RawBits { length_bytes } | DataType::RawBytes { length_bytes } => match value {
            Value::Array(items) if items.len() == *length_bytes as usize => {
                items.iter().map(integer::<u8>).collect()
            }
            Value::String(text) => BASE64.decode(text).ok(),
            _ => None,
        },
        DataType::NullTerminatedBytes { length_bytes } => {
            let mut bytes = BASE64.decode(value.as_str()?).ok()?;
            pad(&mut bytes, *length_bytes as usize)?;
            Some(bytes)
        }
        DataType::FixedLengthUtf32 { length_bytes } => {
            let mut bytes: Vec<u8> = value
                .as_str()?
                .chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect();
            pad(&mut bytes, *length_bytes as usize)?;
            Some(bytes)
        }
        DataType::String => value.as_str().map(|text| text.as_bytes().to_vec()),
        DataType::VariableLengthBytes => match value {
            Value::String(text) => BASE64.decode(text).ok(),
            Value::Array(items) => items.iter().map(integer::<u8>).collect(),
            _ => None,
        },
    }
}

/// Appends zeros up to `length`; `None` if there are more bytes than that.
fn pad(bytes: &mut Vec<u8>, length: usize) -> Option<()> {
    if bytes.len() > length {
        return None;
    }
    bytes.resize(length, 0);
    Some(())
}

fn float_from_json(data_type: &DataType, value: &Value) -> Option<Vec<u8>> {
    let of = |float: f64| match data_type {
        DataType::Float16 => f16::from_f64(float).to_le_bytes().to_vec(),
        DataType::BFloat16 => bf16::from_f64(float).to_le_bytes().to_vec(),
        DataType::Float32 => (float as f32).to_le_bytes().to_vec(),
        _ => float.to_le_bytes().to_vec(),
    };
    let is_finite = |float: &f64| match data_type {
        DataType::Float16 => f16::from_f64(*float).is_finite(),
        DataType::BFloat16 => bf16::from_f64(*float).is_finite(),
        DataType::Float32 => (*float as f32).is_finite(),
        _ => float.is_finite(),
    };
    match value {
        // One that is too large is not infinity.
        Value::Number(number) => number.as_f64().filter(is_finite).map(of),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(of(f64::NAN)),
            "Infinity" => Some(of(f64::INFINITY)),
            "-Infinity" => Some(of(f64::NEG_INFINITY)),
            text => {
                // The bits, most significant digit first.
                let digits = text.strip_prefix("0x")?;
                let mut bytes = hex::decode(digits).ok()?;
                bytes.reverse();
                (Some(bytes.len()) == data_type.size_bytes()).then_some(bytes)
            }
        },
        _ => None,
    }
}

fn float_to_json(data_type: &DataType, bytes: &[u8]) -> Value {
    let float = match data_type {
        DataType::Float16 => f16::from_le_bytes(array(bytes)).to_f64(),
        DataType::BFloat16 => bf16::from_le_bytes(array(bytes)).to_f64(),
        DataType::Float32 => f64::from(f32::from_le_bytes(array(bytes))),
        _ => f64::from_le_bytes(array(bytes)),
    };
    let value = match Number::from_f64(float) {
        Some(number) => Value::Number(number),
        None if float.is_nan() => json!("NaN"),
        None if float > 0.0 => json!("Infinity"),
        None => json!("-Infinity"),
    };
    if float_from_json(data_type, &value).as_deref() == Some(bytes) {
        return value;
    }
    // A NaN with other bits than the canonical one.
    let mut bits = bytes.to_vec();
    bits.reverse();
    json!(format!("0x{}", hex::encode(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::TimeUnit;

    #[test]
    fn values_round_trip_bit_for_bit() {
        let cases = [
            (DataType::Bool, json!(true)),
            (DataType::Int64, json!(i64::MIN)),
            (DataType::UInt64, json!(u64::MAX)),
            (DataType::Int8, json!(-128)),
            (DataType::Float32, json!("NaN")),
            (DataType::Float32, json!("0x7fc00001")),
            (DataType::Float64, json!("-Infinity")),
            (DataType::Float64, json!(-0.0)),
            (DataType::Float16, json!(65504.0)),
            (DataType::BFloat16, json!(1.5)),
            (DataType::Complex64, json!([0.0, "NaN"])),
            (DataType::Complex128, json!([1.5, -2.0])),
            (DataType::RawBits { length_bytes: 2 }, json!([1, 255])),
            (DataType::RawBytes { length_bytes: 3 }, json!("AAEC")),
            (
                DataType::NullTerminatedBytes { length_bytes: 3 },
                json!("YQ=="),
            ),
            (DataType::FixedLengthUtf32 { length_bytes: 8 }, json!("é")),
            (DataType::String, json!("héllo")),
            (DataType::VariableLengthBytes, json!("AAEC")),
            (
                DataType::DateTime64 {
                    unit: TimeUnit::Nanosecond,
                    scale_factor: 1,
                },
                json!(i64::MIN),
            ),
        ];
        for (data_type, value) in cases {
            let fill = FillValue::parse(&data_type, &value).unwrap();
            assert_eq!(fill.to_json(&data_type), value, "{data_type}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for (data_type, value) in [
            (DataType::Int8, json!(128)),
            (DataType::UInt8, json!(-1)),
            (DataType::UInt8, json!(1.5)),
            (DataType::Int16, json!("NaN")),
            (DataType::Float32, json!("0x7fc000")),
            (DataType::Float32, json!(null)),
            (DataType::Bool, json!(2)),
            (DataType::Complex64, json!([1.0])),
            (DataType::RawBytes { length_bytes: 3 }, json!("AAE=")),
            (
                DataType::NullTerminatedBytes { length_bytes: 1 },
                json!("AAEC"),
            ),
            (DataType::String, json!(1)),
        ] {
            assert!(
                FillValue::parse(&data_type, &value).is_err(),
                "{data_type} {value}"
            );
        }
    }

    #[test]
    fn defaults_are_zero_empty_or_nat() {
        assert_eq!(
            FillValue::default_for(&DataType::Float64).as_bytes(),
            [0; 8]
        );
        assert_eq!(FillValue::default_for(&DataType::String).as_bytes(), b"");
        let time = DataType::TimeDelta64 {
            unit: TimeUnit::Second,
            scale_factor: 1,
        };
        assert_eq!(
            FillValue::default_for(&time).as_bytes(),
            i64::MIN.to_le_bytes()
        );
    }
}
