//! Entries of the log and its checkpoints.
#![no_main]

use array::hash::Kind;
use libfuzzer_sys::fuzz_target;
use quarr_fuzz::with_self;

fuzz_target!(|bytes: &[u8]| {
    if let Some(entry) = with_self(Kind::LogEntry, bytes) {
        storage::fuzzing::log_entry(&entry);
    }
    if let Some(checkpoint) = with_self(Kind::Checkpoint, bytes) {
        storage::fuzzing::checkpoint(&checkpoint);
    }
});
