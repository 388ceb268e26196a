//! Transactions whose changes are staged in the object store, so that any process can go on with
//! them.
//!
//! ```text
//! staging/<id>/begin          base, branch, isolation, write id
//! staging/<id>/<clock>-<uuid> steps of one writer                 put-if-absent
//! staging/<id>/closing        no steps after this one count       put-if-absent
//! ```
//!
//! A writer acknowledges a step once its record is stored and `closing` is still absent. Whoever
//! commits puts `closing` first and lists the records then, so it has every acknowledged step. All
//! committers write the same write id, of which the log takes one.
//!
//! Spec: `docs/format.md`, "Transactions".

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use array::hash::{Hash, Kind, hash};
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commit::{format_time, parse_time};
use crate::conflict::{Conflict, ConflictKind};
use crate::head::CONCURRENT_ENTRIES;
use crate::journal::{ChunkStep, Step, decode_record, encode_record};
use crate::log::{Asked, Idempotency, check_self, with_self};
use crate::names::RefName;
use crate::repository::Repository;
use crate::store::Put;
use crate::transaction::{CommitOptions, Isolation, Transaction};
use crate::{CommitId, Error};

/// Longest record that is read, in bytes.
const MAX_RECORD_BYTES: usize = 256 << 20;

/// Names a shared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(Uuid);

impl TransactionId {
    fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// That of the transaction which requests under a key open.
    fn of(idempotency: &Idempotency) -> Self {
        let digest = hash(Kind::Request, idempotency.key.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl std::str::FromStr for TransactionId {
    type Err = Error;

    /// 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = Uuid::try_parse(text).ok().filter(|_| text.len() == 32);
        let reason = || format!("{text:?} is not 32 hexadecimal digits");
        parsed
            .map(Self)
            .ok_or_else(|| Error::invalid("transaction", reason()))
    }
}

/// How far a shared transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// It takes changes.
    Open,
    /// A commit of it was asked for and is not in the log, or not yet.
    Closing,
    /// It is in the log, as this commit.
    Committed(CommitId),
    /// It was given up.
    Aborted,
}

/// A transaction whose changes are staged in the object store.
#[derive(Debug)]
pub struct SharedTransaction {
    id: TransactionId,
    actor: String,
    started: DateTime<Utc>,
    transaction: Transaction,
    staged: Mutex<Staged>,
    /// Held while records are read or written, so that each sees all before it.
    turn: tokio::sync::Mutex<()>,
    /// Held while something is made on condition that it is not there.
    creating: tokio::sync::Mutex<()>,
}

/// Work that leaves the transaction in memory unlike what is staged if it is not finished, be it that
/// it fails or that nobody waits for it any more.
struct Unfinished<'a>(Option<&'a SharedTransaction>);

impl Unfinished<'_> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(transaction) = self.0 {
            transaction.staged().failed = true;
        }
    }
}

#[derive(Debug, Default)]
struct Staged {
    /// Names of the records that are part of the transaction here.
    records: BTreeSet<String>,
    /// Whether some of them are of other writers.
    has_others: bool,
    /// Steps that do not go together.
    conflicts: Vec<Conflict>,
    /// Set once a record could not be stored: what is here is not what is staged.
    failed: bool,
    /// Whether a commit or an abort was seen.
    closed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    actor: String,
    base: CommitId,
    branch: String,
    isolation: String,
    /// Of a request that may be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Hash>,
    since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sweep: Option<Hash>,
    time: String,
    write_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closing {
    aborted: bool,
}

fn folder(id: TransactionId) -> String {
    format!("staging/{id}")
}

fn begin_key(id: TransactionId) -> String {
    format!("{}/begin", folder(id))
}

impl Repository {
    /// Opens a transaction on a branch that any process can go on with; or takes up the one that an
    /// earlier request of the same key opened.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such branch; [`Error::KeyReused`] if another request had the
    /// key; [`Error::Store`] if the store failed.
    pub async fn open_transaction<'a>(
        &self,
        branch: &RefName,
        isolation: Isolation,
        asked: impl Into<Asked<'a>>,
    ) -> Result<SharedTransaction, Error> {
        let Asked { actor, idempotency } = asked.into();
        let id = idempotency
            .as_ref()
            .map_or_else(TransactionId::new, TransactionId::of);
        let request = idempotency.map(|idempotency| idempotency.request);
        if request.is_some()
            && let Some(begin) = self.begin(id).await?
        {
            return self.take_up_again(id, begin, request).await;
        }
        let mut transaction = Transaction::begin_with(self, branch, isolation).await?;
        transaction.keep_journal();
        let started = Utc::now();
        let begin = Begin {
            actor: actor.to_owned(),
            base: transaction.base().id(),
            branch: branch.to_string(),
            isolation: match isolation {
                Isolation::Snapshot => "snapshot".into(),
                Isolation::Serializable => "serializable".into(),
            },
            request,
            since: transaction.since().to_string(),
            sweep: transaction.sweep(),
            time: format_time(started),
            write_id: transaction.write_id().to_owned(),
        };
        let put = self
            .store()
            .put_if_absent(&begin_key(id), encode(&begin)?.into())
            .await?;
        if put == Put::AlreadyThere {
            // It may be this one, of which the answer was lost.
            return match self.begin(id).await? {
                Some(begin) => self.take_up_again(id, begin, request).await,
                None => Err(Error::not_found("transaction", &id.to_string(), [])),
            };
        }
        Ok(SharedTransaction {
            id,
            actor: actor.to_owned(),
            started,
            transaction,
            staged: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        })
    }

    async fn take_up_again(
        &self,
        id: TransactionId,
        begin: Begin,
        request: Option<Hash>,
    ) -> Result<SharedTransaction, Error> {
        if begin.request != request {
            let key = format!("of transaction {id}");
            return Err(Error::KeyReused { key });
        }
        self.take_up(id, begin).await
    }

    async fn begin(&self, id: TransactionId) -> Result<Option<Begin>, Error> {
        let key = begin_key(id);
        let Some(bytes) = self.store().get(&key).await? else {
            return Ok(None);
        };
        let begin = decode(&bytes).map_err(|reason| Error::corrupt(&key, reason))?;
        Ok(Some(begin))
    }

    /// Takes up a transaction that some process opened, with everything staged so far.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Corrupt`] if what is staged is damaged.
    pub async fn shared_transaction(&self, id: TransactionId) -> Result<SharedTransaction, Error> {
        match self.begin(id).await? {
            Some(begin) => self.take_up(id, begin).await,
            None => Err(Error::not_found("transaction", &id.to_string(), [])),
        }
    }

    async fn take_up(&self, id: TransactionId, begin: Begin) -> Result<SharedTransaction, Error> {
        let corrupt = |reason: String| Error::corrupt(begin_key(id), reason);
        let isolation = match begin.isolation.as_str() {
            "snapshot" => Isolation::Snapshot,
            "serializable" => Isolation::Serializable,
            other => return Err(corrupt(format!("isolation {other:?}"))),
        };
        let branch: RefName = begin
            .branch
            .parse()
            .map_err(|error: Error| corrupt(error.to_string()))?;
        let since = begin
            .since
            .parse()
            .map_err(|_| corrupt("its log entry is no number".into()))?;
        let base = self.snapshot(begin.base).await?;
        let mut transaction = Transaction::from_parts(
            base,
            &branch,
            isolation,
            begin.write_id,
            (since, begin.sweep),
        );
        transaction.keep_journal();
        let shared = SharedTransaction {
            id,
            actor: begin.actor,
            started: parse_time(&begin.time).map_err(corrupt)?,
            transaction,
            staged: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        };
        shared.refresh().await?;
        Ok(shared)
    }

    /// The transactions that are staged, whatever became of them.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn staged_transactions(&self) -> Result<Vec<TransactionId>, Error> {
        let folders = self.store().under("staging").folders().await?;
        Ok(folders
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    async fn closing(&self, id: TransactionId) -> Result<Option<Closing>, Error> {
        let key = format!("{}/closing", folder(id));
        let Some(bytes) = self.store().get(&key).await? else {
            return Ok(None);
        };
        let closing = decode(&bytes).map_err(|reason| Error::corrupt(&key, reason))?;
        Ok(Some(closing))
    }
}

/// A staged document, with its own hash.
fn encode(document: &impl Serialize) -> Result<Vec<u8>, Error> {
    let value = serde_json::to_value(document)
        .map_err(|error| Error::invalid("transaction", error.to_string()))?;
    Ok(with_self(Kind::Staged, value).1)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (_, value) = check_self(Kind::Staged, bytes)?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

impl SharedTransaction {
    /// Its name.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Who opened it.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// When it was opened.
    pub fn started(&self) -> DateTime<Utc> {
        self.started
    }

    /// The transaction, with the changes staged by any process as of the last
    /// [`SharedTransaction::refresh`]. Changes made to it count once
    /// [`SharedTransaction::flush`] succeeds.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else makes something on condition that it is not there.
    pub async fn creating(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.creating.lock().await
    }

    /// Whether it can be used further; if not, what is staged has to be read again.
    pub fn is_usable(&self) -> bool {
        !self.staged().failed
    }

    /// Fails once a commit or an abort was seen by [`SharedTransaction::refresh`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn check_open(&self) -> Result<(), Error> {
        if self.staged().closed {
            return Err(self.closed());
        }
        Ok(())
    }

    /// What became of it.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn state(&self) -> Result<TransactionState, Error> {
        let repository = self.transaction.repository();
        match repository.closing(self.id).await? {
            None => Ok(TransactionState::Open),
            Some(Closing { aborted: true }) => Ok(TransactionState::Aborted),
            Some(Closing { aborted: false }) => {
                let write = self.transaction.write_id();
                let found = repository
                    .find_write(write, self.transaction.since())
                    .await?;
                Ok(found.map_or(TransactionState::Closing, TransactionState::Committed))
            }
        }
    }

    /// Takes in what other processes have staged.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record is damaged or its steps make no sense.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.read_records().await
    }

    async fn read_records(&self) -> Result<(), Error> {
        let store = self.transaction.repository().store().clone();
        let folder = folder(self.id);
        let listed = store.list(&folder).await?;
        let mut names: Vec<String> = {
            let mut staged = self.staged();
            staged.closed |= listed.iter().any(|(key, _)| key.ends_with("/closing"));
            let name = |(key, _): (String, u64)| key.rsplit('/').next().map(str::to_owned);
            let is_new = |name: &String| name.contains('-') && !staged.records.contains(name);
            listed.into_iter().filter_map(name).filter(is_new).collect()
        };
        // By the writers' clocks.
        names.sort();
        let records: Vec<(String, Vec<Step>)> = futures::stream::iter(names)
            .map(|name| {
                let (store, key) = (store.clone(), format!("{folder}/{name}"));
                async move {
                    let bytes = store.get_existing(&key).await?;
                    if bytes.len() > MAX_RECORD_BYTES {
                        return Err(Error::corrupt(&key, "it is too long for a record"));
                    }
                    let steps =
                        decode_record(&bytes).map_err(|reason| Error::corrupt(&key, reason))?;
                    Ok((name, steps))
                }
            })
            .buffered(CONCURRENT_ENTRIES)
            .try_collect()
            .await?;
        for (name, steps) in records {
            let replaying = Unfinished(Some(self));
            for step in &steps {
                self.replay(step).await.map_err(|error| match error {
                    Error::Store { .. } | Error::Missing { .. } => error,
                    other => {
                        let key = format!("{folder}/{name}");
                        Error::invalid("transaction", format!("{key} does not fit: {other}"))
                    }
                })?;
            }
            {
                let mut staged = self.staged();
                staged.records.insert(name);
                staged.has_others = true;
            }
            replaying.finish();
        }
        Ok(())
    }

    async fn replay(&self, step: &Step) -> Result<(), Error> {
        let Step::Chunk(chunk) = step else {
            return self.transaction.replay(step).await;
        };
        let conflict = self.replay_chunk(chunk).await?;
        self.staged().conflicts.extend(conflict);
        Ok(())
    }

    /// Takes in a chunk another writer staged; gives the inner chunks both it and a writer it did
    /// not know of have written differently.
    async fn replay_chunk(&self, step: &ChunkStep) -> Result<Vec<Conflict>, Error> {
        let invalid = |reason: String| Error::invalid("transaction", reason);
        let path = step.path.parse()?;
        let (index, change) = step.change().map_err(invalid)?;
        let clashes = self
            .transaction
            .merge_version(&path, &index, step, change)
            .await?;
        let clash = |region| Conflict {
            path: path.clone(),
            kind: ConflictKind::StagedTwice,
            region: Some(region),
        };
        Ok(clashes.into_iter().map(clash).collect())
    }

    /// Stages what was changed and read since the last time; others can go on with it then.
    ///
    /// # Errors
    /// [`Error::Closed`] if a commit or an abort came first; [`Error::Store`] if the store failed;
    /// [`Error::Unstaged`] if it did so for another one, whose steps may be those of this caller.
    /// After any error the changes may or may not count: the transaction has to be taken up anew.
    pub async fn flush(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.check_open()?;
        if !self.is_usable() {
            return Err(Error::Unstaged {
                transaction: self.id.to_string(),
            });
        }
        let staging = Unfinished(Some(self));
        let steps = self.transaction.take_steps();
        let repository = self.transaction.repository();
        if !steps.is_empty() {
            // After every record this writer has seen.
            let clock = self.staged().records.last().map_or(0, |last| {
                let digits = last.split('-').next().unwrap_or_default();
                digits.parse::<u64>().unwrap_or(0).saturating_add(1)
            });
            let name = format!("{clock:020}-{}", Uuid::new_v4().simple());
            let key = format!("{}/{name}", folder(self.id));
            let bytes = encode_record(&steps);
            repository.store().put_immutable(&key, bytes.into()).await?;
            self.staged().records.insert(name);
        }
        if repository.closing(self.id).await?.is_some() {
            self.staged().closed = true;
            return Err(self.closed());
        }
        staging.finish();
        Ok(())
    }

    fn closed(&self) -> Error {
        Error::Closed {
            transaction: self.id.to_string(),
        }
    }

    /// Commits what all processes have staged. A second committer gets the first one's commit.
    ///
    /// After a conflict it can be committed again with other options, but takes no more changes.
    ///
    /// # Errors
    /// [`Error::Closed`] if it was aborted; else as [`Transaction::commit`].
    pub async fn commit(self, options: CommitOptions) -> Result<CommitId, Error> {
        self.flush_pending().await?;
        // Otherwise there may be changes here that nobody stages any more.
        let was_open = self.check_open().is_ok();
        let repository = self.transaction.repository().clone();
        let closing = self.close(false).await?;
        if closing.aborted {
            return Err(self.closed());
        }
        let (write_id, since) = (self.transaction.write_id(), self.transaction.since());
        if let Some(commit) = repository.find_write(write_id, since).await? {
            return Ok(commit);
        }
        let id = self.id;
        let all = match was_open && self.has_all_alone().await? {
            true => self,
            false => {
                // From nothing but what is staged, in the order everyone reads it. What is here would
                // be as much again.
                drop(self);
                repository.shared_transaction(id).await?
            }
        };
        let staged = all
            .staged
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if !staged.conflicts.is_empty() {
            return Err(Error::Conflict {
                branch: all.transaction.branch().to_string(),
                base: all.transaction.base().id(),
                conflicts: staged.conflicts,
            });
        }
        let commit = all.transaction.commit(options).await?;
        // What was staged is in the log now. What cannot be deleted is left to garbage collection.
        let folder = folder(id);
        let keys = staged.records.iter().map(|name| format!("{folder}/{name}"));
        let _ = repository.store().delete(keys.collect()).await;
        Ok(commit)
    }

    /// Whether what is here is all that is staged, in the order it was: no other writer staged
    /// anything, and nothing here failed.
    async fn has_all_alone(&self) -> Result<bool, Error> {
        let _turn = self.turn.lock().await;
        let store = self.transaction.repository().store();
        let listed = store.list(&folder(self.id)).await?;
        let names = listed.iter().filter_map(|(key, _)| key.rsplit('/').next());
        let found: BTreeSet<&str> = names.filter(|name| name.contains('-')).collect();
        let staged = self.staged();
        let own = staged.records.iter().map(String::as_str);
        Ok(!staged.failed && !staged.has_others && own.eq(found.iter().copied()))
    }

    /// Stages what has not been staged yet, unless it is too late: then that is no error here, since
    /// nobody was told that it counts.
    async fn flush_pending(&self) -> Result<(), Error> {
        if !self.is_usable() {
            return Ok(());
        }
        match self.flush().await {
            Err(Error::Closed { .. }) => Ok(()),
            other => other,
        }
    }

    /// Gives the transaction up. Nothing of it is ever committed.
    ///
    /// # Errors
    /// [`Error::Closed`] if a commit came first.
    pub async fn abort(&self) -> Result<(), Error> {
        let closing = self.close(true).await?;
        if !closing.aborted {
            return Err(self.closed());
        }
        let repository = self.transaction.repository();
        let folder = folder(self.id);
        let keys = repository.store().list(&folder).await?;
        let records = keys.into_iter().map(|(key, _)| key);
        let records = records.filter(|key| key.contains('-')).collect();
        // It is over already. What cannot be deleted is left to garbage collection, as after a commit.
        let _ = repository.store().delete(records).await;
        Ok(())
    }

    /// Closes the transaction, unless it is closed; gives how it was.
    async fn close(&self, aborted: bool) -> Result<Closing, Error> {
        let repository = self.transaction.repository();
        let closing = Closing { aborted };
        let key = format!("{}/closing", folder(self.id));
        let bytes = encode(&closing)?;
        match repository.store().put_if_absent(&key, bytes.into()).await {
            Ok(Put::Created) => Ok(closing),
            // It was there, or the outcome is unclear: what is there counts.
            other => match repository.closing(self.id).await? {
                Some(found) => Ok(found),
                None => {
                    other?;
                    Err(Error::Missing { key })
                }
            },
        }
    }
}
