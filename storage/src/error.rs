//! What can go wrong with stored versions: one variant for each thing a caller can do about it.

use array::{ChunkIndex, NodePath};

use crate::{CommitId, Conflict};

/// Failure to read or write a repository.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such repository, branch, tag, commit, node or object.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// What was looked for, for instance "branch".
        what: &'static str,
        /// The name it was looked for under.
        name: String,
        /// Names that do exist and look alike.
        suggestions: Vec<String>,
    },
    /// It exists already and may not be overwritten.
    #[error("{what} {name:?} already exists")]
    AlreadyExists {
        /// What exists, for instance "repository".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name, URL or argument that cannot be used.
    #[error("{what}: {reason}")]
    Invalid {
        /// The thing that is wrong.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The branch moved and both sides changed the same nodes. Start again from the new head.
    #[error("conflict on branch {branch} since {base}: {}", list(.conflicts))]
    Conflict {
        /// The branch.
        branch: String,
        /// The commit the changes were made to.
        base: CommitId,
        /// Everything both sides changed.
        conflicts: Vec<Conflict>,
    },
    /// A transaction that was committed or aborted takes no more changes.
    #[error("transaction {transaction} is closed: it was committed or aborted")]
    Closed {
        /// The transaction.
        transaction: String,
    },
    /// What a transaction has in memory is not what is staged, since a request that staged it failed or
    /// was given up. Nothing of this request counts; it can be repeated.
    #[error("changes to transaction {transaction} could not be staged: repeat the request")]
    Unstaged {
        /// The transaction.
        transaction: String,
    },
    /// Another writer of the same transaction changed the chunk after it was read. Read it again.
    #[error("chunk {index} of {path} changed after it was read")]
    Overtaken {
        /// The array.
        path: NodePath,
        /// The chunk.
        index: ChunkIndex,
    },
    /// The branch is not at the commit the caller takes it to be at. Look, and decide again.
    #[error("branch {branch} is at {found}, not at {expected}")]
    HeadMoved {
        /// The branch.
        branch: String,
        /// Where the caller takes it to be.
        expected: CommitId,
        /// Where it is.
        found: CommitId,
    },
    /// An idempotency key was used for another request within a day.
    #[error("idempotency key {key:?} was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// Stored bytes contradict their recorded hash or schema. Retrying will not help.
    #[error("object {key} is corrupt: {reason}")]
    Corrupt {
        /// Key of the object in the store.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object the repository names is not in the store: data was lost.
    #[error("object {key} is missing")]
    Missing {
        /// Key of the object in the store.
        key: String,
    },
    /// No clear answer came about a commit. It may or may not be in the log: look for `write_id`.
    #[error("the outcome of commit {write_id} is unknown: {reason}")]
    Unknown {
        /// Names the commit in the log if it went through.
        write_id: String,
        /// What the store said last.
        reason: String,
    },
    /// The commit has expired, or one on the way to it has.
    #[error("commit {commit} has expired")]
    Expired {
        /// The commit.
        commit: String,
    },
    /// Garbage collection is deleting an object the commit needs. Nothing was written; make the
    /// change again.
    #[error("garbage collection is deleting {key}, which this commit needs: make the change again")]
    Swept {
        /// Key of the object in the store.
        key: String,
    },
    /// Another process collects garbage.
    #[error("another process collects garbage since {since}: try again later")]
    Sweeping {
        /// Since when.
        since: String,
    },
    /// Other writers kept being faster: the store takes no more commits a second. Nothing was
    /// written; try again later.
    #[error("other writers were faster for {seconds} s: nothing was written")]
    Busy {
        /// How long it was tried, in seconds.
        seconds: u64,
    },
    /// The log contradicts a head of the transparency log that was signed: entries were changed or
    /// removed. Nothing was signed.
    #[error("{reason}")]
    Inconsistent {
        /// What contradicts what.
        reason: String,
    },
    /// This machine's clock is more than five minutes off the store's.
    #[error(
        "the store's clock is {offset_seconds} s ahead of this machine's: set it before writing"
    )]
    Clock {
        /// How far the store is ahead, in seconds; negative if it is behind.
        offset_seconds: i64,
    },
    /// A file elsewhere is not the one that was referred to. Put the original back, or import again.
    #[error("the original {url} is not what was imported: {reason}")]
    Changed {
        /// The file.
        url: String,
        /// What is different.
        reason: String,
    },
    /// A file elsewhere may not be read by this process.
    #[error("{url} may not be read: {reason}")]
    Forbidden {
        /// The file.
        url: String,
        /// By which rule, and what to do.
        reason: String,
    },
    /// A file elsewhere could not be read. It may be read later.
    #[error("{url} cannot be read: {reason}")]
    Unreachable {
        /// The file.
        url: String,
        /// What its server or the system said.
        reason: String,
    },
    /// The store is served for reading alone. Nothing was written.
    #[error("the store is read-only here")]
    ReadOnly,
    /// A path, shape, selection or document that is not valid.
    #[error(transparent)]
    Array(#[from] array::Error),
    /// The object store failed.
    #[error("object store request for {key} failed")]
    Store {
        /// Key of the object in the store.
        key: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
}

impl Error {
    pub(crate) fn corrupt(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            key: key.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            reason: reason.into(),
        }
    }

    pub(crate) fn inconsistent(reason: impl Into<String>) -> Self {
        Self::Inconsistent {
            reason: reason.into(),
        }
    }

    /// A [`Error::NotFound`] with the names among `known` that look like `name`.
    pub fn not_found<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut near: Vec<(usize, &str)> = known
            .into_iter()
            .map(|candidate| (edit_distance(name, candidate), candidate))
            .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 3)
            .collect();
        near.sort_unstable();
        let suggestions = near
            .into_iter()
            .take(3)
            .map(|(_, name)| name.to_owned())
            .collect();
        Self::NotFound {
            what,
            name: name.to_owned(),
            suggestions,
        }
    }
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The first conflicts, and how many more there are.
fn list(conflicts: &[Conflict]) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<String> = conflicts
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if conflicts.len() > SHOWN {
        names.push(format!("{} more", conflicts.len() - SHOWN));
    }
    names.join(", ")
}

/// Fewest letters inserted, deleted, replaced or swapped with their neighbour to get from `a` to
/// `b`, of which the first 64 count.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = rows[i][j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_suggested() {
        let error = Error::not_found("branch", "mian", ["main", "dev", "mean", "x"]);
        let Error::NotFound { suggestions, .. } = error else {
            panic!()
        };
        assert_eq!(suggestions, ["main", "mean"]);
    }
}
