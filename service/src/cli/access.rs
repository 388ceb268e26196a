//! How `quarr serve` asks who its clients are, from arguments and the environment.

use std::path::PathBuf;

use clap::Args;
use storage::{RepoName, Store};

use super::Failed;
use crate::auth::tls::Tls;
use crate::auth::{Auth, OidcSettings, RateLimits, Rule, Settings};

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(super) struct AccessArgs {
    /// Ask everyone for an API key or a token. Also without this where the store has API keys (quarr
    /// auth key create) or --oidc-issuer is given.
    #[arg(long, env = "QUARR_AUTH", conflicts_with = "insecure")]
    auth: bool,
    /// Serve anyone who reaches the address, under any host name, without authentication, whatever keys
    /// the store has.
    #[arg(long, conflicts_with_all = ["auth", "oidc_issuer"])]
    insecure: bool,
    /// An OpenID Connect issuer whose JWTs are accepted, as their iss names it; may be repeated.
    #[arg(
        long,
        env = "QUARR_OIDC_ISSUER",
        value_delimiter = ' ',
        value_name = "URL",
        requires = "oidc_audience"
    )]
    oidc_issuer: Vec<String>,
    /// What this service is called in the aud of JWTs; may be repeated.
    #[arg(
        long,
        env = "QUARR_OIDC_AUDIENCE",
        value_delimiter = ' ',
        value_name = "NAME"
    )]
    oidc_audience: Vec<String>,
    /// What a claim of a JWT grants; may be repeated. groups=staff:reader, or sub=ada:writer:climate:/raw
    #[arg(
        long,
        env = "QUARR_OIDC_ROLE",
        value_delimiter = ' ',
        value_name = "CLAIM=VALUE:ROLE[:REPO[:PREFIX]]"
    )]
    oidc_role: Vec<Rule>,
    /// The claim commits call the principal by, instead of sub. Of an issuer that lets users choose it,
    /// it can be anything.
    #[arg(long, env = "QUARR_OIDC_NAME", value_name = "CLAIM")]
    oidc_name: Option<String>,
    /// A repository that anyone may read; may be repeated.
    #[arg(
        long,
        env = "QUARR_PUBLIC_READ",
        value_delimiter = ' ',
        value_name = "REPO"
    )]
    public_read: Vec<RepoName>,
    /// Let anyone read /metrics, not only admins of all repositories.
    #[arg(long, env = "QUARR_OPEN_METRICS")]
    open_metrics: bool,
    /// Requests a second of one principal, or of one address without credentials.
    #[arg(long, env = "QUARR_RATE_LIMIT", value_name = "N", value_parser = parse_rate)]
    rate_limit: Option<f64>,
    /// Requests of one principal, or address, at once.
    #[arg(long, env = "QUARR_CONCURRENCY_LIMIT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency_limit: Option<u32>,
    /// Append a line of JSON for every change and every denial to this file, which is opened anew on
    /// SIGHUP; to the log otherwise.
    #[arg(long, env = "QUARR_AUDIT_LOG", value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// Serve over TLS with this certificate and its chain, PEM; read again when it changes and on
    /// SIGHUP.
    #[arg(
        long,
        env = "QUARR_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(
        long,
        env = "QUARR_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    let rate = rate.filter(|rate| (0.001..=1e9).contains(rate));
    rate.ok_or_else(|| format!("{text:?} is no number of requests a second"))
}

impl AccessArgs {
    /// Whether anyone may do everything because the caller wants it so.
    pub(super) fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// What the server shows who it is with.
    pub(super) fn tls(&self) -> Result<Option<Tls>, Failed> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let tls = Tls::open(certificate.clone(), key.clone());
                Ok(Some(tls.map_err(|reason| {
                    Failed(format!("--tls-cert: {reason}"))
                })?))
            }
            _ => Ok(None),
        }
    }

    /// Who may do what with a store.
    pub(super) async fn auth(&self, store: &Store) -> Result<Auth, Failed> {
        let mut settings = Settings {
            is_required: self.auth || !self.oidc_issuer.is_empty(),
            oidc: (!self.oidc_issuer.is_empty()).then(|| OidcSettings {
                issuers: self.oidc_issuer.clone(),
                audiences: self.oidc_audience.clone(),
                rules: self.oidc_role.clone(),
                name_claim: self.oidc_name.clone(),
            }),
            public: self.public_read.clone(),
            open_metrics: self.open_metrics,
            limits: RateLimits {
                per_second: self.rate_limit,
                at_once: self.concurrency_limit,
            },
            audit_log: self.audit_log.clone(),
            is_tls: self.tls_cert.is_some(),
        };
        if !settings.is_required && !self.insecure {
            let keys = crate::auth::Keys::new(store.clone());
            settings.is_required = keys.are_there().await?;
        }
        Auth::new(store, settings).map_err(Failed)
    }
}
