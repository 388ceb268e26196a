//! The numeric types, met once: everything below is generic over [`Element`].

use std::borrow::Cow;

use array::Scalar;
use half::{bf16, f16};

use crate::cf::Limit;

#[cfg(target_endian = "big")]
compile_error!("elements in memory are little-endian, the native order of all supported targets");

/// A number as arrays hold it.
pub(crate) trait Element: bytemuck::Pod + PartialOrd {
    /// Whether it is a float.
    const IS_FLOAT: bool;
    /// No value is less; −∞ for floats.
    const LOWEST: Self;
    /// No value is greater; ∞ for floats.
    const HIGHEST: Self;
    /// NaN or NaT; 0 for integers, which have nothing of the kind.
    const MISSING: Self;
    /// What it is compared with the numbers of attributes in: floats in 64 bits, others as they are.
    type Wide: Limit;

    /// Whether it is NaN or NaT.
    fn is_missing(self) -> bool {
        false
    }

    /// The same value in the type of comparisons.
    fn widen(self) -> Self::Wide;

    /// The nearest `f64`; exact but for 64-bit integers.
    fn to_f64(self) -> f64;

    /// The value without loss.
    fn to_scalar(self) -> Scalar;

    /// The value in the sums of integers; 0 for floats, which are not summed that way.
    fn to_i128(self) -> i128 {
        0
    }

    /// The exact sum of integers; 0 for floats.
    fn exact_sum(values: &[Self]) -> i128 {
        values.iter().map(|value| value.to_i128()).sum()
    }
}

macro_rules! integers {
    ($($t:ty => $scalar:ident($wide:ty), $accumulator:ty);*) => {$(
        impl Element for $t {
            const IS_FLOAT: bool = false;
            const LOWEST: Self = Self::MIN;
            const HIGHEST: Self = Self::MAX;
            const MISSING: Self = 0;
            type Wide = Self;
            fn widen(self) -> Self { self }
            #[allow(clippy::cast_lossless, reason = "not lossless for every type of the macro")]
            fn to_f64(self) -> f64 { self as f64 }
            fn to_scalar(self) -> Scalar { Scalar::$scalar(<$wide>::from(self)) }
            fn to_i128(self) -> i128 { i128::from(self) }
            fn exact_sum(values: &[Self]) -> i128 {
                // 2^30 values of at most 32 bits fit 64 bits; wider ones are summed in 128.
                let part = |values: &[Self]| -> $accumulator {
                    values.iter().map(|&value| <$accumulator>::from(value)).sum()
                };
                values.chunks(1 << 30).map(|values| i128::from(part(values))).sum()
            }
        }
    )*};
}

integers!(
    i8 => Int(i64), i64; i16 => Int(i64), i64; i32 => Int(i64), i64; i64 => Int(i64), i128;
    u8 => UInt(u64), u64; u16 => UInt(u64), u64; u32 => UInt(u64), u64; u64 => UInt(u64), i128
);

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl Element for $t {
            const IS_FLOAT: bool = true;
            const LOWEST: Self = Self::NEG_INFINITY;
            const HIGHEST: Self = Self::INFINITY;
            const MISSING: Self = Self::NAN;
            type Wide = f64;
            fn is_missing(self) -> bool { self.is_nan() }
            fn widen(self) -> f64 { f64::from(self) }
            fn to_f64(self) -> f64 { f64::from(self) }
            fn to_scalar(self) -> Scalar { Scalar::Float(f64::from(self)) }
        }
    )*};
}

floats!(f16, bf16, f32, f64);

/// A datetime or duration, whose missing value is NaT.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Time(pub(crate) i64);

impl Element for Time {
    const IS_FLOAT: bool = false;
    const LOWEST: Self = Self(i64::MIN + 1);
    const HIGHEST: Self = Self(i64::MAX);
    const MISSING: Self = Self(i64::MIN);
    type Wide = i64;
    fn is_missing(self) -> bool {
        self == Self::MISSING
    }
    fn widen(self) -> i64 {
        self.0
    }
    fn to_f64(self) -> f64 {
        self.0 as f64
    }
    fn to_scalar(self) -> Scalar {
        Scalar::Int(self.0)
    }
    fn to_i128(self) -> i128 {
        i128::from(self.0)
    }
}

/// The elements in `bytes`, which hold whole ones. Copies only where the buffer is not aligned.
pub(crate) fn elements<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) => Cow::Borrowed(elements),
        Err(_) => {
            let elements = bytes.chunks_exact(size_of::<T>());
            Cow::Owned(elements.map(bytemuck::pod_read_unaligned).collect())
        }
    }
}

/// Runs `$body` with `$T` bound to the element type of a real numeric `$data_type`, else `$other`.
macro_rules! with_real {
    (@is $t:ty, $T:ident, $body:expr) => {{
        type $T = $t;
        $body
    }};
    ($data_type:expr, $T:ident => $body:expr, else $other:expr) => {{
        use $crate::element::with_real;
        match $data_type {
            array::DataType::Bool | array::DataType::UInt8 => with_real!(@is u8, $T, $body),
            array::DataType::Int8 => with_real!(@is i8, $T, $body),
            array::DataType::Int16 => with_real!(@is i16, $T, $body),
            array::DataType::Int32 => with_real!(@is i32, $T, $body),
            array::DataType::Int64 => with_real!(@is i64, $T, $body),
            array::DataType::UInt16 => with_real!(@is u16, $T, $body),
            array::DataType::UInt32 => with_real!(@is u32, $T, $body),
            array::DataType::UInt64 => with_real!(@is u64, $T, $body),
            array::DataType::Float16 => with_real!(@is half::f16, $T, $body),
            array::DataType::BFloat16 => with_real!(@is half::bf16, $T, $body),
            array::DataType::Float32 => with_real!(@is f32, $T, $body),
            array::DataType::Float64 => with_real!(@is f64, $T, $body),
            array::DataType::DateTime64 { .. } | array::DataType::TimeDelta64 { .. } => {
                with_real!(@is $crate::element::Time, $T, $body)
            }
            _ => $other,
        }
    }};
}
pub(crate) use with_real;
