//! Publishing the transparency logs of repositories whose keys are here.
//!
//! ```text
//! log entry appended ─► tree extended ─► head noted down ─► signed ─► witnesses ─► published
//! ```
//!
//! Commits do not wait for it. What one publication misses, the next one covers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use storage::Repository;
use storage::tlog::Checkpoint;
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::Failure;
use crate::keys::{KeyDirectory, LogKeys};
use crate::state::State;
use crate::witness::Witness;

/// Shortest time between two publications of one log.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// How often a log is looked at for entries of other processes.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Logs published at once.
const CONCURRENT_LOGS: usize = 8;

/// Keys, and who else signs.
#[derive(Clone, Debug)]
pub struct Signing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: KeyDirectory,
    witnesses: Vec<Witness>,
    /// How many witnesses must have signed a head before it is published.
    quorum: usize,
    /// Held while the log of a repository is being published.
    turns: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

impl Signing {
    /// Signing with the keys of a directory.
    pub fn new(keys: KeyDirectory, witnesses: Vec<Witness>, quorum: usize) -> Self {
        Self(Arc::new(Inner {
            keys,
            witnesses,
            quorum,
            turns: Mutex::default(),
        }))
    }

    /// The keys.
    pub fn keys(&self) -> &KeyDirectory {
        &self.0.keys
    }

    /// The keys of a repository's log; none if it is not signed here.
    ///
    /// # Errors
    /// 500 if the file with its keys cannot be read.
    pub fn keys_of(&self, repository: &Repository) -> Result<LogKeys, Failure> {
        let keys = self.0.keys.keys(repository.id());
        keys.map_err(Failure::signing)
    }

    /// Publishes the log up to its newest entry; `None` if its key is not here.
    ///
    /// # Errors
    /// 500 if it must not be signed, or cannot be.
    pub async fn publish(&self, repository: &Repository) -> Result<Option<Published>, Failure> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(repository.id()).or_default().clone()
        };
        let _turn = turn.lock().await;
        let keys = self.keys_of(repository)?;
        if keys.signing.is_empty() {
            return Ok(None);
        }
        let mut checkpoint = match self.sign(repository, &keys).await? {
            Head::Published(checkpoint) => {
                return Ok(Some(Published {
                    checkpoint,
                    without: Vec::new(),
                }));
            }
            Head::Signed(checkpoint) => checkpoint,
        };
        let without = self.witness(repository, &mut checkpoint).await;
        let witnessed = self.0.witnesses.len() - without.len();
        if witnessed < self.0.quorum {
            return Err(Failure::signing(format!(
                "{witnessed} of the {} witnesses it takes signed the head of {} entries, which is not published: {}",
                self.0.quorum,
                checkpoint.head.size,
                without.join("; ")
            )));
        }
        repository.publish(&checkpoint).await?;
        Ok(Some(Published {
            checkpoint,
            without,
        }))
    }

    /// Signs the tree over the whole log, unless that is what is published. No other process signs
    /// meanwhile: between a look at what was signed and the next signature nothing may change.
    async fn sign(&self, repository: &Repository, keys: &LogKeys) -> Result<Head, Failure> {
        let (directory, id) = (self.0.keys.clone(), repository.id());
        let lock = tokio::task::spawn_blocking(move || directory.lock(id)).await;
        let lock = lock.map_err(|error| Failure::signing(error.to_string()))?;
        let _lock = lock.map_err(Failure::signing)?;
        let noted = self.0.keys.signed(id).map_err(Failure::signing)?;
        let newest = repository.head().await?.next_sequence();
        let mut signed = vec![noted];
        if let Some(published) = published(repository, keys, noted.0 > 0).await? {
            let head = (published.head.size, published.head.root);
            let is_newest = head == noted && published.head.size == newest;
            if is_newest && self.is_complete(&published, keys) {
                return Ok(Head::Published(published));
            }
            signed.push(head);
        }
        let tree = repository.extend_tree(&signed).await?;
        let note = self.0.keys.note_signed(id, &tree);
        note.map_err(Failure::signing)?;
        Ok(Head::Signed(Repository::sign_tree(&tree, &keys.signing)))
    }

    /// Whether everyone who should has signed.
    fn is_complete(&self, checkpoint: &Checkpoint, keys: &LogKeys) -> bool {
        let own = keys.verifiers();
        let witnesses = self.0.witnesses.iter().map(Witness::key);
        let mut all = own.iter().chain(witnesses);
        all.all(|key| checkpoint.note.is_signed_with(key))
    }

    /// Has every witness sign; gives those that did not, and why.
    async fn witness(&self, repository: &Repository, checkpoint: &mut Checkpoint) -> Vec<String> {
        let unsigned = checkpoint.clone();
        let asked = self.0.witnesses.iter().map(|witness| {
            let unsigned = &unsigned;
            async move { (witness, witness.cosign(repository, unsigned).await) }
        });
        let mut without = Vec::new();
        for (witness, answer) in futures::future::join_all(asked).await {
            if let Err(reason) = answer.and_then(|answer| witness.add(&answer, checkpoint)) {
                let name = witness.key().name();
                warn!(witness = name, %reason, "no cosignature");
                without.push(format!("no cosignature of {name}: {reason}"));
            }
        }
        without
    }
}

/// A head, before witnesses have seen it.
enum Head {
    /// It is published, and everyone has signed it.
    Published(Checkpoint),
    /// It is signed here.
    Signed(Checkpoint),
}

/// A head that is published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The head.
    pub checkpoint: Checkpoint,
    /// Why which witnesses have not signed it.
    pub without: Vec<String>,
}

/// The published head, signed with one of `keys`. What is something else is passed over if what was
/// signed is known otherwise: it is damaged, and will be replaced.
async fn published(
    repository: &Repository,
    keys: &LogKeys,
    is_known: bool,
) -> Result<Option<Checkpoint>, Failure> {
    let verified = match repository.published().await {
        Ok(None) => return Ok(None),
        Ok(Some(published)) => match published.verify(&keys.known()) {
            Ok(_) => return Ok(Some(published)),
            Err(reason) => reason,
        },
        Err(error @ storage::Error::Corrupt { .. }) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    if is_known {
        warn!(reason = %verified, "the published checkpoint is replaced");
        return Ok(None);
    }
    let what = "delete tlog/checkpoint from the store if it is not to be trusted";
    Err(Failure::signing(format!(
        "the published checkpoint: {verified}; {what}"
    )))
}

/// Keeps publishing the logs of open repositories as they grow: soon after this process appended
/// to one, later where others did.
pub async fn keep_publishing(state: State) {
    let Some(signing) = state.signing().cloned() else {
        return;
    };
    if !signing.keys().is_empty() {
        open_all(&state).await;
    }
    let mut known: HashMap<Uuid, Known> = HashMap::new();
    loop {
        let due: Vec<Repository> = state
            .opened()
            .into_iter()
            .map(|(_, repository)| repository)
            .filter(|repository| known.entry(repository.id()).or_default().is_due(repository))
            .collect();
        let publications = due.iter().cloned().map(|repository| {
            let signing = signing.clone();
            async move { signing.publish(&repository).await }
        });
        let published: Vec<_> = futures::stream::iter(publications)
            .buffered(CONCURRENT_LOGS)
            .collect()
            .await;
        for (repository, result) in due.iter().zip(published) {
            known
                .entry(repository.id())
                .or_default()
                .tell(repository, result);
        }
        tokio::time::sleep(PUBLISH_INTERVAL).await;
    }
}

/// Opens the repositories of the store, so that their logs are followed.
async fn open_all(state: &State) {
    let names = match storage::list_repositories(state.store()).await {
        Ok(names) => names,
        Err(error) => return warn!(%error, "logs are signed once their repositories are used"),
    };
    for name in names.iter().filter_map(|name| name.parse().ok()) {
        if let Err(failure) = state.repository(&name).await {
            let reason = &failure.problem().detail;
            warn!(repository = name.as_str(), %reason, "its log is not followed");
        }
    }
}

/// What was published of a log.
#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    /// What this process had appended then.
    appended: Option<u64>,
    size: Option<u64>,
    failure: Option<String>,
}

impl Known {
    fn is_due(&mut self, repository: &Repository) -> bool {
        let appended = *repository.appended().borrow();
        let is_due =
            appended != self.appended || self.looked.is_none_or(|at| at.elapsed() > POLL_INTERVAL);
        if is_due {
            (self.looked, self.appended) = (Some(Instant::now()), appended);
        }
        is_due
    }

    /// Says in the service's log what is new.
    fn tell(&mut self, repository: &Repository, result: Result<Option<Published>, Failure>) {
        let url = repository.store().url();
        let id = repository.id();
        match result {
            Ok(published) => {
                let size = published.map(|published| published.checkpoint.head.size);
                if let Some(entries) = size.filter(|_| size != self.size) {
                    info!(store = url, %id, entries, "signed the log");
                }
                (self.size, self.failure) = (size, None);
            }
            Err(failure) => {
                let reason = failure.problem().detail.clone();
                if self.failure.as_ref() != Some(&reason) {
                    warn!(store = url, %id, %reason, "the log is not signed");
                }
                self.failure = Some(reason);
            }
        }
    }
}
