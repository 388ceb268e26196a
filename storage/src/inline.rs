//! Small chunks that live in the page of their row instead of in an object of their own.
//!
//! Spec: `docs/format.md`, "Manifest".

use array::hash::{self, Hash, Kind};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::Error;
use crate::concurrent::CONCURRENT_REQUESTS;
use crate::object::shard_key;
use crate::page::{
    ChunkKind, ChunkRow, Location, MAX_INLINE_BYTES, MAX_PAGE_INLINE_BYTES, ManifestRow,
};
use crate::store::Store;

/// Decides which chunks of a page live in it: those of up to 512 bytes, lowest addresses first, up
/// to 64 KiB. A rule of the content alone, so equal content gives equal pages.
pub(crate) async fn settle_inline(
    store: Store,
    rows: Vec<ManifestRow>,
) -> Result<Vec<ManifestRow>, Error> {
    let mut room = MAX_PAGE_INLINE_BYTES;
    let mut full = false;
    let plan: Vec<(ManifestRow, bool)> = rows
        .into_iter()
        .map(|row| {
            let wanted = match &row {
                ManifestRow::Chunk(chunk) => {
                    chunk.length <= MAX_INLINE_BYTES
                        && !matches!(chunk.location, Location::External { .. })
                }
                ManifestRow::Inner { .. } => false,
            };
            let ManifestRow::Chunk(chunk) = &row else {
                return (row, false);
            };
            full |= wanted && chunk.length > room;
            let inline = wanted && !full;
            if inline {
                room -= chunk.length;
            }
            (row, inline)
        })
        .collect();
    futures::stream::iter(plan)
        .map(|(row, inline)| {
            let store = store.clone();
            async move {
                let ManifestRow::Chunk(mut chunk) = row else {
                    return Ok(row);
                };
                match (&chunk.location, inline) {
                    (Location::Stored, true) => {
                        let key = shard_key(&chunk.id);
                        let bytes = store.get_existing(&key).await?;
                        check_chunk(&chunk, &bytes)
                            .map_err(|reason| Error::corrupt(key, reason))?;
                        chunk.location = Location::Inline(bytes);
                    }
                    (Location::Inline(bytes), false) => {
                        store
                            .put_immutable(&shard_key(&chunk.id), bytes.clone())
                            .await?;
                        chunk.location = Location::Stored;
                    }
                    _ => {}
                }
                Ok(ManifestRow::Chunk(chunk))
            }
        })
        .buffered(CONCURRENT_REQUESTS)
        .try_collect()
        .await
}

/// Checks that `bytes`, read from an object, are those of `row` before they are copied.
///
/// A shard's own table says what its inner chunks hash to; where it is follows from the number of
/// inner chunks, which a page does not know, so the few possible numbers are tried.
fn check_chunk(row: &ChunkRow, bytes: &Bytes) -> Result<(), String> {
    if bytes.len() as u64 != row.length {
        return Err(format!("{} bytes instead of {}", bytes.len(), row.length));
    }
    let matches = match row.kind {
        ChunkKind::Plain => hash::hash(Kind::PlainChunk, bytes) == row.id,
        ChunkKind::Shard => (1..=bytes.len() / SHARD_TABLE_ENTRY_BYTES)
            .any(|inner_chunks| is_shard(bytes, inner_chunks, &row.id)),
    };
    matches
        .then_some(())
        .ok_or_else(|| "its bytes do not match its name".into())
}

/// Bytes the hash table and the index of a shard take for each inner chunk.
const SHARD_TABLE_ENTRY_BYTES: usize = 32 + 16;

/// Whether `bytes` are a shard of so many inner chunks with this id.
fn is_shard(bytes: &[u8], inner_chunks: usize, id: &Hash) -> bool {
    let footer_bytes = 8 + SHARD_TABLE_ENTRY_BYTES * inner_chunks + 4;
    let Some(data_bytes) = bytes.len().checked_sub(footer_bytes) else {
        return false;
    };
    let (data, footer) = bytes.split_at(data_bytes);
    let (table, index) = footer[8..footer_bytes - 4].split_at(32 * inner_chunks);
    let hashes: Vec<Hash> = table
        .chunks_exact(32)
        .filter_map(Hash::from_slice)
        .collect();
    let is_present = |(hash, entry): (&Hash, &[u8])| {
        let number = |at: usize| {
            let bytes = entry[at..at + 8].try_into().unwrap_or_default();
            usize::try_from(u64::from_le_bytes(bytes)).ok()
        };
        let inner = number(0)
            .zip(number(8))
            .and_then(|(offset, length)| data.get(offset..offset.checked_add(length)?));
        hash.is_zero() || inner.is_some_and(|inner| hash::hash(Kind::InnerChunk, inner) == *hash)
    };
    hash::mth(&hashes) == *id && hashes.iter().zip(index.chunks_exact(16)).all(is_present)
}

#[cfg(test)]
mod tests {
    use array::ChunkIndex;

    use super::*;

    fn shard() -> (Hash, Vec<u8>) {
        let inner = b"inner chunk";
        let hashes = [hash::hash(Kind::InnerChunk, inner), Hash::ZERO];
        let mut bytes = inner.to_vec();
        bytes.extend_from_slice(b"QSH1\x02\0\0\0");
        bytes.extend(hashes.iter().flat_map(|hash| *hash.as_bytes()));
        for number in [0, inner.len() as u64, u64::MAX, u64::MAX] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 4]);
        (hash::mth(&hashes), bytes)
    }

    #[test]
    fn changed_chunks_are_not_copied() {
        let plain = b"plain chunk".to_vec();
        let cases = [
            (
                ChunkKind::Plain,
                hash::hash(Kind::PlainChunk, &plain),
                plain,
            ),
            (ChunkKind::Shard, shard().0, shard().1),
        ];
        for (kind, id, bytes) in cases {
            let row = ChunkRow {
                index: ChunkIndex::new(vec![0]),
                kind,
                id,
                length: bytes.len() as u64,
                location: Location::Stored,
            };
            assert_eq!(check_chunk(&row, &Bytes::from(bytes.clone())), Ok(()));
            let mut flipped = bytes.clone();
            flipped[3] ^= 1;
            assert!(check_chunk(&row, &Bytes::from(flipped)).is_err());
            assert!(check_chunk(&row, &Bytes::from(bytes[1..].to_vec())).is_err());
        }
    }
}
