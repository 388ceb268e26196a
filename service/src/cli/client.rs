//! Requests to the service: to a router in this process, or over the network.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tower::ServiceExt as _;

use super::Failed;
use crate::error::Problem;

/// Characters of a path segment or query value that need no escape.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A service to ask.
pub(super) enum Client {
    InProcess(Router),
    Remote { url: String, http: reqwest::Client },
}

impl Client {
    pub(super) fn in_process(router: Router) -> Self {
        Self::InProcess(router)
    }

    pub(super) fn remote(url: &str) -> Self {
        Self::Remote {
            url: url.trim_end_matches('/').to_owned(),
            http: reqwest::Client::new(),
        }
    }

    /// The answer's JSON; null if it has no body.
    pub(super) async fn json(
        &self,
        method: &str,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, Failed> {
        let bytes = self.bytes(method, path, query, body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The answer's bytes.
    pub(super) async fn bytes(
        &self,
        method: &str,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Bytes, Failed> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.send(method, path, query, ("application/json", body.into()))
            .await
    }

    /// The answer's bytes to a body of this media type.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &[&str],
        query: &[(&str, String)],
        (media_type, body): (&str, Bytes),
    ) -> Result<Bytes, Failed> {
        let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        let path: Vec<String> = path.iter().map(|segment| escape(segment)).collect();
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", escape(value)))
            .collect();
        let mut url = format!("/{}", path.join("/"));
        if !query.is_empty() {
            url.push('?');
            url.push_str(&query.join("&"));
        }
        let (status, bytes) = match self {
            Self::InProcess(router) => {
                let request = Request::builder()
                    .method(method)
                    .uri(&url)
                    .header(header::CONTENT_TYPE, media_type)
                    .body(Body::from(body))?;
                let response = router
                    .clone()
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {});
                let status = response.status();
                (
                    status,
                    axum::body::to_bytes(response.into_body(), usize::MAX).await?,
                )
            }
            Self::Remote { url: server, http } => {
                let method = reqwest::Method::from_bytes(method.as_bytes())?;
                let request = http.request(method, format!("{server}{url}")).body(body);
                let response = request
                    .header(header::CONTENT_TYPE, media_type)
                    .send()
                    .await?;
                (
                    StatusCode::from_u16(response.status().as_u16())?,
                    response.bytes().await?,
                )
            }
        };
        if status.is_success() {
            return Ok(bytes);
        }
        Err(failure(status, &bytes))
    }
}

/// The problem a service answered with, on one line.
fn failure(status: StatusCode, body: &[u8]) -> Failed {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        return Failed(format!(
            "the server answered {status}: is it a Quarr service?"
        ));
    };
    Failed::from(&problem)
}
