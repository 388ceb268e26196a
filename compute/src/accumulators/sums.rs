//! Sums: exact for integers, double-double for floats.

use super::run::{self, Lanes};
use super::{LANES, each};
use crate::block::{Block, Fold};
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

    /// Of counts, and the higher and lower parts of sums.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(skip: bool, parts: impl Iterator<Item = (u64, f64, f64)>) -> Self {
        let mut sums = Self::new(0, skip);
        for (count, high, low) in parts {
            sums.counts.push(count);
            sums.high.push(high);
            sums.low.push(low);
        }
        sums
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.counts, &later.counts, |a, b| *a += b);
        for cell in 0..later.high.len() {
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

    #[inline(always)]
    pub(super) fn get(&self, cell: usize) -> Double {
        Double {
            hi: self.high[cell],
            lo: self.low[cell],
        }
    }

    #[inline(always)]
    fn add(&mut self, cell: usize, sum: Double) {
        let mut total = self.get(cell);
        total.merge(sum);
        (self.high[cell], self.low[cell]) = (total.hi, total.lo);
    }
}

impl<T: Element> Fold<T> for Sums {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        let (count, sum) = if self.skip {
            sum_run::<T, true>(values)
        } else {
            sum_run::<T, false>(values)
        };
        self.counts[cell] += count;
        self.add(cell, sum);
    }

    #[inline(always)]
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

#[inline(always)]
pub(crate) fn add_to(high: &mut f64, low: &mut f64, value: f64) {
    let (sum, error) = two_sum(*high, value);
    *high = sum;
    *low += error;
}

/// Count and sum of the values, without the missing ones if `SKIP`.
#[inline(always)]
fn sum_run<T: Element, const SKIP: bool>(values: &[T]) -> (u64, Double) {
    let total = run::total::<T, DoubleLanes>(values, |value| {
        if SKIP && value.is_missing() {
            0.0
        } else {
            value.to_f64()
        }
    });
    let missing = if SKIP {
        super::tallies::missing(values)
    } else {
        0
    };
    (values.len() as u64 - missing, total)
}

/// A double-double sum in each lane.
#[derive(Clone, Copy, Default)]
struct DoubleLanes {
    high: [f64; LANES],
    low: [f64; LANES],
}

impl DoubleLanes {
    fn lane(self, lane: usize) -> Double {
        Double {
            hi: self.high[lane],
            lo: self.low[lane],
        }
    }
}

impl Lanes for DoubleLanes {
    type Total = Double;

    // Step by step over all lanes: each step becomes a vector instruction.
    #[inline(always)]
    fn add(self, numbers: [f64; LANES]) -> Self {
        let Self { high, mut low } = self;
        let sums: [f64; LANES] = std::array::from_fn(|lane| high[lane] + numbers[lane]);
        let parts: [f64; LANES] = std::array::from_fn(|lane| sums[lane] - high[lane]);
        for lane in 0..LANES {
            let (part, value) = (parts[lane], numbers[lane]);
            low[lane] += (high[lane] - (sums[lane] - part)) + (value - part);
        }
        Self { high: sums, low }
    }

    #[inline(always)]
    fn merge(self, later: Self) -> Self {
        let Self { mut high, mut low } = self;
        for lane in 0..LANES {
            let (sum, error) = two_sum(high[lane], later.high[lane]);
            high[lane] = sum;
            low[lane] += error + later.low[lane];
        }
        Self { high, low }
    }

    #[inline(always)]
    fn together(self) -> Double {
        let mut lanes: [Double; LANES] = std::array::from_fn(|lane| self.lane(lane));
        for step in [4, 2, 1] {
            for lane in 0..step {
                let above = lanes[lane + step];
                lanes[lane].merge(above);
            }
        }
        lanes[0]
    }

    #[inline(always)]
    fn follow(mut earlier: Double, later: Double) -> Double {
        earlier.merge(later);
        earlier
    }
}

/// Exact sums of integers, and how many values went into each.
#[derive(Clone, Debug)]
pub(crate) struct IntegerSums {
    sums: Vec<i128>,
    /// What was added to each cell since, of integers of at most 32 bits.
    narrow: Vec<i64>,
    /// Rows that went into `narrow`.
    rows: u32,
    counts: Vec<u64>,
}

/// Rows of integers of 32 bits whose sums fit 64 bits.
const NARROW_ROWS: u32 = 1 << 30;

impl IntegerSums {
    pub(crate) fn new(kept: usize) -> Self {
        Self {
            sums: vec![0; kept],
            narrow: Vec::new(),
            rows: 0,
            counts: vec![0; kept],
        }
    }

    /// Of sums of `count` values each.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(sums: impl Iterator<Item = i128>, count: u64) -> Self {
        let sums: Vec<i128> = sums.collect();
        Self {
            counts: vec![count; sums.len()],
            sums,
            ..Self::new(0)
        }
    }

    /// Takes the values of a box.
    pub(crate) fn fold<T: Element>(&mut self, block: &Block<'_>, values: &[T]) {
        if size_of::<T>() <= 4 {
            self.narrow = vec![0; self.sums.len()];
        }
        block.fold(values, self);
        // Every cell of a box has as many values.
        let count = values.len().checked_div(self.sums.len()).unwrap_or(0) as u64;
        self.counts.iter_mut().for_each(|n| *n += count);
        self.widen();
        self.narrow = Vec::new();
    }

    fn widen(&mut self) {
        for (sum, narrow) in self.sums.iter_mut().zip(&mut self.narrow) {
            *sum += i128::from(std::mem::take(narrow));
        }
        self.rows = 0;
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.counts, &later.counts, |a, b| *a += b);
        each(&mut self.sums, &later.sums, |a, b| *a += b);
    }

    pub(crate) fn sums(&self) -> &[i128] {
        &self.sums
    }

    /// The means; NaN for no values.
    pub(crate) fn means(&self) -> impl Iterator<Item = f64> + '_ {
        let cells = self.sums.iter().zip(&self.counts);
        cells.map(|(&sum, &count)| quotient(sum, count))
    }
}

impl<T: Element> Fold<T> for IntegerSums {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        self.sums[cell] += T::exact_sum(values);
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        let cells = first_cell..first_cell + values.len();
        if size_of::<T>() <= 4 {
            for (sum, value) in self.narrow[cells].iter_mut().zip(values) {
                *sum += value.to_i64();
            }
            self.rows += 1;
            if self.rows == NARROW_ROWS {
                self.widen();
            }
            return;
        }
        let sums = &mut self.sums[cells];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value.to_i128();
        }
    }
}

/// `sum / count` with an error below one unit in the last place; NaN for `count` 0.
pub(crate) fn quotient(sum: i128, count: u64) -> f64 {
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
