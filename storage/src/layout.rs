//! Where a chunk's row is in the radix tree over the chunk grid.
//!
//! A coordinate becomes an address by interleaving its bits: with `b_d = ceil(log2(grid_d))`, round
//! k = 0, 1, 2 … takes bit k of each dimension with `b_d > k`, in dimension order, least significant
//! first. Each level of the tree covers ten bits of the address. The layout follows from the grid
//! alone and is not stored.
//!
//! Spec: `docs/format.md`, "Manifest".

use array::Region;

use crate::Error;

/// Address bits one level covers: pages have up to 1,024 rows.
pub(crate) const LEVEL_BITS: u32 = 10;

/// The tree over one chunk grid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Address bits of each dimension.
    bits: Vec<u32>,
    total_bits: u32,
    /// Whether a dimension has no chunks, and so the tree no rows.
    is_empty: bool,
}

impl Layout {
    /// The tree over a grid of this shape.
    ///
    /// # Errors
    /// [`Error::Array`] if the grid has 2^64 chunks or more.
    pub(crate) fn new(grid_shape: &[u64]) -> Result<Self, Error> {
        array::shape::elements(grid_shape).map_err(|_| array::Error::TooLarge {
            what: "number of chunks (2^64 or more)",
        })?;
        let bits: Vec<u32> = grid_shape
            .iter()
            .map(|&length| u64::BITS - length.saturating_sub(1).leading_zeros())
            .collect();
        // Σ ceil(log2 n) ≤ 2 Σ log2 n for every n ≥ 2, so 128 bits hold any address.
        let total_bits = if grid_shape.contains(&0) {
            0
        } else {
            bits.iter().sum()
        };
        Ok(Self {
            bits,
            total_bits,
            is_empty: grid_shape.contains(&0),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.bits.len()
    }

    /// Levels of pages, at least 1; the root page is at level `height − 1`.
    pub(crate) fn height(&self) -> u32 {
        self.total_bits.div_ceil(LEVEL_BITS).max(1)
    }

    /// Whether every address in this layout is the same in `other`, which only has more bits.
    pub(crate) fn is_prefix_of(&self, other: &Self) -> bool {
        let (own, more) = (self.bit_order(), other.bit_order());
        self.bits.len() == other.bits.len() && more.starts_with(&own)
    }

    /// The dimension each address bit comes from, lowest first.
    fn bit_order(&self) -> Vec<usize> {
        let rounds = 0..self.bits.iter().copied().max().unwrap_or(0);
        let round = |round| {
            let dimensions = self.bits.iter().enumerate();
            dimensions.filter_map(move |(axis, &bits)| (bits > round).then_some(axis))
        };
        rounds.flat_map(round).collect()
    }

    /// The address of `coordinate`, which is in the grid.
    pub(crate) fn address(&self, coordinate: &[u64]) -> u128 {
        let mut address = 0u128;
        let mut position = 0;
        for round in 0..self.bits.iter().copied().max().unwrap_or(0) {
            for (&at, &bits) in coordinate.iter().zip(&self.bits) {
                if bits > round {
                    address |= u128::from(at >> round & 1) << position;
                    position += 1;
                }
            }
        }
        address
    }

    /// The coordinate with this address.
    pub(crate) fn coordinate(&self, address: u128) -> Vec<u64> {
        let mut coordinate = vec![0; self.bits.len()];
        let mut position = 0;
        for round in 0..self.bits.iter().copied().max().unwrap_or(0) {
            for (at, &bits) in coordinate.iter_mut().zip(&self.bits) {
                if bits > round {
                    *at |= ((address >> position & 1) as u64) << round;
                    position += 1;
                }
            }
        }
        coordinate
    }

    /// Whether `coordinate` fits the address bits; a cheap bound, not the grid's edge.
    pub(crate) fn fits(&self, coordinate: &[u64]) -> bool {
        coordinate.len() == self.bits.len()
            && coordinate
                .iter()
                .zip(&self.bits)
                .all(|(&at, &bits)| bits == u64::BITS || at >> bits == 0)
    }

    /// The page at `level` that covers `address`: the address without its low bits.
    pub(crate) fn page(address: u128, level: u32) -> u128 {
        let shift = LEVEL_BITS * (level + 1);
        if shift >= u128::BITS {
            0
        } else {
            address >> shift
        }
    }

    /// The smallest box with every coordinate below row `origin` of a page at `level`.
    ///
    /// The low `10 × level` address bits are free, so each dimension spans a power of two.
    pub(crate) fn row_box(&self, origin: &[u64], level: u32) -> Region {
        let free = LEVEL_BITS.saturating_mul(level).min(self.total_bits);
        let mut spans = vec![0u32; self.bits.len()];
        let mut taken = 0;
        'rounds: for round in 0..self.bits.iter().copied().max().unwrap_or(0) {
            for (span, &bits) in spans.iter_mut().zip(&self.bits) {
                if bits > round {
                    if taken == free {
                        break 'rounds;
                    }
                    *span += 1;
                    taken += 1;
                }
            }
        }
        // A grid has at most u64::MAX chunks along a dimension, so a box cut there loses none.
        let lengths = spans
            .iter()
            .zip(origin)
            .map(|(&span, &start)| {
                let length = 1u64.checked_shl(span).unwrap_or(u64::MAX);
                length.min(u64::MAX - start)
            })
            .collect();
        Region::new(origin.to_vec(), lengths).unwrap_or_else(|_| Region::whole(origin))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_are_dense_and_invertible(grid in prop::collection::vec(1u64..40, 0..4)) {
            let layout = Layout::new(&grid).unwrap();
            let mut addresses: Vec<u128> = Vec::new();
            for coordinate in Region::whole(&grid).positions() {
                let address = layout.address(&coordinate);
                prop_assert!(address >> layout.total_bits == 0);
                prop_assert_eq!(layout.coordinate(address), coordinate);
                addresses.push(address);
            }
            addresses.sort_unstable();
            addresses.dedup();
            prop_assert_eq!(addresses.len() as u64, array::shape::elements(&grid).unwrap());
        }

        #[test]
        fn a_rows_box_holds_exactly_the_coordinates_below_it(
            grid in prop::collection::vec(1u64..300, 1..4), at in any::<u64>()
        ) {
            let layout = Layout::new(&grid).unwrap();
            let total = array::shape::elements(&grid).unwrap();
            let coordinate = array::shape::coordinate(at % total, &grid);
            let address = layout.address(&coordinate);
            for level in 0..layout.height() {
                let first = address >> (LEVEL_BITS * level) << (LEVEL_BITS * level);
                let row = layout.row_box(&layout.coordinate(first), level);
                let inside = row.contains(&Region::new(coordinate.clone(), vec![1; grid.len()]).unwrap());
                prop_assert!(inside);
                let cells = array::shape::elements(row.shape()).unwrap();
                let covered = 1u64 << (LEVEL_BITS * level).min(layout.total_bits);
                prop_assert_eq!(cells, covered);
            }
        }
    }

    #[test]
    fn the_last_row_of_the_longest_axis_is_in_its_box() {
        let last = u64::MAX - 1;
        let layout = Layout::new(&[u64::MAX]).unwrap();
        let chunk = Region::new(vec![last], vec![1]).unwrap();
        for level in 0..layout.height() {
            let first = layout.address(&[last]) >> (LEVEL_BITS * level) << (LEVEL_BITS * level);
            let row = layout.row_box(&layout.coordinate(first), level);
            assert!(row.contains(&chunk), "level {level}: {row:?}");
        }
    }

    #[test]
    fn height_follows_from_the_grid() {
        for (grid, height) in [
            (vec![], 1),
            (vec![1], 1),
            (vec![1024], 1),
            (vec![1025], 2),
            (vec![1 << 20, 1 << 20], 4),
            (vec![u64::MAX], 7),
            (vec![0, 5], 1),
        ] {
            assert_eq!(Layout::new(&grid).unwrap().height(), height, "{grid:?}");
        }
        assert!(Layout::new(&[1 << 40, 1 << 40]).is_err());
    }
}
