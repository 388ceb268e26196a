//! Changes a request makes to a transaction: nodes, values, objects of the Zarr view.

use array::{
    ArrayMetadata, Bounds, ChunkIndex, CodecMetadata, DataType, FillValue, GroupMetadata,
    NodeMetadata, NodePath, Selection,
};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use codecs::ArrayCodec;
use serde::Deserialize;
use serde_json::{Map, Value};
use storage::{Node, Transaction};

use super::extract::must_be_new;
use super::zarr::{Depth, Place, Target, is_of_version_2, names, names_below};
use crate::auth::Scope;
use crate::error::Failure;
use crate::state::State;
use crate::values;

/// Short form of a node: an array if it has a shape or a data type, else a group.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShortNode {
    /// Of an array; of one that exists already, its new shape.
    shape: Option<Vec<u64>>,
    /// As in `zarr.json`.
    #[schema(value_type = Option<Object>)]
    data_type: Option<Value>,
    /// Shape of an inner chunk, which is what is read at once; chosen if left out.
    chunks: Option<Vec<u64>>,
    /// Shape of a shard, which is what is stored at once; chosen if left out.
    shards: Option<Vec<u64>>,
    /// Codecs from bytes to bytes, as in `zarr.json`; zstd if left out.
    #[schema(value_type = Option<Vec<Object>>)]
    codecs: Option<Value>,
    /// What cells never written hold.
    #[schema(value_type = Option<Object>)]
    fill_value: Option<Value>,
    /// One for each dimension.
    dimension_names: Option<Vec<Option<String>>>,
    /// User attributes; all of them.
    #[schema(value_type = Option<Object>)]
    attributes: Option<Map<String, Value>>,
}

/// Checks that there is nothing at `path`, if the request asks for that.
///
/// # Errors
/// 412 if there is something.
pub(crate) async fn check_new(
    transaction: &Transaction,
    path: &NodePath,
    headers: &HeaderMap,
) -> Result<(), Failure> {
    if must_be_new(headers)? && transaction.find(path).await?.is_some() {
        let detail = format!("{path} exists already");
        return Err(Failure::precondition("If-None-Match", detail));
    }
    Ok(())
}

/// Creates or changes the group or array at `path` as a body says: a `zarr.json`, or the short form.
pub(crate) async fn put_node(
    state: &State,
    transaction: &Transaction,
    path: &NodePath,
    body: &[u8],
) -> Result<(), Failure> {
    let document = array::json::parse("body", body)?;
    if document.get("zarr_format").is_some() {
        let metadata = NodeMetadata::from_json(document)?;
        return put_metadata(state, transaction, path, metadata).await;
    }
    let short: ShortNode = serde_json::from_value(document)
        .map_err(|error| Failure::bad_request("body", error.to_string()))?;
    let metadata = match transaction.find(path).await? {
        Some(Node::Array(array)) => NodeMetadata::Array(short.apply(array.metadata())?),
        Some(Node::Group(group)) if short.is_group() => NodeMetadata::Group(GroupMetadata {
            attributes: short
                .attributes
                .unwrap_or_else(|| group.metadata().attributes.clone()),
            extra: group.metadata().extra.clone(),
        }),
        None if short.is_group() => NodeMetadata::Group(GroupMetadata {
            attributes: short.attributes.unwrap_or_default(),
            extra: Map::new(),
        }),
        Some(Node::Group(_)) | None => NodeMetadata::Array(short.create()?),
    };
    put_metadata(state, transaction, path, metadata).await
}

impl ShortNode {
    fn is_group(&self) -> bool {
        self.shape.is_none() && self.data_type.is_none()
    }

    fn create(self) -> Result<ArrayMetadata, Failure> {
        let missing = |name: &str| Failure::bad_request("body", format!("an array without {name}"));
        let shape = self.shape.as_ref().ok_or_else(|| missing("shape"))?;
        let data_type = self
            .data_type
            .as_ref()
            .ok_or_else(|| missing("data_type"))?;
        let data_type = DataType::parse(data_type)?;
        let codecs = self
            .codecs
            .as_ref()
            .map(CodecMetadata::parse_list)
            .transpose()?;
        let mut metadata = importers::new_array(
            shape,
            &data_type,
            self.chunks.as_deref(),
            self.shards.as_deref(),
            codecs.as_deref(),
        )
        .map_err(|error| Failure::bad_request("body", error.to_string()))?;
        if let Some(value) = &self.fill_value {
            metadata.fill_value = FillValue::parse(&data_type, value)?;
        }
        if let Some(names) = self.dimension_names {
            metadata.set_dimension_names(names)?;
        }
        metadata.attributes = self.attributes.unwrap_or_default();
        Ok(metadata)
    }

    /// The metadata of an array with what the short form says changed.
    fn apply(self, before: &ArrayMetadata) -> Result<ArrayMetadata, Failure> {
        let fixed = [
            ("chunks", self.chunks.is_some()),
            ("shards", self.shards.is_some()),
            ("codecs", self.codecs.is_some()),
        ];
        if let Some((name, _)) = fixed.iter().find(|(_, given)| *given) {
            let detail = format!("{name} of an array that exists cannot change");
            return Err(Failure::bad_request("body", detail));
        }
        let mut metadata = before.clone();
        if let Some(value) = &self.data_type
            && DataType::parse(value)? != before.data_type
        {
            let detail = format!("the array has data type {}", before.data_type);
            return Err(Failure::bad_request("body", detail));
        }
        if let Some(shape) = self.shape {
            metadata.set_shape(shape)?;
        }
        if let Some(value) = &self.fill_value {
            metadata.fill_value = FillValue::parse(&metadata.data_type, value)?;
        }
        if let Some(names) = self.dimension_names {
            metadata.set_dimension_names(names)?;
        }
        if let Some(attributes) = self.attributes {
            metadata.attributes = attributes;
        }
        Ok(metadata)
    }
}

async fn put_metadata(
    state: &State,
    transaction: &Transaction,
    path: &NodePath,
    metadata: NodeMetadata,
) -> Result<(), Failure> {
    match metadata {
        NodeMetadata::Group(group) => transaction.put_group(path, group).await?,
        NodeMetadata::Array(array) => {
            // Nobody could read what these codecs write.
            ArrayCodec::new(&array)
                .map_err(|error| Failure::meaningless(error.to_string()).about("codecs"))?;
            put_array(state, transaction, path, array).await?;
        }
    }
    Ok(())
}

async fn put_array(
    state: &State,
    transaction: &Transaction,
    path: &NodePath,
    array: ArrayMetadata,
) -> Result<(), Failure> {
    loop {
        let found = transaction.find(path).await?;
        if let Some(Node::Array(_)) = found {
            let engine = state.engine();
            return Ok(engine.set_metadata(transaction, path, array).await?);
        }
        match transaction.create_array(path, array.clone()).await {
            // Another request made it meanwhile.
            Err(storage::Error::AlreadyExists { .. }) if found.is_none() => {}
            other => return Ok(other?),
        }
    }
}

/// Writes a body to the cells of an array that `slice` selects.
pub(crate) async fn put_values(
    state: &State,
    transaction: &Transaction,
    path: &NodePath,
    slice: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(), Failure> {
    let array = transaction.array(path).await?;
    let selection: Selection = slice.unwrap_or("").parse()?;
    // What reaches past the array would be lost.
    let selection = selection.resolve(array.metadata().shape(), Bounds::Strict)?;
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let wanted = selection.output_shape();
    let values = values::parse(media_type, body, array.metadata(), &wanted)?;
    let engine = state.engine();
    Ok(engine.write(transaction, path, &selection, values).await?)
}

/// Checks that there is no object under `key`.
///
/// # Errors
/// 412 if there is one.
pub(crate) async fn check_new_key(
    transaction: &Transaction,
    scope: &Scope,
    key: &str,
) -> Result<(), Failure> {
    let exists = match Place::of(&Target::Transaction(transaction, scope.clone()), key).await? {
        Place::Document(Some(path)) => transaction.find(&path).await?.is_some(),
        Place::Chunk(array, index) => transaction.chunk(array.path(), &index).await?.is_some(),
        _ => false,
    };
    if exists {
        let detail = format!("there is an object with the key {key:?}");
        return Err(Failure::precondition("If-None-Match", detail));
    }
    Ok(())
}

/// Stores an object of the Zarr view. What lies outside of `scope` is not there.
///
/// # Errors
/// 404 for a chunk of an array that is not there yet; 422 for what is no chunk of its array, or
/// metadata that cannot be kept; 400 for any other key.
pub(crate) async fn put_key(
    state: &State,
    transaction: &Transaction,
    scope: &Scope,
    key: &str,
    body: Bytes,
) -> Result<(), Failure> {
    if is_of_version_2(key) {
        let detail = format!("{key:?} is of Zarr version 2: only version 3 can be kept");
        return Err(Failure::meaningless(detail));
    }
    match Place::of(&Target::Transaction(transaction, scope.clone()), key).await? {
        Place::Document(Some(path)) => {
            let metadata = NodeMetadata::parse(&body)?;
            put_metadata(state, transaction, &path, metadata).await
        }
        Place::Chunk(array, index) => {
            let (engine, path) = (state.engine(), array.path());
            let written = engine.write_encoded(transaction, path, &index, body).await;
            written.map_err(|error| match error {
                query::Error::Array(error @ array::Error::Invalid { .. }) => {
                    Failure::meaningless(format!("{key:?} of {path}: {error}"))
                }
                other => other.into(),
            })
        }
        Place::OutsideGrid(array) => {
            let grid = array.metadata().grid().grid_shape();
            let detail = format!(
                "{key:?} lies outside the chunk grid {grid:?} of {}: give the array its new shape first",
                array.path()
            );
            Err(Failure::meaningless(detail))
        }
        Place::NotOfArray(array) => {
            let metadata = array.metadata();
            let first = ChunkIndex::new(vec![0; metadata.dimensions()]);
            let first = metadata.chunk_key_encoding.key(&first);
            let detail = format!(
                "{key:?} is no chunk of {}, whose first one is {first:?}",
                array.path()
            );
            Err(Failure::bad_request("key", detail))
        }
        Place::Nothing => {
            let detail = format!("{key:?} is below no array: its zarr.json comes first");
            Err(Failure::not_found(detail))
        }
        Place::Document(None) | Place::Directory(_) | Place::ChunkDirectory(..) => {
            let detail =
                format!("{key:?} is neither the zarr.json of a node nor a chunk of an array");
            Err(Failure::bad_request("key", detail))
        }
    }
}

/// Deletes an object of the Zarr view; `zarr.json` stands for the node. What is not there stays so.
pub(crate) async fn delete_key(
    transaction: &Transaction,
    scope: &Scope,
    key: &str,
) -> Result<(), Failure> {
    match Place::of(&Target::Transaction(transaction, scope.clone()), key).await? {
        Place::Document(Some(path)) => delete_node(transaction, &path).await,
        Place::Chunk(array, index) => Ok(transaction.delete_chunk(array.path(), index).await?),
        _ => Ok(()),
    }
}

/// Deletes a node, if there is one; the root becomes an empty group.
async fn delete_node(transaction: &Transaction, path: &NodePath) -> Result<(), Failure> {
    if path.is_root() {
        for member in transaction.members(path).await? {
            delete_unless_gone(transaction, &member).await?;
        }
        return Ok(transaction
            .put_group(path, GroupMetadata::default())
            .await?);
    }
    delete_unless_gone(transaction, path).await
}

async fn delete_unless_gone(transaction: &Transaction, path: &NodePath) -> Result<(), Failure> {
    match transaction.delete(path).await {
        Err(storage::Error::NotFound { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Chunks that are deleted before others are told.
const DELETED_TOGETHER: usize = 10_000;

/// Deletes objects at and below `key` of which `after` were deleted before, not all at once. Gives
/// the last of them, if there are more.
pub(crate) async fn delete_below(
    transaction: &Transaction,
    scope: &Scope,
    key: &str,
    after: &str,
) -> Result<Option<String>, Failure> {
    let target = Target::Transaction(transaction, scope.clone());
    match Place::of(&target, key).await? {
        Place::Directory(node) => delete_node(transaction, node.path()).await?,
        Place::ChunkDirectory(array, _) => {
            let keys = names_below(&target, key, Depth::All, after, DELETED_TOGETHER).await?;
            let metadata = array.metadata();
            let path = array.path();
            let directory = names(key)[path.names().count()..].join("/");
            for below in &keys {
                let chunk = format!("{directory}/{below}");
                let encoding = metadata.chunk_key_encoding;
                if let Some(index) = encoding.parse_key(&chunk, metadata.dimensions()) {
                    transaction.delete_chunk(path, index).await?;
                }
            }
            let is_full = keys.len() == DELETED_TOGETHER;
            return Ok(keys.into_iter().last().filter(|_| is_full));
        }
        _ => delete_key(transaction, scope, key).await?,
    }
    Ok(None)
}
