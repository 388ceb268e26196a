//! Data types of array elements, as Zarr v3 names them.
//!
//! In memory every fixed-size element is little-endian, which is the native order of all supported
//! targets; the stored order is the `bytes` codec's business.
//!
//! Source: Zarr v3 core, "Data types", and the zarr-extensions registry for the types beyond core.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::Error;

/// Longest fixed-length element, in bytes.
pub const MAX_ELEMENT_BYTES: u32 = 1 << 20;

/// The unit of a datetime or a duration, as NumPy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// Years.
    Year,
    /// Months.
    Month,
    /// Weeks.
    Week,
    /// Days.
    Day,
    /// Hours.
    Hour,
    /// Minutes.
    Minute,
    /// Seconds.
    Second,
    /// 10^-3 s.
    Millisecond,
    /// 10^-6 s.
    Microsecond,
    /// 10^-9 s.
    Nanosecond,
    /// 10^-12 s.
    Picosecond,
    /// 10^-15 s.
    Femtosecond,
    /// 10^-18 s.
    Attosecond,
    /// No unit.
    Generic,
}

impl TimeUnit {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Year, "Y"),
        (Self::Month, "M"),
        (Self::Week, "W"),
        (Self::Day, "D"),
        (Self::Hour, "h"),
        (Self::Minute, "m"),
        (Self::Second, "s"),
        (Self::Millisecond, "ms"),
        (Self::Microsecond, "us"),
        (Self::Nanosecond, "ns"),
        (Self::Picosecond, "ps"),
        (Self::Femtosecond, "fs"),
        (Self::Attosecond, "as"),
        (Self::Generic, "generic"),
    ];

    /// NumPy's abbreviation, for instance `ns`.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(unit, _)| *unit == self)
            .map_or("generic", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        let name = if name == "μs" { "us" } else { name };
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(unit, _)| *unit)
    }
}

/// The type of an array's elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the numeric variants are their Zarr names")]
pub enum DataType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float16,
    BFloat16,
    Float32,
    Float64,
    Complex64,
    Complex128,
    /// Ticks of `scale_factor` units since 1970-01-01; `i64::MIN` is NaT.
    DateTime64 {
        unit: TimeUnit,
        scale_factor: u32,
    },
    /// A count of ticks of `scale_factor` units; `i64::MIN` is NaT.
    TimeDelta64 {
        unit: TimeUnit,
        scale_factor: u32,
    },
    /// Zarr core's `r<bits>`: opaque bytes.
    RawBits {
        length_bytes: u32,
    },
    /// NumPy's `V`: opaque bytes, fill value in base64.
    RawBytes {
        length_bytes: u32,
    },
    /// NumPy's `S`: bytes padded with NUL.
    NullTerminatedBytes {
        length_bytes: u32,
    },
    /// NumPy's `U`: UTF-32 code points padded with zeros; `length_bytes` is a multiple of 4.
    FixedLengthUtf32 {
        length_bytes: u32,
    },
    /// UTF-8 text of any length.
    String,
    /// Bytes of any length.
    VariableLengthBytes,
}

const SIMPLE: [(&str, DataType); 15] = [
    ("bool", DataType::Bool),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float16", DataType::Float16),
    ("bfloat16", DataType::BFloat16),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("complex64", DataType::Complex64),
    ("complex128", DataType::Complex128),
];

impl DataType {
    /// Reads the `data_type` member of a `zarr.json`: a name, or an object with `name` and
    /// `configuration`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a type this version does not hold, [`Error::Invalid`] for a
    /// malformed one.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        let empty = Map::new();
        let (name, configuration) = match value {
            Value::String(name) => (name.as_str(), &empty),
            Value::Object(members) => {
                let name = members
                    .get("name")
                    .and_then(Value::as_str)
                    .ok_or_else(|| Error::invalid("data type", "no \"name\""))?;
                let configuration = match members.get("configuration") {
                    None => &empty,
                    Some(Value::Object(configuration)) => configuration,
                    Some(_) => {
                        return Err(Error::invalid(
                            "data type",
                            "\"configuration\" is not an object",
                        ));
                    }
                };
                (name, configuration)
            }
            _ => return Err(Error::invalid("data type", "neither a name nor an object")),
        };
        if let Some((_, data_type)) = SIMPLE.iter().find(|(known, _)| *known == name) {
            return Ok(data_type.clone());
        }
        match name {
            "complex_float32" => Ok(Self::Complex64),
            "complex_float64" => Ok(Self::Complex128),
            "string" => Ok(Self::String),
            "bytes" | "variable_length_bytes" | "binary" => Ok(Self::VariableLengthBytes),
            "numpy.datetime64" => {
                let (unit, scale_factor) = time_configuration(configuration)?;
                Ok(Self::DateTime64 { unit, scale_factor })
            }
            "numpy.timedelta64" => {
                let (unit, scale_factor) = time_configuration(configuration)?;
                Ok(Self::TimeDelta64 { unit, scale_factor })
            }
            "raw_bytes" => Ok(Self::RawBytes {
                length_bytes: length_bytes(configuration, 1)?,
            }),
            "null_terminated_bytes" => Ok(Self::NullTerminatedBytes {
                length_bytes: length_bytes(configuration, 1)?,
            }),
            "fixed_length_utf32" => Ok(Self::FixedLengthUtf32 {
                length_bytes: length_bytes(configuration, 4)?,
            }),
            _ => match name.strip_prefix('r').map(str::parse::<u32>) {
                Some(Ok(bits)) if bits > 0 && bits % 8 == 0 && bits / 8 <= MAX_ELEMENT_BYTES => {
                    Ok(Self::RawBits {
                        length_bytes: bits / 8,
                    })
                }
                Some(Ok(_)) => Err(Error::invalid(
                    "data type",
                    format!("{name}: bits must be a positive multiple of 8, at most 2^23"),
                )),
                _ => Err(Error::unsupported("data type", format!("{name:?}"))),
            },
        }
    }

    /// The `data_type` member of a `zarr.json`.
    pub fn to_json(&self) -> Value {
        let with = |name: &str, configuration: Value| json!({ "name": name, "configuration": configuration });
        match self {
            Self::DateTime64 { unit, scale_factor } => with(
                "numpy.datetime64",
                json!({ "unit": unit.name(), "scale_factor": scale_factor }),
            ),
            Self::TimeDelta64 { unit, scale_factor } => with(
                "numpy.timedelta64",
                json!({ "unit": unit.name(), "scale_factor": scale_factor }),
            ),
            Self::RawBytes { length_bytes } => {
                with("raw_bytes", json!({ "length_bytes": length_bytes }))
            }
            Self::NullTerminatedBytes { length_bytes } => with(
                "null_terminated_bytes",
                json!({ "length_bytes": length_bytes }),
            ),
            Self::FixedLengthUtf32 { length_bytes } => with(
                "fixed_length_utf32",
                json!({ "length_bytes": length_bytes }),
            ),
            Self::RawBits { length_bytes } => json!(format!("r{}", u64::from(*length_bytes) * 8)),
            Self::String => json!("string"),
            Self::VariableLengthBytes => json!("variable_length_bytes"),
            simple => json!(simple.simple_name()),
        }
    }

    fn simple_name(&self) -> &'static str {
        SIMPLE
            .iter()
            .find(|(_, known)| known == self)
            .map_or("", |(name, _)| name)
    }

    /// Bytes one element takes in memory; `None` for variable-length types.
    pub fn size_bytes(&self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 | Self::Float16 | Self::BFloat16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64
            | Self::UInt64
            | Self::Float64
            | Self::Complex64
            | Self::DateTime64 { .. }
            | Self::TimeDelta64 { .. } => 8,
            Self::Complex128 => 16,
            Self::RawBits { length_bytes }
            | Self::RawBytes { length_bytes }
            | Self::NullTerminatedBytes { length_bytes }
            | Self::FixedLengthUtf32 { length_bytes } => *length_bytes as usize,
            Self::String | Self::VariableLengthBytes => return None,
        })
    }

    /// Whether elements have no fixed size.
    pub fn is_variable_length(&self) -> bool {
        self.size_bytes().is_none()
    }

    /// Whether elements are `float16`, `bfloat16`, `float32` or `float64`.
    pub fn is_float(&self) -> bool {
        matches!(
            self,
            Self::Float16 | Self::BFloat16 | Self::Float32 | Self::Float64
        )
    }

    /// Whether elements are signed or unsigned integers.
    pub fn is_integer(&self) -> bool {
        self.is_signed_integer() || self.is_unsigned_integer()
    }

    /// Whether elements are signed integers.
    pub fn is_signed_integer(&self) -> bool {
        matches!(self, Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64)
    }

    /// Whether elements are unsigned integers.
    pub fn is_unsigned_integer(&self) -> bool {
        matches!(
            self,
            Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64
        )
    }

    /// Whether elements are complex numbers.
    pub fn is_complex(&self) -> bool {
        matches!(self, Self::Complex64 | Self::Complex128)
    }

    /// NumPy's type string (`<f4`, `|S3`, `<M8[ns]`); `None` where NumPy has no such type.
    ///
    /// `bfloat16` and `r<bits>` read as void of the same size (`|V2`), the bytes being what NumPy
    /// can hold of them.
    pub fn numpy_descr(&self) -> Option<String> {
        let time = |letter: char, unit: TimeUnit, scale: u32| match (unit, scale) {
            (TimeUnit::Generic, _) => format!("<{letter}8"),
            (unit, 1) => format!("<{letter}8[{}]", unit.name()),
            (unit, scale) => format!("<{letter}8[{scale}{}]", unit.name()),
        };
        Some(match self {
            Self::Bool => "|b1".into(),
            Self::Int8 => "|i1".into(),
            Self::UInt8 => "|u1".into(),
            Self::Int16 => "<i2".into(),
            Self::Int32 => "<i4".into(),
            Self::Int64 => "<i8".into(),
            Self::UInt16 => "<u2".into(),
            Self::UInt32 => "<u4".into(),
            Self::UInt64 => "<u8".into(),
            Self::Float16 => "<f2".into(),
            Self::Float32 => "<f4".into(),
            Self::Float64 => "<f8".into(),
            Self::Complex64 => "<c8".into(),
            Self::Complex128 => "<c16".into(),
            Self::BFloat16 => "|V2".into(),
            Self::DateTime64 { unit, scale_factor } => time('M', *unit, *scale_factor),
            Self::TimeDelta64 { unit, scale_factor } => time('m', *unit, *scale_factor),
            Self::RawBits { length_bytes } | Self::RawBytes { length_bytes } => {
                format!("|V{length_bytes}")
            }
            Self::NullTerminatedBytes { length_bytes } => format!("|S{length_bytes}"),
            Self::FixedLengthUtf32 { length_bytes } => format!("<U{}", length_bytes / 4),
            Self::String | Self::VariableLengthBytes => return None,
        })
    }
}

impl fmt::Display for DataType {
    /// The name of the type, with its parameters in brackets where it has any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |f: &mut fmt::Formatter<'_>, name: &str, unit: TimeUnit, scale: u32| match scale
        {
            1 => write!(f, "{name}[{}]", unit.name()),
            scale => write!(f, "{name}[{scale}{}]", unit.name()),
        };
        match self {
            Self::DateTime64 { unit, scale_factor } => time(f, "datetime64", *unit, *scale_factor),
            Self::TimeDelta64 { unit, scale_factor } => {
                time(f, "timedelta64", *unit, *scale_factor)
            }
            Self::RawBits { length_bytes } => write!(f, "r{}", u64::from(*length_bytes) * 8),
            Self::RawBytes { length_bytes } => write!(f, "raw_bytes[{length_bytes}]"),
            Self::NullTerminatedBytes { length_bytes } => {
                write!(f, "null_terminated_bytes[{length_bytes}]")
            }
            Self::FixedLengthUtf32 { length_bytes } => {
                write!(f, "fixed_length_utf32[{length_bytes}]")
            }
            Self::String => f.write_str("string"),
            Self::VariableLengthBytes => f.write_str("variable_length_bytes"),
            simple => f.write_str(simple.simple_name()),
        }
    }
}

fn time_configuration(configuration: &Map<String, Value>) -> Result<(TimeUnit, u32), Error> {
    let unit = configuration
        .get("unit")
        .and_then(Value::as_str)
        .and_then(TimeUnit::parse)
        .ok_or_else(|| Error::invalid("data type", "\"unit\" is not a NumPy time unit"))?;
    let scale_factor = configuration
        .get("scale_factor")
        .map_or(Some(1), Value::as_u64)
        .and_then(|scale| u32::try_from(scale).ok())
        .filter(|&scale| (1..=i32::MAX as u32).contains(&scale))
        .ok_or_else(|| {
            Error::invalid("data type", "\"scale_factor\" must be from 1 to 2^31 - 1")
        })?;
    Ok((unit, scale_factor))
}

fn length_bytes(configuration: &Map<String, Value>, multiple_of: u32) -> Result<u32, Error> {
    configuration
        .get("length_bytes")
        .and_then(Value::as_u64)
        .and_then(|length| u32::try_from(length).ok())
        .filter(|&length| (1..=MAX_ELEMENT_BYTES).contains(&length) && length % multiple_of == 0)
        .ok_or_else(|| {
            let reason = format!(
                "\"length_bytes\" must be a multiple of {multiple_of} from {multiple_of} to {MAX_ELEMENT_BYTES}"
            );
            Error::invalid("data type", reason)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips_through_json() {
        let mut types: Vec<DataType> = SIMPLE.iter().map(|(_, t)| t.clone()).collect();
        for (unit, _) in TimeUnit::ALL {
            types.push(DataType::DateTime64 {
                unit,
                scale_factor: 10,
            });
            types.push(DataType::TimeDelta64 {
                unit,
                scale_factor: 1,
            });
        }
        types.extend([
            DataType::RawBits { length_bytes: 3 },
            DataType::RawBytes { length_bytes: 3 },
            DataType::NullTerminatedBytes { length_bytes: 1 },
            DataType::FixedLengthUtf32 { length_bytes: 8 },
            DataType::String,
            DataType::VariableLengthBytes,
        ]);
        for data_type in types {
            assert_eq!(DataType::parse(&data_type.to_json()), Ok(data_type));
        }
    }

    #[test]
    fn hostile_types_are_refused() {
        for bad in [
            json!("r12"),
            json!("r0"),
            json!("r4294967288"),
            json!("float7"),
            json!(3),
            json!({ "configuration": {} }),
            json!({ "name": "raw_bytes" }),
            json!({ "name": "raw_bytes", "configuration": { "length_bytes": 0 } }),
            json!({ "name": "fixed_length_utf32", "configuration": { "length_bytes": 6 } }),
            json!({ "name": "null_terminated_bytes", "configuration": { "length_bytes": 1u64 << 40 } }),
            json!({ "name": "numpy.datetime64", "configuration": { "unit": "x" } }),
            json!({ "name": "numpy.datetime64", "configuration": { "unit": "s", "scale_factor": 0 } }),
        ] {
            assert!(DataType::parse(&bad).is_err(), "{bad}");
        }
    }
}
