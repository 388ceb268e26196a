//! Parts of a request, refused with problem details where axum's own extractors answer plain text.

use std::collections::HashSet;
use std::convert::Infallible;
use std::error::Error as _;

use array::hash::{Kind, hash};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::LengthLimitError;
use query::Reservation;
use serde::de::DeserializeOwned;
use storage::{Asked, CommitId, Idempotency};
use utoipa::IntoParams;

use crate::auth::Access;
use crate::error::Failure;
use crate::state::State;

/// The service's state, which may do what the request may. axum's own extractor gives one that may do
/// nothing.
pub(crate) struct Shared<T>(pub(crate) T);

impl FromRequestParts<State> for Shared<State> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Infallible> {
        let access = parts.extensions.get::<Access>();
        Ok(Self(state.seen_by(
            access.map_or_else(Access::nothing, Clone::clone),
        )))
    }
}

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

/// Query parameters of which some are named after dimensions: `sel.<dimension>=` and
/// `coarsen.<dimension>=`.
pub(crate) struct Labelled<T> {
    /// The others.
    pub(crate) fixed: T,
    /// `sel.`: dimension and labels.
    pub(crate) labels: Vec<(String, String)>,
    /// `coarsen.`: dimension and cells in a window; only where `T` has `reduce`.
    pub(crate) windows: Vec<(String, u64)>,
}

impl<T: DeserializeOwned + IntoParams, S: Send + Sync> FromRequestParts<S> for Labelled<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or("").to_owned();
        let takes_windows = T::into_params(|| None)
            .into_iter()
            .any(|parameter| parameter.name == "reduce");
        let (mut labels, mut windows, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for pair in query.split('&') {
            let decoded = form_urlencoded::parse(pair.as_bytes()).next();
            let (name, value) = decoded.unwrap_or_default();
            let seen = |known: &str| Failure::bad_request(&name, format!("{known} is given twice"));
            if let Some(dimension) = name.strip_prefix("sel.") {
                if labels.iter().any(|(known, _)| known == dimension) {
                    return Err(seen(&name));
                }
                labels.push((dimension.to_owned(), value.into_owned()));
            } else if let Some(dimension) = name.strip_prefix("coarsen.").filter(|_| takes_windows)
            {
                if windows.iter().any(|(known, _)| known == dimension) {
                    return Err(seen(&name));
                }
                let window = value.parse().map_err(|_| {
                    Failure::bad_request(&name, format!("{value:?} is no number of cells"))
                })?;
                windows.push((dimension.to_owned(), window));
            } else {
                rest.push(pair);
            }
        }
        let path = parts.uri.path().to_owned();
        let uri = match rest.is_empty() {
            true => path,
            false => format!("{path}?{}", rest.join("&")),
        };
        let mut fixed = parts.clone();
        fixed.uri = uri
            .parse()
            .map_err(|_| Failure::bad_request("query", "it is no query"))?;
        let Query(fixed) = Query::from_request_parts(&mut fixed, state).await?;
        Ok(Self {
            fixed,
            labels,
            windows,
        })
    }
}

/// A body of JSON, or none.
pub(crate) struct Body(pub(crate) bytes::Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        check_encoding(request.headers())?;
        let is_json = is_json(request.headers());
        let refused = |rejection: BytesRejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::too_large(MAX_BODY_BYTES, "the body has over 2 MB")
            }
            _ => Failure::bad_request("body", rejection.body_text()),
        };
        let body = bytes::Bytes::from_request(request, state).await;
        let body = body.map_err(refused)?;
        // A web page may send other types to any address, without asking.
        if !is_json && !body.is_empty() {
            let detail = "the body must be JSON, with Content-Type: application/json";
            return Err(Failure::unsupported_media_type(detail));
        }
        Ok(Self(body))
    }
}

/// A body of values or of an object, up to the most bytes an answer may have, and the memory that it
/// and what is made of it take.
pub(crate) struct LargeBody(pub(crate) bytes::Bytes, pub(crate) Reservation);

/// A body is there as it came, as values, and encoded.
const BODY_COPIES: u64 = 3;

impl FromRequest<State> for LargeBody {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &State) -> Result<Self, Failure> {
        check_encoding(request.headers())?;
        let limit = state.limits().answer_bytes;
        let too_large = || {
            let detail = format!("the body has over {limit} bytes: write it in parts");
            Failure::too_large(limit, detail)
        };
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let memory = announced.unwrap_or(limit).saturating_mul(BODY_COPIES);
        let memory = state.engine().reserve(memory).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        match axum::body::to_bytes(request.into_body(), most).await {
            Ok(body) => Ok(Self(body, memory)),
            Err(error)
                if error
                    .source()
                    .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) =>
            {
                Err(too_large())
            }
            Err(error) => Err(Failure::bad_request("body", error.to_string())),
        }
    }
}

/// Whether the body says it is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || essence.starts_with("application/") && essence.ends_with("+json")
}

/// A body is taken as it comes: one that was compressed would be stored compressed.
fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Failure::unsupported_media_type(format!(
            "the body is encoded as {encoding:?}: send it plain"
        ))),
        _ => Ok(()),
    }
}

/// Whether there must be nothing yet where the request writes.
pub(crate) fn must_be_new(headers: &HeaderMap) -> Result<bool, Failure> {
    match headers.get(header::IF_NONE_MATCH) {
        None => Ok(false),
        Some(value) if value == "*" => Ok(true),
        Some(_) => Err(Failure::bad_request(
            "If-None-Match",
            "of a write it can only be *: nothing may be there",
        )),
    }
}

/// The commit the branch has to be at.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<CommitId>, Failure> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let invalid = || {
        let detail = "it is not one commit id, in quotes";
        Failure::bad_request("If-Match", detail)
    };
    let text = value.to_str().map_err(|_| invalid())?.trim();
    if text == "*" {
        return Ok(None);
    }
    let id = text.trim_matches('"').parse().map_err(|_| invalid())?;
    Ok(Some(id))
}

/// The client's name for a request that has its effect once. `request` is what the request is about.
pub(crate) fn idempotency(
    headers: &HeaderMap,
    request: &[&str],
) -> Result<Option<Idempotency>, Failure> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(value) = keys.next() else {
        return Ok(None);
    };
    let invalid = |detail: String| Failure::bad_request("Idempotency-Key", detail);
    if keys.next().is_some() {
        return Err(invalid("it is given twice".into()));
    }
    let key = value
        .to_str()
        .map_err(|_| invalid("it is not printable ASCII".into()))?;
    let document = serde_json::json!(request);
    let request = hash(Kind::Request, &array::json::canonical_bytes(&document));
    let key = key.trim_matches('"');
    Idempotency::new(key, request)
        .map(Some)
        .map_err(|error| invalid(error.to_string()))
}

/// A change of refs as the author asks for it, under which key. `request` is what it is about.
pub(crate) fn asked<'a>(
    author: &'a str,
    headers: &HeaderMap,
    request: &[&str],
) -> Result<Asked<'a>, Failure> {
    Ok(Asked {
        actor: author,
        idempotency: idempotency(headers, request)?,
    })
}

/// axum's default limit of a body.
pub(crate) const MAX_BODY_BYTES: u64 = 2_097_152;
