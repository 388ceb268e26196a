//! Appends one commit after another to a repository until it has made enough, or is killed.
//!
//! `append-commits STORE ARRAY FIRST LAST` writes chunk n of the one-dimensional int64 array ARRAY
//! of branch main, with value n, in one commit for each n from FIRST to before LAST, and prints
//! `n commit` once a commit is acknowledged.

use std::io::{self, Write as _};

use array::{ChunkIndex, Elements};
use codecs::ArrayCodec;
use quarr_tests::arrays::Error;
use storage::{ChunkKind, CommitOptions, Repository, Store, Transaction};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, array, first, last] = arguments.as_slice() else {
        return Err("usage: append-commits STORE ARRAY FIRST LAST".into());
    };
    let repository = Repository::open(Store::open(store)?).await?;
    for number in first.parse()?..last.parse()? {
        let commit = append(&repository, array, number).await?;
        let mut out = io::stdout().lock();
        writeln!(out, "{number} {commit}")?;
        out.flush()?;
    }
    Ok(())
}

async fn append(repository: &Repository, array: &str, number: u64) -> Result<String, Error> {
    let (path, branch) = (array.parse()?, "main".parse()?);
    let transaction = Transaction::begin(repository, &branch).await?;
    let metadata = transaction.base().array(&path).await?.metadata().clone();
    let elements = Elements::Fixed((number as i64).to_le_bytes().into());
    let index = ChunkIndex::new(vec![number]);
    // Value 0 is the fill value, which is not stored.
    if let Some(chunk) = ArrayCodec::new(&metadata)?.encode(&elements, &[1])? {
        let kind = ChunkKind::Plain;
        transaction
            .put_chunk(&path, index, kind, chunk.id, chunk.bytes, None)
            .await?;
    }
    let options = CommitOptions {
        author: format!("process {}", std::process::id()),
        message: format!("{array} {number}"),
        ..CommitOptions::default()
    };
    Ok(transaction.commit(options).await?.to_string())
}
