//! What is at hand, and what reading the rest would cost.

use std::ops::Range;

use storage::ChunkRow;

use super::{ArrayReader, Fetcher, Footer, Wanted, is_inline, stored};
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

impl Fetcher {
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
