//! Accumulators: one array a quantity, one element a kept cell.
//!
//! Each takes the elements of a box as [`Fold`](crate::block::Fold), merges with the accumulators
//! of the next box, and ends as numbers. Runs of elements that go into one cell are accumulated in
//! a fixed number of lanes, which the compiler turns into vector instructions; the lanes are part
//! of the order of operations, not of the machine.

mod extremes;
mod products;
mod spreads;
mod sums;
mod tallies;

pub(crate) use extremes::{Extremes, Order};
pub(crate) use products::{ComplexProducts, IntegerProducts, Products};
pub(crate) use spreads::Spreads;
pub(crate) use sums::{IntegerSums, Sums, add_to, quotient};
pub(crate) use tallies::{Counts, Truths};

use crate::element::Element;

/// Independent accumulators of one run. Eight hide the latency of an addition, and fill the widest
/// vector registers.
pub(crate) const LANES: usize = 8;

/// Calls `merge` with the accumulators of each cell of both sides.
fn each<T: Copy>(left: &mut [T], right: &[T], merge: impl Fn(&mut T, T)) {
    debug_assert_eq!(left.len(), right.len(), "partials cover the same cells");
    left.iter_mut().zip(right).for_each(|(a, &b)| merge(a, b));
}

/// Gives `take` the numbers of all values, [`LANES`] at a time and the last ones filled up with
/// 0.0.
#[inline(always)]
fn for_each_group<T: Element>(
    values: &[T],
    number: impl Fn(T) -> f64,
    mut take: impl FnMut([f64; LANES]),
) {
    if T::WIDENS_IN_STEPS {
        const PART: usize = 32 * LANES;
        let mut numbers = [0.0; PART];
        for part in values.chunks(PART) {
            for (slot, &value) in numbers.iter_mut().zip(part) {
                *slot = number(value);
            }
            let end = part.len().next_multiple_of(LANES);
            numbers[part.len()..end].fill(0.0);
            let (groups, _) = numbers[..end].as_chunks::<LANES>();
            groups.iter().for_each(|&group| take(group));
        }
        return;
    }
    let (groups, rest) = values.as_chunks::<LANES>();
    for &group in groups {
        take(group.map(&number));
    }
    let mut last = [0.0; LANES];
    for (slot, &value) in last.iter_mut().zip(rest) {
        *slot = number(value);
    }
    take(last);
}
