//! How writers that know nothing of each other take turns at the log.
//!
//! Whoever has just appended knows the newest entry and has everything at hand: it would be first
//! again, and again. So a process that lost races waits before its next append, the longer the more
//! it lost: for about half as many attempts as it had to make. Those who wait are then fewer, and each
//! of them is soon first. A process that meets no other never waits.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of the count of lost races after a further append.
const MEMORY: f64 = 0.9;
/// With fewer lost races than this in memory, nobody else is taken to be there.
const FORGOTTEN: f64 = 0.5;
/// Longest wait before an append.
const LONGEST: Duration = Duration::from_secs(10);

/// What one process knows of the others at a log.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Races lost for one append, lately.
    losses: f64,
    /// When it is polite to append again.
    not_before: Option<Instant>,
}

impl Turns {
    /// When to append next, if not at once.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Notes an append that took so many further attempts, the last of which took `attempt`.
    pub(crate) fn took_turn(&mut self, losses: u32, attempt: Duration) {
        let remembered = self.losses * MEMORY;
        self.losses = f64::from(losses).max(remembered);
        if self.losses < FORGOTTEN {
            *self = Self::default();
            return;
        }
        let jitter = 0.3 + 0.6 * rand::random::<f64>();
        let wait = attempt.mul_f64((self.losses + 1.0) * jitter).min(LONGEST);
        self.not_before = Some(Instant::now() + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_lost_races_waits_and_not_for_ever() {
        let attempt = Duration::from_millis(100);
        let mut turns = Turns::default();
        turns.took_turn(0, attempt);
        assert_eq!(turns.not_before(), None);
        turns.took_turn(9, attempt);
        let wait = turns.not_before().map(|at| at - Instant::now());
        let (shortest, longest) = (Duration::from_millis(300), Duration::from_millis(900));
        assert!(
            wait.is_some_and(|wait| wait >= shortest && wait <= longest),
            "{wait:?}"
        );
        turns.took_turn(1_000_000, attempt);
        let wait = turns.not_before().map(|at| at - Instant::now());
        assert_eq!(wait, Some(LONGEST));
        turns = Turns::default();
        turns.took_turn(2, attempt);
        for _ in 0..20 {
            turns.took_turn(0, attempt);
        }
        assert_eq!(turns.not_before(), None);
    }
}
