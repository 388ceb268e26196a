//! Writers of one transaction that share nothing but the object store.

use std::ops::Range;
use std::sync::Arc;

use array::{DataType, Elements, Tensor};
use compute::cf::Decode;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use quarr_tests::arrays::SampleArray;
use query::Engine;
use storage::{CommitOptions, ConflictKind, Error, Isolation, SharedTransaction, TransactionId};

use crate::support;

const CELLS: u64 = 8;

/// A process that takes part in a transaction.
struct Writer {
    engine: Engine,
    shared: SharedTransaction,
}

impl Writer {
    /// Writes a value to some cells of the array and stages that, without another look at what others
    /// have staged.
    async fn write(&self, cells: Range<u64>, value: u8) {
        let transaction = self.shared.transaction();
        let path = "x".parse().unwrap();
        let array = self.engine.open(transaction.array(&path).await.unwrap());
        let text = format!("{}:{}", cells.start, cells.end);
        let selection = support::select(&array.unwrap(), &text);
        let shape = selection.output_shape();
        let tensor = Tensor {
            data_type: DataType::UInt8,
            elements: Elements::Fixed(vec![value; shape[0] as usize]),
            shape,
        };
        let written = self.engine.write(transaction, &path, &selection, tensor);
        written.await.unwrap();
        self.shared.flush().await.unwrap();
    }

    async fn see_others(&self) {
        self.shared.refresh().await.unwrap();
    }
}

/// Two writers of a transaction on an array of two shards of two inner chunks of two cells, all 0.
async fn two_writers() -> (Arc<dyn ObjectStore>, [Writer; 2]) {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let shapes: [&[u64]; 3] = [&[CELLS], &[4], &[2]];
    let sample = SampleArray::sharded("x", DataType::UInt8, shapes, |_| vec![0]).unwrap();
    let repository = support::create(objects.clone(), &[sample]).await;
    let opened = repository
        .open_transaction(&"main".parse().unwrap(), Isolation::Snapshot, "test")
        .await
        .unwrap();
    let elsewhere = taken_up(&objects, opened.id()).await;
    let writers = [opened, elsewhere].map(|shared| Writer {
        engine: support::engine(),
        shared,
    });
    (objects, writers)
}

async fn taken_up(objects: &Arc<dyn ObjectStore>, id: TransactionId) -> SharedTransaction {
    let repository = support::open(objects.clone()).await.unwrap();
    repository.shared_transaction(id).await.unwrap()
}

/// Commits as a third process would, and gives the values of the array then.
async fn committed(objects: &Arc<dyn ObjectStore>, id: TransactionId) -> Result<Vec<u8>, Error> {
    let all = taken_up(objects, id).await;
    all.commit(CommitOptions::default()).await?;
    let repository = support::open(objects.clone()).await?;
    let (engine, head) = (support::engine(), support::head(&repository).await?);
    let array = support::reader(&engine, &head, "x").await.unwrap();
    let selection = support::select(&array, "");
    let read = engine.read(&array, &selection, Decode::Raw).await.unwrap();
    match read.elements {
        Elements::Fixed(values) => Ok(values),
        Elements::Variable(_) => panic!("the array is of bytes"),
    }
}

#[tokio::test]
async fn writers_that_do_not_see_each_other_share_shards() {
    let (objects, [one, two]) = two_writers().await;
    one.write(0..2, 1).await;
    two.write(2..6, 2).await;
    one.write(6..8, 1).await;
    let values = committed(&objects, one.shared.id()).await.unwrap();
    assert_eq!(values, [1, 1, 2, 2, 2, 2, 1, 1]);
}

#[tokio::test]
async fn writers_that_see_each_other_share_inner_chunks() {
    let (objects, [one, two]) = two_writers().await;
    for cell in 0..CELLS {
        let writer = [&one, &two][cell as usize % 2];
        writer.see_others().await;
        writer.write(cell..cell + 1, cell as u8).await;
    }
    let values = committed(&objects, one.shared.id()).await.unwrap();
    assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn what_two_wrote_without_seeing_each_other_is_a_conflict_that_is_named() {
    let (objects, [one, two]) = two_writers().await;
    one.write(0..3, 1).await;
    two.write(3..5, 2).await;
    let conflict = committed(&objects, one.shared.id()).await;
    let Err(Error::Conflict { conflicts, .. }) = conflict else {
        panic!("{conflict:?}")
    };
    let [conflict] = conflicts.as_slice() else {
        panic!("{conflicts:?}")
    };
    assert_eq!(conflict.kind, ConflictKind::StagedTwice);
    assert_eq!(conflict.to_string(), "/x[2:4] (staged-twice)");
}

/// The chunk it writes on is made of two versions then, its own and the other's.
#[tokio::test]
async fn a_writer_may_change_its_own_after_it_saw_others() {
    let (objects, [one, two]) = two_writers().await;
    one.write(0..2, 1).await;
    two.write(2..4, 2).await;
    for value in 3..5 {
        one.see_others().await;
        one.write(0..2, value).await;
        two.see_others().await;
        two.write(3..4, 10 + value).await;
    }
    let values = committed(&objects, one.shared.id()).await.unwrap();
    assert_eq!(values, [4, 4, 2, 14, 0, 0, 0, 0]);
}
