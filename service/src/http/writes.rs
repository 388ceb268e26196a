//! Single writes to a branch, each one commit.

use array::NodePath;
use axum::http::{HeaderMap, header};
use query::Reservation;
use storage::{Isolation, RefName, Repository, Transaction};

use super::edits;
use super::extract::{Body, LargeBody, Path, Query, Shared, must_be_new};
use super::gathered::{self, Change};
use super::transactions::{DeleteQuery, WriteQuery};
use super::versions::{Committed, NewCommit};
use crate::auth::Action;
use crate::error::{Failure, Problem};
use crate::state::{State, node_path};

/// A transaction of one request.
struct Write {
    state: State,
    repository: Repository,
    branch: RefName,
    transaction: Transaction,
    path: NodePath,
}

impl Write {
    async fn begin(
        state: &State,
        (name, reference, path): &(String, String, String),
    ) -> Result<Self, Failure> {
        let repository = state.repository(&name.parse()?).await?;
        let branch = branch(reference)?;
        let transaction =
            Transaction::begin_with(&repository, &branch, Isolation::Snapshot).await?;
        Ok(Self {
            state: state.clone(),
            repository,
            branch,
            transaction,
            path: node_path(path)?,
        })
    }

    /// What an earlier request with the same key and content led to.
    async fn repeated(
        &self,
        headers: &HeaderMap,
        request: &[&str],
    ) -> Result<Option<Committed>, Failure> {
        let options = NewCommit::default().options(&self.state, headers, request, "")?;
        let Some(idempotency) = &options.idempotency else {
            return Ok(None);
        };
        let first = self
            .repository
            .first_result(&self.branch, idempotency)
            .await?;
        Ok(first.map(|commit| self.answer(commit)))
    }

    fn answer(&self, commit: storage::CommitId) -> Committed {
        Committed {
            commit: commit.to_string(),
            branch: self.branch.to_string(),
        }
    }

    async fn commit(
        self,
        headers: &HeaderMap,
        request: &[&str],
        message: &str,
    ) -> Result<Committed, Failure> {
        let options = NewCommit::default().options(&self.state, headers, request, message)?;
        let branch = self.branch.to_string();
        let commit = self.transaction.commit(options).await?;
        Ok(Committed {
            commit: commit.to_string(),
            branch,
        })
    }
}

/// The branch that a reference names.
///
/// # Errors
/// 400 for anything that is none.
pub(crate) fn branch(reference: &str) -> Result<RefName, Failure> {
    reference.parse().map_err(|_| {
        let detail = format!("{reference:?} is no branch: only branches can be written to");
        Failure::bad_request("reference", detail)
    })
}

/// What a body is told from others by.
pub(crate) fn digest(body: &[u8]) -> String {
    array::hash::hash(array::hash::Kind::Request, body).to_string()
}

/// Writes values to a region of an array, as one commit.
#[utoipa::path(put, path = "/v1/repos/{repository}/refs/{reference}/data/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), WriteQuery),
    request_body(content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (serde_json::Value = "application/json"))),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn data(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    LargeBody(body, _memory): LargeBody,
) -> Result<Committed, Failure> {
    let write = Write::begin(&state, &path).await?;
    let slice = query.slice.as_deref();
    let content = digest(&body);
    let request = ["data", path.2.as_str(), slice.unwrap_or(""), &content];
    if let Some(first) = write.repeated(&headers, &request).await? {
        return Ok(first);
    }
    let (transaction, node) = (&write.transaction, &write.path);
    edits::put_values(&state, transaction, node, slice, &headers, &body).await?;
    let message = format!("write {}[{}]", write.path, slice.unwrap_or("..."));
    write.commit(&headers, &request, &message).await
}

/// Creates or changes a group or an array, as one commit.
#[utoipa::path(put, path = "/v1/repos/{repository}/refs/{reference}/nodes/{path}", request_body = edits::ShortNode,
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_node(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Committed, Failure> {
    let write = Write::begin(&state, &path).await?;
    let content = digest(&body);
    let request = ["node", path.2.as_str(), &content];
    if let Some(first) = write.repeated(&headers, &request).await? {
        return Ok(first);
    }
    edits::check_new(&write.transaction, &write.path, &headers).await?;
    edits::put_node(&state, &write.transaction, &write.path, &body).await?;
    let message = format!("write metadata of {}", write.path);
    write.commit(&headers, &request, &message).await
}

/// Deletes a node and everything below it, as one commit.
#[utoipa::path(delete, path = "/v1/repos/{repository}/refs/{reference}/nodes/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn delete_node(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Committed, Failure> {
    let write = Write::begin(&state, &path).await?;
    let request = ["delete", path.2.as_str()];
    if let Some(first) = write.repeated(&headers, &request).await? {
        return Ok(first);
    }
    write.transaction.delete(&write.path).await?;
    let message = format!("delete {}", write.path);
    write.commit(&headers, &request, &message).await
}

/// Stores an object of the Zarr view of a branch: metadata, a chunk or a whole shard, rewritten
/// canonically. Writes that come at the same time share a commit, but for those with `If-Match` or
/// `Idempotency-Key`, which are commits of their own.
#[utoipa::path(put, path = "/v1/repos/{repository}/refs/{reference}/zarr/{key}",
    params(("repository" = String, Path), ("reference" = String, Path), ("key" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_key(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    headers: HeaderMap,
    LargeBody(body, memory): LargeBody,
) -> Result<Committed, Failure> {
    let content = digest(&body);
    let change = Change::Put {
        body,
        must_be_new: must_be_new(&headers)?,
    };
    change_key(&state, &path, &headers, change, &content, Some(memory)).await
}

/// Deletes an object of the Zarr view of a branch; `zarr.json` stands for its node and everything
/// below it. What is not there stays so: that is no error. Of the root, an empty group stays.
#[utoipa::path(delete, path = "/v1/repos/{repository}/refs/{reference}/zarr/{key}",
    params(("repository" = String, Path), ("reference" = String, Path), ("key" = String, Path), DeleteQuery),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn delete_key(
    Shared(state): Shared<State>,
    Path(path): Path<(String, String, String)>,
    Query(query): Query<DeleteQuery>,
    headers: HeaderMap,
) -> Result<Committed, Failure> {
    let is_recursive = query.recursive == Some(true);
    let change = Change::Delete { is_recursive };
    let content = format!("recursive={is_recursive}");
    change_key(&state, &path, &headers, change, &content, None).await
}

/// Deletes everything with `recursive=true`: an empty group stays.
#[utoipa::path(delete, path = "/v1/repos/{repository}/refs/{reference}/zarr",
    params(("repository" = String, Path), ("reference" = String, Path), DeleteQuery),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn delete_root(
    state: Shared<State>,
    Path((repository, reference)): Path<(String, String)>,
    query: Query<DeleteQuery>,
    headers: HeaderMap,
) -> Result<Committed, Failure> {
    let path = Path((repository, reference, String::new()));
    delete_key(state, path, query, headers).await
}

/// Makes a change of one object: with others, or as a commit of its own if it has conditions.
async fn change_key(
    state: &State,
    path: &(String, String, String),
    headers: &HeaderMap,
    change: Change,
    content: &str,
    memory: Option<Reservation>,
) -> Result<Committed, Failure> {
    let (name, reference, key) = path;
    let (method, verb) = match change {
        Change::Put { .. } => ("zarr", "write"),
        Change::Delete { .. } => ("zarr-delete", "delete"),
    };
    let write = gathered::Write {
        key: key.clone(),
        change,
        _memory: memory,
    };
    if !headers.contains_key(header::IF_MATCH) && !headers.contains_key("idempotency-key") {
        let (name, branch) = (name.parse()?, branch(reference)?);
        let commit = gathered::commit(state, &name, &branch, write).await?;
        return Ok(Committed {
            commit: commit.to_string(),
            branch: branch.to_string(),
        });
    }
    let root = (name.clone(), reference.clone(), String::new());
    let alone = Write::begin(state, &root).await?;
    let request = [method, key.as_str(), content];
    if let Some(first) = alone.repeated(headers, &request).await? {
        return Ok(first);
    }
    let scope = state.access().scope(Action::Write, &name.parse()?);
    gathered::apply(state, &alone.transaction, &scope, &write).await?;
    alone
        .commit(headers, &request, &format!("{verb} {key}"))
        .await
}
