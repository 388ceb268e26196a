//! Progress of long work.
#![expect(clippy::print_stderr, reason = "progress is not output")]

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Least time between two lines: short work tells nothing.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A bar on a terminal, elsewhere a line every tenth, if that takes a while.
pub(super) struct Meter {
    bar: Option<ProgressBar>,
    last: Mutex<Line>,
    started: Instant,
}

/// The line that was shown last.
struct Line {
    tenth: u64,
    at: Instant,
}

impl Meter {
    pub(super) fn new() -> Self {
        let style = "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left  {msg}";
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        let started = Instant::now();
        Self {
            bar,
            last: Mutex::new(Line {
                tenth: 0,
                at: started,
            }),
            started,
        }
    }

    /// Shows how many bytes are done, and what else there is to say.
    pub(super) fn show(&self, bytes: u64, total_bytes: u64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total_bytes);
            bar.set_position(bytes);
            bar.set_message(what.to_owned());
            return;
        }
        let tenth = 10 * bytes / total_bytes.max(1);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if tenth > last.tenth && last.at.elapsed() >= LINE_INTERVAL {
            *last = Line {
                tenth,
                at: Instant::now(),
            };
            let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
            let rate = bytes as f64 / 1e6 / seconds;
            let left = (total_bytes - bytes.min(total_bytes)) as f64 / 1e6 / rate.max(1e-9);
            eprintln!(
                "{tenth}0 %  {} of {} MB  {rate:.0} MB/s  {left:.0} s left  {what}",
                bytes / 1_000_000,
                total_bytes / 1_000_000,
            );
        }
    }

    pub(super) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
