//! Sums of squared differences from the mean, for `std` and `var`.

use super::run::{self, Lanes};
use super::{LANES, Sums};
use crate::block::{Block, Fold};
use crate::element::Element;

/// Counts, sums and sums of squared differences from the mean.
#[derive(Clone, Debug)]
pub(crate) struct Spreads {
    skip: bool,
    sums: Sums,
    squares: Vec<f64>,
}

impl Spreads {
    /// Walks the box twice: for the means, then for the differences from them.
    pub(crate) fn of<T: Element>(block: &Block<'_>, values: &[T], skip: bool) -> Self {
        let mut sums = Sums::new(block.kept(), skip);
        block.fold(values, &mut sums);
        let mut differences = Differences {
            skip,
            means: sums.iter().map(|(count, sum)| sum / count as f64).collect(),
            squares: vec![0.0; block.kept()],
        };
        block.fold(values, &mut differences);
        Self {
            skip,
            sums,
            squares: differences.squares,
        }
    }

    /// Of sums, and squared differences from their means.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(skip: bool, sums: Sums, squares: Vec<f64>) -> Self {
        Self {
            skip,
            sums,
            squares,
        }
    }

    /// Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
    /// sample variances", 1979. The difference of the means is taken between double-doubles:
    /// between rounded means it would lose what `values` far from 0 have in common.
    pub(crate) fn merge(&mut self, later: &Self) {
        for cell in 0..later.squares.len() {
            let squares = &mut self.squares[cell];
            let (n_a, n_b) = (self.sums.count(cell) as f64, later.sums.count(cell) as f64);
            *squares += later.squares[cell];
            if n_a > 0.0 && n_b > 0.0 {
                let mut delta = later.sums.get(cell).times(n_a);
                delta.merge(self.sums.get(cell).times(-n_b));
                let delta = delta.to_f64() / (n_a * n_b);
                *squares += delta * delta * (n_a * n_b / (n_a + n_b));
            }
        }
        self.sums.merge(&later.sums);
    }

    /// The spreads of complex numbers, of whose parts these are.
    pub(crate) fn together(&self, imaginary: &Self) -> Self {
        let mut both = self.clone();
        let parts = both.squares.iter_mut().zip(&imaginary.squares);
        parts.for_each(|(squares, other)| *squares += other);
        both
    }

    /// The variances, divided by `n − ddof`. Where that is not positive they are NaN if NaN is left
    /// out, else divided by 0, as NumPy's `nanvar` and `var`.
    pub(crate) fn variances(&self, ddof: u32) -> impl Iterator<Item = f64> + '_ {
        let cells = self.sums.iter().zip(&self.squares);
        cells.map(move |((count, _), &squares)| {
            let freedom = count as f64 - f64::from(ddof);
            if self.skip && freedom <= 0.0 {
                f64::NAN
            } else {
                squares / freedom.max(0.0)
            }
        })
    }
}

/// The second walk.
struct Differences {
    skip: bool,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl<T: Element> Fold<T> for Differences {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        let mean = self.means[cell];
        let square = |value: T| square(value, mean, self.skip);
        self.squares[cell] += run::total::<T, PlainLanes>(values, square);
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        let cells = first_cell..first_cell + values.len();
        let spreads = self.squares[cells.clone()]
            .iter_mut()
            .zip(&self.means[cells]);
        for (&value, (squares, &mean)) in values.iter().zip(spreads) {
            *squares += square(value, mean, self.skip);
        }
    }
}

/// A sum in each lane.
#[derive(Clone, Copy, Default)]
struct PlainLanes([f64; LANES]);

impl Lanes for PlainLanes {
    type Total = f64;

    #[inline(always)]
    fn add(self, numbers: [f64; LANES]) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + numbers[lane]))
    }

    #[inline(always)]
    fn merge(self, later: Self) -> Self {
        self.add(later.0)
    }

    #[inline(always)]
    fn together(self) -> f64 {
        let mut lanes = self.0;
        for step in [4, 2, 1] {
            for lane in 0..step {
                lanes[lane] += lanes[lane + step];
            }
        }
        lanes[0]
    }

    #[inline(always)]
    fn follow(earlier: f64, later: f64) -> f64 {
        earlier + later
    }
}

#[inline(always)]
fn square<T: Element>(value: T, mean: f64, skip: bool) -> f64 {
    let difference = value.to_f64() - mean;
    if skip && value.is_missing() {
        0.0
    } else {
        difference * difference
    }
}
