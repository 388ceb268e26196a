//! What a request would cost, before it runs.

use std::collections::HashSet;
use std::time::Duration;

use array::ResolvedSelection;
use compute::cf::{CfDecoder, Decode};
use compute::predicate::Predicate;
use storage::{ChunkKind, ChunkRow};

use crate::devices::Decision;
use crate::engine::{Engine, numbers};
use crate::fetch::Outlook;
use crate::measure::Aggregation;
use crate::plan::{ChunkRead, Plan};
use crate::reduce::summaries;
use crate::summary::{covers, masks};
use crate::{ArrayReader, Error};

/// Requests to the store, and the bytes they ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// How many.
    pub count: u64,
    /// Bytes they read.
    pub bytes: u64,
}

/// Who makes a reduction.
#[derive(Clone, Debug, PartialEq)]
pub enum Computation {
    /// Statistics tell all of it.
    Statistics,
    /// The processor or devices.
    Decided(Decision),
}

/// The plan of a read or a reduction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// Stored chunks the selection touches, stored or not.
    pub chunks: u64,
    /// Those of them that are all fill value.
    pub absent_chunks: u64,
    /// Those that statistics answer, so that they are not read.
    pub chunks_in_statistics: u64,
    /// Inner chunks to decode, or to find decoded.
    pub inner_chunks: u64,
    /// Of these, found decoded in memory.
    pub cached_decoded: u64,
    /// Found encoded in memory.
    pub cached_encoded: u64,
    /// Found on disk.
    pub cached_on_disk: u64,
    /// Encoded bytes of the inner chunks to decode.
    pub needed_bytes: u64,
    /// Reads of chunks the store will see, now that pages and footers are known.
    pub requests: Requests,
    /// The same if nothing were known but the pages of the manifest.
    pub cold_requests: Requests,
    /// Bytes the inner chunks decode to.
    pub decoded_bytes: u64,
    /// Memory that is taken before the work starts, in bytes.
    pub memory_bytes: u64,
    /// Time the requests are taken to need.
    pub store_time: Duration,
    /// Who makes the reduction, if it is one.
    pub computation: Option<Computation>,
}

impl Engine {
    /// What reading a selection would cost, or aggregating it; `conditions` are on other arrays too.
    /// Reads pages and footers, no data.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub async fn explain(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        aggregation: Option<&Aggregation>,
        conditions: &[(ArrayReader, Predicate)],
    ) -> Result<Explanation, Error> {
        let plan = Plan::new(selection.clone(), array.metadata().shape(), &array.codec);
        let mut explanation = Explanation {
            memory_bytes: match aggregation {
                Some(aggregation) => self.aggregate_bytes(array, selection, aggregation)?,
                None => self.read_bytes(array, selection, decode)?,
            },
            chunks: plan.chunks(),
            ..Explanation::default()
        };
        if plan.inner_chunks() == 0 {
            explanation.computation = aggregation.map(|_| processor(NOTHING_READ));
            return Ok(explanation);
        }
        let all_conditions = conditions;
        let is_one_value = self.is_one_value(array, &plan, decode, aggregation)?;
        let raw_of_masked = decode == Decode::Raw && masks(array)?;
        let by_statistics = is_one_value && self.settings.uses_statistics && !raw_of_masked;
        let whole = plan.whole_chunks()?;
        let covered = match by_statistics && !whole.is_empty() {
            true => array.node.covered_statistics(&whole).await?,
            false => None,
        };
        let whole = covered.as_ref().map(|_| &whole);
        let in_statistics = whole.map_or(1, |whole| whole.shape().iter().product());
        explanation.chunks_in_statistics = whole.map_or(0, |_| in_statistics);
        let mut boundary = match whole {
            Some(whole) if covers(&plan, whole)? => Vec::new(),
            whole => self.boundary(array, &plan, whole).await?,
        };
        let read = boundary.len() as u64;
        explanation.absent_chunks = explanation.chunks - explanation.chunks_in_statistics - read;
        let conditions = match aggregation {
            Some(_) => conditions,
            // A slice is read whole, whatever its conditions are.
            None => &[],
        };
        let mut ruled_out = HashSet::new();
        for (row, _) in &boundary {
            if self
                .rules_out(conditions, decode, array, &row.index)
                .await?
            {
                ruled_out.insert(row.index.clone());
            }
        }
        explanation.chunks_in_statistics += ruled_out.len() as u64;
        boundary.retain(|(row, _)| !ruled_out.contains(&row.index));
        self.add_outlooks(&mut explanation, array, &plan, boundary)
            .await?;
        let own = array.node().path();
        for (other, _) in all_conditions
            .iter()
            .filter(|(other, _)| other.node().path() != own)
        {
            let plan = Plan::new(selection.clone(), other.metadata().shape(), &other.codec);
            let mut boundary = self.boundary(other, &plan, None).await?;
            if other.has_grid_of(array) {
                boundary.retain(|(row, _)| !ruled_out.contains(&row.index));
            }
            self.add_outlooks(&mut explanation, other, &plan, boundary)
                .await?;
        }
        explanation.decoded_bytes = explanation
            .inner_chunks
            .saturating_mul(array.decoded_bytes());
        explanation.computation = match aggregation {
            _ if is_one_value && explanation.chunks_in_statistics == explanation.chunks => {
                Some(Computation::Statistics)
            }
            Some(_) if explanation.inner_chunks == 0 => Some(processor(NOTHING_READ)),
            Some(_) if is_one_value => Some(processor(ONE_VALUE)),
            Some(aggregation) => {
                let decoder = decoder(array, decode)?;
                let decision = self.decide(array, &plan, aggregation, decoder.as_ref());
                Some(Computation::Decided(decision))
            }
            None => None,
        };
        let Requests { count, bytes } = explanation.requests;
        explanation.store_time = match count {
            0 => Duration::ZERO,
            count => self.costs().time(count, bytes),
        };
        Ok(explanation)
    }

    async fn add_outlooks(
        &self,
        explanation: &mut Explanation,
        array: &ArrayReader,
        plan: &Plan,
        boundary: Vec<(ChunkRow, ChunkRead)>,
    ) -> Result<(), Error> {
        let rows = || boundary.iter().map(|(row, _)| row);
        let mut shared = self.fetcher.shared_requests(rows());
        for (row, read) in &boundary {
            let row = row.clone();
            let needed = numbers(array, plan, read);
            let footer = match row.kind {
                ChunkKind::Shard => Some(self.fetcher.footer(array, &row).await?),
                ChunkKind::Plain => None,
            };
            let footer = footer.as_deref();
            let mut outlook = self.fetcher.outlook(array, &row, footer, &needed);
            let mut cold = self.fetcher.cold_outlook(array, &row, footer, &needed);
            shared.settle(&row, &mut outlook, &mut cold);
            explanation.add(&outlook, cold);
        }
        Ok(())
    }

    /// Whether it comes down to statistics: those that are stored, and others made on the way.
    fn is_one_value(
        &self,
        array: &ArrayReader,
        plan: &Plan,
        decode: Decode,
        aggregation: Option<&Aggregation>,
    ) -> Result<bool, Error> {
        let Some(aggregation) = aggregation else {
            return Ok(false);
        };
        let (data_type, decoder) = (&array.metadata().data_type, decoder(array, decode)?);
        Ok(summaries(aggregation, plan, data_type, decoder.as_ref()).is_some())
    }
}

/// Why the processor makes what no device is asked for.
const NOTHING_READ: &str = "no chunk is read";
const ONE_VALUE: &str = "one value is made of statistics, and these of the chunks without";

fn processor(reason: &str) -> Computation {
    Computation::Decided(Decision {
        is_on_device: false,
        reason: reason.to_owned(),
        estimate: None,
    })
}

fn decoder(array: &ArrayReader, decode: Decode) -> Result<Option<CfDecoder>, Error> {
    let metadata = array.metadata();
    Ok(CfDecoder::new(
        &metadata.data_type,
        &metadata.attributes,
        decode,
    )?)
}

impl Explanation {
    fn add(&mut self, outlook: &Outlook, (cold, cold_bytes): (u64, u64)) {
        self.inner_chunks += outlook.stored;
        self.cached_decoded += outlook.decoded;
        self.cached_encoded += outlook.in_memory;
        self.cached_on_disk += outlook.on_disk;
        self.needed_bytes += outlook.needed_bytes;
        self.requests.count += outlook.requests;
        self.requests.bytes += outlook.request_bytes;
        self.cold_requests.count += cold;
        self.cold_requests.bytes += cold_bytes;
    }
}
