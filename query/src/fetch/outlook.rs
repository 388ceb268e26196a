//! What is at hand, and what reading the rest would cost.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use storage::ChunkRow;

use super::{ArrayReader, Fetcher, Footer, Spans, Wanted, is_inline, stored};
use crate::disk::Kind;

/// What is at hand of the inner chunks a plan needs of one stored chunk, and what it takes to read
/// the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(crate) decoded: u64,
    pub(crate) in_memory: u64,
    pub(crate) on_disk: u64,
    pub(crate) requests: u64,
    pub(crate) request_bytes: u64,
    /// Encoded bytes of all that are needed.
    pub(crate) needed_bytes: u64,
    /// Inner chunks that are stored.
    pub(crate) stored: u64,
}

/// Requests that several chunks in files elsewhere share, each counted once.
pub(crate) struct SharedRequests {
    now: Spans,
    cold: Spans,
    /// The spans that were counted, by where they are in memory.
    counted: HashSet<usize>,
}

impl SharedRequests {
    /// Corrects what one chunk was taken to cost by itself.
    pub(crate) fn settle(
        &mut self,
        row: &ChunkRow,
        outlook: &mut Outlook,
        (cold, cold_bytes): &mut (u64, u64),
    ) {
        if outlook.requests > 0
            && let Some((count, bytes)) = once(&self.now, row, &mut self.counted)
        {
            (outlook.requests, outlook.request_bytes) = (count, bytes);
        }
        if let Some((count, bytes)) = once(&self.cold, row, &mut self.counted) {
            (*cold, *cold_bytes) = (count, bytes);
        }
    }
}

/// What a span costs the first time, nothing after that; `None` for a chunk that shares none.
fn once(spans: &Spans, row: &ChunkRow, counted: &mut HashSet<usize>) -> Option<(u64, u64)> {
    let span = spans.of(row)?;
    Some(match counted.insert(Arc::as_ptr(span).addr()) {
        true => (1, span.range.end - span.range.start),
        false => (0, 0),
    })
}

impl Fetcher {
    /// The requests that these chunks, in the order in which they are read, share.
    pub(crate) fn shared_requests<'a>(
        &self,
        rows: impl Iterator<Item = &'a ChunkRow> + Clone,
    ) -> SharedRequests {
        SharedRequests {
            now: Spans::new(rows.clone(), self.costs, |hash| self.is_new(hash)),
            cold: Spans::new(rows, self.costs, |_| true),
            counted: HashSet::new(),
        }
    }

    /// What [`Fetcher::locate`] would find and what reading the rest would cost, given the footer.
    pub(crate) fn outlook(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        footer: Option<&Footer>,
        needed: &[usize],
    ) -> Outlook {
        let wanted = match footer {
            Some(footer) => stored(footer, needed),
            None => self.plain_wanted(row, needed),
        };
        let mut outlook = Outlook {
            stored: wanted.len() as u64,
            needed_bytes: wanted.iter().map(Wanted::length).sum(),
            ..Outlook::default()
        };
        let document = array.node.document_hash();
        let mut missing = Vec::new();
        for wanted in wanted {
            if self.decoded.contains_key(&(wanted.hash, document)) {
                outlook.decoded += 1;
            } else if self.chunks.contains_key(&wanted.hash) {
                outlook.in_memory += 1;
            } else if self.is_on_disk(Kind::Chunk, wanted.hash) {
                outlook.on_disk += 1;
            } else {
                missing.push(wanted.range);
            }
        }
        let (requests, bytes) = self.requests(row, missing);
        (outlook.requests, outlook.request_bytes) = (requests, bytes);
        outlook
    }

    /// The same with nothing cached but the manifest's pages.
    pub(crate) fn cold_outlook(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        footer: Option<&Footer>,
        needed: &[usize],
    ) -> (u64, u64) {
        let Some(footer) = footer else {
            let plain = self.plain_wanted(row, needed).into_iter();
            return self.requests(row, plain.map(|wanted| wanted.range).collect());
        };
        if is_inline(row) {
            return (0, 0);
        }
        if self.reads_whole(array, row, needed) {
            return (1, row.length);
        }
        let wanted = stored(footer, needed).into_iter();
        let (requests, bytes) = self.requests(row, wanted.map(|wanted| wanted.range).collect());
        (requests + 1, bytes + footer.bytes.len() as u64)
    }

    fn requests(&self, row: &ChunkRow, mut missing: Vec<Range<u64>>) -> (u64, u64) {
        if is_inline(row) {
            return (0, 0);
        }
        missing.sort_unstable_by_key(|range| range.start);
        let mut ranges = missing.into_iter();
        let (mut requests, mut bytes) = (0, 0);
        let parts: Vec<Range<u64>> = ranges.as_slice().to_vec();
        for count in self.costs.merge(&parts) {
            let group: Vec<Range<u64>> = ranges.by_ref().take(count).collect();
            requests += 1;
            bytes += group.last().map_or(0, |r| r.end) - group.first().map_or(0, |r| r.start);
        }
        (requests, bytes)
    }
}
