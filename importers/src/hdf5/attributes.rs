//! Attributes of HDF5 objects, as netCDF shows them.
//!
//! Source: netCDF-C `NC_findreserved` (what is hidden) and `read_hdf5_att` (text or list of texts);
//! netCDF4-python `_get_att` (NUL is removed, text that is not UTF-8 is replaced).

use hdf5_metno::types::{FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5_metno::{Attribute as Hdf5Attribute, Datatype, Location};

use super::raw;
use crate::source::{Attribute, Attributes};

/// Bookkeeping of NetCDF-4 and of dimension scales, which netCDF never shows.
const HIDDEN: [&str; 11] = [
    "DIMENSION_LIST",
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
/// Bookkeeping in NetCDF-4 and of dimension scales; elsewhere attributes like others.
const HIDDEN_IN_NETCDF: [&str; 2] = ["CLASS", "NAME"];
/// Most texts of an attribute.
const MAX_TEXTS: usize = 1 << 20;

/// The attributes of an object, and those without a place in JSON with the reason.
#[derive(Default)]
pub(super) struct Found {
    pub(super) attributes: Attributes,
    pub(super) refused: Vec<(String, String)>,
}

/// All attributes that are not bookkeeping.
pub(super) fn read_all(object: &Location, is_netcdf4_or_scale: bool) -> Found {
    let mut found = Found::default();
    let names = match object.attr_names() {
        Ok(names) => names,
        Err(error) => {
            found.refused.push((String::new(), error.to_string()));
            return found;
        }
    };
    for name in names {
        if HIDDEN.contains(&name.as_str())
            || (is_netcdf4_or_scale && HIDDEN_IN_NETCDF.contains(&name.as_str()))
        {
            continue;
        }
        let attribute = object.attr(&name).map_err(|error| error.to_string());
        match attribute.and_then(|attribute| value(&attribute)) {
            Ok(value) => found.attributes.push((name, value)),
            Err(reason) => found.refused.push((name, raw::one_line(&reason))),
        }
    }
    found
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

fn value(attribute: &Hdf5Attribute) -> Result<Attribute, String> {
    let failed = |error: hdf5_metno::Error| error.to_string();
    let dtype = attribute.dtype().map_err(failed)?;
    if !raw::has_its_bits(&dtype) {
        return Err("its numbers have bits outside their bytes".into());
    }
    let descriptor = dtype.to_descriptor().map_err(|_| no_place())?;
    let space = attribute.space().map_err(failed)?;
    let shape = if space.is_null() {
        vec![0]
    } else {
        space.shape()
    };
    let flat = match &descriptor {
        TypeDescriptor::VarLenAscii
        | TypeDescriptor::VarLenUnicode
        | TypeDescriptor::FixedAscii(_)
        | TypeDescriptor::FixedUnicode(_) => {
            let is_fixed = matches!(
                descriptor,
                TypeDescriptor::FixedAscii(_) | TypeDescriptor::FixedUnicode(_)
            );
            // An empty text has no dataspace.
            if space.is_null() && is_fixed {
                return Ok(Attribute::Text(String::new()));
            }
            let mut texts = match space.is_null() {
                true => Vec::new(),
                false => texts(attribute, &dtype, &descriptor)?,
            };
            match texts.as_slice() {
                [_] => Attribute::Text(texts.swap_remove(0)),
                _ => Attribute::Texts(texts),
            }
        }
        TypeDescriptor::Enum(inner) => numbers(attribute, &inner.base_type(), space.is_null())?,
        numeric => numbers(attribute, numeric, space.is_null())?,
    };
    Ok(flat.with_shape(&shape))
}

fn no_place() -> String {
    "its type has no place in JSON".into()
}

fn texts(
    attribute: &Hdf5Attribute,
    dtype: &Datatype,
    descriptor: &TypeDescriptor,
) -> Result<Vec<String>, String> {
    let failed = |error: hdf5_metno::Error| error.to_string();
    if attribute.size() > MAX_TEXTS {
        return Err(format!("it holds more than {MAX_TEXTS} texts"));
    }
    match descriptor {
        TypeDescriptor::VarLenAscii => {
            let read = attribute.read_raw::<VarLenAscii>().map_err(failed)?;
            Ok(read.iter().map(|text| lossy(text.as_bytes())).collect())
        }
        TypeDescriptor::VarLenUnicode => {
            let read = attribute.read_raw::<VarLenUnicode>().map_err(failed)?;
            Ok(read.iter().map(|text| lossy(text.as_bytes())).collect())
        }
        _ => {
            let length = dtype.size().max(1);
            let is_one = attribute.ndim() == 0;
            let bytes = raw::read_attribute(attribute, dtype)?;
            let is_padded = raw::is_padded_with_spaces(dtype);
            // One text keeps what follows a NUL, one of several ends there.
            let end = |text: &[u8]| match text.iter().position(|&byte| byte == 0) {
                Some(end) if !is_one => end,
                _ if is_padded => text
                    .iter()
                    .rposition(|&byte| byte != b' ')
                    .map_or(0, |at| at + 1),
                _ => text.len(),
            };
            Ok(bytes
                .chunks_exact(length)
                .map(|text| lossy(&text[..end(text)]))
                .collect())
        }
    }
}

/// Text as netCDF4-python decodes it.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "")
}

fn numbers(
    attribute: &Hdf5Attribute,
    descriptor: &TypeDescriptor,
    is_null: bool,
) -> Result<Attribute, String> {
    // HDF5 widens to 64 bits while it reads.
    let wide = match descriptor {
        TypeDescriptor::Boolean => TypeDescriptor::Integer(IntSize::U1),
        TypeDescriptor::Integer(_) => TypeDescriptor::Integer(IntSize::U8),
        TypeDescriptor::Unsigned(_) => TypeDescriptor::Unsigned(IntSize::U8),
        TypeDescriptor::Float(_) => TypeDescriptor::Float(FloatSize::U8),
        _ => return Err(no_place()),
    };
    let bytes = match is_null {
        true => Vec::new(),
        false => {
            let memory = Datatype::from_descriptor(&wide).map_err(|error| error.to_string())?;
            raw::read_attribute(attribute, &memory)?
        }
    };
    let (words, _) = bytes.as_chunks::<8>();
    Ok(match descriptor {
        TypeDescriptor::Boolean => {
            Attribute::Booleans(bytes.iter().map(|&byte| byte != 0).collect())
        }
        TypeDescriptor::Integer(_) => Attribute::Integers(
            words
                .iter()
                .map(|&w| i64::from_le_bytes(w).into())
                .collect(),
        ),
        TypeDescriptor::Unsigned(_) => Attribute::Integers(
            words
                .iter()
                .map(|&w| u64::from_le_bytes(w).into())
                .collect(),
        ),
        _ => Attribute::Floats(words.iter().map(|&w| f64::from_le_bytes(w)).collect()),
    })
}
