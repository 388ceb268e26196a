//! What a store was asked since it was opened, how it answered, and what was committed to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long things took: counts by upper bounds, as Prometheus has them.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; Self::BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Upper bounds in seconds: from a read of a local disk to a long reduction.
    pub const BOUNDS: [f64; 16] = [
        0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0,
    ];

    /// Notes one.
    pub fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many took no longer than each bound; the last is all of them.
    pub fn up_to_bounds(&self) -> [u64; Self::BOUNDS.len() + 1] {
        let mut total = 0;
        self.counts.each_ref().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        let counts = self.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Time of all of them together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// What a store can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A whole object.
    Get,
    /// Part of an object.
    GetRange,
    /// Whether an object is there, and how large it is.
    Head,
    /// Write an object, whatever is there.
    Put,
    /// Write an object where there is none.
    PutIfAbsent,
    /// Begin or end an object written in parts, or write a part.
    PutPart,
    /// What objects there are; one for each listing, however many pages it takes.
    List,
    /// Delete an object.
    Delete,
    /// Copy an object.
    Copy,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::GetRange,
        Self::Head,
        Self::Put,
        Self::PutIfAbsent,
        Self::PutPart,
        Self::List,
        Self::Delete,
        Self::Copy,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::Head => "head",
            Self::Put => "put",
            Self::PutIfAbsent => "put_if_absent",
            Self::PutPart => "put_part",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
        }
    }
}

/// One operation.
#[derive(Debug, Default)]
pub struct OperationMetrics {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    latency: Histogram,
}

impl OperationMetrics {
    /// How often it was asked for.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How often the store failed. That an object is not there, or is there already, is an answer.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Bytes of objects read or written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How long it took.
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }
}

/// Counts of one store since it was opened, by this process.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    operations: [OperationMetrics; Operation::ALL.len()],
    commits: AtomicU64,
    retries: AtomicU64,
    conflicts: AtomicU64,
}

impl StoreMetrics {
    /// One operation.
    pub fn operation(&self, operation: Operation) -> &OperationMetrics {
        &self.operations[operation as usize]
    }

    pub(crate) fn begun(&self, operation: Operation) {
        let of = self.operation(operation);
        of.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, operation: Operation, bytes: u64, time: Duration, failed: bool) {
        let of = self.operation(operation);
        of.bytes.fetch_add(bytes, Ordering::Relaxed);
        of.latency.add(time);
        if failed {
            of.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn conflicted(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// Commits that went through.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Log entries that were made again because another writer was faster.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Commits refused because of what others had committed.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_a_bound_is_not_above_it() {
        let histogram = Histogram::default();
        for millis in [1, 2, 60_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let counts = histogram.up_to_bounds();
        assert_eq!(counts[1..4], [0, 1, 2]);
        assert_eq!(counts[Histogram::BOUNDS.len() - 1..], [2, 3]);
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.total(), Duration::from_millis(60_003));
    }
}
