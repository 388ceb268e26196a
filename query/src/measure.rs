//! What is computed of the cells that go into one.

use std::sync::Arc;

use array::{DataType, ResolvedSelection};
use compute::gather::{AxisPart, gather};
use compute::histogram::{Bins, Histogram};
use compute::order::{Found, OrderStatistics};
use compute::predicate::Predicate;
use compute::weighted::{WeightedPartial, WeightedReduction, Weights};
use compute::{Block, Merge, Partial, Reduction};

use crate::{ArrayReader, Error};

/// What is computed of the cells that go into one.
#[derive(Clone, Debug)]
pub enum Measure {
    /// One of the simple reductions.
    Plain(Reduction),
    /// A weighted one.
    Weighted(WeightedReduction, Arc<AxisWeights>),
    /// Counts of values by bin; the bins are the last dimension of the result.
    Histogram(Arc<Bins>),
    /// A median, or quantiles; these are the first dimension of the result.
    Order(OrderStatistics),
}

/// Weights along some axes of a selection.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisWeights {
    /// The axes of the array they vary over.
    pub axes: Vec<bool>,
    /// In the selection's shape of these axes, C order.
    pub values: Vec<f64>,
}

/// What becomes of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It stays.
    Kept,
    /// Its cells go into one.
    Reduced,
    /// Its cells go into one for each group.
    Grouped(Arc<Grouping>),
}

impl Role {
    /// Which axes are reduced, all others kept.
    pub fn of(reduced: &[bool]) -> Vec<Self> {
        let role = |&gone| if gone { Self::Reduced } else { Self::Kept };
        reduced.iter().map(role).collect()
    }

    /// Length of the axis in the result, of which `length` positions are selected.
    pub(crate) fn length(&self, length: u64) -> u64 {
        match self {
            Self::Kept => length,
            Self::Reduced => 1,
            Self::Grouped(grouping) => grouping.groups as u64,
        }
    }

    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        *self == Self::Kept
    }
}

/// Which group each selected position of an axis belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// How many groups there are.
    pub groups: usize,
    /// By place in the selection, the number of its group; above all of them for none.
    pub of: Vec<u32>,
}

/// An aggregation of a selection.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// What is computed, all in one pass where that is enough.
    pub measures: Vec<Measure>,
    /// By axis of the array.
    pub roles: Vec<Role>,
    /// Arrays of the same shape, and what their cells must satisfy for those of this one to count.
    pub conditions: Vec<(ArrayReader, Predicate)>,
    /// Most passes over the data for order statistics; as many as it takes if there is no bound.
    pub passes: Option<u32>,
}

impl Aggregation {
    /// Plain reductions over some axes.
    pub fn plain(reductions: &[Reduction], reduced: &[bool]) -> Self {
        Self {
            measures: reductions.iter().copied().map(Measure::Plain).collect(),
            roles: Role::of(reduced),
            conditions: Vec::new(),
            passes: None,
        }
    }

    /// Lengths of the result along the axes of the array.
    pub(crate) fn shape(&self, selection: &ResolvedSelection) -> Vec<u64> {
        let axes = selection.axes().iter().zip(&self.roles);
        axes.map(|(axis, role)| role.length(axis.len())).collect()
    }

    /// Type of the elements that are measured, of an array whose elements decode to `decoded`.
    pub(crate) fn measured_type(&self, decoded: &DataType) -> Result<DataType, Error> {
        match self.conditions.is_empty() {
            true => Ok(decoded.clone()),
            false => Ok(Predicate::data_type(decoded)?),
        }
    }

    pub(crate) fn has_order(&self) -> bool {
        let mut measures = self.measures.iter();
        measures.any(|measure| matches!(measure, Measure::Order(_)))
    }
}

impl Measure {
    /// Type of the results.
    ///
    /// # Errors
    /// If it has no meaning for elements of `data_type`.
    pub fn data_type(&self, data_type: &DataType) -> Result<DataType, Error> {
        Ok(match self {
            Self::Plain(reduction) => reduction.data_type(data_type)?,
            Self::Weighted(reduction, _) => reduction.data_type(data_type)?,
            Self::Histogram(_) => DataType::Int64,
            Self::Order(statistics) => statistics.data_type(data_type)?,
        })
    }

    /// Results for each cell.
    pub fn results(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Weighted(..) => 1,
            Self::Histogram(bins) => bins.len(),
            Self::Order(statistics) => statistics.len(),
        }
    }

    /// Results of all cells that come one after the other: one for each quantile.
    pub(crate) fn planes(&self) -> usize {
        match self {
            Self::Order(statistics) => statistics.len(),
            _ => 1,
        }
    }

    /// Results for each cell in a plane.
    pub(crate) fn cell_results(&self) -> usize {
        self.results() / self.planes()
    }

    /// Whether it answers where, not what.
    pub fn is_position(&self) -> bool {
        matches!(self, Self::Plain(reduction) if reduction.is_position())
    }

    /// Whether what it finds depends on nothing but the values of a box.
    pub(crate) fn is_of_values(&self) -> bool {
        match self {
            Self::Plain(_) => !self.is_position(),
            Self::Histogram(_) => true,
            Self::Weighted(..) | Self::Order(_) => false,
        }
    }

    /// Most bytes of memory what it finds takes for each cell.
    pub(crate) fn bytes_per_cell(&self) -> u64 {
        match self {
            Self::Histogram(bins) => 8 * bins.len() as u64,
            // Found by passes that are given their own memory.
            Self::Order(_) => 0,
            Self::Plain(_) | Self::Weighted(..) => 64,
        }
    }
}

impl AxisWeights {
    /// Those of the cells at these places of the selection, whose shape is `selected`.
    fn of(&self, parts: &[AxisPart], selected: &[u64]) -> Vec<f64> {
        let axes = || {
            self.axes
                .iter()
                .zip(parts)
                .zip(selected)
                .filter(|((varies, _), _)| **varies)
        };
        let shape: Vec<u64> = axes().map(|(_, &length)| length).collect();
        let places = axes().map(|((_, part), _)| AxisPart {
            source: part.target.clone(),
            target: (0..part.len() as u64).collect(),
        });
        let bytes: Vec<u8> = self
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let bytes = gather(
            &bytes,
            &places.collect::<Vec<_>>(),
            &shape,
            size_of::<f64>(),
        );
        let (values, _) = bytes.as_chunks();
        values
            .iter()
            .map(|value| f64::from_le_bytes(*value))
            .collect()
    }
}

/// What a measure finds in one box, to be merged with what it finds in those after it.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Plain(Partial),
    Weighted(WeightedPartial),
    Histogram(Histogram),
    Order(Found),
}

impl Merge for Part {
    fn merge(&mut self, later: &Self) {
        match (self, later) {
            (Self::Plain(a), Self::Plain(b)) => a.merge(b),
            (Self::Weighted(a), Self::Weighted(b)) => a.merge(b),
            (Self::Histogram(a), Self::Histogram(b)) => a.merge(b),
            (Self::Order(a), Self::Order(b)) => a.merge(b.clone()),
            _ => debug_assert!(false, "parts of one measure are of one kind"),
        }
    }
}

impl Part {
    /// The results: elements of [`Measure::data_type`], for each kept cell as many as
    /// [`Measure::results`], together.
    pub(crate) fn finish(&self) -> Result<Vec<u8>, Error> {
        Ok(match self {
            Self::Plain(partial) => partial.finish()?,
            Self::Weighted(partial) => partial.finish(),
            Self::Histogram(histogram) => histogram.finish(),
            // The search finishes it.
            Self::Order(_) => Vec::new(),
        })
    }

    /// Of one box, but for order statistics.
    pub(crate) fn of(
        measure: &Measure,
        block: &Block<'_>,
        parts: &[AxisPart],
        selected: &[u64],
    ) -> Result<Self, Error> {
        Ok(match measure {
            Measure::Plain(reduction) => Self::Plain(Partial::of(*reduction, block)?),
            Measure::Weighted(reduction, weights) => {
                let values = weights.of(parts, selected);
                let axes = &weights.axes;
                let weights = Weights {
                    values: &values,
                    axes,
                };
                Self::Weighted(WeightedPartial::of(*reduction, block, &weights)?)
            }
            Measure::Histogram(bins) => Self::Histogram(Histogram::of(bins, block)?),
            Measure::Order(_) => return Err(Error::Cancelled),
        })
    }

    /// Of nothing: `cells` kept cells of `per_cell` values each, one of the two 0.
    pub(crate) fn of_nothing(
        measure: &Measure,
        data_type: &DataType,
        cells: usize,
        per_cell: u64,
    ) -> Result<Vec<u8>, Error> {
        match measure {
            Measure::Plain(reduction) => {
                Ok(Partial::of_nothing(*reduction, data_type, cells, per_cell)?.finish()?)
            }
            Measure::Weighted(reduction, _) => {
                Ok(WeightedPartial::of_nothing(*reduction, cells).finish())
            }
            Measure::Histogram(bins) => Ok(Histogram::none(bins, cells).finish()),
            Measure::Order(statistics) => {
                let mut search = compute::order::Search::new(
                    statistics.clone(),
                    data_type,
                    cells,
                    0,
                    u64::MAX,
                    1,
                )?;
                while search.needs_pass() {
                    let nothing = search.nothing();
                    search.advance(nothing);
                }
                Ok(search.finish()?)
            }
        }
    }
}
