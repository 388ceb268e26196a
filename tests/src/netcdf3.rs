//! A small writer of NetCDF-3 files: classic, 64-bit offset and CDF-5.
//!
//! Values come from a function of the element's index, so a file of any size is written in constant
//! memory. It shares no code with the importer's reader, and the Python tests read its files with
//! netCDF4, so it can serve as a source of truth for both.
//!
//! Source: the "NetCDF Classic Format Specification" of Unidata and the CDF-5 one of PnetCDF.

use std::io::{self, Write};

/// Which of the three header layouts to write. The number is the file's fourth byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 32-bit counts and offsets.
    Classic = 1,
    /// 32-bit counts, 64-bit offsets.
    Offset64 = 2,
    /// 64-bit counts and offsets, and the unsigned and 64-bit types.
    Cdf5 = 5,
}

/// An external type. The number is its tag in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Signed 8-bit integer.
    Byte = 1,
    /// One byte of text.
    Char = 2,
    /// Signed 16-bit integer.
    Short = 3,
    /// Signed 32-bit integer.
    Int = 4,
    /// 32-bit float.
    Float = 5,
    /// 64-bit float.
    Double = 6,
    /// Unsigned 8-bit integer (CDF-5).
    UByte = 7,
    /// Unsigned 16-bit integer (CDF-5).
    UShort = 8,
    /// Unsigned 32-bit integer (CDF-5).
    UInt = 9,
    /// Signed 64-bit integer (CDF-5).
    Int64 = 10,
    /// Unsigned 64-bit integer (CDF-5).
    UInt64 = 11,
}

impl Type {
    /// Bytes of one element.
    #[must_use]
    pub fn size_bytes(self) -> u64 {
        match self {
            Self::Byte | Self::Char | Self::UByte => 1,
            Self::Short | Self::UShort => 2,
            Self::Int | Self::Float | Self::UInt => 4,
            Self::Double | Self::Int64 | Self::UInt64 => 8,
        }
    }

    /// Appends `value`, big-endian; integers are truncated and saturated as `as` does.
    fn encode(self, value: f64, out: &mut Vec<u8>) {
        match self {
            Self::Byte => out.extend((value as i8).to_be_bytes()),
            Self::Char | Self::UByte => out.push(value as u8),
            Self::Short => out.extend((value as i16).to_be_bytes()),
            Self::UShort => out.extend((value as u16).to_be_bytes()),
            Self::Int => out.extend((value as i32).to_be_bytes()),
            Self::UInt => out.extend((value as u32).to_be_bytes()),
            Self::Int64 => out.extend((value as i64).to_be_bytes()),
            Self::UInt64 => out.extend((value as u64).to_be_bytes()),
            Self::Float => out.extend((value as f32).to_be_bytes()),
            Self::Double => out.extend(value.to_be_bytes()),
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub enum Value {
    /// A character attribute.
    Text(String),
    /// One or more numbers of one type.
    Numbers(Type, Vec<f64>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A dimension. At most one dimension of a file, of no fixed length, counts records.
#[derive(Clone, Debug)]
pub struct Dimension {
    /// Name.
    pub name: &'static str,
    /// Length, or `None` for the record dimension.
    pub length: Option<u64>,
}

/// The value of the element at a C-order index, records included.
pub type Elements = Box<dyn Fn(u64) -> f64>;

/// A variable.
pub struct Variable {
    /// Name.
    pub name: &'static str,
    /// Indices into [`File::dimensions`]; the record dimension can only come first.
    pub dimensions: Vec<usize>,
    /// Attributes, in order.
    pub attributes: Vec<(&'static str, Value)>,
    /// External type.
    pub data_type: Type,
    /// Values.
    pub elements: Elements,
}

/// A whole file, as data.
pub struct File {
    /// Layout of the header.
    pub version: Version,
    /// Dimensions.
    pub dimensions: Vec<Dimension>,
    /// Number of records: the length of the record dimension.
    pub records: u64,
    /// Global attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Variables.
    pub variables: Vec<Variable>,
}

impl File {
    /// Writes the file in one pass.
    ///
    /// # Errors
    /// When `out` fails, or the file does not fit the version's counts and offsets.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let begins = self.begins()?;
        out.write_all(&self.header(&begins)?)?;
        for variable in self.variables.iter().filter(|v| !self.is_record(v)) {
            self.write_elements(variable, 0, out)?;
        }
        for record in 0..self.records {
            for variable in self.variables.iter().filter(|v| self.is_record(v)) {
                self.write_elements(variable, record, out)?;
            }
        }
        Ok(())
    }

    fn is_record(&self, variable: &Variable) -> bool {
        variable
            .dimensions
            .first()
            .is_some_and(|&d| self.dimensions[d].length.is_none())
    }

    /// Elements of a variable in one record, or in all for a fixed-size one.
    fn elements_per_record(&self, variable: &Variable) -> u64 {
        variable
            .dimensions
            .iter()
            .filter_map(|&d| self.dimensions[d].length)
            .product()
    }

    /// Bytes of a variable in one record with padding. A lone record variable is not padded.
    fn stride_bytes(&self, variable: &Variable) -> u64 {
        let bytes = self.elements_per_record(variable) * variable.data_type.size_bytes();
        let lone = self.is_record(variable)
            && self.variables.iter().filter(|v| self.is_record(v)).count() == 1;
        if lone {
            bytes
        } else {
            bytes.next_multiple_of(4)
        }
    }

    /// Where each variable's data starts: fixed-size ones in order, then the first record.
    fn begins(&self) -> io::Result<Vec<u64>> {
        let mut next = self.header(&vec![0; self.variables.len()])?.len() as u64;
        let mut begins = vec![0; self.variables.len()];
        for records in [false, true] {
            for (begin, variable) in begins.iter_mut().zip(&self.variables) {
                if self.is_record(variable) == records {
                    *begin = next;
                    next += self.stride_bytes(variable);
                }
            }
        }
        Ok(begins)
    }

    fn header(&self, begins: &[u64]) -> io::Result<Vec<u8>> {
        let mut out = Header {
            version: self.version,
            bytes: b"CDF".to_vec(),
        };
        out.bytes.push(self.version as u8);
        out.count(self.records)?;
        out.list(0x0A, self.dimensions.len())?;
        for dimension in &self.dimensions {
            out.name(dimension.name)?;
            out.count(dimension.length.unwrap_or(0))?;
        }
        out.attributes(&self.attributes)?;
        out.list(0x0B, self.variables.len())?;
        for (variable, &begin) in self.variables.iter().zip(begins) {
            out.name(variable.name)?;
            out.count(variable.dimensions.len() as u64)?;
            for &dimension in &variable.dimensions {
                out.count(dimension as u64)?;
            }
            out.attributes(&variable.attributes)?;
            out.tag(variable.data_type as u32);
            out.size(self.stride_bytes(variable).next_multiple_of(4));
            out.offset(begin)?;
        }
        Ok(out.bytes)
    }

    fn write_elements(
        &self,
        variable: &Variable,
        record: u64,
        out: &mut impl Write,
    ) -> io::Result<()> {
        const ELEMENTS_PER_WRITE: u64 = 1 << 14;
        let elements = self.elements_per_record(variable);
        let first = record * elements;
        let mut buffer = Vec::new();
        let mut done = 0;
        while done < elements {
            let until = elements.min(done + ELEMENTS_PER_WRITE);
            buffer.clear();
            for index in done..until {
                variable
                    .data_type
                    .encode((variable.elements)(first + index), &mut buffer);
            }
            out.write_all(&buffer)?;
            done = until;
        }
        let written = elements * variable.data_type.size_bytes();
        let padding = self.stride_bytes(variable) - written;
        out.write_all(&[0; 3][..padding as usize])
    }
}

/// Header bytes so far.
struct Header {
    version: Version,
    bytes: Vec<u8>,
}

impl Header {
    fn tag(&mut self, tag: u32) {
        self.bytes.extend(tag.to_be_bytes());
    }

    /// A count, a length or an id: 32 bits before CDF-5.
    fn count(&mut self, count: u64) -> io::Result<()> {
        if self.version == Version::Cdf5 {
            self.bytes.extend(count.to_be_bytes());
        } else {
            self.bytes.extend(narrow(count)?.to_be_bytes());
        }
        Ok(())
    }

    /// `vsize` is redundant; a size that does not fit is written as all ones, as the format says.
    fn size(&mut self, size: u64) {
        if self.version == Version::Cdf5 {
            self.bytes.extend(size.to_be_bytes());
        } else {
            self.bytes
                .extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        }
    }

    fn offset(&mut self, offset: u64) -> io::Result<()> {
        if self.version == Version::Classic {
            self.bytes.extend(narrow(offset)?.to_be_bytes());
        } else {
            self.bytes.extend(offset.to_be_bytes());
        }
        Ok(())
    }

    /// The head of a list, or the two zeros that stand for an absent one.
    fn list(&mut self, tag: u32, length: usize) -> io::Result<()> {
        self.tag(if length == 0 { 0 } else { tag });
        self.count(length as u64)
    }

    fn name(&mut self, name: &str) -> io::Result<()> {
        self.count(name.len() as u64)?;
        self.padded(name.as_bytes());
        Ok(())
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn attributes(&mut self, attributes: &[(&str, Value)]) -> io::Result<()> {
        self.list(0x0C, attributes.len())?;
        for (name, value) in attributes {
            self.name(name)?;
            match value {
                Value::Text(text) => {
                    self.tag(Type::Char as u32);
                    self.name(text)?;
                }
                Value::Numbers(data_type, numbers) => {
                    self.tag(*data_type as u32);
                    self.count(numbers.len() as u64)?;
                    let mut bytes = Vec::new();
                    for &number in numbers {
                        data_type.encode(number, &mut bytes);
                    }
                    self.padded(&bytes);
                }
            }
        }
        Ok(())
    }
}

fn narrow(value: u64) -> io::Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|&value| value <= i32::MAX as u32)
        .ok_or_else(|| io::Error::other(format!("{value} does not fit this NetCDF version")))
}
