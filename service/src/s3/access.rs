//! Who asks, and what he may read.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use array::NodePath;
use chrono::{DateTime, Utc};
use storage::RepoName;

use super::refusal::Refusal;
use super::{Asked, signature};
use crate::auth::{Action, Principal};

/// The last part of the key of a node's metadata.
const DOCUMENT: &str = "zarr.json";

/// What the holder of an access key signs with, and who that is.
#[derive(Clone)]
pub struct Credential {
    /// The secret that only the holder and the service know.
    pub secret: String,
    /// Who that is, and what he was granted.
    pub principal: Principal,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is for no log.
        f.debug_struct("Credential")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

/// Decides who may read what. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Access {
    /// By access key; `None` where signatures mean nothing.
    known: Option<Arc<HashMap<String, Credential>>>,
    /// Whoever does not sign; `None` if anyone reads everything.
    anyone: Option<Principal>,
}

impl Access {
    /// Anyone reads everything. Signatures are not looked at: clients that must sign may use any key.
    pub fn open() -> Self {
        Self {
            known: None,
            anyone: None,
        }
    }

    /// Signatures are checked against the credentials in `known`, by access key; what `anyone` may read,
    /// everyone may: for `None`, everything.
    pub fn checked(known: HashMap<String, Credential>, anyone: Option<Principal>) -> Self {
        Self {
            known: Some(Arc::new(known)),
            anyone,
        }
    }

    /// Who signed a request; `None` for one that is not signed.
    pub(super) fn who(
        &self,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<&Principal>, Refusal> {
        let Some(known) = &self.known else {
            return Ok(None);
        };
        let Some(claim) = signature::claim(asked)? else {
            return Ok(None);
        };
        let unknown = || Refusal::unknown_access_key(claim.access_key());
        let credential = known.get(claim.access_key()).ok_or_else(unknown)?;
        claim.check(asked, &credential.secret, now)?;
        Ok(Some(&credential.principal))
    }

    /// Whether he, or anyone, is granted what `allows` looks for.
    fn has(&self, who: Option<&Principal>, allows: impl Fn(&Principal) -> bool) -> bool {
        let Some(anyone) = &self.anyone else {
            return true;
        };
        allows(anyone) || who.is_some_and(allows)
    }

    /// Whether he may read something of some repository.
    pub(super) fn may_read_some(&self, who: Option<&Principal>) -> bool {
        self.has(who, |principal| principal.allows_somewhere(Action::Read))
    }

    /// Whether he may read something of this repository, and so may know that it is there.
    pub(super) fn may_see(&self, who: Option<&Principal>, repository: &str) -> bool {
        // What is no name is told to be none to whoever may read anything.
        let Ok(repository) = repository.parse::<RepoName>() else {
            return self.may_read_some(who);
        };
        self.has(who, |principal| {
            principal.allows_in(Action::Read, &repository)
        })
    }

    /// Whether he may read the node at `path` and what is below it, or a key of its own; all of the
    /// repository at `""`.
    fn may_read(&self, who: Option<&Principal>, repository: &str, path: &str) -> bool {
        // The document of a node, which is no name of one.
        let document = path.strip_suffix(DOCUMENT);
        let document = document.filter(|node| node.is_empty() || node.ends_with('/'));
        let node = document.unwrap_or(path).parse::<NodePath>();
        let Ok(repository) = repository.parse::<RepoName>() else {
            return self.may_read_some(who);
        };
        // A path that no node has is nobody's but who reads all.
        let path = node.unwrap_or_else(|_| NodePath::root());
        self.has(who, |principal| {
            principal.allows(Action::Read, &repository, &path)
        })
    }

    /// Refuses who may not read what is below `path`.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn check(
        &self,
        who: Option<&Principal>,
        repository: &str,
        path: &str,
    ) -> Result<(), Refusal> {
        match self.may_read(who, repository, path) {
            true => Ok(()),
            false => Err(Refusal::access_denied()),
        }
    }
}
