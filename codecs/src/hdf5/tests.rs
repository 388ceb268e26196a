use std::io::{Read as _, Write as _};

use array::{Bits, Layout, Packing};

use super::*;
use crate::compressed::{Checksum, Method, shuffled};

/// A chunk that h5py wrote.
struct Sample {
    name: &'static str,
    pipeline: Pipeline,
    stored: Vec<u8>,
    elements: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn samples() -> Vec<Sample> {
    let lines = include_str!("chunks.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    let numbers = |text: &str| -> Vec<u32> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts.map(|part| part.parse().unwrap()).collect()
    };
    let sample = |line: &'static str| {
        let parts: Vec<&'static str> = line.split('\t').collect();
        let filters = parts[1].split(';').map(|filter| {
            let (id, parameters) = filter.split_once(':').unwrap();
            Filter {
                id: id.parse().unwrap(),
                parameters: numbers(parameters),
            }
        });
        let precision = (parts[2] != "-").then(|| match numbers(parts[2]).as_slice() {
            &[size, bits, offset, signed, big] => Precision {
                size,
                bits,
                offset,
                is_signed: signed == 1,
                is_big_endian: big == 1,
            },
            other => panic!("{other:?}"),
        });
        let mut elements = Vec::new();
        flate2::read::ZlibDecoder::new(unhex(parts[4]).as_slice())
            .read_to_end(&mut elements)
            .unwrap();
        Sample {
            name: parts[0],
            pipeline: Pipeline::new(filters.collect(), precision).unwrap(),
            stored: unhex(parts[3]),
            elements,
        }
    };
    lines.map(sample).collect()
}

#[test]
fn chunks_of_hdf5_decode_to_what_was_written() {
    let samples = samples();
    assert_eq!(samples.len(), 24);
    for sample in samples {
        let pipeline = &sample.pipeline;
        let decoded = pipeline.decode(&sample.stored, sample.elements.len());
        assert_eq!(decoded.unwrap(), sample.elements, "{}", sample.name);
        // The metadata say all there is to know.
        let metadata = pipeline.to_metadata();
        let parsed = Pipeline::parse(&metadata.configuration).unwrap();
        assert_eq!(parsed, *pipeline, "{}", sample.name);
        // What Quarr writes itself.
        let own = pipeline.encode(&sample.elements).unwrap();
        let decoded = parsed.decode(&own, sample.elements.len()).unwrap();
        assert_eq!(decoded, sample.elements, "{}", sample.name);
        assert!(parsed.decode(&own, sample.elements.len() - 1).is_err());
    }
}

#[test]
fn damaged_chunks_are_errors_and_not_more() {
    let mut random = 12_345u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for sample in samples() {
        let length = sample.elements.len();
        for end in 0..sample.stored.len() {
            if let Ok(decoded) = sample.pipeline.decode(&sample.stored[..end], length) {
                assert_eq!(decoded.len(), length, "{} to {end}", sample.name);
            }
        }
        for _ in 0..200 {
            let mut stored = sample.stored.clone();
            let (at, bit) = (next(stored.len()), next(8));
            stored[at] ^= 1 << bit;
            if let Ok(decoded) = sample.pipeline.decode(&stored, length) {
                assert_eq!(decoded.len(), length, "{} at {at}", sample.name);
            }
        }
        // Parameters come from metadata, which anybody may write.
        for _ in 0..200 {
            let mut pipeline = sample.pipeline.clone();
            let nth = next(pipeline.filters.len());
            let filter = &mut pipeline.filters[nth];
            let count = filter.parameters.len();
            if count > 0 {
                let (at, bit) = (next(count), next(32));
                filter.parameters[at] ^= 1 << bit;
                if at == 0 {
                    filter.parameters.truncate(next(count));
                }
            }
            if let Ok(decoded) = pipeline.decode(&sample.stored, length) {
                assert_eq!(decoded.len(), length, "{}", sample.name);
            }
        }
    }
}

#[test]
fn filters_that_were_not_applied_are_not_undone() {
    let sample = samples().pop().unwrap();
    let size = sample.elements.len();
    let all = (1 << sample.pipeline.filters.len()) - 1;
    let as_it_is = sample.pipeline.decode_masked(&sample.elements, all, size);
    assert_eq!(as_it_is.unwrap(), sample.elements);
    // All but the shuffle.
    let shuffled = shuffle::apply(&sample.elements, 8);
    let found = sample.pipeline.decode_masked(&shuffled, all - 1, size);
    assert_eq!(found.unwrap(), sample.elements);
}

#[test]
fn configurations_that_are_not_valid_are_refused() {
    for configuration in [
        json!({}),
        json!({ "filters": 1 }),
        json!({ "filters": [{ "id": 4 }] }),
        json!({ "filters": [{ "id": 99, "parameters": [] }] }),
        json!({ "filters": [{ "id": -4, "parameters": [] }] }),
        json!({ "filters": [{ "id": 2, "parameters": [1.5] }] }),
        json!({ "filters": [], "surprise": 1 }),
        json!({ "filters": [], "precision": { "size": 3, "bits": 2, "offset": 0 } }),
        json!({ "filters": [], "precision": { "size": 2, "bits": 16, "offset": 1 } }),
        json!({ "filters": [], "precision": { "size": 2, "bits": 0, "offset": 1 } }),
    ] {
        let Value::Object(members) = &configuration else {
            panic!()
        };
        assert!(Pipeline::parse(members).is_err(), "{configuration}");
    }
}

#[test]
fn shuffled_bytes_come_back() {
    for size in 1..20 {
        for length in [0, 1, 7, 16, 100, 5000] {
            let bytes: Vec<u8> = (0..length).map(|at: usize| (at * 7 % 251) as u8).collect();
            let shuffled = shuffle::apply(&bytes, size);
            let mut out = vec![0; length];
            shuffle::undo(&shuffled, &mut out, size);
            assert_eq!(out, bytes, "{size} {length}");
        }
    }
}

#[test]
fn checksums_are_those_of_numcodecs() {
    // numcodecs.Fletcher32().encode, of an odd and an even number of bytes.
    let odd: Vec<u8> = (0..7).collect();
    let encoded = append_fletcher32(Cow::Borrowed(&odd));
    assert_eq!(encoded[7..], [0x09, 0x0c, 0x17, 0x14]);
    assert_eq!(strip_fletcher32(Cow::Owned(encoded)).unwrap(), odd);
    assert!(strip_fletcher32(Cow::Borrowed(&[1, 2, 3])).is_err());
    let mut long = append_fletcher32(Cow::Owned(vec![0xff; 100_001]));
    assert!(strip_fletcher32(Cow::Borrowed(&long)).is_ok());
    long[5] = 0;
    assert!(strip_fletcher32(Cow::Owned(long)).is_err());
}

#[test]
fn filters_that_tell_their_length_are_bounded() {
    let undo = |id, bytes: &[u8], limit| {
        let filter = Filter {
            id,
            parameters: Vec::new(),
        };
        let pipeline = Pipeline::new(vec![filter], None).unwrap();
        pipeline.decode_at_most(bytes, limit)
    };
    // LZF: "ab", then 9 bytes from 2 before, a run that repeats itself.
    let run = [1, b'a', b'b', 7 << 5, 0, 1];
    assert_eq!(undo(32_000, &run, 11).unwrap(), b"abababababa");
    assert!(undo(32_000, &run, 10).is_err());
    for bad in [
        &[1, b'a'][..],
        &[1 << 5, 0],
        &[0, b'x', 1 << 5],
        &[0, b'x', 1 << 5, 1],
    ] {
        assert!(undo(32_000, bad, 1 << 20).is_err(), "{bad:?}");
    }
    let zeros = vec![0; 1 << 20];
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(9));
    packer.write_all(&zeros).unwrap();
    let deflated = packer.finish().unwrap();
    let packed = zstd::encode_all(zeros.as_slice(), 1).unwrap();
    for (id, bytes) in [(1, deflated), (32_015, packed)] {
        assert_eq!(undo(id, &bytes, 1 << 20).unwrap(), zeros);
        assert!(undo(id, &bytes, 1 << 19).is_err());
        assert!(undo(id, &bytes[..bytes.len() - 3], 1 << 20).is_err());
        assert!(undo(id, b"nothing of the kind", 1 << 20).is_err());
    }
    // Blosc: seven bytes as they are, and a header that claims 256 MiB of nothing.
    let mut plain = vec![2, 1, 2, 1, 7, 0, 0, 0, 7, 0, 0, 0, 23, 0, 0, 0];
    plain.extend(b"seven b");
    assert_eq!(undo(32_001, &plain, 7).unwrap(), b"seven b");
    let mut claims = vec![2, 1, 0, 1];
    claims.extend((256u32 << 20).to_le_bytes());
    claims.extend([0; 24]);
    for bad in [&claims[..], b"short", &[0xff; 64], &plain[..20]] {
        assert!(undo(32_001, bad, 1 << 30).is_err(), "{bad:?}");
    }
}

/// What a stored chunk is after [`Pipeline::decode_partly`], and that it comes to the same elements.
fn partly(pipeline: &Pipeline, stored: &[u8], elements: &[u8], size: usize, big: bool) -> Layout {
    let mut part = vec![0xa5; elements.len()];
    let layout = pipeline.decode_partly(stored, size, big, &mut part);
    let layout = layout.unwrap();
    let length = layout.length_bytes(elements.len(), size);
    let mut out = vec![0x5a; elements.len()];
    crate::undo(&layout, &part[..length], size, &mut out).unwrap();
    if big {
        out.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    assert_eq!(out, elements, "{layout:?}");
    layout
}

#[test]
fn chunks_of_hdf5_decode_partly() {
    let packed = |width_bits, filled_bits| {
        Packing::Bits(Bits {
            width_bits,
            offset_bits: 0,
            filled_bits,
            is_highest_first: true,
        })
    };
    for sample in samples() {
        let (size, big, wanted) = match sample.name {
            "nbit 4" => (4, false, packed(17, 32)),
            "nbit 2" => (2, true, packed(11, 11)),
            "nbit 8" => (8, false, packed(33, 64)),
            "shuffle deflate fletcher" => (2, false, shuffled(2, sample.elements.len())),
            "shuffle szip fletcher" => (8, false, shuffled(8, sample.elements.len())),
            _ => (1, false, Packing::Plain),
        };
        let (pipeline, stored) = (&sample.pipeline, sample.stored.as_slice());
        let layout = partly(pipeline, stored, &sample.elements, size, big);
        assert_eq!(layout.packing, wanted, "{}", sample.name);
        // In another byte order than the values are packed in, or what Quarr writes itself.
        partly(pipeline, stored, &sample.elements, size, !big);
        let own = pipeline.encode(&sample.elements).unwrap();
        let layout = partly(pipeline, &own, &sample.elements, size, big);
        assert_eq!(layout.packing, Packing::Plain);
        let found = pipeline.compression(&own, sample.elements.len(), layout);
        let streams = found.unwrap().streams;
        assert_eq!(streams[0].encoded, OWN.len()..own.len(), "{}", sample.name);
    }
    // Without a precision, values stay where they were.
    let nbit = Filter {
        id: 5,
        parameters: vec![8, 0, 3, 1, 4, 0, 17, 3],
    };
    let pipeline = Pipeline::new(vec![nbit], None).unwrap();
    let stored = [0xff, 0xff, 0x80, 0, 0, 0x5a, 0xa5];
    let elements = pipeline.decode(&stored, 12).unwrap();
    let layout = partly(&pipeline, &stored, &elements, 4, false);
    let Packing::Bits(bits) = layout.packing else {
        panic!("{layout:?}")
    };
    assert_eq!((bits.offset_bits, bits.filled_bits), (3, 20));
}

#[test]
fn deflated_streams_of_hdf5_are_found_behind_their_checksum() {
    let samples = samples();
    let sample = samples
        .iter()
        .find(|sample| sample.name == "shuffle deflate fletcher");
    let sample = sample.unwrap();
    let length = sample.elements.len();
    let find = |stored: &[u8]| {
        let pipeline = &sample.pipeline;
        pipeline.compression(stored, length, Layout::ELEMENTS)
    };
    let found = find(&sample.stored).unwrap();
    assert_eq!(found.method, Method::Deflate);
    assert_eq!(found.layout.packing, shuffled(2, length));
    let [stream] = found.streams.as_slice() else {
        panic!("{found:?}")
    };
    // Two bytes of header before it; two checksums behind it.
    assert_eq!(stream.encoded, 2..sample.stored.len() - 8);
    assert_eq!(stream.decoded, 0..length);
    let shuffled = shuffle::apply(&sample.elements, 2);
    let adler = libdeflater::adler32(&shuffled);
    assert_eq!(stream.checksum, Some(Checksum::Adler32(adler)));
    let mut damaged = sample.stored.clone();
    damaged[20] ^= 1;
    assert_eq!(find(&damaged), None);
}

#[test]
fn chunks_longer_than_their_elements_are_decoded_fully() {
    // HDF5 lets a chunk have more bytes than its elements; a shuffle of more is another one.
    let shuffle = Filter {
        id: 2,
        parameters: vec![4],
    };
    let pipeline = Pipeline::new(vec![shuffle], None).unwrap();
    let long: Vec<u8> = (0..44).collect();
    let stored = shuffle::apply(&long, 4);
    let layout = partly(&pipeline, &stored, &long[..40], 4, false);
    assert_eq!(layout, Layout::ELEMENTS);
    let mut out = [0; 48];
    assert!(pipeline.decode_partly(&stored, 4, false, &mut out).is_err());
}

#[test]
fn damaged_chunks_decode_partly_to_the_same_or_are_errors() {
    let mut random = 54_321u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for sample in samples() {
        for _ in 0..200 {
            let mut stored = sample.stored.clone();
            let (at, bit) = (next(stored.len()), next(8));
            stored[at] ^= 1 << bit;
            stored.truncate(1 + next(2 * sample.stored.len()));
            let whole = sample.pipeline.decode(&stored, sample.elements.len());
            let mut part = vec![0; sample.elements.len()];
            let size = sample.pipeline.precision.map_or(1, |one| one.size as usize);
            let found = sample
                .pipeline
                .decode_partly(&stored, size, false, &mut part);
            assert_eq!(found.is_ok(), whole.is_ok(), "{}", sample.name);
            if let Ok(whole) = whole {
                partly(&sample.pipeline, &stored, &whole, size, false);
            }
        }
    }
}
