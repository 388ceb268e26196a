//! Paths of groups and arrays inside a repository.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Longest node name in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Deepest nesting of groups.
const MAX_DEPTH: usize = 64;

/// Where a group or an array is: names joined by `/`, without a leading slash. The root is `""`.
///
/// Guarantees of every name: 1–255 bytes of UTF-8; no `/`, no NUL; not `.`, `..` or `zarr.json`.
/// Names starting with `__`, which Zarr reserves for itself, are common in real files and clients
/// read them, so they are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePath(String);

impl NodePath {
    /// The root group's path.
    pub fn root() -> Self {
        Self::default()
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the root down; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name; `""` for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The group this node is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(Self(
            self.0
                .rsplit_once('/')
                .map_or(String::new(), |(parent, _)| parent.to_owned()),
        ))
    }

    /// All groups above this node, the root first.
    pub fn ancestors(&self) -> Vec<Self> {
        let mut ancestors: Vec<_> = std::iter::successors(self.parent(), Self::parent).collect();
        ancestors.reverse();
        ancestors
    }

    /// The member `name` of this group.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `name` cannot name a node.
    pub fn join(&self, name: &str) -> Result<Self, Error> {
        check_name(name)?;
        if self.names().count() >= MAX_DEPTH {
            return Err(Error::invalid(
                "path",
                format!("more than {MAX_DEPTH} groups deep"),
            ));
        }
        Ok(if self.is_root() {
            Self(name.to_owned())
        } else {
            Self(format!("{}/{name}", self.0))
        })
    }

    /// Whether `self` is `other` or inside it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(&other.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for NodePath {
    type Err = Error;

    /// Leading and trailing slashes are ignored.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Ok(Self::root());
        }
        text.split('/')
            .try_fold(Self::root(), |path, name| path.join(name))
    }
}

impl fmt::Display for NodePath {
    /// The path with a leading slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let reason = if name.is_empty() {
        "an empty name"
    } else if name.len() > MAX_NAME_BYTES {
        "a name of more than 255 bytes"
    } else if name.contains(['/', '\0']) {
        "a name with '/' or NUL"
    } else if matches!(name, "." | ".." | "zarr.json") {
        "a reserved name (\".\", \"..\", \"zarr.json\")"
    } else {
        return Ok(());
    };
    Err(Error::invalid("path", format!("{name:?} is {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_take_apart_and_join() {
        let deep = path("/a/b b/c");
        assert_eq!(deep.as_str(), "a/b b/c");
        assert_eq!(deep.name(), "c");
        assert_eq!(deep.parent(), Some(path("a/b b")));
        assert_eq!(
            deep.ancestors(),
            [NodePath::root(), path("a"), path("a/b b")]
        );
        assert_eq!(path("/"), NodePath::root());
        assert_eq!(NodePath::root().parent(), None);
        assert!(deep.starts_with(&path("a")) && deep.starts_with(&NodePath::root()));
        assert!(!path("ab").starts_with(&path("a")));
    }

    #[test]
    fn names_that_zarr_or_a_file_system_would_misread_are_refused() {
        let long = "x".repeat(256);
        for bad in [
            "a//b",
            "a/./b",
            "..",
            "a/zarr.json",
            "a\0",
            long.as_str(),
            &"a/".repeat(100),
        ] {
            assert!(bad.parse::<NodePath>().is_err(), "{bad:?}");
        }
    }
}
