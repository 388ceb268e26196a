//! Transactions: changes to any number of nodes that become visible together, once.
//!
//! Chunks are uploaded as they come; nothing refers to them until the commit. On a branch that
//! moved meanwhile the changes are applied to its new head, unless both sides changed the same
//! node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::hash::{self, Hash};
use array::{ArrayMetadata, ChunkIndex, GroupMetadata, NodeMetadata, NodePath, Statistics};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::commit::Commit;
use crate::concurrent::CONCURRENT_REQUESTS;
use crate::layout::Layout;
use crate::log::{Operation, Ref};
use crate::names::RefName;
use crate::object::{object_key, shard_key};
use crate::page::{
    ChunkKind, ChunkRow, Location, MAX_INLINE_BYTES, MAX_PAGE_INLINE_BYTES, ManifestRow,
    StatisticsRow,
};
use crate::radix::RowChange;
use crate::repository::Repository;
use crate::snapshot::{Node, Snapshot, row_with_document, statistics_metadata};
use crate::store::Store;
use crate::tree::{NodeKind, StatisticsRoot, TreeRow};
use crate::{CommitId, Error};

/// Who commits, why, and where the data came from.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Who makes the commit.
    pub author: String,
    /// What it is for.
    pub message: String,
    /// Where the data came from.
    pub properties: Map<String, Value>,
}

/// Changes that start from a commit of a branch.
#[derive(Debug)]
pub struct Transaction {
    repository: Repository,
    branch: RefName,
    base: Snapshot,
    write_id: String,
    changes: Mutex<Changes>,
}

type Changes = BTreeMap<NodePath, Change>;

#[derive(Clone, Debug)]
enum Change {
    Delete,
    Group {
        metadata: GroupMetadata,
        is_new: bool,
    },
    Array(Arc<ArrayChange>),
}

#[derive(Clone, Debug)]
struct ArrayChange {
    metadata: ArrayMetadata,
    /// Replaces whatever was there; the old chunks are dropped.
    is_new: bool,
    chunks: HashMap<ChunkIndex, Option<(ChunkRow, Option<Statistics>)>>,
}

impl Transaction {
    /// Starts from the head of `branch`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such branch.
    pub async fn begin(repository: &Repository, branch: &RefName) -> Result<Self, Error> {
        let state = repository.head().await?;
        let known = state.refs.keys().map(|name| name.name.as_str());
        let head = state
            .get(&Ref::branch(branch.clone()))
            .ok_or_else(|| Error::not_found("branch", branch.as_str(), known))?;
        Ok(Self {
            repository: repository.clone(),
            branch: branch.clone(),
            base: repository.snapshot(head).await?,
            write_id: Uuid::new_v4().to_string(),
            changes: Mutex::default(),
        })
    }

    /// The commit the transaction started from.
    pub fn base(&self) -> &Snapshot {
        &self.base
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a group, or gives the group there new attributes. Groups above it are created.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is an array.
    pub async fn put_group(&self, path: &NodePath, metadata: GroupMetadata) -> Result<(), Error> {
        let existing = self.base.find(path).await?;
        let mut changes = self.changes();
        let is_new = match changes.get(path) {
            Some(Change::Group { is_new, .. }) => *is_new,
            Some(Change::Delete) => true,
            None if !matches!(existing, Some(Node::Array(_))) => existing.is_none(),
            _ => {
                return Err(Error::AlreadyExists {
                    what: "array",
                    name: path.to_string(),
                });
            }
        };
        changes.insert(path.clone(), Change::Group { metadata, is_new });
        Ok(())
    }

    /// Creates an array without chunks. Groups above it are created.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is a node; [`Error::Array`] for a grid of over 2^64 chunks.
    pub async fn create_array(
        &self,
        path: &NodePath,
        metadata: ArrayMetadata,
    ) -> Result<(), Error> {
        Layout::new(&metadata.grid().grid_shape())?;
        let exists = self.base.find(path).await?.is_some();
        let mut changes = self.changes();
        let taken = match changes.get(path) {
            Some(Change::Delete) => false,
            Some(_) => true,
            None => exists,
        };
        if path.is_root() || taken {
            return Err(Error::AlreadyExists {
                what: "group or array",
                name: path.to_string(),
            });
        }
        let change = ArrayChange {
            metadata,
            is_new: true,
            chunks: HashMap::new(),
        };
        changes.insert(path.clone(), Change::Array(Arc::new(change)));
        Ok(())
    }

    /// Deletes a node and everything below it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Invalid`] for the root.
    pub async fn delete(&self, path: &NodePath) -> Result<(), Error> {
        if path.is_root() {
            return Err(Error::invalid("path", "the root group cannot be deleted"));
        }
        let exists = self.base.find(path).await?.is_some();
        let mut changes = self.changes();
        let staged: Vec<NodePath> = changes
            .keys()
            .filter(|other| other.starts_with(path))
            .cloned()
            .collect();
        if !exists && staged.is_empty() {
            return Err(Error::not_found("group or array", &path.to_string(), []));
        }
        for path in staged {
            changes.remove(&path);
        }
        if exists {
            changes.insert(path.clone(), Change::Delete);
        }
        Ok(())
    }

    /// Stores one chunk of an array. Small ones wait for the commit, to be kept inside their page.
    ///
    /// `bytes` are verified by `id` under the rules of `kind`; `statistics` are those of the
    /// chunk's cells inside the array.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such array; [`Error::Invalid`] if `index` is not in its
    /// grid; [`Error::Store`] if the upload failed.
    pub async fn put_chunk(
        &self,
        path: &NodePath,
        index: ChunkIndex,
        kind: ChunkKind,
        id: Hash,
        bytes: Bytes,
        statistics: Option<Statistics>,
    ) -> Result<(), Error> {
        let length = bytes.len() as u64;
        let location = if length <= MAX_INLINE_BYTES {
            Location::Inline(bytes)
        } else {
            self.repository
                .store()
                .put_immutable(&shard_key(&id), bytes)
                .await?;
            Location::Stored
        };
        let row = ChunkRow {
            index: index.clone(),
            kind,
            id,
            length,
            location,
        };
        self.change_chunk(path, index, Some((row, statistics)))
            .await
    }

    /// Makes one chunk of an array all fill value.
    ///
    /// # Errors
    /// As [`Transaction::put_chunk`].
    pub async fn delete_chunk(&self, path: &NodePath, index: ChunkIndex) -> Result<(), Error> {
        self.change_chunk(path, index, None).await
    }

    async fn change_chunk(
        &self,
        path: &NodePath,
        index: ChunkIndex,
        change: Option<(ChunkRow, Option<Statistics>)>,
    ) -> Result<(), Error> {
        let is_staged = matches!(self.changes().get(path), Some(Change::Array(_)));
        let existing = if is_staged {
            None
        } else {
            Some(self.base.array(path).await?)
        };
        let mut changes = self.changes();
        let entry = changes
            .entry(path.clone())
            .or_insert_with(|| match existing {
                Some(array) => Change::Array(Arc::new(ArrayChange {
                    metadata: ArrayMetadata::clone(array.metadata()),
                    is_new: false,
                    chunks: HashMap::new(),
                })),
                None => Change::Delete,
            });
        let Change::Array(array) = entry else {
            return Err(Error::not_found("array", &path.to_string(), []));
        };
        if !array.metadata.grid().contains(&index) {
            return Err(Error::invalid(
                "chunk",
                format!("{index} is outside the chunk grid of {path}"),
            ));
        }
        Arc::make_mut(array).chunks.insert(index, change);
        Ok(())
    }

    /// Makes the changes a commit of the branch.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the branch moved and both sides changed the same nodes;
    /// [`Error::Unknown`] if the store gave no clear answer.
    pub async fn commit(self, options: CommitOptions) -> Result<CommitId, Error> {
        let changes = Arc::new(self.changes().clone());
        let write_id = self.write_id.clone();
        let committed = Arc::new(Mutex::new(None));
        let (repository, branch, base) = (
            self.repository.clone(),
            self.branch.clone(),
            self.base.clone(),
        );
        let result = committed.clone();
        let actor = options.author.clone();
        let state = self
            .repository
            .append(&actor, &self.write_id, move |state| {
                let (repository, branch, base) = (repository.clone(), branch.clone(), base.clone());
                let (changes, options) = (changes.clone(), options.clone());
                let (write_id, result) = (write_id.clone(), result.clone());
                Box::pin(async move {
                    let name = Ref::branch(branch.clone());
                    let tip = state
                        .get(&name)
                        .ok_or_else(|| Error::not_found("branch", branch.as_str(), []))?;
                    let onto = repository.snapshot(tip).await?;
                    if onto.id() != base.id() {
                        check_rebase(&base, &onto, &changes, &branch).await?;
                    }
                    let commit = build(&repository, &onto, &changes, &options, &write_id).await?;
                    let (id, bytes) = commit.encode();
                    repository
                        .store()
                        .put_immutable(&object_key(&id.0), bytes.into())
                        .await?;
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
                    Ok(Some(vec![Operation::UpdateRef {
                        name,
                        from: Some(tip),
                        to: Some(id),
                        write_id,
                    }]))
                })
            })
            .await?;
        let id = *committed.lock().unwrap_or_else(PoisonError::into_inner);
        // `append` returns only after its closure gave operations, which set the id.
        id.ok_or_else(|| {
            Error::invalid(
                "commit",
                format!("no commit after entry {:?}", state.sequence),
            )
        })
    }
}

/// Refuses to apply changes to a head at which the same nodes changed too.
async fn check_rebase(
    base: &Snapshot,
    onto: &Snapshot,
    changes: &Changes,
    branch: &RefName,
) -> Result<(), Error> {
    let mut conflicts = BTreeSet::new();
    for (path, change) in changes {
        let (before, now) = (base.row(path).await?, onto.row(path).await?);
        let same = match change {
            // Members may differ: only the group's own metadata is replaced.
            Change::Group { .. } => {
                let own = |row: Option<TreeRow>| row.map(|row| (row.kind, row.document));
                own(before) == own(now)
            }
            Change::Array(_) | Change::Delete => before == now,
        };
        if !same {
            conflicts.insert(path.clone());
        }
        for ancestor in path.ancestors() {
            let (before, now) = (base.row(&ancestor).await?, onto.row(&ancestor).await?);
            let kind = |row: Option<TreeRow>| row.map(|row| row.kind);
            match (kind(before), kind(now)) {
                (None | Some(NodeKind::Group), Some(NodeKind::Group)) | (None, None) => {}
                _ => {
                    conflicts.insert(ancestor);
                }
            }
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(Error::Conflict {
        branch: branch.to_string(),
        base: base.id(),
        paths: conflicts.into_iter().collect(),
    })
}

async fn build(
    repository: &Repository,
    onto: &Snapshot,
    changes: &Changes,
    options: &CommitOptions,
    write_id: &str,
) -> Result<Commit, Error> {
    let root = build_group(
        repository,
        NodePath::root(),
        Some(onto.commit().root.clone()),
        changes,
    )
    .await?;
    let mut recreated = Vec::new();
    for (path, change) in changes {
        let is_new = match change {
            Change::Group { is_new, .. } => *is_new,
            Change::Array(array) => array.is_new,
            Change::Delete => false,
        };
        if is_new && onto.row(path).await?.is_some() {
            recreated.push(path.clone());
        }
    }
    Ok(Commit {
        parents: vec![onto.id()],
        root,
        time: DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default(),
        author: options.author.clone(),
        message: options.message.clone(),
        properties: options.properties.clone(),
        recreated,
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
            .keys()
            .filter(|other| other.starts_with(&path))
            .filter_map(|other| other.names().nth(depth))
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

/// Decides which chunks of a page live in it: those of up to 512 bytes, lowest addresses first, up
/// to 64 KiB. A rule of the content alone, so equal content gives equal pages.
async fn settle_inline(store: Store, rows: Vec<ManifestRow>) -> Result<Vec<ManifestRow>, Error> {
    let mut room = MAX_PAGE_INLINE_BYTES;
    let mut full = false;
    let plan: Vec<(ManifestRow, bool)> = rows
        .into_iter()
        .map(|row| {
            let wanted = match &row {
                ManifestRow::Chunk(chunk) => {
                    chunk.length <= MAX_INLINE_BYTES
                        && !matches!(chunk.location, Location::External { .. })
                }
                ManifestRow::Inner { .. } => false,
            };
            let ManifestRow::Chunk(chunk) = &row else {
                return (row, false);
            };
            full |= wanted && chunk.length > room;
            let inline = wanted && !full;
            if inline {
                room -= chunk.length;
            }
            (row, inline)
        })
        .collect();
    futures::stream::iter(plan)
        .map(|(row, inline)| {
            let store = store.clone();
            async move {
                let ManifestRow::Chunk(mut chunk) = row else {
                    return Ok(row);
                };
                match (&chunk.location, inline) {
                    (Location::Stored, true) => {
                        chunk.location =
                            Location::Inline(store.get_existing(&shard_key(&chunk.id)).await?);
                    }
                    (Location::Inline(bytes), false) => {
                        store
                            .put_immutable(&shard_key(&chunk.id), bytes.clone())
                            .await?;
                        chunk.location = Location::Stored;
                    }
                    _ => {}
                }
                Ok(ManifestRow::Chunk(chunk))
            }
        })
        .buffered(CONCURRENT_REQUESTS)
        .try_collect()
        .await
}
