//! What can go wrong with the words: nothing but invalid input.

/// Input that does not describe an array, a selection or a stored value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Text, JSON or bytes that do not mean a valid `what`.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// The thing that was to be described, for instance "slice" or "data type".
        what: &'static str,
        /// What is wrong, naming the offending part.
        reason: String,
    },
    /// Valid, but beyond what this version handles.
    #[error("unsupported {what}: {reason}")]
    Unsupported {
        /// The thing asked for.
        what: &'static str,
        /// Which part of it is not supported.
        reason: String,
    },
    /// A position outside the array.
    #[error("index {index} is out of bounds for axis {axis} with size {size}")]
    OutOfBounds {
        /// The index as given.
        index: i64,
        /// The dimension it was applied to.
        axis: usize,
        /// Length of that dimension.
        size: u64,
    },
    /// Stored bytes contradict their hash or their layout. Retrying will not help.
    #[error("corrupt {what}: {reason}")]
    Corrupt {
        /// The part that is wrong: "shard", "inner chunk", "chunk".
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Arithmetic on sizes left the range of 64 bits, or of what a process may hold.
    #[error("{what} is too large")]
    TooLarge {
        /// The quantity that overflowed.
        what: &'static str,
    },
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            reason: reason.into(),
        }
    }

    /// An [`Error::Corrupt`].
    pub fn corrupt(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            what,
            reason: reason.into(),
        }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            what,
            reason: reason.into(),
        }
    }
}
