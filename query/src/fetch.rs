//! Verified bytes of chunks: from caches, or with as few ranged requests as they take.
//!
//! A hash is checked here and nowhere later: bytes that leave this module are those that were
//! written.

use std::ops::Range;
use std::sync::Arc;

use array::shard::{ShardEntry, ShardFooter, footer_range, verify_plain, verify_shard};
use array::{ArrayMetadata, Hash};
use bytes::{Bytes, BytesMut};
use codecs::ArrayCodec;
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use storage::{ArrayNode, ChunkKind, ChunkRow};

use crate::Error;

/// Ranges closer than this are read as one: about what a request's latency costs in bytes.
const MAX_GAP_BYTES: u64 = 64 << 10;
/// Ranges of one shard read at once.
const CONCURRENT_RANGES: usize = 8;

/// An array to read: its node and its codecs. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ArrayReader {
    pub(crate) node: ArrayNode,
    pub(crate) codec: ArrayCodec,
}

impl ArrayReader {
    /// The array's node.
    pub fn node(&self) -> &ArrayNode {
        &self.node
    }

    /// The array's metadata.
    pub fn metadata(&self) -> &ArrayMetadata {
        self.node.metadata()
    }

    /// The array's codecs.
    pub fn codec(&self) -> &ArrayCodec {
        &self.codec
    }

    pub(crate) fn corrupt(&self, row: &ChunkRow, error: impl std::fmt::Display) -> Error {
        Error::Corrupt {
            object: self.node.chunk_object(row),
            array: self.node.path().to_string(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn unwritable(&self, error: codecs::Error) -> Error {
        match error {
            codecs::Error::Array(error) => error.into(),
            error => Error::Corrupt {
                object: "chunk to be changed".into(),
                array: self.node.path().to_string(),
                reason: error.to_string(),
            },
        }
    }

    /// The row says how the object is verified; the codecs say how it is read. They must agree.
    fn check_kind(&self, row: &ChunkRow) -> Result<(), Error> {
        if row.kind == self.codec.kind() {
            Ok(())
        } else {
            Err(self.corrupt(row, "its row is of another kind than the array"))
        }
    }
}

/// A shard's footer, read and as stored.
#[derive(Debug)]
struct Footer {
    parsed: ShardFooter,
    bytes: Bytes,
}

/// Caches of verified bytes. All of it is immutable, so nothing goes stale.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    footers: Cache<(Hash, usize), Arc<Footer>>,
    /// Encoded inner chunks and plain chunks by their hash.
    chunks: Cache<Hash, Bytes>,
}

impl Fetcher {
    pub(crate) fn new(cache_bytes: u64) -> Self {
        let footer_weight = |_: &(Hash, usize), footer: &Arc<Footer>| {
            u32::try_from(footer.parsed.size_bytes() + footer.bytes.len()).unwrap_or(u32::MAX)
        };
        let chunk_weight =
            |_: &Hash, bytes: &Bytes| u32::try_from(bytes.len() + 64).unwrap_or(u32::MAX);
        Self {
            footers: Cache::builder()
                .max_capacity(cache_bytes / 8)
                .weigher(footer_weight)
                .build(),
            chunks: Cache::builder()
                .max_capacity(cache_bytes / 8 * 7)
                .weigher(chunk_weight)
                .build(),
        }
    }

    /// The encoded bytes of the inner chunks numbered `needed` in a stored chunk, `None` for those
    /// that are all fill value. `most` reads the whole object at once where its footer is unknown.
    pub(crate) async fn inner_chunks(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        needed: &[usize],
        most: bool,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        array.check_kind(row)?;
        if row.kind == ChunkKind::Plain {
            let bytes = self.plain(array, row).await?;
            return Ok(needed.iter().map(|_| Some(bytes.clone())).collect());
        }
        let key = (row.id, array.codec.inner_chunks());
        let footer = match self.footers.get(&key) {
            Some(footer) => footer,
            None if most => {
                let (footer, bytes) = self.whole_shard(array, row).await?;
                let chunk =
                    |&nth: &usize| footer.parsed.entries()[nth].map(|e| slice(&bytes, e.range()));
                return Ok(needed.iter().map(chunk).collect());
            }
            None => self.footer(array, row).await?,
        };
        let entries: Vec<Option<ShardEntry>> = needed
            .iter()
            .map(|&nth| footer.parsed.entries()[nth])
            .collect();
        let mut found: Vec<Option<Bytes>> = entries
            .iter()
            .map(|entry| self.chunks.get(&entry.as_ref()?.hash))
            .collect();
        let mut missing: Vec<(usize, ShardEntry)> = entries
            .iter()
            .enumerate()
            .filter_map(|(nth, entry)| {
                entry
                    .filter(|_| found[nth].is_none())
                    .map(|entry| (nth, entry))
            })
            .collect();
        missing.sort_unstable_by_key(|(_, entry)| entry.offset);
        let groups = missing.chunk_by(|(_, a), (_, b)| b.offset - a.range().end <= MAX_GAP_BYTES);
        let groups: Vec<Vec<(usize, ShardEntry)>> = groups.map(<[_]>::to_vec).collect();
        let read: Vec<Vec<(usize, Bytes)>> = futures::stream::iter(groups)
            .map(|group| self.group(array, row, group))
            .buffered(CONCURRENT_RANGES)
            .try_collect()
            .await?;
        for (nth, bytes) in read.into_iter().flatten() {
            found[nth] = Some(bytes);
        }
        Ok(found)
    }

    /// The hashes of the inner chunks of a stored chunk, `None` for those that are all fill value.
    pub(crate) async fn inner_hashes(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
    ) -> Result<Vec<Option<Hash>>, Error> {
        array.check_kind(row)?;
        if row.kind == ChunkKind::Plain {
            return Ok(vec![Some(row.id)]);
        }
        let footer = self.footer(array, row).await?;
        let entries = footer.parsed.entries().iter();
        Ok(entries.map(|entry| entry.map(|entry| entry.hash)).collect())
    }

    /// Reads neighbouring inner chunks with one request.
    async fn group(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        group: Vec<(usize, ShardEntry)>,
    ) -> Result<Vec<(usize, Bytes)>, Error> {
        let start = group.first().map_or(0, |(_, entry)| entry.offset);
        let end = group.last().map_or(0, |(_, entry)| entry.range().end);
        let bytes = array.node.chunk_bytes(row, start..end).await?;
        let mut chunks = Vec::with_capacity(group.len());
        for (nth, entry) in group {
            let chunk = slice(&bytes, entry.offset - start..entry.range().end - start);
            entry
                .verify(&chunk)
                .map_err(|error| array.corrupt(row, error))?;
            // A slice would keep the whole group's memory alive in the cache.
            let chunk = if bytes.len() == chunk.len() {
                chunk
            } else {
                Bytes::copy_from_slice(&chunk)
            };
            self.chunks.insert(entry.hash, chunk.clone());
            chunks.push((nth, chunk));
        }
        Ok(chunks)
    }

    async fn footer(&self, array: &ArrayReader, row: &ChunkRow) -> Result<Arc<Footer>, Error> {
        let key = (row.id, array.codec.inner_chunks());
        if let Some(footer) = self.footers.get(&key) {
            return Ok(footer);
        }
        let corrupt = |error| array.corrupt(row, error);
        let range = footer_range(row.length, key.1).map_err(corrupt)?;
        let bytes = array.node.chunk_bytes(row, range).await?;
        let parsed = ShardFooter::parse(&bytes, &row.id, row.length, key.1).map_err(corrupt)?;
        let footer = Arc::new(Footer { parsed, bytes });
        self.footers.insert(key, footer.clone());
        Ok(footer)
    }

    async fn whole_shard(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
    ) -> Result<(Arc<Footer>, Bytes), Error> {
        let key = (row.id, array.codec.inner_chunks());
        let bytes = array.node.chunk_bytes(row, 0..row.length).await?;
        let corrupt = |error| array.corrupt(row, error);
        let parsed = verify_shard(&bytes, &row.id, key.1).map_err(corrupt)?;
        let range = footer_range(row.length, key.1).map_err(corrupt)?;
        let stored = Bytes::copy_from_slice(&bytes[range.start as usize..]);
        let footer = Arc::new(Footer {
            parsed,
            bytes: stored,
        });
        self.footers.insert(key, footer.clone());
        for entry in footer.parsed.entries().iter().flatten() {
            self.chunks.insert(
                entry.hash,
                Bytes::copy_from_slice(&slice(&bytes, entry.range())),
            );
        }
        Ok((footer, bytes))
    }

    async fn plain(&self, array: &ArrayReader, row: &ChunkRow) -> Result<Bytes, Error> {
        if let Some(bytes) = self.chunks.get(&row.id) {
            return Ok(bytes);
        }
        let bytes = array.node.chunk_bytes(row, 0..row.length).await?;
        verify_plain(&bytes, &row.id).map_err(|error| array.corrupt(row, error))?;
        self.chunks.insert(row.id, bytes.clone());
        Ok(bytes)
    }

    /// Exactly the stored bytes of `range` of a chunk's object, verified.
    pub(crate) async fn stored_bytes(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        array.check_kind(row)?;
        if row.kind == ChunkKind::Plain {
            return Ok(slice(&self.plain(array, row).await?, range));
        }
        if range == (0..row.length) {
            return Ok(self.whole_shard(array, row).await?.1);
        }
        let footer = self.footer(array, row).await?;
        let footer_start = row.length - footer.bytes.len() as u64;
        let overlaps =
            |entry: &ShardEntry| entry.offset < range.end && range.start < entry.range().end;
        let (needed, entries): (Vec<usize>, Vec<ShardEntry>) = footer
            .parsed
            .entries()
            .iter()
            .enumerate()
            .filter_map(|(nth, entry)| entry.filter(overlaps).map(|entry| (nth, entry)))
            .unzip();
        let chunks = self.inner_chunks(array, row, &needed, false).await?;
        let mut out = BytesMut::with_capacity((range.end - range.start) as usize);
        for (entry, bytes) in entries.iter().zip(chunks.into_iter().flatten()) {
            out.extend_from_slice(&cut(&bytes, entry.offset, &range));
        }
        out.extend_from_slice(&cut(&footer.bytes, footer_start, &range));
        Ok(out.freeze())
    }
}

/// The part of `bytes`, which start at `offset` of an object, inside `range` of that object.
fn cut(bytes: &Bytes, offset: u64, range: &Range<u64>) -> Bytes {
    let start = range.start.clamp(offset, offset + bytes.len() as u64) - offset;
    let end = range.end.clamp(offset, offset + bytes.len() as u64) - offset;
    slice(bytes, start..end)
}

fn slice(bytes: &Bytes, range: Range<u64>) -> Bytes {
    bytes.slice(range.start as usize..range.end as usize)
}
