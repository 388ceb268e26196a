//! What kernels are given: mirrors of the structs in `compute/kernels`.
//!
//! Every struct is plain bytes without padding, so that equal parameters are equal bytes.

use array::{DataType, Layout, Packing};
use bytemuck::{Pod, Zeroable};

use crate::cf::CfDecoder;
use crate::element::with_real;

/// Most axes of each kind (`walk.cuh`).
pub(super) const AXES: usize = 8;
/// Most values that are named missing (`load.cuh`).
pub(super) const MISSING_VALUES: usize = 8;
/// Threads of a block, and of a warp (`device.cuh`).
pub(super) const THREADS: u32 = 256;
pub(super) const WARP: u32 = 32;
/// Most bins that a block counts in its own memory (`reduce.cu`).
pub(super) const SHARED_BINS: u32 = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LayoutParams {
    kind: u32,
    swapped: u32,
    chunk_bytes: u32,
    block_bytes: u32,
    unit_bytes: u32,
    width: u32,
    offset: u32,
    filled: u32,
}

impl LayoutParams {
    /// Of chunks of so many bytes when decoded; `None` for numbers no kernel takes.
    pub(super) fn new(layout: &Layout, element_bytes: usize, chunk_bytes: usize) -> Option<Self> {
        let mut params = Self {
            swapped: u32::from(layout.is_big_endian),
            chunk_bytes: u32::try_from(chunk_bytes).ok()?,
            ..Self::zeroed()
        };
        if !layout.is_valid(element_bytes) {
            return None;
        }
        match layout.packing {
            Packing::Plain => {}
            Packing::Shuffled(blocks) | Packing::BitShuffled(blocks) => {
                let is_bits = matches!(layout.packing, Packing::BitShuffled(_));
                params.kind = if is_bits { 2 } else { 1 };
                // A longer block is the whole chunk.
                let block = blocks.block_bytes.min(chunk_bytes.max(1));
                params.block_bytes = u32::try_from(block).ok()?;
                params.unit_bytes = u32::try_from(blocks.unit_bytes).ok()?;
            }
            Packing::Bits(bits) => {
                params.kind = if bits.is_highest_first { 4 } else { 3 };
                params.width = bits.width_bits;
                params.offset = bits.offset_bits;
                params.filled = bits.filled_bits;
            }
        }
        Some(params)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct CfParams {
    decodes: u32,
    to_f32: u32,
    scales: u32,
    offsets: u32,
    scale: f64,
    offset: f64,
    missing: [u64; MISSING_VALUES],
    missing_values: u32,
    has_range: u32,
    least: u64,
    greatest: u64,
}

impl CfParams {
    /// Nothing to decode.
    pub(super) fn none() -> Self {
        Self::zeroed()
    }

    /// What a decoder does to elements it reads as `stored`; `None` if no kernel does that: results
    /// that are integers or times, or floats of 16 bits that are scaled.
    pub(super) fn of(decoder: &CfDecoder, stored: &DataType) -> Option<Self> {
        let result = decoder.data_type();
        let is_kept = result == stored && !decoder.is_packed();
        let to_f32 = *result == DataType::Float32;
        if !(to_f32 || *result == DataType::Float64 || (is_kept && result.is_float())) {
            return None;
        }
        let (scale, offset) = decoder.factors();
        // Factors are rounded to the precision of the result.
        let round = |number: f64| match to_f32 {
            true => f64::from(number as f32),
            false => number,
        };
        let (values, range) = with_real!(stored, T => decoder.limits::<T>(), else return None);
        let mut missing = [0; MISSING_VALUES];
        missing.get_mut(..values.len())?.copy_from_slice(&values);
        let (least, greatest) = range.unwrap_or_default();
        Some(Self {
            decodes: 1,
            to_f32: u32::from(to_f32),
            scales: u32::from(scale.is_some()),
            offsets: u32::from(offset.is_some()),
            scale: round(scale.unwrap_or(1.0)),
            offset: round(offset.unwrap_or(0.0)),
            missing,
            missing_values: values.len() as u32,
            has_range: u32::from(range.is_some()),
            least,
            greatest,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Rules {
    pub(super) skip: u32,
    pub(super) least: u32,
    pub(super) has_nat: u32,
    pub(super) unused: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Axes {
    pub(super) count: u32,
    pub(super) length: [u32; AXES],
    pub(super) stride: [u32; AXES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct WalkParams {
    pub(super) first: u32,
    pub(super) cells: u32,
    pub(super) turns: u32,
    pub(super) run: u32,
    pub(super) boxes: u32,
    pub(super) lanes: u32,
    pub(super) segments: u32,
    pub(super) unused: u32,
    pub(super) kept: Axes,
    pub(super) outer: Axes,
    pub(super) inner: Axes,
    /// The C++ struct ends here too: its size is a multiple of 4 alone.
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Reduce {
    pub(super) chunks: u64,
    pub(super) found: u64,
    pub(super) means: u64,
    pub(super) layout: LayoutParams,
    pub(super) cf: CfParams,
    pub(super) rules: Rules,
    pub(super) walk: WalkParams,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Fold {
    pub(super) parts: u64,
    pub(super) found: u64,
    pub(super) cells: u64,
    pub(super) turns: u32,
    pub(super) count: u32,
    pub(super) rules: Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Means {
    pub(super) sums: u64,
    pub(super) means: u64,
    pub(super) cells: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct HistogramParams {
    pub(super) chunks: u64,
    pub(super) counts: u64,
    pub(super) edges: u64,
    pub(super) bins: u32,
    pub(super) is_uniform: u32,
    pub(super) to_f32: u32,
    pub(super) per_block: u32,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) width: f64,
    pub(super) count: f64,
    pub(super) layout: LayoutParams,
    pub(super) cf: CfParams,
    pub(super) walk: WalkParams,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Widen {
    pub(super) elements: u64,
    pub(super) out: u64,
    pub(super) count: u64,
    pub(super) length: u64,
    pub(super) kind: u32,
    pub(super) are_rows: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SumsParams {
    pub(super) left: u64,
    pub(super) right: u64,
    pub(super) out: u64,
    pub(super) rows: u64,
    pub(super) columns: u64,
    pub(super) length: u64,
}

const _: () = assert!(size_of::<Reduce>() == 432 && size_of::<HistogramParams>() == 464);
