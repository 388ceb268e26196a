//! One commit as a Zarr store, for a program that has the service in its own process: the objects of
//! the HTTP view, as bytes.
//!
//! ```text
//! key ─► array known? ─► chunk in its grid ─► row ─► stored bytes, verified
//!          └► no: place of the key (as over HTTP) ─► document, or the array, known from now on
//! ```

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use array::{ArrayMetadata, ChunkIndex, NodeMetadata, Sharding};
use bytes::Bytes;
use importers::document_with_members_as;
use query::ArrayReader;
use storage::{ArrayNode, Node};

use crate::error::Failure;
use crate::http::zarr::{Place, Target, document, names};
use crate::state::{Pinned, State};

/// Most arrays a view remembers; opening one again takes microseconds.
const MAX_ARRAYS: usize = 4096;

/// A part of an object. It is cut at the end of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// From the first number to before the second.
    Range(u64, u64),
    /// From here to the end.
    From(u64),
    /// So many bytes at the end.
    Last(u64),
}

impl Part {
    fn of(self, length: u64) -> Range<u64> {
        let (start, end) = match self {
            Self::Whole => (0, length),
            Self::Range(start, end) => (start, end),
            Self::From(start) => (start, length),
            Self::Last(count) => (length.saturating_sub(count), length),
        };
        let start = start.min(length);
        start..end.clamp(start, length)
    }

    fn cut(self, bytes: &Bytes) -> Bytes {
        let range = self.of(bytes.len() as u64);
        bytes.slice(range.start as usize..range.end as usize)
    }
}

/// One commit as a Zarr store.
#[derive(Debug)]
pub struct View {
    state: State,
    pinned: Pinned,
    /// Whether inner chunks are shown as the chunks of arrays without shards.
    inner_chunks: bool,
    /// By path.
    arrays: RwLock<HashMap<String, Arc<Shown>>>,
}

/// An array, as the view shows it.
#[derive(Debug)]
struct Shown {
    reader: ArrayReader,
    metadata: Arc<ArrayMetadata>,
    /// Inner chunks along each dimension of a shard, where they are shown.
    in_shard: Option<Vec<u64>>,
}

impl View {
    /// The view of a commit. `inner_chunks` shows the inner chunks of sharded arrays as the chunks of
    /// arrays without shards, so that one is one object.
    ///
    /// # Errors
    /// 404 if there is no such repository or commit.
    pub async fn open(
        state: &State,
        repository: &str,
        reference: &str,
        inner_chunks: bool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            state: state.clone(),
            pinned: state.snapshot(repository, reference).await?,
            inner_chunks,
            arrays: RwLock::default(),
        })
    }

    /// The object under `key`, or a part of it; `None` if there is none.
    ///
    /// # Errors
    /// 5xx if it cannot be read, 410 if the commit has expired.
    pub async fn get(&self, key: &str, part: Part) -> Result<Option<Bytes>, Failure> {
        let found = self.object(key, part).await;
        self.pinned.settle(found).await
    }

    async fn object(&self, key: &str, part: Part) -> Result<Option<Bytes>, Failure> {
        if let Some((array, index)) = self.known_chunk(key) {
            return self.chunk(&array, &index, part).await;
        }
        let target = Target::Pinned(&self.pinned);
        let array = match Place::of(&target, key).await? {
            Place::Document(path) => {
                let node = match path {
                    Some(path) => target.find(&path).await?,
                    None => None,
                };
                let Some(node) = node else { return Ok(None) };
                return Ok(Some(part.cut(&self.document(&node).await?)));
            }
            Place::Directory(_) | Place::Nothing => return Ok(None),
            Place::Chunk(array, _)
            | Place::ChunkDirectory(array, _)
            | Place::OutsideGrid(array)
            | Place::NotOfArray(array) => self.remember(*array)?,
        };
        let depth = array.reader.node().path().names().count();
        let below = names(key)[depth..].join("/");
        match array.index(&below) {
            Some(index) => self.chunk(&array, &index, part).await,
            None => Ok(None),
        }
    }

    /// The chunk a key names in an array that has been read before.
    fn known_chunk(&self, key: &str) -> Option<(Arc<Shown>, ChunkIndex)> {
        let arrays = self.arrays.read().unwrap_or_else(PoisonError::into_inner);
        // The array at the root has no name.
        let ends = key.match_indices('/').map(|(at, _)| (at, at + 1));
        for (end, below) in std::iter::once((0, 0)).chain(ends) {
            if let Some(array) = arrays.get(&key[..end]) {
                let index = array.index(&key[below..])?;
                return Some((array.clone(), index));
            }
        }
        None
    }

    fn remember(&self, node: ArrayNode) -> Result<Arc<Shown>, Failure> {
        let path = node.path().as_str().to_owned();
        let reader = self.state.engine().open(node)?;
        let shown = Arc::new(Shown::new(reader, self.inner_chunks));
        let mut arrays = self.arrays.write().unwrap_or_else(PoisonError::into_inner);
        if arrays.len() >= MAX_ARRAYS {
            arrays.clear();
        }
        arrays.insert(path, shown.clone());
        Ok(shown)
    }

    async fn chunk(
        &self,
        array: &Shown,
        index: &ChunkIndex,
        part: Part,
    ) -> Result<Option<Bytes>, Failure> {
        let engine = self.state.engine();
        let (index, inner) = array.stored(index);
        let Some(row) = engine.chunk(&array.reader, &index).await? else {
            return Ok(None);
        };
        if let Some(inner) = inner {
            let bytes = engine.inner_chunk(&array.reader, &row, inner).await?;
            return Ok(bytes.map(|bytes| part.cut(&bytes)));
        }
        if array.reader.is_served_otherwise() {
            let bytes = engine.zarr_bytes(&array.reader, &row).await?;
            return Ok(Some(part.cut(&bytes)));
        }
        let range = part.of(row.length);
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let bytes = engine.stored_bytes(&array.reader, &row, range).await?;
        Ok(Some(bytes))
    }

    async fn document(&self, node: &Node) -> Result<Bytes, Failure> {
        if !self.inner_chunks {
            return document(&self.state, &Target::Pinned(&self.pinned), node).await;
        }
        let nodes = match node {
            Node::Group(_) => self.pinned.snapshot.walk(node.clone()).await?,
            Node::Array(_) => Vec::new(),
        };
        let show = |metadata: &NodeMetadata| match metadata {
            NodeMetadata::Array(array) => {
                NodeMetadata::Array(without_shards(array).unwrap_or_else(|| array.clone()))
            }
            group @ NodeMetadata::Group(_) => group.clone(),
        };
        Ok(document_with_members_as(node, &nodes, show).into())
    }
}

/// The metadata to show instead of a sharded array's own. One that is malformed is shown as it is:
/// reading its chunks tells what is wrong.
fn without_shards(metadata: &ArrayMetadata) -> Option<ArrayMetadata> {
    Sharding::without_shards(metadata).ok().flatten()
}

impl Shown {
    fn new(reader: ArrayReader, inner_chunks: bool) -> Self {
        let metadata = reader.node().metadata().clone();
        let shown = inner_chunks.then(|| without_shards(&metadata)).flatten();
        let Some(shown) = shown else {
            return Self {
                reader,
                metadata,
                in_shard: None,
            };
        };
        let lengths = metadata.chunk_shape().iter().zip(shown.chunk_shape());
        Self {
            in_shard: Some(lengths.map(|(shard, inner)| shard / inner).collect()),
            metadata: Arc::new(shown),
            reader,
        }
    }

    /// The chunk of the grid shown that `below`, a key below the array, names.
    fn index(&self, below: &str) -> Option<ChunkIndex> {
        let encoding = self.metadata.chunk_key_encoding;
        let index = encoding.parse_key(below, self.metadata.dimensions());
        index.filter(|index| self.metadata.grid().contains(index))
    }

    /// The stored chunk of one that is shown, and the inner chunk's number in it if that is shown.
    fn stored(&self, index: &ChunkIndex) -> (ChunkIndex, Option<usize>) {
        let Some(in_shard) = &self.in_shard else {
            return (index.clone(), None);
        };
        let along = |of: fn(u64, u64) -> u64| -> Vec<u64> {
            let each = index.as_slice().iter().zip(in_shard);
            each.map(|(&at, &length)| of(at, length)).collect()
        };
        let number = self.reader.codec().inner_index(&along(|at, n| at % n));
        (ChunkIndex::new(along(|at, n| at / n)), Some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_at_the_end() {
        for (part, expected) in [
            (Part::Whole, 0..10),
            (Part::Range(2, 5), 2..5),
            (Part::Range(2, 50), 2..10),
            (Part::Range(5, 2), 5..5),
            (Part::Range(20, 30), 10..10),
            (Part::From(4), 4..10),
            (Part::From(u64::MAX), 10..10),
            (Part::Last(3), 7..10),
            (Part::Last(30), 0..10),
            (Part::Last(0), 10..10),
        ] {
            assert_eq!(part.of(10), expected, "{part:?}");
        }
    }
}
