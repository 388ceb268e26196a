//! The changes of a transaction or of one side of a merge, and what is visible through them.

use std::collections::BTreeMap;
use std::sync::Arc;

use array::{ArrayMetadata, GroupMetadata, NodePath};

use crate::chunk_changes::ChunkChanges;
use crate::tree::{NodeKind, TreeRow};

/// What becomes of one node.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It goes, with everything below it.
    Delete,
    /// It is a group.
    Group(GroupChange),
    /// It is an array.
    Array(Arc<ArrayChange>),
}

/// What a changed node was before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// What the base has under the same path.
    Base,
    /// Nothing: it takes the place of whatever was there.
    New,
    /// A node of another commit or path: it takes the place of whatever was there, with all its
    /// members or chunks.
    Node {
        row: Box<TreeRow>,
        /// Where the base has it, if it was moved.
        path: Option<NodePath>,
    },
}

impl Origin {
    /// A node that was moved away from `from`, where the base has `row`.
    pub(crate) fn moved(row: Option<TreeRow>, from: &NodePath) -> Self {
        match row {
            None => Self::New,
            Some(row) => Self::Node {
                row: Box::new(row),
                path: Some(from.clone()),
            },
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct GroupChange {
    pub(crate) origin: Origin,
    /// `None` keeps the origin's.
    pub(crate) metadata: Option<GroupMetadata>,
}

/// An array and the chunks of it that change.
#[derive(Clone, Debug)]
pub(crate) struct ArrayChange {
    pub(crate) origin: Origin,
    pub(crate) metadata: Arc<ArrayMetadata>,
    /// The shortest the array has been along each dimension since its origin: what it had beyond is
    /// gone, even if it is longer now. `u64::MAX` where it was never cut.
    pub(crate) cut: Vec<u64>,
    pub(crate) chunks: ChunkChanges,
}

impl ArrayChange {
    /// One that has not been cut.
    pub(crate) fn new(origin: Origin, metadata: Arc<ArrayMetadata>, chunks: ChunkChanges) -> Self {
        Self {
            origin,
            cut: vec![u64::MAX; metadata.dimensions()],
            metadata,
            chunks,
        }
    }

    /// The chunks of the origin, whose grid is `grid`, that are still there.
    pub(crate) fn kept_grid(&self, grid: &[u64]) -> Vec<u64> {
        let new = self.metadata.grid().grid_shape();
        let cut = self.cut.iter().zip(self.metadata.chunk_shape());
        let cut = cut.map(|(cut, chunk)| cut.div_ceil(*chunk));
        let old = grid.iter().zip(new);
        old.zip(cut)
            .map(|((old, new), cut)| new.min(*old).min(cut))
            .collect()
    }

    /// The row of what the array was before, given what the base has under its path.
    pub(crate) fn origin_row(&self, base: Option<TreeRow>) -> Option<TreeRow> {
        match &self.origin {
            Origin::Base => base,
            Origin::New => None,
            Origin::Node { row, .. } => Some(TreeRow::clone(row)),
        }
    }
}

impl Change {
    /// Whether what was there before goes.
    pub(crate) fn removes_base(&self) -> bool {
        match self {
            Self::Delete => true,
            Self::Group(group) => group.origin != Origin::Base,
            Self::Array(array) => array.origin != Origin::Base,
        }
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Delete => None,
            Self::Group(group) => Some(&group.origin),
            Self::Array(array) => Some(&array.origin),
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

    /// Keys of the chunks that are stored in objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = String> {
        let arrays = self.0.values().filter_map(|change| match change {
            Change::Array(array) => Some(array),
            _ => None,
        });
        arrays.flat_map(|array| array.chunks.objects())
    }

    /// The changes strictly below `path`.
    pub(crate) fn below<'a>(
        &'a self,
        path: &'a NodePath,
    ) -> impl Iterator<Item = (&'a NodePath, &'a Change)> {
        // Names under `path` sort between "path/" and "path0", the character after the slash.
        let end = format!("{}0", path.as_str());
        self.0
            .range(path..)
            .take_while(move |(other, _)| path.is_root() || other.as_str() < end.as_str())
            .filter(move |(other, _)| *other != path && other.starts_with(path))
    }

    /// Where the base has what is at `path`, unless a change of the node itself says otherwise:
    /// the same place, or another one if a group above was moved.
    pub(crate) fn base_place(&self, path: &NodePath) -> BasePlace {
        for above in path.ancestors().iter().rev() {
            match self.get(above).map(Change::origin) {
                None | Some(Some(Origin::Base)) => {}
                Some(None | Some(Origin::New)) => return BasePlace::Nowhere,
                Some(Some(Origin::Node { row, .. })) => {
                    let depth = above.names().count();
                    let rest = path.names().skip(depth).map(str::to_owned).collect();
                    return BasePlace::Below(row.clone(), rest);
                }
            }
        }
        BasePlace::Same
    }

    /// What is at `path`, given what [`Changes::base_place`] has there.
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
            None => base,
        }
    }

    /// Sets the change of a node. Deleted groups above it come back empty.
    pub(crate) fn insert(&mut self, path: NodePath, change: Change) {
        for above in path.ancestors() {
            if let Some(removed @ Change::Delete) = self.0.get_mut(&above) {
                *removed = Change::Group(GroupChange {
                    origin: Origin::New,
                    metadata: None,
                });
            }
        }
        self.0.insert(path, change);
    }

    /// Forgets the changes at and below `path`.
    pub(crate) fn forget(&mut self, path: &NodePath) {
        self.0.retain(|other, _| !other.starts_with(path));
    }

    /// Forgets the changes at and below `path`, and deletes what is there, if anything.
    pub(crate) fn delete(&mut self, path: &NodePath, is_in_base: bool) {
        self.forget(path);
        if is_in_base {
            self.0.insert(path.clone(), Change::Delete);
        }
    }
}

/// Where to look for what is below changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BasePlace {
    /// Under the same path.
    Same,
    /// These names below this group.
    Below(Box<TreeRow>, Vec<String>),
    /// A group above was deleted or made anew.
    Nowhere,
}
