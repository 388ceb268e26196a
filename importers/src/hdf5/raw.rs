//! Reads of HDF5 data into bytes, for types only known at run time.
#![expect(
    unsafe_code,
    reason = "the HDF5 library is C; its safe bindings need types at compile time"
)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null;

use array::{Region, VariableElements};
use codecs::hdf5::{Filter, Precision};
use hdf5_metno::globals::{H5P_DATASET_XFER, H5T_C_S1};
use hdf5_metno::{Attribute, Dataset, Datatype, Object, from_id};
use hdf5_metno_sys::h5::{H5free_memory, herr_t, hsize_t};
use hdf5_metno_sys::h5a::H5Aread;
use hdf5_metno_sys::h5d::{H5D_fill_value_t, H5Dget_chunk_info_by_coord};
use hdf5_metno_sys::h5d::{H5Dget_num_chunks, H5Dget_offset, H5Dread, H5Dread_chunk1};
use hdf5_metno_sys::h5i::hid_t;
use hdf5_metno_sys::h5o::{H5O_INFO_BASIC, H5O_info1_t, H5Oget_info2};
use hdf5_metno_sys::h5p::{H5P_DEFAULT, H5Pclose, H5Pcreate, H5Pfill_value_defined};
use hdf5_metno_sys::h5p::{H5Pget_external_count, H5Pget_fill_value, H5Pget_filter2};
use hdf5_metno_sys::h5p::{H5Pget_nfilters, H5Pset_vlen_mem_manager};
use hdf5_metno_sys::h5s::{H5S_SELECT_SET, H5Sclose, H5Screate_simple, H5Sselect_hyperslab};
use hdf5_metno_sys::h5t::{H5T_class_t, H5T_order_t, H5T_sign_t, H5T_str_t, H5Tcopy, H5Tequal};
use hdf5_metno_sys::h5t::{H5Tget_class, H5Tget_cset, H5Tget_ebias, H5Tget_fields, H5Tget_offset};
use hdf5_metno_sys::h5t::{H5Tget_order, H5Tget_precision, H5Tget_sign, H5Tget_strpad};
use hdf5_metno_sys::h5t::{H5Tget_super, H5Tset_cset, H5Tset_order, H5Tset_size, H5Tset_strpad};

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

/// Whether strings of this type end in spaces that are not theirs, as Fortran writes them.
pub(super) fn is_padded_with_spaces(text: &Datatype) -> bool {
    // SAFETY: the handle is open; HDF5 checks that it is a type of strings.
    let padding = hdf5_metno::sync::sync(|| unsafe { H5Tget_strpad(text.id()) });
    padding == H5T_str_t::H5T_STR_SPACEPAD
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

/// Whether the bits of a number are inside its bytes, which the library does not check: it would read
/// past the end of elements that say otherwise. Of an enum, those of its base.
pub(super) fn has_its_bits(number: &Datatype) -> bool {
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handles are open; `base` is a new type, owned by the `Datatype` made of it. The
        // pointers are to locals.
        unsafe {
            let base = match H5Tget_class(number.id()) {
                H5T_class_t::H5T_INTEGER | H5T_class_t::H5T_FLOAT => H5Tcopy(number.id()),
                H5T_class_t::H5T_ENUM => H5Tget_super(number.id()),
                _ => return true,
            };
            let Ok(base) = from_id::<Datatype>(base) else {
                return false;
            };
            let bits = base.size().saturating_mul(8);
            let ends_inside = |start: usize, length: usize| {
                start.checked_add(length).is_some_and(|end| end <= bits)
            };
            let (offset, precision) = (H5Tget_offset(base.id()), H5Tget_precision(base.id()));
            let is_inside = precision > 0
                && usize::try_from(offset).is_ok_and(|offset| ends_inside(offset, precision));
            if H5Tget_class(base.id()) != H5T_class_t::H5T_FLOAT {
                return is_inside;
            }
            let (mut sign, mut at, mut exponent, mut low, mut mantissa) = (0, 0, 0, 0, 0);
            let status = H5Tget_fields(
                base.id(),
                &raw mut sign,
                &raw mut at,
                &raw mut exponent,
                &raw mut low,
                &raw mut mantissa,
            );
            is_inside
                && status >= 0
                && ends_inside(sign, 1)
                && ends_inside(at, exponent)
                && ends_inside(low, mantissa)
        }
    })
}

/// Whether a dataset's values are in other files, given its creation properties.
pub(super) fn has_external_files(properties: &Object) -> bool {
    // SAFETY: the handle is open; HDF5 checks that it is one of creation properties.
    hdf5_metno::sync::sync(|| unsafe { H5Pget_external_count(properties.id()) }) > 0
}

/// A chunk as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Where it begins, as the library says; a user block before may count or not.
    pub(super) address: u64,
    /// Bytes of it.
    pub(super) length: u64,
    /// Filters that were not applied, a bit for each.
    pub(super) mask: u32,
}

/// An address that stands for none, in HDF5.
const NO_ADDRESS: u64 = u64::MAX;
/// Most parameters of a filter that are read.
const MAX_PARAMETERS: usize = 256;

/// How many chunks of a chunked dataset are stored.
pub(super) fn chunk_count(dataset: &Dataset) -> Result<u64, String> {
    let space = dataset.space().map_err(|error| error.to_string())?;
    let mut count = 0;
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handles are open, and the pointer is to a local of this function.
        let status = unsafe { H5Dget_num_chunks(dataset.id(), space.id(), &raw mut count) };
        match status < 0 {
            true => Err(library_error()),
            false => Ok(count),
        }
    })
}

/// The chunk whose first cell is at `start`, which has as many numbers as the dataset dimensions;
/// `None` if it is not stored.
pub(super) fn chunk_at(dataset: &Dataset, start: &[u64]) -> Result<Option<Chunk>, String> {
    if dataset.ndim() != start.len() {
        return Err("the position has another number of dimensions than the dataset".into());
    }
    let (mut mask, mut address, mut length) = (0, NO_ADDRESS, 0);
    let status = hdf5_metno::sync::sync(|| {
        // SAFETY: the handle is open; `start` has the dataset's number of dimensions, checked above;
        // the other pointers are to locals of this function.
        unsafe {
            H5Dget_chunk_info_by_coord(
                dataset.id(),
                start.as_ptr(),
                &raw mut mask,
                &raw mut address,
                &raw mut length,
            )
        }
    });
    if status < 0 {
        return Err(library_error());
    }
    Ok((address != NO_ADDRESS && length > 0).then_some(Chunk {
        address,
        length,
        mask,
    }))
}

/// Where the values of a contiguous dataset begin; `None` if none are stored.
pub(super) fn contiguous_at(dataset: &Dataset) -> Option<u64> {
    // The library adds the length of a user block even to the address that says there is none.
    if dataset.storage_size() == 0 {
        return None;
    }
    // SAFETY: the handle is open; HDF5 checks that it is a dataset.
    let address = hdf5_metno::sync::sync(|| unsafe { H5Dget_offset(dataset.id()) });
    (address != NO_ADDRESS).then_some(address)
}

/// The filters in the order of encoding, given a dataset's creation properties.
pub(super) fn all_filters(properties: &Object) -> Result<Vec<Filter>, String> {
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handle is open; HDF5 checks that it is one of creation properties.
        let count = unsafe { H5Pget_nfilters(properties.id()) };
        if count < 0 {
            return Err(library_error());
        }
        let mut filters = Vec::new();
        for nth in 0..count {
            let (mut flags, mut config) = (0, 0);
            let mut parameters = vec![0; MAX_PARAMETERS];
            let mut length = parameters.len();
            // SAFETY: `parameters` has room for `length` numbers, which HDF5 writes at most; no name
            // is asked for; the other pointers are to locals of this function.
            let id = unsafe {
                H5Pget_filter2(
                    properties.id(),
                    nth as u32,
                    &raw mut flags,
                    &raw mut length,
                    parameters.as_mut_ptr(),
                    0,
                    std::ptr::null_mut(),
                    &raw mut config,
                )
            };
            let id = u32::try_from(id).map_err(|_| library_error())?;
            if length > MAX_PARAMETERS {
                return Err(format!("filter {id} has {length} parameters"));
            }
            parameters.truncate(length);
            filters.push(Filter { id, parameters });
        }
        Ok(filters)
    })
}

/// What cells of chunks that are not stored hold, as an element of `memory`, which holds no
/// pointers. Zeros if the file does not define it.
pub(super) fn fill_value(properties: &Object, memory: &Datatype) -> Result<Vec<u8>, String> {
    let mut out = vec![0; memory.size()];
    hdf5_metno::sync::sync(|| {
        let mut defined = H5D_fill_value_t::H5D_FILL_VALUE_ERROR;
        // SAFETY: the handle is open, and the pointer is to a local of this function.
        let status = unsafe { H5Pfill_value_defined(properties.id(), &raw mut defined) };
        if status < 0 {
            return Err(library_error());
        }
        if defined == H5D_fill_value_t::H5D_FILL_VALUE_UNDEFINED {
            return Ok(out);
        }
        // SAFETY: the handles are open and `out` has room for one element of `memory`, which holds no
        // pointers, as the caller guarantees.
        let status =
            unsafe { H5Pget_fill_value(properties.id(), memory.id(), out.as_mut_ptr().cast()) };
        match status < 0 {
            true => Err(library_error()),
            false => Ok(out),
        }
    })
}

/// The text that a dataset of variable-length strings, which `memory` describes, has where nothing is
/// stored; `None` if the file does not define one.
pub(super) fn fill_text(properties: &Object, memory: &Datatype) -> Result<Option<Vec<u8>>, String> {
    if memory.size() != size_of::<*mut c_char>() {
        return Err("its strings are not of variable length".into());
    }
    hdf5_metno::sync::sync(|| {
        let mut defined = H5D_fill_value_t::H5D_FILL_VALUE_ERROR;
        // SAFETY: the handle is open, and the pointer is to a local of this function.
        let status = unsafe { H5Pfill_value_defined(properties.id(), &raw mut defined) };
        if status < 0 || defined != H5D_fill_value_t::H5D_FILL_VALUE_USER_DEFINED {
            return Ok(None);
        }
        let mut text: *mut c_char = std::ptr::null_mut();
        // SAFETY: the handles are open, and an element of `memory` is one pointer, checked above, which
        // HDF5 sets to a string of its own, ended by a NUL. It is copied, then freed by HDF5.
        unsafe {
            let out = (&raw mut text).cast();
            if H5Pget_fill_value(properties.id(), memory.id(), out) < 0 || text.is_null() {
                return Err(library_error());
            }
            let copy = CStr::from_ptr(text).to_bytes().to_vec();
            H5free_memory(text.cast());
            Ok(Some(copy))
        }
    })
}

/// How long a chunk is, given its first cell; `None` if it is not stored, or the library will not tell.
pub(super) fn stored_length(dataset: &Dataset, start: &[u64]) -> Option<u64> {
    if dataset.ndim() != start.len() {
        return None;
    }
    let mut length = 0;
    // SAFETY: the handle is open; `start` has the dataset's number of dimensions, checked above; the
    // other pointer is to a local.
    let status = hdf5_metno::sync::sync(|| unsafe {
        H5Dget_chunk_storage_size(dataset.id(), start.as_ptr(), &raw mut length)
    });
    (status >= 0 && length > 0).then_some(length)
}

/// How elements in the file differ from those in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// In nothing.
    None,
    /// In the order of their bytes.
    Swapped,
    /// They are integers that do not fill their bytes.
    Narrow(Precision),
}

impl Difference {
    /// Whether elements in the file have their highest byte first.
    pub(super) fn is_big_endian(self) -> bool {
        match self {
            Self::None => false,
            Self::Swapped => true,
            Self::Narrow(precision) => precision.is_big_endian,
        }
    }

    pub(super) fn precision(self) -> Option<Precision> {
        match self {
            Self::Narrow(precision) => Some(precision),
            Self::None | Self::Swapped => None,
        }
    }
}

/// How elements of `stored` differ from those of `memory`, little-endian, which stand for the same
/// values; `None` if it takes more than moving bytes and bits.
pub(super) fn difference(stored: &Datatype, memory: &Datatype) -> Option<Difference> {
    if stored.size() != memory.size() {
        return None;
    }
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handles are open throughout; new types are owned by the `Datatype`s made of
        // them; HDF5 checks what each function is given.
        unsafe {
            let class = H5Tget_class(stored.id());
            if class == H5T_class_t::H5T_STRING {
                let padding = H5Tget_strpad(stored.id());
                let is_exact = padding == H5T_str_t::H5T_STR_NULLPAD
                    || padding == H5T_str_t::H5T_STR_NULLTERM && stored.size() == 1;
                return is_exact.then_some(Difference::None);
            }
            // An enum is the integers it is made of.
            let own;
            let stored = if class == H5T_class_t::H5T_ENUM {
                own = from_id::<Datatype>(H5Tget_super(stored.id())).ok()?;
                &own
            } else {
                stored
            };
            if H5Tequal(stored.id(), memory.id()) > 0 {
                return Some(Difference::None);
            }
            if !matches!(
                H5Tget_class(stored.id()),
                H5T_class_t::H5T_INTEGER | H5T_class_t::H5T_FLOAT
            ) {
                return None;
            }
            let swapped = from_id::<Datatype>(H5Tcopy(memory.id())).ok()?;
            if H5Tset_order(swapped.id(), H5T_order_t::H5T_ORDER_BE) < 0 {
                return None;
            }
            if H5Tequal(stored.id(), swapped.id()) > 0 {
                return Some(match stored.size() {
                    1 => Difference::None,
                    _ => Difference::Swapped,
                });
            }
            if H5Tget_class(stored.id()) != H5T_class_t::H5T_INTEGER {
                return None;
            }
            let order = H5Tget_order(stored.id());
            let is_known = matches!(order, H5T_order_t::H5T_ORDER_LE | H5T_order_t::H5T_ORDER_BE);
            let bits = u32::try_from(H5Tget_precision(stored.id())).ok()?;
            let offset = u32::try_from(H5Tget_offset(stored.id())).ok()?;
            is_known.then_some(Difference::Narrow(Precision {
                size: stored.size() as u32,
                bits,
                offset,
                is_signed: H5Tget_sign(stored.id()) == H5T_sign_t::H5T_SGN_2,
                is_big_endian: order == H5T_order_t::H5T_ORDER_BE,
            }))
        }
    })
}

/// The bytes of the chunk whose first cell is at `start` as they are stored, at most `limit`, and the
/// mask of filters that were not applied; `None` if it is not stored, or the library will not tell.
pub(super) fn stored_chunk(
    dataset: &Dataset,
    start: &[u64],
    limit: u64,
) -> Result<Option<(u32, Vec<u8>)>, String> {
    // The library's lock is held throughout: nothing changes the chunk in between.
    hdf5_metno::sync::sync(|| {
        let Some(length) = stored_length(dataset, start) else {
            return Ok(None);
        };
        if length > limit {
            return Err(format!(
                "its chunk at {start:?} takes {length} bytes, more than it could"
            ));
        }
        let mut mask = 0;
        let mut bytes = vec![0; length as usize];
        // SAFETY: the handle is open; `start` has the dataset's number of dimensions, or there would be
        // no length; `bytes` takes the length that the library just gave for this chunk.
        let status = unsafe {
            H5Dread_chunk1(
                dataset.id(),
                H5P_DEFAULT,
                start.as_ptr(),
                &raw mut mask,
                bytes.as_mut_ptr().cast(),
            )
        };
        match status < 0 {
            true => Err(library_error()),
            false => Ok(Some((mask, bytes))),
        }
    })
}

unsafe extern "C" {
    /// Bytes of the chunk at an offset; the bindings lack it. In the library since 1.10.2.
    fn H5Dget_chunk_storage_size(
        dataset: hid_t,
        offset: *const hsize_t,
        bytes: *mut hsize_t,
    ) -> herr_t;
}

/// Where the object header of a dataset is.
pub(super) fn header_address(dataset: &Dataset) -> Option<u64> {
    let mut info = H5O_info1_t::default();
    // SAFETY: the handle is open, and the pointer is to a local of this function.
    let status = hdf5_metno::sync::sync(|| unsafe {
        H5Oget_info2(dataset.id(), &raw mut info, H5O_INFO_BASIC)
    });
    (status >= 0).then_some(info.addr)
}
