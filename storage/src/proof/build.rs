//! Making a proof.

use array::hash::{self, Hash, Kind};
use array::shard::{ShardFooter, footer_range, verify_plain};
use array::{ChunkIndex, ChunkKind, NodePath, Region, Sharding, json};
use futures::future::BoxFuture;
use serde_json::Value;

use super::check::{check_inside, check_size, inner_chunks_meeting, targets};
use super::leaves::Leaves;
use super::{
    ArrayDocument, Base64, ChunkDocument, ChunksDocument, Content, Document, Proof,
    PublishedDocument, statistics,
};
use crate::layout::{LEVEL_BITS, Layout};
use crate::log::{self, LogEntry, Operation};
use crate::page::{ChunkRow, ManifestRow, Page, PageRow as _};
use crate::repository::Repository;
use crate::snapshot::{ArrayNode, Snapshot};
use crate::{CommitId, Error};

/// Where the log has a commit.
struct Logged {
    entry: LogEntry,
    refs: Leaves<Base64>,
    commits: Vec<Value>,
}

impl Snapshot {
    /// The proof that the array at `path` holds what it holds in `region`, from the encoded inner
    /// chunks to a log entry, and on to the signed checkpoint if the entry is published.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a region outside the array or of too many inner chunks;
    /// [`Error::NotFound`] if there is no such array; else as reading it.
    pub async fn prove(&self, path: &NodePath, region: &Region) -> Result<Proof, Error> {
        let array = self.array(path).await?;
        let invalid = |reason| Error::invalid("region", reason);
        check_inside(array.metadata(), region).map_err(invalid)?;
        check_size(array.metadata(), region).map_err(invalid)?;
        let mut prover = Prover {
            array: &array,
            region,
            sharding: Sharding::of(array.metadata())?,
            manifest: Vec::new(),
            chunks: Vec::new(),
        };
        prover.prove().await?;
        let content = Content::Chunks(ChunksDocument {
            manifest: prover.manifest,
            chunks: prover.chunks,
        });
        self.proof_of(&array, region, content).await
    }

    /// The proof of the statistics of the array at `path` in `region`, from which `reduce` is to be
    /// computed, as the writer of the data claimed them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a region outside the array or with parts of chunks, or an array
    /// without statistics; else as [`Snapshot::prove`].
    pub async fn prove_statistics(
        &self,
        path: &NodePath,
        region: &Region,
        reduce: &str,
    ) -> Result<Proof, Error> {
        let array = self.array(path).await?;
        let content = statistics::prove(&array, region, reduce).await?;
        let content = Content::Statistics(content);
        self.proof_of(&array, region, content).await
    }

    /// What leads from the log to an array, and `content` of it.
    async fn proof_of(
        &self,
        array: &ArrayNode,
        region: &Region,
        content: Content,
    ) -> Result<Proof, Error> {
        let repository = self.repository();
        let logged = repository.logged(self.id()).await?;
        let mut trees = Vec::new();
        let mut above = self.commit().root.content;
        for name in array.path().names() {
            let (pages, row) = repository.trees().pages_to(above, name).await?;
            trees.push(
                pages
                    .into_iter()
                    .map(|(rows, at)| show(Kind::TreeRow, &rows, [at]))
                    .collect(),
            );
            above = row.content;
        }
        let numbers = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect();
        let receipt = repository.receipt(logged.entry.sequence).await?;
        let published = receipt.map(|receipt| PublishedDocument {
            repository: repository.id().to_string(),
            receipt: receipt.to_string(),
        });
        let is_published = published.is_some();
        let document = Document {
            array: ArrayDocument {
                path: array.path().as_str().to_owned(),
                start: numbers(region.start()),
                shape: numbers(region.shape()),
                entry: parse(&logged.entry.encode().1)?,
                published,
                refs: logged.refs,
                commits: logged.commits,
                trees,
                metadata: parse(array.document())?,
            },
            content,
        };
        let value = document
            .to_value()
            .map_err(|error| Error::invalid("proof", error.to_string()))?;
        let (_, bytes) = log::with_self(Kind::Proof, value);
        if bytes.len() > log::MAX_BYTES {
            let reason = format!(
                "the proof of {region} has {} bytes, more than the {} a proof may have: ask for a smaller one",
                bytes.len(),
                log::MAX_BYTES
            );
            return Err(Error::invalid("region", reason));
        }
        Ok(Proof {
            bytes,
            is_published,
        })
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    Ok(json::parse("document", bytes)?)
}

/// Shows the rows at these places of a page, or of the state of the log.
pub(super) fn show(
    kind: Kind,
    rows: &[Vec<u8>],
    places: impl IntoIterator<Item = usize>,
) -> Leaves<Base64> {
    let hashes: Vec<Hash> = rows.iter().map(|row| hash::hash(kind, row)).collect();
    let shown = places
        .into_iter()
        .map(|at| (at as u64, Base64(rows[at].clone().into())));
    Leaves::of(&hashes, shown.collect())
}

impl Repository {
    /// An entry after which a ref is at `commit` or at one that follows it in the same entry;
    /// preferably one that is published.
    async fn logged(&self, commit: CommitId) -> Result<Logged, Error> {
        let newest = self.head().await?;
        let published = self.published().await?;
        let last = published.and_then(|published| published.head.size.checked_sub(1));
        for sequence in last.into_iter().chain(newest.sequence) {
            if Some(sequence) > newest.sequence {
                continue;
            }
            let state = self.state_after(sequence).await?;
            if state.refs.values().any(|head| *head == commit) {
                let entry = self.entry_that_exists(sequence).await?;
                return self.logged_in(commit, &entry.1).await;
            }
        }
        let sequence = self.entry_of_commit(commit).await?;
        let entry = self.entry_that_exists(sequence).await?;
        self.logged_in(commit, &entry.1).await
    }

    /// The number of the first log entry that put a ref at `commit`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if none did; as [`Repository::head`].
    pub async fn entry_of_commit(&self, commit: CommitId) -> Result<u64, Error> {
        // An entry is later than its commits.
        let time = self.commit(commit).await?.time;
        let first = self.first_entry_after(time).await?;
        for sequence in first..self.head().await?.next_sequence() {
            let entry = self.entry_that_exists(sequence).await?;
            let moves_there = |operation: &Operation| matches!(operation, Operation::UpdateRef { to, .. } if *to == Some(commit));
            if entry.1.operations.iter().any(moves_there) {
                return Ok(sequence);
            }
        }
        let id = commit.to_string();
        Err(Error::not_found("log entry of commit", &id, []))
    }

    /// What shows `commit` in the state after `entry`.
    async fn logged_in(&self, commit: CommitId, entry: &LogEntry) -> Result<Logged, Error> {
        let state = self.state_after(entry.sequence).await?;
        let rows = log::ref_rows(&state.refs);
        let mut heads: Vec<(usize, CommitId)> = rows
            .iter()
            .enumerate()
            .map(|(at, (head, _))| (at, *head))
            .collect();
        // One that is there itself needs no other commits.
        heads.sort_by_key(|(_, head)| *head != commit);
        for (at, head) in heads {
            let Some(chain) = self.chain(head, commit, entry.operations.len()).await? else {
                continue;
            };
            let mut commits = Vec::with_capacity(chain.len());
            for id in chain {
                commits.push(parse(&self.commit(id).await?.encode().1)?);
            }
            let rows: Vec<Vec<u8>> = rows.into_iter().map(|(_, row)| row).collect();
            return Ok(Logged {
                entry: entry.clone(),
                refs: show(Kind::RefRow, &rows, [at]),
                commits,
            });
        }
        Err(Error::not_found(
            "ref that was at commit",
            &commit.to_string(),
            [],
        ))
    }

    /// The commits from `head` back to `commit` by first parents, if it is at most `longest` away.
    async fn chain(
        &self,
        head: CommitId,
        commit: CommitId,
        longest: usize,
    ) -> Result<Option<Vec<CommitId>>, Error> {
        let mut chain = vec![head];
        let mut at = head;
        while at != commit {
            let parent = self.commit(at).await?.parents.first().copied();
            match parent {
                Some(parent) if chain.len() <= longest => {
                    chain.push(parent);
                    at = parent;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(chain))
    }
}

struct Prover<'a> {
    array: &'a ArrayNode,
    region: &'a Region,
    sharding: Option<Sharding>,
    manifest: Vec<Leaves<Base64>>,
    chunks: Vec<ChunkDocument>,
}

impl Prover<'_> {
    async fn prove(&mut self) -> Result<(), Error> {
        let root = self.array.manifest_root();
        if root == hash::empty() {
            return Ok(());
        }
        let layout = self.array.layout().clone();
        let targets = targets(&layout, self.array.metadata(), self.region);
        let pages = self.array.repository().manifests();
        let page = pages.load_root(root, &layout).await?;
        self.page(&layout, &page, layout.height() - 1, &targets)
            .await
    }

    /// Shows the rows of a page on the way to `targets`, and what is below them.
    fn page<'a>(
        &'a mut self,
        layout: &'a Layout,
        page: &'a Page<ManifestRow>,
        level: u32,
        targets: &'a [u128],
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let free = LEVEL_BITS * level;
            let mut shown = std::collections::BTreeSet::new();
            let mut below: Vec<(&ManifestRow, &[u128])> = Vec::new();
            for group in targets.chunk_by(|a, b| a >> free == b >> free) {
                let wanted = group[0] >> free << free;
                match page.addresses.binary_search(&wanted) {
                    Ok(at) => {
                        shown.insert(at);
                        below.push((&page.rows[at], group));
                    }
                    Err(at) => {
                        shown.extend(at.checked_sub(1));
                        shown.extend((at < page.rows.len()).then_some(at));
                    }
                }
            }
            let rows = page.rows.iter().map(|row| row.encoded(level));
            let rows: Vec<Vec<u8>> = rows.collect();
            let shown = show(Kind::Row, &rows, shown);
            self.manifest.push(shown);
            for (row, group) in below {
                match row {
                    ManifestRow::Inner { .. } => {
                        let pages = self.array.repository().manifests();
                        let child = pages.load_child(row, layout, level).await?;
                        self.page(layout, &child, level - 1, group).await?;
                    }
                    ManifestRow::Chunk(row) => {
                        let chunk = self.chunk(row).await?;
                        self.chunks.push(chunk);
                    }
                }
            }
            Ok(())
        })
    }

    async fn chunk(&self, row: &ChunkRow) -> Result<ChunkDocument, Error> {
        let repository = self.array.repository();
        let corrupt =
            |error: array::Error| Error::corrupt(self.array.chunk_object(row), error.to_string());
        let sharding = match (&self.sharding, row.kind) {
            (Some(sharding), ChunkKind::Shard) => sharding,
            (None, ChunkKind::Plain) => {
                let bytes = repository.chunk_bytes(row, 0..row.length).await?;
                verify_plain(&bytes, &row.id).map_err(corrupt)?;
                return Ok(ChunkDocument::Plain(Base64(bytes)));
            }
            _ => {
                let reason = "a chunk that is not of the kind its array has";
                return Err(Error::corrupt(self.array.chunk_object(row), reason));
            }
        };
        let count = sharding.inner_chunks();
        let range = footer_range(row.length, count).map_err(corrupt)?;
        let footer = repository.chunk_bytes(row, range).await?;
        let footer = ShardFooter::parse(&footer, &row.id, row.length, count).map_err(corrupt)?;
        let hashes: Vec<Hash> = footer
            .entries()
            .iter()
            .map(|entry| entry.as_ref().map_or(Hash::ZERO, |entry| entry.hash))
            .collect();
        let index = ChunkIndex::new(row.index.as_slice().to_vec());
        let wanted = inner_chunks_meeting(sharding, self.array.metadata(), &index, self.region);
        let mut leaves = Vec::with_capacity(wanted.len());
        for inner in wanted {
            let bytes = match &footer.entries()[inner as usize] {
                None => None,
                Some(entry) => {
                    let bytes = repository.chunk_bytes(row, entry.range()).await?;
                    entry.verify(&bytes).map_err(corrupt)?;
                    Some(Base64(bytes))
                }
            };
            leaves.push((u64::from(inner), bytes));
        }
        Ok(ChunkDocument::Shard(Leaves::of(&hashes, leaves)))
    }
}
