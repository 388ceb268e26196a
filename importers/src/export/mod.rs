//! Exports: a group, an array or parts of them at one commit, in the formats of other programs.
//!
//! ```text
//! node ─► view (which arrays, which cells) ─► format ─► partial file or directory ─► its name
//! ```
//!
//! Every byte is verified on its way. Memory is bounded whatever the arrays' size: each format is
//! written from boxes of cells, or from stored chunks as they are. What is exported appears under its
//! name only when it is complete ([`Destination`]); dropping the future of [`export`] leaves nothing.

mod csv;
mod destination;
#[cfg(feature = "hdf5")]
mod netcdf4;
mod npy;
mod parquet;
mod publish;
mod safetensors;
mod table;
mod tally;
mod view;
mod zarr2;
mod zarr3;
mod zip;

use std::path::Path;

use array::Selection;
use compute::cf::Decode;
use compute::labels::Labels;
use query::Engine;
use storage::{Node, Snapshot};

use crate::Error;

pub use destination::Destination;
pub use publish::{PublishOptions, PublishProgress, Published, publish};
pub use tally::ExportProgress;

use destination::{Folder, Single};
use tally::Tally;
use view::View;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A Zarr v3 directory.
    Zarr3,
    /// A Zarr v2 directory.
    Zarr2,
    /// A NetCDF-4 file.
    Netcdf4,
    /// NumPy's file of one array.
    Npy,
    /// NumPy's file of several arrays.
    Npz,
    /// A safetensors file.
    Safetensors,
    /// A Parquet file, a row for each cell.
    Parquet,
    /// A CSV file, a row for each cell.
    Csv,
}

impl ExportFormat {
    /// Every format, with its name and the endings of its files.
    const ALL: [(Self, &'static str, &'static [&'static str]); 8] = [
        (Self::Zarr3, "zarr", &["zarr"]),
        (Self::Zarr2, "zarr2", &[]),
        (Self::Netcdf4, "netcdf", &["nc", "nc4"]),
        (Self::Npy, "npy", &["npy"]),
        (Self::Npz, "npz", &["npz"]),
        (Self::Safetensors, "safetensors", &["safetensors"]),
        (Self::Parquet, "parquet", &["parquet", "pq"]),
        (Self::Csv, "csv", &["csv"]),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(format, ..)| *format == self);
        found.map_or("", |(_, name, _)| name)
    }

    /// The format that the end of a destination's name says; Zarr v3 if it says nothing.
    ///
    /// # Errors
    /// [`Error::Option`] for an ending that looks like a file of another format.
    pub fn of_destination(destination: &Destination) -> Result<Self, Error> {
        let name = destination.name();
        let ending = Path::new(&name)
            .extension()
            .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let Some(ending) = ending else {
            return Ok(Self::Zarr3);
        };
        let known = Self::ALL
            .iter()
            .find(|(_, _, endings)| endings.contains(&ending.as_str()));
        match known {
            Some((format, ..)) => Ok(*format),
            None if OTHER_ENDINGS.contains(&ending.as_str()) => Err(Error::Option {
                option: "--format",
                reason: format!(
                    "no format is written to files ending in .{ending}: name one of {}",
                    Self::names()
                ),
            }),
            None => Ok(Self::Zarr3),
        }
    }

    fn names() -> String {
        Self::ALL.map(|(_, name, _)| name).join(", ")
    }

    /// Whether it is a directory, not a file.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Zarr3 | Self::Zarr2)
    }

    /// Whether an array is written with what describes its dimensions.
    pub fn holds_coordinates(self) -> bool {
        matches!(self, Self::Netcdf4 | Self::Parquet | Self::Csv)
    }
}

/// Endings of files that people may expect and that are not written.
const OTHER_ENDINGS: [&str; 14] = [
    "h5", "hdf5", "tif", "tiff", "grib", "grib2", "grb", "cdf", "nc3", "zip", "tar", "json", "pt",
    "arrow",
];

impl std::str::FromStr for ExportFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = match text {
            "zarr3" => "zarr",
            "netcdf4" | "nc" => "netcdf",
            other => other,
        };
        let known = Self::ALL.iter().find(|(_, name, _)| *name == text);
        known
            .map(|(format, ..)| *format)
            .ok_or_else(|| format!("{text:?} is none of {}", Self::names()))
    }
}

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The format.
    pub format: ExportFormat,
    /// Arrays of a group to export, by path below it; all if there are none.
    pub variables: Vec<String>,
    /// What of one array.
    pub slice: Option<Selection>,
    /// Positions along dimensions, of every array that has them.
    pub positions: Vec<(String, Selection)>,
    /// Labels along dimensions, of every array that has them.
    pub labels: Vec<(String, Labels)>,
    /// Whether missing and packed values are decoded.
    pub decode: Decode,
    /// Whether to replace what is at the destination.
    pub overwrite: bool,
    /// Dimensions that a NetCDF file can grow along.
    pub unlimited: Vec<String>,
    /// How hard NetCDF files are compressed, 0 (not at all) to 9.
    pub deflate_level: u8,
}

impl ExportOptions {
    /// Everything, as stored, in this format.
    pub fn new(format: ExportFormat) -> Self {
        Self {
            format,
            variables: Vec::new(),
            slice: None,
            positions: Vec::new(),
            labels: Vec::new(),
            decode: Decode::Raw,
            overwrite: false,
            unlimited: Vec::new(),
            deflate_level: 4,
        }
    }

    /// Selects along a dimension: an index, a slice or a list of positions.
    ///
    /// # Errors
    /// [`Error::Option`] for text that is none of these.
    pub fn select_positions(&mut self, dimension: &str, text: &str) -> Result<(), Error> {
        let position = view::parse_position(text).map_err(|error| match error {
            Error::Option { option, reason } => Error::Option {
                option,
                reason: format!("{dimension}: {reason}"),
            },
            other => other,
        })?;
        self.positions.push((dimension.to_owned(), position));
        Ok(())
    }

    /// Selects along a dimension by the values of its coordinate.
    ///
    /// # Errors
    /// [`Error::Option`] for text that is no label, list or range.
    pub fn select_labels(&mut self, dimension: &str, text: &str) -> Result<(), Error> {
        self.labels
            .push((dimension.to_owned(), view::parse_labels(text)?));
        Ok(())
    }
}

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Arrays.
    pub arrays: u64,
    /// Chunks and shards; boxes of cells where a format has none.
    pub chunks: u64,
    /// Bytes of them: as stored where chunks are copied, else uncompressed.
    pub bytes: u64,
}

/// Exports `node` of a commit.
///
/// # Errors
/// [`Error::Exists`] if the destination does; [`Error::Option`] for options that do not fit what is
/// there; [`Error::NoPlace`] for an array that the format cannot hold; [`Error::Query`] if a chunk is
/// not what was written; [`Error::Write`] and [`Error::Storage`] if the destination cannot be written.
pub async fn export(
    engine: &Engine,
    snapshot: &Snapshot,
    node: Node,
    options: &ExportOptions,
    destination: &Destination,
    progress: &(dyn Fn(&ExportProgress) + Send + Sync),
) -> Result<Exported, Error> {
    let view = View::new(engine, snapshot, node, options).await?;
    let tally = Tally::new(progress);
    if options.format.is_directory() {
        let folder = match options.format {
            ExportFormat::Zarr2 => {
                let plan = zarr2::Plan::new(&view)?;
                let folder = Folder::open(destination, options.overwrite).await?;
                plan.write(engine, &folder, &tally).await?;
                folder
            }
            _ => {
                let plan = zarr3::Plan::new(&view)?;
                let folder = Folder::open(destination, options.overwrite).await?;
                plan.write(engine, &folder, &tally).await?;
                folder
            }
        };
        folder.publish().await?;
        return Ok(tally.exported());
    }
    let single = Single::open(destination, options.overwrite).await?;
    let path = single.path().to_owned();
    match options.format {
        ExportFormat::Npy => {
            npy::write(engine, view.single("an .npy file")?, &path, &tally).await?;
        }
        ExportFormat::Npz => zip::write(engine, &view, &path, &tally).await?,
        ExportFormat::Safetensors => {
            safetensors::write(engine, snapshot, &view, &path, &tally).await?;
        }
        ExportFormat::Parquet => parquet::write(engine, &view, &path, &tally).await?,
        ExportFormat::Csv => csv::write(engine, &view, &path, &tally).await?,
        #[cfg(feature = "hdf5")]
        ExportFormat::Netcdf4 => netcdf4::write(engine, &view, options, &path, &tally).await?,
        #[cfg(not(feature = "hdf5"))]
        ExportFormat::Netcdf4 => {
            return Err(Error::Option {
                option: "--format",
                reason:
                    "this build has no HDF5 library, which NetCDF-4 files need: export with the \
                         quarr command"
                        .to_owned(),
            });
        }
        ExportFormat::Zarr3 | ExportFormat::Zarr2 => {}
    }
    single.publish().await?;
    Ok(tally.exported())
}

/// Writes one file or object that was made elsewhere, as an export does.
///
/// # Errors
/// [`Error::Exists`] if it is there and is not to be replaced; [`Error::Write`] and
/// [`Error::Storage`] if it cannot be written.
pub async fn write_file(
    destination: &Destination,
    overwrite: bool,
    bytes: bytes::Bytes,
) -> Result<(), Error> {
    let single = Single::open(destination, overwrite).await?;
    let mut out = npy::Out::open(single.path()).await?;
    out.write(&bytes).await?;
    out.finish().await?;
    single.publish().await
}

/// Exports `node` and everything below it to the Zarr v3 directory `destination`, which must not
/// exist.
///
/// # Errors
/// As [`export`].
pub async fn export_zarr(
    engine: &Engine,
    snapshot: &Snapshot,
    node: Node,
    destination: &Path,
    progress: &(dyn Fn(&ExportProgress) + Send + Sync),
) -> Result<Exported, Error> {
    let destination = Destination::Local(destination.to_owned());
    let options = ExportOptions::new(ExportFormat::Zarr3);
    export(engine, snapshot, node, &options, &destination, progress).await
}
