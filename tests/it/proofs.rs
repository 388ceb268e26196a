//! Proofs: what they prove is what is stored, and nothing else passes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use array::{Bounds, DataType, Elements, Hash, Region, Selection, Statistics, hash};
use compute::cf::Missing;
use object_store::memory::InMemory;
use quarr_tests::arrays::SampleArray;
use query::{proven_statistics, proven_values};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use storage::proof::{Proven, check};
use storage::tlog::{Extended, Head, SigningKey};
use storage::{CommitId, RefKind, Repository, Snapshot};

use crate::support::{
    commit, create, every_kind_of_object, head, noise, open, publish, signing_key,
};

/// What NumPy would select of an array, as its smallest box.
fn region_of(sample: &SampleArray, text: &str) -> Region {
    let selection: Selection = text.parse().unwrap();
    let shape = sample.metadata.shape();
    selection
        .resolve(shape, Bounds::Clamp)
        .unwrap()
        .hull()
        .unwrap()
}

fn expected(sample: &SampleArray, region: &Region) -> Elements {
    let shape = sample.metadata.shape();
    let cells = region.positions();
    let cells: Vec<u64> = cells
        .map(|at| array::shape::linear_index(&at, shape))
        .collect();
    sample.gather(&cells)
}

async fn prove(snapshot: &Snapshot, path: &str, region: &Region) -> Vec<u8> {
    let path = path.parse().unwrap();
    snapshot.prove(&path, region).await.unwrap().bytes
}

/// Checks that a proof proves these values at this commit.
fn assert_proves(proof: &[u8], sample: &SampleArray, region: &Region, commit: CommitId) -> Proven {
    let proven = check(proof).unwrap();
    assert_eq!(proven.path.as_str(), sample.path);
    assert_eq!(proven.commit, commit);
    assert_eq!(&proven.region, region);
    let values = proven_values(&proven).unwrap();
    assert_eq!(values.elements, expected(sample, region), "{}", sample.path);
    proven
}

#[tokio::test]
async fn whole_arrays_and_single_cells_of_every_type_are_proven() {
    let (watched, samples) = every_kind_of_object().await;
    let repository = open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = head(&repository).await.unwrap();
    for sample in &samples {
        if sample.metadata.shape().contains(&0) {
            continue;
        }
        let whole = Region::whole(sample.metadata.shape());
        let last: Vec<u64> = whole.shape().iter().map(|length| length - 1).collect();
        let corner = Region::new(last.clone(), vec![1; last.len()]).unwrap();
        for region in [whole, corner] {
            let proof = prove(&snapshot, &sample.path, &region).await;
            let proven = assert_proves(&proof, sample, &region, snapshot.id());
            let log = repository.log(Some(proven.sequence - 1), 1).await.unwrap();
            assert_eq!(log[0].sequence, proven.sequence);
        }
    }
}

/// A repository in which commits are heads, ancestors of heads, and of branches that are gone.
async fn history() -> (Repository, SampleArray, Vec<CommitId>) {
    let sample =
        |path| SampleArray::sharded(path, DataType::Float32, [&[40, 6], &[8, 6], &[4, 3]], noise);
    let first = sample("a").unwrap();
    let repository = create(Arc::new(InMemory::new()), std::slice::from_ref(&first)).await;
    let mut commits = vec![head(&repository).await.unwrap().id()];
    for path in ["b", "g/c", "g/d"] {
        commits.push(commit(&repository, &[sample(path).unwrap()]).await);
    }
    let name = "old".parse().unwrap();
    let old = commits[1];
    repository
        .create_ref(RefKind::Branch, &name, old, "test")
        .await
        .unwrap();
    repository
        .delete_ref(RefKind::Branch, &name, "test")
        .await
        .unwrap();
    publish(&repository, &[], &[signing_key()]).await.unwrap();
    (repository, first, commits)
}

#[tokio::test]
async fn every_commit_is_proven_to_be_in_the_log() {
    let (repository, sample, commits) = history().await;
    let region = region_of(&sample, "3:9,2");
    for id in commits {
        let snapshot = repository.snapshot(id).await.unwrap();
        let proof = prove(&snapshot, "a", &region).await;
        assert_proves(&proof, &sample, &region, id);
    }
}

#[tokio::test]
async fn what_is_fill_value_is_proven_too() {
    let sparse = |index: u64| {
        let value = if index == 700 { 1.0f32 } else { 0.0 };
        value.to_le_bytes().to_vec()
    };
    let shapes: [&[u64]; 3] = [&[4000], &[2], &[1]];
    let sparse = SampleArray::sharded("sparse", DataType::Float32, shapes, sparse).unwrap();
    let empty = |_| 0f32.to_le_bytes().to_vec();
    let empty = SampleArray::sharded("empty", DataType::Float32, shapes, empty).unwrap();
    let samples = [sparse, empty];
    let repository = create(Arc::new(InMemory::new()), &samples).await;
    let snapshot = head(&repository).await.unwrap();
    for sample in &samples {
        for text in ["0", "690:710", "700", "701", "3999", "..."] {
            let region = region_of(sample, text);
            let proof = prove(&snapshot, &sample.path, &region).await;
            assert_proves(&proof, sample, &region, snapshot.id());
        }
    }
}

#[tokio::test]
async fn what_cannot_be_proven_is_refused() {
    let (repository, ..) = history().await;
    let snapshot = repository
        .snapshot(head(&repository).await.unwrap().id())
        .await
        .unwrap();
    for (start, shape) in [(40, 1), (0, 41), (5, 0)] {
        let region = Region::new(vec![start, 0], vec![shape, 1]).unwrap();
        let refused = snapshot.prove(&"a".parse().unwrap(), &region).await;
        assert!(refused.is_err(), "{region}");
    }
    let region = Region::new(vec![0, 0], vec![1, 1]).unwrap();
    for path in ["", "g", "none", "a/below"] {
        let refused = snapshot.prove(&path.parse().unwrap(), &region).await;
        assert!(refused.is_err(), "{path}");
    }
}

/// Places of the members and elements of a JSON value, the value itself included.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(elements) => {
            for (number, element) in elements.iter().enumerate() {
                places(element, &format!("{at}/{number}"), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(member, &format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

/// Another value of the same kind, or one of another kind.
fn other(value: &Value, donor: &Value, rng: &mut StdRng) -> Value {
    match value {
        Value::String(text) if !text.is_empty() && rng.random_bool(0.7) => {
            let at = rng.random_range(0..text.chars().count());
            let change = |(place, letter): (usize, char)| match (place == at, letter) {
                (false, letter) => letter,
                (true, 'A') => 'B',
                (true, '0') => '1',
                (true, letter) if letter.is_ascii_digit() => '0',
                (true, _) => 'A',
            };
            let text: String = text.chars().enumerate().map(change).collect();
            json!(text)
        }
        Value::Number(number) => json!(
            number
                .as_u64()
                .unwrap_or(0)
                .wrapping_add(rng.random_range(1..3))
        ),
        Value::Array(elements) if !elements.is_empty() => {
            let mut elements = elements.clone();
            let at = rng.random_range(0..elements.len());
            match rng.random_range(0..3) {
                0 => drop(elements.remove(at)),
                1 => elements.insert(at, elements[at].clone()),
                _ => {
                    let to = rng.random_range(0..elements.len());
                    elements.swap(at, to);
                }
            }
            Value::Array(elements)
        }
        Value::Object(members) if rng.random_bool(0.3) => {
            let mut members = members.clone();
            members.insert("unknown".into(), json!(1));
            Value::Object(members)
        }
        _ => donor.clone(),
    }
}

/// One change to a proof: of a byte, of its length, or of a part, which may come from `donor`.
fn mutate(proof: &[u8], donor: &[u8], rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..10) {
        0 => {
            let mut flipped = proof.to_vec();
            let at = rng.random_range(0..flipped.len());
            flipped[at] ^= 1 << rng.random_range(0..8);
            flipped
        }
        1 => proof[..rng.random_range(0..proof.len())].to_vec(),
        2 => [proof, b" "].concat(),
        choice => {
            let mut value: Value = serde_json::from_slice(proof).unwrap();
            let donor: Value = serde_json::from_slice(donor).unwrap();
            let mut found = Vec::new();
            places(&value, "", &mut found);
            let place = found.choose(rng).unwrap().clone();
            let theirs = donor.pointer(&place).cloned().unwrap_or(Value::Null);
            let own = value.pointer_mut(&place).unwrap();
            *own = if choice < 6 {
                theirs
            } else {
                other(own, &theirs, rng)
            };
            array::json::canonical_bytes(&value)
        }
    }
}

/// With the hash that belongs to it, as a forger would make it.
fn with_self(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else {
        return bytes;
    };
    let Some(members) = value.as_object_mut() else {
        return bytes;
    };
    members.remove("self");
    let own = hash::hash(hash::Kind::Proof, &array::json::canonical_bytes(&value));
    value["self"] = json!(own);
    array::json::canonical_bytes(&value)
}

/// What a forger makes of the checkpoint in a proof: a head of another size, signed with the log's
/// own name.
fn forge_checkpoint(proof: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(proof).unwrap();
    let receipt = value.pointer_mut("/published/receipt");
    let Some(Value::String(receipt)) = receipt else {
        return proof.to_vec();
    };
    let mut parts: Vec<String> = receipt.splitn(2, "\n\n").map(str::to_owned).collect();
    let text = parts[1].split("\n\n").next().unwrap().to_owned() + "\n";
    let mut forged: Head = text.parse().unwrap();
    match rng.random_range(0..3) {
        0 => forged.size += rng.random_range(1..9),
        1 => forged.root.0[rng.random_range(0..32)] ^= 1 << rng.random_range(0..8),
        _ => {}
    }
    let impostor = SigningKey::generate(&forged.origin).unwrap();
    let tree = Extended {
        size: forged.size,
        root: forged.root,
    };
    parts[1] = Repository::sign_tree(&tree, &[impostor]).to_string();
    *receipt = parts.join("\n\n");
    array::json::canonical_bytes(&value)
}

/// What is stored, to tell what is true.
#[derive(Default)]
struct Truth {
    arrays: HashMap<(CommitId, String), SampleArray>,
    /// Hashes of the log entries of all repositories.
    entries: HashSet<Hash>,
    /// Heads that were signed.
    heads: Vec<Head>,
}

impl Truth {
    fn add(&mut self, commit: CommitId, sample: &SampleArray) {
        let key = (commit, sample.path.clone());
        self.arrays.insert(key, sample.clone());
    }

    async fn add_log(&mut self, repository: &Repository) {
        for sequence in 0..repository.head().await.unwrap().next_sequence() {
            let bytes = repository.log_entry_bytes(sequence).await.unwrap();
            let entry = storage::tlog::entry_hash(sequence, &bytes).unwrap();
            self.entries.insert(entry);
        }
        self.heads
            .push(repository.published().await.unwrap().unwrap().head);
    }

    /// Whether what is proven is so; and what is signed, was signed.
    fn holds(&self, proven: &Proven) -> bool {
        let key = (proven.commit, proven.path.as_str().to_owned());
        let is_signed = proven
            .checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.verify(&[signing_key().verifier()]).is_ok());
        let head = proven
            .checkpoint
            .as_ref()
            .map(|checkpoint| &checkpoint.head);
        if is_signed && !head.is_some_and(|head| self.heads.contains(head)) {
            return false;
        }
        let is_content = self.arrays.get(&key).is_some_and(|sample| {
            let expected = expected(sample, &proven.region);
            match proven_statistics(proven).unwrap() {
                None => proven_values(proven).is_ok_and(|values| values.elements == expected),
                Some(statistics) => agree(sample, &expected, &statistics),
            }
        });
        is_content && self.entries.contains(&proven.entry)
    }
}

/// Whether statistics are those of these elements.
fn agree(sample: &SampleArray, elements: &Elements, statistics: &Statistics) -> bool {
    let Elements::Fixed(bytes) = elements else {
        return false;
    };
    let metadata = &sample.metadata;
    let missing = Missing::from_attributes(&metadata.data_type, &metadata.attributes).unwrap();
    let own = compute::statistics(&metadata.data_type, bytes, &missing).unwrap();
    let counts = |statistics: &Statistics| (statistics.valid, statistics.missing);
    let close = |a: f64, b: f64| {
        a.to_bits() == b.to_bits()
            || (a - b).abs() <= 1e-9 * a.abs().max(1.0)
            || a.is_nan() && b.is_nan()
    };
    counts(&own) == counts(statistics)
        && match (own.moments, statistics.moments) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                (a.min, a.max) == (b.min, b.max) && close(a.sum.to_f64(), b.sum.to_f64())
            }
            _ => false,
        }
}

/// The smallest region of whole chunks around one.
fn aligned(sample: &SampleArray, region: &Region) -> Region {
    let (shape, chunk) = (sample.metadata.shape(), sample.metadata.chunk_shape());
    let start = region.start().iter().zip(chunk);
    let start: Vec<u64> = start.map(|(at, length)| at / length * length).collect();
    let lengths = (0..start.len()).map(|axis| {
        let end = region.range(axis).end.div_ceil(chunk[axis]) * chunk[axis];
        end.min(shape[axis]) - start[axis]
    });
    Region::new(start.clone(), lengths.collect()).unwrap()
}

#[tokio::test]
async fn statistics_are_proven_for_regions_of_whole_chunks() {
    let (watched, samples) = every_kind_of_object().await;
    let repository = open(Arc::new(watched)).await.unwrap();
    let snapshot = head(&repository).await.unwrap();
    let (mut proven_arrays, mut refused) = (0, 0);
    for sample in &samples {
        if sample.metadata.shape().contains(&0) {
            continue;
        }
        let whole = Region::whole(sample.metadata.shape());
        let path = sample.path.parse().unwrap();
        let Ok(proof) = snapshot.prove_statistics(&path, &whole, "max").await else {
            refused += 1;
            continue;
        };
        proven_arrays += 1;
        let middle: Vec<u64> = whole.shape().iter().map(|length| length / 2).collect();
        let ones = vec![1; middle.len()];
        let part = aligned(sample, &Region::new(middle, ones).unwrap());
        let of_part = snapshot
            .prove_statistics(&path, &part, "max")
            .await
            .unwrap();
        for (proof, region) in [(proof, whole), (of_part, part)] {
            let proven = check(&proof.bytes).unwrap();
            assert_eq!((&proven.region, proven.commit), (&region, snapshot.id()));
            let statistics = proven_statistics(&proven).unwrap().unwrap();
            let expected = expected(sample, &region);
            assert!(
                agree(sample, &expected, &statistics),
                "{} {region}",
                sample.path
            );
            assert!(proven_values(&proven).is_err());
        }
        if sample
            .metadata
            .chunk_shape()
            .iter()
            .any(|length| *length > 1)
        {
            let cell = Region::new(
                vec![0; sample.metadata.shape().len()],
                vec![1; sample.metadata.shape().len()],
            );
            let refused = snapshot
                .prove_statistics(&path, &cell.unwrap(), "max")
                .await;
            let reason = refused.unwrap_err().to_string();
            assert!(
                reason.contains("parts of chunks, and statistics are of whole ones: ask for"),
                "{reason}"
            );
        }
    }
    // Strings, complex numbers and raw bytes have none.
    assert!(
        proven_arrays > 20 && refused > 3,
        "{proven_arrays} {refused}"
    );
}

/// Changes proofs at random. No change passes; with its hash corrected, what passes is true.
async fn check_mutations(count: usize, seed: u64) {
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut truth = Truth::default();
    let mut proofs = Vec::new();
    let (watched, samples) = every_kind_of_object().await;
    let repository = open(Arc::new(watched.clone())).await.unwrap();
    let snapshot = head(&repository).await.unwrap();
    for sample in &samples {
        truth.add(snapshot.id(), sample);
        let shape = sample.metadata.shape();
        if shape.contains(&0) {
            continue;
        }
        for _ in 0..2 {
            let start: Vec<u64> = shape.iter().map(|&n| rng.random_range(0..n)).collect();
            let lengths = start.iter().zip(shape);
            let lengths = lengths.map(|(&at, &n)| rng.random_range(1..=(n - at).min(6)));
            let region = Region::new(start.clone(), lengths.collect()).unwrap();
            proofs.push(prove(&snapshot, &sample.path, &region).await);
            let (path, region) = (sample.path.parse().unwrap(), aligned(sample, &region));
            if let Ok(proof) = snapshot.prove_statistics(&path, &region, "max").await {
                proofs.push(proof.bytes);
            }
        }
    }
    truth.add_log(&repository).await;
    let (other_repository, other_sample, commits) = history().await;
    for (number, id) in commits.into_iter().enumerate() {
        for path in ["a", "b", "g/c", "g/d"].iter().take(number + 1) {
            let path = (*path).to_owned();
            truth.add(
                id,
                &SampleArray {
                    path,
                    ..other_sample.clone()
                },
            );
        }
        let snapshot = other_repository.snapshot(id).await.unwrap();
        let region = region_of(&other_sample, "3:9,2");
        proofs.push(prove(&snapshot, "a", &region).await);
    }
    truth.add_log(&other_repository).await;
    let mut still_true = 0;
    for _ in 0..count {
        let (proof, donor) = (proofs.choose(&mut rng), proofs.choose(&mut rng));
        let (proof, donor) = (proof.unwrap(), donor.unwrap());
        let mutated = match rng.random_range(0..20) {
            0 => forge_checkpoint(proof, &mut rng),
            _ => mutate(proof, donor, &mut rng),
        };
        let told = || format!("seed {seed}: {}", String::from_utf8_lossy(&mutated));
        if check(&mutated).is_ok() {
            assert!(proofs.contains(&mutated), "{}", told());
        }
        let forged = with_self(mutated.clone());
        if let Ok(proven) = check(&forged) {
            assert!(truth.holds(&proven), "{}", told());
            still_true += usize::from(!proofs.contains(&forged));
        }
    }
    println!("{still_true} of {count} proved something else that is true");
    assert!(still_true < count / 20, "{still_true} of {count}");
}

#[tokio::test]
async fn no_changed_proof_passes() {
    check_mutations(20_000, 1).await;
}

#[tokio::test]
#[ignore = "long"]
async fn no_changed_proof_of_a_million_passes() {
    check_mutations(1_000_000, rand::random()).await;
}

#[tokio::test]
async fn a_proof_names_its_array_and_commit() {
    // Two arrays and two repositories with the same data: their proofs share all below the array.
    let sample =
        |path| SampleArray::sharded(path, DataType::Float32, [&[40], &[8], &[4]], noise).unwrap();
    let samples = [sample("a"), sample("b")];
    let repository = create(Arc::new(InMemory::new()), &samples).await;
    let snapshot = head(&repository).await.unwrap();
    let region = region_of(&samples[0], "5");
    let proof = prove(&snapshot, "a", &region).await;
    let changed = |member: &str, to: Value| {
        let mut value: Value = serde_json::from_slice(&proof).unwrap();
        value[member] = to;
        with_self(array::json::canonical_bytes(&value))
    };
    assert!(check(&changed("path", json!("b"))).is_err());
    // Cell 6 is in the same inner chunk: the same bytes prove it. Cell 9 is not.
    let moved = check(&changed("start", json!(["6"]))).unwrap();
    assert_eq!(moved.region, region_of(&samples[0], "6"));
    assert!(check(&changed("start", json!(["9"]))).is_err());
}
