//! Which format a file is of.

use std::path::Path;

use crate::Error;
use crate::csv::CsvFile;
use crate::grib::GribFile;
use crate::netcdf3::NetCdf3File;
use crate::npy::{NpyFile, NpzFile};
use crate::parquet::ParquetFile;
use crate::safetensors::SafetensorsFile;
use crate::source::Source;
use crate::sources::stem;
use crate::tiff::TiffFile;

/// What messages list.
pub(crate) const KNOWN: &str = "NetCDF-3, NetCDF-4, HDF5, Zarr v2 and v3 directories, NumPy npy \
                                and npz, safetensors, Parquet, CSV (.csv, .tsv), GeoTIFF, GRIB2";
/// Bytes of a file that tell its format.
pub(crate) const START_BYTES: u64 = 64;

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    NetCdf3,
    Hdf5,
    Npy,
    Npz,
    Safetensors,
    Parquet,
    Csv,
    Tiff,
    Grib,
}

/// The format of a file by its first bytes, its length and, where those do not tell, its name;
/// `None` if they do not tell either.
pub(crate) fn of(start: &[u8], length: u64, name: &str) -> Option<Format> {
    let magic: [(&[u8], Format); 11] = [
        (b"CDF", Format::NetCdf3),
        (b"\x89HDF\r\n\x1a\n", Format::Hdf5),
        (b"\x93NUMPY", Format::Npy),
        (b"PK\x03\x04", Format::Npz),
        (b"PK\x05\x06", Format::Npz),
        (b"PAR1", Format::Parquet),
        (b"GRIB", Format::Grib),
        (b"II*\0", Format::Tiff),
        (b"MM\0*", Format::Tiff),
        (b"II+\0", Format::Tiff),
        (b"MM\0+", Format::Tiff),
    ];
    let found = magic.iter().find(|(magic, _)| start.starts_with(magic));
    if let Some((_, format)) = found {
        return Some(*format);
    }
    if SafetensorsFile::is_one(start, length) {
        return Some(Format::Safetensors);
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "csv" | "tsv" => Some(Format::Csv),
        // Messages may come after a header of the line they were sent over.
        "grib" | "grib2" | "grb" | "grb2" => Some(Format::Grib),
        _ => None,
    }
}

/// Opens a file of this format, which is called `name` where it comes from, and a lone array in it
/// after it.
///
/// # Errors
/// As [`Source::open`].
pub(crate) fn open(format: Format, path: &Path, name: &str) -> Result<Source, Error> {
    let stem = stem(name);
    match format {
        Format::NetCdf3 => NetCdf3File::open(path).map(|(file, groups)| Source::new(groups, file)),
        Format::Hdf5 => Source::open_hdf5(path),
        Format::Npy => NpyFile::open(path, &stem).map(|(file, groups)| Source::new(groups, file)),
        Format::Npz => NpzFile::open(path).map(|(file, groups)| Source::new(groups, file)),
        Format::Safetensors => {
            SafetensorsFile::open(path).map(|(file, groups)| Source::new(groups, file))
        }
        Format::Parquet => ParquetFile::open(path).map(|(file, groups)| Source::new(groups, file)),
        Format::Csv => CsvFile::open(path, name).map(|(file, groups)| Source::new(groups, file)),
        Format::Tiff => TiffFile::open(path).map(|(file, groups)| Source::new(groups, file)),
        Format::Grib => GribFile::open(path).map(|(file, groups)| Source::new(groups, file)),
    }
}
