//! What a device cannot do is said, and nothing is lost by it.

use array::{DataType, Hash, Layout, Packing};
use compute::gpu::{BoxOf, Failure, Staged, Stop, Task};
use compute::{Reducer, Reduction};

use crate::cases::{CODEC, Case, Random, plain, reductions, whole};
use crate::device::open;

fn case(random: &mut Random, chunks: usize, length: u64) -> Case<'static> {
    let data_type = &DataType::Float32;
    let chunks = (0..chunks).map(|_| random.elements(data_type, length as usize));
    Case::plain(data_type, whole(&[length], &[true]), chunks.collect())
}

#[test]
fn a_device_that_fails_is_left_alone_after_a_while() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(11);
    let case = case(&mut random, 2, 100);
    let wanted = plain(&[Reduction::new(Reducer::Sum)]);
    case.check(&devices, &wanted);
    if !devices.configure("FAIL", "cuMemcpyHtoDAsync_v2:1") {
        return;
    }
    for _ in 0..3 {
        let stop = case.on_device(&devices, &wanted).unwrap_err();
        assert!(
            matches!(stop, Stop::Device(Failure::Failed { .. })),
            "{stop:?}"
        );
    }
    assert!(!devices.gpus.works());
    let status = &devices.gpus.status()[0];
    assert_eq!((status.failures, status.is_broken), (3, true));
    devices.configure("FAIL", "");
    assert!(case.on_device(&devices, &wanted).is_err(), "it stays alone");
}

#[test]
fn one_failure_is_forgotten_once_it_works_again() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(12);
    let case = case(&mut random, 2, 5000);
    let wanted = plain(&reductions(&DataType::Float32));
    for function in [
        "cuMemcpyHtoDAsync_v2",
        "cuLaunchKernel",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamSynchronize",
    ] {
        for nth in 1..4 {
            if !devices.configure("FAIL", &format!("{function}:{nth}:once")) {
                return;
            }
            // The first may or may not see the failure; what it says is right in any case.
            if let Err(stop) = case.on_device(&devices, &wanted) {
                assert!(matches!(stop, Stop::Device(_)), "{stop:?}");
            }
            devices.configure("FAIL", "");
            case.check(&devices, &wanted);
        }
    }
    assert!(devices.gpus.works());
}

#[test]
fn memory_that_is_not_there_is_no_failure_of_the_device() {
    const LIMIT: u64 = 24 << 20;
    let Some(devices) = open(Some(LIMIT)) else {
        return;
    };
    let mut random = Random(13);
    let wanted = plain(&[Reduction::new(Reducer::Mean)]);
    // 32 MB do not fit; 2 MB do, before and after.
    let small = case(&mut random, 2, 1 << 18);
    let large = case(&mut random, 8, 1 << 20);
    for _ in 0..3 {
        small.check(&devices, &wanted);
        let stop = large.on_device(&devices, &wanted).unwrap_err();
        assert!(
            matches!(stop, Stop::Device(Failure::OutOfMemory)),
            "{stop:?}"
        );
    }
    let status = &devices.gpus.status()[0];
    assert_eq!((status.out_of_memory, status.failures), (3, 0));
    assert!(status.memory_peak_bytes <= LIMIT);
    // The driver may have less than it is asked to use, too.
    if devices.configure("FAIL", "cuMemAllocAsync:1:2") {
        devices.gpus.clear();
        let stop = small.on_device(&devices, &wanted).unwrap_err();
        assert!(
            matches!(stop, Stop::Device(Failure::OutOfMemory)),
            "{stop:?}"
        );
        devices.configure("FAIL", "");
        small.check(&devices, &wanted);
    }
}

#[test]
fn what_no_kernel_does_is_unsupported() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(14);
    let product = plain(&[Reduction::new(Reducer::Prod)]);
    assert!(!compute::gpu::supports(&DataType::Float32, None, &product));
    let is_unsupported = |case: &Case<'_>, wanted: &[_]| {
        let stop = case.on_device(&devices, wanted).unwrap_err();
        assert!(
            matches!(stop, Stop::Device(Failure::Unsupported)),
            "{stop:?}"
        );
    };
    let ordinary = case(&mut random, 1, 10);
    is_unsupported(&ordinary, &product);
    let sum = plain(&[Reduction::new(Reducer::Sum)]);
    let mut outside = ordinary.clone();
    outside.geometry.stretches[0].start = 1;
    is_unsupported(&outside, &sum);
    let mut empty = ordinary.clone();
    empty.staged[0].1 = Layout {
        packing: Packing::Shuffled(array::Blocks {
            unit_bytes: 0,
            block_bytes: 4,
        }),
        is_big_endian: false,
    };
    is_unsupported(&empty, &sum);
    ordinary.check(&devices, &sum);
}

#[test]
fn an_error_of_the_chunks_is_handed_on() {
    let Some(devices) = open(None) else { return };
    let geometry = whole(&[4], &[true]);
    let boxes = [BoxOf {
        key: Some((Hash::from_bytes([1; 32]), CODEC)),
        places: vec![(0..4).collect()],
    }];
    let wanted = plain(&[Reduction::new(Reducer::Sum)]);
    let task = Task {
        data_type: &DataType::UInt8,
        decoder: None,
        chunk_bytes: 4,
        geometry: &geometry,
        selection_shape: &[4],
        wanted: &wanted,
        boxes: &boxes,
    };
    let refused = devices
        .gpus
        .run_on(0, &task, |_, _| Err::<Staged, _>("corrupt"));
    assert!(matches!(refused, Err(Stop::Staging("corrupt"))));
    assert_eq!(devices.gpus.status()[0].cached_chunks, 0);
    let done = devices.gpus.run_on(0, &task, |_, out| {
        out.copy_from_slice(&[1, 2, 3, 4]);
        Ok::<_, ()>(Staged {
            length: 4,
            layout: Layout::ELEMENTS,
            streams: None,
        })
    });
    assert!(done.is_ok());
}
