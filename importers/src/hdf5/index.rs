//! Where the chunks of a dataset are, read from its B-tree: the library takes time with the square of
//! their number to tell, and of datasets with an unlimited dimension that is not the first it tells
//! places that belong to other chunks. Nor does it notice all damage: chunks whose keys are wrong are
//! missing then, and read as fill values.
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
/// An address that stands for none.
const NO_ADDRESS: u64 = u64::MAX;
const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// A file in which addresses have eight bytes.
pub(super) struct Index<'a> {
    file: &'a File,
    length: u64,
    /// What addresses count from.
    base: u64,
}

/// A node that is still to be read.
struct Pending {
    address: u64,
    level: Option<u8>,
    /// What keys of chunks in it are not below, and what they are below.
    keys: Option<[Vec<u64>; 2]>,
}

impl Pending {
    fn is_inside(&self, key: &[u64]) -> bool {
        let Some([low, high]) = &self.keys else {
            return true;
        };
        low.as_slice() <= key && key < high.as_slice()
    }
}

/// A part of a node.
struct Entry {
    length: u64,
    mask: u32,
    /// The first cell, and 0 in the dimension of an element's bytes.
    key: Vec<u64>,
    /// The chunk, or the node below.
    child: u64,
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

    /// Gives the chunks of a dataset of shape `extent` whose object header is at `header` to `visit`,
    /// each with its first cell, in C order; `false` if its index is not read here.
    ///
    /// # Errors
    /// Why the index makes no sense, so that the library would miss chunks; that of `visit`.
    pub(super) fn visit(
        &self,
        header: u64,
        extent: &[u64],
        chunk_shape: &[u64],
        mut visit: impl FnMut(&[u64], Chunk) -> Result<(), String>,
    ) -> Result<bool, String> {
        let Some(layout) = self.layout(header) else {
            return Ok(false);
        };
        let rank = chunk_shape.len();
        let [LAYOUT_VERSION, CHUNKED, dimensions, rest @ ..] = layout.as_slice() else {
            return Ok(false);
        };
        if usize::from(*dimensions) != rank + 1 || extent.len() != rank {
            return Ok(false);
        }
        let root = match word(rest, 0) {
            None => return Ok(false),
            Some(NO_ADDRESS) => return Ok(true),
            Some(root) => root,
        };
        // A file has no room for more nodes.
        let mut nodes_left = self.length / NODE_HEAD_BYTES;
        let mut pending = vec![Pending {
            address: root,
            level: None,
            keys: None,
        }];
        while let Some(node) = pending.pop() {
            let damaged = || format!("the index of its chunks is damaged at {}", node.address);
            nodes_left = nodes_left.checked_sub(1).ok_or_else(damaged)?;
            let (level, entries) = self.node(&node, rank).ok_or_else(damaged)?;
            let first_child = pending.len();
            for (entry, next) in entries.iter().zip(entries.iter().skip(1)) {
                if entry.key >= next.key {
                    return Err(damaged());
                }
                if level > 0 {
                    pending.push(Pending {
                        address: entry.child,
                        level: Some(level - 1),
                        keys: Some([entry.key.clone(), next.key.clone()]),
                    });
                    continue;
                }
                let start = &entry.key[..rank];
                let is_chunk = entry.key[rank] == 0
                    && node.is_inside(&entry.key)
                    && (start.iter().zip(chunk_shape)).all(|(at, l)| at.is_multiple_of(*l))
                    && start.iter().zip(extent).all(|(at, l)| at < l);
                if !is_chunk {
                    return Err(damaged());
                }
                let chunk = Chunk {
                    address: entry.child,
                    length: entry.length,
                    mask: entry.mask,
                };
                visit(start, chunk)?;
            }
            // The first is popped first.
            pending[first_child..].reverse();
        }
        Ok(true)
    }

    /// The level of a node, and its entries; the last is only a key. `None` if it is not one.
    fn node(&self, node: &Pending, rank: usize) -> Option<(u8, Vec<Entry>)> {
        let head = self.bytes(node.address, NODE_HEAD_BYTES)?;
        let [b'T', b'R', b'E', b'E', CHUNK_NODES, level, low, high, ..] = head[..] else {
            return None;
        };
        if node.level.is_some_and(|expected| expected != level) {
            return None;
        }
        let count = usize::from(u16::from_le_bytes([low, high]));
        // Length and mask of four bytes each, the first cell with a number for the bytes of an element.
        let key_bytes = 8 + 8 * (rank + 1);
        let entry_bytes = key_bytes + 8;
        let length = count * entry_bytes + key_bytes;
        let mut body = self.bytes(node.address.checked_add(NODE_HEAD_BYTES)?, length as u64)?;
        // What the last key would be about.
        body.extend(NO_ADDRESS.to_le_bytes());
        let entry = |entry: &[u8]| {
            let sizes = word(entry, 0)?;
            Some(Entry {
                length: sizes & u64::from(u32::MAX),
                mask: (sizes >> 32) as u32,
                key: (0..=rank)
                    .map(|axis| word(entry, 8 + 8 * axis))
                    .collect::<Option<_>>()?,
                child: word(entry, key_bytes)?,
            })
        };
        let entries = body.chunks_exact(entry_bytes).map(entry);
        Some((level, entries.collect::<Option<_>>()?))
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
