//! Statistics of a stored chunk: those of its inner chunks, merged.

use std::borrow::Cow;

use array::{ArrayMetadata, ChunkIndex, Elements, Region, Statistics};
use bytes::Bytes;
use codecs::{ArrayCodec, Cells, EncodedChunk};
use compute::cf::Missing;
use compute::gather::{AxisPart, gather};

/// The statistics of the cells inside the array of a chunk, from its encoded inner chunks; `None`
/// if its data type has none or its attributes are not valid.
///
/// Inner chunks merge in C order, those that are all fill value by the fill value's statistics.
///
/// # Errors
/// If it does not decode.
pub(crate) fn of_inner_chunks(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    inner: &[Option<Bytes>],
) -> Result<Option<Statistics>, codecs::Error> {
    let Some(tally) = Tally::new(codec, metadata) else {
        return Ok(None);
    };
    let inside = metadata.grid().chunk_region_in_array(index);
    let mut merging = Vec::new();
    for at in tally.inner_grid(&inside).positions() {
        let parts: Vec<AxisPart> = at
            .iter()
            .zip(codec.inner_shape().iter().zip(inside.shape()))
            .map(|(at, (&length, &end))| AxisPart::span(0..length.min(end - at * length)))
            .collect();
        merging.push(match inner.get(codec.inner_index(&at)) {
            Some(Some(bytes)) => {
                let Elements::Fixed(decoded) = codec.decode(bytes)? else {
                    return Ok(None);
                };
                tally.of(&part_of(&decoded, &parts, codec))
            }
            _ => tally.absent(&parts),
        });
    }
    Ok(Some(Statistics::merge_all(&merging)))
}

/// The statistics of the cells of one stored chunk that are inside the array: `cells`, in C order,
/// of the box `inside`. `None` if the data type has none or the attributes are not valid.
pub fn chunk_statistics(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    inside: &Region,
    cells: &Elements,
) -> Option<Statistics> {
    let (tally, Elements::Fixed(cells)) = (Tally::new(codec, metadata)?, cells) else {
        return None;
    };
    let size = codec.fill_value().as_bytes().len();
    let of = |at: Vec<u64>| {
        let parts: Vec<AxisPart> = at
            .iter()
            .zip(codec.inner_shape().iter().zip(inside.shape()))
            .map(|(at, (&length, &end))| AxisPart::span(at * length..end.min((at + 1) * length)))
            .collect();
        let cells = gather(cells, &parts, inside.shape(), size);
        match tally.is_fill(&cells) {
            true => tally.absent(&parts),
            false => tally.of(&cells),
        }
    };
    let merging: Vec<Statistics> = tally.inner_grid(inside).positions().map(of).collect();
    Some(Statistics::merge_all(&merging))
}

/// Encodes a stored chunk that is part of a larger box, as [`ArrayCodec::encode_part`], and computes
/// its statistics from the same cells; `None` if all of it is fill value.
///
/// # Errors
/// As [`ArrayCodec::encode_part`].
pub fn encode_with_statistics(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    elements: &Elements,
    shape: &[u64],
    data: &Region,
) -> Result<Option<(EncodedChunk, Option<Statistics>)>, codecs::Error> {
    let tally = match elements {
        Elements::Fixed(_) => Tally::new(codec, metadata),
        Elements::Variable(_) => None,
    };
    let mut merging = Vec::new();
    let encoded = codec.encode_part(elements, shape, data, &mut |cells| {
        let statistics = tally.as_ref().map(|tally| match cells {
            Cells::Fill(count) => tally.fill(count),
            Cells::Data(cells) => tally.of(cells),
        });
        merging.extend(statistics);
    })?;
    let statistics = tally.map(|_| Statistics::merge_all(&merging));
    Ok(encoded.map(|chunk| (chunk, statistics)))
}

/// Statistics of inner chunks of one array, which has some.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    codec: ArrayCodec,
    missing: Missing,
    /// Of one cell that holds the fill value.
    fill: Statistics,
}

impl Tally {
    pub(crate) fn new(codec: &ArrayCodec, metadata: &ArrayMetadata) -> Option<Self> {
        let missing = Missing::from_attributes(&metadata.data_type, &metadata.attributes).ok()?;
        Self::with_missing(codec.clone(), missing)
    }

    /// Those that take these values for missing; `None` if the data type has none.
    pub(crate) fn with_missing(codec: ArrayCodec, missing: Missing) -> Option<Self> {
        let fill = codec.fill_value().as_bytes();
        let fill = compute::statistics(codec.data_type(), fill, &missing)?;
        Some(Self {
            codec,
            missing,
            fill,
        })
    }

    /// Inner chunks of a stored chunk whose part in the array is `inside`.
    fn inner_grid(&self, inside: &Region) -> Region {
        let lengths = inside.shape().iter().zip(self.codec.inner_shape());
        let lengths: Vec<u64> = lengths
            .map(|(length, inner)| length.div_ceil(*inner))
            .collect();
        Region::whole(&lengths)
    }

    /// Of these cells.
    pub(crate) fn of(&self, cells: &[u8]) -> Statistics {
        let data_type = self.codec.data_type();
        compute::statistics(data_type, cells, &self.missing).unwrap_or(Statistics::EMPTY)
    }

    /// Of so many cells that hold the fill value.
    pub(crate) fn fill(&self, cells: u64) -> Statistics {
        self.fill.repeated(cells)
    }

    /// Of an inner chunk that is not stored.
    pub(crate) fn absent(&self, parts: &[AxisPart]) -> Statistics {
        self.fill(parts.iter().map(|part| part.len() as u64).product())
    }

    /// Whether an inner chunk of these cells is not stored.
    fn is_fill(&self, cells: &[u8]) -> bool {
        let fill = self.codec.fill_value().as_bytes();
        cells
            .chunks_exact(fill.len().max(1))
            .all(|cell| cell == fill)
    }
}

/// These cells of a decoded inner chunk, in C order.
pub(crate) fn part_of<'a>(
    decoded: &'a [u8],
    parts: &[AxisPart],
    codec: &ArrayCodec,
) -> Cow<'a, [u8]> {
    let mut axes = parts.iter().zip(codec.inner_shape());
    if axes.all(|(part, &length)| part.is_whole(length)) {
        return decoded.into();
    }
    let size = codec.fill_value().as_bytes().len();
    gather(decoded, parts, codec.inner_shape(), size).into()
}

/// The same from the bytes of a chunk that was just encoded or verified.
pub(crate) fn of_chunk(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    bytes: &Bytes,
) -> Option<Statistics> {
    let inner = codec.split(bytes).ok()?;
    of_inner_chunks(codec, metadata, index, &inner).ok()?
}
