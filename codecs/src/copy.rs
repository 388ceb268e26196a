//! Copies of boxes between C-order buffers.

use array::{Region, Runs};

/// The cells of `part` of `source`, an array of `shape`, in C order.
pub(crate) fn cut_box(
    source: &[u8],
    shape: &[u64],
    part: &Region,
    element_bytes: usize,
) -> Vec<u8> {
    let runs = Runs::of(part, &Region::whole(shape), part);
    let length = runs.length() as usize * element_bytes;
    let count = part.shape().iter().product::<u64>() as usize;
    let mut cells = Vec::with_capacity(count * element_bytes);
    runs.for_each(|from, _| {
        let from = from as usize * element_bytes;
        cells.extend_from_slice(&source[from..from + length]);
    });
    cells
}

/// Copies `source`, which holds `region` of an array of `target_shape`, to its place in `target`,
/// which holds all of it.
pub(crate) fn place_box(
    source: &[u8],
    region: &Region,
    target: &mut [u8],
    target_shape: &[u64],
    element_bytes: usize,
) {
    let runs = Runs::of(region, region, &Region::whole(target_shape));
    let length = runs.length() as usize * element_bytes;
    runs.for_each(|from, to| {
        let (from, to) = (from as usize * element_bytes, to as usize * element_bytes);
        target[to..to + length].copy_from_slice(&source[from..from + length]);
    });
}
