//! Arrays of every data type and codec, with the values they must have.
//!
//! Chunks are cut here by the definition of a chunk grid, element by element, so the copying code
//! under test is not used to make what it is tested on.

use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, DataType, Elements, FillValue, Region, RegularGrid,
    Statistics, VariableElements, shape,
};
use codecs::ArrayCodec;
use serde_json::{Value, json};
use storage::Transaction;

/// Whatever a fixture stumbles over.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One array and its values.
#[derive(Clone, Debug)]
pub struct SampleArray {
    /// Path from the root.
    pub path: String,
    /// Its `zarr.json`.
    pub metadata: ArrayMetadata,
    /// All values, in C order.
    pub elements: Elements,
}

/// Shape of the arrays of [`every_type`] and [`every_codec`]: no multiple of the chunk shape.
pub const SHAPE: [u64; 2] = [7, 10];
const SHARD: [u64; 2] = [4, 6];
const INNER: [u64; 2] = [2, 3];

impl SampleArray {
    /// A sharded array whose element at each C-order index is `value(index)`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sharded(
        path: &str,
        data_type: DataType,
        [shape, shard, inner]: [&[u64]; 3],
        value: impl Fn(u64) -> Vec<u8>,
    ) -> Result<Self, Error> {
        let codecs = vec![sharding(inner, &default_codecs(&data_type), "end")];
        Self::new(path, data_type, shape, shard, codecs, value)
    }

    /// An array with any codecs.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn new(
        path: &str,
        data_type: DataType,
        shape: &[u64],
        chunk: &[u64],
        codecs: Vec<CodecMetadata>,
        value: impl Fn(u64) -> Vec<u8>,
    ) -> Result<Self, Error> {
        let grid = RegularGrid::new(shape.to_vec(), chunk.to_vec())?;
        let values = (0..shape::elements(shape)?).map(value);
        let elements = if data_type.is_variable_length() {
            let values: Vec<_> = values.collect();
            Elements::Variable(values.iter().map(Vec::as_slice).collect())
        } else {
            Elements::Fixed(values.flatten().collect())
        };
        let metadata = ArrayMetadata::new(grid, data_type, codecs);
        Ok(Self {
            path: path.to_owned(),
            metadata,
            elements,
        })
    }

    /// Creates the array in a transaction and stores every chunk that is not all fill value.
    ///
    /// # Errors
    /// What storing fails with.
    pub async fn store(&self, transaction: &Transaction) -> Result<(), Error> {
        let path = self.path.parse()?;
        transaction
            .create_array(&path, self.metadata.clone())
            .await?;
        let codec = ArrayCodec::new(&self.metadata)?;
        let grid = self.metadata.grid();
        for position in Region::whole(&grid.grid_shape()).positions() {
            let index = ChunkIndex::new(position);
            let inside = grid.chunk_region_in_array(&index);
            let Some(chunk) = codec.encode(&self.chunk(&index)?, inside.shape())? else {
                continue;
            };
            let statistics = self.statistics(&inside)?;
            transaction
                .put_chunk(&path, index, chunk.kind, chunk.id, chunk.bytes, statistics)
                .await?;
        }
        Ok(())
    }

    /// One stored chunk's elements, cells outside the array at fill value.
    fn chunk(&self, index: &ChunkIndex) -> Result<Elements, Error> {
        let (shape, grid) = (self.metadata.shape(), self.metadata.grid());
        let mut cells: Vec<&[u8]> = Vec::new();
        for cell in grid.chunk_region(index).positions() {
            let inside = cell.iter().zip(shape).all(|(at, length)| at < length);
            cells.push(if inside {
                self.element(shape::linear_index(&cell, shape))
            } else {
                self.metadata.fill_value.as_bytes()
            });
        }
        Ok(match self.elements {
            Elements::Fixed(_) => Elements::Fixed(cells.concat()),
            Elements::Variable(_) => Elements::Variable(cells.into_iter().collect()),
        })
    }

    /// The statistics of the cells in a region of the array.
    fn statistics(&self, region: &Region) -> Result<Option<Statistics>, Error> {
        let shape = self.metadata.shape();
        let cells: Vec<u64> = region
            .positions()
            .map(|at| shape::linear_index(&at, shape))
            .collect();
        let Elements::Fixed(bytes) = self.gather(&cells) else {
            return Ok(None);
        };
        let codec = ArrayCodec::new(&self.metadata)?;
        let cells = Elements::Fixed(bytes);
        Ok(query::chunk_statistics(
            &codec,
            &self.metadata,
            region,
            &cells,
        ))
    }

    /// The element at a C-order index, which must be inside the array.
    #[must_use]
    pub fn element(&self, index: u64) -> &[u8] {
        let index = index as usize;
        match &self.elements {
            Elements::Fixed(bytes) => {
                let size = self.metadata.data_type.size_bytes().unwrap_or(1);
                &bytes[index * size..(index + 1) * size]
            }
            Elements::Variable(elements) => elements.get(index).unwrap_or_default(),
        }
    }

    /// The elements at these C-order indices.
    #[must_use]
    pub fn gather(&self, indices: &[u64]) -> Elements {
        let picked = indices.iter().map(|&index| self.element(index));
        match self.elements {
            Elements::Fixed(_) => Elements::Fixed(picked.flatten().copied().collect()),
            Elements::Variable(_) => Elements::Variable(picked.collect::<VariableElements>()),
        }
    }
}

fn codec(name: &str, configuration: Value) -> CodecMetadata {
    CodecMetadata::new(name, configuration)
}

fn bytes() -> CodecMetadata {
    codec("bytes", json!({ "endian": "little" }))
}

fn zstd() -> CodecMetadata {
    codec("zstd", json!({ "level": 1, "checksum": false }))
}

/// What an importer chooses: little-endian bytes, or the variable-length layout, under zstd.
fn default_codecs(data_type: &DataType) -> Vec<CodecMetadata> {
    let to_bytes = match data_type {
        DataType::String => codec("vlen-utf8", json!({})),
        DataType::VariableLengthBytes => codec("vlen-bytes", json!({})),
        _ => bytes(),
    };
    vec![to_bytes, zstd()]
}

fn sharding(inner: &[u64], codecs: &[CodecMetadata], index_location: &str) -> CodecMetadata {
    let json = |codecs: &[CodecMetadata]| {
        codecs
            .iter()
            .map(CodecMetadata::to_json)
            .collect::<Vec<_>>()
    };
    let configuration = json!({
        "chunk_shape": inner,
        "codecs": json(codecs),
        "index_codecs": json(&[bytes(), codec("crc32c", json!({}))]),
        "index_location": index_location,
    });
    codec("sharding_indexed", configuration)
}

/// An array of every data type, sharded as an importer shards, partly at a fill value that is not
/// the default where the type has another one.
///
/// # Errors
/// If a type cannot be set up.
pub fn every_type() -> Result<Vec<SampleArray>, Error> {
    let names = [
        json!("bool"),
        json!("int8"),
        json!("int16"),
        json!("int32"),
        json!("int64"),
        json!("uint8"),
        json!("uint16"),
        json!("uint32"),
        json!("uint64"),
        json!("float16"),
        json!("bfloat16"),
        json!("float32"),
        json!("float64"),
        json!("complex64"),
        json!("complex128"),
        json!("r16"),
        json!("string"),
        json!("variable_length_bytes"),
        json!({ "name": "numpy.datetime64", "configuration": { "unit": "ns", "scale_factor": 1 } }),
        json!({ "name": "numpy.datetime64", "configuration": { "unit": "s", "scale_factor": 10 } }),
        json!({ "name": "numpy.timedelta64", "configuration": { "unit": "D", "scale_factor": 1 } }),
        json!({ "name": "null_terminated_bytes", "configuration": { "length_bytes": 3 } }),
        json!({ "name": "fixed_length_utf32", "configuration": { "length_bytes": 12 } }),
        json!({ "name": "raw_bytes", "configuration": { "length_bytes": 5 } }),
    ];
    names.iter().map(sample_of_type).collect()
}

fn sample_of_type(name: &Value) -> Result<SampleArray, Error> {
    let data_type = DataType::parse(name)?;
    let fill = fill_of(&data_type);
    let path = data_type.to_string().replace(['[', ']'], "_");
    let path = format!("types/{}", path.trim_end_matches('_'));
    let mut sample =
        SampleArray::sharded(&path, data_type.clone(), [&SHAPE, &SHARD, &INNER], |i| {
            if is_written(i) {
                value_of(&data_type, i)
            } else {
                fill.clone()
            }
        })?;
    sample.metadata.fill_value = FillValue::from_bytes(&data_type, fill.clone())?;
    Ok(sample)
}

/// The lower right corner is never written: an inner chunk and a whole shard are absent.
fn is_written(index: u64) -> bool {
    let (row, column) = (index / SHAPE[1], index % SHAPE[1]);
    row < 2 || column < 3
}

fn fill_of(data_type: &DataType) -> Vec<u8> {
    match data_type {
        DataType::Int16 => (-99_i16).to_le_bytes().into(),
        DataType::UInt64 => u64::MAX.to_le_bytes().into(),
        DataType::Float32 => f32::NAN.to_le_bytes().into(),
        DataType::Float64 => f64::NEG_INFINITY.to_le_bytes().into(),
        DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => i64::MIN.to_le_bytes().into(),
        other => FillValue::default_for(other).as_bytes().to_vec(),
    }
}

/// A value of the type for each index; some are the type's limits or special ones.
fn value_of(data_type: &DataType, index: u64) -> Vec<u8> {
    let signed = [i64::MIN, i64::MAX, 0, -1, 1][index as usize % 5];
    let float = [f64::INFINITY, -0.0, 1.5, -0.1, 1e-7][index as usize % 5] * index as f64;
    match data_type {
        DataType::Bool => vec![u8::from(index.is_multiple_of(3))],
        DataType::Float16 => half::f16::from_f64(float).to_le_bytes().into(),
        DataType::BFloat16 => half::bf16::from_f64(float).to_le_bytes().into(),
        DataType::Float32 => (float as f32).to_le_bytes().into(),
        DataType::Float64 => float.to_le_bytes().into(),
        DataType::Complex64 => {
            [(float as f32).to_le_bytes(), (index as f32).to_le_bytes()].concat()
        }
        DataType::Complex128 => [float.to_le_bytes(), (index as f64).to_le_bytes()].concat(),
        DataType::String => ["", "a", "ζ", "värde", "\u{1F30D} value"][index as usize % 5]
            .repeat(index as usize % 4)
            .into_bytes(),
        DataType::VariableLengthBytes => vec![index as u8; index as usize % 7],
        DataType::NullTerminatedBytes { length_bytes } => {
            let mut text = format!("{index}").into_bytes();
            text.resize(*length_bytes as usize, 0);
            text
        }
        DataType::FixedLengthUtf32 { length_bytes } => {
            let mut text: Vec<u8> = format!("é{index}")
                .chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect();
            text.resize(*length_bytes as usize, 0);
            text
        }
        other => {
            let size = other.size_bytes().unwrap_or(1);
            // The high bytes hold the limits; the low one tells neighbours apart.
            let bytes = signed.to_le_bytes().repeat(2);
            let mut value = bytes[8 - size.min(8)..][..size].to_vec();
            value[0] ^= index as u8 >> 2;
            value
        }
    }
}

/// An array for every codec that a `zarr.json` may name, alone or as part of a chain.
///
/// # Errors
/// If a codec cannot be set up.
pub fn every_codec() -> Result<Vec<SampleArray>, Error> {
    let blosc = |cname: &str, shuffle: &str| {
        let configuration = json!({
            "cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": 4, "blocksize": 0,
        });
        codec("blosc", configuration)
    };
    let crc32c = || codec("crc32c", json!({}));
    let gzip = || codec("gzip", json!({ "level": 5 }));
    let transpose = || codec("transpose", json!({ "order": [1, 0] }));
    let zlib = || codec("numcodecs.zlib", json!({ "level": 3 }));
    let shuffle = || codec("numcodecs.shuffle", json!({ "elementsize": 4 }));
    let fletcher32 = || codec("numcodecs.fletcher32", json!({}));
    let bitround = || codec("bitround", json!({ "keepbits": 23 }));
    let packbits = || codec("packbits", json!({}));
    let fixedscaleoffset = || {
        let configuration = json!({ "offset": 0, "scale": 2, "dtype": "f4", "astype": "f4" });
        codec("numcodecs.fixedscaleoffset", configuration)
    };
    let pcodec = || {
        let configuration = json!({
            "level": 8, "mode_spec": "auto", "delta_spec": "auto",
            "paging_spec": "equal_pages_up_to", "equal_pages_up_to": 262_144,
        });
        codec("numcodecs.pcodec", configuration)
    };
    let zfp = || codec("zfp", json!({ "mode": "reversible" }));
    let big = || codec("bytes", json!({ "endian": "big" }));
    let chains: Vec<(&str, Vec<CodecMetadata>)> = vec![
        ("bytes", vec![bytes()]),
        ("big_endian", vec![big(), zstd()]),
        ("gzip", vec![bytes(), gzip()]),
        ("zstd_crc32c", vec![bytes(), zstd(), crc32c()]),
        ("blosc_zstd", vec![bytes(), blosc("zstd", "shuffle")]),
        ("blosc_lz4", vec![bytes(), blosc("lz4", "bitshuffle")]),
        ("transpose", vec![transpose(), bytes(), zstd()]),
        ("zlib", vec![bytes(), zlib()]),
        ("shuffle", vec![bytes(), shuffle(), zstd()]),
        ("fletcher32", vec![bytes(), fletcher32()]),
        ("bitround", vec![bitround(), bytes(), zstd()]),
        ("packbits", vec![packbits()]),
        ("fixedscaleoffset", vec![fixedscaleoffset(), bytes()]),
        ("pcodec", vec![pcodec()]),
        ("zfp", vec![zfp()]),
        (
            "sharding_index_at_start",
            vec![sharding(&INNER, &[bytes(), zstd()], "start")],
        ),
        (
            "sharding_transposed",
            vec![transpose(), sharding(&[3, 2], &[bytes(), zstd()], "end")],
        ),
        (
            "sharding_then_gzip",
            vec![sharding(&INNER, &[bytes()], "end"), gzip()],
        ),
        (
            "sharding_blosc",
            vec![sharding(&INNER, &[bytes(), blosc("lz4", "shuffle")], "end")],
        ),
        (
            "sharding_nested",
            vec![sharding(
                &[4, 3],
                &[sharding(&INNER, &[bytes(), zstd()], "end")],
                "end",
            )],
        ),
    ];
    chains
        .into_iter()
        .map(|(name, codecs)| {
            let path = format!("codecs/{name}");
            if name == "packbits" {
                return SampleArray::new(&path, DataType::Bool, &SHAPE, &SHARD, codecs, |i| {
                    vec![u8::from(i.is_multiple_of(3))]
                });
            }
            // Halves: exact under every lossy codec above.
            SampleArray::new(&path, DataType::Float32, &SHAPE, &SHARD, codecs, |i| {
                let value = if is_written(i) { i as f32 / 2.0 } else { 0.0 };
                value.to_le_bytes().into()
            })
        })
        .collect()
}

/// Arrays without dimensions and without elements.
///
/// # Errors
/// If they cannot be set up.
pub fn corner_cases() -> Result<Vec<SampleArray>, Error> {
    let int = |i: u64| (i as i32 + 7).to_le_bytes().to_vec();
    Ok(vec![
        SampleArray::new(
            "corners/scalar",
            DataType::Int32,
            &[],
            &[],
            vec![bytes()],
            int,
        )?,
        SampleArray::sharded(
            "corners/empty",
            DataType::Int32,
            [&[0, 5], &[2, 2], &[1, 1]],
            int,
        )?,
        SampleArray::sharded(
            "corners/never_written",
            DataType::Int32,
            [&[3, 5], &[2, 2], &[1, 1]],
            |_| vec![0; 4],
        )?,
    ])
}
