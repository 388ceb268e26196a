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

use array::{
    CodecMetadata, DataType, Elements, FillValue, MAX_ELEMENT_BYTES, VariableElements, shape,
};
use serde_json::{Value, json};
use zarrs::array::codec::api::{
    ArrayToArrayCodecTraits, ArrayToBytesCodecTraits, BytesRepresentation, BytesToBytesCodecTraits,
    Codec, CodecOptions,
};
use zarrs::array::{ArrayBytes, ArrayBytesOffsets};
use zarrs::metadata::v3::MetadataV3;

use crate::contexts::{self, Settings};
use crate::hdf5::{self, Pipeline, append_fletcher32, shuffle, strip_fletcher32};
use crate::stages::Packed;
use crate::{Error, inflate};

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
    pub(crate) bytes_to_bytes: Vec<(Compression, BytesRepresentation)>,
    /// What the bytes after the array-to-bytes codec are.
    layout: BytesLayout,
    /// The same as a device sees it; `None` if it cannot go on from there.
    pub(crate) packed: Option<Packed>,
    pub(crate) elements: u64,
    /// Decoded size of a fixed-size data type.
    pub(crate) decoded_bytes: Option<usize>,
    /// What the array-to-bytes codec is given at least, zeros after the end; see [`zfp_bytes`].
    padded_bytes: usize,
}

/// What the array-to-bytes codec gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BytesLayout {
    /// The elements as held in memory.
    Elements,
    /// The same but that numbers of so many bytes are the other way round.
    Swapped(usize),
    Other,
}

/// A bytes-to-bytes codec, with own decoders where `zarrs` would allocate what the data asks for.
#[derive(Debug)]
pub(crate) enum Compression {
    /// With what it compresses by, where that is said.
    Zstd(Arc<dyn BytesToBytesCodecTraits>, Option<Settings>),
    Gzip(Arc<dyn BytesToBytesCodecTraits>),
    Zlib(Arc<dyn BytesToBytesCodecTraits>),
    Blosc(Arc<dyn BytesToBytesCodecTraits>),
    /// By elements of so many bytes.
    Shuffle(usize),
    /// Own, since that of `zarrs` is wrong for an odd number of bytes.
    Fletcher32,
    Hdf5(Pipeline),
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
            if let Some(own) = Compression::own(metadata)? {
                if array_to_bytes.is_none() {
                    return Err(Error::codecs(format!(
                        "{:?} is out of order",
                        metadata.name
                    )));
                }
                compressions.push(own);
                continue;
            }
            match create(metadata)? {
                Codec::ArrayToArray(codec) if array_to_bytes.is_none() => {
                    array_to_array.push(codec);
                }
                Codec::ArrayToBytes(codec) if array_to_bytes.is_none() => {
                    array_to_bytes = Some((codec, metadata));
                }
                Codec::BytesToBytes(codec) if array_to_bytes.is_some() => {
                    compressions.push(Compression::new(metadata, codec));
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
        let layout = match array_to_array.is_empty() {
            true => layout(bytes_metadata, data_type),
            false => BytesLayout::Other,
        };
        let packed = match array_to_array.is_empty() {
            true => Packed::of(bytes_metadata, data_type, layout),
            false => None,
        };
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
                representation = compression.encoded_representation(&decoded);
                bytes_to_bytes.push((compression, decoded));
            }
            Ok(Self {
                representations,
                array_to_array,
                array_to_bytes,
                bytes_to_bytes,
                layout,
                packed,
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
                Elements::Fixed(bytes) if self.layout == BytesLayout::Elements => {
                    Cow::Borrowed(bytes)
                }
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
                bytes = compression.encode(bytes, &options)?;
            }
            Ok(bytes.into_owned())
        })
    }

    /// Decodes one chunk of a fixed-size data type into `out`, which has exactly its size.
    pub(crate) fn decode_into(&self, encoded: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.check_buffer(out)?;
        match self.layout {
            BytesLayout::Elements => return decompress_into(&self.bytes_to_bytes, encoded, out),
            BytesLayout::Swapped(size) => {
                decompress_into(&self.bytes_to_bytes, encoded, out)?;
                swap(out, size);
                return Ok(());
            }
            BytesLayout::Other => {}
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
        let bytes = decompress(&self.bytes_to_bytes, encoded)?;
        if self.layout != BytesLayout::Other {
            check_length(bytes.len(), self.decoded_bytes.unwrap_or(0))?;
            let mut bytes = bytes.into_owned();
            if let BytesLayout::Swapped(size) = self.layout {
                swap(&mut bytes, size);
            }
            return Ok(Elements::Fixed(bytes));
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

    pub(crate) fn check_buffer(&self, out: &[u8]) -> Result<(), Error> {
        if Some(out.len()) == self.decoded_bytes {
            return Ok(());
        }
        Err(Error::Elements {
            reason: format!("the buffer has {} bytes", out.len()),
        })
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

/// Undoes some bytes-to-bytes codecs, the last step straight into `out`.
pub(crate) fn decompress_into(
    codecs: &[(Compression, BytesRepresentation)],
    encoded: &[u8],
    out: &mut [u8],
) -> Result<(), Error> {
    let (first, others) = match codecs.split_first() {
        Some(((first, _), others)) => (Some(first), others),
        None => (None, codecs),
    };
    match first {
        Some(Compression::Zstd(..)) => {
            let bytes = decompress(others, encoded)?;
            let written = zstd::bulk::decompress_to_buffer(&bytes, out)
                .map_err(|error| Error::corrupt("chunk", error.to_string()))?;
            check_length(written, out.len())
        }
        Some(Compression::Zlib(_)) => inflate::into(&decompress(others, encoded)?, out),
        Some(Compression::Shuffle(size)) => {
            let bytes = decompress(others, encoded)?;
            check_length(bytes.len(), out.len())?;
            shuffle::undo(&bytes, out, *size);
            Ok(())
        }
        _ => {
            let bytes = decompress(codecs, encoded)?;
            check_length(bytes.len(), out.len())?;
            out.copy_from_slice(&bytes);
            Ok(())
        }
    }
}

/// Undoes some bytes-to-bytes codecs.
pub(crate) fn decompress<'a>(
    codecs: &[(Compression, BytesRepresentation)],
    encoded: &'a [u8],
) -> Result<Cow<'a, [u8]>, Error> {
    let mut bytes = Cow::Borrowed(encoded);
    for (compression, decoded) in codecs.iter().rev() {
        bytes = compression.decode(bytes, decoded)?;
    }
    Ok(bytes)
}

impl Compression {
    /// A codec that `zarrs` does not have, or has otherwise.
    fn own(metadata: &CodecMetadata) -> Result<Option<Self>, Error> {
        Ok(Some(match metadata.name.as_str() {
            "shuffle" | "numcodecs.shuffle" => {
                let size = metadata.configuration.get("elementsize");
                // The default of numcodecs.
                let size = size.map_or(Some(4), Value::as_u64);
                let size = size.filter(|size| (1..=MAX_ELEMENT_BYTES.into()).contains(size));
                let size = size.ok_or_else(|| {
                    Error::codecs(format!("{:?}: no valid \"elementsize\"", metadata.name))
                })?;
                Self::Shuffle(size as usize)
            }
            "fletcher32" | "numcodecs.fletcher32" => Self::Fletcher32,
            hdf5::CODEC_NAME => Self::Hdf5(Pipeline::parse(&metadata.configuration)?),
            _ => return Ok(None),
        }))
    }

    fn encoded_representation(&self, decoded: &BytesRepresentation) -> BytesRepresentation {
        match (self, decoded) {
            (Self::Shuffle(_), _) => *decoded,
            (Self::Fletcher32, BytesRepresentation::FixedSize(size)) => {
                BytesRepresentation::FixedSize(size.saturating_add(4))
            }
            (Self::Fletcher32, BytesRepresentation::BoundedSize(size)) => {
                BytesRepresentation::BoundedSize(size.saturating_add(4))
            }
            (Self::Fletcher32 | Self::Hdf5(_), _) => BytesRepresentation::UnboundedSize,
            (
                Self::Zstd(codec, _)
                | Self::Gzip(codec)
                | Self::Zlib(codec)
                | Self::Blosc(codec)
                | Self::Other(codec),
                _,
            ) => codec.encoded_representation(decoded),
        }
    }

    fn encode<'a>(
        &self,
        bytes: Cow<'a, [u8]>,
        options: &CodecOptions,
    ) -> Result<Cow<'a, [u8]>, Error> {
        match self {
            Self::Shuffle(size) => {
                check_multiple(&bytes, *size)?;
                Ok(Cow::Owned(shuffle::apply(&bytes, *size)))
            }
            Self::Fletcher32 => Ok(Cow::Owned(append_fletcher32(bytes))),
            Self::Hdf5(pipeline) => Ok(Cow::Owned(pipeline.encode(&bytes)?)),
            Self::Zstd(_, Some(settings)) => {
                let encoded = contexts::compress(*settings, &bytes);
                encoded.map(Cow::Owned).map_err(|error| Error::Encode {
                    reason: error.to_string(),
                })
            }
            Self::Zstd(codec, None)
            | Self::Gzip(codec)
            | Self::Zlib(codec)
            | Self::Blosc(codec)
            | Self::Other(codec) => {
                let failed = |reason: String| Error::Encode { reason };
                let encoded = codec.encode(bytes, options);
                encoded.map_err(|error| failed(error.to_string()))
            }
        }
    }

    fn new(metadata: &CodecMetadata, codec: Arc<dyn BytesToBytesCodecTraits>) -> Self {
        match metadata.name.as_str() {
            "zstd" | "numcodecs.zstd" => Self::Zstd(codec, zstd_settings(metadata)),
            "gzip" | "numcodecs.gzip" => Self::Gzip(codec),
            "zlib" | "numcodecs.zlib" => Self::Zlib(codec),
            "blosc" | "numcodecs.blosc" => Self::Blosc(codec),
            _ => Self::Other(codec),
        }
    }

    pub(crate) fn decode<'a>(
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
            Self::Zstd(..) => {
                let reader = zstd::stream::read::Decoder::with_buffer(encoded.as_ref())
                    .map_err(|error| corrupt(error.to_string()))?;
                read_at_most(reader, limit, 0).map(Cow::Owned)
            }
            Self::Gzip(_) => read_at_most(
                flate2::bufread::MultiGzDecoder::new(encoded.as_ref()),
                limit,
                0,
            )
            .map(Cow::Owned),
            Self::Zlib(_) => match decoded {
                BytesRepresentation::FixedSize(size) if *size <= limit => {
                    let mut out = vec![0; *size as usize];
                    inflate::into(&encoded, &mut out)?;
                    Ok(Cow::Owned(out))
                }
                _ => {
                    let expected = encoded.len().saturating_mul(4);
                    inflate::at_most(&encoded, expected, limit as usize).map(Cow::Owned)
                }
            },
            Self::Shuffle(size) => {
                check_multiple(&encoded, *size)?;
                let mut out = vec![0; encoded.len()];
                shuffle::undo(&encoded, &mut out, *size);
                Ok(Cow::Owned(out))
            }
            Self::Fletcher32 => strip_fletcher32(encoded),
            Self::Hdf5(pipeline) => {
                let size = decoded.size().and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| {
                    Error::codecs(format!(
                        "{:?} of elements of no fixed size",
                        hdf5::CODEC_NAME
                    ))
                })?;
                pipeline.decode(&encoded, size).map(Cow::Owned)
            }
            Self::Blosc(codec) | Self::Other(codec) => {
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
                    codec
                        .decode(encoded, decoded, &options)
                        .map_err(|error| corrupt(error.to_string()))
                })
            }
        }
    }
}

/// What Blosc was given, at most `limit` bytes: the header tells all that decoding takes.
pub(crate) fn decode_blosc(encoded: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
    // About encoding; something has to be said.
    let configuration = serde_json::json!({
        "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 1, "blocksize": 0,
    });
    let metadata = CodecMetadata::new("blosc", configuration);
    let Codec::BytesToBytes(codec) = create(&metadata)? else {
        return Err(Error::codecs("\"blosc\" is not a compressor"));
    };
    let codec = Compression::Blosc(codec);
    let bound = BytesRepresentation::BoundedSize(limit);
    Ok(codec.decode(Cow::Borrowed(encoded), &bound)?.into_owned())
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

/// What zstd frames are compressed with; `None` if the configuration does not say.
fn zstd_settings(metadata: &CodecMetadata) -> Option<Settings> {
    let level = metadata.configuration.get("level")?.as_i64()?;
    let checksum = metadata.configuration.get("checksum");
    Some(Settings {
        level: i32::try_from(level).ok()?,
        has_checksum: checksum.is_some_and(|checksum| *checksum == Value::Bool(true)),
    })
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

fn layout(bytes_codec: &CodecMetadata, data_type: &DataType) -> BytesLayout {
    if bytes_codec.name != "bytes" {
        return BytesLayout::Other;
    }
    let single_bytes = match data_type {
        DataType::RawBits { .. }
        | DataType::RawBytes { .. }
        | DataType::NullTerminatedBytes { .. } => true,
        other => other.size_bytes() == Some(1),
    };
    if single_bytes || endian(bytes_codec) == Some("little") {
        return BytesLayout::Elements;
    }
    match (data_type, data_type.size_bytes()) {
        (_, _) if endian(bytes_codec) != Some("big") => BytesLayout::Other,
        (DataType::FixedLengthUtf32 { .. }, _) => BytesLayout::Other,
        (DataType::Complex64, _) => BytesLayout::Swapped(4),
        (DataType::Complex128, _) => BytesLayout::Swapped(8),
        (_, Some(size @ (2 | 4 | 8))) => BytesLayout::Swapped(size),
        _ => BytesLayout::Other,
    }
}

/// Turns numbers of `size` bytes the other way round.
fn swap(bytes: &mut [u8], size: usize) {
    fn each<const SIZE: usize>(bytes: &mut [u8]) {
        let (numbers, _) = bytes.as_chunks_mut::<SIZE>();
        numbers.iter_mut().for_each(|number| number.reverse());
    }
    match size {
        2 => each::<2>(bytes),
        4 => each::<4>(bytes),
        8 => each::<8>(bytes),
        _ => bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse),
    }
}

fn check_multiple(bytes: &[u8], size: usize) -> Result<(), Error> {
    if bytes.len().is_multiple_of(size) {
        return Ok(());
    }
    Err(Error::corrupt(
        "chunk",
        format!("{} bytes are no whole elements of {size}", bytes.len()),
    ))
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

/// All that `reader` gives, at most `limit` bytes and likely `expected`.
pub(crate) fn read_at_most(
    reader: impl Read,
    limit: u64,
    expected: usize,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(expected);
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

pub(crate) fn check_length(found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::corrupt(
        "chunk",
        format!("it decodes to {found} bytes instead of {expected}"),
    ))
}
