//! Copies of selected cells between C-order buffers.

use array::{AxisSelection, shape};

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

    /// A run of positions inside the chunk, which is all there is of the result.
    pub fn span(source: std::ops::Range<u64>) -> Self {
        Self {
            target: (0..source.end.saturating_sub(source.start)).collect(),
            source: source.collect(),
        }
    }

    /// Number of selected positions.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Whether these are all positions of an axis of `length`, in order.
    pub fn is_whole(&self, length: u64) -> bool {
        self.source.iter().copied().eq(0..length)
    }

    /// Runs of neighbours that go to neighbours: first source, first target, length.
    fn segments(&self) -> Vec<(u64, u64, u64)> {
        let mut segments: Vec<(u64, u64, u64)> = Vec::new();
        for (&source, &target) in self.source.iter().zip(&self.target) {
            match segments.last_mut() {
                Some((first, to, length))
                    if source == *first + *length && target == *to + *length =>
                {
                    *length += 1;
                }
                _ => segments.push((source, target, 1)),
            }
        }
        segments
    }
}

/// Copies the selected cells of a chunk to their places: calls `copy` with source and target
/// positions of runs, in elements, and their length. Runs are as long as both sides allow.
pub fn for_each_run(
    parts: &[AxisPart],
    source_shape: &[u64],
    target_shape: &[u64],
    mut copy: impl FnMut(u64, u64, u64),
) {
    if parts.iter().any(AxisPart::is_empty) {
        return;
    }
    let (from, to) = (shape::strides(source_shape), shape::strides(target_shape));
    // Trailing axes that are whole on both sides are part of every run.
    let is_whole = |axis: &usize| {
        let part = &parts[*axis];
        part.is_whole(source_shape[*axis]) && part.target.iter().copied().eq(0..target_shape[*axis])
    };
    let whole = (0..parts.len()).rev().take_while(is_whole).count();
    let (rest, trailing) = parts.split_at(parts.len() - whole);
    let inner: u64 = trailing.iter().map(|part| part.len() as u64).product();
    let Some((last, outer)) = rest.split_last() else {
        copy(0, 0, inner);
        return;
    };
    let segments = last.segments();
    let mut at = vec![0; outer.len()];
    loop {
        let (mut source, mut target) = (0, 0);
        for (axis, (part, &nth)) in outer.iter().zip(&at).enumerate() {
            source += part.source[nth] * from[axis];
            target += part.target[nth] * to[axis];
        }
        for &(s, t, length) in &segments {
            copy(source + s * inner, target + t * inner, length * inner);
        }
        if !advance(&mut at, outer) {
            return;
        }
    }
}

/// Goes to the next position in C order; false after the last one.
fn advance(at: &mut [usize], parts: &[AxisPart]) -> bool {
    for (nth, part) in at.iter_mut().zip(parts).rev() {
        *nth += 1;
        if *nth < part.len() {
            return true;
        }
        *nth = 0;
    }
    false
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
    match element_bytes {
        1 => gather_packed::<1>(bytes, &packed, source_shape, 1),
        2 => gather_packed::<2>(bytes, &packed, source_shape, 1),
        4 => gather_packed::<4>(bytes, &packed, source_shape, 1),
        8 => gather_packed::<8>(bytes, &packed, source_shape, 1),
        16 => gather_packed::<16>(bytes, &packed, source_shape, 1),
        _ => gather_packed::<1>(bytes, &packed, source_shape, element_bytes),
    }
}

/// Elements are `units` units of `N` bytes. A copy of one unit is a load and a store.
fn gather_packed<const N: usize>(
    bytes: &[u8],
    parts: &[AxisPart],
    source_shape: &[u64],
    units: usize,
) -> Vec<u8> {
    let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
    let source = bytes.as_chunks::<N>().0;
    let mut out = vec![[0; N]; lengths.iter().product::<u64>() as usize * units];
    for_each_run(parts, source_shape, &lengths, |from, to, count| {
        let (from, to, count) = (
            from as usize * units,
            to as usize * units,
            count as usize * units,
        );
        if count == 1 {
            out[to] = source[from];
        } else {
            out[to..to + count].copy_from_slice(&source[from..from + count]);
        }
    });
    out.into_flattened()
}

#[cfg(test)]
mod tests {
    use array::{Bounds, Region, Selection};
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

    proptest! {
        #[test]
        fn every_selected_cell_is_copied_once(
            axes in prop::collection::vec(
                (
                    1u64..5,
                    prop_oneof![
                        3 => Just(":"), 1 => Just("::2"), 1 => Just("::-1"), 1 => Just("[0,0]"),
                        1 => Just("0")
                    ],
                    1u64..4,
                ),
                0..4,
            ),
            element_bytes in 1usize..10,
        ) {
            let shape: Vec<u64> = axes.iter().map(|axis| axis.0).collect();
            let text = axes.iter().map(|axis| axis.1).collect::<Vec<_>>().join(",");
            let selection = text.parse::<Selection>().unwrap().resolve(&shape, Bounds::Clamp).unwrap();
            let selected = selection.selected_shape();
            let chunks: Vec<u64> = axes.iter().map(|(length, _, chunk)| length.div_ceil(*chunk)).collect();
            let bytes: Vec<u8> =
                (0..shape.iter().product::<u64>() as usize * element_bytes).map(|at| at as u8).collect();
            let mut found = vec![0; selected.iter().product::<u64>() as usize * element_bytes];
            for chunk in Region::whole(&chunks).positions() {
                // Chunks of the array, each with its own cells alone.
                let (mut parts, mut corner, mut lengths) = (vec![], vec![], vec![]);
                for (axis, at) in chunk.iter().enumerate() {
                    let start = at * axes[axis].2;
                    let end = (start + axes[axis].2).min(shape[axis]);
                    parts.push(AxisPart::of(&selection.axes()[axis], start..end));
                    corner.push((start..end).collect::<Vec<u64>>());
                    lengths.push(end - start);
                }
                let cells: Vec<AxisPart> = corner
                    .into_iter()
                    .map(|source| AxisPart { target: source.clone(), source })
                    .collect();
                let cells = gather(&bytes, &cells, &shape, element_bytes);
                for_each_run(&parts, &lengths, &selected, |from, to, count| {
                    let [from, to, count] = [from, to, count].map(|at| at as usize * element_bytes);
                    found[to..to + count].copy_from_slice(&cells[from..from + count]);
                });
            }
            let wanted: Vec<u8> = Region::whole(&selected)
                .positions()
                .flat_map(|at| {
                    let source: Vec<u64> =
                        at.iter().zip(selection.axes()).map(|(&nth, axis)| axis.position(nth)).collect();
                    let start = shape::linear_index(&source, &shape) as usize * element_bytes;
                    bytes[start..start + element_bytes].to_vec()
                })
                .collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn whole_axes_make_long_runs() {
        let part = |source: std::ops::Range<u64>, first: u64| AxisPart {
            target: (first..first + source.end - source.start).collect(),
            source: source.collect(),
        };
        let runs = |parts: &[AxisPart], from: &[u64], to: &[u64]| {
            let mut runs = Vec::new();
            for_each_run(parts, from, to, |from, to, count| {
                runs.push((from, to, count));
            });
            runs
        };
        assert_eq!(runs(&[], &[], &[]), [(0, 0, 1)]);
        let whole = [part(0..2, 0), part(0..3, 0)];
        assert_eq!(runs(&whole, &[2, 3], &[2, 3]), [(0, 0, 6)]);
        let rows = [part(1..3, 4), part(0..3, 0)];
        assert_eq!(runs(&rows, &[5, 3], &[9, 3]), [(3, 12, 6)]);
        let columns = [part(0..2, 0), part(1..3, 0)];
        assert_eq!(runs(&columns, &[2, 3], &[2, 2]), [(1, 0, 2), (4, 2, 2)]);
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
