//! Reading ahead in shards whose inner chunks are asked for one by one.
//!
//! Zarr clients read a shard so: hundreds of ranges, each a request to the store. As long as what is
//! asked for lies beside what was read, and what was read ahead was asked for, twice as much is read
//! along as the last time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use array::Hash;
use array::shard::ShardEntry;
use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use storage::{ChunkKind, ChunkRow};

use super::{ArrayReader, Fetcher, Footer, is_inline};
use crate::Error;
use crate::budget::Budget;
use crate::costs::Costs;
use crate::disk::Kind;

/// Shards of which it is remembered what was read.
const SHARDS: u64 = 256;
/// For how long after the last read.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many of its inner chunks.
const MAX_READ: usize = 4096;
/// Numbers in a shard that differ by no more are neighbours: threads overtake each other.
const NEAR: usize = 4;
/// So many inner chunks may have been read ahead in vain; beyond, half of what was has to be of use.
const IN_VAIN: usize = 16;
/// Most inner chunks read along with one.
const MAX_ALONG: usize = 1024;
/// What is read ahead is at most one part in so many of the cache that keeps it until it is wanted.
const CACHE_SHARE: u64 = 8;

/// What was read of which shard. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Courses {
    by_shard: Cache<Hash, Arc<Mutex<Course>>>,
    max_bytes: u64,
}

/// What was read of a shard lately.
#[derive(Debug, Default)]
struct Course {
    /// Inner chunks, by number, and whether they were asked for or only read ahead.
    read: HashMap<usize, Why>,
    /// How many were read along last.
    along: usize,
    /// Of those read ahead, how many were asked for then, and how many were not so far.
    useful: usize,
    unused: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Asked,
    Ahead,
}

impl Course {
    /// Notes that an inner chunk was asked for. One that `is_to_read` although it was read ahead was
    /// so in vain: it was not kept.
    fn note_asked(&mut self, nth: usize, is_to_read: bool) {
        if self.read.insert(nth, Why::Asked) == Some(Why::Ahead) && !is_to_read {
            self.useful += 1;
            self.unused -= 1;
        }
    }

    fn note_ahead(&mut self, nth: usize) {
        if self.read.insert(nth, Why::Ahead) != Some(Why::Ahead) {
            self.unused += 1;
        }
    }

    /// Whether some inner chunk beside this one was read: by number, or along any dimension of the
    /// `grid` of inner chunks.
    fn is_beside(&self, nth: usize, grid: &[u64]) -> bool {
        let is_read = |nth: usize| self.read.contains_key(&nth);
        let before = (nth.saturating_sub(NEAR)..nth).any(is_read);
        if before || (nth + 1..=nth + NEAR).any(is_read) {
            return true;
        }
        let mut step = 1;
        for &length in grid.iter().rev() {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let at = nth / step % length;
            if at > 0 && is_read(nth - step) || at + 1 < length && is_read(nth + step) {
                return true;
            }
            step = step.saturating_mul(length);
        }
        false
    }

    /// How many inner chunks to read along with `nth`, which has to be read.
    fn advance(&mut self, nth: usize, grid: &[u64]) -> usize {
        self.along = match self.is_beside(nth, grid) {
            _ if self.unused > IN_VAIN + self.useful => 0,
            true => (2 * self.along + 1).min(MAX_ALONG),
            false => self.along / 2,
        };
        self.along
    }
}

impl Courses {
    pub(super) fn new(costs: Costs, cache_bytes: u64) -> Self {
        Self {
            by_shard: Cache::builder()
                .max_capacity(SHARDS)
                .time_to_idle(REMEMBERED)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            max_bytes: costs.longest_ahead().min(cache_bytes / CACHE_SHARE),
        }
    }

    /// The inner chunks to read along with those numbered `needed` of a shard with these entries:
    /// the ones after them, then the ones before, up to those that `is_new` says are not worth it.
    fn along(
        &self,
        shard: Hash,
        (entries, grid): (&[Option<ShardEntry>], &[u64]),
        needed: &[usize],
        is_new: impl Fn(&Hash) -> bool,
    ) -> Vec<usize> {
        let (Some(&first), Some(&last)) = (needed.first(), needed.last()) else {
            return Vec::new();
        };
        let course = self.by_shard.get_with(shard, Arc::default);
        let mut course = course.lock().unwrap_or_else(PoisonError::into_inner);
        if course.read.len() > MAX_READ {
            let along = course.along;
            *course = Course {
                along,
                ..Course::default()
            };
        }
        let mut count = None;
        for &nth in needed {
            let entry = entries.get(nth).copied().flatten();
            let is_to_read = entry.is_some_and(|entry| is_new(&entry.hash));
            if is_to_read && count.is_none() {
                count = Some(course.advance(nth, grid));
            }
            course.note_asked(nth, is_to_read);
        }
        let Some(count) = count else {
            return Vec::new();
        };
        let mut left = self.max_bytes;
        let mut along = Vec::new();
        let after: &mut dyn Iterator<Item = usize> = &mut (last + 1..entries.len());
        let before: &mut dyn Iterator<Item = usize> = &mut (0..first).rev();
        for direction in [after, before] {
            for nth in direction {
                // What is not stored need not be read.
                let Some(entry) = &entries[nth] else { continue };
                if along.len() == count || !is_new(&entry.hash) {
                    break;
                }
                let Some(rest) = left.checked_sub(entry.length) else {
                    // What does not fit is not doubled the next time.
                    course.along = along.len();
                    break;
                };
                left = rest;
                along.push(nth);
            }
        }
        along
    }

    /// Notes what was read along.
    fn note_ahead(&self, shard: &Hash, along: &[usize]) {
        if let Some(course) = self.by_shard.get(shard) {
            let mut course = course.lock().unwrap_or_else(PoisonError::into_inner);
            for &nth in along {
                course.note_ahead(nth);
            }
        }
    }
}

impl Fetcher {
    /// As [`Fetcher::inner_chunks`] of a shard with this footer, with what is likely to be wanted
    /// next if there is memory for it.
    pub(super) async fn inner_chunks_ahead(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        footer: &Footer,
        needed: &[usize],
        budget: &Budget,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let entries = footer.entries();
        if self.courses.max_bytes == 0 || is_inline(row) {
            return self.inner_chunks_once(array, row, needed).await;
        }
        let lengths = array.node.metadata().chunk_shape().iter();
        let grid: Vec<u64> = lengths
            .zip(array.codec.inner_shape())
            .map(|(shard, inner)| shard / inner)
            .collect();
        let is_new = |hash: &Hash| self.is_new(hash);
        let courses = &self.courses;
        let along = courses.along(row.id, (entries, &grid), needed, is_new);
        let bytes = along.iter().filter_map(|&nth| entries[nth].as_ref());
        let bytes: u64 = bytes.map(|entry| entry.length).sum();
        let memory = if along.is_empty() {
            None
        } else {
            budget.take_now(bytes)
        };
        if memory.is_none() {
            return self.inner_chunks_once(array, row, needed).await;
        }
        match self.inner_chunks_and(array, row, needed, &along).await {
            Ok(mut found) => {
                courses.note_ahead(&row.id, &along);
                found.truncate(needed.len());
                Ok(found)
            }
            // What was not asked for may be what is damaged.
            Err(_) => self.inner_chunks_once(array, row, needed).await,
        }
    }

    /// The encoded bytes of one inner chunk; `None` if it is all fill value.
    pub(crate) async fn inner_chunk(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        inner: usize,
        budget: &Budget,
    ) -> Result<Option<Bytes>, Error> {
        let needed = [inner];
        let found = if row.kind == ChunkKind::Shard && !self.reads_whole(array, row, &needed) {
            array.check_kind(row)?;
            let footer = self.footer(array, row).await?;
            self.inner_chunks_ahead(array, row, &footer, &needed, budget)
                .await?
        } else {
            self.inner_chunks_once(array, row, &needed).await?
        };
        Ok(found.into_iter().next().flatten())
    }

    /// Whether a chunk is neither cached nor being read.
    pub(super) fn is_new(&self, hash: &Hash) -> bool {
        let is_cached = self.chunks.contains_key(hash)
            || self.ahead.contains_key(hash)
            || self.is_on_disk(Kind::Chunk, *hash);
        !is_cached && !self.reading_chunks.contains(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(lengths: &[Option<u64>]) -> Vec<Option<ShardEntry>> {
        let mut offset = 0;
        let entries = lengths.iter().enumerate().map(|(nth, length)| {
            length.map(|length| {
                let hash = array::hash::hash(array::hash::Kind::InnerChunk, &nth.to_le_bytes());
                offset += length;
                ShardEntry {
                    offset: offset - length,
                    length,
                    hash,
                }
            })
        });
        entries.collect()
    }

    /// The requests it takes to read inner chunks of 100 bytes one by one: how many are in each.
    fn requests(
        max_bytes: u64,
        grid: &[u64],
        asked: impl IntoIterator<Item = usize>,
    ) -> Vec<usize> {
        let courses = Courses {
            max_bytes,
            ..Courses::new(Costs::REMOTE, u64::MAX)
        };
        let count = grid.iter().product::<u64>() as usize;
        let entries = shard(&vec![Some(100); count]);
        let id = entries[0].unwrap().hash;
        let mut read = std::collections::HashSet::new();
        let mut requests = Vec::new();
        for nth in asked {
            let is_new = |hash: &Hash| !read.contains(hash);
            let along = courses.along(id, (&entries, grid), &[nth], is_new);
            courses.note_ahead(&id, &along);
            let before = read.len();
            read.extend(
                [nth]
                    .iter()
                    .chain(&along)
                    .map(|&nth| entries[nth].unwrap().hash),
            );
            if read.len() > before {
                requests.push(read.len() - before);
            }
        }
        requests
    }

    #[test]
    fn who_reads_in_order_gets_more_and_more() {
        assert_eq!(requests(1 << 20, &[64], 0..64), [1, 2, 4, 8, 16, 32, 1]);
        assert_eq!(
            requests(1 << 20, &[64], (0..64).rev()),
            [1, 2, 4, 8, 16, 32, 1]
        );
        assert_eq!(requests(300, &[16], 0..16), [1, 2, 4, 4, 4, 1]);
    }

    #[test]
    fn threads_that_overtake_each_other_read_in_order() {
        for swap in [1, 3, 7] {
            let counts = requests(1 << 20, &[64], (0..64).map(|nth| nth ^ swap));
            assert_eq!(counts.iter().sum::<usize>(), 64);
            assert!(counts.len() <= 20, "{swap}: {counts:?}");
        }
    }

    #[test]
    fn blocks_of_neighbours_are_a_course() {
        // As dask reduces: blocks of 2 x 2 x 2, each from its end.
        let block = |at: usize| {
            let corner = [at / 4 * 2, at / 2 % 2 * 2, at % 2 * 2];
            (0..8).rev().map(move |cell| {
                let offset = [cell / 4, cell / 2 % 2, cell % 2];
                let place = |axis: usize| corner[axis] + offset[axis];
                place(0) * 16 + place(1) * 4 + place(2)
            })
        };
        let counts = requests(1 << 20, &[8, 4, 4], (0..16).flat_map(block));
        assert_eq!(counts.iter().sum::<usize>(), 128);
        assert!(counts.len() <= 20, "{counts:?}");
    }

    #[test]
    fn who_jumps_gets_little_else() {
        let mut place = 1;
        let jumps: Vec<usize> = std::iter::repeat_with(|| {
            place = place * 1_103_515_245 % 2_147_483_647;
            place / 7 % 4096
        })
        .take(200)
        .collect();
        let counts = requests(1 << 20, &[16, 16, 16], jumps);
        let in_vain = counts.iter().sum::<usize>() - counts.len();
        assert!(in_vain <= 2 * IN_VAIN, "{in_vain} of 200");
    }

    #[test]
    fn chunks_that_are_not_stored_are_passed() {
        let courses = Courses::new(Costs::REMOTE, u64::MAX);
        let mut entries = shard(&[Some(100); 16]);
        entries[1] = None;
        entries[3] = None;
        let id = entries[0].unwrap().hash;
        let along = |needed: usize| courses.along(id, (&entries, &[16]), &[needed], |_| true);
        assert_eq!(along(0), [0; 0]);
        assert_eq!(along(2), [4]);
        // Nothing that is all fill value is a miss.
        assert_eq!(along(3), [0; 0]);
    }
}
