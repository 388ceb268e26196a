//! Repositories, health, limits.

use std::cmp::Ordering;

use axum::Json;
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use storage::{Idempotency, RepoName, Repository};

use super::extract::{MAX_BODY_BYTES, Path, Query, Shared, asked, idempotency};
use super::page::{self, PageQuery};
use crate::auth::Action;
use crate::error::{Failure, Problem};
use crate::requests;
use crate::serving;
use crate::state::State;
use crate::telemetry::Phase;

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
    /// Pass it as `after` for those that follow; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
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
    /// Most bytes of a body with values, or of an object.
    body_bytes: u64,
    /// Most bytes of a body of JSON.
    document_bytes: u64,
    /// Most bytes of a file sent to be imported.
    upload_bytes: u64,
    /// What clients may take of a server; absent where a program asks itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    serving: Option<ServingInfo>,
    /// Requests a second of one principal, or of one address without credentials; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<f64>,
    /// Requests of one principal, or address, at once; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent_requests: Option<u32>,
}

/// What clients may take of a server, all of them together or each request.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ServingInfo {
    /// Most connections.
    connections: u64,
    /// Most requests that are worked on at once.
    requests: u64,
    /// Most requests that wait for others; more are refused with 503.
    queued_requests: u64,
    /// Seconds they wait at most.
    queue_seconds: f64,
    /// Seconds until an answer begins, at most, after the last of the request came.
    request_seconds: f64,
    /// Seconds in which the head of a request has to come.
    header_seconds: f64,
    /// Seconds a connection may do nothing.
    idle_seconds: f64,
    /// In so many seconds …
    progress_seconds: f64,
    /// … so many bytes of a body have to come, or of an answer be taken.
    progress_bytes: u64,
    /// Most bytes of a URL.
    url_bytes: u64,
    /// Most bytes of all headers of a request.
    header_bytes: u64,
    /// Most headers of a request.
    headers: u64,
}

impl From<&serving::Limits> for ServingInfo {
    fn from(limits: &serving::Limits) -> Self {
        Self {
            connections: limits.connections,
            requests: limits.requests,
            queued_requests: limits.queued_requests,
            queue_seconds: limits.queue_timeout.as_secs_f64(),
            request_seconds: limits.request_timeout.as_secs_f64(),
            header_seconds: limits.header_timeout.as_secs_f64(),
            idle_seconds: limits.idle_timeout.as_secs_f64(),
            progress_seconds: limits.progress_timeout.as_secs_f64(),
            progress_bytes: limits.progress_bytes,
            url_bytes: limits.url_bytes,
            header_bytes: limits.header_bytes,
            headers: limits.headers,
        }
    }
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

/// Lists the repositories, sorted by name.
#[utoipa::path(get, path = "/v1/repos", params(PageQuery), responses((status = 200, body = RepositoryList), (status = 503, body = Problem)))]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    Query(query): Query<PageQuery>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Failure> {
    let names = storage::list_repositories(state.store()).await?;
    // Folders of other things may carry other names.
    let names = names
        .iter()
        .filter_map(|name| name.parse::<RepoName>().ok())
        .filter(|name| state.access().allows_in(Action::Read, name));
    let (names, next) = query.cut(names, Ordering::Less, ToString::to_string)?;
    let mut repositories = Vec::with_capacity(names.len());
    for name in names {
        repositories.push(info(
            &state,
            name.as_str(),
            &state.repository(&name).await?,
        )?);
    }
    let page = RepositoryList { repositories, next };
    Ok(page::answer(&uri, page.next.as_deref(), &page))
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
    headers: HeaderMap,
) -> Result<(StatusCode, Json<RepositoryInfo>), Failure> {
    let parsed: RepoName = name.parse()?;
    let store = state.store().under(parsed.as_str());
    let author = state.author(None);
    let asked = asked(&author, &headers, &["create repository"])?;
    let repository = match Repository::create(store, asked).await {
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
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let name: RepoName = name.parse()?;
    let repository = match idempotency(&headers, &["delete repository"])? {
        None => state.repository(&name).await?,
        Some(idempotency) => match meant(&state, &name, &idempotency).await? {
            Some(repository) => repository,
            None => return Ok(StatusCode::NO_CONTENT),
        },
    };
    state.forget(&name);
    repository.delete().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The repository that the first request under a key was to delete; `None` if that is gone, whatever
/// has its name now.
async fn meant(
    state: &State,
    name: &RepoName,
    idempotency: &Idempotency,
) -> Result<Option<Repository>, Failure> {
    let scope = format!("delete {name}");
    let first = requests::first(state, &scope, idempotency).await?;
    let found = state.repository(name).await;
    let (repository, first) = match (found, first) {
        (Ok(repository), Some(first)) => (repository, first),
        (Ok(repository), None) => {
            let id = repository.id().to_string();
            let first = requests::remember(state, &scope, idempotency, &id).await?;
            (repository, first)
        }
        (Err(failure), Some(_)) if failure.problem().status == 404 => return Ok(None),
        (Err(failure), _) => return Err(failure),
    };
    Ok((repository.id().to_string() == first).then_some(repository))
}

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", responses((status = 200)))]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Whether the store answers and the server goes on.
#[utoipa::path(get, path = "/readyz", responses((status = 200), (status = 503, body = Problem)))]
pub(crate) async fn ready(Shared(state): Shared<State>) -> Result<&'static str, Failure> {
    if state.telemetry().phase() > Phase::Serving {
        return Err(Failure::draining());
    }
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
        body_bytes: state.limits().answer_bytes,
        document_bytes: MAX_BODY_BYTES,
        upload_bytes: state.jobs().settings().upload_limit,
        serving: state.serving().map(|(limits, _)| limits.into()),
        requests_per_second: state.auth().limits().per_second,
        concurrent_requests: state.auth().limits().at_once,
    })
}
