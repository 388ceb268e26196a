//! Values as unsigned integers of the same order, and what lies between two of them.

use half::{bf16, f16};

use crate::element::{Element, Time};

/// An element that maps to an unsigned integer of `BITS` bits, in the order of the values. −0.0
/// comes before 0.0. NaN has a key as well, outside those of −∞ to ∞.
pub(crate) trait Keyed: Element {
    /// Bits of a key.
    const BITS: u32;

    /// The key of this value.
    fn to_key(self) -> u64;

    /// The value of a key.
    fn from_key(key: u64) -> Self;

    /// What lies at `fraction` of the way from `self` to `other`, as NumPy's `_lerp` rounds it.
    fn toward(self, other: Self, fraction: f64) -> f64;

    /// The mean of both, rounded as NumPy's `mean`.
    fn middle(self, other: Self) -> f64;
}

/// NumPy's `_lerp`, given the difference of the ends.
fn lerp(a: f64, b: f64, difference: f64, fraction: f64) -> f64 {
    if fraction >= 0.5 {
        b - difference * (1.0 - fraction)
    } else {
        a + difference * fraction
    }
}

macro_rules! integers {
    ($($t:ty, $unsigned:ty);*) => {$(
        impl Keyed for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn to_key(self) -> u64 {
                // MIN becomes 0.
                u64::from((self as $unsigned) ^ (<$t>::MIN as $unsigned))
            }
            fn from_key(key: u64) -> Self {
                ((key as $unsigned) ^ (<$t>::MIN as $unsigned)) as Self
            }
            fn toward(self, other: Self, fraction: f64) -> f64 {
                let difference = i128::from(other) - i128::from(self);
                lerp(self.to_f64(), other.to_f64(), difference as f64, fraction)
            }
            fn middle(self, other: Self) -> f64 {
                (self.to_f64() + other.to_f64()) / 2.0
            }
        }
    )*};
}

integers!(i8, u8; i16, u16; i32, u32; i64, u64; u8, u8; u16, u16; u32, u32; u64, u64);

macro_rules! floats {
    ($($t:ty, $bits:ty, $difference:expr, $middle:expr);*) => {$(
        impl Keyed for $t {
            const BITS: u32 = <$bits>::BITS;
            #[inline(always)]
            fn to_key(self) -> u64 {
                let bits = self.to_bits();
                let is_negative = bits >> (<$bits>::BITS - 1) == 1;
                let sign: $bits = 1 << (<$bits>::BITS - 1);
                u64::from(if is_negative { !bits } else { bits | sign })
            }
            fn from_key(key: u64) -> Self {
                let key = key as $bits;
                let sign: $bits = 1 << (<$bits>::BITS - 1);
                Self::from_bits(if key & sign == 0 { !key } else { key ^ sign })
            }
            fn toward(self, other: Self, fraction: f64) -> f64 {
                let difference: fn(Self, Self) -> Self = $difference;
                let difference = Element::to_f64(difference(other, self));
                lerp(Element::to_f64(self), Element::to_f64(other), difference, fraction)
            }
            fn middle(self, other: Self) -> f64 {
                let middle: fn(Self, Self) -> f64 = $middle;
                middle(self, other)
            }
        }
    )*};
}

floats!(
    f16, u16, |a, b| f16::from_f32(a.to_f32() - b.to_f32()),
        |a, b| f64::from((a.to_f32() + b.to_f32()) / 2.0);
    bf16, u16, |a, b| bf16::from_f32(a.to_f32() - b.to_f32()),
        |a, b| f64::from((a.to_f32() + b.to_f32()) / 2.0);
    f32, u32, |a, b| a - b, |a, b| f64::from((a + b) / 2.0);
    f64, u64, |a, b| a - b, |a, b| (a + b) / 2.0
);

/// Times have no fraction: what lies between is a time as well, cut towards the end it was counted
/// from. It is given by [`time_toward`] and [`time_middle`], without a detour by floats.
impl Keyed for Time {
    const BITS: u32 = i64::BITS;
    #[inline(always)]
    fn to_key(self) -> u64 {
        self.0.to_key()
    }
    fn from_key(key: u64) -> Self {
        Self(i64::from_key(key))
    }
    fn toward(self, other: Self, fraction: f64) -> f64 {
        time_toward(self.0, other.0, fraction) as f64
    }
    fn middle(self, other: Self) -> f64 {
        time_middle(self.0, other.0) as f64
    }
}

/// `_lerp` of times: the part of the difference is cut to whole ticks.
pub(super) fn time_toward(a: i64, b: i64, fraction: f64) -> i64 {
    let difference = (i128::from(b) - i128::from(a)) as f64;
    if fraction >= 0.5 {
        b.saturating_sub((difference * (1.0 - fraction)) as i64)
    } else {
        a.saturating_add((difference * fraction) as i64)
    }
}

/// The mean of two durations, cut to whole ticks towards 0.
pub(super) fn time_middle(a: i64, b: i64) -> i64 {
    ((i128::from(a) + i128::from(b)) / 2) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascend<T: Keyed + std::fmt::Debug>(values: &[T]) {
        for pair in values.windows(2) {
            assert!(pair[0].to_key() < pair[1].to_key(), "{pair:?}");
        }
        for &value in values {
            assert_eq!(
                bytemuck::bytes_of(&T::from_key(value.to_key())),
                bytemuck::bytes_of(&value)
            );
            assert!(T::BITS == 64 || value.to_key() >> T::BITS == 0);
        }
    }

    #[test]
    fn keys_ascend_with_the_values() {
        let infinite = f64::INFINITY;
        ascend(&[
            -infinite, -1e300, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, infinite,
        ]);
        ascend(&[
            f32::NEG_INFINITY,
            -1.0,
            -0.0,
            0.0,
            1e-45,
            2.0,
            f32::INFINITY,
        ]);
        ascend(&[-2.0, -0.0, 0.0, 0.5].map(f16::from_f32));
        ascend(&[-2.0, -0.0, 0.0, 0.5].map(bf16::from_f32));
        ascend(&[i64::MIN, -1, 0, 1, i64::MAX]);
        ascend(&[i8::MIN, -1, 0, 1, i8::MAX]);
        ascend(&[0, 1, u64::MAX]);
        ascend(&[0u8, 1, u8::MAX]);
        ascend(&[Time(-5), Time(7)]);
    }

    #[test]
    fn what_lies_between_integers_does_not_wrap_around() {
        assert_eq!((-100i8).toward(100, 0.5), 0.0);
        assert_eq!(i64::MIN.toward(i64::MAX, 0.25), -(2f64.powi(62)));
        assert_eq!(i64::MAX.middle(1), 2f64.powi(62));
        assert_eq!(time_toward(1, 5, 0.3), 2);
        assert_eq!(time_middle(-3, -4), -3);
    }
}
