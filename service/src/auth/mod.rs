//! Authentication and authorisation: who asks, and what he may do.
//!
//! ```text
//! request ─► guard: credentials ─► Principal ─► limits ─► what the route needs ─► handler ─► audit log
//!                     │                                            │                │
//!               keys, oidc                                      routes        State sees what Access may
//! ```
//!
//! Architecture invariant: the state that the router holds may do nothing. A handler can do what the
//! guard let its request do, because the guard hands on an [`Access`] and the state looks there; a
//! handler that the guard does not know of gets at no data.
//!
//! [`Auth::identify`] and [`Principal::allows`] know nothing of HTTP: other protocols ask them.

mod access;
pub mod audit;
mod guard;
mod jwt;
mod keys;
mod limited;
mod oidc;
mod rates;
pub mod routes;
mod rules;
pub mod tls;
mod token;

use std::path::PathBuf;

use storage::{RepoName, Store};

use crate::error::Failure;

pub use access::{Access, Action, Grant, GrantInfo, Principal, Role, Scope};
pub use audit::Audit;
pub(crate) use guard::{Denied, MadeCommit, guard};
pub use keys::{FRESH_FOR, KeyInfo, Keys, NewKey, NewToken, STALE_AFTER};
pub(crate) use limited::Limited;
pub use oidc::{Oidc, OidcSettings};
pub use rates::{Counted, RateLimits, Rates};
pub use rules::Rule;
pub use token::LEAD;

/// How a service asks who its clients are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether anyone is asked; if not, everyone may do everything.
    pub is_required: bool,
    /// Issuers of JWTs, if any are accepted.
    pub oidc: Option<OidcSettings>,
    /// Repositories that anyone may read.
    pub public: Vec<RepoName>,
    /// Whether anyone may read metrics.
    pub open_metrics: bool,
    /// What each principal may ask for.
    pub limits: RateLimits,
    /// Where the audit log goes; to the log of the process if left out.
    pub audit_log: Option<PathBuf>,
    /// Whether clients come over TLS: the URLs the service gives begin so.
    pub is_tls: bool,
}

/// Who asks, and what he may do, for all requests of a service.
#[derive(Debug)]
pub struct Auth {
    is_required: bool,
    keys: Keys,
    oidc: Option<Oidc>,
    public: Vec<Grant>,
    open_metrics: bool,
    rates: Rates,
    audit: Audit,
    untold: limited::Untold,
    /// Whether changes are written to the audit log although nobody is asked who he is.
    audits_open: bool,
    is_tls: bool,
}

/// Why nobody is let in with these credentials. The words are for the audit log; clients are told
/// nothing but that they are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// As a word.
    pub reason: &'static str,
    /// Whose key it was, if it was one of somebody.
    pub name: Option<String>,
}

impl Auth {
    /// As `settings` say, with the keys of a store.
    ///
    /// # Errors
    /// In words, if the settings cannot be meant or the audit log cannot be opened.
    pub fn new(store: &Store, settings: Settings) -> Result<Self, String> {
        let public = settings.public.into_iter();
        let public =
            public.map(|name| Grant::new(Role::Reader, Some(name), array::NodePath::root()));
        let audit = match &settings.audit_log {
            Some(path) => Audit::to_file(path)
                .map_err(|error| format!("--audit-log {}: {error}", path.display()))?,
            None => Audit::default(),
        };
        Ok(Self {
            is_required: settings.is_required,
            keys: Keys::new(store.clone()),
            oidc: settings.oidc.map(Oidc::new).transpose()?,
            public: public.collect::<Result<_, _>>()?,
            open_metrics: settings.open_metrics,
            rates: Rates::new(settings.limits),
            audit,
            untold: limited::Untold::default(),
            audits_open: settings.audit_log.is_some(),
            is_tls: settings.is_tls,
        })
    }

    /// Nobody is asked.
    pub fn open(store: &Store) -> Self {
        Self {
            is_required: false,
            keys: Keys::new(store.clone()),
            oidc: None,
            public: Vec::new(),
            open_metrics: true,
            rates: Rates::default(),
            audit: Audit::default(),
            untold: limited::Untold::default(),
            audits_open: false,
            is_tls: false,
        }
    }

    /// Whether anyone is asked who he is.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Whether clients come over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The API keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What each principal may ask for.
    pub fn limits(&self) -> RateLimits {
        self.rates.limits()
    }

    /// Whoever gives no credentials.
    pub fn anonymous(&self) -> Principal {
        Principal::anonymous(self.public.clone())
    }

    /// Who has a token: an API key or a JWT. What anyone may read, he may too. The inner error says why
    /// nobody has it.
    ///
    /// # Errors
    /// 503 if it cannot be told, because the store or an issuer does not answer.
    pub async fn identify(&self, token: &str) -> Result<Result<Principal, Rejection>, Failure> {
        let found = match &self.oidc {
            Some(oidc) if !token.starts_with(LEAD) => {
                let found = oidc.identify(token).await?;
                found.map_err(|reason| (reason, None))
            }
            _ => {
                let found = self.keys.identify(token).await?;
                found.map_err(|(rejected, name)| (rejected.reason(), name))
            }
        };
        Ok(match found {
            Ok(mut principal) => {
                principal.grants.extend(self.public.iter().cloned());
                Ok(principal)
            }
            Err((reason, name)) => Err(Rejection { reason, name }),
        })
    }
}
