//! What a commit and a read cost on an array of 10^8 shards, and opening a long history, in requests
//! that wait for each other.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use array::{ChunkIndex, DataType, Elements, NodePath};
use codecs::ArrayCodec;
use compute::cf::Decode;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use quarr_tests::arrays::SampleArray;
use quarr_tests::watched::{Request, Watched};
use storage::{CommitId, CommitOptions, Repository, Store, Transaction};
use tokio::time::Instant;

use crate::support::{engine, head, open, publish, reader, select, signing_key};

/// Cells of a shard: with 8 bytes each it is too large to be kept inside its page.
const SHARD: u64 = 128;
const SHARDS: u64 = 100_000_000;
/// How long each request takes, so that time counts the requests that waited for another.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// A store on which every request takes one round trip, and what it is asked for.
fn slow(objects: &InMemory) -> Watched {
    let times = ThrottleConfig {
        wait_get_per_call: ROUND_TRIP,
        wait_put_per_call: ROUND_TRIP,
        wait_list_per_call: ROUND_TRIP,
        wait_delete_per_call: ROUND_TRIP,
        ..ThrottleConfig::default()
    };
    Watched::new(Arc::new(ThrottledStore::new(objects.fork(), times)))
}

/// The round trips since `start`.
fn round_trips(start: Instant) -> u64 {
    let elapsed = start.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64();
    elapsed.round() as u64
}

fn path() -> NodePath {
    "a".parse().unwrap()
}

/// The shards on the way to shard 0 that make every page there full, as in an array without gaps:
/// its neighbours, and one below each other row of the pages above.
fn shards_around_the_first() -> impl Iterator<Item = u64> {
    let level = |step: u64| (1..1024).map(move |row| row * step);
    let all = level(1).chain(level(1 << 10)).chain(level(1 << 20));
    all.take_while(|&shard| shard < SHARDS)
}

async fn put(transaction: &Transaction, codec: &ArrayCodec, shard: u64, seed: u64) {
    let cell = |at: u64| {
        ((at + shard * SHARD + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64).to_le_bytes()
    };
    let elements = Elements::Fixed((0..SHARD).flat_map(cell).collect());
    let chunk = codec.encode(&elements, &[SHARD]).unwrap().unwrap();
    let Elements::Fixed(bytes) = &elements else {
        panic!("numbers have a fixed length");
    };
    let missing = compute::cf::Missing::from_attributes(&DataType::Int64, &Default::default());
    let statistics = compute::statistics(&DataType::Int64, bytes, &missing.unwrap());
    let index = ChunkIndex::new(vec![shard]);
    transaction
        .put_chunk(
            &path(),
            index,
            chunk.kind,
            chunk.id,
            chunk.bytes,
            statistics,
        )
        .await
        .unwrap();
}

/// A repository with array `a` of 10^8 shards, of which all near shard 0 are there.
async fn large_array() -> InMemory {
    let objects = Arc::new(InMemory::new());
    let store = Store::from_objects(objects.clone(), "test");
    let repository = Repository::create(store, "test").await.unwrap();
    let transaction = begin(&repository).await;
    let shapes: [&[u64]; 3] = [&[0], &[SHARD], &[16]];
    let empty = SampleArray::sharded("a", DataType::Int64, shapes, |_| Vec::new()).unwrap();
    let mut metadata = empty.metadata;
    metadata.set_shape(vec![SHARDS * SHARD]).unwrap();
    let codec = ArrayCodec::new(&metadata).unwrap();
    transaction.create_array(&path(), metadata).await.unwrap();
    for shard in std::iter::once(0).chain(shards_around_the_first()) {
        put(&transaction, &codec, shard, 0).await;
    }
    transaction.commit(CommitOptions::default()).await.unwrap();
    objects.fork()
}

async fn begin(repository: &Repository) -> Transaction {
    let main = "main".parse().unwrap();
    Transaction::begin(repository, &main).await.unwrap()
}

/// Writes shard 0 anew; gives the transaction and what its commit cost.
async fn commit_shard(watched: &Watched, repository: &Repository, seed: u64) -> (CommitId, u64) {
    let transaction = begin(repository).await;
    let array = transaction.array(&path()).await.unwrap();
    let codec = ArrayCodec::new(array.metadata()).unwrap();
    put(&transaction, &codec, 0, seed).await;
    watched.take_requests();
    let start = Instant::now();
    let commit = transaction.commit(CommitOptions::default()).await.unwrap();
    (commit, round_trips(start))
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_one_shard_of_many_costs_three_round_trips_and_little_metadata() {
    let watched = slow(&large_array().await);
    let repository = open(Arc::new(watched.clone())).await.unwrap();
    // What is above the shard is read once.
    commit_shard(&watched, &repository, 1).await;
    let (_, trips) = commit_shard(&watched, &repository, 2).await;
    let requests = watched.take_requests();
    let written = requests.iter().map(|request| match request {
        Request::Put(_, bytes) => *bytes,
        _ => 0,
    });
    let written: usize = written.sum();
    println!("{trips} round trips, {written} bytes of metadata, {requests:#?}");
    assert!(trips <= 3, "{trips} round trips: {requests:#?}");
    assert!(written <= 256 << 10, "{written} bytes: {requests:#?}");
}

#[tokio::test(start_paused = true)]
async fn one_inner_chunk_of_many_shards_takes_nine_round_trips_cold() {
    let watched = slow(&large_array().await);
    let start = Instant::now();
    let repository = open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = head(&repository).await.unwrap();
    let engine = engine();
    let array = reader(&engine, &snapshot, "a").await.unwrap();
    let opened = round_trips(start);
    let inner = select(&array, "0:16");
    engine.read(&array, &inner, Decode::Raw).await.unwrap();
    let read = round_trips(start);
    let requests = watched.take_requests();
    println!("opened after {opened}, read after {read} round trips");
    assert!(opened <= 4 && read <= 9, "{opened}, {read}: {requests:#?}");
}

#[tokio::test(start_paused = true)]
async fn one_inner_chunk_of_a_known_commit_takes_five_round_trips() {
    let watched = slow(&large_array().await);
    let objects: Arc<dyn ObjectStore> = Arc::new(watched.clone());
    let repository = open(objects).await.unwrap();
    let snapshot = head(&repository).await.unwrap();
    let engine = engine();
    // Its tree is known now, but no page.
    let array = reader(&engine, &snapshot, "a").await.unwrap();
    watched.take_requests();
    let start = Instant::now();
    let inner = select(&array, "0:16");
    engine.read(&array, &inner, Decode::Raw).await.unwrap();
    let trips = round_trips(start);
    let requests = watched.take_requests();
    assert!(trips <= 5 && requests.len() <= 5, "{trips}: {requests:#?}");
}

#[tokio::test]
async fn a_proof_of_one_inner_chunk_of_many_shards_is_short_and_quick() {
    let repository = open(Arc::new(large_array().await)).await.unwrap();
    let snapshot = head(&repository).await.unwrap();
    let region = array::Region::new(vec![0], vec![16]).unwrap();
    publish(&repository, &[], &[signing_key()]).await.unwrap();
    let proof = snapshot.prove(&path(), &region).await.unwrap();
    let key = [signing_key().verifier()];
    let start = std::time::Instant::now();
    let proven = storage::proof::check(&proof.bytes).unwrap();
    let signed = proven.checkpoint.as_ref().unwrap().verify(&key);
    println!(
        "{} bytes, {} of them rows and hashes, checked in {:?}",
        proof.bytes.len(),
        proven.path_bytes,
        start.elapsed()
    );
    assert!(signed.is_ok());
    assert!(proven.path_bytes <= 4096, "{}", proven.path_bytes);
}

#[tokio::test(start_paused = true)]
async fn opening_the_newest_state_takes_two_round_trips() {
    let objects = Arc::new(InMemory::new());
    let store = Store::from_objects(objects.clone(), "test");
    let repository = Repository::create(store, "test").await.unwrap();
    // Before, at and after hints and checkpoints.
    for length in [1, 15, 17, 120, 127, 128, 129, 130, 143, 145, 250, 257] {
        while repository.head().await.unwrap().next_sequence() < length {
            let transaction = begin(&repository).await;
            transaction.commit(CommitOptions::default()).await.unwrap();
        }
        let watched = slow(&objects);
        let start = Instant::now();
        let opened = open(Arc::new(watched.clone())).await.unwrap();
        let state = opened.head().await.unwrap();
        let (trips, requests) = (round_trips(start), watched.take_requests().len());
        println!("{length} entries: {trips} round trips, {requests} requests");
        assert_eq!(state, repository.head().await.unwrap());
        assert!(
            trips <= 2 && requests <= 150,
            "{length}: {trips}, {requests}"
        );
    }
}

#[test]
#[ignore = "long"]
fn a_commit_of_ten_million_rows_fits_in_two_gibibytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let output = Command::new(env!("CARGO_BIN_EXE_bulk-commit"))
        .args([store.to_str().unwrap(), "10000000"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mebibytes = words
        .iter()
        .rev()
        .nth(3)
        .and_then(|word| word.parse::<u64>().ok());
    assert!(mebibytes.is_some_and(|peak| peak < 2048), "{output:?}");
}
