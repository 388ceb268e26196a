//! A group's `zarr.json` as plain Zarr clients get it: with the metadata of everything below.

use array::{ArrayMetadata, CodecMetadata, DataType, NodeMetadata};
use serde_json::{Map, Value, json};
use storage::Node;

/// A node's `zarr.json`; a group's with the metadata of what is below it, so that clients open it
/// with one read.
///
/// Left out are arrays that zarr-python cannot open, because it then refuses the whole group. They
/// still open by path in the clients that know them.
///
/// `nodes` holds at least all nodes below `node`.
pub fn document_with_members(node: &Node, nodes: &[Node]) -> Vec<u8> {
    if let Node::Array(_) = node {
        return node.document().to_vec();
    }
    document_with_members_as(node, nodes, Clone::clone)
}

/// The same, each node with the metadata that `show` makes of its own.
pub fn document_with_members_as(
    node: &Node,
    nodes: &[Node],
    show: impl Fn(&NodeMetadata) -> NodeMetadata,
) -> Vec<u8> {
    let shown = show(node.metadata());
    if let NodeMetadata::Array(_) = &shown {
        return shown.canonical_bytes();
    }
    let own = node.path().as_str();
    let mut metadata = Map::new();
    for other in nodes {
        let below = match other.path().as_str().strip_prefix(own) {
            Some(rest) if own.is_empty() => rest,
            Some(rest) => rest.strip_prefix('/').unwrap_or_default(),
            None => "",
        };
        if below.is_empty() {
            continue;
        }
        let shown = show(other.metadata());
        let opens = match &shown {
            NodeMetadata::Array(array) => opens_in_zarr_python(array),
            NodeMetadata::Group(_) => true,
        };
        if opens {
            metadata.insert(below.to_owned(), shown.to_json());
        }
    }
    let mut document = shown.to_json();
    document["consolidated_metadata"] =
        json!({ "kind": "inline", "must_understand": false, "metadata": Value::Object(metadata) });
    array::json::canonical_bytes(&document)
}

/// Whether zarr-python 3.1 to 3.4, as installed, accepts this metadata.
///
/// The tests keep `docs/clients.md` and this in step with it.
fn opens_in_zarr_python(metadata: &ArrayMetadata) -> bool {
    let knows_type = !matches!(
        metadata.data_type,
        DataType::BFloat16 | DataType::RawBits { .. }
    );
    knows_type && knows_codecs(&metadata.codecs, metadata.chunk_shape())
}

fn knows_codecs(codecs: &[CodecMetadata], chunk_shape: &[u64]) -> bool {
    codecs.iter().all(|codec| match codec.name.as_str() {
        "blosc" | "bytes" | "crc32c" | "gzip" | "transpose" | "vlen-bytes" | "vlen-utf8"
        | "zstd" => true,
        "sharding_indexed" => knows_sharding(codec, chunk_shape),
        // These two need packages that zarr-python does not bring.
        "numcodecs.pcodec" | "numcodecs.zfpy" => false,
        name => name.starts_with("numcodecs."),
    })
}

/// A transpose before sharding is accepted only if inner chunks tile the shard untransposed too.
fn knows_sharding(codec: &CodecMetadata, chunk_shape: &[u64]) -> bool {
    let lengths = |value: &Value| value.as_array()?.iter().map(Value::as_u64).collect();
    let inner: Option<Vec<u64>> = codec.configuration.get("chunk_shape").and_then(lengths);
    let codecs = codec
        .configuration
        .get("codecs")
        .map(CodecMetadata::parse_list);
    let (Some(inner), Some(Ok(codecs))) = (inner, codecs) else {
        return false;
    };
    let tiles = inner
        .iter()
        .zip(chunk_shape)
        .all(|(&inner, chunk)| chunk.is_multiple_of(inner));
    tiles && knows_codecs(&codecs, &inner)
}
