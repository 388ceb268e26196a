//! Files of other formats into a transaction, and arrays back out.
//!
//! NetCDF-3 (classic, 64-bit offset, CDF-5), NetCDF-4 and HDF5 come in through one [`Source`]; an
//! [`import()`] is one commit. [`export_zarr`] writes a plain Zarr v3 directory. NetCDF-4 and HDF5
//! need the feature `hdf5`, which links the HDF5 library.

mod boxes;
mod chunking;
mod consolidated;
mod error;
mod export;
mod fill_arrays;
#[cfg(feature = "hdf5")]
mod hdf5;
mod import;
pub mod netcdf;
mod netcdf3;
mod skip;
mod source;
mod zarr;

pub use chunking::{Access, Chunking, Lengths, choose as choose_chunking};
pub use consolidated::{document_with_members, document_with_members_as};
pub use error::Error;
pub use export::{Exported, export_zarr};
pub use fill_arrays::Progress;
pub use import::{ImportOptions, Imported, check, import};
pub use source::{Attribute, Attributes, Group, Refused, Source, Variable};
pub use zarr::{Dropped, default_codecs, new_array};
