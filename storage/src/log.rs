//! The log: what is stored of it, and what it means.
//!
//! Entry by entry it says how the refs moved. An entry that is not valid against the state before
//! it changes nothing but keeps its number and its place in the chain.
//!
//! Spec: `docs/format.md`, "Log".

use std::collections::BTreeMap;

use array::hash::{self, Hash, Kind};
use array::json;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commit::{format_time, parse_time};
use crate::names::RefName;
use crate::{CommitId, Error};

/// A checkpoint is written after every entry whose number is a multiple of this.
pub(crate) const CHECKPOINT_INTERVAL: u64 = 128;
/// Longest entry, checkpoint or proof, in bytes.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// Branch or tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefKind {
    /// Moves with every commit.
    Branch,
    /// Never moves.
    Tag,
}

impl RefKind {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Tag => "tag",
        }
    }
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
            name: name.parse().map_err(|error: Error| error.to_string())?,
        })
    }
}

/// A request that has its effect once, however often it is sent within a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// What the client named it.
    pub key: String,
    /// `H(request, …)`: another request may not reuse the key.
    pub request: Hash,
}

/// How long a key stands for its first request.
const IDEMPOTENCY_PERIOD: TimeDelta = TimeDelta::hours(24);
/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

impl Idempotency {
    /// A request under `key`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless the key is 1 to 255 printable ASCII characters.
    pub fn new(key: &str, request: Hash) -> Result<Self, Error> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(|b| b.is_ascii_graphic())
        {
            let reason = "it is not 1 to 255 printable ASCII characters";
            return Err(Error::invalid("idempotency key", reason));
        }
        Ok(Self {
            key: key.to_owned(),
            request,
        })
    }
}

/// Who asks for a change, and the key under which it is made once however often it is asked for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Who asks, as the log will say.
    pub actor: &'a str,
    /// What the request is called, if it may be repeated.
    pub idempotency: Option<Idempotency>,
}

impl<'a> From<&'a str> for Asked<'a> {
    /// A request that is not repeated.
    fn from(actor: &'a str) -> Self {
        Self {
            actor,
            idempotency: None,
        }
    }
}

/// The first use of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// `H(request, …)` of the request.
    request: Hash,
    /// Where the ref was afterwards; of one that was deleted, where it had been.
    commit: CommitId,
    /// When.
    time: DateTime<Utc>,
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
        /// The client's request, if it may be repeated.
        idempotency: Option<Idempotency>,
    },
    /// Ends walks back through the history at these commits.
    Expire {
        /// Commits that are gone, or may go.
        commits: Vec<CommitId>,
    },
    /// Begins to delete what is listed.
    GcSweep {
        /// Object with the list.
        list: Hash,
        /// Names the process that deletes.
        holder: String,
    },
    /// Makes another process the one that deletes.
    GcTake {
        /// Names that process.
        holder: String,
    },
    /// Everything that was listed is deleted.
    GcDone {
        /// Names the process that deleted it.
        holder: String,
    },
    /// Written by a newer version; changes no ref.
    Other(Value),
}

/// A garbage collection under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Object with the list of what is deleted.
    pub list: Hash,
    /// Names the process that deletes.
    pub holder: String,
    /// When it began, or was taken over.
    pub time: DateTime<Utc>,
}

/// Longest name of a process that deletes, in bytes.
const MAX_HOLDER_BYTES: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateRef {
    operation: String,
    #[serde(rename = "ref")]
    name: String,
    from: Option<CommitId>,
    to: Option<CommitId>,
    write_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Hash>,
}

#[derive(Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
enum Work {
    Expire { commits: Vec<CommitId> },
    GcSweep { list: Hash, holder: String },
    GcTake { holder: String },
    GcDone { holder: String },
}

impl From<Work> for Operation {
    fn from(work: Work) -> Self {
        match work {
            Work::Expire { commits } => Self::Expire { commits },
            Work::GcSweep { list, holder } => Self::GcSweep { list, holder },
            Work::GcTake { holder } => Self::GcTake { holder },
            Work::GcDone { holder } => Self::GcDone { holder },
        }
    }
}

impl Operation {
    /// As it is stored.
    pub fn to_json(&self) -> Value {
        match self {
            Self::UpdateRef {
                name,
                from,
                to,
                write_id,
                idempotency,
            } => {
                let mut operation = json!({
                    "operation": "update-ref",
                    "ref": name.full_name(),
                    "from": from,
                    "to": to,
                    "write_id": write_id,
                });
                if let Some(Idempotency { key, request }) = idempotency {
                    operation["idempotency_key"] = json!(key);
                    operation["request"] = json!(request);
                }
                operation
            }
            Self::Expire { commits } => json!({ "operation": "expire", "commits": commits }),
            Self::GcSweep { list, holder } => {
                json!({ "operation": "gc-sweep", "list": list, "holder": holder })
            }
            Self::GcTake { holder } => json!({ "operation": "gc-take", "holder": holder }),
            Self::GcDone { holder } => json!({ "operation": "gc-done", "holder": holder }),
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
                    idempotency: match (update.idempotency_key, update.request) {
                        (Some(key), Some(request)) => {
                            let checked = Idempotency::new(&key, request);
                            Some(checked.map_err(|error| error.to_string())?)
                        }
                        (None, None) => None,
                        _ => return Err("an idempotency key without its request".into()),
                    },
                })
            }
            Some("expire" | "gc-sweep" | "gc-take" | "gc-done") => {
                let work: Work = serde_json::from_value(value).map_err(|e| e.to_string())?;
                Ok(work.into())
            }
            Some("policy") => Ok(Self::Other(value)),
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
        // What is null could be left out, and an entry is known by its bytes.
        if entry.encode().1 != bytes {
            return Err("it is not written as entries are".into());
        }
        Ok((hash, entry))
    }
}

impl LogEntry {
    /// The commit that the write `write_id` led to, if it is in this entry.
    pub(crate) fn write(&self, write_id: &str) -> Option<CommitId> {
        self.operations
            .iter()
            .find_map(|operation| match operation {
                Operation::UpdateRef {
                    write_id: found,
                    to,
                    ..
                } if found == write_id => *to,
                _ => None,
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
    /// Idempotency keys used within a day before that entry, by ref.
    pub keys: BTreeMap<(Ref, String), KeyUse>,
    /// Commits at which walks back through the history end, and since when.
    pub expired: BTreeMap<CommitId, DateTime<Utc>>,
    /// The garbage collection under way.
    pub sweep: Option<Sweep>,
}

/// What the operations of an entry change.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    pub(crate) refs: BTreeMap<Ref, CommitId>,
    keys: Keys,
    expired: BTreeMap<CommitId, DateTime<Utc>>,
    sweep: Option<Sweep>,
}

type Keys = BTreeMap<(Ref, String), KeyUse>;

impl LogState {
    /// Before entry 0 of a repository whose `repo.json` has this hash.
    pub(crate) fn initial(repo: Hash) -> Self {
        Self {
            sequence: None,
            entry: repo,
            time: None,
            refs: BTreeMap::new(),
            keys: Keys::new(),
            expired: BTreeMap::new(),
            sweep: None,
        }
    }

    fn take_on(&mut self, effects: Effects) {
        self.refs = effects.refs;
        self.keys = effects.keys;
        self.expired = effects.expired;
        self.sweep = effects.sweep;
    }

    /// What an earlier request under the same key led to, if there was one.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if that was another request.
    pub(crate) fn first_result(
        &self,
        name: &Ref,
        idempotency: &Idempotency,
    ) -> Result<Option<CommitId>, Error> {
        match self.keys.get(&(name.clone(), idempotency.key.clone())) {
            Some(first) if first.request == idempotency.request => Ok(Some(first.commit)),
            Some(_) => Err(Error::KeyReused {
                key: idempotency.key.clone(),
            }),
            None => Ok(None),
        }
    }

    /// Moves on by one operation of an entry that is not written yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it does not fit.
    pub(crate) fn preview(&mut self, operation: &Operation) -> Result<(), Error> {
        let time = self.time.unwrap_or_default();
        let effects = self
            .after(std::slice::from_ref(operation), time)
            .ok_or_else(|| Error::invalid("commit", "its operation does not fit the refs"))?;
        self.take_on(effects);
        Ok(())
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

    /// What is so after `operations` of an entry of `time`; `None` if one of them is not valid.
    pub(crate) fn after(&self, operations: &[Operation], time: DateTime<Utc>) -> Option<Effects> {
        let mut refs = self.refs.clone();
        let mut keys = self.keys.clone();
        let (mut expired, mut sweep) = (self.expired.clone(), self.sweep.clone());
        keys.retain(|_, used| time - used.time < IDEMPOTENCY_PERIOD);
        for operation in operations {
            let Operation::UpdateRef {
                name,
                from,
                to,
                idempotency,
                ..
            } = operation
            else {
                match operation {
                    Operation::Expire { commits } => {
                        let is_head = |commit| refs.values().any(|head| head == commit);
                        if commits.iter().any(is_head) {
                            return None;
                        }
                        expired.extend(commits.iter().map(|commit| (*commit, time)));
                    }
                    Operation::GcSweep { list, holder } if holder.len() <= MAX_HOLDER_BYTES => {
                        let begun = Sweep {
                            list: *list,
                            holder: holder.clone(),
                            time,
                        };
                        if sweep.replace(begun).is_some() {
                            return None;
                        }
                    }
                    Operation::GcTake { holder } if holder.len() <= MAX_HOLDER_BYTES => {
                        let taken = sweep.as_mut()?;
                        taken.holder.clone_from(holder);
                        taken.time = time;
                    }
                    Operation::GcDone { holder } => {
                        sweep.take_if(|sweep| sweep.holder == *holder)?;
                    }
                    Operation::GcSweep { .. } | Operation::GcTake { .. } => return None,
                    Operation::UpdateRef { .. } | Operation::Other(_) => {}
                }
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
            // A commit that a ref is at again is not over.
            if let Some(commit) = to {
                expired.remove(commit);
            }
            match to {
                Some(commit) => refs.insert(name.clone(), *commit),
                None => refs.remove(name),
            };
            if let Some(Idempotency { key, request }) = idempotency {
                let first = KeyUse {
                    request: *request,
                    commit: to.or(*from)?,
                    time,
                };
                if keys.insert((name.clone(), key.clone()), first).is_some() {
                    return None;
                }
            }
        }
        Some(Effects {
            refs,
            keys,
            expired,
            sweep,
        })
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
        let valid = self
            .after(&entry.operations, entry.time)
            .filter(|effects| state_root(&effects.refs) == entry.state);
        match valid {
            Some(effects) => self.take_on(effects),
            None => self
                .keys
                .retain(|_, used| entry.time - used.time < IDEMPOTENCY_PERIOD),
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
        let mut document = json!({
            "entry": self.entry,
            "refs": refs,
            "sequence": self.sequence.unwrap_or(0).to_string(),
            "time": self.time.map(format_time),
        });
        if !self.keys.is_empty() {
            let key = |((name, key), used): (&(Ref, String), &KeyUse)| {
                json!({
                    "commit": used.commit,
                    "key": key,
                    "ref": name.full_name(),
                    "request": used.request,
                    "time": format_time(used.time),
                })
            };
            document["keys"] = self.keys.iter().map(key).collect();
        }
        if !self.expired.is_empty() {
            let expired = |(commit, time): (&CommitId, &DateTime<Utc>)| {
                (commit.to_string(), json!(format_time(*time)))
            };
            let expired: serde_json::Map<String, Value> =
                self.expired.iter().map(expired).collect();
            document["expired"] = json!(expired);
        }
        if let Some(Sweep { list, holder, time }) = &self.sweep {
            document["sweep"] =
                json!({ "list": list, "holder": holder, "time": format_time(*time) });
        }
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
            #[serde(default)]
            keys: Vec<Key>,
            #[serde(default)]
            expired: BTreeMap<CommitId, String>,
            #[serde(default)]
            sweep: Option<SweepDocument>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct SweepDocument {
            list: Hash,
            holder: String,
            time: String,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Key {
            commit: CommitId,
            key: String,
            #[serde(rename = "ref")]
            name: String,
            request: Hash,
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
        let mut keys = Keys::new();
        for Key {
            commit,
            key,
            name,
            request,
            time,
        } in document.keys
        {
            let time = parse_time(&time)?;
            let used = KeyUse {
                request,
                commit,
                time,
            };
            keys.insert((Ref::parse(&name)?, key), used);
        }
        Ok(Self {
            sequence: Some(sequence),
            entry: document.entry,
            time: Some(parse_time(&document.time)?),
            refs: refs?,
            keys,
            expired: document
                .expired
                .into_iter()
                .map(|(commit, time)| Ok((commit, parse_time(&time)?)))
                .collect::<Result<_, String>>()?,
            sweep: match document.sweep {
                None => None,
                Some(SweepDocument { list, holder, time }) => Some(Sweep {
                    list,
                    holder,
                    time: parse_time(&time)?,
                }),
            },
        })
    }
}

/// The rows of the refs, sorted by full name, each with its commit. A row is the name's length as
/// u32, the name, and the commit id.
pub(crate) fn ref_rows(refs: &BTreeMap<Ref, CommitId>) -> Vec<(CommitId, Vec<u8>)> {
    let mut rows: Vec<(String, CommitId)> = refs
        .iter()
        .map(|(name, commit)| (name.full_name(), *commit))
        .collect();
    rows.sort();
    let row = |(name, commit): (String, CommitId)| {
        let mut bytes = Vec::new();
        crate::page::push_field(&mut bytes, name.as_bytes());
        bytes.extend_from_slice(commit.0.as_bytes());
        (commit, bytes)
    };
    rows.into_iter().map(row).collect()
}

/// The Merkle tree hash over the rows of the refs.
pub(crate) fn state_root(refs: &BTreeMap<Ref, CommitId>) -> Hash {
    let rows = ref_rows(refs);
    let leaves = rows.iter().map(|(_, row)| hash::hash(Kind::RefRow, row));
    hash::mth(&leaves.collect::<Vec<Hash>>())
}
