//! The commit that changes make of a head: builds what they touch of its trees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use array::hash;
use array::{ArrayMetadata, ChunkIndex, GroupMetadata, NodeMetadata, NodePath, Region};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use crate::changes::{ArrayChange, Change, Changes, GroupChange, Origin};
use crate::commit::Commit;
use crate::inline::settle_inline;
use crate::layout::Layout;
use crate::page::{ManifestRow, PageRow as _};
use crate::radix::{Finished, Tally, Update};
use crate::repository::Repository;
use crate::snapshot::{Snapshot, row_with_document, statistics_metadata};
use crate::transaction::CommitOptions;
use crate::tree::{NodeKind, StatisticsRoot, TreeRow};
use crate::uploads::Uploads;
use crate::{CommitId, Error};

/// Applies `changes` to `onto`; everything but the commit itself is being uploaded.
pub(crate) async fn build(
    uploads: &Uploads,
    onto: &Snapshot,
    changes: &Changes,
    options: &CommitOptions,
    write_id: &str,
    second_parent: Option<CommitId>,
) -> Result<Commit, Error> {
    let builder = Builder {
        repository: onto.repository(),
        uploads,
        changes,
    };
    let before = onto.commit().root.clone();
    let root = builder.group(NodePath::root(), Some(before)).await?;
    let mut deleted = Vec::new();
    for (path, change) in changes.iter() {
        if change.removes_base() && onto.row(path).await?.is_some() {
            deleted.push(path.clone());
        }
    }
    Ok(Commit {
        parents: [Some(onto.id()), second_parent]
            .into_iter()
            .flatten()
            .collect(),
        root,
        time: DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default(),
        author: options.author.clone(),
        message: options.message.clone(),
        properties: options.properties.clone(),
        deleted,
        write_id: write_id.to_owned(),
    })
}

struct Builder<'a> {
    repository: &'a Repository,
    uploads: &'a Uploads,
    changes: &'a Changes,
}

impl Builder<'_> {
    /// The row of the group at `path` after the changes; `before` is its row now, if it is there.
    fn group(
        &self,
        path: NodePath,
        before: Option<TreeRow>,
    ) -> BoxFuture<'_, Result<TreeRow, Error>> {
        Box::pin(async move {
            let own = match self.changes.get(&path) {
                Some(Change::Group(group)) => Some(group.clone()),
                _ => None,
            };
            let origin = own.as_ref().map_or(&Origin::Base, |group| &group.origin);
            let before = before_change(before, origin, NodeKind::Group);
            let members = match &before {
                Some(row) => self.repository.trees().members(row.content).await?,
                None => Vec::new(),
            };
            let mut members: BTreeMap<String, TreeRow> = members
                .into_iter()
                .map(|row| (row.name.clone(), row))
                .collect();
            for name in self.touched(&path) {
                let child = path.join(&name)?;
                let before = members.remove(&name);
                let row = match self.changes.get(&child) {
                    Some(Change::Delete) => None,
                    Some(Change::Array(array)) => Some(self.array(&name, before, array).await?),
                    Some(Change::Group { .. }) | None => Some(self.group(child, before).await?),
                };
                members.extend(row.map(|row| (name, row)));
            }
            let rows: Vec<TreeRow> = members.into_values().collect();
            let stored_bytes = rows
                .iter()
                .fold(0u64, |sum, row| sum.saturating_add(row.stored_bytes));
            let content = self.repository.trees().write(rows, self.uploads).await?;
            match (own, before) {
                (None | Some(GroupChange { metadata: None, .. }), Some(before)) => Ok(TreeRow {
                    name: path.name().to_owned(),
                    content,
                    stored_bytes,
                    ..before
                }),
                (own, _) => {
                    let metadata = own.and_then(|group| group.metadata);
                    let metadata =
                        NodeMetadata::Group(metadata.unwrap_or_else(GroupMetadata::default));
                    let name = path.name();
                    row_with_document(self.uploads, name, &metadata, content, stored_bytes, None)
                        .await
                }
            }
        })
    }

    /// Names of the members of the group at `path` at or under which something changes.
    fn touched(&self, path: &NodePath) -> BTreeSet<String> {
        let depth = path.names().count();
        let below = self.changes.below(path);
        below
            .filter_map(|(other, _)| other.names().nth(depth).map(str::to_owned))
            .collect()
    }

    async fn array(
        &self,
        name: &str,
        before: Option<TreeRow>,
        change: &ArrayChange,
    ) -> Result<TreeRow, Error> {
        let before = match before_change(before, &change.origin, NodeKind::Array) {
            Some(row) => Some(Before::read(self.repository, row).await?),
            None => None,
        };
        let layout = change.chunks.layout();
        let store = self.repository.store().clone();
        let manifest = Update {
            layout,
            uploads: self.uploads,
            finish_leaf: move |rows| -> Finished<ManifestRow> {
                Box::pin(settle_inline(store.clone(), rows))
            },
            tally: Tally::default(),
        };
        let pages = self.repository.manifests();
        let root = match &before {
            None => hash::empty(),
            Some(before) => {
                let kept = change.kept_grid(&before.grid);
                if before.layout == *layout && before.grid == kept {
                    before.row.content
                } else {
                    let (root, from) = (before.row.content, &before.layout);
                    pages
                        .move_to(root, from, &before.grid, &kept, &manifest)
                        .await?
                }
            }
        };
        let content = pages
            .update(root, &change.chunks.as_row_changes(), &manifest)
            .await?;
        let stored_bytes = before.as_ref().map_or(0, |before| before.row.stored_bytes);
        let stored_bytes = match content == hash::empty() {
            true => 0,
            false => manifest.tally.apply(stored_bytes),
        };
        let statistics = self.statistics(before.as_ref(), change).await?;
        let metadata = NodeMetadata::Array(ArrayMetadata::clone(&change.metadata));
        row_with_document(
            self.uploads,
            name,
            &metadata,
            content,
            stored_bytes,
            statistics,
        )
        .await
    }

    /// The statistics of an array after its changes; `None` where not all of them are known.
    async fn statistics(
        &self,
        before: Option<&Before>,
        change: &ArrayChange,
    ) -> Result<Option<StatisticsRoot>, Error> {
        if !change.chunks.all_have_statistics() {
            return Ok(None);
        }
        let layout = change.chunks.layout();
        let pages = self.repository.statistics();
        let update = Update::plain(layout, self.uploads);
        let metadata = statistics_metadata(&change.metadata);
        let base = match before {
            None => hash::empty(),
            Some(before) => {
                let Some(current) = before.current_statistics() else {
                    if !self.all_rows_change(before, change).await? {
                        return Ok(None);
                    }
                    let changes = change.chunks.as_row_changes();
                    let root = pages.update(hash::empty(), &changes, &update).await?;
                    return Ok(Some(StatisticsRoot { root, metadata }));
                };
                let kept = change.kept_grid(&before.grid);
                if before.grid == kept && before.metadata.shape() == change.metadata.shape() {
                    if current.metadata != metadata {
                        return Ok(None);
                    }
                    current.root
                } else if self.edges_are_known(before, change).await? {
                    pages
                        .move_to(current.root, &before.layout, &before.grid, &kept, &update)
                        .await?
                } else {
                    return Ok(None);
                }
            }
        };
        let changes = change.chunks.as_row_changes();
        let root = pages.update(base, &changes, &update).await?;
        Ok(Some(StatisticsRoot { root, metadata }))
    }

    /// Whether every chunk the array has is among the changes.
    async fn all_rows_change(&self, before: &Before, change: &ArrayChange) -> Result<bool, Error> {
        if change.chunks.is_empty() {
            return Ok(false);
        }
        let kept = Region::whole(&change.kept_grid(&before.grid));
        let is_changed = |row: &ManifestRow| {
            let at = Region::new(row.coordinate().to_vec(), vec![1; kept.shape().len()]);
            let is_gone = at.is_ok_and(|at| !kept.contains(&at));
            let index = ChunkIndex::new(row.coordinate().to_vec());
            is_gone || change.chunks.contains(&index)
        };
        let pages = self.repository.manifests();
        pages
            .all_rows(before.row.content, &before.layout, is_changed)
            .await
    }

    /// Whether a change of shape leaves the statistics of all other chunks as they are: every
    /// stored chunk of which more or fewer cells are now in the array is among the changes, and
    /// nothing but the shape decides what they mean.
    async fn edges_are_known(&self, before: &Before, change: &ArrayChange) -> Result<bool, Error> {
        let (old, new) = (&*before.metadata, &*change.metadata);
        let mut reshaped = old.clone();
        reshaped.set_shape(new.shape().to_vec())?;
        if statistics_metadata(&reshaped) != statistics_metadata(new) {
            return Ok(false);
        }
        let both = Region::whole(&change.kept_grid(&before.grid));
        for axis in 0..both.shape().len() {
            let (a, b) = (old.shape()[axis], new.shape()[axis]);
            let chunk = new.chunk_shape()[axis];
            // Of the chunks both grids have, only the last ones can reach past an edge.
            if a == b || both.shape()[axis] == 0 || a.min(b).is_multiple_of(chunk) {
                continue;
            }
            let (mut start, mut lengths) = (vec![0; both.shape().len()], both.shape().to_vec());
            start[axis] = a.min(b) / chunk;
            lengths[axis] = 1;
            let edge = Region::new(start, lengths)?;
            let pages = self.repository.manifests();
            let rows = pages
                .rows(before.row.content, &before.layout, &edge)
                .await?;
            let known = |row: &ManifestRow| match row {
                ManifestRow::Chunk(row) => change.chunks.contains(&row.index),
                ManifestRow::Inner { .. } => false,
            };
            if !rows.iter().all(known) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What is there before a change, as its origin says.
fn before_change(before: Option<TreeRow>, origin: &Origin, kind: NodeKind) -> Option<TreeRow> {
    let row = match origin {
        Origin::Base => before,
        Origin::New => None,
        Origin::Node { row, .. } => Some(TreeRow::clone(row)),
    };
    row.filter(|row| row.kind == kind)
}

/// An array before its changes.
struct Before {
    row: TreeRow,
    metadata: Arc<ArrayMetadata>,
    layout: Layout,
    grid: Vec<u64>,
}

impl Before {
    async fn read(repository: &Repository, row: TreeRow) -> Result<Self, Error> {
        let metadata = repository.array_metadata(&row).await?;
        let grid = metadata.grid().grid_shape();
        Ok(Self {
            row,
            layout: Layout::new(&grid)?,
            grid,
            metadata,
        })
    }

    fn current_statistics(&self) -> Option<StatisticsRoot> {
        let assumed = statistics_metadata(&self.metadata);
        self.row.statistics.filter(|s| s.metadata == assumed)
    }
}
