//! Applying changes made to one commit to another one.
//!
//! ```text
//! base ──► theirs   compared tree by tree, equal subtrees skipped
//!   └────► ours     the changes
//! ```
//!
//! Everything both sides changed is a conflict, even if they made the same of it, down to inner
//! chunks and single attributes; what only one side changed merges. Policies settle conflicts by
//! path: inner chunks and attributes one by one, everything else by taking the whole node from one
//! side.
//!
//! Spec: `docs/format.md`, "Rebase".

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use array::{ArrayMetadata, ChunkIndex, GroupMetadata, NodeMetadata, NodePath};

use crate::Error;
use crate::changes::{ArrayChange, Change, Changes, GroupChange, Origin};
use crate::chunk_changes::{ChunkChange, ChunkChanges, Written};
use crate::conflict::{Conflict, ConflictKind, OnConflict, Policies};
use crate::diff::{self, ChunkDifferences, NodeDifference};
use crate::documents::{self, Documents};
use crate::history;
use crate::page::ChunkRow;
use crate::reads::Reads;
use crate::snapshot::{ArrayNode, Node, Snapshot};
use crate::splice::{InnerChunks, reaches_past};
use crate::tree::NodeKind;
use crate::uploads::Uploads;

/// The two commits, and how to settle conflicts.
pub(crate) struct Sides<'a> {
    pub(crate) base: &'a Snapshot,
    pub(crate) onto: &'a Snapshot,
    pub(crate) policies: &'a Policies,
}

/// The changes that do to `onto` what `changes` do to `base`, or the conflicts.
pub(crate) async fn rebase(
    sides: &Sides<'_>,
    uploads: &Uploads,
    changes: &Changes,
    reads: Option<&Reads>,
) -> Result<Result<Changes, Vec<Conflict>>, Error> {
    let mut rebase = Rebase {
        sides,
        uploads,
        theirs: diff::nodes(sides.base, sides.onto).await?,
        recreated: history::deleted_between(sides.base, sides.onto).await?,
        conflicts: Vec::new(),
        result: changes.clone(),
    };
    for (path, change) in changes.iter() {
        rebase.change(path, change).await?;
    }
    if let Some(reads) = reads {
        let broken = reads
            .broken(sides, &rebase.theirs, &rebase.recreated)
            .await?;
        rebase.conflicts.extend(broken);
    }
    if rebase.conflicts.is_empty() {
        return Ok(Ok(rebase.result));
    }
    let mut conflicts = rebase.conflicts;
    conflicts.sort_by(|a, b| (&a.path, &a.kind).cmp(&(&b.path, &b.kind)));
    conflicts.dedup();
    Ok(Err(conflicts))
}

struct Rebase<'a> {
    sides: &'a Sides<'a>,
    uploads: &'a Uploads,
    theirs: BTreeMap<NodePath, NodeDifference>,
    /// Nodes the other side deleted on the way, those it created again included.
    recreated: BTreeSet<NodePath>,
    conflicts: Vec<Conflict>,
    result: Changes,
}

impl Rebase<'_> {
    async fn change(&mut self, path: &NodePath, change: &Change) -> Result<(), Error> {
        if self.result.get(path).is_none() {
            // A policy gave this node, or one above it, to the other side.
            return Ok(());
        }
        if let Some((above, kind)) = self.collision_above(path) {
            return self.whole_node(&above, kind).await;
        }
        if change.removes_base() {
            return match self.collision_with_removal(path).await? {
                Some(kind) => self.whole_node(path, kind).await,
                None => Ok(()),
            };
        }
        let gone = self.recreated.contains(path);
        match self.theirs.get(path).cloned() {
            None if gone => self.whole_node(path, ConflictKind::Deleted).await,
            None => Ok(()),
            Some(NodeDifference::Changed(..)) if !gone => self.both_changed(path, change).await,
            Some(NodeDifference::Added(_)) => self.whole_node(path, ConflictKind::Created).await,
            Some(_) => self.whole_node(path, ConflictKind::Deleted).await,
        }
    }

    /// A group above `path` that the other side deleted, or where it created an array.
    fn collision_above(&self, path: &NodePath) -> Option<(NodePath, ConflictKind)> {
        for above in path.ancestors() {
            // Reported for that node itself.
            if self.result.get(&above).is_some_and(Change::removes_base) {
                return None;
            }
            let kind = match self.theirs.get(&above) {
                Some(NodeDifference::Removed(_) | NodeDifference::Replaced(..)) => {
                    ConflictKind::Deleted
                }
                Some(NodeDifference::Added(row)) if row.kind == NodeKind::Array => {
                    ConflictKind::Created
                }
                _ if self.recreated.contains(&above) => ConflictKind::Deleted,
                _ => continue,
            };
            return Some((above, kind));
        }
        None
    }

    /// What the other side did at or under a node that this side deletes, creates or replaces.
    async fn collision_with_removal(&self, path: &NodePath) -> Result<Option<ConflictKind>, Error> {
        if self.sides.base.row(path).await?.is_none() {
            let created = self.theirs.get(path).map(|_| ConflictKind::Created);
            return Ok(created);
        }
        let touched = self.theirs.keys().any(|other| other.starts_with(path))
            || self.recreated.iter().any(|other| other.starts_with(path));
        Ok(touched.then_some(ConflictKind::Deleted))
    }

    /// Notes a conflict about a whole node, or settles it by taking the node from one side.
    async fn whole_node(&mut self, path: &NodePath, kind: ConflictKind) -> Result<(), Error> {
        match self.sides.policies.of(path) {
            OnConflict::Fail => self.conflicts.push(Conflict {
                path: path.clone(),
                kind,
                region: None,
            }),
            OnConflict::Theirs => self.result.forget(path),
            OnConflict::Ours => self.keep_ours(path).await?,
        }
        Ok(())
    }

    /// Makes the node what this side made of it, whatever the other side has there.
    async fn keep_ours(&mut self, path: &NodePath) -> Result<(), Error> {
        let row = self.sides.base.row(path).await?;
        let origin = match row {
            Some(row) => Origin::Node {
                row: Box::new(row),
                path: None,
            },
            None => Origin::New,
        };
        let kept = match self.result.get(path).cloned() {
            Some(change) if change.removes_base() => return Ok(()),
            Some(Change::Array(array)) => {
                let mut array = Arc::unwrap_or_clone(array);
                array.origin = origin;
                Change::Array(Arc::new(array))
            }
            Some(Change::Group(group)) => Change::Group(GroupChange { origin, ..group }),
            // A group above a change of this side.
            None | Some(Change::Delete) => Change::Group(GroupChange {
                origin,
                metadata: None,
            }),
        };
        self.result.insert(path.clone(), kept);
        Ok(())
    }

    /// Merges a node that both sides changed in place.
    async fn both_changed(&mut self, path: &NodePath, change: &Change) -> Result<(), Error> {
        let (Some(base), Some(onto)) = (
            self.sides.base.find(path).await?,
            self.sides.onto.find(path).await?,
        ) else {
            return Ok(());
        };
        match (change, base, onto) {
            (Change::Array(ours), Node::Array(base), Node::Array(onto)) => {
                self.arrays(path, ours, &base, &onto).await
            }
            (Change::Group(ours), Node::Group(base), Node::Group(onto)) => {
                let (Some(metadata), base) = (&ours.metadata, base.metadata()) else {
                    return Ok(());
                };
                let merged = self.group_metadata(path, base, metadata, onto.metadata())?;
                let change = GroupChange {
                    origin: Origin::Base,
                    metadata: Some(merged),
                };
                self.result.insert(path.clone(), Change::Group(change));
                Ok(())
            }
            _ => self.whole_node(path, ConflictKind::Created).await,
        }
    }

    fn group_metadata(
        &mut self,
        path: &NodePath,
        base: &GroupMetadata,
        ours: &GroupMetadata,
        theirs: &GroupMetadata,
    ) -> Result<GroupMetadata, Error> {
        let [base, ours, theirs] = [base, ours, theirs]
            .map(|metadata| documents::members(&NodeMetadata::Group(metadata.clone())));
        let sides = Documents {
            base: &base,
            ours: &ours,
            theirs: &theirs,
        };
        let (merged, conflicts) = sides.merge(self.sides.policies.of(path));
        self.note(path, conflicts);
        match NodeMetadata::from_json(merged.into())? {
            NodeMetadata::Group(group) => Ok(group),
            NodeMetadata::Array(_) => Err(Error::invalid("merge", "a group became an array")),
        }
    }

    fn note(&mut self, path: &NodePath, kinds: Vec<ConflictKind>) {
        self.conflicts
            .extend(kinds.into_iter().map(|kind| Conflict {
                path: path.clone(),
                kind,
                region: None,
            }));
    }

    async fn arrays(
        &mut self,
        path: &NodePath,
        ours: &ArrayChange,
        base: &ArrayNode,
        onto: &ArrayNode,
    ) -> Result<(), Error> {
        let policy = self.sides.policies.of(path);
        let document =
            |metadata: &ArrayMetadata| documents::members(&NodeMetadata::Array(metadata.clone()));
        let [old, mine, new] =
            [base.metadata(), &ours.metadata, onto.metadata()].map(|metadata| document(metadata));
        let sides = Documents {
            base: &old,
            ours: &mine,
            theirs: &new,
        };
        let (ours_means, theirs_means) =
            (sides.changes_meaning(&mine), sides.changes_meaning(&new));
        if theirs_means && (ours_means || !ours.chunks.is_empty()) {
            return self.whole_node(path, ConflictKind::Metadata).await;
        }
        if sides.changes_shape(&mine) && sides.changes_shape(&new) {
            return self.whole_node(path, ConflictKind::Shape).await;
        }
        let theirs = diff::chunks(base, onto).await?;
        if ours_means && !theirs.is_empty() {
            return self.whole_node(path, ConflictKind::Metadata).await;
        }
        let (merged, conflicts) = sides.merge(policy);
        self.note(path, conflicts);
        let NodeMetadata::Array(merged) = NodeMetadata::from_json(merged.into())? else {
            return Err(Error::invalid("merge", "an array became a group"));
        };
        let arrays = Arrays {
            path,
            inner: InnerChunks::of(&ours.metadata)?,
            ours,
            base,
            onto,
        };
        let dropped = arrays.dropped_regions(&theirs).await?;
        if !dropped.is_empty() && policy != OnConflict::Fail {
            return self.whole_node(path, ConflictKind::DroppedRegion).await;
        }
        let mut chunks = ours.chunks.moved_to(&merged)?;
        let clashes = arrays
            .merge_chunks(&theirs, &mut chunks, self.uploads, policy)
            .await?;
        // A cut counts as a write to what it drops: said once is enough.
        let said: HashSet<_> = dropped.iter().map(|cut| cut.region.clone()).collect();
        let is_new = |clash: &Conflict| !said.contains(&clash.region);
        let clashes = clashes.into_iter().filter(is_new);
        self.conflicts.extend(dropped.into_iter().chain(clashes));
        let change = ArrayChange {
            origin: Origin::Base,
            metadata: Arc::new(merged),
            cut: ours.cut.clone(),
            chunks,
        };
        self.result
            .insert(path.clone(), Change::Array(Arc::new(change)));
        Ok(())
    }
}

/// One array that both sides changed.
struct Arrays<'a> {
    path: &'a NodePath,
    inner: InnerChunks,
    ours: &'a ArrayChange,
    base: &'a ArrayNode,
    onto: &'a ArrayNode,
}

impl Arrays<'_> {
    /// What one side wrote where the other has cut the array off.
    async fn dropped_regions(&self, theirs: &ChunkDifferences) -> Result<Vec<Conflict>, Error> {
        let base = self.base.metadata().shape();
        let shrinks = |shape: &[u64]| shape.iter().zip(base).any(|(now, before)| now < before);
        let mut found = Vec::new();
        let (ours, onto) = (self.ours.metadata.shape(), self.onto.metadata().shape());
        let kept: Vec<u64> = ours
            .iter()
            .zip(&self.ours.cut)
            .map(|(a, b)| *a.min(b))
            .collect();
        if shrinks(onto) {
            for (index, change) in self.ours.chunks.iter() {
                let before = self.base_row(&index).await?;
                let repository = self.base.repository();
                let written = self
                    .inner
                    .written(repository, &change, before.as_ref(), &index)
                    .await?;
                self.past(onto, ours, &index, &written, &mut found)?;
            }
        }
        if shrinks(&kept) {
            for (index, (before, after)) in theirs {
                let written = self
                    .inner
                    .differing(self.base.repository(), before.as_ref(), after.as_ref())
                    .await?;
                self.past(&kept, onto, index, &written, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Notes the inner chunks that reach past the `cut` shape, as seen in an array of `shape`.
    fn past(
        &self,
        cut: &[u64],
        shape: &[u64],
        index: &ChunkIndex,
        written: &[u32],
        found: &mut Vec<Conflict>,
    ) -> Result<(), Error> {
        for &inner in written {
            let region = self.inner.region(index, inner, shape)?;
            if reaches_past(&region, cut) {
                found.push(self.conflict(ConflictKind::DroppedRegion, region));
            }
        }
        Ok(())
    }

    fn conflict(&self, kind: ConflictKind, region: array::Region) -> Conflict {
        Conflict {
            path: self.path.clone(),
            kind,
            region: Some(region),
        }
    }

    async fn base_row(&self, index: &ChunkIndex) -> Result<Option<ChunkRow>, Error> {
        if !self.base.metadata().grid().contains(index) {
            return Ok(None);
        }
        self.base.chunk(index).await
    }

    /// Puts what both sides wrote to the same chunks together in `chunks`; gives the inner chunks
    /// both wrote to, which `policy` does not settle.
    async fn merge_chunks(
        &self,
        theirs: &ChunkDifferences,
        chunks: &mut ChunkChanges,
        uploads: &Uploads,
        policy: OnConflict,
    ) -> Result<Vec<Conflict>, Error> {
        let mut clashes = Vec::new();
        let repository = self.base.repository();
        for (index, (before, after)) in theirs {
            let Some(change) = self.ours.chunks.get(index) else {
                continue;
            };
            let mut mine = self
                .inner
                .written(repository, &change, before.as_ref(), index)
                .await?;
            let changed = self
                .inner
                .differing(repository, before.as_ref(), after.as_ref())
                .await?;
            let both: Vec<u32> = mine
                .iter()
                .copied()
                .filter(|inner| changed.binary_search(inner).is_ok())
                .collect();
            match policy {
                OnConflict::Fail => {
                    for &inner in &both {
                        let shape = self.ours.metadata.shape();
                        let region = self.inner.region(index, inner, shape)?;
                        clashes.push(self.conflict(ConflictKind::Data, region));
                    }
                    if !both.is_empty() {
                        continue;
                    }
                }
                OnConflict::Ours => {}
                OnConflict::Theirs => mine.retain(|inner| both.binary_search(inner).is_err()),
            }
            if mine.is_empty() {
                chunks.remove(index);
                continue;
            }
            if !self.inner.can_splice() {
                // A plain chunk is one inner chunk, and it is ours.
                continue;
            }
            let own = change.row(index.clone());
            let spliced = self
                .inner
                .splice(
                    repository,
                    uploads,
                    index,
                    (own.as_ref(), &mine),
                    after.as_ref(),
                )
                .await?;
            let merged = match spliced {
                None => ChunkChange::Removed(Written::Inner(mine.into())),
                Some((row, bytes)) => {
                    let statistics = repository
                        .summarize(&self.ours.metadata, index, bytes)
                        .await?;
                    ChunkChange::present(row, statistics, Written::Inner(mine.into()))
                }
            };
            chunks.insert(index, &merged);
        }
        Ok(clashes)
    }
}
