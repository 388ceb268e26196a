//! Some leaves of a Merkle tree, shown with what it takes to compute its root.

use array::hash::{self, Hash};
use serde::{Deserialize, Serialize};

/// Most leaves a tree may have: a log has fewer refs, a page or shard far fewer rows.
const MAX_LEAVES: u64 = 1 << 32;

/// Some leaves of a tree, and the roots of the largest subtrees that hold none of them, from left to
/// right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leaves<T> {
    /// Leaves of the whole tree.
    pub(crate) count: u64,
    /// The leaves shown, each with its place, ascending.
    pub(crate) leaves: Vec<(u64, T)>,
    pub(crate) hashes: Vec<Hash>,
}

impl<T> Leaves<T> {
    /// Shows `leaves` (places ascending) of the tree over `all`.
    pub(crate) fn of(all: &[Hash], leaves: Vec<(u64, T)>) -> Self {
        let shown: Vec<u64> = leaves.iter().map(|(place, _)| *place).collect();
        let mut hashes = Vec::new();
        collect(all, 0, &shown, &mut hashes);
        Self {
            count: all.len() as u64,
            leaves,
            hashes,
        }
    }

    /// The root of the tree, given how its leaves are hashed.
    ///
    /// # Errors
    /// If the leaves are not in order or not in the tree, or there are too few or too many hashes.
    pub(crate) fn root<F>(&self, hash: F) -> Result<Hash, String>
    where
        F: Fn(&T) -> Result<Hash, String>,
    {
        if self.count > MAX_LEAVES {
            return Err(format!("a tree of {} leaves", self.count));
        }
        if !self.leaves.is_sorted_by(|a, b| a.0 < b.0)
            || self.leaves.last().is_some_and(|last| last.0 >= self.count)
        {
            return Err("leaves out of order".into());
        }
        if self.leaves.is_empty() && self.count > 0 {
            return Err("a tree of which nothing is shown".into());
        }
        let leaves = self.leaves.iter();
        let leaves: Vec<(u64, Hash)> = leaves
            .map(|(place, leaf)| Ok((*place, hash(leaf)?)))
            .collect::<Result<_, String>>()?;
        let mut rest = self.hashes.iter();
        let root = join(0..self.count, &leaves, &mut rest)?;
        match rest.next() {
            None => Ok(root),
            Some(_) => Err("hashes left over".into()),
        }
    }

    /// Of the leaves shown, those that prove that there is none between: so many come before. They
    /// are neighbours, or the tree ends there.
    ///
    /// # Errors
    /// If others may lie between.
    pub(crate) fn around(&self, after: usize) -> Result<Vec<usize>, String> {
        let place = |at: usize| self.leaves.get(at).map(|(place, _)| *place);
        let before = after.checked_sub(1);
        let next = before.and_then(place).map_or(0, |place| place + 1);
        if next != place(after).unwrap_or(self.count) {
            return Err("a row between two that are not neighbours".into());
        }
        let last = (after < self.leaves.len()).then_some(after);
        Ok(before.into_iter().chain(last).collect())
    }

    /// Bytes of its hashes.
    pub(crate) fn hash_bytes(&self) -> usize {
        self.hashes.len() * hash::HASH_BYTES
    }
}

/// Appends the roots of the largest subtrees of `all`, which begins at place `start`, that hold no
/// place of `shown`.
fn collect(all: &[Hash], start: u64, shown: &[u64], hashes: &mut Vec<Hash>) {
    if all.is_empty() {
        return;
    }
    if shown.is_empty() {
        hashes.push(hash::mth(all));
        return;
    }
    if all.len() == 1 {
        return;
    }
    let (left, right) = all.split_at(hash::split(all.len()));
    let middle = start + left.len() as u64;
    let (before, after) = shown.split_at(shown.partition_point(|&place| place < middle));
    collect(left, start, before, hashes);
    collect(right, middle, after, hashes);
}

/// The root of the subtree over `places`, of which `leaves` are known.
fn join<'a>(
    places: std::ops::Range<u64>,
    leaves: &[(u64, Hash)],
    hashes: &mut impl Iterator<Item = &'a Hash>,
) -> Result<Hash, String> {
    let count = places.end - places.start;
    match leaves {
        _ if count == 0 => Ok(hash::empty()),
        [] => hashes
            .next()
            .copied()
            .ok_or_else(|| "too few hashes".into()),
        [(_, leaf), ..] if count == 1 => Ok(*leaf),
        leaves => {
            let middle = places.start + hash::split(count as usize) as u64;
            let (before, after) = leaves.split_at(leaves.partition_point(|leaf| leaf.0 < middle));
            let left = join(places.start..middle, before, hashes)?;
            let right = join(middle..places.end, after, hashes)?;
            Ok(hash::node(&left, &right))
        }
    }
}

#[cfg(test)]
mod tests {
    use array::hash::Kind;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shown_leaves_give_the_root_and_no_other_leaves_do(
            count in 1..200usize, picks in prop::collection::btree_set(0..200u64, 1..6)
        ) {
            let all: Vec<Hash> = (0..count).map(|at| hash::hash(Kind::Row, &at.to_le_bytes())).collect();
            let shown: Vec<(u64, Hash)> = picks
                .into_iter()
                .filter(|&at| at < count as u64)
                .map(|at| (at, all[at as usize]))
                .collect();
            prop_assume!(!shown.is_empty());
            let leaves = Leaves::of(&all, shown);
            let root = hash::mth(&all);
            prop_assert_eq!(leaves.root(|leaf| Ok(*leaf)), Ok(root));
            for at in 0..leaves.leaves.len() {
                let mut other = leaves.clone();
                other.leaves[at].1 = Hash::ZERO;
                prop_assert_ne!(other.root(|leaf| Ok(*leaf)), Ok(root));
            }
            let mut longer = leaves.clone();
            longer.hashes.push(Hash::ZERO);
            prop_assert!(longer.root(|leaf| Ok(*leaf)).is_err());
            if !leaves.hashes.is_empty() {
                let mut shorter = leaves.clone();
                shorter.hashes.pop();
                prop_assert!(shorter.root(|leaf| Ok(*leaf)).is_err());
            }
        }
    }
}
