//! With the stand-in of `compute/emulator/nvcomp.cpp`, which takes memory of the host for that of a
//! device. Where it is not, beside no emulated device, there is nothing to test but that it is not there.

use std::ptr;

use super::*;

/// The stand-in of a major version, if it is where libraries are looked for; never the real one.
fn stand_in(major: u32) -> Option<Nvcomp> {
    let is_stand_in = |library: &Library, name: &str| {
        let marked: Option<unsafe extern "C" fn()> = find(library, name);
        marked.is_some()
    };
    let found = Nvcomp::open_at(OsStr::new(&format!("libnvcomp.so.{major}")))
        .filter(|found| is_stand_in(&found._library, "quarr_emulator_nvcomp"));
    match &found {
        Some(found) => assert_eq!(found.version() / 1000, major),
        None => {
            #[expect(unsafe_code, reason = "a library is loaded")]
            // SAFETY: drivers are loaded like this by every program that uses a device.
            let driver = unsafe { Library::new("libcuda.so.1") };
            let is_emulated =
                driver.is_ok_and(|driver| is_stand_in(&driver, "quarr_emulator_configure"));
            assert!(
                !is_emulated,
                "the emulated device is there, but not all of it"
            );
        }
    }
    found
}

/// Streams to decompress, with the decoded size of each, and what came of them: the bytes, how many and
/// the status.
fn decompress(
    nvcomp: &Nvcomp,
    method: Method,
    streams: &[(&[u8], usize)],
) -> Vec<(Vec<u8>, usize, i32)> {
    let count = streams.len();
    // In words, so that everything is aligned as it may have to be.
    let words = |bytes: usize| vec![0x5a5a_5a5a_5a5a_5a5au64; bytes.div_ceil(8).max(1)];
    let inputs: Vec<Vec<u64>> = streams
        .iter()
        .map(|(bytes, _)| {
            let mut aligned = bytes.to_vec();
            aligned.resize(bytes.len().next_multiple_of(8).max(8), 0);
            let (words, _) = aligned.as_chunks();
            words.iter().copied().map(u64::from_le_bytes).collect()
        })
        .collect();
    let mut outputs: Vec<Vec<u64>> = streams.iter().map(|(_, size)| words(*size)).collect();
    let input_at: Vec<u64> = inputs.iter().map(|input| input.as_ptr() as u64).collect();
    let output_at: Vec<u64> = outputs
        .iter_mut()
        .map(|output| output.as_mut_ptr() as u64)
        .collect();
    let input_bytes: Vec<u64> = streams
        .iter()
        .map(|(bytes, _)| bytes.len() as u64)
        .collect();
    let output_bytes: Vec<u64> = streams.iter().map(|(_, size)| *size as u64).collect();
    let (mut written, mut statuses) = (vec![u64::MAX; count], vec![-1i32; count]);
    let max = streams.iter().map(|(_, size)| *size).max().unwrap();
    let total = streams.iter().map(|(_, size)| *size).sum();
    #[expect(unsafe_code, reason = "the library is called")]
    // SAFETY: there is no stream, and to the stand-in (`stand_in`) memory of the host is that of a
    // device; all of it is here until the end of the block, and of the size that is said.
    unsafe {
        let stream = ptr::null_mut();
        let temp_bytes = nvcomp.temp_bytes(method, count, max, total, stream);
        let mut temp = words(temp_bytes.unwrap());
        let batch = Batch {
            count,
            inputs: input_at.as_ptr() as u64,
            input_bytes: input_bytes.as_ptr() as u64,
            outputs: output_at.as_ptr() as u64,
            output_bytes: output_bytes.as_ptr() as u64,
            written_bytes: written.as_mut_ptr() as u64,
            statuses: statuses.as_mut_ptr() as u64,
            temp: temp.as_mut_ptr() as u64,
            temp_bytes: temp_bytes.unwrap(),
        };
        nvcomp.decompress(method, &batch, stream).unwrap();
    }
    let results = outputs.iter().zip(written).zip(statuses).zip(streams);
    results
        .map(|(((output, written), status), (_, size))| {
            let mut bytes: Vec<u8> = output.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert!(bytes[*size..].iter().all(|&byte| byte == 0x5a));
            bytes.truncate(*size);
            (bytes, written as usize, status)
        })
        .collect()
}

/// Streams of each method: "abcabcabcabcabcabcabcabc!" and 300 zeros, as zlib 1.2.13, zstd 1.5.4 and LZ4
/// 1.9.4 wrote them.
const STREAMS: [(Method, &[u8], &[u8]); 3] = [
    (Method::Zstd, &ZSTD_TEXT, &ZSTD_ZEROS),
    (Method::Deflate, &DEFLATE_TEXT, &DEFLATE_ZEROS),
    (Method::Lz4, &LZ4_TEXT, &LZ4_ZEROS),
];
const TEXT: &[u8] = b"abcabcabcabcabcabcabcabc!";
const ZSTD_TEXT: [u8; 19] = [
    0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x19, 0x55, 0x00, 0x00, 0x20, 0x61, 0x62, 0x63, 0x21, 0x01, 0x00,
    0x7e, 0x6e, 0x08,
];
const ZSTD_ZEROS: [u8; 19] = [
    0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x2c, 0x00, 0x4d, 0x00, 0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x27,
    0x2a, 0xc0, 0x02,
];
const DEFLATE_TEXT: [u8; 8] = [0x4b, 0x4c, 0x4a, 0x4e, 0xc4, 0x86, 0x14, 0x01];
const DEFLATE_ZEROS: [u8; 7] = [0x63, 0x60, 0x18, 0x05, 0xc4, 0x02, 0x00];
const LZ4_TEXT: [u8; 12] = [
    0x3d, 0x61, 0x62, 0x63, 0x03, 0x00, 0x50, 0x63, 0x61, 0x62, 0x63, 0x21,
];
const LZ4_ZEROS: [u8; 12] = [
    0x1f, 0x00, 0x01, 0x00, 0xff, 0x14, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00,
];

#[test]
fn what_is_no_nvcomp_is_not_opened() {
    for name in ["libnvcomp.so.no-such-version", "libc.so.6", "", "/", "a\0b"] {
        assert!(Nvcomp::open_at(OsStr::new(name)).is_none(), "{name:?}");
    }
    assert_eq!(size_of::<Options>(), 64);
}

#[test]
fn every_known_version_decompresses() {
    for major in 4..=6 {
        let Some(nvcomp) = stand_in(major) else {
            continue;
        };
        for (method, text, zeros) in STREAMS {
            let all = decompress(&nvcomp, method, &[(text, 25), (zeros, 300), (text, 32)]);
            assert_eq!(all[0], (TEXT.to_vec(), 25, 0), "{major} {method:?}");
            assert_eq!(all[1], (vec![0; 300], 300, 0), "{major} {method:?}");
            // More room than bytes is no error, so the caller has to see how many there are.
            assert_eq!((&all[2].0[..25], all[2].1, all[2].2), (TEXT, 25, 0));
        }
    }
}

#[test]
fn what_does_not_decompress_is_said_of_each_stream() {
    for major in 4..=6 {
        let Some(nvcomp) = stand_in(major) else {
            continue;
        };
        for (method, text, _) in STREAMS {
            let short = &text[..text.len() - 2];
            let all = decompress(
                &nvcomp,
                method,
                &[(text, 24), (text, 25), (short, 25), (&[], 25)],
            );
            let fine: Vec<bool> = all
                .iter()
                .map(|(_, written, status)| (*written, *status) == (25, 0))
                .collect();
            assert_eq!(fine, [false, true, false, false], "{major} {method:?}");
        }
        let all = decompress(&nvcomp, Method::Bitcomp, &[(TEXT, 25)]);
        assert_ne!(all[0].2, 0, "nobody but nvCOMP knows its format");
    }
}

#[test]
fn sizes_that_a_method_does_not_take_are_refused() {
    for major in 4..=6 {
        let Some(nvcomp) = stand_in(major) else {
            continue;
        };
        let temp = |method, count, max: usize| {
            #[expect(unsafe_code, reason = "the library is called")]
            // SAFETY: the stand-in (`stand_in`) does nothing with a stream.
            unsafe {
                nvcomp.temp_bytes(
                    method,
                    count,
                    max,
                    max.saturating_mul(count),
                    ptr::null_mut(),
                )
            }
        };
        assert!(temp(Method::Zstd, 2, 1 << 20).unwrap() > 2 << 20);
        assert!(temp(Method::Zstd, 1, (1 << 31) - 1).is_some());
        assert_eq!(temp(Method::Zstd, 1, 1 << 31), None);
        assert_eq!(temp(Method::Bitcomp, 1, (1 << 25) + 1), None);
        assert_eq!(temp(Method::Lz4, 0, 100), None);
        for method in [Method::Zstd, Method::Deflate, Method::Lz4, Method::Bitcomp] {
            let all = nvcomp.alignments(method).unwrap();
            let wanted = match (major, method) {
                (4, _) => (8, 8, 8),
                (_, Method::Zstd) => (1, 1, 8),
                (_, Method::Deflate) => (4, 1, 1),
                (_, Method::Lz4) => (1, 1, 1),
                (5, Method::Bitcomp) => (4, 8, 4),
                (_, Method::Bitcomp) => (8, 8, 4),
            };
            let found = (all.input_bytes, all.output_bytes, all.temp_bytes);
            assert_eq!(found, wanted, "{major} {method:?}");
        }
    }
}
