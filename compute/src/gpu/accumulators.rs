//! Which accumulators a kernel fills for what is wanted, and what is made of them.

use array::DataType;
use bytemuck::{Pod, Zeroable};

use super::error::Failure;
use super::params::Rules;
use super::walk::Geometry;
use crate::accumulators::{Counts, Extremes, IntegerSums, Order, Spreads, Sums, Truths};
use crate::block::Block;
use crate::element::with_real;
use crate::histogram::{Bins, Histogram};
use crate::partial::Cells;
use crate::{Partial, Reducer, Reduction};

/// What is to be found of every box.
#[derive(Clone, Debug)]
pub enum Wanted<'a> {
    /// A reduction.
    Plain(Reduction),
    /// How many values are in each bin.
    Histogram(&'a Bins),
}

/// What was found of a box; the same bits as the CPU finds.
#[derive(Clone, Debug)]
pub enum Found {
    /// Of a reduction.
    Plain(Partial),
    /// Counts.
    Histogram(Histogram),
}

/// What kernels add up for each kept cell, as the structs of `accumulate.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Sum,
    /// After a sum by the same rules, whose means it takes.
    Square,
    Tally,
    Extreme,
    WholeSum,
    WholeExtreme {
        is_signed: bool,
    },
}

impl Kind {
    /// Its name in the names of kernels that walk, and of those that fold.
    pub(super) fn kernels(self) -> [&'static str; 4] {
        match self {
            Self::Sum => ["runs_sum", "singles_sum", "fold_runs_sum", "fold_parts_sum"],
            Self::Square => [
                "runs_square",
                "singles_square",
                "fold_runs_square",
                "fold_parts_square",
            ],
            Self::Tally => [
                "runs_tally",
                "singles_tally",
                "fold_runs_tally",
                "fold_parts_tally",
            ],
            Self::Extreme => [
                "runs_extreme",
                "singles_extreme",
                "fold_runs_extreme",
                "fold_parts_extreme",
            ],
            Self::WholeSum => [
                "runs_whole_sum",
                "singles_whole_sum",
                "fold_runs_whole_sum",
                "fold_parts_whole_sum",
            ],
            Self::WholeExtreme { is_signed: true } => [
                "runs_whole_extreme",
                "singles_whole_extreme",
                "fold_runs_signed_extreme",
                "fold_parts_signed_extreme",
            ],
            Self::WholeExtreme { is_signed: false } => [
                "runs_whole_extreme",
                "singles_whole_extreme",
                "fold_runs_unsigned_extreme",
                "fold_parts_unsigned_extreme",
            ],
        }
    }

    /// Bytes of one accumulator.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Sum => size_of::<SumWords>(),
            Self::Square => size_of::<f64>(),
            Self::Tally | Self::WholeSum | Self::Extreme | Self::WholeExtreme { .. } => {
                size_of::<[u64; 2]>()
            }
        }
    }
}

/// A double-double sum and a count.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SumWords {
    high: f64,
    low: f64,
    count: u64,
}

/// No position.
const NOWHERE: u64 = u64::MAX;

/// The accumulators a reduction of elements of type `measured` is made of; `None` if kernels do not
/// do it. Elements that were decoded are floats.
pub(super) fn needed(reduction: &Reduction, measured: &DataType) -> Option<Vec<(Kind, Rules)>> {
    reduction.data_type(measured).ok()?;
    let is_time = matches!(
        measured,
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. }
    );
    let is_whole = !measured.is_float();
    let rules = Rules {
        skip: u32::from(reduction.skips(measured)),
        least: 0,
        has_nat: u32::from(is_time),
        unused: 0,
    };
    Some(match reduction.reducer {
        Reducer::Sum | Reducer::Mean if is_whole => vec![(Kind::WholeSum, rules)],
        Reducer::Sum | Reducer::Mean => vec![(Kind::Sum, rules)],
        Reducer::Std | Reducer::Var => vec![(Kind::Sum, rules), (Kind::Square, rules)],
        Reducer::Count | Reducer::Any | Reducer::All => {
            vec![(Kind::Tally, Rules { skip: 0, ..rules })]
        }
        Reducer::Min | Reducer::Max | Reducer::ArgMin | Reducer::ArgMax => {
            let least = matches!(reduction.reducer, Reducer::Min | Reducer::ArgMin);
            let kind = match is_whole {
                true => Kind::WholeExtreme {
                    is_signed: !(measured.is_unsigned_integer() || *measured == DataType::Bool),
                },
                false => Kind::Extreme,
            };
            let least = u32::from(least);
            vec![(kind, Rules { least, ..rules })]
        }
        // Products of floats are taken in an order that leaves nothing to do at the same time.
        Reducer::Prod => return None,
    })
}

/// Makes a partial of accumulators, those of [`needed`] in their order, each with one for every kept
/// cell of the box; `places` and `selection_shape` are those of [`Block`].
pub(super) fn partial(
    reduction: Reduction,
    measured: &DataType,
    geometry: &Geometry,
    places: &[Vec<u64>],
    selection_shape: &[u64],
    found: &[&[u8]],
) -> Result<Partial, Failure> {
    let unsupported = || Failure::Unsupported;
    let first = *found.first().ok_or_else(unsupported)?;
    let skip = reduction.skips(measured);
    let is_whole = !measured.is_float();
    let values = geometry.values_per_cell();
    let sums = |bytes: &[u8]| {
        let words = words::<SumWords>(bytes);
        let words = words.iter().map(|sum| (sum.count, sum.high, sum.low));
        Sums::of_parts(skip, words)
    };
    let cells = match reduction.reducer {
        Reducer::Sum | Reducer::Mean if is_whole => {
            let sums = words::<[u64; 2]>(first);
            let sums = sums
                .iter()
                .map(|[low, high]| (u128::from(*high) << 64 | u128::from(*low)) as i128);
            Cells::IntegerSums(IntegerSums::of_parts(sums, values))
        }
        Reducer::Sum | Reducer::Mean => Cells::Sums(sums(first)),
        Reducer::Std | Reducer::Var => {
            let squares = words::<f64>(found.get(1).ok_or_else(unsupported)?);
            Cells::Spreads(Spreads::of_parts(skip, sums(first), squares))
        }
        Reducer::Count => {
            let tallies = words::<[u64; 2]>(first);
            Cells::Counts(Counts::of_parts(tallies.iter().map(|[valid, _]| *valid)))
        }
        Reducer::Any | Reducer::All => {
            let wants_all = reduction.reducer == Reducer::All;
            let tallies = words::<[u64; 2]>(first);
            let truths = tallies.iter().map(|[_, truths]| match wants_all {
                true => *truths == values,
                false => *truths > 0,
            });
            Cells::Truths(Truths::of_parts(wants_all, truths))
        }
        Reducer::Min | Reducer::Max | Reducer::ArgMin | Reducer::ArgMax => {
            let least = matches!(reduction.reducer, Reducer::Min | Reducer::ArgMin);
            let order = Order { least, skip };
            let shape = geometry.shape();
            let block = Block {
                data_type: measured,
                bytes: &[],
                shape: &shape,
                reduced: &geometry.reduced,
                places,
                selection_shape,
            };
            let words = words::<[u64; 2]>(first);
            let at = |ordinal: u64| (ordinal != NOWHERE).then(|| block.position(ordinal));
            let with_positions = reduction.is_position();
            with_real!(measured, T => {
                let found = words.iter().map(|&[word, ordinal]| {
                    let value = <T as crate::element::Element>::of_device_word(word);
                    at(ordinal).map(|place| (value, place))
                });
                Cells::Extremes(Extremes::of_parts::<T>(order, with_positions, found))
            }, else return Err(Failure::Unsupported))
        }
        Reducer::Prod => return Err(Failure::Unsupported),
    };
    Ok(Partial::of_cells(reduction, measured, cells))
}

/// Accumulators from their bytes, which hold whole ones.
fn words<T: Pod>(bytes: &[u8]) -> Vec<T> {
    let parts = bytes.chunks_exact(size_of::<T>());
    parts.map(bytemuck::pod_read_unaligned).collect()
}
