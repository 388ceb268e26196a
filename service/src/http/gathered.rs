//! Writes of single objects to a branch: what comes at the same time becomes one commit.
//!
//! ```text
//! PUT ┐
//! PUT ├─► waiting, while the commit before runs ─► one transaction ─► one commit ─► every answer
//! PUT ┘
//! ```
//!
//! Architecture invariant: a write is answered once the commit it is in is in the log. One that fails
//! is left out and gets its own error. Writes that wait at the same time are in no order; of those
//! with the same key, each sees the ones that came before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use query::Reservation;
use storage::{CommitId, CommitOptions, RefName, RepoName, Repository, Transaction};
use tokio::sync::oneshot;

use super::edits;
use crate::auth::{Action, Scope};
use crate::error::Failure;
use crate::state::State;

/// Most writes in one commit: a reader of the log is told of many writers soon enough.
const TOGETHER: usize = 1024;
/// Most chunks stored at once for one commit.
const AT_ONCE: usize = 16;
/// How often a commit is made anew on a branch that others move: see `docs/adr/0050`.
const ATTEMPTS: usize = 20;

/// What becomes of an object of the Zarr view.
#[derive(Debug)]
pub(crate) enum Change {
    Put {
        body: Bytes,
        /// Only if it is not there.
        must_be_new: bool,
    },
    Delete {
        /// With everything below it.
        is_recursive: bool,
    },
}

/// A change of one object, and the memory it holds.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: String,
    pub(crate) change: Change,
    pub(crate) _memory: Option<Reservation>,
}

type Outcome = Result<CommitId, Failure>;

struct Waiting {
    write: Write,
    done: oneshot::Sender<Outcome>,
}

/// The writes of one principal to one branch that wait.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    /// Held while a commit is made.
    turn: tokio::sync::Mutex<()>,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A branch, and who writes to it: a commit has one author.
type Branch = (RepoName, RefName, String);

/// The writes to all branches that wait.
#[derive(Default)]
pub(crate) struct Gathering(Mutex<HashMap<Branch, Arc<Queue>>>);

impl std::fmt::Debug for Gathering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gathering({} branches)", self.queues().len())
    }
}

impl Gathering {
    fn queues(&self) -> MutexGuard<'_, HashMap<Branch, Arc<Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, branch: &Branch, waiting: Waiting) -> Arc<Queue> {
        let mut queues = self.queues();
        let queue = queues.entry(branch.clone()).or_default();
        queue.waiting().push(waiting);
        queue.clone()
    }

    /// Lets go of a queue, and forgets it if nobody else holds it.
    fn tidy(&self, branch: &Branch, queue: Arc<Queue>) {
        let mut queues = self.queues();
        drop(queue);
        // Whoever adds a write takes another under the lock.
        if queues
            .get(branch)
            .is_some_and(|queue| Arc::strong_count(queue) == 1)
        {
            queues.remove(branch);
        }
    }
}

/// Makes a write a part of a commit of the branch. Goes on if the caller stops waiting.
///
/// # Errors
/// Of this write alone, or of the commit.
pub(crate) async fn commit(
    state: &State,
    repository: &RepoName,
    branch: &RefName,
    write: Write,
) -> Outcome {
    let (done, outcome) = oneshot::channel();
    let who = state.access().principal();
    let who = who
        .map(|principal| principal.id.clone())
        .unwrap_or_default();
    let branch = (repository.clone(), branch.clone(), who);
    let queue = state.gathering().add(&branch, Waiting { write, done });
    let state = state.clone();
    tokio::spawn(async move {
        take_turn(&state, &branch, &queue).await;
        state.gathering().tidy(&branch, queue);
    });
    let stopped = |_| Failure::broken("a commit was stopped");
    outcome.await.map_err(stopped)?
}

/// Commits everything that waits, once it is this task's turn; nothing if another task has done it.
async fn take_turn(state: &State, branch: &Branch, queue: &Queue) {
    let _turn = queue.turn.lock().await;
    loop {
        let batch: Vec<Waiting> = {
            let mut waiting = queue.waiting();
            let count = waiting.len().min(TOGETHER);
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            return;
        }
        let (writes, done): (Vec<Write>, Vec<_>) =
            batch.into_iter().map(|one| (one.write, one.done)).unzip();
        let outcomes = commit_all(state, branch, writes).await;
        for (done, outcome) in done.into_iter().zip(outcomes) {
            // Whoever stopped waiting does not want to know.
            let _ = done.send(outcome);
        }
    }
}

/// The outcome of each write.
async fn commit_all(state: &State, branch: &Branch, writes: Vec<Write>) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = writes.iter().map(|_| None).collect();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let open: Vec<usize> = (0..writes.len())
            .filter(|&at| outcomes[at].is_none())
            .collect();
        if open.is_empty() {
            break;
        }
        match attempt(state, branch, &writes, &open, &mut outcomes).await {
            Ok(Some(commit)) => {
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
                    *outcome = Some(Ok(commit));
                }
            }
            // Without those that failed now.
            Ok(None) => {}
            Err(Stopped::Moved(failure)) if attempts >= ATTEMPTS => fail(&mut outcomes, &failure),
            Err(Stopped::Moved(_)) => {}
            Err(Stopped::Failed(failure)) => fail(&mut outcomes, &failure),
        }
    }
    let missing = || Err(Failure::broken("a write has no outcome"));
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(missing))
        .collect()
}

fn fail(outcomes: &mut [Option<Outcome>], failure: &Failure) {
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
        *outcome = Some(Err(failure.clone()));
    }
}

/// Why no commit was made.
enum Stopped {
    /// Others changed the same meanwhile. On the new head, the writes take the place of that.
    Moved(Failure),
    /// For all of them.
    Failed(Failure),
}

/// Tries to commit the writes `open` on the head as it is now; those that fail get their outcome.
/// `None` if some left the transaction in an unknown state, and the others are to be tried again.
async fn attempt(
    state: &State,
    (name, branch, _): &Branch,
    writes: &[Write],
    open: &[usize],
    outcomes: &mut [Option<Outcome>],
) -> Result<Option<CommitId>, Stopped> {
    let repository = state.repository(name).await.map_err(Stopped::Failed)?;
    let transaction = begin(&repository, branch).await?;
    let mut is_unknown = false;
    let scope = state.access().scope(Action::Write, name);
    for (at, result) in apply_all(state, &transaction, &scope, writes, open).await {
        if let Err(failure) = result {
            is_unknown |= failure.problem().status >= 500;
            outcomes[at] = Some(Err(failure));
        }
    }
    let left: Vec<&Write> = open
        .iter()
        .filter(|&&at| outcomes[at].is_none())
        .map(|&at| &writes[at])
        .collect();
    if is_unknown || left.is_empty() {
        return Ok(None);
    }
    let base = transaction.base().id();
    if transaction.is_empty() {
        return Ok(Some(base));
    }
    let options = CommitOptions {
        author: state.author(None),
        message: message(&left),
        ..CommitOptions::default()
    };
    let committed = transaction.commit(options).await;
    committed.map(Some).map_err(stopped)
}

async fn begin(repository: &Repository, branch: &RefName) -> Result<Transaction, Stopped> {
    Transaction::begin(repository, branch)
        .await
        .map_err(stopped)
}

fn stopped(error: storage::Error) -> Stopped {
    match error {
        storage::Error::Conflict { .. } | storage::Error::Swept { .. } => {
            Stopped::Moved(error.into())
        }
        error => Stopped::Failed(error.into()),
    }
}

fn message(writes: &[&Write]) -> String {
    let word = |write: &Write| match write.change {
        Change::Put { .. } => "write",
        Change::Delete { .. } => "delete",
    };
    match writes {
        [only] => format!("{} {}", word(only), only.key),
        [first, rest @ ..] => format!("{} {} and {} more", word(first), first.key, rest.len()),
        [] => String::new(),
    }
}

/// Makes the changes of `open`: metadata first, which chunks depend on, then what has different keys
/// at once. Gives what became of each.
async fn apply_all(
    state: &State,
    transaction: &Transaction,
    scope: &Scope,
    writes: &[Write],
    open: &[usize],
) -> Vec<(usize, Result<(), Failure>)> {
    let is_chunk = |write: &Write| {
        matches!(write.change, Change::Put { .. }) && !write.key.ends_with("zarr.json")
    };
    let (chunks, first): (Vec<usize>, Vec<usize>) =
        open.iter().copied().partition(|&at| is_chunk(&writes[at]));
    let mut results = Vec::with_capacity(open.len());
    for at in first {
        results.push((at, apply(state, transaction, scope, &writes[at]).await));
    }
    let mut by_key: BTreeMap<Vec<&str>, Vec<usize>> = BTreeMap::new();
    for at in chunks {
        let names = super::zarr::names(&writes[at].key);
        by_key.entry(names).or_default().push(at);
    }
    let groups: Vec<Vec<usize>> = by_key.into_values().collect();
    let in_turn = async |group: Vec<usize>| {
        let mut results = Vec::with_capacity(group.len());
        for at in group {
            results.push((at, apply(state, transaction, scope, &writes[at]).await));
        }
        results
    };
    let mut groups = futures::stream::iter(groups)
        .map(in_turn)
        .buffer_unordered(AT_ONCE);
    while let Some(group) = groups.next().await {
        results.extend(group);
    }
    results
}

/// Makes one change in a transaction.
pub(crate) async fn apply(
    state: &State,
    transaction: &Transaction,
    scope: &Scope,
    write: &Write,
) -> Result<(), Failure> {
    match &write.change {
        Change::Put { body, must_be_new } => {
            if *must_be_new {
                edits::check_new_key(transaction, scope, &write.key).await?;
            }
            edits::put_key(state, transaction, scope, &write.key, body.clone()).await
        }
        Change::Delete {
            is_recursive: false,
        } => edits::delete_key(transaction, scope, &write.key).await,
        Change::Delete { is_recursive: true } => {
            let mut after = String::new();
            while let Some(last) =
                edits::delete_below(transaction, scope, &write.key, &after).await?
            {
                after = last;
            }
            Ok(())
        }
    }
}
