//! Memory that an answer holds until it is sent.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use query::Reservation;

/// Memory of the budget that the body of an answer holds for as long as its bytes are there: an
/// extension of the response. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct HeldMemory(Arc<Mutex<Option<Reservation>>>);

impl HeldMemory {
    pub(crate) fn new(reservation: Reservation) -> Self {
        Self(Arc::new(Mutex::new(Some(reservation))))
    }

    /// Gives the memory back although the bytes stay: they are the caller's own from now on. For who
    /// calls the router inside his process; a server's clients have their own memory.
    pub fn give_back(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(held.take());
    }

    /// The same bytes, which hold the memory.
    pub(crate) fn by(self, bytes: Bytes) -> Bytes {
        struct Held {
            bytes: Bytes,
            memory: HeldMemory,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        impl Drop for Held {
            fn drop(&mut self) {
                self.memory.give_back();
            }
        }
        Bytes::from_owner(Held {
            bytes,
            memory: self,
        })
    }
}
