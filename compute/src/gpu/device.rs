//! One device: its lanes, its memory, what stays on it, and what it has done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use array::Hash;
use cudarc::driver::{CudaContext, CudaStream};

use super::Settings;
use super::accumulators::Found;
use super::cache::{Cache, Key, Resident};
use super::driver::DeviceMemory;
use super::error::Failure;
use super::kernels::Kernels;
use super::lane::Lane;
use super::memory::Allowance;
use super::nvcomp::Nvcomp;
use super::task::{Staged, Task};
use super::vectors::{FoundSums, VectorLane};
use crate::lanes::{SumOf, Vectors};

/// Streams of a device: two copy and compute beside each other, the others are being staged.
const LANES: usize = 4;
/// A task waits so long for a stream: what it was given to the device for would take a thread longer.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A device that fails so often, one time after the other, is not asked any more.
const FAILURES_MAX: u64 = 3;

/// Why a task was not done.
#[derive(Debug)]
pub enum Stop<E> {
    /// The device could not do it; the CPU can.
    Device(Failure),
    /// The chunks could not be had.
    Staging(E),
}

impl<E> From<Failure> for Stop<E> {
    fn from(failure: Failure) -> Self {
        Self::Device(failure)
    }
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    name: String,
    context: Arc<CudaContext>,
    kernels: Kernels,
    total_bytes: u64,
    allowance: Allowance,
    cache: Mutex<Cache>,
    lanes: Mutex<Lanes>,
    lane_is_free: Condvar,
    /// For sums over vectors; one at a time, which use the whole device.
    vectors: Mutex<Option<VectorLane>>,
    is_relaxed: bool,
    counters: Counters,
    failures_running: AtomicU64,
    is_broken: AtomicBool,
    /// Last, so that it is there for as long as lanes are.
    nvcomp: Option<Arc<Nvcomp>>,
}

#[derive(Debug, Default)]
struct Lanes {
    idle: Vec<Lane>,
    busy: usize,
}

/// A task at work in a lane; also one that panics ends.
struct Turn<'a>(&'a Device);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.lanes).busy -= 1;
        self.0.lane_is_free.notify_one();
    }
}

#[derive(Debug, Default)]
struct Counters {
    tasks: AtomicU64,
    boxes: AtomicU64,
    launches: AtomicU64,
    replays: AtomicU64,
    copied_bytes: AtomicU64,
    decompressed_bytes: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    busy: AtomicU64,
    out_of_memory: AtomicU64,
    undecoded: AtomicU64,
    failures: AtomicU64,
}

/// What a device is, and what it has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its name, as the driver has it.
    pub name: String,
    /// Whether it failed too often to be asked again.
    pub is_broken: bool,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// How much of it may be used.
    pub memory_limit_bytes: u64,
    /// How much is used now.
    pub memory_used_bytes: u64,
    /// The most that ever was.
    pub memory_peak_bytes: u64,
    /// Of what is used, inner chunks that stay.
    pub cache_bytes: u64,
    /// How many these are.
    pub cached_chunks: u64,
    /// Tasks it did.
    pub tasks: u64,
    /// Boxes it reduced.
    pub boxes: u64,
    /// Kernels that were started.
    pub launches: u64,
    /// Tasks whose kernels were started as a graph.
    pub replays: u64,
    /// Bytes of chunks that were copied to it.
    pub copied_bytes: u64,
    /// Bytes that nvCOMP was to make of some of them there.
    pub decompressed_bytes: u64,
    /// Chunks that were on it.
    pub cache_hits: u64,
    /// Chunks that were not.
    pub cache_misses: u64,
    /// Tasks it had no stream for.
    pub busy: u64,
    /// Tasks it had no memory for.
    pub out_of_memory: u64,
    /// Tasks of which it did not decompress all.
    pub undecoded: u64,
    /// Tasks that failed.
    pub failures: u64,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Device {
    /// A device, half of whose memory that may be used is for chunks that stay.
    pub(super) fn new(
        context: Arc<CudaContext>,
        settings: &Settings,
        nvcomp: Option<Arc<Nvcomp>>,
    ) -> Result<Self, Failure> {
        let total_bytes = context.total_mem()? as u64;
        let limit = settings.memory_limit_bytes.unwrap_or(total_bytes / 4 * 3);
        let limit = limit.min(total_bytes);
        Ok(Self {
            name: context.name()?,
            kernels: Kernels::new(&context),
            total_bytes,
            allowance: Allowance::new(limit),
            cache: Mutex::new(Cache::new(limit / 2)),
            lanes: Mutex::default(),
            lane_is_free: Condvar::new(),
            vectors: Mutex::default(),
            is_relaxed: settings.is_relaxed,
            counters: Counters::default(),
            failures_running: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
            nvcomp,
            context,
        })
    }

    /// Sums over vectors; see [`VectorLane::sums`].
    pub(super) fn sums(
        &self,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
        with_own_products: bool,
        is_relaxed: bool,
    ) -> Result<FoundSums, Failure> {
        if self.is_broken() {
            let reason = "it failed before".to_owned();
            return Err(Failure::Failed { reason });
        }
        let mut idle = self.vectors().ok_or(Failure::Busy)?;
        let lane = match idle.take() {
            Some(lane) => Ok(lane),
            None => VectorLane::new(&self.context, self.is_relaxed),
        };
        let done = lane.and_then(|mut lane| {
            let done = lane.sums(self, of, left, right, with_own_products, is_relaxed);
            if !matches!(done, Err(Failure::Failed { .. })) {
                *idle = Some(lane);
            }
            done
        });
        match &done {
            Ok(_) => {
                self.failures_running.store(0, Ordering::Relaxed);
                count(&self.counters.tasks, 1);
            }
            Err(failure) => self.note(failure),
        }
        done
    }

    /// What sums over vectors are made in, unless others use it.
    fn vectors(&self) -> Option<MutexGuard<'_, Option<VectorLane>>> {
        match self.vectors.try_lock() {
            Ok(idle) => Some(idle),
            Err(TryLockError::Poisoned(left)) => Some(left.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Does a task, in whatever lane is idle.
    pub(super) fn run<E>(
        &self,
        task: &Task<'_>,
        mut stage: impl FnMut(usize, &mut [u8]) -> Result<Staged, E>,
    ) -> Result<Vec<Vec<Found>>, Stop<E>> {
        if self.is_broken() {
            let reason = "it failed before".to_owned();
            return Err(Failure::Failed { reason }.into());
        }
        let lane = self.lane().inspect_err(|failure| self.note(failure));
        let (mut lane, _turn) = lane?;
        let done = lane.run(self, task, &mut stage);
        let is_sound = match &done {
            Ok(_) => {
                self.failures_running.store(0, Ordering::Relaxed);
                count(&self.counters.tasks, 1);
                count(&self.counters.boxes, task.boxes.len() as u64);
                true
            }
            Err(Stop::Device(failure)) => {
                self.note(failure);
                !matches!(failure, Failure::Failed { .. })
            }
            Err(Stop::Staging(_)) => true,
        };
        if is_sound {
            lock(&self.lanes).idle.push(lane);
        }
        done
    }

    /// A lane, and what counts it as busy until it is dropped.
    fn lane(&self) -> Result<(Lane, Turn<'_>), Failure> {
        let lanes = lock(&self.lanes);
        let is_full = |lanes: &mut Lanes| lanes.busy == LANES;
        let waited = self
            .lane_is_free
            .wait_timeout_while(lanes, LONGEST_WAIT, is_full);
        let (mut lanes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if lanes.busy == LANES {
            return Err(Failure::Busy);
        }
        let lane = match lanes.idle.pop() {
            Some(lane) => lane,
            None => Lane::new(&self.context)?,
        };
        lanes.busy += 1;
        Ok((lane, Turn(self)))
    }

    fn note(&self, failure: &Failure) {
        match failure {
            Failure::OutOfMemory => count(&self.counters.out_of_memory, 1),
            Failure::Busy => count(&self.counters.busy, 1),
            Failure::Undecoded { .. } => count(&self.counters.undecoded, 1),
            Failure::Unsupported => {}
            Failure::Failed { .. } => {
                count(&self.counters.failures, 1);
                if self.failures_running.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
                    self.is_broken.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    pub(super) fn nvcomp(&self) -> Option<&Nvcomp> {
        self.nvcomp.as_deref()
    }

    /// Memory of the device. Chunks that stay make way for it, as do idle lanes.
    pub(super) fn take(
        &self,
        stream: &Arc<CudaStream>,
        bytes: usize,
    ) -> Result<DeviceMemory, Failure> {
        loop {
            let taken = self
                .allowance
                .hold(bytes)
                .and_then(|held| DeviceMemory::new(stream, bytes, held));
            match taken {
                Err(Failure::OutOfMemory) if self.make_room() => {}
                other => return other,
            }
        }
    }

    /// Gives the memory for sums over vectors back, if nobody uses it.
    fn clear_vectors(&self) -> bool {
        self.vectors().is_some_and(|mut idle| idle.take().is_some())
    }

    fn make_room(&self) -> bool {
        if lock(&self.cache).forget_oldest() {
            return true;
        }
        let mut lanes = lock(&self.lanes);
        let largest = lanes.idle.iter_mut().max_by_key(|lane| lane.bytes());
        match largest {
            Some(lane) if lane.bytes() > 0 => {
                lane.clear();
                true
            }
            _ => self.clear_vectors(),
        }
    }

    pub(super) fn resident_bytes(&self, codec: &Hash) -> u64 {
        lock(&self.cache).bytes_of(codec)
    }

    /// A chunk that is on the device.
    pub(super) fn resident(&self, key: Option<&Key>) -> Option<Resident> {
        let found = lock(&self.cache).get(key?);
        let counter = match &found {
            Some(_) => &self.counters.cache_hits,
            None => &self.counters.cache_misses,
        };
        count(counter, 1);
        found
    }

    /// Memory for a chunk that may stay, if there is some without taking it from others' work.
    pub(super) fn room(&self, stream: &Arc<CudaStream>, bytes: usize) -> Option<DeviceMemory> {
        let bytes = bytes.max(1);
        if !lock(&self.cache).takes(bytes) {
            return None;
        }
        loop {
            let held = self.allowance.hold(bytes);
            let taken = held.and_then(|held| DeviceMemory::new(stream, bytes, held));
            match taken {
                Ok(memory) => return Some(memory),
                Err(Failure::OutOfMemory) if lock(&self.cache).forget_oldest() => {}
                Err(_) => return None,
            }
        }
    }

    /// Keeps a chunk whose copy is done.
    pub(super) fn keep(&self, key: Key, resident: Resident) {
        lock(&self.cache).put(key, resident);
    }

    pub(super) fn copied(&self, bytes: usize) {
        count(&self.counters.copied_bytes, bytes as u64);
    }

    pub(super) fn decompressed(&self, bytes: u64) {
        count(&self.counters.decompressed_bytes, bytes);
    }

    pub(super) fn launched(&self, launches: usize) {
        count(&self.counters.launches, launches as u64);
    }

    pub(super) fn replayed(&self) {
        count(&self.counters.replays, 1);
    }

    /// Forgets all that stays, and the memory of idle lanes.
    pub(super) fn clear(&self) {
        while self.make_room() {}
    }

    pub(super) fn status(&self) -> DeviceStatus {
        let (cache_bytes, cached_chunks) = {
            let cache = lock(&self.cache);
            (cache.bytes(), cache.len() as u64)
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        DeviceStatus {
            name: self.name.clone(),
            is_broken: self.is_broken(),
            memory_bytes: self.total_bytes,
            memory_limit_bytes: self.allowance.limit(),
            memory_used_bytes: self.allowance.used(),
            memory_peak_bytes: self.allowance.peak(),
            cache_bytes,
            cached_chunks,
            tasks: read(&counters.tasks),
            boxes: read(&counters.boxes),
            launches: read(&counters.launches),
            replays: read(&counters.replays),
            copied_bytes: read(&counters.copied_bytes),
            decompressed_bytes: read(&counters.decompressed_bytes),
            cache_hits: read(&counters.cache_hits),
            cache_misses: read(&counters.cache_misses),
            busy: read(&counters.busy),
            out_of_memory: read(&counters.out_of_memory),
            undecoded: read(&counters.undecoded),
            failures: read(&counters.failures),
        }
    }
}
