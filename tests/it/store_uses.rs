//! What people do with a repository, on every kind of store: branches and tags, expiry and garbage
//! collection, an import and an export of what it gave.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use array::{DataType, NodePath};
use chrono::TimeDelta;
use importers::export::export_zarr;
use quarr_tests::arrays::SampleArray;
use quarr_tests::sample;
use storage::{Error, GcOptions, RefKind, RefName, Repository, Scope, Store, Transaction};

use crate::support::{commit, engine, head, import, noise};

fn samples(value: f32) -> SampleArray {
    let shapes: [&[u64]; 3] = [&[32, 16], &[16, 16], &[8, 8]];
    let values = move |at: u64| {
        let noise = f32::from_le_bytes(noise(at)[..4].try_into().unwrap());
        (noise + value).to_le_bytes().to_vec()
    };
    SampleArray::sharded("a", DataType::Float32, shapes, values).unwrap()
}

async fn open(store: &Store) -> Repository {
    Repository::open(store.clone()).await.unwrap()
}

/// Two processes make refs; of the same name one.
pub(crate) async fn refs_are_made_once(store: &Store) {
    let store = store.under("refs");
    let one = Repository::create(store.clone(), "test").await.unwrap();
    let first = commit(&one, &[samples(0.0)]).await;
    let other = open(&store).await;
    let name: RefName = "dev".parse().unwrap();
    let made = futures::future::join_all(
        [&one, &other]
            .map(|repository| repository.create_ref(RefKind::Branch, &name, first, "test")),
    )
    .await;
    let won = made.iter().filter(|made| made.is_ok()).count();
    assert_eq!(won, 1, "{made:?}");
    let lost = made.iter().find_map(|made| made.as_ref().err()).unwrap();
    assert!(matches!(lost, Error::AlreadyExists { .. }), "{lost:?}");
    let tag = "v1".parse().unwrap();
    other
        .create_ref(RefKind::Tag, &tag, first, "test")
        .await
        .unwrap();
    let third = open(&store).await;
    for name in ["main", "dev", "v1"] {
        let found = third.resolve(&name.parse().unwrap()).await.unwrap();
        assert_eq!(found.commit, first, "{name}");
    }
}

/// What nothing needs goes, and nothing else.
pub(crate) async fn garbage_goes(store: &Store) {
    let store = store.under("garbage");
    let repository = Repository::create(store.clone(), "test").await.unwrap();
    commit(&repository, &[samples(0.0)]).await;
    let before = store.list("").await.unwrap().len();
    // Staged, and given up.
    let main = "main".parse().unwrap();
    let transaction = Transaction::begin(&repository, &main).await.unwrap();
    transaction.delete(&"a".parse().unwrap()).await.unwrap();
    samples(1.0).store(&transaction).await.unwrap();
    drop(transaction);
    let with_garbage = store.list("").await.unwrap().len();
    assert!(with_garbage > before, "{with_garbage} objects");
    // Stores tell their time in whole seconds: what was written in the same one is too young to go.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let options = GcOptions {
        retention: TimeDelta::zero(),
        grace: TimeDelta::zero(),
        take_over_after: TimeDelta::zero(),
        ..GcOptions::default()
    };
    repository.gc(&options, "test").await.unwrap();
    let kept: Vec<String> = store
        .list("shards")
        .await
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let again = open(&store).await;
    let verified = again.verify(&Scope::Everything).await.unwrap();
    assert_eq!(verified.damage, []);
    let path: NodePath = "a".parse().unwrap();
    let node = head(&again).await.unwrap().array(&path).await.unwrap();
    let grid = array::Region::whole(&node.metadata().grid().grid_shape());
    let rows = node.chunks(&grid).await.unwrap();
    let stored = rows
        .iter()
        .filter(|row| row.location == storage::Location::Stored);
    assert_eq!(kept.len(), stored.count());
}

/// A file comes in and goes out again, and its export comes in as what it was.
pub(crate) async fn files_come_and_go(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("day.nc");
    let mut file = std::fs::File::create(&source).unwrap();
    sample::weather().write(&mut file).unwrap();
    let repository = Repository::create(store.under("files"), "test")
        .await
        .unwrap();
    import(&repository, &source, 64 << 20).await.unwrap();
    let exported = folder.path().join("day.zarr");
    export(&repository, &exported).await;

    let again = Repository::create(store.under("again"), "test")
        .await
        .unwrap();
    import(&again, &exported, 64 << 20).await.unwrap();
    let back = folder.path().join("back.zarr");
    export(&again, &back).await;
    assert_eq!(files(&exported), files(&back));
}

async fn export(repository: &Repository, to: &Path) {
    let snapshot = head(repository).await.unwrap();
    let root = snapshot.node(&NodePath::root()).await.unwrap();
    let exported = export_zarr(&engine(), &snapshot, root, to, &|_| {}).await;
    exported.unwrap();
}

/// The bytes of all files in a folder, by their path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    assert!(found.len() > 3, "{} files", found.len());
    found
}
