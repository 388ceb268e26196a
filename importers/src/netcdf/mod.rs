//! Tensors as a NetCDF file, in memory.
//!
//! The file is NetCDF-3, classic or 64-bit offset where their types do and CDF-5 otherwise: unlike an
//! HDF5 file it is the same bytes whenever it is written, and writing it waits for no lock of a
//! library.
//!
//! ```text
//! bool               byte, with the attribute dtype = "bool", as xarray has it
//! integers, floats   as they are; what is narrower than float32 becomes float32
//! datetime64         int64 with units and calendar; timedelta64: int64 with units and dtype
//! texts              characters along one more dimension, UTF-8, with _Encoding
//! NUL-padded bytes   characters along one more dimension
//! ```
//!
//! Attributes that speak of values (`_FillValue`, `valid_range`, …) get the variable's type, others the
//! narrowest of `int`, `int64` and `double`; what is neither text nor numbers is written as JSON.

mod attributes;
mod file;

use std::borrow::Cow;
use std::collections::BTreeSet;

use array::{DataType, Elements, Tensor, TimeUnit};
use half::{bf16, f16};
use serde_json::{Map, Value};

use self::file::{File, Type, Values};

/// An array to write.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'a> {
    /// Its name; what a NetCDF name cannot have is replaced by `_`.
    pub name: &'a str,
    /// Names of its dimensions, as many as the tensor has.
    pub dimensions: &'a [Option<String>],
    /// Its elements.
    pub tensor: &'a Tensor,
    /// Attributes that hold for the elements.
    pub attributes: &'a Map<String, Value>,
}

/// What a NetCDF file has no place for.
#[derive(Debug, thiserror::Error)]
#[error("NetCDF cannot hold {variable}: {reason}")]
pub struct Error {
    variable: String,
    reason: String,
}

impl Error {
    fn new(variable: &str, reason: impl Into<String>) -> Self {
        Self {
            variable: variable.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A file with these variables, then these coordinates, all over shared dimensions.
///
/// Dimensions are the same if their name and length are; one without a name is `dim_0` and so on by
/// its place. A coordinate that is not of its own dimension alone, as a scalar, is named in the
/// `coordinates` of the variables.
///
/// # Errors
/// [`Error`] for complex numbers, raw bytes, dates in units CF does not have, text that ends in NUL,
/// and a dimension of length 0 that is not the first.
pub fn write(variables: &[Variable<'_>], coordinates: &[Variable<'_>]) -> Result<Vec<u8>, Error> {
    let mut file = File::default();
    let mut names = BTreeSet::new();
    let all = variables.iter().chain(coordinates);
    let present: BTreeSet<&str> = all.map(|variable| variable.name).collect();
    let mut named: Vec<&str> = Vec::new();
    for coordinate in coordinates {
        let own = [Some(coordinate.name.to_owned())];
        if coordinate.dimensions != own {
            named.push(coordinate.name);
        }
    }
    for (place, variable) in variables.iter().chain(coordinates).enumerate() {
        let mut written = values(variable)?;
        let mut dimensions = Vec::new();
        let lengths = variable.dimensions.iter().zip(&variable.tensor.shape);
        for (axis, (name, &length)) in lengths.enumerate() {
            let name = name.clone().unwrap_or_else(|| format!("dim_{axis}"));
            dimensions.push(dimension(&mut file, &name, length, &dimensions));
        }
        if let Some(length) = written.text_bytes {
            let name = format!("string{length}");
            dimensions.push(dimension(&mut file, &name, length, &dimensions));
        }
        let mut attributes = attributes::convert(variable.attributes, written.values.data_type);
        if place < variables.len() {
            attributes::name_coordinates(&mut attributes, &present, &named);
        }
        attributes.retain(|(name, _)| written.attributes.iter().all(|(own, _)| own != name));
        attributes.append(&mut written.attributes);
        file.variables.push(file::Variable {
            name: unique(clean(variable.name), |name| !names.contains(name)),
            dimensions,
            attributes,
            values: written.values,
        });
        names.extend(file.variables.last().map(|variable| variable.name.clone()));
    }
    file.to_bytes()
}

/// The place of a dimension that the variable does not have yet, of this name unless another length
/// has it.
fn dimension(file: &mut File<'_>, name: &str, length: u64, taken: &[usize]) -> usize {
    let name = clean(name);
    let fits = |place: &usize| {
        let (known, known_length) = &file.dimensions[*place];
        let is_named = *known == name || known.starts_with(&format!("{name}_"));
        is_named && *known_length == length && !taken.contains(place)
    };
    let known = (0..file.dimensions.len()).find(fits);
    known.unwrap_or_else(|| {
        let is_free = |name: &str| file.dimensions.iter().all(|(known, _)| known != name);
        let name = unique(name, is_free);
        file.dimensions.push((name, length));
        file.dimensions.len() - 1
    })
}

/// The name, with a number after it if it is not free.
pub(crate) fn unique(name: String, is_free: impl Fn(&str) -> bool) -> String {
    if is_free(&name) {
        return name;
    }
    let mut number = 1;
    loop {
        let numbered = format!("{name}_{number}");
        if is_free(&numbered) {
            return numbered;
        }
        number += 1;
    }
}

/// A name as NetCDF has them: no `/`, no control characters, no space at the end, and not with a
/// special character first.
pub(crate) fn clean(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    let name = name.trim_end();
    match name.chars().next() {
        Some(first) if first.is_ascii() && !first.is_ascii_alphanumeric() && first != '_' => {
            format!("_{name}")
        }
        Some(_) => name.to_owned(),
        None => "_".to_owned(),
    }
}

/// Elements as the file has them.
struct Written<'a> {
    values: Values<'a>,
    /// Length of the dimension of characters.
    text_bytes: Option<u64>,
    /// Attributes without which the values say something else.
    attributes: Vec<(String, Values<'static>)>,
}

/// Most bytes of a text variable, all texts being as long as the longest.
const MAX_TEXT_BYTES: usize = 1 << 30;

fn values<'a>(variable: &Variable<'a>) -> Result<Written<'a>, Error> {
    let Tensor {
        data_type,
        elements,
        ..
    } = variable.tensor;
    let refused = |reason: &str| Err(Error::new(variable.name, format!("{data_type} {reason}")));
    let Elements::Fixed(bytes) = elements else {
        return match data_type {
            DataType::String => texts(variable),
            _ => refused("has no type there"),
        };
    };
    let plain = |data_type| Written {
        values: Values {
            data_type,
            bytes: Cow::Borrowed(bytes),
        },
        text_bytes: None,
        attributes: Vec::new(),
    };
    Ok(match data_type {
        DataType::Bool => Written {
            attributes: vec![("dtype".into(), attributes::text("bool"))],
            ..plain(Type::Byte)
        },
        DataType::Int8 => plain(Type::Byte),
        DataType::Int16 => plain(Type::Short),
        DataType::Int32 => plain(Type::Int),
        DataType::Int64 => plain(Type::Int64),
        DataType::UInt8 => plain(Type::UByte),
        DataType::UInt16 => plain(Type::UShort),
        DataType::UInt32 => plain(Type::UInt),
        DataType::UInt64 => plain(Type::UInt64),
        DataType::Float32 => plain(Type::Float),
        DataType::Float64 => plain(Type::Double),
        DataType::Float16 => widened(bytes, |bits| f16::from_le_bytes(bits).to_f32()),
        DataType::BFloat16 => widened(bytes, |bits| bf16::from_le_bytes(bits).to_f32()),
        DataType::DateTime64 { unit, scale_factor } => match times(bytes, *unit, *scale_factor) {
            Some((ticks, unit)) => Written {
                attributes: time_attributes(&ticks, |add| {
                    add("units", &format!("{unit} since 1970-01-01"));
                    add("calendar", "proleptic_gregorian");
                }),
                values: ticks,
                text_bytes: None,
            },
            None => return refused("has no unit of CF, or is too far from 1970"),
        },
        DataType::TimeDelta64 { unit, scale_factor } => match times(bytes, *unit, *scale_factor) {
            Some((ticks, name)) => Written {
                attributes: time_attributes(&ticks, |add| {
                    add("units", name);
                    if let Some(resolution) = resolution(*unit) {
                        add("dtype", &format!("timedelta64[{resolution}]"));
                    }
                }),
                values: ticks,
                text_bytes: None,
            },
            None => return refused("has no unit of CF, or is too long"),
        },
        DataType::NullTerminatedBytes { length_bytes } => Written {
            text_bytes: Some(u64::from(*length_bytes)),
            ..plain(Type::Char)
        },
        DataType::FixedLengthUtf32 { .. } => texts(variable)?,
        DataType::Complex64
        | DataType::Complex128
        | DataType::RawBits { .. }
        | DataType::RawBytes { .. }
        | DataType::String
        | DataType::VariableLengthBytes => return refused("has no type there"),
    })
}

fn widened(bytes: &[u8], widen: impl Fn([u8; 2]) -> f32) -> Written<'static> {
    let halves = bytes.chunks_exact(2).map(|half| widen([half[0], half[1]]));
    Written {
        values: Values {
            data_type: Type::Float,
            bytes: halves.flat_map(f32::to_le_bytes).collect(),
        },
        text_bytes: None,
        attributes: Vec::new(),
    }
}

/// A unit of CF and how many of it a unit of NumPy is; none for those CF does not have.
pub(crate) fn cf_unit(unit: TimeUnit) -> Option<(&'static str, i64)> {
    Some(match unit {
        TimeUnit::Week => ("days", 7),
        TimeUnit::Day => ("days", 1),
        TimeUnit::Hour => ("hours", 1),
        TimeUnit::Minute => ("minutes", 1),
        TimeUnit::Second => ("seconds", 1),
        TimeUnit::Millisecond => ("milliseconds", 1),
        TimeUnit::Microsecond => ("microseconds", 1),
        TimeUnit::Nanosecond => ("nanoseconds", 1),
        TimeUnit::Year
        | TimeUnit::Month
        | TimeUnit::Picosecond
        | TimeUnit::Femtosecond
        | TimeUnit::Attosecond
        | TimeUnit::Generic => return None,
    })
}

/// Ticks in a unit of CF, and its name; NaT stays.
fn times(bytes: &[u8], unit: TimeUnit, scale: u32) -> Option<(Values<'static>, &'static str)> {
    let (name, factor) = cf_unit(unit)?;
    let factor = factor * i64::from(scale);
    let mut scaled = Vec::with_capacity(bytes.len());
    for ticks in bytes.chunks_exact(8) {
        let ticks = i64::from_le_bytes(ticks.try_into().ok()?);
        let ticks = match ticks {
            i64::MIN => ticks,
            ticks => ticks.checked_mul(factor)?,
        };
        scaled.extend(ticks.to_le_bytes());
    }
    let values = Values {
        data_type: Type::Int64,
        bytes: scaled.into(),
    };
    Some((values, name))
}

/// xarray's resolution that holds a count of this unit.
pub(crate) fn resolution(unit: TimeUnit) -> Option<&'static str> {
    match unit {
        TimeUnit::Week | TimeUnit::Day | TimeUnit::Hour | TimeUnit::Minute | TimeUnit::Second => {
            Some("s")
        }
        TimeUnit::Millisecond => Some("ms"),
        TimeUnit::Microsecond => Some("us"),
        TimeUnit::Nanosecond => Some("ns"),
        _ => None,
    }
}

/// What `name` adds, and a `_FillValue` if there is a NaT.
fn time_attributes(
    ticks: &Values<'_>,
    name: impl FnOnce(&mut dyn FnMut(&str, &str)),
) -> Vec<(String, Values<'static>)> {
    let mut attributes = Vec::new();
    name(&mut |name, text| attributes.push((name.to_owned(), attributes::text(text))));
    let nat = i64::MIN.to_le_bytes();
    if ticks.bytes.chunks_exact(8).any(|ticks| ticks == nat) {
        let fill = Values {
            data_type: Type::Int64,
            bytes: nat.to_vec().into(),
        };
        attributes.push(("_FillValue".into(), fill));
    }
    attributes
}

/// Texts as UTF-8, all as long as the longest.
fn texts(variable: &Variable<'_>) -> Result<Written<'static>, Error> {
    let texts: Vec<Vec<u8>> = match &variable.tensor.elements {
        Elements::Variable(elements) => elements.iter().map(<[u8]>::to_vec).collect(),
        Elements::Fixed(bytes) => {
            let size = variable.tensor.data_type.size_bytes().unwrap_or(4).max(4);
            let text = |element: &[u8]| {
                let codes = element.as_chunks::<4>().0.iter();
                let text: String = codes
                    .filter_map(|&code| char::from_u32(u32::from_le_bytes(code)))
                    .collect();
                text.trim_end_matches('\0').as_bytes().to_vec()
            };
            bytes.chunks_exact(size).map(text).collect()
        }
    };
    if texts.iter().any(|text| text.ends_with(b"\0")) {
        let reason = "text that ends in NUL, which readers take for padding";
        return Err(Error::new(variable.name, reason));
    }
    // Length 0 would be that of the record dimension.
    let length = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let total = texts.len().checked_mul(length);
    let Some(total) = total.filter(|&total| total <= MAX_TEXT_BYTES) else {
        let reason = format!(
            "{} texts would each take the {length} bytes of the longest",
            texts.len()
        );
        return Err(Error::new(variable.name, reason));
    };
    let mut bytes = Vec::with_capacity(total);
    for (place, text) in texts.iter().enumerate() {
        bytes.extend(text);
        bytes.resize((place + 1) * length, 0);
    }
    Ok(Written {
        values: Values {
            data_type: Type::Char,
            bytes: bytes.into(),
        },
        text_bytes: Some(length as u64),
        attributes: vec![("_Encoding".into(), attributes::text("utf-8"))],
    })
}

#[cfg(test)]
mod tests;
