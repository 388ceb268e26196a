//! Reductions: each inner chunk decoded and measured while it is in the processor's cache, what is
//! found merged in one order.
//!
//! ```text
//! stored chunks ─► inner chunks ─► groups ─► parts ─► a tree for each tile of kept cells ─► cells
//! ```

mod batch;
mod job;
mod pass;

use std::sync::{Arc, Mutex};

use array::{DataType, Elements, ResolvedSelection, Tensor, shape};
use compute::cf::{CfDecoder, Decode};
use compute::order::Needs;
use compute::{Reduction, Summary};

use crate::Error;
use crate::budget::Reservation;
use crate::cuts::Cuts;
use crate::devices::{Asked, Decision};
use crate::engine::Engine;
use crate::fetch::ArrayReader;
use crate::measure::{Aggregation, Measure, Part, Role};
use crate::plan::Plan;
use job::{Job, groups, lock};

/// A share of all memory that one search for order statistics takes, at most.
const SEARCH_SHARE: u64 = 4;

impl Engine {
    /// Reduces a selection over `reduced` axes, dimensions of the result of reading it.
    ///
    /// # Errors
    /// As [`Engine::aggregate`].
    pub async fn reduce(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        reduction: Reduction,
        reduced: &[bool],
    ) -> Result<Tensor, Error> {
        let aggregation = Aggregation::plain(&[reduction], reduced);
        let tensors = self
            .aggregate(array, selection, decode, &aggregation)
            .await?;
        tensors.into_iter().next().ok_or(Error::Cancelled)
    }

    /// Measures of a selection, a tensor each: with length 1 along reduced axes, and of groups where
    /// these are grouped. Quantiles come before all axes, the bins of a histogram after them.
    ///
    /// Streams: memory does not depend on the size of the array. The bits of an answer depend on the
    /// data and the inner chunk grid alone.
    ///
    /// # Errors
    /// [`Error::Compute`] if a measure has no answer; else as [`Engine::read`].
    pub async fn aggregate(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        aggregation: &Aggregation,
    ) -> Result<Vec<Tensor>, Error> {
        let needed = self.aggregate_bytes(array, selection, aggregation)?;
        let reservation = self.reserve(needed).await?;
        self.aggregate_within(array, selection, decode, aggregation, &reservation)
            .await
    }

    /// Memory that an aggregation takes, in bytes, of which the results are part.
    ///
    /// # Errors
    /// [`Error::Array`] if it is 2^64 or more.
    pub fn aggregate_bytes(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        aggregation: &Aggregation,
    ) -> Result<u64, Error> {
        let plan = Plan::new(selection.clone(), array.metadata().shape(), &array.codec);
        let cells = shape::elements(&aggregation.shape(selection))?;
        // Cells of some stored chunks are worked on at a time.
        let axes = aggregation.roles.iter().zip(selection.axes());
        let of_chunk = axes
            .zip(array.codec.chunk_shape())
            .map(|((role, axis), &chunk)| match role {
                Role::Kept => axis.len().min(chunk),
                role => role.length(axis.len()),
            })
            .fold(1u64, u64::saturating_mul);
        let open = of_chunk
            .saturating_mul(self.concurrent_chunks() as u64)
            .min(cells);
        let measures = aggregation.measures.iter();
        let each = measures.map(|measure| {
            let results = cells.saturating_mul(16 * measure.results() as u64);
            results.saturating_add(open.saturating_mul(measure.bytes_per_cell()))
        });
        let all = each.fold(0, u64::saturating_add);
        let search = self.search_bytes(selection, aggregation)?;
        let conditions = aggregation.conditions.len() as u64 * 2 * array.decoded_bytes();
        Ok(all
            .saturating_add(search)
            .saturating_add(conditions)
            .saturating_add(self.scratch_bytes(array, &plan)))
    }

    /// Memory for the searches of an aggregation: with which one pass is enough, or their share.
    fn search_bytes(
        &self,
        selection: &ResolvedSelection,
        aggregation: &Aggregation,
    ) -> Result<u64, Error> {
        let kept = shape::elements(&aggregation.shape(selection))?.max(1);
        let cells = shape::elements(&selection.selected_shape())?;
        let workers = self.pool.threads() as u64;
        let measures = aggregation.measures.iter();
        let searches = measures.filter_map(|measure| match measure {
            Measure::Order(statistics) => {
                let widest = DataType::Float64;
                let needs = Needs::of(statistics, &widest, kept, cells.div_ceil(kept), workers);
                // Each of the tiles worked on at the same time puts the values of a cell in order.
                Some(needs.one_pass.saturating_add(cells.saturating_mul(8)))
            }
            _ => None,
        });
        let enough = searches.fold(0, u64::saturating_add);
        Ok(enough.min(self.budget.total_bytes() / SEARCH_SHARE))
    }

    /// [`Engine::aggregate`] with memory that was reserved for it.
    ///
    /// # Errors
    /// As [`Engine::aggregate`].
    pub async fn aggregate_within(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        aggregation: &Aggregation,
        reservation: &Reservation,
    ) -> Result<Vec<Tensor>, Error> {
        let found = self.aggregate_in(array, selection, decode, aggregation, reservation);
        Ok(found.await?.0)
    }

    /// The results, and how far those of order statistics may be from the exact ones.
    async fn aggregate_in(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        aggregation: &Aggregation,
        reservation: &Reservation,
    ) -> Result<(Vec<Tensor>, f64), Error> {
        let metadata = array.metadata();
        let data_type = &metadata.data_type;
        let decoder = CfDecoder::new(data_type, &metadata.attributes, decode)?;
        let decoded = decoder
            .as_ref()
            .map_or(data_type, |d| d.data_type())
            .clone();
        let measured = aggregation.measured_type(&decoded)?;
        let measures = aggregation.measures.iter();
        let results: Result<Vec<DataType>, Error> = measures
            .clone()
            .map(|measure| measure.data_type(&measured))
            .collect();
        let results = results?;
        let plan = Plan::new(selection.clone(), metadata.shape(), &array.codec);
        let kept = aggregation.shape(selection);
        let tensors = |bytes: Vec<Vec<u8>>| {
            let each = aggregation.measures.iter().zip(&results).zip(bytes);
            let tensor =
                each.map(|((measure, data_type), bytes)| tensor(measure, data_type, &kept, bytes));
            tensor.collect()
        };
        if plan.inner_chunks() == 0 || kept.contains(&0) {
            let selected = selection.selected_shape();
            let gone = selected
                .iter()
                .zip(&aggregation.roles)
                .filter(|(_, role)| !role.is_kept());
            let per_cell = gone.fold(1u64, |count, (&length, _)| count.saturating_mul(length));
            let cells = shape::elements(&kept)? as usize;
            let nothing = measures.map(|m| Part::of_nothing(m, &measured, cells, per_cell));
            return Ok((tensors(nothing.collect::<Result<_, _>>()?), 0.0));
        }
        if let Some(summaries) = summaries(aggregation, &plan, data_type, decoder.as_ref()) {
            let statistics = self.summarize(array, &Arc::new(plan), decode).await?;
            let answers = summaries
                .iter()
                .map(|summary| Ok(summary.finish(&statistics)?));
            return Ok((tensors(answers.collect::<Result<_, Error>>()?), 0.0));
        }
        let decision = self.decide(array, &plan, aggregation, decoder.as_ref());
        let device_codec = decision.is_on_device.then(|| array.node.document_hash());
        let rows = Arc::new(self.rows(array, &plan).await?);
        let reads = plan.reads_by(pass::order(&aggregation.roles));
        let mut job = Job {
            array: self.sharing(array, &rows, reads),
            decode,
            decoder,
            decoded,
            measured,
            aggregation: aggregation.clone(),
            selected: selection.selected_shape(),
            groups: groups(aggregation, &plan),
            rows,
            plan,
            kept: kept.clone(),
            out: Mutex::new(Vec::new()),
            results: results.clone(),
            workers: self.pool.threads(),
            device_codec,
            tiles: Mutex::default(),
            fills: Mutex::default(),
            searches: Mutex::default(),
            error_bound: Mutex::default(),
            search_bytes: 0,
            reservation_bytes: reservation.bytes(),
        };
        if !aggregation.has_order() {
            return Ok((tensors(self.run(job).await?), 0.0));
        }
        // Searches need all cells of a tile at once: so many tiles are worked off together as the
        // memory takes.
        let cells = job.cells_per_kept();
        let size = job.measured.size_bytes().unwrap_or(8) as u64;
        let per_kept = cells.saturating_mul(size + 8).max(1);
        let search_bytes = self.search_bytes(selection, aggregation)?;
        let cuts = Cuts::new(
            array,
            selection,
            &aggregation.roles,
            (search_bytes / per_kept).max(1),
        );
        let sizes = measures.zip(&results).map(|(measure, result)| {
            let size = shape::size_bytes(&job.kept, result)?;
            Ok(vec![0; size.saturating_mul(measure.results())])
        });
        let mut whole: Vec<Vec<u8>> = sizes.collect::<Result<_, Error>>()?;
        let mut done = 0;
        for cut in cuts {
            let part = selection.part(&cut);
            let plan = Plan::new(part.clone(), metadata.shape(), &array.codec);
            job = Job {
                groups: groups(aggregation, &plan),
                kept: aggregation.shape(&part),
                selected: part.selected_shape(),
                plan,
                out: Mutex::default(),
                tiles: Mutex::default(),
                fills: Mutex::default(),
                searches: Mutex::default(),
                search_bytes,
                ..job
            };
            let found;
            (found, job) = self.run_searches(job).await?;
            for (nth, found) in found.iter().enumerate() {
                let measure = &aggregation.measures[nth];
                let cell = results[nth].size_bytes().unwrap_or(8) * measure.cell_results();
                copy_run(found, &mut whole[nth], measure.planes(), done * cell);
            }
            done += shape::elements(&job.kept)? as usize;
        }
        Ok((tensors(whole), *lock(&job.error_bound)))
    }

    /// [`Engine::aggregate_within`] whose order statistics end after one pass over the data, where
    /// that is not enough to find them exactly.
    ///
    /// # Errors
    /// As [`Engine::aggregate`].
    pub async fn aggregate_approximately(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        aggregation: &Aggregation,
        reservation: &Reservation,
    ) -> Result<Approximation, Error> {
        let aggregation = Aggregation {
            passes: Some(1),
            ..aggregation.clone()
        };
        let (tensors, error_bound) = self
            .aggregate_in(array, selection, decode, &aggregation, reservation)
            .await?;
        Ok(Approximation {
            tensors,
            error_bound,
        })
    }

    /// Who computes an aggregation that statistics do not answer.
    pub(crate) fn decide(
        &self,
        array: &ArrayReader,
        plan: &Plan,
        aggregation: &Aggregation,
        decoder: Option<&CfDecoder>,
    ) -> Decision {
        self.devices.decide(&Asked {
            aggregation,
            data_type: &array.metadata().data_type,
            decoder,
            chunks: plan.chunks(),
            inner_chunks: plan.inner_chunks(),
            chunk_bytes: array.decoded_bytes(),
            inner_shape: array.codec.inner_shape(),
            codec: &array.node.document_hash(),
            threads: self.pool.threads() as u64,
        })
    }

    async fn run(&self, job: Job) -> Result<Vec<Vec<u8>>, Error> {
        let job = Arc::new(job.with_output()?);
        self.pass(&job).await?;
        let out = std::mem::take(&mut *lock(&job.out));
        Ok(out)
    }

    /// Passes over the data until every search has found what it is for.
    async fn run_searches(&self, job: Job) -> Result<(Vec<Vec<u8>>, Job), Error> {
        let job = Arc::new(job.with_output()?);
        loop {
            self.pass(&job).await?;
            let searches = lock(&job.searches);
            let is_done = searches.values().all(|search| !search.needs_pass());
            if is_done || job.aggregation.passes == Some(1) {
                break;
            }
        }
        let job = Arc::into_inner(job).ok_or(Error::Cancelled)?;
        let out = std::mem::take(&mut *lock(&job.out));
        Ok((out, job))
    }
}

/// Results that may be off.
#[derive(Clone, Debug)]
pub struct Approximation {
    /// As [`Engine::aggregate`] gives them.
    pub tensors: Vec<Tensor>,
    /// Exact medians and quantiles are no further away; 0 if these are exact.
    pub error_bound: f64,
}

/// The results of a measure as a tensor.
fn tensor(measure: &Measure, data_type: &DataType, kept: &[u64], bytes: Vec<u8>) -> Tensor {
    let mut lengths = kept.to_vec();
    match measure {
        Measure::Order(statistics) if statistics.name() == "quantile" => {
            lengths.insert(0, statistics.len() as u64);
        }
        Measure::Histogram(bins) => lengths.push(bins.len() as u64),
        _ => {}
    }
    Tensor {
        data_type: data_type.clone(),
        shape: lengths,
        elements: Elements::Fixed(bytes),
    }
}

/// What statistics answer of an aggregation, if they answer all of it.
pub(crate) fn summaries<'a>(
    aggregation: &Aggregation,
    plan: &Plan,
    data_type: &'a DataType,
    decoder: Option<&'a CfDecoder>,
) -> Option<Vec<Summary<'a>>> {
    let is_plain =
        aggregation.conditions.is_empty() && plan.is_one_value(&aggregation.roles) && plan.is_set();
    let summary = |measure: &Measure| match measure {
        Measure::Plain(reduction) => Summary::new(*reduction, data_type, decoder),
        _ => None,
    };
    let summaries = aggregation.measures.iter().map(summary);
    is_plain.then(|| summaries.collect()).flatten()
}

/// Copies the results of a run of kept cells to their place in those of all, plane by plane.
fn copy_run(run: &[u8], all: &mut [u8], planes: usize, start: usize) {
    let (run_plane, all_plane) = (run.len() / planes, all.len() / planes);
    for plane in 0..planes {
        let from = &run[plane * run_plane..][..run_plane];
        all[plane * all_plane + start..][..run_plane].copy_from_slice(from);
    }
}
