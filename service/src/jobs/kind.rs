//! What kinds of jobs owe the engine, and what it gives them.

use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::records::Record;
use super::{JobReport, Origin, ProgressInfo, engine};
use crate::error::Failure;
use crate::state::State;

/// A kind of job.
///
/// What it did and not noted may be done again, by another process, and for a moment two processes
/// may be at it: both must come to the same end.
pub(crate) trait Kind: Send + Sync {
    /// Checks what can be checked before there is a job.
    fn check<'a>(&'a self, state: &'a State, origin: Origin) -> BoxFuture<'a, Result<(), Failure>>;

    /// Works on the job to its end. It goes on from what was noted last. If the job is cancelled it
    /// is dropped, at any await.
    fn run<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<JobReport, Failure>>;

    /// Undoes what was noted of a job that was cancelled or failed; whether that came in time. One
    /// that did not has come to its end already.
    fn give_up<'a>(
        &'a self,
        _state: &'a State,
        _noted: &'a Value,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// The uploads only this job reads: they are deleted when it ends, whatever became of it.
    fn uploads(&self) -> Vec<Uuid> {
        Vec::new()
    }
}

/// A job being worked on.
pub(crate) struct Work {
    pub(super) state: State,
    pub(super) record: watch::Sender<Record>,
    pub(super) rate: Mutex<engine::Rate>,
    /// Held while the record is stored: what an earlier save has must not come to lie over a later one.
    pub(super) saving: tokio::sync::Mutex<()>,
}

impl Work {
    /// The service.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The job's id.
    pub(crate) fn id(&self) -> Uuid {
        self.record.borrow().job.id
    }

    /// Whose rights it has.
    pub(crate) fn origin(&self) -> Origin {
        self.record.borrow().job.begun_by
    }

    /// What was noted last, by this process or another; `None` if nothing was, or nothing that makes
    /// sense.
    pub(crate) fn noted<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_value(self.record.borrow().resume.clone()).ok()
    }

    /// Notes where to go on from. It is stored with the next save.
    pub(crate) fn note(&self, noted: &impl Serialize) {
        if let Ok(noted) = serde_json::to_value(noted) {
            self.record.send_modify(|record| record.resume = noted);
        }
    }

    /// Stores what was noted now, before anything is done that depends on it.
    ///
    /// # Errors
    /// 409 if the job was cancelled or another process works on it; 503 if the store failed.
    pub(crate) async fn save(&self) -> Result<(), Failure> {
        let _turn = self.saving.lock().await;
        engine::save_own(&self.state, &self.record).await
    }

    /// Shows how far the job is. The rate and the time left are computed here.
    pub(crate) fn show(&self, mut progress: ProgressInfo) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        progress.bytes_per_second = rate.add(progress.bytes);
        let left = progress.total_bytes.saturating_sub(progress.bytes) as f64;
        let seconds = |rate: f64| (rate > 0.0).then(|| left / rate);
        progress.seconds_left = progress.bytes_per_second.and_then(seconds);
        self.record
            .send_modify(|record| record.job.progress = progress);
    }

    /// Adds something that is worth a look.
    pub(crate) fn warn(&self, warning: String) {
        self.record.send_modify(|record| {
            if !record.job.warnings.contains(&warning) {
                record.job.warnings.push(warning);
            }
        });
    }
}
