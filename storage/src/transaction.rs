//! Transactions: changes to any number of nodes that become visible together, once.
//!
//! Chunks are uploaded as they come; nothing refers to them until the commit. On a branch that
//! moved meanwhile the changes are applied to its new head, unless both sides changed the same
//! node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::hash::Hash;
use array::{ArrayMetadata, ChunkIndex, ChunkKind, GroupMetadata, NodePath, Statistics};
use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::build::build;
use crate::changes::{ArrayChange, Change, Changes};
use crate::layout::Layout;
use crate::log::{Operation, Ref};
use crate::names::RefName;
use crate::object::shard_key;
use crate::page::{ChunkRow, Location, MAX_INLINE_BYTES};
use crate::rebase;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::NodeKind;
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

/// What the base has at a path and at the groups above it, the root first.
type BaseKinds = Vec<(NodePath, Option<NodeKind>)>;

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

    async fn base_kinds(&self, path: &NodePath) -> Result<BaseKinds, Error> {
        let mut kinds = Vec::new();
        for path in path.ancestors().into_iter().chain([path.clone()]) {
            let row = self.base.row(&path).await?;
            kinds.push((path, row.map(|row| row.kind)));
        }
        Ok(kinds)
    }

    /// Creates a group, or gives the group there new metadata. Groups above it are created.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is an array; [`Error::Invalid`] if there is one above it.
    pub async fn put_group(&self, path: &NodePath, metadata: GroupMetadata) -> Result<(), Error> {
        let base = self.base_kinds(path).await?;
        let mut changes = self.changes();
        let is_new = match visible_kind(&changes, &base)? {
            Some(NodeKind::Array) => {
                return Err(Error::AlreadyExists {
                    what: "array",
                    name: path.to_string(),
                });
            }
            Some(NodeKind::Group) => match changes.get(path) {
                Some(change) => change.removes_base(),
                // Made with a node below it, or in the base.
                None => {
                    changes.hide_base(path) || base.last().is_none_or(|(_, base)| base.is_none())
                }
            },
            None => true,
        };
        changes.insert(path.clone(), Change::Group { metadata, is_new });
        Ok(())
    }

    /// Creates an array without chunks. Groups above it are created.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is a node; [`Error::Invalid`] if there is an array above
    /// it; [`Error::Array`] for a grid of 2^64 chunks or more.
    pub async fn create_array(
        &self,
        path: &NodePath,
        metadata: ArrayMetadata,
    ) -> Result<(), Error> {
        Layout::new(&metadata.grid().grid_shape())?;
        let base = self.base_kinds(path).await?;
        let mut changes = self.changes();
        if visible_kind(&changes, &base)?.is_some() {
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
        let base = self.base_kinds(path).await?;
        let mut changes = self.changes();
        if visible_kind(&changes, &base)?.is_none() {
            return Err(Error::not_found("group or array", &path.to_string(), []));
        }
        changes.delete(path, base.last().is_some_and(|(_, base)| base.is_some()));
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
        let not_found = || Error::not_found("array", &path.to_string(), []);
        let is_in_base = {
            let changes = self.changes();
            changes.get(path).is_none() && !changes.hide_base(path)
        };
        let from_base = if is_in_base {
            let metadata = self.base.array(path).await?.metadata().clone();
            Some(ArrayChange {
                metadata: ArrayMetadata::clone(&metadata),
                is_new: false,
                chunks: HashMap::new(),
            })
        } else {
            None
        };
        let mut changes = self.changes();
        if changes.get(path).is_none() && !changes.hide_base(path) {
            let array = from_base.ok_or_else(not_found)?;
            changes.insert(path.clone(), Change::Array(Arc::new(array)));
        }
        let Some(Change::Array(array)) = changes.get_mut(path) else {
            return Err(not_found());
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
    /// [`Error::Unknown`] if the store gave no clear answer. After any other error the commit did
    /// not happen.
    pub async fn commit(self, options: CommitOptions) -> Result<CommitId, Error> {
        let transaction = Arc::new(self);
        let options = Arc::new(options);
        let (repository, write_id) = (&transaction.repository, &transaction.write_id);
        let name = Ref::branch(transaction.branch.clone());
        let written = repository
            .append(&options.author, write_id, |state| {
                let (transaction, options) = (transaction.clone(), options.clone());
                let name = name.clone();
                Box::pin(async move {
                    let known = state.refs.keys().map(|known| known.name.as_str());
                    let head = state
                        .get(&name)
                        .ok_or_else(|| Error::not_found("branch", name.name.as_str(), known))?;
                    let commit = transaction.upload(head, &options).await?;
                    Ok(Some(vec![Operation::UpdateRef {
                        name,
                        from: Some(head),
                        to: Some(commit),
                        write_id: transaction.write_id.clone(),
                    }]))
                })
            })
            .await?;
        let commit = written
            .into_iter()
            .flatten()
            .find_map(|operation| match operation {
                Operation::UpdateRef { to, .. } => to,
                Operation::Other(_) => None,
            });
        commit.ok_or_else(|| Error::corrupt("log", "the entry of this commit moves no branch"))
    }

    /// Applies the changes to `head` and uploads the commit.
    async fn upload(&self, head: CommitId, options: &CommitOptions) -> Result<CommitId, Error> {
        let repository = &self.repository;
        let changes = self.changes().clone();
        let onto = repository.snapshot(head).await?;
        if head != self.base.id() {
            rebase::check(repository, &self.base, &onto, &changes, &self.branch).await?;
        }
        let commit = build(repository, &onto, &changes, options, &self.write_id).await?;
        repository.store_commit(commit).await
    }
}

/// What is at the last of the paths with these changes.
///
/// # Errors
/// [`Error::Invalid`] if there is an array above it.
fn visible_kind(changes: &Changes, base: &BaseKinds) -> Result<Option<NodeKind>, Error> {
    let Some(((path, base), above)) = base.split_last() else {
        return Ok(None);
    };
    for (path, base) in above {
        if changes.kind(path, *base) == Some(NodeKind::Array) {
            let reason = format!("{path} is an array: no node can be below it");
            return Err(Error::invalid("path", reason));
        }
    }
    Ok(changes.kind(path, *base))
}
