//! The log: what is stored of it, and what it means.
//!
//! Entry by entry it says how the refs moved. An entry that is not valid against the state before
//! it changes nothing but keeps its number and its place in the chain.
//!
//! Spec: `docs/format.md`, "Log".

use std::collections::BTreeMap;

use array::hash::{self, Hash, Kind};
use array::json;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::CommitId;
use crate::commit::{format_time, parse_time};
use crate::names::RefName;

/// A checkpoint is written after every entry whose number is a multiple of this.
pub(crate) const CHECKPOINT_INTERVAL: u64 = 128;
/// Longest entry or checkpoint, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// Branch or tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefKind {
    /// Moves with every commit.
    Branch,
    /// Never moves.
    Tag,
}

/// The full name of a ref: `heads/main`, `tags/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref {
    /// Branch or tag.
    pub kind: RefKind,
    /// Its name; branches and tags share one namespace.
    pub name: RefName,
}

impl Ref {
    /// The branch `name`.
    pub fn branch(name: RefName) -> Self {
        Self {
            kind: RefKind::Branch,
            name,
        }
    }

    /// The tag `name`.
    pub fn tag(name: RefName) -> Self {
        Self {
            kind: RefKind::Tag,
            name,
        }
    }

    fn full_name(&self) -> String {
        match self.kind {
            RefKind::Branch => format!("heads/{}", self.name),
            RefKind::Tag => format!("tags/{}", self.name),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some(("heads", name)) => (RefKind::Branch, name),
            Some(("tags", name)) => (RefKind::Tag, name),
            _ => return Err(format!("{text:?} is neither heads/… nor tags/…")),
        };
        Ok(Self {
            kind,
            name: name
                .parse()
                .map_err(|error: crate::Error| error.to_string())?,
        })
    }
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creates, moves or deletes a ref.
    UpdateRef {
        /// The ref.
        name: Ref,
        /// Where it was; `None` to create it.
        from: Option<CommitId>,
        /// Where it is now; `None` to delete it.
        to: Option<CommitId>,
        /// Names the write in the log across slots and rebases.
        write_id: String,
    },
    /// Written by a newer version; changes no ref.
    Other(Value),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateRef {
    operation: String,
    #[serde(rename = "ref")]
    name: String,
    from: Option<CommitId>,
    to: Option<CommitId>,
    write_id: String,
}

impl Operation {
    fn to_json(&self) -> Value {
        match self {
            Self::UpdateRef {
                name,
                from,
                to,
                write_id,
            } => json!({
                "operation": "update-ref",
                "ref": name.full_name(),
                "from": from,
                "to": to,
                "write_id": write_id,
            }),
            Self::Other(value) => value.clone(),
        }
    }

    fn from_json(value: Value) -> Result<Self, String> {
        match value.get("operation").and_then(Value::as_str) {
            Some("update-ref") => {
                let update: UpdateRef = serde_json::from_value(value).map_err(|e| e.to_string())?;
                Ok(Self::UpdateRef {
                    name: Ref::parse(&update.name)?,
                    from: update.from,
                    to: update.to,
                    write_id: update.write_id,
                })
            }
            Some("expire" | "gc-sweep" | "gc-take" | "gc-done" | "policy") => {
                Ok(Self::Other(value))
            }
            _ => Err(format!("unknown operation {value}")),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number, from 0 without gaps.
    pub sequence: u64,
    /// Hash of the entry before; of `repo.json` for entry 0.
    pub previous: Hash,
    /// When it was written; later than the entry before.
    pub time: DateTime<Utc>,
    /// Who wrote it.
    pub actor: String,
    /// What it does, in order.
    pub operations: Vec<Operation>,
    /// The Merkle tree hash of the refs after it.
    pub state: Hash,
}

impl LogEntry {
    /// Key of entry `sequence`.
    pub fn key(sequence: u64) -> String {
        format!("log/{sequence:020}.json")
    }

    /// The stored bytes and the entry's hash.
    pub(crate) fn encode(&self) -> (Hash, Vec<u8>) {
        with_self(
            Kind::LogEntry,
            json!({
                "actor": self.actor,
                "operations": self.operations.iter().map(Operation::to_json).collect::<Vec<_>>(),
                "previous": self.previous,
                "sequence": self.sequence.to_string(),
                "state": self.state,
                "time": format_time(self.time),
            }),
        )
    }

    /// Reads entry `sequence` and gives its hash.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(sequence: u64, bytes: &[u8]) -> Result<(Hash, Self), String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            actor: String,
            operations: Vec<Value>,
            previous: Hash,
            sequence: String,
            state: Hash,
            time: String,
        }
        let (hash, value) = check_self(Kind::LogEntry, bytes)?;
        let document: Document =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        if document.sequence != sequence.to_string() {
            return Err(format!("it is entry {}", document.sequence));
        }
        let entry = Self {
            sequence,
            previous: document.previous,
            time: parse_time(&document.time)?,
            actor: document.actor,
            operations: document
                .operations
                .into_iter()
                .map(Operation::from_json)
                .collect::<Result<_, _>>()?,
            state: document.state,
        };
        Ok((hash, entry))
    }

    /// Whether one of its operations carries `write_id`.
    pub(crate) fn has_write(&self, write_id: &str) -> bool {
        self.operations.iter().any(|operation| match operation {
            Operation::UpdateRef {
                write_id: found, ..
            } => found == write_id,
            Operation::Other(_) => false,
        })
    }
}

/// `value` with `self`, its hash, as canonical bytes.
pub(crate) fn with_self(kind: Kind, mut value: Value) -> (Hash, Vec<u8>) {
    let hash = hash::hash(kind, &json::canonical_bytes(&value));
    value["self"] = json!(hash);
    (hash, json::canonical_bytes(&value))
}

/// Checks canonical bytes with `self`; gives the hash and the document without it.
pub(crate) fn check_self(kind: Kind, bytes: &[u8]) -> Result<(Hash, Value), String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("{} bytes are too many", bytes.len()));
    }
    let mut value = json::parse_canonical("document", bytes).map_err(|error| error.to_string())?;
    let claimed = value
        .as_object_mut()
        .and_then(|members| members.remove("self"));
    let hash = hash::hash(kind, &json::canonical_bytes(&value));
    if claimed != Some(json!(hash)) {
        return Err("its bytes do not match their hash".into());
    }
    Ok((hash, value))
}

/// The refs after some entry, and what the next entry must follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Number of the newest entry it includes; `None` before entry 0.
    pub sequence: Option<u64>,
    /// Hash of that entry; of `repo.json` before entry 0.
    pub entry: Hash,
    /// Time of that entry.
    pub time: Option<DateTime<Utc>>,
    /// All refs.
    pub refs: BTreeMap<Ref, CommitId>,
}

impl LogState {
    /// Before entry 0 of a repository whose `repo.json` has this hash.
    pub(crate) fn initial(repo: Hash) -> Self {
        Self {
            sequence: None,
            entry: repo,
            time: None,
            refs: BTreeMap::new(),
        }
    }

    /// Number of the next entry.
    pub fn next_sequence(&self) -> u64 {
        self.sequence
            .map_or(0, |sequence| sequence.saturating_add(1))
    }

    /// Where a ref is.
    pub fn get(&self, name: &Ref) -> Option<CommitId> {
        self.refs.get(name).copied()
    }

    /// The Merkle tree hash over the refs, sorted by full name.
    pub fn root(&self) -> Hash {
        state_root(&self.refs)
    }

    /// The refs after `operations`; `None` if one of them is not valid.
    pub(crate) fn after(&self, operations: &[Operation]) -> Option<BTreeMap<Ref, CommitId>> {
        let mut refs = self.refs.clone();
        for operation in operations {
            let Operation::UpdateRef { name, from, to, .. } = operation else {
                continue;
            };
            if refs.get(name) != from.as_ref() || (from.is_none() && to.is_none()) {
                return None;
            }
            let moves = from.is_some() && to.is_some();
            let twin = Ref {
                kind: if name.kind == RefKind::Tag {
                    RefKind::Branch
                } else {
                    RefKind::Tag
                },
                name: name.name.clone(),
            };
            if (name.kind == RefKind::Tag && moves) || (from.is_none() && refs.contains_key(&twin))
            {
                return None;
            }
            match to {
                Some(commit) => refs.insert(name.clone(), *commit),
                None => refs.remove(name),
            };
        }
        Some(refs)
    }

    /// Moves on by the next entry, whose hash is `hash`. An entry that is not valid changes no ref.
    ///
    /// # Errors
    /// Why it cannot be the next entry: it does not follow this state's entry, or not in time.
    pub(crate) fn apply(&mut self, hash: Hash, entry: &LogEntry) -> Result<(), String> {
        if entry.previous != self.entry {
            return Err("it does not follow the entry before it".into());
        }
        if self.time.is_some_and(|time| entry.time <= time) {
            return Err("its time is not later than that of the entry before it".into());
        }
        debug_assert_eq!(entry.sequence, self.next_sequence());
        if let Some(refs) = self
            .after(&entry.operations)
            .filter(|refs| state_root(refs) == entry.state)
        {
            self.refs = refs;
        }
        self.sequence = Some(entry.sequence);
        self.entry = hash;
        self.time = Some(entry.time);
        Ok(())
    }

    /// Key of the checkpoint after entry `sequence`.
    pub(crate) fn checkpoint_key(sequence: u64) -> String {
        format!("checkpoints/{sequence:020}.json")
    }

    /// The bytes of the checkpoint of this state.
    pub(crate) fn encode_checkpoint(&self) -> Vec<u8> {
        let refs: serde_json::Map<String, Value> = self
            .refs
            .iter()
            .map(|(name, commit)| (name.full_name(), json!(commit)))
            .collect();
        let document = json!({
            "entry": self.entry,
            "refs": refs,
            "sequence": self.sequence.unwrap_or(0).to_string(),
            "time": self.time.map(format_time),
        });
        with_self(Kind::Checkpoint, document).1
    }

    /// Reads the checkpoint after entry `sequence`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode_checkpoint(sequence: u64, bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            entry: Hash,
            refs: BTreeMap<String, CommitId>,
            sequence: String,
            time: String,
        }
        let (_, value) = check_self(Kind::Checkpoint, bytes)?;
        let document: Document =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        if document.sequence != sequence.to_string() {
            return Err(format!(
                "it is the checkpoint of entry {}",
                document.sequence
            ));
        }
        let refs: Result<BTreeMap<Ref, CommitId>, String> = document
            .refs
            .into_iter()
            .map(|(name, commit)| Ok((Ref::parse(&name)?, commit)))
            .collect();
        Ok(Self {
            sequence: Some(sequence),
            entry: document.entry,
            time: Some(parse_time(&document.time)?),
            refs: refs?,
        })
    }
}

/// The Merkle tree hash over (ref, commit) rows sorted by full name. A row is the name's length as
/// u32, the name, and the commit id.
pub(crate) fn state_root(refs: &BTreeMap<Ref, CommitId>) -> Hash {
    let mut rows: Vec<(String, CommitId)> = refs
        .iter()
        .map(|(name, commit)| (name.full_name(), *commit))
        .collect();
    rows.sort();
    let leaves: Vec<Hash> = rows
        .into_iter()
        .map(|(name, commit)| {
            let mut bytes = Vec::new();
            crate::page::push_field(&mut bytes, name.as_bytes());
            bytes.extend_from_slice(commit.0.as_bytes());
            hash::hash(Kind::RefRow, &bytes)
        })
        .collect();
    hash::mth(&leaves)
}
