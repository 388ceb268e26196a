//! What the process is doing and has done: requests, traces, logs, how far it is from its end.
//!
//! Counts are kept where the work is done: `storage` has those of the object store and of commits,
//! `query` those of caches, threads and memory, this module those of requests. Nothing is global but
//! the subscriber of `tracing`, which a program has once.

pub mod exposition;
pub mod logs;
pub mod otlp;
pub mod process;
pub mod requests;
pub mod trace;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use requests::Requests;

/// How far a server is from its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    #[default]
    Serving,
    /// It serves, but says that it is not ready, so that balancers send requests elsewhere.
    Draining,
    /// It ends what it has begun and takes nothing new.
    Stopping,
}

/// What a process tells about itself.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    started_at: DateTime<Utc>,
    requests: Requests,
    phase: watch::Sender<Phase>,
    slow: OnceLock<Duration>,
    connections: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    jobs_ended: std::sync::Mutex<std::collections::BTreeMap<(&'static str, &'static str), u64>>,
}

/// Why a request or a connection was refused or cut before it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many connections.
    Connections,
    /// Too many requests at once.
    Requests,
    /// Its head did not come in time.
    HeaderTimeout,
    /// Its body came too slowly.
    SlowBody,
    /// Its answer was taken too slowly.
    SlowReader,
    /// Its head is too large.
    Headers,
    /// Its URL is too long.
    Url,
    /// It took too long.
    Deadline,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Requests,
        Self::HeaderTimeout,
        Self::SlowBody,
        Self::SlowReader,
        Self::Headers,
        Self::Url,
        Self::Deadline,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::HeaderTimeout => "header-timeout",
            Self::SlowBody => "slow-body",
            Self::SlowReader => "slow-reader",
            Self::Headers => "headers",
            Self::Url => "url",
            Self::Deadline => "deadline",
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_at: Utc::now(),
            requests: Requests::default(),
            phase: watch::Sender::default(),
            slow: OnceLock::new(),
            connections: AtomicU64::default(),
            refused: Default::default(),
            jobs_ended: std::sync::Mutex::default(),
        }
    }
}

impl Telemetry {
    /// How long the process has been there.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Since when the process has been there.
    pub fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }

    /// The requests.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// How far the server is from its end.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Comes nearer to the end; never goes back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = *now < phase;
            *now = phase.max(*now);
            is_later
        });
    }

    /// Waits until the server is that near to its end.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut phases = self.phase.subscribe();
        async move {
            if phases.wait_for(|now| *now >= phase).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sets from when on a request is slow. The first call counts.
    pub fn set_slow(&self, slow: Duration) {
        let _ = self.slow.set(slow);
    }

    /// From when on a request is slow: it is logged with what it cost.
    pub fn slow(&self) -> Option<Duration> {
        self.slow.get().copied()
    }

    /// A connection was made.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed.
    pub fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections there are.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Something was refused or cut.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often.
    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    /// A job ended here.
    pub fn job_ended(&self, kind: &'static str, state: &'static str) {
        let mut ended = self.ended();
        *ended.entry((kind, state)).or_default() += 1;
    }

    /// Jobs that ended here, by kind and how.
    pub fn jobs_ended(&self) -> Vec<(&'static str, &'static str, u64)> {
        let ended = self.ended();
        ended
            .iter()
            .map(|((k, s), count)| (*k, *s, *count))
            .collect()
    }

    fn ended(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<(&'static str, &'static str), u64>>
    {
        self.jobs_ended
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_only_comes_nearer() {
        let telemetry = Telemetry::default();
        assert_eq!(telemetry.phase(), Phase::Serving);
        let stopping = telemetry.reached(Phase::Stopping);
        telemetry.enter(Phase::Stopping);
        telemetry.enter(Phase::Draining);
        assert_eq!(telemetry.phase(), Phase::Stopping);
        stopping.await;
        telemetry.reached(Phase::Draining).await;
    }
}
