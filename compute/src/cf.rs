//! Missing and packed values, as CF attributes describe them and xarray decodes them.
//!
//! Source: CF conventions §2.5.1 and §8.1; `xarray.coding.variables` (`CFMaskCoder`,
//! `CFScaleOffsetCoder`) for result types. Beyond xarray, `valid_min`, `valid_max` and
//! `valid_range` mask too.

use array::{DataType, Scalar};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::Error;
use crate::element::{Element, elements, with_real};

/// How much of the decoding to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Decode {
    /// Mask missing values, then scale and offset.
    #[default]
    Cf,
    /// Mask missing values only.
    Mask,
    /// Nothing: values as stored.
    Raw,
}

/// Which stored values are missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Missing {
    values: Vec<Scalar>,
    min: Option<Scalar>,
    max: Option<Scalar>,
}

impl Missing {
    /// What the attributes of an array of `data_type` call missing.
    ///
    /// A value the type cannot hold matches nothing and is left out.
    ///
    /// # Errors
    /// [`Error::Attribute`] for one that is not a number.
    pub fn from_attributes(
        data_type: &DataType,
        attributes: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let mut missing = Self::default();
        if !is_number(data_type) {
            return Ok(missing);
        }
        for name in ["_FillValue", "missing_value"] {
            missing
                .values
                .extend(numbers(data_type, attributes, name)?.into_iter().flatten());
        }
        let one = |name: &str| {
            Ok::<_, Error>(
                numbers(data_type, attributes, name)?
                    .first()
                    .copied()
                    .flatten(),
            )
        };
        missing.min = one("valid_min")?;
        missing.max = one("valid_max")?;
        if let [min, max] = numbers(data_type, attributes, "valid_range")?.as_slice() {
            (missing.min, missing.max) = (*min, *max);
        }
        Ok(missing)
    }

    /// Whether nothing but NaN and NaT is missing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn typed<T: Element>(&self) -> impl Fn(T) -> bool + '_ {
        move |value: T| {
            let value = value.to_scalar();
            self.values.contains(&value)
                || self.min.is_some_and(|min| less(value, min))
                || self.max.is_some_and(|max| less(max, value))
        }
    }

    /// Whether `value` is missing; NaN and NaT are.
    pub(crate) fn is_missing<T: Element>(&self, value: T) -> bool {
        value.is_nan() || (!self.is_empty() && self.typed()(value))
    }
}

fn less(a: Scalar, b: Scalar) -> bool {
    match (a, b) {
        (Scalar::Int(a), Scalar::Int(b)) => a < b,
        (Scalar::UInt(a), Scalar::UInt(b)) => a < b,
        (Scalar::Float(a), Scalar::Float(b)) => a < b,
        _ => false,
    }
}

/// Turns stored values into those they stand for.
#[derive(Clone, Debug)]
pub struct CfDecoder {
    /// The type stored values are read as: `_Unsigned` changes its sign.
    stored: DataType,
    result: DataType,
    missing: Missing,
    scale: Option<f64>,
    offset: Option<f64>,
}

impl CfDecoder {
    /// The decoding that the attributes of an array of `data_type` ask for; `None` if values stay
    /// as they are.
    ///
    /// # Errors
    /// [`Error::Attribute`] for attributes that are not numbers.
    pub fn new(
        data_type: &DataType,
        attributes: &Map<String, Value>,
        decode: Decode,
    ) -> Result<Option<Self>, Error> {
        if decode == Decode::Raw || !is_number(data_type) {
            return Ok(None);
        }
        let stored = match attributes.get("_Unsigned").and_then(Value::as_str) {
            Some("true") => other_sign(data_type, true),
            Some("false") => other_sign(data_type, false),
            _ => data_type.clone(),
        };
        let mut missing = Missing::from_attributes(data_type, attributes)?;
        if stored != *data_type {
            missing = missing.with_sign_of(data_type, &stored);
        }
        let factor = |name: &str| match attributes.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() == 1 => number(name, &items[0]).map(Some),
            Some(value) => number(name, value).map(Some),
        };
        let (scale, offset) = match decode {
            Decode::Cf => (factor("scale_factor")?, factor("add_offset")?),
            _ => (None, None),
        };
        // JSON has no float32: with a scale or an offset the result is float64, as xarray has it.
        let result = if scale.is_some() || offset.is_some() {
            DataType::Float64
        } else if missing.is_empty() || !(stored.is_integer() || stored == DataType::Bool) {
            stored.clone()
        } else if stored.size_bytes().is_some_and(|size| size <= 2) {
            DataType::Float32
        } else {
            DataType::Float64
        };
        let unchanged =
            missing.is_empty() && scale.is_none() && offset.is_none() && stored == *data_type;
        Ok((!unchanged).then_some(Self {
            stored,
            result,
            missing,
            scale,
            offset,
        }))
    }

    /// Type of decoded values.
    pub fn data_type(&self) -> &DataType {
        &self.result
    }

    /// Decodes stored elements.
    pub fn decode(&self, bytes: &[u8]) -> Vec<u8> {
        with_real!(&self.stored, T => match self.result {
            DataType::Float64 => {
                let missing = self.missing.typed::<T>();
                let any_missing = !self.missing.is_empty();
                let decoded: Vec<f64> = elements::<T>(bytes)
                    .iter()
                    .map(|&value| {
                        if any_missing && missing(value) {
                            return f64::NAN;
                        }
                        let mut value = value.to_f64();
                        if let Some(scale) = self.scale {
                            value *= scale;
                        }
                        if let Some(offset) = self.offset {
                            value += offset;
                        }
                        value
                    })
                    .collect();
                bytemuck::cast_slice(&decoded).to_vec()
            }
            DataType::Float32 => {
                let missing = self.missing.typed::<T>();
                let decoded: Vec<f32> = elements::<T>(bytes)
                    .iter()
                    .map(|&value| if missing(value) { f32::NAN } else { value.to_f64() as f32 })
                    .collect();
                bytemuck::cast_slice(&decoded).to_vec()
            }
            _ => self.mask_in_place::<T>(bytes),
        }, else bytes.to_vec())
    }

    /// Floats of 16 bits and times keep their type: missing values become NaN or NaT.
    fn mask_in_place<T: Element>(&self, bytes: &[u8]) -> Vec<u8> {
        let nan: &[u8] = match self.result {
            DataType::Float16 => &half::f16::NAN.to_le_bytes(),
            DataType::BFloat16 => &half::bf16::NAN.to_le_bytes(),
            DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => &i64::MIN.to_le_bytes(),
            _ => return bytes.to_vec(),
        };
        let mut out = bytes.to_vec();
        let missing = self.missing.typed::<T>();
        for (slot, &value) in out
            .chunks_exact_mut(nan.len())
            .zip(elements::<T>(bytes).iter())
        {
            if missing(value) {
                slot.copy_from_slice(nan);
            }
        }
        out
    }
}

impl Missing {
    /// The same bits read as the type of other sign.
    fn with_sign_of(self, from: &DataType, to: &DataType) -> Self {
        let bits = 8 * from.size_bytes().unwrap_or(8) as u32;
        let mask = u64::MAX >> (64 - bits);
        let turn = |value: Scalar| match (value, to.is_unsigned_integer()) {
            (Scalar::Int(value), true) => Scalar::UInt(value.cast_unsigned() & mask),
            (Scalar::UInt(value), false) => {
                Scalar::Int((value << (64 - bits)).cast_signed() >> (64 - bits))
            }
            (value, _) => value,
        };
        Self {
            values: self.values.into_iter().map(turn).collect(),
            min: self.min.map(turn),
            max: self.max.map(turn),
        }
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_float()
        || matches!(
            data_type,
            DataType::Bool | DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. }
        )
}

fn other_sign(data_type: &DataType, unsigned: bool) -> DataType {
    match (data_type, unsigned) {
        (DataType::Int8, true) => DataType::UInt8,
        (DataType::Int16, true) => DataType::UInt16,
        (DataType::Int32, true) => DataType::UInt32,
        (DataType::Int64, true) => DataType::UInt64,
        (DataType::UInt8, false) => DataType::Int8,
        (DataType::UInt16, false) => DataType::Int16,
        (DataType::UInt32, false) => DataType::Int32,
        (DataType::UInt64, false) => DataType::Int64,
        (same, _) => same.clone(),
    }
}

fn number(name: &str, value: &Value) -> Result<f64, Error> {
    value.as_f64().ok_or_else(|| not_a_number(name, value))
}

fn not_a_number(name: &str, value: &Value) -> Error {
    Error::Attribute {
        name: name.to_owned(),
        reason: format!("is {value}, not a number"),
    }
}

/// The numbers of an attribute, each as the array would hold it; `None` for one it cannot hold.
fn numbers(
    data_type: &DataType,
    attributes: &Map<String, Value>,
    name: &str,
) -> Result<Vec<Option<Scalar>>, Error> {
    match attributes.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| scalar(data_type, name, item))
            .collect(),
        Some(item) => Ok(vec![scalar(data_type, name, item)?]),
    }
}

fn scalar(data_type: &DataType, name: &str, value: &Value) -> Result<Option<Scalar>, Error> {
    let float = match value {
        Value::Number(number) => number.as_f64(),
        // xarray's Zarr v3 encoding of a `_FillValue`: base64 of a little-endian float64.
        Value::String(text) if data_type.is_float() => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => BASE64
                .decode(text)
                .ok()
                .and_then(|b| b.try_into().ok())
                .map(f64::from_le_bytes),
        },
        _ => None,
    };
    let float = float.ok_or_else(|| not_a_number(name, value))?;
    let integer = match value {
        Value::Number(n) => n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)),
        _ => None,
    };
    let whole = integer.or((float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i128));
    let bits = 8 * data_type.size_bytes().unwrap_or(8) as u32;
    Ok(match data_type {
        DataType::Float16 => Some(Scalar::Float(half::f16::from_f64(float).to_f64())),
        DataType::BFloat16 => Some(Scalar::Float(half::bf16::from_f64(float).to_f64())),
        DataType::Float32 => Some(Scalar::Float(f64::from(float as f32))),
        DataType::Float64 => Some(Scalar::Float(float)),
        data_type if data_type.is_unsigned_integer() || *data_type == DataType::Bool => whole
            .filter(|&n| n >= 0 && n < 1 << bits)
            .map(|n| Scalar::UInt(n as u64)),
        _ => {
            let half = 1i128 << (bits - 1);
            whole
                .filter(|&n| n >= -half && n < half)
                .map(|n| Scalar::Int(n as i64))
        }
    }
    .filter(|scalar| !matches!(scalar, Scalar::Float(value) if value.is_nan())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(data_type: &DataType, attributes: &Value, bytes: &[u8]) -> (DataType, Vec<f64>) {
        let attributes = attributes.as_object().unwrap().clone();
        let decoder = CfDecoder::new(data_type, &attributes, Decode::Cf)
            .unwrap()
            .unwrap();
        let bytes = decoder.decode(bytes);
        let values = with_real!(decoder.data_type(), T => elements::<T>(&bytes).iter().map(|v| v.to_f64()).collect(), else vec![]);
        (decoder.data_type().clone(), values)
    }

    fn same(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
    }

    #[test]
    fn values_and_types_are_xarrays() {
        let shorts: Vec<u8> = [1i16, -5, 300]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let ints: Vec<u8> = [1i32, -5, 300]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let floats: Vec<u8> = [1f32, -5.0, 300.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let nan = f64::NAN;
        let fill = BASE64.encode((-5f64).to_le_bytes());
        for (data_type, attributes, bytes, expected_type, expected) in [
            (
                DataType::Int16,
                json!({"_FillValue": -5}),
                &shorts,
                DataType::Float32,
                [1.0, nan, 300.0],
            ),
            (
                DataType::Int32,
                json!({"missing_value": [1, 300]}),
                &ints,
                DataType::Float64,
                [nan, -5.0, nan],
            ),
            (
                DataType::Int16,
                json!({"_FillValue": -5, "scale_factor": 0.5, "add_offset": 1.0}),
                &shorts,
                DataType::Float64,
                [1.5, nan, 151.0],
            ),
            (
                DataType::Float32,
                json!({"_FillValue": fill}),
                &floats,
                DataType::Float32,
                [1.0, nan, 300.0],
            ),
            (
                DataType::Float32,
                json!({"valid_range": [0.0, 10.0]}),
                &floats,
                DataType::Float32,
                [1.0, nan, nan],
            ),
            (
                DataType::Int16,
                json!({"_Unsigned": "true"}),
                &shorts,
                DataType::UInt16,
                [1.0, 65531.0, 300.0],
            ),
            (
                DataType::Int16,
                json!({"_Unsigned": "true", "_FillValue": -5}),
                &shorts,
                DataType::Float32,
                [1.0, nan, 300.0],
            ),
        ] {
            let (found_type, found) = decode(&data_type, &attributes, bytes);
            assert_eq!(found_type, expected_type, "{attributes}");
            assert!(same(&found, &expected), "{attributes}: {found:?}");
        }
    }

    #[test]
    fn what_changes_nothing_is_none_and_nonsense_is_an_error() {
        let new = |attributes: Value| {
            CfDecoder::new(
                &DataType::Int16,
                attributes.as_object().unwrap(),
                Decode::Cf,
            )
        };
        assert!(new(json!({"units": "m"})).unwrap().is_none());
        assert!(
            new(json!({"_FillValue": 1e9})).unwrap().is_none(),
            "int16 cannot hold it"
        );
        assert!(new(json!({"scale_factor": "big"})).is_err());
        assert!(new(json!({"_FillValue": {}})).is_err());
    }
}
