//! What a transaction read, to tell at its commit whether that still holds.
//!
//! A serializable transaction commits only if nothing it read changed since its base: it is then as
//! if it had run at its place in the log.

use std::collections::{BTreeMap, BTreeSet};

use array::{NodeMetadata, NodePath, Region};

use crate::Error;
use crate::conflict::{Conflict, ConflictKind};
use crate::diff::{self, NodeDifference};
use crate::documents::{self, Documents};
use crate::rebase::Sides;
use crate::snapshot::Node;
use crate::splice::InnerChunks;

/// Reads of nodes, of the members of groups, and of regions of arrays. Absence is read too.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reads {
    pub(crate) nodes: BTreeSet<NodePath>,
    pub(crate) members: BTreeSet<NodePath>,
    pub(crate) regions: BTreeMap<NodePath, Vec<Region>>,
}

/// The reads of a transaction, and which of them nobody was told of yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadLog {
    pub(crate) all: Reads,
    fresh: Reads,
}

impl ReadLog {
    pub(crate) fn node(&mut self, path: &NodePath) {
        if self.all.nodes.insert(path.clone()) {
            self.fresh.nodes.insert(path.clone());
        }
    }

    pub(crate) fn members(&mut self, path: &NodePath) {
        if self.all.members.insert(path.clone()) {
            self.fresh.members.insert(path.clone());
        }
    }

    pub(crate) fn region(&mut self, path: &NodePath, region: Region) {
        let known = self.all.regions.entry(path.clone()).or_default();
        if known.iter().any(|known| known.contains(&region)) {
            return;
        }
        known.push(region.clone());
        self.fresh
            .regions
            .entry(path.clone())
            .or_default()
            .push(region);
    }

    /// The reads since this was last called.
    pub(crate) fn take_fresh(&mut self) -> Reads {
        std::mem::take(&mut self.fresh)
    }
}

type Differences = BTreeMap<NodePath, NodeDifference>;

impl Reads {
    /// Adds what another writer of the same transaction read.
    pub(crate) fn extend(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.members.extend(other.members);
        for (path, regions) in other.regions {
            self.regions.entry(path).or_default().extend(regions);
        }
    }

    /// The reads that would give something else now.
    pub(crate) async fn broken(
        &self,
        sides: &Sides<'_>,
        theirs: &Differences,
        recreated: &BTreeSet<NodePath>,
    ) -> Result<Vec<Conflict>, Error> {
        let is_other = |path: &NodePath| {
            let above = path.ancestors();
            let mut places = above.iter().chain([path]);
            places.any(|place| {
                recreated.contains(place)
                    || matches!(theirs.get(place), Some(found) if !matches!(found, NodeDifference::Changed(..)))
            })
        };
        let mut broken = Vec::new();
        let read = |path: &NodePath, region: Option<Region>| Conflict {
            path: path.clone(),
            kind: ConflictKind::Read,
            region,
        };
        for path in &self.nodes {
            let redocumented = matches!(
                theirs.get(path),
                Some(NodeDifference::Changed(old, new)) if old.document != new.document
            );
            if redocumented || is_other(path) {
                broken.push(read(path, None));
            }
        }
        for path in &self.members {
            let came_or_went = theirs.iter().any(|(other, found)| {
                other.parent().as_ref() == Some(path)
                    && !matches!(found, NodeDifference::Changed(..))
            });
            if came_or_went || is_other(path) {
                broken.push(read(path, None));
            }
        }
        for (path, regions) in &self.regions {
            if is_other(path) {
                broken.push(read(path, None));
            } else if theirs.contains_key(path) {
                let changed = changed_regions(sides, path, regions).await?;
                broken.extend(changed.into_iter().map(|region| read(path, region)));
            }
        }
        Ok(broken)
    }
}

/// The parts of `regions` of an array whose values changed; `None` stands for all of it.
async fn changed_regions(
    sides: &Sides<'_>,
    path: &NodePath,
    regions: &[Region],
) -> Result<Vec<Option<Region>>, Error> {
    let (Some(Node::Array(base)), Some(Node::Array(onto))) =
        (sides.base.find(path).await?, sides.onto.find(path).await?)
    else {
        return Ok(vec![None]);
    };
    let [old, new] = [base.metadata(), onto.metadata()]
        .map(|metadata| documents::members(&NodeMetadata::Array((**metadata).clone())));
    let documents = Documents {
        base: &old,
        ours: &old,
        theirs: &new,
    };
    if documents.changes_meaning(&new) || documents.changes_shape(&new) {
        return Ok(vec![None]);
    }
    let inner = InnerChunks::of(base.metadata())?;
    let mut changed = Vec::new();
    for (index, (before, after)) in diff::chunks(&base, &onto).await? {
        let chunk = base.metadata().grid().chunk_region(&index);
        if regions
            .iter()
            .all(|region| region.intersect(&chunk).is_empty())
        {
            continue;
        }
        let repository = base.repository();
        let differing = inner
            .differing(repository, before.as_ref(), after.as_ref())
            .await?;
        for part in differing {
            let cells = inner.region(&index, part, base.metadata().shape())?;
            let met = regions.iter().map(|region| region.intersect(&cells));
            changed.extend(met.filter(|met| !met.is_empty()).map(Some));
        }
    }
    Ok(changed)
}
