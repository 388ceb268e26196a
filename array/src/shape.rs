//! Checked arithmetic on shapes. Nothing here allocates by a size that came from outside.

use crate::{DataType, Error};

/// Most dimensions an array may have, NumPy's limit before version 2.
pub const MAX_DIMENSIONS: usize = 32;

/// Number of elements in an array of `shape`; 1 for no dimensions.
///
/// # Errors
/// [`Error::TooLarge`] if it exceeds 2^64 − 1.
pub fn elements(shape: &[u64]) -> Result<u64, Error> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1u64, |product, &length| product.checked_mul(length))
        .ok_or(Error::TooLarge {
            what: "number of elements",
        })
}

/// Bytes that `shape` elements of a fixed-size `data_type` take in memory.
///
/// # Errors
/// [`Error::TooLarge`] if that exceeds `isize::MAX`, the most one allocation may hold;
/// [`Error::Unsupported`] for a variable-length data type.
pub fn size_bytes(shape: &[u64], data_type: &DataType) -> Result<usize, Error> {
    let element = data_type
        .size_bytes()
        .ok_or_else(|| Error::unsupported("data type", format!("{data_type} has no fixed size")))?;
    elements(shape)?
        .checked_mul(element as u64)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or(Error::TooLarge {
            what: "array in bytes",
        })
}

/// Steps in elements between neighbours along each dimension, C order.
///
/// Saturates for shapes whose element count overflows; such shapes hold nothing to step over.
pub fn strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1u64; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// Position of `coordinate` in an array of `shape`, counted in elements in C order.
///
/// `coordinate` must lie inside `shape`, whose element count fits 64 bits.
pub fn linear_index(coordinate: &[u64], shape: &[u64]) -> u64 {
    debug_assert_eq!(coordinate.len(), shape.len());
    coordinate
        .iter()
        .zip(shape)
        .fold(0, |index, (&at, &length)| index * length + at)
}

/// The coordinate at position `index` of an array of `shape` in C order.
///
/// No length of `shape` may be zero.
pub fn coordinate(mut index: u64, shape: &[u64]) -> Vec<u64> {
    let mut coordinate = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        coordinate[axis] = index % shape[axis];
        index /= shape[axis];
    }
    coordinate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_shapes_are_errors() {
        assert!(elements(&[1 << 63, 2]).is_err());
        assert_eq!(elements(&[u64::MAX, u64::MAX, 0]), Ok(0));
        assert_eq!(elements(&[]), Ok(1));
        assert!(size_bytes(&[1 << 61], &DataType::Float64).is_err());
        assert_eq!(size_bytes(&[3, 4], &DataType::Int16), Ok(24));
        assert_eq!(strides(&[u64::MAX, u64::MAX, u64::MAX]).len(), 3);
    }

    #[test]
    fn coordinates_and_positions_are_inverse() {
        let shape = [3, 1, 4];
        for index in 0..12 {
            assert_eq!(linear_index(&coordinate(index, &shape), &shape), index);
        }
        assert_eq!(strides(&shape), [4, 4, 1]);
    }
}
