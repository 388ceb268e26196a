//! The transparency log, as C2SP `tlog-tiles` serves it, and receipts.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use storage::Repository;
use storage::tlog::{Receipt, Tile};

use super::answer::ok;
use super::extract::{Path, Shared};
use crate::error::{Failure, Problem};
use crate::state::State;

const TEXT: &str = "text/plain; charset=utf-8";
/// What follows from the log never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// A checkpoint is soon not the newest any more.
const SHORT: HeaderValue = HeaderValue::from_static("no-cache");

fn cached(mut response: Response, how: HeaderValue) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, how);
    response
}

/// What there is to say where a log has no signed head.
fn not_published() -> Failure {
    Failure::not_found(
        "the log of this repository is not published: quarr key create makes a key for it",
    )
}

/// A part of the transparency log: `checkpoint`, `tile/…`, `tile/entries/…`, or `receipts/7`, the
/// proof that log entry 7 is in it.
#[utoipa::path(get, path = "/v1/repos/{repository}/tlog/{tile}",
    params(("repository" = String, Path), ("tile" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn part(
    Shared(state): Shared<State>,
    Path((name, path)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let repository = state.repository(&name.parse()?).await?;
    if path == "checkpoint" {
        let checkpoint = repository.published().await?.ok_or_else(not_published)?;
        return Ok(cached(ok(TEXT, checkpoint.to_string()), SHORT));
    }
    if let Some(sequence) = path.strip_prefix("receipts/") {
        let sequence = sequence.parse().map_err(|_| {
            let detail = format!("{sequence:?} is not the number of a log entry");
            Failure::bad_request("tile", detail)
        })?;
        return answer(&receipt(&state, &repository, sequence).await?);
    }
    let tile: Tile = path
        .parse()
        .map_err(|reason: String| Failure::bad_request("tile", reason))?;
    match repository.tile(tile).await? {
        Some(bytes) => Ok(cached(ok("application/octet-stream", bytes), IMMUTABLE)),
        None => Err(Failure::not_found(format!("the log has no {tile}"))),
    }
}

/// The receipt of a commit: the proof that the log entry that put a ref at it is in the
/// transparency log, with that entry.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/receipt",
    params(("repository" = String, Path), ("reference" = String, Path)),
    responses((status = 200, content_type = "text/plain", body = String), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn commit_receipt(
    Shared(state): Shared<State>,
    Path((name, reference)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let pinned = state.snapshot(&name, &reference).await?;
    let repository = pinned.snapshot.repository();
    let sequence = repository.entry_of_commit(pinned.snapshot.id()).await?;
    answer(&receipt(&state, repository, sequence).await?)
}

fn answer(receipt: &Receipt) -> Result<Response, Failure> {
    Ok(cached(ok(TEXT, receipt.to_string()), SHORT))
}

async fn receipt(
    state: &State,
    repository: &Repository,
    sequence: u64,
) -> Result<Receipt, Failure> {
    if let Some(receipt) = repository.receipt_with_entry(sequence).await? {
        return Ok(receipt);
    }
    // It may not be signed yet.
    state.publish(repository).await?;
    let receipt = repository.receipt_with_entry(sequence).await?;
    receipt.ok_or_else(not_published)
}
