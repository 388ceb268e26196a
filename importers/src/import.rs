//! Imports: a source file becomes one commit.
//!
//! ```text
//! open ─► stage groups and arrays ─► fill_arrays: every shard read, encoded, stored ─► commit
//! ```
//!
//! Nothing is visible before the commit, so a failed import leaves the log as it was. Nothing of
//! the file is lost silently: what has no place in Zarr fails the import unless the user names it
//! to be skipped.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use array::{CodecMetadata, GroupMetadata, NodePath};
use codecs::ArrayCodec;
use serde_json::{Map, Value, json};
use storage::{CommitId, CommitOptions, RefName, Repository, Transaction};

use crate::Error;
use crate::chunking::{self, Access, Lengths};
use crate::fill_arrays::{Progress, Target, fill_arrays};
use crate::skip::{Skip, source_path};
use crate::source::{Source, Variable};
use crate::zarr::{self, Dropped};

/// What to import, where to, and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The source file.
    pub source: PathBuf,
    /// The group to import into; created if it is missing.
    pub group: NodePath,
    /// The branch to commit to.
    pub branch: RefName,
    /// Who commits.
    pub author: String,
    /// The commit's message; one that names the file if empty.
    pub message: String,
    /// How the arrays will be read.
    pub access: Access,
    /// Lengths of inner chunks by dimension name.
    pub inner_lengths: Lengths,
    /// Lengths of shards by dimension name.
    pub shard_lengths: Lengths,
    /// What compresses inner chunks.
    pub codecs: Vec<CodecMetadata>,
    /// What to leave out: variables by path or name, attributes by `path@name`.
    pub skip: BTreeSet<String>,
    /// Bytes of shards in memory at once.
    pub memory_bytes: u64,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The commit.
    pub commit: CommitId,
    /// Paths of the arrays.
    pub arrays: Vec<NodePath>,
    /// Uncompressed bytes read.
    pub bytes: u64,
    /// Attributes that were left out.
    pub dropped: Vec<Dropped>,
}

/// Checks whatever can be checked without a repository: that the file can be read, that the options
/// fit it, and that everything in it has a place. Blocks.
///
/// # Errors
/// Those of [`import()`] that do not come from the repository or from values.
pub fn check(options: &ImportOptions) -> Result<(), Error> {
    Plan::new(options).map(drop)
}

/// Imports a file into `repository`.
///
/// # Errors
/// What is wrong with the file or the options; [`Error::Storage`] if a node of the same name is
/// there already or the commit failed. The branch is unchanged then.
pub async fn import(
    repository: &Repository,
    options: &ImportOptions,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<Imported, Error> {
    let wanted = options.clone();
    let plan = blocking(move || Plan::new(&wanted)).await?;
    let transaction = Arc::new(Transaction::begin(repository, &options.branch).await?);
    plan.stage(&transaction).await?;
    let memory = options.memory_bytes;
    let bytes = fill_arrays(&plan.source, &transaction, &plan.arrays, memory, progress).await?;
    let transaction = Arc::into_inner(transaction).ok_or(Error::Cancelled)?;
    let commit = transaction
        .commit(commit_options(options, plan.source.format(), &plan.dropped))
        .await?;
    Ok(Imported {
        commit,
        arrays: plan.arrays.into_iter().map(|array| array.path).collect(),
        bytes,
        dropped: plan.dropped,
    })
}

/// What becomes of a file: the groups and arrays to make of it.
struct Plan {
    source: Source,
    /// Parents first.
    groups: Vec<(NodePath, Map<String, Value>)>,
    arrays: Vec<Target>,
    dropped: Vec<Dropped>,
}

impl Plan {
    fn new(options: &ImportOptions) -> Result<Self, Error> {
        let source = Source::open(&options.source)?;
        let skip = Skip::new(&source, &options.skip)?;
        let mut plan = Self {
            source: source.clone(),
            groups: Vec::new(),
            arrays: Vec::new(),
            dropped: Vec::new(),
        };
        for group in source.groups() {
            let shown = group.path.join("/");
            let mut names = group.path.iter();
            let path = names
                .try_fold(options.group.clone(), |path, name| path.join(name))
                .map_err(|error| no_place(format!("group {shown}"), &error))?;
            let attributes = zarr::attributes(&skip.attributes_left(&shown, &group.attributes));
            plan.groups.push((path.clone(), attributes));
            for variable in &group.variables {
                let shown = source_path(&group.path, &variable.name);
                if skip.has(&shown) {
                    continue;
                }
                let path = path
                    .join(&variable.name)
                    .map_err(|error| no_place(format!("variable {shown}"), &error))?;
                let mut variable = variable.clone();
                variable.attributes = skip.attributes_left(&shown, &variable.attributes);
                plan.array(path, variable, options)?;
            }
        }
        check_dimensions(&plan.arrays, options)?;
        Ok(plan)
    }

    fn array(
        &mut self,
        path: NodePath,
        variable: Variable,
        options: &ImportOptions,
    ) -> Result<(), Error> {
        let chunking = chunking::choose(
            &variable,
            options.access,
            &options.inner_lengths,
            &options.shard_lengths,
        )?;
        let (metadata, dropped) =
            zarr::metadata(&path.to_string(), &variable, &chunking, &options.codecs)?;
        self.dropped.extend(dropped);
        let codec = ArrayCodec::new(&metadata)?;
        self.arrays.push(Target {
            path,
            variable,
            metadata,
            codec,
        });
        Ok(())
    }

    /// Stages the groups and the arrays, still without chunks.
    async fn stage(&self, transaction: &Transaction) -> Result<(), Error> {
        for (path, attributes) in &self.groups {
            // The attributes of a group that exists are kept unless the file has its own.
            let exists = transaction.base().find(path).await?.is_some();
            if !exists || !attributes.is_empty() {
                let metadata = GroupMetadata {
                    attributes: attributes.clone(),
                    extra: Map::new(),
                };
                transaction.put_group(path, metadata).await?;
            }
        }
        for array in &self.arrays {
            transaction
                .create_array(&array.path, array.metadata.clone())
                .await?;
        }
        Ok(())
    }
}

fn no_place(what: String, error: &array::Error) -> Error {
    Error::Unsupported {
        what,
        reason: format!("{error}; leave it out with --skip"),
    }
}

/// A length for a dimension that no variable has is a typing error.
fn check_dimensions(targets: &[Target], options: &ImportOptions) -> Result<(), Error> {
    let known: BTreeSet<&str> = targets
        .iter()
        .flat_map(|target| target.variable.dimensions.iter().map(String::as_str))
        .collect();
    for (option, lengths) in [
        ("--chunks", &options.inner_lengths),
        ("--shards", &options.shard_lengths),
    ] {
        if let Some(name) = lengths.0.keys().find(|name| !known.contains(name.as_str())) {
            let known: Vec<&str> = known.into_iter().collect();
            let reason = format!(
                "no variable has a dimension {name:?}; there are {}",
                known.join(", ")
            );
            return Err(Error::Option { option, reason });
        }
    }
    Ok(())
}

fn commit_options(options: &ImportOptions, format: &str, dropped: &[Dropped]) -> CommitOptions {
    let file = options
        .source
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut properties = Map::new();
    properties.insert(
        "importer".into(),
        json!(format!("quarr {}", env!("CARGO_PKG_VERSION"))),
    );
    properties.insert("source".into(), json!(file));
    properties.insert("source_format".into(), json!(format));
    if !dropped.is_empty() {
        let entry = |dropped: &Dropped| {
            json!({
                "attribute": dropped.attribute,
                "reason": dropped.reason,
                "value": dropped.value,
                "variable": dropped.variable,
            })
        };
        properties.insert(
            "dropped_attributes".into(),
            Value::Array(dropped.iter().map(entry).collect()),
        );
    }
    let message = if options.message.is_empty() {
        format!("import {file}")
    } else {
        options.message.clone()
    };
    CommitOptions {
        author: options.author.clone(),
        message,
        properties,
        ..CommitOptions::default()
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| worker_failed(&error))?
}

pub(crate) fn worker_failed(error: &tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::Cancelled;
    }
    Error::Worker {
        reason: error.to_string(),
    }
}
