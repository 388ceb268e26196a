//! Compressed streams of an inner chunk, put where a device takes them from.
//!
//! ```text
//! encoded chunk:  │ header │ stream │ stored │ stream │ stored │ …
//! staged:         │ stream │ stream │ … │ stored, stored, … │
//! ```
//!
//! Ranges come from whoever parsed the chunk, and are checked here. Invariant of [`Streams`]: every part
//! is inside what was staged, and streams and stored parts together give each byte of the chunk once.
//! Nothing is decompressed.

use std::ops::Range;

use super::memory::ALIGNMENT;
use super::nvcomp::{Alignments, Method};

/// Most streams of a chunk: what nvCOMP is told of one takes 44 bytes.
const STREAMS_MAX: usize = 1 << 16;

/// An inner chunk whose streams a device may decompress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed<'a> {
    /// The chunk as stored.
    pub encoded: &'a [u8],
    /// What all streams are compressed with.
    pub method: Method,
    /// Streams to decompress.
    pub streams: Vec<ChunkPart>,
    /// Parts to copy as they are, in any order.
    pub stored: Vec<ChunkPart>,
    /// Bytes of the chunk once it is decompressed.
    pub length: usize,
}

/// A part of an inner chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkPart {
    /// Where it is in the encoded bytes.
    pub encoded: Range<usize>,
    /// Where it belongs in the decompressed ones.
    pub decoded: Range<usize>,
}

/// Compressed streams that were put where the device takes them from; made by
/// [`Gpus::pack`](super::Gpus::pack).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    method: Method,
    /// Their encoded ranges are those of the staged bytes.
    streams: Vec<ChunkPart>,
    /// The same, in the order of their places; neighbours are one.
    stored: Vec<ChunkPart>,
    stream_bytes: usize,
    staged_bytes: usize,
    length: usize,
}

impl Streams {
    /// Puts the parts of a chunk into `out`, from its first byte on. `None` if the ranges are not what
    /// the invariant asks for, there is no room, a place is not aligned, or there are no streams; `out`
    /// may have been written to then.
    pub(super) fn pack(
        chunk: &Compressed<'_>,
        alignments: Alignments,
        out: &mut [u8],
    ) -> Option<Self> {
        let Alignments {
            input_bytes,
            output_bytes,
            temp_bytes,
        } = alignments;
        if input_bytes.max(output_bytes).max(temp_bytes) > ALIGNMENT
            || !(1..=STREAMS_MAX).contains(&chunk.streams.len())
            || chunk.length > out.len()
            || !gives_each_byte_once(chunk)
        {
            return None;
        }
        let mut end = 0;
        let mut put = |part: &ChunkPart, alignment: usize| {
            let bytes = chunk.encoded.get(part.encoded.clone())?;
            let start = end_of(&mut end, bytes.len(), alignment)?;
            out.get_mut(start..start + bytes.len())?
                .copy_from_slice(bytes);
            Some(ChunkPart {
                encoded: start..start + bytes.len(),
                decoded: part.decoded.clone(),
            })
        };
        let is_aligned = |part: &ChunkPart| part.decoded.start.is_multiple_of(output_bytes);
        let streams = chunk.streams.iter();
        let streams = streams.map(|part| put(part, input_bytes).filter(is_aligned));
        let streams = streams.collect::<Option<Vec<_>>>()?;
        let mut in_order: Vec<&ChunkPart> = chunk.stored.iter().collect();
        in_order.sort_by_key(|part| part.decoded.start);
        let mut stored: Vec<ChunkPart> = Vec::new();
        for part in in_order {
            let part = put(part, 1).filter(|part| part.encoded.len() == part.decoded.len())?;
            match stored.last_mut() {
                Some(last) if last.decoded.end == part.decoded.start => {
                    last.encoded.end = part.encoded.end;
                    last.decoded.end = part.decoded.end;
                }
                _ => stored.push(part),
            }
        }
        let ends = |parts: &[ChunkPart]| parts.last().map(|part| part.encoded.end);
        let stream_bytes = ends(&streams)?;
        Some(Self {
            method: chunk.method,
            stream_bytes,
            staged_bytes: ends(&stored).unwrap_or(stream_bytes),
            streams,
            stored,
            length: chunk.length,
        })
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }

    /// Where each stream is in the staged bytes, and what it decodes to.
    pub(super) fn streams(&self) -> &[ChunkPart] {
        &self.streams
    }

    /// The same of what is copied as it is.
    pub(super) fn stored(&self) -> &[ChunkPart] {
        &self.stored
    }

    /// How many of the staged bytes, from the first on, are streams.
    pub(super) fn stream_bytes(&self) -> usize {
        self.stream_bytes
    }

    pub(super) fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    /// Bytes of the chunk once it is decompressed.
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

/// Takes the next place of so many bytes behind `end`: where it starts.
fn end_of(end: &mut usize, bytes: usize, alignment: usize) -> Option<usize> {
    let start = end.checked_next_multiple_of(alignment)?;
    *end = start.checked_add(bytes)?;
    Some(start)
}

fn gives_each_byte_once(chunk: &Compressed<'_>) -> bool {
    let parts = chunk.streams.iter().chain(&chunk.stored);
    let mut ranges: Vec<&Range<usize>> = parts.map(|part| &part.decoded).collect();
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    ranges.iter().all(|range| {
        let follows = range.start == end && range.end > end;
        end = range.end;
        follows
    }) && end == chunk.length
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGNED: Alignments = Alignments {
        input_bytes: 4,
        output_bytes: 8,
        temp_bytes: 8,
    };
    const ENCODED: &[u8] = b"-abc-defgh-012345670123456789abcdef";

    fn part(encoded: Range<usize>, decoded: Range<usize>) -> ChunkPart {
        ChunkPart { encoded, decoded }
    }

    /// Two streams, for 8 and 16 bytes, and 24 bytes that are stored in two parts.
    fn chunk() -> Compressed<'static> {
        Compressed {
            encoded: ENCODED,
            method: Method::Lz4,
            streams: vec![part(5..10, 32..48), part(1..4, 0..8)],
            stored: vec![part(19..35, 16..32), part(11..19, 8..16)],
            length: 48,
        }
    }

    fn pack(chunk: &Compressed<'_>) -> Option<Streams> {
        Streams::pack(chunk, ALIGNED, &mut [0; 64])
    }

    #[test]
    fn streams_come_first_and_aligned_and_stored_parts_together() {
        let mut out = [b'.'; 48];
        let packed = Streams::pack(&chunk(), ALIGNED, &mut out).unwrap();
        assert_eq!(&out, b"defgh...abc012345670123456789abcdef.............");
        assert_eq!(packed.streams(), [part(0..5, 32..48), part(8..11, 0..8)]);
        assert_eq!(packed.stored(), [part(11..35, 8..32)]);
        let bytes = (
            packed.stream_bytes(),
            packed.staged_bytes(),
            packed.length(),
        );
        assert_eq!(bytes, (11, 35, 48));
    }

    #[test]
    fn ranges_that_do_not_give_each_byte_once_are_refused() {
        type Change = fn(&mut Compressed<'_>);
        let changes: [(&str, Change); 11] = [
            ("too short", |chunk| chunk.length = 47),
            ("too long", |chunk| chunk.length = 49),
            ("a gap", |chunk| chunk.stored.truncate(1)),
            ("an overlap", |chunk| chunk.streams[1].decoded = 0..9),
            ("twice", |chunk| {
                chunk.streams.push(chunk.streams[0].clone());
            }),
            ("outside", |chunk| chunk.streams[0].decoded = 32..usize::MAX),
            ("nothing", |chunk| chunk.streams[1].decoded = 0..0),
            ("behind the end", |chunk| chunk.streams[0].encoded = 5..36),
            ("backwards", |chunk| {
                chunk.streams[0].encoded = Range { start: 9, end: 5 }
            }),
            ("shorter than stored", |chunk| {
                chunk.stored[0].encoded = 19..34;
            }),
            ("more than its place", |chunk| {
                chunk.streams[1].encoded = 0..35;
            }),
        ];
        assert!(pack(&chunk()).is_some());
        for (what, change) in changes {
            let mut changed = chunk();
            change(&mut changed);
            assert_eq!(pack(&changed), None, "{what}");
        }
        // Stored parts alone are no work for a device.
        let stored = Compressed {
            streams: Vec::new(),
            stored: vec![part(0..16, 0..16)],
            length: 16,
            ..chunk()
        };
        assert_eq!(pack(&stored), None);
    }

    #[test]
    fn places_that_are_not_aligned_or_too_small_are_refused() {
        let mut unaligned = chunk();
        unaligned.streams[0].decoded = 28..48;
        unaligned.stored[0] = part(19..31, 16..28);
        assert_eq!(pack(&unaligned), None);
        let with = |output_bytes, temp_bytes| Alignments {
            output_bytes,
            temp_bytes,
            ..ALIGNED
        };
        assert!(Streams::pack(&unaligned, with(4, 8), &mut [0; 64]).is_some());
        assert_eq!(Streams::pack(&unaligned, with(4, 512), &mut [0; 64]), None);
        assert_eq!(Streams::pack(&chunk(), ALIGNED, &mut [0; 47]), None);
        // Three streams of one byte for four bytes: aligned, they need nine.
        let streams = (0..3).map(|nth| part(nth..nth + 1, 2 * nth..2 * nth + 2));
        let small = Compressed {
            streams: streams.collect(),
            stored: Vec::new(),
            length: 6,
            ..chunk()
        };
        let odd = Alignments {
            output_bytes: 2,
            ..ALIGNED
        };
        assert_eq!(Streams::pack(&small, odd, &mut [0; 6]), None);
        assert!(Streams::pack(&small, odd, &mut [0; 9]).is_some());
    }
}
