//! Double-double sums: `hi + lo` with about 106 significant bits.

/// An unevaluated sum of two `f64`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Double {
    pub(crate) hi: f64,
    pub(crate) lo: f64,
}

impl Double {
    /// Adds one value.
    ///
    /// Source: Ogita, Rump, Oishi, "Accurate sum and dot product", 2005, algorithm 4.4 (Sum2).
    #[inline(always)]
    pub(crate) fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.hi, value);
        self.hi = sum;
        self.lo += error;
    }

    /// Adds another sum.
    #[inline(always)]
    pub(crate) fn merge(&mut self, other: Self) {
        let (sum, error) = two_sum(self.hi, other.hi);
        self.hi = sum;
        self.lo += error + other.lo;
    }

    /// The sum times a factor.
    pub(crate) fn times(self, factor: f64) -> Self {
        let (hi, error) = two_product(self.hi, factor);
        Self {
            hi,
            lo: error + self.lo * factor,
        }
    }

    /// The sum rounded to `f64`. Errors of non-finite sums mean nothing and are left out.
    pub(crate) fn to_f64(self) -> f64 {
        if self.hi.is_finite() {
            self.hi + self.lo
        } else {
            self.hi
        }
    }

    /// The same sum with `|lo| ≤ ulp(hi) / 2`, the form statistics store.
    pub(crate) fn normalised(self) -> Self {
        let (hi, lo) = two_sum(self.hi, self.lo);
        match (self.hi.is_finite(), hi.is_finite()) {
            (true, true) => Self { hi, lo },
            (true, false) => Self { hi, lo: 0.0 },
            (false, _) => Self {
                hi: self.hi,
                lo: 0.0,
            },
        }
    }
}

/// `a + b` and its rounding error.
///
/// Source: Knuth, TAOCP vol. 2, §4.2.2, theorem B.
#[inline(always)]
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a * b` and its rounding error, or 0 where the parts of a factor overflow.
///
/// Source: Dekker, "A floating-point technique for extending the available precision", 1971; a
/// fused multiplication would be a library call on processors without one.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let split = |value: f64| {
        let scaled = value * 134_217_729.0; // 2^27 + 1
        let high = scaled - (scaled - value);
        (high, value - high)
    };
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    let product = a * b;
    let error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, if error.is_finite() { error } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_keep_their_rounding_error() {
        let (a, b) = (3_000_000_019.0, 4_000_000_007.0);
        let exact = 3_000_000_019i128 * 4_000_000_007;
        let (product, error) = two_product(a, b);
        assert_eq!(product as i128 + error as i128, exact);
        assert_ne!(error, 0.0);
        assert_eq!(two_product(f64::MAX, 1.0), (f64::MAX, 0.0));
    }

    #[test]
    fn sums_keep_what_f64_loses() {
        let mut sum = Double::default();
        let mut add = |hi| sum.merge(Double { hi, lo: 0.0 });
        [1e16, 1.0, 1.0, -1e16].into_iter().for_each(&mut add);
        assert_eq!(sum.to_f64(), 2.0);
        sum.merge(Double {
            hi: f64::INFINITY,
            lo: 0.0,
        });
        assert_eq!(sum.to_f64(), f64::INFINITY);
        assert_eq!(sum.normalised().lo, 0.0);
    }
}
