//! The memory all requests share, counted in decoded bytes and taken before work starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// What is taken is counted in these: a semaphore counts to 2^32 at once.
const UNIT_BYTES: u64 = 4096;

/// Requests for no more than one part in so many of all memory are small.
const SMALL_SHARE: u64 = 64;
/// Of all memory, one part in so many is for small requests alone: they need not wait behind large
/// ones.
const SMALL_POOL_SHARE: u64 = 8;

/// Memory for the work of requests. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    total_bytes: u64,
    small_free: Arc<Semaphore>,
    small_total_bytes: u64,
    longest_wait: Duration,
    waiting: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

/// Memory that is taken; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    _permit: OwnedSemaphorePermit,
    bytes: u64,
}

impl Reservation {
    /// How much.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Budget {
    pub(crate) fn new(total_bytes: u64, longest_wait: Duration) -> Self {
        let units = (total_bytes / UNIT_BYTES).clamp(1, u64::from(u32::MAX));
        let small_units = units / SMALL_POOL_SHARE;
        Self {
            free: Arc::new(Semaphore::new((units - small_units) as usize)),
            total_bytes: (units - small_units) * UNIT_BYTES,
            small_free: Arc::new(Semaphore::new(small_units as usize)),
            small_total_bytes: small_units * UNIT_BYTES,
            longest_wait,
            waiting: Arc::default(),
            refused: Arc::default(),
        }
    }

    /// The most that one request may take, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What is taken now, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        let free = |pool: &Semaphore| pool.available_permits() as u64 * UNIT_BYTES;
        let total = self.total_bytes + self.small_total_bytes;
        total - free(&self.free) - free(&self.small_free)
    }

    /// Requests that wait for memory, and how many were refused since the start.
    pub(crate) fn queue(&self) -> (u64, u64) {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (count(&self.waiting), count(&self.refused))
    }

    /// Takes `bytes` if they are free and nobody waits for them.
    pub(crate) fn take_now(&self, bytes: u64) -> Option<Reservation> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        let permit = self.free.clone().try_acquire_many_owned(units).ok()?;
        Some(Reservation {
            _permit: permit,
            bytes,
        })
    }

    /// Takes `bytes`, in turn, after those who asked before.
    ///
    /// # Errors
    /// [`Error::OverBudget`] if there is less in all; [`Error::Busy`] if it is not free in time.
    pub(crate) async fn take(&self, bytes: u64) -> Result<Reservation, Error> {
        if bytes > self.total_bytes {
            return Err(Error::OverBudget {
                needed_bytes: bytes,
                limit_bytes: self.total_bytes,
            });
        }
        let units = bytes.div_ceil(UNIT_BYTES) as u32;
        let is_small = bytes <= self.total_bytes / SMALL_SHARE && bytes <= self.small_total_bytes;
        let pool = if is_small {
            &self.small_free
        } else {
            &self.free
        };
        let wait = pool.clone().acquire_many_owned(units);
        let waiting = Waiting::new(&self.waiting);
        let permit = tokio::time::timeout(self.longest_wait, wait).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(Reservation {
                _permit: permit,
                bytes,
            }),
            _ => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Error::Busy {
                    needed_bytes: bytes,
                    waited: self.longest_wait,
                })
            }
        }
    }
}

/// Counts one that waits, for as long as it does.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_free_is_waited_for_and_then_refused() {
        let budget = Budget::new(8 << 20, Duration::from_secs(3));
        let large = 7 << 19;
        assert_eq!(budget.total_bytes(), 2 * large);
        let most = budget.take(large).await.unwrap();
        let rest = budget.take(large - 1).await.unwrap();
        assert_eq!(budget.used_bytes(), 2 * large);
        let refused = budget.take(1 << 19).await;
        assert!(matches!(refused, Err(Error::Busy { .. })));
        // A small request does not wait behind large ones.
        drop(budget.take(1 << 10).await.unwrap());
        assert_eq!(budget.queue(), (0, 1));
        let waits = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(large).await.map(|taken| taken.bytes()) }
        });
        tokio::task::yield_now().await;
        drop(most);
        assert_eq!(waits.await.unwrap().unwrap(), large);
        drop(rest);
        let too_much = budget.take(2 * large + 1).await;
        assert!(matches!(too_much, Err(Error::OverBudget { .. })));
        assert_eq!(budget.used_bytes(), 0);
    }
}
