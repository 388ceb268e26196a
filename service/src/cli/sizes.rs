//! How much memory and disk a process may take.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use query::{Costs, Engine, Settings};
use storage::Store;

use super::{Failed, Sizes};
use crate::state::Limits;

#[derive(Debug, Args)]
pub(super) struct SizeArgs {
    /// Memory for caches and the work of all requests together, for instance 512MiB; requests wait
    /// for it and are refused if that takes too long [default: half of the machine's]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_bytes, env = "QUARR_MEMORY_LIMIT")]
    memory_limit: Option<u64>,
    /// Threads that decode and compute [default: one for each core]
    #[arg(long, global = true, value_name = "N", env = "QUARR_THREADS")]
    threads: Option<usize>,
    /// Keep chunks of a remote store in this directory as well; they are there after a restart.
    #[arg(long, global = true, value_name = "DIR", env = "QUARR_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
    /// Most bytes in that directory
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_bytes, env = "QUARR_CACHE_DISK", default_value = "10GiB")]
    cache_disk: u64,
    /// Read data even where statistics tell the answer.
    #[arg(long, global = true)]
    without_statistics: bool,
}

/// Fewer bytes do not do.
const LEAST_MEMORY_BYTES: u64 = 64 << 20;
/// Where the machine does not say how much it has.
const DEFAULT_MEMORY_BYTES: u64 = 2 << 30;

impl SizeArgs {
    /// The same, but for what `sizes` has.
    pub(super) fn with(self, sizes: &Sizes) -> Self {
        let sizes = sizes.clone();
        Self {
            memory_limit: sizes.memory_limit_bytes.or(self.memory_limit),
            threads: sizes.threads.or(self.threads),
            cache_dir: sizes.cache_dir.or(self.cache_dir),
            cache_disk: sizes.cache_disk_bytes.unwrap_or(self.cache_disk),
            ..self
        }
    }

    /// Where chunks of a remote store are kept as well.
    pub(super) fn cache_dir(&self) -> Option<&Path> {
        self.cache_dir.as_deref()
    }

    /// The engine for a store, and the limits that go with it.
    pub(super) fn engine(&self, costs: Costs) -> Result<(Engine, Limits), Failed> {
        let memory = match self.memory_limit {
            Some(bytes) if bytes < LEAST_MEMORY_BYTES => {
                let reason = format!("memory limit: {bytes} bytes are too few, 64MiB is the least");
                return Err(Failed(reason));
            }
            Some(bytes) => bytes,
            None => machine_memory().map_or(DEFAULT_MEMORY_BYTES, |bytes| bytes / 2),
        };
        // The rest is for pages of manifests, connections and what lies between.
        let settings = Settings {
            threads: self.threads.unwrap_or(0),
            cache_bytes: memory / 10 * 4,
            work_bytes: memory / 10 * 5,
            costs,
            uses_statistics: !self.without_statistics,
            ..Settings::default()
        };
        let engine = match &self.cache_dir {
            Some(directory) => Engine::with_disk_cache(settings, directory, self.cache_disk)?,
            None => Engine::new(settings)?,
        };
        let defaults = Limits::default();
        let limits = Limits {
            answer_bytes: defaults.answer_bytes.min(settings.work_bytes / 2),
            ..defaults
        };
        Ok((engine, limits))
    }
}

/// What requests to a store are taken to cost before any was made.
pub(super) fn usual_costs(store: &Store) -> Costs {
    match store.is_remote() {
        true => Costs::REMOTE,
        false => Costs::LOCAL,
    }
}

/// What requests to a store cost: how long it takes to say that an object is not there.
pub(super) async fn measured_costs(store: &Store) -> Costs {
    const PROBES: usize = 3;
    let usual = usual_costs(store);
    if !store.is_remote() {
        return usual;
    }
    let mut latency = Duration::MAX;
    for _ in 0..PROBES {
        let started = Instant::now();
        if store.get("no-such-object").await.is_err() {
            return usual;
        }
        latency = latency.min(started.elapsed());
    }
    Costs { latency, ..usual }
}

/// Bytes of memory, or of what a container may use of it.
fn machine_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max");
    let limit = limit.ok().and_then(|limit| limit.trim().parse().ok());
    Some(limit.unwrap_or(u64::MAX).min(kibibytes << 10))
}

/// A number of bytes: `512MiB`, `2GB`, `1073741824`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let refused = || format!("{text:?} is no number of bytes, as 512MiB or 2GB are");
    let unit = UNITS
        .iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let number: u64 = number.trim().parse().map_err(|_| refused())?;
    number.checked_mul(unit).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("2 GB"), Ok(2_000_000_000));
        assert_eq!(parse_bytes("17"), Ok(17));
        for wrong in ["", "MiB", "-1GB", "1.5GiB", "20000000000TiB", "1PB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
