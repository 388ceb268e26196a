//! One chain of codecs over one chunk shape, on top of `zarrs`.
//!
//! What this adds to `zarrs`: every decoded size is bounded before memory is taken, a panic in a
//! codec is an error, and the common chain (little-endian bytes, then compression) decodes straight
//! into the caller's buffer.

use std::borrow::Cow;
use std::io::Read;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use array::{CodecMetadata, DataType, Elements, FillValue, VariableElements, shape};
use serde_json::{Value, json};
use zarrs::array::codec::api::{
    ArrayToArrayCodecTraits, ArrayToBytesCodecTraits, BytesRepresentation, BytesToBytesCodecTraits,
    Codec, CodecOptions,
};
use zarrs::array::{ArrayBytes, ArrayBytesOffsets};
use zarrs::metadata::v3::MetadataV3;

use crate::Error;

/// Most bytes one decoded chunk may take.
pub const MAX_CHUNK_BYTES: u64 = 1 << 31;

type Representation = (
    Vec<NonZeroU64>,
    zarrs::array::DataType,
    zarrs::array::FillValue,
);

/// Codecs from the elements of one chunk to its bytes.
#[derive(Debug)]
pub(crate) struct Chain {
    /// What goes into each array-to-array codec, and last what goes into the array-to-bytes codec.
    representations: Vec<Representation>,
    array_to_array: Vec<Arc<dyn ArrayToArrayCodecTraits>>,
    array_to_bytes: Arc<dyn ArrayToBytesCodecTraits>,
    /// Each with the representation of what it decodes to.
    bytes_to_bytes: Vec<(Compression, BytesRepresentation)>,
    /// Bytes after the array-to-bytes codec are the elements as held in memory.
    bytes_are_elements: bool,
    elements: u64,
    /// Decoded size of a fixed-size data type.
    decoded_bytes: Option<usize>,
    /// What the array-to-bytes codec is given at least, zeros after the end; see [`zfp_bytes`].
    padded_bytes: usize,
}

/// A bytes-to-bytes codec, with own decoders where `zarrs` would allocate what the data asks for.
#[derive(Debug)]
enum Compression {
    Zstd(Arc<dyn BytesToBytesCodecTraits>),
    Gzip(Arc<dyn BytesToBytesCodecTraits>),
    Zlib(Arc<dyn BytesToBytesCodecTraits>),
    Blosc(Arc<dyn BytesToBytesCodecTraits>),
    Other(Arc<dyn BytesToBytesCodecTraits>),
}

impl Chain {
    pub(crate) fn new(
        codecs: &[CodecMetadata],
        chunk_shape: &[u64],
        data_type: &DataType,
        fill_value: &FillValue,
    ) -> Result<Self, Error> {
        let elements = shape::elements(chunk_shape)?;
        let element_bytes = data_type.size_bytes().unwrap_or(16) as u64;
        if elements
            .checked_mul(element_bytes)
            .is_none_or(|bytes| bytes > MAX_CHUNK_BYTES)
        {
            return Err(array::Error::TooLarge {
                what: "chunk (over 2 GiB)",
            }
            .into());
        }
        let nonzero: Option<Vec<NonZeroU64>> =
            chunk_shape.iter().map(|&l| NonZeroU64::new(l)).collect();
        let nonzero =
            nonzero.ok_or_else(|| array::Error::invalid("chunk shape", "a zero length"))?;
        let mut array_to_array = Vec::new();
        let mut array_to_bytes = None;
        let mut compressions = Vec::new();
        for metadata in codecs {
            match create(metadata)? {
                Codec::ArrayToArray(codec) if array_to_bytes.is_none() => {
                    array_to_array.push(codec);
                }
                Codec::ArrayToBytes(codec) if array_to_bytes.is_none() => {
                    array_to_bytes = Some((codec, metadata));
                }
                Codec::BytesToBytes(codec) if array_to_bytes.is_some() => {
                    compressions.push(Compression::new(&metadata.name, codec));
                }
                _ => {
                    return Err(Error::codecs(format!(
                        "{:?} is out of order",
                        metadata.name
                    )));
                }
            }
        }
        let Some((array_to_bytes, bytes_metadata)) = array_to_bytes else {
            return Err(Error::codecs("none turns the array into bytes"));
        };
        check_endian(bytes_metadata, data_type)?;
        let padded_bytes = match bytes_metadata.name.as_str() {
            "zfp" => zfp_bytes(bytes_metadata, chunk_shape)?,
            _ => 0,
        };
        let bytes_are_elements =
            array_to_array.is_empty() && is_in_memory_order(bytes_metadata, data_type);
        guarded("codecs", || {
            let zarrs_type = zarrs_data_type(data_type)?;
            let fill = zarrs::array::FillValue::new(fill_value.as_bytes().to_vec());
            let mut representations = vec![(nonzero, zarrs_type, fill)];
            for codec in &array_to_array {
                let (shape, data_type, fill) = &representations[representations.len() - 1];
                let next = codec
                    .encoded_representation(shape, data_type, fill)
                    .map_err(|error| Error::codecs(error.to_string()))?;
                representations.push(next);
            }
            let (shape, zarrs_type, fill) = &representations[representations.len() - 1];
            let mut representation = array_to_bytes
                .encoded_representation(shape, zarrs_type, fill)
                .map_err(|error| Error::codecs(error.to_string()))?;
            let mut bytes_to_bytes = Vec::new();
            for compression in compressions {
                let decoded = representation;
                representation = compression.codec().encoded_representation(&decoded);
                bytes_to_bytes.push((compression, decoded));
            }
            Ok(Self {
                representations,
                array_to_array,
                array_to_bytes,
                bytes_to_bytes,
                bytes_are_elements,
                elements,
                decoded_bytes: data_type.size_bytes().map(|size| size * elements as usize),
                padded_bytes,
            })
        })
    }

    /// Encodes the elements of one chunk, in C order.
    pub(crate) fn encode(&self, elements: &Elements) -> Result<Vec<u8>, Error> {
        self.check_elements(elements)?;
        let encode_error = |reason: String| Error::Encode { reason };
        guarded("encode", || {
            let options = CodecOptions::default().with_concurrent_target(1);
            let mut bytes: Cow<'_, [u8]> = match elements {
                Elements::Fixed(bytes) if self.bytes_are_elements => Cow::Borrowed(bytes),
                _ => {
                    let mut array = to_zarrs(elements)?;
                    for (codec, (shape, data_type, fill)) in
                        self.array_to_array.iter().zip(&self.representations)
                    {
                        array = codec
                            .encode(array, shape, data_type, fill, &options)
                            .map_err(|error| encode_error(error.to_string()))?;
                    }
                    let (shape, data_type, fill) = &self.representations[self.array_to_array.len()];
                    self.array_to_bytes
                        .encode(array, shape, data_type, fill, &options)
                        .map_err(|error| encode_error(error.to_string()))?
                }
            };
            for (compression, _) in &self.bytes_to_bytes {
                bytes = compression
                    .codec()
                    .encode(bytes, &options)
                    .map_err(|error| encode_error(error.to_string()))?;
            }
            Ok(bytes.into_owned())
        })
    }

    /// Decodes one chunk of a fixed-size data type into `out`, which has exactly its size.
    pub(crate) fn decode_into(&self, encoded: &[u8], out: &mut [u8]) -> Result<(), Error> {
        if Some(out.len()) != self.decoded_bytes {
            return Err(Error::Elements {
                reason: format!("the buffer has {} bytes", out.len()),
            });
        }
        if self.bytes_are_elements {
            if let [(Compression::Zstd(_), _)] = self.bytes_to_bytes.as_slice() {
                let written = zstd::bulk::decompress_to_buffer(encoded, out)
                    .map_err(|error| Error::corrupt("chunk", error.to_string()))?;
                return check_length(written, out.len());
            }
            let bytes = self.decompress(encoded)?;
            check_length(bytes.len(), out.len())?;
            out.copy_from_slice(&bytes);
            return Ok(());
        }
        match self.decode(encoded)? {
            Elements::Fixed(bytes) => {
                check_length(bytes.len(), out.len())?;
                out.copy_from_slice(&bytes);
                Ok(())
            }
            Elements::Variable(_) => Err(Error::corrupt("chunk", "variable-length elements")),
        }
    }

    /// Decodes one chunk.
    pub(crate) fn decode(&self, encoded: &[u8]) -> Result<Elements, Error> {
        let bytes = self.decompress(encoded)?;
        if self.bytes_are_elements {
            check_length(bytes.len(), self.decoded_bytes.unwrap_or(0))?;
            return Ok(Elements::Fixed(bytes.into_owned()));
        }
        let bytes = if bytes.len() < self.padded_bytes {
            let mut padded = bytes.into_owned();
            padded.resize(self.padded_bytes, 0);
            Cow::Owned(padded)
        } else {
            bytes
        };
        let corrupt = |reason: String| Error::corrupt("chunk", reason);
        let elements = guarded("decode", || {
            let options = CodecOptions::default().with_concurrent_target(1);
            let (shape, data_type, fill) = &self.representations[self.array_to_array.len()];
            let mut array = self
                .array_to_bytes
                .decode(bytes, shape, data_type, fill, &options)
                .map_err(|error| corrupt(error.to_string()))?;
            for (codec, (shape, data_type, fill)) in
                self.array_to_array.iter().zip(&self.representations).rev()
            {
                array = codec
                    .decode(array, shape, data_type, fill, &options)
                    .map_err(|error| corrupt(error.to_string()))?;
            }
            from_zarrs(array)
        })?;
        self.check_elements(&elements)
            .map_err(|error| corrupt(error.to_string()))?;
        Ok(elements)
    }

    fn decompress<'a>(&self, encoded: &'a [u8]) -> Result<Cow<'a, [u8]>, Error> {
        let mut bytes = Cow::Borrowed(encoded);
        for (compression, decoded) in self.bytes_to_bytes.iter().rev() {
            bytes = compression.decode(bytes, decoded)?;
        }
        Ok(bytes)
    }

    fn check_elements(&self, elements: &Elements) -> Result<(), Error> {
        let fits = match (elements, self.decoded_bytes) {
            (Elements::Fixed(bytes), Some(expected)) => bytes.len() == expected,
            (Elements::Variable(elements), None) => elements.len() as u64 == self.elements,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        Err(Error::Elements {
            reason: format!("expected {} elements", self.elements),
        })
    }
}

impl Compression {
    fn new(name: &str, codec: Arc<dyn BytesToBytesCodecTraits>) -> Self {
        match name {
            "zstd" | "numcodecs.zstd" => Self::Zstd(codec),
            "gzip" | "numcodecs.gzip" => Self::Gzip(codec),
            "zlib" | "numcodecs.zlib" => Self::Zlib(codec),
            "blosc" | "numcodecs.blosc" => Self::Blosc(codec),
            _ => Self::Other(codec),
        }
    }

    fn codec(&self) -> &Arc<dyn BytesToBytesCodecTraits> {
        match self {
            Self::Zstd(codec)
            | Self::Gzip(codec)
            | Self::Zlib(codec)
            | Self::Blosc(codec)
            | Self::Other(codec) => codec,
        }
    }

    fn decode<'a>(
        &self,
        encoded: Cow<'a, [u8]>,
        decoded: &BytesRepresentation,
    ) -> Result<Cow<'a, [u8]>, Error> {
        let corrupt = |reason: String| Error::corrupt("chunk", reason);
        let limit = decoded
            .size()
            .unwrap_or(MAX_CHUNK_BYTES)
            .min(2 * MAX_CHUNK_BYTES);
        match self {
            Self::Zstd(_) => {
                let reader = zstd::stream::read::Decoder::with_buffer(encoded.as_ref())
                    .map_err(|error| corrupt(error.to_string()))?;
                read_at_most(reader, limit).map(Cow::Owned)
            }
            Self::Gzip(_) => read_at_most(
                flate2::bufread::MultiGzDecoder::new(encoded.as_ref()),
                limit,
            )
            .map(Cow::Owned),
            Self::Zlib(_) => {
                read_at_most(flate2::bufread::ZlibDecoder::new(encoded.as_ref()), limit)
                    .map(Cow::Owned)
            }
            Self::Blosc(_) | Self::Other(_) => {
                if let (Self::Blosc(_), Some(size)) = (self, encoded.get(4..8)) {
                    // Blosc header: the decoded size, little-endian, at byte 4.
                    let size = size
                        .iter()
                        .rev()
                        .fold(0, |size, &byte| size << 8 | u64::from(byte));
                    if size > limit {
                        return Err(corrupt(format!(
                            "it claims {size} decoded bytes, the most is {limit}"
                        )));
                    }
                }
                guarded("decode", || {
                    let options = CodecOptions::default().with_concurrent_target(1);
                    self.codec()
                        .decode(encoded, decoded, &options)
                        .map_err(|error| corrupt(error.to_string()))
                })
            }
        }
    }
}

fn create(metadata: &CodecMetadata) -> Result<Codec, Error> {
    let named = |error: String| Error::codecs(format!("{:?}: {error}", metadata.name));
    let is_zfp = metadata.name == "zfp";
    if metadata.name.contains("zfp") && !is_zfp || metadata.configuration.values().any(names_zfp) {
        // Inside `zarrs` nothing keeps the C library from reading, or with a header in the bytes
        // even writing, out of bounds.
        return Err(named("zfp is supported only by itself".to_owned()));
    }
    let zarrs_metadata: MetadataV3 =
        serde_json::from_value(metadata.to_json()).map_err(|error| named(error.to_string()))?;
    guarded("codecs", || {
        Codec::from_metadata(&zarrs_metadata).map_err(|error| named(error.to_string()))
    })
}

/// Whether a codec inside a codec's configuration is of the zfp family.
fn names_zfp(value: &Value) -> bool {
    match value {
        Value::String(name) => name.contains("zfp"),
        Value::Array(items) => items.iter().any(names_zfp),
        Value::Object(members) => members.values().any(names_zfp),
        _ => false,
    }
}

/// Most bytes the zfp decoder reads for a chunk, whatever they hold.
///
/// It does not know where its input ends. Of a block of 4^d values it reads at most 64 bit planes
/// of 4^d + 1 bits, 2 * 4^d group tests and a short header, and skips to the block's least size:
/// within 128 bits a value and 32 bytes, if the configured least size is.
///
/// Source: zfp 1.0, `decode_few_ints` and `decode_block` in `src/template`.
fn zfp_bytes(zfp: &CodecMetadata, chunk_shape: &[u64]) -> Result<usize, Error> {
    const BITS_PER_VALUE: u64 = 128;
    let too_large = || Error::codecs("\"zfp\": the chunk or its blocks are too large");
    if chunk_shape.len() > 4 {
        return Err(Error::codecs("\"zfp\": over 4 dimensions"));
    }
    let values = 4u64.pow(chunk_shape.len() as u32);
    let setting = |name: &str| zfp.configuration.get(name).and_then(Value::as_f64);
    let least_bits = setting("minbits").unwrap_or(0.0);
    let rate = setting("rate").unwrap_or(0.0);
    if rate > BITS_PER_VALUE as f64 || least_bits > (BITS_PER_VALUE * values) as f64 {
        return Err(too_large());
    }
    let blocks: Vec<u64> = chunk_shape
        .iter()
        .map(|length| length.div_ceil(4))
        .collect();
    shape::elements(&blocks)?
        .checked_mul(values * BITS_PER_VALUE / 8 + 32)
        .filter(|&bytes| bytes <= MAX_CHUNK_BYTES)
        .map(|bytes| bytes as usize)
        .ok_or_else(too_large)
}

/// Runs `zarrs` code, which may panic on hostile metadata or bytes.
fn guarded<T>(what: &'static str, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(match what {
            "encode" => Error::Encode {
                reason: "the codec panicked".to_owned(),
            },
            "decode" => Error::corrupt("chunk", "the codec panicked on it"),
            _ => Error::codecs("a codec panicked on its configuration"),
        })
    })
}

/// The `zarrs` data type that moves the same bytes.
///
/// Datetimes and durations are their 64-bit integers; opaque fixed-size types are raw bits.
fn zarrs_data_type(data_type: &DataType) -> Result<zarrs::array::DataType, Error> {
    let name = match data_type {
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => json!("int64"),
        DataType::RawBits { length_bytes }
        | DataType::RawBytes { length_bytes }
        | DataType::NullTerminatedBytes { length_bytes }
        | DataType::FixedLengthUtf32 { length_bytes } => {
            json!(format!("r{}", u64::from(*length_bytes) * 8))
        }
        DataType::VariableLengthBytes => json!("bytes"),
        other => other.to_json(),
    };
    let failed = |error: String| Error::codecs(format!("{data_type}: {error}"));
    let metadata: MetadataV3 =
        serde_json::from_value(name).map_err(|error| failed(error.to_string()))?;
    zarrs::array::DataType::from_metadata(&metadata).map_err(|error| failed(error.to_string()))
}

fn endian(bytes_codec: &CodecMetadata) -> Option<&str> {
    bytes_codec
        .configuration
        .get("endian")
        .and_then(Value::as_str)
}

/// Text in UTF-32 is raw bytes to `zarrs`, which would not swap them.
fn check_endian(bytes_codec: &CodecMetadata, data_type: &DataType) -> Result<(), Error> {
    let swapped = bytes_codec.name == "bytes" && endian(bytes_codec) == Some("big");
    if swapped && matches!(data_type, DataType::FixedLengthUtf32 { .. }) {
        return Err(Error::codecs(format!(
            "big-endian {data_type} is not supported"
        )));
    }
    Ok(())
}

fn is_in_memory_order(bytes_codec: &CodecMetadata, data_type: &DataType) -> bool {
    let single_bytes = match data_type {
        DataType::RawBits { .. }
        | DataType::RawBytes { .. }
        | DataType::NullTerminatedBytes { .. } => true,
        other => other.size_bytes() == Some(1),
    };
    bytes_codec.name == "bytes" && (single_bytes || endian(bytes_codec) == Some("little"))
}

fn to_zarrs(elements: &Elements) -> Result<ArrayBytes<'_>, Error> {
    match elements {
        Elements::Fixed(bytes) => Ok(ArrayBytes::new_flen(bytes.as_slice())),
        Elements::Variable(elements) => {
            let failed = |reason: String| Error::Elements { reason };
            let offsets = ArrayBytesOffsets::new(elements.offsets())
                .map_err(|error| failed(error.to_string()))?;
            ArrayBytes::new_vlen(elements.bytes(), offsets)
                .map_err(|error| failed(error.to_string()))
        }
    }
}

fn from_zarrs(array: ArrayBytes<'_>) -> Result<Elements, Error> {
    match array {
        ArrayBytes::Fixed(bytes) => Ok(Elements::Fixed(bytes.into_owned())),
        ArrayBytes::Variable(variable) => {
            let (bytes, offsets) = variable.into_parts();
            Ok(Elements::Variable(VariableElements::new(
                offsets.to_vec(),
                bytes.into_owned(),
            )?))
        }
        ArrayBytes::Optional(_) => Err(Error::corrupt("chunk", "optional elements")),
    }
}

fn read_at_most(reader: impl Read, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::corrupt("chunk", error.to_string()))?;
    if read as u64 > limit {
        return Err(Error::corrupt(
            "chunk",
            format!("it decodes to more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

fn check_length(found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::corrupt(
        "chunk",
        format!("it decodes to {found} bytes instead of {expected}"),
    ))
}
