//! Inner chunks that stay in the memory of a device: those used last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use array::{Hash, Layout};

use super::driver::DeviceMemory;

/// What an inner chunk is known by: the hash of its encoded bytes, and what decodes them.
pub type Key = (Hash, Hash);

/// An inner chunk on the device, as far as it was decoded there.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) memory: Arc<DeviceMemory>,
    pub(super) layout: Layout,
}

/// Inner chunks by their key, and the order of their last use.
#[derive(Debug, Default)]
pub(super) struct Cache {
    limit_bytes: u64,
    bytes: u64,
    clock: u64,
    chunks: HashMap<Key, (u64, Resident)>,
    by_use: BTreeMap<u64, Key>,
    /// Bytes by what decodes the chunks.
    by_codec: HashMap<Hash, u64>,
}

impl Cache {
    /// Of at most so many bytes.
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of the chunks that are decoded in the same way.
    pub(super) fn bytes_of(&self, codec: &Hash) -> u64 {
        self.by_codec.get(codec).copied().unwrap_or(0)
    }

    /// A chunk, if it is there.
    pub(super) fn get(&mut self, key: &Key) -> Option<Resident> {
        self.clock += 1;
        let (used, resident) = self.chunks.get_mut(key)?;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(resident.clone())
    }

    /// Whether it may hold a chunk of so many bytes.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        bytes as u64 <= self.limit_bytes
    }

    /// Takes a chunk in; the oldest ones go until it fits.
    pub(super) fn put(&mut self, key: Key, resident: Resident) {
        self.remove(&key);
        let bytes = resident.memory.bytes() as u64;
        while self.bytes + bytes > self.limit_bytes {
            if !self.forget_oldest() {
                return;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        *self.by_codec.entry(key.1).or_default() += bytes;
        self.by_use.insert(self.clock, key);
        self.chunks.insert(key, (self.clock, resident));
    }

    /// Forgets the chunk whose last use is longest ago. Says whether there was one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, key)| *key);
        oldest.is_some_and(|key| self.remove(&key))
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some((used, resident)) = self.chunks.remove(key) else {
            return false;
        };
        self.by_use.remove(&used);
        let bytes = resident.memory.bytes() as u64;
        self.bytes -= bytes;
        if let Some(of_codec) = self.by_codec.get_mut(&key.1) {
            *of_codec -= bytes;
            if *of_codec == 0 {
                self.by_codec.remove(&key.1);
            }
        }
        true
    }
}
