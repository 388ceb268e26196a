//! Credentials as AWS's own tools find them: environment, profiles (keys, SSO, roles to assume,
//! programs to run), web identity, and the metadata services of containers and machines.
//!
//! Invariant: a request waits for credentials only if there are none that are still valid. New ones
//! are fetched by one request at a time, [`EARLY`] before the old ones expire; while that fails the
//! old ones serve as long as they last.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tracing::warn;

/// How long before they expire credentials are replaced. The shortest that AWS gives out last 15
/// minutes; metadata services have new ones ready 5 minutes before.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// Pause after new ones could not be had.
const RETRY: Duration = Duration::from_secs(20);

/// What the environment, the profile and the machine say; the region too, unless it is given.
pub(crate) async fn load(region: Option<String>) -> SdkConfig {
    // Over the TLS stack that everything else here uses.
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    loader.load().await
}

/// The region of the profile.
pub(crate) async fn profile_region() -> Option<String> {
    use aws_config::meta::region::ProvideRegion as _;
    let provider = aws_config::profile::ProfileFileRegionProvider::new();
    provider.region().await.map(|region| region.to_string())
}

/// Credentials of a provider, kept until shortly before they expire.
pub(crate) struct Chain {
    provider: SharedCredentialsProvider,
    held: Mutex<Option<Held>>,
    /// Held by the request that fetches new ones.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Held {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
    /// When new ones are to be fetched.
    due: Option<SystemTime>,
}

impl Held {
    fn new(found: &Credentials) -> Self {
        let expires = found.expiry();
        Self {
            credential: Arc::new(AwsCredential {
                key_id: found.access_key_id().to_owned(),
                secret_key: found.secret_access_key().to_owned(),
                token: found.session_token().map(str::to_owned),
            }),
            expires,
            due: expires.and_then(|expires| expires.checked_sub(EARLY)),
        }
    }

    fn is_due(&self, now: SystemTime) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets stay out of logs.
        f.write_str("Chain")
    }
}

impl Chain {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn held(&self) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    fn hold(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    async fn credential_at(&self, now: SystemTime) -> object_store::Result<Arc<AwsCredential>> {
        let usable = match self.held() {
            Some(held) if !held.is_due(now) => return Ok(held.credential),
            held => held.filter(|held| held.is_valid(now)),
        };
        let _turn = match (usable, self.turn.try_lock()) {
            (_, Ok(turn)) => turn,
            (Some(held), Err(_)) => return Ok(held.credential),
            (None, Err(_)) => self.turn.lock().await,
        };
        // Somebody else may have fetched some meanwhile.
        let held = match self.held() {
            Some(held) if !held.is_due(now) => return Ok(held.credential),
            held => held.filter(|held| held.is_valid(now)),
        };
        match (self.provider.provide_credentials().await, held) {
            (Ok(found), _) => {
                let held = Held::new(&found);
                self.hold(held.clone());
                Ok(held.credential)
            }
            (Err(error), Some(held)) => {
                let error = crate::error::chain(&error);
                warn!(%error, "no new AWS credentials, those at hand are used while they last");
                // Asked again soon, and before these have expired.
                let again = now + RETRY;
                self.hold(Held {
                    due: Some(held.expires.map_or(again, |expires| expires.min(again))),
                    ..held.clone()
                });
                Ok(held.credential)
            }
            (Err(error), None) => Err(object_store::Error::Unauthenticated {
                path: String::new(),
                source: Box::new(NoCredentials(error)),
            }),
        }
    }
}

/// Nowhere in the chain are credentials that work.
#[derive(Debug, thiserror::Error)]
#[error("no AWS credentials")]
pub(crate) struct NoCredentials(#[source] aws_credential_types::provider::error::CredentialsError);

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.credential_at(SystemTime::now()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_credential_types::provider::{self, error::CredentialsError, future};

    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;
    const LIFE: Duration = Duration::from_secs(3600);

    /// Gives out credentials that last an hour each, if it does not fail.
    #[derive(Clone, Debug, Default)]
    struct Source {
        asked: Arc<AtomicUsize>,
        fails: Arc<Mutex<bool>>,
    }

    impl provider::ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let nth = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            if *self.fails.lock().unwrap() {
                let error = CredentialsError::not_loaded("the service is down");
                return future::ProvideCredentials::ready(Err(error));
            }
            let expires = START + LIFE * nth as u32;
            let found = Credentials::new(
                format!("id{nth}"),
                "secret",
                Some("token".into()),
                Some(expires),
                "t",
            );
            // Others get a turn while it is asked.
            future::ProvideCredentials::new(async move {
                tokio::task::yield_now().await;
                Ok(found)
            })
        }
    }

    fn chain() -> (Source, Chain) {
        let source = Source::default();
        let chain = Chain::new(SharedCredentialsProvider::new(source.clone()));
        (source, chain)
    }

    async fn id_at(chain: &Chain, seconds: u64) -> object_store::Result<String> {
        let at = START + Duration::from_secs(seconds);
        let found = chain.credential_at(at).await?;
        assert_eq!(found.token.as_deref(), Some("token"));
        Ok(found.key_id.clone())
    }

    #[tokio::test]
    async fn credentials_are_fetched_once_and_replaced_before_they_expire() {
        let (source, chain) = chain();
        assert_eq!(source.asked.load(Ordering::Relaxed), 0);
        for (seconds, id) in [(0, "id1"), (3299, "id1"), (3300, "id2"), (6899, "id2")] {
            assert_eq!(id_at(&chain, seconds).await.unwrap(), id, "{seconds}");
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn requests_that_come_together_ask_once() {
        let (source, chain) = chain();
        let found = futures::future::join_all((0..20).map(|_| id_at(&chain, 0))).await;
        assert!(found.into_iter().all(|id| id.unwrap() == "id1"));
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        // Those that are still valid serve while one request fetches new ones.
        let found = futures::future::join_all((0..20).map(|_| id_at(&chain, 3400))).await;
        let old = found
            .into_iter()
            .filter(|id| *id.as_ref().unwrap() == "id1");
        assert_eq!(old.count(), 19);
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn old_credentials_serve_as_long_as_they_last() {
        let (source, chain) = chain();
        assert_eq!(id_at(&chain, 0).await.unwrap(), "id1");
        *source.fails.lock().unwrap() = true;
        assert_eq!(id_at(&chain, 3300).await.unwrap(), "id1");
        // It is not asked again at once.
        assert_eq!(id_at(&chain, 3319).await.unwrap(), "id1");
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
        assert_eq!(id_at(&chain, 3599).await.unwrap(), "id1");
        let error = id_at(&chain, 3600).await.unwrap_err();
        let text = crate::error::chain(&error);
        assert!(text.contains("no AWS credentials"), "{text}");
        *source.fails.lock().unwrap() = false;
        assert_eq!(id_at(&chain, 3601).await.unwrap(), "id5");
    }

    #[tokio::test]
    async fn secrets_are_not_printed() {
        let (_, chain) = chain();
        id_at(&chain, 0).await.unwrap();
        assert_eq!(format!("{chain:?}"), "Chain");
    }
}
