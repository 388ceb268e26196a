//! Least and greatest values, and where they are.
//!
//! NumPy's rule: the first of equal values; a missing one counts as both least and greatest unless
//! missing ones are left out.

use crate::block::{Block, Fold};
use crate::element::Element;

/// Which extreme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// The least, not the greatest.
    pub(crate) least: bool,
    /// Leave missing values out.
    pub(crate) skip: bool,
}

/// The extremes of cells, as elements of some type, and where they were found.
#[derive(Clone, Debug)]
pub(crate) struct Extremes {
    order: Order,
    kept: usize,
    /// The elements back to back, in words so that any element type is aligned.
    words: Vec<u64>,
    positions: Option<Vec<u64>>,
}

/// The position of nothing.
const NOWHERE: u64 = u64::MAX;

impl Extremes {
    /// The extremes of no values.
    pub(crate) fn new<T: Element>(kept: usize, order: Order, with_positions: bool) -> Self {
        let nothing = match order {
            Order { skip: true, .. } => T::MISSING,
            Order { least: true, .. } => T::HIGHEST,
            Order { least: false, .. } => T::LOWEST,
        };
        let mut extremes = Self {
            order,
            kept,
            words: vec![0; (kept * size_of::<T>()).div_ceil(size_of::<u64>())],
            positions: with_positions.then(|| vec![NOWHERE; kept]),
        };
        extremes.values_mut::<T>().0.fill(nothing);
        extremes
    }

    /// Of what was found in each cell, with its position in the selection.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts<T: Element>(
        order: Order,
        with_positions: bool,
        found: impl ExactSizeIterator<Item = Option<(T, u64)>>,
    ) -> Self {
        let mut extremes = Self::new::<T>(found.len(), order, with_positions);
        for (cell, found) in found.enumerate() {
            let Some((value, position)) = found else {
                continue;
            };
            let (values, positions) = extremes.values_mut::<T>();
            values[cell] = value;
            if let Some(positions) = positions {
                positions[cell] = position;
            }
        }
        extremes
    }

    /// Takes the values of a box; positions count in the reduced axes of the selection.
    pub(crate) fn fold<T: Element>(&mut self, block: &Block<'_>, values: &[T]) {
        match (self.order.least, self.order.skip) {
            (true, true) => self.fold_as::<T, true, true>(block, values),
            (true, false) => self.fold_as::<T, true, false>(block, values),
            (false, true) => self.fold_as::<T, false, true>(block, values),
            (false, false) => self.fold_as::<T, false, false>(block, values),
        }
        for position in self.positions.iter_mut().flatten() {
            if *position != NOWHERE {
                *position = block.position(*position);
            }
        }
    }

    fn fold_as<T: Element, const LEAST: bool, const SKIP: bool>(
        &mut self,
        block: &Block<'_>,
        values: &[T],
    ) {
        match self.values_mut::<T>() {
            (cells, None) => block.fold(values, &mut Values::<T, LEAST, SKIP> { cells }),
            (cells, Some(positions)) => {
                block.fold(values, &mut Found::<T, LEAST, SKIP> { cells, positions });
            }
        }
    }

    /// Takes the extremes of the same cells in another box.
    pub(crate) fn merge<T: Element>(&mut self, later: &Self) {
        match (self.order.least, self.order.skip) {
            (true, true) => self.merge_as::<T, true, true>(later),
            (true, false) => self.merge_as::<T, true, false>(later),
            (false, true) => self.merge_as::<T, false, true>(later),
            (false, false) => self.merge_as::<T, false, false>(later),
        }
    }

    fn merge_as<T: Element, const LEAST: bool, const SKIP: bool>(&mut self, later: &Self) {
        let (cells, positions) = self.values_mut::<T>();
        let candidates = later.values::<T>();
        let (Some(positions), Some(later_positions)) = (positions, &later.positions) else {
            for (nth, &candidate) in candidates.iter().enumerate() {
                let cell = &mut cells[nth];
                if beats::<T, LEAST, SKIP>(candidate, *cell) {
                    *cell = candidate;
                }
            }
            return;
        };
        let candidates = candidates.iter().zip(later_positions);
        for (nth, (&candidate, &found)) in candidates.enumerate() {
            let (cell, position) = (&mut cells[nth], &mut positions[nth]);
            // The chunks of a selection that lists positions come in another order than those, so
            // of equal values the later partial may hold the first.
            let is_first = beats::<T, LEAST, SKIP>(candidate, *cell)
                || (!beats::<T, LEAST, SKIP>(*cell, candidate) && found < *position);
            if found != NOWHERE && (*position == NOWHERE || is_first) {
                (*cell, *position) = (candidate, found);
            }
        }
    }

    /// The extremes.
    pub(crate) fn values<T: Element>(&self) -> &[T] {
        &bytemuck::cast_slice(&self.words)[..self.kept]
    }

    fn values_mut<T: Element>(&mut self) -> (&mut [T], Option<&mut [u64]>) {
        let values = &mut bytemuck::cast_slice_mut(&mut self.words)[..self.kept];
        (values, self.positions.as_deref_mut())
    }

    /// Where they are; `None` where there is no value.
    pub(crate) fn positions(&self) -> impl Iterator<Item = Option<u64>> + '_ {
        let positions = self.positions.iter().flatten();
        positions.map(|&position| (position != NOWHERE).then_some(position))
    }
}

/// Whether `candidate` replaces `current`, which came first.
#[inline(always)]
fn beats<T: Element, const LEAST: bool, const SKIP: bool>(candidate: T, current: T) -> bool {
    let ahead = if LEAST {
        candidate < current
    } else {
        candidate > current
    };
    if SKIP {
        !candidate.is_missing() && (ahead || current.is_missing())
    } else {
        !current.is_missing() && (ahead || candidate.is_missing())
    }
}

/// The extreme of `values` and `start`.
#[inline(always)]
fn extreme<T: Element, const LEAST: bool, const SKIP: bool>(start: T, values: &[T]) -> T {
    const LANES: usize = 16;
    let better = |best: T, value: T| {
        if beats::<T, LEAST, SKIP>(value, best) {
            value
        } else {
            best
        }
    };
    if values.len() < 2 * LANES {
        return values
            .iter()
            .fold(start, |best, &value| better(best, value));
    }
    let mut lanes = [start; LANES];
    let (groups, rest) = values.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            lanes[lane] = better(lanes[lane], group[lane]);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(start, |best, &value| better(best, value))
}

/// Extremes without positions.
struct Values<'a, T, const LEAST: bool, const SKIP: bool> {
    cells: &'a mut [T],
}

impl<T: Element, const LEAST: bool, const SKIP: bool> Fold<T> for Values<'_, T, LEAST, SKIP> {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        self.cells[cell] = extreme::<T, LEAST, SKIP>(self.cells[cell], values);
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        for (cell, &value) in self.cells[first_cell..].iter_mut().zip(values) {
            *cell = if beats::<T, LEAST, SKIP>(value, *cell) {
                value
            } else {
                *cell
            };
        }
    }
}

/// Extremes and the ordinals of their first occurrences.
struct Found<'a, T, const LEAST: bool, const SKIP: bool> {
    cells: &'a mut [T],
    positions: &'a mut [u64],
}

impl<T: Element, const LEAST: bool, const SKIP: bool> Fold<T> for Found<'_, T, LEAST, SKIP> {
    #[inline(always)]
    fn one(&mut self, cell: usize, ordinal: u64, values: &[T]) {
        let Some(first) = values
            .iter()
            .position(|value| !(SKIP && value.is_missing()))
        else {
            return;
        };
        // The value first, in vectors; then where it is.
        let best = extreme::<T, LEAST, SKIP>(values[first], &values[first..]);
        if self.positions[cell] == NOWHERE || beats::<T, LEAST, SKIP>(best, self.cells[cell]) {
            let is_best = |value: &T| *value == best || (value.is_missing() && best.is_missing());
            let at = values.iter().position(is_best).unwrap_or(first);
            self.cells[cell] = best;
            self.positions[cell] = ordinal + at as u64;
        }
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, ordinal: u64, values: &[T]) {
        let cells = self.cells[first_cell..].iter_mut();
        let cells = cells.zip(&mut self.positions[first_cell..]);
        for ((cell, position), &value) in cells.zip(values) {
            let takes = if *position == NOWHERE {
                !(SKIP && value.is_missing())
            } else {
                beats::<T, LEAST, SKIP>(value, *cell)
            };
            if takes {
                (*cell, *position) = (value, ordinal);
            }
        }
    }
}
