//! Repositories, health, limits.

use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use storage::{RepoName, Repository};

use super::extract::{Path, Shared};
use crate::auth::Action;
use crate::error::{Failure, Problem};
use crate::state::State;

/// A repository.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RepositoryInfo {
    /// Its name.
    name: String,
    /// Its id, a UUID.
    id: String,
    /// When it was created, RFC 3339.
    created: String,
    /// Public keys its log is signed with, the newest first; none if it is not signed here.
    log_keys: Vec<String>,
}

/// All repositories of the store.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RepositoryList {
    repositories: Vec<RepositoryInfo>,
}

/// Bounds on what one request may ask for.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct LimitsInfo {
    /// Most decoded bytes in one answer.
    answer_bytes: u64,
    /// Most bytes of one answer that is sent while it is read: of a slice as octet-stream.
    streamed_bytes: u64,
    /// Memory of the work of all requests together; those that have to wait too long for theirs are
    /// refused with 503.
    memory_bytes: u64,
    /// Most inner chunks one answer may be computed from, stored or not.
    chunks: u64,
    /// Requests a second of one principal, or of one address without credentials; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<f64>,
    /// Requests of one principal, or address, at once; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent_requests: Option<u32>,
}

fn info(state: &State, name: &str, repository: &Repository) -> Result<RepositoryInfo, Failure> {
    let keys = match state.signing() {
        Some(signing) => signing.keys_of(repository)?.verifiers(),
        None => Vec::new(),
    };
    Ok(RepositoryInfo {
        log_keys: keys.iter().map(ToString::to_string).collect(),
        name: name.to_owned(),
        id: repository.id().to_string(),
        created: repository
            .created()
            .to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
    })
}

/// Lists the repositories.
#[utoipa::path(get, path = "/v1/repos", responses((status = 200, body = RepositoryList), (status = 503, body = Problem)))]
pub(crate) async fn list(Shared(state): Shared<State>) -> Result<Json<RepositoryList>, Failure> {
    let mut repositories = Vec::new();
    for name in storage::list_repositories(state.store()).await? {
        // Folders of other things may carry other names.
        if let Ok(parsed) = name.parse::<RepoName>()
            && state.access().allows_in(Action::Read, &parsed)
        {
            repositories.push(info(&state, &name, &state.repository(&parsed).await?)?);
        }
    }
    Ok(Json(RepositoryList { repositories }))
}

/// Shows a repository.
#[utoipa::path(get, path = "/v1/repos/{repository}", params(("repository" = String, Path)),
    responses((status = 200, body = RepositoryInfo), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn show(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<Json<RepositoryInfo>, Failure> {
    let repository = state.repository(&name.parse()?).await?;
    Ok(Json(info(&state, &name, &repository)?))
}

/// Creates a repository with branch `main`.
#[utoipa::path(put, path = "/v1/repos/{repository}", params(("repository" = String, Path)),
    responses((status = 201, body = RepositoryInfo), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<RepositoryInfo>), Failure> {
    let parsed: RepoName = name.parse()?;
    let store = state.store().under(parsed.as_str());
    let repository = match Repository::create(store, &state.author(None)).await {
        Err(storage::Error::AlreadyExists { what, .. }) => {
            return Err(storage::Error::AlreadyExists { what, name }.into());
        }
        other => other?,
    };
    Ok((StatusCode::CREATED, Json(info(&state, &name, &repository)?)))
}

/// Deletes a repository and everything in it.
#[utoipa::path(delete, path = "/v1/repos/{repository}", params(("repository" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let name: RepoName = name.parse()?;
    let repository = state.repository(&name).await?;
    state.forget(&name);
    repository.delete().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", responses((status = 200)))]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Whether the store answers.
#[utoipa::path(get, path = "/readyz", responses((status = 200), (status = 503, body = Problem)))]
pub(crate) async fn ready(Shared(state): Shared<State>) -> Result<&'static str, Failure> {
    state.store().folders().await?;
    Ok("ready\n")
}

/// Bounds on what one request may ask for.
#[utoipa::path(get, path = "/v1/limits", responses((status = 200, body = LimitsInfo)))]
pub(crate) async fn limits(Shared(state): Shared<State>) -> Json<LimitsInfo> {
    Json(LimitsInfo {
        answer_bytes: state.limits().answer_bytes,
        streamed_bytes: state.limits().streamed_bytes,
        memory_bytes: state.engine().memory().1,
        chunks: state.limits().chunks,
        requests_per_second: state.auth().limits().per_second,
        concurrent_requests: state.auth().limits().at_once,
    })
}
