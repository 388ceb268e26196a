//! An array, ready to read.

use array::ArrayMetadata;
use codecs::ArrayCodec;
use storage::{ArrayNode, ChunkRow};

use crate::Error;

/// An array to read: its node and its codecs. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ArrayReader {
    pub(crate) node: ArrayNode,
    pub(crate) codec: ArrayCodec,
}

impl ArrayReader {
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
    pub(super) fn check_kind(&self, row: &ChunkRow) -> Result<(), Error> {
        if row.kind == self.codec.kind() {
            Ok(())
        } else {
            Err(self.corrupt(row, "its row is of another kind than the array"))
        }
    }
}
