//! Branches, tags, the log, commits and nodes.

use std::cmp::Ordering;

use axum::extract::OriginalUri;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::{LogEntry, Node, Operation, Ref, RefKind, RefName};

use super::answer::{Caching, ok};
use super::extract::{Body, Path, Query, Shared, asked};
use super::follow;
use super::page::{self, PageQuery};
use super::zarr::{Target, bare_group};
use crate::auth::MadeCommit;
use crate::error::{Failure, Problem};
use crate::state::{State, node_path};

/// A branch or a tag.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RefInfo {
    /// Its name.
    name: String,
    /// The commit it is at.
    commit: String,
}

/// Branches or tags, sorted by name.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RefList {
    refs: Vec<RefInfo>,
    /// Pass it as `after` for those that follow; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Where a new branch or tag starts.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRef {
    /// A branch, tag, commit id or prefix, `x~n` or `x@time`; `main` if left out.
    #[serde(default)]
    from: Option<String>,
}

/// Part of the log.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct LogPage {
    /// Entries, oldest first.
    #[schema(value_type = Vec<Object>)]
    entries: Vec<Value>,
    /// Pass it as `after` for the entries that follow; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// Number of the entry before the first one wanted.
    #[param(format = "uint64")]
    after: Option<u64>,
    /// Most entries wanted; there are never more than 1000.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

async fn list(
    state: &State,
    name: &str,
    kind: RefKind,
    query: &PageQuery,
    uri: &Uri,
) -> Result<Response, Failure> {
    let head = state.repository(&name.parse()?).await?.head().await?;
    let refs = head.refs.iter().filter(|(name, _)| name.kind == kind);
    let info = |(name, commit): (&Ref, &storage::CommitId)| RefInfo {
        name: name.name.to_string(),
        commit: commit.to_string(),
    };
    let (refs, next) = query.cut(refs.map(info), Ordering::Less, |info| info.name.clone())?;
    let page = RefList { refs, next };
    Ok(page::answer(uri, page.next.as_deref(), &page))
}

async fn create(
    state: &State,
    path: (String, String),
    kind: RefKind,
    headers: &HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let new: NewRef = if body.is_empty() {
        NewRef::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Failure::bad_request("body", error.to_string()))?
    };
    let repository = state.repository(&path.0.parse()?).await?;
    let name: RefName = path.1.parse()?;
    let from = new.from.as_deref().unwrap_or("main");
    let author = state.author(None);
    let asked = asked(&author, headers, &["create", kind.name(), from])?;
    let commit = repository.resolve(&from.parse()?).await?.commit;
    let commit = repository.create_ref(kind, &name, commit, asked).await?;
    let info = RefInfo {
        name: name.to_string(),
        commit: commit.to_string(),
    };
    let made = Extension(MadeCommit(info.commit.clone()));
    Ok((StatusCode::CREATED, made, Json(info)).into_response())
}

async fn delete(
    state: &State,
    path: (String, String),
    kind: RefKind,
    headers: &HeaderMap,
) -> Result<StatusCode, Failure> {
    let repository = state.repository(&path.0.parse()?).await?;
    let author = state.author(None);
    let asked = asked(&author, headers, &["delete", kind.name()])?;
    repository.delete_ref(kind, &path.1.parse()?, asked).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the branches.
#[utoipa::path(get, path = "/v1/repos/{repository}/branches", params(("repository" = String, Path), PageQuery),
    responses((status = 200, body = RefList), (status = 404, body = Problem)))]
pub(crate) async fn list_branches(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Failure> {
    list(&state, &name, RefKind::Branch, &query, &uri).await
}

/// Lists the tags.
#[utoipa::path(get, path = "/v1/repos/{repository}/tags", params(("repository" = String, Path), PageQuery),
    responses((status = 200, body = RefList), (status = 404, body = Problem)))]
pub(crate) async fn list_tags(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Failure> {
    list(&state, &name, RefKind::Tag, &query, &uri).await
}

/// Creates a branch.
#[utoipa::path(put, path = "/v1/repos/{repository}/branches/{name}", request_body = Option<NewRef>,
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 201, body = RefInfo), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn create_branch(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    create(&state, path, RefKind::Branch, &headers, body).await
}

/// Creates a tag, which never moves.
#[utoipa::path(put, path = "/v1/repos/{repository}/tags/{name}", request_body = Option<NewRef>,
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 201, body = RefInfo), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn create_tag(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    create(&state, path, RefKind::Tag, &headers, body).await
}

/// Deletes a branch; its commits stay.
#[utoipa::path(delete, path = "/v1/repos/{repository}/branches/{name}",
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete_branch(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    delete(&state, path, RefKind::Branch, &headers).await
}

/// Deletes a tag; its commit stays.
#[utoipa::path(delete, path = "/v1/repos/{repository}/tags/{name}",
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete_tag(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    delete(&state, path, RefKind::Tag, &headers).await
}

/// The log, oldest first. With `Accept: text/event-stream`, it is followed: an event for each entry,
/// whose id is the entry's number, and for those to come.
#[utoipa::path(get, path = "/v1/repos/{repository}/log",
    params(("repository" = String, Path), LogQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{1,19}$", description = "Of events: the last that was seen, instead of `after`")),
    responses((status = 200, content((LogPage = "application/json"), (String = "text/event-stream"))), (status = 404, body = Problem)))]
pub(crate) async fn log(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let repository = state.repository(&name.parse()?).await?;
    let seen = follow::last_seen(&headers)?;
    if follow::is_wanted(&headers) {
        let after = seen.or(query.after);
        return follow::events(repository, after).await;
    }
    let limit = page::limit(query.limit)?;
    let found = repository.log(query.after, limit).await?;
    let newest = repository.head().await?.sequence;
    let last = found.last().map(|entry| entry.sequence);
    let mut entries = Vec::with_capacity(found.len());
    for entry in &found {
        entries.push(entry_json(&repository, entry).await?);
    }
    let next = last.filter(|last| Some(*last) < newest);
    let page = LogPage { entries, next };
    let next = next.map(|next| next.to_string());
    Ok(page::answer(&uri, next.as_deref(), &page))
}

/// A log entry as it is stored: canonical JSON with its hash in `self`.
#[utoipa::path(get, path = "/v1/repos/{repository}/log/{sequence}",
    params(("repository" = String, Path), ("sequence" = u64, Path)),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn log_entry(
    Shared(state): Shared<State>,
    Path((name, sequence)): Path<(String, u64)>,
) -> Result<Response, Failure> {
    let repository = state.repository(&name.parse()?).await?;
    let bytes = repository.log_entry_bytes(sequence).await?;
    Ok(ok("application/json", bytes))
}

pub(crate) async fn entry_json(
    repository: &storage::Repository,
    entry: &LogEntry,
) -> Result<Value, Failure> {
    let mut operations = Vec::new();
    for operation in &entry.operations {
        operations.push(match operation {
            Operation::UpdateRef { name, from, to, .. } => {
                let kind = if name.kind == RefKind::Branch { "branch" } else { "tag" };
                let message = match to {
                    Some(commit) => match repository.commit(*commit).await {
                        Ok(commit) => Some(commit.message.clone()),
                        Err(storage::Error::Expired { .. }) => None,
                        Err(error) => return Err(error.into()),
                    },
                    None => None,
                };
                json!({ "operation": "update-ref", kind: name.name.as_str(), "from": from, "to": to, "message": message })
            }
            other => other.to_json(),
        });
    }
    Ok(json!({
        "sequence": entry.sequence,
        "time": entry.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        "actor": entry.actor,
        "operations": operations,
    }))
}

/// The commit a ref names, and the URL of its Zarr view. Whoever may read only a part of it is not
/// told what the commit was for.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}",
    params(("repository" = String, Path), ("reference" = String, Path)),
    responses((status = 200, body = Object), (status = 304), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn show(
    Shared(state): Shared<State>,
    Path((name, reference)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let pinned = state.snapshot(&name, &reference).await?;
    // HTTP/2 has the host in the URI.
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    let origin = host
        .map(|host| {
            format!(
                "{}://{host}",
                if state.auth().is_tls() {
                    "https"
                } else {
                    "http"
                }
            )
        })
        .unwrap_or_default();
    let caching = Caching::new(&pinned, &uri, &["ref", host.unwrap_or("")]);
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    let commit = pinned.snapshot.commit();
    let id = pinned.snapshot.id();
    let is_whole = pinned.scope.is_whole();
    let mut body = json!({
        "commit": id,
        "branch": pinned.branch.as_ref().map(RefName::as_str),
        "parents": commit.parents,
        "time": commit.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        "author": commit.author,
        "message": commit.message,
        "properties": commit.properties,
        "tree": commit.tree(),
        "stored_bytes": commit.stored_bytes(),
        "zarr_url": format!("{origin}/v1/repos/{name}/refs/{id}/zarr"),
    });
    if !is_whole {
        // They tell of what was changed elsewhere.
        body["message"] = json!("");
        body["properties"] = json!({});
        body["stored_bytes"] = json!(0);
    }
    let mut response = Json(body).into_response();
    caching.apply(response.headers_mut());
    Ok(response)
}

/// The root group.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/nodes",
    params(("repository" = String, Path), ("reference" = String, Path)),
    responses((status = 200, body = Object), (status = 304), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn root_node(
    state: Shared<State>,
    Path((name, reference)): Path<(String, String)>,
    uri: OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let path = Path((name, reference, String::new()));
    node(state, path, uri, headers).await
}

/// A group or an array: metadata, members, statistics, storage.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/nodes/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Object), (status = 304), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn node(
    Shared(state): Shared<State>,
    Path((name, reference, path)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let pinned = state.snapshot(&name, &reference).await?;
    let path = node_path(&path)?;
    let target = Target::Pinned(&pinned);
    let node = match pinned.scope.contains(&path) {
        true => pinned.snapshot.node(&path).await.map_err(Failure::from),
        false => target.find(&path).await.and_then(|node| {
            let none = || Failure::denied(format!("you may not read {path}"));
            node.ok_or_else(none)
        }),
    };
    let node = pinned.settle(node).await?;
    let caching = Caching::new(&pinned, &uri, &[]);
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    let body = node_json(&target, &node).await;
    let mut response = Json(pinned.settle(body).await?).into_response();
    caching.apply(response.headers_mut());
    Ok(response)
}

pub(crate) async fn node_json(target: &Target<'_>, node: &Node) -> Result<Value, Failure> {
    let mut body = summary(target, node);
    body["zarr_json"] = match target.shows_all_of(node.path()) {
        true => node.metadata().to_json(),
        false => bare_group(),
    };
    match node {
        Node::Group(group) => {
            let members = target.members(group).await?;
            let summaries = members.iter().map(|member| summary(target, member));
            body["members"] = summaries.collect();
        }
        Node::Array(array) => {
            let grid = array::Region::whole(&array.metadata().grid().grid_shape());
            body["stored_chunks"] = json!(array.chunks(&grid).await?.len());
            body["statistics"] = match array.total_statistics().await? {
                Some(statistics) => statistics_json(&statistics),
                None => Value::Null,
            };
        }
    }
    Ok(body)
}

fn summary(target: &Target<'_>, node: &Node) -> Value {
    let name = node.path().name();
    let shown = target.shows_all_of(node.path());
    // Of a group that is only on the way, how much there is beside it is nobody's business.
    let stored_bytes = if shown { node.row().stored_bytes } else { 0 };
    match node {
        Node::Group(_) => {
            json!({ "kind": "group", "name": name, "path": node.path().to_string(), "stored_bytes": stored_bytes })
        }
        Node::Array(array) => {
            let metadata = array.metadata();
            json!({
                "kind": "array",
                "name": name,
                "path": node.path().to_string(),
                "shape": metadata.shape(),
                "dimensions": metadata.dimension_names(),
                "data_type": metadata.data_type.to_string(),
                "stored_bytes": stored_bytes,
            })
        }
    }
}

/// Over the stored chunks' cells, as stored: neither scaled nor offset.
fn statistics_json(statistics: &array::Statistics) -> Value {
    let scalar = |scalar: array::Scalar| match scalar {
        array::Scalar::Int(value) => json!(value),
        array::Scalar::UInt(value) => json!(value),
        array::Scalar::Float(value) => json!(value),
    };
    let mut body = json!({ "valid": statistics.valid, "missing": statistics.missing });
    if let Some(moments) = &statistics.moments {
        let mean = moments.sum.to_f64() / statistics.valid as f64;
        body["min"] = scalar(moments.min);
        body["max"] = scalar(moments.max);
        body["mean"] = json!(mean);
        body["std"] = json!((moments.m2.to_f64() / statistics.valid as f64).sqrt());
    }
    body
}
