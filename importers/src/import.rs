//! Imports: a source file becomes one commit.
//!
//! ```text
//! read a shard's box (one thread, blocking) ─► encode and hash (CPU) ─► upload ─► … ─► commit
//! ```
//!
//! Only a bounded number of shards is in memory at once. Nothing is visible before the commit, so
//! a failed import leaves the log as it was.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, Elements, GroupMetadata, NodePath, Region, Statistics,
};
use codecs::ArrayCodec;
use compute::cf::Missing;
use serde_json::{Map, Value, json};
use storage::{ChunkKind, CommitId, CommitOptions, RefName, Repository, Transaction};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::chunking::{self, Access, Lengths};
use crate::source::{Source, Variable};
use crate::zarr::{self, Dropped};

/// A shard takes about this many times its decoded size while it is encoded: the elements, the
/// encoded bytes and the cells the statistics look at.
const SHARD_MEMORY_FACTOR: u64 = 3;

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
    /// Variables to leave out, by path.
    pub skip: BTreeSet<String>,
    /// Bytes of shards in memory at once.
    pub memory_bytes: u64,
}

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The variable being read.
    pub variable: String,
    /// Shards stored so far, those that are all fill value included.
    pub shards: u64,
    /// Shards in all.
    pub total_shards: u64,
    /// Uncompressed bytes read so far.
    pub bytes: u64,
    /// Uncompressed bytes in all.
    pub total_bytes: u64,
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

/// One array to fill.
struct Target {
    path: NodePath,
    variable: Variable,
    metadata: ArrayMetadata,
    codec: ArrayCodec,
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
    let transaction = Arc::new(Transaction::begin(repository, &options.branch).await?);
    let mut targets = Vec::new();
    let mut dropped = Vec::new();
    for group in source.groups() {
        let path = group
            .path
            .iter()
            .try_fold(options.group.clone(), |path, name| path.join(name))?;
        let attributes = zarr::attributes(&group.attributes);
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
            let path = path.join(&variable.name)?;
            if options.skip.contains(path.as_str()) || options.skip.contains(&variable.name) {
                continue;
            }
            let chunking = chunking::choose(
                variable,
                options.access,
                &options.inner_lengths,
                &options.shard_lengths,
            )?;
            let (metadata, left_out) =
                zarr::metadata(&path.to_string(), variable, &chunking, &options.codecs)?;
            dropped.extend(left_out);
            let codec = ArrayCodec::new(&metadata)?;
            transaction.create_array(&path, metadata.clone()).await?;
            targets.push(Target {
                path,
                variable: variable.clone(),
                metadata,
                codec,
            });
        }
    }
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

/// Reads, encodes and uploads every shard of every array; gives the number of bytes read.
async fn fill_arrays(
    source: &Source,
    transaction: &Arc<Transaction>,
    targets: &[Target],
    memory_bytes: u64,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<u64, Error> {
    let size = |target: &Target| {
        let element = target.variable.data_type.size_bytes().unwrap_or(32) as u64;
        target
            .variable
            .shape
            .iter()
            .fold(element, |bytes, &length| bytes.saturating_mul(length))
    };
    let shards = |target: &Target| -> u64 { target.metadata.grid().grid_shape().iter().product() };
    let mut state = Progress {
        variable: String::new(),
        shards: 0,
        total_shards: targets.iter().map(shards).sum(),
        bytes: 0,
        total_bytes: targets.iter().map(size).sum(),
    };
    // One permit is a KiB of memory.
    let all_permits = u32::try_from(memory_bytes >> 10)
        .unwrap_or(u32::MAX >> 4)
        .clamp(1, u32::MAX >> 4);
    let memory = Arc::new(Semaphore::new(all_permits as usize));
    let mut running: JoinSet<Result<u64, Error>> = JoinSet::new();
    for target in targets {
        state.variable = target.path.to_string();
        let shard_bytes = target.codec.chunk_shape().iter().product::<u64>()
            * target.variable.data_type.size_bytes().unwrap_or(32) as u64;
        let permits = u32::try_from((shard_bytes * SHARD_MEMORY_FACTOR) >> 10).unwrap_or(u32::MAX);
        let grid = target.metadata.grid().grid_shape();
        for coordinate in Region::whole(&grid).positions() {
            let index = ChunkIndex::new(coordinate);
            let permit = memory
                .clone()
                .acquire_many_owned(permits.clamp(1, all_permits))
                .await
                .map_err(|_| Error::Cancelled)?;
            let region = target.metadata.grid().chunk_region_in_array(&index);
            let (file, variable) = (source.clone(), target.variable.clone());
            let inside = region.clone();
            let elements = blocking(move || file.read(&variable, &inside)).await?;
            let shard = Shard {
                transaction: transaction.clone(),
                path: target.path.clone(),
                codec: target.codec.clone(),
                metadata: target.metadata.clone(),
                index,
                in_bounds: region.shape().to_vec(),
            };
            running.spawn(async move {
                let bytes = elements.size_bytes() as u64;
                shard.store(elements).await?;
                drop(permit);
                Ok(bytes)
            });
            while let Some(done) = running.try_join_next() {
                count(&mut state, done, progress)?;
            }
        }
    }
    while let Some(done) = running.join_next().await {
        count(&mut state, done, progress)?;
    }
    Ok(state.bytes)
}

fn count(
    state: &mut Progress,
    done: Result<Result<u64, Error>, tokio::task::JoinError>,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<(), Error> {
    state.bytes += done.map_err(|_| Error::Cancelled)??;
    state.shards += 1;
    progress(state);
    Ok(())
}

struct Shard {
    transaction: Arc<Transaction>,
    path: NodePath,
    codec: ArrayCodec,
    metadata: ArrayMetadata,
    index: ChunkIndex,
    /// Extent of the array inside the shard.
    in_bounds: Vec<u64>,
}

impl Shard {
    /// Encodes and uploads the cells inside the array.
    async fn store(self, elements: Elements) -> Result<(), Error> {
        let (codec, metadata, in_bounds) = (self.codec, self.metadata, self.in_bounds);
        let encoded = blocking(move || {
            let missing = Missing::from_attributes(&metadata.data_type, &metadata.attributes)
                .map_err(|error| Error::Unsupported {
                    what: "attribute".into(),
                    reason: error.to_string(),
                })?;
            let statistics: Option<Statistics> = match &elements {
                Elements::Fixed(bytes) => compute::statistics(&metadata.data_type, bytes, &missing),
                Elements::Variable(_) => None,
            };
            let whole = whole_shard(&codec, elements, &in_bounds)?;
            Ok(codec
                .encode(&whole, &in_bounds)?
                .map(|chunk| (chunk, statistics)))
        })
        .await?;
        let Some((chunk, statistics)) = encoded else {
            return Ok(());
        };
        let kind = match chunk.kind {
            codecs::ChunkKind::Shard => ChunkKind::Shard,
            codecs::ChunkKind::Plain => ChunkKind::Plain,
        };
        self.transaction
            .put_chunk(
                &self.path,
                self.index,
                kind,
                chunk.id,
                chunk.bytes,
                statistics,
            )
            .await?;
        Ok(())
    }
}

/// `elements` of the box `in_bounds` in the corner of a whole shard; the rest is fill value.
fn whole_shard(
    codec: &ArrayCodec,
    elements: Elements,
    in_bounds: &[u64],
) -> Result<Elements, Error> {
    if in_bounds == codec.chunk_shape() {
        return Ok(elements);
    }
    let fill = codec.fill_value().as_bytes();
    let count = codec.chunk_shape().iter().product();
    let parts: Vec<compute::gather::AxisPart> = in_bounds
        .iter()
        .map(|&length| {
            let places: Vec<u64> = (0..length).collect();
            compute::gather::AxisPart {
                source: places.clone(),
                target: places,
            }
        })
        .collect();
    match elements {
        Elements::Fixed(bytes) => {
            let Elements::Fixed(mut whole) = Elements::repeat(codec.data_type(), fill, count)?
            else {
                return Err(Error::Cancelled);
            };
            let size = fill.len();
            compute::gather::for_each_run(
                &parts,
                in_bounds,
                codec.chunk_shape(),
                |from, to, count| {
                    let (from, to, length) = (
                        from as usize * size,
                        to as usize * size,
                        count as usize * size,
                    );
                    whole[to..to + length].copy_from_slice(&bytes[from..from + length]);
                },
            );
            Ok(Elements::Fixed(whole))
        }
        Elements::Variable(values) => {
            let mut whole: Vec<&[u8]> = vec![fill; count as usize];
            compute::gather::for_each_run(
                &parts,
                in_bounds,
                codec.chunk_shape(),
                |from, to, count| {
                    for nth in 0..count {
                        whole[(to + nth) as usize] =
                            values.get((from + nth) as usize).unwrap_or(fill);
                    }
                },
            );
            Ok(Elements::Variable(whole.into_iter().collect()))
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Cancelled)?
}
