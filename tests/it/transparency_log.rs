//! The transparency log: other implementations follow it, and nothing is signed that contradicts
//! what was signed before.

use std::sync::Arc;

use array::hash::{Kind, hash};
use array::json;
use futures::StreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use storage::tlog::{
    self, Checkpoint, Receipt, SigningKey, Tile, TreeHash, check_consistency, record,
};
use storage::{CommitId, Error, RefKind, Repository};
use tlog_tiles::{HashReader as _, TileHashReader, TileReader};

use crate::support::{create, open, publish, signing_key};

/// A repository whose log is to grow.
async fn repository() -> (Arc<InMemory>, Repository) {
    let objects = Arc::new(InMemory::new());
    let repository = create(objects.clone(), &[]).await;
    (objects, repository)
}

/// Adds entries to a log until it has `size`.
async fn grow(repository: &Repository, size: u64) {
    let head = repository.head().await.unwrap();
    let commit = *head.refs.values().next().unwrap();
    for number in head.next_sequence()..size {
        add_tag(repository, &format!("n{number}"), commit).await;
    }
}

async fn add_tag(repository: &Repository, name: &str, commit: CommitId) {
    let name = name.parse().unwrap();
    repository
        .create_ref(RefKind::Tag, &name, commit, "test")
        .await
        .unwrap();
}

/// The tiles of a log, for the other implementation.
struct Tiles<'a> {
    repository: &'a Repository,
    runtime: tokio::runtime::Handle,
}

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            // Its paths name the height, which C2SP fixed at 8 and left out.
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            let tile: Tile = path.parse().unwrap();
            let bytes = self.runtime.block_on(self.repository.tile(tile)).unwrap();
            bytes
                .unwrap_or_else(|| panic!("{path} is missing"))
                .to_vec()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

fn theirs(hash: TreeHash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(hash.0)
}

/// Checks a published log with the other implementation: the note, the head, every entry, proofs of
/// some, and that it continues `old`.
async fn follow(repository: &Repository, checkpoint: &Checkpoint, old: Option<&Checkpoint>) {
    let text = checkpoint.to_string();
    let vkey = signing_key().verifier().to_string();
    let verifier = signed_note::StandardVerifier::new(&vkey).unwrap();
    let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
    let note = signed_note::Note::from_bytes(text.as_bytes()).unwrap();
    assert_eq!(note.verify(&known).unwrap().0.len(), 1);
    let head = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!(head.origin(), "PeterNeumann");
    assert_eq!(head.extension(), "");
    assert_eq!(
        (head.size(), *head.hash()),
        (checkpoint.head.size, theirs(checkpoint.head.root))
    );

    let size = head.size();
    let mut records = Vec::new();
    for first in (0..size).step_by(256) {
        let tile = Tile::bundle(first, size);
        let bytes = repository.tile(tile).await.unwrap().unwrap();
        records.extend(tile.records(&bytes).unwrap());
    }
    assert_eq!(records.len() as u64, size);
    let mut rng = StdRng::seed_from_u64(size);
    let mut receipts = Vec::new();
    for _ in 0..5 {
        let index = rng.random_range(0..size);
        receipts.push(repository.receipt(index).await.unwrap().unwrap());
    }
    let consistency = match old {
        Some(old) => repository
            .consistency_proof(old.head.size, size)
            .await
            .unwrap(),
        None => Vec::new(),
    };
    let old = old.map(|old| (old.head.size, old.head.root));
    let (repository, runtime) = (repository.clone(), tokio::runtime::Handle::current());
    let root = theirs(checkpoint.head.root);
    tokio::task::spawn_blocking(move || {
        let tiles = Tiles {
            repository: &repository,
            runtime,
        };
        let reader = TileHashReader::new(size, root, &tiles);
        for (index, record) in (0..).zip(&records) {
            let at = tlog_tiles::stored_hash_index(0, index);
            let leaf = reader.read_hashes(&[at]).unwrap()[0];
            assert_eq!(leaf, tlog_tiles::record_hash(record));
        }
        for receipt in &receipts {
            let proof = tlog_tiles::prove_record(size, receipt.index, &reader).unwrap();
            let own: Vec<_> = receipt.hashes.iter().copied().map(theirs).collect();
            assert_eq!(own, proof, "entry {} of {size}", receipt.index);
            let leaf = tlog_tiles::record_hash(&records[receipt.index as usize]);
            tlog_tiles::check_record(&own, size, root, receipt.index, leaf).unwrap();
        }
        if let Some((old, old_root)) = old {
            let proof = tlog_tiles::prove_tree(size, old, &reader).unwrap();
            let own: Vec<_> = consistency.iter().copied().map(theirs).collect();
            assert_eq!(own, proof, "{old} to {size}");
            tlog_tiles::check_tree(&own, size, root, old, theirs(old_root)).unwrap();
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_implementation_follows_the_log_as_it_grows() {
    let (objects, repository) = repository().await;
    let mut last: Option<Checkpoint> = None;
    for size in [2, 3, 4, 7, 8, 255, 256, 257, 300, 511, 513, 600] {
        grow(&repository, size).await;
        let signed: Vec<_> = last
            .iter()
            .map(|last| (last.head.size, last.head.root))
            .collect();
        let checkpoint = publish(&repository, &signed, &[signing_key()])
            .await
            .unwrap();
        assert_eq!(checkpoint.head.size, size);
        // Someone else sees the same.
        let other = open(objects.clone()).await.unwrap();
        assert_eq!(other.published().await.unwrap(), Some(checkpoint.clone()));
        follow(&other, &checkpoint, last.as_ref()).await;
        last = Some(checkpoint);
    }
    let verified = repository
        .verify(&storage::Scope::Everything)
        .await
        .unwrap();
    assert_eq!(verified.damage, []);
}

#[tokio::test]
async fn what_was_signed_stays_signed_and_what_contradicts_it_is_not() {
    let (objects, repository) = repository().await;
    grow(&repository, 20).await;
    let early = publish(&repository, &[], &[signing_key()]).await.unwrap();
    let early = (early.head.size, early.head.root);
    grow(&repository, 40).await;
    let late = publish(&repository, &[early], &[signing_key()])
        .await
        .unwrap();
    let late = (late.head.size, late.head.root);
    // Again, it is the same; and any of its beginnings will do.
    let again = repository.extend_tree(&[late, early]).await.unwrap();
    assert_eq!((again.size, again.root), late);

    let refused = async |repository: &Repository, signed: &[(u64, TreeHash)], why: &str| {
        let error = repository.extend_tree(signed).await.unwrap_err();
        let is_told = matches!(&error, Error::Inconsistent { .. });
        assert!(is_told && error.to_string().contains(why), "{error}");
    };
    let other = TreeHash::leaf(b"");
    refused(&repository, &[(20, other)], "was signed").await;
    refused(
        &repository,
        &[(20, other), late],
        "of 20 entries that was signed",
    )
    .await;
    refused(&repository, &[(40, other)], "of 40 entries was signed").await;
    refused(&repository, &[(41, late.1)], "entries are gone").await;

    // The newest entries are lost, and others take their place.
    let forked = copy(&objects).await;
    for sequence in 35..40 {
        forked.delete(&entry_path(sequence)).await.unwrap();
    }
    let fork = open(forked.clone()).await.unwrap();
    refused(&fork, &[late], "entries are gone").await;
    let commit = *fork.head().await.unwrap().refs.values().next().unwrap();
    for number in 35..45 {
        add_tag(&fork, &format!("fork{number}"), commit).await;
    }
    refused(&fork, &[late], "is not the entry that was signed").await;
    // Even one who remembers nothing is stopped by the heads in the store.
    for sequence in 40..45 {
        forked.delete(&entry_path(sequence)).await.unwrap();
    }
    let fork = open(forked).await.unwrap();
    let error = fork.extend_tree(&[]).await.unwrap_err();
    assert!(error.to_string().contains("tlog/"), "{error}");

    // An entry that claims a state it does not lead to.
    let path = entry_path(40);
    let bytes = objects
        .get(&entry_path(39))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let mut entry: Value = serde_json::from_slice(&bytes).unwrap();
    entry["previous"] = entry["self"].take();
    entry.as_object_mut().unwrap().remove("self");
    entry["sequence"] = "40".into();
    entry["state"] = entry["previous"].clone();
    entry["time"] = "2200-01-01T00:00:00.000000Z".into();
    let own = hash(Kind::LogEntry, &json::canonical_bytes(&entry));
    entry["self"] = own.to_string().into();
    objects
        .put(&path, json::canonical_bytes(&entry).into())
        .await
        .unwrap();
    let repository = open(objects).await.unwrap();
    refused(&repository, &[late], "claims a state").await;
}

fn entry_path(sequence: u64) -> Path {
    Path::from(format!("log/{sequence:020}.json"))
}

async fn copy(objects: &InMemory) -> Arc<InMemory> {
    let copied = Arc::new(InMemory::new());
    let mut listed = objects.list(None);
    while let Some(found) = listed.next().await {
        let location = found.unwrap().location;
        let bytes = objects.get(&location).await.unwrap().bytes().await.unwrap();
        copied.put(&location, bytes.into()).await.unwrap();
    }
    copied
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_that_are_gone_are_made_anew() {
    let (objects, repository) = repository().await;
    grow(&repository, 300).await;
    let first = publish(&repository, &[], &[signing_key()]).await.unwrap();
    let signed = (first.head.size, first.head.root);
    let kept = copy(&objects).await;
    for path in [
        "tlog/tile/0/000",
        "tlog/tile/0/001.p/44",
        "tlog/tile/1/000.p/1",
    ] {
        let path = Path::from(path);
        objects.delete(&path).await.unwrap();
        repository.extend_tree(&[signed]).await.unwrap();
        if path.as_ref() == "tlog/tile/0/000" {
            // It is not needed, until something asks for it.
            assert!(repository.receipt(7).await.is_err());
            continue;
        }
        let bytes = |store: &InMemory| {
            let (store, path) = (store.clone(), path.clone());
            async move { store.get(&path).await.unwrap().bytes().await.unwrap() }
        };
        assert_eq!(bytes(&objects).await, bytes(&kept).await);
    }
    assert!(repository.receipt(7).await.is_ok());
    // All of them, bundles too.
    let mut listed = objects.list(Some(&Path::from("tlog/tile")));
    while let Some(found) = listed.next().await {
        objects.delete(&found.unwrap().location).await.unwrap();
    }
    grow(&repository, 301).await;
    let last = publish(&repository, &[signed], &[signing_key()])
        .await
        .unwrap();
    follow(&repository, &last, Some(&first)).await;
}

#[tokio::test]
async fn a_receipt_with_any_bit_changed_shows_nothing() {
    let (_, repository) = repository().await;
    grow(&repository, 9).await;
    publish(&repository, &[], &[signing_key()]).await.unwrap();
    let known = [signing_key().verifier()];
    let text = repository
        .receipt_with_entry(5)
        .await
        .unwrap()
        .unwrap()
        .to_string();
    let holds = |bytes: &[u8]| {
        let receipt: Receipt = std::str::from_utf8(bytes).ok()?.parse().ok()?;
        let (hash, entry) = receipt.check_entry().ok()?;
        receipt.checkpoint.verify(&known).ok()?;
        Some((hash, entry.sequence))
    };
    let (hash, sequence) = holds(text.as_bytes()).unwrap();
    assert_eq!(sequence, 5);
    let bytes = repository.log_entry_bytes(5).await.unwrap();
    assert_eq!(tlog::entry_hash(5, &bytes), Ok(hash));
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1 << bit;
            assert_eq!(holds(&changed), None, "bit {bit} of byte {at}");
        }
        assert_eq!(holds(&text.as_bytes()[..at]), None, "{at} bytes");
    }
    // The receipt of one entry is none of another, nor of another repository.
    let receipt = repository.receipt(5).await.unwrap().unwrap();
    let other = repository.receipt(6).await.unwrap().unwrap();
    assert!(receipt.check(&record(repository.id(), 5, hash)).is_ok());
    assert!(other.check(&record(repository.id(), 5, hash)).is_err());
    assert!(receipt.check(&record(repository.id(), 6, hash)).is_err());
    let foreign = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    assert!(receipt.check(&record(foreign, 5, hash)).is_err());
}

#[tokio::test]
async fn keys_old_and_new_sign_until_the_old_ones_are_retired() {
    let (_, repository) = repository().await;
    let new = SigningKey::generate("PeterNeumann").unwrap();
    let keys = [new.clone(), signing_key()];
    let both = publish(&repository, &[], &keys).await.unwrap();
    for key in &keys {
        assert_eq!(both.verify(&[key.verifier()]).unwrap().len(), 1);
    }
    let signed = [(both.head.size, both.head.root)];
    let alone = publish(&repository, &signed, &keys[..1]).await.unwrap();
    assert_eq!(alone.head, both.head);
    assert!(alone.verify(&[new.verifier()]).is_ok());
    assert!(alone.verify(&[signing_key().verifier()]).is_err());
}

#[tokio::test]
async fn two_signers_of_one_log_agree() {
    let (objects, repository) = repository().await;
    grow(&repository, 10).await;
    let other = open(objects).await.unwrap();
    let keys = [signing_key()];
    let (one, two) = tokio::join!(
        publish(&repository, &[], &keys),
        publish(&other, &[], &keys)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    grow(&other, 20).await;
    let later = publish(&other, &[(10, one.head.root)], &[signing_key()])
        .await
        .unwrap();
    // One who comes late does not put the older head back.
    repository.publish(&one).await.unwrap();
    assert_eq!(repository.published().await.unwrap(), Some(later.clone()));
    let proof = repository.consistency_proof(10, 20).await.unwrap();
    let (old, new) = ((10, one.head.root), (20, later.head.root));
    assert_eq!(check_consistency(old, new, &proof), Ok(()));
}
