//! Commits and where they come from: ancestors, and the changes from one commit to another.

use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use array::{GroupMetadata, NodePath};
use chrono::{DateTime, Utc};

use crate::changes::{ArrayChange, Change, Changes, GroupChange, Origin};
use crate::chunk_changes::{ChunkChange, ChunkChanges, Written};
use crate::diff::{self, NodeDifference};
use crate::repository::Repository;
use crate::snapshot::{ArrayNode, Node, Snapshot};
use crate::tree::{NodeKind, TreeRow};
use crate::{CommitId, Error};

/// From which of two commits a commit can be reached.
const FROM_A: u8 = 1;
const FROM_B: u8 = 2;

/// Commits reachable from two others, each with where it is reachable from.
struct Reached(HashMap<CommitId, u8>);

impl Reached {
    /// Walks back from both, newest first, until only common ancestors are left.
    async fn from(repository: &Repository, a: CommitId, b: CommitId) -> Result<Self, Error> {
        let mut reached: HashMap<CommitId, u8> = HashMap::new();
        let mut open: BinaryHeap<(DateTime<Utc>, CommitId)> = BinaryHeap::new();
        for (id, mark) in [(a, FROM_A), (b, FROM_B)] {
            let time = repository.commit(id).await?.time;
            *reached.entry(id).or_default() |= mark;
            open.push((time, id));
        }
        let is_common = |reached: &HashMap<CommitId, u8>, id: &CommitId| {
            reached.get(id) == Some(&(FROM_A | FROM_B))
        };
        while open.iter().any(|(_, id)| !is_common(&reached, id)) {
            let Some((_, id)) = open.pop() else { break };
            let marks = reached.get(&id).copied().unwrap_or_default();
            for parent in repository.parents(id).await? {
                let known = reached.entry(parent).or_default();
                if *known | marks != *known {
                    *known |= marks;
                    open.push((repository.commit(parent).await?.time, parent));
                }
            }
        }
        Ok(Self(reached))
    }
}

/// The nodes deleted by the commits that lead to `onto` and not to `base`, those created again
/// included: a tree that equals the base's does not show them.
pub(crate) async fn deleted_between(
    base: &Snapshot,
    onto: &Snapshot,
) -> Result<BTreeSet<NodePath>, Error> {
    let repository = base.repository();
    let mut deleted = BTreeSet::new();
    // The common case: a straight line.
    let mut id = onto.id();
    loop {
        if id == base.id() {
            return Ok(deleted);
        }
        let commit = repository.commit(id).await?;
        match commit.parents.as_slice() {
            [parent] => {
                deleted.extend(commit.deleted.iter().cloned());
                id = *parent;
            }
            _ => break,
        }
    }
    let reached = Reached::from(repository, base.id(), onto.id()).await?;
    for (id, marks) in reached.0 {
        if marks == FROM_B {
            deleted.extend(repository.commit(id).await?.deleted.iter().cloned());
        }
    }
    Ok(deleted)
}

/// The newest commit both come from; `None` if there is none.
pub(crate) async fn merge_base(
    repository: &Repository,
    a: CommitId,
    b: CommitId,
) -> Result<Option<CommitId>, Error> {
    let reached = Reached::from(repository, a, b).await?;
    let mut common = Vec::new();
    for (id, marks) in reached.0 {
        if marks == FROM_A | FROM_B {
            common.push((repository.commit(id).await?.time, id));
        }
    }
    Ok(common.into_iter().max().map(|(_, id)| id))
}

/// The commits that `head` comes from and `since` does not, `head` included; `None` if `head` does
/// not come from `since`.
pub(crate) async fn commits_after(
    repository: &Repository,
    since: CommitId,
    head: CommitId,
) -> Result<Option<Vec<CommitId>>, Error> {
    let Reached(reached) = Reached::from(repository, since, head).await?;
    if reached.get(&since) != Some(&(FROM_A | FROM_B)) {
        return Ok(None);
    }
    let after = reached.into_iter().filter(|(_, marks)| *marks == FROM_B);
    Ok(Some(after.map(|(id, _)| id).collect()))
}

/// The changes that make `to` of `from`.
pub(crate) async fn changes_between(from: &Snapshot, to: &Snapshot) -> Result<Changes, Error> {
    let mut differences = diff::nodes(from, to).await?;
    // A node that was deleted and created again is another one, however alike.
    for path in deleted_between(from, to).await? {
        let under_another = path.ancestors().iter().any(|above| {
            matches!(differences.get(above), Some(found) if !matches!(found, NodeDifference::Changed(..)))
        });
        if under_another {
            continue;
        }
        if let (Some(old), Some(new)) = (from.row(&path).await?, to.row(&path).await?) {
            let below = |other: &NodePath| *other != path && other.starts_with(&path);
            differences.retain(|other, _| !below(other));
            differences.insert(path, NodeDifference::Replaced(old, new));
        }
    }
    let mut changes = Changes::default();
    for (path, difference) in differences {
        let change = match difference {
            NodeDifference::Removed(_) => Change::Delete,
            NodeDifference::Added(row) | NodeDifference::Replaced(_, row) => {
                taken_over(to, &path, row).await?
            }
            NodeDifference::Changed(..) => {
                let (Some(old), Some(new)) = (from.find(&path).await?, to.find(&path).await?)
                else {
                    continue;
                };
                match (old, new) {
                    (Node::Array(old), Node::Array(new)) => changed_array(&old, &new).await?,
                    (_, Node::Group(new)) => Change::Group(GroupChange {
                        origin: Origin::Base,
                        metadata: Some(GroupMetadata::clone(new.metadata())),
                    }),
                    (_, Node::Array(new)) => {
                        let row = new.row().clone();
                        taken_over(to, &path, row).await?
                    }
                }
            }
        };
        changes.insert(path, change);
    }
    Ok(changes)
}

/// The node as `to` has it, with everything in it.
async fn taken_over(to: &Snapshot, path: &NodePath, row: TreeRow) -> Result<Change, Error> {
    let origin = Origin::Node {
        row: Box::new(row.clone()),
        path: None,
    };
    if row.kind == NodeKind::Group {
        return Ok(Change::Group(GroupChange {
            origin,
            metadata: None,
        }));
    }
    let array = to.array(path).await?;
    Ok(Change::Array(Arc::new(ArrayChange::new(
        origin,
        array.metadata().clone(),
        ChunkChanges::new(array.metadata())?,
    ))))
}

async fn changed_array(old: &ArrayNode, new: &ArrayNode) -> Result<Change, Error> {
    let same_chunks = old.metadata().chunk_shape() == new.metadata().chunk_shape();
    if !same_chunks {
        let origin = Origin::Node {
            row: Box::new(new.row().clone()),
            path: None,
        };
        let chunks = ChunkChanges::new(new.metadata())?;
        let change = ArrayChange::new(origin, new.metadata().clone(), chunks);
        return Ok(Change::Array(Arc::new(change)));
    }
    let mut chunks = ChunkChanges::new(new.metadata())?;
    let grid = new.metadata().grid();
    for (index, (_, after)) in diff::chunks(old, new).await? {
        if !grid.contains(&index) {
            continue;
        }
        let change = match after {
            None => ChunkChange::Removed(Written::Differing),
            Some(row) => {
                let statistics = new.chunk_statistics(&index).await?;
                ChunkChange::present(row, statistics, Written::Differing)
            }
        };
        chunks.insert(&index, &change);
    }
    let mut change = ArrayChange::new(Origin::Base, new.metadata().clone(), chunks);
    let lengths = old.metadata().shape().iter().zip(new.metadata().shape());
    for (cut, (before, after)) in change.cut.iter_mut().zip(lengths) {
        if after < before {
            *cut = *after;
        }
    }
    Ok(Change::Array(Arc::new(change)))
}
