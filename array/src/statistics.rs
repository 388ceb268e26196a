//! Statistics of a set of cells: enough to answer count, min, max, sum, mean, std and var without
//! reading data.
//!
//! Merging is deterministic: the same cells merged in the same order give the same bits.
//!
//! Spec: `docs/format.md`, "Statistics".

use crate::Error;
use crate::double::{Double, two_sum};

/// A number exactly as the array holds it: `float16`, `bfloat16` and `float32` widen without loss;
/// `bool` counts as unsigned, datetimes and durations as signed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// Signed integers, datetimes, durations.
    Int(i64),
    /// Unsigned integers and `bool`.
    UInt(u64),
    /// Floats; never NaN in statistics.
    Float(f64),
}

impl Scalar {
    fn to_bits(self) -> (u8, u64) {
        match self {
            Self::Int(value) => (0, value.cast_unsigned()),
            Self::UInt(value) => (1, value),
            Self::Float(value) => (2, value.to_bits()),
        }
    }

    fn from_bits(kind: u8, bits: u64) -> Option<Self> {
        match kind {
            0 => Some(Self::Int(bits.cast_signed())),
            1 => Some(Self::UInt(bits)),
            2 => Some(f64::from_bits(bits))
                .filter(|value| !value.is_nan())
                .map(Self::Float),
            _ => None,
        }
    }

    /// The smaller one; the left of equal ones. Both hold the same kind.
    pub fn min(self, other: Self) -> Self {
        if other.less_than(self) { other } else { self }
    }

    /// The larger one; the left of equal ones. Both hold the same kind.
    pub fn max(self, other: Self) -> Self {
        if self.less_than(other) { other } else { self }
    }

    fn less_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a < b,
            (Self::UInt(a), Self::UInt(b)) => a < b,
            (Self::Float(a), Self::Float(b)) => a < b,
            _ => false,
        }
    }

    /// The nearest `f64`.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::UInt(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// A sum: exact for integers, a double-double (`hi + lo`, `|lo| ≤ ulp(hi) / 2`) for floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sum {
    /// Exact; wraps beyond 128 bits, which 2^64 cells of 64 bits cannot reach.
    Int(i128),
    /// About 106 significant bits.
    Float {
        /// The sum rounded to `f64`.
        hi: f64,
        /// What `hi` misses.
        lo: f64,
    },
}

impl Sum {
    /// The sum of both, which hold the same kind.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.wrapping_add(b)),
            (Self::Float { hi: a, lo: c }, Self::Float { hi: b, lo: d }) => {
                let (hi, error) = two_sum(a, b);
                if !hi.is_finite() {
                    return Self::Float { hi, lo: 0.0 };
                }
                let (hi, lo) = two_sum(hi, error + (c + d));
                Self::Float { hi, lo }
            }
            (left, _) => left,
        }
    }

    /// The sum rounded to `f64`.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float { hi, lo } => hi + lo,
        }
    }

    /// The sum as a double-double; exact up to 106 bits.
    pub fn to_double(self) -> Double {
        match self {
            Self::Int(value) => Double::from(value),
            Self::Float { hi, lo } => Double { hi, lo },
        }
    }
}

/// Statistics of a set of cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Cells that hold a value.
    pub valid: u64,
    /// Cells that do not: NaN, NaT, or what the CF attributes call missing.
    pub missing: u64,
    /// Extremes and sums of the valid cells; `None` where there is none.
    pub moments: Option<Moments>,
}

/// Extremes and sums of at least one valid cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Smallest value.
    pub min: Scalar,
    /// Largest value.
    pub max: Scalar,
    /// Sum of the values.
    pub sum: Sum,
    /// Sum of squared differences from the mean.
    pub m2: Double,
}

impl Statistics {
    /// Length of [`Statistics::to_bytes`].
    pub const ENCODED_BYTES: usize = 65;

    /// Statistics of no cell.
    pub const EMPTY: Self = Self {
        valid: 0,
        missing: 0,
        moments: None,
    };

    /// Statistics of the cells of both sets, which share no cell.
    ///
    /// Sums and squared differences are merged as double-doubles, so that regrouping the same sets
    /// changes what it comes to far below the last digit of an `f64`.
    ///
    /// Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
    /// sample variances", 1979.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let moments = match (self.moments, other.moments) {
            (Some(a), Some(b)) => {
                let (n_a, n_b) = (self.valid as f64, other.valid as f64);
                let mean = |moments: Moments, count| moments.sum.to_double().over(count);
                let delta = mean(b, n_b).plus(mean(a, n_a).times(-1.0));
                let weight = Double::product(n_a, n_b).over(n_a + n_b);
                let between = delta.by(delta).by(weight);
                Some(Moments {
                    min: a.min.min(b.min),
                    max: a.max.max(b.max),
                    sum: a.sum.plus(b.sum),
                    m2: a.m2.plus(b.m2).plus(between),
                })
            }
            (one, other) => one.or(other),
        };
        Self {
            valid: self.valid.saturating_add(other.valid),
            missing: self.missing.saturating_add(other.missing),
            moments,
        }
    }

    /// Statistics of all these sets, merged pairwise as a balanced tree: the left half takes the
    /// largest power of two below their number, as in a Merkle tree.
    pub fn merge_all(sets: &[Self]) -> Self {
        match sets {
            [] => Self::EMPTY,
            [one] => *one,
            sets => {
                let (left, right) = sets.split_at(sets.len().next_power_of_two() / 2);
                Self::merge_all(left).merge(Self::merge_all(right))
            }
        }
    }

    /// Statistics of so many sets of cells that are all like this one, of one cell.
    #[must_use]
    pub fn repeated(self, count: u64) -> Self {
        let times = count as f64;
        let moments = self.moments.map(|moments| Moments {
            sum: match moments.sum {
                Sum::Int(sum) => Sum::Int(sum.wrapping_mul(i128::from(count))),
                Sum::Float { hi, .. } => {
                    let product = hi * times;
                    let rest = hi.mul_add(times, -product);
                    Sum::Float {
                        hi: product,
                        lo: if product.is_finite() { rest } else { 0.0 },
                    }
                }
            },
            m2: Double::default(),
            ..moments
        });
        Self {
            valid: self.valid.saturating_mul(count),
            missing: self.missing.saturating_mul(count),
            moments: moments.filter(|_| count > 0),
        }
    }

    /// The stored form: `valid` and `missing` (u64), kind (0 signed, 1 unsigned, 2 float), `min`
    /// and `max` (8 bytes each), sum (i128, or `hi` and `lo` as f64), `m2` (`hi` and `lo`); little-endian,
    /// all zeros after `missing` where no cell is valid.
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[0..8].copy_from_slice(&self.valid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.missing.to_le_bytes());
        if let Some(moments) = &self.moments {
            let (kind, min) = moments.min.to_bits();
            let (_, max) = moments.max.to_bits();
            bytes[16] = kind;
            bytes[17..25].copy_from_slice(&min.to_le_bytes());
            bytes[25..33].copy_from_slice(&max.to_le_bytes());
            match moments.sum {
                Sum::Int(sum) => bytes[33..49].copy_from_slice(&sum.to_le_bytes()),
                Sum::Float { hi, lo } => {
                    bytes[33..41].copy_from_slice(&hi.to_le_bytes());
                    bytes[41..49].copy_from_slice(&lo.to_le_bytes());
                }
            }
            bytes[49..57].copy_from_slice(&moments.m2.hi.to_le_bytes());
            bytes[57..65].copy_from_slice(&moments.m2.lo.to_le_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the bytes are not what [`Statistics::to_bytes`] writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::invalid("statistics", reason);
        let bytes: &[u8; Self::ENCODED_BYTES] =
            bytes.try_into().map_err(|_| invalid("not 65 bytes"))?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let float = |at: usize| f64::from_bits(word(at));
        let (valid, missing) = (word(0), word(8));
        let moments = if valid == 0 {
            None
        } else {
            let scalar =
                |at| Scalar::from_bits(bytes[16], word(at)).ok_or_else(|| invalid("bad value"));
            let sum = if bytes[16] == 2 {
                Sum::Float {
                    hi: float(33),
                    lo: float(41),
                }
            } else {
                Sum::Int(i128::from(word(33)) | (i128::from(word(41).cast_signed()) << 64))
            };
            Some(Moments {
                min: scalar(17)?,
                max: scalar(25)?,
                sum,
                m2: Double {
                    hi: float(49),
                    lo: float(57),
                },
            })
        };
        let statistics = Self {
            valid,
            missing,
            moments,
        };
        if statistics.to_bytes() != *bytes {
            return Err(invalid("not in canonical form"));
        }
        Ok(statistics)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(value: i64) -> Statistics {
        let scalar = Scalar::Int(value);
        let moments = Moments {
            min: scalar,
            max: scalar,
            sum: Sum::Int(i128::from(value)),
            m2: Double::default(),
        };
        Statistics {
            valid: 1,
            missing: 0,
            moments: Some(moments),
        }
    }

    proptest! {
        #[test]
        fn merging_cells_gives_their_statistics(values in prop::collection::vec(-1000i64..1000, 1..50)) {
            let merged = values.iter().map(|&v| one(v)).reduce(Statistics::merge).unwrap();
            let moments = merged.moments.unwrap();
            let sum: i64 = values.iter().sum();
            let mean = sum as f64 / values.len() as f64;
            let m2: f64 = values.iter().map(|&v| (v as f64 - mean).powi(2)).sum();
            prop_assert_eq!(merged.valid, values.len() as u64);
            prop_assert_eq!(moments.min, Scalar::Int(*values.iter().min().unwrap()));
            prop_assert_eq!(moments.max, Scalar::Int(*values.iter().max().unwrap()));
            prop_assert_eq!(moments.sum, Sum::Int(i128::from(sum)));
            prop_assert!((moments.m2.to_f64() - m2).abs() <= 1e-9 * m2.max(1.0));
            prop_assert_eq!(Statistics::from_bytes(&merged.to_bytes()), Ok(merged));
        }

        #[test]
        fn hostile_bytes_are_refused_or_round_trip(bytes in prop::collection::vec(any::<u8>(), 65)) {
            if let Ok(statistics) = Statistics::from_bytes(&bytes) {
                prop_assert_eq!(statistics.to_bytes().to_vec(), bytes);
            }
        }
    }

    #[test]
    fn float_sums_keep_what_f64_loses() {
        let float = |hi: f64| Sum::Float { hi, lo: 0.0 };
        let sum = float(1e16)
            .plus(float(1.0))
            .plus(float(1.0))
            .plus(float(-1e16));
        assert_eq!(sum.to_f64(), 2.0);
        assert_eq!(
            float(f64::INFINITY).plus(float(1.0)).to_f64(),
            f64::INFINITY
        );
    }

    #[test]
    fn negative_sums_round_trip() {
        let statistics = one(-5).merge(one(-7)).merge(Statistics {
            missing: 3,
            ..Statistics::EMPTY
        });
        assert_eq!(
            Statistics::from_bytes(&statistics.to_bytes()),
            Ok(statistics)
        );
        assert!(Statistics::from_bytes(&[0; 64]).is_err());
        let mut bytes = Statistics::EMPTY.to_bytes();
        bytes[20] = 1;
        assert!(Statistics::from_bytes(&bytes).is_err());
    }
}
