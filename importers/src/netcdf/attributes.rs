//! Attributes as NetCDF types them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use array::{DataType, FillValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::clean;
use super::file::{Type, Values};

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

type Attributes = Vec<(String, Values<'static>)>;

/// The attributes of a variable of this type. Nulls are left out, and so are values that a variable of
/// this type cannot have.
pub(super) fn convert(attributes: &Map<String, Value>, data_type: Type) -> Attributes {
    let mut converted = Attributes::new();
    for (name, value) in attributes {
        let values = if OF_VALUES.contains(&name.as_str()) {
            of_type(value, data_type)
        } else {
            any(value)
        };
        let name = clean(name);
        if let Some(values) = values
            && converted.iter().all(|(known, _)| *known != name)
        {
            converted.push((name, values));
        }
    }
    converted
}

/// Makes the `coordinates` of a variable name what is in the file alone, as readers want it, and
/// `others`.
pub(super) fn name_coordinates(
    attributes: &mut Attributes,
    present: &BTreeSet<&str>,
    others: &[&str],
) {
    let place = attributes
        .iter()
        .position(|(name, _)| name == "coordinates");
    let known = place.map(|place| attributes.remove(place).1);
    let known = known.map_or(Cow::Borrowed(&[][..]), |values| values.bytes);
    let known = String::from_utf8_lossy(&known).into_owned();
    let mut names: Vec<&str> = known.split_whitespace().collect();
    names.retain(|name| present.contains(name));
    names.extend(
        others
            .iter()
            .filter(|other| !known.split_whitespace().any(|name| name == **other)),
    );
    if !names.is_empty() {
        attributes.push(("coordinates".into(), text(&names.join(" "))));
    }
}

/// Text as characters.
pub(super) fn text(text: &str) -> Values<'static> {
    Values {
        data_type: Type::Char,
        bytes: text.as_bytes().to_vec().into(),
    }
}

/// A value or a list of them in the type of a variable; `None` if one has no place in it.
fn of_type(value: &Value, data_type: Type) -> Option<Values<'static>> {
    if data_type == Type::Char {
        // Missing texts are not a thing of this format.
        return None;
    }
    let mut bytes = Vec::new();
    for item in items(value) {
        bytes.extend(element(item, data_type)?);
    }
    (!bytes.is_empty()).then_some(Values {
        data_type,
        bytes: bytes.into(),
    })
}

/// The bytes of a number, little-endian.
///
/// A float may be written as xarray's Zarr encoding has it, base64 of a little-endian `f64`.
fn element(value: &Value, data_type: Type) -> Option<Vec<u8>> {
    let array_type = match data_type {
        Type::Byte => DataType::Int8,
        Type::Short => DataType::Int16,
        Type::Int => DataType::Int32,
        Type::Int64 => DataType::Int64,
        Type::UByte => DataType::UInt8,
        Type::UShort => DataType::UInt16,
        Type::UInt => DataType::UInt32,
        Type::UInt64 => DataType::UInt64,
        Type::Float => DataType::Float32,
        Type::Double => DataType::Float64,
        Type::Char => return None,
    };
    if let Ok(fill) = FillValue::parse(&array_type, value) {
        return Some(fill.as_bytes().to_vec());
    }
    let number = match value {
        Value::Bool(truth) => return element(&Value::from(u8::from(*truth)), data_type),
        Value::String(text) if array_type.is_float() => {
            f64::from_le_bytes(BASE64.decode(text).ok()?.try_into().ok()?)
        }
        Value::Number(number) => number.as_f64()?,
        _ => return None,
    };
    match data_type {
        Type::Float => Some((number as f32).to_le_bytes().to_vec()),
        Type::Double => Some(number.to_le_bytes().to_vec()),
        // A whole number written as a float.
        _ if number.fract() == 0.0 && number.abs() < 9e15 => {
            let whole = FillValue::parse(&array_type, &Value::from(number as i64)).ok()?;
            Some(whole.as_bytes().to_vec())
        }
        _ => None,
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        one => std::slice::from_ref(one),
    }
}

/// A value in the type that it asks for itself.
fn any(value: &Value) -> Option<Values<'static>> {
    match value {
        Value::Null => None,
        Value::String(string) => Some(text(string)),
        Value::Bool(_) => of_type(value, Type::Byte),
        Value::Object(_) => Some(text(&value.to_string())),
        Value::Number(_) | Value::Array(_) => {
            let items = items(value);
            let is_number = |item: &Value| item.is_number();
            if items.is_empty() || !items.iter().all(is_number) {
                return Some(text(&value.to_string()));
            }
            let fit = |data_type| items.iter().all(|item| is_exact(item, data_type));
            let narrowest = [Type::Int, Type::Int64, Type::UInt64].into_iter();
            let data_type = narrowest.clone().find(|&data_type| fit(data_type));
            of_type(value, data_type.unwrap_or(Type::Double))
        }
    }
}

/// Whether a number is a whole one of this type, and written as such.
fn is_exact(number: &Value, data_type: Type) -> bool {
    match data_type {
        Type::Int => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Type::Int64 => number.is_i64(),
        _ => number.is_u64(),
    }
}
