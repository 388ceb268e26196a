//! The commit that changes make of a head: builds and uploads what they touch of its trees.

use std::collections::{BTreeMap, BTreeSet};

use array::hash;
use array::{GroupMetadata, NodeMetadata, NodePath};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use crate::Error;
use crate::changes::{ArrayChange, Change, Changes};
use crate::commit::Commit;
use crate::inline::settle_inline;
use crate::layout::Layout;
use crate::page::{ManifestRow, StatisticsRow};
use crate::radix::RowChange;
use crate::repository::Repository;
use crate::snapshot::{Snapshot, row_with_document, statistics_metadata};
use crate::transaction::CommitOptions;
use crate::tree::{NodeKind, StatisticsRoot, TreeRow};

/// Applies `changes` to `onto`; everything but the commit itself is uploaded.
pub(crate) async fn build(
    repository: &Repository,
    onto: &Snapshot,
    changes: &Changes,
    options: &CommitOptions,
    write_id: &str,
) -> Result<Commit, Error> {
    let before = onto.commit().root.clone();
    let root = build_group(repository, NodePath::root(), Some(before), changes).await?;
    let mut deleted = Vec::new();
    for (path, change) in changes.iter() {
        if change.removes_base() && onto.row(path).await?.is_some() {
            deleted.push(path.clone());
        }
    }
    Ok(Commit {
        parents: vec![onto.id()],
        root,
        time: DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default(),
        author: options.author.clone(),
        message: options.message.clone(),
        properties: options.properties.clone(),
        deleted,
        write_id: write_id.to_owned(),
    })
}

/// The row of the group at `path` after `changes`; `before` is its row now, if it is there.
fn build_group<'a>(
    repository: &'a Repository,
    path: NodePath,
    before: Option<TreeRow>,
    changes: &'a Changes,
) -> BoxFuture<'a, Result<TreeRow, Error>> {
    Box::pin(async move {
        let own = match changes.get(&path) {
            Some(Change::Group { metadata, is_new }) => Some((metadata.clone(), *is_new)),
            _ => None,
        };
        let replaced = own.as_ref().is_some_and(|(_, is_new)| *is_new);
        let before = before.filter(|row| row.kind == NodeKind::Group && !replaced);
        let members = match &before {
            Some(row) => repository.trees().members(row.content).await?,
            None => Vec::new(),
        };
        let mut members: BTreeMap<String, TreeRow> = members
            .into_iter()
            .map(|row| (row.name.clone(), row))
            .collect();
        let depth = path.names().count();
        let touched: BTreeSet<&str> = changes
            .below(&path)
            .filter_map(|(other, _)| other.names().nth(depth))
            .collect();
        for name in touched {
            let child = path.join(name)?;
            let before = members.remove(name);
            let row = match changes.get(&child) {
                Some(Change::Delete) => None,
                Some(Change::Array(array)) => {
                    Some(build_array(repository, name, before, array).await?)
                }
                Some(Change::Group { .. }) | None => {
                    Some(build_group(repository, child, before, changes).await?)
                }
            };
            members.extend(row.map(|row| (name.to_owned(), row)));
        }
        let rows: Vec<TreeRow> = members.into_values().collect();
        let stored_bytes = rows
            .iter()
            .fold(0u64, |sum, row| sum.saturating_add(row.stored_bytes));
        let content = repository.trees().write(rows).await?;
        match (own, before) {
            (None, Some(before)) => Ok(TreeRow {
                content,
                stored_bytes,
                ..before
            }),
            (own, _) => {
                let metadata =
                    NodeMetadata::Group(own.map_or_else(GroupMetadata::default, |(m, _)| m));
                row_with_document(
                    repository,
                    path.name(),
                    &metadata,
                    content,
                    stored_bytes,
                    None,
                )
                .await
            }
        }
    })
}

async fn build_array(
    repository: &Repository,
    name: &str,
    before: Option<TreeRow>,
    change: &ArrayChange,
) -> Result<TreeRow, Error> {
    let layout = Layout::new(&change.metadata.grid().grid_shape())?;
    let before = before.filter(|row| row.kind == NodeKind::Array && !change.is_new);
    let root = before.as_ref().map_or_else(hash::empty, |row| row.content);
    let mut chunks: Vec<RowChange<ManifestRow>> = Vec::with_capacity(change.chunks.len());
    let mut statistics: Vec<RowChange<StatisticsRow>> = Vec::with_capacity(change.chunks.len());
    let mut all_have_statistics = true;
    let mut stored_bytes = before.as_ref().map_or(0, |row| row.stored_bytes);
    for (index, chunk) in &change.chunks {
        let address = layout.address(index.as_slice());
        if before.is_some()
            && let Some(ManifestRow::Chunk(old)) = repository
                .manifests()
                .row(root, &layout, index.as_slice())
                .await?
        {
            stored_bytes = stored_bytes.saturating_sub(old.length);
        }
        let statistics_row = match chunk {
            None => None,
            Some((row, chunk_statistics)) => {
                stored_bytes = stored_bytes.saturating_add(row.length);
                all_have_statistics &= chunk_statistics.is_some();
                let coordinate = index.as_slice().to_vec();
                chunk_statistics.map(|statistics| StatisticsRow {
                    coordinate,
                    child: None,
                    statistics,
                })
            }
        };
        chunks.push((
            address,
            chunk
                .as_ref()
                .map(|(row, _)| ManifestRow::Chunk(row.clone())),
        ));
        statistics.push((address, statistics_row));
    }
    chunks.sort_unstable_by_key(|(address, _)| *address);
    statistics.sort_unstable_by_key(|(address, _)| *address);
    let store = repository.store().clone();
    let finish_manifest = move |rows| -> BoxFuture<'static, Result<Vec<ManifestRow>, Error>> {
        Box::pin(settle_inline(store.clone(), rows))
    };
    let content = repository
        .manifests()
        .update(root, &layout, &chunks, &finish_manifest)
        .await?;
    let metadata_hash = statistics_metadata(&change.metadata);
    let statistics_base = match &before {
        None => Some(hash::empty()),
        Some(row) => row
            .statistics
            .filter(|s| s.metadata == metadata_hash)
            .map(|s| s.root),
    };
    let statistics = match statistics_base {
        Some(base) if all_have_statistics => {
            let keep = |rows| -> BoxFuture<'static, Result<Vec<StatisticsRow>, Error>> {
                Box::pin(async move { Ok(rows) })
            };
            let root = repository
                .statistics()
                .update(base, &layout, &statistics, &keep)
                .await?;
            Some(StatisticsRoot {
                root,
                metadata: metadata_hash,
            })
        }
        _ => None,
    };
    let metadata = NodeMetadata::Array(change.metadata.clone());
    row_with_document(
        repository,
        name,
        &metadata,
        content,
        stored_bytes,
        statistics,
    )
    .await
}
