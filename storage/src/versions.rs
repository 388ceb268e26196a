//! Work on whole commits: merge, cherry-pick, revert, reset, and what differs between two.

use std::collections::BTreeMap;
use std::sync::Arc;

use array::{Hash, NodePath, Region};
use uuid::Uuid;

use crate::committer::Pending;
use crate::diff::{self, NodeDifference};
use crate::documents;
use crate::history::{changes_between, merge_base};
use crate::log::{Asked, LogState, Ref};
use crate::names::RefName;
use crate::page::ChunkRow;
use crate::refs::Moved;
use crate::repository::Repository;
use crate::snapshot::{ArrayNode, Node, Snapshot};
use crate::transaction::CommitOptions;
use crate::tree::NodeKind;
use crate::{CommitId, Error};

/// How a node differs between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the later one has it.
    Added,
    /// Only the earlier one has it.
    Removed,
    /// It was a group and is an array, or the other way round.
    Replaced,
    /// Both have it.
    Changed,
}

/// One node that differs between two commits.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The node.
    pub path: NodePath,
    /// In what way it differs.
    pub kind: DifferenceKind,
    /// What it is in the later commit, or was in the earlier one.
    pub node: NodeKind,
    /// Names of attributes that were added, removed or changed.
    pub attributes: Vec<String>,
    /// Names of other members of its `zarr.json` that were added, removed or changed.
    pub metadata: Vec<String>,
    /// Boxes of whole chunks whose values may differ, clipped to the larger of the two shapes.
    pub regions: Vec<Region>,
    /// Number of chunks in these boxes that differ.
    pub chunks: u64,
}

/// The number of the next log entry, and the list of the sweep under way.
type Since = (u64, Option<Hash>);

impl Repository {
    /// Merges commit `from` into a branch: the changes since the newest commit both come from, as
    /// a commit with two parents. Gives the branch's head if it has everything already.
    ///
    /// # Errors
    /// [`Error::Conflict`] with everything both sides changed, where `options` do not say which
    /// side to take (`Ours` is the branch's, `Theirs` that of `from`); [`Error::Invalid`] if the
    /// two have no commit in common; else as [`crate::Transaction::commit`].
    pub async fn merge(
        &self,
        from: CommitId,
        into: &RefName,
        options: CommitOptions,
    ) -> Result<CommitId, Error> {
        let (head, since) = self.branch_head(into).await?;
        self.check_stored(from).await?;
        let base = merge_base(self, from, head)
            .await?
            .ok_or_else(|| Error::invalid("merge", "the two have no commit in common"))?;
        if base == from {
            return Ok(head);
        }
        let (base, from) = (self.snapshot(base).await?, self.snapshot(from).await?);
        let second_parent = Some(from.id());
        self.apply(&base, &from, into, options, second_parent, since)
            .await
    }

    /// Makes the changes of one commit, relative to its first parent, on a branch.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a commit without parents; else as [`Repository::merge`].
    pub async fn cherry_pick(
        &self,
        commit: CommitId,
        onto: &RefName,
        options: CommitOptions,
    ) -> Result<CommitId, Error> {
        let (_, since) = self.branch_head(onto).await?;
        let (parent, commit) = self.with_parent(commit).await?;
        self.apply(&parent, &commit, onto, options, None, since)
            .await
    }

    /// Undoes the changes of one commit, relative to its first parent, on a branch.
    ///
    /// # Errors
    /// As [`Repository::cherry_pick`].
    pub async fn revert(
        &self,
        commit: CommitId,
        branch: &RefName,
        options: CommitOptions,
    ) -> Result<CommitId, Error> {
        let (_, since) = self.branch_head(branch).await?;
        let (parent, commit) = self.with_parent(commit).await?;
        self.apply(&commit, &parent, branch, options, None, since)
            .await
    }

    async fn with_parent(&self, id: CommitId) -> Result<(Snapshot, Snapshot), Error> {
        let commit = self.snapshot(id).await?;
        let Some(parent) = commit.commit().parents.first() else {
            let reason = format!("{id} is the first one: there is nothing before it");
            return Err(Error::invalid("commit", reason));
        };
        for id in [commit.id(), *parent] {
            self.check_stored(id).await?;
        }
        Ok((self.snapshot(*parent).await?, commit))
    }

    /// Commits what leads from one commit to another on a branch that has `from` in some form.
    async fn apply(
        &self,
        from: &Snapshot,
        to: &Snapshot,
        branch: &RefName,
        options: CommitOptions,
        second_parent: Option<CommitId>,
        (since, sweep): Since,
    ) -> Result<CommitId, Error> {
        let changes = changes_between(from, to).await?;
        let options = CommitOptions {
            // The changes are those of the other side.
            on_conflict: options.on_conflict.swapped(),
            ..options
        };
        self.commit_pending(Pending {
            branch: branch.clone(),
            base: from.clone(),
            changes: Arc::new(changes),
            reads: None,
            options,
            write_id: Uuid::new_v4().to_string(),
            second_parent,
            sources: vec![to.id()],
            since,
            sweep,
        })
        .await
    }

    /// Where a branch is, and what a writer that starts now has to look out for.
    async fn branch_head(&self, branch: &RefName) -> Result<(CommitId, Since), Error> {
        let state = self.head().await?;
        let known = state.refs.keys().map(|name| name.name.as_str());
        let head = state
            .get(&Ref::branch(branch.clone()))
            .ok_or_else(|| Error::not_found("branch", branch.as_str(), known))?;
        let sweep = state.sweep.as_ref().map(|sweep| sweep.list);
        Ok((head, (state.next_sequence(), sweep)))
    }

    /// Moves a branch to any commit. The commits it leaves behind stay until they expire.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such branch or commit; [`Error::HeadMoved`] if the branch
    /// is not at `expected`; [`Error::KeyReused`] if another request had the key.
    pub async fn reset<'a>(
        &self,
        branch: &RefName,
        to: CommitId,
        expected: Option<CommitId>,
        asked: impl Into<Asked<'a>>,
    ) -> Result<Moved, Error> {
        self.find_commit(to).await?;
        let change = move |state: &LogState, name: &Ref| {
            let known = state.refs.keys().map(|known| known.name.as_str());
            let found = state
                .get(name)
                .ok_or_else(|| Error::not_found("branch", name.name.as_str(), known))?;
            match expected {
                Some(expected) if expected != found => Err(Error::HeadMoved {
                    branch: name.name.to_string(),
                    expected,
                    found,
                }),
                _ => Ok((Some(found), Some(to))),
            }
        };
        self.update_ref(asked.into(), Ref::branch(branch.clone()), change)
            .await
    }

    /// The nodes that differ between two commits, parents first.
    ///
    /// # Errors
    /// As [`Snapshot::find`].
    pub async fn diff(&self, from: CommitId, to: CommitId) -> Result<Vec<Difference>, Error> {
        let (from, to) = (self.snapshot(from).await?, self.snapshot(to).await?);
        let mut found = Vec::new();
        for (path, difference) in diff::nodes(&from, &to).await? {
            match difference {
                NodeDifference::Added(_) => {
                    add_all(&to, &path, DifferenceKind::Added, &mut found).await?;
                }
                NodeDifference::Removed(_) => {
                    add_all(&from, &path, DifferenceKind::Removed, &mut found).await?;
                }
                NodeDifference::Replaced(..) => {
                    add_all(&to, &path, DifferenceKind::Replaced, &mut found).await?;
                }
                NodeDifference::Changed(..) => {
                    if let (Some(old), Some(new)) = (from.find(&path).await?, to.find(&path).await?)
                    {
                        found.push(changed(&old, &new).await?);
                    }
                }
            }
        }
        Ok(found)
    }
}

/// A node that differs between two commits: what it was, and what it is.
pub type NodePair = (Option<Node>, Option<Node>);

impl Snapshot {
    /// The nodes in which this commit differs from a later one of the same repository, by path, each
    /// of those below a node that came or went as well. Subtrees that are equal are not read.
    ///
    /// # Errors
    /// As [`Snapshot::find`].
    pub async fn differences(&self, later: &Self) -> Result<BTreeMap<NodePath, NodePair>, Error> {
        let mut found: BTreeMap<NodePath, NodePair> = BTreeMap::new();
        for (path, difference) in diff::nodes(self, later).await? {
            let (was, is) = match difference {
                NodeDifference::Added(_) => (false, true),
                NodeDifference::Removed(_) => (true, false),
                NodeDifference::Replaced(..) => (true, true),
                NodeDifference::Changed(..) => {
                    let pair = (self.find(&path).await?, later.find(&path).await?);
                    found.insert(path, pair);
                    continue;
                }
            };
            if was {
                for node in self.walk(self.node(&path).await?).await? {
                    let path = node.path().clone();
                    found.entry(path).or_default().0 = Some(node);
                }
            }
            if is {
                for node in later.walk(later.node(&path).await?).await? {
                    let path = node.path().clone();
                    found.entry(path).or_default().1 = Some(node);
                }
            }
        }
        Ok(found)
    }
}

impl ArrayNode {
    /// The chunks in which this version of an array differs from a later one with the same chunk
    /// grid, in row order: what each was, and what it is. `None` where all is fill value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if a page is not what the tree names.
    pub async fn differences(
        &self,
        later: &Self,
    ) -> Result<Vec<(Option<ChunkRow>, Option<ChunkRow>)>, Error> {
        Ok(diff::chunks(self, later).await?.into_values().collect())
    }
}

/// The node at `path` and everything below it.
async fn add_all(
    snapshot: &Snapshot,
    path: &NodePath,
    kind: DifferenceKind,
    found: &mut Vec<Difference>,
) -> Result<(), Error> {
    let top = snapshot.node(path).await?;
    for node in snapshot.walk(top).await? {
        found.push(Difference {
            path: node.path().clone(),
            kind,
            node: node.row().kind,
            attributes: Vec::new(),
            metadata: Vec::new(),
            regions: Vec::new(),
            chunks: 0,
        });
    }
    Ok(())
}

async fn changed(old: &Node, new: &Node) -> Result<Difference, Error> {
    let [before, after] = [old, new].map(|node| documents::members(node.metadata()));
    let mut difference = Difference {
        path: new.path().clone(),
        kind: DifferenceKind::Changed,
        node: new.row().kind,
        attributes: documents::differing(
            &documents::attributes(&before),
            &documents::attributes(&after),
        ),
        metadata: documents::differing(&before, &after),
        regions: Vec::new(),
        chunks: 0,
    };
    difference.metadata.retain(|name| name != "attributes");
    if let (Node::Array(old), Node::Array(new)) = (old, new) {
        let lengths = old.metadata().shape().iter().zip(new.metadata().shape());
        if old.metadata().chunk_shape() != new.metadata().chunk_shape() {
            let whole: Vec<u64> = lengths.map(|(a, b)| *a.max(b)).collect();
            difference.regions = vec![Region::whole(&whole)];
            return Ok(difference);
        }
        let shape: Vec<u64> = lengths.map(|(a, b)| *a.max(b)).collect();
        let whole = Region::whole(&shape);
        let chunks = diff::chunks(old, new).await?;
        difference.chunks = chunks.len() as u64;
        let regions = chunks
            .keys()
            .map(|index| new.metadata().grid().chunk_region(index).intersect(&whole));
        difference.regions = coalesce(regions.collect());
    }
    Ok(difference)
}

/// The same cells in fewer boxes: boxes that touch along one axis and agree along the others become
/// one.
fn coalesce(mut boxes: Vec<Region>) -> Vec<Region> {
    let dimensions = boxes.first().map_or(0, |first| first.shape().len());
    for axis in (0..dimensions).rev() {
        let others = |region: &Region| -> Vec<(u64, u64)> {
            let all = region
                .start()
                .iter()
                .copied()
                .zip(region.shape().iter().copied());
            let others = all.enumerate().filter(|(at, _)| *at != axis);
            others.map(|(_, range)| range).collect()
        };
        boxes.sort_by_key(|region| (others(region), region.start()[axis]));
        let mut merged: Vec<Region> = Vec::with_capacity(boxes.len());
        for region in boxes {
            if let Some(last) = merged.last_mut()
                && others(last) == others(&region)
                && last.range(axis).end == region.range(axis).start
            {
                let mut shape = last.shape().to_vec();
                shape[axis] += region.shape()[axis];
                if let Ok(longer) = Region::new(last.start().to_vec(), shape) {
                    *last = longer;
                    continue;
                }
            }
            merged.push(region);
        }
        boxes = merged;
    }
    boxes.sort_by(|a, b| a.start().cmp(b.start()));
    boxes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn coalesced_boxes_cover_the_same_cells_once(
            chunks in prop::collection::btree_set((0u64..6, 0u64..6), 0..36)
        ) {
            let boxes = chunks
                .iter()
                .map(|&(y, x)| Region::new(vec![y, x], vec![1, 1]).unwrap())
                .collect();
            let merged = coalesce(boxes);
            let cells: Vec<Vec<u64>> = merged.iter().flat_map(Region::positions).collect();
            let distinct: BTreeSet<(u64, u64)> = cells.iter().map(|at| (at[0], at[1])).collect();
            prop_assert_eq!(cells.len(), distinct.len());
            prop_assert_eq!(distinct, chunks);
        }
    }
}
