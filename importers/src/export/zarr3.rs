//! Zarr v3: stored chunks as they are, or cells cut by a grid of their own.
//!
//! Chunks go first, then the metadata of what is below, then that of the top: without it there is
//! nothing to open.

use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, FillValue, NodeMetadata, Region, RegularGrid,
    Sharding,
};
use bytes::Bytes;
use codecs::ArrayCodec;
use futures::{StreamExt as _, TryStreamExt as _};
use query::Engine;
use serde_json::json;
use storage::ChunkRow;

use super::destination::Folder;
use super::tally::Tally;
use super::view::{View, Viewed, ViewedArray};
use crate::blocking::blocking;
use crate::consolidated::consolidated;
use crate::zarr::{default_codecs, inner_codecs};
use crate::{Error, boxes};

/// Stored chunks copied at once: enough to hide the latency of an object store.
const COPIES_IN_FLIGHT: usize = 8;
/// Rows of the manifest asked for together: a bounded part of memory however large the grid.
const ROWS_AT_ONCE: u64 = 1 << 16;
/// Bytes of cells being encoded at once, about.
const ENCODED_AT_ONCE: u64 = 64 << 20;
/// A chunk takes about this many times its size more while it is encoded.
pub(super) const ENCODING_FACTOR: u64 = 3;

/// What is written, decided before anything is.
pub(super) struct Plan<'a> {
    /// Paths and nodes, parents first.
    nodes: Vec<(&'a str, NodeMetadata, Option<Cells<'a>>)>,
}

/// Where the chunks of an array come from.
enum Cells<'a> {
    /// They are copied as stored.
    Stored(&'a ViewedArray),
    /// They are read, and encoded by these codecs.
    Encoded(&'a ViewedArray, ArrayCodec),
}

impl<'a> Plan<'a> {
    /// # Errors
    /// [`Error::Codecs`] if an array's own chunk shapes cannot be.
    pub(super) fn new(view: &'a View) -> Result<Self, Error> {
        let mut nodes = Vec::new();
        for node in &view.nodes {
            nodes.push(match node {
                Viewed::Group(group) => {
                    let metadata = NodeMetadata::Group(group.metadata.clone());
                    (group.below.as_str(), metadata, None)
                }
                Viewed::Array(array) => {
                    let (metadata, cells) = match array.is_verbatim() {
                        true => {
                            let metadata = array.reader.metadata();
                            // Chunks are copied as Zarr clients are given them.
                            let shown = codecs::served(metadata);
                            let metadata = shown.unwrap_or_else(|| metadata.clone());
                            (metadata, Cells::Stored(array))
                        }
                        false => {
                            let metadata = metadata_of(array)?;
                            let codec = ArrayCodec::new(&metadata)?;
                            (metadata, Cells::Encoded(array, codec))
                        }
                    };
                    let metadata = NodeMetadata::Array(metadata);
                    (array.below.as_str(), metadata, Some(cells))
                }
            });
        }
        Ok(Self { nodes })
    }

    pub(super) async fn write(
        &self,
        engine: &Engine,
        folder: &Folder,
        tally: &Tally<'_>,
    ) -> Result<(), Error> {
        let cells = || self.nodes.iter().filter_map(|(_, _, cells)| cells.as_ref());
        let bytes = cells().map(|cells| match cells {
            Cells::Stored(array) => array.reader.node().stored_bytes(),
            Cells::Encoded(array, _) => array.bytes(),
        });
        tally.expect(cells().count() as u64, bytes.fold(0, u64::saturating_add));
        for (below, metadata, cells) in &self.nodes {
            let (Some(cells), NodeMetadata::Array(metadata)) = (cells, metadata) else {
                continue;
            };
            let prefix = prefix(below);
            let key =
                |index: &ChunkIndex| format!("{prefix}{}", metadata.chunk_key_encoding.key(index));
            match cells {
                Cells::Stored(array) => copy(engine, folder, array, key, tally).await?,
                Cells::Encoded(array, codec) => {
                    encode(engine, folder, array, metadata.grid(), codec, key, tally).await?;
                }
            }
        }
        // What is below first, the top last.
        for (below, metadata, _) in self.nodes.iter().rev() {
            let prefix = prefix(below);
            let members = self.nodes.iter().filter_map(|(other, metadata, _)| {
                let path = other.strip_prefix(prefix.as_str())?;
                (!path.is_empty()).then(|| (path.to_owned(), metadata.clone()))
            });
            let document = consolidated(metadata, members);
            folder
                .put(&format!("{prefix}zarr.json"), document.into())
                .await?;
        }
        Ok(())
    }
}

/// What keys below a path start with.
pub(super) fn prefix(below: &str) -> String {
    match below {
        "" => String::new(),
        below => format!("{below}/"),
    }
}

/// Copies the stored chunks of an array, every byte verified.
async fn copy(
    engine: &Engine,
    folder: &Folder,
    array: &ViewedArray,
    key: impl Fn(&ChunkIndex) -> String,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    tally.begin(&array.path());
    let node = array.reader.node();
    let key = &key;
    for part in parts(&array.reader.metadata().grid().grid_shape())? {
        let rows = node.chunks(&part).await?;
        futures::stream::iter(rows)
            .map(|row: ChunkRow| async move {
                let bytes = match row.length {
                    0 => Bytes::new(),
                    _ => engine.zarr_bytes(&array.reader, &row).await?,
                };
                folder.put(&key(&row.index), bytes).await?;
                tally.chunk(row.length);
                Ok::<_, Error>(())
            })
            .buffer_unordered(COPIES_IN_FLIGHT)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

/// A chunk grid in boxes of a bounded number of chunks.
fn parts(grid: &[u64]) -> Result<impl Iterator<Item = Region> + use<>, Error> {
    array::shape::elements(grid)?;
    let ones = vec![1; grid.len()];
    Ok(super::view::Runs::new(grid, &ones, ROWS_AT_ONCE))
}

/// Reads an array chunk by chunk of `grid`, encodes each and puts it.
pub(super) async fn encode(
    engine: &Engine,
    folder: &Folder,
    array: &ViewedArray,
    grid: &RegularGrid,
    codec: &ArrayCodec,
    key: impl Fn(&ChunkIndex) -> String,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    tally.begin(&array.path());
    let multiply = |bytes: u64, length: &u64| bytes.saturating_mul(*length);
    let chunk_bytes = grid.chunk_shape().iter().fold(array.cell_bytes(), multiply);
    let in_flight = (ENCODED_AT_ONCE / chunk_bytes.max(1)).clamp(1, COPIES_IN_FLIGHT as u64);
    let key = &key;
    futures::stream::iter(Region::whole(&grid.grid_shape()).positions())
        .map(|at| async move {
            let index = ChunkIndex::new(at);
            let region = grid.chunk_region_in_array(&index);
            let room = chunk_bytes.saturating_mul(ENCODING_FACTOR);
            let (tensor, _room) = array.read_with_room(engine, &region, room).await?;
            let bytes = tensor.elements.size_bytes() as u64;
            let whole = grid.chunk_region(&index);
            let codec = codec.clone();
            let encoded = blocking(move || {
                let fill = codec.fill_value().as_bytes();
                let elements = match whole == region {
                    true => tensor.elements,
                    false => {
                        boxes::fit(codec.data_type(), fill, &tensor.elements, &region, &whole)?
                    }
                };
                Ok(codec.encode(&elements, region.shape())?)
            });
            if let Some(chunk) = encoded.await? {
                folder.put(&key(&index), chunk.bytes).await?;
            }
            tally.chunk(bytes);
            Ok::<_, Error>(())
        })
        .buffer_unordered(in_flight as usize)
        .try_collect::<()>()
        .await
}

/// The metadata of an array of which a part, or decoded values, are exported: the shapes of chunks and
/// the codecs stay where they can.
fn metadata_of(array: &ViewedArray) -> Result<ArrayMetadata, Error> {
    let stored = array.reader.metadata();
    let shape = array.shape();
    let inner: Vec<u64> = array
        .inner_shape()
        .iter()
        .zip(&shape)
        .map(|(inner, length)| (*inner).min((*length).max(1)))
        .collect();
    // A whole number of inner chunks, no more than the array needs.
    let shard: Vec<u64> = array
        .chunk_shape()
        .iter()
        .zip(&inner)
        .zip(&shape)
        .map(|((shard, inner), length)| {
            let needed = length.div_ceil(*inner).max(1);
            (shard / inner).clamp(1, needed) * inner
        })
        .collect();
    let own = match Sharding::of(stored)? {
        Some(sharding) => sharding.inner_codecs().to_vec(),
        None => stored.codecs.clone(),
    };
    let is_alike = array.data_type == stored.data_type && shape.len() == stored.dimensions();
    let make = |codecs: &[CodecMetadata]| -> Result<ArrayMetadata, Error> {
        let sharding = CodecMetadata::new(
            "sharding_indexed",
            json!({
                "chunk_shape": inner,
                "codecs": codecs.iter().map(CodecMetadata::to_json).collect::<Vec<_>>(),
                "index_codecs": [
                    { "name": "bytes", "configuration": { "endian": "little" } },
                    { "name": "crc32c" },
                ],
                "index_location": "end",
            }),
        );
        let is_sharded = Sharding::of(stored)?.is_some();
        let (chunk, codecs) = match is_sharded {
            true => (shard.clone(), vec![sharding]),
            false => (inner.clone(), codecs.to_vec()),
        };
        let grid = RegularGrid::new(shape.clone(), chunk)?;
        let mut metadata = ArrayMetadata::new(grid, array.data_type.clone(), codecs);
        metadata.fill_value = FillValue::from_bytes(&array.data_type, array.fill())?;
        metadata.chunk_key_encoding = stored.chunk_key_encoding;
        metadata.attributes = array.attributes.clone();
        metadata.extra = stored.extra.clone();
        if stored.dimension_names().is_some() {
            metadata.set_dimension_names(array.dimensions())?;
        }
        // Codecs that do not go with the new shape or type show here.
        ArrayCodec::new(&metadata)?;
        Ok(metadata)
    };
    if is_alike && let Ok(metadata) = make(&own) {
        return Ok(metadata);
    }
    let defaults = inner_codecs(&array.data_type, &default_codecs());
    let defaults = CodecMetadata::parse_list(&serde_json::Value::Array(defaults))?;
    make(&defaults)
}
