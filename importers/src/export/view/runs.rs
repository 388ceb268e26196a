//! Boxes that go through an array in C order.

use array::{Region, shape};

/// Boxes that are runs of the C order of a shape.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    shape: Vec<u64>,
    /// The axis that is cut, and the length of its parts.
    axis: usize,
    step: u64,
    grid: Vec<u64>,
    at: u64,
    count: u64,
}

impl Runs {
    pub(crate) fn new(shape: &[u64], inner: &[u64], most: u64) -> Self {
        let mut below = 1u64;
        let mut axis = shape.len();
        let mut step = 1;
        // The last axis from which on everything is more than `most`.
        while axis > 0 {
            axis -= 1;
            step = shape[axis].max(1);
            let whole = below.saturating_mul(step);
            if whole > most {
                step = (most / below).max(1);
                if step > inner[axis] {
                    step -= step % inner[axis];
                }
                break;
            }
            below = whole;
        }
        let mut grid: Vec<u64> = shape.iter().take(axis).copied().collect();
        if let Some(length) = shape.get(axis) {
            grid.push(length.div_ceil(step));
        }
        let count = match shape.contains(&0) {
            true => 0,
            false => grid
                .iter()
                .fold(1u64, |count, length| count.saturating_mul(*length)),
        };
        Self {
            shape: shape.to_vec(),
            axis,
            step,
            grid,
            at: 0,
            count,
        }
    }
}

impl Iterator for Runs {
    type Item = Region;

    fn next(&mut self) -> Option<Region> {
        if self.at >= self.count {
            return None;
        }
        let at = shape::coordinate(self.at, &self.grid);
        self.at += 1;
        let mut start = vec![0; self.shape.len()];
        let mut length = self.shape.clone();
        for (axis, &nth) in at.iter().enumerate() {
            let step = if axis == self.axis { self.step } else { 1 };
            start[axis] = nth * step;
            length[axis] = step.min(self.shape[axis] - start[axis]);
        }
        Region::new(start, length).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_a_shape_once_in_c_order() {
        for (shape, inner) in [
            (vec![], vec![]),
            (vec![0, 3], vec![1, 1]),
            (vec![7], vec![3]),
            (vec![3, 4, 5], vec![2, 3, 2]),
            (vec![1, 1, 9], vec![1, 1, 4]),
        ] {
            for most in [1, 2, 6, 7, 20, 1000] {
                let strides = shape::strides(&shape);
                let place =
                    |at: Vec<u64>| -> u64 { at.iter().zip(&strides).map(|(a, s)| a * s).sum() };
                let cells: Vec<u64> = Runs::new(&shape, &inner, most)
                    .inspect(|run| {
                        let cells: u64 = run.shape().iter().product();
                        assert!(
                            cells <= most.max(1),
                            "{run:?} of {shape:?} has more than {most}"
                        );
                    })
                    .flat_map(|run| run.positions())
                    .map(place)
                    .collect();
                let count: u64 = shape.iter().product();
                assert_eq!(cells, (0..count).collect::<Vec<_>>(), "{shape:?} {most}");
            }
        }
    }
}
