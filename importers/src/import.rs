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
use crate::source::{Attributes, Source};
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
    let path = options.source.clone();
    let source = blocking(move || Source::open(&path)).await?;
    let skip = Skip::new(&source, &options.skip)?;
    let transaction = Arc::new(Transaction::begin(repository, &options.branch).await?);
    let (targets, dropped) = stage(&source, &skip, &transaction, options).await?;
    check_dimensions(&targets, options)?;
    let bytes = fill_arrays(
        &source,
        &transaction,
        &targets,
        options.memory_bytes,
        progress,
    )
    .await?;
    let transaction = Arc::into_inner(transaction).ok_or(Error::Cancelled)?;
    let commit = transaction
        .commit(commit_options(options, source.format(), &dropped))
        .await?;
    Ok(Imported {
        commit,
        arrays: targets.into_iter().map(|target| target.path).collect(),
        bytes,
        dropped,
    })
}

/// Stages the groups and the arrays, still without chunks.
async fn stage(
    source: &Source,
    skip: &Skip,
    transaction: &Transaction,
    options: &ImportOptions,
) -> Result<(Vec<Target>, Vec<Dropped>), Error> {
    let mut targets = Vec::new();
    let mut dropped = Vec::new();
    for group in source.groups() {
        let shown = group.path.join("/");
        let path = group
            .path
            .iter()
            .try_fold(options.group.clone(), |path, name| path.join(name))
            .map_err(|error| no_place(format!("group {shown}"), &error))?;
        let attributes = zarr::attributes(&skip.attributes_left(&shown, &group.attributes));
        // The attributes of a group that exists are kept unless the file has its own.
        let exists = transaction.base().find(&path).await?.is_some();
        if !exists || !attributes.is_empty() {
            let metadata = GroupMetadata {
                attributes,
                extra: Map::new(),
            };
            transaction.put_group(&path, metadata).await?;
        }
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
            let chunking = chunking::choose(
                &variable,
                options.access,
                &options.inner_lengths,
                &options.shard_lengths,
            )?;
            let (metadata, left_out) =
                zarr::metadata(&path.to_string(), &variable, &chunking, &options.codecs)?;
            dropped.extend(left_out);
            let codec = ArrayCodec::new(&metadata)?;
            transaction.create_array(&path, metadata.clone()).await?;
            targets.push(Target {
                path,
                variable,
                metadata,
                codec,
            });
        }
    }
    Ok((targets, dropped))
}

fn no_place(what: String, error: &array::Error) -> Error {
    Error::Unsupported {
        what,
        reason: format!("{error}; leave it out with --skip"),
    }
}

/// Path of a variable in its file.
fn source_path(group: &[String], name: &str) -> String {
    let names = group.iter().map(String::as_str).chain([name]);
    names.collect::<Vec<_>>().join("/")
}

/// What the user leaves out: variables by path, or by name in whatever group, and attributes by
/// `@` and their name behind a path.
struct Skip(BTreeSet<String>);

impl Skip {
    /// Checks that the source has everything named, and nothing without a place besides.
    fn new(source: &Source, names: &BTreeSet<String>) -> Result<Self, Error> {
        let skip = Self(
            names
                .iter()
                .map(|n| n.trim_matches('/').to_owned())
                .collect(),
        );
        let mut unknown = skip.0.clone();
        for group in source.groups() {
            let group_path = group.path.join("/");
            for refused in &group.refused {
                let (variable, attribute) = split(&refused.name);
                unknown.retain(|name| !matches(name, variable) && *name != refused.name);
                if !skip.has(variable) && !skip.0.contains(&refused.name) {
                    return Err(Error::Unsupported {
                        what: match attribute {
                            None => format!("variable {variable}"),
                            Some(attribute) => format!("attribute {attribute} of /{variable}"),
                        },
                        reason: format!(
                            "{}; leave it out with --skip {}",
                            refused.reason, refused.name
                        ),
                    });
                }
            }
            for (attribute, _) in &group.attributes {
                unknown.remove(&format!("{group_path}@{attribute}"));
            }
            for variable in &group.variables {
                let path = source_path(&group.path, &variable.name);
                unknown.retain(|name| !matches(name, &path));
                for (attribute, _) in &variable.attributes {
                    unknown.remove(&format!("{path}@{attribute}"));
                }
            }
        }
        match unknown.first() {
            None => Ok(skip),
            Some(name) => Err(Error::Option {
                option: "--skip",
                reason: format!("the file has no variable or attribute {name:?}"),
            }),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.0.iter().any(|name| matches(name, path))
    }

    /// The attributes of a variable or group that stay.
    fn attributes_left(&self, path: &str, attributes: &Attributes) -> Attributes {
        let stays = |name: &str| !self.0.contains(&format!("{path}@{name}"));
        let left = attributes.iter().filter(|(name, _)| stays(name));
        left.cloned().collect()
    }
}

/// Whether `name`, a path or only a name, means the variable at `path`.
fn matches(name: &str, path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or(path);
    !path.is_empty() && (name == path || name == last)
}

/// Path and attribute of a refused name. Attributes of the root have an empty path.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('@') {
        Some((path, attribute)) => (path, Some(attribute)),
        None => (name, None),
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
