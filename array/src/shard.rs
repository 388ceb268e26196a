//! The canonical, self-verifying shard: layout, footer, and every check of it.
//!
//! ```text
//! inner chunks, row-major, present ones only, back to back from offset 0   [0, D)
//! hash table: "QSH1" ‖ u32 n ‖ n × 32 bytes (zero for an absent one)       [D, D + 8 + 32n)
//! Zarr shard index: n × (u64 offset, u64 length) ‖ u32 crc32c              the last 16n + 4 bytes
//! ```
//!
//! The hash table and the index together are the *footer*. It comes with one ranged read, and with
//! the shard's id it is enough to verify any inner chunk on its own.
//!
//! Spec: `docs/format.md`, "Shards"; Zarr v3 `sharding_indexed`, "Binary shard format".

use std::ops::Range;

use crate::Error;
use crate::hash::{self, HASH_BYTES, Hash, Kind};

/// How a stored chunk is laid out, and so how it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// A canonical shard; its id is the Merkle tree hash over its inner chunks.
    Shard,
    /// Any other chunk; its id is `H(plain chunk, bytes)`.
    Plain,
}

/// Most inner chunks one shard may have: its footer is then 48 MiB.
pub const MAX_INNER_CHUNKS: usize = 1 << 20;

const MAGIC: &[u8; 4] = b"QSH1";
const TABLE_HEADER_BYTES: usize = 8;
const INDEX_ENTRY_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Offset and length of an absent inner chunk.
const ABSENT: u64 = u64::MAX;
/// Most room that is made for inner chunks to come, unless a shard is larger.
const MAX_FORETOLD_BYTES: usize = 64 << 20;

/// Length of the footer of a shard of `inner_chunks`, in bytes.
pub fn footer_bytes(inner_chunks: usize) -> u64 {
    let per_chunk = (HASH_BYTES + INDEX_ENTRY_BYTES) as u64;
    (TABLE_HEADER_BYTES + CHECKSUM_BYTES) as u64 + per_chunk * inner_chunks as u64
}

/// Where the footer of a shard of `length_bytes` is.
///
/// # Errors
/// [`Error::Corrupt`] if the shard is too short to have one.
pub fn footer_range(length_bytes: u64, inner_chunks: usize) -> Result<Range<u64>, Error> {
    let start = length_bytes
        .checked_sub(footer_bytes(inner_chunks))
        .ok_or_else(|| {
            corrupt(format!(
                "{length_bytes} bytes are too few for its {inner_chunks} inner chunks"
            ))
        })?;
    Ok(start..length_bytes)
}

/// Where an inner chunk is, and the hash of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardEntry {
    /// First byte in the shard.
    pub offset: u64,
    /// Number of bytes, never 0.
    pub length: u64,
    /// `H(inner chunk, bytes)`.
    pub hash: Hash,
}

impl ShardEntry {
    /// The bytes of the inner chunk in the shard.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length
    }

    /// Checks the bytes of the inner chunk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if `bytes` are not the ones that were hashed.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 != self.length || !is_of(Kind::InnerChunk, bytes, &self.hash) {
            return Err(Error::corrupt(
                "inner chunk",
                "its bytes do not match their hash",
            ));
        }
        Ok(())
    }
}

/// The verified footer of a shard.
///
/// Guarantees: the hashes are those the shard's id was made of; present inner chunks tile the bytes
/// before the footer in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFooter {
    entries: Vec<Option<ShardEntry>>,
}

impl ShardFooter {
    /// Reads the footer of the shard `id` of `length_bytes` and checks all of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything but the canonical footer of that shard.
    pub fn parse(
        bytes: &[u8],
        id: &Hash,
        length_bytes: u64,
        inner_chunks: usize,
    ) -> Result<Self, Error> {
        let range = footer_range(length_bytes, inner_chunks)?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(corrupt(format!("a footer of {} bytes", bytes.len())));
        }
        let (table, index) = bytes.split_at(TABLE_HEADER_BYTES + HASH_BYTES * inner_chunks);
        let (header, hashes) = table.split_at(TABLE_HEADER_BYTES);
        if &header[..4] != MAGIC {
            return Err(corrupt("no hash table"));
        }
        if header[4..] != (inner_chunks as u32).to_le_bytes() {
            return Err(corrupt(
                "the hash table has another number of inner chunks than the metadata",
            ));
        }
        let (index, checksum) = index.split_at(INDEX_ENTRY_BYTES * inner_chunks);
        if checksum != crc32c::crc32c(index).to_le_bytes() {
            return Err(corrupt("the checksum of its index is wrong"));
        }
        let hashes: Vec<Hash> = hashes
            .chunks_exact(HASH_BYTES)
            .filter_map(Hash::from_slice)
            .collect();
        if hash::mth(&hashes) != *id {
            return Err(corrupt("its hash table does not match its id"));
        }
        let mut entries = Vec::with_capacity(inner_chunks);
        let mut next_offset = 0u64;
        for (hash, entry) in hashes
            .into_iter()
            .zip(index.chunks_exact(INDEX_ENTRY_BYTES))
        {
            let (offset, length) = (word(&entry[..8]), word(&entry[8..]));
            if (offset, length) == (ABSENT, ABSENT) {
                if !hash.is_zero() {
                    return Err(corrupt("an absent inner chunk has a hash"));
                }
                entries.push(None);
                continue;
            }
            if hash.is_zero() || length == 0 || offset != next_offset {
                return Err(corrupt("its inner chunks are not back to back"));
            }
            next_offset = offset
                .checked_add(length)
                .filter(|&end| end <= range.start)
                .ok_or_else(|| corrupt("an inner chunk reaches past its data"))?;
            entries.push(Some(ShardEntry {
                offset,
                length,
                hash,
            }));
        }
        if next_offset != range.start {
            return Err(corrupt("its inner chunks leave a gap"));
        }
        Ok(Self { entries })
    }

    /// Every inner chunk in row-major order; `None` for one that is all fill value.
    pub fn entries(&self) -> &[Option<ShardEntry>] {
        &self.entries
    }

    /// Bytes this takes in memory.
    pub fn size_bytes(&self) -> usize {
        self.entries.len() * size_of::<Option<ShardEntry>>()
    }
}

/// Where the inner chunks of a shard are by its Zarr index, canonical or not: offset and length,
/// `None` for absent ones. Hashes are not looked at.
///
/// # Errors
/// [`Error::Corrupt`] if the index is cut short, its checksum is wrong, or it points outside.
pub fn read_index(shard: &[u8], inner_chunks: usize) -> Result<Vec<Option<Range<usize>>>, Error> {
    let index_bytes = INDEX_ENTRY_BYTES * inner_chunks + CHECKSUM_BYTES;
    let start = shard
        .len()
        .checked_sub(index_bytes)
        .ok_or_else(|| corrupt(format!("{} bytes are too few for its index", shard.len())))?;
    let (index, checksum) = shard[start..].split_at(INDEX_ENTRY_BYTES * inner_chunks);
    if checksum != crc32c::crc32c(index).to_le_bytes() {
        return Err(corrupt("the checksum of its index is wrong"));
    }
    let entry = |entry: &[u8]| {
        let (offset, length) = (word(&entry[..8]), word(&entry[8..]));
        if (offset, length) == (ABSENT, ABSENT) {
            return Ok(None);
        }
        let end = offset
            .checked_add(length)
            .filter(|&end| end <= start as u64);
        let end = end.ok_or_else(|| corrupt("an inner chunk reaches past its data"))?;
        Ok(Some(offset as usize..end as usize))
    };
    index.chunks_exact(INDEX_ENTRY_BYTES).map(entry).collect()
}

/// Checks a whole shard: its footer and every inner chunk.
///
/// # Errors
/// [`Error::Corrupt`] if any byte is not the one that was written.
pub fn verify_shard(bytes: &[u8], id: &Hash, inner_chunks: usize) -> Result<ShardFooter, Error> {
    let range = footer_range(bytes.len() as u64, inner_chunks)?;
    let footer = ShardFooter::parse(
        &bytes[range.start as usize..],
        id,
        bytes.len() as u64,
        inner_chunks,
    )?;
    for entry in footer.entries.iter().flatten() {
        let range = entry.range();
        entry.verify(&bytes[range.start as usize..range.end as usize])?;
    }
    Ok(footer)
}

/// Checks a whole shard of which nothing but its id is known: finds the number of inner chunks in
/// its hash table.
///
/// # Errors
/// [`Error::Corrupt`] if the bytes are no shard with that id.
pub fn verify_unknown_shard(bytes: &[u8], id: &Hash) -> Result<ShardFooter, Error> {
    for inner_chunks in 1..=MAX_INNER_CHUNKS {
        let Ok(range) = footer_range(bytes.len() as u64, inner_chunks) else {
            break;
        };
        let header = &bytes[range.start as usize..];
        if header.starts_with(MAGIC) && header[4..8] == (inner_chunks as u32).to_le_bytes() {
            return verify_shard(bytes, id, inner_chunks);
        }
    }
    Err(corrupt("no hash table"))
}

/// Whether encoded bytes have this hash.
fn is_of(kind: Kind, bytes: &[u8], expected: &Hash) -> bool {
    #[cfg(quarr_unverified)]
    if !unverified::count(bytes) {
        return true;
    }
    hash::hash(kind, bytes) == *expected
}

/// What verification costs, to be measured: a switch that leaves it out, and a count of the bytes
/// that are hashed. Only builds for that have it: `RUSTFLAGS="--cfg quarr_unverified"`.
#[cfg(quarr_unverified)]
pub mod unverified {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    static IS_OFF: AtomicBool = AtomicBool::new(false);
    static HASHED: AtomicU64 = AtomicU64::new(0);

    /// Switches the hashing of encoded bytes off, or on again.
    pub fn switch_off(is_off: bool) {
        IS_OFF.store(is_off, Ordering::Relaxed);
    }

    /// Encoded bytes hashed since the last call.
    pub fn take_hashed_bytes() -> u64 {
        HASHED.swap(0, Ordering::Relaxed)
    }

    pub(super) fn count(bytes: &[u8]) -> bool {
        let is_off = IS_OFF.load(Ordering::Relaxed);
        if !is_off {
            HASHED.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        !is_off
    }
}

/// Checks the bytes of a chunk that is not a shard.
///
/// # Errors
/// [`Error::Corrupt`] if `bytes` are not the ones that were hashed.
pub fn verify_plain(bytes: &[u8], id: &Hash) -> Result<(), Error> {
    if is_of(Kind::PlainChunk, bytes, id) {
        return Ok(());
    }
    Err(Error::corrupt("chunk", "its bytes do not match their hash"))
}

/// Puts encoded inner chunks together; gives the shard's id and bytes.
#[derive(Debug)]
pub struct ShardBuilder {
    inner_chunks: usize,
    bytes: Vec<u8>,
    hashes: Vec<Hash>,
    index: Vec<u8>,
}

impl ShardBuilder {
    /// A shard of so many inner chunks, none of them added yet.
    pub fn new(inner_chunks: usize) -> Self {
        Self {
            inner_chunks,
            bytes: Vec::new(),
            hashes: Vec::with_capacity(inner_chunks),
            index: Vec::with_capacity(INDEX_ENTRY_BYTES * inner_chunks + CHECKSUM_BYTES),
        }
    }

    /// Adds the next inner chunk in row-major order.
    pub fn push(&mut self, encoded: Option<&[u8]>) {
        let (offset, length) = match encoded {
            Some(encoded) => (self.bytes.len() as u64, encoded.len() as u64),
            None => (ABSENT, ABSENT),
        };
        self.index.extend_from_slice(&offset.to_le_bytes());
        self.index.extend_from_slice(&length.to_le_bytes());
        self.hashes
            .push(encoded.map_or(Hash::ZERO, |bytes| hash::hash(Kind::InnerChunk, bytes)));
        let encoded = encoded.unwrap_or_default();
        self.make_room(encoded.len());
        self.bytes.extend_from_slice(encoded);
    }

    /// Makes room for the inner chunk that was added last, of so many bytes; if there is none, for as
    /// many as those so far foretell for all, and an eighth more: a shard that grows is copied whole.
    fn make_room(&mut self, bytes: usize) {
        let needed = self.bytes.len() + bytes;
        if needed <= self.bytes.capacity() {
            return;
        }
        let foretold = (needed / self.hashes.len()).saturating_mul(self.inner_chunks);
        let foretold = foretold.saturating_add(foretold / 8);
        // The first inner chunks of a shard may be unlike the others.
        let most = MAX_FORETOLD_BYTES.max(needed.saturating_mul(2));
        self.bytes
            .reserve(foretold.clamp(needed, most) - self.bytes.len());
    }

    /// The shard; `None` if every inner chunk is absent.
    pub fn finish(self) -> Option<(Hash, Vec<u8>)> {
        let Self {
            mut bytes,
            hashes,
            index,
            ..
        } = self;
        if hashes.iter().all(Hash::is_zero) {
            return None;
        }
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(hashes.len() as u32).to_le_bytes());
        for hash in &hashes {
            bytes.extend_from_slice(hash.as_bytes());
        }
        bytes.extend_from_slice(&index);
        bytes.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        Some((hash::mth(&hashes), bytes))
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn corrupt(reason: impl Into<String>) -> Error {
    Error::corrupt("shard", reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(chunks: &[Option<Vec<u8>>]) -> Option<(Hash, Vec<u8>)> {
        let mut builder = ShardBuilder::new(chunks.len());
        for chunk in chunks {
            builder.push(chunk.as_deref());
        }
        builder.finish()
    }

    fn chunks() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
        let chunk = prop::option::of(prop::collection::vec(any::<u8>(), 1..20));
        prop::collection::vec(chunk, 1..9)
    }

    proptest! {
        #[test]
        fn a_shard_gives_back_its_inner_chunks(chunks in chunks()) {
            let Some((id, bytes)) = build(&chunks) else {
                prop_assert!(chunks.iter().all(Option::is_none));
                return Ok(());
            };
            let footer = verify_shard(&bytes, &id, chunks.len()).unwrap();
            for (entry, chunk) in footer.entries().iter().zip(&chunks) {
                let found = entry.map(|e| bytes[e.offset as usize..][..e.length as usize].to_vec());
                prop_assert_eq!(&found, chunk);
            }
        }

        #[test]
        fn any_changed_bit_and_any_other_length_is_refused(
            chunks in chunks(), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let Some((id, bytes)) = build(&chunks) else { return Ok(()) };
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1 << bit;
            prop_assert!(verify_shard(&flipped, &id, chunks.len()).is_err());
            prop_assert!(verify_shard(&bytes[..at.index(bytes.len())], &id, chunks.len()).is_err());
            prop_assert!(verify_shard(&[&bytes[..], b"x"].concat(), &id, chunks.len()).is_err());
            prop_assert!(verify_shard(&bytes, &id, chunks.len() + 1).is_err());
        }

        #[test]
        fn hostile_footers_are_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), n in 0usize..4, length in any::<u64>()
        ) {
            let _ = ShardFooter::parse(&bytes, &Hash::ZERO, length, n);
            let _ = verify_shard(&bytes, &Hash::ZERO, n);
        }
    }

    /// The hash table and the checksum are right, so only the rule under test can refuse.
    fn forge(entries: &[(u64, u64, bool)], data: usize) -> Result<ShardFooter, Error> {
        let hashes: Vec<Hash> = entries
            .iter()
            .map(|(_, _, present)| {
                if *present {
                    hash::hash(Kind::InnerChunk, b"x")
                } else {
                    Hash::ZERO
                }
            })
            .collect();
        let index: Vec<u8> = entries
            .iter()
            .flat_map(|(offset, length, _)| [offset.to_le_bytes(), length.to_le_bytes()].concat())
            .collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((entries.len() as u32).to_le_bytes());
        bytes.extend(hashes.iter().flat_map(|hash| *hash.as_bytes()));
        bytes.extend(&index);
        bytes.extend(crc32c::crc32c(&index).to_le_bytes());
        let length = (data + bytes.len()) as u64;
        ShardFooter::parse(&bytes, &hash::mth(&hashes), length, entries.len())
    }

    #[test]
    fn every_rule_of_the_layout_is_enforced() {
        assert!(forge(&[(0, 3, true), (ABSENT, ABSENT, false), (3, 2, true)], 5).is_ok());
        for (entries, data) in [
            (vec![(0, 3, true), (4, 1, true)], 5),
            (vec![(3, 2, true), (0, 3, true)], 5),
            (vec![(0, 0, true), (0, 5, true)], 5),
            (vec![(0, 4, true)], 5),
            (vec![(0, 6, true)], 5),
            (vec![(0, 5, false)], 5),
            (vec![(ABSENT, ABSENT, true)], 0),
            (vec![(ABSENT, 5, true)], 5),
            (vec![(0, u64::MAX - 1, true)], 5),
            (vec![(0, 3, true), (1, 4, true)], 5),
        ] {
            assert!(forge(&entries, data).is_err(), "{entries:?}");
        }
    }

    /// The worked example of `docs/format.md`.
    #[test]
    fn the_bytes_of_a_shard_are_the_golden_ones() {
        let (id, bytes) = build(&[Some(b"abc".to_vec()), None, Some(b"de".to_vec())]).unwrap();
        let golden = include_str!("../../docs/vectors/shard.txt");
        let lines: Vec<&str> = golden.lines().collect();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(lines, [id.to_string(), digits]);
    }
}
