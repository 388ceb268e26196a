//! One pass over the data of an aggregation.

use std::sync::Arc;

use array::{AxisSelection, ChunkIndex, ResolvedSelection, Tensor};
use compute::cf::{CfDecoder, Decode};
use compute::predicate::{Holds, Predicate};

use super::job::{Job, Piece};
use crate::Error;
use crate::concurrent::{self, Work};
use crate::costs::CONCURRENT_REQUESTS;
use crate::engine::{Engine, numbers};
use crate::fetch::ArrayReader;
use crate::measure::Role;
use crate::plan::ChunkRead;
use crate::work::Window;

/// The axes in the order in which a pass goes through stored chunks: those that stay come first, so
/// that chunks that share kept cells come after each other.
pub(super) fn order(roles: &[Role]) -> Vec<usize> {
    let (kept, gone): (Vec<usize>, Vec<usize>) =
        (0..roles.len()).partition(|&axis| roles[axis].is_kept());
    [kept, gone].concat()
}

impl Engine {
    /// Works off all stored chunks of a job: those that share kept cells after each other.
    pub(super) async fn pass(&self, job: &Arc<Job>) -> Result<(), Error> {
        let window = Window::new(self.window_bytes(&job.array, &job.plan));
        let order = order(&job.aggregation.roles);
        let work = job
            .plan
            .reads_by(order)
            .map(|read| -> Work<'_> { Box::pin(self.reduce_chunk(job, read, &window)) });
        concurrent::all(self.concurrent_chunks(), work).await
    }

    async fn reduce_chunk(
        &self,
        job: &Arc<Job>,
        read: ChunkRead,
        window: &Window,
    ) -> Result<(), Error> {
        let conditions = &job.aggregation.conditions;
        if self
            .rules_out(conditions, job.decode, &job.array, &read.index)
            .await?
        {
            let missing = read.inner.into_iter().map(|at| (at, Piece::Missing));
            return self.reduce_pieces(job, missing.collect()).await;
        }
        let needed = numbers(&job.array, &job.plan, &read);
        self.fetch_conditions(job, &read, &needed).await?;
        let Some(row) = job.rows.get(&read.index) else {
            let absent = read.inner.into_iter().map(|at| (at, Piece::Fill));
            return self.reduce_pieces(job, absent.collect()).await;
        };
        let mut located = self.fetcher.locate(&job.array, row, &needed, true).await?;
        let mut pieces: Vec<Option<Piece>> = vec![Some(Piece::Fill); read.inner.len()];
        located.places().for_each(|place| pieces[place] = None);
        for (place, hash, bytes) in std::mem::take(&mut located.decoded) {
            pieces[place] = Some(Piece::Decoded(bytes, hash));
        }
        for (place, hash, bytes) in std::mem::take(&mut located.present) {
            pieces[place] = Some(Piece::Encoded(bytes, hash));
        }
        let at_hand = read.inner.iter().zip(pieces);
        let at_hand = at_hand.filter_map(|(at, piece)| Some((at.clone(), piece?)));
        let at_hand = self.reduce_pieces(job, at_hand.collect());
        let coming = self.fetcher.read(&job.array, row, located).into_iter();
        let work = coming.map(|(bytes, batch)| -> Work<'_> {
            let read = &read;
            Box::pin(async move {
                let _in_flight = window.enter(bytes).await;
                let pieces = batch.await?.into_iter();
                let pieces = pieces.map(|(place, hash, bytes)| {
                    (read.inner[place].clone(), Piece::Encoded(bytes, hash))
                });
                self.reduce_pieces(job, pieces.collect()).await
            })
        });
        let work: Vec<Work<'_>> = work.collect();
        let coming = concurrent::all(CONCURRENT_REQUESTS, work.into_iter());
        futures::future::try_join(at_hand, coming).await.map(drop)
    }

    /// Reads what conditions need of other arrays beside a stored chunk, together, so that it is in
    /// the cache when it is looked at inner chunk by inner chunk.
    async fn fetch_conditions(
        &self,
        job: &Job,
        read: &ChunkRead,
        needed: &[usize],
    ) -> Result<(), Error> {
        for (array, _) in &job.aggregation.conditions {
            let is_beside = array.has_grid_of(&job.array) && !job.is_same(array);
            if let (true, Some(row)) = (is_beside, array.node.chunk(&read.index).await?) {
                self.fetcher.inner_chunks(array, &row, needed).await?;
            }
        }
        Ok(())
    }

    /// Whether statistics tell that no cell of a stored chunk of `array` satisfies the conditions.
    pub(crate) async fn rules_out(
        &self,
        conditions: &[(ArrayReader, Predicate)],
        decode: Decode,
        array: &ArrayReader,
        index: &ChunkIndex,
    ) -> Result<bool, Error> {
        if !self.settings.uses_statistics {
            return Ok(false);
        }
        for (other, predicate) in conditions {
            let metadata = other.metadata();
            let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, decode)?;
            let same_grid = other.codec.chunk_shape() == array.codec.chunk_shape();
            if decoder.is_some() || !same_grid {
                continue;
            }
            let Some(statistics) = other.node.chunk_statistics(index).await? else {
                continue;
            };
            let range = statistics.moments.map(|moments| (moments.min, moments.max));
            let holds = predicate.may_hold(&metadata.data_type, range, statistics.missing > 0);
            if holds == Holds::Never {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Measures inner chunks on the pool, those of one thread after each other.
    async fn reduce_pieces(
        &self,
        job: &Arc<Job>,
        pieces: Vec<(Vec<u64>, Piece)>,
    ) -> Result<(), Error> {
        let (batches, pieces) = self.for_devices(job, pieces);
        let mut tasks: Vec<Work<'_>> = Vec::new();
        for batch in batches {
            let (job, devices) = (job.clone(), self.devices.clone());
            let work = self.pool.run(move || job.take_batch(&devices, &batch));
            tasks.push(Box::pin(work));
        }
        let per_task = pieces.len().div_ceil(self.pool.threads()).clamp(1, 16);
        let mut pieces = pieces.into_iter();
        while pieces.len() > 0 {
            let part: Vec<(Vec<u64>, Piece)> = pieces.by_ref().take(per_task).collect();
            let job = job.clone();
            tasks.push(Box::pin(async move {
                let mut ready = Vec::new();
                for (inner, piece) in part {
                    let masks = self.masks(&job, &inner, &piece).await?;
                    ready.push((inner, piece, masks));
                }
                self.pool
                    .run(move || {
                        let mut scratch = Vec::new();
                        ready.into_iter().try_for_each(|(inner, piece, masks)| {
                            job.take(&inner, &piece, &masks, &mut scratch)
                        })
                    })
                    .await
            }));
        }
        let all = tasks.len().max(1);
        concurrent::all(all, tasks.into_iter()).await
    }

    /// The cells of other arrays that conditions look at, beside one inner chunk.
    async fn masks(
        &self,
        job: &Job,
        inner: &[u64],
        piece: &Piece,
    ) -> Result<Vec<Option<Tensor>>, Error> {
        let mut masks = Vec::new();
        if matches!(piece, Piece::Missing) {
            return Ok(masks);
        }
        for (array, _) in &job.aggregation.conditions {
            if job.is_same(array) {
                masks.push(None);
                continue;
            }
            let parts = job.plan.parts(inner).into_iter().zip(inner);
            let axes = parts
                .zip(job.array.codec.inner_shape())
                .map(|((part, at), length)| {
                    let positions = part.source.iter().map(|source| at * length + source);
                    AxisSelection::List(positions.collect())
                });
            let cells = ResolvedSelection::of_axes(axes.collect());
            masks.push(Some(
                Box::pin(self.read_unreserved(array, &cells, job.decode)).await?,
            ));
        }
        Ok(masks)
    }
}
