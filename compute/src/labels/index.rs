//! The values of a coordinate in ascending order, whatever order they are stored in.

use std::cmp::Ordering;
use std::ops::Range;

use array::AxisSelection;

/// The order of the values that are not missing; a rank is a place in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Index {
    order: Order,
    count: usize,
}

#[derive(Clone, Debug)]
enum Order {
    Ascending,
    Descending,
    /// The positions by rank.
    Unsorted(Vec<u64>),
}

impl Index {
    /// Of `length` values that `compare` compares by position; none is missing where both are not.
    pub(super) fn new(
        length: usize,
        is_missing: impl Fn(usize) -> bool,
        compare: impl Fn(usize, usize) -> Ordering,
    ) -> Self {
        let is_any_missing = (0..length).any(&is_missing);
        let is_sorted =
            |unwanted| !is_any_missing && (1..length).all(|at| compare(at - 1, at) != unwanted);
        let order = if is_sorted(Ordering::Greater) {
            Order::Ascending
        } else if is_sorted(Ordering::Less) {
            Order::Descending
        } else {
            let mut positions: Vec<u64> = (0..length as u64)
                .filter(|&at| !is_missing(at as usize))
                .collect();
            positions.sort_by(|&a, &b| compare(a as usize, b as usize));
            Order::Unsorted(positions)
        };
        let count = match &order {
            Order::Unsorted(positions) => positions.len(),
            _ => length,
        };
        Self { order, count }
    }

    /// Number of values that are not missing.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether values ascend or descend and none is missing.
    pub(super) fn is_sorted(&self) -> bool {
        !matches!(self.order, Order::Unsorted(_))
    }

    /// Whether values descend, and are more than one.
    pub(super) fn is_descending(&self) -> bool {
        matches!(self.order, Order::Descending)
    }

    /// The position of a rank, which must be below [`Index::len`].
    pub(super) fn position(&self, rank: usize) -> u64 {
        match &self.order {
            Order::Ascending => rank as u64,
            Order::Descending => (self.count - 1 - rank) as u64,
            Order::Unsorted(positions) => positions[rank],
        }
    }

    /// Number of ranks at the front that `is_before`, which holds for none after the first for
    /// which it does not.
    pub(super) fn partition(&self, is_before: impl Fn(usize) -> bool) -> usize {
        let mut ranks = 0..self.count;
        while !ranks.is_empty() {
            let middle = ranks.start + ranks.len() / 2;
            if is_before(self.position(middle) as usize) {
                ranks.start = middle + 1;
            } else {
                ranks.end = middle;
            }
        }
        ranks.start
    }

    /// The positions of ranks that ascend over several ranges, in the order of storage where that
    /// is one, else ascending.
    pub(super) fn select(&self, ranges: &[Range<usize>]) -> AxisSelection {
        if let [range] = ranges
            && self.is_sorted()
        {
            let start = match self.order {
                _ if range.is_empty() => 0,
                Order::Descending => self.count - range.end,
                _ => range.start,
            };
            return AxisSelection::Range {
                start: start as u64,
                step: 1,
                count: range.len() as u64,
            };
        }
        let ranks = ranges.iter().cloned().flatten();
        let mut positions: Vec<u64> = ranks.map(|rank| self.position(rank)).collect();
        match self.order {
            Order::Ascending => {}
            Order::Descending => positions.reverse(),
            Order::Unsorted(_) => positions.sort_unstable(),
        }
        tightest(positions)
    }
}

/// Positions as a range where they are one.
pub(super) fn tightest(positions: Vec<u64>) -> AxisSelection {
    let range = |start, step| AxisSelection::Range {
        start,
        step,
        count: positions.len() as u64,
    };
    match positions.as_slice() {
        [] => range(0, 1),
        [only] => range(*only, 1),
        [first, second, ..] => {
            // Positions are below 2^63, as lengths of vectors are.
            let distance = |a: u64, b: u64| b.wrapping_sub(a).cast_signed();
            let step = distance(*first, *second);
            let is_even = positions
                .windows(2)
                .all(|pair| distance(pair[0], pair[1]) == step);
            if step != 0 && is_even {
                range(*first, step)
            } else {
                AxisSelection::List(positions.into())
            }
        }
    }
}
