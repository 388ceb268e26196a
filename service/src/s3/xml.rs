//! Documents of answers. Names are those of the S3 API.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::refusal::Refusal;
use crate::auth::Principal;

pub(super) const MEDIA_TYPE: &str = "application/xml";
/// The namespace of the documents that have one.
pub(super) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// 200 with a document.
pub(super) fn response(document: &impl Serialize) -> Result<Response, Refusal> {
    let text = text(document)?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

/// A document as text.
pub(super) fn text(document: &impl Serialize) -> Result<String, Refusal> {
    let text = quick_xml::se::to_string(document);
    let text = text.map_err(|error| Refusal::broken(error.to_string()))?;
    Ok(format!("{DECLARATION}{text}"))
}

/// Whether XML 1.0 can carry a text so that it is read as it was written.
pub(super) fn can_carry(text: &str) -> bool {
    !text.contains(|c: char| c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

/// The answer to GetBucketLocation: nothing stands for us-east-1.
#[derive(Serialize)]
#[serde(rename = "LocationConstraint")]
pub(super) struct Location {
    #[serde(rename = "@xmlns")]
    xmlns: &'static str,
}

impl Default for Location {
    fn default() -> Self {
        Self { xmlns: NAMESPACE }
    }
}

/// The answer to ListBuckets.
#[derive(Serialize)]
#[serde(rename = "ListAllMyBucketsResult", rename_all = "PascalCase")]
pub(super) struct Buckets {
    #[serde(rename = "@xmlns")]
    xmlns: &'static str,
    owner: Owner,
    buckets: BucketList,
}

#[derive(Serialize)]
struct Owner {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "DisplayName")]
    display_name: String,
}

#[derive(Serialize)]
struct BucketList {
    #[serde(rename = "Bucket")]
    bucket: Vec<Bucket>,
}

/// A repository.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) creation_date: String,
}

impl Buckets {
    /// The list for who asks.
    pub(super) fn new(who: Option<&Principal>, bucket: Vec<Bucket>) -> Self {
        let name = who.map_or("anonymous", |who| &who.name).to_owned();
        Self {
            xmlns: NAMESPACE,
            owner: Owner {
                id: name.clone(),
                display_name: name,
            },
            buckets: BucketList { bucket },
        }
    }
}

/// The answer to ListObjects (V1) and ListObjectsV2.
#[derive(Serialize)]
#[serde(rename = "ListBucketResult", rename_all = "PascalCase")]
pub(super) struct Objects {
    #[serde(rename = "@xmlns")]
    pub(super) xmlns: &'static str,
    pub(super) name: String,
    pub(super) prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delimiter: Option<String>,
    pub(super) max_keys: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encoding_type: Option<&'static str>,
    pub(super) is_truncated: bool,
    /// Of V1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) marker: Option<String>,
    /// Of V1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_marker: Option<String>,
    /// Of V2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_count: Option<usize>,
    /// Of V2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) continuation_token: Option<String>,
    /// Of V2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_continuation_token: Option<String>,
    /// Of V2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_after: Option<String>,
    pub(super) contents: Vec<Object>,
    pub(super) common_prefixes: Vec<CommonPrefix>,
}

/// An object of a list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) last_modified: String,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) storage_class: &'static str,
}

/// What several keys begin with, up to the delimiter.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CommonPrefix {
    pub(super) prefix: String,
}
