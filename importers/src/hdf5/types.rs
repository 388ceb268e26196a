//! Which Zarr data type a dataset gets, and how its elements are read.
//!
//! What has none is refused by name: opaque bytes, bit fields, references, compounds other than
//! complex numbers, arrays and sequences as elements, floats other than IEEE 754.

use array::DataType;
use hdf5_metno::types::{CompoundType, FloatSize, IntSize, TypeDescriptor};
use hdf5_metno::{Dataset, Datatype};

use super::raw;

/// How elements are read.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// As this type of fixed size, little-endian.
    Fixed(Datatype),
    /// As bytes, of which every other than 0 stands for `true`.
    Truth(Datatype),
    /// As strings of variable length.
    Strings(Datatype),
}

/// The data type of a dataset and how it is read; else why it has none.
///
/// h5py writes truth values as an enum of `FALSE` and `TRUE`; in NetCDF-4 every enum is numbers.
pub(super) fn element_type(
    dataset: &Dataset,
    is_netcdf4: bool,
) -> Result<(DataType, Layout), String> {
    let stored = dataset.dtype().map_err(|error| error.to_string())?;
    if !raw::has_its_bits(&stored) {
        return Err("its numbers have bits outside their bytes".into());
    }
    let descriptor = stored
        .to_descriptor()
        .map_err(|_| "its type has no Zarr data type".to_owned())?;
    let memory = |descriptor: &TypeDescriptor| {
        Datatype::from_descriptor(descriptor).map_err(|error| error.to_string())
    };
    let fixed = |data_type: DataType, descriptor: &TypeDescriptor| {
        Ok((data_type, Layout::Fixed(memory(descriptor)?)))
    };
    match &descriptor {
        TypeDescriptor::Integer(size) => fixed(signed(*size), &descriptor),
        TypeDescriptor::Unsigned(size) => fixed(unsigned(*size), &descriptor),
        TypeDescriptor::Float(_) if !raw::is_ieee(&stored) => Err(
            "its floats are not of half, single or double precision as IEEE 754 has them".into(),
        ),
        TypeDescriptor::Float(FloatSize::U2) => fixed(DataType::Float16, &descriptor),
        TypeDescriptor::Float(FloatSize::U4) => fixed(DataType::Float32, &descriptor),
        TypeDescriptor::Float(FloatSize::U8) => fixed(DataType::Float64, &descriptor),
        TypeDescriptor::Boolean if !is_netcdf4 => {
            let byte = memory(&TypeDescriptor::Integer(IntSize::U1))?;
            Ok((DataType::Bool, Layout::Truth(byte)))
        }
        TypeDescriptor::Boolean => fixed(DataType::Int8, &TypeDescriptor::Integer(IntSize::U1)),
        TypeDescriptor::Enum(inner) => {
            let base = inner.base_type();
            let data_type = if inner.signed {
                signed(inner.size)
            } else {
                unsigned(inner.size)
            };
            fixed(data_type, &base)
        }
        TypeDescriptor::FixedAscii(length) | TypeDescriptor::FixedUnicode(length) => {
            let length_bytes = u32::try_from(*length)
                .ok()
                .filter(|length| (1..=array::MAX_ELEMENT_BYTES).contains(length))
                .ok_or_else(|| format!("its strings of {length} bytes have no Zarr data type"))?;
            let data_type = DataType::NullTerminatedBytes { length_bytes };
            Ok((
                data_type,
                Layout::Fixed(raw::null_padded(&stored, *length)?),
            ))
        }
        TypeDescriptor::VarLenAscii | TypeDescriptor::VarLenUnicode => {
            Ok((DataType::String, Layout::Strings(memory(&descriptor)?)))
        }
        TypeDescriptor::Compound(compound) => match complex(compound) {
            Some((data_type, parts)) => fixed(data_type, &parts),
            None => Err(format!(
                "its elements are compounds ({}); only complex numbers have a Zarr data type",
                field_names(compound)
            )),
        },
        TypeDescriptor::FixedArray(..) | TypeDescriptor::VarLenArray(_) => {
            Err("its elements are arrays, which have no Zarr data type".into())
        }
        TypeDescriptor::Reference(_) => {
            Err("its elements are references, which mean nothing outside the file".into())
        }
    }
}

fn field_names(compound: &CompoundType) -> String {
    let names: Vec<&str> = compound
        .fields
        .iter()
        .map(|field| field.name.as_str())
        .collect();
    names.join(", ")
}

/// Real and imaginary part, as h5py and netCDF write complex numbers, and the packed compound to
/// read them as.
fn complex(compound: &CompoundType) -> Option<(DataType, TypeDescriptor)> {
    let [real, imaginary] = compound.fields.as_slice() else {
        return None;
    };
    let named = (real.name.as_str(), imaginary.name.as_str());
    if !matches!(named, ("r", "i") | ("real", "imag") | ("re", "im")) || real.ty != imaginary.ty {
        return None;
    }
    let data_type = match real.ty {
        TypeDescriptor::Float(FloatSize::U4) => DataType::Complex64,
        TypeDescriptor::Float(FloatSize::U8) => DataType::Complex128,
        _ => return None,
    };
    Some((
        data_type,
        TypeDescriptor::Compound(compound.to_packed_repr()),
    ))
}

fn signed(size: IntSize) -> DataType {
    match size {
        IntSize::U1 => DataType::Int8,
        IntSize::U2 => DataType::Int16,
        IntSize::U4 => DataType::Int32,
        IntSize::U8 => DataType::Int64,
    }
}

fn unsigned(size: IntSize) -> DataType {
    match size {
        IntSize::U1 => DataType::UInt8,
        IntSize::U2 => DataType::UInt16,
        IntSize::U4 => DataType::UInt32,
        IntSize::U8 => DataType::UInt64,
    }
}
