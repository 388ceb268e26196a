//! The engine: threads, caches, the memory all requests share; opening arrays.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use array::{ChunkIndex, Hash};
use bytes::Bytes;
use codecs::ArrayCodec;
use moka::sync::Cache;
use storage::{ArrayNode, ChunkRow, Location};

use crate::Error;
use crate::budget::{Budget, Reservation};
use crate::costs::Costs;
use crate::counters::Counters;
use crate::devices::Devices;
use crate::fetch::{ArrayReader, Capacities, Fetcher};
use crate::plan::{ChunkRead, Plan};
use crate::pool::Pool;

/// Sizes of the engine. Plain data, validated by whoever configures it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Threads that decode and compute; 0 for one per core.
    pub threads: usize,
    /// Bytes of verified chunks kept in memory.
    pub cache_bytes: u64,
    /// Memory of all requests together, in bytes, a quarter of it for writes; caches come on top.
    pub work_bytes: u64,
    /// How long a request waits for its memory.
    pub longest_wait: Duration,
    /// Stored chunks fetched and decoded at once by one request.
    pub concurrent_chunks: usize,
    /// What a request to the store costs.
    pub costs: Costs,
    /// Answer from statistics what they tell.
    pub uses_statistics: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 0,
            cache_bytes: 256 << 20,
            work_bytes: 1 << 30,
            longest_wait: Duration::from_secs(30),
            concurrent_chunks: 8,
            costs: Costs::LOCAL,
            uses_statistics: true,
        }
    }
}

/// How long a write waits for memory for a chunk: what it has done so far would be lost.
const WRITE_WAIT: Duration = Duration::from_secs(300);

/// Reads arrays. Cloning is cheap; caches, threads and memory are shared.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) pool: Pool,
    pub(crate) fetcher: Fetcher,
    pub(crate) budget: Budget,
    /// Of writes, taken chunk by chunk: a writer that waits for it holds none of it.
    pub(crate) writing: Budget,
    pub(crate) settings: Settings,
    pub(crate) devices: Devices,
    /// Of arrays by their document: their own codecs, and those Zarr clients see if they are others.
    codecs: Cache<Hash, (ArrayCodec, Option<ArrayCodec>)>,
}

/// The rows of the stored chunks a plan needs, by position.
pub(crate) type Rows = HashMap<ChunkIndex, ChunkRow>;

impl Engine {
    /// An engine with these sizes.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if its threads cannot be started.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::build(settings, None)
    }

    /// The same, which also keeps chunks in a directory, at most so many bytes of them.
    ///
    /// # Errors
    /// [`Error::Directory`] if it cannot be used; else as [`Engine::new`].
    pub fn with_disk_cache(
        settings: Settings,
        directory: &Path,
        bytes: u64,
    ) -> Result<Self, Error> {
        Self::build(settings, Some((directory, bytes)))
    }

    fn build(settings: Settings, disk: Option<(&Path, u64)>) -> Result<Self, Error> {
        let capacities = Capacities {
            memory: settings.cache_bytes,
            disk,
        };
        let fetcher = Fetcher::new(&capacities, settings.costs);
        Ok(Self {
            pool: Pool::new(settings.threads).map_err(|_| Error::Cancelled)?,
            fetcher: fetcher.map_err(|source| Error::Directory {
                path: disk.map_or(String::new(), |(path, _)| path.display().to_string()),
                source,
            })?,
            budget: Budget::new(settings.work_bytes / 4 * 3, settings.longest_wait),
            writing: Budget::new(settings.work_bytes / 4, WRITE_WAIT),
            codecs: Cache::new(10_000),
            settings,
            devices: Devices::default(),
        })
    }

    /// The same engine, which gives reductions to devices too.
    pub fn with_devices(self, devices: Devices) -> Self {
        Self { devices, ..self }
    }

    /// The devices it gives reductions to.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// What it has done since it was made.
    pub fn counters(&self) -> &Counters {
        &self.fetcher.counters
    }

    /// What its requests to the store are taken to cost.
    pub fn costs(&self) -> Costs {
        self.settings.costs
    }

    /// Bytes cached: footers, encoded and decoded inner chunks in memory, and on disk.
    pub fn cached_bytes(&self) -> [u64; 4] {
        self.fetcher.cached_bytes()
    }

    /// Memory for the work of requests, in bytes: in use, and the most one may take.
    pub fn memory(&self) -> (u64, u64) {
        let used = self.budget.used_bytes() + self.writing.used_bytes();
        (used, self.budget.total_bytes())
    }

    /// Threads that decode and compute: all, those at work now, and pieces of work that wait for one.
    pub fn threads(&self) -> (u64, u64, u64) {
        let (queued, busy) = self.pool.load();
        (self.pool.threads() as u64, busy, queued)
    }

    /// Requests that wait for memory now, and those refused for want of it since the start.
    pub fn queue(&self) -> (u64, u64) {
        self.budget.queue()
    }

    /// Takes memory from what all requests share, waiting for it in turn.
    ///
    /// # Errors
    /// [`Error::OverBudget`] if there is less in all; [`Error::Busy`] if it is not free in time.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        self.budget.take(bytes).await
    }

    /// Stored chunks one request works on at once.
    pub(crate) fn concurrent_chunks(&self) -> usize {
        self.settings.concurrent_chunks.max(1)
    }

    /// An array, ready to read.
    ///
    /// # Errors
    /// [`Error::Codecs`] if its codecs are not known or do not fit.
    pub fn open(&self, node: ArrayNode) -> Result<ArrayReader, Error> {
        let document = node.document_hash();
        let (codec, served) = match self.codecs.get(&document) {
            Some(known) => known,
            None => {
                let metadata = node.metadata();
                let new = || {
                    let served = codecs::served(metadata);
                    let served = served.map(|shown| ArrayCodec::new(&shown)).transpose()?;
                    Ok((ArrayCodec::new(metadata)?, served))
                };
                let new = new().map_err(|error: codecs::Error| Error::Codecs {
                    array: node.path().to_string(),
                    reason: error.to_string(),
                })?;
                self.codecs.insert(document, new.clone());
                new
            }
        };
        Ok(ArrayReader::new(node, codec, served))
    }

    pub(crate) async fn rows(&self, array: &ArrayReader, plan: &Plan) -> Result<Rows, Error> {
        if plan.inner_chunks() == 0 {
            return Ok(Rows::new());
        }
        let rows = array.node.chunks(&plan.chunk_region()?).await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.index.clone(), row))
            .collect())
    }

    /// The array for one read, whose chunks in files elsewhere are read several at once: `rows` are
    /// those of its stored chunks, `reads` the order in which they are read.
    pub(crate) fn sharing(
        &self,
        array: &ArrayReader,
        rows: &Rows,
        reads: impl Iterator<Item = ChunkRead>,
    ) -> ArrayReader {
        let is_elsewhere = |row: &ChunkRow| matches!(row.location, Location::External { .. });
        if !rows.values().any(is_elsewhere) {
            return array.clone();
        }
        let ordered: Vec<&ChunkRow> = reads.filter_map(|read| rows.get(&read.index)).collect();
        self.fetcher.sharing(array, ordered.into_iter())
    }

    /// The row of the chunk at `index`; `None` if all of it is fill value.
    ///
    /// # Errors
    /// [`Error::Storage`] if its page cannot be read.
    pub async fn chunk(
        &self,
        array: &ArrayReader,
        index: &ChunkIndex,
    ) -> Result<Option<ChunkRow>, Error> {
        Ok(array.node.chunk(index).await?)
    }

    /// Exactly the stored bytes of `range` of a chunk, every one of them verified.
    ///
    /// # Errors
    /// [`Error::Range`] if the range is empty or not inside the object; else as [`Engine::read`].
    pub async fn stored_bytes(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        if range.start >= range.end || range.end > row.length {
            return Err(Error::Range {
                start: range.start,
                length_bytes: row.length,
            });
        }
        self.fetcher
            .stored_bytes(array, row, range, &self.budget)
            .await
    }

    /// The bytes of a chunk as Zarr clients get them: those that are stored, or, of an array whose
    /// codecs they do not know, the chunk encoded anew. Verified.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub async fn zarr_bytes(&self, array: &ArrayReader, row: &ChunkRow) -> Result<Bytes, Error> {
        let stored = self.stored_bytes(array, row, 0..row.length).await?;
        let Some(served) = array.served.clone() else {
            return Ok(stored);
        };
        let (array, row) = (array.clone(), row.clone());
        let recode = move || {
            let corrupt = |error: codecs::Error| array.corrupt(&row, error);
            let elements = array.codec.decode(&stored).map_err(corrupt)?;
            // Cells outside the array too: nobody looks at them, but for who grows it.
            let encoded = served.encode_whole(&elements).map_err(corrupt)?;
            Ok(Bytes::from(encoded))
        };
        self.pool.run(recode).await
    }

    /// The encoded bytes of the inner chunk numbered `inner` in a stored chunk, verified; `None` if
    /// all of it is fill value.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub async fn inner_chunk(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        inner: usize,
    ) -> Result<Option<Bytes>, Error> {
        self.fetcher
            .inner_chunk(array, row, inner, &self.budget)
            .await
    }
}

/// Numbers in their shard of the inner chunks a stored chunk contributes.
pub(crate) fn numbers(array: &ArrayReader, plan: &Plan, read: &ChunkRead) -> Vec<usize> {
    let number = |inner: &Vec<u64>| array.codec.inner_index(&plan.locate(inner).1);
    read.inner.iter().map(number).collect()
}
