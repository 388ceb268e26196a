//! A commit as a plain Zarr v3 store: exactly the stored bytes, verified.
//!
//! A key that does not exist is 404, one that cannot be read 5xx, never the other way round: Zarr
//! clients take 404 for fill value.

use std::ops::Range;

use array::{ChunkIndex, NodePath};
use axum::extract::{OriginalUri, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use bytes::Bytes;
use importers::document_with_members;
use storage::{ArrayNode, GroupNode, Node, Transaction};

use super::answer::{Caching, ok};
use super::extract::Path;
use crate::error::{Failure, Problem};
use crate::state::{Pinned, State};

/// Names only Zarr v2 has; clients probe for them.
const V2_NAMES: [&str; 4] = [".zgroup", ".zarray", ".zattrs", ".zmetadata"];

/// Characters of a link that need no escape.
const LINK: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// What a Zarr view shows.
pub(crate) enum Target<'a> {
    /// A commit.
    Pinned(&'a Pinned),
    /// A transaction: its changes over its base.
    Transaction(&'a Transaction),
}

impl Target<'_> {
    async fn find(&self, path: &NodePath) -> Result<Option<Node>, Failure> {
        Ok(match self {
            Self::Pinned(pinned) => pinned.snapshot.find(path).await?,
            Self::Transaction(transaction) => transaction.find(path).await?,
        })
    }

    /// The members of a group, sorted by name.
    pub(crate) async fn members(&self, group: &GroupNode) -> Result<Vec<Node>, Failure> {
        match self {
            Self::Pinned(pinned) => Ok(pinned.snapshot.members(group).await?),
            Self::Transaction(transaction) => {
                let mut members = Vec::new();
                for path in transaction.members(group.path()).await? {
                    members.extend(transaction.find(&path).await?);
                }
                Ok(members)
            }
        }
    }

    /// A node and everything below it, parents first.
    async fn walk(&self, node: Node) -> Result<Vec<Node>, Failure> {
        if let Self::Pinned(pinned) = self {
            return Ok(pinned.snapshot.walk(node).await?);
        }
        let mut found = Vec::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if let Node::Group(group) = &node {
                let mut members = self.members(group).await?;
                members.reverse();
                open.extend(members);
            }
            found.push(node);
        }
        Ok(found)
    }

    /// Notes that a chunk is read.
    fn note_chunk(&self, array: &ArrayNode, index: &ChunkIndex) {
        if let Self::Transaction(transaction) = self {
            let region = array.metadata().grid().chunk_region_in_array(index);
            transaction.note_region(array.path(), region);
        }
    }
}

/// What a key is about, whether or not there is such an object.
pub(crate) enum Key {
    /// `zarr.json` of the node at this path.
    Document(NodePath),
    /// A chunk of an array.
    Chunk(NodePath, ChunkIndex),
    /// Nothing in a Zarr store.
    Other,
}

/// What `key` is about.
pub(crate) async fn parse_key(target: &Target<'_>, key: &str) -> Result<Key, Failure> {
    let names: Vec<&str> = key.split('/').filter(|name| !name.is_empty()).collect();
    if let Some((&"zarr.json", parents)) = names.split_last() {
        let path = parents.join("/").parse::<NodePath>();
        return Ok(path.map_or(Key::Other, Key::Document));
    }
    Ok(match find(target, &names).await? {
        Some(Found::Chunk(array, index)) => Key::Chunk(array.path().clone(), index),
        _ => Key::Other,
    })
}

/// What a key names.
enum Found {
    Document(Node),
    Chunk(Box<ArrayNode>, ChunkIndex),
    Directory(Node),
}

/// The index of the root.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/zarr",
    params(("repository" = String, Path), ("reference" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String), (status = 404, body = Problem)))]
pub(crate) async fn root(
    state: Shared<State>,
    Path((name, reference)): Path<(String, String)>,
    uri: OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let path = Path((name, reference, String::new()));
    key(state, path, uri, method, headers).await
}

/// An object of the store: `zarr.json` of a node, or a chunk.
#[utoipa::path(method(get, head), path = "/v1/repos/{repository}/refs/{reference}/zarr/{key}",
    params(("repository" = String, Path), ("reference" = String, Path), ("key" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 206, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304), (status = 404, body = Problem), (status = 416, body = Problem), (status = 500, body = Problem)))]
pub(crate) async fn key(
    Shared(state): Shared<State>,
    Path((name, reference, key)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if is_of_version_2(&key) {
        return Err(missing(&key));
    }
    let pinned = state.snapshot(&name, &reference).await?;
    let target = Target::Pinned(&pinned);
    let answer = answer(&state, &target, &key, &uri, &method, &headers).await;
    pinned.settle(answer).await
}

/// Clients probe for names only Zarr v2 has: answered without a look.
fn is_of_version_2(key: &str) -> bool {
    let last = key.rsplit('/').next().unwrap_or_default();
    V2_NAMES.contains(&last)
}

fn missing(key: &str) -> Failure {
    Failure::not_found(format!("no object has the key {key:?}"))
}

/// The object under `key`, as the headers ask for it.
pub(crate) async fn answer(
    state: &State,
    target: &Target<'_>,
    key: &str,
    uri: &Uri,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let names: Vec<&str> = key.split('/').filter(|name| !name.is_empty()).collect();
    let missing = || missing(key);
    if is_of_version_2(key) {
        return Err(missing());
    }
    let found = find(target, &names).await?.ok_or_else(missing)?;
    let caching = match target {
        Target::Pinned(pinned) => Caching::new(pinned, uri, &[]),
        Target::Transaction(_) => Caching::none(),
    };
    match found {
        Found::Directory(node) => directory(target, &node, uri.path(), &caching).await,
        Found::Document(node) => {
            if let Some(response) = caching.not_modified(headers) {
                return Ok(response);
            }
            let bytes = document(state, target, &node).await?;
            let length = bytes.len() as u64;
            let range = requested_range(headers, &caching, length)?;
            let body = match &range {
                Some(range) => bytes.slice(range.start as usize..range.end as usize),
                None => bytes,
            };
            Ok(object(body, "application/json", range, length, &caching))
        }
        Found::Chunk(array, index) => {
            target.note_chunk(&array, &index);
            let reader = state.engine().open(*array)?;
            let row = state
                .engine()
                .chunk(&reader, &index)
                .await?
                .ok_or_else(missing)?;
            if let Some(response) = caching.not_modified(headers) {
                return Ok(response);
            }
            let range = requested_range(headers, &caching, row.length)?;
            let wanted = range.clone().unwrap_or(0..row.length);
            // The length is known without reading: a HEAD costs no request to the store.
            let body = if *method == Method::HEAD {
                None
            } else {
                Some(
                    state
                        .engine()
                        .stored_bytes(&reader, &row, wanted.clone())
                        .await?,
                )
            };
            let mut response = object(
                body.unwrap_or_default(),
                "application/octet-stream",
                range,
                row.length,
                &caching,
            );
            let length = HeaderValue::from(wanted.end - wanted.start);
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
            Ok(response)
        }
    }
}

async fn find(target: &Target<'_>, names: &[&str]) -> Result<Option<Found>, Failure> {
    let parse = |names: &[&str]| names.join("/").parse::<NodePath>().ok();
    if let Some(("zarr.json", parents)) = names.split_last().map(|(last, parents)| (*last, parents))
    {
        let Some(path) = parse(parents) else {
            return Ok(None);
        };
        return Ok(target.find(&path).await?.map(Found::Document));
    }
    // The deepest node on the way; what follows an array names a chunk.
    let mut path = NodePath::root();
    let mut node = target.find(&path).await?;
    for (depth, name) in names.iter().enumerate() {
        if let Some(Node::Array(array)) = node {
            let metadata = array.metadata();
            let chunk = names[depth..].join("/");
            let index = metadata
                .chunk_key_encoding
                .parse_key(&chunk, metadata.dimensions());
            let index = index.filter(|index| metadata.grid().contains(index));
            return Ok(index.map(|index| Found::Chunk(Box::new(array), index)));
        }
        let Ok(next) = path.join(name) else {
            return Ok(None);
        };
        path = next;
        node = target.find(&path).await?;
        if node.is_none() {
            return Ok(None);
        }
    }
    Ok(node.map(Found::Directory))
}

async fn document(state: &State, target: &Target<'_>, node: &Node) -> Result<Bytes, Failure> {
    if let Node::Array(_) = node {
        return Ok(node.document().clone());
    }
    let Target::Pinned(pinned) = target else {
        let nodes = target.walk(node.clone()).await?;
        return Ok(Bytes::from(document_with_members(node, &nodes)));
    };
    let key = (pinned.snapshot.id(), node.path().as_str().to_owned());
    if let Some(bytes) = state.documents().get(&key) {
        return Ok(bytes);
    }
    let nodes = pinned.snapshot.walk(node.clone()).await?;
    let bytes = Bytes::from(document_with_members(node, &nodes));
    state.documents().insert(key, bytes.clone());
    Ok(bytes)
}

/// An HTML index, as file servers give: clients list directories by its links.
async fn directory(
    target: &Target<'_>,
    node: &Node,
    url_path: &str,
    caching: &Caching,
) -> Result<Response, Failure> {
    let mut links = vec!["zarr.json".to_owned()];
    match node {
        Node::Group(group) => {
            links.extend(
                target
                    .members(group)
                    .await?
                    .iter()
                    .map(|m| format!("{}/", m.path().name())),
            );
        }
        Node::Array(array) => {
            let grid = array::Region::whole(&array.metadata().grid().grid_shape());
            let encoding = array.metadata().chunk_key_encoding;
            links.extend(
                array
                    .chunks(&grid)
                    .await?
                    .iter()
                    .map(|row| encoding.key(&row.index)),
            );
        }
    }
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('"', "&quot;")
    };
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, LINK).to_string();
    let items: String = links
        .iter()
        .map(|link| {
            format!(
                "<li><a href=\"{}\">{}</a></li>\n",
                encode(link),
                escape(link)
            )
        })
        .collect();
    let title = escape(&node.path().to_string());
    // With and without a slash at its end, the URL is the directory that links start from.
    let base = escape(url_path.trim_end_matches('/'));
    let page = format!(
        "<!doctype html>\n<base href=\"{base}/\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{items}</ul>\n"
    );
    let mut response = Html(page).into_response();
    caching.apply(response.headers_mut());
    Ok(response)
}

fn object(
    body: Bytes,
    media_type: &'static str,
    range: Option<Range<u64>>,
    length: u64,
    caching: &Caching,
) -> Response {
    let mut response = ok(media_type, body);
    caching.apply(response.headers_mut());
    response
        .headers_mut()
        .insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(range) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    response
}

/// The range of a `Range` header; `None` if the whole object is to be sent: no header, one that is
/// not understood, or several ranges, which RFC 9110 lets a server ignore.
fn requested_range(
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

fn parse_range(text: &str, length: u64) -> Result<Option<Range<u64>>, Failure> {
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
}
