//! The changes a transaction holds, and what is visible through them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use array::{ArrayMetadata, ChunkIndex, GroupMetadata, NodePath, Statistics};

use crate::page::ChunkRow;
use crate::tree::NodeKind;

/// What becomes of one node.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It goes, with everything below it.
    Delete,
    /// It is a group with this metadata.
    Group {
        metadata: GroupMetadata,
        /// Takes the place of whatever was there; its members are only those of these changes.
        is_new: bool,
    },
    /// It is an array.
    Array(Arc<ArrayChange>),
}

/// An array and the chunks of it that change.
#[derive(Clone, Debug)]
pub(crate) struct ArrayChange {
    pub(crate) metadata: ArrayMetadata,
    /// Takes the place of whatever was there; the old chunks are dropped.
    pub(crate) is_new: bool,
    /// Chunks written; `None` for those that become all fill value.
    pub(crate) chunks: HashMap<ChunkIndex, Option<(ChunkRow, Option<Statistics>)>>,
}

impl Change {
    /// Whether what was there before goes.
    pub(crate) fn removes_base(&self) -> bool {
        match self {
            Self::Delete => true,
            Self::Group { is_new, .. } => *is_new,
            Self::Array(array) => array.is_new,
        }
    }
}

/// Changes to nodes, by path.
///
/// Guarantee: no change lies below a [`Change::Delete`] or a [`Change::Array`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(BTreeMap<NodePath, Change>);

impl Changes {
    pub(crate) fn get(&self, path: &NodePath) -> Option<&Change> {
        self.0.get(path)
    }

    pub(crate) fn get_mut(&mut self, path: &NodePath) -> Option<&mut Change> {
        self.0.get_mut(path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodePath, &Change)> {
        self.0.iter()
    }

    /// The changes strictly below `path`.
    pub(crate) fn below<'a>(
        &'a self,
        path: &'a NodePath,
    ) -> impl Iterator<Item = (&'a NodePath, &'a Change)> {
        self.0
            .iter()
            .filter(move |(other, _)| *other != path && other.starts_with(path))
    }

    /// Whether what the base has at `path` is gone because a node above it is.
    pub(crate) fn hide_base(&self, path: &NodePath) -> bool {
        let removed = |above: &NodePath| self.get(above).is_some_and(Change::removes_base);
        path.ancestors().iter().any(removed)
    }

    /// What is at `path`, given what the base has there.
    pub(crate) fn kind(&self, path: &NodePath, base: Option<NodeKind>) -> Option<NodeKind> {
        match self.get(path) {
            Some(Change::Delete) => None,
            Some(Change::Group { .. }) => Some(NodeKind::Group),
            Some(Change::Array(_)) => Some(NodeKind::Array),
            // Groups above a new node are made with it.
            None if self
                .below(path)
                .any(|(_, change)| !matches!(change, Change::Delete)) =>
            {
                Some(NodeKind::Group)
            }
            None if self.hide_base(path) => None,
            None => base,
        }
    }

    /// Sets the change of a node. Deleted groups above it come back empty.
    pub(crate) fn insert(&mut self, path: NodePath, change: Change) {
        for above in path.ancestors() {
            if let Some(removed @ Change::Delete) = self.0.get_mut(&above) {
                *removed = Change::Group {
                    metadata: GroupMetadata::default(),
                    is_new: true,
                };
            }
        }
        self.0.insert(path, change);
    }

    /// Forgets the changes at and below `path`, and deletes what the base has there, if anything.
    pub(crate) fn delete(&mut self, path: &NodePath, is_in_base: bool) {
        let is_in_base = is_in_base && !self.hide_base(path);
        self.0.retain(|other, _| !other.starts_with(path));
        if is_in_base {
            self.0.insert(path.clone(), Change::Delete);
        }
    }
}
