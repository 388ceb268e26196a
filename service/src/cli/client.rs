//! Requests to the service: to a router in this process, or over the network.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tower::ServiceExt as _;

use super::Failed;
use crate::error::Problem;
use crate::uploads::Upload;

/// Bytes of a file that are read at once to be sent.
const UPLOAD_PART_BYTES: usize = 1 << 20;

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

    pub(super) fn remote(
        url: &str,
        token: Option<&str>,
        authority: Option<&Path>,
    ) -> Result<Self, Failed> {
        Ok(Self::Remote {
            url: url.trim_end_matches('/').to_owned(),
            http: http(token, authority)?,
        })
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

    /// A list with all its pages; `member` has the entries.
    pub(super) async fn list(&self, path: &[&str], member: &str) -> Result<Value, Failed> {
        let mut all = self.json("GET", path, &[], None).await?;
        while let Some(next) = all["next"].as_str() {
            let after = [("after", next.to_owned())];
            let mut page = self.json("GET", path, &after, None).await?;
            let more = page[member].take();
            if let (Some(entries), Value::Array(more)) = (all[member].as_array_mut(), more) {
                entries.extend(more);
            }
            all["next"] = page["next"].take();
        }
        if let Some(members) = all.as_object_mut() {
            members.remove("next");
        }
        Ok(all)
    }

    /// Sends a local file to be imported, as it is read; gives the source it is then.
    pub(super) async fn upload(&self, path: &Path) -> Result<String, Failed> {
        let failed =
            |error: std::io::Error| Failed(format!("cannot read {}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = escape(&name.unwrap_or_default());
        let url = format!("/v1/uploads?name={name}");
        let parts = futures::stream::try_unfold(file, |mut file| async move {
            let mut part = BytesMut::with_capacity(UPLOAD_PART_BYTES);
            let read = file.read_buf(&mut part).await?;
            Ok::<_, std::io::Error>((read > 0).then(|| (part.freeze(), file)))
        });
        let (status, bytes) = match self {
            Self::InProcess(router) => {
                let request = Request::post(&url)
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .body(Body::from_stream(parts))?;
                call(router, request).await?
            }
            Self::Remote { url: server, http } => {
                let response = http
                    .post(format!("{server}{url}"))
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, metadata.len())
                    .body(reqwest::Body::wrap_stream(parts))
                    .send()
                    .await?;
                let status = StatusCode::from_u16(response.status().as_u16())?;
                (status, response.bytes().await?)
            }
        };
        if !status.is_success() {
            return Err(failure(status, &bytes));
        }
        let upload: Upload = serde_json::from_slice(&bytes)?;
        Ok(upload.source)
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
                call(router, request).await?
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

/// What requests are sent with, as whoever has the token. It goes to the service that is asked alone:
/// redirects to others lose it.
pub(super) fn http(
    token: Option<&str>,
    authority: Option<&Path>,
) -> Result<reqwest::Client, Failed> {
    let mut builder = reqwest::Client::builder();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failed("--token is no token".into()))?;
        value.set_sensitive(true);
        builder = builder.default_headers([(header::AUTHORIZATION, value)].into_iter().collect());
    }
    if let Some(path) = authority {
        let failed = |reason: String| Failed(format!("--server-ca {}: {reason}", path.display()));
        let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem);
        for certificate in certificates.map_err(|error| failed(error.to_string()))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder.build()?)
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

async fn call(router: &Router, request: Request<Body>) -> Result<(StatusCode, Bytes), Failed> {
    let answered = router.clone().oneshot(request).await;
    let response = answered.unwrap_or_else(|never| match never {});
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
    Ok((status, bytes))
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
