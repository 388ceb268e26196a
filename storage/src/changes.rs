//! The changes of a transaction or of one side of a merge, and what is visible through them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use array::{ArrayMetadata, ChunkIndex, ChunkKind, GroupMetadata, Hash, NodePath, Statistics};

use crate::Error;
use crate::layout::Layout;
use crate::object::shard_key;
use crate::page::{ChunkRow, Location, ManifestRow, StatisticsRow};
use crate::radix::RowChange;
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

/// Which inner chunks of a chunk a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of them.
    Whole,
    /// These, in ascending order.
    Inner(Box<[u32]>),
    /// Those that differ from the chunk before.
    Differing,
}

/// What becomes of a chunk.
///
/// Transactions of ten million chunks are held in memory, so the rare parts are apart.
#[derive(Clone, Debug)]
pub(crate) enum ChunkChange {
    /// It is all fill value.
    Removed(Written),
    /// It has these bytes.
    Present {
        kind: ChunkKind,
        id: Hash,
        length: u64,
        /// `None` if it is stored, written whole, and without statistics.
        extra: Option<Box<Extra>>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Extra {
    pub(crate) location: Location,
    pub(crate) statistics: Option<Statistics>,
    pub(crate) written: Written,
}

impl ChunkChange {
    pub(crate) fn present(row: ChunkRow, statistics: Option<Statistics>, written: Written) -> Self {
        let is_plain =
            row.location == Location::Stored && statistics.is_none() && written == Written::Whole;
        let extra = Extra {
            location: row.location,
            statistics,
            written,
        };
        Self::Present {
            kind: row.kind,
            id: row.id,
            length: row.length,
            extra: (!is_plain).then(|| Box::new(extra)),
        }
    }

    /// The chunk's row; `None` if it is all fill value.
    pub(crate) fn row(&self, index: ChunkIndex) -> Option<ChunkRow> {
        match self {
            Self::Removed(_) => None,
            Self::Present {
                kind,
                id,
                length,
                extra,
            } => Some(ChunkRow {
                index,
                kind: *kind,
                id: *id,
                length: *length,
                location: extra
                    .as_ref()
                    .map_or(Location::Stored, |extra| extra.location.clone()),
            }),
        }
    }

    pub(crate) fn statistics(&self) -> Option<Statistics> {
        match self {
            Self::Removed(_) => None,
            Self::Present { extra, .. } => extra.as_ref().and_then(|extra| extra.statistics),
        }
    }

    /// The same, but about these inner chunks.
    pub(crate) fn with_written(self, written: Written) -> Self {
        match self {
            Self::Removed(_) => Self::Removed(written),
            Self::Present {
                kind,
                id,
                length,
                extra,
            } => {
                let mut extra = extra.unwrap_or_else(|| {
                    Box::new(Extra {
                        location: Location::Stored,
                        statistics: None,
                        written: Written::Whole,
                    })
                });
                extra.written = written;
                let is_plain = extra.location == Location::Stored
                    && extra.statistics.is_none()
                    && extra.written == Written::Whole;
                Self::Present {
                    kind,
                    id,
                    length,
                    extra: (!is_plain).then_some(extra),
                }
            }
        }
    }

    pub(crate) fn written(&self) -> &Written {
        match self {
            Self::Removed(written) => written,
            Self::Present { extra, .. } => extra
                .as_ref()
                .map_or(&Written::Whole, |extra| &extra.written),
        }
    }
}

/// Changes to chunks of one array, by their address in the layout of its grid.
#[derive(Clone, Debug)]
pub(crate) struct ChunkChanges {
    layout: Layout,
    by_address: BTreeMap<u128, ChunkChange>,
}

impl ChunkChanges {
    /// None yet, of an array with this metadata.
    ///
    /// # Errors
    /// [`Error::Array`] for a grid of 2^64 chunks or more.
    pub(crate) fn new(metadata: &ArrayMetadata) -> Result<Self, Error> {
        Ok(Self {
            layout: Layout::new(&metadata.grid().grid_shape())?,
            by_address: BTreeMap::new(),
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    pub(crate) fn get(&self, index: &ChunkIndex) -> Option<&ChunkChange> {
        if !self.layout.fits(index.as_slice()) {
            return None;
        }
        let address = self.layout.address(index.as_slice());
        self.by_address.get(&address)
    }

    /// `index` is in the grid.
    pub(crate) fn insert(&mut self, index: &ChunkIndex, change: ChunkChange) {
        let address = self.layout.address(index.as_slice());
        self.by_address.insert(address, change);
    }

    /// What counts as written of a chunk if `more` is written now.
    pub(crate) fn written_with(&self, index: &ChunkIndex, more: Written) -> Written {
        let Some(before) = self.get(index).map(ChunkChange::written) else {
            return more;
        };
        match (before, more) {
            (Written::Inner(before), Written::Inner(more)) => {
                let both: BTreeSet<u32> = before.iter().chain(&more).copied().collect();
                Written::Inner(both.into_iter().collect())
            }
            _ => Written::Whole,
        }
    }

    /// Forgets the change of a chunk, if it is in the grid and has one.
    pub(crate) fn remove(&mut self, index: &ChunkIndex) {
        if !self.layout.fits(index.as_slice()) {
            return;
        }
        self.by_address
            .remove(&self.layout.address(index.as_slice()));
    }

    /// In address order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChunkIndex, &ChunkChange)> {
        self.by_address
            .iter()
            .map(|(&address, change)| (ChunkIndex::new(self.layout.coordinate(address)), change))
    }

    /// The same changes over the grid of `metadata`, without those outside it.
    ///
    /// # Errors
    /// As [`ChunkChanges::new`].
    pub(crate) fn moved_to(&self, metadata: &ArrayMetadata) -> Result<Self, Error> {
        let mut moved = Self::new(metadata)?;
        for (index, change) in self.iter() {
            if metadata.grid().contains(&index) {
                moved.insert(&index, change.clone());
            }
        }
        Ok(moved)
    }

    /// Whether every chunk that is not all fill value comes with its statistics.
    pub(crate) fn all_have_statistics(&self) -> bool {
        self.by_address.values().all(|change| {
            matches!(change, ChunkChange::Removed(_)) || change.statistics().is_some()
        })
    }

    pub(crate) fn manifest_changes(&self) -> Vec<AddressedChange<'_>> {
        let entry = |(&address, change)| AddressedChange { address, change };
        self.by_address.iter().map(entry).collect()
    }
}

/// A chunk's change as a change to a row, without copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressedChange<'a> {
    address: u128,
    change: &'a ChunkChange,
}

impl RowChange<ManifestRow> for AddressedChange<'_> {
    fn address(&self) -> u128 {
        self.address
    }

    fn row(&self, layout: &Layout) -> Option<ManifestRow> {
        let index = ChunkIndex::new(layout.coordinate(self.address));
        self.change.row(index).map(ManifestRow::Chunk)
    }
}

impl RowChange<StatisticsRow> for AddressedChange<'_> {
    fn address(&self) -> u128 {
        self.address
    }

    fn row(&self, layout: &Layout) -> Option<StatisticsRow> {
        Some(StatisticsRow {
            coordinate: layout.coordinate(self.address),
            child: None,
            statistics: self.change.statistics()?,
        })
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
        arrays
            .flat_map(|array| array.chunks.by_address.values())
            .filter_map(|change| {
                let ChunkChange::Present { id, extra, .. } = change else {
                    return None;
                };
                let location = extra.as_ref().map(|extra| &extra.location);
                let is_stored = location.is_none_or(|location| *location == Location::Stored);
                is_stored.then(|| shard_key(id))
            })
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
