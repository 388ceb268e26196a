//! Group commit: commits that wait at the same time go into the log as one entry.
//!
//! ```text
//! waiting commits ─► each rebased and built on the one before ─► uploads ─► one log entry
//! ```
//!
//! A log entry is created one at a time, so under load its cost is shared. Each commit keeps its
//! own outcome: one that conflicts is left out of the entry.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::Hash;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::build::build;
use crate::changes::Changes;
use crate::log::{LogState, Operation, Ref};
use crate::names::RefName;
use crate::observation::{self, carried};
use crate::reads::Reads;
use crate::rebase::{Sides, rebase};
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::transaction::CommitOptions;
use crate::uploads::Uploads;
use crate::{CommitId, Error, TRACE};

/// Most commits in one log entry; it stays far below the size an entry may have.
const MAX_BATCH: usize = 256;

/// A commit on its way into the log.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) branch: RefName,
    /// What the changes were made to.
    pub(crate) base: Snapshot,
    pub(crate) changes: Arc<Changes>,
    /// What must still hold, for a serializable transaction.
    pub(crate) reads: Option<Arc<Reads>>,
    pub(crate) options: CommitOptions,
    pub(crate) write_id: String,
    /// For a merge, the commit that was merged.
    pub(crate) second_parent: Option<CommitId>,
    /// Commits whose trees and chunks the changes take over: no ref may need them so far.
    pub(crate) sources: Vec<CommitId>,
    /// Number of the first log entry after the writer's first look, before its first upload: none
    /// before it carries the write or sweeps what it needs.
    pub(crate) since: u64,
    /// The list of the sweep that was under way then.
    pub(crate) sweep: Option<Hash>,
}

type Outcome = Result<CommitId, Error>;

struct Waiting {
    pending: Pending,
    done: oneshot::Sender<Outcome>,
}

/// The commits of one repository in this process.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    /// Held while entries are being made.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} waiting)", self.waiting().len())
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository {
    /// Commits, together with whatever else is waiting. Goes on if the caller stops waiting.
    pub(crate) async fn commit_pending(&self, pending: Pending) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let write_id = pending.write_id.clone();
        self.queue().waiting().push(Waiting { pending, done });
        let repository = self.clone();
        let span = debug_span!(target: TRACE, "commit");
        let turn = async move { repository.take_turn().await };
        // Of a group, the trace of the one whose turn it is has its requests.
        let turn = carried(observation::current(), turn).instrument(span.clone());
        tokio::spawn(turn);
        let outcome = outcome.instrument(span).await.unwrap_or_else(|_| {
            Err(Error::Unknown {
                write_id,
                reason: "the commit was stopped".into(),
            })
        });
        let metrics = self.store().metrics();
        match &outcome {
            Ok(_) => metrics.committed(),
            Err(Error::Conflict { .. } | Error::HeadMoved { .. }) => metrics.conflicted(),
            Err(_) => {}
        }
        outcome
    }

    /// Commits everything that is waiting, once it is this task's turn; nothing if another task has
    /// done it.
    async fn take_turn(&self) {
        let _turn = self.queue().turn.lock().await;
        loop {
            // What comes meanwhile goes along.
            self.wait_for_turn().await;
            let mut batch: Vec<Waiting> = {
                let mut waiting = self.queue().waiting();
                let count = waiting.len().min(MAX_BATCH);
                waiting.drain(..count).collect()
            };
            if batch.is_empty() {
                return;
            }
            let pending: Vec<&Pending> = batch.iter().map(|waiting| &waiting.pending).collect();
            let started = Instant::now();
            let outcomes = match self.commit_batch(&pending).await {
                Ok(outcomes) => outcomes,
                Err(error) => self.settle_failure(&pending, error).await,
            };
            debug!(commits = batch.len(), elapsed = ?started.elapsed(), "committed together");
            for (waiting, outcome) in batch.drain(..).zip(outcomes) {
                // Whoever stopped waiting does not want to know.
                let _ = waiting.done.send(outcome);
            }
        }
    }

    /// The outcome of each commit of a batch that failed as a whole.
    async fn settle_failure(&self, batch: &[&Pending], error: Error) -> Vec<Outcome> {
        let each = |make: &dyn Fn(&Pending) -> Error| batch.iter().map(|p| Err(make(p))).collect();
        match error {
            Error::Unknown { reason, .. } => each(&|pending| Error::Unknown {
                write_id: pending.write_id.clone(),
                reason: reason.clone(),
            }),
            Error::Busy { seconds } => each(&|_| Error::Busy { seconds }),
            Error::Clock { offset_seconds } => each(&|_| Error::Clock { offset_seconds }),
            error if batch.len() == 1 => vec![Err(error)],
            error => {
                // Nothing was written, and perhaps only one of them is to blame.
                warn!(commits = batch.len(), %error, "group commit failed, committing one by one");
                let mut outcomes = Vec::with_capacity(batch.len());
                for pending in batch {
                    let outcome = self.commit_batch(&[pending]).await;
                    outcomes.push(outcome.and_then(|mut outcomes| {
                        outcomes.pop().unwrap_or_else(|| {
                            Err(Error::invalid("commit", "a batch of one has no outcome"))
                        })
                    }));
                }
                outcomes
            }
        }
    }

    /// Makes one entry of a batch; gives the outcome of each commit.
    ///
    /// # Errors
    /// As [`Repository::append`]; then none of them is in the log.
    async fn commit_batch(&self, batch: &[&Pending]) -> Result<Vec<Outcome>, Error> {
        let batch: Vec<Pending> = batch.iter().map(|&pending| pending.clone()).collect();
        let Some(first) = batch.first() else {
            return Ok(Vec::new());
        };
        let (actor, write_id) = (first.options.author.clone(), first.write_id.clone());
        let since = batch.iter().map(|pending| pending.since).min();
        let attempts = Arc::new(tokio::sync::Mutex::new(Attempts {
            repository: self.clone(),
            scanned: since.unwrap_or(0),
            found: HashMap::new(),
            sweeps: batch.iter().filter_map(|pending| pending.sweep).collect(),
            outcomes: Vec::new(),
            batch,
        }));
        let shared = attempts.clone();
        self.append(&actor, &write_id, move |state| {
            let attempts = shared.clone();
            Box::pin(async move { attempts.lock().await.build(state).await })
        })
        .await?;
        let outcomes = std::mem::take(&mut attempts.lock().await.outcomes);
        Ok(outcomes)
    }
}

/// A batch that is tried against one state of the log after another.
struct Attempts {
    repository: Repository,
    batch: Vec<Pending>,
    /// Number of the first log entry not yet searched for these writes.
    scanned: u64,
    /// Writes of the batch that are in the log already, by someone else committing the same.
    found: HashMap<String, CommitId>,
    /// Lists of the sweeps that may delete what the batch needs.
    sweeps: BTreeSet<Hash>,
    /// Of the last attempt.
    outcomes: Vec<Outcome>,
}

impl Attempts {
    /// The operations against `state`; `None` if there are none.
    async fn build(&mut self, state: LogState) -> Result<Option<Vec<Operation>>, Error> {
        self.scan(&state).await?;
        let uploads = Uploads::new(self.repository.store());
        let mut state = state;
        let mut operations: Vec<Operation> = Vec::new();
        self.outcomes.clear();
        for pending in &self.batch {
            let outcome = match self.found.get(&pending.write_id) {
                Some(commit) => Ok(Built::Before(*commit)),
                None => self.build_one(pending, &state, &uploads).await,
            };
            let outcome = match outcome {
                Ok(Built::Before(commit)) => Ok(commit),
                Ok(Built::Now(commit, operation)) => {
                    state.preview(&operation)?;
                    operations.push(operation);
                    Ok(commit)
                }
                Err(error) if is_own_fault(&error) => Err(error),
                Err(error) => return Err(error),
            };
            self.outcomes.push(outcome);
        }
        let uploaded = uploads.finish().await?;
        self.check_sweeps(&uploaded).await?;
        Ok((!operations.is_empty()).then_some(operations))
    }

    /// Checks that no sweep the writers may have raced with deletes what the batch needs.
    async fn check_sweeps(&self, uploaded: &[String]) -> Result<(), Error> {
        for id in &self.sweeps {
            let list = match self.repository.sweep_list(id).await {
                // So long ago that nobody kept it: nothing can be told.
                Err(Error::Missing { key }) => return Err(Error::Swept { key }),
                list => list?,
            };
            let swept = list.first_of(uploaded).cloned();
            let in_changes = || {
                let keys = self
                    .batch
                    .iter()
                    .flat_map(|pending| pending.changes.objects());
                let keys: Vec<String> = keys.collect();
                list.first_of(&keys).cloned()
            };
            if let Some(key) = swept.or_else(in_changes) {
                return Err(Error::Swept { key });
            }
        }
        Ok(())
    }

    /// Looks for the batch's writes in the entries that came up since the last look.
    async fn scan(&mut self, state: &LogState) -> Result<(), Error> {
        for sequence in self.scanned..state.next_sequence() {
            let entry = self.repository.entry_that_exists(sequence).await?;
            for operation in &entry.1.operations {
                if let Operation::GcSweep { list, .. } = operation {
                    self.sweeps.insert(*list);
                }
            }
            for operation in &entry.1.operations {
                if let Operation::UpdateRef {
                    write_id,
                    to: Some(to),
                    ..
                } = operation
                    && self
                        .batch
                        .iter()
                        .any(|pending| pending.write_id == *write_id)
                {
                    self.found.insert(write_id.clone(), *to);
                }
            }
        }
        self.scanned = self.scanned.max(state.next_sequence());
        Ok(())
    }

    async fn build_one(
        &self,
        pending: &Pending,
        state: &LogState,
        uploads: &Uploads,
    ) -> Result<Built, Error> {
        let name = Ref::branch(pending.branch.clone());
        let options = &pending.options;
        if let Some(idempotency) = &options.idempotency
            && let Some(commit) = state.first_result(&name, idempotency)?
        {
            return Ok(Built::Before(commit));
        }
        let head = state.get(&name).ok_or_else(|| {
            let known = state.refs.keys().map(|known| known.name.as_str());
            Error::not_found("branch", pending.branch.as_str(), known)
        })?;
        if let Some(expected) = options.expected_head
            && expected != head
        {
            return Err(Error::HeadMoved {
                branch: pending.branch.to_string(),
                expected,
                found: head,
            });
        }
        for source in &pending.sources {
            self.repository.check_kept(*source, state).await?;
        }
        let commit = match self.rebase_and_build(pending, head, uploads).await {
            // A page of a commit before it in the batch may have left the cache before it was
            // stored.
            Err(Error::Missing { .. }) if state.sequence.is_some() => {
                uploads.flush().await?;
                self.rebase_and_build(pending, head, uploads).await?
            }
            built => built?,
        };
        Ok(Built::Now(
            commit,
            Operation::UpdateRef {
                name,
                from: Some(head),
                to: Some(commit),
                write_id: pending.write_id.clone(),
                idempotency: options.idempotency.clone(),
            },
        ))
    }

    /// Applies the changes to `head` and starts uploading the commit.
    async fn rebase_and_build(
        &self,
        pending: &Pending,
        head: CommitId,
        uploads: &Uploads,
    ) -> Result<CommitId, Error> {
        let onto = self.repository.snapshot(head).await?;
        let mut changes = pending.changes.clone();
        if head != pending.base.id() {
            let sides = Sides {
                base: &pending.base,
                onto: &onto,
                policies: &pending.options.on_conflict,
            };
            let reads = pending.reads.as_deref();
            changes = match rebase(&sides, uploads, &changes, reads).await? {
                Ok(rebased) => Arc::new(rebased),
                Err(conflicts) => {
                    return Err(Error::Conflict {
                        branch: pending.branch.to_string(),
                        base: pending.base.id(),
                        conflicts,
                    });
                }
            };
        }
        let commit = build(
            uploads,
            &onto,
            &changes,
            &pending.options,
            &pending.write_id,
            pending.second_parent,
        )
        .await?;
        self.repository.upload_commit(commit, uploads).await
    }
}

enum Built {
    /// It is in the log already.
    Before(CommitId),
    /// It is with this operation.
    Now(CommitId, Operation),
}

/// Whether an error is about one commit of a batch, and not about the store.
fn is_own_fault(error: &Error) -> bool {
    match error {
        Error::NotFound { .. }
        | Error::AlreadyExists { .. }
        | Error::Invalid { .. }
        | Error::Conflict { .. }
        | Error::HeadMoved { .. }
        | Error::Closed { .. }
        | Error::Overtaken { .. }
        | Error::KeyReused { .. }
        | Error::Expired { .. }
        | Error::Swept { .. }
        | Error::Array(_) => true,
        Error::Corrupt { .. }
        | Error::Missing { .. }
        | Error::Unknown { .. }
        | Error::Busy { .. }
        | Error::Unstaged { .. }
        | Error::Clock { .. }
        | Error::Sweeping { .. }
        | Error::Inconsistent { .. }
        | Error::Changed { .. }
        | Error::Forbidden { .. }
        | Error::Unreachable { .. }
        | Error::ReadOnly
        | Error::Store { .. } => false,
    }
}
