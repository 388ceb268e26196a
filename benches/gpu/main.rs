//! Reductions on a CUDA device beside the processor: how fast each is, where the time goes, from what
//! size on a device is worth its copies, and whether many requests are answered well.
//!
//! `gpu [--emulated] [--mebibytes 1024] [--stress REQUESTS]`, by way of `scripts/bench-gpu.sh`.
//!
//! - Prints Markdown. Without a CUDA device it says so on standard error, prints nothing and succeeds.
//! - Every answer of the device is compared with the processor's, bit by bit.
//! - `--emulated` is for the emulated device of `compute/emulator`: small sizes, and a dash for every
//!   number, since its times say nothing of any device.
//! - `--stress` only sends requests of random shapes, in 1 GB of the device's memory.
//!
//! One device is measured, also where there are several. What is read from a store before, and
//! verified, is the same for either and is left out.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the report goes to standard output, why there is none to standard error"
)]

mod break_even;
mod limits;
mod report;
mod runs;
mod stress;
mod throughput;
mod workload;

use std::process::{Command, ExitCode};

use compute::gpu::{Gpus, Settings};

use report::Numbers;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What the emulated device is called begins with this.
const EMULATED: &str = "Quarr emulated device";
/// Decoded bytes of what is reduced.
const MEBIBYTES: u64 = 1024;
/// Memory of the device that random requests have.
const STRESS_BYTES: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Options {
    is_emulated: bool,
    mebibytes: u64,
    stress: Option<u64>,
}

impl Options {
    fn from_arguments() -> Result<Self, Error> {
        let mut options = Self {
            is_emulated: false,
            mebibytes: MEBIBYTES,
            stress: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<u64, Error> {
                let text = arguments.next();
                let text = text.ok_or_else(|| format!("{argument} takes a number"))?;
                Ok(text.parse::<u64>()?.max(1))
            };
            match argument.as_str() {
                "--emulated" => options.is_emulated = true,
                "--mebibytes" => options.mebibytes = number()?,
                "--stress" => options.stress = Some(number()?),
                _ => {
                    let usage = "usage: gpu [--emulated] [--mebibytes N] [--stress REQUESTS]";
                    return Err(usage.into());
                }
            }
        }
        Ok(options)
    }
}

fn main() -> Result<ExitCode, Error> {
    let options = Options::from_arguments()?;
    let settings = Settings {
        memory_limit_bytes: options.stress.map(|_| match options.is_emulated {
            true => STRESS_BYTES / 50,
            false => STRESS_BYTES,
        }),
        ..Settings::default()
    };
    let gpus = match Gpus::open(settings) {
        Ok(gpus) => gpus,
        Err(reason) if options.is_emulated => return Err(reason.into()),
        Err(reason) => {
            eprintln!("no CUDA device: {reason}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let status = gpus.status();
    let name = status.first().map_or("", |device| &device.name);
    if name.starts_with(EMULATED) != options.is_emulated {
        let which = if options.is_emulated { "no" } else { "an" };
        return Err(format!("{name} is {which} emulated device: see --emulated").into());
    }
    if let Some(requests) = options.stress {
        let is_well = stress::run(&gpus, requests)?;
        return Ok(if is_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let numbers = Numbers {
        are_shown: !options.is_emulated,
    };
    let threads = std::thread::available_parallelism()?.get();
    head(name, threads);
    let limits = limits::measure(options.is_emulated)?;
    throughput::run(&gpus, &limits, &options.sizes(), threads, numbers)?;
    break_even::run(&gpus, &options.sizes(), threads, numbers)?;
    drop(gpus);
    let settings = Settings {
        decompresses: true,
        ..settings
    };
    let gpus = Gpus::open(settings)?;
    throughput::run_compressed(&gpus, &limits, &options.sizes(), threads, numbers)?;
    Ok(ExitCode::SUCCESS)
}

/// Sizes of what is measured.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Lengths of an inner chunk: time, latitude, longitude.
    inner_shape: [u64; 3],
    /// Inner chunks of 32-bit elements; of 16-bit ones, twice as many.
    chunks: usize,
    /// Decoded bytes that one task of the device takes, about.
    task_bytes: usize,
    /// How often each measurement is made.
    runs: usize,
}

impl Options {
    fn sizes(&self) -> Sizes {
        if self.is_emulated {
            return Sizes {
                inner_shape: [4, 8, 16],
                chunks: 8,
                task_bytes: 5000,
                runs: 1,
            };
        }
        Sizes {
            // 1 MiB, as importers choose it.
            inner_shape: [32, 64, 128],
            chunks: self.mebibytes as usize,
            // As the read path cuts its work.
            task_bytes: 32 << 20,
            runs: 5,
        }
    }
}

fn head(name: &str, threads: usize) {
    let commit = said(&["git", "describe", "--always", "--dirty", "--abbrev=12"]);
    let query = [
        "nvidia-smi",
        "--query-gpu=driver_version",
        "--format=csv,noheader",
        "--id=0",
    ];
    println!(
        "{name}, driver {}; {}, {threads} threads; {}, commit {commit}.\n",
        said(&query),
        report::processor(),
        said(&["date", "-u", "+%Y-%m-%d"]),
    );
}

/// What a program prints; a word for nothing where it is not there.
fn said(command: &[&str]) -> String {
    let output = command
        .split_first()
        .and_then(|(program, arguments)| Command::new(program).args(arguments).output().ok())
        .filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
