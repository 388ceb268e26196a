//! Changes a request makes to a transaction: nodes, values, objects of the Zarr view.

use array::{
    ArrayMetadata, Bounds, CodecMetadata, DataType, FillValue, GroupMetadata, NodeMetadata,
    NodePath, Selection,
};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use codecs::ArrayCodec;
use serde::Deserialize;
use serde_json::{Map, Value};
use storage::{Node, Transaction};

use super::extract::must_be_new;
use super::zarr::{Key, Target, parse_key};
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
                .map_err(|error| Failure::bad_request("codecs", error.to_string()))?;
            match transaction.find(path).await? {
                Some(Node::Array(_)) => {
                    let engine = state.engine();
                    engine.set_metadata(transaction, path, array).await?;
                }
                _ => transaction.create_array(path, array).await?,
            }
        }
    }
    Ok(())
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

/// Stores an object of the Zarr view.
pub(crate) async fn put_key(
    state: &State,
    transaction: &Transaction,
    key: &str,
    body: Bytes,
) -> Result<(), Failure> {
    match parse_key(&Target::Transaction(transaction), key).await? {
        Key::Document(path) => {
            let metadata = NodeMetadata::parse(&body)?;
            put_metadata(state, transaction, &path, metadata).await
        }
        Key::Chunk(path, index) => {
            let engine = state.engine();
            Ok(engine
                .write_encoded(transaction, &path, &index, body)
                .await?)
        }
        Key::Other => {
            let detail =
                format!("{key:?} is neither the zarr.json of a node nor a chunk of an array");
            Err(Failure::bad_request("key", detail))
        }
    }
}

/// Deletes an object of the Zarr view; `zarr.json` stands for the node. What is not there stays so.
pub(crate) async fn delete_key(transaction: &Transaction, key: &str) -> Result<(), Failure> {
    match parse_key(&Target::Transaction(transaction), key).await? {
        Key::Document(path) => match transaction.delete(&path).await {
            Err(storage::Error::NotFound { .. }) => Ok(()),
            other => Ok(other?),
        },
        Key::Chunk(path, index) => Ok(transaction.delete_chunk(&path, index).await?),
        Key::Other => Ok(()),
    }
}
