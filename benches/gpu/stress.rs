//! Many requests of random shapes at once, in little memory: every answer is the processor's, and the
//! device has as much memory afterwards as before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use array::{DataType, Hash, Layout};
use compute::gpu::{BoxOf, Failure, Found, Gpus, Staged, Stop, Task, Wanted};
use compute::{Block, Partial, Reducer, Reduction};
use cudarc::driver::CudaContext;

use crate::Error;
use crate::runs::{share, whole};
use crate::workload::Random;

/// Threads that ask; more than a device has streams.
const THREADS: usize = 6;
/// Requests before the first look at the memory: by then each kernel was loaded.
const FIRST: u64 = 2000;
/// Before a device that is busy is asked again.
const WAIT: Duration = Duration::from_micros(50);
/// Requests that differ from each other.
const DIFFERENT: u64 = 20_000;
/// What the driver may have taken for itself meanwhile.
const SLACK_BYTES: u64 = 32 << 20;
const TYPES: [DataType; 11] = [
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
    DataType::Float16,
    DataType::Float32,
    DataType::Float64,
];

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    busy: AtomicU64,
    no_memory: AtomicU64,
    wrong: AtomicU64,
}

/// Sends the requests and prints what came of them; whether all is well.
pub(crate) fn run(gpus: &Gpus, requests: u64) -> Result<bool, Error> {
    let context = CudaContext::new(0)?;
    let free = || -> Result<u64, Error> {
        gpus.clear();
        context.synchronize()?;
        Ok(context.mem_get_info()?.0 as u64)
    };
    let counts = Counts::default();
    let send = |first: u64, count: u64| {
        share(THREADS, count as usize, |part| {
            request(gpus, first + part as u64, &counts)
        })
    };
    let first = FIRST.min(requests / 4);
    send(0, first)?;
    let before = free()?;
    send(first, requests - first)?;
    let after = free()?;
    let status = gpus.status();
    let device = status.first().ok_or("there is no device")?;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{requests} requests by {THREADS} threads: {} answered, {} found no memory, {} had \
         other bits than the processor's; {} times the device was busy.",
        read(&counts.done),
        read(&counts.no_memory),
        read(&counts.wrong),
        read(&counts.busy),
    );
    println!(
        "Free memory of the device: {before} bytes after {first} requests, {after} after all; Quarr held \
         at most {} of {} bytes, and {} in the end. {} failures.",
        device.memory_peak_bytes,
        device.memory_limit_bytes,
        device.memory_used_bytes,
        device.failures,
    );
    Ok(read(&counts.wrong) == 0
        && read(&counts.done) > requests / 2
        && device.failures == 0
        && device.memory_used_bytes == 0
        && device.memory_peak_bytes <= device.memory_limit_bytes
        && after + SLACK_BYTES >= before)
}

/// One request, which its number says everything of.
fn request(gpus: &Gpus, number: u64, counts: &Counts) -> Result<(), Error> {
    // Some come again, and find chunks that stayed.
    let seed = Random(number).below(DIFFERENT);
    let mut random = Random(seed);
    let data_type = &TYPES[random.below(TYPES.len() as u64) as usize];
    let axes = 1 + random.below(3);
    let most = [60_000, 240, 40][axes as usize - 1];
    let shape: Vec<u64> = (0..axes).map(|_| 1 + random.below(most)).collect();
    let reduced: Vec<bool> = shape.iter().map(|_| random.below(2) == 0).collect();
    let reducer = Reducer::ALL[random.below(Reducer::ALL.len() as u64) as usize];
    let reducer = if reducer == Reducer::Prod {
        Reducer::Sum
    } else {
        reducer
    };
    let count = shape.iter().product::<u64>() as usize;
    let bytes = elements(&mut random, data_type, count);
    // Now and then as many as there is hardly room for.
    let chunks = if random.below(50) == 0 {
        100
    } else {
        1 + random.below(6)
    };
    let is_kept = random.below(2) == 0;
    let reduction = Reduction::new(reducer);
    let places: Vec<Vec<u64>> = shape.iter().map(|&length| (0..length).collect()).collect();
    let boxes: Vec<BoxOf> = (0..chunks)
        .map(|nth| BoxOf {
            key: is_kept.then(|| (key(seed, nth), Hash::from_bytes([0; 32]))),
            places: places.clone(),
        })
        .collect();
    let geometry = whole(&shape, &reduced);
    let task = Task {
        data_type,
        decoder: None,
        chunk_bytes: bytes.len(),
        geometry: &geometry,
        selection_shape: &shape,
        wanted: &[Wanted::Plain(reduction)],
        boxes: &boxes,
    };
    let stage = |_, out: &mut [u8]| -> Result<Staged, Error> {
        out.copy_from_slice(&bytes);
        Ok(Staged {
            length: bytes.len(),
            layout: Layout::ELEMENTS,
            streams: None,
        })
    };
    let found = loop {
        match gpus.run_on(0, &task, stage) {
            Ok(found) => break found,
            Err(Stop::Device(Failure::Busy)) => {
                add(&counts.busy);
                std::thread::sleep(WAIT);
            }
            Err(Stop::Device(Failure::OutOfMemory)) => {
                add(&counts.no_memory);
                return Ok(());
            }
            Err(Stop::Device(failure)) => return Err(format!("request {number}: {failure}").into()),
            Err(Stop::Staging(error)) => return Err(error),
        }
    };
    let block = Block {
        data_type,
        bytes: &bytes,
        shape: &shape,
        reduced: &reduced,
        places: &places,
        selection_shape: &shape,
    };
    // An extreme of values that are all missing is nowhere, for either.
    let expected = Partial::of(reduction, &block)?.finish().ok();
    let is_same = |found: &Vec<Found>| match found.as_slice() {
        [Found::Plain(partial)] => partial.finish().ok() == expected,
        _ => false,
    };
    if found.len() == boxes.len() && found.iter().all(is_same) {
        add(&counts.done);
        return Ok(());
    }
    println!("request {number}: {data_type} {shape:?} {reduced:?} {reducer:?} has other bits");
    add(&counts.wrong);
    Ok(())
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a chunk of a request is known by.
fn key(seed: u64, nth: u64) -> Hash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&nth.to_le_bytes());
    Hash::from_bytes(bytes)
}

/// Elements of a type: any bits for integers, numbers and a few NaN for floats.
fn elements(random: &mut Random, data_type: &DataType, count: usize) -> Vec<u8> {
    let size = data_type.size_bytes().unwrap_or(1);
    let element = |_| {
        let bits = random.next();
        let number = match bits % 50 {
            0 => f64::NAN,
            _ => (bits >> 40) as f64 / 4096.0 - 2048.0,
        };
        let mut bytes = bits.to_le_bytes();
        match data_type {
            // Halves that are numbers: the exponent's highest bit is not set.
            DataType::Float16 => bytes[1] &= 0xbf,
            DataType::Float32 => bytes[..4].copy_from_slice(&(number as f32).to_le_bytes()),
            DataType::Float64 => bytes = number.to_le_bytes(),
            _ => {}
        }
        bytes.into_iter().take(size)
    };
    (0..count).flat_map(element).collect()
}
