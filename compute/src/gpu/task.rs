//! What a device is asked to do: the same reductions of boxes of the same shape.

use array::{DataType, Layout};

use super::accumulators::{Wanted, needed};
use super::cache::Key;
use super::kernels::module_of;
use super::params::CfParams;
use super::streams::Streams;
use super::walk::{Geometry, Walk};
use crate::cf::CfDecoder;

/// Most bins of a histogram that a device counts in.
const BINS_MAX: usize = 1 << 16;

/// Reductions of boxes of inner chunks of one array.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// Type of the elements as stored.
    pub data_type: &'a DataType,
    /// What stored values stand for, if not for themselves.
    pub decoder: Option<&'a CfDecoder>,
    /// Decoded bytes of an inner chunk.
    pub chunk_bytes: usize,
    /// The cells of every inner chunk that are reduced.
    pub geometry: &'a Geometry,
    /// Lengths of the whole selection, as [`Block::selection_shape`](crate::Block).
    pub selection_shape: &'a [u64],
    /// What is found of each box.
    pub wanted: &'a [Wanted<'a>],
    /// The boxes.
    pub boxes: &'a [BoxOf],
}

/// A box of an inner chunk.
#[derive(Clone, Debug)]
pub struct BoxOf {
    /// What the inner chunk is known by, if it may stay on the device.
    pub key: Option<Key>,
    /// Places of its cells in the selection, as [`Block::places`](crate::Block).
    pub places: Vec<Vec<u64>>,
}

/// An inner chunk that was put where the device takes it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// How many bytes it has in its layout. Those are there, from the first on, if nothing is left to
    /// decompress.
    pub length: usize,
    /// What is left to undo once it is decompressed.
    pub layout: Layout,
    /// What was put there instead, if the device is to decompress it.
    pub streams: Option<Streams>,
}

impl Task<'_> {
    /// Type of the values that are reduced.
    pub(super) fn measured(&self) -> &DataType {
        self.decoder.map_or(self.data_type, CfDecoder::data_type)
    }

    /// The type elements are read as: attributes may change their sign.
    pub(super) fn stored(&self) -> &DataType {
        self.decoder.map_or(self.data_type, CfDecoder::stored)
    }

    /// What kernels are told of the decoding; `None` if they do not do it.
    pub(super) fn cf(&self) -> Option<CfParams> {
        match self.decoder {
            None => Some(CfParams::none()),
            // Another sign is all that changes.
            Some(decoder) if decoder.only_changes_sign() => Some(CfParams::none()),
            Some(decoder) => CfParams::of(decoder, decoder.stored()),
        }
    }
}

/// Whether kernels do what is wanted of values of an array, whatever boxes it is wanted of.
pub fn supports(data_type: &DataType, decoder: Option<&CfDecoder>, wanted: &[Wanted<'_>]) -> bool {
    let geometry = Geometry {
        inner_shape: Vec::new(),
        stretches: Vec::new(),
        reduced: Vec::new(),
    };
    let task = Task {
        data_type,
        decoder,
        chunk_bytes: 0,
        geometry: &geometry,
        selection_shape: &[],
        wanted,
        boxes: &[],
    };
    let measured = task.measured();
    module_of(task.stored()).is_some()
        && task.cf().is_some()
        && wanted.iter().all(|wanted| match wanted {
            Wanted::Plain(reduction) => needed(reduction, measured).is_some(),
            // Kernels round to 32 or 64 bits.
            Wanted::Histogram(bins) => {
                bins.len() <= BINS_MAX
                    && bins.data_type() == measured
                    && *measured != DataType::Float16
                    && *measured != DataType::BFloat16
            }
        })
}

/// Whether boxes of this geometry can be walked.
pub fn reaches(geometry: &Geometry) -> bool {
    geometry.inner_shape.len() == geometry.stretches.len()
        && geometry.inner_shape.len() == geometry.reduced.len()
        && Walk::new(geometry, 1).is_some()
}
