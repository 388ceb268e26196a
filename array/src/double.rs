//! Double-doubles: `hi + lo` with about 106 significant bits.

/// An unevaluated sum of two `f64`, `|lo| ≤ ulp(hi) / 2`; `lo` is 0 where `hi` is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Double {
    /// The number rounded to `f64`.
    pub hi: f64,
    /// What `hi` misses.
    pub lo: f64,
}

impl From<f64> for Double {
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

impl From<i128> for Double {
    fn from(value: i128) -> Self {
        let hi = value as f64;
        // 2^127, which `hi` may round up to, is −2^127 in wrapping arithmetic.
        let whole = if hi == -(i128::MIN as f64) {
            i128::MIN
        } else {
            hi as i128
        };
        let lo = value.wrapping_sub(whole) as f64;
        Self { hi, lo }
    }
}

impl Double {
    /// `a × b`, exactly where nothing over- or underflows.
    pub fn product(a: f64, b: f64) -> Self {
        let (hi, lo) = two_product(a, b);
        Self { hi, lo }
    }

    /// The number rounded to `f64`.
    pub fn to_f64(self) -> f64 {
        self.hi + self.lo
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (hi, error) = two_sum(self.hi, other.hi);
        Self::renormalised(hi, error + (self.lo + other.lo))
    }

    /// The product with a factor.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        self.by(Self::from(factor))
    }

    /// The product of both.
    #[must_use]
    pub fn by(self, other: Self) -> Self {
        let (hi, error) = two_product(self.hi, other.hi);
        Self::renormalised(hi, error + (self.hi * other.lo + self.lo * other.hi))
    }

    /// The quotient by a divisor.
    #[must_use]
    pub fn over(self, divisor: f64) -> Self {
        let quotient = self.hi / divisor;
        let (product, error) = two_product(quotient, divisor);
        let rest = (self.hi - product) - error + self.lo;
        Self::renormalised(quotient, rest / divisor)
    }

    /// `hi + error`; `hi` alone where either is not finite: such an error means nothing.
    fn renormalised(hi: f64, error: f64) -> Self {
        if !hi.is_finite() || !error.is_finite() {
            return Self::from(hi);
        }
        match two_sum(hi, error) {
            (hi, lo) if hi.is_finite() => Self { hi, lo },
            (hi, _) => Self::from(hi),
        }
    }
}

/// `a + b` and the exact rounding error of that sum.
///
/// Source: Knuth, TAOCP vol. 2, §4.2.2, theorem B.
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a × b` and its exact rounding error, or 0 where that overflows.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let error = a.mul_add(b, -product);
    (product, if error.is_finite() { error } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arithmetic_keeps_more_than_a_hundred_bits(a in 1i64..1 << 50, b in 1i64..1 << 50, c in 1i64..1 << 20) {
            let product = Double::product(a as f64, b as f64);
            prop_assert_eq!(product.hi as i128 + product.lo as i128, i128::from(a) * i128::from(b));
            let exact = i128::from(a) * i128::from(b);
            prop_assert_eq!(Double::from(exact), product);
            let back = product.times(c as f64).over(c as f64).plus(product.times(-1.0));
            prop_assert!((back.to_f64() / product.hi).abs() < 1e-30);
        }
    }

    #[test]
    fn what_is_not_finite_has_no_error() {
        let infinite = Double::from(f64::MAX).plus(Double::from(f64::MAX));
        assert_eq!((infinite.hi, infinite.lo), (f64::INFINITY, 0.0));
        assert!(Double::from(f64::NAN).over(3.0).hi.is_nan());
        assert_eq!(Double::from(1.0).over(0.0), Double::from(f64::INFINITY));
        assert_eq!(Double::from(f64::INFINITY).over(2.0).hi, f64::INFINITY);
        let largest = Double::from(i128::MAX);
        assert_eq!((largest.hi, largest.lo), (2f64.powi(127), -1.0));
    }
}
