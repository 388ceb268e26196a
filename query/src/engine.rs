//! Reads and reductions of arrays.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use array::{
    ChunkIndex, DataType, Elements, Hash, Region, ResolvedSelection, Tensor, VariableElements,
    shape,
};
use bytes::Bytes;
use codecs::ArrayCodec;
use compute::cf::{CfDecoder, Decode};
use compute::gather::{self, AxisPart};
use compute::{Block, Combiner, Partial, Reduction};
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use storage::{ArrayNode, ChunkRow};

use crate::Error;
use crate::fetch::{ArrayReader, Fetcher};
use crate::output::Output;
use crate::plan::{ChunkRead, Plan};
use crate::pool::Pool;

/// Sizes of the engine. Plain data, validated by whoever configures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Threads that decode and compute; 0 for one per core.
    pub threads: usize,
    /// Bytes of verified chunks kept in memory.
    pub cache_bytes: u64,
    /// Stored chunks fetched and decoded at once by one request.
    pub concurrent_chunks: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 0,
            cache_bytes: 256 << 20,
            concurrent_chunks: 8,
        }
    }
}

/// Reads arrays. Cloning is cheap; caches and threads are shared.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) pool: Pool,
    pub(crate) fetcher: Fetcher,
    codecs: Cache<Hash, ArrayCodec>,
    concurrent_chunks: usize,
}

/// The rows of the stored chunks a plan needs, by position.
type Rows = HashMap<ChunkIndex, ChunkRow>;

impl Engine {
    /// An engine with these sizes.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if its threads cannot be started.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            pool: Pool::new(settings.threads).map_err(|_| Error::Cancelled)?,
            fetcher: Fetcher::new(settings.cache_bytes),
            codecs: Cache::new(10_000),
            concurrent_chunks: settings.concurrent_chunks.max(1),
        })
    }

    /// Stored chunks one request works on at once.
    pub(crate) fn concurrent_chunks(&self) -> usize {
        self.concurrent_chunks
    }

    /// An array, ready to read.
    ///
    /// # Errors
    /// [`Error::Codecs`] if its codecs are not known or do not fit.
    pub fn open(&self, node: ArrayNode) -> Result<ArrayReader, Error> {
        let document = node.document_hash();
        let codec = match self.codecs.get(&document) {
            Some(codec) => codec,
            None => {
                let codec = ArrayCodec::new(node.metadata()).map_err(|error| Error::Codecs {
                    array: node.path().to_string(),
                    reason: error.to_string(),
                })?;
                self.codecs.insert(document, codec.clone());
                codec
            }
        };
        Ok(ArrayReader { node, codec })
    }

    /// Reads a selection.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if bytes are not those that were written; [`Error::Storage`] if they
    /// cannot be read; [`Error::Array`] if the result does not fit in memory.
    pub async fn read(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
    ) -> Result<Tensor, Error> {
        let metadata = array.metadata();
        let data_type = &metadata.data_type;
        let decoder = CfDecoder::new(data_type, &metadata.attributes, decode)?;
        let plan = Arc::new(Plan::new(selection.clone(), metadata.shape(), &array.codec));
        let rows = Arc::new(self.rows(array, &plan).await?);
        let elements = if data_type.is_variable_length() {
            Elements::Variable(self.read_variable(array, &plan, &rows).await?)
        } else {
            Elements::Fixed(self.read_fixed(array, &plan, &rows).await?)
        };
        let (data_type, elements) = match (decoder, elements) {
            (Some(decoder), Elements::Fixed(bytes)) => {
                let result = decoder.data_type().clone();
                let bytes = self.pool.run(move || Ok(decoder.decode(&bytes))).await?;
                (result, Elements::Fixed(bytes))
            }
            (_, elements) => (data_type.clone(), elements),
        };
        Ok(Tensor {
            data_type,
            shape: selection.output_shape(),
            elements,
        })
    }

    async fn rows(&self, array: &ArrayReader, plan: &Plan) -> Result<Rows, Error> {
        if plan.inner_chunks() == 0 {
            return Ok(Rows::new());
        }
        let rows = array.node.chunks(&plan.chunk_region()?).await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.index.clone(), row))
            .collect())
    }

    /// The bytes of one stored chunk's needed inner chunks, each with its coordinate.
    async fn fetch(
        &self,
        array: &ArrayReader,
        plan: &Plan,
        row: &ChunkRow,
        read: &ChunkRead,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let needed: Vec<usize> = read
            .inner
            .iter()
            .map(|inner| array.codec.inner_index(&plan.locate(inner).1))
            .collect();
        let most = 2 * needed.len() as u64 >= plan.inner_chunks_in_array(&read.index);
        self.fetcher.inner_chunks(array, row, &needed, most).await
    }

    async fn read_fixed(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        rows: &Arc<Rows>,
    ) -> Result<Vec<u8>, Error> {
        let selected = plan.selection().selected_shape();
        let fill = array.codec.fill_value().as_bytes();
        shape::size_bytes(&selected, &array.metadata().data_type)?;
        let count = shape::elements(&selected)?;
        // Cells of absent chunks are fill value already; the others are overwritten.
        let Elements::Fixed(bytes) = Elements::repeat(&array.metadata().data_type, fill, count)?
        else {
            return Err(Error::Cancelled);
        };
        let output = Arc::new(Output::new(bytes));
        let reads = plan.reads().filter(|read| rows.contains_key(&read.index));
        futures::stream::iter(reads.map(Ok::<_, Error>))
            .try_for_each_concurrent(self.concurrent_chunks, |read| {
                let (output, plan, rows) = (output.clone(), plan.clone(), rows.clone());
                async move {
                    let Some(row) = rows.get(&read.index) else {
                        return Ok(());
                    };
                    let chunks = self.fetch(array, &plan, row, &read).await?;
                    let present = read
                        .inner
                        .iter()
                        .zip(chunks)
                        .filter_map(|(at, b)| Some((at.clone(), b?)));
                    let present: Vec<(Vec<u64>, Bytes)> = present.collect();
                    // One task a thread, so that a single shard keeps all of them busy.
                    let per_task = present.len().div_ceil(self.pool.threads()).max(1);
                    let tasks = present.chunks(per_task).map(|part| {
                        let (array, plan, output) = (array.clone(), plan.clone(), output.clone());
                        let (part, row) = (part.to_vec(), row.clone());
                        self.pool.run(move || {
                            part.iter().try_for_each(|(inner, bytes)| {
                                decode_into(&array, &plan, &row, inner, bytes, &output)
                            })
                        })
                    });
                    futures::future::try_join_all(tasks).await.map(drop)
                }
            })
            .await?;
        Arc::into_inner(output)
            .map(Output::into_inner)
            .ok_or(Error::Cancelled)
    }

    async fn read_variable(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        rows: &Arc<Rows>,
    ) -> Result<VariableElements, Error> {
        let selected = plan.selection().selected_shape();
        let count = usize::try_from(shape::elements(&selected)?)
            .ok()
            .filter(|count| *count <= 1 << 28)
            .ok_or(array::Error::TooLarge {
                what: "number of strings",
            })?;
        let mut cells: Vec<Option<Bytes>> = vec![None; count];
        for read in plan.reads() {
            let Some(row) = rows.get(&read.index) else {
                continue;
            };
            let chunks = self.fetch(array, plan, row, &read).await?;
            for (inner, bytes) in read.inner.iter().zip(chunks) {
                let Some(bytes) = bytes else { continue };
                let codec = array.codec.clone();
                let decoded = self.pool.run(move || Ok(codec.decode(&bytes))).await?;
                let decoded = decoded.map_err(|error| array.corrupt(row, error))?;
                let Elements::Variable(decoded) = decoded else {
                    return Err(Error::Cancelled);
                };
                let parts = plan.parts(inner);
                gather::for_each_run(
                    &parts,
                    array.codec.inner_shape(),
                    &selected,
                    |from, to, length| {
                        for nth in 0..length {
                            let value = decoded.get((from + nth) as usize);
                            cells[(to + nth) as usize] = value.map(Bytes::copy_from_slice);
                        }
                    },
                );
            }
        }
        let fill = array.codec.fill_value().as_bytes();
        Ok(cells
            .iter()
            .map(|cell| cell.as_deref().unwrap_or(fill))
            .collect())
    }

    /// Reduces a selection over `axes`, dimensions of the result of reading it.
    ///
    /// Streams: memory does not depend on the size of the array. The bits of the answer depend on
    /// the data and the inner chunk grid alone.
    ///
    /// # Errors
    /// [`Error::Compute`] if the reduction has no answer; else as [`Engine::read`].
    pub async fn reduce(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        reduction: Reduction,
        reduced: &[bool],
    ) -> Result<Tensor, Error> {
        let metadata = array.metadata();
        let decoder =
            CfDecoder::new(&metadata.data_type, &metadata.attributes, decode)?.map(Arc::new);
        let decoded = decoder
            .as_ref()
            .map_or(&metadata.data_type, |d| d.data_type())
            .clone();
        let result = reduction.data_type(&decoded)?;
        let plan = Arc::new(Plan::new(selection.clone(), metadata.shape(), &array.codec));
        let selected = selection.selected_shape();
        let kept: Vec<u64> = selected
            .iter()
            .zip(reduced)
            .map(|(&length, &gone)| if gone { 1 } else { length })
            .collect();
        let size = shape::size_bytes(&kept, &result)?;
        let mut out = vec![0; size];
        if plan.inner_chunks() == 0 {
            let per_cell = selected.iter().zip(reduced).filter(|(_, gone)| **gone);
            let per_cell = per_cell.fold(1u64, |count, (&length, _)| count.saturating_mul(length));
            let cells = shape::elements(&kept)? as usize;
            let empty = Partial::of_nothing(reduction, &decoded, cells, per_cell)?;
            out = empty.finish()?;
        } else {
            let rows = Arc::new(self.rows(array, &plan).await?);
            let job = Arc::new(ReduceJob {
                array: array.clone(),
                plan: plan.clone(),
                rows,
                decoder,
                decoded: decoded.clone(),
                reduction,
                reduced: reduced.to_vec(),
                selected,
                locks: Mutex::default(),
            });
            let element = result.size_bytes().unwrap_or(8);
            let axes = |want: bool| -> Vec<Vec<u64>> {
                let touched = plan.touched().iter().zip(reduced);
                touched
                    .map(|(t, &gone)| if gone == want { t.clone() } else { vec![0] })
                    .collect()
            };
            let (kept_axes, reduced_axes) = (axes(false), axes(true));
            for tile in product(&kept_axes) {
                let partial = self.reduce_tile(&job, &tile, &reduced_axes).await?;
                let bytes = partial.finish()?;
                // The tile's cells in the result; reduced axes have one place, 0.
                let inner: Vec<u64> = (0..tile.len())
                    .map(|axis| {
                        if reduced[axis] {
                            reduced_axes[axis][0]
                        } else {
                            tile[axis]
                        }
                    })
                    .collect();
                let parts: Vec<AxisPart> = plan
                    .parts(&inner)
                    .into_iter()
                    .zip(reduced)
                    .map(|(part, &gone)| {
                        let target = if gone { vec![0] } else { part.target };
                        AxisPart {
                            source: (0..target.len() as u64).collect(),
                            target,
                        }
                    })
                    .collect();
                let tile_shape: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
                gather::for_each_run(&parts, &tile_shape, &kept, |from, to, count| {
                    let (from, to) = (from as usize * element, to as usize * element);
                    let length = count as usize * element;
                    out[to..to + length].copy_from_slice(&bytes[from..from + length]);
                });
            }
        }
        Ok(Tensor {
            data_type: result,
            shape: kept,
            elements: Elements::Fixed(out),
        })
    }

    /// Reduces all inner chunks over one tile of kept cells, in C order of the reduced axes.
    async fn reduce_tile(
        &self,
        job: &Arc<ReduceJob>,
        tile: &[u64],
        reduced_axes: &[Vec<u64>],
    ) -> Result<Partial, Error> {
        let combiner = futures::stream::iter(product(reduced_axes))
            .map(|at| {
                let inner: Vec<u64> = at
                    .iter()
                    .zip(tile)
                    .zip(&job.reduced)
                    .map(|((r, k), &gone)| if gone { *r } else { *k })
                    .collect();
                self.reduce_inner_chunk(job.clone(), inner)
            })
            .buffered(self.concurrent_chunks.max(2 * self.pool.threads()))
            .try_fold(Combiner::default(), |mut combiner, partial| async move {
                combiner.push(partial);
                Ok(combiner)
            })
            .await?;
        combiner.finish().ok_or(Error::Cancelled)
    }

    async fn reduce_inner_chunk(
        &self,
        job: Arc<ReduceJob>,
        inner: Vec<u64>,
    ) -> Result<Partial, Error> {
        let (index, local) = job.plan.locate(&inner);
        let bytes = match job.rows.get(&index) {
            None => None,
            Some(row) => {
                // Of several inner chunks of one shard the first fetches for all; the others find
                // its bytes in the cache.
                let lock = job.lock(&index);
                let _guard = lock.lock().await;
                let read = job.plan.read_around(&inner);
                let chunks = self.fetch(&job.array, &job.plan, row, &read).await?;
                let wanted = job.array.codec.inner_index(&local);
                let position = read
                    .inner
                    .iter()
                    .position(|at| job.array.codec.inner_index(&job.plan.locate(at).1) == wanted);
                position.and_then(|position| chunks.into_iter().nth(position).flatten())
            }
        };
        self.pool
            .run(move || job.partial(&inner, bytes.as_deref()))
            .await
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
        self.fetcher.stored_bytes(array, row, range).await
    }
}

/// What all inner chunks of one reduction share.
struct ReduceJob {
    array: ArrayReader,
    plan: Arc<Plan>,
    rows: Arc<Rows>,
    decoder: Option<Arc<CfDecoder>>,
    decoded: DataType,
    reduction: Reduction,
    reduced: Vec<bool>,
    selected: Vec<u64>,
    locks: Mutex<HashMap<ChunkIndex, Arc<tokio::sync::Mutex<()>>>>,
}

impl ReduceJob {
    fn lock(&self, index: &ChunkIndex) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() > 4096 {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        locks.entry(index.clone()).or_default().clone()
    }

    /// Decodes one inner chunk and reduces its selected cells.
    fn partial(&self, inner: &[u64], encoded: Option<&[u8]>) -> Result<Partial, Error> {
        let codec = &self.array.codec;
        let parts = self.plan.parts(inner);
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let size = self.array.metadata().data_type.size_bytes().unwrap_or(1);
        let cells = shape::elements(&lengths)? as usize;
        let mut bytes = match encoded {
            None => codec.fill_value().as_bytes().repeat(cells),
            Some(encoded) => {
                let mut decoded = vec![0; codec.decoded_bytes()];
                codec.decode_into(encoded, &mut decoded).map_err(|error| {
                    let (index, _) = self.plan.locate(inner);
                    match self.rows.get(&index) {
                        Some(row) => self.array.corrupt(row, error),
                        None => Error::Cancelled,
                    }
                })?;
                let mut axes = parts.iter().zip(codec.inner_shape());
                if axes.all(|(part, &length)| part.is_whole(length)) {
                    decoded
                } else {
                    gather::gather(&decoded, &parts, codec.inner_shape(), size)
                }
            }
        };
        if let Some(decoder) = &self.decoder {
            bytes = decoder.decode(&bytes);
        }
        let places: Vec<Vec<u64>> = parts.into_iter().map(|part| part.target).collect();
        let block = Block {
            data_type: &self.decoded,
            bytes: &bytes,
            shape: &lengths,
            reduced: &self.reduced,
            places: &places,
            selection_shape: &self.selected,
        };
        Ok(Partial::of(self.reduction, &block)?)
    }
}

/// Decodes one inner chunk straight to its places in the output.
fn decode_into(
    array: &ArrayReader,
    plan: &Plan,
    row: &ChunkRow,
    inner: &[u64],
    encoded: &[u8],
    output: &Output,
) -> Result<(), Error> {
    let codec = &array.codec;
    let parts = plan.parts(inner);
    let target_shape = plan.selection().selected_shape();
    let size = array.metadata().data_type.size_bytes().unwrap_or(1);
    let corrupt = |error| array.corrupt(row, error);
    let mut runs = 0u64;
    let mut first = (0, 0, 0);
    gather::for_each_run(
        &parts,
        codec.inner_shape(),
        &target_shape,
        |from, to, count| {
            if runs == 0 {
                first = (from, to, count);
            }
            runs += 1;
        },
    );
    let whole = codec.inner_shape().iter().product::<u64>();
    if runs == 1 && first.0 == 0 && first.2 == whole {
        // SAFETY: the places of this inner chunk, which no other chunk has (`Plan::reads`).
        #[expect(unsafe_code, reason = "see the module `output`")]
        let target = unsafe { output.range_mut(first.1 as usize * size, codec.decoded_bytes()) };
        return codec.decode_into(encoded, target).map_err(corrupt);
    }
    let mut decoded = vec![0; codec.decoded_bytes()];
    codec.decode_into(encoded, &mut decoded).map_err(corrupt)?;
    gather::for_each_run(
        &parts,
        codec.inner_shape(),
        &target_shape,
        |from, to, count| {
            let (from, length) = (from as usize * size, count as usize * size);
            // SAFETY: the places of this inner chunk, which no other chunk has (`Plan::reads`).
            #[expect(unsafe_code, reason = "see the module `output`")]
            let target = unsafe { output.range_mut(to as usize * size, length) };
            target.copy_from_slice(&decoded[from..from + length]);
        },
    );
    Ok(())
}

/// All combinations, the last axis fastest.
fn product(axes: &[Vec<u64>]) -> impl Iterator<Item = Vec<u64>> + '_ {
    let lengths: Vec<u64> = axes.iter().map(|axis| axis.len() as u64).collect();
    Region::whole(&lengths).positions().map(move |at| {
        at.iter()
            .zip(axes)
            .map(|(&nth, axis)| axis[nth as usize])
            .collect()
    })
}
