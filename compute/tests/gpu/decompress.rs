//! Compressed streams are decompressed on the device, and nothing is made of those that are not.
//!
//! On an emulated device nvCOMP is emulated too, in each of its versions.

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use array::{Bits, Blocks, DataType, Hash, Layout, Packing};
use compute::gpu::{
    BoxOf, ChunkPart, Compressed, Failure, Found, Method, Settings, Staged, Stop, Task,
};
use compute::{Reducer, Reduction};

use crate::cases::{CODEC, Case, Random, plain, reductions, whole};
use crate::device::{Devices, open, open_with};

/// Tests of nvCOMP take turns before those of devices do: only one version of it is loaded at a time.
static TURN: Mutex<()> = Mutex::new(());

/// An inner chunk as a codec would have it.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    method: Method,
    streams: Vec<ChunkPart>,
    stored: Vec<ChunkPart>,
}

impl Encoded {
    /// Blocks of a chunk that end at `ends`, those of `is_stored` as they are.
    fn new(method: Method, chunk: &[u8], blocks: &[(usize, bool)]) -> Self {
        let mut encoded = Self {
            bytes: b"header".to_vec(),
            method,
            streams: Vec::new(),
            stored: Vec::new(),
        };
        let mut start = 0;
        for &(end, is_stored) in blocks {
            let block = &chunk[start..end];
            match is_stored {
                true => encoded.push(block, start..end, true),
                false => encoded.push(&compress(method, block), start..end, false),
            }
            start = end;
        }
        encoded
    }

    fn push(&mut self, bytes: &[u8], decoded: Range<usize>, is_stored: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let part = ChunkPart {
            encoded: start..self.bytes.len(),
            decoded,
        };
        match is_stored {
            true => self.stored.push(part),
            false => self.streams.push(part),
        }
        self.bytes.push(b'.');
    }

    /// What is given to a device for a chunk of `length` bytes.
    pub(crate) fn chunk(&self, length: usize) -> Compressed<'_> {
        Compressed {
            encoded: &self.bytes,
            method: self.method,
            streams: self.streams.clone(),
            stored: self.stored.clone(),
            length,
        }
    }

    fn stream_bytes(&self) -> u64 {
        let streams = self.streams.iter();
        streams.map(|part| part.decoded.len() as u64).sum()
    }
}

fn compress(method: Method, bytes: &[u8]) -> Vec<u8> {
    match method {
        Method::Zstd => zstd::bulk::compress(bytes, 3).unwrap(),
        Method::Lz4 => lz4_flex::block::compress(bytes),
        other => panic!("{other:?}"),
    }
}

/// Devices with nvCOMP.
struct Expanding {
    devices: Devices,
    // After the devices, which have it too.
    _nvcomp: Option<libloading::Library>,
    _turn: MutexGuard<'static, ()>,
}

/// Devices that decompress, by this version of the emulated nvCOMP or by the real one; `None`, and a
/// message, where there can be none.
fn expanding(major: u32, memory_limit_bytes: Option<u64>) -> Option<Expanding> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_emulated = open(None)?.is_emulated();
    let library = |path: &Path| {
        // SAFETY: built from this repository, or a library of the system that is only looked for.
        unsafe { libloading::Library::new(path) }
    };
    let nvcomp = match is_emulated {
        true => {
            if ["libzstd.so.1", "liblz4.so.1"]
                .iter()
                .any(|name| library(Path::new(name)).is_err())
            {
                eprintln!("skipped: the emulated nvCOMP has no libzstd or no liblz4");
                return None;
            }
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
            // Loaded, it is found by its name.
            Some(library(&folder.join(format!("libnvcomp.so.{major}"))).unwrap())
        }
        false => None,
    };
    let devices = open_with(Settings {
        memory_limit_bytes,
        decompresses: true,
        ..Settings::default()
    })?;
    let version = devices.gpus.nvcomp_version();
    if is_emulated {
        assert_eq!(version, Some(format!("{major}.0.0")));
        assert!(devices.gpus.decompresses());
    } else if version.is_none() {
        eprintln!("skipped: no nvCOMP is installed");
        return None;
    }
    Some(Expanding {
        devices,
        _nvcomp: nvcomp,
        _turn: turn,
    })
}

/// Bytes of which compressors make something: runs of few different ones.
fn runs(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let byte = random.below(5) as u8 * 31;
        let run = 1 + random.below(60) as usize;
        bytes.resize(length.min(bytes.len() + run), byte);
    }
    bytes
}

/// Where blocks of a chunk end, at multiples of 8 bytes, and which are stored; never all.
fn blocks(random: &mut Random, length: usize) -> Vec<(usize, bool)> {
    let mut ends: Vec<usize> = (0..random.below(5))
        .map(|_| random.below(length as u64) as usize / 8 * 8)
        .filter(|&end| end > 0)
        .chain([length])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let compressed = random.below(ends.len() as u64) as usize;
    let ends = ends.into_iter().enumerate();
    ends.map(|(nth, end)| (end, nth != compressed && random.below(3) == 0))
        .collect()
}

/// Chunks in a layout, compressed by the methods; those without one, and those that are so small that
/// they become larger, are staged as they are.
fn case<'a>(
    random: &mut Random,
    data_type: &'a DataType,
    layout: Layout,
    (shape, reduced): (&[u64], &[bool]),
    methods: &[Option<Method>],
) -> Case<'a> {
    let element_bytes = data_type.size_bytes().unwrap();
    let decoded_bytes = element_bytes * shape.iter().product::<u64>() as usize;
    let length = layout.length_bytes(decoded_bytes, element_bytes);
    let staged: Vec<(Vec<u8>, Layout)> = methods
        .iter()
        .map(|_| (runs(random, length), layout))
        .collect();
    let decoded = staged.iter().map(|(bytes, layout)| {
        let mut out = vec![0; decoded_bytes];
        codecs::undo(layout, bytes, element_bytes, &mut out).unwrap();
        out
    });
    let decoded = decoded.collect();
    let encoded = methods.iter().zip(&staged).map(|(method, (bytes, _))| {
        let blocks = blocks(random, length);
        let encoded = method.map(|method| Encoded::new(method, bytes, &blocks));
        // Aligned as no version asks for more.
        encoded.filter(|encoded| encoded.bytes.len() + 8 * blocks.len() < length)
    });
    let encoded = encoded.collect();
    Case {
        staged,
        encoded,
        ..Case::plain(data_type, whole(shape, reduced), decoded)
    }
}

/// Whole chunks of floats, compressed by the methods.
fn floats(random: &mut Random, length: u64, methods: &[Method]) -> Case<'static> {
    let methods: Vec<Option<Method>> = methods.iter().copied().map(Some).collect();
    let data_type = &DataType::Float32;
    case(
        random,
        data_type,
        Layout::ELEMENTS,
        (&[length], &[true]),
        &methods,
    )
}

fn with_keys(mut case: Case<'_>, first: u8) -> Case<'_> {
    for (nth, key) in case.keys.iter_mut().enumerate() {
        *key = Some((Hash::from_bytes([first + nth as u8; 32]), CODEC));
    }
    case
}

fn stream_bytes(case: &Case<'_>) -> u64 {
    let encoded = case.encoded.iter().flatten();
    encoded.map(Encoded::stream_bytes).sum()
}

fn decompressed(devices: &Devices) -> u64 {
    devices.gpus.status()[0].decompressed_bytes
}

fn layouts(element_bytes: usize, decoded_bytes: usize) -> Vec<Layout> {
    let mut packings = vec![Packing::Plain];
    for block_bytes in [decoded_bytes, 64 * element_bytes, 24 * element_bytes + 1] {
        let blocks = Blocks {
            unit_bytes: element_bytes,
            block_bytes,
        };
        packings.extend([Packing::Shuffled(blocks), Packing::BitShuffled(blocks)]);
    }
    let ways = packings.into_iter().flat_map(|packing| {
        [false, true].map(|is_big_endian| Layout {
            packing,
            is_big_endian,
        })
    });
    let width_bits = 8 * element_bytes as u32 - 3;
    let bits = [false, true].map(|is_highest_first| Layout {
        packing: Packing::Bits(Bits {
            width_bits,
            offset_bits: 2,
            filled_bits: width_bits + 3,
            is_highest_first,
        }),
        is_big_endian: false,
    });
    ways.chain(bits).collect()
}

#[test]
fn every_version_gives_the_bits_of_the_processor_in_every_layout() {
    const METHODS: [Option<Method>; 5] = [
        Some(Method::Zstd),
        Some(Method::Lz4),
        None,
        Some(Method::Lz4),
        Some(Method::Zstd),
    ];
    let mut random = Random(31);
    for major in 4..=6 {
        let Some(expanding) = expanding(major, None) else {
            return;
        };
        let devices = &expanding.devices;
        for data_type in &[
            DataType::UInt8,
            DataType::Int16,
            DataType::Float32,
            DataType::Float64,
        ] {
            let size = data_type.size_bytes().unwrap();
            let wanted = plain(&reductions(data_type));
            for layout in layouts(size, 7 * 301 * size) {
                let shape = (&[7, 301][..], &[false, true][..]);
                let case = case(&mut random, data_type, layout, shape, &METHODS);
                let before = decompressed(devices);
                case.check(devices, &wanted);
                assert_eq!(decompressed(devices) - before, stream_bytes(&case));
            }
        }
        let status = &devices.gpus.status()[0];
        assert_eq!((status.undecoded, status.failures), (0, 0));
    }
}

#[test]
fn chunks_that_stay_are_decompressed_once() {
    let Some(Expanding { devices, .. }) = &expanding(6, None) else {
        return;
    };
    let mut random = Random(32);
    let case = floats(
        &mut random,
        6000,
        &[Method::Zstd, Method::Lz4, Method::Zstd],
    );
    let case = with_keys(case, 1);
    let wanted = plain(&reductions(&DataType::Float32));
    let before = devices.gpus.status()[0].clone();
    for _ in 0..4 {
        case.check(devices, &wanted);
    }
    let status = devices.gpus.status()[0].clone();
    let expanded = status.decompressed_bytes - before.decompressed_bytes;
    assert_eq!(expanded, stream_bytes(&case));
    // Less than what they decode to went over the bus.
    let copied = status.copied_bytes - before.copied_bytes;
    assert!((1..3 * 24_000).contains(&copied), "{copied}");
    assert_eq!(status.cache_hits - before.cache_hits, 9);
    assert_eq!((status.cached_chunks, status.cache_bytes), (3, 72_000));
    // Neither did it keep kernels from becoming a graph.
    assert!(status.replays > before.replays, "{status:?}");
    devices.gpus.clear();
    assert_eq!(devices.gpus.status()[0].memory_used_bytes, 0);
}

/// What may be wrong with one stream of a chunk, and what is said of it: a status, or a size.
fn damages(method: Method, chunk: &[u8]) -> Vec<(Encoded, bool)> {
    let half = chunk.len() / 16 * 8;
    let blocks = [(half, false), (chunk.len(), false)];
    let replaced = |block: &[u8]| {
        let mut encoded = Encoded::new(method, chunk, &blocks);
        let decoded = encoded.streams.pop().unwrap().decoded;
        encoded.push(block, decoded, false);
        encoded
    };
    let whole = compress(method, &chunk[half..]);
    vec![
        (replaced(&whole[..whole.len() - 3]), true),
        (
            replaced(&compress(method, &chunk[half..chunk.len() - 8])),
            false,
        ),
        (replaced(&compress(method, chunk)), true),
        (replaced(b"no stream of any method"), true),
    ]
}

#[test]
fn of_a_damaged_stream_nothing_is_used_and_nothing_stays() {
    for major in 4..=6 {
        let Some(expanding) = expanding(major, None) else {
            return;
        };
        let devices = &expanding.devices;
        if !devices.is_emulated() {
            // What the real one does then is not defined.
            return;
        }
        let mut random = Random(33);
        let sound = floats(&mut random, 5000, &[Method::Zstd, Method::Lz4, Method::Lz4]);
        let wanted = plain(&[Reduction::new(Reducer::Sum)]);
        let mut count = 0;
        for method in [Method::Zstd, Method::Lz4] {
            for (damaged, has_status) in damages(method, &sound.staged[1].0) {
                let mut case = with_keys(sound.clone(), 10);
                case.encoded[1] = Some(damaged);
                let stop = case.on_device(devices, &wanted).unwrap_err();
                let Stop::Device(Failure::Undecoded { status }) = stop else {
                    panic!("{stop:?}");
                };
                assert_eq!(status != 0, has_status, "{method:?} {status}");
                count += 1;
                let status = &devices.gpus.status()[0];
                assert_eq!((status.undecoded, status.failures), (count, 0));
                assert_eq!((status.cached_chunks, status.cache_bytes), (0, 0));
                // More than a device may fail: nothing is wrong with this one.
                assert!(devices.gpus.works());
            }
        }
        sound.check(devices, &wanted);
        with_keys(sound, 10).check(devices, &wanted);
        assert_eq!(devices.gpus.status()[0].cached_chunks, 3);
    }
}

#[test]
fn memory_that_nvcomp_does_not_get_is_no_failure_of_the_device() {
    const LIMIT: u64 = 24 << 20;
    let Some(Expanding { devices, .. }) = &expanding(5, Some(LIMIT)) else {
        return;
    };
    if !devices.is_emulated() {
        // How much the real one takes is not known.
        return;
    }
    let baseline = {
        devices.gpus.clear();
        devices.allocated()
    };
    let mut random = Random(34);
    let wanted = plain(&[Reduction::new(Reducer::Mean)]);
    let large = floats(&mut random, 1 << 20, &[Method::Zstd; 2]);
    let small = floats(&mut random, 1 << 16, &[Method::Zstd; 2]);
    assert!(stream_bytes(&large) > 4 << 20);
    let mut decoded = large.clone();
    decoded.encoded.clear();
    for round in 0..3 {
        // With keys too: what stays makes way.
        let small = with_keys(small.clone(), 2 * round);
        small.check(devices, &wanted);
        let stop = large.on_device(devices, &wanted).unwrap_err();
        assert!(
            matches!(stop, Stop::Device(Failure::OutOfMemory)),
            "{stop:?}"
        );
        decoded.check(devices, &wanted);
    }
    let status = &devices.gpus.status()[0];
    assert_eq!((status.out_of_memory, status.failures), (3, 0));
    assert!(status.memory_peak_bytes <= LIMIT, "{status:?}");
    devices.gpus.clear();
    assert_eq!(devices.gpus.status()[0].memory_used_bytes, 0);
    assert_eq!(devices.allocated(), baseline);
}

#[test]
fn failures_of_the_driver_are_said_and_forgotten() {
    let Some(Expanding { devices, .. }) = &expanding(6, None) else {
        return;
    };
    let mut random = Random(35);
    let case = floats(&mut random, 5000, &[Method::Zstd, Method::Lz4]);
    let wanted = plain(&reductions(&DataType::Float32));
    let mut stopped = 0;
    for function in [
        "cuMemAllocAsync",
        "cuMemHostAlloc",
        "cuMemcpyHtoDAsync_v2",
        "cuLaunchHostFunc",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamSynchronize",
    ] {
        for nth in 1..6 {
            devices.gpus.clear();
            if !devices.configure("FAIL", &format!("{function}:{nth}:once")) {
                return;
            }
            if let Err(stop) = case.on_device(devices, &wanted) {
                assert!(matches!(stop, Stop::Device(_)), "{stop:?}");
                stopped += 1;
            }
            devices.configure("FAIL", "");
            case.check(devices, &wanted);
        }
    }
    assert!(stopped >= 15, "{stopped}");
    assert!(devices.gpus.works());
}

#[test]
fn random_tasks_in_little_memory_are_right_or_have_none() {
    const LIMIT: u64 = 28 << 20;
    let Some(Expanding { devices, .. }) = &expanding(6, Some(LIMIT)) else {
        return;
    };
    devices.gpus.clear();
    let baseline = devices.allocated();
    let mut random = Random(36);
    let (mut done, mut no_memory) = (0, 0);
    for round in 0..60u8 {
        let methods = [None, Some(Method::Zstd), Some(Method::Lz4)];
        let methods: Vec<Option<Method>> = (0..1 + random.below(4))
            .map(|_| methods[random.below(3) as usize])
            .collect();
        let most = [3000, 40_000, 400_000][random.below(3) as usize];
        let length = 1 + random.below(most);
        let all = layouts(4, 4 * length as usize);
        let layout = all[random.below(all.len() as u64) as usize];
        let shape = (&[length][..], &[true][..]);
        let mut case = case(&mut random, &DataType::Int32, layout, shape, &methods);
        if random.below(3) > 0 {
            case = with_keys(case, 4 * (round % 50));
            // The same key means the same chunk.
            devices.gpus.clear();
        }
        let wanted = plain(&[Reduction::new(Reducer::Sum)]);
        match case.on_device(devices, &wanted) {
            Ok(_) => {
                done += 1;
                case.check(devices, &wanted);
            }
            Err(Stop::Device(Failure::OutOfMemory)) => no_memory += 1,
            Err(other) => panic!("round {round}: {other:?}"),
        }
        let status = &devices.gpus.status()[0];
        assert!(status.memory_peak_bytes <= LIMIT, "{status:?}");
    }
    assert!(
        done > 2 * no_memory,
        "{done} done, {no_memory} without memory"
    );
    assert!(decompressed(devices) > 0);
    devices.gpus.clear();
    assert_eq!(devices.gpus.status()[0].memory_used_bytes, 0);
    assert_eq!(devices.allocated(), baseline);
}

/// What a device says of one chunk of 64 bytes that is staged by `stage`.
fn staged_by(
    devices: &Devices,
    stage: impl Fn(&mut [u8]) -> Staged,
) -> Result<Vec<Vec<Found>>, Stop<()>> {
    let task = Task {
        data_type: &DataType::UInt8,
        decoder: None,
        chunk_bytes: 64,
        geometry: &whole(&[64], &[true]),
        selection_shape: &[64],
        wanted: &plain(&[Reduction::new(Reducer::Sum)]),
        boxes: &[BoxOf {
            key: None,
            places: vec![(0..64).collect()],
        }],
    };
    devices.gpus.run_on(0, &task, |_, out| Ok(stage(out)))
}

#[test]
fn streams_of_another_size_than_the_chunk_are_not_started() {
    let Some(Expanding { devices, .. }) = &expanding(6, None) else {
        return;
    };
    let encoded = Encoded::new(Method::Lz4, &[7; 64], &[(64, false)]);
    let staged = |length, room: usize| {
        staged_by(devices, |out| {
            let mut place = vec![0; room];
            let streams = devices.gpus.pack(&encoded.chunk(64), &mut place);
            let same = room.min(out.len());
            out[..same].copy_from_slice(&place[..same]);
            Staged {
                length,
                layout: Layout::ELEMENTS,
                streams: Some(streams.unwrap()),
            }
        })
    };
    assert!(staged(64, 64).is_ok());
    let stop = staged(63, 64).unwrap_err();
    assert!(
        matches!(stop, Stop::Device(Failure::Unsupported)),
        "{stop:?}"
    );
    // Staged elsewhere, with more than there is room for.
    let long = Encoded::new(Method::Lz4, &[7; 128], &[(64, true), (128, false)]);
    let stop = staged_by(devices, |_| Staged {
        length: 128,
        layout: Layout::ELEMENTS,
        streams: devices.gpus.pack(&long.chunk(128), &mut [0; 256]),
    });
    let stop = stop.unwrap_err();
    assert!(
        matches!(stop, Stop::Device(Failure::Unsupported)),
        "{stop:?}"
    );
}

#[test]
fn only_what_was_asked_for_decompresses() {
    let Some(devices) = open(None) else { return };
    let encoded = Encoded::new(Method::Lz4, &[7; 64], &[(64, false)]);
    assert!(!devices.gpus.decompresses());
    assert_eq!(devices.gpus.nvcomp_version(), None);
    assert_eq!(devices.gpus.pack(&encoded.chunk(64), &mut [0; 64]), None);
}
