//! An object of the Zarr view: found by its key first, read later, whole or in part. Every way to the
//! view that shows objects comes through here.

use std::ops::Range;

use array::ChunkIndex;
use bytes::Bytes;
use query::ArrayReader;
use storage::{ArrayNode, ChunkRow, Node};

use super::place::Place;
use super::{Target, document};
use crate::error::Failure;
use crate::state::State;

/// What is stored under a key.
#[derive(Debug)]
pub(crate) enum Object {
    /// `zarr.json` of a node.
    Document(Box<Node>),
    /// A chunk.
    Chunk(Box<(ArrayReader, ChunkRow)>),
}

/// The bytes of an object: made already, or still in the store.
#[derive(Debug)]
pub(crate) enum Content {
    /// A document, or a chunk that is encoded anew for Zarr clients.
    Made(Bytes),
    /// A chunk as it is stored.
    Stored(Box<(ArrayReader, ChunkRow)>),
}

impl Object {
    /// The object under `key`; `None` if there is none.
    ///
    /// # Errors
    /// 5xx if that cannot be told.
    pub(crate) async fn find(
        state: &State,
        target: &Target<'_>,
        key: &str,
    ) -> Result<Option<Self>, Failure> {
        let place = Place::of(target, key).await?;
        Self::at(state, target, place).await
    }

    /// The object at a place.
    pub(super) async fn at(
        state: &State,
        target: &Target<'_>,
        place: Place,
    ) -> Result<Option<Self>, Failure> {
        match place {
            Place::Document(Some(path)) => {
                let node = target.find(&path).await?;
                Ok(node.map(|node| Self::Document(Box::new(node))))
            }
            Place::Chunk(array, index) => Self::chunk(state, target, *array, &index).await,
            _ => Ok(None),
        }
    }

    /// The chunk at `index`; `None` if all of it is fill value.
    pub(super) async fn chunk(
        state: &State,
        target: &Target<'_>,
        array: ArrayNode,
        index: &ChunkIndex,
    ) -> Result<Option<Self>, Failure> {
        let region = array.metadata().grid().chunk_region_in_array(index);
        target.note_region(&array, region);
        let reader = state.engine().open(array)?;
        let row = state.engine().chunk(&reader, index).await?;
        Ok(row.map(|row| Self::Chunk(Box::new((reader, row)))))
    }

    /// Whether its length is known only when all of its bytes are made.
    pub(crate) fn is_encoded_anew(&self) -> bool {
        matches!(self, Self::Chunk(chunk) if chunk.0.is_served_otherwise())
    }

    /// Its content. A chunk is read only if it has to be encoded anew.
    ///
    /// # Errors
    /// 5xx if it cannot be read.
    pub(crate) async fn content(
        self,
        state: &State,
        target: &Target<'_>,
    ) -> Result<Content, Failure> {
        let is_encoded_anew = self.is_encoded_anew();
        match self {
            Self::Document(node) => Ok(Content::Made(document(state, target, &node).await?)),
            Self::Chunk(chunk) if is_encoded_anew => {
                let (reader, row) = *chunk;
                Ok(Content::Made(
                    state.engine().zarr_bytes(&reader, &row).await?,
                ))
            }
            Self::Chunk(chunk) => Ok(Content::Stored(chunk)),
        }
    }
}

impl Content {
    /// Its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Made(bytes) => bytes.len() as u64,
            Self::Stored(chunk) => chunk.1.length,
        }
    }

    /// What tells it from every other content: its bytes, or a hash of them.
    pub(crate) fn identity(&self) -> &[u8] {
        match self {
            Self::Made(bytes) => bytes,
            Self::Stored(chunk) => chunk.1.id.as_bytes(),
        }
    }

    /// A range of it, which lies inside it and is not empty; verified.
    ///
    /// # Errors
    /// 5xx if it cannot be read.
    pub(crate) async fn part(&self, state: &State, range: Range<u64>) -> Result<Bytes, Failure> {
        match self {
            Self::Made(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Self::Stored(chunk) => {
                let (reader, row) = chunk.as_ref();
                Ok(state.engine().stored_bytes(reader, row, range).await?)
            }
        }
    }
}
