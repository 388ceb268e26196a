//! Work that many may want at once and one does: the others wait for its result.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::sync::Cache;
use tokio::sync::watch;

/// What is being worked on, by key. Cloning is cheap.
#[derive(Debug)]
pub struct Flights<K, V>(Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>);

impl<K, V> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Who does the work.
#[derive(Debug)]
pub enum Claim<K: Hash + Eq, V> {
    /// The caller.
    Own(Flight<K, V>),
    /// Someone else.
    Other(Waiting<V>),
}

/// Work of the caller's. Dropped unfinished, it is anyone's again.
#[derive(Debug)]
pub struct Flight<K: Hash + Eq, V> {
    flights: Flights<K, V>,
    key: K,
    result: watch::Sender<Option<V>>,
}

/// Work of someone else's.
#[derive(Debug)]
pub struct Waiting<V>(watch::Receiver<Option<V>>);

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Receiver<Option<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether someone is working on `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.lock().contains_key(key)
    }

    /// Takes the work on `key`, unless someone is at it.
    pub fn claim(&self, key: &K) -> Claim<K, V> {
        let mut flying = self.lock();
        if let Some(result) = flying.get(key) {
            return Claim::Other(Waiting(result.clone()));
        }
        let (result, receiver) = watch::channel(None);
        flying.insert(key.clone(), receiver);
        Claim::Own(Flight {
            flights: self.clone(),
            key: key.clone(),
            result,
        })
    }
}

impl<K: Hash + Eq, V> Flight<K, V> {
    /// Hands the result to all who wait. What is to be found in a cache from now on must be there.
    pub fn finish(self, value: V) {
        self.result.send_replace(Some(value));
    }
}

impl<K: Hash + Eq, V> Drop for Flight<K, V> {
    fn drop(&mut self) {
        let mut flying = self
            .flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        flying.remove(&self.key);
    }
}

impl<V: Clone> Waiting<V> {
    /// The result; `None` if whoever worked on it failed or was cancelled.
    pub async fn result(mut self) -> Option<V> {
        let result = self.0.wait_for(Option::is_some).await;
        result.ok().and_then(|value| value.clone())
    }
}

/// A cache of what never changes, read once for all who want it at the same time. Cloning is cheap.
pub(crate) struct Kept<K, V> {
    cache: Cache<K, V>,
    reading: Flights<K, V>,
}

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl<K, V> Clone for Kept<K, V> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            reading: self.reading.clone(),
        }
    }
}

impl<K, V> Kept<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(cache: Cache<K, V>) -> Self {
        Self {
            cache,
            reading: Flights::default(),
        }
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        self.cache.insert(key, value);
    }

    #[cfg(test)]
    pub(crate) fn invalidate_all(&self) {
        self.cache.invalidate_all();
    }

    /// What is kept under `key`, or what `read` gives, which is kept then.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) async fn get_or<E>(
        &self,
        key: &K,
        read: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        loop {
            if let Some(value) = self.cache.get(key) {
                return Ok(value);
            }
            match self.reading.claim(key) {
                // Whoever failed has its own error; the others find their own.
                Claim::Other(other) => {
                    if let Some(value) = other.result().await {
                        return Ok(value);
                    }
                }
                Claim::Own(flight) => {
                    let value = match self.cache.get(key) {
                        Some(value) => value,
                        None => read.await?,
                    };
                    self.cache.insert(key.clone(), value.clone());
                    flight.finish(value.clone());
                    return Ok(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_works_and_the_others_get_its_result() {
        let flights: Flights<u32, u32> = Flights::default();
        let Claim::Own(own) = flights.claim(&1) else {
            panic!("nobody else is at it");
        };
        let (Claim::Other(a), Claim::Other(b)) = (flights.claim(&1), flights.claim(&1)) else {
            panic!("someone is at it");
        };
        assert!(matches!(flights.claim(&2), Claim::Own(_)));
        own.finish(7);
        assert_eq!((a.result().await, b.result().await), (Some(7), Some(7)));
        assert!(matches!(flights.claim(&1), Claim::Own(_)));
    }

    #[tokio::test]
    async fn work_that_was_given_up_is_anyones() {
        let flights: Flights<u32, u32> = Flights::default();
        let own = flights.claim(&1);
        let Claim::Other(other) = flights.claim(&1) else {
            panic!("someone is at it");
        };
        drop(own);
        assert_eq!(other.result().await, None);
        assert!(matches!(flights.claim(&1), Claim::Own(_)));
    }
}
