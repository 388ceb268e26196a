//! Footers of shards, and indexes of shards of other writers.
#![no_main]

use array::hash::mth;
use array::shard::{ShardBuilder, ShardFooter, footer_range, read_index, verify_unknown_shard};
use array::{Hash, hash};
use libfuzzer_sys::fuzz_target;
use quarr_fuzz::steered;

fuzz_target!(|data: &[u8]| {
    let Some((steer, bytes)) = steered(data) else {
        return;
    };
    let inner_chunks = steer % 64 + 1;
    let Some(bytes) = with_checksum(bytes, inner_chunks) else {
        return;
    };
    let bytes = bytes.as_slice();
    if let Ok(ranges) = read_index(bytes, inner_chunks) {
        for range in ranges.into_iter().flatten() {
            assert!(bytes.get(range).is_some(), "an inner chunk is in its shard");
        }
    }
    canonical(bytes, inner_chunks);
    // Any bytes are the inner chunks of some shard.
    let mut builder = ShardBuilder::new(inner_chunks);
    let mut parts = bytes.chunks(bytes.len().div_ceil(inner_chunks));
    for _ in 0..inner_chunks {
        builder.push(parts.next().filter(|part| part[0] != 0));
    }
    if let Some((id, shard)) = builder.finish() {
        let footer = verify_unknown_shard(&shard, &id);
        assert!(footer.is_ok_and(|footer| footer.entries().len() == inner_chunks));
    }
});

/// The bytes with the checksum of the index that they end with.
fn with_checksum(bytes: &[u8], inner_chunks: usize) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let end = bytes.len().checked_sub(4)?;
    let start = end.checked_sub(16 * inner_chunks)?;
    let checksum = crc32c::crc32c(&bytes[start..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}

/// If the bytes end with a footer, it is that of the shard its hashes name, or refused.
fn canonical(bytes: &[u8], inner_chunks: usize) {
    let length = bytes.len() as u64;
    let Ok(range) = footer_range(length, inner_chunks) else {
        return;
    };
    let footer = &bytes[range.start as usize..];
    let hashes: Vec<Hash> = footer[8..]
        .chunks_exact(hash::HASH_BYTES)
        .take(inner_chunks)
        .filter_map(Hash::from_slice)
        .collect();
    let Ok(footer) = ShardFooter::parse(footer, &mth(&hashes), length, inner_chunks) else {
        return;
    };
    assert_eq!(footer.entries().len(), inner_chunks);
    let present: u64 = footer
        .entries()
        .iter()
        .flatten()
        .map(|entry| entry.length)
        .sum();
    assert_eq!(
        present, range.start,
        "inner chunks fill the bytes before the footer"
    );
}
