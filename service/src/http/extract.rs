//! Parts of a request, refused with problem details where axum's own extractors answer plain text.

use std::collections::HashSet;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::error::Failure;

/// Path parameters, percent-decoded once.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(values)) => Ok(Self(values)),
            Err(rejection) => Err(Failure::bad_request("path", rejection.body_text())),
        }
    }
}

/// Query parameters. One that is not known or given twice is refused, not ignored: a misspelt
/// `skipna` must not give another number.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + IntoParams, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let known: Vec<String> = T::into_params(|| None)
            .into_iter()
            .map(|parameter| parameter.name)
            .collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut seen = HashSet::new();
        for pair in parts.uri.query().unwrap_or("").split('&') {
            let name = pair.split('=').next().unwrap_or("");
            if name.is_empty() {
                continue;
            }
            if !known.contains(&name) {
                return Err(Failure::unknown_parameter(name, &known));
            }
            if !seen.insert(name) {
                return Err(Failure::bad_request(name, format!("{name} is given twice")));
            }
        }
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(values)) => Ok(Self(values)),
            Err(rejection) => {
                let text = rejection.body_text();
                let reason = text
                    .split_once(": ")
                    .map_or(text.as_str(), |(_, rest)| rest);
                let named = known.iter().find(|name| {
                    reason.starts_with(&format!("{name}: "))
                        || reason.contains(&format!("`{name}`"))
                });
                let parameter = named.copied().unwrap_or("query");
                Err(Failure::bad_request(parameter, reason))
            }
        }
    }
}

/// The body of a request.
pub(crate) struct Body(pub(crate) bytes::Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let refused = |rejection: BytesRejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::too_large(MAX_BODY_BYTES, "the body has over 2 MB")
            }
            _ => Failure::bad_request("body", rejection.body_text()),
        };
        let body = bytes::Bytes::from_request(request, state).await;
        body.map(Self).map_err(refused)
    }
}

/// axum's default limit of a body.
const MAX_BODY_BYTES: u64 = 2_097_152;
