//! Arrays whose elements lie one after another in a file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use array::{DataType, Elements, Region, shape};

use crate::Error;
use crate::numpy_type::NumpyType;

/// An array whose elements lie one after another in a file, which was checked to be long enough.
#[derive(Clone, Debug)]
pub(crate) struct FlatArray {
    /// Its first byte.
    pub(crate) begin: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) element: NumpyType,
    /// Whether the first dimension varies fastest.
    pub(crate) is_fortran: bool,
}

impl FlatArray {
    /// Bytes of the array.
    ///
    /// # Errors
    /// [`Error::Array`] if they are too many to count.
    pub(crate) fn size_bytes(shape: &[u64], data_type: &DataType) -> Result<u64, array::Error> {
        let element = data_type.size_bytes().unwrap_or(1) as u64;
        // A length of zero makes any others right, which would then overflow elsewhere.
        let lengths: Vec<u64> = shape.iter().map(|&length| length.max(1)).collect();
        let too_large = array::Error::TooLarge { what: "array" };
        let most = shape::elements(&lengths)?.checked_mul(element);
        let most = most.ok_or(too_large)?;
        Ok(if shape.contains(&0) { 0 } else { most })
    }

    /// Reads a box, in C order and little-endian.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read, or has become shorter; [`Error::Malformed`] for
    /// a truth value that is neither.
    pub(crate) fn read(
        &self,
        file: &File,
        path: &Path,
        region: &Region,
    ) -> Result<Elements, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = if self.is_fortran {
            // In C order the array is the one with its dimensions turned round.
            let turned = |lengths: &[u64]| lengths.iter().rev().copied().collect::<Vec<u64>>();
            let region = Region::new(turned(region.start()), turned(region.shape()))?;
            let bytes = self
                .read_c(file, &turned(&self.shape), &region)
                .map_err(failed)?;
            turn_round(&bytes, region.shape(), self.size())?
        } else {
            self.read_c(file, &self.shape, region).map_err(failed)?
        };
        self.element.to_memory(&mut bytes);
        if self.element.data_type == DataType::Bool && bytes.iter().any(|&byte| byte > 1) {
            return Err(Error::Malformed {
                path: path.to_owned(),
                reason: "a truth value is neither 0 nor 1".into(),
            });
        }
        Ok(Elements::Fixed(bytes))
    }

    fn size(&self) -> usize {
        self.element.data_type.size_bytes().unwrap_or(1)
    }

    /// Reads a box of an array of `shape` in C order.
    fn read_c(&self, file: &File, shape: &[u64], region: &Region) -> std::io::Result<Vec<u8>> {
        let size = self.size();
        let total = shape::elements(region.shape()).ok();
        let total = total.and_then(|count| usize::try_from(count).ok()?.checked_mul(size));
        let total = total.ok_or(std::io::ErrorKind::OutOfMemory)?;
        let mut bytes = vec![0; total];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let rank = shape.len();
        let is_whole = |&axis: &usize| region.shape()[axis] == shape[axis];
        let whole = (0..rank).rev().take_while(is_whole).count();
        // The dimension before those that are whole is contiguous too.
        let first = (rank - whole).saturating_sub(1);
        let run = region.shape()[first..].iter().product::<u64>() as usize * size;
        let strides = shape::strides(shape);
        let mut starts = region.shape().to_vec();
        starts[first..].fill(1);
        let starts = Region::new(region.start().to_vec(), starts).map_err(std::io::Error::other)?;
        for (at, piece) in starts.positions().zip(bytes.chunks_exact_mut(run)) {
            let place: u64 = at
                .iter()
                .zip(&strides)
                .map(|(at, stride)| at * stride)
                .sum();
            file.read_exact_at(piece, self.begin + place * size as u64)?;
        }
        Ok(bytes)
    }
}

/// The elements of an array of `shape` in C order, as those of the array with its dimensions turned
/// round.
fn turn_round(bytes: &[u8], shape: &[u64], size: usize) -> Result<Vec<u8>, array::Error> {
    let rank = shape.len();
    if rank < 2 || bytes.is_empty() {
        return Ok(bytes.to_vec());
    }
    let strides = shape::strides(shape);
    let turned: Vec<u64> = shape.iter().rev().copied().collect();
    let mut out = Vec::with_capacity(bytes.len());
    // The last dimension of the result is the first of the source.
    let (rows, last) = turned.split_at(rank - 1);
    let step = strides[0] as usize * size;
    for at in Region::whole(rows).positions() {
        let outer = at.iter().zip(strides.iter().rev());
        let start: u64 = outer.map(|(at, stride)| at * stride).sum();
        let start = start as usize * size;
        for nth in 0..last[0] as usize {
            let from = start + nth * step;
            out.extend_from_slice(&bytes[from..from + size]);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn boxes_come_in_c_order_from_either() {
        let shape = [3u64, 4, 5];
        let value = |at: &[u64]| (at[0] * 20 + at[1] * 5 + at[2]) as u8;
        for is_fortran in [false, true] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[99]).unwrap();
            let turned: Vec<u64> = shape.iter().rev().copied().collect();
            let order = if is_fortran { &turned[..] } else { &shape[..] };
            for mut at in Region::whole(order).positions() {
                if is_fortran {
                    at.reverse();
                }
                file.write_all(&[0, value(&at)]).unwrap();
            }
            let array = FlatArray {
                begin: 1,
                shape: shape.to_vec(),
                element: NumpyType::parse(">i2").unwrap(),
                is_fortran,
            };
            for (start, lengths) in [
                ([0, 0, 0], [3, 4, 5]),
                ([1, 0, 0], [2, 4, 5]),
                ([0, 1, 2], [3, 2, 3]),
                ([2, 3, 4], [1, 1, 1]),
                ([0, 0, 0], [0, 4, 5]),
            ] {
                let region = Region::new(start.to_vec(), lengths.to_vec()).unwrap();
                let found = array.read(&file, Path::new("x"), &region).unwrap();
                let wanted = region.positions().flat_map(|at| [value(&at), 0]).collect();
                assert_eq!(found, Elements::Fixed(wanted), "{is_fortran} {region}");
            }
        }
    }
}
