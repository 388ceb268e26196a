//! The CUDA driver: whether it is there, and what is done through it.
//!
//! The only place that calls it other than through cudarc's safe types. cudarc panics where the
//! library or a function is missing, so both are looked for first.

#![expect(unsafe_code, reason = "the driver is a library in C")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, result};

use super::error::{Failure, Unavailable};
use super::memory::{Held, Span};

/// CUDA 12.1: what the kernels were compiled by.
const NEEDED: c_int = 12010;

/// Functions of the driver that are called here or in cudarc's types.
const FUNCTIONS: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSetFlags",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemAlloc_v2",
    "cuMemFreeAsync",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// Contexts on the first `limit` devices of the machine that take kernels.
pub(super) fn contexts(limit: usize) -> Result<Vec<Arc<CudaContext>>, Unavailable> {
    // SAFETY: loads the library by its name, which runs its initialisers, as any program that links
    // with it would.
    if !unsafe { sys::is_culib_present() } {
        return Err(Unavailable::NoDriver);
    }
    check_functions(&["cuInit", "cuDriverGetVersion"])?;
    let mut version: c_int = 0;
    // SAFETY: the function is there, and writes the one number it is given.
    let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    answer.result().map_err(unavailable)?;
    if version < NEEDED {
        return Err(Unavailable::TooOld {
            found: version_text(version),
            needed: version_text(NEEDED),
        });
    }
    check_functions(FUNCTIONS)?;
    let count = CudaContext::device_count().map_err(unavailable)?;
    let count = usize::try_from(count).unwrap_or(0).min(limit);
    if count == 0 {
        return Err(Unavailable::NoDevice);
    }
    let mut first_error = None;
    let mut contexts = Vec::new();
    for ordinal in 0..count {
        match context(ordinal) {
            Ok(Some(context)) => contexts.push(context),
            Ok(None) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match (contexts.is_empty(), first_error) {
        (false, _) => Ok(contexts),
        (true, Some(error)) => Err(unavailable(error)),
        (true, None) => Err(Unavailable::NoDevice),
    }
}

/// A context on a device, unless the device is older than the kernels.
fn context(ordinal: usize) -> Result<Option<Arc<CudaContext>>, result::DriverError> {
    let context = CudaContext::new(ordinal)?;
    if context.compute_capability()? < (7, 0) {
        return Ok(None);
    }
    context.set_blocking_synchronize()?;
    // SAFETY: memory is shared between streams only by the cache, which takes a chunk in after the
    // stream that copied it was waited for, and frees it after whoever reads it has dropped it.
    unsafe { context.disable_event_tracking() };
    Ok(Some(context))
}

fn check_functions(names: &[&'static str]) -> Result<(), Unavailable> {
    for &name in names {
        // SAFETY: the symbol is looked up, not called.
        let found = unsafe { sys::culib().get::<*const c_void>(name.as_bytes()).is_ok() };
        if !found {
            return Err(Unavailable::NoFunction { name });
        }
    }
    Ok(())
}

fn unavailable(error: result::DriverError) -> Unavailable {
    match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => Unavailable::NoDevice,
        code => Unavailable::Failed {
            reason: format!("{code:?}"),
        },
    }
}

fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Whether memory is taken and given back in the order of a stream.
pub(super) fn has_pools(context: &CudaContext) -> bool {
    context.has_async_alloc()
}

/// Memory of a device, given back when dropped.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    pointer: u64,
    bytes: usize,
    stream: Arc<CudaStream>,
    _held: Held,
}

impl DeviceMemory {
    /// Takes memory that `held` was reserved for.
    pub(super) fn new(stream: &Arc<CudaStream>, bytes: usize, held: Held) -> Result<Self, Failure> {
        let context = stream.context();
        context.bind_to_thread()?;
        // SAFETY: the stream's context is bound. The memory is freed by `drop` alone.
        let pointer = unsafe {
            match has_pools(context) {
                true => result::malloc_async(stream.cu_stream(), bytes.max(1))?,
                false => result::malloc_sync(bytes.max(1))?,
            }
        };
        Ok(Self {
            pointer,
            bytes,
            stream: stream.clone(),
            _held: held,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its address on the device.
    pub(super) fn address(&self) -> u64 {
        self.pointer
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let context = self.stream.context();
        // Of a broken device nothing can be given back.
        if context.bind_to_thread().is_err() {
            return;
        }
        // SAFETY: taken by `new` in the same way; whatever used it was waited for before its owner
        // was dropped, or is ordered before this by the stream.
        let _ = unsafe {
            match has_pools(context) {
                true => result::free_async(self.pointer, self.stream.cu_stream()),
                false => result::free_sync(self.pointer),
            }
        };
    }
}

/// Memory of the host that the device copies from and to by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    pointer: *mut u8,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: plain memory; the pointer is to it and nobody else has it.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Takes memory of the host, cached like any other: it is read here too.
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, Failure> {
        context.bind_to_thread()?;
        // SAFETY: the context is bound; the memory is freed by `drop` alone.
        let pointer = unsafe { result::malloc_host(bytes.max(1), 0)? }.cast::<u8>();
        // SAFETY: the memory was just taken, and has that size.
        unsafe { pointer.write_bytes(0, bytes.max(1)) };
        Ok(Self {
            pointer,
            bytes,
            context: context.clone(),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: `new` took so many bytes and wrote all of them.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: taken by `new`; a lane waits for its stream before it drops its memory.
            let _ = unsafe { result::free_host(self.pointer.cast()) };
        }
    }
}

/// Starts to copy bytes of the host to the device.
///
/// The bytes must stay as they are until the stream was waited for: lanes (`lane.rs`, `vectors.rs`) wait
/// before they touch their memory again, also after an error.
pub(super) fn copy_in(
    stream: &CudaStream,
    pinned: &Pinned,
    from: Span,
    to: u64,
) -> Result<(), Failure> {
    if from.bytes == 0 {
        return Ok(());
    }
    let bytes = &pinned.as_slice()[from.start..from.start + from.bytes];
    stream.context().bind_to_thread()?;
    // SAFETY: `to` is an address inside memory of the device that has room for these bytes, as the
    // layout of the arena (`Arena`) or of a cached chunk establishes.
    unsafe { result::memcpy_htod_async(to, bytes, stream.cu_stream())? };
    Ok(())
}

/// Starts to copy bytes of the device to the host; the same holds.
pub(super) fn copy_out(
    stream: &CudaStream,
    pinned: &mut Pinned,
    to: Span,
    from: u64,
) -> Result<(), Failure> {
    if to.bytes == 0 {
        return Ok(());
    }
    stream.context().bind_to_thread()?;
    let bytes = &mut pinned.as_mut_slice()[to.start..to.start + to.bytes];
    // SAFETY: as in `copy_in`.
    unsafe { result::memcpy_dtoh_async(bytes, from, stream.cu_stream())? };
    Ok(())
}

/// Starts to set bytes of the device to zero.
pub(super) fn clear(stream: &CudaStream, at: u64, bytes: usize) -> Result<(), Failure> {
    if bytes == 0 {
        return Ok(());
    }
    stream.context().bind_to_thread()?;
    // SAFETY: as in `copy_in`.
    unsafe { result::memset_d8_async(at, 0, bytes, stream.cu_stream())? };
    Ok(())
}

/// A kernel and the one struct it is given.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) function: CudaFunction,
    /// Blocks along x and y, of `THREADS` each.
    pub(super) blocks: (u32, u32),
    /// The bytes of the struct.
    pub(super) params: Vec<u64>,
}

impl Launch {
    /// Structs are whole words: all of them have one of 64 bits.
    pub(super) fn new<P: Pod>(function: CudaFunction, blocks: (u32, u32), params: &P) -> Self {
        let bytes = bytemuck::bytes_of(params);
        let words = bytes.chunks(8).map(|part| {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            u64::from_le_bytes(word)
        });
        Self {
            function,
            blocks,
            params: words.collect(),
        }
    }

    /// Starts the kernel.
    pub(super) fn run(&self, stream: &CudaStream) -> Result<(), Failure> {
        stream.context().bind_to_thread()?;
        let mut params = self.params.clone();
        let mut pointers = [params.as_mut_ptr().cast::<c_void>()];
        // SAFETY: the kernel takes one struct, of the size and layout of `params` (`params.rs`); the
        // addresses in it are those of memory that has the sizes the kernel goes by (`plan.rs`).
        unsafe {
            result::launch_kernel(
                self.function.cu_function(),
                (self.blocks.0, self.blocks.1, 1),
                (super::params::THREADS, 1, 1),
                0,
                stream.cu_stream(),
                &mut pointers,
            )?;
        }
        Ok(())
    }

    /// Whether it does the same to the same memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.function.cu_function() == other.function.cu_function()
            && self.blocks == other.blocks
            && self.params == other.params
    }
}

/// Gives PTX to the driver, which compiles it for the device.
pub(super) fn load(context: &Arc<CudaContext>, ptx: &str) -> Result<Arc<CudaModule>, Failure> {
    Ok(context.load_module(cudarc::nvrtc::Ptx::from_src(ptx))?)
}

/// Launches that the driver knows as one.
pub(super) struct Graph(cudarc::driver::CudaGraph);

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Graph").field(&self.0.cu_graph()).finish()
    }
}

// SAFETY: a graph may be launched from any thread, one at a time; its lane is used by one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Records launches, without running them.
    pub(super) fn new(context: &Arc<CudaContext>, launches: &[Launch]) -> Result<Self, Failure> {
        // In a stream of its own: chunks are freed in the stream they came by, from any thread, and
        // none of that may be recorded.
        let stream = &context.new_stream()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode)?;
        let recorded = launches.iter().try_for_each(|launch| launch.run(stream));
        // Ends in any case: a stream that is left capturing does nothing any more.
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags);
        recorded?;
        match graph? {
            Some(graph) => Ok(Self(graph)),
            None => Err(Failure::Failed {
                reason: "nothing was recorded".to_owned(),
            }),
        }
    }

    /// Starts all of them.
    pub(super) fn launch(&self, stream: &CudaStream) -> Result<(), Failure> {
        stream.context().bind_to_thread()?;
        // SAFETY: the graph lives as long as `self`, and its lane launches one at a time; what the
        // kernels use is as in `Launch::run`.
        unsafe { result::graph::launch(self.0.cu_graph_exec(), stream.cu_stream())? };
        Ok(())
    }
}
