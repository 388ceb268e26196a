//! The read path as a whole: what it costs, that its plans are true, and that no setting changes an
//! answer.

use std::sync::Arc;
use std::time::Duration;

use array::{DataType, Tensor};
use compute::cf::Decode;
use compute::{Reducer, Reduction};
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use quarr_tests::arrays::SampleArray;
use quarr_tests::watched::{Damage, Request, Watched};
use query::{Aggregation, Engine, Error, Measure, Settings, Tier};
use storage::Snapshot;

use crate::support::{self, noise};

const SHAPES: [&[u64]; 3] = [&[70, 45, 50], &[32, 16, 20], &[8, 16, 20]];

/// Arrays of several types, in a watched store with nothing cached.
async fn watched() -> (Watched, Snapshot) {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let types = [
        ("floats", DataType::Float32),
        ("doubles", DataType::Float64),
        ("shorts", DataType::Int16),
        ("longs", DataType::UInt64),
    ];
    let samples: Vec<SampleArray> = types
        .into_iter()
        .map(|(name, data_type)| {
            let values = |at| number_of_type(&data_type, at);
            SampleArray::sharded(name, data_type.clone(), SHAPES, values).unwrap()
        })
        .collect();
    support::create(Arc::new(watched.clone()), &samples).await;
    let repository = support::open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = support::head(&repository).await.unwrap();
    watched.take_requests();
    (watched, snapshot)
}

/// A number that no codec makes small.
fn number_of_type(data_type: &DataType, at: u64) -> Vec<u8> {
    let bytes: [u8; 4] = noise(at).try_into().unwrap();
    let number = f64::from(f32::from_le_bytes(bytes));
    match data_type {
        DataType::Float64 => (number / 3.0 - 1e5).to_le_bytes().to_vec(),
        DataType::Int16 => (number as i64 as i16).to_le_bytes().to_vec(),
        DataType::UInt64 => (number as u64)
            .wrapping_mul(0x1234_5678_9ABC)
            .to_le_bytes()
            .to_vec(),
        _ => bytes.to_vec(),
    }
}

/// Reads of shards among the requests since the last call, and the bytes they read.
fn shard_reads(watched: &Watched) -> (u64, u64) {
    let requests = watched.take_requests();
    let reads = requests.iter().filter_map(|request| match request {
        Request::Get(key, range) if key.contains("shards/") => Some(range.end - range.start),
        _ => None,
    });
    reads.fold((0, 0), |(count, bytes), length| (count + 1, bytes + length))
}

fn engine(settings: Settings) -> Engine {
    Engine::new(Settings {
        threads: 2,
        ..settings
    })
    .unwrap()
}

fn plain(reducers: &[Reducer], reduced: &[bool]) -> Aggregation {
    let reductions: Vec<Reduction> = reducers
        .iter()
        .map(|&reducer| Reduction::new(reducer))
        .collect();
    Aggregation::plain(&reductions, reduced)
}

const SLICES: [&str; 7] = [
    "...",
    "3,4,5",
    ":,20,30",
    "5,:,:",
    "::9,::7,::6",
    "10:60,16:32,3:44",
    "[1,40,69],:,[0,49]",
];

#[tokio::test]
async fn a_plan_says_exactly_what_its_read_costs() {
    let (watched, snapshot) = watched().await;
    for slice in SLICES {
        let engine = engine(Settings::default());
        let array = support::reader(&engine, &snapshot, "floats").await.unwrap();
        let selection = support::select(&array, slice);
        let cold = engine
            .explain(&array, &selection, Decode::Cf, None, &[])
            .await
            .unwrap();
        watched.take_requests();
        engine.read(&array, &selection, Decode::Cf).await.unwrap();
        let found = shard_reads(&watched);
        assert_eq!(found, (cold.requests.count, cold.requests.bytes), "{slice}");
        // Nothing is left to read, and the plan knows.
        let warm = engine
            .explain(&array, &selection, Decode::Cf, None, &[])
            .await
            .unwrap();
        assert_eq!(
            (warm.requests.count, warm.requests.bytes),
            (0, 0),
            "{slice}"
        );
        engine.read(&array, &selection, Decode::Cf).await.unwrap();
        assert_eq!(shard_reads(&watched), (0, 0), "{slice}");
        // Another engine knows no footers.
        let other = self::engine(Settings::default());
        other.read(&array, &selection, Decode::Cf).await.unwrap();
        let expected = (cold.cold_requests.count, cold.cold_requests.bytes);
        assert_eq!(shard_reads(&watched), expected, "{slice}, cold");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_cost_no_more_than_one() {
    let (watched, snapshot) = watched().await;
    for slice in SLICES {
        let alone = engine(Settings::default());
        let array = support::reader(&alone, &snapshot, "doubles").await.unwrap();
        let selection = support::select(&array, slice);
        watched.take_requests();
        let wanted = alone.read(&array, &selection, Decode::Cf).await.unwrap();
        let expected = shard_reads(&watched);
        let engine = engine(Settings::default());
        let reads = (0..32).map(|_| {
            let (engine, array, selection) = (engine.clone(), array.clone(), selection.clone());
            tokio::spawn(async move { engine.read(&array, &selection, Decode::Cf).await })
        });
        for read in reads.collect::<Vec<_>>() {
            assert_eq!(read.await.unwrap().unwrap(), wanted, "{slice}");
        }
        assert_eq!(shard_reads(&watched), expected, "{slice}");
    }
}

#[tokio::test]
async fn a_series_costs_two_reads_a_shard_and_then_one() {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let shapes: [&[u64]; 3] = [&[80, 32, 32], &[10, 32, 32], &[10, 8, 8]];
    let sample = SampleArray::sharded("a", DataType::Float32, shapes, noise).unwrap();
    support::create(Arc::new(watched.clone()), &[sample]).await;
    let repository = support::open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = support::head(&repository).await.unwrap();
    let engine = engine(Settings::default());
    let array = support::reader(&engine, &snapshot, "a").await.unwrap();
    let read = async |slice: &str| {
        let selection = support::select(&array, slice);
        watched.take_requests();
        engine.read(&array, &selection, Decode::Cf).await.unwrap();
        let found = shard_reads(&watched);
        let plan = engine.explain(&array, &selection, Decode::Cf, None, &[]);
        (found, plan.await.unwrap().needed_bytes)
    };
    let ((cold, bytes), needed) = read(":,3,4").await;
    assert_eq!(cold, 16);
    let footers = 8 * array::shard::footer_bytes(16);
    assert!(bytes <= needed + footers, "{bytes} bytes for {needed}");
    // Other inner chunks of the same shards.
    let ((warm, bytes), needed) = read(":,20,20").await;
    assert_eq!(warm, 8);
    assert_eq!(bytes, needed);
}

const REDUCERS: [Reducer; 7] = [
    Reducer::Sum,
    Reducer::Mean,
    Reducer::Min,
    Reducer::Max,
    Reducer::Count,
    Reducer::Std,
    Reducer::Var,
];

#[tokio::test]
async fn statistics_answer_with_the_bits_of_the_data() {
    let (watched, snapshot) = watched().await;
    let with = engine(Settings::default());
    let without = engine(Settings {
        uses_statistics: false,
        ..Settings::default()
    });
    let aggregation = plain(&REDUCERS, &[true; 3]);
    for path in ["floats", "doubles", "shorts", "longs"] {
        let array = support::reader(&with, &snapshot, path).await.unwrap();
        for slice in [
            "...",
            "0:64,0:32,0:40",
            "5:,3:,:",
            "::-1,:,:40",
            "::3,:,:",
            "9,9,9",
        ] {
            let selection = support::select(&array, slice);
            let plan = with.explain(&array, &selection, Decode::Cf, Some(&aggregation), &[]);
            let plan = plan.await.unwrap();
            watched.take_requests();
            let found = with
                .aggregate(&array, &selection, Decode::Cf, &aggregation)
                .await;
            assert_eq!(
                shard_reads(&watched).0,
                plan.requests.count,
                "{path} {slice}"
            );
            let wanted = without
                .aggregate(&array, &selection, Decode::Cf, &aggregation)
                .await;
            assert_eq!(found.unwrap(), wanted.unwrap(), "{path} {slice}");
        }
        // All of it, and whole chunks, take no data.
        for slice in ["...", "32:64,16:32,0:20"] {
            let selection = support::select(&array, slice);
            let engine = engine(Settings::default());
            watched.take_requests();
            engine
                .aggregate(&array, &selection, Decode::Cf, &aggregation)
                .await
                .unwrap();
            assert_eq!(shard_reads(&watched), (0, 0), "{path} {slice}");
        }
        // A box takes its boundary alone: here, half of the chunks along the first axis.
        let selection = support::select(&array, "16:64,0:32,0:40");
        let plan = with
            .explain(&array, &selection, Decode::Cf, Some(&aggregation), &[])
            .await
            .unwrap();
        assert_eq!((plan.chunks, plan.chunks_in_statistics), (8, 4), "{path}");
        assert_eq!(plan.inner_chunks, 4 * 2, "{path}");
    }
}

#[tokio::test]
async fn a_stream_has_the_bytes_of_the_read_and_little_memory() {
    let (_, snapshot) = watched().await;
    let engine = engine(Settings {
        work_bytes: 4 << 20,
        ..Settings::default()
    });
    for path in ["doubles", "shorts"] {
        let array = support::reader(&engine, &snapshot, path).await.unwrap();
        for slice in SLICES {
            let selection = support::select(&array, slice);
            let whole = engine.read(&array, &selection, Decode::Cf).await.unwrap();
            let array::Elements::Fixed(expected) = whole.elements else {
                panic!("numbers have a fixed size");
            };
            let stream = engine.stream(&array, &selection, Decode::Cf).await.unwrap();
            assert_eq!(stream.total_bytes, expected.len() as u64);
            assert!(engine.memory().0 <= 4 << 20);
            let pieces: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
            assert_eq!(pieces.concat(), expected, "{path} {slice}");
            assert_eq!(engine.memory().0, 0);
        }
    }
}

#[tokio::test]
async fn memory_is_waited_for_and_given_back() {
    let (_, snapshot) = watched().await;
    let engine = Engine::new(Settings {
        threads: 1,
        work_bytes: 2 << 20,
        longest_wait: Duration::from_millis(50),
        ..Settings::default()
    })
    .unwrap();
    let array = support::reader(&engine, &snapshot, "floats").await.unwrap();
    let selection = support::select(&array, "0:8,...");
    let all = engine.reserve(engine.memory().1).await.unwrap();
    let refused = engine.read(&array, &selection, Decode::Cf).await;
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    drop(all);
    let read: Tensor = engine.read(&array, &selection, Decode::Cf).await.unwrap();
    assert_eq!(read.shape, [8, 45, 50]);
    assert_eq!(engine.memory().0, 0);
    let more = engine.reserve(engine.memory().1 + 1).await;
    assert!(matches!(more, Err(Error::OverBudget { .. })));
}

#[tokio::test]
async fn the_disk_cache_survives_restarts_and_damage() {
    let (watched, snapshot) = watched().await;
    let folder = std::env::temp_dir().join(format!("quarr-read-path-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let open = || {
        let settings = Settings {
            threads: 1,
            ..Settings::default()
        };
        Engine::with_disk_cache(settings, &folder, 64 << 20).unwrap()
    };
    let files = || {
        let folders = std::fs::read_dir(&folder).unwrap().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
        files.map(|file| file.path()).collect::<Vec<_>>()
    };
    let first = open();
    let array = support::reader(&first, &snapshot, "floats").await.unwrap();
    let selection = support::select(&array, ":,20,30");
    let wanted = first.read(&array, &selection, Decode::Cf).await.unwrap();
    let mut read = shard_reads(&watched).0;
    assert!(read > 0);
    // Files are written in the background, not all of them if there is much to do.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let again = open();
        assert_eq!(
            again.read(&array, &selection, Decode::Cf).await.unwrap(),
            wanted
        );
        read = shard_reads(&watched).0;
        if read == 0 {
            break;
        }
    }
    assert_eq!(read, 0, "everything is on the disk now");
    // The store is not needed for what is there; what is damaged there is read anew.
    let damaged = files();
    assert!(!damaged.is_empty());
    for file in &damaged {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let again = open();
    assert_eq!(
        again.read(&array, &selection, Decode::Cf).await.unwrap(),
        wanted
    );
    assert!(shard_reads(&watched).0 > 0);
    assert!(again.counters().misses(Tier::Disk) > 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn who_waits_for_a_failed_read_reads_for_himself() {
    let (watched, snapshot) = watched().await;
    let engine = engine(Settings::default());
    let array = support::reader(&engine, &snapshot, "floats").await.unwrap();
    let selection = support::select(&array, "0:8,0:16,0:20");
    let index = array::ChunkIndex::new(vec![0, 0, 0]);
    let row = engine.chunk(&array, &index).await.unwrap().unwrap();
    let key = array.node().chunk_object(&row);
    watched.set_damage(Some((&key, Damage::Flip(10, 1))));
    let reads = || {
        (0..8).map(|_| {
            let (engine, array, selection) = (engine.clone(), array.clone(), selection.clone());
            tokio::spawn(async move { engine.read(&array, &selection, Decode::Cf).await })
        })
    };
    for read in reads().collect::<Vec<_>>() {
        let refused = read.await.unwrap();
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    watched.set_damage(None);
    for read in reads().collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap().unwrap().shape, [8, 16, 20]);
    }
}

/// The one element of a tensor of `float64`.
fn number(tensor: &Tensor) -> f64 {
    match &tensor.elements {
        array::Elements::Fixed(bytes) => f64::from_le_bytes(bytes[..8].try_into().unwrap()),
        array::Elements::Variable(_) => panic!("a number has a fixed size"),
    }
}

#[tokio::test]
async fn medians_are_exact_in_little_memory_and_approximate_ones_within_their_bound() {
    let (_, snapshot) = watched().await;
    let [plenty, little] = [1 << 30, 4 << 20].map(|work_bytes| {
        engine(Settings {
            work_bytes,
            ..Settings::default()
        })
    });
    let q = compute::order::OrderStatistics::quantiles(
        vec![0.0, 0.25, 0.9, 1.0],
        "linear".parse().unwrap(),
        None,
    );
    let median = compute::order::OrderStatistics::median(None);
    let measures = [Measure::Order(median), Measure::Order(q.unwrap())];
    for reduced in [
        [true, true, true],
        [true, false, true],
        [false, true, false],
    ] {
        let aggregation = Aggregation {
            measures: measures.to_vec(),
            ..Aggregation::plain(&[], &reduced)
        };
        for path in ["doubles", "shorts"] {
            let array = support::reader(&plenty, &snapshot, path).await.unwrap();
            let selection = support::select(&array, "...");
            let wanted = plenty
                .aggregate(&array, &selection, Decode::Cf, &aggregation)
                .await
                .unwrap();
            let found = little
                .aggregate(&array, &selection, Decode::Cf, &aggregation)
                .await
                .unwrap();
            assert_eq!(found, wanted, "{path} {reduced:?}");
            if reduced != [true, true, true] {
                continue;
            }
            let bytes = little
                .aggregate_bytes(&array, &selection, &aggregation)
                .unwrap();
            let reservation = little.reserve(bytes).await.unwrap();
            let near = little
                .aggregate_approximately(&array, &selection, Decode::Cf, &aggregation, &reservation)
                .await
                .unwrap();
            let off = (number(&near.tensors[0]) - number(&wanted[0])).abs();
            assert!(
                off <= near.error_bound,
                "{path}: {off} > {}",
                near.error_bound
            );
        }
    }
}

#[tokio::test]
async fn inner_chunks_that_are_alike_do_not_wait_for_each_other() {
    // All inner chunks have the same bytes, so all but one are read by someone else.
    let watched = Watched::new(Arc::new(InMemory::new()));
    let shapes: [&[u64]; 3] = [&[128, 256], &[16, 64], &[8, 16]];
    let alike = |at: u64| noise(at % 16);
    let sample = SampleArray::sharded("a", DataType::Float32, shapes, alike).unwrap();
    support::create(Arc::new(watched.clone()), &[sample]).await;
    let repository = support::open(Arc::new(watched)).await.unwrap();
    let snapshot = support::head(&repository).await.unwrap();
    let engine = Engine::new(Settings {
        threads: 2,
        cache_bytes: 0,
        work_bytes: 1 << 20,
        ..Settings::default()
    })
    .unwrap();
    let array = support::reader(&engine, &snapshot, "a").await.unwrap();
    let reads = ["...", "::3,:", ":,5:200"].map(|slice| {
        let (engine, array) = (engine.clone(), array.clone());
        let selection = support::select(&array, slice);
        let reduced = [true, false];
        let median = compute::order::OrderStatistics::median(None);
        let aggregation = Aggregation {
            measures: vec![Measure::Order(median)],
            ..Aggregation::plain(&[], &reduced)
        };
        tokio::spawn(async move {
            engine.read(&array, &selection, Decode::Cf).await.unwrap();
            engine
                .aggregate(&array, &selection, Decode::Cf, &aggregation)
                .await
                .unwrap();
        })
    });
    for read in reads {
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .unwrap()
            .unwrap();
    }
}
