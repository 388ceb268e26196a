//! Attributes of HDF5 objects.

use hdf5_metno::types::{FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5_metno::{Attribute as Hdf5Attribute, Datatype, Location};

use super::raw;
use crate::source::{Attribute, Attributes};

/// Bookkeeping of NetCDF-4 and of dimension scales, which netCDF does not show.
const HIDDEN: [&str; 10] = [
    "CLASS",
    "DIMENSION_LABELS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_NCCOPY",
    "_NCProperties",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_nc3_strict",
];

/// All attributes that are not bookkeeping.
///
/// # Errors
/// The name of one that cannot be imported, and why.
pub(super) fn read_all(
    object: &Location,
    is_dataset: bool,
) -> Result<Attributes, (String, String)> {
    let names = object
        .attr_names()
        .map_err(|error| (String::new(), error.to_string()))?;
    let is_scale = is_dataset && text(object, "CLASS").as_deref() == Some("DIMENSION_SCALE");
    let mut attributes = Attributes::new();
    for name in names {
        let hidden = match name.as_str() {
            // A user's own NAME and CLASS stay.
            "CLASS" | "NAME" => is_scale,
            name => HIDDEN.contains(&name),
        };
        if hidden {
            continue;
        }
        let attribute = object
            .attr(&name)
            .map_err(|error| (name.clone(), error.to_string()))?;
        let value = value(&attribute).map_err(|reason| (name.clone(), reason))?;
        attributes.push((name, value));
    }
    Ok(attributes)
}

/// The text of an attribute, if it is one.
pub(super) fn text(object: &Location, name: &str) -> Option<String> {
    match value(&object.attr(name).ok()?).ok()? {
        Attribute::Text(text) => Some(text),
        _ => None,
    }
}

/// The integers of an attribute, if it holds any.
pub(super) fn integers(object: &Location, name: &str) -> Option<Vec<i64>> {
    match value(&object.attr(name).ok()?).ok()? {
        Attribute::Integers(values) => values
            .into_iter()
            .map(|value| i64::try_from(value).ok())
            .collect(),
        _ => None,
    }
}

/// The only integer of an attribute.
pub(super) fn integer(object: &Location, name: &str) -> Option<i64> {
    integers(object, name)?.first().copied()
}

fn value(attribute: &Hdf5Attribute) -> Result<Attribute, String> {
    let failed = |error: hdf5_metno::Error| error.to_string();
    let dtype = attribute.dtype().map_err(failed)?;
    let descriptor = dtype
        .to_descriptor()
        .map_err(|_| "its type has no place in JSON".to_owned())?;
    let is_null = attribute.space().map_err(failed)?.is_null();
    let is_scalar = attribute.ndim() == 0;
    let texts = |texts: Vec<String>| match <[String; 1]>::try_from(texts) {
        Ok([text]) => Attribute::Text(text),
        Err(texts) if texts.is_empty() && (is_scalar || is_null) => Attribute::Text(String::new()),
        Err(texts) => Attribute::Texts(texts),
    };
    if is_null {
        return Ok(match descriptor {
            TypeDescriptor::Float(_) => Attribute::Floats(Vec::new()),
            TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) => {
                Attribute::Integers(Vec::new())
            }
            _ => Attribute::Text(String::new()),
        });
    }
    match &descriptor {
        TypeDescriptor::VarLenAscii => {
            let read = attribute.read_raw::<VarLenAscii>().map_err(failed)?;
            Ok(texts(
                read.iter().map(|text| lossy(text.as_bytes())).collect(),
            ))
        }
        TypeDescriptor::VarLenUnicode => {
            let read = attribute.read_raw::<VarLenUnicode>().map_err(failed)?;
            Ok(texts(
                read.iter().map(|text| lossy(text.as_bytes())).collect(),
            ))
        }
        TypeDescriptor::FixedAscii(length) | TypeDescriptor::FixedUnicode(length) => {
            let bytes = raw::read_attribute(attribute, &dtype)?;
            let read = bytes.chunks_exact((*length).max(1)).map(|text| {
                let end = text
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(text.len());
                lossy(&text[..end])
            });
            Ok(texts(read.collect()))
        }
        TypeDescriptor::Enum(inner) => numbers(attribute, &inner.base_type()),
        numeric => numbers(attribute, numeric),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn numbers(attribute: &Hdf5Attribute, descriptor: &TypeDescriptor) -> Result<Attribute, String> {
    let read = |descriptor: &TypeDescriptor| {
        let memory = Datatype::from_descriptor(descriptor).map_err(|error| error.to_string())?;
        raw::read_attribute(attribute, &memory)
    };
    let words = |bytes: Vec<u8>| -> Vec<[u8; 8]> {
        bytes
            .chunks_exact(8)
            .filter_map(|word| word.try_into().ok())
            .collect()
    };
    // HDF5 widens to 64 bits while it reads.
    Ok(match descriptor {
        TypeDescriptor::Boolean => Attribute::Booleans(
            read(descriptor)?
                .into_iter()
                .map(|byte| byte != 0)
                .collect(),
        ),
        TypeDescriptor::Integer(_) => {
            let bytes = read(&TypeDescriptor::Integer(IntSize::U8))?;
            Attribute::Integers(
                words(bytes)
                    .into_iter()
                    .map(|w| i128::from(i64::from_le_bytes(w)))
                    .collect(),
            )
        }
        TypeDescriptor::Unsigned(_) => {
            let bytes = read(&TypeDescriptor::Unsigned(IntSize::U8))?;
            Attribute::Integers(
                words(bytes)
                    .into_iter()
                    .map(|w| i128::from(u64::from_le_bytes(w)))
                    .collect(),
            )
        }
        TypeDescriptor::Float(_) => {
            let bytes = read(&TypeDescriptor::Float(FloatSize::U8))?;
            Attribute::Floats(words(bytes).into_iter().map(f64::from_le_bytes).collect())
        }
        _ => return Err("its type has no place in JSON".into()),
    })
}
