//! Pages of trees of groups, which are Arrow files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| storage::fuzzing::tree_page(stream));
