//! Files sent to be imported.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use uuid::Uuid;

use super::extract::{Path, Query, Shared, idempotency};
use crate::error::{Failure, Problem};
use crate::requests;
use crate::state::State;
use crate::uploads::{self, Upload};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadQuery {
    /// What the file is called; its commit will say so.
    name: Option<String>,
    /// The SHA-256 of its bytes, in hexadecimal: what came is checked against it.
    #[param(pattern = "^[0-9a-fA-F]{64}$")]
    sha256: Option<String>,
}

/// Stores a file, to be imported as source `upload:<id>`. It is deleted when that import ends, or after
/// a day.
#[utoipa::path(post, path = "/v1/uploads", params(UploadQuery), request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 201, body = Upload), (status = 400, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn store(
    Shared(state): Shared<State>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Upload>), Failure> {
    // A web page may send other types to any address, without asking.
    let media_type = headers.get(header::CONTENT_TYPE);
    if media_type.is_none_or(|media_type| media_type != "application/octet-stream") {
        let detail = "a file is sent with Content-Type: application/octet-stream";
        return Err(Failure::unsupported_media_type(detail));
    }
    let limit = state.jobs().settings().upload_limit;
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        let detail = format!("the file has over {limit} bytes, the most that may be sent");
        return Err(Failure::too_large(limit, detail));
    }
    let name = query.name.as_deref().unwrap_or("upload");
    let sha256 = query.sha256.as_deref();
    let idempotency = idempotency(&headers, &[name, sha256.unwrap_or("")])?;
    if let Some(idempotency) = &idempotency
        && let Some(first) = requests::first(&state, SCOPE, idempotency).await?
    {
        return Ok((StatusCode::CREATED, Json(found(&state, &first).await?)));
    }
    let body = body.into_data_stream();
    let upload = uploads::store(&state, name, sha256, limit, body).await?;
    let Some(idempotency) = &idempotency else {
        return Ok((StatusCode::CREATED, Json(upload)));
    };
    let own = upload.id.to_string();
    let first = requests::remember(&state, SCOPE, idempotency, &own).await?;
    if first == own {
        return Ok((StatusCode::CREATED, Json(upload)));
    }
    uploads::delete(&state, upload.id).await;
    Ok((StatusCode::CREATED, Json(found(&state, &first).await?)))
}

/// Where idempotency keys of uploads are valid.
const SCOPE: &str = "uploads";

/// The upload that an earlier request of the same key stored.
async fn found(state: &State, id: &str) -> Result<Upload, Failure> {
    let id = id
        .parse()
        .map_err(|_| Failure::broken("a record of an upload has no id"))?;
    uploads::find(state, id).await
}

/// Deletes a file that was sent.
#[utoipa::path(delete, path = "/v1/uploads/{id}", params(("id" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    Shared(state): Shared<State>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Failure> {
    uploads::find(&state, id).await?;
    uploads::delete(&state, id).await;
    Ok(StatusCode::NO_CONTENT)
}
