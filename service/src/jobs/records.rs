//! Jobs as they are stored: one document each beside the repositories, under `.quarr/jobs/`.

use array::hash::{Kind, hash};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use super::{Job, JobSpec};
use crate::error::Failure;
use crate::state::State;

/// Folder of the records in a store.
const FOLDER: &str = ".quarr/jobs";
/// Folder of the ids of jobs that commands began, by what they do: a command that is given again finds
/// its job there.
const COMMANDS: &str = ".quarr/commands";

/// A job, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) job: Job,
    /// From where another process goes on, as the kind of job has it.
    pub(super) resume: Value,
    /// The process that works on it, for others of the same machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) process: Option<Process>,
    /// Whether its process gave it up for any other to go on with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_free: bool,
}

/// A process, as others of the same machine know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// One boot of one machine and one space of process ids.
    pub(super) machine: String,
    pub(super) id: u32,
}

impl Process {
    /// This one, where the system tells.
    pub(super) fn this() -> Option<Self> {
        Some(Self {
            machine: machine()?,
            id: std::process::id(),
        })
    }

    /// Whether it is known to be gone.
    pub(super) fn is_gone(&self) -> bool {
        machine().is_some_and(|machine| machine == self.machine)
            && !std::path::Path::new(&format!("/proc/{}", self.id)).exists()
    }
}

fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), space.display()))
}

pub(super) fn key(id: Uuid) -> String {
    format!("{FOLDER}/{id}.json")
}

pub(super) fn encode(record: &Record) -> Result<bytes::Bytes, Failure> {
    let bytes = serde_json::to_vec(record);
    Ok(bytes
        .map_err(|error| Failure::bad_request("body", error.to_string()))?
        .into())
}

/// The record of a job, if there is one.
///
/// # Errors
/// 500 if it makes no sense, 503 if the store failed.
pub(super) async fn stored(state: &State, id: Uuid) -> Result<Option<Record>, Failure> {
    let key = key(id);
    let Some(bytes) = state.store().get(&key).await? else {
        return Ok(None);
    };
    let reason = |error: serde_json::Error| storage::Error::Corrupt {
        key,
        reason: error.to_string(),
    };
    Ok(Some(serde_json::from_slice(&bytes).map_err(reason)?))
}

fn command_key(spec: &JobSpec) -> Result<String, Failure> {
    let document = serde_json::to_value(spec);
    let document = document.map_err(|error| Failure::broken(error.to_string()))?;
    let name = hash(Kind::Request, &array::json::canonical_bytes(&document));
    Ok(format!("{COMMANDS}/{name}"))
}

/// Has [`remembered`] find a job.
///
/// # Errors
/// 503 if the store failed.
pub(super) async fn remember(state: &State, job: &Job) -> Result<(), Failure> {
    let (key, id) = (command_key(&job.spec)?, job.id.to_string());
    Ok(state.store().overwrite(&key, id.into()).await?)
}

/// The job a command began last for this work, if it is known.
///
/// # Errors
/// 503 if the store failed.
pub(super) async fn remembered(state: &State, spec: &JobSpec) -> Result<Option<Record>, Failure> {
    let Some(id) = state.store().get(&command_key(spec)?).await? else {
        return Ok(None);
    };
    match std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok()) {
        Some(id) => stored(state, id).await,
        None => Ok(None),
    }
}

/// Has [`remembered`] not find a job any more.
pub(super) async fn forget(state: &State, job: &Job) {
    let forgotten = async {
        let key = command_key(&job.spec)?;
        Ok::<_, Failure>(state.store().delete(vec![key]).await?)
    };
    if let Err(failure) = forgotten.await {
        let reason = &failure.problem().detail;
        warn!(job = %job.id, %reason, "what leads to a job that has ended cannot be deleted");
    }
}

/// All records, the oldest first. Those that make no sense are left out.
///
/// # Errors
/// 503 if the store failed.
pub(super) async fn all(state: &State) -> Result<Vec<Record>, Failure> {
    let mut found = Vec::new();
    for id in ids(state).await? {
        match stored(state, id).await {
            Ok(record) => found.extend(record),
            Err(failure) if failure.is_damage() => {
                let reason = &failure.problem().detail;
                warn!(job = %id, %reason, "the record of a job makes no sense");
            }
            Err(failure) => return Err(failure),
        }
    }
    found.sort_by_key(|record| record.job.created);
    Ok(found)
}

async fn ids(state: &State) -> Result<Vec<Uuid>, Failure> {
    let listed = state.store().list(FOLDER).await?;
    let id = |(key, _): &(String, u64)| {
        let name = key.strip_prefix(FOLDER)?.strip_prefix('/')?;
        name.strip_suffix(".json")?.parse().ok()
    };
    Ok(listed.iter().filter_map(id).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jobs::{JobReport, JobState, Origin};

    #[test]
    fn records_without_what_came_later_are_read() {
        let record = json!({
            "id": "00000000-0000-4000-8000-000000000000",
            "spec": { "kind": "verify", "repository": "demo", "deep": true },
            "state": "done",
            "created": "2026-01-01T00:00:00Z",
            "updated": "2026-01-01T00:00:01Z",
            "owner": "00000000-0000-4000-8000-000000000001",
            "progress": { "chunks": 3, "chunk_bytes": 12, "total_bytes": 12 },
            "report": {
                "damage": [], "entries": 1, "commits": 1, "objects": 1, "chunks": 3,
                "chunk_bytes": 12, "unreferenced": 0,
            },
            "error": null,
            "resume": { "of": "", "deep": true },
        });
        let record: Record = serde_json::from_value(record).unwrap();
        assert_eq!(record.job.state, JobState::Done);
        assert_eq!(record.job.begun_by, Origin::Service);
        assert_eq!(record.job.progress.bytes, 12);
        assert!(matches!(record.job.report, Some(JobReport::Verify(_))));
        let again: Record = serde_json::from_slice(&encode(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }
}
