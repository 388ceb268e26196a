//! The groups and datasets of an HDF5 file, as a tree without links.
//!
//! Links of a file form any graph; what is reached through several appears under each name, as in
//! netCDF. Nothing outside the file is opened, and a group inside itself is refused, so a hostile
//! file can neither read others nor keep the walk going.

use hdf5_metno::plist::group_create::LinkCreationOrder;
use hdf5_metno::{
    Dataset, File, Group, IndexType, IterationOrder, LinkType, LocationInfo, LocationToken,
    LocationType,
};

use super::{attributes, raw};

/// Deepest nesting of groups that is read.
const MAX_DEPTH: usize = 32;
/// Most groups and datasets of a file.
const MAX_OBJECTS: usize = 100_000;

/// What a file holds.
#[derive(Default)]
pub(super) struct Tree {
    /// Groups, parents first.
    pub(super) groups: Vec<FoundGroup>,
    /// Datasets in the order of the file.
    pub(super) datasets: Vec<FoundDataset>,
    /// Links that lead nowhere importable: path and why.
    pub(super) refused: Vec<(String, String)>,
}

pub(super) struct FoundGroup {
    /// Names from the root down.
    pub(super) path: Vec<String>,
    pub(super) group: Group,
    /// Place of the group it is in; the root's own.
    pub(super) parent: usize,
}

pub(super) struct FoundDataset {
    /// Place of the group it is in.
    pub(super) group: usize,
    pub(super) name: String,
    /// Names from the root down, joined by `/`.
    pub(super) path: String,
    pub(super) dataset: Dataset,
    pub(super) extent: Vec<u64>,
    /// Whether each dimension can grow without limit.
    pub(super) unlimited: Vec<bool>,
    pub(super) token: LocationToken,
    pub(super) is_scale: bool,
}

/// Walks the whole file.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn walk(file: &File) -> Result<Tree, String> {
    let root = file
        .group("/")
        .map_err(|error| raw::one_line(&error.to_string()))?;
    let info = root
        .loc_info()
        .map_err(|error| raw::one_line(&error.to_string()))?;
    let mut walk = Walk {
        tree: Tree::default(),
        file: info.fileno,
    };
    walk.group(&root, &[], 0, &mut vec![info.token])?;
    Ok(walk.tree)
}

struct Walk {
    tree: Tree,
    /// Number of the file itself; objects with another are in other files.
    file: u64,
}

impl Walk {
    /// Reads `group`; `above` are the tokens from the root to it.
    fn group(
        &mut self,
        group: &Group,
        path: &[String],
        parent: usize,
        above: &mut Vec<LocationToken>,
    ) -> Result<(), String> {
        if path.len() > MAX_DEPTH {
            return Err(format!(
                "group {} is more than {MAX_DEPTH} deep",
                path.join("/")
            ));
        }
        let links = links(group).map_err(|error| in_group(path, &error))?;
        let number = self.tree.groups.len();
        self.tree.groups.push(FoundGroup {
            path: path.to_vec(),
            group: group.clone(),
            parent,
        });
        let mut children = Vec::new();
        for (name, link) in links {
            if self.tree.groups.len() + self.tree.datasets.len() + children.len() > MAX_OBJECTS {
                return Err(format!(
                    "it has more than {MAX_OBJECTS} groups and datasets"
                ));
            }
            let below = path.iter().map(String::as_str).chain([name.as_str()]);
            let shown = below.collect::<Vec<_>>().join("/");
            match self.follow(group, &name, link, above) {
                Found::Group(child, token) => children.push((name, child, token)),
                Found::Dataset(dataset, token) => {
                    self.dataset(number, name, shown, dataset, token)?;
                }
                Found::Refused(reason) => self.tree.refused.push((shown, reason)),
                Found::Nothing => {}
            }
        }
        for (name, child, token) in children {
            let mut path = path.to_vec();
            path.push(name);
            above.push(token);
            self.group(&child, &path, number, above)?;
            above.pop();
        }
        Ok(())
    }

    fn follow(&self, group: &Group, name: &str, link: LinkType, above: &[LocationToken]) -> Found {
        let other_file = || Found::Refused("it is a link to another file".into());
        if link == LinkType::External {
            return other_file();
        }
        let failed = |error: hdf5_metno::Error| {
            let reason = raw::one_line(&error.to_string());
            Found::Refused(format!("the HDF5 library cannot open it: {reason}"))
        };
        let info: LocationInfo = match group.loc_info_by_name(name) {
            Ok(info) => info,
            // A soft link may dangle; nothing is lost with it.
            Err(_) if link == LinkType::Soft => return Found::Nothing,
            Err(error) => return failed(error),
        };
        if info.fileno != self.file {
            return other_file();
        }
        match info.loc_type {
            LocationType::Group if above.contains(&info.token) => {
                Found::Refused("it is a link to a group that holds it".into())
            }
            LocationType::Group => match group.group(name) {
                Ok(child) => Found::Group(child, info.token),
                Err(error) => failed(error),
            },
            LocationType::Dataset => match group.dataset(name) {
                Ok(dataset) => Found::Dataset(dataset, info.token),
                Err(error) => failed(error),
            },
            // Named types are stored with the datasets that use them.
            _ => Found::Nothing,
        }
    }

    fn dataset(
        &mut self,
        group: usize,
        name: String,
        path: String,
        dataset: Dataset,
        token: LocationToken,
    ) -> Result<(), String> {
        let space = dataset
            .space()
            .map_err(|error| format!("variable {path}: {}", raw::one_line(&error.to_string())))?;
        if space.is_null() {
            let reason = "it has no dataspace, so neither a shape nor a value";
            self.tree.refused.push((path, reason.into()));
            return Ok(());
        }
        self.tree.datasets.push(FoundDataset {
            group,
            name,
            path,
            extent: space.shape().iter().map(|&length| length as u64).collect(),
            unlimited: space.maxdims().iter().map(Option::is_none).collect(),
            token,
            is_scale: attributes::text(&dataset, "CLASS").as_deref() == Some("DIMENSION_SCALE"),
            dataset,
        });
        Ok(())
    }
}

enum Found {
    Group(Group, LocationToken),
    Dataset(Dataset, LocationToken),
    Refused(String),
    Nothing,
}

/// Names of the links of a group, in the order of their creation if the group keeps it, as netCDF
/// lists them.
fn links(group: &Group) -> Result<Vec<(String, LinkType)>, hdf5_metno::Error> {
    let index = match group.gcpl()?.link_creation_order() {
        LinkCreationOrder::Untracked => IndexType::Name,
        LinkCreationOrder::Tracked | LinkCreationOrder::Indexed => IndexType::CreationOrder,
    };
    let links = group.links(index, IterationOrder::Increasing)?;
    Ok(links
        .into_iter()
        .map(|(name, info)| (name, info.link_type))
        .collect())
}

fn in_group(path: &[String], error: &hdf5_metno::Error) -> String {
    format!(
        "group /{}: {}",
        path.join("/"),
        raw::one_line(&error.to_string())
    )
}
