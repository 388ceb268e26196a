//! Golden vectors: what `docs/format.md` says in words, in bytes. They never change; a difference
//! means that stored repositories would no longer be readable.

use array::hash::{self, Hash, Kind};
use array::{ChunkIndex, ChunkKind, Moments, Scalar, Statistics, Sum};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::commit::Commit;
use crate::log::{LogEntry, LogState, Operation, Ref};
use crate::page::{ChunkRow, Location, ManifestRow, PageRow as _, StatisticsRow, page_id};
use crate::repository::Repository;
use crate::tlog::{self, Extended, Receipt, SigningKey, TreeHash};
use crate::tree::{NodeKind, StatisticsRoot, TreeRow};
use crate::{CommitId, layout::Layout};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/storage.json");

fn digits(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn time() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_767_225_600_000_000).unwrap()
}

fn manifest() -> Value {
    let id = hash::hash(Kind::PlainChunk, b"abc");
    let row = |index: Vec<u64>, kind, location| {
        ManifestRow::Chunk(ChunkRow {
            index: ChunkIndex::new(index),
            kind,
            id,
            length: 3,
            location,
        })
    };
    let external = Location::External {
        url: "file:///a".into(),
        offset: 7,
        etag: "e".into(),
    };
    let leaves = [
        row(
            vec![0, 1],
            ChunkKind::Plain,
            Location::Inline(Bytes::from_static(b"abc")),
        ),
        row(vec![1, 0], ChunkKind::Shard, Location::Stored),
        row(vec![1, 1], ChunkKind::Plain, external),
    ];
    let page = page_id(&leaves, 0);
    let inner = ManifestRow::inner(vec![0, 0], page, &leaves);
    let rows: Vec<String> = leaves.iter().map(|row| digits(&row.encoded(0))).collect();
    json!({
        "leaf_rows": rows,
        "page_id": page,
        "inner_row": digits(&inner.encoded(1)),
    })
}

fn statistics() -> Value {
    let moments = Moments {
        min: Scalar::Int(-2),
        max: Scalar::Int(3),
        sum: Sum::Int(1),
        m2: array::Double {
            hi: 12.5,
            lo: -0.25,
        },
    };
    let statistics = Statistics {
        valid: 2,
        missing: 1,
        moments: Some(moments),
    };
    let row = StatisticsRow {
        coordinate: vec![4],
        child: None,
        statistics,
    };
    json!({ "statistics": digits(&statistics.to_bytes()), "leaf_row": digits(&row.encoded(0)), "page_id": page_id(&[row], 0) })
}

fn addresses() -> Value {
    let layout = Layout::new(&[5, 1, 3]).unwrap();
    let of = |at: [u64; 3]| json!({ "coordinate": at, "address": layout.address(&at).to_string() });
    json!({ "grid": [5, 1, 3], "rows": [of([0, 0, 0]), of([1, 0, 0]), of([0, 0, 1]), of([4, 0, 2])] })
}

/// A log of one entry, signed with the key that the documentation of Go's `sumdb/note` shows.
fn transparency_log(entry: &LogEntry, hash: Hash) -> Value {
    let secret = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    let key = SigningKey::from_secret(secret).unwrap();
    let repository = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let record = tlog::record(repository, entry.sequence, hash);
    let root = TreeHash::leaf(record.as_bytes());
    let tree = Extended { size: 1, root };
    let receipt = Receipt {
        extra: None,
        index: entry.sequence,
        hashes: Vec::new(),
        checkpoint: Repository::sign_tree(&tree, std::slice::from_ref(&key)),
    };
    json!({
        "key": key.verifier().to_string(),
        "record": record,
        "leaf": digits(&root.0),
        "receipt": receipt.with_entry(repository, entry).to_string(),
    })
}

fn group_row(zarr_json: &[u8]) -> TreeRow {
    TreeRow {
        name: String::new(),
        kind: NodeKind::Group,
        document: hash::hash(Kind::Document, zarr_json),
        inline_document: Some(Bytes::copy_from_slice(zarr_json)),
        content: hash::empty(),
        stored_bytes: 0,
        statistics: None,
    }
}

fn vectors() -> Value {
    let zarr_json = br#"{"attributes":{},"node_type":"group","zarr_format":3}"#;
    let root = group_row(zarr_json);
    let array_row = TreeRow {
        name: "t".into(),
        kind: NodeKind::Array,
        stored_bytes: 3,
        statistics: Some(StatisticsRoot {
            root: hash::empty(),
            metadata: Hash::ZERO,
        }),
        ..root.clone()
    };
    let mut properties = Map::new();
    properties.insert("source".into(), json!("a.nc"));
    let commit = Commit {
        parents: vec![],
        root: root.clone(),
        time: time(),
        author: "ada".into(),
        message: "first".into(),
        properties,
        deleted: vec![],
        write_id: "w".into(),
    };
    let (id, commit_bytes) = commit.encode();
    let repo = hash::hash(Kind::Repo, b"{}");
    let mut state = LogState::initial(repo);
    let name = Ref::branch("main".parse().unwrap());
    let create = Operation::UpdateRef {
        name,
        from: None,
        to: Some(id),
        write_id: "w".into(),
        idempotency: None,
    };
    let effects = state.after(std::slice::from_ref(&create), time()).unwrap();
    let entry = LogEntry {
        sequence: 0,
        previous: repo,
        time: time(),
        actor: "ada".into(),
        operations: vec![create],
        state: crate::log::state_root(&effects.refs),
    };
    let (entry_hash, entry_bytes) = entry.encode();
    state.apply(entry_hash, &entry).unwrap();
    assert_eq!(state.get(&Ref::branch("main".parse().unwrap())), Some(id));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    json!({
        "hashes": {
            "inner chunk abc": hash::hash(Kind::InnerChunk, b"abc"),
            "plain chunk abc": hash::hash(Kind::PlainChunk, b"abc"),
            "empty tree": hash::empty(),
            "tree of three": hash::mth(&[b"a", b"b", b"c"].map(|leaf| hash::hash(Kind::InnerChunk, leaf))),
        },
        "addresses": addresses(),
        "manifest": manifest(),
        "statistics": statistics(),
        "tree": { "group_row": digits(&root.encoded()), "array_row": digits(&array_row.encoded()), "id": root.tree_id() },
        "commit": { "bytes": text(commit_bytes), "id": id },
        "log_entry": { "bytes": text(entry_bytes), "hash": entry_hash },
        "checkpoint": text(state.encode_checkpoint()),
        "transparency_log": transparency_log(&entry, entry_hash),
    })
}

#[test]
fn bytes_are_those_of_the_golden_vectors() {
    let found = vectors();
    if std::env::var_os("QUARR_UPDATE_VECTORS").is_some() {
        std::fs::write(FILE, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let golden: Value = serde_json::from_slice(&std::fs::read(FILE).unwrap()).unwrap();
    assert_eq!(found, golden);
    let id: CommitId = golden["commit"]["id"].as_str().unwrap().parse().unwrap();
    assert!(Commit::decode(&id, golden["commit"]["bytes"].as_str().unwrap().as_bytes()).is_ok());
}

#[test]
fn what_is_written_in_another_way_is_refused() {
    let golden = vectors();
    let commit = golden["commit"]["bytes"].as_str().unwrap();
    let commit = commit.replace(r#""deleted":[]"#, r#""deleted":["a/b/"]"#);
    let id = CommitId(hash::hash(Kind::Commit, commit.as_bytes()));
    let refused = Commit::decode(&id, commit.as_bytes()).unwrap_err();
    assert!(refused.contains("not written as"), "{refused}");

    let entry = golden["log_entry"]["bytes"].as_str().unwrap();
    let mut entry: Value = serde_json::from_str(entry).unwrap();
    entry.as_object_mut().unwrap().remove("self");
    let operation = entry["operations"][0].as_object_mut().unwrap();
    assert_eq!(operation.remove("from"), Some(Value::Null));
    let (_, entry) = crate::log::with_self(Kind::LogEntry, entry);
    let refused = LogEntry::decode(0, &entry).unwrap_err();
    assert!(refused.contains("not written as"), "{refused}");
}
