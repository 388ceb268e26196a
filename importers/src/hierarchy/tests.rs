use std::fs;
use std::path::Path;
use std::sync::Arc;

use array::{CodecMetadata, DataType, FillValue, RegularGrid};
use query::{Engine, Settings};
use serde_json::json;
use storage::{
    AllowList, CommitOptions, Externals, Node, Repository, Snapshot, Store, Transaction,
};

use super::*;
use crate::export::export_zarr;
use crate::import::{ImportOptions, Imported};

async fn repository(name: &str) -> Repository {
    let store = Store::open("memory://").unwrap().under(name);
    Repository::create(store, "test").await.unwrap()
}

fn options(source: &Path) -> ImportOptions {
    ImportOptions {
        memory_bytes: 16 << 20,
        ..ImportOptions::new(
            vec![source.to_str().unwrap().to_owned()],
            "main".parse().unwrap(),
        )
    }
}

async fn import(
    repository: &Repository,
    options: &ImportOptions,
    progress: &(dyn Fn(&crate::Progress) + Send + Sync),
) -> Result<Imported, Error> {
    let files = Externals::new(AllowList::everything());
    crate::import(repository, options, &files, progress).await
}

async fn head(repository: &Repository) -> Snapshot {
    let resolved = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    repository.snapshot(resolved.commit).await.unwrap()
}

fn engine() -> Engine {
    let settings = Settings {
        threads: 1,
        ..Settings::default()
    };
    Engine::new(settings).unwrap()
}

async fn export(repository: &Repository, destination: &Path) {
    let snapshot = head(repository).await;
    let root = snapshot.node(&NodePath::root()).await.unwrap();
    let engine = engine();
    let exported = export_zarr(&engine, &snapshot, root, destination, &|_| {});
    exported.await.unwrap();
}

#[expect(clippy::needless_pass_by_value, reason = "made for the call")]
fn metadata(shape: &[u64], chunks: &[u64], data_type: DataType, codecs: Value) -> ArrayMetadata {
    let grid = RegularGrid::new(shape.to_vec(), chunks.to_vec()).unwrap();
    ArrayMetadata::new(grid, data_type, CodecMetadata::parse_list(&codecs).unwrap())
}

fn sharded(inner: &[u64], codecs: &Value) -> Value {
    json!([{ "name": "sharding_indexed", "configuration": {
        "chunk_shape": inner, "codecs": codecs, "index_location": "end",
        "index_codecs": [{ "name": "bytes", "configuration": { "endian": "little" } }, { "name": "crc32c" }],
    } }])
}

fn zstd() -> Value {
    json!([{ "name": "bytes", "configuration": { "endian": "little" } },
        { "name": "zstd", "configuration": { "level": 1, "checksum": false } }])
}

/// Stores the chunks of an array whose values `value` gives by position.
async fn store(
    transaction: &Transaction,
    path: &str,
    metadata: ArrayMetadata,
    value: impl Fn(&[u64]) -> Vec<u8>,
) {
    let path: NodePath = path.parse().unwrap();
    transaction
        .create_array(&path, metadata.clone())
        .await
        .unwrap();
    let codec = ArrayCodec::new(&metadata).unwrap();
    let grid = metadata.grid();
    for at in Region::whole(&grid.grid_shape()).positions() {
        let index = ChunkIndex::new(at);
        let region = grid.chunk_region(&index);
        let inside = grid.chunk_region_in_array(&index);
        let is_inside = |at: &[u64]| inside.contains_position(at);
        let fill = metadata.fill_value.as_bytes();
        let cells = region.positions().map(|at| match is_inside(&at) {
            true => value(&at),
            false => fill.to_vec(),
        });
        let elements = match metadata.data_type.is_variable_length() {
            true => {
                let cells: Vec<Vec<u8>> = cells.collect();
                Elements::Variable(cells.iter().map(Vec::as_slice).collect())
            }
            false => Elements::Fixed(cells.flatten().collect()),
        };
        let part = boxes::fit(&metadata.data_type, fill, &elements, &region, &inside).unwrap();
        let statistics = query::chunk_statistics(&codec, &metadata, &inside, &part);
        if let Some(chunk) = codec.encode(&elements, inside.shape()).unwrap() {
            let stored = (chunk.kind, chunk.id, chunk.bytes);
            let put = transaction.put_chunk(&path, index, stored.0, stored.1, stored.2, statistics);
            put.await.unwrap();
        }
    }
}

/// A repository with what a hierarchy can hold.
async fn everything() -> Repository {
    let repository = repository("everything").await;
    let branch = "main".parse().unwrap();
    let transaction = Transaction::begin(&repository, &branch).await.unwrap();
    let attributes =
        json!({ "title": "all", "n": [1, 1.0, null, { "deep": ["é"] }], "nan": "NaN" });
    let group = |attributes: Value| GroupMetadata {
        attributes: attributes.as_object().unwrap().clone(),
        extra: Map::new(),
    };
    transaction
        .put_group(&NodePath::root(), group(attributes))
        .await
        .unwrap();
    let mut extra = group(json!({}));
    extra
        .extra
        .insert("ours".into(), json!({ "must_understand": false, "x": 1 }));
    transaction
        .put_group(&"a/b".parse().unwrap(), extra)
        .await
        .unwrap();
    let float = |at: &[u64]| (at.iter().sum::<u64>() as f32 / 3.0).to_le_bytes().to_vec();
    let mut named = metadata(
        &[10, 7],
        &[4, 6],
        DataType::Float32,
        sharded(&[2, 3], &zstd()),
    );
    named
        .set_dimension_names(vec![Some("y".into()), None])
        .unwrap();
    named.attributes.insert("units".into(), json!("K"));
    named
        .attributes
        .insert("_FillValue".into(), json!("AAAAAAAA+H8="));
    named.fill_value = FillValue::parse(&DataType::Float32, &json!("NaN")).unwrap();
    store(&transaction, "sharded", named, float).await;
    store(
        &transaction,
        "a/plain",
        metadata(&[9], &[4], DataType::Float32, zstd()),
        float,
    )
    .await;
    // Few inner chunks are there, and few shards.
    let sparse = |at: &[u64]| i16::from(at[0] == 50 && at[1] < 3).to_le_bytes().to_vec();
    let shape = metadata(
        &[100, 100],
        &[20, 20],
        DataType::Int16,
        sharded(&[5, 10], &zstd()),
    );
    store(&transaction, "a/b/sparse", shape, sparse).await;
    store(
        &transaction,
        "scalar",
        metadata(&[], &[], DataType::Float32, zstd()),
        float,
    )
    .await;
    store(
        &transaction,
        "empty",
        metadata(&[0, 3], &[1, 3], DataType::Float32, zstd()),
        float,
    )
    .await;
    let text = |at: &[u64]| format!("{}é", "x".repeat(at[0] as usize % 4)).into_bytes();
    let texts =
        json!([{ "name": "vlen-utf8" }, { "name": "gzip", "configuration": { "level": 1 } }]);
    store(
        &transaction,
        "texts",
        metadata(&[11], &[4], DataType::String, texts.clone()),
        text,
    )
    .await;
    let shape = metadata(&[11], &[8], DataType::String, sharded(&[2], &texts));
    store(&transaction, "sharded_texts", shape, text).await;
    let turned = json!([{ "name": "transpose", "configuration": { "order": [1, 0] } },
        { "name": "bytes", "configuration": { "endian": "big" } }, { "name": "crc32c" }]);
    store(
        &transaction,
        "turned",
        metadata(&[5, 6], &[2, 4], DataType::Float32, turned),
        float,
    )
    .await;
    let double = |at: &[u64]| (0.1 * at[0] as f64 - 3.0).to_le_bytes().to_vec();
    let shape = metadata(&[1000], &[256], DataType::Float64, sharded(&[64], &zstd()));
    store(&transaction, "doubles", shape, double).await;
    transaction.commit(CommitOptions::default()).await.unwrap();
    repository
}

#[tokio::test]
async fn what_is_exported_and_imported_again_has_the_same_root() {
    let folder = tempfile::tempdir().unwrap();
    let original = everything().await;
    let directory = folder.path().join("all.zarr");
    export(&original, &directory).await;
    let copy = repository("copy").await;
    let imported = import(&copy, &options(&directory), &|_| {}).await.unwrap();
    assert_eq!(imported.warnings, Vec::<String>::new());
    let (before, after) = (head(&original).await, head(&copy).await);
    assert_eq!(after.commit().tree(), before.commit().tree());
    // A test of the test: one changed value is another tree.
    let chunk = directory.join("a/plain/c/0");
    let codec = ArrayCodec::new(&metadata(&[9], &[4], DataType::Float32, zstd())).unwrap();
    let other = codec
        .encode(&Elements::Fixed(vec![1; 16]), &[4])
        .unwrap()
        .unwrap();
    fs::write(chunk, other.bytes).unwrap();
    let third = repository("third").await;
    import(&third, &options(&directory), &|_| {}).await.unwrap();
    assert_ne!(head(&third).await.commit().tree(), before.commit().tree());
}

/// A directory with one array `x`.
fn write_array(folder: &Path, metadata: &ArrayMetadata, chunks: &[(&str, &[u8])]) {
    let group = json!({ "zarr_format": 3, "node_type": "group", "attributes": {} });
    fs::create_dir_all(folder.join("x")).unwrap();
    fs::write(folder.join("zarr.json"), group.to_string()).unwrap();
    fs::write(folder.join("x/zarr.json"), metadata.to_json().to_string()).unwrap();
    for (key, bytes) in chunks {
        let path = folder.join("x").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

async fn values(repository: &Repository, path: &str) -> Elements {
    let snapshot = head(repository).await;
    let engine = engine();
    let node = snapshot.node(&path.parse().unwrap()).await.unwrap();
    let Node::Array(array) = node else {
        panic!("an array");
    };
    let reader = engine.open(array).unwrap();
    let all = array::Selection::all();
    let all = all
        .resolve(reader.metadata().shape(), array::Bounds::Clamp)
        .unwrap();
    let tensor = engine
        .read(&reader, &all, compute::cf::Decode::Raw)
        .await
        .unwrap();
    tensor.elements
}

#[tokio::test]
async fn shards_of_others_keep_their_inner_chunks_and_edges_are_cleaned() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = json!([{ "name": "bytes" }]);
    let metadata = metadata(&[6], &[8], DataType::UInt8, sharded(&[2], &bytes));
    // Inner chunks in another order with a gap, and one outside the array.
    let mut shard = b"..cdab!!xx".to_vec();
    let mut index = Vec::new();
    for (offset, length) in [(4u64, 2u64), (2, 2), (6, 2), (8, 2)] {
        index.extend(offset.to_le_bytes());
        index.extend(length.to_le_bytes());
    }
    shard.extend_from_slice(&index);
    shard.extend(crc32c(&index).to_le_bytes());
    write_array(
        folder.path(),
        &metadata,
        &[("c/0", &shard), ("c/9", b"stray"), ("notes.txt", b"")],
    );
    let copy = repository("shards").await;
    let imported = import(&copy, &options(folder.path()), &|_| {})
        .await
        .unwrap();
    assert_eq!(
        values(&copy, "x").await,
        Elements::Fixed(b"abcd!!".to_vec())
    );
    let warnings = imported.warnings.join("; ");
    assert!(
        warnings.contains("c/9 lies outside") && warnings.contains("notes.txt"),
        "{warnings}"
    );
    // The same array, written by Quarr, is the same tree.
    let own = repository("own").await;
    let transaction = Transaction::begin(&own, &"main".parse().unwrap())
        .await
        .unwrap();
    let letters = b"abcd!!";
    store(&transaction, "x", metadata, |at| {
        vec![letters[at[0] as usize]]
    })
    .await;
    transaction.commit(CommitOptions::default()).await.unwrap();
    assert_eq!(
        head(&copy).await.commit().tree(),
        head(&own).await.commit().tree()
    );
}

/// The checksum of Zarr, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[tokio::test]
async fn asked_for_other_chunks_values_stay() {
    let folder = tempfile::tempdir().unwrap();
    let original = everything().await;
    let directory = folder.path().join("all.zarr");
    export(&original, &directory).await;
    let mut options = options(&directory);
    options.inner_lengths = "dim_0=3,dim_1=4".parse().unwrap();
    let copy = repository("cut").await;
    import(&copy, &options, &|_| {}).await.unwrap();
    for path in [
        "sharded",
        "a/plain",
        "a/b/sparse",
        "scalar",
        "empty",
        "texts",
        "sharded_texts",
        "turned",
    ] {
        assert_eq!(
            values(&copy, path).await,
            values(&original, path).await,
            "{path}"
        );
    }
    let snapshot = head(&copy).await;
    let array = snapshot.array(&"a/plain".parse().unwrap()).await.unwrap();
    let codec = ArrayCodec::new(array.metadata()).unwrap();
    assert_eq!(codec.inner_shape(), [3]);
}

#[tokio::test]
async fn version_2_is_read_with_its_order_and_missing_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let zarray = json!({
        "zarr_format": 2, "shape": [3, 2], "chunks": [2, 2], "dtype": ">i2", "order": "F",
        "fill_value": 7, "filters": null, "compressor": null,
    });
    fs::write(folder.path().join(".zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    fs::write(folder.path().join(".zattrs"), r#"{"x": NaN}"#).unwrap();
    fs::create_dir(folder.path().join("v")).unwrap();
    fs::write(folder.path().join("v/.zarray"), zarray.to_string()).unwrap();
    fs::write(folder.path().join("v/0.0"), [0, 1, 0, 2, 0, 3, 0, 4]).unwrap();
    let copy = repository("v2").await;
    let imported = import(&copy, &options(folder.path()), &|_| {})
        .await
        .unwrap();
    assert!(imported.warnings.is_empty());
    let wanted = [1i16, 3, 2, 4, 7, 7]
        .iter()
        .flat_map(|value| value.to_le_bytes());
    assert_eq!(values(&copy, "v").await, Elements::Fixed(wanted.collect()));
    let root = head(&copy).await.node(&NodePath::root()).await.unwrap();
    assert_eq!(root.metadata().attributes()["x"], json!("NaN"));
}

#[tokio::test]
async fn damage_names_its_key_and_leaves_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let metadata = metadata(&[8], &[4], DataType::Float32, zstd());
    let codec = ArrayCodec::new(&metadata).unwrap();
    let good = codec
        .encode(&Elements::Fixed((0..16).collect()), &[4])
        .unwrap()
        .unwrap()
        .bytes;
    for length in 0..good.len() {
        write_array(
            folder.path(),
            &metadata,
            &[("c/0", &good), ("c/1", &good[..length])],
        );
        let copy = repository("damaged").await;
        let error = import(&copy, &options(folder.path()), &|_| {})
            .await
            .unwrap_err();
        assert!(error.to_string().contains("x/c/1"), "{error}");
        let snapshot = head(&copy).await;
        assert!(
            snapshot
                .find(&"x".parse().unwrap())
                .await
                .unwrap()
                .is_none()
        );
    }
    let long = vec![0; 3 << 20];
    write_array(folder.path(), &metadata, &[("c/0", &good), ("c/1", &long)]);
    let error = import(&repository("long").await, &options(folder.path()), &|_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn damaged_shards_and_documents_are_refused_without_panic() {
    let bytes = json!([{ "name": "bytes" }]);
    let metadata = metadata(&[6], &[8], DataType::UInt8, sharded(&[2], &bytes));
    let codec = ArrayCodec::new(&metadata).unwrap();
    let good = codec
        .encode(&Elements::Fixed(b"abcdef\0\0".to_vec()), &[6])
        .unwrap()
        .unwrap()
        .bytes;
    let index = ChunkIndex::new(vec![0]);
    for at in 0..good.len() {
        let cut = good.slice(..at);
        assert!(query::take_over(&codec, &metadata, &index, &cut).is_err());
        let mut flipped = good.to_vec();
        flipped[at] ^= 16;
        // A changed byte of data is other data; any of the index is found.
        let taken = query::take_over(&codec, &metadata, &index, &flipped.into());
        assert_eq!(taken.is_ok(), at < good.len() - 68, "{at}");
    }
    let folder = tempfile::tempdir().unwrap();
    let document = metadata.to_json().to_string();
    for end in 0..document.len() {
        fs::write(folder.path().join("zarr.json"), &document[..end]).unwrap();
        let keys = Keys::Directory(folder.path().to_owned());
        assert!(Hierarchy::open(keys, "x").is_err(), "{end}");
    }
}

#[test]
fn links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("zarr.json"),
        r#"{"zarr_format":3,"node_type":"group"}"#,
    )
    .unwrap();
    std::os::unix::fs::symlink("/", folder.path().join("all")).unwrap();
    let error = Source::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_kept_can_be_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let good = metadata(&[2], &[2], DataType::UInt8, json!([{ "name": "bytes" }]));
    write_array(folder.path(), &good, &[]);
    let mut other = good.to_json();
    other["codecs"] = json!([{ "name": "no-such-codec" }]);
    fs::create_dir(folder.path().join("y")).unwrap();
    fs::write(folder.path().join("y/zarr.json"), other.to_string()).unwrap();
    let mut options = options(folder.path());
    let files = Externals::new(AllowList::everything());
    let checked = crate::check(&options, &files).await;
    let error = checked.unwrap_err().to_string();
    assert!(
        error.contains("variable y") && error.contains("no-such-codec"),
        "{error}"
    );
    options.skip = ["y".to_owned()].into();
    crate::check(&options, &files).await.unwrap();
}

#[test]
fn a_lone_array_is_called_like_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t2m.zarr");
    fs::create_dir(&path).unwrap();
    let array = metadata(&[2], &[2], DataType::UInt8, json!([{ "name": "bytes" }]));
    fs::write(path.join("zarr.json"), array.to_json().to_string()).unwrap();
    let source = Source::open(&path).unwrap();
    assert_eq!(source.groups()[0].variables[0].name, "t2m");
    let _ = Arc::new(source);
}
