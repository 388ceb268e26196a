//! The order in which the elements of one run are added up.
//!
//! It is that of a device whose threads work in warps of 32, so that a device and a processor give
//! the same bits:
//!
//! - a run is cut into segments of [`SEGMENT`] elements, the last one shorter;
//! - element n of a segment goes into lane n mod 32, each lane adds in order;
//! - the lanes merge as a tree: lane n with lane n + 16, then n + 8, 4, 2 and 1;
//! - the segments merge as a tree of neighbours, the left part the largest power of two;
//! - runs of at most [`SHORT`] elements have eight lanes, which four runs of a warp share.
//!
//! Lanes that no element goes into hold zero, which changes no sum: none is −0.0.

use super::LANES;
use crate::element::Element;

/// Elements of one segment.
pub(crate) const SEGMENT: usize = 4096;
/// Most elements of a run of eight lanes: with more, 32 lanes cost a processor nothing.
pub(crate) const SHORT: usize = 1024;
/// Lanes of a segment, in groups that are one vector register each.
const ROW: usize = 32;
const GROUPS: usize = ROW / LANES;
/// Elements that are gone through group by group, so that the lanes of a group stay in registers.
const PART: usize = 32 * ROW;

/// Lanes that take numbers and merge.
pub(super) trait Lanes: Copy + Default {
    /// What all lanes come to.
    type Total;

    /// Adds a number to each lane.
    fn add(self, numbers: [f64; LANES]) -> Self;

    /// Merges each lane with the same lane of `later`.
    fn merge(self, later: Self) -> Self;

    /// Merges lane n with lane n + 4, then n + 2, then n + 1.
    fn together(self) -> Self::Total;

    /// Merges what segments come to.
    fn follow(earlier: Self::Total, later: Self::Total) -> Self::Total;
}

/// What the numbers of all values of a run come to.
#[inline(always)]
pub(super) fn total<T: Element, L: Lanes>(values: &[T], number: impl Fn(T) -> f64) -> L::Total {
    if values.len() <= SHORT {
        return together_short(short_lanes::<T, L>(values, &number));
    }
    if values.len() <= SEGMENT {
        return together(lanes_of::<T, L>(values, &number));
    }
    let mut tree = Tree::<L>::default();
    for segment in values.chunks(SEGMENT) {
        tree.push(together(lanes_of::<T, L>(segment, &number)));
    }
    tree.finish()
        .unwrap_or_else(|| together([L::default(); GROUPS]))
}

#[inline(always)]
fn short_lanes<T: Element, L: Lanes>(values: &[T], number: &impl Fn(T) -> f64) -> L {
    if !T::WIDENS_IN_STEPS {
        return add_groups(L::default(), values, number);
    }
    const STEP: usize = 32 * LANES;
    let mut lanes = L::default();
    for part in values.chunks(STEP) {
        let mut numbers = [0.0; STEP];
        for (slot, &value) in numbers.iter_mut().zip(part) {
            *slot = number(value);
        }
        let end = part.len().next_multiple_of(LANES);
        lanes = add_groups(lanes, &numbers[..end], &|value| value);
    }
    lanes
}

/// Adds values to eight lanes, the last ones filled up with zeros.
#[inline(always)]
fn add_groups<T: Copy, L: Lanes>(mut lanes: L, values: &[T], number: &impl Fn(T) -> f64) -> L {
    let (groups, rest) = values.as_chunks::<LANES>();
    for &values in groups {
        lanes = lanes.add(values.map(number));
    }
    if !rest.is_empty() {
        let mut last = [0.0; LANES];
        for (slot, &value) in last.iter_mut().zip(rest) {
            *slot = number(value);
        }
        lanes = lanes.add(last);
    }
    lanes
}

#[inline(always)]
fn lanes_of<T: Element, L: Lanes>(segment: &[T], number: &impl Fn(T) -> f64) -> [L; GROUPS] {
    let mut lanes = [L::default(); GROUPS];
    let (parts, rest) = segment.as_chunks::<PART>();
    for part in parts {
        if T::WIDENS_IN_STEPS {
            let mut numbers = [0.0; PART];
            for (slot, &value) in numbers.iter_mut().zip(part) {
                *slot = number(value);
            }
            let (rows, _) = numbers.as_chunks::<ROW>();
            add_rows(&mut lanes, rows, &|value| value);
        } else {
            let (rows, _) = part.as_chunks::<ROW>();
            add_rows(&mut lanes, rows, number);
        }
    }
    let (rows, rest) = rest.as_chunks::<ROW>();
    add_rows(&mut lanes, rows, number);
    for (lanes, values) in lanes.iter_mut().zip(rest.chunks(LANES)) {
        *lanes = add_groups(*lanes, values, number);
    }
    lanes
}

#[inline(always)]
fn add_rows<T: Copy, L: Lanes>(
    lanes: &mut [L; GROUPS],
    rows: &[[T; ROW]],
    number: &impl Fn(T) -> f64,
) {
    for (group, lanes) in lanes.iter_mut().enumerate() {
        let mut own = *lanes;
        for row in rows {
            let numbers: [f64; LANES] =
                std::array::from_fn(|lane| number(row[group * LANES + lane]));
            own = own.add(numbers);
        }
        *lanes = own;
    }
}

/// A call, so that the lanes are in memory at the end and the compiler keeps those of a group in one
/// register before.
#[inline(never)]
fn together<L: Lanes>([a, b, c, d]: [L; GROUPS]) -> L::Total {
    a.merge(c).merge(b.merge(d)).together()
}

/// A call, for the same reason.
#[inline(never)]
fn together_short<L: Lanes>(lanes: L) -> L::Total {
    lanes.together()
}

/// Merges segments as they come: of every power of two, at most one waits for its neighbour.
struct Tree<L: Lanes> {
    /// How many segments each holds, and what they come to.
    waiting: Vec<(u64, L::Total)>,
}

impl<L: Lanes> Default for Tree<L> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
        }
    }
}

impl<L: Lanes> Tree<L> {
    fn push(&mut self, total: L::Total) {
        let (mut segments, mut merged) = (1, total);
        while let Some((_, earlier)) = self.waiting.pop_if(|(others, _)| *others == segments) {
            merged = L::follow(earlier, merged);
            segments *= 2;
        }
        self.waiting.push((segments, merged));
    }

    fn finish(self) -> Option<L::Total> {
        let totals = self.waiting.into_iter().rev().map(|(_, total)| total);
        totals.reduce(|later, earlier| L::follow(earlier, later))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accumulators::Sums;
    use crate::block::Fold as _;

    /// The order of this module, word by word.
    fn in_order(values: &[f64]) -> (f64, f64) {
        fn two_sum(a: f64, b: f64) -> (f64, f64) {
            let sum = a + b;
            let part = sum - a;
            (sum, (a - (sum - part)) + (b - part))
        }
        fn merge(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
            let (sum, error) = two_sum(a.0, b.0);
            (sum, a.1 + (error + b.1))
        }
        fn of_segment(values: &[f64], lanes: usize) -> (f64, f64) {
            let mut all = vec![(0.0, 0.0); lanes];
            for (nth, &value) in values.iter().enumerate() {
                let lane = &mut all[nth % lanes];
                let (sum, error) = two_sum(lane.0, value);
                *lane = (sum, lane.1 + error);
            }
            while all.len() > 1 {
                let (low, high) = all.split_at(all.len() / 2);
                all = low.iter().zip(high).map(|(&a, &b)| merge(a, b)).collect();
            }
            all[0]
        }
        fn of_segments(segments: &[(f64, f64)]) -> (f64, f64) {
            if let [one] = segments {
                return *one;
            }
            let left = segments.len().next_power_of_two() / 2;
            let (left, right) = segments.split_at(left);
            merge(of_segments(left), of_segments(right))
        }
        if values.len() <= SHORT {
            return of_segment(values, LANES);
        }
        let segments = values.chunks(SEGMENT).map(|part| of_segment(part, ROW));
        of_segments(&segments.collect::<Vec<_>>())
    }

    #[test]
    fn runs_are_added_in_the_order_that_is_written_down() {
        let value = |n: usize| ((n * n + 7) % 1013) as f64 / 7.0 - 60.0 + 3e4 / (n + 1) as f64;
        for length in [
            1,
            7,
            8,
            9,
            100,
            SHORT,
            SHORT + 1,
            4000,
            SEGMENT,
            SEGMENT + 1,
            30_001,
        ] {
            let values: Vec<f64> = (0..length).map(value).collect();
            let mut sums = Sums::new(1, false);
            sums.one(0, 0, &values);
            let (high, low) = in_order(&values);
            let found = sums.get(0);
            assert_eq!((found.hi, found.lo), (high, low), "{length}");
            // The same where elements are widened in steps.
            let halves: Vec<half::f16> = values.iter().map(|&v| crate::halves::f16_of(v)).collect();
            let widened: Vec<f64> = halves.iter().map(|half| half.to_f64()).collect();
            let mut of_halves = Sums::new(1, false);
            of_halves.one(0, 0, &halves);
            let (high, low) = in_order(&widened);
            let found = of_halves.get(0);
            assert_eq!((found.hi, found.lo), (high, low), "halves {length}");
        }
    }
}
