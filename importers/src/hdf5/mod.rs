//! HDF5 and NetCDF-4, which is HDF5 with conventions, through the HDF5 library.
//!
//! ```text
//! walk ─► tree of groups and datasets ─┬─► dimensions (scales undone) ─┐
//!                                      ├─► types                       ├─► groups of variables
//!                                      └─► attributes (bookkeeping off)┘
//! ```
//!
//! Left out, and refused by name: what lies in other files, types without a Zarr data type, data
//! whose filter is not installed.
//!
//! Source: "NetCDF-4 Format Specification"; HDF5 "Dimension Scale Specification".

mod attributes;
mod chunks;
mod dimensions;
mod filters;
mod index;
mod past_end;
mod pieces;
mod raw;
mod types;
mod walk;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use array::{DataType, Elements, Region, VariableElements, shape};
use codecs::hdf5::Pipeline;
use hdf5_metno::dataset::Layout as DataLayout;
use hdf5_metno::filters::Filter;
use hdf5_metno::{Dataset, Datatype};

use self::chunks::Chunks;
use self::index::Index;
use self::types::Layout;
use self::walk::{FoundDataset, Tree};
use crate::Error;
use crate::boxes;
use crate::pieces::Pieces;
use crate::source::{Group, Reader, Refused, Storage, Variable};

/// The prefix of a variable that shares its name with a dimension it does not define.
const NON_COORDINATE: &str = "_nc4_non_coord_";
/// Most bytes of text of variable length that one read gives.
const MAX_TEXT_BYTES: usize = 256 << 20;
/// A variable may declare this many bytes whatever the length of its file …
const MAX_SPARSE_BYTES: u64 = 1 << 40;
/// … and beyond, this many times that length: over what deflate and szip reach.
const MAX_RATIO: u64 = 4096;

/// An open HDF5 file.
#[derive(Debug)]
pub(crate) struct Hdf5File {
    path: PathBuf,
    /// Length of the file, and of the part before what HDF5 counts from.
    file_bytes: u64,
    user_block: u64,
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
    /// How its chunks are decoded, unless by the library.
    chunks: Option<Chunks>,
    /// Whether its index of chunks makes sense, once somebody looked.
    index: OnceLock<Result<(), String>>,
    /// What cells past the extent hold.
    fill: Vec<u8>,
    storage: Storage,
}

impl Hdf5File {
    /// Opens a file and reads everything but the values.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the library cannot make sense of it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        hdf5_metno::silence_errors(true);
        filters::register();
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let file = hdf5_metno::File::open(path).map_err(|error| {
            let reason = raw::one_line(&error.to_string());
            malformed(format!("the HDF5 library cannot open it: {reason}"))
        })?;
        let tree = walk::walk(&file).map_err(malformed)?;
        let is_netcdf4 = file.attr("_NCProperties").is_ok()
            || tree
                .datasets
                .iter()
                .any(|found| found.dataset.attr("_Netcdf4Dimid").is_ok());
        let mut opened = Self {
            path: path.to_owned(),
            file_bytes: std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
            user_block: file.userblock(),
            is_netcdf4,
            variables: Vec::new(),
        };
        let groups = opened.read_tree(&tree, file.size());
        Ok((opened, groups))
    }

    fn read_tree(&mut self, tree: &Tree, file_bytes: u64) -> Vec<Group> {
        let mut groups: Vec<Group> = tree
            .groups
            .iter()
            .map(|found| {
                let attributes = attributes::read_all(&found.group, self.is_netcdf4);
                Group {
                    path: found.path.clone(),
                    refused: refused_attributes(&found.path.join("/"), attributes.refused),
                    attributes: attributes.attributes,
                    variables: Vec::new(),
                }
            })
            .collect();
        if let Some(root) = groups.first_mut() {
            let refused = tree.refused.iter().cloned();
            root.refused
                .extend(refused.map(|(name, reason)| Refused { name, reason }));
        }
        let dimensions = dimensions::of_tree(tree, variable_name);
        for (found, dimensions) in tree.datasets.iter().zip(dimensions) {
            if dimensions::is_without_variable(found) {
                continue;
            }
            let group = &mut groups[found.group];
            match self.variable(found, dimensions, file_bytes) {
                Ok((variable, refused)) => {
                    group.variables.push(variable);
                    group.refused.extend(refused);
                }
                Err(reason) => group.refused.push(Refused {
                    name: found.path.clone(),
                    reason,
                }),
            }
        }
        groups
    }

    fn variable(
        &mut self,
        found: &FoundDataset,
        dimensions: dimensions::Dimensions,
        file_bytes: u64,
    ) -> Result<(Variable, Vec<Refused>), String> {
        let (data_type, layout) = types::element_type(&found.dataset, self.is_netcdf4)?;
        check_storage(&found.dataset)?;
        chunks::check_size(&found.dataset)?;
        let element = data_type.size_bytes().unwrap_or(1) as u64;
        let declared = dimensions
            .lengths
            .iter()
            .fold(element, |bytes, &length| bytes.saturating_mul(length));
        if declared > MAX_SPARSE_BYTES.max(file_bytes.saturating_mul(MAX_RATIO)) {
            return Err(format!(
                "it declares {declared} bytes in a file of {file_bytes}, which no data can explain"
            ));
        }
        let read = attributes::read_all(&found.dataset, self.is_netcdf4 || found.is_scale);
        let chunk = found.dataset.chunk();
        let variable = Variable {
            name: variable_name(found),
            dimensions: dimensions.names,
            shape: dimensions.lengths,
            chunk_shape: chunk.map(|chunk| chunk.iter().map(|&length| length as u64).collect()),
            handle: self.variables.len(),
            attributes: read.attributes,
            data_type,
        };
        let chunks = match &layout {
            Layout::Fixed(memory) | Layout::Truth(memory) => Chunks::of(&found.dataset, memory),
            Layout::Strings(_) => None,
        };
        self.variables.push(Stored {
            chunks,
            dataset: found.dataset.clone(),
            extent: found.extent.clone(),
            index: OnceLock::new(),
            layout,
            storage: storage(found),
            fill: past_end::element(&variable.data_type, &variable.attributes),
        });
        Ok((variable, refused_attributes(&found.path, read.refused)))
    }
}

impl Hdf5File {
    /// Refuses a damaged index of chunks, in which the library may not find chunks that are there.
    fn check_index(&self, stored: &Stored) -> Result<(), String> {
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        let index = Index::open(&file, self.file_bytes, self.user_block);
        let Some(index) = index else { return Ok(()) };
        // Of strings of variable length, the library tells the bytes of a pointer.
        let element_bytes = match &stored.layout {
            Layout::Fixed(_) | Layout::Truth(_) => {
                let stored_type = stored.dataset.dtype();
                Some(stored_type.map_err(|error| error.to_string())?.size() as u64)
            }
            Layout::Strings(_) => None,
        };
        chunks::check_index(&stored.dataset, &stored.extent, element_bytes, &index)
    }
}

impl Reader for Hdf5File {
    fn format(&self) -> &'static str {
        if self.is_netcdf4 { "NetCDF-4" } else { "HDF5" }
    }

    fn pieces(&self, variable: &Variable) -> Result<Pieces, String> {
        let stored = &self.variables[variable.handle];
        let file = File::open(&self.path).map_err(|error| error.to_string())?;
        let original = pieces::Original {
            file: &file,
            length: self.file_bytes,
            user_block: self.user_block,
        };
        let pieces = pieces::of(stored, variable, &original)?;
        Ok(Pieces {
            user_block: self.user_block,
            ..pieces
        })
    }

    fn storage(&self, variable: &Variable) -> Storage {
        self.variables[variable.handle].storage.clone()
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let stored = &self.variables[variable.handle];
        let present = region.intersect(&Region::whole(&stored.extent));
        let checked = stored.index.get_or_init(|| self.check_index(stored));
        let elements = checked
            .clone()
            .and_then(|()| stored.read(&variable.data_type, &present));
        let elements = elements.map_err(|reason| Error::Malformed {
            path: self.path.clone(),
            reason: format!("variable {:?}: {reason}", variable.name),
        })?;
        if present == *region {
            return Ok(elements);
        }
        boxes::fit(
            &variable.data_type,
            &stored.fill,
            &elements,
            &present,
            region,
        )
    }
}

/// A dataset's name as a variable.
fn variable_name(found: &FoundDataset) -> String {
    let name = found.name.strip_prefix(NON_COORDINATE);
    name.filter(|name| !name.is_empty())
        .unwrap_or(&found.name)
        .to_owned()
}

fn refused_attributes(path: &str, refused: Vec<(String, String)>) -> Vec<Refused> {
    let name = |name| format!("{path}@{name}");
    refused
        .into_iter()
        .map(|(attribute, reason)| Refused {
            name: name(attribute),
            reason,
        })
        .collect()
}

fn storage(found: &FoundDataset) -> Storage {
    let level = |filter: &Filter| match filter {
        Filter::Deflate(level) => Some(*level),
        _ => None,
    };
    Storage {
        deflate_level: found.dataset.filters().iter().find_map(level),
        unlimited: found.unlimited.clone(),
    }
}

/// Refuses data in other files and data whose filter is not installed.
fn check_storage(dataset: &Dataset) -> Result<(), String> {
    let properties = dataset
        .dcpl()
        .map_err(|error| raw::one_line(&error.to_string()))?;
    if properties.layout() == DataLayout::Virtual || raw::has_external_files(&properties) {
        return Err("its values are in other files".into());
    }
    let is_known = |filters| Pipeline::new(filters, None).is_ok();
    if !properties.all_filters_avail() && !is_known(raw::all_filters(&properties)?) {
        let names: Vec<String> = dataset.filters().iter().map(|f| format!("{f:?}")).collect();
        return Err(format!(
            "it is stored with an HDF5 filter that is not installed (its filters: {})",
            names.join(", ")
        ));
    }
    Ok(())
}

impl Stored {
    /// Strings of variable length.
    fn texts(&self, memory: &Datatype, region: &Region) -> Result<VariableElements, String> {
        let read = raw::read_strings(&self.dataset, memory, region, MAX_TEXT_BYTES);
        let Err(error) = read else {
            return read;
        };
        // The library cannot fill what is not stored with a text of the file.
        let properties = self.dataset.dcpl().map_err(|_| error.clone())?;
        let fill = raw::fill_text(&properties, memory).map_err(|_| error.clone())?;
        let (Some(fill), Some(chunk_shape)) = (fill, self.dataset.chunk()) else {
            return Err(error);
        };
        let count = shape::elements(region.shape()).map_err(|error| error.to_string())?;
        if count.saturating_mul(fill.len() as u64) > MAX_TEXT_BYTES as u64 {
            return Err(error);
        }
        let chunk_shape: Vec<u64> = chunk_shape.iter().map(|&length| length as u64).collect();
        let mut texts = vec![fill; count as usize];
        for start in chunks::origins(&chunk_shape, region) {
            if raw::stored_length(&self.dataset, &start).is_none() {
                continue;
            }
            let chunk = Region::new(start, chunk_shape.clone()).map_err(|e| e.to_string())?;
            let part = chunk.intersect(region);
            let read = raw::read_strings(&self.dataset, memory, &part, MAX_TEXT_BYTES)?;
            for (at, text) in part.positions().zip(read.iter()) {
                let from = at.iter().zip(region.start());
                let inside: Vec<u64> = from.map(|(at, start)| at - start).collect();
                texts[shape::linear_index(&inside, region.shape()) as usize] = text.to_vec();
            }
        }
        Ok(texts.iter().map(Vec::as_slice).collect())
    }

    fn read(&self, data_type: &DataType, region: &Region) -> Result<Elements, String> {
        let memory = match &self.layout {
            Layout::Fixed(memory) | Layout::Truth(memory) => memory,
            Layout::Strings(memory) => {
                let texts = self.texts(memory, region)?;
                if texts.iter().any(|text| std::str::from_utf8(text).is_err()) {
                    return Err("it holds text that is not UTF-8".into());
                }
                return Ok(Elements::Variable(texts));
            }
        };
        let length = shape::size_bytes(region.shape(), data_type).map_err(|e| e.to_string())?;
        let mut bytes = vec![0; length];
        match &self.chunks {
            Some(chunks) => chunks.read(&self.dataset, memory, region, &mut bytes)?,
            None => raw::read_dataset(&self.dataset, memory, region, &mut bytes)?,
        }
        if let Layout::Truth(_) = self.layout {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = u8::from(*byte != 0));
        }
        Ok(Elements::Fixed(bytes))
    }
}
