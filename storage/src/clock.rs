//! How far this machine's clock is from the store's.
//!
//! Log entries carry times, and a reader asks for the state at a time, so a writer whose clock is
//! wrong must not write. Every answer of an HTTP store has a `Date`; it is noted on the way.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Result};

/// The offset of a store's clock; none for a store without one of its own. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreClock(Arc<Mutex<Option<TimeDelta>>>);

impl StoreClock {
    /// How far the store is ahead of this machine; negative if it is behind. `None` if unknown.
    pub(crate) fn ahead(&self) -> Option<TimeDelta> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the store's time now.
    pub(crate) fn observe(&self, store_time: DateTime<Utc>) {
        let ahead = store_time - Utc::now();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }
}

impl HttpConnector for StoreClock {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        let clock = self.clone();
        Ok(HttpClient::new(Observed { inner, clock }))
    }
}

/// An HTTP client whose answers set a clock.
#[derive(Debug)]
struct Observed {
    inner: HttpClient,
    clock: StoreClock,
}

#[async_trait]
impl HttpService for Observed {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.inner.execute(request).await?;
        let date = response.headers().get("date");
        let date = date
            .and_then(|date| date.to_str().ok())
            .and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        if let Some(date) = date {
            self.clock.observe(date.with_timezone(&Utc));
        }
        Ok(response)
    }
}
