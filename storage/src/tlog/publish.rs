//! Extending and signing the transparency log.
//!
//! ```text
//! heads signed so far ─► tiles at the largest ─► entries since, each checked ─► new tiles
//!        └─────────────────── all must lie on the way ──────────────────────┐
//! signed checkpoint ◄── signed, cosigned ◄── head put-if-absent ◄── new root ┘
//! ```
//!
//! Architecture invariant: no key signs two heads that contradict each other. Whoever signs keeps
//! what it signed and brings it here; besides, a head is created in the store before it is signed,
//! so two signers of one repository cannot give one size two roots.

use std::collections::BTreeMap;
use std::ops::Range;

use array::Hash;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::tile::{Edge, TILE_WIDTH, Tile, push_record};
use super::{CHECKPOINT_KEY, Checkpoint, FOLDER, Head, SigningKey, TreeHash, record};
use crate::Error;
use crate::concurrent;
use crate::head::CONCURRENT_ENTRIES;
use crate::log::{LogEntry, LogState};
use crate::repository::Repository;

/// How often a checkpoint is put again where another signer has put an older one meanwhile.
const PUBLISH_ROUNDS: u32 = 3;

/// The tree over the whole log, stored and ready to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: TreeHash,
}

/// What a head in the store says.
fn head_text(size: u64, root: TreeHash) -> String {
    format!("{size}\n{root}\n")
}

fn other_head(key: &str) -> Error {
    Error::inconsistent(format!(
        "{key} has another root than the log: another signer saw another log"
    ))
}

fn head_key(size: u64) -> String {
    format!("{FOLDER}/heads/{size:020}")
}

impl Repository {
    /// Adds the newest log entries to the tree. `signed` are heads that were signed before, sizes
    /// and roots: the tree must still contain them.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] if the log is no continuation of a head in `signed` or of one that
    /// another signer stored, or an entry claims a wrong state: it must not be signed.
    /// [`Error::Corrupt`] for an object that is not what the log leads to.
    pub async fn extend_tree(&self, signed: &[(u64, TreeHash)]) -> Result<Extended, Error> {
        let newest = self.head().await?.next_sequence();
        let base = signed.iter().copied().max_by_key(|(size, _)| *size);
        let base = base.unwrap_or((0, TreeHash::empty()));
        if newest < base.0 {
            return Err(Error::inconsistent(format!(
                "the log has {newest} entries, and a head of {} was signed: entries are gone",
                base.0
            )));
        }
        let mut edge = self.edge_at(base).await?;
        for &(size, root) in signed {
            let found = match size {
                _ if (size, root) == base => continue,
                0 => TreeHash::empty(),
                size => self.tree_hash(0..size, base.0).await?,
            };
            if found != root {
                return Err(Error::inconsistent(format!(
                    "the head of {size} entries that was signed is not the one the log has"
                )));
            }
        }
        if let Some(last) = base.0.checked_sub(1) {
            let entry = self.entry_that_exists(last).await?.0;
            let leaf = TreeHash::leaf(record(self.id(), last, entry).as_bytes());
            if self.tree_hash(last..base.0, base.0).await? != leaf {
                return Err(Error::inconsistent(format!(
                    "{} is not the entry that was signed",
                    LogEntry::key(last)
                )));
            }
        }
        let mut full = Vec::new();
        let stored: Vec<Tile> = edge.partial().iter().map(|(tile, _)| *tile).collect();
        let heads = self.heads_after(base.0).await?;
        let entries = self.checked_entries(base.0..newest).await?;
        for (sequence, entry) in (base.0..).zip(&entries) {
            let record = record(self.id(), sequence, *entry);
            edge.push(TreeHash::leaf(record.as_bytes()), &mut full);
            if let Some(found) = heads.get(&edge.size())
                && *found != head_text(edge.size(), edge.root())
            {
                return Err(other_head(&head_key(edge.size())));
            }
        }
        if let Some(size) = heads.keys().find(|size| **size > newest) {
            let key = head_key(*size);
            return Err(Error::inconsistent(format!(
                "the log has {newest} entries, and another signer stored {key}: entries are gone"
            )));
        }
        full.extend(edge.partial());
        full.retain(|(tile, _)| !stored.contains(tile));
        self.put_tiles(full, base.0..newest).await?;
        let extended = Extended {
            size: newest,
            root: edge.root(),
        };
        if newest > 0 {
            let text = head_text(newest, extended.root);
            let put = self.put_derived(head_key(newest), text.into()).await;
            put.map_err(|error| match error {
                Error::Corrupt { key, .. } => other_head(&key),
                error => error,
            })?;
        }
        Ok(extended)
    }

    /// The heads of more than `size` entries in the store: what they say, by size.
    async fn heads_after(&self, size: u64) -> Result<BTreeMap<u64, Bytes>, Error> {
        let folder = format!("{FOLDER}/heads");
        let listed = self.store().list_after(&folder, &head_key(size)).await?;
        let number = |key: &str| key.strip_prefix(&folder)?.strip_prefix('/')?.parse().ok();
        let later = listed
            .into_iter()
            .filter_map(|(key, _)| Some((number(&key)?, key)));
        let read = later
            .filter(|(found, _)| *found > size)
            .map(|(found, key)| {
                async move { Ok((found, self.store().get_existing(&key).await?)) }.boxed()
            });
        let read = concurrent::all(read.collect()).await?;
        Ok(read.into_iter().collect())
    }

    /// Stores tiles of hashes, and the bundles of the entries of `range`.
    async fn put_tiles(
        &self,
        tiles: Vec<(Tile, Vec<TreeHash>)>,
        range: Range<u64>,
    ) -> Result<(), Error> {
        let bytes = |hashes: &[TreeHash]| hashes.iter().flat_map(|hash| hash.0).collect();
        let tiles = tiles
            .iter()
            .map(|(tile, hashes)| (*tile, Bytes::from_owner::<Vec<u8>>(bytes(hashes))));
        let writes = tiles
            .chain(self.bundles(range).await?)
            .map(|(tile, bytes)| self.put_derived(format!("{FOLDER}/{tile}"), bytes).boxed());
        concurrent::all(writes.collect()).await.map(drop)
    }

    /// Creates an object that follows from the log, or finds the same bytes there.
    async fn put_derived(&self, key: String, bytes: Bytes) -> Result<(), Error> {
        let wanted = bytes.clone();
        let check = move |found: &Bytes| match *found == wanted {
            true => Ok(()),
            false => Err("it is not what the log leads to: delete it to have it made anew".into()),
        };
        self.store().put_equivalent(&key, bytes, check).await
    }

    /// The last tiles of the log at a head that was signed; made anew from the log where they are
    /// damaged or gone.
    async fn edge_at(&self, (size, root): (u64, TreeHash)) -> Result<Edge, Error> {
        if size == 0 {
            return Ok(Edge::default());
        }
        let edge = match self.tiles(Edge::tiles(size)).await {
            Ok(tiles) => Edge::new(size, &tiles).ok(),
            Err(Error::Missing { .. } | Error::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(edge) = edge.filter(|edge| edge.root() == root) {
            return Ok(edge);
        }
        let mut edge = Edge::default();
        let mut full = Vec::new();
        let mut entries = self.entry_hashes(0..size);
        while let Some(entry) = entries.try_next().await? {
            let record = record(self.id(), edge.size(), entry);
            edge.push(TreeHash::leaf(record.as_bytes()), &mut full);
        }
        drop(entries);
        if edge.root() != root {
            return Err(Error::inconsistent(format!(
                "the log is not the one whose head of {size} entries was signed"
            )));
        }
        full.extend(edge.partial());
        self.put_tiles(full, 0..size).await?;
        Ok(edge)
    }

    fn entry_hashes(
        &self,
        range: Range<u64>,
    ) -> futures::stream::BoxStream<'_, Result<Hash, Error>> {
        futures::stream::iter(range)
            .map(move |sequence| async move { Ok(self.entry_that_exists(sequence).await?.0) })
            .buffered(CONCURRENT_ENTRIES)
            .boxed()
    }

    /// The hashes of log entries, each of which follows the one before and claims the state it
    /// leads to.
    async fn checked_entries(&self, range: Range<u64>) -> Result<Vec<Hash>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = match range.start.checked_sub(1) {
            Some(before) => self.state_after(before).await?,
            None => self.log_cache().initial().clone(),
        };
        let mut hashes = Vec::new();
        let mut entries = futures::stream::iter(range)
            .map(|sequence| self.entry_that_exists(sequence))
            .buffered(CONCURRENT_ENTRIES);
        while let Some(entry) = entries.try_next().await? {
            let (hash, entry) = &*entry;
            check_entry(&mut state, *hash, entry)?;
            hashes.push(*hash);
        }
        Ok(hashes)
    }

    /// The bundles that the entries of `range` add to or begin.
    async fn bundles(&self, range: Range<u64>) -> Result<Vec<(Tile, Bytes)>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let first = range.start - range.start % TILE_WIDTH;
        let mut bundles: Vec<(Tile, Vec<u8>)> = Vec::new();
        let mut entries = self.entry_hashes(first..range.end);
        let mut sequence = first;
        while let Some(entry) = entries.try_next().await? {
            let tile = Tile::bundle(sequence, range.end);
            if bundles.last().is_none_or(|(last, _)| *last != tile) {
                bundles.push((tile, Vec::new()));
            }
            if let Some((_, bundle)) = bundles.last_mut() {
                push_record(bundle, &record(self.id(), sequence, entry));
            }
            sequence += 1;
        }
        Ok(bundles
            .into_iter()
            .map(|(tile, bytes)| (tile, bytes.into()))
            .collect())
    }

    /// Signs the tree. Whoever calls this has noted down what it signs, so that it never signs
    /// anything that contradicts it.
    pub fn sign_tree(tree: &Extended, keys: &[SigningKey]) -> Checkpoint {
        let origin = keys.first().map(|key| key.name().to_owned());
        let head = Head {
            origin: origin.unwrap_or_default(),
            size: tree.size,
            root: tree.root,
        };
        Checkpoint::sign(head, keys)
    }

    /// Makes a signed head the published one, unless a later one is.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn publish(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let text = Bytes::from(checkpoint.to_string());
        for _ in 0..PUBLISH_ROUNDS {
            let published = self.store().get(CHECKPOINT_KEY).await?;
            let size = published.as_deref().and_then(|bytes| {
                let published: Checkpoint = std::str::from_utf8(bytes).ok()?.parse().ok()?;
                Some(published.head.size)
            });
            let is_there = published.as_ref() == Some(&text);
            if is_there || size > Some(checkpoint.head.size) {
                return Ok(());
            }
            self.store().overwrite(CHECKPOINT_KEY, text.clone()).await?;
        }
        Ok(())
    }
}

/// Moves `state` on by an entry that may be signed.
fn check_entry(state: &mut LogState, hash: Hash, entry: &LogEntry) -> Result<(), Error> {
    state
        .apply(hash, entry)
        .map_err(|reason| Error::corrupt(LogEntry::key(entry.sequence), reason))?;
    if state.root() != entry.state {
        return Err(Error::inconsistent(format!(
            "{} claims a state that it does not lead to",
            LogEntry::key(entry.sequence)
        )));
    }
    Ok(())
}
