//! Writes of HDF5 data from bytes, for types only known at run time.
#![expect(
    unsafe_code,
    reason = "the HDF5 library is C; its safe bindings need types at compile time"
)]

use std::ffi::{CString, c_char, c_void};
use std::ptr::null;

use array::VariableElements;
use hdf5_metno::globals::{H5P_DATASET_CREATE, H5T_C_S1};
use hdf5_metno::{Dataset, Datatype, Group, Location, from_id};
use hdf5_metno_sys::h5a::{H5Aclose, H5Acreate2, H5Awrite};
use hdf5_metno_sys::h5d::{H5Dcreate2, H5Dwrite, H5Dwrite_chunk};
use hdf5_metno_sys::h5i::hid_t;
use hdf5_metno_sys::h5p::{
    H5P_CRT_ORDER_INDEXED, H5P_CRT_ORDER_TRACKED, H5P_DEFAULT, H5Pclose, H5Pcreate,
    H5Pset_attr_creation_order, H5Pset_chunk, H5Pset_deflate, H5Pset_fill_value,
    H5Pset_obj_track_times, H5Pset_shuffle,
};
use hdf5_metno_sys::h5s::{
    H5S_SELECT_SET, H5S_UNLIMITED, H5S_class_t, H5Sclose, H5Screate, H5Screate_simple,
    H5Sselect_hyperslab,
};
use hdf5_metno_sys::h5t::{
    H5T_cset_t, H5T_str_t, H5Tcopy, H5Tset_cset, H5Tset_size, H5Tset_strpad,
};

/// A dataset to make.
pub(super) struct Spec<'a> {
    pub(super) name: &'a str,
    pub(super) data_type: &'a Datatype,
    pub(super) shape: &'a [u64],
    /// Whether it can grow, for each dimension.
    pub(super) unlimited: &'a [bool],
    /// `None` for one block.
    pub(super) chunk: Option<&'a [u64]>,
    pub(super) is_shuffled: bool,
    /// `None` for no compression.
    pub(super) deflate_level: Option<u8>,
    /// An element of the data type, which holds no pointers then.
    pub(super) fill: Option<&'a [u8]>,
}

/// What the HDF5 library says went wrong in the call before, in one line.
fn library_error() -> String {
    let error = hdf5_metno::Error::query().unwrap_or_else(|error| error);
    one_line(&error)
}

/// What the library says, in one line.
pub(super) fn one_line(error: &hdf5_metno::Error) -> String {
    let text = error.to_string();
    format!(
        "the HDF5 library says: {}",
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}

fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("the name {text:?} holds NUL"))
}

/// An identifier that is closed when it goes.
struct Owned(hid_t, unsafe extern "C" fn(hid_t) -> i32);

impl Owned {
    fn new(id: hid_t, close: unsafe extern "C" fn(hid_t) -> i32) -> Result<Self, String> {
        match id < 0 {
            true => Err(library_error()),
            false => Ok(Self(id, close)),
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the identifier was valid when it came here, and only this closes it, by the
        // function for its kind.
        hdf5_metno::sync::sync(|| unsafe { (self.1)(self.0) });
    }
}

fn check(status: i32) -> Result<(), String> {
    match status < 0 {
        true => Err(library_error()),
        false => Ok(()),
    }
}

/// A dataspace of this shape.
fn space(shape: &[u64], unlimited: &[bool]) -> Result<Owned, String> {
    let most: Vec<u64> = shape
        .iter()
        .zip(unlimited)
        .map(|(length, unlimited)| if *unlimited { H5S_UNLIMITED } else { *length })
        .collect();
    let rank = i32::try_from(shape.len()).map_err(|_| "too many dimensions")?;
    // SAFETY: both arrays have `rank` lengths; for a scalar they are not read.
    let id = unsafe {
        match rank {
            0 => H5Screate(H5S_class_t::H5S_SCALAR),
            rank => H5Screate_simple(rank, shape.as_ptr(), most.as_ptr()),
        }
    };
    Owned::new(id, H5Sclose)
}

/// Makes a dataset.
pub(super) fn create_dataset(group: &Group, spec: &Spec<'_>) -> Result<Dataset, String> {
    let name = c_text(spec.name)?;
    if spec.unlimited.len() != spec.shape.len() {
        return Err("not one limit for each dimension".into());
    }
    if spec
        .chunk
        .is_some_and(|chunk| chunk.len() != spec.shape.len())
    {
        return Err("not one chunk length for each dimension".into());
    }
    if spec
        .fill
        .is_some_and(|fill| fill.len() != spec.data_type.size())
    {
        return Err("the fill value is no element".into());
    }
    hdf5_metno::sync::sync(|| {
        let space = space(spec.shape, spec.unlimited)?;
        // SAFETY: the property list is new, the arrays given have the lengths checked above, the
        // identifiers are open during the calls, and HDF5 checks the values.
        unsafe {
            let list = Owned::new(H5Pcreate(*H5P_DATASET_CREATE), H5Pclose)?;
            check(H5Pset_obj_track_times(list.0, 0))?;
            let order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
            check(H5Pset_attr_creation_order(list.0, order))?;
            if let Some(chunk) = spec.chunk {
                check(H5Pset_chunk(list.0, chunk.len() as i32, chunk.as_ptr()))?;
                if spec.is_shuffled {
                    check(H5Pset_shuffle(list.0))?;
                }
                if let Some(level) = spec.deflate_level {
                    check(H5Pset_deflate(list.0, level.into()))?;
                }
            }
            if let Some(fill) = spec.fill {
                let data_type = spec.data_type.id();
                check(H5Pset_fill_value(list.0, data_type, fill.as_ptr().cast()))?;
            }
            let made = H5Dcreate2(
                group.id(),
                name.as_ptr(),
                spec.data_type.id(),
                space.0,
                H5P_DEFAULT,
                list.0,
                H5P_DEFAULT,
            );
            if made < 0 {
                return Err(library_error());
            }
            from_id::<Dataset>(made).map_err(|error| one_line(&error))
        }
    })
}

/// Writes one chunk, already filtered, at a position that is a multiple of the chunk shape.
pub(super) fn write_chunk(dataset: &Dataset, start: &[u64], bytes: &[u8]) -> Result<(), String> {
    if start.len() != dataset.ndim() {
        return Err("the chunk has another number of dimensions than the dataset".into());
    }
    hdf5_metno::sync::sync(|| {
        // SAFETY: the dataset is open, `start` has its rank, and `bytes` are as many as told.
        check(unsafe {
            H5Dwrite_chunk(
                dataset.id(),
                H5P_DEFAULT,
                0,
                start.as_ptr(),
                bytes.len(),
                bytes.as_ptr().cast(),
            )
        })
    })
}

/// Writes a box of `dataset` from elements of `memory`, which holds no pointers.
pub(super) fn write_box(
    dataset: &Dataset,
    memory: &Datatype,
    start: &[u64],
    shape: &[u64],
    bytes: &[u8],
) -> Result<(), String> {
    let count: u64 = shape.iter().product();
    if bytes.len() as u64 != count.saturating_mul(memory.size() as u64) {
        return Err("the buffer does not fit the selection".into());
    }
    // SAFETY: `bytes` has all elements of the box, checked above.
    unsafe { write_from(dataset, memory, start, shape, bytes.as_ptr().cast()) }
}

/// Writes a box of `dataset`, whose elements are strings of variable length.
pub(super) fn write_texts(
    dataset: &Dataset,
    memory: &Datatype,
    start: &[u64],
    shape: &[u64],
    texts: &VariableElements,
) -> Result<(), String> {
    let count: u64 = shape.iter().product();
    if texts.len() as u64 != count || memory.size() != size_of::<*const c_char>() {
        return Err("the buffer does not fit the selection".into());
    }
    let texts: Vec<CString> = texts
        .iter()
        .map(|text| CString::new(text).map_err(|_| "it holds text with NUL in it".to_owned()))
        .collect::<Result<_, _>>()?;
    let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    // SAFETY: `pointers` has one pointer an element, each to a text that ends in NUL and lives until
    // the end of this function.
    unsafe { write_from(dataset, memory, start, shape, pointers.as_ptr().cast()) }
}

/// # Safety
/// `data` holds all elements of the box as `memory` describes them, and what they point to.
unsafe fn write_from(
    dataset: &Dataset,
    memory: &Datatype,
    start: &[u64],
    shape: &[u64],
    data: *const c_void,
) -> Result<(), String> {
    if start.len() != shape.len() || shape.len() != dataset.ndim() {
        return Err("the selection has another number of dimensions than the dataset".into());
    }
    if shape.contains(&0) {
        return Ok(());
    }
    let file_space = dataset.space().map_err(|error| one_line(&error))?;
    hdf5_metno::sync::sync(|| {
        let fixed = vec![false; shape.len()];
        let memory_space = space(shape, &fixed)?;
        // SAFETY: the identifiers are open during the calls, the arrays have the rank of the
        // dataset, checked above, and HDF5 checks the selection against the extent. Of `data` the
        // caller vouches.
        unsafe {
            if !shape.is_empty() {
                check(H5Sselect_hyperslab(
                    file_space.id(),
                    H5S_SELECT_SET,
                    start.as_ptr(),
                    null(),
                    shape.as_ptr(),
                    null(),
                ))?;
            }
            check(H5Dwrite(
                dataset.id(),
                memory.id(),
                memory_space.0,
                file_space.id(),
                H5P_DEFAULT,
                data,
            ))
        }
    })
}

/// How many elements an attribute has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// None.
    Null,
    /// One, without a dimension.
    Scalar,
    /// So many along one dimension.
    Vector(usize),
}

fn attribute_space(extent: Extent) -> Result<Owned, String> {
    match extent {
        // SAFETY: makes a new dataspace.
        Extent::Null => Owned::new(unsafe { H5Screate(H5S_class_t::H5S_NULL) }, H5Sclose),
        Extent::Scalar => space(&[], &[]),
        Extent::Vector(length) => space(&[length as u64], &[false]),
    }
}

/// Writes an attribute of elements without pointers.
pub(super) fn write_attribute(
    object: &Location,
    name: &str,
    data_type: &Datatype,
    extent: Extent,
    bytes: &[u8],
) -> Result<(), String> {
    let count = match extent {
        Extent::Null => 0,
        Extent::Scalar => 1,
        Extent::Vector(length) => length,
    };
    if bytes.len() != count.saturating_mul(data_type.size()) {
        return Err("the buffer does not fit the attribute".into());
    }
    // SAFETY: `bytes` has all elements, checked above.
    unsafe { write_attribute_from(object, name, data_type, extent, bytes.as_ptr().cast()) }
}

/// Writes an attribute of several texts of variable length.
pub(super) fn write_text_list(
    object: &Location,
    name: &str,
    data_type: &Datatype,
    texts: &[String],
) -> Result<(), String> {
    if data_type.size() != size_of::<*const c_char>() {
        return Err("its type is not of variable length".into());
    }
    let texts: Vec<CString> = texts
        .iter()
        .map(|text| c_text(text))
        .collect::<Result<_, _>>()?;
    let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let extent = Extent::Vector(pointers.len());
    // SAFETY: one pointer an element, each to a text that ends in NUL and lives until the end of this
    // function.
    unsafe { write_attribute_from(object, name, data_type, extent, pointers.as_ptr().cast()) }
}

/// # Safety
/// `data` holds all elements as `data_type` describes them, and what they point to.
unsafe fn write_attribute_from(
    object: &Location,
    name: &str,
    data_type: &Datatype,
    extent: Extent,
    data: *const c_void,
) -> Result<(), String> {
    let name = c_text(name)?;
    hdf5_metno::sync::sync(|| {
        let space = attribute_space(extent)?;
        // SAFETY: the identifiers are open during the calls; of `data` the caller vouches.
        unsafe {
            let made = H5Acreate2(
                object.id(),
                name.as_ptr(),
                data_type.id(),
                space.0,
                H5P_DEFAULT,
                H5P_DEFAULT,
            );
            let made = Owned::new(made, H5Aclose)?;
            match extent {
                Extent::Null => Ok(()),
                _ => check(H5Awrite(made.0, data_type.id(), data)),
            }
        }
    })
}

/// Strings of `length` bytes in UTF-8, padded with NUL; at least one byte.
pub(super) fn fixed_text(length: usize, is_utf8: bool) -> Result<Datatype, String> {
    let set = match is_utf8 {
        true => H5T_cset_t::H5T_CSET_UTF8,
        false => H5T_cset_t::H5T_CSET_ASCII,
    };
    hdf5_metno::sync::sync(|| {
        // SAFETY: `copy` is a new type, owned by the `Datatype` made of it; HDF5 checks the rest.
        unsafe {
            let copy = H5Tcopy(*H5T_C_S1);
            let copy = from_id::<Datatype>(copy).map_err(|error| one_line(&error))?;
            check(H5Tset_size(copy.id(), length.max(1)))?;
            check(H5Tset_cset(copy.id(), set))?;
            check(H5Tset_strpad(copy.id(), H5T_str_t::H5T_STR_NULLTERM))?;
            Ok(copy)
        }
    })
}
