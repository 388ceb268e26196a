//! Counts of valid values, and whether any or all are true.

use super::each;
use crate::block::Fold;
use crate::element::Element;

/// How many values are missing.
#[inline(always)]
pub(super) fn missing<T: Element>(values: &[T]) -> u64 {
    // Short sums in 32 bits vectorise better than one in 64.
    let count = |part: &[T]| {
        part.iter()
            .map(|value| u32::from(value.is_missing()))
            .sum::<u32>()
    };
    values
        .chunks(1 << 16)
        .map(|part| u64::from(count(part)))
        .sum()
}

/// Numbers of values that are neither NaN nor NaT.
#[derive(Clone, Debug)]
pub(crate) struct Counts(Vec<u64>);

impl Counts {
    pub(crate) fn new(kept: usize) -> Self {
        Self(vec![0; kept])
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(counts: impl Iterator<Item = u64>) -> Self {
        Self(counts.collect())
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.0, &later.0, |a, b| *a += b);
    }

    pub(crate) fn counts(&self) -> &[u64] {
        &self.0
    }
}

impl<T: Element> Fold<T> for Counts {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        self.0[cell] += values.len() as u64 - missing(values);
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        for (count, value) in self.0[first_cell..].iter_mut().zip(values) {
            *count += u64::from(!value.is_missing());
        }
    }
}

/// Whether any, or all, values are true: not 0. NaN is true.
#[derive(Clone, Debug)]
pub(crate) struct Truths {
    wants_all: bool,
    cells: Vec<bool>,
}

impl Truths {
    pub(crate) fn new(kept: usize, wants_all: bool) -> Self {
        Self {
            wants_all,
            cells: vec![wants_all; kept],
        }
    }

    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(wants_all: bool, cells: impl Iterator<Item = bool>) -> Self {
        Self {
            wants_all,
            cells: cells.collect(),
        }
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        let wants_all = self.wants_all;
        each(&mut self.cells, &later.cells, |a, b| {
            *a = if wants_all { *a & b } else { *a | b };
        });
    }

    pub(crate) fn truths(&self) -> &[bool] {
        &self.cells
    }
}

impl<T: Element> Fold<T> for Truths {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        // The value that settles the answer.
        let settling = !self.wants_all;
        if self.cells[cell] != settling && values.iter().any(|&value| is_true(value) == settling) {
            self.cells[cell] = settling;
        }
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        for (cell, &value) in self.cells[first_cell..].iter_mut().zip(values) {
            let truth = is_true(value);
            *cell = if self.wants_all {
                *cell & truth
            } else {
                *cell | truth
            };
        }
    }
}

#[inline(always)]
fn is_true<T: Element>(value: T) -> bool {
    value.to_f64() != 0.0
}
