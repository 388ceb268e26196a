//! Sums: exact for integers, double-double for floats.

use super::{LANES, each};
use crate::block::Fold;
use crate::double::{Double, two_sum};
use crate::element::Element;

/// Double-double sums, and how many values went into each.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    skip: bool,
    counts: Vec<u64>,
    high: Vec<f64>,
    low: Vec<f64>,
}

impl Sums {
    pub(crate) fn new(kept: usize, skip: bool) -> Self {
        Self {
            skip,
            counts: vec![0; kept],
            high: vec![0.0; kept],
            low: vec![0.0; kept],
        }
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.counts, &later.counts, |a, b| *a += b);
        for cell in 0..self.high.len() {
            self.add(cell, later.get(cell));
        }
    }

    /// Each cell's count and sum.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let sums = (0..self.high.len()).map(|cell| self.get(cell).to_f64());
        self.counts.iter().copied().zip(sums)
    }

    pub(super) fn count(&self, cell: usize) -> u64 {
        self.counts[cell]
    }

    pub(super) fn get(&self, cell: usize) -> Double {
        Double {
            hi: self.high[cell],
            lo: self.low[cell],
        }
    }

    fn add(&mut self, cell: usize, sum: Double) {
        let mut total = self.get(cell);
        total.merge(sum);
        (self.high[cell], self.low[cell]) = (total.hi, total.lo);
    }
}

impl<T: Element> Fold<T> for Sums {
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        let (count, sum) = if self.skip {
            sum_run::<T, true>(values)
        } else {
            sum_run::<T, false>(values)
        };
        self.counts[cell] += count;
        self.add(cell, sum);
    }

    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        let cells = first_cell..first_cell + values.len();
        let sums = self.high[cells.clone()]
            .iter_mut()
            .zip(&mut self.low[cells.clone()]);
        if self.skip {
            let counts = &mut self.counts[cells];
            for ((value, count), (high, low)) in values.iter().zip(counts).zip(sums) {
                let is_valid = !value.is_missing();
                *count += u64::from(is_valid);
                add_to(high, low, if is_valid { value.to_f64() } else { 0.0 });
            }
        } else {
            for (value, (high, low)) in values.iter().zip(sums) {
                add_to(high, low, value.to_f64());
            }
            self.counts[cells].iter_mut().for_each(|count| *count += 1);
        }
    }
}

#[inline]
fn add_to(high: &mut f64, low: &mut f64, value: f64) {
    let (sum, error) = two_sum(*high, value);
    *high = sum;
    *low += error;
}

/// Count and sum of the values, without the missing ones if `SKIP`.
fn sum_run<T: Element, const SKIP: bool>(values: &[T]) -> (u64, Double) {
    let (mut high, mut low) = ([0.0; LANES], [0.0; LANES]);
    let number = |value: T| {
        if SKIP && value.is_missing() {
            0.0
        } else {
            value.to_f64()
        }
    };
    let (groups, rest) = values.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            add_to(&mut high[lane], &mut low[lane], number(group[lane]));
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        add_to(&mut high[lane], &mut low[lane], number(value));
    }
    let mut total = Double::default();
    for (hi, lo) in high.into_iter().zip(low) {
        total.merge(Double { hi, lo });
    }
    let missing = if SKIP {
        super::tallies::missing(values)
    } else {
        0
    };
    (values.len() as u64 - missing, total)
}

/// Exact sums of integers. Every cell has as many values.
#[derive(Clone, Debug)]
pub(crate) struct IntegerSums {
    sums: Vec<i128>,
    /// Values in all cells together.
    values: u64,
}

impl IntegerSums {
    pub(crate) fn new(kept: usize) -> Self {
        Self {
            sums: vec![0; kept],
            values: 0,
        }
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        self.values += later.values;
        each(&mut self.sums, &later.sums, |a, b| *a += b);
    }

    pub(crate) fn sums(&self) -> &[i128] {
        &self.sums
    }

    /// The means; NaN for no values.
    pub(crate) fn means(&self) -> impl Iterator<Item = f64> + '_ {
        let count = self.values.checked_div(self.sums.len() as u64).unwrap_or(0);
        self.sums.iter().map(move |&sum| quotient(sum, count))
    }
}

impl<T: Element> Fold<T> for IntegerSums {
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        self.values += values.len() as u64;
        self.sums[cell] += T::exact_sum(values);
    }

    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        self.values += values.len() as u64;
        let sums = &mut self.sums[first_cell..first_cell + values.len()];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value.to_i128();
        }
    }
}

/// `sum / count` with an error below one unit in the last place; NaN for `count` 0.
fn quotient(sum: i128, count: u64) -> f64 {
    const EXACT: u128 = 1 << 53;
    if count == 0 || sum.unsigned_abs() <= EXACT {
        return sum as f64 / count as f64;
    }
    let whole = sum / i128::from(count);
    let rest = sum % i128::from(count);
    if whole.unsigned_abs() < EXACT {
        // `whole` is exact here and `sum as f64` is not.
        return whole as f64 + rest as f64 / count as f64;
    }
    sum as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::quotient;

    #[test]
    fn quotients_of_large_sums_keep_their_fraction() {
        let three = 3 * ((1i128 << 52) + 1);
        assert_eq!(quotient(three, 3), ((1u64 << 52) + 1) as f64);
        assert_eq!(
            quotient((1 << 60) + 1, 1 << 10),
            (1u64 << 50) as f64 + 0.000_976_562_5
        );
        assert_eq!(quotient(-7, 2), -3.5);
        assert!(quotient(0, 0).is_nan());
    }
}
