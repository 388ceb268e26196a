//! Merge, cherry-pick, revert, reset, and what differs between two commits.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::{
    CommitId, CommitOptions, Difference, DifferenceKind, NodeKind, OnConflict, Policies, Repository,
};

use super::extract::{Body, Path, Shared, asked, idempotency, if_match};
use crate::auth::MadeCommit;
use crate::error::{Failure, Problem};
use crate::state::State;

/// How a commit is to be made.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCommit {
    /// What the commit is for.
    #[serde(default)]
    pub(crate) message: Option<String>,
    /// Who makes it; where the service knows who asks, that is the author.
    #[serde(default)]
    pub(crate) author: Option<String>,
    /// What to do where both sides changed the same thing: `fail` (the default), `ours` or
    /// `theirs`, or one of these for each path.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) on_conflict: Option<Value>,
    /// Kept with the commit.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) properties: Option<Map<String, Value>>,
}

impl NewCommit {
    /// The options of the commit, under the conditions of the request.
    pub(crate) fn options(
        self,
        state: &State,
        headers: &HeaderMap,
        request: &[&str],
        default_message: &str,
    ) -> Result<CommitOptions, Failure> {
        Ok(CommitOptions {
            author: state.author(self.author),
            message: self.message.unwrap_or_else(|| default_message.to_owned()),
            properties: self.properties.unwrap_or_default(),
            on_conflict: policies(self.on_conflict)?,
            expected_head: if_match(headers)?,
            idempotency: idempotency(headers, request)?,
        })
    }
}

fn policy(text: &str) -> Result<OnConflict, Failure> {
    match text {
        "fail" => Ok(OnConflict::Fail),
        "ours" => Ok(OnConflict::Ours),
        "theirs" => Ok(OnConflict::Theirs),
        other => {
            let detail = format!("{other:?} is none of fail, ours, theirs");
            Err(Failure::bad_request("on_conflict", detail))
        }
    }
}

fn policies(given: Option<Value>) -> Result<Policies, Failure> {
    match given {
        None => Ok(Policies::default()),
        Some(Value::String(text)) => Ok(Policies::everywhere(policy(&text)?)),
        Some(value) => {
            let by_path: BTreeMap<String, String> = serde_json::from_value(value)
                .map_err(|error| Failure::bad_request("on_conflict", error.to_string()))?;
            let entry = |(path, text): (String, String)| Ok((path.parse()?, policy(&text)?));
            let entries: Result<Vec<_>, Failure> = by_path.into_iter().map(entry).collect();
            Ok(Policies::new(entries?))
        }
    }
}

/// A commit that was made.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Committed {
    /// The commit.
    pub(crate) commit: String,
    /// The branch that is at it.
    pub(crate) branch: String,
}

impl IntoResponse for Committed {
    fn into_response(self) -> Response {
        let made = Extension(MadeCommit(self.commit.clone()));
        (made, Json(self)).into_response()
    }
}

/// What to merge into what.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct Merge {
    /// A branch, tag, commit id or prefix, `x~n` or `x@time`.
    from: String,
    /// The branch that gets the changes.
    into: String,
    #[serde(flatten)]
    commit: NewCommit,
}

/// A commit to repeat or undo on a branch.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct Pick {
    /// A branch, tag, commit id or prefix, `x~n` or `x@time`.
    commit: String,
    #[serde(flatten)]
    options: NewCommit,
}

/// Where to move a branch.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reset {
    /// A branch, tag, commit id or prefix, `x~n` or `x@time`.
    to: String,
}

/// A branch that was moved.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Moved {
    /// The branch.
    branch: String,
    /// Where it was; absent if an earlier request of the same `Idempotency-Key` moved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where it is.
    to: String,
}

/// The nodes that differ between two commits.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct DiffInfo {
    /// The earlier commit.
    from: String,
    /// The later one.
    to: String,
    nodes: Vec<NodeDifference>,
}

/// One node that differs.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct NodeDifference {
    /// The node; empty for the root.
    path: String,
    /// `group` or `array`.
    kind: String,
    /// `added`, `removed`, `replaced` or `changed`.
    change: String,
    /// Attributes that were added, removed or changed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    attributes: Vec<String>,
    /// Other members of `zarr.json` that were added, removed or changed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    metadata: Vec<String>,
    /// Boxes of chunks whose values may differ, as slices.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    slices: Vec<String>,
    /// Number of chunks that differ.
    chunks: u64,
}

impl From<Difference> for NodeDifference {
    fn from(difference: Difference) -> Self {
        let kind = match difference.node {
            NodeKind::Group => "group",
            NodeKind::Array => "array",
        };
        let change = match difference.kind {
            DifferenceKind::Added => "added",
            DifferenceKind::Removed => "removed",
            DifferenceKind::Replaced => "replaced",
            DifferenceKind::Changed => "changed",
        };
        Self {
            path: difference.path.as_str().to_owned(),
            kind: kind.to_owned(),
            change: change.to_owned(),
            attributes: difference.attributes,
            metadata: difference.metadata,
            slices: difference.regions.iter().map(ToString::to_string).collect(),
            chunks: difference.chunks,
        }
    }
}

pub(crate) fn parse_body<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Failure::bad_request("body", error.to_string()))
}

/// A body with members `own` beside those of a commit: what is flattened together cannot refuse
/// others by itself.
fn parse_with_commit<T: for<'a> Deserialize<'a>>(body: &[u8], own: &[&str]) -> Result<T, Failure> {
    const OF_COMMIT: [&str; 4] = ["message", "author", "on_conflict", "properties"];
    let members: Map<String, Value> = parse_body(body)?;
    let known = |name: &&String| own.contains(&name.as_str()) || OF_COMMIT.contains(&name.as_str());
    if let Some(name) = members.keys().find(|name| !known(name)) {
        let known = [own, &OF_COMMIT].concat().join(", ");
        let detail = format!("{name:?} is no member of the body; there are {known}");
        return Err(Failure::bad_request("body", detail));
    }
    parse_body(body)
}

async fn resolve(repository: &Repository, expression: &str) -> Result<CommitId, Failure> {
    Ok(repository.resolve(&expression.parse()?).await?.commit)
}

fn committed(commit: CommitId, branch: &str) -> Committed {
    Committed {
        commit: commit.to_string(),
        branch: branch.to_owned(),
    }
}

/// Merges a commit into a branch, as a commit with two parents. `ours` keeps what the branch has,
/// `theirs` takes what is merged.
#[utoipa::path(post, path = "/v1/repos/{repository}/merge", request_body = Merge,
    params(("repository" = String, Path)),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn merge(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Committed, Failure> {
    let merge: Merge = parse_with_commit(&body, &["from", "into"])?;
    let repository = state.repository(&name.parse()?).await?;
    let from = resolve(&repository, &merge.from).await?;
    let into = merge.into.parse()?;
    let message = format!("merge {} into {}", merge.from, merge.into);
    let request = ["merge", &merge.from, &merge.into];
    let options = merge.commit.options(&state, &headers, &request, &message)?;
    let commit = repository.merge(from, &into, options).await?;
    Ok(committed(commit, into.as_str()))
}

/// Makes the changes of one commit on a branch.
#[utoipa::path(post, path = "/v1/repos/{repository}/branches/{name}/cherry-pick", request_body = Pick,
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn cherry_pick(
    Shared(state): Shared<State>,
    Path((name, branch)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Committed, Failure> {
    let pick: Pick = parse_with_commit(&body, &["commit"])?;
    let repository = state.repository(&name.parse()?).await?;
    let from = resolve(&repository, &pick.commit).await?;
    let message = repository.commit(from).await?.message.clone();
    let request = ["cherry-pick", &pick.commit, &branch];
    let options = pick.options.options(&state, &headers, &request, &message)?;
    let commit = repository
        .cherry_pick(from, &branch.parse()?, options)
        .await?;
    Ok(committed(commit, &branch))
}

/// Undoes the changes of one commit on a branch.
#[utoipa::path(post, path = "/v1/repos/{repository}/branches/{name}/revert", request_body = Pick,
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Committed), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn revert(
    Shared(state): Shared<State>,
    Path((name, branch)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Committed, Failure> {
    let pick: Pick = parse_with_commit(&body, &["commit"])?;
    let repository = state.repository(&name.parse()?).await?;
    let undone = resolve(&repository, &pick.commit).await?;
    let message = format!(
        "revert {undone}: {}",
        repository.commit(undone).await?.message
    );
    let request = ["revert", &pick.commit, &branch];
    let options = pick.options.options(&state, &headers, &request, &message)?;
    let commit = repository.revert(undone, &branch.parse()?, options).await?;
    Ok(committed(commit, &branch))
}

/// Moves a branch to any commit.
#[utoipa::path(post, path = "/v1/repos/{repository}/branches/{name}/reset", request_body = Reset,
    params(("repository" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Moved), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem)))]
pub(crate) async fn reset(
    Shared(state): Shared<State>,
    Path((name, branch)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(Extension<MadeCommit>, Json<Moved>), Failure> {
    let reset: Reset = parse_body(&body)?;
    let repository = state.repository(&name.parse()?).await?;
    let to = resolve(&repository, &reset.to).await?;
    let author = state.author(None);
    let asked = asked(&author, &headers, &["reset", &reset.to])?;
    let expected = if_match(&headers)?;
    let moved = repository
        .reset(&branch.parse()?, to, expected, asked)
        .await?;
    let made = Extension(MadeCommit(to.to_string()));
    let moved = Moved {
        branch,
        from: moved.from.map(|from| from.to_string()),
        to: moved.to.unwrap_or(to).to_string(),
    };
    Ok((made, Json(moved)))
}

/// The nodes and regions that differ between two commits.
#[utoipa::path(get, path = "/v1/repos/{repository}/diff/{from}/{to}",
    params(("repository" = String, Path), ("from" = String, Path), ("to" = String, Path)),
    responses((status = 200, body = DiffInfo), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn diff(
    Shared(state): Shared<State>,
    Path((name, from, to)): Path<(String, String, String)>,
) -> Result<Json<DiffInfo>, Failure> {
    let repository = state.repository(&name.parse()?).await?;
    let (from, to) = (
        resolve(&repository, &from).await?,
        resolve(&repository, &to).await?,
    );
    let nodes = repository.diff(from, to).await?;
    Ok(Json(DiffInfo {
        from: from.to_string(),
        to: to.to_string(),
        nodes: nodes.into_iter().map(NodeDifference::from).collect(),
    }))
}
