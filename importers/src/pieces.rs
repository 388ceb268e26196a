//! How the values of a variable lie in its file: chunks to refer to, where they are, and the codecs
//! that say what their bytes are.

use array::{CodecMetadata, DataType, RegularGrid, shape};
use serde_json::json;

/// Values that lie in one run are cut into chunks of about so many bytes: a part of the variable is
/// then read without much else, and a chunk is worth a request.
pub(crate) const CUT_BYTES: u64 = 1 << 20;

/// One chunk in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its number in the grid of chunks, in C order.
    pub(crate) place: u64,
    /// Its first byte in the file.
    pub(crate) offset: u64,
    /// Bytes of it.
    pub(crate) length: u64,
}

/// A variable in its file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pieces {
    /// Shape of the chunks.
    pub(crate) chunk_shape: Vec<u64>,
    /// From the elements of a chunk to its bytes.
    pub(crate) codecs: Vec<CodecMetadata>,
    /// What chunks that are in neither list hold; `None` if there are none.
    pub(crate) fill: Option<Vec<u8>>,
    /// Chunks that are in the file as these codecs have them.
    pub(crate) found: Vec<Piece>,
    /// Numbers of chunks that are there in another way.
    pub(crate) to_copy: Vec<u64>,
    /// Bytes before what the format counts from, which the offsets may lack.
    pub(crate) user_block: u64,
}

impl Pieces {
    /// No chunks so far.
    pub(crate) fn none(chunk_shape: Vec<u64>, codecs: Vec<CodecMetadata>) -> Self {
        Self {
            chunk_shape,
            codecs,
            fill: None,
            found: Vec::new(),
            to_copy: Vec::new(),
            user_block: 0,
        }
    }
}

/// How many chunks an array has along each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid(Vec<u64>);

impl Grid {
    pub(crate) fn new(shape: &[u64], chunk_shape: &[u64]) -> Result<Self, array::Error> {
        let grid = RegularGrid::new(shape.to_vec(), chunk_shape.to_vec())?.grid_shape();
        shape::elements(&grid)?;
        Ok(Self(grid))
    }

    pub(crate) fn lengths(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().product()
    }

    /// The number of the chunk at `index`; `None` if it is not in the grid.
    pub(crate) fn place(&self, index: &[u64]) -> Option<u64> {
        let is_inside = index.iter().zip(&self.0).all(|(at, length)| at < length);
        is_inside.then(|| shape::linear_index(index, &self.0))
    }
}

/// The codec that makes bytes of elements.
pub(crate) fn bytes_codec(data_type: &DataType, is_big_endian: bool) -> CodecMetadata {
    let has_order = match data_type {
        DataType::NullTerminatedBytes { .. } => false,
        other => other.size_bytes() != Some(1),
    };
    let endian = if is_big_endian { "big" } else { "little" };
    let configuration = match has_order {
        true => json!({ "endian": endian }),
        false => json!({}),
    };
    CodecMetadata::new("bytes", configuration)
}

/// The chunks of values that lie in one run from byte `begin` of a file of `file_bytes`, in C order:
/// their shape, those that are in the file, and the numbers of the others.
///
/// A chunk at the end of a dimension is as long as the others: the cells behind are outside the array,
/// and the bytes are those of what follows. Only one that would reach past the end of the file is one of
/// the others.
pub(crate) fn contiguous(
    array_shape: &[u64],
    element_bytes: u64,
    begin: u64,
    file_bytes: u64,
) -> (Vec<u64>, Vec<Piece>, Vec<u64>) {
    let mut chunk_shape: Vec<u64> = vec![1; array_shape.len()];
    let mut bytes = element_bytes;
    for axis in (0..array_shape.len()).rev() {
        let length = array_shape[axis].max(1);
        let most = (CUT_BYTES / bytes).clamp(1, length);
        // Parts that are all alike, if there are some of nearly that size.
        let even = (most.div_ceil(2)..=most).rev().take(1 << 16);
        let even = even.into_iter().find(|part| length.is_multiple_of(*part));
        chunk_shape[axis] = even.unwrap_or(most);
        bytes = bytes.saturating_mul(chunk_shape[axis]);
        if chunk_shape[axis] < length {
            break;
        }
    }
    let strides = shape::strides(array_shape);
    let (mut found, mut others) = (Vec::new(), Vec::new());
    if array_shape.contains(&0) {
        return (chunk_shape, found, others);
    }
    let lengths = array_shape.iter().zip(&chunk_shape);
    let grid: Vec<u64> = lengths
        .map(|(length, part)| length.div_ceil(*part))
        .collect();
    for (place, at) in array::Region::whole(&grid).positions().enumerate() {
        let first: u64 = at
            .iter()
            .zip(&chunk_shape)
            .zip(&strides)
            .map(|((at, part), stride)| at * part * stride)
            .sum();
        let offset = begin + first * element_bytes;
        if offset
            .checked_add(bytes)
            .is_some_and(|end| end <= file_bytes)
        {
            found.push(Piece {
                place: place as u64,
                offset,
                length: bytes,
            });
        } else {
            others.push(place as u64);
        }
    }
    (chunk_shape, found, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_into_parts_of_a_mebibyte() {
        let cut = |shape: &[u64], size| {
            let bytes = shape.iter().product::<u64>() * size;
            let (chunk, found, others) = contiguous(shape, size, 100, 100 + bytes);
            assert_eq!(others, [0; 0]);
            (chunk, found.len() as u64)
        };
        assert_eq!(cut(&[], 8), (vec![], 1));
        assert_eq!(cut(&[10], 4), (vec![10], 1));
        assert_eq!(cut(&[10, 20, 30], 4), (vec![10, 20, 30], 1));
        assert_eq!(cut(&[1000, 512, 512], 4), (vec![1, 512, 512], 1000));
        // Rows of 2 MiB are halved, rows of a few bytes put together.
        assert_eq!(cut(&[7, 1 << 19], 4), (vec![1, 1 << 18], 14));
        assert_eq!(cut(&[1_000_000, 2], 4), (vec![125_000, 2], 8));
        // A prime number of rows has a last part that reaches past the end.
        let (chunk, found, others) = contiguous(&[1_000_003, 2], 4, 0, 8_000_024);
        assert_eq!(chunk, [131_072, 2]);
        assert_eq!((found.len(), others), (7, vec![7]));
        let (_, found, _) = contiguous(&[1_000_003, 2], 4, 0, 9_000_000);
        assert_eq!(found.len(), 8);
        assert_eq!(contiguous(&[5, 0], 4, 0, 0).1, []);
    }

    #[test]
    fn parts_begin_where_their_cells_are() {
        let (shape, size) = ([3, 5, 70_000], 8);
        let (chunk, found, _) = contiguous(&shape, size, 12, u64::MAX / 2);
        let grid = Grid::new(&shape, &chunk).unwrap();
        assert_eq!(found.len() as u64, grid.count());
        for piece in found {
            let at = shape::coordinate(piece.place, grid.lengths());
            let first: Vec<u64> = at.iter().zip(&chunk).map(|(a, l)| a * l).collect();
            let offset = 12 + size * shape::linear_index(&first, &shape);
            assert_eq!(piece.offset, offset);
            assert_eq!(piece.length, size * chunk.iter().product::<u64>());
        }
    }
}
