//! Where the chunks of a dataset are, read from its B-tree: the library takes time with the square of
//! their number to tell, and of datasets with an unlimited dimension that is not the first it tells
//! places that belong to other chunks.
//!
//! ```text
//! object header ─► layout message ─► nodes of the B-tree ─► chunks
//! ```
//!
//! Only version 3 of the layout, which is what the library writes unless told otherwise.
//!
//! Source: "HDF5 File Format Specification" 3.0, sections "Version 1 B-trees", "Object Headers" and
//! "Data Layout Message".

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::raw::Chunk;

const CONTINUATION: u16 = 0x10;
const LAYOUT: u16 = 0x08;
/// Class of the layout of chunks, and the version of the message.
const CHUNKED: u8 = 2;
const LAYOUT_VERSION: u8 = 3;
/// Kind of a B-tree of chunks.
const CHUNK_NODES: u8 = 1;
/// Most bytes of one block of an object header, and most blocks.
const MAX_BLOCK_BYTES: u64 = 1 << 20;
const MAX_BLOCKS: usize = 256;
const NODE_HEAD_BYTES: u64 = 24;
const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// A file in which addresses have eight bytes.
pub(super) struct Index<'a> {
    file: &'a File,
    length: u64,
    /// What addresses count from.
    base: u64,
}

impl<'a> Index<'a> {
    /// `None` if the addresses of the file, which begins at `base`, are shorter or longer.
    pub(super) fn open(file: &'a File, length: u64, base: u64) -> Option<Self> {
        let index = Self { file, length, base };
        let superblock = index.bytes(0, 24)?;
        let sizes = match superblock.strip_prefix(&SIGNATURE)? {
            [0 | 1, _, _, _, _, offsets, lengths, ..] | [2 | 3, offsets, lengths, ..] => {
                [*offsets, *lengths]
            }
            _ => return None,
        };
        (sizes == [8, 8]).then_some(index)
    }

    fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let start = self.base.checked_add(address)?;
        if start.checked_add(length)? > self.length {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut bytes, start).ok()?;
        Some(bytes)
    }

    /// The chunks of a dataset whose object header is at `header`, each with its first cell; at most
    /// `most`. `None` if that is not to be read here.
    pub(super) fn chunks(
        &self,
        header: u64,
        chunk_shape: &[u64],
        most: u64,
    ) -> Option<Vec<(Vec<u64>, Chunk)>> {
        let layout = self.layout(header)?;
        let rank = chunk_shape.len();
        let [LAYOUT_VERSION, CHUNKED, dimensions, rest @ ..] = layout.as_slice() else {
            return None;
        };
        if usize::from(*dimensions) != rank + 1 {
            return None;
        }
        let mut found = Vec::new();
        let root = word(rest, 0)?;
        if root == u64::MAX {
            return Some(found);
        }
        // A file has no room for more nodes.
        let mut nodes_left = self.length / NODE_HEAD_BYTES;
        let mut pending = vec![(root, None)];
        while let Some((address, level)) = pending.pop() {
            nodes_left = nodes_left.checked_sub(1)?;
            let head = self.bytes(address, NODE_HEAD_BYTES)?;
            let [
                b'T',
                b'R',
                b'E',
                b'E',
                CHUNK_NODES,
                own_level,
                low,
                high,
                ..,
            ] = head[..]
            else {
                return None;
            };
            if level.is_some_and(|level| level != own_level) {
                return None;
            }
            let entries = usize::from(u16::from_le_bytes([low, high]));
            // Length and mask of four bytes each, the first cell, and where what it is about begins.
            let key_bytes = 8 + 8 * (rank + 1);
            let entry_bytes = key_bytes + 8;
            let body = self.bytes(address + NODE_HEAD_BYTES, (entries * entry_bytes) as u64)?;
            for entry in body.chunks_exact(entry_bytes) {
                let child = word(entry, key_bytes)?;
                if own_level > 0 {
                    pending.push((child, Some(own_level - 1)));
                    continue;
                }
                if found.len() as u64 == most {
                    return None;
                }
                let cells = (0..rank).map(|axis| word(entry, 8 + 8 * axis));
                let start: Vec<u64> = cells.collect::<Option<_>>()?;
                let is_corner = start
                    .iter()
                    .zip(chunk_shape)
                    .all(|(at, l)| at.is_multiple_of(*l));
                if !is_corner {
                    return None;
                }
                let sizes = word(entry, 0)?;
                let chunk = Chunk {
                    address: child,
                    length: sizes & u64::from(u32::MAX),
                    mask: (sizes >> 32) as u32,
                };
                found.push((start, chunk));
            }
        }
        Some(found)
    }

    /// The layout message of an object.
    fn layout(&self, header: u64) -> Option<Vec<u8>> {
        let start = self.bytes(header, 16)?;
        let is_second = start.starts_with(b"OHDR");
        let (mut blocks, order_bytes) = if is_second {
            let flags = start[5];
            let times = if flags & 0x20 == 0 { 0 } else { 16 };
            let limits = if flags & 0x10 == 0 { 0 } else { 4 };
            let size_bytes = 1 << (flags & 3);
            let at = header + 6 + times + limits;
            let size = self.bytes(at, size_bytes)?;
            let size = size
                .iter()
                .rev()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            let order_bytes = if flags & 0x04 == 0 { 0 } else { 2 };
            (vec![(at + size_bytes, size)], order_bytes)
        } else if start[0] == 1 {
            let size = u32::from_le_bytes(*start[8..].first_chunk()?);
            (vec![(header + 16, u64::from(size))], 0)
        } else {
            return None;
        };
        let mut read = 0;
        while let Some((address, length)) = blocks.pop() {
            read += 1;
            if length > MAX_BLOCK_BYTES || read > MAX_BLOCKS {
                return None;
            }
            let block = self.bytes(address, length)?;
            let mut rest = block.as_slice();
            loop {
                // Kind, length and flags, then the message.
                let (kind, length, head_bytes) = if is_second {
                    let Some(head) = rest.first_chunk::<4>() else {
                        break;
                    };
                    let length = u16::from_le_bytes([head[1], head[2]]);
                    (u16::from(head[0]), length, 4 + order_bytes)
                } else {
                    let Some(head) = rest.first_chunk::<8>() else {
                        break;
                    };
                    let number = |at| u16::from_le_bytes([head[at], head[at + 1]]);
                    (number(0), number(2), 8)
                };
                let end = head_bytes + usize::from(length);
                let Some(message) = rest.get(head_bytes..end) else {
                    break;
                };
                match kind {
                    LAYOUT => return Some(message.to_vec()),
                    CONTINUATION => {
                        let (address, length) = (word(message, 0)?, word(message, 8)?);
                        // The second version has a signature before and a checksum behind.
                        blocks.push(match is_second {
                            true => (address.checked_add(4)?, length.checked_sub(8)?),
                            false => (address, length),
                        });
                    }
                    _ => {}
                }
                rest = &rest[end..];
            }
        }
        None
    }
}

/// The little-endian number at a byte.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}
