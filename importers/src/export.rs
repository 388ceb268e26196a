//! Exports: a group or array of one commit as a plain Zarr v3 directory.
//!
//! Chunks are copied as stored, every byte verified, so the directory holds exactly what Zarr
//! clients read through the service. It appears under its name only when it is complete.

use std::path::{Path, PathBuf};

use query::Engine;
use storage::{Node, Snapshot};

use crate::Error;
use crate::consolidated::document_with_members;

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Arrays.
    pub arrays: u64,
    /// Chunks and shards.
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Exports `node` and everything below it to the directory `destination`, which must not exist.
///
/// # Errors
/// [`Error::Write`] if the directory exists or cannot be written; [`Error::Query`] if a chunk is
/// not what was written.
pub async fn export_zarr(
    engine: &Engine,
    snapshot: &Snapshot,
    node: Node,
    destination: &Path,
    progress: &(dyn Fn(&Exported) + Send + Sync),
) -> Result<Exported, Error> {
    let write = |path: &Path, source| Error::Write {
        path: path.to_owned(),
        source,
    };
    if destination.exists() {
        return Err(write(destination, std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut name = destination.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = destination.with_file_name(name);
    let result = export_to(engine, snapshot, node, &partial, progress).await;
    match result {
        Ok(exported) => {
            std::fs::rename(&partial, destination).map_err(|error| write(destination, error))?;
            Ok(exported)
        }
        Err(error) => {
            // What is left of a failed export is of no use; the failure is what to tell.
            let _ = std::fs::remove_dir_all(&partial);
            Err(error)
        }
    }
}

async fn export_to(
    engine: &Engine,
    snapshot: &Snapshot,
    node: Node,
    directory: &Path,
    progress: &(dyn Fn(&Exported) + Send + Sync),
) -> Result<Exported, Error> {
    let root = node.path().clone();
    let nodes = snapshot.walk(node).await?;
    let mut exported = Exported::default();
    for node in &nodes {
        let below = node
            .path()
            .as_str()
            .strip_prefix(root.as_str())
            .unwrap_or_default();
        let folder = directory.join(below.trim_start_matches('/'));
        let document = document_with_members(node, &nodes);
        write_file(&folder.join("zarr.json"), &document)?;
        let Node::Array(array) = node else { continue };
        exported.arrays += 1;
        let reader = engine.open(array.clone())?;
        let grid = array::Region::whole(&array.metadata().grid().grid_shape());
        for row in array.chunks(&grid).await? {
            let bytes = engine.stored_bytes(&reader, &row, 0..row.length).await?;
            let key = array.metadata().chunk_key_encoding.key(&row.index);
            write_file(&folder.join(key), &bytes)?;
            exported.chunks += 1;
            exported.bytes += row.length;
            progress(&exported);
        }
    }
    Ok(exported)
}

fn write_file(path: &PathBuf, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.clone(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, bytes).map_err(failed)
}
