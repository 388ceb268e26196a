//! Filters that the HDF5 library does not bring: LZF, Blosc and Zstandard, to decode only.
//!
//! ```text
//! H5Dread ─► callback (C memory) ─► decode (slices, bounded) ─► callback ─► HDF5
//! ```
//!
//! They are registered once a process, before a file is opened. What they decode is bounded by
//! [`MAX_DECODED_BYTES`], whatever the encoded bytes claim.
//!
//! Source: "Registered Filter Plugins" of the HDF Group for the numbers; liblzf `lzf_d.c` for the
//! format of LZF; c-blosc `README_CHUNK_FORMAT` for the header of Blosc.
#![expect(
    unsafe_code,
    reason = "the HDF5 library is C and calls filters with its own memory"
)]

use std::ffi::{c_int, c_uint, c_void};
use std::io::Read as _;
use std::sync::Once;

use array::{ArrayMetadata, CodecMetadata, DataType, Elements, RegularGrid};
use codecs::ArrayCodec;
use hdf5_metno_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_metno_sys::h5z::{
    H5Z_CLASS_T_VERS, H5Z_FLAG_REVERSE, H5Z_class2_t, H5Z_filter_t, H5Zfilter_avail, H5Zregister,
};
use serde_json::json;

/// The filter of h5py.
pub(super) const LZF: H5Z_filter_t = 32000;
/// Blosc 1.
pub(super) const BLOSC: H5Z_filter_t = 32001;
/// Zstandard frames.
pub(super) const ZSTD: H5Z_filter_t = 32015;

/// Most bytes of a chunk that one of these filters decodes.
const MAX_DECODED_BYTES: u64 = 512 << 20;
/// Length of Blosc's header, and where it tells how many bytes it stands for.
const BLOSC_HEADER_BYTES: usize = 16;
const BLOSC_LENGTH_AT: usize = 4;

/// Decodes a chunk to at most so many bytes; `None` if it is not what the filter writes for them.
type Decode = fn(&[u8], u64) -> Option<Vec<u8>>;

/// Registers the filters, those the library does not have already.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (id, name, filter) in [
            (LZF, c"lzf", run_lzf as Callback),
            (BLOSC, c"blosc", run_blosc),
            (ZSTD, c"zstd", run_zstd),
        ] {
            let class = H5Z_class2_t {
                version: H5Z_CLASS_T_VERS as c_int,
                id,
                encoder_present: 0,
                decoder_present: 1,
                name: name.as_ptr(),
                can_apply: None,
                set_local: None,
                filter: Some(filter),
            };
            hdf5_metno::sync::sync(|| {
                // SAFETY: `class` is a filter class of the version it says; HDF5 copies it, and its
                // name and function are static.
                unsafe {
                    if H5Zfilter_avail(id) <= 0 {
                        H5Zregister((&raw const class).cast());
                    }
                }
            });
        }
    });
}

type Callback = unsafe extern "C" fn(
    c_uint,
    usize,
    *const c_uint,
    usize,
    *mut usize,
    *mut *mut c_void,
) -> usize;

unsafe extern "C" fn run_lzf(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
    length: usize,
    capacity: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    // SAFETY: called by HDF5, as `run` asks.
    unsafe { run(decode_lzf, flags, length, capacity, buffer) }
}

unsafe extern "C" fn run_blosc(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
    length: usize,
    capacity: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    // SAFETY: called by HDF5, as `run` asks.
    unsafe { run(decode_blosc, flags, length, capacity, buffer) }
}

unsafe extern "C" fn run_zstd(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
    length: usize,
    capacity: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    // SAFETY: called by HDF5, as `run` asks.
    unsafe { run(decode_zstd, flags, length, capacity, buffer) }
}

/// `H5Z_func_t`: replaces `*buffer` by what `decode` makes of its first `length` bytes; gives their
/// number, 0 for failure.
///
/// # Safety
/// `buffer` and `capacity` are those that HDF5 calls a filter with: a buffer of HDF5's allocator
/// with at least `length` bytes.
unsafe fn run(
    decode: Decode,
    flags: c_uint,
    length: usize,
    capacity: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    if flags & H5Z_FLAG_REVERSE == 0 || length == 0 {
        return 0;
    }
    // SAFETY: the buffer has `length` bytes, which the caller guarantees, and is HDF5's until it is
    // replaced below.
    let encoded = unsafe { std::slice::from_raw_parts((*buffer).cast::<u8>(), length) };
    let Some(decoded) = decode(encoded, MAX_DECODED_BYTES).filter(|decoded| !decoded.is_empty())
    else {
        return 0;
    };
    // SAFETY: allocates by HDF5's allocator, checked for failure; the copy is of that many bytes,
    // and the old buffer is freed by the allocator it came from.
    unsafe {
        let new = H5allocate_memory(decoded.len(), 0);
        if new.is_null() {
            return 0;
        }
        std::ptr::copy_nonoverlapping(decoded.as_ptr(), new.cast(), decoded.len());
        H5free_memory(*buffer);
        *buffer = new;
        *capacity = decoded.len();
    }
    decoded.len()
}

/// LZF: literals, and copies of what was written at most 8 KiB before.
pub(super) fn decode_lzf(mut encoded: &[u8], limit: u64) -> Option<Vec<u8>> {
    fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = from.split_at_checked(length)?;
        *from = rest;
        Some(taken)
    }
    let mut out = Vec::new();
    while let Some((&control, rest)) = encoded.split_first() {
        encoded = rest;
        let control = usize::from(control);
        if control < 32 {
            out.extend_from_slice(take(&mut encoded, control + 1)?);
        } else {
            let length = match control >> 5 {
                7 => 7 + usize::from(take(&mut encoded, 1)?[0]),
                length => length,
            };
            let low = usize::from(take(&mut encoded, 1)?[0]);
            let distance = ((control & 31) << 8 | low) + 1;
            let start = out.len().checked_sub(distance)?;
            // It may overlap what it writes.
            for at in start..start + length + 2 {
                out.push(out[at]);
            }
        }
        if out.len() as u64 > limit {
            return None;
        }
    }
    Some(out)
}

pub(super) fn decode_zstd(encoded: &[u8], limit: u64) -> Option<Vec<u8>> {
    let decoder = zstd::stream::read::Decoder::with_buffer(encoded).ok()?;
    let mut out = Vec::new();
    decoder
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .ok()?;
    (out.len() as u64 <= limit).then_some(out)
}

pub(super) fn decode_blosc(encoded: &[u8], limit: u64) -> Option<Vec<u8>> {
    if encoded.len() < BLOSC_HEADER_BYTES {
        return None;
    }
    let length = encoded.get(BLOSC_LENGTH_AT..)?.first_chunk::<4>()?;
    let length = u64::from(u32::from_le_bytes(*length));
    if length == 0 || length > limit {
        return None;
    }
    // The header tells how the bytes are coded; what is said here has to be something.
    let configuration = json!({
        "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 1, "blocksize": 0,
    });
    let chain = vec![
        CodecMetadata::new("bytes", json!({})),
        CodecMetadata::new("blosc", configuration),
    ];
    let grid = RegularGrid::new(vec![length], vec![length]).ok()?;
    let metadata = ArrayMetadata::new(grid, DataType::UInt8, chain);
    match ArrayCodec::new(&metadata).ok()?.decode(encoded).ok()? {
        Elements::Fixed(bytes) => Some(bytes),
        Elements::Variable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lzf_literals_and_overlapping_copies() {
        // "ab", then 9 bytes from 2 before: the run repeats itself.
        assert_eq!(
            decode_lzf(&[1, b'a', b'b', 7 << 5, 0, 1], 1 << 30).unwrap(),
            b"abababababa"
        );
        assert_eq!(decode_lzf(&[0, b'x', 1 << 5, 0], 1 << 30).unwrap(), b"xxxx");
        assert_eq!(decode_lzf(&[], 1 << 30).unwrap(), b"");
        for bad in [
            &[1, b'a'][..],
            &[1 << 5, 0],
            &[0, b'x', 1 << 5],
            &[0, b'x', 1 << 5, 1],
        ] {
            assert_eq!(decode_lzf(bad, 1 << 30), None, "{bad:?}");
        }
    }

    #[test]
    fn zstd_and_blosc_refuse_what_is_not_theirs() {
        let data = vec![7; 10_000];
        let encoded = zstd::encode_all(data.as_slice(), 1).unwrap();
        assert_eq!(decode_zstd(&encoded, 1 << 30).unwrap(), data);
        assert_eq!(decode_zstd(&encoded[..encoded.len() - 3], 1 << 30), None);
        assert_eq!(decode_zstd(b"nothing of the kind", 1 << 30), None);
        assert_eq!(decode_blosc(b"short", 1 << 30), None);
        assert_eq!(decode_blosc(&[0xFF; 64], 1 << 30), None);
        // A header that claims 256 MiB of nothing.
        let mut claims = vec![2, 1, 0, 1];
        claims.extend((256u32 << 20).to_le_bytes());
        claims.extend([0; 24]);
        assert_eq!(decode_blosc(&claims, 1 << 30), None);
    }
}
