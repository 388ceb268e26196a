//! Records of what a shared transaction has staged.
#![no_main]

use array::hash::Kind;
use libfuzzer_sys::fuzz_target;
use quarr_fuzz::with_self;

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = with_self(Kind::Staged, bytes) {
        storage::fuzzing::staged(&record);
    }
});
