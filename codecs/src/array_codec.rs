//! The codecs of one array: which bytes are stored for which elements.

use std::borrow::Cow;
use std::sync::Arc;

use array::hash::{self, Hash, Kind};
use array::shard::ShardBuilder;
use array::{
    ArrayMetadata, ChunkKind, DataType, Elements, FillValue, Layout, Region, Sharding,
    VariableElements, shape,
};
use bytes::Bytes;

use crate::chain::Chain;
use crate::{Compressed, Error, copy};

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
    inner_chunks: usize,
    /// `None` for plain chunks.
    sharding: Option<Sharding>,
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
            Some(sharding) => Inner {
                chain: Chain::new(
                    sharding.inner_codecs(),
                    sharding.inner_shape(),
                    &data_type,
                    &fill_value,
                )?,
                data_type,
                fill_value,
                chunk_shape,
                inner_shape: sharding.inner_shape().to_vec(),
                inner_chunks: sharding.inner_chunks(),
                sharding: Some(sharding),
            },
            None => Inner {
                chain: Chain::new(&metadata.codecs, &chunk_shape, &data_type, &fill_value)?,
                data_type,
                fill_value,
                inner_shape: chunk_shape.clone(),
                inner_chunks: 1,
                chunk_shape,
                sharding: None,
            },
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Whether stored objects are canonical shards or plain chunks.
    pub fn kind(&self) -> ChunkKind {
        match self.0.sharding {
            Some(_) => ChunkKind::Shard,
            None => ChunkKind::Plain,
        }
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
        let sharding = self.0.sharding.as_ref();
        sharding.map_or(0, |sharding| sharding.inner_index(coordinate))
    }

    /// The box of inner chunk `index` in its shard.
    pub fn inner_region(&self, index: usize) -> Result<Region, Error> {
        Ok(match &self.0.sharding {
            Some(sharding) => sharding.inner_region(index)?,
            None => Region::whole(&self.0.chunk_shape),
        })
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
        let shape = &self.0.chunk_shape;
        let in_bounds = Region::new(vec![0; in_bounds.len()], in_bounds.to_vec())?;
        self.encode_part(elements, shape, &in_bounds, &mut |_| {})
    }

    /// Encodes one stored object of a larger box; `None` if all of it is fill value.
    ///
    /// `elements` has `shape`, in C order. `data` is where in it the chunk's cells are that are inside
    /// the array: its corner is the chunk's. `see` is given the data of each inner chunk that has some,
    /// in C order of the chunks, before it is encoded.
    ///
    /// # Errors
    /// [`Error::Elements`] if `elements` do not have that shape and the chunk's type; [`Error::Encode`]
    /// if a codec fails.
    pub fn encode_part(
        &self,
        elements: &Elements,
        shape: &[u64],
        data: &Region,
        see: &mut dyn FnMut(Cells<'_>),
    ) -> Result<Option<EncodedChunk>, Error> {
        let inner = &*self.0;
        self.check_elements(elements, shape)?;
        let whole = Region::whole(shape);
        let mut lengths = data.shape().iter().zip(&inner.chunk_shape);
        if data.shape().len() != inner.chunk_shape.len()
            || shape.len() != inner.chunk_shape.len()
            || !whole.contains(data)
            || lengths.any(|(length, most)| length > most)
        {
            return Err(Error::Elements {
                reason: format!("{data:?} is no chunk's part of a box of {shape:?}"),
            });
        }
        let mut builder = match self.kind() {
            ChunkKind::Plain => None,
            ChunkKind::Shard => Some(ShardBuilder::new(inner.inner_chunks)),
        };
        for index in 0..inner.inner_chunks {
            let region = self.inner_region(index)?.moved(data.start())?;
            let part = self.canonical_part(elements, shape, &region, data, see);
            let encoded = part.map(|part| inner.chain.encode(&part)).transpose()?;
            match &mut builder {
                Some(builder) => builder.push(encoded.as_deref()),
                None => {
                    return Ok(encoded.map(|bytes| EncodedChunk {
                        kind: ChunkKind::Plain,
                        id: hash::hash(Kind::PlainChunk, &bytes),
                        bytes: bytes.into(),
                    }));
                }
            }
        }
        let shard = builder.and_then(ShardBuilder::finish);
        Ok(shard.map(|(id, bytes)| EncodedChunk {
            kind: ChunkKind::Shard,
            id,
            bytes: bytes.into(),
        }))
    }

    /// Encodes one inner chunk, or a whole plain chunk, whatever it holds: fill value is encoded too.
    ///
    /// # Errors
    /// As [`ArrayCodec::encode`].
    pub fn encode_whole(&self, elements: &Elements) -> Result<Vec<u8>, Error> {
        self.0.chain.encode(elements)
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

    /// Decodes one inner chunk, or a whole plain chunk, of a fixed-size data type only as far as a
    /// device cannot do it as well: the layout says what is left.
    ///
    /// `out` has room for all its elements, [`ArrayCodec::decoded_bytes`]. The first
    /// [`Layout::length_bytes`] of it are written, the rest may be or not. Chains that end in more than a
    /// shuffle or packed bits, and types other than integers, real numbers and booleans, are decoded
    /// fully: [`Layout::ELEMENTS`]. For the same codecs, layouts may differ from chunk to chunk.
    ///
    /// # Errors
    /// As [`ArrayCodec::decode_into`].
    pub fn decode_partly(&self, encoded: &[u8], out: &mut [u8]) -> Result<Layout, Error> {
        self.0.chain.decode_partly(encoded, out)
    }

    /// Where the compressed streams of an inner chunk, or of a whole plain chunk, are, if all that is
    /// left to do beside decompressing them is a [`Layout`]; `None` else, also for bytes that are not
    /// what the codecs give. Nothing is decompressed; a Fletcher-32 checksum behind them is checked.
    pub fn compression(&self, encoded: &[u8]) -> Option<Compressed> {
        self.0.chain.compression(encoded)
    }

    /// Encodes one inner chunk, or a whole plain chunk; `None` if all of it is fill value.
    ///
    /// `elements` has its shape. Only cells inside `in_bounds` (lengths from its corner) are data.
    ///
    /// # Errors
    /// As [`ArrayCodec::encode`].
    pub fn encode_inner(
        &self,
        elements: &Elements,
        in_bounds: &[u64],
    ) -> Result<Option<Vec<u8>>, Error> {
        let inner = &*self.0;
        let whole = Region::whole(&inner.inner_shape);
        let in_bounds = Region::new(vec![0; in_bounds.len()], in_bounds.to_vec())?;
        let shape = &inner.inner_shape;
        let part = self.canonical_part(elements, shape, &whole, &in_bounds, &mut |_| {});
        part.map(|part| inner.chain.encode(&part)).transpose()
    }

    /// The stored object of these encoded inner chunks (for a plain chunk, the only one), `None`
    /// for those that are all fill value; `None` if all of them are.
    pub fn assemble(&self, inner: &[Option<Bytes>]) -> Option<EncodedChunk> {
        match self.kind() {
            ChunkKind::Plain => {
                let bytes = inner.first()?.clone()?;
                Some(EncodedChunk {
                    kind: ChunkKind::Plain,
                    id: hash::hash(Kind::PlainChunk, &bytes),
                    bytes,
                })
            }
            ChunkKind::Shard => {
                let mut builder = ShardBuilder::new(self.0.inner_chunks);
                for bytes in inner {
                    builder.push(bytes.as_deref());
                }
                let (id, bytes) = builder.finish()?;
                Some(EncodedChunk {
                    kind: ChunkKind::Shard,
                    id,
                    bytes: bytes.into(),
                })
            }
        }
    }

    /// Decodes an inner chunk, or a whole plain chunk; all fill value if there is none.
    ///
    /// # Errors
    /// As [`ArrayCodec::decode`].
    pub fn decode_or_fill(&self, encoded: Option<&Bytes>) -> Result<Elements, Error> {
        match encoded {
            Some(bytes) => self.decode(bytes),
            None => {
                let count = shape::elements(&self.0.inner_shape)?;
                let fill = self.0.fill_value.as_bytes();
                Ok(Elements::repeat(&self.0.data_type, fill, count)?)
            }
        }
    }

    /// Decodes a whole stored object from its encoded inner chunks, in the chunk's shape.
    ///
    /// # Errors
    /// As [`ArrayCodec::decode`].
    pub fn decode_whole(&self, inner: &[Option<Bytes>]) -> Result<Elements, Error> {
        let chunk_shape = &self.0.chunk_shape;
        let fill = self.0.fill_value.as_bytes();
        let count = shape::elements(chunk_shape)?;
        let mut whole = Elements::repeat(&self.0.data_type, fill, count)?;
        if let Elements::Fixed(cells) = &mut whole {
            for (nth, encoded) in inner.iter().enumerate() {
                let Some(encoded) = encoded else { continue };
                let region = self.inner_region(nth)?;
                let mut decoded = vec![0; self.decoded_bytes()];
                self.decode_into(encoded, &mut decoded)?;
                copy::place_box(&decoded, &region, cells, chunk_shape, fill.len());
            }
            return Ok(whole);
        }
        let parts: Vec<Option<VariableElements>> = inner
            .iter()
            .map(|encoded| match self.decode_or_fill(encoded.as_ref())? {
                Elements::Variable(values) => Ok(encoded.as_ref().map(|_| values)),
                Elements::Fixed(_) => Err(Error::corrupt("chunk", "fixed-size elements")),
            })
            .collect::<Result<_, _>>()?;
        let value = |at: Vec<u64>| {
            let shape = &self.0.inner_shape;
            let part: Vec<u64> = at
                .iter()
                .zip(shape)
                .map(|(at, length)| at / length)
                .collect();
            let cell: Vec<u64> = at
                .iter()
                .zip(shape)
                .map(|(at, length)| at % length)
                .collect();
            let values = parts.get(self.inner_index(&part)).and_then(Option::as_ref);
            let values = values.and_then(|v| v.get(shape::linear_index(&cell, shape) as usize));
            values.unwrap_or(fill)
        };
        let values = Region::whole(chunk_shape).positions().map(value).collect();
        Ok(Elements::Variable(values))
    }

    /// Decodes a chunk or shard that some other writer encoded, in the chunk's shape.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it does not decode; [`Error::Array`] if its index is wrong.
    pub fn decode_foreign(&self, bytes: &Bytes) -> Result<Elements, Error> {
        match self.kind() {
            ChunkKind::Plain => self.decode(bytes),
            ChunkKind::Shard => self.decode_whole(&self.split(bytes)?),
        }
    }

    /// The encoded inner chunks of a shard, by its Zarr index alone; of a plain chunk, itself.
    ///
    /// # Errors
    /// [`Error::Array`] if the index is wrong.
    pub fn split(&self, bytes: &Bytes) -> Result<Vec<Option<Bytes>>, Error> {
        if self.kind() == ChunkKind::Plain {
            return Ok(vec![Some(bytes.clone())]);
        }
        let entries = array::shard::read_index(bytes, self.0.inner_chunks)?;
        let slice = |entry: Option<std::ops::Range<usize>>| entry.map(|range| bytes.slice(range));
        Ok(entries.into_iter().map(slice).collect())
    }

    /// Bytes of a decoded inner chunk or plain chunk; an estimate for variable-length types.
    pub fn decoded_bytes(&self) -> usize {
        let elements = self.0.inner_shape.iter().product::<u64>() as usize;
        elements * self.0.data_type.size_bytes().unwrap_or(32)
    }

    fn check_elements(&self, elements: &Elements, shape: &[u64]) -> Result<(), Error> {
        let count = shape::elements(shape)?;
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

    /// The elements of `region` of `elements_shape`, cells outside `in_bounds` set to fill; `None` if all
    /// are fill. `see` is given those inside.
    fn canonical_part<'a>(
        &self,
        elements: &'a Elements,
        elements_shape: &[u64],
        region: &Region,
        in_bounds: &Region,
        see: &mut dyn FnMut(Cells<'_>),
    ) -> Option<Cow<'a, Elements>> {
        let fill = self.0.fill_value.as_bytes();
        let data = region.intersect(in_bounds);
        if data.is_empty() {
            return None;
        }
        match elements {
            Elements::Fixed(bytes) => {
                let whole = Region::whole(elements_shape);
                let cells = match data == whole {
                    true => Cow::Borrowed(elements),
                    false => {
                        let cut = copy::cut_box(bytes, elements_shape, &data, fill.len());
                        Cow::Owned(Elements::Fixed(cut))
                    }
                };
                let Elements::Fixed(inside) = &*cells else {
                    return None;
                };
                if is_repeated(inside, fill) {
                    see(Cells::Fill(data.shape().iter().product()));
                    return None;
                }
                see(Cells::Data(inside));
                if data == *region {
                    return Some(cells);
                }
                let count = region.shape().iter().product::<u64>() as usize;
                let mut part = fill.repeat(count);
                let from = region.start().iter().zip(data.start());
                let from = from.map(|(corner, start)| start - corner).collect();
                let inside_part = Region::new(from, data.shape().to_vec()).ok()?;
                copy::place_box(inside, &inside_part, &mut part, region.shape(), fill.len());
                Some(Cow::Owned(Elements::Fixed(part)))
            }
            Elements::Variable(values) => {
                let part: VariableElements = region
                    .positions()
                    .map(|at| {
                        let inside = at.iter().zip(data.start().iter().zip(data.shape()));
                        let inside = inside
                            .into_iter()
                            .all(|(&at, (&s, &l))| at >= s && at - s < l);
                        if inside {
                            let index = shape::linear_index(&at, elements_shape) as usize;
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

/// The cells of an inner chunk that are data, of a fixed-size data type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells<'a> {
    /// So many, all of the fill value.
    Fill(u64),
    /// Their bytes, in C order.
    Data(&'a [u8]),
}

/// Whether `bytes` is `element` again and again, bit for bit.
fn is_repeated(bytes: &[u8], element: &[u8]) -> bool {
    let size = element.len();
    bytes.len() >= size && &bytes[..size] == element && bytes[size..] == bytes[..bytes.len() - size]
}
