//! What a NetCDF-3 header says, checked against the file.

use std::collections::HashSet;

use array::{DataType, shape};

use super::parser::{Failure, Parser, Version};
use crate::source::{Attributes, Variable};

/// The header of a file. Every variable's values lie behind it and inside the file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: Version,
    pub(super) attributes: Attributes,
    pub(super) variables: Vec<Variable>,
    /// Of each variable.
    pub(super) placements: Vec<Placement>,
}

/// Where a variable's values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) begin: u64,
    pub(super) element_bytes: u64,
    /// Distance between records; `None` for a variable without the record dimension.
    pub(super) record_stride: Option<u64>,
}

struct Dimension {
    name: String,
    /// 0 for the record dimension.
    length: u64,
}

/// A variable as the header has it.
struct Declared {
    name: String,
    dimensions: Vec<usize>,
    attributes: Attributes,
    data_type: DataType,
    element_bytes: u64,
    begin: u64,
    is_record: bool,
    /// Bytes of one record, or of all values of a variable without records.
    unit_bytes: u64,
}

impl Header {
    /// Parses the header at the start of a file, of which `bytes` are the first.
    ///
    /// # Errors
    /// [`Failure::Short`] if the header is longer than `bytes`.
    pub(super) fn parse(bytes: &[u8], file_length: u64) -> Result<Self, Failure> {
        let mut parser = Parser::new(bytes, file_length)?;
        let records = parser.records()?;
        let dimensions = parser.list(10, "dimension", |parser| {
            Ok(Dimension {
                name: parser.name()?,
                length: parser.count("the length of a dimension")?,
            })
        })?;
        if dimensions
            .iter()
            .filter(|dimension| dimension.length == 0)
            .count()
            > 1
        {
            return Err("it has more than one record dimension".into());
        }
        let attributes = parser.attributes()?;
        let declared = parser.list(11, "variable", |parser| {
            Declared::parse(parser, &dimensions)
        })?;
        let mut names = HashSet::new();
        if let Some(twice) = declared
            .iter()
            .find(|variable| !names.insert(&variable.name))
        {
            return Err(format!("it has two variables {:?}", twice.name).into());
        }
        let stride = record_stride(&declared)?;
        let records = records.unwrap_or_else(|| records_in_stream(&declared, stride, file_length));
        let mut header = Self {
            version: parser.version,
            attributes,
            variables: Vec::with_capacity(declared.len()),
            placements: Vec::with_capacity(declared.len()),
        };
        for variable in declared {
            variable.check_extent(records, stride, parser.position(), file_length)?;
            header.placements.push(Placement {
                begin: variable.begin,
                element_bytes: variable.element_bytes,
                record_stride: variable.is_record.then_some(stride),
            });
            let handle = header.variables.len();
            header
                .variables
                .push(variable.place(&dimensions, records, handle));
        }
        Ok(header)
    }
}

impl Declared {
    fn parse(parser: &mut Parser<'_>, dimensions: &[Dimension]) -> Result<Self, Failure> {
        let name = parser.name()?;
        let rank = parser.count("the number of dimensions")?;
        if rank > shape::MAX_DIMENSIONS as u64 {
            return Err(format!(
                "variable {name:?} has {rank} dimensions, the most is {}",
                shape::MAX_DIMENSIONS
            )
            .into());
        }
        let mut ids = Vec::new();
        for axis in 0..rank {
            let id = usize::try_from(parser.count("the number of a dimension")?).ok();
            match id.and_then(|id| dimensions.get(id).map(|dimension| (id, dimension))) {
                None => {
                    return Err(
                        format!("variable {name:?} has a dimension that is not there").into(),
                    );
                }
                Some((_, dimension)) if dimension.length == 0 && axis > 0 => {
                    return Err(format!("variable {name:?} has its records not first").into());
                }
                Some((id, _)) => ids.push(id),
            }
        }
        let attributes = parser.attributes()?;
        let (data_type, element_bytes) = parser.data_type()?;
        // The size that is stored follows from the rest, and is wrong for large variables.
        parser.any_count()?;
        let begin = parser.offset()?;
        let is_record = ids.first().is_some_and(|&id| dimensions[id].length == 0);
        let unit_bytes = ids[usize::from(is_record)..]
            .iter()
            .try_fold(element_bytes, |bytes, &id| {
                bytes.checked_mul(dimensions[id].length)
            })
            .ok_or_else(|| too_large(&name))?;
        Ok(Self {
            name,
            dimensions: ids,
            attributes,
            data_type,
            element_bytes,
            begin,
            is_record,
            unit_bytes,
        })
    }

    /// Refuses values that are not all behind the header and inside the file.
    fn check_extent(
        &self,
        records: u64,
        stride: u64,
        header_end: u64,
        file_length: u64,
    ) -> Result<(), Failure> {
        let too_large = || too_large(&self.name);
        let bytes = match (self.is_record, records.checked_sub(1)) {
            (false, _) => Some(self.unit_bytes),
            (true, None) => return Ok(()),
            (true, Some(last)) => last
                .checked_mul(stride)
                .and_then(|start| start.checked_add(self.unit_bytes)),
        };
        let end = bytes
            .and_then(|bytes| bytes.checked_add(self.begin))
            .ok_or_else(too_large)?;
        if self.begin < header_end {
            return Err(format!(
                "variable {:?} begins at byte {}, inside the header of {header_end} bytes",
                self.name, self.begin
            )
            .into());
        }
        if end > file_length {
            return Err(format!(
                "variable {:?} ends at byte {end}, but the file has {file_length}: it is \
                 truncated or its header is wrong",
                self.name
            )
            .into());
        }
        Ok(())
    }

    fn place(self, dimensions: &[Dimension], records: u64, handle: usize) -> Variable {
        let used = || self.dimensions.iter().map(|&id| &dimensions[id]);
        let mut shape: Vec<u64> = used().map(|dimension| dimension.length).collect();
        if self.is_record {
            shape[0] = records;
        }
        Variable {
            dimensions: used().map(|dimension| dimension.name.clone()).collect(),
            name: self.name,
            shape,
            data_type: self.data_type,
            attributes: self.attributes,
            chunk_shape: None,
            handle,
        }
    }
}

fn too_large(name: &str) -> Failure {
    format!("variable {name:?} is too large").into()
}

/// Distance between records: each variable's part padded to four bytes, unless there is only one.
fn record_stride(declared: &[Declared]) -> Result<u64, Failure> {
    let parts: Vec<u64> = declared
        .iter()
        .filter(|variable| variable.is_record)
        .map(|variable| variable.unit_bytes)
        .collect();
    if let [only] = parts.as_slice() {
        return Ok(*only);
    }
    let padded = parts.iter().try_fold(0u64, |sum, part| {
        sum.checked_add(part.checked_next_multiple_of(4)?)
    });
    padded.ok_or_else(|| "its records are too large".into())
}

/// Records of a file that was written as a stream: as many as it has room for.
fn records_in_stream(declared: &[Declared], stride: u64, file_length: u64) -> u64 {
    let records = declared.iter().filter(|variable| variable.is_record);
    let first = records.map(|variable| variable.begin).min();
    let room = first.map_or(0, |first| file_length.saturating_sub(first));
    room.checked_div(stride).unwrap_or(0)
}
