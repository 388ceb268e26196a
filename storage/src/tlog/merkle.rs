//! The Merkle tree of the transparency log: SHA-256 over records, as RFC 6962 §2.1 has it.
//!
//! A hash of the tree is named by the leaves it covers. Proofs list such hashes; here a list of
//! ranges is computed once and serves both who makes a proof and who checks it.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Bytes of a hash.
pub(crate) const TREE_HASH_BYTES: usize = 32;

/// A SHA-256 hash of the transparency log's tree; written as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeHash(pub [u8; 32]);

impl TreeHash {
    /// The root of a tree without leaves.
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// The hash of a record.
    pub fn leaf(record: &[u8]) -> Self {
        Self(
            Sha256::new()
                .chain_update([0])
                .chain_update(record)
                .finalize()
                .into(),
        )
    }

    /// The hash of two subtrees, side by side.
    pub fn node(left: &Self, right: &Self) -> Self {
        let hasher = Sha256::new().chain_update([1]);
        Self(
            hasher
                .chain_update(left.0)
                .chain_update(right.0)
                .finalize()
                .into(),
        )
    }

    /// Reads base64; `None` unless it is exactly what [`fmt::Display`] gives.
    pub fn from_base64(text: &str) -> Option<Self> {
        let hash = Self(STANDARD.decode(text).ok()?.try_into().ok()?);
        (hash.to_string() == text).then_some(hash)
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({self})")
    }
}

/// The root over subtrees of falling size, from left to right.
pub(crate) fn join(subtrees: &[TreeHash]) -> TreeHash {
    let joined = subtrees.iter().rev().copied();
    joined
        .reduce(|right, left| TreeHash::node(&left, &right))
        .unwrap_or_else(TreeHash::empty)
}

/// The root over this many leaves, a power of two.
pub(crate) fn perfect_root(leaves: &[TreeHash]) -> TreeHash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        let pairs = level.chunks(2);
        level = pairs
            .map(|pair| TreeHash::node(&pair[0], &pair[pair.len() - 1]))
            .collect();
    }
    join(&level)
}

/// A subtree whose leaves are a power of two, at a place that is a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subtree {
    /// Its leaves are 2^height.
    pub(crate) height: u32,
    /// Its place among the subtrees of this height.
    pub(crate) index: u64,
}

/// The largest subtrees that together cover the leaves of `range`, from left to right.
pub(crate) fn subtrees(range: Range<u64>) -> Vec<Subtree> {
    let Range { mut start, end } = range;
    let mut found = Vec::new();
    while start < end {
        let fits = (end - start).ilog2();
        let height = fits.min(start.trailing_zeros());
        found.push(Subtree {
            height,
            index: start >> height,
        });
        start += 1 << height;
    }
    found
}

/// Where a subtree of this many leaves, at least two, splits: the largest power of two below.
fn split(range: &Range<u64>) -> u64 {
    let length = range.end - range.start;
    range.start + (1 << (length - 1).ilog2())
}

/// What the hashes of an inclusion proof cover, from the leaf's sibling up: `PATH` of RFC 6962
/// §2.1.1 for leaf `index` of `size`. Empty unless the leaf is there.
pub fn inclusion_ranges(index: u64, size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut within = 0..size;
    while index < size && within.end - within.start > 1 {
        let middle = split(&within);
        let (inside, beside) = match index < middle {
            true => (within.start..middle, middle..within.end),
            false => (middle..within.end, within.start..middle),
        };
        ranges.push(beside);
        within = inside;
    }
    ranges.reverse();
    ranges
}

/// What the hashes of a consistency proof cover, in order: `PROOF` of RFC 6962 §2.1.2 between trees
/// of `old` and `new` leaves. Empty if one of them is empty or they are the same.
pub fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    if old == 0 || old >= new {
        return ranges;
    }
    let mut within = 0..new;
    while within.end != old {
        let middle = split(&within);
        let (inside, beside) = match old <= middle {
            true => (within.start..middle, middle..within.end),
            false => (middle..within.end, within.start..middle),
        };
        ranges.push(beside);
        within = inside;
    }
    if within.start > 0 {
        ranges.push(within);
    }
    ranges.reverse();
    ranges
}

/// The root that follows from an inclusion proof of `leaf` at `index` in a tree of `size`.
///
/// # Errors
/// If the leaf cannot be there, or the proof has another number of hashes.
pub fn root_from_inclusion(
    leaf: TreeHash,
    index: u64,
    size: u64,
    proof: &[TreeHash],
) -> Result<TreeHash, String> {
    let ranges = inclusion_ranges(index, size);
    if index >= size || ranges.len() != proof.len() {
        return Err(format!(
            "{} hashes do not show entry {index} of {size}",
            proof.len()
        ));
    }
    let step = |root: TreeHash, (range, hash): (&Range<u64>, &TreeHash)| match range.start > index {
        true => TreeHash::node(&root, hash),
        false => TreeHash::node(hash, &root),
    };
    Ok(ranges.iter().zip(proof).fold(leaf, step))
}

/// Checks that the tree of `new` leaves and root begins with the one of `old` leaves and root.
///
/// # Errors
/// Why it does not follow.
pub fn check_consistency(
    old: (u64, TreeHash),
    new: (u64, TreeHash),
    proof: &[TreeHash],
) -> Result<(), String> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    let ranges = consistency_ranges(old_size, new_size);
    if old_size > new_size || ranges.len() != proof.len() {
        return Err(format!(
            "{} hashes do not lead from {old_size} entries to {new_size}",
            proof.len()
        ));
    }
    if old_size == 0 {
        let is_empty = old_root == TreeHash::empty();
        return if is_empty {
            Ok(())
        } else {
            Err("a tree of no entries with a root".into())
        };
    }
    let mut steps = ranges.iter().zip(proof).peekable();
    // Unless the old tree is a subtree of the new one, the proof begins with its last subtree.
    let seed = match steps.next_if(|(range, _)| range.start > 0 && range.end == old_size) {
        Some((_, hash)) => *hash,
        None => old_root,
    };
    let (mut old_found, mut new_found) = (seed, seed);
    for (range, hash) in steps {
        if range.start < old_size {
            old_found = TreeHash::node(hash, &old_found);
            new_found = TreeHash::node(hash, &new_found);
        } else {
            new_found = TreeHash::node(&new_found, hash);
        }
    }
    match old_found == old_root && new_found == new_root {
        true => Ok(()),
        false => Err(format!(
            "the log of {new_size} entries does not begin with that of {old_size}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    /// `MTH` as RFC 6962 §2.1 defines it.
    fn root(leaves: &[TreeHash]) -> TreeHash {
        match leaves {
            [] => TreeHash::empty(),
            [leaf] => *leaf,
            leaves => {
                let middle = split(&(0..leaves.len() as u64)) as usize;
                TreeHash::node(&root(&leaves[..middle]), &root(&leaves[middle..]))
            }
        }
    }

    /// The records that Certificate Transparency's implementations test their trees with.
    fn records() -> Vec<Vec<u8>> {
        [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        .map(hex)
        .to_vec()
    }

    #[test]
    fn roots_of_known_records_are_those_of_certificate_transparency() {
        let known = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<TreeHash> = records().iter().map(|r| TreeHash::leaf(r)).collect();
        for (size, known) in known.iter().enumerate() {
            assert_eq!(hex::encode(root(&leaves[..size]).0), *known, "{size}");
            let parts: Vec<TreeHash> = subtrees(0..size as u64)
                .iter()
                .map(|part| {
                    let first = (part.index << part.height) as usize;
                    perfect_root(&leaves[first..first + (1 << part.height)])
                })
                .collect();
            assert_eq!(join(&parts), root(&leaves[..size]));
        }
    }

    #[test]
    fn proofs_cover_what_those_of_certificate_transparency_do() {
        assert_eq!(inclusion_ranges(0, 8), [1..2, 2..4, 4..8]);
        assert_eq!(inclusion_ranges(5, 8), [4..5, 6..8, 0..4]);
        assert_eq!(inclusion_ranges(2, 3).first(), Some(&(0..2)));
        assert_eq!(inclusion_ranges(1, 5), [0..1, 2..4, 4..5]);
        assert!(inclusion_ranges(0, 1).is_empty());
        assert_eq!(consistency_ranges(1, 8), [1..2, 2..4, 4..8]);
        assert_eq!(consistency_ranges(6, 8), [4..6, 6..8, 0..4]);
        assert_eq!(consistency_ranges(2, 5), [2..4, 4..5]);
        assert!(consistency_ranges(5, 5).is_empty());
        assert!(consistency_ranges(0, 5).is_empty());
    }

    proptest! {
        #[test]
        fn proofs_hold_for_their_trees_and_no_others(size in 1..300u64, pick: u64, other: [u8; 32]) {
            let leaves: Vec<TreeHash> = (0..size).map(|at| TreeHash::leaf(&at.to_le_bytes())).collect();
            let part = |range: &Range<u64>| root(&leaves[range.start as usize..range.end as usize]);
            let whole = root(&leaves);
            let index = pick % size;
            let leaf = leaves[index as usize];
            let proof: Vec<TreeHash> = inclusion_ranges(index, size).iter().map(part).collect();
            prop_assert_eq!(root_from_inclusion(leaf, index, size, &proof), Ok(whole));
            prop_assert_ne!(root_from_inclusion(TreeHash(other), index, size, &proof), Ok(whole));
            let old = pick % (size + 1);
            let proof: Vec<TreeHash> = consistency_ranges(old, size).iter().map(part).collect();
            let (old, new) = ((old, part(&(0..old))), (size, whole));
            prop_assert_eq!(check_consistency(old, new, &proof), Ok(()));
            prop_assert!(check_consistency((old.0, TreeHash(other)), new, &proof).is_err());
            if old.0 > 0 {
                prop_assert!(check_consistency(old, (size, TreeHash(other)), &proof).is_err());
            }
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at] = TreeHash(other);
                prop_assert!(check_consistency(old, new, &changed).is_err());
            }
        }
    }
}
