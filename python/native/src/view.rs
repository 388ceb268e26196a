//! A commit as a Zarr store, read without requests.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use service::error::Failure;
use service::view::{self, Part};

use crate::body::Body;
use crate::bridge;
use crate::engine::Running;
use crate::process::OfProcess;

/// How often someone who waits can interrupt it.
const SIGNALS: Duration = Duration::from_millis(100);

/// One commit as a Zarr store.
#[pyclass(frozen, module = "quarr._native")]
pub(crate) struct View {
    engine: Arc<OfProcess<Running>>,
    view: Arc<view::View>,
}

impl View {
    pub(crate) fn new(engine: Arc<OfProcess<Running>>, view: view::View) -> Self {
        Self {
            engine,
            view: Arc::new(view),
        }
    }
}

#[pymethods]
impl View {
    /// The object, or a part of it; `None` if there is none. At once if nothing has to be waited
    /// for, else as a future.
    #[pyo3(signature = (key, start=None, stop=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: String,
        start: Option<i64>,
        stop: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let running = self.engine.get()?;
        let part = part(start, stop)?;
        let view = self.view.clone();
        let asked = key.clone();
        let mut work = Box::pin(async move { view.get(&key, part).await });
        let at_once = py.detach(|| {
            let _entered = running.tasks().runtime.enter();
            // Whoever goes on with it polls it again, so nothing is missed.
            work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        match at_once {
            Poll::Ready(found) => Ok(object(py, &asked, found)?.into_bound(py)),
            Poll::Pending => bridge::future(py, running.tasks(), async move {
                let found = work.await;
                move |py: Python<'_>| object(py, &asked, found)
            }),
        }
    }

    /// The same, which waits.
    #[pyo3(signature = (key, start=None, stop=None))]
    fn get_sync(
        &self,
        py: Python<'_>,
        key: &str,
        start: Option<i64>,
        stop: Option<u64>,
    ) -> PyResult<Py<PyAny>> {
        let running = self.engine.get()?;
        let part = part(start, stop)?;
        let mut work = std::pin::pin!(self.view.get(key, part));
        loop {
            let handle = &running.tasks().runtime;
            let found = py.detach(|| {
                handle.block_on(async { tokio::time::timeout(SIGNALS, &mut work).await })
            });
            match found {
                Ok(found) => return object(py, key, found),
                Err(_) => py.check_signals()?,
            }
        }
    }
}

fn part(start: Option<i64>, stop: Option<u64>) -> PyResult<Part> {
    Ok(match (start, stop) {
        (None, None) => Part::Whole,
        (None, Some(stop)) => Part::Range(0, stop),
        (Some(start), None) if start < 0 => Part::Last(start.unsigned_abs()),
        (Some(start), None) => Part::From(start.unsigned_abs()),
        (Some(start), Some(stop)) if start >= 0 => Part::Range(start.unsigned_abs(), stop),
        (Some(_), Some(_)) => {
            let reason = "start counts from the end: there is no stop then";
            return Err(PyValueError::new_err(reason));
        }
    })
}

fn object(py: Python<'_>, key: &str, found: Result<Option<Bytes>, Failure>) -> PyResult<Py<PyAny>> {
    let found = found.map_err(|failure| raised(py, key, failure))?;
    Ok(found.map(Body).into_pyobject(py)?.unbind())
}

/// The exception the client raises for an answer with this failure.
pub(crate) fn raised(py: Python<'_>, target: &str, failure: Failure) -> PyErr {
    let problem = failure.into_problem();
    let made = || {
        let headers = PyDict::new(py);
        headers.set_item("content-type", "application/problem+json")?;
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let make = py.import("quarr.errors")?.getattr("from_response")?;
        make.call1((
            "GET",
            target,
            problem.status,
            headers,
            PyBytes::new(py, &body),
        ))
    };
    made().map_or_else(|error| error, PyErr::from_value)
}
