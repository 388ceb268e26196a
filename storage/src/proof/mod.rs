//! Proofs: from the bytes of inner chunks to a log entry, for someone who has nothing but the proof.
//!
//! ```text
//! inner chunks ─► chunk ids ─► manifest rows ─► manifest root ─► tree rows ─► commit ─► ref ─► entry
//!                                            signed checkpoint ◄── transparency log ◄── record ◄─┘
//! ```
//!
//! [`check()`] needs no store and believes nothing that is not hashed: what it expects at each step
//! follows from the verified step above. What a region holds by fill value is proved too, by the
//! rows on both sides of the one that is not there.
//!
//! Spec: `docs/proofs.md`.

mod build;
mod check;
mod fields;
mod leaves;
mod statistics;

use array::{ArrayMetadata, ChunkIndex, NodePath, Region, Statistics};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use check::check;

use crate::CommitId;
use crate::tlog::Checkpoint;
use leaves::Leaves;

/// What a proof of chunks says it is.
const FORMAT: &str = "quarr-proof-v1";
/// What a proof of statistics says it is.
const STATISTICS_FORMAT: &str = "quarr-statistics-proof-v1";
/// What a proof of statistics may be of.
pub const REDUCERS: [&str; 7] = ["min", "max", "count", "sum", "mean", "var", "std"];
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

/// A proof, as it is stored in canonical JSON. Rows are the bytes that are hashed.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    array: ArrayDocument,
    content: Content,
}

/// What is shown of an array.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Chunks(ChunksDocument),
    Statistics(StatisticsDocument),
}

/// The part of a document that proves encoded inner chunks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunksDocument {
    /// Pages of the manifest, parents first, in address order.
    manifest: Vec<Leaves<Base64>>,
    /// The chunks that are there, in address order.
    chunks: Vec<ChunkDocument>,
}

/// The part of a document that proves statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatisticsDocument {
    /// What is to be computed from them.
    reduce: String,
    /// Pages of the statistics, parents first, in address order.
    statistics: Vec<Leaves<Base64>>,
}

/// The part of a document that leads from the log to the array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArrayDocument {
    path: String,
    /// First cell of the region, as decimal strings.
    start: Vec<String>,
    /// Its lengths, as decimal strings.
    shape: Vec<String>,
    /// The log entry.
    entry: Value,
    /// What shows that the entry is in the published log, if it is.
    published: Option<PublishedDocument>,
    /// The ref's row in the state after the entry.
    refs: Leaves<Base64>,
    /// From the commit the ref is at to the one that is asked for, each a parent of the one before.
    commits: Vec<Value>,
    /// For each name of the path, the pages that lead to its row.
    trees: Vec<Vec<Leaves<Base64>>>,
    /// The array's `zarr.json`.
    metadata: Value,
}

impl Document {
    /// Reads a document, without its `self`.
    fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(mut members) = value else {
            return Err("no object".into());
        };
        let format = members.remove("format");
        let own: &[&str] = match format.as_ref().and_then(Value::as_str) {
            Some(FORMAT) => &["manifest", "chunks"],
            Some(STATISTICS_FORMAT) => &["reduce", "statistics"],
            _ => return Err(format!("neither {FORMAT} nor {STATISTICS_FORMAT}")),
        };
        let own: Map<String, Value> = own
            .iter()
            .filter_map(|name| members.remove_entry(*name))
            .collect();
        let text = |error: serde_json::Error| error.to_string();
        // `null` stands for nothing only where it is written.
        if !members.contains_key("published") {
            return Err("missing field `published`".into());
        }
        let array = serde_json::from_value(Value::Object(members)).map_err(text)?;
        let own = Value::Object(own);
        let content = match format {
            Some(format) if format == FORMAT => {
                Content::Chunks(serde_json::from_value(own).map_err(text)?)
            }
            _ => Content::Statistics(serde_json::from_value(own).map_err(text)?),
        };
        Ok(Self { array, content })
    }

    /// What [`Document::parse`] reads.
    fn to_value(&self) -> serde_json::Result<Value> {
        let (format, own) = match &self.content {
            Content::Chunks(content) => (FORMAT, serde_json::to_value(content)?),
            Content::Statistics(content) => (STATISTICS_FORMAT, serde_json::to_value(content)?),
        };
        let mut value = serde_json::to_value(&self.array)?;
        value["format"] = format.into();
        if let (Value::Object(value), Value::Object(own)) = (&mut value, own) {
            value.extend(own);
        }
        Ok(value)
    }
}

/// Where the log entry is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedDocument {
    /// The id of the repository.
    repository: String,
    /// The receipt of the entry, without the entry.
    receipt: String,
}

/// What is shown of one chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum ChunkDocument {
    Shard(Leaves<Option<Base64>>),
    Plain(Base64),
}

/// A proof that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Canonical JSON, for [`check()`].
    pub bytes: Vec<u8>,
    /// Whether it leads on to a signed checkpoint.
    pub is_published: bool,
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
    /// The checkpoint of a log that has the entry. It means nothing until
    /// [`Checkpoint::verify`] has found the signature of a key that is trusted.
    pub checkpoint: Option<Checkpoint>,
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
    /// What it holds there.
    pub content: Contents,
    /// Bytes of all rows and hashes on the way from the chunks to the entry.
    pub path_bytes: usize,
}

/// What is proven of a region.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// Every chunk that meets the region, in address order.
    Chunks(Vec<ProvenChunk>),
    /// Statistics, as the writer of the data claimed them.
    Statistics(ProvenStatistics),
}

/// What is proven of the cells of a region that is made of whole chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvenStatistics {
    /// The reducer that was asked for.
    pub reduce: String,
    /// Of the cells in stored chunks, as stored.
    pub stored: Statistics,
    /// Cells in chunks that are not stored: they hold the fill value.
    pub absent_cells: u64,
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
