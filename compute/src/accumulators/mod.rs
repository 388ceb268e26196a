//! Accumulators: one array a quantity, one element a kept cell.
//!
//! Each takes the elements of a box as [`Fold`](crate::block::Fold), merges with the accumulators
//! of the next box, and ends as numbers. Runs of elements that go into one cell are accumulated in
//! a fixed number of lanes, which the compiler turns into vector instructions and a device into
//! threads; the lanes are part of the order of operations ([`run`]), not of the machine.

mod extremes;
mod products;
pub(crate) mod run;
mod spreads;
mod sums;
mod tallies;

pub(crate) use extremes::{Extremes, Order};
pub(crate) use products::{ComplexProducts, IntegerProducts, Products};
pub(crate) use spreads::Spreads;
pub(crate) use sums::{IntegerSums, Sums, add_to, quotient};
pub(crate) use tallies::{Counts, Truths};

/// Independent accumulators of one run. Eight hide the latency of an addition, and fill the widest
/// vector registers.
pub(crate) const LANES: usize = 8;

/// Calls `merge` with the accumulators of each cell of both sides.
fn each<T: Copy>(left: &mut [T], right: &[T], merge: impl Fn(&mut T, T)) {
    debug_assert_eq!(left.len(), right.len(), "partials cover the same cells");
    left.iter_mut().zip(right).for_each(|(a, &b)| merge(a, b));
}
