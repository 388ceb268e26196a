//! Imports by reference: chunks stay in their file, and the manifest says where they are.
//!
//! ```text
//! source ─► pieces of each variable ─► probed against the source ─┬─► rows: hash, offset, length
//!                                                                 └─► else: values copied
//! file ─► ranges in the order of the file, several at once ─► hashes
//! ```
//!
//! An array that refers to a file has the file's chunks, and codecs that say what their bytes are. What
//! a chunk decodes to is compared with what the source reads, for the first and the last of each
//! variable. A variable that has no place so is copied as in any import, and named in the result.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use array::hash::{Kind, hash};
use array::{Hash, NodePath, Region, Statistics};
use storage::{ExternalFile, Externals, Transaction};
use tokio::task::JoinSet;

use crate::Error;
use crate::blocking::{blocking, worker_failed};
use crate::fill_arrays::{Progress, Staging, Target};
use crate::located::Located;
use crate::pieces::Piece;
use crate::source::{Source, Variable};

/// Bytes that are read and hashed at once, unless one chunk is longer, and pieces among them.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_PIECES: usize = 4096;

/// A variable that was copied, although it was to be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The array.
    pub array: NodePath,
    /// Why.
    pub reason: String,
}

/// The file that chunks are referred to in.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    opened: ExternalFile,
    /// The same file, or a copy of it, on this machine.
    file: Arc<File>,
    length: u64,
}

/// An array that refers to a file.
pub(crate) struct Referring {
    pub(crate) path: NodePath,
    pub(crate) variable: Variable,
    pub(crate) located: Located,
}

impl Original {
    /// The file at `url`, of which `local` is a copy, or the file itself.
    ///
    /// # Errors
    /// [`Error::Storage`] if it may not or cannot be read; [`Error::Read`] if the copy cannot.
    pub(crate) async fn open(
        externals: &Externals,
        url: &str,
        local: &Path,
    ) -> Result<Self, Error> {
        let opened = externals.open(url).await?;
        let read = |source| Error::Read {
            path: local.to_owned(),
            source,
        };
        let file = File::open(local).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        if length != opened.length() {
            return Err(changed(&opened));
        }
        Ok(Self {
            opened,
            file: Arc::new(file),
            length,
        })
    }

    /// That the file is still the one that was opened.
    ///
    /// # Errors
    /// [`Error::Storage`] if it is not.
    pub(crate) async fn check(&self, externals: &Externals) -> Result<(), Error> {
        let now = externals.open(&self.opened.url()).await?;
        match now.etag() == self.opened.etag() {
            true => Ok(()),
            false => Err(changed(&self.opened)),
        }
    }
}

fn changed(file: &ExternalFile) -> Error {
    let reason = "it changed while it was imported".to_owned();
    let url = file.url();
    storage::Error::Changed { url, reason }.into()
}

/// Divides arrays into those that can refer to the file and the others, which are copied. Blocks.
pub(crate) fn divide(
    source: &Source,
    original: &Original,
    targets: Vec<Target>,
) -> (Vec<Referring>, Vec<Target>, Vec<Copied>) {
    let (mut referring, mut others, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for target in targets {
        match Referring::of(source, original, &target) {
            Ok(found) => referring.push(found),
            Err(reason) => {
                copied.push(Copied {
                    array: target.path.clone(),
                    reason,
                });
                others.push(target);
            }
        }
    }
    (referring, others, copied)
}

impl Referring {
    /// The array that refers to what `target` would copy; else why there is none.
    fn of(source: &Source, original: &Original, target: &Target) -> Result<Self, String> {
        let variable = &target.variable;
        let file = (&*original.file, original.length);
        let read = |region: &Region| source.read(variable, region);
        let pieces = source.pieces(variable)?;
        Ok(Self {
            path: target.path.clone(),
            variable: variable.clone(),
            located: Located::of(target.metadata.clone(), pieces, file, &read)?,
        })
    }

    /// Bytes of the chunks that are referred to.
    fn bytes(&self) -> u64 {
        let lengths = self.located.found.iter().map(|piece| piece.length);
        lengths.fold(0, u64::saturating_add)
    }

    fn chunks(&self) -> u64 {
        (self.located.found.len() + self.located.to_copy.len()) as u64
    }
}

/// A piece of one array, and what was found out about it.
struct Hashed {
    array: usize,
    piece: Piece,
    id: Hash,
    statistics: Option<Statistics>,
}

/// Puts the rows of all arrays into a transaction that has the arrays; gives the bytes they refer to.
/// `with_statistics` decodes each chunk too.
///
/// # Errors
/// [`Error::Storage`] if the transaction failed; [`Error::Read`] if the file ends early;
/// [`Error::Codecs`] if a chunk is decoded and is damaged.
pub(crate) async fn refer(
    source: &Source,
    staging: &Staging,
    referring: Arc<Vec<Referring>>,
    original: &Original,
    with_statistics: bool,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<u64, Error> {
    let transaction = staging.transaction();
    let mut state = Progress {
        variable: original.opened.name(),
        shards: 0,
        total_shards: referring.iter().map(Referring::chunks).sum(),
        bytes: 0,
        total_bytes: referring.iter().map(Referring::bytes).sum(),
    };
    let mut running: JoinSet<Result<Vec<Hashed>, Error>> = JoinSet::new();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    // What is staged already is not read again.
    let is_there = |array: &Referring, place| staging.has(&array.path, &array.located.index(place));
    let (there, missing): (Vec<_>, Vec<_>) = pieces(&referring)
        .into_iter()
        .partition(|(nth, piece)| is_there(&referring[*nth], piece.place));
    for (_, piece) in there {
        state.shards += 1;
        state.bytes += piece.length;
    }
    let mut batches = batches(missing).into_iter();
    let (url, etag) = (original.opened.url(), original.opened.etag().to_owned());
    loop {
        while running.len() < threads + 1
            && let Some(batch) = batches.next()
        {
            let (referring, file) = (referring.clone(), original.file.clone());
            running.spawn_blocking(move || hash_batch(&referring, &file, batch, with_statistics));
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        for hashed in done.map_err(|error| worker_failed(&error))?? {
            let array = &referring[hashed.array];
            let place = (url.as_str(), hashed.piece.offset, etag.as_str());
            let index = array.located.index(hashed.piece.place);
            let chunk = (hashed.id, hashed.piece.length);
            transaction
                .put_external(&array.path, index, chunk, place, hashed.statistics)
                .await?;
            state.shards += 1;
            state.bytes += hashed.piece.length;
        }
        staging.flush().await?;
        progress(&state);
    }
    for nth in 0..referring.len() {
        for &place in &referring[nth].located.to_copy {
            if is_there(&referring[nth], place) {
                state.shards += 1;
                continue;
            }
            copy(source, transaction, &referring, nth, place).await?;
            state.shards += 1;
        }
        progress(&state);
    }
    staging.flush().await?;
    Ok(state.bytes)
}

/// The pieces of all arrays in the order of the file.
fn pieces(referring: &[Referring]) -> Vec<(usize, Piece)> {
    let of_array = |(nth, array): (usize, &Referring)| {
        let pieces = array.located.found.iter();
        pieces.map(|piece| (nth, *piece)).collect::<Vec<_>>()
    };
    let mut all: Vec<(usize, Piece)> = referring.iter().enumerate().flat_map(of_array).collect();
    all.sort_by_key(|(_, piece)| piece.offset);
    all
}

/// These pieces, in batches.
fn batches(all: Vec<(usize, Piece)>) -> Vec<Vec<(usize, Piece)>> {
    let mut batches: Vec<Vec<(usize, Piece)>> = Vec::new();
    let mut start = 0;
    for (nth, piece) in all {
        let fits = |batch: &Vec<(usize, Piece)>| {
            batch.len() < BATCH_PIECES && piece.offset + piece.length - start <= BATCH_BYTES
        };
        match batches.last_mut().filter(|batch| fits(batch)) {
            Some(batch) => batch.push((nth, piece)),
            None => {
                start = piece.offset;
                batches.push(vec![(nth, piece)]);
            }
        }
    }
    batches
}

/// Reads what lies between the first and the last of some pieces, and hashes each of them. Blocks.
fn hash_batch(
    referring: &[Referring],
    file: &File,
    batch: Vec<(usize, Piece)>,
    with_statistics: bool,
) -> Result<Vec<Hashed>, Error> {
    let start = batch.first().map_or(0, |(_, piece)| piece.offset);
    let ends = batch.iter().map(|(_, piece)| piece.offset + piece.length);
    let end = ends.max().unwrap_or(start);
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, start)
        .map_err(|source| Error::Read {
            path: "the original".into(),
            source,
        })?;
    let hashed = batch.into_iter().map(|(array, piece)| {
        let from = (piece.offset - start) as usize;
        let chunk = &bytes[from..from + piece.length as usize];
        let statistics = match with_statistics {
            true => referring[array].statistics(&piece, chunk)?,
            false => None,
        };
        Ok(Hashed {
            array,
            piece,
            id: hash(Kind::PlainChunk, chunk),
            statistics,
        })
    });
    hashed.collect()
}

impl Referring {
    fn statistics(&self, piece: &Piece, chunk: &[u8]) -> Result<Option<Statistics>, Error> {
        let Located {
            codec, metadata, ..
        } = &self.located;
        let index = self.located.index(piece.place);
        let elements = self.located.inside(&codec.decode(chunk)?, &index)?;
        let region = metadata.grid().chunk_region_in_array(&index);
        Ok(query::chunk_statistics(codec, metadata, &region, &elements))
    }
}

/// Copies one chunk, which is in the file in another way than the array has it.
async fn copy(
    source: &Source,
    transaction: &Transaction,
    referring: &Arc<Vec<Referring>>,
    nth: usize,
    place: u64,
) -> Result<(), Error> {
    let (reader, arrays) = (source.clone(), referring.clone());
    let index = referring[nth].located.index(place);
    let at = index.clone();
    let encoded = blocking(move || {
        let array = &arrays[nth];
        let Located {
            codec, metadata, ..
        } = &array.located;
        let region = metadata.grid().chunk_region_in_array(&at);
        let elements = reader.read(&array.variable, &region)?;
        let (shape, inside) = (region.shape(), Region::whole(region.shape()));
        Ok(query::encode_with_statistics(
            codec, metadata, &elements, shape, &inside,
        )?)
    })
    .await?;
    let Some((chunk, statistics)) = encoded else {
        return Ok(());
    };
    let path = &referring[nth].path;
    transaction
        .put_chunk(path, index, chunk.kind, chunk.id, chunk.bytes, statistics)
        .await?;
    Ok(())
}
