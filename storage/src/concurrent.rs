//! Several requests at once, a bounded number of them.

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::Error;

/// Requests in flight for one operation. More than a store's connections gain nothing.
pub(crate) const CONCURRENT_REQUESTS: usize = 16;

/// Runs `requests`, at most [`CONCURRENT_REQUESTS`] at once; gives their results in order.
pub(crate) async fn all<T: Send>(
    requests: Vec<BoxFuture<'_, Result<T, Error>>>,
) -> Result<Vec<T>, Error> {
    futures::stream::iter(requests)
        .buffered(CONCURRENT_REQUESTS)
        .try_collect()
        .await
}
