//! Double-double sums: `hi + lo` with about 106 significant bits.

/// An unevaluated sum of two `f64`, `|lo| ≤ ulp(hi) / 2`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Double {
    pub(crate) hi: f64,
    pub(crate) lo: f64,
}

impl Double {
    /// Adds one value.
    ///
    /// Source: Dekker, "A floating-point technique for extending the available precision", 1971.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.hi, value);
        self.hi = sum;
        self.lo += error;
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: Self) {
        let (sum, error) = two_sum(self.hi, other.hi);
        self.hi = sum;
        self.lo += error + other.lo;
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
        if !self.hi.is_finite() {
            return Self {
                hi: self.hi,
                lo: 0.0,
            };
        }
        let (hi, lo) = two_sum(self.hi, self.lo);
        if hi.is_finite() {
            Self { hi, lo }
        } else {
            Self { hi, lo: 0.0 }
        }
    }
}

/// `a + b` and its rounding error.
///
/// Source: Knuth, TAOCP vol. 2, §4.2.2, theorem B.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}
