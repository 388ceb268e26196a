//! Ids and the keys of immutable objects.

use std::fmt;
use std::str::FromStr;

use array::Hash;
use serde::{Deserialize, Serialize};

/// The id of a commit: `H(commit, bytes)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitId(pub Hash);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CommitId {
    type Err = array::Error;

    fn from_str(text: &str) -> Result<Self, array::Error> {
        text.parse().map(Self)
    }
}

/// The folder of shards.
pub(crate) const SHARDS: &str = "shards";

/// Key of the commit, tree, page or document `id`.
pub fn object_key(id: &Hash) -> String {
    key("objects", id)
}

/// Key of the shard or plain chunk `id`.
pub fn shard_key(id: &Hash) -> String {
    key(SHARDS, id)
}

fn key(folder: &str, id: &Hash) -> String {
    let digits = id.to_string();
    format!("{folder}/{}/{}", &digits[..2], &digits[2..])
}
