//! The HTTP service: [`router`] builds all of it, so tests call it without a socket.

pub(crate) mod admission;
pub(crate) mod answer;
mod asked;
mod data;
mod edits;
mod explain;
mod extract;
mod follow;
pub(crate) mod gathered;
mod gpu;
mod held;
mod jobs;
mod keys;
mod metrics;
mod nearest;
mod observe;
mod openapi;
mod page;
mod points;
mod product;
mod proofs;
mod reduce;
mod refs;
mod repositories;
mod status;
mod tlog;
mod transactions;
mod uploads;
mod versions;
mod writes;
pub(crate) mod zarr;

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderName, Method, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use utoipa_swagger_ui::SwaggerUi;

use crate::auth::{self, Access};
use crate::error::Failure;
use crate::state::State;

pub use held::HeldMemory;
pub use openapi::document as openapi_document;
pub(crate) use status::without_secrets;

/// The whole application.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the application has the state; its parts have copies, which are cheap"
)]
pub fn router(state: State) -> Router {
    let zarr_root = get(zarr::root)
        .delete(writes::delete_root)
        .fallback(zarr::dav::of_commit_root);
    let staged_root = get(transactions::zarr_root)
        .delete(transactions::delete_zarr_root)
        .fallback(zarr::dav::of_transaction_root);
    let repository = Router::new()
        .route(
            "/",
            get(repositories::show)
                .put(repositories::create)
                .delete(repositories::delete),
        )
        .route("/branches", get(refs::list_branches))
        .route(
            "/branches/{name}",
            put(refs::create_branch).delete(refs::delete_branch),
        )
        .route("/branches/{name}/reset", post(versions::reset))
        .route("/branches/{name}/revert", post(versions::revert))
        .route("/branches/{name}/cherry-pick", post(versions::cherry_pick))
        .route("/merge", post(versions::merge))
        .route("/diff/{from}/{to}", get(versions::diff))
        .route("/transactions", post(transactions::open))
        .route("/tags", get(refs::list_tags))
        .route(
            "/tags/{name}",
            put(refs::create_tag).delete(refs::delete_tag),
        )
        .route("/log", get(refs::log))
        .route("/log/{sequence}", get(refs::log_entry))
        .route("/tlog/{*tile}", get(tlog::part))
        .route("/refs/{reference}", get(refs::show))
        .route("/refs/{reference}/nodes", get(refs::root_node))
        .route("/refs/{reference}/nodes/", get(refs::root_node))
        .route(
            "/refs/{reference}/nodes/{*path}",
            get(refs::node)
                .put(writes::put_node)
                .delete(writes::delete_node),
        )
        .route(
            "/refs/{reference}/data/{*path}",
            get(data::read).put(writes::data),
        )
        .route("/refs/{reference}/reduce/{*path}", get(reduce::reduce))
        .route("/refs/{reference}/points/{*path}", post(points::read))
        .route("/refs/{reference}/nearest/{*path}", post(nearest::search))
        .route("/refs/{reference}/product/{*path}", get(product::multiply))
        .route("/refs/{reference}/explain/{*path}", get(explain::explain))
        .route("/refs/{reference}/proof/{*path}", get(proofs::prove))
        .route("/refs/{reference}/receipt", get(tlog::commit_receipt))
        .route("/refs/{reference}/zarr", zarr_root.clone())
        .route("/refs/{reference}/zarr/", zarr_root)
        .route(
            "/refs/{reference}/zarr/{*key}",
            get(zarr::key)
                .put(writes::put_key)
                .delete(writes::delete_key)
                .fallback(zarr::dav::of_commit),
        );
    let transaction = Router::new()
        .route("/", get(transactions::show).delete(transactions::abort))
        .route("/commit", post(transactions::commit))
        .route("/move", post(transactions::move_node))
        .route(
            "/nodes",
            get(transactions::root_node).put(transactions::put_root_node),
        )
        .route(
            "/nodes/{*path}",
            get(transactions::node)
                .put(transactions::put_node)
                .delete(transactions::delete_node),
        )
        .route(
            "/data/{*path}",
            get(transactions::read_data).put(transactions::write_data),
        )
        .route("/zarr", staged_root.clone())
        .route("/zarr/", staged_root)
        .route(
            "/zarr/{*key}",
            get(transactions::zarr_key)
                .put(transactions::put_zarr_key)
                .delete(transactions::delete_zarr_key)
                .fallback(zarr::dav::of_transaction),
        );
    Router::new()
        .route("/", get(landing))
        .route("/livez", get(repositories::live))
        .route("/readyz", get(repositories::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/auth/me", get(keys::me))
        .route("/v1/auth/keys", get(keys::list).post(keys::create))
        .route("/v1/auth/keys/{key}", get(keys::show).delete(keys::revoke))
        .route("/v1/auth/keys/{key}/rotate", post(keys::rotate))
        .route("/v1/limits", get(repositories::limits))
        .route("/v1/status", get(status::status))
        .route("/v1/repos", get(repositories::list))
        .route("/v1/jobs", get(jobs::list).post(jobs::begin))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/v1/jobs/{id}/events", get(jobs::events))
        .route("/v1/jobs/{id}/resume", post(jobs::resume))
        .route("/v1/uploads", post(uploads::store))
        .route("/v1/uploads/{id}", delete(uploads::delete))
        .nest("/v1/repos/{repository}", repository)
        .nest("/v1/transactions/{id}", transaction)
        .merge(SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", openapi_document()))
        .fallback(|| async { Failure::not_found("no route has this path; /docs lists them") })
        .method_not_allowed_fallback(|| async { Failure::method_not_allowed() })
        .layer(middleware::from_fn(check_idempotency_key))
        .layer(middleware::from_fn(keep_ranges_for_get))
        .layer(middleware::from_fn_with_state(state.clone(), auth::guard))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            admission::admit,
        ))
        .layer(cors())
        .layer(middleware::from_fn_with_state(
            state.clone(),
            observe::observe,
        ))
        .with_state(state.seen_by(Access::nothing()))
}

fn cors() -> CorsLayer {
    // Reading alone: a page of another origin changes nothing.
    let methods = [Method::GET, Method::HEAD].into_iter();
    let methods: Vec<Method> = methods.chain(Method::from_bytes(b"PROPFIND")).collect();
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(methods)
        // The wildcard does not stand for Authorization.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            header::ACCEPT_RANGES,
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::CONTENT_LOCATION,
            header::CONTENT_RANGE,
            header::ETAG,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            answer::REPR_DIGEST,
            HeaderName::from_static("error-bound"),
            observe::SERVER_TIMING,
            HeaderName::from_static("tensor"),
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("x-request-id"),
        ])
}

/// A key that is none is refused also where repeating a request does no harm.
async fn check_idempotency_key(request: Request, next: Next) -> Response {
    match extract::idempotency(request.headers(), &[]) {
        Ok(_) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// Ranges are defined for GET alone; RFC 9110 has them ignored with other methods.
async fn keep_ranges_for_get(mut request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        request.headers_mut().remove(header::RANGE);
    }
    next.run(request).await
}

/// Refuses requests for other hosts than this machine: a page of such a host, whose name was made to
/// lead here, could otherwise do all that a local user can.
pub async fn refuse_foreign_hosts(request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    let host = named.or_else(|| request.uri().authority().map(Authority::as_str));
    match host {
        Some(host) if !is_this_machine(host) => {
            let detail = format!(
                "{host:?} is not a name of this machine: use localhost or an address, or serve with --insecure"
            );
            Failure::misdirected(detail).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether `HOST[:PORT]` is `localhost` or an address.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

async fn landing() -> Html<&'static str> {
    Html(include_str!("landing.html"))
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn only_names_that_cannot_be_made_to_lead_here_are_this_machine() {
        for own in [
            "localhost",
            "LOCALHOST:8686",
            "quarr.localhost:80",
            "127.0.0.1:8686",
            "[::1]:8686",
            "192.168.1.5",
        ] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:8686",
            "localhost.evil.example",
            "a b",
        ] {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
