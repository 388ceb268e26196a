//! The variables of a source by path, and what each is for.

use std::collections::HashMap;

use super::references;
use crate::skip::source_path;
use crate::source::{Attribute, Attributes, Group, Source, Variable};

/// What a variable is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Named as its only dimension.
    Coordinate,
    /// Named by `coordinates` of another.
    Auxiliary,
    /// Bounds, climatology, terms of a formula, nodes of a geometry: what it means is told by the
    /// variable that names it.
    Part,
    /// A grid mapping or another holder of attributes.
    Container,
    /// Everything else.
    Data,
}

/// A variable and where it is.
pub(super) struct Place<'a> {
    pub(super) path: String,
    pub(super) group: &'a [String],
    pub(super) variable: &'a Variable,
    pub(super) role: Role,
}

impl Place<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        attribute(&self.variable.attributes, name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            Attribute::Text(text) => Some(text),
            Attribute::Texts(texts) if texts.len() == 1 => texts.first().map(String::as_str),
            _ => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn is_number(&self) -> bool {
        self.variable.data_type.is_integer() || self.variable.data_type.is_float()
    }

    /// Whether it tells where data are: a coordinate, or an auxiliary one.
    pub(super) fn is_coordinate(&self) -> bool {
        matches!(self.role, Role::Coordinate | Role::Auxiliary)
    }
}

pub(super) fn attribute<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a Attribute> {
    let found = attributes.iter().find(|(own, _)| own == name);
    found.map(|(_, value)| value)
}

/// A source, looked at.
pub(super) struct File<'a> {
    pub(super) source: &'a Source,
    places: Vec<Place<'a>>,
    by_path: HashMap<String, usize>,
}

impl<'a> File<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        let mut file = Self {
            source,
            places: Vec::new(),
            by_path: HashMap::new(),
        };
        for group in source.groups() {
            for variable in &group.variables {
                let path = source_path(&group.path, &variable.name);
                file.by_path.insert(path.clone(), file.places.len());
                file.places.push(Place {
                    path,
                    group: &group.path,
                    variable,
                    role: Role::Data,
                });
            }
        }
        file.give_roles();
        file
    }

    fn give_roles(&mut self) {
        let mut named: HashMap<usize, Role> = HashMap::new();
        for place in &self.places {
            for (attribute, role) in references::ROLES {
                let Some(text) = place.text(attribute) else {
                    continue;
                };
                for name in references::names(attribute, text) {
                    if let Some(found) = self.find(place.group, name) {
                        named.entry(found).or_insert(role);
                    }
                }
            }
        }
        for (place, own) in self.places.iter_mut().enumerate() {
            let is_axis = own.variable.dimensions.first() == Some(&own.variable.name)
                && (own.variable.dimensions.len() == 1 || !own.is_number());
            own.role = match named.get(&place) {
                _ if is_axis => Role::Coordinate,
                _ if own.has("grid_mapping_name") || own.has("geometry_type") => Role::Container,
                Some(&role) => role,
                None => Role::Data,
            };
        }
    }

    pub(super) fn variables(&self) -> &[Place<'a>] {
        &self.places
    }

    pub(super) fn root(&self) -> Option<&'a Group> {
        self.source.groups().first()
    }

    /// Whether the file means to follow CF.
    pub(super) fn is_cf(&self) -> bool {
        self.source.format().starts_with("NetCDF") || self.conventions().is_some()
    }

    pub(super) fn conventions(&self) -> Option<&'a Attribute> {
        attribute(&self.root()?.attributes, "Conventions")
    }

    /// The variable that `name` means in `group`: a path, or a name there or in a group above.
    pub(super) fn find(&self, group: &[String], name: &str) -> Option<usize> {
        if let Some(path) = name.strip_prefix('/') {
            return self.by_path.get(path).copied();
        }
        (0..=group.len()).rev().find_map(|depth| {
            let path = source_path(&group[..depth], name);
            self.by_path.get(&path).copied()
        })
    }

    pub(super) fn place(&self, number: usize) -> Option<&Place<'a>> {
        self.places.get(number)
    }
}
