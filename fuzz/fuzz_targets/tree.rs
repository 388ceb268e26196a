//! Pages of trees of groups, which are Arrow files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: quarr_fuzz::let_arrow_panic(), |stream: &[u8]| {
    storage::fuzzing::tree_page(stream);
});
