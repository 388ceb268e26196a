//! A read-only S3 view of every ref, `s3://{repository}/{ref}/{key}`, so that programs which know S3
//! read snapshots without a client of ours.
//!
//! ```text
//! request ─► bucket, key ─► who asks ─► may he? ─► listing ─► names of the Zarr view, a page
//!            (address)     (signature)  (access)└► object  ─► bytes of the Zarr view, a range
//! ```
//!
//! Invariants: no request changes anything; keys and bytes are those of the Zarr view
//! (`http::zarr`), which verifies them; what cannot be read is never 404, which Zarr clients take for
//! fill value. Left out: everything that writes, versions, tags and all settings of buckets.
//!
//! Source: Amazon S3 API Reference, 2006-03-01.

mod access;
mod address;
mod conditions;
mod credentials;
mod listing;
mod object;
mod page;
mod parameters;
mod refusal;
mod signature;
mod xml;

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse as _, Response};
use storage::{RepoName, Repository};
use tower_http::cors::{Any, CorsLayer};
use tower_http::trace::TraceLayer;
use tracing::Span;
use uuid::Uuid;

use crate::auth::Principal;
use crate::auth::audit::{self, Event};
use crate::http::is_this_machine;
use crate::state::State;
use address::Address;
use parameters::Parameters;
use refusal::Refusal;

pub use access::{Access, Credential};
pub use credentials::read as read_credentials;

/// Tells requests apart in what a client reports.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
/// Asked for by clients that look for a bucket's region before they sign for it.
const REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");
/// The region of all buckets; requests may be signed for any other.
const ANY_REGION: &str = "us-east-1";
/// Longest key, in bytes: that of S3.
const MAX_KEY_BYTES: usize = 1024;

/// The gateway: what it serves, to whom, and under which names.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The repositories.
    pub state: State,
    /// Who may read what.
    pub access: Access,
    /// Buckets are also subdomains of this host.
    pub domain: Option<String>,
    /// Refuse names of other machines: for a gateway that anyone may read who reaches it.
    pub only_this_machine: bool,
}

/// The whole gateway as a service.
pub fn router(gateway: Gateway) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers(Any)
        .expose_headers([
            header::ACCEPT_RANGES,
            header::CONTENT_LENGTH,
            header::CONTENT_RANGE,
            header::ETAG,
            header::LAST_MODIFIED,
            REQUEST_ID,
        ]);
    Router::new()
        .fallback(answer)
        .layer(cors)
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .with_state(gateway)
}

/// What is logged of a request: not its query, which may have the signature of a presigned URL.
fn span(request: &Request) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    tracing::debug_span!("s3", %method, path)
}

/// A request, its address and parameters taken apart.
struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    host: &'a str,
    address: Address,
    parameters: Parameters,
}

async fn answer(Shared(gateway): Shared<Gateway>, request: Request) -> Response {
    let id = Uuid::new_v4().simple().to_string();
    let (parts, _) = request.into_parts();
    let mut who = None;
    let answered = gateway.answer(&parts.method, &parts.uri, &parts.headers, &mut who);
    let mut response = match answered.await {
        Ok(response) => response,
        Err(refusal) => {
            if refusal.is_denial() {
                gateway.note_denial(&refusal, who, &parts, &id);
            }
            refusal.response(&parts.method, parts.uri.path(), &id)
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

impl Gateway {
    /// Answers a request; `signer` is set once it is known who signed it.
    async fn answer<'a>(
        &'a self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        signer: &mut Option<&'a Principal>,
    ) -> Result<Response, Refusal> {
        let host = host(uri, headers);
        if self.only_this_machine && !self.is_own_host(host) {
            return Err(Refusal::foreign_host(host));
        }
        let asked = Asked {
            method,
            uri,
            headers,
            host,
            address: Address::parse(uri.path(), host, self.domain.as_deref())?,
            parameters: Parameters::parse(uri.query().unwrap_or(""))?,
        };
        let who = self.access.who(&asked, SystemTime::now().into())?;
        *signer = who;
        match *method {
            Method::GET | Method::HEAD => {}
            Method::PUT | Method::POST | Method::DELETE => return Err(Refusal::read_only()),
            _ => return Err(Refusal::method_not_allowed()),
        }
        asked.parameters.refuse_subresources()?;
        let is_head = *method == Method::HEAD;
        let Some(bucket) = &asked.address.bucket else {
            return match is_head {
                true => Err(Refusal::method_not_allowed()),
                false => listing::buckets(self, who).await,
            };
        };
        match &asked.address.key {
            Some(key) => object::answer(self, who, bucket, key, &asked).await,
            None if is_head => self.head_bucket(who, bucket).await,
            None if asked.parameters.has("location") => self.location(who, bucket).await,
            None => listing::objects(self, who, bucket, &asked.parameters).await,
        }
    }

    fn is_own_host(&self, host: &str) -> bool {
        let is_of_domain = |domain: &String| address::below(host, domain).is_some();
        host.is_empty() || is_this_machine(host) || self.domain.as_ref().is_some_and(is_of_domain)
    }

    /// The repository that a bucket is.
    async fn repository(&self, bucket: &str) -> Result<Repository, Refusal> {
        let name: RepoName = bucket
            .parse()
            .map_err(|_| Refusal::no_such_bucket(bucket))?;
        match self.state.repository(&name).await {
            Err(failure) if failure.problem().status == 404 => Err(Refusal::no_such_bucket(bucket)),
            other => Ok(other?),
        }
    }

    /// Writes a line to the audit log, where there is one.
    fn note_denial(&self, refusal: &Refusal, who: Option<&Principal>, parts: &Parts, id: &str) {
        let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let auth = self.state.auth();
        let of_nobody = || auth.anonymous();
        let who = who.cloned().unwrap_or_else(of_nobody);
        auth.audit().write(&Event {
            time: audit::now(),
            outcome: "denied",
            principal: who.id,
            name: who.name,
            method: parts.method.to_string(),
            route: "s3".to_owned(),
            repository: None,
            path: Some(audit::cut(parts.uri.path())),
            status: Some(refusal.status().as_u16()),
            reason: Some(refusal.code()),
            commit: None,
            location: None,
            count: None,
            remote: remote.map(|ConnectInfo(address)| address.to_string()),
            request_id: id.to_owned(),
        });
    }

    /// Refuses who may read nothing in a bucket.
    fn check_bucket(&self, who: Option<&Principal>, bucket: &str) -> Result<(), Refusal> {
        match self.access.may_see(who, bucket) {
            true => Ok(()),
            false => Err(Refusal::access_denied()),
        }
    }

    async fn head_bucket(
        &self,
        who: Option<&Principal>,
        bucket: &str,
    ) -> Result<Response, Refusal> {
        self.check_bucket(who, bucket)?;
        self.repository(bucket).await?;
        Ok([(REGION, ANY_REGION)].into_response())
    }

    async fn location(&self, who: Option<&Principal>, bucket: &str) -> Result<Response, Refusal> {
        self.check_bucket(who, bucket)?;
        self.repository(bucket).await?;
        xml::response(&xml::Location::default())
    }
}

/// The host a request is for.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let named = headers.get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    let of_uri = || uri.authority().map(axum::http::uri::Authority::as_str);
    named.or_else(of_uri).unwrap_or_default()
}
