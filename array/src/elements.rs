//! Decoded elements, in memory.

use crate::{DataType, Error, shape};

/// Elements in C order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Elements of a fixed-size type: `count × size_bytes` bytes, little-endian.
    Fixed(Vec<u8>),
    /// Elements of a variable-length type.
    Variable(VariableElements),
}

/// Variable-length elements: element `i` is `bytes[offsets[i]..offsets[i + 1]]`.
///
/// Offsets ascend from 0 to the number of bytes, one more than there are elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableElements {
    offsets: Vec<usize>,
    bytes: Vec<u8>,
}

impl VariableElements {
    /// Elements from offsets and bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless offsets ascend from 0 to `bytes.len()`.
    pub fn new(offsets: Vec<usize>, bytes: Vec<u8>) -> Result<Self, Error> {
        let valid = offsets.first() == Some(&0)
            && offsets.last() == Some(&bytes.len())
            && offsets.is_sorted();
        if !valid {
            return Err(Error::invalid(
                "offsets",
                "they do not ascend from 0 to the number of bytes",
            ));
        }
        Ok(Self { offsets, bytes })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index`; `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        Some(&self.bytes[*self.offsets.get(index)?..*self.offsets.get(index.checked_add(1)?)?])
    }

    /// All elements, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.offsets
            .windows(2)
            .map(|pair| &self.bytes[pair[0]..pair[1]])
    }

    /// The offsets and the bytes.
    pub fn into_parts(self) -> (Vec<usize>, Vec<u8>) {
        (self.offsets, self.bytes)
    }

    /// The offsets.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The bytes of all elements, back to back.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> FromIterator<&'a [u8]> for VariableElements {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(elements: I) -> Self {
        let mut offsets = vec![0];
        let mut bytes = Vec::new();
        for element in elements {
            bytes.extend_from_slice(element);
            offsets.push(bytes.len());
        }
        Self { offsets, bytes }
    }
}

impl Elements {
    /// `count` copies of `element`, the in-memory bytes of one element of `data_type`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if they do not fit in memory.
    pub fn repeat(data_type: &DataType, element: &[u8], count: u64) -> Result<Self, Error> {
        let too_large = || Error::TooLarge {
            what: "array in bytes",
        };
        let total = shape::elements(&[count, element.len().max(1) as u64])?;
        let total = usize::try_from(total).map_err(|_| too_large())?;
        let count = usize::try_from(count).map_err(|_| too_large())?;
        if data_type.is_variable_length() {
            let mut offsets = Vec::new();
            offsets
                .try_reserve_exact(count.checked_add(1).ok_or_else(too_large)?)
                .map_err(|_| too_large())?;
            offsets.extend((0..=count).map(|i| i * element.len()));
            return Ok(Self::Variable(VariableElements {
                offsets,
                bytes: element.repeat(count),
            }));
        }
        if element.iter().all(|&b| b == 0) {
            return Ok(Self::Fixed(zeroed(total)?));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(total).map_err(|_| too_large())?;
        for _ in 0..count {
            bytes.extend_from_slice(element);
        }
        Ok(Self::Fixed(bytes))
    }

    /// Bytes held, offsets included.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes.len(),
            Self::Variable(v) => v.bytes.len() + v.offsets.len() * size_of::<usize>(),
        }
    }
}

/// `length` zero bytes, or an error where the allocator has no room for them.
fn zeroed(length: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| Error::TooLarge {
            what: "array in bytes",
        })?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// An array in memory: what a read or a reduction gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Type of the elements.
    pub data_type: DataType,
    /// Length of each dimension.
    pub shape: Vec<u64>,
    /// The elements, in C order.
    pub elements: Elements,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_elements_check_their_offsets() {
        assert!(VariableElements::new(vec![0, 1, 3], b"abc".to_vec()).is_ok());
        for offsets in [vec![], vec![0, 2, 1, 3], vec![0, 4], vec![1, 3]] {
            assert!(VariableElements::new(offsets, b"abc".to_vec()).is_err());
        }
        let elements: VariableElements = [b"a".as_slice(), b"", b"bc"].into_iter().collect();
        assert_eq!(elements.len(), 3);
        assert_eq!(elements.get(2), Some(b"bc".as_slice()));
        assert_eq!(elements.get(3), None);
    }

    #[test]
    fn repeating_refuses_what_does_not_fit() {
        assert!(Elements::repeat(&DataType::Float64, &[0; 8], u64::MAX).is_err());
        assert!(Elements::repeat(&DataType::Float64, &[1; 8], 1 << 60).is_err());
        assert!(Elements::repeat(&DataType::String, b"", u64::MAX).is_err());
        assert_eq!(
            Elements::repeat(&DataType::Int16, &[1, 0], 2),
            Ok(Elements::Fixed(vec![1, 0, 1, 0]))
        );
    }
}
