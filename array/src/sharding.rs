//! What the metadata of an array says about its shards.

use serde_json::Value;

use crate::shard::MAX_INNER_CHUNKS;
use crate::{ArrayMetadata, CodecMetadata, Error, Region, shape};

/// How canonical shards of an array are cut into inner chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharding {
    inner_shape: Vec<u64>,
    /// The array dimension at each position in encoded order.
    order: Vec<usize>,
    /// Inner chunks along each dimension, in encoded order.
    inner_grid: Vec<u64>,
    inner_chunks: usize,
    inner_codecs: Vec<CodecMetadata>,
}

impl Sharding {
    /// That of an array; `None` for any layout that is not verified by inner chunk.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the codecs do not fit the array; [`Error::TooLarge`] if a shard has
    /// more than [`MAX_INNER_CHUNKS`].
    ///
    /// Spec: `docs/format.md`, "Shards": `sharding_indexed` is the only array-to-bytes codec and
    /// the last, its index at the end under `bytes` (little) and `crc32c`; before it only codecs
    /// that permute dimensions or change elements one by one.
    pub fn of(metadata: &ArrayMetadata) -> Result<Option<Self>, Error> {
        let Some((sharding, before)) = metadata.codecs.split_last() else {
            return Ok(None);
        };
        let configuration = &sharding.configuration;
        let at_end = configuration
            .get("index_location")
            .is_none_or(|v| v == "end");
        if sharding.name != "sharding_indexed" || !at_end {
            return Ok(None);
        }
        let list = |name: &str| {
            configuration
                .get(name)
                .map(CodecMetadata::parse_list)
                .transpose()
        };
        let missing = |name: &str| invalid(format!("\"sharding_indexed\" has no {name:?}"));
        let index_codecs = list("index_codecs")?.ok_or_else(|| missing("index_codecs"))?;
        let canonical_index = match index_codecs.as_slice() {
            [bytes, checksum] => {
                bytes.name == "bytes"
                    && bytes.configuration.get("endian").and_then(Value::as_str) == Some("little")
                    && checksum.name == "crc32c"
            }
            _ => false,
        };
        let dimensions = metadata.dimensions();
        let Some(order) = encoded_order(before, dimensions)? else {
            return Ok(None);
        };
        if !canonical_index {
            return Ok(None);
        }
        let encoded_shape: Option<Vec<u64>> = configuration
            .get("chunk_shape")
            .and_then(Value::as_array)
            .map(|items| items.iter().filter_map(Value::as_u64).collect());
        let encoded_shape = encoded_shape.ok_or_else(|| missing("chunk_shape"))?;
        if encoded_shape.len() != dimensions || encoded_shape.contains(&0) {
            return Err(invalid(
                "\"sharding_indexed\": chunk_shape does not fit the array",
            ));
        }
        let mut inner_shape = vec![0; dimensions];
        for (&axis, length) in order.iter().zip(encoded_shape) {
            inner_shape[axis] = length;
        }
        if metadata
            .chunk_shape()
            .iter()
            .zip(&inner_shape)
            .any(|(shard, inner)| shard % inner != 0)
        {
            let reason = format!(
                "inner chunks of {inner_shape:?} do not divide shards of {:?}",
                metadata.chunk_shape()
            );
            return Err(invalid(reason));
        }
        let mut inner_codecs = before.to_vec();
        inner_codecs.extend(list("codecs")?.ok_or_else(|| missing("codecs"))?);
        let chunk_shape = metadata.chunk_shape();
        let inner_grid: Vec<u64> = order
            .iter()
            .map(|&axis| chunk_shape[axis] / inner_shape[axis])
            .collect();
        let inner_chunks = shape::elements(&inner_grid)?;
        if inner_chunks > MAX_INNER_CHUNKS as u64 {
            return Err(Error::TooLarge {
                what: "number of inner chunks in a shard",
            });
        }
        Ok(Some(Self {
            inner_shape,
            order,
            inner_grid,
            inner_chunks: inner_chunks as usize,
            inner_codecs,
        }))
    }

    /// The metadata of an array that stores the same inner chunks as chunks of their own, under the
    /// same chunk key encoding; `None` where [`Sharding::of`] has none.
    ///
    /// # Errors
    /// As [`Sharding::of`], and [`Error::TooLarge`] if the grid of inner chunks does not fit 64 bits.
    pub fn without_shards(metadata: &ArrayMetadata) -> Result<Option<ArrayMetadata>, Error> {
        let Some(sharding) = Self::of(metadata)? else {
            return Ok(None);
        };
        let mut shown = metadata.clone();
        shown.set_chunk_shape(sharding.inner_shape)?;
        shown.codecs = sharding.inner_codecs;
        Ok(Some(shown))
    }

    /// Shape of an inner chunk, in array order.
    pub fn inner_shape(&self) -> &[u64] {
        &self.inner_shape
    }

    /// Number of inner chunks in a shard.
    pub fn inner_chunks(&self) -> usize {
        self.inner_chunks
    }

    /// From the elements of an inner chunk to its bytes.
    pub fn inner_codecs(&self) -> &[CodecMetadata] {
        &self.inner_codecs
    }

    /// Number of the inner chunk at `coordinate`, counted in inner chunks from the shard's corner.
    pub fn inner_index(&self, coordinate: &[u64]) -> usize {
        let encoded: Vec<u64> = self.order.iter().map(|&axis| coordinate[axis]).collect();
        shape::linear_index(&encoded, &self.inner_grid) as usize
    }

    /// The box of inner chunk `index` in its shard.
    ///
    /// # Errors
    /// None for an index below [`Sharding::inner_chunks`].
    pub fn inner_region(&self, index: usize) -> Result<Region, Error> {
        let encoded = shape::coordinate(index as u64, &self.inner_grid);
        let mut start = vec![0; self.order.len()];
        for (&axis, at) in self.order.iter().zip(encoded) {
            start[axis] = at * self.inner_shape[axis];
        }
        Region::new(start, self.inner_shape.clone())
    }
}

/// The array dimension at each position after `codecs`; `None` if one of them does more than
/// permute dimensions or change elements one by one.
fn encoded_order(codecs: &[CodecMetadata], dimensions: usize) -> Result<Option<Vec<usize>>, Error> {
    let mut order: Vec<usize> = (0..dimensions).collect();
    for codec in codecs {
        match codec.name.as_str() {
            "transpose" => {
                let step: Option<Vec<usize>> = codec
                    .configuration
                    .get("order")
                    .and_then(Value::as_array)
                    .map(|items| {
                        items
                            .iter()
                            .filter_map(Value::as_u64)
                            .map(|axis| axis as usize)
                            .collect()
                    });
                let step = step.ok_or_else(|| invalid("\"transpose\" has no \"order\""))?;
                let mut seen = step.clone();
                seen.sort_unstable();
                if seen != (0..dimensions).collect::<Vec<_>>() {
                    return Err(invalid(
                        "\"transpose\": order is not a permutation of the dimensions",
                    ));
                }
                order = step.into_iter().map(|axis| order[axis]).collect();
            }
            "bitround"
            | "numcodecs.bitround"
            | "fixedscaleoffset"
            | "numcodecs.fixedscaleoffset" => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(order))
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("codecs", reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::NodeMetadata;

    #[test]
    fn without_shards_an_array_has_its_inner_chunks_as_chunks() {
        let transpose = json!({ "name": "transpose", "configuration": { "order": [1, 0] } });
        let sharding = json!({ "name": "sharding_indexed", "configuration": {
            "chunk_shape": [2, 4],
            "codecs": [{ "name": "bytes", "configuration": { "endian": "little" } }],
            "index_codecs": [
                { "name": "bytes", "configuration": { "endian": "little" } },
                { "name": "crc32c" },
            ],
        } });
        let document = |codecs| {
            let document = json!({
                "zarr_format": 3, "node_type": "array", "shape": [17, 20], "data_type": "int16",
                "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": [8, 8] } },
                "chunk_key_encoding": { "name": "default" }, "fill_value": 3, "codecs": codecs,
            });
            let parsed = NodeMetadata::parse(document.to_string().as_bytes()).unwrap();
            let NodeMetadata::Array(array) = parsed else {
                panic!("a group");
            };
            array
        };
        let sharded = document(json!([transpose, sharding]));
        let shown = Sharding::without_shards(&sharded).unwrap().unwrap();
        assert_eq!(shown.shape(), sharded.shape());
        // Inner chunks are given in the order after the transpose.
        assert_eq!(shown.chunk_shape(), [4, 2]);
        assert_eq!(shown.grid().grid_shape(), [5, 10]);
        let names: Vec<&str> = shown.codecs.iter().map(|codec| &*codec.name).collect();
        assert_eq!(names, ["transpose", "bytes"]);
        assert_eq!(shown.fill_value, sharded.fill_value);
        assert_eq!(Sharding::without_shards(&shown).unwrap(), None);
    }
}
