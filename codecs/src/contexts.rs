//! zstd compression contexts, kept for the next chunk: each has about a megabyte of tables, which take
//! longer to be mapped anew than a small chunk to be compressed.

use std::io;
use std::sync::{Mutex, PoisonError};

use zstd::bulk::Compressor;

/// Levels above this have tables that are too large to keep.
const MAX_KEPT_LEVEL: i32 = 3;
/// Most contexts that are kept.
const MAX_KEPT: usize = 16;

/// What a context is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) level: i32,
    pub(crate) has_checksum: bool,
}

static KEPT: Mutex<Vec<(Settings, Compressor<'static>)>> = Mutex::new(Vec::new());

/// Compresses `bytes` into one frame that says their number: the same for the same settings and bytes.
///
/// # Errors
/// If zstd fails, or there is no memory for its tables.
pub(crate) fn compress(settings: Settings, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = {
        let mut kept = kept();
        let nth = kept.iter().position(|(made_for, _)| *made_for == settings);
        nth.map(|nth| kept.swap_remove(nth).1)
    };
    let mut compressor = match found {
        Some(compressor) => compressor,
        None => {
            let mut new = Compressor::new(settings.level)?;
            new.include_checksum(settings.has_checksum)?;
            new
        }
    };
    let compressed = compressor.compress(bytes)?;
    if settings.level <= MAX_KEPT_LEVEL {
        let mut kept = kept();
        if kept.len() == MAX_KEPT {
            // That of settings nobody may use any more.
            kept.remove(0);
        }
        kept.push((settings, compressor));
    }
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks() -> impl Strategy<Value = Vec<(u64, usize, i32, bool)>> {
        prop::collection::vec(
            (any::<u64>(), 0usize..300_000, 1i32..=5, any::<bool>()),
            1..6,
        )
    }

    /// Bytes that compress somewhat, with matches far apart.
    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 60) as u8
        };
        let period: Vec<u8> = (0..length.min(70_000)).map(next).collect();
        period.iter().copied().cycle().take(length).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_context_used_before_gives_what_a_new_one_does(chunks in chunks()) {
            for (seed, length, level, has_checksum) in chunks {
                let bytes = bytes(seed, length);
                let mut fresh = Compressor::new(level).unwrap();
                fresh.include_checksum(has_checksum).unwrap();
                let settings = Settings { level, has_checksum };
                prop_assert_eq!(compress(settings, &bytes).unwrap(), fresh.compress(&bytes).unwrap());
            }
        }
    }
}
