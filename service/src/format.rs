//! Tensors as bytes: raw, npy, JSON.

use array::{DataType, Elements, Tensor};
use half::{bf16, f16};
use serde_json::{Value, json};

use crate::error::Failure;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// C order, little-endian; shape and type in the `Tensor` header.
    OctetStream,
    /// NumPy's file format.
    Npy,
    /// Type, shape and nested lists.
    Json,
}

impl Format {
    /// From `f=`, else from `Accept`.
    ///
    /// # Errors
    /// 400 for an unknown `f`, 406 if nothing acceptable is left.
    pub fn negotiate(f: Option<&str>, accept: Option<&str>) -> Result<Self, Failure> {
        match f {
            Some("npy") => return Ok(Self::Npy),
            Some("json") => return Ok(Self::Json),
            Some("octet-stream" | "bytes" | "raw") => return Ok(Self::OctetStream),
            Some(other) => {
                return Err(Failure::bad_request(
                    "f",
                    format!("{other:?} is none of octet-stream, npy, json"),
                ));
            }
            None => {}
        }
        let Some(accept) = accept else {
            return Ok(Self::OctetStream);
        };
        let mut best: Option<(f32, Self)> = None;
        for item in accept.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let format = match parts.next().unwrap_or("") {
                "*/*" | "application/*" | "application/octet-stream" => Self::OctetStream,
                "application/x-npy" | "application/npy" => Self::Npy,
                "application/json" => Self::Json,
                _ => continue,
            };
            let quality = parts
                .find_map(|p| p.strip_prefix("q="))
                .map_or(Ok(1.0), str::parse::<f32>);
            let quality = quality.unwrap_or(0.0);
            if quality > 0.0 && best.is_none_or(|(highest, _)| quality > highest) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            Failure::not_acceptable(
                "offered are application/octet-stream, application/x-npy, application/json",
            )
        })
    }

    /// Bytes an element of this size takes in the answer, at most; of variable size, estimated.
    pub fn element_bytes(self, data_type: &DataType) -> u64 {
        let bytes = data_type.size_bytes().unwrap_or(32) as u64;
        match (self, data_type) {
            (Self::OctetStream | Self::Npy, _) => bytes,
            (Self::Json, DataType::Complex64 | DataType::Complex128) => 2 * JSON_NUMBER_BYTES,
            // Raw bytes are lists of numbers below 256.
            (Self::Json, _) => JSON_NUMBER_BYTES.max(4 * bytes),
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OctetStream => "application/octet-stream",
            Self::Npy => "application/x-npy",
            Self::Json => "application/json",
        }
    }

    /// Writes a tensor.
    ///
    /// # Errors
    /// 406 if the format cannot hold its data type.
    pub fn encode(
        self,
        tensor: &Tensor,
        dimensions: &[Option<String>],
    ) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Json => {
                let head = json!({
                    "data_type": tensor.data_type.to_json(),
                    "shape": tensor.shape,
                    "dimensions": dimensions,
                });
                let mut text = head.to_string();
                text.pop();
                text.push_str(",\"values\":");
                write_values(tensor, &mut text);
                text.push('}');
                Ok(text.into_bytes())
            }
            Self::OctetStream | Self::Npy => {
                let (Elements::Fixed(bytes), Some(descr)) =
                    (&tensor.elements, tensor.data_type.numpy_descr())
                else {
                    let detail = format!(
                        "{} has elements of no fixed size: ask for f=json",
                        tensor.data_type
                    );
                    return Err(Failure::not_acceptable(detail));
                };
                if self == Self::OctetStream {
                    return Ok(bytes.clone());
                }
                let mut file = npy_header(&descr, &tensor.shape);
                file.extend_from_slice(bytes);
                Ok(file)
            }
        }
    }

    /// The `Tensor` header: enough to read the bytes.
    pub fn tensor_header(tensor: &Tensor) -> String {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let dtype = tensor
            .data_type
            .numpy_descr()
            .unwrap_or_else(|| tensor.data_type.to_string());
        format!("dtype=\"{dtype}\", shape=({})", shape.join(" "))
    }
}

/// Source: NumPy enhancement proposal 1, version 1.0 of the format.
fn npy_header(descr: &str, shape: &[u64]) -> Vec<u8> {
    const PREFIX_BYTES: usize = 10;
    let lengths: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let shape = if shape.len() > 1 {
        lengths.trim_end_matches(", ")
    } else {
        lengths.trim_end()
    };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padding = 64 - (PREFIX_BYTES + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes
}

/// Appends the elements as nested lists; numbers JSON cannot hold as text (`"NaN"`, `"Infinity"`).
fn write_values(tensor: &Tensor, text: &mut String) {
    match &tensor.elements {
        Elements::Variable(elements) => {
            let element = |element: &[u8]| match tensor.data_type {
                DataType::String => json!(String::from_utf8_lossy(element)),
                _ => json!(element),
            };
            nest(&mut elements.iter().map(element), &tensor.shape, text);
        }
        Elements::Fixed(bytes) => {
            let size = tensor.data_type.size_bytes().unwrap_or(1).max(1);
            let element = |element: &[u8]| scalar(&tensor.data_type, element);
            nest(
                &mut bytes.chunks_exact(size).map(element),
                &tensor.shape,
                text,
            );
        }
    }
}

fn nest(flat: &mut impl Iterator<Item = Value>, shape: &[u64], text: &mut String) {
    match shape.split_first() {
        None => {
            if let Some(value) = flat.next() {
                text.push_str(&value.to_string());
            }
        }
        Some(_) if empty_lists(shape) > MAX_EMPTY_LISTS => text.push_str("[]"),
        Some((&length, rest)) => {
            text.push('[');
            for position in 0..length {
                if position > 0 {
                    text.push(',');
                }
                nest(flat, rest, text);
            }
            text.push(']');
        }
    }
}

/// Empty lists written for a tensor without elements; one list stands for more than these.
const MAX_EMPTY_LISTS: u64 = 1 << 16;

/// How many empty lists an array of this shape is; 0 if it has elements.
fn empty_lists(shape: &[u64]) -> u64 {
    let above = shape.iter().take_while(|&&length| length > 0);
    if above.clone().count() == shape.len() {
        return 0;
    }
    above.fold(1, |product, &length| product.saturating_mul(length))
}

/// Most bytes of JSON text a number takes, with its comma.
const JSON_NUMBER_BYTES: u64 = 25;

fn scalar(data_type: &DataType, bytes: &[u8]) -> Value {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap_or([0; N])
    }
    let float = |value: f64| match value {
        value if value.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        value => json!(value),
    };
    match data_type {
        DataType::Bool => json!(bytes[0] != 0),
        DataType::Int8 => json!(i8::from_le_bytes(array(bytes))),
        DataType::Int16 => json!(i16::from_le_bytes(array(bytes))),
        DataType::Int32 => json!(i32::from_le_bytes(array(bytes))),
        DataType::Int64 | DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => {
            json!(i64::from_le_bytes(array(bytes)))
        }
        DataType::UInt8 => json!(bytes[0]),
        DataType::UInt16 => json!(u16::from_le_bytes(array(bytes))),
        DataType::UInt32 => json!(u32::from_le_bytes(array(bytes))),
        DataType::UInt64 => json!(u64::from_le_bytes(array(bytes))),
        DataType::Float16 => float(f16::from_le_bytes(array(bytes)).to_f64()),
        DataType::BFloat16 => float(bf16::from_le_bytes(array(bytes)).to_f64()),
        // The shortest text that reads back as the same float32.
        DataType::Float32 => {
            let value = f32::from_le_bytes(array(bytes));
            float(if value.is_finite() {
                value.to_string().parse().unwrap_or(f64::from(value))
            } else {
                f64::from(value)
            })
        }
        DataType::Float64 => float(f64::from_le_bytes(array(bytes))),
        DataType::Complex64 => {
            json!([
                scalar(&DataType::Float32, &bytes[..4]),
                scalar(&DataType::Float32, &bytes[4..])
            ])
        }
        DataType::Complex128 => {
            json!([
                scalar(&DataType::Float64, &bytes[..8]),
                scalar(&DataType::Float64, &bytes[8..])
            ])
        }
        DataType::NullTerminatedBytes { .. } => {
            let end = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            json!(String::from_utf8_lossy(&bytes[..end]))
        }
        DataType::FixedLengthUtf32 { .. } => {
            let text: String = bytes
                .chunks_exact(4)
                .filter_map(|code| char::from_u32(u32::from_le_bytes(array(code))))
                .collect();
            json!(text.trim_end_matches('\0'))
        }
        _ => json!(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_headers_are_numpys() {
        for (shape, expected) in [(vec![], "()"), (vec![3], "(3,)"), (vec![3, 4], "(3, 4)")] {
            let header = npy_header("<f4", &shape);
            assert_eq!(header.len() % 64, 0);
            let text = String::from_utf8_lossy(&header[10..]);
            assert!(text.contains(&format!("'shape': {expected}, }}")), "{text}");
        }
    }

    #[test]
    fn formats_are_negotiated() {
        let negotiate = |f, accept| Format::negotiate(f, accept).ok();
        assert_eq!(negotiate(None, None), Some(Format::OctetStream));
        assert_eq!(negotiate(None, Some("*/*")), Some(Format::OctetStream));
        assert_eq!(
            negotiate(None, Some("application/json;q=0.5, application/x-npy")),
            Some(Format::Npy)
        );
        assert_eq!(
            negotiate(Some("json"), Some("text/html")),
            Some(Format::Json)
        );
        assert_eq!(negotiate(None, Some("image/png")), None);
        assert_eq!(negotiate(Some("xml"), None), None);
    }

    #[test]
    fn json_nests_and_spells_what_it_cannot_hold() {
        let floats = [1.5f32, f32::NAN, 0.1, f32::INFINITY];
        let tensor = Tensor {
            data_type: DataType::Float32,
            shape: vec![2, 2],
            elements: Elements::Fixed(floats.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        let written = Format::Json
            .encode(&tensor, &[None, Some("x".into())])
            .unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written["values"], json!([[1.5, "NaN"], [0.1, "Infinity"]]));
        assert_eq!(written["dimensions"], json!([null, "x"]));
    }

    #[test]
    fn json_of_nothing_stays_small() {
        for (shape, expected) in [
            (vec![0], "[]"),
            (vec![1 << 40, 0], "[]"),
            (vec![2, 0], "[[],[]]"),
            (vec![0, 2], "[]"),
        ] {
            let tensor = Tensor {
                data_type: DataType::Int8,
                shape,
                elements: Elements::Fixed(Vec::new()),
            };
            let mut text = String::new();
            write_values(&tensor, &mut text);
            assert_eq!(text, expected);
        }
    }
}
