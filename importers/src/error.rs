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
    /// A file of several that does not go together with the others, or with what is in the
    /// repository.
    #[error("{file} does not fit: {reason}")]
    Misfit {
        /// The file.
        file: String,
        /// The variable, what is wrong with it, and what to do.
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
    /// A source that is not what it was when the import began.
    #[error("a source has changed since the import began: {reason}; begin it again")]
    Changed {
        /// Which, and how.
        reason: String,
    },
    /// What was staged of an import is not what this program would stage.
    #[error("the import was begun otherwise: {reason}; cancel it and begin it again")]
    BegunOtherwise {
        /// What differs.
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
    /// The destination of an export is there already.
    #[error("{what} exists: choose another name, or replace it with --overwrite")]
    Exists {
        /// The file, directory or URL.
        what: String,
    },
    /// What an earlier export that was killed left behind is in the way.
    #[error("an unfinished export left {}, which cannot be removed", .path.display())]
    Leftover {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An array has something that a format has no place for.
    #[error("{format} cannot hold {array}: {reason}")]
    NoPlace {
        /// What the format is called.
        format: &'static str,
        /// The array.
        array: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A mirror that cannot be brought up to date as it is.
    #[error("{url} {reason}")]
    Mirror {
        /// Where it is.
        url: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Labels or attributes that are not valid.
    #[error(transparent)]
    Compute(#[from] compute::Error),
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
