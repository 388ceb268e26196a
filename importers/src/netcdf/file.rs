//! The bytes of a NetCDF-3 file: classic, 64-bit offset or CDF-5, the first that holds it.
//!
//! ```text
//! header │ values of a variable, padded to four bytes │ values of the next │ …
//! ```
//!
//! Source: "The NetCDF Classic Format Specification" and the CDF-5 specification.

use super::Error;

/// An external type. The number is its tag in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Byte = 1,
    Char = 2,
    Short = 3,
    Int = 4,
    Float = 5,
    Double = 6,
    UByte = 7,
    UShort = 8,
    UInt = 9,
    Int64 = 10,
    UInt64 = 11,
}

impl Type {
    /// Bytes of one element.
    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::Byte | Self::Char | Self::UByte => 1,
            Self::Short | Self::UShort => 2,
            Self::Int | Self::Float | Self::UInt => 4,
            Self::Double | Self::Int64 | Self::UInt64 => 8,
        }
    }

    fn is_of_cdf5(self) -> bool {
        self as u32 >= Self::UByte as u32
    }
}

/// Elements of one type, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values<'a> {
    pub(super) data_type: Type,
    pub(super) bytes: std::borrow::Cow<'a, [u8]>,
}

impl Values<'_> {
    fn count(&self) -> usize {
        self.bytes.len() / self.data_type.size_bytes()
    }

    /// Appends the elements, big-endian, and zeros up to a multiple of four bytes.
    fn write(&self, out: &mut Vec<u8>) {
        let bytes = self.bytes.iter();
        match self.data_type.size_bytes() {
            1 => out.extend(bytes),
            2 => out.extend(self.bytes.chunks_exact(2).flat_map(|b| [b[1], b[0]])),
            4 => out.extend(
                self.bytes
                    .chunks_exact(4)
                    .flat_map(|b| [b[3], b[2], b[1], b[0]]),
            ),
            _ => {
                let swap = |b: &[u8]| [b[7], b[6], b[5], b[4], b[3], b[2], b[1], b[0]];
                out.extend(self.bytes.chunks_exact(8).flat_map(swap));
            }
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// A variable.
pub(super) struct Variable<'a> {
    pub(super) name: String,
    /// Places in [`File::dimensions`].
    pub(super) dimensions: Vec<usize>,
    pub(super) attributes: Vec<(String, Values<'a>)>,
    pub(super) values: Values<'a>,
}

/// A whole file, as data.
#[derive(Default)]
pub(super) struct File<'a> {
    /// Names and lengths. A dimension of length 0 counts records, of which there are none.
    pub(super) dimensions: Vec<(String, u64)>,
    pub(super) variables: Vec<Variable<'a>>,
}

/// The layouts of a header. The number is the file's fourth byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Counts and offsets of 32 bits.
    Classic = 1,
    /// Counts of 32, offsets of 64 bits.
    Offset64 = 2,
    /// Counts and offsets of 64 bits, and more types.
    Cdf5 = 5,
}

/// Most bytes of a variable whose size is written with 32 bits.
const MAX_NARROW_BYTES: usize = i32::MAX as usize - 3;

impl File<'_> {
    /// The file.
    ///
    /// # Errors
    /// [`Error`] if the format has no place for a dimension of length 0 where it is.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check_empty_dimensions()?;
        let data_bytes = |variable: &Variable<'_>| variable.values.bytes.len().next_multiple_of(4);
        let data: usize = self.variables.iter().map(data_bytes).sum();
        let mut version = self.version();
        let mut header_bytes = self.header(version, None).len();
        if version == Version::Classic && header_bytes + data > MAX_NARROW_BYTES {
            version = Version::Offset64;
            header_bytes = self.header(version, None).len();
        }
        let mut file = self.header(version, Some(header_bytes as u64));
        file.reserve_exact(data);
        for variable in &self.variables {
            variable.values.write(&mut file);
        }
        Ok(file)
    }

    fn version(&self) -> Version {
        let is_of_cdf5 = |variable: &Variable<'_>| {
            let attributes = variable.attributes.iter().map(|(_, values)| values);
            let mut all = attributes.chain([&variable.values]);
            variable.values.bytes.len() > MAX_NARROW_BYTES
                || all.any(|values| values.data_type.is_of_cdf5())
        };
        let is_long = |(_, length): &(String, u64)| *length > i32::MAX as u64;
        if self.variables.iter().any(is_of_cdf5) || self.dimensions.iter().any(is_long) {
            Version::Cdf5
        } else {
            Version::Classic
        }
    }

    /// Length 0 in a file is that of the record dimension, of which there is one, always first.
    fn check_empty_dimensions(&self) -> Result<(), Error> {
        let is_empty = |&place: &usize| self.dimensions[place].1 == 0;
        let mut empty = (0..self.dimensions.len()).filter(is_empty);
        let first = empty.next();
        for variable in &self.variables {
            let below_first = variable.dimensions.iter().skip(1);
            if below_first.clone().any(is_empty) || (first.is_some() && empty.clone().count() > 0) {
                let reason = "in this format, one dimension at most has length 0, and comes first";
                return Err(Error::new(&variable.name, reason));
            }
        }
        Ok(())
    }

    /// The header, with the places of the values if it is known how long it is.
    fn header(&self, version: Version, header_bytes: Option<u64>) -> Vec<u8> {
        let mut out = Header {
            bytes: vec![b'C', b'D', b'F', version as u8],
            version,
        };
        // No records.
        out.count(0);
        out.list(0x0A, self.dimensions.len());
        for (name, length) in &self.dimensions {
            out.name(name);
            out.count(*length);
        }
        // No attributes of the whole file.
        out.list(0x0C, 0);
        out.list(0x0B, self.variables.len());
        let start = header_bytes.unwrap_or(0);
        let size =
            |variable: &Variable<'_>| (variable.values.bytes.len() as u64).next_multiple_of(4);
        // Records come after all that is not made of records.
        let records = start + self.variables.iter().map(size).sum::<u64>();
        let mut begin = start;
        for variable in &self.variables {
            out.name(&variable.name);
            out.count(variable.dimensions.len() as u64);
            for &dimension in &variable.dimensions {
                out.count(dimension as u64);
            }
            out.list(0x0C, variable.attributes.len());
            for (name, values) in &variable.attributes {
                out.name(name);
                out.tag(values.data_type as u32);
                out.count(values.count() as u64);
                values.write(&mut out.bytes);
            }
            out.tag(variable.values.data_type as u32);
            let of_record = self.record_bytes(variable);
            out.count(of_record.unwrap_or(size(variable)));
            out.offset(of_record.map_or(begin, |_| records));
            begin += size(variable);
        }
        out.bytes
    }

    /// Bytes that one record of a variable would have, padded, if it has records.
    fn record_bytes(&self, variable: &Variable<'_>) -> Option<u64> {
        let (first, others) = variable.dimensions.split_first()?;
        if self.dimensions[*first].1 > 0 {
            return None;
        }
        let lengths = others.iter().map(|&place| self.dimensions[place].1);
        let elements = lengths.fold(1_u64, u64::saturating_mul);
        let bytes = elements.saturating_mul(variable.values.data_type.size_bytes() as u64);
        // What does not fit is all ones, and nobody needs it.
        Some(bytes.checked_next_multiple_of(4).unwrap_or(u64::MAX))
    }
}

/// Header bytes so far. Counts fit the version: it was chosen so.
struct Header {
    bytes: Vec<u8>,
    version: Version,
}

impl Header {
    fn tag(&mut self, tag: u32) {
        self.bytes.extend(tag.to_be_bytes());
    }

    /// A count, a length or an id.
    fn count(&mut self, count: u64) {
        match self.version {
            Version::Cdf5 => self.bytes.extend(count.to_be_bytes()),
            Version::Classic | Version::Offset64 => {
                self.tag(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
    }

    fn offset(&mut self, offset: u64) {
        match self.version {
            Version::Classic => self.tag(u32::try_from(offset).unwrap_or(u32::MAX)),
            Version::Offset64 | Version::Cdf5 => self.bytes.extend(offset.to_be_bytes()),
        }
    }

    /// The head of a list, or the two zeros that stand for an absent one.
    fn list(&mut self, tag: u32, length: usize) {
        self.tag(if length == 0 { 0 } else { tag });
        self.count(length as u64);
    }

    fn name(&mut self, name: &str) {
        self.count(name.len() as u64);
        self.bytes.extend(name.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
