//! Times as another array stores them: with another unit, since another reference.
//!
//! Integers are converted exactly or not at all. Floats are computed from exact parts and rounded
//! once, to the number nearest to the same instant.

use array::DataType;
use serde_json::{Map, Value};

use super::super::component::iso_text;
use super::super::missing::Missing;
use super::{INSTANT_MAX, SECOND, TimeUnits, Unit};
use crate::element::{Element, elements};

/// Furthest that a float may move by rounding, in seconds: what no calendar of observations or
/// models resolves, and a hundred times what 64-bit floats lose over ten thousand years of days.
const MOVED_MAX_SECONDS: f64 = 1e-3;

/// A time that the other units cannot hold in its data type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value {value} at position {position} {reason}")]
pub struct Inexact {
    /// Its place among the elements.
    pub position: usize,
    /// The stored number.
    pub value: String,
    /// Why it has no other form.
    pub reason: &'static str,
}

const NOT_WHOLE: &str = "is not a whole number of the other units, or too large a one";
const MOVES: &str = "would move by over a millisecond";
const UNKNOWN: &str = "is of a type that times are not converted in";

impl TimeUnits {
    /// Rewrites stored times of these units, little-endian elements of `data_type`, as those of
    /// `to`. NaN and what `_FillValue` and `missing_value` of `attributes` name stay as they are.
    ///
    /// # Errors
    /// [`Inexact`] for the first time that `to` cannot hold: between two integers, out of the range
    /// of the type, or moved by over a millisecond; the bytes are of no use then.
    pub fn recode(
        &self,
        to: &Self,
        data_type: &DataType,
        attributes: &Map<String, Value>,
        bytes: &mut [u8],
    ) -> Result<(), Inexact> {
        let mut missing = Map::new();
        for name in ["_FillValue", "missing_value"] {
            if let Some(value) = attributes.get(name) {
                missing.insert(name.to_owned(), value.clone());
            }
        }
        // A `_FillValue` that is no number is the business of whoever decodes.
        let missing = Missing::from_attributes(data_type, &missing).unwrap_or_default();
        macro_rules! integers {
            ($t:ty) => {
                each::<$t>(bytes, &missing, NOT_WHOLE, |value| {
                    let instant = self.decode_integer(i128::from(value)).ok()?;
                    <$t>::try_from(to.encode_integer(instant)?).ok()
                })
            };
        }
        match data_type {
            DataType::Int8 => integers!(i8),
            DataType::Int16 => integers!(i16),
            DataType::Int32 => integers!(i32),
            DataType::Int64 => integers!(i64),
            DataType::UInt8 => integers!(u8),
            DataType::UInt16 => integers!(u16),
            DataType::UInt32 => integers!(u32),
            DataType::UInt64 => integers!(u64),
            DataType::Float32 => each::<f32>(bytes, &missing, MOVES, |value| {
                let exact = self.convert(f64::from(value), to)?;
                let rounded = exact as f32;
                to.is_near(f64::from(rounded) - exact).then_some(rounded)
            }),
            DataType::Float64 => each::<f64>(bytes, &missing, MOVES, |value| {
                let nearest = self.convert(value, to)?;
                to.is_near(nearest * f64::EPSILON).then_some(nearest)
            }),
            _ => Err(Inexact {
                position: 0,
                value: data_type.to_string(),
                reason: UNKNOWN,
            }),
        }
    }

    /// Whether two stored floats of these units that differ by so much stand for one time, as far
    /// as that can be told of times that were converted.
    pub fn is_near(&self, difference: f64) -> bool {
        match self.unit {
            Unit::Fixed(unit) => {
                let seconds = unit as f64 / SECOND as f64;
                (difference * seconds).abs() <= MOVED_MAX_SECONDS
            }
            Unit::Months(_) => difference == 0.0,
        }
    }

    /// ISO 8601 text of an instant, in attoseconds since day 0 of the calendar.
    pub fn text(&self, instant: i128) -> String {
        iso_text(self.calendar, instant, SECOND)
    }

    /// The number of `to` nearest to a finite number of these units; `None` if it is out of range.
    fn convert(&self, value: f64, to: &Self) -> Option<f64> {
        let (Unit::Fixed(from), Unit::Fixed(unit)) = (self.unit, to.unit) else {
            return None;
        };
        // Also refuses infinities.
        if value.abs() * from as f64 > INSTANT_MAX as f64 || !value.is_finite() {
            return None;
        }
        let moved = self.reference.checked_sub(to.reference)?;
        // In the largest part that all three are whole numbers of, whole units are moved exactly;
        // the rest is rounded once, and once more where the new unit is longer.
        let part = common_divisor(common_divisor(from, unit), moved.abs());
        let (from, unit, moved) = (from / part, unit / part, moved / part);
        let whole = (value.trunc() as i128)
            .checked_mul(from)?
            .checked_add(moved)?;
        Some(value.fract().mul_add(from as f64, whole as f64) / unit as f64)
    }
}

/// The largest number that divides both; `a` is positive.
fn common_divisor(mut a: i128, mut b: i128) -> i128 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Rewrites every element that is there.
fn each<T: Element>(
    bytes: &mut [u8],
    missing: &Missing,
    reason: &'static str,
    change: impl Fn(T) -> Option<T>,
) -> Result<(), Inexact> {
    let values = elements::<T>(bytes).into_owned();
    let mut is_there = vec![true; values.len()];
    missing.mask::<T>().flag_valid(&values, &mut is_there);
    let slots = bytes.chunks_exact_mut(size_of::<T>());
    for (position, ((slot, &value), is_there)) in slots.zip(&values).zip(is_there).enumerate() {
        if is_there {
            let changed = change(value).ok_or_else(|| Inexact {
                position,
                value: match T::IS_FLOAT {
                    true => value.to_f64().to_string(),
                    false => value.to_i128().to_string(),
                },
                reason,
            })?;
            slot.copy_from_slice(bytemuck::bytes_of(&changed));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn units(units: &str, calendar: &str) -> TimeUnits {
        let attributes = json!({ "units": units, "calendar": calendar });
        let attributes = attributes.as_object().unwrap();
        TimeUnits::new(&DataType::Float64, attributes)
            .unwrap()
            .unwrap()
    }

    fn recoded<T: Element>(
        data_type: &DataType,
        values: &[T],
        (from, to): (&str, &str),
        attributes: &Value,
    ) -> Result<Vec<T>, Inexact> {
        let (from, to) = (units(from, "noleap"), units(to, "noleap"));
        let mut bytes = bytemuck::cast_slice(values).to_vec();
        let attributes = attributes.as_object().unwrap();
        from.recode(&to, data_type, attributes, &mut bytes)?;
        Ok(elements::<T>(&bytes).into_owned())
    }

    #[test]
    fn integers_are_converted_exactly_or_not_at_all() {
        let days = ("days since 2001-01-01", "hours since 2000-01-01 06:00");
        let none = json!({});
        assert_eq!(
            recoded(&DataType::Int32, &[0i32, 1, -365], days, &none).unwrap(),
            [365 * 24 - 6, 366 * 24 - 6, -6]
        );
        let back = ("hours since 2000-01-01", "days since 2000-01-01");
        let error = recoded(&DataType::Int64, &[24i64, 25], back, &none).unwrap_err();
        assert_eq!((error.position, error.value.as_str()), (1, "25"));
        // Too large for the type.
        assert!(recoded(&DataType::Int16, &[30_000i16], days, &none).is_err());
        assert!(recoded(&DataType::UInt16, &[0u16], (days.1, days.0), &none).is_err());
        assert!(recoded(&DataType::Int64, &[i64::MAX], days, &none).is_err());
    }

    #[test]
    fn missing_times_stay() {
        let units = ("days since 2001-01-01", "days since 2000-01-01");
        let fill = json!({ "_FillValue": -1, "missing_value": [-2] });
        assert_eq!(
            recoded(&DataType::Int16, &[0i16, -1, -2], units, &fill).unwrap(),
            [365, -1, -2]
        );
        let found = recoded(&DataType::Float32, &[f32::NAN, 0.5], units, &json!({})).unwrap();
        assert!(found[0].is_nan() && found[1] == 365.5);
    }

    #[test]
    fn floats_that_would_move_are_refused() {
        let far = ("hours since 2000-01-01", "hours since 0001-01-01");
        // A 32-bit float of 17 million hours has no fraction.
        assert!(recoded(&DataType::Float32, &[0.25f32], far, &json!({})).is_err());
        assert!(recoded(&DataType::Float64, &[0.25f64], far, &json!({})).is_ok());
        assert!(recoded(&DataType::Float64, &[f64::INFINITY], far, &json!({})).is_err());
        assert!(recoded(&DataType::Float64, &[1e300], far, &json!({})).is_err());
        assert!(recoded(&DataType::Float16, &[half::f16::ONE], far, &json!({})).is_err());
    }

    proptest! {
        /// To the last digit: no float is nearer to the exact rational.
        #[test]
        fn floats_are_the_nearest(whole in -100_000i64..100_000, parts in 0i64..86_400) {
            let value = whole as f64 + parts as f64 / 86_400.0;
            let (from, to) = ("days since 1990-01-01", "days since 1890-01-01");
            let found = recoded(&DataType::Float64, &[value], (from, to), &json!({})).unwrap()[0];
            // 100 years of 365 days are whole days: the sum of two floats, rounded once.
            prop_assert_eq!(found, value + 36_500.0);
            let to = "seconds since 1890-01-01";
            let found = recoded(&DataType::Float64, &[value], (from, to), &json!({})).unwrap()[0];
            let exact = (whole + 36_500) * 86_400 + parts;
            prop_assert!((found - exact as f64).abs() < 1e-5, "{} {}", found, exact);
        }
    }
}
