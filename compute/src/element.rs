//! The numeric types, met once: everything below is generic over [`Element`].

use half::{bf16, f16};

use array::Scalar;

/// A number as arrays hold it.
pub(crate) trait Element: bytemuck::Pod + PartialOrd {
    /// Whether it is a float.
    const IS_FLOAT: bool;

    /// NaN.
    fn is_nan(self) -> bool {
        false
    }

    /// The nearest `f64`; exact but for 64-bit integers.
    fn to_f64(self) -> f64;

    /// The value without loss.
    fn to_scalar(self) -> Scalar;

    /// The value in the sums of integers; 0 for floats, which are not summed that way.
    fn to_i128(self) -> i128 {
        0
    }
}

macro_rules! integers {
    ($($t:ty => $scalar:ident($wide:ty)),*) => {$(
        impl Element for $t {
            const IS_FLOAT: bool = false;
            #[allow(clippy::cast_lossless, reason = "not lossless for every type of the macro")]
            fn to_f64(self) -> f64 { self as f64 }
            fn to_scalar(self) -> Scalar { Scalar::$scalar(<$wide>::from(self)) }
            fn to_i128(self) -> i128 { i128::from(self) }
        }
    )*};
}

integers!(
    i8 => Int(i64), i16 => Int(i64), i32 => Int(i64), i64 => Int(i64),
    u8 => UInt(u64), u16 => UInt(u64), u32 => UInt(u64), u64 => UInt(u64)
);

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl Element for $t {
            const IS_FLOAT: bool = true;
            fn is_nan(self) -> bool { <$t>::is_nan(self) }
            fn to_f64(self) -> f64 { f64::from(self) }
            fn to_scalar(self) -> Scalar { Scalar::Float(f64::from(self)) }
        }
    )*};
}

floats!(f16, bf16, f32, f64);

/// A datetime or duration, whose missing value is NaT.
#[derive(Clone, Copy, PartialEq, PartialOrd, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Time(pub(crate) i64);

impl Element for Time {
    const IS_FLOAT: bool = false;
    fn is_nan(self) -> bool {
        self.0 == i64::MIN
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
pub(crate) fn elements<T: Element>(bytes: &[u8]) -> std::borrow::Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) => std::borrow::Cow::Borrowed(elements),
        Err(_) => std::borrow::Cow::Owned(
            bytes
                .chunks_exact(size_of::<T>())
                .map(bytemuck::pod_read_unaligned)
                .collect(),
        ),
    }
}

/// Runs `$body` with `$T` bound to the element type of a real numeric `$data_type`, else `$other`.
macro_rules! with_real {
    ($data_type:expr, $T:ident => $body:expr, else $other:expr) => {
        match $data_type {
            array::DataType::Bool | array::DataType::UInt8 => {
                type $T = u8;
                $body
            }
            array::DataType::Int8 => {
                type $T = i8;
                $body
            }
            array::DataType::Int16 => {
                type $T = i16;
                $body
            }
            array::DataType::Int32 => {
                type $T = i32;
                $body
            }
            array::DataType::Int64 => {
                type $T = i64;
                $body
            }
            array::DataType::UInt16 => {
                type $T = u16;
                $body
            }
            array::DataType::UInt32 => {
                type $T = u32;
                $body
            }
            array::DataType::UInt64 => {
                type $T = u64;
                $body
            }
            array::DataType::Float16 => {
                type $T = half::f16;
                $body
            }
            array::DataType::BFloat16 => {
                type $T = half::bf16;
                $body
            }
            array::DataType::Float32 => {
                type $T = f32;
                $body
            }
            array::DataType::Float64 => {
                type $T = f64;
                $body
            }
            array::DataType::DateTime64 { .. } | array::DataType::TimeDelta64 { .. } => {
                type $T = $crate::element::Time;
                $body
            }
            _ => $other,
        }
    };
}
pub(crate) use with_real;
