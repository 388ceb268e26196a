//! Pages of a radix tree over a chunk grid: up to 1,024 rows, named by the Merkle tree hash of them.
//!
//! Two trees use them: the manifest (which object holds which chunk) and the statistics beside it.
//!
//! Spec: `docs/format.md`, "Manifest" and "Statistics".

use std::sync::Arc;

use array::hash::{self, Hash, Kind};
use array::{ChunkIndex, ChunkKind, Statistics};
use arrow_array::{
    Array as _, ArrayRef, BinaryArray, FixedSizeBinaryArray, RecordBatch, StringArray, UInt8Array,
    UInt64Array,
};
use arrow_schema::ArrowError;
use bytes::Bytes;

use crate::layout::{LEVEL_BITS, Layout};
use crate::row_file;

/// Largest chunk kept inside its row, in bytes.
pub(crate) const MAX_INLINE_BYTES: u64 = 512;
/// Most bytes of chunks kept inside one page.
pub(crate) const MAX_PAGE_INLINE_BYTES: u64 = 64 << 10;

/// Where the bytes of a chunk are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the repository, under `shards/`.
    Stored,
    /// In the row itself.
    Inline(Bytes),
    /// In a file outside the repository.
    External {
        /// Where that file is.
        url: String,
        /// First byte of the chunk in it.
        offset: u64,
        /// The file's entity tag when it was imported.
        etag: String,
    },
}

/// A row of the manifest: one stored chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Position in the chunk grid.
    pub index: ChunkIndex,
    /// How it is verified.
    pub kind: ChunkKind,
    /// What its bytes are verified against.
    pub id: Hash,
    /// Number of bytes.
    pub length: u64,
    /// Where its bytes are.
    pub location: Location,
}

/// A row of a manifest page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestRow {
    Chunk(ChunkRow),
    Inner {
        origin: Vec<u64>,
        child: Hash,
        rows: u64,
    },
}

/// A row of a statistics page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StatisticsRow {
    pub(crate) coordinate: Vec<u64>,
    /// The page below; `None` for the statistics of one stored chunk.
    pub(crate) child: Option<(Hash, u64)>,
    pub(crate) statistics: Statistics,
}

/// What the tree needs to know about its rows.
pub(crate) trait PageRow: Clone + Send + Sync + 'static {
    /// What the rows are hashed as.
    const HASH_KIND: Kind;

    /// Position of a chunk, or first position below an inner row.
    fn coordinate(&self) -> &[u64];

    /// The page below an inner row and its number of rows.
    fn child(&self) -> Option<(Hash, u64)>;

    /// An inner row over `rows`, which are all rows of page `child`.
    fn inner(origin: Vec<u64>, child: Hash, rows: &[Self]) -> Self;

    /// The bytes that are hashed.
    fn encoded(&self, level: u32) -> Vec<u8>;

    /// The columns of a page beside its coordinates.
    fn columns(rows: &[Self], level: u32) -> Result<Vec<(&'static str, ArrayRef)>, ArrowError>;

    /// Rows from the columns [`PageRow::columns`] wrote; hostile.
    fn from_columns(
        batch: &RecordBatch,
        coordinates: Vec<Vec<u64>>,
        level: u32,
    ) -> Result<Vec<Self>, String>;

    /// Bytes of the chunk it describes.
    fn stored_bytes(&self) -> u64;

    /// Memory a row takes beside its own size.
    fn extra_bytes(&self) -> usize;
}

/// A page in memory: rows in address order.
#[derive(Debug)]
pub(crate) struct Page<R> {
    pub(crate) rows: Vec<R>,
    pub(crate) addresses: Vec<u128>,
    /// What its row in the page above is hashed as.
    inner: Vec<u8>,
}

impl<R: PageRow> Page<R> {
    /// The page `id` at `level` that covers `page`, with these rows.
    ///
    /// # Errors
    /// Why they cannot be its rows.
    pub(crate) fn new(
        rows: Vec<R>,
        id: Hash,
        layout: &Layout,
        level: u32,
        page: u128,
    ) -> Result<Self, String> {
        let mut addresses = Vec::with_capacity(rows.len());
        for row in &rows {
            if !layout.fits(row.coordinate()) {
                return Err("a row outside the chunk grid".into());
            }
            let address = layout.address(row.coordinate());
            let free = LEVEL_BITS * level;
            let aligned = free >= u128::BITS && address == 0
                || free < u128::BITS && address >> free << free == address;
            let in_page = Layout::page(address, level) == page;
            if !in_page || !aligned || row.child().is_some() != (level > 0) {
                return Err("a row that belongs to another page".into());
            }
            if addresses.last().is_some_and(|last| *last >= address) {
                return Err("rows out of order".into());
            }
            addresses.push(address);
        }
        let first = page.checked_shl(LEVEL_BITS * (level + 1)).unwrap_or(0);
        let inner = R::inner(layout.coordinate(first), id, &rows).encoded(level + 1);
        Ok(Self {
            rows,
            addresses,
            inner,
        })
    }

    /// The row with this address.
    pub(crate) fn find(&self, address: u128) -> Option<&R> {
        self.addresses
            .binary_search(&address)
            .ok()
            .map(|at| &self.rows[at])
    }

    /// Whether `row`, of a page at `level`, is the inner row over this page.
    pub(crate) fn is_below(&self, row: &R, level: u32) -> bool {
        row.encoded(level) == self.inner
    }

    /// Memory the page takes.
    pub(crate) fn size_bytes(&self) -> usize {
        let extra: usize = self
            .rows
            .iter()
            .map(|row| row.extra_bytes() + 8 * row.coordinate().len())
            .sum();
        self.rows.len() * (size_of::<R>() + size_of::<u128>()) + extra
    }
}

/// The name of a page with these rows.
pub(crate) fn page_id<R: PageRow>(rows: &[R], level: u32) -> Hash {
    let leaves: Vec<Hash> = rows
        .iter()
        .map(|row| hash::hash(R::HASH_KIND, &row.encoded(level)))
        .collect();
    hash::mth(&leaves)
}

/// The file of a page with these rows.
pub(crate) fn encode<R: PageRow>(rows: &[R], level: u32) -> Result<Vec<u8>, ArrowError> {
    let dimensions = rows.first().map_or(0, |row| row.coordinate().len());
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for axis in 0..dimensions {
        let values = UInt64Array::from_iter_values(rows.iter().map(|row| row.coordinate()[axis]));
        columns.push((format!("c{axis}"), Arc::new(values)));
    }
    let mut named: Vec<(&str, ArrayRef)> = columns
        .iter()
        .map(|(name, column)| (name.as_str(), column.clone()))
        .collect();
    named.extend(R::columns(rows, level)?);
    row_file::encode(named)
}

/// Reads the page `id` at `level` that covers `page`, and checks everything about it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode<R: PageRow>(
    bytes: &[u8],
    id: &Hash,
    layout: &Layout,
    level: u32,
    page: u128,
) -> Result<Page<R>, String> {
    let rows = rows(bytes, layout, level)?;
    if page_id(&rows, level) != *id {
        return Err("its rows do not match its name".into());
    }
    Page::new(rows, *id, layout, level, page)
}

/// The rows of a page, which may be those of another one.
pub(crate) fn rows<R: PageRow>(
    bytes: &[u8],
    layout: &Layout,
    level: u32,
) -> Result<Vec<R>, String> {
    let batch = row_file::decode(bytes)?;
    let mut coordinates = vec![Vec::with_capacity(layout.dimensions()); batch.num_rows()];
    for axis in 0..layout.dimensions() {
        let column: &UInt64Array = row_file::column(&batch, &format!("c{axis}"), false)?;
        for (coordinate, &at) in coordinates.iter_mut().zip(column.values()) {
            coordinate.push(at);
        }
    }
    R::from_columns(&batch, coordinates, level)
}

/// `kind ‖ level ‖ ndim ‖ coordinate ‖ id ‖ length`, the start of every row.
fn row_start(kind: u8, level: u32, coordinate: &[u64], id: &Hash, length: u64) -> Vec<u8> {
    let mut bytes = vec![kind, level as u8, coordinate.len() as u8];
    for at in coordinate {
        bytes.extend_from_slice(&at.to_le_bytes());
    }
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes
}

/// Appends a field: its length as u32, then its bytes.
pub(crate) fn push_field(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u32).to_le_bytes());
    bytes.extend_from_slice(field);
}

const KIND_INNER: u8 = 0;
const KIND_SHARD: u8 = 1;
const KIND_PLAIN: u8 = 2;

const STORED: u8 = 0;
const INLINE: u8 = 1;
const EXTERNAL: u8 = 2;

impl PageRow for ManifestRow {
    const HASH_KIND: Kind = Kind::Row;

    fn coordinate(&self) -> &[u64] {
        match self {
            Self::Chunk(row) => row.index.as_slice(),
            Self::Inner { origin, .. } => origin,
        }
    }

    fn child(&self) -> Option<(Hash, u64)> {
        match self {
            Self::Chunk(_) => None,
            Self::Inner { child, rows, .. } => Some((*child, *rows)),
        }
    }

    fn inner(origin: Vec<u64>, child: Hash, rows: &[Self]) -> Self {
        Self::Inner {
            origin,
            child,
            rows: rows.len() as u64,
        }
    }

    fn encoded(&self, level: u32) -> Vec<u8> {
        match self {
            Self::Inner {
                origin,
                child,
                rows,
            } => row_start(KIND_INNER, level, origin, child, *rows),
            Self::Chunk(row) => {
                let kind = kind_number(row.kind);
                let mut bytes = row_start(kind, level, row.index.as_slice(), &row.id, row.length);
                push_field(&mut bytes, &[storage_number(&row.location)]);
                if let Location::External { url, offset, etag } = &row.location {
                    push_field(&mut bytes, url.as_bytes());
                    push_field(&mut bytes, &offset.to_le_bytes());
                    push_field(&mut bytes, etag.as_bytes());
                }
                bytes
            }
        }
    }

    fn columns(rows: &[Self], level: u32) -> Result<Vec<(&'static str, ArrayRef)>, ArrowError> {
        let id = |row: &'_ Self| match row {
            Self::Chunk(row) => row.id,
            Self::Inner { child, .. } => *child,
        };
        let ids: Vec<Hash> = rows.iter().map(id).collect();
        let ids = row_file::fixed_column(ids.iter().map(|id| Some(id.as_bytes().as_slice())), 32)?;
        if level > 0 {
            let counts = rows
                .iter()
                .map(|row| row.child().map_or(0, |(_, rows)| rows));
            return Ok(vec![
                ("id", ids),
                ("rows", Arc::new(UInt64Array::from_iter_values(counts))),
            ]);
        }
        let chunks: Vec<&ChunkRow> = rows
            .iter()
            .filter_map(|row| {
                if let Self::Chunk(row) = row {
                    Some(row)
                } else {
                    None
                }
            })
            .collect();
        let inline = |row: &&'_ ChunkRow| match &row.location {
            Location::Inline(bytes) => Some(bytes.to_vec()),
            _ => None,
        };
        let mut columns: Vec<(&'static str, ArrayRef)> = vec![
            (
                "kind",
                Arc::new(UInt8Array::from_iter_values(
                    chunks.iter().map(|r| kind_number(r.kind)),
                )),
            ),
            ("id", ids),
            (
                "length",
                Arc::new(UInt64Array::from_iter_values(
                    chunks.iter().map(|r| r.length),
                )),
            ),
            (
                "storage",
                Arc::new(UInt8Array::from_iter_values(
                    chunks.iter().map(|r| storage_number(&r.location)),
                )),
            ),
            (
                "inline",
                Arc::new(BinaryArray::from_iter(chunks.iter().map(inline))),
            ),
        ];
        if chunks
            .iter()
            .any(|row| matches!(row.location, Location::External { .. }))
        {
            let external = |row: &&ChunkRow| match &row.location {
                Location::External { url, offset, etag } => {
                    Some((url.clone(), *offset, etag.clone()))
                }
                _ => None,
            };
            let parts: Vec<_> = chunks.iter().map(external).collect();
            columns.push((
                "url",
                Arc::new(StringArray::from_iter(
                    parts.iter().map(|p| p.as_ref().map(|p| p.0.as_str())),
                )),
            ));
            columns.push((
                "offset",
                Arc::new(UInt64Array::from_iter(
                    parts.iter().map(|p| p.as_ref().map(|p| p.1)),
                )),
            ));
            columns.push((
                "etag",
                Arc::new(StringArray::from_iter(
                    parts.iter().map(|p| p.as_ref().map(|p| p.2.as_str())),
                )),
            ));
        }
        Ok(columns)
    }

    fn from_columns(
        batch: &RecordBatch,
        coordinates: Vec<Vec<u64>>,
        level: u32,
    ) -> Result<Vec<Self>, String> {
        let ids: Option<Vec<Hash>> = row_file::hash_column(batch, "id")?.into_iter().collect();
        let ids = ids.ok_or("a row without id")?;
        if level > 0 {
            let counts: &UInt64Array = row_file::column(batch, "rows", false)?;
            let rows = coordinates.into_iter().zip(ids).zip(counts.values());
            return Ok(rows
                .map(|((origin, child), &rows)| Self::Inner {
                    origin,
                    child,
                    rows,
                })
                .collect());
        }
        let kinds: &UInt8Array = row_file::column(batch, "kind", false)?;
        let lengths: &UInt64Array = row_file::column(batch, "length", false)?;
        let storage: &UInt8Array = row_file::column(batch, "storage", false)?;
        let inline: &BinaryArray = row_file::column(batch, "inline", true)?;
        let mut rows = Vec::with_capacity(ids.len());
        for (at, (coordinate, id)) in coordinates.into_iter().zip(ids).enumerate() {
            let kind = match kinds.value(at) {
                KIND_SHARD => ChunkKind::Shard,
                KIND_PLAIN => ChunkKind::Plain,
                other => return Err(format!("a row of kind {other}")),
            };
            let length = lengths.value(at);
            let location = match storage.value(at) {
                STORED if inline.is_null(at) => Location::Stored,
                INLINE if inline.is_valid(at) && inline.value(at).len() as u64 == length => {
                    Location::Inline(Bytes::copy_from_slice(inline.value(at)))
                }
                EXTERNAL if inline.is_null(at) => external(batch, at)?,
                _ => return Err("a row that is neither stored, inline nor external".into()),
            };
            if length == 0 {
                return Err("a chunk of no bytes".into());
            }
            rows.push(Self::Chunk(ChunkRow {
                index: ChunkIndex::new(coordinate),
                kind,
                id,
                length,
                location,
            }));
        }
        Ok(rows)
    }

    fn stored_bytes(&self) -> u64 {
        match self {
            Self::Chunk(row) => row.length,
            Self::Inner { .. } => 0,
        }
    }

    fn extra_bytes(&self) -> usize {
        match self {
            Self::Chunk(ChunkRow {
                location: Location::Inline(bytes),
                ..
            }) => bytes.len(),
            Self::Chunk(ChunkRow {
                location: Location::External { url, etag, .. },
                ..
            }) => url.len() + etag.len(),
            _ => 0,
        }
    }
}

fn kind_number(kind: ChunkKind) -> u8 {
    match kind {
        ChunkKind::Shard => KIND_SHARD,
        ChunkKind::Plain => KIND_PLAIN,
    }
}

fn storage_number(location: &Location) -> u8 {
    match location {
        Location::Stored => STORED,
        Location::Inline(_) => INLINE,
        Location::External { .. } => EXTERNAL,
    }
}

fn external(batch: &RecordBatch, at: usize) -> Result<Location, String> {
    let urls: &StringArray = row_file::column(batch, "url", true)?;
    let offsets: &UInt64Array = row_file::column(batch, "offset", true)?;
    let etags: &StringArray = row_file::column(batch, "etag", true)?;
    if urls.is_null(at) || offsets.is_null(at) || etags.is_null(at) {
        return Err("an external row without url, offset and etag".into());
    }
    Ok(Location::External {
        url: urls.value(at).to_owned(),
        offset: offsets.value(at),
        etag: etags.value(at).to_owned(),
    })
}

const KIND_STATISTICS: u8 = 1;

impl PageRow for StatisticsRow {
    const HASH_KIND: Kind = Kind::StatisticsRow;

    fn coordinate(&self) -> &[u64] {
        &self.coordinate
    }

    fn child(&self) -> Option<(Hash, u64)> {
        self.child
    }

    fn inner(origin: Vec<u64>, child: Hash, rows: &[Self]) -> Self {
        let merging: Vec<Statistics> = rows.iter().map(|row| row.statistics).collect();
        let merged = Statistics::merge_all(&merging);
        Self {
            coordinate: origin,
            child: Some((child, rows.len() as u64)),
            statistics: merged,
        }
    }

    fn encoded(&self, level: u32) -> Vec<u8> {
        let (kind, (id, rows)) = match self.child {
            Some(child) => (KIND_INNER, child),
            None => (KIND_STATISTICS, (Hash::ZERO, 0)),
        };
        let mut bytes = row_start(kind, level, &self.coordinate, &id, rows);
        push_field(&mut bytes, &self.statistics.to_bytes());
        bytes
    }

    fn columns(rows: &[Self], level: u32) -> Result<Vec<(&'static str, ArrayRef)>, ArrowError> {
        let encoded: Vec<_> = rows.iter().map(|row| row.statistics.to_bytes()).collect();
        let statistics = row_file::fixed_column(
            encoded.iter().map(|bytes| Some(bytes.as_slice())),
            Statistics::ENCODED_BYTES,
        )?;
        let mut columns = vec![("statistics", statistics)];
        if level > 0 {
            let children: Vec<(Hash, u64)> = rows
                .iter()
                .map(|row| row.child.unwrap_or((Hash::ZERO, 0)))
                .collect();
            let ids = children
                .iter()
                .map(|(id, _)| Some(id.as_bytes().as_slice()));
            columns.push(("id", row_file::fixed_column(ids, 32)?));
            let counts = children.iter().map(|(_, rows)| *rows);
            columns.push(("rows", Arc::new(UInt64Array::from_iter_values(counts))));
        }
        Ok(columns)
    }

    fn from_columns(
        batch: &RecordBatch,
        coordinates: Vec<Vec<u64>>,
        level: u32,
    ) -> Result<Vec<Self>, String> {
        let statistics: &FixedSizeBinaryArray = row_file::column(batch, "statistics", false)?;
        let statistics: Vec<Statistics> = statistics
            .iter()
            .map(|bytes| Statistics::from_bytes(bytes.unwrap_or_default()))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let children: Vec<Option<(Hash, u64)>> = if level == 0 {
            vec![None; coordinates.len()]
        } else {
            let ids = row_file::hash_column(batch, "id")?;
            let counts: &UInt64Array = row_file::column(batch, "rows", false)?;
            ids.into_iter()
                .zip(counts.values())
                .map(|(id, &rows)| id.map(|id| (id, rows)))
                .collect()
        };
        let rows = coordinates.into_iter().zip(children).zip(statistics);
        Ok(rows
            .map(|((coordinate, child), statistics)| Self {
                coordinate,
                child,
                statistics,
            })
            .collect())
    }

    fn stored_bytes(&self) -> u64 {
        0
    }

    fn extra_bytes(&self) -> usize {
        0
    }
}
