//! Reads: inner chunks decoded to their places in one buffer.

use std::sync::Arc;

use array::{Elements, ResolvedSelection, Tensor, VariableElements, shape};
use bytes::Bytes;
use compute::cf::{CfDecoder, Decode};
use compute::gather;
use storage::ChunkRow;

use crate::Error;
use crate::budget::Reservation;
use crate::concurrent::{self, Work};
use crate::costs::CONCURRENT_REQUESTS;
use crate::engine::{Engine, Rows, numbers};
use crate::fetch::{ArrayReader, Batch};
use crate::output::Output;
use crate::plan::{ChunkRead, Plan};
use crate::work::Window;

/// Decoded bytes one task of the pool works off, at least: fewer would cost more to hand over.
const TASK_BYTES: u64 = 256 << 10;
/// All of them are, of a read that takes no more than so many: someone looks around.
const KEEP_DECODED_OF: u64 = 16;
/// Results of fewer bytes are copied together by whoever asks for them.
const INLINE_BYTES: usize = 1 << 20;
/// Inner chunks of which no more than one cell in so many is used are kept decoded.
const KEEP_DECODED_BELOW: u64 = 2;

/// An inner chunk whose bytes are at hand.
struct Piece {
    inner: Vec<u64>,
    bytes: Bytes,
    /// Its hash if it is encoded.
    encoded: Option<array::Hash>,
}

impl Engine {
    /// Memory that reading a selection takes, in bytes, of which the result is part.
    ///
    /// # Errors
    /// [`Error::Array`] if it is 2^64 or more; [`Error::Compute`] for attributes that are not valid.
    pub fn read_bytes(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
    ) -> Result<u64, Error> {
        let metadata = array.metadata();
        let cells = shape::elements(&selection.selected_shape())?;
        let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, decode)?;
        let size = metadata.data_type.size_bytes().unwrap_or(64) as u64;
        // Decoded values stand beside the stored ones for a moment.
        let decoded = decoder.map_or(0, |decoder| decoder.data_type().size_bytes().unwrap_or(8));
        let result = cells.checked_mul(size + decoded as u64);
        let result = result.ok_or(array::Error::TooLarge { what: "result" })?;
        let plan = Plan::new(selection.clone(), metadata.shape(), &array.codec);
        Ok(result.saturating_add(self.scratch_bytes(array, &plan)))
    }

    /// Reads a selection.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if bytes are not those that were written; [`Error::Storage`] if they
    /// cannot be read; [`Error::Array`] if the result does not fit in memory; as
    /// [`Engine::reserve`] where others have the memory.
    pub async fn read(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
    ) -> Result<Tensor, Error> {
        let needed = self.read_bytes(array, selection, decode)?;
        let reservation = self.reserve(needed).await?;
        self.read_within(array, selection, decode, &reservation)
            .await
    }

    /// Reads a selection with memory that was reserved for it, as [`Engine::read_bytes`] tells.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub async fn read_within(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        _reservation: &Reservation,
    ) -> Result<Tensor, Error> {
        self.read_unreserved(array, selection, decode).await
    }

    /// Reads a selection whose memory was reserved with that of other work.
    pub(crate) async fn read_unreserved(
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
        let array = &self.sharing(array, &rows, plan.reads());
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
        let window = Window::new(self.window_bytes(array, plan));
        let reads = plan.reads().filter(|read| rows.contains_key(&read.index));
        let work = reads.map(|read| -> Work<'_> {
            Box::pin(self.read_chunk(array, plan, rows, read, &window, &output))
        });
        concurrent::all(self.concurrent_chunks(), work).await?;
        Arc::into_inner(output)
            .map(Output::into_inner)
            .ok_or(Error::Cancelled)
    }

    /// Decodes the needed inner chunks of one stored chunk to their places.
    async fn read_chunk(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        rows: &Rows,
        read: ChunkRead,
        window: &Window,
        output: &Arc<Output>,
    ) -> Result<(), Error> {
        let Some(row) = rows.get(&read.index) else {
            return Ok(());
        };
        let needed = numbers(array, plan, &read);
        let mut located = self.fetcher.locate(array, row, &needed, true).await?;
        let mut pieces = Vec::new();
        for (place, _, bytes) in std::mem::take(&mut located.decoded) {
            pieces.push(Piece {
                inner: read.inner[place].clone(),
                bytes,
                encoded: None,
            });
        }
        let present = std::mem::take(&mut located.present);
        pieces.extend(pieces_of(&read, present));
        let at_hand = self.place(array, plan, row, pieces, output);
        let coming = self.fetcher.read(array, row, located).into_iter();
        let work = coming.map(|(bytes, batch)| -> Work<'_> {
            let read = &read;
            Box::pin(async move {
                let _in_flight = window.enter(bytes).await;
                let pieces = pieces_of(read, batch.await?);
                self.place(array, plan, row, pieces, output).await
            })
        });
        let work: Vec<Work<'_>> = work.collect();
        let coming = concurrent::all(CONCURRENT_REQUESTS, work.into_iter());
        futures::future::try_join(at_hand, coming).await.map(drop)
    }

    /// Decodes pieces to their places, on as many threads as they are worth.
    async fn place(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        row: &ChunkRow,
        pieces: Vec<Piece>,
        output: &Arc<Output>,
    ) -> Result<(), Error> {
        if pieces.is_empty() {
            return Ok(());
        }
        // What lies decoded in memory and is little is copied sooner than it is handed over.
        let is_decoded = pieces.iter().all(|piece| piece.encoded.is_none());
        if is_decoded && output.len() <= INLINE_BYTES {
            let mut nothing = Vec::new();
            return pieces.iter().try_for_each(|piece| {
                put(array, plan, row, piece, output, &mut nothing).map(drop)
            });
        }
        let worth = (TASK_BYTES / array.decoded_bytes().max(1)).max(1) as usize;
        let per_task = pieces.len().div_ceil(self.pool.threads()).max(worth);
        let mut pieces = pieces.into_iter();
        let mut tasks = Vec::new();
        while pieces.len() > 0 {
            let part: Vec<Piece> = pieces.by_ref().take(per_task).collect();
            let (array, plan, output) = (array.clone(), plan.clone(), output.clone());
            let (row, fetcher) = (row.clone(), self.fetcher.clone());
            tasks.push(self.pool.run(move || {
                let mut scratch = Vec::new();
                for piece in part {
                    let decoded = put(&array, &plan, &row, &piece, &output, &mut scratch)?;
                    if let (Some(hash), true) = (piece.encoded, decoded) {
                        let keep = Bytes::from(std::mem::take(&mut scratch));
                        fetcher.keep_decoded(&array, hash, &keep);
                    }
                }
                Ok(())
            }));
        }
        futures::future::try_join_all(tasks).await.map(drop)
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
            let needed = numbers(array, plan, &read);
            let chunks = self.fetcher.inner_chunks(array, row, &needed).await?;
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
}

fn pieces_of(read: &ChunkRead, batch: Batch) -> Vec<Piece> {
    let piece = |(place, hash, bytes): (usize, array::Hash, Bytes)| Piece {
        inner: read.inner[place].clone(),
        bytes,
        encoded: Some(hash),
    };
    batch.into_iter().map(piece).collect()
}

/// Puts one inner chunk to its places in the output. Says whether `scratch` holds it decoded and is
/// worth keeping.
fn put(
    array: &ArrayReader,
    plan: &Plan,
    row: &ChunkRow,
    piece: &Piece,
    output: &Output,
    scratch: &mut Vec<u8>,
) -> Result<bool, Error> {
    let codec = &array.codec;
    let parts = plan.parts(&piece.inner);
    let target_shape = plan.selection().selected_shape();
    let size = array.metadata().data_type.size_bytes().unwrap_or(1);
    let corrupt = |error| array.corrupt(row, error);
    let is_encoded = piece.encoded.is_some();
    let is_small = plan.inner_chunks() <= KEEP_DECODED_OF;
    if is_encoded
        && !is_small
        && let Some(start) = whole_run(&parts, codec.inner_shape(), &target_shape)
    {
        // SAFETY: the places of this inner chunk, which no other chunk has (`Plan::reads`).
        #[expect(unsafe_code, reason = "see the module `output`")]
        let target = unsafe { output.range_mut(start as usize * size, codec.decoded_bytes()) };
        codec.decode_into(&piece.bytes, target).map_err(corrupt)?;
        return Ok(false);
    }
    let decoded: &[u8] = if is_encoded {
        scratch.resize(codec.decoded_bytes(), 0);
        codec.decode_into(&piece.bytes, scratch).map_err(corrupt)?;
        scratch
    } else {
        &piece.bytes
    };
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
    let used: u64 = parts.iter().map(|part| part.len() as u64).product();
    let cells = codec.inner_shape().iter().product::<u64>();
    let is_little = used.saturating_mul(KEEP_DECODED_BELOW) <= cells;
    Ok(is_encoded && (is_small || is_little))
}

/// Where the inner chunk starts in the result, if it lies there in one run.
fn whole_run(parts: &[gather::AxisPart], inner_shape: &[u64], target_shape: &[u64]) -> Option<u64> {
    let mut start = 0u64;
    let mut is_inside = false;
    for ((part, &length), &target) in parts.iter().zip(inner_shape).zip(target_shape) {
        if !part.is_whole(length) || (is_inside && length != target) {
            return None;
        }
        let first = *part.target.first()?;
        if !part.target.iter().copied().eq(first..first + length) {
            return None;
        }
        start = start * target + first;
        is_inside |= length > 1;
    }
    Some(start)
}
