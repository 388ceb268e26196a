//! What was decoded last, for whoever needs it next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A few values by their keys, within a number of bytes; those not used longest go first.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    most_bytes: usize,
    held: Mutex<Held<K, V>>,
}

#[derive(Debug)]
struct Held<K, V> {
    bytes: usize,
    /// Key, value, bytes; the newest last.
    values: VecDeque<(K, Arc<V>, usize)>,
}

impl<K: PartialEq, V> Recent<K, V> {
    /// Room for `most_bytes`, and for one value whatever its size.
    pub(crate) fn new(most_bytes: usize) -> Self {
        let held = Held {
            bytes: 0,
            values: VecDeque::new(),
        };
        Self {
            most_bytes,
            held: Mutex::new(held),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.values.iter().position(|(known, ..)| known == key)?;
        let found = held.values.remove(at)?;
        let value = found.1.clone();
        held.values.push_back(found);
        Some(value)
    }

    /// Keeps a value of so many bytes, and gives it.
    pub(crate) fn put(&self, key: K, value: V, bytes: usize) -> Arc<V> {
        let value = Arc::new(value);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes = held.bytes.saturating_add(bytes);
        held.values.push_back((key, value.clone(), bytes));
        while held.bytes > self.most_bytes && held.values.len() > 1 {
            let gone = held.values.pop_front().map_or(0, |(.., bytes)| bytes);
            held.bytes = held.bytes.saturating_sub(gone);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_longest_goes() {
        let recent = Recent::new(10);
        recent.put(1, 'a', 4);
        recent.put(2, 'b', 4);
        recent.get(&1);
        recent.put(3, 'c', 4);
        assert_eq!(recent.get(&1).as_deref(), Some(&'a'));
        assert_eq!(recent.get(&2), None);
        recent.put(4, 'd', 100);
        assert_eq!(recent.get(&4).as_deref(), Some(&'d'));
        assert_eq!(recent.get(&3), None);
    }
}
