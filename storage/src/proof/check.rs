//! Checking a proof.

use std::collections::BTreeSet;

use array::hash::{self, Hash, Kind};
use array::{ArrayMetadata, ChunkIndex, NodeMetadata, NodePath, Region, Sharding, json};
use bytes::Bytes;
use uuid::Uuid;

use super::fields::Fields;
use super::leaves::Leaves;
use super::{
    Base64, ChunkDocument, ChunksDocument, Content, Contents, Document, MAX_INNER_CHUNKS, Proven,
    ProvenChunk, PublishedDocument, statistics,
};
use crate::commit::Commit;
use crate::layout::{LEVEL_BITS, Layout};
use crate::log::{self, LogEntry};
use crate::tlog::{self, Checkpoint, Receipt};
use crate::tree::StatisticsRoot;
use crate::{CommitId, Error};

/// Most commits between the one a ref is at and the one that is asked for.
const MAX_COMMITS: usize = 1 << 16;
/// Rows of a page.
pub(super) const MAX_ROWS: u64 = 1024;

/// Checks a proof by itself; what it proves is true of the log that has the entry it names. Whose
/// log that is, the signatures of its checkpoint say: [`Checkpoint::verify`].
///
/// # Errors
/// [`Error::Corrupt`] with what does not follow.
pub fn check(bytes: &[u8]) -> Result<Proven, Error> {
    check_document(bytes).map_err(|reason| Error::corrupt("proof", reason))
}

fn check_document(bytes: &[u8]) -> Result<Proven, String> {
    let (_, value) = log::check_self(Kind::Proof, bytes)?;
    let document = Document::parse(value)?;
    let sequence = document
        .array
        .entry
        .get("sequence")
        .and_then(serde_json::Value::as_str);
    let sequence: u64 = sequence
        .and_then(|text| text.parse().ok())
        .ok_or("an entry without number")?;
    let (entry_hash, entry) =
        LogEntry::decode(sequence, &json::canonical_bytes(&document.array.entry))?;
    let checkpoint = match &document.array.published {
        None => None,
        Some(published) => Some(check_published(published, sequence, entry_hash)?),
    };
    let (reference, head) = check_ref(&document.array.refs, entry.state)?;
    let (commit_id, commit) = check_commits(&document.array.commits, head)?;

    let path: NodePath = document
        .array
        .path
        .parse()
        .map_err(|error: array::Error| error.to_string())?;
    if path.as_str() != document.array.path || path.is_root() {
        return Err("no path of an array".into());
    }
    let names: Vec<&str> = path.names().collect();
    if names.len() != document.array.trees.len() {
        return Err("not one tree for each name".into());
    }
    let mut row = TreeRow {
        kind: KIND_GROUP,
        document: commit.root.document,
        content: commit.root.content,
        statistics: None,
    };
    for (name, pages) in names.iter().zip(&document.array.trees) {
        if row.kind != KIND_GROUP {
            return Err(format!("{name:?} is below an array"));
        }
        row = check_tree(pages, row.content, name)?;
    }
    if row.kind != KIND_ARRAY {
        return Err(format!("{path} is no array"));
    }
    let metadata_bytes = json::canonical_bytes(&document.array.metadata);
    if hash::hash(Kind::Document, &metadata_bytes) != row.document {
        return Err("the metadata are not those of the array".into());
    }
    let metadata = match NodeMetadata::parse(&metadata_bytes) {
        Ok(NodeMetadata::Array(metadata)) => metadata,
        Ok(NodeMetadata::Group(_)) => return Err("the metadata of a group".into()),
        Err(error) => return Err(error.to_string()),
    };
    let region = check_region(&document, &metadata)?;
    let content = match &document.content {
        Content::Chunks(content) => {
            check_size(&metadata, &region)?;
            let mut checker = ChunkChecker::new(content, &metadata, &region)?;
            Contents::Chunks(checker.check(row.content)?)
        }
        Content::Statistics(content) => {
            let root = row.statistics.ok_or("an array without statistics")?;
            Contents::Statistics(statistics::check(content, root, &metadata, &region)?)
        }
    };
    let path_bytes = path_bytes(&document);
    Ok(Proven {
        sequence,
        entry: entry_hash,
        time: entry.time,
        checkpoint,
        reference,
        commit: commit_id,
        path,
        metadata,
        region,
        content,
        path_bytes,
    })
}

/// The checkpoint under whose root the entry is.
fn check_published(
    published: &PublishedDocument,
    sequence: u64,
    entry: Hash,
) -> Result<Checkpoint, String> {
    let id: Option<Uuid> = published.repository.parse().ok();
    let id = id.filter(|id| id.to_string() == published.repository);
    let id = id.ok_or("an id of a repository that is none")?;
    let receipt: Receipt = published.receipt.parse()?;
    if receipt.extra.is_some() || receipt.index != sequence {
        return Err("the receipt of something else".into());
    }
    receipt.check(&tlog::record(id, sequence, entry))?;
    Ok(receipt.checkpoint)
}

fn row_hash(kind: Kind) -> impl Fn(&Base64) -> Result<Hash, String> {
    move |row| Ok(hash::hash(kind, &row.0))
}

/// The ref and the commit it is at.
fn check_ref(refs: &Leaves<Base64>, state: Hash) -> Result<(String, CommitId), String> {
    if refs.root(row_hash(Kind::RefRow))? != state {
        return Err("the ref is not in the state of the entry".into());
    }
    let [(_, row)] = refs.leaves.as_slice() else {
        return Err("not one ref".into());
    };
    let mut fields = Fields(&row.0);
    let name = fields.text()?;
    let commit = CommitId(fields.hash()?);
    fields.end()?;
    Ok((name, commit))
}

/// The last commit, and that each is a parent of the one before.
fn check_commits(
    documents: &[serde_json::Value],
    head: CommitId,
) -> Result<(CommitId, Commit), String> {
    if documents.len() > MAX_COMMITS {
        return Err(format!("{} commits", documents.len()));
    }
    let mut expected = BTreeSet::from([head]);
    let mut last = None;
    for document in documents {
        let bytes = json::canonical_bytes(document);
        let id = CommitId(hash::hash(Kind::Commit, &bytes));
        if !expected.contains(&id) {
            return Err(format!("commit {id} does not follow"));
        }
        let commit = Commit::decode(&id, &bytes)?;
        expected = commit.parents.iter().copied().collect();
        last = Some((id, commit));
    }
    last.ok_or_else(|| "no commit".into())
}

pub(super) const KIND_INNER: u8 = 0;
const KIND_GROUP: u8 = 1;
const KIND_ARRAY: u8 = 2;
const KIND_SHARD: u8 = 1;
const KIND_PLAIN: u8 = 2;

/// What matters of a row of a tree.
struct TreeRow {
    kind: u8,
    document: Hash,
    content: Hash,
    statistics: Option<StatisticsRoot>,
}

/// The row of `name` in the tree `root`.
fn check_tree(pages: &[Leaves<Base64>], root: Hash, name: &str) -> Result<TreeRow, String> {
    let (mut id, mut rows, mut level) = (root, None, None);
    for (at, page) in pages.iter().enumerate() {
        if page.count > MAX_ROWS || page.root(row_hash(Kind::TreeRow))? != id {
            return Err("a page of a tree is not the one above it names".into());
        }
        let [(_, row)] = page.leaves.as_slice() else {
            return Err("not one row of a tree page".into());
        };
        if rows.is_some_and(|rows| rows != page.count) {
            return Err("a page of a tree has another number of rows".into());
        }
        let mut fields = Fields(&row.0);
        let (kind, own_level) = (fields.byte()?, fields.byte()?);
        let row_name = fields.text()?;
        let (content, length) = (fields.hash()?, fields.number()?);
        if level.is_some_and(|above: u8| above != own_level + 1) {
            return Err("a page of a tree is of another level".into());
        }
        if at + 1 < pages.len() {
            if kind != KIND_INNER || own_level == 0 || row_name.as_str() > name {
                return Err("a row of a tree does not lead to the name".into());
            }
            fields.end()?;
            (id, rows, level) = (content, Some(length), Some(own_level));
            continue;
        }
        if own_level != 0 || kind == KIND_INNER || row_name != name {
            return Err(format!("the row is not that of {name:?}"));
        }
        let document = fields.field()?;
        let document = Hash::from_slice(document).ok_or("a document without hash")?;
        let statistics = match (fields.field()?, fields.field()?) {
            ([], []) => None,
            (root, metadata) => {
                let hashes = Hash::from_slice(root).zip(Hash::from_slice(metadata));
                let (root, metadata) = hashes.ok_or("a statistics root that is no hash")?;
                Some(StatisticsRoot { root, metadata })
            }
        };
        fields.end()?;
        return Ok(TreeRow {
            kind,
            document,
            content,
            statistics,
        });
    }
    Err("a tree without pages".into())
}

fn check_region(document: &Document, metadata: &ArrayMetadata) -> Result<Region, String> {
    let number = |text: &String| match text.parse::<u64>() {
        Ok(number) if number.to_string() == *text => Ok(number),
        _ => Err(format!("{text:?} is no number")),
    };
    let numbers = |texts: &[String]| texts.iter().map(number).collect::<Result<Vec<u64>, _>>();
    let (start, shape) = (
        numbers(&document.array.start)?,
        numbers(&document.array.shape)?,
    );
    let dimensions = metadata.dimensions();
    if start.len() != dimensions || shape.len() != dimensions {
        return Err("a region of another number of dimensions".into());
    }
    let region = Region::new(start, shape).map_err(|error| error.to_string())?;
    check_inside(metadata, &region)?;
    Ok(region)
}

/// Checks that `region` is in the array.
///
/// # Errors
/// If it is not, or empty.
pub(super) fn check_inside(metadata: &ArrayMetadata, region: &Region) -> Result<(), String> {
    match !region.is_empty() && Region::whole(metadata.shape()).contains(region) {
        true => Ok(()),
        false => Err(format!("region {region} is not in the array, or empty")),
    }
}

/// Checks that `region`, which is in the array, is no larger than a proof of chunks may be.
///
/// # Errors
/// If it is not.
pub(super) fn check_size(metadata: &ArrayMetadata, region: &Region) -> Result<(), String> {
    let sharding = Sharding::of(metadata).map_err(|error| error.to_string())?;
    let inner = sharding
        .as_ref()
        .map_or(metadata.chunk_shape(), Sharding::inner_shape);
    let along = |(axis, &length): (usize, &u64)| {
        let range = region.range(axis);
        range.end.div_ceil(length) - range.start / length
    };
    let counts: Vec<u64> = inner.iter().enumerate().map(along).collect();
    match array::shape::elements(&counts) {
        Ok(count) if count <= MAX_INNER_CHUNKS => Ok(()),
        _ => Err(format!(
            "region {region} meets more than the {MAX_INNER_CHUNKS} inner chunks a proof may have"
        )),
    }
}

/// A row of a manifest page.
enum ManifestRow {
    Inner {
        child: Hash,
        rows: u64,
    },
    Chunk {
        is_shard: bool,
        id: Hash,
        length: u64,
    },
}

struct ChunkChecker<'a> {
    layout: Layout,
    metadata: &'a ArrayMetadata,
    region: &'a Region,
    sharding: Option<Sharding>,
    /// Addresses of the chunks that meet the region, ascending.
    targets: Vec<u128>,
    pages: std::slice::Iter<'a, Leaves<Base64>>,
    chunks: std::slice::Iter<'a, ChunkDocument>,
    proven: Vec<ProvenChunk>,
}

impl<'a> ChunkChecker<'a> {
    fn new(
        content: &'a ChunksDocument,
        metadata: &'a ArrayMetadata,
        region: &'a Region,
    ) -> Result<Self, String> {
        let layout =
            Layout::new(&metadata.grid().grid_shape()).map_err(|error| error.to_string())?;
        Ok(Self {
            targets: targets(&layout, metadata, region),
            layout,
            metadata,
            region,
            sharding: Sharding::of(metadata).map_err(|error| error.to_string())?,
            pages: content.manifest.iter(),
            chunks: content.chunks.iter(),
            proven: Vec::new(),
        })
    }

    fn check(&mut self, root: Hash) -> Result<Vec<ProvenChunk>, String> {
        let targets = std::mem::take(&mut self.targets);
        if root == hash::empty() {
            for &target in &targets {
                self.absent(target);
            }
        } else {
            self.page(root, None, self.layout.height() - 1, 0, &targets)?;
        }
        if self.pages.next().is_some() || self.chunks.next().is_some() {
            return Err("pages or chunks left over".into());
        }
        Ok(std::mem::take(&mut self.proven))
    }

    /// Checks the page `id` at `level` that covers `place`, and what is below it on the way to
    /// `targets`.
    fn page(
        &mut self,
        id: Hash,
        rows: Option<u64>,
        level: u32,
        place: u128,
        targets: &[u128],
    ) -> Result<(), String> {
        let page = next_page(&mut self.pages, Kind::Row, id, rows)?;
        let mut shown = Vec::with_capacity(page.leaves.len());
        for (_, row) in &page.leaves {
            let (address, row) = self.row(&row.0, level, place)?;
            if shown.last().is_some_and(|(last, _)| *last >= address) {
                return Err("rows out of order".into());
            }
            shown.push((address, row));
        }
        let free = LEVEL_BITS * level;
        let mut used = BTreeSet::new();
        for group in targets.chunk_by(|a, b| a >> free == b >> free) {
            let wanted = group[0] >> free << free;
            match shown.binary_search_by_key(&wanted, |(address, _)| *address) {
                Ok(found) => {
                    used.insert(found);
                    match &shown[found].1 {
                        ManifestRow::Inner { child, rows } => {
                            let place = Layout::page(wanted, level - 1);
                            self.page(*child, Some(*rows), level - 1, place, group)?;
                        }
                        ManifestRow::Chunk {
                            is_shard,
                            id,
                            length,
                        } => self.chunk(wanted, *is_shard, *id, *length)?,
                    }
                }
                Err(after) => {
                    used.extend(page.around(after)?);
                    for &target in group {
                        self.absent(target);
                    }
                }
            }
        }
        match used.len() == shown.len() {
            true => Ok(()),
            false => Err("rows that prove nothing".into()),
        }
    }

    /// A row of the page at `level` that covers `place`, and its address.
    fn row(&self, bytes: &[u8], level: u32, place: u128) -> Result<(u128, ManifestRow), String> {
        let mut fields = Fields(bytes);
        let (kind, own_level, dimensions) = (fields.byte()?, fields.byte()?, fields.byte()?);
        if u32::from(own_level) != level || usize::from(dimensions) != self.layout.dimensions() {
            return Err("a row of another level or grid".into());
        }
        let coordinate = (0..dimensions).map(|_| fields.number());
        let coordinate: Vec<u64> = coordinate.collect::<Result<_, _>>()?;
        let (id, length) = (fields.hash()?, fields.number()?);
        let address = row_address(&self.layout, &coordinate, level, place)?;
        if level > 0 {
            fields.end()?;
            return match kind {
                KIND_INNER => Ok((
                    address,
                    ManifestRow::Inner {
                        child: id,
                        rows: length,
                    },
                )),
                _ => Err("a chunk where a page should be".into()),
            };
        }
        // Stored, inline or external.
        match fields.field()? {
            [0 | 1] => {}
            [2] => {
                fields.text()?;
                if fields.field()?.len() != 8 {
                    return Err("an offset that is no number".into());
                }
                fields.text()?;
            }
            _ => return Err("a chunk that is stored nowhere".into()),
        }
        fields.end()?;
        let is_shard = match kind {
            KIND_SHARD => true,
            KIND_PLAIN => false,
            _ => return Err("a row of no kind".into()),
        };
        Ok((
            address,
            ManifestRow::Chunk {
                is_shard,
                id,
                length,
            },
        ))
    }

    /// The numbers of the inner chunks of a chunk that meet the region.
    fn wanted(&self, index: &ChunkIndex) -> Vec<u32> {
        match &self.sharding {
            Some(sharding) => inner_chunks_meeting(sharding, self.metadata, index, self.region),
            None => vec![0],
        }
    }

    fn absent(&mut self, target: u128) {
        let index = ChunkIndex::new(self.layout.coordinate(target));
        let inner = self.wanted(&index).into_iter().map(|inner| (inner, None));
        let inner = inner.collect();
        self.proven.push(ProvenChunk { index, inner });
    }

    fn chunk(&mut self, target: u128, is_shard: bool, id: Hash, length: u64) -> Result<(), String> {
        let index = ChunkIndex::new(self.layout.coordinate(target));
        let shown = self.chunks.next().ok_or("too few chunks")?;
        let inner = match (shown, is_shard, &self.sharding) {
            (ChunkDocument::Plain(bytes), false, None) => {
                if bytes.0.len() as u64 != length || hash::hash(Kind::PlainChunk, &bytes.0) != id {
                    return Err(format!("chunk {index} has other bytes"));
                }
                vec![(0, Some(bytes.0.clone()))]
            }
            (ChunkDocument::Shard(leaves), true, Some(sharding)) => {
                let leaf = |bytes: &Option<Base64>| match bytes {
                    Some(bytes) if bytes.0.is_empty() => Err("an inner chunk of no bytes".into()),
                    Some(bytes) => Ok(hash::hash(Kind::InnerChunk, &bytes.0)),
                    None => Ok(Hash::ZERO),
                };
                if leaves.count != sharding.inner_chunks() as u64 || leaves.root(leaf)? != id {
                    return Err(format!("shard {index} has other inner chunks"));
                }
                let wanted = self.wanted(&index);
                let places = leaves.leaves.iter().map(|(place, _)| *place);
                if !places.eq(wanted.iter().map(|&inner| u64::from(inner))) {
                    return Err(format!(
                        "other inner chunks of shard {index} than were asked for"
                    ));
                }
                let bytes = leaves.leaves.iter().map(|(_, bytes)| bytes);
                let bytes = bytes.map(|bytes| bytes.as_ref().map(|bytes| bytes.0.clone()));
                wanted
                    .into_iter()
                    .zip(bytes)
                    .collect::<Vec<(u32, Option<Bytes>)>>()
            }
            _ => return Err(format!("chunk {index} is not of the kind its row says")),
        };
        self.proven.push(ProvenChunk { index, inner });
        Ok(())
    }
}

/// The next page shown, which must be `id` with this many rows, hashed as `kind`.
pub(super) fn next_page<'a>(
    pages: &mut std::slice::Iter<'a, Leaves<Base64>>,
    kind: Kind,
    id: Hash,
    rows: Option<u64>,
) -> Result<&'a Leaves<Base64>, String> {
    let page = pages.next().ok_or("too few pages")?;
    if page.count == 0 || page.count > MAX_ROWS || rows.is_some_and(|rows| rows != page.count) {
        return Err("a page with another number of rows".into());
    }
    match page.root(row_hash(kind))? == id {
        true => Ok(page),
        false => Err("a page is not the one above it names".into()),
    }
}

/// The address of a row with this coordinate in the page at `level` that covers `place`.
pub(super) fn row_address(
    layout: &Layout,
    coordinate: &[u64],
    level: u32,
    place: u128,
) -> Result<u128, String> {
    if !layout.fits(coordinate) {
        return Err("a row outside the chunk grid".into());
    }
    let address = layout.address(coordinate);
    let free = LEVEL_BITS * level;
    match Layout::page(address, level) == place && address >> free << free == address {
        true => Ok(address),
        false => Err("a row that belongs to another page".into()),
    }
}

/// Addresses of the chunks that meet `region`, which [`check_size`] has checked; ascending.
pub(super) fn targets(layout: &Layout, metadata: &ArrayMetadata, region: &Region) -> Vec<u128> {
    let chunks = metadata.grid().chunks_meeting(region);
    let mut targets: Vec<u128> = chunks.positions().map(|at| layout.address(&at)).collect();
    targets.sort_unstable();
    targets
}

/// The numbers of the inner chunks of the chunk at `index` that meet `region`, ascending.
pub(super) fn inner_chunks_meeting(
    sharding: &Sharding,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    region: &Region,
) -> Vec<u32> {
    let chunk = metadata.grid().chunk_region(index);
    let part = chunk.intersect(region);
    let along = |(axis, &length): (usize, &u64)| {
        let (range, corner) = (part.range(axis), chunk.start()[axis]);
        (range.start - corner) / length..(range.end - corner).div_ceil(length)
    };
    let inner = sharding.inner_shape().iter().enumerate();
    let ranges: Vec<std::ops::Range<u64>> = inner.map(along).collect();
    let lengths: Vec<u64> = ranges.iter().map(|range| range.end - range.start).collect();
    let place = |at: Vec<u64>| {
        let at = at.iter().zip(&ranges).map(|(at, range)| at + range.start);
        sharding.inner_index(&at.collect::<Vec<u64>>()) as u32
    };
    let mut numbers: Vec<u32> = Region::whole(&lengths).positions().map(place).collect();
    numbers.sort_unstable();
    numbers
}

/// Bytes of all rows and hashes of a proof.
fn path_bytes(document: &Document) -> usize {
    let page = |page: &Leaves<Base64>| {
        let rows: usize = page.leaves.iter().map(|(_, row)| row.0.len()).sum();
        rows + page.hash_bytes()
    };
    let chunk = |chunk: &ChunkDocument| match chunk {
        ChunkDocument::Shard(leaves) => leaves.hash_bytes(),
        ChunkDocument::Plain(_) => 0,
    };
    let trees = document
        .array
        .trees
        .iter()
        .flatten()
        .map(page)
        .sum::<usize>();
    let content = match &document.content {
        Content::Chunks(content) => {
            let manifest = content.manifest.iter().map(page).sum::<usize>();
            manifest + content.chunks.iter().map(chunk).sum::<usize>()
        }
        Content::Statistics(content) => content.statistics.iter().map(page).sum(),
    };
    page(&document.array.refs) + trees + content
}
