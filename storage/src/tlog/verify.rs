//! Checking what is stored of the transparency log against the log.

use array::Hash;
use uuid::Uuid;

use super::tile::{Level, TILE_WIDTH, Tile, push_record};
use super::{CHECKPOINT_KEY, Checkpoint, FOLDER, TreeHash, merkle, record};
use crate::verify::Damage;

/// The whole tree over a log.
pub(crate) struct Tree {
    repository: Uuid,
    entries: Vec<Hash>,
    /// Of each level, the hashes that are in tiles.
    levels: Vec<Vec<TreeHash>>,
}

impl Tree {
    /// The tree over these log entries, from the first on.
    pub(crate) fn new(repository: Uuid, entries: Vec<Hash>) -> Self {
        let leaf = |(sequence, entry): (u64, &Hash)| {
            TreeHash::leaf(record(repository, sequence, *entry).as_bytes())
        };
        let mut level: Vec<TreeHash> = (0..).zip(&entries).map(leaf).collect();
        let mut levels = Vec::new();
        while !level.is_empty() {
            let full = level.chunks_exact(TILE_WIDTH as usize);
            let above = full.map(merkle::perfect_root).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        Self {
            repository,
            entries,
            levels,
        }
    }

    /// The root over the first `size` entries.
    fn root(&self, size: u64) -> Option<TreeHash> {
        let part = |subtree: merkle::Subtree| {
            let (level, above) = (subtree.height / 8, subtree.height % 8);
            let first = (subtree.index << above) as usize;
            let hashes = self
                .levels
                .get(level as usize)?
                .get(first..first + (1 << above))?;
            Some(merkle::perfect_root(hashes))
        };
        let parts: Option<Vec<TreeHash>> =
            merkle::subtrees(0..size).into_iter().map(part).collect();
        Some(merkle::join(&parts?))
    }

    /// Keys of what a log of which the first `size` entries are published consists of.
    pub(crate) fn keys(size: u64) -> Vec<String> {
        let mut tiles = Vec::new();
        let (mut level, mut hashes) = (0, size);
        while hashes > 0 {
            for position in (0..hashes).step_by(TILE_WIDTH as usize) {
                tiles.push(Tile::with(level, position, size));
            }
            (level, hashes) = (level + 1, hashes / TILE_WIDTH);
        }
        let bundles = (0..size).step_by(TILE_WIDTH as usize);
        tiles.extend(bundles.map(|sequence| Tile::bundle(sequence, size)));
        tiles
            .iter()
            .map(|tile| format!("{FOLDER}/{tile}"))
            .collect()
    }

    /// The bytes of a tile; `None` if the log is too short.
    fn tile(&self, tile: Tile) -> Option<Vec<u8>> {
        let first = tile.index.checked_mul(TILE_WIDTH)?;
        let range = first as usize..first as usize + tile.width as usize;
        match tile.level {
            Level::Hashes(level) => {
                let hashes = self.levels.get(level as usize)?.get(range)?;
                Some(hashes.iter().flat_map(|hash| hash.0).collect())
            }
            Level::Entries => {
                let mut bundle = Vec::new();
                for (sequence, entry) in (first..).zip(self.entries.get(range)?) {
                    push_record(&mut bundle, &record(self.repository, sequence, *entry));
                }
                Some(bundle)
            }
        }
    }

    /// What is wrong with the object `key` of the transparency log, if something is. What lies
    /// beyond the entries of this tree is passed over unless the log `is_whole`.
    pub(crate) fn check(&self, key: &str, bytes: &[u8], is_whole: bool) -> Option<Damage> {
        let damage = |reason: &str| {
            Some(Damage {
                object: key.to_owned(),
                reason: reason.to_owned(),
            })
        };
        let beyond = || match is_whole {
            true => damage("it is of more entries than the log has"),
            false => None,
        };
        let text = std::str::from_utf8(bytes);
        if key == CHECKPOINT_KEY {
            let Some(Ok(checkpoint)) = text.ok().map(str::parse::<Checkpoint>) else {
                return damage("it is no checkpoint");
            };
            return match self.root(checkpoint.head.size) {
                None => beyond(),
                Some(root) if root == checkpoint.head.root => None,
                Some(_) => damage("the log has another root"),
            };
        }
        let name = key
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.strip_prefix('/'));
        let name = name.unwrap_or_default();
        if let Some(size) = name.strip_prefix("heads/") {
            let size: Option<u64> = size.parse().ok();
            return match size.map(|size| (size, self.root(size))) {
                None => damage("nothing in a repository has this name"),
                Some((_, None)) => beyond(),
                Some((size, Some(root))) if text == Ok(format!("{size}\n{root}\n").as_str()) => {
                    None
                }
                Some(_) => damage("the log has another root"),
            };
        }
        let Ok(tile) = name.parse::<Tile>() else {
            return damage("nothing in a repository has this name");
        };
        match self.tile(tile) {
            None => beyond(),
            Some(expected) if expected == bytes => None,
            Some(_) => damage("it is not what the log leads to"),
        }
    }
}
