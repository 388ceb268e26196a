//! Which dimensions and variables a NetCDF-4 file has. Pure.
//!
//! A dimension belongs to the outermost group that has an array over it, of those that see each
//! other; arrays below use it as long as names and lengths agree. A variable named like a dimension
//! of its group, over it first, is the dimension's coordinate; any other of that name is stored under
//! another, which readers undo.

use std::collections::BTreeSet;

use array::DataType;
use serde_json::Value;

use super::attributes::{self, Attribute, Typed};
use super::values;
use crate::Error;
use crate::export::view::{View, Viewed, ViewedArray};
use crate::export::zarr2::fill_attribute;
use crate::netcdf::{cf_unit, clean, resolution, unique};

/// Chunks of more bytes are cut: readers hold a few in memory.
const CHUNK_BYTES_MAX: u64 = 4 << 20;
/// Arrays of fewer bytes are one block, not compressed.
const BLOCK_BYTES_MAX: u64 = 16 << 10;
/// Before the name of a variable that is no coordinate of the dimension of its name.
const NON_COORDINATE: &str = "_nc4_non_coord_";

/// What a file holds.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    /// Parents first.
    pub(super) groups: Vec<Group>,
    pub(super) dimensions: Vec<Dimension>,
    pub(super) variables: Vec<Variable<'a>>,
}

#[derive(Debug)]
pub(super) struct Group {
    /// Path, with slashes between names; `""` for the root.
    pub(super) path: String,
    pub(super) attributes: Vec<Attribute>,
}

#[derive(Debug)]
pub(super) struct Dimension {
    /// The group it is in.
    pub(super) group: usize,
    pub(super) name: String,
    pub(super) length: u64,
    pub(super) is_unlimited: bool,
    /// The variable that is its coordinate.
    pub(super) coordinate: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Variable<'a> {
    pub(super) array: &'a ViewedArray,
    pub(super) group: usize,
    /// Its name in the file.
    pub(super) name: String,
    pub(super) dimensions: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) attributes: Vec<Attribute>,
    /// Lengths of chunks; none for one block.
    pub(super) chunk: Option<Vec<u64>>,
    /// What cells hold that nobody wrote; none for text.
    pub(super) fill: Option<Vec<u8>>,
}

/// How elements are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Numbers of this type, as they are.
    Numbers(DataType),
    /// `float16` or `bfloat16`, as `float`.
    Widened,
    /// Times, as so many times their number.
    Ticks(i64),
    /// Text of any length, as strings.
    Texts,
    /// Texts of so many bytes, as strings.
    FixedTexts,
    /// One dimension more of so many characters; none for 1.
    Characters(u64),
    /// Real and imaginary part, as two of this type.
    Complex(DataType),
}

impl Kind {
    fn of(array: &ViewedArray) -> Result<Self, Error> {
        let data_type = &array.data_type;
        let refused = |reason: &str| refused(array, reason);
        Ok(match data_type {
            DataType::Bool => Self::Numbers(DataType::Int8),
            DataType::Float16 | DataType::BFloat16 => Self::Widened,
            DataType::DateTime64 { unit, scale_factor }
            | DataType::TimeDelta64 { unit, scale_factor } => {
                let (_, factor) =
                    cf_unit(*unit).ok_or_else(|| refused("CF has no such unit of time"))?;
                Self::Ticks(factor.saturating_mul(i64::from(*scale_factor)))
            }
            DataType::String => Self::Texts,
            DataType::FixedLengthUtf32 { .. } => Self::FixedTexts,
            DataType::NullTerminatedBytes { length_bytes } => {
                Self::Characters(u64::from(*length_bytes))
            }
            DataType::Complex64 => Self::Complex(DataType::Float32),
            DataType::Complex128 => Self::Complex(DataType::Float64),
            DataType::RawBits { .. }
            | DataType::RawBytes { .. }
            | DataType::VariableLengthBytes => {
                return Err(refused(&format!("it has no {data_type}")));
            }
            numbers => Self::Numbers(numbers.clone()),
        })
    }

    /// The type that attributes about values have; none if values are no numbers.
    fn numbers(&self) -> Option<DataType> {
        match self {
            Self::Numbers(data_type) => Some(data_type.clone()),
            Self::Widened => Some(DataType::Float32),
            Self::Ticks(_) => Some(DataType::Int64),
            Self::Texts | Self::FixedTexts | Self::Characters(_) | Self::Complex(_) => None,
        }
    }

    /// Bytes of an element in the file.
    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::Numbers(data_type) => data_type.size_bytes().unwrap_or(1) as u64,
            Self::Widened => 4,
            Self::Ticks(_) => 8,
            // A reference to a heap.
            Self::Texts | Self::FixedTexts => 16,
            Self::Characters(_) => 1,
            Self::Complex(part) => 2 * part.size_bytes().unwrap_or(8) as u64,
        }
    }
}

fn refused(array: &ViewedArray, reason: &str) -> Error {
    Error::NoPlace {
        format: "NetCDF-4",
        array: array.path(),
        reason: reason.to_owned(),
    }
}

impl<'a> Layout<'a> {
    /// The layout of everything in `view`. `has_nat` says which arrays of times hold one.
    ///
    /// # Errors
    /// [`Error::NoPlace`] for a data type or a `_FillValue` the format does not have;
    /// [`Error::Option`] for an unlimited dimension that nothing has.
    pub(super) fn new(
        view: &'a View,
        unlimited: &[String],
        has_nat: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let mut layout = Self {
            groups: vec![Group {
                path: String::new(),
                attributes: Vec::new(),
            }],
            dimensions: Vec::new(),
            variables: Vec::new(),
        };
        // Groups first, so that every array finds its own.
        for node in &view.nodes {
            if let Viewed::Group(group) = node {
                layout.group(&group.below, &group.metadata.attributes)?;
            }
        }
        // Outer groups first: their dimensions are seen from inside.
        let mut arrays: Vec<&ViewedArray> = view.arrays().collect();
        arrays.sort_by_key(|array| array.below.matches('/').count());
        for array in arrays {
            layout.variable(array, has_nat)?;
        }
        layout.find_coordinates();
        layout.set_unlimited(unlimited)?;
        layout.choose_chunks();
        Ok(layout)
    }

    fn group(
        &mut self,
        below: &str,
        attributes: &serde_json::Map<String, Value>,
    ) -> Result<(), Error> {
        let attributes = attributes::convert(attributes, None).unwrap_or_default();
        match below {
            "" => self.groups[0].attributes = attributes,
            below => self.groups.push(Group {
                path: below.split('/').map(clean).collect::<Vec<_>>().join("/"),
                attributes,
            }),
        }
        Ok(())
    }

    fn variable(
        &mut self,
        array: &'a ViewedArray,
        has_nat: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let folder = array
            .below
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let folder: Vec<String> = folder.split('/').map(clean).collect();
        let folder = match folder.join("/").as_str() {
            "_" => String::new(),
            other => other.to_owned(),
        };
        let group = self
            .groups
            .iter()
            .position(|group| group.path == folder)
            .unwrap_or(0);
        let kind = Kind::of(array)?;
        let mut dimensions = Vec::new();
        let names = array.dimensions();
        for (axis, (name, length)) in names.iter().zip(array.shape()).enumerate() {
            let name = name.clone().unwrap_or_else(|| format!("dim_{axis}"));
            dimensions.push(self.dimension(group, &clean(&name), length));
        }
        if let Kind::Characters(length) = kind
            && length > 1
        {
            dimensions.push(self.dimension(group, &format!("string{length}"), length));
        }
        let name = unique(clean(array.name()), |name| {
            self.variables
                .iter()
                .all(|known| known.group != group || known.name != name)
        });
        let (attributes, fill) = attributes_of(array, &kind, has_nat.contains(&array.below))?;
        self.variables.push(Variable {
            array,
            group,
            name,
            dimensions,
            kind,
            attributes,
            chunk: None,
            fill,
        });
        Ok(())
    }

    /// The dimension of this name and length that the group sees; made if there is none.
    fn dimension(&mut self, group: usize, name: &str, length: u64) -> usize {
        let path = self.groups[group].path.clone();
        let sees = |other: usize| {
            let above = &self.groups[other].path;
            above.is_empty() || path == *above || path.starts_with(&format!("{above}/"))
        };
        // The nearest of the name hides those further out.
        let nearest = (0..self.dimensions.len())
            .filter(|&at| self.dimensions[at].name == name && sees(self.dimensions[at].group))
            .max_by_key(|&at| self.groups[self.dimensions[at].group].path.len());
        if let Some(at) = nearest
            && self.dimensions[at].length == length
        {
            return at;
        }
        let numbered = (0..self.dimensions.len()).find(|&at| {
            let known = &self.dimensions[at];
            let rest = known
                .name
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('_'));
            let is_numbered = rest.is_some_and(|rest| rest.parse::<u32>().is_ok());
            is_numbered && known.length == length && known.group == group
        });
        if let Some(at) = numbered {
            return at;
        }
        let is_free = |name: &str| {
            self.dimensions
                .iter()
                .all(|known| known.group != group || known.name != name)
        };
        let name = unique(name.to_owned(), is_free);
        self.dimensions.push(Dimension {
            group,
            name,
            length,
            is_unlimited: length == 0,
            coordinate: None,
        });
        self.dimensions.len() - 1
    }

    /// Finds the coordinate of each dimension, and renames what only looks like one.
    fn find_coordinates(&mut self) {
        for (at, variable) in self.variables.iter_mut().enumerate() {
            let same = self
                .dimensions
                .iter()
                .position(|known| known.group == variable.group && known.name == variable.name);
            let Some(dimension) = same else { continue };
            match variable.dimensions.first() == Some(&dimension) {
                true => self.dimensions[dimension].coordinate = Some(at),
                false => variable.name = format!("{NON_COORDINATE}{}", variable.name),
            }
        }
    }

    fn set_unlimited(&mut self, unlimited: &[String]) -> Result<(), Error> {
        for name in unlimited {
            let mut is_known = false;
            for dimension in self
                .dimensions
                .iter_mut()
                .filter(|known| known.name == clean(name))
            {
                dimension.is_unlimited = true;
                is_known = true;
            }
            if !is_known {
                let known: BTreeSet<&str> =
                    self.dimensions.iter().map(|d| d.name.as_str()).collect();
                let known: Vec<&str> = known.into_iter().collect();
                return Err(Error::Option {
                    option: "--unlimited",
                    reason: format!(
                        "no array has a dimension {name:?}; there are {}",
                        known.join(", ")
                    ),
                });
            }
        }
        Ok(())
    }

    fn choose_chunks(&mut self) {
        for variable in &mut self.variables {
            let dimensions = || variable.dimensions.iter().map(|&at| &self.dimensions[at]);
            let lengths: Vec<u64> = dimensions().map(|dimension| dimension.length).collect();
            let size = variable.kind.size_bytes();
            let multiply = |bytes: u64, length: &u64| bytes.saturating_mul(*length);
            let can_grow = dimensions().any(|dimension| dimension.is_unlimited);
            let is_small = lengths.iter().fold(size, multiply) <= BLOCK_BYTES_MAX;
            if lengths.is_empty() || is_small && !can_grow {
                continue;
            }
            let mut chunk = variable.array.inner_shape();
            // The characters of a text stay together.
            chunk.resize(lengths.len(), lengths.last().copied().unwrap_or(1));
            for (chunk, length) in chunk.iter_mut().zip(&lengths) {
                *chunk = (*chunk).min(*length).max(1);
            }
            let rank = variable.array.shape().len();
            while chunk.iter().fold(size, multiply) > CHUNK_BYTES_MAX {
                let longest = chunk[..rank].iter_mut().max_by_key(|length| **length);
                match longest.filter(|length| **length > 1) {
                    Some(longest) => *longest = longest.div_ceil(2),
                    None => break,
                }
            }
            variable.chunk = Some(chunk);
        }
    }

    /// Whether a variable is its own dimension.
    pub(super) fn scale_of(&self, variable: usize) -> Option<usize> {
        self.dimensions
            .iter()
            .position(|dimension| dimension.coordinate == Some(variable))
    }
}

/// The attributes of an array's variable, and what cells hold that nobody wrote.
fn attributes_of(
    array: &ViewedArray,
    kind: &Kind,
    has_nat: bool,
) -> Result<(Vec<Attribute>, Option<Vec<u8>>), Error> {
    let numbers = kind.numbers();
    let mut source = array.attributes.clone();
    let mut own: Vec<Attribute> = Vec::new();
    let mut add =
        |name: &str, text: &str| own.push((name.to_owned(), Typed::Text(text.to_owned())));
    let mut nat = None;
    match &array.data_type {
        DataType::Bool => add("dtype", "bool"),
        DataType::DateTime64 { unit, .. } => {
            let (unit, _) = cf_unit(*unit).unwrap_or_default();
            add("units", &format!("{unit} since 1970-01-01"));
            add("calendar", "proleptic_gregorian");
            nat = Some(i64::MIN);
        }
        DataType::TimeDelta64 { unit, .. } => {
            add("units", cf_unit(*unit).unwrap_or_default().0);
            if let Some(resolution) = resolution(*unit) {
                add("dtype", &format!("timedelta64[{resolution}]"));
            }
            nat = Some(i64::MIN);
        }
        DataType::FixedLengthUtf32 { .. } | DataType::String => {
            // What is missing among texts is a text, where it is anything.
            if let Some(Value::String(fill)) = source.remove("_FillValue") {
                own.push(("_FillValue".to_owned(), Typed::Texts(vec![fill])));
            }
        }
        DataType::NullTerminatedBytes { .. } => {
            let fill = source.remove("_FillValue");
            if let Some(Value::String(fill)) =
                fill.filter(|fill| fill.as_str().is_some_and(|f| f.len() == 1))
            {
                own.push(("_FillValue".to_owned(), Typed::Text(fill)));
            }
        }
        _ => {}
    }
    if nat.is_some() {
        source.remove("_FillValue");
        source.remove("missing_value");
        if has_nat {
            let bytes = i64::MIN.to_le_bytes().to_vec();
            let descriptor = attributes::descriptor(&DataType::Int64);
            own.extend(descriptor.map(|d| ("_FillValue".to_owned(), Typed::Numbers(d, bytes))));
        }
    }
    let mut converted = attributes::convert(&source, numbers.as_ref()).map_err(|name| {
        let reason = format!("its {name} is no value of its type: export with --decode cf");
        refused(array, &reason)
    })?;
    converted.retain(|(name, _)| own.iter().all(|(known, _)| known != name));
    converted.append(&mut own);
    let fill = match (kind, &numbers, source.get("_FillValue")) {
        (Kind::Texts | Kind::FixedTexts, ..) => None,
        (Kind::Characters(_), ..) => Some(vec![0]),
        (Kind::Complex(_), ..) => Some(array.fill()),
        (_, Some(numbers), Some(value)) => {
            fill_attribute(numbers, value).map(|fill| fill.as_bytes().to_vec())
        }
        (Kind::Widened, ..) => Some(values::widened(&array.data_type, &array.fill())),
        _ => values::convert(kind, array.fill()).ok(),
    };
    Ok((converted, fill))
}
