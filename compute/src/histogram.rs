//! Histograms, as `numpy.histogram` has them.
//!
//! A bin holds the values from its lower edge to below its upper one, the last bin its upper edge
//! as well. Values outside and NaN are in no bin. Counts are exact and merge in any order.
//!
//! Source: `numpy.histogram`, `numpy.linspace` (NumPy 2.5). Where this departs: integers of 64
//! bits are compared as `float64` here; NumPy does so unless the range is of integers too.

use array::DataType;

use crate::block::{Block, Fold};
use crate::element::{Element, elements, with_real};
use crate::halves::f16_of;
use crate::{Error, Merge, partial::encode};

/// Most bins of one histogram.
pub const MAX_BINS: usize = 1 << 24;

/// The bins of a histogram of elements of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    data_type: DataType,
    /// One more than there are bins, ascending; numbers of the type edges have.
    edges: Vec<f64>,
    uniform: Option<Uniform>,
}

/// What the index of a value in bins of one width is calculated from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Uniform {
    first: f64,
    last: f64,
    width: f64,
    count: f64,
}

/// Rounds to the precision of a type.
type Round = fn(f64) -> f64;

/// The precision of edges: that of floats themselves, 64 bits of others.
fn rounding(data_type: &DataType) -> Round {
    match data_type {
        DataType::Float16 => |value| Element::to_f64(f16_of(value)),
        DataType::Float32 => |value| f64::from(value as f32),
        _ => |value| value,
    }
}

impl Bins {
    /// `count` bins of equal width over `range`, given in 64 bits as NumPy's `range`.
    ///
    /// # Errors
    /// [`Error::Undefined`] for what are not real numbers; [`Error::Parameter`] if there are no
    /// bins, too many of them, or the range is not finite and ascending.
    pub fn uniform(data_type: &DataType, count: usize, range: (f64, f64)) -> Result<Self, Error> {
        Self::linspace(data_type, count, range, |value| value)
    }

    /// `count` bins of equal width over the values found: the least and the greatest, without NaN.
    /// `None` if there are no values; the range is 0 to 1 then.
    ///
    /// # Errors
    /// As for [`Bins::uniform`].
    pub fn over_values(
        data_type: &DataType,
        count: usize,
        found: Option<(f64, f64)>,
    ) -> Result<Self, Error> {
        let range = found.unwrap_or((0.0, 1.0));
        // NumPy takes the ends as numbers of the array's type then, and calculates in it.
        Self::linspace(data_type, count, range, rounding(data_type))
    }

    /// Bins between `edges`, which ascend; a bin between equal edges is empty unless it is the last.
    ///
    /// # Errors
    /// As for [`Bins::uniform`].
    pub fn between(data_type: &DataType, edges: Vec<f64>) -> Result<Self, Error> {
        check(data_type, edges.len().saturating_sub(1))?;
        if !edges.is_sorted() || edges.iter().any(|edge| edge.is_nan()) {
            return Err(refused("bins", "are not in ascending order".to_owned()));
        }
        Ok(Self {
            data_type: data_type.clone(),
            edges,
            uniform: None,
        })
    }

    fn linspace(
        data_type: &DataType,
        count: usize,
        (mut low, mut high): (f64, f64),
        round: Round,
    ) -> Result<Self, Error> {
        check(data_type, count)?;
        if !(low.is_finite() && high.is_finite() && low <= high) {
            let reason = format!("is {low} to {high}, not finite and ascending");
            return Err(refused("range", reason));
        }
        if low == high {
            (low, high) = (round(low - 0.5), round(high + 0.5));
        }
        let edge_of = rounding(data_type);
        let (steps, distance) = (count as f64, round(high - low));
        let step = round(distance / steps);
        let edges = (0..=count).map(|nth| match nth {
            nth if nth == count => high,
            // Steps of subnormal numbers may vanish.
            nth if step == 0.0 => round(round(round(nth as f64 / steps) * distance) + low),
            nth => round(round(nth as f64 * step) + low),
        });
        let edges: Vec<f64> = edges.map(edge_of).collect();
        if edges.windows(2).any(|pair| pair[0] >= pair[1]) {
            let reason = format!("are too many, {count} between {low} and {high}");
            return Err(refused("bins", reason));
        }
        let uniform = Uniform {
            // Compared with values of the type, so rounded to it.
            first: edge_of(low),
            last: edge_of(high),
            width: edge_of(distance),
            count: steps,
        };
        Ok(Self {
            data_type: data_type.clone(),
            edges,
            uniform: Some(uniform),
        })
    }

    /// Type of the values they are bins of.
    #[cfg(feature = "gpu")]
    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// First and last edge, the distance between them and how many bins of one width there are.
    #[cfg(feature = "gpu")]
    pub(crate) fn uniform_params(&self) -> Option<[f64; 4]> {
        let uniform = self.uniform?;
        Some([uniform.first, uniform.last, uniform.width, uniform.count])
    }

    /// Number of bins.
    pub fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// Never: there is at least one bin.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The edges, one more than there are bins.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Type of the edges, as NumPy has it: that of floats, else `float64`.
    pub fn edge_type(&self) -> DataType {
        match self.data_type {
            DataType::Float16 | DataType::Float32 if self.uniform.is_some() => {
                self.data_type.clone()
            }
            _ => DataType::Float64,
        }
    }

    /// The edges as elements of [`Bins::edge_type`].
    pub fn edge_bytes(&self) -> Vec<u8> {
        encode(&self.edge_type(), self.edges.iter().copied())
    }

    /// The bin of a value, if it has one.
    #[inline(always)]
    fn bin(&self, value: f64, round: Round) -> Option<usize> {
        let last_bin = self.edges.len() - 2;
        let Some(uniform) = self.uniform else {
            let after = self.edges.partition_point(|&edge| edge <= value);
            return match after {
                0 => None,
                after if after == self.edges.len() => {
                    (value == self.edges[after - 1]).then_some(last_bin)
                }
                after => Some(after - 1),
            };
        };
        if !(value >= uniform.first && value <= uniform.last) {
            return None;
        }
        let share = round(round(value - uniform.first) / uniform.width);
        let index = round(share * uniform.count) as usize;
        let mut index = index.min(last_bin);
        // Off by one where the division was rounded across an edge.
        if value < self.edges[index] {
            index = index.saturating_sub(1);
        }
        if index < last_bin && value >= self.edges[index + 1] {
            index += 1;
        }
        Some(index)
    }
}

fn check(data_type: &DataType, count: usize) -> Result<(), Error> {
    if !(data_type.is_integer() || data_type.is_float() || *data_type == DataType::Bool) {
        return Err(Error::Undefined {
            reducer: "histogram",
            data_type: data_type.to_string(),
        });
    }
    if !(1..=MAX_BINS).contains(&count) {
        return Err(refused("bins", format!("are {count}, not 1 to {MAX_BINS}")));
    }
    Ok(())
}

fn refused(name: &'static str, reason: String) -> Error {
    Error::Parameter { name, reason }
}

/// How many values of each kept cell are in each bin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Of each kept cell, C order, one count a bin.
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts no values, of `kept` cells.
    pub fn none(bins: &Bins, kept: usize) -> Self {
        Self {
            counts: vec![0; kept * bins.len()],
        }
    }

    /// Of counts of each kept cell, bins last.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(counts: Vec<u64>) -> Self {
        Self { counts }
    }

    /// Counts the values of one block.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the bins are those of another type.
    pub fn of(bins: &Bins, block: &Block<'_>) -> Result<Self, Error> {
        let undefined = || Error::Undefined {
            reducer: "histogram",
            data_type: block.data_type.to_string(),
        };
        if *block.data_type != bins.data_type {
            return Err(undefined());
        }
        let mut histogram = Self::none(bins, block.kept());
        let round = match bins.uniform {
            Some(_) => rounding(block.data_type),
            None => |value| value,
        };
        let counts = &mut histogram.counts[..];
        with_real!(
            block.data_type,
            T => block.fold(&elements::<T>(block.bytes), &mut Counting { bins, round, counts }),
            else return Err(undefined())
        );
        Ok(histogram)
    }

    /// The counts as `int64`, bins last.
    pub fn finish(&self) -> Vec<u8> {
        self.counts.iter().flat_map(|n| n.to_le_bytes()).collect()
    }
}

impl Merge for Histogram {
    fn merge(&mut self, later: &Self) {
        let pairs = self.counts.iter_mut().zip(&later.counts);
        pairs.for_each(|(a, b)| *a += b);
    }
}

struct Counting<'a> {
    bins: &'a Bins,
    round: Round,
    counts: &'a mut [u64],
}

impl<T: Element> Fold<T> for Counting<'_> {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        let bins = self.bins.len();
        let counts = &mut self.counts[cell * bins..(cell + 1) * bins];
        for value in values {
            if let Some(bin) = self.bins.bin(value.to_f64(), self.round) {
                counts[bin] += 1;
            }
        }
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        let bins = self.bins.len();
        let counts = self.counts[first_cell * bins..].chunks_exact_mut(bins);
        for (counts, value) in counts.zip(values) {
            if let Some(bin) = self.bins.bin(value.to_f64(), self.round) {
                counts[bin] += 1;
            }
        }
    }
}
