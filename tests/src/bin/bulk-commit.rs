//! Commits many chunks at once and says what that took.
//!
//! `bulk-commit STORE ROWS` creates a repository with an int64 array of ROWS chunks, each with its
//! statistics, in one commit, and prints how long that took and the most memory there was.

use std::io::{self, Write as _};
use std::time::Instant;

use array::{ArrayMetadata, ChunkIndex, CodecMetadata, DataType, NodePath, RegularGrid, hash};
use compute::cf::Missing;
use quarr_tests::arrays::Error;
use serde_json::json;
use storage::{ChunkKind, CommitOptions, Repository, Store, Transaction};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, rows] = arguments.as_slice() else {
        return Err("usage: bulk-commit STORE ROWS".into());
    };
    let rows: u64 = rows.parse()?;
    let repository = Repository::create(Store::open(store)?, "bulk-commit").await?;
    let transaction = Transaction::begin(&repository, &"main".parse()?).await?;
    let path: NodePath = "a".parse()?;
    let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
    let grid = RegularGrid::new(vec![rows + 1], vec![1])?;
    let metadata = ArrayMetadata::new(grid, DataType::Int64, codecs);
    let missing = Missing::from_attributes(&metadata.data_type, &metadata.attributes)?;
    transaction.create_array(&path, metadata.clone()).await?;

    let started = Instant::now();
    // Value 0 is the fill value, which is not stored.
    for number in 1..=rows {
        let bytes = number.to_le_bytes();
        let id = hash::hash(hash::Kind::PlainChunk, &bytes);
        let statistics = compute::statistics(&metadata.data_type, &bytes, &missing);
        let index = ChunkIndex::new(vec![number]);
        let bytes = bytes.to_vec().into();
        transaction
            .put_chunk(&path, index, ChunkKind::Plain, id, bytes, statistics)
            .await?;
    }
    let put = started.elapsed();
    transaction.commit(CommitOptions::default()).await?;
    let committed = started.elapsed();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{rows} rows put in {:.1} s, committed after {:.1} s, {} MiB at most",
        put.as_secs_f64(),
        committed.as_secs_f64(),
        peak_memory_mebibytes()?,
    )?;
    Ok(())
}

/// The most memory this process had, by Linux.
fn peak_memory_mebibytes() -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kibibytes.ok_or("no VmHWM")?.parse::<u64>()? >> 10)
}
