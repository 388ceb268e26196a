//! An array, ready to read.

use std::sync::Arc;

use array::ArrayMetadata;
use codecs::ArrayCodec;
use storage::{ArrayNode, ChunkRow, Location};

use super::Spans;
use crate::Error;

/// Bytes a chunk in a file elsewhere may have beyond twice what it decodes to.
const MAX_OVERHEAD: u64 = 1 << 16;

/// An array to read: its node and its codecs. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ArrayReader {
    pub(crate) node: ArrayNode,
    pub(crate) codec: ArrayCodec,
    /// The codecs Zarr clients see, if they do not know the array's.
    pub(crate) served: Option<ArrayCodec>,
    /// Which chunks in files elsewhere share a request, of those one read is about.
    pub(super) spans: Option<Arc<Spans>>,
}

impl ArrayReader {
    pub(crate) fn new(node: ArrayNode, codec: ArrayCodec, served: Option<ArrayCodec>) -> Self {
        Self {
            node,
            codec,
            served,
            spans: None,
        }
    }

    /// The array's node.
    pub fn node(&self) -> &ArrayNode {
        &self.node
    }

    /// The array's metadata.
    pub fn metadata(&self) -> &ArrayMetadata {
        self.node.metadata()
    }

    /// Whether its stored chunks and inner chunks are those of another array.
    pub(crate) fn has_grid_of(&self, other: &Self) -> bool {
        let same_chunks = self.codec.chunk_shape() == other.codec.chunk_shape();
        same_chunks && self.codec.inner_shape() == other.codec.inner_shape()
    }

    /// Whether Zarr clients see other codecs than the array's, as [`codecs::served`] has them.
    pub fn is_served_otherwise(&self) -> bool {
        self.served.is_some()
    }

    /// The array's codecs.
    pub fn codec(&self) -> &ArrayCodec {
        &self.codec
    }

    pub(crate) fn corrupt(&self, row: &ChunkRow, error: impl std::fmt::Display) -> Error {
        Error::Corrupt {
            object: self.node.chunk_object(row),
            array: self.node.path().to_string(),
            reason: error.to_string(),
        }
    }

    /// That the bytes of a chunk are not those its row names.
    pub(crate) fn altered(&self, row: &ChunkRow, error: impl std::fmt::Display) -> Error {
        let Location::External { url, offset, .. } = &row.location else {
            return self.corrupt(row, error);
        };
        let end = offset.saturating_add(row.length);
        let reason = format!(
            "bytes {offset} to {end}, of array {}, are others, though the file looks the same",
            self.node.path()
        );
        let url = url.clone();
        storage::Error::Changed { url, reason }.into()
    }

    pub(crate) fn unwritable(&self, error: codecs::Error) -> Error {
        match error {
            codecs::Error::Array(error) => error.into(),
            error => Error::Corrupt {
                object: "chunk to be changed".into(),
                array: self.node.path().to_string(),
                reason: error.to_string(),
            },
        }
    }

    /// The row says how the object is verified; the codecs say how it is read. They must agree.
    pub(crate) fn check_kind(&self, row: &ChunkRow) -> Result<(), Error> {
        if row.kind != self.codec.kind() {
            return Err(self.corrupt(row, "its row is of another kind than the array"));
        }
        // A row can name any part of any file; encoded, data is rarely larger than decoded.
        let is_external = matches!(row.location, Location::External { .. });
        let most = 2 * self.decoded_bytes() + MAX_OVERHEAD;
        if is_external && row.length > most {
            let reason = format!("its row claims {} bytes, the most is {most}", row.length);
            return Err(self.corrupt(row, reason));
        }
        Ok(())
    }
}
