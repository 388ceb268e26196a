//! Proving statistics: the rows that together cover a region, as high in their tree as can be.

use std::mem::Discriminant;

use array::hash::{self, Hash, Kind};
use array::{ArrayMetadata, Region, Scalar, Statistics, shape};
use futures::future::BoxFuture;

use super::build::show;
use super::check::{KIND_INNER, MAX_ROWS, check_inside, next_page, row_address};
use super::fields::Fields;
use super::leaves::Leaves;
use super::{Base64, ProvenStatistics, REDUCERS, StatisticsDocument};
use crate::Error;
use crate::layout::{LEVEL_BITS, Layout};
use crate::page::{Page, PageRow as _, StatisticsRow};
use crate::snapshot::{ArrayNode, statistics_metadata};
use crate::tree::StatisticsRoot;

/// Kind of a row with the statistics of one chunk.
const KIND_STATISTICS: u8 = 1;

/// The chunks that `region` consists of, as a box of the chunk grid.
///
/// # Errors
/// If it has parts of chunks; with the smallest region around it that has none.
pub(super) fn whole_chunks(metadata: &ArrayMetadata, region: &Region) -> Result<Region, String> {
    check_inside(metadata, region)?;
    let grid = metadata.grid();
    let chunks = grid.chunks_meeting(region);
    let lengths = metadata.chunk_shape();
    let corner = chunks.start().iter().zip(lengths);
    let start: Vec<u64> = corner.map(|(at, length)| at * length).collect();
    let ends = (0..start.len()).map(|axis| {
        let end = chunks.range(axis).end.saturating_mul(lengths[axis]);
        end.min(metadata.shape()[axis])
    });
    let around: Vec<u64> = ends.zip(&start).map(|(end, start)| end - start).collect();
    let around = Region::new(start, around).map_err(|error| error.to_string())?;
    match around == *region {
        true => Ok(chunks),
        false => Err(format!(
            "region {region} has parts of chunks, and statistics are of whole ones: ask for {around}"
        )),
    }
}

/// How a row of a page stands to the chunks that are wanted.
#[derive(PartialEq, Eq)]
enum Stand {
    Outside,
    Partly,
    Inside,
}

/// The rows a page at `level` covering `place` may have, with how each stands to `wanted`, in
/// address order; those outside the grid are left out.
fn slots(
    layout: &Layout,
    grid: &Region,
    wanted: &Region,
    level: u32,
    place: u128,
) -> Vec<(u128, Stand)> {
    let free = LEVEL_BITS * level;
    let mut slots = Vec::new();
    for slot in 0..u128::from(MAX_ROWS) {
        let address = (place << LEVEL_BITS | slot) << free;
        let origin = layout.coordinate(address);
        if layout.address(&origin) != address {
            break;
        }
        let below = layout.row_box(&origin, level).intersect(grid);
        if below.is_empty() {
            continue;
        }
        let meeting = below.intersect(wanted);
        let stand = if meeting.is_empty() {
            Stand::Outside
        } else if meeting == below {
            Stand::Inside
        } else {
            Stand::Partly
        };
        slots.push((address, stand));
    }
    slots
}

/// Shows the statistics of the chunks in `region`.
///
/// # Errors
/// [`Error::Invalid`] if it has parts of chunks, or the array no statistics.
pub(super) async fn prove(
    array: &ArrayNode,
    region: &Region,
    reduce: &str,
) -> Result<StatisticsDocument, Error> {
    if !REDUCERS.contains(&reduce) {
        let reason = format!("{reduce:?} does not follow from statistics");
        return Err(Error::invalid("reduce", reason));
    }
    let wanted = whole_chunks(array.metadata(), region);
    let wanted = wanted.map_err(|reason| Error::invalid("region", reason))?;
    let root = array.statistics_root();
    let Some(StatisticsRoot { root, .. }) = root.filter(|_| array.has_current_statistics()) else {
        let reason = "the array has none: quarr rewrite-manifest computes them";
        return Err(Error::invalid("statistics", reason));
    };
    let mut prover = Prover {
        array,
        grid: Region::whole(&array.metadata().grid().grid_shape()),
        wanted,
        pages: Vec::new(),
    };
    if root != hash::empty() {
        let pages = array.repository().statistics();
        let page = pages.load_root(root, array.layout()).await?;
        prover.page(&page, array.layout().height() - 1, 0).await?;
    }
    Ok(StatisticsDocument {
        reduce: reduce.to_owned(),
        statistics: prover.pages,
    })
}

struct Prover<'a> {
    array: &'a ArrayNode,
    grid: Region,
    wanted: Region,
    pages: Vec<Leaves<Base64>>,
}

impl Prover<'_> {
    fn page<'a>(
        &'a mut self,
        page: &'a Page<StatisticsRow>,
        level: u32,
        place: u128,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let layout = self.array.layout().clone();
            let mut shown = std::collections::BTreeSet::new();
            let mut below = Vec::new();
            for (address, stand) in slots(&layout, &self.grid, &self.wanted, level, place) {
                if stand == Stand::Outside {
                    continue;
                }
                match page.addresses.binary_search(&address) {
                    Ok(at) => {
                        shown.insert(at);
                        if stand == Stand::Partly {
                            below.push((&page.rows[at], address));
                        }
                    }
                    Err(at) => {
                        shown.extend(at.checked_sub(1));
                        shown.extend((at < page.rows.len()).then_some(at));
                    }
                }
            }
            let rows: Vec<Vec<u8>> = page.rows.iter().map(|row| row.encoded(level)).collect();
            self.pages.push(show(Kind::StatisticsRow, &rows, shown));
            for (row, address) in below {
                let pages = self.array.repository().statistics();
                let child = pages.load_child(row, &layout, level).await?;
                let place = Layout::page(address, level - 1);
                self.page(&child, level - 1, place).await?;
            }
            Ok(())
        })
    }
}

/// Checks the statistics of a region of an array whose row names `root`.
///
/// # Errors
/// What does not follow.
pub(super) fn check(
    content: &StatisticsDocument,
    root: StatisticsRoot,
    metadata: &ArrayMetadata,
    region: &Region,
) -> Result<ProvenStatistics, String> {
    if !REDUCERS.contains(&content.reduce.as_str()) {
        return Err(format!(
            "{:?} does not follow from statistics",
            content.reduce
        ));
    }
    if root.metadata != statistics_metadata(metadata) {
        return Err("the statistics are of other metadata".into());
    }
    let grid = metadata.grid().grid_shape();
    let mut checker = Checker {
        kind: None,
        layout: Layout::new(&grid).map_err(|error| error.to_string())?,
        grid: Region::whole(&grid),
        wanted: whole_chunks(metadata, region)?,
        pages: content.statistics.iter(),
    };
    let stored = match root.root == hash::empty() {
        true => Statistics::EMPTY,
        false => {
            let level = checker.layout.height() - 1;
            checker.page(root.root, None, level, 0)?
        }
    };
    if checker.pages.next().is_some() {
        return Err("pages left over".into());
    }
    let cells = shape::elements(region.shape()).map_err(|error| error.to_string())?;
    let counted = stored.valid.checked_add(stored.missing);
    let absent_cells = counted.and_then(|counted| cells.checked_sub(counted));
    Ok(ProvenStatistics {
        reduce: content.reduce.clone(),
        stored,
        absent_cells: absent_cells.ok_or("statistics of more cells than there are")?,
    })
}

struct Checker<'a> {
    /// Of the values: all rows have the same.
    kind: Option<Discriminant<Scalar>>,
    layout: Layout,
    grid: Region,
    wanted: Region,
    pages: std::slice::Iter<'a, Leaves<Base64>>,
}

/// A row that is shown.
struct Row {
    address: u128,
    /// The page below, and its rows; zero for the statistics of a chunk.
    child: (Hash, u64),
    statistics: Statistics,
}

impl Checker<'_> {
    /// The merged statistics of what is wanted below the page `id` at `level` that covers `place`.
    fn page(
        &mut self,
        id: Hash,
        rows: Option<u64>,
        level: u32,
        place: u128,
    ) -> Result<Statistics, String> {
        let page = next_page(&mut self.pages, Kind::StatisticsRow, id, rows)?;
        let mut shown: Vec<Row> = Vec::with_capacity(page.leaves.len());
        for (_, bytes) in &page.leaves {
            let row = self.row(&bytes.0, level, place)?;
            if shown.last().is_some_and(|last| last.address >= row.address) {
                return Err("rows out of order".into());
            }
            if let Some(moments) = &row.statistics.moments {
                let kind = std::mem::discriminant(&moments.min);
                if *self.kind.get_or_insert(kind) != kind {
                    return Err("statistics of several kinds".into());
                }
            }
            shown.push(row);
        }
        let mut used = vec![false; shown.len()];
        let mut merging = Vec::new();
        for (address, stand) in slots(&self.layout, &self.grid, &self.wanted, level, place) {
            if stand == Stand::Outside {
                continue;
            }
            match shown.binary_search_by_key(&address, |row| row.address) {
                Ok(found) => {
                    used[found] = true;
                    let row = &shown[found];
                    merging.push(match (&stand, level) {
                        (Stand::Partly, 0) => return Err("a part of a chunk".into()),
                        (Stand::Partly, _) => {
                            let (child, rows) = row.child;
                            let place = Layout::page(address, level - 1);
                            self.page(child, Some(rows), level - 1, place)?
                        }
                        _ => row.statistics,
                    });
                }
                Err(after) => {
                    for at in page.around(after)? {
                        used[at] = true;
                    }
                }
            }
        }
        match used.contains(&false) {
            false => Ok(Statistics::merge_all(&merging)),
            true => Err("rows that prove nothing".into()),
        }
    }

    fn row(&self, bytes: &[u8], level: u32, place: u128) -> Result<Row, String> {
        let mut fields = Fields(bytes);
        let (kind, own_level, dimensions) = (fields.byte()?, fields.byte()?, fields.byte()?);
        let expected = if level == 0 {
            KIND_STATISTICS
        } else {
            KIND_INNER
        };
        if kind != expected
            || u32::from(own_level) != level
            || usize::from(dimensions) != self.layout.dimensions()
        {
            return Err("a row of another kind, level or grid".into());
        }
        let coordinate = (0..dimensions).map(|_| fields.number());
        let coordinate: Vec<u64> = coordinate.collect::<Result<_, _>>()?;
        let child = (fields.hash()?, fields.number()?);
        let statistics = fields.field()?;
        fields.end()?;
        if level == 0 && child != (Hash::ZERO, 0) {
            return Err("a chunk's statistics with a page below".into());
        }
        let statistics = Statistics::from_bytes(statistics).map_err(|error| error.to_string())?;
        let address = row_address(&self.layout, &coordinate, level, place)?;
        Ok(Row {
            address,
            child,
            statistics,
        })
    }
}
