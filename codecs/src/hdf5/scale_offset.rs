//! The scale-offset filter: differences from the least value, in as many bits as the largest takes;
//! of floats, rounded to so many decimals first.
//!
//! ```text
//! bits of a value (u32) ‖ 8 ‖ least value (8 bytes) ‖ 8 zeros ‖ values, highest bits first
//! ```
//!
//! All bits set stand for the fill value, if there is one. Parameters: method (0 decimals, 2 integers),
//! decimals or bits, elements, class (1 for floats), bytes of an element, 1 if it is signed, 1 if it is
//! big-endian, 1 if there is a fill value, and that, in words of four bytes, the lowest first.
//!
//! Source: HDF5 "Scale-offset filter" (`H5Pset_scaleoffset`).

use std::borrow::Cow;

use super::bits::Bits;
use super::{corrupt, invalid};
use crate::Error;

const HEADER_BYTES: usize = 21;
const DECIMALS: u32 = 0;
const INTEGERS: u32 = 2;

/// What the values become.
enum Value {
    Integer,
    Single { scale: f32, least: f32 },
    Double { scale: f64, least: f64 },
}

pub(super) fn decode<'a>(
    bytes: Cow<'a, [u8]>,
    parameters: &[u32],
    decoded: usize,
) -> Result<Cow<'a, [u8]>, Error> {
    let &[
        method,
        factor,
        count,
        class,
        size,
        _,
        order,
        has_fill,
        low,
        high,
    ] = parameters
        .first_chunk::<10>()
        .ok_or_else(|| invalid("too few parameters of the scale-offset filter"))?;
    let element = size as usize;
    let is_float = class == 1;
    let is_known = match is_float {
        true => method == DECIMALS && matches!(size, 4 | 8),
        false => method == INTEGERS && matches!(size, 1 | 2 | 4 | 8),
    };
    if !is_known {
        return Err(invalid("a scale-offset filter of another method"));
    }
    if method == INTEGERS && factor == 8 * size {
        return Ok(bytes);
    }
    if (count as usize).checked_mul(element) != Some(decoded) {
        return Err(invalid("a scale-offset filter for chunks of another size"));
    }
    let short = || corrupt("its scale-offset data end early");
    let (header, packed) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(short)?;
    let word = |at: usize| header[at..].iter().take(4).rev();
    let bits = word(0).fold(0u32, |value, &byte| value << 8 | u32::from(byte));
    let least_bytes = usize::from(header[4]).min(8);
    let least = header[5..5 + least_bytes].iter().rev();
    let least = least.fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    if bits > 8 * size {
        return Err(corrupt(format!("values of {bits} bits in {size} bytes")));
    }
    let mut out = Vec::with_capacity(decoded);
    let mut push = |value: u64| match order {
        0 => out.extend_from_slice(&value.to_le_bytes()[..element]),
        _ => out.extend_from_slice(&value.to_be_bytes()[8 - element..]),
    };
    if bits == 8 * size {
        let values = packed.get(..decoded).ok_or_else(short)?;
        for value in values.chunks_exact(element) {
            let mut wide = [0; 8];
            wide[..element].copy_from_slice(value);
            push(u64::from_le_bytes(wide));
        }
        return Ok(Cow::Owned(out));
    }
    let fill = u64::from(low) | u64::from(high) << 32;
    let stands_for_fill = (has_fill == 1).then(|| (1u64 << bits) - 1);
    // The number of decimals is a signed integer.
    let decimals = factor as i32;
    let value_of = match (is_float, size) {
        (false, _) => Value::Integer,
        (true, 4) => Value::Single {
            scale: 10f32.powf(decimals as f32),
            least: f32::from_bits(least as u32),
        },
        (true, _) => Value::Double {
            scale: 10f64.powf(f64::from(decimals)),
            least: f64::from_bits(least),
        },
    };
    let mut bits_of = Bits::new(packed);
    for _ in 0..count {
        let found = bits_of.take(bits).ok_or_else(short)?;
        push(match value_of {
            _ if Some(found) == stands_for_fill => fill,
            Value::Integer => found.wrapping_add(least),
            Value::Single { scale, least } => {
                u64::from((found as i32 as f32 / scale + least).to_bits())
            }
            Value::Double { scale, least } => (found as i64 as f64 / scale + least).to_bits(),
        });
    }
    Ok(Cow::Owned(out))
}
