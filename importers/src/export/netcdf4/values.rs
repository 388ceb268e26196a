//! Elements as a NetCDF-4 file stores them, and chunks as HDF5 filters them.

use std::io::Write as _;

use array::VariableElements;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use half::{bf16, f16};

use super::layout::Kind;
use array::DataType;

/// Elements of a fixed size as the file has them.
///
/// # Errors
/// Why one has no place.
pub(super) fn convert(kind: &Kind, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match kind {
        Kind::Ticks(1) | Kind::Numbers(_) | Kind::Characters(_) | Kind::Complex(_) => Ok(bytes),
        Kind::Ticks(factor) => {
            let (words, _) = bytes.as_chunks::<8>();
            let mut ticks = Vec::with_capacity(bytes.len());
            for word in words {
                let tick = match i64::from_le_bytes(*word) {
                    // Not a time.
                    i64::MIN => i64::MIN,
                    tick => tick
                        .checked_mul(*factor)
                        .ok_or("it holds a time too far from 1970 for the units of CF")?,
                };
                ticks.extend(tick.to_le_bytes());
            }
            Ok(ticks)
        }
        Kind::Widened | Kind::Texts | Kind::FixedTexts => {
            Err("its elements have no fixed size in the file".into())
        }
    }
}

/// `float16` or `bfloat16` as `float`, which holds all of them.
pub(super) fn widened(data_type: &DataType, bytes: &[u8]) -> Vec<u8> {
    let (halves, _) = bytes.as_chunks::<2>();
    let widen = |half: &[u8; 2]| match data_type {
        DataType::BFloat16 => bf16::from_le_bytes(*half).to_f32(),
        _ => f16::from_le_bytes(*half).to_f32(),
    };
    halves
        .iter()
        .flat_map(|half| widen(half).to_le_bytes())
        .collect()
}

/// NUL-padded UTF-32 as UTF-8.
pub(super) fn texts(bytes: &[u8], size: usize) -> VariableElements {
    let text = |element: &[u8]| -> String {
        let codes = element.as_chunks::<4>().0.iter();
        let text: String = codes
            .filter_map(|code| char::from_u32(u32::from_le_bytes(*code)))
            .collect();
        text.trim_end_matches('\0').to_owned()
    };
    let texts: Vec<String> = bytes.chunks_exact(size.max(4)).map(text).collect();
    texts.iter().map(String::as_bytes).collect()
}

/// A chunk as the filters shuffle and deflate leave it.
///
/// # Errors
/// What the compressor says.
pub(super) fn filtered(
    bytes: Vec<u8>,
    size: usize,
    is_shuffled: bool,
    level: Option<u8>,
) -> Result<Vec<u8>, String> {
    let bytes = match is_shuffled {
        true => shuffled(&bytes, size),
        false => bytes,
    };
    let Some(level) = level else {
        return Ok(bytes);
    };
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level.into()));
    let written = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    written.map_err(|error| error.to_string())
}

/// The first bytes of all elements, then the second ones, and so on.
fn shuffled(bytes: &[u8], size: usize) -> Vec<u8> {
    let size = size.max(1);
    let count = bytes.len() / size;
    let mut out = vec![0; bytes.len()];
    for plane in 0..size {
        let target = &mut out[plane * count..(plane + 1) * count];
        for (to, from) in target
            .iter_mut()
            .zip(bytes.iter().skip(plane).step_by(size))
        {
            *to = *from;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shuffled_by_their_place_in_the_element() {
        assert_eq!(shuffled(&[1, 2, 3, 4, 5, 6], 2), [1, 3, 5, 2, 4, 6]);
        assert_eq!(shuffled(&[1, 2, 3], 1), [1, 2, 3]);
        assert!(shuffled(&[], 8).is_empty());
    }

    #[test]
    fn times_are_scaled_and_nat_stays() {
        let bytes = |values: [i64; 2]| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let kind = Kind::Ticks(7);
        assert_eq!(
            convert(&kind, bytes([1, i64::MIN])),
            Ok(bytes([7, i64::MIN]))
        );
        assert!(convert(&kind, bytes([i64::MAX, 0])).is_err());
    }

    #[test]
    fn texts_lose_their_padding() {
        let utf32: Vec<u8> = ["a\0", "é\0"]
            .iter()
            .flat_map(|text| text.chars().flat_map(|c| (c as u32).to_le_bytes()))
            .collect();
        let texts = texts(&utf32, 8);
        assert_eq!(
            texts.iter().collect::<Vec<_>>(),
            [b"a".as_slice(), "é".as_bytes()]
        );
    }
}
