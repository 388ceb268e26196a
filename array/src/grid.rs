//! Regular chunk grids and the boxes they cut an array into.

use std::fmt;
use std::ops::Range;

use crate::shape::MAX_DIMENSIONS;
use crate::{Error, shape};

/// Position of a chunk in the chunk grid: one coordinate per dimension, counted in chunks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkIndex(Vec<u64>);

impl ChunkIndex {
    /// A position from its coordinates.
    pub fn new(coordinate: Vec<u64>) -> Self {
        Self(coordinate)
    }

    /// One coordinate per dimension.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl fmt::Display for ChunkIndex {
    /// Coordinates joined by `/`, `()` for no dimensions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("()");
        }
        for (axis, at) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str("/")?;
            }
            write!(f, "{at}")?;
        }
        Ok(())
    }
}

/// A box: `start[d]..start[d] + shape[d]` along each dimension `d`. The ends fit 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    start: Vec<u64>,
    shape: Vec<u64>,
}

impl Region {
    /// A box from its first corner and its lengths.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if an end exceeds 64 bits, [`Error::Invalid`] if the two differ in
    /// their number of dimensions.
    pub fn new(start: Vec<u64>, shape: Vec<u64>) -> Result<Self, Error> {
        if start.len() != shape.len() {
            return Err(Error::invalid(
                "region",
                "start and shape differ in dimensions",
            ));
        }
        if start
            .iter()
            .zip(&shape)
            .any(|(&s, &l)| s.checked_add(l).is_none())
        {
            return Err(Error::TooLarge { what: "region" });
        }
        Ok(Self { start, shape })
    }

    /// The whole of an array of `shape`.
    pub fn whole(shape: &[u64]) -> Self {
        Self {
            start: vec![0; shape.len()],
            shape: shape.to_vec(),
        }
    }

    /// First position along each dimension.
    pub fn start(&self) -> &[u64] {
        &self.start
    }

    /// Length along each dimension.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Positions along dimension `axis`.
    pub fn range(&self, axis: usize) -> Range<u64> {
        self.start[axis]..self.start[axis] + self.shape[axis]
    }

    /// Whether the box holds nothing.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The box of this shape whose start is `offset` further along each axis.
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn moved(&self, offset: &[u64]) -> Result<Self, Error> {
        let start = self.start.iter().zip(offset);
        let start = start.map(|(at, by)| at.saturating_add(*by)).collect();
        Self::new(start, self.shape.clone())
    }

    /// What both boxes cover; empty lengths where they do not meet.
    pub fn intersect(&self, other: &Self) -> Self {
        let mut start = Vec::with_capacity(self.start.len());
        let mut shape = Vec::with_capacity(self.start.len());
        for axis in 0..self.start.len() {
            let (a, b) = (self.range(axis), other.range(axis));
            let first = a.start.max(b.start);
            start.push(first);
            shape.push(a.end.min(b.end).saturating_sub(first));
        }
        Self { start, shape }
    }

    /// Whether a position is in the box.
    pub fn contains_position(&self, position: &[u64]) -> bool {
        let axes = position.iter().zip(&self.start).zip(&self.shape);
        position.len() == self.start.len()
            && axes
                .into_iter()
                .all(|((at, start), length)| at.checked_sub(*start).is_some_and(|at| at < *length))
    }

    /// Whether `other` lies inside this box.
    pub fn contains(&self, other: &Self) -> bool {
        (0..self.start.len()).all(|axis| {
            let (outer, inner) = (self.range(axis), other.range(axis));
            outer.start <= inner.start && inner.end <= outer.end
        })
    }

    /// All positions in the box, in C order, one at a time.
    pub fn positions(&self) -> Positions {
        Positions {
            region: self.clone(),
            next: (!self.is_empty()).then(|| self.start.clone()),
        }
    }
}

impl fmt::Display for Region {
    /// As a selection: `0:4,5:8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for axis in 0..self.start.len() {
            let range = self.range(axis);
            let comma = if axis > 0 { "," } else { "" };
            write!(f, "{comma}{}:{}", range.start, range.end)?;
        }
        Ok(())
    }
}

/// Iterator over the positions of a [`Region`] in C order.
#[derive(Clone, Debug)]
pub struct Positions {
    region: Region,
    next: Option<Vec<u64>>,
}

impl Iterator for Positions {
    type Item = Vec<u64>;

    fn next(&mut self) -> Option<Vec<u64>> {
        let current = self.next.take()?;
        let mut following = current.clone();
        for axis in (0..following.len()).rev() {
            following[axis] += 1;
            if following[axis] < self.region.range(axis).end {
                self.next = Some(following);
                break;
            }
            following[axis] = self.region.start[axis];
        }
        Some(current)
    }
}

/// A grid of equal chunks over an array; chunks at the far edges may reach past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegularGrid {
    array_shape: Vec<u64>,
    chunk_shape: Vec<u64>,
}

impl RegularGrid {
    /// A grid of chunks of `chunk_shape` over an array of `array_shape`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a chunk length is zero, the dimensions differ or are more than 32;
    /// [`Error::TooLarge`] if a chunk's element count, or an edge of the grid, exceeds 64 bits.
    pub fn new(array_shape: Vec<u64>, chunk_shape: Vec<u64>) -> Result<Self, Error> {
        if array_shape.len() != chunk_shape.len() {
            let reason = format!(
                "the array has {} dimensions, its chunks {}",
                array_shape.len(),
                chunk_shape.len()
            );
            return Err(Error::invalid("chunk grid", reason));
        }
        if array_shape.len() > MAX_DIMENSIONS {
            return Err(Error::invalid(
                "chunk grid",
                format!("more than {MAX_DIMENSIONS} dimensions"),
            ));
        }
        if chunk_shape.contains(&0) {
            return Err(Error::invalid("chunk grid", "a chunk length is zero"));
        }
        shape::elements(&chunk_shape)?;
        let overflows =
            |(&length, &chunk): (&u64, &u64)| length.div_ceil(chunk).checked_mul(chunk).is_none();
        if array_shape.iter().zip(&chunk_shape).any(overflows) {
            return Err(Error::TooLarge { what: "chunk grid" });
        }
        Ok(Self {
            array_shape,
            chunk_shape,
        })
    }

    /// Length of the array along each dimension.
    pub fn array_shape(&self) -> &[u64] {
        &self.array_shape
    }

    /// Length of a chunk along each dimension.
    pub fn chunk_shape(&self) -> &[u64] {
        &self.chunk_shape
    }

    /// Number of chunks along each dimension.
    pub fn grid_shape(&self) -> Vec<u64> {
        self.array_shape
            .iter()
            .zip(&self.chunk_shape)
            .map(|(&l, &c)| l.div_ceil(c))
            .collect()
    }

    /// Whether the grid has a chunk at `index`.
    pub fn contains(&self, index: &ChunkIndex) -> bool {
        index.0.len() == self.array_shape.len()
            && index
                .0
                .iter()
                .zip(self.grid_shape())
                .all(|(&at, length)| at < length)
    }

    /// The whole box of the chunk at `index`, which must be in the grid; it may reach past the
    /// array.
    pub fn chunk_region(&self, index: &ChunkIndex) -> Region {
        debug_assert!(self.contains(index));
        let start = index
            .0
            .iter()
            .zip(&self.chunk_shape)
            .map(|(&at, &c)| at * c)
            .collect();
        Region {
            start,
            shape: self.chunk_shape.clone(),
        }
    }

    /// The part of the chunk at `index` inside the array.
    pub fn chunk_region_in_array(&self, index: &ChunkIndex) -> Region {
        self.chunk_region(index)
            .intersect(&Region::whole(&self.array_shape))
    }

    /// The box of chunks, in grid coordinates, that meet `region` of the array.
    pub fn chunks_meeting(&self, region: &Region) -> Region {
        let clipped = region.intersect(&Region::whole(&self.array_shape));
        let mut start = Vec::with_capacity(clipped.start.len());
        let mut lengths = Vec::with_capacity(clipped.start.len());
        for (axis, &chunk) in self.chunk_shape.iter().enumerate() {
            let range = clipped.range(axis);
            let first = range.start / chunk;
            start.push(first);
            lengths.push(if range.is_empty() {
                0
            } else {
                range.end.div_ceil(chunk) - first
            });
        }
        Region {
            start,
            shape: lengths,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_grids_are_refused() {
        for (array, chunk) in [
            (vec![1], vec![0]),
            (vec![1], vec![1, 1]),
            (vec![1; 33], vec![1; 33]),
            (vec![u64::MAX], vec![1 << 63]),
            (vec![4, 4], vec![1 << 33, 1 << 33]),
        ] {
            assert!(RegularGrid::new(array, chunk).is_err());
        }
        assert!(Region::new(vec![u64::MAX], vec![1]).is_err());
    }

    #[test]
    fn no_dimensions_have_one_chunk() {
        let grid = RegularGrid::new(vec![], vec![]).unwrap();
        assert_eq!(Region::whole(&grid.grid_shape()).positions().count(), 1);
        assert_eq!(ChunkIndex::new(vec![]).to_string(), "()");
    }

    proptest! {
        #[test]
        fn chunks_meeting_a_region_are_those_whose_box_meets_it(
            dims in prop::collection::vec((0u64..9, 1u64..5, 0u64..9, 0u64..9), 0..4)
        ) {
            let array: Vec<u64> = dims.iter().map(|d| d.0).collect();
            let chunk: Vec<u64> = dims.iter().map(|d| d.1).collect();
            let region = Region::new(
                dims.iter().map(|d| d.2).collect(),
                dims.iter().map(|d| d.3).collect(),
            ).unwrap();
            let grid = RegularGrid::new(array.clone(), chunk).unwrap();
            let expected: Vec<Vec<u64>> = Region::whole(&grid.grid_shape())
                .positions()
                .filter(|at| {
                    let chunk = grid.chunk_region_in_array(&ChunkIndex::new(at.clone()));
                    !chunk.intersect(&region).is_empty()
                })
                .collect();
            let found: Vec<Vec<u64>> = grid.chunks_meeting(&region).positions().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
