//! Finding the newest entry of the log and the state it leads to.
//!
//! ```text
//! hint n ─► checkpoint before n, entries from there to past n, all at once ─► newest state
//!           └► longer log: probe further, then bisect ─► checkpoint and entries of the newest
//! ```
//!
//! An entry that is there stays there, so a search that starts at any of them finds the newest one;
//! each is checked by the chain. Architecture invariant: the cost of finding the newest never
//! depends on the length of the history.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use array::hash::Hash;
use array::json;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::{try_join, try_join_all};
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use tokio::sync::watch;
use tracing::warn;

use crate::commit::format_time;
use crate::log::{CHECKPOINT_INTERVAL, LogEntry, LogState, Operation};
use crate::looks::{Look, Looks, end_of};
use crate::repository::Repository;
use crate::store::Store;
use crate::turns::Turns;
use crate::{CommitId, Error};

pub(crate) const HINT_KEY: &str = "log/_hint.json";
/// The hint is written after every entry whose number is a multiple of this.
pub(crate) const HINT_INTERVAL: u64 = 16;
/// Log entries read at once: those between two checkpoints and those since the hint.
pub(crate) const CONCURRENT_ENTRIES: usize = 160;
/// Entries looked for at once in a search; more would save few round trips.
const PROBES: u32 = 4;
/// Entries kept: the log between two checkpoints, several times.
const CACHED_ENTRIES: u64 = 1024;

/// What a process knows of a repository's log.
#[derive(Debug)]
pub(crate) struct Log {
    /// Before any entry.
    initial: LogState,
    /// The number in the hint when the repository was opened.
    hint: Option<u64>,
    /// The newest state seen; states only grow.
    state: Mutex<LogState>,
    /// Who looks for a newer one.
    looks: Looks,
    entries: Cache<u64, Arc<(Hash, LogEntry)>>,
    /// The state a missing checkpoint should have, for the next writer to store.
    missing_checkpoint: Mutex<Option<LogState>>,
    turns: Mutex<Turns>,
    /// Number of the newest entry this process appended.
    appended: watch::Sender<Option<u64>>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the last checkpoint up to entry `sequence`; 0 for none.
fn last_checkpoint(sequence: u64) -> u64 {
    sequence - sequence % CHECKPOINT_INTERVAL
}

/// The number in the hint, if there is one.
pub(crate) async fn read_hint(store: &Store) -> Option<u64> {
    let bytes = store.get(HINT_KEY).await.ok().flatten()?;
    let hint = json::parse("hint", &bytes).ok()?;
    hint.get("sequence")?.as_str()?.parse().ok()
}

impl Log {
    /// The log of a repository whose `repo.json` has this hash, before anything of it is read.
    pub(crate) fn new(repo: Hash, hint: Option<u64>) -> Self {
        Self {
            initial: LogState::initial(repo),
            hint,
            state: Mutex::new(LogState::initial(repo)),
            looks: Looks::default(),
            entries: Cache::new(CACHED_ENTRIES),
            missing_checkpoint: Mutex::new(None),
            turns: Mutex::default(),
            appended: watch::Sender::new(None),
        }
    }

    /// The state before any entry.
    pub(crate) fn initial(&self) -> &LogState {
        &self.initial
    }

    /// Hash of `repo.json`.
    pub(crate) fn repository(&self) -> Hash {
        self.initial.entry
    }

    /// How this process takes turns with others.
    pub(crate) fn turns(&self) -> MutexGuard<'_, Turns> {
        lock(&self.turns)
    }

    /// Remembers a state, if it is newer than what is known.
    pub(crate) fn advance(&self, state: &LogState) {
        let mut latest = lock(&self.state);
        if latest.next_sequence() < state.next_sequence() {
            latest.clone_from(state);
        }
    }

    /// Tells whoever follows this process's own entries that there is another.
    pub(crate) fn tell_appended(&self, sequence: u64) {
        self.appended.send_replace(Some(sequence));
    }

    /// Remembers an entry that is in the log.
    pub(crate) fn insert(&self, hash: Hash, entry: LogEntry) {
        self.entries.insert(entry.sequence, Arc::new((hash, entry)));
    }

    /// Whether a commit has expired, as of the newest state seen.
    pub(crate) fn has_expired(&self, commit: &CommitId) -> bool {
        lock(&self.state).expired.contains_key(commit)
    }

    /// The state of a checkpoint that was found missing, once.
    pub(crate) fn take_missing_checkpoint(&self) -> Option<LogState> {
        lock(&self.missing_checkpoint).take()
    }
}

impl Repository {
    /// Follows the entries that this process appends: the number of the newest.
    pub fn appended(&self) -> watch::Receiver<Option<u64>> {
        self.log_cache().appended.subscribe()
    }

    /// The newest state of the log.
    ///
    /// Costs one request when nothing is new, and never more for a longer history.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if an entry is not what the chain says;
    /// [`Error::Store`] if the store failed.
    pub async fn head(&self) -> Result<LogState, Error> {
        let known = lock(&self.log_cache().state).clone();
        let state = match known.sequence {
            None => self.first_state().await?,
            Some(sequence) => {
                // Known entries are rarely far behind.
                let newest = self.newest_sequence(sequence, 1).await?;
                if newest - sequence <= 2 * CHECKPOINT_INTERVAL {
                    self.replay(known, newest).await?
                } else {
                    self.state_after(newest).await?
                }
            }
        };
        self.log_cache().advance(&state);
        Ok(state)
    }

    /// A state with everything that was in the log when `asked`. Those who ask together share the
    /// request.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub(crate) async fn head_since(&self, asked: Instant) -> Result<LogState, Error> {
        let log = self.log_cache();
        let has_ended = match log.looks.after(asked) {
            Look::Done => true,
            Look::Other(look) => end_of(look).await,
            Look::Own(mut look) => {
                let is_first = lock(&log.state).sequence.is_none();
                look.begin(is_first).await;
                let state = self.head().await?;
                look.end();
                return Ok(state);
            }
        };
        if has_ended {
            return Ok(lock(&log.state).clone());
        }
        // Whoever failed has its own error; the others find their own.
        self.head().await
    }

    /// The newest state when nothing of the log is known: everything that the hint suggests is
    /// asked for at once.
    async fn first_state(&self) -> Result<LogState, Error> {
        let log = self.log_cache();
        let hint = log.hint.unwrap_or(0);
        match self.state_near(hint).await? {
            Some(state) => Ok(state),
            // The hint is wrong, or there was none.
            None if hint > 0 => Ok(self.state_near(0).await?.unwrap_or(log.initial.clone())),
            None => Ok(log.initial.clone()),
        }
    }

    /// The newest state, if entry `hint` exists; in one round trip if that is not far behind.
    async fn state_near(&self, hint: u64) -> Result<Option<LogState>, Error> {
        let first = last_checkpoint(hint);
        let end = hint.saturating_add(HINT_INTERVAL);
        let entries = (first..=end).map(|at| self.entry(at));
        let mut checkpoints = vec![first, last_checkpoint(end)];
        checkpoints.dedup();
        let checkpoints = checkpoints.into_iter().map(|at| self.checkpoint_bytes(at));
        let (entries, checkpoints) =
            try_join(try_join_all(entries), try_join_all(checkpoints)).await?;
        if entries[(hint - first) as usize].is_none() {
            return Ok(None);
        }
        let last_found = entries.iter().rposition(Option::is_some).unwrap_or(0);
        let mut newest = first + last_found as u64;
        if newest == end {
            newest = self.newest_sequence(newest, PROBES).await?;
        }
        let last = last_checkpoint(newest);
        let known = match checkpoints {
            _ if last == 0 => Some(self.log_cache().initial.clone()),
            checkpoints => {
                let found = checkpoints.into_iter().find(|(at, _)| *at == last);
                match found {
                    Some((at, bytes)) => self.check_checkpoint(at, bytes).await?,
                    None => None,
                }
            }
        };
        Ok(Some(match known {
            Some(state) => self.replay(state, newest).await?,
            None => self.state_after(newest).await?,
        }))
    }

    /// The newest entry, searched from one that exists: first at a few places after it, then
    /// further and further, then between the last found and the first not.
    async fn newest_sequence(&self, start: u64, first_probes: u32) -> Result<u64, Error> {
        let mut span = Span {
            present: start,
            absent: None,
        };
        let mut probes = span.ahead(1, first_probes);
        let mut step = 1u64 << first_probes;
        loop {
            let found = try_join_all(probes.iter().map(|&at| self.entry(at))).await?;
            span.narrow(
                probes
                    .iter()
                    .copied()
                    .zip(found.iter().map(Option::is_some)),
            );
            probes = match span.absent {
                Some(absent) if absent - span.present == 1 => return Ok(span.present),
                Some(absent) => span.cuts(absent),
                None if span.present == u64::MAX => return Ok(span.present),
                None => span.ahead(step, PROBES),
            };
            step = step.saturating_mul(1 << PROBES);
        }
    }

    /// Entry `sequence` and its hash; `None` if there is none yet.
    async fn entry(&self, sequence: u64) -> Result<Option<Arc<(Hash, LogEntry)>>, Error> {
        let log = self.log_cache();
        if let Some(entry) = log.entries.get(&sequence) {
            return Ok(Some(entry));
        }
        let key = LogEntry::key(sequence);
        let Some(bytes) = self.store().get(&key).await? else {
            return Ok(None);
        };
        let entry =
            LogEntry::decode(sequence, &bytes).map_err(|reason| Error::corrupt(&key, reason))?;
        let entry = Arc::new(entry);
        log.entries.insert(sequence, entry.clone());
        Ok(Some(entry))
    }

    pub(crate) async fn entry_that_exists(
        &self,
        sequence: u64,
    ) -> Result<Arc<(Hash, LogEntry)>, Error> {
        let missing = || Error::Missing {
            key: LogEntry::key(sequence),
        };
        self.entry(sequence).await?.ok_or_else(missing)
    }

    /// Entries `first..=last`, which exist.
    async fn entries(&self, first: u64, last: u64) -> Result<Vec<Arc<(Hash, LogEntry)>>, Error> {
        futures::stream::iter(first..=last)
            .map(|sequence| self.entry_that_exists(sequence))
            .buffered(CONCURRENT_ENTRIES)
            .try_collect()
            .await
    }

    /// `state` moved on to entry `newest`.
    async fn replay(&self, mut state: LogState, newest: u64) -> Result<LogState, Error> {
        let entries = match state.next_sequence() {
            first if first <= newest => self.entries(first, newest).await?,
            _ => return Ok(state),
        };
        for entry in entries {
            let (hash, entry) = &*entry;
            state
                .apply(*hash, entry)
                .map_err(|reason| Error::corrupt(LogEntry::key(entry.sequence), reason))?;
        }
        Ok(state)
    }

    /// The state after entry `sequence`, which exists, from the nearest checkpoint before it.
    pub(crate) async fn state_after(&self, sequence: u64) -> Result<LogState, Error> {
        let last = last_checkpoint(sequence);
        let mut at = last;
        while at > 0 {
            // All but the first time, the entries are known already.
            let (state, _) = futures::try_join!(self.checkpoint(at), self.entries(at, sequence))?;
            if let Some(state) = state {
                return self.replay_over(state, last, sequence).await;
            }
            warn!(
                sequence = at,
                "checkpoint is missing, reading more of the log"
            );
            at -= CHECKPOINT_INTERVAL;
        }
        let initial = self.log_cache().initial.clone();
        self.replay_over(initial, last, sequence).await
    }

    /// `state` moved on to entry `sequence`; notes the state after entry `last` if it lies between,
    /// since its checkpoint is missing.
    async fn replay_over(
        &self,
        mut state: LogState,
        last: u64,
        sequence: u64,
    ) -> Result<LogState, Error> {
        if last > 0 && state.next_sequence() <= last {
            state = self.replay(state, last).await?;
            *lock(&self.log_cache().missing_checkpoint) = Some(state.clone());
        }
        self.replay(state, sequence).await
    }

    /// The checkpoint after entry `sequence`, checked against that entry; `None` if it is missing.
    pub(crate) async fn checkpoint(&self, sequence: u64) -> Result<Option<LogState>, Error> {
        let entry = self.entry_that_exists(sequence);
        let ((_, bytes), _) = try_join(self.checkpoint_bytes(sequence), entry).await?;
        self.check_checkpoint(sequence, bytes).await
    }

    /// The stored bytes of a checkpoint, with its number; there is none before any entry.
    async fn checkpoint_bytes(&self, sequence: u64) -> Result<(u64, Option<Bytes>), Error> {
        let bytes = match sequence {
            0 => None,
            _ => {
                self.store()
                    .get(&LogState::checkpoint_key(sequence))
                    .await?
            }
        };
        Ok((sequence, bytes))
    }

    /// The state in the bytes of a checkpoint, checked against its entry.
    async fn check_checkpoint(
        &self,
        sequence: u64,
        bytes: Option<Bytes>,
    ) -> Result<Option<LogState>, Error> {
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        let entry = self.entry_that_exists(sequence).await?;
        let key = LogState::checkpoint_key(sequence);
        let corrupt = |reason: String| Error::corrupt(&key, reason);
        let state = LogState::decode_checkpoint(sequence, &bytes).map_err(corrupt)?;
        let (hash, entry) = &*entry;
        if state.entry != *hash || state.time != Some(entry.time) || state.root() != entry.state {
            return Err(corrupt("it does not belong to its log entry".into()));
        }
        Ok(Some(state))
    }

    /// Log entries after number `after` (from the first if none), oldest first.
    ///
    /// # Errors
    /// As [`Repository::head`].
    pub async fn log(&self, after: Option<u64>, limit: usize) -> Result<Vec<LogEntry>, Error> {
        let Some(newest) = self.head().await?.sequence else {
            return Ok(Vec::new());
        };
        let first = after.map_or(0, |after| after.saturating_add(1));
        futures::stream::iter((first..=newest).take(limit))
            .map(|sequence| async move { Ok(self.entry_that_exists(sequence).await?.1.clone()) })
            .buffered(CONCURRENT_ENTRIES)
            .try_collect()
            .await
    }

    /// Log entry `sequence` as it is stored.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; as [`Repository::head`].
    pub async fn log_entry_bytes(&self, sequence: u64) -> Result<Vec<u8>, Error> {
        let entry = self.entry(sequence).await?;
        let none = || Error::not_found("log entry", &sequence.to_string(), []);
        // Decoded, it is the same bytes again: they are canonical.
        Ok(entry.ok_or_else(none)?.1.encode().1)
    }

    /// Whether a commit whose objects are not all there may be gone for good: it has expired, or a
    /// ref was at it once and none needs it now.
    ///
    /// # Errors
    /// As [`Repository::head`].
    pub async fn is_over(&self, commit: CommitId) -> Result<bool, Error> {
        let state = self.head().await?;
        if state.expired.contains_key(&commit) {
            return Ok(true);
        }
        let mut seen = BTreeSet::new();
        let mut open: Vec<CommitId> = state.refs.values().copied().collect();
        while let Some(id) = open.pop() {
            if id == commit {
                return Ok(false);
            }
            if state.expired.contains_key(&id) || !seen.insert(id) {
                continue;
            }
            match self.known_or_stored(id).await? {
                Some(found) => open.extend(&found.parents),
                // Something that is needed is gone: this is a loss.
                None => return Ok(false),
            }
        }
        // Only what the log names was ever a commit of this repository.
        let next = state.next_sequence();
        let mut entries = futures::stream::iter(0..next)
            .map(|sequence| self.entry_that_exists(sequence))
            .buffered(CONCURRENT_ENTRIES);
        while let Some(entry) = entries.try_next().await? {
            let is_named = entry.1.operations.iter().any(|operation| match operation {
                Operation::UpdateRef { from, to, .. } => {
                    *from == Some(commit) || *to == Some(commit)
                }
                _ => false,
            });
            if is_named {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The commit a write led to, if it is in the log at entry `since` or later.
    ///
    /// # Errors
    /// As [`Repository::head`].
    pub(crate) async fn find_write(
        &self,
        write_id: &str,
        since: u64,
    ) -> Result<Option<CommitId>, Error> {
        let next = self.head().await?.next_sequence();
        let mut entries = futures::stream::iter(since..next)
            .map(|sequence| self.entry_that_exists(sequence))
            .buffered(CONCURRENT_ENTRIES);
        while let Some(entry) = entries.try_next().await? {
            if let Some(commit) = entry.1.write(write_id) {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// The refs as they were at `time`.
    pub(crate) async fn state_at(&self, time: DateTime<Utc>) -> Result<LogState, Error> {
        let none = || Error::NotFound {
            what: "state of the repository at",
            name: format_time(time),
            suggestions: Vec::new(),
        };
        let later = self.first_entry_after(time).await?;
        self.state_after(later.checked_sub(1).ok_or_else(none)?)
            .await
    }

    /// The number of the first entry later than `time`, by bisection: times strictly increase. One
    /// past the newest if none is.
    pub(crate) async fn first_entry_after(&self, time: DateTime<Utc>) -> Result<u64, Error> {
        let (mut low, mut high) = (0, self.head().await?.next_sequence());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry_that_exists(middle).await?.1.time <= time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Where the newest entry is: at `present` or after it, and before `absent`.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    present: u64,
    absent: Option<u64>,
}

impl Span {
    /// Takes in what was found where. Entries may have come up between the looks, so one that is
    /// absent says nothing if a later one is present.
    fn narrow(&mut self, found: impl Iterator<Item = (u64, bool)> + Clone) {
        let present = found.clone().filter(|(_, found)| *found).map(|(at, _)| at);
        self.present = present.fold(self.present, u64::max);
        let absent = found.filter(|(_, found)| !found).map(|(at, _)| at);
        self.absent = absent
            .chain(self.absent)
            .filter(|&at| at > self.present)
            .min();
    }

    /// Places after the last found, `step` away and each twice as far as the one before.
    fn ahead(&self, step: u64, count: u32) -> Vec<u64> {
        (0..count)
            .map(|n| self.present.saturating_add(step.saturating_mul(1 << n)))
            .collect()
    }

    /// Places that divide what lies between into equal parts.
    fn cuts(&self, absent: u64) -> Vec<u64> {
        let gap = u128::from(absent - self.present);
        let mut cuts: Vec<u64> = (1..=PROBES)
            .map(|n| (gap * u128::from(n) / u128::from(PROBES + 1)).max(1) as u64)
            .map(|offset| self.present + offset)
            .collect();
        cuts.dedup();
        cuts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The search, on a log whose newest entry is `newest`.
        #[test]
        fn a_search_finds_the_newest_entry(newest: u64, start: u64, first_probes in 1..=PROBES) {
            let start = start.min(newest);
            let mut span = Span { present: start, absent: None };
            let mut probes = span.ahead(1, first_probes);
            let mut step = 1u64 << first_probes;
            let mut rounds = 0;
            loop {
                span.narrow(probes.iter().map(|&at| (at, at <= newest)));
                rounds += 1;
                prop_assert!(rounds < 64);
                probes = match span.absent {
                    Some(absent) if absent - span.present == 1 => break,
                    Some(absent) => span.cuts(absent),
                    None if span.present == u64::MAX => break,
                    None => span.ahead(step, PROBES),
                };
                step = step.saturating_mul(1 << PROBES);
            }
            prop_assert_eq!(span.present, newest);
        }
    }

    #[test]
    fn an_entry_that_came_up_during_the_search_moves_it_on() {
        let mut span = Span {
            present: 7,
            absent: None,
        };
        span.narrow([(8, false), (9, false), (11, true), (15, false)].into_iter());
        assert_eq!(
            span,
            Span {
                present: 11,
                absent: Some(15)
            }
        );
    }
}
