//! The n-bit filter: the bits of integers and floats that count, one value after the other, without
//! those that do not. Compounds and arrays are not known here.
//!
//! Parameters: their number, 1 if nothing was done, elements, 1 for atomic, then the bytes of an
//! element, its byte order (1 for big endian), the bits that count and those below them.
//!
//! Source: HDF5 "N-bit filter" (`H5Pset_nbit`).

use array::Bits;

use super::{Precision, bits, corrupt, invalid};
use crate::Error;

const ATOMIC: u32 = 1;

/// How values are packed, before a precision is applied, and whether elements are big-endian; `None` if
/// they are not packed, or decoding refuses the parameters.
pub(super) fn packed_bits(parameters: &[u32], decoded: usize) -> Option<(Bits, bool)> {
    let &[
        _,
        is_untouched,
        count,
        class,
        size,
        order,
        width_bits,
        offset_bits,
    ] = parameters.first_chunk::<8>()?;
    let element_bytes = size as usize;
    let bits = Bits {
        width_bits,
        offset_bits,
        filled_bits: width_bits.checked_add(offset_bits)?,
        is_highest_first: true,
    };
    let is_packed = is_untouched == 0
        && class == ATOMIC
        && (1..=8).contains(&size)
        && (count as usize).checked_mul(element_bytes) == Some(decoded)
        && bits.is_valid(element_bytes);
    is_packed.then_some((bits, order != 0))
}

pub(super) fn decode(bytes: &[u8], parameters: &[u32], decoded: usize) -> Result<Vec<u8>, Error> {
    let &[_, is_untouched, count, class, size, order, bits, offset] = parameters
        .first_chunk::<8>()
        .ok_or_else(|| invalid("too few parameters of the n-bit filter"))?;
    if is_untouched != 0 {
        return Ok(bytes.to_vec());
    }
    if class != ATOMIC {
        return Err(invalid("the n-bit filter over compounds or arrays"));
    }
    let (element, count) = (size as usize, count as usize);
    if !(1..=8).contains(&size) || bits == 0 || bits.saturating_add(offset) > 8 * size {
        return Err(invalid("parameters of the n-bit filter that do not fit"));
    }
    if count.checked_mul(element) != Some(decoded) {
        return Err(invalid("an n-bit filter for chunks of another size"));
    }
    let mut out = vec![0; decoded];
    let mut bits_of = bits::Bits::new(bytes);
    for place in out.chunks_exact_mut(element) {
        let value = bits_of.take(bits);
        let value = value.ok_or_else(|| corrupt("its n-bit data end early"))? << offset;
        if order == 0 {
            place.copy_from_slice(&value.to_le_bytes()[..element]);
        } else {
            place.copy_from_slice(&value.to_be_bytes()[8 - element..]);
        }
    }
    Ok(out)
}

/// Turns elements of which only some bits count into integers.
pub(super) fn extend(bytes: &mut [u8], precision: &Precision) {
    let &Precision {
        size,
        bits,
        offset,
        is_signed,
        is_big_endian,
    } = precision;
    let size = size as usize;
    for element in bytes.chunks_exact_mut(size) {
        let mut wide = [0; 8];
        if is_big_endian {
            wide[8 - size..].copy_from_slice(element);
            wide.reverse();
        } else {
            wide[..size].copy_from_slice(element);
        }
        // The bits that count go to the top and come down again, with copies of the sign or zeros.
        let top = u64::from_le_bytes(wide) << (64 - bits - offset);
        let value = match is_signed {
            true => (top as i64 >> (64 - bits)) as u64,
            false => top >> (64 - bits),
        };
        if is_big_endian {
            element.copy_from_slice(&value.to_be_bytes()[8 - size..]);
        } else {
            element.copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }
}
