//! The transparency log: the log of a repository in a form that strangers know how to follow.
//!
//! ```text
//! log entry n ─► record n ─► leaf n ─► tiles ─► root ─► checkpoint, signed ─► cosigned by witnesses
//! ```
//!
//! A record has the hash of its log entry and nothing else, so it may be public where the data are
//! not. All of it follows from the log and can be made anew; only the signatures cannot.
//!
//! Spec: `docs/format.md`, "Transparency log"; C2SP `tlog-tiles`, `tlog-checkpoint`, `signed-note`,
//! `tlog-proof`.

mod merkle;
mod note;
mod publish;
mod read;
mod tile;
mod verify;

use std::fmt;
use std::str::FromStr;

use array::Hash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

pub use merkle::{
    TreeHash, check_consistency, consistency_ranges, inclusion_ranges, root_from_inclusion,
};
pub use note::{Checkpoint, Head, KeyKind, Signed, SignedNote, SigningKey, VerifierKey};
pub use publish::Extended;
pub use tile::{Edge, Level, TILE_WIDTH, Tile, Tiles, root, tiles_for};
pub(crate) use verify::Tree;

use crate::log::{self, LogEntry};

/// Folder of the transparency log in a repository.
const FOLDER: &str = "tlog";
/// Key of the newest signed head: the one object there that is overwritten.
pub(crate) const CHECKPOINT_KEY: &str = "tlog/checkpoint";
/// First line of a receipt.
const RECEIPT_HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Longest receipt, in bytes: one log entry in base64, and little else.
const MAX_RECEIPT_BYTES: usize = 2 * log::MAX_BYTES;

/// The record of log entry `sequence`, which has this hash.
pub fn record(repository: Uuid, sequence: u64, entry: Hash) -> String {
    format!("quarr-log-v1\n{repository}\n{sequence}\n{entry}\n")
}

/// The proof that a log has an entry: a *tlog-proof*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What the record is made of, for whoever has only the receipt. Not proven by itself.
    pub extra: Option<Vec<u8>>,
    /// The entry's number.
    pub index: u64,
    /// From the leaf's sibling up.
    pub hashes: Vec<TreeHash>,
    /// The head it leads to.
    pub checkpoint: Checkpoint,
}

impl Receipt {
    /// Checks that `record` is in the log under the checkpoint's root.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, record: &str) -> Result<(), String> {
        let leaf = TreeHash::leaf(record.as_bytes());
        let head = &self.checkpoint.head;
        match root_from_inclusion(leaf, self.index, head.size, &self.hashes)? == head.root {
            true => Ok(()),
            false => Err(format!("entry {} is not in the signed log", self.index)),
        }
    }

    /// The log entry that a receipt of a commit brings along, and its hash, checked against the
    /// root. Its signatures are the caller's to check.
    ///
    /// # Errors
    /// If it brings none, or one that is not in the log.
    pub fn check_entry(&self) -> Result<(Hash, LogEntry), String> {
        let extra = self.extra.as_deref().ok_or("it has no log entry")?;
        let no_entry = || "its extra data are no record with its log entry".to_owned();
        let ends = extra.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let end = ends.map(|(at, _)| at + 1).nth(3).ok_or_else(no_entry)?;
        let (start, entry) = extra.split_at(end);
        let (hash, entry) = LogEntry::decode(self.index, entry)?;
        let start = std::str::from_utf8(start).map_err(|_| no_entry())?;
        let repository = start.split('\n').nth(1).and_then(|id| id.parse().ok());
        let expected = record(repository.ok_or_else(no_entry)?, self.index, hash);
        if start != expected {
            return Err(no_entry());
        }
        self.check(start)?;
        Ok((hash, entry))
    }

    /// A receipt with the record and the entry as its extra data.
    pub(crate) fn with_entry(self, repository: Uuid, entry: &LogEntry) -> Self {
        let (hash, bytes) = entry.encode();
        let mut extra = record(repository, entry.sequence, hash).into_bytes();
        extra.extend(bytes);
        Self {
            extra: Some(extra),
            ..self
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{RECEIPT_HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for Receipt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not a tlog-proof".to_owned();
        if text.len() > MAX_RECEIPT_BYTES {
            return Err(format!("{} bytes are too many for a receipt", text.len()));
        }
        let (proof, checkpoint) = text.split_once("\n\n").ok_or_else(wrong)?;
        let mut lines = proof.split('\n').peekable();
        if lines.next() != Some(RECEIPT_HEADER) {
            return Err(wrong());
        }
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => Some(STANDARD.decode(&line[6..]).map_err(|_| wrong())?),
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let receipt = Self {
            extra,
            index: index.and_then(|text| text.parse().ok()).ok_or_else(wrong)?,
            hashes: lines
                .map(TreeHash::from_base64)
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
            checkpoint: checkpoint.parse()?,
        };
        match receipt.to_string() == text {
            true => Ok(receipt),
            false => Err(wrong()),
        }
    }
}

/// The hash of a log entry as it is stored or shown: canonical JSON with its `self`.
///
/// # Errors
/// If it is not entry `sequence`.
pub fn entry_hash(sequence: u64, bytes: &[u8]) -> Result<Hash, String> {
    Ok(LogEntry::decode(sequence, bytes)?.0)
}
