//! Transactions: changes to any number of nodes that become visible together, once.
//!
//! Chunks are uploaded as they come; nothing refers to them until the commit. A transaction sees
//! its own changes over the commit it started from. On a branch that moved meanwhile its changes
//! are applied to the new head, unless both sides changed the same thing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::hash::Hash;
use array::{
    ArrayMetadata, ChunkIndex, ChunkKind, GroupMetadata, NodeMetadata, NodePath, Region, Statistics,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::changes::{ArrayChange, BasePlace, Change, Changes, GroupChange, Origin};
use crate::chunk_changes::{ChunkChange, ChunkChanges, Written};
use crate::committer::Pending;
use crate::conflict::Policies;
use crate::diff::same_content;
use crate::journal::{ChunkStep, Journal, Step};
use crate::log::{Idempotency, Ref};
use crate::names::RefName;
use crate::object::shard_key;
use crate::page::{ChunkRow, Location, MAX_INLINE_BYTES};
use crate::reads::{ReadLog, Reads};
use crate::repository::Repository;
use crate::snapshot::{ArrayNode, Node, Snapshot};
use crate::splice::{InnerChunks, Versioned};
use crate::tree::{NodeKind, TreeRow};
use crate::{CommitId, Error};

/// Who commits, why, where the data came from, and on which terms.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Who makes the commit.
    pub author: String,
    /// What it is for.
    pub message: String,
    /// Where the data came from.
    pub properties: Map<String, Value>,
    /// What to do where the branch moved and both sides changed the same thing.
    pub on_conflict: Policies,
    /// Where the branch must be; `None` for anywhere.
    pub expected_head: Option<CommitId>,
    /// The client's request, if it may be repeated.
    pub idempotency: Option<Idempotency>,
}

/// What a transaction may take for granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// It reads one commit, and what it writes nobody else has written since.
    #[default]
    Snapshot,
    /// Also nobody has changed what it read: it is as if it ran alone, at its place in the log.
    Serializable,
}

/// Changes that start from a commit of a branch.
#[derive(Debug)]
pub struct Transaction {
    repository: Repository,
    branch: RefName,
    base: Snapshot,
    /// Number of the first log entry after the base was looked up.
    since: u64,
    /// The list of the sweep that was under way then.
    sweep: Option<Hash>,
    write_id: String,
    changes: Mutex<Changes>,
    /// `None` unless serializable.
    reads: Option<Mutex<ReadLog>>,
    /// The steps of a shared transaction.
    journal: Option<Mutex<Journal>>,
}

/// What there is at a path, while nothing else changes the transaction.
struct Place<'a> {
    changes: MutexGuard<'a, Changes>,
    /// The base's node there.
    base: Option<TreeRow>,
    kind: Option<NodeKind>,
}

impl Transaction {
    /// Starts from the head of `branch`, under snapshot isolation.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such branch.
    pub async fn begin(repository: &Repository, branch: &RefName) -> Result<Self, Error> {
        Self::begin_with(repository, branch, Isolation::Snapshot).await
    }

    /// Starts from the head of `branch`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such branch.
    pub async fn begin_with(
        repository: &Repository,
        branch: &RefName,
        isolation: Isolation,
    ) -> Result<Self, Error> {
        let state = repository.head().await?;
        let known = state.refs.keys().map(|name| name.name.as_str());
        let head = state
            .get(&Ref::branch(branch.clone()))
            .ok_or_else(|| Error::not_found("branch", branch.as_str(), known))?;
        let base = repository.snapshot(head).await?;
        let write_id = Uuid::new_v4().to_string();
        let sweep = state.sweep.as_ref().map(|sweep| sweep.list);
        let since = (state.next_sequence(), sweep);
        Ok(Self::from_parts(base, branch, isolation, write_id, since))
    }

    pub(crate) fn from_parts(
        base: Snapshot,
        branch: &RefName,
        isolation: Isolation,
        write_id: String,
        (since, sweep): (u64, Option<Hash>),
    ) -> Self {
        let is_serializable = isolation == Isolation::Serializable;
        Self {
            repository: base.repository().clone(),
            branch: branch.clone(),
            base,
            since,
            sweep,
            write_id,
            changes: Mutex::default(),
            reads: is_serializable.then(Mutex::default),
            journal: None,
        }
    }

    /// Writes down every step from now on.
    pub(crate) fn keep_journal(&mut self) {
        self.journal = Some(Mutex::default());
    }

    /// Notes steps in the journal, if one is kept. Called while the changes are locked, so that the
    /// steps are in the order they were taken.
    fn note(&self, note: impl FnOnce(&mut Journal)) {
        if let Some(journal) = &self.journal {
            note(&mut journal.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The steps since this was last called, what was read included.
    pub(crate) fn take_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.note(|journal| steps = journal.take_steps());
        self.note_reads(|reads| {
            let fresh = reads.take_fresh();
            if fresh != Reads::default() {
                steps.push(Step::read(&fresh));
            }
        });
        steps
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn write_id(&self) -> &str {
        &self.write_id
    }

    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    pub(crate) fn sweep(&self) -> Option<Hash> {
        self.sweep
    }

    /// The commit the transaction started from.
    pub fn base(&self) -> &Snapshot {
        &self.base
    }

    /// The branch it will be committed to.
    pub fn branch(&self) -> &RefName {
        &self.branch
    }

    /// What it may take for granted.
    pub fn isolation(&self) -> Isolation {
        match self.reads {
            None => Isolation::Snapshot,
            Some(_) => Isolation::Serializable,
        }
    }

    /// Whether it changes nothing so far.
    pub fn is_empty(&self) -> bool {
        self.changes().iter().next().is_none()
    }

    pub(crate) fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_reads(&self, note: impl FnOnce(&mut ReadLog)) {
        if let Some(reads) = &self.reads {
            note(&mut reads.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The row the base has at `place`, which is where `path` was.
    async fn base_row(&self, path: &NodePath, place: &BasePlace) -> Result<Option<TreeRow>, Error> {
        match place {
            BasePlace::Same => self.base.row(path).await,
            BasePlace::Below(row, names) => {
                let names = names.iter().map(String::as_str);
                self.base.row_below(TreeRow::clone(row), names).await
            }
            BasePlace::Nowhere => Ok(None),
        }
    }

    /// What there is at `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is an array above it.
    async fn look(&self, path: &NodePath) -> Result<Place<'_>, Error> {
        let paths: Vec<NodePath> = path.ancestors().into_iter().chain([path.clone()]).collect();
        let place_all = |changes: &Changes| -> Vec<BasePlace> {
            paths.iter().map(|path| changes.base_place(path)).collect()
        };
        loop {
            let places = place_all(&self.changes());
            let mut rows = Vec::with_capacity(paths.len());
            for (path, place) in paths.iter().zip(&places) {
                rows.push(self.base_row(path, place).await?);
            }
            let changes = self.changes();
            if place_all(&changes) != places {
                // Another writer of this transaction was faster.
                continue;
            }
            let mut kind = None;
            for (at, (path, row)) in paths.iter().zip(&rows).enumerate() {
                kind = changes.kind(path, row.as_ref().map(|row| row.kind));
                if at + 1 < paths.len() && kind == Some(NodeKind::Array) {
                    let reason = format!("{path} is an array: no node can be below it");
                    return Err(Error::invalid("path", reason));
                }
            }
            return Ok(Place {
                changes,
                base: rows.pop().flatten(),
                kind,
            });
        }
    }

    /// Creates a group, or gives the group there new metadata. Groups above it are created.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is an array; [`Error::Invalid`] if there is one above it.
    pub async fn put_group(&self, path: &NodePath, metadata: GroupMetadata) -> Result<(), Error> {
        let mut place = self.look(path).await?;
        if place.kind == Some(NodeKind::Array) {
            return Err(Error::AlreadyExists {
                what: "array",
                name: path.to_string(),
            });
        }
        let origin = match place.changes.get(path) {
            Some(Change::Group(group)) => group.origin.clone(),
            Some(Change::Delete | Change::Array(_)) => Origin::New,
            None if place.base.is_some() => Origin::Base,
            None => Origin::New,
        };
        self.note(|journal| {
            journal.push(Step::PutGroup {
                path: path.as_str().to_owned(),
                zarr_json: metadata.to_json(),
            });
        });
        let change = GroupChange {
            origin,
            metadata: Some(metadata),
        };
        place.changes.insert(path.clone(), Change::Group(change));
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
        if path.is_root() {
            return Err(Error::invalid("path", "the root is a group"));
        }
        let chunks = ChunkChanges::new(&metadata)?;
        let mut place = self.look(path).await?;
        if place.kind.is_some() {
            return Err(Error::AlreadyExists {
                what: "group or array",
                name: path.to_string(),
            });
        }
        self.note(|journal| {
            journal.push(Step::CreateArray {
                path: path.as_str().to_owned(),
                zarr_json: metadata.to_json(),
            });
        });
        let change = ArrayChange::new(Origin::New, Arc::new(metadata), chunks);
        place
            .changes
            .insert(path.clone(), Change::Array(Arc::new(change)));
        Ok(())
    }

    /// Gives an array new metadata. A new shape resizes it: chunks outside are dropped; cells of
    /// the remaining ones outside are the caller's to set to fill value.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such array; [`Error::Invalid`] if it has data and the
    /// metadata has another data type, chunk shape or other codecs, or another number of
    /// dimensions; or if it has another fill value and was not created in this transaction.
    pub async fn set_array_metadata(
        &self,
        path: &NodePath,
        metadata: ArrayMetadata,
    ) -> Result<(), Error> {
        let array = self.array_change(path).await?;
        let old = &array.metadata;
        if old.fill_value != metadata.fill_value && array.origin != Origin::New {
            // Cells that were written with the fill value are not told from those never written.
            let reason = format!(
                "{path} exists: its fill value cannot change, since cells that hold it would; delete it and create it anew"
            );
            return Err(Error::invalid("array", reason));
        }
        let is_same_store = old.data_type == metadata.data_type
            && old.fill_value == metadata.fill_value
            && old.chunk_shape() == metadata.chunk_shape()
            && old.codecs == metadata.codecs
            && old.dimensions() == metadata.dimensions();
        let changed = if is_same_store {
            let cut = array.cut.iter().zip(metadata.shape());
            ArrayChange {
                cut: cut.zip(old.shape()).map(cut_to).collect(),
                chunks: array.chunks.moved_to(&metadata)?,
                metadata: Arc::new(metadata),
                origin: array.origin.clone(),
            }
        } else if self.has_data(path, &array).await? {
            let reason = format!(
                "{path} has data: its data type, chunk shape and codecs cannot change; delete it first"
            );
            return Err(Error::invalid("array", reason));
        } else {
            let chunks = ChunkChanges::new(&metadata)?;
            ArrayChange::new(Origin::New, Arc::new(metadata), chunks)
        };
        let mut place = self.look(path).await?;
        if let Some(Change::Array(now)) = place.changes.get(path)
            && !Arc::ptr_eq(now, &array)
        {
            let reason = format!("{path} changed while its metadata was being set: try again");
            return Err(Error::invalid("array", reason));
        }
        self.note(|journal| {
            journal.push(Step::SetArray {
                path: path.as_str().to_owned(),
                zarr_json: changed.metadata.to_json(),
            });
        });
        place
            .changes
            .insert(path.clone(), Change::Array(Arc::new(changed)));
        Ok(())
    }

    async fn has_data(&self, path: &NodePath, array: &ArrayChange) -> Result<bool, Error> {
        if !array.chunks.is_empty() {
            return Ok(true);
        }
        let row = match &array.origin {
            Origin::New => None,
            Origin::Node { row, .. } => Some(TreeRow::clone(row)),
            Origin::Base => self.look(path).await?.base,
        };
        Ok(row.is_some_and(|row| row.content != array::hash::empty()))
    }

    /// Deletes a node and everything below it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Invalid`] for the root.
    pub async fn delete(&self, path: &NodePath) -> Result<(), Error> {
        if path.is_root() {
            return Err(Error::invalid("path", "the root group cannot be deleted"));
        }
        let mut place = self.look(path).await?;
        if place.kind.is_none() {
            return Err(Error::not_found("group or array", &path.to_string(), []));
        }
        let is_in_base = place.base.is_some();
        place.changes.delete(path, is_in_base);
        self.note(|journal| {
            journal.push(Step::Delete {
                path: path.as_str().to_owned(),
            });
        });
        Ok(())
    }

    /// Moves a node, with everything below it, without touching its data. Groups above the new
    /// place are created.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no node at `from`; [`Error::AlreadyExists`] if there is one
    /// at `to`; [`Error::Invalid`] for the root and for a place below the node itself.
    pub async fn rename(&self, from: &NodePath, to: &NodePath) -> Result<(), Error> {
        if from.is_root() || to.is_root() {
            return Err(Error::invalid("path", "the root group cannot be moved"));
        }
        if to.starts_with(from) {
            let reason = format!("{from} cannot be moved to {to}, which is at or below it");
            return Err(Error::invalid("path", reason));
        }
        if self.look(to).await?.kind.is_some() {
            return Err(Error::AlreadyExists {
                what: "group or array",
                name: to.to_string(),
            });
        }
        let (row, kind) = {
            let place = self.look(from).await?;
            (place.base.clone(), place.kind)
        };
        let metadata = match &row {
            Some(row) if row.kind == NodeKind::Array => {
                Some(self.repository.array_metadata(row).await?)
            }
            _ => None,
        };
        let mut place = self.look(from).await?;
        if (&place.base, place.kind) != (&row, kind) {
            return Err(Error::invalid(
                "path",
                format!("{from} changed while it was being moved"),
            ));
        }
        let moved = Origin::moved(row.clone(), from);
        let change = match (kind, place.changes.get(from).cloned()) {
            (None, _) | (_, Some(Change::Delete)) => {
                return Err(Error::not_found("group or array", &from.to_string(), []));
            }
            (_, Some(Change::Group(mut group))) => {
                if group.origin == Origin::Base {
                    group.origin = moved;
                }
                Change::Group(group)
            }
            (_, Some(Change::Array(array))) => {
                let mut array = Arc::unwrap_or_clone(array);
                if array.origin == Origin::Base {
                    array.origin = moved;
                }
                Change::Array(Arc::new(array))
            }
            (_, None) => match metadata {
                Some(metadata) => {
                    let chunks = ChunkChanges::new(&metadata)?;
                    Change::Array(Arc::new(ArrayChange::new(moved, metadata, chunks)))
                }
                None => Change::Group(GroupChange {
                    origin: moved,
                    metadata: None,
                }),
            },
        };
        let below: Vec<(NodePath, Change)> = place
            .changes
            .below(from)
            .map(|(path, change)| (path.clone(), change.clone()))
            .collect();
        place.changes.delete(from, row.is_some());
        place.changes.insert(to.clone(), change);
        let depth = from.names().count();
        for (path, change) in below {
            let mut rest = path.names().skip(depth);
            let path = rest.try_fold(to.clone(), |path, name| path.join(name))?;
            place.changes.insert(path, change);
        }
        self.note(|journal| {
            journal.push(Step::Rename {
                path: from.as_str().to_owned(),
                to: to.as_str().to_owned(),
            });
        });
        Ok(())
    }

    /// Stores one chunk of an array. Small ones wait for the commit, to be kept inside their page.
    ///
    /// `bytes` are verified by `id` under the rules of `kind`; `statistics` are those of the
    /// chunk's cells inside the array. The whole chunk counts as written.
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
        let row = self.upload(index.clone(), kind, id, bytes).await?;
        let change = ChunkChange::present(row, statistics, Written::Whole);
        self.edit_chunk(path, &index, change, None).await
    }

    /// Refers to a chunk of an array in a file elsewhere: `length` bytes at `offset` of the file at
    /// `url`, which has the tag `etag`. Their hash as a plain chunk is `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such array; [`Error::Invalid`] if `index` is not in its
    /// grid or there are no bytes.
    pub async fn put_external(
        &self,
        path: &NodePath,
        index: ChunkIndex,
        (id, length): (Hash, u64),
        (url, offset, etag): (&str, u64, &str),
        statistics: Option<Statistics>,
    ) -> Result<(), Error> {
        if length == 0 || offset.checked_add(length).is_none() {
            let reason = format!("{length} bytes at {offset} of {url} are no chunk");
            return Err(Error::invalid("chunk", reason));
        }
        let row = ChunkRow {
            index: index.clone(),
            kind: ChunkKind::Plain,
            id,
            length,
            location: Location::External {
                url: url.to_owned(),
                offset,
                etag: etag.to_owned(),
            },
        };
        let change = ChunkChange::present(row, statistics, Written::Whole);
        self.edit_chunk(path, &index, change, None).await
    }

    /// Stores one chunk of which only the inner chunks `written` (ascending) are new; the others are
    /// those of the chunk `seen`, as the transaction had it.
    ///
    /// # Errors
    /// [`Error::Overtaken`] if the transaction has another chunk there by now; else as
    /// [`Transaction::put_chunk`].
    pub async fn put_inner_chunks(
        &self,
        path: &NodePath,
        chunk: (ChunkIndex, ChunkKind, Hash, Bytes),
        statistics: Option<Statistics>,
        written: Vec<u32>,
        seen: Option<&ChunkRow>,
    ) -> Result<(), Error> {
        let (index, kind, id, bytes) = chunk;
        let row = self.upload(index.clone(), kind, id, bytes).await?;
        let written = Written::Inner(written.into());
        let change = ChunkChange::present(row, statistics, written);
        self.edit_chunk(path, &index, change, Some(seen)).await
    }

    /// Makes a chunk all fill value, which the inner chunks of the chunk `seen` but for `written`
    /// are already.
    ///
    /// # Errors
    /// As [`Transaction::put_inner_chunks`].
    pub async fn clear_inner_chunks(
        &self,
        path: &NodePath,
        index: &ChunkIndex,
        written: Vec<u32>,
        seen: Option<&ChunkRow>,
    ) -> Result<(), Error> {
        let change = ChunkChange::Removed(Written::Inner(written.into()));
        self.edit_chunk(path, index, change, Some(seen)).await
    }

    async fn upload(
        &self,
        index: ChunkIndex,
        kind: ChunkKind,
        id: Hash,
        bytes: Bytes,
    ) -> Result<ChunkRow, Error> {
        let length = bytes.len() as u64;
        let location = if length <= MAX_INLINE_BYTES {
            Location::Inline(bytes)
        } else {
            let store = self.repository.store();
            store.put_immutable(&shard_key(&id), bytes).await?;
            Location::Stored
        };
        Ok(ChunkRow {
            index,
            kind,
            id,
            length,
            location,
        })
    }

    /// Makes one chunk of an array all fill value.
    ///
    /// # Errors
    /// As [`Transaction::put_chunk`].
    pub async fn delete_chunk(&self, path: &NodePath, index: ChunkIndex) -> Result<(), Error> {
        let change = ChunkChange::Removed(Written::Whole);
        self.edit_chunk(path, &index, change, None).await
    }

    /// Sets the change of a chunk. With `seen`, only if that is still what the transaction has.
    async fn edit_chunk(
        &self,
        path: &NodePath,
        index: &ChunkIndex,
        change: ChunkChange,
        seen: Option<Option<&ChunkRow>>,
    ) -> Result<(), Error> {
        self.edit_chunks(path, index, |chunks| {
            if let (Some(now), Some(seen)) = (chunks.get(index), seen)
                && !same_content(now.row(index.clone()).as_ref(), seen)
            {
                return Err(Error::Overtaken {
                    path: path.clone(),
                    index: index.clone(),
                });
            }
            // The step is about what is written now, the change about all that was.
            self.note(|journal| journal.push_chunk(path, index, &change));
            let written = chunks.written_with(index, change.written().clone());
            chunks.insert(index, &change.with_written(written));
            Ok(())
        })
        .await
    }

    /// Whether this transaction says what becomes of the chunk at `index`.
    pub fn changes_chunk(&self, path: &NodePath, index: &ChunkIndex) -> bool {
        match self.changes().get(path) {
            Some(Change::Array(array)) => array.chunks.contains(index),
            _ => false,
        }
    }

    async fn edit_chunks<T>(
        &self,
        path: &NodePath,
        index: &ChunkIndex,
        edit: impl FnOnce(&mut ChunkChanges) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let is_known = self.changes().get(path).is_some();
        let fresh = if is_known {
            None
        } else {
            Some(self.array_change(path).await?)
        };
        let mut changes = self.changes();
        if let (None, Some(array)) = (changes.get(path), fresh) {
            changes.insert(path.clone(), Change::Array(array));
        }
        let Some(Change::Array(array)) = changes.get_mut(path) else {
            return Err(Error::not_found("array", &path.to_string(), []));
        };
        if !array.metadata.grid().contains(index) {
            let reason = format!("{index} is outside the chunk grid of {path}");
            return Err(Error::invalid("chunk", reason));
        }
        edit(&mut Arc::make_mut(array).chunks)
    }

    /// Takes a step that another writer staged, which is not about a chunk.
    pub(crate) async fn replay(&self, step: &Step) -> Result<(), Error> {
        let array = |zarr_json: &Value| match NodeMetadata::from_json(zarr_json.clone())? {
            NodeMetadata::Array(metadata) => Ok(metadata),
            NodeMetadata::Group(_) => Err(Error::invalid("zarr.json", "not that of an array")),
        };
        match step {
            Step::PutGroup { path, zarr_json } => {
                let NodeMetadata::Group(metadata) = NodeMetadata::from_json(zarr_json.clone())?
                else {
                    return Err(Error::invalid("zarr.json", "not that of a group"));
                };
                self.put_group(&path.parse()?, metadata).await?;
            }
            Step::CreateArray { path, zarr_json } => {
                self.create_array(&path.parse()?, array(zarr_json)?).await?;
            }
            Step::SetArray { path, zarr_json } => {
                self.set_array_metadata(&path.parse()?, array(zarr_json)?)
                    .await?;
            }
            Step::Delete { path } => self.delete(&path.parse()?).await?,
            Step::Rename { path, to } => self.rename(&path.parse()?, &to.parse()?).await?,
            Step::Read {
                nodes,
                members,
                regions,
            } => {
                let read = Step::reads(nodes, members, regions)
                    .map_err(|reason| Error::invalid("transaction", reason))?;
                self.note_reads(|reads| reads.all.extend(read));
            }
            Step::Chunk(_) => {}
        }
        // It is staged already.
        self.note(|journal| journal.forget(step));
        Ok(())
    }

    /// Takes in a version of a chunk that another writer staged. Gives the cells of inner chunks
    /// that a writer it did not know of has written too, and differently.
    pub(crate) async fn merge_version(
        &self,
        path: &NodePath,
        index: &ChunkIndex,
        step: &ChunkStep,
        change: ChunkChange,
    ) -> Result<Vec<Region>, Error> {
        let mut unseen: Vec<Written> = Vec::new();
        self.note(|journal| {
            let versions = journal.versions(path, index);
            unseen = versions
                .unseen(&step.previous)
                .into_iter()
                .cloned()
                .collect();
            let written = change.written().clone();
            versions.add(&step.version, &step.previous, written);
        });
        let current = match self.changes().get(path) {
            Some(Change::Array(array)) => array.chunks.get(index),
            _ => None,
        };
        let mut clashes = Vec::new();
        let merged = match current {
            Some(current) if !unseen.is_empty() => {
                let metadata = self.array_change(path).await?.metadata.clone();
                let inner = InnerChunks::of(&metadata)?;
                let sides = Versioned {
                    index,
                    current: &current,
                    unseen: &unseen,
                    step: &change,
                };
                let (clashing, merged) = inner.merge_versions(&self.repository, sides).await?;
                for part in clashing {
                    clashes.push(inner.region(index, part, metadata.shape())?);
                }
                match merged {
                    None => change,
                    Some(None) => ChunkChange::Removed(change.written().clone()),
                    Some(Some((row, bytes))) => {
                        let statistics = self.repository.summarize(&metadata, index, bytes).await?;
                        ChunkChange::present(row, statistics, change.written().clone())
                    }
                }
            }
            _ => change,
        };
        self.edit_chunks(path, index, |chunks| {
            let written = chunks.written_with(index, merged.written().clone());
            chunks.insert(index, &merged.with_written(written));
            Ok(())
        })
        .await?;
        Ok(clashes)
    }

    /// The change of the array at `path`, an empty one if it has none yet.
    async fn array_change(&self, path: &NodePath) -> Result<Arc<ArrayChange>, Error> {
        let not_found = || Error::not_found("array", &path.to_string(), []);
        let row = {
            let place = self.look(path).await?;
            match (place.changes.get(path), place.base.clone()) {
                (Some(Change::Array(array)), _) => return Ok(array.clone()),
                (None, Some(row)) if row.kind == NodeKind::Array => row,
                _ => return Err(not_found()),
            }
        };
        let metadata = self.repository.array_metadata(&row).await?;
        let chunks = ChunkChanges::new(&metadata)?;
        Ok(Arc::new(ArrayChange::new(Origin::Base, metadata, chunks)))
    }

    /// The node at `path` as this transaction sees it; `None` if there is none. Recorded as read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if a tree or document is not what it should be.
    pub async fn find(&self, path: &NodePath) -> Result<Option<Node>, Error> {
        self.note_reads(|reads| reads.node(path));
        self.view(path).await
    }

    async fn view(&self, path: &NodePath) -> Result<Option<Node>, Error> {
        let (change, base, kind) = {
            let place = match self.look(path).await {
                Ok(place) => place,
                // Below an array there is nothing.
                Err(Error::Invalid { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let change = place.changes.get(path).cloned();
            (change, place.base.clone(), place.kind)
        };
        let Some(kind) = kind else {
            return Ok(None);
        };
        if let (None, Some(row)) = (&change, &base) {
            return Ok(Some(self.base.open(path.clone(), row.clone()).await?));
        }
        match change {
            Some(Change::Array(array)) => {
                let row = array.origin_row(base);
                let node = ArrayNode::changed(&self.repository, path, row, &array).await?;
                Ok(Some(Node::Array(node)))
            }
            change => {
                debug_assert_eq!(kind, NodeKind::Group);
                let (origin, metadata) = match change {
                    Some(Change::Group(group)) => (group.origin, group.metadata),
                    _ => (Origin::New, None),
                };
                let row = match origin {
                    Origin::Base => base,
                    Origin::New => None,
                    Origin::Node { row, .. } => Some(*row),
                };
                let metadata = match (metadata, &row) {
                    (Some(metadata), _) => NodeMetadata::Group(metadata),
                    (None, Some(row)) => self.repository.node_metadata(row).await?,
                    (None, None) => NodeMetadata::Group(GroupMetadata::default()),
                };
                Ok(Some(Node::changed_group(path, row.as_ref(), metadata)?))
            }
        }
    }

    /// The node at `path` as this transaction sees it. Recorded as read.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; else as [`Transaction::find`].
    pub async fn node(&self, path: &NodePath) -> Result<Node, Error> {
        match self.find(path).await? {
            Some(node) => Ok(node),
            None => {
                let known = match path.parent() {
                    Some(parent) => self.visible_members(&parent).await?,
                    None => Vec::new(),
                };
                let known = known.iter().map(NodePath::as_str);
                Err(Error::not_found("group or array", &path.to_string(), known))
            }
        }
    }

    /// The array at `path` as this transaction sees it. Recorded as read, its values are not: see
    /// [`Transaction::note_region`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is a group; else as [`Transaction::node`].
    pub async fn array(&self, path: &NodePath) -> Result<ArrayNode, Error> {
        match self.node(path).await? {
            Node::Array(array) => Ok(array),
            Node::Group(_) => {
                let reason = format!("{path} is a group, not an array");
                Err(Error::invalid("path", reason))
            }
        }
    }

    /// Records that the values of `region` of the array at `path` were read.
    pub fn note_region(&self, path: &NodePath, region: Region) {
        self.note_reads(|reads| reads.region(path, region));
    }

    /// The row of a chunk of an array as this transaction sees it; `None` if all of it is fill
    /// value. Its cells are recorded as read.
    ///
    /// # Errors
    /// As [`ArrayNode::chunk`] and [`Transaction::array`].
    pub async fn chunk(
        &self,
        path: &NodePath,
        index: &ChunkIndex,
    ) -> Result<Option<ChunkRow>, Error> {
        let array = self.array(path).await?;
        let row = array.chunk(index).await?;
        let region = array.metadata().grid().chunk_region_in_array(index);
        self.note_region(path, region);
        Ok(row)
    }

    /// Paths of the members of the group at `path` as this transaction sees them, sorted. Recorded
    /// as read.
    ///
    /// # Errors
    /// As [`Transaction::find`].
    pub async fn members(&self, path: &NodePath) -> Result<Vec<NodePath>, Error> {
        self.note_reads(|reads| reads.members(path));
        self.visible_members(path).await
    }

    async fn visible_members(&self, path: &NodePath) -> Result<Vec<NodePath>, Error> {
        let row = {
            let Ok(place) = self.look(path).await else {
                return Ok(Vec::new());
            };
            match place.changes.get(path) {
                None => place.base.clone(),
                Some(Change::Group(group)) => match &group.origin {
                    Origin::Base => place.base.clone(),
                    Origin::New => None,
                    Origin::Node { row, .. } => Some(TreeRow::clone(row)),
                },
                Some(Change::Delete | Change::Array(_)) => None,
            }
        };
        let mut names: BTreeMap<String, Option<NodeKind>> = BTreeMap::new();
        if let Some(row) = row.filter(|row| row.kind == NodeKind::Group) {
            let rows = self.repository.trees().members(row.content).await?;
            names.extend(rows.into_iter().map(|row| (row.name, Some(row.kind))));
        }
        let depth = path.names().count();
        let changes = self.changes();
        for (other, _) in changes.below(path) {
            if let Some(name) = other.names().nth(depth) {
                names.entry(name.to_owned()).or_default();
            }
        }
        let mut found = Vec::with_capacity(names.len());
        for (name, base) in names {
            let member = path.join(&name)?;
            if changes.kind(&member, base).is_some() {
                found.push(member);
            }
        }
        Ok(found)
    }

    /// Makes the changes a commit of the branch.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the branch moved and both sides changed the same thing, or what a
    /// serializable transaction read; [`Error::HeadMoved`] if the branch is not where it is
    /// expected; [`Error::Unknown`] if the store gave no clear answer. After any other error the
    /// commit did not happen.
    pub async fn commit(self, options: CommitOptions) -> Result<CommitId, Error> {
        let repository = self.repository.clone();
        repository.commit_pending(self.into_pending(options)).await
    }

    pub(crate) fn into_pending(self, options: CommitOptions) -> Pending {
        let changes = self.changes.into_inner();
        let reads = self.reads.map(Mutex::into_inner);
        let reads = reads.map(|reads| reads.unwrap_or_else(PoisonError::into_inner));
        Pending {
            branch: self.branch,
            base: self.base,
            changes: Arc::new(changes.unwrap_or_else(PoisonError::into_inner)),
            reads: reads.map(|reads| Arc::new(reads.all)),
            options,
            write_id: self.write_id,
            second_parent: None,
            sources: Vec::new(),
            since: self.since,
            sweep: self.sweep,
        }
    }
}

/// The shortest an axis has been, given its cut so far, its new length and its old one.
fn cut_to(((&cut, &new), &old): ((&u64, &u64), &u64)) -> u64 {
    if new < old { cut.min(new) } else { cut }
}
