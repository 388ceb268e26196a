//! Where the chunks of a dataset lie in its file, and which codecs say what their bytes are.
//!
//! Not for datasets whose elements it takes more than moving bytes and bits to read; they are copied.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use array::{CodecMetadata, DataType, Region};
use codecs::hdf5::{Filter, Pipeline};
use hdf5_metno::dataset::Layout as Storage;
use hdf5_metno::plist::DatasetCreate;
use hdf5_metno::plist::dataset_create::ChunkOpts;
use serde_json::json;

use super::Stored;
use super::index::Index;
use super::raw::{self, Chunk, Difference};
use super::types::Layout;
use crate::pieces::{Grid, Piece, Pieces, bytes_codec, contiguous};
use crate::source::Variable;

/// Most chunks that the library is asked for, which takes time with the square of their number.
const MAX_ASKED: u64 = 4096;

/// Numbers of filters that Zarr has a codec for.
const DEFLATE: u32 = 1;
const SHUFFLE: u32 = 2;
const FLETCHER32: u32 = 3;
const BLOSC: u32 = 32_001;
const ZSTD: u32 = 32_015;
/// Compressors of Blosc by their numbers, those that Zarr's codec has.
const BLOSC_NAMES: [(u32, &str); 5] = [
    (0, "blosclz"),
    (1, "lz4"),
    (2, "lz4hc"),
    (4, "zlib"),
    (5, "zstd"),
];

/// The pieces of a dataset; else why its values have to be copied.
pub(super) fn of(
    stored: &Stored,
    variable: &Variable,
    file: &Original<'_>,
) -> Result<Pieces, String> {
    let memory = match &stored.layout {
        Layout::Fixed(memory) | Layout::Truth(memory) => memory,
        Layout::Strings(_) => return Err("its strings are of variable length".into()),
    };
    let dataset = &stored.dataset;
    let text = |error: hdf5_metno::Error| raw::one_line(&error.to_string());
    let properties = dataset.dcpl().map_err(text)?;
    let difference = raw::difference(&dataset.dtype().map_err(text)?, memory)
        .ok_or("its elements take more than their bytes to read")?;
    let filters = raw::all_filters(&properties)?;
    let codecs = codecs(&variable.data_type, difference, filters)?;
    let element = memory.size() as u64;
    if variable.shape.contains(&0) {
        let chunk_shape = variable.shape.iter().map(|&length| length.max(1)).collect();
        return Ok(Pieces::none(chunk_shape, codecs));
    }
    match properties.layout() {
        Storage::Contiguous if stored.extent == variable.shape => {
            let Some(begin) = raw::contiguous_at(dataset) else {
                let fill = raw::fill_value(&properties, memory)?;
                let shape = contiguous(&variable.shape, element, 0, 0).0;
                return Ok(Pieces {
                    fill: Some(fill),
                    ..Pieces::none(shape, codecs)
                });
            };
            let (chunk_shape, found, to_copy) =
                contiguous(&variable.shape, element, begin, file.length);
            Ok(Pieces {
                found,
                to_copy,
                ..Pieces::none(chunk_shape, codecs)
            })
        }
        Storage::Chunked => {
            let unfiltered_edges = has_unfiltered_edges(&properties);
            let fill = raw::fill_value(&properties, memory)?;
            let chunk_shape = variable.chunk_shape.clone().unwrap_or_default();
            let pieces = Pieces::none(chunk_shape, codecs);
            chunked(stored, variable, file, pieces, fill, unfiltered_edges)
        }
        Storage::Compact => Err("its values are in its header".into()),
        _ => Err("its values are laid out in another way".into()),
    }
}

/// Whether chunks that reach past the end of a dataset are stored without its filters.
pub(super) fn has_unfiltered_edges(properties: &DatasetCreate) -> bool {
    let options = properties.chunk_opts();
    options.is_some_and(|options| options.contains(ChunkOpts::DONT_FILTER_PARTIAL_CHUNKS))
}

/// The pieces of a chunked dataset.
fn chunked(
    stored: &Stored,
    variable: &Variable,
    file: &Original<'_>,
    mut pieces: Pieces,
    fill: Vec<u8>,
    unfiltered_edges: bool,
) -> Result<Pieces, String> {
    let chunk_shape = pieces.chunk_shape.clone();
    if chunk_shape.len() != variable.shape.len() || chunk_shape.contains(&0) {
        return Err("its chunks have another number of dimensions".into());
    }
    let grid = Grid::new(&variable.shape, &chunk_shape).map_err(|error| error.to_string())?;
    let extent = Grid::new(&stored.extent, &chunk_shape).map_err(|error| error.to_string())?;
    let mut stored_chunks = 0;
    for (start, chunk) in chunks(stored, file, &extent, &chunk_shape)? {
        stored_chunks += 1;
        let index: Vec<u64> = start.iter().zip(&chunk_shape).map(|(s, l)| s / l).collect();
        let Some(place) = grid.place(&index) else {
            continue;
        };
        // Cells of the array in chunks that end with the dataset hold what the file does not say.
        let mut is_partial = false;
        let mut has_hidden = false;
        for axis in 0..start.len() {
            let end = start[axis].saturating_add(chunk_shape[axis]);
            is_partial |= end > stored.extent[axis];
            has_hidden |= end.min(variable.shape[axis]) > stored.extent[axis];
        }
        if chunk.mask != 0 || has_hidden || is_partial && unfiltered_edges {
            pieces.to_copy.push(place);
        } else {
            pieces.found.push(Piece {
                place,
                offset: chunk.address,
                length: chunk.length,
            });
        }
    }
    let is_short = stored.extent != variable.shape;
    let has_missing = stored_chunks < extent.count();
    if is_short && has_missing && fill != stored.fill {
        return Err("chunks that are missing and cells past its end have other values".into());
    }
    pieces.fill = match (is_short, has_missing) {
        (true, _) => Some(stored.fill.clone()),
        (false, true) => Some(fill),
        (false, false) => None,
    };
    Ok(pieces)
}

/// The chunks that are stored, each with its first cell.
fn chunks(
    stored: &Stored,
    file: &Original<'_>,
    extent: &Grid,
    chunk_shape: &[u64],
) -> Result<Vec<(Vec<u64>, Chunk)>, String> {
    let dataset = &stored.dataset;
    let count = raw::chunk_count(dataset)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let index = Index::open(file.file, file.length, file.user_block);
    let header = raw::header_address(dataset);
    if let Some((index, header)) = index.zip(header) {
        let mut found = Vec::new();
        let is_read = index.visit(header, &stored.extent, chunk_shape, |start, chunk| {
            found.push((start.to_vec(), chunk));
            Ok(())
        })?;
        if is_read && found.len() as u64 == count {
            return Ok(found);
        }
    }
    if extent.count() > MAX_ASKED {
        return Err(format!(
            "its {count} chunks are listed in a way that takes long to look through"
        ));
    }
    let mut found = Vec::new();
    for index in Region::whole(extent.lengths()).positions() {
        let start: Vec<u64> = index.iter().zip(chunk_shape).map(|(i, l)| i * l).collect();
        let Some(chunk) = raw::chunk_at(dataset, &start)? else {
            continue;
        };
        if !file.has(&raw::stored_chunk(dataset, &start, file.length)?, &chunk) {
            return Err("the HDF5 library does not know where its chunks are".into());
        }
        found.push((start, chunk));
    }
    match found.len() as u64 == count {
        true => Ok(found),
        false => Err("the HDF5 library does not find all of its chunks".into()),
    }
}

/// The file that a dataset is in.
pub(super) struct Original<'a> {
    pub(super) file: &'a File,
    pub(super) length: u64,
    pub(super) user_block: u64,
}

impl Original<'_> {
    /// Whether the bytes of a chunk are where it says they are.
    fn has(&self, stored: &Option<(u32, Vec<u8>)>, chunk: &Chunk) -> bool {
        let Some((_, bytes)) = stored else {
            return false;
        };
        let is_there = |base: u64| {
            let mut found = vec![0; bytes.len()];
            let offset = chunk.address.saturating_add(base);
            self.file.read_exact_at(&mut found, offset).is_ok() && found == *bytes
        };
        bytes.len() as u64 == chunk.length && (is_there(0) || is_there(self.user_block))
    }
}

/// The codecs that turn elements into a chunk as the file has it.
fn codecs(
    data_type: &DataType,
    difference: Difference,
    filters: Vec<Filter>,
) -> Result<Vec<CodecMetadata>, String> {
    let precision = difference.precision();
    let mut codecs = vec![bytes_codec(data_type, difference.is_big_endian())];
    if precision.is_none()
        && let Some(usual) = usual(&filters)
    {
        codecs.extend(usual);
        return Ok(codecs);
    }
    let pipeline = Pipeline::new(filters, precision).map_err(|error| error.to_string())?;
    codecs.push(pipeline.to_metadata());
    Ok(codecs)
}

/// Filters as codecs any Zarr client has; `None` if one has none.
fn usual(filters: &[Filter]) -> Option<Vec<CodecMetadata>> {
    let mut codecs = Vec::new();
    for (nth, Filter { id, parameters }) in filters.iter().enumerate() {
        let first = parameters.first().copied();
        match *id {
            DEFLATE => {
                let level = first.filter(|level| *level <= 9).unwrap_or(1);
                codecs.push(CodecMetadata::new(
                    "numcodecs.zlib",
                    json!({ "level": level }),
                ));
            }
            // The codec takes whole elements only, which other filters do not give.
            SHUFFLE if nth == 0 => match first? {
                0 | 1 => {}
                size => codecs.push(CodecMetadata::new(
                    "numcodecs.shuffle",
                    json!({ "elementsize": size }),
                )),
            },
            FLETCHER32 => codecs.push(CodecMetadata::new("numcodecs.fletcher32", json!({}))),
            ZSTD => {
                let level = first.filter(|level| *level <= 22).unwrap_or(3);
                let configuration = json!({ "level": level, "checksum": false });
                codecs.push(CodecMetadata::new("zstd", configuration));
            }
            BLOSC => {
                let [_, _, size, _, level, shuffle, compressor, ..] = parameters.as_slice() else {
                    return None;
                };
                let (_, name) = BLOSC_NAMES.iter().find(|(id, _)| id == compressor)?;
                let shuffle = ["noshuffle", "shuffle", "bitshuffle"].get(*shuffle as usize)?;
                let configuration = json!({
                    "cname": name,
                    "clevel": (*level).min(9),
                    "shuffle": shuffle,
                    "typesize": (*size).max(1),
                    "blocksize": 0,
                });
                codecs.push(CodecMetadata::new("blosc", configuration));
            }
            _ => return None,
        }
    }
    Some(codecs)
}
