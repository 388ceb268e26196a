//! NumPy's type strings: `<f4`, `|S5`, `>M8[ns]`.
//!
//! Source: NumPy, "The array interface protocol", `typestr`; numpy.lib.format.

use array::{DataType, MAX_ELEMENT_BYTES};
use serde_json::json;

/// A NumPy type of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumpyType {
    /// What it is here.
    pub(crate) data_type: DataType,
    /// Whether its words are stored with the most significant byte first.
    pub(crate) is_big_endian: bool,
}

impl NumpyType {
    /// Reads a type string.
    ///
    /// # Errors
    /// Why there is no such type here.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is no NumPy type that can be kept");
        let mut letters = text.chars();
        let (order, kind) = match (letters.next(), letters.next()) {
            (Some(order @ ('<' | '>' | '|' | '=')), Some(kind)) => (order, kind),
            _ => return Err(unknown()),
        };
        let rest = letters.as_str();
        let data_type = match kind {
            'O' => {
                return Err("it holds Python objects, which are pickles and are never read".into());
            }
            'M' | 'm' => time(kind, rest).ok_or_else(unknown)?,
            _ => fixed(kind, rest).ok_or_else(unknown)?,
        };
        Ok(Self {
            data_type,
            is_big_endian: order == '>',
        })
    }

    /// Bytes of the words that the byte order is about.
    pub(crate) fn word_bytes(&self) -> usize {
        match &self.data_type {
            DataType::Complex64 | DataType::FixedLengthUtf32 { .. } => 4,
            DataType::Complex128 => 8,
            DataType::RawBytes { .. } | DataType::NullTerminatedBytes { .. } => 1,
            other => other.size_bytes().unwrap_or(1),
        }
    }

    /// Turns stored elements into those in memory, which are little-endian.
    pub(crate) fn to_memory(&self, bytes: &mut [u8]) {
        let word = self.word_bytes();
        if self.is_big_endian && word > 1 {
            bytes.chunks_exact_mut(word).for_each(<[u8]>::reverse);
        }
    }
}

fn fixed(kind: char, size: &str) -> Option<DataType> {
    let size: u32 = size.parse().ok()?;
    let length = |factor: u32| {
        let length = size.checked_mul(factor)?;
        (1..=MAX_ELEMENT_BYTES).contains(&length).then_some(length)
    };
    Some(match (kind, size) {
        ('b', 1) => DataType::Bool,
        ('i', 1) => DataType::Int8,
        ('i', 2) => DataType::Int16,
        ('i', 4) => DataType::Int32,
        ('i', 8) => DataType::Int64,
        ('u', 1) => DataType::UInt8,
        ('u', 2) => DataType::UInt16,
        ('u', 4) => DataType::UInt32,
        ('u', 8) => DataType::UInt64,
        ('f', 2) => DataType::Float16,
        ('f', 4) => DataType::Float32,
        ('f', 8) => DataType::Float64,
        ('c', 8) => DataType::Complex64,
        ('c', 16) => DataType::Complex128,
        ('S' | 'a', _) => DataType::NullTerminatedBytes {
            length_bytes: length(1)?,
        },
        ('U', _) => DataType::FixedLengthUtf32 {
            length_bytes: length(4)?,
        },
        ('V', _) => DataType::RawBytes {
            length_bytes: length(1)?,
        },
        _ => return None,
    })
}

/// `8[25s]`: a multiple and a unit.
fn time(kind: char, rest: &str) -> Option<DataType> {
    let rest = rest.strip_prefix('8')?;
    let inside = match rest {
        "" => "generic",
        rest => rest.strip_prefix('[')?.strip_suffix(']')?,
    };
    let digits = inside.len()
        - inside
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let (scale, unit) = inside.split_at(digits);
    let scale: u32 = match scale {
        "" => 1,
        digits => digits.parse().ok()?,
    };
    let name = match kind {
        'M' => "numpy.datetime64",
        _ => "numpy.timedelta64",
    };
    let configuration = json!({ "unit": unit, "scale_factor": scale });
    DataType::parse(&json!({ "name": name, "configuration": configuration })).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_by_their_strings() {
        for (text, shown, big) in [
            ("|b1", "bool", false),
            ("<f4", "float32", false),
            (">i2", "int16", true),
            ("<c16", "complex128", false),
            ("|S5", "null_terminated_bytes[5]", false),
            ("<U4", "fixed_length_utf32[16]", false),
            ("|V3", "raw_bytes[3]", false),
            ("<M8[ns]", "datetime64[ns]", false),
            (">m8[25s]", "timedelta64[25s]", true),
            ("<M8", "datetime64[generic]", false),
        ] {
            let found = NumpyType::parse(text).unwrap();
            assert_eq!(
                (found.data_type.to_string().as_str(), found.is_big_endian),
                (shown, big)
            );
        }
        for bad in [
            "",
            "f4",
            "<f3",
            "<f16",
            "|O",
            "<M8[x]",
            "<M8[",
            "|S0",
            "|S99999999999",
            "é",
            "<U1073741825",
        ] {
            assert!(NumpyType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn big_words_are_turned() {
        let complex = NumpyType::parse(">c8").unwrap();
        let mut bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        complex.to_memory(&mut bytes);
        assert_eq!(bytes, [4, 3, 2, 1, 8, 7, 6, 5]);
    }
}
