//! Chunks of other writers taken over as they are: their encoded bytes stay, only a shard is laid
//! out anew where it is not canonical.

use std::ops::Range;

use array::{ArrayMetadata, ChunkIndex, Elements, Region, Statistics};
use bytes::Bytes;
use codecs::{ArrayCodec, EncodedChunk};
use compute::gather::AxisPart;

use crate::chunk_statistics::{Tally, part_of};

/// The stored chunk that holds what the chunk or shard `bytes` of another writer does, and its
/// statistics; `None` if nothing of it is stored.
///
/// Every inner chunk is decoded once, so what comes out is whole. The encoded bytes of inner chunks
/// are kept, so a canonical shard gives itself. Two things are not: inner chunks outside the array,
/// and one at its edge with anything but fill value outside, which is encoded anew.
///
/// # Errors
/// [`codecs::Error::Corrupt`] if an inner chunk does not decode, [`codecs::Error::Array`] if the
/// index of a shard is wrong.
pub fn take_over(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    bytes: &Bytes,
) -> Result<Option<(EncodedChunk, Option<Statistics>)>, codecs::Error> {
    let found = codec.split(bytes)?;
    let total: u64 = found.iter().flatten().map(|part| part.len() as u64).sum();
    if total > bytes.len() as u64 {
        // Else few bytes could ask for any amount of memory.
        return Err(corrupt("its inner chunks overlap"));
    }
    let tally = Tally::new(codec, metadata);
    let inside = metadata.grid().chunk_region_in_array(index);
    let (mut kept, mut merging) = (vec![None; found.len()], Vec::new());
    let lengths = inside.shape().iter().zip(codec.inner_shape());
    let lengths: Vec<u64> = lengths.map(|(all, inner)| all.div_ceil(*inner)).collect();
    for at in Region::whole(&lengths).positions() {
        let lengths = at
            .iter()
            .zip(codec.inner_shape().iter().zip(inside.shape()));
        let in_bounds: Vec<u64> = lengths
            .map(|(at, (&length, &end))| length.min(end - at * length))
            .collect();
        let parts = || -> Vec<AxisPart> {
            let spans = in_bounds.iter().map(|&length| AxisPart::span(0..length));
            spans.collect()
        };
        let nth = codec.inner_index(&at);
        let mut statistics = None;
        if let Some(Some(encoded)) = found.get(nth) {
            let elements = decode(codec, encoded)?;
            kept[nth] = encode_clean(codec, encoded, &elements, &in_bounds)?;
            if let (Some(tally), Elements::Fixed(cells), Some(_)) = (&tally, &elements, &kept[nth])
            {
                statistics = Some(tally.of(&part_of(cells, &parts(), codec)));
            }
        }
        if let Some(tally) = &tally {
            merging.push(statistics.unwrap_or_else(|| tally.absent(&parts())));
        }
    }
    let chunk = codec.assemble(&kept);
    let statistics = tally.map(|_| Statistics::merge_all(&merging));
    Ok(chunk.map(|chunk| (chunk, statistics)))
}

fn decode(codec: &ArrayCodec, encoded: &Bytes) -> Result<Elements, codecs::Error> {
    if encoded.is_empty() {
        return Err(corrupt("it is empty"));
    }
    codec.decode(encoded)
}

/// The inner chunk with fill value in every cell outside the array; `None` if that is all of it.
fn encode_clean(
    codec: &ArrayCodec,
    encoded: &Bytes,
    elements: &Elements,
    in_bounds: &[u64],
) -> Result<Option<Bytes>, codecs::Error> {
    if in_bounds == codec.inner_shape() || is_clean(codec, elements, in_bounds) {
        return Ok(Some(encoded.clone()));
    }
    let Some(clean) = codec.encode_inner(elements, in_bounds)? else {
        return Ok(None);
    };
    // A lossy codec need not give the same cells again; the bytes as they were do.
    let again = codec.decode(&clean)?;
    let is_same = rows(codec, in_bounds)
        .all(|row| run(codec, &again, row.inside.clone()).eq(run(codec, elements, row.inside)));
    Ok(Some(match is_same {
        true => clean.into(),
        false => encoded.clone(),
    }))
}

/// Whether every cell outside `in_bounds` holds the fill value.
fn is_clean(codec: &ArrayCodec, elements: &Elements, in_bounds: &[u64]) -> bool {
    let fill = codec.fill_value().as_bytes();
    rows(codec, in_bounds).all(|row| run(codec, elements, row.outside).all(|cell| cell == fill))
}

/// Cells of an inner chunk along its last dimension, by their numbers in C order.
struct Row {
    inside: Range<usize>,
    outside: Range<usize>,
}

/// The rows of an inner chunk, which has a dimension, cut at `in_bounds`.
fn rows(codec: &ArrayCodec, in_bounds: &[u64]) -> impl Iterator<Item = Row> {
    let (last, outer) = codec.inner_shape().split_last().unwrap_or((&1, &[]));
    let (bound, bounds) = in_bounds.split_last().unwrap_or((&1, &[]));
    let numbered = Region::whole(outer).positions().enumerate();
    numbered.map(move |(nth, at)| {
        let start = nth * *last as usize;
        let is_inside = at.iter().zip(bounds).all(|(at, bound)| at < bound);
        let middle = start + if is_inside { *bound as usize } else { 0 };
        Row {
            inside: start..middle,
            outside: middle..start + *last as usize,
        }
    })
}

fn run<'a>(
    codec: &ArrayCodec,
    elements: &'a Elements,
    cells: Range<usize>,
) -> impl Iterator<Item = &'a [u8]> {
    let size = codec.fill_value().as_bytes().len();
    cells.map(move |cell| match elements {
        Elements::Fixed(bytes) => &bytes[cell * size..(cell + 1) * size],
        Elements::Variable(values) => values.get(cell).unwrap_or_default(),
    })
}

fn corrupt(reason: &str) -> codecs::Error {
    codecs::Error::Corrupt {
        what: "chunk",
        reason: reason.to_owned(),
    }
}
