//! Hashes and Merkle tree heads.
//!
//! Every hash in a repository is BLAKE3-256 in derive-key mode under a context that names what was
//! hashed, so bytes of one kind can never stand in for bytes of another. Trees follow RFC 9162
//! §2.1.1 over hashes that are already leaf hashes.
//!
//! Spec: `docs/format.md`, "Hashes".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// Length of a hash in bytes.
pub const HASH_BYTES: usize = 32;

/// A BLAKE3-256 hash; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// All zeros: stands for an absent inner chunk in a shard's hash table.
    pub const ZERO: Self = Self([0; HASH_BYTES]);

    /// A hash from its bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// A hash from a slice; `None` unless it has exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// Whether this is [`Hash::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = Error;

    /// Accepts exactly 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid =
            || Error::invalid("hash", format!("{text:?} is not 64 lower-case hex digits"));
        if text.len() != 2 * HASH_BYTES || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut bytes = [0; HASH_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What was hashed. The text of each kind is part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One encoded inner chunk of a shard.
    InnerChunk,
    /// One whole encoded chunk that is not a canonical shard.
    PlainChunk,
    /// An interior node of any Merkle tree.
    Node,
    /// A row of a manifest page.
    Row,
    /// A row of a tree page.
    TreeRow,
    /// A row of a statistics page.
    StatisticsRow,
    /// All bytes of a row file before its trailing hash.
    File,
    /// A `zarr.json` document.
    Document,
    /// A commit.
    Commit,
    /// One property of a commit.
    Property,
    /// A log entry.
    LogEntry,
    /// The repository's `repo.json`.
    Repo,
    /// A (ref, commit) row of a log state.
    RefRow,
    /// A log checkpoint.
    Checkpoint,
    /// A client's request, for idempotency.
    Request,
    /// The metadata statistics assume.
    StatisticsMetadata,
    /// What is staged of a transaction.
    Staged,
    /// The list of what a garbage collection deletes.
    SweepList,
    /// A proof.
    Proof,
}

impl Kind {
    /// The BLAKE3 derive-key context.
    pub const fn context(self) -> &'static str {
        match self {
            Self::InnerChunk => "quarr v1 inner chunk",
            Self::PlainChunk => "quarr v1 plain chunk",
            Self::Node => "quarr v1 node",
            Self::Row => "quarr v1 row",
            Self::TreeRow => "quarr v1 tree row",
            Self::StatisticsRow => "quarr v1 statistics row",
            Self::File => "quarr v1 file",
            Self::Document => "quarr v1 document",
            Self::Commit => "quarr v1 commit",
            Self::Property => "quarr v1 property",
            Self::LogEntry => "quarr v1 log entry",
            Self::Repo => "quarr v1 repo",
            Self::RefRow => "quarr v1 ref row",
            Self::Checkpoint => "quarr v1 checkpoint",
            Self::Request => "quarr v1 request",
            Self::StatisticsMetadata => "quarr v1 statistics metadata",
            Self::Staged => "quarr v1 staged",
            Self::SweepList => "quarr v1 sweep list",
            Self::Proof => "quarr v1 proof",
        }
    }
}

/// `H(kind, bytes)`.
pub fn hash(kind: Kind, bytes: &[u8]) -> Hash {
    Hash(blake3::derive_key(kind.context(), bytes))
}

/// `H(node, left ‖ right)`.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0; 2 * HASH_BYTES];
    bytes[..HASH_BYTES].copy_from_slice(&left.0);
    bytes[HASH_BYTES..].copy_from_slice(&right.0);
    hash(Kind::Node, &bytes)
}

/// The Merkle tree hash of `leaves`, which are leaf hashes already.
///
/// One leaf is its own tree hash; no leaf gives [`empty`].
///
/// Spec: RFC 9162 §2.1.1, with `H(node, left ‖ right)` for interior nodes.
pub fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&mth(left), &mth(right))
        }
    }
}

/// The Merkle tree hash of no leaves, `H(node, "")`. Such an object is never stored.
pub fn empty() -> Hash {
    hash(Kind::Node, b"")
}

/// The largest power of two below `n`, which must be at least 2: where a tree of `n` leaves splits.
pub fn split(n: usize) -> usize {
    1 << (usize::BITS - 1 - (n - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_hash_splits_at_the_largest_power_of_two() {
        let leaves: Vec<Hash> = (0..7u8).map(|i| hash(Kind::Row, &[i])).collect();
        let left = node(&node(&leaves[0], &leaves[1]), &node(&leaves[2], &leaves[3]));
        let right = node(&node(&leaves[4], &leaves[5]), &leaves[6]);
        assert_eq!(mth(&leaves), node(&left, &right));
        assert_eq!(mth(&leaves[..1]), leaves[0]);
        assert_eq!(mth(&[]), empty());
    }

    #[test]
    fn hex_round_trips_and_refuses_other_text() {
        let value = hash(Kind::Commit, b"x");
        assert_eq!(value.to_string().parse::<Hash>().unwrap(), value);
        let upper = value.to_string().to_uppercase();
        for bad in ["", "00", upper.as_str(), &"g".repeat(64)] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_do_not_collide() {
        assert_ne!(hash(Kind::InnerChunk, b"x"), hash(Kind::PlainChunk, b"x"));
    }
}
