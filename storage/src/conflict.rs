//! What two sides changed that does not go together.
//!
//! Spec: `docs/format.md`, "Rebase".

use std::fmt;

use array::{NodePath, Region};

/// One thing both sides changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The node.
    pub path: NodePath,
    /// What about it.
    pub kind: ConflictKind,
    /// Which elements of an array, where only part of it is concerned.
    pub region: Option<Region>,
}

/// In what way two sides collide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// Both sides created a node here, or one an array where the other has nodes below.
    Created,
    /// One side deleted or replaced the node or a group above it, the other changed it or
    /// something under it.
    Deleted,
    /// Both sides changed the array's shape.
    Shape,
    /// One side cut off a region that the other wrote to.
    DroppedRegion,
    /// Both sides wrote to the same inner chunk.
    Data,
    /// One side changed metadata that gives stored values their meaning, and the other wrote
    /// values under the old metadata or changed it too.
    Metadata,
    /// Both sides changed this attribute.
    Attribute(String),
    /// The transaction read something that the other side changed, and asked for serializability.
    Read,
    /// Two writers of one transaction changed the same thing without seeing each other.
    StagedTwice,
}

impl ConflictKind {
    /// The kind's name, as answers carry it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Shape => "shape",
            Self::DroppedRegion => "dropped-region",
            Self::Data => "data",
            Self::Metadata => "metadata",
            Self::Attribute(_) => "attribute",
            Self::Read => "read",
            Self::StagedTwice => "staged-twice",
        }
    }
}

impl fmt::Display for Conflict {
    /// `t2m[0:4,5:8] (data)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(region) = &self.region {
            write!(f, "[{region}]")?;
        }
        match &self.kind {
            ConflictKind::Attribute(name) => write!(f, " (attribute {name:?})"),
            kind => write!(f, " ({})", kind.name()),
        }
    }
}

/// What to do about a conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Commit nothing.
    #[default]
    Fail,
    /// Keep what this side made of it.
    Ours,
    /// Keep what the other side made of it.
    Theirs,
}

/// What to do about conflicts, by path.
///
/// The longest path that a node is at or under decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(Vec<(NodePath, OnConflict)>);

impl Policies {
    /// The same everywhere.
    pub fn everywhere(policy: OnConflict) -> Self {
        Self(vec![(NodePath::root(), policy)])
    }

    /// One for each of these paths and what is under it; conflicts elsewhere fail.
    pub fn new(mut policies: Vec<(NodePath, OnConflict)>) -> Self {
        policies.sort_by_key(|(path, _)| std::cmp::Reverse(path.names().count()));
        Self(policies)
    }

    /// The same, seen from the other side.
    #[must_use]
    pub(crate) fn swapped(self) -> Self {
        let swap = |(path, policy)| {
            let policy = match policy {
                OnConflict::Fail => OnConflict::Fail,
                OnConflict::Ours => OnConflict::Theirs,
                OnConflict::Theirs => OnConflict::Ours,
            };
            (path, policy)
        };
        Self(self.0.into_iter().map(swap).collect())
    }

    /// The policy for a node.
    pub fn of(&self, path: &NodePath) -> OnConflict {
        let found = self.0.iter().find(|(under, _)| path.starts_with(under));
        found.map_or(OnConflict::Fail, |(_, policy)| *policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides() {
        let path = |text: &str| text.parse::<NodePath>().unwrap();
        let policies = Policies::new(vec![
            (path("a"), OnConflict::Ours),
            (path("a/b"), OnConflict::Theirs),
        ]);
        assert_eq!(policies.of(&path("a/b/c")), OnConflict::Theirs);
        assert_eq!(policies.of(&path("a/bc")), OnConflict::Ours);
        assert_eq!(policies.of(&path("c")), OnConflict::Fail);
        let everywhere = Policies::everywhere(OnConflict::Ours);
        assert_eq!(everywhere.of(&path("c")), OnConflict::Ours);
        assert_eq!(Policies::default().of(&NodePath::root()), OnConflict::Fail);
    }
}
