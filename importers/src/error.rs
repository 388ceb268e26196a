//! What can go wrong with an import or an export.

use std::path::PathBuf;

/// Failure to import or export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source file cannot be read at all.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The source file is not what its format says.
    #[error("{} is malformed: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The source holds something that has no place in a Zarr array.
    #[error("{what} cannot be imported: {reason}")]
    Unsupported {
        /// The variable or attribute.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// An option that does not fit the source.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The destination of an export.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Encoding a chunk failed.
    #[error(transparent)]
    Codecs(#[from] codecs::Error),
    /// Metadata that is not valid.
    #[error(transparent)]
    Array(#[from] array::Error),
    /// The repository failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Reading back for an export failed.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// The process is stopping.
    #[error("the import was cancelled")]
    Cancelled,
    /// A worker stopped without an answer: a defect of the importer or of a library it uses.
    #[error("a worker of the import failed: {reason}")]
    Worker {
        /// What it said last.
        reason: String,
    },
}
