//! The `zarr.json` of what a source holds, as xarray writes it.
//!
//! Source: `docs/format.md`, "What importers write"; `xarray.backends.zarr` (`FillValueCoder`,
//! `encode_zarr_attr_value`).

use array::{ArrayMetadata, CodecMetadata, DataType, FillValue, MAX_DOCUMENT_BYTES, RegularGrid};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::chunking::{Access, Chunking, Lengths, choose};
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
    match (attribute, as_list(attribute)) {
        (Attribute::Text(text), _) => json!(text),
        (Attribute::Json(value), _) => value.clone(),
        (Attribute::Texts(_) | Attribute::Rows(_), list) => Value::Array(list),
        (_, list) => match <[Value; 1]>::try_from(list) {
            Ok([one]) => one,
            Err(list) => Value::Array(list),
        },
    }
}

fn as_list(attribute: &Attribute) -> Vec<Value> {
    match attribute {
        Attribute::Text(text) => vec![json!(text)],
        Attribute::Texts(texts) => texts.iter().map(|text| json!(text)).collect(),
        Attribute::Booleans(values) => values.iter().map(|value| json!(value)).collect(),
        Attribute::Integers(values) => values.iter().map(|&value| integer(value)).collect(),
        Attribute::Floats(values) => values.iter().map(|&value| float(value)).collect(),
        Attribute::Json(value) => vec![value.clone()],
        Attribute::Rows(rows) => rows.iter().map(|row| Value::Array(as_list(row))).collect(),
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
    let sharding = sharding(&data_type, &chunking.inner, codecs);
    let mut metadata = ArrayMetadata::new(grid, data_type.clone(), vec![sharding]);
    metadata.set_dimension_names(variable.dimensions.iter().cloned().map(Some).collect())?;
    let stored = stored_attributes(path, &data_type, &variable.attributes);
    metadata.attributes = stored.attributes;
    if let Some(fill_value) = stored.fill_value {
        metadata.fill_value = fill_value;
    }
    let bytes = array::json::canonical_bytes(&metadata.to_json()).len();
    if bytes > MAX_DOCUMENT_BYTES {
        return Err(Error::Unsupported {
            what: format!("variable {path}"),
            reason: format!("its attributes take {bytes} bytes, the most is {MAX_DOCUMENT_BYTES}"),
        });
    }
    Ok((metadata, stored.dropped))
}

/// The codec of shards of inner chunks of a shape, compressed by `compression`.
pub(crate) fn sharding(
    data_type: &DataType,
    inner_shape: &[u64],
    compression: &[CodecMetadata],
) -> CodecMetadata {
    CodecMetadata::new(
        "sharding_indexed",
        json!({
            "chunk_shape": inner_shape,
            "codecs": inner_codecs(data_type, compression),
            "index_codecs": [
                { "name": "bytes", "configuration": { "endian": "little" } },
                { "name": "crc32c" },
            ],
            "index_location": "end",
        }),
    )
}

/// What becomes of a variable's attributes.
pub(crate) struct Stored {
    /// Those of the array.
    pub(crate) attributes: Map<String, Value>,
    /// The array's fill value, if they name one that it can hold.
    pub(crate) fill_value: Option<FillValue>,
    /// Those left out.
    pub(crate) dropped: Vec<Dropped>,
}

/// What becomes of the attributes of the variable at `path`.
pub(crate) fn stored_attributes(
    path: &str,
    data_type: &DataType,
    source: &[(String, Attribute)],
) -> Stored {
    let mut stored = Stored {
        attributes: attributes(source),
        fill_value: None,
        dropped: Vec::new(),
    };
    let own = source.iter().find(|(name, _)| name == "_FillValue");
    if let Some((_, value)) = own {
        let fill = fill_value(data_type, value);
        stored.fill_value = fill.array;
        let value = stored
            .attributes
            .remove("_FillValue")
            .unwrap_or(Value::Null);
        match fill.attribute {
            Ok(encoded) => {
                stored.attributes.insert("_FillValue".into(), encoded);
            }
            Err(reason) => stored.dropped.push(Dropped {
                variable: path.to_owned(),
                attribute: "_FillValue".into(),
                value,
                reason,
            }),
        }
    }
    stored
}

pub(crate) fn inner_codecs(data_type: &DataType, compression: &[CodecMetadata]) -> Vec<Value> {
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

/// The metadata of a new array, sharded; chunk shapes and compression are chosen unless given.
///
/// # Errors
/// [`Error::Option`] if the chunk shapes do not go together or have another number of dimensions.
pub fn new_array(
    shape: &[u64],
    data_type: &DataType,
    inner: Option<&[u64]>,
    shard: Option<&[u64]>,
    compression: Option<&[CodecMetadata]>,
) -> Result<ArrayMetadata, Error> {
    let name = |axis: usize| format!("{axis}");
    let lengths = |given: Option<&[u64]>, option| match given {
        Some(given) if given.len() != shape.len() || given.contains(&0) => {
            let reason = format!("{given:?} does not fit an array of shape {shape:?}");
            Err(Error::Option { option, reason })
        }
        given => {
            let given = given.unwrap_or_default().iter().enumerate();
            Ok(Lengths(
                given.map(|(axis, &length)| (name(axis), length)).collect(),
            ))
        }
    };
    let variable = Variable {
        name: String::new(),
        dimensions: (0..shape.len()).map(name).collect(),
        shape: shape.to_vec(),
        data_type: data_type.clone(),
        attributes: Vec::new(),
        chunk_shape: None,
        handle: 0,
    };
    let (inner, shard) = (lengths(inner, "chunks")?, lengths(shard, "shards")?);
    let chunking = choose(&variable, Access::default(), &inner, &shard)?;
    let compression = compression.map_or_else(default_codecs, <[CodecMetadata]>::to_vec);
    let (made, _) = metadata("", &variable, &chunking, &compression)?;
    // The made-up names of the dimensions are not the array's.
    let codecs = made.codecs.clone();
    Ok(ArrayMetadata::new(
        made.grid().clone(),
        data_type.clone(),
        codecs,
    ))
}

/// What compresses new arrays unless the user says otherwise.
pub fn default_codecs() -> Vec<CodecMetadata> {
    vec![CodecMetadata::new(
        "zstd",
        json!({ "level": 1, "checksum": false }),
    )]
}

/// What becomes of a `_FillValue`.
struct Fill {
    /// The array's fill value; none if the data type cannot hold it.
    array: Option<FillValue>,
    /// The attribute as xarray encodes it, else why it has to be left out.
    attribute: Result<Value, String>,
}

fn fill_value(data_type: &DataType, value: &Attribute) -> Fill {
    let parsed = |json: &Value| FillValue::parse(data_type, json).ok();
    let unholdable = || Fill {
        array: None,
        attribute: Err(format!(
            "{data_type} cannot hold it, and xarray would refuse the dataset"
        )),
    };
    match (data_type, value) {
        (data_type, Attribute::Floats(values)) if data_type.is_float() => match values.as_slice() {
            &[value] => Fill {
                array: parsed(&float(value)),
                attribute: Ok(json!(BASE64.encode(value.to_le_bytes()))),
            },
            _ => unholdable(),
        },
        (data_type, Attribute::Integers(values)) if data_type.is_float() => {
            let widened = values.iter().map(|&value| value as f64).collect();
            fill_value(data_type, &Attribute::Floats(widened))
        }
        (data_type, Attribute::Floats(values)) if data_type.is_integer() => {
            match values.as_slice() {
                &[value] if value.fract() == 0.0 && value.abs() < 9e15 => {
                    fill_value(data_type, &Attribute::Integers(vec![value as i128]))
                }
                _ => unholdable(),
            }
        }
        (data_type, Attribute::Integers(values)) if data_type.is_integer() => {
            match values.as_slice() {
                &[value] => match parsed(&integer(value)) {
                    Some(fill) => Fill {
                        array: Some(fill),
                        attribute: Ok(integer(value)),
                    },
                    None => unholdable(),
                },
                _ => unholdable(),
            }
        }
        (DataType::Bool, Attribute::Booleans(values)) if values.len() == 1 => Fill {
            array: parsed(&json!(values[0])),
            attribute: Ok(json!(values[0])),
        },
        (DataType::String | DataType::NullTerminatedBytes { .. }, Attribute::Text(text)) => Fill {
            array: match data_type {
                DataType::String => parsed(&json!(text)),
                _ => parsed(&json!(BASE64.encode(text))),
            },
            attribute: Err("xarray refuses datasets with a fill value of text".into()),
        },
        _ => unholdable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The array's fill value and the attribute that `value` becomes.
    fn fill(data_type: &DataType, value: &Attribute) -> (Option<Value>, Option<Value>) {
        let fill = fill_value(data_type, value);
        let array = fill.array.map(|fill| fill.to_json(data_type));
        (array, fill.attribute.ok())
    }

    #[test]
    fn fill_values_are_coded_as_xarray_does() {
        use Attribute::{Booleans, Floats, Integers, Text};
        let nan = f64::NAN;
        let huge = json!(u64::MAX);
        let char = DataType::NullTerminatedBytes { length_bytes: 1 };
        let f32_fill = f64::from(1e20f32);
        for (data_type, value, array, attribute) in [
            (
                DataType::Float32,
                Floats(vec![f32_fill]),
                Some(json!(f32_fill)),
                Some(json!("AAAAgB2vFUQ=")),
            ),
            (
                DataType::Float64,
                Floats(vec![nan]),
                Some(json!("NaN")),
                Some(json!("AAAAAAAA+H8=")),
            ),
            (
                DataType::Float64,
                Integers(vec![-1]),
                Some(json!(-1.0)),
                Some(json!("AAAAAAAA8L8=")),
            ),
            (
                DataType::Int16,
                Integers(vec![-1]),
                Some(json!(-1)),
                Some(json!(-1)),
            ),
            (
                DataType::Int16,
                Floats(vec![9.0]),
                Some(json!(9)),
                Some(json!(9)),
            ),
            (
                DataType::UInt64,
                Integers(vec![u64::MAX.into()]),
                Some(huge.clone()),
                Some(huge),
            ),
            (
                DataType::Bool,
                Booleans(vec![true]),
                Some(json!(true)),
                Some(json!(true)),
            ),
            // Unholdable: dropped.
            (DataType::Int16, Floats(vec![nan]), None, None),
            (DataType::Int16, Integers(vec![40_000]), None, None),
            (DataType::Int16, Integers(vec![1, 2]), None, None),
            (DataType::UInt8, Text("x".into()), None, None),
            // Text: kept as the array's fill value only.
            (char.clone(), Text("-".into()), Some(json!("LQ==")), None),
            (char, Text("--".into()), None, None),
            (
                DataType::String,
                Text("N/A".into()),
                Some(json!("N/A")),
                None,
            ),
        ] {
            assert_eq!(
                fill(&data_type, &value),
                (array, attribute),
                "{data_type} {value:?}"
            );
        }
    }

    #[test]
    fn attributes_keep_their_kind_and_shape() {
        use Attribute::{Booleans, Floats, Integers, Text, Texts};
        for (attribute, wanted) in [
            (Text("a".into()), json!("a")),
            (Texts(vec![]), json!([])),
            (Texts(vec!["a".into(), String::new()]), json!(["a", ""])),
            (Integers(vec![1]), json!(1)),
            (Integers(vec![u64::MAX.into()]), json!(u64::MAX)),
            (Integers(vec![]), json!([])),
            (Floats(vec![1.0]), json!(1.0)),
            (Floats(vec![f64::from(0.1f32)]), json!(0.10000000149011612)),
            (
                Floats(vec![f64::NAN, f64::INFINITY, 1.0]),
                json!(["NaN", "Infinity", 1.0]),
            ),
            (Booleans(vec![true]), json!(true)),
            (
                Integers(vec![1, 2, 3, 4]).with_shape(&[2, 2]),
                json!([[1, 2], [3, 4]]),
            ),
            (Integers(vec![1, 2]).with_shape(&[2, 1]), json!([[1], [2]])),
        ] {
            assert_eq!(to_json(&attribute), wanted, "{attribute:?}");
        }
    }
}
