//! From what size on a device is faster, measured, beside what Quarr goes by.

use compute::Reducer;
use compute::gpu::{Gpus, Workload};

use crate::report::{self, Numbers};
use crate::runs::{Asked, From, on_device, on_processor};
use crate::throughput::median;
use crate::workload::{Data, Stored};
use crate::{Error, Sizes};

/// Bytes of results of a chunk: one accumulator.
const RESULT_BYTES: u64 = 24;
const MEAN: Asked = Asked {
    reducer: Reducer::Mean,
    reduced: [true, true, true],
};

/// Prints the table.
pub(crate) fn run(
    gpus: &Gpus,
    sizes: &Sizes,
    threads: usize,
    numbers: Numbers,
) -> Result<(), Error> {
    let rates = gpus.rates().ok_or("the device was not measured")?;
    println!("### When a device is worth it\n");
    println!(
        "The mean of 32-bit floats over everything: what it took, and what Quarr took it to need when the \
         device was opened ({} µs a task, {} GB/s copied, {} GB/s reduced there, {} GB/s by one thread). \
         *Right*: the faster one was chosen.\n",
        numbers.short(rates.task_seconds * 1e6),
        numbers.short(rates.copy_bytes_per_second / 1e9),
        numbers.short(rates.device_bytes_per_second / 1e9),
        numbers.short(rates.thread_bytes_per_second / 1e9),
    );
    println!(
        "{}",
        report::head(&[
            "KiB",
            "where chunks are",
            "threads",
            "processor, ms",
            "taken for",
            "device, ms",
            "taken for",
            "chosen",
            "right",
        ])
    );
    let mut counts = vec![1, threads.min(4), threads];
    counts.dedup();
    for (inner_shape, chunks) in steps(sizes) {
        let data = Data::of_chunks(Stored::Plain, inner_shape, chunks)?;
        for from in [From::Host, From::Device] {
            for &threads in &counts {
                println!("{}", row(gpus, &data, from, threads, sizes, numbers)?);
            }
        }
        gpus.clear();
    }
    println!();
    Ok(())
}

/// Shapes and numbers of chunks: parts of one, then more and more, four times as much each.
fn steps(sizes: &Sizes) -> Vec<([u64; 3], usize)> {
    let [times, rows, columns] = sizes.inner_shape;
    let parts = [16, 4].map(|part| ([(times / part).max(1), rows, columns], 1));
    let mut steps = parts.to_vec();
    let mut chunks = 1;
    while chunks <= sizes.chunks {
        steps.push((sizes.inner_shape, chunks));
        chunks *= 4;
    }
    steps
}

fn row(
    gpus: &Gpus,
    data: &Data,
    from: From,
    threads: usize,
    sizes: &Sizes,
    numbers: Numbers,
) -> Result<String, Error> {
    let device = || on_device(gpus, data, &MEAN, from, sizes.task_bytes, threads);
    let processor = median(sizes.runs, || on_processor(data, &MEAN, threads))?;
    // Kernels that come again are a graph, and resident chunks have to be there.
    device()?;
    device()?;
    let on_device = median(sizes.runs, device)?;
    if on_device.answer != processor.answer {
        return Err("the device has other bits".into());
    }
    let decoded_bytes = data.decoded_bytes();
    let is_resident = from == From::Device;
    let work = Workload {
        tasks: decoded_bytes.div_ceil(sizes.task_bytes as u64),
        decoded_bytes,
        resident_bytes: if is_resident { decoded_bytes } else { 0 },
        result_bytes: RESULT_BYTES * data.encoded.len() as u64,
        wanted: 1,
        threads: threads as u64,
        devices: 1,
    };
    let rates = gpus.rates().ok_or("the device was not measured")?;
    let taken = rates.estimate(&work);
    let is_faster = on_device.seconds < processor.seconds;
    let words = |chosen: bool| if chosen { "device" } else { "processor" };
    let shown = |text: &str| {
        if numbers.are_shown {
            text.to_owned()
        } else {
            "—".to_owned()
        }
    };
    Ok(report::row(&[
        (decoded_bytes >> 10).to_string(),
        (if is_resident { "resident" } else { "streamed" }).to_owned(),
        threads.to_string(),
        numbers.milliseconds(processor.seconds),
        numbers.milliseconds(taken.processor_seconds),
        numbers.milliseconds(on_device.seconds),
        numbers.milliseconds(taken.device_seconds),
        shown(words(taken.prefers_device())),
        shown(if is_faster == taken.prefers_device() {
            "yes"
        } else {
            "**no**"
        }),
    ]))
}
