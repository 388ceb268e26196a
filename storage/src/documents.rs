//! Three-way merging of `zarr.json` documents.
//!
//! Attributes merge one by one. The members that give stored values their meaning (data type,
//! chunk grid, codecs, fill value, masking and packing attributes) stand together: a change to any
//! of them goes with no other change to them, and with no values written by the other side.

use std::collections::BTreeSet;

use array::NodeMetadata;
use serde_json::{Map, Value};

use crate::conflict::{ConflictKind, OnConflict};
use crate::snapshot::MEANING_ATTRIBUTES;

/// The members of an array's document that may change without changing what values mean.
const HARMLESS: [&str; 3] = ["attributes", "dimension_names", "shape"];

/// One document on three sides.
pub(crate) struct Documents<'a> {
    pub(crate) base: &'a Map<String, Value>,
    pub(crate) ours: &'a Map<String, Value>,
    pub(crate) theirs: &'a Map<String, Value>,
}

/// The members of a node's document.
pub(crate) fn members(metadata: &NodeMetadata) -> Map<String, Value> {
    match metadata.to_json() {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Documents<'_> {
    /// Whether `side` changed what stored values mean.
    pub(crate) fn changes_meaning(&self, side: &Map<String, Value>) -> bool {
        let meaning = |document: &Map<String, Value>| -> Vec<(String, Value)> {
            let own = document
                .iter()
                .filter(|(name, _)| !HARMLESS.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()));
            let attributes = attributes(document);
            let packing = MEANING_ATTRIBUTES
                .iter()
                .filter_map(|&name| Some((format!("@{name}"), attributes.get(name)?.clone())));
            own.chain(packing).collect()
        };
        meaning(self.base) != meaning(side)
    }

    /// Whether `side` changed the shape.
    pub(crate) fn changes_shape(&self, side: &Map<String, Value>) -> bool {
        self.base.get("shape") != side.get("shape")
    }

    /// The document with the changes of both sides, and what they both changed. Where `policy`
    /// prefers a side, that is no conflict.
    pub(crate) fn merge(&self, policy: OnConflict) -> (Map<String, Value>, Vec<ConflictKind>) {
        let mut conflicts = Vec::new();
        let mut merged = Map::new();
        for name in names(self.base, self.ours, self.theirs) {
            if name == "attributes" {
                continue;
            }
            let kind = if name == "shape" {
                ConflictKind::Shape
            } else {
                ConflictKind::Metadata
            };
            let sides = [self.base, self.ours, self.theirs].map(|side| side.get(&name));
            if let Some(value) = choose(sides, policy, || conflicts.push(kind)) {
                merged.insert(name, value.clone());
            }
        }
        let sides = [self.base, self.ours, self.theirs].map(attributes);
        let [base, ours, theirs] = sides.each_ref();
        let mut kept = Map::new();
        for name in names(base, ours, theirs) {
            let values = [base, ours, theirs].map(|side| side.get(&name));
            let clash = || conflicts.push(ConflictKind::Attribute(name.clone()));
            if let Some(value) = choose(values, policy, clash) {
                kept.insert(name.clone(), value.clone());
            }
        }
        if [self.base, self.ours, self.theirs]
            .iter()
            .any(|side| side.contains_key("attributes"))
        {
            merged.insert("attributes".into(), Value::Object(kept));
        }
        (merged, conflicts)
    }
}

/// The value of a member after both sides' changes; `clash` is called if both changed it.
fn choose(
    [base, ours, theirs]: [Option<&Value>; 3],
    policy: OnConflict,
    clash: impl FnOnce(),
) -> Option<&Value> {
    if ours == base {
        return theirs;
    }
    if theirs == base {
        return ours;
    }
    match policy {
        OnConflict::Ours => ours,
        OnConflict::Theirs => theirs,
        OnConflict::Fail => {
            clash();
            ours
        }
    }
}

/// The attributes of a document.
pub(crate) fn attributes(document: &Map<String, Value>) -> Map<String, Value> {
    let found = document.get("attributes").and_then(Value::as_object);
    found.cloned().unwrap_or_default()
}

/// Names of members that two documents do not have in common.
pub(crate) fn differing(a: &Map<String, Value>, b: &Map<String, Value>) -> Vec<String> {
    let all = a
        .keys()
        .chain(b.keys().filter(|name| !a.contains_key(*name)));
    all.filter(|name| a.get(*name) != b.get(*name))
        .cloned()
        .collect()
}

fn names(
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    c: &Map<String, Value>,
) -> BTreeSet<String> {
    [a, b, c].into_iter().flat_map(Map::keys).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merge(base: Value, ours: Value, theirs: Value) -> (Value, Vec<ConflictKind>) {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let (base, ours, theirs) = (object(base), object(ours), object(theirs));
        let documents = Documents {
            base: &base,
            ours: &ours,
            theirs: &theirs,
        };
        let (merged, conflicts) = documents.merge(OnConflict::Fail);
        (Value::Object(merged), conflicts)
    }

    #[test]
    fn different_attributes_merge_and_equal_ones_collide() {
        let of = |attributes: Value| json!({ "attributes": attributes });
        let (merged, conflicts) = merge(
            of(json!({ "a": 1, "b": 1, "gone": 1 })),
            of(json!({ "a": 2, "b": 1, "gone": 1, "new": 3 })),
            of(json!({ "a": 1, "b": 5 })),
        );
        assert_eq!(merged, of(json!({ "a": 2, "b": 5, "new": 3 })));
        assert_eq!(conflicts, []);
        let (_, conflicts) = merge(
            of(json!({ "a": 1 })),
            of(json!({ "a": 2 })),
            of(json!({ "a": 2 })),
        );
        assert_eq!(conflicts, [ConflictKind::Attribute("a".into())]);
    }

    #[test]
    fn shapes_changed_by_both_sides_collide_even_equally() {
        let of = |length: u64| json!({ "shape": [length], "fill_value": 0 });
        let (_, conflicts) = merge(of(1), of(2), of(2));
        assert_eq!(conflicts, [ConflictKind::Shape]);
        let (merged, conflicts) = merge(of(1), of(1), of(2));
        assert_eq!((merged, conflicts), (of(2), vec![]));
    }
}
