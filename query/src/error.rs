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
    /// The directory of the disk cache cannot be used.
    #[error("the cache directory {path} cannot be used: {source}")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// More memory is needed at once than all requests have together.
    #[error(
        "{needed_bytes} bytes of memory are needed at once, all requests together have {limit_bytes}"
    )]
    OverBudget {
        /// What is needed, in bytes.
        needed_bytes: u64,
        /// What there is, in bytes.
        limit_bytes: u64,
    },
    /// Other requests have the memory.
    #[error(
        "{needed_bytes} bytes of memory were not free within {} s, other requests have them: try again",
        waited.as_secs_f64()
    )]
    Busy {
        /// What is needed, in bytes.
        needed_bytes: u64,
        /// How long it was waited for.
        waited: std::time::Duration,
    },
    /// The work was cancelled because the process is stopping.
    #[error("the read was cancelled")]
    Cancelled,
}
