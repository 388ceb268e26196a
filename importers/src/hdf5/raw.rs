//! Reads of HDF5 data into bytes, for types only known at run time.
#![expect(
    unsafe_code,
    reason = "the HDF5 library is C; its safe bindings need types at compile time"
)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null;

use array::{Region, VariableElements};
use hdf5_metno::globals::{H5P_DATASET_XFER, H5T_C_S1};
use hdf5_metno::{Attribute, Dataset, Datatype, Object, from_id};
use hdf5_metno_sys::h5a::H5Aread;
use hdf5_metno_sys::h5d::H5Dread;
use hdf5_metno_sys::h5i::hid_t;
use hdf5_metno_sys::h5p::{H5P_DEFAULT, H5Pclose, H5Pcreate};
use hdf5_metno_sys::h5p::{H5Pget_external_count, H5Pset_vlen_mem_manager};
use hdf5_metno_sys::h5s::{H5S_SELECT_SET, H5Sclose, H5Screate_simple, H5Sselect_hyperslab};
use hdf5_metno_sys::h5t::{H5T_str_t, H5Tcopy, H5Tget_cset, H5Tget_ebias};
use hdf5_metno_sys::h5t::{H5Tget_fields, H5Tset_cset, H5Tset_size, H5Tset_strpad};

/// Most bytes of an attribute.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 20;

/// What the HDF5 library says went wrong in the call before, in one line.
fn library_error() -> String {
    let error = hdf5_metno::Error::query().unwrap_or_else(|error| error);
    format!(
        "the HDF5 library cannot read it: {}",
        one_line(&error.to_string())
    )
}

/// Text of the library without line breaks: file names and messages of drivers may hold them.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads a box of `dataset` as elements of `memory` into `out`, which takes exactly them.
///
/// `memory` holds no pointers: no variable-length part, no reference.
pub(super) fn read_dataset(
    dataset: &Dataset,
    memory: &Datatype,
    region: &Region,
    out: &mut [u8],
) -> Result<(), String> {
    let count: u64 = region.shape().iter().product();
    if out.len() as u64 != count.saturating_mul(memory.size() as u64) {
        return Err("the buffer does not fit the selection".into());
    }
    if out.is_empty() {
        return Ok(());
    }
    // SAFETY: `out` has room for all elements of the region, checked above, and the caller
    // guarantees that `memory` holds no pointers.
    unsafe {
        read_into(
            dataset,
            memory,
            region,
            H5P_DEFAULT,
            out.as_mut_ptr().cast(),
        )
    }
}

/// Reads a box of `dataset`, which holds variable-length strings that `memory` describes.
///
/// At most `limit` bytes of text are held, however often the file refers to one string.
pub(super) fn read_strings(
    dataset: &Dataset,
    memory: &Datatype,
    region: &Region,
    limit: usize,
) -> Result<VariableElements, String> {
    let count = usize::try_from(region.shape().iter().product::<u64>())
        .map_err(|_| "the selection is too large")?;
    if memory.size() != size_of::<*const c_char>() {
        return Err("its strings are not of variable length".into());
    }
    let mut pointers: Vec<*const c_char> = vec![null(); count];
    let mut arena = Arena {
        blocks: Vec::new(),
        left: limit,
    };
    if count > 0 {
        let manager: *mut c_void = (&raw mut arena).cast();
        hdf5_metno::sync::sync(|| {
            // SAFETY: creates a property list, which is closed below.
            let transfer = unsafe { H5Pcreate(*H5P_DATASET_XFER) };
            // SAFETY: `manager` points to `arena`, which outlives the read below, the only use of
            // the list. `pointers` has room for one pointer an element, by the check above.
            let result = unsafe {
                H5Pset_vlen_mem_manager(transfer, Some(allocate), manager, Some(release), manager);
                read_into(
                    dataset,
                    memory,
                    region,
                    transfer,
                    pointers.as_mut_ptr().cast(),
                )
            };
            // SAFETY: created above, or negative, which HDF5 refuses.
            unsafe { H5Pclose(transfer) };
            result
        })
        .map_err(|error| match arena.left {
            0 => format!("its strings take more than {} MiB a shard", limit >> 20),
            _ => error,
        })?;
    }
    let text = |&pointer: &*const c_char| -> &[u8] {
        if pointer.is_null() {
            return &[];
        }
        // SAFETY: not null, so HDF5 has set it to a string that it allocated from `arena`, which
        // is still there, and ended with a NUL.
        unsafe { CStr::from_ptr(pointer) }.to_bytes()
    };
    Ok(pointers.iter().map(text).collect())
}

/// Memory for the strings of one read. Freed as a whole.
struct Arena {
    blocks: Vec<Vec<u8>>,
    /// Bytes that may still be allocated; 0 once an allocation was refused.
    left: usize,
}

const BLOCK_BYTES: usize = 64 << 10;

/// `H5MM_allocate_t`: `size` bytes of the [`Arena`] that `arena` points to.
unsafe extern "C" fn allocate(size: usize, arena: *mut c_void) -> *mut c_void {
    // SAFETY: the pointer given to `H5Pset_vlen_mem_manager`; HDF5 calls back on the same thread
    // during the read, when nothing else refers to the arena.
    let arena = unsafe { &mut *arena.cast::<Arena>() };
    if size > arena.left {
        arena.left = 0;
        return std::ptr::null_mut();
    }
    arena.left -= size;
    let has_room = |block: &Vec<u8>| block.capacity() - block.len() >= size;
    if !arena.blocks.last().is_some_and(has_room) {
        arena.blocks.push(Vec::with_capacity(size.max(BLOCK_BYTES)));
    }
    let Some(block) = arena.blocks.last_mut() else {
        return std::ptr::null_mut();
    };
    // Within its capacity a vector does not move, so earlier strings stay where they are.
    let start = block.len();
    block.resize(start + size, 0);
    block[start..].as_mut_ptr().cast()
}

/// `H5MM_free_t`: nothing, the arena is freed as a whole.
unsafe extern "C" fn release(_: *mut c_void, _: *mut c_void) {}

/// # Safety
/// `out` takes all elements of `region` as `memory` describes them; pointers in it are allocated
/// as `transfer` says.
unsafe fn read_into(
    dataset: &Dataset,
    memory: &Datatype,
    region: &Region,
    transfer: hid_t,
    out: *mut c_void,
) -> Result<(), String> {
    let file_space = dataset.space().map_err(|error| error.to_string())?;
    if file_space.ndim() != region.shape().len() {
        return Err("the selection has another number of dimensions than the dataset".into());
    }
    hdf5_metno::sync::sync(|| {
        if region.shape().is_empty() {
            // SAFETY: the handles are open for the whole call; of `out` the caller vouches.
            let status = unsafe { H5Dread(dataset.id(), memory.id(), 0, 0, transfer, out) };
            return if status < 0 {
                Err(library_error())
            } else {
                Ok(())
            };
        }
        let (start, count) = (region.start().as_ptr(), region.shape().as_ptr());
        let rank = region.shape().len() as i32;
        // SAFETY: the handles are open for the whole call, the arrays of start and count have the
        // rank of the file space, checked above. HDF5 checks the selection against the extent. Of
        // `out` the caller vouches.
        unsafe {
            if H5Sselect_hyperslab(
                file_space.id(),
                H5S_SELECT_SET,
                start,
                null(),
                count,
                null(),
            ) < 0
            {
                return Err(library_error());
            }
            let memory_space = H5Screate_simple(rank, count, null());
            if memory_space < 0 {
                return Err(library_error());
            }
            let status = H5Dread(
                dataset.id(),
                memory.id(),
                memory_space,
                file_space.id(),
                transfer,
                out,
            );
            // The message is about the read: it is taken before the next call.
            let result = if status < 0 {
                Err(library_error())
            } else {
                Ok(())
            };
            H5Sclose(memory_space);
            result
        }
    })
}

/// Reads all of `attribute` as elements of `memory`, which holds no pointers.
pub(super) fn read_attribute(attribute: &Attribute, memory: &Datatype) -> Result<Vec<u8>, String> {
    let length = attribute
        .size()
        .checked_mul(memory.size())
        .filter(|&length| length <= MAX_ATTRIBUTE_BYTES)
        .ok_or_else(|| format!("it is larger than {} MiB", MAX_ATTRIBUTE_BYTES >> 20))?;
    let mut out = vec![0; length];
    if length == 0 {
        return Ok(out);
    }
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handles are open for the whole call and `out` has room for every element of
        // the attribute's space, by the product above.
        let status = unsafe { H5Aread(attribute.id(), memory.id(), out.as_mut_ptr().cast()) };
        if status < 0 {
            Err(library_error())
        } else {
            Ok(out)
        }
    })
}

/// Strings of `length` bytes padded with NUL, in the character set of `stored`.
pub(super) fn null_padded(stored: &Datatype, length: usize) -> Result<Datatype, String> {
    hdf5_metno::sync::sync(|| {
        // SAFETY: `copy` is a new type, owned by the `Datatype` made of it; HDF5 checks the rest.
        unsafe {
            let copy = H5Tcopy(*H5T_C_S1);
            let copy = from_id::<Datatype>(copy).map_err(|error| error.to_string())?;
            let set = [
                H5Tset_size(copy.id(), length),
                H5Tset_cset(copy.id(), H5Tget_cset(stored.id())),
                H5Tset_strpad(copy.id(), H5T_str_t::H5T_STR_NULLPAD),
            ];
            match set.iter().any(|&status| status < 0) {
                true => Err(library_error()),
                false => Ok(copy),
            }
        }
    })
}

/// Whether floats of this type have the fields of IEEE 754: position and length of sign, exponent
/// and mantissa, and the bias. bfloat16, for one, has not.
pub(super) fn is_ieee(float: &Datatype) -> bool {
    let (mut sign, mut at, mut exponent, mut low, mut mantissa) = (0, 0, 0, 0, 0);
    let (status, bias) = hdf5_metno::sync::sync(|| {
        // SAFETY: the handle is open, and the pointers are to locals of this function.
        unsafe {
            let status = H5Tget_fields(
                float.id(),
                &raw mut sign,
                &raw mut at,
                &raw mut exponent,
                &raw mut low,
                &raw mut mantissa,
            );
            (status, H5Tget_ebias(float.id()))
        }
    });
    let fields = (sign, at, exponent, low, mantissa, bias);
    status >= 0
        && match float.size() {
            2 => fields == (15, 10, 5, 0, 10, 15),
            4 => fields == (31, 23, 8, 0, 23, 127),
            8 => fields == (63, 52, 11, 0, 52, 1023),
            _ => false,
        }
}

/// Whether a dataset's values are in other files, given its creation properties.
pub(super) fn has_external_files(properties: &Object) -> bool {
    // SAFETY: the handle is open; HDF5 checks that it is one of creation properties.
    hdf5_metno::sync::sync(|| unsafe { H5Pget_external_count(properties.id()) }) > 0
}
