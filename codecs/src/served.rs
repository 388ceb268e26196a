//! What Zarr clients see of arrays whose codecs only Quarr has.
//!
//! Chunks of HDF5 files may be stored in ways no Zarr codec knows ([`crate::hdf5`]). Such an array is
//! shown with ordinary codecs, and its chunks are encoded anew as they are asked for.

use array::{ArrayMetadata, CodecMetadata, DataType};
use serde_json::json;

use crate::hdf5;

/// The metadata to show of an array; `None` if its own is what any Zarr client reads.
///
/// Shape, chunks, data type and everything else stay; codecs before the elements become bytes stay.
pub fn served(metadata: &ArrayMetadata) -> Option<ArrayMetadata> {
    let codecs = &metadata.codecs;
    codecs.iter().find(|codec| codec.name == hdf5::CODEC_NAME)?;
    let before = codecs.iter().take_while(|codec| codec.name != "bytes");
    let bytes = match &metadata.data_type {
        DataType::NullTerminatedBytes { .. }
        | DataType::RawBytes { .. }
        | DataType::RawBits { .. } => json!({}),
        other if other.size_bytes() == Some(1) => json!({}),
        _ => json!({ "endian": "little" }),
    };
    let zstd = json!({ "level": 1, "checksum": false });
    let mut shown = metadata.clone();
    shown.codecs = before
        .cloned()
        .chain([
            CodecMetadata::new("bytes", bytes),
            CodecMetadata::new("zstd", zstd),
        ])
        .collect();
    Some(shown)
}

/// What a client that was shown an array's metadata means when it writes `written`: codecs it only
/// knows as they are shown stay those of the array.
pub fn stored_as(stored: &ArrayMetadata, mut written: ArrayMetadata) -> ArrayMetadata {
    if let Some(shown) = served(stored)
        && shown.codecs == written.codecs
        && shown.chunk_shape() == written.chunk_shape()
        && shown.data_type == written.data_type
    {
        written.codecs.clone_from(&stored.codecs);
    }
    written
}
