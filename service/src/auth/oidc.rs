//! JWTs of OpenID Connect issuers.
//!
//! ```text
//! token ─► header: algorithm on the list? ─► issuer known? ─► its key of this id ─► signature ─► claims ─► rules
//!                                                              └► not there: keys fetched again, seldom
//! ```
//!
//! The algorithm is taken from the header only to be looked up in [`ALGORITHMS`], and the key must be
//! of its type, whatever the header says. Sources: RFC 7515, 7517, 7519, 8725; OpenID Connect
//! Discovery 1.0.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::{info, warn};
use url::Url;

use super::access::{Grant, Principal};
use super::ring_jwt;
use super::rules::Rule;
use crate::error::{Failure, chain};

/// Signatures that are accepted: none that its verifier could make.
const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
];
/// How far clocks may differ, in seconds.
const LEEWAY_S: u64 = 30;
/// Longest token: headers are bounded by servers at some such length anyway.
const MAX_TOKEN_BYTES: usize = 16 << 10;
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

/// Why a token is not taken, for the audit log.
type Reason = &'static str;

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
    keys: Option<Arc<Vec<Jwk>>>,
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
        ring_jwt::install();
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
        let unverified = match Unverified::parse(token) {
            Ok(unverified) => unverified,
            Err(reason) => return Ok(Err(reason)),
        };
        let named = |issuer: &&Issuer| issuer.url == unverified.issuer;
        let Some(issuer) = self.issuers.iter().find(named) else {
            return Ok(Err("issuer"));
        };
        let mut fitting = unverified.fitting(&*issuer.keys(&self.http, false).await?);
        if fitting.is_empty() {
            fitting = unverified.fitting(&*issuer.keys(&self.http, true).await?);
        }
        let mut reason = "unknown-key";
        for key in fitting {
            match self.verify(token, &unverified, issuer, &key) {
                Ok(claims) => return Ok(self.principal(issuer, &claims)),
                Err(other) => reason = other,
            }
        }
        Ok(Err(reason))
    }

    fn verify(
        &self,
        token: &str,
        unverified: &Unverified,
        issuer: &Issuer,
        key: &Jwk,
    ) -> Result<Map<String, Value>, Reason> {
        use jsonwebtoken::errors::ErrorKind;
        let mut validation = Validation::new(unverified.algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&self.settings.audiences);
        validation.set_issuer(&[&issuer.url]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let key = DecodingKey::from_jwk(key).map_err(|_| "key")?;
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        decoded
            .map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => "expired",
                ErrorKind::ImmatureSignature => "not-yet-valid",
                ErrorKind::InvalidAudience => "audience",
                ErrorKind::InvalidIssuer => "issuer",
                ErrorKind::InvalidSignature => "signature",
                ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => "claims",
                _ => "malformed",
            })
    }

    fn principal(&self, issuer: &Issuer, claims: &Map<String, Value>) -> Result<Principal, Reason> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        // Of another issuer in disguise.
        if text("iss") != Some(&issuer.url) {
            return Err("issuer");
        }
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

/// What a token says of itself before anything of it is believed.
struct Unverified {
    algorithm: Algorithm,
    key_id: Option<String>,
    issuer: String,
}

impl Unverified {
    fn parse(token: &str) -> Result<Self, Reason> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: Option<String>,
            crit: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Claims {
            iss: String,
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err("malformed");
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, _] = parts[..] else {
            return Err("malformed");
        };
        let header: Header = decoded(header)?;
        // What must be understood and is not: RFC 7515, 4.1.11.
        if header.crit.is_some() {
            return Err("malformed");
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|_| "algorithm")?;
        if !ALGORITHMS.contains(&algorithm) {
            return Err("algorithm");
        }
        let claims: Claims = decoded(claims)?;
        Ok(Self {
            algorithm,
            key_id: header.kid,
            issuer: claims.iss,
        })
    }

    /// The keys that may have signed it.
    fn fitting(&self, keys: &[Jwk]) -> Vec<Jwk> {
        let fits = |key: &&Jwk| {
            let named = self.key_id.as_ref();
            let is_named = named.is_none_or(|id| key.common.key_id.as_ref() == Some(id));
            is_named && fits(self.algorithm, key)
        };
        // A token that names no key is not tried with many.
        keys.iter().filter(fits).take(4).cloned().collect()
    }
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Reason> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    let bytes = bytes.map_err(|_| "malformed")?;
    serde_json::from_slice(&bytes).map_err(|_| "malformed")
}

/// Whether a key is of the type that an algorithm takes, and meant for it.
fn fits(algorithm: Algorithm, key: &Jwk) -> bool {
    let is_of_type = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256 | Algorithm::PS256) => true,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => {
            key.curve == EllipticCurve::P256
        }
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => {
            key.curve == EllipticCurve::Ed25519
        }
        _ => false,
    };
    let common = &key.common;
    let is_for = match common.key_algorithm {
        None => true,
        Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
        Some(KeyAlgorithm::PS256) => algorithm == Algorithm::PS256,
        Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
        Some(KeyAlgorithm::EdDSA) => algorithm == Algorithm::EdDSA,
        Some(_) => false,
    };
    let is_to_sign = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = common.key_operations.as_ref();
    let is_to_verify = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
    is_of_type && is_for && is_to_sign && is_to_verify
}

impl Issuer {
    fn fetched(&self) -> std::sync::MutexGuard<'_, Fetched> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its keys; `again` because one is not among those that are known.
    async fn keys(&self, http: &reqwest::Client, again: bool) -> Result<Arc<Vec<Jwk>>, Failure> {
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

    async fn fetch(&self, http: &reqwest::Client) -> Result<Vec<Jwk>, String> {
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
        Ok(keys
            .filter_map(|key| serde_json::from_value(key).ok())
            .collect())
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
