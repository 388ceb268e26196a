//! How far an export is.

use std::sync::{Mutex, PoisonError};

use super::Exported;

/// How far an export is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportProgress {
    /// The array being written.
    pub array: String,
    /// Arrays begun.
    pub arrays: u64,
    /// Arrays in all.
    pub total_arrays: u64,
    /// Chunks written so far.
    pub chunks: u64,
    /// Bytes written so far.
    pub bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Counts what is written, and tells.
pub(crate) struct Tally<'a> {
    state: Mutex<ExportProgress>,
    show: &'a (dyn Fn(&ExportProgress) + Send + Sync),
}

impl<'a> Tally<'a> {
    pub(crate) fn new(show: &'a (dyn Fn(&ExportProgress) + Send + Sync)) -> Self {
        Self {
            state: Mutex::default(),
            show,
        }
    }

    fn change(&self, change: impl FnOnce(&mut ExportProgress)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        (self.show)(&state);
    }

    /// There is so much to do.
    pub(crate) fn expect(&self, arrays: u64, bytes: u64) {
        self.change(|state| {
            state.total_arrays = arrays;
            state.total_bytes = bytes;
        });
    }

    /// An array begins.
    pub(crate) fn begin(&self, array: &str) {
        self.change(|state| {
            state.arrays += 1;
            array.clone_into(&mut state.array);
        });
    }

    /// A chunk was written.
    pub(crate) fn chunk(&self, bytes: u64) {
        self.change(|state| {
            state.chunks += 1;
            state.bytes = state.bytes.saturating_add(bytes);
        });
    }

    pub(crate) fn exported(&self) -> Exported {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Exported {
            arrays: state.arrays,
            chunks: state.chunks,
            bytes: state.bytes,
        }
    }
}
