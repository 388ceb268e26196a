//! What a source file holds, whatever its format.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use array::{ArrayMetadata, ChunkIndex, DataType, Elements, Region};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;
use crate::formats::{self, START_BYTES};
#[cfg(feature = "hdf5")]
use crate::hdf5::Hdf5File;
use crate::hierarchy::{Hierarchy, Keys};
use crate::isolated::{self, IsolatedFile};
use crate::pieces::Pieces;
use crate::sources::stem;

/// The value of an attribute, as NumPy would give it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Integers; one stands for a scalar.
    Integers(#[serde(with = "isolated::digits")] Vec<i128>),
    /// Floats, widened; one stands for a scalar.
    Floats(#[serde(with = "isolated::bits")] Vec<f64>),
    /// Truth values; one stands for a scalar.
    Booleans(Vec<bool>),
    /// Values of several dimensions: those along the first.
    Rows(Vec<Self>),
    /// Whatever a source in JSON has.
    Json(Value),
}

impl Attribute {
    /// The same values in `shape`, which holds as many.
    #[cfg(feature = "hdf5")]
    pub(crate) fn with_shape(self, shape: &[usize]) -> Self {
        fn split<T: Clone>(
            values: &[T],
            shape: &[usize],
            leaf: &impl Fn(Vec<T>) -> Attribute,
        ) -> Attribute {
            let length = shape[1..].iter().product::<usize>();
            if shape.len() < 2 || length == 0 {
                return leaf(values.to_vec());
            }
            let rows = values.chunks_exact(length);
            Attribute::Rows(rows.map(|row| split(row, &shape[1..], leaf)).collect())
        }
        if shape.len() < 2 {
            return self;
        }
        match self {
            Self::Texts(values) => split(&values, shape, &Self::Texts),
            Self::Integers(values) => split(&values, shape, &Self::Integers),
            Self::Floats(values) => split(&values, shape, &Self::Floats),
            Self::Booleans(values) => split(&values, shape, &Self::Booleans),
            one => one,
        }
    }
}

/// Attributes in the order of the file.
pub type Attributes = Vec<(String, Attribute)>;

/// A variable of a source file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Variable {
    /// Name in its group.
    pub name: String,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Their lengths.
    pub shape: Vec<u64>,
    /// Type of its elements.
    #[serde(with = "isolated::data_type")]
    pub data_type: DataType,
    /// Its attributes.
    pub attributes: Attributes,
    /// Chunk shape in the file, if it is chunked.
    pub chunk_shape: Option<Vec<u64>>,
    /// Where the reader finds it.
    pub(crate) handle: usize,
}

/// Something in a source file that has no place in a Zarr hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Path of a variable, or path of a variable or group, `@`, and name of an attribute.
    pub name: String,
    /// Why it has no place.
    pub reason: String,
}

/// A group of a source file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Names from the root down; none for the root.
    pub path: Vec<String>,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its variables.
    pub variables: Vec<Variable>,
    /// What it holds besides; an import must be told to skip it.
    pub refused: Vec<Refused>,
}

/// An open source file. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Source {
    groups: Arc<Vec<Group>>,
    reader: Arc<dyn Reader>,
}

/// A dimension of a variable that more data is expected along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grows {
    /// It is unlimited in the file, as most are that never grow.
    Perhaps(usize),
    /// The user said so.
    Surely(usize),
}

/// What reads the values of a source, whatever its format.
pub(crate) trait Reader: std::fmt::Debug + Send + Sync {
    /// What the format is called.
    fn format(&self) -> &'static str;

    /// Reads a box of a variable of this source, in C order and little-endian. Blocks.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Malformed`] if the source does not give it.
    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error>;

    /// Where the values of a variable lie in the source, which is one file. Blocks.
    ///
    /// # Errors
    /// Why they have to be copied.
    fn pieces(&self, _: &Variable) -> Result<Pieces, String> {
        Err(format!(
            "values of {} files are not referred to",
            self.format()
        ))
    }

    /// What the source left out by itself, one sentence each; complete when all was read.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Members of a group's `zarr.json` that are not interpreted and kept.
    fn group_extra(&self, _path: &[String]) -> Map<String, Value> {
        Map::new()
    }

    /// The metadata of a variable that the source has as a Zarr array; `None` for all others, for
    /// which the functions below are not called.
    fn zarr(&self, _variable: &Variable) -> Option<&ArrayMetadata> {
        None
    }

    /// Positions of the chunks there are, ascending. Blocks.
    ///
    /// # Errors
    /// As [`Reader::read`].
    fn stored_chunks(&self, _: &Variable) -> Result<Vec<ChunkIndex>, Error> {
        Ok(Vec::new())
    }

    /// The encoded bytes of a chunk; `None` if it turns out that there is none. Blocks.
    ///
    /// # Errors
    /// As [`Reader::read`].
    fn stored_chunk(&self, _: &Variable, _: &ChunkIndex) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    /// The URL of the object that a chunk is, and the most bytes it may have.
    ///
    /// # Errors
    /// [`Error::Array`] if the array's shapes make no sense.
    fn chunk_place(&self, _: &Variable, _: &ChunkIndex) -> Result<(String, u64), Error> {
        Ok((String::new(), 0))
    }

    /// The error for a chunk that does not decode, which names its key.
    fn chunk_error(&self, _: &Variable, _: &ChunkIndex, error: codecs::Error) -> Error {
        error.into()
    }

    /// How a variable of this source is stored, as far as the format has such things.
    fn storage(&self, _: &Variable) -> Storage {
        Storage::default()
    }

    /// The dimension of a variable that more data is expected along.
    fn grows(&self, variable: &Variable) -> Option<Grows> {
        let unlimited = self.storage(variable).unlimited;
        let axis = unlimited.iter().position(|&unlimited| unlimited)?;
        Some(Grows::Perhaps(axis))
    }

    /// The copy here of a file elsewhere, and its URL, if that is what is read.
    fn copy(&self) -> Option<(&Path, &str)> {
        None
    }
}

/// How a variable is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Level of deflate, if it is compressed with that.
    pub deflate_level: Option<u8>,
    /// Whether each dimension can grow without limit; empty if none can.
    pub unlimited: Vec<bool>,
}

impl Source {
    pub(crate) fn new(groups: Vec<Group>, reader: impl Reader + 'static) -> Self {
        Self {
            groups: Arc::new(groups),
            reader: Arc::new(reader),
        }
    }

    /// Opens a file, or a directory that is a Zarr hierarchy. Its first bytes tell the format, or
    /// for text its extension.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read, [`Error::Malformed`] if it is of no known format or
    /// contradicts its own, [`Error::Unsupported`] if it holds what cannot be imported.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default();
        Self::open_called(path, &name.to_string_lossy())
    }

    /// Opens a file that is called `name` where it comes from.
    pub(crate) fn open_called(path: &Path, name: &str) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let kind = std::fs::metadata(path).map_err(read)?;
        if kind.is_dir() {
            let opened = Hierarchy::open(Keys::Directory(path.to_owned()), &stem(name))?;
            return opened.ok_or_else(|| Error::Malformed {
                path: path.to_owned(),
                reason: "it is a directory without zarr.json, .zgroup or .zarray".into(),
            });
        }
        if !kind.is_file() {
            // Opening a pipe would wait for its writer.
            return Err(read(std::io::Error::other("it is not a regular file")));
        }
        let mut start = Vec::new();
        let file = File::open(path).map_err(read)?;
        let mut first = (&file).take(START_BYTES);
        first.read_to_end(&mut start).map_err(read)?;
        match formats::of(&start, kind.len(), name) {
            Some(format) => formats::open(format, path, name),
            None if has_user_block(&file, kind.len()).map_err(read)? => Self::open_hdf5(path),
            None => Err(Error::Malformed {
                path: path.to_owned(),
                reason: format!("it is of no known format; there are {}", formats::KNOWN),
            }),
        }
    }

    /// Opens an HDF5 file, in a process of its own if files are read so.
    pub(crate) fn open_hdf5(path: &Path) -> Result<Self, Error> {
        if let Some(command) = isolated::command() {
            let (file, groups) = IsolatedFile::open(path, command)?;
            return Ok(Self::new(groups, file));
        }
        Self::open_hdf5_here(path)
    }

    /// Opens an HDF5 file in this process.
    #[cfg(feature = "hdf5")]
    pub(crate) fn open_hdf5_here(path: &Path) -> Result<Self, Error> {
        let (file, groups) = Hdf5File::open(path)?;
        Ok(Self::new(groups, file))
    }

    /// Says why there is no such thing here.
    #[cfg(not(feature = "hdf5"))]
    pub(crate) fn open_hdf5_here(path: &Path) -> Result<Self, Error> {
        Err(Error::Unsupported {
            what: path.display().to_string(),
            reason: "this build has no HDF5 library, which NetCDF-4 and HDF5 files need: \
                     import it with the quarr command"
                .to_owned(),
        })
    }

    /// All groups, parents first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What the format is called.
    pub fn format(&self) -> &'static str {
        self.reader.format()
    }

    /// Where the values of a variable lie in the file. Blocks.
    ///
    /// # Errors
    /// Why they have to be copied.
    pub(crate) fn pieces(&self, variable: &Variable) -> Result<Pieces, String> {
        self.reader.pieces(variable)
    }

    /// What the source left out by itself, one sentence each; complete when all was read.
    pub fn warnings(&self) -> Vec<String> {
        self.reader.warnings()
    }

    pub(crate) fn reader(&self) -> &dyn Reader {
        &*self.reader
    }

    /// How a variable is stored, as far as the format has such things.
    pub fn storage(&self, variable: &Variable) -> Storage {
        self.reader.storage(variable)
    }

    /// The dimension of a variable that more data is expected along.
    pub(crate) fn grows(&self, variable: &Variable) -> Option<Grows> {
        self.reader.grows(variable)
    }

    /// Reads a box of a variable, in C order and little-endian. Blocks.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Malformed`] if the file does not give it.
    pub fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        self.reader.read(variable, region)
    }
}

/// Whether a file has the signature of HDF5 behind a user block, of 512 bytes or a power of two times
/// that.
///
/// Source: HDF5 File Format Specification, "Disk Format: Level 0A".
fn has_user_block(file: &File, length: u64) -> std::io::Result<bool> {
    const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
    let mut at = 512;
    while at < length {
        let mut found = [0; 8];
        match file.read_exact_at(&mut found, at) {
            Ok(()) if found == *SIGNATURE => return Ok(true),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        at *= 2;
    }
    Ok(false)
}
