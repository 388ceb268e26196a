//! Caching headers and conditional requests, the same for every read.

use array::hash::{Kind, hash};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use crate::state::Pinned;

/// How an answer may be cached: for ever from a commit, never unasked from a branch.
#[derive(Clone, Debug)]
pub(crate) struct Caching {
    etag: String,
    /// The same answer under its commit, for an answer from a branch.
    pinned_url: Option<String>,
}

impl Caching {
    /// The caching of what `parts` name in a commit. `path` is the URL path below the ref.
    pub(crate) fn new(pinned: &Pinned, repository: &str, path: &str, parts: &[&str]) -> Self {
        let mut named = pinned.snapshot.id().to_string();
        for part in parts.iter().chain([&path]) {
            named.push('\n');
            named.push_str(part);
        }
        let digits = hash(Kind::Request, named.as_bytes()).to_string();
        let pinned_url = pinned.branch.as_ref().map(|_| {
            format!(
                "/v1/repos/{repository}/refs/{}/{path}",
                pinned.snapshot.id()
            )
        });
        Self {
            etag: format!("\"{}\"", &digits[..32]),
            pinned_url,
        }
    }

    /// 304, if the client has the answer already.
    pub(crate) fn not_modified(&self, headers: &HeaderMap) -> Option<Response> {
        let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
        let matches = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == self.etag;
        known.split(',').map(str::trim).any(matches).then(|| {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            self.apply(response.headers_mut());
            response
        })
    }

    /// Whether `If-Range` lets a range be answered.
    pub(crate) fn range_applies(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::IF_RANGE)
            .is_none_or(|tag| tag.as_bytes() == self.etag.as_bytes())
    }

    /// Sets the headers.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(header::ETAG, &self.etag);
        set(header::VARY, "Accept, Accept-Encoding");
        match &self.pinned_url {
            Some(url) => {
                set(header::CONTENT_LOCATION, url);
                set(header::CACHE_CONTROL, "no-cache");
            }
            None => set(header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        }
    }
}

/// 200 with a body of this type.
pub(crate) fn ok(media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let body: Bytes = body.into();
    ([(header::CONTENT_TYPE, media_type)], body).into_response()
}
