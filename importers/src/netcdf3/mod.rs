//! NetCDF-3: classic, 64-bit offset and CDF-5 files.
//!
//! The header is parsed whole and checked against the length of the file before any value is read,
//! so no count in it can ask for more memory or data than the file has.
//!
//! ```text
//! header │ values of variables without records │ record 0 │ record 1 │ …
//!        └ each at its `begin`                  └ one part a variable, padded to four bytes
//! ```
//!
//! Source: "The NetCDF Classic Format Specification" and the CDF-5 specification.

mod header;
mod parser;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use array::{Elements, Region, shape};

use self::header::{Header, Placement};
use self::parser::{Failure, Version};
use crate::Error;
use crate::pieces::{Piece, Pieces, bytes_codec, contiguous};
use crate::source::{Group, Reader, Storage, Variable};

/// What is read of a file at first; nearly all headers are shorter.
const FIRST_READ_BYTES: u64 = 64 << 10;
/// Longest header that is read.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// An open NetCDF-3 file.
#[derive(Debug)]
pub(crate) struct NetCdf3File {
    path: PathBuf,
    file: File,
    version: Version,
    placements: Vec<Placement>,
}

impl NetCdf3File {
    /// Opens a file and reads everything but the values.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the header is not one of NetCDF-3 or not one of this file.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let header = read_header(&file, length).map_err(|failure| match failure {
            Unreadable::System(source) => read(source),
            Unreadable::Malformed(reason) => Error::Malformed {
                path: path.to_owned(),
                reason,
            },
        })?;
        let group = Group {
            path: Vec::new(),
            attributes: header.attributes,
            variables: header.variables,
            refused: Vec::new(),
        };
        let file = Self {
            path: path.to_owned(),
            file,
            version: header.version,
            placements: header.placements,
        };
        Ok((file, vec![group]))
    }

    /// Reads a box of a variable, in C order and little-endian.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read, or has become shorter.
    fn bytes(&self, variable: &Variable, region: &Region) -> Result<Vec<u8>, Error> {
        let placement = &self.placements[variable.handle];
        let mut bytes = vec![0; shape::size_bytes(region.shape(), &variable.data_type)?];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let runs = Runs::of(placement, &variable.shape, region)?;
        let pieces = bytes.chunks_exact_mut(runs.bytes);
        for (at, piece) in runs.starts.positions().zip(pieces) {
            let offset: u64 = at
                .iter()
                .zip(&runs.strides)
                .map(|(at, stride)| at * stride)
                .sum();
            let read = self.file.read_exact_at(piece, placement.begin + offset);
            read.map_err(|source| Error::Read {
                path: self.path.clone(),
                source,
            })?;
        }
        let size = placement.element_bytes as usize;
        if size > 1 {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }
}

/// Records of fewer bytes, between those of other variables, are not worth a request each.
const MIN_RECORD_BYTES: u64 = 4 << 10;

impl NetCdf3File {
    /// Where the values of a variable are; else why they have to be copied.
    fn places(&self, variable: &Variable) -> Result<Pieces, String> {
        let length = self
            .file
            .metadata()
            .map_err(|error| error.to_string())?
            .len();
        let placement = &self.placements[variable.handle];
        let (begin, size) = (placement.begin, placement.element_bytes);
        let codecs = vec![bytes_codec(&variable.data_type, true)];
        let record = variable.shape.get(1..).unwrap_or_default();
        let record_bytes = record.iter().product::<u64>() * size;
        let Some(stride) = placement
            .record_stride
            .filter(|&stride| stride != record_bytes)
        else {
            let (chunk_shape, found, to_copy) = contiguous(&variable.shape, size, begin, length);
            return Ok(Pieces {
                found,
                to_copy,
                ..Pieces::none(chunk_shape, codecs)
            });
        };
        if record_bytes < MIN_RECORD_BYTES {
            return Err(format!(
                "its records are of {record_bytes} bytes, between those of other variables"
            ));
        }
        let (part_shape, parts, _) = contiguous(record, size, 0, u64::MAX);
        let mut pieces = Pieces::none([vec![1], part_shape].concat(), codecs);
        for nth in 0..variable.shape[0] {
            for part in &parts {
                let piece = Piece {
                    place: nth * parts.len() as u64 + part.place,
                    offset: begin + nth * stride + part.offset,
                    length: part.length,
                };
                match piece.offset + piece.length <= length {
                    true => pieces.found.push(piece),
                    false => pieces.to_copy.push(piece.place),
                }
            }
        }
        Ok(pieces)
    }
}

impl Reader for NetCdf3File {
    fn format(&self) -> &'static str {
        match self.version {
            Version::Classic => "NetCDF-3 classic",
            Version::Offset64 => "NetCDF-3 64-bit offset",
            Version::Cdf5 => "NetCDF-3 CDF-5",
        }
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        self.bytes(variable, region).map(Elements::Fixed)
    }

    fn pieces(&self, variable: &Variable) -> Result<Pieces, String> {
        self.places(variable)
    }

    fn storage(&self, variable: &Variable) -> Storage {
        let placement = self.placements.get(variable.handle);
        let has_records = placement.is_some_and(|placement| placement.record_stride.is_some());
        Storage {
            unlimited: (0..variable.shape.len())
                .map(|axis| has_records && axis == 0)
                .collect(),
            ..Storage::default()
        }
    }
}

/// The pieces of a box that are contiguous in the file.
struct Runs {
    /// First position of each.
    starts: Region,
    /// Distance in the file between neighbours along each dimension.
    strides: Vec<u64>,
    /// Bytes of each.
    bytes: usize,
}

impl Runs {
    fn of(
        placement: &Placement,
        array_shape: &[u64],
        region: &Region,
    ) -> Result<Self, array::Error> {
        let rank = array_shape.len();
        let mut strides = shape::strides(array_shape);
        strides
            .iter_mut()
            .for_each(|stride| *stride *= placement.element_bytes);
        // Records lie apart; inside one, values lie as in any other variable.
        let first_dense = usize::from(placement.record_stride.is_some());
        if let (Some(stride), Some(first)) = (placement.record_stride, strides.first_mut()) {
            *first = stride;
        }
        // A run covers the trailing dimensions that the box has whole, and one more in part.
        let is_whole = |&axis: &usize| region.shape()[axis] == array_shape[axis];
        let whole = (first_dense..rank).rev().take_while(is_whole).count();
        let first = (rank - whole).saturating_sub(1).max(first_dense.min(rank));
        let elements: u64 = region.shape()[first..].iter().product();
        let mut starts = region.shape().to_vec();
        starts[first..].fill(1);
        Ok(Self {
            starts: Region::new(region.start().to_vec(), starts)?,
            strides,
            bytes: (elements * placement.element_bytes) as usize,
        })
    }
}

enum Unreadable {
    System(std::io::Error),
    Malformed(String),
}

/// Reads more and more of the file until the header is there.
fn read_header(file: &File, file_length: u64) -> Result<Header, Unreadable> {
    let mut bytes = Vec::new();
    let mut wanted = FIRST_READ_BYTES;
    loop {
        let known = bytes.len();
        let end = wanted.min(file_length).min(MAX_HEADER_BYTES);
        bytes.resize(end as usize, 0);
        file.read_exact_at(&mut bytes[known..], known as u64)
            .map_err(Unreadable::System)?;
        match Header::parse(&bytes, file_length) {
            Err(Failure::Short) if end == wanted => wanted = wanted.saturating_mul(8),
            Err(Failure::Short) => {
                let reason = format!("its header does not end within {end} bytes");
                return Err(Unreadable::Malformed(reason));
            }
            Err(Failure::Wrong(reason)) => return Err(Unreadable::Malformed(reason)),
            Ok(header) => return Ok(header),
        }
    }
}

#[cfg(test)]
mod tests;
