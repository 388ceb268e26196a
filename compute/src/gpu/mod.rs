//! Reductions on CUDA devices, where there are some.
//!
//! ```text
//! inner chunks ─► staged in pinned memory ─► device: shuffles and bits undone, CF decoded,
//!                                            reduced, in one pass ─► accumulators ─► partials
//! ```
//!
//! - The driver is loaded at run time and never required: [`Gpus::open`] says why there is none.
//! - A device finds the same bits as the processor: the order of operations is that of
//!   `accumulators::run`, part of the answer and not of the machine.
//! - What a device cannot do, or has no memory for, is a [`Failure`]; the caller goes on with the
//!   processor, and no answer depends on which of them it came from.
//! - Chunks are decompressed before they come here, or by nvCOMP where [`Settings`] say so; what is left
//!   of their encoding, a [`Layout`](array::Layout), is undone by the kernels while they load elements.
//!
//! The kernels are in `compute/kernels`.

mod accumulators;
mod cache;
mod device;
mod driver;
mod error;
mod expand;
mod kernels;
mod lane;
mod memory;
mod nvcomp;
mod params;
mod plan;
mod rates;
mod streams;
mod task;
mod vectors;
mod walk;

pub use accumulators::{Found, Wanted};
pub use cache::Key;
pub use device::{DeviceStatus, Stop};
pub use error::{Failure, Unavailable};
pub use nvcomp::Method;
pub use rates::{Estimate, Rates, Workload};
pub use streams::{ChunkPart, Compressed, Streams};
pub use task::{BoxOf, Staged, Task, reaches, supports};
pub use vectors::FoundSums;
pub use walk::{Geometry, Stretch};

use std::sync::Arc;

use crate::lanes::{SumOf, Vectors};
use device::Device;
use nvcomp::Nvcomp;

/// Most bytes of an inner chunk that is staged at once: half of what a stream has on the host.
pub const CHUNK_BYTES_MAX: u64 = lane::STAGING_BYTES_MAX as u64 / 2;

/// Sizes of what is used of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Most bytes of each device's memory; by default three quarters of it.
    pub memory_limit_bytes: Option<u64>,
    /// Most devices; by default all.
    pub devices_max: Option<usize>,
    /// Let cuBLAS multiply matrices of floats, where it is installed: faster, and the last bits of
    /// the answer then depend on who computed it.
    pub is_relaxed: bool,
    /// Let nvCOMP decompress chunks on the devices, where it is installed. It trusts its input, and what
    /// it does with streams that no compressor wrote is not defined. Hashes, which were checked before,
    /// protect bytes from damage, not from a writer who means harm: this is for repositories whose
    /// writers are trusted like the process itself.
    pub decompresses: bool,
}

/// The devices of this machine.
#[derive(Debug)]
pub struct Gpus {
    devices: Vec<Device>,
    rates: Option<Rates>,
    nvcomp: Option<Arc<Nvcomp>>,
}

impl Gpus {
    /// Opens the devices and measures the first.
    ///
    /// # Errors
    /// [`Unavailable`] if there is no driver, it is too old, or no device works.
    pub fn open(settings: Settings) -> Result<Self, Unavailable> {
        let contexts = driver::contexts(settings.devices_max.unwrap_or(usize::MAX))?;
        let nvcomp = settings.decompresses.then(Nvcomp::open).flatten();
        let nvcomp = nvcomp.map(Arc::new);
        let mut devices = Vec::new();
        let mut failed = None;
        for context in contexts {
            match Device::new(context, &settings, nvcomp.clone()) {
                Ok(device) => devices.push(device),
                Err(failure) => failed = Some(failure),
            }
        }
        if devices.is_empty() {
            let reason = failed.map_or(String::new(), |failure| failure.to_string());
            return Err(Unavailable::Failed { reason });
        }
        let mut gpus = Self {
            devices,
            rates: None,
            nvcomp,
        };
        gpus.rates = Rates::measure(&gpus);
        match gpus.rates {
            Some(_) => Ok(gpus),
            None => Err(Unavailable::Failed {
                reason: "the first reduction failed".to_owned(),
            }),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// What reductions cost here.
    pub fn rates(&self) -> Option<Rates> {
        self.rates
    }

    /// Whether they decompress: nvCOMP was asked for, and is installed.
    pub fn decompresses(&self) -> bool {
        self.nvcomp.is_some()
    }

    /// The version of nvCOMP that decompresses, such as `5.2.0`.
    pub fn nvcomp_version(&self) -> Option<String> {
        let version = self.nvcomp.as_ref()?.version();
        let (major, minor) = (version / 1000, version % 1000 / 100);
        Some(format!("{major}.{minor}.{}", version % 100))
    }

    /// Puts the streams of an inner chunk into `out`, from its first byte on, for devices to decompress;
    /// `out` is what [`Gpus::run_on`] stages the chunk in. Checksums of what streams decode to are not
    /// looked at by anyone then.
    ///
    /// `None` if they do not decompress this, if the ranges do not give each byte of the chunk once, or if
    /// there is no room or no alignment for the streams; `out` may have been written to then.
    pub fn pack(&self, chunk: &Compressed<'_>, out: &mut [u8]) -> Option<Streams> {
        let alignments = self.nvcomp.as_ref()?.alignments(chunk.method)?;
        Streams::pack(chunk, alignments, out)
    }

    /// The device that a chunk goes to, always the same.
    pub fn device_of(&self, key: &Key) -> usize {
        let first: [u8; 8] = std::array::from_fn(|nth| key.0.as_bytes()[nth]);
        (u64::from_le_bytes(first) % self.devices.len() as u64) as usize
    }

    /// Does a task on one device: for each box, what was found for each that was wanted. `stage`
    /// puts the inner chunk of a box, by its number, into the buffer it is given, which has room for
    /// the decoded chunk; it is not called for chunks that are on the device.
    ///
    /// # Errors
    /// [`Stop::Device`] if the device could not do it, [`Stop::Staging`] with the error of `stage`.
    pub fn run_on<E>(
        &self,
        device: usize,
        task: &Task<'_>,
        stage: impl FnMut(usize, &mut [u8]) -> Result<Staged, E>,
    ) -> Result<Vec<Vec<Found>>, Stop<E>> {
        let device = &self.devices[device % self.devices.len()];
        device.run(task, stage)
    }

    /// Sums over each left and each right vector, on the first device that is idle; the products of
    /// the right vectors with themselves too, if asked for.
    ///
    /// # Errors
    /// [`Failure`] if no device could do it.
    pub fn sums(
        &self,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
        with_own_products: bool,
    ) -> Result<FoundSums, Failure> {
        self.first_idle(|device| device.sums(of, left, right, with_own_products, false))
    }

    /// The same for products of matrices, which may be [relaxed](Settings::is_relaxed).
    ///
    /// # Errors
    /// As [`Gpus::sums`].
    pub fn products(
        &self,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
    ) -> Result<FoundSums, Failure> {
        self.first_idle(|device| device.sums(of, left, right, false, true))
    }

    fn first_idle(
        &self,
        work: impl Fn(&Device) -> Result<FoundSums, Failure>,
    ) -> Result<FoundSums, Failure> {
        let mut failure = Failure::Busy;
        for device in &self.devices {
            match work(device) {
                Ok(found) => return Ok(found),
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    /// Bytes of chunks on devices that are decoded in the same way.
    pub fn resident_bytes(&self, codec: &array::Hash) -> u64 {
        let devices = self.devices.iter();
        devices.map(|device| device.resident_bytes(codec)).sum()
    }

    /// Gives back what stays on idle devices.
    pub fn clear(&self) {
        self.devices.iter().for_each(Device::clear);
    }

    /// What each device is and has done.
    pub fn status(&self) -> Vec<DeviceStatus> {
        self.devices.iter().map(Device::status).collect()
    }

    /// Whether any of them still works.
    pub fn works(&self) -> bool {
        self.devices.iter().any(|device| !device.is_broken())
    }
}
