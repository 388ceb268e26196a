//! A service over one store, asked without a network.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, BodyStream};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyClass, PyClassInitializer};
use service::cli::{Sizes, open_embedded};
use service::http::{HeldMemory, router};
use service::signing::keep_publishing;
use service::state::State;
use service::view;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tower::ServiceExt as _;

use crate::body::Body;
use crate::bridge::{self, Tasks};
use crate::process::OfProcess;
use crate::view::{View, raised};

/// Threads that wait for the store and answer; decoding and computing has its own.
const ANSWERING_THREADS: usize = 4;

/// A service over the store at `url`, in this process.
#[pyclass(frozen, weakref, module = "quarr._native")]
pub(crate) struct Engine(Arc<OfProcess<Running>>);

/// The service and the threads it runs on.
pub(crate) struct Running {
    state: State,
    router: Router,
    tasks: Tasks,
    _threads: Threads,
}

struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // Whoever drops the last reference may hold the interpreter: requests are not waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[pymethods]
impl Engine {
    /// Opens the store. Nothing is read yet.
    #[new]
    #[pyo3(signature = (url, *, options=None, memory_limit_bytes=None, threads=None, cache_dir=None, cache_disk_bytes=None))]
    fn new(
        py: Python<'_>,
        url: &str,
        options: Option<HashMap<String, String>>,
        memory_limit_bytes: Option<u64>,
        threads: Option<usize>,
        cache_dir: Option<PathBuf>,
        cache_disk_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let sizes = Sizes {
            memory_limit_bytes,
            threads,
            cache_dir,
            cache_disk_bytes,
        };
        let options = options.unwrap_or_default();
        let (state, runtime) = py.detach(|| open(url, &options, &sizes))?;
        Ok(Self(Arc::new(OfProcess::new(Running {
            router: router(state.clone()),
            tasks: Tasks::new(py, runtime.handle().clone())?,
            state,
            _threads: Threads(Some(runtime)),
        }))))
    }

    /// Asks; the body is collected before the future is done.
    #[pyo3(signature = (method, target, headers=Vec::new(), body=None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        target: &str,
        headers: Vec<(String, String)>,
        body: Option<PyBuffer<u8>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let running = self.0.get()?;
        let request = request(py, method, target, headers, body)?;
        let router = running.router.clone();
        bridge::future(py, &running.tasks, async move {
            let response = answer(router, request).await;
            let (head, body) = response.into_parts();
            let collected = body.collect().await;
            hand_over(&head);
            move |py: Python<'_>| {
                let bytes = collected.map_err(|error| broken(&error))?.to_bytes();
                answered(py, &head, Body(bytes))
            }
        })
    }

    /// Asks; the future is done when the body begins.
    #[pyo3(signature = (method, target, headers=Vec::new(), body=None))]
    fn stream<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        target: &str,
        headers: Vec<(String, String)>,
        body: Option<PyBuffer<u8>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (engine, running) = (self.0.clone(), self.0.get()?);
        let request = request(py, method, target, headers, body)?;
        let router = running.router.clone();
        bridge::future(py, &running.tasks, async move {
            let (head, body) = answer(router, request).await.into_parts();
            hand_over(&head);
            move |py: Python<'_>| {
                let body = Arc::new(Mutex::new(BodyStream::new(body)));
                answered(py, &head, Stream { engine, body })
            }
        })
    }

    /// One commit as a Zarr store.
    #[pyo3(signature = (repository, commit_id, *, inner_chunks=false))]
    fn view<'py>(
        &self,
        py: Python<'py>,
        repository: String,
        commit_id: String,
        inner_chunks: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (engine, running) = (self.0.clone(), self.0.get()?);
        let state = running.state.clone();
        bridge::future(py, &running.tasks, async move {
            let opened = view::View::open(&state, &repository, &commit_id, inner_chunks).await;
            move |py: Python<'_>| {
                let target = format!("{repository}@{commit_id}");
                let opened = opened.map_err(|failure| raised(py, &target, failure))?;
                Ok(Py::new(py, View::new(engine, opened))?.into_any())
            }
        })
    }

    /// Signs what this process appended to logs; gives what went wrong, in words.
    fn sign<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let running = self.0.get()?;
        let state = running.state.clone();
        bridge::future(py, &running.tasks, async move {
            let warnings = state.sign_appended().await;
            move |py: Python<'_>| Ok(warnings.into_pyobject(py)?.unbind())
        })
    }

    fn __repr__(&self) -> PyResult<String> {
        let url = self.0.get()?.state.store().url();
        Ok(format!("<Engine over {url:?}>"))
    }
}

fn request(
    py: Python<'_>,
    method: &str,
    target: &str,
    headers: Vec<(String, String)>,
    body: Option<PyBuffer<u8>>,
) -> PyResult<Request<HttpBody>> {
    // Copied once: the caller may change it while the request runs.
    let body = match body {
        Some(buffer) => HttpBody::from(buffer.to_vec(py)?),
        None => HttpBody::empty(),
    };
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
        .body(body)
        .map_err(|error| PyValueError::new_err(format!("{method} {target}: {error}")))
}

impl Running {
    /// Where its requests run.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

/// The service over a store, and threads for it.
fn open(url: &str, options: &HashMap<String, String>, sizes: &Sizes) -> PyResult<(State, Runtime)> {
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let state = open_embedded(url, &options, sizes)
        .map_err(|failed| PyValueError::new_err(failed.to_string()))?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(ANSWERING_THREADS)
        .thread_name("quarr-io")
        .enable_all()
        .build()?;
    runtime.spawn(keep_publishing(state.clone()));
    Ok((state, runtime))
}

async fn answer(router: Router, request: Request<HttpBody>) -> Response<HttpBody> {
    router
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {})
}

/// The bytes of an answer are Python's from now on, which may keep them: no memory of the engine.
fn hand_over(head: &axum::http::response::Parts) {
    if let Some(memory) = head.extensions.get::<HeldMemory>() {
        memory.give_back();
    }
}

/// The status, the headers and the body of an answer.
fn answered<T>(py: Python<'_>, head: &axum::http::response::Parts, body: T) -> PyResult<Py<PyAny>>
where
    T: PyClass + Into<PyClassInitializer<T>>,
{
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), text(value.as_bytes())))
        .collect();
    let answer = (head.status.as_u16(), headers, Py::new(py, body)?);
    Ok(answer.into_pyobject(py)?.into_any().unbind())
}

fn broken(error: &axum::Error) -> PyErr {
    PyConnectionError::new_err(format!(
        "the answer broke off: {}",
        service::error::chain(error)
    ))
}

/// The body of an answer that is still being made.
#[pyclass(frozen, module = "quarr._native")]
pub(crate) struct Stream {
    engine: Arc<OfProcess<Running>>,
    body: Arc<Mutex<BodyStream<HttpBody>>>,
}

#[pymethods]
impl Stream {
    /// The next bytes; `None` at the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let running = self.engine.get()?;
        let body = self.body.clone();
        bridge::future(py, &running.tasks, async move {
            let next = next_bytes(&mut *body.lock().await).await;
            move |py: Python<'_>| {
                let next = next.map_err(|error| broken(&error))?;
                Ok(next.map(Body).into_pyobject(py)?.unbind())
            }
        })
    }
}

async fn next_bytes(body: &mut BodyStream<HttpBody>) -> Result<Option<Bytes>, axum::Error> {
    use futures::StreamExt as _;
    while let Some(frame) = body.next().await {
        // Trailers carry no bytes.
        if let Ok(bytes) = frame?.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}
