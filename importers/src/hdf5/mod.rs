//! HDF5 and NetCDF-4, which is HDF5 with conventions, through the HDF5 library.
//!
//! What NetCDF-4 adds and is undone here: dimensions are datasets called *scales*, found through
//! `DIMENSION_LIST`; a scale may be a dimension without a variable; a variable named as a dimension
//! of another is stored under a prefix; an unlimited dimension is as long as its longest variable,
//! and shorter ones read as fill value; several attributes are bookkeeping. Datasets without scales
//! get the names netCDF gives them, `phony_dim_0`, `phony_dim_1` ….
//!
//! Source: "NetCDF-4 Format Specification"; HDF5 "Dimension Scale Specification".

mod attributes;
mod raw;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use array::{DataType, Elements, Region, VariableElements, shape};
use hdf5_metno::types::{
    CompoundType, FloatSize, IntSize, TypeDescriptor, VarLenArray, VarLenAscii, VarLenUnicode,
};
use hdf5_metno::{Dataset, Datatype, Hyperslab, ObjectReference1, ReferencedObject, SliceOrIndex};

use crate::Error;
use crate::source::{Attribute, Attributes, Group, Variable};

/// Deepest nesting of groups that is read; links may form cycles.
const MAX_DEPTH: usize = 32;
/// Most groups and datasets of a file.
const MAX_OBJECTS: usize = 100_000;
/// The prefix of a variable that shares its name with a dimension it does not define.
const NON_COORDINATE: &str = "_nc4_non_coord_";
/// `NAME` of a scale that is a dimension without a variable starts with this.
const NO_VARIABLE: &str = "This is a netCDF dimension but not a netCDF variable";

/// An open HDF5 file.
#[derive(Debug)]
pub(crate) struct Hdf5File {
    path: PathBuf,
    is_netcdf4: bool,
    variables: Vec<Stored>,
}

/// How a variable is stored.
#[derive(Debug)]
struct Stored {
    dataset: Dataset,
    /// Lengths in the file, which may be shorter than the variable's.
    extent: Vec<u64>,
    layout: Layout,
    /// What cells past the extent hold.
    fill: Vec<u8>,
}

/// How elements are read.
#[derive(Clone, Debug, PartialEq)]
enum Layout {
    /// As this type, without conversion after it.
    Fixed(TypeDescriptor),
    /// As the dataset's own fixed-length strings, padded as the file has it.
    FixedString,
    VariableAscii,
    VariableUtf8,
}

/// A dataset met while walking the file.
struct Met {
    group: usize,
    name: String,
    dataset: Dataset,
    path: String,
    extent: Vec<u64>,
    max_unlimited: Vec<bool>,
    is_scale: bool,
}

impl Hdf5File {
    /// Whether the HDF5 library takes the file for one of its own.
    pub(crate) fn is_hdf5(path: &Path) -> bool {
        hdf5_metno::silence_errors(true);
        hdf5_metno::File::open(path).is_ok()
    }

    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        hdf5_metno::silence_errors(true);
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let file = hdf5_metno::File::open(path).map_err(|_| {
            malformed("the HDF5 library cannot open it: it is truncated or damaged".into())
        })?;
        let mut walk = Walk {
            path,
            groups: Vec::new(),
            met: Vec::new(),
        };
        let root = file
            .as_group()
            .map_err(|error| malformed(error.to_string()))?;
        walk.group(&root, &[])?;
        let is_netcdf4 = file.attr("_NCProperties").is_ok()
            || walk
                .met
                .iter()
                .any(|met| met.dataset.attr("_Netcdf4Dimid").is_ok());
        let dimensions = Dimensions::of(&walk.met);
        let mut variables = Vec::new();
        let mut groups = walk.groups;
        let mut phony = Phony {
            next: dimensions.count,
            known: HashMap::new(),
        };
        for met in &walk.met {
            if met.is_scale && dimensions.is_without_variable(&met.dataset) {
                continue;
            }
            let (names, lengths) = dimensions.of_dataset(met, &mut phony);
            let name = met
                .name
                .strip_prefix(NON_COORDINATE)
                .unwrap_or(&met.name)
                .to_owned();
            let shown = format!("variable {}", met.path);
            let (data_type, layout) =
                element_type(&met.dataset).map_err(|reason| Error::Unsupported {
                    what: shown.clone(),
                    reason,
                })?;
            let attributes =
                attributes::read_all(&met.dataset, true).map_err(|(attribute, reason)| {
                    Error::Unsupported {
                        what: format!("attribute {attribute} of {shown}"),
                        reason,
                    }
                })?;
            let fill = past_the_end(&data_type, &attributes);
            groups[met.group].variables.push(Variable {
                name,
                dimensions: names,
                shape: lengths,
                data_type,
                attributes,
                chunk_shape: met
                    .dataset
                    .chunk()
                    .map(|chunk| chunk.iter().map(|&l| l as u64).collect()),
                handle: variables.len(),
            });
            variables.push(Stored {
                dataset: met.dataset.clone(),
                extent: met.extent.clone(),
                layout,
                fill,
            });
        }
        Ok((
            Self {
                path: path.to_owned(),
                is_netcdf4,
                variables,
            },
            groups,
        ))
    }

    pub(crate) fn format(&self) -> &'static str {
        if self.is_netcdf4 { "NetCDF-4" } else { "HDF5" }
    }

    /// Reads a box of a variable.
    pub(crate) fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let stored = &self.variables[variable.handle];
        let present = region.intersect(&Region::whole(&stored.extent));
        let failed = |reason: String| Error::Malformed {
            path: self.path.clone(),
            reason: format!("variable {:?}: {reason}", variable.name),
        };
        let elements = stored.read(&variable.data_type, &present).map_err(failed)?;
        if present == *region {
            return Ok(elements);
        }
        pad(variable, stored, &elements, &present, region)
    }
}

impl Stored {
    fn read(&self, data_type: &DataType, region: &Region) -> Result<Elements, String> {
        match &self.layout {
            Layout::Fixed(descriptor) => {
                let memory =
                    Datatype::from_descriptor(descriptor).map_err(|error| error.to_string())?;
                let length =
                    shape::size_bytes(region.shape(), data_type).map_err(|e| e.to_string())?;
                let mut bytes = vec![0; length];
                raw::read_dataset(&self.dataset, &memory, region, &mut bytes)?;
                Ok(Elements::Fixed(bytes))
            }
            Layout::FixedString => {
                let memory = self.dataset.dtype().map_err(|error| error.to_string())?;
                let length =
                    shape::size_bytes(region.shape(), data_type).map_err(|e| e.to_string())?;
                let mut bytes = vec![0; length];
                raw::read_dataset(&self.dataset, &memory, region, &mut bytes)?;
                Ok(Elements::Fixed(bytes))
            }
            Layout::VariableAscii => self.strings::<VarLenAscii>(region, |text| text.as_bytes()),
            Layout::VariableUtf8 => self.strings::<VarLenUnicode>(region, |text| text.as_bytes()),
        }
    }

    fn strings<T: hdf5_metno::H5Type>(
        &self,
        region: &Region,
        bytes: impl Fn(&T) -> &[u8],
    ) -> Result<Elements, String> {
        let failed = |error: hdf5_metno::Error| error.to_string();
        let values: Vec<T> = if region.shape().is_empty() {
            vec![self.dataset.read_scalar::<T>().map_err(failed)?]
        } else if region.is_empty() {
            Vec::new()
        } else {
            let slices: Vec<SliceOrIndex> = (0..region.shape().len())
                .map(|axis| region.range(axis))
                .map(|range| SliceOrIndex::from(range.start as usize..range.end as usize))
                .collect();
            let read = self
                .dataset
                .read_slice::<T, _, ndarray::IxDyn>(Hyperslab::from(slices));
            read.map_err(failed)?.into_iter().collect()
        };
        // Text that is not UTF-8 cannot be a Zarr string; what can be read of it is kept.
        let texts: Vec<String> = values
            .iter()
            .map(|value| String::from_utf8_lossy(bytes(value)).into_owned())
            .collect();
        let elements: VariableElements = texts.iter().map(String::as_bytes).collect();
        Ok(Elements::Variable(elements))
    }
}

/// The box `region`, of which `elements` are the part `present` and the rest is fill value.
fn pad(
    variable: &Variable,
    stored: &Stored,
    elements: &Elements,
    present: &Region,
    region: &Region,
) -> Result<Elements, Error> {
    let place = |at: &[u64]| -> Option<usize> {
        let inside = (0..at.len()).all(|axis| present.range(axis).contains(&at[axis]));
        let local: Vec<u64> = at
            .iter()
            .zip(present.start())
            .map(|(at, s)| at.saturating_sub(*s))
            .collect();
        inside.then(|| shape::linear_index(&local, present.shape()) as usize)
    };
    match elements {
        Elements::Fixed(bytes) => {
            let size = stored.fill.len();
            let mut out =
                Vec::with_capacity(shape::size_bytes(region.shape(), &variable.data_type)?);
            for at in region.positions() {
                match place(&at) {
                    Some(index) => out.extend_from_slice(&bytes[index * size..(index + 1) * size]),
                    None => out.extend_from_slice(&stored.fill),
                }
            }
            Ok(Elements::Fixed(out))
        }
        Elements::Variable(values) => {
            let padded: VariableElements = region
                .positions()
                .map(|at| {
                    place(&at)
                        .and_then(|index| values.get(index))
                        .unwrap_or_default()
                })
                .collect();
            Ok(Elements::Variable(padded))
        }
    }
}

struct Walk<'a> {
    path: &'a Path,
    groups: Vec<Group>,
    met: Vec<Met>,
}

impl Walk<'_> {
    fn group(&mut self, group: &hdf5_metno::Group, path: &[String]) -> Result<(), Error> {
        let malformed = |reason: String| Error::Malformed {
            path: self.path.to_owned(),
            reason,
        };
        if path.len() > MAX_DEPTH || self.groups.len() + self.met.len() > MAX_OBJECTS {
            return Err(malformed(
                "its groups are nested too deep or too many".into(),
            ));
        }
        let shown = format!("/{}", path.join("/"));
        let attributes = attributes::read_all(group, false).map_err(|(attribute, reason)| {
            Error::Unsupported {
                what: format!("attribute {attribute} of group {shown}"),
                reason,
            }
        })?;
        let number = self.groups.len();
        self.groups.push(Group {
            path: path.to_vec(),
            attributes,
            variables: Vec::new(),
        });
        let failed = |error: hdf5_metno::Error| Error::Malformed {
            path: self.path.to_owned(),
            reason: format!("group {shown}: {error}"),
        };
        let names = group.member_names().map_err(failed)?;
        let mut groups = Vec::new();
        for name in names {
            // Named types are neither groups nor datasets; links may dangle.
            if let Ok(child) = group.group(&name) {
                groups.push((name, child));
            } else if let Ok(dataset) = group.dataset(&name) {
                self.dataset(number, &shown, name, dataset);
            }
        }
        for (name, child) in groups {
            let mut path = path.to_vec();
            path.push(name);
            self.group(&child, &path)?;
        }
        Ok(())
    }

    fn dataset(&mut self, group: usize, shown: &str, name: String, dataset: Dataset) {
        let extent: Vec<u64> = dataset
            .shape()
            .iter()
            .map(|&length| length as u64)
            .collect();
        let unlimited = dataset
            .space()
            .map(|space| space.maxdims())
            .unwrap_or_default();
        self.met.push(Met {
            group,
            path: format!("{}/{name}", shown.trim_end_matches('/')),
            name,
            max_unlimited: unlimited.iter().map(Option::is_none).collect(),
            extent,
            is_scale: attributes::text(&dataset, "CLASS").as_deref() == Some("DIMENSION_SCALE"),
            dataset,
        });
    }
}

/// The dimensions of a file: its scales.
struct Dimensions {
    /// By path: name and length.
    scales: HashMap<String, (String, u64)>,
    /// Path of the scale with each `_Netcdf4Dimid`.
    by_id: HashMap<i64, String>,
    count: usize,
}

/// Names for the dimensions of datasets without scales.
struct Phony {
    next: usize,
    known: HashMap<(usize, u64, bool), Vec<String>>,
}

impl Dimensions {
    fn of(met: &[Met]) -> Self {
        let mut dimensions = Self {
            scales: HashMap::new(),
            by_id: HashMap::new(),
            count: 0,
        };
        for met in met.iter().filter(|met| met.is_scale) {
            let name = met
                .name
                .strip_prefix(NON_COORDINATE)
                .unwrap_or(&met.name)
                .to_owned();
            let length = met.extent.first().copied().unwrap_or(0);
            dimensions.scales.insert(met.path.clone(), (name, length));
            if let Some(id) = attributes::integer(&met.dataset, "_Netcdf4Dimid") {
                dimensions.by_id.insert(id, met.path.clone());
            }
        }
        dimensions.count = dimensions.scales.len();
        // An unlimited dimension is as long as the longest variable that uses it.
        for met in met {
            for (axis, path) in dimensions.scale_paths(met).into_iter().enumerate() {
                let Some(length) = met.extent.get(axis) else {
                    continue;
                };
                if let Some((_, longest)) = path.and_then(|path| dimensions.scales.get_mut(&path)) {
                    *longest = (*longest).max(*length);
                }
            }
        }
        dimensions
    }

    fn is_without_variable(&self, dataset: &Dataset) -> bool {
        attributes::text(dataset, "NAME").is_some_and(|name| name.starts_with(NO_VARIABLE))
    }

    /// The scale of each axis; `None` where there is none.
    fn scale_paths(&self, met: &Met) -> Vec<Option<String>> {
        let rank = met.extent.len();
        if let Some(ids) = attributes::integers(&met.dataset, "_Netcdf4Coordinates")
            && ids.len() == rank
            && ids.iter().all(|id| self.by_id.contains_key(id))
        {
            return ids.iter().map(|id| self.by_id.get(id).cloned()).collect();
        }
        if met.is_scale {
            // A scale is its own first dimension.
            let own = std::iter::once(Some(met.path.clone()));
            return own.chain(std::iter::repeat(None)).take(rank).collect();
        }
        let listed = met.dataset.attr("DIMENSION_LIST").ok();
        let listed = listed
            .and_then(|a| a.read_raw::<VarLenArray<ObjectReference1>>().ok())
            .unwrap_or_default();
        let mut paths: Vec<Option<String>> = listed
            .iter()
            .map(
                |scales| match met.dataset.dereference(scales.first()?).ok()? {
                    ReferencedObject::Dataset(scale) => Some(scale.name()),
                    _ => None,
                },
            )
            .collect();
        paths.resize(rank, None);
        paths
    }

    /// Names and lengths of a dataset's dimensions.
    fn of_dataset(&self, met: &Met, phony: &mut Phony) -> (Vec<String>, Vec<u64>) {
        let mut names: Vec<String> = Vec::new();
        let mut lengths = Vec::new();
        for (axis, path) in self.scale_paths(met).into_iter().enumerate() {
            let extent = met.extent[axis];
            match path.and_then(|path| self.scales.get(&path)) {
                Some((name, length)) => {
                    names.push(name.clone());
                    lengths.push(extent.max(*length));
                }
                None => {
                    let unlimited = met.max_unlimited.get(axis).copied().unwrap_or(false);
                    names.push(phony.name(met.group, extent, unlimited, &names));
                    lengths.push(extent);
                }
            }
        }
        (names, lengths)
    }
}

impl Phony {
    /// The name of an axis of this length; one variable has each name once.
    fn name(&mut self, group: usize, length: u64, unlimited: bool, taken: &[String]) -> String {
        let names = self.known.entry((group, length, unlimited)).or_default();
        if let Some(name) = names.iter().find(|name| !taken.contains(name)) {
            return name.clone();
        }
        let name = format!("phony_dim_{}", self.next);
        self.next += 1;
        names.push(name.clone());
        name
    }
}

/// The data type of a dataset and how it is read.
fn element_type(dataset: &Dataset) -> Result<(DataType, Layout), String> {
    let unsupported = "its type has no Zarr data type; leave it out with --skip";
    let descriptor = dataset
        .dtype()
        .and_then(|dtype| dtype.to_descriptor())
        .map_err(|_| unsupported.to_owned())?;
    let layout = Layout::Fixed(memory_type(&descriptor));
    Ok(match &descriptor {
        TypeDescriptor::Integer(size) => (signed(*size), layout),
        TypeDescriptor::Unsigned(size) => (unsigned(*size), layout),
        TypeDescriptor::Float(FloatSize::U2) => (DataType::Float16, layout),
        TypeDescriptor::Float(FloatSize::U4) => (DataType::Float32, layout),
        TypeDescriptor::Float(FloatSize::U8) => (DataType::Float64, layout),
        TypeDescriptor::Boolean => (DataType::Bool, layout),
        TypeDescriptor::Enum(inner) if inner.signed => (signed(inner.size), layout),
        TypeDescriptor::Enum(inner) => (unsigned(inner.size), layout),
        TypeDescriptor::FixedAscii(length) | TypeDescriptor::FixedUnicode(length) => {
            let bytes = u32::try_from(*length).ok().filter(|&length| length > 0);
            let length_bytes = bytes.ok_or("its strings have no or too great a length")?;
            (
                DataType::NullTerminatedBytes { length_bytes },
                Layout::FixedString,
            )
        }
        TypeDescriptor::VarLenAscii => (DataType::String, Layout::VariableAscii),
        TypeDescriptor::VarLenUnicode => (DataType::String, Layout::VariableUtf8),
        TypeDescriptor::Compound(compound) => (complex(compound).ok_or(unsupported)?, layout),
        _ => return Err(unsupported.to_owned()),
    })
}

/// An enum is read as its numbers; everything else as itself.
fn memory_type(descriptor: &TypeDescriptor) -> TypeDescriptor {
    match descriptor {
        TypeDescriptor::Enum(inner) => inner.base_type(),
        other => other.clone(),
    }
}

/// Real and imaginary part, as h5py and netCDF write complex numbers.
fn complex(compound: &CompoundType) -> Option<DataType> {
    let [real, imaginary] = compound.fields.as_slice() else {
        return None;
    };
    let named = (real.name.as_str(), imaginary.name.as_str());
    if !matches!(named, ("r", "i") | ("real", "imag")) || real.ty != imaginary.ty {
        return None;
    }
    match real.ty {
        TypeDescriptor::Float(FloatSize::U4) if compound.size == 8 => Some(DataType::Complex64),
        TypeDescriptor::Float(FloatSize::U8) if compound.size == 16 => Some(DataType::Complex128),
        _ => None,
    }
}

fn signed(size: IntSize) -> DataType {
    match size {
        IntSize::U1 => DataType::Int8,
        IntSize::U2 => DataType::Int16,
        IntSize::U4 => DataType::Int32,
        IntSize::U8 => DataType::Int64,
    }
}

fn unsigned(size: IntSize) -> DataType {
    match size {
        IntSize::U1 => DataType::UInt8,
        IntSize::U2 => DataType::UInt16,
        IntSize::U4 => DataType::UInt32,
        IntSize::U8 => DataType::UInt64,
    }
}

/// What netCDF gives for cells past a dataset's extent: `_FillValue`, else the default of the type.
///
/// Source: netcdf.h, `NC_FILL_…`.
fn past_the_end(data_type: &DataType, attributes: &Attributes) -> Vec<u8> {
    let own = attributes
        .iter()
        .find(|(name, _)| name == "_FillValue")
        .map(|(_, value)| value);
    let (integer, float) = match own {
        Some(Attribute::Integers(values)) => (values.first().copied(), None),
        Some(Attribute::Floats(values)) => (None, values.first().copied()),
        _ => (None, None),
    };
    let float = float.unwrap_or(9.969_209_968_386_869e36);
    let or = |default: i128| integer.unwrap_or(default);
    match data_type {
        DataType::Int8 => (or(-127) as i8).to_le_bytes().to_vec(),
        DataType::Int16 => (or(-32767) as i16).to_le_bytes().to_vec(),
        DataType::Int32 => (or(-2_147_483_647) as i32).to_le_bytes().to_vec(),
        DataType::Int64 => (or(-9_223_372_036_854_775_806) as i64)
            .to_le_bytes()
            .to_vec(),
        DataType::UInt8 => (or(255) as u8).to_le_bytes().to_vec(),
        DataType::UInt16 => (or(65535) as u16).to_le_bytes().to_vec(),
        DataType::UInt32 => (or(4_294_967_295) as u32).to_le_bytes().to_vec(),
        DataType::UInt64 => (or(18_446_744_073_709_551_614) as u64)
            .to_le_bytes()
            .to_vec(),
        DataType::Float32 => (float as f32).to_le_bytes().to_vec(),
        DataType::Float64 => float.to_le_bytes().to_vec(),
        other => vec![0; other.size_bytes().unwrap_or(0)],
    }
}
