//! The numeric types, met once: everything below is generic over [`Element`].

use std::borrow::Cow;

use array::Scalar;
use half::{bf16, f16};

use crate::cf::Limit;
use crate::halves::{bf16_of, f16_of};

#[cfg(target_endian = "big")]
compile_error!("elements in memory are little-endian, the native order of all supported targets");

/// A number as arrays hold it.
pub(crate) trait Element: bytemuck::Pod + PartialOrd {
    /// Whether it is a float.
    const IS_FLOAT: bool;
    /// Whether [`Element::to_f64`] takes many steps, which vectorise best in a loop of their own.
    const WIDENS_IN_STEPS: bool = false;
    /// No value is less; −∞ for floats.
    const LOWEST: Self;
    /// No value is greater; ∞ for floats.
    const HIGHEST: Self;
    /// NaN or NaT; 0 for integers, which have nothing of the kind.
    const MISSING: Self;
    /// What it is compared with the numbers of attributes in: floats in 64 bits, others as they are.
    type Wide: Limit;

    /// Whether it is NaN or NaT.
    #[inline(always)]
    fn is_missing(self) -> bool {
        false
    }

    /// The same value in the type of comparisons.
    fn widen(self) -> Self::Wide;

    /// The nearest `f64`; exact but for 64-bit integers.
    fn to_f64(self) -> f64;

    /// The value without loss.
    fn to_scalar(self) -> Scalar;

    /// The value of a word that kernels write: a double for floats, an integer of 64 bits for others.
    #[cfg(feature = "gpu")]
    fn of_device_word(word: u64) -> Self;

    /// The value in the sums of integers; 0 for floats, which are not summed that way.
    #[inline(always)]
    fn to_i128(self) -> i128 {
        0
    }

    /// The value of an integer of at most 32 bits; of wider ones the lowest 64.
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self.to_i128() as i64
    }

    /// The exact sum of integers; 0 for floats.
    #[inline(always)]
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
            #[inline(always)]
            fn widen(self) -> Self { self }
            #[allow(clippy::cast_lossless, reason = "not lossless for every type of the macro")]
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            fn to_scalar(self) -> Scalar { Scalar::$scalar(<$wide>::from(self)) }
            #[cfg(feature = "gpu")]
            fn of_device_word(word: u64) -> Self { word as Self }
            #[inline(always)]
            fn to_i128(self) -> i128 { i128::from(self) }
            #[inline(always)]
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
    ($($t:ty: $to_f64:expr, $of_f64:expr, $in_steps:expr);*) => {$(
        impl Element for $t {
            const IS_FLOAT: bool = true;
            const WIDENS_IN_STEPS: bool = $in_steps;
            const LOWEST: Self = Self::NEG_INFINITY;
            const HIGHEST: Self = Self::INFINITY;
            const MISSING: Self = Self::NAN;
            type Wide = f64;
            #[inline(always)]
            fn is_missing(self) -> bool { self.is_nan() }
            #[inline(always)]
            fn widen(self) -> f64 { $to_f64(self) }
            #[inline(always)]
            fn to_f64(self) -> f64 { $to_f64(self) }
            fn to_scalar(self) -> Scalar { Scalar::Float($to_f64(self)) }
            #[cfg(feature = "gpu")]
            fn of_device_word(word: u64) -> Self { $of_f64(f64::from_bits(word)) }
        }
    )*};
}

floats!(
    f16: f16_to_f64, f16_of, true;
    bf16: bf16_to_f64, bf16_of, false;
    f32: f64::from, (|value| value as f32), false;
    f64: f64::from, f64::from, false
);

/// The same value. Unlike the conversion of the `half` crate it has no branches, so that loops
/// over it become vector instructions.
#[inline(always)]
fn f16_to_f64(value: f16) -> f64 {
    const EXPONENT: u32 = 0x7c00;
    let bits = u32::from(value.to_bits());
    let magnitude = bits & 0x7fff;
    // Of the exponents 2^-24 … 2^15 to those of f32; exact, also for subnormals.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = f32::from_bits((magnitude << 13) | 0x7f80_0000);
    let is_special = magnitude & EXPONENT == EXPONENT;
    let absolute = if is_special { special } else { scaled };
    f64::from(f32::from_bits(absolute.to_bits() | (bits & 0x8000) << 16))
}

/// The same value, without branches.
#[inline(always)]
fn bf16_to_f64(value: bf16) -> f64 {
    f64::from(f32::from_bits(u32::from(value.to_bits()) << 16))
}

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
    #[inline(always)]
    fn is_missing(self) -> bool {
        self == Self::MISSING
    }
    #[inline(always)]
    fn widen(self) -> i64 {
        self.0
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.0 as f64
    }
    fn to_scalar(self) -> Scalar {
        Scalar::Int(self.0)
    }
    #[cfg(feature = "gpu")]
    fn of_device_word(word: u64) -> Self {
        Self(word as i64)
    }
    #[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_the_same_as_f64() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(same(Element::to_f64(half), f64::from(half)), "{bits:#x}");
            assert!(same(Element::to_f64(brain), f64::from(brain)), "{bits:#x}");
        }
    }
}
