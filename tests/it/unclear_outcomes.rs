//! Commits over a store whose answers say little about what happened.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use array::{ArrayMetadata, ChunkIndex, CodecMetadata, DataType, NodePath, RegularGrid, hash};
use object_store::memory::InMemory;
use quarr_tests::unreliable::{Outage, PutFault, Rates, Unreliable};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use storage::{ChunkKind, CommitId, CommitOptions, Error, Repository, Scope, Store, Transaction};

const WRITERS: u64 = 8;
/// Commits each writer tries.
const ROUNDS: u64 = 60;
/// Writers with one array between them: half of what they try is a conflict.
const SHARERS: u64 = 2;
/// Some writers are stopped in the middle, as if they crashed.
const CRASH_RATE: f64 = 0.1;

/// What a writer knows of a commit it tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged(CommitId),
    Failed,
    Unknown,
}

fn open(objects: &Unreliable) -> Store {
    Store::from_objects(Arc::new(objects.clone()), "test")
}

fn int64(length: u64) -> ArrayMetadata {
    let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
    let grid = RegularGrid::new(vec![length], vec![1]).unwrap();
    ArrayMetadata::new(grid, DataType::Int64, codecs)
}

/// Opens a repository, however often that takes.
async fn reopen(objects: &Unreliable) -> Repository {
    loop {
        if let Ok(repository) = Repository::open(open(objects)).await {
            return repository;
        }
    }
}

async fn put_number(
    transaction: &Transaction,
    path: &NodePath,
    index: u64,
    value: u64,
) -> Result<(), Error> {
    let bytes = value.to_le_bytes().to_vec();
    let id = hash::hash(hash::Kind::PlainChunk, &bytes);
    let index = ChunkIndex::new(vec![index]);
    transaction
        .put_chunk(path, index, ChunkKind::Plain, id, bytes.into(), None)
        .await
}

/// Commits `value` to chunk `index` of an array of branch main.
async fn commit_number(
    repository: &Repository,
    path: &NodePath,
    index: u64,
    value: u64,
    message: String,
) -> Result<CommitId, Error> {
    let transaction = Transaction::begin(repository, &"main".parse()?).await?;
    put_number(&transaction, path, index, value).await?;
    let options = CommitOptions {
        message,
        ..CommitOptions::default()
    };
    transaction.commit(options).await
}

fn array_of(writer: u64) -> NodePath {
    format!("array-{}", writer.min(WRITERS - SHARERS))
        .parse()
        .unwrap()
}

fn message(writer: u64, round: u64) -> String {
    format!("writer {writer} round {round}")
}

/// One writer: tries a commit a round, and starts anew after a crash.
async fn write(objects: Unreliable, writer: u64, seed: u64) -> Vec<Outcome> {
    let mut rng = StdRng::seed_from_u64(seed ^ (writer + 1));
    let mut repository = reopen(&objects).await;
    let mut outcomes = Vec::new();
    for round in 0..ROUNDS {
        let path = array_of(writer);
        // Which of the sharers wrote a chunk shows in its value.
        let (index, value) = (round, 1 + writer * ROUNDS + round);
        let commit = commit_number(&repository, &path, index, value, message(writer, round));
        let outcome = if rng.random_bool(CRASH_RATE) {
            let crash = Duration::from_millis(rng.random_range(0..2_000));
            let ended = tokio::time::timeout(crash, commit).await;
            repository = reopen(&objects).await;
            ended.ok()
        } else {
            Some(commit.await)
        };
        outcomes.push(match outcome {
            Some(Ok(commit)) => Outcome::Acknowledged(commit),
            Some(Err(Error::Unknown { .. })) | None => Outcome::Unknown,
            Some(Err(Error::Store { .. } | Error::Conflict { .. })) => Outcome::Failed,
            Some(Err(error)) => panic!("{error:?}"),
        });
    }
    outcomes
}

/// Every commit reachable from branch main, by its message.
async fn committed(repository: &Repository) -> HashMap<String, Vec<CommitId>> {
    let mut found: HashMap<String, Vec<CommitId>> = HashMap::new();
    let head = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    let mut next = Some(head.commit);
    while let Some(id) = next {
        let commit = repository.commit(id).await.unwrap();
        found.entry(commit.message.clone()).or_default().push(id);
        next = commit.parents.first().copied();
    }
    found
}

async fn history_under_faults(seed: u64) {
    println!("seed {seed}");
    let memory = Arc::new(InMemory::new());
    let reliable = Unreliable::new(memory.clone(), seed, Rates::default());
    let repository = Repository::create(open(&reliable), "test").await.unwrap();
    let transaction = Transaction::begin(&repository, &"main".parse().unwrap())
        .await
        .unwrap();
    for writer in 0..=WRITERS - SHARERS {
        transaction
            .create_array(&array_of(writer), int64(ROUNDS))
            .await
            .unwrap();
    }
    transaction.commit(CommitOptions::default()).await.unwrap();

    let rates = Rates {
        put: 0.2,
        get: 0.01,
    };
    let objects = Unreliable::new(memory.clone(), seed, rates);
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(objects.clone(), writer, seed)));
    let outcomes: Vec<Vec<Outcome>> = futures::future::try_join_all(writers).await.unwrap();
    // Requests that timed out have arrived.
    tokio::time::sleep(Duration::from_secs(10)).await;

    let repository = Repository::open(open(&reliable)).await.unwrap();
    let found = committed(&repository).await;
    let mut counts = [0; 3];
    for (writer, outcomes) in (0..).zip(&outcomes) {
        for (round, outcome) in (0..).zip(outcomes) {
            let commits = found
                .get(&message(writer, round))
                .map_or(&[][..], Vec::as_slice);
            let (count, is_right) = match outcome {
                Outcome::Acknowledged(id) => (0, commits == [*id]),
                Outcome::Failed => (1, commits.is_empty()),
                Outcome::Unknown => (2, commits.len() <= 1),
            };
            counts[count] += 1;
            assert!(
                is_right,
                "seed {seed}: {writer} {round} {outcome:?} {commits:?}"
            );
        }
    }
    println!("acknowledged, failed, unknown: {counts:?}");
    assert!(counts[0] > WRITERS * ROUNDS / 4, "seed {seed}: {counts:?}");
    assert_values_are_those_of(&found, &repository, seed).await;
    let verified = repository.verify(&Scope::Everything).await.unwrap();
    assert_eq!(verified.damage, [], "seed {seed}");
}

/// Each chunk holds what its last commit wrote.
async fn assert_values_are_those_of(
    found: &HashMap<String, Vec<CommitId>>,
    repository: &Repository,
    seed: u64,
) {
    let head = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    let snapshot = repository.snapshot(head.commit).await.unwrap();
    for writer in 0..WRITERS {
        let array = snapshot.array(&array_of(writer)).await.unwrap();
        for round in 0..ROUNDS {
            let row = array.chunk(&ChunkIndex::new(vec![round])).await.unwrap();
            let mut writers = (0..WRITERS)
                .filter(|other| array_of(*other) == array_of(writer))
                .filter(|other| found.contains_key(&message(*other, round)))
                .peekable();
            let Some(row) = row else {
                assert!(
                    writers.peek().is_none(),
                    "seed {seed}: {writer} {round} is lost"
                );
                continue;
            };
            let bytes = array.chunk_bytes(&row, 0..8).await.unwrap();
            let value = u64::from_le_bytes(bytes[..].try_into().unwrap());
            let mut values = writers.map(|writer| 1 + writer * ROUNDS + round);
            assert!(
                values.any(|written| written == value),
                "seed {seed}: {writer} {round}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_commit_is_lost_doubled_or_invented() {
    history_under_faults(1).await;
    history_under_faults(rand::random()).await;
}

/// A repository with one array of numbers, over a store that can be made unreliable.
async fn one_array() -> (Unreliable, Repository, NodePath) {
    let objects = Unreliable::new(Arc::new(InMemory::new()), 0, Rates::default());
    let repository = Repository::create(open(&objects), "test").await.unwrap();
    let transaction = Transaction::begin(&repository, &"main".parse().unwrap())
        .await
        .unwrap();
    let path: NodePath = "a".parse().unwrap();
    transaction.create_array(&path, int64(100)).await.unwrap();
    transaction.commit(CommitOptions::default()).await.unwrap();
    (objects, repository, path)
}

fn outage(prefix: &'static str, fault: PutFault, cuts_off: bool) -> Option<Outage> {
    Some(Outage {
        prefix,
        fault,
        cuts_off,
        writes: None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answers_are_all_lost_is_seen_in_the_log() {
    for fault in [PutFault::AnswerLost, PutFault::MeetsItself] {
        let (objects, repository, path) = one_array().await;
        objects.set_outage(outage("", fault, false));
        let commit = commit_number(&repository, &path, 0, 7, "seen".into()).await;
        let found = committed(&repository).await;
        assert_eq!(found["seen"], [commit.unwrap()], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_which_nothing_is_heard_is_reported_unknown() {
    for (fault, is_there) in [(PutFault::AnswerLost, true), (PutFault::Unavailable, false)] {
        let (objects, repository, path) = one_array().await;
        objects.set_outage(outage("log/", fault, true));
        let error = commit_number(&repository, &path, 0, 7, "unheard".into()).await;
        assert!(matches!(error, Err(Error::Unknown { .. })), "{error:?}");
        objects.set_outage(None);
        let found = committed(&repository).await;
        assert_eq!(found.contains_key("unheard"), is_there, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_commit_fails_at_once() {
    for prefix in ["log/", "objects/"] {
        let (objects, repository, path) = one_array().await;
        objects.set_outage(outage(prefix, PutFault::Forbidden, false));
        let started = tokio::time::Instant::now();
        let error = commit_number(&repository, &path, 0, 7, "refused".into()).await;
        assert!(matches!(error, Err(Error::Store { .. })), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(!committed(&repository).await.contains_key("refused"));
    }
}
