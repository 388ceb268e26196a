//! The transparency log: keys, signed notes, checkpoints, receipts, names of tiles, and tiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quarr_fuzz::steered;
use storage::tlog::{Checkpoint, Head, Receipt, SignedNote, SigningKey, Tile, VerifierKey};

/// Asserts that a value which was parsed is written as it was read.
macro_rules! same_text {
    ($text:expr, $($kind:ty),*) => {
        $(if let Ok(value) = $text.parse::<$kind>() {
            assert_eq!(value.to_string(), $text);
        })*
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((steer, bytes)) = steered(data) else {
        return;
    };
    let tile = match steer % 4 {
        0 => "tile/0/000",
        1 => "tile/1/000.p/3",
        2 => "tile/entries/000.p/2",
        _ => "tile/entries/000",
    };
    if let Ok(tile) = tile.parse::<Tile>() {
        let _ = tile.hashes(bytes);
        let _ = tile.records(&bytes.to_vec().into());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    same_text!(
        text,
        Checkpoint,
        Head,
        Receipt,
        SignedNote,
        Tile,
        VerifierKey
    );
    let _ = SigningKey::from_secret(text);
    if let (Ok(note), Ok(key)) = (text.parse::<SignedNote>(), KEY.parse()) {
        let keys: [VerifierKey; 1] = [key];
        let _ = note.verify(&keys);
    }
    if let Ok(receipt) = text.parse::<Receipt>() {
        let _ = receipt.check_entry();
        let _ = receipt.check("a record");
    }
});

/// The public key of the notes in the seeds.
const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
