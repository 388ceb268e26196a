//! Medians and quantiles, exact, of any number of values in bounded memory.
//!
//! ```text
//!        ┌── blocks ─► Search::count ─► Found ─► merge ┐
//! Search ┤                                             ├► Search::advance ─► done? ─► finish
//!        └── the same blocks again ◄───────── not yet ─┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | `order` | what is asked for, and which ranks that takes |
//! | `key` | values as unsigned integers of the same order, and their arithmetic |
//! | `found` | what one pass finds in some blocks |
//! | `search` | from pass to pass |
//! | `results` | what the last pass, or an earlier one, tells |
//!
//! Source: `numpy.quantile`, `numpy.median` (NumPy 2.5) and their NaN-ignoring forms; the results
//! are the same bits, except that
//!
//! - differences of integers are exact; NumPy's wrap around;
//! - of zeros of either sign −0.0 comes first; NumPy leaves their order open;
//! - where no value is left, results of a float type are NaN; NumPy's quantiles of none fail.

mod found;
mod key;
mod results;
mod search;

use array::DataType;

pub use found::Found;
pub(crate) use key::Keyed;
pub use results::Approximation;
pub use search::{Needs, Search};

use crate::Error;
use crate::cf::number::is_time;
use crate::reduction::skips;

/// How a quantile follows from the values next to it: NumPy's `method`.
///
/// Source: Hyndman, Fan, "Sample quantiles in statistical packages", 1996, for the first nine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are NumPy's methods")]
pub enum Method {
    InvertedCdf,
    AveragedInvertedCdf,
    ClosestObservation,
    InterpolatedInvertedCdf,
    Hazen,
    Weibull,
    #[default]
    Linear,
    MedianUnbiased,
    NormalUnbiased,
    Lower,
    Higher,
    Midpoint,
    Nearest,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::InvertedCdf,
        Self::AveragedInvertedCdf,
        Self::ClosestObservation,
        Self::InterpolatedInvertedCdf,
        Self::Hazen,
        Self::Weibull,
        Self::Linear,
        Self::MedianUnbiased,
        Self::NormalUnbiased,
        Self::Lower,
        Self::Higher,
        Self::Midpoint,
        Self::Nearest,
    ];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 13] = [
        "inverted_cdf",
        "averaged_inverted_cdf",
        "closest_observation",
        "interpolated_inverted_cdf",
        "hazen",
        "weibull",
        "linear",
        "median_unbiased",
        "normal_unbiased",
        "lower",
        "higher",
        "midpoint",
        "nearest",
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether results are values themselves, never something between two of them.
    pub fn is_discrete(self) -> bool {
        matches!(
            self,
            Self::InvertedCdf
                | Self::ClosestObservation
                | Self::Lower
                | Self::Higher
                | Self::Nearest
        )
    }

    /// Where the quantile `q` of `n` values lies, `n` at least 1.
    fn place(self, n: u64, q: f64) -> Place {
        let last = (n - 1) as f64;
        let n = n as f64;
        let between = |alpha: f64, beta: f64| n * q + (alpha + q * (1.0 - alpha - beta)) - 1.0;
        let index = match self {
            Self::Lower => return Place::at((last * q).floor(), last),
            Self::Higher => return Place::at((last * q).ceil(), last),
            Self::Nearest => return Place::at((last * q).round_ties_even(), last),
            Self::InvertedCdf => return Place::at((n * q - 1.0).ceil(), last),
            Self::ClosestObservation => {
                let index = n * q - 1.0 - 0.5;
                let is_even = index == index.floor() && index.floor().rem_euclid(2.0) == 1.0;
                let nearest = index.floor() + f64::from(u8::from(!is_even));
                return Place::at(nearest, last);
            }
            Self::AveragedInvertedCdf => n * q - 1.0,
            Self::InterpolatedInvertedCdf => between(0.0, 1.0),
            Self::Hazen => between(0.5, 0.5),
            Self::Weibull => between(0.0, 0.0),
            Self::Linear => last * q,
            Self::MedianUnbiased => between(1.0 / 3.0, 1.0 / 3.0),
            Self::NormalUnbiased => between(3.0 / 8.0, 3.0 / 8.0),
            Self::Midpoint => 0.5 * ((last * q).floor() + (last * q).ceil()),
        };
        // Beyond the ends NumPy counts from index 0, or from the last one, which it calls -1.
        let (low, high, from) = if index >= last {
            (last, last, -1.0)
        } else if index < 0.0 {
            (0.0, 0.0, 0.0)
        } else {
            (index.floor(), index.floor() + 1.0, index.floor())
        };
        let fraction = index - from;
        let fraction = match self {
            Self::AveragedInvertedCdf if fraction == 0.0 => 0.5,
            Self::AveragedInvertedCdf => 1.0,
            Self::Midpoint if index % 1.0 == 0.0 => 0.0,
            Self::Midpoint => 0.5,
            _ => fraction,
        };
        Place {
            low: low as u64,
            high: high as u64,
            fraction,
        }
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|method| method.name() == text);
        found.ok_or_else(|| Error::Parameter {
            name: "method",
            reason: format!("is {text:?}, known are {}", Self::NAMES.join(", ")),
        })
    }
}

/// A result between two order statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    /// Ranks, from 0.
    low: u64,
    high: u64,
    /// Of the way from the one to the other.
    fraction: f64,
}

impl Place {
    fn at(index: f64, last: f64) -> Self {
        let rank = index.clamp(0.0, last) as u64;
        Self {
            low: rank,
            high: rank,
            fraction: 0.0,
        }
    }
}

/// Order statistics of one array.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderStatistics {
    what: What,
    skip_missing: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Median,
    Quantiles { q: Vec<f64>, method: Method },
}

impl OrderStatistics {
    /// The median. `skip_missing` leaves out NaN and NaT; by default it does so for floats.
    pub fn median(skip_missing: Option<bool>) -> Self {
        Self {
            what: What::Median,
            skip_missing,
        }
    }

    /// The quantiles `q`, from 0 to 1, in any order.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is none, or one of them lies outside.
    pub fn quantiles(
        q: Vec<f64>,
        method: Method,
        skip_missing: Option<bool>,
    ) -> Result<Self, Error> {
        let refused = |reason: String| Error::Parameter { name: "q", reason };
        if q.is_empty() {
            return Err(refused("names no quantile".to_owned()));
        }
        if let Some(outside) = q.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            return Err(refused(format!("is {outside}, not between 0 and 1")));
        }
        Ok(Self {
            what: What::Quantiles { q, method },
            skip_missing,
        })
    }

    /// `median` or `quantile`.
    pub fn name(&self) -> &'static str {
        match self.what {
            What::Median => "median",
            What::Quantiles { .. } => "quantile",
        }
    }

    /// The quantiles; none for the median.
    pub fn q(&self) -> &[f64] {
        match &self.what {
            What::Median => &[],
            What::Quantiles { q, .. } => q,
        }
    }

    /// Results for each kept cell: 1, or the number of quantiles.
    pub fn len(&self) -> usize {
        match &self.what {
            What::Median => 1,
            What::Quantiles { q, .. } => q.len(),
        }
    }

    /// Never; a median or some quantile is asked for.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Type of the results, as xarray has it: medians of floats and durations keep their type,
    /// those of integers and booleans are `float64`; quantiles are `float64`, or of the array's
    /// type for times and for methods that give values themselves.
    ///
    /// # Errors
    /// [`Error::Undefined`] for medians of dates, quantiles between booleans, complex numbers, text.
    pub fn data_type(&self, data_type: &DataType) -> Result<DataType, Error> {
        let is_number = data_type.is_integer() || data_type.is_float();
        let is_bool = *data_type == DataType::Bool;
        let is_duration = matches!(data_type, DataType::TimeDelta64 { .. });
        match &self.what {
            What::Median if data_type.is_float() || is_duration => Ok(data_type.clone()),
            What::Median if is_number || is_bool => Ok(DataType::Float64),
            What::Quantiles { method, .. } if method.is_discrete() && (is_number || is_bool) => {
                Ok(data_type.clone())
            }
            What::Quantiles { .. } if is_time(data_type) => Ok(data_type.clone()),
            What::Quantiles { .. } if is_number => Ok(DataType::Float64),
            _ => Err(Error::Undefined {
                reducer: self.name(),
                data_type: data_type.to_string(),
            }),
        }
    }

    fn skips(&self, data_type: &DataType) -> bool {
        skips(data_type, self.skip_missing)
    }

    fn is_discrete(&self) -> bool {
        matches!(&self.what, What::Quantiles { method, .. } if method.is_discrete())
    }

    /// Where the result number `nth` of `n` values lies, `n` at least 1.
    fn place(&self, nth: usize, n: u64) -> Place {
        match &self.what {
            What::Median => Place {
                low: (n - 1) / 2,
                high: n / 2,
                fraction: 0.5,
            },
            What::Quantiles { q, method } => method.place(n, q[nth]),
        }
    }

    /// The ranks of `n` values that the results take, ascending, each once.
    fn ranks(&self, n: u64) -> Vec<u64> {
        let mut ranks: Vec<u64> = match n {
            0 => Vec::new(),
            n => (0..self.len())
                .map(|nth| self.place(nth, n))
                .flat_map(|place| [place.low, place.high])
                .collect(),
        };
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }
}
