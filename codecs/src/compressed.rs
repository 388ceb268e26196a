//! Where the compressed streams of a chunk are, so that a device may decompress them.
//!
//! Headers and trailers are parsed, nothing is decompressed. Invariant: the streams and what is stored
//! as it is decode to each byte of the chunk once, and every range is inside the bytes it speaks of.
//! What is not understood is no error: there is just nothing for a device then, and decoding on the
//! CPU tells what is wrong with it.
//!
//! Source: RFC 8878 (zstd), RFC 1950 (zlib), RFC 1952 (gzip).

use std::borrow::Cow;
use std::ops::Range;

use array::{Blocks, Layout, Packing};

use crate::blosc;
use crate::hdf5::strip_fletcher32;

/// What undoes the compression of a chunk, and what is left then.
///
/// A device may accept damaged streams that the CPU refuses. So whoever decompresses them must see
/// that every stream gave exactly the bytes of its `decoded` range and has its checksum; chunks where
/// one does not are to be decoded on the CPU, which says whether they are damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// What all streams are compressed with.
    pub method: Method,
    /// Streams to decompress.
    pub streams: Vec<Stream>,
    /// Parts to copy as they are, in no particular order; without checksums.
    pub stored: Vec<Stream>,
    /// What is left to undo of the bytes that come out.
    pub layout: Layout,
}

/// What a stream is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// One zstd frame, without dictionary and checksum, which says its decoded size.
    Zstd,
    /// Deflate, without header and trailer (RFC 1951).
    Deflate,
    /// One LZ4 block, without a size before it.
    Lz4,
}

/// A part of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where it is in the encoded chunk.
    pub encoded: Range<usize>,
    /// Where it decodes to, in bytes of the chunk in its layout.
    pub decoded: Range<usize>,
    /// What it must have decoded to.
    pub checksum: Option<Checksum>,
}

/// A checksum of decompressed bytes. Both kinds can be computed in parts that are then put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Adler-32, of zlib.
    Adler32(u32),
    /// CRC-32 of the polynomial 0x04c11db7 (reflected: 0xedb88320), of gzip.
    Crc32(u32),
}

/// A step of encoding from bytes to bytes, as far as a device is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Byte shuffle of the whole chunk, by units of so many bytes.
    Shuffle(usize),
    /// Four bytes after the others.
    Fletcher32,
    Compress(Format),
    Other,
}

/// What compressed bytes are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Zstd,
    Zlib,
    Gzip,
    Blosc,
}

impl Compressed {
    /// The streams of `encoded`, which `steps` made of `decoded_bytes` in `layout`. `None` if there
    /// is more to undo than one compression, a shuffle and a checksum.
    pub(crate) fn find(
        steps: &[Step],
        encoded: &[u8],
        decoded_bytes: usize,
        layout: Layout,
    ) -> Option<Self> {
        let (steps, encoded) = match steps {
            [steps @ .., Step::Fletcher32] => {
                let Ok(Cow::Borrowed(bytes)) = strip_fletcher32(Cow::Borrowed(encoded)) else {
                    return None;
                };
                (steps, bytes)
            }
            _ => (steps, encoded),
        };
        match steps {
            [Step::Compress(format)] => Self::of(*format, encoded, decoded_bytes, layout),
            [Step::Shuffle(unit_bytes), Step::Compress(format)] => {
                let layout = packed(shuffled(*unit_bytes, decoded_bytes), layout)?;
                Self::of(*format, encoded, decoded_bytes, layout)
            }
            _ => None,
        }
    }

    fn of(format: Format, encoded: &[u8], decoded_bytes: usize, layout: Layout) -> Option<Self> {
        let one = |method, encoded, checksum| Self {
            method,
            streams: vec![Stream {
                encoded,
                decoded: 0..decoded_bytes,
                checksum,
            }],
            stored: Vec::new(),
            layout,
        };
        match format {
            Format::Zstd => {
                is_zstd_frame(encoded, decoded_bytes).then_some(())?;
                Some(one(Method::Zstd, 0..encoded.len(), None))
            }
            Format::Zlib => {
                let (range, checksum) = zlib_parts(encoded)?;
                Some(one(Method::Deflate, range, Some(checksum)))
            }
            Format::Gzip => {
                let (range, checksum) = gzip_parts(encoded, decoded_bytes)?;
                Some(one(Method::Deflate, range, Some(checksum)))
            }
            Format::Blosc => {
                let frame = blosc::Frame::parse(encoded, decoded_bytes)?;
                let layout = packed(frame.packing, layout)?;
                let (method, streams) = frame.streams_for_device(encoded)?;
                Some(Self {
                    method,
                    streams,
                    stored: frame.stored,
                    layout,
                })
            }
        }
    }
}

/// What is left of a byte shuffle of a whole chunk.
pub(crate) fn shuffled(unit_bytes: usize, block_bytes: usize) -> Packing {
    match unit_bytes {
        0 | 1 => Packing::Plain,
        _ => Packing::Shuffled(Blocks {
            unit_bytes,
            block_bytes,
        }),
    }
}

/// What is left of bytes in `layout` that were packed once more; `None` if that is too much.
fn packed(packing: Packing, layout: Layout) -> Option<Layout> {
    match (packing, layout.packing) {
        (Packing::Plain, _) => Some(layout),
        (_, Packing::Plain) => Some(Layout { packing, ..layout }),
        _ => None,
    }
}

/// Whether `bytes` are one frame of zstd that decodes to `decoded_bytes`, by its headers, with nothing
/// behind it, and without a dictionary and a checksum: nothing but zstd's own decoder checks that,
/// since it cannot be computed in parts.
pub(crate) fn is_zstd_frame(bytes: &[u8], decoded_bytes: usize) -> bool {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    const LAST_BLOCK: u32 = 1;
    let parse = || {
        let (&descriptor, mut rest) = bytes.strip_prefix(&MAGIC)?.split_first()?;
        // Single segment; reserved, checksum and size of the dictionary's id must be zero.
        let is_single = descriptor & 0x20 != 0;
        if descriptor & 0x0f != 0 {
            return None;
        }
        if !is_single {
            rest = rest.split_first()?.1;
        }
        let (size_bytes, least) = match (descriptor >> 6, is_single) {
            (0, true) => (1, 0),
            (0, false) => return None,
            (1, _) => (2, 256),
            (2, _) => (4, 0),
            _ => (8, 0),
        };
        let (size, after) = rest.split_at_checked(size_bytes)?;
        let size = size.iter().rev();
        let size = size.fold(0, |size, &byte| size << 8 | u64::from(byte));
        if size.checked_add(least) != Some(decoded_bytes as u64) {
            return None;
        }
        rest = after;
        loop {
            let (&[low, middle, high], after) = rest.split_first_chunk::<3>()?;
            let header = u32::from_le_bytes([low, middle, high, 0]);
            let length = match header >> 1 & 3 {
                // As it is; one byte repeated; compressed.
                0 | 2 => (header >> 3) as usize,
                1 => 1,
                _ => return None,
            };
            rest = after.get(length..)?;
            if header & LAST_BLOCK != 0 {
                return rest.is_empty().then_some(());
            }
        }
    };
    parse().is_some()
}

/// Where a zlib stream has its deflate data, and the checksum of what they decode to, if nothing comes
/// after it.
pub(crate) fn zlib_parts(bytes: &[u8]) -> Option<(Range<usize>, Checksum)> {
    const DEFLATE: u8 = 8;
    const MAX_WINDOW: u8 = 7;
    const HAS_DICTIONARY: u8 = 0x20;
    let (&[method, flags], rest) = bytes.split_first_chunk::<2>()?;
    let (_, checksum) = rest.split_last_chunk::<4>()?;
    let is_known = method & 0x0f == DEFLATE
        && method >> 4 <= MAX_WINDOW
        && flags & HAS_DICTIONARY == 0
        && u16::from_be_bytes([method, flags]).is_multiple_of(31);
    let checksum = Checksum::Adler32(u32::from_be_bytes(*checksum));
    is_known.then_some((2..bytes.len() - 4, checksum))
}

/// The same of a gzip file that decodes to `decoded_bytes`, if it is one member.
pub(crate) fn gzip_parts(bytes: &[u8], decoded_bytes: usize) -> Option<(Range<usize>, Checksum)> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    // That the header's text, and its own checksum, which is rare, and bits that mean nothing yet.
    const UNKNOWN: u8 = 0xe2;
    let (&[0x1f, 0x8b, 8, flags, ..], mut rest) = bytes.split_first_chunk::<10>()? else {
        return None;
    };
    if flags & UNKNOWN != 0 {
        return None;
    }
    if flags & EXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    let start = bytes.len() - rest.len();
    let (rest, length) = rest.split_last_chunk::<4>()?;
    let (rest, checksum) = rest.split_last_chunk::<4>()?;
    if u64::from(u32::from_le_bytes(*length)) != decoded_bytes as u64 {
        return None;
    }
    let checksum = Checksum::Crc32(u32::from_le_bytes(*checksum));
    Some((start..start + rest.len(), checksum))
}
