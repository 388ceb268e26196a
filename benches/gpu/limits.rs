//! What the machine can do at best: copies from the host to the device, and within its memory.

#![expect(
    unsafe_code,
    reason = "memory of the host that the device reads is taken without content"
)]

use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::CudaContext;

use crate::Error;

/// Bytes that are copied at once; few for an emulated device.
const BYTES: usize = 256 << 20;
const EMULATED_BYTES: usize = 1 << 20;
const RUNS: usize = 10;

/// Bytes a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From pinned memory of the host to the device.
    pub(crate) bus: f64,
    /// Read and written by copies within the device's memory, together.
    pub(crate) memory: f64,
}

/// Measures the first device: the best of several copies.
pub(crate) fn measure(is_emulated: bool) -> Result<Limits, Error> {
    let bytes = if is_emulated { EMULATED_BYTES } else { BYTES };
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    // SAFETY: all of it is written below before anything reads it.
    let mut pinned = unsafe { context.alloc_pinned::<u8>(bytes)? };
    pinned.as_mut_slice()?.fill(0x3c);
    let mut here = stream.alloc_zeros::<u8>(bytes)?;
    let mut there = stream.alloc_zeros::<u8>(bytes)?;
    let bus = best(&context, || stream.memcpy_htod(&pinned, &mut here))?;
    let memory = best(&context, || stream.memcpy_dtod(&here, &mut there))?;
    Ok(Limits {
        bus: bytes as f64 / bus,
        memory: 2.0 * bytes as f64 / memory,
    })
}

/// Seconds of the fastest of several copies, each waited for.
fn best<E: Into<Error>>(
    context: &Arc<CudaContext>,
    mut copy: impl FnMut() -> Result<(), E>,
) -> Result<f64, Error> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        context.synchronize()?;
        let began = Instant::now();
        copy().map_err(Into::into)?;
        context.synchronize()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}
