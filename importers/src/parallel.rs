//! Work on several threads whose results one thread puts together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Makes something of each item on so many threads, and hands it to `take` on this one, in any order.
///
/// # Errors
/// The first of `take`; what is being made then is made to its end.
pub(crate) fn for_each<I: Sync, T: Send, E>(
    items: &[I],
    threads: usize,
    make: impl Fn(&I) -> T + Sync,
    mut take: impl FnMut(&I, T) -> Result<(), E>,
) -> Result<(), E> {
    if threads < 2 || items.len() < 2 {
        return items.iter().try_for_each(|item| take(item, make(item)));
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        // As many as threads wait at most, one each.
        let (sender, receiver) = mpsc::sync_channel(1);
        for _ in 0..threads.min(items.len()) {
            let (sender, next, make) = (sender.clone(), &next, &make);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((item, make(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver
            .iter()
            .try_for_each(|(item, made)| take(item, made))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_taken_once_and_an_error_ends_it() {
        let items: Vec<u32> = (0..100).collect();
        for threads in [1, 3, 200] {
            let mut sum = 0;
            let all = for_each(
                &items,
                threads,
                |item| item * 2,
                |_, double| {
                    sum += double;
                    Ok::<_, ()>(())
                },
            );
            assert_eq!((all, sum), (Ok(()), 9900));
            let failed = for_each(
                &items,
                threads,
                |item| *item,
                |_, item| match item {
                    50 => Err(item),
                    _ => Ok(()),
                },
            );
            assert_eq!(failed, Err(50));
        }
    }
}
