//! Weighted reductions over any axes, as xarray's `weighted`.
//!
//! Missing values bring neither value nor weight. A total weight of 0 gives NaN, but for sums.
//! Weights may be negative or 0, not missing.
//!
//! Source: `xarray.computation.weighted` (xarray 2026.9), with weights in 64 bits. Sums are
//! double-doubles here, and where the mean is infinite the variance is NaN, as NumPy's; xarray may
//! have it infinite.

mod walk;

use array::DataType;

use crate::double::Double;
use crate::element::{elements, with_real};
use crate::{Block, Error, Merge, partial::encode};
use walk::{Squares, Sums, walk};

/// What to reduce to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are xarray's functions")]
pub enum WeightedReducer {
    Sum,
    SumOfWeights,
    SumOfSquares,
    Mean,
    Var,
    Std,
}

impl WeightedReducer {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sum,
        Self::SumOfWeights,
        Self::SumOfSquares,
        Self::Mean,
        Self::Var,
        Self::Std,
    ];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 6] = [
        "sum",
        "sum_of_weights",
        "sum_of_squares",
        "mean",
        "var",
        "std",
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether it takes differences from the mean.
    fn is_spread(self) -> bool {
        matches!(self, Self::SumOfSquares | Self::Var | Self::Std)
    }
}

impl std::str::FromStr for WeightedReducer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|reducer| reducer.name() == text);
        found.ok_or_else(|| Error::Parameter {
            name: "reduce",
            reason: format!(
                "is {text:?}, with weights known are {}",
                Self::NAMES.join(", ")
            ),
        })
    }
}

/// A weighted reduction of one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightedReduction {
    /// What to reduce to.
    pub reducer: WeightedReducer,
    /// Leave out NaN; by default so. Sums of weights leave it out in any case.
    pub skip_missing: Option<bool>,
}

impl WeightedReduction {
    /// Type of the result: `float64`, as the weights.
    ///
    /// # Errors
    /// [`Error::Undefined`] for what are not real numbers.
    pub fn data_type(&self, data_type: &DataType) -> Result<DataType, Error> {
        if data_type.is_integer() || data_type.is_float() || *data_type == DataType::Bool {
            return Ok(DataType::Float64);
        }
        Err(self.undefined(data_type))
    }

    fn undefined(&self, data_type: &DataType) -> Error {
        Error::Undefined {
            reducer: self.reducer.name(),
            data_type: data_type.to_string(),
        }
    }

    fn skips(&self) -> bool {
        self.skip_missing.unwrap_or(true)
    }
}

/// The weights of a box.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Along the axes they vary over, C order.
    pub values: &'a [f64],
    /// The axes of the box they vary over; along the others they are the same everywhere.
    pub axes: &'a [bool],
}

/// Weighted sums of the kept cells of a box. Merges in order, as [`Partial`](crate::Partial).
#[derive(Clone, Debug)]
pub struct WeightedPartial {
    reduction: WeightedReduction,
    cells: Vec<Cell>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    weight: Double,
    sum: Double,
    /// What differences are taken from: the mean, or 0 where there is none.
    pivot: f64,
    /// Weighted sum of the squares of differences.
    squares: f64,
}

impl WeightedPartial {
    /// Reduces one box.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the reducer has no meaning for the type; [`Error::Parameter`] if
    /// weights are missing, or not as many as the box has positions along their axes.
    pub fn of(
        reduction: WeightedReduction,
        block: &Block<'_>,
        weights: &Weights<'_>,
    ) -> Result<Self, Error> {
        reduction.data_type(block.data_type)?;
        let refused = |reason: &str| Error::Parameter {
            name: "weights",
            reason: reason.to_owned(),
        };
        let lengths = block.shape.iter().zip(weights.axes);
        let count: u64 = lengths
            .filter(|(_, varies)| **varies)
            .map(|(n, _)| n)
            .product();
        if weights.axes.len() != block.shape.len() || weights.values.len() as u64 != count {
            return Err(refused("have another shape than the values"));
        }
        if weights.values.iter().any(|weight| weight.is_nan()) {
            return Err(refused("are missing for some values"));
        }
        let mut partial = Self::of_nothing(reduction, block.kept());
        let skip = reduction.skips();
        with_real!(block.data_type, T => {
            let values = elements::<T>(block.bytes);
            walk(block, weights, &values, &mut Sums { skip, cells: &mut partial.cells });
            if reduction.reducer.is_spread() {
                partial.cells.iter_mut().for_each(|cell| cell.pivot = cell.mean());
                walk(block, weights, &values, &mut Squares { skip, cells: &mut partial.cells });
            }
        }, else return Err(reduction.undefined(block.data_type)));
        Ok(partial)
    }

    /// The partial of no box, over `kept` cells.
    pub fn of_nothing(reduction: WeightedReduction, kept: usize) -> Self {
        Self {
            reduction,
            cells: vec![Cell::default(); kept],
        }
    }

    /// The results, a `float64` for each kept cell, C order.
    pub fn finish(&self) -> Vec<u8> {
        let numbers = self.cells.iter().map(|cell| self.number(cell));
        encode(&DataType::Float64, numbers)
    }

    fn number(&self, cell: &Cell) -> f64 {
        let weight = match cell.weight.to_f64() {
            0.0 => f64::NAN,
            weight => weight,
        };
        match self.reduction.reducer {
            WeightedReducer::Sum => cell.sum.to_f64(),
            WeightedReducer::SumOfWeights => weight,
            WeightedReducer::Mean => cell.sum.to_f64() / weight,
            // Without a mean all differences are missing.
            WeightedReducer::SumOfSquares if weight.is_nan() && self.reduction.skips() => 0.0,
            WeightedReducer::SumOfSquares if weight.is_nan() => f64::NAN,
            WeightedReducer::SumOfSquares => cell.squares,
            WeightedReducer::Var => cell.squares / weight,
            WeightedReducer::Std => (cell.squares / weight).sqrt(),
        }
    }
}

impl WeightedPartial {}

impl Merge for WeightedPartial {
    fn merge(&mut self, later: &Self) {
        debug_assert_eq!(self.reduction, later.reduction, "partials of one reduction");
        let is_spread = self.reduction.reducer.is_spread();
        for (cell, later) in self.cells.iter_mut().zip(&later.cells) {
            cell.merge(later, is_spread);
        }
    }
}

impl Cell {
    fn merge(&mut self, later: &Self, is_spread: bool) {
        let mut both = *self;
        both.weight.merge(later.weight);
        both.sum.merge(later.sum);
        if is_spread {
            both.pivot = both.mean();
            both.squares = self.squares_about(both.pivot) + later.squares_about(both.pivot);
        }
        *self = both;
    }

    fn mean(&self) -> f64 {
        match self.weight.to_f64() {
            0.0 => 0.0,
            weight => self.sum.to_f64() / weight,
        }
    }

    /// The weighted squares of differences from another pivot `p`:
    /// `Σ w (x − p)² = Σ w (x − q)² + 2 (q − p) Σ w (x − q) + (q − p)² Σ w`.
    fn squares_about(&self, pivot: f64) -> f64 {
        if !pivot.is_finite() {
            return f64::NAN;
        }
        let shift = self.pivot - pivot;
        let mut first = self.weight.times(-self.pivot);
        first.merge(self.sum);
        self.squares + shift * (2.0 * first.to_f64() + shift * self.weight.to_f64())
    }
}
