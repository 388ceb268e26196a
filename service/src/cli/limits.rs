//! What clients of `quarr serve` may take, and how it ends.

use std::time::Duration;

use clap::Args;

use super::sizes::parse_bytes;
use crate::serving::Limits;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Most connections; others are refused
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_connections: u64,
    /// Most requests that are worked on at once; others wait
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_requests: u64,
    /// Most requests that wait; others are refused
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    max_queued: u64,
    /// How long a request waits for others
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    queue_timeout: Duration,
    /// How long an answer may take to begin, after the last of the request came
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    request_timeout: Duration,
    /// How long the head of a request may take to come
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_time)]
    header_timeout: Duration,
    /// How long a connection may do nothing
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = parse_time)]
    idle_timeout: Duration,
    /// In this time, --progress-size of a body has to come, or of an answer be taken
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    progress_timeout: Duration,
    /// How much of a body has to come, or of an answer be taken, in --progress-timeout
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = parse_bytes)]
    progress_size: u64,
    /// Longest URL
    #[arg(long, value_name = "SIZE", default_value = "32KiB", value_parser = parse_bytes)]
    max_url: u64,
    /// Most bytes of all headers of a request
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_bytes)]
    max_header_size: u64,
    /// Most headers of a request
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(8..=4096))]
    max_headers: u64,
    /// How long the server goes on, but says that it is not ready, after it was asked to end
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_time)]
    drain_delay: Duration,
    /// How long requests may then take to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    drain_timeout: Duration,
}

impl LimitArgs {
    /// What clients may take.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            requests: self.max_requests,
            queued_requests: self.max_queued,
            queue_timeout: self.queue_timeout,
            request_timeout: self.request_timeout,
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
            progress_timeout: self.progress_timeout,
            progress_bytes: self.progress_size,
            url_bytes: self.max_url,
            header_bytes: self.max_header_size,
            headers: self.max_headers,
        }
    }

    /// How long the server goes on once it was asked to end, and how long requests may take then.
    pub(super) fn drain(&self) -> (Duration, Duration) {
        (self.drain_delay, self.drain_timeout)
    }
}

/// Longest time that is taken: larger ones would not fit where times are added up.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A time: `30s`, `5m`, `1h 30m`, `200ms`.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err("the longest is a year".to_owned()),
        Err(error) => Err(format!("{error}: times are written as 30s, 5m or 200ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_time("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "-1s", "2years", "s"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
