//! Reductions give the same bits however they are run.

use std::sync::Arc;

use array::{DataType, Tensor};
use compute::cf::Decode;
use compute::{Reducer, Reduction};
use object_store::memory::InMemory;
use quarr_tests::arrays::SampleArray;
use query::{Engine, Settings};
use storage::Snapshot;

use crate::support::{self, noise};

const REDUCERS: [Reducer; 8] = [
    Reducer::Sum,
    Reducer::Mean,
    Reducer::Min,
    Reducer::Max,
    Reducer::Std,
    Reducer::Var,
    Reducer::ArgMin,
    Reducer::ArgMax,
];

/// The same values in shards of different shapes over one grid of inner chunks.
async fn snapshot() -> Snapshot {
    let shards: [&[u64]; 3] = [&[24, 16, 20], &[8, 48, 60], &[64, 16, 20]];
    let samples: Vec<SampleArray> = shards
        .iter()
        .enumerate()
        .map(|(number, &shard)| {
            let shapes: [&[u64]; 3] = [&[61, 47, 53], shard, &[8, 16, 20]];
            SampleArray::sharded(&format!("a{number}"), DataType::Float32, shapes, noise).unwrap()
        })
        .collect();
    let repository = support::create(Arc::new(InMemory::new()), &samples).await;
    support::head(&repository).await.unwrap()
}

async fn reduce(engine: &Engine, snapshot: &Snapshot, path: &str, reducer: Reducer) -> [Tensor; 2] {
    let array = support::reader(engine, snapshot, path).await.unwrap();
    let selection = support::select(&array, "3:,::-2,5:50");
    let mut reduction = Reduction::new(reducer);
    reduction.as_float64 = !matches!(reducer, Reducer::ArgMin | Reducer::ArgMax);
    let [all, one] = [[true, true, true], [true, false, false]];
    let (all, one) = tokio::try_join!(
        engine.reduce(&array, &selection, Decode::Raw, reduction, &all),
        engine.reduce(&array, &selection, Decode::Raw, reduction, &one),
    )
    .unwrap();
    [all, one]
}

#[tokio::test]
async fn bits_do_not_depend_on_threads_cache_or_shards() {
    let snapshot = snapshot().await;
    let reference = support::engine();
    for reducer in REDUCERS {
        let wanted = reduce(&reference, &snapshot, "a0", reducer).await;
        for threads in [1, 2, 7] {
            for cache_bytes in [0, 64 << 20] {
                let settings = Settings {
                    threads,
                    cache_bytes,
                    ..Settings::default()
                };
                let engine = Engine::new(settings).unwrap();
                for path in ["a0", "a1", "a2"] {
                    let found = reduce(&engine, &snapshot, path, reducer).await;
                    assert_eq!(found, wanted, "{reducer:?} {path} {settings:?}");
                }
            }
        }
    }
}
