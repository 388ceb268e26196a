//! Copies of selected cells between C-order buffers.

use array::{AxisSelection, Region, shape};

/// Which cells of one chunk are selected along one axis, as positions inside the chunk, and where
/// the first of them goes in the result. They go to consecutive or listed places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisPart {
    /// Positions inside the chunk, in the order of the result.
    pub source: Vec<u64>,
    /// Their places in the result.
    pub target: Vec<u64>,
}

impl AxisPart {
    /// The part of `selection` inside `chunk`, positions of the array along one axis.
    pub fn of(selection: &AxisSelection, chunk: std::ops::Range<u64>) -> Self {
        let (mut source, mut target) = (Vec::new(), Vec::new());
        let mut take = |nth: u64, at: u64| {
            source.push(at - chunk.start);
            target.push(nth);
        };
        match selection {
            AxisSelection::Index(at) => {
                if chunk.contains(at) {
                    take(0, *at);
                }
            }
            AxisSelection::Range { start, step, count } => {
                let distance = step.unsigned_abs();
                // The first and the last nth whose position lies in the chunk.
                let (first, end) = if *step > 0 {
                    let first = chunk.start.saturating_sub(*start).div_ceil(distance);
                    (first, chunk.end.saturating_sub(*start).div_ceil(distance))
                } else {
                    let first = (start + 1).saturating_sub(chunk.end).div_ceil(distance);
                    (
                        first,
                        (start + 1).saturating_sub(chunk.start).div_ceil(distance),
                    )
                };
                for nth in first..end.min(*count) {
                    take(nth, selection.position(nth));
                }
            }
            AxisSelection::List(positions) => {
                for (nth, at) in positions.iter().enumerate() {
                    if chunk.contains(at) {
                        take(nth as u64, *at);
                    }
                }
            }
        }
        Self { source, target }
    }

    /// Number of selected positions.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Whether the selected positions are neighbours, and go to neighbours.
    fn is_contiguous(&self) -> bool {
        let neighbours = |places: &[u64]| places.windows(2).all(|pair| pair[1] == pair[0] + 1);
        neighbours(&self.source) && neighbours(&self.target)
    }
}

/// Copies the selected cells of a chunk to their places: calls `copy` with source and target
/// positions of runs, in elements, and their length.
pub fn for_each_run(
    parts: &[AxisPart],
    source_shape: &[u64],
    target_shape: &[u64],
    mut copy: impl FnMut(u64, u64, u64),
) {
    let Some((last, outer)) = parts.split_last() else {
        copy(0, 0, 1);
        return;
    };
    if parts.iter().any(AxisPart::is_empty) {
        return;
    }
    let (from, to) = (shape::strides(source_shape), shape::strides(target_shape));
    let lengths: Vec<u64> = outer.iter().map(|part| part.len() as u64).collect();
    let contiguous = last.is_contiguous();
    for at in Region::whole(&lengths).positions() {
        let (mut source, mut target) = (0, 0);
        for (axis, (part, nth)) in outer.iter().zip(&at).enumerate() {
            source += part.source[*nth as usize] * from[axis];
            target += part.target[*nth as usize] * to[axis];
        }
        if contiguous {
            copy(
                source + last.source[0],
                target + last.target[0],
                last.len() as u64,
            );
        } else {
            for (s, t) in last.source.iter().zip(&last.target) {
                copy(source + s, target + t, 1);
            }
        }
    }
}

/// The selected cells of a chunk, packed in C order.
pub fn gather(
    bytes: &[u8],
    parts: &[AxisPart],
    source_shape: &[u64],
    element_bytes: usize,
) -> Vec<u8> {
    let packed: Vec<AxisPart> = parts
        .iter()
        .map(|part| AxisPart {
            source: part.source.clone(),
            target: (0..part.len() as u64).collect(),
        })
        .collect();
    let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
    let mut out = vec![0; lengths.iter().product::<u64>() as usize * element_bytes];
    for_each_run(&packed, source_shape, &lengths, |source, target, count| {
        let (source, target) = (
            source as usize * element_bytes,
            target as usize * element_bytes,
        );
        let length = count as usize * element_bytes;
        out[target..target + length].copy_from_slice(&bytes[source..source + length]);
    });
    out
}

#[cfg(test)]
mod tests {
    use array::{Bounds, Selection};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_of_all_chunks_are_the_selection(
            size in 1u64..30, chunk in 1u64..9, start in -30i64..30, stop in -30i64..30,
            step in prop_oneof![-4i64..0, 1i64..5]
        ) {
            let text = format!("{start}:{stop}:{step}");
            let selection = text.parse::<Selection>().unwrap().resolve(&[size], Bounds::Clamp).unwrap();
            let axis = &selection.axes()[0];
            let mut found: Vec<(u64, u64)> = Vec::new();
            for first in (0..size).step_by(chunk as usize) {
                let part = AxisPart::of(axis, first..(first + chunk).min(size));
                found.extend(part.target.iter().copied().zip(part.source.iter().map(|s| s + first)));
            }
            found.sort_unstable();
            let expected: Vec<(u64, u64)> = (0..axis.len()).map(|nth| (nth, axis.position(nth))).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn gathering_packs_the_selected_cells() {
        let bytes: Vec<u8> = (0..12).collect();
        let parts = [
            AxisPart {
                source: vec![2, 0],
                target: vec![5, 7],
            },
            AxisPart {
                source: vec![1, 3],
                target: vec![0, 1],
            },
        ];
        assert_eq!(gather(&bytes, &parts, &[3, 4], 1), [9, 11, 1, 3]);
    }
}
