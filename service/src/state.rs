//! What all requests share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use array::NodePath;
use bytes::Bytes;
use moka::sync::Cache;
use query::Engine;
use storage::{
    CommitId, Isolation, RefBase, RefExpression, RefName, RepoName, Repository, SharedTransaction,
    Snapshot, Store,
};

use crate::error::Failure;

/// Bounds on what one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most decoded bytes in one answer.
    pub answer_bytes: u64,
    /// Most inner chunks one answer may be computed from, stored or not.
    pub chunks: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_bytes: 1 << 30,
            // 16 TiB of the importer's inner chunks; a list of their positions fits in memory.
            chunks: 1 << 24,
        }
    }
}

/// The service's state. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    engine: Engine,
    limits: Limits,
    repositories: Mutex<HashMap<RepoName, Opened>>,
    /// Group documents with the metadata of all members, by commit and path.
    documents: Cache<(CommitId, String), Bytes>,
    /// Transactions that were used lately. Any can be taken up again from the store.
    transactions: Cache<String, OpenTransaction>,
}

/// A transaction that requests work on.
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    /// What it is called in URLs: the repository's name, a colon and its id.
    pub id: String,
    /// The repository.
    pub repository: RepoName,
    /// The transaction.
    pub shared: Arc<SharedTransaction>,
}

/// How long a transaction nobody uses stays in memory.
const TRANSACTION_IDLE: Duration = Duration::from_secs(300);
/// Most transactions in memory.
const MAX_TRANSACTIONS: u64 = 256;

/// How long an open repository is taken to be the one in the store. Another process may delete it
/// and make another of the same name; asking more often would cost a request on every read.
const RECHECK_AFTER: Duration = Duration::from_millis(250);

/// A repository with its caches, and when it was last seen in the store.
#[derive(Debug)]
struct Opened {
    repository: Repository,
    seen: Instant,
}

/// A commit, and whether it was named in a way that may name another one later.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The commit.
    pub snapshot: Snapshot,
    /// The branch that was asked for.
    pub branch: Option<RefName>,
    /// Whether the reference may name another commit later: anything but a whole commit id.
    pub moves: bool,
}

impl Pinned {
    /// `result` of reading this commit: what is not there may have gone because nothing needs the
    /// commit any more, which is no damage.
    ///
    /// # Errors
    /// 410 instead of 500 if so; else that of `result`.
    pub async fn settle<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Err(failure) if failure.is_loss() => {
                let commit = self.snapshot.id();
                match self.snapshot.repository().is_over(commit).await {
                    Ok(true) => Err(storage::Error::Expired {
                        commit: commit.to_string(),
                    }
                    .into()),
                    _ => Err(failure),
                }
            }
            result => result,
        }
    }
}

impl State {
    /// State over the repositories of a store.
    pub fn new(store: Store, engine: Engine, limits: Limits) -> Self {
        let documents = Cache::builder()
            .max_capacity(64 << 20)
            .weigher(|_, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX))
            .build();
        Self(Arc::new(Inner {
            store,
            engine,
            limits,
            repositories: Mutex::default(),
            documents,
            transactions: Cache::builder()
                .max_capacity(MAX_TRANSACTIONS)
                .time_to_idle(TRANSACTION_IDLE)
                .build(),
        }))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Cached group documents.
    pub fn documents(&self) -> &Cache<(CommitId, String), Bytes> {
        &self.0.documents
    }

    fn open_repositories(&self) -> std::sync::MutexGuard<'_, HashMap<RepoName, Opened>> {
        self.0
            .repositories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a repository, or gives the open one.
    ///
    /// # Errors
    /// 404 with names that look alike if there is none.
    pub async fn repository(&self, name: &RepoName) -> Result<Repository, Failure> {
        if let Some(repository) = self.known_repository(name).await? {
            return Ok(repository);
        }
        let repository = match Repository::open(self.0.store.under(name.as_str())).await {
            Ok(repository) => repository,
            Err(storage::Error::NotFound { .. }) => {
                self.forget(name);
                let known = storage::list_repositories(&self.0.store).await?;
                let known = known.iter().map(String::as_str);
                return Err(storage::Error::not_found("repository", name.as_str(), known).into());
            }
            Err(error) => return Err(error.into()),
        };
        repository.set_summarize(query::summarize());
        let mut open = self.open_repositories();
        // Whoever opened it first shares its caches and its queue of commits with all others.
        if let Some(first) = open.get(name)
            && first.repository.id() == repository.id()
        {
            return Ok(first.repository.clone());
        }
        let opened = Opened {
            repository: repository.clone(),
            seen: Instant::now(),
        };
        open.insert(name.clone(), opened);
        Ok(repository)
    }

    /// The open repository of this name, if it is still the one in the store.
    async fn known_repository(&self, name: &RepoName) -> Result<Option<Repository>, Failure> {
        let repository = {
            let mut open = self.open_repositories();
            let Some(opened) = open.get_mut(name) else {
                return Ok(None);
            };
            if opened.seen.elapsed() < RECHECK_AFTER {
                return Ok(Some(opened.repository.clone()));
            }
            // One request asks the store, the others go on meanwhile.
            opened.seen = Instant::now();
            opened.repository.clone()
        };
        Ok(repository.is_stored().await?.then_some(repository))
    }

    /// Forgets an open repository.
    pub fn forget(&self, name: &RepoName) {
        self.open_repositories().remove(name);
    }

    /// Opens a transaction on a branch.
    ///
    /// # Errors
    /// 404 if there is no such repository or branch.
    pub async fn open_transaction(
        &self,
        name: &RepoName,
        branch: &RefName,
        isolation: Isolation,
        author: &str,
    ) -> Result<OpenTransaction, Failure> {
        let repository = self.repository(name).await?;
        let shared = repository
            .open_transaction(branch, isolation, author)
            .await?;
        Ok(self.remember(name, shared))
    }

    fn remember(&self, name: &RepoName, shared: SharedTransaction) -> OpenTransaction {
        let opened = OpenTransaction {
            id: format!("{name}:{}", shared.id()),
            repository: name.clone(),
            shared: Arc::new(shared),
        };
        self.0
            .transactions
            .insert(opened.id.clone(), opened.clone());
        opened
    }

    /// The transaction `id`, with what any process has staged.
    ///
    /// # Errors
    /// 400 for a malformed id, 404 if there is none, 409 if it was committed or aborted.
    pub async fn transaction(&self, id: &str) -> Result<OpenTransaction, Failure> {
        let opened = match self.0.transactions.get(id) {
            Some(opened) if opened.shared.is_usable() => {
                opened.shared.refresh().await?;
                opened
            }
            _ => {
                let (name, shared) = self.read_transaction(id).await?;
                self.remember(&name, shared)
            }
        };
        if let Err(closed) = opened.shared.check_open() {
            self.forget_transaction(id);
            return Err(closed.into());
        }
        Ok(opened)
    }

    /// The transaction `id`, to be looked at, committed or aborted.
    ///
    /// # Errors
    /// 400 for a malformed id, 404 if there is none.
    pub async fn take_transaction(
        &self,
        id: &str,
    ) -> Result<(RepoName, SharedTransaction), Failure> {
        self.forget_transaction(id);
        self.read_transaction(id).await
    }

    /// Forgets what is known of a transaction; it is read anew when it is used again.
    pub fn forget_transaction(&self, id: &str) {
        self.0.transactions.invalidate(id);
    }

    async fn read_transaction(&self, id: &str) -> Result<(RepoName, SharedTransaction), Failure> {
        let parsed = id
            .split_once(':')
            .and_then(|(name, id)| Some((name.parse::<RepoName>().ok()?, id.parse().ok()?)));
        let Some((name, transaction)) = parsed else {
            let detail = format!("{id:?} is not the id of a transaction, as opening one gives it");
            return Err(Failure::bad_request("id", detail));
        };
        let repository = self.repository(&name).await?;
        let shared = repository.shared_transaction(transaction).await?;
        Ok((name, shared))
    }

    /// The commit `reference` names.
    ///
    /// # Errors
    /// 400 for a malformed reference, 404 if it names nothing.
    pub async fn snapshot(&self, repository: &str, reference: &str) -> Result<Pinned, Failure> {
        let repository = self.repository(&repository.parse()?).await?;
        let expression: RefExpression = reference.parse()?;
        let resolved = repository.resolve(&expression).await?;
        let snapshot = match repository.snapshot(resolved.commit).await {
            // The log names it: its absence is data loss, and Zarr clients take 404 for fill value.
            Err(storage::Error::NotFound { name, .. }) => {
                return Err(storage::Error::Missing { key: name }.into());
            }
            other => other?,
        };
        let moves = !matches!(expression.base, RefBase::Commit(_));
        Ok(Pinned {
            snapshot,
            branch: resolved.branch,
            moves,
        })
    }
}

/// A path from a URL.
///
/// # Errors
/// 400 if it cannot name a node.
pub fn node_path(text: &str) -> Result<NodePath, Failure> {
    Ok(text.parse()?)
}
