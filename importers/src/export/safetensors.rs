//! safetensors: a JSON header, then the cells of every array.
//!
//! ```text
//! length of the header (8 bytes) │ {"group.array": {dtype, shape, data_offsets}, …} │ cells …
//! ```
//!
//! Arrays in groups are named by their path with dots, as modules of neural networks are. Wider
//! elements come first, so that every array is aligned for its type.
//!
//! Source: `safetensors` README, "Format", and its `Dtype`.

use std::path::Path;

use array::DataType;
use futures::StreamExt as _;
use query::Engine;
use serde_json::{Map, Value, json};
use storage::Snapshot;

use super::npy::{self, Out};
use super::tally::Tally;
use super::view::{View, ViewedArray};
use crate::Error;

/// Most bytes of a header that readers take.
const HEADER_BYTES_MAX: usize = 100_000_000;

/// Writes every array of `view` to a file.
///
/// # Errors
/// [`Error::NoPlace`] for a data type that the format does not have, and for two arrays of one name;
/// [`Error::Write`] if the file cannot be written; as [`Engine::read`].
pub(super) async fn write(
    engine: &Engine,
    snapshot: &Snapshot,
    view: &View,
    path: &Path,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    let mut tensors = Vec::new();
    for array in view.arrays() {
        let name = array.below.replace('/', ".");
        tensors.push((name, dtype(array)?, array));
    }
    let order = |name: &str, array: &ViewedArray| {
        let size = array.data_type.size_bytes().unwrap_or(1);
        (std::cmp::Reverse(size), name.to_owned())
    };
    tensors.sort_by_key(|(name, _, array)| order(name, array));
    let mut header = Map::new();
    let commit = json!({ "quarr.commit": snapshot.id().to_string() });
    header.insert("__metadata__".into(), commit);
    let mut start = 0u64;
    for (name, dtype, array) in &tensors {
        let too_large = array::Error::TooLarge {
            what: "array in bytes",
        };
        let end = start.checked_add(array.bytes()).ok_or(too_large)?;
        let tensor =
            json!({ "dtype": dtype, "shape": array.shape(), "data_offsets": [start, end] });
        if header.insert(name.clone(), tensor).is_some() {
            return Err(refused(
                array,
                &format!("another array is named {name:?} as well"),
            ));
        }
        start = end;
    }
    tally.expect(tensors.len() as u64, start);
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() > HEADER_BYTES_MAX {
        return Err(Error::Option {
            option: "--format",
            reason: format!(
                "a header for {} arrays is longer than readers take",
                tensors.len()
            ),
        });
    }
    let mut out = Out::open(path).await?;
    out.write(&(text.len() as u64).to_le_bytes()).await?;
    out.write(&text).await?;
    for (_, _, array) in &tensors {
        tally.begin(&array.path());
        let mut pieces = npy::cells(engine, array).await?;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            out.write(&piece).await?;
            tally.chunk(piece.len() as u64);
        }
    }
    out.finish().await
}

fn refused(array: &ViewedArray, reason: &str) -> Error {
    Error::NoPlace {
        format: "safetensors",
        array: array.path(),
        reason: reason.to_owned(),
    }
}

fn dtype(array: &ViewedArray) -> Result<&'static str, Error> {
    Ok(match &array.data_type {
        DataType::Bool => "BOOL",
        DataType::Int8 => "I8",
        DataType::Int16 => "I16",
        DataType::Int32 => "I32",
        DataType::Int64 => "I64",
        DataType::UInt8 => "U8",
        DataType::UInt16 => "U16",
        DataType::UInt32 => "U32",
        DataType::UInt64 => "U64",
        DataType::Float16 => "F16",
        DataType::BFloat16 => "BF16",
        DataType::Float32 => "F32",
        DataType::Float64 => "F64",
        DataType::Complex64 => "C64",
        other => {
            let reason = format!("it has no {other}: choose other arrays with --vars");
            return Err(refused(array, &reason));
        }
    })
}
