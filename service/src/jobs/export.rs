//! Exports and mirrors as jobs.
//!
//! ```text
//! export:  destination is free ─► commit noted ─► written whole, then named ─► done
//! publish: head of the branch ─► what differs from the mirror is written ─► done
//! ```
//!
//! An export that was stopped begins again, of the commit it began with, and replaces what it may have
//! put at its destination just before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use array::NodePath;
use compute::cf::Decode;
use futures::future::BoxFuture;
use importers::export::{
    self, Destination, ExportFormat, ExportOptions, ExportProgress, PublishOptions, PublishProgress,
};
use serde::{Deserialize, Serialize};
use storage::{Outbox, Store};

use super::{JobReport, Kind, Origin, ProgressInfo, Work};
use crate::error::Failure;
use crate::state::State;

/// How hard NetCDF files are compressed unless it is said.
const DEFLATE_LEVEL: u8 = 4;

/// What to export, where to, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportSpec {
    /// The repository.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub repository: String,
    /// A file, a directory or the URL of one in a bucket, which the service may write to. The end of
    /// its name tells the format: `.nc`, `.npy`, `.npz`, `.safetensors`, `.parquet`, `.csv`; Zarr v3
    /// otherwise.
    pub destination: String,
    /// A branch, tag, commit, `x~n` or `x@time`; `main` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The group or array to export; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What of one array: `0:24,5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// The format whatever the name: `zarr`, `zarr2`, `netcdf`, `npy`, `npz`, `safetensors`,
    /// `parquet`, `csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Replace what is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// Arrays of a group to export; their coordinates come along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Labels along dimensions, by their coordinates: `{"time": "2020-01/2020-03"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sel: BTreeMap<String, String>,
    /// Positions along dimensions: `{"time": "0:24"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub isel: BTreeMap<String, String>,
    /// Missing and packed values: `raw`, `mask` or `cf` (masked and scaled); `cf` for tables, else
    /// `raw`, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<String>,
    /// Dimensions that a NetCDF file can grow along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlimited: Vec<String>,
    /// How hard a NetCDF file is compressed: 0 (not at all) to 9; 4 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9)]
    pub deflate: Option<u8>,
}

/// What to mirror, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishSpec {
    /// The repository.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub repository: String,
    /// A directory or the URL of a prefix in a bucket, which the service may write to: empty, or a
    /// mirror made before.
    pub destination: String,
    /// The branch; `main` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    pub branch: Option<String>,
    /// The group or array that is the top of the mirror; the root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Delete whatever else is there, and copy everything anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// What an export wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportReport {
    /// The commit that was exported.
    pub commit: String,
    /// The format.
    pub format: String,
    /// Arrays.
    pub arrays: u64,
    /// Chunks and shards; boxes of cells where a format has none.
    pub chunks: u64,
    /// Bytes of them: as stored where chunks are copied, else uncompressed.
    pub bytes: u64,
}

/// What a publication did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublishReport {
    /// The commit the mirror is at.
    pub commit: String,
    /// Chunks written.
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Metadata documents written.
    pub documents: u64,
    /// Objects deleted.
    pub deleted: u64,
}

/// An export that has begun.
#[derive(Serialize, Deserialize)]
struct Begun {
    commit: String,
}

impl ExportSpec {
    fn reference(&self) -> &str {
        self.reference.as_deref().unwrap_or("main")
    }

    /// What and how to export to `destination`.
    ///
    /// # Errors
    /// 400 with the member that makes no sense.
    pub(crate) fn options(&self, destination: &Destination) -> Result<ExportOptions, Failure> {
        let invalid = |what, reason: String| Failure::bad_request(what, reason);
        let format = match &self.format {
            Some(name) => name.parse().map_err(|reason| invalid("format", reason))?,
            None => ExportFormat::of_destination(destination)?,
        };
        let mut options = ExportOptions::new(format);
        options.variables.clone_from(&self.variables);
        let slice = self.slice.as_ref().map(|slice| slice.parse()).transpose();
        options.slice = slice.map_err(|error: array::Error| invalid("slice", error.to_string()))?;
        for (dimension, labels) in &self.sel {
            options.select_labels(dimension, labels)?;
        }
        for (dimension, positions) in &self.isel {
            options.select_positions(dimension, positions)?;
        }
        let is_table = matches!(format, ExportFormat::Parquet | ExportFormat::Csv);
        options.decode = match self.decode.as_deref() {
            Some("cf") => Decode::Cf,
            Some("mask") => Decode::Mask,
            Some("raw") => Decode::Raw,
            None if is_table => Decode::Cf,
            None => Decode::Raw,
            Some(other) => {
                let reason = format!("{other:?} is none of raw, mask, cf");
                return Err(invalid("decode", reason));
            }
        };
        options.overwrite = self.overwrite;
        options.unlimited.clone_from(&self.unlimited);
        options.deflate_level = self.deflate.unwrap_or(DEFLATE_LEVEL);
        if options.deflate_level > 9 {
            return Err(invalid("deflate", "the most is 9".to_owned()));
        }
        Ok(options)
    }
}

/// The path of a node; the root if there is none.
fn node_path(path: Option<&String>) -> Result<NodePath, Failure> {
    match path {
        Some(path) => Ok(path.parse()?),
        None => Ok(NodePath::root()),
    }
}

impl Kind for ExportSpec {
    fn check<'a>(&'a self, state: &'a State, origin: Origin) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            check_writable(state, origin, &self.destination).await?;
            let destination = Destination::parse(&self.destination)?;
            let options = self.options(&destination)?;
            let pinned = state.snapshot(&self.repository, self.reference()).await?;
            pinned
                .snapshot
                .node(&node_path(self.path.as_ref())?)
                .await?;
            if !options.overwrite && destination.is_taken(options.format).await? {
                let what = self.destination.clone();
                return Err(importers::Error::Exists { what }.into());
            }
            Ok(())
        })
    }

    fn run<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<JobReport, Failure>> {
        Box::pin(async move {
            let state = work.state();
            check_writable(state, work.origin(), &self.destination).await?;
            let destination = Destination::parse(&self.destination)?;
            let mut options = self.options(&destination)?;
            let begun: Option<Begun> = work.noted();
            let reference = begun
                .as_ref()
                .map_or(self.reference(), |begun| &begun.commit);
            let snapshot = state.snapshot(&self.repository, reference).await?.snapshot;
            if begun.is_some() {
                // Nothing was there before: what is there now, this job has put there.
                options.overwrite = true;
            } else {
                if !options.overwrite && destination.is_taken(options.format).await? {
                    let what = self.destination.clone();
                    return Err(importers::Error::Exists { what }.into());
                }
                let commit = snapshot.id().to_string();
                work.note(&Begun { commit });
                work.save().await?;
            }
            let node = snapshot.node(&node_path(self.path.as_ref())?).await?;
            let chunks = AtomicU64::new(0);
            let show = |progress: &ExportProgress| {
                work.show(ProgressInfo {
                    bytes: progress.bytes,
                    total_bytes: progress.total_bytes,
                    chunks: chunks.fetch_add(1, Ordering::Relaxed) + 1,
                    current: Some(progress.array.clone()),
                    ..ProgressInfo::default()
                });
            };
            let engine = state.engine();
            let exported =
                export::export(engine, &snapshot, node, &options, &destination, &show).await?;
            Ok(JobReport::Export(ExportReport {
                commit: snapshot.id().to_string(),
                format: options.format.name().to_owned(),
                arrays: exported.arrays,
                chunks: exported.chunks,
                bytes: exported.bytes,
            }))
        })
    }
}

impl PublishSpec {
    fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or("main")
    }
}

impl Kind for PublishSpec {
    fn check<'a>(&'a self, state: &'a State, origin: Origin) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            check_writable(state, origin, &self.destination).await?;
            let pinned = state.snapshot(&self.repository, self.branch()).await?;
            pinned
                .snapshot
                .node(&node_path(self.path.as_ref())?)
                .await?;
            Ok(())
        })
    }

    fn run<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<JobReport, Failure>> {
        Box::pin(async move {
            let state = work.state();
            check_writable(state, work.origin(), &self.destination).await?;
            let options = PublishOptions {
                branch: self.branch().to_owned(),
                path: node_path(self.path.as_ref())?,
                force: self.force,
            };
            let outbox = outbox(&self.destination)?;
            let snapshot = state
                .snapshot(&self.repository, self.branch())
                .await?
                .snapshot;
            let show = |progress: &PublishProgress| {
                work.show(ProgressInfo {
                    bytes: progress.bytes,
                    total_bytes: progress.total_bytes,
                    chunks: progress.chunks,
                    current: Some(progress.array.clone()),
                    ..ProgressInfo::default()
                });
            };
            let published =
                export::publish(state.engine(), &snapshot, &options, &outbox, &show).await?;
            Ok(JobReport::Publish(PublishReport {
                commit: published.commit.to_string(),
                chunks: published.chunks,
                bytes: published.bytes,
                documents: published.documents,
                deleted: published.deleted,
            }))
        })
    }
}

/// Where a mirror is written: a directory, made if it is missing, or a prefix of a bucket.
///
/// # Errors
/// 400 if it is not understood, 422 if the directory cannot be made.
pub(crate) fn outbox(destination: &str) -> Result<Outbox, Failure> {
    let store = match Destination::parse(destination)? {
        Destination::Bucket(store) => store,
        Destination::Local(path) => {
            std::fs::create_dir_all(&path).map_err(|source| importers::Error::Write {
                path: path.clone(),
                source,
            })?;
            let text = path.to_str().ok_or_else(|| {
                Failure::bad_request("destination", format!("{} is no text", path.display()))
            })?;
            Store::open(text)?
        }
    };
    Ok(Outbox::new(store))
}

/// Fails unless a job may write to `destination`: a command where its caller may, a service where it was
/// told.
async fn check_writable(state: &State, origin: Origin, destination: &str) -> Result<(), Failure> {
    if origin == Origin::Command {
        return Ok(());
    }
    let allowed = state.jobs().settings().exports.clone();
    let refused = |reason: String| {
        Failure::forbidden(format!(
            "{reason}: have it served with --export-allow PREFIX"
        ))
        .about("destination")
    };
    let local = destination.strip_prefix("file://").unwrap_or(destination);
    let wanted = match local.contains("://") {
        true => destination.to_owned(),
        false => {
            let path = PathBuf::from(local);
            let resolved = tokio::task::spawn_blocking(move || resolved(&path)).await;
            let resolved = resolved.map_err(|error| Failure::broken(error.to_string()))?;
            resolved.map_err(|reason| refused(format!("{destination:?} {reason}")))?
        }
    };
    let checked = tokio::task::spawn_blocking(move || allowed.check_url(&wanted)).await;
    match checked.map_err(|error| Failure::broken(error.to_string()))? {
        Err(error @ storage::Error::Forbidden { .. }) => Err(refused(error.to_string())),
        Err(error) => Err(Failure::bad_request("destination", error.to_string())),
        Ok(()) => Ok(()),
    }
}

/// A path whose folder exists, without symbolic links.
fn resolved(path: &Path) -> Result<String, String> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err("names no file".to_owned());
    };
    if !path.is_absolute() {
        return Err("is no absolute path and no URL".to_owned());
    }
    let folder = folder
        .canonicalize()
        .map_err(|error| format!("is in no folder: {error}"))?;
    Ok(folder.join(name).to_string_lossy().into_owned())
}
