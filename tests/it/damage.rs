//! No byte under a store can change unnoticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use array::Bounds;
use bytes::Bytes;
use compute::cf::Decode;
use compute::{Reducer, Reduction};
use futures::StreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use quarr_tests::arrays::SampleArray;
use quarr_tests::watched::{Damage, Request, Watched};
use query::Progress;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use storage::Scope;

use crate::support::{self, chain};

/// Random flips of one byte.
const FLIPS: usize = 2_000;
/// Other ways an object can be wrong.
const OTHERS: usize = 300;
/// The one object that may hold anything.
const HINT: &str = "log/_hint.json";

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_an_error_that_names_the_object() {
    let flip = |rng: &mut StdRng, bytes: &Bytes, _: &[Bytes]| {
        Damage::Flip(
            rng.random_range(0..bytes.len() as u64),
            rng.random_range(1..=255),
        )
    };
    damage_is_found(FLIPS, flip).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_cut_short_swapped_or_gone_is_an_error_that_names_it() {
    let damage = |rng: &mut StdRng, bytes: &Bytes, others: &[Bytes]| match rng.random_range(0..3) {
        0 => Damage::Truncate(rng.random_range(0..bytes.len() as u64)),
        1 => Damage::Remove,
        _ => swapped(rng, bytes, others),
    };
    damage_is_found(OTHERS, damage).await;
}

/// Another object in the place of this one.
fn swapped(rng: &mut StdRng, bytes: &Bytes, others: &[Bytes]) -> Damage {
    loop {
        let other = &others[rng.random_range(0..others.len())];
        if other != bytes {
            return Damage::Replace(other.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn no_change_of_many_to_a_store_passes() {
    let damage = |rng: &mut StdRng, bytes: &Bytes, others: &[Bytes]| match rng.random_range(0..6) {
        0 => Damage::Truncate(rng.random_range(0..bytes.len() as u64)),
        1 => Damage::Remove,
        2 => swapped(rng, bytes, others),
        _ => Damage::Flip(
            rng.random_range(0..bytes.len() as u64),
            rng.random_range(1..=255),
        ),
    };
    let count = std::env::var("QUARR_DAMAGES").ok();
    let count = count.and_then(|count| count.parse().ok());
    damage_is_found(count.unwrap_or(20_000), damage).await;
}

#[tokio::test]
async fn a_hint_may_hold_anything() {
    let (watched, samples) = support::every_kind_of_object().await;
    for hint in [
        "",
        "{",
        "{\"sequence\":\"99999999\"}",
        "{\"sequence\":\"18446744073709551615\"}",
    ] {
        watched.set_damage(Some((HINT, Damage::Replace(hint.into()))));
        read_everything(&watched, &samples).await.unwrap();
    }
}

async fn damage_is_found(count: usize, make: fn(&mut StdRng, &Bytes, &[Bytes]) -> Damage) {
    let (watched, samples) = support::every_kind_of_object().await;
    read_everything(&watched, &samples).await.unwrap();
    assert_eq!(verify(&watched).await, Vec::<String>::new());

    let (memory, folders) = copy(&watched).await;
    let objects: Vec<Bytes> = folders
        .values()
        .flatten()
        .map(|(_, bytes)| bytes.clone())
        .collect();
    let (samples, folders, objects) = (Arc::new(samples), Arc::new(folders), Arc::new(objects));
    let newest_entry = folders["log"]
        .iter()
        .map(|(key, _)| key.clone())
        .max()
        .unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let tasks = (0..workers).map(|worker| {
        let watched = Watched::new(memory.clone());
        let (samples, folders, objects) = (samples.clone(), folders.clone(), objects.clone());
        let newest_entry = newest_entry.clone();
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed ^ worker as u64);
            for _ in 0..count.div_ceil(workers) {
                // Every kind of object as often as any other, however many there are.
                let folder = folders
                    .values()
                    .nth(rng.random_range(0..folders.len()))
                    .unwrap();
                let (key, bytes) = &folder[rng.random_range(0..folder.len())];
                let damage = make(&mut rng, bytes, &objects);
                // Without repo.json there is no repository; checkpoints and the transparency log
                // can be rebuilt; and a log
                // without its newest entry is the log of a moment ago.
                let expendable = ["repo.json", "checkpoints/", "tlog/"]
                    .iter()
                    .any(|folder| key.starts_with(folder));
                if damage == Damage::Remove && (expendable || *key == newest_entry) {
                    continue;
                }
                assert_damage_is_found(&watched, &samples, key, damage).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// All objects but the hint, by the folder they are in.
async fn copy(store: &Watched) -> (Arc<InMemory>, BTreeMap<String, Vec<(String, Bytes)>>) {
    let memory = Arc::new(InMemory::new());
    let mut folders = BTreeMap::<String, Vec<_>>::new();
    let listed: Vec<_> = store.list(None).collect().await;
    for meta in listed {
        let location = meta.unwrap().location;
        let bytes = store.get(&location).await.unwrap().bytes().await.unwrap();
        memory.put(&location, bytes.clone().into()).await.unwrap();
        let key = location.to_string();
        if key != HINT {
            let folder = key.split('/').next().unwrap().to_owned();
            folders.entry(folder).or_default().push((key, bytes));
        }
    }
    assert_eq!(
        folders.keys().collect::<Vec<_>>(),
        [
            "checkpoints",
            "log",
            "objects",
            "repo.json",
            "shards",
            "tlog"
        ]
    );
    (memory, folders)
}

async fn assert_damage_is_found(
    watched: &Watched,
    samples: &[SampleArray],
    key: &str,
    damage: Damage,
) {
    watched.set_damage(Some((key, damage.clone())));
    watched.take_requests();
    let outcome = read_everything(watched, samples).await;
    let requests = watched.take_requests();
    let touched = requests.iter().any(|request| match request {
        Request::Get(read, range) => read == key && damage.shows_in(range),
        Request::GetAbsent(read) => read == key,
        Request::Head(_) | Request::Put(..) | Request::List(_) => false,
    });
    match outcome {
        Ok(()) => assert!(!touched, "{key} {damage:?} was read and not noticed"),
        Err(Wrong::Error(text)) => {
            assert!(text.contains(key), "{key} {damage:?} is not named: {text}");
        }
        Err(Wrong::Values(array)) => panic!("{key} {damage:?} gave wrong values of {array}"),
    }
    let found = verify(watched).await;
    assert!(
        found.iter().any(|text| text.contains(key)),
        "{key} {damage:?}: verify found {found:?}"
    );
}

/// How a read can differ from what was written.
#[derive(Debug)]
enum Wrong {
    Error(String),
    Values(String),
}

impl From<storage::Error> for Wrong {
    fn from(error: storage::Error) -> Self {
        Self::Error(chain(&error))
    }
}

impl From<query::Error> for Wrong {
    fn from(error: query::Error) -> Self {
        Self::Error(chain(&error))
    }
}

/// Reads the log, every array whole and in part, and reduces one, as a new process would.
async fn read_everything(watched: &Watched, samples: &[SampleArray]) -> Result<(), Wrong> {
    let repository = support::open(Arc::new(watched.clone())).await?;
    repository.log(None, usize::MAX).await?;
    let snapshot = support::head(&repository).await?;
    for sample in samples {
        // Nothing cached by one read may hide the damage from the next.
        for part in ["...", "1:3,...,2:4"] {
            let engine = support::engine();
            let array = support::reader(&engine, &snapshot, &sample.path).await?;
            let parsed: array::Selection = part.parse().unwrap();
            let Ok(selection) = parsed.resolve(sample.metadata.shape(), Bounds::Clamp) else {
                continue;
            };
            let tensor = engine.read(&array, &selection, Decode::Raw).await?;
            if tensor.elements != sample.gather(&naive_indices(&selection, sample)) {
                return Err(Wrong::Values(format!("{} {part}", sample.path)));
            }
        }
    }
    let (engine, path) = (support::engine(), "big/shards");
    let array = support::reader(&engine, &snapshot, path).await?;
    let all = support::select(&array, "...");
    let sum = Reduction::new(Reducer::Sum);
    engine
        .reduce(&array, &all, Decode::Raw, sum, &[true, true])
        .await?;
    Ok(())
}

/// C-order indices of the selected elements, by definition.
fn naive_indices(selection: &array::ResolvedSelection, sample: &SampleArray) -> Vec<u64> {
    let shape = sample.metadata.shape();
    let selected = array::Region::whole(&selection.selected_shape());
    let place = |at: Vec<u64>| -> u64 {
        let position: Vec<u64> = at
            .iter()
            .zip(selection.axes())
            .map(|(&nth, axis)| axis.position(nth))
            .collect();
        array::shape::linear_index(&position, shape)
    };
    selected.positions().map(place).collect()
}

/// What a deep verification says is wrong.
async fn verify(watched: &Watched) -> Vec<String> {
    let repository = match support::open(Arc::new(watched.clone())).await {
        Ok(repository) => repository,
        Err(error) => return vec![chain(&error)],
    };
    let mut progress = Progress::new("", true);
    // What only someone with the key can tell.
    let published = repository.published().await;
    let published = published.ok().flatten();
    let key = support::signing_key().verifier();
    if published.is_some_and(|published| published.verify(&[key]).is_err()) {
        return vec!["tlog/checkpoint".into()];
    }
    match support::engine()
        .verify(&repository, &Scope::Everything, &mut progress, &mut |_| {
            true
        })
        .await
    {
        Ok(report) => report
            .damage
            .into_iter()
            .map(|damage| damage.object)
            .collect(),
        Err(error) => vec![chain(&error)],
    }
}

#[tokio::test]
async fn the_fixture_has_pages_above_pages_and_inline_chunks() {
    let (watched, samples) = support::every_kind_of_object().await;
    let stored = |folder: &str| {
        let (watched, folder) = (watched.clone(), Path::from(folder));
        async move { watched.list(Some(&folder)).count().await }
    };
    // Three levels of the sparse array's manifest alone, and far fewer chunk objects than chunks.
    assert!(stored("objects").await > samples.len());
    assert!(stored("shards").await < samples.len());
}
