//! Whether changes made to one commit can be applied to a later one.
//!
//! They can if nothing they touch has changed in between: neither the nodes themselves nor whether
//! there is a group above them. Everything else is a conflict.

use std::collections::BTreeSet;

use array::NodePath;

use crate::Error;
use crate::changes::{Change, Changes};
use crate::names::RefName;
use crate::repository::Repository;
use crate::snapshot::Snapshot;
use crate::tree::{NodeKind, TreeRow};

/// Refuses to apply changes made to `base` to a head at which the same nodes changed too.
///
/// # Errors
/// [`Error::Conflict`] with the nodes both sides changed.
pub(crate) async fn check(
    repository: &Repository,
    base: &Snapshot,
    onto: &Snapshot,
    changes: &Changes,
    branch: &RefName,
) -> Result<(), Error> {
    let mut conflicts = BTreeSet::new();
    let deleted = deleted_between(repository, base, onto).await?;
    for (path, change) in changes.iter() {
        if !is_unchanged(base, onto, path, change).await? {
            conflicts.insert(path.clone());
        }
        for above in path.ancestors() {
            let kind = |row: Option<TreeRow>| row.map(|row| row.kind);
            match (kind(base.row(&above).await?), kind(onto.row(&above).await?)) {
                (None | Some(NodeKind::Group), Some(NodeKind::Group)) | (None, None) => {}
                _ => {
                    conflicts.insert(above);
                }
            }
        }
        match &deleted {
            None => {
                conflicts.insert(path.clone());
            }
            Some(deleted) => {
                let related = |other: &&NodePath| {
                    path.starts_with(other) || (other.starts_with(path) && change.removes_base())
                };
                conflicts.extend(deleted.iter().filter(related).cloned());
            }
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(Error::Conflict {
        branch: branch.to_string(),
        base: base.id(),
        paths: conflicts.into_iter().collect(),
    })
}

async fn is_unchanged(
    base: &Snapshot,
    onto: &Snapshot,
    path: &NodePath,
    change: &Change,
) -> Result<bool, Error> {
    let (before, now) = (base.row(path).await?, onto.row(path).await?);
    Ok(match change {
        // Members may differ: only the group's own metadata is replaced.
        Change::Group { is_new: false, .. } => {
            let own = |row: Option<TreeRow>| row.map(|row| (row.kind, row.document));
            own(before) == own(now)
        }
        _ => before == now,
    })
}

/// The nodes deleted by the commits after `base` up to `onto`, those created again included: a tree
/// that equals the base's does not show them. `None` if `onto` does not follow `base`.
async fn deleted_between(
    repository: &Repository,
    base: &Snapshot,
    onto: &Snapshot,
) -> Result<Option<BTreeSet<NodePath>>, Error> {
    let mut deleted = BTreeSet::new();
    let mut id = onto.id();
    while id != base.id() {
        let commit = repository.commit(id).await?;
        deleted.extend(commit.deleted.iter().cloned());
        match commit.parents.first() {
            Some(parent) => id = *parent,
            None => return Ok(None),
        }
    }
    Ok(Some(deleted))
}
