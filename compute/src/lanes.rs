//! Sums over two vectors in one order, whatever the threads, the blocks and the machine.
//!
//! Element `i` goes to lane `i mod 32`. Every lane starts at +0 and adds its elements in order: each
//! product is rounded to `f64` and then added, never fused. Then neighbours are added as a binary
//! tree: lanes 0 + 1, 2 + 3, …, then those sums, five times. A device that does the same has the same
//! bits.
//!
//! ```text
//! i    0   1   2   3 …  31
//!     32  33  34  35 …  63      each column a lane, added downwards
//!      …   …   …   … …   …
//!      └─+─┘   └─+─┘  …         then pairwise
//!        └───+───┘    …
//! ```
//!
//! Elements past the end count as zeros: no lane is ever −0, so adding +0 changes none. Integers are
//! added modulo 2^64, where the order makes no difference.
//!
//! Vectors are widened block by block, so what is needed besides their bytes does not depend on their
//! length ([`PANEL_BYTES`]).

use std::borrow::Cow;
use std::ops::Range;

use array::DataType;

use crate::element::{Element, elements, with_real};
use crate::simd::{self, Kernel};

/// Lanes of a sum.
pub const LANES: usize = 32;
/// Lanes that one step takes: a register of AVX-512, two of AVX2.
const GROUP: usize = 8;
/// Groups of lanes.
const GROUPS: usize = LANES / GROUP;
/// Vectors on the right that one on the left meets at once: their lanes of a group fit in registers.
const WIDE: usize = 4;
/// Elements of a vector that are widened at once, a multiple of [`LANES`]: those of a panel and its
/// lanes fit in a second-level cache of 1 MiB.
const BLOCK: usize = 512;
/// Vectors on the left, of which sums are made at once.
pub(crate) const PANEL_ROWS: usize = 32;
/// Vectors on the right.
pub(crate) const PANEL_COLUMNS: usize = 48;

/// Memory that sums take on one thread, besides the elements and the results, in bytes.
pub const PANEL_BYTES: u64 = (8 * LANES * PANEL_ROWS * PANEL_COLUMNS
    + 8 * BLOCK * (PANEL_ROWS + PANEL_COLUMNS)
    + 8 * PANEL_ROWS * PANEL_COLUMNS) as u64;

/// Vectors of one length, as little-endian elements.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    data_type: &'a DataType,
    bytes: &'a [u8],
    count: usize,
    length: usize,
    are_rows: bool,
}

impl<'a> Vectors<'a> {
    /// The rows of a matrix of shape `(count, length)` in C order.
    ///
    /// # Panics
    /// If `bytes` are not those of such a matrix of real numbers.
    pub fn rows(data_type: &'a DataType, bytes: &'a [u8], count: usize, length: usize) -> Self {
        Self::new(data_type, bytes, (count, length), true)
    }

    /// The columns of a matrix of shape `(length, count)` in C order.
    ///
    /// # Panics
    /// As [`Vectors::rows`].
    pub fn columns(data_type: &'a DataType, bytes: &'a [u8], length: usize, count: usize) -> Self {
        Self::new(data_type, bytes, (count, length), false)
    }

    fn new(
        data_type: &'a DataType,
        bytes: &'a [u8],
        (count, length): (usize, usize),
        are_rows: bool,
    ) -> Self {
        let size = with_real!(data_type, T => size_of::<T>(), else 0);
        let wanted = count.checked_mul(length).and_then(|n| n.checked_mul(size));
        assert!(
            size > 0 && wanted == Some(bytes.len()),
            "a matrix has as many elements as its shape says"
        );
        Self {
            data_type,
            bytes,
            count,
            length,
            are_rows,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Elements of each.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Bytes of the matrix they come from.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Type and bytes of the matrix they come from, and whether they are its rows.
    #[cfg(feature = "gpu")]
    pub(crate) fn source(&self) -> (&'a DataType, &'a [u8], bool) {
        (self.data_type, self.bytes, self.are_rows)
    }

    /// Widens some elements of some vectors: vector by vector, each filled up with zeros to a
    /// multiple of [`LANES`].
    fn widen<N: Number>(
        &self,
        vectors: Range<usize>,
        part: Range<usize>,
        into: &mut Vec<[N; GROUP]>,
    ) {
        with_real!(self.data_type, T => self.widen_as::<T, N>(vectors, part, into), else ());
    }

    fn widen_as<T: Element, N: Number>(
        &self,
        vectors: Range<usize>,
        part: Range<usize>,
        into: &mut Vec<[N; GROUP]>,
    ) {
        let width = part.len().next_multiple_of(LANES);
        into.clear();
        into.resize(vectors.len() * width / GROUP, [N::default(); GROUP]);
        let into = into.as_flattened_mut();
        if self.are_rows {
            for (vector, slots) in vectors.zip(into.chunks_exact_mut(width)) {
                let run = self.run::<T>(vector * self.length + part.start, part.len());
                let pairs = slots.iter_mut().zip(run.iter());
                pairs.for_each(|(slot, &value)| *slot = N::of(value));
            }
        } else {
            for (place, element) in part.enumerate() {
                let run = self.run::<T>(element * self.count + vectors.start, vectors.len());
                let slots = into.iter_mut().skip(place).step_by(width);
                let pairs = slots.zip(run.iter());
                pairs.for_each(|(slot, &value)| *slot = N::of(value));
            }
        }
    }

    /// Elements that lie one after the other.
    fn run<T: Element>(&self, first: usize, count: usize) -> Cow<'a, [T]> {
        let size = size_of::<T>();
        elements(&self.bytes[first * size..(first + count) * size])
    }
}

/// Sums that were made elsewhere, in the one order.
#[derive(Clone, Debug, PartialEq)]
pub enum Sums {
    /// Of floats, or of anything as floats.
    Floats(Vec<f64>),
    /// Of integers, modulo 2^64.
    Words(Vec<u64>),
}

/// What is summed over two vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumOf {
    /// Products of floats.
    Products,
    /// Products of integers modulo 2^64.
    WrappingProducts,
    /// Squares of differences.
    SquaredDifferences,
}

/// What is added in.
pub(crate) trait Number: Copy + Default + 'static {
    /// An element in it.
    fn of<T: Element>(value: T) -> Self;

    /// The sum.
    fn plus(self, other: Self) -> Self;
}

impl Number for f64 {
    #[inline(always)]
    fn of<T: Element>(value: T) -> Self {
        value.to_f64()
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }
}

impl Number for u64 {
    #[inline(always)]
    fn of<T: Element>(value: T) -> Self {
        value.to_i64().cast_unsigned()
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

/// What becomes of two elements.
pub(crate) trait Step: 'static {
    /// What it is computed in.
    type Number: Number;

    /// The sum with two elements more. Implementations are `#[inline(always)]`.
    fn add(sum: Self::Number, left: Self::Number, right: Self::Number) -> Self::Number;
}

/// Products of floats.
pub(crate) struct Products;

impl Step for Products {
    type Number = f64;

    #[inline(always)]
    fn add(sum: f64, left: f64, right: f64) -> f64 {
        sum + left * right
    }
}

/// Products of integers modulo 2^64.
pub(crate) struct WrappingProducts;

impl Step for WrappingProducts {
    type Number = u64;

    #[inline(always)]
    fn add(sum: u64, left: u64, right: u64) -> u64 {
        sum.wrapping_add(left.wrapping_mul(right))
    }
}

/// Squares of differences.
pub(crate) struct SquaredDifferences;

impl Step for SquaredDifferences {
    type Number = f64;

    #[inline(always)]
    fn add(sum: f64, left: f64, right: f64) -> f64 {
        let difference = left - right;
        sum + difference * difference
    }
}

/// The lanes of one sum.
type Lanes<S> = [[<S as Step>::Number; GROUP]; GROUPS];
/// A part of vectors, widened.
type Widened<S> = [[<S as Step>::Number; GROUP]];

/// The sums over each of the vectors `rows` on the left with each of `columns` on the right, in C
/// order. Both have one length. Callers take no more than a panel.
pub(crate) fn sums<S: Step>(
    left: &Vectors<'_>,
    rows: Range<usize>,
    right: &Vectors<'_>,
    columns: Range<usize>,
) -> Vec<S::Number> {
    let mut lanes = vec![Lanes::<S>::default(); rows.len() * columns.len()];
    let (mut left_block, mut right_block) = (Vec::new(), Vec::new());
    for part in blocks(left.length) {
        left.widen(rows.clone(), part.clone(), &mut left_block);
        right.widen(columns.clone(), part, &mut right_block);
        simd::run(AddAll::<S> {
            lanes: &mut lanes,
            left: &left_block,
            right: &right_block,
            counts: (rows.len(), columns.len()),
        });
    }
    lanes.iter().map(tree::<S>).collect()
}

/// The sums over each of the vectors with itself. Callers take no more than a panel.
pub(crate) fn own_sums<S: Step>(vectors: &Vectors<'_>, which: Range<usize>) -> Vec<S::Number> {
    let mut lanes = vec![Lanes::<S>::default(); which.len()];
    let mut block = Vec::new();
    for part in blocks(vectors.length) {
        vectors.widen(which.clone(), part, &mut block);
        simd::run(AddOwn::<S> {
            lanes: &mut lanes,
            vectors: &block,
        });
    }
    lanes.iter().map(tree::<S>).collect()
}

fn blocks(length: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..length).step_by(BLOCK);
    starts.map(move |start| start..length.min(start + BLOCK))
}

/// Adds lanes pairwise, level by level.
fn tree<S: Step>(lanes: &Lanes<S>) -> S::Number {
    let mut level = *lanes;
    let level = level.as_flattened_mut();
    let mut count = LANES;
    while count > 1 {
        count /= 2;
        for at in 0..count {
            level[at] = level[2 * at].plus(level[2 * at + 1]);
        }
    }
    level[0]
}

/// Adds a part of the vectors to the lanes of all sums; `counts` are the vectors on either side.
struct AddAll<'a, S: Step> {
    lanes: &'a mut [Lanes<S>],
    left: &'a Widened<S>,
    right: &'a Widened<S>,
    counts: (usize, usize),
}

impl<S: Step> Kernel for AddAll<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            lanes,
            left,
            right,
            counts,
        } = self;
        let (rows, columns) = counts;
        for row in 0..rows {
            let mut column = 0;
            while column < columns {
                let at = (row, column);
                column += match columns - column {
                    WIDE.. => tile::<S, WIDE>(lanes, left, right, counts, at),
                    _ => tile::<S, 1>(lanes, left, right, counts, at),
                };
            }
        }
    }
}

/// Adds a part of vectors to the lanes of the sums over each with itself.
struct AddOwn<'a, S: Step> {
    lanes: &'a mut [Lanes<S>],
    vectors: &'a Widened<S>,
}

impl<S: Step> Kernel for AddOwn<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let width = self.vectors.len() / self.lanes.len().max(1);
        let vectors = self.vectors.chunks_exact(width.max(1));
        for (lanes, vector) in self.lanes.iter_mut().zip(vectors) {
            let lanes = std::slice::from_mut(lanes);
            tile::<S, 1>(lanes, vector, vector, (1, 1), (0, 0));
        }
    }
}

/// Adds a part of a vector on the left and `C` on the right to the lanes of their sums, which stay in
/// registers meanwhile. Returns `C`.
#[inline(always)]
fn tile<S: Step, const C: usize>(
    lanes: &mut [Lanes<S>],
    left: &Widened<S>,
    right: &Widened<S>,
    (rows, columns): (usize, usize),
    (row, column): (usize, usize),
) -> usize {
    let width = left.len() / rows;
    let left = &left[row * width..][..width];
    let right: [&Widened<S>; C] = std::array::from_fn(|c| &right[(column + c) * width..][..width]);
    let lanes = &mut lanes[row * columns + column..][..C];
    for group in 0..GROUPS {
        let mut sums = [[S::Number::default(); GROUP]; C];
        for (sums, lanes) in sums.iter_mut().zip(lanes.iter()) {
            *sums = lanes[group];
        }
        for at in (group..width).step_by(GROUPS) {
            for (sums, right) in sums.iter_mut().zip(&right) {
                let pairs = left[at].iter().zip(&right[at]);
                for (sum, (&left, &right)) in sums.iter_mut().zip(pairs) {
                    *sum = S::add(*sum, left, right);
                }
            }
        }
        for (sums, lanes) in sums.iter().zip(lanes.iter_mut()) {
            lanes[group] = *sums;
        }
    }
    C
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The order as the module says it, element by element.
    pub(crate) fn reference(left: &[f64], right: &[f64], step: fn(f64, f64) -> f64) -> f64 {
        let mut lanes = [0.0; 32];
        for (i, (a, b)) in left.iter().zip(right).enumerate() {
            lanes[i % 32] += step(*a, *b);
        }
        let mut count = 32;
        while count > 1 {
            count /= 2;
            for i in 0..count {
                lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
            }
        }
        lanes[0]
    }

    #[test]
    fn lanes_are_added_pairwise() {
        // Only 0 + 1 first, then 2 + 3, keeps the one.
        let mut values = [0.0; 32];
        values[..4].copy_from_slice(&[1e16, -1e16, 0.5, 0.5]);
        let type_ = DataType::Float64;
        let bytes = bytemuck::cast_slice(&values);
        let one = Vectors::rows(&type_, bytes, 1, 32);
        let ones = [1.0_f64; 32];
        let ones = Vectors::rows(&type_, bytemuck::cast_slice(&ones), 1, 32);
        assert_eq!(sums::<Products>(&one, 0..1, &ones, 0..1), [1.0]);
        assert_eq!(reference(&values, &[1.0; 32], |a, b| a * b), 1.0);
    }

    proptest! {
        #[test]
        fn sums_have_the_order_of_the_reference(
            length in prop_oneof![0usize..100, 500usize..1100],
            rows in 1usize..6,
            columns in 1usize..9,
            seed in any::<u64>(),
        ) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Of very different sizes, so that another order has other bits.
                let size = f64::from((state >> 58) as i32 - 32).exp2();
                ((state >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * size
            };
            let mut matrix = |count: usize| -> Vec<f64> { (0..count * length).map(|_| next()).collect() };
            let (left, right) = (matrix(rows), matrix(columns));
            let turned: Vec<f64> = (0..length * columns)
                .map(|at| right[at % columns * length + at / columns])
                .collect();
            let type_ = DataType::Float64;
            let a = Vectors::rows(&type_, bytemuck::cast_slice(&left), rows, length);
            let b = Vectors::rows(&type_, bytemuck::cast_slice(&right), columns, length);
            let b_columns = Vectors::columns(&type_, bytemuck::cast_slice(&turned), length, columns);
            let bits = |sums: Vec<f64>| sums.into_iter().map(f64::to_bits).collect::<Vec<_>>();
            let wanted = |step: fn(f64, f64) -> f64| -> Vec<u64> {
                (0..rows * columns)
                    .map(|at| {
                        let (row, column) = (at / columns * length, at % columns * length);
                        let (a, b) = (&left[row..row + length], &right[column..column + length]);
                        reference(a, b, step).to_bits()
                    })
                    .collect()
            };
            let products = wanted(|a, b| a * b);
            prop_assert_eq!(bits(sums::<Products>(&a, 0..rows, &b, 0..columns)), products.clone());
            prop_assert_eq!(bits(sums::<Products>(&a, 0..rows, &b_columns, 0..columns)), products);
            let squares = wanted(|a, b| (a - b) * (a - b));
            prop_assert_eq!(bits(sums::<SquaredDifferences>(&a, 0..rows, &b, 0..columns)), squares);
            let own: Vec<u64> = (0..rows)
                .map(|row| {
                    let row = &left[row * length..(row + 1) * length];
                    reference(row, row, |a, b| a * b).to_bits()
                })
                .collect();
            prop_assert_eq!(bits(own_sums::<Products>(&a, 0..rows)), own);
        }
    }
}
