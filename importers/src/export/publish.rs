//! Mirrors: a plain Zarr v3 copy of a branch in a directory or bucket, kept up to date by what
//! changed.
//!
//! ```text
//! .quarr-publish.json says: being brought from A to B
//!   1. what B has another array for under the same keys goes: unlisted, its metadata, its chunks
//!   2. chunks that are new or changed
//!   3. metadata: arrays, then groups from the inside out, the top last
//!   4. what is gone: metadata, then chunks
//! .quarr-publish.json says: at B
//! ```
//!
//! So whoever reads meanwhile sees chunks of A or of B, and never metadata of cells whose chunks are
//! not there yet. An update that was cut off is finished first, to the commit it was for, before the
//! next begins. A mirror of something else, or whose top somebody changed, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use array::hash::{self, Kind};
use array::{ArrayMetadata, NodePath, Region};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use query::Engine;
use serde_json::{Value, json};
use storage::{ArrayNode, ChunkRow, CommitId, Node, NodePair, Outbox, Snapshot};

use super::view::Runs;
use super::zarr3::prefix;
use crate::Error;
use crate::consolidated::document_with_members;

/// The object that says what a mirror is of.
const STATE: &str = ".quarr-publish.json";
/// What it says it is.
const VERSION: u64 = 1;
/// Chunks copied at once.
const COPIES_IN_FLIGHT: usize = 8;
/// Chunks of the grid looked at together.
const ROWS_AT_ONCE: u64 = 1 << 16;
/// Keys deleted together.
const DELETED_AT_ONCE: usize = 1000;
/// Objects of a mirror that are listed, at most: beyond, a full copy needs an empty place.
const LISTED_MAX: usize = 50_000_000;

/// What to publish.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// The branch, as the mirror is to name it.
    pub branch: String,
    /// The group or array that is the top of the mirror.
    pub path: NodePath,
    /// Whether to take over a place that holds other things: they are deleted.
    pub force: bool,
}

/// How far a publication is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProgress {
    /// The array being copied.
    pub array: String,
    /// Chunks written so far.
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that are to be written, as far as is known.
    pub total_bytes: u64,
}

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The commit the mirror is at.
    pub commit: CommitId,
    /// Chunks written.
    pub chunks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Metadata documents written.
    pub documents: u64,
    /// Objects deleted.
    pub deleted: u64,
}

/// What a mirror is of.
#[derive(Clone, Debug, PartialEq)]
struct State {
    repository: String,
    path: String,
    branch: String,
    /// The commit it was at last.
    commit: Option<CommitId>,
    /// The commit it is being brought to.
    target: Option<CommitId>,
    /// Who brings it there.
    update: String,
    /// Hash of the top's metadata.
    top: Option<String>,
}

impl State {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        if value["quarr_publish"].as_u64() != Some(VERSION) {
            return None;
        }
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let commit = |name: &str| match &value[name] {
            Value::Null => Some(None),
            id => id.as_str()?.parse().ok().map(Some),
        };
        Some(Self {
            repository: text("repository")?,
            path: text("path")?,
            branch: text("branch")?,
            commit: commit("commit")?,
            target: commit("target")?,
            update: text("update")?,
            top: text("top"),
        })
    }

    fn to_bytes(&self) -> bytes::Bytes {
        let id = |id: Option<CommitId>| id.map(|id| id.to_string());
        let document = json!({
            "quarr_publish": VERSION,
            "repository": self.repository,
            "path": self.path,
            "branch": self.branch,
            "commit": id(self.commit),
            "target": id(self.target),
            "update": self.update,
            "top": self.top,
        });
        format!("{document:#}\n").into()
    }
}

/// Brings the mirror in `outbox` to `snapshot`: all of it the first time, then what changed. The
/// requests an update takes are proportional to the change.
///
/// # Errors
/// [`Error::Mirror`] if the place holds something else, somebody changed its top, or another
/// publication is under way; [`Error::Query`] if a chunk is not what was written;
/// [`Error::Storage`] if the repository or the mirror failed.
pub async fn publish(
    engine: &Engine,
    snapshot: &Snapshot,
    options: &PublishOptions,
    outbox: &Outbox,
    progress: &(dyn Fn(&PublishProgress) + Send + Sync),
) -> Result<Published, Error> {
    let mut mirror = Mirror {
        engine,
        outbox,
        options,
        progress,
        state: State {
            repository: snapshot.repository().id().to_string(),
            path: options.path.as_str().to_owned(),
            branch: options.branch.clone(),
            commit: None,
            target: None,
            update: update_name(),
            top: None,
        },
        shown: PublishProgress::default(),
        done: Published {
            commit: snapshot.id(),
            chunks: 0,
            bytes: 0,
            documents: 0,
            deleted: 0,
        },
    };
    // Before anything is touched.
    snapshot.node(&options.path).await?;
    let start = mirror.inspect(snapshot).await?;
    match start {
        Start::Empty => mirror.copy_all(snapshot, false).await?,
        Start::Unknown => mirror.copy_all(snapshot, true).await?,
        Start::Begun(target) => {
            mirror.resume_copy(&target).await?;
            mirror.update(&target, snapshot).await?;
        }
        Start::Between(from, target) => {
            mirror.update(&from, &target).await?;
            mirror.update(&target, snapshot).await?;
        }
        Start::At(from) => mirror.update(&from, snapshot).await?,
    }
    Ok(mirror.done)
}

/// Another one for each update.
fn update_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_nanos());
    format!("{now:x}-{:x}", std::process::id())
}

/// What a mirror is before an update.
enum Start {
    /// There is nothing.
    Empty,
    /// There is something, which goes.
    Unknown,
    /// The first copy was cut off.
    Begun(Snapshot),
    /// An update from one commit to another was cut off.
    Between(Snapshot, Snapshot),
    /// It is at a commit.
    At(Snapshot),
}

struct Mirror<'a> {
    engine: &'a Engine,
    outbox: &'a Outbox,
    options: &'a PublishOptions,
    progress: &'a (dyn Fn(&PublishProgress) + Send + Sync),
    state: State,
    shown: PublishProgress,
    done: Published,
}

impl Mirror<'_> {
    fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Mirror {
            url: self.outbox.url().to_owned(),
            reason: reason.into(),
        }
    }

    /// Finds out what is there.
    async fn inspect(&self, snapshot: &Snapshot) -> Result<Start, Error> {
        let force = self.options.force;
        let Some(bytes) = self.outbox.get(STATE).await? else {
            return match self.outbox.list("", 1).await?.is_empty() {
                true => Ok(Start::Empty),
                false if force => Ok(Start::Unknown),
                false => Err(self.refused(format!(
                    "holds objects and no {STATE}, so it is no mirror: choose an empty place, or delete what is there with --force"
                ))),
            };
        };
        let known = match State::parse(&bytes) {
            Some(known) => known,
            None if force => return Ok(Start::Unknown),
            None => {
                return Err(self.refused(format!(
                    "has a {STATE} that this version does not understand: copy everything anew with --force"
                )));
            }
        };
        let own = &self.state;
        if (&known.repository, &known.path, &known.branch)
            != (&own.repository, &own.path, &own.branch)
        {
            return match force {
                true => Ok(Start::Unknown),
                false => Err(self.refused(format!(
                    "is a mirror of /{} on {} of repository {}: choose another place, or replace it with --force",
                    known.path, known.branch, known.repository
                ))),
            };
        }
        if let (Some(top), None) = (&known.top, known.target) {
            let found = self.outbox.get("zarr.json").await?;
            let found = found.map(|bytes| digest(&bytes));
            if found.as_ref() != Some(top) {
                return match force {
                    true => Ok(Start::Unknown),
                    false => Err(self.refused(
                        "was changed by something else than quarr publish: copy everything anew with --force",
                    )),
                };
            }
        }
        if force {
            return Ok(Start::Unknown);
        }
        // History may have been expired since; then there is nothing to compare with.
        let from = self.snapshot_at(snapshot, known.commit).await?;
        let target = self.snapshot_at(snapshot, known.target).await?;
        Ok(match (known.commit, from, known.target, target) {
            (None, _, Some(_), Some(target)) => Start::Begun(target),
            (Some(_), Some(from), Some(_), Some(target)) => Start::Between(from, target),
            (Some(_), Some(from), None, _) => Start::At(from),
            _ => Start::Unknown,
        })
    }

    async fn snapshot_at(
        &self,
        snapshot: &Snapshot,
        commit: Option<CommitId>,
    ) -> Result<Option<Snapshot>, Error> {
        let Some(commit) = commit else {
            return Ok(None);
        };
        let found = match snapshot.repository().snapshot(commit).await {
            Ok(found) => found,
            Err(storage::Error::NotFound { .. } | storage::Error::Missing { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match found.find(&self.options.path).await {
            Ok(Some(_)) => Ok(Some(found)),
            Ok(None) | Err(storage::Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies everything; what else is there goes.
    async fn copy_all(&mut self, snapshot: &Snapshot, replaces: bool) -> Result<(), Error> {
        self.begin(None, snapshot.id()).await?;
        if replaces {
            self.clear().await?;
        }
        self.copy_missing(snapshot, &BTreeSet::new()).await
    }

    /// Goes on with a first copy: objects appear whole, so those that are there are done.
    async fn resume_copy(&mut self, target: &Snapshot) -> Result<(), Error> {
        self.begin(None, target.id()).await?;
        let found = self.outbox.list("", LISTED_MAX).await?;
        self.copy_missing(target, &found.into_iter().collect())
            .await
    }

    async fn copy_missing(
        &mut self,
        snapshot: &Snapshot,
        present: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let top = snapshot.node(&self.options.path).await?;
        let nodes = snapshot.walk(top).await?;
        let arrays = || {
            nodes.iter().filter_map(|node| match node {
                Node::Array(array) => Some(array),
                Node::Group(_) => None,
            })
        };
        self.expect(arrays().map(ArrayNode::stored_bytes));
        for array in arrays() {
            self.put_array(array, present).await?;
        }
        self.check_own().await?;
        let all: BTreeSet<&NodePath> = nodes.iter().map(Node::path).collect();
        self.put_documents(&nodes, &all).await?;
        self.finish(snapshot, &nodes).await
    }

    /// Brings the mirror from one commit to another.
    async fn update(&mut self, from: &Snapshot, to: &Snapshot) -> Result<(), Error> {
        if from.id() == to.id() && self.state.target.is_none() {
            let bytes = self.outbox.get(STATE).await?;
            let known = bytes.and_then(|bytes| State::parse(&bytes));
            if known.is_some_and(|known| known.target.is_none() && known.commit == Some(to.id())) {
                return Ok(());
            }
        }
        self.begin(Some(from.id()), to.id()).await?;
        let mut changes = from.differences(to).await?;
        let top = &self.options.path;
        changes.retain(|path, _| path.starts_with(top));
        let plan = Plan::new(&changes).await?;
        self.expect(plan.bytes());
        if !plan.replaced.is_empty() {
            self.take_down(from, &plan).await?;
        }
        for (array, rows) in &plan.changed {
            self.put_chunks(array, rows).await?;
        }
        for array in &plan.new {
            self.put_array(array, &BTreeSet::new()).await?;
        }
        self.check_own().await?;
        if plan.touches_documents() {
            let nodes = to.walk(to.node(top).await?).await?;
            let mut paths = plan.documents.clone();
            // A group's document holds those of all below it.
            let above =
                |group: &NodePath| plan.documents.iter().any(|path| path.starts_with(group));
            paths.extend(nodes.iter().map(Node::path).filter(|group| above(group)));
            self.put_documents(&nodes, &paths).await?;
            self.remove(&plan).await?;
            self.finish(to, &nodes).await
        } else {
            self.remove(&plan).await?;
            self.finish_as_it_was(to).await
        }
    }

    /// Says in the mirror that it is being changed.
    async fn begin(&mut self, commit: Option<CommitId>, target: CommitId) -> Result<(), Error> {
        self.state.commit = commit;
        self.state.target = Some(target);
        self.outbox.put(STATE, self.state.to_bytes()).await?;
        Ok(())
    }

    /// Whether nobody else began an update meanwhile.
    async fn check_own(&self) -> Result<(), Error> {
        let bytes = self.outbox.get(STATE).await?;
        let known = bytes.and_then(|bytes| State::parse(&bytes));
        match known.is_some_and(|known| known.update == self.state.update) {
            true => Ok(()),
            false => Err(self.refused("is being updated by another quarr publish: let one do it")),
        }
    }

    async fn finish(&mut self, at: &Snapshot, nodes: &[Node]) -> Result<(), Error> {
        let top = nodes.iter().find(|node| *node.path() == self.options.path);
        self.state.top = top.map(|top| digest(&document_with_members(top, nodes)));
        self.end(at).await
    }

    /// The metadata stayed.
    async fn finish_as_it_was(&mut self, at: &Snapshot) -> Result<(), Error> {
        let top = self.outbox.get("zarr.json").await?;
        self.state.top = top.map(|bytes| digest(&bytes));
        self.end(at).await
    }

    async fn end(&mut self, at: &Snapshot) -> Result<(), Error> {
        self.state.commit = Some(at.id());
        self.state.target = None;
        self.outbox.put(STATE, self.state.to_bytes()).await?;
        Ok(())
    }

    /// Deletes everything, what makes it a hierarchy first.
    async fn clear(&mut self) -> Result<(), Error> {
        let keys = self.outbox.list("", LISTED_MAX).await?;
        let (mut documents, others): (Vec<String>, Vec<String>) = keys
            .into_iter()
            .filter(|key| key != STATE)
            .partition(|key| key == "zarr.json" || key.ends_with("/zarr.json"));
        documents.sort_by_key(String::len);
        self.delete(documents).await?;
        self.delete(others).await
    }

    async fn delete(&mut self, keys: Vec<String>) -> Result<(), Error> {
        for part in keys.chunks(DELETED_AT_ONCE) {
            self.outbox.delete(part).await?;
            self.done.deleted += part.len() as u64;
        }
        Ok(())
    }

    fn expect(&mut self, bytes: impl Iterator<Item = u64>) {
        let more = bytes.fold(0, u64::saturating_add);
        self.shown.total_bytes = self.shown.bytes.saturating_add(more);
        (self.progress)(&self.shown);
    }

    /// Where a node's keys begin.
    fn prefix(&self, path: &NodePath) -> String {
        let below = path.as_str().strip_prefix(self.options.path.as_str());
        prefix(below.unwrap_or_default().trim_start_matches('/'))
    }

    fn chunk_key(&self, array: &ArrayNode, row: &ChunkRow) -> String {
        let encoding = &array.metadata().chunk_key_encoding;
        format!("{}{}", self.prefix(array.path()), encoding.key(&row.index))
    }

    /// Puts all chunks of an array that are not there.
    async fn put_array(
        &mut self,
        array: &ArrayNode,
        present: &BTreeSet<String>,
    ) -> Result<(), Error> {
        for part in parts(array)? {
            let mut rows = array.chunks(&part).await?;
            rows.retain(|row| !present.contains(&self.chunk_key(array, row)));
            self.put_chunks(array, &rows).await?;
        }
        Ok(())
    }

    async fn put_chunks(&mut self, array: &ArrayNode, rows: &[ChunkRow]) -> Result<(), Error> {
        self.shown.array = array.path().to_string();
        let reader = self.engine.open(array.clone())?;
        let (reader, engine, outbox) = (&reader, self.engine, self.outbox);
        let work: Vec<(String, ChunkRow)> = rows
            .iter()
            .map(|row| (self.chunk_key(array, row), row.clone()))
            .collect();
        // Boxed, as the compiler cannot tell otherwise that all of it may move between threads.
        let copy = |(key, row): (String, ChunkRow)| {
            let copied = async move {
                let bytes = engine.zarr_bytes(reader, &row).await?;
                outbox.put(&key, bytes).await?;
                Ok::<_, Error>(row.length)
            };
            copied.boxed()
        };
        let copies = futures::stream::iter(work).map(copy);
        let mut copies = copies.buffer_unordered(COPIES_IN_FLIGHT);
        while let Some(bytes) = copies.try_next().await? {
            self.done.chunks += 1;
            self.done.bytes += bytes;
            self.shown.chunks += 1;
            self.shown.bytes += bytes;
            (self.progress)(&self.shown);
        }
        Ok(())
    }

    /// Puts the metadata of these nodes: arrays, then groups from the inside out.
    async fn put_documents(
        &mut self,
        nodes: &[Node],
        paths: &BTreeSet<&NodePath>,
    ) -> Result<(), Error> {
        let mut wanted: Vec<&Node> = nodes
            .iter()
            .filter(|node| paths.contains(node.path()))
            .collect();
        wanted.sort_by_key(|node| {
            let is_group = matches!(node, Node::Group(_));
            (is_group, std::cmp::Reverse(node.path().names().count()))
        });
        for node in wanted {
            let document = document_with_members(node, nodes);
            let key = format!("{}zarr.json", self.prefix(node.path()));
            self.outbox.put(&key, document.into()).await?;
            self.done.documents += 1;
        }
        Ok(())
    }

    /// Removes what another array takes the keys of, so that nobody reads its chunks with the
    /// metadata of the other.
    async fn take_down(&mut self, from: &Snapshot, plan: &Plan<'_>) -> Result<(), Error> {
        let top = &self.options.path;
        let replaced = plan.replaced.iter().map(|node| node.path());
        let replaced: BTreeSet<&NodePath> = replaced.collect();
        let mut nodes = from.walk(from.node(top).await?).await?;
        nodes.retain(|node| !replaced.iter().any(|path| node.path().starts_with(path)));
        let mut above = BTreeSet::new();
        for path in &replaced {
            above.extend(
                nodes
                    .iter()
                    .map(Node::path)
                    .filter(|group| path.starts_with(group)),
            );
        }
        self.put_documents(&nodes, &above).await?;
        let documents = replaced
            .iter()
            .map(|path| format!("{}zarr.json", self.prefix(path)));
        self.delete(documents.collect()).await?;
        for node in &plan.replaced {
            if let Node::Array(array) = node {
                self.delete_chunks(array).await?;
            }
        }
        Ok(())
    }

    async fn delete_chunks(&mut self, array: &ArrayNode) -> Result<(), Error> {
        for part in parts(array)? {
            let rows = array.chunks(&part).await?;
            let keys = rows.iter().map(|row| self.chunk_key(array, row)).collect();
            self.delete(keys).await?;
        }
        Ok(())
    }

    /// Removes what is gone.
    async fn remove(&mut self, plan: &Plan<'_>) -> Result<(), Error> {
        let mut documents: Vec<&NodePath> = plan.removed.iter().map(|node| node.path()).collect();
        documents.sort_by_key(|path| path.names().count());
        let keys = documents
            .iter()
            .map(|path| format!("{}zarr.json", self.prefix(path)));
        self.delete(keys.collect()).await?;
        for (array, rows) in &plan.vanished {
            let keys = rows.iter().map(|row| self.chunk_key(array, row)).collect();
            self.delete(keys).await?;
        }
        for node in &plan.removed {
            if let Node::Array(array) = node {
                self.delete_chunks(array).await?;
            }
        }
        Ok(())
    }
}

/// What an update does.
#[derive(Default)]
struct Plan<'a> {
    /// Nodes whose keys something else takes.
    replaced: Vec<&'a Node>,
    /// Arrays all of whose chunks are new.
    new: Vec<&'a ArrayNode>,
    /// Chunks that came or changed.
    changed: Vec<(&'a ArrayNode, Vec<ChunkRow>)>,
    /// Chunks that are gone.
    vanished: Vec<(&'a ArrayNode, Vec<ChunkRow>)>,
    /// Nodes that are gone.
    removed: Vec<&'a Node>,
    /// Nodes whose metadata came, changed or went.
    documents: BTreeSet<&'a NodePath>,
}

impl<'a> Plan<'a> {
    async fn new(changes: &'a BTreeMap<NodePath, NodePair>) -> Result<Self, Error> {
        let mut plan = Self::default();
        for (path, (was, is)) in changes {
            match (was, is) {
                (Some(Node::Array(was)), Some(Node::Array(is)))
                    if has_keys_of(was.metadata(), is.metadata()) =>
                {
                    let (mut changed, mut vanished) = (Vec::new(), Vec::new());
                    for (old, new) in was.differences(is).await? {
                        match (old, new) {
                            (_, Some(new)) => changed.push(new),
                            (Some(old), None) => vanished.push(old),
                            (None, None) => {}
                        }
                    }
                    plan.changed.push((is, changed));
                    plan.vanished.push((was, vanished));
                    if was.document() != is.document() {
                        plan.documents.insert(path);
                    }
                    continue;
                }
                (Some(Node::Group(_)), Some(Node::Group(_))) | (None, None) => {}
                (Some(was), Some(_)) => plan.replaced.push(was),
                (Some(was), None) => plan.removed.push(was),
                (None, Some(_)) => {}
            }
            if let Some(Node::Array(is)) = is {
                plan.new.push(is);
            }
            plan.documents.insert(path);
        }
        Ok(plan)
    }

    fn bytes(&self) -> impl Iterator<Item = u64> + '_ {
        let changed = self
            .changed
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|row| row.length));
        changed.chain(self.new.iter().map(|array| array.stored_bytes()))
    }

    fn touches_documents(&self) -> bool {
        !self.documents.is_empty()
    }
}

/// Whether two versions of an array mean the same by the same chunk under the same key.
fn has_keys_of(was: &ArrayMetadata, is: &ArrayMetadata) -> bool {
    was.data_type == is.data_type
        && was.chunk_shape() == is.chunk_shape()
        && was.chunk_key_encoding == is.chunk_key_encoding
        && was.codecs == is.codecs
        && was.fill_value == is.fill_value
        && was.dimensions() == is.dimensions()
}

/// The chunk grid of an array in boxes of a bounded number of chunks.
fn parts(array: &ArrayNode) -> Result<impl Iterator<Item = Region> + use<>, Error> {
    let grid = array.metadata().grid().grid_shape();
    array::shape::elements(&grid)?;
    let ones = vec![1; grid.len()];
    Ok(Runs::new(&grid, &ones, ROWS_AT_ONCE))
}

fn digest(document: &[u8]) -> String {
    hash::hash(Kind::Document, document).to_string()
}
