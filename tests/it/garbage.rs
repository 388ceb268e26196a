//! Expiry and garbage collection: what is needed stays whatever happens, the rest goes.

use std::sync::Arc;
use std::time::Duration;

use array::{
    ArrayMetadata, ChunkIndex, ChunkKind, CodecMetadata, DataType, NodePath, RegularGrid, hash,
};
use chrono::{TimeDelta, Utc};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use quarr_tests::stopping::Stopping;
use quarr_tests::unreliable::{Rates, Unreliable};
use quarr_tests::watched::{Damage, Watched};
use serde_json::json;
use storage::{
    CommitId, CommitOptions, Error, GcOptions, GcReport, Isolation, RefKind, RefName, Repository,
    Scope, Store, Transaction,
};

fn main_branch() -> RefName {
    "main".parse().unwrap()
}

fn array() -> NodePath {
    "a".parse().unwrap()
}

/// Everything may go at once.
fn at_once() -> GcOptions {
    GcOptions {
        retention: TimeDelta::zero(),
        grace: TimeDelta::zero(),
        take_over_after: TimeDelta::zero(),
        ..GcOptions::default()
    }
}

async fn open(objects: Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Store::from_objects(objects, "test"))
        .await
        .unwrap()
}

/// A repository with an array of eight chunks of a byte each time 600.
async fn create(objects: Arc<dyn ObjectStore>) -> Repository {
    let store = Store::from_objects(objects, "test");
    let repository = Repository::create(store, "test").await.unwrap();
    let transaction = begin(&repository).await;
    let grid = RegularGrid::new(vec![8 * 600], vec![600]).unwrap();
    let codecs = vec![CodecMetadata::new("bytes", json!({}))];
    let metadata = ArrayMetadata::new(grid, DataType::UInt8, codecs);
    transaction.create_array(&array(), metadata).await.unwrap();
    commit(transaction).await.unwrap();
    repository
}

async fn begin(repository: &Repository) -> Transaction {
    Transaction::begin(repository, &main_branch())
        .await
        .unwrap()
}

async fn put(transaction: &Transaction, index: u64, value: u8) -> Result<(), Error> {
    let bytes = vec![value; 600];
    let id = hash::hash(hash::Kind::PlainChunk, &bytes);
    let index = ChunkIndex::new(vec![index]);
    transaction
        .put_chunk(&array(), index, ChunkKind::Plain, id, bytes.into(), None)
        .await
}

async fn commit(transaction: Transaction) -> Result<CommitId, Error> {
    transaction.commit(CommitOptions::default()).await
}

async fn write(repository: &Repository, index: u64, value: u8) -> CommitId {
    let transaction = begin(repository).await;
    put(&transaction, index, value).await.unwrap();
    commit(transaction).await.unwrap()
}

/// The values of all chunks at a commit; 0 where there is none.
async fn values(repository: &Repository, commit: CommitId) -> Result<Vec<u8>, Error> {
    let array = repository.snapshot(commit).await?.array(&array()).await?;
    let mut values = vec![0; 8];
    for row in array.chunks(&array::Region::whole(&[8])).await? {
        let bytes = array.chunk_bytes(&row, 0..600).await?;
        assert_eq!(hash::hash(hash::Kind::PlainChunk, &bytes), row.id);
        values[row.index.as_slice()[0] as usize] = bytes[0];
    }
    Ok(values)
}

async fn head(repository: &Repository) -> CommitId {
    let resolved = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    resolved.commit
}

/// Verifies everything with nothing cached, and gives the values at the head.
async fn whole(objects: &Arc<dyn ObjectStore>) -> Vec<u8> {
    let repository = open(objects.clone()).await;
    let verified = repository.verify(&Scope::Everything).await.unwrap();
    assert_eq!(verified.damage, []);
    values(&repository, head(&repository).await).await.unwrap()
}

async fn keys(objects: &Arc<dyn ObjectStore>) -> Vec<String> {
    let store = Store::from_objects(objects.clone(), "test");
    let mut keys: Vec<String> = store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    keys.sort();
    keys
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[tokio::test]
async fn what_is_needed_stays_and_a_dry_run_tells_the_rest() {
    let objects = memory();
    let repository = create(objects.clone()).await;
    let kept = write(&repository, 0, 1).await;
    let left = write(&repository, 1, 2).await;
    // Staged, and given up.
    put(&begin(&repository).await, 2, 3).await.unwrap();
    let branch = main_branch();
    let reset = repository.reset(&branch, kept, Some(left), "test");
    assert_eq!(reset.await.unwrap().from, Some(left));
    let before = keys(&objects).await;

    let look = GcOptions {
        dry_run: true,
        ..at_once()
    };
    let would = repository.gc(&look, "test").await.unwrap();
    // A page, a tree, the commit, its chunk, and the chunk that was given up.
    assert_eq!(would.deleted, 5);
    assert_eq!(keys(&objects).await, before);

    // What refs left behind stays for a time, and so do young objects.
    for options in [
        GcOptions {
            retention: TimeDelta::days(1),
            ..at_once()
        },
        GcOptions {
            grace: TimeDelta::days(1),
            ..at_once()
        },
    ] {
        let report = repository.gc(&options, "test").await.unwrap();
        assert!(report.deleted <= 1, "{report:?}");
        assert_eq!(values(&repository, left).await.unwrap()[1], 2);
    }
    let report = repository.gc(&at_once(), "test").await.unwrap();
    assert!(report.deleted >= 4, "{report:?}");
    assert_eq!(whole(&objects).await, [1, 0, 0, 0, 0, 0, 0, 0]);
    let fresh = open(objects.clone()).await;
    let gone = values(&fresh, left).await;
    assert!(matches!(gone, Err(Error::Expired { .. })), "{gone:?}");
    for kind in [RefKind::Branch, RefKind::Tag] {
        let name = "back".parse().unwrap();
        let made = fresh.create_ref(kind, &name, left, "test").await;
        assert!(matches!(made, Err(Error::Expired { .. })), "{made:?}");
    }
    let again = fresh.gc(&at_once(), "test").await.unwrap();
    assert_eq!((again.deleted, again.young), (0, 0));
}

#[tokio::test]
async fn expired_commits_end_the_history_and_heads_stay_whole() {
    let objects = memory();
    let repository = create(objects.clone()).await;
    let mut commits = Vec::new();
    for value in 1..=5 {
        commits.push(write(&repository, u64::from(value) % 2, value).await);
    }
    let tag = "kept".parse().unwrap();
    repository
        .create_ref(RefKind::Tag, &tag, commits[1], "test")
        .await
        .unwrap();
    let expired = repository.expire(Utc::now(), "test").await.unwrap();
    // Those right before the head and before the tag.
    assert_eq!(expired.len(), 2);
    let nothing = repository.expire(Utc::now(), "test").await.unwrap();
    assert_eq!(nothing, []);
    repository.gc(&at_once(), "test").await.unwrap();
    assert_eq!(whole(&objects).await, [4, 5, 0, 0, 0, 0, 0, 0]);
    let fresh = open(objects.clone()).await;
    assert_eq!(values(&fresh, commits[1]).await.unwrap()[..2], [2, 1]);
    for gone in ["main~1", "kept~1", &commits[2].to_string()] {
        let found = fresh.resolve(&gone.parse().unwrap()).await;
        assert!(
            matches!(found, Err(Error::Expired { .. })),
            "{gone} {found:?}"
        );
    }
    // The history goes on, over checkpoints too.
    for value in 6..140 {
        write(&fresh, 2, value).await;
    }
    let late = open(objects.clone()).await;
    let found = late.resolve(&"main~135".parse().unwrap()).await;
    assert!(matches!(found, Err(Error::Expired { .. })), "{found:?}");
    assert_eq!(whole(&objects).await, [4, 5, 139, 0, 0, 0, 0, 0]);
}

/// A commit under way during a sweep fails clearly if the sweep deletes what it needs.
#[tokio::test]
async fn a_sweep_between_a_writers_upload_and_its_commit_is_noticed() {
    let objects = memory();
    let repository = create(objects.clone()).await;
    let (writer, other) = (open(objects.clone()).await, open(objects.clone()).await);
    let losing = begin(&writer).await;
    put(&losing, 0, 1).await.unwrap();
    let bystander = begin(&writer).await;
    repository.gc(&at_once(), "test").await.unwrap();
    write(&other, 5, 5).await;
    let refused = commit(losing).await;
    assert!(matches!(refused, Err(Error::Swept { .. })), "{refused:?}");
    // Uploaded after the sweep, and over a commit that came in between.
    put(&bystander, 0, 1).await.unwrap();
    assert!(matches!(commit(bystander).await, Err(Error::Swept { .. })));
    write(&writer, 0, 1).await;
    assert_eq!(whole(&objects).await, [1, 0, 0, 0, 0, 5, 0, 0]);
}

/// An old object that a new commit uses again is in no sweep that comes after, and a commit is
/// refused if the sweep came before.
#[tokio::test]
async fn an_old_object_used_again_stays() {
    let objects = memory();
    let repository = create(objects.clone()).await;
    let base = head(&repository).await;
    let left = write(&repository, 0, 7).await;
    repository
        .reset(&main_branch(), base, None, "test")
        .await
        .unwrap();
    // The chunk, the page, even the tree are there already and needed by nobody.
    write(&repository, 0, 7).await;
    repository.gc(&at_once(), "test").await.unwrap();
    assert_eq!(whole(&objects).await, [7, 0, 0, 0, 0, 0, 0, 0]);
    let gone = values(&open(objects.clone()).await, left).await;
    assert!(matches!(gone, Err(Error::Expired { .. })), "{gone:?}");
}

#[tokio::test]
async fn what_an_open_transaction_has_staged_stays() {
    let objects = memory();
    let repository = create(objects.clone()).await;
    let shared = repository
        .open_transaction(&main_branch(), Isolation::Snapshot, "test")
        .await
        .unwrap();
    put(shared.transaction(), 3, 3).await.unwrap();
    shared.flush().await.unwrap();
    let (id, base) = (shared.id(), head(&repository).await);
    drop(shared);
    // Thirty hours later, as far as ages go, and with its base left behind.
    write(&repository, 4, 4).await;
    for _ in 0..2 {
        repository.gc(&at_once(), "test").await.unwrap();
    }
    let fresh = open(objects.clone()).await;
    let taken = fresh.shared_transaction(id).await.unwrap();
    assert_eq!(taken.transaction().base().id(), base);
    taken.commit(CommitOptions::default()).await.unwrap();
    assert_eq!(whole(&objects).await, [0, 0, 0, 3, 4, 0, 0, 0]);

    // One that nobody touches is given up, and what it staged goes.
    let idle = fresh
        .open_transaction(&main_branch(), Isolation::Snapshot, "test")
        .await
        .unwrap();
    put(idle.transaction(), 6, 6).await.unwrap();
    idle.flush().await.unwrap();
    let impatient = GcOptions {
        transaction_idle: TimeDelta::zero(),
        ..at_once()
    };
    fresh.gc(&impatient, "test").await.unwrap();
    let late = idle.commit(CommitOptions::default()).await;
    assert!(matches!(late, Err(Error::Closed { .. })), "{late:?}");
    fresh.gc(&impatient, "test").await.unwrap();
    assert!(
        !keys(&objects)
            .await
            .iter()
            .any(|key| key.starts_with("staging/"))
    );
    assert_eq!(whole(&objects).await, [0, 0, 0, 3, 4, 0, 0, 0]);
}

/// A repository with a commit that branch main was at and that nothing needs any more.
async fn left_behind(objects: &Arc<dyn ObjectStore>) -> (Repository, CommitId) {
    let repository = create(objects.clone()).await;
    let base = head(&repository).await;
    let left = write(&repository, 0, 1).await;
    let branch = main_branch();
    let reset = repository.reset(&branch, base, None, "test").await;
    assert_eq!(reset.unwrap().from, Some(left));
    (repository, left)
}

/// Begins a collection that ends once it has announced what it deletes.
async fn announce_sweep(objects: &Arc<dyn ObjectStore>) {
    // The list and the entry, and then no more.
    let killed = open(Arc::new(Stopping::after(objects.clone(), 2))).await;
    killed.gc(&at_once(), "test").await.unwrap_err();
}

#[tokio::test]
async fn a_branch_at_a_commit_that_is_being_swept_is_refused() {
    let objects = memory();
    let (_, left) = left_behind(&objects).await;
    announce_sweep(&objects).await;
    let branch = main_branch();
    let fresh = open(objects.clone()).await;
    assert!(fresh.head().await.unwrap().sweep.is_some());
    assert_eq!(values(&fresh, left).await.unwrap()[0], 1);
    let made = fresh
        .create_ref(RefKind::Branch, &"back".parse().unwrap(), left, "test")
        .await;
    assert!(matches!(made, Err(Error::Swept { .. })), "{made:?}");
    let moved = fresh.reset(&branch, left, None, "test").await;
    assert!(matches!(moved, Err(Error::Swept { .. })), "{moved:?}");
    assert_eq!(whole(&objects).await, [0; 8]);
}

#[tokio::test]
async fn work_on_a_collected_commit_is_refused_whatever_is_cached() {
    let objects = memory();
    let (repository, left) = left_behind(&objects).await;
    let branch = main_branch();
    assert_eq!(values(&repository, left).await.unwrap()[0], 1);
    let other = open(objects.clone()).await;
    assert!(other.gc(&at_once(), "test").await.unwrap().deleted > 0);

    let options = CommitOptions::default;
    for refused in [
        repository.merge(left, &branch, options()).await,
        repository.cherry_pick(left, &branch, options()).await,
        repository.revert(left, &branch, options()).await,
    ] {
        assert!(matches!(refused, Err(Error::Expired { .. })), "{refused:?}");
    }
    assert_eq!(whole(&objects).await, [0; 8]);
}

#[tokio::test]
async fn work_on_a_commit_that_is_being_swept_is_refused() {
    let objects = memory();
    let (repository, left) = left_behind(&objects).await;
    announce_sweep(&objects).await;
    let branch = main_branch();
    let options = CommitOptions::default;
    for refused in [
        repository.merge(left, &branch, options()).await,
        repository.cherry_pick(left, &branch, options()).await,
    ] {
        assert!(matches!(refused, Err(Error::Swept { .. })), "{refused:?}");
    }
    assert_eq!(whole(&objects).await, [0; 8]);
}

/// Killed after every single change it makes, and taken over.
#[tokio::test(start_paused = true)]
async fn a_collection_killed_anywhere_is_gone_on_with() {
    let mut stopped = 0;
    for changes in 0.. {
        let objects = memory();
        let repository = create(objects.clone()).await;
        let base = write(&repository, 0, 1).await;
        for value in 2..6 {
            write(&repository, 1, value).await;
        }
        repository
            .reset(&main_branch(), base, None, "test")
            .await
            .unwrap();
        let stopping = Stopping::after(objects.clone(), changes);
        let killed = open(Arc::new(stopping.clone())).await;
        let outcome = killed.gc(&at_once(), "test").await;
        assert_eq!(whole(&objects).await, [1, 0, 0, 0, 0, 0, 0, 0], "{changes}");
        let fresh = open(objects.clone()).await;
        write(&fresh, 7, 7).await;
        fresh.gc(&at_once(), "test").await.unwrap();
        assert_eq!(whole(&objects).await, [1, 0, 0, 0, 0, 0, 0, 7], "{changes}");
        assert!(fresh.head().await.unwrap().sweep.is_none());
        let rest = fresh.gc(&at_once(), "test").await.unwrap();
        assert_eq!(rest.deleted, 0, "{changes}");
        if !stopping.has_stopped() {
            outcome.unwrap();
            break;
        }
        stopped += 1;
    }
    assert!(stopped > 15, "{stopped}");
}

/// One that hangs in a deletion gives up, and one that was taken over deletes no more.
#[tokio::test(start_paused = true)]
async fn a_stalled_collection_stops_when_it_is_taken_over() {
    let objects = memory();
    let repository = create(objects.clone()).await;
    let base = head(&repository).await;
    write(&repository, 0, 1).await;
    repository
        .reset(&main_branch(), base, None, "test")
        .await
        .unwrap();
    let killed = open(Arc::new(Stopping::after(objects.clone(), 2))).await;
    killed.gc(&at_once(), "test").await.unwrap_err();
    // Not so soon.
    let patient = GcOptions {
        take_over_after: TimeDelta::hours(1),
        ..at_once()
    };
    let fresh = open(objects.clone()).await;
    let early = fresh.gc(&patient, "test").await;
    assert!(matches!(early, Err(Error::Sweeping { .. })), "{early:?}");
    let begun = tokio::time::Instant::now();
    fresh.gc(&at_once(), "test").await.unwrap();
    // Twice the time the other had after its last look at the log.
    assert!(begun.elapsed() >= Duration::from_secs(120));
    assert_eq!(whole(&objects).await, [0; 8]);
}

#[tokio::test]
async fn damage_to_what_is_needed_stops_the_collection() {
    let watched = Watched::new(memory());
    let objects: Arc<dyn ObjectStore> = Arc::new(watched.clone());
    let repository = create(objects.clone()).await;
    write(&repository, 0, 1).await;
    put(&begin(&repository).await, 2, 3).await.unwrap();
    let array = repository
        .snapshot(head(&repository).await)
        .await
        .unwrap()
        .array(&array())
        .await
        .unwrap();
    let page = storage::object_key(&array.manifest_root());
    for damage in [Damage::Flip(40, 1), Damage::Remove] {
        watched.set_damage(Some((&page, damage)));
        let before = keys(&objects).await;
        let refused = open(objects.clone()).await.gc(&at_once(), "test").await;
        let named = matches!(&refused, Err(Error::Corrupt { key, .. }) if *key == page);
        assert!(named, "{refused:?}");
        assert_eq!(keys(&objects).await, before);
    }
    watched.set_damage(None);
    assert_eq!(whole(&objects).await, [1, 0, 0, 0, 0, 0, 0, 0]);
}

/// Writers, branches that come and go, and collections at the same time.
#[tokio::test(start_paused = true)]
async fn collections_race_with_writers_and_nobody_loses_anything() {
    for seed in 0..8 {
        println!("seed {seed}");
        race(seed).await;
    }
}

async fn race(seed: u64) {
    // Requests take their time, so they come in many orders.
    let slow = Unreliable::new(memory(), seed, Rates::default());
    let objects: Arc<dyn ObjectStore> = Arc::new(slow);
    create(objects.clone()).await;
    let writer = |chunk: u64| {
        let objects = objects.clone();
        async move {
            let repository = open(objects).await;
            let mut last = 0;
            for value in 1..=40 {
                let transaction = begin(&repository).await;
                match put(&transaction, chunk, value).await {
                    Ok(()) => {}
                    // Deleted between the look that found it and the write.
                    Err(Error::Store { .. }) => continue,
                    Err(error) => panic!("{error}"),
                }
                tokio::task::yield_now().await;
                match commit(transaction).await {
                    Ok(_) => last = value,
                    Err(Error::Swept { .. }) => {}
                    Err(error) => panic!("chunk {chunk}, value {value}: {error}"),
                }
            }
            last
        }
    };
    let collector = async {
        let repository = open(objects.clone()).await;
        let mut deleted = 0;
        for round in 0..25 {
            let back = repository.resolve(&"main~1".parse().unwrap()).await;
            if let Ok(back) = back {
                let name = format!("b{round}").parse().unwrap();
                let kind = RefKind::Branch;
                if repository
                    .create_ref(kind, &name, back.commit, "test")
                    .await
                    .is_ok()
                {
                    repository.delete_ref(kind, &name, "test").await.unwrap();
                }
            }
            let report: GcReport = repository.gc(&at_once(), "test").await.unwrap();
            deleted += report.deleted;
            tokio::task::yield_now().await;
        }
        deleted
    };
    let (a, b, c, deleted) = tokio::join!(writer(0), writer(1), writer(2), collector);
    assert_eq!(whole(&objects).await, [a, b, c, 0, 0, 0, 0, 0]);
    assert!(deleted > 0);
}
