//! A selection cut into runs of the C order of its kept cells.

use std::ops::Range;

use array::{AxisSelection, ResolvedSelection, shape};

use crate::ArrayReader;
use crate::measure::Role;

/// Cuts along the edges of inner chunks where they allow it: each is a run of the C order of the
/// kept cells, with all of the other axes.
pub(crate) struct Cuts {
    /// Along each axis, the parts; of kept axes, those before the one that is cut have parts of one
    /// position, those after it one whole part.
    axes: Vec<Vec<Range<u64>>>,
    at: u64,
}

impl Cuts {
    /// Cuts of at most so many kept cells, or of those along one inner chunk.
    pub(crate) fn new(
        array: &ArrayReader,
        selection: &ResolvedSelection,
        roles: &[Role],
        most_cells: u64,
    ) -> Self {
        let inner_shape = array.codec().inner_shape();
        let shape = selection.selected_shape();
        let mut axes: Vec<Vec<Range<u64>>> = Vec::new();
        let mut below = 1u64;
        let mut is_cut = false;
        for (axis, &length) in shape.iter().enumerate().rev() {
            let whole = below.saturating_mul(length);
            axes.push(if !roles[axis].is_kept() {
                vec![Range {
                    start: 0,
                    end: length,
                }]
            } else if is_cut {
                (0..length).map(|at| at..at + 1).collect()
            } else if whole <= most_cells {
                below = whole;
                vec![Range {
                    start: 0,
                    end: length,
                }]
            } else {
                is_cut = true;
                let most = (most_cells / below.max(1)).max(1);
                cut_axis(&selection.axes()[axis], inner_shape[axis], most)
            });
        }
        axes.reverse();
        Self { axes, at: 0 }
    }

    /// The largest that any cut is along each axis.
    pub(crate) fn largest(&self) -> Vec<Range<u64>> {
        let longest = |parts: &Vec<Range<u64>>| {
            let parts = parts.iter().cloned();
            parts
                .max_by_key(|part| part.end - part.start)
                .unwrap_or(0..0)
        };
        self.axes.iter().map(longest).collect()
    }
}

impl Iterator for Cuts {
    type Item = Vec<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let lengths: Vec<u64> = self.axes.iter().map(|axis| axis.len() as u64).collect();
        if self.at >= lengths.iter().product() {
            return None;
        }
        let at = shape::coordinate(self.at, &lengths);
        self.at += 1;
        let parts = at.iter().zip(&self.axes);
        Some(
            parts
                .map(|(&nth, axis)| axis[nth as usize].clone())
                .collect(),
        )
    }
}

/// Parts of an axis of at most so many positions, or of one inner chunk where the next edge is no
/// further than twice that.
fn cut_axis(axis: &AxisSelection, inner: u64, most: u64) -> Vec<Range<u64>> {
    let length = axis.len();
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut start = 0;
    while start < length {
        let limit = start.saturating_add(most).min(length);
        let chunk_of = |nth| axis.position(nth) / inner;
        // Back to the last edge, or on to the next if there is none before.
        let mut end = limit;
        if end < length {
            let last = chunk_of(end - 1);
            if chunk_of(end) == last {
                while end > start && chunk_of(end - 1) == last {
                    end -= 1;
                }
            }
            if end == start {
                end = limit;
                let furthest = limit.saturating_add(most).min(length);
                while end < furthest && chunk_of(end) == last {
                    end += 1;
                }
                if end == furthest && end < length && chunk_of(end) == last {
                    end = limit;
                }
            }
        }
        parts.push(start..end);
        start = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_cut_along_the_edges_of_inner_chunks() {
        let axis = |start, step, count| AxisSelection::Range { start, step, count };
        assert_eq!(cut_axis(&axis(0, 1, 100), 32, 40), [0..32, 32..64, 64..100]);
        assert_eq!(cut_axis(&axis(10, 1, 60), 32, 70).len(), 1);
        assert_eq!(cut_axis(&axis(10, 1, 60), 32, 25), [0..22, 22..54, 54..60]);
        // Inner chunks much longer than a part are cut themselves.
        assert_eq!(cut_axis(&axis(0, 1, 10), 100, 4), [0..4, 4..10]);
        assert_eq!(cut_axis(&axis(99, -1, 100), 50, 60), [0..50, 50..100]);
        assert_eq!(cut_axis(&axis(0, 1, 0), 50, 60), []);
    }
}
