//! Answers: caching headers, conditional requests, ranges, content codings and digests, the same for
//! every read.

mod coding;
pub(crate) mod streamed;

use std::ops::Range;

use array::hash::{Kind, hash};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::error::Failure;
use crate::state::Pinned;

pub(crate) use coding::Coding;

/// Source: RFC 9530.
pub(crate) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// How an answer may be cached: for ever from a commit, never unasked from a ref that may move.
#[derive(Clone, Debug)]
pub(crate) struct Caching {
    etag: String,
    /// The same answer under its commit, for an answer from a ref that may move.
    pinned_url: Option<String>,
    /// Whether it may be kept at all.
    is_kept: bool,
}

impl Caching {
    /// The caching of the answer to `/v1/repos/{repository}/refs/{ref}…`, of which `parts` tell
    /// apart what the path does not.
    pub(crate) fn new(pinned: &Pinned, uri: &Uri, parts: &[&str]) -> Self {
        let id = pinned.snapshot.id().to_string();
        let segments: Vec<&str> = uri.path().splitn(7, '/').collect();
        let below = segments.get(6).copied().unwrap_or("");
        let mut named = id.clone();
        // Who may see less gets another answer.
        let scope = pinned.scope.text();
        let scope = Some(scope.as_str()).filter(|scope| !scope.is_empty());
        for part in parts.iter().copied().chain([below]).chain(scope) {
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
            is_kept: true,
        }
    }

    /// No caching: the answer may be another one next time.
    pub(crate) fn none() -> Self {
        Self {
            etag: String::new(),
            pinned_url: None,
            is_kept: false,
        }
    }

    /// An answer that may be another one next time, told by its content: it has a tag, so that
    /// conditions and ranges work.
    pub(crate) fn of_content(content: &[u8]) -> Self {
        let digits = hash(Kind::Request, content).to_string();
        Self {
            etag: format!("\"{}\"", &digits[..32]),
            ..Self::none()
        }
    }

    /// The caching of the same answer in a content coding.
    pub(crate) fn coded(mut self, coding: Coding) -> Self {
        if let (Some(name), Some(tag)) = (coding.name(), self.etag.strip_suffix('"')) {
            self.etag = format!("{tag}-{name}\"");
        }
        self
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

    /// Whether `If-Range` lets a range be answered. Without a tag to compare with, it does not.
    fn range_applies(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::IF_RANGE)
            .is_none_or(|tag| !self.etag.is_empty() && tag.as_bytes() == self.etag.as_bytes())
    }

    /// Sets the headers.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if self.etag.is_empty() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return;
        }
        set(headers, header::ETAG, &self.etag);
        set(headers, header::VARY, "Accept, Accept-Encoding");
        match &self.pinned_url {
            _ if !self.is_kept => set(headers, header::CACHE_CONTROL, "no-store"),
            Some(url) => {
                set(headers, header::CONTENT_LOCATION, url);
                set(headers, header::CACHE_CONTROL, "no-cache");
            }
            None => set(
                headers,
                header::CACHE_CONTROL,
                "public, max-age=31536000, immutable",
            ),
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// 200 with a body of this type.
pub(crate) fn ok(media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let body: Bytes = body.into();
    ([(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// All bytes of an answer.
#[derive(Debug)]
pub(crate) struct Representation {
    media_type: &'static str,
    coding: Coding,
    bytes: Bytes,
    digest: String,
}

impl Representation {
    /// Takes the bytes as they are.
    pub(crate) fn new(media_type: &'static str, bytes: Bytes) -> Self {
        Self::coded(media_type, bytes, Coding::Identity)
    }

    /// Codes the bytes, if that makes them shorter; CPU work.
    pub(crate) fn coded(media_type: &'static str, bytes: Bytes, coding: Coding) -> Self {
        let (coding, bytes) = match coding.encode(&bytes) {
            Some(coded) => (coding, coded),
            None => (Coding::Identity, bytes),
        };
        Self {
            media_type,
            coding,
            digest: digest(&Sha256::digest(&bytes)),
            bytes,
        }
    }

    /// All of it, or the range that the request asks for.
    ///
    /// # Errors
    /// 416 for a range outside of it.
    pub(crate) fn response(
        self,
        caching: &Caching,
        request: &HeaderMap,
    ) -> Result<Response, Failure> {
        let length = self.bytes.len() as u64;
        let range = requested_range(request, caching, length)?;
        let body = match &range {
            Some(range) => self.bytes.slice(range.start as usize..range.end as usize),
            None => self.bytes,
        };
        let mut response = part(self.media_type, body, range, length, caching);
        let headers = response.headers_mut();
        set(headers, REPR_DIGEST, &self.digest);
        if let Some(name) = self.coding.name() {
            set(headers, header::CONTENT_ENCODING, name);
        }
        Ok(response)
    }
}

/// The value of `Repr-Digest`.
fn digest(sha256: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(sha256))
}

/// An answer with a body that is all of an object of `length` bytes, or a range of it.
pub(crate) fn part(
    media_type: &'static str,
    body: Bytes,
    range: Option<Range<u64>>,
    length: u64,
    caching: &Caching,
) -> Response {
    let mut response = ok(media_type, body);
    let headers = response.headers_mut();
    caching.apply(headers);
    set(headers, header::ACCEPT_RANGES, "bytes");
    if let Some(range) = range {
        let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        set(headers, header::CONTENT_RANGE, &text);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// The range of a `Range` header; `None` if the whole object is to be sent: no header, one that is
/// not understood, or several ranges, which RFC 9110 lets a server ignore.
///
/// # Errors
/// 416 for a range outside of the object.
pub(crate) fn requested_range(
    headers: &HeaderMap,
    caching: &Caching,
    length: u64,
) -> Result<Option<Range<u64>>, Failure> {
    let Some(text) = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(None);
    };
    if !caching.range_applies(headers) {
        return Ok(None);
    }
    parse_range(text, length)
}

/// The range that `text`, a `Range` header, asks for; as [`requested_range`].
pub(crate) fn parse_range(text: &str, length: u64) -> Result<Option<Range<u64>>, Failure> {
    let Some((first, last)) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let outside = || {
        let detail = format!("{text:?} of an object of {length} bytes");
        Failure::range(length, detail)
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Ok(None),
        (Ok(first), _)
            if first >= length
                && (last.trim().is_empty() || last.trim().parse::<u64>().is_ok()) =>
        {
            Err(outside())
        }
        (Ok(first), Ok(last)) => Ok(Some(first..last.saturating_add(1).min(length))),
        (Ok(first), Err(_)) if last.trim().is_empty() => Ok(Some(first..length)),
        (Err(_), Ok(count)) if first.trim().is_empty() && count.min(length) == 0 => Err(outside()),
        (Err(_), Ok(count)) if first.trim().is_empty() => {
            Ok(Some(length.saturating_sub(count)..length))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        for (text, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=2-", Some(2..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=5-100", Some(5..10)),
            ("bytes=5-18446744073709551615", Some(5..10)),
            ("bytes=3-2", None),
            ("bytes=0-1,3-4", None),
            ("items=0-1", None),
            ("bytes=a-b", None),
        ] {
            assert_eq!(parse_range(text, 10).ok(), Some(expected), "{text}");
        }
        for text in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert!(parse_range(text, 10).is_err(), "{text}");
        }
    }

    #[test]
    fn small_answers_and_noise_are_not_coded() {
        let noise = |count: u64| -> Bytes {
            let byte = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
            (0..count).map(byte).collect::<Vec<u8>>().into()
        };
        for coding in [Coding::Zstd, Coding::Gzip] {
            for (bytes, expected) in [
                (Bytes::from(vec![0; 4096]), coding),
                (Bytes::from(vec![0; 1000]), Coding::Identity),
                (Bytes::from(mixed(&noise(4096))), Coding::Identity),
            ] {
                let sent = Representation::coded("x/y", bytes.clone(), coding);
                assert_eq!(sent.coding, expected);
                assert_eq!(sent.bytes == bytes, expected == Coding::Identity);
                assert_eq!(sent.digest, digest(&Sha256::digest(&sent.bytes)));
            }
        }
    }

    /// Bytes without any pattern.
    fn mixed(bytes: &[u8]) -> Vec<u8> {
        bytes
            .chunks(32)
            .flat_map(|chunk| Sha256::digest(chunk).to_vec())
            .collect()
    }

    #[test]
    fn tags_differ_by_coding() {
        let caching = || Caching {
            etag: "\"0f\"".into(),
            ..Caching::none()
        };
        assert_eq!(caching().coded(Coding::Identity).etag, "\"0f\"");
        assert_eq!(caching().coded(Coding::Zstd).etag, "\"0f-zstd\"");
        assert_eq!(Caching::none().coded(Coding::Gzip).etag, "");
    }
}
