//! The values of an import: read in blocks, encoded and stored shard by shard.
//!
//! ```text
//! read a block of shards (one thread) ─► cut, encode, hash a shard (many) ─► upload ─► …
//! ```
//!
//! A block is a few neighbouring shards, those along the last dimensions first: the file's own
//! chunks, of another shape, are then decompressed once a block and not once a shard. Blocks and
//! shards in memory together stay within a budget, which is given back when their work is done.

use std::sync::Arc;

use array::{ArrayMetadata, ChunkIndex, Elements, NodePath, Region, Statistics};
use codecs::ArrayCodec;
use storage::Transaction;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use crate::Error;
use crate::boxes;
use crate::import::{blocking, worker_failed};
use crate::source::{Source, Variable};

/// A shard takes about this many times its decoded size while it is encoded: the elements, the
/// encoded bytes and the cells the statistics look at.
const SHARD_MEMORY_FACTOR: u64 = 3;
/// A block takes this part of the memory at most, unless one shard is larger.
const BLOCK_MEMORY_SHARE: u64 = 4;
/// Most shards encoded and uploaded at once: enough to hide the latency of an object store.
const SHARDS_IN_FLIGHT: usize = 16;
/// Bytes that an element of variable length is taken for where only shapes are known.
const VARIABLE_ELEMENT_BYTES: u64 = 32;
/// Memory is counted in this many bytes.
const PERMIT_BYTES: u64 = 1 << 10;

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The variable being read.
    pub variable: String,
    /// Shards stored so far, those that are all fill value included.
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
}

impl Target {
    fn bytes(&self, lengths: &[u64]) -> u64 {
        let element = self.variable.data_type.size_bytes();
        let element = element.map_or(VARIABLE_ELEMENT_BYTES, |size| size as u64);
        let multiply = |bytes: u64, &length: &u64| bytes.saturating_mul(length);
        lengths.iter().fold(element, multiply)
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

/// Reads, encodes and uploads every shard of every array; gives the number of bytes read.
pub(crate) async fn fill_arrays(
    source: &Source,
    transaction: &Arc<Transaction>,
    targets: &[Target],
    memory_bytes: u64,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<u64, Error> {
    let shards = |target: &Target| -> u64 { target.metadata.grid().grid_shape().iter().product() };
    let mut work = Work {
        memory: Memory::new(memory_bytes),
        in_flight: Arc::new(Semaphore::new(SHARDS_IN_FLIGHT)),
        running: JoinSet::new(),
        state: Progress {
            variable: String::new(),
            shards: 0,
            total_shards: targets.iter().map(shards).fold(0, u64::saturating_add),
            bytes: 0,
            total_bytes: targets
                .iter()
                .map(|target| target.bytes(&target.variable.shape))
                .fold(0, u64::saturating_add),
        },
        progress,
    };
    for target in targets {
        work.state.variable = target.path.to_string();
        work.fill(source, transaction, target).await?;
    }
    while let Some(done) = work.running.join_next().await {
        work.count(done)?;
    }
    Ok(work.state.bytes)
}

/// What an import has going on.
struct Work<'a> {
    memory: Memory,
    in_flight: Arc<Semaphore>,
    running: JoinSet<Result<u64, Error>>,
    state: Progress,
    progress: &'a (dyn Fn(&Progress) + Send + Sync),
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
        transaction: &Arc<Transaction>,
        target: &Target,
    ) -> Result<(), Error> {
        let grid = target.metadata.grid();
        let grid_shape = grid.grid_shape();
        let shard_bytes = target.bytes(target.codec.chunk_shape());
        let per_block = target.shards_per_block(self.memory.bytes / BLOCK_MEMORY_SHARE);
        let lengths = grid_shape.iter().zip(&per_block);
        let blocks: Vec<u64> = lengths.map(|(grid, count)| grid.div_ceil(*count)).collect();
        for block in Region::whole(&blocks).positions() {
            let start: Vec<u64> = block.iter().zip(&per_block).map(|(at, n)| at * n).collect();
            let shards = Region::new(start, per_block.clone())?;
            let shards = shards.intersect(&Region::whole(&grid_shape));
            let (first, last) = corners(&shards);
            let (first, last) = (
                grid.chunk_region_in_array(&first),
                grid.chunk_region_in_array(&last),
            );
            let shape =
                (0..first.shape().len()).map(|axis| last.range(axis).end - first.range(axis).start);
            let region = Region::new(first.start().to_vec(), shape.collect())?;
            let memory = self.memory.take(target.bytes(region.shape())).await?;
            let (file, variable, inside) =
                (source.clone(), target.variable.clone(), region.clone());
            let elements = blocking(move || file.read(&variable, &inside)).await?;
            let block = Arc::new(Block {
                elements,
                region,
                _memory: memory,
            });
            for at in shards.positions() {
                let index = ChunkIndex::new(at);
                let shard = Shard {
                    transaction: transaction.clone(),
                    path: target.path.clone(),
                    codec: target.codec.clone(),
                    metadata: target.metadata.clone(),
                    region: grid.chunk_region_in_array(&index),
                    index,
                };
                self.start(shard, block.clone(), shard_bytes).await?;
            }
        }
        Ok(())
    }

    /// Starts encoding and uploading a shard as soon as there is memory for it.
    async fn start(&mut self, shard: Shard, block: Arc<Block>, bytes: u64) -> Result<(), Error> {
        let slot = self.in_flight.clone().acquire_owned().await;
        let slot = slot.map_err(|_| Error::Cancelled)?;
        let memory = self
            .memory
            .take(bytes.saturating_mul(SHARD_MEMORY_FACTOR))
            .await?;
        self.running.spawn(async move {
            let bytes = shard.store(block).await?;
            drop((slot, memory));
            Ok(bytes)
        });
        while let Some(done) = self.running.try_join_next() {
            self.count(done)?;
        }
        Ok(())
    }

    fn count(&mut self, done: Result<Result<u64, Error>, JoinError>) -> Result<(), Error> {
        self.state.bytes += done.map_err(|error| worker_failed(&error))??;
        self.state.shards += 1;
        (self.progress)(&self.state);
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
    transaction: Arc<Transaction>,
    path: NodePath,
    codec: ArrayCodec,
    metadata: ArrayMetadata,
    index: ChunkIndex,
    /// Its cells inside the array.
    region: Region,
}

impl Shard {
    /// Encodes and uploads the shard, whose cells are in `block`; gives their number of bytes.
    async fn store(self, block: Arc<Block>) -> Result<u64, Error> {
        let (codec, metadata, region) = (self.codec, self.metadata, self.region);
        let (bytes, encoded) = blocking(move || encode(&codec, &metadata, &region, &block)).await?;
        if let Some((chunk, statistics)) = encoded {
            self.transaction
                .put_chunk(
                    &self.path,
                    self.index,
                    chunk.kind,
                    chunk.id,
                    chunk.bytes,
                    statistics,
                )
                .await?;
        }
        Ok(bytes)
    }
}

type Encoded = Option<(codecs::EncodedChunk, Option<Statistics>)>;

/// The shard that covers `region` of the array, and the bytes of the cells in it.
fn encode(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    region: &Region,
    block: &Block,
) -> Result<(u64, Encoded), Error> {
    let fill = codec.fill_value().as_bytes();
    let fit = |elements: &Elements, covered: &Region, target: &Region| {
        boxes::fit(codec.data_type(), fill, elements, covered, target)
    };
    let cut;
    let inside = match block.region == *region {
        true => &block.elements,
        false => {
            cut = fit(&block.elements, &block.region, region)?;
            &cut
        }
    };
    let statistics = query::chunk_statistics(codec, metadata, region, inside);
    let whole = Region::new(region.start().to_vec(), codec.chunk_shape().to_vec())?;
    let encoded = match whole == *region {
        true => codec.encode(inside, region.shape())?,
        false => codec.encode(&fit(inside, region, &whole)?, region.shape())?,
    };
    let bytes = inside.size_bytes() as u64;
    Ok((bytes, encoded.map(|chunk| (chunk, statistics))))
}
