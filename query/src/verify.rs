//! Checks everything a repository stores, the bytes of its chunks included.

use std::collections::{BTreeMap, HashSet};

use array::hash::{Kind, hash};
use array::shard::{verify_plain, verify_shard, verify_unknown_shard};
use array::{Hash, Statistics};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use storage::{ArrayNode, ChunkKind, ChunkRow, Damage, Location, Repository, Scope};

use crate::chunk_statistics;
use crate::engine::Engine;
use crate::{ArrayReader, Error};

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that is not as it was written, each named by its object.
    pub damage: Vec<Damage>,
    /// Log entries checked.
    pub entries: u64,
    /// Commits checked.
    pub commits: u64,
    /// Objects checked, chunks included.
    pub objects: u64,
    /// Stored chunks whose bytes were checked.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub chunk_bytes: u64,
    /// Files outside the repository that chunks refer to and that are not what was imported, or
    /// cannot be read, each named with its place. The repository itself is as it was written.
    pub originals: Vec<Damage>,
    /// Objects that nothing refers to: left by writers that failed or lost a race. No damage.
    pub unreferenced: u64,
}

/// How far a verification got. Kept somewhere, it lets another one go on from there: chunks are
/// named by what they are, so it does not matter what was committed meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// What is verified, in words of the caller's: the progress of something else is none.
    pub of: String,
    /// Whether chunks were decoded too.
    pub deep: bool,
    /// Stored chunks whose bytes were checked.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub chunk_bytes: u64,
    /// Bytes of all chunks in scope.
    pub total_bytes: u64,
    /// Of each array, by a hash of its chunks, how many of its chunks in address order were checked.
    checked: BTreeMap<String, u64>,
    /// What was wrong with them.
    damage: Vec<Damage>,
    /// Originals that are not what was imported.
    #[serde(default)]
    originals: Vec<Damage>,
}

impl Progress {
    /// That of a verification that has not begun.
    pub fn new(of: &str, deep: bool) -> Self {
        Self {
            of: of.to_owned(),
            deep,
            ..Self::default()
        }
    }
}

/// Names what is checked of an array: its chunks under its metadata.
fn array_key(node: &ArrayNode, rows: &[ChunkRow], deep: bool) -> String {
    let mut content = Vec::new();
    content.extend_from_slice(node.document_hash().as_bytes());
    if let Some(statistics) = node.statistics_root().filter(|_| deep) {
        content.extend_from_slice(statistics.root.as_bytes());
    }
    for row in rows {
        content.extend_from_slice(row.id.as_bytes());
    }
    hash(Kind::Request, &content).to_string()
}

/// Names where a chunk's bytes are: equal chunks of the repository are one object, those of files
/// elsewhere are not.
fn place(row: &ChunkRow) -> Hash {
    match &row.location {
        Location::External { url, offset, etag } => {
            let place = format!("{} {offset} {etag} {url}", row.id);
            hash(Kind::Request, place.as_bytes())
        }
        Location::Stored | Location::Inline(_) => row.id,
    }
}

/// Chunks checked between two looks at the progress.
const BATCH: usize = 256;

impl Engine {
    /// Verifies a repository. Every byte in scope is read; `deep` also decodes every chunk and
    /// recomputes the statistics. Goes on from `progress`, if that was as deep, and shows it to
    /// `observe` every so many chunks, which ends the verification by saying no.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was ended; [`Error::Storage`] if the store failed or the scope is
    /// not valid. Damage is not an error but part of the report.
    pub async fn verify(
        &self,
        repository: &Repository,
        scope: &Scope,
        progress: &mut Progress,
        observe: &mut (dyn FnMut(&Progress) -> bool + Send),
    ) -> Result<Report, Error> {
        let deep = progress.deep;
        let mut found = repository.verify(scope).await?;
        let mut report = Report {
            damage: std::mem::take(&mut found.damage),
            entries: found.entries,
            commits: found.commits,
            ..Report::default()
        };
        let arrays = std::mem::take(&mut found.arrays);
        let rows = arrays.iter().flat_map(|(_, rows)| rows);
        progress.total_bytes = rows.fold(0, |sum, row| sum.saturating_add(row.length));
        let mut seen: HashSet<(Hash, Hash)> = HashSet::new();
        for (node, rows) in arrays {
            let array = match self.open(node.clone()) {
                Ok(array) => array,
                Err(error) => {
                    let object = node.path().to_string();
                    report.damage.push(Damage {
                        object,
                        reason: error.to_string(),
                    });
                    continue;
                }
            };
            let key = array_key(&node, &rows, deep);
            let has_statistics = deep && node.has_current_statistics();
            let mut checked = progress.checked.get(&key).copied().unwrap_or(0) as usize;
            while checked < rows.len() {
                if !observe(progress) {
                    return Err(Error::Cancelled);
                }
                let batch = &rows[checked..rows.len().min(checked + BATCH)];
                checked += batch.len();
                // The same object may serve many commits; under one set of metadata it is read
                // once.
                let fresh = batch.iter().filter(|row| {
                    let is_new = seen.insert((place(row), node.document_hash()));
                    has_statistics || is_new
                });
                let fresh: Vec<ChunkRow> = fresh.cloned().collect();
                self.check_chunks(&array, fresh, progress).await?;
                progress.checked.insert(key.clone(), checked as u64);
            }
        }
        observe(progress);
        report.damage.append(&mut progress.damage.clone());
        report.originals.append(&mut progress.originals.clone());
        (report.chunks, report.chunk_bytes) = (progress.chunks, progress.chunk_bytes);
        report.objects = found.objects.len() as u64;
        if *scope == Scope::Everything {
            self.check_unreferenced(repository, &found.objects, &mut report)
                .await?;
        }
        for list in [&mut report.damage, &mut report.originals] {
            list.sort();
            list.dedup();
        }
        Ok(report)
    }

    /// Checks some chunks of an array, several at once.
    async fn check_chunks(
        &self,
        array: &ArrayReader,
        rows: Vec<ChunkRow>,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let node = &array.node;
        let mut checks = futures::stream::iter(rows)
            .map(|row| self.check_chunk(array.clone(), row, progress.deep))
            .buffer_unordered(2 * self.pool.threads());
        while let Some((row, result)) = checks.next().await {
            progress.chunks += 1;
            progress.chunk_bytes += row.length;
            let computed = match result {
                Err(Error::Storage(error @ storage::Error::Store { .. })) => {
                    return Err(error.into());
                }
                Err(Error::Storage(
                    error @ (storage::Error::Changed { .. }
                    | storage::Error::Forbidden { .. }
                    | storage::Error::Unreachable { .. }),
                )) => {
                    let original = Damage::new(&node.chunk_object(&row), &error);
                    progress.originals.push(original);
                    continue;
                }
                Err(Error::Storage(error)) => {
                    let damage = Damage::new(&node.chunk_object(&row), &error);
                    progress.damage.push(damage);
                    continue;
                }
                Err(error) => {
                    progress.damage.push(Damage {
                        object: node.chunk_object(&row),
                        reason: error.to_string(),
                    });
                    continue;
                }
                Ok(computed) => computed,
            };
            let Some(computed) = computed else { continue };
            let stored = match node.chunk_statistics(&row.index).await {
                Err(error @ storage::Error::Store { .. }) => return Err(error.into()),
                Err(error) => {
                    let damage = Damage::new(node.path().as_str(), &error);
                    progress.damage.push(damage);
                    continue;
                }
                Ok(stored) => stored,
            };
            // As bytes: the sum of values that hold a NaN is one.
            let is_same = stored.map(|stored| stored.to_bytes()) == Some(computed.to_bytes());
            if node.has_current_statistics() && !is_same {
                progress.damage.push(Damage {
                    object: format!("statistics of {} chunk {}", node.path(), row.index),
                    reason: "they are not those of the data".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Reads one chunk past all caches and checks it; deep, gives the statistics of its cells.
    async fn check_chunk(
        &self,
        array: ArrayReader,
        row: ChunkRow,
        deep: bool,
    ) -> (ChunkRow, Result<Option<Statistics>, Error>) {
        if let Err(error) = array.check_kind(&row) {
            return (row, Err(error));
        }
        let bytes = match array.node.chunk_bytes(&row, 0..row.length).await {
            Ok(bytes) => bytes,
            Err(error) => return (row, Err(error.into())),
        };
        let checked = row.clone();
        let result = self
            .pool
            .run(move || check_bytes(&array, &checked, &bytes, deep))
            .await;
        (row, result)
    }

    /// Objects nothing refers to must still be what their names say.
    async fn check_unreferenced(
        &self,
        repository: &Repository,
        referenced: &std::collections::BTreeSet<String>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let store = repository.store();
        for (key, _) in store.list("").await? {
            if referenced.contains(&key) || key == "log/_hint.json" {
                continue;
            }
            report.unreferenced += 1;
            let Some(bytes) = store.get(&key).await? else {
                continue;
            };
            if let Err(reason) = check_loose(&key, &bytes) {
                report.damage.push(Damage {
                    object: key,
                    reason,
                });
            }
        }
        Ok(())
    }
}

fn check_bytes(
    array: &ArrayReader,
    row: &ChunkRow,
    bytes: &Bytes,
    deep: bool,
) -> Result<Option<Statistics>, Error> {
    let codec = &array.codec;
    let changed = |error: array::Error| array.altered(row, error);
    let corrupt = |error: codecs::Error| array.corrupt(row, error);
    let encoded: Vec<Option<Bytes>> = match row.kind {
        ChunkKind::Plain => {
            verify_plain(bytes, &row.id).map_err(changed)?;
            vec![Some(bytes.clone())]
        }
        ChunkKind::Shard => {
            let footer = verify_shard(bytes, &row.id, codec.inner_chunks()).map_err(changed)?;
            let entries = footer.entries().iter();
            entries
                .map(|entry| {
                    entry.map(|e| bytes.slice(e.offset as usize..(e.offset + e.length) as usize))
                })
                .collect()
        }
    };
    if !deep {
        return Ok(None);
    }
    chunk_statistics::of_inner_chunks(codec, array.metadata(), &row.index, &encoded)
        .map_err(corrupt)
}

/// Checks an object nothing refers to against its own name.
fn check_loose(key: &str, bytes: &[u8]) -> Result<(), String> {
    if let Some(name) = key.strip_prefix("shards/") {
        let id: Hash = name
            .replace('/', "")
            .parse()
            .map_err(|_| "not the name of a shard")?;
        return if verify_plain(bytes, &id).is_ok() || verify_unknown_shard(bytes, &id).is_ok() {
            Ok(())
        } else {
            Err("its bytes do not match its name".into())
        };
    }
    storage::check_unreferenced(key, bytes)
}
