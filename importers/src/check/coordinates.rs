//! Coordinates: their values, what tells them apart, and where they can be.

use super::Findings;
use super::file::{File, Place, Role};
use super::scan::scan;
use super::time::is_since;
use crate::source::Attribute;

/// Units by which a latitude, longitude or pressure is known without a name.
const TELLING_UNITS: [&str; 20] = [
    "degrees_north",
    "degree_north",
    "degree_N",
    "degrees_N",
    "degreeN",
    "degreesN",
    "degrees_east",
    "degree_east",
    "degree_E",
    "degrees_E",
    "degreeE",
    "degreesE",
    "Pa",
    "hPa",
    "kPa",
    "bar",
    "mbar",
    "millibar",
    "dbar",
    "decibar",
];

pub(super) fn check(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    if place.role == Role::Coordinate {
        order(file, place, findings);
    }
    if place.is_coordinate() && place.is_number() && file.is_cf() {
        identity(place, findings);
    }
}

fn numbers(attribute: Option<&Attribute>) -> Vec<f64> {
    match attribute {
        Some(Attribute::Integers(values)) => values.iter().map(|&value| value as f64).collect(),
        Some(Attribute::Floats(values)) => values.clone(),
        _ => Vec::new(),
    }
}

/// A coordinate variable has no missing values, and ascends or descends strictly.
fn order(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    let missing = [
        numbers(place.attribute("_FillValue")),
        numbers(place.attribute("missing_value")),
    ];
    let found = match scan(file.source, place.variable, &missing.concat()) {
        Ok(Some(found)) => found,
        Ok(None) => return,
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
            findings.error(
                "unreadable",
                None,
                format!("its values cannot be read: {error}{cause}"),
                "get the file again, or write it anew",
            );
            return;
        }
    };
    if found.missing > 0 {
        findings.error(
            "coordinate-missing",
            "2.5.1",
            format!("{} of its values are NaN or missing", found.missing),
            "give every position of a coordinate a value",
        );
    }
    let section = "5";
    if let Some(at) = found.turns_at {
        findings.error(
            "coordinate-order",
            section,
            format!("its values turn at position {at}: they neither ascend nor descend throughout"),
            "sort the data along it; selection by label needs an order",
        );
    }
    if let Some(at) = found.repeats_at {
        findings.error(
            "coordinate-repeats",
            section,
            format!("its value at position {at} is the same as the one before"),
            "drop or average what is there twice",
        );
    }
    let latitude = place.text("standard_name") == Some("latitude")
        || place
            .text("units")
            .is_some_and(|units| units.starts_with("degrees_n"));
    if latitude && (found.least < -90.001 || found.greatest > 90.001) && found.least.is_finite() {
        findings.warn(
            "latitude-range",
            "4.1",
            format!(
                "its latitudes go from {} to {}",
                found.least, found.greatest
            ),
            "check units and order of the dimensions: latitudes are within ±90",
        );
    }
}

/// What says which coordinate it is: units, a standard name, an axis; a direction for heights.
fn identity(place: &Place<'_>, findings: &mut Findings) {
    let units = place.text("units").unwrap_or_default();
    let standard_name = place.text("standard_name");
    for (name, wanted, section) in [
        ("latitude", "degrees_north", "4.1"),
        ("longitude", "degrees_east", "4.2"),
    ] {
        let is_it = standard_name == Some(name)
            || (standard_name.is_none() && place.role == Role::Coordinate)
                && [name, &name[..3]].contains(&place.variable.name.as_str());
        if is_it && matches!(units, "degrees" | "degree" | "deg" | "°") {
            findings.warn(
                "latitude-longitude-units",
                section,
                format!("it is a {name} with units {units:?}"),
                format!("say units = {wanted:?}, by which readers know it"),
            );
            return;
        }
    }
    if place.role != Role::Coordinate {
        return;
    }
    let is_known = standard_name.is_some()
        || place.has("axis")
        || TELLING_UNITS.contains(&units)
        || is_since(units);
    if !is_known {
        findings.warn(
            "coordinate-identity",
            "4",
            "nothing says which coordinate it is: neither standard_name, axis nor units",
            "add standard_name, or axis = X, Y, Z or T",
        );
    }
    let is_vertical = place.text("axis") == Some("Z")
        || matches!(standard_name, Some("height" | "depth" | "altitude"));
    let is_pressure = TELLING_UNITS[12..].contains(&units);
    if is_vertical && !is_pressure && !place.has("positive") {
        findings.warn(
            "positive",
            "4.3",
            "it is vertical and does not say which way is up",
            "add positive = \"up\" or \"down\"",
        );
    }
}
