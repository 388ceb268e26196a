//! One output buffer, filled by many threads at once.
//!
//! Invariant: the writers' ranges are disjoint. They are, because every element of the result
//! belongs to exactly one inner chunk ([`compute::gather::AxisPart`] partitions each axis), and each
//! inner chunk is decoded once.
#![expect(
    unsafe_code,
    reason = "disjoint ranges of one buffer are written from several threads"
)]

use std::cell::UnsafeCell;

/// A buffer whose disjoint ranges can be written from several threads.
pub(crate) struct Output(UnsafeCell<Vec<u8>>);

// SAFETY: all access through a shared reference is `range_mut`, whose callers promise disjoint
// ranges.
unsafe impl Sync for Output {}

impl Output {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(UnsafeCell::new(bytes))
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: only the length is read; nothing changes it until `into_inner` takes the buffer by
        // value.
        unsafe { (*self.0.get()).len() }
    }

    /// Bytes `start..start + length`.
    ///
    /// # Safety
    /// No other range that is in use overlaps this one.
    ///
    /// # Panics
    /// If the range reaches past the buffer.
    #[expect(
        clippy::mut_from_ref,
        reason = "that is the point; see the invariant of the module"
    )]
    pub(crate) unsafe fn range_mut(&self, start: usize, length: usize) -> &mut [u8] {
        let buffer = self.0.get();
        let total = self.len();
        assert!(
            start <= total && length <= total - start,
            "range past the output"
        );
        // SAFETY: inside the buffer by the check above, and no one else's by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut((*buffer).as_mut_ptr().add(start), length) }
    }

    pub(crate) fn into_inner(self) -> Vec<u8> {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disjoint_ranges_are_written_from_several_threads() {
        let output = Output::new(vec![0; 64]);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let output = &output;
                // SAFETY: each thread has its own eight bytes.
                scope.spawn(move || unsafe { output.range_mut(thread * 8, 8) }.fill(thread as u8));
            }
        });
        let expected: Vec<u8> = (0..64).map(|at| (at / 8) as u8).collect();
        assert_eq!(output.into_inner(), expected);
    }

    #[test]
    #[should_panic(expected = "range past the output")]
    fn ranges_past_the_buffer_are_refused() {
        let output = Output::new(vec![0; 8]);
        // SAFETY: the only range in use.
        unsafe { output.range_mut(4, 5) };
    }
}
