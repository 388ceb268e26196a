//! Transactions: opened, changed and read by any number of requests, committed once.

use array::NodePath;
use axum::Json;
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use storage::{Idempotency, Isolation, RepoName, SharedTransaction, TransactionState};
use tokio::sync::MutexGuard;

use super::data::{self, DataQuery};
use super::edits;
use super::extract::{Body, Labelled, LargeBody, Path, Query, Shared, idempotency, must_be_new};
use super::refs;
use super::versions::{Committed, NewCommit, parse_body};
use super::writes::digest;
use super::zarr::{self, Asked, ListQuery, Listed, Target};
use crate::auth::Action;
use crate::error::{Failure, Problem};
use crate::open_transactions::OpenTransaction;
use crate::requests;
use crate::state::{State, node_path};

/// A transaction to open.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTransaction {
    /// The branch it starts from and is committed to; `main` if left out.
    #[serde(default)]
    branch: Option<String>,
    /// `snapshot` (the default) or `serializable`.
    #[serde(default)]
    #[schema(pattern = "^(snapshot|serializable)$")]
    isolation: Option<String>,
    /// Who opens it; where the service knows who asks, that is it.
    #[serde(default)]
    author: Option<String>,
}

/// A transaction.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TransactionInfo {
    /// What it is called in URLs.
    id: String,
    /// The repository.
    repository: String,
    /// The branch it is committed to.
    branch: String,
    /// The commit it starts from.
    base: String,
    /// `snapshot` or `serializable`.
    isolation: String,
    /// `open`, `closing`, `committed` or `aborted`.
    state: String,
    /// The commit it became.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// Who opened it.
    author: String,
    /// When it was opened, RFC 3339.
    started: String,
    /// The Zarr view of it, to read and write.
    zarr_url: String,
}

/// A node to move.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    /// The node.
    from: String,
    /// Where it goes; groups above are created.
    to: String,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteQuery {
    /// Where to write, as NumPy indexes: `0:10,:,5`, `...,-1`, `[1,4,9]`. All if left out.
    pub(crate) slice: Option<String>,
}

fn info(
    id: &str,
    shared: &SharedTransaction,
    state: TransactionState,
    repository: &str,
) -> TransactionInfo {
    let (state, commit) = match state {
        TransactionState::Open => ("open", None),
        TransactionState::Closing => ("closing", None),
        TransactionState::Committed(commit) => ("committed", Some(commit.to_string())),
        TransactionState::Aborted => ("aborted", None),
    };
    let transaction = shared.transaction();
    TransactionInfo {
        id: id.to_owned(),
        repository: repository.to_owned(),
        branch: transaction.branch().to_string(),
        base: transaction.base().id().to_string(),
        isolation: match transaction.isolation() {
            Isolation::Snapshot => "snapshot".to_owned(),
            Isolation::Serializable => "serializable".to_owned(),
        },
        state: state.to_owned(),
        commit,
        author: shared.actor().to_owned(),
        started: shared
            .started()
            .to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        zarr_url: format!("/v1/transactions/{id}/zarr"),
    }
}

/// Opens a transaction.
#[utoipa::path(post, path = "/v1/repos/{repository}/transactions", request_body = Option<NewTransaction>,
    params(("repository" = String, Path)),
    responses((status = 201, body = TransactionInfo), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn open(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let new: NewTransaction = parse_body(&body)?;
    let isolation = match new.isolation.as_deref() {
        None | Some("snapshot") => Isolation::Snapshot,
        Some("serializable") => Isolation::Serializable,
        Some(other) => {
            let detail = format!("{other:?} is neither snapshot nor serializable");
            return Err(Failure::bad_request("isolation", detail));
        }
    };
    let branch = new.branch.as_deref().unwrap_or("main");
    let author = state.author(new.author);
    let request = [
        branch,
        new.isolation.as_deref().unwrap_or("snapshot"),
        author.as_str(),
    ];
    let asked = storage::Asked {
        actor: &author,
        idempotency: idempotency(&headers, &request)?,
    };
    let may_be_closed = asked.idempotency.is_some();
    let (branch, repository) = (branch.parse()?, name.parse()?);
    let opened = state
        .open_transaction(&repository, &branch, isolation, asked)
        .await?;
    let stage = match may_be_closed {
        true => opened.shared.state().await?,
        false => TransactionState::Open,
    };
    let body = info(&opened.id, &opened.shared, stage, &name);
    let location = format!("/v1/transactions/{}", opened.id);
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Shows a transaction.
#[utoipa::path(get, path = "/v1/transactions/{id}", params(("id" = String, Path)),
    responses((status = 200, body = TransactionInfo), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn show(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
) -> Result<Json<TransactionInfo>, Failure> {
    let (repository, shared) = state.read_transaction(&id).await?;
    let stage = shared.state().await?;
    Ok(Json(info(&id, &shared, stage, repository.as_str())))
}

/// Gives a transaction up.
#[utoipa::path(delete, path = "/v1/transactions/{id}", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn abort(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let (repository, shared) = state.read_transaction(&id).await?;
    check_own(&state, &repository, &shared)?;
    shared.abort().await?;
    state.forget_closed(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses whoever neither opened a transaction nor may write all of the repository: others may have
/// staged changes in it that he may not make.
fn check_own(
    state: &State,
    repository: &RepoName,
    shared: &SharedTransaction,
) -> Result<(), Failure> {
    let principal = state.access().principal();
    match principal.is_some_and(|principal| principal.name == shared.actor()) {
        true => Ok(()),
        false => state.check(Action::Write, repository, &NodePath::root()),
    }
}

/// Commits a transaction. A second request gets the first one's commit.
#[utoipa::path(post, path = "/v1/transactions/{id}/commit", request_body = Option<NewCommit>, params(("id" = String, Path)),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn commit(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Committed, Failure> {
    let new: NewCommit = parse_body(&body)?;
    let options = new.options(&state, &headers, &["commit", &id], "commit")?;
    let (repository, shared) = state.read_transaction(&id).await?;
    check_own(&state, &repository, &shared)?;
    let branch = shared.transaction().branch().to_string();
    let commit = shared.commit(options).await?;
    state.forget_closed(&id);
    Ok(Committed {
        commit: commit.to_string(),
        branch,
    })
}

/// Moves a node without touching its data.
#[utoipa::path(post, path = "/v1/transactions/{id}/move", request_body = Move, params(("id" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn move_node(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Failure> {
    let wanted: Move = parse_body(&body)?;
    let opened = state.transaction(&id).await?;
    let (from, to) = (node_path(&wanted.from)?, node_path(&wanted.to)?);
    state.check(Action::Write, &opened.repository, &from)?;
    state.check(Action::Write, &opened.repository, &to)?;
    let request = ["move", wanted.from.as_str(), &wanted.to];
    let rename = async { Ok(opened.shared.transaction().rename(&from, &to).await?) };
    once(&state, &opened, idempotency(&headers, &request)?, rename).await
}

/// Makes a change and acknowledges it; or only acknowledges it, if an earlier request of the same key
/// made it.
async fn once(
    state: &State,
    opened: &OpenTransaction,
    idempotency: Option<Idempotency>,
    change: impl Future<Output = Result<(), Failure>>,
) -> Result<StatusCode, Failure> {
    if let Some(idempotency) = &idempotency
        && requests::first(state, &opened.id, idempotency)
            .await?
            .is_some()
    {
        return Ok(StatusCode::NO_CONTENT);
    }
    change.await?;
    let answer = staged(opened.clone()).await?;
    if let Some(idempotency) = &idempotency {
        requests::remember(state, &opened.id, idempotency, "").await?;
    }
    Ok(answer)
}

/// The turn of a request that makes only what is not there: looking and making are one step for such.
async fn creating<'a>(
    opened: &'a OpenTransaction,
    headers: &HeaderMap,
) -> Result<Option<MutexGuard<'a, ()>>, Failure> {
    Ok(match must_be_new(headers)? {
        true => Some(opened.shared.creating().await),
        false => None,
    })
}

/// Acknowledges what was changed, once others can go on with it.
pub(super) async fn staged(opened: OpenTransaction) -> Result<StatusCode, Failure> {
    // To its end even if this client goes away: it stages what others changed as well.
    let staging = tokio::spawn(async move { opened.shared.flush().await });
    staging
        .await
        .map_err(|error| Failure::broken(error.to_string()))??;
    Ok(StatusCode::NO_CONTENT)
}

/// A group or an array as the transaction sees it.
#[utoipa::path(get, path = "/v1/transactions/{id}/nodes/{path}", params(("id" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn node(
    Shared(state): Shared<State>,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let opened = state.transaction(&id).await?;
    let transaction = opened.shared.transaction();
    let scope = state.access().scope(Action::Read, &opened.repository);
    let path = node_path(&path)?;
    let target = Target::Transaction(transaction, scope.clone());
    let node = match scope.contains(&path) {
        true => transaction.node(&path).await?,
        false => {
            let none = || Failure::denied(format!("you may not read {path}"));
            target.find(&path).await?.ok_or_else(none)?
        }
    };
    let mut body = refs::node_json(&target, &node).await?;
    if transaction.isolation() == Isolation::Serializable
        && let Some(members) = body.as_object_mut()
    {
        // They follow from all values, of which none was read.
        for name in ["statistics", "stored_chunks", "stored_bytes"] {
            members.remove(name);
        }
    }
    staged(opened.clone()).await?;
    Ok(no_store(Json(body).into_response()))
}

/// The root group as the transaction sees it.
#[utoipa::path(get, path = "/v1/transactions/{id}/nodes", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)))]
pub(crate) async fn root_node(
    state: Shared<State>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    node(state, Path((id, String::new()))).await
}

/// Creates or changes a group or an array: a `zarr.json`, or the short form. A new shape resizes.
#[utoipa::path(put, path = "/v1/transactions/{id}/nodes/{path}", request_body = edits::ShortNode,
    params(("id" = String, Path), ("path" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn put_node(
    Shared(state): Shared<State>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Failure> {
    let opened = state.transaction(&id).await?;
    let transaction = opened.shared.transaction();
    let request = ["node", path.as_str(), &digest(&body)];
    let path = node_path(&path)?;
    let put = async {
        let _turn = creating(&opened, &headers).await?;
        edits::check_new(transaction, &path, &headers).await?;
        edits::put_node(&state, transaction, &path, &body).await?;
        // Within the turn: others see it is there.
        staged(opened.clone()).await.map(drop)
    };
    once(&state, &opened, idempotency(&headers, &request)?, put).await
}

/// Gives the root group new metadata.
#[utoipa::path(put, path = "/v1/transactions/{id}/nodes", request_body = edits::ShortNode, params(("id" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn put_root_node(
    state: Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    put_node(state, Path((id, String::new())), headers, body).await
}

/// Deletes a node and everything below it.
#[utoipa::path(delete, path = "/v1/transactions/{id}/nodes/{path}", params(("id" = String, Path), ("path" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_node(
    Shared(state): Shared<State>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let opened = state.transaction(&id).await?;
    let node = node_path(&path)?;
    let delete = async { Ok(opened.shared.transaction().delete(&node).await?) };
    let request = ["delete", path.as_str()];
    once(&state, &opened, idempotency(&headers, &request)?, delete).await
}

/// Reads a slice as the transaction sees it.
#[utoipa::path(get, path = "/v1/transactions/{id}/data/{path}",
    params(("id" = String, Path), ("path" = String, Path), DataQuery,
        ("sel.{dimension}" = Option<String>, Query, description = "Labels along a dimension, by its coordinate variable")),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/csv"), (Vec<u8> = "application/x-netcdf"), (Vec<u8> = "image/png"))),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem)))]
pub(crate) async fn read_data(
    Shared(state): Shared<State>,
    Path((id, path)): Path<(String, String)>,
    query: Labelled<DataQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let opened = state.transaction(&id).await?;
    let path = node_path(&path)?;
    let scope = state.access().scope(Action::Read, &opened.repository);
    let source = (opened.shared.transaction(), &scope);
    let response = data::read_staged(&state, source, &path, &query, &headers).await?;
    staged(opened).await?;
    Ok(no_store(response))
}

/// Writes values to a region of an array.
#[utoipa::path(put, path = "/v1/transactions/{id}/data/{path}",
    params(("id" = String, Path), ("path" = String, Path), WriteQuery),
    request_body(content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (serde_json::Value = "application/json"))),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem)))]
pub(crate) async fn write_data(
    Shared(state): Shared<State>,
    Path((id, path)): Path<(String, String)>,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    LargeBody(body, _memory): LargeBody,
) -> Result<StatusCode, Failure> {
    let opened = state.transaction(&id).await?;
    let transaction = opened.shared.transaction();
    let slice = query.slice.as_deref();
    let request = ["data", path.as_str(), slice.unwrap_or(""), &digest(&body)];
    let path = node_path(&path)?;
    let put = edits::put_values(&state, transaction, &path, slice, &headers, &body);
    once(&state, &opened, idempotency(&headers, &request)?, put).await
}

/// An object of the Zarr view of the transaction. With `list`, the keys below.
#[utoipa::path(method(get, head), path = "/v1/transactions/{id}/zarr/{key}", params(("id" = String, Path), ("key" = String, Path), ListQuery),
    responses((status = 200, content((Vec<u8> = "application/octet-stream"), (Object = "application/json"))),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 410, body = Problem), (status = 416, body = Problem), (status = 500, body = Problem)))]
pub(crate) async fn zarr_key(
    Shared(state): Shared<State>,
    Path((id, key)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let opened = state.transaction(&id).await;
    let opened = opened.map_err(|failure| zarr::of_nothing(&key, failure))?;
    let scope = state.access().scope(Action::Read, &opened.repository);
    let target = Target::Transaction(opened.shared.transaction(), scope);
    let asked = Asked {
        key: &key,
        query: &query,
        uri: &uri,
        method: &method,
        headers: &headers,
    };
    let response = zarr::answer(&state, &target, &asked).await?;
    staged(opened.clone()).await?;
    Ok(no_store(response))
}

/// The index of the root of the Zarr view of the transaction, or a list of the keys below it.
#[utoipa::path(get, path = "/v1/transactions/{id}/zarr", params(("id" = String, Path), ListQuery),
    responses((status = 200, content((String = "text/html"), (Listed = "application/json"))),
        (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn zarr_root(
    state: Shared<State>,
    Path(id): Path<String>,
    query: Query<ListQuery>,
    uri: OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    zarr_key(
        state,
        Path((id, String::new())),
        query,
        uri,
        method,
        headers,
    )
    .await
}

/// Stores an object of the Zarr view: metadata, a chunk or a whole shard, rewritten canonically.
#[utoipa::path(put, path = "/v1/transactions/{id}/zarr/{key}", params(("id" = String, Path), ("key" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_zarr_key(
    Shared(state): Shared<State>,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
    LargeBody(body, _memory): LargeBody,
) -> Result<StatusCode, Failure> {
    let opened = state.transaction(&id).await?;
    let transaction = opened.shared.transaction();
    let request = ["zarr", key.as_str(), &digest(&body)];
    let idempotency = idempotency(&headers, &request)?;
    let put = async {
        let turn = creating(&opened, &headers).await?;
        let scope = state.access().scope(Action::Write, &opened.repository);
        if turn.is_some() {
            edits::check_new_key(transaction, &scope, &key).await?;
        }
        edits::put_key(&state, transaction, &scope, &key, body).await?;
        // Within the turn: others see it is there.
        staged(opened.clone()).await.map(drop)
    };
    once(&state, &opened, idempotency, put).await
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteQuery {
    /// `true` deletes everything at and below the key.
    pub(crate) recursive: Option<bool>,
}

/// Deletes an object of the Zarr view; `zarr.json` stands for its node and everything below it. What
/// is not there stays so: that is no error. Of the root, an empty group stays.
#[utoipa::path(delete, path = "/v1/transactions/{id}/zarr/{key}", params(("id" = String, Path), ("key" = String, Path), DeleteQuery),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_zarr_key(
    Shared(state): Shared<State>,
    Path((id, key)): Path<(String, String)>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Failure> {
    let opened = state.transaction(&id).await?;
    let transaction = opened.shared.transaction();
    let scope = state.access().scope(Action::Write, &opened.repository);
    if query.recursive == Some(true) {
        let mut after = String::new();
        while let Some(last) = edits::delete_below(transaction, &scope, &key, &after).await? {
            // What is not staged yet stays bounded.
            staged(opened.clone()).await?;
            after = last;
        }
    } else {
        edits::delete_key(transaction, &scope, &key).await?;
    }
    staged(opened).await
}

/// Deletes everything with `recursive=true`: an empty group stays.
#[utoipa::path(delete, path = "/v1/transactions/{id}/zarr", params(("id" = String, Path), DeleteQuery),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_zarr_root(
    state: Shared<State>,
    Path(id): Path<String>,
    query: Query<DeleteQuery>,
) -> Result<StatusCode, Failure> {
    delete_zarr_key(state, Path((id, String::new())), query).await
}

fn no_store(mut response: Response) -> Response {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}
