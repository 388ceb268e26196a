//! Reduces an array chunk by chunk, as the read path does.

use array::{AxisSelection, Bounds, DataType, Region, Selection, shape};
use compute::gather::{self, AxisPart};
use compute::{Block, Combiner, Error, Partial, Reduction};

/// An array in memory, cut into chunks.
#[derive(Clone, Debug)]
pub(crate) struct Chunked<'a> {
    pub(crate) data_type: &'a DataType,
    pub(crate) shape: &'a [u64],
    pub(crate) bytes: &'a [u8],
    pub(crate) chunk_shape: &'a [u64],
}

impl Chunked<'_> {
    /// Reduces all of it.
    pub(crate) fn reduce(&self, reduction: Reduction, reduced: &[bool]) -> Result<Vec<u8>, Error> {
        let everything = resolve("...", self.shape);
        self.reduce_selection(reduction, reduced, &everything)
    }

    /// Reduces what `axes` select.
    pub(crate) fn reduce_selection(
        &self,
        reduction: Reduction,
        reduced: &[bool],
        axes: &[AxisSelection],
    ) -> Result<Vec<u8>, Error> {
        let size = self.data_type.size_bytes().unwrap();
        let result_size = reduction.data_type(self.data_type)?.size_bytes().unwrap();
        let selected: Vec<u64> = axes.iter().map(AxisSelection::len).collect();
        let kept: Vec<u64> = pick(
            &selected,
            reduced,
            |length, gone| if gone { 1 } else { length },
        );
        let cells = kept.iter().product::<u64>() as usize;
        if selected.contains(&0) {
            let lengths = selected.iter().zip(reduced).filter(|(_, gone)| **gone);
            let values = lengths.map(|(length, _)| length).product();
            return Partial::of_nothing(reduction, self.data_type, cells, values)?.finish();
        }
        let grid: Vec<u64> = self
            .shape
            .iter()
            .zip(self.chunk_shape)
            .map(|(length, chunk)| length.div_ceil(*chunk))
            .collect();
        let of_axes = |wanted: bool| -> Vec<u64> {
            pick(
                &grid,
                reduced,
                |length, gone| if gone == wanted { length } else { 1 },
            )
        };
        let mut out = vec![0; cells * result_size];
        for tile in Region::whole(&of_axes(false)).positions() {
            let mut partials = Vec::new();
            let mut targets = Vec::new();
            for chunk in Region::whole(&of_axes(true)).positions() {
                let parts: Vec<AxisPart> = (0..axes.len())
                    .map(|axis| {
                        let at = tile[axis] + chunk[axis];
                        let start = at * self.chunk_shape[axis];
                        let end = (start + self.chunk_shape[axis]).min(self.shape[axis]);
                        AxisPart::of(&axes[axis], start..end)
                    })
                    .collect();
                if parts.iter().any(AxisPart::is_empty) {
                    continue;
                }
                let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
                let in_array: Vec<AxisPart> = (0..axes.len())
                    .map(|axis| {
                        let start = (tile[axis] + chunk[axis]) * self.chunk_shape[axis];
                        let source = parts[axis].source.iter().map(|at| at + start).collect();
                        AxisPart {
                            source,
                            target: parts[axis].target.clone(),
                        }
                    })
                    .collect();
                let bytes = gather::gather(self.bytes, &in_array, self.shape, size);
                let places: Vec<Vec<u64>> = parts.into_iter().map(|part| part.target).collect();
                let block = Block {
                    data_type: self.data_type,
                    bytes: &bytes,
                    shape: &lengths,
                    reduced,
                    places: &places,
                    selection_shape: &selected,
                };
                partials.push(Partial::of(reduction, &block)?);
                targets = places;
            }
            let Some(partial) = Combiner::merge_all(partials) else {
                continue;
            };
            let values = partial.finish()?;
            let cells: Vec<Vec<u64>> = targets
                .into_iter()
                .zip(reduced)
                .map(|(places, &gone)| if gone { vec![0] } else { places })
                .collect();
            let lengths: Vec<u64> = cells.iter().map(|places| places.len() as u64).collect();
            for (nth, at) in Region::whole(&lengths).positions().enumerate() {
                let cell: Vec<u64> = at.iter().zip(&cells).map(|(&i, p)| p[i as usize]).collect();
                let to = shape::linear_index(&cell, &kept) as usize * result_size;
                let from = nth * result_size;
                out[to..to + result_size].copy_from_slice(&values[from..from + result_size]);
            }
        }
        Ok(out)
    }
}

/// The axes of a selection, as text has it.
pub(crate) fn resolve(text: &str, shape: &[u64]) -> Vec<AxisSelection> {
    let selection: Selection = text.parse().unwrap();
    selection
        .resolve(shape, Bounds::Clamp)
        .unwrap()
        .axes()
        .to_vec()
}

fn pick(lengths: &[u64], reduced: &[bool], of: impl Fn(u64, bool) -> u64) -> Vec<u64> {
    lengths
        .iter()
        .zip(reduced)
        .map(|(&length, &gone)| of(length, gone))
        .collect()
}
