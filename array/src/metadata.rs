//! `zarr.json`: the metadata of a group or an array.
//!
//! Parsing is strict where a mistake would change what data means, and keeps what it does not
//! interpret: attributes, and extra members marked `"must_understand": false`.
//!
//! Source: Zarr v3 core, "Metadata".

use serde_json::{Map, Value, json};

use crate::grid::RegularGrid;
use crate::shape::MAX_DIMENSIONS;
use crate::{ChunkIndex, DataType, Error, FillValue, json as canonical};

/// Longest `zarr.json` that is parsed, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// A codec as `zarr.json` names it.
#[derive(Clone, Debug, PartialEq)]
pub struct CodecMetadata {
    /// Registered name, for instance `zstd`.
    pub name: String,
    /// Its parameters.
    pub configuration: Map<String, Value>,
}

impl CodecMetadata {
    /// A codec with the members of `configuration`, which must be a JSON object or null.
    pub fn new(name: &str, configuration: Value) -> Self {
        let configuration = match configuration {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        Self {
            name: name.to_owned(),
            configuration,
        }
    }

    /// Reads one item of a `codecs` list.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it has no name or its configuration is not an object.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        let (name, configuration) = parse_extension("codec", value)?;
        Ok(Self {
            name,
            configuration,
        })
    }

    /// Reads a `codecs` list.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not a list of codecs.
    pub fn parse_list(value: &Value) -> Result<Vec<Self>, Error> {
        value
            .as_array()
            .ok_or_else(|| Error::invalid("codecs", "not a list"))?
            .iter()
            .map(Self::parse)
            .collect()
    }

    /// The item of a `codecs` list.
    ///
    /// An empty configuration is left out, but for the codecs of numcodecs: zarr-python, where they
    /// come from, refuses them without.
    pub fn to_json(&self) -> Value {
        if self.configuration.is_empty() && !self.name.starts_with("numcodecs.") {
            json!({ "name": self.name })
        } else {
            json!({ "name": self.name, "configuration": self.configuration })
        }
    }
}

/// How a chunk's position becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKeyEncoding {
    /// `c/1/2`, or `c` for no dimensions.
    Default {
        /// `/` or `.`.
        separator: char,
    },
    /// `1.2`, or `0` for no dimensions.
    V2 {
        /// `/` or `.`.
        separator: char,
    },
}

impl ChunkKeyEncoding {
    /// The key of the chunk at `index`, relative to the array.
    pub fn key(&self, index: &ChunkIndex) -> String {
        let join = |separator: char| {
            let parts: Vec<String> = index.as_slice().iter().map(u64::to_string).collect();
            parts.join(&separator.to_string())
        };
        match (self, index.as_slice().is_empty()) {
            (Self::Default { .. }, true) => "c".to_owned(),
            (Self::Default { separator }, false) => format!("c{separator}{}", join(*separator)),
            (Self::V2 { .. }, true) => "0".to_owned(),
            (Self::V2 { separator }, false) => join(*separator),
        }
    }

    /// The chunk a key names in an array of `dimensions`; `None` if it names none.
    ///
    /// Only the spelling [`ChunkKeyEncoding::key`] writes is accepted.
    pub fn parse_key(&self, key: &str, dimensions: usize) -> Option<ChunkIndex> {
        let (rest, separator) = match self {
            Self::Default { separator } if dimensions > 0 => {
                (key.strip_prefix('c')?.strip_prefix(*separator)?, separator)
            }
            Self::V2 { separator } if dimensions > 0 => (key, separator),
            _ => {
                let only = ChunkIndex::new(vec![]);
                return (self.key(&only) == key).then_some(only);
            }
        };
        let coordinate: Option<Vec<u64>> = rest
            .split(*separator)
            .take(dimensions + 1)
            .map(|part| part.parse().ok())
            .collect();
        let index = ChunkIndex::new(coordinate?);
        (index.as_slice().len() == dimensions && self.key(&index) == key).then_some(index)
    }

    fn parse(value: &Value) -> Result<Self, Error> {
        let (name, configuration) = parse_extension("chunk key encoding", value)?;
        let separator = |default: char| match configuration.get("separator") {
            None => Ok(default),
            Some(Value::String(s)) if s == "/" => Ok('/'),
            Some(Value::String(s)) if s == "." => Ok('.'),
            Some(other) => Err(Error::invalid(
                "chunk key encoding",
                format!("separator {other}"),
            )),
        };
        match name.as_str() {
            "default" => Ok(Self::Default {
                separator: separator('/')?,
            }),
            "v2" => Ok(Self::V2 {
                separator: separator('.')?,
            }),
            other => Err(Error::unsupported(
                "chunk key encoding",
                format!("{other:?}"),
            )),
        }
    }

    fn to_json(self) -> Value {
        let (name, separator) = match self {
            Self::Default { separator } => ("default", separator),
            Self::V2 { separator } => ("v2", separator),
        };
        json!({ "name": name, "configuration": { "separator": separator.to_string() } })
    }
}

/// The metadata of an array.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrayMetadata {
    grid: RegularGrid,
    /// Type of the elements.
    pub data_type: DataType,
    /// What an element never written holds.
    pub fill_value: FillValue,
    /// How chunk positions become keys.
    pub chunk_key_encoding: ChunkKeyEncoding,
    /// Codecs from array to bytes, in encoding order.
    pub codecs: Vec<CodecMetadata>,
    /// User attributes.
    pub attributes: Map<String, Value>,
    dimension_names: Option<Vec<Option<String>>>,
    /// Members this version does not interpret and need not understand.
    pub extra: Map<String, Value>,
}

impl ArrayMetadata {
    /// An array without attributes, with the default fill value and key encoding.
    pub fn new(grid: RegularGrid, data_type: DataType, codecs: Vec<CodecMetadata>) -> Self {
        Self {
            grid,
            fill_value: FillValue::default_for(&data_type),
            data_type,
            chunk_key_encoding: ChunkKeyEncoding::Default { separator: '/' },
            codecs,
            attributes: Map::new(),
            dimension_names: None,
            extra: Map::new(),
        }
    }

    /// The array's shape and its chunk (or shard) grid.
    pub fn grid(&self) -> &RegularGrid {
        &self.grid
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[u64] {
        self.grid.array_shape()
    }

    /// Number of dimensions.
    pub fn dimensions(&self) -> usize {
        self.shape().len()
    }

    /// Length of a stored chunk, which is a shard where the array is sharded.
    pub fn chunk_shape(&self) -> &[u64] {
        self.grid.chunk_shape()
    }

    /// Names of the dimensions, if any were given.
    pub fn dimension_names(&self) -> Option<&[Option<String>]> {
        self.dimension_names.as_deref()
    }

    /// Resizes the array; its chunks keep their shape.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of dimensions; [`Error::TooLarge`] if the chunk grid
    /// does not fit 64 bits.
    pub fn set_shape(&mut self, shape: Vec<u64>) -> Result<(), Error> {
        self.grid = RegularGrid::new(shape, self.chunk_shape().to_vec())?;
        Ok(())
    }

    /// Sets another chunk grid over the same shape.
    ///
    /// # Errors
    /// As [`RegularGrid::new`].
    pub fn set_chunk_shape(&mut self, chunk_shape: Vec<u64>) -> Result<(), Error> {
        self.grid = RegularGrid::new(self.shape().to_vec(), chunk_shape)?;
        Ok(())
    }

    /// Sets the names of the dimensions.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless there is one for each dimension.
    pub fn set_dimension_names(&mut self, names: Vec<Option<String>>) -> Result<(), Error> {
        if names.len() != self.dimensions() {
            let reason = format!("{} names for {} dimensions", names.len(), self.dimensions());
            return Err(Error::invalid("dimension_names", reason));
        }
        self.dimension_names = Some(names);
        Ok(())
    }

    /// The dimension called `name`; `None` unless exactly one is.
    pub fn dimension_named(&self, name: &str) -> Option<usize> {
        let mut found = self
            .dimension_names
            .iter()
            .flatten()
            .enumerate()
            .filter(|(_, known)| known.as_deref() == Some(name));
        match (found.next(), found.next()) {
            (Some((axis, _)), None) => Some(axis),
            _ => None,
        }
    }

    fn from_members(mut members: Map<String, Value>) -> Result<Self, Error> {
        let attributes = take_attributes(&mut members)?;
        let mut take = |name: &'static str| {
            members
                .remove(name)
                .ok_or_else(|| Error::invalid("zarr.json", format!("no {name:?}")))
        };
        let shape = lengths("shape", &take("shape")?)?;
        let data_type = DataType::parse(&take("data_type")?)?;
        let (grid_name, grid) = parse_extension("chunk_grid", &take("chunk_grid")?)?;
        if grid_name != "regular" {
            return Err(Error::unsupported("chunk grid", format!("{grid_name:?}")));
        }
        let chunk_shape = grid
            .get("chunk_shape")
            .ok_or_else(|| Error::invalid("chunk grid", "no \"chunk_shape\""))?;
        let grid = RegularGrid::new(shape, lengths("chunk_shape", chunk_shape)?)?;
        let chunk_key_encoding = ChunkKeyEncoding::parse(&take("chunk_key_encoding")?)?;
        let fill_value = FillValue::parse(&data_type, &take("fill_value")?)?;
        let codecs = CodecMetadata::parse_list(&take("codecs")?)?;
        let names = members.remove("dimension_names");
        match members.remove("storage_transformers") {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(_) => {
                return Err(Error::unsupported(
                    "storage transformers",
                    "there must be none",
                ));
            }
        }
        check_extra(&members)?;
        let mut metadata = Self {
            grid,
            data_type,
            fill_value,
            chunk_key_encoding,
            codecs,
            attributes,
            dimension_names: None,
            extra: members,
        };
        match names {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                let names = items
                    .into_iter()
                    .map(|item| match item {
                        Value::Null => Ok(None),
                        Value::String(name) => Ok(Some(name)),
                        other => Err(Error::invalid("dimension_names", format!("{other}"))),
                    })
                    .collect::<Result<_, _>>()?;
                metadata.set_dimension_names(names)?;
            }
            Some(_) => return Err(Error::invalid("dimension_names", "not a list")),
        }
        Ok(metadata)
    }

    /// The `zarr.json` document.
    pub fn to_json(&self) -> Value {
        let mut members = self.extra.clone();
        members.insert("zarr_format".into(), json!(3));
        members.insert("node_type".into(), json!("array"));
        members.insert("shape".into(), json!(self.shape()));
        members.insert("data_type".into(), self.data_type.to_json());
        members.insert(
            "chunk_grid".into(),
            json!({ "name": "regular", "configuration": { "chunk_shape": self.chunk_shape() } }),
        );
        members.insert(
            "chunk_key_encoding".into(),
            self.chunk_key_encoding.to_json(),
        );
        members.insert(
            "fill_value".into(),
            self.fill_value.to_json(&self.data_type),
        );
        members.insert(
            "codecs".into(),
            self.codecs.iter().map(CodecMetadata::to_json).collect(),
        );
        members.insert("attributes".into(), Value::Object(self.attributes.clone()));
        if let Some(names) = &self.dimension_names {
            members.insert("dimension_names".into(), json!(names));
        }
        Value::Object(members)
    }
}

/// The metadata of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupMetadata {
    /// User attributes.
    pub attributes: Map<String, Value>,
    /// Members this version does not interpret and need not understand.
    pub extra: Map<String, Value>,
}

impl GroupMetadata {
    fn from_members(mut members: Map<String, Value>) -> Result<Self, Error> {
        let attributes = take_attributes(&mut members)?;
        check_extra(&members)?;
        Ok(Self {
            attributes,
            extra: members,
        })
    }

    /// The `zarr.json` document.
    pub fn to_json(&self) -> Value {
        let mut members = self.extra.clone();
        members.insert("zarr_format".into(), json!(3));
        members.insert("node_type".into(), json!("group"));
        members.insert("attributes".into(), Value::Object(self.attributes.clone()));
        Value::Object(members)
    }
}

/// The metadata of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeMetadata {
    /// A group.
    Group(GroupMetadata),
    /// An array.
    Array(ArrayMetadata),
}

impl NodeMetadata {
    /// Parses a `zarr.json` document. `consolidated_metadata` is dropped.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a malformed document, [`Error::Unsupported`] for one that needs
    /// something this version does not have.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            let reason = format!("{} bytes, the most is {MAX_DOCUMENT_BYTES}", bytes.len());
            return Err(Error::invalid("zarr.json", reason));
        }
        Self::from_json(canonical::parse("zarr.json", bytes)?)
    }

    /// Reads a `zarr.json` document.
    ///
    /// # Errors
    /// As [`NodeMetadata::parse`].
    pub fn from_json(document: Value) -> Result<Self, Error> {
        let Value::Object(mut members) = document else {
            return Err(Error::invalid("zarr.json", "not an object"));
        };
        match members.remove("zarr_format") {
            Some(version) if version == json!(3) => {}
            other => {
                let found = other.map_or("missing".to_owned(), |v| v.to_string());
                return Err(Error::unsupported(
                    "zarr.json",
                    format!("zarr_format is {found}, not 3"),
                ));
            }
        }
        members.remove("consolidated_metadata");
        match members.remove("node_type").as_ref().and_then(Value::as_str) {
            Some("array") => Ok(Self::Array(ArrayMetadata::from_members(members)?)),
            Some("group") => Ok(Self::Group(GroupMetadata::from_members(members)?)),
            _ => Err(Error::invalid(
                "zarr.json",
                "node_type is neither \"array\" nor \"group\"",
            )),
        }
    }

    /// The `zarr.json` document.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Group(group) => group.to_json(),
            Self::Array(array) => array.to_json(),
        }
    }

    /// The document's canonical bytes: what is stored and hashed.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        canonical::canonical_bytes(&self.to_json())
    }

    /// User attributes.
    pub fn attributes(&self) -> &Map<String, Value> {
        match self {
            Self::Group(group) => &group.attributes,
            Self::Array(array) => &array.attributes,
        }
    }
}

fn take_attributes(members: &mut Map<String, Value>) -> Result<Map<String, Value>, Error> {
    match members.remove("attributes") {
        None => Ok(Map::new()),
        Some(Value::Object(attributes)) => Ok(attributes),
        Some(_) => Err(Error::invalid("attributes", "not an object")),
    }
}

/// Reads `name` or `{"name": …, "configuration": {…}}`.
fn parse_extension(
    what: &'static str,
    value: &Value,
) -> Result<(String, Map<String, Value>), Error> {
    match value {
        Value::String(name) => Ok((name.clone(), Map::new())),
        Value::Object(members) => {
            let name = members
                .get("name")
                .and_then(Value::as_str)
                .ok_or_else(|| Error::invalid(what, "no \"name\""))?;
            let configuration = match members.get("configuration") {
                None => Map::new(),
                Some(Value::Object(configuration)) => configuration.clone(),
                Some(_) => return Err(Error::invalid(what, "\"configuration\" is not an object")),
            };
            Ok((name.to_owned(), configuration))
        }
        _ => Err(Error::invalid(what, "neither a name nor an object")),
    }
}

fn lengths(what: &'static str, value: &Value) -> Result<Vec<u64>, Error> {
    let items = value
        .as_array()
        .ok_or_else(|| Error::invalid(what, "not a list"))?;
    if items.len() > MAX_DIMENSIONS {
        return Err(Error::invalid(
            what,
            format!("more than {MAX_DIMENSIONS} dimensions"),
        ));
    }
    items
        .iter()
        .map(|item| {
            item.as_u64()
                .ok_or_else(|| Error::invalid(what, format!("{item} is not a length")))
        })
        .collect()
}

/// Zarr v3: an unknown member must be understood unless it is an object that says otherwise.
fn check_extra(members: &Map<String, Value>) -> Result<(), Error> {
    let needed = |value: &&Value| value.get("must_understand") != Some(&Value::Bool(false));
    match members.iter().find(|(_, value)| needed(value)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::unsupported(
            "zarr.json",
            format!("unknown member {name:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": [10, 20],
            "data_type": "float32",
            "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": [5, 20] } },
            "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
            "fill_value": "NaN",
            "codecs": [{ "name": "bytes", "configuration": { "endian": "little" } }],
            "attributes": { "scale_factor": 1.0 },
            "dimension_names": ["y", null],
        })
    }

    #[test]
    fn documents_round_trip() {
        let parsed = NodeMetadata::from_json(document()).unwrap();
        assert_eq!(parsed.to_json(), document());
        let bytes = parsed.canonical_bytes();
        assert_eq!(NodeMetadata::parse(&bytes), Ok(parsed));
        assert!(
            String::from_utf8(bytes)
                .unwrap()
                .contains("\"scale_factor\":1.0")
        );
    }

    #[test]
    fn defaults_and_foreign_members() {
        let mut value = document();
        value["chunk_key_encoding"] = json!("default");
        value["storage_transformers"] = json!([]);
        value["consolidated_metadata"] = json!({ "metadata": {} });
        value["hint"] = json!({ "must_understand": false, "a": 1 });
        let parsed = NodeMetadata::from_json(value).unwrap();
        assert_eq!(parsed.to_json()["hint"]["a"], 1);
        assert!(parsed.to_json().get("consolidated_metadata").is_none());
        let NodeMetadata::Array(array) = parsed else {
            panic!("an array")
        };
        assert_eq!(array.dimension_named("y"), Some(0));
        assert_eq!(array.dimension_named("x"), None);
    }

    #[test]
    fn hostile_documents_are_refused() {
        for (member, value) in [
            ("zarr_format", json!(2)),
            ("node_type", json!("table")),
            ("shape", json!([10])),
            ("shape", json!([-1, 2])),
            ("shape", json!([1e300, 2])),
            ("shape", json!(vec![1; 1000])),
            (
                "chunk_grid",
                json!({ "name": "regular", "configuration": { "chunk_shape": [0, 1] } }),
            ),
            (
                "chunk_grid",
                json!({ "name": "rectilinear", "configuration": {} }),
            ),
            (
                "chunk_key_encoding",
                json!({ "name": "default", "configuration": { "separator": "x" } }),
            ),
            ("fill_value", json!(null)),
            ("codecs", json!([{}])),
            ("attributes", json!([])),
            ("dimension_names", json!(["x"])),
            ("storage_transformers", json!([{ "name": "x" }])),
            ("surprise", json!({})),
        ] {
            let mut bad = document();
            bad[member] = value.clone();
            assert!(NodeMetadata::from_json(bad).is_err(), "{member}: {value}");
        }
        assert!(NodeMetadata::parse(b"[]").is_err());
    }

    #[test]
    fn keys_have_one_spelling() {
        let default = ChunkKeyEncoding::Default { separator: '/' };
        let v2 = ChunkKeyEncoding::V2 { separator: '.' };
        let index = ChunkIndex::new(vec![1, 20]);
        assert_eq!(default.key(&index), "c/1/20");
        assert_eq!(v2.key(&index), "1.20");
        assert_eq!(default.parse_key("c/1/20", 2), Some(index.clone()));
        assert_eq!(v2.parse_key("1.20", 2), Some(index));
        assert_eq!(default.parse_key("c", 0), Some(ChunkIndex::new(vec![])));
        assert_eq!(v2.parse_key("0", 0), Some(ChunkIndex::new(vec![])));
        for bad in [
            "c/1",
            "c/1/2/3",
            "c/01/2",
            "c/+1/2",
            "c1/2",
            "1/2",
            "c/1/",
            "c/1/18446744073709551616",
        ] {
            assert_eq!(default.parse_key(bad, 2), None, "{bad}");
        }
    }
}
