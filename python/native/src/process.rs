//! What belongs to one process: threads do not survive a fork, and in the child a lock that another
//! thread held stays locked.
#![expect(
    unsafe_code,
    reason = "a value that must not be dropped in a forked child"
)]

use std::mem::ManuallyDrop;

use pyo3::PyResult;
use pyo3::exceptions::PyRuntimeError;

/// A value of the process that made it. In a child it can be neither used nor taken apart.
#[derive(Debug)]
pub(crate) struct OfProcess<T> {
    process: u32,
    value: ManuallyDrop<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            process: std::process::id(),
            value: ManuallyDrop::new(value),
        }
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// The value.
    ///
    /// # Errors
    /// `RuntimeError` in a process forked from the one that made it.
    pub(crate) fn get(&self) -> PyResult<&T> {
        if self.is_here() {
            return Ok(&self.value);
        }
        let reason = "this engine was opened before the process was forked: open another one here";
        Err(PyRuntimeError::new_err(reason))
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: the value is dropped only here, and `drop` runs once.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        }
    }
}
