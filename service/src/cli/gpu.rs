//! CUDA devices of a process: when they are looked for, and how much of them is used.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use compute::gpu::Settings;
use query::{DeviceUse, Devices};
use tracing::{info, warn};

use super::sizes::parse_bytes;

/// Fewer bytes do not do: what a device is measured with at the start has to fit.
const LEAST_MEMORY_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, Args)]
pub(super) struct GpuArgs {
    /// Reduce on CUDA devices: never, auto (where they are faster) or always (all that they can do)
    /// [default: auto for serve, never for other commands]
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        env = "QUARR_GPU",
        hide_possible_values = true
    )]
    gpu: Option<When>,
    /// Most memory that is used of each CUDA device, for instance 8GiB [default: three quarters of it]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_memory, env = "QUARR_GPU_MEMORY")]
    gpu_memory: Option<u64>,
    /// Most CUDA devices that are used [default: all]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), env = "QUARR_GPU_DEVICES")]
    gpu_devices: Option<u16>,
    /// Let nvCOMP, where it is installed, decompress on CUDA devices: only for stores all of whose
    /// writers are trusted
    #[arg(long, global = true, env = "QUARR_GPU_DECOMPRESS")]
    gpu_decompress: bool,
    /// Let cuBLAS, where it is installed, multiply matrices of floats: faster, and the last bits of a
    /// product then depend on who computed it
    #[arg(long, global = true, env = "QUARR_GPU_RELAXED")]
    gpu_relaxed: bool,
}

/// As [`DeviceUse`], for the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum When {
    Never,
    Auto,
    Always,
}

/// Devices, and how long it took to open them.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) devices: Devices,
    pub(super) time: Duration,
}

impl GpuArgs {
    /// Looks for the devices and measures them, when they are to be used; `otherwise` says when that
    /// is if nobody does. Waits for the driver, which may need seconds.
    pub(super) fn open(&self, otherwise: When) -> Opened {
        let started = Instant::now();
        let used = match self.gpu.unwrap_or(otherwise) {
            When::Never => DeviceUse::Never,
            When::Auto => DeviceUse::WhereFaster,
            When::Always => DeviceUse::Always,
        };
        let settings = Settings {
            memory_limit_bytes: self.gpu_memory,
            devices_max: self.gpu_devices.map(usize::from),
            decompresses: self.gpu_decompress,
            is_relaxed: self.gpu_relaxed,
        };
        Opened {
            devices: Devices::open(used, settings),
            time: started.elapsed(),
        }
    }
}

impl Opened {
    /// Says what was found in the log; nothing where nothing was looked for.
    pub(super) fn log(&self) {
        let time_ms = self.time.as_millis() as u64;
        if let Some(reason) = self.devices.unavailable() {
            match self.devices.used() {
                DeviceUse::Always => {
                    warn!(%reason, time_ms, "no CUDA device, though one is always to be used: the processor reduces");
                }
                DeviceUse::WhereFaster | DeviceUse::Never => {
                    info!(%reason, time_ms, "no CUDA device is used");
                }
            }
        }
        for (device, status) in self.devices.status().iter().enumerate() {
            let (memory_bytes, limit_bytes) = (status.memory_bytes, status.memory_limit_bytes);
            info!(device, name = %status.name, memory_bytes, limit_bytes, "CUDA device is used");
        }
        if let Some(version) = self.devices.nvcomp_version() {
            info!(%version, "nvCOMP decompresses on CUDA devices");
        }
        if let Some(rates) = self.devices.rates() {
            info!(
                time_ms,
                task_us = rates.task_seconds * 1e6,
                copy_bytes_per_second = rates.copy_bytes_per_second as u64,
                device_bytes_per_second = rates.device_bytes_per_second as u64,
                thread_bytes_per_second = rates.thread_bytes_per_second as u64,
                "CUDA devices were measured"
            );
        }
    }
}

/// A number of bytes of a device's memory.
fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        bytes if bytes < LEAST_MEMORY_BYTES => Err(format!(
            "{bytes} bytes of a device are too few, 16MiB is the least"
        )),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        gpu: GpuArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<GpuArgs, String> {
        let whole = [&["quarr"], arguments].concat();
        let parsed = Alone::try_parse_from(whole).map_err(|error| error.to_string());
        parsed.map(|alone| alone.gpu)
    }

    #[test]
    fn settings_of_devices_are_checked() {
        let args = parsed(&[
            "--gpu",
            "always",
            "--gpu-memory",
            "2GiB",
            "--gpu-devices",
            "3",
        ]);
        let args = args.unwrap();
        assert!(matches!(args.gpu, Some(When::Always)));
        assert_eq!(
            (args.gpu_memory, args.gpu_devices),
            (Some(2 << 30), Some(3))
        );
        for (wrong, said) in [
            (["--gpu", "sometimes"], "never, auto, always"),
            (["--gpu-memory", "15MiB"], "16MiB is the least"),
            (["--gpu-memory", "half"], "no number of bytes"),
            (["--gpu-devices", "0"], "1..=64"),
            (["--gpu-devices", "all"], "invalid digit"),
        ] {
            let refused = parsed(&wrong).unwrap_err();
            assert!(refused.contains(said), "{wrong:?}: {refused}");
        }
    }

    #[test]
    fn devices_that_are_not_wanted_are_not_looked_for() {
        let opened = parsed(&["--gpu", "never"]).unwrap().open(When::Always);
        assert_eq!(opened.devices.used(), DeviceUse::Never);
        assert!(opened.devices.unavailable().is_none());
        let opened = parsed(&[]).unwrap().open(When::Never);
        assert_eq!(opened.devices.used(), DeviceUse::Never);
    }
}
