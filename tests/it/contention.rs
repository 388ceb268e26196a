//! Many writers of one branch that know nothing of each other: each gets its turn.

use std::sync::Arc;
use std::time::Duration;

use array::{ArrayMetadata, ChunkIndex, CodecMetadata, DataType, RegularGrid, hash};
use object_store::memory::InMemory;
use quarr_tests::unreliable::{Rates, Unreliable};
use serde_json::json;
use storage::{ChunkKind, CommitOptions, Repository, Store, Transaction};
use tokio::time::Instant;

use crate::support::open;

const COMMITS: u64 = 30;

fn array(writer: u64) -> array::NodePath {
    format!("array-{writer}").parse().unwrap()
}

/// Commits to an array of its own; gives how long each took.
async fn write(objects: Unreliable, writer: u64) -> Vec<Duration> {
    let repository = open(Arc::new(objects)).await.unwrap();
    let mut latencies = Vec::new();
    for number in 1..=COMMITS {
        let started = Instant::now();
        let transaction = Transaction::begin(&repository, &"main".parse().unwrap())
            .await
            .unwrap();
        let bytes = number.to_le_bytes().to_vec();
        let id = hash::hash(hash::Kind::PlainChunk, &bytes);
        let index = ChunkIndex::new(vec![number]);
        transaction
            .put_chunk(
                &array(writer),
                index,
                ChunkKind::Plain,
                id,
                bytes.into(),
                None,
            )
            .await
            .unwrap();
        transaction.commit(CommitOptions::default()).await.unwrap();
        latencies.push(started.elapsed());
    }
    latencies
}

/// The latencies of all commits, sorted, and how long they took together.
async fn compete(writers: u64) -> (Vec<Duration>, Duration) {
    let memory = Arc::new(InMemory::new());
    let store = Store::from_objects(memory.clone(), "test");
    let repository = Repository::create(store, "test").await.unwrap();
    let transaction = Transaction::begin(&repository, &"main".parse().unwrap())
        .await
        .unwrap();
    for writer in 0..writers {
        let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
        let grid = RegularGrid::new(vec![COMMITS + 1], vec![1]).unwrap();
        let metadata = ArrayMetadata::new(grid, DataType::Int64, codecs);
        transaction
            .create_array(&array(writer), metadata)
            .await
            .unwrap();
    }
    transaction.commit(CommitOptions::default()).await.unwrap();
    let started = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let objects = Unreliable::new(memory.clone(), writer, Rates::default());
        tokio::spawn(write(objects, writer))
    });
    let latencies = futures::future::try_join_all(tasks).await.unwrap();
    let mut latencies = latencies.concat();
    latencies.sort();
    (latencies, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn writers_take_turns() {
    let (_, alone) = compete(1).await;
    let alone = COMMITS as f64 / alone.as_secs_f64();
    for writers in [4, 16] {
        let (latencies, elapsed) = compete(writers).await;
        let rate = latencies.len() as f64 / elapsed.as_secs_f64();
        // What each commit takes if nobody is ever favoured.
        let turn = elapsed.as_secs_f64() / COMMITS as f64;
        let at = |share: f64| {
            let place = ((latencies.len() - 1) as f64 * share) as usize;
            latencies[place].as_secs_f64() / turn
        };
        let (median, p99, longest) = (at(0.5), at(0.99), at(1.0));
        println!(
            "{writers} writers: {rate:.1} commits/s, {alone:.1} alone; in turns of {turn:.1} s: median {median:.2}, p99 {p99:.2}, longest {longest:.2}"
        );
        assert!(rate > alone / 3.0, "{rate} commits/s");
        // A writer that is favoured makes many short commits while the others wait.
        assert!(median > 0.5, "{median}");
        assert!(longest < 15.0, "{longest}");
    }
}
