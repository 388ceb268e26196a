//! What two sides may change at once, and what one transaction sees of its own changes.

use std::sync::Arc;

use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, DataType, GroupMetadata, NodePath, RegularGrid, hash,
};
use object_store::memory::InMemory;
use serde_json::json;
use storage::{
    ChunkKind, CommitOptions, Conflict, ConflictKind, Error, Node, Repository, Scope, Snapshot,
    Store, Transaction,
};

fn path(text: &str) -> NodePath {
    text.parse().unwrap()
}

fn int64() -> ArrayMetadata {
    let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
    let grid = RegularGrid::new(vec![4], vec![1]).unwrap();
    ArrayMetadata::new(grid, DataType::Int64, codecs)
}

fn group(title: &str) -> GroupMetadata {
    let mut metadata = GroupMetadata::default();
    metadata.attributes.insert("title".into(), json!(title));
    metadata
}

/// A change to one node.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create(&'static str),
    Group(&'static str, &'static str),
    Write(&'static str, u64),
    Erase(&'static str, u64),
    Delete(&'static str),
}
use Step::{Create, Delete, Erase, Group, Write};

async fn apply(transaction: &Transaction, step: Step) -> Result<(), Error> {
    match step {
        Create(at) => transaction.create_array(&path(at), int64()).await,
        Group(at, title) => transaction.put_group(&path(at), group(title)).await,
        Delete(at) => transaction.delete(&path(at)).await,
        Erase(at, index) => {
            let index = ChunkIndex::new(vec![index]);
            transaction.delete_chunk(&path(at), index).await
        }
        Write(at, value) => {
            let bytes = value.to_le_bytes().to_vec();
            let id = hash::hash(hash::Kind::PlainChunk, &bytes);
            let index = ChunkIndex::new(vec![value % 4]);
            transaction
                .put_chunk(&path(at), index, ChunkKind::Plain, id, bytes.into(), None)
                .await
        }
    }
}

async fn begin(repository: &Repository, steps: &[Step]) -> Transaction {
    let transaction = Transaction::begin(repository, &"main".parse().unwrap())
        .await
        .unwrap();
    for step in steps {
        apply(&transaction, *step).await.unwrap();
    }
    transaction
}

async fn commit(repository: &Repository, steps: &[Step]) -> Result<(), Error> {
    let transaction = begin(repository, steps).await;
    transaction.commit(CommitOptions::default()).await.map(drop)
}

/// A repository with arrays `a`, `g/a`, `g/b`, `g/h/a`, each with value 1 in chunk 1.
async fn repository() -> Repository {
    let store = Store::from_objects(Arc::new(InMemory::new()), "test");
    let repository = Repository::create(store, "test").await.unwrap();
    let steps = ["a", "g/a", "g/b", "g/h/a"].map(|at| [Create(at), Write(at, 1)]);
    commit(&repository, steps.as_flattened()).await.unwrap();
    repository
}

async fn head(repository: &Repository) -> Snapshot {
    let resolved = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    repository.snapshot(resolved.commit).await.unwrap()
}

/// Every node below the root: a group as `path/ title`, an array as `path values`.
async fn contents(repository: &Repository) -> Vec<String> {
    let snapshot = head(repository).await;
    let root = snapshot.node(&NodePath::root()).await.unwrap();
    let mut lines = Vec::new();
    for node in snapshot.walk(root).await.unwrap().into_iter().skip(1) {
        let name = node.path().as_str().to_owned();
        lines.push(match &node {
            Node::Group(_) => {
                let document: serde_json::Value = serde_json::from_slice(node.document()).unwrap();
                let title = document["attributes"]["title"].as_str().unwrap_or_default();
                format!("{name}/ {title}")
            }
            Node::Array(array) => {
                let grid = array::Region::whole(&[4]);
                let mut values = Vec::new();
                for row in array.chunks(&grid).await.unwrap() {
                    let bytes = array.chunk_bytes(&row, 0..8).await.unwrap();
                    values.push(u64::from_le_bytes(bytes[..].try_into().unwrap()).to_string());
                }
                format!("{name} {}", values.join(","))
            }
        });
    }
    let verified = repository.verify(&Scope::Everything).await.unwrap();
    assert_eq!(verified.damage, []);
    lines
}

#[tokio::test]
async fn changes_to_different_nodes_both_survive() {
    type Case = (&'static [Step], &'static [Step], &'static str);
    let cases: [Case; 8] = [
        (
            &[Write("a", 2)],
            &[Write("g/a", 3)],
            "a 1,2; g/ ; g/a 1,3; g/b 1; g/h/ ; g/h/a 1",
        ),
        (
            &[Create("n/x")],
            &[Create("n/y")],
            "a 1; g/ ; g/a 1; g/b 1; g/h/ ; g/h/a 1; n/ ; n/x ; n/y ",
        ),
        (
            &[Group("g", "one")],
            &[Write("g/a", 3)],
            "a 1; g/ one; g/a 1,3; g/b 1; g/h/ ; g/h/a 1",
        ),
        (&[Delete("a")], &[Delete("g/h")], "g/ ; g/a 1; g/b 1"),
        (
            &[Write("g/b", 2)],
            &[Delete("g/a"), Create("g/c")],
            "a 1; g/ ; g/b 1,2; g/c ; g/h/ ; g/h/a 1",
        ),
        (&[], &[Delete("g")], "a 1"),
        (
            &[Write("a", 2)],
            &[Write("a", 3)],
            "a 1,2,3; g/ ; g/a 1; g/b 1; g/h/ ; g/h/a 1",
        ),
        (
            &[Write("a", 2)],
            &[Erase("a", 1)],
            "a 2; g/ ; g/a 1; g/b 1; g/h/ ; g/h/a 1",
        ),
    ];
    for (mine, theirs, expected) in cases {
        for (first, second) in [(mine, theirs), (theirs, mine)] {
            let repository = repository().await;
            let waiting = begin(&repository, second).await;
            commit(&repository, first).await.unwrap();
            waiting.commit(CommitOptions::default()).await.unwrap();
            let found = contents(&repository).await.join("; ");
            assert_eq!(found, expected, "{first:?} then {second:?}");
        }
    }
}

#[tokio::test]
async fn changes_to_the_same_nodes_are_conflicts() {
    let cases: [(&[Step], &[Step]); 13] = [
        (&[Write("a", 2)], &[Write("a", 6)]),
        (&[Write("a", 2)], &[Write("a", 2)]),
        (&[Write("a", 5)], &[Erase("a", 1)]),
        (&[Write("a", 2)], &[Delete("a")]),
        (&[Write("g/a", 2)], &[Delete("g")]),
        (&[Create("g/n")], &[Delete("g")]),
        (&[Create("g/h/n")], &[Delete("g")]),
        (&[Group("g", "one")], &[Delete("g")]),
        (&[Group("g", "one")], &[Group("g", "two")]),
        (&[Create("n")], &[Create("n")]),
        (&[Create("n")], &[Create("n/x")]),
        (&[Write("g/a", 2)], &[Delete("g"), Group("g", "new")]),
        (&[Write("a", 2)], &[Delete("a"), Create("a"), Write("a", 1)]),
    ];
    for (mine, theirs) in cases {
        for (first, second) in [(mine, theirs), (theirs, mine)] {
            let repository = repository().await;
            let waiting = begin(&repository, second).await;
            commit(&repository, first).await.unwrap();
            let before = contents(&repository).await;
            let error = waiting.commit(CommitOptions::default()).await;
            let is_conflict = matches!(error, Err(Error::Conflict { .. }));
            assert!(is_conflict, "{first:?} then {second:?}: {error:?}");
            assert_eq!(contents(&repository).await, before);
        }
    }
}

/// The trees before and after are the same, so only the commits in between show it.
#[tokio::test]
async fn a_node_deleted_and_created_again_in_two_commits_is_a_conflict() {
    let repository = repository().await;
    let waiting = begin(&repository, &[Write("g/a", 2)]).await;
    let before = contents(&repository).await;
    commit(&repository, &[Delete("g/a")]).await.unwrap();
    commit(&repository, &[Create("g/a"), Write("g/a", 1)])
        .await
        .unwrap();
    assert_eq!(contents(&repository).await, before);
    let error = waiting.commit(CommitOptions::default()).await.unwrap_err();
    let Error::Conflict { conflicts, .. } = &error else {
        panic!("{error:?}")
    };
    let deleted = Conflict {
        path: path("g/a"),
        kind: ConflictKind::Deleted,
        region: None,
    };
    assert_eq!(*conflicts, [deleted]);
}

#[tokio::test]
async fn a_transaction_sees_its_own_changes() {
    let cases: [(&[Step], &str); 7] = [
        (&[Delete("g"), Create("g/n")], "a 1; g/ ; g/n "),
        (&[Delete("g"), Create("g/a")], "a 1; g/ ; g/a "),
        (&[Delete("g"), Group("g", "new")], "a 1; g/ new"),
        (&[Delete("g"), Create("g"), Write("g", 2)], "a 1; g 2"),
        (
            &[Delete("a"), Create("a"), Write("a", 2)],
            "a 2; g/ ; g/a 1; g/b 1; g/h/ ; g/h/a 1",
        ),
        (&[Create("n/x"), Delete("n"), Delete("g")], "a 1"),
        (
            &[Write("g/a", 2), Delete("g"), Create("g/h/n")],
            "a 1; g/ ; g/h/ ; g/h/n ",
        ),
    ];
    for (steps, expected) in cases {
        let repository = repository().await;
        commit(&repository, steps).await.unwrap();
        assert_eq!(
            contents(&repository).await.join("; "),
            expected,
            "{steps:?}"
        );
    }
}

#[tokio::test]
async fn a_change_that_makes_no_sense_is_refused() {
    let cases: [(&[Step], Step); 10] = [
        (&[], Create("a")),
        (&[], Create("a/b")),
        (&[], Group("a", "")),
        (&[], Group("a/b", "")),
        (&[], Delete("n")),
        (&[], Delete("")),
        (&[Delete("g")], Write("g/a", 2)),
        (&[Delete("g"), Group("g", "")], Write("g/a", 2)),
        (&[Delete("g"), Group("g", "")], Delete("g/a")),
        (&[Create("n/x")], Create("n")),
    ];
    for (steps, refused) in cases {
        let repository = repository().await;
        let transaction = begin(&repository, steps).await;
        let outcome = apply(&transaction, refused).await;
        assert!(outcome.is_err(), "{steps:?} {refused:?}");
    }
}

#[tokio::test]
async fn the_fill_value_of_an_array_stays() {
    let with = |fill: i64, length: u64| {
        let mut metadata = int64();
        metadata.fill_value = array::FillValue::parse(&DataType::Int64, &json!(fill)).unwrap();
        metadata.set_shape(vec![length]).unwrap();
        metadata
    };
    let repository = repository().await;
    let transaction = begin(&repository, &[]).await;
    let at = path("filled");
    transaction.create_array(&at, with(0, 4)).await.unwrap();
    // Nobody has written to it: this is how it is created.
    transaction
        .set_array_metadata(&at, with(7, 4))
        .await
        .unwrap();
    transaction.commit(CommitOptions::default()).await.unwrap();

    // Whether cells were written with it is not kept, so nothing but their absence tells.
    let transaction = begin(&repository, &[]).await;
    let refused = transaction.set_array_metadata(&at, with(9, 4)).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    transaction
        .set_array_metadata(&at, with(7, 6))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_array_of_no_chunks_stores_nothing() {
    let repository = repository().await;
    commit(&repository, &[Create("gone"), Write("gone", 5)])
        .await
        .unwrap();
    let transaction = begin(&repository, &[]).await;
    let mut metadata = int64();
    metadata.set_shape(vec![0]).unwrap();
    transaction
        .set_array_metadata(&path("gone"), metadata)
        .await
        .unwrap();
    transaction.commit(CommitOptions::default()).await.unwrap();
    let snapshot = head(&repository).await;
    let gone = snapshot.array(&path("gone")).await.unwrap();
    assert_eq!(gone.stored_bytes(), 0);
}
