//! Imports into arrays that exist: what is new goes behind what is there.
//!
//! ```text
//! arrays of the branch ─► template that files must fit ─► arrays with the dimension: resized, filled
//!                                                      └► arrays without it: must be equal
//! ```
//!
//! All is decided by the commit that the transaction starts from, so that it is decided the same
//! when an interrupted import goes on. Two imports that append to the same arrays at the same time
//! both change their shape, which is a conflict: the second fails, and nothing is interleaved.

use std::collections::BTreeMap;

use array::{
    ArrayMetadata, AxisSelection, Elements, NodePath, Region, ResolvedSelection, Tensor, shape,
};
use compute::cf::Decode;
use compute::cf::time::TimeUnits;
use query::{Engine, Settings};
use storage::{ArrayNode, Node, Snapshot};

use crate::Error;
use crate::blocking::blocking;
use crate::fill_arrays::Appended;
use crate::joined::{Joined, Sequence, Template, blocks, first_difference, is_ordered, numbers};
use crate::source::{Source, Variable};

/// Memory for reading what is there, in bytes: beside what an import takes.
const ENGINE_BYTES: u64 = 128 << 20;
/// Chunks of it that are kept for those who read them again, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// Elements compared at once.
const COMPARED_ELEMENTS: u64 = 1 << 19;

/// The arrays that an import may append to.
#[derive(Debug)]
pub(crate) struct Existing {
    /// By path.
    arrays: BTreeMap<NodePath, ArrayNode>,
    pub(crate) template: Template,
    engine: Engine,
}

impl Existing {
    /// The arrays at and below `group`; `None` if there are none.
    pub(crate) async fn of(snapshot: &Snapshot, group: &NodePath) -> Result<Option<Self>, Error> {
        let Some(node @ Node::Group(_)) = snapshot.find(group).await? else {
            return Ok(None);
        };
        let mut existing = Self {
            arrays: BTreeMap::new(),
            template: Template {
                group: group.to_string(),
                ..Template::default()
            },
            engine: Engine::new(Settings {
                cache_bytes: CACHE_BYTES,
                work_bytes: ENGINE_BYTES,
                ..Settings::default()
            })?,
        };
        for node in snapshot.walk(node).await? {
            let path = node.path().as_str().strip_prefix(group.as_str());
            let path = path.unwrap_or_default().trim_start_matches('/').to_owned();
            match node {
                Node::Group(group) => {
                    let attributes = group.metadata().attributes.clone();
                    existing.template.groups.insert(path, attributes);
                }
                Node::Array(array) => {
                    let metadata = (**array.metadata()).clone();
                    existing.template.arrays.insert(path, metadata);
                    existing.arrays.insert(array.path().clone(), array);
                }
            }
        }
        Ok((!existing.arrays.is_empty()).then_some(existing))
    }

    /// What the array at `path` becomes and where `variable` goes in it; `None` if it has no such
    /// dimension.
    ///
    /// # Errors
    /// [`Error::Array`] if the array would be too long.
    pub(crate) fn extended(
        &self,
        path: &NodePath,
        dimension: &str,
        variable: &Variable,
    ) -> Result<Option<(ArrayMetadata, Appended)>, Error> {
        let Some(array) = self.arrays.get(path) else {
            return Ok(None);
        };
        let mut metadata = (**array.metadata()).clone();
        let Some(axis) = metadata.dimension_named(dimension) else {
            return Ok(None);
        };
        let mut shape = metadata.shape().to_vec();
        let start = shape[axis];
        shape[axis] = variable
            .shape
            .get(axis)
            .and_then(|&length| length.checked_add(start))
            .ok_or(array::Error::TooLarge { what: "array" })?;
        metadata.set_shape(shape)?;
        let engine = self.engine.clone();
        let appended = Appended {
            axis,
            start,
            engine,
        };
        Ok(Some((metadata, appended)))
    }

    /// Checks that arrays of one group have one length along the dimension: else what is appended
    /// to them would not be at the same places.
    pub(crate) fn check_lengths<'a>(
        &self,
        appended: impl Iterator<Item = (&'a NodePath, &'a Appended)>,
    ) -> Result<(), Error> {
        let mut first: BTreeMap<Option<NodePath>, (&NodePath, u64)> = BTreeMap::new();
        for (path, appended) in appended {
            let (other, length) = *first.entry(path.parent()).or_insert((path, appended.start));
            if length != appended.start {
                let reason = format!(
                    "{other} is of length {length} along the dimension, {path} of length {}: \
                     make them alike first",
                    appended.start
                );
                return Err(Error::Option {
                    option: "--append",
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Checks that a coordinate goes on where the one at `path` ends.
    ///
    /// # Errors
    /// [`Error::Misfit`] if it does not.
    pub(crate) async fn check_order(
        &self,
        path: &NodePath,
        joined: &Joined,
        variable: &Variable,
        units: Option<&TimeUnits>,
    ) -> Result<(), Error> {
        let Some(array) = self.arrays.get(path) else {
            return Ok(());
        };
        let is_coordinate = variable.dimensions == [variable.name.as_str()];
        if !is_coordinate || !is_ordered(&variable.data_type) || array.metadata().dimensions() != 1
        {
            return Ok(());
        }
        let sequence = Sequence::new(variable.name.clone(), units.cloned());
        let mut sequence = sequence.behind(&path.to_string());
        let length = array.metadata().shape()[0];
        if length == 0 {
            return Ok(());
        }
        // Its ends are enough: they were checked when they were written.
        for start in [0, length.saturating_sub(2).max(1)] {
            let count = if start == 0 {
                1
            } else {
                length.saturating_sub(start)
            };
            let region = Region::new(vec![start], vec![count.min(length)])?;
            let there = self.read(array, &region).await?;
            sequence.see(&path.to_string(), &numbers(&variable.data_type, &there))?;
        }
        let region = Region::new(vec![0], vec![variable.shape[0].min(2)])?;
        let (source, asked) = (joined.source.clone(), variable.clone());
        let new = blocking(move || source.read(&asked, &region)).await?;
        let file = joined.files.first().map_or("", String::as_str);
        sequence.see(file, &numbers(&variable.data_type, &new))
    }

    /// Checks that a variable without the dimension is what is there.
    ///
    /// # Errors
    /// [`Error::Misfit`] if a value differs.
    pub(crate) async fn check_equal(
        &self,
        path: &NodePath,
        joined: &Joined,
        variable: &Variable,
        units: Option<&TimeUnits>,
    ) -> Result<(), Error> {
        let Some(array) = self.arrays.get(path) else {
            return Ok(());
        };
        for region in blocks(&variable.shape, COMPARED_ELEMENTS)? {
            let there = self.read(array, &region).await?;
            let own = read(&joined.source, variable, &region).await?;
            if let Some(at) = first_difference(&variable.data_type, &own, &there, units) {
                let place = shape::coordinate(at as u64, region.shape());
                let place = place.iter().zip(region.start()).map(|(a, b)| a + b);
                return Err(Error::Misfit {
                    file: joined.files.first().cloned().unwrap_or_default(),
                    reason: format!(
                        "variable {} has other values than {path} (the first at {:?}), and is \
                         not appended; leave it out with --skip {}",
                        variable.name,
                        place.collect::<Vec<u64>>(),
                        variable.name
                    ),
                });
            }
        }
        Ok(())
    }

    /// Reads a box of what is there, verified.
    async fn read(&self, array: &ArrayNode, region: &Region) -> Result<Elements, Error> {
        let reader = self.engine.open(array.clone())?;
        let axes = (0..region.shape().len()).map(|axis| AxisSelection::Range {
            start: region.start()[axis],
            step: 1,
            count: region.shape()[axis],
        });
        let selection = ResolvedSelection::of_axes(axes.collect());
        let Tensor { elements, .. } = self.engine.read(&reader, &selection, Decode::Raw).await?;
        Ok(elements)
    }
}

async fn read(source: &Source, variable: &Variable, region: &Region) -> Result<Elements, Error> {
    let (source, variable, region) = (source.clone(), variable.clone(), region.clone());
    blocking(move || source.read(&variable, &region)).await
}
