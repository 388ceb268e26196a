//! The one pool of threads that decodes and computes, awaited from async code.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::Error;

/// Threads for CPU work. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<rayon::ThreadPool>);

impl Pool {
    /// A pool of `threads`; 0 for one per core.
    pub(crate) fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder
            .thread_name(|number| format!("quarr-cpu-{number}"))
            .build()?;
        Ok(Self(Arc::new(pool)))
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// Runs `work` on the pool. Work whose caller is gone by its turn is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || {
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        });
        receiver.await.map_err(|_| Error::Cancelled)?
    }
}
