//! What all requests share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use array::{Hash, NodePath};
use bytes::Bytes;
use compute::labels::Coordinate;
use moka::sync::Cache;
use query::Engine;
use storage::{
    Asked, Claim, CommitId, Flights, Isolation, RefBase, RefExpression, RefName, RepoName,
    Repository, SharedTransaction, Snapshot, Store, TransactionId,
};

use crate::auth::{Access, Action, Auth, Limited, Scope};
use crate::error::Failure;
use crate::http::admission::Admission;
use crate::http::gathered::Gathering;
use crate::jobs::{self, Jobs};
use crate::open_transactions::{OpenTransaction, OpenTransactions};
use crate::serving;
use crate::signing::Signing;
use crate::telemetry::{Refused, Telemetry};

/// Bounds on what one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most decoded bytes in one answer.
    pub answer_bytes: u64,
    /// Most bytes in one answer that is sent while it is read.
    pub streamed_bytes: u64,
    /// Most inner chunks one answer may be computed from, stored or not.
    pub chunks: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_bytes: 1 << 30,
            streamed_bytes: 1 << 40,
            // 16 TiB of the importer's inner chunks; a list of their positions fits in memory.
            chunks: 1 << 24,
        }
    }
}

/// The service's state, and what of it whoever asks may see and change. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>, Access);

#[derive(Debug)]
struct Inner {
    store: Store,
    engine: Engine,
    limits: Limits,
    repositories: Mutex<HashMap<RepoName, Opened>>,
    /// Repositories being opened.
    opening: Flights<RepoName, Repository>,
    /// Coordinate variables, by document and manifest.
    coordinates: Cache<(Hash, Hash), Arc<Coordinate>>,
    /// Group documents with the metadata of all members, by commit and path.
    documents: Cache<(CommitId, String), Bytes>,
    /// Who signs the logs of the repositories.
    signing: OnceLock<Signing>,
    /// Long work.
    jobs: Jobs,
    /// Writes to branches that wait for their commit.
    gathering: Gathering,
    /// Transactions that requests work on.
    transactions: OpenTransactions,
    /// What the process does and has done.
    telemetry: Telemetry,
    /// What clients of a server may take; nothing for a program that asks itself.
    serving: OnceLock<(serving::Limits, Admission)>,
    /// Who may do what.
    auth: OnceLock<Auth>,
}

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
    /// The part of it that may be seen.
    pub scope: Scope,
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
        let inner = Inner {
            store,
            engine,
            limits,
            repositories: Mutex::default(),
            opening: Flights::default(),
            coordinates: Cache::builder()
                .max_capacity(32 << 20)
                .weigher(|_, coordinate: &Arc<Coordinate>| {
                    u32::try_from(64 + 16 * coordinate.len()).unwrap_or(u32::MAX)
                })
                .build(),
            documents,
            signing: OnceLock::new(),
            jobs: Jobs::default(),
            gathering: Gathering::default(),
            transactions: OpenTransactions::default(),
            telemetry: Telemetry::default(),
            serving: OnceLock::new(),
            auth: OnceLock::new(),
        };
        Self(Arc::new(inner), Access::everything())
    }

    /// The same state, which asks who its clients are. The first call counts.
    #[must_use]
    pub fn with_auth(self, auth: Auth) -> Self {
        let _ = self.0.auth.set(auth);
        self
    }

    /// Who may do what.
    pub fn auth(&self) -> &Auth {
        self.0.auth.get_or_init(|| Auth::open(&self.0.store))
    }

    /// The same state for someone who may do this.
    #[must_use]
    pub fn seen_by(&self, access: Access) -> Self {
        Self(self.0.clone(), access)
    }

    /// The same state for the service itself: for work that was permitted and goes on without who asked
    /// for it.
    pub(crate) fn of_service(&self) -> Self {
        self.seen_by(Access::everything())
    }

    /// What may be done.
    pub fn access(&self) -> &Access {
        &self.1
    }

    /// Whom commits and log entries name: who asks, if that is known, whoever he says he is; else who
    /// he says.
    pub fn author(&self, said: Option<String>) -> String {
        match self.access().principal() {
            Some(principal) => principal.name.clone(),
            None => said.unwrap_or_else(|| "http".to_owned()),
        }
    }

    /// Refuses what must not be done to the node at `path`.
    ///
    /// # Errors
    /// 403.
    pub fn check(
        &self,
        action: Action,
        repository: &RepoName,
        path: &NodePath,
    ) -> Result<(), Failure> {
        match self.access().allows(action, repository, path) {
            true => Ok(()),
            false => Err(Failure::denied(format!(
                "you may not do this to {path} of {repository}"
            ))),
        }
    }

    /// Refuses repositories of which nothing may be seen, as if there were none.
    fn check_seen(&self, name: &RepoName) -> Result<(), Failure> {
        match self.access().allows_in(Action::Read, name) {
            true => Ok(()),
            false => Err(Failure::hidden_repository(name)),
        }
    }

    /// The same state, which also signs logs. The first call counts.
    #[must_use]
    pub fn signed(self, signing: Signing) -> Self {
        let _ = self.0.signing.set(signing);
        self
    }

    /// The same state, which works on jobs as `settings` say. The first call counts.
    #[must_use]
    pub fn with_jobs(self, settings: jobs::Settings) -> Self {
        self.0.jobs.set(settings);
        self
    }

    /// The same state, of a server whose clients may take so much. The first call counts.
    #[must_use]
    pub fn serving_within(self, limits: serving::Limits) -> Self {
        let most = usize::try_from(limits.requests).unwrap_or(usize::MAX);
        let _ = self.0.serving.set((limits, Admission::new(most.max(1))));
        self
    }

    /// What clients may take, if they are those of a server.
    pub fn serving(&self) -> Option<&(serving::Limits, Admission)> {
        self.0.serving.get()
    }

    /// What the process does and has done.
    pub fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// A limit refused or cut off someone: counts it, and tells of it in the audit log.
    pub(crate) fn refuse(&self, why: Refused, limited: Limited<'_>) {
        self.telemetry().refuse(why);
        self.auth().tell_limited(why, limited);
    }

    /// Transactions that are in memory.
    pub fn transactions_open(&self) -> u64 {
        self.0.transactions.count()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The jobs this process works on.
    pub fn jobs(&self) -> &Jobs {
        &self.0.jobs
    }

    /// Writes to branches that wait for their commit.
    pub(crate) fn gathering(&self) -> &Gathering {
        &self.0.gathering
    }

    /// Who signs the logs of the repositories, if anyone.
    pub fn signing(&self) -> Option<&Signing> {
        self.0.signing.get()
    }

    /// Signs the log of a repository up to its newest entry; says whether its key is here.
    ///
    /// # Errors
    /// 500 if it must not be signed, or cannot be.
    pub async fn publish(&self, repository: &Repository) -> Result<bool, Failure> {
        match self.signing() {
            Some(signing) => Ok(signing.publish(repository).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Signs the logs this process appended to. Gives what went wrong, in words.
    pub async fn sign_appended(&self) -> Vec<String> {
        let Some(signing) = self.signing() else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        for (name, repository) in self.opened() {
            if repository.appended().borrow().is_none() {
                continue;
            }
            match signing.publish(&repository).await {
                Ok(published) => warnings.extend(published.into_iter().flat_map(|p| p.without)),
                Err(failure) => {
                    let reason = &failure.problem().detail;
                    warnings.push(format!("the log of {name} has grown, but {reason}"));
                }
            }
        }
        warnings
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Cached coordinate variables.
    pub fn coordinates(&self) -> &Cache<(Hash, Hash), Arc<Coordinate>> {
        &self.0.coordinates
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

    /// The repositories that are open.
    pub fn opened(&self) -> Vec<(RepoName, Repository)> {
        let open = self.open_repositories();
        let each = open.iter();
        each.map(|(name, opened)| (name.clone(), opened.repository.clone()))
            .collect()
    }

    /// Opens a repository, or gives the open one.
    ///
    /// # Errors
    /// 404 with names that look alike if there is none.
    pub async fn repository(&self, name: &RepoName) -> Result<Repository, Failure> {
        self.check_seen(name)?;
        if let Some(repository) = self.known_repository(name).await? {
            return Ok(repository);
        }
        match self.0.opening.claim(name) {
            Claim::Other(other) => match other.result().await {
                Some(repository) => Ok(repository),
                // Whoever failed has its own error; the others find their own.
                None => self.open(name).await,
            },
            Claim::Own(flight) => {
                // Someone may have opened it between the two looks.
                let repository = match self.known_repository(name).await? {
                    Some(repository) => repository,
                    None => self.open(name).await?,
                };
                flight.finish(repository.clone());
                Ok(repository)
            }
        }
    }

    async fn open(&self, name: &RepoName) -> Result<Repository, Failure> {
        let repository = match Repository::open(self.0.store.under(name.as_str())).await {
            Ok(repository) => repository,
            Err(storage::Error::NotFound { .. }) => {
                self.forget(name);
                let known = storage::list_repositories(&self.0.store).await?;
                let is_seen = |known: &&str| {
                    let parsed = known.parse();
                    parsed.is_ok_and(|known| self.access().allows_in(Action::Read, &known))
                };
                let known = known.iter().map(String::as_str).filter(is_seen);
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
        if repository.is_stored().await? {
            return Ok(Some(repository));
        }
        let mut open = self.open_repositories();
        if open
            .get(name)
            .is_some_and(|opened| opened.repository.id() == repository.id())
        {
            open.remove(name);
        }
        Ok(None)
    }

    /// Forgets an open repository.
    pub fn forget(&self, name: &RepoName) {
        self.open_repositories().remove(name);
    }

    /// Opens a transaction on a branch, or takes up the one that an earlier request of the same key
    /// opened.
    ///
    /// # Errors
    /// 404 if there is no such repository or branch, 422 if another request had the key.
    pub async fn open_transaction(
        &self,
        name: &RepoName,
        branch: &RefName,
        isolation: Isolation,
        asked: Asked<'_>,
    ) -> Result<OpenTransaction, Failure> {
        let repository = self.repository(name).await?;
        let shared = repository
            .open_transaction(branch, isolation, asked)
            .await?;
        let opened = OpenTransaction {
            id: format!("{name}:{}", shared.id()),
            repository: name.clone(),
            shared: Arc::new(shared),
        };
        self.0.transactions.insert(opened.clone());
        Ok(opened)
    }

    /// The transaction `id`, with what any process has staged.
    ///
    /// # Errors
    /// 400 for a malformed id, 404 if there is none, 409 if it was committed or aborted.
    pub async fn transaction(&self, id: &str) -> Result<OpenTransaction, Failure> {
        let (name, transaction) = transaction_name(id)?;
        self.check_seen(&name)?;
        // As it is written everywhere, however it was written here.
        let id = &format!("{name}:{transaction}");
        let read = async {
            let (repository, shared) = self.read_transaction(id).await?;
            Ok(OpenTransaction {
                id: id.clone(),
                repository,
                shared: Arc::new(shared),
            })
        };
        let opened = self.0.transactions.get_or(id, read).await?;
        opened.shared.refresh().await?;
        if let Err(closed) = opened.shared.check_open() {
            self.0.transactions.forget(id);
            return Err(closed.into());
        }
        Ok(opened)
    }

    /// Forgets a transaction that was committed or aborted.
    pub fn forget_closed(&self, id: &str) {
        if let Ok((name, transaction)) = transaction_name(id) {
            self.0.transactions.forget(&format!("{name}:{transaction}"));
        }
    }

    /// The transaction `id` as it is in the store, to be looked at, committed or aborted: not one
    /// that requests work on.
    ///
    /// # Errors
    /// 400 for a malformed id, 404 if there is none.
    pub async fn read_transaction(
        &self,
        id: &str,
    ) -> Result<(RepoName, SharedTransaction), Failure> {
        let (name, transaction) = transaction_name(id)?;
        let repository = self.repository(&name).await?;
        let shared = repository.shared_transaction(transaction).await?;
        Ok((name, shared))
    }

    /// The commit `reference` names.
    ///
    /// # Errors
    /// 400 for a malformed reference, 404 if it names nothing.
    pub async fn snapshot(&self, repository: &str, reference: &str) -> Result<Pinned, Failure> {
        let asked = Instant::now();
        let name = repository.parse()?;
        let scope = self.access().scope(Action::Read, &name);
        let repository = self.repository(&name).await?;
        let expression: RefExpression = reference.parse()?;
        let resolved = repository.resolve_since(&expression, asked).await?;
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
            scope,
        })
    }
}

/// The repository and the transaction that an id names.
pub(crate) fn transaction_name(id: &str) -> Result<(RepoName, TransactionId), Failure> {
    let parsed = id
        .split_once(':')
        .and_then(|(name, id)| Some((name.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(|| {
        let detail = format!("{id:?} is not the id of a transaction, as opening one gives it");
        Failure::bad_request("id", detail)
    })
}

/// A path from a URL.
///
/// # Errors
/// 400 if it cannot name a node.
pub fn node_path(text: &str) -> Result<NodePath, Failure> {
    Ok(text.parse()?)
}
