//! Reading the transparency log from the store.

use std::ops::Range;

use bytes::Bytes;
use futures::FutureExt as _;

use super::merkle::{consistency_ranges, inclusion_ranges};
use super::tile::{self, Tile, Tiles};
use super::{CHECKPOINT_KEY, Checkpoint, FOLDER, Receipt, TreeHash, record};
use crate::Error;
use crate::concurrent;
use crate::repository::Repository;

impl Repository {
    /// The newest signed head, as far as it was published; `None` before the first. Nobody has
    /// checked its signatures.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is something else; [`Error::Store`] if the store failed.
    pub async fn published(&self) -> Result<Option<Checkpoint>, Error> {
        let Some(bytes) = self.store().get(CHECKPOINT_KEY).await? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes.into()).map_err(|error| error.to_string());
        let checkpoint = text.and_then(|text| text.parse());
        let checkpoint = checkpoint.map_err(|reason| Error::corrupt(CHECKPOINT_KEY, reason))?;
        Ok(Some(checkpoint))
    }

    /// The bytes of a tile or bundle; `None` if there is none. Not checked: only a signed root says
    /// what they should be.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed.
    pub async fn tile(&self, tile: Tile) -> Result<Option<Bytes>, Error> {
        self.store().get(&format!("{FOLDER}/{tile}")).await
    }

    async fn existing_tile(&self, tile: Tile) -> Result<(Tile, Vec<TreeHash>), Error> {
        let key = format!("{FOLDER}/{tile}");
        let bytes = self.store().get_existing(&key).await?;
        let hashes = tile
            .hashes(&bytes)
            .map_err(|reason| Error::corrupt(&key, reason))?;
        Ok((tile, hashes))
    }

    /// The roots over `ranges` of the first `size` entries, from the tiles.
    pub(super) async fn tree_hashes(
        &self,
        ranges: &[Range<u64>],
        size: u64,
    ) -> Result<Vec<TreeHash>, Error> {
        let tiles = self.tiles(tile::tiles_for(ranges, size)).await?;
        let root = |range: &Range<u64>| {
            tile::root(range.clone(), size, &tiles).map_err(|reason| Error::corrupt(FOLDER, reason))
        };
        ranges.iter().map(root).collect()
    }

    /// The root over `range` of the first `size` entries, from the tiles.
    pub(super) async fn tree_hash(&self, range: Range<u64>, size: u64) -> Result<TreeHash, Error> {
        let ranges = std::slice::from_ref(&range);
        Ok(self.tree_hashes(ranges, size).await?[0])
    }

    pub(super) async fn tiles(
        &self,
        wanted: impl IntoIterator<Item = Tile>,
    ) -> Result<Tiles, Error> {
        let requests = wanted
            .into_iter()
            .map(|tile| self.existing_tile(tile).boxed());
        let tiles = concurrent::all(requests.collect()).await?;
        Ok(tiles.into_iter().collect())
    }

    /// The proof that the first `old` entries of the log are the beginning of its first `new`: one
    /// hash for each level that changed. Both were published.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Corrupt`] if the tiles are not there.
    pub async fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<TreeHash>, Error> {
        self.tree_hashes(&consistency_ranges(old, new), new).await
    }

    /// The proof that log entry `sequence` is in the newest published log; `None` if it was
    /// published without that entry.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the tiles do not lead to the published root.
    pub async fn receipt(&self, sequence: u64) -> Result<Option<Receipt>, Error> {
        let Some(checkpoint) = self.published().await? else {
            return Ok(None);
        };
        if sequence >= checkpoint.head.size {
            return Ok(None);
        }
        let ranges = inclusion_ranges(sequence, checkpoint.head.size);
        let (hashes, entry) = futures::try_join!(
            self.tree_hashes(&ranges, checkpoint.head.size),
            self.entry_that_exists(sequence)
        )?;
        let receipt = Receipt {
            extra: None,
            index: sequence,
            hashes,
            checkpoint,
        };
        receipt
            .check(&record(self.id(), sequence, entry.0))
            .map_err(|reason| {
                let reason = format!("{reason}: quarr verify tells which tile is damaged");
                Error::corrupt(format!("{FOLDER}/tile"), reason)
            })?;
        Ok(Some(receipt))
    }

    /// The receipt of log entry `sequence` with the entry itself, for someone who has neither.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such entry; as [`Repository::receipt`].
    pub async fn receipt_with_entry(&self, sequence: u64) -> Result<Option<Receipt>, Error> {
        if sequence >= self.head().await?.next_sequence() {
            return Err(Error::not_found("log entry", &sequence.to_string(), []));
        }
        let entry = self.entry_that_exists(sequence).await?;
        let receipt = self.receipt(sequence).await?;
        Ok(receipt.map(|receipt| receipt.with_entry(self.id(), &entry.1)))
    }
}
