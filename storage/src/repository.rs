//! A repository: its log, its refs, and the way commits get into it.
//!
//! Architecture invariant: creating the next log entry is the only commit point. Everything an
//! entry names is uploaded before it; nothing is visible before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use array::hash::{Hash, Kind};
use array::json;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use serde_json::Value;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::commit::{Commit, format_time};
use crate::log::{self, CHECKPOINT_INTERVAL, LogEntry, LogState, Operation, Ref, RefKind};
use crate::names::{RefBase, RefExpression, RefName};
use crate::object::object_key;
use crate::page::{ManifestRow, StatisticsRow};
use crate::radix::{Pages, page_cache};
use crate::snapshot::{DocumentCache, Snapshot, document_cache};
use crate::store::{Put, Store};
use crate::tree::Trees;
use crate::{CommitId, Error};

const REPO_KEY: &str = "repo.json";
const HINT_KEY: &str = "log/_hint.json";
/// Log entries read at once.
const CONCURRENT_ENTRIES: usize = 32;
/// How long a commit whose outcome is unclear is pursued.
const UNCLEAR_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a commit that keeps losing the race for a slot goes on.
const CONTENTION_TIMEOUT: Duration = Duration::from_secs(600);
/// A writer whose clock is further behind the store's than this refuses to write.
const MAX_CLOCK_BEHIND: TimeDelta = TimeDelta::minutes(5);
/// Verified pages, trees and documents kept per repository: enough for the metadata of 10^6 chunks.
const METADATA_CACHE_BYTES: u64 = 64 << 20;

/// What a ref expression named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: CommitId,
    /// The branch, if the expression is one and will name another commit when it moves.
    pub branch: Option<RefName>,
}

/// An open repository. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Repository(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    id: Uuid,
    created: DateTime<Utc>,
    /// The newest state seen; states only grow.
    state: Mutex<LogState>,
    /// The newest time the store gave an entry.
    store_time: Mutex<Option<DateTime<Utc>>>,
    entries: Cache<u64, Arc<(Hash, LogEntry)>>,
    commits: Cache<CommitId, Arc<Commit>>,
    manifests: Pages<ManifestRow>,
    statistics: Pages<StatisticsRow>,
    trees: Trees,
    documents: DocumentCache,
}

impl Repository {
    /// Creates a repository with branch `main` at an empty root group.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is one; [`Error::Store`] if the store failed. After a
    /// failure, creating again completes it.
    pub async fn create(store: Store, actor: &str) -> Result<Self, Error> {
        let id = Uuid::new_v4();
        let document = serde_json::json!({
            "created": format_time(Utc::now()),
            "format": "quarr",
            "hash": "blake3",
            "id": id.to_string(),
            "version": 1,
        });
        let (_, bytes) = log::with_self(Kind::Repo, document);
        let put = store.put_if_absent(REPO_KEY, bytes.into()).await?;
        let repository = Self::open(store).await?;
        if put == Put::AlreadyThere && repository.head().await?.sequence.is_some() {
            let name = repository.store().url().to_owned();
            return Err(Error::AlreadyExists {
                what: "repository",
                name,
            });
        }
        repository.write_first_entry(actor).await?;
        Ok(repository)
    }

    async fn write_first_entry(&self, actor: &str) -> Result<(), Error> {
        let main: RefName = "main".parse()?;
        let (id, bytes) = Snapshot::first_commit(actor, Uuid::new_v4().to_string()).encode();
        self.store()
            .put_immutable(&object_key(&id.0), bytes.into())
            .await?;
        let write_id = Uuid::new_v4().to_string();
        self.append(actor, &write_id.clone(), move |state| {
            let create = Operation::UpdateRef {
                name: Ref::branch(main.clone()),
                from: None,
                to: Some(id),
                write_id: write_id.clone(),
            };
            // Someone else completing the same repository is as good.
            let operations = if state.sequence.is_none() {
                Some(vec![create])
            } else {
                None
            };
            Box::pin(async move { Ok(operations) })
        })
        .await
        .map(drop)
    }

    /// Opens the repository at the root of `store`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Corrupt`] if its `repo.json` is not one;
    /// [`Error::Invalid`] if it needs a newer version.
    pub async fn open(store: Store) -> Result<Self, Error> {
        let Some(bytes) = store.get(REPO_KEY).await? else {
            return Err(Error::NotFound {
                what: "repository",
                name: store.url().to_owned(),
                suggestions: Vec::new(),
            });
        };
        let corrupt = |reason: String| Error::corrupt(REPO_KEY, reason);
        let (hash, document) = log::check_self(Kind::Repo, &bytes).map_err(corrupt)?;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if text("format") != Some("quarr") || document.get("version") != Some(&serde_json::json!(1))
        {
            let reason = "it is not of format quarr version 1: use a newer quarr";
            return Err(Error::invalid("repository", reason));
        }
        let id = text("id")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| corrupt("no id".into()))?;
        let created = text("created").unwrap_or_default();
        let created = crate::commit::parse_time(created).map_err(corrupt)?;
        Ok(Self(Arc::new(Inner {
            id,
            created,
            state: Mutex::new(LogState::initial(hash)),
            store_time: Mutex::new(None),
            entries: Cache::new(1024),
            commits: Cache::new(4096),
            manifests: Pages {
                store: store.clone(),
                cache: page_cache(METADATA_CACHE_BYTES),
            },
            statistics: Pages {
                store: store.clone(),
                cache: page_cache(METADATA_CACHE_BYTES / 4),
            },
            trees: Trees::new(store.clone(), METADATA_CACHE_BYTES / 4),
            documents: document_cache(METADATA_CACHE_BYTES / 4),
            store,
        })))
    }

    /// The repository's part of the object store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The repository's id.
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// When it was created.
    pub fn created(&self) -> DateTime<Utc> {
        self.0.created
    }

    pub(crate) fn manifests(&self) -> &Pages<ManifestRow> {
        &self.0.manifests
    }

    pub(crate) fn statistics(&self) -> &Pages<StatisticsRow> {
        &self.0.statistics
    }

    pub(crate) fn trees(&self) -> &Trees {
        &self.0.trees
    }

    pub(crate) fn documents(&self) -> &DocumentCache {
        &self.0.documents
    }

    fn known_state(&self) -> LogState {
        self.0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The newest state of the log.
    ///
    /// Costs one request when nothing is new, and never more for a longer history.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if an entry is not what the chain says;
    /// [`Error::Store`] if the store failed.
    pub async fn head(&self) -> Result<LogState, Error> {
        let known = self.known_state();
        let start = match known.sequence {
            Some(sequence) => Some(sequence),
            None => self.hinted_sequence().await?,
        };
        let Some(newest) = self.newest_sequence(start).await? else {
            return Ok(known);
        };
        let state = match known.sequence {
            Some(sequence) if newest - sequence <= 2 * CHECKPOINT_INTERVAL => {
                self.replay(known, newest).await?
            }
            _ => self.state_after(newest).await?,
        };
        let mut latest = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.next_sequence() < state.next_sequence() {
            *latest = state.clone();
        }
        Ok(state)
    }

    /// The number in the hint if that entry exists, else 0 if entry 0 does.
    async fn hinted_sequence(&self) -> Result<Option<u64>, Error> {
        let hint = self.store().get(HINT_KEY).await.ok().flatten();
        let hinted = hint
            .and_then(|bytes| json::parse("hint", &bytes).ok())
            .and_then(|hint| hint.get("sequence")?.as_str()?.parse::<u64>().ok());
        if let Some(sequence) = hinted
            && sequence > 0
            && self.entry(sequence).await?.is_some()
        {
            return Ok(Some(sequence));
        }
        Ok(self.entry(0).await?.map(|_| 0))
    }

    /// The newest entry, searched from one that is known to exist: gallop, then bisect.
    async fn newest_sequence(&self, start: Option<u64>) -> Result<Option<u64>, Error> {
        let Some(mut present) = start else {
            return Ok(None);
        };
        let mut step = 1;
        let mut absent = loop {
            let probe = present.saturating_add(step);
            if self.entry(probe).await?.is_none() {
                break probe;
            }
            present = probe;
            step *= 2;
        };
        while absent - present > 1 {
            let middle = present + (absent - present) / 2;
            match self.entry(middle).await? {
                Some(_) => present = middle,
                None => absent = middle,
            }
        }
        Ok(Some(present))
    }

    /// Entry `sequence` and its hash; `None` if there is none yet.
    async fn entry(&self, sequence: u64) -> Result<Option<Arc<(Hash, LogEntry)>>, Error> {
        if let Some(entry) = self.0.entries.get(&sequence) {
            return Ok(Some(entry));
        }
        let key = LogEntry::key(sequence);
        let Some((bytes, store_time)) = self.store().get_with_time(&key).await? else {
            return Ok(None);
        };
        let entry =
            LogEntry::decode(sequence, &bytes).map_err(|reason| Error::corrupt(&key, reason))?;
        let mut newest = self
            .0
            .store_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *newest = (*newest).max(Some(store_time));
        let entry = Arc::new(entry);
        self.0.entries.insert(sequence, entry.clone());
        Ok(Some(entry))
    }

    async fn entry_that_exists(&self, sequence: u64) -> Result<Arc<(Hash, LogEntry)>, Error> {
        let missing = || Error::Missing {
            key: LogEntry::key(sequence),
        };
        self.entry(sequence).await?.ok_or_else(missing)
    }

    /// `state` moved on to entry `newest`.
    async fn replay(&self, mut state: LogState, newest: u64) -> Result<LogState, Error> {
        let entries: Vec<_> = futures::stream::iter(state.next_sequence()..=newest)
            .map(|sequence| self.entry_that_exists(sequence))
            .buffered(CONCURRENT_ENTRIES)
            .try_collect()
            .await?;
        for entry in entries {
            let (hash, entry) = &*entry;
            state
                .apply(*hash, entry)
                .map_err(|reason| Error::corrupt(LogEntry::key(entry.sequence), reason))?;
        }
        Ok(state)
    }

    /// The state after entry `sequence`, which exists, from the nearest checkpoint before it.
    pub(crate) async fn state_after(&self, sequence: u64) -> Result<LogState, Error> {
        let mut at = sequence - sequence % CHECKPOINT_INTERVAL;
        while at > 0 {
            if let Some(state) = self.checkpoint(at).await? {
                return self.replay(state, sequence).await;
            }
            warn!(
                sequence = at,
                "checkpoint is missing, reading more of the log"
            );
            at -= CHECKPOINT_INTERVAL;
        }
        let known = LogState::initial(self.repo_hash().await?);
        self.replay(known, sequence).await
    }

    async fn repo_hash(&self) -> Result<Hash, Error> {
        let bytes = self.store().get_existing(REPO_KEY).await?;
        let (hash, _) = log::check_self(Kind::Repo, &bytes)
            .map_err(|reason| Error::corrupt(REPO_KEY, reason))?;
        Ok(hash)
    }

    /// The checkpoint after entry `sequence`, checked against that entry; `None` if it is missing.
    pub(crate) async fn checkpoint(&self, sequence: u64) -> Result<Option<LogState>, Error> {
        let key = LogState::checkpoint_key(sequence);
        let (bytes, entry) =
            futures::try_join!(self.store().get(&key), self.entry_that_exists(sequence))?;
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        let corrupt = |reason: String| Error::corrupt(&key, reason);
        let state = LogState::decode_checkpoint(sequence, &bytes).map_err(corrupt)?;
        let (hash, entry) = &*entry;
        if state.entry != *hash || state.time != Some(entry.time) {
            return Err(corrupt("it does not belong to its log entry".into()));
        }
        if state.root() != entry.state && state.after(&entry.operations).is_some() {
            return Err(corrupt("its refs are not those of its log entry".into()));
        }
        Ok(Some(state))
    }

    /// Log entries after number `after` (from the first if none), oldest first.
    ///
    /// # Errors
    /// As [`Repository::head`].
    pub async fn log(&self, after: Option<u64>, limit: usize) -> Result<Vec<LogEntry>, Error> {
        let Some(newest) = self.head().await?.sequence else {
            return Ok(Vec::new());
        };
        let first = after.map_or(0, |after| after.saturating_add(1));
        futures::stream::iter((first..=newest).take(limit))
            .map(|sequence| async move { Ok(self.entry_that_exists(sequence).await?.1.clone()) })
            .buffered(CONCURRENT_ENTRIES)
            .try_collect()
            .await
    }

    /// Appends one entry. `operations` is asked for them against the newest state, again after
    /// every lost race; `None` means there is nothing left to do.
    ///
    /// # Errors
    /// What `operations` fails with; [`Error::Unknown`] if the store gave no clear answer;
    /// [`Error::Clock`] if this machine's clock is far behind.
    pub(crate) async fn append<F>(
        &self,
        actor: &str,
        write_id: &str,
        mut operations: F,
    ) -> Result<LogState, Error>
    where
        F: FnMut(LogState) -> BoxFuture<'static, Result<Option<Vec<Operation>>, Error>> + Send,
    {
        let started = Instant::now();
        let mut state = self.head().await?;
        let mut scanned = state.next_sequence();
        for attempt in 1u32.. {
            self.check_clock()?;
            let Some(operations) = operations(state.clone()).await? else {
                return Ok(state);
            };
            let Some(refs) = state.after(&operations) else {
                return Err(Error::invalid(
                    "commit",
                    "its operations do not fit the refs",
                ));
            };
            let now =
                DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default();
            let entry = LogEntry {
                sequence: state.next_sequence(),
                previous: state.entry,
                time: state
                    .time
                    .map_or(now, |time| now.max(time + TimeDelta::microseconds(1))),
                actor: actor.to_owned(),
                operations,
                state: log::state_root(&refs),
            };
            let (_, bytes) = entry.encode();
            if self.occupy(entry.sequence, bytes.into(), write_id).await? {
                let state = self.head().await?;
                self.leave_traces(entry.sequence).await;
                return Ok(state);
            }
            debug!(
                attempt,
                sequence = entry.sequence,
                "lost the race for a log entry"
            );
            if started.elapsed() > CONTENTION_TIMEOUT {
                break;
            }
            state = self.head().await?;
            for sequence in scanned..state.next_sequence() {
                if self
                    .entry_that_exists(sequence)
                    .await?
                    .1
                    .has_write(write_id)
                {
                    return Ok(state);
                }
            }
            scanned = state.next_sequence();
        }
        Err(Error::invalid(
            "commit",
            "other writers were faster for ten minutes: nothing was written",
        ))
    }

    fn check_clock(&self) -> Result<(), Error> {
        let store_time = *self
            .0
            .store_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match store_time.map(|time| time - Utc::now()) {
            Some(behind) if behind > MAX_CLOCK_BEHIND => Err(Error::Clock {
                behind_seconds: behind.num_seconds(),
            }),
            _ => Ok(()),
        }
    }

    /// Puts `bytes` at slot `sequence` until it is occupied; says whether by these bytes.
    ///
    /// Any answer but "created" is unclear: a lost response, an internal retry that met its own
    /// write, a timed-out request that lands later. Only the slot itself tells.
    async fn occupy(&self, sequence: u64, bytes: Bytes, write_id: &str) -> Result<bool, Error> {
        let key = LogEntry::key(sequence);
        let deadline = Instant::now() + UNCLEAR_TIMEOUT;
        let mut pause = Duration::from_millis(20);
        // Until a request was sent that may have gone through, a refusal is a failure.
        let mut may_have_landed = false;
        loop {
            let put = self.store().put_if_absent(&key, bytes.clone()).await;
            if matches!(put, Ok(Put::Created)) {
                return Ok(true);
            }
            let refused = matches!(
                &put,
                Err(Error::Store {
                    source: object_store::Error::PermissionDenied { .. }
                        | object_store::Error::Unauthenticated { .. }
                        | object_store::Error::NotImplemented { .. }
                        | object_store::Error::NotSupported { .. },
                    ..
                })
            );
            may_have_landed |= !refused;
            let reason = match self.store().get(&key).await {
                Ok(Some(found)) => return Ok(found == bytes),
                Ok(None) => match put {
                    Err(error) if !may_have_landed => return Err(error),
                    Err(error) => chain(&error),
                    Ok(_) => "the store says the entry exists and that it does not".to_owned(),
                },
                Err(error) => chain(&error),
            };
            if Instant::now() > deadline {
                return Err(Error::Unknown {
                    write_id: write_id.to_owned(),
                    reason,
                });
            }
            warn!(%key, %reason, "unclear outcome of a commit, asking again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// The hint and, where one is due, the checkpoint. Both can be had without, so failures pass.
    async fn leave_traces(&self, sequence: u64) {
        let hint = serde_json::json!({ "sequence": sequence.to_string() });
        if sequence.is_multiple_of(16) {
            let bytes = json::canonical_bytes(&hint);
            if let Err(error) = self.store().overwrite(HINT_KEY, bytes.into()).await {
                debug!(%error, "hint not written");
            }
        }
        if sequence > 0 && sequence.is_multiple_of(CHECKPOINT_INTERVAL) {
            let written = async {
                let state = self.state_after_without_checkpoint(sequence).await?;
                let bytes = state.encode_checkpoint();
                self.store()
                    .put_if_absent(&LogState::checkpoint_key(sequence), bytes.into())
                    .await
            };
            if let Err(error) = written.await {
                warn!(sequence, %error, "checkpoint not written");
            }
        }
    }

    async fn state_after_without_checkpoint(&self, sequence: u64) -> Result<LogState, Error> {
        let before = self.state_after(sequence - 1).await?;
        self.replay(before, sequence).await
    }

    /// The commit an expression names.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, with names that look alike; [`Error::Invalid`] for an
    /// ambiguous prefix.
    pub async fn resolve(&self, expression: &RefExpression) -> Result<Resolved, Error> {
        let (mut commit, branch) = match &expression.base {
            RefBase::Name(name) => {
                let state = match expression.at {
                    Some(time) => self.state_at(time).await?,
                    None => self.head().await?,
                };
                let branch = Ref::branch(name.clone());
                match (state.get(&branch), state.get(&Ref::tag(name.clone()))) {
                    (Some(commit), _) => (commit, expression.at.is_none().then(|| name.clone())),
                    (None, Some(commit)) => (commit, None),
                    (None, None) => {
                        let known = state.refs.keys().map(|name| name.name.as_str());
                        return Err(Error::not_found("branch or tag", name.as_str(), known));
                    }
                }
            }
            RefBase::Commit(commit) => (*commit, None),
            RefBase::Prefix(digits) => (self.commit_with_prefix(digits).await?, None),
        };
        for _ in 0..expression.ancestors {
            let parents = &self.commit(commit).await?.parents;
            commit = *parents.first().ok_or_else(|| Error::NotFound {
                what: "parent of the first commit",
                name: commit.to_string(),
                suggestions: Vec::new(),
            })?;
        }
        let branch = branch.filter(|_| expression.ancestors == 0);
        if !matches!(expression.base, RefBase::Name(_)) {
            self.commit(commit).await?;
        }
        Ok(Resolved { commit, branch })
    }

    async fn commit_with_prefix(&self, digits: &str) -> Result<CommitId, Error> {
        let (folder, rest) = digits.split_at(2);
        let mut found = Vec::new();
        for (key, _) in self.store().list(&format!("objects/{folder}")).await? {
            let Some(name) = key.rsplit('/').next().filter(|name| name.starts_with(rest)) else {
                continue;
            };
            let Ok(id) = format!("{folder}{name}").parse::<CommitId>() else {
                continue;
            };
            if self.commit(id).await.is_ok() {
                found.push(id);
            }
        }
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(Error::not_found("commit", digits, [])),
            _ => Err(Error::invalid(
                "commit",
                format!("{digits} names {} commits: give more digits", found.len()),
            )),
        }
    }

    /// The refs as they were at `time`.
    async fn state_at(&self, time: DateTime<Utc>) -> Result<LogState, Error> {
        let none = || Error::NotFound {
            what: "state of the repository at",
            name: format_time(time),
            suggestions: Vec::new(),
        };
        let newest = self.head().await?.sequence.ok_or_else(none)?;
        // The first entry later than `time`, by bisection: times strictly increase.
        let (mut low, mut high) = (0, newest + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry_that_exists(middle).await?.1.time <= time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.state_after(low.checked_sub(1).ok_or_else(none)?).await
    }

    /// A commit's document.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such commit; [`Error::Corrupt`] if its bytes are others.
    pub async fn commit(&self, id: CommitId) -> Result<Arc<Commit>, Error> {
        if let Some(commit) = self.0.commits.get(&id) {
            return Ok(commit);
        }
        let key = object_key(&id.0);
        let Some(bytes) = self.store().get(&key).await? else {
            return Err(Error::not_found("commit", &id.to_string(), []));
        };
        let commit = Commit::decode(&id, &bytes).map_err(|reason| Error::corrupt(&key, reason))?;
        let commit = Arc::new(commit);
        self.0.commits.insert(id, commit.clone());
        Ok(commit)
    }

    /// The state of the hierarchy at a commit.
    ///
    /// # Errors
    /// As [`Repository::commit`].
    pub async fn snapshot(&self, id: CommitId) -> Result<Snapshot, Error> {
        Ok(Snapshot::new(self.clone(), id, self.commit(id).await?))
    }

    /// Creates a branch or a tag at `commit`.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if a branch or tag has the name; [`Error::NotFound`] if there is no
    /// such commit.
    pub async fn create_ref(
        &self,
        kind: RefKind,
        name: &RefName,
        commit: CommitId,
        actor: &str,
    ) -> Result<(), Error> {
        self.commit(commit).await?;
        self.update_ref(
            actor,
            Ref {
                kind,
                name: name.clone(),
            },
            move |state, name| {
                let taken = |kind| {
                    state
                        .get(&Ref {
                            kind,
                            name: name.name.clone(),
                        })
                        .is_some()
                };
                if taken(RefKind::Branch) || taken(RefKind::Tag) {
                    return Err(Error::AlreadyExists {
                        what: "branch or tag",
                        name: name.name.to_string(),
                    });
                }
                Ok((None, Some(commit)))
            },
        )
        .await
    }

    /// Deletes a branch or a tag. The commits stay.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of that name.
    pub async fn delete_ref(
        &self,
        kind: RefKind,
        name: &RefName,
        actor: &str,
    ) -> Result<(), Error> {
        self.update_ref(
            actor,
            Ref {
                kind,
                name: name.clone(),
            },
            move |state, name| {
                let what = if kind == RefKind::Branch {
                    "branch"
                } else {
                    "tag"
                };
                let known = state
                    .refs
                    .keys()
                    .filter(|known| known.kind == kind)
                    .map(|k| k.name.as_str());
                let from = state
                    .get(name)
                    .ok_or_else(|| Error::not_found(what, name.name.as_str(), known))?;
                Ok((Some(from), None))
            },
        )
        .await
    }

    async fn update_ref<F>(&self, actor: &str, name: Ref, change: F) -> Result<(), Error>
    where
        F: Fn(&LogState, &Ref) -> Result<(Option<CommitId>, Option<CommitId>), Error> + Send,
    {
        let write_id = Uuid::new_v4().to_string();
        self.append(actor, &write_id.clone(), move |state| {
            let operations = change(&state, &name).map(|(from, to)| {
                Some(vec![Operation::UpdateRef {
                    name: name.clone(),
                    from,
                    to,
                    write_id: write_id.clone(),
                }])
            });
            Box::pin(async move { operations })
        })
        .await
        .map(drop)
    }

    /// Deletes the repository: first the file that makes it one, then everything else.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed; deleting again goes on.
    pub async fn delete(self) -> Result<(), Error> {
        self.store().delete(vec![REPO_KEY.to_owned()]).await?;
        let keys: HashMap<String, u64> = self.store().list("").await?.into_iter().collect();
        self.store().delete(keys.into_keys().collect()).await
    }
}

/// Names of the repositories directly under `store`.
///
/// # Errors
/// [`Error::Store`] if the store failed.
pub async fn list_repositories(store: &Store) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = futures::stream::iter(store.folders().await?)
        .map(|name| async move {
            let found = store.under(&name).get(REPO_KEY).await?;
            Ok::<_, Error>(found.map(|_| name))
        })
        .buffered(CONCURRENT_ENTRIES)
        .try_filter_map(|name| async move { Ok(name) })
        .try_collect()
        .await?;
    names.sort();
    Ok(names)
}

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
