//! Products: modulo 2^64 for integers, as NumPy's; in 64-bit floats for the others.

use super::each;
use crate::block::Fold;
use crate::element::Element;

/// Products in 64-bit floats, and how many values went into each.
#[derive(Clone, Debug)]
pub(crate) struct Products {
    skip: bool,
    cells: Vec<(u64, f64)>,
}

impl Products {
    pub(crate) fn new(kept: usize, skip: bool) -> Self {
        Self {
            skip,
            cells: vec![(0, 1.0); kept],
        }
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.cells, &later.cells, |a, b| {
            *a = (a.0 + b.0, a.1 * b.1);
        });
    }

    /// Each cell's count and product.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.cells.iter().copied()
    }

    #[inline(always)]
    fn push<T: Element>(&mut self, cell: usize, value: T) {
        if !(self.skip && value.is_missing()) {
            let (count, product) = &mut self.cells[cell];
            *count += 1;
            *product *= value.to_f64();
        }
    }
}

impl<T: Element> Fold<T> for Products {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        values.iter().for_each(|&value| self.push(cell, value));
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        for (nth, &value) in values.iter().enumerate() {
            self.push(first_cell + nth, value);
        }
    }
}

/// Products modulo 2^64, of signed and unsigned integers alike.
#[derive(Clone, Debug)]
pub(crate) struct IntegerProducts(Vec<u64>);

impl IntegerProducts {
    pub(crate) fn new(kept: usize) -> Self {
        Self(vec![1; kept])
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.0, &later.0, |a, b| *a = a.wrapping_mul(b));
    }

    pub(crate) fn products(&self) -> &[u64] {
        &self.0
    }
}

impl<T: Element> Fold<T> for IntegerProducts {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        let product = &mut self.0[cell];
        for value in values {
            *product = product.wrapping_mul(value.to_i128() as u64);
        }
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        for (product, value) in self.0[first_cell..].iter_mut().zip(values) {
            *product = product.wrapping_mul(value.to_i128() as u64);
        }
    }
}

/// Products of complex numbers, real and imaginary part in 64-bit floats, and how many values went
/// into each.
#[derive(Clone, Debug)]
pub(crate) struct ComplexProducts {
    skip: bool,
    cells: Vec<(u64, [f64; 2])>,
}

impl ComplexProducts {
    pub(crate) fn new(kept: usize, skip: bool) -> Self {
        Self {
            skip,
            cells: vec![(0, [1.0, 0.0]); kept],
        }
    }

    pub(crate) fn merge(&mut self, later: &Self) {
        each(&mut self.cells, &later.cells, take);
    }

    /// Each cell's count and product.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, [f64; 2])> + '_ {
        self.cells.iter().copied()
    }

    #[inline(always)]
    fn push<T: Element>(&mut self, cell: usize, [re, im]: [T; 2]) {
        if !(self.skip && (re.is_missing() || im.is_missing())) {
            take(&mut self.cells[cell], (1, [re.to_f64(), im.to_f64()]));
        }
    }
}

impl<T: Element> Fold<[T; 2]> for ComplexProducts {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[[T; 2]]) {
        values.iter().for_each(|&value| self.push(cell, value));
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[[T; 2]]) {
        for (nth, &value) in values.iter().enumerate() {
            self.push(first_cell + nth, value);
        }
    }
}

/// Multiplies by another count and product. That of no values is not a factor: infinity times
/// `1 + 0i` would be NaN.
#[inline(always)]
fn take(product: &mut (u64, [f64; 2]), other: (u64, [f64; 2])) {
    let ((n_a, a), (n_b, b)) = (*product, other);
    *product = match (n_a, n_b) {
        (_, 0) => return,
        (0, _) => other,
        _ => (
            n_a + n_b,
            [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]],
        ),
    };
}
