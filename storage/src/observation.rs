//! What one request costs: noted by whoever does a part of its work, wherever that runs.
//!
//! ```text
//! request ─ observed(…) ─► tasks and threads it hands work to ─ carried(…) ─► noted where it is done
//! ```
//!
//! Work that several requests share is noted for the one that does it. Times of parts that run at
//! the same time are added up, so they may be more than the time the request took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counts of one request. Times are in nanoseconds.
#[derive(Debug, Default)]
pub struct Observation {
    store_requests: AtomicU64,
    store_bytes: AtomicU64,
    store_nanos: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    chunks: AtomicU64,
    pool_nanos: AtomicU64,
    pool_wait_nanos: AtomicU64,
    plan_nanos: AtomicU64,
    encode_nanos: AtomicU64,
    is_read: AtomicBool,
}

/// What an [`Observation`] has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Requests to the object store.
    pub store_requests: u64,
    /// Bytes these gave.
    pub store_bytes: u64,
    /// Time they took, added up.
    pub store: Duration,
    /// Lookups in the caches of chunks that found something.
    pub cache_hits: u64,
    /// Lookups that did not.
    pub cache_misses: u64,
    /// Inner chunks that were looked for.
    pub chunks: u64,
    /// Time on the threads that decode and compute, added up.
    pub pool: Duration,
    /// Time work waited for these threads, added up.
    pub pool_wait: Duration,
    /// Time until it was known what to read.
    pub plan: Duration,
    /// Time to write the answer in its format.
    pub encode: Duration,
    /// Whether the request reads values.
    pub is_read: bool,
}

tokio::task_local! {
    static CURRENT: Arc<Observation>;
}

fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

fn add_time(count: &AtomicU64, time: Duration) {
    add(count, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

impl Observation {
    /// A request to the store ended.
    pub fn store(&self, bytes: u64, time: Duration) {
        add(&self.store_requests, 1);
        add(&self.store_bytes, bytes);
        add_time(&self.store_nanos, time);
    }

    /// Something was found in a cache.
    pub fn hit(&self) {
        add(&self.cache_hits, 1);
    }

    /// Something was not found in a cache.
    pub fn miss(&self) {
        add(&self.cache_misses, 1);
    }

    /// So many inner chunks are looked for.
    pub fn chunks(&self, count: u64) {
        add(&self.chunks, count);
    }

    /// Work ran on the threads that decode and compute, after it waited for them.
    pub fn pool(&self, waited: Duration, ran: Duration) {
        add_time(&self.pool_wait_nanos, waited);
        add_time(&self.pool_nanos, ran);
    }

    /// It is known what to read, after so long.
    pub fn planned(&self, time: Duration) {
        self.is_read.store(true, Ordering::Relaxed);
        add_time(&self.plan_nanos, time);
    }

    /// The answer was written.
    pub fn encoded(&self, time: Duration) {
        add_time(&self.encode_nanos, time);
    }

    /// What it has come to by now.
    pub fn observed(&self) -> Observed {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let time = |nanos: &AtomicU64| Duration::from_nanos(count(nanos));
        Observed {
            store_requests: count(&self.store_requests),
            store_bytes: count(&self.store_bytes),
            store: time(&self.store_nanos),
            cache_hits: count(&self.cache_hits),
            cache_misses: count(&self.cache_misses),
            chunks: count(&self.chunks),
            pool: time(&self.pool_nanos),
            pool_wait: time(&self.pool_wait_nanos),
            plan: time(&self.plan_nanos),
            encode: time(&self.encode_nanos),
            is_read: self.is_read.load(Ordering::Relaxed),
        }
    }
}

/// `future`, whose work is noted in `observation`.
pub fn observed<F: Future>(
    observation: Arc<Observation>,
    future: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(observation, future)
}

/// Does `work` at once, noted in `observation`.
pub fn observed_now<T>(observation: Arc<Observation>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(observation, work)
}

/// The observation of the request whose work this is, if it is one's.
pub fn current() -> Option<Arc<Observation>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Notes something for the request whose work this is, if it is one's.
pub fn note(what: impl FnOnce(&Observation)) {
    let _ = CURRENT.try_with(|observation| what(observation));
}

/// `future` as a task of its own, which goes on being noted for the same request.
pub async fn carried<F: Future>(observation: Option<Arc<Observation>>, future: F) -> F::Output {
    match observation {
        Some(observation) => CURRENT.scope(observation, future).await,
        None => future.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_noted_for_its_own_request() {
        let (one, other) = (Arc::<Observation>::default(), Arc::<Observation>::default());
        let work = async {
            note(Observation::hit);
            let task = carried(current(), async { note(|o| o.chunks(3)) });
            tokio::spawn(task).await.unwrap();
        };
        observed(one.clone(), work).await;
        observed(other.clone(), async { note(Observation::miss) }).await;
        note(Observation::miss);
        let (one, other) = (one.observed(), other.observed());
        assert_eq!((one.cache_hits, one.cache_misses, one.chunks), (1, 0, 3));
        assert_eq!((other.cache_hits, other.cache_misses), (0, 1));
    }
}
