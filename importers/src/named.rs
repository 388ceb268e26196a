//! Groups of arrays that have a path and no names for their dimensions.

use std::collections::BTreeMap;

use array::DataType;

use crate::source::{Group, Variable};

/// An array, by its path in its file.
pub(crate) struct Named {
    /// Names joined by `/`.
    pub(crate) path: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) data_type: DataType,
    pub(crate) handle: usize,
}

/// The groups of these arrays, the root first and parents before children.
///
/// Dimensions are called `dim_0`, `dim_1`, …; where that is the name of another length in the same
/// group, the array's name comes before it, since one name is one length to xarray.
pub(crate) fn groups(arrays: Vec<Named>) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<String>, Group> = BTreeMap::new();
    let group = |path: Vec<String>| Group {
        path,
        attributes: Vec::new(),
        variables: Vec::new(),
        refused: Vec::new(),
    };
    groups.insert(Vec::new(), group(Vec::new()));
    let mut lengths: BTreeMap<(Vec<String>, String), u64> = BTreeMap::new();
    for array in arrays {
        let mut path: Vec<String> = array.path.split('/').map(str::to_owned).collect();
        let name = path.pop().unwrap_or_default();
        for depth in 0..=path.len() {
            let parent = path[..depth].to_vec();
            groups
                .entry(parent.clone())
                .or_insert_with(|| group(parent));
        }
        let dimension = |(axis, &length): (usize, &u64)| {
            let plain = format!("dim_{axis}");
            let known = lengths
                .entry((path.clone(), plain.clone()))
                .or_insert(length);
            if *known == length {
                plain
            } else {
                format!("{name}_{plain}")
            }
        };
        let dimensions = array.shape.iter().enumerate().map(dimension).collect();
        let variable = Variable {
            name: name.clone(),
            dimensions,
            shape: array.shape,
            data_type: array.data_type,
            attributes: Vec::new(),
            chunk_shape: None,
            handle: array.handle,
        };
        if let Some(group) = groups.get_mut(&path) {
            group.variables.push(variable);
        }
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_length() {
        let array = |path: &str, shape: &[u64]| Named {
            path: path.into(),
            shape: shape.to_vec(),
            data_type: DataType::Int8,
            handle: 0,
        };
        let groups = groups(vec![
            array("a", &[2, 3]),
            array("b", &[2, 4]),
            array("x/y/c", &[9]),
        ]);
        let paths: Vec<String> = groups.iter().map(|group| group.path.join("/")).collect();
        assert_eq!(paths, ["", "x", "x/y"]);
        assert_eq!(groups[0].variables[1].dimensions, ["dim_0", "b_dim_1"]);
        assert_eq!(groups[2].variables[0].dimensions, ["dim_0"]);
    }
}
