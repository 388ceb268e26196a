//! The transactions this process works on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use moka::sync::Cache;
use storage::{Claim, Flights, RepoName, SharedTransaction};

use crate::error::Failure;

/// How long a transaction nobody uses stays in memory.
const IDLE: Duration = Duration::from_secs(300);
/// Most transactions in memory that nobody uses.
const MAX_IDLE: u64 = 256;

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

/// The transactions requests work on, each of them once: writers that meet in one know of each
/// other, while those of two that came from the same record clash where they change the same chunk.
/// Any transaction can be taken up again from the store.
#[derive(Debug)]
pub(crate) struct OpenTransactions {
    recent: Cache<String, OpenTransaction>,
    /// All that some request still holds, whatever the cache has dropped.
    used: Mutex<HashMap<String, (RepoName, Weak<SharedTransaction>)>>,
    /// Those being read from the store.
    opening: Flights<String, OpenTransaction>,
}

impl Default for OpenTransactions {
    fn default() -> Self {
        Self {
            recent: Cache::builder()
                .max_capacity(MAX_IDLE)
                .time_to_idle(IDLE)
                .build(),
            used: Mutex::default(),
            opening: Flights::default(),
        }
    }
}

impl OpenTransactions {
    fn used(&self) -> MutexGuard<'_, HashMap<String, (RepoName, Weak<SharedTransaction>)>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are in memory.
    pub(crate) fn count(&self) -> u64 {
        let mut used = self.used();
        used.retain(|_, (_, shared)| shared.strong_count() > 0);
        used.len() as u64
    }

    /// The transaction `id`, unless it has to be read from the store.
    fn get(&self, id: &str) -> Option<OpenTransaction> {
        let in_use = || {
            let used = self.used();
            let (repository, shared) = used.get(id)?;
            Some(OpenTransaction {
                id: id.to_owned(),
                repository: repository.clone(),
                shared: shared.upgrade()?,
            })
        };
        let opened = self.recent.get(id).or_else(in_use)?;
        opened.shared.is_usable().then_some(opened)
    }

    /// The transaction `id`, read with `read` unless requests work on it already; what other
    /// processes staged since then is not in it.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) async fn get_or(
        &self,
        id: &str,
        read: impl Future<Output = Result<OpenTransaction, Failure>>,
    ) -> Result<OpenTransaction, Failure> {
        loop {
            if let Some(opened) = self.get(id) {
                return Ok(opened);
            }
            match self.opening.claim(&id.to_owned()) {
                // Whoever failed has its own error; the others find their own.
                Claim::Other(other) => {
                    other.result().await;
                }
                Claim::Own(flight) => {
                    let opened = match self.get(id) {
                        Some(opened) => opened,
                        None => read.await?,
                    };
                    self.insert(opened.clone());
                    flight.finish(opened.clone());
                    return Ok(opened);
                }
            }
        }
    }

    /// Adds a transaction.
    pub(crate) fn insert(&self, opened: OpenTransaction) {
        let mut used = self.used();
        used.retain(|_, (_, shared)| shared.strong_count() > 0);
        let shared = Arc::downgrade(&opened.shared);
        used.insert(opened.id.clone(), (opened.repository.clone(), shared));
        self.recent.insert(opened.id.clone(), opened);
    }

    /// Forgets a transaction that takes no more changes. Another one would be there twice if it was
    /// used again while a request still works on it.
    pub(crate) fn forget(&self, id: &str) {
        self.used().remove(id);
        self.recent.invalidate(id);
    }
}
