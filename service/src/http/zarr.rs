//! A commit as a plain Zarr v3 store: exactly the stored bytes, verified.
//!
//! A key that does not exist is 404, one that cannot be read 5xx, never the other way round: Zarr
//! clients take 404 for fill value.

mod chunk_keys;
pub(crate) mod dav;
mod directory;
mod listing;
mod object;
mod place;

use array::{ChunkIndex, NodePath, Region};
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use importers::{document_with_members, shown_document};
use serde_json::{Value, json};
use storage::{ArrayNode, GroupNode, Node, Transaction};

use super::answer::{Caching, Representation, part, requested_range};
use super::extract::{Path, Query, Shared};
use crate::auth::Scope;
use crate::error::{Failure, Problem};
use crate::state::{Pinned, State};

pub(crate) use listing::{Depth, ListQuery, Listed, names_below};
pub(crate) use object::{Content, Object};
pub(crate) use place::{Place, names};

/// Names only Zarr v2 has; clients probe for them.
const V2_NAMES: [&str; 4] = [".zgroup", ".zarray", ".zattrs", ".zmetadata"];

/// What a Zarr view shows.
pub(crate) enum Target<'a> {
    /// A commit.
    Pinned(&'a Pinned),
    /// A transaction: its changes over its base, and the part of that which may be seen.
    Transaction(&'a Transaction, Scope),
}

impl Target<'_> {
    /// The part of it that may be seen.
    pub(crate) fn scope(&self) -> &Scope {
        match self {
            Self::Pinned(pinned) => &pinned.scope,
            Self::Transaction(_, scope) => scope,
        }
    }

    /// Whether a node is shown: what may be seen, and groups on the way there.
    fn shows(&self, node: &Node) -> bool {
        let (scope, path) = (self.scope(), node.path());
        scope.contains(path) || matches!(node, Node::Group(_)) && scope.leads_through(path)
    }

    /// Whether a node may be seen itself, not only as a group on the way.
    pub(crate) fn shows_all_of(&self, path: &NodePath) -> bool {
        self.scope().contains(path)
    }

    pub(crate) async fn find(&self, path: &NodePath) -> Result<Option<Node>, Failure> {
        let found = match self {
            Self::Pinned(pinned) => pinned.snapshot.find(path).await?,
            Self::Transaction(transaction, _) => transaction.find(path).await?,
        };
        Ok(found.filter(|node| self.shows(node)))
    }

    /// The members of a group, sorted by name.
    pub(crate) async fn members(&self, group: &GroupNode) -> Result<Vec<Node>, Failure> {
        match self {
            Self::Pinned(pinned) => {
                let mut members = pinned.snapshot.members(group).await?;
                members.retain(|node| self.shows(node));
                Ok(members)
            }
            Self::Transaction(..) => {
                let mut members = Vec::new();
                for path in self.member_paths(group).await? {
                    members.extend(self.find(&path).await?);
                }
                Ok(members)
            }
        }
    }

    /// A node and everything below it, parents first.
    async fn walk(&self, node: Node) -> Result<Vec<Node>, Failure> {
        if let Self::Pinned(pinned) = self {
            let mut found = pinned.snapshot.walk(node).await?;
            found.retain(|node| self.shows(node));
            return Ok(found);
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

    /// Paths of the members of a group.
    async fn member_paths(&self, group: &GroupNode) -> Result<Vec<NodePath>, Failure> {
        let mut paths = match self {
            Self::Pinned(pinned) => pinned.snapshot.member_paths(group).await?,
            Self::Transaction(transaction, _) => transaction.members(group.path()).await?,
        };
        let scope = self.scope();
        paths.retain(|path| scope.contains(path) || scope.leads_through(path));
        Ok(paths)
    }

    /// Notes that values of an array are read.
    fn note_region(&self, array: &ArrayNode, region: Region) {
        if let Self::Transaction(transaction, _) = self {
            transaction.note_region(array.path(), region);
        }
    }
}

/// The index of the root, or a list of the keys below it.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/zarr",
    params(("repository" = String, Path), ("reference" = String, Path), ListQuery),
    responses((status = 200, content((String = "text/html"), (Listed = "application/json"))),
        (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn root(
    state: Shared<State>,
    Path((name, reference)): Path<(String, String)>,
    query: Query<ListQuery>,
    uri: OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let path = Path((name, reference, String::new()));
    key(state, path, query, uri, method, headers).await
}

/// An object of the store: `zarr.json` of a node, or a chunk. With `list`, the keys below.
#[utoipa::path(method(get, head), path = "/v1/repos/{repository}/refs/{reference}/zarr/{key}",
    params(("repository" = String, Path), ("reference" = String, Path), ("key" = String, Path), ListQuery),
    responses((status = 200, content((Vec<u8> = "application/octet-stream"), (Object = "application/json"))),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304), (status = 400, body = Problem), (status = 404, body = Problem), (status = 410, body = Problem), (status = 416, body = Problem), (status = 500, body = Problem)))]
pub(crate) async fn key(
    Shared(state): Shared<State>,
    Path((name, reference, key)): Path<(String, String, String)>,
    Query(query): Query<ListQuery>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if is_of_version_2(&key) {
        return Err(missing(&key));
    }
    let asked = Asked {
        key: &key,
        query: &query,
        uri: &uri,
        method: &method,
        headers: &headers,
    };
    let pinned = state.snapshot(&name, &reference).await;
    let pinned = pinned.map_err(|failure| of_nothing(&key, failure))?;
    let target = Target::Pinned(&pinned);
    let answer = answer(&state, &target, &asked).await;
    pinned.settle(answer).await
}

/// Clients probe for names only Zarr v2 has: answered without a look.
pub(crate) fn is_of_version_2(key: &str) -> bool {
    let last = key.rsplit('/').next().unwrap_or_default();
    V2_NAMES.contains(&last)
}

/// Why there is no object under `key`, as there is no store: to Zarr clients, a chunk that is not there
/// is all fill value, so that of a chunk is no 404.
pub(crate) fn of_nothing(key: &str, failure: Failure) -> Failure {
    let may_be_chunk = names(key).last().is_some_and(|name| *name != "zarr.json");
    match failure.problem().status {
        404 if may_be_chunk => Failure::gone(failure.problem().detail.clone()),
        _ => failure,
    }
}

fn missing(key: &str) -> Failure {
    Failure::not_found(format!("no object has the key {key:?}"))
}

/// How the answer to a request may be cached; `parts` tell apart what the path does not.
fn caching(target: &Target<'_>, uri: &Uri, parts: &[&str]) -> Caching {
    match target {
        Target::Pinned(pinned) => Caching::new(pinned, uri, parts),
        Target::Transaction(..) => Caching::none(),
    }
}

/// In a transaction, the caching of an object with this content.
fn of_staged(target: &Target<'_>, caching: Caching, content: &[u8]) -> Caching {
    match target {
        Target::Pinned(_) => caching,
        Target::Transaction(..) => Caching::of_content(content),
    }
}

/// A request for an object or a list.
pub(crate) struct Asked<'a> {
    pub(crate) key: &'a str,
    pub(crate) query: &'a ListQuery,
    pub(crate) uri: &'a Uri,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
}

/// The object under a key, as the headers ask for it, or the list.
pub(crate) async fn answer(
    state: &State,
    target: &Target<'_>,
    asked: &Asked<'_>,
) -> Result<Response, Failure> {
    let (key, headers) = (asked.key, asked.headers);
    if let Some(page) = asked.query.page()? {
        return listing::answer(target, key, &page, asked.uri, headers).await;
    }
    if is_of_version_2(key) {
        return Err(missing(key));
    }
    let caching = caching(target, asked.uri, &[]);
    match Place::of(target, key).await? {
        Place::Document(path) => {
            let path = path.ok_or_else(|| missing(key))?;
            let node = target.find(&path).await?.ok_or_else(|| missing(key))?;
            if let Some(response) = caching.not_modified(headers) {
                return Ok(response);
            }
            let bytes = document(state, target, &node).await?;
            let caching = of_staged(target, caching, &bytes);
            if let Some(response) = caching.not_modified(headers) {
                return Ok(response);
            }
            Representation::new("application/json", bytes).response(&caching, headers)
        }
        Place::Directory(_) => directory::index(target, key, asked.uri.path(), &caching).await,
        Place::ChunkDirectory(array, at) => {
            let region = chunk_keys::box_at(array.metadata(), &at)?;
            let stored = array.some_chunks(&region, 1).await?;
            listing::note_chunks(target, &array, &at)?;
            if stored.is_empty() {
                return Err(missing(key));
            }
            directory::index(target, key, asked.uri.path(), &caching).await
        }
        Place::Chunk(array, index) => chunk(state, target, asked, *array, &index, caching).await,
        Place::OutsideGrid(_) | Place::NotOfArray(_) | Place::Nothing => Err(missing(key)),
    }
}

/// The stored bytes of a chunk, as the headers ask for them.
async fn chunk(
    state: &State,
    target: &Target<'_>,
    asked: &Asked<'_>,
    array: ArrayNode,
    index: &ChunkIndex,
    caching: Caching,
) -> Result<Response, Failure> {
    let headers = asked.headers;
    let found = Object::chunk(state, target, array, index).await?;
    let Some(Object::Chunk(chunk)) = found else {
        return Err(missing(asked.key));
    };
    let caching = &of_staged(target, caching, chunk.1.id.as_bytes());
    if let Some(response) = caching.not_modified(headers) {
        return Ok(response);
    }
    let content = Object::Chunk(chunk).content(state, target).await?;
    let whole_length = content.length();
    let range = requested_range(headers, caching, whole_length)?;
    let wanted = range.clone().unwrap_or(0..whole_length);
    let body = match *asked.method == Method::HEAD {
        // The length is known without reading: a HEAD costs no request to the store.
        true => Bytes::new(),
        false => content.part(state, wanted.clone()).await?,
    };
    let media_type = "application/octet-stream";
    let mut response = part(media_type, body, range, whole_length, caching);
    let length = HeaderValue::from(wanted.end - wanted.start);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

/// A node's `zarr.json`; a group's with the metadata of what is below it.
pub(crate) async fn document(
    state: &State,
    target: &Target<'_>,
    node: &Node,
) -> Result<Bytes, Failure> {
    if let Node::Array(_) = node {
        return Ok(shown_document(node).into());
    }
    if !target.shows_all_of(node.path()) {
        let nodes = target.walk(node.clone()).await?;
        return document_of_way(target, node, &document_with_members(node, &nodes));
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

/// What is shown of a group that is only on the way to what may be seen.
pub(crate) fn bare_group() -> Value {
    json!({ "zarr_format": 3, "node_type": "group", "attributes": {} })
}

/// The document of such a group, of whose members `document` has all that are shown.
fn document_of_way(target: &Target<'_>, node: &Node, document: &[u8]) -> Result<Bytes, Failure> {
    let broken = |error: serde_json::Error| Failure::broken(error.to_string());
    let document: Value = serde_json::from_slice(document).map_err(broken)?;
    let mut shown = bare_group();
    if let Some(consolidated) = document.get("consolidated_metadata") {
        shown["consolidated_metadata"] = consolidated.clone();
        let members = shown["consolidated_metadata"]["metadata"].as_object_mut();
        for (name, member) in members.into_iter().flatten() {
            let path = name
                .split('/')
                .try_fold(node.path().clone(), |path, name| path.join(name));
            if !path.is_ok_and(|path| target.shows_all_of(&path)) {
                *member = bare_group();
            }
        }
    }
    Ok(serde_json::to_vec(&shown).map_err(broken)?.into())
}
