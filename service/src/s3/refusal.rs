//! What is not answered, as S3 says it: a status, a code that programs look at, and words.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::xml;
use crate::error::Failure;

/// Seconds after which a client may ask again what was too much.
const RETRY_AFTER: &str = "2";

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Of a range outside the object: the length of the object.
    object_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
struct Document<'a> {
    code: &'a str,
    message: &'a str,
    resource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_object_size: Option<u64>,
    request_id: &'a str,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            object_bytes: None,
        }
    }

    /// Whether it is for lack of rights.
    pub(super) fn is_denial(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn no_such_bucket(bucket: &str) -> Self {
        let message = format!("there is no repository {bucket:?}");
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket", message)
    }

    pub(super) fn no_such_key(key: &str) -> Self {
        let message = format!("no object has the key {key:?}");
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", message)
    }

    /// What a chunk would be in is not there. Zarr clients take 404, and every code that S3 has for
    /// it, for fill value: so this is neither.
    pub(super) fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Gone", message)
    }

    pub(super) fn read_only() -> Self {
        let message = "this view of snapshots is read-only: write through the HTTP API";
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", message)
    }

    pub(super) fn access_denied() -> Self {
        let message = "this is not for who asks, or for no one who does not sign";
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", message)
    }

    pub(super) fn expired() -> Self {
        let message = "Request has expired";
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "only GET and HEAD are answered";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(super) fn not_implemented(what: &str) -> Self {
        let message = format!("{what} is not part of this read-only view");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(super) fn invalid_argument(name: &str, reason: &str) -> Self {
        let message = format!("{name} {reason}");
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    pub(super) fn invalid_uri() -> Self {
        let message = "the path or the query is not UTF-8";
        Self::new(StatusCode::BAD_REQUEST, "InvalidURI", message)
    }

    pub(super) fn key_too_long(bytes: usize) -> Self {
        let message = format!(
            "a key of {bytes} bytes, the most is {}",
            super::MAX_KEY_BYTES
        );
        Self::new(StatusCode::BAD_REQUEST, "KeyTooLongError", message)
    }

    pub(super) fn foreign_host(host: &str) -> Self {
        let message = format!(
            "{host:?} is not a name of this machine: use localhost or an address, or serve with --insecure"
        );
        Self::new(StatusCode::MISDIRECTED_REQUEST, "InvalidRequest", message)
    }

    pub(super) fn malformed_authorization(message: &str) -> Self {
        let code = "AuthorizationHeaderMalformed";
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn malformed_presigned(message: &str) -> Self {
        let code = "AuthorizationQueryParametersError";
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn unknown_access_key(key: &str) -> Self {
        let message = format!("there is no access key {key:?}");
        Self::new(StatusCode::FORBIDDEN, "InvalidAccessKeyId", message)
    }

    pub(super) fn wrong_signature() -> Self {
        let message = "the signature does not match: check the secret key, the host, and whether \
                       something on the way changes requests";
        Self::new(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", message)
    }

    pub(super) fn skewed() -> Self {
        let message = "the request's time and the server's differ by more than 15 minutes";
        Self::new(StatusCode::FORBIDDEN, "RequestTimeTooSkewed", message)
    }

    pub(super) fn unknown_token() -> Self {
        let message = "there are no session tokens here: sign with an access key alone";
        Self::new(StatusCode::BAD_REQUEST, "InvalidToken", message)
    }

    pub(super) fn precondition_failed(header: &str) -> Self {
        let message = format!("the condition of {header} does not hold");
        let status = StatusCode::PRECONDITION_FAILED;
        Self::new(status, "PreconditionFailed", message)
    }

    pub(super) fn broken(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "InternalError", message)
    }

    /// Whether it says that there is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(super) fn into_message(self) -> String {
        self.message
    }

    /// The answer to a request with this id.
    pub(super) fn response(self, method: &Method, resource: &str, id: &str) -> Response {
        let document = Document {
            code: self.code,
            message: &self.message,
            resource,
            actual_object_size: self.object_bytes,
            request_id: id,
        };
        let body = match *method == Method::HEAD {
            true => String::new(),
            false => xml::text(&document).unwrap_or_default(),
        };
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(xml::MEDIA_TYPE),
        );
        if let Some(length) = self.object_bytes
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            _ => {}
        }
        response
    }
}

/// What went wrong while an object or a list was read: never "there is no such key".
impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let object_bytes = failure.object_bytes();
        let problem = failure.into_problem();
        let (status, code) = match problem.status {
            416 => (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            410 => (StatusCode::GONE, "Gone"),
            503 => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            400..500 => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        };
        Self {
            status,
            code,
            message: problem.detail,
            object_bytes,
        }
    }
}
