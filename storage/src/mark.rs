//! Which objects a repository still needs.

use std::collections::{BTreeMap, BTreeSet};

use array::hash::{self, Hash};
use arrow_array::{RecordBatch, UInt8Array};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::commit::Commit;
use crate::concurrent::CONCURRENT_REQUESTS;
use crate::journal::Step;
use crate::log::{LogState, Operation};
use crate::object::{object_key, shard_key};
use crate::repository::Repository;
use crate::row_file;
use crate::shared::TransactionState;
use crate::verify::{Damage, Walk};
use crate::{CommitId, Error};

/// What was found to be needed, by key.
pub(crate) struct Marked {
    walk: Walk,
    commits: BTreeSet<CommitId>,
}

impl Marked {
    pub(crate) fn new(repository: &Repository) -> Self {
        Self {
            walk: Walk::new(repository),
            commits: BTreeSet::new(),
        }
    }

    pub(crate) fn keys(&self) -> &BTreeSet<String> {
        &self.walk.found.objects
    }

    fn keys_mut(&mut self) -> &mut BTreeSet<String> {
        &mut self.walk.found.objects
    }

    /// What is needed and not as it was written.
    pub(crate) fn damage(&self) -> &[Damage] {
        &self.walk.found.damage
    }
}

impl Repository {
    /// Marks what commits reach. Commits that expired before `kept_since` and what only they reach
    /// are left out.
    pub(crate) async fn mark(
        &self,
        marked: &mut Marked,
        roots: impl IntoIterator<Item = CommitId>,
        state: &LogState,
        kept_since: DateTime<Utc>,
    ) -> Result<(), Error> {
        let mut open: Vec<CommitId> = roots.into_iter().collect();
        while let Some(id) = open.pop() {
            let has_expired = state
                .expired
                .get(&id)
                .is_some_and(|time| *time < kept_since);
            if has_expired || !marked.commits.insert(id) {
                continue;
            }
            open.extend(marked.walk.commit(id).await?);
            // Only the keys of chunks count here, and those are noted.
            marked.walk.found.arrays.clear();
        }
        Ok(())
    }

    /// Where marking starts: all refs, and what refs were at since `kept_since`. Marks the lists of
    /// sweeps since `lists_since`, for writers that began before them.
    pub(crate) async fn roots(
        &self,
        marked: &mut Marked,
        state: &LogState,
        kept_since: DateTime<Utc>,
        lists_since: DateTime<Utc>,
    ) -> Result<BTreeSet<CommitId>, Error> {
        let mut roots: BTreeSet<CommitId> = state.refs.values().copied().collect();
        let mut sequence = state.next_sequence();
        while let Some(before) = sequence.checked_sub(1) {
            let entry = self.entry_that_exists(before).await?;
            let time = entry.1.time;
            if time < kept_since && time < lists_since {
                break;
            }
            for operation in &entry.1.operations {
                match operation {
                    Operation::UpdateRef { from, to, .. } if time >= kept_since => {
                        roots.extend(from.iter().chain(to));
                    }
                    Operation::Expire { commits } if time >= kept_since => roots.extend(commits),
                    Operation::GcSweep { list, .. } if time >= lists_since => {
                        marked.keys_mut().insert(object_key(list));
                    }
                    _ => {}
                }
            }
            sequence = before;
        }
        Ok(roots)
    }

    /// Marks what open transactions have staged; gives the folders of those that are over and older
    /// than `over_since`. Transactions nobody has touched since `abandoned_since` are aborted,
    /// unless this is only a look.
    pub(crate) async fn mark_staged(
        &self,
        marked: &mut Marked,
        modified: &BTreeMap<String, (u64, DateTime<Utc>)>,
        (over_since, abandoned_since): (DateTime<Utc>, DateTime<Utc>),
        dry_run: bool,
    ) -> Result<(BTreeSet<CommitId>, Vec<String>), Error> {
        let (mut bases, mut over) = (BTreeSet::new(), Vec::new());
        for id in self.staged_transactions().await? {
            let prefix = format!("staging/{id}/");
            let keys = || modified.keys().filter(|key| key.starts_with(&prefix));
            let times = keys().filter_map(|key| modified.get(key));
            let newest = times.map(|(_, time)| *time).max();
            let Some(newest) = newest else { continue };
            if !modified.contains_key(&format!("{prefix}begin")) {
                // What is left of one that is over.
                over.extend(keys().filter(|_| newest < over_since).cloned());
                continue;
            }
            let shared = self.shared_transaction(id).await?;
            let mut state = shared.state().await?;
            bases.insert(shared.transaction().base().id());
            let mut staged = BTreeSet::new();
            for key in keys().filter(|key| key.contains('-')) {
                let Some(bytes) = self.store().get(key).await? else {
                    continue;
                };
                let steps = crate::journal::decode_record(&bytes)
                    .map_err(|reason| Error::corrupt(key.as_str(), reason))?;
                let chunks = steps.iter().filter_map(|step| match step {
                    Step::Chunk(chunk) => chunk.object(),
                    _ => None,
                });
                staged.extend(chunks);
            }
            if state == TransactionState::Open && newest < abandoned_since && !dry_run {
                match shared.abort().await {
                    Ok(()) => state = TransactionState::Aborted,
                    // Somebody was there after all.
                    Err(Error::Closed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match state {
                TransactionState::Open | TransactionState::Closing => {
                    marked.keys_mut().extend(staged);
                }
                TransactionState::Committed(_) | TransactionState::Aborted => {
                    over.extend(keys().filter(|_| newest < over_since).cloned());
                }
            }
        }
        Ok((bases, over))
    }

    /// Marks what objects name that nothing refers to but that may be part of a commit under way.
    pub(crate) async fn mark_young(
        &self,
        marked: &mut Marked,
        young: Vec<String>,
        known: &BTreeMap<String, (u64, DateTime<Utc>)>,
    ) -> Result<(), Error> {
        let mut open = young;
        while !open.is_empty() {
            let next: Vec<Vec<String>> = futures::stream::iter(std::mem::take(&mut open))
                .map(|key| async move {
                    if !key.starts_with("objects/") {
                        return Ok(Vec::new());
                    }
                    let bytes = self.store().get(&key).await?;
                    Ok::<_, Error>(bytes.map(|bytes| references(&bytes)).unwrap_or_default())
                })
                .buffer_unordered(CONCURRENT_REQUESTS)
                .try_collect()
                .await?;
            for key in next.into_iter().flatten() {
                if known.contains_key(&key) && marked.keys_mut().insert(key.clone()) {
                    open.push(key);
                }
            }
        }
        Ok(())
    }
}

/// Keys of what an object of any kind names. Rather too many than too few.
fn references(bytes: &[u8]) -> Vec<String> {
    let id = CommitId(hash::hash(hash::Kind::Commit, bytes));
    if let Ok(commit) = Commit::decode(&id, bytes) {
        let parents = commit.parents.iter().map(|parent| object_key(&parent.0));
        let root = [commit.root.content, commit.root.document];
        return parents.chain(root.iter().map(object_key)).collect();
    }
    match row_file::decode(bytes) {
        Ok(batch) => row_references(&batch),
        Err(_) => Vec::new(),
    }
}

fn row_references(batch: &RecordBatch) -> Vec<String> {
    let hashes = |name: &str| -> Vec<Hash> {
        let column = row_file::hash_column(batch, name).unwrap_or_default();
        column.into_iter().flatten().collect()
    };
    let mut keys: Vec<String> = Vec::new();
    for name in ["id", "document", "statistics"] {
        keys.extend(hashes(name).iter().map(object_key));
    }
    let storage: Result<&UInt8Array, String> = row_file::column(batch, "storage", false);
    if storage.is_ok_and(|column| !column.is_empty()) {
        keys.extend(hashes("id").iter().map(shard_key));
    }
    keys
}
