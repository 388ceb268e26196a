//! NetCDF-3: classic, 64-bit offset and CDF-5 files.
//!
//! The header is parsed whole and checked against the length of the file before anything is read,
//! so no count in it can ask for more memory or data than the file has.
//!
//! Source: "The NetCDF Classic Format Specification" and the CDF-5 specification.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use array::{DataType, Region, shape};

use crate::Error;
use crate::source::{Attribute, Attributes, Group, Variable};

/// Longest header that is read, in bytes.
const MAX_HEADER_BYTES: u64 = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Classic,
    Offset64,
    Cdf5,
}

/// An open NetCDF-3 file.
#[derive(Debug)]
pub(crate) struct NetCdf3File {
    path: PathBuf,
    file: File,
    version: Version,
    placements: Vec<Placement>,
}

/// Where a variable's values are.
#[derive(Clone, Debug)]
struct Placement {
    begin: u64,
    element_bytes: u64,
    /// Distance between records; `None` for a variable without the record dimension.
    record_stride: Option<u64>,
}

impl NetCdf3File {
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut header = Vec::new();
        (&mut file)
            .take(length.min(MAX_HEADER_BYTES))
            .read_to_end(&mut header)
            .map_err(read)?;
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let parsed = Header::parse(&header, length).map_err(malformed)?;
        let group = Group {
            path: Vec::new(),
            attributes: parsed.attributes,
            variables: parsed.variables,
            refused: Vec::new(),
        };
        let file = Self {
            path: path.to_owned(),
            file,
            version: parsed.version,
            placements: parsed.placements,
        };
        Ok((file, vec![group]))
    }

    pub(crate) fn format(&self) -> &'static str {
        match self.version {
            Version::Classic => "NetCDF-3 classic",
            Version::Offset64 => "NetCDF-3 64-bit offset",
            Version::Cdf5 => "NetCDF-3 CDF-5",
        }
    }

    /// Reads a box of a variable.
    pub(crate) fn read(&self, variable: &Variable, region: &Region) -> Result<Vec<u8>, Error> {
        let placement = &self.placements[variable.handle];
        let size = placement.element_bytes as usize;
        let mut bytes = vec![0; shape::size_bytes(region.shape(), &variable.data_type)?];
        let read = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        if bytes.is_empty() {
            return Ok(bytes);
        }
        // The longest run of whole trailing dimensions is contiguous in the file.
        let dimensions = variable.shape.len();
        let first_fixed = usize::from(placement.record_stride.is_some());
        let mut run_axis = dimensions;
        while run_axis > first_fixed
            && (run_axis == dimensions || region.shape()[run_axis] == variable.shape[run_axis])
        {
            run_axis -= 1;
        }
        let run: u64 = region.shape()[run_axis..].iter().product();
        let mut outer = region.shape().to_vec();
        outer[run_axis..].fill(1);
        // Strides inside one record, or inside the whole of a variable without records.
        let mut strides = shape::strides(&variable.shape);
        strides
            .iter_mut()
            .for_each(|stride| *stride *= placement.element_bytes);
        if let (Some(stride), Some(first)) = (placement.record_stride, strides.first_mut()) {
            *first = stride;
        }
        let run_bytes = run as usize * size;
        for (at, out) in Region::whole(&outer)
            .positions()
            .zip(bytes.chunks_exact_mut(run_bytes))
        {
            let places = at.iter().zip(region.start()).zip(&strides);
            let offset: u64 = places
                .map(|((at, start), stride)| (at + start) * stride)
                .sum();
            self.file
                .read_exact_at(out, placement.begin + offset)
                .map_err(read)?;
        }
        to_little_endian(&mut bytes, size);
        Ok(bytes)
    }
}

fn to_little_endian(bytes: &mut [u8], size: usize) {
    if size > 1 {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
}

struct Header {
    version: Version,
    attributes: Attributes,
    variables: Vec<Variable>,
    placements: Vec<Placement>,
}

struct Dimension {
    name: String,
    /// 0 for the record dimension.
    length: u64,
}

const TAG_DIMENSIONS: u32 = 10;
const TAG_VARIABLES: u32 = 11;
const TAG_ATTRIBUTES: u32 = 12;

impl Header {
    fn parse(bytes: &[u8], file_length: u64) -> Result<Self, String> {
        let version = match bytes.get(3) {
            Some(1) => Version::Classic,
            Some(2) => Version::Offset64,
            Some(5) => Version::Cdf5,
            other => return Err(format!("unknown NetCDF-3 version {other:?}")),
        };
        let mut parser = Parser {
            bytes,
            at: 4,
            version,
        };
        let streaming = if version == Version::Cdf5 {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        let records = parser.count("number of records")?;
        let dimensions = parser.list(TAG_DIMENSIONS, "dimension", |parser| {
            Ok(Dimension {
                name: parser.name()?,
                length: parser.count("dimension length")?,
            })
        })?;
        if dimensions
            .iter()
            .filter(|dimension| dimension.length == 0)
            .count()
            > 1
        {
            return Err("more than one record dimension".into());
        }
        let attributes = parser.attributes()?;
        let parsed = parser.list(TAG_VARIABLES, "variable", |parser| {
            parser.variable(&dimensions)
        })?;
        let record_bytes = record_bytes(&parsed, &dimensions)?;
        let records = if records == streaming {
            // Written as a stream: as many records as the file has room for.
            let first = parsed
                .iter()
                .filter(|v| v.is_record(&dimensions))
                .map(|v| v.begin)
                .min();
            match (first, record_bytes) {
                (Some(first), stride) if stride > 0 => file_length.saturating_sub(first) / stride,
                _ => 0,
            }
        } else {
            records
        };
        let mut variables = Vec::with_capacity(parsed.len());
        let mut placements = Vec::with_capacity(parsed.len());
        for variable in parsed {
            let is_record = variable.is_record(&dimensions);
            let lengths: Vec<u64> = variable
                .dimensions
                .iter()
                .enumerate()
                .map(|(axis, &id)| {
                    if axis == 0 && is_record {
                        records
                    } else {
                        dimensions[id].length
                    }
                })
                .collect();
            let placement = Placement {
                begin: variable.begin,
                element_bytes: variable.element_bytes,
                record_stride: is_record.then_some(record_bytes),
            };
            check_extent(
                &variable,
                &lengths,
                &placement,
                (parser.at as u64, file_length),
            )?;
            variables.push(Variable {
                name: variable.name,
                dimensions: variable
                    .dimensions
                    .iter()
                    .map(|&id| dimensions[id].name.clone())
                    .collect(),
                shape: lengths,
                data_type: variable.data_type,
                attributes: variable.attributes,
                chunk_shape: None,
                handle: placements.len(),
            });
            placements.push(placement);
        }
        Ok(Self {
            version,
            attributes,
            variables,
            placements,
        })
    }
}

struct ParsedVariable {
    name: String,
    dimensions: Vec<usize>,
    attributes: Attributes,
    data_type: DataType,
    element_bytes: u64,
    begin: u64,
}

impl ParsedVariable {
    fn is_record(&self, dimensions: &[Dimension]) -> bool {
        self.dimensions
            .first()
            .is_some_and(|&id| dimensions[id].length == 0)
    }

    /// Bytes of one record, or of all values of a variable without records.
    fn unit_bytes(&self, dimensions: &[Dimension]) -> Result<u64, String> {
        let fixed = usize::from(self.is_record(dimensions));
        self.dimensions[fixed..]
            .iter()
            .try_fold(self.element_bytes, |bytes, &id| {
                bytes.checked_mul(dimensions[id].length)
            })
            .ok_or_else(|| format!("variable {:?} is too large", self.name))
    }
}

/// Distance between records: each variable's part padded to four bytes, unless there is only one.
fn record_bytes(variables: &[ParsedVariable], dimensions: &[Dimension]) -> Result<u64, String> {
    let records: Vec<&ParsedVariable> = variables
        .iter()
        .filter(|v| v.is_record(dimensions))
        .collect();
    if let [only] = records.as_slice() {
        return only.unit_bytes(dimensions);
    }
    records.iter().try_fold(0u64, |sum, variable| {
        let padded = variable.unit_bytes(dimensions)?.checked_next_multiple_of(4);
        padded
            .and_then(|bytes| sum.checked_add(bytes))
            .ok_or_else(|| "records are too large".to_owned())
    })
}

/// Refuses a variable whose values are not all behind the header and inside the file.
fn check_extent(
    variable: &ParsedVariable,
    lengths: &[u64],
    placement: &Placement,
    (header_end, file_length): (u64, u64),
) -> Result<(), String> {
    let too_large = || format!("variable {:?} is too large", variable.name);
    let elements = shape::elements(lengths).map_err(|_| too_large())?;
    if elements == 0 {
        return Ok(());
    }
    let end = match (placement.record_stride, lengths.split_first()) {
        (Some(stride), Some((records, inner))) => {
            let last = inner.iter().product::<u64>() * variable.element_bytes;
            (records - 1)
                .checked_mul(stride)
                .and_then(|start| start.checked_add(last))
        }
        _ => elements.checked_mul(variable.element_bytes),
    };
    let end = end
        .and_then(|end| end.checked_add(placement.begin))
        .ok_or_else(too_large)?;
    if placement.begin < header_end {
        return Err(format!(
            "variable {:?} begins at byte {}, inside the header",
            variable.name, placement.begin
        ));
    }
    if end > file_length {
        return Err(format!(
            "variable {:?} ends at byte {end}, the file has {file_length}: it is truncated or its header is wrong",
            variable.name
        ));
    }
    Ok(())
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    version: Version,
}

impl<'a> Parser<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or("the header ends early")?;
        self.at += length;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(self
            .take(4)?
            .iter()
            .fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(self
            .take(8)?
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A NON_NEG: 64 bits in CDF-5, else 32.
    fn count(&mut self, what: &str) -> Result<u64, String> {
        let value = if self.version == Version::Cdf5 {
            self.u64()?
        } else {
            u64::from(self.u32()?)
        };
        let most = if self.version == Version::Cdf5 {
            i64::MAX as u64
        } else {
            i32::MAX as u64
        };
        let streaming = if self.version == Version::Cdf5 {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        if value > most && !(what == "number of records" && value == streaming) {
            return Err(format!("{what} is negative"));
        }
        Ok(value)
    }

    /// `tag count item…`, or two zeros. Every item takes at least four bytes of the header.
    fn list<T>(
        &mut self,
        tag: u32,
        what: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let found = self.u32()?;
        let count = self.count("number of items")?;
        if found == 0 && count == 0 {
            return Ok(Vec::new());
        }
        if found != tag {
            return Err(format!(
                "the list of each {what} has tag {found} instead of {tag}"
            ));
        }
        if count > (self.bytes.len() - self.at) as u64 / 4 {
            return Err(format!(
                "it claims {count} {what}s, more than the header has room for"
            ));
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn name(&mut self) -> Result<String, String> {
        let length = self.count("length of a name")?;
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "a name is not UTF-8".into())
    }

    fn attributes(&mut self) -> Result<Attributes, String> {
        self.list(TAG_ATTRIBUTES, "attribute", |parser| {
            let name = parser.name()?;
            let (data_type, size) = parser.data_type()?;
            let count = parser.count("length of an attribute")?;
            let length = count.checked_mul(size).ok_or("an attribute is too large")?;
            let bytes = parser.take(length)?;
            parser.take(padding(length))?;
            Ok((name, attribute(&data_type, size as usize, bytes)))
        })
    }

    fn data_type(&mut self) -> Result<(DataType, u64), String> {
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
            _ => return Err(format!("unknown data type {number}")),
        };
        let size = data_type.size_bytes().unwrap_or(1) as u64;
        Ok((data_type, size))
    }

    fn variable(&mut self, dimensions: &[Dimension]) -> Result<ParsedVariable, String> {
        let name = self.name()?;
        let rank = self.count("number of dimensions")?;
        if rank > shape::MAX_DIMENSIONS as u64 {
            return Err(format!(
                "variable {name:?} has {rank} dimensions, the most is {}",
                shape::MAX_DIMENSIONS
            ));
        }
        let mut ids = Vec::new();
        for axis in 0..rank {
            let id = self.count("dimension")? as usize;
            match dimensions.get(id) {
                None => {
                    return Err(format!(
                        "variable {name:?} has a dimension that does not exist"
                    ));
                }
                Some(dimension) if dimension.length == 0 && axis > 0 => {
                    return Err(format!(
                        "variable {name:?} has the record dimension not first"
                    ));
                }
                Some(_) => ids.push(id),
            }
        }
        let attributes = self.attributes()?;
        let (data_type, element_bytes) = self.data_type()?;
        // The stored size is redundant and wrong for large variables.
        self.count_or_wrapped()?;
        let begin = if self.version == Version::Classic {
            u64::from(self.u32()?)
        } else {
            self.u64()?
        };
        Ok(ParsedVariable {
            name,
            dimensions: ids,
            attributes,
            data_type,
            element_bytes,
            begin,
        })
    }

    fn count_or_wrapped(&mut self) -> Result<(), String> {
        if self.version == Version::Cdf5 {
            self.u64().map(drop)
        } else {
            self.u32().map(drop)
        }
    }
}

/// Bytes up to the next multiple of four.
fn padding(length: u64) -> u64 {
    length.wrapping_neg() % 4
}

fn attribute(data_type: &DataType, size: usize, bytes: &[u8]) -> Attribute {
    let values = || {
        bytes
            .chunks_exact(size)
            .map(|value| value.iter().fold(0u64, |v, &byte| v << 8 | u64::from(byte)))
    };
    match data_type {
        DataType::NullTerminatedBytes { .. } => {
            let end = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            Attribute::Text(String::from_utf8_lossy(&bytes[..end]).into_owned())
        }
        DataType::Float32 => Attribute::Floats(
            values()
                .map(|bits| f64::from(f32::from_bits(bits as u32)))
                .collect(),
        ),
        DataType::Float64 => Attribute::Floats(values().map(f64::from_bits).collect()),
        signed if signed.is_signed_integer() => {
            let unused = 64 - 8 * size as u32;
            let extend = |bits: u64| i128::from((bits << unused).cast_signed() >> unused);
            Attribute::Integers(values().map(extend).collect())
        }
        _ => Attribute::Integers(values().map(i128::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one attribute, a record dimension `t` and one variable `v(t, x)` of int16.
    fn file(records: u32) -> Vec<u8> {
        let mut bytes = b"CDF\x01".to_vec();
        let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_be_bytes());
        let name = |bytes: &mut Vec<u8>, name: &str| {
            bytes.extend((name.len() as u32).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(vec![0; padding(name.len() as u64) as usize]);
        };
        word(&mut bytes, records);
        word(&mut bytes, TAG_DIMENSIONS);
        word(&mut bytes, 2);
        name(&mut bytes, "t");
        word(&mut bytes, 0);
        name(&mut bytes, "x");
        word(&mut bytes, 3);
        word(&mut bytes, TAG_ATTRIBUTES);
        word(&mut bytes, 1);
        name(&mut bytes, "title");
        word(&mut bytes, 2);
        word(&mut bytes, 2);
        bytes.extend(b"hi\0\0");
        word(&mut bytes, TAG_VARIABLES);
        word(&mut bytes, 1);
        name(&mut bytes, "v");
        word(&mut bytes, 2);
        word(&mut bytes, 0);
        word(&mut bytes, 1);
        word(&mut bytes, 0);
        word(&mut bytes, 0);
        word(&mut bytes, 3);
        word(&mut bytes, 8);
        let begin = bytes.len() as u32 + 4;
        word(&mut bytes, begin);
        for value in 0..6i16 {
            bytes.extend(value.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn a_single_record_variable_is_not_padded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.nc");
        std::fs::write(&path, file(2)).unwrap();
        let (file, groups) = NetCdf3File::open(&path).unwrap();
        assert_eq!(
            groups[0].attributes,
            [("title".to_owned(), Attribute::Text("hi".into()))]
        );
        let variable = &groups[0].variables[0];
        assert_eq!(
            (variable.shape.as_slice(), variable.dimensions.join(",")),
            ([2, 3].as_slice(), "t,x".into())
        );
        let all = file.read(variable, &Region::whole(&[2, 3])).unwrap();
        assert_eq!(
            all,
            (0..6i16).flat_map(i16::to_le_bytes).collect::<Vec<u8>>()
        );
        let part = Region::new(vec![1, 1], vec![1, 2]).unwrap();
        assert_eq!(file.read(variable, &part).unwrap(), [4, 0, 5, 0]);
    }

    #[test]
    fn damaged_headers_are_errors_never_panics() {
        let whole = file(2);
        for cut in 0..whole.len() {
            assert!(
                Header::parse(&whole[..cut], cut as u64).is_err(),
                "cut at {cut}"
            );
        }
        for at in 4..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = Header::parse(&changed, changed.len() as u64);
            }
        }
        assert!(
            Header::parse(&file(3), whole.len() as u64).is_err(),
            "a record too many"
        );
    }
}
