//! How much each principal may ask for: requests a second, and requests at once.
//!
//! One bucket of tokens for each principal, or each address of those who are nobody. The table is
//! bounded: buckets that are full and unused are forgotten, for a new one would be the same. Should
//! there be none of these, whoever is new shares one bucket with all others who are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most principals and addresses with a bucket of their own: some 2 MB.
const MAX_BUCKETS: usize = 10_000;

/// What one principal may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateLimits {
    /// Requests a second over a while; twice as many at once.
    pub per_second: Option<f64>,
    /// Requests at once.
    pub at_once: Option<u32>,
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A principal, by id.
    Principal(String),
    /// An address; of IPv6 the network of 64 bits, which is one customer's.
    Address(IpAddr),
    /// All who are new while the table is full, and who has no address.
    Others,
}

impl Counted {
    /// Whoever has this address.
    pub fn address(address: Option<IpAddr>) -> Self {
        match address {
            Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => Self::Address(address.into()),
                None => {
                    let network = address.to_bits() >> 64 << 64;
                    Self::Address(IpAddr::V6(network.into()))
                }
            },
            Some(address) => Self::Address(address),
            None => Self::Others,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    running: u32,
    /// Refusals since one was told.
    refused: u64,
    told: Option<Instant>,
}

/// A request that is not let in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    /// When to try again.
    pub after: Duration,
    /// How many were refused since the last one that has this; none while that is under a second ago.
    pub to_tell: Option<u64>,
}

/// Counts requests. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    limits: RateLimits,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    buckets: HashMap<Counted, Bucket>,
    /// When those not needed were forgotten last: looking at all for each request would be dear.
    swept: Option<Instant>,
}

/// A request that was let in; it counts until this is dropped.
#[derive(Debug)]
pub struct Running {
    rates: Rates,
    counted: Counted,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(bucket) = self.rates.table().buckets.get_mut(&self.counted) {
            bucket.running = bucket.running.saturating_sub(1);
        }
    }
}

impl Rates {
    /// Counts up to these limits.
    pub fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            table: Arc::default(),
        }
    }

    /// The limits.
    pub fn limits(&self) -> RateLimits {
        self.limits
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn burst(&self) -> f64 {
        self.limits
            .per_second
            .map_or(1.0, |rate| (2.0 * rate).max(1.0))
    }

    /// Lets a request in; nothing is counted where there are no limits.
    ///
    /// # Errors
    /// A refusal, with the seconds to wait, if it is one too many.
    pub fn begin(&self, counted: Counted) -> Result<Option<Running>, Refused> {
        self.begin_at(counted, Instant::now())
    }

    fn begin_at(&self, counted: Counted, now: Instant) -> Result<Option<Running>, Refused> {
        if self.limits == RateLimits::default() {
            return Ok(None);
        }
        let mut table = self.table();
        let counted = self.place(&mut table, counted, now);
        let burst = self.burst();
        let bucket = table.buckets.entry(counted.clone()).or_insert(Bucket {
            tokens: burst,
            filled: now,
            running: 0,
            refused: 0,
            told: None,
        });
        let mut wait = None;
        if let Some(rate) = self.limits.per_second {
            let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
            bucket.tokens = (bucket.tokens + passed * rate).min(burst);
            bucket.filled = now;
            if bucket.tokens < 1.0 {
                wait = Some(Duration::from_secs_f64((1.0 - bucket.tokens) / rate));
            }
        }
        if wait.is_none()
            && self
                .limits
                .at_once
                .is_some_and(|most| bucket.running >= most)
        {
            wait = Some(Duration::from_secs(1));
        }
        if let Some(after) = wait {
            bucket.refused += 1;
            let is_told = bucket
                .told
                .is_some_and(|told| now.saturating_duration_since(told) < Duration::from_secs(1));
            let to_tell = (!is_told).then(|| {
                bucket.told = Some(now);
                std::mem::take(&mut bucket.refused)
            });
            return Err(Refused { after, to_tell });
        }
        bucket.tokens -= 1.0;
        bucket.running += 1;
        drop(table);
        Ok(Some(Running {
            rates: self.clone(),
            counted,
        }))
    }

    /// Where someone is counted: in a bucket of his own, if there is room.
    fn place(&self, table: &mut Table, counted: Counted, now: Instant) -> Counted {
        if table.buckets.len() < MAX_BUCKETS || table.buckets.contains_key(&counted) {
            return counted;
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        if table
            .swept
            .is_none_or(|swept| since(swept) >= Duration::from_secs(1))
        {
            table.swept = Some(now);
            let (rate, burst) = (self.limits.per_second, self.burst());
            table.buckets.retain(|_, bucket| {
                let filled = |rate: f64| bucket.tokens + since(bucket.filled).as_secs_f64() * rate;
                let is_full = rate.is_none_or(|rate| filled(rate) >= burst);
                bucket.running > 0 || !is_full
            });
        }
        match table.buckets.len() < MAX_BUCKETS {
            true => counted,
            false => Counted::Others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone(name: &str) -> Counted {
        Counted::Principal(name.to_owned())
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let rates = Rates::new(RateLimits {
            per_second: Some(2.0),
            at_once: None,
        });
        let now = Instant::now();
        for _ in 0..4 {
            assert!(rates.begin_at(someone("ada"), now).is_ok());
        }
        let refused = rates.begin_at(someone("ada"), now).unwrap_err();
        assert_eq!(
            refused,
            Refused {
                after: Duration::from_millis(500),
                to_tell: Some(1)
            }
        );
        assert_eq!(
            rates.begin_at(someone("ada"), now).unwrap_err().to_tell,
            None
        );
        assert!(rates.begin_at(someone("bob"), now).is_ok());
        assert!(
            rates
                .begin_at(someone("ada"), now + Duration::from_millis(500))
                .is_ok()
        );
        let later = now + Duration::from_millis(1100);
        assert!(rates.begin_at(someone("ada"), later).is_ok());
        assert_eq!(
            rates.begin_at(someone("ada"), later).unwrap_err().to_tell,
            Some(2)
        );
    }

    #[test]
    fn requests_count_until_they_end() {
        let rates = Rates::new(RateLimits {
            per_second: None,
            at_once: Some(2),
        });
        let first = rates.begin(someone("ada")).unwrap();
        let _second = rates.begin(someone("ada")).unwrap();
        assert!(rates.begin(someone("ada")).is_err());
        drop(first);
        assert!(rates.begin(someone("ada")).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_newcomers_to_a_full_one_share() {
        let rates = Rates::new(RateLimits {
            per_second: Some(1.0),
            at_once: None,
        });
        let now = Instant::now();
        for at in 0..MAX_BUCKETS + 50 {
            let _ = rates.begin_at(someone(&at.to_string()), now);
        }
        assert!(rates.table().buckets.len() <= MAX_BUCKETS + 1);
        assert!(rates.begin_at(someone("new"), now).is_err());
        // Full again, they are forgotten.
        assert!(
            rates
                .begin_at(someone("new"), now + Duration::from_secs(60))
                .is_ok()
        );
        assert!(rates.table().buckets.len() < 10);
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let address = |text: &str| Counted::address(Some(text.parse().unwrap()));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
