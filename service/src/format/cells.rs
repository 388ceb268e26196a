//! Elements one by one, for the formats that cannot take them as they lie in memory.

use array::{DataType, Elements, Tensor};
use half::{bf16, f16};

/// The bytes of each element, in order.
pub(super) fn bytes(tensor: &Tensor) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    match &tensor.elements {
        Elements::Variable(elements) => Box::new(elements.iter()),
        Elements::Fixed(bytes) => {
            let size = tensor.data_type.size_bytes().unwrap_or(1).max(1);
            Box::new(bytes.chunks_exact(size))
        }
    }
}

/// The bytes of the element at a place in C order; none if there is no such place.
pub(super) fn at(tensor: &Tensor, place: usize) -> &[u8] {
    match &tensor.elements {
        Elements::Variable(elements) => elements.get(place).unwrap_or_default(),
        Elements::Fixed(bytes) => {
            let size = tensor.data_type.size_bytes().unwrap_or(1).max(1);
            let start = place.saturating_mul(size);
            bytes
                .get(start..start.saturating_add(size))
                .unwrap_or_default()
        }
    }
}

/// `N` bytes; zeros if there are not as many.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

/// A real number or boolean as `f64`, rounded; `None` for other types.
pub(super) fn number(data_type: &DataType, bytes: &[u8]) -> Option<f64> {
    Some(match data_type {
        DataType::Bool | DataType::UInt8 => f64::from(u8::from_le_bytes(array(bytes))),
        DataType::Int8 => f64::from(i8::from_le_bytes(array(bytes))),
        DataType::Int16 => f64::from(i16::from_le_bytes(array(bytes))),
        DataType::Int32 => f64::from(i32::from_le_bytes(array(bytes))),
        DataType::Int64 => i64::from_le_bytes(array(bytes)) as f64,
        DataType::UInt16 => f64::from(u16::from_le_bytes(array(bytes))),
        DataType::UInt32 => f64::from(u32::from_le_bytes(array(bytes))),
        DataType::UInt64 => u64::from_le_bytes(array(bytes)) as f64,
        DataType::Float16 => f16::from_le_bytes(array(bytes)).to_f64(),
        DataType::BFloat16 => bf16::from_le_bytes(array(bytes)).to_f64(),
        DataType::Float32 => f64::from(f32::from_le_bytes(array(bytes))),
        DataType::Float64 => f64::from_le_bytes(array(bytes)),
        _ => return None,
    })
}

/// The text of a text element; `None` for other types.
///
/// What is not valid text, which only bytes that were not checked on the way in can be, is replaced.
pub(super) fn text(data_type: &DataType, bytes: &[u8]) -> Option<String> {
    match data_type {
        DataType::String => Some(String::from_utf8_lossy(bytes).into_owned()),
        DataType::NullTerminatedBytes { .. } => {
            Some(String::from_utf8_lossy(without_padding(bytes)).into_owned())
        }
        DataType::FixedLengthUtf32 { .. } => {
            let text: String = bytes
                .chunks_exact(4)
                .filter_map(|code| char::from_u32(u32::from_le_bytes(array(code))))
                .collect();
            Some(text.trim_end_matches('\0').to_owned())
        }
        _ => None,
    }
}

/// NUL-padded bytes without their padding.
pub(super) fn without_padding(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().rposition(|&byte| byte != 0);
    &bytes[..last.map_or(0, |last| last + 1)]
}

/// `float16` or `bfloat16` elements as `float32`, which holds all of them.
pub(super) fn widened(data_type: &DataType, bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.chunks_exact(2);
    match data_type {
        DataType::BFloat16 => halves
            .map(|half| bf16::from_le_bytes(array(half)).to_f32())
            .collect(),
        _ => halves
            .map(|half| f16::from_le_bytes(array(half)).to_f32())
            .collect(),
    }
}
