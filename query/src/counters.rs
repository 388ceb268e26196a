//! What the engine has done since it was made.

use std::sync::atomic::{AtomicU64, Ordering};

use storage::observation::{Observation, note};

/// What can be found in a cache, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Footers of shards, in memory.
    Footer,
    /// Encoded inner chunks, in memory.
    Encoded,
    /// Decoded inner chunks, in memory.
    Decoded,
    /// Footers and encoded inner chunks, on disk.
    Disk,
}

impl Tier {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Footer, Self::Encoded, Self::Decoded, Self::Disk];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Footer => "footer",
            Self::Encoded => "encoded",
            Self::Decoded => "decoded",
            Self::Disk => "disk",
        }
    }
}

/// Counts, each of which only grows.
#[derive(Debug, Default)]
pub struct Counters {
    hits: [AtomicU64; 4],
    misses: [AtomicU64; 4],
    requests: AtomicU64,
    request_bytes: AtomicU64,
    hedges: AtomicU64,
}

fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl Counters {
    pub(crate) fn hit(&self, tier: Tier) {
        add(&self.hits[tier as usize], 1);
        note(Observation::hit);
    }

    pub(crate) fn miss(&self, tier: Tier) {
        add(&self.misses[tier as usize], 1);
        note(Observation::miss);
    }

    pub(crate) fn request(&self, bytes: u64) {
        add(&self.requests, 1);
        add(&self.request_bytes, bytes);
    }

    pub(crate) fn hedge(&self) {
        add(&self.hedges, 1);
    }

    /// Lookups that found something.
    pub fn hits(&self, tier: Tier) -> u64 {
        get(&self.hits[tier as usize])
    }

    /// Lookups that did not.
    pub fn misses(&self, tier: Tier) -> u64 {
        get(&self.misses[tier as usize])
    }

    /// Reads of chunks that went to the store, and the bytes they asked for.
    pub fn requests(&self) -> (u64, u64) {
        (get(&self.requests), get(&self.request_bytes))
    }

    /// Requests that were sent again because the store was slow.
    pub fn hedges(&self) -> u64 {
        get(&self.hedges)
    }
}
