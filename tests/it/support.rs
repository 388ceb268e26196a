//! What several tests share: repositories in a watched store, and reads of all of them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use array::{Bounds, DataType, ResolvedSelection, Selection};
use importers::ImportOptions;
use object_store::ObjectStore;
use quarr_tests::arrays::{self, SampleArray};
use quarr_tests::watched::Watched;
use query::{ArrayReader, Engine, Settings};
use serde_json::json;
use storage::tlog::{Checkpoint, SigningKey, TreeHash};
use storage::{
    AllowList, CommitId, CommitOptions, Externals, RefKind, Repository, Snapshot, Store,
    Transaction,
};

/// An error with its causes, as a log would show it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").unwrap();
        cause = error.source();
    }
    text
}

/// A repository over `objects`, with nothing cached.
pub(crate) async fn open(objects: Arc<dyn ObjectStore>) -> Result<Repository, storage::Error> {
    Repository::open(Store::from_objects(objects, "test")).await
}

/// An engine with nothing cached. One thread: tests run side by side.
pub(crate) fn engine() -> Engine {
    Engine::new(Settings {
        threads: 1,
        ..Settings::default()
    })
    .unwrap()
}

/// Creates a repository and commits arrays to its branch `main`.
pub(crate) async fn create(objects: Arc<dyn ObjectStore>, samples: &[SampleArray]) -> Repository {
    let store = Store::from_objects(objects, "test");
    let repository = Repository::create(store, "test").await.unwrap();
    commit(&repository, samples).await;
    repository
}

/// Commits arrays to branch `main`.
pub(crate) async fn commit(repository: &Repository, samples: &[SampleArray]) -> CommitId {
    let transaction = Transaction::begin(repository, &"main".parse().unwrap())
        .await
        .unwrap();
    for sample in samples {
        sample.store(&transaction).await.unwrap();
    }
    let options = CommitOptions {
        author: "test".into(),
        ..CommitOptions::default()
    };
    transaction.commit(options).await.unwrap()
}

/// An import of a file to branch `main`, as importers do unless they are told otherwise.
pub(crate) fn import_options(source: &Path) -> ImportOptions {
    ImportOptions {
        author: "test".into(),
        memory_bytes: 64 << 20,
        ..ImportOptions::new(
            vec![source.to_str().unwrap().to_owned()],
            "main".parse().unwrap(),
        )
    }
}

/// Files elsewhere, all of them.
pub(crate) fn files() -> Externals {
    Externals::new(AllowList::everything())
}

/// Imports a file to branch `main` as importers do unless they are told otherwise.
pub(crate) async fn import(
    repository: &Repository,
    source: &Path,
    memory_bytes: u64,
) -> Result<(), importers::Error> {
    let options = ImportOptions {
        memory_bytes,
        ..import_options(source)
    };
    let imported = importers::import(repository, &options, &files(), &|_| {}).await;
    imported.map(drop)
}

/// The newest state of branch `main`.
pub(crate) async fn head(repository: &Repository) -> Result<Snapshot, storage::Error> {
    let resolved = repository.resolve(&"main".parse()?).await?;
    repository.snapshot(resolved.commit).await
}

/// An array of a snapshot, ready to read.
pub(crate) async fn reader(
    engine: &Engine,
    snapshot: &Snapshot,
    path: &str,
) -> Result<ArrayReader, query::Error> {
    engine.open(snapshot.array(&path.parse()?).await?)
}

/// A selection of an array, as text.
pub(crate) fn select(array: &ArrayReader, text: &str) -> ResolvedSelection {
    let selection: Selection = text.parse().unwrap();
    selection
        .resolve(array.metadata().shape(), Bounds::Clamp)
        .unwrap()
}

/// 32-bit floats that no codec makes small.
pub(crate) fn noise(index: u64) -> Vec<u8> {
    let bits = index
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(29)
        .wrapping_mul(0xBF58_476D);
    ((bits >> 40) as f32 / 16.0).to_le_bytes().into()
}

/// A repository with every kind of object: shards and plain chunks, inline and stored; pages of
/// several levels; statistics; a document of its own; old commits; a checkpoint.
pub(crate) async fn every_kind_of_object() -> (Watched, Vec<SampleArray>) {
    let watched = Watched::new(Arc::new(object_store::memory::InMemory::new()));
    let float = || DataType::Float32;
    let little = || {
        vec![array::CodecMetadata::new(
            "bytes",
            json!({ "endian": "little" }),
        )]
    };
    let mut documented =
        SampleArray::sharded("documented", float(), [&[50], &[10], &[5]], noise).unwrap();
    documented
        .metadata
        .attributes
        .insert("history".into(), json!("and then ".repeat(600)));
    let sparse = |index: u64| {
        let value = if index.is_multiple_of(499) {
            index as f32
        } else {
            0.0
        };
        value.to_le_bytes().to_vec()
    };
    let samples = [
        arrays::every_type().unwrap(),
        arrays::every_codec().unwrap(),
        arrays::corner_cases().unwrap(),
        vec![
            SampleArray::sharded(
                "big/shards",
                float(),
                [&[70, 40], &[32, 16], &[8, 16]],
                noise,
            )
            .unwrap(),
            SampleArray::new("big/chunks", float(), &[70, 40], &[32, 16], little(), noise).unwrap(),
            SampleArray::new("big/sparse", float(), &[5000], &[1], little(), sparse).unwrap(),
            documented,
        ],
    ]
    .concat();
    let (first, second) = samples.split_at(samples.len() / 2);
    let repository = create(Arc::new(watched.clone()), first).await;
    let commit = commit(&repository, second).await;
    for number in 0..130 {
        let name = format!("tag-{number}").parse().unwrap();
        repository
            .create_ref(RefKind::Tag, &name, commit, "test")
            .await
            .unwrap();
    }
    publish(&repository, &[], &[signing_key()]).await.unwrap();
    (watched, samples)
}

/// The key that signs logs in tests; the same wherever it is asked for.
pub(crate) fn signing_key() -> SigningKey {
    let secret = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    SigningKey::from_secret(secret).unwrap()
}

/// Extends the transparency log from heads that were signed, signs it, and publishes it.
pub(crate) async fn publish(
    repository: &Repository,
    signed: &[(u64, TreeHash)],
    keys: &[SigningKey],
) -> Result<Checkpoint, storage::Error> {
    let tree = repository.extend_tree(signed).await?;
    let checkpoint = Repository::sign_tree(&tree, keys);
    repository.publish(&checkpoint).await?;
    Ok(checkpoint)
}
