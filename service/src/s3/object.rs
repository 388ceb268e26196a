//! GetObject and HeadObject.

use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::conditions::Version;
use super::refusal::Refusal;
use super::{Asked, Gateway};
use crate::auth::Principal;
use crate::error::Failure;
use crate::http::zarr::{Content, Object, Target};
use crate::state::Pinned;

/// The object under a key of a bucket, as the headers ask for it.
pub(super) async fn answer(
    gateway: &Gateway,
    who: Option<&Principal>,
    bucket: &str,
    key: &str,
    asked: &Asked<'_>,
) -> Result<Response, Refusal> {
    let (reference, below) = key.split_once('/').unwrap_or((key, ""));
    gateway.access.check(who, bucket, below)?;
    let repository = gateway.repository(bucket).await;
    repository.map_err(|refusal| of_nothing(below, refusal))?;
    let missing = || Refusal::no_such_key(key);
    if !is_plain(below) {
        return Err(missing());
    }
    let Some(pinned) = snapshot(gateway, bucket, reference).await? else {
        return Err(of_nothing(below, missing()));
    };
    let target = Target::Pinned(&pinned);
    let found = async {
        let Some(object) = Object::find(&gateway.state, &target, below).await? else {
            return Ok(None);
        };
        Ok(Some(object.content(&gateway.state, &target).await?))
    };
    let content = pinned.settle(found.await).await?.ok_or_else(missing)?;
    let version = version(&pinned, &content);
    if version.is_known(asked.headers)? {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(response.headers_mut(), &version);
        return Ok(response);
    }
    let length = content.length();
    let range = version.range(asked.headers, length)?;
    let wanted = range.clone().unwrap_or(0..length);
    let body = match *asked.method == Method::HEAD {
        // The length is known without reading.
        true => Body::empty(),
        false => {
            let part = content.part(&gateway.state, wanted.clone()).await;
            Body::from(pinned.settle(part).await?)
        }
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    describe(headers, &version);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(media_type(below)),
    );
    let count = wanted.end - wanted.start;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if range.is_some() {
        let text = format!("bytes {}-{}/{length}", wanted.start, wanted.end - 1);
        set(headers, header::CONTENT_RANGE, &text);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The commit a ref names; `None` if it names nothing.
pub(super) async fn snapshot(
    gateway: &Gateway,
    bucket: &str,
    reference: &str,
) -> Result<Option<Pinned>, Failure> {
    match gateway.state.snapshot(bucket, reference).await {
        // What can be no ref names nothing.
        Err(failure) if matches!(failure.problem().status, 400 | 404) => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a key below a ref is spelt as listings spell it; the Zarr view is more lenient.
pub(super) fn is_plain(key: &str) -> bool {
    !key.split('/').any(str::is_empty)
}

/// The version of an object: told by its content, so that it stays while branches move.
pub(super) fn version(pinned: &Pinned, content: &Content) -> Version {
    let digits = array::hash::hash(array::hash::Kind::Request, content.identity()).to_string();
    // 32 hex digits alone would be taken for the MD5 of the content.
    let etag = format!("\"{}-1\"", &digits[..32]);
    Version::new(etag, SystemTime::from(pinned.snapshot.commit().time))
}

/// Why there is nothing under a key whose bucket or ref is not there: a chunk that Zarr clients find
/// missing is all fill value to them.
fn of_nothing(key: &str, refusal: Refusal) -> Refusal {
    match may_be_chunk(key) && refusal.is_missing() {
        true => Refusal::gone(refusal.into_message()),
        false => refusal,
    }
}

/// Whether a key may be that of a chunk: it ends with coordinates, or with the `c` of an array
/// without dimensions.
fn may_be_chunk(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    let coordinates = name.strip_prefix("c.").unwrap_or(name);
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    name == "c" || coordinates.split('.').all(is_number)
}

fn media_type(key: &str) -> &'static str {
    match key.rsplit('/').next() {
        Some("zarr.json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn describe(headers: &mut HeaderMap, version: &Version) {
    set(headers, header::ETAG, &version.etag);
    let modified = httpdate::fmt_http_date(version.modified);
    set(headers, header::LAST_MODIFIED, &modified);
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_chunk_is_told_by_its_name() {
        for key in ["a/c/0/0", "a/c.0.1", "a/0.12", "a/0", "c", "a/b/c"] {
            assert!(may_be_chunk(key), "{key}");
        }
        for key in [
            "",
            "a",
            "a/zarr.json",
            "a/.zarray",
            "a/c.",
            "a/c.x",
            "a/0.",
            "a/-1",
        ] {
            assert!(!may_be_chunk(key), "{key}");
        }
    }
}
