//! Proofs: from the bytes of inner chunks to a log entry, for someone who has nothing but the proof.
//!
//! ```text
//! inner chunks ─► chunk ids ─► manifest rows ─► manifest root ─► tree rows ─► commit ─► ref ─► entry
//! ```
//!
//! [`check()`] needs no store and believes nothing that is not hashed: what it expects at each step
//! follows from the verified step above. What a region holds by fill value is proved too, by the
//! rows on both sides of the one that is not there.
//!
//! Spec: `docs/proofs.md`.

mod build;
mod check;
mod leaves;

use array::{ArrayMetadata, ChunkIndex, NodePath, Region};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub use check::check;

use crate::CommitId;
use leaves::Leaves;

/// What a proof says it is.
const FORMAT: &str = "quarr-proof-v1";
/// Most inner chunks one proof covers.
const MAX_INNER_CHUNKS: u64 = 1 << 16;

/// Bytes, as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Base64(Bytes);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes.into()))
    }
}

/// A proof as it is stored: canonical JSON. Rows are the bytes that are hashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    path: String,
    /// First cell of the region, as decimal strings.
    start: Vec<String>,
    /// Its lengths, as decimal strings.
    shape: Vec<String>,
    /// The log entry.
    entry: Value,
    /// The ref's row in the state after the entry.
    refs: Leaves<Base64>,
    /// From the commit the ref is at to the one that is asked for, each a parent of the one before.
    commits: Vec<Value>,
    /// For each name of the path, the pages that lead to its row.
    trees: Vec<Vec<Leaves<Base64>>>,
    /// The array's `zarr.json`.
    metadata: Value,
    /// Pages of the manifest, parents first, in address order.
    manifest: Vec<Leaves<Base64>>,
    /// The chunks that are there, in address order.
    chunks: Vec<ChunkDocument>,
}

/// What is shown of one chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum ChunkDocument {
    Shard(Leaves<Option<Base64>>),
    Plain(Base64),
}

/// What a proof proves: that the array held these encoded inner chunks at this commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Proven {
    /// Number of the log entry.
    pub sequence: u64,
    /// Its hash, which a signed checkpoint or another copy of the log must confirm.
    pub entry: array::Hash,
    /// When it was written.
    pub time: DateTime<Utc>,
    /// The ref that was at the commit, or at one that follows it: `heads/main`.
    pub reference: String,
    /// The commit.
    pub commit: CommitId,
    /// The array.
    pub path: NodePath,
    /// Its metadata.
    pub metadata: ArrayMetadata,
    /// The region of the array.
    pub region: Region,
    /// Every chunk that meets the region, in address order.
    pub chunks: Vec<ProvenChunk>,
    /// Bytes of all rows and hashes on the way from the chunks to the entry.
    pub path_bytes: usize,
}

/// What is proven of one chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvenChunk {
    /// Its place in the chunk grid.
    pub index: ChunkIndex,
    /// Its encoded inner chunks that meet the region, by number; `None` for those that are all fill
    /// value. A chunk that is no shard is its own inner chunk 0.
    pub inner: Vec<(u32, Option<Bytes>)>,
}
