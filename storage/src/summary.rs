//! Statistics of a box of an array: from its statistics pages where they cover a subtree of chunks
//! whole, merged with those of the other chunks as the pages would have merged them.
//!
//! So what is computed from the data of a box of whole chunks has the bits its statistics have.

use array::{ChunkIndex, Region, Statistics};

use crate::layout::{LEVEL_BITS, Layout};
use crate::page::StatisticsRow;
use crate::radix::Pages;
use crate::{ArrayNode, Error};

/// Statistics of all stored chunks below one row of a statistics page.
#[derive(Clone, Debug, PartialEq)]
pub struct Covered {
    /// The first of them.
    pub origin: ChunkIndex,
    /// Of the page the row is in; 0 if the row is of one chunk.
    pub level: u32,
    /// Of the cells of its stored chunks.
    pub statistics: Statistics,
}

/// Merges statistics of stored chunks in the order and the shape of an array's statistics pages.
#[derive(Clone, Debug)]
pub struct Merging {
    layout: Layout,
    /// By level, the page that is being filled, and its rows.
    open: Vec<Option<(u128, Vec<Statistics>)>>,
}

impl Merging {
    /// Takes the statistics of the stored chunks below the row of `origin` at `level`. Rows come in
    /// address order, as [`Merging::place`] tells it, and none is below another.
    pub fn push(&mut self, origin: &ChunkIndex, level: u32, statistics: Statistics) {
        let address = self.layout.address(origin.as_slice());
        self.add(level, Layout::page(address, level), statistics);
    }

    /// Where the row of `origin` stands among all.
    pub fn place(&self, origin: &ChunkIndex) -> u128 {
        self.layout.address(origin.as_slice())
    }

    fn add(&mut self, level: u32, page: u128, statistics: Statistics) {
        for below in 0..level {
            self.close(below);
        }
        let level_open = level as usize;
        if self.open[level_open]
            .as_ref()
            .is_some_and(|(open, _)| *open != page)
        {
            self.close(level);
        }
        let (_, rows) = self.open[level_open].get_or_insert_with(|| (page, Vec::new()));
        rows.push(statistics);
    }

    /// Merges the open page of a level into a row of the level above.
    fn close(&mut self, level: u32) {
        if level + 1 >= self.layout.height() {
            return;
        }
        if let Some((page, rows)) = self.open[level as usize].take() {
            let above = page >> LEVEL_BITS;
            self.add(level + 1, above, Statistics::merge_all(&rows));
        }
    }

    /// What all of them come to.
    pub fn finish(mut self) -> Statistics {
        for level in 0..self.layout.height() {
            self.close(level);
        }
        let root = self.open.pop().flatten();
        root.map_or(Statistics::EMPTY, |(_, rows)| Statistics::merge_all(&rows))
    }
}

impl ArrayNode {
    /// Merges statistics of the array's chunks.
    pub fn merging(&self) -> Merging {
        let layout = self.layout().clone();
        Merging {
            open: vec![None; layout.height() as usize],
            layout,
        }
    }

    /// The statistics of all stored chunks in `region` of the chunk grid, from as few pages as it
    /// takes, in address order; `None` if the array has none that assume its present metadata.
    ///
    /// # Errors
    /// As [`ArrayNode::chunks`].
    pub async fn covered_statistics(&self, region: &Region) -> Result<Option<Vec<Covered>>, Error> {
        let Some(root) = self.current_statistics_root() else {
            return Ok(None);
        };
        let grid = Region::whole(&self.metadata().grid().grid_shape());
        let region = region.intersect(&grid);
        let pages = self.repository().statistics();
        let rows = pages.covering(root, self.layout(), &grid, &region).await?;
        let covered = rows.into_iter().map(|(level, row)| Covered {
            origin: ChunkIndex::new(row.coordinate),
            level,
            statistics: row.statistics,
        });
        Ok(Some(covered.collect()))
    }
}

impl Pages<StatisticsRow> {
    /// The highest rows below which all chunks of the grid are in `region`, each with the level of
    /// its page, in address order.
    async fn covering(
        &self,
        root: array::Hash,
        layout: &Layout,
        grid: &Region,
        region: &Region,
    ) -> Result<Vec<(u32, StatisticsRow)>, Error> {
        let mut found = Vec::new();
        if layout.is_empty() || root == array::hash::empty() || region.is_empty() {
            return Ok(found);
        }
        let mut open = vec![(self.load_root(root, layout).await?, layout.height() - 1, 0)];
        while let Some((page, level, next)) = open.pop() {
            let Some(row) = page.rows.get(next) else {
                continue;
            };
            let below = layout.row_box(&row.coordinate, level).intersect(grid);
            let child = if region.contains(&below) {
                found.push((level, row.clone()));
                None
            } else if level > 0 && !below.intersect(region).is_empty() {
                Some(self.load_child(row, layout, level).await?)
            } else {
                None
            };
            open.push((page, level, next + 1));
            open.extend(child.map(|child| (child, level - 1, 0)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use array::{Moments, Scalar, Sum};
    use proptest::prelude::*;

    use super::*;

    fn of(value: f64) -> Statistics {
        let moments = Moments {
            min: Scalar::Float(value),
            max: Scalar::Float(value),
            sum: Sum::Float { hi: value, lo: 0.0 },
            m2: array::Double::default(),
        };
        Statistics {
            valid: 1,
            missing: 0,
            moments: Some(moments),
        }
    }

    /// Merges as pages do: all rows of a page, from the lowest level up.
    fn by_pages(layout: &Layout, rows: &[(u128, Statistics)]) -> Statistics {
        let mut rows = rows.to_vec();
        for level in 0..layout.height() {
            let pages = rows.chunk_by(|a, b| Layout::page(a.0, level) == Layout::page(b.0, level));
            rows = pages
                .map(|page| {
                    let merged: Vec<Statistics> = page.iter().map(|row| row.1).collect();
                    (page[0].0, Statistics::merge_all(&merged))
                })
                .collect();
        }
        rows.first().map_or(Statistics::EMPTY, |row| row.1)
    }

    proptest! {
        #[test]
        fn rows_merge_as_their_pages_do(
            grid in prop::collection::vec(1u64..60, 1..4),
            values in prop::collection::vec(-1e9f64..1e9, 1..200),
            every in 1u128..40,
        ) {
            let layout = Layout::new(&grid).unwrap();
            let mut rows: Vec<(u128, Statistics)> = Region::whole(&grid)
                .positions()
                .map(|at| layout.address(&at))
                .filter(|address| address % every == 0)
                .map(|address| (address, of(values[address as usize % values.len()])))
                .collect();
            rows.sort_by_key(|row| row.0);
            let expected = by_pages(&layout, &rows);
            let merging = || Merging {
                open: vec![None; layout.height() as usize],
                layout: layout.clone(),
            };
            let mut one_by_one = merging();
            for (address, statistics) in &rows {
                let index = ChunkIndex::new(layout.coordinate(*address));
                one_by_one.push(&index, 0, *statistics);
            }
            prop_assert_eq!(one_by_one.finish().to_bytes(), expected.to_bytes());
            // The same with every other level-0 page known already.
            let mut mixed = merging();
            for page in rows.chunk_by(|a, b| Layout::page(a.0, 0) == Layout::page(b.0, 0)) {
                let index = |address| ChunkIndex::new(layout.coordinate(address));
                if layout.height() > 1 && Layout::page(page[0].0, 0).is_multiple_of(2) {
                    let merged: Vec<Statistics> = page.iter().map(|row| row.1).collect();
                    mixed.push(&index(page[0].0), 1, Statistics::merge_all(&merged));
                } else {
                    for (address, statistics) in page {
                        mixed.push(&index(*address), 0, *statistics);
                    }
                }
            }
            prop_assert_eq!(mixed.finish().to_bytes(), expected.to_bytes());
        }
    }
}
