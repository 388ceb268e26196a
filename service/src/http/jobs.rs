//! Jobs: long work that goes on without the client.

use std::cmp::{Ordering, Reverse};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::Duration;

use array::NodePath;
use axum::Json;
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use chrono::SecondsFormat;
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use storage::RepoName;
use uuid::Uuid;

use super::extract::{Body, Path, Query, Shared, idempotency};
use super::page::{self, PageQuery};
use crate::auth::Action;
use crate::error::{Failure, Problem};
use crate::jobs::{self, Job, JobSpec};
use crate::state::State;
use crate::telemetry::Phase;

/// How often a job elsewhere is looked at for those who follow it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// After what time those who follow a job on a server that ends ask again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Least time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// Jobs, the newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct JobList {
    jobs: Vec<Job>,
    /// Pass it as `after` for those that follow; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Begins a job: `{"kind": "verify", "repository": …}`, or `import`, `export`, `publish` or
/// `materialize` and what that takes.
///
/// A source of an import is `upload:<id>`, or a path or URL the service may read; an export and a
/// mirror go where the service may write.
#[utoipa::path(post, path = "/v1/jobs", request_body = JobSpec,
    responses((status = 202, body = Job), (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn begin(
    Shared(state): Shared<State>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let spec: JobSpec = serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request("body", error.to_string()))?;
    let (repository, needs) = spec.needs()?;
    if matches!(spec, JobSpec::Import(_)) && !exists(&state, &repository).await? {
        // It makes the repository.
        state.check(Action::Administer, &repository, &NodePath::root())?;
    }
    for (action, path) in &needs {
        state.check(*action, &repository, path)?;
    }
    let spec = match state.access().principal() {
        Some(principal) => spec.by(principal.name.clone()),
        None => spec,
    };
    let request = idempotency(&headers, &[])?.map(|request| request.key);
    let job = jobs::begin(
        &state.of_service(),
        spec,
        state.jobs().settings().origin,
        request.as_deref(),
    )
    .await?;
    let location = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(job)).into_response())
}

/// Whether there is a repository of which something may be seen.
async fn exists(state: &State, repository: &RepoName) -> Result<bool, Failure> {
    match state.repository(repository).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.problem().status == 404 => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Whether someone may see and cancel a job: whoever may begin such a one.
fn is_seen(state: &State, job: &Job) -> bool {
    let access = state.access();
    job.spec.needs().is_ok_and(|(repository, needs)| {
        let mut needs = needs.iter();
        needs.all(|(action, path)| access.allows(*action, &repository, path))
    })
}

/// The job, if it may be seen.
async fn seen(state: &State, id: Uuid) -> Result<Job, Failure> {
    let job = jobs::show(state, id).await?;
    match is_seen(state, &job) {
        true => Ok(job),
        false => Err(Failure::not_found(format!("there is no job {id}")).hidden()),
    }
}

/// Lists the jobs of the store that whoever asks might have begun, the newest first.
#[utoipa::path(get, path = "/v1/jobs", params(PageQuery), responses((status = 200, body = JobList), (status = 400, body = Problem)))]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    Query(query): Query<PageQuery>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Failure> {
    let key = |job: &Job| {
        let created = job.created.to_rfc3339_opts(SecondsFormat::Nanos, true);
        format!("{created}/{}", job.id)
    };
    let mut jobs = jobs::list(&state).await?;
    jobs.retain(|job| is_seen(&state, job));
    jobs.sort_by_cached_key(|job| Reverse(key(job)));
    let (jobs, next) = query.cut(jobs, Ordering::Greater, key)?;
    let page = JobList { jobs, next };
    Ok(page::answer(&uri, page.next.as_deref(), &page))
}

/// Shows how a job is going.
#[utoipa::path(get, path = "/v1/jobs/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn show(
    Shared(state): Shared<State>,
    Path(id): Path<Uuid>,
) -> Result<Json<Job>, Failure> {
    Ok(Json(seen(&state, id).await?))
}

/// Cancels a job; one that has ended stays as it is.
#[utoipa::path(delete, path = "/v1/jobs/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn cancel(
    Shared(state): Shared<State>,
    Path(id): Path<Uuid>,
) -> Result<Json<Job>, Failure> {
    seen(&state, id).await?;
    Ok(Json(jobs::cancel(&state.of_service(), id).await?))
}

/// Goes on with a job that nobody works on, without waiting for a server to find it.
#[utoipa::path(post, path = "/v1/jobs/{id}/resume", params(("id" = String, Path)),
    responses((status = 200, body = Job), (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn resume(
    Shared(state): Shared<State>,
    Path(id): Path<Uuid>,
) -> Result<Json<Job>, Failure> {
    seen(&state, id).await?;
    let origin = state.jobs().settings().origin;
    Ok(Json(jobs::resume(&state.of_service(), id, origin).await?))
}

/// Follows a job as server-sent events, one whenever it got on, until it ends.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", params(("id" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn events(
    Shared(state): Shared<State>,
    Path(id): Path<Uuid>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let first = seen(&state, id).await?;
    let rest = futures::stream::unfold(
        (state.clone(), first.clone()),
        move |(state, last)| async move {
            let next = next(&state, &last).await?;
            Some((next.clone(), (state, next)))
        },
    );
    let event = |job: Job| {
        let data = serde_json::to_string(&job).unwrap_or_default();
        Ok(Event::default().event("job").data(data))
    };
    // Whoever follows connects again, to a server that goes on.
    let stopping = state.telemetry().reached(Phase::Stopping);
    let again = || {
        Ok(Event::default()
            .retry(RECONNECT_AFTER)
            .comment("the server ends"))
    };
    let has_ended = Arc::new(AtomicBool::new(false));
    let ends = has_ended.clone();
    let all = futures::stream::iter([first])
        .chain(rest)
        .inspect(move |job| {
            ends.fetch_or(job.state.has_ended(), atomic::Ordering::Relaxed);
        });
    let last = futures::stream::once(async move {
        let goes_on = !has_ended.load(atomic::Ordering::Relaxed);
        goes_on.then(again)
    });
    let all = all.map(event).take_until(stopping);
    let all = all.chain(last.filter_map(std::future::ready));
    Ok(Sse::new(all).keep_alive(KeepAlive::default()))
}

/// What a job is like after it got on; nothing once it has ended.
async fn next(state: &State, last: &Job) -> Option<Job> {
    if last.state.has_ended() {
        return None;
    }
    // A job of many small chunks gets on all the time.
    tokio::time::sleep(EVENT_INTERVAL).await;
    loop {
        let found = jobs::show(state, last.id).await.ok()?;
        if found != *last {
            return Some(found);
        }
        jobs::wait(state, last.id, POLL_INTERVAL).await;
    }
}
