//! Checks everything a repository stores, short of the chunks' own bytes.

use std::collections::{BTreeSet, HashSet};

use array::hash::{self, Hash};
use array::{NodePath, Region};
use serde::{Deserialize, Serialize};

use crate::diff::{self, NodeDifference};
use crate::history;
use crate::layout::Layout;
use crate::log::{CHECKPOINT_INTERVAL, LogEntry, LogState, Operation, check_self};
use crate::object::{object_key, shard_key};
use crate::page::{ChunkRow, Location};
use crate::repository::Repository;
use crate::row_file;
use crate::snapshot::{ArrayNode, Node, Snapshot};
use crate::tlog;
use crate::tree::NodeKind;
use crate::{CommitId, Error};

/// What to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One commit and everything it reaches.
    Commit(CommitId),
    /// What came after `since` on the way to `heads`, each commit against its first parent. What
    /// `since` has is taken to be verified.
    Since {
        /// The newest commits.
        heads: Vec<CommitId>,
        /// The commit all of them come from.
        since: CommitId,
    },
    /// Every ref, the whole history, and every object under the repository's prefix.
    Everything,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Damage {
    /// Key of the object, or the place in the hierarchy.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    /// An error met while reading `object`.
    pub fn new(object: &str, error: &Error) -> Self {
        match error {
            Error::Corrupt { key, reason } => Self {
                object: key.clone(),
                reason: reason.clone(),
            },
            Error::Missing { key } => Self {
                object: key.clone(),
                reason: "it is missing".into(),
            },
            other => Self {
                object: object.to_owned(),
                reason: other.to_string(),
            },
        }
    }
}

/// What was found on the way.
#[derive(Debug, Default)]
pub struct Found {
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// Objects that were checked.
    pub objects: BTreeSet<String>,
    /// Arrays to check further, each manifest once.
    pub arrays: Vec<(ArrayNode, Vec<ChunkRow>)>,
    /// Commits that were checked.
    pub commits: u64,
    /// Log entries that were checked.
    pub entries: u64,
}

impl Repository {
    /// Checks log, checkpoints, commits, trees, documents, manifest and statistics pages. Chunks are
    /// listed, not read.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a head does not come from the commit since which to verify;
    /// [`Error::Store`] if the store failed. Damage is not an error but part of the result.
    pub async fn verify(&self, scope: &Scope) -> Result<Found, Error> {
        let mut walk = Walk::new(self);
        match scope {
            Scope::Commit(commit) => walk.commit(*commit).await.map(drop)?,
            Scope::Since { heads, since } => walk.since(heads, *since).await?,
            Scope::Everything => {
                let (mut open, expired) = walk.log().await?;
                let mut seen = expired;
                while let Some(id) = open.pop() {
                    if seen.insert(id) {
                        open.extend(walk.commit(id).await?);
                    }
                }
            }
        }
        Ok(walk.found)
    }
}

/// A walk over what commits reach; what several of them share is looked at once.
pub(crate) struct Walk {
    repository: Repository,
    pub(crate) found: Found,
    manifests: HashSet<(Hash, Hash, Option<Hash>, u64)>,
    /// Trees of groups.
    trees: HashSet<Hash>,
}

impl Walk {
    pub(crate) fn new(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            found: Found::default(),
            manifests: HashSet::new(),
            trees: HashSet::new(),
        }
    }

    /// Checks a commit and everything in it; gives its parents.
    pub(crate) async fn commit(&mut self, id: CommitId) -> Result<Vec<CommitId>, Error> {
        let key = object_key(&id.0);
        let snapshot = match self.repository.snapshot(id).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.damage(&key, error)?;
                return Ok(Vec::new());
            }
        };
        self.found.objects.insert(key);
        self.found.commits += 1;
        self.tree(&snapshot).await?;
        Ok(snapshot.commit().parents.clone())
    }

    /// Notes what is wrong with `object`; a failing store is passed on.
    fn damage(&mut self, object: &str, error: Error) -> Result<(), Error> {
        if let Error::Store { .. } = error {
            return Err(error);
        }
        let damage = match &error {
            // A commit is looked up by name, but here something names it.
            Error::NotFound { .. } => Damage {
                object: object.to_owned(),
                reason: "it is missing".into(),
            },
            error => Damage::new(object, error),
        };
        if !self.found.damage.contains(&damage) {
            self.found.damage.push(damage);
        }
        Ok(())
    }

    /// Checks every entry and checkpoint; gives the commits the refs are at, and those at which the
    /// history ends. Where the log is damaged, gives every commit it names.
    async fn log(&mut self) -> Result<(Vec<CommitId>, HashSet<CommitId>), Error> {
        let repository = self.repository.clone();
        let store = repository.store().clone();
        let mut commits = Vec::new();
        let sequences: Vec<u64> = store
            .list("log")
            .await?
            .into_iter()
            .filter_map(|(key, _)| {
                key.strip_prefix("log/")?
                    .strip_suffix(".json")?
                    .parse()
                    .ok()
            })
            .collect();
        self.found.objects.insert("repo.json".into());
        let newest = sequences.iter().copied().max();
        let mut state = match store.get("repo.json").await? {
            Some(bytes) => match check_self(hash::Kind::Repo, &bytes) {
                Ok((hash, _)) => Some(LogState::initial(hash)),
                Err(reason) => {
                    self.damage("repo.json", Error::corrupt("repo.json", reason))?;
                    None
                }
            },
            None => {
                self.damage(
                    "repo.json",
                    Error::Missing {
                        key: "repo.json".into(),
                    },
                )?;
                None
            }
        };
        let mut hashes = Vec::new();
        for sequence in newest.map_or(0..0, |newest| 0..newest + 1) {
            let key = LogEntry::key(sequence);
            let entry = match store.get_existing(&key).await {
                Ok(bytes) => LogEntry::decode(sequence, &bytes)
                    .map_err(|reason| Error::corrupt(&key, reason)),
                Err(error) => Err(error),
            };
            self.found.objects.insert(key.clone());
            let (hash, entry) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.damage(&key, error)?;
                    state = None;
                    continue;
                }
            };
            self.found.entries += 1;
            if hashes.len() as u64 == sequence {
                hashes.push(hash);
            }
            for operation in &entry.operations {
                if let Operation::UpdateRef { to: Some(to), .. } = operation {
                    commits.push(*to);
                }
            }
            if let Some(before) = &mut state
                && let Err(reason) = before.apply(hash, &entry)
            {
                self.damage(&key, Error::corrupt(&key, reason))?;
                state = None;
            }
            if sequence > 0 && sequence.is_multiple_of(CHECKPOINT_INTERVAL) {
                self.checkpoint(sequence, state.as_ref()).await?;
            }
        }
        self.transparency_log(hashes, newest).await?;
        Ok(match state {
            Some(state) => {
                let heads = state.refs.values().copied().collect();
                (heads, state.expired.keys().copied().collect())
            }
            None => (commits, HashSet::new()),
        })
    }

    /// Checks everything under `tlog/` against the hashes of the log's entries, as far as they are
    /// known without a gap.
    async fn transparency_log(
        &mut self,
        entries: Vec<Hash>,
        newest: Option<u64>,
    ) -> Result<(), Error> {
        let is_whole = entries.len() as u64 == newest.map_or(0, |newest| newest + 1);
        let store = self.repository.store().clone();
        let tree = tlog::Tree::new(self.repository.id(), entries);
        for (key, _) in store.list("tlog").await? {
            if let Some(bytes) = store.get(&key).await? {
                self.found.damage.extend(tree.check(&key, &bytes, is_whole));
            }
            self.found.objects.insert(key);
        }
        // What is published must be there; that it is no checkpoint was found above.
        let published = self.repository.published().await.ok().flatten();
        let size = published.map_or(0, |published| published.head.size);
        for key in tlog::Tree::keys(size.min(newest.map_or(0, |newest| newest + 1))) {
            if !self.found.objects.contains(&key) {
                let missing = Error::Missing { key: key.clone() };
                self.damage(&key, missing)?;
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self, sequence: u64, state: Option<&LogState>) -> Result<(), Error> {
        let key = LogState::checkpoint_key(sequence);
        // A missing one is only slower.
        match self.repository.checkpoint(sequence).await {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.found.objects.insert(key.clone());
                if state.is_some_and(|state| *state != found) {
                    self.damage(
                        &key,
                        Error::corrupt(&key, "it is not the state the log leads to"),
                    )?;
                }
            }
            Err(error) => {
                self.found.objects.insert(key.clone());
                self.damage(&key, error)?;
            }
        }
        Ok(())
    }

    /// Checks what came after `since` on the way to `heads`.
    async fn since(&mut self, heads: &[CommitId], since: CommitId) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for &head in heads {
            let commits = match history::commits_after(&self.repository, since, head).await {
                Ok(Some(commits)) => commits,
                Ok(None) => {
                    let reason = format!("{head} does not come from {since}");
                    return Err(Error::invalid("since", reason));
                }
                Err(error) => {
                    self.damage(&object_key(&head.0), error)?;
                    continue;
                }
            };
            for id in commits {
                if seen.insert(id) {
                    self.changes(id).await?;
                }
            }
        }
        Ok(())
    }

    /// Checks what a commit changed of its first parent.
    async fn changes(&mut self, id: CommitId) -> Result<(), Error> {
        let key = object_key(&id.0);
        let read = async || {
            let snapshot = self.repository.snapshot(id).await?;
            let parents = self.repository.parents(id).await?;
            let parent = match parents.first() {
                Some(parent) => Some(self.repository.snapshot(*parent).await?),
                None => None,
            };
            Ok((snapshot, parent))
        };
        let (snapshot, parent) = match read().await {
            Ok(read) => read,
            Err(error) => return self.damage(&key, error),
        };
        self.found.objects.insert(key.clone());
        self.found.commits += 1;
        let Some(parent) = parent else {
            return self.tree(&snapshot).await;
        };
        let differences = match diff::nodes(&parent, &snapshot).await {
            Ok(differences) => differences,
            Err(error) => {
                // Where exactly it is damaged, a walk over all of it tells.
                self.damage(&key, error)?;
                return self.tree(&snapshot).await;
            }
        };
        for (path, difference) in differences {
            match difference {
                NodeDifference::Removed(_) => {}
                NodeDifference::Added(_) | NodeDifference::Replaced(..) => {
                    self.subtree(&snapshot, path).await?;
                }
                NodeDifference::Changed(..) => {
                    let nodes = futures::try_join!(parent.node(&path), snapshot.node(&path));
                    match nodes {
                        Ok((Node::Array(old), Node::Array(new))) => {
                            self.changed_array(&old, new).await?;
                        }
                        // Its document was read; its members have differences of their own.
                        Ok(_) => {}
                        Err(error) => self.damage(path.as_str(), error)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks the pages and lists the chunks in which an array differs from what it was.
    async fn changed_array(&mut self, old: &ArrayNode, new: ArrayNode) -> Result<(), Error> {
        let (before, after) = (old.statistics_root(), new.statistics_root());
        if !same_chunks(old, &new) || before.is_some() != after.is_some() {
            return self.array(new).await;
        }
        let repository = self.repository.clone();
        let statistics = async {
            let Some((before, after)) = before.zip(after) else {
                return Ok(());
            };
            let grid = |array: &ArrayNode| array.metadata().grid().grid_shape();
            let (old_grid, new_grid) = (grid(old), grid(&new));
            let before = (before.root, old.layout(), old_grid.as_slice());
            let after = (after.root, new.layout(), new_grid.as_slice());
            let pages = repository.statistics();
            pages.differences(before, after).await.map(drop)
        };
        let differences = match futures::try_join!(diff::chunks(old, &new), statistics) {
            Ok((differences, ())) => differences,
            Err(error) => {
                self.damage(new.path().as_str(), error)?;
                return self.array(new).await;
            }
        };
        let rows = differences.into_values().filter_map(|(_, new)| new);
        let rows: Vec<ChunkRow> = rows.collect();
        let stored = rows
            .iter()
            .filter(|row| matches!(row.location, Location::Stored));
        self.found
            .objects
            .extend(stored.map(|row| shard_key(&row.id)));
        self.found.arrays.push((new, rows));
        Ok(())
    }

    /// Checks the trees of a commit and the pages of its arrays.
    async fn tree(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.subtree(snapshot, NodePath::root()).await
    }

    async fn subtree(&mut self, snapshot: &Snapshot, path: NodePath) -> Result<(), Error> {
        let mut open = vec![path];
        while let Some(path) = open.pop() {
            let node = match snapshot.node(&path).await {
                Ok(node) => node,
                Err(error) => {
                    self.damage(&path.to_string(), error)?;
                    continue;
                }
            };
            let row = node.row().clone();
            if row.inline_document.is_none() {
                self.found.objects.insert(object_key(&row.document));
            }
            match node {
                Node::Array(array) => self.array(array).await?,
                Node::Group(group) => {
                    debug_assert_eq!(row.kind, NodeKind::Group);
                    if !self.trees.insert(row.content) {
                        continue;
                    }
                    for (id, result) in self.repository.trees().pages(row.content).await {
                        let key = object_key(&id);
                        self.found.objects.insert(key.clone());
                        if let Err(error) = result {
                            self.damage(&key, error)?;
                        }
                    }
                    match snapshot.member_paths(&group).await {
                        Ok(paths) => open.extend(paths),
                        Err(error) => self.damage(&path.to_string(), error)?,
                    }
                }
            }
        }
        Ok(())
    }

    async fn array(&mut self, array: ArrayNode) -> Result<(), Error> {
        let statistics = array.statistics_root();
        let key = (
            array.manifest_root(),
            array.document_hash(),
            statistics.map(|s| s.root),
            array.stored_bytes(),
        );
        if !self.manifests.insert(key) {
            return Ok(());
        }
        let layout: Layout = array.layout().clone();
        let mut pages: Vec<(Hash, Result<(), Error>)> = Vec::new();
        let repository = self.repository.clone();
        let mut visit = |id, result| pages.push((id, result));
        let rows = repository
            .manifests()
            .visit_pages(array.manifest_root(), &layout, &mut visit)
            .await;
        if let Some(statistics) = statistics {
            repository
                .statistics()
                .visit_pages(statistics.root, &layout, &mut visit)
                .await;
        }
        let mut is_whole = true;
        for (id, result) in pages {
            let key = object_key(&id);
            self.found.objects.insert(key.clone());
            if let Err(error) = result {
                self.damage(&key, error)?;
                is_whole = false;
            }
        }
        let rows: Vec<ChunkRow> = rows
            .into_iter()
            .filter_map(crate::snapshot::chunk_row)
            .collect();
        let stored = rows
            .iter()
            .fold(0u64, |sum, row| sum.saturating_add(row.length));
        if is_whole && stored != array.stored_bytes() {
            let path = array.path().to_string();
            let reason = format!(
                "its row says that {} bytes are stored, its chunks have {stored}",
                array.stored_bytes()
            );
            self.damage(&path, Error::corrupt(&path, reason))?;
        }
        let grid = Region::whole(&array.metadata().grid().grid_shape());
        for row in &rows {
            if matches!(row.location, Location::Stored) {
                self.found.objects.insert(shard_key(&row.id));
            }
            let at = Region::new(
                row.index.as_slice().to_vec(),
                vec![1; row.index.as_slice().len()],
            )?;
            if !grid.contains(&at) {
                let key = object_key(&array.manifest_root());
                self.damage(
                    &key,
                    Error::corrupt(&key, format!("chunk {} is outside the grid", row.index)),
                )?;
            }
        }
        self.found.arrays.push((array, rows));
        Ok(())
    }
}

/// Whether a chunk of one array is the same in the other.
fn same_chunks(a: &ArrayNode, b: &ArrayNode) -> bool {
    let (a, b) = (a.metadata(), b.metadata());
    a.chunk_shape() == b.chunk_shape() && a.codecs == b.codecs && a.data_type == b.data_type
}

/// Checks an object nothing refers to against its own name: a commit, document or page left by a
/// writer that failed or lost a race, or a checkpoint.
///
/// # Errors
/// Why it is not what its name says.
pub fn check_unreferenced(key: &str, bytes: &[u8]) -> Result<(), String> {
    if let Some(name) = key.strip_prefix("objects/") {
        let id: Hash = name
            .replace('/', "")
            .parse()
            .map_err(|_| "not the name of an object")?;
        let is_named = [
            hash::Kind::Commit,
            hash::Kind::Document,
            hash::Kind::SweepList,
        ]
        .into_iter()
        .any(|kind| hash::hash(kind, bytes) == id);
        // The rows of a page cannot be rebuilt without its place in a tree; its bytes carry a hash.
        return if is_named || row_file::decode(bytes).is_ok() {
            Ok(())
        } else {
            Err("its bytes do not match its name".into())
        };
    }
    if let Some(sequence) = key
        .strip_prefix("checkpoints/")
        .and_then(|name| name.strip_suffix(".json"))
    {
        let sequence = sequence
            .parse()
            .map_err(|_| "not the name of a checkpoint")?;
        return LogState::decode_checkpoint(sequence, bytes).map(drop);
    }
    if key.starts_with("staging/") {
        return check_self(hash::Kind::Staged, bytes).map(drop);
    }
    Err("nothing in a repository has this name".into())
}
