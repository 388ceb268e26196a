//! What can go wrong with a read.

/// Failure to read or reduce an array.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository could not be read.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The selection or the shape is not valid.
    #[error(transparent)]
    Array(#[from] array::Error),
    /// The computation has no answer.
    #[error(transparent)]
    Compute(#[from] compute::Error),
    /// Stored bytes contradict their hash or the array's metadata.
    #[error("object {object} of array {array} is corrupt: {reason}")]
    Corrupt {
        /// The object in the store.
        object: String,
        /// The array it belongs to.
        array: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The array's codecs cannot be used by this version.
    #[error("array {array} cannot be read: {reason}")]
    Codecs {
        /// The array.
        array: String,
        /// What is wrong.
        reason: String,
    },
    /// A byte range outside the object.
    #[error("range starts at {start}, the object has {length_bytes} bytes")]
    Range {
        /// First byte asked for.
        start: u64,
        /// Length of the object.
        length_bytes: u64,
    },
    /// The work was cancelled because the process is stopping.
    #[error("the read was cancelled")]
    Cancelled,
}
