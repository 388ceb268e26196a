//! S3 buckets: what their settings are, and what they are made with.
//!
//! Encryption and the block of public access are set where they were never set: on a bucket made
//! here, one that a run before this one made and did not finish, and one from before they were the
//! rule. Lifecycle rules belong to the owner, and are set on buckets made here alone.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    BucketVersioningStatus, CreateBucketConfiguration, ExpirationStatus, LifecycleRule,
    LifecycleRuleFilter, PublicAccessBlockConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
};

use super::rules::{self, Rule};
use super::sdk::{self, answer, is_not_implemented, is_unset};
use super::{Finding, Outcome, Tell};
use crate::Error;
use crate::advice::{self, Answer};
use crate::backend::{Given, S3Place};
use crate::clock::StoreClock;

/// The region whose name S3 does not take as a place for a bucket: it is the one without a name.
const FIRST_REGION: &str = "us-east-1";
/// After so many days uploads that were given up are ended. Source: AWS's own advice on costs.
const ABORT_DAYS: i32 = 7;

/// A bucket that is looked at.
struct Bucket<'a> {
    client: Client,
    name: String,
    region: String,
    /// What the keys of the store begin with.
    prefix: String,
    /// Whether it is a server of somebody else's.
    is_elsewhere: bool,
    tell: Tell<'a>,
}

/// Makes and sets up the bucket; whether it can be used.
pub(super) async fn init(
    url: &str,
    given: Given<'_>,
    kms_key: Option<&str>,
    tell: Tell<'_>,
) -> Result<bool, Error> {
    let place = S3Place::new(url, given, &StoreClock::default())?;
    let bucket = Bucket::open(place, url, tell).await;
    let is_new = match bucket.look().await {
        Ok(()) => {
            bucket.tell("bucket", Outcome::Fine, bucket.described("is there"));
            false
        }
        Err(answer) if is_missing(&answer) => match bucket.create().await {
            Ok(is_new) => is_new,
            Err(answer) => {
                let what = format!("bucket {} cannot be made", bucket.name);
                bucket.tell("bucket", Outcome::Wrong, said(&what, &answer));
                return Ok(false);
            }
        },
        Err(answer) => {
            bucket.tell("bucket", Outcome::Wrong, said(&bucket.name, &answer));
            return Ok(false);
        }
    };
    bucket.block_public_access().await;
    bucket.encrypt(kms_key).await;
    let keeps_versions = bucket.look_at_versions().await;
    if is_new {
        bucket.end_uploads().await;
    } else {
        bucket.look_at_rules(keeps_versions).await;
    }
    Ok(true)
}

/// Looks at the bucket; whether it can be used.
pub(super) async fn check(url: &str, given: Given<'_>, tell: Tell<'_>) -> Result<bool, Error> {
    let place = S3Place::new(url, given, &StoreClock::default())?;
    let bucket = Bucket::open(place, url, tell).await;
    if let Err(answer) = bucket.look().await {
        bucket.tell("bucket", Outcome::Wrong, said(&bucket.name, &answer));
        return Ok(false);
    }
    bucket.tell("bucket", Outcome::Fine, bucket.described("is there"));
    bucket.look_at_public_access().await;
    bucket.look_at_encryption().await;
    let keeps_versions = bucket.look_at_versions().await;
    bucket.look_at_rules(keeps_versions).await;
    Ok(true)
}

/// Whether there is no bucket of this name.
fn is_missing(answer: &Answer) -> bool {
    answer.code.as_deref() == Some("NoSuchBucket")
}

/// What could not be done, what to do about it, and what S3 said.
fn said(what: &str, answer: &Answer) -> String {
    let code = answer.code.as_deref().unwrap_or("no answer");
    let reason = format!("{what}: {code}: {}", answer.text);
    match advice::for_answer(answer) {
        Some(advice) => format!("{reason}; {advice}"),
        None => reason,
    }
}

impl<'a> Bucket<'a> {
    async fn open(place: S3Place, url: &str, tell: Tell<'a>) -> Self {
        let place = place.completed().await;
        let prefix = url::Url::parse(url).map_or(String::new(), |url| {
            let path = url.path().trim_matches('/');
            match path.is_empty() {
                true => String::new(),
                false => format!("{path}/"),
            }
        });
        Self {
            client: sdk::client(&place).await,
            name: place.bucket.clone(),
            region: place.region().unwrap_or_else(|| FIRST_REGION.to_owned()),
            prefix,
            is_elsewhere: place.endpoint().is_some(),
            tell,
        }
    }

    fn tell(&self, check: &'static str, outcome: Outcome, detail: impl Into<String>) {
        (self.tell)(Finding::new(check, outcome, detail));
    }

    fn described(&self, what: &str) -> String {
        match self.is_elsewhere {
            true => format!("{} {what}", self.name),
            false => format!("{} {what}, in {}", self.name, self.region),
        }
    }

    /// Says why a setting is not known, or could not be set.
    fn tell_unknown(&self, check: &'static str, what: &str, answer: &Answer) {
        let detail = match is_not_implemented(answer) {
            true => format!("{what}: this server has no such setting"),
            false => said(what, answer),
        };
        self.tell(check, Outcome::Unknown, detail);
    }

    /// Whether the bucket is there for these credentials. Unlike the request made for that, a list
    /// has an answer that says what is wrong.
    async fn look(&self) -> Result<(), Answer> {
        let list = self.client.list_objects_v2().bucket(&self.name);
        let list = list.prefix(&self.prefix).max_keys(1);
        list.send().await.map(drop).map_err(answer)
    }

    /// Whether it was made just now; else another process was faster.
    async fn create(&self) -> Result<bool, Answer> {
        let mut create = self.client.create_bucket().bucket(&self.name);
        if self.region != FIRST_REGION && !self.is_elsewhere {
            let place = BucketLocationConstraint::from(self.region.as_str());
            let place = CreateBucketConfiguration::builder().location_constraint(place);
            create = create.create_bucket_configuration(place.build());
        }
        match create.send().await.map_err(answer) {
            Ok(_) => {
                self.tell("bucket", Outcome::Done, self.described("was made"));
                Ok(true)
            }
            Err(answer) if answer.code.as_deref() == Some("BucketAlreadyOwnedByYou") => {
                self.tell("bucket", Outcome::Fine, self.described("is there"));
                Ok(false)
            }
            Err(answer) if answer.code.as_deref() == Some("BucketAlreadyExists") => Err(Answer {
                text: "somebody else has a bucket of this name: choose another".to_owned(),
                ..answer
            }),
            Err(answer) => Err(answer),
        }
    }

    /// How public access is blocked: not at all if that was never set.
    async fn public_access(&self) -> Result<Option<PublicAccessBlockConfiguration>, Answer> {
        let get = self.client.get_public_access_block().bucket(&self.name);
        match get.send().await.map_err(answer) {
            Ok(found) => Ok(found.public_access_block_configuration),
            Err(answer) if is_unset(&answer) => Ok(None),
            Err(answer) => Err(answer),
        }
    }

    async fn block_public_access(&self) {
        let found = match self.public_access().await {
            Ok(found) => found,
            Err(answer) => return self.tell_unknown(PUBLIC, "public access", &answer),
        };
        if found.is_some() || self.is_public_by_policy().await {
            return self.judge_public_access(found.as_ref());
        }
        let all = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let put = self.client.put_public_access_block().bucket(&self.name);
        match put.public_access_block_configuration(all).send().await {
            Ok(_) => self.tell(PUBLIC, Outcome::Done, "is blocked now"),
            Err(error) => {
                self.tell_unknown(PUBLIC, "public access cannot be blocked", &answer(error));
            }
        }
    }

    async fn look_at_public_access(&self) {
        match self.public_access().await {
            Ok(found) => self.judge_public_access(found.as_ref()),
            Err(answer) => self.tell_unknown(PUBLIC, "public access", &answer),
        }
    }

    fn judge_public_access(&self, found: Option<&PublicAccessBlockConfiguration>) {
        let blocks = |found: &PublicAccessBlockConfiguration| {
            [
                found.block_public_acls(),
                found.ignore_public_acls(),
                found.block_public_policy(),
                found.restrict_public_buckets(),
            ]
            .into_iter()
            .all(|is_on| is_on == Some(true))
        };
        let (outcome, detail) = match found.is_some_and(blocks) {
            true => (Outcome::Fine, "is blocked".to_owned()),
            false => (
                Outcome::Advice,
                format!(
                    "is not blocked, and stays so here; unless anybody is to read the bucket: \
                     aws s3api put-public-access-block --bucket {} \
                     --public-access-block-configuration BlockPublicAcls=true,\
                     IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true",
                    self.name
                ),
            ),
        };
        self.tell(PUBLIC, outcome, detail);
    }

    /// Whether its policy lets anybody in, which somebody meant.
    async fn is_public_by_policy(&self) -> bool {
        let get = self.client.get_bucket_policy_status().bucket(&self.name);
        let found = get.send().await.ok();
        let status = found.and_then(|found| found.policy_status);
        status.and_then(|status| status.is_public()) == Some(true)
    }

    /// How objects are encrypted that do not say so themselves.
    async fn encryption(&self) -> Result<Option<ServerSideEncryptionByDefault>, Answer> {
        let get = self.client.get_bucket_encryption().bucket(&self.name);
        match get.send().await.map_err(answer) {
            Ok(found) => {
                let rules = found.server_side_encryption_configuration;
                let rules = rules.map(|found| found.rules).unwrap_or_default();
                let mut found = rules.into_iter();
                Ok(found.find_map(|rule| rule.apply_server_side_encryption_by_default))
            }
            Err(answer) if is_unset(&answer) => Ok(None),
            Err(answer) => Err(answer),
        }
    }

    /// Sets the default encryption: by this key, if nothing or no key was set; else S3's own, if
    /// nothing was.
    async fn encrypt(&self, key: Option<&str>) {
        let found = match self.encryption().await {
            Ok(found) => found,
            Err(answer) => return self.tell_unknown(ENCRYPTION, "encryption", &answer),
        };
        let has_key = found.as_ref().is_some_and(is_by_key);
        match (key, &found) {
            (None, Some(found)) => return self.tell(ENCRYPTION, Outcome::Fine, described(found)),
            (Some(key), Some(found)) if has_key => {
                let is_same = found.kms_master_key_id() == Some(key);
                let (outcome, and) = match is_same {
                    true => (Outcome::Fine, ""),
                    false => (
                        Outcome::Wrong,
                        ", another key than was asked for, and stays so: change it with the tools \
                         of AWS if that is meant",
                    ),
                };
                return self.tell(ENCRYPTION, outcome, format!("{}{and}", described(found)));
            }
            _ => {}
        }
        let default = ServerSideEncryptionByDefault::builder();
        let default = match key {
            Some(key) => default
                .sse_algorithm(ServerSideEncryption::AwsKms)
                .kms_master_key_id(key),
            None => default.sse_algorithm(ServerSideEncryption::Aes256),
        };
        // The bucket's own key saves a request to KMS for each object.
        let rule = default.build().map(|default| {
            ServerSideEncryptionRule::builder()
                .apply_server_side_encryption_by_default(default)
                .bucket_key_enabled(key.is_some())
                .build()
        });
        let rules = rule.and_then(|rule| {
            let rules = ServerSideEncryptionConfiguration::builder().rules(rule);
            rules.build()
        });
        let put = self.client.put_bucket_encryption().bucket(&self.name);
        let put = put.set_server_side_encryption_configuration(rules.ok());
        match (put.send().await, key) {
            (Ok(_), Some(key)) => {
                let detail = format!("is by KMS key {key} now, for new objects");
                self.tell(ENCRYPTION, Outcome::Done, detail);
            }
            (Ok(_), None) => self.tell(ENCRYPTION, Outcome::Done, "is by keys of S3 now"),
            (Err(error), Some(_)) => {
                let what = "encryption by the KMS key cannot be set";
                self.tell(ENCRYPTION, Outcome::Wrong, said(what, &answer(error)));
            }
            (Err(error), None) => {
                self.tell_unknown(ENCRYPTION, "encryption cannot be set", &answer(error));
            }
        }
    }

    async fn look_at_encryption(&self) {
        match self.encryption().await {
            Ok(Some(found)) => self.tell(ENCRYPTION, Outcome::Fine, described(&found)),
            Ok(None) => {
                let detail = "none is set: quarr store init sets it";
                self.tell(ENCRYPTION, Outcome::Advice, detail);
            }
            Err(answer) => self.tell_unknown(ENCRYPTION, "encryption", &answer),
        }
    }

    /// Whether what is deleted is kept.
    async fn look_at_versions(&self) -> bool {
        let get = self.client.get_bucket_versioning().bucket(&self.name);
        let found = match get.send().await.map_err(answer) {
            Ok(found) => found,
            Err(answer) => {
                self.tell_unknown("versioning", "versioning", &answer);
                return false;
            }
        };
        let is_on = found.status() == Some(&BucketVersioningStatus::Enabled);
        let detail = match is_on {
            true => "is on: what is deleted can be had back until a lifecycle rule ends it",
            false => {
                "is off, which Quarr does not need: it never changes an object, and keeps its own \
                 history. On, it protects from deletion by others"
            }
        };
        self.tell("versioning", Outcome::Fine, detail);
        is_on
    }

    async fn look_at_rules(&self, keeps_versions: bool) {
        let get = self.client.get_bucket_lifecycle_configuration();
        let rules = match get.bucket(&self.name).send().await.map_err(answer) {
            Ok(found) => found.rules.unwrap_or_default(),
            Err(answer) if is_unset(&answer) => Vec::new(),
            Err(answer) => return self.tell_unknown("lifecycle", "lifecycle rules", &answer),
        };
        let rules: Vec<Rule> = rules.iter().filter_map(Rule::of).collect();
        for (outcome, detail) in rules::judge(&rules, &self.prefix, keeps_versions) {
            self.tell("lifecycle", outcome, detail);
        }
    }

    /// Gives a new bucket a rule that ends uploads that were given up.
    async fn end_uploads(&self) {
        let after = AbortIncompleteMultipartUpload::builder().days_after_initiation(ABORT_DAYS);
        let rule = LifecycleRule::builder()
            .id("quarr-end-uploads")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("").build())
            .abort_incomplete_multipart_upload(after.build())
            .build();
        let rules =
            rule.and_then(|rule| BucketLifecycleConfiguration::builder().rules(rule).build());
        let put = self.client.put_bucket_lifecycle_configuration();
        let put = put
            .bucket(&self.name)
            .set_lifecycle_configuration(rules.ok());
        match put.send().await {
            Ok(_) => {
                let detail = format!("uploads that were given up end after {ABORT_DAYS} days now");
                self.tell("lifecycle", Outcome::Done, detail);
            }
            Err(error) => {
                self.tell_unknown("lifecycle", "no rule could be set", &answer(error));
            }
        }
    }
}

const PUBLIC: &str = "public access";
const ENCRYPTION: &str = "encryption";

fn is_by_key(found: &ServerSideEncryptionByDefault) -> bool {
    *found.sse_algorithm() != ServerSideEncryption::Aes256
}

fn described(found: &ServerSideEncryptionByDefault) -> String {
    match (is_by_key(found), found.kms_master_key_id()) {
        (true, Some(key)) => format!("is by KMS key {key}"),
        (true, None) => "is by the account's KMS key for S3".to_owned(),
        (false, _) => "is by keys of S3".to_owned(),
    }
}
