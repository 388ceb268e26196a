//! Pages of manifests and of statistics, which are Arrow files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quarr_fuzz::steered;

fuzz_target!(init: quarr_fuzz::let_arrow_panic(), |data: &[u8]| {
    let Some((steer, stream)) = steered(data) else {
        return;
    };
    let (dimensions, level) = (steer % 4, (steer / 4 % 3) as u32);
    storage::fuzzing::manifest_page(stream, dimensions, level);
    storage::fuzzing::statistics_page(stream, dimensions, level);
});
