//! API keys, and who asks.

use axum::Json;
use axum::extract::OriginalUri;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::extract::{Body, Path, Shared};
use super::versions::parse_body;
use crate::auth::{Grant, GrantInfo, KeyInfo, NewKey, NewToken};
use crate::error::{Failure, Problem};
use crate::state::State;

/// Longest life that is asked for in seconds: a thousand years.
const MAX_LIFE_S: i64 = 31_556_952_000;

/// A key to make.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeyBody {
    /// What commits and the audit log call whoever uses it; no other live key has the name.
    name: String,
    /// What it may do.
    #[schema(min_items = 1, max_items = 64)]
    grants: Vec<GrantInfo>,
    /// After so many seconds it works no more; never if left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 31_556_952_000_i64)]
    expires_in: Option<i64>,
}

/// How a key is rotated.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// For so many seconds the token before works as well, at most 30 days; a day if left out.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2592000)]
    overlap: Option<i64>,
}

/// API keys, the oldest first.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct KeyList {
    keys: Vec<KeyInfo>,
}

/// Who asks.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct Me {
    /// Tells principals apart.
    id: String,
    /// What commits and the audit log call him.
    name: String,
    /// What he may do.
    grants: Vec<GrantInfo>,
    /// Whether the service asks anyone who he is. If not, everyone may do everything.
    authenticated: bool,
}

fn no_store(body: impl Serialize) -> Response {
    let value = HeaderValue::from_static("no-store");
    ([(header::CACHE_CONTROL, value)], Json(body)).into_response()
}

/// Who asks, and what he may do.
#[utoipa::path(get, path = "/v1/auth/me", responses((status = 200, body = Me)))]
pub(crate) async fn me(Shared(state): Shared<State>) -> Response {
    no_store(match state.access().principal() {
        Some(principal) => Me {
            id: principal.id.clone(),
            name: principal.name.clone(),
            grants: principal
                .grants
                .iter()
                .cloned()
                .map(GrantInfo::from)
                .collect(),
            authenticated: true,
        },
        None => Me {
            id: "anonymous".to_owned(),
            name: "anonymous".to_owned(),
            grants: Vec::new(),
            authenticated: false,
        },
    })
}

/// Lists the API keys, also those that work no more.
#[utoipa::path(get, path = "/v1/auth/keys", responses((status = 200, body = KeyList)))]
pub(crate) async fn list(Shared(state): Shared<State>) -> Result<Response, Failure> {
    let keys = state.auth().keys().list().await?;
    Ok(no_store(KeyList { keys }))
}

/// Shows an API key, by its id or its name.
#[utoipa::path(get, path = "/v1/auth/keys/{key}", params(("key" = String, Path)),
    responses((status = 200, body = KeyInfo), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn show(
    Shared(state): Shared<State>,
    Path(key): Path<String>,
) -> Result<Response, Failure> {
    Ok(no_store(state.auth().keys().show(&key).await?))
}

/// Makes an API key. Its token is shown this once.
#[utoipa::path(post, path = "/v1/auth/keys", request_body = NewKeyBody,
    responses((status = 201, body = NewToken), (status = 400, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem)))]
pub(crate) async fn create(
    Shared(state): Shared<State>,
    OriginalUri(uri): OriginalUri,
    Body(body): Body,
) -> Result<Response, Failure> {
    let new: NewKeyBody = parse_body(&body)?;
    let grants = new.grants.into_iter().map(Grant::try_from);
    let grants: Result<Vec<Grant>, String> = grants.collect();
    let made = state
        .auth()
        .keys()
        .create(NewKey {
            name: new.name,
            grants: grants.map_err(|reason| Failure::bad_request("grants", reason))?,
            expires: new.expires_in.map(end_after).transpose()?,
            by: state.author(None),
        })
        .await?;
    let location = format!("{}/{}", uri.path().trim_end_matches('/'), made.key.id);
    let location = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, location, no_store(made)).into_response())
}

fn end_after(seconds: i64) -> Result<DateTime<Utc>, Failure> {
    let given = (1..=MAX_LIFE_S).contains(&seconds).then_some(seconds);
    let end = given
        .and_then(TimeDelta::try_seconds)
        .and_then(|life| Utc::now().checked_add_signed(life));
    end.ok_or_else(|| {
        let detail = format!("it is not from 1 to {MAX_LIFE_S} seconds");
        Failure::bad_request("expires_in", detail)
    })
}

/// Gives an API key a new token, which is shown this once. The one before works for a while.
#[utoipa::path(post, path = "/v1/auth/keys/{key}/rotate", request_body = Rotation, params(("key" = String, Path)),
    responses((status = 200, body = NewToken), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn rotate(
    Shared(state): Shared<State>,
    Path(key): Path<String>,
    Body(body): Body,
) -> Result<Response, Failure> {
    let rotation: Rotation = parse_body(&body)?;
    let overlap = match rotation.overlap {
        None => TimeDelta::days(1),
        Some(seconds) => TimeDelta::try_seconds(seconds)
            .ok_or_else(|| Failure::bad_request("overlap", "it is no number of seconds"))?,
    };
    let by = state.author(None);
    Ok(no_store(
        state.auth().keys().rotate(&key, overlap, &by).await?,
    ))
}

/// Revokes an API key: within seconds it works on no node any more, and never again.
#[utoipa::path(delete, path = "/v1/auth/keys/{key}", params(("key" = String, Path)),
    responses((status = 200, body = KeyInfo), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn revoke(
    Shared(state): Shared<State>,
    Path(key): Path<String>,
) -> Result<Response, Failure> {
    let by = state.author(None);
    Ok(no_store(state.auth().keys().revoke(&key, &by).await?))
}
