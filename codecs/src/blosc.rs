//! Frames of Blosc 1, decoded as far as its shuffles.
//!
//! ```text
//! version ‖ codec's version ‖ flags ‖ unit bytes ‖ decoded size ‖ block size ‖ encoded size (u32 each)
//! ‖ where each block starts (u32) ‖ blocks: streams, each size (u32) ‖ bytes
//! ```
//!
//! A block is one stream, or one for each byte of a unit. A stream whose size is what it decodes to is
//! not compressed. Numbers are little-endian. Whatever is not exactly so is left to the C library:
//! other codecs, frames in a frame of another size, blocks that streams do not fill.
//!
//! Source: c-blosc 1.21, `README_CHUNK_FORMAT.rst` and `blosc_d` in `blosc.c`.

use std::ops::Range;

use array::{Blocks, Packing};
use zstd::bulk::Decompressor;

use crate::compressed::{Method, Stream, is_zstd_frame, zlib_parts};
use crate::{Error, inflate};

const HEADER_BYTES: usize = 16;
const VERSION: u8 = 2;
/// Of all codecs known here.
const CODEC_VERSION: u8 = 1;
const SHUFFLE: u8 = 1;
const STORED: u8 = 2;
const BIT_SHUFFLE: u8 = 4;
const RESERVED: u8 = 8;
const NOT_SPLIT: u8 = 16;
/// Units of more bytes are not split.
const MAX_SPLITS: usize = 16;
/// Nor are blocks whose streams would decode to less.
const MIN_SPLIT_BYTES: usize = 128;

/// Smaller blocks, but a whole chunk, are left to the library.
const LEAST_BLOCK_BYTES: usize = 128;

/// How streams are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Lz4,
    Zlib,
    Zstd,
}

/// A frame whose header and sizes were checked.
#[derive(Debug)]
pub(crate) struct Frame {
    codec: Codec,
    /// Compressed streams.
    streams: Vec<Stream>,
    /// Parts that are not compressed.
    pub(crate) stored: Vec<Stream>,
    /// How the bytes are shuffled.
    pub(crate) packing: Packing,
}

impl Frame {
    /// The parts of a frame of `decoded_bytes`; `None` if it is not one that is known here.
    ///
    /// It takes memory for as many streams as the bytes can hold the starts of blocks or the decoded
    /// bytes the streams of split blocks.
    pub(crate) fn parse(bytes: &[u8], decoded_bytes: usize) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let &[version, codec_version, flags, unit_bytes, ..] = header;
        let unit_bytes = usize::from(unit_bytes);
        let block_bytes = number(header, 8)?;
        if version != VERSION
            || flags & RESERVED != 0
            || unit_bytes == 0
            || number(header, 4)? != decoded_bytes
            || number(header, 12)? != bytes.len()
            || !(1..=decoded_bytes).contains(&block_bytes)
        {
            return None;
        }
        if flags & STORED != 0 {
            let all = stream(HEADER_BYTES..bytes.len(), 0);
            return (all.decoded.end == decoded_bytes).then(|| Self {
                codec: Codec::Lz4,
                streams: Vec::new(),
                stored: vec![all],
                packing: Packing::Plain,
            });
        }
        let codec = match flags >> 5 {
            1 => Codec::Lz4,
            3 => Codec::Zlib,
            4 => Codec::Zstd,
            _ => return None,
        };
        let blocks = Blocks {
            unit_bytes,
            block_bytes,
        };
        let mut frame = Self {
            codec,
            streams: Vec::new(),
            stored: Vec::new(),
            packing: match flags {
                _ if flags & SHUFFLE != 0 && unit_bytes > 1 => Packing::Shuffled(blocks),
                _ if flags & BIT_SHUFFLE != 0 => Packing::BitShuffled(blocks),
                _ => Packing::Plain,
            },
        };
        let is_split = flags & NOT_SPLIT == 0
            && unit_bytes <= MAX_SPLITS
            && block_bytes / unit_bytes >= MIN_SPLIT_BYTES;
        let is_known = codec_version == CODEC_VERSION
            && decoded_bytes.div_ceil(block_bytes) <= (bytes.len() - HEADER_BYTES) / 4
            && (!is_split || block_bytes.is_multiple_of(unit_bytes))
            // What is noted of a block takes more memory than a smaller one.
            && (block_bytes >= LEAST_BLOCK_BYTES || block_bytes == decoded_bytes);
        if !is_known {
            return None;
        }
        for (nth, start) in (0..decoded_bytes).step_by(block_bytes).enumerate() {
            let length = block_bytes.min(decoded_bytes - start);
            let parts = match is_split && length == block_bytes {
                true => unit_bytes,
                false => 1,
            };
            frame.add_block(
                bytes,
                number(bytes, HEADER_BYTES + 4 * nth)?,
                start,
                length / parts,
                parts,
            )?;
        }
        Some(frame)
    }

    /// Adds the streams of a block, `parts` of them, which starts at `at` and decodes to what is from
    /// `decoded` on.
    fn add_block(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        mut decoded: usize,
        length: usize,
        parts: usize,
    ) -> Option<()> {
        for _ in 0..parts {
            let start = at.checked_add(4)?;
            let end = start.checked_add(number(bytes, at)?)?;
            bytes.get(start..end)?;
            if end - start == length {
                self.stored.push(stream(start..end, decoded));
            } else {
                let decoded = decoded..decoded + length;
                self.streams.push(Stream {
                    encoded: start..end,
                    decoded,
                    checksum: None,
                });
            }
            at = end;
            decoded += length;
        }
        Some(())
    }

    /// The compressed streams as a device takes them; `None` if one has what no device knows.
    pub(crate) fn streams_for_device(&self, bytes: &[u8]) -> Option<(Method, Vec<Stream>)> {
        let mut streams = self.streams.clone();
        for stream in &mut streams {
            let encoded = &bytes[stream.encoded.clone()];
            match self.codec {
                Codec::Lz4 => {}
                Codec::Zstd => is_zstd_frame(encoded, stream.decoded.len()).then_some(())?,
                Codec::Zlib => {
                    let (part, checksum) = zlib_parts(encoded)?;
                    let start = stream.encoded.start;
                    stream.encoded = start + part.start..start + part.end;
                    stream.checksum = Some(checksum);
                }
            }
        }
        let method = match self.codec {
            Codec::Lz4 => Method::Lz4,
            Codec::Zlib => Method::Deflate,
            Codec::Zstd => Method::Zstd,
        };
        Some((method, streams))
    }

    /// Decompresses what was parsed into `out`, which has the decoded size; the shuffle is left.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a stream is not of exactly its size.
    pub(crate) fn decompress(&self, bytes: &[u8], out: &mut [u8]) -> Result<(), Error> {
        for part in &self.stored {
            out[part.decoded.clone()].copy_from_slice(&bytes[part.encoded.clone()]);
        }
        let failed = |error: String| Error::corrupt("chunk", error);
        // Made when it is needed, and used for all streams.
        let mut context = None;
        for stream in &self.streams {
            let encoded = &bytes[stream.encoded.clone()];
            let out = &mut out[stream.decoded.clone()];
            let length = match self.codec {
                Codec::Lz4 => lz4_flex::block::decompress_into(encoded, out)
                    .map_err(|error| failed(error.to_string()))?,
                Codec::Zlib => {
                    inflate::into(encoded, out)?;
                    out.len()
                }
                Codec::Zstd => {
                    let context = match &mut context {
                        Some(context) => context,
                        none => none.insert(
                            Decompressor::new().map_err(|error| failed(error.to_string()))?,
                        ),
                    };
                    let length = context.decompress_to_buffer(encoded, out);
                    length.map_err(|error| failed(error.to_string()))?
                }
            };
            if length != out.len() {
                return Err(failed(format!(
                    "a part decodes to {length} bytes instead of {}",
                    out.len()
                )));
            }
        }
        Ok(())
    }
}

/// What is stored as it is.
fn stream(encoded: Range<usize>, decoded: usize) -> Stream {
    Stream {
        decoded: decoded..decoded + encoded.len(),
        encoded,
        checksum: None,
    }
}

/// The number at `at`, if there is one and it is not negative as a signed one.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*number)).ok()
}
