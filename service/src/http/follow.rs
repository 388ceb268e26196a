//! Following a log as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use storage::Repository;
use tracing::debug;

use super::refs::entry_json;
use crate::error::Failure;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often the store is asked for what came.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Most entries that are read at once.
const STEP: usize = 100;

/// Whether events are asked for.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().unwrap_or("").trim() == "text/event-stream")
}

/// The entry that a client which lost its connection saw last.
///
/// # Errors
/// 400 if `Last-Event-ID` is no number.
pub(crate) fn last_seen(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(id) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let number = id.to_str().ok().and_then(|id| id.parse().ok());
    let wrong = || Failure::bad_request("Last-Event-ID", "it is not the number of an entry");
    number.map(Some).ok_or_else(wrong)
}

/// The entries after `after`, and those to come as they come, one an event whose id is the entry's
/// number. What fails on the way ends the events: clients connect again, and go on from the last.
///
/// # Errors
/// Those of reading the log, before the first event.
pub(crate) async fn events(
    repository: Repository,
    after: Option<u64>,
) -> Result<Response, Failure> {
    let first = read(&repository, after).await?;
    let rest = stream::unfold(
        (repository, last(&first).or(after)),
        |(repository, after)| async move {
            let found = next(&repository, after).await?;
            let after = last(&found).or(after);
            Some((found, (repository, after)))
        },
    );
    let events = stream::iter([first]).chain(rest).flat_map(stream::iter);
    let events = events.map(|entry| Ok::<_, Infallible>(entry.event));
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response();
    let value = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    Ok(response)
}

struct Entry {
    sequence: u64,
    event: Event,
}

fn last(entries: &[Entry]) -> Option<u64> {
    entries.last().map(|entry| entry.sequence)
}

/// Waits for entries; `None` if they cannot be read any more.
async fn next(repository: &Repository, after: Option<u64>) -> Option<Vec<Entry>> {
    loop {
        match read(repository, after).await {
            Ok(found) if found.is_empty() => tokio::time::sleep(POLL_INTERVAL).await,
            Ok(found) => return Some(found),
            Err(failure) => {
                let reason = &failure.problem().detail;
                debug!(%reason, "a log cannot be followed any more");
                return None;
            }
        }
    }
}

async fn read(repository: &Repository, after: Option<u64>) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for entry in repository.log(after, STEP).await? {
        let data = entry_json(repository, &entry).await?;
        entries.push(Entry {
            sequence: entry.sequence,
            event: Event::default()
                .id(entry.sequence.to_string())
                .event("entry")
                .data(data.to_string()),
        });
    }
    Ok(entries)
}
