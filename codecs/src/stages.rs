//! Decoding a chunk in stages: as far as it must be done on the CPU, and what a device does after that.
//!
//! ```text
//!             ┌ decode_partly: everything but what is undone last ─────────┐
//! encoded ────┤                                                            ├─► bytes in a Layout
//!             └ compression: where the streams are ─► a device, elsewhere ─┘
//! ```
//!
//! Only what a gather can do is left: a shuffle, packed bits, byte order. Whatever else a chain has is
//! decoded fully, by the same code as ever.

use array::{Bits, CodecMetadata, DataType, Layout, Packing};
use serde_json::Value;

use crate::Error;
use crate::blosc::Frame;
use crate::chain::{BytesLayout, Chain, Compression, check_length, decompress, decompress_into};
use crate::compressed::{Compressed, Format, Step, shuffled};

/// What the array-to-bytes codec gives, as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    layout: Layout,
    padding: Padding,
}

/// Where `packbits` writes how many bits of its last byte mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Unsaid,
    FirstByte,
    LastByte,
}

impl Packed {
    /// `None` if elements are not numbers of one part, or neither in bytes nor in bits.
    pub(crate) fn of(
        metadata: &CodecMetadata,
        data_type: &DataType,
        layout: BytesLayout,
    ) -> Option<Self> {
        let is_signed = is_signed(data_type)?;
        let element_bytes = data_type.size_bytes()?;
        let plain = |is_big_endian| Self {
            layout: Layout {
                packing: Packing::Plain,
                is_big_endian,
            },
            padding: Padding::Unsaid,
        };
        match layout {
            BytesLayout::Elements => Some(plain(false)),
            BytesLayout::Swapped(size) => (size == element_bytes).then(|| plain(true)),
            BytesLayout::Other if metadata.name == "packbits" => {
                let bits = match data_type {
                    DataType::Bool => 1,
                    _ => 8 * element_bytes as u64,
                };
                let setting = |name: &str, default: u64| match metadata.configuration.get(name) {
                    None | Some(Value::Null) => Some(default),
                    Some(value) => value.as_u64(),
                };
                let (first, last) = (setting("first_bit", 0)?, setting("last_bit", bits - 1)?);
                if first > last || last >= bits {
                    return None;
                }
                if (first, last, bits % 8) == (0, bits - 1, 0) {
                    // Elements in bytes after all: `packbits` adds nothing to them.
                    return Some(plain(false));
                }
                let padding = metadata.configuration.get("padding_encoding");
                let padding = match padding.and_then(Value::as_str) {
                    Some("first_byte") => Padding::FirstByte,
                    Some("last_byte") => Padding::LastByte,
                    _ => Padding::Unsaid,
                };
                // The sign is only copied to the end of the byte it is in.
                let end = last as u32 + 1;
                let filled_bits = match is_signed {
                    true => end.next_multiple_of(8),
                    false => end,
                };
                let bits = Bits {
                    width_bits: end - first as u32,
                    offset_bits: first as u32,
                    filled_bits,
                    is_highest_first: false,
                };
                bits.is_valid(element_bytes).then_some(Self {
                    layout: Layout {
                        packing: Packing::Bits(bits),
                        is_big_endian: false,
                    },
                    padding,
                })
            }
            BytesLayout::Other => None,
        }
    }

    /// What `packbits` gave, without its padding byte.
    fn strip<'a>(&self, bytes: &'a [u8], bits: &Bits, elements: usize) -> Result<&'a [u8], Error> {
        let corrupt = |reason: &str| Error::corrupt("chunk", reason);
        let missing = || corrupt("it is too short for its padding");
        let (padding, bytes) = match self.padding {
            Padding::Unsaid => (None, bytes),
            Padding::FirstByte => bytes.split_first().ok_or_else(missing).map(both)?,
            Padding::LastByte => bytes.split_last().ok_or_else(missing).map(both)?,
        };
        check_length(bytes.len(), bits.length_bytes(elements))?;
        let unused = 8 * bytes.len() - elements * bits.width_bits as usize;
        if padding.is_some_and(|padding| usize::from(padding) != unused) {
            return Err(corrupt("its padding is wrong"));
        }
        Ok(bytes)
    }
}

fn both<'a>((padding, bytes): (&u8, &'a [u8])) -> (Option<u8>, &'a [u8]) {
    (Some(*padding), bytes)
}

/// Whether numbers of a type are negative where their highest bit is set; `None` if elements are no
/// numbers, or of two parts.
fn is_signed(data_type: &DataType) -> Option<bool> {
    use DataType as T;
    match data_type {
        T::Int8 | T::Int16 | T::Int32 | T::Int64 => Some(true),
        T::DateTime64 { .. } | T::TimeDelta64 { .. } => Some(true),
        T::Bool | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => Some(false),
        T::Float16 | T::BFloat16 | T::Float32 | T::Float64 => Some(false),
        T::Complex64 | T::Complex128 => None,
        T::RawBits { .. } | T::RawBytes { .. } | T::NullTerminatedBytes { .. } => None,
        T::FixedLengthUtf32 { .. } | T::String | T::VariableLengthBytes => None,
    }
}

impl Chain {
    /// Decodes one chunk into `out`, which has its decoded size, as far as the layout says.
    pub(crate) fn decode_partly(&self, encoded: &[u8], out: &mut [u8]) -> Result<Layout, Error> {
        self.check_buffer(out)?;
        let Some(packed) = &self.packed else {
            self.decode_into(encoded, out)?;
            return Ok(Layout::ELEMENTS);
        };
        let layout = packed.layout;
        if let Packing::Bits(bits) = &layout.packing {
            let bytes = decompress(&self.bytes_to_bytes, encoded)?;
            let bytes = packed.strip(&bytes, bits, self.elements as usize)?;
            out[..bytes.len()].copy_from_slice(bytes);
            return Ok(layout);
        }
        let element_bytes = out.len() / self.elements.max(1) as usize;
        match self.bytes_to_bytes.split_first() {
            Some(((Compression::Shuffle(unit_bytes), _), others)) => {
                decompress_into(others, encoded, out)?;
                Ok(Layout {
                    packing: shuffled(*unit_bytes, out.len()),
                    ..layout
                })
            }
            Some(((first @ Compression::Blosc(_), decoded), others)) => {
                let bytes = decompress(others, encoded)?;
                let Some(frame) = Frame::parse(&bytes, out.len()) else {
                    let bytes = first.decode(bytes, decoded)?;
                    check_length(bytes.len(), out.len())?;
                    out.copy_from_slice(&bytes);
                    return Ok(layout);
                };
                if frame.decompress(&bytes, out).is_err() {
                    // The library that decodes it elsewhere has the last word.
                    let bytes = first.decode(bytes, decoded)?;
                    check_length(bytes.len(), out.len())?;
                    out.copy_from_slice(&bytes);
                    return Ok(layout);
                }
                Ok(Layout {
                    packing: frame.packing,
                    ..layout
                })
            }
            Some(((Compression::Hdf5(pipeline), _), others)) => {
                let bytes = decompress(others, encoded)?;
                pipeline.decode_partly(&bytes, element_bytes, layout.is_big_endian, out)
            }
            _ => {
                decompress_into(&self.bytes_to_bytes, encoded, out)?;
                Ok(layout)
            }
        }
    }

    /// Where the compressed streams of a chunk are.
    pub(crate) fn compression(&self, encoded: &[u8]) -> Option<Compressed> {
        let packed = self.packed.as_ref()?;
        let decoded_bytes = self.decoded_bytes?;
        let element_bytes = decoded_bytes / self.elements.max(1) as usize;
        let stored_bytes = packed.layout.length_bytes(decoded_bytes, element_bytes);
        if packed.padding != Padding::Unsaid {
            // Nobody would check it.
            return None;
        }
        if let [(Compression::Hdf5(pipeline), _)] = self.bytes_to_bytes.as_slice() {
            return pipeline.compression(encoded, stored_bytes, packed.layout);
        }
        let codecs = self.bytes_to_bytes.iter();
        let steps: Vec<Step> = codecs.map(|(codec, _)| codec.step()).collect();
        Compressed::find(&steps, encoded, stored_bytes, packed.layout)
    }
}

impl Compression {
    fn step(&self) -> Step {
        match self {
            Self::Zstd(..) => Step::Compress(Format::Zstd),
            Self::Gzip(_) => Step::Compress(Format::Gzip),
            Self::Zlib(_) => Step::Compress(Format::Zlib),
            Self::Blosc(_) => Step::Compress(Format::Blosc),
            Self::Shuffle(unit_bytes) => Step::Shuffle(*unit_bytes),
            Self::Fletcher32 => Step::Fletcher32,
            Self::Hdf5(_) | Self::Other(_) => Step::Other,
        }
    }
}
