//! How a variable is chunked and compressed.

use super::Findings;
use super::file::{File, Place};

/// Arrays below this size are read whole, however they are chunked.
const SMALL_BYTES: u64 = 4 << 20;
/// Chunks below this size cost more to find than to read.
const TINY_BYTES: u64 = 8 << 10;
/// One chunk above this size is too much to decompress for a point.
const WHOLE_BYTES: u64 = 64 << 20;
/// Chunk cache of netCDF-C; a larger chunk is decompressed anew by each read of a part of it.
const CACHE_BYTES: u64 = 16 << 20;
/// Compression by deflate gains next to nothing above this level.
const DEFLATE_LEVEL: u8 = 6;
/// From this many chunks on, reading along the unlimited dimension is slow.
const MANY: u64 = 256;

pub(super) fn check(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    let storage = file.source.storage(place.variable);
    if let Some(level) = storage.deflate_level.filter(|&level| level > DEFLATE_LEVEL) {
        findings.warn(
            "deflate-level",
            None,
            format!("it is compressed with deflate at level {level}"),
            "use level 1 to 4: more takes several times as long for a few percent",
        );
    }
    let Some(chunk) = &place.variable.chunk_shape else {
        return;
    };
    let shape = &place.variable.shape;
    let element = place.variable.data_type.size_bytes().unwrap_or(32) as u64;
    let bytes = |lengths: &[u64]| {
        lengths
            .iter()
            .fold(element, |bytes, &length| bytes.saturating_mul(length))
    };
    let (all, one) = (bytes(shape), bytes(chunk));
    let pairs = || shape.iter().zip(chunk);
    let count = pairs().fold(1u64, |count, (length, chunk)| {
        count.saturating_mul(length.div_ceil((*chunk).max(1)))
    });
    let unlimited_alone = |axis: usize| {
        storage.unlimited.get(axis) == Some(&true) && chunk[axis] == 1 && shape[axis] >= MANY
    };
    let is_large = all > SMALL_BYTES;
    if (0..shape.len().min(chunk.len())).any(unlimited_alone) && one < TINY_BYTES {
        findings.warn(
            "chunk-unlimited",
            None,
            format!("its chunks are 1 long along an unlimited dimension: {count} of {one} bytes"),
            "rewrite it with longer chunks, like nccopy -c time/512",
        );
    } else if is_large && one < TINY_BYTES {
        findings.warn(
            "chunk-tiny",
            None,
            format!(
                "its {count} chunks {} have only {one} bytes each",
                shown(chunk)
            ),
            "rewrite it with chunks of about 1 MiB",
        );
    } else if one > WHOLE_BYTES && count <= 1 {
        findings.warn(
            "chunk-whole",
            None,
            format!("all of it is one chunk of {} MiB", one >> 20),
            "rewrite it with chunks of about 1 MiB: now any read decompresses everything",
        );
    } else if one > CACHE_BYTES && is_large {
        findings.warn(
            "chunk-cache",
            None,
            format!("its chunks {} of {} MiB are larger than the usual chunk cache of 16 MiB", shown(chunk), one >> 20),
            "rewrite it with chunks of about 1 MiB: now each read of a part decompresses all of it again",
        );
    }
    if is_large && bytes(chunk) > bytes(shape).saturating_mul(2) {
        findings.warn(
            "chunk-overhang",
            None,
            format!(
                "its chunks {} are larger than the data {}",
                shown(chunk),
                shown(shape)
            ),
            "choose chunks no longer than the dimensions",
        );
    }
}

fn shown(lengths: &[u64]) -> String {
    let lengths: Vec<String> = lengths.iter().map(u64::to_string).collect();
    lengths.join("×")
}
