//! Trees of groups: the members of one group, sorted by name.
//!
//! A row carries the member's `zarr.json` while it is small, so opening a group reads one object.
//! More than 1,024 members take several pages: consecutive runs of 1,024 rows, and rows above them,
//! until one page remains.
//!
//! Spec: `docs/format.md`, "Trees".

use std::sync::Arc;

use array::NodePath;
use array::hash::{self, Hash, Kind};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, RecordBatch, StringArray, UInt8Array, UInt64Array,
};
use arrow_schema::ArrowError;
use bytes::Bytes;
use futures::future::BoxFuture;
use moka::sync::Cache;

use crate::flights::Kept;
use crate::object::object_key;
use crate::page::push_field;
use crate::row_file::{self, MAX_ROWS};
use crate::store::Store;
use crate::uploads::Uploads;
use crate::{Error, concurrent};

/// Largest `zarr.json` kept inside its row, in bytes.
pub(crate) const MAX_INLINE_DOCUMENT_BYTES: usize = 4096;
/// 1,024^8 members: deeper trees are forged.
const MAX_LEVEL: u8 = 8;

/// Group or array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A group; its members are in a tree of their own.
    Group,
    /// An array; its chunks are in a manifest.
    Array,
}

/// The statistics tree of an array, and the hash of the metadata they assume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsRoot {
    /// Root page of the statistics tree.
    pub root: Hash,
    /// `H(statistics metadata, …)` of the array when they were computed.
    pub metadata: Hash,
}

/// A row of a tree: one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRow {
    /// Name in its group; `""` for the root group.
    pub name: String,
    /// Group or array.
    pub kind: NodeKind,
    /// `H(document, zarr.json)`.
    pub document: Hash,
    /// The `zarr.json` itself where it is small.
    pub inline_document: Option<Bytes>,
    /// A group's tree of members, or an array's manifest root.
    pub content: Hash,
    /// Bytes stored in all chunks at or below the node.
    pub stored_bytes: u64,
    /// An array's statistics, if it has any.
    pub statistics: Option<StatisticsRoot>,
}

impl TreeRow {
    /// The bytes that are hashed.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let kind = match self.kind {
            NodeKind::Group => 1,
            NodeKind::Array => 2,
        };
        let mut bytes = row_start(kind, 0, &self.name, &self.content, self.stored_bytes);
        push_field(&mut bytes, self.document.as_bytes());
        let statistics = self.statistics.as_ref();
        push_field(
            &mut bytes,
            statistics.map_or(&[], |s| s.root.as_bytes().as_slice()),
        );
        push_field(
            &mut bytes,
            statistics.map_or(&[], |s| s.metadata.as_bytes().as_slice()),
        );
        bytes
    }

    /// The row a node will have, but for its content, with this `zarr.json`.
    pub(crate) fn changed(
        path: &NodePath,
        kind: NodeKind,
        document: &Bytes,
        before: Option<&Self>,
    ) -> Self {
        Self {
            name: path.name().to_owned(),
            kind,
            document: hash::hash(Kind::Document, document),
            inline_document: Some(document.clone()),
            content: before.map_or_else(hash::empty, |row| row.content),
            stored_bytes: before.map_or(0, |row| row.stored_bytes),
            statistics: None,
        }
    }

    /// The tree whose only row this is.
    pub(crate) fn tree_id(&self) -> Hash {
        hash::hash(Kind::TreeRow, &self.encoded())
    }

    pub(crate) fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.inline_document.as_ref().map_or(0, Bytes::len)
    }
}

fn row_start(kind: u8, level: u8, name: &str, id: &Hash, length: u64) -> Vec<u8> {
    let mut bytes = vec![kind, level];
    push_field(&mut bytes, name.as_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes
}

/// A page of a tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TreePage {
    Leaf(Vec<TreeRow>),
    Inner { level: u8, rows: Vec<InnerRow> },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InnerRow {
    first: String,
    child: Hash,
    rows: u64,
}

impl TreePage {
    /// The bytes its rows are hashed as.
    fn encoded_rows(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Leaf(rows) => rows.iter().map(TreeRow::encoded).collect(),
            Self::Inner { level, rows } => rows
                .iter()
                .map(|row| row_start(0, *level, &row.first, &row.child, row.rows))
                .collect(),
        }
    }

    pub(crate) fn id(&self) -> Hash {
        let rows = self.encoded_rows();
        let leaves = rows.iter().map(|row| hash::hash(Kind::TreeRow, row));
        hash::mth(&leaves.collect::<Vec<Hash>>())
    }

    fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Leaf(rows) => rows.iter().map(|row| row.name.as_str()).collect(),
            Self::Inner { rows, .. } => rows.iter().map(|row| row.first.as_str()).collect(),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Leaf(rows) => rows.iter().map(TreeRow::size_bytes).sum(),
            Self::Inner { rows, .. } => rows
                .iter()
                .map(|row| size_of::<InnerRow>() + row.first.len())
                .sum(),
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, ArrowError> {
        let names = StringArray::from_iter_values(self.names());
        let mut columns: Vec<(&str, ArrayRef)> = vec![("name", Arc::new(names))];
        match self {
            Self::Inner { level, rows } => {
                let levels = UInt8Array::from_iter_values(rows.iter().map(|_| *level));
                columns.push(("level", Arc::new(levels)));
                let ids = rows.iter().map(|row| Some(row.child.as_bytes().as_slice()));
                columns.push(("id", row_file::fixed_column(ids, 32)?));
                let counts = UInt64Array::from_iter_values(rows.iter().map(|row| row.rows));
                columns.push(("rows", Arc::new(counts)));
            }
            Self::Leaf(rows) => {
                let levels = UInt8Array::from_iter_values(rows.iter().map(|_| 0));
                columns.push(("level", Arc::new(levels)));
                let kinds = UInt8Array::from_iter_values(rows.iter().map(|row| match row.kind {
                    NodeKind::Group => 1,
                    NodeKind::Array => 2,
                }));
                columns.push(("kind", Arc::new(kinds)));
                let ids = rows
                    .iter()
                    .map(|row| Some(row.content.as_bytes().as_slice()));
                columns.push(("id", row_file::fixed_column(ids, 32)?));
                let lengths =
                    UInt64Array::from_iter_values(rows.iter().map(|row| row.stored_bytes));
                columns.push(("length", Arc::new(lengths)));
                let documents = rows
                    .iter()
                    .map(|row| Some(row.document.as_bytes().as_slice()));
                columns.push(("document", row_file::fixed_column(documents, 32)?));
                let inline = rows.iter().map(|row| row.inline_document.as_deref());
                columns.push(("zarr_json", Arc::new(BinaryArray::from_iter(inline))));
                let part = |part: fn(&StatisticsRoot) -> &Hash| {
                    let part = move |row: &'_ TreeRow| row.statistics.as_ref().map(|s| *part(s));
                    let hashes: Vec<Option<Hash>> = rows.iter().map(part).collect();
                    let bytes = hashes
                        .iter()
                        .map(|h| h.as_ref().map(|h| h.as_bytes().as_slice()));
                    row_file::fixed_column(bytes, 32)
                };
                columns.push(("statistics", part(|s| &s.root)?));
                columns.push(("statistics_metadata", part(|s| &s.metadata)?));
            }
        }
        row_file::encode(columns)
    }

    pub(crate) fn decode(bytes: &[u8], id: &Hash) -> Result<Self, String> {
        let page = Self::of_file(bytes)?;
        if page.id() != *id {
            return Err("its rows do not match its name".into());
        }
        if !page.names().is_sorted_by(|a, b| a < b) {
            return Err("rows out of order".into());
        }
        Ok(page)
    }

    /// The page in a file, which may be another one than is looked for.
    pub(crate) fn of_file(bytes: &[u8]) -> Result<Self, String> {
        let batch = row_file::decode(bytes)?;
        let levels: &UInt8Array = row_file::column(&batch, "level", false)?;
        let level = levels.value(0);
        if level > MAX_LEVEL || levels.values().iter().any(|&other| other != level) {
            return Err("rows of no or of several levels".into());
        }
        if level == 0 {
            leaf_rows(&batch)
        } else {
            inner_rows(&batch, level)
        }
    }
}

fn leaf_rows(batch: &RecordBatch) -> Result<TreePage, String> {
    let names: &StringArray = row_file::column(batch, "name", false)?;
    let kinds: &UInt8Array = row_file::column(batch, "kind", false)?;
    let lengths: &UInt64Array = row_file::column(batch, "length", false)?;
    let inline: &BinaryArray = row_file::column(batch, "zarr_json", true)?;
    let ids = row_file::hash_column(batch, "id")?;
    let documents = row_file::hash_column(batch, "document")?;
    let statistics = row_file::hash_column(batch, "statistics")?;
    let metadata = row_file::hash_column(batch, "statistics_metadata")?;
    let mut rows = Vec::with_capacity(names.len());
    for at in 0..names.len() {
        let kind = match kinds.value(at) {
            1 => NodeKind::Group,
            2 => NodeKind::Array,
            other => return Err(format!("a row of kind {other}")),
        };
        let (Some(content), Some(document)) = (ids[at], documents[at]) else {
            return Err("a row without id or document".into());
        };
        let inline_document = inline
            .is_valid(at)
            .then(|| Bytes::copy_from_slice(inline.value(at)));
        if inline_document
            .as_ref()
            .is_some_and(|json| hash::hash(Kind::Document, json) != document)
        {
            return Err("a zarr.json that does not match its hash".into());
        }
        let statistics = match (statistics[at], metadata[at]) {
            (Some(root), Some(metadata)) => Some(StatisticsRoot { root, metadata }),
            (None, None) => None,
            _ => return Err("half a statistics root".into()),
        };
        rows.push(TreeRow {
            name: names.value(at).to_owned(),
            kind,
            document,
            inline_document,
            content,
            stored_bytes: lengths.value(at),
            statistics,
        });
    }
    Ok(TreePage::Leaf(rows))
}

fn inner_rows(batch: &RecordBatch, level: u8) -> Result<TreePage, String> {
    let names: &StringArray = row_file::column(batch, "name", false)?;
    let counts: &UInt64Array = row_file::column(batch, "rows", false)?;
    let ids = row_file::hash_column(batch, "id")?;
    let mut rows = Vec::with_capacity(names.len());
    for (at, id) in ids.into_iter().enumerate() {
        let child = id.ok_or("a row without id")?;
        rows.push(InnerRow {
            first: names.value(at).to_owned(),
            child,
            rows: counts.value(at),
        });
    }
    Ok(TreePage::Inner { level, rows })
}

/// Reads and writes the trees of groups.
#[derive(Clone, Debug)]
pub(crate) struct Trees {
    pub(crate) store: Store,
    pub(crate) cache: Kept<Hash, Arc<TreePage>>,
}

impl Trees {
    pub(crate) fn new(store: Store, capacity_bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|_, page: &Arc<TreePage>| u32::try_from(page.size_bytes()).unwrap_or(u32::MAX))
            .build();
        Self {
            store,
            cache: Kept::new(cache),
        }
    }

    async fn load(&self, id: Hash) -> Result<Arc<TreePage>, Error> {
        let read = async {
            let key = object_key(&id);
            let bytes = self.store.get_existing(&key).await?;
            let page = TreePage::decode(&bytes, &id);
            Ok(Arc::new(
                page.map_err(|reason| Error::corrupt(&key, reason))?,
            ))
        };
        self.cache.get_or(&id, read).await
    }

    /// The page under `row` of an inner page at `level`, checked to belong there.
    async fn load_child(&self, row: &InnerRow, level: u8) -> Result<Arc<TreePage>, Error> {
        let page = self.load(row.child).await?;
        let names = page.names();
        if page.level() + 1 != level
            || names.first() != Some(&row.first.as_str())
            || names.len() as u64 != row.rows
        {
            return Err(Error::corrupt(
                object_key(&row.child),
                "it is not the page its parent names",
            ));
        }
        Ok(page)
    }

    /// The member `name` of the group with tree `id`.
    pub(crate) async fn member(&self, id: Hash, name: &str) -> Result<Option<TreeRow>, Error> {
        if id == hash::empty() {
            return Ok(None);
        }
        let mut page = self.load(id).await?;
        loop {
            let child = match &*page {
                TreePage::Leaf(rows) => {
                    let at = rows.binary_search_by(|row| row.name.as_str().cmp(name));
                    return Ok(at.ok().map(|at| rows[at].clone()));
                }
                TreePage::Inner { level, rows } => {
                    let after = rows.partition_point(|row| row.first.as_str() <= name);
                    let Some(row) = after.checked_sub(1).map(|at| &rows[at]) else {
                        return Ok(None);
                    };
                    self.load_child(row, *level).await?
                }
            };
            page = child;
        }
    }

    /// The pages of tree `id` on the way to the member `name`, each as the bytes its rows are
    /// hashed as and the place of the row on that way; and the member's row.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such member.
    pub(crate) async fn pages_to(
        &self,
        id: Hash,
        name: &str,
    ) -> Result<(Vec<(Vec<Vec<u8>>, usize)>, TreeRow), Error> {
        let none = || Error::not_found("group or array", name, []);
        if id == hash::empty() {
            return Err(none());
        }
        let mut page = self.load(id).await?;
        let mut pages = Vec::new();
        loop {
            let child = match &*page {
                TreePage::Leaf(rows) => {
                    let at = rows.binary_search_by(|row| row.name.as_str().cmp(name));
                    let at = at.map_err(|_| none())?;
                    pages.push((page.encoded_rows(), at));
                    return Ok((pages, rows[at].clone()));
                }
                TreePage::Inner { level, rows } => {
                    let after = rows.partition_point(|row| row.first.as_str() <= name);
                    let at = after.checked_sub(1).ok_or_else(none)?;
                    pages.push((page.encoded_rows(), at));
                    self.load_child(&rows[at], *level).await?
                }
            };
            page = child;
        }
    }

    /// All members of the group with tree `id`, sorted by name.
    pub(crate) async fn members(&self, id: Hash) -> Result<Vec<TreeRow>, Error> {
        if id == hash::empty() {
            return Ok(Vec::new());
        }
        self.members_of_page(self.load(id).await?).await
    }

    fn members_of_page(&self, page: Arc<TreePage>) -> BoxFuture<'_, Result<Vec<TreeRow>, Error>> {
        Box::pin(async move {
            match &*page {
                TreePage::Leaf(rows) => Ok(rows.clone()),
                TreePage::Inner { level, rows } => {
                    let mut below: Vec<BoxFuture<'_, Result<Vec<TreeRow>, Error>>> = Vec::new();
                    for row in rows {
                        below.push(Box::pin(async move {
                            self.members_of_page(self.load_child(row, *level).await?)
                                .await
                        }));
                    }
                    let below = concurrent::all(below).await?;
                    Ok(below.into_iter().flatten().collect())
                }
            }
        })
    }

    /// The pages of tree `id`, parents first; those that cannot be read with their error.
    pub(crate) async fn pages(&self, id: Hash) -> Vec<(Hash, Result<(), Error>)> {
        let mut visited = Vec::new();
        let mut open = if id == hash::empty() {
            vec![]
        } else {
            vec![id]
        };
        while let Some(id) = open.pop() {
            match self.load(id).await {
                Ok(page) => {
                    if let TreePage::Inner { rows, .. } = &*page {
                        open.extend(rows.iter().map(|row| row.child));
                    }
                    visited.push((id, Ok(())));
                }
                Err(error) => visited.push((id, Err(error))),
            }
        }
        visited
    }

    /// Starts storing the tree of a group with these members, sorted by name; gives its id.
    pub(crate) async fn write(&self, rows: Vec<TreeRow>, uploads: &Uploads) -> Result<Hash, Error> {
        debug_assert!(rows.is_sorted_by(|a, b| a.name < b.name));
        if rows.is_empty() {
            return Ok(hash::empty());
        }
        let mut pages: Vec<TreePage> = rows
            .chunks(MAX_ROWS)
            .map(|rows| TreePage::Leaf(rows.to_vec()))
            .collect();
        let mut level = 0;
        loop {
            let mut above = Vec::with_capacity(pages.len());
            for page in pages {
                let names = page.names();
                let (first, rows) = (names.first().copied().unwrap_or_default(), names.len());
                let (first, rows) = (first.to_owned(), rows as u64);
                let child = self.put(page, uploads).await?;
                above.push(InnerRow { first, child, rows });
            }
            if let [only] = above.as_slice() {
                return Ok(only.child);
            }
            level += 1;
            let inner = |rows: &[InnerRow]| TreePage::Inner {
                level,
                rows: rows.to_vec(),
            };
            pages = above.chunks(MAX_ROWS).map(inner).collect();
        }
    }

    /// Starts storing a page, which can be read from now on.
    async fn put(&self, page: TreePage, uploads: &Uploads) -> Result<Hash, Error> {
        let id = page.id();
        let bytes = page
            .encode()
            .map_err(|error| Error::invalid("tree", error.to_string()))?;
        self.cache.insert(id, Arc::new(page));
        // The same rows may have been compressed by another version of the compressor.
        let check = move |found: &Bytes| TreePage::decode(found, &id).map(drop);
        uploads.equivalent(&id, bytes.into(), check).await?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc as StdArc;

    use object_store::memory::InMemory;

    use super::*;

    fn row(name: &str) -> TreeRow {
        let json = Bytes::from(format!("{{\"name\":\"{name}\"}}"));
        TreeRow {
            name: name.to_owned(),
            kind: NodeKind::Group,
            document: hash::hash(Kind::Document, &json),
            inline_document: Some(json),
            content: hash::empty(),
            stored_bytes: 7,
            statistics: None,
        }
    }

    #[tokio::test]
    async fn groups_of_any_size_give_back_their_members() {
        let store = Store::from_objects(StdArc::new(InMemory::new()), "memory");
        for count in [0, 1, 1024, 1025, 3000] {
            let trees = Trees::new(store.clone(), 1 << 20);
            let rows: Vec<TreeRow> = (0..count).map(|i| row(&format!("n{i:05}"))).collect();
            let uploads = Uploads::new(&store);
            let id = trees.write(rows.clone(), &uploads).await.unwrap();
            uploads.finish().await.unwrap();
            assert_eq!(trees.members(id).await.unwrap(), rows);
            for probe in rows.iter().step_by(97) {
                assert_eq!(
                    trees.member(id, &probe.name).await.unwrap().as_ref(),
                    Some(probe)
                );
            }
            assert_eq!(trees.member(id, "a").await.unwrap(), None);
            assert_eq!(trees.member(id, "z").await.unwrap(), None);
        }
    }

    #[test]
    fn any_flip_in_a_page_is_refused() {
        let page = TreePage::Leaf(vec![row("a"), row("b")]);
        let bytes = page.encode().unwrap();
        assert_eq!(TreePage::decode(&bytes, &page.id()), Ok(page.clone()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(TreePage::decode(&flipped, &page.id()).is_err(), "byte {at}");
        }
        assert!(TreePage::decode(&bytes, &Hash::ZERO).is_err());
    }
}
