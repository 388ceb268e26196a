//! The contract: an OpenAPI document generated from the handlers.

mod complete;

use axum::http::Method;
use serde_json::Value;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{
    data, explain, jobs, keys, metrics, nearest, points, product, proofs, reduce, refs,
    repositories, status, tlog, transactions, uploads, versions, writes, zarr,
};
use crate::auth::routes::{self, Declared, Need};
use crate::error::Problem;
use complete::complete;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quarr",
        description = "An array object store: versions, verified reads, slices and reductions near the data.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        repositories::list,
        repositories::show,
        repositories::create,
        repositories::delete,
        repositories::live,
        repositories::ready,
        repositories::limits,
        status::status,
        keys::me,
        keys::list,
        keys::show,
        keys::create,
        keys::rotate,
        keys::revoke,
        refs::list_branches,
        refs::create_branch,
        refs::delete_branch,
        refs::list_tags,
        refs::create_tag,
        refs::delete_tag,
        refs::log,
        refs::log_entry,
        tlog::part,
        tlog::commit_receipt,
        refs::show,
        refs::root_node,
        refs::node,
        data::read,
        reduce::reduce,
        points::read,
        nearest::search,
        product::multiply,
        explain::explain,
        metrics::metrics,
        proofs::prove,
        jobs::begin,
        jobs::list,
        jobs::show,
        jobs::cancel,
        jobs::events,
        jobs::resume,
        uploads::store,
        uploads::delete,
        zarr::root,
        zarr::key,
        writes::data,
        writes::put_node,
        writes::delete_node,
        writes::put_key,
        writes::delete_key,
        writes::delete_root,
        versions::merge,
        versions::diff,
        versions::reset,
        versions::revert,
        versions::cherry_pick,
        transactions::open,
        transactions::show,
        transactions::abort,
        transactions::commit,
        transactions::move_node,
        transactions::root_node,
        transactions::put_root_node,
        transactions::node,
        transactions::put_node,
        transactions::delete_node,
        transactions::read_data,
        transactions::write_data,
        transactions::zarr_root,
        transactions::zarr_key,
        transactions::put_zarr_key,
        transactions::delete_zarr_key,
        transactions::delete_zarr_root
    ),
    components(schemas(Problem)),
    modifiers(&Protected)
)]
struct Contract;

/// Says of every operation who may ask for it, and how he is refused.
struct Protected;

impl Modify for Protected {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "An API key, or a JWT of an issuer that the service knows",
            ))
            .build();
        let basic = Http::builder()
            .scheme(HttpAuthScheme::Basic)
            .description(Some(
                "The same as the password, for clients that have nothing else",
            ))
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("basic", SecurityScheme::Http(basic));
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                if let Declared::Needs(need) = routes::need(&method, path) {
                    protect(operation, need, path);
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::HEAD, &mut item.head),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    let found = all.into_iter();
    found
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
        .collect()
}

fn protect(operation: &mut Operation, need: Need, path: &str) {
    let Some(role) = need.text() else {
        return;
    };
    let any = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    // A service that asks nobody needs none.
    let optional = SecurityRequirement::default();
    operation.security = Some(vec![any("bearer"), any("basic"), optional]);
    let extensions = ExtensionsBuilder::new().add("x-quarr-role", role);
    operation.extensions = Some(extensions.build());
    let mut refusals = vec![
        (
            "401",
            "Credentials are needed, or not valid",
            Some("WWW-Authenticate"),
        ),
        ("403", "The principal may not do this", None),
        ("429", "Too many requests", Some("Retry-After")),
        (
            "503",
            "The service, its store or an issuer is busy or away",
            Some("Retry-After"),
        ),
    ];
    if path.contains('{') {
        refusals.push((
            "404",
            "There is no such thing, or the principal may not know",
            None,
        ));
    }
    for (status, description, header) in refusals {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let mut response = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content);
        if let Some(name) = header {
            response = response.header(name, HeaderBuilder::new().build());
        }
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(response.build()));
    }
}

/// The OpenAPI document.
pub fn document() -> Value {
    let generated = serde_json::to_value(Contract::openapi());
    complete(generated.unwrap_or_default())
}
