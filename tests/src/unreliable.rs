//! An object store whose answers say little about what happened, as a network's do.
//!
//! Every fault follows from a seed. Time is the runtime's: under a paused clock a run takes no
//! longer than its computation, and the same seed interleaves the same requests.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;

/// Longest time a request takes.
const SLOWEST: Duration = Duration::from_millis(50);
/// Longest time after which a request that timed out still arrives.
const LATEST: Duration = Duration::from_secs(3);

/// What becomes of a put-if-absent, and what its sender hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// It is done, but the answer is lost.
    AnswerLost,
    /// It is not done: the server is unavailable.
    Unavailable,
    /// It is done, repeated inside the client library, and meets its own object.
    MeetsItself,
    /// It times out and arrives later.
    Late,
    /// It is turned down because another write of the object seems to be under way.
    TurnedDown,
    /// It is refused for good.
    Forbidden,
}

const RANDOM_FAULTS: [PutFault; 5] = [
    PutFault::AnswerLost,
    PutFault::Unavailable,
    PutFault::MeetsItself,
    PutFault::Late,
    PutFault::TurnedDown,
];

/// How often something goes wrong, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Of writes.
    pub put: f64,
    /// Of reads: they fail.
    pub get: f64,
}

/// A store over another one. Clones share their faults.
#[derive(Clone, Debug)]
pub struct Unreliable {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    death: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    rates: Rates,
    outage: Option<Outage>,
    is_cut_off: bool,
    /// How often a request may begin or end until the process dies; `None` for always.
    moments_left: Option<u64>,
}

/// Faults that are not random.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The keys that start with this are affected.
    pub prefix: &'static str,
    /// What becomes of every write.
    pub fault: PutFault,
    /// Whether reads fail once there was a write.
    pub cuts_off: bool,
    /// How many writes until it is over; `None` if it lasts until it is ended.
    pub writes: Option<u64>,
}

impl Unreliable {
    /// A store over `inner` with faults that follow from `seed`.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, rates: Rates) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            rates,
            outage: None,
            is_cut_off: false,
            moments_left: None,
        };
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
            death: Arc::default(),
        }
    }

    /// Lets the process that uses this store die once so many requests have begun or ended: what
    /// it had sent is done, and nothing is ever answered again.
    pub fn die_after(&self, moments: u64) {
        self.state().moments_left = Some(moments);
    }

    /// Waits until the process has died.
    pub async fn died(&self) {
        loop {
            let death = self.death.notified();
            if self.is_dead() {
                return;
            }
            death.await;
        }
    }

    /// Whether the process has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().moments_left == Some(0)
    }

    /// Begins or ends an outage; meanwhile there are no random faults.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.state().outage = outage;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_fault(&self, location: &Path) -> Option<PutFault> {
        let mut state = self.state();
        let Some(outage) = state.outage.clone() else {
            let rate = state.rates.put;
            let fault = RANDOM_FAULTS[state.rng.random_range(0..RANDOM_FAULTS.len())];
            return state.rng.random_bool(rate).then_some(fault);
        };
        if !location.as_ref().starts_with(outage.prefix) {
            return None;
        }
        state.is_cut_off = outage.cuts_off;
        if let Some(Outage {
            writes: Some(writes),
            ..
        }) = &mut state.outage
        {
            *writes -= 1;
        }
        if matches!(
            state.outage,
            Some(Outage {
                writes: Some(0),
                ..
            })
        ) {
            state.outage = None;
        }
        Some(outage.fault)
    }

    fn read_fails(&self, location: &Path) -> bool {
        let mut state = self.state();
        match &state.outage {
            Some(outage) => state.is_cut_off && location.as_ref().starts_with(outage.prefix),
            None => {
                let rate = state.rates.get;
                state.rng.random_bool(rate)
            }
        }
    }

    fn random_time(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.state().rng.random())
    }

    async fn travel(&self) {
        let time = self.random_time(SLOWEST);
        tokio::time::sleep(time).await;
        if let Some(left) = &mut self.state().moments_left {
            *left = left.saturating_sub(1);
        }
        if self.is_dead() {
            self.death.notify_waiters();
            futures::future::pending::<()>().await;
        }
    }
}

fn failure(what: &'static str) -> Error {
    Error::Generic {
        store: "unreliable",
        source: what.into(),
    }
}

fn exists(location: &Path) -> Error {
    Error::AlreadyExists {
        path: location.to_string(),
        source: "by the fault".into(),
    }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unreliable {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.travel().await;
        let fault = match options.mode {
            PutMode::Create => self.put_fault(location),
            _ => None,
        };
        match fault {
            Some(PutFault::Unavailable) => return Err(failure("503 slow down")),
            Some(PutFault::TurnedDown) => return Err(exists(location)),
            Some(PutFault::Forbidden) => {
                return Err(Error::PermissionDenied {
                    path: location.to_string(),
                    source: "by the fault".into(),
                });
            }
            Some(PutFault::Late) => {
                let (inner, location) = (self.inner.clone(), location.clone());
                let delay = self.random_time(LATEST);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    inner.put_opts(&location, payload, options).await
                });
                return Err(failure("timed out"));
            }
            None | Some(PutFault::AnswerLost | PutFault::MeetsItself) => {}
        }
        let done = self.inner.put_opts(location, payload, options).await;
        self.travel().await;
        match fault {
            Some(PutFault::AnswerLost) => Err(failure("connection reset")),
            Some(PutFault::MeetsItself) => Err(exists(location)),
            _ => done,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.travel().await;
        if self.read_fails(location) {
            return Err(failure("connection reset"));
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.travel().await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
