//! What requests under an idempotency key led to, where no log of a repository tells.
//!
//! One record a key, put if absent:
//!
//! ```text
//! .quarr/requests/<hash of scope and key>    {"request": <hash>, "result": <text>}
//! ```
//!
//! A record is kept for at least a day, as the log keeps its keys.

use array::hash::{Hash, Kind, hash};
use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use storage::{Idempotency, Put};

use crate::error::Failure;
use crate::state::State;

const FOLDER: &str = ".quarr/requests";
/// How long a key stands for its first request.
const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

#[derive(Serialize, Deserialize)]
struct Record {
    /// What was asked for: another request may not reuse the key.
    request: Hash,
    /// What it led to.
    result: String,
}

/// `scope` is where the key is valid: a route, a transaction.
fn key(scope: &str, idempotency: &Idempotency) -> String {
    let name = json!([scope, idempotency.key]);
    let name = hash(Kind::Request, &array::json::canonical_bytes(&name));
    format!("{FOLDER}/{name}")
}

/// What the first request under this key led to, if there was one.
///
/// # Errors
/// 422 if that was another request, 500 if the record is damaged, 503 if the store failed.
pub(crate) async fn first(
    state: &State,
    scope: &str,
    idempotency: &Idempotency,
) -> Result<Option<String>, Failure> {
    let key = key(scope, idempotency);
    let Some(bytes) = state.store().get(&key).await? else {
        return Ok(None);
    };
    let corrupt = |error: serde_json::Error| storage::Error::Corrupt {
        key,
        reason: error.to_string(),
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(corrupt)?;
    match record.request == idempotency.request {
        true => Ok(Some(record.result)),
        false => Err(Failure::key_reused(&idempotency.key)),
    }
}

/// Says what a request under this key led to, and gives what the first one did: of two at the same
/// time, one is first.
///
/// # Errors
/// As [`first`].
pub(crate) async fn remember(
    state: &State,
    scope: &str,
    idempotency: &Idempotency,
    result: &str,
) -> Result<String, Failure> {
    let record = Record {
        request: idempotency.request,
        result: result.to_owned(),
    };
    let bytes = serde_json::to_vec(&record);
    let bytes = bytes.map_err(|error| Failure::broken(error.to_string()))?;
    let key = key(scope, idempotency);
    match state.store().put_if_absent(&key, bytes.into()).await? {
        Put::Created => Ok(record.result),
        // Its own, if the answer was lost.
        Put::AlreadyThere => match first(state, scope, idempotency).await? {
            Some(first) => Ok(first),
            None => Err(Failure::busy("the store lost a record: try again")),
        },
    }
}

/// Deletes the records of keys that stand for nothing any more.
///
/// # Errors
/// 503 if the store failed.
pub(crate) async fn delete_old(state: &State) -> Result<(), Failure> {
    let now = Utc::now();
    let listed = state.store().list_with_times(FOLDER).await?;
    let old = listed
        .into_iter()
        .filter(|(_, _, time)| now - *time > KEPT_FOR);
    let old: Vec<String> = old.map(|(key, ..)| key).collect();
    Ok(state.store().delete(old).await?)
}
