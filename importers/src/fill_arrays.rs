//! The values of an import: read in blocks, encoded and stored shard by shard.
//!
//! ```text
//! read a block of shards (one thread) ─► cut, encode, hash a shard (many) ─► upload ─► …
//! ```
//!
//! Of a transaction that others may go on with, what was stored is staged every few seconds, and
//! shards that are staged already are not read again. One that is all fill value is staged too.
//!
//! A block is a few neighbouring shards, those along the last dimensions first: the file's own
//! chunks, of another shape, are then decompressed once a block and not once a shard. Blocks and
//! shards in memory together stay within a budget, which is given back when their work is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use array::{
    ArrayMetadata, AxisSelection, ChunkIndex, Elements, NodePath, Region, ResolvedSelection,
    Statistics, Tensor, shape,
};
use codecs::ArrayCodec;
use query::Engine;
use storage::{SharedTransaction, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use crate::blocking::{blocking, worker_failed};
use crate::source::{Source, Variable};
use crate::{Error, boxes, kept};

/// A shard takes at most about this many times its decoded size beside its block: the encoded bytes, and
/// room for them to grow.
const SHARD_MEMORY_FACTOR: u64 = 2;
/// A block takes this part of the memory at most, unless one shard is larger.
const BLOCK_MEMORY_SHARE: u64 = 4;
/// Most shards encoded and uploaded at once: enough to hide the latency of an object store.
const SHARDS_IN_FLIGHT: usize = 16;
/// Bytes that an element of variable length is taken for where only shapes are known.
const VARIABLE_ELEMENT_BYTES: u64 = 32;
/// Memory is counted in this many bytes.
const PERMIT_BYTES: u64 = 1 << 10;

/// What was stored is staged after so many shards, which take longer to store than their record …
const STAGED_SHARDS: u64 = 64;
/// … or after this long: what a crash loses.
const STAGED_AFTER: Duration = Duration::from_secs(3);

/// What the shards become part of.
#[derive(Clone, Debug)]
pub enum Staging {
    /// A transaction of this process.
    Own(Arc<Transaction>),
    /// One that any process can go on with.
    Shared(Arc<SharedTransaction>),
}

impl Staging {
    /// The transaction.
    pub fn transaction(&self) -> &Transaction {
        match self {
            Self::Own(transaction) => transaction,
            Self::Shared(shared) => shared.transaction(),
        }
    }

    /// Stages what was stored, if others may go on with it.
    ///
    /// # Errors
    /// [`Error::Storage`] if that failed.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Shared(shared) => Ok(shared.flush().await?),
        }
    }

    /// Whether the shard at `index` is there already.
    pub(crate) fn has(&self, path: &NodePath, index: &ChunkIndex) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Shared(shared) => shared.transaction().changes_chunk(path, index),
        }
    }
}

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The variable being read.
    pub variable: String,
    /// Shards stored so far, those that are all fill value or were there already included.
    pub shards: u64,
    /// Shards in all.
    pub total_shards: u64,
    /// Uncompressed bytes read so far.
    pub bytes: u64,
    /// Uncompressed bytes in all.
    pub total_bytes: u64,
}

/// One array to fill.
pub(crate) struct Target {
    /// Where it goes.
    pub(crate) path: NodePath,
    pub(crate) variable: Variable,
    pub(crate) metadata: ArrayMetadata,
    pub(crate) codec: ArrayCodec,
    /// The source's encoded chunks are taken over.
    pub(crate) keeps_chunks: bool,
    /// They are referred to instead.
    pub(crate) elsewhere: Option<Arc<kept::Elsewhere>>,
    /// Where in an array that exists; none for a new one.
    pub(crate) appended: Option<Appended>,
}

/// Where in an array that exists the variable goes.
#[derive(Clone, Debug)]
pub(crate) struct Appended {
    /// The dimension that becomes longer.
    pub(crate) axis: usize,
    /// Its length before.
    pub(crate) start: u64,
    /// Reads what stored chunks hold that get new cells beside old ones.
    pub(crate) engine: Engine,
}

impl Target {
    pub(crate) fn bytes(&self, lengths: &[u64]) -> u64 {
        let element = self.variable.data_type.size_bytes();
        let element = element.map_or(VARIABLE_ELEMENT_BYTES, |size| size as u64);
        let multiply = |bytes: u64, &length: &u64| bytes.saturating_mul(length);
        lengths.iter().fold(element, multiply)
    }

    /// The cells of the array that the variable has the values of.
    pub(crate) fn region(&self) -> Result<Region, Error> {
        let mut start = vec![0; self.variable.shape.len()];
        if let Some(appended) = &self.appended {
            start[appended.axis] = appended.start;
        }
        Ok(Region::new(start, self.variable.shape.clone())?)
    }

    /// The metadata that tells how the source's chunks are cut, if they are kept.
    fn stored(&self) -> &ArrayMetadata {
        match &self.elsewhere {
            Some(elsewhere) => &elsewhere.metadata,
            None => &self.metadata,
        }
    }

    /// The stored chunks that hold them.
    pub(crate) fn shards(&self) -> Result<Region, Error> {
        Ok(self.stored().grid().chunks_meeting(&self.region()?))
    }

    /// How many shards a block has along each dimension: as many as `limit` bytes take, the last
    /// dimensions whole before others get more than one.
    fn shards_per_block(&self, limit: u64) -> Vec<u64> {
        let (grid, shard) = (self.metadata.grid().grid_shape(), self.codec.chunk_shape());
        let mut count = vec![1; grid.len()];
        let mut room = limit / self.bytes(shard).max(1);
        for axis in (0..grid.len()).rev() {
            count[axis] = room.clamp(1, grid[axis].max(1));
            if count[axis] < grid[axis] {
                break;
            }
            room /= count[axis];
        }
        count
    }
}

/// Reads, encodes and uploads every shard of every array that is not there yet; gives the number of
/// bytes of all.
pub(crate) async fn fill_arrays(
    source: &Source,
    staging: &Staging,
    targets: &[Target],
    memory_bytes: u64,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<u64, Error> {
    let mut total_shards = 0u64;
    for target in targets {
        let shards = target.shards()?.shape().iter().product();
        total_shards = total_shards.saturating_add(shards);
    }
    let mut work = Work {
        memory: Memory::new(memory_bytes),
        in_flight: Arc::new(Semaphore::new(SHARDS_IN_FLIGHT)),
        running: JoinSet::new(),
        state: Progress {
            variable: String::new(),
            shards: 0,
            total_shards,
            bytes: 0,
            total_bytes: targets
                .iter()
                .map(|target| target.bytes(&target.variable.shape))
                .fold(0, u64::saturating_add),
        },
        unstaged: Unstaged::default(),
        progress,
    };
    for target in targets {
        work.state.variable = target.path.to_string();
        work.fill(source, staging, target).await?;
    }
    while let Some(done) = work.running.join_next().await {
        work.count(done)?;
    }
    staging.flush().await?;
    Ok(work.state.bytes)
}

/// What an import has going on.
struct Work<'a> {
    memory: Memory,
    in_flight: Arc<Semaphore>,
    running: JoinSet<Result<Done, Error>>,
    state: Progress,
    unstaged: Unstaged,
    progress: &'a (dyn Fn(&Progress) + Send + Sync),
}

/// What came to its end.
enum Done {
    /// A shard of so many bytes was stored.
    Shard(u64),
    /// What was stored is staged.
    Staged,
}

/// What was stored since it was last staged.
struct Unstaged {
    shards: u64,
    since: Instant,
    is_staging: bool,
}

impl Default for Unstaged {
    fn default() -> Self {
        Self {
            shards: 0,
            since: Instant::now(),
            is_staging: false,
        }
    }
}

impl Unstaged {
    fn is_due(&self) -> bool {
        let waits = self.shards >= STAGED_SHARDS || self.since.elapsed() >= STAGED_AFTER;
        self.shards > 0 && waits && !self.is_staging
    }
}

/// Elements of a box of the array, and the memory they take.
struct Block {
    elements: Elements,
    region: Region,
    _memory: OwnedSemaphorePermit,
}

impl Work<'_> {
    async fn fill(
        &mut self,
        source: &Source,
        staging: &Staging,
        target: &Target,
    ) -> Result<(), Error> {
        if target.keeps_chunks {
            return self.take_over(source, staging, target).await;
        }
        let grid = target.metadata.grid();
        let (cells, wanted) = (target.region()?, target.shards()?);
        let shard_bytes = target.bytes(target.codec.chunk_shape());
        let per_block = target.shards_per_block(self.memory.bytes / BLOCK_MEMORY_SHARE);
        let lengths = wanted.shape().iter().zip(&per_block);
        let blocks: Vec<u64> = lengths.map(|(grid, count)| grid.div_ceil(*count)).collect();
        for block in Region::whole(&blocks).positions() {
            let start = block.iter().zip(&per_block).zip(wanted.start());
            let start: Vec<u64> = start.map(|((at, n), first)| first + at * n).collect();
            let shards = Region::new(start, per_block.clone())?.intersect(&wanted);
            let missing = self.missing(staging, target, &shards);
            if missing.is_empty() {
                continue;
            }
            let (first, last) = corners(&shards);
            let (first, last) = (
                grid.chunk_region_in_array(&first),
                grid.chunk_region_in_array(&last),
            );
            let shape =
                (0..first.shape().len()).map(|axis| last.range(axis).end - first.range(axis).start);
            let region = Region::new(first.start().to_vec(), shape.collect())?.intersect(&cells);
            let memory = self.memory.take(target.bytes(region.shape())).await?;
            let from = region.start().iter().zip(cells.start());
            let from: Vec<u64> = from.map(|(at, first)| at - first).collect();
            let inside = Region::new(from, region.shape().to_vec())?;
            let (file, variable) = (source.clone(), target.variable.clone());
            let elements = blocking(move || file.read(&variable, &inside)).await?;
            let block = Arc::new(Block {
                elements,
                region,
                _memory: memory,
            });
            for index in missing {
                let shard = Shard {
                    staging: staging.clone(),
                    path: target.path.clone(),
                    codec: target.codec.clone(),
                    metadata: target.metadata.clone(),
                    region: grid.chunk_region_in_array(&index),
                    index,
                    engine: target.appended.as_ref().map(|to| to.engine.clone()),
                };
                let stored = shard.store(block.clone());
                self.start(staging, stored, shard_bytes).await?;
            }
        }
        Ok(())
    }

    /// Those of `shards` that are not there yet; the others are counted.
    fn missing(&mut self, staging: &Staging, target: &Target, shards: &Region) -> Vec<ChunkIndex> {
        let (grid, mut missing) = (target.metadata.grid(), Vec::new());
        let before = self.state.shards;
        for index in shards.positions().map(ChunkIndex::new) {
            if staging.has(&target.path, &index) {
                let cells = grid.chunk_region_in_array(&index);
                self.state.bytes += target.bytes(cells.shape());
                self.state.shards += 1;
            } else {
                missing.push(index);
            }
        }
        if self.state.shards > before {
            (self.progress)(&self.state);
        }
        missing
    }

    /// Takes over the encoded chunks of a Zarr array, or refers to them. Those that are missing stay so.
    async fn take_over(
        &mut self,
        source: &Source,
        staging: &Staging,
        target: &Target,
    ) -> Result<(), Error> {
        let (file, variable) = (source.clone(), target.variable.clone());
        let chunks = blocking(move || file.reader().stored_chunks(&variable)).await?;
        let grid = target.stored().grid();
        let all = grid
            .grid_shape()
            .iter()
            .fold(1, |n: u64, &l| n.saturating_mul(l));
        let missing = all.saturating_sub(chunks.len() as u64);
        let bytes = |index: &ChunkIndex| target.bytes(grid.chunk_region_in_array(index).shape());
        let present = chunks.iter().map(bytes).fold(0, u64::saturating_add);
        let total = target.bytes(&target.variable.shape);
        self.state.shards = self.state.shards.saturating_add(missing);
        self.state.bytes = self
            .state
            .bytes
            .saturating_add(total.saturating_sub(present));
        let chunk_bytes = target.bytes(grid.chunk_shape());
        // Of shards that are referred to, inner chunks are staged, one after the other.
        let is_cut_alike = grid.chunk_shape() == target.metadata.chunk_shape();
        for index in chunks {
            let bytes = bytes(&index);
            if is_cut_alike && staging.has(&target.path, &index) {
                self.state.bytes += bytes;
                self.state.shards += 1;
                continue;
            }
            let chunk = kept::Chunk {
                source: source.clone(),
                staging: staging.clone(),
                path: target.path.clone(),
                variable: target.variable.clone(),
                metadata: target.metadata.clone(),
                codec: target.codec.clone(),
                elsewhere: target.elsewhere.clone(),
                index,
            };
            let stored = async move { chunk.store().await.map(|()| bytes) };
            self.start(staging, stored, chunk_bytes).await?;
        }
        Ok(())
    }

    /// Starts encoding and uploading a shard of so many bytes as soon as there is memory for it.
    async fn start(
        &mut self,
        staging: &Staging,
        store: impl Future<Output = Result<u64, Error>> + Send + 'static,
        bytes: u64,
    ) -> Result<(), Error> {
        let slot = self.in_flight.clone().acquire_owned().await;
        let slot = slot.map_err(|_| Error::Cancelled)?;
        let memory = self
            .memory
            .take(bytes.saturating_mul(SHARD_MEMORY_FACTOR))
            .await?;
        self.running.spawn(async move {
            let bytes = store.await?;
            drop((slot, memory));
            Ok(Done::Shard(bytes))
        });
        while let Some(done) = self.running.try_join_next() {
            self.count(done)?;
        }
        if self.unstaged.is_due() {
            (self.unstaged.shards, self.unstaged.is_staging) = (0, true);
            let staging = staging.clone();
            self.running.spawn(async move {
                staging.flush().await?;
                Ok(Done::Staged)
            });
        }
        Ok(())
    }

    fn count(&mut self, done: Result<Result<Done, Error>, JoinError>) -> Result<(), Error> {
        match done.map_err(|error| worker_failed(&error))?? {
            Done::Shard(bytes) => {
                self.state.bytes += bytes;
                self.state.shards += 1;
                self.unstaged.shards += 1;
                (self.progress)(&self.state);
            }
            Done::Staged => {
                (self.unstaged.since, self.unstaged.is_staging) = (Instant::now(), false);
            }
        }
        Ok(())
    }
}

/// Index of the first and of the last chunk of a box of the chunk grid.
fn corners(shards: &Region) -> (ChunkIndex, ChunkIndex) {
    let last = (0..shards.shape().len()).map(|axis| shards.range(axis).end.saturating_sub(1));
    (
        ChunkIndex::new(shards.start().to_vec()),
        ChunkIndex::new(last.collect()),
    )
}

/// The memory of an import, as a semaphore: a permit stands for [`PERMIT_BYTES`].
struct Memory {
    bytes: u64,
    half: u32,
    permits: Arc<Semaphore>,
}

impl Memory {
    fn new(bytes: u64) -> Self {
        let permits = u32::try_from(bytes / PERMIT_BYTES)
            .unwrap_or(u32::MAX)
            .clamp(2, u32::MAX >> 4);
        Self {
            bytes,
            half: permits / 2,
            permits: Arc::new(Semaphore::new(permits as usize)),
        }
    }

    /// Waits until there is memory for `bytes`, or for half of all if that is less: a block and one
    /// of its shards, which are held together, can always both be had.
    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        let permits = u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX);
        let permits = permits.clamp(1, self.half);
        let taken = self.permits.clone().acquire_many_owned(permits).await;
        taken.map_err(|_| Error::Cancelled)
    }
}

struct Shard {
    staging: Staging,
    path: NodePath,
    codec: ArrayCodec,
    metadata: ArrayMetadata,
    index: ChunkIndex,
    /// Its cells inside the array.
    region: Region,
    /// Of an array that exists.
    engine: Option<Engine>,
}

impl Shard {
    /// Encodes and uploads the shard, whose cells are in `block`; gives their number of bytes.
    async fn store(self, block: Arc<Block>) -> Result<u64, Error> {
        if let Some(engine) = &self.engine
            && !block.region.contains(&self.region)
        {
            return self.merge(engine, &block).await;
        }
        let (codec, metadata, region) = (self.codec, self.metadata, self.region);
        let (bytes, encoded) = blocking(move || encode(&codec, &metadata, &region, &block)).await?;
        let transaction = self.staging.transaction();
        match (encoded, &self.staging) {
            (Some((chunk, statistics)), _) => {
                let (kind, id, bytes) = (chunk.kind, chunk.id, chunk.bytes);
                transaction
                    .put_chunk(&self.path, self.index, kind, id, bytes, statistics)
                    .await?;
            }
            // Staged as well, so that whoever goes on knows that it was read.
            (None, Staging::Shared(_)) => transaction.delete_chunk(&self.path, self.index).await?,
            (None, Staging::Own(_)) => {}
        }
        Ok(bytes)
    }
}

impl Shard {
    /// Writes the cells that `block` has of the shard over those that are stored, as any write does:
    /// the inner chunks they are in are read, verified and encoded anew.
    async fn merge(&self, engine: &Engine, block: &Block) -> Result<u64, Error> {
        let part = self.region.intersect(&block.region);
        let fill = self.codec.fill_value().as_bytes();
        let data_type = self.codec.data_type();
        let elements = boxes::fit(data_type, fill, &block.elements, &block.region, &part)?;
        let bytes = elements.size_bytes() as u64;
        let axes = (0..part.shape().len()).map(|axis| AxisSelection::Range {
            start: part.start()[axis],
            step: 1,
            count: part.shape()[axis],
        });
        let selection = ResolvedSelection::of_axes(axes.collect());
        let tensor = Tensor {
            data_type: data_type.clone(),
            shape: part.shape().to_vec(),
            elements,
        };
        engine
            .write(self.staging.transaction(), &self.path, &selection, tensor)
            .await?;
        Ok(bytes)
    }
}

type Encoded = Option<(codecs::EncodedChunk, Option<Statistics>)>;

/// The shard whose cells in the array are `region`, and their bytes. Those that `block` has not are fill
/// value.
fn encode(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    region: &Region,
    block: &Block,
) -> Result<(u64, Encoded), Error> {
    let filled;
    let (elements, covered) = match block.region.contains(region) {
        true => (&block.elements, &block.region),
        false => {
            let (data_type, fill) = (codec.data_type(), codec.fill_value().as_bytes());
            filled = boxes::fit(data_type, fill, &block.elements, &block.region, region)?;
            (&filled, region)
        }
    };
    let inside = region.start().iter().zip(covered.start());
    let inside = inside.map(|(at, first)| at - first).collect();
    let inside = Region::new(inside, region.shape().to_vec())?;
    let encoded =
        query::encode_with_statistics(codec, metadata, elements, covered.shape(), &inside)?;
    let cells = shape::elements(region.shape())?;
    let bytes = match elements {
        Elements::Fixed(_) => cells * codec.fill_value().as_bytes().len() as u64,
        Elements::Variable(_) => cells * VARIABLE_ELEMENT_BYTES,
    };
    Ok((bytes, encoded))
}
