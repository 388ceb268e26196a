//! Getting an entry into the log: the one way a repository changes.
//!
//! ```text
//! newest state n ─► operations against it ─► put-if-absent entry n+1 ─► created: done
//!       ▲                                             │
//!       └── taken by another entry: read it ◄── read the slot ◄── any other answer
//!                                                     └── absent: the same bytes again
//! ```
//!
//! An answer other than "created" settles nothing: a response may be lost after the entry was
//! stored, a client library may repeat a request and meet its own entry, a request that timed out
//! may arrive late. Only the slot itself tells, and only once it is occupied. So a writer goes on
//! with the same bytes at the same slot until it is, or reports that the outcome is unknown; it
//! never moves on to another slot while its entry may still appear in this one.
//!
//! Spec: `docs/format.md`, "Log".

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::Error;
use crate::commit::{format_time, parse_time};
use crate::error::chain;
use crate::head::{HINT_INTERVAL, HINT_KEY};
use crate::log::{self, CHECKPOINT_INTERVAL, LogEntry, LogState, Operation};
use crate::repository::Repository;
use crate::store::{Put, is_refusal};

/// How long a commit whose outcome is unclear is pursued.
const UNCLEAR_TIMEOUT: Duration = Duration::from_secs(60);
/// First pause while the outcome is unclear; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a commit that keeps losing the race for a slot goes on.
const CONTENTION_TIMEOUT: Duration = Duration::from_secs(600);
/// A writer whose clock is further off the store's than this refuses to write.
const MAX_CLOCK_OFFSET: TimeDelta = TimeDelta::minutes(5);

impl Repository {
    /// Appends one entry. `operations` is asked for them against the newest state, again after
    /// every lost race; `None` means there is nothing left to do. Gives the operations that are in
    /// the log.
    ///
    /// # Errors
    /// What `operations` fails with; [`Error::Unknown`] if the store gave no clear answer;
    /// [`Error::Busy`] if other writers were faster for ten minutes; [`Error::Clock`] if this
    /// machine's clock is far off; [`Error::NotFound`] if the repository was deleted. After any
    /// other error than [`Error::Unknown`] the entry is not in the log.
    pub(crate) async fn append<F>(
        &self,
        actor: &str,
        write_id: &str,
        mut operations: F,
    ) -> Result<Option<Vec<Operation>>, Error>
    where
        F: FnMut(LogState) -> BoxFuture<'static, Result<Option<Vec<Operation>>, Error>> + Send,
    {
        self.wait_for_turn().await;
        let started = Instant::now();
        let mut losses = 0;
        loop {
            let attempt = Instant::now();
            // Another repository may have taken this one's place: its log is not ours.
            let (mut state, is_stored) = futures::try_join!(self.head(), self.is_stored())?;
            if !is_stored {
                return Err(Error::not_found("repository", self.store().url(), []));
            }
            self.check_clock()?;
            let Some(operations) = operations(state.clone()).await? else {
                return Ok(None);
            };
            let entry = next_entry(&state, actor, operations)?;
            let (hash, bytes) = entry.encode();
            if self.occupy(entry.sequence, bytes.into(), write_id).await? {
                self.log_cache()
                    .turns()
                    .took_turn(losses, attempt.elapsed());
                self.log_cache().tell_appended(entry.sequence);
                let operations = entry.operations.clone();
                // It was made to follow this state.
                if state.apply(hash, &entry).is_ok() {
                    self.log_cache().insert(hash, entry);
                    self.log_cache().advance(&state);
                    self.leave_traces(&state).await;
                }
                return Ok(Some(operations));
            }
            losses += 1;
            self.store().metrics().retried();
            debug!(sequence = entry.sequence, "lost the race for a log entry");
            if started.elapsed() > CONTENTION_TIMEOUT {
                return Err(Error::Busy {
                    seconds: CONTENTION_TIMEOUT.as_secs(),
                });
            }
        }
    }

    /// Waits until it is polite to append.
    pub(crate) async fn wait_for_turn(&self) {
        let not_before = self.log_cache().turns().not_before();
        if let Some(at) = not_before {
            tokio::time::sleep_until(at).await;
        }
    }

    fn check_clock(&self) -> Result<(), Error> {
        match self.store().clock_ahead() {
            Some(ahead) if ahead.abs() > MAX_CLOCK_OFFSET => Err(Error::Clock {
                offset_seconds: ahead.num_seconds(),
            }),
            _ => Ok(()),
        }
    }

    /// Puts `bytes` at slot `sequence` until it is occupied; says whether by these bytes.
    async fn occupy(&self, sequence: u64, bytes: Bytes, write_id: &str) -> Result<bool, Error> {
        let key = LogEntry::key(sequence);
        let deadline = Instant::now() + UNCLEAR_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        // Until a request was sent that may have gone through, a refusal is a failure.
        let mut may_have_landed = false;
        loop {
            let put = self.store().put_if_absent(&key, bytes.clone()).await;
            if matches!(put, Ok(Put::Created)) {
                return Ok(true);
            }
            let refused = match &put {
                Err(Error::Store { source, .. }) => is_refusal(source),
                Err(Error::ReadOnly) => true,
                _ => false,
            };
            may_have_landed |= !refused;
            let reason = match (self.store().get(&key).await, put) {
                (Ok(Some(found)), _) if found != bytes => return Ok(false),
                // A local disk says "already exists" only once the entry is durable; seeing it is
                // not enough there.
                (Ok(Some(_)), Err(error)) if self.store().is_local() => chain(&error),
                (Ok(Some(_)), _) => return Ok(true),
                (Ok(None), Err(error)) if !may_have_landed => return Err(error),
                (Ok(None), Ok(_)) => "the entry exists and does not".to_owned(),
                (Err(error), _) | (Ok(None), Err(error)) => chain(&error),
            };
            if Instant::now() > deadline {
                return Err(Error::Unknown {
                    write_id: write_id.to_owned(),
                    reason,
                });
            }
            warn!(%key, %reason, "unclear outcome of a commit, asking again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The hint and, where one is due or was found missing, a checkpoint. Both can be had without,
    /// so failures pass.
    async fn leave_traces(&self, state: &LogState) {
        let Some(sequence) = state.sequence else {
            return;
        };
        if sequence.is_multiple_of(HINT_INTERVAL) {
            let hint = serde_json::json!({ "sequence": sequence.to_string() });
            let bytes = array::json::canonical_bytes(&hint);
            if let Err(error) = self.store().overwrite(HINT_KEY, bytes.into()).await {
                debug!(%error, "hint not written");
            }
        }
        if sequence > 0 && sequence.is_multiple_of(CHECKPOINT_INTERVAL) {
            self.write_checkpoint(state).await;
        }
        if let Some(missing) = self.log_cache().take_missing_checkpoint() {
            // The state an entry without effect claims is not the one after it.
            if let Some(sequence) = missing.sequence
                && matches!(self.entry_that_exists(sequence).await, Ok(entry) if entry.1.state == missing.root())
            {
                self.write_checkpoint(&missing).await;
            }
        }
    }

    async fn write_checkpoint(&self, state: &LogState) {
        let key = LogState::checkpoint_key(state.sequence.unwrap_or(0));
        let bytes = state.encode_checkpoint();
        if let Err(error) = self.store().put_if_absent(&key, bytes.into()).await {
            warn!(%key, %error, "checkpoint not written");
        }
    }
}

/// The entry after `state` with these operations.
fn next_entry(
    state: &LogState,
    actor: &str,
    operations: Vec<Operation>,
) -> Result<LogEntry, Error> {
    let now = DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default();
    let after_last = |last: DateTime<Utc>| last.checked_add_signed(TimeDelta::microseconds(1));
    let time = match state.time {
        None => Some(now),
        Some(last) => after_last(last).map(|earliest| now.max(earliest)),
    };
    let time = time
        .filter(|time| parse_time(&format_time(*time)).is_ok())
        .ok_or_else(|| Error::invalid("commit", "the newest entry is from the end of time"))?;
    let effects = state
        .after(&operations, time)
        .ok_or_else(|| Error::invalid("commit", "its operations do not fit the refs"))?;
    Ok(LogEntry {
        sequence: state.next_sequence(),
        previous: state.entry,
        time,
        actor: actor.to_owned(),
        operations,
        state: log::state_root(&effects.refs),
    })
}
