//! Verified bytes of chunks: from caches, or with as few ranged requests as they take.
//!
//! A hash is checked here and nowhere later: bytes that leave this module are those that were
//! written.

mod ahead;
mod footers;
mod outlook;
mod reader;
mod spans;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use array::Hash;
use array::shard::{ShardEntry, verify_plain};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use storage::observation::note;
use storage::{ChunkKind, ChunkRow, Claim, Flight, Flights, TRACE, Waiting};
use tracing::{Instrument as _, debug_span};

use ahead::Courses;
pub(crate) use footers::Footer;
pub(crate) use outlook::Outlook;
pub use reader::ArrayReader;
use spans::{Elsewhere, Spans};

use crate::Error;
use crate::budget::Budget;
use crate::costs::{CONCURRENT_REQUESTS, Costs};
use crate::counters::{Counters, Tier};
use crate::disk::{DiskCache, Kind};

/// What a Zarr client reads from a disk of this machine is kept from so many times on. Until then the
/// system has it in memory, and a copy of it costs more than it saves: memory that was not used before
/// is zeroed first, which takes longer than reading and hashing what goes there.
const KEPT_FROM: u32 = 3;
/// Chunks of which it is known how often they were asked for.
const COUNTED: u64 = 1 << 16;

/// An inner chunk or plain chunk that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its place among what was asked for.
    pub(crate) place: usize,
    hash: Hash,
    range: Range<u64>,
    /// How its bytes are checked; `None` for a plain chunk.
    entry: Option<ShardEntry>,
    /// Where it goes.
    keeping: Keeping,
}

/// What becomes of bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// They go into the caches.
    Kept,
    /// They are kept apart until someone asks for them.
    Ahead,
    /// Nothing.
    No,
}

impl Wanted {
    fn verify(&self, bytes: &[u8]) -> Result<(), array::Error> {
        match &self.entry {
            Some(entry) => entry.verify(bytes),
            None => verify_plain(bytes, &self.hash),
        }
    }

    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Where what is wanted of one stored chunk is.
#[derive(Default)]
pub(crate) struct Located {
    /// Decoded inner chunks, by place.
    pub(crate) decoded: Vec<(usize, Hash, Bytes)>,
    /// Encoded ones.
    pub(crate) present: Vec<(usize, Hash, Bytes)>,
    /// Ranges to read, each with what it holds.
    groups: Vec<Vec<(Wanted, Flight<Hash, Bytes>)>>,
    /// Files of the disk tier to read.
    on_disk: Vec<(Wanted, Flight<Hash, Bytes>)>,
    /// What other requests are reading.
    others: Vec<(Wanted, Waiting<Bytes>)>,
}

impl Located {
    /// The places of what is to be read.
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let groups = self.groups.iter().flatten().map(|(wanted, _)| wanted);
        let on_disk = self.on_disk.iter().map(|(wanted, _)| wanted);
        let others = self.others.iter().map(|(wanted, _)| wanted);
        groups
            .chain(on_disk)
            .chain(others)
            .map(|wanted| wanted.place)
    }

    /// What is to be read from the store.
    fn unread(&mut self) -> impl Iterator<Item = &mut Wanted> {
        self.groups.iter_mut().flatten().map(|(wanted, _)| wanted)
    }
}

/// Encoded inner chunks, each with its place and hash.
pub(crate) type Batch = Vec<(usize, Hash, Bytes)>;

/// A batch that is to come, and how many encoded bytes it has.
pub(crate) type Coming<'a> = (u64, BoxFuture<'a, Result<Batch, Error>>);

/// Caches of verified bytes, and how what they lack is read. All of it is immutable, so nothing goes
/// stale. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    footers: Cache<(Hash, usize), Arc<Footer>>,
    /// Encoded inner chunks and plain chunks by their hash.
    chunks: Cache<Hash, Bytes>,
    /// Those that were read ahead and not asked for so far: what is new does not get into a full
    /// cache of what is asked for often.
    ahead: Cache<Hash, Bytes>,
    /// Decoded ones, by the hash of the array's document as well: it says how they decode.
    decoded: Cache<(Hash, Hash), Bytes>,
    disk: Option<DiskCache>,
    courses: Courses,
    /// How often what is not kept was asked for.
    asked: Cache<Hash, u32>,
    reading_footers: Flights<Hash, Arc<Footer>>,
    reading_chunks: Flights<Hash, Bytes>,
    pub(crate) costs: Costs,
    pub(crate) counters: Arc<Counters>,
}

/// How large the caches are, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capacities<'a> {
    pub(crate) memory: u64,
    pub(crate) disk: Option<(&'a Path, u64)>,
}

fn by_bytes<K>(capacity: u64, policy: EvictionPolicy) -> Cache<K, Bytes>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
{
    let weight = |_: &K, bytes: &Bytes| u32::try_from(bytes.len() + 64).unwrap_or(u32::MAX);
    Cache::builder()
        .max_capacity(capacity)
        .eviction_policy(policy)
        .weigher(weight)
        .build()
}

impl Fetcher {
    /// # Errors
    /// If the directory of the disk tier cannot be used.
    pub(crate) fn new(capacities: &Capacities<'_>, costs: Costs) -> std::io::Result<Self> {
        let footer_weight = |_: &(Hash, usize), footer: &Arc<Footer>| {
            u32::try_from(footer.parsed.size_bytes() + footer.bytes.len()).unwrap_or(u32::MAX)
        };
        let memory = capacities.memory;
        let disk = capacities
            .disk
            .map(|(path, bytes)| DiskCache::open(path, bytes));
        Ok(Self {
            footers: Cache::builder()
                .max_capacity(memory / 8)
                .weigher(footer_weight)
                .build(),
            chunks: by_bytes(memory / 8 * 3 - memory / 16, EvictionPolicy::tiny_lfu()),
            ahead: by_bytes(memory / 16, EvictionPolicy::lru()),
            decoded: by_bytes(memory / 2, EvictionPolicy::tiny_lfu()),
            disk: disk.transpose()?,
            courses: Courses::new(costs, memory / 16),
            asked: Cache::new(COUNTED),
            reading_footers: Flights::default(),
            reading_chunks: Flights::default(),
            costs,
            counters: Arc::default(),
        })
    }

    /// Bytes in the caches: footers, encoded and decoded chunks in memory, and on disk.
    pub(crate) fn cached_bytes(&self) -> [u64; 4] {
        [
            self.footers.weighted_size(),
            self.chunks.weighted_size() + self.ahead.weighted_size(),
            self.decoded.weighted_size(),
            self.disk.as_ref().map_or(0, DiskCache::size_bytes),
        ]
    }

    /// Keeps a decoded inner chunk.
    pub(crate) fn keep_decoded(&self, array: &ArrayReader, hash: Hash, bytes: &Bytes) {
        self.decoded
            .insert((hash, array.node.document_hash()), bytes.clone());
    }

    /// Whether the object is read whole at once although little is known of it.
    fn reads_whole(&self, array: &ArrayReader, row: &ChunkRow, needed: &[usize]) -> bool {
        let (needed, all) = (needed.len() as u64, array.codec.inner_chunks() as u64);
        self.costs.reads_whole(row.length, needed, all)
    }

    /// What there is of the inner chunks numbered `needed`, with the footer that says where each
    /// one is; those that are all fill value are left out. `uses_decoded` looks for decoded ones.
    pub(crate) async fn locate(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        needed: &[usize],
        uses_decoded: bool,
    ) -> Result<Located, Error> {
        array.check_kind(row)?;
        note(|observation| observation.chunks(needed.len() as u64));
        let (wanted, whole) = match row.kind {
            ChunkKind::Plain => (self.plain_wanted(row, needed), None),
            ChunkKind::Shard => {
                let whole = self.reads_whole(array, row, needed);
                let (footer, bytes) = self.footer_or_whole(array, row, whole).await?;
                (stored(&footer, needed), bytes)
            }
        };
        let mut located = Located::default();
        if let Some(whole) = whole {
            let present = wanted.into_iter().map(|wanted| {
                let bytes = slice(&whole, wanted.range.clone());
                (wanted.place, wanted.hash, bytes)
            });
            located.present.extend(present);
            return Ok(located);
        }
        let mut missing = Vec::new();
        let document = array.node.document_hash();
        for wanted in wanted {
            let hash = wanted.hash;
            if uses_decoded && let Some(bytes) = self.decoded.get(&(hash, document)) {
                self.counters.hit(Tier::Decoded);
                located.decoded.push((wanted.place, hash, bytes));
                continue;
            }
            if let Some(bytes) = self.cached(&hash) {
                self.counters.hit(Tier::Encoded);
                located.present.push((wanted.place, hash, bytes));
                continue;
            }
            match self.reading_chunks.claim(&hash) {
                Claim::Other(other) => located.others.push((wanted, other)),
                // Whoever was at it may have finished since the cache was asked.
                Claim::Own(flight) => match self.cached(&hash) {
                    Some(bytes) => {
                        located.present.push((wanted.place, hash, bytes.clone()));
                        flight.finish(bytes);
                    }
                    None if self.is_on_disk(Kind::Chunk, hash) => {
                        located.on_disk.push((wanted, flight));
                    }
                    None => missing.push((wanted, flight)),
                },
            }
        }
        missing.sort_unstable_by_key(|(wanted, _)| wanted.range.start);
        let ranges: Vec<Range<u64>> = missing.iter().map(|(w, _)| w.range.clone()).collect();
        let mut missing = missing.into_iter();
        for count in self.costs.merge(&ranges) {
            located.groups.push(missing.by_ref().take(count).collect());
        }
        Ok(located)
    }

    /// Encoded bytes from memory.
    fn cached(&self, hash: &Hash) -> Option<Bytes> {
        self.chunks.get(hash).or_else(|| {
            let bytes = self.ahead.get(hash)?;
            self.keep(*hash, &bytes);
            self.ahead.invalidate(hash);
            Some(bytes)
        })
    }

    fn plain_wanted(&self, row: &ChunkRow, needed: &[usize]) -> Vec<Wanted> {
        let one = |place| Wanted {
            place,
            hash: row.id,
            range: 0..row.length,
            entry: None,
            keeping: Keeping::Kept,
        };
        // A plain chunk is its only inner chunk.
        (0..needed.len().min(1)).map(one).collect()
    }

    fn is_on_disk(&self, kind: Kind, hash: Hash) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|disk| disk.contains(kind, hash))
    }

    /// What is to be read, in batches; one future each.
    pub(crate) fn read<'a>(
        &'a self,
        array: &'a ArrayReader,
        row: &'a ChunkRow,
        located: Located,
    ) -> Vec<Coming<'a>> {
        let mut coming: Vec<Coming<'a>> = Vec::new();
        for group in located.groups {
            let start = group.first().map_or(0, |(wanted, _)| wanted.range.start);
            let end = group.last().map_or(0, |(wanted, _)| wanted.range.end);
            coming.push((
                end - start,
                self.group(array, row, group, start..end).boxed(),
            ));
        }
        for (wanted, flight) in located.on_disk {
            let length = wanted.length();
            coming.push((
                length,
                self.take_from_disk(array, row, wanted, flight).boxed(),
            ));
        }
        for (wanted, other) in located.others {
            // Counted by whoever reads it. One who waits must not hold what the other may need.
            let length = 0;
            coming.push((
                length,
                self.take_from_other(array, row, wanted, other).boxed(),
            ));
        }
        coming
    }

    /// Reads neighbouring inner chunks with one request.
    async fn group(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        group: Vec<(Wanted, Flight<Hash, Bytes>)>,
        range: Range<u64>,
    ) -> Result<Batch, Error> {
        let start = range.start;
        let bytes = self.request(array, row, range).await?;
        let mut batch = Vec::with_capacity(group.len());
        for (wanted, flight) in group {
            let chunk = slice(&bytes, wanted.range.start - start..wanted.range.end - start);
            wanted
                .verify(&chunk)
                .map_err(|error| array.altered(row, error))?;
            // A slice would keep the whole group's memory alive in the cache.
            let chunk = if bytes.len() == chunk.len() {
                chunk
            } else {
                Bytes::copy_from_slice(&chunk)
            };
            self.counters.miss(Tier::Encoded);
            match wanted.keeping {
                Keeping::Kept => self.keep(wanted.hash, &chunk),
                Keeping::Ahead => self.ahead.insert(wanted.hash, chunk.clone()),
                Keeping::No => {}
            }
            flight.finish(chunk.clone());
            batch.push((wanted.place, wanted.hash, chunk));
        }
        Ok(batch)
    }

    /// Keeps verified bytes that were read from the store.
    fn keep(&self, hash: Hash, bytes: &Bytes) {
        self.chunks.insert(hash, bytes.clone());
        if let Some(disk) = &self.disk {
            disk.put(Kind::Chunk, hash, bytes.clone());
        }
    }

    async fn take_from_disk(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        wanted: Wanted,
        flight: Flight<Hash, Bytes>,
    ) -> Result<Batch, Error> {
        let found = match &self.disk {
            Some(disk) => disk.get(Kind::Chunk, wanted.hash).await,
            None => None,
        };
        if let Some(bytes) = found.filter(|bytes| wanted.verify(bytes).is_ok()) {
            self.counters.hit(Tier::Disk);
            self.chunks.insert(wanted.hash, bytes.clone());
            flight.finish(bytes.clone());
            return Ok(vec![(wanted.place, wanted.hash, bytes)]);
        }
        self.counters.miss(Tier::Disk);
        if let Some(disk) = &self.disk {
            disk.remove(Kind::Chunk, wanted.hash);
        }
        let range = wanted.range.clone();
        self.group(array, row, vec![(wanted, flight)], range).await
    }

    async fn take_from_other(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        wanted: Wanted,
        mut other: Waiting<Bytes>,
    ) -> Result<Batch, Error> {
        loop {
            if let Some(bytes) = other.result().await {
                self.counters.hit(Tier::Encoded);
                return Ok(vec![(wanted.place, wanted.hash, bytes)]);
            }
            // Whoever read it failed or went away: someone who still wants it tries.
            match self.reading_chunks.claim(&wanted.hash) {
                Claim::Other(next) => other = next,
                Claim::Own(flight) => {
                    let range = wanted.range.clone();
                    return self.group(array, row, vec![(wanted, flight)], range).await;
                }
            }
        }
    }

    /// The same array, whose chunks in files elsewhere are read several at once, given the rows one
    /// read needs in the order it needs them.
    pub(crate) fn sharing<'a>(
        &self,
        array: &ArrayReader,
        rows: impl Iterator<Item = &'a ChunkRow>,
    ) -> ArrayReader {
        let spans = Spans::new(rows, self.costs, |hash| self.is_new(hash));
        ArrayReader {
            spans: (!spans.is_empty()).then(|| Arc::new(spans)),
            ..array.clone()
        }
    }

    /// Bytes of a chunk in a file elsewhere, read with its neighbours if they are wanted too.
    async fn request_elsewhere(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        range: Range<u64>,
        elsewhere: &Elsewhere<'_>,
    ) -> Result<Bytes, Error> {
        let start = elsewhere.range.start;
        let wanted = start + range.start..start + range.end;
        if let Some(span) = array.spans.as_ref().and_then(|spans| spans.of(row)) {
            let read = async {
                self.counters.request(span.range.end - span.range.start);
                array.node.original_bytes(row, span.range.clone()).await
            };
            if let Some(bytes) = span.part(&wanted, read).await? {
                return Ok(bytes);
            }
        }
        self.counters.request(range.end - range.start);
        Ok(array.node.chunk_bytes(row, range).await?)
    }

    /// Bytes of an object, not verified; asks a second time if the store is slow to answer.
    async fn request(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        if is_inline(row) {
            return Ok(array.node.chunk_bytes(row, range).await?);
        }
        let bytes = range.end - range.start;
        let span = debug_span!(target: TRACE, "fetch", bytes);
        self.request_now(array, row, range).instrument(span).await
    }

    async fn request_now(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let read = || array.node.chunk_bytes(row, range.clone());
        if let Some(elsewhere) = Elsewhere::of(row) {
            return self.request_elsewhere(array, row, range, &elsewhere).await;
        }
        self.counters.request(range.end - range.start);
        let Some(patience) = self.costs.patience(range.end - range.start) else {
            return Ok(read().await?);
        };
        let mut first = std::pin::pin!(read());
        if let Ok(bytes) = tokio::time::timeout(patience, &mut first).await {
            return Ok(bytes?);
        }
        self.counters.hedge();
        let second = std::pin::pin!(read());
        match futures::future::select(first, second).await {
            futures::future::Either::Left((Ok(bytes), _))
            | futures::future::Either::Right((Ok(bytes), _)) => Ok(bytes),
            // One failed; the other may still answer.
            futures::future::Either::Left((Err(_), other)) => Ok(other.await?),
            futures::future::Either::Right((Err(_), other)) => Ok(other.await?),
        }
    }

    /// The encoded bytes of the inner chunks numbered `needed` in a stored chunk, `None` for those
    /// that are all fill value.
    pub(crate) async fn inner_chunks(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        needed: &[usize],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let located = self.locate(array, row, needed, false).await?;
        self.take_all(array, row, needed.len(), located).await
    }

    /// As [`Fetcher::inner_chunks`], for a Zarr client: it will not ask for the same often.
    async fn inner_chunks_once(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        needed: &[usize],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let mut located = self.locate(array, row, needed, false).await?;
        for wanted in located.unread() {
            if !self.is_kept_for_clients(wanted.hash) {
                wanted.keeping = Keeping::No;
            }
        }
        self.take_all(array, row, needed.len(), located).await
    }

    /// The encoded bytes of `needed`, and then of `along`, which nobody asked for so far.
    async fn inner_chunks_and(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        needed: &[usize],
        along: &[usize],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let all = [needed, along].concat();
        let mut located = self.locate(array, row, &all, false).await?;
        for wanted in located.unread() {
            if wanted.place >= needed.len() {
                wanted.keeping = Keeping::Ahead;
            }
        }
        self.take_all(array, row, all.len(), located).await
    }

    /// Whether what a Zarr client asks for now is kept.
    fn is_kept_for_clients(&self, hash: Hash) -> bool {
        if !self.costs.is_local {
            return true;
        }
        let once_more = |known: Option<moka::Entry<Hash, u32>>| {
            known.map_or(1, |known| known.value().saturating_add(1))
        };
        let counted = self.asked.entry(hash).and_upsert_with(once_more);
        counted.into_value() >= KEPT_FROM
    }

    /// The encoded bytes of `count` places.
    async fn take_all(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        count: usize,
        mut located: Located,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let mut found: Vec<Option<Bytes>> = vec![None; count];
        for (place, _, bytes) in std::mem::take(&mut located.present) {
            found[place] = Some(bytes);
        }
        let coming = self.read(array, row, located).into_iter();
        let coming: Vec<_> = coming.map(|(_, batch)| batch).collect();
        let mut batches = futures::stream::iter(coming).buffer_unordered(CONCURRENT_REQUESTS);
        while let Some(batch) = batches.try_next().await? {
            for (place, _, bytes) in batch {
                found[place] = Some(bytes);
            }
        }
        if row.kind == ChunkKind::Plain {
            let only = found.first().cloned().flatten();
            found.fill(only);
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

    /// Exactly the stored bytes of `range` of a chunk's object, verified. What is read ahead takes
    /// memory from `budget`.
    pub(crate) async fn stored_bytes(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        range: Range<u64>,
        budget: &Budget,
    ) -> Result<Bytes, Error> {
        array.check_kind(row)?;
        if row.kind == ChunkKind::Plain {
            let chunk = self.inner_chunks_once(array, row, &[0]).await?;
            let bytes = chunk.into_iter().next().flatten().unwrap_or_default();
            return Ok(slice(&bytes, range));
        }
        if range == (0..row.length) {
            let is_kept = self.is_kept_for_clients(row.id);
            return Ok(self.whole_shard(array, row, is_kept).await?.1);
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
        let chunks = self
            .inner_chunks_ahead(array, row, &footer, &needed, budget)
            .await?;
        let chunks = entries.iter().zip(chunks.into_iter().flatten());
        let mut parts: Vec<Bytes> = chunks
            .map(|(entry, bytes)| cut(&bytes, entry.offset, &range))
            .chain([cut(&footer.bytes, footer_start, &range)])
            .filter(|part| !part.is_empty())
            .collect();
        // One inner chunk, or a part of the footer, as clients that know shards read them.
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        let mut out = BytesMut::with_capacity((range.end - range.start) as usize);
        for part in &parts {
            out.extend_from_slice(part);
        }
        Ok(out.freeze())
    }
}

/// Those of the inner chunks numbered `needed` that are stored.
fn stored(footer: &Footer, needed: &[usize]) -> Vec<Wanted> {
    let entries = needed.iter().enumerate();
    entries
        .filter_map(|(place, &nth)| {
            let entry = footer.parsed.entries().get(nth).copied().flatten()?;
            Some(Wanted {
                place,
                hash: entry.hash,
                range: entry.range(),
                entry: Some(entry),
                keeping: Keeping::Kept,
            })
        })
        .collect()
}

/// Whether the chunk is in its row and costs no request.
fn is_inline(row: &ChunkRow) -> bool {
    matches!(row.location, storage::Location::Inline(_))
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
