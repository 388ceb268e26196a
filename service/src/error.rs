//! Errors as HTTP answers: RFC 9457 problem details. The one place where every error of every crate
//! chooses its status.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::auth::Denied;
use crate::telemetry::trace;

/// A problem, as it is sent.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Stable name of the kind of problem, a relative URL.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem, in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This problem: what is wrong, where, and what to do.
    pub detail: String,
    /// The request parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// The limit that was passed, with its unit in the detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Names that exist and look like the one that does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<String>,
    /// The trace of the request: what answers and logs name it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Everything both sides of a conflict changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<ConflictInfo>,
}

/// One thing both sides changed.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConflictInfo {
    /// The node; empty for the root.
    pub path: String,
    /// `created`, `deleted`, `shape`, `dropped-region`, `data`, `metadata`, `attribute`, `read` or
    /// `staged-twice`.
    pub kind: String,
    /// The attribute, for kind `attribute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The elements concerned, as a slice: `0:4,5:8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
}

impl From<&storage::Conflict> for ConflictInfo {
    fn from(conflict: &storage::Conflict) -> Self {
        Self {
            path: conflict.path.as_str().to_owned(),
            kind: conflict.kind.name().to_owned(),
            attribute: match &conflict.kind {
                storage::ConflictKind::Attribute(name) => Some(name.clone()),
                _ => None,
            },
            slice: conflict.region.as_ref().map(ToString::to_string),
        }
    }
}

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub struct Failure {
    problem: Box<Problem>,
    /// What a 5xx hides from the client and tells the log.
    cause: Option<String>,
    /// Length of the object a range lies outside of.
    object_bytes: Option<u64>,
    /// Whether a stored object is not there.
    is_loss: bool,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
    /// Whether someone may not do this: why in a word.
    denied: Option<&'static str>,
}

impl Failure {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            parameter: None,
            limit: None,
            suggestions: Vec::new(),
            trace_id: None,
            conflicts: Vec::new(),
        };
        Self {
            problem: Box::new(problem),
            cause: None,
            object_bytes: None,
            is_loss: false,
            retry_after: None,
            denied: None,
        }
    }

    /// A request that is wrong in itself.
    pub fn bad_request(parameter: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request is not valid",
            detail,
        )
        .about(parameter)
    }

    /// Nothing has this name.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    /// The format asked for cannot hold the answer.
    pub fn not_acceptable(detail: impl Into<String>) -> Self {
        let title = "The answer has no such format";
        Self::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", title, detail).about("f")
    }

    /// The service does not do this for whoever asks.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        let title = "The service is not allowed to do this";
        Self::new(StatusCode::FORBIDDEN, "forbidden", title, detail)
    }

    /// Whoever asks has to say who he is; `was_given` if what he said is wrong.
    pub fn unauthorized(was_given: bool) -> Self {
        let detail = match was_given {
            true => "these credentials are not valid",
            false => "say who you are: Authorization: Bearer and an API key or a token",
        };
        let title = "Credentials are needed";
        let mut failure = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", title, detail);
        failure.denied = Some(if was_given {
            "credentials"
        } else {
            "no-credentials"
        });
        failure
    }

    /// Whoever asks may not do this.
    pub fn denied(detail: impl Into<String>) -> Self {
        let title = "You may not do this";
        let mut failure = Self::new(StatusCode::FORBIDDEN, "not-permitted", title, detail);
        failure.denied = Some("not-permitted");
        failure
    }

    /// The same failure, which denies something to someone who must not know that there is such.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.denied = Some("hidden");
        self
    }

    /// There is no such repository, as far as whoever asks may know.
    pub fn hidden_repository(name: &storage::RepoName) -> Self {
        let none = storage::Error::not_found("repository", name.as_str(), std::iter::empty());
        Self::from(none).hidden()
    }

    /// Whoever asks has asked for too much lately.
    pub fn too_many(after: std::time::Duration) -> Self {
        let (title, detail) = ("Too many requests", "slow down: /v1/limits has the limits");
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut failure = Self::new(status, "too-many-requests", title, detail);
        failure.retry_after = Some(after.as_secs_f64().ceil().max(1.0) as u64);
        failure
    }

    /// The request is for another host.
    pub fn misdirected(detail: impl Into<String>) -> Self {
        let title = "The request is for another host";
        let status = StatusCode::MISDIRECTED_REQUEST;
        Self::new(status, "misdirected", title, detail)
    }

    /// It was there and is no more.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "expired", "It has expired", detail)
    }

    /// A body of a kind that is not understood.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        let (status, title) = (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body is of no known type",
        );
        Self::new(status, "unsupported-media-type", title, detail).about("Content-Type")
    }

    /// A condition of the request does not hold.
    pub fn precondition(parameter: &str, detail: impl Into<String>) -> Self {
        let title = "A condition of the request does not hold";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            title,
            detail,
        )
        .about(parameter)
    }

    /// More than the service gives at once.
    pub fn too_large(limit: u64, detail: impl Into<String>) -> Self {
        let mut failure = Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The answer is too large",
            detail,
        );
        failure.problem.limit = Some(limit);
        failure
    }

    /// A range that lies outside the object.
    pub fn range(object_bytes: u64, detail: impl Into<String>) -> Self {
        let title = "The range lies outside the object";
        let mut failure = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", title, detail);
        failure.object_bytes = Some(object_bytes);
        failure
    }

    /// A query parameter the route does not have; `known` are those it has.
    pub fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let detail = match known {
            [] => format!("{name:?} is no parameter: there are none here"),
            _ => format!("{name:?} is no parameter; there are {}", known.join(", ")),
        };
        let mut failure = Self::bad_request(name, detail);
        let alike = storage::Error::not_found("parameter", name, known.iter().copied());
        if let storage::Error::NotFound { suggestions, .. } = alike {
            failure.problem.suggestions = suggestions;
        }
        failure
    }

    /// The path exists, but not with this method.
    pub fn method_not_allowed() -> Self {
        let title = "This path has no such method";
        let detail = "the Allow header lists the methods of this path";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            title,
            detail,
        )
    }

    /// It is understood, but cannot be done with what there is.
    pub fn meaningless(detail: impl Into<String>) -> Self {
        let title = "The request has no answer";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no-answer", title, detail)
    }

    /// Someone else decides on it, or has decided.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "conflict",
            "Someone else was first",
            detail,
        )
    }

    fn corrupt(detail: String) -> Self {
        let title = "Stored data is damaged";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "damaged",
            title,
            detail.clone(),
        )
        .because(detail)
    }

    /// The service has too much to do.
    pub fn busy(detail: impl Into<String>) -> Self {
        let (title, detail) = ("The service cannot do it now", detail.into());
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "busy", title, detail.clone()).because(detail)
    }

    /// There are more requests than the service takes at once.
    pub fn overloaded(limit: u64, detail: impl Into<String>) -> Self {
        let title = "The service has too much to do";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "overloaded", title, detail).limited(limit)
    }

    /// The service ends soon.
    pub fn draining() -> Self {
        let title = "The service ends soon";
        let detail = "this server takes nothing new: ask another one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", title, detail)
    }

    /// The URL is longer than any may be.
    pub fn url_too_long(limit: u64, found: u64) -> Self {
        let title = "The URL is too long";
        let detail = format!("{found} bytes, the most is {limit}: long lists go into a body");
        Self::new(StatusCode::URI_TOO_LONG, "url-too-long", title, detail).limited(limit)
    }

    /// There are more headers, or longer ones, than any request may have.
    pub fn headers_too_large(limit: u64, detail: impl Into<String>) -> Self {
        let title = "The headers are too large";
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, "headers-too-large", title, detail).limited(limit)
    }

    /// The body of the request came too slowly.
    pub fn slow_body(least: u64, window: std::time::Duration) -> Self {
        let title = "The body came too slowly";
        let window = humantime::format_duration(window);
        let detail = format!("fewer than {least} bytes came in {window}: send it again");
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", title, detail).limited(least)
    }

    /// The answer was not there in time.
    pub fn deadline(after: std::time::Duration) -> Self {
        let title = "The request took too long";
        let detail = format!(
            "there was no answer after {}: ask for less, or for a job; a write may have gone through",
            humantime::format_duration(after)
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", title, detail)
    }

    /// An idempotency key was used for something else.
    pub fn key_reused(key: &str) -> Self {
        let error = storage::Error::KeyReused { key: key.into() };
        error.into()
    }

    /// The log is not signed.
    pub fn signing(detail: impl Into<String>) -> Self {
        let title = "The log is not signed";
        let detail = format!("not signed: {}", detail.into());
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "signing", title, detail.clone()).because(detail)
    }

    /// A defect of the service.
    pub fn broken(cause: impl Into<String>) -> Self {
        let title = "The service has a defect";
        let detail = "the answer could not be made";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "defect", title, detail).because(cause.into())
    }

    fn unavailable(cause: String) -> Self {
        let title = "The object store does not answer";
        let detail = "the object store did not answer as it should; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", title, detail).because(cause)
    }

    /// What is stored refers to a file elsewhere that does not give what was imported from it. Never
    /// a 4xx: Zarr clients take that for fill value.
    fn original(kind: &str, status: StatusCode, detail: String) -> Self {
        let title = "An original outside the store cannot be read";
        Self::new(status, kind, title, detail.clone()).because(detail)
    }

    /// Names the parameter that is wrong.
    #[must_use]
    pub fn about(mut self, parameter: &str) -> Self {
        self.problem.parameter = Some(parameter.to_owned());
        self
    }

    fn limited(mut self, limit: u64) -> Self {
        self.problem.limit = Some(limit);
        self
    }

    fn because(mut self, cause: String) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Whether a stored object is not there.
    pub fn is_loss(&self) -> bool {
        self.is_loss
    }

    /// Whether what failed may have happened nevertheless.
    pub fn is_unclear(&self) -> bool {
        self.problem.status == StatusCode::GATEWAY_TIMEOUT.as_u16()
    }

    /// Whether a stored object is not what it should be.
    pub fn is_damage(&self) -> bool {
        self.problem.kind == "/problems/damaged"
    }

    /// Of a range outside an object, the length of the object.
    pub fn object_bytes(&self) -> Option<u64> {
        self.object_bytes
    }

    /// The problem that is sent.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Logs what a 5xx hides.
    fn log(&self) {
        if let Some(cause) = &self.cause {
            let trace_id = trace::current_id();
            error!(status = self.problem.status, trace_id, %cause, "request failed");
        }
    }

    /// The problem, for whoever asked; what it hides is logged.
    pub fn into_problem(self) -> Problem {
        self.log();
        *self.problem
    }
}

impl IntoResponse for Failure {
    fn into_response(mut self) -> Response {
        self.log();
        self.problem.trace_id = trace::current_id();
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(length) = self.object_bytes
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            // Browsers keep what they are asked for with Basic, and send it for pages of others.
            let challenge = match self.denied {
                Some("credentials") => "Bearer realm=\"quarr\", error=\"invalid_token\"",
                _ => "Bearer realm=\"quarr\"",
            };
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        if let Some(reason) = self.denied {
            response.extensions_mut().insert(Denied(reason));
        }
        response
    }
}

impl From<array::Error> for Failure {
    fn from(error: array::Error) -> Self {
        let detail = error.to_string();
        match error {
            array::Error::Invalid { what, .. } => Self::bad_request(what, detail),
            array::Error::OutOfBounds { .. } => Self::bad_request("slice", detail),
            array::Error::Unsupported { .. } => Self::meaningless(detail),
            array::Error::Corrupt { .. } => Self::corrupt(detail),
            array::Error::TooLarge { .. } => Self::too_large(isize::MAX as u64, detail),
        }
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        let detail = error.to_string();
        match error {
            storage::Error::NotFound { suggestions, .. } => {
                let mut failure = Self::not_found(detail);
                failure.problem.suggestions = suggestions;
                failure
            }
            storage::Error::AlreadyExists { .. } => Self::conflict(detail),
            storage::Error::Conflict { conflicts, .. } => {
                let mut failure = Self::conflict(detail);
                failure.problem.conflicts = conflicts.iter().map(ConflictInfo::from).collect();
                failure
            }
            storage::Error::Closed { .. } | storage::Error::Overtaken { .. } => {
                Self::conflict(detail)
            }
            storage::Error::HeadMoved { .. } => Self::precondition("If-Match", detail),
            storage::Error::KeyReused { .. } => Self::meaningless(detail).about("Idempotency-Key"),
            storage::Error::Invalid { what, .. } => Self::bad_request(what, detail),
            storage::Error::Corrupt { .. } => Self::corrupt(detail),
            storage::Error::Missing { .. } => Self {
                is_loss: true,
                ..Self::corrupt(detail)
            },
            storage::Error::Unknown { .. } => {
                let title = "It is not known whether the commit went through";
                Self::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "unknown-outcome",
                    title,
                    detail.clone(),
                )
                .because(detail)
            }
            storage::Error::Expired { .. } => Self::gone(detail),
            storage::Error::Swept { .. } | storage::Error::Sweeping { .. } => {
                Self::conflict(detail)
            }
            storage::Error::Busy { .. }
            | storage::Error::Clock { .. }
            | storage::Error::Unstaged { .. } => Self::busy(detail),
            storage::Error::Inconsistent { .. } => Self::signing(detail),
            storage::Error::ReadOnly => Self::forbidden(detail),
            storage::Error::Changed { .. } => {
                Self::original("original-changed", StatusCode::BAD_GATEWAY, detail)
            }
            storage::Error::Forbidden { .. } => {
                Self::original("original-forbidden", StatusCode::BAD_GATEWAY, detail)
            }
            storage::Error::Unreachable { .. } => Self::original(
                "original-unreachable",
                StatusCode::SERVICE_UNAVAILABLE,
                detail,
            ),
            storage::Error::Array(error) => error.into(),
            storage::Error::Store { .. } => Self::unavailable(chain(&error)),
        }
    }
}

impl From<compute::Error> for Failure {
    fn from(error: compute::Error) -> Self {
        let detail = error.to_string();
        match error {
            compute::Error::Undefined { .. }
            | compute::Error::Empty { .. }
            | compute::Error::NotInStatistics { .. } => Self::meaningless(detail),
            compute::Error::Attribute { .. } => Self::meaningless(format!(
                "{detail}: ask for decode=raw to read the values as stored"
            )),
            compute::Error::LabelText { .. } => Self::bad_request("sel", detail),
            compute::Error::Label { suggestions, .. } => {
                let mut failure = Self::meaningless(detail);
                failure.problem.suggestions = suggestions;
                failure
            }
            compute::Error::Parameter { name, .. } => Self::bad_request(name, detail),
            compute::Error::UnknownReducer { .. } => Self::bad_request("reduce", detail),
        }
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        let detail = error.to_string();
        match error {
            query::Error::Storage(error) => error.into(),
            query::Error::Array(error) => error.into(),
            query::Error::Compute(error) => error.into(),
            query::Error::Corrupt { .. } => Self::corrupt(detail),
            query::Error::Codecs { .. } => Self::meaningless(detail),
            query::Error::Range { length_bytes, .. } => Self::range(length_bytes, detail),
            query::Error::OverBudget { limit_bytes, .. } => {
                let detail = format!(
                    "{detail}: ask for parts of it with slice=, or let the service take more with --memory-limit"
                );
                Self::too_large(limit_bytes, detail)
            }
            query::Error::Busy { .. } => Self::busy(detail),
            query::Error::Directory { .. } | query::Error::Cancelled => Self::unavailable(detail),
        }
    }
}

impl From<importers::Error> for Failure {
    fn from(error: importers::Error) -> Self {
        let detail = chain(&error);
        match error {
            importers::Error::Read { .. }
            | importers::Error::Malformed { .. }
            | importers::Error::Unsupported { .. }
            | importers::Error::Misfit { .. }
            | importers::Error::NoPlace { .. }
            | importers::Error::Codecs(_) => Self::meaningless(detail),
            importers::Error::Option { option, .. } => {
                Self::bad_request(option.trim_start_matches("--"), detail)
            }
            importers::Error::Changed { .. }
            | importers::Error::BegunOtherwise { .. }
            | importers::Error::Exists { .. }
            | importers::Error::Mirror { .. } => Self::conflict(detail),
            importers::Error::Write { .. }
            | importers::Error::Leftover { .. }
            | importers::Error::Cancelled => Self::unavailable(detail),
            importers::Error::Worker { .. } => Self::broken(detail),
            importers::Error::Compute(error) => error.into(),
            importers::Error::Array(error) => error.into(),
            importers::Error::Storage(error) => error.into(),
            importers::Error::Query(error) => error.into(),
        }
    }
}

/// An error and its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat the text of their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
