//! The memory of one request, and the bytes it has in flight.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::ArrayReader;
use crate::engine::Engine;
use crate::plan::Plan;

/// Encoded bytes one request has in flight at most, unless one inner chunk is larger.
const WINDOW_BYTES: u64 = 32 << 20;
/// And no more than one part in so many of all memory.
const WINDOW_SHARE: u64 = 16;
/// In flight, bytes are counted in these.
const UNIT_BYTES: u64 = 1024;

/// Bounds the encoded bytes of one request that were asked for and are not decoded yet.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    free: Arc<Semaphore>,
    units: u32,
}

impl Window {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Waits until so many bytes may be in flight; all there is for more than that.
    pub(crate) async fn enter(&self, bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        // Never closed.
        self.free.acquire_many(units.min(self.units)).await.ok()
    }
}

impl Engine {
    /// Memory that reading the inner chunks of a plan takes besides the result, in bytes: what is in
    /// flight, and what each thread decodes into.
    pub(crate) fn scratch_bytes(&self, array: &ArrayReader, plan: &Plan) -> u64 {
        let threads = plan.inner_chunks().min(self.pool.threads() as u64);
        let decoded = array.decoded_bytes();
        self.window_bytes(array, plan)
            .saturating_add(threads.saturating_mul(decoded))
    }

    /// Encoded bytes a read of this plan has in flight at most.
    pub(crate) fn window_bytes(&self, array: &ArrayReader, plan: &Plan) -> u64 {
        // Encoded, data is rarely larger than decoded; a little for codecs that frame it.
        let most = array.decoded_bytes().saturating_add(4096);
        let share = self.budget.total_bytes() / WINDOW_SHARE;
        let window = WINDOW_BYTES.min(share).max(most);
        plan.inner_chunks().saturating_mul(most).min(window)
    }
}

impl ArrayReader {
    /// Bytes one inner chunk decodes to; estimated where elements have no fixed size.
    pub(crate) fn decoded_bytes(&self) -> u64 {
        let cells = self.codec.inner_shape().iter().product::<u64>();
        let size = self.metadata().data_type.size_bytes().unwrap_or(64) as u64;
        cells.saturating_mul(size)
    }
}
