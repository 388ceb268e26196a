//! Products of matrices, as NumPy's `matmul` has them.
//!
//! Types are those of [`data_type`]. Floats of any width are multiplied and added as `f64` in the
//! order of [`crate::lanes`] and rounded once, to the nearest, ties to even; integers are exact modulo
//! the size of the result's type; booleans are "any of both". NaN is not left out, and one that comes
//! out is always the same one: quiet, positive, without payload.
//!
//! Results are pure functions of the factors: parts of a product are computed apart, on threads or a
//! device, and have the same bits.

use std::ops::Range;

use array::DataType;
use half::{bf16, f16};

use crate::Error;
use crate::halves::{bf16_of, f16_of};
use crate::lanes::{
    PANEL_COLUMNS, PANEL_ROWS, Products, Step, SumOf, Sums, Vectors, WrappingProducts, sums,
};

/// The type of the product of these types: NumPy's `result_type`. `bfloat16` is promoted as `float16`
/// is; both together are `float32`.
///
/// # Errors
/// [`Error::Undefined`] for what is no real number, and for times.
pub fn data_type(left: &DataType, right: &DataType) -> Result<DataType, Error> {
    let kind = |data_type: &DataType| {
        kind(data_type).ok_or_else(|| Error::Undefined {
            reducer: "product",
            data_type: data_type.to_string(),
        })
    };
    let kinds = (kind(left)?, kind(right)?);
    Ok(match kinds {
        (Kind::Bool, _) => right.clone(),
        (_, Kind::Bool) => left.clone(),
        (Kind::Float(a), Kind::Float(b)) if a == b && left != right => DataType::Float32,
        (Kind::Float(a), Kind::Float(b)) => if a >= b { left } else { right }.clone(),
        (Kind::Float(bits), Kind::Signed(of) | Kind::Unsigned(of)) => with_integer(left, bits, of),
        (Kind::Signed(of) | Kind::Unsigned(of), Kind::Float(bits)) => with_integer(right, bits, of),
        (Kind::Signed(a), Kind::Signed(b)) | (Kind::Unsigned(a), Kind::Unsigned(b)) => {
            if a >= b { left } else { right }.clone()
        }
        (Kind::Signed(signed), Kind::Unsigned(unsigned))
        | (Kind::Unsigned(unsigned), Kind::Signed(signed)) => {
            match signed.max(unsigned.saturating_mul(2)) {
                16 => DataType::Int16,
                32 => DataType::Int32,
                64 => DataType::Int64,
                _ => DataType::Float64,
            }
        }
    })
}

/// A float type together with integers of so many bits: one that holds 8, 16 or 32 bits exactly.
fn with_integer(float: &DataType, float_bits: u32, integer_bits: u32) -> DataType {
    match (float_bits, integer_bits) {
        (_, 8) | (32, 16) | (64, _) => float.clone(),
        (16, 16) => DataType::Float32,
        _ => DataType::Float64,
    }
}

/// A kind of number and its bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Signed(u32),
    Unsigned(u32),
    Float(u32),
}

fn kind(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Bool => Kind::Bool,
        DataType::Int8 => Kind::Signed(8),
        DataType::Int16 => Kind::Signed(16),
        DataType::Int32 => Kind::Signed(32),
        DataType::Int64 => Kind::Signed(64),
        DataType::UInt8 => Kind::Unsigned(8),
        DataType::UInt16 => Kind::Unsigned(16),
        DataType::UInt32 => Kind::Unsigned(32),
        DataType::UInt64 => Kind::Unsigned(64),
        DataType::Float16 | DataType::BFloat16 => Kind::Float(16),
        DataType::Float32 => Kind::Float(32),
        DataType::Float64 => Kind::Float(64),
        _ => return None,
    })
}

/// A part of the product of two matrices: `rows` of the vectors on the left with `columns` of those on
/// the right, in C order, as elements of `data_type`, which is the one [`data_type`] tells.
///
/// # Panics
/// If the vectors have not one length, or there are not so many.
pub fn multiply(
    data_type: &DataType,
    left: &Vectors<'_>,
    right: &Vectors<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Vec<u8> {
    assert!(
        left.length() == right.length() && rows.end <= left.count() && columns.end <= right.count(),
        "factors fit each other"
    );
    match data_type {
        DataType::Float64 => part::<Products, 8>(left, right, rows, columns, float64),
        DataType::Float32 => part::<Products, 4>(left, right, rows, columns, float32),
        DataType::Float16 => part::<Products, 2>(left, right, rows, columns, float16),
        DataType::BFloat16 => part::<Products, 2>(left, right, rows, columns, bfloat16),
        DataType::Bool => part::<WrappingProducts, 1>(left, right, rows, columns, truth),
        // The lowest bytes are the value modulo the size of its type.
        DataType::Int8 | DataType::UInt8 => {
            part::<WrappingProducts, 1>(left, right, rows, columns, lowest)
        }
        DataType::Int16 | DataType::UInt16 => {
            part::<WrappingProducts, 2>(left, right, rows, columns, lowest)
        }
        DataType::Int32 | DataType::UInt32 => {
            part::<WrappingProducts, 4>(left, right, rows, columns, lowest)
        }
        _ => part::<WrappingProducts, 8>(left, right, rows, columns, lowest),
    }
}

/// What a product of type `data_type` is a sum of.
pub fn sum_of(data_type: &DataType) -> SumOf {
    match data_type.is_float() {
        true => SumOf::Products,
        false => SumOf::WrappingProducts,
    }
}

/// The elements of a product of type `data_type`, from sums that were made elsewhere: those of
/// [`sum_of`].
pub fn of_sums(data_type: &DataType, sums: &Sums) -> Vec<u8> {
    fn all<N: Copy, const B: usize>(sums: &[N], write: impl Fn(N) -> [u8; B]) -> Vec<u8> {
        sums.iter().flat_map(|&sum| write(sum)).collect()
    }
    match (sums, data_type) {
        (Sums::Floats(sums), DataType::Float16) => all(sums, float16),
        (Sums::Floats(sums), DataType::BFloat16) => all(sums, bfloat16),
        (Sums::Floats(sums), DataType::Float32) => all(sums, float32),
        (Sums::Floats(sums), _) => all(sums, float64),
        (Sums::Words(sums), DataType::Bool) => all(sums, truth),
        (Sums::Words(sums), _) => match data_type.size_bytes() {
            Some(1) => all(sums, lowest::<1>),
            Some(2) => all(sums, lowest::<2>),
            Some(4) => all(sums, lowest::<4>),
            _ => all(sums, lowest::<8>),
        },
    }
}

fn float64(sum: f64) -> [u8; 8] {
    let nan = f64::from_bits(0x7ff8 << 48);
    if sum.is_nan() { nan } else { sum }.to_le_bytes()
}

fn float32(sum: f64) -> [u8; 4] {
    let nan = f32::from_bits(0x7fc0 << 16);
    if sum.is_nan() { nan } else { sum as f32 }.to_le_bytes()
}

fn float16(sum: f64) -> [u8; 2] {
    let nan = f16::from_bits(0x7e00);
    if sum.is_nan() { nan } else { f16_of(sum) }.to_le_bytes()
}

fn bfloat16(sum: f64) -> [u8; 2] {
    let nan = bf16::from_bits(0x7fc0);
    if sum.is_nan() { nan } else { bf16_of(sum) }.to_le_bytes()
}

fn truth(sum: u64) -> [u8; 1] {
    [u8::from(sum != 0)]
}

/// The part, panel by panel.
fn part<S: Step, const N: usize>(
    left: &Vectors<'_>,
    right: &Vectors<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    write: impl Fn(S::Number) -> [u8; N],
) -> Vec<u8> {
    let (height, width) = (rows.len(), columns.len());
    let mut out = vec![[0; N]; height * width];
    for row in (0..height).step_by(PANEL_ROWS) {
        let row_end = height.min(row + PANEL_ROWS);
        for column in (0..width).step_by(PANEL_COLUMNS) {
            let column_end = width.min(column + PANEL_COLUMNS);
            let panel = sums::<S>(
                left,
                rows.start + row..rows.start + row_end,
                right,
                columns.start + column..columns.start + column_end,
            );
            let lines = panel.chunks_exact(column_end - column);
            for (line, row) in lines.zip(row..row_end) {
                let slots = &mut out[row * width + column..row * width + column_end];
                let pairs = slots.iter_mut().zip(line);
                pairs.for_each(|(slot, &sum)| *slot = write(sum));
            }
        }
    }
    out.into_flattened()
}

fn lowest<const N: usize>(sum: u64) -> [u8; N] {
    let bytes = sum.to_le_bytes();
    std::array::from_fn(|at| bytes[at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::tests::reference;

    fn bytes<T: bytemuck::Pod>(values: &[T]) -> &[u8] {
        bytemuck::cast_slice(values)
    }

    /// `(m, k)` times `(k, n)`.
    fn product(
        (left_type, left): (&DataType, &[u8]),
        (right_type, right): (&DataType, &[u8]),
        (m, k, n): (usize, usize, usize),
    ) -> (DataType, Vec<u8>) {
        let left = Vectors::rows(left_type, left, m, k);
        let right = Vectors::columns(right_type, right, k, n);
        let result = data_type(left_type, right_type).unwrap();
        let all = multiply(&result, &left, &right, 0..m, 0..n);
        (result, all)
    }

    #[test]
    fn types_are_numpys() {
        use DataType::*;
        // numpy.result_type(a, b) of NumPy 2.
        for (a, b, wanted) in [
            (Bool, Bool, Bool),
            (Bool, Int16, Int16),
            (UInt8, Bool, UInt8),
            (Bool, Float16, Float16),
            (Int8, Int8, Int8),
            (Int8, UInt8, Int16),
            (Int32, UInt8, Int32),
            (Int16, UInt16, Int32),
            (Int16, UInt32, Int64),
            (Int64, UInt32, Int64),
            (Int8, UInt64, Float64),
            (UInt16, UInt64, UInt64),
            (Int8, Float16, Float16),
            (UInt16, Float16, Float32),
            (Int32, Float16, Float64),
            (UInt16, Float32, Float32),
            (Int32, Float32, Float64),
            (UInt64, Float32, Float64),
            (Int64, Float64, Float64),
            (Float16, Float32, Float32),
            (Float64, Float32, Float64),
            (BFloat16, Int8, BFloat16),
            (BFloat16, Int16, Float32),
            (BFloat16, Float16, Float32),
            (BFloat16, BFloat16, BFloat16),
        ] {
            assert_eq!(data_type(&a, &b), Ok(wanted.clone()), "{a} {b}");
            assert_eq!(data_type(&b, &a), Ok(wanted), "{b} {a}");
        }
        for other in [Complex64, String] {
            let refused = data_type(&Float32, &other);
            assert!(matches!(refused, Err(Error::Undefined { .. })), "{other}");
        }
    }

    #[test]
    fn integers_wrap_in_the_type_of_the_result() {
        let (a, b) = ([100i8, 100, -128, 3], [2i8, 1, 100, -1]);
        let (result, found) = product(
            (&DataType::Int8, bytes(&a)),
            (&DataType::Int8, bytes(&b)),
            (2, 2, 2),
        );
        let wanted: [i8; 4] = [(200 + 10000) as i8, 0, (-256 + 300) as i8, (-128 - 3) as i8];
        assert_eq!((result, &found[..]), (DataType::Int8, bytes(&wanted)));
        let (a, b) = ([u64::MAX, 3], [2u64, 1 << 63]);
        let (_, found) = product(
            (&DataType::UInt64, bytes(&a)),
            (&DataType::UInt64, bytes(&b)),
            (1, 2, 1),
        );
        let wanted = u64::MAX
            .wrapping_mul(2)
            .wrapping_add(3u64.wrapping_mul(1 << 63));
        assert_eq!(found, wanted.to_le_bytes());
    }

    #[test]
    fn booleans_are_any_of_both() {
        let (a, b) = ([1u8, 1, 0, 1], [0u8, 1, 0, 1]);
        let bools = DataType::Bool;
        let found = product((&bools, &a), (&bools, &b), (2, 2, 2));
        assert_eq!(found, (DataType::Bool, vec![0, 1, 0, 1]));
    }

    #[test]
    fn nothing_to_add_is_zero() {
        let floats = DataType::Float32;
        let found = product((&floats, &[]), (&floats, &[]), (2, 0, 1));
        assert_eq!(found, (DataType::Float32, vec![0; 8]));
        let none = product((&floats, &[]), (&floats, &[0; 12]), (0, 1, 3));
        assert!(none.1.is_empty());
    }

    #[test]
    fn nan_is_one_nan() {
        let payload = f64::from_bits(0xfff8_0000_0000_0001);
        for (a, b) in [
            ([payload, 1.0], [1.0, 1.0]),
            ([f64::INFINITY, 1.0], [0.0, 1.0]),
            ([f64::INFINITY, f64::NEG_INFINITY], [1.0, 1.0]),
        ] {
            for (type_, wanted) in [
                (DataType::Float64, &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f][..]),
                (DataType::Float32, &[0, 0, 0xc0, 0x7f]),
                (DataType::Float16, &[0, 0x7e]),
                (DataType::BFloat16, &[0xc0, 0x7f]),
            ] {
                let floats = DataType::Float64;
                let left = Vectors::rows(&floats, bytes(&a), 1, 2);
                let right = Vectors::columns(&floats, bytes(&b), 2, 1);
                assert_eq!(multiply(&type_, &left, &right, 0..1, 0..1), wanted);
            }
        }
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(
            m in 1usize..70, k in 1usize..40, n in 1usize..110,
            split in (0usize..70, 0usize..110),
            seed in any::<u32>(),
        ) {
            let number = |at: usize| {
                let mixed = (at as u32 ^ seed).wrapping_mul(2_654_435_761);
                f32::from_bits(0x3f00_0000 | mixed >> 9) - 0.75
            };
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (m * k..m * k + k * n).map(number).collect();
            let floats = DataType::Float32;
            let (_, whole) = product((&floats, bytes(&a)), (&floats, bytes(&b)), (m, k, n));
            let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let wanted: Vec<f32> = (0..m * n)
                .map(|at| {
                    let row = wide(&a[at / n * k..(at / n + 1) * k]);
                    let column: Vec<f32> = (0..k).map(|i| b[i * n + at % n]).collect();
                    reference(&row, &wide(&column), |a, b| a * b) as f32
                })
                .collect();
            prop_assert_eq!(&whole[..], bytes(&wanted));
            let (row, column) = (split.0.min(m), split.1.min(n));
            let left = Vectors::rows(&floats, bytes(&a), m, k);
            let right = Vectors::columns(&floats, bytes(&b), k, n);
            let part = multiply(&floats, &left, &right, row..m, column..n);
            let cut: Vec<f32> = (row..m)
                .flat_map(|row| wanted[row * n + column..(row + 1) * n].to_vec())
                .collect();
            prop_assert_eq!(&part[..], bytes(&cut));
        }
    }
}
