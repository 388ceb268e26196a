//! Chunks as HDF5 stores them: undoing its filters.
//!
//! ```text
//! stored bytes ─► fletcher32, deflate, shuffle, szip, … undone, last first ─► precision ─► elements
//! ```
//!
//! Only decoding is here: HDF5 files are read, never written. What Quarr itself stores under this
//! codec, beside the chunks of a file, is marked and compressed with zstd. The sizes in the
//! bytes are never trusted: what a chunk decodes to is known before, and so is a bound on every step.
//!
//! Source: "HDF5 File Format Specification", "Filter Pipeline Message"; the filters' own
//! documentation, named in each module. The codec is specified in `docs/format.md`.

pub(crate) mod bits;
mod fletcher32;
mod lzf;
mod nbit;
mod scale_offset;
pub(crate) mod shuffle;
mod stages;
mod szip;

use std::borrow::Cow;

use array::CodecMetadata;
use serde_json::{Map, Value, json};

pub(crate) use self::fletcher32::{append as append_fletcher32, strip as strip_fletcher32};
use crate::chain::{decode_blosc, read_at_most};
use crate::{Error, inflate};

/// Name of the codec in `zarr.json`.
pub const CODEC_NAME: &str = "quarr.hdf5";

/// What Quarr's own chunks begin with: not what a filter writes, and not likely what anyone measures.
const OWN: [u8; 16] = *b"\x93quarr.hdf5\x00\xd7\x1b\xe6\x0a";
/// Compression of Quarr's own chunks.
const OWN_LEVEL: i32 = 1;
/// What checksums and headers may add to the elements on the way.
const SLACK_BYTES: usize = 4096;
/// Most filters of a pipeline, as in HDF5, where a mask has a bit for each.
const MAX_FILTERS: usize = 32;
/// Most parameters of a filter that is known here.
const MAX_PARAMETERS: usize = 256;

/// Numbers of the filters that are known here, as HDF5 has them registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Deflate,
    Shuffle,
    Fletcher32,
    Szip,
    Nbit,
    ScaleOffset,
    Lzf,
    Blosc,
    Zstd,
}

impl Kind {
    fn of(id: u32) -> Option<Self> {
        Some(match id {
            1 => Self::Deflate,
            2 => Self::Shuffle,
            3 => Self::Fletcher32,
            4 => Self::Szip,
            5 => Self::Nbit,
            6 => Self::ScaleOffset,
            32_000 => Self::Lzf,
            32_001 => Self::Blosc,
            32_015 => Self::Zstd,
            _ => return None,
        })
    }
}

/// A filter of a dataset, as its creation property list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its registered number.
    pub id: u32,
    /// Its parameters.
    pub parameters: Vec<u32>,
}

/// Integers that do not fill the bytes they are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub size: u32,
    /// Bits that count.
    pub bits: u32,
    /// Bits below them.
    pub offset: u32,
    /// Whether the highest of them is a sign.
    pub is_signed: bool,
    /// Byte order of an element.
    pub is_big_endian: bool,
}

/// The filters of a dataset, and what becomes of its elements after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    filters: Vec<Filter>,
    precision: Option<Precision>,
}

impl Pipeline {
    /// # Errors
    /// [`Error::Codecs`] if a filter is not known here or its parameters are not valid.
    pub fn new(filters: Vec<Filter>, precision: Option<Precision>) -> Result<Self, Error> {
        if filters.len() > MAX_FILTERS {
            return Err(invalid("over 32 filters"));
        }
        for filter in &filters {
            if Kind::of(filter.id).is_none() {
                return Err(invalid(format!("HDF5 filter {} is not known", filter.id)));
            }
            if filter.parameters.len() > MAX_PARAMETERS {
                return Err(invalid("a filter with over 256 parameters"));
            }
        }
        if let Some(precision) = precision {
            let Precision {
                size, bits, offset, ..
            } = precision;
            let fits = [1, 2, 4, 8].contains(&size)
                && bits > 0
                && bits.checked_add(offset).is_some_and(|end| end <= 8 * size);
            if !fits {
                return Err(invalid(format!(
                    "{bits} bits above {offset} others in {size} bytes"
                )));
            }
        }
        Ok(Self { filters, precision })
    }

    /// As `zarr.json` has it.
    pub fn to_metadata(&self) -> CodecMetadata {
        let filters: Vec<Value> = self
            .filters
            .iter()
            .map(|filter| json!({ "id": filter.id, "parameters": filter.parameters }))
            .collect();
        let mut configuration = Map::new();
        configuration.insert("filters".into(), Value::Array(filters));
        if let Some(precision) = self.precision {
            let value = json!({
                "size": precision.size,
                "bits": precision.bits,
                "offset": precision.offset,
                "signed": precision.is_signed,
                "endian": if precision.is_big_endian { "big" } else { "little" },
            });
            configuration.insert("precision".into(), value);
        }
        CodecMetadata::new(CODEC_NAME, Value::Object(configuration))
    }

    /// Reads the configuration of the codec.
    ///
    /// # Errors
    /// [`Error::Codecs`] if it is not valid.
    pub fn parse(configuration: &Map<String, Value>) -> Result<Self, Error> {
        let number = |value: Option<&Value>, what: &str| {
            let number = value.and_then(Value::as_u64);
            let number = number.and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| invalid(format!("no valid {what:?}")))
        };
        if let Some(other) = configuration
            .keys()
            .find(|name| !["filters", "precision"].contains(&name.as_str()))
        {
            return Err(invalid(format!("{other:?} is not known")));
        }
        let filters = configuration.get("filters").and_then(Value::as_array);
        let filters = filters.ok_or_else(|| invalid("no \"filters\""))?;
        let filters = filters.iter().map(|filter| {
            let parameters = filter.get("parameters").and_then(Value::as_array);
            let parameters = parameters.ok_or_else(|| invalid("a filter without parameters"))?;
            Ok(Filter {
                id: number(filter.get("id"), "id")?,
                parameters: parameters
                    .iter()
                    .map(|value| number(Some(value), "parameter"))
                    .collect::<Result<_, Error>>()?,
            })
        });
        let filters = filters.collect::<Result<Vec<_>, Error>>()?;
        let precision = configuration.get("precision").map(|value| {
            Ok::<_, Error>(Precision {
                size: number(value.get("size"), "size")?,
                bits: number(value.get("bits"), "bits")?,
                offset: number(value.get("offset"), "offset")?,
                is_signed: value.get("signed") == Some(&Value::Bool(true)),
                is_big_endian: value.get("endian").and_then(Value::as_str) == Some("big"),
            })
        });
        Self::new(filters, precision.transpose()?)
    }

    /// The elements of a chunk, in the byte order of the file, from what is stored of it: `decoded`
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it does not decode to exactly as many.
    pub fn decode(&self, stored: &[u8], decoded: usize) -> Result<Vec<u8>, Error> {
        if let Some(own) = stored.strip_prefix(&OWN) {
            let bytes =
                zstd::bulk::decompress(own, decoded).map_err(|error| corrupt(error.to_string()))?;
            return check_length(bytes, decoded);
        }
        self.decode_masked(stored, 0, decoded)
    }

    /// The same for a chunk of a file that some filters were not applied to: those whose bits are set
    /// in `mask`.
    ///
    /// # Errors
    /// As [`Pipeline::decode`].
    pub fn decode_masked(
        &self,
        stored: &[u8],
        mask: u32,
        decoded: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = self.undo_filters(stored, mask, decoded)?;
        // More than its elements is what HDF5 lets a chunk have.
        bytes.truncate(decoded);
        let mut bytes = check_length(bytes, decoded)?;
        if let Some(precision) = &self.precision {
            nbit::extend(&mut bytes, precision);
        }
        Ok(bytes)
    }

    /// What the filters were given, at most `limit` bytes; for filters that need not be told how many.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is more, or not what the filters give.
    pub fn decode_at_most(&self, stored: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
        let bytes = self.undo_filters(stored, 0, limit)?;
        match bytes.len() <= limit {
            true => Ok(bytes),
            false => Err(corrupt(format!("it decodes to more than {limit} bytes"))),
        }
    }

    fn undo_filters(&self, stored: &[u8], mask: u32, decoded: usize) -> Result<Vec<u8>, Error> {
        let limit = limit(decoded);
        let mut bytes = Cow::Borrowed(stored);
        for (nth, filter) in self.filters.iter().enumerate().rev() {
            if mask & (1 << nth) == 0 {
                bytes = undo(filter, bytes, limit, decoded)?;
            }
        }
        Ok(bytes.into_owned())
    }

    /// A chunk of Quarr's own.
    ///
    /// # Errors
    /// [`Error::Encode`] if it cannot be compressed.
    pub fn encode(&self, elements: &[u8]) -> Result<Vec<u8>, Error> {
        let compressed = zstd::bulk::compress(elements, OWN_LEVEL);
        let compressed = compressed.map_err(|error| Error::Encode {
            reason: error.to_string(),
        })?;
        Ok([OWN.as_slice(), &compressed].concat())
    }
}

/// Most bytes of a step: checksums and headers make it a little longer than the elements.
fn limit(decoded: usize) -> usize {
    decoded.saturating_mul(2).saturating_add(SLACK_BYTES)
}

fn undo<'a>(
    filter: &Filter,
    bytes: Cow<'a, [u8]>,
    limit: usize,
    decoded: usize,
) -> Result<Cow<'a, [u8]>, Error> {
    let Some(kind) = Kind::of(filter.id) else {
        return Err(invalid(format!("HDF5 filter {} is not known", filter.id)));
    };
    let parameters = filter.parameters.as_slice();
    let out = match kind {
        Kind::Deflate => inflate::at_most(&bytes, decoded, limit)?,
        Kind::Shuffle => {
            let size = parameters.first().copied().unwrap_or(0) as usize;
            if size <= 1 {
                return Ok(bytes);
            }
            let mut out = vec![0; bytes.len()];
            shuffle::undo(&bytes, &mut out, size);
            out
        }
        Kind::Fletcher32 => return strip_fletcher32(bytes),
        Kind::Szip => szip::decode(&bytes, parameters, limit)?,
        Kind::Nbit => nbit::decode(&bytes, parameters, decoded)?,
        Kind::ScaleOffset => return scale_offset::decode(bytes, parameters, decoded),
        Kind::Lzf => lzf::decode(&bytes, parameters, limit)?,
        Kind::Blosc => decode_blosc(&bytes, limit as u64)?,
        Kind::Zstd => {
            let reader = zstd::stream::read::Decoder::with_buffer(bytes.as_ref());
            let reader = reader.map_err(|error| corrupt(error.to_string()))?;
            read_at_most(reader, limit as u64, decoded)?
        }
    };
    Ok(Cow::Owned(out))
}

fn check_length(bytes: Vec<u8>, expected: usize) -> Result<Vec<u8>, Error> {
    if bytes.len() == expected {
        return Ok(bytes);
    }
    Err(corrupt(format!(
        "it decodes to {} bytes instead of {expected}",
        bytes.len()
    )))
}

fn corrupt(reason: impl Into<String>) -> Error {
    Error::corrupt("chunk", reason)
}

fn invalid(reason: impl std::fmt::Display) -> Error {
    Error::codecs(format!("{CODEC_NAME:?}: {reason}"))
}

#[cfg(test)]
mod tests;
