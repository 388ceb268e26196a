//! The codecs of one array: which bytes are stored for which elements.

use std::borrow::Cow;
use std::sync::Arc;

use array::hash::{self, Hash, Kind};
use array::shard::{MAX_INNER_CHUNKS, ShardBuilder};
use array::{
    ArrayMetadata, ChunkKind, CodecMetadata, DataType, Elements, FillValue, Region,
    VariableElements, shape,
};
use bytes::Bytes;
use serde_json::Value;

use crate::chain::Chain;
use crate::{Error, copy};

/// One encoded stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChunk {
    /// Shard or plain chunk.
    pub kind: ChunkKind,
    /// Its id: the Merkle tree hash over a shard's inner chunks, or `H(plain chunk, bytes)`.
    pub id: Hash,
    /// What is stored.
    pub bytes: Bytes,
}

/// The codecs of one array. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ArrayCodec(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data_type: DataType,
    fill_value: FillValue,
    chunk_shape: Vec<u64>,
    inner_shape: Vec<u64>,
    /// Array dimension at each position of the encoded order.
    order: Vec<usize>,
    /// Inner chunks along each dimension, in encoded order; all 1 for a plain chunk.
    inner_grid: Vec<u64>,
    inner_chunks: usize,
    kind: ChunkKind,
    /// For a shard, the chain of one inner chunk; else of the whole chunk.
    chain: Chain,
}

impl ArrayCodec {
    /// The codecs `metadata` names.
    ///
    /// # Errors
    /// [`Error::Codecs`] if there is no such codec or it does not fit; [`Error::Array`] if a chunk
    /// is over 2 GiB or a shard has over 2^20 inner chunks.
    pub fn new(metadata: &ArrayMetadata) -> Result<Self, Error> {
        let chunk_shape = metadata.chunk_shape().to_vec();
        let (data_type, fill_value) = (metadata.data_type.clone(), metadata.fill_value.clone());
        let inner = match Sharding::of(metadata)? {
            Some(Sharding {
                inner_shape,
                order,
                inner_codecs,
            }) => {
                let inner_grid: Vec<u64> = order
                    .iter()
                    .map(|&axis| chunk_shape[axis] / inner_shape[axis])
                    .collect();
                let inner_chunks = shape::elements(&inner_grid)?;
                if inner_chunks > MAX_INNER_CHUNKS as u64 {
                    return Err(array::Error::TooLarge {
                        what: "number of inner chunks in a shard",
                    }
                    .into());
                }
                let chain = Chain::new(&inner_codecs, &inner_shape, &data_type, &fill_value)?;
                Inner {
                    data_type,
                    fill_value,
                    chunk_shape,
                    inner_shape,
                    order,
                    inner_grid,
                    inner_chunks: inner_chunks as usize,
                    kind: ChunkKind::Shard,
                    chain,
                }
            }
            None => Inner {
                chain: Chain::new(&metadata.codecs, &chunk_shape, &data_type, &fill_value)?,
                data_type,
                fill_value,
                inner_shape: chunk_shape.clone(),
                order: (0..chunk_shape.len()).collect(),
                inner_grid: vec![1; chunk_shape.len()],
                inner_chunks: 1,
                chunk_shape,
                kind: ChunkKind::Plain,
            },
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Whether stored objects are canonical shards or plain chunks.
    pub fn kind(&self) -> ChunkKind {
        self.0.kind
    }

    /// Type of the elements.
    pub fn data_type(&self) -> &DataType {
        &self.0.data_type
    }

    /// What absent chunks hold.
    pub fn fill_value(&self) -> &FillValue {
        &self.0.fill_value
    }

    /// Shape of a stored object: of a shard, or of a plain chunk.
    pub fn chunk_shape(&self) -> &[u64] {
        &self.0.chunk_shape
    }

    /// Shape of what is decoded at once: an inner chunk, or a whole plain chunk.
    pub fn inner_shape(&self) -> &[u64] {
        &self.0.inner_shape
    }

    /// Number of inner chunks in a shard; 1 for a plain chunk.
    pub fn inner_chunks(&self) -> usize {
        self.0.inner_chunks
    }

    /// Number of the inner chunk at `coordinate`, counted in inner chunks from the shard's corner.
    pub fn inner_index(&self, coordinate: &[u64]) -> usize {
        let encoded: Vec<u64> = self.0.order.iter().map(|&axis| coordinate[axis]).collect();
        shape::linear_index(&encoded, &self.0.inner_grid) as usize
    }

    /// The box of inner chunk `index` in its shard.
    pub fn inner_region(&self, index: usize) -> Result<Region, Error> {
        let encoded = shape::coordinate(index as u64, &self.0.inner_grid);
        let mut start = vec![0; self.0.order.len()];
        for (&axis, at) in self.0.order.iter().zip(encoded) {
            start[axis] = at * self.0.inner_shape[axis];
        }
        Ok(Region::new(start, self.0.inner_shape.clone())?)
    }

    /// Encodes one stored object; `None` if all of it is fill value.
    ///
    /// `elements` has the chunk's whole shape, in C order. Only cells inside `in_bounds` (lengths
    /// from the chunk's corner) are data; the others are stored as fill value whatever they hold,
    /// so the same data always gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Elements`] if `elements` do not have the chunk's shape and type; [`Error::Encode`]
    /// if a codec fails.
    pub fn encode(
        &self,
        elements: &Elements,
        in_bounds: &[u64],
    ) -> Result<Option<EncodedChunk>, Error> {
        let inner = &*self.0;
        self.check_elements(elements)?;
        let in_bounds = Region::new(vec![0; in_bounds.len()], in_bounds.to_vec())?;
        match inner.kind {
            ChunkKind::Plain => {
                let whole = Region::whole(&inner.chunk_shape);
                let Some(elements) = self.canonical_part(elements, &whole, &in_bounds) else {
                    return Ok(None);
                };
                let bytes = inner.chain.encode(&elements)?;
                let id = hash::hash(Kind::PlainChunk, &bytes);
                Ok(Some(EncodedChunk {
                    kind: ChunkKind::Plain,
                    id,
                    bytes: bytes.into(),
                }))
            }
            ChunkKind::Shard => {
                let mut builder = ShardBuilder::new(inner.inner_chunks);
                for index in 0..inner.inner_chunks {
                    let region = self.inner_region(index)?;
                    match self.canonical_part(elements, &region, &in_bounds) {
                        Some(part) => builder.push(Some(&inner.chain.encode(&part)?)),
                        None => builder.push(None),
                    }
                }
                Ok(builder.finish().map(|(id, bytes)| EncodedChunk {
                    kind: ChunkKind::Shard,
                    id,
                    bytes: bytes.into(),
                }))
            }
        }
    }

    /// Decodes one inner chunk, or a whole plain chunk, from bytes that were verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they do not decode to exactly its elements.
    pub fn decode(&self, encoded: &[u8]) -> Result<Elements, Error> {
        self.0.chain.decode(encoded)
    }

    /// Decodes one inner chunk, or a whole plain chunk, of a fixed-size data type into `out`, which
    /// takes exactly its elements in C order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes do not decode to that many; [`Error::Elements`] if `out` has
    /// another size.
    pub fn decode_into(&self, encoded: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.0.chain.decode_into(encoded, out)
    }

    /// Bytes of a decoded inner chunk or plain chunk; an estimate for variable-length types.
    pub fn decoded_bytes(&self) -> usize {
        let elements = self.0.inner_shape.iter().product::<u64>() as usize;
        elements * self.0.data_type.size_bytes().unwrap_or(32)
    }

    fn check_elements(&self, elements: &Elements) -> Result<(), Error> {
        let count = shape::elements(&self.0.chunk_shape)?;
        let fits = match (elements, self.0.data_type.size_bytes()) {
            (Elements::Fixed(bytes), Some(size)) => {
                Some(bytes.len() as u64) == count.checked_mul(size as u64)
            }
            (Elements::Variable(elements), None) => elements.len() as u64 == count,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        Err(Error::Elements {
            reason: format!("expected {count} of {}", self.0.data_type),
        })
    }

    /// The elements of `region`, cells outside `in_bounds` set to fill; `None` if all are fill.
    fn canonical_part<'a>(
        &self,
        elements: &'a Elements,
        region: &Region,
        in_bounds: &Region,
    ) -> Option<Cow<'a, Elements>> {
        let fill = self.0.fill_value.as_bytes();
        let data = region.intersect(in_bounds);
        if data.is_empty() {
            return None;
        }
        match elements {
            Elements::Fixed(bytes) => {
                if region.shape() == self.0.chunk_shape && data == *region {
                    return (!is_repeated(bytes, fill)).then_some(Cow::Borrowed(elements));
                }
                let count = region.shape().iter().product::<u64>() as usize;
                let mut part = if data == *region {
                    vec![0; count * fill.len()]
                } else {
                    fill.repeat(count)
                };
                copy::copy_box(
                    bytes,
                    &self.0.chunk_shape,
                    &mut part,
                    region,
                    &data,
                    fill.len(),
                );
                (!is_repeated(&part, fill)).then_some(Cow::Owned(Elements::Fixed(part)))
            }
            Elements::Variable(values) => {
                let part: VariableElements = region
                    .positions()
                    .map(|at| {
                        let inside = at.iter().zip(data.start().iter().zip(data.shape()));
                        let inside = inside
                            .into_iter()
                            .all(|(&at, (&s, &l))| at >= s && at - s < l);
                        let index = shape::linear_index(&at, &self.0.chunk_shape) as usize;
                        if inside {
                            values.get(index).unwrap_or(fill)
                        } else {
                            fill
                        }
                    })
                    .collect();
                let all_fill = part.iter().all(|element| element == fill);
                (!all_fill).then_some(Cow::Owned(Elements::Variable(part)))
            }
        }
    }
}

/// Whether `bytes` is `element` again and again, bit for bit.
fn is_repeated(bytes: &[u8], element: &[u8]) -> bool {
    let size = element.len();
    bytes.len() >= size && &bytes[..size] == element && bytes[size..] == bytes[..bytes.len() - size]
}

/// What a `sharding_indexed` codec says, if stored objects are canonical shards.
struct Sharding {
    /// In array order.
    inner_shape: Vec<u64>,
    order: Vec<usize>,
    /// From the elements of an inner chunk to its bytes.
    inner_codecs: Vec<CodecMetadata>,
}

impl Sharding {
    /// `None` for any layout that is not verified by inner chunk.
    ///
    /// Spec: `docs/format.md`, "Shards": `sharding_indexed` is the only array-to-bytes codec and
    /// the last, its index at the end under `bytes` (little) and `crc32c`; before it only codecs
    /// that permute dimensions or change elements one by one.
    fn of(metadata: &ArrayMetadata) -> Result<Option<Self>, Error> {
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
        let missing = |name: &str| Error::codecs(format!("\"sharding_indexed\" has no {name:?}"));
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
            return Err(Error::codecs(
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
            return Err(Error::codecs(reason));
        }
        let mut inner_codecs = before.to_vec();
        inner_codecs.extend(list("codecs")?.ok_or_else(|| missing("codecs"))?);
        Ok(Some(Self {
            inner_shape,
            order,
            inner_codecs,
        }))
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
                let step = step.ok_or_else(|| Error::codecs("\"transpose\" has no \"order\""))?;
                let mut seen = step.clone();
                seen.sort_unstable();
                if seen != (0..dimensions).collect::<Vec<_>>() {
                    return Err(Error::codecs(
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
