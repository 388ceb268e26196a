//! One commit, to read: groups, arrays and the rows of their chunks. Immutable, so cached freely.

use std::sync::Arc;

use array::hash::{self, Hash, Kind};
use array::{ArrayMetadata, ChunkIndex, GroupMetadata, NodeMetadata, NodePath, Region, Statistics};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use serde_json::{Map, Value};

use crate::changes::ArrayChange;
use crate::commit::Commit;
use crate::flights::Kept;
use crate::layout::Layout;
use crate::object::{object_key, shard_key};
use crate::page::{ChunkRow, Location, ManifestRow};
use crate::repository::Repository;
use crate::tree::{MAX_INLINE_DOCUMENT_BYTES, NodeKind, StatisticsRoot, TreeRow};
use crate::uploads::Uploads;
use crate::{CommitId, Error};

/// Documents read at once.
const CONCURRENT_DOCUMENTS: usize = 32;

/// A parsed `zarr.json`.
#[derive(Debug)]
pub(crate) struct Document {
    bytes: Bytes,
    metadata: NodeMetadata,
}

impl Document {
    fn new(metadata: NodeMetadata) -> Self {
        Self {
            bytes: metadata.canonical_bytes().into(),
            metadata,
        }
    }
}

pub(crate) type DocumentCache = Kept<Hash, Arc<Document>>;

pub(crate) fn document_cache(capacity_bytes: u64) -> DocumentCache {
    // Parsed, a document takes a few times its text.
    let weight =
        |_: &Hash, document: &Arc<Document>| (document.bytes.len() as u32).saturating_mul(4);
    let cache = Cache::builder()
        .max_capacity(capacity_bytes)
        .weigher(weight);
    Kept::new(cache.build())
}

/// A group or an array at one commit.
#[derive(Clone, Debug)]
pub enum Node {
    /// A group.
    Group(GroupNode),
    /// An array.
    Array(ArrayNode),
}

impl Node {
    /// The group that changes make of the one with `row`.
    pub(crate) fn changed_group(
        path: &NodePath,
        row: Option<&TreeRow>,
        metadata: NodeMetadata,
    ) -> Result<Self, Error> {
        let document = Document::new(metadata);
        let row = TreeRow::changed(path, NodeKind::Group, &document.bytes, row);
        let NodeMetadata::Group(metadata) = &document.metadata else {
            return Err(Error::invalid("group", "its metadata is that of an array"));
        };
        Ok(Self::Group(GroupNode {
            path: path.clone(),
            row,
            metadata: Arc::new(metadata.clone()),
            document: Arc::new(document),
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &NodePath {
        match self {
            Self::Group(group) => &group.path,
            Self::Array(array) => &array.path,
        }
    }

    /// Its `zarr.json`, as stored.
    pub fn document(&self) -> &Bytes {
        match self {
            Self::Group(group) => &group.document.bytes,
            Self::Array(array) => array.document(),
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &NodeMetadata {
        match self {
            Self::Group(group) => &group.document.metadata,
            Self::Array(array) => &array.document.metadata,
        }
    }

    /// Its row in the tree.
    pub fn row(&self) -> &TreeRow {
        match self {
            Self::Group(group) => &group.row,
            Self::Array(array) => &array.row,
        }
    }
}

/// A group at one commit.
#[derive(Clone, Debug)]
pub struct GroupNode {
    path: NodePath,
    row: TreeRow,
    document: Arc<Document>,
    metadata: Arc<GroupMetadata>,
}

impl GroupNode {
    /// Where it is.
    pub fn path(&self) -> &NodePath {
        &self.path
    }

    /// Its metadata.
    pub fn metadata(&self) -> &GroupMetadata {
        &self.metadata
    }
}

/// An array at one commit.
#[derive(Clone, Debug)]
pub struct ArrayNode {
    repository: Repository,
    path: NodePath,
    row: TreeRow,
    document: Arc<Document>,
    metadata: Arc<ArrayMetadata>,
    layout: Layout,
    /// The changes of a transaction, over chunks that are stored in this part of the row's manifest
    /// under its layout.
    overlay: Option<(Arc<ArrayChange>, Layout, Region)>,
}

impl ArrayNode {
    /// The array that `change` makes of the one with `row`.
    pub(crate) async fn changed(
        repository: &Repository,
        path: &NodePath,
        row: Option<TreeRow>,
        change: &Arc<ArrayChange>,
    ) -> Result<Self, Error> {
        let metadata = change.metadata.clone();
        let stored_grid = match &row {
            Some(row) => repository.array_metadata(row).await?.grid().grid_shape(),
            None => vec![0; metadata.dimensions()],
        };
        let kept = change.kept_grid(&stored_grid);
        let stored_layout = Layout::new(&stored_grid)?;
        let document = Document::new(NodeMetadata::Array((*metadata).clone()));
        let row = TreeRow::changed(path, NodeKind::Array, &document.bytes, row.as_ref());
        Ok(Self {
            repository: repository.clone(),
            path: path.clone(),
            layout: change.chunks.layout().clone(),
            row,
            document: Arc::new(document),
            metadata,
            overlay: Some((change.clone(), stored_layout, Region::whole(&kept))),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &NodePath {
        &self.path
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Arc<ArrayMetadata> {
        &self.metadata
    }

    /// The repository it is in.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn row(&self) -> &TreeRow {
        &self.row
    }

    /// Its `zarr.json`, as stored.
    pub fn document(&self) -> &Bytes {
        &self.document.bytes
    }

    /// Hash of its `zarr.json`.
    pub fn document_hash(&self) -> Hash {
        self.row.document
    }

    /// Root page of its manifest: equal for equal stored content.
    pub fn manifest_root(&self) -> Hash {
        self.row.content
    }

    /// Bytes stored in its chunks.
    pub fn stored_bytes(&self) -> u64 {
        self.row.stored_bytes
    }

    /// The row of the chunk at `index`; `None` if all of it is fill value.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `index` is not in the chunk grid; [`Error::Corrupt`] or
    /// [`Error::Missing`] if a page is not what the tree names.
    pub async fn chunk(&self, index: &ChunkIndex) -> Result<Option<ChunkRow>, Error> {
        if !self.metadata.grid().contains(index) {
            return Err(Error::invalid(
                "chunk",
                format!("{index} is outside the chunk grid"),
            ));
        }
        let pages = self.repository.manifests();
        let mut layout = &self.layout;
        if let Some((change, stored, kept)) = &self.overlay {
            if let Some(changed) = change.chunks.get(index) {
                return Ok(changed.row(index.clone()));
            }
            let at = Region::new(index.as_slice().to_vec(), vec![1; kept.shape().len()])?;
            if !kept.contains(&at) {
                return Ok(None);
            }
            layout = stored;
        }
        let row = pages
            .row(self.row.content, layout, index.as_slice())
            .await?;
        Ok(row.and_then(chunk_row))
    }

    /// The rows of all stored chunks in `region` of the chunk grid, in address order. Chunks
    /// without a row are all fill value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if a page is not what the tree names.
    pub async fn chunks(&self, region: &Region) -> Result<Vec<ChunkRow>, Error> {
        let grid = Region::whole(&self.metadata.grid().grid_shape());
        let region = region.intersect(&grid);
        let pages = self.repository.manifests();
        let Some((change, stored, kept)) = &self.overlay else {
            let rows = pages.rows(self.row.content, &self.layout, &region).await?;
            return Ok(rows.into_iter().filter_map(chunk_row).collect());
        };
        let rows = pages
            .rows(self.row.content, stored, &region.intersect(kept))
            .await?;
        let mut found: Vec<ChunkRow> = rows
            .into_iter()
            .filter_map(chunk_row)
            .filter(|row| !change.chunks.contains(&row.index))
            .collect();
        let one = vec![1; region.shape().len()];
        for (index, changed) in change.chunks.iter() {
            let at = Region::new(index.as_slice().to_vec(), one.clone())?;
            if region.contains(&at) {
                found.extend(changed.row(index));
            }
        }
        found.sort_by_key(|row| self.layout.address(row.index.as_slice()));
        Ok(found)
    }

    /// Positions of stored chunks in `region` of the chunk grid, in no order, at most `most`.
    ///
    /// What it holds in memory is bounded by `most`, whatever the array has.
    ///
    /// # Errors
    /// As [`ArrayNode::chunks`].
    pub async fn some_chunks(
        &self,
        region: &Region,
        most: usize,
    ) -> Result<Vec<ChunkIndex>, Error> {
        let region = region.intersect(&Region::whole(&self.metadata.grid().grid_shape()));
        let pages = self.repository.manifests();
        let (mut found, layout, kept, changes) = match &self.overlay {
            None => (Vec::new(), &self.layout, region, None),
            Some((change, stored, kept)) => {
                let found = change.chunks.some_present(&region, most);
                (found, stored, region.intersect(kept), Some(&change.chunks))
            }
        };
        let is_kept = |row: &ManifestRow| match (row, changes) {
            (ManifestRow::Chunk(row), Some(changes)) => !changes.contains(&row.index),
            _ => true,
        };
        let left = most - found.len();
        let rows = pages
            .some_rows(self.row.content, layout, &kept, left, is_kept)
            .await?;
        found.extend(rows.into_iter().filter_map(chunk_row).map(|row| row.index));
        Ok(found)
    }

    /// The bytes of a chunk, or of `range` of it. Not verified: that needs its codecs.
    ///
    /// # Errors
    /// [`Error::Missing`] if the object is gone; [`Error::Corrupt`] if it is shorter than its row
    /// says; as [`Externals::get_range`](crate::Externals::get_range) if it lies outside the
    /// repository.
    pub async fn chunk_bytes(
        &self,
        row: &ChunkRow,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, Error> {
        self.repository.chunk_bytes(row, range).await
    }

    /// `range` of the file elsewhere that a chunk is in. Not verified.
    ///
    /// # Errors
    /// As [`Externals::get_range`](crate::Externals::get_range); [`Error::Invalid`] if the chunk is in
    /// the repository.
    pub async fn original_bytes(
        &self,
        row: &ChunkRow,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, Error> {
        let Location::External { url, etag, .. } = &row.location else {
            return Err(Error::invalid("chunk", "it is in the repository"));
        };
        let externals = self.repository.store().externals();
        externals.get_range(url, etag, range).await
    }

    /// What messages call the object a chunk is in.
    pub fn chunk_object(&self, row: &ChunkRow) -> String {
        match &row.location {
            Location::Stored => shard_key(&row.id),
            Location::Inline(_) => format!("{} chunk {}", self.path, row.index),
            Location::External { url, offset, .. } => {
                let end = offset.saturating_add(row.length);
                format!("{url} bytes {offset}-{end}")
            }
        }
    }

    /// The statistics of every stored chunk in `region` of the grid, if the array has statistics
    /// that assume its present metadata.
    ///
    /// # Errors
    /// As [`ArrayNode::chunks`].
    pub async fn statistics(
        &self,
        region: &Region,
    ) -> Result<Option<Vec<(ChunkIndex, Statistics)>>, Error> {
        let Some(StatisticsRoot { root, .. }) = self.current_statistics() else {
            return Ok(None);
        };
        let region = region.intersect(&Region::whole(&self.metadata.grid().grid_shape()));
        let rows = self
            .repository
            .statistics()
            .rows(root, &self.layout, &region)
            .await?;
        Ok(Some(
            rows.into_iter()
                .map(|r| (ChunkIndex::new(r.coordinate), r.statistics))
                .collect(),
        ))
    }

    /// The statistics of all stored chunks together, from the root page alone.
    ///
    /// # Errors
    /// As [`ArrayNode::chunks`].
    pub async fn total_statistics(&self) -> Result<Option<Statistics>, Error> {
        let Some(StatisticsRoot { root, .. }) = self.current_statistics() else {
            return Ok(None);
        };
        let rows = self
            .repository
            .statistics()
            .root_rows(root, &self.layout)
            .await?;
        let rows: Vec<Statistics> = rows.iter().map(|row| row.statistics).collect();
        Ok(Some(Statistics::merge_all(&rows)))
    }

    /// The statistics of one stored chunk, if the array has statistics that assume its present
    /// metadata.
    ///
    /// # Errors
    /// As [`ArrayNode::chunk`].
    pub async fn chunk_statistics(&self, index: &ChunkIndex) -> Result<Option<Statistics>, Error> {
        let Some(StatisticsRoot { root, .. }) = self.current_statistics() else {
            return Ok(None);
        };
        let pages = self.repository.statistics();
        let row = pages.row(root, &self.layout, index.as_slice()).await?;
        Ok(row.map(|row| row.statistics))
    }

    /// Whether it has statistics that assume its present metadata.
    pub fn has_current_statistics(&self) -> bool {
        self.current_statistics().is_some()
    }

    fn current_statistics(&self) -> Option<StatisticsRoot> {
        // Those of changed chunks are known only once the tree is built.
        let stored = self.row.statistics.filter(|_| self.overlay.is_none());
        stored.filter(|s| s.metadata == statistics_metadata(&self.metadata))
    }

    pub(crate) fn current_statistics_root(&self) -> Option<Hash> {
        self.current_statistics().map(|statistics| statistics.root)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The root of its statistics as its row has it, and the metadata they assume.
    pub fn statistics_root(&self) -> Option<StatisticsRoot> {
        self.row.statistics
    }
}

pub(crate) fn chunk_row(row: ManifestRow) -> Option<ChunkRow> {
    match row {
        ManifestRow::Chunk(row) => Some(row),
        ManifestRow::Inner { .. } => None,
    }
}

/// The attributes that say what stored values mean: which are missing, and how they are packed.
pub(crate) const MEANING_ATTRIBUTES: [&str; 8] = [
    "_FillValue",
    "_Unsigned",
    "add_offset",
    "missing_value",
    "scale_factor",
    "valid_max",
    "valid_min",
    "valid_range",
];

/// The hash of the metadata statistics depend on: where it changes, they are void.
pub fn statistics_metadata(metadata: &ArrayMetadata) -> Hash {
    let attributes: Map<String, Value> = MEANING_ATTRIBUTES
        .iter()
        .filter_map(|&name| Some((name.to_owned(), metadata.attributes.get(name)?.clone())))
        .collect();
    let document = serde_json::json!({
        "attributes": attributes,
        "data_type": metadata.data_type.to_json(),
        "fill_value": metadata.fill_value.to_json(&metadata.data_type),
        "shape": metadata.shape(),
    });
    hash::hash(
        Kind::StatisticsMetadata,
        &array::json::canonical_bytes(&document),
    )
}

/// One commit, to read. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    repository: Repository,
    id: CommitId,
    commit: Arc<Commit>,
}

impl Snapshot {
    pub(crate) fn new(repository: Repository, id: CommitId, commit: Arc<Commit>) -> Self {
        Self {
            repository,
            id,
            commit,
        }
    }

    /// An empty root group, by `author`.
    pub(crate) fn first_commit(author: &str, write_id: String) -> Commit {
        let document = Bytes::from(NodeMetadata::Group(GroupMetadata::default()).canonical_bytes());
        Commit {
            parents: Vec::new(),
            root: TreeRow {
                name: String::new(),
                kind: NodeKind::Group,
                document: hash::hash(Kind::Document, &document),
                inline_document: Some(document),
                content: hash::empty(),
                stored_bytes: 0,
                statistics: None,
            },
            time: DateTime::from_timestamp_micros(Utc::now().timestamp_micros())
                .unwrap_or_default(),
            author: author.to_owned(),
            message: "repository created".to_owned(),
            properties: Map::new(),
            deleted: Vec::new(),
            write_id,
        }
    }

    /// The commit's id.
    pub fn id(&self) -> CommitId {
        self.id
    }

    /// The commit.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The repository it is in.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The row of the node at `path`; `None` if there is none.
    pub(crate) async fn row(&self, path: &NodePath) -> Result<Option<TreeRow>, Error> {
        self.row_below(self.commit.root.clone(), path.names()).await
    }

    /// The row of the node that `names` lead to from the node with `row`; `None` if there is none.
    pub(crate) async fn row_below(
        &self,
        mut row: TreeRow,
        names: impl Iterator<Item = &str>,
    ) -> Result<Option<TreeRow>, Error> {
        for name in names {
            if row.kind != NodeKind::Group {
                return Ok(None);
            }
            match self.repository.trees().member(row.content, name).await? {
                Some(member) => row = member,
                None => return Ok(None),
            }
        }
        Ok(Some(row))
    }

    /// The node at `path`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Missing`] if a tree or document is not what it should be.
    pub async fn find(&self, path: &NodePath) -> Result<Option<Node>, Error> {
        match self.row(path).await? {
            Some(row) => Ok(Some(self.open(path.clone(), row).await?)),
            None => Ok(None),
        }
    }

    /// The node at `path`.
    ///
    /// # Errors
    /// [`Error::NotFound`] with names that look alike if there is none; else as
    /// [`Snapshot::find`].
    pub async fn node(&self, path: &NodePath) -> Result<Node, Error> {
        if let Some(node) = self.find(path).await? {
            return Ok(node);
        }
        let mut known: Vec<String> = Vec::new();
        if let Some(parent) = path.parent()
            && let Some(Node::Group(group)) = self.find(&parent).await?
        {
            let members = self.repository.trees().members(group.row.content).await?;
            known.extend(
                members
                    .into_iter()
                    .filter_map(|row| Some(parent.join(&row.name).ok()?.to_string())),
            );
        }
        Err(Error::not_found(
            "group or array",
            &path.to_string(),
            known.iter().map(String::as_str),
        ))
    }

    /// The array at `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is a group; else as [`Snapshot::node`].
    pub async fn array(&self, path: &NodePath) -> Result<ArrayNode, Error> {
        match self.node(path).await? {
            Node::Array(array) => Ok(array),
            Node::Group(_) => Err(Error::invalid(
                "path",
                format!("{path} is a group, not an array"),
            )),
        }
    }

    /// The members of a group, sorted by name.
    ///
    /// # Errors
    /// As [`Snapshot::find`].
    pub async fn members(&self, group: &GroupNode) -> Result<Vec<Node>, Error> {
        let paths = self.member_paths(group).await?;
        let rows = self.repository.trees().members(group.row.content).await?;
        futures::stream::iter(paths.into_iter().zip(rows))
            .map(|(path, row)| self.open(path, row))
            .buffered(CONCURRENT_DOCUMENTS)
            .try_collect()
            .await
    }

    /// Paths of the members of a group, sorted by name.
    ///
    /// # Errors
    /// As [`Snapshot::find`].
    pub async fn member_paths(&self, group: &GroupNode) -> Result<Vec<NodePath>, Error> {
        let rows = self.repository.trees().members(group.row.content).await?;
        let key = object_key(&group.row.content);
        rows.iter()
            .map(|row| {
                group
                    .path
                    .join(&row.name)
                    .map_err(|error| Error::corrupt(&key, error.to_string()))
            })
            .collect()
    }

    /// `node` and everything below it, parents first, members sorted by name.
    ///
    /// # Errors
    /// As [`Snapshot::find`].
    pub async fn walk(&self, node: Node) -> Result<Vec<Node>, Error> {
        let mut found = Vec::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if let Node::Group(group) = &node {
                let mut members = self.members(group).await?;
                members.reverse();
                open.extend(members);
            }
            found.push(node);
        }
        Ok(found)
    }

    pub(crate) async fn open(&self, path: NodePath, row: TreeRow) -> Result<Node, Error> {
        let document = self.repository.document(&row).await?;
        let corrupt = |reason: &str| Error::corrupt(object_key(&row.document), reason);
        match (&document.metadata, row.kind) {
            (NodeMetadata::Group(metadata), NodeKind::Group) => Ok(Node::Group(GroupNode {
                path,
                metadata: Arc::new(metadata.clone()),
                row,
                document,
            })),
            (NodeMetadata::Array(metadata), NodeKind::Array) => Ok(Node::Array(ArrayNode {
                repository: self.repository.clone(),
                path,
                metadata: Arc::new(metadata.clone()),
                layout: Layout::new(&metadata.grid().grid_shape())?,
                row,
                document,
                overlay: None,
            })),
            _ => Err(corrupt(
                "its zarr.json is of another kind of node than its row",
            )),
        }
    }
}

impl Repository {
    /// The document of the node with this row.
    async fn document(&self, row: &TreeRow) -> Result<Arc<Document>, Error> {
        let read = self.read_document(row);
        self.documents().get_or(&row.document, read).await
    }

    async fn read_document(&self, row: &TreeRow) -> Result<Arc<Document>, Error> {
        let key = object_key(&row.document);
        let bytes = match &row.inline_document {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = self.store().get_existing(&key).await?;
                if hash::hash(Kind::Document, &bytes) != row.document {
                    return Err(Error::corrupt(&key, "its bytes do not match its name"));
                }
                bytes
            }
        };
        let metadata =
            NodeMetadata::parse(&bytes).map_err(|error| Error::corrupt(&key, error.to_string()))?;
        Ok(Arc::new(Document { bytes, metadata }))
    }

    /// The metadata of the node with this row.
    pub(crate) async fn node_metadata(&self, row: &TreeRow) -> Result<NodeMetadata, Error> {
        Ok(self.document(row).await?.metadata.clone())
    }

    /// The metadata of the array with this row.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not that of an array.
    pub(crate) async fn array_metadata(&self, row: &TreeRow) -> Result<Arc<ArrayMetadata>, Error> {
        match &self.document(row).await?.metadata {
            NodeMetadata::Array(metadata) => Ok(Arc::new(metadata.clone())),
            NodeMetadata::Group(_) => {
                let reason = "its zarr.json is of another kind of node than its row";
                Err(Error::corrupt(object_key(&row.document), reason))
            }
        }
    }
}

/// The row of a node with this `zarr.json`; starts storing the document if it does not fit the row.
pub(crate) async fn row_with_document(
    uploads: &Uploads,
    name: &str,
    metadata: &NodeMetadata,
    content: Hash,
    stored_bytes: u64,
    statistics: Option<StatisticsRoot>,
) -> Result<TreeRow, Error> {
    let bytes = Bytes::from(metadata.canonical_bytes());
    let document = hash::hash(Kind::Document, &bytes);
    let inline_document = if bytes.len() <= MAX_INLINE_DOCUMENT_BYTES {
        Some(bytes)
    } else {
        uploads.object(&document, bytes).await?;
        None
    };
    let kind = match metadata {
        NodeMetadata::Group(_) => NodeKind::Group,
        NodeMetadata::Array(_) => NodeKind::Array,
    };
    Ok(TreeRow {
        name: name.to_owned(),
        kind,
        document,
        inline_document,
        content,
        stored_bytes,
        statistics,
    })
}
