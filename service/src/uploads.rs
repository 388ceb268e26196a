//! Files that were sent to be imported: parts in the store, under `.quarr/uploads/`.
//!
//! ```text
//! body ─► part 0, part 1, … ─► upload.json (length, SHA-256) ─► a job's scratch file ─► deleted
//! ```
//!
//! An upload is there once its document is. It goes when the job that reads it ends, or after a day.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;
use uuid::Uuid;

use crate::error::Failure;
use crate::state::State;

/// Folder of the uploads in a store.
const FOLDER: &str = ".quarr/uploads";
/// Bytes of a part, which is in memory while it is stored.
const PART_BYTES: usize = 8 << 20;
/// How long an upload stays that no job has read.
const KEPT_FOR: TimeDelta = TimeDelta::days(1);
/// Longest name, as file systems have it.
const MAX_NAME_BYTES: usize = 200;

/// A file that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Upload {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// What a job takes it by: `upload:` and the id.
    pub source: String,
    /// What the file is called.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// When it was sent.
    #[schema(value_type = String)]
    pub created: DateTime<Utc>,
}

/// The id in `upload:<id>`; `None` for other sources.
///
/// # Errors
/// 400 if it is no id.
pub fn upload_id(source: &str) -> Result<Option<Uuid>, Failure> {
    let Some(id) = source.strip_prefix("upload:") else {
        return Ok(None);
    };
    let wrong = |_| Failure::bad_request("sources", format!("{id:?} is not the id of an upload"));
    id.parse().map(Some).map_err(wrong)
}

fn folder(id: Uuid) -> String {
    format!("{FOLDER}/{id}")
}

fn part_key(id: Uuid, number: u64) -> String {
    format!("{}/{number:08}", folder(id))
}

fn document_key(id: Uuid) -> String {
    format!("{}/upload.json", folder(id))
}

/// Stores a file as its bytes come.
///
/// # Errors
/// 413 past `limit` bytes, 400 if the bytes are not those `sha256` names or do not come, 503 if the
/// store failed. Nothing of it stays then.
pub async fn store<E: std::fmt::Display>(
    state: &State,
    name: &str,
    sha256: Option<&str>,
    limit: u64,
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Upload, Failure> {
    let id = Uuid::new_v4();
    let stored = store_parts(state, id, (name, sha256), limit, body).await;
    if stored.is_err() {
        delete(state, id).await;
    }
    stored
}

async fn store_parts<E: std::fmt::Display>(
    state: &State,
    id: Uuid,
    (name, sha256): (&str, Option<&str>),
    limit: u64,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Upload, Failure> {
    let name = file_name(name)?;
    let (mut hasher, mut length, mut parts) = (Sha256::new(), 0u64, 0u64);
    let mut part = BytesMut::new();
    while let Some(bytes) = body.next().await {
        let mut bytes = bytes.map_err(|error| Failure::bad_request("body", error.to_string()))?;
        length = length.saturating_add(bytes.len() as u64);
        if length > limit {
            let detail = format!("the file has over {limit} bytes, the most that may be sent");
            return Err(Failure::too_large(limit, detail));
        }
        hasher.update(&bytes);
        while !bytes.is_empty() {
            let taken = bytes.split_to(bytes.len().min(PART_BYTES - part.len()));
            part.extend_from_slice(&taken);
            if part.len() == PART_BYTES {
                let full = std::mem::take(&mut part).freeze();
                state
                    .store()
                    .put_immutable(&part_key(id, parts), full)
                    .await?;
                parts += 1;
            }
        }
    }
    if !part.is_empty() {
        let last = part.freeze();
        state
            .store()
            .put_immutable(&part_key(id, parts), last)
            .await?;
    }
    let found = format!("{:x}", hasher.finalize());
    if let Some(wanted) = sha256.filter(|wanted| !wanted.eq_ignore_ascii_case(&found)) {
        let detail = format!("the SHA-256 of what came is {found}, not {wanted}: send it again");
        return Err(Failure::bad_request("sha256", detail));
    }
    let upload = Upload {
        id,
        source: format!("upload:{id}"),
        name,
        bytes: length,
        sha256: found,
        created: Utc::now(),
    };
    let document = serde_json::to_vec(&upload);
    let document = document.map_err(|error| Failure::broken(error.to_string()))?;
    state
        .store()
        .put_immutable(&document_key(id), document.into())
        .await?;
    Ok(upload)
}

/// A name that is one in any folder.
fn file_name(name: &str) -> Result<String, Failure> {
    let is_plain = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !matches!(name, "." | "..")
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '/' | '\\'));
    let wrong = || Failure::bad_request("name", format!("{name:?} is not the name of a file"));
    is_plain.then(|| name.to_owned()).ok_or_else(wrong)
}

/// An upload.
///
/// # Errors
/// 404 if there is none.
pub async fn find(state: &State, id: Uuid) -> Result<Upload, Failure> {
    let key = document_key(id);
    let Some(bytes) = state.store().get(&key).await? else {
        let detail = format!("there is no upload {id}: it was imported, or is over a day old");
        return Err(Failure::not_found(detail).about("sources"));
    };
    let corrupt = |error: serde_json::Error| storage::Error::Corrupt {
        key,
        reason: error.to_string(),
    };
    Ok(serde_json::from_slice(&bytes).map_err(corrupt)?)
}

/// An upload as a local file, which goes with this.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// The file.
    pub path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes an upload to a local file, part by part.
///
/// # Errors
/// 404 if there is none, 500 if it is damaged, 503 if the store or the disk failed.
pub async fn fetch(state: &State, id: Uuid) -> Result<(Upload, Scratch), Failure> {
    let upload = find(state, id).await?;
    let folder = std::env::temp_dir().join(format!("quarr-upload-{}", Uuid::new_v4()));
    let failed = |path: &Path, error: std::io::Error| {
        Failure::busy(format!("cannot write {}: {error}", path.display()))
    };
    private_folder(&folder).map_err(|error| failed(&folder, error))?;
    // A name may come from a record somebody else wrote.
    let path = folder.join(file_name(&upload.name)?);
    let scratch = Scratch { folder, path };
    let path = &scratch.path;
    let mut file = std::fs::File::create_new(path).map_err(|error| failed(path, error))?;
    let (mut hasher, mut length) = (Sha256::new(), 0u64);
    for number in 0..upload.bytes.div_ceil(PART_BYTES as u64) {
        let part = state.store().get_existing(&part_key(id, number)).await?;
        hasher.update(&part);
        length = length.saturating_add(part.len() as u64);
        file = tokio::task::spawn_blocking(move || file.write_all(&part).map(|()| file))
            .await
            .map_err(|error| Failure::broken(error.to_string()))?
            .map_err(|error| failed(path, error))?;
    }
    if length != upload.bytes || format!("{:x}", hasher.finalize()) != upload.sha256 {
        let (key, reason) = (
            document_key(id),
            "its parts are not what was sent".to_owned(),
        );
        return Err(storage::Error::Corrupt { key, reason }.into());
    }
    Ok((upload, scratch))
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Deletes an upload. What cannot be deleted goes after a day.
pub async fn delete(state: &State, id: Uuid) {
    let deleted = async {
        let keys = state.store().list(&folder(id)).await?;
        let keys = keys.into_iter().map(|(key, _)| key).collect();
        state.store().delete(keys).await
    };
    if let Err(error) = deleted.await {
        warn!(upload = %id, %error, "an upload cannot be deleted");
    }
}

/// Deletes uploads nobody has read for a day, but for those `in_use`.
///
/// # Errors
/// 503 if the store failed.
pub async fn delete_old(state: &State, in_use: &[Uuid]) -> Result<(), Failure> {
    let mut newest = std::collections::BTreeMap::new();
    for (key, _, time) in state.store().list_with_times(FOLDER).await? {
        let name = key
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('/').nth(1));
        if let Some(id) = name.and_then(|name| name.parse::<Uuid>().ok()) {
            let at = newest.entry(id).or_insert(time);
            *at = time.max(*at);
        }
    }
    let now = Utc::now();
    for (id, time) in newest {
        if now - time > KEPT_FOR && !in_use.contains(&id) {
            delete(state, id).await;
        }
    }
    Ok(())
}
