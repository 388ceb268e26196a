//! Writers killed at random points lose nothing they acknowledged.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use array::{ArrayMetadata, CodecMetadata, DataType, RegularGrid};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use storage::{CommitId, CommitOptions, Operation, Repository, Scope, Store, Transaction};

/// Acknowledged commits each writer must reach.
const COMMITS: u64 = 1_000;
/// Times each writer is killed on the way.
const KILLS: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_no_acknowledged_commit() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("appended");
    let repository = Repository::create(Store::open(url.to_str().unwrap()).unwrap(), "test")
        .await
        .unwrap();
    create_arrays(&repository, ["left", "right"]).await;

    let seed: u64 = rand::random();
    println!("seed {seed}");
    let writers = ["left", "right"].map(|array| {
        let url = url.clone();
        let mut rng = StdRng::seed_from_u64(seed ^ array.len() as u64);
        std::thread::spawn(move || append_under_kills(&url, array, &mut rng))
    });
    let acknowledged: Vec<HashMap<u64, String>> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();

    // Another process' view: nothing cached.
    let repository = Repository::open(Store::open(url.to_str().unwrap()).unwrap())
        .await
        .unwrap();
    let logged: Vec<CommitId> = logged_commits(&repository).await;
    for (array, acknowledged) in ["left", "right"].iter().zip(&acknowledged) {
        assert_eq!(acknowledged.len() as u64, COMMITS);
        for (number, commit) in acknowledged {
            assert!(
                logged.contains(&commit.parse().unwrap()),
                "{array} {number} {commit}"
            );
        }
        assert_every_number_is_stored(&repository, array).await;
    }
    let found = repository.verify(&Scope::Everything).await.unwrap();
    assert_eq!(found.damage, [], "seed {seed}");
}

async fn create_arrays(repository: &Repository, names: [&str; 2]) {
    let transaction = Transaction::begin(repository, &"main".parse().unwrap())
        .await
        .unwrap();
    for name in names {
        let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
        let grid = RegularGrid::new(vec![COMMITS], vec![1]).unwrap();
        let metadata = ArrayMetadata::new(grid, DataType::Int64, codecs);
        transaction
            .create_array(&name.parse().unwrap(), metadata)
            .await
            .unwrap();
    }
    transaction.commit(CommitOptions::default()).await.unwrap();
}

/// Runs a writer again and again, killing it while it is busy, until it is done.
fn append_under_kills(store: &Path, array: &str, rng: &mut StdRng) -> HashMap<u64, String> {
    let mut acknowledged = HashMap::new();
    let mut first = 0;
    while first < COMMITS {
        let mut writer = Command::new(env!("CARGO_BIN_EXE_append-commits"))
            .args([
                store.to_str().unwrap(),
                array,
                &first.to_string(),
                &COMMITS.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed some commits further on, after a delay that lands anywhere within one.
        let kill_at = first + rng.random_range(1..=2 * COMMITS / KILLS);
        let delay = Duration::from_micros(rng.random_range(0..20_000));
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            // A line cut short by the kill acknowledges nothing.
            let Some((number, commit)) = line.split_once(' ').filter(|(_, id)| id.len() == 64)
            else {
                break;
            };
            first = number.parse::<u64>().unwrap() + 1;
            acknowledged.insert(first - 1, commit.to_owned());
            if first == kill_at && first < COMMITS {
                std::thread::sleep(delay);
                writer.kill().unwrap();
            }
        }
        let status = writer.wait().unwrap();
        assert!(
            status.code().is_none_or(|code| code == 0),
            "a writer failed: {status}"
        );
    }
    acknowledged
}

async fn logged_commits(repository: &Repository) -> Vec<CommitId> {
    let entries = repository.log(None, usize::MAX).await.unwrap();
    let commits = entries
        .iter()
        .flat_map(|entry| &entry.operations)
        .filter_map(|operation| match operation {
            Operation::UpdateRef { to, .. } => *to,
            _ => None,
        });
    commits.collect()
}

async fn assert_every_number_is_stored(repository: &Repository, path: &str) {
    let head = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    let snapshot = repository.snapshot(head.commit).await.unwrap();
    let array = snapshot.array(&path.parse().unwrap()).await.unwrap();
    for number in 1..COMMITS {
        let row = array
            .chunk(&array::ChunkIndex::new(vec![number]))
            .await
            .unwrap()
            .unwrap();
        let bytes = array.chunk_bytes(&row, 0..row.length).await.unwrap();
        assert_eq!(bytes[..], (number as i64).to_le_bytes(), "{path} {number}");
    }
}
