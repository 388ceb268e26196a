//! Futures of Python's event loops, completed from tokio.
//!
//! ```text
//! tokio task ─► outcome in the queue of the loop ─► one wake-up of the loop for all in the queue
//!                                                    └► on its thread: results and exceptions are set
//! cancelled future ─► the task is aborted
//! ```
//!
//! Every Python object is made on the thread of the loop: no other thread waits for the interpreter
//! but to wake a loop that has nothing in its queue yet. None does once the interpreter ends, which
//! would end the thread in the middle of Rust code.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::process::OfProcess;

/// What a future ends with, made where the interpreter is.
type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// Where work runs, until the interpreter ends. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Tasks {
    pub(crate) runtime: Handle,
    has_ended: Arc<OfProcess<RwLock<bool>>>,
}

impl Tasks {
    /// Work on this runtime.
    pub(crate) fn new(py: Python<'_>, runtime: Handle) -> PyResult<Self> {
        let has_ended = Arc::new(OfProcess::new(RwLock::new(false)));
        let end = End(has_ended.clone());
        py.import("atexit")?.call_method1("register", (end,))?;
        Ok(Self { runtime, has_ended })
    }

    /// Does something with the interpreter, unless it has ended.
    fn attach(&self, work: impl FnOnce(Python<'_>)) {
        let Ok(has_ended) = self.has_ended.get() else {
            return;
        };
        // Held until the interpreter is let go: its end waits for it.
        let has_ended = has_ended.read().unwrap_or_else(PoisonError::into_inner);
        if !*has_ended {
            Python::try_attach(work);
        }
    }
}

/// Called when the interpreter is about to end.
#[pyclass(frozen)]
struct End(Arc<OfProcess<RwLock<bool>>>);

#[pymethods]
impl End {
    fn __call__(&self, py: Python<'_>) {
        if let Ok(has_ended) = self.0.get() {
            // Whoever holds the lock may be waiting for the interpreter.
            py.detach(|| *has_ended.write().unwrap_or_else(PoisonError::into_inner) = true);
        }
    }
}

/// Runs `work`; gives a future of the running event loop, which ends with what the
/// result of `work` makes of it.
///
/// # Errors
/// `RuntimeError` if no event loop is running.
pub(crate) fn future<'py, F>(
    py: Python<'py>,
    tasks: &Tasks,
    work: impl Future<Output = F> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    F: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
{
    static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let running = RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?;
    let port = Port::of(&running.call0()?)?;
    let future = port
        .event_loop
        .bind(py)
        .call_method0(intern!(py, "create_future"))?;
    let done = future.clone().unbind();
    let task = tasks.runtime.spawn({
        let (port, tasks) = (port.clone(), tasks.clone());
        async move {
            let outcome = work.await;
            port.hand_over(&tasks, done, Box::new(outcome));
        }
    });
    let task = Task(task.abort_handle());
    future.call_method1(intern!(py, "add_done_callback"), (task,))?;
    Ok(future)
}

/// The work behind a future, called when the future is done.
#[pyclass(frozen)]
struct Task(AbortHandle);

#[pymethods]
impl Task {
    fn __call__(&self, _future: Bound<'_, PyAny>) {
        // Ended work takes no notice, so there is no need to ask whether the future was cancelled.
        self.0.abort();
    }
}

thread_local! {
    /// The event loop this thread ran last. Another loop replaces it.
    static PORT: RefCell<Option<Arc<Port>>> = const { RefCell::new(None) };
}

/// Where outcomes for an event loop wait for its thread.
struct Port {
    event_loop: Py<PyAny>,
    done: Mutex<Vec<(Py<PyAny>, Outcome)>>,
}

impl Port {
    /// That of a loop, which this thread runs.
    fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let known =
            PORT.with_borrow(|port| port.clone().filter(|port| port.event_loop.is(event_loop)));
        if let Some(port) = known {
            return Ok(port);
        }
        let port = Arc::new(Self {
            event_loop: event_loop.clone().unbind(),
            done: Mutex::default(),
        });
        let replaced = PORT.replace(Some(port.clone()));
        // Outside the borrow: dropping a loop may run Python code.
        drop(replaced);
        Ok(port)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<(Py<PyAny>, Outcome)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an outcome and wakes the loop, unless it has been woken for one before.
    fn hand_over(self: Arc<Self>, tasks: &Tasks, future: Py<PyAny>, outcome: Outcome) {
        let is_first = {
            let mut queue = self.queue();
            queue.push((future, outcome));
            queue.len() == 1
        };
        if !is_first {
            return;
        }
        tasks.attach(|py| {
            let waiting = Waiting(self.clone());
            let wake = intern!(py, "call_soon_threadsafe");
            if self
                .event_loop
                .bind(py)
                .call_method1(wake, (waiting,))
                .is_err()
            {
                // The loop is closed: nobody waits for its futures.
                let abandoned = std::mem::take(&mut *self.queue());
                drop(abandoned);
            }
        });
    }
}

/// What an event loop calls when outcomes wait for it.
#[pyclass(frozen)]
struct Waiting(Arc<Port>);

#[pymethods]
impl Waiting {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let done = std::mem::take(&mut *self.0.queue());
        for (future, outcome) in done {
            let future = future.into_bound(py);
            // Cancelled while its outcome was under way.
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            match outcome(py) {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
            };
        }
        Ok(())
    }
}
