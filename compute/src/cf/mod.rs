//! Missing and packed values, as CF attributes describe them and xarray decodes them.
//!
//! Source: CF conventions §2.5.1 and §8.1; `xarray.coding.variables` (`CFMaskCoder`,
//! `CFScaleOffsetCoder`) for result types. Where this departs from xarray:
//!
//! - `valid_min`, `valid_max` and `valid_range` mask too.
//! - Missing values are compared as stored, before 64-bit integers lose digits as floats.
//! - `_Unsigned` turns `missing_value` too, not `_FillValue` alone.
//! - An integer `scale_factor` of floats, or of integers with missing values, gives `float64`;
//!   xarray cuts the former to integers and fails on the latter.
//! - Missing booleans make `float32`; xarray has objects.
//! - Times stay numbers: what their CF `units` mean is in [`time`].

mod calendar;
mod component;
mod missing;
pub(crate) mod number;
mod stamp;
pub mod time;

use array::DataType;
use half::{bf16, f16};
use serde_json::{Map, Value};

pub(crate) use component::iso_text;
pub use missing::Missing;
pub(crate) use missing::{Limit, Mask};
pub(crate) use stamp::{Interval, Stamp};

use crate::Error;
use crate::element::{Element, elements, with_real};
use crate::halves::{bf16_of, f16_of};
use number::Number;

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

/// Turns stored values into those they stand for.
#[derive(Clone, Debug)]
pub struct CfDecoder {
    /// The type stored values are read as: `_Unsigned` changes its sign.
    stored: DataType,
    changes_sign: bool,
    result: DataType,
    missing: Missing,
    scale: Option<Number>,
    offset: Option<Number>,
}

impl CfDecoder {
    /// The decoding that the attributes of an array of `data_type` ask for; `None` if values stay
    /// as they are, as those that are not real numbers always do.
    ///
    /// # Errors
    /// [`Error::Attribute`] if `_FillValue`, `scale_factor` or `add_offset` are not numbers.
    pub fn new(
        data_type: &DataType,
        attributes: &Map<String, Value>,
        decode: Decode,
    ) -> Result<Option<Self>, Error> {
        if decode == Decode::Raw || !number::is_real(data_type) {
            return Ok(None);
        }
        let stored = with_sign(data_type, attributes.get("_Unsigned"));
        let mut missing = Missing::from_attributes(data_type, attributes)?;
        if stored != *data_type {
            missing = missing.with_sign_of(&stored);
        }
        let factor = |name| match decode {
            Decode::Cf if !number::is_time(data_type) => number::factor(attributes, name),
            _ => Ok(None),
        };
        let (scale, offset) = (factor("scale_factor")?, factor("add_offset")?);
        let result = result_type(&stored, &missing, scale, offset);
        let changes = stored != *data_type
            || result != stored
            || missing.is_any()
            || scale.is_some()
            || offset.is_some();
        Ok(changes.then_some(Self {
            changes_sign: stored != *data_type,
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

    /// Whether values are scaled or offset.
    pub(crate) fn is_packed(&self) -> bool {
        self.scale.is_some() || self.offset.is_some()
    }

    /// The type stored values are read as.
    #[cfg(feature = "gpu")]
    pub(crate) fn stored(&self) -> &DataType {
        &self.stored
    }

    /// Whether values stand for themselves but for their sign.
    #[cfg(feature = "gpu")]
    pub(crate) fn only_changes_sign(&self) -> bool {
        self.changes_sign
            && self.result == self.stored
            && !self.missing.is_any()
            && !self.is_packed()
    }

    /// What stored values are multiplied by, and what is added then, where there is something.
    #[cfg(feature = "gpu")]
    pub(crate) fn factors(&self) -> (Option<f64>, Option<f64>) {
        (
            self.scale.map(Number::to_f64),
            self.offset.map(Number::to_f64),
        )
    }

    /// Missing values, and the least and greatest others where they are bounded, as kernels compare
    /// them: bits of a double, or of an integer widened to 64.
    #[cfg(feature = "gpu")]
    pub(crate) fn limits<T: Element>(&self) -> (Vec<u64>, Option<(u64, u64)>) {
        self.missing.mask::<T>().words()
    }

    /// What stored values are multiplied by, and what is added then.
    pub(crate) fn packing(&self) -> (f64, f64) {
        let number = |number: Option<Number>, default| number.map_or(default, Number::to_f64);
        (number(self.scale, 1.0), number(self.offset, 0.0))
    }

    /// Whether stored values are read with another sign.
    pub(crate) fn changes_sign(&self) -> bool {
        self.changes_sign
    }

    /// Whether larger stored values stand for smaller ones.
    pub(crate) fn falls(&self) -> bool {
        self.scale.is_some_and(|scale| scale.to_f64() < 0.0)
    }

    /// Decodes stored elements.
    pub fn decode(&self, bytes: &[u8]) -> Vec<u8> {
        with_real!(
            &self.stored,
            T => self.decode_as(&elements::<T>(bytes)),
            else bytes.to_vec()
        )
    }

    fn decode_as<T: Element>(&self, values: &[T]) -> Vec<u8> {
        let mask = self.missing.mask::<T>();
        let (scale, offset) = (
            self.scale.map(Number::to_f64),
            self.offset.map(Number::to_f64),
        );
        match self.result {
            _ if self.scale.is_none() && self.offset.is_none() && self.result == self.stored => {
                write(values, &mask, T::MISSING, |value| value)
            }
            DataType::Float64 => write(values, &mask, f64::NAN, |value| {
                linear(value.to_f64(), scale, offset, |value| value)
            }),
            DataType::Float32 => write(values, &mask, f32::NAN, |value| {
                let round = |value: f64| f64::from(value as f32);
                linear(value.to_f64(), scale.map(round), offset.map(round), round) as f32
            }),
            DataType::Float16 => write(values, &mask, f16::NAN, |value| {
                let round = |value: f64| f16_of(value).to_f64();
                f16_of(linear(
                    value.to_f64(),
                    scale.map(round),
                    offset.map(round),
                    round,
                ))
            }),
            DataType::BFloat16 => write(values, &mask, bf16::NAN, |value| {
                let round = |value: f64| bf16_of(value).to_f64();
                bf16_of(linear(
                    value.to_f64(),
                    scale.map(round),
                    offset.map(round),
                    round,
                ))
            }),
            // Modulo 2^64, as NumPy.
            _ => {
                let scale = self.scale.map_or(1, Number::to_i64);
                let scaled = |value: T| (value.to_i128() as i64).wrapping_mul(scale);
                write(values, &mask, 0, scaled)
            }
        }
    }
}

/// `value * scale + offset`, each step rounded to the precision of the result.
#[inline]
fn linear(
    mut value: f64,
    scale: Option<f64>,
    offset: Option<f64>,
    round: impl Fn(f64) -> f64,
) -> f64 {
    if let Some(scale) = scale {
        value = round(value * scale);
    }
    if let Some(offset) = offset {
        value = round(value + offset);
    }
    value
}

/// Values as `decode` gives them, and `nothing` for missing ones.
fn write<T: Element, R: bytemuck::Pod>(
    values: &[T],
    mask: &Mask<T>,
    nothing: R,
    decode: impl Fn(T) -> R,
) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * size_of::<R>()];
    // Part by part, so that a part is still in the first-level cache when it is masked.
    const PART: usize = 1024;
    for (values, out) in values
        .chunks(PART)
        .zip(bytes.chunks_mut(PART * size_of::<R>()))
    {
        for (slot, &value) in out.chunks_exact_mut(size_of::<R>()).zip(values) {
            slot.copy_from_slice(bytemuck::bytes_of(&decode(value)));
        }
        mask.for_each_missing(values, |at| {
            out[at * size_of::<R>()..(at + 1) * size_of::<R>()]
                .copy_from_slice(bytemuck::bytes_of(&nothing));
        });
    }
    bytes
}

/// The type of decoded values, xarray's rule: `CFMaskCoder.decode`, `_choose_float_dtype`.
///
/// JSON has no float32, so factors are 64-bit floats or integers.
fn result_type(
    stored: &DataType,
    missing: &Missing,
    scale: Option<Number>,
    offset: Option<Number>,
) -> DataType {
    let is_integer = stored.is_integer() || *stored == DataType::Bool;
    match (scale, offset) {
        // Packed floats that name NaN alone as missing keep their type.
        (Some(_), _) | (_, Some(_)) if !is_integer && missing.is_only_nan() => stored.clone(),
        (Some(Number::Integer(_)), None) if is_integer && !missing.is_any() => DataType::Int64,
        (Some(_), _) | (_, Some(_)) => DataType::Float64,
        (None, None) if !is_integer || !missing.is_any() => stored.clone(),
        (None, None) if stored.size_bytes().is_some_and(|size| size <= 2) => DataType::Float32,
        (None, None) => DataType::Float64,
    }
}

/// The type of the same size and of the sign that `_Unsigned` asks for.
fn with_sign(data_type: &DataType, unsigned: Option<&Value>) -> DataType {
    match (data_type, unsigned.and_then(Value::as_str)) {
        (DataType::Int8, Some("true")) => DataType::UInt8,
        (DataType::Int16, Some("true")) => DataType::UInt16,
        (DataType::Int32, Some("true")) => DataType::UInt32,
        (DataType::Int64, Some("true")) => DataType::UInt64,
        (DataType::UInt8, Some("false")) => DataType::Int8,
        (DataType::UInt16, Some("false")) => DataType::Int16,
        (DataType::UInt32, Some("false")) => DataType::Int32,
        (DataType::UInt64, Some("false")) => DataType::Int64,
        (same, _) => same.clone(),
    }
}

#[cfg(test)]
mod tests;
