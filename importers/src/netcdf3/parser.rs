//! The words of a NetCDF-3 header, read one after the other.

use array::DataType;

use crate::source::{Attribute, Attributes};

/// The variants of the format, which differ in the width of counts and offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Counts and offsets of 32 bits.
    Classic,
    /// Counts of 32, offsets of 64 bits.
    Offset64,
    /// Counts and offsets of 64 bits, and more data types.
    Cdf5,
}

/// Why a header was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It goes on after the bytes given.
    Short,
    /// It is not a header.
    Wrong(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::Wrong(reason.to_owned())
    }
}

/// The bytes of a header and how far they are read. Never reads or allocates past them.
pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(super) version: Version,
    /// Length of the file, which bounds every count.
    file_length: u64,
}

impl<'a> Parser<'a> {
    /// Starts after the magic number.
    pub(super) fn new(bytes: &'a [u8], file_length: u64) -> Result<Self, Failure> {
        let version = match bytes {
            [b'C', b'D', b'F', 1, ..] => Version::Classic,
            [b'C', b'D', b'F', 2, ..] => Version::Offset64,
            [b'C', b'D', b'F', 5, ..] => Version::Cdf5,
            [b'C', b'D', b'F', other, ..] => {
                return Err(format!("there is no NetCDF-3 version {other}").into());
            }
            _ => return Err("it does not start with CDF and a version".into()),
        };
        Ok(Self {
            bytes,
            at: 4,
            version,
            file_length,
        })
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Failure> {
        if length > self.file_length {
            return Err(format!("it claims {length} bytes, more than the file has").into());
        }
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let taken = end
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(Failure::Short)?;
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Failure> {
        let bytes = self.take(4)?;
        Ok(bytes
            .iter()
            .fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    fn u64(&mut self) -> Result<u64, Failure> {
        let bytes = self.take(8)?;
        Ok(bytes
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A count of whatever value: 64 bits in CDF-5, else 32.
    pub(super) fn any_count(&mut self) -> Result<u64, Failure> {
        match self.version {
            Version::Cdf5 => self.u64(),
            Version::Classic | Version::Offset64 => self.u32().map(u64::from),
        }
    }

    /// A count, which is not negative.
    pub(super) fn count(&mut self, what: &str) -> Result<u64, Failure> {
        let most = match self.version {
            Version::Cdf5 => i64::MAX as u64,
            Version::Classic | Version::Offset64 => i32::MAX as u64,
        };
        let value = self.any_count()?;
        if value > most {
            return Err(format!("{what} is negative").into());
        }
        Ok(value)
    }

    /// The number of records; `None` if the file was written as a stream and does not tell.
    pub(super) fn records(&mut self) -> Result<Option<u64>, Failure> {
        let streaming = match self.version {
            Version::Cdf5 => u64::MAX,
            Version::Classic | Version::Offset64 => u64::from(u32::MAX),
        };
        let start = self.at;
        if self.any_count()? == streaming {
            return Ok(None);
        }
        self.at = start;
        self.count("the number of records").map(Some)
    }

    /// Where a variable begins: 32 bits in classic files, else 64.
    pub(super) fn offset(&mut self) -> Result<u64, Failure> {
        match self.version {
            Version::Classic => self.u32().map(u64::from),
            Version::Offset64 | Version::Cdf5 => self.u64(),
        }
    }

    /// `tag count item…`, or zeros for an empty list. Every item takes at least four bytes.
    pub(super) fn list<T>(
        &mut self,
        tag: u32,
        what: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let found = self.u32()?;
        let count = self.count("the number of items of a list")?;
        if count == 0 && (found == 0 || found == tag) {
            return Ok(Vec::new());
        }
        if found != tag {
            return Err(format!("the list of {what}s has tag {found} instead of {tag}").into());
        }
        if count > self.file_length / 4 {
            return Err(
                format!("it claims {count} {what}s, more than the file has room for").into(),
            );
        }
        // Grows with what is really there, not with what is claimed.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn name(&mut self) -> Result<String, Failure> {
        let length = self.count("the length of a name")?;
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        match std::str::from_utf8(bytes) {
            Ok("") => Err("a name is empty".into()),
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err("a name is not UTF-8".into()),
        }
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Failure> {
        self.list(12, "attribute", |parser| {
            let name = parser.name()?;
            let (data_type, size) = parser.data_type()?;
            let count = parser.count("the length of an attribute")?;
            let length = count.checked_mul(size).ok_or("an attribute is too large")?;
            let bytes = parser.take(length)?;
            parser.take(padding(length))?;
            Ok((name, attribute(&data_type, size as usize, bytes)))
        })
    }

    /// A data type and the bytes of an element.
    pub(super) fn data_type(&mut self) -> Result<(DataType, u64), Failure> {
        let number = self.u32()?;
        let extended = self.version == Version::Cdf5;
        let data_type = match number {
            1 => DataType::Int8,
            2 => DataType::NullTerminatedBytes { length_bytes: 1 },
            3 => DataType::Int16,
            4 => DataType::Int32,
            5 => DataType::Float32,
            6 => DataType::Float64,
            7 if extended => DataType::UInt8,
            8 if extended => DataType::UInt16,
            9 if extended => DataType::UInt32,
            10 if extended => DataType::Int64,
            11 if extended => DataType::UInt64,
            _ => return Err(format!("there is no data type {number}").into()),
        };
        let size = data_type.size_bytes().unwrap_or(1) as u64;
        Ok((data_type, size))
    }
}

/// Bytes up to the next multiple of four.
pub(super) fn padding(length: u64) -> u64 {
    length.wrapping_neg() % 4
}

/// The value of an attribute from its bytes, big-endian numbers of `size` bytes or text.
fn attribute(data_type: &DataType, size: usize, bytes: &[u8]) -> Attribute {
    let words = || {
        let word = |value: &[u8]| value.iter().fold(0u64, |v, &byte| v << 8 | u64::from(byte));
        bytes.chunks_exact(size).map(word)
    };
    match data_type {
        // As netCDF4-python gives it.
        DataType::NullTerminatedBytes { .. } => {
            Attribute::Text(String::from_utf8_lossy(bytes).replace('\0', ""))
        }
        DataType::Float32 => {
            let widen = |bits: u64| f64::from(f32::from_bits(bits as u32));
            Attribute::Floats(words().map(widen).collect())
        }
        DataType::Float64 => Attribute::Floats(words().map(f64::from_bits).collect()),
        signed if signed.is_signed_integer() => {
            let unused = 64 - 8 * size as u32;
            let extend = |bits: u64| i128::from((bits << unused).cast_signed() >> unused);
            Attribute::Integers(words().map(extend).collect())
        }
        _ => Attribute::Integers(words().map(i128::from).collect()),
    }
}
