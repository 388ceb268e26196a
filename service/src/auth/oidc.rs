//! JWTs of OpenID Connect issuers.
//!
//! ```text
//! token ─► header: algorithm on the list? ─► issuer known? ─► its key of this id ─► signature ─► claims ─► rules
//!                                                              └► not there: keys fetched again, seldom
//! ```
//!
//! `jwt` says whether a token holds. Source: OpenID Connect Discovery 1.0.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::{info, warn};
use url::Url;

use super::access::{Grant, Principal};
use super::jwt::{Key, Reason, Token};
use super::rules::Rule;
use crate::error::{Failure, chain};

/// Longest document of an issuer.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Most keys of an issuer.
const MAX_KEYS: usize = 256;
/// How long the keys of an issuer count as the newest.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// How long they are used while the issuer does not answer.
const STALE_AFTER: Duration = Duration::from_secs(3600);
/// Least time between two fetches because of a key that is not known.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);
/// Least time between two fetches after one that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose tokens are accepted, and what they grant.
#[derive(Clone, Debug, Default)]
pub struct OidcSettings {
    /// Issuers, as `iss` names them.
    pub issuers: Vec<String>,
    /// Names of this service; a token is for one of them.
    pub audiences: Vec<String>,
    /// What claims grant.
    pub rules: Vec<Rule>,
    /// The claim that commits and the audit log call the principal by; `sub` if the token has no such.
    pub name_claim: Option<String>,
}

/// The issuers of a service.
#[derive(Debug)]
pub struct Oidc {
    issuers: Vec<Issuer>,
    settings: OidcSettings,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Issuer {
    url: String,
    keys: Mutex<Fetched>,
    /// Held while they are fetched.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Fetched {
    keys: Option<Arc<Vec<Key>>>,
    /// When they came.
    at: Option<Instant>,
    /// When they were asked for last.
    tried: Option<Instant>,
    /// When they were asked for last because of a key that was not known.
    forced: Option<Instant>,
}

fn is_within(at: Option<Instant>, time: Duration) -> bool {
    at.is_some_and(|at| at.elapsed() < time)
}

impl Oidc {
    /// The issuers that `settings` name. Nothing is fetched yet.
    ///
    /// # Errors
    /// In words, if the settings cannot be meant.
    pub fn new(settings: OidcSettings) -> Result<Self, String> {
        for issuer in &settings.issuers {
            check_url(issuer, true)?;
        }
        if settings.audiences.iter().all(String::is_empty) {
            return Err("--oidc-issuer needs --oidc-audience: tokens for other services must not be accepted".into());
        }
        if settings.issuers.len() > 1 && !settings.rules.iter().all(Rule::names_issuer) {
            return Err("with several issuers, each --oidc-role says of which one: iss=https%3A//…,claim=value:role".into());
        }
        let http = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| chain(&error))?;
        let issuer = |url: &String| Issuer {
            url: url.clone(),
            keys: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        };
        Ok(Self {
            issuers: settings.issuers.iter().map(issuer).collect(),
            settings,
            http,
        })
    }

    /// Who a token is of; the inner error says why nobody.
    ///
    /// # Errors
    /// 503 if the keys of its issuer cannot be had.
    pub async fn identify(&self, token: &str) -> Result<Result<Principal, Reason>, Failure> {
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some(named) = token.issuer() else {
            return Ok(Err("claims"));
        };
        let Some(issuer) = self.issuers.iter().find(|issuer| issuer.url == named) else {
            return Ok(Err("issuer"));
        };
        let mut keys = issuer.keys(&self.http, false).await?;
        if token.fitting(&keys).is_empty() {
            keys = issuer.keys(&self.http, true).await?;
        }
        let fitting = token.fitting(&keys);
        let now_s = Utc::now().timestamp_millis() as f64 / 1e3;
        let verified = token.verified(&fitting, &self.settings.audiences, now_s);
        Ok(verified.and_then(|claims| self.principal(issuer, &claims)))
    }

    fn principal(&self, issuer: &Issuer, claims: &Map<String, Value>) -> Result<Principal, Reason> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let subject = text("sub")
            .filter(|subject| is_name(subject))
            .ok_or("claims")?;
        let name = self.settings.name_claim.as_deref().and_then(text);
        let name = name.filter(|name| is_name(name) && *name != "anonymous");
        let grants: Vec<Grant> = self
            .settings
            .rules
            .iter()
            .filter_map(|rule| rule.grant(claims).cloned())
            .collect();
        Ok(Principal {
            id: format!("oidc:{}#{subject}", issuer.url),
            name: name.unwrap_or(subject).to_owned(),
            grants,
        })
    }
}

/// Whether a text can name someone in a log.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control)
}

impl Issuer {
    fn fetched(&self) -> std::sync::MutexGuard<'_, Fetched> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its keys; `again` because one is not among those that are known.
    async fn keys(&self, http: &reqwest::Client, again: bool) -> Result<Arc<Vec<Key>>, Failure> {
        let asked = Instant::now();
        let usable = |fetched: &Fetched| {
            let came_since = again && fetched.at.is_some_and(|at| at > asked);
            let is_fresh = is_within(fetched.at, FRESH_FOR);
            let may_not = again && is_within(fetched.forced, UNKNOWN_KEY_INTERVAL);
            fetched
                .keys
                .clone()
                .filter(|_| is_fresh && (!again || came_since || may_not))
        };
        if let Some(keys) = usable(&self.fetched()) {
            return Ok(keys);
        }
        let _turn = self.fetching.lock().await;
        if let Some(keys) = usable(&self.fetched()) {
            return Ok(keys);
        }
        let known = self.fetched().clone();
        let still_usable = known.keys.filter(|_| is_within(known.at, STALE_AFTER));
        let result = if is_within(known.tried, RETRY_INTERVAL) && !is_within(known.at, FRESH_FOR) {
            Err("it did not answer a moment ago".to_owned())
        } else {
            {
                let mut fetched = self.fetched();
                fetched.tried = Some(Instant::now());
                if again {
                    fetched.forced = fetched.tried;
                }
            }
            self.fetch(http).await
        };
        match (result, still_usable) {
            (Ok(keys), _) => {
                info!(issuer = %self.url, keys = keys.len(), "keys of an issuer fetched");
                let keys = Arc::new(keys);
                let mut fetched = self.fetched();
                fetched.keys = Some(keys.clone());
                fetched.at = Some(Instant::now());
                Ok(keys)
            }
            (Err(reason), Some(keys)) => {
                warn!(issuer = %self.url, %reason, "keys of an issuer cannot be fetched: those known count");
                Ok(keys)
            }
            (Err(reason), None) => Err(Failure::busy(format!(
                "the keys of the issuer {} cannot be fetched: {reason}",
                self.url
            ))),
        }
    }

    async fn fetch(&self, http: &reqwest::Client) -> Result<Vec<Key>, String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let base = self.url.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let found: Discovery = document(http, &url).await?;
        if found.issuer != self.url {
            return Err(format!("{url} is of another issuer, {:?}", found.issuer));
        }
        let is_local = self.url.starts_with("http://");
        check_url(&found.jwks_uri, is_local)?;
        let set: Set = document(http, &found.jwks_uri).await?;
        // Keys of kinds that are not known stand beside others.
        let keys = set.keys.into_iter().take(MAX_KEYS);
        Ok(keys.filter_map(|key| Key::parse(&key)).collect())
    }
}

async fn document<T: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    url: &str,
) -> Result<T, String> {
    let failed = |error: reqwest::Error| chain(&error.without_url());
    let mut response = http.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("{url} answered {}", response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&part);
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(format!("{url} has over {MAX_DOCUMENT_BYTES} bytes"));
        }
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))
}

/// Keys that come unprotected are anybody's: `http` leads to this machine or nowhere.
fn check_url(text: &str, may_be_local: bool) -> Result<(), String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("{text:?} is no URL: {error}"))?;
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match url.scheme() {
        "https" if is_plain => Ok(()),
        "http" if is_plain && is_loopback && may_be_local => Ok(()),
        _ => Err(format!("{text:?} is no https:// URL")),
    }
}

#[cfg(test)]
mod tests {
    use super::check_url;

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for good in [
            "https://login.example/a",
            "http://127.0.0.1:8080/realm",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(check_url(good, true).is_ok(), "{good}");
        }
        for bad in [
            "http://login.example",
            "http://localhost.evil.example",
            "ftp://localhost",
            "file:///etc/passwd",
            "https://a:b@login.example",
            "login",
        ] {
            assert!(check_url(bad, true).is_err(), "{bad}");
        }
        assert!(check_url("http://127.0.0.1/keys", false).is_err());
    }
}
