//! Attributes that name other variables.

use super::Findings;
use super::file::{File, Place, Role};

/// Attributes that name variables, and what they make of them.
pub(super) const ROLES: [(&str, Role); 10] = [
    ("bounds", Role::Part),
    ("climatology", Role::Part),
    ("node_coordinates", Role::Part),
    ("node_count", Role::Part),
    ("part_node_count", Role::Part),
    ("formula_terms", Role::Part),
    ("grid_mapping", Role::Container),
    ("geometry", Role::Container),
    ("coordinates", Role::Auxiliary),
    ("ancillary_variables", Role::Data),
];

/// Attributes that name variables, with the section about them.
const NAMING: [(&str, &str); 9] = [
    ("coordinates", "5"),
    ("grid_mapping", "5.6"),
    ("bounds", "7.1"),
    ("climatology", "7.4"),
    ("ancillary_variables", "3.4"),
    ("cell_measures", "7.2"),
    ("formula_terms", "4.3.3"),
    ("geometry", "7.5"),
    ("node_coordinates", "7.5"),
];

/// The variables that the text of `attribute` names.
pub(super) fn names<'a>(attribute: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let has_keys = matches!(attribute, "cell_measures" | "formula_terms");
    let is_extended = attribute == "grid_mapping" && text.contains(':');
    text.split_whitespace().filter_map(move |word| {
        match word.strip_suffix(':') {
            // `crs: x y` names all three, `area: areacella` only the second.
            Some(name) if is_extended => Some(name),
            Some(_) if has_keys => None,
            _ => Some(word),
        }
    })
}

pub(super) fn check(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    for (attribute, section) in NAMING {
        if !place.has(attribute) {
            continue;
        }
        let Some(text) = place.text(attribute) else {
            findings.error(
                "reference-type",
                section,
                format!("its {attribute} is not text"),
                "name variables in it, separated by spaces",
            );
            continue;
        };
        for name in names(attribute, text) {
            if file.find(place.group, name).is_none() && !is_external(file, attribute, name) {
                findings.warn(
                    "absent-variable",
                    section,
                    format!("its {attribute} names {name:?}, which is not in the file"),
                    match attribute {
                        "cell_measures" => {
                            "add the variable, or name it in the global external_variables"
                        }
                        _ => "add the variable or take the name out",
                    },
                );
            }
        }
    }
    bounds(file, place, findings);
    grid_mapping(file, place, findings);
}

/// Measures of cells may be in another file that says so.
fn is_external(file: &File<'_>, attribute: &str, name: &str) -> bool {
    let listed = file
        .root()
        .and_then(|root| super::file::attribute(&root.attributes, "external_variables"));
    match (attribute, listed) {
        ("cell_measures", Some(crate::Attribute::Text(names))) => {
            names.split_whitespace().any(|listed| listed == name)
        }
        _ => false,
    }
}

fn bounds(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    for (attribute, section) in [("bounds", "7.1"), ("climatology", "7.4")] {
        let found = place.text(attribute);
        let found = found.and_then(|name| file.find(place.group, name.trim()));
        let Some(bounds) = found.and_then(|number| file.place(number)) else {
            continue;
        };
        let (own, theirs) = (&place.variable.shape, &bounds.variable.shape);
        let (names, their_names) = (&place.variable.dimensions, &bounds.variable.dimensions);
        let is_short = theirs.len() != own.len() + 1 || theirs.last().is_some_and(|&n| n < 2);
        if is_short || !theirs.starts_with(own) || !their_names.starts_with(names) {
            findings.error(
                "bounds-shape",
                section,
                format!(
                    "its {attribute} {:?} have dimensions ({}), not its own ({}) and one more",
                    bounds.variable.name,
                    dimensions(their_names, theirs),
                    dimensions(names, own),
                ),
                "give bounds the dimensions of their variable and a last one for the vertices",
            );
        }
        if let (Some(own), Some(theirs)) = (place.text("units"), bounds.text("units"))
            && own != theirs
        {
            findings.warn(
                "bounds-units",
                section,
                format!("its {attribute} have units {theirs:?} but it has {own:?}"),
                "leave units out of bounds: those of the variable hold",
            );
        }
    }
}

fn dimensions(names: &[String], lengths: &[u64]) -> String {
    let pairs = names.iter().zip(lengths);
    let pairs = pairs.map(|(name, length)| format!("{name}={length}"));
    pairs.collect::<Vec<_>>().join(", ")
}

fn grid_mapping(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    let Some(text) = place.text("grid_mapping") else {
        return;
    };
    let first = names("grid_mapping", text).next();
    let found = first.and_then(|name| file.find(place.group, name));
    if let Some(mapping) = found.and_then(|number| file.place(number))
        && !mapping.has("grid_mapping_name")
    {
        findings.warn(
            "grid-mapping-name",
            "5.6",
            format!(
                "its grid mapping {:?} has no grid_mapping_name",
                mapping.variable.name
            ),
            "say which projection it is, like grid_mapping_name = \"latitude_longitude\"",
        );
    }
}
