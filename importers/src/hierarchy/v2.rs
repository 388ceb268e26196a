//! Zarr v2 metadata as that of version 3.
//!
//! The chunks stay as they are: what version 2 calls order, filters and compressor becomes the list
//! of codecs that gives the same bytes.
//!
//! Source: Zarr v2 specification, "Arrays"; the names of numcodecs' codecs in the zarr-extensions
//! registry; `_ARRAY_DIMENSIONS` and fill values: `xarray.backends.zarr`.

use array::{
    ArrayMetadata, ChunkKeyEncoding, CodecMetadata, DataType, FillValue, GroupMetadata, RegularGrid,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::numpy_type::NumpyType;

/// Where xarray keeps the names of dimensions.
const DIMENSIONS: &str = "_ARRAY_DIMENSIONS";

/// A `.zgroup` and its `.zattrs`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn group(zgroup: &Value, attributes: Option<Value>) -> Result<GroupMetadata, String> {
    check_format(zgroup)?;
    Ok(GroupMetadata {
        attributes: members(attributes)?,
        extra: Map::new(),
    })
}

/// A `.zarray` and its `.zattrs`, and how its chunks are named.
///
/// # Errors
/// What is wrong with them, or has no place in version 3.
pub(super) fn array(
    zarray: &Value,
    attributes: Option<Value>,
) -> Result<(ArrayMetadata, ChunkKeyEncoding), String> {
    check_format(zarray)?;
    let shape = lengths(zarray, "shape")?;
    let mut chunks = lengths(zarray, "chunks")?;
    for (chunk, length) in chunks.iter_mut().zip(&shape) {
        // Some writers give an empty dimension chunks of no length.
        *chunk = (*chunk).max(u64::from(*length == 0));
    }
    let filters = list(zarray, "filters")?;
    let compressor = zarray.get("compressor").filter(|value| !value.is_null());
    let (data_type, is_big_endian) = data_type(zarray.get("dtype"), &filters)?;
    let order = zarray.get("order").and_then(Value::as_str).unwrap_or("C");
    let codecs = codecs(
        order,
        shape.len(),
        (&data_type, is_big_endian),
        &filters,
        compressor,
    )?;
    let grid = RegularGrid::new(shape, chunks).map_err(|error| error.to_string())?;
    let mut metadata = ArrayMetadata::new(grid, data_type.clone(), codecs);
    let fill = zarray.get("fill_value").filter(|value| !value.is_null());
    if let Some(fill) = fill {
        metadata.fill_value = fill_value(&data_type, fill)?;
    }
    metadata.attributes = members(attributes)?;
    if let Some(names) = dimension_names(&metadata) {
        metadata.attributes.remove(DIMENSIONS);
        let names = names.into_iter().map(Some).collect();
        let set = metadata.set_dimension_names(names);
        set.map_err(|error| error.to_string())?;
        // To xarray the fill value of version 2 is what stands for missing values, in version 3
        // the attribute is.
        if let (Some(_), false) = (fill, metadata.attributes.contains_key("_FillValue"))
            && let Some(missing) = missing_value(&data_type, &metadata.fill_value)
        {
            metadata.attributes.insert("_FillValue".into(), missing);
        }
    }
    let separator = match zarray.get("dimension_separator") {
        None | Some(Value::Null) => '.',
        Some(Value::String(text)) if text == "." => '.',
        Some(Value::String(text)) if text == "/" => '/',
        Some(other) => return Err(format!("dimension_separator {other}")),
    };
    Ok((metadata, ChunkKeyEncoding::V2 { separator }))
}

fn check_format(document: &Value) -> Result<(), String> {
    match document.get("zarr_format") {
        Some(version) if *version == json!(2) => Ok(()),
        other => {
            let found = other.map_or("missing".to_owned(), Value::to_string);
            Err(format!("zarr_format is {found}, not 2"))
        }
    }
}

fn members(attributes: Option<Value>) -> Result<Map<String, Value>, String> {
    match attributes {
        None => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(".zattrs is not an object".into()),
    }
}

fn lengths(document: &Value, name: &str) -> Result<Vec<u64>, String> {
    let items = document.get(name).and_then(Value::as_array);
    let lengths: Option<Vec<u64>> =
        items.and_then(|items| items.iter().map(Value::as_u64).collect());
    lengths.ok_or_else(|| format!("{name:?} is not a list of lengths"))
}

fn list(document: &Value, name: &str) -> Result<Vec<Value>, String> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(_) => Err(format!("{name:?} is not a list")),
    }
}

fn id(codec: &Value) -> Result<&str, String> {
    let id = codec.get("id").and_then(Value::as_str);
    id.ok_or_else(|| format!("a codec without an \"id\": {codec}"))
}

/// The type of the elements, and whether they are big-endian.
fn data_type(dtype: Option<&Value>, filters: &[Value]) -> Result<(DataType, bool), String> {
    match dtype {
        Some(Value::String(text)) if text == "|O" => {
            let ids: Vec<&str> = filters.iter().map(id).collect::<Result<_, _>>()?;
            match ids.first() {
                Some(&"vlen-utf8") => Ok((DataType::String, false)),
                Some(&"vlen-bytes") => Ok((DataType::VariableLengthBytes, false)),
                _ => Err(format!(
                    "its objects are coded by {ids:?}; vlen-utf8 and vlen-bytes can be read"
                )),
            }
        }
        Some(Value::String(text)) => {
            let found = NumpyType::parse(text)?;
            let is_big_endian = found.is_big_endian && found.word_bytes() > 1;
            Ok((found.data_type, is_big_endian))
        }
        Some(Value::Array(_)) => Err("its data type is structured".into()),
        _ => Err("no \"dtype\"".into()),
    }
}

fn codecs(
    order: &str,
    dimensions: usize,
    (data_type, is_big_endian): (&DataType, bool),
    filters: &[Value],
    compressor: Option<&Value>,
) -> Result<Vec<CodecMetadata>, String> {
    let mut codecs = Vec::new();
    match order {
        "C" => {}
        "F" if dimensions < 2 => {}
        "F" => {
            let order: Vec<usize> = (0..dimensions).rev().collect();
            codecs.push(CodecMetadata::new("transpose", json!({ "order": order })));
        }
        other => return Err(format!("order {other:?}")),
    }
    let endian = if is_big_endian { "big" } else { "little" };
    let mut to_bytes = Some(match data_type.size_bytes() {
        Some(1) => CodecMetadata::new("bytes", Value::Null),
        _ => CodecMetadata::new("bytes", json!({ "endian": endian })),
    });
    for codec in filters.iter().chain(compressor) {
        let (kind, codec) = convert(codec, data_type)?;
        match kind {
            Kind::ArrayToArray => codecs.push(codec),
            Kind::ArrayToBytes => {
                to_bytes = None;
                codecs.push(codec);
            }
            Kind::BytesToBytes => {
                codecs.extend(to_bytes.take());
                codecs.push(codec);
            }
        }
    }
    codecs.extend(to_bytes);
    Ok(codecs)
}

enum Kind {
    ArrayToArray,
    ArrayToBytes,
    BytesToBytes,
}

/// A codec of numcodecs as version 3 names it.
fn convert(codec: &Value, data_type: &DataType) -> Result<(Kind, CodecMetadata), String> {
    use Kind::{ArrayToArray, ArrayToBytes, BytesToBytes};
    let mut settings = codec.as_object().cloned().unwrap_or_default();
    settings.remove("id");
    let level = |default: i64| json!({ "level": settings.get("level").and_then(Value::as_i64).unwrap_or(default) });
    let element = data_type.size_bytes().unwrap_or(1);
    Ok(match id(codec)? {
        "vlen-utf8" => (ArrayToBytes, CodecMetadata::new("vlen-utf8", Value::Null)),
        "vlen-bytes" => (ArrayToBytes, CodecMetadata::new("vlen-bytes", Value::Null)),
        "zlib" => (BytesToBytes, CodecMetadata::new("numcodecs.zlib", level(1))),
        "gzip" => (BytesToBytes, CodecMetadata::new("gzip", level(1))),
        "zstd" => {
            let mut zstd = level(1);
            let checksum = settings.get("checksum").and_then(Value::as_bool);
            zstd["checksum"] = json!(checksum.unwrap_or(false));
            (BytesToBytes, CodecMetadata::new("zstd", zstd))
        }
        "blosc" => (BytesToBytes, blosc(&settings, element)?),
        "shuffle" => {
            let size = settings.get("elementsize").and_then(Value::as_u64);
            let size = json!({ "elementsize": size.unwrap_or(4) });
            (BytesToBytes, CodecMetadata::new("numcodecs.shuffle", size))
        }
        "fletcher32" => (
            BytesToBytes,
            CodecMetadata::new("numcodecs.fletcher32", json!({})),
        ),
        "bitround" => {
            let bits = json!({ "keepbits": settings.get("keepbits") });
            (ArrayToArray, CodecMetadata::new("numcodecs.bitround", bits))
        }
        other => {
            return Err(format!(
                "its codec {other:?} cannot be decoded; there are zlib, gzip, zstd, blosc, shuffle, \
                 fletcher32, bitround, vlen-utf8 and vlen-bytes: write the array with one of them"
            ));
        }
    })
}

fn blosc(settings: &Map<String, Value>, element: usize) -> Result<CodecMetadata, String> {
    let number = |name: &str, default: i64| settings.get(name).map_or(Some(default), Value::as_i64);
    let shuffle = match (number("shuffle", 1), element) {
        (Some(0), _) => "noshuffle",
        (Some(1), _) => "shuffle",
        (Some(2), _) | (Some(-1), 1) => "bitshuffle",
        (Some(-1), _) => "shuffle",
        _ => return Err(format!("blosc with shuffle {:?}", settings.get("shuffle"))),
    };
    let cname = settings.get("cname").and_then(Value::as_str);
    Ok(CodecMetadata::new(
        "blosc",
        json!({
            "cname": cname.unwrap_or("lz4"),
            "clevel": number("clevel", 5),
            "shuffle": shuffle,
            "typesize": element.clamp(1, 255),
            "blocksize": number("blocksize", 0),
        }),
    ))
}

fn fill_value(data_type: &DataType, value: &Value) -> Result<FillValue, String> {
    let is_zero = *value == json!(0) || *value == json!("");
    let default = match data_type {
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => *value == json!("NaT"),
        _ => is_zero && !data_type.is_float() && !data_type.is_integer(),
    };
    if default {
        return Ok(FillValue::default_for(data_type));
    }
    if let (true, Value::String(text)) = (data_type.is_integer(), value)
        && let Ok(number) = text.parse::<i64>()
    {
        return fill_value(data_type, &json!(number));
    }
    FillValue::parse(data_type, value).map_err(|error| error.to_string())
}

/// The names xarray gave the dimensions; `None` if there are none, or they do not fit.
fn dimension_names(metadata: &ArrayMetadata) -> Option<Vec<String>> {
    let names = metadata.attributes.get(DIMENSIONS)?.as_array()?;
    let names: Option<Vec<String>> = names
        .iter()
        .map(|name| name.as_str().map(str::to_owned))
        .collect();
    names.filter(|names| names.len() == metadata.dimensions())
}

/// The fill value as xarray codes the attribute in version 3; `None` for types it has none for.
fn missing_value(data_type: &DataType, fill: &FillValue) -> Option<Value> {
    let bytes = fill.as_bytes();
    let float = match data_type {
        DataType::Float16 => f64::from(half::f16::from_le_bytes(bytes.try_into().ok()?)),
        DataType::Float32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        DataType::Float64 => f64::from_le_bytes(bytes.try_into().ok()?),
        DataType::Bool => return Some(fill.to_json(data_type)),
        integer if integer.is_integer() => return Some(fill.to_json(data_type)),
        _ => return None,
    };
    Some(json!(BASE64.encode(float.to_le_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(change: &Value) -> Value {
        let mut document = json!({
            "zarr_format": 2, "shape": [4, 6], "chunks": [2, 3], "dtype": "<f4", "order": "C",
            "fill_value": null, "filters": null, "compressor": null,
        });
        for (name, value) in change.as_object().unwrap() {
            document[name] = value.clone();
        }
        document
    }

    #[test]
    fn codecs_become_those_of_version_3() {
        for (change, wanted) in [
            (
                json!({}),
                json!([{ "name": "bytes", "configuration": { "endian": "little" } }]),
            ),
            (json!({ "dtype": "|i1" }), json!([{ "name": "bytes" }])),
            (
                json!({ "dtype": ">i2", "order": "F", "filters": [{ "id": "shuffle", "elementsize": 2 }],
                        "compressor": { "id": "zlib", "level": 4 } }),
                json!([
                    { "name": "transpose", "configuration": { "order": [1, 0] } },
                    { "name": "bytes", "configuration": { "endian": "big" } },
                    { "name": "numcodecs.shuffle", "configuration": { "elementsize": 2 } },
                    { "name": "numcodecs.zlib", "configuration": { "level": 4 } },
                ]),
            ),
            (
                json!({ "compressor": { "id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": -1, "blocksize": 0 } }),
                json!([
                    { "name": "bytes", "configuration": { "endian": "little" } },
                    { "name": "blosc", "configuration": { "cname": "zstd", "clevel": 3,
                        "shuffle": "shuffle", "typesize": 4, "blocksize": 0 } },
                ]),
            ),
            (
                json!({ "dtype": "|O", "filters": [{ "id": "vlen-utf8" }], "compressor": { "id": "zstd", "level": 2 } }),
                json!([
                    { "name": "vlen-utf8" },
                    { "name": "zstd", "configuration": { "level": 2, "checksum": false } },
                ]),
            ),
        ] {
            let (metadata, _) = array(&document(&change), None).unwrap();
            let codecs: Vec<Value> = metadata.codecs.iter().map(CodecMetadata::to_json).collect();
            assert_eq!(json!(codecs), wanted);
            codecs::ArrayCodec::new(&metadata).unwrap();
        }
    }

    #[test]
    fn names_of_dimensions_and_missing_values_are_where_xarray_looks() {
        let attributes = json!({ "_ARRAY_DIMENSIONS": ["y", "x"], "units": "K" });
        let zarray = document(&json!({ "fill_value": "NaN", "dimension_separator": "/" }));
        let (metadata, keys) = array(&zarray, Some(attributes)).unwrap();
        assert_eq!(metadata.dimension_named("x"), Some(1));
        let wanted = json!({ "units": "K", "_FillValue": "AAAAAAAA+H8=" });
        assert_eq!(Value::Object(metadata.attributes), wanted);
        assert_eq!(keys, ChunkKeyEncoding::V2 { separator: '/' });
        // Names that do not fit stay an attribute.
        let (metadata, _) = array(&zarray, Some(json!({ "_ARRAY_DIMENSIONS": ["y"] }))).unwrap();
        assert_eq!(metadata.dimension_names(), None);
        assert!(metadata.attributes.contains_key("_ARRAY_DIMENSIONS"));
    }

    #[test]
    fn fill_values_are_those_of_the_type() {
        for (dtype, fill, wanted) in [
            ("<f8", json!("-Infinity"), json!("-Infinity")),
            ("<i4", json!(0.0), json!(0)),
            ("|b1", json!(true), json!(true)),
            ("|S3", json!("YWI="), json!("YWI=")),
            ("|S3", json!(0), json!("")),
            ("<U2", json!("ab"), json!("ab")),
            ("<M8[D]", json!("NaT"), json!(i64::MIN)),
            ("<M8[D]", json!(3), json!(3)),
            ("<c8", json!([1.0, "NaN"]), json!([1.0, "NaN"])),
        ] {
            let (metadata, _) = array(
                &document(&json!({ "dtype": dtype, "fill_value": fill })),
                None,
            )
            .unwrap();
            assert_eq!(
                metadata.fill_value.to_json(&metadata.data_type),
                wanted,
                "{dtype} {fill}"
            );
        }
    }

    #[test]
    fn what_has_no_place_is_named() {
        for (change, named) in [
            (json!({ "zarr_format": 3 }), "zarr_format"),
            (json!({ "shape": [-1] }), "shape"),
            (json!({ "chunks": [2] }), "dimensions"),
            (json!({ "chunks": [0, 2] }), "zero"),
            (json!({ "dtype": [["a", "<i2"]] }), "structured"),
            (json!({ "dtype": "|O" }), "vlen-utf8"),
            (json!({ "compressor": { "id": "lzma" } }), "lzma"),
            (
                json!({ "filters": [{ "id": "delta", "dtype": "<f4" }] }),
                "delta",
            ),
            (json!({ "filters": [{}] }), "id"),
            (json!({ "order": "A" }), "order"),
            (json!({ "dtype": "<i2", "fill_value": "NaN" }), "fill value"),
            (json!({ "dimension_separator": "|" }), "dimension_separator"),
        ] {
            let error = array(&document(&change), None).unwrap_err();
            assert!(error.contains(named), "{change}: {error}");
        }
    }
}
