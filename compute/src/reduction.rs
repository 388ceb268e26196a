//! What to reduce to, and the type of the answer.

use array::DataType;

use crate::Error;

/// What to reduce to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are NumPy's functions")]
pub enum Reducer {
    Sum,
    Prod,
    Mean,
    Min,
    Max,
    Count,
    Std,
    Var,
    Any,
    All,
    ArgMin,
    ArgMax,
}

impl Reducer {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Sum,
        Self::Prod,
        Self::Mean,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Std,
        Self::Var,
        Self::Any,
        Self::All,
        Self::ArgMin,
        Self::ArgMax,
    ];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 12] = [
        "sum", "prod", "mean", "min", "max", "count", "std", "var", "any", "all", "argmin",
        "argmax",
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl std::str::FromStr for Reducer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|reducer| reducer.name() == text);
        found.ok_or_else(|| Error::UnknownReducer {
            name: text.to_owned(),
        })
    }
}

/// A reduction of one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reduction {
    /// What to reduce to.
    pub reducer: Reducer,
    /// Leave out NaN and NaT; by default for floats and complex numbers.
    pub skip_missing: Option<bool>,
    /// Delta degrees of freedom of `std` and `var`: they divide by `n − ddof`.
    pub ddof: u32,
    /// Fewest valid values a sum or product needs; with fewer it is NaN. Only where NaN is left
    /// out, as xarray has it.
    pub min_count: u64,
    /// Give the accumulator as `float64`, or `complex128`, whatever the array's type.
    pub as_float64: bool,
}

impl Reduction {
    /// The reduction with xarray's defaults.
    pub fn new(reducer: Reducer) -> Self {
        Self {
            reducer,
            skip_missing: None,
            ddof: 0,
            min_count: 0,
            as_float64: false,
        }
    }

    /// Type of the result, as xarray has it: sums and products of integers widen to 64 bits, their
    /// means are `float64`, floats keep their type, variances of complex numbers are real.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the reducer has no meaning for `data_type`: sums of times, extremes
    /// of complex numbers, anything of text.
    pub fn data_type(&self, data_type: &DataType) -> Result<DataType, Error> {
        if !self.is_defined(data_type) {
            return Err(self.undefined(data_type));
        }
        let natural = self.natural_data_type(data_type);
        Ok(match natural {
            natural if !self.as_float64 || is_time(data_type) || self.is_about_cells() => natural,
            natural if natural.is_complex() => DataType::Complex128,
            _ => DataType::Float64,
        })
    }

    pub(crate) fn undefined(&self, data_type: &DataType) -> Error {
        Error::Undefined {
            reducer: self.reducer.name(),
            data_type: data_type.to_string(),
        }
    }

    fn natural_data_type(&self, data_type: &DataType) -> DataType {
        match self.reducer {
            Reducer::Count | Reducer::ArgMin | Reducer::ArgMax => DataType::Int64,
            Reducer::Any | Reducer::All => DataType::Bool,
            Reducer::Min | Reducer::Max => data_type.clone(),
            Reducer::Std | Reducer::Var if *data_type == DataType::Complex64 => DataType::Float32,
            Reducer::Std | Reducer::Var if data_type.is_complex() => DataType::Float64,
            _ if data_type.is_float() || data_type.is_complex() => data_type.clone(),
            Reducer::Sum | Reducer::Prod if data_type.is_unsigned_integer() => DataType::UInt64,
            Reducer::Sum | Reducer::Prod => DataType::Int64,
            Reducer::Mean | Reducer::Std | Reducer::Var => DataType::Float64,
        }
    }

    fn is_defined(&self, data_type: &DataType) -> bool {
        if is_time(data_type) {
            return self.is_extreme() || self.is_about_cells();
        }
        let is_real =
            data_type.is_integer() || data_type.is_float() || *data_type == DataType::Bool;
        is_real || (data_type.is_complex() && !self.is_extreme())
    }

    /// Whether it needs at least one value.
    pub(crate) fn is_extreme(&self) -> bool {
        matches!(self.reducer, Reducer::Min | Reducer::Max) || self.is_position()
    }

    /// Whether it answers where, not what.
    pub fn is_position(&self) -> bool {
        matches!(self.reducer, Reducer::ArgMin | Reducer::ArgMax)
    }

    /// Whether the answer is a number or a property of cells, not one of their values.
    fn is_about_cells(&self) -> bool {
        matches!(self.reducer, Reducer::Count | Reducer::Any | Reducer::All) || self.is_position()
    }

    /// Whether missing values of `data_type` are left out.
    pub(crate) fn skips(&self, data_type: &DataType) -> bool {
        skips(data_type, self.skip_missing)
    }
}

/// Whether missing values of `data_type` are left out, by default where there is NaN; never of
/// types that have none.
pub(crate) fn skips(data_type: &DataType, skip_missing: Option<bool>) -> bool {
    let has_nan = data_type.is_float() || data_type.is_complex();
    let can_miss = has_nan || is_time(data_type);
    can_miss && skip_missing.unwrap_or(has_nan)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. }
    )
}
