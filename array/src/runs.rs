//! Runs of neighbouring cells that two boxes of one array have in common.

use crate::grid::Region;
use crate::shape;

/// The runs of neighbours that a box has in common with two C-order boxes: as long as both allow.
#[derive(Clone, Debug)]
pub struct Runs {
    length: u64,
    /// Axes that a run is at one position of, those with the longest strides first.
    outer: Vec<Axis>,
    from: u64,
    to: u64,
}

#[derive(Clone, Copy, Debug)]
struct Axis {
    length: u64,
    from_stride: u64,
    to_stride: u64,
}

impl Runs {
    /// The runs of `common`, which is inside `from` and inside `to`.
    pub fn of(common: &Region, from: &Region, to: &Region) -> Self {
        if common.is_empty() {
            return Self {
                length: 0,
                outer: Vec::new(),
                from: 0,
                to: 0,
            };
        }
        let rank = common.shape().len();
        let is_whole = |&axis: &usize| {
            let length = common.shape()[axis];
            length == from.shape()[axis] && length == to.shape()[axis]
        };
        let whole = (0..rank).rev().take_while(is_whole).count();
        // Along the axis before those that are whole, neighbours are neighbours in both too.
        let first = (rank - whole).saturating_sub(1);
        let (from_strides, to_strides) = (shape::strides(from.shape()), shape::strides(to.shape()));
        let corner = |region: &Region, strides: &[u64]| -> u64 {
            let inside = common.start().iter().zip(region.start());
            inside.zip(strides).map(|((c, r), s)| (c - r) * s).sum()
        };
        let outer = (0..first).map(|axis| Axis {
            length: common.shape()[axis],
            from_stride: from_strides[axis],
            to_stride: to_strides[axis],
        });
        Self {
            length: common.shape()[first..].iter().product(),
            outer: outer.collect(),
            from: corner(from, &from_strides),
            to: corner(to, &to_strides),
        }
    }

    /// Cells of each run; 0 if the boxes have none in common.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Calls `visit` with the place of each run in the one box and in the other, in C order.
    pub fn for_each(&self, mut visit: impl FnMut(u64, u64)) {
        if self.length > 0 {
            along(&self.outer, self.from, self.to, &mut visit);
        }
    }
}

fn along(axes: &[Axis], from: u64, to: u64, visit: &mut impl FnMut(u64, u64)) {
    let Some((axis, inner)) = axes.split_first() else {
        return visit(from, to);
    };
    for at in 0..axis.length {
        along(
            inner,
            from + at * axis.from_stride,
            to + at * axis.to_stride,
            visit,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxes() -> impl Strategy<Value = (Region, Region)> {
        let length = prop::collection::vec((0u64..3, 1u64..4, 0u64..3, 1u64..4), 0..4);
        length.prop_map(|axes| {
            let from = axes.iter().map(|axis| (axis.0, axis.1)).unzip();
            let to = axes.iter().map(|axis| (axis.2, axis.3)).unzip();
            let region = |(start, shape)| Region::new(start, shape).unwrap();
            (region(from), region(to))
        })
    }

    proptest! {
        #[test]
        fn runs_are_the_cells_in_common_in_order((from, to) in boxes()) {
            let common = from.intersect(&to);
            let runs = Runs::of(&common, &from, &to);
            let mut found = Vec::new();
            runs.for_each(|f, t| found.extend((0..runs.length()).map(|n| (f + n, t + n))));
            let place = |region: &Region, at: &[u64]| {
                let inside: Vec<u64> = at.iter().zip(region.start()).map(|(a, s)| a - s).collect();
                shape::linear_index(&inside, region.shape())
            };
            let expected: Vec<(u64, u64)> = match common.is_empty() {
                true => Vec::new(),
                false => common.positions().map(|at| (place(&from, &at), place(&to, &at))).collect(),
            };
            prop_assert_eq!(found, expected);
        }
    }
}
