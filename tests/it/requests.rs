//! How many requests a read costs.

use std::sync::Arc;

use array::{CodecMetadata, DataType, GroupMetadata};
use compute::cf::Decode;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use quarr_tests::arrays::SampleArray;
use quarr_tests::watched::{Request, Watched};
use query::{ArrayReader, Engine};
use serde_json::json;
use storage::{CommitOptions, Isolation, Node, Snapshot};

use crate::support::{self, noise};

/// An array of 4 × 4 shards of 4 × 4 inner chunks, in a repository with nothing cached.
async fn array_of_shards() -> (Watched, Engine, ArrayReader) {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let shapes: [&[u64]; 3] = [&[256, 256], &[64, 64], &[16, 16]];
    let sample = SampleArray::sharded("shards", DataType::Float32, shapes, noise).unwrap();
    support::create(Arc::new(watched.clone()), &[sample]).await;
    let repository = support::open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = support::head(&repository).await.unwrap();
    let engine = support::engine();
    let array = support::reader(&engine, &snapshot, "shards").await.unwrap();
    // Loads the only page of the manifest.
    array
        .node()
        .chunk(&array::ChunkIndex::new(vec![3, 3]))
        .await
        .unwrap();
    watched.take_requests();
    (watched, engine, array)
}

/// The reads that reading a selection takes; anything but a read of an object fails the test.
async fn reads_of(watched: &Watched, engine: &Engine, array: &ArrayReader, text: &str) -> usize {
    let selection = support::select(array, text);
    engine.read(array, &selection, Decode::Raw).await.unwrap();
    let requests = watched.take_requests();
    assert!(
        requests
            .iter()
            .all(|request| matches!(request, Request::Get(..))),
        "{requests:?}"
    );
    requests.len()
}

#[tokio::test]
async fn one_inner_chunk_costs_two_reads_and_then_none() {
    let (watched, engine, array) = array_of_shards().await;
    assert_eq!(reads_of(&watched, &engine, &array, "0:16,0:16").await, 2);
    assert_eq!(reads_of(&watched, &engine, &array, "0:16,0:16").await, 0);
    assert_eq!(reads_of(&watched, &engine, &array, "3,5").await, 0);
    // Another inner chunk of the same shard: its footer is known.
    assert_eq!(reads_of(&watched, &engine, &array, "40,40").await, 1);
}

#[tokio::test]
async fn a_full_shard_costs_one_read() {
    let (watched, engine, array) = array_of_shards().await;
    assert_eq!(reads_of(&watched, &engine, &array, "64:128,0:64").await, 1);
    assert_eq!(reads_of(&watched, &engine, &array, "64:128,0:64").await, 0);
}

#[tokio::test]
async fn adjacent_inner_chunks_are_read_together() {
    let (watched, engine, array) = array_of_shards().await;
    // One row of inner chunks lies back to back in the shard: the footer and one range.
    assert_eq!(reads_of(&watched, &engine, &array, "0:16,0:64").await, 2);
}

#[tokio::test]
async fn the_whole_array_costs_one_read_a_shard() {
    let (watched, engine, array) = array_of_shards().await;
    assert_eq!(reads_of(&watched, &engine, &array, "...").await, 16);
}

#[tokio::test]
async fn a_chunk_inside_its_page_costs_no_read() {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
    let sample = SampleArray::new("small", DataType::Float32, &[40], &[10], codecs, noise).unwrap();
    let repository = support::create(Arc::new(watched.clone()), &[sample]).await;
    let snapshot = support::head(&repository).await.unwrap();
    let engine = support::engine();
    let array = support::reader(&engine, &snapshot, "small").await.unwrap();
    array
        .node()
        .chunk(&array::ChunkIndex::new(vec![0]))
        .await
        .unwrap();
    watched.take_requests();
    assert_eq!(reads_of(&watched, &engine, &array, "...").await, 0);
}

#[tokio::test]
async fn a_group_of_fifty_variables_costs_one_read_beyond_the_commit() {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let samples: Vec<SampleArray> = (0..50)
        .map(|number| {
            let path = format!("group/variable-{number:02}");
            let shapes: [&[u64]; 3] = [&[20], &[10], &[5]];
            let mut sample = SampleArray::sharded(&path, DataType::Float32, shapes, noise).unwrap();
            let units = json!({ "units": "K", "long_name": "a variable of a model" });
            sample.metadata.attributes = units.as_object().unwrap().clone();
            sample
        })
        .collect();
    support::create(Arc::new(watched.clone()), &samples).await;

    let repository = support::open(Arc::new(watched.clone())).await.unwrap();
    let snapshot: Snapshot = support::head(&repository).await.unwrap();
    watched.take_requests();
    let root = snapshot.node(&array::NodePath::root()).await.unwrap();
    let Node::Group(root) = root else {
        panic!("the root is no group")
    };
    let members = snapshot.members(&root).await.unwrap();
    let [Node::Group(group)] = members.as_slice() else {
        panic!("{members:?}")
    };
    // The root tree's page names the group; the group's page has its members, documents inline.
    let to_the_group = watched.take_requests();
    assert_eq!(to_the_group.len(), 1, "{to_the_group:?}");
    assert_eq!(snapshot.members(group).await.unwrap().len(), 50);
    let requests = watched.take_requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
}

#[tokio::test]
async fn a_root_of_fifty_variables_costs_one_read_beyond_the_commit() {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let sample = |number| {
        let path = format!("variable-{number:02}");
        let shapes: [&[u64]; 3] = [&[20], &[10], &[5]];
        SampleArray::sharded(&path, DataType::Float32, shapes, noise).unwrap()
    };
    let samples: Vec<SampleArray> = (0..50).map(sample).collect();
    support::create(Arc::new(watched.clone()), &samples).await;

    let repository = support::open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = support::head(&repository).await.unwrap();
    watched.take_requests();
    let root = snapshot.node(&array::NodePath::root()).await.unwrap();
    let Node::Group(group) = root else {
        panic!("the root is no group")
    };
    assert_eq!(snapshot.members(&group).await.unwrap().len(), 50);
    let requests = watched.take_requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
}

/// The records of a shared transaction that its commit reads, after `writers` staged a node each.
async fn records_read(writers: usize) -> usize {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let objects: Arc<dyn ObjectStore> = Arc::new(watched.clone());
    support::create(objects.clone(), &[]).await;
    let repository = support::open(objects.clone()).await.unwrap();
    let main = "main".parse().unwrap();
    let first = repository
        .open_transaction(&main, Isolation::Snapshot, "test")
        .await
        .unwrap();
    let mut all = vec![first];
    for _ in 1..writers {
        let elsewhere = support::open(objects.clone()).await.unwrap();
        all.push(elsewhere.shared_transaction(all[0].id()).await.unwrap());
    }
    for (number, writer) in all.iter().enumerate() {
        let path = format!("g{number}").parse().unwrap();
        let group = GroupMetadata::default();
        writer.transaction().put_group(&path, group).await.unwrap();
        writer.flush().await.unwrap();
    }
    watched.take_requests();
    let first = all.swap_remove(0);
    first.commit(CommitOptions::default()).await.unwrap();
    let requests = watched.take_requests();
    let snapshot = support::head(&repository).await.unwrap();
    let Node::Group(root) = snapshot.node(&"".parse().unwrap()).await.unwrap() else {
        panic!("the root is a group");
    };
    assert_eq!(snapshot.members(&root).await.unwrap().len(), writers);
    let is_record = |request: &&Request| match request {
        Request::Get(key, ..) => key.starts_with("staging/") && key.contains('-'),
        _ => false,
    };
    requests.iter().filter(is_record).count()
}

#[tokio::test]
async fn a_writer_that_is_alone_commits_without_reading_what_it_staged() {
    assert_eq!(records_read(1).await, 0);
    assert_eq!(records_read(2).await, 2);
}
