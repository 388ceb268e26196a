//! Attributes as NetCDF-4 types them.
//!
//! Those that speak of stored values have the variable's type. Others are `int`, or the narrowest of
//! `int64`, `uint64` and `double` that holds them; text is characters, several texts are strings;
//! what is neither is written as JSON. A JSON null has no place and goes.
//!
//! `scale_factor` and `add_offset` are `float` where they are exactly numbers that were: a `float`
//! widened has more digits than a `double` would be written with. Readers unpack to their type.

use array::DataType;
use hdf5_metno::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5_metno::{Datatype, Location};
use serde_json::{Map, Value};

use super::raw::{self, Extent};
use crate::export::zarr2::fill_attribute;
use crate::netcdf::clean;

/// Attributes that speak of stored values and so have the type of the variable.
const OF_VALUES: [&str; 7] = [
    "_FillValue",
    "missing_value",
    "valid_min",
    "valid_max",
    "valid_range",
    "flag_values",
    "flag_masks",
];
/// Attributes whose type says what values are unpacked to.
const PACKING: [&str; 2] = ["scale_factor", "add_offset"];
/// Names that the format uses for itself.
const RESERVED: [&str; 13] = [
    "CLASS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_ARRAY_DIMENSIONS",
    "_Codecs",
    "_Format",
    "_IsNetcdf4",
    "_NCProperties",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_SuperblockVersion",
    "_nc3_strict",
];

/// The value of an attribute, typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Typed {
    /// Characters.
    Text(String),
    /// Strings.
    Texts(Vec<String>),
    /// Numbers of this type, little-endian.
    Numbers(TypeDescriptor, Vec<u8>),
}

/// An attribute to write.
pub(super) type Attribute = (String, Typed);

/// A number's HDF5 type; none for what is no number.
pub(super) fn descriptor(data_type: &DataType) -> Option<TypeDescriptor> {
    Some(match data_type {
        DataType::Bool | DataType::Int8 => TypeDescriptor::Integer(IntSize::U1),
        DataType::Int16 => TypeDescriptor::Integer(IntSize::U2),
        DataType::Int32 => TypeDescriptor::Integer(IntSize::U4),
        DataType::Int64 => TypeDescriptor::Integer(IntSize::U8),
        DataType::UInt8 => TypeDescriptor::Unsigned(IntSize::U1),
        DataType::UInt16 => TypeDescriptor::Unsigned(IntSize::U2),
        DataType::UInt32 => TypeDescriptor::Unsigned(IntSize::U4),
        DataType::UInt64 => TypeDescriptor::Unsigned(IntSize::U8),
        DataType::Float32 => TypeDescriptor::Float(FloatSize::U4),
        DataType::Float64 => TypeDescriptor::Float(FloatSize::U8),
        _ => return None,
    })
}

/// The attributes of a group, or of a variable whose elements are numbers of this type.
///
/// # Errors
/// The name of an attribute that the format needs in the variable's type, and that has no such value.
pub(super) fn convert(
    attributes: &Map<String, Value>,
    of: Option<&DataType>,
) -> Result<Vec<Attribute>, String> {
    let mut converted: Vec<Attribute> = Vec::new();
    for (name, value) in attributes {
        let typed = match of {
            Some(data_type) if OF_VALUES.contains(&name.as_str()) => {
                let typed = of_type(value, data_type);
                if typed.is_none() && name == "_FillValue" {
                    return Err(name.clone());
                }
                typed.or_else(|| any(value))
            }
            Some(_) if PACKING.contains(&name.as_str()) => packing(value).or_else(|| any(value)),
            _ => any(value),
        };
        let Some(typed) = typed else { continue };
        let mut name = clean(name);
        while RESERVED.contains(&name.as_str()) || converted.iter().any(|(known, _)| *known == name)
        {
            name.push('_');
        }
        converted.push((name, typed));
    }
    Ok(converted)
}

/// A value or a list of them in the type of a variable; `None` if one has no place in it.
fn of_type(value: &Value, data_type: &DataType) -> Option<Typed> {
    let mut bytes = Vec::new();
    for item in items(value) {
        let truth;
        // Truth values are bytes there.
        let (item, data_type) = match (item, data_type) {
            (Value::Bool(value), _) => {
                truth = Value::from(u8::from(*value));
                (&truth, int8(data_type))
            }
            (item, data_type) => (item, int8(data_type)),
        };
        bytes.extend(fill_attribute(data_type, item)?.as_bytes());
    }
    Some(Typed::Numbers(descriptor(data_type)?, bytes))
}

fn int8(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Bool => &DataType::Int8,
        other => other,
    }
}

/// A number in the type it had, if that was `float`.
fn packing(value: &Value) -> Option<Typed> {
    let number = value.as_f64().filter(|_| value.is_f64())?;
    let narrow = number as f32;
    // The shortest text of a double that was one is short; widened, it has all its digits.
    let was_float = f64::from(narrow) == number && narrow.to_string() != number.to_string();
    was_float.then(|| {
        Typed::Numbers(
            TypeDescriptor::Float(FloatSize::U4),
            narrow.to_le_bytes().to_vec(),
        )
    })
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        one => std::slice::from_ref(one),
    }
}

/// A value in the type that it asks for itself; none for null.
pub(super) fn any(value: &Value) -> Option<Typed> {
    let json = || Some(Typed::Text(value.to_string()));
    match value {
        Value::Null => None,
        Value::String(text) => Some(Typed::Text(text.clone())),
        Value::Bool(truth) => Some(Typed::Numbers(
            TypeDescriptor::Integer(IntSize::U1),
            vec![u8::from(*truth)],
        )),
        Value::Object(_) => json(),
        Value::Array(items) if items.is_empty() => Some(Typed::Numbers(
            TypeDescriptor::Float(FloatSize::U8),
            Vec::new(),
        )),
        Value::Array(items)
            if items.iter().all(Value::is_string) && !items.iter().all(is_special) =>
        {
            let texts = items.iter().filter_map(Value::as_str);
            Some(Typed::Texts(texts.map(str::to_owned).collect()))
        }
        Value::Array(list) if list.iter().all(Value::is_boolean) => {
            let truths = list.iter().map(|item| u8::from(*item == Value::Bool(true)));
            Some(Typed::Numbers(
                TypeDescriptor::Integer(IntSize::U1),
                truths.collect(),
            ))
        }
        Value::Number(_) | Value::Array(_) => {
            let list = items(value);
            // NumPy's int64 is what a bare whole number is elsewhere; netCDF's own is `int`.
            for data_type in [DataType::Int32, DataType::Int64, DataType::UInt64] {
                let is_whole = |item: &Value| item.is_i64() || item.is_u64();
                if list.iter().all(is_whole)
                    && let Some(typed) = of_type(value, &data_type)
                {
                    return Some(typed);
                }
            }
            let is_number = |item: &Value| item.is_number() || is_special(item);
            match list.iter().all(is_number) {
                true => of_type(value, &DataType::Float64).or_else(json),
                false => json(),
            }
        }
    }
}

/// A float that JSON has no number for.
fn is_special(value: &Value) -> bool {
    matches!(value.as_str(), Some("NaN" | "Infinity" | "-Infinity"))
}

/// Writes an attribute.
///
/// # Errors
/// What the library says.
pub(super) fn write(object: &Location, (name, value): &Attribute) -> Result<(), String> {
    let described = |descriptor: &TypeDescriptor| {
        Datatype::from_descriptor(descriptor).map_err(|error| raw::one_line(&error))
    };
    match value {
        Typed::Text(text) => {
            let data_type = raw::fixed_text(text.len(), !text.is_ascii())?;
            let extent = match text.is_empty() {
                true => Extent::Null,
                false => Extent::Scalar,
            };
            raw::write_attribute(object, name, &data_type, extent, text.as_bytes())
        }
        Typed::Texts(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| text.replace('\0', "")).collect();
            let data_type = described(&TypeDescriptor::VarLenUnicode)?;
            raw::write_text_list(object, name, &data_type, &texts)
        }
        Typed::Numbers(descriptor, bytes) => {
            let data_type = described(descriptor)?;
            let extent = match bytes.len() / data_type.size().max(1) {
                0 => Extent::Null,
                length => Extent::Vector(length),
            };
            raw::write_attribute(object, name, &data_type, extent, bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn numbers(descriptor: TypeDescriptor, bytes: &[u8]) -> Option<Typed> {
        Some(Typed::Numbers(descriptor, bytes.to_vec()))
    }

    #[test]
    fn attributes_have_the_type_they_ask_for() {
        let double = || TypeDescriptor::Float(FloatSize::U8);
        for (value, expected) in [
            (json!(null), None),
            (json!("a"), Some(Typed::Text("a".into()))),
            (
                json!(1),
                numbers(TypeDescriptor::Integer(IntSize::U4), &[1, 0, 0, 0]),
            ),
            (
                json!(1u64 << 40),
                numbers(
                    TypeDescriptor::Integer(IntSize::U8),
                    &(1u64 << 40).to_le_bytes(),
                ),
            ),
            (
                json!(u64::MAX),
                numbers(TypeDescriptor::Unsigned(IntSize::U8), &[255; 8]),
            ),
            (json!(1.0), numbers(double(), &1f64.to_le_bytes())),
            (json!([]), numbers(double(), &[])),
            (
                json!(["a", "b"]),
                Some(Typed::Texts(vec!["a".into(), "b".into()])),
            ),
            (
                json!(true),
                numbers(TypeDescriptor::Integer(IntSize::U1), &[1]),
            ),
            (json!({"a": 1}), Some(Typed::Text("{\"a\":1}".into()))),
            (json!([[1], [2]]), Some(Typed::Text("[[1],[2]]".into()))),
            (json!([1, "a"]), Some(Typed::Text("[1,\"a\"]".into()))),
        ] {
            assert_eq!(any(&value), expected, "{value}");
        }
        let mixed = any(&json!([1.5, "NaN"]));
        let Some(Typed::Numbers(_, bytes)) = mixed else {
            panic!("numbers: {mixed:?}");
        };
        assert_eq!(bytes.len(), 16);
    }

    #[test]
    fn attributes_of_values_have_the_variables_type() {
        let attributes = json!({
            "_FillValue": -1, "valid_range": [0, 10], "missing_value": 1.5,
            "scale_factor": f64::from(0.1f32), "add_offset": 0.1,
        });
        let Value::Object(attributes) = attributes else {
            return;
        };
        let converted = convert(&attributes, Some(&DataType::Int16)).unwrap();
        let find = |name: &str| {
            converted
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, v)| v.clone())
        };
        let short = TypeDescriptor::Integer(IntSize::U2);
        assert_eq!(find("_FillValue"), numbers(short.clone(), &[255, 255]));
        assert_eq!(find("valid_range"), numbers(short, &[0, 0, 10, 0]));
        // No short: as it is.
        let double = TypeDescriptor::Float(FloatSize::U8);
        assert_eq!(
            find("missing_value"),
            numbers(double.clone(), &1.5f64.to_le_bytes())
        );
        let float = TypeDescriptor::Float(FloatSize::U4);
        assert_eq!(find("scale_factor"), numbers(float, &0.1f32.to_le_bytes()));
        assert_eq!(find("add_offset"), numbers(double, &0.1f64.to_le_bytes()));
        let Value::Object(bad) = json!({ "_FillValue": 70_000 }) else {
            return;
        };
        assert_eq!(
            convert(&bad, Some(&DataType::Int16)),
            Err("_FillValue".to_owned())
        );
    }

    #[test]
    fn names_of_the_format_itself_are_not_taken() {
        let Value::Object(attributes) = json!({ "CLASS": "a", "x/y": 1 }) else {
            return;
        };
        let names: Vec<String> = convert(&attributes, None)
            .unwrap()
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(names, ["CLASS_", "x_y"]);
    }
}
