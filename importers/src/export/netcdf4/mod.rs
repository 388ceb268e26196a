//! NetCDF-4 files, which are HDF5 with conventions.
//!
//! ```text
//! view ─► layout (pure) ─► everything but values, made ─► cells, chunk by chunk:
//!                                           read, verified ─► filtered (many at once) ─► written
//! ```
//!
//! Dimensions are HDF5's scales, made here because the library that makes them is another one.
//! Chunks are shuffled and deflated before they reach the HDF5 library, which works one call at a
//! time. Truth values are bytes with the attribute `dtype`, as xarray writes them; complex numbers
//! are compounds of `r` and `i`.
//!
//! Source: "NetCDF-4 Format Specification"; HDF5 "Dimension Scale Specification".

mod attributes;
mod layout;
mod raw;
mod values;

use std::collections::BTreeSet;
use std::path::Path;

use array::{DataType, Elements, Region, RegularGrid};
use futures::{StreamExt as _, TryStreamExt as _};
use hdf5_metno::file::LibraryVersion;
use hdf5_metno::plist::file_create::{AttrCreationOrder, LinkCreationOrder};
use hdf5_metno::types::{CompoundField, CompoundType, TypeDescriptor, VarLenArray};
use hdf5_metno::{Dataset, Datatype, File, Group, H5Type, ObjectReference1};
use query::Engine;

use self::attributes::Typed;
use self::layout::{Kind, Layout, Variable};
use self::raw::{Extent, Spec};
use super::ExportOptions;
use super::tally::Tally;
use super::view::{View, ViewedArray};
use super::zarr3::ENCODING_FACTOR;
use crate::blocking::blocking;
use crate::{Error, boxes};

/// Bytes of cells being filtered at once, about.
const FILTERED_AT_ONCE: u64 = 64 << 20;
/// Chunks filtered at once at most.
const CHUNKS_IN_FLIGHT: u64 = 16;
/// Cells that are written together where there are no chunks.
const CELLS_AT_ONCE: u64 = 1 << 18;
/// Name of a dimension without a variable: this, and its length.
const NO_VARIABLE: &str = "This is a netCDF dimension but not a netCDF variable.";

/// Writes everything in `view` to a file.
///
/// # Errors
/// [`Error::NoPlace`] for what the format cannot hold; [`Error::Write`] if the file cannot be
/// written; as [`Engine::read`].
pub(super) async fn write(
    engine: &Engine,
    view: &View,
    options: &ExportOptions,
    path: &Path,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    let has_nat = with_nat(engine, view).await?;
    let layout = Layout::new(view, &options.unlimited, &has_nat)?;
    let bytes = view.arrays().map(ViewedArray::bytes);
    tally.expect(
        layout.variables.len() as u64,
        bytes.fold(0, u64::saturating_add),
    );
    let level = options.deflate_level.min(9);
    let level = (level > 0).then_some(level);
    let failed = |reason: String| Error::Write {
        path: path.to_owned(),
        source: std::io::Error::other(reason),
    };
    // Making it touches no values, so it does not wait long.
    let made = Made::new(path, &layout, level).map_err(failed)?;
    for (variable, dataset) in layout.variables.iter().zip(&made.datasets) {
        tally.begin(&variable.array.path());
        let filter = Filter {
            is_shuffled: is_shuffled(variable, level),
            level,
        };
        let cells = Cells {
            engine,
            variable,
            dataset,
            tally,
            path,
        };
        match &variable.chunk {
            Some(chunk) if variable.fill.is_some() => cells.write_chunks(chunk, filter).await?,
            _ => cells.write_runs().await?,
        }
    }
    close(made, path).await
}

/// Everything is in the file once it is closed.
async fn close(made: Made, path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    blocking(move || {
        let Made { file, datasets } = made;
        drop(datasets);
        let closed = file.flush().and_then(|()| file.close());
        closed.map_err(|error| Error::Write {
            path,
            source: std::io::Error::other(raw::one_line(&error)),
        })
    })
    .await
}

/// Paths of the arrays of times that hold one that is none.
async fn with_nat(engine: &Engine, view: &View) -> Result<BTreeSet<String>, Error> {
    let mut found = BTreeSet::new();
    for array in view.arrays() {
        let is_time = matches!(
            array.data_type,
            DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. }
        );
        if !is_time {
            continue;
        }
        let nat = i64::MIN.to_le_bytes();
        for region in array.runs(CELLS_AT_ONCE * 4)? {
            let tensor = array.read(engine, &region).await?;
            if let Elements::Fixed(bytes) = &tensor.elements
                && bytes.chunks_exact(8).any(|ticks| ticks == nat)
            {
                found.insert(array.below.clone());
                break;
            }
        }
    }
    Ok(found)
}

fn is_shuffled(variable: &Variable<'_>, level: Option<u8>) -> bool {
    let is_number = !matches!(variable.kind, Kind::Characters(_) | Kind::Complex(_));
    level.is_some() && is_number && variable.kind.size_bytes() > 1
}

/// How chunks are filtered.
#[derive(Clone, Copy)]
struct Filter {
    is_shuffled: bool,
    level: Option<u8>,
}

/// A file with everything but values.
struct Made {
    file: File,
    /// Of each variable.
    datasets: Vec<Dataset>,
}

/// A place where a scale is used.
#[derive(Clone, Copy, H5Type)]
#[repr(C)]
struct Use {
    dataset: ObjectReference1,
    dimension: i32,
}

impl Made {
    fn new(path: &Path, layout: &Layout<'_>, level: Option<u8>) -> Result<Self, String> {
        hdf5_metno::silence_errors(true);
        let file = File::with_options()
            .with_fapl(|list| list.libver_bounds(LibraryVersion::V18, LibraryVersion::latest()))
            .with_fcpl(|list| {
                list.link_creation_order(LinkCreationOrder::Indexed)
                    .attr_creation_order(AttrCreationOrder::Indexed)
                    .obj_track_times(false)
            })
            .create(path)
            .map_err(|error| raw::one_line(&error))?;
        let groups = groups(&file, layout)?;
        let (datasets, scales) = datasets(&groups, layout, level)?;
        attach(&file, layout, &datasets, &scales)?;
        for (group, made) in layout.groups.iter().zip(&groups) {
            for attribute in &group.attributes {
                attributes::write(made, attribute)?;
            }
        }
        for (variable, dataset) in layout.variables.iter().zip(&datasets) {
            for attribute in &variable.attributes {
                attributes::write(dataset, attribute).map_err(|reason| {
                    format!("attribute {} of {}: {reason}", attribute.0, variable.name)
                })?;
            }
        }
        let (major, minor, patch) = hdf5_metno::library_version();
        let made_by = format!(
            "version=2,quarr={},hdf5={major}.{minor}.{patch}",
            env!("CARGO_PKG_VERSION")
        );
        attributes::write(
            &groups[0],
            &("_NCProperties".to_owned(), Typed::Text(made_by)),
        )?;
        Ok(Self { file, datasets })
    }
}

fn groups(file: &File, layout: &Layout<'_>) -> Result<Vec<Group>, String> {
    let failed = |error: hdf5_metno::Error| raw::one_line(&error);
    let root = file.group("/").map_err(failed)?;
    let mut groups = vec![root.clone()];
    for group in layout.groups.iter().skip(1) {
        let made = root
            .create_group_builder()
            .with_gcpl(|list| {
                list.link_creation_order(LinkCreationOrder::Indexed)
                    .attr_creation_order(AttrCreationOrder::Indexed)
                    .obj_track_times(false)
            })
            .create(group.path.as_str())
            .map_err(failed)?;
        groups.push(made);
    }
    Ok(groups)
}

/// The datasets of all variables, and of all dimensions.
fn datasets(
    groups: &[Group],
    layout: &Layout<'_>,
    level: Option<u8>,
) -> Result<(Vec<Dataset>, Vec<Dataset>), String> {
    let described = |descriptor: &TypeDescriptor| {
        Datatype::from_descriptor(descriptor).map_err(|error| raw::one_line(&error))
    };
    let mut datasets = Vec::new();
    let mut complex: Vec<(DataType, Datatype)> = Vec::new();
    for variable in &layout.variables {
        let data_type = match &variable.kind {
            Kind::Texts | Kind::FixedTexts => described(&TypeDescriptor::VarLenUnicode)?,
            Kind::Characters(_) => raw::fixed_text(1, false)?,
            Kind::Complex(part) => match complex.iter().find(|(known, _)| known == part) {
                Some((_, made)) => made.clone(),
                None => {
                    // A type of its own has a name, which the type made here has from now on.
                    let (name, compound) = compound(part);
                    let made = described(&compound)?;
                    let committed = groups[0].commit_datatype(name, &made);
                    committed.map_err(|error| raw::one_line(&error))?;
                    complex.push((part.clone(), made.clone()));
                    made
                }
            },
            _ => described(&memory_type(variable)?)?,
        };
        let dimensions = || variable.dimensions.iter().map(|&at| &layout.dimensions[at]);
        let shape: Vec<u64> = dimensions().map(|dimension| dimension.length).collect();
        let unlimited: Vec<bool> = dimensions()
            .map(|dimension| dimension.is_unlimited)
            .collect();
        let is_filtered = variable.fill.is_some();
        let spec = Spec {
            name: &variable.name,
            data_type: &data_type,
            shape: &shape,
            unlimited: &unlimited,
            chunk: variable.chunk.as_deref(),
            is_shuffled: is_filtered && is_shuffled(variable, level),
            deflate_level: level.filter(|_| is_filtered),
            fill: variable.fill.as_deref(),
        };
        let made = raw::create_dataset(&groups[variable.group], &spec);
        datasets.push(made.map_err(|reason| format!("variable {}: {reason}", variable.name))?);
    }
    let float = Datatype::from_type::<f32>().map_err(|error| raw::one_line(&error))?;
    let mut scales = Vec::new();
    for dimension in &layout.dimensions {
        if let Some(variable) = dimension.coordinate {
            scales.push(datasets[variable].clone());
            continue;
        }
        let chunk = [dimension.length.clamp(1, 1 << 16)];
        let spec = Spec {
            name: &dimension.name,
            data_type: &float,
            shape: &[dimension.length],
            unlimited: &[dimension.is_unlimited],
            chunk: dimension.is_unlimited.then_some(&chunk[..]),
            is_shuffled: false,
            deflate_level: None,
            fill: None,
        };
        let made = raw::create_dataset(&groups[dimension.group], &spec);
        scales.push(made.map_err(|reason| format!("dimension {}: {reason}", dimension.name))?);
    }
    Ok((datasets, scales))
}

/// Makes scales of the datasets of dimensions, and says where each is used.
fn attach(
    file: &File,
    layout: &Layout<'_>,
    datasets: &[Dataset],
    scales: &[Dataset],
) -> Result<(), String> {
    let failed = |error: hdf5_metno::Error| raw::one_line(&error);
    let reference = |dataset: &Dataset| -> Result<ObjectReference1, String> {
        file.reference(&dataset.name()).map_err(failed)
    };
    let text = |dataset: &Dataset, name: &str, value: &str| {
        // HDF5's own ends in NUL.
        let data_type = raw::fixed_text(value.len() + 1, false)?;
        let bytes = [value.as_bytes(), b"\0"].concat();
        raw::write_attribute(dataset, name, &data_type, Extent::Scalar, &bytes)
    };
    let int = Datatype::from_type::<i32>().map_err(failed)?;
    let mut uses: Vec<Vec<Use>> = vec![Vec::new(); scales.len()];
    for (at, variable) in layout.variables.iter().enumerate() {
        let dataset = &datasets[at];
        if layout.scale_of(at).is_some() {
            // A scale has no scales: more than one dimension is told by number.
            if variable.dimensions.len() > 1 {
                let numbers = variable
                    .dimensions
                    .iter()
                    .flat_map(|&at| (at as i32).to_le_bytes());
                let numbers: Vec<u8> = numbers.collect();
                let extent = Extent::Vector(variable.dimensions.len());
                raw::write_attribute(dataset, "_Netcdf4Coordinates", &int, extent, &numbers)?;
            }
            continue;
        }
        if variable.dimensions.is_empty() {
            continue;
        }
        let own = reference(dataset)?;
        let mut list = Vec::new();
        for (axis, &dimension) in variable.dimensions.iter().enumerate() {
            uses[dimension].push(Use {
                dataset: own,
                dimension: axis as i32,
            });
            list.push(VarLenArray::from_slice(&[reference(&scales[dimension])?]));
        }
        let made = dataset
            .new_attr::<VarLenArray<ObjectReference1>>()
            .shape(list.len())
            .create("DIMENSION_LIST")
            .map_err(failed)?;
        made.write_raw(&list).map_err(failed)?;
    }
    for (number, (dimension, scale)) in layout.dimensions.iter().zip(scales).enumerate() {
        text(scale, "CLASS", "DIMENSION_SCALE")?;
        let name = match dimension.coordinate {
            Some(_) => dimension.name.clone(),
            None => format!("{NO_VARIABLE}{:10}", dimension.length),
        };
        text(scale, "NAME", &name)?;
        let id = (number as i32).to_le_bytes();
        raw::write_attribute(scale, "_Netcdf4Dimid", &int, Extent::Scalar, &id)?;
        if !uses[number].is_empty() {
            let made = scale
                .new_attr::<Use>()
                .shape(uses[number].len())
                .create("REFERENCE_LIST")
                .map_err(failed)?;
            made.write_raw(&uses[number]).map_err(failed)?;
        }
    }
    Ok(())
}

/// The compound of a complex number, and the name it is known by.
fn compound(part: &DataType) -> (&'static str, TypeDescriptor) {
    let (name, size) = match part {
        DataType::Float32 => ("_PFNC_FLOAT_COMPLEX_TYPE", 4),
        _ => ("_PFNC_DOUBLE_COMPLEX_TYPE", 8),
    };
    let float = attributes::descriptor(part)
        .unwrap_or(TypeDescriptor::Float(hdf5_metno::types::FloatSize::U8));
    let field =
        |name: &str, index: usize| CompoundField::new(name, float.clone(), index * size, index);
    let fields = vec![field("r", 0), field("i", 1)];
    (
        name,
        TypeDescriptor::Compound(CompoundType {
            fields,
            size: 2 * size,
        }),
    )
}

/// What elements are written from.
fn memory_type(variable: &Variable<'_>) -> Result<TypeDescriptor, String> {
    let numbers = match &variable.kind {
        Kind::Numbers(data_type) => data_type,
        Kind::Widened => &DataType::Float32,
        Kind::Ticks(_) => &DataType::Int64,
        Kind::Complex(part) => return Ok(compound(part).1),
        Kind::Texts | Kind::FixedTexts => return Ok(TypeDescriptor::VarLenUnicode),
        Kind::Characters(_) => return Err("characters are no numbers".into()),
    };
    attributes::descriptor(numbers).ok_or_else(|| format!("{numbers} is no number"))
}

/// The cells of one variable.
struct Cells<'a> {
    engine: &'a Engine,
    variable: &'a Variable<'a>,
    dataset: &'a Dataset,
    tally: &'a Tally<'a>,
    path: &'a Path,
}

impl Cells<'_> {
    fn failed(&self, reason: &str) -> Error {
        Error::Write {
            path: self.path.to_owned(),
            source: std::io::Error::other(format!("variable {}: {reason}", self.variable.name)),
        }
    }

    /// Writes the chunks that anything is in, filtered.
    async fn write_chunks(&self, chunk: &[u64], filter: Filter) -> Result<(), Error> {
        let array = self.variable.array;
        let shape = array.shape();
        // The dimension of characters is not the array's.
        let rank = shape.len();
        let grid = RegularGrid::new(shape, chunk[..rank].to_vec())?;
        let multiply = |bytes: u64, length: &u64| bytes.saturating_mul(*length);
        let chunk_bytes = chunk.iter().fold(self.variable.kind.size_bytes(), multiply);
        let in_flight = (FILTERED_AT_ONCE / chunk_bytes.max(1)).clamp(1, CHUNKS_IN_FLIGHT);
        let grid = &grid;
        let mut chunks = futures::stream::iter(Region::whole(&grid.grid_shape()).positions())
            .map(|at| self.filtered(grid, array::ChunkIndex::new(at), chunk, chunk_bytes, filter))
            .buffered(in_flight as usize);
        while let Some((start, bytes)) = chunks.try_next().await? {
            let dataset = self.dataset.clone();
            let written = blocking(move || Ok(raw::write_chunk(&dataset, &start, &bytes))).await?;
            written.map_err(|reason| self.failed(&reason))?;
            self.tally.chunk(chunk_bytes);
        }
        Ok(())
    }

    async fn filtered(
        &self,
        grid: &RegularGrid,
        index: array::ChunkIndex,
        chunk: &[u64],
        chunk_bytes: u64,
        filter: Filter,
    ) -> Result<(Vec<u64>, Vec<u8>), Error> {
        let array = self.variable.array;
        let region = grid.chunk_region_in_array(&index);
        let whole = grid.chunk_region(&index);
        let room = chunk_bytes.saturating_mul(ENCODING_FACTOR);
        let (tensor, _room) = array.read_with_room(self.engine, &region, room).await?;
        let mut start = whole.start().to_vec();
        start.resize(chunk.len(), 0);
        let (kind, data_type) = (self.variable.kind.clone(), array.data_type.clone());
        let fill = array.fill();
        let size = self.variable.kind.size_bytes() as usize;
        let filtered = blocking(move || {
            let elements = match whole == region {
                true => tensor.elements,
                false => boxes::fit(&data_type, &fill, &tensor.elements, &region, &whole)?,
            };
            let Elements::Fixed(bytes) = elements else {
                return Ok(Err("its elements have no fixed size".to_owned()));
            };
            let stored = match kind {
                Kind::Widened => Ok(values::widened(&data_type, &bytes)),
                kind => values::convert(&kind, bytes),
            };
            Ok(stored
                .and_then(|bytes| values::filtered(bytes, size, filter.is_shuffled, filter.level)))
        });
        let bytes = filtered.await?.map_err(|reason| self.refused(reason))?;
        Ok((start, bytes))
    }

    fn refused(&self, reason: String) -> Error {
        Error::NoPlace {
            format: "NetCDF-4",
            array: self.variable.array.path(),
            reason,
        }
    }

    /// Writes runs of cells through the library's own filters.
    async fn write_runs(&self) -> Result<(), Error> {
        let array = self.variable.array;
        for region in array.runs(CELLS_AT_ONCE)? {
            let tensor = array.read(self.engine, &region).await?;
            let bytes = tensor.elements.size_bytes() as u64;
            let dataset = self.dataset.clone();
            let (kind, data_type) = (self.variable.kind.clone(), array.data_type.clone());
            let memory = match &self.variable.kind {
                Kind::Characters(_) => None,
                _ => Some(memory_type(self.variable).map_err(|reason| self.failed(&reason))?),
            };
            let size = data_type.size_bytes().unwrap_or(4);
            let mut start = region.start().to_vec();
            let mut shape = region.shape().to_vec();
            if let Kind::Characters(length) = kind
                && length > 1
            {
                start.push(0);
                shape.push(length);
            }
            let written = blocking(move || {
                Ok(write_run(
                    &dataset,
                    &kind,
                    &data_type,
                    size,
                    memory.as_ref(),
                    (&start, &shape),
                    tensor.elements,
                ))
            });
            written.await?.map_err(|reason| self.failed(&reason))?;
            self.tally.chunk(bytes);
        }
        Ok(())
    }
}

fn write_run(
    dataset: &Dataset,
    kind: &Kind,
    data_type: &DataType,
    size: usize,
    memory: Option<&TypeDescriptor>,
    (start, shape): (&[u64], &[u64]),
    elements: Elements,
) -> Result<(), String> {
    let memory = match memory {
        Some(descriptor) => {
            Datatype::from_descriptor(descriptor).map_err(|error| raw::one_line(&error))?
        }
        None => raw::fixed_text(1, false)?,
    };
    match (kind, elements) {
        (Kind::Texts, Elements::Variable(texts)) => {
            raw::write_texts(dataset, &memory, start, shape, &texts)
        }
        (Kind::FixedTexts, Elements::Fixed(bytes)) => {
            raw::write_texts(dataset, &memory, start, shape, &values::texts(&bytes, size))
        }
        (Kind::Widened, Elements::Fixed(bytes)) => {
            let bytes = values::widened(data_type, &bytes);
            raw::write_box(dataset, &memory, start, shape, &bytes)
        }
        (kind, Elements::Fixed(bytes)) => {
            let bytes = values::convert(kind, bytes)?;
            raw::write_box(dataset, &memory, start, shape, &bytes)
        }
        (_, Elements::Variable(_)) => Err("its elements have no fixed size".into()),
    }
}
