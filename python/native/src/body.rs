//! Bytes that Python reads where they are.
#![expect(
    unsafe_code,
    reason = "the buffer protocol hands out a pointer to memory that Rust owns"
)]

use std::ffi::{c_int, c_void};

use bytes::Bytes;
use pyo3::ffi;
use pyo3::prelude::*;

/// Read-only bytes with the buffer protocol. They live as long as a view of them.
#[pyclass(frozen, module = "quarr._native")]
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Bytes);

#[pymethods]
impl Body {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<Body of {} bytes>", self.0.len())
    }

    /// # Safety
    /// `view` is what Python gave to be filled.
    unsafe fn __getbuffer__(
        this: &Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let bytes = &this.get().0;
        let (start, length) = (bytes.as_ptr(), bytes.len() as ffi::Py_ssize_t);
        // SAFETY: Python calls this with a valid `view`. The view holds a reference to `this` until
        // it is released; the class is frozen and `Bytes` never move or change, so `start` stays
        // valid for `length` bytes that long. Read-only (1): nobody writes through the view.
        let filled = unsafe {
            let start = start.cast_mut().cast::<c_void>();
            ffi::PyBuffer_FillInfo(view, this.as_ptr(), start, length, 1, flags)
        };
        match filled {
            0 => Ok(()),
            _ => Err(PyErr::fetch(this.py())),
        }
    }
}
