//! Which inner chunks a selection needs, and where their cells go. Pure.

use array::{AxisSelection, ChunkIndex, Region, ResolvedSelection};
use codecs::ArrayCodec;
use compute::gather::AxisPart;

use crate::ArrayReader;
use crate::measure::Role;

/// The inner chunks of an array that hold a selection.
///
/// Inner chunks form a grid of their own over the whole array, finer than that of the stored
/// chunks. A selection touches the product of its touched positions along each axis.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Along each axis, the touched coordinates in the grid of inner chunks, ascending.
    touched: Vec<Vec<u64>>,
    selection: ResolvedSelection,
    array_shape: Vec<u64>,
    inner_shape: Vec<u64>,
    /// Inner chunks in a stored chunk, along each axis.
    inner_per_chunk: Vec<u64>,
}

/// The inner chunks one stored chunk contributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRead {
    /// The stored chunk.
    pub index: ChunkIndex,
    /// Coordinates of the needed inner chunks in the array's grid of inner chunks.
    pub inner: Vec<Vec<u64>>,
}

impl Plan {
    /// Plans `selection` of an array of `array_shape` stored with `codec`.
    pub fn new(selection: ResolvedSelection, array_shape: &[u64], codec: &ArrayCodec) -> Self {
        let inner_shape = codec.inner_shape().to_vec();
        let touched = selection
            .axes()
            .iter()
            .zip(&inner_shape)
            .map(|(axis, &length)| touched(axis, length))
            .collect();
        let inner_per_chunk = codec
            .chunk_shape()
            .iter()
            .zip(&inner_shape)
            .map(|(c, i)| c / i)
            .collect();
        Self {
            touched,
            selection,
            array_shape: array_shape.to_vec(),
            inner_shape,
            inner_per_chunk,
        }
    }

    /// What is selected.
    pub fn selection(&self) -> &ResolvedSelection {
        &self.selection
    }

    /// Number of inner chunks to decode; saturates.
    pub fn inner_chunks(&self) -> u64 {
        self.touched
            .iter()
            .fold(1u64, |count, axis| count.saturating_mul(axis.len() as u64))
    }

    /// Along each axis, the touched coordinates in the grid of inner chunks.
    pub(crate) fn touched(&self) -> &[Vec<u64>] {
        &self.touched
    }

    /// The smallest box of the chunk grid that holds every stored chunk this reads.
    ///
    /// # Errors
    /// None in practice: coordinates are inside the grid.
    pub fn chunk_region(&self) -> Result<Region, array::Error> {
        let mut start = Vec::new();
        let mut lengths = Vec::new();
        for (touched, per_chunk) in self.touched.iter().zip(&self.inner_per_chunk) {
            let first = touched.first().map_or(0, |at| at / per_chunk);
            let end = touched.last().map_or(0, |at| at / per_chunk + 1);
            start.push(first);
            lengths.push(end - first);
        }
        Region::new(start, lengths)
    }

    /// The stored chunk of an inner chunk, and its coordinate counted from that chunk's corner.
    pub(crate) fn locate(&self, inner: &[u64]) -> (ChunkIndex, Vec<u64>) {
        let chunk = inner
            .iter()
            .zip(&self.inner_per_chunk)
            .map(|(at, per)| at / per)
            .collect();
        let local = inner
            .iter()
            .zip(&self.inner_per_chunk)
            .map(|(at, per)| at % per)
            .collect();
        (ChunkIndex::new(chunk), local)
    }

    /// All reads, one for each stored chunk, in C order of the chunk grid.
    ///
    /// Every touched inner chunk is in exactly one of them.
    pub fn reads(&self) -> impl Iterator<Item = ChunkRead> + '_ {
        self.reads_by((0..self.touched.len()).collect())
    }

    /// The same in the order of these axes, the last one fastest.
    pub(crate) fn reads_by(&self, order: Vec<usize>) -> impl Iterator<Item = ChunkRead> + '_ {
        // Along each axis, runs of touched inner coordinates in the same stored chunk.
        let runs: Vec<Vec<&[u64]>> = self
            .touched
            .iter()
            .zip(&self.inner_per_chunk)
            .map(|(touched, &per)| touched.chunk_by(move |a, b| a / per == b / per).collect())
            .collect();
        let lengths: Vec<u64> = order.iter().map(|&axis| runs[axis].len() as u64).collect();
        Region::whole(&lengths).positions().map(move |at| {
            let mut axes: Vec<&[u64]> = vec![&[]; runs.len()];
            for (&axis, &nth) in order.iter().zip(&at) {
                axes[axis] = runs[axis][nth as usize];
            }
            let lengths: Vec<u64> = axes.iter().map(|axis| axis.len() as u64).collect();
            let inner: Vec<Vec<u64>> = Region::whole(&lengths)
                .positions()
                .map(|nth| {
                    nth.iter()
                        .zip(&axes)
                        .map(|(&nth, axis)| axis[nth as usize])
                        .collect()
                })
                .collect();
            let first: Vec<u64> = axes.iter().map(|axis| axis[0]).collect();
            ChunkRead {
                index: self.locate(&first).0,
                inner,
            }
        })
    }

    /// The stored chunks whose cells in the array are all selected, as a box of the chunk grid; empty
    /// if there is none or what is selected is no box.
    pub(crate) fn whole_chunks(&self) -> Result<Region, array::Error> {
        let axes = self.selection.axes().iter().zip(&self.array_shape);
        let chunk = self.inner_shape.iter().zip(&self.inner_per_chunk);
        let (mut start, mut lengths) = (Vec::new(), Vec::new());
        for ((axis, &size), (inner, per)) in axes.zip(chunk) {
            let length = inner * per;
            let hull = axis.hull();
            let is_run = hull.end - hull.start == axis.len();
            let first = hull.start.div_ceil(length);
            let end = if hull.end == size {
                size.div_ceil(length)
            } else {
                hull.end / length
            };
            start.push(first);
            lengths.push(if is_run { end.saturating_sub(first) } else { 0 });
        }
        Region::new(start, lengths)
    }

    /// Whether these roles leave one value.
    pub(crate) fn is_one_value(&self, roles: &[Role]) -> bool {
        let mut axes = roles.iter().zip(self.selection.axes());
        axes.all(|(role, axis)| *role == Role::Reduced || role.is_kept() && axis.len() == 1)
    }

    /// Stored chunks it touches; saturates.
    pub(crate) fn chunks(&self) -> u64 {
        let axes = self.touched.iter().zip(&self.inner_per_chunk);
        let along = axes.map(|(touched, &per)| touched.chunk_by(|a, b| a / per == b / per).count());
        along.fold(1, |chunks, count| chunks.saturating_mul(count as u64))
    }

    /// Whether no cell is selected twice.
    pub(crate) fn is_set(&self) -> bool {
        self.selection.axes().iter().all(|axis| match axis {
            AxisSelection::List(positions) => {
                let mut sorted = positions.to_vec();
                sorted.sort_unstable();
                sorted.windows(2).all(|pair| pair[0] < pair[1])
            }
            _ => true,
        })
    }

    /// Whether every cell of the inner chunk at `inner` that is in the array is selected.
    pub(crate) fn covers(&self, inner: &[u64]) -> bool {
        let lengths = inner
            .iter()
            .zip(self.inner_shape.iter().zip(&self.array_shape));
        let inside = lengths.map(|(at, (&length, &size))| {
            size.saturating_sub(at.saturating_mul(length)).min(length)
        });
        self.parts(inner).iter().zip(inside).all(|(part, length)| {
            let mut places = part.source.clone();
            places.sort_unstable();
            places.dedup();
            places.len() as u64 == length
        })
    }

    /// The selected cells along one axis of the inner chunks at this coordinate.
    pub(crate) fn part(&self, axis: usize, at: u64) -> AxisPart {
        let (length, size) = (self.inner_shape[axis], self.array_shape[axis]);
        let start = at * length;
        let cells = start..start.saturating_add(length).min(size);
        AxisPart::of(&self.selection.axes()[axis], cells)
    }

    /// The selected cells of the inner chunk at `inner`, along each axis.
    pub(crate) fn parts(&self, inner: &[u64]) -> Vec<AxisPart> {
        let axes = inner.iter().enumerate();
        axes.map(|(axis, &at)| self.part(axis, at)).collect()
    }
}

impl ArrayReader {
    /// An upper bound of the inner chunks a selection touches, found without listing them; axes
    /// that select nothing count as one. Saturates.
    pub fn inner_chunks_at_most(&self, selection: &ResolvedSelection) -> u64 {
        let along = |(axis, length): (&AxisSelection, &u64)| {
            let hull = axis.hull();
            // Zero-length inner chunks do not exist; a range of `n` cells touches `n / length + 2`.
            let span = (hull.end - hull.start) / length + 2;
            axis.len().min(span).max(1)
        };
        let axes = selection.axes().iter().zip(self.codec.inner_shape());
        axes.map(along).fold(1, u64::saturating_mul)
    }
}

/// Coordinates of the inner chunks of `length` that hold a selected position, ascending.
fn touched(axis: &AxisSelection, length: u64) -> Vec<u64> {
    let mut coordinates: Vec<u64> = match axis {
        AxisSelection::Index(at) => vec![at / length],
        AxisSelection::List(positions) => positions.iter().map(|at| at / length).collect(),
        AxisSelection::Range { step, count, .. } => {
            let hull = axis.hull();
            if hull.is_empty() {
                vec![]
            } else if step.unsigned_abs() <= length {
                (hull.start / length..=(hull.end - 1) / length).collect()
            } else {
                (0..*count).map(|nth| axis.position(nth) / length).collect()
            }
        }
    };
    coordinates.sort_unstable();
    coordinates.dedup();
    coordinates
}
