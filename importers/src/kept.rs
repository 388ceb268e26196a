//! Zarr arrays that keep their chunk grid and codecs: their encoded chunks are taken over.
//!
//! ```text
//! key of the source ─► encoded bytes ─► every inner chunk decoded once ─► upload
//!                                       (statistics, canonical shard)
//!                       by reference: ─► hash of each inner chunk ─► rows that say where it is
//! ```

use std::sync::Arc;

use array::hash::{Kind, hash};
use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, Elements, Hash, NodePath, Sharding, Statistics,
};
use bytes::Bytes;
use codecs::ArrayCodec;
use storage::Externals;

use crate::blocking::blocking;
use crate::chunking::Chunking;
use crate::fill_arrays::Staging;
use crate::import::ImportOptions;
use crate::source::{Source, Variable};
use crate::{Error, boxes, zarr};

/// What takes more than this is written anew only as often as it is asked for by mistake.
const MAX_REWRITTEN_BYTES: u64 = 1 << 50;

/// Whether nothing was asked for that would change how chunks are cut or encoded.
pub(crate) fn keeps_chunks(options: &ImportOptions) -> bool {
    options.inner_lengths.0.is_empty()
        && options.shard_lengths.0.is_empty()
        && options.codec.is_none()
}

/// The metadata of a variable that the source has as a Zarr array: its own but for the attributes,
/// which may be fewer.
pub(crate) fn metadata(own: &ArrayMetadata, variable: &Variable) -> ArrayMetadata {
    let mut metadata = own.clone();
    metadata.attributes = zarr::attributes(&variable.attributes);
    metadata
}

/// The same, with another chunk grid and other codecs.
///
/// # Errors
/// [`Error::Unsupported`] if that would not end; [`Error::Array`] if the shapes do not fit.
pub(crate) fn cut_anew(
    own: &ArrayMetadata,
    variable: &Variable,
    chunking: &Chunking,
    codecs: &[CodecMetadata],
) -> Result<ArrayMetadata, Error> {
    let kept = metadata(own, variable);
    let element = own.data_type.size_bytes().unwrap_or(1) as u64;
    let bytes = own
        .shape()
        .iter()
        .fold(element, |n, &l| n.saturating_mul(l));
    if bytes > MAX_REWRITTEN_BYTES {
        return Err(Error::Unsupported {
            what: format!("variable {}", variable.name),
            reason: "it is too large to be cut anew: leave out --chunks, --shards and --codec"
                .into(),
        });
    }
    let bare = Variable {
        attributes: Vec::new(),
        ..variable.clone()
    };
    let (cut, _) = zarr::metadata(&variable.name, &bare, chunking, codecs)?;
    let mut anew = ArrayMetadata::new(
        cut.grid().clone(),
        kept.data_type.clone(),
        cut.codecs.clone(),
    );
    if let Some(names) = kept.dimension_names() {
        anew.set_dimension_names(names.to_vec())?;
    }
    anew.fill_value = kept.fill_value;
    anew.attributes = kept.attributes;
    anew.extra = kept.extra;
    Ok(anew)
}

/// How the chunks of an array are referred to where they are.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    /// How they are cut there: the array here has the inner chunks of their shards.
    pub(crate) metadata: ArrayMetadata,
    codec: ArrayCodec,
    files: Externals,
    /// Computes the statistics of chunks, which takes decoding them.
    with_statistics: bool,
}

impl Elsewhere {
    /// How to refer to the chunks of an array with this metadata, and the metadata of the array that
    /// does.
    ///
    /// # Errors
    /// [`Error::Array`] or [`Error::Codecs`] for metadata that makes no sense.
    pub(crate) fn new(
        metadata: ArrayMetadata,
        files: &Externals,
        with_statistics: bool,
    ) -> Result<(Self, ArrayMetadata), Error> {
        let referring = Sharding::without_shards(&metadata)?.unwrap_or_else(|| metadata.clone());
        let elsewhere = Self {
            codec: ArrayCodec::new(&metadata)?,
            metadata,
            files: files.clone(),
            with_statistics,
        };
        Ok((elsewhere, referring))
    }
}

/// An inner chunk in an object.
struct Part {
    index: ChunkIndex,
    offset: u64,
    length: u64,
    id: Hash,
    statistics: Option<Statistics>,
}

/// One chunk to take over.
pub(crate) struct Chunk {
    pub(crate) source: Source,
    pub(crate) staging: Staging,
    pub(crate) path: NodePath,
    pub(crate) variable: Variable,
    pub(crate) metadata: ArrayMetadata,
    pub(crate) codec: ArrayCodec,
    pub(crate) elsewhere: Option<Arc<Elsewhere>>,
    pub(crate) index: ChunkIndex,
}

impl Chunk {
    /// Reads, checks and uploads the chunk, or refers to it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it does not decode; [`Error::Storage`] if the upload failed.
    pub(crate) async fn store(self) -> Result<(), Error> {
        match self.elsewhere.clone() {
            Some(elsewhere) => self.refer(elsewhere).await,
            None => self.copy().await,
        }
    }

    async fn refer(self, elsewhere: Arc<Elsewhere>) -> Result<(), Error> {
        let (source, variable) = (self.source, self.variable);
        let (codec, metadata, index) = (self.codec, self.metadata, self.index);
        let (url, most) = source.reader().chunk_place(&variable, &index)?;
        let file = match elsewhere.files.open(&url).await {
            Err(error @ storage::Error::NotFound { .. }) => {
                // Where nothing can be listed, all chunks there could be are tried; elsewhere the source
                // says that it went away.
                let found = blocking(move || source.reader().stored_chunk(&variable, &index));
                return match found.await? {
                    None => Ok(()),
                    Some(_) => Err(error.into()),
                };
            }
            other => other?,
        };
        if file.length() > most {
            return Err(Error::Malformed {
                path: url.into(),
                reason: format!("it is longer than {most} bytes"),
            });
        }
        let bytes = file.read(0..file.length()).await?;
        let parts = blocking(move || {
            let found = elsewhere.parts(&codec, &metadata, &index, &bytes);
            found.map_err(|error| source.reader().chunk_error(&variable, &index, error))
        });
        let transaction = self.staging.transaction();
        let (url, etag) = (file.url(), file.etag());
        for part in parts.await? {
            let chunk = (part.id, part.length);
            let place = (url.as_str(), part.offset, etag);
            transaction
                .put_external(&self.path, part.index, chunk, place, part.statistics)
                .await?;
        }
        Ok(())
    }

    async fn copy(self) -> Result<(), Error> {
        let (source, variable) = (self.source, self.variable);
        let (codec, metadata, index) = (self.codec, self.metadata, self.index.clone());
        let taken = blocking(move || {
            let Some(bytes) = source.reader().stored_chunk(&variable, &index)? else {
                return Ok(None);
            };
            query::take_over(&codec, &metadata, &index, &bytes)
                .map_err(|error| source.reader().chunk_error(&variable, &index, error))
        });
        if let Some((chunk, statistics)) = taken.await? {
            let (path, index) = (&self.path, self.index);
            self.staging
                .transaction()
                .put_chunk(path, index, chunk.kind, chunk.id, chunk.bytes, statistics)
                .await?;
        }
        Ok(())
    }
}

impl Elsewhere {
    /// The inner chunks of the chunk at `index`, which is `bytes`, that have cells of the array; the
    /// first is decoded. `codec` and `metadata` are of the array that refers to them.
    fn parts(
        &self,
        codec: &ArrayCodec,
        metadata: &ArrayMetadata,
        index: &ChunkIndex,
        bytes: &Bytes,
    ) -> Result<Vec<Part>, codecs::Error> {
        let (grid, inner_shape) = (metadata.grid(), self.codec.inner_shape());
        let origin = self.metadata.grid().chunk_region(index);
        let mut parts = Vec::new();
        for (nth, encoded) in self.codec.split(bytes)?.into_iter().enumerate() {
            let Some(encoded) = encoded else { continue };
            let inside = self.codec.inner_region(nth)?;
            let corner = origin.start().iter().zip(inside.start());
            let at = corner
                .zip(inner_shape)
                .map(|((a, b), length)| (a + b) / length);
            let index = ChunkIndex::new(at.collect::<Vec<u64>>());
            if !grid.contains(&index) {
                continue;
            }
            let mut statistics = None;
            if self.with_statistics || parts.is_empty() {
                let elements = codec.decode(&encoded)?;
                if self.with_statistics {
                    statistics = chunk_statistics(codec, metadata, &index, &elements)?;
                }
            }
            parts.push(Part {
                index,
                offset: (encoded.as_ptr() as usize - bytes.as_ptr() as usize) as u64,
                length: encoded.len() as u64,
                id: hash(Kind::PlainChunk, &encoded),
                statistics,
            });
        }
        Ok(parts)
    }
}

/// The statistics of a chunk that has these elements.
fn chunk_statistics(
    codec: &ArrayCodec,
    metadata: &ArrayMetadata,
    index: &ChunkIndex,
    elements: &Elements,
) -> Result<Option<Statistics>, codecs::Error> {
    let inside = metadata.grid().chunk_region_in_array(index);
    let whole = metadata.grid().chunk_region(index);
    let fill = codec.fill_value().as_bytes();
    let cells = boxes::fit(codec.data_type(), fill, elements, &whole, &inside);
    Ok(cells
        .ok()
        .and_then(|cells| query::chunk_statistics(codec, metadata, &inside, &cells)))
}
