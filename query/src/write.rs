//! The write path: a tensor goes into a region of an array, as changes of a transaction.
//!
//! ```text
//! region ─► plan ─► per chunk: read what is kept ─► set cells ─► encode ─► put, unless overtaken
//! ```
//!
//! Only inner chunks that hold written cells are decoded and encoded; the others keep their bytes.
//! Architecture invariant: a chunk is put on top of exactly the one that was read. If the
//! transaction has another one by then, it is read again.

use std::sync::Arc;

use array::shard::{ShardFooter, footer_range};
use array::{
    ArrayMetadata, ChunkIndex, ChunkKind, Elements, Hash, NodePath, Region, ResolvedSelection,
    Statistics, Tensor, shape,
};
use bytes::Bytes;
use codecs::{ArrayCodec, EncodedChunk};
use compute::gather;
use futures::TryStreamExt as _;
use storage::{ArrayNode, ChunkRow, Location, Summarize, Transaction};

use crate::budget::Reservation;
use crate::chunk_statistics;
use crate::engine::Engine;
use crate::plan::{ChunkRead, Plan};
use crate::{ArrayReader, Error};

/// Encoded inner chunks; `None` for those that are all fill value.
type InnerChunks = Vec<Option<Bytes>>;

/// A chunk, `None` if it is all fill value, and its statistics.
type Encoded = (Option<EncodedChunk>, Option<Statistics>);

/// A chunk as it is to be stored, and which inner chunks of it are new.
struct Changed {
    chunk: Option<EncodedChunk>,
    statistics: Option<Statistics>,
    written: Vec<u32>,
}

impl Engine {
    /// Writes `tensor`, in the shape of the selection's result and of the array's data type, to the
    /// selected cells of an array. The cells count as written, not as read.
    ///
    /// # Errors
    /// [`Error::Array`] if the tensor does not fit; [`Error::Storage`] if there is no such array or
    /// the store failed; [`Error::Corrupt`] if a chunk that is changed in part cannot be read.
    pub async fn write(
        &self,
        transaction: &Transaction,
        path: &NodePath,
        selection: &ResolvedSelection,
        tensor: Tensor,
    ) -> Result<(), Error> {
        let array = self.writable(transaction, path).await?;
        let metadata = array.metadata();
        if tensor.data_type != metadata.data_type || tensor.shape != selection.output_shape() {
            let reason = format!(
                "values of type {} and shape {:?} do not fit {} and {:?}",
                tensor.data_type,
                tensor.shape,
                metadata.data_type,
                selection.output_shape()
            );
            return Err(array::Error::invalid("values", reason).into());
        }
        let plan = Arc::new(Plan::new(selection.clone(), metadata.shape(), &array.codec));
        let tensor = Arc::new(tensor);
        futures::stream::iter(plan.reads().map(Ok::<_, Error>))
            .try_for_each_concurrent(self.concurrent_chunks(), |read| {
                let (plan, tensor, array) = (plan.clone(), tensor.clone(), &array);
                async move {
                    let _memory = self.chunk_memory(array).await?;
                    self.until_not_overtaken(transaction, path, &read.index, |array, row| {
                        let (plan, tensor, read) = (plan.clone(), tensor.clone(), read.clone());
                        async move { self.set_cells(&array, row, &plan, &read, &tensor).await }
                    })
                    .await
                }
            })
            .await
    }

    /// Memory for the work on one stored chunk: its old and new inner chunks, encoded, and those that
    /// are decoded.
    async fn chunk_memory(&self, array: &ArrayReader) -> Result<Reservation, Error> {
        let inner_chunks = array.codec.inner_chunks() as u64;
        let needed = array.decoded_bytes().saturating_mul(2 * inner_chunks);
        // One that is larger than all of it has it for itself.
        self.writing
            .take(needed.min(self.writing.total_bytes()))
            .await
    }

    /// Stores a chunk that a client encoded, rewritten canonically. The inner chunks that differ
    /// from those the transaction has count as written.
    ///
    /// # Errors
    /// [`Error::Array`] if the bytes do not decode to a chunk of the array; else as
    /// [`Engine::write`].
    pub async fn write_encoded(
        &self,
        transaction: &Transaction,
        path: &NodePath,
        index: &ChunkIndex,
        bytes: Bytes,
    ) -> Result<(), Error> {
        self.until_not_overtaken(transaction, path, index, |array, row| {
            let (bytes, index) = (bytes.clone(), index.clone());
            async move {
                let (codec, node) = (array.codec.clone(), array.node().clone());
                // The client wrote what it was shown.
                let written_with = array.served.clone().unwrap_or_else(|| codec.clone());
                let chunk = self
                    .pool
                    .run(move || recode(&written_with, &codec, node.metadata(), &index, &bytes))
                    .await?;
                self.differing(&array, row, chunk).await
            }
        })
        .await
    }

    /// Resizes an array. Cells beyond the new shape are gone, also for a later, larger shape.
    ///
    /// # Errors
    /// [`Error::Array`] if the shape has another number of dimensions; else as [`Engine::write`].
    pub async fn resize(
        &self,
        transaction: &Transaction,
        path: &NodePath,
        shape: Vec<u64>,
    ) -> Result<(), Error> {
        let before = transaction.array(path).await?;
        let mut metadata = (**before.metadata()).clone();
        metadata.set_shape(shape)?;
        self.set_metadata(transaction, path, metadata).await
    }

    /// Gives an array new metadata; a new shape resizes it.
    ///
    /// # Errors
    /// As [`Engine::resize`].
    pub async fn set_metadata(
        &self,
        transaction: &Transaction,
        path: &NodePath,
        metadata: ArrayMetadata,
    ) -> Result<(), Error> {
        let before = transaction.array(path).await?;
        let metadata = codecs::stored_as(before.metadata(), metadata);
        self.take_in_edges(transaction, path, &before, metadata.shape())
            .await?;
        transaction.set_array_metadata(path, metadata).await?;
        for edge in cut_edges(before.metadata(), transaction, path).await? {
            let array = self.writable(transaction, path).await?;
            let rows = array.node().chunks(&edge).await?;
            futures::stream::iter(rows.into_iter().map(Ok::<_, Error>))
                .try_for_each_concurrent(self.concurrent_chunks(), |row| async move {
                    self.until_not_overtaken(
                        transaction,
                        path,
                        &row.index,
                        |array, row| async move { self.clear_outside(&array, row).await },
                    )
                    .await
                })
                .await?;
        }
        Ok(())
    }

    /// Copies in chunks in files elsewhere that reach past the end of an array that is to grow there:
    /// what the file has behind its values would become values.
    async fn take_in_edges(
        &self,
        transaction: &Transaction,
        path: &NodePath,
        before: &ArrayNode,
        shape: &[u64],
    ) -> Result<(), Error> {
        for edge in grown_edges(before.metadata(), shape)? {
            for row in before.chunks(&edge).await? {
                if !matches!(row.location, Location::External { .. }) {
                    continue;
                }
                let _memory = self.chunk_memory(&self.open(before.clone())?).await?;
                self.until_not_overtaken(transaction, path, &row.index, |array, row| async move {
                    self.clear_outside(&array, row).await
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn writable(
        &self,
        transaction: &Transaction,
        path: &NodePath,
    ) -> Result<ArrayReader, Error> {
        self.open(transaction.array(path).await?)
    }

    /// Reads a chunk, lets `change` make another of it, and puts that; again as long as some other
    /// writer of the transaction comes in between.
    async fn until_not_overtaken<F, C>(
        &self,
        transaction: &Transaction,
        path: &NodePath,
        index: &ChunkIndex,
        change: F,
    ) -> Result<(), Error>
    where
        F: Fn(ArrayReader, Option<ChunkRow>) -> C,
        C: Future<Output = Result<Changed, Error>>,
    {
        loop {
            let array = self.writable(transaction, path).await?;
            let row = array.node().chunk(index).await?;
            let changed = change(array, row.clone()).await?;
            if changed.written.is_empty() && changed.statistics.is_none() {
                return Ok(());
            }
            let put = match changed.chunk {
                Some(chunk) => {
                    let parts = (index.clone(), chunk.kind, chunk.id, chunk.bytes);
                    let Changed {
                        statistics,
                        written,
                        ..
                    } = changed;
                    transaction
                        .put_inner_chunks(path, parts, statistics, written, row.as_ref())
                        .await
                }
                None => {
                    transaction
                        .clear_inner_chunks(path, index, changed.written, row.as_ref())
                        .await
                }
            };
            match put {
                Err(storage::Error::Overtaken { .. }) => {}
                other => return Ok(other?),
            }
        }
    }

    /// The encoded inner chunks of a chunk.
    async fn kept(
        &self,
        array: &ArrayReader,
        row: Option<&ChunkRow>,
        needed: &[usize],
    ) -> Result<InnerChunks, Error> {
        let Some(row) = row else {
            return Ok(vec![None; needed.len()]);
        };
        self.fetcher.inner_chunks(array, row, needed).await
    }

    /// The chunk `row` with the cells of `tensor` that `plan` puts there.
    async fn set_cells(
        &self,
        array: &ArrayReader,
        row: Option<ChunkRow>,
        plan: &Arc<Plan>,
        read: &ChunkRead,
        tensor: &Arc<Tensor>,
    ) -> Result<Changed, Error> {
        let codec = array.codec.clone();
        let touched: Vec<(usize, Vec<u64>)> = read
            .inner
            .iter()
            .map(|inner| (codec.inner_index(&plan.locate(inner).1), inner.clone()))
            .collect();
        let covers = |inner: &[u64]| plan.covers(inner);
        // What is overwritten altogether is not read.
        let mut needed: Vec<usize> = (0..codec.inner_chunks()).collect();
        let overwritten: Vec<usize> = touched
            .iter()
            .filter(|(_, inner)| covers(inner))
            .map(|(nth, _)| *nth)
            .collect();
        needed.retain(|nth| !overwritten.contains(nth));
        let kept = self.kept(array, row.as_ref(), &needed).await?;
        let mut inner_chunks: InnerChunks = vec![None; codec.inner_chunks()];
        for (nth, bytes) in needed.into_iter().zip(kept) {
            inner_chunks[nth] = bytes;
        }
        let (plan, tensor) = (plan.clone(), tensor.clone());
        let (node, index) = (array.node().clone(), read.index.clone());
        let changed = self
            .pool
            .run(move || {
                Ok(encode_changed(
                    &codec,
                    &node,
                    &index,
                    &plan,
                    &tensor,
                    touched,
                    inner_chunks,
                ))
            })
            .await?;
        changed.map_err(|error| array.unwritable(error))
    }

    /// The chunk `row` with every cell outside the array set to fill value.
    async fn clear_outside(
        &self,
        array: &ArrayReader,
        row: Option<ChunkRow>,
    ) -> Result<Changed, Error> {
        let all: Vec<usize> = (0..array.codec.inner_chunks()).collect();
        let kept = self.kept(array, row.as_ref(), &all).await?;
        let Some(index) = row.as_ref().map(|row| row.index.clone()) else {
            return Ok(Changed {
                chunk: None,
                statistics: None,
                written: Vec::new(),
            });
        };
        let (codec, node) = (array.codec.clone(), array.node().clone());
        let chunk = self
            .pool
            .run(move || Ok(clear_outside(&codec, node.metadata(), &index, &kept)))
            .await?
            .map_err(|error| array.unwritable(error))?;
        self.differing(array, row, chunk).await
    }

    /// A chunk that takes the place of `row`, with the inner chunks in which they differ.
    async fn differing(
        &self,
        array: &ArrayReader,
        row: Option<ChunkRow>,
        (chunk, statistics): Encoded,
    ) -> Result<Changed, Error> {
        let count = array.codec.inner_chunks();
        let new = match &chunk {
            Some(chunk) => {
                inner_hashes(chunk, count).map_err(|error| array.unwritable(error.into()))?
            }
            None => vec![None; count],
        };
        let old = match &row {
            Some(row) => self.fetcher.inner_hashes(array, row).await?,
            None => vec![None; count],
        };
        let pairs = new.iter().zip(&old).zip(0u32..);
        let written = pairs.filter(|((a, b), _)| a != b).map(|(_, nth)| nth);
        Ok(Changed {
            chunk,
            statistics,
            written: written.collect(),
        })
    }
}

/// How the statistics of a merged chunk are computed; see [`storage::Repository::set_summarize`].
pub fn summarize() -> Summarize {
    Summarize::new(|metadata, index, bytes| {
        let codec = ArrayCodec::new(metadata).ok()?;
        chunk_statistics::of_chunk(&codec, metadata, index, bytes)
    })
}

/// The hashes of the inner chunks of an encoded chunk.
fn inner_hashes(chunk: &EncodedChunk, count: usize) -> Result<Vec<Option<Hash>>, array::Error> {
    if chunk.kind == ChunkKind::Plain {
        return Ok(vec![Some(chunk.id)]);
    }
    let length = chunk.bytes.len() as u64;
    let range = footer_range(length, count)?;
    let footer = ShardFooter::parse(
        &chunk.bytes[range.start as usize..],
        &chunk.id,
        length,
        count,
    )?;
    Ok(footer
        .entries()
        .iter()
        .map(|entry| entry.map(|entry| entry.hash))
        .collect())
}

/// A client's chunk as Quarr stores it, and its statistics.
fn recode(
    written_with: &ArrayCodec,
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    bytes: &Bytes,
) -> Result<Encoded, Error> {
    let invalid = |error: codecs::Error| array::Error::invalid("chunk", error.to_string());
    let elements = written_with.decode_foreign(bytes).map_err(invalid)?;
    let inside = metadata.grid().chunk_region_in_array(index);
    let chunk = codec.encode(&elements, inside.shape()).map_err(invalid)?;
    let statistics = chunk
        .as_ref()
        .and_then(|chunk| chunk_statistics::of_chunk(codec, metadata, index, &chunk.bytes));
    Ok((chunk, statistics))
}

/// A chunk with every cell outside the array set to fill value, and its statistics.
fn clear_outside(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    inner: &InnerChunks,
) -> Result<Encoded, codecs::Error> {
    let inside = metadata.grid().chunk_region_in_array(index);
    let chunk = codec.encode(&codec.decode_whole(inner)?, inside.shape())?;
    let statistics = chunk
        .as_ref()
        .and_then(|chunk| chunk_statistics::of_chunk(codec, metadata, index, &chunk.bytes));
    Ok((chunk, statistics))
}

/// The chunk at `index` with the cells of `tensor` in the `touched` inner chunks.
fn encode_changed(
    codec: &ArrayCodec,
    node: &ArrayNode,
    index: &ChunkIndex,
    plan: &Plan,
    tensor: &Tensor,
    touched: Vec<(usize, Vec<u64>)>,
    mut inner_chunks: InnerChunks,
) -> Result<Changed, codecs::Error> {
    let metadata = node.metadata();
    let chunk_region = metadata.grid().chunk_region(index);
    let array_region = Region::whole(metadata.shape());
    let mut written = Vec::with_capacity(touched.len());
    for (nth, inner) in touched {
        let mut elements = codec.decode_or_fill(inner_chunks[nth].as_ref())?;
        let parts = plan.parts(&inner);
        scatter(
            tensor,
            &plan.selection().selected_shape(),
            &parts,
            codec,
            &mut elements,
        );
        let part = codec.inner_region(nth)?;
        let start = part.start().iter().zip(chunk_region.start());
        let start: Vec<u64> = start.map(|(a, b)| a + b).collect();
        let inside = Region::new(start, part.shape().to_vec())?.intersect(&array_region);
        let bytes = codec.encode_inner(&elements, inside.shape())?;
        inner_chunks[nth] = bytes.map(Bytes::from);
        written.push(nth as u32);
    }
    written.sort_unstable();
    let chunk = codec.assemble(&inner_chunks);
    let statistics = chunk
        .as_ref()
        .and_then(|chunk| chunk_statistics::of_chunk(codec, metadata, index, &chunk.bytes));
    Ok(Changed {
        chunk,
        statistics,
        written,
    })
}

/// Sets the cells of an inner chunk that `parts` say, from their places in the tensor.
fn scatter(
    tensor: &Tensor,
    selected: &[u64],
    parts: &[gather::AxisPart],
    codec: &ArrayCodec,
    elements: &mut Elements,
) {
    let inner_shape = codec.inner_shape();
    match (elements, &tensor.elements) {
        (Elements::Fixed(cells), Elements::Fixed(values)) => {
            let size = codec.fill_value().as_bytes().len();
            gather::for_each_run(parts, inner_shape, selected, |to, from, count| {
                let (to, from) = (to as usize * size, from as usize * size);
                let length = count as usize * size;
                cells[to..to + length].copy_from_slice(&values[from..from + length]);
            });
        }
        (Elements::Variable(cells), Elements::Variable(values)) => {
            let mut changed: Vec<&[u8]> = cells.iter().collect();
            gather::for_each_run(parts, inner_shape, selected, |to, from, count| {
                for nth in 0..count {
                    if let Some(value) = values.get((from + nth) as usize) {
                        changed[(to + nth) as usize] = value;
                    }
                }
            });
            let changed = changed.into_iter().collect();
            *cells = changed;
        }
        // The tensor has the array's data type.
        _ => {}
    }
}

/// Boxes of the chunk grid that hold every chunk of which a shrink cut off some cells.
/// The boxes of the chunk grid whose chunks reach past the end of an array where a new shape goes on.
fn grown_edges(before: &ArrayMetadata, shape: &[u64]) -> Result<Vec<Region>, Error> {
    let grid = before.grid().grid_shape();
    let mut edges = Vec::new();
    if shape.len() != grid.len() || shape::elements(&grid) == Ok(0) {
        return Ok(edges);
    }
    for axis in 0..grid.len() {
        let (length, chunk) = (before.shape()[axis], before.chunk_shape()[axis]);
        if shape[axis] > length && length % chunk != 0 {
            let (mut start, mut lengths) = (vec![0; grid.len()], grid.clone());
            start[axis] = length / chunk;
            lengths[axis] = 1;
            edges.push(Region::new(start, lengths)?);
        }
    }
    Ok(edges)
}

async fn cut_edges(
    before: &ArrayMetadata,
    transaction: &Transaction,
    path: &NodePath,
) -> Result<Vec<Region>, Error> {
    let now = transaction.array(path).await?;
    let now = now.metadata();
    let grid = now.grid().grid_shape();
    let mut edges = Vec::new();
    if now.dimensions() != before.dimensions() || shape::elements(&grid) == Ok(0) {
        return Ok(edges);
    }
    for axis in 0..grid.len() {
        let (length, chunk) = (now.shape()[axis], now.chunk_shape()[axis]);
        if length < before.shape()[axis] && length % chunk != 0 {
            let (mut start, mut lengths) = (vec![0; grid.len()], grid.clone());
            start[axis] = length / chunk;
            lengths[axis] = 1;
            edges.push(Region::new(start, lengths)?);
        }
    }
    Ok(edges)
}
