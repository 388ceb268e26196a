//! Which nodes are exported, and what is selected of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use array::{AxisSelection, Bounds, NodePath, ResolvedSelection};
use compute::cf::Decode;
use compute::labels::Coordinate;
use query::Engine;
use serde_json::Value;
use storage::{ArrayNode, GroupNode, Node, Snapshot};

use crate::Error;
use crate::export::ExportOptions;

/// Nodes to export, before anything is selected of them.
pub(super) struct Chosen {
    /// The node that was named.
    pub(super) top: NodePath,
    /// Paths below it and nodes, parents first.
    pub(super) nodes: Vec<(String, Node)>,
    /// What a slice of one array means for its coordinates.
    pub(super) by_dimension: BTreeMap<String, AxisSelection>,
}

impl Chosen {
    pub(super) async fn of_group(
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

    pub(super) async fn of_array(
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
pub(super) struct Selecting<'a> {
    pub(super) engine: &'a Engine,
    pub(super) snapshot: &'a Snapshot,
    pub(super) options: &'a ExportOptions,
    pub(super) by_dimension: BTreeMap<String, AxisSelection>,
    /// Dimensions that some array has.
    pub(super) used: BTreeSet<String>,
    pub(super) coordinates: BTreeMap<NodePath, Arc<Coordinate>>,
}

impl Selecting<'_> {
    pub(super) async fn select(
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
    pub(super) fn check_used(&self) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_path_are_those_above_it() {
        assert_eq!(folders("a/b/c").collect::<Vec<_>>(), ["", "a", "a/b"]);
        assert_eq!(folders("a").collect::<Vec<_>>(), [""]);
    }
}
