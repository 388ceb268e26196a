//! Files of other formats into a transaction, and arrays back out.
//!
//! NetCDF-3 (classic, 64-bit offset, CDF-5), NetCDF-4 and HDF5 come in through one [`Source`]; an
//! [`import()`] is one commit. [`export_zarr`] writes a plain Zarr v3 directory.

mod boxes;
mod chunking;
mod consolidated;
mod error;
mod export;
mod fill_arrays;
mod hdf5;
mod import;
mod netcdf3;
mod skip;
mod source;
mod zarr;

pub use chunking::{Access, Chunking, Lengths, choose as choose_chunking};
pub use consolidated::document_with_members;
pub use error::Error;
pub use export::{Exported, export_zarr};
pub use fill_arrays::Progress;
pub use import::{ImportOptions, Imported, check, import};
pub use source::{Attribute, Attributes, Group, Refused, Source, Variable};
pub use zarr::{Dropped, default_codecs, new_array};
