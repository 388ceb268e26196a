//! Reads of HDF5 data into bytes, for types only known at run time.
#![expect(
    unsafe_code,
    reason = "the HDF5 library is C; its safe bindings need types at compile time"
)]

use array::Region;
use hdf5_metno::{Attribute, Dataset, Datatype};
use hdf5_metno_sys::h5a::H5Aread;
use hdf5_metno_sys::h5d::H5Dread;
use hdf5_metno_sys::h5p::H5P_DEFAULT;
use hdf5_metno_sys::h5s::{H5S_SELECT_SET, H5Sclose, H5Screate_simple, H5Sselect_hyperslab};

/// Reads a box of `dataset` as elements of `memory` into `out`, which takes exactly them.
///
/// `memory` holds no pointers: no variable-length part, no reference.
pub(crate) fn read_dataset(
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
    let file_space = dataset.space().map_err(|error| error.to_string())?;
    if file_space.ndim() != region.shape().len() {
        return Err("the selection has another number of dimensions than the dataset".into());
    }
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handles are open for the whole call (borrowed above), the arrays of start and
        // count have the rank of the file space, and `out` has room for all selected elements, both
        // checked above. HDF5 checks the selection against the extent.
        let status = unsafe {
            if region.shape().is_empty() {
                H5Dread(
                    dataset.id(),
                    memory.id(),
                    0,
                    0,
                    H5P_DEFAULT,
                    out.as_mut_ptr().cast(),
                )
            } else {
                let null = std::ptr::null();
                let selected = H5Sselect_hyperslab(
                    file_space.id(),
                    H5S_SELECT_SET,
                    region.start().as_ptr(),
                    null,
                    region.shape().as_ptr(),
                    null,
                );
                if selected < 0 {
                    return Err("the selection is not inside the dataset".to_owned());
                }
                let rank = region.shape().len() as i32;
                let memory_space = H5Screate_simple(rank, region.shape().as_ptr(), null);
                if memory_space < 0 {
                    return Err("the selection is too large".to_owned());
                }
                let status = H5Dread(
                    dataset.id(),
                    memory.id(),
                    memory_space,
                    file_space.id(),
                    H5P_DEFAULT,
                    out.as_mut_ptr().cast(),
                );
                H5Sclose(memory_space);
                status
            }
        };
        if status < 0 {
            Err("HDF5 cannot read it: the data or a filter is damaged".to_owned())
        } else {
            Ok(())
        }
    })
}

/// Reads all of `attribute` as elements of `memory`, which holds no pointers.
pub(crate) fn read_attribute(attribute: &Attribute, memory: &Datatype) -> Result<Vec<u8>, String> {
    let count = attribute.size();
    let length = count
        .checked_mul(memory.size())
        .filter(|&length| length <= 64 << 20);
    let length = length.ok_or("it is larger than 64 MiB")?;
    let mut out = vec![0; length];
    if length == 0 {
        return Ok(out);
    }
    hdf5_metno::sync::sync(|| {
        // SAFETY: the handles are open for the whole call and `out` has room for every element of
        // the attribute's space, by the product above.
        let status = unsafe { H5Aread(attribute.id(), memory.id(), out.as_mut_ptr().cast()) };
        if status < 0 {
            Err("HDF5 cannot read it".to_owned())
        } else {
            Ok(out)
        }
    })
}
