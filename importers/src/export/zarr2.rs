//! Zarr v2: every inner chunk becomes a chunk, encoded with what version 2 has.
//!
//! ```text
//! .zgroup  .zattrs  .zmetadata          of the top: all metadata below, last of all
//! a/.zarray  a/.zattrs  a/0.0  a/0.1    _ARRAY_DIMENSIONS among the attributes, as xarray has it
//! ```
//!
//! xarray takes the `fill_value` of version 2 for `_FillValue`. So it is that of the array's
//! attributes, and null without one; then every chunk is written, as is any that does not hold the
//! `fill_value` alone.
//!
//! Source: Zarr storage specification version 2; `numcodecs` for the configurations of codecs.

use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, DataType, FillValue, Region, RegularGrid, Sharding,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use codecs::ArrayCodec;
use futures::{StreamExt as _, TryStreamExt as _};
use query::Engine;
use serde_json::{Map, Value, json};

use super::destination::Folder;
use super::tally::Tally;
use super::view::{View, Viewed, ViewedArray};
use super::zarr3::{ENCODING_FACTOR, prefix};
use crate::blocking::blocking;
use crate::zarr::inner_codecs;
use crate::{Error, boxes};

/// Bytes of cells being encoded at once, about.
const ENCODED_AT_ONCE: u64 = 64 << 20;
/// Chunks encoded at once at most.
const CHUNKS_IN_FLIGHT: u64 = 8;

/// What is written, decided before anything is.
pub(super) struct Plan<'a> {
    /// Keys and documents, parents first.
    documents: Vec<(String, Value)>,
    arrays: Vec<Array<'a>>,
}

struct Array<'a> {
    array: &'a ViewedArray,
    grid: RegularGrid,
    /// Two codecs that differ in the fill value: what one takes for absent, the other encodes.
    codec: ArrayCodec,
    other: ArrayCodec,
    /// Whether chunks of the first codec's fill value alone are left out.
    leaves_out: bool,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// [`Error::NoPlace`] for a data type that version 2 does not have.
    pub(super) fn new(view: &'a View) -> Result<Self, Error> {
        let mut documents = Vec::new();
        let mut arrays = Vec::new();
        for node in &view.nodes {
            let prefix = prefix(node.below());
            match node {
                Viewed::Group(group) => {
                    documents.push((format!("{prefix}.zgroup"), json!({ "zarr_format": 2 })));
                    let attributes = group.metadata.attributes.clone();
                    documents.push((format!("{prefix}.zattrs"), Value::Object(attributes)));
                }
                Viewed::Array(array) => {
                    let (planned, document, attributes) = Array::new(array)?;
                    documents.push((format!("{prefix}.zarray"), document));
                    documents.push((format!("{prefix}.zattrs"), Value::Object(attributes)));
                    arrays.push(planned);
                }
            }
        }
        Ok(Self { documents, arrays })
    }

    pub(super) async fn write(
        &self,
        engine: &Engine,
        folder: &Folder,
        tally: &Tally<'_>,
    ) -> Result<(), Error> {
        let bytes = self.arrays.iter().map(|array| array.array.bytes());
        tally.expect(self.arrays.len() as u64, bytes.fold(0, u64::saturating_add));
        for array in &self.arrays {
            array.write(engine, folder, tally).await?;
        }
        for (key, document) in self.documents.iter().rev() {
            folder.put(key, pretty(document)).await?;
        }
        let is_group = self.documents.iter().any(|(key, _)| key == ".zgroup");
        if is_group {
            let metadata: Map<String, Value> = self.documents.iter().cloned().collect();
            let document = json!({ "zarr_consolidated_format": 1, "metadata": metadata });
            folder.put(".zmetadata", pretty(&document)).await?;
        }
        Ok(())
    }
}

fn pretty(document: &Value) -> bytes::Bytes {
    format!("{document:#}").into()
}

impl<'a> Array<'a> {
    fn new(array: &'a ViewedArray) -> Result<(Self, Value, Map<String, Value>), Error> {
        let refused = |reason: &str| Error::NoPlace {
            format: "Zarr v2",
            array: array.path(),
            reason: reason.to_owned(),
        };
        let data_type = &array.data_type;
        let dtype = match data_type {
            DataType::String | DataType::VariableLengthBytes => "|O".to_owned(),
            DataType::BFloat16 => return Err(refused("it has no bfloat16")),
            DataType::RawBits { .. } => return Err(refused("it has no type of raw bits")),
            other => other
                .numpy_descr()
                .ok_or_else(|| refused("it has no such data type"))?,
        };
        let shape = array.shape();
        let chunk: Vec<u64> = array
            .inner_shape()
            .iter()
            .zip(&shape)
            .map(|(inner, length)| (*inner).min((*length).max(1)))
            .collect();
        let grid = RegularGrid::new(shape.clone(), chunk.clone())?;
        let mut attributes = array.attributes.clone();
        let own = attributes.remove("_FillValue");
        let fill = own
            .as_ref()
            .and_then(|value| fill_attribute(data_type, value));
        if fill.is_none()
            && let Some(value) = own
        {
            // No value of the type, so nothing that could be missing.
            attributes.insert("_FillValue".into(), value);
        }
        let dimensions: Vec<String> = array
            .dimensions()
            .into_iter()
            .enumerate()
            .map(|(axis, name)| name.unwrap_or_else(|| format!("dim_{axis}")))
            .collect();
        attributes.insert("_ARRAY_DIMENSIONS".into(), json!(dimensions));
        let compression = compression(array)?;
        let filters = match data_type {
            DataType::String => json!([{ "id": "vlen-utf8" }]),
            DataType::VariableLengthBytes => json!([{ "id": "vlen-bytes" }]),
            _ => Value::Null,
        };
        let document = json!({
            "zarr_format": 2,
            "shape": shape,
            "chunks": chunk,
            "dtype": dtype,
            "compressor": compression.v2,
            "fill_value": fill.as_ref().map(|fill| fill_json(data_type, fill)),
            "order": "C",
            "filters": filters,
            "dimension_separator": ".",
        });
        let [first, second] = fills(data_type, fill.as_ref())?;
        let codec = |fill: FillValue| -> Result<ArrayCodec, Error> {
            let codecs = inner_codecs(data_type, std::slice::from_ref(&compression.v3));
            let codecs = CodecMetadata::parse_list(&Value::Array(codecs))?;
            let mut metadata = ArrayMetadata::new(grid.clone(), data_type.clone(), codecs);
            metadata.fill_value = fill;
            Ok(ArrayCodec::new(&metadata)?)
        };
        let planned = Self {
            array,
            codec: codec(first)?,
            other: codec(second)?,
            leaves_out: fill.is_some(),
            grid,
        };
        Ok((planned, document, attributes))
    }

    async fn write(
        &self,
        engine: &Engine,
        folder: &Folder,
        tally: &Tally<'_>,
    ) -> Result<(), Error> {
        tally.begin(&self.array.path());
        let prefix = prefix(&self.array.below);
        let multiply = |bytes: u64, length: &u64| bytes.saturating_mul(*length);
        let chunk = self.grid.chunk_shape().iter();
        let chunk_bytes = chunk.fold(self.array.cell_bytes(), multiply);
        let in_flight = (ENCODED_AT_ONCE / chunk_bytes.max(1)).clamp(1, CHUNKS_IN_FLIGHT);
        let prefix = &prefix;
        futures::stream::iter(Region::whole(&self.grid.grid_shape()).positions())
            .map(|at| async move {
                let index = ChunkIndex::new(at);
                let room = chunk_bytes.saturating_mul(ENCODING_FACTOR);
                let region = self.grid.chunk_region_in_array(&index);
                let (tensor, _room) = self.array.read_with_room(engine, &region, room).await?;
                let bytes = tensor.elements.size_bytes() as u64;
                let whole = self.grid.chunk_region(&index);
                let (codec, other) = (self.codec.clone(), self.other.clone());
                let leaves_out = self.leaves_out;
                let encoded = blocking(move || {
                    let fill = codec.fill_value().as_bytes();
                    let elements = match whole == region {
                        true => tensor.elements,
                        false => {
                            boxes::fit(codec.data_type(), fill, &tensor.elements, &region, &whole)?
                        }
                    };
                    // Past the array's end anything may stand, so all of the chunk is data.
                    let shape = whole.shape();
                    Ok(match codec.encode(&elements, shape)? {
                        None if !leaves_out => other.encode(&elements, shape)?,
                        encoded => encoded,
                    })
                });
                if let Some(chunk) = encoded.await? {
                    folder
                        .put(&format!("{prefix}{}", key(&index)), chunk.bytes)
                        .await?;
                }
                tally.chunk(bytes);
                Ok::<_, Error>(())
            })
            .buffer_unordered(in_flight as usize)
            .try_collect::<()>()
            .await
    }
}

fn key(index: &ChunkIndex) -> String {
    let parts: Vec<String> = index.as_slice().iter().map(u64::to_string).collect();
    match parts.is_empty() {
        true => "0".to_owned(),
        false => parts.join("."),
    }
}

/// One compression, as both versions write it.
struct Compression {
    v3: CodecMetadata,
    v2: Value,
}

/// The array's own compression where version 2 has the same, else zstd.
fn compression(array: &ViewedArray) -> Result<Compression, Error> {
    let stored = array.reader.metadata();
    let codecs = match Sharding::of(stored)? {
        Some(sharding) => sharding.inner_codecs().to_vec(),
        None => stored.codecs.clone(),
    };
    let level = |codec: &CodecMetadata, default: i64| {
        codec
            .configuration
            .get("level")
            .and_then(Value::as_i64)
            .unwrap_or(default)
    };
    let known = codecs
        .iter()
        .rev()
        .find_map(|codec| match codec.name.as_str() {
            "gzip" => Some(("gzip", level(codec, 5))),
            "zstd" | "numcodecs.zstd" => Some(("zstd", level(codec, 1))),
            _ => None,
        });
    Ok(match known {
        Some(("gzip", level)) => Compression {
            v3: CodecMetadata::new("gzip", json!({ "level": level })),
            v2: json!({ "id": "gzip", "level": level }),
        },
        other => {
            let level = other.map_or(1, |(_, level)| level);
            Compression {
                v3: CodecMetadata::new("zstd", json!({ "level": level, "checksum": false })),
                v2: json!({ "id": "zstd", "level": level, "checksum": false }),
            }
        }
    })
}

/// The element that a `_FillValue` attribute stands for, as xarray's encodings of Zarr v3 have it:
/// floats may be base64 of a little-endian `f64`.
pub(super) fn fill_attribute(data_type: &DataType, value: &Value) -> Option<FillValue> {
    if let Ok(fill) = FillValue::parse(data_type, value) {
        return Some(fill);
    }
    let number = match value {
        Value::String(text) if data_type.is_float() => {
            f64::from_le_bytes(BASE64.decode(text).ok()?.try_into().ok()?)
        }
        Value::Number(number) => number.as_f64()?,
        _ => return None,
    };
    match data_type {
        DataType::Float16 => {
            let bytes = half::f16::from_f64(number).to_le_bytes().to_vec();
            FillValue::from_bytes(data_type, bytes).ok()
        }
        DataType::Float32 => {
            FillValue::from_bytes(data_type, (number as f32).to_le_bytes().to_vec()).ok()
        }
        DataType::Float64 => FillValue::from_bytes(data_type, number.to_le_bytes().to_vec()).ok(),
        integer if integer.is_integer() && number.fract() == 0.0 && number.abs() < 9e15 => {
            FillValue::parse(data_type, &json!(number as i64)).ok()
        }
        _ => None,
    }
}

/// The wanted fill value, or any, and another one.
fn fills(data_type: &DataType, wanted: Option<&FillValue>) -> Result<[FillValue; 2], Error> {
    let size = data_type.size_bytes();
    let first = match wanted {
        Some(fill) => fill.clone(),
        None => FillValue::from_bytes(data_type, vec![0; size.unwrap_or(0)])?,
    };
    // One bit away, so another element whatever the type.
    let mut bytes = first.as_bytes().to_vec();
    match bytes.first_mut() {
        Some(byte) if size.is_some() => *byte ^= 1,
        _ => bytes = b"another".to_vec(),
    }
    let second = FillValue::from_bytes(data_type, bytes)?;
    Ok([first, second])
}

/// A fill value as `.zarray` has it.
fn fill_json(data_type: &DataType, fill: &FillValue) -> Value {
    match data_type {
        DataType::NullTerminatedBytes { .. } | DataType::RawBytes { .. } => {
            json!(BASE64.encode(fill.as_bytes()))
        }
        DataType::FixedLengthUtf32 { .. } => {
            let codes = fill.as_bytes().as_chunks::<4>().0.iter();
            let text: String = codes
                .filter_map(|code| char::from_u32(u32::from_le_bytes(*code)))
                .collect();
            json!(text.trim_end_matches('\0'))
        }
        // Bits that are not the plain NaN have no name in version 2.
        other if other.is_float() => match fill.to_json(other) {
            Value::String(text) if text.starts_with("0x") => json!("NaN"),
            value => value,
        },
        other => fill.to_json(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_values_are_those_of_the_attribute() {
        let f32_fill = BASE64.encode(f64::from(1e20f32).to_le_bytes());
        for (data_type, value, expected) in [
            (
                DataType::Float32,
                json!(f32_fill),
                Some(json!(f64::from(1e20f32))),
            ),
            (DataType::Float64, json!("NaN"), Some(json!("NaN"))),
            (DataType::Int16, json!(-1), Some(json!(-1))),
            (DataType::Int16, json!(-1.0), Some(json!(-1))),
            (DataType::Int16, json!(70_000), None),
            (DataType::UInt8, json!("x"), None),
        ] {
            let fill = fill_attribute(&data_type, &value);
            let found = fill.map(|fill| fill_json(&data_type, &fill));
            assert_eq!(found, expected, "{data_type} {value}");
        }
    }

    #[test]
    fn two_fill_values_always_differ() {
        for data_type in [
            DataType::Bool,
            DataType::Float64,
            DataType::String,
            DataType::FixedLengthUtf32 { length_bytes: 8 },
        ] {
            let [first, second] = fills(&data_type, None).unwrap();
            assert_ne!(first, second, "{data_type}");
        }
    }
}
