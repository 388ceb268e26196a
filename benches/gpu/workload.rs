//! Encoded chunks in memory: what a device or the processor starts from.

use array::{ArrayMetadata, CodecMetadata, DataType, Elements, Hash, Layout, RegularGrid};
use codecs::ArrayCodec;
use compute::cf::{CfDecoder, Decode};
use serde_json::{Value, json};

use crate::{Error, Sizes};

/// Chunks whose values are made; the others are copies of their bytes.
const DISTINCT: usize = 32;

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// 32-bit floats as they are.
    Plain,
    /// 32-bit floats, blosc with lz4 and a bit shuffle, which is left to the device.
    BitShuffled,
    /// 16-bit integers of which 12 bits are stored, which is left to the device.
    Packed,
    /// 32-bit floats, shuffled and compressed with zstd 1.
    Zstd,
    /// 16-bit integers with a scale, an offset and missing values, as CF has them.
    Cf,
}

impl Stored {
    pub(crate) const ALL: [Self; 5] = [
        Self::Plain,
        Self::BitShuffled,
        Self::Packed,
        Self::Zstd,
        Self::Cf,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "float32",
            Self::BitShuffled => "float32, bit-shuffled, lz4",
            Self::Packed => "uint16, 12 bits each",
            Self::Zstd => "float32, shuffled, zstd",
            Self::Cf => "int16, packed as CF has it",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Packed => DataType::UInt16,
            Self::Cf => DataType::Int16,
            Self::Plain | Self::BitShuffled | Self::Zstd => DataType::Float32,
        }
    }

    fn codecs(self) -> Vec<CodecMetadata> {
        let codec = |name, configuration: Value| CodecMetadata::new(name, configuration);
        let bytes = codec("bytes", json!({ "endian": "little" }));
        match self {
            Self::Plain | Self::Cf => vec![bytes],
            Self::BitShuffled => {
                let blosc = json!({
                    "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "typesize": 4,
                    "blocksize": 0,
                });
                vec![bytes, codec("blosc", blosc)]
            }
            Self::Packed => {
                let bits = json!({ "first_bit": 0, "last_bit": 11, "padding_encoding": "none" });
                vec![codec("packbits", bits)]
            }
            Self::Zstd => {
                let shuffle = codec("numcodecs.shuffle", json!({ "elementsize": 4 }));
                let zstd = codec("zstd", json!({ "level": 1, "checksum": false }));
                vec![bytes, shuffle, zstd]
            }
        }
    }

    fn decoder(self) -> Result<Option<CfDecoder>, Error> {
        let attributes = match self {
            Self::Cf => json!({ "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768 }),
            _ => json!({}),
        };
        let attributes = attributes.as_object().ok_or("attributes are an object")?;
        Ok(CfDecoder::new(&self.data_type(), attributes, Decode::Cf)?)
    }

    /// Bytes of one element.
    fn element(self, kelvin: f32, random: u64) -> Vec<u8> {
        match self {
            Self::Plain | Self::BitShuffled | Self::Zstd => kelvin.to_le_bytes().to_vec(),
            Self::Packed => ((kelvin * 8.0) as u16 & 0xfff).to_le_bytes().to_vec(),
            Self::Cf if random.is_multiple_of(100) => i16::MIN.to_le_bytes().to_vec(),
            Self::Cf => (((kelvin - 280.0) * 100.0) as i16).to_le_bytes().to_vec(),
        }
    }
}

/// Inner chunks that follow each other in time, encoded.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) stored: Stored,
    pub(crate) data_type: DataType,
    pub(crate) decoder: Option<CfDecoder>,
    pub(crate) codec: ArrayCodec,
    pub(crate) inner_shape: [u64; 3],
    pub(crate) encoded: Vec<Vec<u8>>,
    /// What each is once it is decoded as far as the device does not do it.
    pub(crate) layouts: Vec<Layout>,
}

impl Data {
    /// So many bytes of 32-bit elements, or as many of shorter ones.
    pub(crate) fn new(stored: Stored, sizes: &Sizes) -> Result<Self, Error> {
        let wide = u64::from(stored.data_type() == DataType::Float32);
        Self::of_chunks(
            stored,
            sizes.inner_shape,
            sizes.chunks * (2 - wide as usize),
        )
    }

    /// So many chunks of a shape.
    pub(crate) fn of_chunks(
        stored: Stored,
        inner_shape: [u64; 3],
        chunks: usize,
    ) -> Result<Self, Error> {
        let shape = inner_shape.to_vec();
        let grid = RegularGrid::new(shape.clone(), shape)?;
        let metadata = ArrayMetadata::new(grid, stored.data_type(), stored.codecs());
        let codec = ArrayCodec::new(&metadata)?;
        let count = inner_shape.iter().product::<u64>();
        let mut random = Random(1);
        let (mut encoded, mut layouts): (Vec<Vec<u8>>, Vec<Layout>) = (Vec::new(), Vec::new());
        for number in 0..chunks {
            if number >= DISTINCT {
                // Somewhere else in memory, as chunks that were fetched are.
                encoded.push(encoded[number % DISTINCT].clone());
                layouts.push(layouts[number % DISTINCT]);
                continue;
            }
            let values = (0..count).flat_map(|at| {
                let random = random.next();
                let wave = (at as f32 / 900.0 + number as f32).sin();
                // Steps that floats of 16 bits less have, so that there is something to compress.
                let noise = (random >> 40) as f32 / 16_777_216.0;
                let kelvin = ((280.0 + 20.0 * wave + noise) * 512.0).round() / 512.0;
                stored.element(kelvin, random)
            });
            let bytes = codec.encode_whole(&Elements::Fixed(values.collect()))?;
            let mut scratch = vec![0; codec.decoded_bytes()];
            layouts.push(codec.decode_partly(&bytes, &mut scratch)?);
            encoded.push(bytes);
        }
        Ok(Self {
            stored,
            data_type: stored.data_type(),
            decoder: stored.decoder()?,
            codec,
            inner_shape,
            encoded,
            layouts,
        })
    }

    /// Decoded bytes of an inner chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.codec.decoded_bytes()
    }

    /// Decoded bytes of all of them.
    pub(crate) fn decoded_bytes(&self) -> u64 {
        self.chunk_bytes() as u64 * self.encoded.len() as u64
    }

    /// Encoded bytes of all of them.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        self.encoded.iter().map(|bytes| bytes.len() as u64).sum()
    }

    /// What the device knows a chunk by.
    pub(crate) fn key(&self, number: usize) -> (Hash, Hash) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        (
            Hash::from_bytes(bytes),
            Hash::from_bytes([self.stored as u8; 32]),
        )
    }

    /// Places of a chunk's cells in the array.
    pub(crate) fn places(&self, number: usize) -> Vec<Vec<u64>> {
        let [times, rows, columns] = self.inner_shape;
        let first = number as u64 * times;
        vec![
            (first..first + times).collect(),
            (0..rows).collect(),
            (0..columns).collect(),
        ]
    }

    /// Lengths of the array.
    pub(crate) fn shape(&self) -> [u64; 3] {
        let [times, rows, columns] = self.inner_shape;
        [times * self.encoded.len() as u64, rows, columns]
    }
}

/// Numbers that depend on a seed alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
