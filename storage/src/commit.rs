//! Commits: one state of the whole hierarchy, and where it came from.
//!
//! A commit is a canonical JSON document, stored under its id `H(commit, bytes)`. It contains the
//! only row of the root tree, so a group is opened with the commit and one more object.
//!
//! Spec: `docs/format.md`, "Commits".

use array::hash::{self, Hash, Kind};
use array::{NodePath, json};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::CommitId;
use crate::tree::{NodeKind, TreeRow};

/// Longest commit document, in bytes.
pub(crate) const MAX_COMMIT_BYTES: usize = 16 << 20;

/// One state of the hierarchy.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The commits it follows: none for the first, two for a merge.
    pub parents: Vec<CommitId>,
    /// The root group.
    pub(crate) root: TreeRow,
    /// When it was made.
    pub time: DateTime<Utc>,
    /// Who made it.
    pub author: String,
    /// What it is for.
    pub message: String,
    /// Where the data came from: source file, importer, job, lineage.
    pub properties: Map<String, Value>,
    /// Nodes of the parent that it deletes, those it creates again included.
    pub deleted: Vec<NodePath>,
    /// Names this commit in the log across slots and rebases.
    pub write_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    author: String,
    message: String,
    parents: Vec<CommitId>,
    properties: Map<String, Value>,
    properties_root: Hash,
    deleted: Vec<String>,
    root: RootRow,
    time: String,
    totals: Totals,
    tree: Hash,
    write_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootRow {
    document: Hash,
    id: Hash,
    #[serde(skip_serializing_if = "Option::is_none")]
    zarr_json: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    stored_bytes: String,
}

impl Commit {
    /// The root tree: the Merkle tree hash of its only row.
    pub fn tree(&self) -> Hash {
        self.root.tree_id()
    }

    /// Bytes stored in all chunks of this state.
    pub fn stored_bytes(&self) -> u64 {
        self.root.stored_bytes
    }

    /// The document and its id.
    pub(crate) fn encode(&self) -> (CommitId, Vec<u8>) {
        let zarr_json = self
            .root
            .inline_document
            .as_ref()
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        let document = Document {
            author: self.author.clone(),
            message: self.message.clone(),
            parents: self.parents.clone(),
            properties: self.properties.clone(),
            properties_root: properties_root(&self.properties),
            deleted: self
                .deleted
                .iter()
                .map(|path| path.as_str().to_owned())
                .collect(),
            root: RootRow {
                document: self.root.document,
                id: self.root.content,
                zarr_json,
            },
            time: format_time(self.time),
            totals: Totals {
                stored_bytes: self.root.stored_bytes.to_string(),
            },
            tree: self.tree(),
            write_id: self.write_id.clone(),
        };
        // Plain data: strings, lists and maps always serialise.
        let bytes = json::canonical_bytes(&serde_json::to_value(&document).unwrap_or(Value::Null));
        (CommitId(hash::hash(Kind::Commit, &bytes)), bytes)
    }

    /// Reads a document and checks that it is commit `id`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(id: &CommitId, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_COMMIT_BYTES {
            return Err(format!(
                "{} bytes are more than a commit may have",
                bytes.len()
            ));
        }
        if hash::hash(Kind::Commit, bytes) != id.0 {
            return Err("its bytes do not match its name".into());
        }
        let value = json::parse_canonical("commit", bytes).map_err(|error| error.to_string())?;
        let document: Document =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        let inline_document = document
            .root
            .zarr_json
            .map(|value| Bytes::from(json::canonical_bytes(&value)));
        if inline_document
            .as_ref()
            .is_some_and(|b| hash::hash(Kind::Document, b) != document.root.document)
        {
            return Err("the root's zarr.json does not match its hash".into());
        }
        let root = TreeRow {
            name: String::new(),
            kind: NodeKind::Group,
            document: document.root.document,
            inline_document,
            content: document.root.id,
            stored_bytes: document
                .totals
                .stored_bytes
                .parse()
                .map_err(|_| "totals are no number")?,
            statistics: None,
        };
        let deleted: Result<Vec<NodePath>, array::Error> =
            document.deleted.iter().map(|path| path.parse()).collect();
        let commit = Self {
            parents: document.parents,
            root,
            time: parse_time(&document.time)?,
            author: document.author,
            message: document.message,
            properties: document.properties,
            deleted: deleted.map_err(|error| error.to_string())?,
            write_id: document.write_id,
        };
        if commit.parents.len() > 2 {
            return Err("more than two parents".into());
        }
        if commit.tree() != document.tree
            || properties_root(&commit.properties) != document.properties_root
        {
            return Err("its tree or its properties do not match their hash".into());
        }
        // A path may be written in two ways, and a commit is known by its bytes.
        if commit.encode().1 != bytes {
            return Err("it is not written as commits are".into());
        }
        Ok(commit)
    }
}

/// The Merkle tree hash over the properties, sorted by name: `H(property, [name, value])`.
fn properties_root(properties: &Map<String, Value>) -> Hash {
    let mut sorted: Vec<_> = properties.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(b.0));
    let leaves: Vec<Hash> = sorted
        .into_iter()
        .map(|(name, value)| serde_json::json!([name, value]))
        .map(|pair| hash::hash(Kind::Property, &json::canonical_bytes(&pair)))
        .collect();
    hash::mth(&leaves)
}

/// RFC 3339 in UTC with microseconds: the only spelling that is stored.
pub(crate) fn format_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time =
        DateTime::parse_from_rfc3339(text).map_err(|error| format!("time {text:?}: {error}"))?;
    let time = time.with_timezone(&Utc);
    if format_time(time) != text {
        return Err(format!("time {text:?} is not in UTC with microseconds"));
    }
    Ok(time)
}
