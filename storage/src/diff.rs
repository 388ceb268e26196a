//! What differs between two commits, found by walking their trees side by side: subtrees that are
//! equal are not read.

use std::collections::{BTreeMap, BTreeSet};

use array::{ChunkIndex, NodePath};
use futures::future::BoxFuture;

use crate::Error;
use crate::page::{ChunkRow, ManifestRow};
use crate::radix::Pages;
use crate::snapshot::{ArrayNode, Snapshot, chunk_row};
use crate::tree::{NodeKind, TreeRow};

/// How one node differs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeDifference {
    /// Only the later commit has it, and everything below it.
    Added(TreeRow),
    /// Only the earlier commit has it, and everything below it.
    Removed(TreeRow),
    /// A group became an array, or an array a group.
    Replaced(TreeRow, TreeRow),
    /// Metadata or chunks differ. Members of a group that differ have entries of their own.
    Changed(TreeRow, TreeRow),
}

/// The nodes that differ. What is below an added, removed or replaced node has no entry.
pub(crate) async fn nodes(
    before: &Snapshot,
    after: &Snapshot,
) -> Result<BTreeMap<NodePath, NodeDifference>, Error> {
    let mut found = BTreeMap::new();
    let root = |snapshot: &Snapshot| snapshot.commit().root.clone();
    compare(
        before,
        after,
        NodePath::root(),
        root(before),
        root(after),
        &mut found,
    )
    .await?;
    Ok(found)
}

fn compare<'a>(
    before: &'a Snapshot,
    after: &'a Snapshot,
    path: NodePath,
    old: TreeRow,
    new: TreeRow,
    found: &'a mut BTreeMap<NodePath, NodeDifference>,
) -> BoxFuture<'a, Result<(), Error>> {
    Box::pin(async move {
        if old == new {
            return Ok(());
        }
        if old.kind != new.kind {
            found.insert(path, NodeDifference::Replaced(old, new));
            return Ok(());
        }
        if old.kind == NodeKind::Array {
            found.insert(path, NodeDifference::Changed(old, new));
            return Ok(());
        }
        if old.document != new.document {
            found.insert(
                path.clone(),
                NodeDifference::Changed(old.clone(), new.clone()),
            );
        }
        if old.content == new.content {
            return Ok(());
        }
        let (old, new) = futures::try_join!(members(before, &old), members(after, &new))?;
        let names: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
        for name in names {
            let path = path.join(&name)?;
            match (old.get(&name), new.get(&name)) {
                (Some(old), Some(new)) => {
                    compare(before, after, path, old.clone(), new.clone(), found).await?;
                }
                (Some(old), None) => {
                    found.insert(path, NodeDifference::Removed(old.clone()));
                }
                (None, Some(new)) => {
                    found.insert(path, NodeDifference::Added(new.clone()));
                }
                (None, None) => {}
            }
        }
        Ok(())
    })
}

async fn members(snapshot: &Snapshot, group: &TreeRow) -> Result<BTreeMap<String, TreeRow>, Error> {
    let trees = snapshot.repository().trees();
    let rows = trees.members(group.content).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.name.clone(), row))
        .collect())
}

/// The chunks of an array that differ, as before and after.
pub(crate) type ChunkDifferences = BTreeMap<ChunkIndex, (Option<ChunkRow>, Option<ChunkRow>)>;

/// The chunks in which two versions of an array differ. Chunk shapes are the same.
pub(crate) async fn chunks(
    before: &ArrayNode,
    after: &ArrayNode,
) -> Result<ChunkDifferences, Error> {
    let pages: &Pages<ManifestRow> = after.repository().manifests();
    let side = |array: &ArrayNode| array.metadata().grid().grid_shape();
    let (old_grid, new_grid) = (side(before), side(after));
    let pairs = pages
        .differences(
            (before.manifest_root(), before.layout(), &old_grid),
            (after.manifest_root(), after.layout(), &new_grid),
        )
        .await?;
    let mut found = ChunkDifferences::new();
    for (old, new) in pairs {
        let (old, new) = (old.and_then(chunk_row), new.and_then(chunk_row));
        if same_content(old.as_ref(), new.as_ref()) {
            continue;
        }
        if let Some(row) = old.as_ref().or(new.as_ref()) {
            found.insert(row.index.clone(), (old, new));
        }
    }
    Ok(found)
}

/// Whether two rows of one chunk stand for the same bytes, wherever those are.
pub(crate) fn same_content(a: Option<&ChunkRow>, b: Option<&ChunkRow>) -> bool {
    let content = |row: &ChunkRow| (row.kind, row.id, row.length);
    a.map(content) == b.map(content)
}
