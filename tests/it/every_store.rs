//! What must hold on every kind of store: the promises repositories rest on, what people do, and the
//! rules for changes made at the same time, by which no update is lost silently.
//!
//! Each rule is tried in a part of the bucket of its own, through two repositories that share nothing
//! but the store, and checked through a third.

use array::{Bounds, DataType, Elements, NodePath, Region, Selection, Tensor};
use compute::cf::Decode;
use quarr_tests::arrays::SampleArray;
use quarr_tests::servers::{Kind, Server};
use query::Engine;
use serde_json::json;
use storage::{
    CommitOptions, Conflict, ConflictKind, Error, Isolation, Node, Repository, Scope, Store,
    Transaction,
};

use crate::support::{commit, engine, head, reader, select};
use crate::{store_promises, store_uses};

/// Arrays `a` and `b`: 16 numbers in shards of 8 and inner chunks of 2; group `g`: one node.
async fn create(store: &Store) -> Repository {
    let count = |index: u64| (index as i64).to_le_bytes().to_vec();
    let array = |path| SampleArray::sharded(path, DataType::Int64, [&[16], &[8], &[2]], count);
    let repository = Repository::create(store.clone(), "test").await.unwrap();
    let samples = ["a", "b", "g/old"].map(|path| array(path).unwrap());
    commit(&repository, &samples).await;
    repository
}

/// A change to one of the nodes.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Elements `start..start + count` of the array become `value`.
    Write(&'static str, u64, u64, i64),
    /// The array has this length.
    Resize(&'static str, u64),
    /// Readers multiply the array's values.
    Scale(&'static str, f64),
    /// The sum of the first array becomes an element of the second.
    Add(&'static str, &'static str),
    Delete(&'static str),
    /// A new array.
    Create(&'static str),
}
use Step::{Add, Create, Delete, Resize, Scale, Write};

fn path(text: &str) -> NodePath {
    text.parse().unwrap()
}

async fn values(engine: &Engine, node: storage::ArrayNode) -> Vec<i64> {
    let array = engine.open(node).unwrap();
    let all = select(&array, "...");
    let tensor = engine.read(&array, &all, Decode::Raw).await.unwrap();
    let Elements::Fixed(bytes) = tensor.elements else {
        panic!("numbers have a fixed length");
    };
    let element = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(8).map(element).collect()
}

async fn write(engine: &Engine, transaction: &Transaction, at: &str, start: u64, new: &[i64]) {
    let node = transaction.array(&path(at)).await.unwrap();
    let selection: Selection = format!("{start}:{}", start + new.len() as u64)
        .parse()
        .unwrap();
    let shape = node.metadata().shape().to_vec();
    let selection = selection.resolve(&shape, Bounds::Strict).unwrap();
    let tensor = Tensor {
        data_type: DataType::Int64,
        shape: vec![new.len() as u64],
        elements: Elements::Fixed(new.iter().flat_map(|value| value.to_le_bytes()).collect()),
    };
    engine
        .write(transaction, &path(at), &selection, tensor)
        .await
        .unwrap();
}

async fn apply(engine: &Engine, transaction: &Transaction, step: Step) {
    match step {
        Write(at, start, count, value) => {
            let new = vec![value; usize::try_from(count).unwrap()];
            write(engine, transaction, at, start, &new).await;
        }
        Resize(at, length) => engine
            .resize(transaction, &path(at), vec![length])
            .await
            .unwrap(),
        Scale(at, factor) => {
            let node = transaction.array(&path(at)).await.unwrap();
            let mut metadata = (**node.metadata()).clone();
            metadata
                .attributes
                .insert("scale_factor".into(), json!(factor));
            engine
                .set_metadata(transaction, &path(at), metadata)
                .await
                .unwrap();
        }
        Add(from, to) => {
            let node = transaction.array(&path(from)).await.unwrap();
            let length = node.metadata().shape().to_vec();
            transaction.note_region(&path(from), Region::whole(&length));
            let sum = values(engine, node).await.iter().sum();
            write(engine, transaction, to, 0, &[sum]).await;
        }
        Delete(at) => transaction.delete(&path(at)).await.unwrap(),
        Create(at) => {
            let like = transaction.array(&path("a")).await.unwrap();
            let metadata = (**like.metadata()).clone();
            transaction.create_array(&path(at), metadata).await.unwrap();
        }
    }
}

/// What is left after two transactions that started from the same commit.
struct Outcome {
    /// Of the one that committed second.
    second: Result<(), Error>,
    nodes: Vec<(String, Vec<i64>)>,
    scale: serde_json::Value,
}

impl Outcome {
    fn array(&self, name: &str) -> &[i64] {
        let found = self.nodes.iter().find(|(path, _)| path == name);
        &found.expect("it should exist").1
    }

    fn has(&self, name: &str) -> bool {
        self.nodes.iter().any(|(path, _)| path == name)
    }

    fn conflicts(&self) -> Vec<(&str, ConflictKind, Option<String>)> {
        let Err(Error::Conflict { conflicts, .. }) = &self.second else {
            panic!("no conflict: {:?}", self.second);
        };
        let describe = |conflict: &'_ Conflict| {
            let region = conflict.region.as_ref().map(ToString::to_string);
            (conflict.kind.clone(), region)
        };
        conflicts
            .iter()
            .map(|conflict| {
                let (kind, region) = describe(conflict);
                (conflict.path.as_str(), kind, region)
            })
            .collect()
    }
}

async fn race(store: &Store, first: Step, second: Step, isolation: Isolation) -> Outcome {
    let name = format!("{:08x}", rand::random::<u32>());
    let store = store.under(&name);
    let engine = engine();
    let one = create(&store).await;
    let other = Repository::open(store.clone()).await.unwrap();
    let main = "main".parse().unwrap();
    let begin = |repository| Transaction::begin_with(repository, &main, isolation);
    let (winner, loser) = (begin(&one).await.unwrap(), begin(&other).await.unwrap());
    apply(&engine, &winner, first).await;
    apply(&engine, &loser, second).await;
    winner.commit(CommitOptions::default()).await.unwrap();
    let second = loser.commit(CommitOptions::default()).await.map(drop);

    let third = Repository::open(store).await.unwrap();
    let snapshot = head(&third).await.unwrap();
    let scale = match snapshot.find(&path("a")).await.unwrap() {
        Some(Node::Array(array)) => array.metadata().attributes.get("scale_factor").cloned(),
        _ => None,
    };
    let mut nodes = Vec::new();
    let root = snapshot.node(&NodePath::root()).await.unwrap();
    for node in snapshot.walk(root).await.unwrap() {
        if let Node::Array(array) = node {
            let name = array.path().as_str().to_owned();
            let reader = reader(&engine, &snapshot, &name).await.unwrap();
            nodes.push((name, values(&engine, reader.node().clone()).await));
        }
    }
    let verified = third.verify(&Scope::Everything).await.unwrap();
    assert_eq!(verified.damage, []);
    Outcome {
        second,
        nodes,
        scale: scale.unwrap_or_default(),
    }
}

fn region(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// (a) A shrink against a write in the region it drops.
async fn shrink_against_write(store: &Store) {
    let (shrink, inside) = (Resize("a", 8), Write("a", 12, 2, -1));
    let left = race(store, shrink, inside, Isolation::Snapshot).await;
    let dropped = [("a", ConflictKind::DroppedRegion, region("12:14"))];
    assert_eq!(left.conflicts(), dropped);
    assert_eq!(left.array("a"), (0..8).collect::<Vec<_>>());

    let left = race(store, inside, shrink, Isolation::Snapshot).await;
    assert_eq!(left.conflicts(), dropped);
    assert_eq!(left.array("a")[11..15], [11, -1, -1, 14]);

    // What is kept may be written at the same time.
    let left = race(store, shrink, Write("a", 2, 1, -1), Isolation::Snapshot).await;
    left.second.as_ref().unwrap();
    assert_eq!(left.array("a"), [0, 1, -1, 3, 4, 5, 6, 7]);
}

/// (b) Each of two transactions reads what the other writes.
async fn write_skew(store: &Store) {
    let (one, other) = (Add("a", "b"), Add("b", "a"));
    let sum = (0..16).sum::<i64>();
    let left = race(store, one, other, Isolation::Serializable).await;
    assert_eq!(left.conflicts(), [("b", ConflictKind::Read, region("0:2"))]);
    assert_eq!((left.array("b")[0], left.array("a")[0]), (sum, 0));

    // Snapshot isolation lets both through, as it says.
    let left = race(store, one, other, Isolation::Snapshot).await;
    left.second.as_ref().unwrap();
    assert_eq!((left.array("b")[0], left.array("a")[0]), (sum, sum));
}

/// (c) A group is deleted and something is created under it.
async fn delete_against_create(store: &Store) {
    let (delete, create) = (Delete("g"), Create("g/new"));
    let left = race(store, delete, create, Isolation::Snapshot).await;
    let kinds = left.conflicts();
    assert!(
        kinds
            .iter()
            .all(|(_, kind, _)| *kind == ConflictKind::Deleted),
        "{kinds:?}"
    );
    assert!(!left.has("g/new") && !left.has("g/old"));

    let left = race(store, create, delete, Isolation::Snapshot).await;
    let kinds = left.conflicts();
    assert!(
        kinds
            .iter()
            .all(|(_, kind, _)| *kind == ConflictKind::Deleted),
        "{kinds:?}"
    );
    assert!(left.has("g/new") && left.has("g/old"));
}

/// (d) Different inner chunks of one shard: both survive. (e) The same one: a conflict.
async fn inner_chunks(store: &Store) {
    let (one, other) = (Write("a", 0, 2, -1), Write("a", 2, 2, -2));
    for (first, second) in [(one, other), (other, one)] {
        let left = race(store, first, second, Isolation::Snapshot).await;
        left.second.as_ref().unwrap();
        assert_eq!(left.array("a")[..6], [-1, -1, -2, -2, 4, 5]);
    }
    let same = Write("a", 1, 2, -1);
    for (first, second) in [(one, same), (one, one)] {
        let left = race(store, first, second, Isolation::Snapshot).await;
        assert_eq!(left.conflicts(), [("a", ConflictKind::Data, region("0:2"))]);
        assert_eq!(left.array("a")[..4], [-1, -1, 2, 3]);
    }
}

/// (f) Metadata that says what values mean, against values written under the old one.
async fn metadata_against_data(store: &Store) {
    let (scale, data) = (Scale("a", 0.5), Write("a", 4, 2, -1));
    let left = race(store, scale, data, Isolation::Snapshot).await;
    assert_eq!(left.conflicts()[0].1, ConflictKind::Metadata);
    assert_eq!((left.array("a")[4], left.scale), (4, json!(0.5)));

    let left = race(store, data, scale, Isolation::Snapshot).await;
    assert_eq!(left.conflicts()[0].1, ConflictKind::Metadata);
    assert_eq!((left.array("a")[4], left.scale), (-1, json!(null)));
}

async fn every_rule(store: &Store) {
    shrink_against_write(store).await;
    write_skew(store).await;
    delete_against_create(store).await;
    inner_chunks(store).await;
    metadata_against_data(store).await;
}

/// Writers of one object, and how often they race where every change is tested; the long test has a
/// hundred rounds.
const WRITERS: usize = 32;
const ROUNDS: usize = 8;

async fn start(kind: Kind) -> Option<Server> {
    let server = Server::start(kind).await.unwrap();
    if server.is_none() {
        println!("skipped: {kind:?} is not installed");
    }
    server
}

/// Races of writers in a part of the store, from four clients.
async fn races(server: &Server, rounds: usize) {
    let name = format!("races-{rounds}");
    let stores = [(); 4].map(|()| server.store(&name).unwrap());
    store_promises::one_writer_wins(&stores, WRITERS, rounds).await;
}

/// Everything that must hold on a store. One part comes after the other, so that its server starts
/// once.
async fn everything(kind: Kind) {
    let Some(server) = start(kind).await else {
        return;
    };
    store_promises::objects_come_and_go(&server.store("promises").unwrap()).await;
    store_promises::probes_find_it_sound(&server.store("promises").unwrap()).await;
    races(&server, ROUNDS).await;
    every_rule(&server.store("rules").unwrap()).await;
    store_uses::refs_are_made_once(&server.store("uses").unwrap()).await;
    store_uses::garbage_goes(&server.store("uses").unwrap()).await;
    store_uses::files_come_and_go(&server.store("uses").unwrap()).await;
}

#[tokio::test]
async fn everything_holds_on_a_local_disk() {
    everything(Kind::Local).await;
}

#[tokio::test]
async fn everything_holds_on_moto() {
    everything(Kind::Moto).await;
}

#[tokio::test]
async fn everything_holds_on_minio() {
    everything(Kind::Minio).await;
}

#[tokio::test]
async fn everything_holds_on_azurite() {
    everything(Kind::Azurite).await;
}

#[tokio::test]
async fn everything_holds_on_google_cloud_storage() {
    everything(Kind::Google).await;
}

/// The same races, more often.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute; make bench runs it"]
async fn one_of_many_writers_wins_a_hundred_races_on_every_store() {
    for kind in [
        Kind::Local,
        Kind::Moto,
        Kind::Minio,
        Kind::Azurite,
        Kind::Google,
    ] {
        if let Some(server) = start(kind).await {
            let started = std::time::Instant::now();
            races(&server, 100).await;
            println!("{kind:?}: {:.1} s", started.elapsed().as_secs_f64());
        }
    }
}
