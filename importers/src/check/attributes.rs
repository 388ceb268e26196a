//! Attributes of the file and of its variables: names, missing values, ranges, packing, flags.

use array::DataType;

use super::Findings;
use super::file::{File, Place, Role};
use crate::source::Attribute;

/// What the file says about itself, and what an import of it would refuse.
pub(super) fn check_file(file: &File<'_>, findings: &mut Findings) {
    if file.conventions().is_none() && file.is_cf() {
        findings.warn(
            "conventions",
            "2.6.1",
            "the file does not say which conventions it follows",
            "add the global attribute Conventions = \"CF-1.11\"",
        );
    }
    for group in file.source.groups() {
        for refused in &group.refused {
            findings.variable = refused.name.split('@').next().unwrap_or("").to_owned();
            let (reason, name) = (&refused.reason, &refused.name);
            let what = match name.split_once('@') {
                None => format!("it cannot be imported: {reason}"),
                Some((_, attribute)) => {
                    format!("its attribute {attribute} cannot be imported: {reason}")
                }
            };
            findings.warn(
                "refused",
                None,
                what,
                format!("leave it out with --skip {name}"),
            );
        }
    }
    findings.variable.clear();
}

pub(super) fn check(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    name(file, place, findings);
    if file.is_cf() && place.role == Role::Data && place.is_number() {
        let is_named = ["standard_name", "long_name"]
            .iter()
            .any(|name| place.has(name));
        if !is_named {
            findings.warn(
                "data-name",
                "3.2",
                "it has neither standard_name nor long_name",
                "say what it is in long_name, and by standard_name if CF has one",
            );
        }
    }
    if place.is_number() {
        fill_value(place, findings);
        ranges(place, findings);
        packing(place, findings);
        flags(place, findings);
    }
    characters(file, place, findings);
}

fn name(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    let name = &place.variable.name;
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if file.is_cf() && !is_plain {
        findings.warn(
            "name",
            "2.3",
            format!("its name {name:?} is not letters, digits and underscores after a letter"),
            "rename it; what it is called in full belongs in long_name",
        );
    }
}

/// How an attribute fits values of a type.
enum Fit {
    Held(f64),
    /// A number that the type cannot hold, with why.
    NotHeld(&'static str),
    /// Not one number.
    NotANumber,
}

fn fits(data_type: &DataType, attribute: &Attribute) -> Fit {
    let (value, is_float) = match attribute {
        Attribute::Integers(values) if values.len() == 1 => (values[0] as f64, false),
        Attribute::Floats(values) if values.len() == 1 => (values[0], true),
        _ => return Fit::NotANumber,
    };
    if data_type.is_float() {
        return Fit::Held(value);
    }
    if value.is_nan() {
        return Fit::NotHeld("integers have no NaN");
    }
    let bits = 8 * data_type.size_bytes().unwrap_or(8) as i32;
    let (least, most) = match data_type.is_unsigned_integer() {
        true => (0.0, 2f64.powi(bits) - 1.0),
        false => (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1) - 1.0),
    };
    match value {
        value if !(least..=most).contains(&value) => Fit::NotHeld("it is out of its type's range"),
        value if value.fract() != 0.0 => Fit::NotHeld("it is no whole number"),
        value if is_float => {
            let _ = value;
            Fit::NotHeld("it is a float")
        }
        value => Fit::Held(value),
    }
}

fn fill_value(place: &Place<'_>, findings: &mut Findings) {
    let data_type = &place.variable.data_type;
    for (attribute, section) in [("_FillValue", "2.5.1"), ("missing_value", "2.5.1")] {
        let Some(value) = place.attribute(attribute) else {
            continue;
        };
        let reason = match fits(data_type, value) {
            Fit::Held(_) => continue,
            Fit::NotANumber if attribute == "missing_value" && is_numbers(value) => continue,
            Fit::NotANumber => "it is not one number",
            Fit::NotHeld(reason) => reason,
        };
        let what = format!("its {attribute} does not fit {data_type}: {reason}");
        let advice = format!("give {attribute} the type of the variable and a value it can hold");
        match attribute {
            "_FillValue" => findings.error("fill-value", section, what, advice),
            _ => findings.warn("missing-value", section, what, advice),
        }
    }
    if let (Some(fill), Some(missing)) = (
        place.attribute("_FillValue"),
        place.attribute("missing_value"),
    ) && let (Fit::Held(fill), Fit::Held(missing)) =
        (fits(data_type, fill), fits(data_type, missing))
        && fill != missing
        && !(fill.is_nan() && missing.is_nan())
    {
        findings.warn(
            "missing-value-differs",
            "2.5.1",
            format!("_FillValue is {fill} but missing_value is {missing}"),
            "give both the same value: many readers look at one only",
        );
    }
}

fn is_numbers(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::Integers(_) | Attribute::Floats(_))
}

fn ranges(place: &Place<'_>, findings: &mut Findings) {
    let data_type = &place.variable.data_type;
    let section = "2.5.1";
    let mut least = f64::NEG_INFINITY;
    let mut most = f64::INFINITY;
    for (attribute, count) in [("valid_range", 2), ("valid_min", 1), ("valid_max", 1)] {
        let Some(value) = place.attribute(attribute) else {
            continue;
        };
        let is_unsigned = place.text("_Unsigned") == Some("true");
        let (numbers, is_float) = match value {
            Attribute::Integers(values) => (values.iter().map(|&v| v as f64).collect(), false),
            Attribute::Floats(values) => (values.clone(), true),
            _ => (Vec::new(), false),
        };
        if numbers.len() != count {
            findings.warn(
                "valid-range",
                section,
                format!(
                    "its {attribute} is not {count} number{}",
                    if count > 1 { "s" } else { "" }
                ),
                "give least and greatest value, of the variable's type",
            );
            continue;
        }
        let held = |&number: &f64| match is_float {
            true => Attribute::Floats(vec![number]),
            false => Attribute::Integers(vec![number as i128]),
        };
        let is_held = |number: &f64| matches!(fits(data_type, &held(number)), Fit::Held(_));
        if !is_unsigned && !numbers.iter().all(is_held) {
            let packed = match place.has("scale_factor") || place.has("add_offset") {
                true => "it is of the packed values, not of the unpacked ones",
                false => "give it the type of the variable",
            };
            findings.warn(
                "valid-range",
                section,
                format!("its {attribute} does not fit {data_type}"),
                packed,
            );
            continue;
        }
        match (attribute, numbers.as_slice()) {
            ("valid_min", &[value]) => least = least.max(value),
            ("valid_max", &[value]) => most = most.min(value),
            (_, &[from, to]) => (least, most) = (least.max(from), most.min(to)),
            _ => {}
        }
    }
    if least > most {
        findings.warn(
            "valid-range",
            section,
            format!("its least valid value {least} is above its greatest, {most}"),
            "swap them",
        );
        return;
    }
    let is_bounded = least.is_finite() || most.is_finite();
    if let Some(fill) = place.attribute("_FillValue")
        && let Fit::Held(fill) = fits(data_type, fill)
        && is_bounded
        && (least..=most).contains(&fill)
    {
        findings.warn(
            "fill-value-valid",
            section,
            format!("its _FillValue {fill} is inside the valid range"),
            "choose one outside, or narrow the range",
        );
    }
}

fn packing(place: &Place<'_>, findings: &mut Findings) {
    let data_type = &place.variable.data_type;
    let section = "8.1";
    let mut is_packed = false;
    for attribute in ["scale_factor", "add_offset"] {
        let Some(value) = place.attribute(attribute) else {
            continue;
        };
        let number = match value {
            Attribute::Integers(values) if values.len() == 1 => Some(values[0] as f64),
            Attribute::Floats(values) if values.len() == 1 => Some(values[0]),
            _ => None,
        };
        is_packed = true;
        let is_usable = number.is_some_and(|number| {
            number.is_finite() && (attribute != "scale_factor" || number != 0.0)
        });
        if !is_usable {
            findings.error(
                "packing",
                section,
                format!("its {attribute} is not one finite number that can be undone"),
                "give the factor and offset that turn stored values into real ones",
            );
        }
    }
    if is_packed && data_type.is_float() {
        findings.warn(
            "packed-float",
            section,
            format!("it is packed, but stored as {data_type}"),
            "pack into integers, or store the values as they are",
        );
    }
    let is_scaled = place.has("scale_factor") && data_type.is_integer();
    let has_missing = ["_FillValue", "missing_value"]
        .iter()
        .any(|name| place.has(name));
    if is_scaled && !has_missing && place.role == Role::Data {
        findings.warn(
            "packed-without-fill",
            section,
            "it is packed into integers without a _FillValue, so NaN cannot be told from data",
            "add a _FillValue outside the packed range",
        );
    }
    if place.has("_Unsigned") && !data_type.is_integer() {
        findings.warn(
            "unsigned",
            "2.2",
            format!("it has _Unsigned but is stored as {data_type}"),
            "take _Unsigned out: it is for integers",
        );
    }
}

/// Flags have as many meanings as values, of the variable's type.
fn flags(place: &Place<'_>, findings: &mut Findings) {
    let Some(meanings) = place.text("flag_meanings") else {
        return;
    };
    let count = meanings.split_whitespace().count();
    for attribute in ["flag_values", "flag_masks"] {
        let found = match place.attribute(attribute) {
            None => continue,
            Some(Attribute::Integers(values)) => values.len(),
            Some(_) => 0,
        };
        if found != count {
            findings.warn(
                "flags",
                "3.5",
                format!("it has {count} flag_meanings but {found} integers in {attribute}"),
                "give each meaning, separated by spaces, one value",
            );
        }
    }
}

/// Characters of a string along a dimension, where the format has strings.
fn characters(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    let is_char = place.variable.data_type == DataType::NullTerminatedBytes { length_bytes: 1 };
    let has_strings = !file.source.format().starts_with("NetCDF-3");
    if is_char && has_strings && !place.variable.shape.is_empty() && place.role != Role::Container {
        findings.warn(
            "characters",
            "2.2",
            "it holds strings as single characters along a dimension",
            "store it as strings, which NetCDF-4 has",
        );
    }
}
