//! Tiles: the tree cut into pieces of 256 hashes, which anyone can read and compute proofs from.
//!
//! Spec: C2SP `tlog-tiles`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;

use super::merkle::{self, Subtree, TREE_HASH_BYTES, TreeHash};

/// Levels of the tree between a tile and the one above it.
const TILE_HEIGHT: u32 = 8;
/// Hashes of a whole tile.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Hashes of subtrees of 256^level leaves.
    Hashes(u32),
    /// The records themselves, each after its length as a big-endian u16.
    Entries,
}

/// A tile; written as its path, `tile/0/x001/234.p/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What it holds.
    pub level: Level,
    /// Its place in the level.
    pub index: u64,
    /// How many hashes or entries it has, 1 to 256.
    pub width: u32,
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Hashes(level) => write!(f, "tile/{level}/")?,
            Level::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if u64::from(self.width) < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let wrong = || format!("{path:?} is not the path of a tile, as tile/0/x001/234.p/5 is");
        let rest = path.strip_prefix("tile/").ok_or_else(wrong)?;
        let (level, rest) = rest.split_once('/').ok_or_else(wrong)?;
        let level = match level {
            "entries" => Level::Entries,
            level => Level::Hashes(level.parse().ok().filter(|&l| l < 64).ok_or_else(wrong)?),
        };
        let (digits, width) = match rest.split_once(".p/") {
            Some((digits, width)) => (digits, width.parse().map_err(|_| wrong())?),
            None => (rest, TILE_WIDTH as u32),
        };
        let digits: String = digits
            .split('/')
            .map(|part| part.trim_start_matches('x'))
            .collect();
        let tile = Self {
            level,
            index: digits.parse().map_err(|_| wrong())?,
            width,
        };
        match tile.to_string() == path && tile.width > 0 {
            true => Ok(tile),
            false => Err(wrong()),
        }
    }
}

impl Tile {
    /// The tile of a log of `size` entries that has hash `position` of a level.
    pub(crate) fn with(level: u32, position: u64, size: u64) -> Self {
        let index = position >> TILE_HEIGHT;
        let hashes = size.checked_shr(TILE_HEIGHT * level).unwrap_or(0);
        Self {
            level: Level::Hashes(level),
            index,
            width: (hashes - (index << TILE_HEIGHT)).min(TILE_WIDTH) as u32,
        }
    }

    /// The bundle of a log of `size` entries that has entry `sequence`.
    pub fn bundle(sequence: u64, size: u64) -> Self {
        Self {
            level: Level::Entries,
            ..Self::with(0, sequence, size)
        }
    }

    /// The hashes in the bytes of this tile.
    ///
    /// # Errors
    /// If they are too many or too few.
    pub fn hashes(&self, bytes: &[u8]) -> Result<Vec<TreeHash>, String> {
        if bytes.len() != self.width as usize * TREE_HASH_BYTES {
            return Err(format!(
                "{} bytes are not {} hashes",
                bytes.len(),
                self.width
            ));
        }
        let (hashes, _) = bytes.as_chunks::<TREE_HASH_BYTES>();
        Ok(hashes.iter().map(|hash| TreeHash(*hash)).collect())
    }

    /// The records in the bytes of this bundle.
    ///
    /// # Errors
    /// If they are too many or too few.
    pub fn records(&self, bytes: &Bytes) -> Result<Vec<Bytes>, String> {
        let wrong = || format!("{} bytes are not {} entries", bytes.len(), self.width);
        let mut records = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = bytes.get(at..at + 2).ok_or_else(wrong)?;
            let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            if end > bytes.len() {
                return Err(wrong());
            }
            records.push(bytes.slice(at + 2..end));
            at = end;
        }
        match records.len() == self.width as usize {
            true => Ok(records),
            false => Err(wrong()),
        }
    }
}

/// Appends a record to a bundle.
pub(crate) fn push_record(bundle: &mut Vec<u8>, record: &str) {
    // A record is a few lines: its length always fits.
    let length = u16::try_from(record.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(&record.as_bytes()[..usize::from(length)]);
}

/// The tile that leads to a subtree, and the subtree's hashes in it.
fn place(subtree: Subtree, size: u64) -> (Tile, Range<usize>) {
    let level = subtree.height / TILE_HEIGHT;
    let above = subtree.height % TILE_HEIGHT;
    let first = subtree.index << above;
    let start = (first % TILE_WIDTH) as usize;
    (Tile::with(level, first, size), start..start + (1 << above))
}

/// The tiles of a log of `size` entries from which the roots over `ranges` follow.
pub fn tiles_for(ranges: &[Range<u64>], size: u64) -> BTreeSet<Tile> {
    let subtrees = ranges.iter().cloned().flat_map(merkle::subtrees);
    subtrees.map(|subtree| place(subtree, size).0).collect()
}

/// Tiles that were read.
pub type Tiles = HashMap<Tile, Vec<TreeHash>>;

/// The root over the leaves of `range` of a log of `size` entries.
///
/// # Errors
/// If a tile is missing.
pub fn root(range: Range<u64>, size: u64, tiles: &Tiles) -> Result<TreeHash, String> {
    let hash = |subtree| {
        let (tile, hashes) = place(subtree, size);
        let found = tiles.get(&tile).and_then(|tile| tile.get(hashes));
        found
            .map(merkle::perfect_root)
            .ok_or_else(|| format!("{tile} is missing"))
    };
    let subtrees = merkle::subtrees(range).into_iter().map(hash);
    Ok(merkle::join(&subtrees.collect::<Result<Vec<_>, _>>()?))
}

/// The last tiles of a log, those that are not full: what is needed to append to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// The hashes of each level that are in no full tile.
    levels: Vec<Vec<TreeHash>>,
}

impl Edge {
    /// The tiles an edge consists of.
    pub fn tiles(size: u64) -> BTreeSet<Tile> {
        tiles_for(std::slice::from_ref(&(0..size)), size)
    }

    /// The edge of a log of `size` entries.
    ///
    /// # Errors
    /// If a tile is missing.
    pub fn new(size: u64, tiles: &Tiles) -> Result<Self, String> {
        let mut levels = Vec::new();
        let mut hashes = size;
        while hashes > 0 {
            let level = levels.len() as u32;
            levels.push(match hashes % TILE_WIDTH {
                0 => Vec::new(),
                _ => {
                    let tile = Tile::with(level, hashes - 1, size);
                    let found = tiles.get(&tile).cloned();
                    found.ok_or_else(|| format!("{tile} is missing"))?
                }
            });
            hashes >>= TILE_HEIGHT;
        }
        Ok(Self { size, levels })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all of them.
    pub fn root(&self) -> TreeHash {
        let mut parts = Vec::new();
        for level in self.levels.iter().rev() {
            let mut rest = level.as_slice();
            while !rest.is_empty() {
                let (part, after) = rest.split_at(1 << rest.len().ilog2());
                parts.push(merkle::perfect_root(part));
                rest = after;
            }
        }
        merkle::join(&parts)
    }

    /// Appends a leaf; adds the tiles that it makes full.
    pub fn push(&mut self, leaf: TreeHash, full: &mut Vec<(Tile, Vec<TreeHash>)>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if (hashes.len() as u64) < TILE_WIDTH {
                return;
            }
            let tile = std::mem::take(hashes);
            hash = merkle::perfect_root(&tile);
            let position = (self.size >> (TILE_HEIGHT * level as u32)) - 1;
            full.push((Tile::with(level as u32, position, self.size), tile));
        }
    }

    /// The tiles that are not full.
    pub(crate) fn partial(&self) -> Vec<(Tile, Vec<TreeHash>)> {
        let levels = self.levels.iter().enumerate();
        let tile = |(level, hashes): (usize, &Vec<TreeHash>)| {
            let last = (self.size >> (TILE_HEIGHT * level as u32)).checked_sub(1)?;
            (!hashes.is_empty())
                .then(|| (Tile::with(level as u32, last, self.size), hashes.clone()))
        };
        levels.filter_map(tile).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::merkle::{consistency_ranges, inclusion_ranges};
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |level, index, width| Tile {
            level,
            index,
            width,
        };
        for (path, expected) in [
            (
                "tile/0/x001/x234/067",
                tile(Level::Hashes(0), 1_234_067, 256),
            ),
            ("tile/0/000.p/1", tile(Level::Hashes(0), 0, 1)),
            ("tile/63/999", tile(Level::Hashes(63), 999, 256)),
            (
                "tile/entries/x001/000.p/255",
                tile(Level::Entries, 1000, 255),
            ),
        ] {
            assert_eq!(path.parse::<Tile>(), Ok(expected));
            assert_eq!(expected.to_string(), path);
        }
        for bad in [
            "",
            "tile/0",
            "tile/64/000",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/00/000",
            "tile/-1/000",
            "tile/0/x001/x234/067.p/",
            "tile/0/xx01/000",
            "/tile/0/000",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert!(bad.parse::<Tile>().is_err(), "{bad}");
        }
    }

    /// The tiles of a tree of 70,000 leaves, as the specification counts them.
    #[test]
    fn a_log_of_70000_entries_has_the_tiles_the_specification_says() {
        let mut edge = Edge::default();
        let mut full = Vec::new();
        for at in 0..70_000u64 {
            edge.push(TreeHash::leaf(&at.to_be_bytes()), &mut full);
        }
        let count = |level| {
            let of_level = |(tile, _): &&(Tile, _)| tile.level == Level::Hashes(level);
            full.iter().filter(of_level).count()
        };
        assert_eq!((count(0), count(1), count(2)), (273, 1, 0));
        let widths: Vec<u32> = edge.partial().iter().map(|(tile, _)| tile.width).collect();
        assert_eq!(widths, [112, 17, 1]);
        let mut edge = Edge::default();
        for _ in 0..256 {
            edge.push(TreeHash::leaf(b""), &mut full);
        }
        assert_eq!(edge.partial()[0].0.to_string(), "tile/1/000.p/1");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn tiles_lead_to_every_root(size in 1..70_000u64, pick: u64, other: u64) {
            let mut edge = Edge::default();
            let mut written = Vec::new();
            let leaves: Vec<TreeHash> = (0..size).map(|at| TreeHash::leaf(&at.to_be_bytes())).collect();
            for leaf in &leaves {
                edge.push(*leaf, &mut written);
            }
            written.extend(edge.partial());
            let all: Tiles = written.into_iter().collect();
            let tile_bytes = |tile: &Tile| {
                let hashes = all.get(tile).unwrap_or_else(|| panic!("{tile}"));
                hashes.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>()
            };
            let read = |wanted: BTreeSet<Tile>| -> Tiles {
                wanted.into_iter().map(|tile| (tile, tile.hashes(&tile_bytes(&tile)).unwrap())).collect()
            };
            prop_assert_eq!(&Edge::new(size, &read(Edge::tiles(size))).unwrap(), &edge);
            let whole = edge.root();
            prop_assert_eq!(root(0..size, size, &read(Edge::tiles(size))), Ok(whole));
            let roots = |ranges: &[Range<u64>]| -> Vec<TreeHash> {
                let tiles = read(tiles_for(ranges, size));
                ranges.iter().map(|range| root(range.clone(), size, &tiles).unwrap()).collect()
            };
            let index = pick % size;
            let proof = roots(&inclusion_ranges(index, size));
            let leaf = leaves[index as usize];
            prop_assert_eq!(merkle::root_from_inclusion(leaf, index, size, &proof), Ok(whole));
            let old = other % size + 1;
            let old_root = roots(std::slice::from_ref(&(0..old)))[0];
            let proof = roots(&consistency_ranges(old, size));
            prop_assert_eq!(merkle::check_consistency((old, old_root), (size, whole), &proof), Ok(()));
        }
    }
}
