//! Who asks, and what he may read.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::refusal::Refusal;
use super::{Asked, signature};

/// What the holder of an access key signs with, and who that is.
#[derive(Clone)]
pub struct Credential {
    /// The secret that only the holder and the service know.
    pub secret: String,
    /// Whom rights are given to.
    pub principal: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is for no log.
        f.debug_struct("Credential")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

type Find = dyn Fn(&str) -> Option<Credential> + Send + Sync;
type MayRead = dyn Fn(Option<&str>, &str, &str) -> bool + Send + Sync;

/// Decides who may read what.
#[derive(Clone)]
pub struct Access {
    /// The credential of an access key; `None` where signatures mean nothing.
    find: Option<Arc<Find>>,
    may_read: Arc<MayRead>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("checks_signatures", &self.find.is_some())
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Anyone reads everything. Signatures are not looked at: clients that must sign may use any key.
    pub fn open() -> Self {
        Self {
            find: None,
            may_read: Arc::new(|_, _, _| true),
        }
    }

    /// Signatures are checked against the credential `find` gives for an access key. `may_read` says
    /// whether a principal, or anyone for `None`, may read what is below a path of a repository: `""`
    /// for all of it; of no repository, `""`, for the list of buckets where none is in it. It is asked
    /// before anything is looked up.
    pub fn checked(
        find: impl Fn(&str) -> Option<Credential> + Send + Sync + 'static,
        may_read: impl Fn(Option<&str>, &str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            find: Some(Arc::new(find)),
            may_read: Arc::new(may_read),
        }
    }

    /// The principal that signed a request; `None` for one that is not signed.
    pub(super) fn who(
        &self,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<String>, Refusal> {
        let Some(find) = &self.find else {
            return Ok(None);
        };
        let Some(claim) = signature::claim(asked)? else {
            return Ok(None);
        };
        let unknown = || Refusal::unknown_access_key(claim.access_key());
        let credential = find(claim.access_key()).ok_or_else(unknown)?;
        claim.check(asked, &credential.secret, now)?;
        Ok(Some(credential.principal))
    }

    /// Whether he may read what is below `path`.
    pub(super) fn may_read(&self, who: Option<&str>, repository: &str, path: &str) -> bool {
        (self.may_read)(who, repository, path)
    }

    /// Refuses who may not read what is below `path`.
    pub(super) fn check(
        &self,
        who: Option<&str>,
        repository: &str,
        path: &str,
    ) -> Result<(), Refusal> {
        match self.may_read(who, repository, path) {
            true => Ok(()),
            false => Err(Refusal::access_denied()),
        }
    }
}
