//! Zarr arrays that keep their chunk grid and codecs: their encoded chunks are taken over.
//!
//! ```text
//! key of the source ─► encoded bytes ─► every inner chunk decoded once ─► upload
//!                                       (statistics, canonical shard)
//! ```

use array::{ArrayMetadata, ChunkIndex, CodecMetadata, NodePath};
use codecs::ArrayCodec;

use crate::blocking::blocking;
use crate::chunking::Chunking;
use crate::fill_arrays::Staging;
use crate::import::ImportOptions;
use crate::source::{Source, Variable};
use crate::{Error, zarr};

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

/// One chunk to take over.
pub(crate) struct Chunk {
    pub(crate) source: Source,
    pub(crate) staging: Staging,
    pub(crate) path: NodePath,
    pub(crate) variable: Variable,
    pub(crate) metadata: ArrayMetadata,
    pub(crate) codec: ArrayCodec,
    pub(crate) index: ChunkIndex,
}

impl Chunk {
    /// Reads, checks and uploads the chunk.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it does not decode; [`Error::Storage`] if the upload failed.
    pub(crate) async fn store(self) -> Result<(), Error> {
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
