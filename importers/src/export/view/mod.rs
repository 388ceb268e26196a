//! What of a commit is exported: groups and arrays, and the cells of each that are wanted.
//!
//! ```text
//! node ─► everything below it ─► the variables named, with their coordinates ─► a selection of each
//! ```
//!
//! A selection along a dimension holds for every array that has a dimension of that name. An array
//! that goes alone into a format with coordinates brings along those that describe its dimensions.

mod choose;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use array::{
    AxisSelection, Bounds, DataType, GroupMetadata, OutputAxis, Region, ResolvedSelection,
    Selection, Tensor, shape,
};
use compute::cf::{CfDecoder, Decode};
use compute::labels::Labels;
use query::{ArrayReader, Engine, Reservation};
use serde_json::{Map, Value, json};
use storage::{ArrayNode, Node, Snapshot};

use self::choose::{Chosen, Selecting};
pub(crate) use self::runs::Runs;
use super::ExportOptions;
use crate::Error;

/// Attributes that masking uses up.
const MASKS: [&str; 6] = [
    "_FillValue",
    "missing_value",
    "valid_min",
    "valid_max",
    "valid_range",
    "_Unsigned",
];
/// Attributes that scaling uses up.
const SCALES: [&str; 2] = ["scale_factor", "add_offset"];
/// Bytes that an element of variable length is taken for where only shapes are known.
const VARIABLE_ELEMENT_BYTES: u64 = 32;

/// Groups and arrays to export, parents first.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) nodes: Vec<Viewed>,
}

/// A group or array to export.
#[derive(Debug)]
pub(crate) enum Viewed {
    Group(ViewedGroup),
    Array(Box<ViewedArray>),
}

/// A group to export.
#[derive(Debug)]
pub(crate) struct ViewedGroup {
    /// Its path below what is exported; `""` for the top.
    pub(crate) below: String,
    pub(crate) metadata: GroupMetadata,
}

/// An array to export.
#[derive(Clone, Debug)]
pub(crate) struct ViewedArray {
    /// Its path below what is exported; `""` if it is the top itself.
    pub(crate) below: String,
    pub(crate) reader: ArrayReader,
    pub(crate) selection: ResolvedSelection,
    pub(crate) decode: Decode,
    /// Type of the exported elements.
    pub(crate) data_type: DataType,
    /// Attributes that hold for the exported elements.
    pub(crate) attributes: Map<String, Value>,
    /// Whether elements are decoded, so that missing ones are NaN.
    is_decoded: bool,
}

impl Viewed {
    pub(crate) fn below(&self) -> &str {
        match self {
            Self::Group(group) => &group.below,
            Self::Array(array) => &array.below,
        }
    }
}

impl View {
    /// What `options` want of `node`.
    ///
    /// # Errors
    /// [`Error::Option`] for a variable, dimension or label that is not there; [`Error::Array`] for a
    /// selection outside the array.
    pub(crate) async fn new(
        engine: &Engine,
        snapshot: &Snapshot,
        node: Node,
        options: &ExportOptions,
    ) -> Result<Self, Error> {
        let mut chosen = match node {
            Node::Group(group) => Chosen::of_group(snapshot, group, options).await?,
            Node::Array(array) => Chosen::of_array(snapshot, array, options).await?,
        };
        let mut selecting = Selecting {
            engine,
            snapshot,
            options,
            by_dimension: std::mem::take(&mut chosen.by_dimension),
            used: BTreeSet::new(),
            coordinates: BTreeMap::new(),
        };
        let mut nodes = Vec::new();
        for (below, node) in chosen.nodes {
            nodes.push(match node {
                Node::Group(group) => Viewed::Group(ViewedGroup {
                    below,
                    metadata: group.metadata().clone(),
                }),
                Node::Array(array) => {
                    let base = match &options.slice {
                        // The slice is that of the one array that was named.
                        Some(slice) if *array.path() == chosen.top => {
                            slice.resolve(array.metadata().shape(), Bounds::Clamp)?
                        }
                        _ => ResolvedSelection::whole(array.metadata().shape()),
                    };
                    let selection = selecting.select(&array, base).await?;
                    let viewed = ViewedArray::new(engine, array, below, selection, options.decode)?;
                    Viewed::Array(Box::new(viewed))
                }
            });
        }
        selecting.check_used()?;
        let mut view = Self { nodes };
        view.name_dropped_coordinates();
        Ok(view)
    }

    pub(crate) fn arrays(&self) -> impl Iterator<Item = &ViewedArray> {
        self.nodes.iter().filter_map(|node| match node {
            Viewed::Array(array) => Some(&**array),
            Viewed::Group(_) => None,
        })
    }

    /// The only array.
    ///
    /// # Errors
    /// [`Error::Option`] if there are several, or none.
    pub(crate) fn single(&self, format: &str) -> Result<&ViewedArray, Error> {
        let mut arrays = self.arrays();
        match (arrays.next(), arrays.next()) {
            (Some(array), None) => Ok(array),
            (first, _) => Err(Error::Option {
                option: "--format",
                reason: format!(
                    "{format} holds one array and {}: name one",
                    match first {
                        None => "there is none here",
                        Some(_) => "there are several here",
                    }
                ),
            }),
        }
    }

    /// Makes coordinates whose dimension was dropped known to the arrays that had it, as CF has
    /// scalar coordinates.
    fn name_dropped_coordinates(&mut self) {
        let folder = |below: &str| {
            below
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned()
        };
        let names: BTreeSet<(String, String)> = self
            .arrays()
            .map(|array| (folder(&array.below), array.name().to_owned()))
            .collect();
        for node in &mut self.nodes {
            let Viewed::Array(array) = node else { continue };
            let own = array.name().to_owned();
            let folder = folder(&array.below);
            let dropped: Vec<String> = array
                .dropped_dimensions()
                .filter(|name| {
                    *name != own && names.contains(&(folder.clone(), (*name).to_owned()))
                })
                .map(str::to_owned)
                .collect();
            if dropped.is_empty() {
                continue;
            }
            let known = array.attributes.get("coordinates").and_then(Value::as_str);
            let mut all: Vec<String> = known
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            for name in dropped {
                if !all.contains(&name) {
                    all.push(name);
                }
            }
            array
                .attributes
                .insert("coordinates".into(), json!(all.join(" ")));
        }
    }
}

impl ViewedArray {
    fn new(
        engine: &Engine,
        array: ArrayNode,
        below: String,
        selection: ResolvedSelection,
        decode: Decode,
    ) -> Result<Self, Error> {
        let reader = engine.open(array)?;
        let metadata = reader.metadata();
        let stored = &metadata.data_type;
        let decoder = CfDecoder::new(stored, &metadata.attributes, decode)?;
        let data_type = decoder
            .as_ref()
            .map_or(stored, CfDecoder::data_type)
            .clone();
        let is_masked = decode != Decode::Raw;
        let is_scaled = decode == Decode::Cf;
        let mut attributes = metadata.attributes.clone();
        attributes.retain(|name, _| {
            let used_up = is_masked && MASKS.contains(&name.as_str())
                || is_scaled && SCALES.contains(&name.as_str());
            !used_up
        });
        Ok(Self {
            below,
            is_decoded: decoder.is_some(),
            data_type,
            attributes,
            selection,
            decode,
            reader,
        })
    }

    /// Its own name.
    pub(crate) fn name(&self) -> &str {
        self.reader.node().path().name()
    }

    /// What messages call it.
    pub(crate) fn path(&self) -> String {
        self.reader.node().path().to_string()
    }

    /// Length of each exported dimension.
    pub(crate) fn shape(&self) -> Vec<u64> {
        self.selection.output_shape()
    }

    /// Whether its stored chunks are what is exported.
    pub(crate) fn is_verbatim(&self) -> bool {
        let whole = ResolvedSelection::whole(self.reader.metadata().shape());
        !self.is_decoded && self.selection == whole
    }

    /// Names of the exported dimensions.
    pub(crate) fn dimensions(&self) -> Vec<Option<String>> {
        let names = self.reader.metadata().dimension_names();
        let name = |axis: &OutputAxis| match axis {
            OutputAxis::Array(axis) => names.and_then(|names| names[*axis].clone()),
            OutputAxis::New => None,
        };
        self.selection.output().iter().map(name).collect()
    }

    /// Names of dimensions of which one position was taken.
    fn dropped_dimensions(&self) -> impl Iterator<Item = &str> {
        let names = self.reader.metadata().dimension_names().unwrap_or_default();
        let axes = self.selection.axes().iter();
        names
            .iter()
            .zip(axes)
            .filter(|(_, axis)| matches!(axis, AxisSelection::Index(_)))
            .filter_map(|(name, _)| name.as_deref())
    }

    /// Bytes of a cell in memory, guessed where they vary.
    pub(crate) fn cell_bytes(&self) -> u64 {
        let size = self.data_type.size_bytes();
        size.map_or(VARIABLE_ELEMENT_BYTES, |size| size as u64)
    }

    /// Bytes of all exported cells.
    pub(crate) fn bytes(&self) -> u64 {
        let multiply = |bytes: u64, length: &u64| bytes.saturating_mul(*length);
        self.shape().iter().fold(self.cell_bytes(), multiply)
    }

    /// An element where nothing was written.
    pub(crate) fn fill(&self) -> Vec<u8> {
        let nan = |bytes: &[u8]| bytes.to_vec();
        match (self.is_decoded, &self.data_type) {
            (true, DataType::Float32) => nan(&f32::NAN.to_le_bytes()),
            (true, DataType::Float64) => nan(&f64::NAN.to_le_bytes()),
            (true, DataType::Float16) => nan(&half::f16::NAN.to_le_bytes()),
            (true, DataType::BFloat16) => nan(&half::bf16::NAN.to_le_bytes()),
            _ => {
                let stored = self.reader.metadata();
                match stored.data_type == self.data_type {
                    true => stored.fill_value.as_bytes().to_vec(),
                    false => array::FillValue::default_for(&self.data_type)
                        .as_bytes()
                        .to_vec(),
                }
            }
        }
    }

    /// Lengths along the exported dimensions that lie in one inner chunk, at least 1.
    pub(crate) fn inner_shape(&self) -> Vec<u64> {
        self.lengths_in(self.reader.codec().inner_shape())
    }

    /// Lengths along the exported dimensions that lie in one stored chunk, at least 1.
    pub(crate) fn chunk_shape(&self) -> Vec<u64> {
        self.lengths_in(self.reader.codec().chunk_shape())
    }

    fn lengths_in(&self, chunk: &[u64]) -> Vec<u64> {
        let length = |axis: &OutputAxis| match axis {
            OutputAxis::New => 1,
            OutputAxis::Array(axis) => match &self.selection.axes()[*axis] {
                AxisSelection::Range { step, .. } => {
                    chunk[*axis].div_ceil(step.unsigned_abs().max(1)).max(1)
                }
                _ => chunk[*axis].max(1),
            },
        };
        self.selection.output().iter().map(length).collect()
    }

    /// The part of the selection that gives `region` of the export.
    fn part(&self, region: &Region) -> ResolvedSelection {
        let mut places: Vec<Range<u64>> = vec![0..1; self.selection.axes().len()];
        for (place, axis) in self.selection.output().iter().enumerate() {
            if let OutputAxis::Array(axis) = axis {
                places[*axis] = region.range(place);
            }
        }
        self.selection.part(&places)
    }

    /// Reads a box of the export, verified.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) async fn read(&self, engine: &Engine, region: &Region) -> Result<Tensor, Error> {
        let part = self.part(region);
        Ok(engine.read(&self.reader, &part, self.decode).await?)
    }

    /// Reads a box of the export with memory for as many bytes more as there are, which is held
    /// until the reservation is dropped.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) async fn read_with_room(
        &self,
        engine: &Engine,
        region: &Region,
        room: u64,
    ) -> Result<(Tensor, Reservation), Error> {
        let part = self.part(region);
        let needed = engine.read_bytes(&self.reader, &part, self.decode)?;
        let (_, total) = engine.memory();
        let room = room.min(total.saturating_sub(needed));
        let reservation = engine.reserve(needed.saturating_add(room)).await?;
        let tensor = engine
            .read_within(&self.reader, &part, self.decode, &reservation)
            .await?;
        Ok((tensor, reservation))
    }

    /// Boxes of the export that are runs of its C order, each of about `most` cells at most, cut
    /// along the edges of inner chunks where they allow it.
    ///
    /// # Errors
    /// [`Error::Array`] if there are 2^64 cells or more.
    pub(crate) fn runs(&self, most: u64) -> Result<Runs, Error> {
        let shape = self.shape();
        shape::elements(&shape)?;
        Ok(Runs::new(&shape, &self.inner_shape(), most))
    }
}

/// A selection along one dimension: what `--isel DIM=…` takes.
///
/// # Errors
/// [`Error::Option`] for text that is no index, slice or list.
pub(crate) fn parse_position(text: &str) -> Result<Selection, Error> {
    let refused = |reason: String| Error::Option {
        option: "--isel",
        reason,
    };
    let selection: Selection = text
        .parse()
        .map_err(|error: array::Error| refused(error.to_string()))?;
    match selection.items() {
        [array::Selector::Ellipsis | array::Selector::NewAxis] | [] => Err(refused(format!(
            "{text:?} selects nothing along a dimension"
        ))),
        [_] => Ok(selection),
        _ => Err(refused(format!(
            "{text:?} is more than one dimension's selection"
        ))),
    }
}

/// Labels along one dimension: what `--sel DIM=…` takes.
///
/// # Errors
/// [`Error::Option`] for text that is no label, list or range.
pub(crate) fn parse_labels(text: &str) -> Result<Labels, Error> {
    text.parse().map_err(|error: compute::Error| Error::Option {
        option: "--sel",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_of_one_dimension() {
        assert!(parse_position("3").is_ok() && parse_position("1:9:2").is_ok());
        for bad in ["", "1,2", "...", "newaxis", "x"] {
            assert!(parse_position(bad).is_err(), "{bad}");
        }
    }
}
