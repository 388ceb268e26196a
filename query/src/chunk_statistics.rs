//! Statistics of a stored chunk.

use array::{ArrayMetadata, ChunkIndex, Elements, Statistics};
use bytes::Bytes;
use codecs::ArrayCodec;
use compute::cf::Missing;
use compute::gather::{AxisPart, gather};

/// The statistics of the cells inside the array of a chunk, from its encoded inner chunks; `None`
/// if its data type has none or its attributes are not valid.
///
/// # Errors
/// If it does not decode.
pub(crate) fn of_inner_chunks(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    inner: &[Option<Bytes>],
) -> Result<Option<Statistics>, codecs::Error> {
    let Elements::Fixed(cells) = codec.decode_whole(inner)? else {
        return Ok(None);
    };
    let Ok(missing) = Missing::from_attributes(&metadata.data_type, &metadata.attributes) else {
        return Ok(None);
    };
    let inside = metadata.grid().chunk_region_in_array(index);
    let whole = |&length: &u64| {
        let places: Vec<u64> = (0..length).collect();
        AxisPart {
            source: places.clone(),
            target: places,
        }
    };
    let parts: Vec<AxisPart> = inside.shape().iter().map(whole).collect();
    let size = codec.fill_value().as_bytes().len();
    let cells = gather(&cells, &parts, codec.chunk_shape(), size);
    Ok(compute::statistics(&metadata.data_type, &cells, &missing))
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
