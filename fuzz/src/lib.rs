//! What fuzz targets share: a bound on memory, ways past hashes that no fuzzer guesses, files that
//! are in memory.
//!
//! A target feeds bytes to a decoder and asserts what always holds: no panic, no allocation beyond
//! [`MAX_BYTES`], and what was understood is the same after it was written and read again.

mod bounded;
#[cfg(feature = "importers")]
mod file;

use array::hash::{Kind, hash};
use serde_json::{Value, json};

pub use bounded::MAX_BYTES;
#[cfg(feature = "importers")]
pub use file::import;

/// A document with its hash as `self`, in canonical bytes; `None` for what is no JSON object.
pub fn with_self(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    seal(kind, &mut document)?;
    Some(array::json::canonical_bytes(&document))
}

/// Puts the hash of a document into it as `self`.
pub fn seal(kind: Kind, document: &mut Value) -> Option<()> {
    let members = document.as_object_mut()?;
    members.remove("self");
    let own = hash(kind, &array::json::canonical_bytes(document));
    document["self"] = json!(own);
    Some(())
}

/// Lets panics of Arrow be caught, as Quarr does with those of its reader; all others end the process,
/// as the fuzzer has it. For `init` of a target.
pub fn let_arrow_panic() {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let file = info.location().map_or("", std::panic::Location::file);
        if !file.contains("/arrow-") {
            end(info);
        }
    }));
}

/// The first byte, which steers a target, and the rest, which it decodes.
pub fn steered(data: &[u8]) -> Option<(usize, &[u8])> {
    let (steer, rest) = data.split_first()?;
    Some((usize::from(*steer), rest))
}
