//! How fast whole reductions are, and where the time of a device goes.

use std::time::Duration;

use compute::Reducer;
use compute::gpu::Gpus;
use quarr_benches::Timing;

use crate::limits::Limits;
use crate::report::{self, Numbers};
use crate::runs::{Asked, From, LANES, Outcome, on_device, on_processor};
use crate::workload::{Data, Stored};
use crate::{Error, Sizes};

const EVERYTHING: [bool; 3] = [true, true, true];
const TIME: [bool; 3] = [true, false, false];
const AXES: [[bool; 3]; 4] = [EVERYTHING, TIME, [false, true, false], [false, false, true]];

const TITLES: [&str; 10] = [
    "stored as",
    "ratio",
    "reduction",
    "processor, 1 thread",
    "processor, all threads",
    "device, streamed",
    "device, resident",
    "streamed, × all threads",
    "resident, × all threads",
    "resident, of the memory's rate",
];

/// Prints the tables.
pub(crate) fn run(
    gpus: &Gpus,
    limits: &Limits,
    sizes: &Sizes,
    threads: usize,
    numbers: Numbers,
) -> Result<(), Error> {
    let mut stages = Vec::new();
    println!("### From encoded chunks in memory to the answer\n");
    println!(
        "GB/s of decoded data, medians of {} runs. *Streamed* chunks are decoded by the processor as far \
         as kernels do not do it, copied and reduced, {LANES} tasks at a time; *resident* ones stayed on \
         the device. All answers had the same bits. At best: {} GB/s from pinned memory of the host to the \
         device, {} GB/s read and written by copies within its memory.\n",
        sizes.runs,
        numbers.short(limits.bus / 1e9),
        numbers.short(limits.memory / 1e9),
    );
    println!("{}", report::head(&TITLES));
    for stored in Stored::ALL {
        let data = Data::new(stored, sizes)?;
        let asked = AXES.map(|reduced| Asked {
            reducer: Reducer::Mean,
            reduced,
        });
        let spreads = [EVERYTHING, TIME].map(|reduced| Asked {
            reducer: Reducer::Std,
            reduced,
        });
        let more = if stored == Stored::Plain {
            &spreads[..]
        } else {
            &[]
        };
        for asked in asked.iter().chain(more) {
            println!(
                "{}",
                compared(gpus, &data, asked, limits, sizes, threads, numbers)?
            );
        }
        stages.push(by_stage(gpus, &data, limits, sizes, numbers)?);
        gpus.clear();
    }
    println!("\n### Where the time of a device goes\n");
    println!(
        "The mean over everything, one task at a time; GB/s of decoded data for each stage by itself. \
         *Copy* is what a run without decoding takes longer than one of resident chunks; its rate in bytes \
         that are copied is beside the bus's.\n"
    );
    println!(
        "{}",
        report::head(&[
            "stored as",
            "decode, 1 thread",
            "copy",
            "copied, of the bus's rate",
            "kernels and results",
            "all, one after the other",
        ])
    );
    stages.iter().for_each(|row| println!("{row}"));
    println!();
    Ok(())
}

/// Prints the same of chunks that are decompressed on the device, if it does that.
pub(crate) fn run_compressed(
    gpus: &Gpus,
    limits: &Limits,
    sizes: &Sizes,
    threads: usize,
    numbers: Numbers,
) -> Result<(), Error> {
    println!("### Decompressed on the device\n");
    let Some(version) = gpus.nvcomp_version() else {
        println!("nvCOMP was not found: not measured.\n");
        return Ok(());
    };
    println!(
        "As the first table, with nvCOMP {version}: *streamed* chunks are copied compressed.\n"
    );
    println!("{}", report::head(&TITLES));
    for stored in [Stored::Zstd, Stored::BitShuffled] {
        let data = Data::new(stored, sizes)?;
        for reduced in AXES {
            let asked = Asked {
                reducer: Reducer::Mean,
                reduced,
            };
            println!(
                "{}",
                compared(gpus, &data, &asked, limits, sizes, threads, numbers)?
            );
        }
        let device = gpus.status().into_iter().next();
        if device.is_none_or(|device| device.decompressed_bytes == 0) {
            return Err(
                format!("{}: nothing was decompressed on the device", stored.name()).into(),
            );
        }
        gpus.clear();
    }
    println!();
    Ok(())
}

/// A row of the first table.
fn compared(
    gpus: &Gpus,
    data: &Data,
    asked: &Asked,
    limits: &Limits,
    sizes: &Sizes,
    threads: usize,
    numbers: Numbers,
) -> Result<String, Error> {
    let device = |from| on_device(gpus, data, asked, from, sizes.task_bytes, threads);
    let single = median(sizes.runs, || on_processor(data, asked, 1))?;
    let all = median(sizes.runs, || on_processor(data, asked, threads))?;
    let streamed = median(sizes.runs, || device(From::Host))?;
    device(From::Device)?;
    let resident = median(sizes.runs, || device(From::Device))?;
    for (name, other) in [("streamed", &streamed), ("resident", &resident)] {
        if other.answer != single.answer || all.answer != single.answer {
            return Err(format!(
                "{}, {}: {name} has other bits",
                data.stored.name(),
                asked.name()
            )
            .into());
        }
    }
    let bytes = data.decoded_bytes();
    // What kernels read is a chunk in its layout.
    let read = bytes as f64 * layout_share(data);
    Ok(report::row(&[
        data.stored.name().to_owned(),
        numbers.short(bytes as f64 / data.encoded_bytes() as f64),
        asked.name(),
        numbers.rate(bytes, single.seconds),
        numbers.rate(bytes, all.seconds),
        numbers.rate(bytes, streamed.seconds),
        numbers.rate(bytes, resident.seconds),
        numbers.short(all.seconds / streamed.seconds),
        numbers.short(all.seconds / resident.seconds),
        numbers.short(read / resident.seconds / limits.memory),
    ]))
}

/// A row of the second table.
fn by_stage(
    gpus: &Gpus,
    data: &Data,
    limits: &Limits,
    sizes: &Sizes,
    numbers: Numbers,
) -> Result<String, Error> {
    let asked = Asked {
        reducer: Reducer::Mean,
        reduced: EVERYTHING,
    };
    let run = |from| {
        median(sizes.runs, || {
            on_device(gpus, data, &asked, from, sizes.task_bytes, 1)
        })
    };
    let all = run(From::Host)?;
    let copies = run(From::Copies)?;
    on_device(gpus, data, &asked, From::Device, sizes.task_bytes, 1)?;
    let kernels = run(From::Device)?;
    let bytes = data.decoded_bytes();
    let copying = copies.seconds - kernels.seconds;
    let copied = bytes as f64 * layout_share(data);
    Ok(report::row(&[
        data.stored.name().to_owned(),
        numbers.rate(bytes, all.staging_seconds),
        numbers.rate(bytes, copying),
        numbers.short(copied / copying / limits.bus),
        numbers.rate(bytes, kernels.seconds),
        numbers.rate(bytes, all.seconds),
    ]))
}

/// Bytes of chunks in their layout, which are copied and then read, for a decoded one.
fn layout_share(data: &Data) -> f64 {
    let element_bytes = data.data_type.size_bytes().unwrap_or(1);
    let lengths = data
        .layouts
        .iter()
        .map(|layout| layout.length_bytes(data.chunk_bytes(), element_bytes));
    lengths.sum::<usize>() as f64 / data.decoded_bytes() as f64
}

/// The middle one of several runs; the answer is the last one's.
pub(crate) fn median(
    runs: usize,
    mut measure: impl FnMut() -> Result<Outcome, Error>,
) -> Result<Outcome, Error> {
    let (mut all, mut staging) = (Vec::new(), Vec::new());
    let mut answer = Vec::new();
    for _ in 0..runs.max(1) {
        let outcome = measure()?;
        all.push(Duration::from_secs_f64(outcome.seconds));
        staging.push(Duration::from_secs_f64(outcome.staging_seconds));
        answer = outcome.answer;
    }
    Ok(Outcome {
        seconds: Timing::of(all).median.as_secs_f64(),
        staging_seconds: Timing::of(staging).median.as_secs_f64(),
        answer,
    })
}
