//! The walk over a box and its weights.

use super::{Cell, Weights};
use crate::Block;
use crate::double::Double;
use crate::element::Element;
use crate::simd::{self, Kernel};

/// Takes runs of values, each with a weight.
pub(super) trait Take<T> {
    /// Takes neighbours that go into one cell. `weight` gives that of each.
    fn one(&mut self, cell: usize, values: &[T], weight: impl Fn(usize) -> f64);

    /// Takes neighbours that go into consecutive cells.
    fn each(&mut self, first_cell: usize, values: &[T], weight: impl Fn(usize) -> f64);
}

/// Independent sums of one run.
const LANES: usize = 8;

/// Neighbouring axes that act as one.
#[derive(Clone, Copy, Debug)]
struct Axis {
    length: usize,
    is_reduced: bool,
    has_weights: bool,
    cells: usize,
    weights: usize,
}

/// Gives all values and their weights to `take`, in C order.
pub(super) fn walk<T: Element>(
    block: &Block<'_>,
    weights: &Weights<'_>,
    values: &[T],
    take: &mut impl Take<T>,
) {
    simd::run(Walk {
        axes: axes(block, weights),
        weights: weights.values,
        values,
        take,
    });
}

fn axes(block: &Block<'_>, weights: &Weights<'_>) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for ((&length, &is_reduced), &has_weights) in
        block.shape.iter().zip(block.reduced).zip(weights.axes)
    {
        let length = length as usize;
        match axes.last_mut() {
            _ if length == 1 => {}
            Some(last) if (last.is_reduced, last.has_weights) == (is_reduced, has_weights) => {
                last.length *= length;
            }
            _ => axes.push(Axis {
                length,
                is_reduced,
                has_weights,
                cells: 0,
                weights: 0,
            }),
        }
    }
    let (mut cells, mut positions) = (1, 1);
    for axis in axes.iter_mut().rev() {
        if !axis.is_reduced {
            axis.cells = cells;
            cells *= axis.length;
        }
        if axis.has_weights {
            axis.weights = positions;
            positions *= axis.length;
        }
    }
    axes
}

struct Walk<'a, T, F> {
    axes: Vec<Axis>,
    weights: &'a [f64],
    values: &'a [T],
    take: &'a mut F,
}

impl<T: Element, F: Take<T>> Kernel for Walk<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let last = self.axes.pop().unwrap_or(Axis {
            length: 1,
            is_reduced: true,
            has_weights: false,
            cells: 0,
            weights: 0,
        });
        if last.length == 0 {
            return;
        }
        let mut at = vec![0; self.axes.len()];
        let (mut cell, mut place) = (0, 0);
        for row in self.values.chunks_exact(last.length) {
            match (last.is_reduced, last.has_weights) {
                (true, true) => {
                    let weights = &self.weights[place..place + row.len()];
                    self.take.one(cell, row, |nth| weights[nth]);
                }
                (true, false) => {
                    let weight = self.weights[place];
                    self.take.one(cell, row, |_| weight);
                }
                (false, true) => {
                    let weights = &self.weights[place..place + row.len()];
                    self.take.each(cell, row, |nth| weights[nth]);
                }
                (false, false) => {
                    let weight = self.weights[place];
                    self.take.each(cell, row, |_| weight);
                }
            }
            for (axis, at) in self.axes.iter().zip(&mut at).rev() {
                *at += 1;
                cell += axis.cells;
                place += axis.weights;
                if *at < axis.length {
                    break;
                }
                cell -= axis.cells * axis.length;
                place -= axis.weights * axis.length;
                *at = 0;
            }
        }
    }
}

/// Sums of weights, and of values times weights.
pub(super) struct Sums<'a> {
    pub(super) skip: bool,
    pub(super) cells: &'a mut [Cell],
}

impl Sums<'_> {
    /// The weight a value brings, and the product.
    #[inline(always)]
    fn terms<T: Element>(value: T, weight: f64, skip: bool) -> (f64, f64) {
        match value.is_missing() {
            false => (weight, value.to_f64() * weight),
            true if skip => (0.0, 0.0),
            true => (0.0, f64::NAN),
        }
    }
}

impl<T: Element> Take<T> for Sums<'_> {
    #[inline(always)]
    fn one(&mut self, cell: usize, values: &[T], weight: impl Fn(usize) -> f64) {
        let mut lanes = [(Double::default(), Double::default()); LANES];
        for (group, values) in values.chunks(LANES).enumerate() {
            for (nth, &value) in values.iter().enumerate() {
                let weight = weight(group * LANES + nth);
                let (weight, product) = Self::terms(value, weight, self.skip);
                lanes[nth].0.add(weight);
                lanes[nth].1.add(product);
            }
        }
        for (weight, sum) in lanes {
            self.cells[cell].weight.merge(weight);
            self.cells[cell].sum.merge(sum);
        }
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, values: &[T], weight: impl Fn(usize) -> f64) {
        let cells = self.cells[first_cell..].iter_mut();
        for (nth, (cell, &value)) in cells.zip(values).enumerate() {
            let (weight, product) = Self::terms(value, weight(nth), self.skip);
            cell.weight.add(weight);
            cell.sum.add(product);
        }
    }
}

/// Sums of squares of differences from the pivots, times weights.
pub(super) struct Squares<'a> {
    pub(super) skip: bool,
    pub(super) cells: &'a mut [Cell],
}

impl Squares<'_> {
    #[inline(always)]
    fn term<T: Element>(value: T, pivot: f64, weight: f64, skip: bool) -> f64 {
        let difference = value.to_f64() - pivot;
        if skip && value.is_missing() {
            0.0
        } else {
            difference * difference * weight
        }
    }
}

impl<T: Element> Take<T> for Squares<'_> {
    #[inline(always)]
    fn one(&mut self, cell: usize, values: &[T], weight: impl Fn(usize) -> f64) {
        let mut lanes = [0.0; LANES];
        let pivot = self.cells[cell].pivot;
        for (group, values) in values.chunks(LANES).enumerate() {
            for (nth, &value) in values.iter().enumerate() {
                let weight = weight(group * LANES + nth);
                lanes[nth] += Self::term(value, pivot, weight, self.skip);
            }
        }
        self.cells[cell].squares += lanes.iter().sum::<f64>();
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, values: &[T], weight: impl Fn(usize) -> f64) {
        let cells = self.cells[first_cell..].iter_mut();
        for (nth, (cell, &value)) in cells.zip(values).enumerate() {
            cell.squares += Self::term(value, cell.pivot, weight(nth), self.skip);
        }
    }
}
