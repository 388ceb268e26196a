//! The same file is the same tree, wherever and however it is imported.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Once};

use array::NodePath;
use importers::{ImportOptions, JoinOptions, Order};
use object_store::memory::InMemory;
use quarr_tests::sample;
use storage::{Conflict, ConflictKind, Repository, Store};

use crate::support::{files, head, import, import_options};

/// The root tree of the made-up day, on any machine. It changes with the format, with what importers
/// choose, and with the compressors they use: then it may be written anew.
const WEATHER: &str = "5e2b14980f04cc20a7fb5584c08bc7f3fdd7bd2d5cee85f5995faefe38cd31e0";

/// The hash of the root tree of a file imported by so many threads with so much memory.
async fn root_tree(source: &Path, memory_bytes: u64) -> String {
    let store = Store::from_objects(Arc::new(InMemory::new()), "memory");
    let repository = Repository::create(store, "test").await.unwrap();
    import(&repository, source, memory_bytes).await.unwrap();
    head(&repository).await.unwrap().commit().tree().to_string()
}

#[test]
fn an_import_gives_the_same_root_tree_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("day.nc");
    let mut file = File::create(&source).unwrap();
    sample::weather().write(&mut file).unwrap();
    for threads in [1, 2, 7] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        for memory_bytes in [1 << 20, 256 << 20] {
            let root = runtime.block_on(root_tree(&source, memory_bytes));
            assert_eq!(root, WEATHER, "{threads} threads, {memory_bytes} bytes");
        }
    }
}

/// The made-up day, behind what is there already.
fn again(source: &Path) -> ImportOptions {
    ImportOptions {
        join: JoinOptions {
            append: Some("time".into()),
            // It is the same day.
            order: Order::Unchecked,
            ..JoinOptions::default()
        },
        ..import_options(source)
    }
}

async fn hours(repository: &Repository) -> u64 {
    let path: NodePath = "/t2m".parse().unwrap();
    let array = head(repository).await.unwrap().array(&path).await.unwrap();
    array.metadata().shape()[0]
}

#[test]
fn of_two_appends_at_the_same_time_one_fails_and_nothing_is_interleaved() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("day.nc");
    let mut file = File::create(&source).unwrap();
    sample::weather().write(&mut file).unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let options = again(&source);
    // Into an empty group it is an import like any other.
    for days_before in [0, 1] {
        let objects = Arc::new(InMemory::new());
        runtime().block_on(async {
            let store = Store::from_objects(objects.clone(), "memory");
            let repository = Repository::create(store, "test").await.unwrap();
            for _ in 0..days_before {
                importers::import(&repository, &options, &files(), &|_| {})
                    .await
                    .unwrap();
            }
            let other = Once::new();
            let meanwhile = |_: &importers::Progress| {
                // While this one is under way, another one comes and goes.
                other.call_once(|| {
                    let import = || {
                        runtime().block_on(async {
                            let store = Store::from_objects(objects.clone(), "memory");
                            let repository = Repository::open(store).await.unwrap();
                            importers::import(&repository, &options, &files(), &|_| {})
                                .await
                                .unwrap();
                        });
                    };
                    std::thread::scope(|scope| scope.spawn(import).join()).unwrap();
                });
            };
            let done = importers::import(&repository, &options, &files(), &meanwhile).await;
            let error = done.unwrap_err();
            let importers::Error::Storage(storage::Error::Conflict { conflicts, .. }) = &error
            else {
                panic!("{error}");
            };
            let wanted = match days_before {
                0 => ConflictKind::Created,
                _ => ConflictKind::Shape,
            };
            let is_wanted =
                |conflict: &Conflict| conflict.path.as_str() == "t2m" && conflict.kind == wanted;
            assert!(conflicts.iter().any(is_wanted), "{error}");
            assert_eq!(hours(&repository).await, 24 * (days_before + 1));
            // From where the branch is now, it goes.
            importers::import(&repository, &options, &files(), &|_| {})
                .await
                .unwrap();
            assert_eq!(hours(&repository).await, 24 * (days_before + 2));
        });
    }
}
