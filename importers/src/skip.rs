//! What the user leaves out of an import.
//!
//! Nothing of a file is lost silently: what has no place in Zarr fails the import unless it is
//! named here, and a name that means nothing is refused, since it is a typing error.

use std::collections::BTreeSet;

use crate::Error;
use crate::source::{Attributes, Source};

/// Path of a variable in its file.
pub(crate) fn source_path(group: &[String], name: &str) -> String {
    let names = group.iter().map(String::as_str).chain([name]);
    names.collect::<Vec<_>>().join("/")
}

/// What the user leaves out: variables by path, or by name in whatever group, and attributes by
/// `@` and their name behind a path.
pub(crate) struct Skip(BTreeSet<String>);

impl Skip {
    /// Checks that the source has everything named, and nothing without a place besides.
    pub(crate) fn new(source: &Source, names: &BTreeSet<String>) -> Result<Self, Error> {
        let skip = Self::unchecked(names);
        let mut unknown = skip.0.clone();
        for group in source.groups() {
            let group_path = group.path.join("/");
            for refused in &group.refused {
                let (variable, attribute) = split(&refused.name);
                unknown.retain(|name| !matches(name, variable) && *name != refused.name);
                if !skip.has(variable) && !skip.0.contains(&refused.name) {
                    return Err(Error::Unsupported {
                        what: match attribute {
                            None => format!("variable {variable}"),
                            Some(attribute) => format!("attribute {attribute} of /{variable}"),
                        },
                        reason: format!(
                            "{}; leave it out with --skip {}",
                            refused.reason, refused.name
                        ),
                    });
                }
            }
            for (attribute, _) in &group.attributes {
                unknown.remove(&format!("{group_path}@{attribute}"));
            }
            for variable in &group.variables {
                let path = source_path(&group.path, &variable.name);
                unknown.retain(|name| !matches(name, &path));
                for (attribute, _) in &variable.attributes {
                    unknown.remove(&format!("{path}@{attribute}"));
                }
            }
        }
        match unknown.first() {
            None => Ok(skip),
            Some(name) => Err(Error::Option {
                option: "--skip",
                reason: format!("the file has no variable or attribute {name:?}"),
            }),
        }
    }

    /// The same before it is known what the source has.
    pub(crate) fn unchecked(names: &BTreeSet<String>) -> Self {
        let names = names.iter().map(|name| name.trim_matches('/').to_owned());
        Self(names.collect())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.iter().any(|name| matches(name, path))
    }

    /// Whether an attribute of the variable or group at `path` is left out.
    pub(crate) fn has_attribute(&self, path: &str, name: &str) -> bool {
        self.0.contains(&format!("{path}@{name}"))
    }

    /// The attributes of a variable or group that stay.
    pub(crate) fn attributes_left(&self, path: &str, attributes: &Attributes) -> Attributes {
        let left = attributes
            .iter()
            .filter(|(name, _)| !self.has_attribute(path, name));
        left.cloned().collect()
    }
}

/// Whether `name`, a path or only a name, means the variable at `path`.
fn matches(name: &str, path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or(path);
    !path.is_empty() && (name == path || name == last)
}

/// Path and attribute of a refused name. Attributes of the root have an empty path.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('@') {
        Some((path, attribute)) => (path, Some(attribute)),
        None => (name, None),
    }
}
