//! The steps of a transaction, written down so that other processes can take them over.
//!
//! Steps are replayed in the order of their records. Chunks are the exception to "the later one
//! counts": each step on a chunk names those it was made on, so two writers that did not see each
//! other are noticed, and what they wrote to different inner chunks is put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use array::hash::Kind;
use array::{ChunkIndex, ChunkKind, Hash, NodePath, Region, Statistics};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chunk_changes::{ChunkChange, Written};
use crate::log::{check_self, with_self};
use crate::page::{ChunkRow, Location};
use crate::reads::Reads;

/// One change to a transaction, or something it read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Step {
    PutGroup {
        path: String,
        zarr_json: Value,
    },
    CreateArray {
        path: String,
        zarr_json: Value,
    },
    SetArray {
        path: String,
        zarr_json: Value,
    },
    Delete {
        path: String,
    },
    Rename {
        path: String,
        to: String,
    },
    Chunk(ChunkStep),
    Read {
        nodes: Vec<String>,
        members: Vec<String>,
        regions: Vec<ReadRegion>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadRegion {
    path: String,
    start: Vec<String>,
    shape: Vec<String>,
}

/// A chunk that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkStep {
    pub(crate) path: String,
    index: Vec<String>,
    /// Names this step among those on the same chunk.
    pub(crate) version: String,
    /// The versions it was made on, put together if there are several; none for the base's chunk.
    pub(crate) previous: Vec<String>,
    /// The inner chunks that were written; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Vec<u32>>,
    /// `None` if all of it is fill value.
    chunk: Option<StagedChunk>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StagedChunk {
    kind: String,
    id: Hash,
    length: String,
    /// The bytes of a small one, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inline: Option<String>,
    /// Where it is, if that is outside the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external: Option<Box<StagedExternal>>,
    /// In hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statistics: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StagedExternal {
    url: String,
    offset: String,
    etag: String,
}

fn numbers(values: &[u64]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn parse_numbers(texts: &[String]) -> Result<Vec<u64>, String> {
    let number = |text: &String| text.parse().map_err(|_| format!("{text:?} is no number"));
    texts.iter().map(number).collect()
}

impl ChunkStep {
    fn new(
        path: &NodePath,
        index: &ChunkIndex,
        change: &ChunkChange,
        previous: Vec<String>,
    ) -> Self {
        let chunk = change.row(index.clone()).map(|row| StagedChunk {
            kind: match row.kind {
                ChunkKind::Shard => "shard".into(),
                ChunkKind::Plain => "plain".into(),
            },
            id: row.id,
            length: row.length.to_string(),
            inline: match &row.location {
                Location::Inline(bytes) => Some(STANDARD.encode(bytes)),
                Location::Stored | Location::External { .. } => None,
            },
            external: match &row.location {
                Location::External { url, offset, etag } => Some(Box::new(StagedExternal {
                    url: url.clone(),
                    offset: offset.to_string(),
                    etag: etag.clone(),
                })),
                Location::Stored | Location::Inline(_) => None,
            },
            statistics: change
                .statistics()
                .map(|statistics| hex::encode(statistics.to_bytes())),
        });
        Self {
            path: path.as_str().to_owned(),
            index: numbers(index.as_slice()),
            version: uuid::Uuid::new_v4().simple().to_string(),
            previous,
            written: match change.written() {
                Written::Inner(inner) => Some(inner.to_vec()),
                Written::Whole | Written::Differing => None,
            },
            chunk,
        }
    }

    /// The chunk and its change.
    ///
    /// # Errors
    /// What is wrong with the step.
    pub(crate) fn change(&self) -> Result<(ChunkIndex, ChunkChange), String> {
        let index = ChunkIndex::new(parse_numbers(&self.index)?);
        let written = match &self.written {
            None => Written::Whole,
            Some(inner) => Written::Inner(inner.clone().into()),
        };
        let Some(chunk) = &self.chunk else {
            return Ok((index, ChunkChange::Removed(written)));
        };
        let length: u64 = chunk.length.parse().map_err(|_| "a length is no number")?;
        let location = match (&chunk.inline, &chunk.external) {
            (None, None) => Location::Stored,
            (None, Some(external)) => Location::External {
                url: external.url.clone(),
                offset: external
                    .offset
                    .parse()
                    .map_err(|_| "an offset is no number")?,
                etag: external.etag.clone(),
            },
            (Some(_), Some(_)) => return Err("a chunk that is inline and elsewhere".into()),
            (Some(text), None) => {
                let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
                if bytes.len() as u64 != length {
                    return Err("an inline chunk of another length".into());
                }
                Location::Inline(Bytes::from(bytes))
            }
        };
        let statistics = match &chunk.statistics {
            None => None,
            Some(digits) => {
                let bytes = hex::decode(digits).map_err(|error| error.to_string())?;
                Some(Statistics::from_bytes(&bytes).map_err(|error| error.to_string())?)
            }
        };
        let row = ChunkRow {
            index: index.clone(),
            kind: match chunk.kind.as_str() {
                "shard" => ChunkKind::Shard,
                "plain" => ChunkKind::Plain,
                other => return Err(format!("a chunk of kind {other:?}")),
            },
            id: chunk.id,
            length,
            location,
        };
        Ok((index, ChunkChange::present(row, statistics, written)))
    }

    /// The key of its object, if it has one.
    pub(crate) fn object(&self) -> Option<String> {
        let chunk = self.chunk.as_ref()?;
        let is_stored = chunk.inline.is_none() && chunk.external.is_none();
        is_stored.then(|| crate::object::shard_key(&chunk.id))
    }
}

impl Step {
    /// What was read.
    pub(crate) fn read(reads: &Reads) -> Self {
        let texts = |paths: &BTreeSet<NodePath>| {
            paths.iter().map(|path| path.as_str().to_owned()).collect()
        };
        let regions = reads.regions.iter().flat_map(|(path, regions)| {
            regions.iter().map(|region| ReadRegion {
                path: path.as_str().to_owned(),
                start: numbers(region.start()),
                shape: numbers(region.shape()),
            })
        });
        Self::Read {
            nodes: texts(&reads.nodes),
            members: texts(&reads.members),
            regions: regions.collect(),
        }
    }

    /// What a [`Step::Read`] says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn reads(
        nodes: &[String],
        members: &[String],
        regions: &[ReadRegion],
    ) -> Result<Reads, String> {
        let path = |text: &String| text.parse::<NodePath>().map_err(|error| error.to_string());
        let mut by_path: BTreeMap<NodePath, Vec<Region>> = BTreeMap::new();
        for region in regions {
            let (start, shape) = (parse_numbers(&region.start)?, parse_numbers(&region.shape)?);
            let read = Region::new(start, shape).map_err(|error| error.to_string())?;
            by_path.entry(path(&region.path)?).or_default().push(read);
        }
        Ok(Reads {
            nodes: nodes.iter().map(path).collect::<Result<_, _>>()?,
            members: members.iter().map(path).collect::<Result<_, _>>()?,
            regions: by_path,
        })
    }
}

/// What was written to one chunk, step by step: each after those it was made on. Most chunks are
/// written once, and there may be millions of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Vec<Version>);

#[derive(Clone, Debug)]
struct Version {
    name: Box<str>,
    previous: Box<[Box<str>]>,
    written: Written,
    /// Whether no other was made on it.
    is_newest: bool,
}

impl Versions {
    /// Adds a version that was made on others, unless it is known.
    pub(crate) fn add(&mut self, name: &str, previous: &[String], written: Written) {
        if self.0.iter().any(|version| *version.name == *name) {
            return;
        }
        for version in &mut self.0 {
            version.is_newest &= !previous.iter().any(|name| **name == *version.name);
        }
        self.0.reserve_exact(1);
        self.0.push(Version {
            name: name.into(),
            previous: previous.iter().map(|name| name.as_str().into()).collect(),
            written,
            is_newest: true,
        });
    }

    /// Names of those that no other was made on: together they are the chunk.
    fn newest(&self) -> Vec<String> {
        let newest = self.0.iter().filter(|version| version.is_newest);
        newest.map(|version| version.name.to_string()).collect()
    }

    /// What the versions wrote that are not among `previous`, nor what those were made on.
    pub(crate) fn unseen(&self, previous: &[String]) -> Vec<&Written> {
        let mut seen: BTreeSet<&str> = previous.iter().map(String::as_str).collect();
        let mut unseen = Vec::new();
        for version in self.0.iter().rev() {
            match seen.contains(&*version.name) {
                true => seen.extend(version.previous.iter().map(|name| &**name)),
                false => unseen.push(&version.written),
            }
        }
        unseen
    }
}

/// The steps since they were last written down.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    steps: Vec<Step>,
    versions: HashMap<NodePath, HashMap<ChunkIndex, Versions>>,
}

impl Journal {
    pub(crate) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Notes that a chunk was changed on top of what is known of it.
    pub(crate) fn push_chunk(&mut self, path: &NodePath, index: &ChunkIndex, change: &ChunkChange) {
        let versions = self.versions(path, index);
        let step = ChunkStep::new(path, index, change, versions.newest());
        let written = change.written().clone();
        versions.add(&step.version, &step.previous, written);
        self.steps.push(Step::Chunk(step));
    }

    pub(crate) fn versions(&mut self, path: &NodePath, index: &ChunkIndex) -> &mut Versions {
        let of_array = self.versions.entry(path.clone()).or_default();
        of_array.entry(index.clone()).or_default()
    }

    /// Takes back a step that turned out to be known already.
    pub(crate) fn forget(&mut self, step: &Step) {
        if let Some(at) = self.steps.iter().rposition(|known| known == step) {
            self.steps.remove(at);
        }
    }

    pub(crate) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }
}

/// The record of some steps.
pub(crate) fn encode_record(steps: &[Step]) -> Vec<u8> {
    with_self(Kind::Staged, serde_json::json!({ "steps": steps })).1
}

/// Reads a record.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<Vec<Step>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Record {
        steps: Vec<Step>,
    }
    let (_, value) = check_self(Kind::Staged, bytes)?;
    let record: Record = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok(record.steps)
}
