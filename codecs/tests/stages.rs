//! Chunks decoded in stages come to the elements that decoding them at once gives, for every codec
//! that leaves something to a device and some that do not; and the streams in them are found.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test they are called from"
)]

use array::{
    ArrayMetadata, Bits, Blocks, CodecMetadata, DataType, Elements, Layout, Packing, RegularGrid,
};
use codecs::{ArrayCodec, Checksum, Compressed, Error, Method, Stream, undo};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

const NUMBERS: [(&str, usize); 9] = [
    ("bool", 1),
    ("int8", 1),
    ("uint16", 2),
    ("int16", 2),
    ("bfloat16", 2),
    ("int32", 4),
    ("float32", 4),
    ("int64", 8),
    ("float64", 8),
];

fn codec(name: &str, configuration: Value) -> CodecMetadata {
    CodecMetadata::new(name, configuration)
}

fn bytes(endian: &str) -> CodecMetadata {
    codec("bytes", json!({ "endian": endian }))
}

fn blosc(cname: &str, shuffle: &str, unit_bytes: usize, block_bytes: usize) -> CodecMetadata {
    codec(
        "blosc",
        json!({
            "cname": cname, "clevel": 5, "shuffle": shuffle, "typesize": unit_bytes,
            "blocksize": block_bytes,
        }),
    )
}

fn metadata(data_type: &str, elements: u64, codecs: Vec<CodecMetadata>) -> ArrayMetadata {
    let grid = RegularGrid::new(vec![elements], vec![elements]).unwrap();
    let data_type = DataType::parse(&json!(data_type)).unwrap();
    ArrayMetadata::new(grid, data_type, codecs)
}

fn array_codec(data_type: &str, elements: u64, codecs: Vec<CodecMetadata>) -> ArrayCodec {
    ArrayCodec::new(&metadata(data_type, elements, codecs)).unwrap()
}

/// Codecs behind those from elements to bytes.
fn compressions() -> impl Strategy<Value = Vec<CodecMetadata>> {
    let shuffle = |size: usize| codec("numcodecs.shuffle", json!({ "elementsize": size }));
    let zstd = |checksum: bool| codec("zstd", json!({ "level": 1, "checksum": checksum }));
    let zlib = || codec("numcodecs.zlib", json!({ "level": 3 }));
    let gzip = || codec("gzip", json!({ "level": 5 }));
    let fletcher = || codec("numcodecs.fletcher32", json!({}));
    let crc = || codec("crc32c", json!({}));
    let hdf5 = |filters: Value| codec("quarr.hdf5", json!({ "filters": filters }));
    let names = select(vec!["lz4", "lz4hc", "zlib", "zstd", "blosclz"]);
    let shuffles = select(vec!["noshuffle", "shuffle", "bitshuffle"]);
    let units = select(vec![1usize, 2, 3, 4, 8, 16, 17]);
    let blocks = select(vec![0usize, 1, 130, 256, 1000, 4096, 100_000]);
    let any_blosc = (names, shuffles, units, blocks)
        .prop_map(|(name, shuffle, unit, block)| blosc(name, shuffle, unit, block));
    let fixed = vec![
        vec![],
        vec![shuffle(1)],
        vec![shuffle(2)],
        vec![shuffle(8), zstd(false)],
        vec![shuffle(4), zlib(), fletcher()],
        vec![shuffle(4), shuffle(2), gzip()],
        vec![shuffle(2), crc(), zstd(true), crc()],
        vec![zstd(false)],
        vec![zstd(true)],
        vec![gzip()],
        vec![zlib()],
        vec![fletcher()],
        vec![crc(), zlib()],
        vec![shuffle(4), blosc("zstd", "shuffle", 2, 0)],
        vec![shuffle(4), blosc("lz4", "noshuffle", 2, 0), crc()],
        vec![hdf5(
            json!([{ "id": 2, "parameters": [4] }, { "id": 1, "parameters": [4] }]),
        )],
    ];
    prop_oneof![
        1 => select(fixed),
        2 => any_blosc.prop_map(|blosc| vec![blosc]),
    ]
}

/// Codecs from elements to bytes, for a type of so many bytes.
fn first_codecs(data_type: &'static str, size: usize) -> Vec<CodecMetadata> {
    let packbits = |first: Value, last: Value, padding: &str| {
        codec(
            "packbits",
            json!({ "first_bit": first, "last_bit": last, "padding_encoding": padding }),
        )
    };
    let mut codecs = vec![bytes("little"), bytes("big")];
    if data_type == "bool" {
        codecs.extend(
            ["none", "first_byte", "last_byte"].map(|p| packbits(json!(null), json!(null), p)),
        );
    } else {
        let bits = 8 * size as u64;
        codecs.extend([
            packbits(json!(null), json!(null), "none"),
            packbits(json!(null), json!(bits - 2), "first_byte"),
            packbits(json!(1), json!(null), "none"),
            packbits(json!(2), json!(4), "last_byte"),
            packbits(json!(0), json!(bits / 2), "none"),
            packbits(json!(bits - 1), json!(bits - 1), "none"),
        ]);
    }
    codecs
}

/// A chunk: its codecs, and elements that compress more or less.
fn case() -> impl Strategy<Value = (ArrayMetadata, Vec<u8>)> {
    let lengths = prop_oneof![
        Just(1usize),
        2usize..20,
        (1usize..40).prop_map(|eights| eights * 8),
        20usize..3000,
        2000usize..20_000,
    ];
    let types = select(NUMBERS.to_vec());
    let first = types
        .prop_flat_map(|(name, size)| (Just(name), Just(size), select(first_codecs(name, size))));
    (first, compressions(), lengths, any::<u64>(), 0u32..4).prop_map(
        |((name, size, first), others, length, seed, noise)| {
            // The shuffle takes only whole units.
            let is_packed = first.name == "packbits";
            let others = others.into_iter();
            let others = others.filter(|codec| !is_packed || codec.name != "numcodecs.shuffle");
            let codecs: Vec<_> = [first].into_iter().chain(others).collect();
            let is_shuffled = codecs.iter().any(|codec| codec.name == "numcodecs.shuffle");
            let length = match is_shuffled {
                true => length.next_multiple_of(64),
                false => length,
            };
            let metadata = metadata(name, length as u64, codecs);
            let mut elements = noisy(length * size, seed, noise);
            if name == "bool" {
                elements.iter_mut().for_each(|byte| *byte &= 1);
            }
            (metadata, elements)
        },
    )
}

/// Bytes that repeat themselves, with some or only noise.
fn noisy(length: usize, seed: u64, noise: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let byte = |at: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 56) as u8;
        match noise {
            0 => 7,
            1 => (at / 8 % 5) as u8,
            2 if at.is_multiple_of(4) => random,
            2 => 0x3f,
            _ => random,
        }
    };
    (0..length).map(byte).collect()
}

fn partly(codec: &ArrayCodec, encoded: &[u8], size: usize) -> Result<(Layout, Vec<u8>), Error> {
    let mut part = vec![0xa5; codec.decoded_bytes()];
    let layout = codec.decode_partly(encoded, &mut part)?;
    part.truncate(layout.length_bytes(codec.decoded_bytes(), size));
    Ok((layout, part))
}

fn undone(layout: &Layout, part: &[u8], size: usize, length: usize) -> Vec<u8> {
    let mut out = vec![0x5a; length];
    undo(layout, part, size, &mut out).unwrap();
    out
}

/// What a device would do: decompresses the streams and copies the rest.
fn decompressed(found: &Compressed, encoded: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    for stream in &found.streams {
        let from = &encoded[stream.encoded.clone()];
        let to = &mut out[stream.decoded.clone()];
        let written = match found.method {
            Method::Zstd => zstd::bulk::decompress_to_buffer(from, to).unwrap(),
            Method::Lz4 => lz4_flex::block::decompress_into(from, to).unwrap(),
            Method::Deflate => {
                let mut inflate = libdeflater::Decompressor::new();
                inflate.deflate_decompress(from, to).unwrap()
            }
        };
        assert_eq!(written, to.len());
        match stream.checksum {
            None => assert_ne!(found.method, Method::Deflate),
            Some(Checksum::Adler32(sum)) => assert_eq!(libdeflater::adler32(to), sum),
            Some(Checksum::Crc32(sum)) => assert_eq!(libdeflater::crc32(to), sum),
        }
    }
    for part in &found.stored {
        assert_eq!(part.checksum, None);
        out[part.decoded.clone()].copy_from_slice(&encoded[part.encoded.clone()]);
    }
    out
}

/// Whether each byte is decoded to once, and from where there are bytes.
fn covers(found: &Compressed, encoded: &[u8], length: usize) -> bool {
    let mut parts: Vec<&Stream> = found.streams.iter().chain(&found.stored).collect();
    parts.sort_by_key(|part| part.decoded.start);
    let mut at = 0;
    for part in parts {
        if part.decoded.start != at || encoded.get(part.encoded.clone()).is_none() {
            return false;
        }
        at = part.decoded.end;
    }
    at == length
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn undoing_the_rest_gives_the_elements((metadata, elements) in case()) {
        let codec = ArrayCodec::new(&metadata).unwrap();
        let size = codec.data_type().size_bytes().unwrap();
        let encoded = codec.encode_whole(&Elements::Fixed(elements)).unwrap();
        // What `packbits` keeps of them.
        let Elements::Fixed(wanted) = codec.decode(&encoded).unwrap() else { panic!() };
        let (layout, part) = partly(&codec, &encoded, size).unwrap();
        prop_assert_eq!(&undone(&layout, &part, size, wanted.len()), &wanted, "{:?}", layout);
        if let Some(found) = codec.compression(&encoded) {
            let length = found.layout.length_bytes(wanted.len(), size);
            prop_assert!(covers(&found, &encoded, length));
            let bytes = decompressed(&found, &encoded, length);
            prop_assert_eq!(undone(&found.layout, &bytes, size, wanted.len()), wanted);
        }
    }

    #[test]
    fn bytes_nobody_encoded_are_errors_or_decode_to_the_same(
        (metadata, elements) in case(), at in any::<Index>(), byte in any::<u8>(),
        header in any::<Option<(Index, u8)>>(), cut in any::<Option<Index>>(),
    ) {
        let codec = ArrayCodec::new(&metadata).unwrap();
        let size = codec.data_type().size_bytes().unwrap();
        let mut encoded = codec.encode_whole(&Elements::Fixed(elements)).unwrap();
        let at = at.index(encoded.len());
        encoded[at] ^= byte;
        // Where blosc and zstd have their sizes.
        if let Some((at, byte)) = header {
            let at = at.index(encoded.len().min(24));
            encoded[at] ^= byte;
        }
        if let Some(cut) = cut {
            encoded.truncate(cut.index(encoded.len() + 1));
        }
        // Frames of blosc are parsed by another program if they are decoded fully.
        let may_differ = metadata.codecs.iter().any(|codec| codec.name == "blosc");
        let mut wanted = vec![0; codec.decoded_bytes()];
        let decoded = codec.decode_into(&encoded, &mut wanted);
        match (decoded, partly(&codec, &encoded, size)) {
            (Ok(()), Ok((layout, part))) => {
                prop_assert_eq!(undone(&layout, &part, size, wanted.len()), wanted);
            }
            (Err(_), Err(Error::Corrupt { .. })) => {}
            (_, Err(Error::Corrupt { .. })) | (Err(_), Ok(_)) if may_differ => {}
            (decoded, found) => prop_assert!(false, "{decoded:?} and {found:?}"),
        }
        if let Some(found) = codec.compression(&encoded) {
            let length = found.layout.length_bytes(codec.decoded_bytes(), size);
            prop_assert!(covers(&found, &encoded, length), "{found:?}");
        }
    }
}

fn plain(packing: Packing, is_big_endian: bool) -> Layout {
    Layout {
        packing,
        is_big_endian,
    }
}

fn blocks(unit_bytes: usize, block_bytes: usize) -> Blocks {
    Blocks {
        unit_bytes,
        block_bytes,
    }
}

#[test]
fn each_codec_leaves_what_a_device_can_do() {
    let shuffle = || codec("numcodecs.shuffle", json!({ "elementsize": 4 }));
    let zstd = || codec("zstd", json!({ "level": 1, "checksum": false }));
    let packbits = || codec("packbits", json!({ "first_bit": 1, "last_bit": 10 }));
    let transpose = || codec("transpose", json!({ "order": [0] }));
    let bits = Bits {
        width_bits: 10,
        offset_bits: 1,
        filled_bits: 16,
        is_highest_first: false,
    };
    let elements = Layout::ELEMENTS;
    let whole = Packing::Shuffled(blocks(4, 160_000));
    // Blocks of codecs that split them are at least 64 KiB.
    let (zstd_of, lz4) = (Some(Method::Zstd), Some(Method::Lz4));
    for (codecs, layout, method) in [
        (vec![bytes("little")], elements, None),
        (vec![bytes("big")], plain(Packing::Plain, true), None),
        (vec![bytes("little"), zstd()], elements, zstd_of),
        (
            vec![bytes("big"), shuffle(), zstd()],
            plain(whole, true),
            zstd_of,
        ),
        (
            vec![bytes("little"), blosc("lz4", "shuffle", 4, 1024)],
            plain(Packing::Shuffled(blocks(4, 65_536)), false),
            lz4,
        ),
        (
            vec![bytes("big"), blosc("zlib", "bitshuffle", 4, 1024)],
            plain(Packing::BitShuffled(blocks(4, 65_536)), true),
            Some(Method::Deflate),
        ),
        (
            vec![bytes("little"), blosc("zstd", "bitshuffle", 4, 1000)],
            plain(Packing::BitShuffled(blocks(4, 1000)), false),
            zstd_of,
        ),
        (
            vec![bytes("little"), blosc("blosclz", "shuffle", 4, 4096)],
            elements,
            None,
        ),
        (
            vec![
                bytes("little"),
                shuffle(),
                blosc("lz4", "noshuffle", 4, 4096),
            ],
            plain(whole, false),
            lz4,
        ),
        // Only one shuffle is left.
        (
            vec![bytes("little"), shuffle(), blosc("lz4", "shuffle", 4, 4096)],
            plain(whole, false),
            None,
        ),
        (
            vec![packbits(), zstd()],
            plain(Packing::Bits(bits), false),
            zstd_of,
        ),
        (
            vec![transpose(), bytes("little"), shuffle(), zstd()],
            elements,
            None,
        ),
    ] {
        let name = format!("{codecs:?}");
        let codec = array_codec("int32", 40_000, codecs);
        let values: Vec<u8> = (0..40_000i32)
            .flat_map(|at| (at % 300).to_le_bytes())
            .collect();
        let encoded = codec.encode_whole(&Elements::Fixed(values)).unwrap();
        let (found, _) = partly(&codec, &encoded, 4).unwrap();
        assert_eq!(found, layout, "{name}");
        let found = codec.compression(&encoded);
        assert_eq!(found.as_ref().map(|found| found.method), method, "{name}");
        if let Some(found) = found {
            assert_eq!(found.layout, layout, "{name}");
        }
    }
}

#[test]
fn streams_of_a_frame_that_is_split_are_found_one_by_one() {
    let codecs = vec![bytes("little"), blosc("lz4", "shuffle", 4, 1024)];
    let codec = array_codec("int32", 600, codecs);
    let values: Vec<u8> = (0..600i32).flat_map(|at| (at / 7).to_le_bytes()).collect();
    let mut shuffled = Vec::new();
    for block in values.chunks(1024) {
        let count = block.len() / 4;
        shuffled.extend((0..block.len()).map(|at| block[at % count * 4 + at / count]));
    }
    // Two whole blocks in four streams each, and a shorter one in one; one stream is not compressed.
    let mut starts = Vec::new();
    let mut streams = Vec::new();
    for (nth, block) in shuffled.chunks(1024).enumerate() {
        starts.extend((16 + 12 + streams.len() as u32).to_le_bytes());
        let length = if nth < 2 { 256 } else { block.len() };
        for (part, stream) in block.chunks(length).enumerate() {
            let packed = match (nth, part) {
                (1, 2) => stream.to_vec(),
                _ => lz4_flex::block::compress(stream),
            };
            streams.extend((packed.len() as u32).to_le_bytes());
            streams.extend(packed);
        }
    }
    let mut frame = vec![2, 1, 1 << 5 | 1, 4];
    for size in [2400, 1024, 28 + streams.len() as u32] {
        frame.extend(size.to_le_bytes());
    }
    let frame = [frame, starts, streams].concat();
    assert_eq!(
        codec.decode(&frame).unwrap(),
        Elements::Fixed(values.clone())
    );
    let (layout, part) = partly(&codec, &frame, 4).unwrap();
    assert_eq!(layout.packing, Packing::Shuffled(blocks(4, 1024)));
    assert_eq!(part, shuffled);
    assert_eq!(undone(&layout, &part, 4, 2400), values);
    let found = codec.compression(&frame).unwrap();
    assert_eq!((found.streams.len(), found.stored.len()), (8, 1));
    assert_eq!(found.stored[0].decoded, 1024 + 512..1024 + 768);
    assert_eq!(decompressed(&found, &frame, 2400), shuffled);
    // Every number of the header and every size, wrong.
    for at in 0..32 {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut frame = frame.clone();
            frame[at] = byte;
            let _ = partly(&codec, &frame, 4);
            if let Some(found) = codec.compression(&frame) {
                assert!(covers(&found, &frame, 2400), "{at} {byte}");
            }
        }
    }
}

#[test]
fn headers_of_gzip_and_zstd_are_parsed_with_all_they_may_have() {
    let values = noisy(4000, 1, 2);
    let gzip = array_codec(
        "uint8",
        4000,
        vec![bytes("little"), codec("gzip", json!({ "level": 1 }))],
    );
    let with = |name: &str| {
        use std::io::Write;
        let builder = flate2::GzBuilder::new()
            .filename(name)
            .comment("c")
            .extra([1, 2]);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&values).unwrap();
        encoder.finish().unwrap()
    };
    let one = with("a name");
    let found = gzip.compression(&one).unwrap();
    assert_eq!(decompressed(&found, &one, 4000), values);
    assert!(matches!(
        found.streams[0].checksum,
        Some(Checksum::Crc32(_))
    ));
    // A second member, of nothing: what the trailer says is not of the first one.
    let mut two = one.clone();
    two.extend([
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    assert_eq!(gzip.decode(&two).unwrap(), Elements::Fixed(values.clone()));
    assert_eq!(gzip.compression(&two), None);

    let setting = json!({ "level": 1, "checksum": false });
    let zstd_codec = array_codec("uint8", 4000, vec![bytes("little"), codec("zstd", setting)]);
    let frame = |has_checksum, has_size| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(has_checksum).unwrap();
        encoder.include_contentsize(has_size).unwrap();
        if has_size {
            encoder.set_pledged_src_size(Some(4000)).unwrap();
        }
        std::io::Write::write_all(&mut encoder, &values).unwrap();
        encoder.finish().unwrap()
    };
    let known = frame(false, true);
    let found = zstd_codec.compression(&known).unwrap();
    assert_eq!(decompressed(&found, &known, 4000), values);
    for unknown in [
        frame(true, true),
        frame(false, false),
        [known.clone(), known.clone()].concat(),
        [known.clone(), vec![0]].concat(),
        known[..known.len() - 1].to_vec(),
    ] {
        assert_eq!(zstd_codec.compression(&unknown), None);
    }
}

#[test]
fn other_types_and_buffers_are_decoded_fully_or_refused() {
    let shuffle = codec("numcodecs.shuffle", json!({ "elementsize": 4 }));
    let codec = array_codec("complex64", 10, vec![bytes("big"), shuffle]);
    let values: Vec<u8> = (0..80).collect();
    let encoded = codec
        .encode_whole(&Elements::Fixed(values.clone()))
        .unwrap();
    let mut out = vec![0; 80];
    let layout = codec.decode_partly(&encoded, &mut out).unwrap();
    assert_eq!((layout, out), (Layout::ELEMENTS, values));
    let small = codec.decode_partly(&encoded, &mut [0; 79]);
    assert!(matches!(small, Err(Error::Elements { .. })));
    let text = array_codec("string", 1, vec![self::codec("vlen-utf8", json!({}))]);
    let encoded = text.decode_partly(&[1, 0, 0, 0, 0, 0, 0, 0], &mut [0; 32]);
    assert!(matches!(encoded, Err(Error::Elements { .. })));
}
