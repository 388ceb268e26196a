//! What the benchmarks share.

use std::time::{Duration, Instant};

/// The shortest and the middle one of several runs of the same work.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The shortest.
    pub best: Duration,
    /// The middle one.
    pub median: Duration,
}

impl Timing {
    /// Of at least one measured run.
    #[must_use]
    pub fn of(mut runs: Vec<Duration>) -> Self {
        runs.sort();
        let median = runs.get(runs.len() / 2).copied().unwrap_or_default();
        Self {
            best: runs.first().copied().unwrap_or_default(),
            median,
        }
    }

    /// How many MB/s the middle run did.
    #[must_use]
    pub fn megabytes_per_second(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e6 / self.median.as_secs_f64()
    }
}

/// Runs `work` so many times, each time on what `prepare` makes anew.
///
/// # Errors
/// The first error of either.
pub async fn measure<T, E>(
    runs: usize,
    prepare: impl AsyncFn() -> Result<T, E>,
    work: impl AsyncFn(T) -> Result<(), E>,
) -> Result<Timing, E> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let input = prepare().await?;
        let start = Instant::now();
        work(input).await?;
        times.push(start.elapsed());
    }
    Ok(Timing::of(times))
}
