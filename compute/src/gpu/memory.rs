//! How much memory of a device is taken, and where things lie in it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Failure;

/// Addresses of what kernels read in vectors start at multiples of this.
pub(super) const ALIGNMENT: usize = 256;

/// The share of a device's memory that may be used. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

/// Memory that was reserved; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    allowance: Allowance,
    bytes: u64,
}

impl Allowance {
    pub(super) fn new(limit: u64) -> Self {
        Self(Arc::new(Counts {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }))
    }

    /// Reserves so many bytes.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`] if others have them.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held, Failure> {
        let bytes = bytes as u64;
        let counts = &self.0;
        let more = |used: u64| used.checked_add(bytes).filter(|&used| used <= counts.limit);
        let before = counts
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .map_err(|_| Failure::OutOfMemory)?;
        counts.peak.fetch_max(before + bytes, Ordering::AcqRel);
        Ok(Held {
            allowance: self.clone(),
            bytes,
        })
    }

    pub(super) fn limit(&self) -> u64 {
        self.0.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    pub(super) fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Acquire)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.allowance
            .0
            .used
            .fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A place in a piece of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) bytes: usize,
}

impl Span {
    /// A part of it, which ends inside it.
    pub(super) fn part(&self, range: &Range<usize>) -> Self {
        Self {
            start: self.start + range.start,
            bytes: range.len(),
        }
    }
}

/// Places one after the other in memory that is taken once all are known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    end: usize,
}

impl Places {
    /// The next place; `None` if all would be more than 2^62 bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Span> {
        let start = self.end;
        self.end = start
            .checked_add(bytes)?
            .checked_next_multiple_of(ALIGNMENT)
            .filter(|&end| end < 1 << 62)?;
        Some(Span { start, bytes })
    }

    /// All of them together, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_up_to_the_limit_and_given_back() {
        let allowance = Allowance::new(1000);
        let first = allowance.hold(600).unwrap();
        assert_eq!(allowance.hold(401).unwrap_err(), Failure::OutOfMemory);
        let second = allowance.hold(400).unwrap();
        assert_eq!((allowance.used(), allowance.peak()), (1000, 1000));
        drop((first, second));
        assert_eq!((allowance.used(), allowance.peak()), (0, 1000));
        assert!(allowance.hold(usize::MAX).is_err());
    }

    #[test]
    fn places_are_aligned_and_do_not_meet() {
        let mut places = Places::default();
        let (a, b) = (places.take(1).unwrap(), places.take(300).unwrap());
        assert_eq!((a.start, b.start, places.bytes()), (0, 256, 768));
        assert!(places.take(usize::MAX).is_none());
    }
}
