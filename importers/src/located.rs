//! Chunks of a variable where they lie in its file, decoded without the reader of the file.
//!
//! ```text
//! places and codecs, as the reader tells ─► compared with what it reads ─► ranges read, decoded
//!                                        └► else: only the reader can       (any trouble: the reader)
//! ```
//!
//! What the reader tells is not believed: chunks are compared at the first and the last place, and
//! every size is checked before it is allocated.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::thread;

use array::{ArrayMetadata, ChunkIndex, Elements, FillValue, Region, RegularGrid, shape};
use codecs::ArrayCodec;

use crate::pieces::{Piece, Pieces};
use crate::source::Variable;
use crate::{Error, boxes, parallel};

/// Longest chunk that is taken from where it lies: it is read whole, whatever is asked for.
const MAX_PIECE_BYTES: u64 = 1 << 30;
/// Chunks of each variable that are compared with what the reader gives.
const PROBED: usize = 2;
/// Largest decoded chunk that [`Located::read`] decodes itself.
const MAX_DECODED_BYTES: u64 = 64 << 20;
/// Chunks being decoded at once take at most this much, unless it is one.
const MAX_DECODING_BYTES: u64 = 128 << 20;
/// What a chunk takes while it is decoded, by its decoded size.
const DECODING_FACTOR: u64 = 3;
/// What codecs may add to a chunk that does not compress, besides an eighth of it.
const SLACK_BYTES: u64 = 64 << 10;

/// Chunks of an array that lie in a file.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// Its chunks and codecs are those of the file.
    pub(crate) metadata: ArrayMetadata,
    pub(crate) codec: ArrayCodec,
    /// Ascending by place, their offsets from the first byte of the file.
    pub(crate) found: Vec<Piece>,
    /// Numbers of chunks that are there in another way, ascending.
    pub(crate) to_copy: Vec<u64>,
    /// Whether all others hold the fill value.
    has_fill: bool,
}

impl Located {
    /// The chunks of the array that `metadata` tells the rest of, in `file` of so many bytes. `read` gives
    /// the values of a box by the file's reader.
    ///
    /// # Errors
    /// Why they are not to be had so.
    pub(crate) fn of(
        mut metadata: ArrayMetadata,
        pieces: Pieces,
        (file, file_bytes): (&File, u64),
        read: &dyn Fn(&Region) -> Result<Elements, Error>,
    ) -> Result<Self, String> {
        if let Some(piece) = pieces.found.iter().find(|p| p.length > MAX_PIECE_BYTES) {
            return Err(format!("it has a chunk of {} bytes", piece.length));
        }
        let text = |error: array::Error| error.to_string();
        metadata.set_chunk_shape(pieces.chunk_shape).map_err(text)?;
        metadata.codecs = pieces.codecs;
        let has_fill = pieces.fill.is_some();
        if let Some(fill) = pieces.fill {
            metadata.fill_value = FillValue::from_bytes(&metadata.data_type, fill).map_err(text)?;
        }
        let codec = ArrayCodec::new(&metadata).map_err(|error| error.to_string())?;
        let mut located = Self {
            metadata,
            codec,
            found: pieces.found,
            to_copy: pieces.to_copy,
            has_fill,
        };
        let base = located.probe(pieces.user_block, file, read)?;
        for piece in &mut located.found {
            piece.offset = piece.offset.saturating_add(base);
            let end = piece.offset.checked_add(piece.length);
            if end.is_none_or(|end| end > file_bytes) {
                return Err(format!(
                    "a chunk of it is at byte {} of a file of {file_bytes}",
                    piece.offset
                ));
            }
        }
        located.found.sort_unstable_by_key(|piece| piece.place);
        located.to_copy.sort_unstable();
        Ok(located)
    }

    /// The chunks of a variable, to be read.
    ///
    /// # Errors
    /// As [`Located::of`].
    pub(crate) fn of_variable(
        variable: &Variable,
        pieces: Pieces,
        file: (&File, u64),
        read: &dyn Fn(&Region) -> Result<Elements, Error>,
    ) -> Result<Self, String> {
        let text = |error: array::Error| error.to_string();
        let (shape, chunk) = (variable.shape.clone(), pieces.chunk_shape.clone());
        let grid = RegularGrid::new(shape, chunk).map_err(text)?;
        let codecs = pieces.codecs.clone();
        let metadata = ArrayMetadata::new(grid, variable.data_type.clone(), codecs);
        let located = Self::of(metadata, pieces, file, read)?;
        if located.codec.decoded_bytes() as u64 > MAX_DECODED_BYTES {
            return Err("its chunks are large".into());
        }
        Ok(located)
    }

    /// Compares some chunks with what the reader gives; gives what to add to their offsets.
    fn probe(
        &self,
        user_block: u64,
        file: &File,
        read: &dyn Fn(&Region) -> Result<Elements, Error>,
    ) -> Result<u64, String> {
        let mut bases = vec![0, user_block];
        bases.dedup();
        let mut reason = String::new();
        for base in bases {
            let found = &self.found;
            let some = found.iter().take(1).chain(found.iter().skip(1).last());
            let probed = some
                .take(PROBED)
                .try_for_each(|piece| self.compare(piece, base, file, read));
            match probed {
                Ok(()) => return Ok(base),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    fn compare(
        &self,
        piece: &Piece,
        base: u64,
        file: &File,
        read: &dyn Fn(&Region) -> Result<Elements, Error>,
    ) -> Result<(), String> {
        let index = self.index(piece.place);
        let mut bytes = vec![0; piece.length.min(MAX_PIECE_BYTES) as usize];
        let offset = piece.offset.saturating_add(base);
        file.read_exact_at(&mut bytes, offset)
            .map_err(|_| format!("a chunk of it, at byte {offset}, is not in the file"))?;
        let decoded = self.codec.decode(&bytes).map_err(|error| {
            format!("its chunk at byte {offset} is not as its codecs have it: {error}")
        })?;
        // A filter that is not installed keeps the reader from it, which is no reason not to.
        let Ok(expected) = read(&self.metadata.grid().chunk_region_in_array(&index)) else {
            return Ok(());
        };
        let found = self.inside(&decoded, &index).map_err(|e| e.to_string())?;
        match found == expected {
            true => Ok(()),
            false => Err("its chunks are not what its codecs say".to_owned()),
        }
    }

    /// The index of the chunk with this number.
    pub(crate) fn index(&self, place: u64) -> ChunkIndex {
        let grid = self.metadata.grid().grid_shape();
        ChunkIndex::new(shape::coordinate(place, &grid))
    }

    /// Those of a chunk's elements that are in the array.
    pub(crate) fn inside(
        &self,
        elements: &Elements,
        index: &ChunkIndex,
    ) -> Result<Elements, Error> {
        let grid = self.metadata.grid();
        let region = grid.chunk_region_in_array(index);
        let whole = grid.chunk_region(index);
        let fill = self.codec.fill_value().as_bytes();
        boxes::fit(self.codec.data_type(), fill, elements, &whole, &region)
    }

    /// Reads a box, in C order and little-endian; by `read`, which is the file's reader, whatever chunk
    /// does not come as it should. Blocks.
    ///
    /// # Errors
    /// Those of `read`; [`Error::Array`] if the box is too large for memory.
    pub(crate) fn read(
        &self,
        file: &File,
        region: &Region,
        read: &(dyn Fn(&Region) -> Result<Elements, Error> + Sync),
    ) -> Result<Elements, Error> {
        let grid = self.metadata.grid();
        let lengths = grid.grid_shape();
        let chunks: Vec<ChunkIndex> = match region.is_empty() {
            true => Vec::new(),
            false => grid
                .chunks_meeting(region)
                .positions()
                .map(ChunkIndex::new)
                .collect(),
        };
        let bytes = shape::size_bytes(region.shape(), &self.metadata.data_type)?;
        let mut out = Vec::new();
        out.try_reserve_exact(bytes)
            .map_err(|_| array::Error::TooLarge { what: "a region" })?;
        out.resize(bytes, 0);
        let room =
            MAX_DECODING_BYTES / (DECODING_FACTOR * self.codec.decoded_bytes().max(1) as u64);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let size = self.codec.fill_value().as_bytes().len();
        parallel::for_each(
            &chunks,
            threads.min(room as usize),
            |index| self.chunk(file, shape::linear_index(index.as_slice(), &lengths)),
            |index, decoded| {
                let whole = grid.chunk_region(index);
                let part = whole.intersect(region);
                let (elements, covered) = match decoded {
                    Some(Elements::Fixed(elements)) => (elements, whole),
                    _ => match read(&part)? {
                        Elements::Fixed(elements) => (elements, part),
                        Elements::Variable(_) => {
                            let reason = "elements of no fixed size".into();
                            return Err(Error::Worker { reason });
                        }
                    },
                };
                boxes::copy(size, &elements, &covered, &mut out, region);
                Ok(())
            },
        )?;
        Ok(Elements::Fixed(out))
    }

    /// The elements of a chunk; `None` if the reader has to give them.
    fn chunk(&self, file: &File, place: u64) -> Option<Elements> {
        let nth = self.found.binary_search_by_key(&place, |piece| piece.place);
        let Ok(nth) = nth else {
            let is_fill = self.has_fill && self.to_copy.binary_search(&place).is_err();
            return is_fill.then(|| self.codec.decode_or_fill(None).ok())?;
        };
        let piece = self.found[nth];
        let decoded = self.codec.decoded_bytes() as u64;
        if piece.length > decoded / 8 * 9 + SLACK_BYTES {
            return None;
        }
        let mut bytes = vec![0; piece.length as usize];
        file.read_exact_at(&mut bytes, piece.offset).ok()?;
        self.codec.decode(&bytes).ok()
    }
}
