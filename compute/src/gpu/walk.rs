//! From the geometry of a box to the walk of a kernel.

use bytemuck::Zeroable;

use super::params::{AXES, Axes, THREADS, WARP, WalkParams};
use crate::accumulators::run::{SEGMENT, SHORT};

/// Cells of an inner chunk along one axis: every `step`-th from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// The first.
    pub start: u64,
    /// From one to the next; at least 1.
    pub step: u64,
    /// How many.
    pub length: u64,
}

/// Cells of an inner chunk that are reduced together: a box of them, with gaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Lengths of the inner chunk.
    pub inner_shape: Vec<u64>,
    /// The cells, by axis.
    pub stretches: Vec<Stretch>,
    /// Which axes are reduced.
    pub reduced: Vec<bool>,
}

/// Elements or runs that one thread adds up one after the other in about 50 µs.
const LONG_CHAIN: u32 = 4096;
/// With more cells, threads of a device are as many times as fast as one of a processor.
const CELLS_PER_TURN: u64 = 16;

/// How a kernel goes through a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) params: WalkParams,
    /// Whether cells take runs of neighbours, not single elements.
    pub(super) has_runs: bool,
}

impl Geometry {
    /// The lengths of the box.
    pub fn shape(&self) -> Vec<u64> {
        self.stretches.iter().map(|part| part.length).collect()
    }

    /// Values that go into each kept cell.
    pub(super) fn values_per_cell(&self) -> u64 {
        let axes = self.stretches.iter().zip(&self.reduced);
        axes.filter(|(_, reduced)| **reduced)
            .map(|(part, _)| part.length)
            .product()
    }
}

impl Walk {
    /// The walk over so many boxes; `None` if it is beyond kernels: more than 2^31 cells, cells
    /// outside the inner chunk, too many axes, nothing to walk.
    pub(super) fn new(geometry: &Geometry, boxes: usize) -> Option<Self> {
        let mut axes: Vec<(u64, u64, bool)> = Vec::new();
        let (mut stride, mut first) = (1u64, 0u64);
        let parts = geometry.stretches.iter().zip(&geometry.inner_shape);
        for ((part, &inner), &reduced) in parts.zip(&geometry.reduced).rev() {
            let last = (part.length.checked_sub(1)?).checked_mul(part.step)?;
            if last.checked_add(part.start)? >= inner {
                return None;
            }
            first = first.checked_add(part.start.checked_mul(stride)?)?;
            if part.length > 1 {
                axes.push((part.length, part.step.checked_mul(stride)?, reduced));
            }
            stride = stride.checked_mul(inner)?;
        }
        if stride > 1 << 31 {
            return None;
        }
        axes.reverse();
        let has_runs = axes.last().is_none_or(|(_, _, reduced)| *reduced);
        let split = axes.iter().rposition(|(_, _, reduced)| !reduced);
        let inner_from = match has_runs {
            true => split.map_or(0, |at| at + 1),
            false => axes.len(),
        };
        let of = |is_wanted: &dyn Fn(usize, bool) -> bool| {
            let axes = axes.iter().enumerate();
            let some = axes.filter(|(nth, (_, _, reduced))| is_wanted(*nth, *reduced));
            merged(some.map(|(_, (length, stride, _))| (*length, *stride)))
        };
        let (kept, cells) = of(&|_, reduced| !reduced)?;
        let (outer, turns) = of(&|nth, reduced| reduced && nth < inner_from)?;
        let (inner, run) = of(&|nth, _| nth >= inner_from)?;
        // What goes into a cell one after the other is done by one thread, which is no faster than
        // a processor's: that pays with many cells alone.
        if turns > LONG_CHAIN && u64::from(turns) > CELLS_PER_TURN * u64::from(cells) {
            return None;
        }
        let segments = match (run as usize).div_ceil(SEGMENT) {
            1 => 1,
            several => (several as u32).next_multiple_of(THREADS / WARP),
        };
        let lanes = if run as usize <= SHORT { 8 } else { WARP };
        Some(Self {
            params: WalkParams {
                first: u32::try_from(first).ok()?,
                cells,
                turns,
                run,
                boxes: u32::try_from(boxes).ok()?,
                lanes,
                segments,
                kept,
                outer,
                inner,
                ..WalkParams::zeroed()
            },
            has_runs,
        })
    }

    /// Cells of all boxes.
    pub(super) fn cells(&self) -> u64 {
        u64::from(self.params.boxes) * u64::from(self.params.cells)
    }

    /// Blocks of the kernel that walks it.
    pub(super) fn blocks(&self) -> u64 {
        let threads = match self.has_runs {
            true => self.runs() * u64::from(self.params.segments) * u64::from(self.params.lanes),
            false => self.cells(),
        };
        threads.div_ceil(u64::from(THREADS))
    }

    fn runs(&self) -> u64 {
        self.cells() * u64::from(self.params.turns)
    }

    /// Accumulators of a run, after the kernel that walks it.
    pub(super) fn parts_of_run(&self) -> u32 {
        match self.params.segments {
            1 => 1,
            several => several / (THREADS / WARP),
        }
    }

    /// Accumulators after that kernel; one for each cell where nothing is left to fold.
    pub(super) fn parts(&self) -> u64 {
        match self.has_runs {
            true => self.runs() * u64::from(self.parts_of_run()),
            false => self.cells(),
        }
    }
}

/// Axes whose positions, in C order, are evenly spaced act as one. Gives how many positions there
/// are, too.
fn merged(axes: impl Iterator<Item = (u64, u64)>) -> Option<(Axes, u32)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (length, stride) in axes {
        match merged.last_mut() {
            Some((before, wide)) if *wide == stride * length => {
                *before *= length;
                *wide = stride;
            }
            _ => merged.push((length, stride)),
        }
    }
    if merged.is_empty() {
        merged.push((1, 0));
    }
    let mut axes = Axes {
        count: merged.len() as u32,
        ..Axes::zeroed()
    };
    if merged.len() > AXES {
        return None;
    }
    let mut positions = 1u64;
    for (nth, (length, stride)) in merged.into_iter().enumerate() {
        axes.length[nth] = u32::try_from(length).ok()?;
        axes.stride[nth] = u32::try_from(stride).ok()?;
        positions *= length;
    }
    Some((axes, u32::try_from(positions).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(inner: &[u64], parts: &[(u64, u64, u64)], reduced: &[bool]) -> Geometry {
        let stretches = parts.iter().map(|&(start, step, length)| Stretch {
            start,
            step,
            length,
        });
        Geometry {
            inner_shape: inner.to_vec(),
            stretches: stretches.collect(),
            reduced: reduced.to_vec(),
        }
    }

    #[test]
    fn whole_chunks_are_walked_as_few_axes() {
        let whole = [(0, 1, 4), (0, 1, 5), (0, 1, 6)];
        let lengths = |reduced: &[bool]| {
            let walk = Walk::new(&geometry(&[4, 5, 6], &whole, reduced), 2).unwrap();
            let WalkParams {
                cells, turns, run, ..
            } = walk.params;
            (cells, turns, run, walk.has_runs)
        };
        assert_eq!(lengths(&[true, true, true]), (1, 1, 120, true));
        assert_eq!(lengths(&[false, true, true]), (4, 1, 30, true));
        assert_eq!(lengths(&[true, false, true]), (5, 4, 6, true));
        assert_eq!(lengths(&[true, true, false]), (6, 20, 1, false));
        assert_eq!(lengths(&[true, false, false]), (30, 4, 1, false));
        let walk = Walk::new(&geometry(&[4, 5, 6], &whole, &[true, true, false]), 2).unwrap();
        assert_eq!(
            (walk.params.outer.count, walk.params.outer.stride[0]),
            (1, 6)
        );
    }

    #[test]
    fn cells_outside_the_inner_chunk_are_no_walk() {
        assert!(Walk::new(&geometry(&[4], &[(1, 1, 4)], &[true]), 1).is_none());
        assert!(Walk::new(&geometry(&[4], &[(0, 2, 3)], &[true]), 1).is_none());
        assert!(Walk::new(&geometry(&[4], &[(0, 1, 0)], &[true]), 1).is_none());
        assert!(Walk::new(&geometry(&[1 << 32], &[(0, 1, 2)], &[true]), 1).is_none());
        assert!(Walk::new(&geometry(&[u64::MAX; 3], &[(0, 1, 1); 3], &[true; 3]), 1).is_none());
        let gaps = Walk::new(
            &geometry(&[4, 9], &[(1, 2, 2), (3, 3, 2)], &[true, true]),
            1,
        )
        .unwrap();
        assert_eq!((gaps.params.first, gaps.params.run), (12, 4));
        assert_eq!(gaps.params.inner.stride[..2], [18, 3]);
    }

    #[test]
    fn long_runs_fill_whole_blocks() {
        let walk = |length| {
            let walk = Walk::new(&geometry(&[length], &[(0, 1, length)], &[true]), 3).unwrap();
            (
                walk.params.lanes,
                walk.params.segments,
                walk.blocks(),
                walk.parts(),
            )
        };
        assert_eq!(walk(SHORT as u64), (8, 1, 1, 3));
        assert_eq!(walk(SEGMENT as u64), (32, 1, 1, 3));
        assert_eq!(walk(SEGMENT as u64 + 1), (32, 8, 3, 3));
        assert_eq!(walk(9 * SEGMENT as u64), (32, 16, 6, 6));
    }
}
