//! Looks at the end of the log, shared by requests that arrive together.
//!
//! ```text
//! arrived ──► a look that began later? done: its result · running: wait for it
//!        └──► join the next look, or be the one who makes it
//! ```
//!
//! Architecture invariant: whoever asks gets the result of a look that began after the question, so
//! every commit that was acknowledged before is in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Longest that a look waits for the one before it to end, gathering who else wants one.
const GATHER: Duration = Duration::from_millis(5);
/// The same where the one before reads many entries, as nothing is known yet.
const GATHER_FIRST: Duration = Duration::from_secs(1);

/// Whether a look has ended.
type Ended = watch::Receiver<bool>;

#[derive(Debug, Default)]
struct Latest {
    /// When the latest look began that has ended.
    done: Option<Instant>,
    /// The latest look that has begun.
    running: Option<(Instant, Ended)>,
    /// The look that has not begun.
    next: Option<Ended>,
}

/// Who looks. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks(Arc<Mutex<Latest>>);

/// How to learn what a look sees.
#[derive(Debug)]
pub(crate) enum Look {
    /// One has ended.
    Done,
    /// Someone else's.
    Other(Ended),
    /// The caller's own, once it has begun.
    Own(Own),
}

/// A look of the caller's. Dropped before it ended, it is anyone's again.
#[derive(Debug)]
pub(crate) struct Own {
    looks: Looks,
    ended: watch::Sender<bool>,
    before: Option<Ended>,
    began: Option<Instant>,
}

/// Waits for the end of a look; says whether it came, or the look was given up.
pub(crate) async fn end_of(mut look: Ended) -> bool {
    look.wait_for(|ended| *ended).await.is_ok()
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that begins, or began, after `asked`.
    pub(crate) fn after(&self, asked: Instant) -> Look {
        let mut latest = self.lock();
        if latest.done.is_some_and(|began| began >= asked) {
            return Look::Done;
        }
        let running = latest.running.clone();
        if let Some((began, ended)) = running.clone()
            && began >= asked
        {
            return Look::Other(ended);
        }
        if let Some(next) = &latest.next {
            return Look::Other(next.clone());
        }
        let (ended, next) = watch::channel(false);
        latest.next = Some(next);
        Look::Own(Own {
            looks: self.clone(),
            ended,
            before: running.map(|(_, ended)| ended),
            began: None,
        })
    }
}

impl Own {
    /// Begins: who asks from now on needs another look.
    pub(crate) async fn begin(&mut self, is_first: bool) {
        if let Some(before) = self.before.take() {
            let gather = if is_first { GATHER_FIRST } else { GATHER };
            let _ = tokio::time::timeout(gather, end_of(before)).await;
        }
        let now = Instant::now();
        let mut latest = self.looks.lock();
        if let Some(next) = latest.next.take() {
            latest.running = Some((now, next));
        }
        self.began = Some(now);
    }

    /// Ends: what it saw is known to all.
    pub(crate) fn end(self) {
        let mut latest = self.looks.lock();
        latest.done = latest.done.max(self.began);
        drop(latest);
        self.ended.send_replace(true);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut latest = self.looks.lock();
        match self.began {
            None => latest.next = None,
            Some(_) if latest.running.as_ref().map(|(began, _)| *began) == self.began => {
                latest.running = None;
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(looks: &Looks) -> Own {
        match looks.after(Instant::now()) {
            Look::Own(own) => own,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_look_serves_who_asked_before_it_began_and_nobody_later() {
        let looks = Looks::default();
        let asked = Instant::now();
        let mut first = own(&looks);
        let Look::Other(joined) = looks.after(Instant::now()) else {
            panic!("it has not begun");
        };
        first.begin(false).await;
        assert!(matches!(looks.after(asked), Look::Other(_)));
        let second = own(&looks);
        first.end();
        assert!(end_of(joined).await);
        assert!(matches!(looks.after(asked), Look::Done));
        drop(second);
        assert!(matches!(looks.after(Instant::now()), Look::Own(_)));
    }

    #[tokio::test]
    async fn a_look_that_was_given_up_is_anyones() {
        let looks = Looks::default();
        for has_begun in [false, true] {
            let asked = Instant::now();
            let mut given_up = own(&looks);
            if has_begun {
                given_up.begin(false).await;
            }
            let Look::Other(joined) = looks.after(asked) else {
                panic!("someone is at it");
            };
            drop(given_up);
            assert!(!end_of(joined).await);
            assert!(matches!(looks.after(asked), Look::Own(_)));
        }
    }

    #[tokio::test]
    async fn a_stalled_look_holds_nobody_up_for_long() {
        let looks = Looks::default();
        let mut stalled = own(&looks);
        stalled.begin(false).await;
        let mut next = own(&looks);
        tokio::time::timeout(GATHER * 200, next.begin(false))
            .await
            .expect("begins though the one before has not ended");
        next.end();
        assert!(matches!(looks.after(stalled.began.unwrap()), Look::Done));
    }
}
