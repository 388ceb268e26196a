//! NumPy's file format.
//!
//! Source: NumPy enhancement proposal 1, version 1.0 of the format.

use array::{Elements, Tensor};

use super::no_fixed_size;
use crate::error::Failure;

/// A tensor as a file.
///
/// # Errors
/// 406 for elements of no fixed size.
pub(super) fn encode(tensor: &Tensor) -> Result<Vec<u8>, Failure> {
    let (Elements::Fixed(bytes), Some(descr)) = (&tensor.elements, tensor.data_type.numpy_descr())
    else {
        return Err(no_fixed_size(&tensor.data_type));
    };
    let mut file = header(&descr, &tensor.shape);
    file.reserve_exact(bytes.len());
    file.extend_from_slice(bytes);
    Ok(file)
}

fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn headers_are_numpys() {
        for (shape, expected) in [(vec![], "()"), (vec![3], "(3,)"), (vec![3, 4], "(3, 4)")] {
            let header = header("<f4", &shape);
            assert_eq!(header.len() % 64, 0);
            let text = String::from_utf8_lossy(&header[10..]);
            assert!(text.contains(&format!("'shape': {expected}, }}")), "{text}");
        }
    }

    #[test]
    fn texts_of_any_length_are_refused() {
        let refused = encode(&samples::texts(&[1], &["a"])).unwrap_err();
        assert_eq!(refused.problem().status, 406);
    }
}
