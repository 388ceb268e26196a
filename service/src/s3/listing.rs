//! ListBuckets, ListObjectsV2 and ListObjects.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use storage::RepoName;

use super::Gateway;
use super::page::{Page, Wanted, page};
use super::parameters::Parameters;
use super::refusal::Refusal;
use super::xml;
use crate::auth::Principal;

/// Most keys and common prefixes on a page, and as many unless fewer are asked for: those of S3.
const MAX_KEYS: usize = 1000;
/// What stays as it is in names that are sent encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'/');

/// The repositories that may be read.
pub(super) async fn buckets(
    gateway: &Gateway,
    who: Option<&Principal>,
) -> Result<Response, Refusal> {
    let names = storage::list_repositories(gateway.state.store()).await;
    let names = names.map_err(crate::error::Failure::from)?;
    let mut buckets = Vec::new();
    for name in names {
        // Folders of other things may carry other names.
        let Ok(parsed) = name.parse::<RepoName>() else {
            continue;
        };
        if gateway.access.may_see(who, &name) {
            let created = gateway.state.repository(&parsed).await?.created();
            buckets.push(xml::Bucket {
                name,
                creation_date: time(created),
            });
        }
    }
    // Who may read nothing is told so; an empty service has nothing to tell.
    if buckets.is_empty() && !gateway.access.may_read_some(who) {
        return Err(Refusal::access_denied());
    }
    xml::response(&xml::Buckets::new(who, buckets))
}

/// A page of the keys of a bucket.
pub(super) async fn objects(
    gateway: &Gateway,
    who: Option<&Principal>,
    bucket: &str,
    parameters: &Parameters,
) -> Result<Response, Refusal> {
    let request = Request::parse(parameters)?;
    let prefix = request.wanted.prefix.as_str();
    let below = prefix.split_once('/').map_or("", |(_, below)| below);
    // What does not end with a slash is the beginning of other names too.
    let node = below.rsplit_once('/').map_or("", |(node, _)| node);
    gateway.access.check(who, bucket, node)?;
    let repository = gateway.repository(bucket).await?;
    let page = page(gateway, bucket, &repository, &request.wanted).await?;
    xml::response(&request.document(bucket, &page)?)
}

/// A request for a page.
struct Request {
    wanted: Wanted,
    is_version_2: bool,
    is_encoded: bool,
    /// As they were given.
    after: Option<String>,
    token: Option<String>,
}

impl Request {
    fn parse(parameters: &Parameters) -> Result<Self, Refusal> {
        let get = |name: &str| parameters.get(name).map(str::to_owned);
        let is_version_2 = match parameters.get("list-type") {
            None => false,
            Some("2") => true,
            Some(_) => return Err(Refusal::invalid_argument("list-type", "is not 2")),
        };
        let is_encoded = match parameters.get("encoding-type") {
            None | Some("") => false,
            Some("url") => true,
            Some(_) => return Err(Refusal::invalid_argument("encoding-type", "is not url")),
        };
        let most = match parameters.get("max-keys") {
            None | Some("") => MAX_KEYS,
            Some(text) => {
                let number = text.parse::<u32>().ok().filter(|&n| n <= i32::MAX as u32);
                let wrong = || Refusal::invalid_argument("max-keys", "is no number from 0");
                (number.ok_or_else(wrong)? as usize).min(MAX_KEYS)
            }
        };
        let (after, token) = match is_version_2 {
            true => (get("start-after"), get("continuation-token")),
            false => (get("marker"), None),
        };
        // A token goes on where a page ended, wherever the first one began.
        let started = match &token {
            Some(token) => decode_token(token)?,
            None => after.clone().unwrap_or_default(),
        };
        Ok(Self {
            wanted: Wanted {
                prefix: get("prefix").unwrap_or_default(),
                delimiter: get("delimiter").filter(|delimiter| !delimiter.is_empty()),
                after: started,
                most,
            },
            is_version_2,
            is_encoded,
            after,
            token,
        })
    }

    fn document(self, bucket: &str, page: &Page) -> Result<xml::Objects, Refusal> {
        let is_encoded = self.is_encoded;
        let name = |text: &str| match is_encoded {
            true => Ok(utf8_percent_encode(text, ENCODED).to_string()),
            false if xml::can_carry(text) => Ok(text.to_owned()),
            false => {
                let message = "there are keys with characters that XML has no place for: ask \
                               with encoding-type=url";
                Err(Refusal::invalid_request(message))
            }
        };
        let optional = |text: Option<&String>| text.map(|text| name(text)).transpose();
        let contents = page.objects.iter().map(|object| {
            Ok(xml::Object {
                key: name(&object.key)?,
                last_modified: time(object.version.modified.into()),
                etag: object.version.etag.clone(),
                size: object.length,
                storage_class: "STANDARD",
            })
        });
        let contents = contents.collect::<Result<Vec<_>, Refusal>>()?;
        let prefixes = page.prefixes.iter().map(|prefix| {
            Ok(xml::CommonPrefix {
                prefix: name(prefix)?,
            })
        });
        let common_prefixes = prefixes.collect::<Result<Vec<_>, Refusal>>()?;
        let of_version_1 = !self.is_version_2;
        let next = page.next.as_ref();
        let has_delimiter = self.wanted.delimiter.is_some();
        Ok(xml::Objects {
            xmlns: xml::NAMESPACE,
            name: bucket.to_owned(),
            prefix: name(&self.wanted.prefix)?,
            delimiter: optional(self.wanted.delimiter.as_ref())?,
            max_keys: self.wanted.most,
            encoding_type: is_encoded.then_some("url"),
            is_truncated: next.is_some(),
            marker: match of_version_1 {
                true => Some(name(self.after.as_deref().unwrap_or_default())?),
                false => None,
            },
            // Without a delimiter, the last key is where to go on.
            next_marker: optional(next.filter(|_| of_version_1 && has_delimiter))?,
            key_count: self
                .is_version_2
                .then_some(contents.len() + common_prefixes.len()),
            continuation_token: self.token,
            next_continuation_token: next
                .filter(|_| self.is_version_2)
                .map(|last| BASE64.encode(last)),
            start_after: optional(self.after.as_ref().filter(|_| self.is_version_2))?,
            contents,
            common_prefixes,
        })
    }
}

/// The key or common prefix that a page ended with.
fn decode_token(token: &str) -> Result<String, Refusal> {
    let bytes = BASE64.decode(token).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let unknown = || Refusal::invalid_argument("continuation-token", "is none that a page gave");
    text.ok_or_else(unknown)
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
