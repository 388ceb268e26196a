//! zlib streams whose decoded size is known, or nearly: in one call, which takes about half the time of
//! decoding them bit by bit as they come.
//!
//! Source: RFC 1950; libdeflate, `libdeflate.h`.

use std::cell::RefCell;

use libdeflater::{DecompressionError, Decompressor};

use crate::Error;

/// No stream decodes to more bytes a byte of its own: 258 bytes take at least two bits.
const MAX_RATIO: usize = 1032;
/// What a checksum or header adds to the elements of a chunk, with room to spare.
const SLACK_BYTES: usize = 64;

thread_local! {
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Decompresses a zlib stream that is exactly `out`.
///
/// # Errors
/// [`Error::Corrupt`] if it is not a stream, or decodes to another number of bytes.
pub(crate) fn into(encoded: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let length = match once(encoded, out) {
        Ok(length) => length,
        Err(DecompressionError::InsufficientSpace) => {
            return Err(corrupt(format!(
                "its zlib stream does not end with {} bytes",
                out.len()
            )));
        }
        Err(DecompressionError::BadData) => return Err(corrupt("its zlib stream is damaged")),
    };
    match length == out.len() {
        true => Ok(()),
        false => Err(corrupt(format!(
            "it decodes to {length} bytes instead of {}",
            out.len()
        ))),
    }
}

/// What a zlib stream decodes to: likely about `expected` bytes, at most `limit`.
///
/// # Errors
/// [`Error::Corrupt`] if it is not a stream, or more.
pub(crate) fn at_most(encoded: &[u8], expected: usize, limit: usize) -> Result<Vec<u8>, Error> {
    // Memory is taken for what these bytes can hold, whatever was expected.
    let most = limit.min(encoded.len().saturating_mul(MAX_RATIO));
    let mut room = expected.saturating_add(SLACK_BYTES).min(most);
    loop {
        let mut out = vec![0; room];
        match once(encoded, &mut out) {
            Ok(length) => {
                out.truncate(length);
                return Ok(out);
            }
            Err(DecompressionError::BadData) => {
                return Err(corrupt("its zlib stream is damaged"));
            }
            Err(DecompressionError::InsufficientSpace) if room < most => {
                room = room.saturating_mul(4).min(most);
            }
            Err(DecompressionError::InsufficientSpace) => {
                return Err(corrupt(format!("it decodes to more than {most} bytes")));
            }
        }
    }
}

fn once(encoded: &[u8], out: &mut [u8]) -> Result<usize, DecompressionError> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.zlib_decompress(encoded, out))
}

fn corrupt(reason: impl Into<String>) -> Error {
    Error::corrupt("chunk", reason)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_expected_does_not_change_what_comes_out(
            bytes in prop::collection::vec(0u8..4, 0..5000), level in 0u32..=9, expected in 0usize..6000,
        ) {
            let encoded = deflate(&bytes, level);
            prop_assert_eq!(at_most(&encoded, expected, 5000).unwrap(), bytes.clone());
            let mut out = vec![0; bytes.len()];
            into(&encoded, &mut out).unwrap();
            prop_assert_eq!(&out, &bytes);
            prop_assert!(into(&encoded, &mut vec![0; bytes.len() + 1]).is_err());
            if !bytes.is_empty() {
                prop_assert!(at_most(&encoded, expected, bytes.len() - 1).is_err());
                prop_assert!(into(&encoded, &mut vec![0; bytes.len() - 1]).is_err());
            }
        }

        #[test]
        fn damage_is_an_error_or_found_by_the_checksum(
            bytes in prop::collection::vec(any::<u8>(), 1..500), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut encoded = deflate(&bytes, 6);
            // The first two bytes have bits that say nothing about what follows.
            let at = 2 + at.index(encoded.len() - 2);
            encoded[at] ^= 1 << bit;
            if let Ok(found) = at_most(&encoded, bytes.len(), 1 << 20) {
                prop_assert_eq!(found, bytes);
            }
        }
    }

    #[test]
    fn what_a_short_stream_cannot_hold_is_not_allocated() {
        let zeros = vec![0; 100 << 20];
        let encoded = deflate(&zeros, 9);
        assert!(at_most(&encoded, 1000, 1 << 20).is_err());
        // There is no memory for as many bytes.
        let short = at_most(&encoded[..64], usize::MAX >> 1, usize::MAX >> 1);
        assert!(short.is_err());
    }
}
