//! Tiles of LZW that reach past the right edge of an image.
//!
//! The decoder reads such tiles row by row, and takes the last bytes of one for an error if its
//! compressed bytes are used up before them. Here a tile is decoded whole.
//!
//! Source: TIFF 6.0, sections 13 to 15; Adobe Photoshop TIFF Technical Note 3 for the predictor of
//! floats.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};

use ::tiff::TiffResult;
use ::tiff::decoder::{ChunkType, Decoder};
use ::tiff::tags::{ByteOrder, CompressionMethod, Predictor, Tag};
use weezl::BitOrder;
use weezl::decode::Decoder as LzwDecoder;

use super::{Image, MAX_CHUNK_BYTES};

/// The tiles of an image.
#[derive(Debug)]
pub(super) struct Tiles {
    /// Where each is in the file, and how long.
    places: Vec<(u64, u64)>,
    predictor: Predictor,
    order: ByteOrder,
    /// Bytes of a number, numbers of a pixel, and pixels of a row and of a column.
    size: usize,
    samples: usize,
    width: usize,
    height: usize,
}

impl Tiles {
    /// The tiles of `image`, if some of them are read here.
    pub(super) fn of(
        decoder: &mut Decoder<BufReader<File>>,
        image: &Image,
    ) -> TiffResult<Option<Self>> {
        let compression = decoder.find_tag_unsigned(Tag::Compression)?;
        let is_lzw = compression == Some(CompressionMethod::LZW.to_u16());
        let is_tiled = decoder.get_chunk_type() == ChunkType::Tile;
        let [height, width] = image.chunk;
        if !is_lzw || !is_tiled || image.width.is_multiple_of(width) {
            return Ok(None);
        }
        let offsets = decoder.get_tag_u64_vec(Tag::TileOffsets)?;
        let lengths = decoder.get_tag_u64_vec(Tag::TileByteCounts)?;
        let predictor = decoder.find_tag_unsigned(Tag::Predictor)?;
        let predictor = predictor.and_then(Predictor::from_u16);
        Ok(Some(Self {
            places: offsets.into_iter().zip(lengths).collect(),
            predictor: predictor.unwrap_or(Predictor::None),
            order: decoder.byte_order(),
            size: image.data_type.size_bytes().unwrap_or(1),
            samples: if image.is_planar { 1 } else { image.bands } as usize,
            width: width as usize,
            height: height as usize,
        }))
    }

    /// The first `rows` and `columns` of a tile, numbers in memory order.
    pub(super) fn read(
        &self,
        decoder: &mut Decoder<BufReader<File>>,
        at: u32,
        rows: usize,
        columns: usize,
    ) -> io::Result<Vec<u8>> {
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        let place = self.places.get(at as usize);
        let &(offset, length) = place.ok_or_else(|| invalid("no such tile"))?;
        let pixel = self.samples * self.size;
        let row_bytes = self.width.saturating_mul(pixel);
        let bytes = row_bytes.saturating_mul(self.height);
        if bytes > MAX_CHUNK_BYTES || length > MAX_CHUNK_BYTES as u64 {
            return Err(invalid("a tile is too large"));
        }
        let file = decoder.inner();
        file.seek(SeekFrom::Start(offset))?;
        let mut encoded = Vec::new();
        file.by_ref().take(length).read_to_end(&mut encoded)?;
        let mut tile = vec![0; bytes];
        if unpack(&encoded, &mut tile)? < rows * row_bytes {
            return Err(invalid("a tile ends early"));
        }
        let mut out = Vec::with_capacity(rows * columns * pixel);
        for row in tile.chunks_exact_mut(row_bytes).take(rows) {
            self.undo_prediction(row);
            out.extend_from_slice(&row[..columns * pixel]);
        }
        Ok(out)
    }

    /// Makes numbers in memory order of a row.
    fn undo_prediction(&self, row: &mut [u8]) {
        if matches!(self.predictor, Predictor::FloatingPoint) {
            // The highest bytes of all numbers come first.
            for at in self.samples..row.len() {
                row[at] = row[at].wrapping_add(row[at - self.samples]);
            }
            let planes = row.to_vec();
            let count = planes.len() / self.size;
            for (nth, number) in row.chunks_exact_mut(self.size).enumerate() {
                for (place, byte) in number.iter_mut().rev().enumerate() {
                    *byte = planes[place * count + nth];
                }
            }
            return;
        }
        if self.order == ByteOrder::BigEndian {
            row.chunks_exact_mut(self.size).for_each(<[u8]>::reverse);
        }
        if matches!(self.predictor, Predictor::Horizontal) {
            let step = self.samples * self.size;
            for at in (step..row.len()).step_by(self.size) {
                let before = number(&row[at - step..at - step + self.size]);
                let sum = before.wrapping_add(number(&row[at..at + self.size]));
                row[at..at + self.size].copy_from_slice(&sum.to_le_bytes()[..self.size]);
            }
        }
    }
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    let add = |sum, &byte| sum << 8 | u64::from(byte);
    bytes.iter().rev().fold(0, add)
}

/// Decodes into `out` as much as it takes; gives how much there was.
fn unpack(encoded: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut decoder = LzwDecoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let (mut taken, mut made) = (0, 0);
    while made < out.len() {
        let done = decoder.decode_bytes(&encoded[taken..], &mut out[made..]);
        taken += done.consumed_in;
        made += done.consumed_out;
        let status = done.status.map_err(io::Error::other)?;
        let is_stuck = done.consumed_in == 0 && done.consumed_out == 0;
        if is_stuck || matches!(status, weezl::LzwStatus::Done) {
            break;
        }
    }
    Ok(made)
}
