//! How fast devices and processors are, measured once, and which of them a reduction is given to.

use std::time::{Duration, Instant};

use array::{DataType, Layout};

use super::Gpus;
use super::accumulators::Wanted;
use super::task::{BoxOf, Staged, Task};
use super::walk::{Geometry, Stretch};
use crate::lanes::{SumOf, Vectors};
use crate::{Block, Partial, Reducer, Reduction, product};

/// Elements of the chunk, of 32 bits, that shows what a task costs whatever its size.
const SMALL: u64 = 1 << 10;
/// Side of the matrices for the same.
const SMALL_MATRIX: usize = 32;
/// A device that needs longer for these is measured with the second of these numbers of elements, and
/// sides, others with the first.
const SLOW: Duration = Duration::from_millis(1);
const LARGE: [u64; 2] = [1 << 22, 1 << 18];
const MATRIX: [usize; 2] = [512, 96];
/// Elements, and the side of matrices, that a thread of the processor is measured with.
const PART: u64 = 1 << 18;
const SIDE: usize = 64;
/// A measurement that takes longer is not repeated.
const LONG: Duration = Duration::from_millis(50);

/// What reductions cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Seconds of a task on a device, whatever its size.
    pub task_seconds: f64,
    /// Bytes a second from the host to a device, staged and copied.
    pub copy_bytes_per_second: f64,
    /// Bytes a second that a device reduces where they are.
    pub device_bytes_per_second: f64,
    /// Bytes a second that one thread of the processor reduces.
    pub thread_bytes_per_second: f64,
    /// Seconds of sums over vectors on a device, whatever their size.
    pub sums_seconds: f64,
    /// Multiplications a second in sums over vectors, on a device.
    pub device_products_per_second: f64,
    /// And on one thread of the processor.
    pub thread_products_per_second: f64,
}

/// A reduction, as far as its cost depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Tasks it is cut into.
    pub tasks: u64,
    /// Bytes of inner chunks, decoded.
    pub decoded_bytes: u64,
    /// Of these, bytes that are on a device.
    pub resident_bytes: u64,
    /// Bytes of results that come back.
    pub result_bytes: u64,
    /// How many things are found of each value.
    pub wanted: u64,
    /// Threads of the processor.
    pub threads: u64,
    /// Devices.
    pub devices: u64,
}

/// What a reduction is taken to need, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// On devices, copies included.
    pub device_seconds: f64,
    /// On the processor.
    pub processor_seconds: f64,
}

impl Estimate {
    /// Whether devices are faster.
    pub fn prefers_device(&self) -> bool {
        self.device_seconds < self.processor_seconds
    }
}

impl Rates {
    /// What a reduction is taken to need. Decoding is not counted: it is done before, on either way.
    pub fn estimate(&self, work: &Workload) -> Estimate {
        let wanted = work.wanted.max(1) as f64;
        let decoded = work.decoded_bytes as f64;
        let copied = work.decoded_bytes.saturating_sub(work.resident_bytes) as f64;
        let moved = copied + work.result_bytes as f64;
        let device = self.task_seconds * work.tasks as f64
            + moved / self.copy_bytes_per_second
            + wanted * decoded / self.device_bytes_per_second;
        Estimate {
            device_seconds: device / work.devices.max(1) as f64,
            processor_seconds: wanted * decoded
                / (self.thread_bytes_per_second * work.threads.max(1) as f64),
        }
    }

    /// What sums over vectors are taken to need: so many multiplications, and bytes of vectors and
    /// sums that are copied.
    pub fn estimate_sums(&self, products: u64, copied_bytes: u64, threads: u64) -> Estimate {
        let products = products as f64;
        Estimate {
            device_seconds: self.sums_seconds
                + copied_bytes as f64 / self.copy_bytes_per_second
                + products / self.device_products_per_second,
            processor_seconds: products / (self.thread_products_per_second * threads.max(1) as f64),
        }
    }

    /// Measures a machine: sums of 32-bit floats. Takes some milliseconds, and as long as the driver
    /// needs for its first kernel.
    pub(super) fn measure(gpus: &Gpus) -> Option<Self> {
        let time =
            |elements, key| best(|| reduce(gpus, elements, key)).map(|time| time.as_secs_f64());
        let key = |nth: u8| {
            Some((
                array::Hash::from_bytes([nth; 32]),
                array::Hash::from_bytes([0; 32]),
            ))
        };
        // The first one compiles.
        reduce(gpus, SMALL, None)?;
        let task = time(SMALL, None)?;
        let is_slow = |seconds: f64| usize::from(seconds > SLOW.as_secs_f64());
        // A device may have little memory for it.
        let sizes = LARGE[is_slow(task)..].iter();
        let (large, cold, warm) = sizes.copied().find_map(|large| {
            let cold = time(large, None)?;
            reduce(gpus, large, key(0))?;
            Some((large, cold, time(large, key(0))?))
        })?;
        gpus.clear();
        let bytes = 4.0 * large as f64;
        let part = vec![0x3c; 4 * PART as usize];
        let thread = best(|| on_processor(&part))?;
        multiply(gpus, SMALL_MATRIX)?;
        let sums = best(|| multiply(gpus, SMALL_MATRIX))?.as_secs_f64();
        let side = MATRIX[is_slow(sums)];
        let large_sums = best(|| multiply(gpus, side))?.as_secs_f64();
        let thread_sums = best(|| Some(multiply_here(SIDE)))?.as_secs_f64();
        let cube = |side: usize| (side * side * side) as f64;
        // Differences of two measurements may be anything where these are near each other: a part of
        // the longer one then, so that nothing is taken to cost nothing.
        let difference = |longer: f64, shorter: f64| (longer - shorter).max(longer / 8.0);
        Some(Self {
            task_seconds: task,
            copy_bytes_per_second: bytes / difference(cold, warm),
            device_bytes_per_second: bytes / difference(warm, task),
            thread_bytes_per_second: 4.0 * PART as f64 / thread.as_secs_f64().max(1e-9),
            sums_seconds: sums,
            device_products_per_second: cube(side) / difference(large_sums, sums),
            thread_products_per_second: cube(SIDE) / thread_sums.max(1e-9),
        })
    }
}

/// The shortest of a few.
fn best(mut measure: impl FnMut() -> Option<Duration>) -> Option<Duration> {
    let mut shortest = measure()?;
    for _ in 0..4 {
        if shortest > LONG {
            break;
        }
        shortest = shortest.min(measure()?);
    }
    Some(shortest)
}

/// The time of one task on the first device.
fn reduce(gpus: &Gpus, elements: u64, key: Option<super::Key>) -> Option<Duration> {
    let geometry = Geometry {
        inner_shape: vec![elements],
        stretches: vec![Stretch {
            start: 0,
            step: 1,
            length: elements,
        }],
        reduced: vec![true],
    };
    let boxes = [BoxOf {
        key,
        places: vec![Vec::new()],
    }];
    let task = Task {
        data_type: &DataType::Float32,
        decoder: None,
        chunk_bytes: 4 * elements as usize,
        geometry: &geometry,
        selection_shape: &[elements],
        wanted: &[Wanted::Plain(Reduction::new(Reducer::Sum))],
        boxes: &boxes,
    };
    let started = Instant::now();
    let stage = |_, out: &mut [u8]| -> Result<Staged, ()> {
        // As much as copying decoded bytes there costs.
        out.fill(0x3c);
        Ok(Staged {
            length: out.len(),
            layout: Layout::ELEMENTS,
            streams: None,
        })
    };
    gpus.run_on(0, &task, stage).ok()?;
    Some(started.elapsed())
}

/// The time of the product of two square matrices on a device.
fn multiply(gpus: &Gpus, side: usize) -> Option<Duration> {
    let bytes = vec![0x3c; 4 * side * side];
    let matrix = Vectors::rows(&DataType::Float32, &bytes, side, side);
    let started = Instant::now();
    gpus.sums(SumOf::Products, &matrix, &matrix, false).ok()?;
    Some(started.elapsed())
}

/// And on the processor.
fn multiply_here(side: usize) -> Duration {
    let bytes = vec![0x3c; 4 * side * side];
    let matrix = Vectors::rows(&DataType::Float32, &bytes, side, side);
    let started = Instant::now();
    let all = 0..side;
    let product = product::multiply(&DataType::Float32, &matrix, &matrix, all.clone(), all);
    std::hint::black_box(product);
    started.elapsed()
}

/// The time of the same on one thread of the processor.
fn on_processor(bytes: &[u8]) -> Option<Duration> {
    let elements = bytes.len() as u64 / 4;
    let block = Block {
        data_type: &DataType::Float32,
        bytes,
        shape: &[elements],
        reduced: &[true],
        places: &[Vec::new()],
        selection_shape: &[elements],
    };
    let started = Instant::now();
    let partial = Partial::of(Reduction::new(Reducer::Sum), &block).ok()?;
    std::hint::black_box(partial);
    Some(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        task_seconds: 20e-6,
        copy_bytes_per_second: 50e9,
        device_bytes_per_second: 3e12,
        thread_bytes_per_second: 8e9,
        sums_seconds: 30e-6,
        device_products_per_second: 1e12,
        thread_products_per_second: 3e9,
    };

    fn prefers_device(work: Workload) -> bool {
        RATES.estimate(&work).prefers_device()
    }

    #[test]
    fn devices_are_given_what_is_large_or_is_there() {
        let work = Workload {
            tasks: 1,
            decoded_bytes: 64 << 20,
            wanted: 1,
            threads: 2,
            devices: 1,
            ..Workload::default()
        };
        assert!(prefers_device(work));
        let small = Workload {
            decoded_bytes: 4096,
            ..work
        };
        assert!(!prefers_device(small));
        // Sixteen threads are faster than the bus, and slower than the device's memory.
        let many = Workload {
            threads: 16,
            ..work
        };
        assert!(!prefers_device(many));
        let resident_bytes = many.decoded_bytes;
        assert!(prefers_device(Workload {
            resident_bytes,
            ..many
        }));
        let results = Workload {
            result_bytes: 8 * many.decoded_bytes,
            resident_bytes,
            ..many
        };
        assert!(!prefers_device(results));
    }

    #[test]
    fn products_are_given_to_devices_where_they_are_worth_the_copies() {
        let is_on_device = |side: u64| {
            let estimate = RATES.estimate_sums(side * side * side, 3 * 8 * side * side, 16);
            estimate.prefers_device()
        };
        assert!(!is_on_device(16));
        assert!(is_on_device(1024));
    }
}
