//! Floats of 16 bits, rounded once.
//!
//! The conversions of the `half` crate go through `f32` where the processor has instructions for it,
//! which rounds twice, and cut bits off where it has not: the result would depend on the machine.

use half::{bf16, f16};

/// The nearest `f16`, ties to even.
#[inline]
pub(crate) fn f16_of(value: f64) -> f16 {
    f16::from_f32(to_odd(value))
}

/// The nearest `bf16`, ties to even.
#[inline]
pub(crate) fn bf16_of(value: f64) -> bf16 {
    bf16::from_f32(to_odd(value))
}

/// A number as `f32`, rounded to odd: whatever is cut off leaves the last bit set, so that rounding
/// once more, to 22 bits or fewer, is as if from the number itself.
///
/// Source: Boldo, Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using
/// rounding to odd", 2008.
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || value.is_nan() {
        return nearest;
    }
    let bits = nearest.to_bits();
    let cut_off = if back.abs() > value.abs() {
        bits - 1
    } else {
        bits
    };
    f32::from_bits(cut_off | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once() {
        // Just above the middle of two halves; as f32 it is the middle, which goes to the even one.
        let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(f16_of(above).to_bits(), 0x3c01);
        assert_eq!(f16::from_f32(above as f32).to_bits(), 0x3c00);
        let above = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        assert_eq!(bf16_of(above).to_bits(), 0x3f81);
        for (value, wanted) in [
            (65520.0, f16::INFINITY),
            (65520.0 - 1e-9, f16::MAX),
            (-1e300, f16::NEG_INFINITY),
            (1e-300, f16::ZERO),
            (-1e-300, f16::NEG_ZERO),
            (2f64.powi(-25), f16::ZERO),
            (2f64.powi(-25) * 1.0000001, f16::from_bits(1)),
            (f64::INFINITY, f16::INFINITY),
        ] {
            let found = f16_of(value).to_bits();
            assert_eq!(found, wanted.to_bits(), "{value}");
        }
    }
}
