//! Copies of boxes between C-order buffers.

use array::{Region, shape};

/// Copies `part` from `source`, an array of `source_shape`, to `target`, which holds `target_region`
/// of the same array.
///
/// `part` lies inside the array and inside `target_region`.
pub(crate) fn copy_box(
    source: &[u8],
    source_shape: &[u64],
    target: &mut [u8],
    target_region: &Region,
    part: &Region,
    element_bytes: usize,
) {
    if part.is_empty() {
        return;
    }
    let Some(last) = part.shape().len().checked_sub(1) else {
        target.copy_from_slice(source);
        return;
    };
    let run = part.shape()[last] as usize * element_bytes;
    let mut rows = part.shape().to_vec();
    rows[last] = 1;
    let rows = Region::whole(&rows);
    for row in rows.positions() {
        let at: Vec<u64> = row.iter().zip(part.start()).map(|(r, s)| r + s).collect();
        let inside: Vec<u64> = at
            .iter()
            .zip(target_region.start())
            .map(|(a, s)| a - s)
            .collect();
        let from = shape::linear_index(&at, source_shape) as usize * element_bytes;
        let to = shape::linear_index(&inside, target_region.shape()) as usize * element_bytes;
        target[to..to + run].copy_from_slice(&source[from..from + run]);
    }
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
    let Some(&last) = region.shape().last() else {
        target.copy_from_slice(source);
        return;
    };
    let run = last as usize * element_bytes;
    if run == 0 {
        return;
    }
    let mut rows = region.shape().to_vec();
    rows[region.shape().len() - 1] = 1;
    let rows = Region::whole(&rows);
    for (row, bytes) in rows.positions().zip(source.chunks_exact(run)) {
        let at: Vec<u64> = row.iter().zip(region.start()).map(|(r, s)| r + s).collect();
        let to = shape::linear_index(&at, target_shape) as usize * element_bytes;
        target[to..to + run].copy_from_slice(bytes);
    }
}
