//! Checks everything a repository stores, the bytes of its chunks included.

use std::collections::{BTreeMap, HashSet};

use array::shard::{verify_plain, verify_shard, verify_unknown_shard};
use array::{ChunkIndex, Hash, Region, Statistics};
use bytes::Bytes;
use futures::StreamExt as _;
use storage::{ArrayNode, ChunkKind, ChunkRow, Damage, Repository, Scope};

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
    /// Objects that nothing refers to: left by writers that failed or lost a race. No damage.
    pub unreferenced: u64,
}

impl Engine {
    /// Verifies a repository. Every byte in scope is read; `deep` also decodes every chunk and
    /// recomputes the statistics.
    ///
    /// # Errors
    /// [`Error::Storage`] if the store failed. Damage is not an error but part of the report.
    pub async fn verify(
        &self,
        repository: &Repository,
        scope: &Scope,
        deep: bool,
    ) -> Result<Report, Error> {
        let mut found = repository.verify(scope).await?;
        let mut report = Report {
            damage: std::mem::take(&mut found.damage),
            entries: found.entries,
            commits: found.commits,
            ..Report::default()
        };
        let mut seen: HashSet<(Hash, Hash)> = HashSet::new();
        for (node, rows) in std::mem::take(&mut found.arrays) {
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
            let statistics = if deep {
                self.stored_statistics(&node, &mut report).await?
            } else {
                None
            };
            // The same object may serve many commits; under one set of metadata it is read once.
            let fresh: Vec<ChunkRow> = rows
                .into_iter()
                .filter(|row| {
                    deep && statistics.is_some() || seen.insert((row.id, node.document_hash()))
                })
                .collect();
            let mut checks = futures::stream::iter(fresh)
                .map(|row| self.check_chunk(array.clone(), row, deep))
                .buffer_unordered(2 * self.pool.threads());
            while let Some((row, result)) = checks.next().await {
                report.chunks += 1;
                report.chunk_bytes += row.length;
                match result {
                    Err(Error::Storage(error @ storage::Error::Store { .. })) => {
                        return Err(error.into());
                    }
                    Err(Error::Storage(error)) => {
                        report
                            .damage
                            .push(Damage::new(&node.chunk_object(&row), &error));
                    }
                    Err(error) => {
                        let object = node.chunk_object(&row);
                        report.damage.push(Damage {
                            object,
                            reason: error.to_string(),
                        });
                    }
                    Ok(computed) => {
                        if let (Some(stored), Some(computed)) = (&statistics, computed)
                            // As bytes: the sum of values that hold a NaN is one.
                            && stored.get(&row.index).map(Statistics::to_bytes)
                                != Some(computed.to_bytes())
                        {
                            let object =
                                format!("statistics of {} chunk {}", node.path(), row.index);
                            let reason = "they are not those of the data".to_owned();
                            report.damage.push(Damage { object, reason });
                        }
                    }
                }
            }
        }
        report.objects = found.objects.len() as u64;
        if *scope == Scope::Everything {
            self.check_unreferenced(repository, &found.objects, &mut report)
                .await?;
        }
        report.damage.sort();
        report.damage.dedup();
        Ok(report)
    }

    async fn stored_statistics(
        &self,
        node: &ArrayNode,
        report: &mut Report,
    ) -> Result<Option<BTreeMap<ChunkIndex, Statistics>>, Error> {
        let grid = Region::whole(&node.metadata().grid().grid_shape());
        match node.statistics(&grid).await {
            Ok(rows) => Ok(rows.map(|rows| rows.into_iter().collect())),
            Err(error @ storage::Error::Store { .. }) => Err(error.into()),
            Err(error) => {
                report
                    .damage
                    .push(Damage::new(&node.path().to_string(), &error));
                Ok(None)
            }
        }
    }

    /// Reads one chunk past all caches and checks it; deep, gives the statistics of its cells.
    async fn check_chunk(
        &self,
        array: ArrayReader,
        row: ChunkRow,
        deep: bool,
    ) -> (ChunkRow, Result<Option<Statistics>, Error>) {
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
    let changed = |error: array::Error| array.corrupt(row, error);
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
