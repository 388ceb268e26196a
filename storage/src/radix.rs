//! The radix tree over a chunk grid: reading rows from it, and building it from changes.
//!
//! ```text
//! root page (level 2) ─► page (level 1) ─► page (level 0) ─► rows of stored chunks
//! ```
//!
//! A tree with no rows is not stored; its root is the empty Merkle tree hash. A missing row means
//! that the chunk is all fill value, but only once the page that would hold it is verified.

use std::sync::Arc;

use array::hash::{self, Hash};
use array::{Region, shape};
use bytes::Bytes;
use futures::future::BoxFuture;
use moka::sync::Cache;

use crate::layout::{LEVEL_BITS, Layout};
use crate::object::object_key;
use crate::page::{self, Page, PageRow};
use crate::store::Store;
use crate::{Error, concurrent};

/// A page is checked against its place in a tree, so the place is part of the key.
type PageKey = (Hash, Layout, u32, u128);

/// Verified pages, by bytes.
pub(crate) type PageCache<R> = Cache<PageKey, Arc<Page<R>>>;

pub(crate) fn page_cache<R: PageRow>(capacity_bytes: u64) -> PageCache<R> {
    Cache::builder()
        .max_capacity(capacity_bytes)
        .weigher(|_, page: &Arc<Page<R>>| u32::try_from(page.size_bytes()).unwrap_or(u32::MAX))
        .build()
}

/// Reads and writes the pages of one kind of tree.
#[derive(Clone, Debug)]
pub(crate) struct Pages<R: PageRow> {
    pub(crate) store: Store,
    pub(crate) cache: PageCache<R>,
}

/// A page that was built: its id and rows; `None` if no row is left.
type Built<R> = Option<(Hash, Vec<R>)>;

/// A change to one row: the new row, or `None` to remove it.
pub(crate) type RowChange<R> = (u128, Option<R>);

impl<R: PageRow> Pages<R> {
    /// The root page.
    async fn load_root(&self, id: Hash, layout: &Layout) -> Result<Arc<Page<R>>, Error> {
        self.load(id, layout, layout.height() - 1, 0).await
    }

    /// The page under `row`, which is an inner row of a page at `level`; checked to be the one that
    /// row describes.
    async fn load_child(
        &self,
        row: &R,
        layout: &Layout,
        level: u32,
    ) -> Result<Arc<Page<R>>, Error> {
        let place = Layout::page(layout.address(row.coordinate()), level - 1);
        let Some((id, _)) = row.child() else {
            return Err(Error::corrupt("page", "a chunk where a page should be"));
        };
        let loaded = self.load(id, layout, level - 1, place).await?;
        if !loaded.is_below(row, level) {
            let reason = "it is not the page its parent describes";
            return Err(Error::corrupt(object_key(&id), reason));
        }
        Ok(loaded)
    }

    async fn load(
        &self,
        id: Hash,
        layout: &Layout,
        level: u32,
        page: u128,
    ) -> Result<Arc<Page<R>>, Error> {
        let cache_key = (id, layout.clone(), level, page);
        if let Some(found) = self.cache.get(&cache_key) {
            return Ok(found);
        }
        let key = object_key(&id);
        let bytes = self.store.get_existing(&key).await?;
        let decoded = page::decode(&bytes, &id, layout, level, page)
            .map_err(|reason| Error::corrupt(&key, reason))?;
        let decoded = Arc::new(decoded);
        self.cache.insert(cache_key, decoded.clone());
        Ok(decoded)
    }

    /// The row at `coordinate`, which is in the grid; `None` if it has none.
    pub(crate) async fn row(
        &self,
        root: Hash,
        layout: &Layout,
        coordinate: &[u64],
    ) -> Result<Option<R>, Error> {
        if layout.is_empty() {
            return Ok(None);
        }
        if root == hash::empty() {
            return Ok(None);
        }
        let address = layout.address(coordinate);
        let mut loaded = self.load_root(root, layout).await?;
        for level in (0..layout.height()).rev() {
            let free = LEVEL_BITS * level;
            let Some(row) = loaded.find(address >> free << free) else {
                return Ok(None);
            };
            if level == 0 {
                return Ok(Some(row.clone()));
            }
            loaded = self.load_child(row, layout, level).await?;
        }
        Ok(None)
    }

    /// The rows of the root page.
    pub(crate) async fn root_rows(&self, root: Hash, layout: &Layout) -> Result<Vec<R>, Error> {
        if layout.is_empty() || root == hash::empty() {
            return Ok(Vec::new());
        }
        Ok(self.load_root(root, layout).await?.rows.clone())
    }

    /// All rows of chunks in `region` of the grid, in address order.
    pub(crate) async fn rows(
        &self,
        root: Hash,
        layout: &Layout,
        region: &Region,
    ) -> Result<Vec<R>, Error> {
        if layout.is_empty() || root == hash::empty() || region.is_empty() {
            return Ok(Vec::new());
        }
        let loaded = self.load_root(root, layout).await?;
        self.collect(loaded, layout, layout.height() - 1, region)
            .await
    }

    /// The rows of chunks in `region` at or below the page `loaded` at `level`.
    fn collect<'a>(
        &'a self,
        loaded: Arc<Page<R>>,
        layout: &'a Layout,
        level: u32,
        region: &'a Region,
    ) -> BoxFuture<'a, Result<Vec<R>, Error>> {
        Box::pin(async move {
            // A small read: no walk over the page.
            let only = (shape::elements(region.shape()) == Ok(1)).then(|| {
                let free = LEVEL_BITS * level;
                loaded.find(layout.address(region.start()) >> free << free)
            });
            let inside = |row: &&R| {
                let covered = layout.row_box(row.coordinate(), level);
                !covered.intersect(region).is_empty()
            };
            let wanted: Vec<&R> = match only {
                Some(row) => row.into_iter().collect(),
                None => loaded.rows.iter().filter(inside).collect(),
            };
            if level == 0 {
                return Ok(wanted.into_iter().cloned().collect());
            }
            let mut below: Vec<BoxFuture<'_, Result<Vec<R>, Error>>> = Vec::new();
            for row in wanted {
                below.push(Box::pin(async move {
                    let child = self.load_child(row, layout, level).await?;
                    self.collect(child, layout, level - 1, region).await
                }));
            }
            let below = concurrent::all(below).await?;
            Ok(below.into_iter().flatten().collect())
        })
    }

    /// Every page of the tree: calls `visit` with its key, parents first. Gives the rows of the
    /// pages at level 0 that could be read.
    pub(crate) async fn visit_pages(
        &self,
        root: Hash,
        layout: &Layout,
        visit: &mut (dyn FnMut(Hash, Result<(), Error>) + Send),
    ) -> Vec<R> {
        let mut rows = Vec::new();
        if layout.is_empty() || root == hash::empty() {
            return rows;
        }
        // Pages still to visit: the id, the level, and the row above.
        let mut open: Vec<(Hash, u32, Option<R>)> = vec![(root, layout.height() - 1, None)];
        while let Some((id, level, row)) = open.pop() {
            let loaded = match &row {
                None => self.load_root(id, layout).await,
                Some(row) => self.load_child(row, layout, level + 1).await,
            };
            match &loaded {
                Err(_) => {}
                Ok(loaded) if level == 0 => rows.extend(loaded.rows.iter().cloned()),
                Ok(loaded) => {
                    let inner = loaded.rows.iter().rev();
                    open.extend(inner.filter_map(|row| {
                        let (child, _) = row.child()?;
                        Some((child, level - 1, Some(row.clone())))
                    }));
                }
            }
            visit(id, loaded.map(drop));
        }
        rows
    }

    /// Writes the tree that `root` becomes with `changes`, sorted by address; gives its root.
    ///
    /// `finish_leaf` sees the rows of every level-0 page before it is written.
    pub(crate) async fn update<F>(
        &self,
        root: Hash,
        layout: &Layout,
        changes: &[RowChange<R>],
        finish_leaf: &F,
    ) -> Result<Hash, Error>
    where
        F: Fn(Vec<R>) -> BoxFuture<'static, Result<Vec<R>, Error>> + Sync,
    {
        debug_assert!(changes.is_sorted_by(|a, b| a.0 < b.0));
        if changes.is_empty() || layout.is_empty() {
            return Ok(root);
        }
        let base = if root == hash::empty() {
            None
        } else {
            Some((root, self.load_root(root, layout).await?))
        };
        let built = self
            .build(base, layout, layout.height() - 1, 0, changes, finish_leaf)
            .await?;
        Ok(built.map_or_else(hash::empty, |(id, _)| id))
    }

    /// Writes one page and those below it that change; `None` if no row is left.
    fn build<'a, F>(
        &'a self,
        base: Option<(Hash, Arc<Page<R>>)>,
        layout: &'a Layout,
        level: u32,
        page: u128,
        changes: &'a [RowChange<R>],
        finish_leaf: &'a F,
    ) -> BoxFuture<'a, Result<Built<R>, Error>>
    where
        F: Fn(Vec<R>) -> BoxFuture<'static, Result<Vec<R>, Error>> + Sync,
    {
        Box::pin(async move {
            let before = base.as_ref().map(|(_, page)| page);
            let changed: Vec<RowChange<R>> = if level == 0 {
                changes.to_vec()
            } else {
                let free = LEVEL_BITS * level;
                let groups: Vec<&[RowChange<R>]> = changes
                    .chunk_by(|a, b| a.0 >> free == b.0 >> free)
                    .collect();
                let mut below: Vec<BoxFuture<'_, Result<RowChange<R>, Error>>> = Vec::new();
                for group in groups {
                    let first = group[0].0 >> free << free;
                    let row = before.and_then(|page| page.find(first));
                    below.push(Box::pin(async move {
                        let base = match row.and_then(|row| Some((row, row.child()?.0))) {
                            Some((row, id)) => {
                                Some((id, self.load_child(row, layout, level).await?))
                            }
                            None => None,
                        };
                        let place = Layout::page(first, level - 1);
                        let built = self
                            .build(base, layout, level - 1, place, group, finish_leaf)
                            .await?;
                        let row =
                            built.map(|(id, rows)| R::inner(layout.coordinate(first), id, &rows));
                        Ok((first, row))
                    }));
                }
                concurrent::all(below).await?
            };
            let mut rows = merge(before.map(AsRef::as_ref), changed);
            if level == 0 {
                rows = finish_leaf(rows).await?;
            }
            if rows.is_empty() {
                return Ok(None);
            }
            let id = page::page_id(&rows, level);
            if base.is_none_or(|(base, _)| base != id) {
                self.put(id, &rows, layout, level, page).await?;
            }
            Ok(Some((id, rows)))
        })
    }

    async fn put(
        &self,
        id: Hash,
        rows: &[R],
        layout: &Layout,
        level: u32,
        page: u128,
    ) -> Result<(), Error> {
        let key = object_key(&id);
        let bytes =
            page::encode(rows, level).map_err(|error| Error::invalid("page", error.to_string()))?;
        // The same rows may have been compressed by another version of the compressor.
        let check = |found: &Bytes| page::decode::<R>(found, &id, layout, level, page).map(drop);
        self.store.put_equivalent(&key, bytes.into(), check).await
    }
}

/// The rows of a page after changes, in address order.
fn merge<R: PageRow>(before: Option<&Page<R>>, changes: Vec<RowChange<R>>) -> Vec<R> {
    let mut rows = Vec::new();
    let mut changes = changes.into_iter().peekable();
    if let Some(page) = before {
        for (&address, row) in page.addresses.iter().zip(&page.rows) {
            while changes.peek().is_some_and(|change| change.0 < address) {
                rows.extend(changes.next().and_then(|change| change.1));
            }
            match changes.next_if(|change| change.0 == address) {
                Some((_, changed)) => rows.extend(changed),
                None => rows.push(row.clone()),
            }
        }
    }
    rows.extend(changes.filter_map(|change| change.1));
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use array::hash::Kind;
    use array::{ChunkIndex, ChunkKind};
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;
    use crate::page::{ChunkRow, Location, ManifestRow, StatisticsRow};

    fn pages<R: PageRow>() -> Pages<R> {
        Pages {
            store: Store::from_objects(Arc::new(InMemory::new()), "test"),
            cache: page_cache(1 << 20),
        }
    }

    fn chunk(at: &[u64], version: u64) -> ManifestRow {
        ManifestRow::Chunk(ChunkRow {
            index: ChunkIndex::new(at.to_vec()),
            kind: ChunkKind::Plain,
            id: hash::hash(Kind::PlainChunk, &version.to_le_bytes()),
            length: 8,
            location: Location::Stored,
        })
    }

    async fn apply(
        pages: &Pages<ManifestRow>,
        root: Hash,
        layout: &Layout,
        changes: &BTreeMap<Vec<u64>, Option<u64>>,
    ) -> Hash {
        let mut sorted: Vec<RowChange<ManifestRow>> = changes
            .iter()
            .map(|(at, version)| {
                (
                    layout.address(at),
                    version.map(|version| chunk(at, version)),
                )
            })
            .collect();
        sorted.sort_unstable_by_key(|(address, _)| *address);
        let keep = |rows| -> BoxFuture<'static, Result<Vec<ManifestRow>, Error>> {
            Box::pin(async move { Ok(rows) })
        };
        pages.update(root, layout, &sorted, &keep).await.unwrap()
    }

    /// Batches of changes: from a position, by its number, to a new version or to nothing.
    fn batches() -> impl Strategy<Value = Vec<BTreeMap<u64, Option<u64>>>> {
        let change = prop::option::weighted(0.7, 0..5u64);
        let batch = prop::collection::btree_map(any::<u64>(), change, 0..60);
        prop::collection::vec(batch, 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_tree_holds_what_a_map_does(
            grid in prop_oneof![
                prop::collection::vec(1u64..70, 1..4),
                Just(vec![1 << 20, 1 << 20]),
                Just(vec![u64::MAX]),
            ],
            batches in batches(),
            corner: u64,
            extent in 1u64..2000,
        ) {
            let layout = Layout::new(&grid).unwrap();
            let total = shape::elements(&grid).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (pages, fresh) = (pages(), pages::<ManifestRow>());
            let mut model: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
            let mut root = hash::empty();
            for batch in batches {
                let changes = batch
                    .into_iter()
                    .map(|(at, version)| (shape::coordinate(at % total, &grid), version))
                    .collect();
                root = runtime.block_on(apply(&pages, root, &layout, &changes));
                for (at, version) in changes {
                    match version {
                        Some(version) => model.insert(at, version),
                        None => model.remove(&at),
                    };
                }
            }
            // However it was written, equal content has an equal root.
            let all = model.iter().map(|(at, version)| (at.clone(), Some(*version))).collect();
            let at_once = runtime.block_on(apply(&fresh, hash::empty(), &layout, &all));
            prop_assert_eq!(root, at_once);

            // Some box, what is in it, and each of its rows alone; with nothing cached.
            let start = shape::coordinate(corner % total, &grid);
            let lengths = start.iter().zip(&grid).map(|(at, n)| extent.min(n - at)).collect();
            let region = Region::new(start, lengths).unwrap();
            pages.cache.invalidate_all();
            let found = runtime.block_on(pages.rows(root, &layout, &region)).unwrap();
            let is_inside = |at: &&Vec<u64>| {
                region.contains(&Region::new((*at).clone(), vec![1; grid.len()]).unwrap())
            };
            let mut expected: Vec<ManifestRow> = model
                .keys()
                .filter(is_inside)
                .map(|at| chunk(at, model[at]))
                .collect();
            expected.sort_unstable_by_key(|row| layout.address(row.coordinate()));
            prop_assert_eq!(found, expected);
            for (at, version) in &model {
                let row = runtime.block_on(pages.row(root, &layout, at)).unwrap();
                prop_assert_eq!(row, Some(chunk(at, *version)));
            }
        }
    }

    /// A page whose inner row is not the one over its child is refused, though its own rows match
    /// its name.
    #[tokio::test]
    async fn a_parent_that_misdescribes_its_child_is_corrupt() {
        let layout = Layout::new(&[2048]).unwrap();
        let pages = pages();
        let changes = BTreeMap::from([(vec![3], Some(1)), (vec![1500], Some(2))]);
        let root = apply(&pages, hash::empty(), &layout, &changes).await;
        let mut rows = pages.root_rows(root, &layout).await.unwrap();
        let ManifestRow::Inner { rows: count, .. } = &mut rows[0] else {
            panic!("a page at level 1")
        };
        *count += 1;
        let forged = page::page_id(&rows, 1);
        pages.put(forged, &rows, &layout, 1, 0).await.unwrap();
        let whole = Region::whole(&[2048]);
        let error = pages.rows(forged, &layout, &whole).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(pages.row(forged, &layout, &[3]).await.is_err());
        assert!(pages.row(forged, &layout, &[1500]).await.is_ok());
    }

    async fn every_flip_is_found<R: PageRow + PartialEq + std::fmt::Debug>(
        layout: &Layout,
        rows: Vec<R>,
    ) {
        let id = page::page_id(&rows, 0);
        let bytes = page::encode(&rows, 0).unwrap();
        assert_eq!(
            page::decode::<R>(&bytes, &id, layout, 0, 0).unwrap().rows,
            rows
        );
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let decoded = page::decode::<R>(&flipped, &id, layout, 0, 0);
            assert!(decoded.is_err(), "byte {at}");
            assert!(page::decode::<R>(&bytes[..at], &id, layout, 0, 0).is_err());
        }
        // The right page in a wrong place.
        assert!(page::decode::<R>(&bytes, &id, layout, 0, 1).is_err());
        assert!(page::decode::<R>(&bytes, &id, layout, 1, 0).is_err());
        assert!(page::decode::<R>(&bytes, &Hash::ZERO, layout, 0, 0).is_err());
        let other = Layout::new(&[3, 1]).unwrap();
        assert!(page::decode::<R>(&bytes, &id, &other, 0, 0).is_err());
    }

    #[tokio::test]
    async fn a_page_with_any_bit_flipped_is_refused() {
        let layout = Layout::new(&[100, 100]).unwrap();
        let places = [[0, 0], [1, 0], [1, 7]];
        let chunks = places.iter().map(|at| chunk(at, at[1])).collect();
        every_flip_is_found::<ManifestRow>(&layout, chunks).await;
        let statistics = places.iter().map(|at| StatisticsRow {
            coordinate: at.to_vec(),
            child: None,
            statistics: array::Statistics::EMPTY,
        });
        every_flip_is_found::<StatisticsRow>(&layout, statistics.collect()).await;
    }
}
