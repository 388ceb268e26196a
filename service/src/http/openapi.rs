//! The contract: an OpenAPI document generated from the handlers.

mod complete;

use serde_json::Value;
use utoipa::OpenApi;

use super::{
    data, explain, jobs, metrics, points, proofs, reduce, refs, repositories, status, tlog,
    transactions, uploads, versions, writes, zarr,
};
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
    components(schemas(Problem))
)]
struct Contract;

/// The OpenAPI document.
pub fn document() -> Value {
    let generated = serde_json::to_value(Contract::openapi());
    complete(generated.unwrap_or_default())
}
