//! What a source file holds, whatever its format.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use array::{DataType, Elements, Region};

use crate::Error;
#[cfg(feature = "hdf5")]
use crate::hdf5::Hdf5File;
use crate::netcdf3::NetCdf3File;

/// The value of an attribute, as NumPy would give it.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Integers; one stands for a scalar.
    Integers(Vec<i128>),
    /// Floats, widened; one stands for a scalar.
    Floats(Vec<f64>),
    /// Truth values; one stands for a scalar.
    Booleans(Vec<bool>),
    /// Values of several dimensions: those along the first.
    Rows(Vec<Self>),
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
#[derive(Clone, Debug)]
pub struct Variable {
    /// Name in its group.
    pub name: String,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Their lengths.
    pub shape: Vec<u64>,
    /// Type of its elements.
    pub data_type: DataType,
    /// Its attributes.
    pub attributes: Attributes,
    /// Chunk shape in the file, if it is chunked.
    pub chunk_shape: Option<Vec<u64>>,
    /// Where the reader finds it.
    pub(crate) handle: usize,
}

/// Something in a source file that has no place in a Zarr hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Path of a variable, or path of a variable or group, `@`, and name of an attribute.
    pub name: String,
    /// Why it has no place.
    pub reason: String,
}

/// A group of a source file.
#[derive(Clone, Debug)]
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

/// What reads the values of a source, whatever its format.
pub(crate) trait Reader: std::fmt::Debug + Send + Sync {
    /// What the format is called.
    fn format(&self) -> &'static str;

    /// Reads a box of a variable of this source, in C order and little-endian. Blocks.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Malformed`] if the source does not give it.
    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error>;
}

impl Source {
    pub(crate) fn new(groups: Vec<Group>, reader: impl Reader + 'static) -> Self {
        Self {
            groups: Arc::new(groups),
            reader: Arc::new(reader),
        }
    }

    /// Opens a file, whose format its first bytes tell.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read, [`Error::Malformed`] if it is of no known format or
    /// contradicts its own, [`Error::Unsupported`] if it holds what cannot be imported.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut start = [0; 8];
        let mut file = File::open(path).map_err(read)?;
        if file.metadata().map_err(read)?.is_dir() {
            return Err(read(std::io::ErrorKind::IsADirectory.into()));
        }
        let mut length = 0;
        while length < start.len() {
            match file.read(&mut start[length..]).map_err(read)? {
                0 => break,
                more => length += more,
            }
        }
        if start.starts_with(b"CDF") {
            let (file, groups) = NetCdf3File::open(path)?;
            return Ok(Self::new(groups, file));
        }
        if let Some(opened) = Self::open_hdf5(path, start == *b"\x89HDF\r\n\x1a\n") {
            return opened;
        }
        let reason = "it is neither NetCDF-3 (starts with CDF) nor NetCDF-4 or HDF5".to_owned();
        Err(Error::Malformed {
            path: path.to_owned(),
            reason,
        })
    }

    /// Opens an HDF5 file; `None` if it is none. `is_hdf5`: its first bytes say so.
    #[cfg(feature = "hdf5")]
    fn open_hdf5(path: &Path, is_hdf5: bool) -> Option<Result<Self, Error>> {
        // A superblock may come after a user block; the library looks for it.
        let is_hdf5 = is_hdf5 || Hdf5File::is_hdf5(path);
        is_hdf5.then(|| {
            let (file, groups) = Hdf5File::open(path)?;
            Ok(Self::new(groups, file))
        })
    }

    #[cfg(not(feature = "hdf5"))]
    fn open_hdf5(path: &Path, is_hdf5: bool) -> Option<Result<Self, Error>> {
        is_hdf5.then(|| {
            Err(Error::Unsupported {
                what: path.display().to_string(),
                reason: "this build has no HDF5 library, which NetCDF-4 and HDF5 files need: \
                         import it with the quarr command"
                    .to_owned(),
            })
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

    /// Reads a box of a variable, in C order and little-endian. Blocks.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Malformed`] if the file does not give it.
    pub fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        self.reader.read(variable, region)
    }
}
