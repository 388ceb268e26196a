//! S3, and what speaks its protocol.
//!
//! What the settings and the environment say goes before all else: with keys, a region or an
//! endpoint there, nothing more is looked for. What they leave open is asked of the AWS chain when
//! the first request is made, so that opening a store stays free of requests.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, S3ConditionalPut,
    resolve_bucket_region,
};
use object_store::{ClientOptions, ObjectStore, StaticCredentialProvider};

use super::chain::{self, Chain};
use super::deferred::Deferred;
use super::{Given, invalid, parse, retry};
use crate::Error;
use crate::clock::StoreClock;

/// Where a server of somebody else's is taken to be, which only matters to its signatures; also
/// where S3 begins looking for a bucket.
const DEFAULT_REGION: &str = "us-east-1";

/// How long S3 is asked where a bucket is.
const LOOK: Duration = Duration::from_secs(5);

/// An S3 bucket and how to reach it, as far as that is given.
#[derive(Clone, Debug)]
pub(crate) struct S3Place {
    builder: AmazonS3Builder,
    /// The bucket's name.
    pub(crate) bucket: String,
}

/// The store at `url`.
///
/// # Errors
/// [`Error::Invalid`] if the URL or a setting is not understood.
pub(super) fn open(
    url: &str,
    given: Given<'_>,
    clock: &StoreClock,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let place = S3Place::new(url, given, clock)?;
    if place.is_complete() {
        return Ok(Arc::new(place.build(url)?));
    }
    // What is wrong with the settings is said now, not with the first request.
    place.clone().with_nobody().build(url)?;
    let name = format!("S3 bucket {}", place.bucket);
    Ok(Arc::new(Deferred::new(name, move || {
        let place = place.clone();
        async move { place.completed().await.builder.build() }
    })))
}

impl S3Place {
    /// What `url`, settings and environment say.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL or a setting is not understood.
    pub(crate) fn new(url: &str, given: Given<'_>, clock: &StoreClock) -> Result<Self, Error> {
        let builder = parse(given)?
            .into_iter()
            .fold(AmazonS3Builder::from_env(), |builder, (key, value)| {
                builder.with_config(key, value)
            })
            .with_url(url)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(retry())
            .with_http_connector(clock.clone());
        let bucket = url::Url::parse(url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned))
            .ok_or_else(|| invalid(format!("{url} names no bucket")))?;
        Ok(Self { builder, bucket })
    }

    fn value(&self, key: Key) -> Option<String> {
        let value = self.builder.get_config_value(&key);
        value.filter(|value| !value.is_empty())
    }

    fn is_set(&self, key: Key) -> bool {
        self.value(key).is_some_and(|value| value == "true")
    }

    /// The region, if it is given.
    pub(crate) fn region(&self) -> Option<String> {
        self.value(Key::Region)
    }

    /// The endpoint, if one is given: then it is not AWS, or a part of it with an address of its own.
    pub(crate) fn endpoint(&self) -> Option<String> {
        let of_s3 = self.value(Key::S3Endpoint);
        of_s3.or_else(|| self.value(Key::Endpoint))
    }

    /// Whether the bucket is part of the host name.
    pub(crate) fn is_virtual_hosted(&self) -> bool {
        self.is_set(Key::VirtualHostedStyleRequest)
    }

    /// Access key, secret and session token, if they are given.
    pub(crate) fn keys(&self) -> Option<(String, String, Option<String>)> {
        let id = self.value(Key::AccessKeyId)?;
        let secret = self.value(Key::SecretAccessKey)?;
        Some((id, secret, self.value(Key::Token)))
    }

    /// Whether requests are not signed.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.is_set(Key::SkipSignature)
    }

    /// Whether credentials are given, or half of them, which is an error later.
    fn has_credentials(&self) -> bool {
        let keys = [Key::AccessKeyId, Key::SecretAccessKey];
        self.is_anonymous() || keys.into_iter().any(|key| self.value(key).is_some())
    }

    fn is_complete(&self) -> bool {
        let has_place = self.region().is_some() || self.endpoint().is_some();
        self.has_credentials() && has_place
    }

    /// The same, in this region.
    fn in_region(self, region: &str) -> Self {
        Self {
            builder: self.builder.with_region(region),
            ..self
        }
    }

    fn with_nobody(self) -> Self {
        let nobody = AwsCredential {
            key_id: String::new(),
            secret_key: String::new(),
            token: None,
        };
        let nobody = Arc::new(StaticCredentialProvider::new(nobody));
        Self {
            builder: self.builder.with_credentials(nobody),
            ..self
        }
    }

    fn build(self, url: &str) -> Result<AmazonS3, Error> {
        let invalid = |error| invalid(format!("{url}: {error}"));
        self.builder.build().map_err(invalid)
    }

    /// The same with what the AWS chain knows: credentials, and the region and endpoint of the
    /// profile. The region of a bucket that nobody says is asked of S3.
    pub(crate) async fn completed(self) -> Self {
        if self.has_credentials() {
            let profile = chain::profile_region().await;
            return self.located(profile).await;
        }
        // With somebody else's server the region is no reason to look for the machine's.
        let region = self.region();
        let region = region.or_else(|| self.endpoint().map(|_| DEFAULT_REGION.to_owned()));
        let config = chain::load(region).await;
        let mut place = self;
        if let (None, Some(endpoint)) = (place.endpoint(), config.endpoint_url()) {
            place.builder = place.builder.with_endpoint(endpoint);
        }
        if let Some(provider) = config.credentials_provider() {
            let chain = Arc::new(Chain::new(provider));
            place.builder = place.builder.with_credentials(chain);
        }
        let region = config.region().map(|region| region.as_ref().to_owned());
        place.located(region).await
    }

    /// The same in the region that is given, else in `found`, else where S3 says the bucket is.
    async fn located(self, found: Option<String>) -> Self {
        if self.region().is_some() {
            return self;
        }
        let region = match (found, self.endpoint()) {
            (Some(region), _) => Some(region),
            (None, Some(_)) => None,
            (None, None) => {
                let options = ClientOptions::new()
                    .with_timeout(LOOK)
                    .with_connect_timeout(LOOK);
                let asked = resolve_bucket_region(&self.bucket, &options).await;
                let unknown = |error: &object_store::Error| {
                    tracing::debug!(%error, "S3 does not say where the bucket is");
                };
                asked.inspect_err(unknown).ok()
            }
        };
        self.in_region(region.as_deref().unwrap_or(DEFAULT_REGION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(given: Given<'_>) -> S3Place {
        S3Place::new("s3://bucket/a", given, &StoreClock::default()).unwrap()
    }

    #[test]
    fn only_what_is_not_given_is_looked_for() {
        let keys = [("aws_access_key_id", "a"), ("aws_secret_access_key", "b")];
        let region = [("aws_region", "eu-central-1")];
        let endpoint = [("aws_endpoint", "http://localhost:9000")];
        let anonymous = [("aws_skip_signature", "true")];
        for (given, is_complete) in [
            ([&keys[..], &region].concat(), true),
            ([&keys[..], &endpoint].concat(), true),
            ([&anonymous[..], &region].concat(), true),
            (keys.to_vec(), false),
            (region.to_vec(), false),
            (endpoint.to_vec(), false),
            (anonymous.to_vec(), false),
        ] {
            assert_eq!(place(&given).is_complete(), is_complete, "{given:?}");
        }
    }

    #[test]
    fn wrong_settings_are_said_when_the_store_is_opened() {
        let open = |url, given: Given<'_>| open(url, given, &StoreClock::default());
        assert!(open("s3://bucket/a", &[]).is_ok());
        assert!(open("s3:///a", &[]).is_err());
        for wrong in [
            ("aws_server_side_encryption", "rot13"),
            ("aws_checksum_algorithm", "md4"),
            ("aws_no_such_setting", "1"),
        ] {
            let found = open("s3://bucket/a", &[wrong]);
            assert!(matches!(found, Err(Error::Invalid { .. })), "{wrong:?}");
        }
    }
}
