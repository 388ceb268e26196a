//! Merging one chunk that two sides changed, inner chunk by inner chunk.
//!
//! Encoded inner chunks are moved as they are; nothing is decoded.

use std::collections::BTreeSet;

use array::shard::{MAX_INNER_CHUNKS, ShardBuilder, ShardEntry, ShardFooter, footer_range};
use array::{ArrayMetadata, ChunkIndex, ChunkKind, Region, Sharding};
use bytes::Bytes;

use crate::Error;
use crate::chunk_changes::{ChunkChange, Written};
use crate::object::shard_key;
use crate::page::{ChunkRow, Location, MAX_INLINE_BYTES};
use crate::repository::Repository;
use crate::uploads::Uploads;

/// The inner chunks of the chunks of one array.
#[derive(Clone, Debug)]
pub(crate) struct InnerChunks {
    /// `None` if chunks are not shards: each is its own only inner chunk.
    sharding: Option<Sharding>,
    chunk_shape: Vec<u64>,
    count: usize,
}

/// The inner chunks of one chunk; `None` for those that are all fill value.
type Table = Vec<Option<ShardEntry>>;

impl InnerChunks {
    pub(crate) fn of(metadata: &ArrayMetadata) -> Result<Self, Error> {
        let sharding = Sharding::of(metadata)?;
        let count = sharding.as_ref().map_or(1, Sharding::inner_chunks);
        debug_assert!(count <= MAX_INNER_CHUNKS);
        Ok(Self {
            sharding,
            chunk_shape: metadata.chunk_shape().to_vec(),
            count,
        })
    }

    /// The cells of inner chunk `inner` of the chunk at `index` that are in an array of `shape`;
    /// empty if there are none.
    pub(crate) fn region(
        &self,
        index: &ChunkIndex,
        inner: u32,
        shape: &[u64],
    ) -> Result<Region, Error> {
        let part = match &self.sharding {
            Some(sharding) => sharding.inner_region(inner as usize)?,
            None => Region::whole(&self.chunk_shape),
        };
        let corner = index.as_slice().iter().zip(&self.chunk_shape);
        let start: Option<Vec<u64>> = corner
            .zip(part.start())
            .map(|((at, length), offset)| at.checked_mul(*length)?.checked_add(*offset))
            .collect();
        let start = start.ok_or(array::Error::TooLarge { what: "region" })?;
        let region = Region::new(start, part.shape().to_vec())?;
        Ok(region.intersect(&Region::whole(shape)))
    }

    /// The inner chunks that `change`, made on `base`, is about.
    pub(crate) async fn written(
        &self,
        repository: &Repository,
        change: &ChunkChange,
        base: Option<&ChunkRow>,
        index: &ChunkIndex,
    ) -> Result<Vec<u32>, Error> {
        match change.written() {
            Written::Whole => Ok((0..self.count as u32).collect()),
            Written::Inner(inner) => Ok(inner.to_vec()),
            Written::Differing => {
                let row = change.row(index.clone());
                self.differing(repository, base, row.as_ref()).await
            }
        }
    }

    /// The inner chunks in which two versions of a chunk differ.
    pub(crate) async fn differing(
        &self,
        repository: &Repository,
        a: Option<&ChunkRow>,
        b: Option<&ChunkRow>,
    ) -> Result<Vec<u32>, Error> {
        let is_shard = |row: Option<&ChunkRow>| row.is_none_or(|row| row.kind == ChunkKind::Shard);
        if self.sharding.is_none() || !is_shard(a) || !is_shard(b) {
            let same = crate::diff::same_content(a, b);
            return Ok(if same {
                vec![]
            } else {
                (0..self.count as u32).collect()
            });
        }
        let (a, b) = futures::try_join!(self.table(repository, a), self.table(repository, b))?;
        let hash = |entry: &Option<ShardEntry>| entry.map(|entry| entry.hash);
        let pairs = a.iter().zip(&b).zip(0..);
        Ok(pairs
            .filter(|((a, b), _)| hash(a) != hash(b))
            .map(|(_, inner)| inner)
            .collect())
    }

    async fn table(&self, repository: &Repository, row: Option<&ChunkRow>) -> Result<Table, Error> {
        let Some(row) = row else {
            return Ok(vec![None; self.count]);
        };
        let corrupt = |error: array::Error| Error::corrupt(shard_key(&row.id), error.to_string());
        let range = footer_range(row.length, self.count).map_err(corrupt)?;
        let bytes = repository.chunk_bytes(row, range).await?;
        let footer =
            ShardFooter::parse(&bytes, &row.id, row.length, self.count).map_err(corrupt)?;
        Ok(footer.entries().to_vec())
    }

    /// The chunk that has the inner chunks `mine` of one version and the others of another; stored,
    /// unless it is small or all fill value.
    pub(crate) async fn splice(
        &self,
        repository: &Repository,
        uploads: &Uploads,
        index: &ChunkIndex,
        own: (Option<&ChunkRow>, &[u32]),
        other: Option<&ChunkRow>,
    ) -> Result<Option<(ChunkRow, Bytes)>, Error> {
        let (own, mine) = own;
        let (ours, theirs) =
            futures::try_join!(self.whole(repository, own), self.whole(repository, other))?;
        let mut builder = ShardBuilder::new(self.count);
        for inner in 0..self.count as u32 {
            let side = if mine.binary_search(&inner).is_ok() {
                &ours
            } else {
                &theirs
            };
            builder.push(side[inner as usize].as_deref());
        }
        let Some((id, bytes)) = builder.finish() else {
            return Ok(None);
        };
        let bytes = Bytes::from(bytes);
        let length = bytes.len() as u64;
        let location = if length <= MAX_INLINE_BYTES {
            Location::Inline(bytes.clone())
        } else {
            uploads.chunk(&id, bytes.clone()).await?;
            Location::Stored
        };
        let row = ChunkRow {
            index: index.clone(),
            kind: ChunkKind::Shard,
            id,
            length,
            location,
        };
        Ok(Some((row, bytes)))
    }

    /// The encoded inner chunks of a shard, verified.
    async fn whole(
        &self,
        repository: &Repository,
        row: Option<&ChunkRow>,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let Some(row) = row else {
            return Ok(vec![None; self.count]);
        };
        let corrupt = |error: array::Error| Error::corrupt(shard_key(&row.id), error.to_string());
        let bytes = repository.chunk_bytes(row, 0..row.length).await?;
        let footer = array::shard::verify_shard(&bytes, &row.id, self.count).map_err(corrupt)?;
        let entries = footer.entries().iter();
        Ok(entries
            .map(|entry| {
                let range = entry.as_ref()?.range();
                Some(bytes.slice(range.start as usize..range.end as usize))
            })
            .collect())
    }

    /// Puts a staged version of a chunk together with versions its writer had not seen. Gives the
    /// inner chunks that were written on both sides and differ, and the chunk; `None` if that is
    /// the version itself.
    pub(crate) async fn merge_versions(
        &self,
        repository: &Repository,
        sides: Versioned<'_>,
    ) -> Result<(Vec<u32>, Option<Option<(ChunkRow, Bytes)>>), Error> {
        let Versioned {
            index,
            current,
            unseen,
            step,
        } = sides;
        let all = || (0..self.count as u32).collect::<Vec<u32>>();
        let of = |written: &Written| match written {
            Written::Inner(inner) => inner.to_vec(),
            Written::Whole | Written::Differing => all(),
        };
        let theirs: BTreeSet<u32> = unseen.iter().flat_map(of).collect();
        let mine = of(step.written());
        let (own, other) = (step.row(index.clone()), current.row(index.clone()));
        let differing = self
            .differing(repository, own.as_ref(), other.as_ref())
            .await?;
        let clash = |inner: &u32| theirs.contains(inner) && differing.binary_search(inner).is_ok();
        let clashing: Vec<u32> = mine.iter().copied().filter(clash).collect();
        if !self.can_splice() || mine.len() == self.count {
            return Ok((clashing, None));
        }
        let uploads = Uploads::new(repository.store());
        let merged = self
            .splice(
                repository,
                &uploads,
                index,
                (own.as_ref(), &mine),
                other.as_ref(),
            )
            .await?;
        uploads.finish().await?;
        Ok((clashing, Some(merged)))
    }

    /// Whether chunks can be merged by their inner chunks at all.
    pub(crate) fn can_splice(&self) -> bool {
        self.sharding.is_some()
    }
}

/// A staged version of a chunk, and what its writer had not seen.
pub(crate) struct Versioned<'a> {
    pub(crate) index: &'a ChunkIndex,
    /// The chunk with all versions before this one.
    pub(crate) current: &'a ChunkChange,
    /// What the versions wrote that the writer had not seen.
    pub(crate) unseen: &'a [Written],
    /// The version.
    pub(crate) step: &'a ChunkChange,
}

/// Whether any cell of `region` lies outside `shape`.
pub(crate) fn reaches_past(region: &Region, shape: &[u64]) -> bool {
    !region.is_empty() && !Region::whole(shape).contains(region)
}
