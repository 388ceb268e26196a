//! As much of WebDAV as clients of file servers need: PROPFIND lists, MKCOL makes nothing.
//!
//! Directories of a Zarr store are there as soon as something is in them, so MKCOL has nothing to
//! make: it tells clients that they may go on. Locks, properties and COPY are left out.
//!
//! Source: RFC 4918.

use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};

use super::directory::{all_names, escape, link};
use super::place::Place;
use super::{Depth, Object, Target, chunk_keys, missing};
use crate::auth::Action;
use crate::error::Failure;
use crate::http::extract::{Path, Shared};
use crate::http::{transactions, writes};
use crate::state::State;

/// Methods of the Zarr view of a commit or a transaction.
const METHODS: &str = "GET,HEAD,PUT,DELETE,PROPFIND,MKCOL";

/// What a method beside those of HTTP itself asks for.
enum Asked {
    Propfind(Reach),
    Mkcol,
}

/// How far below a resource PROPFIND looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Itself,
    Children,
    All,
}

impl Asked {
    fn parse(method: &Method, headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        let depth = headers.get("depth").map(HeaderValue::as_bytes);
        match (method.as_str(), depth) {
            ("MKCOL", _) => Ok(Some(Self::Mkcol)),
            ("PROPFIND", Some(b"0")) => Ok(Some(Self::Propfind(Reach::Itself))),
            ("PROPFIND", Some(b"1")) => Ok(Some(Self::Propfind(Reach::Children))),
            ("PROPFIND", None | Some(b"infinity")) => Ok(Some(Self::Propfind(Reach::All))),
            ("PROPFIND", Some(_)) => Err(Failure::bad_request(
                "Depth",
                "it is none of 0, 1, infinity",
            )),
            _ => Ok(None),
        }
    }
}

/// PROPFIND and MKCOL on a key of a commit.
pub(crate) async fn of_commit(
    Shared(state): Shared<State>,
    Path((name, reference, key)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    match Asked::parse(&method, &headers)? {
        None => Ok(not_allowed()),
        Some(Asked::Mkcol) => {
            writes::branch(&reference)?;
            let pinned = state.snapshot(&name, &reference).await?;
            make(&Target::Pinned(&pinned), &key).await
        }
        Some(Asked::Propfind(reach)) => {
            let pinned = state.snapshot(&name, &reference).await?;
            let time = pinned.snapshot.commit().time;
            let target = Target::Pinned(&pinned);
            let found = find(&state, &target, &key, reach, &uri, time).await;
            pinned.settle(found).await
        }
    }
}

/// The same on the root.
pub(crate) async fn of_commit_root(
    state: Shared<State>,
    Path((name, reference)): Path<(String, String)>,
    uri: OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let path = Path((name, reference, String::new()));
    of_commit(state, path, uri, method, headers).await
}

/// PROPFIND and MKCOL on a key of a transaction.
pub(crate) async fn of_transaction(
    Shared(state): Shared<State>,
    Path((id, key)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(asked) = Asked::parse(&method, &headers)? else {
        return Ok(not_allowed());
    };
    let opened = state.transaction(&id).await?;
    let scope = state.access().scope(Action::Read, &opened.repository);
    let target = Target::Transaction(opened.shared.transaction(), scope);
    let response = match asked {
        Asked::Mkcol => make(&target, &key).await?,
        Asked::Propfind(reach) => {
            let time = opened.shared.started();
            find(&state, &target, &key, reach, &uri, time).await?
        }
    };
    // What was read counts for a serializable transaction.
    transactions::staged(opened).await?;
    Ok(response)
}

/// The same on the root.
pub(crate) async fn of_transaction_root(
    state: Shared<State>,
    Path(id): Path<String>,
    uri: OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    of_transaction(state, Path((id, String::new())), uri, method, headers).await
}

fn not_allowed() -> Response {
    let mut response = Failure::method_not_allowed().into_response();
    let methods = HeaderValue::from_static(METHODS);
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

/// Makes nothing: what is written below the directory makes it.
async fn make(target: &Target<'_>, key: &str) -> Result<Response, Failure> {
    match Place::of(target, key).await? {
        Place::Document(_) | Place::NotOfArray(_) | Place::OutsideGrid(_) => {
            let detail = format!("{key:?} can be no directory");
            Err(Failure::meaningless(detail))
        }
        _ => Ok(StatusCode::CREATED.into_response()),
    }
}

/// The properties of what is at `key` and, as far as `reach`, below it.
async fn find(
    state: &State,
    target: &Target<'_>,
    key: &str,
    reach: Reach,
    uri: &Uri,
    modified: DateTime<Utc>,
) -> Result<Response, Failure> {
    let base = uri.path().trim_end_matches('/');
    let modified = modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut answer = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n",
    );
    let itself = size_of(state, target, key)
        .await?
        .ok_or_else(|| missing(key))?;
    let slash = if itself == Size::Directory { "/" } else { "" };
    describe(&mut answer, &format!("{base}{slash}"), itself, &modified);
    if itself == Size::Directory && reach != Reach::Itself {
        let depth = match reach {
            Reach::All => Depth::All,
            _ => Depth::Children,
        };
        let mut known: Vec<String> = Vec::new();
        for name in all_names(target, key, depth).await? {
            for directory in new_directories(&mut known, &name) {
                let href = format!("{base}/{}/", link(&directory));
                describe(&mut answer, &href, Size::Directory, &modified);
            }
            if name.ends_with('/') {
                continue;
            }
            let size = size_of(state, target, &format!("{key}/{name}")).await?;
            if let Some(size) = size {
                describe(
                    &mut answer,
                    &format!("{base}/{}", link(&name)),
                    size,
                    &modified,
                );
            }
        }
    }
    answer.push_str("</D:multistatus>\n");
    let headers = [
        (header::CONTENT_TYPE, "application/xml; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((StatusCode::MULTI_STATUS, headers, answer).into_response())
}

/// The directories on the way to a name that the name before it was not below. `known` are the names
/// of those on the way to the last one.
fn new_directories(known: &mut Vec<String>, name: &str) -> Vec<String> {
    let mut parts: Vec<String> = name.split('/').map(str::to_owned).collect();
    // What follows the last slash is the object.
    parts.pop();
    let shared = known.iter().zip(&parts).take_while(|(a, b)| a == b).count();
    let found = (shared..parts.len()).map(|depth| parts[..=depth].join("/"));
    let found = found.collect();
    *known = parts;
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Directory,
    Bytes(u64),
}

/// What is under `key`; `None` if nothing is.
async fn size_of(state: &State, target: &Target<'_>, key: &str) -> Result<Option<Size>, Failure> {
    let place = match Place::of(target, key).await? {
        Place::Directory(_) => return Ok(Some(Size::Directory)),
        Place::ChunkDirectory(array, at) => {
            let region = chunk_keys::box_at(array.metadata(), &at)?;
            let stored = array.some_chunks(&region, 1).await?;
            super::listing::note_chunks(target, &array, &at)?;
            return Ok(stored.first().map(|_| Size::Directory));
        }
        place => place,
    };
    let Some(object) = Object::at(state, target, place).await? else {
        return Ok(None);
    };
    let content = object.content(state, target).await?;
    Ok(Some(Size::Bytes(content.length())))
}

fn describe(answer: &mut String, href: &str, size: Size, modified: &str) {
    let (kind, length) = match size {
        Size::Directory => ("<D:collection/>", String::new()),
        Size::Bytes(bytes) => (
            "",
            format!("<D:getcontentlength>{bytes}</D:getcontentlength>"),
        ),
    };
    let href = escape(href);
    answer.push_str(&format!(
        "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype>{kind}</D:resourcetype>\
         <D:getlastmodified>{modified}</D:getlastmodified>{length}</D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    ));
}

#[cfg(test)]
mod tests {
    use super::new_directories;

    #[test]
    fn directories_are_named_once_and_before_what_is_in_them() {
        let mut known = Vec::new();
        let mut found = Vec::new();
        for name in [
            "a.b/",
            "a/c/0/0",
            "a/c/0/1",
            "a/c/1/0",
            "a/zarr.json",
            "zarr.json",
        ] {
            found.extend(new_directories(&mut known, name));
        }
        assert_eq!(found, ["a.b", "a", "a/c", "a/c/0", "a/c/1"]);
    }
}
