//! The radix tree over a chunk grid: reading rows from it, and building it from changes.
//!
//! ```text
//! root page (level 2) ─► page (level 1) ─► page (level 0) ─► rows of stored chunks
//! ```
//!
//! A tree with no rows is not stored; its root is the empty Merkle tree hash. A missing row means
//! that the chunk is all fill value, but only once the page that would hold it is verified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use array::hash::{self, Hash};
use array::{Region, shape};
use bytes::Bytes;
use futures::future::BoxFuture;
use moka::sync::Cache;

use crate::flights::Kept;
use crate::layout::{LEVEL_BITS, Layout};
use crate::object::object_key;
use crate::page::{self, Page, PageRow};
use crate::store::Store;
use crate::uploads::Uploads;
use crate::{Error, concurrent};

/// A page is checked against its place in a tree, so the place is part of the key.
type PageKey = (Hash, Layout, u32, u128);

/// Verified pages, by bytes.
pub(crate) type PageCache<R> = Kept<PageKey, Arc<Page<R>>>;

pub(crate) fn page_cache<R: PageRow>(capacity_bytes: u64) -> PageCache<R> {
    let weight =
        |_: &PageKey, page: &Arc<Page<R>>| u32::try_from(page.size_bytes()).unwrap_or(u32::MAX);
    let cache = Cache::builder()
        .max_capacity(capacity_bytes)
        .weigher(weight);
    Kept::new(cache.build())
}

/// Reads and writes the pages of one kind of tree.
#[derive(Clone, Debug)]
pub(crate) struct Pages<R: PageRow> {
    pub(crate) store: Store,
    pub(crate) cache: PageCache<R>,
}

/// A change to one row.
pub(crate) trait RowChange<R>: Sync {
    /// Of the row.
    fn address(&self) -> u128;

    /// The row it becomes; `None` if it goes.
    fn row(&self, layout: &Layout) -> Option<R>;
}

impl<R: Clone + Sync> RowChange<R> for (u128, Option<R>) {
    fn address(&self) -> u128 {
        self.0
    }

    fn row(&self, _: &Layout) -> Option<R> {
        self.1.clone()
    }
}

/// Bytes of the chunks of the rows that came and went. One that stayed counts as both.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    added: AtomicU64,
    removed: AtomicU64,
}

impl Tally {
    fn count<R: PageRow>(&self, before: Option<&R>, after: Option<&R>) {
        let add = |to: &AtomicU64, row: Option<&R>| {
            to.fetch_add(row.map_or(0, R::stored_bytes), Ordering::Relaxed);
        };
        add(&self.removed, before);
        add(&self.added, after);
    }

    /// Counts what `other` has counted.
    fn take_over(&self, other: &Self) {
        for (own, other) in [(&self.added, &other.added), (&self.removed, &other.removed)] {
            own.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// What becomes of so many bytes.
    pub(crate) fn apply(&self, stored_bytes: u64) -> u64 {
        stored_bytes
            .saturating_add(self.added.load(Ordering::Relaxed))
            .saturating_sub(self.removed.load(Ordering::Relaxed))
    }
}

/// What an update works with.
pub(crate) struct Update<'a, F> {
    pub(crate) layout: &'a Layout,
    pub(crate) uploads: &'a Uploads,
    /// Sees the rows of every level-0 page before it is stored.
    pub(crate) finish_leaf: F,
    pub(crate) tally: Tally,
}

impl<'a, R: PageRow> Update<'a, fn(Vec<R>) -> Finished<R>> {
    /// One that stores level-0 pages as they are.
    pub(crate) fn plain(layout: &'a Layout, uploads: &'a Uploads) -> Self {
        Self {
            layout,
            uploads,
            finish_leaf: |rows| Box::pin(std::future::ready(Ok(rows))),
            tally: Tally::default(),
        }
    }
}

/// A row that is to be at this address; `None` if none is.
type Addressed<R> = (u128, Option<R>);

/// The rows of a page as they are to be stored.
pub(crate) type Finished<R> = BoxFuture<'static, Result<Vec<R>, Error>>;

impl<R: PageRow> Pages<R> {
    /// The root page.
    pub(crate) async fn load_root(&self, id: Hash, layout: &Layout) -> Result<Arc<Page<R>>, Error> {
        self.load(id, layout, layout.height() - 1, 0).await
    }

    /// The page under `row`, which is an inner row of a page at `level`; checked to be the one that
    /// row describes.
    pub(crate) async fn load_child(
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
        let read = async {
            let key = object_key(&id);
            let bytes = self.store.get_existing(&key).await?;
            let decoded = page::decode(&bytes, &id, layout, level, page);
            let decoded = decoded.map_err(|reason| Error::corrupt(&key, reason))?;
            Ok(Arc::new(decoded))
        };
        self.cache.get_or(&cache_key, read).await
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
            let inside = |row: &&R| match level {
                0 => region.contains_position(row.coordinate()),
                _ => {
                    let covered = layout.row_box(row.coordinate(), level);
                    !covered.intersect(region).is_empty()
                }
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

    /// Rows of chunks in `region` that `wanted` holds for, in no order, at most `most`: pages beyond
    /// those are not kept.
    pub(crate) async fn some_rows(
        &self,
        root: Hash,
        layout: &Layout,
        region: &Region,
        most: usize,
        wanted: impl Fn(&R) -> bool,
    ) -> Result<Vec<R>, Error> {
        let mut found = Vec::new();
        if layout.is_empty() || root == hash::empty() || region.is_empty() || most == 0 {
            return Ok(found);
        }
        let height = layout.height();
        let mut open = vec![(self.load_root(root, layout).await?, height - 1, 0)];
        while let Some((page, level, next)) = open.pop() {
            if level == 0 {
                let inside = |row: &&R| region.contains_position(row.coordinate()) && wanted(row);
                let rows = page.rows.iter().filter(inside);
                found.extend(rows.take(most - found.len()).cloned());
                if found.len() == most {
                    return Ok(found);
                }
                continue;
            }
            let covers = |row: &R| {
                let covered = layout.row_box(row.coordinate(), level);
                !covered.intersect(region).is_empty()
            };
            let at = (next..page.rows.len()).find(|&at| covers(&page.rows[at]));
            if let Some(at) = at {
                let child = self.load_child(&page.rows[at], layout, level).await?;
                open.push((page, level, at + 1));
                open.push((child, level - 1, 0));
            }
        }
        Ok(found)
    }

    /// Whether `test` holds for every row at level 0; stops reading at the first for which it does
    /// not.
    pub(crate) async fn all_rows(
        &self,
        root: Hash,
        layout: &Layout,
        test: impl Fn(&R) -> bool,
    ) -> Result<bool, Error> {
        if layout.is_empty() || root == hash::empty() {
            return Ok(true);
        }
        let mut open = vec![(self.load_root(root, layout).await?, layout.height() - 1, 0)];
        while let Some((page, level, next)) = open.pop() {
            if level == 0 {
                if !page.rows.iter().all(&test) {
                    return Ok(false);
                }
            } else if let Some(row) = page.rows.get(next) {
                let child = self.load_child(row, layout, level).await?;
                open.push((page, level, next + 1));
                open.push((child, level - 1, 0));
            }
        }
        Ok(true)
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

    /// Starts storing the tree that `root` becomes with `changes`, sorted by address; gives its root.
    pub(crate) async fn update<C, F>(
        &self,
        root: Hash,
        changes: &[C],
        update: &Update<'_, F>,
    ) -> Result<Hash, Error>
    where
        C: RowChange<R>,
        F: Fn(Vec<R>) -> Finished<R> + Sync,
    {
        debug_assert!(changes.is_sorted_by(|a, b| a.address() < b.address()));
        let layout = update.layout;
        if changes.is_empty() || layout.is_empty() {
            return Ok(root);
        }
        let base = if root == hash::empty() {
            None
        } else {
            Some((root, self.load_root(root, layout).await?))
        };
        let built = self
            .build(base, layout.height() - 1, 0, changes, update)
            .await?;
        Ok(built.map_or_else(hash::empty, |(id, _)| id))
    }

    /// Builds one page and those below it that change. Gives its id and the row over it; `None` if
    /// no row is left.
    fn build<'a, C, F>(
        &'a self,
        base: Option<(Hash, Arc<Page<R>>)>,
        level: u32,
        page: u128,
        changes: &'a [C],
        update: &'a Update<'_, F>,
    ) -> BoxFuture<'a, Result<Option<(Hash, R)>, Error>>
    where
        C: RowChange<R>,
        F: Fn(Vec<R>) -> Finished<R> + Sync,
    {
        Box::pin(async move {
            let layout = update.layout;
            let before = base.as_ref().map(|(_, page)| page.as_ref());
            let rows = if level == 0 {
                let changed = changes
                    .iter()
                    .map(|change| (change.address(), change.row(layout)))
                    .collect();
                let rows = merge(before, changed, &update.tally);
                (update.finish_leaf)(rows).await?
            } else {
                let free = LEVEL_BITS * level;
                let groups = changes.chunk_by(|a, b| a.address() >> free == b.address() >> free);
                let mut below: Vec<BoxFuture<'_, Result<Addressed<R>, Error>>> = Vec::new();
                for group in groups {
                    let first = group[0].address() >> free << free;
                    let row = before.and_then(|page| page.find(first));
                    below.push(Box::pin(async move {
                        let base = match row.and_then(|row| Some((row, row.child()?.0))) {
                            Some((row, id)) => {
                                Some((id, self.load_child(row, layout, level).await?))
                            }
                            None => None,
                        };
                        let place = Layout::page(first, level - 1);
                        let built = self.build(base, level - 1, place, group, update).await?;
                        Ok((first, built.map(|(_, row)| row)))
                    }));
                }
                merge(before, concurrent::all(below).await?, &Tally::default())
            };
            if rows.is_empty() {
                return Ok(None);
            }
            let id = page::page_id(&rows, level);
            let origin = layout.coordinate(page.checked_shl(LEVEL_BITS * (level + 1)).unwrap_or(0));
            let inner = R::inner(origin, id, &rows);
            if base.is_none_or(|(base, _)| base != id) {
                self.store_page(id, rows, level, page, update.layout, update.uploads)
                    .await?;
            }
            Ok(Some((id, inner)))
        })
    }

    /// Starts storing a page, which can be read from now on.
    async fn store_page(
        &self,
        id: Hash,
        rows: Vec<R>,
        level: u32,
        page: u128,
        layout: &Layout,
        uploads: &Uploads,
    ) -> Result<(), Error> {
        let bytes = page::encode(&rows, level)
            .map_err(|error| Error::invalid("page", error.to_string()))?;
        let decoded = Page::new(rows, id, layout, level, page)
            .map_err(|reason| Error::invalid("page", reason))?;
        let key = (id, layout.clone(), level, page);
        self.cache.insert(key, Arc::new(decoded));
        let layout = layout.clone();
        // The same rows may have been compressed by another version of the compressor.
        let check =
            move |found: &Bytes| page::decode::<R>(found, &id, &layout, level, page).map(drop);
        uploads.equivalent(&id, bytes.into(), check).await
    }

    /// The tree `root` over another grid: the same chunks, without those outside `grid`.
    ///
    /// Cheap while only the longest dimension grows, or shrinks; else every page is rewritten.
    pub(crate) async fn move_to<F>(
        &self,
        root: Hash,
        from: &Layout,
        from_grid: &[u64],
        grid: &[u64],
        update: &Update<'_, F>,
    ) -> Result<Hash, Error>
    where
        F: Fn(Vec<R>) -> Finished<R> + Sync,
    {
        let to = update.layout;
        if root == hash::empty() || from.is_empty() || to.is_empty() {
            return Ok(hash::empty());
        }
        // Under another layout pages are read again, which takes that they are stored.
        update.uploads.flush().await?;
        let mut gone: Vec<(u128, Option<R>)> = Vec::new();
        for axis in 0..grid.len() {
            if grid[axis] < from_grid[axis] {
                let slab = slab_beyond(axis, grid, from_grid)?;
                let rows = self.rows(root, from, &slab).await?;
                gone.extend(
                    rows.iter()
                        .map(|row| (from.address(row.coordinate()), None)),
                );
            }
        }
        gone.sort_unstable_by_key(|(address, _)| *address);
        let removal = Update {
            layout: from,
            uploads: update.uploads,
            finish_leaf: |rows| (update.finish_leaf)(rows),
            tally: Tally::default(),
        };
        let root = self.update(root, &gone, &removal).await?;
        update.tally.take_over(&removal.tally);
        update.uploads.flush().await?;
        if root == hash::empty() {
            return Ok(root);
        }
        if from.is_prefix_of(to) {
            return self.lift(root, from, update).await;
        }
        if to.is_prefix_of(from) {
            return self.descend(root, from, to).await;
        }
        let rows = self.rows(root, from, &Region::whole(from_grid)).await?;
        let mut all: Vec<(u128, Option<R>)> = rows
            .into_iter()
            .map(|row| (to.address(row.coordinate()), Some(row)))
            .collect();
        all.sort_unstable_by_key(|(address, _)| *address);
        let fresh = Update {
            layout: to,
            uploads: update.uploads,
            finish_leaf: |rows| (update.finish_leaf)(rows),
            tally: Tally::default(),
        };
        self.update(hash::empty(), &all, &fresh).await
    }

    /// Puts pages of one row on top of `root`, up to the height of the update's layout.
    async fn lift<F>(
        &self,
        mut root: Hash,
        from: &Layout,
        update: &Update<'_, F>,
    ) -> Result<Hash, Error> {
        let mut rows = self.load_root(root, from).await?.rows.clone();
        for level in from.height()..update.layout.height() {
            let origin = vec![0; update.layout.dimensions()];
            rows = vec![R::inner(origin, root, &rows)];
            root = page::page_id(&rows, level);
            self.store_page(root, rows.clone(), level, 0, update.layout, update.uploads)
                .await?;
        }
        Ok(root)
    }

    /// The page of `root` that is the root page of a lower tree: all rows are below it.
    async fn descend(&self, root: Hash, from: &Layout, to: &Layout) -> Result<Hash, Error> {
        let mut root = root;
        let mut loaded = self.load_root(root, from).await?;
        for level in (to.height()..from.height()).rev() {
            let Some((row, (child, _))) = loaded.find(0).and_then(|row| Some((row, row.child()?)))
            else {
                return Ok(hash::empty());
            };
            loaded = self.load_child(row, from, level).await?;
            root = child;
        }
        Ok(root)
    }

    /// The rows in which two trees over the same coordinates differ, as before and after; equal
    /// subtrees are not read. In address order of the larger layout.
    pub(crate) async fn differences(
        &self,
        before: (Hash, &Layout, &[u64]),
        after: (Hash, &Layout, &[u64]),
    ) -> Result<Vec<(Option<R>, Option<R>)>, Error>
    where
        R: PartialEq,
    {
        if before.0 == after.0 && before.1 == after.1 {
            return Ok(Vec::new());
        }
        let comparable = before.1.is_prefix_of(after.1) || after.1.is_prefix_of(before.1);
        if !comparable {
            let old = self
                .rows(before.0, before.1, &Region::whole(before.2))
                .await?;
            let new = self.rows(after.0, after.1, &Region::whole(after.2)).await?;
            return Ok(pair_up(old, new, after.1));
        }
        let (old, new) = futures::try_join!(
            self.root_side(before.0, before.1),
            self.root_side(after.0, after.1)
        )?;
        self.compare(old, new).await
    }

    async fn root_side<'a>(&self, root: Hash, layout: &'a Layout) -> Result<Side<'a, R>, Error> {
        if layout.is_empty() || root == hash::empty() {
            return Ok(None);
        }
        let loaded = self.load_root(root, layout).await?;
        Ok(Some((loaded, layout, layout.height() - 1)))
    }

    fn compare<'a>(
        &'a self,
        before: Side<'a, R>,
        after: Side<'a, R>,
    ) -> BoxFuture<'a, Result<Differences<R>, Error>>
    where
        R: PartialEq,
    {
        Box::pin(async move {
            let level = |side: &Side<'_, R>| side.as_ref().map_or(0, |(_, _, level)| *level);
            let top = level(&before).max(level(&after));
            let (old, new) = (self.split(before, top), self.split(after, top));
            let mut places: Vec<u128> = old.keys().chain(new.keys()).copied().collect();
            places.sort_unstable();
            places.dedup();
            if top == 0 {
                let row = |part: Option<&Part<'_, R>>| part.and_then(Part::row);
                let pairs = places.iter().map(|at| (row(old.get(at)), row(new.get(at))));
                return Ok(pairs.filter(|(a, b)| a != b).collect());
            }
            let mut below: Vec<BoxFuture<'_, Result<Differences<R>, Error>>> = Vec::new();
            for at in places {
                let (old, new) = (old.get(&at).cloned(), new.get(&at).cloned());
                if Part::same_page(old.as_ref(), new.as_ref()) {
                    continue;
                }
                below.push(Box::pin(async move {
                    let (old, new) = futures::try_join!(self.open(old), self.open(new))?;
                    self.compare(old, new).await
                }));
            }
            let below = concurrent::all(below).await?;
            Ok(below.into_iter().flatten().collect())
        })
    }

    /// The rows of a page by address; a page below `top` is the only part, at address 0.
    fn split<'a>(&self, side: Side<'a, R>, top: u32) -> BTreeMap<u128, Part<'a, R>> {
        match side {
            None => BTreeMap::new(),
            Some((page, layout, level)) if level < top => {
                BTreeMap::from([(0, Part::Page(page, layout, level))])
            }
            Some((page, layout, level)) => page
                .addresses
                .iter()
                .zip(&page.rows)
                .map(|(&address, row)| (address, Part::Row(row.clone(), layout, level)))
                .collect(),
        }
    }

    async fn open<'a>(&self, part: Option<Part<'a, R>>) -> Result<Side<'a, R>, Error> {
        Ok(match part {
            None => None,
            Some(Part::Page(page, layout, level)) => Some((page, layout, level)),
            Some(Part::Row(row, layout, level)) => {
                let child = self.load_child(&row, layout, level).await?;
                Some((child, layout, level - 1))
            }
        })
    }
}

type Differences<R> = Vec<(Option<R>, Option<R>)>;

/// A page in one of two trees that are compared, with its layout and level.
type Side<'a, R> = Option<(Arc<Page<R>>, &'a Layout, u32)>;

/// What one of two trees has at an address.
#[derive(Clone)]
enum Part<'a, R> {
    /// A row of a page at this level.
    Row(R, &'a Layout, u32),
    /// A root page of a lower tree.
    Page(Arc<Page<R>>, &'a Layout, u32),
}

impl<R: PageRow> Part<'_, R> {
    fn row(&self) -> Option<R> {
        match self {
            Self::Row(row, _, _) => Some(row.clone()),
            Self::Page(..) => None,
        }
    }

    /// Whether both name the same page.
    fn same_page(a: Option<&Self>, b: Option<&Self>) -> bool {
        match (a, b) {
            (Some(Self::Row(a, ..)), Some(Self::Row(b, ..))) => {
                a.child().is_some() && a.child() == b.child()
            }
            _ => false,
        }
    }
}

/// Rows of equal coordinate side by side, without those that are equal.
fn pair_up<R: PageRow + PartialEq>(old: Vec<R>, new: Vec<R>, order: &Layout) -> Differences<R> {
    type Pair<R> = (Option<R>, Option<R>);
    let mut pairs: BTreeMap<(u128, Vec<u64>), Pair<R>> = BTreeMap::new();
    let key = |row: &R| (order.address(row.coordinate()), row.coordinate().to_vec());
    for row in old {
        let key = key(&row);
        pairs.entry(key).or_default().0 = Some(row);
    }
    for row in new {
        let key = key(&row);
        pairs.entry(key).or_default().1 = Some(row);
    }
    pairs.into_values().filter(|(a, b)| a != b).collect()
}

/// The part of `from_grid` past the end of `grid` along `axis`.
fn slab_beyond(axis: usize, grid: &[u64], from_grid: &[u64]) -> Result<Region, Error> {
    let mut start = vec![0; grid.len()];
    let mut lengths = from_grid.to_vec();
    start[axis] = grid[axis];
    lengths[axis] = from_grid[axis] - grid[axis];
    Ok(Region::new(start, lengths)?)
}

/// The rows of a page after changes, in address order.
fn merge<R: PageRow>(
    before: Option<&Page<R>>,
    changes: Vec<(u128, Option<R>)>,
    tally: &Tally,
) -> Vec<R> {
    let mut rows = Vec::new();
    let mut add = |before: Option<&R>, after: Option<R>| {
        tally.count(before, after.as_ref());
        rows.extend(after);
    };
    let mut changes = changes.into_iter().peekable();
    if let Some(page) = before {
        for (&address, row) in page.addresses.iter().zip(&page.rows) {
            while changes.peek().is_some_and(|change| change.0 < address) {
                add(None, changes.next().and_then(|change| change.1));
            }
            match changes.next_if(|change| change.0 == address) {
                Some((_, changed)) => add(Some(row), changed),
                None => add(Some(row), Some(row.clone())),
            }
        }
    }
    for (_, added) in changes {
        add(None, added);
    }
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
        let mut sorted: Vec<Addressed<ManifestRow>> = changes
            .iter()
            .map(|(at, version)| {
                (
                    layout.address(at),
                    version.map(|version| chunk(at, version)),
                )
            })
            .collect();
        sorted.sort_unstable_by_key(|(address, _)| *address);
        let uploads = Uploads::new(&pages.store);
        let update = Update::plain(layout, &uploads);
        let root = pages.update(root, &sorted, &update).await.unwrap();
        uploads.finish().await.unwrap();
        root
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
        let uploads = Uploads::new(&pages.store);
        pages
            .store_page(forged, rows, 1, 0, &layout, &uploads)
            .await
            .unwrap();
        uploads.finish().await.unwrap();
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
