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
        let address = layout.address(coordinate);
        let mut id = root;
        for level in (0..layout.height()).rev() {
            if id == hash::empty() {
                return Ok(None);
            }
            let loaded = self
                .load(id, layout, level, Layout::page(address, level))
                .await?;
            let free = LEVEL_BITS * level;
            let Some(row) = loaded.find(address >> free << free) else {
                return Ok(None);
            };
            match row.child() {
                Some((child, _)) => id = child,
                None => return Ok(Some(row.clone())),
            }
        }
        Ok(None)
    }

    /// The rows of the root page.
    pub(crate) async fn root_rows(&self, root: Hash, layout: &Layout) -> Result<Vec<R>, Error> {
        if layout.is_empty() || root == hash::empty() {
            return Ok(Vec::new());
        }
        Ok(self
            .load(root, layout, layout.height() - 1, 0)
            .await?
            .rows
            .clone())
    }

    /// All rows of chunks in `region` of the grid, in address order.
    pub(crate) async fn rows(
        &self,
        root: Hash,
        layout: &Layout,
        region: &Region,
    ) -> Result<Vec<R>, Error> {
        let mut found = Vec::new();
        if !layout.is_empty() && root != hash::empty() && !region.is_empty() {
            self.collect(
                root,
                layout.clone(),
                layout.height() - 1,
                0,
                region.clone(),
                &mut found,
            )
            .await?;
        }
        Ok(found)
    }

    fn collect<'a>(
        &'a self,
        id: Hash,
        layout: Layout,
        level: u32,
        page: u128,
        region: Region,
        found: &'a mut Vec<R>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let loaded = self.load(id, &layout, level, page).await?;
            let single = shape::elements(region.shape()) == Ok(1);
            if single {
                // The common case of a small read: no walk over the page.
                let free = LEVEL_BITS * level;
                let address = layout.address(region.start()) >> free << free;
                if let Some(row) = loaded.find(address) {
                    match row.child() {
                        None => found.push(row.clone()),
                        Some((child, _)) => {
                            let below = Layout::page(address, level - 1);
                            self.collect(child, layout, level - 1, below, region, found)
                                .await?;
                        }
                    }
                }
                return Ok(());
            }
            let inside = |row: &&R| {
                !layout
                    .row_box(row.coordinate(), level)
                    .intersect(&region)
                    .is_empty()
            };
            if level == 0 {
                found.extend(loaded.rows.iter().filter(inside).cloned());
                return Ok(());
            }
            let children: Vec<(Hash, u128)> = loaded
                .rows
                .iter()
                .filter(inside)
                .filter_map(|row| {
                    let below = Layout::page(layout.address(row.coordinate()), level - 1);
                    row.child().map(|(child, _)| (child, below))
                })
                .collect();
            let mut below: Vec<BoxFuture<'_, Result<Vec<R>, Error>>> = Vec::new();
            for (child, page) in children {
                let (layout, region) = (layout.clone(), region.clone());
                below.push(Box::pin(async move {
                    let mut rows = Vec::new();
                    self.collect(child, layout, level - 1, page, region, &mut rows)
                        .await?;
                    Ok(rows)
                }));
            }
            let below = concurrent::all(below).await?;
            found.extend(below.into_iter().flatten());
            Ok(())
        })
    }

    /// Every page of the tree: calls `visit` with its key, parents first.
    pub(crate) fn visit_pages<'a>(
        &'a self,
        id: Hash,
        layout: &'a Layout,
        level: u32,
        page: u128,
        visit: &'a mut (dyn FnMut(Hash, Result<(), Error>) + Send),
    ) -> BoxFuture<'a, Vec<R>> {
        Box::pin(async move {
            let mut rows = Vec::new();
            if layout.is_empty() || id == hash::empty() {
                return rows;
            }
            match self.load(id, layout, level, page).await {
                Err(error) => visit(id, Err(error)),
                Ok(loaded) => {
                    visit(id, Ok(()));
                    for row in &loaded.rows {
                        match row.child() {
                            None => rows.push(row.clone()),
                            Some((child, _)) => {
                                let below =
                                    Layout::page(layout.address(row.coordinate()), level - 1);
                                rows.extend(
                                    self.visit_pages(child, layout, level - 1, below, visit)
                                        .await,
                                );
                            }
                        }
                    }
                }
            }
            rows
        })
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
        let base = (root != hash::empty()).then_some(root);
        if changes.is_empty() || layout.is_empty() {
            return Ok(root);
        }
        let built = self
            .build(base, layout, layout.height() - 1, 0, changes, finish_leaf)
            .await?;
        Ok(built.map_or_else(hash::empty, |(id, _)| id))
    }

    /// Writes one page and those below it that change; `None` if no row is left.
    fn build<'a, F>(
        &'a self,
        base: Option<Hash>,
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
            let before = match base {
                Some(id) => Some(self.load(id, layout, level, page).await?),
                None => None,
            };
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
                    let child = before
                        .as_ref()
                        .and_then(|page| page.find(first))
                        .and_then(R::child);
                    let base = child.map(|(id, _)| id);
                    let below_page = Layout::page(first, level - 1);
                    let built = self.build(base, layout, level - 1, below_page, group, finish_leaf);
                    below.push(Box::pin(async move {
                        let row = built.await?;
                        let row =
                            row.map(|(id, rows)| R::inner(layout.coordinate(first), id, &rows));
                        Ok((first, row))
                    }));
                }
                concurrent::all(below).await?
            };
            let mut rows = merge(before.as_deref(), changed);
            if level == 0 {
                rows = finish_leaf(rows).await?;
            }
            if rows.is_empty() {
                return Ok(None);
            }
            let id = page::page_id(&rows, level);
            if base != Some(id) {
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
