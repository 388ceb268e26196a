//! Statistics of stored values, as they are kept beside the manifest.

use array::{DataType, Moments, Statistics, Sum};

use crate::cf::{Mask, Missing};
use crate::double::Double;
use crate::element::{Element, elements, with_real};

/// Values looked at together: they stay in the first-level cache from one pass to the next.
const PART: usize = 1024;

/// Statistics of elements as stored, neither scaled nor offset; `None` if the type has none.
///
/// The values must be those of the cells inside the array, in C order: sums of floats depend on
/// the order in their last bits.
pub fn statistics(data_type: &DataType, bytes: &[u8], missing: &Missing) -> Option<Statistics> {
    with_real!(
        data_type,
        T => Some(of::<T>(&elements::<T>(bytes), &missing.mask())),
        else None
    )
}

fn of<T: Element>(values: &[T], mask: &Mask<T>) -> Statistics {
    let mut tally = Tally::<T>::new();
    for_each_part(values, mask, |part, valid| tally.take(part, valid));
    let mut result = Statistics {
        valid: tally.valid,
        missing: values.len() as u64 - tally.valid,
        moments: None,
    };
    if tally.valid == 0 {
        return result;
    }
    let (sum, total) = tally.sum();
    let mean = total / tally.valid as f64;
    let mut m2 = 0.0;
    for_each_part(values, mask, |part, valid| {
        for (value, &is_valid) in part.iter().zip(valid) {
            let difference = value.to_f64() - mean;
            m2 += if is_valid {
                difference * difference
            } else {
                0.0
            };
        }
    });
    result.moments = Some(Moments {
        min: tally.least.to_scalar(),
        max: tally.greatest.to_scalar(),
        sum,
        m2,
    });
    result
}

/// Gives `visit` all values in order, a part at a time, each with whether it is valid.
fn for_each_part<T: Element>(values: &[T], mask: &Mask<T>, mut visit: impl FnMut(&[T], &[bool])) {
    let mut valid = [false; PART];
    for part in values.chunks(PART) {
        let valid = &mut valid[..part.len()];
        mask.flag_valid(part, valid);
        visit(part, valid);
    }
}

/// Count, sum and extremes of valid values.
struct Tally<T> {
    valid: u64,
    least: T,
    greatest: T,
    integer_sum: i128,
    float_sum: Double,
}

impl<T: Element> Tally<T> {
    fn new() -> Self {
        Self {
            valid: 0,
            least: T::HIGHEST,
            greatest: T::LOWEST,
            integer_sum: 0,
            float_sum: Double::default(),
        }
    }

    fn take(&mut self, values: &[T], valid: &[bool]) {
        let count: u64 = valid.iter().map(|&is_valid| u64::from(is_valid)).sum();
        self.valid += count;
        if T::IS_FLOAT {
            let mut sum = self.float_sum;
            for (value, &is_valid) in values.iter().zip(valid) {
                sum.add(if is_valid { value.to_f64() } else { 0.0 });
            }
            self.float_sum = sum;
        } else if count == values.len() as u64 {
            self.integer_sum += T::exact_sum(values);
        } else {
            let valid = values.iter().zip(valid).filter(|(_, valid)| **valid);
            self.integer_sum += valid.map(|(value, _)| value.to_i128()).sum::<i128>();
        }
        let (mut least, mut greatest) = (self.least, self.greatest);
        for (&value, &is_valid) in values.iter().zip(valid) {
            let candidate = if is_valid { value } else { least };
            least = if candidate < least { candidate } else { least };
            let candidate = if is_valid { value } else { greatest };
            greatest = if candidate > greatest {
                candidate
            } else {
                greatest
            };
        }
        (self.least, self.greatest) = (least, greatest);
    }

    /// The sum, and the same rounded.
    fn sum(&self) -> (Sum, f64) {
        if !T::IS_FLOAT {
            return (Sum::Int(self.integer_sum), self.integer_sum as f64);
        }
        let sum = self.float_sum.normalised();
        let (hi, lo) = (sum.hi, sum.lo);
        (Sum::Float { hi, lo }, sum.to_f64())
    }
}

#[cfg(test)]
mod tests {
    use array::Scalar;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn missing(data_type: &DataType, attributes: &serde_json::Value) -> Missing {
        Missing::from_attributes(data_type, attributes.as_object().unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn statistics_are_those_of_the_valid_values(
            values in prop::collection::vec(-9i32..9, 0..3000)
        ) {
            let missing = missing(&DataType::Int32, &json!({"_FillValue": 3, "valid_min": -7}));
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let found = statistics(&DataType::Int32, &bytes, &missing).unwrap();
            let valid: Vec<i64> =
                values.into_iter().filter(|v| *v != 3 && *v >= -7).map(i64::from).collect();
            prop_assert_eq!(found.valid, valid.len() as u64);
            prop_assert_eq!(found.valid + found.missing, bytes.len() as u64 / 4);
            let Some(moments) = found.moments else {
                prop_assert!(valid.is_empty());
                return Ok(());
            };
            let sum: i64 = valid.iter().sum();
            let mean = sum as f64 / valid.len() as f64;
            let m2: f64 = valid.iter().map(|&value| (value as f64 - mean).powi(2)).sum();
            prop_assert_eq!(moments.min, Scalar::Int(*valid.iter().min().unwrap()));
            prop_assert_eq!(moments.max, Scalar::Int(*valid.iter().max().unwrap()));
            prop_assert_eq!(moments.sum, Sum::Int(i128::from(sum)));
            prop_assert_eq!(moments.m2.to_bits(), m2.to_bits());
        }
    }

    #[test]
    fn float_statistics_are_added_in_c_order() {
        // Written out by hand: 1e16 + 1 + 1 keeps its low part, NaN and the fill value are missing.
        let values = [1e16, f64::NAN, 1.0, -5.0, 1.0];
        let bytes = values.map(f64::to_le_bytes).concat();
        let missing = missing(&DataType::Float64, &json!({"_FillValue": -5}));
        let found = statistics(&DataType::Float64, &bytes, &missing).unwrap();
        assert_eq!((found.valid, found.missing), (3, 2));
        let moments = found.moments.unwrap();
        assert_eq!(
            moments.sum,
            Sum::Float {
                hi: 1e16 + 2.0,
                lo: 0.0
            }
        );
        assert_eq!(
            (moments.min, moments.max),
            (Scalar::Float(1.0), Scalar::Float(1e16))
        );
    }

    #[test]
    fn what_is_not_a_real_number_has_no_statistics() {
        for data_type in [DataType::String, DataType::Complex64] {
            assert_eq!(statistics(&data_type, &[], &Missing::default()), None);
        }
        let none = statistics(&DataType::Bool, &[], &Missing::default());
        assert_eq!(none, Some(Statistics::EMPTY));
    }
}
