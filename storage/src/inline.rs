//! Small chunks that live in the page of their row instead of in an object of their own.
//!
//! Spec: `docs/format.md`, "Manifest".

use array::{ChunkKind, shard};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::Error;
use crate::concurrent::CONCURRENT_REQUESTS;
use crate::object::shard_key;
use crate::page::{ChunkRow, Location, MAX_INLINE_BYTES, MAX_PAGE_INLINE_BYTES, ManifestRow};
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
                            .map_err(|error| Error::corrupt(key, error.to_string()))?;
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
fn check_chunk(row: &ChunkRow, bytes: &[u8]) -> Result<(), array::Error> {
    match row.kind {
        ChunkKind::Plain => shard::verify_plain(bytes, &row.id),
        ChunkKind::Shard => shard::verify_unknown_shard(bytes, &row.id).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use array::ChunkIndex;
    use array::hash::{self, Kind};
    use array::shard::ShardBuilder;

    use super::*;

    #[test]
    fn changed_chunks_are_not_copied() {
        let plain = b"plain chunk".to_vec();
        let mut builder = ShardBuilder::new(2);
        builder.push(Some(b"inner chunk"));
        builder.push(None);
        let (shard_id, shard) = builder.finish().unwrap();
        let cases = [
            (
                ChunkKind::Plain,
                hash::hash(Kind::PlainChunk, &plain),
                plain,
            ),
            (ChunkKind::Shard, shard_id, shard),
        ];
        for (kind, id, bytes) in cases {
            let row = ChunkRow {
                index: ChunkIndex::new(vec![0]),
                kind,
                id,
                length: bytes.len() as u64,
                location: Location::Stored,
            };
            assert_eq!(check_chunk(&row, &bytes), Ok(()));
            let mut flipped = bytes.clone();
            flipped[3] ^= 1;
            assert!(check_chunk(&row, &flipped).is_err());
            assert!(check_chunk(&row, &bytes[1..]).is_err());
        }
    }
}
