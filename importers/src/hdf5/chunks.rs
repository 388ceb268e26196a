//! Chunks of the usual filters, decoded here and not by the HDF5 library.
//!
//! ```text
//! stored bytes (one thread at a time, in the library) ─► filters undone, bounded (many) ─► box
//! ```
//!
//! The library inflates a chunk to whatever it claims, takes a chunk that is too short for a whole
//! one, and lets one thread work at a time. Here a chunk is exactly as long as it must be, what it
//! takes on the way is bounded by that, and several are decoded at once.
//!
//! Left to the library: filters that [`Pipeline`] does not know, types it converts in another way than
//! by moving bytes and bits, and chunks that are not there.

use std::thread;

use array::{Region, shape};
use codecs::hdf5::Pipeline;
use hdf5_metno::{Dataset, Datatype};

use super::index::Index;
use super::pieces::has_unfiltered_edges;
use super::raw;
use crate::{boxes, parallel};

/// Largest chunk with filters that is read: it is in memory whole, before and after they are undone.
pub(super) const MAX_CHUNK_BYTES: u64 = 512 << 20;
/// Chunks being decoded at once take at most this much, unless it is one.
const MAX_DECODING_BYTES: u64 = 128 << 20;
/// What filters may add to a chunk that does not compress, besides an eighth of it.
const SLACK_BYTES: u64 = 64 << 10;
/// Refuses chunks with filters that are too large to be in memory whole.
pub(super) fn check_size(dataset: &Dataset) -> Result<(), String> {
    let Some(chunk) = dataset.chunk().filter(|_| !dataset.filters().is_empty()) else {
        return Ok(());
    };
    let element = dataset.dtype().map_or(1, |dtype| dtype.size()) as u64;
    let multiply = |bytes: u64, &length: &usize| bytes.saturating_mul(length as u64);
    let bytes = chunk.iter().fold(element, multiply);
    if bytes > MAX_CHUNK_BYTES {
        return Err(format!(
            "its chunks are of {} MiB, the most is {}; rewrite it with smaller ones, as nccopy -c does",
            bytes >> 20,
            MAX_CHUNK_BYTES >> 20
        ));
    }
    Ok(())
}

/// Refuses a dataset of shape `extent` in whose index of chunks the library would not find all of them,
/// or which gives chunks without filters another length than they have. `element_bytes` are those of an
/// element in the file, unless that is not known.
pub(super) fn check_index(
    dataset: &Dataset,
    extent: &[u64],
    element_bytes: Option<u64>,
    index: &Index<'_>,
) -> Result<(), String> {
    let Some((chunk, header)) = dataset.chunk().zip(raw::header_address(dataset)) else {
        return Ok(());
    };
    let chunk_shape: Vec<u64> = chunk.iter().map(|&length| length as u64).collect();
    let count = shape::elements(&chunk_shape).map_err(|error| error.to_string())?;
    let chunk_bytes = match dataset.filters().is_empty() {
        true => element_bytes.and_then(|bytes| bytes.checked_mul(count)),
        false => None,
    };
    let read = index.visit(
        header,
        extent,
        &chunk_shape,
        |start, chunk| match chunk_bytes.filter(|bytes| *bytes != chunk.length) {
            None => Ok(()),
            Some(bytes) => Err(format!(
                "its chunk at {start:?} takes {} bytes, not {bytes}",
                chunk.length
            )),
        },
    );
    read.map(|_| ())
}

/// How the chunks of a dataset are decoded.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    pipeline: Pipeline,
    chunk_shape: Vec<u64>,
    chunk_bytes: usize,
    element_bytes: usize,
    /// Whether the bytes of elements are in the other order.
    is_swapped: bool,
    /// The dataset's shape, if chunks that reach past it have no filters.
    unfiltered_past: Option<Vec<u64>>,
}

impl Chunks {
    /// How to decode the chunks of a dataset read as `memory`; `None` if the library has to.
    pub(super) fn of(dataset: &Dataset, memory: &Datatype) -> Option<Self> {
        let properties = dataset.dcpl().ok()?;
        let chunk = dataset.chunk()?;
        let chunk_shape: Vec<u64> = chunk.iter().map(|&length| length as u64).collect();
        let filters = raw::all_filters(&properties).ok()?;
        let difference = raw::difference(&dataset.dtype().ok()?, memory)?;
        let element_bytes = memory.size();
        let count = shape::elements(&chunk_shape).ok()?;
        let chunk_bytes = count.checked_mul(element_bytes as u64)?;
        let is_usual = !filters.is_empty() && chunk_bytes > 0 && chunk_bytes <= MAX_CHUNK_BYTES;
        if !is_usual {
            return None;
        }
        let extent = || {
            dataset
                .shape()
                .iter()
                .map(|&length| length as u64)
                .collect()
        };
        Some(Self {
            pipeline: Pipeline::new(filters, difference.precision()).ok()?,
            chunk_shape,
            chunk_bytes: chunk_bytes as usize,
            element_bytes,
            is_swapped: difference.is_big_endian(),
            unfiltered_past: has_unfiltered_edges(&properties).then(extent),
        })
    }

    /// Reads a box of `dataset` into `out`, which takes exactly it, in C order and little-endian.
    pub(super) fn read(
        &self,
        dataset: &Dataset,
        memory: &Datatype,
        region: &Region,
        out: &mut [u8],
    ) -> Result<(), String> {
        if region.is_empty() {
            return Ok(());
        }
        let origins = origins(&self.chunk_shape, region);
        let room = MAX_DECODING_BYTES / (3 * self.chunk_bytes as u64);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(room as usize);
        parallel::for_each(
            &origins,
            threads,
            |origin| self.decoded(dataset, origin),
            |origin, decoded| self.put(decoded?, dataset, memory, origin, region, out),
        )
    }

    /// The elements of a chunk; `None` if it was never written.
    fn decoded(&self, dataset: &Dataset, origin: &[u64]) -> Result<Option<Vec<u8>>, String> {
        let limit = self.chunk_bytes as u64 / 8 * 9 + SLACK_BYTES;
        let Some((mask, stored)) = raw::stored_chunk(dataset, origin, limit)? else {
            return Ok(None);
        };
        let mask = if self.is_unfiltered(origin) {
            u32::MAX
        } else {
            mask
        };
        let decoded = self.pipeline.decode_masked(&stored, mask, self.chunk_bytes);
        let mut bytes = decoded.map_err(|error| format!("its chunk at {origin:?}: {error}"))?;
        if self.is_swapped {
            let elements = bytes.chunks_exact_mut(self.element_bytes);
            elements.for_each(<[u8]>::reverse);
        }
        Ok(Some(bytes))
    }

    /// Whether filters are not applied to the chunk at `origin`.
    fn is_unfiltered(&self, origin: &[u64]) -> bool {
        let Some(extent) = &self.unfiltered_past else {
            return false;
        };
        let mut axes = 0..extent.len();
        axes.any(|axis| origin[axis].saturating_add(self.chunk_shape[axis]) > extent[axis])
    }

    fn put(
        &self,
        decoded: Option<Vec<u8>>,
        dataset: &Dataset,
        memory: &Datatype,
        origin: &[u64],
        region: &Region,
        out: &mut [u8],
    ) -> Result<(), String> {
        let chunk = Region::new(origin.to_vec(), self.chunk_shape.clone());
        let chunk = chunk.map_err(|error| error.to_string())?;
        if let Some(decoded) = decoded {
            boxes::copy(self.element_bytes, &decoded, &chunk, out, region);
            return Ok(());
        }
        // The library knows what fills it.
        let part = chunk.intersect(region);
        let length = shape::elements(part.shape()).map_err(|error| error.to_string())?;
        let mut filled = vec![0; length as usize * self.element_bytes];
        raw::read_dataset(dataset, memory, &part, &mut filled)?;
        boxes::copy(self.element_bytes, &filled, &part, out, region);
        Ok(())
    }
}

/// Corners of the chunks that have a part of `region`, in C order.
pub(super) fn origins(chunk_shape: &[u64], region: &Region) -> Vec<Vec<u64>> {
    let axes = 0..chunk_shape.len();
    let first = axes
        .clone()
        .map(|axis| region.start()[axis] / chunk_shape[axis]);
    let first: Vec<u64> = first.collect();
    let count = axes.map(|axis| region.range(axis).end.div_ceil(chunk_shape[axis]) - first[axis]);
    let grid = Region::whole(&count.collect::<Vec<u64>>());
    let corner = |at: Vec<u64>| -> Vec<u64> {
        let places = at.iter().zip(&first).zip(chunk_shape);
        places
            .map(|((at, first), length)| (first + at) * length)
            .collect()
    };
    grid.positions().map(corner).collect()
}
