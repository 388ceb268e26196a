//! What stands before every handler: who asks, how much, and whether he may.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use array::NodePath;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts as _, MatchedPath, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use storage::RepoName;
use uuid::Uuid;

use super::access::{Access, Action, Principal};
use super::audit::{self, Event};
use super::rates::{Counted, Running};
use super::routes::{self, Declared, Need};
use super::{Auth, Rejection};
use crate::error::Failure;
use crate::http::zarr::{is_of_version_2, names};
use crate::state::{State, transaction_name};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks an answer that denies something, for the audit log: an extension of the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denied(pub(crate) &'static str);

/// The commit that a request made, for the audit log: an extension of the response.
#[derive(Clone, Debug)]
pub(crate) struct MadeCommit(pub(crate) String);

/// A request that is not let in, and why in a word.
struct Refusal {
    failure: Box<Failure>,
    reason: &'static str,
    /// Whether a line tells of it; how many denials it stands for.
    to_tell: Option<u64>,
    /// Whose key it was that does not work.
    name: Option<String>,
}

impl Refusal {
    fn new(reason: &'static str, failure: Failure) -> Self {
        Self {
            failure: Box::new(failure),
            reason,
            to_tell: Some(1),
            name: None,
        }
    }
}

/// What is known of a request before it is let in.
struct Asked {
    method: Method,
    /// As the API documentation writes it; `None` if no route has the path.
    route: Option<String>,
    path: String,
    params: Vec<(String, String)>,
    address: Option<IpAddr>,
    remote: Option<String>,
    id: String,
    is_only_new: bool,
}

/// A request that is let in.
struct Admitted {
    access: Access,
    need: Need,
    running: Option<Running>,
}

/// Lets requests in that may be, and writes the audit log.
pub(crate) async fn guard(
    axum::extract::State(state): axum::extract::State<State>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let asked = Asked::of(&mut parts).await;
    let auth = state.auth();
    let mut who = auth.anonymous();
    let admitted = match &asked {
        Ok(asked) => admit(auth, asked, &parts.headers, &mut who).await,
        Err(_) => Err(Refusal::new(
            "malformed-path",
            Failure::bad_request("path", "it is not UTF-8"),
        )),
    };
    let asked = asked.unwrap_or_else(|asked| asked);
    let (mut response, need, refused) = match admitted {
        Ok(admitted) => {
            parts.extensions.insert(admitted.access);
            let response = next.run(Request::from_parts(parts, body)).await;
            (held(response, admitted.running), Some(admitted.need), None)
        }
        Err(mut refusal) => {
            let mut response = (*refusal.failure).clone().into_response();
            let route = asked
                .route
                .as_deref()
                .filter(|_| refusal.reason == "no-method");
            if let Some(Ok(methods)) = route.map(|route| routes::methods(route).parse()) {
                response.headers_mut().insert(header::ALLOW, methods);
            }
            let told = (refusal.reason, refusal.to_tell);
            if let Some(name) = refusal.name.take() {
                who.name = name;
            }
            (response, None, Some(told))
        }
    };
    if auth.is_required() {
        keep_private(response.headers_mut(), &who);
    }
    if let Ok(id) = HeaderValue::from_str(&asked.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    note(auth, &asked, &who, need, refused, &response);
    response
}

async fn admit(
    auth: &Auth,
    asked: &Asked,
    headers: &HeaderMap,
    who: &mut Principal,
) -> Result<Admitted, Refusal> {
    let declared = asked
        .route
        .as_deref()
        .map(|route| routes::need(&asked.method, route));
    let open = |access| Admitted {
        access,
        need: Need::Open,
        running: None,
    };
    if declared == Some(Declared::Needs(Need::Open)) {
        check_plain(&asked.path)?;
        return Ok(open(Access::nothing()));
    }
    if !auth.is_required() {
        let running = count(auth, Counted::address(asked.address))?;
        check_plain(&asked.path)?;
        let need = match declared {
            Some(Declared::Needs(need)) => need,
            _ => Need::Open,
        };
        check_audit(auth, need, asked)?;
        return Ok(Admitted {
            access: Access::everything(),
            need,
            running,
        });
    }
    let identified = identify(auth, headers).await;
    let counted = match &identified {
        Ok(Some(principal)) => Counted::Principal(principal.id.clone()),
        _ => Counted::address(asked.address),
    };
    let running = count(auth, counted)?;
    if let Some(principal) = identified? {
        *who = principal;
    }
    check_plain(&asked.path)?;
    let need = match declared {
        // No handler but the one that says so.
        None => return Ok(open(Access::nothing())),
        Some(Declared::Needs(need)) => need,
        Some(Declared::NoMethod) => {
            return Err(Refusal::new("no-method", Failure::method_not_allowed()));
        }
        Some(Declared::Nothing) => {
            let detail = "nobody may do this: the route declares no permission";
            return Err(Refusal::new("undeclared", Failure::denied(detail)));
        }
    };
    permit(auth, asked, who, need).map_err(|refusal| match who.is_anonymous() {
        // Whoever is nobody is told to say who he is, whatever there is.
        true => Refusal::new("no-credentials", Failure::unauthorized(false)),
        false => refusal,
    })?;
    check_audit(auth, need, asked)?;
    Ok(Admitted {
        access: Access::of(who.clone()),
        need,
        running,
    })
}

fn count(auth: &Auth, counted: Counted) -> Result<Option<Running>, Refusal> {
    auth.rates.begin(counted).map_err(|refused| Refusal {
        to_tell: refused.to_tell,
        ..Refusal::new("too-many", Failure::too_many(refused.after))
    })
}

/// Changes that could not be told of are not made.
fn check_audit(auth: &Auth, need: Need, asked: &Asked) -> Result<(), Refusal> {
    if !need.changes(&asked.method) {
        return Ok(());
    }
    auth.audit.ready().map_err(|reason| {
        let detail = format!("changes are refused while the audit log cannot be written: {reason}");
        Refusal::new("audit-log", Failure::busy(detail))
    })
}

/// Path segments are decoded once; what would then read as another path is refused.
fn check_plain(path: &str) -> Result<(), Refusal> {
    let lower = path.to_ascii_lowercase();
    let encoded_slash = lower.contains("%2f");
    let hidden = lower.contains("%00");
    let dots = lower
        .split('/')
        .any(|segment| matches!(segment.replace("%2e", ".").as_str(), "." | ".."));
    if encoded_slash || hidden || dots {
        let detail = "the path has an encoded slash, a NUL, or a segment \".\" or \"..\"";
        return Err(Refusal::new(
            "ambiguous-path",
            Failure::bad_request("path", detail),
        ));
    }
    Ok(())
}

/// Who sends these credentials; `None` if there are none.
async fn identify(auth: &Auth, headers: &HeaderMap) -> Result<Option<Principal>, Refusal> {
    let wrong = |reason, name| Refusal {
        name,
        ..Refusal::new(reason, Failure::unauthorized(true))
    };
    let token = match credentials(headers) {
        Ok(None) => return Ok(None),
        Ok(Some(token)) => token,
        Err(reason) => return Err(wrong(reason, None)),
    };
    match auth.identify(&token).await {
        Ok(Ok(principal)) => Ok(Some(principal)),
        Ok(Err(Rejection { reason, name })) => Err(wrong(reason, name)),
        Err(failure) => Err(Refusal::new("unavailable", failure)),
    }
}

/// The token in the headers: `Bearer`, or the password of `Basic` for clients that have only that.
fn credentials(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err("several-credentials");
    }
    let text = value.to_str().map_err(|_| "malformed")?;
    let (scheme, rest) = text.split_once(' ').ok_or("malformed")?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(rest.to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64.decode(rest).map_err(|_| "malformed")?;
        let decoded = String::from_utf8(decoded).map_err(|_| "malformed")?;
        let (user, password) = decoded.split_once(':').ok_or("malformed")?;
        // `curl -u TOKEN:` has no password.
        let token = if password.is_empty() { user } else { password };
        return Ok(Some(token.to_owned()));
    }
    Err("unknown-scheme")
}

/// Whether someone may do what the route needs.
fn permit(auth: &Auth, asked: &Asked, who: &Principal, need: Need) -> Result<(), Refusal> {
    let denied = |detail: &str| Err(Refusal::new("not-permitted", Failure::denied(detail)));
    let may = |permitted: bool, detail: &str| match permitted {
        true => Ok(()),
        false => denied(detail),
    };
    match need {
        Need::Open => return Ok(()),
        Need::SignedIn => return may(!who.is_anonymous(), "say who you are"),
        Need::Somewhere(action) => {
            return may(
                who.allows_somewhere(action),
                "you have no role that may do this",
            );
        }
        Need::Store => {
            return may(
                who.administers_store(),
                "only an admin of all repositories may do this",
            );
        }
        Need::Metrics => {
            let permitted = auth.open_metrics || who.administers_store();
            return may(permitted, "only an admin of all repositories sees metrics");
        }
        _ => {}
    }
    let repository = asked.repository()?;
    if need == Need::Create {
        let permitted = who.allows(Action::Administer, &repository, &NodePath::root());
        return may(
            permitted,
            "only an admin of repositories of this name may create one",
        );
    }
    if !who.allows_in(Action::Read, &repository) {
        // The same whether or not there is one.
        let failure = Failure::hidden_repository(&repository);
        return Err(Refusal::new("hidden", failure));
    }
    let outside = "you may not do this to that part of the repository";
    match need {
        Need::Part(action) => may(
            who.allows_in(action, &repository),
            "your role may not do this",
        ),
        Need::Whole(action) => may(
            who.allows(action, &repository, &NodePath::root()),
            "your role may not do this, or not in all of the repository",
        ),
        Need::Node(action) => {
            let path = asked.node()?;
            may(who.allows(action, &repository, &path), outside)
        }
        Need::NodeOrWay => {
            let path = asked.node()?;
            let scope = who.scope(Action::Read, &repository);
            may(scope.contains(&path) || scope.leads_through(&path), outside)
        }
        Need::Key(action) => {
            let scope = who.scope(action, &repository);
            let (path, is_document) = asked.key();
            let permitted = match &path {
                Some(path) => scope.contains(path),
                None => scope.is_whole(),
            };
            let is_way = path.is_some_and(|path| scope.leads_through(&path));
            if !permitted && is_way && is_document && asked.is_only_new {
                // Groups above are there, or are made with what is below.
                let detail = "the groups above what you may write are made with it";
                let failure = Failure::precondition("If-None-Match", detail);
                return Err(Refusal::new("not-permitted", failure));
            }
            may(permitted, outside)
        }
        Need::KeyOrWay => {
            let scope = who.scope(Action::Read, &repository);
            let permitted = match asked.key().0 {
                Some(path) => scope.contains(&path) || scope.leads_through(&path),
                None => scope.is_whole(),
            };
            may(permitted, outside)
        }
        // Those without a repository are settled above.
        Need::Open
        | Need::SignedIn
        | Need::Somewhere(_)
        | Need::Store
        | Need::Metrics
        | Need::Create => denied("nobody may do this"),
    }
}

impl Asked {
    /// What `parts` ask for; the same without parameters if they are not UTF-8.
    async fn of(parts: &mut axum::http::request::Parts) -> Result<Self, Self> {
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map(|route| routes::documented(route.as_str()));
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = address.map(|ConnectInfo(address)| *address);
        let given = parts
            .headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok());
        let is_plain = |id: &&str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !id.is_empty() && id.len() <= 64 && id.chars().all(plain)
        };
        let only_new = parts.headers.get(header::IF_NONE_MATCH);
        let mut asked = Self {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            params: Vec::new(),
            address: address.map(|address| address.ip()),
            remote: address.map(|address| address.to_string()),
            id: given
                .filter(is_plain)
                .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
            is_only_new: parts.method == Method::PUT && only_new.is_some_and(|tag| tag == "*"),
            route,
        };
        if asked.route.is_none() {
            return Ok(asked);
        }
        match RawPathParams::from_request_parts(parts, &()).await {
            Ok(params) => {
                let each = params.iter();
                asked.params = each
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                Ok(asked)
            }
            Err(_) => Err(asked),
        }
    }

    fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The repository it is about.
    fn repository(&self) -> Result<RepoName, Refusal> {
        let malformed = |failure| Refusal::new("malformed-name", failure);
        match (self.param("repository"), self.param("id")) {
            (Some(name), _) => name
                .parse()
                .map_err(|error: storage::Error| malformed(error.into())),
            (None, Some(id)) => transaction_name(id)
                .map(|(name, _)| name)
                .map_err(malformed),
            (None, None) => Err(malformed(Failure::broken("the route names no repository"))),
        }
    }

    /// The node it is about; the root if it names none.
    fn node(&self) -> Result<NodePath, Refusal> {
        let path = self.param("path").unwrap_or("").parse();
        path.map_err(|error: array::Error| Refusal::new("malformed-path", error.into()))
    }

    /// The node that a Zarr key is of, or the array with one of its chunks for a name, and whether it
    /// is of a node itself; no node if the key can be of none.
    fn key(&self) -> (Option<NodePath>, bool) {
        let key = self.param("key").unwrap_or("");
        let mut names = names(key);
        let is_document = is_of_version_2(key) || names.last() == Some(&"zarr.json");
        if is_document {
            names.pop();
        }
        (names.join("/").parse().ok(), is_document)
    }
}

/// Answers for one are not for others.
fn keep_private(headers: &mut HeaderMap, who: &Principal) {
    if who.is_anonymous() {
        return;
    }
    let control = headers
        .get(header::CACHE_CONTROL)
        .and_then(|value| value.to_str().ok());
    let private = match control {
        Some(control) if control.starts_with("public") => control.replacen("public", "private", 1),
        Some(control) if control.contains("no-store") => return,
        Some(control) => format!("private, {control}"),
        None => "private, no-cache".to_owned(),
    };
    if let Ok(private) = HeaderValue::from_str(&private) {
        headers.insert(header::CACHE_CONTROL, private);
    }
    headers.append(header::VARY, HeaderValue::from_static("Authorization"));
}

/// Writes a line for a change or a denial.
fn note(
    auth: &Auth,
    asked: &Asked,
    who: &Principal,
    need: Option<Need>,
    refused: Option<(&'static str, Option<u64>)>,
    response: &Response,
) {
    let status = response.status();
    let marked = response.extensions().get::<Denied>().map(|denied| denied.0);
    let is_denial = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    );
    let reason = refused.map(|(reason, _)| reason).or(marked);
    let reason = reason.or(is_denial.then_some("forbidden"));
    let count = refused.map_or(Some(1), |(_, to_tell)| to_tell);
    let is_change = need.is_some_and(|need| need.changes(&asked.method));
    let is_kept = auth.is_required() || auth.audits_open;
    let (Some(count), true) = (count, is_kept && (is_change || reason.is_some())) else {
        return;
    };
    let outcome = match reason {
        Some(_) => "denied",
        None if status.is_success() => "done",
        None => "failed",
    };
    let param = |name: &&(String, String)| name.0 != "repository";
    let others: Vec<&str> = asked
        .params
        .iter()
        .filter(param)
        .map(|(_, value)| value.as_str())
        .collect();
    let repository = asked.param("repository").map(audit::cut);
    let of_transaction = || {
        let id = asked.param("id")?;
        Some(transaction_name(id).ok()?.0.to_string())
    };
    let location = response.headers().get(header::LOCATION);
    auth.audit.write(&Event {
        time: audit::now(),
        outcome,
        principal: who.id.clone(),
        name: who.name.clone(),
        method: asked.method.to_string(),
        route: asked.route.clone().unwrap_or_default(),
        repository: repository.or_else(of_transaction),
        path: match (&asked.route, &others[..]) {
            (None, _) => Some(audit::cut(&asked.path)),
            (Some(_), []) => None,
            (Some(_), others) => Some(audit::cut(&others.join(" "))),
        },
        status: Some(status.as_u16()),
        reason,
        commit: response
            .extensions()
            .get::<MadeCommit>()
            .map(|made| made.0.clone()),
        location: location.and_then(|to| to.to_str().ok()).map(audit::cut),
        count: Some(count).filter(|count| *count > 1),
        remote: asked.remote.clone(),
        request_id: asked.id.clone(),
    });
}

/// The same answer, which counts as a request under way until its body is sent.
fn held(response: Response, running: Option<Running>) -> Response {
    match running {
        None => response,
        Some(running) => response.map(|body| {
            Body::new(Held {
                body,
                _running: running,
            })
        }),
    }
}

struct Held {
    body: Body,
    _running: Running,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
