//! Mirrors of branches: exactly the commit when an update is done, readable while it is under way,
//! and as few requests as the change takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use array::{ChunkIndex, DataType, FillValue, GroupMetadata, NodeMetadata, NodePath, Region};
use bytes::Bytes;
use codecs::ArrayCodec;
use importers::document_with_members;
use importers::export::{PublishOptions, Published, publish};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use quarr_tests::arrays::SampleArray;
use quarr_tests::stopping::Stopping;
use quarr_tests::watched::{Request, Watched};
use query::Engine;
use storage::{CommitOptions, Node, Outbox, Repository, Snapshot, Store, Transaction};

use crate::support::{self, noise};

const STATE: &str = ".quarr-publish.json";

fn options() -> PublishOptions {
    PublishOptions {
        branch: "main".into(),
        path: NodePath::root(),
        force: false,
    }
}

async fn bring(
    engine: &Engine,
    snapshot: &Snapshot,
    objects: Arc<dyn ObjectStore>,
) -> Result<Published, importers::Error> {
    let outbox = Outbox::new(Store::from_objects(objects, "mirror"));
    publish(engine, snapshot, &options(), &outbox, &|_| {}).await
}

/// Every object of a mirror but its state.
async fn objects_of(objects: &Arc<dyn ObjectStore>) -> BTreeMap<String, Bytes> {
    let outbox = Outbox::new(Store::from_objects(objects.clone(), "mirror"));
    let mut found = BTreeMap::new();
    for key in outbox.list("", usize::MAX).await.unwrap() {
        let bytes = outbox.get(&key).await.unwrap().unwrap();
        if key != STATE {
            found.insert(key, bytes);
        }
    }
    found
}

/// Every object that a mirror of a commit has.
async fn wanted(engine: &Engine, snapshot: &Snapshot) -> BTreeMap<String, Bytes> {
    let root = snapshot.node(&NodePath::root()).await.unwrap();
    let nodes = snapshot.walk(root).await.unwrap();
    let mut wanted = BTreeMap::new();
    for node in &nodes {
        let prefix = match node.path().as_str() {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let document = document_with_members(node, &nodes);
        wanted.insert(format!("{prefix}zarr.json"), document.into());
        let Node::Array(array) = node else { continue };
        let reader = engine.open(array.clone()).unwrap();
        let grid = Region::whole(&array.metadata().grid().grid_shape());
        for row in array.chunks(&grid).await.unwrap() {
            let bytes = engine
                .stored_bytes(&reader, &row, 0..row.length)
                .await
                .unwrap();
            let key = array.metadata().chunk_key_encoding.key(&row.index);
            wanted.insert(format!("{prefix}{key}"), bytes);
        }
    }
    wanted
}

async fn assert_mirrors(engine: &Engine, snapshot: &Snapshot, objects: &Arc<dyn ObjectStore>) {
    let (found, wanted) = (objects_of(objects).await, wanted(engine, snapshot).await);
    let keys = |objects: &BTreeMap<String, Bytes>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&found), keys(&wanted));
    assert!(found == wanted, "the bytes of some object differ");
}

fn sample(path: &str, shapes: [&[u64]; 3]) -> SampleArray {
    SampleArray::sharded(path, DataType::Float32, shapes, noise).unwrap()
}

async fn begin(repository: &Repository) -> Transaction {
    Transaction::begin(repository, &"main".parse().unwrap())
        .await
        .unwrap()
}

async fn put_chunk(transaction: &Transaction, path: &str, at: &[u64], value: f32) {
    let path: NodePath = path.parse().unwrap();
    let node = transaction.array(&path).await.unwrap();
    let codec = ArrayCodec::new(node.metadata()).unwrap();
    let index = ChunkIndex::new(at.to_vec());
    let cells = codec.chunk_shape().iter().product();
    let elements = array::Elements::repeat(codec.data_type(), &value.to_le_bytes(), cells).unwrap();
    let inside = node.metadata().grid().chunk_region_in_array(&index);
    let chunk = codec.encode(&elements, inside.shape()).unwrap().unwrap();
    let put = transaction.put_chunk(&path, index, chunk.kind, chunk.id, chunk.bytes, None);
    put.await.unwrap();
}

/// A repository of one array of 16 × 16 shards and a small one in a group.
async fn repository() -> Repository {
    let samples = [
        sample("large", [&[256, 256], &[16, 16], &[8, 8]]),
        sample("group/small", [&[10], &[10], &[5]]),
    ];
    support::create(Arc::new(InMemory::new()), &samples).await
}

async fn commit(transaction: Transaction) {
    transaction.commit(CommitOptions::default()).await.unwrap();
}

fn puts(requests: &[Request]) -> Vec<String> {
    let put = |request: &Request| match request {
        Request::Put(key, _) => Some(key.clone()),
        _ => None,
    };
    requests.iter().filter_map(put).collect()
}

#[tokio::test]
async fn an_update_takes_as_many_requests_as_the_change() {
    let repository = repository().await;
    let engine = support::engine();
    let mirror = Watched::new(Arc::new(InMemory::new()));
    let objects: Arc<dyn ObjectStore> = Arc::new(mirror.clone());
    let first = support::head(&repository).await.unwrap();
    let published = bring(&engine, &first, objects.clone()).await.unwrap();
    assert_eq!((published.chunks, published.documents), (257, 4));
    assert_mirrors(&engine, &first, &objects).await;

    // Nothing changed: what it is of, and its top.
    mirror.take_requests();
    let published = bring(&engine, &first, objects.clone()).await.unwrap();
    assert_eq!(
        (published.chunks, published.documents, published.deleted),
        (0, 0, 0)
    );
    let requests = mirror.take_requests();
    assert!(
        requests.len() <= 3 && puts(&requests).is_empty(),
        "{requests:?}"
    );

    // Two of 257 chunks.
    let transaction = begin(&repository).await;
    put_chunk(&transaction, "large", &[3, 4], 1.0).await;
    put_chunk(&transaction, "large", &[15, 0], 2.0).await;
    commit(transaction).await;
    let second = support::head(&repository).await.unwrap();
    mirror.take_requests();
    let published = bring(&engine, &second, objects.clone()).await.unwrap();
    assert_eq!(
        (published.chunks, published.documents, published.deleted),
        (2, 0, 0)
    );
    let requests = mirror.take_requests();
    let written = puts(&requests);
    assert_eq!(written.len(), 4, "{written:?}");
    assert_eq!((written[0].as_str(), written[3].as_str()), (STATE, STATE));
    assert!(requests.len() <= 8, "{requests:?}");
    assert_mirrors(&engine, &second, &objects).await;
}

#[tokio::test]
async fn chunks_come_before_the_metadata_that_needs_them() {
    let repository = repository().await;
    let engine = support::engine();
    let mirror = Watched::new(Arc::new(InMemory::new()));
    let objects: Arc<dyn ObjectStore> = Arc::new(mirror.clone());
    let first = support::head(&repository).await.unwrap();
    bring(&engine, &first, objects.clone()).await.unwrap();

    let transaction = begin(&repository).await;
    let path: NodePath = "large".parse().unwrap();
    let node = transaction.array(&path).await.unwrap();
    let mut metadata = (**node.metadata()).clone();
    metadata.set_shape(vec![272, 256]).unwrap();
    transaction
        .set_array_metadata(&path, metadata)
        .await
        .unwrap();
    for column in 0..16 {
        put_chunk(&transaction, "large", &[16, column], 5.0).await;
    }
    commit(transaction).await;
    let second = support::head(&repository).await.unwrap();
    mirror.take_requests();
    bring(&engine, &second, objects.clone()).await.unwrap();
    let written = puts(&mirror.take_requests());
    let (chunks, documents) = written.split_at(17);
    assert!(
        chunks[1..].iter().all(|key| key.starts_with("large/c/16/")),
        "{written:?}"
    );
    assert_eq!(documents, ["large/zarr.json", "zarr.json", STATE]);
    assert_mirrors(&engine, &second, &objects).await;
}

/// Commits that change everything a commit can change, one after another.
async fn eventful_history(repository: &Repository) -> Vec<Snapshot> {
    let mut snapshots = vec![support::head(repository).await.unwrap()];
    let path: NodePath = "large".parse().unwrap();
    for step in 0..6 {
        let transaction = begin(repository).await;
        match step {
            // Longer along one dimension, shorter along the other.
            0 => {
                let node = transaction.array(&path).await.unwrap();
                let mut metadata = (**node.metadata()).clone();
                metadata.set_shape(vec![70, 20]).unwrap();
                transaction
                    .set_array_metadata(&path, metadata)
                    .await
                    .unwrap();
                put_chunk(&transaction, "large", &[4, 1], 3.0).await;
            }
            // A chunk is fill value again, another one changes, and so do attributes.
            1 => {
                transaction
                    .delete_chunk(&path, ChunkIndex::new(vec![0, 0]))
                    .await
                    .unwrap();
                put_chunk(&transaction, "large", &[1, 0], 4.0).await;
                let mut group = GroupMetadata::default();
                group.attributes.insert("title".into(), "new".into());
                transaction
                    .put_group(&NodePath::root(), group)
                    .await
                    .unwrap();
            }
            // New arrays, in new groups.
            2 => {
                let deep = sample("a/b/deep", [&[6, 6], &[6, 6], &[3, 3]]);
                deep.store(&transaction).await.unwrap();
            }
            // Another array under the same name: another type.
            3 => {
                transaction.delete(&path).await.unwrap();
                let other =
                    SampleArray::sharded("large", DataType::UInt8, [&[40], &[8], &[4]], |at| {
                        vec![at as u8 + 1]
                    });
                other.unwrap().store(&transaction).await.unwrap();
            }
            // A group goes, and a group becomes an array.
            4 => {
                transaction.delete(&"group".parse().unwrap()).await.unwrap();
                transaction.delete(&"a".parse().unwrap()).await.unwrap();
                sample("a", [&[9], &[9], &[3]])
                    .store(&transaction)
                    .await
                    .unwrap();
            }
            // And back; what absent chunks hold changes.
            _ => {
                transaction.delete(&"a".parse().unwrap()).await.unwrap();
                transaction.delete(&path).await.unwrap();
                sample("a/b", [&[9], &[9], &[3]])
                    .store(&transaction)
                    .await
                    .unwrap();
                let mut filled = sample("large", [&[40], &[8], &[4]]);
                filled.metadata.fill_value =
                    FillValue::from_bytes(&DataType::Float32, vec![0, 0, 128, 63]).unwrap();
                filled.store(&transaction).await.unwrap();
            }
        }
        commit(transaction).await;
        snapshots.push(support::head(repository).await.unwrap());
    }
    snapshots
}

async fn small_repository() -> Repository {
    let samples = [
        sample("large", [&[40, 40], &[16, 16], &[8, 8]]),
        sample("group/small", [&[10], &[10], &[5]]),
    ];
    support::create(Arc::new(InMemory::new()), &samples).await
}

#[tokio::test]
async fn whatever_changes_the_mirror_is_the_commit() {
    let repository = small_repository().await;
    let engine = support::engine();
    let snapshots = eventful_history(&repository).await;
    let one_by_one: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for snapshot in &snapshots {
        bring(&engine, snapshot, one_by_one.clone()).await.unwrap();
        assert_mirrors(&engine, snapshot, &one_by_one).await;
    }
    // And from any to any, backwards too.
    for from in &snapshots {
        for to in &snapshots {
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            bring(&engine, from, objects.clone()).await.unwrap();
            bring(&engine, to, objects.clone()).await.unwrap();
            assert_mirrors(&engine, to, &objects).await;
        }
    }
}

/// Whether what a reader finds in a mirror is of one of these commits: each array that is listed has
/// the metadata of one, and each of its chunks is what one of those with such metadata has.
async fn assert_readable(
    objects: &Arc<dyn ObjectStore>,
    commits: &[BTreeMap<String, Bytes>],
    what: &str,
) {
    let found = objects_of(objects).await;
    let Some(root) = found.get("zarr.json") else {
        return;
    };
    let root: serde_json::Value = serde_json::from_slice(root).unwrap();
    let listed = root["consolidated_metadata"]["metadata"]
        .as_object()
        .unwrap();
    for (path, document) in listed {
        let NodeMetadata::Array(array) = NodeMetadata::from_json(document.clone()).unwrap() else {
            continue;
        };
        let same_keys = |bytes: &Bytes| match NodeMetadata::parse(bytes).unwrap() {
            NodeMetadata::Array(other) => {
                other.data_type == array.data_type
                    && other.chunk_shape() == array.chunk_shape()
                    && other.fill_value == array.fill_value
            }
            NodeMetadata::Group(_) => false,
        };
        let own = format!("{path}/zarr.json");
        let alike: Vec<_> = commits
            .iter()
            .filter(|commit| commit.get(&own).is_some_and(same_keys))
            .collect();
        assert!(
            !alike.is_empty(),
            "{what}: {path} has metadata of no commit"
        );
        // A commit with this very shape: whose chunks there must be, or newer ones.
        for position in Region::whole(&array.grid().grid_shape()).positions() {
            let index = ChunkIndex::new(position);
            let key = format!("{path}/{}", array.chunk_key_encoding.key(&index));
            let is_known = alike.iter().any(|commit| {
                let other = NodeMetadata::parse(&commit[&own]).unwrap();
                let NodeMetadata::Array(other) = other else {
                    return false;
                };
                other.grid().contains(&index) && commit.get(&key) == found.get(&key)
            });
            assert!(is_known, "{what}: {key} is of no commit");
        }
    }
}

#[tokio::test]
async fn an_update_that_is_cut_off_is_readable_and_goes_on() {
    let repository = small_repository().await;
    let engine = support::engine();
    let snapshots = eventful_history(&repository).await;
    let mut commits = Vec::new();
    for snapshot in &snapshots {
        commits.push(wanted(&engine, snapshot).await);
    }
    for at in 0..snapshots.len() {
        for changes in 0.. {
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let mut known = &commits[at..=at];
            if at > 0 {
                bring(&engine, &snapshots[at - 1], objects.clone())
                    .await
                    .unwrap();
                known = &commits[at - 1..=at];
            }
            let stopping = Stopping::after(objects.clone(), changes);
            let cut_off = bring(&engine, &snapshots[at], Arc::new(stopping.clone())).await;
            let what = format!("step {at} after {changes} changes");
            assert_eq!(cut_off.is_err(), stopping.has_stopped(), "{what}");
            assert_readable(&objects, known, &what).await;
            // Later, when there may be other commits.
            let next = &snapshots[(at + 1).min(snapshots.len() - 1)];
            bring(&engine, next, objects.clone()).await.unwrap();
            assert_mirrors(&engine, next, &objects).await;
            if !stopping.has_stopped() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_mirror_of_this_is_refused_and_taken_over_by_force() {
    let repository = small_repository().await;
    let other = small_repository().await;
    let engine = support::engine();
    let snapshot = support::head(&repository).await.unwrap();
    let foreign = support::head(&other).await.unwrap();
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let outbox = Outbox::new(Store::from_objects(objects.clone(), "mirror"));
    let refused = async |what: &str, snapshot: &Snapshot| {
        let before = objects_of(&objects).await;
        let error = bring(&engine, snapshot, objects.clone()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(what) && text.contains("--force"), "{text}");
        assert_eq!(objects_of(&objects).await, before);
    };
    let forced = async |snapshot: &Snapshot| {
        let options = PublishOptions {
            force: true,
            ..options()
        };
        publish(&engine, snapshot, &options, &outbox, &|_| {})
            .await
            .unwrap();
        assert_mirrors(&engine, snapshot, &objects).await;
    };
    outbox
        .put("thesis.tex", "years of work".into())
        .await
        .unwrap();
    refused("is no mirror", &snapshot).await;
    forced(&snapshot).await;
    refused("is a mirror of", &foreign).await;
    outbox.put("zarr.json", "{}".into()).await.unwrap();
    refused("was changed by something else", &snapshot).await;
    forced(&foreign).await;
    outbox.put(STATE, "?".into()).await.unwrap();
    refused("does not understand", &foreign).await;
}
