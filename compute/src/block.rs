//! A box of elements, walked in runs of neighbours.
//!
//! Neighbouring axes that are all kept, or all reduced, act as one, so the walk has few and long
//! runs whatever the shape. Every kept cell meets its elements in C order.

use crate::simd::{self, Kernel};

/// A dense box of decoded elements and its place in the selection.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Type of the elements.
    pub data_type: &'a array::DataType,
    /// The elements, C order.
    pub bytes: &'a [u8],
    /// Length along each axis.
    pub shape: &'a [u64],
    /// Which axes are reduced.
    pub reduced: &'a [bool],
    /// Places of the box's cells in the selection, along each axis, ascending.
    pub places: &'a [Vec<u64>],
    /// Lengths of the whole selection: positions `argmin` and `argmax` give count in its reduced
    /// axes, C order.
    pub selection_shape: &'a [u64],
}

/// Takes the elements of a box.
///
/// `ordinal` is the position of the first element in the reduced axes of the box, C order. Both
/// functions are `#[inline(always)]`, as parts of a kernel.
pub(crate) trait Fold<T> {
    /// Takes neighbours that all go into one kept cell; their ordinals ascend by 1.
    fn one(&mut self, cell: usize, ordinal: u64, values: &[T]);

    /// Takes neighbours that go into consecutive kept cells; all have the same ordinal.
    fn each(&mut self, first_cell: usize, ordinal: u64, values: &[T]);
}

/// Neighbouring axes that act as one.
#[derive(Clone, Copy, Debug)]
struct Axis {
    length: usize,
    is_reduced: bool,
    /// Cells, or ordinals if reduced, from one position to the next.
    stride: usize,
}

/// Cells walked at once where rows go into the same cells again and again: their accumulators, at
/// most 32 bytes each, stay in the first-level cache.
const TILE: usize = 1024;

impl Block<'_> {
    /// Number of kept cells.
    pub(crate) fn kept(&self) -> usize {
        let lengths = self.shape.iter().zip(self.reduced);
        lengths
            .filter(|(_, reduced)| !**reduced)
            .map(|(&length, _)| length as usize)
            .product()
    }

    /// Gives every element to `fold`, in a kernel. `values` are the elements of the box.
    pub(crate) fn fold<T>(&self, values: &[T], fold: &mut impl Fold<T>) {
        simd::run(Folding {
            block: self,
            values,
            fold,
        });
    }

    #[inline(always)]
    fn fold_plainly<T>(&self, values: &[T], fold: &mut impl Fold<T>) {
        let mut axes = self.axes();
        let Some(last) = axes.pop() else {
            fold.one(0, 0, values);
            return;
        };
        // Rows that go into the same cells are walked together, in tiles.
        let rows = match axes.pop() {
            Some(rows) if rows.is_reduced => rows.length,
            Some(other) => {
                axes.push(other);
                1
            }
            None => 1,
        };
        let Some(size) = rows.checked_mul(last.length).filter(|&size| size > 0) else {
            return;
        };
        let mut walk = Walk::new(axes);
        for matrix in values.chunks_exact(size) {
            if last.is_reduced {
                fold.one(walk.cell, walk.ordinal as u64, matrix);
            } else {
                for start in (0..last.length).step_by(TILE) {
                    let end = last.length.min(start + TILE);
                    for (row, values) in matrix.chunks_exact(last.length).enumerate() {
                        let ordinal = (walk.ordinal + row) as u64;
                        fold.each(walk.cell + start, ordinal, &values[start..end]);
                    }
                }
            }
            walk.advance();
        }
    }

    fn axes(&self) -> Vec<Axis> {
        let mut axes: Vec<Axis> = Vec::new();
        for (&length, &is_reduced) in self.shape.iter().zip(self.reduced) {
            let length = length as usize;
            match axes.last_mut() {
                _ if length == 1 => {}
                Some(last) if last.is_reduced == is_reduced => last.length *= length,
                _ => axes.push(Axis {
                    length,
                    is_reduced,
                    stride: 0,
                }),
            }
        }
        let (mut cells, mut ordinals) = (1, 1);
        for axis in axes.iter_mut().rev() {
            let below = if axis.is_reduced {
                &mut ordinals
            } else {
                &mut cells
            };
            axis.stride = *below;
            *below *= axis.length;
        }
        axes
    }

    /// Turns an ordinal of the box into a position in the reduced axes of the selection.
    ///
    /// Ascends with the ordinal, because places do.
    pub(crate) fn position(&self, mut ordinal: u64) -> u64 {
        let (mut position, mut stride) = (0u64, 1u64);
        for axis in (0..self.shape.len())
            .rev()
            .filter(|&axis| self.reduced[axis])
        {
            let place = self.places[axis][(ordinal % self.shape[axis]) as usize];
            ordinal /= self.shape[axis];
            // Saturates only for selections of more than 2^64 cells, which no walk ends.
            position = position.saturating_add(place.saturating_mul(stride));
            stride = stride.saturating_mul(self.selection_shape[axis]);
        }
        position
    }
}

/// The walk over a box, as a kernel.
struct Folding<'a, T, F> {
    block: &'a Block<'a>,
    values: &'a [T],
    fold: &'a mut F,
}

impl<T, F: Fold<T>> Kernel for Folding<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.block.fold_plainly(self.values, self.fold);
    }
}

/// Counts through axes in C order.
struct Walk {
    axes: Vec<Axis>,
    at: Vec<usize>,
    cell: usize,
    ordinal: usize,
}

impl Walk {
    fn new(axes: Vec<Axis>) -> Self {
        Self {
            at: vec![0; axes.len()],
            axes,
            cell: 0,
            ordinal: 0,
        }
    }

    fn advance(&mut self) {
        for (axis, at) in self.axes.iter().zip(&mut self.at).rev() {
            let place = if axis.is_reduced {
                &mut self.ordinal
            } else {
                &mut self.cell
            };
            *at += 1;
            *place += axis.stride;
            if *at < axis.length {
                return;
            }
            *place -= axis.stride * axis.length;
            *at = 0;
        }
    }
}
