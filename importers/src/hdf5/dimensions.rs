//! Names and lengths of the dimensions of an HDF5 file's datasets.
//!
//! A dimension is a dataset called a *scale*. A dataset names its scales by `_Netcdf4Coordinates`
//! (their `_Netcdf4Dimid`) or by references in `DIMENSION_LIST`. An unlimited dimension is as long
//! as the longest dataset that uses it. Axes without a scale share invented dimensions,
//! `phony_dim_0`, `phony_dim_1` …, numbered as netCDF does: the innermost groups first, one for
//! each length and group, and never one twice in a dataset.
//!
//! Source: netCDF-C `libhdf5/hdf5open.c` (`read_scale`, `rec_match_dimscales`,
//! `create_phony_dims`); HDF5 "Dimension Scale Specification".

use hdf5_metno::types::VarLenArray;
use hdf5_metno::{LocationToken, ObjectReference1, ReferencedObject};

use super::attributes;
use super::walk::{FoundDataset, Tree};

/// `NAME` of a scale that is a dimension without a variable starts with this.
const NO_VARIABLE: &str = "This is a netCDF dimension but not a netCDF variable";

/// Names and lengths of the dimensions of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dimensions {
    pub(super) names: Vec<String>,
    pub(super) lengths: Vec<u64>,
}

/// Whether the dataset stands for a dimension only.
pub(super) fn is_without_variable(found: &FoundDataset) -> bool {
    let name = || attributes::text(&found.dataset, "NAME");
    found.is_scale && name().is_some_and(|name| name.starts_with(NO_VARIABLE))
}

/// The dimensions of every dataset of `tree`, in its order. `name_of` gives a dataset's name as a
/// variable.
pub(super) fn of_tree(tree: &Tree, name_of: impl Fn(&FoundDataset) -> String) -> Vec<Dimensions> {
    let mut known = Known::of_scales(tree, name_of);
    let axes: Vec<Vec<Option<usize>>> = tree.datasets.iter().map(|d| known.axes(d)).collect();
    for (found, axes) in tree.datasets.iter().zip(&axes) {
        for (&length, axis) in found.extent.iter().zip(axes) {
            let Some(dimension) = axis.map(|axis| &mut known.dimensions[axis]) else {
                continue;
            };
            if dimension.unlimited {
                dimension.length = dimension.length.max(length);
            }
        }
    }
    let mut result = vec![Dimensions::default(); tree.datasets.len()];
    for place in innermost_first(tree) {
        result[place] = known.resolve(&tree.datasets[place], &axes[place]);
    }
    result
}

/// Places of the datasets, those of a group after those of the groups in it.
fn innermost_first(tree: &Tree) -> Vec<usize> {
    fn visit(members: &[Members], group: usize, order: &mut Vec<usize>) {
        for &child in &members[group].groups {
            visit(members, child, order);
        }
        order.extend(&members[group].datasets);
    }
    let mut members = vec![Members::default(); tree.groups.len()];
    for (group, found) in tree.groups.iter().enumerate().skip(1) {
        members[found.parent].groups.push(group);
    }
    for (place, found) in tree.datasets.iter().enumerate() {
        members[found.group].datasets.push(place);
    }
    let mut order = Vec::with_capacity(tree.datasets.len());
    if !members.is_empty() {
        visit(&members, 0, &mut order);
    }
    order
}

/// Places of what is in a group.
#[derive(Clone, Default)]
struct Members {
    groups: Vec<usize>,
    datasets: Vec<usize>,
}

struct Known {
    dimensions: Vec<Dimension>,
    /// Number of the next invented dimension.
    next: i64,
}

struct Dimension {
    name: String,
    length: u64,
    unlimited: bool,
    group: usize,
    /// `_Netcdf4Dimid`.
    id: Option<i64>,
    /// The scale; none for an invented dimension.
    token: Option<LocationToken>,
}

impl Known {
    fn of_scales(tree: &Tree, name_of: impl Fn(&FoundDataset) -> String) -> Self {
        let mut known = Self {
            dimensions: Vec::new(),
            next: 0,
        };
        for found in tree.datasets.iter().filter(|found| found.is_scale) {
            let ids = attributes::integers(&found.dataset, "_Netcdf4Dimid");
            let id = ids
                .and_then(|ids| ids.first().copied())
                .filter(|&id| id >= 0);
            known.next = match id {
                Some(id) => known.next.max(id.saturating_add(1)),
                None => known.next.saturating_add(1),
            };
            known.dimensions.push(Dimension {
                name: name_of(found),
                length: found.extent.first().copied().unwrap_or(0),
                unlimited: found.unlimited.first().copied().unwrap_or(false),
                group: found.group,
                id,
                token: Some(found.token),
            });
        }
        known
    }

    /// The dimension of each axis; `None` where the file names none.
    fn axes(&self, found: &FoundDataset) -> Vec<Option<usize>> {
        let rank = found.extent.len();
        let with_id = |&id: &i64| self.dimensions.iter().position(|d| d.id == Some(id));
        if let Some(ids) = attributes::integers(&found.dataset, "_Netcdf4Coordinates")
            && ids.len() == rank
        {
            return ids.iter().map(with_id).collect();
        }
        if found.is_scale {
            // A scale is its own first dimension.
            let mut axes = vec![None; rank];
            if let Some(first) = axes.first_mut() {
                *first = self.with_token(found.token);
            }
            return axes;
        }
        let listed = found.dataset.attr("DIMENSION_LIST");
        let listed = listed
            .and_then(|list| list.read_raw::<VarLenArray<ObjectReference1>>())
            .unwrap_or_default();
        let mut axes: Vec<Option<usize>> = listed
            .iter()
            .map(|scales| {
                let scale = found.dataset.dereference(scales.first()?).ok()?;
                let ReferencedObject::Dataset(scale) = scale else {
                    return None;
                };
                self.with_token(scale.loc_info().ok()?.token)
            })
            .collect();
        axes.resize(rank, None);
        axes
    }

    fn with_token(&self, token: LocationToken) -> Option<usize> {
        self.dimensions
            .iter()
            .position(|dimension| dimension.token == Some(token))
    }

    /// Names and lengths of a dataset's dimensions; invents those it has none for.
    fn resolve(&mut self, found: &FoundDataset, axes: &[Option<usize>]) -> Dimensions {
        let mut used: Vec<usize> = Vec::new();
        for (axis, &length) in found.extent.iter().enumerate() {
            // A scale of another length, unless it can grow, is not this axis's dimension.
            let fits = |&place: &usize| {
                let dimension = &self.dimensions[place];
                dimension.unlimited || dimension.length == length
            };
            let unlimited = found.unlimited.get(axis).copied().unwrap_or(false);
            let named = axes.get(axis).copied().flatten().filter(fits);
            let place = named
                .or_else(|| self.similar(found.group, length, unlimited, &used))
                .unwrap_or_else(|| self.invent(found.group, length, unlimited));
            used.push(place);
        }
        let dimensions = || used.iter().map(|&place| &self.dimensions[place]);
        Dimensions {
            names: dimensions()
                .map(|dimension| dimension.name.clone())
                .collect(),
            lengths: dimensions().map(|dimension| dimension.length).collect(),
        }
    }

    /// A dimension of the group that an axis without scale may share.
    fn similar(&self, group: usize, length: u64, unlimited: bool, used: &[usize]) -> Option<usize> {
        (0..self.dimensions.len()).find(|place| {
            let dimension = &self.dimensions[*place];
            (dimension.group, dimension.length, dimension.unlimited) == (group, length, unlimited)
                && !used.contains(place)
        })
    }

    fn invent(&mut self, group: usize, length: u64, unlimited: bool) -> usize {
        self.dimensions.push(Dimension {
            name: format!("phony_dim_{}", self.next),
            length,
            unlimited,
            group,
            id: None,
            token: None,
        });
        self.next = self.next.saturating_add(1);
        self.dimensions.len() - 1
    }
}
