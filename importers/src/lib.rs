//! Files of other formats into a transaction, and arrays back out.
//!
//! NetCDF-3 (classic, 64-bit offset, CDF-5), NetCDF-4, HDF5, Zarr hierarchies, NumPy's files,
//! safetensors, Parquet, CSV, GeoTIFF and GRIB2 come in through one [`Source`], many files joined as
//! one; an [`import()`] is one commit, of copies or of references. [`resolve`] finds sources by path,
//! URL and pattern; [`check_source`] says what could be better about one.
//! [`export::export`] writes what a commit holds as Zarr, NetCDF-4, NumPy, safetensors, Parquet and
//! CSV; [`export::publish`] keeps a mirror of a branch. NetCDF-4 and HDF5 need the feature `hdf5`,
//! which links the HDF5 library.

mod append;
mod blocking;
mod boxes;
mod calendar;
mod check;
mod chunking;
mod compression;
mod consolidated;
mod csv;
mod error;
pub mod export;
mod fill_arrays;
mod flat;
mod formats;
mod grib;
#[cfg(feature = "hdf5")]
mod hdf5;
mod hierarchy;
mod import;
mod isolated;
mod joined;
mod kept;
mod located;
mod materialize;
mod named;
pub mod netcdf;
mod netcdf3;
mod npy;
mod numpy_type;
mod origin;
mod parallel;
mod parquet;
mod pieces;
mod plan;
mod recent;
mod reference;
mod safetensors;
mod scratch;
mod skip;
mod source;
mod sources;
mod tiff;
mod zarr;

pub use check::{Finding, Severity, check_source};
pub use chunking::{Access, Chunking, Lengths, choose as choose_chunking};
pub use compression::{Codec, Compressor, Trial};
pub use consolidated::{document_with_members, document_with_members_as, shown_document};
pub use error::Error;
pub use fill_arrays::{Progress, Staging};
pub use import::{
    ByReference, Import, ImportOptions, Imported, Planned, Sources, check, dry_run, import,
};
pub use isolated::{ReaderCommand, isolate_readers, serve_reader};
pub use joined::{JoinOptions, Labels, MAX_MEMBERS, Member, NewDim, Order};
pub use materialize::{Materialized, materialize};
pub use origin::{Stamp, check_same};
pub use reference::Copied;
pub use source::{Attribute, Attributes, Group, Refused, Source, Storage, Variable};
pub use sources::{Resolved, resolve};
pub use zarr::{Dropped, default_codecs, new_array};
