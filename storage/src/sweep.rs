//! Expiry of old commits, and garbage collection of what nothing needs.
//!
//! ```text
//! mark from entry n ─► list of candidates ─► gc-sweep at n + 1 ─► delete ─► gc-done
//! ```
//!
//! Writers read every entry below theirs and check the lists of sweeps they may have raced with, so
//! an object is never deleted under a commit that needs it. Everything that is needed is verified
//! before anything is deleted: damage stops the collection.
//!
//! Spec: `docs/format.md`, "Expiry and garbage collection".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use array::hash::{self, Hash, Kind};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

use crate::concurrent::CONCURRENT_REQUESTS;
use crate::log::{LogState, Operation};
use crate::mark::Marked;
use crate::object::{object_key, shard_key};
use crate::repository::Repository;
use crate::{CommitId, Error};

const MAGIC: &[u8; 4] = b"QSWL";
/// Most names in a list: 32 GiB of names would be more than a process can hold.
const MAX_NAMES: usize = 1 << 26;
/// Objects deleted between two looks at the log.
const BATCH: usize = 256;

/// When things may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// How long what refs left behind, and what expired, stays.
    pub retention: TimeDelta,
    /// How long objects nothing refers to stay: a commit that needs them may be under way.
    pub grace: TimeDelta,
    /// How long a transaction nobody touches stays open.
    pub transaction_idle: TimeDelta,
    /// How long after a look at the log objects may be deleted.
    pub delete_window: Duration,
    /// How long a sweep may go on before another process takes it over.
    pub take_over_after: TimeDelta,
    /// Only say what would go.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            retention: TimeDelta::days(7),
            grace: TimeDelta::hours(24),
            transaction_idle: TimeDelta::days(7),
            delete_window: Duration::from_secs(60),
            take_over_after: TimeDelta::hours(1),
            dry_run: false,
        }
    }
}

/// What a garbage collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Objects that are needed.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Objects nothing refers to that are too young to go.
    pub young: u64,
    /// Objects that went, or would go.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
}

/// The names a sweep deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SweepList {
    keys: BTreeSet<String>,
}

impl SweepList {
    /// Its bytes and its name.
    fn encode(&self) -> (Hash, Vec<u8>) {
        let mut bytes = MAGIC.to_vec();
        for folder in ["objects/", "shards/"] {
            let names: Vec<String> = self
                .keys
                .iter()
                .filter_map(|key| Some(key.strip_prefix(folder)?.replace('/', "")))
                .collect();
            bytes.extend_from_slice(&(names.len() as u64).to_le_bytes());
            for name in names {
                if let Ok(id) = name.parse::<Hash>() {
                    bytes.extend_from_slice(id.as_bytes());
                }
            }
        }
        (hash::hash(Kind::SweepList, &bytes), bytes)
    }

    fn decode(id: &Hash, bytes: &[u8]) -> Result<Self, String> {
        if hash::hash(Kind::SweepList, bytes) != *id {
            return Err("its bytes do not match its name".into());
        }
        let mut rest = bytes.strip_prefix(MAGIC).ok_or("no list of a sweep")?;
        let mut keys = BTreeSet::new();
        for key in [object_key, shard_key] {
            let (count, after) = rest.split_at_checked(8).ok_or("a list that is cut short")?;
            let count = u64::from_le_bytes(count.try_into().unwrap_or_default());
            let count = usize::try_from(count)
                .ok()
                .filter(|count| *count <= MAX_NAMES);
            let count = count.ok_or("a list that is too long")?;
            let (names, after) = after
                .split_at_checked(32 * count)
                .ok_or("a list that is cut short")?;
            keys.extend(
                names
                    .chunks_exact(32)
                    .filter_map(Hash::from_slice)
                    .map(|id| key(&id)),
            );
            rest = after;
        }
        if !rest.is_empty() {
            return Err("bytes after the list".into());
        }
        Ok(Self { keys })
    }

    /// The first of `keys` that the sweep deletes.
    pub(crate) fn first_of<'a>(&self, keys: &'a [String]) -> Option<&'a String> {
        keys.iter().find(|key| self.keys.contains(*key))
    }
}

impl Repository {
    /// The list of a sweep that the log names.
    pub(crate) async fn sweep_list(&self, id: &Hash) -> Result<SweepList, Error> {
        let key = object_key(id);
        let bytes = self.store().get_existing(&key).await?;
        SweepList::decode(id, &bytes).map_err(|reason| Error::corrupt(key, reason))
    }

    /// The commits that are older than `cutoff` and that no newer one, branch or tag needs: those
    /// at which walks back through the history will end.
    ///
    /// # Errors
    /// As [`Repository::head`].
    pub async fn expirable(&self, cutoff: DateTime<Utc>) -> Result<Vec<CommitId>, Error> {
        let state = self.head().await?;
        self.expirable_at(&state, cutoff).await
    }

    async fn expirable_at(
        &self,
        state: &LogState,
        cutoff: DateTime<Utc>,
    ) -> Result<Vec<CommitId>, Error> {
        let heads: BTreeSet<CommitId> = state.refs.values().copied().collect();
        let mut kept: BTreeSet<CommitId> = BTreeSet::new();
        let mut ends: BTreeSet<CommitId> = BTreeSet::new();
        let mut open: Vec<CommitId> = heads.iter().copied().collect();
        while let Some(id) = open.pop() {
            if !kept.insert(id) {
                continue;
            }
            for &parent in &self.commit(id).await?.parents {
                if state.expired.contains_key(&parent) {
                    continue;
                }
                if heads.contains(&parent) || self.commit(parent).await?.time >= cutoff {
                    open.push(parent);
                } else {
                    ends.insert(parent);
                }
            }
        }
        Ok(ends.difference(&kept).copied().collect())
    }

    /// Expires commits older than `cutoff`, never one a branch or tag is at. Walks back through the
    /// history end there from now on; the data goes with a later garbage collection. Gives the
    /// commits at which walks end.
    ///
    /// # Errors
    /// As [`crate::Transaction::commit`].
    pub async fn expire(&self, cutoff: DateTime<Utc>, actor: &str) -> Result<Vec<CommitId>, Error> {
        let write_id = Uuid::new_v4().to_string();
        let repository = self.clone();
        let written = self
            .append(actor, &write_id, move |state| {
                let repository = repository.clone();
                Box::pin(async move {
                    let commits = repository.expirable_at(&state, cutoff).await?;
                    let nothing = commits.is_empty();
                    Ok((!nothing).then(|| vec![Operation::Expire { commits }]))
                })
            })
            .await?;
        let expired = written
            .into_iter()
            .flatten()
            .find_map(|operation| match operation {
                Operation::Expire { commits } => Some(commits),
                _ => None,
            });
        Ok(expired.unwrap_or_default())
    }

    /// Deletes what nothing needs.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if something that is needed is damaged: nothing is
    /// deleted then; [`Error::Sweeping`] if another process is at it; [`Error::Store`] if the store
    /// failed: running it again goes on.
    pub async fn gc(&self, options: &GcOptions, actor: &str) -> Result<GcReport, Error> {
        let state = self.head().await?;
        if let Some(sweep) = &state.sweep
            && !options.dry_run
        {
            let age = Utc::now() - sweep.time;
            if age < options.take_over_after {
                return Err(Error::Sweeping {
                    since: crate::commit::format_time(sweep.time),
                });
            }
            self.take_over(sweep.list, options, actor).await?;
        }
        let mut search = Search::new(self, *options).await?;
        search.mark(&state).await?;
        let (list, report, over) = search.candidates().await?;
        if options.dry_run {
            return Ok(report);
        }
        // What is staged of transactions that are over is not named by content and needs no list.
        self.store().delete(over).await?;
        if list.keys.is_empty() {
            return Ok(report);
        }
        let holder = Uuid::new_v4().to_string();
        let Some(list) = self.announce(search, state, list, &holder, actor).await? else {
            return Ok(GcReport::default());
        };
        self.delete_listed(&list, &holder, options).await?;
        self.finish_sweep(&holder, actor).await?;
        info!(objects = list.keys.len(), "garbage collected");
        Ok(report)
    }

    /// Puts a sweep into the log, with whatever became needed in the meantime taken off its list.
    async fn announce(
        &self,
        search: Search,
        marked_at: LogState,
        list: SweepList,
        holder: &str,
        actor: &str,
    ) -> Result<Option<SweepList>, Error> {
        let shared = std::sync::Arc::new(tokio::sync::Mutex::new((search, marked_at, list)));
        let (attempt, holder) = (shared.clone(), holder.to_owned());
        let written = self
            .append(actor, &holder.clone(), move |state| {
                let (attempt, holder) = (attempt.clone(), holder.clone());
                Box::pin(async move {
                    let mut attempt = attempt.lock().await;
                    let (search, marked_at, list) = &mut *attempt;
                    if state.sweep.is_some() {
                        return Ok(None);
                    }
                    if state.sequence != marked_at.sequence {
                        search.mark(&state).await?;
                        list.keys.retain(|key| !search.marked.keys().contains(key));
                        marked_at.clone_from(&state);
                    }
                    let (id, bytes) = list.encode();
                    let store = search.repository.store();
                    store.put_immutable(&object_key(&id), bytes.into()).await?;
                    Ok(Some(vec![Operation::GcSweep { list: id, holder }]))
                })
            })
            .await?;
        let list = shared.lock().await.2.clone();
        Ok(written.map(|_| list))
    }

    /// Deletes what a sweep lists, as long as the sweep is this holder's.
    async fn delete_listed(
        &self,
        list: &SweepList,
        holder: &str,
        options: &GcOptions,
    ) -> Result<(), Error> {
        let keys: Vec<String> = list.keys.iter().cloned().collect();
        for batch in keys.chunks(BATCH) {
            let looked = Instant::now();
            let state = self.head().await?;
            let is_ours = state.sweep.is_some_and(|sweep| sweep.holder == holder);
            if !is_ours {
                return Err(Error::Sweeping {
                    since: "another process took over".into(),
                });
            }
            let left = options.delete_window.saturating_sub(looked.elapsed());
            let deleted = tokio::time::timeout(left, self.store().delete(batch.to_vec())).await;
            deleted.map_err(|_| Error::Busy {
                seconds: options.delete_window.as_secs(),
            })??;
        }
        Ok(())
    }

    /// Goes on with the sweep of a process that is gone, and ends it.
    async fn take_over(&self, list: Hash, options: &GcOptions, actor: &str) -> Result<(), Error> {
        let holder = Uuid::new_v4().to_string();
        let take = holder.clone();
        let taken = self
            .append(actor, &holder, move |state| {
                let is_there = state.sweep.is_some_and(|sweep| sweep.list == list);
                let holder = take.clone();
                let operations = is_there.then(|| vec![Operation::GcTake { holder }]);
                Box::pin(async move { Ok(operations) })
            })
            .await?;
        if taken.is_none() {
            return Ok(());
        }
        let since = Instant::now();
        let list = self.sweep_list(&list).await?;
        self.delete_listed(&list, &holder, options).await?;
        // The process before may have sent its last deletions just before it saw this.
        tokio::time::sleep_until(since + 2 * options.delete_window).await;
        self.finish_sweep(&holder, actor).await
    }

    async fn finish_sweep(&self, holder: &str, actor: &str) -> Result<(), Error> {
        let holder = holder.to_owned();
        self.append(actor, &holder.clone(), move |state| {
            let is_ours = state.sweep.is_some_and(|sweep| sweep.holder == holder);
            let holder = holder.clone();
            let operations = is_ours.then(|| vec![Operation::GcDone { holder }]);
            Box::pin(async move { Ok(operations) })
        })
        .await
        .map(drop)
    }
}

/// A look through a repository for what it needs.
struct Search {
    repository: Repository,
    options: GcOptions,
    /// Every object there was at the start: its size and when it was written.
    found: BTreeMap<String, (u64, DateTime<Utc>)>,
    now: DateTime<Utc>,
    marked: Marked,
}

impl Search {
    async fn new(repository: &Repository, options: GcOptions) -> Result<Self, Error> {
        let ahead = repository.store().clock_ahead().unwrap_or_default();
        let now = Utc::now() + ahead;
        let folders = ["objects", "shards", "staging"];
        let listed: Vec<Vec<_>> = futures::stream::iter(folders)
            .map(|folder| repository.store().list_with_times(folder))
            .buffered(CONCURRENT_REQUESTS)
            .try_collect()
            .await?;
        let found = listed.into_iter().flatten();
        Ok(Self {
            repository: repository.clone(),
            options,
            found: found.map(|(key, size, time)| (key, (size, time))).collect(),
            now,
            marked: Marked::new(repository),
        })
    }

    /// Marks what the refs of `state` need, beyond what is marked already.
    async fn mark(&mut self, state: &LogState) -> Result<(), Error> {
        let kept_since = self.now - self.options.retention;
        let repository = self.repository.clone();
        let lists_since = self.now - self.options.transaction_idle;
        let roots = repository
            .roots(&mut self.marked, state, kept_since, lists_since)
            .await?;
        repository
            .mark(&mut self.marked, roots, state, kept_since)
            .await?;
        match self.marked.damage().first() {
            None => Ok(()),
            Some(damage) => Err(Error::corrupt(
                damage.object.clone(),
                format!("{}: nothing was deleted", damage.reason),
            )),
        }
    }

    /// What may go, and of transactions that are over, what is left.
    async fn candidates(&mut self) -> Result<(SweepList, GcReport, Vec<String>), Error> {
        let repository = self.repository.clone();
        let young_since = self.now - self.options.grace;
        let times = (young_since, self.now - self.options.transaction_idle);
        let (bases, over) = repository
            .mark_staged(&mut self.marked, &self.found, times, self.options.dry_run)
            .await?;
        let state = repository.head().await?;
        let kept_since = self.now - self.options.retention;
        repository
            .mark(&mut self.marked, bases, &state, kept_since)
            .await?;
        let is_named_by_content = |key: &str| !key.starts_with("staging/");
        let unmarked =
            |marked: &Marked, key: &str| is_named_by_content(key) && !marked.keys().contains(key);
        let young: Vec<String> = self
            .found
            .iter()
            .filter(|(key, (_, time))| *time >= young_since && unmarked(&self.marked, key))
            .map(|(key, _)| key.clone())
            .collect();
        repository
            .mark_young(&mut self.marked, young, &self.found)
            .await?;
        let (mut report, mut list) = (GcReport::default(), SweepList::default());
        for (key, (size, time)) in &self.found {
            if !is_named_by_content(key) {
                continue;
            }
            if self.marked.keys().contains(key) {
                report.kept += 1;
                report.kept_bytes += size;
            } else if *time >= young_since {
                report.young += 1;
            } else {
                report.deleted += 1;
                report.deleted_bytes += size;
                list.keys.insert(key.clone());
            }
        }
        for key in &over {
            report.deleted += 1;
            report.deleted_bytes += self.found.get(key).map_or(0, |(size, _)| *size);
        }
        Ok((list, report, over))
    }
}
