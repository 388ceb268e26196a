//! Statistics of stored values, as they are kept beside the manifest.

use array::{DataType, Moments, Scalar, Statistics, Sum};

use crate::cf::Missing;
use crate::double::Double;
use crate::element::{Element, elements, with_real};

/// Statistics of elements as stored, neither scaled nor offset; `None` if the type has none.
///
/// The values must be those of the cells inside the array, in C order: sums of floats depend on
/// the order in their last bits.
pub fn statistics(data_type: &DataType, bytes: &[u8], missing: &Missing) -> Option<Statistics> {
    with_real!(data_type, T => Some(of::<T>(&elements::<T>(bytes), missing)), else None)
}

fn of<T: Element>(values: &[T], missing: &Missing) -> Statistics {
    let mask = missing.mask::<T>();
    let mut result = Statistics::EMPTY;
    let mut extremes: Option<(T, T)> = None;
    let mut integer_sum = 0i128;
    let mut float_sum = Double::default();
    for &value in values {
        if mask.is_missing(value) {
            result.missing += 1;
            continue;
        }
        result.valid += 1;
        if T::IS_FLOAT {
            float_sum.add(value.to_f64());
        } else {
            integer_sum += value.to_i128();
        }
        extremes = Some(match extremes {
            None => (value, value),
            Some((min, max)) => (
                if value < min { value } else { min },
                if max < value { value } else { max },
            ),
        });
    }
    let Some((min, max)) = extremes else {
        return result;
    };
    let (sum, total) = if T::IS_FLOAT {
        let sum = float_sum.normalised();
        (
            Sum::Float {
                hi: sum.hi,
                lo: sum.lo,
            },
            sum.to_f64(),
        )
    } else {
        (Sum::Int(integer_sum), integer_sum as f64)
    };
    let mean = total / result.valid as f64;
    let m2 = values
        .iter()
        .filter(|&&value| !mask.is_missing(value))
        .map(|value| (value.to_f64() - mean).powi(2))
        .sum();
    let (min, max): (Scalar, Scalar) = (min.to_scalar(), max.to_scalar());
    result.moments = Some(Moments { min, max, sum, m2 });
    result
}
