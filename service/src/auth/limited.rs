//! Requests and connections that a limit ended before anyone asked whose they were, as the audit log
//! tells of them.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;

use super::audit::{self, Event};
use super::{Auth, Principal};
use crate::telemetry::Refused;

/// Lines about one limit are at least this far apart: a flood is told of, and does not fill the log.
const EVERY: Duration = Duration::from_secs(1);

/// What is known of who was refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limited<'a> {
    pub(crate) address: Option<SocketAddr>,
    /// Method and path, if so much was read.
    pub(crate) asked: Option<(&'a Method, &'a str)>,
    /// The answer, if there was one.
    pub(crate) status: Option<u16>,
}

impl Limited<'_> {
    /// Of a connection whose request was not read.
    pub(crate) fn connection(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            ..Self::default()
        }
    }
}

/// How often each limit refused something since a line told of it.
#[derive(Debug, Default)]
pub(super) struct Untold([Mutex<Count>; Refused::ALL.len()]);

#[derive(Debug, Default)]
struct Count {
    told: Option<Instant>,
    since: u64,
}

impl Untold {
    /// How many refusals a line would stand for, this one included; `None` if it is too early for one.
    fn add(&self, why: Refused, now: Instant) -> Option<u64> {
        let mut count = self.0[why as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        count.since += 1;
        if count.told.is_some_and(|told| now - told < EVERY) {
            return None;
        }
        count.told = Some(now);
        Some(std::mem::take(&mut count.since))
    }
}

impl Auth {
    /// Tells of someone whom a limit refused or cut off. That a server is busy is no denial.
    pub(crate) fn tell_limited(&self, why: Refused, limited: Limited<'_>) {
        let is_kept = self.is_required || self.audits_open;
        if !is_kept || matches!(why, Refused::Requests | Refused::Deadline) {
            return;
        }
        let Some(count) = self.untold.add(why, Instant::now()) else {
            return;
        };
        let nobody = Principal::anonymous(Vec::new());
        self.audit.write(&Event {
            time: audit::now(),
            outcome: "denied",
            principal: nobody.id,
            name: nobody.name,
            method: limited
                .asked
                .map_or_else(String::new, |asked| asked.0.to_string()),
            route: String::new(),
            repository: None,
            path: limited.asked.map(|asked| audit::cut(asked.1)),
            status: limited.status,
            reason: Some(why.name()),
            commit: None,
            location: None,
            count: Some(count).filter(|count| *count > 1),
            remote: limited.address.map(|address| address.to_string()),
            request_id: String::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_for_what_came_since_the_last() {
        let (untold, start) = (Untold::default(), Instant::now());
        assert_eq!(untold.add(Refused::Url, start), Some(1));
        assert_eq!(untold.add(Refused::Url, start + EVERY / 2), None);
        assert_eq!(untold.add(Refused::Headers, start + EVERY / 2), Some(1));
        assert_eq!(untold.add(Refused::Url, start + EVERY), Some(2));
    }
}
