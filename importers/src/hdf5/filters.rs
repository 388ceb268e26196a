//! Filters that the HDF5 library does not bring: LZF, Blosc and Zstandard, to decode only.
//!
//! ```text
//! H5Dread ─► callback (C memory) ─► decode (slices, bounded) ─► callback ─► HDF5
//! ```
//!
//! For what is left to the library, strings for one; see `chunks`. They are registered once a process,
//! before a file is opened. What they decode is bounded by [`MAX_DECODED_BYTES`], whatever the encoded
//! bytes claim.
//!
//! Source: "Registered Filter Plugins" of the HDF Group for the numbers.
#![expect(
    unsafe_code,
    reason = "the HDF5 library is C and calls filters with its own memory"
)]

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Once;

use codecs::hdf5::{Filter, Pipeline};
use hdf5_metno_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_metno_sys::h5z::{
    H5Z_CLASS_T_VERS, H5Z_FLAG_REVERSE, H5Z_class2_t, H5Z_filter_t, H5Zfilter_avail, H5Zregister,
};

/// The filter of h5py.
const LZF: H5Z_filter_t = 32000;
/// Blosc 1.
const BLOSC: H5Z_filter_t = 32001;
/// Zstandard frames.
const ZSTD: H5Z_filter_t = 32015;

/// Most bytes of a chunk that one of these filters decodes.
const MAX_DECODED_BYTES: usize = 512 << 20;

/// Registers the filters, those the library does not have already.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (id, name, filter) in [
            (LZF, c"lzf", run::<LZF> as Callback),
            (BLOSC, c"blosc", run::<BLOSC>),
            (ZSTD, c"zstd", run::<ZSTD>),
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

/// `H5Z_func_t`: replaces `*buffer` by what the filter `ID` was given for its first `length` bytes; gives
/// the number of those, 0 for failure.
///
/// # Safety
/// `buffer` and `capacity` are those that HDF5 calls a filter with: a buffer of HDF5's allocator
/// with at least `length` bytes.
unsafe extern "C" fn run<const ID: H5Z_filter_t>(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
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
    let decoded = decode(ID, encoded).filter(|decoded| !decoded.is_empty());
    let Some(decoded) = decoded else {
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

/// What the filter `ID` was given for these bytes; `None` if it does not give them.
fn decode(id: H5Z_filter_t, encoded: &[u8]) -> Option<Vec<u8>> {
    let filter = Filter {
        id: u32::try_from(id).ok()?,
        parameters: Vec::new(),
    };
    let pipeline = Pipeline::new(vec![filter], None).ok()?;
    pipeline.decode_at_most(encoded, MAX_DECODED_BYTES).ok()
}
