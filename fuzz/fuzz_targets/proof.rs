//! Proofs, and their check without a store.
#![no_main]

use array::hash::Kind;
use libfuzzer_sys::fuzz_target;
use quarr_fuzz::seal;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut document) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    // The document of the log entry inside is sealed as well.
    if let Some(entry) = document.get_mut("entry") {
        seal(Kind::LogEntry, entry);
    }
    if seal(Kind::Proof, &mut document).is_none() {
        return;
    }
    let canonical = array::json::canonical_bytes(&document);
    let Ok(proven) = storage::proof::check(&canonical) else {
        return;
    };
    let (entry, commit) = (proven.entry, proven.commit);
    // What holds by one check holds by the next.
    let again = storage::proof::check(&canonical).map(|proven| (proven.entry, proven.commit));
    assert_eq!(again.ok(), Some((entry, commit)));
});
