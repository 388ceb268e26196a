//! What of a commit is exported: groups and arrays, and the cells of each that are wanted.
//!
//! ```text
//! node ─► everything below it ─► the variables named, with their coordinates ─► a selection of each
//! ```
//!
//! A selection along a dimension holds for every array that has a dimension of that name. An array
//! that goes alone into a format with coordinates brings along those that describe its dimensions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use array::{
    AxisSelection, Bounds, DataType, GroupMetadata, NodePath, OutputAxis, Region,
    ResolvedSelection, Selection, Tensor, shape,
};
use compute::cf::{CfDecoder, Decode};
use compute::labels::{Coordinate, Labels};
use query::{ArrayReader, Engine, Reservation};
use serde_json::{Map, Value, json};
use storage::{ArrayNode, GroupNode, Node, Snapshot};

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

/// Nodes to export, before anything is selected of them.
struct Chosen {
    /// The node that was named.
    top: NodePath,
    /// Paths below it and nodes, parents first.
    nodes: Vec<(String, Node)>,
    /// What a slice of one array means for its coordinates.
    by_dimension: BTreeMap<String, AxisSelection>,
}

impl Chosen {
    async fn of_group(
        snapshot: &Snapshot,
        group: GroupNode,
        options: &ExportOptions,
    ) -> Result<Self, Error> {
        if options.slice.is_some() {
            return Err(Error::Option {
                option: "slice",
                reason: format!(
                    "{} is a group, and a slice in brackets goes with an array: select along dimensions with --sel or --isel",
                    group.path()
                ),
            });
        }
        let top = group.path().clone();
        let below = |path: &NodePath| {
            let below = path.as_str().strip_prefix(top.as_str());
            below.unwrap_or_default().trim_start_matches('/').to_owned()
        };
        let nodes = snapshot.walk(Node::Group(group)).await?;
        let mut nodes: Vec<(String, Node)> = nodes
            .into_iter()
            .map(|node| (below(node.path()), node))
            .collect();
        if !options.variables.is_empty() {
            let kept = kept(&nodes, &options.variables)?;
            nodes.retain(|(below, _)| kept.contains(below));
        }
        Ok(Self {
            top,
            nodes,
            by_dimension: BTreeMap::new(),
        })
    }

    async fn of_array(
        snapshot: &Snapshot,
        array: ArrayNode,
        options: &ExportOptions,
    ) -> Result<Self, Error> {
        let top = array.path().clone();
        if !options.variables.is_empty() {
            return Err(Error::Option {
                option: "--vars",
                reason: format!("{top} is an array; variables are chosen of a group"),
            });
        }
        if !options.format.holds_coordinates() {
            let below = match options.format.is_directory() {
                true => String::new(),
                false => top.name().to_owned(),
            };
            return Ok(Self {
                top,
                nodes: vec![(below, Node::Array(array))],
                by_dimension: BTreeMap::new(),
            });
        }
        let mut by_dimension = BTreeMap::new();
        if let Some(slice) = &options.slice {
            let selection = slice.resolve(array.metadata().shape(), Bounds::Clamp)?;
            for (axis, name) in array
                .metadata()
                .dimension_names()
                .iter()
                .flat_map(|n| n.iter())
                .enumerate()
            {
                if let Some(name) = name {
                    by_dimension.insert(name.clone(), selection.axes()[axis].clone());
                }
            }
        }
        let coordinates = coordinates_of(snapshot, &array).await?;
        let group = top.parent().unwrap_or_else(NodePath::root);
        let mut nodes = Vec::new();
        // The file's own attributes are those of the group the array is in.
        if let Some(Node::Group(group)) = snapshot.find(&group).await? {
            nodes.push((String::new(), Node::Group(group)));
        }
        let name = top.name().to_owned();
        nodes.push((name.clone(), Node::Array(array)));
        for coordinate in coordinates {
            let own = coordinate.path().name().to_owned();
            if nodes.iter().all(|(known, _)| *known != own) {
                nodes.push((own, Node::Array(coordinate)));
            }
        }
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self {
            top,
            nodes,
            by_dimension,
        })
    }
}

/// The coordinates of an array: of its dimensions, beside it or above, and what its `coordinates`
/// name.
async fn coordinates_of(snapshot: &Snapshot, array: &ArrayNode) -> Result<Vec<ArrayNode>, Error> {
    let metadata = array.metadata();
    let mut found = Vec::new();
    for axis in 0..metadata.dimensions() {
        found.extend(coordinate_array(snapshot, array, axis).await?);
    }
    let named = metadata
        .attributes
        .get("coordinates")
        .and_then(Value::as_str);
    let beside = array.path().parent().unwrap_or_else(NodePath::root);
    for name in named.unwrap_or_default().split_whitespace() {
        let Ok(path) = beside.join(name) else {
            continue;
        };
        if let Some(Node::Array(other)) = snapshot.find(&path).await? {
            found.push(other);
        }
    }
    found.retain(|other| other.path() != array.path());
    Ok(found)
}

/// The array of one dimension that holds the labels of an axis: named like the dimension, in the
/// array's group or one above it.
async fn coordinate_array(
    snapshot: &Snapshot,
    array: &ArrayNode,
    axis: usize,
) -> Result<Option<ArrayNode>, Error> {
    let metadata = array.metadata();
    let names = metadata.dimension_names().unwrap_or_default();
    let Some(Some(name)) = names.get(axis) else {
        return Ok(None);
    };
    let mut folder = array.path().parent();
    while let Some(group) = folder {
        folder = group.parent();
        let Ok(path) = group.join(name) else {
            return Ok(None);
        };
        let Some(Node::Array(found)) = snapshot.find(&path).await? else {
            continue;
        };
        let dimensions = found.metadata().dimension_names().unwrap_or_default();
        if *found.metadata().shape() == [metadata.shape()[axis]]
            && *dimensions == [Some(name.clone())]
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Paths of the variables named, of their coordinates, and of the groups they are in.
fn kept(nodes: &[(String, Node)], variables: &[String]) -> Result<BTreeSet<String>, Error> {
    let arrays: BTreeMap<&str, &ArrayNode> = nodes
        .iter()
        .filter_map(|(below, node)| match node {
            Node::Array(array) => Some((below.as_str(), array)),
            Node::Group(_) => None,
        })
        .collect();
    let mut kept = BTreeSet::from([String::new()]);
    let mut open: Vec<String> = Vec::new();
    for name in variables {
        let name = name.trim_matches('/');
        if !arrays.contains_key(name) {
            let known: Vec<&str> = arrays.keys().copied().take(20).collect();
            return Err(Error::Option {
                option: "--vars",
                reason: format!("there is no array {name:?}; there are {}", known.join(", ")),
            });
        }
        open.push(name.to_owned());
    }
    while let Some(name) = open.pop() {
        let Some(array) = arrays.get(name.as_str()) else {
            continue;
        };
        if !kept.insert(name.clone()) {
            continue;
        }
        let folders: Vec<&str> = folders(&name).collect();
        kept.extend(folders.iter().map(|folder| (*folder).to_owned()));
        let dimensions = array.metadata().dimension_names().unwrap_or_default();
        let attributes = &array.metadata().attributes;
        let named = attributes.get("coordinates").and_then(Value::as_str);
        let named = named.unwrap_or_default().split_whitespace();
        for wanted in dimensions.iter().flatten().map(String::as_str).chain(named) {
            // In the array's group, else the nearest above that has it.
            let found = folders.iter().rev().map(|folder| match *folder {
                "" => wanted.to_owned(),
                folder => format!("{folder}/{wanted}"),
            });
            let mut found = found.filter(|path| arrays.contains_key(path.as_str()));
            open.extend(found.next());
        }
    }
    Ok(kept)
}

/// The groups a path is in, the top first.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.match_indices('/').map(|(at, _)| &path[..at]);
    std::iter::once("").chain(inner)
}

/// Applies what is selected along dimensions.
struct Selecting<'a> {
    engine: &'a Engine,
    snapshot: &'a Snapshot,
    options: &'a ExportOptions,
    by_dimension: BTreeMap<String, AxisSelection>,
    /// Dimensions that some array has.
    used: BTreeSet<String>,
    coordinates: BTreeMap<NodePath, Arc<Coordinate>>,
}

impl Selecting<'_> {
    async fn select(
        &mut self,
        array: &ArrayNode,
        mut selection: ResolvedSelection,
    ) -> Result<ResolvedSelection, Error> {
        let options = self.options;
        let names = array.metadata().dimension_names().unwrap_or_default();
        let shape = array.metadata().shape();
        let whole = ResolvedSelection::whole(shape);
        for (axis, name) in names.iter().enumerate() {
            let Some(name) = name else { continue };
            let is_untouched = selection.axes()[axis] == whole.axes()[axis];
            if let Some(taken) = self.by_dimension.get(name)
                && is_untouched
                && taken.hull().end <= shape[axis]
            {
                selection = selection.with_axis(axis, taken.clone());
                continue;
            }
            let position = options.positions.iter().find(|(known, _)| known == name);
            let labels = options.labels.iter().find(|(known, _)| known == name);
            let (option, chosen) = match (position, labels) {
                (None, None) => continue,
                (Some(_), Some(_)) => {
                    return Err(Error::Option {
                        option: "--isel",
                        reason: format!("{name} is selected by --sel as well: use one of them"),
                    });
                }
                (Some((_, along)), None) => {
                    let resolved = along.resolve(&shape[axis..=axis], Bounds::Clamp)?;
                    ("--isel", resolved.axes()[0].clone())
                }
                (None, Some((_, labels))) => {
                    let coordinate = self.coordinate(array, axis, name).await?;
                    ("--sel", coordinate.select(labels)?)
                }
            };
            if !is_untouched {
                return Err(Error::Option {
                    option,
                    reason: format!("{name} is selected by the slice as well: use one of them"),
                });
            }
            self.used.insert(name.clone());
            selection = selection.with_axis(axis, chosen);
        }
        Ok(selection)
    }

    async fn coordinate(
        &mut self,
        array: &ArrayNode,
        axis: usize,
        name: &str,
    ) -> Result<Arc<Coordinate>, Error> {
        let found = coordinate_array(self.snapshot, array, axis).await?;
        let found = found.ok_or_else(|| Error::Option {
            option: "--sel",
            reason: format!(
                "there is no coordinate variable {name:?} beside or above {}: select positions with --isel",
                array.path()
            ),
        })?;
        let path = found.path().clone();
        if let Some(known) = self.coordinates.get(&path) {
            return Ok(known.clone());
        }
        let reader = self.engine.open(found)?;
        let whole = ResolvedSelection::whole(reader.metadata().shape());
        let tensor = self.engine.read(&reader, &whole, Decode::Cf).await?;
        let attributes = &reader.metadata().attributes;
        let coordinate = Arc::new(Coordinate::new(path.name(), tensor, attributes)?);
        self.coordinates.insert(path, coordinate.clone());
        Ok(coordinate)
    }

    /// A dimension that nothing has is a typing error.
    fn check_used(&self) -> Result<(), Error> {
        let positions = self
            .options
            .positions
            .iter()
            .map(|(name, _)| ("--isel", name));
        let labels = self.options.labels.iter().map(|(name, _)| ("--sel", name));
        match positions
            .chain(labels)
            .find(|(_, name)| !self.used.contains(*name))
        {
            Some((option, name)) => Err(Error::Option {
                option,
                reason: format!("no array here has a dimension {name:?}"),
            }),
            None => Ok(()),
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

/// Boxes that are runs of the C order of a shape.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    shape: Vec<u64>,
    /// The axis that is cut, and the length of its parts.
    axis: usize,
    step: u64,
    grid: Vec<u64>,
    at: u64,
    count: u64,
}

impl Runs {
    pub(crate) fn new(shape: &[u64], inner: &[u64], most: u64) -> Self {
        let mut below = 1u64;
        let mut axis = shape.len();
        let mut step = 1;
        // The last axis from which on everything is more than `most`.
        while axis > 0 {
            axis -= 1;
            step = shape[axis].max(1);
            let whole = below.saturating_mul(step);
            if whole > most {
                step = (most / below).max(1);
                if step > inner[axis] {
                    step -= step % inner[axis];
                }
                break;
            }
            below = whole;
        }
        let mut grid: Vec<u64> = shape.iter().take(axis).copied().collect();
        if let Some(length) = shape.get(axis) {
            grid.push(length.div_ceil(step));
        }
        let count = match shape.contains(&0) {
            true => 0,
            false => grid
                .iter()
                .fold(1u64, |count, length| count.saturating_mul(*length)),
        };
        Self {
            shape: shape.to_vec(),
            axis,
            step,
            grid,
            at: 0,
            count,
        }
    }
}

impl Iterator for Runs {
    type Item = Region;

    fn next(&mut self) -> Option<Region> {
        if self.at >= self.count {
            return None;
        }
        let at = shape::coordinate(self.at, &self.grid);
        self.at += 1;
        let mut start = vec![0; self.shape.len()];
        let mut length = self.shape.clone();
        for (axis, &nth) in at.iter().enumerate() {
            let step = if axis == self.axis { self.step } else { 1 };
            start[axis] = nth * step;
            length[axis] = step.min(self.shape[axis] - start[axis]);
        }
        Region::new(start, length).ok()
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
    fn runs_cover_a_shape_once_in_c_order() {
        for (shape, inner) in [
            (vec![], vec![]),
            (vec![0, 3], vec![1, 1]),
            (vec![7], vec![3]),
            (vec![3, 4, 5], vec![2, 3, 2]),
            (vec![1, 1, 9], vec![1, 1, 4]),
        ] {
            for most in [1, 2, 6, 7, 20, 1000] {
                let strides = shape::strides(&shape);
                let place =
                    |at: Vec<u64>| -> u64 { at.iter().zip(&strides).map(|(a, s)| a * s).sum() };
                let cells: Vec<u64> = Runs::new(&shape, &inner, most)
                    .inspect(|run| {
                        let cells: u64 = run.shape().iter().product();
                        assert!(
                            cells <= most.max(1),
                            "{run:?} of {shape:?} has more than {most}"
                        );
                    })
                    .flat_map(|run| run.positions())
                    .map(place)
                    .collect();
                let count: u64 = shape.iter().product();
                assert_eq!(cells, (0..count).collect::<Vec<_>>(), "{shape:?} {most}");
            }
        }
    }

    #[test]
    fn a_position_is_of_one_dimension() {
        assert!(parse_position("3").is_ok() && parse_position("1:9:2").is_ok());
        for bad in ["", "1,2", "...", "newaxis", "x"] {
            assert!(parse_position(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_folders_of_a_path_are_those_above_it() {
        assert_eq!(folders("a/b/c").collect::<Vec<_>>(), ["", "a", "a/b"]);
        assert_eq!(folders("a").collect::<Vec<_>>(), [""]);
    }
}
