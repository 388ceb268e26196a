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
    document_with_members_as(node, nodes, Clone::clone)
}

/// The `zarr.json` of a node as plain Zarr clients get it, without what is below it.
pub fn shown_document(node: &Node) -> Vec<u8> {
    match readable(node.metadata()) {
        Some(shown) => shown.canonical_bytes(),
        None => node.document().to_vec(),
    }
}

/// The metadata to show of an array whose codecs Zarr clients do not know.
fn readable(metadata: &NodeMetadata) -> Option<NodeMetadata> {
    match metadata {
        NodeMetadata::Array(array) => codecs::served(array).map(NodeMetadata::Array),
        NodeMetadata::Group(_) => None,
    }
}

/// The same, each node with the metadata that `show` makes of its own.
pub fn document_with_members_as(
    node: &Node,
    nodes: &[Node],
    show: impl Fn(&NodeMetadata) -> NodeMetadata,
) -> Vec<u8> {
    let show = |metadata: &NodeMetadata| {
        let shown = show(metadata);
        readable(&shown).unwrap_or(shown)
    };
    let shown = show(node.metadata());
    if matches!(node, Node::Array(_)) && shown == *node.metadata() {
        return node.document().to_vec();
    }
    let own = node.path().as_str();
    let below = nodes.iter().filter_map(|other| {
        let below = match other.path().as_str().strip_prefix(own) {
            Some(rest) if own.is_empty() => rest,
            Some(rest) => rest.strip_prefix('/').unwrap_or_default(),
            None => "",
        };
        (!below.is_empty()).then(|| (below.to_owned(), show(other.metadata())))
    });
    consolidated(&shown, below)
}

/// The `zarr.json` of a node with the metadata of what is below it, given by its path from there.
pub(crate) fn consolidated(
    own: &NodeMetadata,
    below: impl Iterator<Item = (String, NodeMetadata)>,
) -> Vec<u8> {
    if let NodeMetadata::Array(_) = own {
        return own.canonical_bytes();
    }
    let mut metadata = Map::new();
    for (path, shown) in below {
        let opens = match &shown {
            NodeMetadata::Array(array) => opens_in_zarr_python(array),
            NodeMetadata::Group(_) => true,
        };
        if opens {
            metadata.insert(path, shown.to_json());
        }
    }
    let mut document = own.to_json();
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
