//! Zarr hierarchies of version 2 and 3, in directories and object stores.
//!
//! ```text
//! folder by folder: zarr.json │ .zarray + .zattrs │ .zgroup + .zattrs ─► groups and arrays
//! an array's keys ─► chunks there are ─► encoded bytes (taken over) │ elements of a box
//! ```
//!
//! Every node's own document counts. Consolidated metadata, which may be out of date, only tells
//! where to look for one on a web server, where nothing can be listed. What no document accounts for
//! is left out with a warning.
//!
//! Source: Zarr v3 core specification; Zarr v2 specification.

mod keys;
mod lenient;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use array::{
    ArrayMetadata, ChunkIndex, ChunkKeyEncoding, Elements, GroupMetadata, MAX_DOCUMENT_BYTES,
    NodeMetadata, NodePath, Region, Sharding, shape,
};
use bytes::Bytes;
use codecs::ArrayCodec;
use serde_json::{Map, Value};

pub(crate) use self::keys::Keys;
use self::keys::Listed;
use crate::recent::Recent;
use crate::source::{Attribute, Attributes, Group, Reader, Refused, Source, Variable};
use crate::{Error, boxes};

/// Most nodes of a hierarchy.
const MAX_NODES: usize = 1_000_000;
/// Decoded chunks that are kept for the next box.
const RECENT_BYTES: usize = 64 << 20;
/// Most chunks of an array that are tried where they cannot be listed.
const MAX_TRIED_CHUNKS: u64 = 1_000_000;
/// Warnings that are told one by one.
const MAX_WARNINGS: usize = 20;
/// Room beside the elements that an encoded chunk may take.
const CHUNK_OVERHEAD_BYTES: u64 = 1 << 20;
/// Longest chunk of a data type of variable length.
const MAX_CHUNK_BYTES: u64 = 1 << 31;
/// Documents and helpers of Zarr that are no chunks.
const DOCUMENTS: [&str; 5] = ["zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"];

/// The version of a folder's documents and what they say, or why that is nothing.
type Found = (u8, Result<Document, String>);

/// An open hierarchy.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    keys: Keys,
    version: u8,
    arrays: Vec<Array>,
    /// Members of groups' documents that are not interpreted.
    extra: BTreeMap<Vec<String>, Map<String, Value>>,
    /// Decoded chunks, by array and position.
    recent: Recent<(usize, ChunkIndex), Elements>,
    warnings: Mutex<Warnings>,
    /// Names of the members of each folder, where that cannot be listed.
    consolidated: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Array {
    /// Folder of the array.
    folder: String,
    metadata: ArrayMetadata,
    codec: ArrayCodec,
    /// How its chunks are named, which may be otherwise than they will be.
    names: ChunkKeyEncoding,
}

#[derive(Debug, Default)]
struct Warnings {
    told: Vec<String>,
    untold: usize,
}

/// What a node's documents say.
enum Document {
    Group(GroupMetadata),
    Array(ArrayMetadata, ChunkKeyEncoding),
}

impl Hierarchy {
    /// Opens what is at `keys`; `name` is what a lone array is to be called. `None` if it is no
    /// hierarchy.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a document is not one; [`Error::Read`] or [`Error::Storage`] if one
    /// cannot be read.
    pub(crate) fn open(keys: Keys, name: &str) -> Result<Option<Source>, Error> {
        let mut opening = Opening {
            hierarchy: Self {
                keys,
                version: 3,
                arrays: Vec::new(),
                extra: BTreeMap::new(),
                recent: Recent::new(RECENT_BYTES),
                warnings: Mutex::default(),
                consolidated: BTreeMap::new(),
            },
            groups: Vec::new(),
        };
        match opening.hierarchy.document("")? {
            None => return Ok(None),
            Some((version, Ok(Document::Group(group)))) => {
                opening.hierarchy.version = version;
                if !opening.hierarchy.keys.can_list() {
                    opening.hierarchy.consolidated = opening.hierarchy.consolidated(version)?;
                }
                opening.walk(group)?;
            }
            Some((version, Ok(Document::Array(metadata, names)))) => {
                opening.hierarchy.version = version;
                opening.groups.push(empty_group(Vec::new()));
                opening.array(name.to_owned(), String::new(), metadata, names);
            }
            Some((_, Err(reason))) => {
                let path = opening.hierarchy.keys.shown("");
                return Err(Error::Malformed { path, reason });
            }
        }
        Ok(Some(Source::new(opening.groups, opening.hierarchy)))
    }

    /// What the documents in a folder say, and in which version; `None` if there are none.
    fn document(&self, folder: &str) -> Result<Option<Found>, Error> {
        if let Some(bytes) = self.json(folder, "zarr.json")? {
            return Ok(Some((3, bytes.and_then(|json| version_3(&json)))));
        }
        for (name, is_array) in [(".zarray", true), (".zgroup", false)] {
            let Some(json) = self.json(folder, name)? else {
                continue;
            };
            let attributes = self.json(folder, ".zattrs")?.transpose();
            let document = json.and_then(|json| match is_array {
                true => v2::array(&json, attributes?).map(|(a, names)| Document::Array(a, names)),
                false => v2::group(&json, attributes?).map(Document::Group),
            });
            return Ok(Some((2, document)));
        }
        Ok(None)
    }

    /// What consolidated metadata says is in each folder.
    fn consolidated(&self, version: u8) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let name = if version == 2 {
            ".zmetadata"
        } else {
            "zarr.json"
        };
        let json = self.json("", name)?.and_then(Result::ok);
        let nodes = json.as_ref().and_then(|json| match version {
            2 => json.get("metadata"),
            _ => json.get("consolidated_metadata")?.get("metadata"),
        });
        let nodes = nodes
            .and_then(Value::as_object)
            .ok_or_else(|| Error::Unsupported {
                what: self.keys.shown("").display().to_string(),
                reason: "it has no consolidated metadata, and nothing can be listed over HTTP: \
                     consolidate it, or import its arrays one by one"
                    .into(),
            })?;
        let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in nodes.keys() {
            let path = match version {
                2 => node.rsplit_once('/').map_or("", |(folder, _)| folder),
                _ => node,
            };
            let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
            for depth in 0..names.len() {
                let folder = names[..depth].join("/");
                members
                    .entry(folder)
                    .or_default()
                    .insert(names[depth].to_owned());
            }
        }
        Ok(members)
    }

    /// Names of the folders in a folder.
    fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        if !self.keys.can_list() {
            let names = self.consolidated.get(folder).into_iter().flatten();
            return Ok(names.cloned().collect());
        }
        let members = self.keys.members(folder)?;
        let strays = members.files.iter();
        for name in strays.filter(|name| !DOCUMENTS.contains(&name.as_str())) {
            self.stray(folder, name, "belongs to no array");
        }
        Ok(members.folders)
    }

    fn json(&self, folder: &str, name: &str) -> Result<Option<Result<Value, String>>, Error> {
        let bytes = self
            .keys
            .get(&join(folder, name), MAX_DOCUMENT_BYTES as u64)?;
        let parse =
            |bytes: Bytes| lenient::parse(&bytes).map_err(|error| format!("{name}: {error}"));
        Ok(bytes.map(parse))
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        match warnings.told.len() < MAX_WARNINGS {
            true => warnings.told.push(warning),
            false => warnings.untold += 1,
        }
    }

    /// Chunks of an array, or all there could be where they cannot be listed. What else there is,
    /// is warned of.
    fn chunks(&self, array: &Array) -> Result<Vec<ChunkIndex>, Error> {
        let (grid, folder) = (array.metadata.grid(), &array.folder);
        if !self.keys.can_list() {
            let all = Region::whole(&grid.grid_shape());
            let count = shape::elements(all.shape()).unwrap_or(u64::MAX);
            if count > MAX_TRIED_CHUNKS {
                return Err(Error::Unsupported {
                    what: self.keys.shown(folder).display().to_string(),
                    reason: format!(
                        "its {count} chunks cannot be listed over HTTP, and trying them all is \
                         refused beyond {MAX_TRIED_CHUNKS}"
                    ),
                });
            }
            return Ok(all.positions().map(ChunkIndex::new).collect());
        }
        let listed: Vec<Listed> = self.keys.below(folder)?;
        let mut chunks = Vec::with_capacity(listed.len());
        for (key, _) in listed {
            match array.names.parse_key(&key, array.metadata.dimensions()) {
                Some(index) if grid.contains(&index) => chunks.push(index),
                Some(_) => self.stray(folder, &key, "lies outside the array"),
                None if DOCUMENTS.contains(&key.as_str()) => {}
                None => self.stray(folder, &key, "is no chunk of the array"),
            }
        }
        chunks.sort_unstable();
        Ok(chunks)
    }

    fn stray(&self, folder: &str, key: &str, what: &str) {
        let shown = self.keys.shown(&join(folder, key));
        self.warn(format!("{} {what} and is left out", shown.display()));
    }

    fn encoded(&self, array: &Array, index: &ChunkIndex) -> Result<Option<Bytes>, Error> {
        let key = join(&array.folder, &array.names.key(index));
        self.keys.get(&key, most_bytes(array)?)
    }

    fn decoded(
        &self,
        handle: usize,
        index: &ChunkIndex,
    ) -> Result<Option<std::sync::Arc<Elements>>, Error> {
        let key = (handle, index.clone());
        if let Some(found) = self.recent.get(&key) {
            return Ok(Some(found));
        }
        let array = &self.arrays[handle];
        let Some(bytes) = self.encoded(array, index)? else {
            return Ok(None);
        };
        let elements = array.codec.decode_foreign(&bytes);
        let elements = elements.map_err(|error| self.corrupt(array, index, &error))?;
        let size = elements.size_bytes();
        Ok(Some(self.recent.put(key, elements, size)))
    }

    fn corrupt(&self, array: &Array, index: &ChunkIndex, error: &codecs::Error) -> Error {
        let key = join(&array.folder, &array.names.key(index));
        Error::Malformed {
            path: self.keys.shown(&key),
            reason: error.to_string(),
        }
    }
}

/// Most bytes a chunk of the array may be encoded in.
fn most_bytes(array: &Array) -> Result<u64, Error> {
    if array.metadata.data_type.is_variable_length() {
        return Ok(MAX_CHUNK_BYTES);
    }
    let inner = Sharding::of(&array.metadata)?.map_or(1, |sharding| sharding.inner_chunks());
    let decoded = shape::size_bytes(array.metadata.chunk_shape(), &array.metadata.data_type)?;
    // Codecs make incompressible data a little longer.
    let room = array::shard::footer_bytes(inner) + inner as u64 * 1024 + CHUNK_OVERHEAD_BYTES;
    Ok((decoded as u64).saturating_mul(2).saturating_add(room))
}

impl Reader for Hierarchy {
    fn format(&self) -> &'static str {
        match self.version {
            2 => "Zarr v2",
            _ => "Zarr v3",
        }
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let array = &self.arrays[variable.handle];
        let grid = array.metadata.grid();
        let fill = array.metadata.fill_value.as_bytes();
        let mut parts = Vec::new();
        for at in grid.chunks_meeting(region).positions() {
            let index = ChunkIndex::new(at);
            if let Some(elements) = self.decoded(variable.handle, &index)? {
                parts.push((grid.chunk_region(&index), elements));
            }
        }
        let parts: Vec<(&Region, &Elements)> = parts.iter().map(|(r, e)| (r, &**e)).collect();
        boxes::assemble(&array.metadata.data_type, fill, &parts, region)
    }

    fn zarr(&self, variable: &Variable) -> Option<&ArrayMetadata> {
        Some(&self.arrays[variable.handle].metadata)
    }

    fn group_extra(&self, path: &[String]) -> Map<String, Value> {
        self.extra.get(path).cloned().unwrap_or_default()
    }

    fn stored_chunks(&self, variable: &Variable) -> Result<Vec<ChunkIndex>, Error> {
        self.chunks(&self.arrays[variable.handle])
    }

    fn stored_chunk(
        &self,
        variable: &Variable,
        index: &ChunkIndex,
    ) -> Result<Option<Bytes>, Error> {
        let array = &self.arrays[variable.handle];
        let found = self.encoded(array, index)?;
        if found.is_none() && self.keys.can_list() {
            return Err(Error::Malformed {
                path: self
                    .keys
                    .shown(&join(&array.folder, &array.names.key(index))),
                reason: "it went away while it was being imported".into(),
            });
        }
        Ok(found)
    }

    fn chunk_place(&self, variable: &Variable, index: &ChunkIndex) -> Result<(String, u64), Error> {
        let array = &self.arrays[variable.handle];
        let key = join(&array.folder, &array.names.key(index));
        Ok((self.keys.url(&key), most_bytes(array)?))
    }

    fn chunk_error(&self, variable: &Variable, index: &ChunkIndex, error: codecs::Error) -> Error {
        self.corrupt(&self.arrays[variable.handle], index, &error)
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = warnings.told.clone();
        if warnings.untold > 0 {
            all.push(format!("{} more files are left out", warnings.untold));
        }
        all
    }
}

/// A hierarchy while its nodes are being found.
struct Opening {
    hierarchy: Hierarchy,
    groups: Vec<Group>,
}

impl Opening {
    /// Finds every node below the root, groups before what is in them.
    fn walk(&mut self, root: GroupMetadata) -> Result<(), Error> {
        let mut waiting = vec![(Vec::new(), root)];
        while let Some((path, group)) = waiting.pop() {
            let folder = path.join("/");
            let at = self.groups.len();
            self.groups.push(Group {
                attributes: attributes(&group.attributes),
                ..empty_group(path.clone())
            });
            if !group.extra.is_empty() {
                self.hierarchy.extra.insert(path.clone(), group.extra);
            }
            // The last one waiting is next: turned round, the names come in order.
            for name in self.hierarchy.folders(&folder)?.into_iter().rev() {
                let inside = join(&folder, &name);
                let mut path = path.clone();
                path.push(name.clone());
                match self.hierarchy.document(&inside)? {
                    None => self.hierarchy.stray(&folder, &name, "is no group or array"),
                    Some((_, Ok(Document::Group(group)))) => {
                        check_depth(&self.hierarchy, &path)?;
                        waiting.push((path, group));
                    }
                    Some((_, Ok(Document::Array(metadata, names)))) => {
                        self.array_of(at, name, inside, metadata, names);
                    }
                    Some((_, Err(reason))) => self.groups[at].refused.push(Refused {
                        name: inside,
                        reason,
                    }),
                }
            }
            self.groups[at].variables.reverse();
            let nodes = self.hierarchy.arrays.len() + self.groups.len() + waiting.len();
            if nodes > MAX_NODES {
                return Err(Error::Unsupported {
                    what: self.hierarchy.keys.shown("").display().to_string(),
                    reason: format!("it has more than {MAX_NODES} groups and arrays"),
                });
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        name: String,
        folder: String,
        metadata: ArrayMetadata,
        names: ChunkKeyEncoding,
    ) {
        let at = self.groups.len() - 1;
        self.array_of(at, name, folder, metadata, names);
    }

    fn array_of(
        &mut self,
        group: usize,
        name: String,
        folder: String,
        metadata: ArrayMetadata,
        names: ChunkKeyEncoding,
    ) {
        let codec = match ArrayCodec::new(&metadata) {
            Ok(codec) => codec,
            Err(error) => {
                let name = if folder.is_empty() { name } else { folder };
                let reason = error.to_string();
                self.groups[group].refused.push(Refused { name, reason });
                return;
            }
        };
        let named = metadata.dimension_names().unwrap_or_default();
        let dimension = |axis: usize| match named.get(axis) {
            Some(Some(name)) => name.clone(),
            _ => format!("dim_{axis}"),
        };
        self.groups[group].variables.push(Variable {
            name,
            dimensions: (0..metadata.dimensions()).map(dimension).collect(),
            shape: metadata.shape().to_vec(),
            data_type: metadata.data_type.clone(),
            attributes: attributes(&metadata.attributes),
            chunk_shape: Some(codec.inner_shape().to_vec()),
            handle: self.hierarchy.arrays.len(),
        });
        self.hierarchy.arrays.push(Array {
            folder,
            metadata,
            codec,
            names,
        });
    }
}

fn version_3(json: &Value) -> Result<Document, String> {
    match NodeMetadata::from_json(json.clone()).map_err(|error| error.to_string())? {
        NodeMetadata::Group(group) => Ok(Document::Group(group)),
        NodeMetadata::Array(array) => {
            let names = array.chunk_key_encoding;
            Ok(Document::Array(array, names))
        }
    }
}

/// A group too deep for a repository is refused before what is in it is looked for: there could be
/// no end to it.
fn check_depth(hierarchy: &Hierarchy, path: &[String]) -> Result<(), Error> {
    let mut names = path.iter();
    let place = names.try_fold(NodePath::root(), |path, name| path.join(name));
    place.map(drop).map_err(|error| Error::Unsupported {
        what: hierarchy.keys.shown(&path.join("/")).display().to_string(),
        reason: error.to_string(),
    })
}

fn attributes(members: &Map<String, Value>) -> Attributes {
    let json = |(name, value): (&String, &Value)| (name.clone(), Attribute::Json(value.clone()));
    members.iter().map(json).collect()
}

fn empty_group(path: Vec<String>) -> Group {
    Group {
        path,
        attributes: Vec::new(),
        variables: Vec::new(),
        refused: Vec::new(),
    }
}

fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

#[cfg(test)]
mod tests;
