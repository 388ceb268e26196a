//! Caching headers and conditional requests, the same for every read.

use array::hash::{Kind, hash};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use crate::state::Pinned;

/// How an answer may be cached: for ever from a commit, never unasked from a ref that may move.
#[derive(Clone, Debug)]
pub(crate) struct Caching {
    etag: String,
    /// The same answer under its commit, for an answer from a ref that may move.
    pinned_url: Option<String>,
}

impl Caching {
    /// The caching of the answer to `/v1/repos/{repository}/refs/{ref}…`, of which `parts` tell
    /// apart what the path does not.
    pub(crate) fn new(pinned: &Pinned, uri: &Uri, parts: &[&str]) -> Self {
        let id = pinned.snapshot.id().to_string();
        let segments: Vec<&str> = uri.path().splitn(7, '/').collect();
        let below = segments.get(6).copied().unwrap_or("");
        let mut named = id.clone();
        for part in parts.iter().chain([&below]) {
            named.push('\n');
            named.push_str(part);
        }
        let digits = hash(Kind::Request, named.as_bytes()).to_string();
        let pinned_url = pinned.moves.then(|| {
            let mut url: Vec<&str> = segments.clone();
            if let Some(reference) = url.get_mut(5) {
                *reference = &id;
            }
            let query = uri.query().map(|query| format!("?{query}"));
            url.join("/") + &query.unwrap_or_default()
        });
        Self {
            etag: format!("\"{}\"", &digits[..32]),
            pinned_url,
        }
    }

    /// No caching: the answer may be another one next time.
    pub(crate) fn none() -> Self {
        Self {
            etag: String::new(),
            pinned_url: None,
        }
    }

    /// 304, if the client has the answer already.
    pub(crate) fn not_modified(&self, headers: &HeaderMap) -> Option<Response> {
        if self.etag.is_empty() {
            return None;
        }
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
        if self.etag.is_empty() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return;
        }
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
