//! What is encoded comes back, equal data is equal bytes, and bytes that were never encoded are
//! refused or give exactly as many elements, for every codec under a table of data types.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test they are called from"
)]

use array::hash::Hash;
use array::shard::{ChunkKind, verify_plain, verify_shard};
use array::{
    ArrayMetadata, CodecMetadata, DataType, Elements, FillValue, Region, RegularGrid,
    VariableElements, shape,
};
use codecs::{ArrayCodec, EncodedChunk, Error};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

const FIXED: [&str; 10] = [
    "bool",
    "int8",
    "int16",
    "uint32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "complex128",
    "r24",
];
const NUMBERS: [&str; 5] = ["int16", "uint32", "int64", "float32", "float64"];

fn codec(name: &str, configuration: Value) -> CodecMetadata {
    CodecMetadata::new(name, configuration)
}

fn little() -> CodecMetadata {
    codec("bytes", json!({ "endian": "little" }))
}

/// Lossless codecs from elements to bytes, and the data types each takes.
fn chains() -> Vec<(Vec<CodecMetadata>, Vec<&'static str>)> {
    let blosc = |cname: &str, shuffle: &str| {
        let configuration = json!({
            "cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": 2, "blocksize": 0,
        });
        vec![little(), codec("blosc", configuration)]
    };
    let after_bytes = |name: &str, configuration: Value| vec![little(), codec(name, configuration)];
    let any = FIXED.to_vec();
    let numbers = NUMBERS.to_vec();
    vec![
        (vec![little()], any.clone()),
        (
            vec![codec("bytes", json!({ "endian": "big" }))],
            numbers.clone(),
        ),
        (
            after_bytes("zstd", json!({ "level": 1, "checksum": false })),
            any.clone(),
        ),
        (
            after_bytes("zstd", json!({ "level": 3, "checksum": true })),
            any.clone(),
        ),
        (after_bytes("gzip", json!({ "level": 5 })), any.clone()),
        (after_bytes("crc32c", json!({})), any.clone()),
        (blosc("lz4", "bitshuffle"), any.clone()),
        (blosc("zstd", "shuffle"), any.clone()),
        (blosc("zlib", "noshuffle"), any.clone()),
        (
            after_bytes("numcodecs.zlib", json!({ "level": 3 })),
            any.clone(),
        ),
        (after_bytes("numcodecs.fletcher32", json!({})), any.clone()),
        (
            after_bytes("numcodecs.shuffle", json!({ "elementsize": 1 })),
            any,
        ),
        (
            vec![codec("packbits", json!({}))],
            vec!["bool", "int16", "uint32"],
        ),
        (
            vec![codec("numcodecs.pcodec", json!({ "level": 4 }))],
            numbers.clone(),
        ),
        (
            vec![codec("zfp", json!({ "mode": "reversible" }))],
            vec!["float32", "float64", "int64"],
        ),
        (
            vec![codec("vlen-utf8", json!({})), codec("crc32c", json!({}))],
            vec!["string"],
        ),
        (
            vec![
                codec("vlen-bytes", json!({})),
                codec("zstd", json!({ "level": 1, "checksum": false })),
            ],
            vec!["variable_length_bytes"],
        ),
    ]
}

/// One stored object: its codecs, elements, and how much of it is inside the array.
#[derive(Clone, Debug)]
struct Case {
    metadata: ArrayMetadata,
    elements: Elements,
    in_bounds: Vec<u64>,
}

fn case() -> impl Strategy<Value = Case> {
    let layout = prop::collection::vec((1u64..4, 1u64..4), 1..4);
    let chain = select(chains()).prop_flat_map(|(chain, types)| (Just(chain), select(types)));
    (layout, chain, any::<bool>(), any::<bool>()).prop_flat_map(
        |(layout, (chain, data_type), sharded, reversed)| {
            let data_type = DataType::parse(&json!(data_type)).unwrap();
            let inner: Vec<u64> = layout.iter().map(|(inner, _)| *inner).collect();
            let shard: Vec<u64> = layout.iter().map(|(inner, times)| inner * times).collect();
            let codecs = stored_codecs(chain, &inner, sharded, reversed);
            let count = shape::elements(&shard).unwrap() as usize;
            let in_bounds: Vec<_> = shard.iter().map(|&length| 1..=length).collect();
            let grid = RegularGrid::new(shard.clone(), shard).unwrap();
            let metadata = ArrayMetadata::new(grid, data_type.clone(), codecs);
            (Just(metadata), elements(data_type, count), in_bounds).prop_map(
                |(metadata, elements, in_bounds)| Case {
                    metadata,
                    elements,
                    in_bounds,
                },
            )
        },
    )
}

/// The chain for the whole chunk or in a shard, possibly with the dimensions reversed first.
fn stored_codecs(
    chain: Vec<CodecMetadata>,
    inner: &[u64],
    sharded: bool,
    reversed: bool,
) -> Vec<CodecMetadata> {
    let order: Vec<usize> = (0..inner.len()).rev().collect();
    let encoded: Vec<u64> = if reversed {
        order.iter().map(|&axis| inner[axis]).collect()
    } else {
        inner.to_vec()
    };
    let mut codecs = Vec::new();
    if reversed {
        codecs.push(codec("transpose", json!({ "order": order })));
    }
    if !sharded {
        codecs.extend(chain);
        return codecs;
    }
    let list = |codecs: &[CodecMetadata]| -> Vec<Value> {
        codecs.iter().map(CodecMetadata::to_json).collect()
    };
    let configuration = json!({
        "chunk_shape": encoded,
        "codecs": list(&chain),
        "index_codecs": list(&[little(), codec("crc32c", json!({}))]),
        "index_location": "end",
    });
    codecs.push(codec("sharding_indexed", configuration));
    codecs
}

/// Elements of few different values, so that some inner chunks are all fill value.
fn elements(data_type: DataType, count: usize) -> impl Strategy<Value = Elements> {
    let pick = prop_oneof![3 => Just(0u8), 1 => any::<u8>()];
    prop::collection::vec(pick, count).prop_map(move |picks| match data_type.size_bytes() {
        None => {
            let text = |pick: &u8| "añ€🌍".repeat(usize::from(pick % 3)).into_bytes();
            let values: Vec<Vec<u8>> = picks.iter().map(text).collect();
            Elements::Variable(values.iter().map(Vec::as_slice).collect())
        }
        Some(size) => {
            let limit = if data_type == DataType::Bool { 2 } else { 120 };
            let value = |pick: &u8| vec![pick % limit; size];
            Elements::Fixed(picks.iter().flat_map(value).collect())
        }
    })
}

fn element(elements: &Elements, index: usize, size: Option<usize>) -> &[u8] {
    match elements {
        Elements::Fixed(bytes) => &bytes[index * size.unwrap()..][..size.unwrap()],
        Elements::Variable(values) => values.get(index).unwrap(),
    }
}

fn collect(data_type: &DataType, cells: &[&[u8]]) -> Elements {
    if data_type.is_variable_length() {
        return Elements::Variable(cells.iter().copied().collect::<VariableElements>());
    }
    Elements::Fixed(cells.concat())
}

impl Case {
    fn codec(&self) -> ArrayCodec {
        ArrayCodec::new(&self.metadata).unwrap()
    }

    fn data_type(&self) -> &DataType {
        &self.metadata.data_type
    }

    fn encode(&self) -> Option<EncodedChunk> {
        self.codec()
            .encode(&self.elements, &self.in_bounds)
            .unwrap()
    }

    /// The cells of `region`; those outside the array are `outside`. The definition, cell by cell.
    fn part(&self, region: &Region, outside: &[u8]) -> Elements {
        let (shape, size) = (self.metadata.chunk_shape(), self.data_type().size_bytes());
        let positions: Vec<Vec<u64>> = region.positions().collect();
        let cells: Vec<&[u8]> = positions
            .iter()
            .map(|at| {
                let inside = at.iter().zip(&self.in_bounds).all(|(at, end)| at < end);
                let index = shape::linear_index(at, shape) as usize;
                if inside {
                    element(&self.elements, index, size)
                } else {
                    outside
                }
            })
            .collect();
        collect(self.data_type(), &cells)
    }

    fn fill(&self) -> Vec<u8> {
        self.metadata.fill_value.as_bytes().to_vec()
    }

    fn fill_elements(&self, region: &Region) -> Elements {
        let count = shape::elements(region.shape()).unwrap();
        Elements::repeat(self.data_type(), &self.fill(), count).unwrap()
    }
}

/// The stored bytes of each inner chunk, or of the plain chunk; `None` for one that is all fill.
fn parts(codec: &ArrayCodec, chunk: Option<&EncodedChunk>) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let Some(chunk) = chunk else {
        return Ok(vec![None; codec.inner_chunks()]);
    };
    assert_eq!(chunk.kind, codec.kind());
    if chunk.kind == ChunkKind::Plain {
        verify_plain(&chunk.bytes, &chunk.id)?;
        return Ok(vec![Some(chunk.bytes.to_vec())]);
    }
    let footer = verify_shard(&chunk.bytes, &chunk.id, codec.inner_chunks())?;
    let bytes = |range: std::ops::Range<u64>| {
        chunk.bytes[range.start as usize..range.end as usize].to_vec()
    };
    let entries = footer.entries().iter();
    Ok(entries
        .map(|entry| entry.map(|entry| bytes(entry.range())))
        .collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_inner_chunk_decodes_to_the_cells_of_its_box(case in case()) {
        let (codec, fill) = (case.codec(), case.fill());
        let stored = parts(&codec, case.encode().as_ref()).unwrap();
        prop_assert_eq!(stored.len(), codec.inner_chunks());
        for (index, bytes) in stored.iter().enumerate() {
            let region = codec.inner_region(index).unwrap();
            let coordinate: Vec<u64> =
                region.start().iter().zip(codec.inner_shape()).map(|(at, n)| at / n).collect();
            prop_assert_eq!(codec.inner_index(&coordinate), index);
            let wanted = case.part(&region, &fill);
            let is_fill = wanted == case.fill_elements(&region);
            prop_assert_eq!(bytes.is_none(), is_fill, "absent exactly when all fill value");
            let Some(bytes) = bytes else { continue };
            let found = codec.decode(bytes).unwrap();
            prop_assert_eq!(&found, &wanted);
            if let Elements::Fixed(wanted) = &wanted {
                let mut out = vec![0xa5; wanted.len()];
                codec.decode_into(bytes, &mut out).unwrap();
                prop_assert_eq!(&out, wanted);
            }
        }
    }

    #[test]
    fn cells_outside_the_array_change_no_byte(case in case()) {
        let whole = Region::whole(case.metadata.chunk_shape());
        let other = if *case.data_type() == DataType::String {
            "other".as_bytes().to_vec()
        } else {
            vec![1; case.data_type().size_bytes().unwrap_or(3)]
        };
        let elements = case.part(&whole, &other);
        let other = Case { elements, ..case.clone() };
        prop_assert_eq!(case.encode(), other.encode());
    }

    /// Decoding is only ever handed verified bytes; this is what holds without that.
    #[test]
    fn bytes_nobody_encoded_never_panic_nor_give_other_counts(
        case in case(), at in any::<Index>(), byte in any::<u8>(), cut in any::<Option<Index>>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let codec = case.codec();
        let count = shape::elements(codec.inner_shape()).unwrap() as usize;
        let stored = parts(&codec, case.encode().as_ref()).unwrap();
        for mut bytes in stored.into_iter().flatten().chain([noise]) {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            match codec.decode(&bytes) {
                Ok(Elements::Fixed(found)) => {
                    prop_assert_eq!(found.len(), count * case.data_type().size_bytes().unwrap());
                }
                Ok(Elements::Variable(found)) => prop_assert_eq!(found.len(), count),
                Err(Error::Corrupt { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}

fn one_chunk(data_type: &str, chunk: &[u64], codecs: Vec<CodecMetadata>) -> ArrayMetadata {
    let grid = RegularGrid::new(chunk.to_vec(), chunk.to_vec()).unwrap();
    ArrayMetadata::new(grid, DataType::parse(&json!(data_type)).unwrap(), codecs)
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_shard_is_refused() {
    let zstd = codec("zstd", json!({ "level": 1, "checksum": false }));
    let codecs = stored_codecs(vec![little(), zstd], &[2, 2], true, false);
    let codec = ArrayCodec::new(&one_chunk("int16", &[4, 6], codecs)).unwrap();
    let mut values: Vec<u8> = (0..48).collect();
    for row in values.chunks_exact_mut(12).take(2) {
        row[4..8].fill(0);
    }
    let chunk = codec.encode(&Elements::Fixed(values), &[4, 6]).unwrap();
    let chunk = chunk.unwrap();
    let footer = verify_shard(&chunk.bytes, &chunk.id, 6).unwrap();
    assert_eq!(footer.entries().iter().flatten().count(), 5);
    for bit in 0..chunk.bytes.len() * 8 {
        let mut bytes = chunk.bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_shard(&bytes, &chunk.id, 6).is_err(), "bit {bit}");
    }
    for length in 0..chunk.bytes.len() {
        let cut = &chunk.bytes[..length];
        assert!(verify_shard(cut, &chunk.id, 6).is_err(), "{length} bytes");
    }
    let mut id = *chunk.id.as_bytes();
    id[31] ^= 1;
    let id = Hash::from_slice(&id).unwrap();
    assert!(verify_shard(&chunk.bytes, &id, 6).is_err());
}

#[test]
fn minus_zero_and_other_nans_are_not_the_fill_value() {
    let mut metadata = one_chunk("float64", &[2], vec![little()]);
    for (fill, other) in [(0.0, -0.0), (f64::NAN, -f64::NAN)] {
        let fill: [u8; 8] = f64::to_le_bytes(fill);
        metadata.fill_value = FillValue::from_bytes(&DataType::Float64, fill.to_vec()).unwrap();
        let codec = ArrayCodec::new(&metadata).unwrap();
        let encode = |bytes: Vec<u8>| codec.encode(&Elements::Fixed(bytes), &[2]).unwrap();
        assert_eq!(encode([fill, fill].concat()), None);
        let chunk = encode([fill, other.to_le_bytes()].concat()).unwrap();
        let found = codec.decode(&chunk.bytes).unwrap();
        assert_eq!(found, Elements::Fixed([fill, other.to_le_bytes()].concat()));
    }
}

/// Lossy codecs, over values each holds exactly.
#[test]
fn lossy_codecs_keep_what_they_can_hold() {
    let scale = json!({ "offset": 10, "scale": 4, "dtype": "<f4", "astype": "<i2" });
    for first in [
        codec("numcodecs.fixedscaleoffset", scale),
        codec("bitround", json!({ "keepbits": 10 })),
    ] {
        let metadata = one_chunk("float32", &[3], vec![first.clone(), little()]);
        let codec = ArrayCodec::new(&metadata).unwrap();
        let values = [1.25f32, -3.5, 100.0].map(f32::to_le_bytes).concat();
        let chunk = codec.encode(&Elements::Fixed(values.clone()), &[3]);
        let found = codec.decode(&chunk.unwrap().unwrap().bytes).unwrap();
        assert_eq!(found, Elements::Fixed(values), "{}", first.name);
    }
}

#[test]
fn a_chunk_that_inflates_past_its_size_is_refused() {
    let zeros = vec![0u8; 64 << 20];
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::bulk::compress(&zeros, 1).unwrap();
    for (name, bomb) in [("gzip", gzip), ("zstd", zstd)] {
        let configuration = json!({ "level": 1, "checksum": false });
        let configuration = if name == "gzip" {
            json!({ "level": 1 })
        } else {
            configuration
        };
        let codecs = vec![little(), codec(name, configuration)];
        let codec = ArrayCodec::new(&one_chunk("int32", &[4], codecs)).unwrap();
        let refused = |result: Result<(), Error>| matches!(result, Err(Error::Corrupt { .. }));
        assert!(refused(codec.decode(&bomb).map(drop)), "{name}");
        assert!(refused(codec.decode_into(&bomb, &mut [0; 16])), "{name}");
    }
}

#[test]
fn metadata_that_does_not_fit_is_an_error() {
    let transpose = |order: Value| codec("transpose", json!({ "order": order }));
    let shard = |inner: &[u64]| stored_codecs(vec![little()], inner, true, false);
    for (chunk, codecs) in [
        (vec![4, 4], vec![]),
        (vec![4, 4], vec![codec("nonesuch", json!({}))]),
        (vec![4, 4], vec![little(), little()]),
        (vec![4, 4], vec![codec("crc32c", json!({})), little()]),
        (vec![4, 4], vec![transpose(json!([0, 0])), little()]),
        (vec![4, 4], vec![transpose(json!([0, 7])), little()]),
        (vec![4, 4], vec![codec("vlen-utf8", json!({}))]),
        // Would write wherever the header in the bytes says.
        (
            vec![4, 4],
            vec![codec("numcodecs.zfpy", json!({ "mode": 4 }))],
        ),
        (
            vec![4, 4],
            vec![codec("zfp", json!({ "mode": "fixed_rate", "rate": 1e6 }))],
        ),
        (vec![4, 4], shard(&[3, 4])),
        (vec![4, 4], shard(&[2])),
        (vec![4, 4], shard(&[0, 4])),
        (vec![4, 4], shard(&[8, 8])),
        (vec![1 << 20, 1 << 20], vec![little()]),
        (vec![1 << 11, 1 << 11], shard(&[1, 1])),
    ] {
        let codecs_text = format!("{codecs:?}");
        let metadata = one_chunk("int32", &chunk, codecs);
        assert!(ArrayCodec::new(&metadata).is_err(), "{codecs_text}");
    }
}
