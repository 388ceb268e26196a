//! Which inner chunks a selection needs, and where their cells go. Pure.

use array::{AxisSelection, ChunkIndex, Region, ResolvedSelection};
use codecs::ArrayCodec;
use compute::gather::AxisPart;

use crate::ArrayReader;

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
        // Along each axis, runs of touched inner coordinates in the same stored chunk.
        let runs: Vec<Vec<&[u64]>> = self
            .touched
            .iter()
            .zip(&self.inner_per_chunk)
            .map(|(touched, &per)| touched.chunk_by(move |a, b| a / per == b / per).collect())
            .collect();
        let lengths: Vec<u64> = runs.iter().map(|axis| axis.len() as u64).collect();
        Region::whole(&lengths).positions().map(move |at| {
            let axes: Vec<&[u64]> = at
                .iter()
                .zip(&runs)
                .map(|(&nth, axis)| axis[nth as usize])
                .collect();
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

    /// The needed inner chunks of the stored chunk that holds `inner`.
    pub(crate) fn read_around(&self, inner: &[u64]) -> ChunkRead {
        let axes: Vec<Vec<u64>> = inner
            .iter()
            .zip(&self.touched)
            .zip(&self.inner_per_chunk)
            .map(|((at, touched), per)| {
                let first = touched.partition_point(|other| other / per < at / per);
                let end = touched.partition_point(|other| other / per <= at / per);
                touched[first..end].to_vec()
            })
            .collect();
        let lengths: Vec<u64> = axes.iter().map(|axis| axis.len() as u64).collect();
        let inner_chunks = Region::whole(&lengths)
            .positions()
            .map(|nth| {
                nth.iter()
                    .zip(&axes)
                    .map(|(&nth, axis)| axis[nth as usize])
                    .collect()
            })
            .collect();
        ChunkRead {
            index: self.locate(inner).0,
            inner: inner_chunks,
        }
    }

    /// Inner chunks of a stored chunk that lie at least partly inside the array.
    pub(crate) fn inner_chunks_in_array(&self, index: &ChunkIndex) -> u64 {
        index
            .as_slice()
            .iter()
            .zip(&self.inner_per_chunk)
            .zip(self.inner_shape.iter().zip(&self.array_shape))
            .map(|((at, per), (inner, length))| {
                length.div_ceil(*inner).saturating_sub(at * per).min(*per)
            })
            .product()
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

    /// The selected cells of the inner chunk at `inner`, along each axis.
    pub(crate) fn parts(&self, inner: &[u64]) -> Vec<AxisPart> {
        inner
            .iter()
            .zip(self.selection.axes())
            .zip(self.inner_shape.iter().zip(&self.array_shape))
            .map(|((at, axis), (&length, &size))| {
                AxisPart::of(
                    axis,
                    at * length..(at * length).saturating_add(length).min(size),
                )
            })
            .collect()
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
