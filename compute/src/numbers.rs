//! Elements as numbers of one type.

use array::DataType;

use crate::element::{Element as _, elements, with_real};

/// Real numbers as `f64`, rounded; `None` for elements of other types.
pub fn numbers(data_type: &DataType, bytes: &[u8]) -> Option<Vec<f64>> {
    with_real!(
        data_type,
        T => Some(elements::<T>(bytes).iter().map(|value| value.to_f64()).collect()),
        else None
    )
}
