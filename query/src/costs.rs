//! What a request to the store costs, and which ranges are read with one.
//!
//! A request takes `latency + bytes / bandwidth`. Several are in flight at once, so one request less
//! saves a share of the latency, and bytes nobody needs cost their share of the bandwidth: ranges
//! are read together while the gap between them is cheaper than the request it saves.

use std::ops::Range;
use std::time::Duration;

/// What a request to the store costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// From asking to the first byte.
    pub latency: Duration,
    /// Bytes per second of one request once they come.
    pub bandwidth: u64,
    /// Whether it is a file of this machine: what was read once, the system has in memory.
    pub is_local: bool,
}

/// Requests of one read in flight at once.
pub(crate) const CONCURRENT_REQUESTS: usize = 8;
/// Longest range read at once, where inner chunks allow it: more come faster in several.
pub(crate) const MAX_REQUEST_BYTES: u64 = 16 << 20;
/// So much is read ahead of any store: one that answers quickly sends quickly, too.
const MIN_AHEAD_BYTES: u64 = 8 << 20;
/// Bytes per second that no request is hurried beyond.
const SLOW_BANDWIDTH: f64 = (2 << 20) as f64;
/// A whole object is read instead of its footer and then parts of it, if no more than so many times
/// the bytes are read that way; in quarters.
const WHOLE_OBJECT_QUARTERS: u128 = 5;

impl Costs {
    /// Of a disk of this machine.
    pub const LOCAL: Self = Self {
        latency: Duration::from_micros(100),
        bandwidth: 1 << 30,
        is_local: true,
    };
    /// Of a cloud store in the same region.
    pub const REMOTE: Self = Self {
        latency: Duration::from_millis(20),
        bandwidth: 96 << 20,
        is_local: false,
    };

    /// Bytes that come in the time one request takes to start.
    pub fn bytes_per_latency(&self) -> u64 {
        let bytes = self.latency.as_secs_f64() * self.bandwidth as f64;
        bytes as u64
    }

    /// The widest gap that is cheaper to read than to skip.
    pub(crate) fn widest_gap(&self) -> u64 {
        self.bytes_per_latency() / (CONCURRENT_REQUESTS as u64 / 2)
    }

    /// How long these requests take, `CONCURRENT_REQUESTS` at a time.
    pub fn time(&self, requests: u64, bytes: u64) -> Duration {
        let rounds = requests.div_ceil(CONCURRENT_REQUESTS as u64);
        let concurrent = requests.clamp(1, CONCURRENT_REQUESTS as u64);
        let transfer = bytes as f64 / (self.bandwidth as f64 * concurrent as f64);
        self.latency.mul_f64(rounds as f64) + Duration::from_secs_f64(transfer)
    }

    /// Whether an object of `length` bytes, of which `needed` of `parts` parts are to be read and
    /// whose footer is not known, is read whole at once: if that is hardly more than what is needed.
    pub(crate) fn reads_whole(&self, length: u64, needed: u64, parts: u64) -> bool {
        // Where the parts lie is not known: they are taken to be alike.
        let expected = u128::from(length) * u128::from(needed) / u128::from(parts.max(1));
        length <= MAX_REQUEST_BYTES && 4 * u128::from(length) <= WHOLE_OBJECT_QUARTERS * expected
    }

    /// Ranges to read for `parts`, which ascend: for each, how many of the parts it holds.
    pub(crate) fn merge(&self, parts: &[Range<u64>]) -> Vec<usize> {
        self.merge_up_to(parts, MAX_REQUEST_BYTES)
    }

    /// The same with ranges of at most `longest` bytes, but for a part that is longer by itself.
    pub(crate) fn merge_up_to(&self, parts: &[Range<u64>], longest: u64) -> Vec<usize> {
        let mut merged: Vec<usize> = Vec::new();
        let (mut start, mut end) = (0, 0);
        for part in parts {
            let joins = part.start - end.min(part.start) <= self.widest_gap()
                && part.end - start <= longest;
            match merged.last_mut() {
                Some(count) if joins => *count += 1,
                _ => {
                    merged.push(1);
                    start = part.start;
                }
            }
            end = match merged.last() {
                Some(1) => part.end,
                _ => end.max(part.end),
            };
        }
        merged
    }

    /// Longest range with several chunks that are decoded on their own: one that comes while a few
    /// requests start is worth it, more would keep threads waiting that could decode.
    pub(crate) fn longest_span(&self) -> u64 {
        (4 * self.bytes_per_latency()).min(MAX_REQUEST_BYTES)
    }

    /// Most bytes that are read in the hope that they will be wanted: about those that come while a
    /// few requests start. None of files of this machine.
    pub(crate) fn longest_ahead(&self) -> u64 {
        match self.is_local {
            true => 0,
            false => (4 * self.bytes_per_latency()).clamp(MIN_AHEAD_BYTES, MAX_REQUEST_BYTES),
        }
    }

    /// How long to wait for a request of `bytes` before another is sent beside it; `None` where
    /// that does not help.
    pub(crate) fn patience(&self, bytes: u64) -> Option<Duration> {
        let is_slow = self.latency >= Duration::from_millis(1);
        let expected = self.time(1, bytes);
        // A line may be slower than it is taken to be: that is no reason to send everything twice.
        let on_a_slow_line = Duration::from_secs_f64(1.0 + bytes as f64 / SLOW_BANDWIDTH);
        is_slow.then(|| (expected * 4).max(on_a_slow_line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_together_while_the_gap_is_cheaper_than_a_request() {
        let costs = Costs {
            latency: Duration::from_millis(10),
            bandwidth: 4 << 20,
            ..Costs::REMOTE
        };
        let gap = costs.widest_gap();
        assert_eq!(gap, (4 << 20) / 100 / 4);
        let parts = [
            0..10,
            10..20,
            20 + gap..30 + gap,
            31 + 2 * gap..40 + 2 * gap,
        ];
        assert_eq!(costs.merge(&parts), [3, 1]);
        assert_eq!(costs.merge(&[]), [0; 0]);
        // A request is no longer than the longest, but for a part that is longer by itself.
        let long = MAX_REQUEST_BYTES;
        assert_eq!(
            costs.merge(&[0..long - 1, long - 1..long + 1, long + 1..3 * long]),
            [1, 1, 1]
        );
    }

    #[test]
    fn a_slow_store_reads_more_at_once_than_a_fast_one() {
        let far = Costs {
            latency: Duration::from_millis(50),
            ..Costs::REMOTE
        };
        assert!(far.widest_gap() > 2 * Costs::REMOTE.widest_gap());
        assert!(Costs::REMOTE.widest_gap() > Costs::LOCAL.widest_gap());
        assert!(!far.reads_whole(1 << 20, 1, 100));
        assert!(far.reads_whole(1 << 20, 85, 100));
        assert!(!far.reads_whole(1 << 30, 100, 100));
    }
}
