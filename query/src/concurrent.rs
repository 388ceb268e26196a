//! Several pieces of work at once, without a task for each.

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::Error;

/// One of several pieces of work.
pub(crate) type Work<'a, T = ()> = BoxFuture<'a, Result<T, Error>>;

/// Does all of it, at most so many pieces at once, begun in order; ends at the first that fails.
pub(crate) async fn all<'a>(
    most: usize,
    work: impl Iterator<Item = Work<'a>> + Send,
) -> Result<(), Error> {
    let mut done = futures::stream::iter(work).buffer_unordered(most);
    while let Some(()) = done.try_next().await? {}
    Ok(())
}
