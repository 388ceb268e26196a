//! What can go wrong between elements and bytes.

/// Failure to encode or decode.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metadata names codecs that do not exist or do not fit the array.
    #[error("codecs cannot be used: {reason}")]
    Codecs {
        /// What is wrong, naming the codec.
        reason: String,
    },
    /// Stored bytes contradict their hash or the metadata. Retrying will not help.
    #[error("corrupt {what}: {reason}")]
    Corrupt {
        /// The part that is wrong: "shard", "inner chunk", "chunk".
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The elements handed over do not have the chunk's shape or type.
    #[error("elements do not fit the chunk: {reason}")]
    Elements {
        /// What is wrong.
        reason: String,
    },
    /// Encoding failed.
    #[error("chunk cannot be encoded: {reason}")]
    Encode {
        /// What the codec said.
        reason: String,
    },
    /// Sizes or metadata out of range.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Error {
    pub(crate) fn corrupt(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            what,
            reason: reason.into(),
        }
    }

    pub(crate) fn codecs(reason: impl Into<String>) -> Self {
        Self::Codecs {
            reason: reason.into(),
        }
    }
}
