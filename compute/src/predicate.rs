//! Comparisons that cells have to satisfy, and masks of those that do not.
//!
//! Source: `xarray.DataArray.where` for types (`xarray.core.dtypes.maybe_promote`, xarray 2026.9),
//! NumPy's comparisons with Python numbers: floats are compared with the number rounded to their
//! type, and NaN only differs. Where this departs:
//!
//! - booleans with missing ones are `float32`; xarray has objects;
//! - integers are compared exactly; NumPy rounds those of 64 bits before it compares them with
//!   floats.

use std::cmp::Ordering;

use array::{DataType, Scalar};

use crate::Error;
use crate::cf::number::is_time;
use crate::element::{Element, elements, with_real};
use crate::halves::{bf16_of, f16_of};
use crate::order::Keyed;
use crate::simd::vectorised;

/// Most comparisons of one predicate.
const MAX_COMPARISONS: usize = 16;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are their names")]
pub enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Operator {
    /// Longer ones first.
    pub(crate) const SIGNS: [(&'static str, Self); 6] = [
        ("<=", Self::LessOrEqual),
        (">=", Self::GreaterOrEqual),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    pub(crate) fn sign(self) -> &'static str {
        let found = Self::SIGNS.iter().find(|(_, operator)| *operator == self);
        found.map_or("", |(sign, _)| sign)
    }

    /// Whether it holds of values in this order; `None` where one is NaN.
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
        }
    }
}

/// A comparison of a value with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// With what. Times are compared in their ticks.
    pub value: Scalar,
}

/// Whether cells of a box satisfy a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// None does.
    Never,
    /// Some may.
    Sometimes,
    /// All do.
    Always,
}

/// Comparisons that all have to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    comparisons: Vec<Comparison>,
}

impl Predicate {
    /// A predicate of these comparisons.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is none, more than 16, or one with NaN.
    pub fn new(comparisons: Vec<Comparison>) -> Result<Self, Error> {
        let count = comparisons.len();
        if !(1..=MAX_COMPARISONS).contains(&count) {
            let reason = format!("has {count} comparisons, not 1 to {MAX_COMPARISONS}");
            return Err(refused(reason));
        }
        let is_nan =
            |comparison: &Comparison| matches!(comparison.value, Scalar::Float(n) if n.is_nan());
        if comparisons.iter().any(is_nan) {
            return Err(refused("compares with NaN, which has no order".to_owned()));
        }
        Ok(Self { comparisons })
    }

    /// The comparisons.
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }

    /// Whether values of `data_type` satisfy it that are in `range`, from the least to the greatest,
    /// with missing ones among them or not. `None` for the range if there are only missing ones.
    pub fn may_hold(
        &self,
        data_type: &DataType,
        range: Option<(Scalar, Scalar)>,
        has_missing: bool,
    ) -> Holds {
        let missing_hold = {
            let mut operators = self
                .comparisons
                .iter()
                .map(|comparison| comparison.operator);
            operators.all(|operator| operator.holds(None))
        };
        let (mut all, mut none) = (true, range.is_none());
        if let Some((min, max)) = range {
            for comparison in &self.comparisons {
                let limit = rounded(comparison.value, data_type);
                let (low, high) = (compare(min, limit), compare(max, limit));
                let (low, high) = (Some(low), Some(high));
                let operator = comparison.operator;
                // Orders ascend with the values, so most operators hold at both ends or between.
                let (at_all, at_none) = match operator {
                    Operator::Equal | Operator::NotEqual => {
                        let outside =
                            low == Some(Ordering::Greater) || high == Some(Ordering::Less);
                        let is_limit = low == high && low == Some(Ordering::Equal);
                        match operator {
                            Operator::Equal => (is_limit, outside),
                            _ => (outside, is_limit),
                        }
                    }
                    _ => {
                        let ends = [operator.holds(low), operator.holds(high)];
                        (ends == [true, true], ends == [false, false])
                    }
                };
                all &= at_all;
                none |= at_none;
            }
        }
        let holds = [
            range.map(|_| (all, none)),
            has_missing.then_some((missing_hold, !missing_hold)),
        ];
        let holds = || holds.into_iter().flatten();
        match (holds().all(|(all, _)| all), holds().all(|(_, none)| none)) {
            // Nothing at all, or nothing that holds.
            (_, true) => Holds::Never,
            (true, _) => Holds::Always,
            _ => Holds::Sometimes,
        }
    }

    /// Type of values where those that do not satisfy it are missing: floats and times keep their
    /// type; booleans and integers of 8 and 16 bits are `float32`, others `float64`.
    ///
    /// # Errors
    /// [`Error::Undefined`] for what are not real numbers.
    pub fn data_type(data_type: &DataType) -> Result<DataType, Error> {
        let is_integer = data_type.is_integer() || *data_type == DataType::Bool;
        match data_type.size_bytes() {
            _ if data_type.is_float() || is_time(data_type) => Ok(data_type.clone()),
            Some(..=2) if is_integer => Ok(DataType::Float32),
            _ if is_integer => Ok(DataType::Float64),
            _ => Err(Error::Undefined {
                reducer: "where",
                data_type: data_type.to_string(),
            }),
        }
    }

    /// Sets `mask` to false wherever an element does not satisfy it; what is false stays so.
    /// `mask` has one item for each element.
    ///
    /// # Errors
    /// [`Error::Undefined`] for what are not real numbers.
    pub fn mask(&self, data_type: &DataType, bytes: &[u8], mask: &mut [bool]) -> Result<(), Error> {
        Self::data_type(data_type)?;
        with_real!(data_type, T => {
            let values = &elements::<T>(bytes)[..];
            for Comparison { operator, value } in &self.comparisons {
                let value = rounded(*value, data_type);
                if T::IS_FLOAT {
                    keep_floats(values, mask, *operator, to_f64(value));
                } else {
                    keep_integers(values, mask, *operator, value);
                }
            }
        }, else ());
        Ok(())
    }
}

/// Values where `mask` is true, missing elsewhere, and their type: [`Predicate::data_type`].
///
/// # Errors
/// [`Error::Undefined`] for what are not real numbers.
pub fn masked(
    data_type: &DataType,
    bytes: &[u8],
    mask: &[bool],
) -> Result<(DataType, Vec<u8>), Error> {
    let result = Predicate::data_type(data_type)?;
    let bytes = with_real!(data_type, T => {
        let values = &elements::<T>(bytes)[..];
        match result {
            _ if result == *data_type => select(values, mask, |value| value, T::MISSING),
            DataType::Float32 => select(values, mask, |value| value.to_f64() as f32, f32::NAN),
            _ => select(values, mask, T::to_f64, f64::NAN),
        }
    }, else Vec::new());
    Ok((result, bytes))
}

fn select<T: Element, R: bytemuck::Pod>(
    values: &[T],
    mask: &[bool],
    convert: impl Fn(T) -> R,
    missing: R,
) -> Vec<u8> {
    let cells = values.iter().zip(mask);
    let selected = cells.map(|(&value, &keeps)| if keeps { convert(value) } else { missing });
    bytemuck::cast_slice(&selected.collect::<Vec<R>>()).to_vec()
}

fn refused(reason: String) -> Error {
    Error::Parameter {
        name: "where",
        reason,
    }
}

/// The number that values of `data_type` are compared with.
fn rounded(value: Scalar, data_type: &DataType) -> Scalar {
    let float = to_f64(value);
    match data_type {
        DataType::Float16 => Scalar::Float(f16_of(float).to_f64()),
        DataType::BFloat16 => Scalar::Float(bf16_of(float).to_f64()),
        DataType::Float32 => Scalar::Float(f64::from(float as f32)),
        DataType::Float64 => Scalar::Float(float),
        _ => value,
    }
}

fn to_f64(value: Scalar) -> f64 {
    match value {
        Scalar::Int(value) => value as f64,
        Scalar::UInt(value) => value as f64,
        Scalar::Float(value) => value,
    }
}

/// The integers next to a number, not above and not below it; both are itself if it is one.
fn neighbours(value: Scalar) -> (i128, i128) {
    match value {
        Scalar::Int(value) => (i128::from(value), i128::from(value)),
        Scalar::UInt(value) => (i128::from(value), i128::from(value)),
        // Saturates far beyond every element.
        Scalar::Float(value) => (value.floor() as i128, value.ceil() as i128),
    }
}

/// Compares without rounding. Neither is NaN.
fn compare(a: Scalar, b: Scalar) -> Ordering {
    if let (Scalar::Float(a), Scalar::Float(b)) = (a, b) {
        return a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    }
    let ((a_low, a_high), (b_low, b_high)) = (neighbours(a), neighbours(b));
    (a_low, a_high).cmp(&(b_low, b_high))
}

vectorised! {
    fn keep_floats<'a; T: Element>(
        values: &'a [T],
        mask: &'a mut [bool],
        operator: Operator,
        limit: f64,
    ) -> () {
        let cells = mask.iter_mut().zip(values);
        match operator {
            Operator::Less => cells.for_each(|(keep, value)| *keep &= value.to_f64() < limit),
            Operator::LessOrEqual => cells.for_each(|(keep, value)| *keep &= value.to_f64() <= limit),
            Operator::Greater => cells.for_each(|(keep, value)| *keep &= value.to_f64() > limit),
            Operator::GreaterOrEqual => cells.for_each(|(keep, value)| *keep &= value.to_f64() >= limit),
            Operator::Equal => cells.for_each(|(keep, value)| *keep &= value.to_f64() == limit),
            Operator::NotEqual => cells.for_each(|(keep, value)| *keep &= value.to_f64() != limit),
        }
    }
}

vectorised! {
    fn keep_integers<'a; T: Keyed>(
        values: &'a [T],
        mask: &'a mut [bool],
        operator: Operator,
        limit: Scalar,
    ) -> () {
        let (below, above) = neighbours(limit);
        // Of integers, from first to last; the others if `inverts`.
        let (first, last, inverts) = match operator {
            Operator::Less => (i128::MIN, above.saturating_sub(1), false),
            Operator::LessOrEqual => (i128::MIN, below, false),
            Operator::Greater => (below.saturating_add(1), i128::MAX, false),
            Operator::GreaterOrEqual => (above, i128::MAX, false),
            Operator::Equal => (above, below, false),
            Operator::NotEqual => (above, below, true),
        };
        let (least, greatest) = (T::from_key(0).to_i128(), T::HIGHEST.to_i128());
        let (first, last) = (first.max(least), last.min(greatest));
        if first > last {
            mask.iter_mut().for_each(|keep| *keep &= inverts);
            return;
        }
        let (first, last) = ((first - least) as u64, (last - least) as u64);
        for (keep, &value) in mask.iter_mut().zip(values) {
            let key = value.to_key();
            let is_within = (key >= first) & (key <= last) & !value.is_missing();
            *keep &= is_within != inverts;
        }
    }
}
