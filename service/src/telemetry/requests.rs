//! The requests of a server: those being answered, and how long the others took.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use storage::metrics::Histogram;

/// What requests without a route are counted as: paths of clients are no labels.
pub const NO_ROUTE: &str = "none";

/// A request that is being answered.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its method.
    pub method: &'static str,
    /// The template of its route.
    pub route: Arc<str>,
    /// Its id, as the client has it.
    pub id: Arc<str>,
    /// When it came.
    pub started: Instant,
}

/// One kind of request: its method and the class of its status.
type Series = (&'static str, &'static str);

/// The times of one route.
type OfRoute = Mutex<BTreeMap<Series, Arc<Histogram>>>;

/// Requests since the start. Routes are those of the router, so their number is bounded.
#[derive(Debug, Default)]
pub struct Requests {
    routes: RwLock<HashMap<Arc<str>, Arc<OfRoute>>>,
    running: Mutex<BTreeMap<u64, Running>>,
    next: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    aborted: AtomicU64,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requests {
    /// A request came; gives its number here.
    pub fn begin(&self, running: Running) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.running).insert(number, running);
        number
    }

    /// Its answer has ended, or was given up: then it has no status.
    pub fn end(&self, number: u64, status: Option<StatusCode>) -> Option<(Running, Duration)> {
        let running = lock(&self.running).remove(&number)?;
        let time = running.started.elapsed();
        match status {
            Some(status) => {
                let series = (running.method, class(status));
                self.histogram(&running.route, series).add(time);
            }
            None => {
                self.aborted.fetch_add(1, Ordering::Relaxed);
            }
        }
        Some((running, time))
    }

    fn histogram(&self, route: &Arc<str>, series: Series) -> Arc<Histogram> {
        // Not held while the route is added below.
        let known = {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            routes.get(route).cloned()
        };
        let of_route = known.unwrap_or_else(|| {
            let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
            routes.entry(route.clone()).or_default().clone()
        });
        lock(&of_route).entry(series).or_default().clone()
    }

    /// Bytes of a body came.
    pub fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of an answer went.
    pub fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of bodies that came, and of answers that went.
    pub fn bytes(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.bytes_in), count(&self.bytes_out))
    }

    /// Requests whose client went away before it had the answer.
    pub fn aborted(&self) -> u64 {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Those being answered, the oldest first.
    pub fn running(&self) -> Vec<Running> {
        lock(&self.running).values().cloned().collect()
    }

    /// How many are being answered.
    pub fn running_count(&self) -> u64 {
        lock(&self.running).len() as u64
    }

    /// Route, method, class of status, and times, in a fixed order.
    pub fn times(&self) -> Vec<(Arc<str>, Series, Arc<Histogram>)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut times = Vec::new();
        for (route, of_route) in routes.iter() {
            let of_route = lock(of_route);
            times.extend(of_route.iter().map(|(s, h)| (route.clone(), *s, h.clone())));
        }
        times.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        times
    }
}

/// A method as a label: clients may invent methods.
pub fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PROPFIND" => "PROPFIND",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_and_class() {
        let requests = Requests::default();
        let running = |route: &str| Running {
            method: method_name(&Method::GET),
            route: route.into(),
            id: "id".into(),
            started: Instant::now(),
        };
        let numbers = ["/a", "/a", "/b", "/a"].map(|route| requests.begin(running(route)));
        assert_eq!(requests.running_count(), 4);
        requests.end(numbers[0], Some(StatusCode::OK));
        requests.end(numbers[1], Some(StatusCode::PARTIAL_CONTENT));
        requests.end(numbers[2], Some(StatusCode::NOT_FOUND));
        requests.end(numbers[3], None);
        assert!(requests.end(numbers[3], None).is_none());
        let times = requests.times();
        let counts = times.iter().map(|(r, s, h)| (&**r, s.0, s.1, h.count()));
        let expected = [("/a", "GET", "2xx", 2), ("/b", "GET", "4xx", 1)];
        assert_eq!(counts.collect::<Vec<_>>(), expected);
        assert_eq!((requests.running_count(), requests.aborted()), (0, 1));
        assert_eq!(method_name(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
