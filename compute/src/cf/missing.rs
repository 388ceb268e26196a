//! Which stored values are missing.

use array::DataType;
use serde_json::{Map, Value};

use super::number::{Number, is_real, items, not_a_number};
use crate::Error;
use crate::element::Element;

/// Which stored values are missing, besides NaN and NaT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Missing {
    values: Vec<Number>,
    least: Option<Number>,
    greatest: Option<Number>,
    /// Whether attributes call any value missing but NaN, even one the type cannot hold.
    is_any: bool,
    /// Whether `_FillValue` and `missing_value` call NaN missing and nothing else.
    is_only_nan: bool,
}

impl Missing {
    /// What the attributes of an array of `data_type` call missing; nothing unless it holds real
    /// numbers or times.
    ///
    /// A `missing_value` or bound that is not a number, or that the type cannot hold, matches
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Attribute`] for a `_FillValue` that is not a number.
    pub fn from_attributes(
        data_type: &DataType,
        attributes: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let mut missing = Self::default();
        if !is_real(data_type) {
            return Ok(missing);
        }
        for item in items(attributes.get("_FillValue")) {
            let number = Number::from_fill_value(data_type, item);
            let number = number.ok_or_else(|| not_a_number("_FillValue", item))?;
            missing.take(Some(number));
        }
        for item in items(attributes.get("missing_value")) {
            missing.take(Number::from_json(item));
        }
        let is_named = ["_FillValue", "missing_value"].map(|name| attributes.contains_key(name));
        missing.is_only_nan = is_named.contains(&true) && !missing.is_any;
        let bound = |value| Number::from_json(value).filter(|bound| !bound.is_nan());
        let first = |name| items(attributes.get(name)).first().and_then(bound);
        (missing.least, missing.greatest) = match items(attributes.get("valid_range")) {
            [least, greatest] => (bound(least), bound(greatest)),
            _ => (first("valid_min"), first("valid_max")),
        };
        missing.is_any |= missing.least.is_some() || missing.greatest.is_some();
        Ok(missing)
    }

    /// Takes a missing value, `None` for one that is not a number. NaN is missing anyway.
    fn take(&mut self, number: Option<Number>) {
        if number.is_none_or(|number| !number.is_nan()) {
            self.is_any = true;
            self.values.extend(number);
        }
    }

    /// Whether attributes call any value missing but NaN.
    pub fn is_any(&self) -> bool {
        self.is_any
    }

    /// Whether `_FillValue` and `missing_value` call NaN missing and nothing else.
    pub(super) fn is_only_nan(&self) -> bool {
        self.is_only_nan
    }

    /// The same bits read as `stored`, the integer type of the other sign.
    pub(super) fn with_sign_of(mut self, stored: &DataType) -> Self {
        let bits = 8 * stored.size_bytes().unwrap_or(8) as u32;
        let (half, whole) = (1i128 << (bits - 1), 1i128 << bits);
        let turn = |number: &mut Number| match number {
            Number::Integer(value) if stored.is_unsigned_integer() => {
                *value += if (-half..0).contains(value) { whole } else { 0 };
            }
            Number::Integer(value) if stored.is_signed_integer() => {
                *value -= if (half..whole).contains(value) {
                    whole
                } else {
                    0
                };
            }
            _ => {}
        };
        self.values.iter_mut().for_each(turn);
        self.least
            .iter_mut()
            .chain(&mut self.greatest)
            .for_each(turn);
        self
    }

    /// The same in terms of an element type.
    pub(crate) fn mask<T: Element>(&self) -> Mask<T> {
        let values = self
            .values
            .iter()
            .filter_map(|&number| T::Wide::exactly(number));
        let is_bound = self.least.is_some() || self.greatest.is_some();
        Mask {
            values: values.collect(),
            valid: is_bound.then(|| T::Wide::range(self.least, self.greatest)),
        }
    }
}

/// Which values of an element type are missing.
#[derive(Clone, Debug)]
pub(crate) struct Mask<T: Element> {
    values: Vec<T::Wide>,
    /// Others than these are missing.
    valid: Option<(T::Wide, T::Wide)>,
}

impl<T: Element> Mask<T> {
    /// Sets each flag to whether the value at its place is there; NaN and NaT are not.
    #[inline(always)]
    pub(crate) fn flag_valid(&self, values: &[T], flags: &mut [bool]) {
        for (flag, value) in flags.iter_mut().zip(values) {
            *flag = !value.is_missing();
        }
        // One pass for each value: a comparison with one constant is a vector instruction.
        for missing in &self.values {
            for (flag, value) in flags.iter_mut().zip(values) {
                *flag &= value.widen() != *missing;
            }
        }
        if let Some((least, greatest)) = self.valid {
            for (flag, value) in flags.iter_mut().zip(values) {
                let value = value.widen();
                *flag &= (value >= least) & (value <= greatest);
            }
        }
    }

    /// The missing values, and the least and greatest others, as words.
    #[cfg(feature = "gpu")]
    pub(super) fn words(&self) -> (Vec<u64>, Option<(u64, u64)>) {
        let values = self.values.iter().map(|value| value.to_word());
        let valid = self.valid;
        let valid = valid.map(|(least, greatest)| (least.to_word(), greatest.to_word()));
        (values.collect(), valid)
    }

    /// Calls `visit` with the positions of missing values, NaN and NaT aside; with some twice.
    pub(super) fn for_each_missing(&self, values: &[T], mut visit: impl FnMut(usize)) {
        for missing in &self.values {
            positions(values, |value| value.widen() == *missing).for_each(&mut visit);
        }
        if let Some((least, greatest)) = self.valid {
            let is_outside = |value: T| value.widen() < least || value.widen() > greatest;
            positions(values, is_outside).for_each(&mut visit);
        }
    }
}

fn positions<T: Copy>(values: &[T], is: impl Fn(T) -> bool) -> impl Iterator<Item = usize> {
    let values = values.iter().enumerate();
    values
        .filter(move |(_, value)| is(**value))
        .map(|(at, _)| at)
}

/// A type that numbers of attributes are compared in.
pub(crate) trait Limit: Copy + PartialOrd {
    /// The same number, if the type holds it.
    fn exactly(number: Number) -> Option<Self>;

    /// The least and the greatest value between two bounds, inclusive; the first above the second
    /// if there is none.
    fn range(least: Option<Number>, greatest: Option<Number>) -> (Self, Self);

    /// Its bits: of a double, or of an integer widened to 64.
    #[cfg(feature = "gpu")]
    fn to_word(self) -> u64;
}

impl Limit for f64 {
    fn exactly(number: Number) -> Option<Self> {
        Some(number.to_f64())
    }

    fn range(least: Option<Number>, greatest: Option<Number>) -> (Self, Self) {
        let least = least.map_or(Self::NEG_INFINITY, Number::to_f64);
        (least, greatest.map_or(Self::INFINITY, Number::to_f64))
    }

    #[cfg(feature = "gpu")]
    fn to_word(self) -> u64 {
        self.to_bits()
    }
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Limit for $t {
            fn exactly(number: Number) -> Option<Self> {
                let value = match number {
                    Number::Integer(value) => value,
                    // Beyond 128 bits the conversion saturates, to what no type holds.
                    Number::Float(value) => (value.fract() == 0.0).then_some(value as i128)?,
                };
                Self::try_from(value).ok()
            }

            fn range(least: Option<Number>, greatest: Option<Number>) -> (Self, Self) {
                let whole = |number: Number, round: fn(f64) -> f64| match number {
                    Number::Integer(value) => value,
                    Number::Float(value) => round(value) as i128,
                };
                let (min, max) = (i128::from(Self::MIN), i128::from(Self::MAX));
                let least = least.map_or(min, |number| whole(number, f64::ceil).max(min));
                let greatest = greatest.map_or(max, |number| whole(number, f64::floor).min(max));
                match (Self::try_from(least), Self::try_from(greatest)) {
                    (Ok(least), Ok(greatest)) => (least, greatest),
                    _ => (Self::MAX, Self::MIN),
                }
            }

            #[cfg(feature = "gpu")]
            #[allow(clippy::cast_lossless, reason = "not lossless for every type of the macro")]
            fn to_word(self) -> u64 {
                // Signed ones keep their sign.
                self as i128 as u64
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);
