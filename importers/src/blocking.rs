//! Work that blocks, off the threads that answer requests.

use crate::Error;

/// Does `work` on a thread that may block.
///
/// # Errors
/// That of `work`; [`Error::Worker`] if it panicked, [`Error::Cancelled`] if nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| worker_failed(&error))?
}

pub(crate) fn worker_failed(error: &tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::Cancelled;
    }
    Error::Worker {
        reason: error.to_string(),
    }
}
