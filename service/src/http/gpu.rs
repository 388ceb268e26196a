//! CUDA devices in `/v1/status` and `/metrics`: what they are, and what they have done.

use compute::gpu::{DeviceStatus, Rates};
use query::{DeviceUse, Devices};
use serde::{Deserialize, Serialize};

use crate::telemetry::exposition::{Exposition, Kind};

/// CUDA devices that reduce.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct GpuInfo {
    /// `never`, `auto` (where they are faster) or `always`.
    #[serde(rename = "use")]
    used: String,
    /// Why there is none; absent if there are some, or none was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
    devices: Vec<DeviceInfo>,
    /// What they were measured to do when the server began.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<RatesInfo>,
}

/// A CUDA device, and what it has done since the server began.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct DeviceInfo {
    /// Its name, as the driver has it.
    name: String,
    /// Whether it failed too often to be asked again.
    broken: bool,
    /// Its memory.
    memory_bytes: u64,
    /// How much of it may be used.
    memory_limit_bytes: u64,
    /// How much is used now.
    memory_used_bytes: u64,
    /// The most that ever was.
    memory_peak_bytes: u64,
    /// Of what is used, inner chunks that stay.
    cache_bytes: u64,
    /// How many these are.
    cached_chunks: u64,
    /// Inner chunks that were there already.
    cache_hits: u64,
    /// Inner chunks that were not.
    cache_misses: u64,
    /// Pieces of work it did.
    tasks: u64,
    /// Inner chunks it reduced.
    chunks: u64,
    /// Kernels that were started.
    launches: u64,
    /// Pieces of work whose kernels were started together, as a graph.
    graph_launches: u64,
    /// Bytes of chunks that were copied to it.
    copied_bytes: u64,
    fallbacks: FallbacksInfo,
}

/// Pieces of work that the processor did instead, by why.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct FallbacksInfo {
    /// All streams of the device were at work.
    busy: u64,
    /// The device had no memory for it.
    memory: u64,
    /// The device failed.
    failure: u64,
    /// It did not decompress what came to it.
    undecoded: u64,
}

/// Speeds, measured with sums of `float32`.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct RatesInfo {
    /// What a piece of work takes on a device, whatever its size.
    task_ms: f64,
    /// Bytes a second that come to a device.
    copy_bytes_per_second: f64,
    /// Bytes a second that a device reduces.
    device_bytes_per_second: f64,
    /// Bytes a second that a thread of the processor reduces.
    thread_bytes_per_second: f64,
}

impl From<&Devices> for GpuInfo {
    fn from(devices: &Devices) -> Self {
        let used = match devices.used() {
            DeviceUse::Never => "never",
            DeviceUse::WhereFaster => "auto",
            DeviceUse::Always => "always",
        };
        Self {
            used: used.to_owned(),
            unavailable: devices.unavailable().map(ToString::to_string),
            devices: devices.status().into_iter().map(DeviceInfo::from).collect(),
            rates: devices.rates().map(RatesInfo::from),
        }
    }
}

impl From<DeviceStatus> for DeviceInfo {
    fn from(status: DeviceStatus) -> Self {
        Self {
            name: status.name,
            broken: status.is_broken,
            memory_bytes: status.memory_bytes,
            memory_limit_bytes: status.memory_limit_bytes,
            memory_used_bytes: status.memory_used_bytes,
            memory_peak_bytes: status.memory_peak_bytes,
            cache_bytes: status.cache_bytes,
            cached_chunks: status.cached_chunks,
            cache_hits: status.cache_hits,
            cache_misses: status.cache_misses,
            tasks: status.tasks,
            chunks: status.boxes,
            launches: status.launches,
            graph_launches: status.replays,
            copied_bytes: status.copied_bytes,
            fallbacks: FallbacksInfo {
                busy: status.busy,
                memory: status.out_of_memory,
                failure: status.failures,
                undecoded: status.undecoded,
            },
        }
    }
}

impl From<Rates> for RatesInfo {
    fn from(rates: Rates) -> Self {
        Self {
            task_ms: rates.task_seconds * 1e3,
            copy_bytes_per_second: rates.copy_bytes_per_second,
            device_bytes_per_second: rates.device_bytes_per_second,
            thread_bytes_per_second: rates.thread_bytes_per_second,
        }
    }
}

/// A metric of each device.
struct OfDevice {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&DeviceStatus) -> u64,
}

const OF_DEVICES: [OfDevice; 12] = [
    gauge(
        "quarr_gpu_memory_bytes",
        "Memory of a CUDA device.",
        |device| device.memory_bytes,
    ),
    gauge(
        "quarr_gpu_memory_limit_bytes",
        "How much of it may be used.",
        |device| device.memory_limit_bytes,
    ),
    gauge(
        "quarr_gpu_memory_used_bytes",
        "How much of it is used.",
        |device| device.memory_used_bytes,
    ),
    gauge(
        "quarr_gpu_cache_bytes",
        "Inner chunks that stay on a CUDA device.",
        |device| device.cache_bytes,
    ),
    counter(
        "quarr_gpu_cache_hits_total",
        "Inner chunks that were on the CUDA device already.",
        |device| device.cache_hits,
    ),
    counter(
        "quarr_gpu_cache_misses_total",
        "Inner chunks that were not.",
        |device| device.cache_misses,
    ),
    counter(
        "quarr_gpu_tasks_total",
        "Pieces of work that a CUDA device did.",
        |device| device.tasks,
    ),
    counter(
        "quarr_gpu_chunks_total",
        "Inner chunks that a CUDA device reduced.",
        |device| device.boxes,
    ),
    counter(
        "quarr_gpu_launches_total",
        "Kernels that were started.",
        |device| device.launches,
    ),
    counter(
        "quarr_gpu_graph_launches_total",
        "Pieces of work whose kernels were started together, as a graph.",
        |device| device.replays,
    ),
    counter(
        "quarr_gpu_copied_bytes_total",
        "Bytes of chunks that were copied to a CUDA device.",
        |device| device.copied_bytes,
    ),
    gauge(
        "quarr_gpu_broken",
        "1 once a CUDA device failed too often to be asked again.",
        |device| u64::from(device.is_broken),
    ),
];

const fn gauge(
    name: &'static str,
    help: &'static str,
    value: fn(&DeviceStatus) -> u64,
) -> OfDevice {
    let kind = Kind::Gauge;
    OfDevice {
        name,
        kind,
        help,
        value,
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    value: fn(&DeviceStatus) -> u64,
) -> OfDevice {
    let kind = Kind::Counter;
    OfDevice {
        name,
        kind,
        help,
        value,
    }
}

/// Writes the metrics of all devices, which are numbered as in the status.
pub(super) fn expose(text: &mut Exposition, devices: &Devices) {
    let all = devices.status();
    let numbers: Vec<String> = (0..all.len()).map(|number| number.to_string()).collect();
    for metric in OF_DEVICES {
        let mut family = text.family(metric.name, metric.kind, metric.help);
        for (number, device) in numbers.iter().zip(&all) {
            family.sample(&[("device", number)], (metric.value)(device));
        }
    }
    let mut family = text.family(
        "quarr_gpu_fallbacks_total",
        Kind::Counter,
        "Pieces of work that the processor did instead of a CUDA device.",
    );
    for (number, device) in numbers.iter().zip(&all) {
        let reasons = [
            ("busy", device.busy),
            ("memory", device.out_of_memory),
            ("failure", device.failures),
            ("undecoded", device.undecoded),
        ];
        for (reason, count) in reasons {
            family.sample(&[("device", number), ("reason", reason)], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_devices_the_metrics_have_no_samples() {
        let mut text = Exposition::default();
        expose(&mut text, &Devices::default());
        let text = text.into_text();
        assert!(text.contains("# TYPE quarr_gpu_broken gauge\n"), "{text}");
        assert!(
            text.contains("# TYPE quarr_gpu_fallbacks_total counter\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    }
}
