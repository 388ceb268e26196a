//! The `zarr.json` of what a source holds, as xarray writes it.
//!
//! Source: `docs/format.md`, "What importers write"; `xarray.backends.zarr` (`FillValueCoder`,
//! `encode_zarr_attr_value`).

use array::{ArrayMetadata, CodecMetadata, DataType, FillValue, RegularGrid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::chunking::Chunking;
use crate::source::{Attribute, Variable};

/// An attribute that was left out, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// Path of the variable.
    pub variable: String,
    /// Name of the attribute.
    pub attribute: String,
    /// Its value.
    pub value: Value,
    /// Why it is not in the array's attributes.
    pub reason: String,
}

/// The attributes of a group or array.
pub(crate) fn attributes(source: &[(String, Attribute)]) -> Map<String, Value> {
    source
        .iter()
        .map(|(name, value)| (name.clone(), to_json(value)))
        .collect()
}

/// One value stands for itself, several for a list, as NumPy's `tolist` has it.
fn to_json(attribute: &Attribute) -> Value {
    fn one_or_list(mut values: Vec<Value>) -> Value {
        if values.len() == 1 {
            values.remove(0)
        } else {
            Value::Array(values)
        }
    }
    match attribute {
        Attribute::Text(text) => json!(text),
        Attribute::Texts(texts) => json!(texts),
        Attribute::Booleans(values) => {
            one_or_list(values.iter().map(|value| json!(value)).collect())
        }
        Attribute::Integers(values) => {
            one_or_list(values.iter().map(|&value| integer(value)).collect())
        }
        Attribute::Floats(values) => {
            one_or_list(values.iter().map(|&value| float(value)).collect())
        }
    }
}

fn integer(value: i128) -> Value {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => json!(value),
        (_, Ok(value)) => json!(value),
        _ => json!(value.to_string()),
    }
}

/// JSON has no other numbers; Zarr spells them this way in fill values.
fn float(value: f64) -> Value {
    match value {
        value if value.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        value => json!(value),
    }
}

/// The metadata of a variable's array, and the attributes that have no place in it.
///
/// # Errors
/// [`Error::Array`] if the shapes are not valid.
pub(crate) fn metadata(
    path: &str,
    variable: &Variable,
    chunking: &Chunking,
    codecs: &[CodecMetadata],
) -> Result<(ArrayMetadata, Vec<Dropped>), Error> {
    let grid = RegularGrid::new(variable.shape.clone(), chunking.shard.clone())?;
    let data_type = variable.data_type.clone();
    let sharding = CodecMetadata::new(
        "sharding_indexed",
        json!({
            "chunk_shape": chunking.inner,
            "codecs": inner_codecs(&data_type, codecs),
            "index_codecs": [
                { "name": "bytes", "configuration": { "endian": "little" } },
                { "name": "crc32c" },
            ],
            "index_location": "end",
        }),
    );
    let mut metadata = ArrayMetadata::new(grid, data_type.clone(), vec![sharding]);
    metadata.set_dimension_names(variable.dimensions.iter().cloned().map(Some).collect())?;
    metadata.attributes = attributes(&variable.attributes);
    let mut dropped = Vec::new();
    if let Some((_, value)) = variable
        .attributes
        .iter()
        .find(|(name, _)| name == "_FillValue")
    {
        match fill_value(&data_type, value) {
            Some((fill, encoded)) => {
                metadata.fill_value = fill;
                metadata.attributes.insert("_FillValue".into(), encoded);
            }
            None => {
                let value = metadata
                    .attributes
                    .remove("_FillValue")
                    .unwrap_or(Value::Null);
                dropped.push(Dropped {
                    variable: path.to_owned(),
                    attribute: "_FillValue".into(),
                    value,
                    reason: format!(
                        "{data_type} cannot hold it, and xarray would refuse the dataset"
                    ),
                });
            }
        }
    }
    Ok((metadata, dropped))
}

fn inner_codecs(data_type: &DataType, compression: &[CodecMetadata]) -> Vec<Value> {
    let to_bytes = match data_type {
        DataType::String => json!({ "name": "vlen-utf8" }),
        DataType::VariableLengthBytes => json!({ "name": "vlen-bytes" }),
        single if single.size_bytes() == Some(1) => json!({ "name": "bytes" }),
        DataType::NullTerminatedBytes { .. } => json!({ "name": "bytes" }),
        _ => json!({ "name": "bytes", "configuration": { "endian": "little" } }),
    };
    std::iter::once(to_bytes)
        .chain(compression.iter().map(CodecMetadata::to_json))
        .collect()
}

/// What compresses new arrays unless the user says otherwise.
pub fn default_codecs() -> Vec<CodecMetadata> {
    vec![CodecMetadata::new(
        "zstd",
        json!({ "level": 1, "checksum": false }),
    )]
}

/// A `_FillValue` as the array's fill value and as xarray's attribute; `None` if the data type
/// cannot hold it.
fn fill_value(data_type: &DataType, value: &Attribute) -> Option<(FillValue, Value)> {
    let parsed = |json: &Value| FillValue::parse(data_type, json).ok();
    match (data_type, value) {
        (data_type, Attribute::Floats(values)) if data_type.is_float() => {
            let value = *values.first()?;
            Some((
                parsed(&float(value))?,
                json!(BASE64.encode(value.to_le_bytes())),
            ))
        }
        (data_type, Attribute::Integers(values)) if data_type.is_float() => {
            let value = *values.first()? as f64;
            Some((
                parsed(&float(value))?,
                json!(BASE64.encode(value.to_le_bytes())),
            ))
        }
        (data_type, Attribute::Integers(values)) if data_type.is_integer() => {
            let value = integer(*values.first()?);
            Some((parsed(&value)?, value))
        }
        (data_type, Attribute::Floats(values)) if data_type.is_integer() => {
            let value = values
                .first()
                .copied()
                .filter(|value| value.fract() == 0.0 && value.abs() < 9e15)?;
            let value = json!(value as i64);
            Some((parsed(&value)?, value))
        }
        (DataType::NullTerminatedBytes { length_bytes }, Attribute::Text(text)) => {
            let bytes = text.as_bytes();
            let encoded = json!(BASE64.encode(bytes));
            (bytes.len() <= *length_bytes as usize).then_some(())?;
            Some((parsed(&encoded)?, encoded))
        }
        (DataType::String, Attribute::Text(text)) => {
            let value = json!(text);
            Some((parsed(&value)?, value))
        }
        (DataType::Bool, Attribute::Booleans(values)) => {
            let value = json!(values.first()?);
            Some((parsed(&value)?, value))
        }
        _ => None,
    }
}
