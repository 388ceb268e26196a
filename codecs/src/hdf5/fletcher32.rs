//! The checksum of HDF5 and of `numcodecs.fletcher32`: four bytes after the data.
//!
//! Two sums modulo 65,535 over words of two bytes, the first byte the higher; a byte left over is a
//! higher one. HDF5 1.6.2 and before stored each sum with its bytes swapped.
//!
//! Source: HDF5 `H5Z_FILTER_FLETCHER32`, release notes of 1.6.3; numcodecs `fletcher32`.

use std::borrow::Cow;

use super::corrupt;
use crate::Error;

/// Words that can be added before the sums overflow 32 bits: the second sum of n words of 65,535
/// after carries is under n (n + 1) / 2 words and what it had.
const WORDS_AT_ONCE: usize = 360;

fn checksum(bytes: &[u8]) -> u32 {
    let carry = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let (mut first, mut second) = (0u32, 0u32);
    for part in bytes.chunks(2 * WORDS_AT_ONCE) {
        let (words, rest) = part.as_chunks::<2>();
        for &word in words {
            first += u32::from(u16::from_be_bytes(word));
            second += first;
        }
        if let [byte] = rest {
            first = carry(first);
            second = carry(second);
            first += u32::from(*byte) << 8;
            second += first;
        }
        first = carry(first);
        second = carry(second);
    }
    carry(second) << 16 | carry(first)
}

/// The bytes before the checksum.
pub(crate) fn strip(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, Error> {
    let (data, stored) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| corrupt("it is too short for its checksum"))?;
    let stored = u32::from_le_bytes(*stored);
    let found = checksum(data);
    let swapped = (found & 0x00ff_00ff) << 8 | (found >> 8 & 0x00ff_00ff);
    if stored != found && stored != swapped {
        return Err(corrupt("its checksum is wrong"));
    }
    let length = data.len();
    Ok(match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..length]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(length);
            Cow::Owned(bytes)
        }
    })
}

/// The bytes with their checksum.
pub(crate) fn append(bytes: Cow<'_, [u8]>) -> Vec<u8> {
    let sum = checksum(&bytes);
    let mut out = bytes.into_owned();
    out.extend_from_slice(&sum.to_le_bytes());
    out
}
