//! The one pool of threads that decodes and computes, awaited from async code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use storage::TRACE;
use storage::observation;
use tokio::sync::oneshot;
use tracing::{Span, debug_span};

use crate::Error;

/// Threads for CPU work. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    threads: Arc<rayon::ThreadPool>,
    load: Arc<Load>,
}

/// What a pool has to do now.
#[derive(Debug, Default)]
struct Load {
    queued: AtomicU64,
    busy: AtomicU64,
}

/// One more of something, for as long as it is there.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool of `threads`; 0 for one per core.
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder
            .thread_name(|number| format!("quarr-cpu-{number}"))
            .build()?;
        Ok(Self {
            threads: Arc::new(pool),
            load: Arc::default(),
        })
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Work that waits for a thread, and threads that are at work.
    pub(crate) fn load(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.load.queued), count(&self.load.busy))
    }

    /// Runs `work` on the pool, as part of the request and the span of whoever asks. Work whose
    /// caller is gone by its turn is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let (load, span) = (self.load.clone(), Span::current());
        let (observation, asked) = (observation::current(), Instant::now());
        load.queued.fetch_add(1, Ordering::Relaxed);
        self.threads.spawn(move || {
            load.queued.fetch_sub(1, Ordering::Relaxed);
            if sender.is_closed() {
                return;
            }
            let busy = Counted::new(&load.busy);
            let started = Instant::now();
            let span = debug_span!(target: TRACE, parent: &span, "compute");
            let result = span.in_scope(work);
            if let Some(observation) = observation {
                observation.pool(started - asked, started.elapsed());
            }
            drop((span, busy));
            // Whoever is told finds all of it noted.
            let _ = sender.send(result);
        });
        receiver.await.map_err(|_| Error::Cancelled)?
    }
}

#[cfg(test)]
mod tests {
    use storage::observation::{Observation, observed};

    use super::*;

    #[tokio::test]
    async fn work_is_counted_while_it_runs_and_noted_for_its_request() {
        let pool = Pool::new(1).unwrap();
        let observation = Arc::<Observation>::default();
        let seen = pool.clone();
        let work = pool.run(move || Ok(seen.load()));
        let seen = observed(observation.clone(), work).await.unwrap();
        assert_eq!(seen, (0, 1));
        assert_eq!(pool.load(), (0, 0));
        assert!(!observation.observed().pool.is_zero());
    }
}
