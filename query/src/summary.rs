//! Reductions to one value by statistics: stored ones where chunks are whole, else those of the
//! cells that are selected.
//!
//! Both merge in the same order, so that what is answered without reading has the bits of what is
//! answered by reading.

use std::sync::Arc;

use array::{ChunkIndex, Region, Statistics, shape};
use compute::cf::{Decode, Missing};
use futures::{StreamExt as _, TryStreamExt as _};
use storage::{ChunkRow, Covered};

use crate::Error;
use crate::chunk_statistics::{Tally, part_of};
use crate::concurrent::Work;
use crate::costs::CONCURRENT_REQUESTS;
use crate::engine::{Engine, numbers};
use crate::fetch::ArrayReader;
use crate::plan::{ChunkRead, Plan};
use crate::work::Window;

impl Engine {
    /// Statistics as stored of the cells a plan selects, none of them twice.
    pub(crate) async fn summarize(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        decode: Decode,
    ) -> Result<Statistics, Error> {
        let tally = tally(array, decode)?;
        let whole = plan.whole_chunks()?;
        let covered = match decode {
            // Stored statistics leave out what the attributes call missing.
            _ if !self.settings.uses_statistics || whole.is_empty() => None,
            Decode::Raw if masks(array)? => None,
            _ => array.node.covered_statistics(&whole).await?,
        };
        let known = covered.is_some();
        let mut merging = array.node.merging();
        let mut covered = covered.unwrap_or_default().into_iter().peekable();
        let boundary: Vec<(ChunkRow, ChunkRead)> = if known && covers(plan, &whole)? {
            Vec::new()
        } else {
            self.boundary(array, plan, known.then_some(&whole)).await?
        };
        let in_order = boundary.iter().map(|(row, _)| row);
        let array = &self.fetcher.sharing(array, in_order);
        let window = Window::new(self.window_bytes(array, plan));
        let work = boundary.into_iter().map(|(row, read)| -> Work<'_, _> {
            Box::pin(self.summarize_chunk(array, plan, &tally, row, read, &window))
        });
        let mut of_chunks = futures::stream::iter(work).buffered(self.concurrent_chunks());
        while let Some((index, statistics)) = of_chunks.try_next().await? {
            let place = merging.place(&index);
            while let Some(row) = covered.next_if(|row| merging.place(&row.origin) < place) {
                merging.push(&row.origin, row.level, row.statistics);
            }
            merging.push(&index, 0, statistics);
        }
        for Covered {
            origin,
            level,
            statistics,
        } in covered
        {
            merging.push(&origin, level, statistics);
        }
        let stored = merging.finish();
        let selected = shape::elements(&plan.selection().selected_shape())?;
        let absent = selected.saturating_sub(stored.valid.saturating_add(stored.missing));
        Ok(stored.merge(tally.fill(absent)))
    }

    /// The stored chunks a plan reads, but for those in `whole`, in the order in which they merge.
    pub(crate) async fn boundary(
        &self,
        array: &ArrayReader,
        plan: &Plan,
        whole: Option<&Region>,
    ) -> Result<Vec<(ChunkRow, ChunkRead)>, Error> {
        let mut rows = self.rows(array, plan).await?;
        let is_inside = |index: &ChunkIndex| {
            whole.is_some_and(|whole| whole.contains_position(index.as_slice()))
        };
        let reads = plan.reads().filter(|read| !is_inside(&read.index));
        let mut boundary: Vec<(ChunkRow, ChunkRead)> = reads
            .filter_map(|read| Some((rows.remove(&read.index)?, read)))
            .collect();
        let merging = array.node.merging();
        boundary.sort_by_key(|(row, _)| merging.place(&row.index));
        Ok(boundary)
    }

    /// Statistics of the selected cells of one stored chunk, its inner chunks in C order.
    async fn summarize_chunk(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        tally: &Arc<Tally>,
        row: ChunkRow,
        read: ChunkRead,
        window: &Window,
    ) -> Result<(ChunkIndex, Statistics), Error> {
        let (row, read) = (&row, &read);
        let needed = numbers(array, plan, read);
        let mut located = self.fetcher.locate(array, row, &needed, true).await?;
        let mut found: Vec<Option<Statistics>> = vec![None; needed.len()];
        let decoded = std::mem::take(&mut located.decoded).into_iter();
        let decoded = decoded
            .map(|(place, _, bytes)| (place, bytes, true))
            .collect();
        let present = std::mem::take(&mut located.present).into_iter();
        let present = present
            .map(|(place, _, bytes)| (place, bytes, false))
            .collect();
        let of = |pieces| -> Work<'_, _> {
            Box::pin(self.summarize_pieces(array, plan, tally, row, read, pieces))
        };
        let coming = self.fetcher.read(array, row, located).into_iter();
        let work = coming.map(|(bytes, batch)| -> Work<'_, _> {
            Box::pin(async move {
                let _in_flight = window.enter(bytes).await;
                let batch = batch.await?.into_iter();
                let batch = batch.map(|(place, _, bytes)| (place, bytes, false));
                of(batch.collect()).await
            })
        });
        let work: Vec<Work<'_, _>> = work.collect();
        let mut batches = futures::stream::iter(work).buffer_unordered(CONCURRENT_REQUESTS);
        let at_hand = [of(decoded).await?, of(present).await?].concat();
        at_hand
            .into_iter()
            .for_each(|(place, s)| found[place] = Some(s));
        while let Some(batch) = batches.try_next().await? {
            batch
                .into_iter()
                .for_each(|(place, s)| found[place] = Some(s));
        }
        let all = found.into_iter().zip(&read.inner);
        let all =
            all.map(|(found, inner)| found.unwrap_or_else(|| tally.absent(&plan.parts(inner))));
        let merged = Statistics::merge_all(&all.collect::<Vec<_>>());
        Ok((read.index.clone(), merged))
    }

    async fn summarize_pieces(
        &self,
        array: &ArrayReader,
        plan: &Arc<Plan>,
        tally: &Arc<Tally>,
        row: &ChunkRow,
        read: &ChunkRead,
        pieces: Vec<(usize, bytes::Bytes, bool)>,
    ) -> Result<Vec<(usize, Statistics)>, Error> {
        let per_task = pieces.len().div_ceil(self.pool.threads()).clamp(1, 16);
        let mut tasks = Vec::new();
        let mut pieces = pieces.into_iter();
        while pieces.len() > 0 {
            let part = pieces.by_ref().take(per_task);
            let part: Vec<_> = part
                .map(|(place, bytes, decoded)| (place, read.inner[place].clone(), bytes, decoded))
                .collect();
            let (array, plan, tally, row) =
                (array.clone(), plan.clone(), tally.clone(), row.clone());
            tasks.push(self.pool.run(move || {
                let codec = &array.codec;
                let mut scratch = Vec::new();
                let mut found = Vec::new();
                for (place, inner, bytes, is_decoded) in part {
                    let decoded: &[u8] = if is_decoded {
                        &bytes
                    } else {
                        scratch.resize(codec.decoded_bytes(), 0);
                        let decoded = codec.decode_into(&bytes, &mut scratch);
                        decoded.map_err(|error| array.corrupt(&row, error))?;
                        &scratch
                    };
                    let cells = part_of(decoded, &plan.parts(&inner), codec);
                    found.push((place, tally.of(&cells)));
                }
                Ok(found)
            }));
        }
        Ok(futures::future::try_join_all(tasks).await?.concat())
    }
}

/// What counts as missing under this decoding.
pub(crate) fn tally(array: &ArrayReader, decode: Decode) -> Result<Arc<Tally>, Error> {
    let metadata = array.metadata();
    let missing = match decode {
        Decode::Raw => Missing::default(),
        Decode::Cf | Decode::Mask => {
            Missing::from_attributes(&metadata.data_type, &metadata.attributes)?
        }
    };
    let tally = Tally::with_missing(array.codec.clone(), missing);
    Ok(Arc::new(tally.ok_or(Error::Cancelled)?))
}

/// Whether the array's attributes call any value missing.
pub(crate) fn masks(array: &ArrayReader) -> Result<bool, Error> {
    let metadata = array.metadata();
    let missing = Missing::from_attributes(&metadata.data_type, &metadata.attributes)?;
    Ok(missing.is_any())
}

/// Whether all stored chunks a plan reads are in `whole`.
pub(crate) fn covers(plan: &Plan, whole: &Region) -> Result<bool, Error> {
    Ok(plan.chunk_region()? == *whole)
}
