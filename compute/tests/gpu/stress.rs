//! Many tasks of any shape in little memory: nothing is lost, nothing is wrong.

use array::{DataType, Hash};
use compute::gpu::Stop;
use compute::{Reducer, Reduction};

use crate::cases::{CODEC, Case, Random, TYPES, plain, reductions, whole};
use crate::device::open;

#[test]
fn chunks_that_stay_are_not_copied_again() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(21);
    let data_type = DataType::Int32;
    let chunks = (0..4).map(|_| random.elements(&data_type, 6000)).collect();
    let mut case = Case::plain(&data_type, whole(&[6, 1000], &[false, true]), chunks);
    for (nth, key) in case.keys.iter_mut().enumerate() {
        *key = Some((Hash::from_bytes([nth as u8; 32]), CODEC));
    }
    let wanted = plain(&reductions(&data_type));
    let before = devices.gpus.status()[0].clone();
    for _ in 0..4 {
        case.check(&devices, &wanted);
    }
    let status = devices.gpus.status()[0].clone();
    assert_eq!(status.copied_bytes - before.copied_bytes, 4 * 24_000);
    assert_eq!(status.cache_hits - before.cache_hits, 12);
    assert_eq!((status.cached_chunks, status.cache_bytes), (4, 96_000));
    // The third time, what was started twice is a graph.
    assert!(status.replays >= 1, "{status:?}");
    devices.gpus.clear();
    assert_eq!(devices.gpus.status()[0].memory_used_bytes, 0);
}

#[test]
fn random_tasks_in_little_memory_leak_nothing_and_are_right() {
    const LIMIT: u64 = 20 << 20;
    let Some(devices) = open(Some(LIMIT)) else {
        return;
    };
    let rounds = if devices.is_emulated() { 400 } else { 100_000 };
    let mut random = Random(22);
    devices.gpus.clear();
    let baseline = devices.allocated();
    let (mut done, mut no_memory) = (0, 0);
    for round in 0..rounds {
        let data_type = &TYPES[random.below(TYPES.len() as u64) as usize];
        let axes = 1 + random.below(3);
        let most = [60_000, 120, 24][axes as usize - 1];
        let shape: Vec<u64> = (0..axes).map(|_| 1 + random.below(most)).collect();
        let reduced: Vec<bool> = shape.iter().map(|_| random.below(2) == 0).collect();
        let count = shape.iter().product::<u64>() as usize;
        // Now and then more than there is room for.
        let chunks = if random.below(25) == 0 {
            60
        } else {
            1 + random.below(3)
        };
        let one = random.elements(data_type, count);
        let chunks = vec![one; chunks as usize];
        let all = reductions(data_type);
        let reduction = all[random.below(all.len() as u64) as usize];
        let mut case = Case::plain(data_type, whole(&shape, &reduced), chunks);
        if random.below(2) == 0 {
            for (nth, key) in case.keys.iter_mut().enumerate() {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&(round as u64 * 64 + nth as u64).to_le_bytes());
                *key = Some((Hash::from_bytes(bytes), CODEC));
            }
        }
        let wanted = plain(&[reduction, Reduction::new(Reducer::Count)]);
        match case.on_device(&devices, &wanted) {
            Ok(_) => {
                done += 1;
                case.check(&devices, &wanted);
            }
            Err(Stop::Device(compute::gpu::Failure::OutOfMemory)) => no_memory += 1,
            Err(other) => panic!("round {round}: {other:?}"),
        }
        let status = &devices.gpus.status()[0];
        assert!(status.memory_peak_bytes <= LIMIT, "{status:?}");
    }
    assert!(
        done > 10 * no_memory,
        "{done} done, {no_memory} without memory"
    );
    devices.gpus.clear();
    assert_eq!(devices.gpus.status()[0].memory_used_bytes, 0);
    assert_eq!(devices.allocated(), baseline);
    assert!(devices.gpus.status()[0].launches >= done);
}
