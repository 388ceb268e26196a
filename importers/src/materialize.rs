//! Copies in what an import by reference left where it was.
//!
//! ```text
//! arrays of a commit with chunks elsewhere ─► read through the engine ─► shards, as any import writes
//! ```
//!
//! Values, attributes and fill values stay; chunk shapes and codecs become those an import chooses, so
//! the arrays are deleted and created again in the same commit.

use std::sync::Arc;

use array::{AxisSelection, Elements, NodePath, Region, ResolvedSelection};
use codecs::ArrayCodec;
use compute::cf::Decode;
use query::{ArrayReader, Engine};
use storage::{
    ArrayNode, CommitId, CommitOptions, Location, Node, RefName, Repository, Transaction,
};
use tokio::runtime::Handle;

use crate::Error;
use crate::chunking::{Access, Lengths, choose};
use crate::fill_arrays::{Progress, Staging, Target, fill_arrays};
use crate::source::{Reader, Source, Variable};
use crate::zarr::{default_codecs, sharding};

/// What was copied in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Materialized {
    /// The commit; `None` if no array had chunks elsewhere.
    pub commit: Option<CommitId>,
    /// The arrays.
    pub arrays: Vec<NodePath>,
    /// Uncompressed bytes of their values.
    pub bytes: u64,
}

/// Chunks of an array that are looked at together for one that is elsewhere.
const LOOKED_AT: usize = 4096;

/// Copies the values of all arrays at or under `path` that have chunks in files elsewhere into the
/// repository, as one commit to `branch`. At most about `memory_bytes` of shards are held.
///
/// # Errors
/// [`Error::Query`] if an original is not what was imported, or cannot be read; [`Error::Storage`] if
/// the commit failed. The branch is unchanged then.
pub async fn materialize(
    engine: &Engine,
    repository: &Repository,
    (branch, path): (&RefName, &NodePath),
    (author, message): (&str, &str),
    memory_bytes: u64,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<Materialized, Error> {
    let transaction = Arc::new(Transaction::begin(repository, branch).await?);
    let base = transaction.base().clone();
    let mut readers = Vec::new();
    for node in base.walk(base.node(path).await?).await? {
        if let Node::Array(array) = node
            && is_elsewhere(&array).await?
        {
            readers.push(engine.open(array)?);
        }
    }
    if readers.is_empty() {
        return Ok(Materialized::default());
    }
    let targets = readers.iter().enumerate();
    let targets: Vec<Target> = targets
        .map(|(handle, reader)| target(handle, reader))
        .collect::<Result<_, _>>()?;
    for target in &targets {
        transaction.delete(&target.path).await?;
        transaction
            .create_array(&target.path, target.metadata.clone())
            .await?;
    }
    let source = Source::new(
        Vec::new(),
        Stored {
            engine: engine.clone(),
            readers,
            runtime: Handle::current(),
        },
    );
    let staging = Staging::Own(transaction.clone());
    let bytes = fill_arrays(&source, &staging, &targets, memory_bytes, progress).await?;
    drop(staging);
    let transaction = Arc::into_inner(transaction).ok_or(Error::Cancelled)?;
    let message = match message {
        "" => format!("materialize {path}"),
        message => message.to_owned(),
    };
    let options = CommitOptions {
        author: author.to_owned(),
        message,
        ..CommitOptions::default()
    };
    Ok(Materialized {
        commit: Some(transaction.commit(options).await?),
        arrays: targets.into_iter().map(|target| target.path).collect(),
        bytes,
    })
}

/// Whether some chunk of an array is in a file elsewhere.
async fn is_elsewhere(array: &ArrayNode) -> Result<bool, Error> {
    let grid = array.metadata().grid().grid_shape();
    let Some((&first, rest)) = grid.split_first() else {
        return has_external(array, &Region::whole(&grid)).await;
    };
    // In slabs, so that the rows of a large array are not held together.
    let others = rest.iter().product::<u64>().max(1);
    let thickness = (LOOKED_AT as u64 / others).max(1);
    for start in (0..first).step_by(usize::try_from(thickness).unwrap_or(usize::MAX)) {
        let count = thickness.min(first - start);
        let starts = [vec![start], vec![0; rest.len()]].concat();
        let slab = Region::new(starts, [vec![count], rest.to_vec()].concat())?;
        if has_external(array, &slab).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn has_external(array: &ArrayNode, region: &Region) -> Result<bool, Error> {
    let rows = array.chunks(region).await?;
    let is_external = |location: &Location| matches!(location, Location::External { .. });
    Ok(rows.iter().any(|row| is_external(&row.location)))
}

/// What becomes of an array.
fn target(handle: usize, reader: &ArrayReader) -> Result<Target, Error> {
    let metadata = reader.metadata();
    let name = |axis: usize| format!("{axis}");
    let variable = Variable {
        name: String::new(),
        dimensions: (0..metadata.dimensions()).map(name).collect(),
        shape: metadata.shape().to_vec(),
        data_type: metadata.data_type.clone(),
        attributes: Vec::new(),
        chunk_shape: Some(metadata.chunk_shape().to_vec()),
        handle,
    };
    let none = Lengths::default();
    let chunking = choose(&variable, Access::default(), &none, &none)?;
    let codec = sharding(&metadata.data_type, &chunking.inner, &default_codecs());
    let mut changed = metadata.clone();
    changed.set_chunk_shape(chunking.shard)?;
    changed.codecs = vec![codec];
    Ok(Target {
        path: reader.node().path().clone(),
        variable,
        codec: ArrayCodec::new(&changed)?,
        metadata: changed,
        keeps_chunks: false,
        elsewhere: None,
        appended: None,
    })
}

/// Arrays of a commit as a source.
#[derive(Debug)]
struct Stored {
    engine: Engine,
    readers: Vec<ArrayReader>,
    runtime: Handle,
}

impl Reader for Stored {
    fn format(&self) -> &'static str {
        "Quarr"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let reader = &self.readers[variable.handle];
        let axes = (0..region.shape().len()).map(|axis| {
            let range = region.range(axis);
            AxisSelection::Range {
                start: range.start,
                step: 1,
                count: range.end - range.start,
            }
        });
        let selection = ResolvedSelection::of_axes(axes.collect());
        let read = self.engine.read(reader, &selection, Decode::Raw);
        Ok(self.runtime.block_on(read)?.elements)
    }
}
