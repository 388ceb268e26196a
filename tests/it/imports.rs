//! The same file is the same tree, wherever and however it is imported.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use quarr_tests::sample;
use storage::{Repository, Store};

use crate::support::{head, import};

/// The root tree of the made-up day, on any machine. It changes with the format, with what importers
/// choose, and with the compressors they use: then it may be written anew.
const WEATHER: &str = "bcc2ab542828843593ae755de76f1bf99a514f532d31b5c3c736cd3d067422f3";

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
