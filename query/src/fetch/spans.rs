//! Chunks in files elsewhere, several of which are read with one request.
//!
//! ```text
//! rows in the order they are read ─► windows ─► by file, by offset ─► spans (Costs::merge)
//!                                                                       │
//!                       the first chunk of a span reads it, the others take their parts
//! ```
//!
//! A span is held from its first chunk to its last. Its chunks are near each other in the order in
//! which they are read, so what is held at a time is bounded, whatever the order in the file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use array::{ChunkIndex, Hash};
use bytes::Bytes;
use storage::{ChunkRow, Location};
use tokio::sync::Mutex;

use crate::costs::{Costs, MAX_REQUEST_BYTES};

/// Chunks are put together with those at most so many places after them …
const WINDOW_CHUNKS: usize = 64;
/// … that have at most so many bytes together.
const WINDOW_BYTES: u64 = MAX_REQUEST_BYTES;

/// Which chunks of a read share a request.
#[derive(Debug, Default)]
pub(crate) struct Spans(HashMap<ChunkIndex, Arc<Span>>);

/// A range of a file with several chunks.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) range: Range<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: Option<Bytes>,
    /// Chunks that have not taken their parts.
    left: usize,
}

/// Where a chunk is in a file elsewhere.
pub(super) struct Elsewhere<'a> {
    pub(super) url: &'a str,
    etag: &'a str,
    pub(super) range: Range<u64>,
}

impl<'a> Elsewhere<'a> {
    /// `None` for a chunk of the repository, and for one past the end of any file.
    pub(super) fn of(row: &'a ChunkRow) -> Option<Self> {
        match &row.location {
            Location::External { url, offset, etag } => Some(Self {
                url,
                etag,
                range: *offset..offset.checked_add(row.length)?,
            }),
            Location::Stored | Location::Inline(_) => None,
        }
    }

    /// What requests to its file cost where those to the store cost `costs`.
    pub(super) fn costs(&self, costs: Costs) -> Costs {
        match (self.url.starts_with("file:"), costs.is_local) {
            (true, _) => Costs::LOCAL,
            (false, true) => Costs::REMOTE,
            (false, false) => costs,
        }
    }
}

impl Spans {
    /// Those of `rows`, in the order in which they are read; `is_new` tells which are not at hand.
    pub(crate) fn new<'a>(
        rows: impl Iterator<Item = &'a ChunkRow>,
        costs: Costs,
        is_new: impl Fn(&Hash) -> bool,
    ) -> Self {
        let mut spans = Self::default();
        let mut window: Vec<(&ChunkRow, Elsewhere<'_>)> = Vec::new();
        let mut bytes = 0;
        for row in rows {
            let Some(elsewhere) = Elsewhere::of(row) else {
                continue;
            };
            if !is_new(&row.id) {
                continue;
            }
            if window.len() >= WINDOW_CHUNKS || row.length > WINDOW_BYTES - bytes {
                spans.add(std::mem::take(&mut window), costs);
                bytes = 0;
            }
            bytes += row.length.min(WINDOW_BYTES - bytes);
            window.push((row, elsewhere));
        }
        spans.add(window, costs);
        spans
    }

    /// Puts the chunks of a window together, file by file.
    fn add(&mut self, mut window: Vec<(&ChunkRow, Elsewhere<'_>)>, costs: Costs) {
        let place = |of: &Elsewhere<'_>| (of.range.start, of.range.end);
        window.sort_by(|(_, a), (_, b)| {
            (a.url, a.etag)
                .cmp(&(b.url, b.etag))
                .then(place(a).cmp(&place(b)))
        });
        for file in window.chunk_by(|(_, a), (_, b)| (a.url, a.etag) == (b.url, b.etag)) {
            let costs = file[0].1.costs(costs);
            let longest = costs.longest_span();
            let ranges: Vec<Range<u64>> = file.iter().map(|(_, of)| of.range.clone()).collect();
            let mut rest = file;
            for count in costs.merge_up_to(&ranges, longest) {
                let (group, after) = rest.split_at(count);
                rest = after;
                self.join(group);
            }
        }
    }

    fn join(&mut self, group: &[(&ChunkRow, Elsewhere<'_>)]) {
        if group.len() < 2 {
            return;
        }
        let start = group.iter().map(|(_, of)| of.range.start).min();
        let end = group.iter().map(|(_, of)| of.range.end).max();
        let span = Arc::new(Span {
            range: start.unwrap_or(0)..end.unwrap_or(0),
            state: Mutex::new(State {
                bytes: None,
                left: group.len(),
            }),
        });
        for (row, _) in group {
            self.0.insert(row.index.clone(), span.clone());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The span that has a chunk of its read.
    pub(crate) fn of(&self, row: &ChunkRow) -> Option<&Arc<Span>> {
        let span = self.0.get(&row.index)?;
        let place = Elsewhere::of(row)?.range;
        let is_inside = span.range.start <= place.start && place.end <= span.range.end;
        is_inside.then_some(span)
    }
}

impl Span {
    /// The part `range` of the file, which is inside the span; `read` reads the whole span if nobody
    /// has. `None` if everybody who was to come has been here, so that it is not held any more.
    pub(super) async fn part<E>(
        &self,
        range: &Range<u64>,
        read: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Option<Bytes>, E> {
        let mut state = self.state.lock().await;
        if state.left == 0 {
            return Ok(None);
        }
        let bytes = match state.bytes.take() {
            Some(bytes) => bytes,
            None => read.await?,
        };
        let start = (range.start - self.range.start) as usize;
        let end = (range.end - self.range.start) as usize;
        // A slice would keep the whole span's memory alive in the cache.
        let part = Bytes::copy_from_slice(&bytes[start..end]);
        state.left -= 1;
        if state.left > 0 {
            state.bytes = Some(bytes);
        }
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use array::ChunkKind;
    use array::hash::{Kind, hash};

    use super::*;

    fn row(at: u64, url: &str, range: Range<u64>) -> ChunkRow {
        ChunkRow {
            index: ChunkIndex::new(vec![at]),
            kind: ChunkKind::Plain,
            id: hash(Kind::PlainChunk, &at.to_le_bytes()),
            length: range.end - range.start,
            location: Location::External {
                url: url.to_owned(),
                offset: range.start,
                etag: "e".to_owned(),
            },
        }
    }

    /// The ranges that are read for these rows.
    fn ranges(rows: &[ChunkRow], costs: Costs) -> Vec<(u64, u64)> {
        let spans = Spans::new(rows.iter(), costs, |_| true);
        let mut found: Vec<(u64, u64)> = rows
            .iter()
            .map(|row| match spans.of(row) {
                Some(span) => (span.range.start, span.range.end),
                None => Elsewhere::of(row).map_or((0, 0), |e| (e.range.start, e.range.end)),
            })
            .collect();
        found.dedup();
        found
    }

    #[test]
    fn neighbours_in_a_file_are_read_together() {
        let url = "https://host/a";
        let rows: Vec<ChunkRow> = (0..10)
            .map(|at| row(at, url, at * 100..at * 100 + 90))
            .collect();
        assert_eq!(ranges(&rows, Costs::REMOTE), [(0, 990)]);
        // In whatever order they lie there.
        let backwards: Vec<ChunkRow> = (0..10)
            .map(|at| row(at, url, (9 - at) * 100..(9 - at) * 100 + 100))
            .collect();
        assert_eq!(ranges(&backwards, Costs::REMOTE), [(0, 1000)]);
        // Gaps that cost more than a request are left out, files are told apart.
        let far = Costs::REMOTE.widest_gap() + 1;
        let apart = [
            row(0, url, 0..10),
            row(1, url, 10..20),
            row(2, url, 20 + far..30 + far),
            row(3, "https://host/b", 30 + far..40 + far),
        ];
        assert_eq!(
            ranges(&apart, Costs::REMOTE),
            [(0, 20), (20 + far, 30 + far), (30 + far, 40 + far)]
        );
        // One whose bytes are part of another's.
        let overlapping = [
            row(0, url, 0..100),
            row(1, url, 20..50),
            row(2, url, 90..120),
        ];
        assert_eq!(ranges(&overlapping, Costs::REMOTE), [(0, 120)]);
        let spans = Spans::new(rows.iter(), Costs::REMOTE, |_| false);
        assert!(spans.is_empty());
    }

    #[test]
    fn what_is_held_is_bounded() {
        let url = "https://host/a";
        // Every other chunk at the other end of the file.
        let rows: Vec<ChunkRow> = (0..1000u64)
            .map(|at| {
                let place = if at % 2 == 0 { at / 2 } else { 999 - at / 2 };
                row(at, url, place << 16..(place + 1) << 16)
            })
            .collect();
        let spans = Spans::new(rows.iter(), Costs::REMOTE, |_| true);
        let mut open: Vec<(*const Span, usize)> = Vec::new();
        let mut most = 0;
        for row in &rows {
            let Some(span) = spans.of(row) else { continue };
            match open
                .iter_mut()
                .find(|(known, _)| *known == Arc::as_ptr(span))
            {
                Some((_, left)) => *left -= 1,
                None => open.push((Arc::as_ptr(span), span.state.try_lock().unwrap().left - 1)),
            }
            open.retain(|(_, left)| *left > 0);
            most = most.max(open.len());
        }
        assert!(most <= 2, "{most}");
    }

    #[tokio::test]
    async fn a_span_is_read_once_and_given_back() {
        let rows = [
            row(0, "https://host/a", 10..20),
            row(1, "https://host/a", 20..30),
        ];
        let spans = Spans::new(rows.iter(), Costs::REMOTE, |_| true);
        let span = spans.of(&rows[0]).unwrap();
        let failing = async { Err::<Bytes, _>("no") };
        assert_eq!(span.part(&(10..20), failing).await, Err("no"));
        let bytes = Bytes::from_iter(10..30u8);
        let read = async { Ok::<_, &str>(bytes.clone()) };
        let first = span.part(&(10..20), read).await.unwrap().unwrap();
        assert_eq!(first, bytes.slice(0..10));
        let never = async { Err::<Bytes, _>("again") };
        let second = span.part(&(20..30), never).await.unwrap().unwrap();
        assert_eq!(second, bytes.slice(10..20));
        let never = async { Err::<Bytes, _>("again") };
        assert_eq!(span.part(&(20..30), never).await, Ok(None));
    }
}
