//! Uploads of objects that are named by their content: started at once, waited for together.
//!
//! The name of an object is known before it is stored, so a tree of pages needs no order: all of
//! it is under way at the same time, and a commit takes one round trip for its objects however deep
//! they are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::hash::Hash;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::concurrent::CONCURRENT_REQUESTS;
use crate::object::{object_key, shard_key};
use crate::store::Store;

/// Bytes under way at most, unless one object is larger: a slow store must not fill the memory.
const BYTES_UNDER_WAY: usize = 128 << 20;
/// Bytes are counted in these.
const UNIT_BYTES: usize = 4096;

/// Uploads under way. Dropping it stops those that are not done.
#[derive(Debug)]
pub(crate) struct Uploads {
    store: Store,
    room: Arc<Semaphore>,
    room_for_bytes: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: JoinSet<Result<(), Error>>,
    keys: Vec<String>,
}

impl Uploads {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            room: Arc::new(Semaphore::new(CONCURRENT_REQUESTS)),
            room_for_bytes: Arc::new(Semaphore::new(BYTES_UNDER_WAY / UNIT_BYTES)),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts storing object `id` with exactly these bytes.
    pub(crate) async fn object(&self, id: &Hash, bytes: Bytes) -> Result<(), Error> {
        self.immutable(object_key(id), bytes).await
    }

    /// Starts storing chunk `id`.
    pub(crate) async fn chunk(&self, id: &Hash, bytes: Bytes) -> Result<(), Error> {
        self.immutable(shard_key(id), bytes).await
    }

    async fn immutable(&self, key: String, bytes: Bytes) -> Result<(), Error> {
        let (store, name, size) = (self.store.clone(), key.clone(), bytes.len());
        let upload = async move { store.put_immutable(&name, bytes).await };
        self.start(key, size, upload).await
    }

    /// Starts storing object `id`, which may be there in other bytes: `check` says whether those
    /// mean the same.
    pub(crate) async fn equivalent<F>(&self, id: &Hash, bytes: Bytes, check: F) -> Result<(), Error>
    where
        F: Fn(&Bytes) -> Result<(), String> + Send + Sync + 'static,
    {
        let key = object_key(id);
        let (store, name, size) = (self.store.clone(), key.clone(), bytes.len());
        let upload = async move { store.put_equivalent(&name, bytes, check).await };
        self.start(key, size, upload).await
    }

    /// Waits for room, then lets `upload` run by itself.
    ///
    /// # Errors
    /// That of an upload that has failed already.
    async fn start<U>(&self, key: String, size_bytes: usize, upload: U) -> Result<(), Error>
    where
        U: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let units = size_bytes.min(BYTES_UNDER_WAY) / UNIT_BYTES;
        let for_bytes = self.room_for_bytes.clone().acquire_many_owned(units as u32);
        let room = (for_bytes.await, self.room.clone().acquire_owned().await);
        let mut state = self.state();
        while let Some(done) = state.tasks.try_join_next() {
            settled(done)?;
        }
        state.keys.push(key);
        state.tasks.spawn(async move {
            let done = upload.await;
            drop(room);
            done
        });
        Ok(())
    }

    /// Waits for all that were started so far.
    ///
    /// # Errors
    /// That of the first upload that failed.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let mut tasks = std::mem::take(&mut self.state().tasks);
        while let Some(done) = tasks.join_next().await {
            settled(done)?;
        }
        Ok(())
    }

    /// Waits for all; gives the keys of what was stored.
    ///
    /// # Errors
    /// That of the first upload that failed.
    pub(crate) async fn finish(self) -> Result<Vec<String>, Error> {
        let State { mut tasks, keys } = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some(done) = tasks.join_next().await {
            settled(done)?;
        }
        Ok(keys)
    }
}

fn settled(done: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match done {
        Ok(done) => done,
        Err(error) => Err(Error::invalid("upload", error.to_string())),
    }
}
