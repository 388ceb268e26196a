//! A repository: its caches, its commits, and how it is created, opened and deleted.
//!
//! What the log says is read in `head`, written in `append`; what a name means is decided in
//! `refs`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use array::hash::Kind;
use array::{ArrayMetadata, ChunkIndex, Statistics};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use serde_json::Value;
use uuid::Uuid;

use crate::commit::{Commit, format_time};
use crate::committer::Queue;
use crate::concurrent::CONCURRENT_REQUESTS;
use crate::flights::Kept;
use crate::head::{self, Log};
use crate::log::{self, Asked, LogEntry, Operation, Ref};
use crate::names::{RefName, RepoName};
use crate::object::{object_key, shard_key};
use crate::page::{ChunkRow, Location, ManifestRow, StatisticsRow};
use crate::radix::{Pages, page_cache};
use crate::snapshot::{DocumentCache, Snapshot, document_cache};
use crate::store::{Put, Store};
use crate::tree::Trees;
use crate::uploads::Uploads;
use crate::{CommitId, Error};

pub(crate) const REPO_KEY: &str = "repo.json";
/// How often a deletion looks for what came up meanwhile.
const DELETION_ROUNDS: u32 = 4;
/// Verified pages, trees and documents kept per repository: enough for the metadata of 10^6 chunks.
const METADATA_CACHE_BYTES: u64 = 64 << 20;

/// An open repository. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Repository(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    id: Uuid,
    created: DateTime<Utc>,
    log: Log,
    commits: Kept<CommitId, Arc<Commit>>,
    manifests: Pages<ManifestRow>,
    statistics: Pages<StatisticsRow>,
    trees: Trees,
    documents: DocumentCache,
    queue: Queue,
    summarize: OnceLock<Summarize>,
}

type SummarizeChunk =
    dyn Fn(&ArrayMetadata, &ChunkIndex, &Bytes) -> Option<Statistics> + Send + Sync;

/// Computes the statistics of the cells of a chunk inside its array from its verified bytes; `None`
/// if its data type has none or they do not decode.
#[derive(Clone)]
pub struct Summarize(Arc<SummarizeChunk>);

impl Summarize {
    /// By this function.
    pub fn new(
        summarize: impl Fn(&ArrayMetadata, &ChunkIndex, &Bytes) -> Option<Statistics>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(summarize))
    }
}

impl fmt::Debug for Summarize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Summarize")
    }
}

impl Repository {
    /// Creates a repository with branch `main` at an empty root group; or opens the one that an
    /// earlier request of the same key created.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is one; [`Error::KeyReused`] if another request had the key;
    /// [`Error::Store`] if the store failed. After a failure, creating again completes it.
    /// [`Error::Invalid`] if the store overwrites what it was to create only if absent.
    pub async fn create<'a>(store: Store, asked: impl Into<Asked<'a>>) -> Result<Self, Error> {
        let asked = asked.into();
        let id = Uuid::new_v4();
        let document = serde_json::json!({
            "created": format_time(Utc::now()),
            "format": "quarr",
            "hash": "blake3",
            "id": id.to_string(),
            "version": 1,
        });
        let (_, bytes) = log::with_self(Kind::Repo, document);
        let first = LogEntry::key(0);
        if store.get(REPO_KEY).await?.is_none() && store.get(&first).await?.is_some() {
            let reason = format!(
                "there is the log of a repository that was not deleted whole ({first}): delete everything there first"
            );
            return Err(Error::invalid("place of the repository", reason));
        }
        if store.put_if_absent(REPO_KEY, bytes.clone().into()).await? == Put::Created
            && store.put_if_absent(REPO_KEY, bytes.into()).await? == Put::Created
        {
            let reason = "it ignores the condition of a put-if-absent, so writers would overwrite each other";
            return Err(Error::invalid("store", reason));
        }
        let repository = Self::open(store).await?;
        let is_first = repository.write_first_entry(&asked).await?;
        if !is_first && repository.id() != id && !repository.was_created_by(&asked).await? {
            return Err(Error::AlreadyExists {
                what: "repository",
                name: repository.store().url().to_owned(),
            });
        }
        Ok(repository)
    }

    /// Creates branch `main` in an empty log; says whether the log was empty.
    async fn write_first_entry(&self, asked: &Asked<'_>) -> Result<bool, Error> {
        if self.head().await?.sequence.is_some() {
            return Ok(false);
        }
        let main = Ref::branch("main".parse::<RefName>()?);
        let first = Snapshot::first_commit(asked.actor, Uuid::new_v4().to_string());
        let uploads = Uploads::new(self.store());
        let id = self.upload_commit(first, &uploads).await?;
        uploads.finish().await?;
        let write_id = Uuid::new_v4().to_string();
        let create = Operation::UpdateRef {
            name: main,
            from: None,
            to: Some(id),
            write_id: write_id.clone(),
            idempotency: asked.idempotency.clone(),
        };
        let written = self
            .append(asked.actor, &write_id, move |state| {
                // Someone else completing the same repository is as good.
                let operations = state.sequence.is_none().then(|| vec![create.clone()]);
                Box::pin(async move { Ok(operations) })
            })
            .await?;
        Ok(written.is_some())
    }

    /// Whether it is there because of an earlier request of the same key.
    async fn was_created_by(&self, asked: &Asked<'_>) -> Result<bool, Error> {
        let Some(idempotency) = &asked.idempotency else {
            return Ok(false);
        };
        let main = "main".parse()?;
        let first = self.first_result(&main, idempotency).await?;
        Ok(first.is_some())
    }

    /// Opens the repository at the root of `store`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Corrupt`] if its `repo.json` is not one;
    /// [`Error::Invalid`] if it needs a newer version.
    pub async fn open(store: Store) -> Result<Self, Error> {
        let (bytes, hint) = futures::join!(store.get(REPO_KEY), head::read_hint(&store));
        let Some(bytes) = bytes? else {
            return Err(Error::NotFound {
                what: "repository",
                name: store.url().to_owned(),
                suggestions: Vec::new(),
            });
        };
        let corrupt = |reason: String| Error::corrupt(REPO_KEY, reason);
        let (hash, document) = log::check_self(Kind::Repo, &bytes).map_err(corrupt)?;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let is_known = text("format") == Some("quarr")
            && text("hash") == Some("blake3")
            && document.get("version") == Some(&serde_json::json!(1));
        if !is_known {
            let reason = "it is not of format quarr version 1: use a newer quarr";
            return Err(Error::invalid("repository", reason));
        }
        let id = text("id")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| corrupt("no id".into()))?;
        let created = text("created").unwrap_or_default();
        let created = crate::commit::parse_time(created).map_err(corrupt)?;
        Ok(Self(Arc::new(Inner {
            id,
            created,
            log: Log::new(hash, hint),
            commits: Kept::new(Cache::new(4096)),
            manifests: Pages {
                store: store.clone(),
                cache: page_cache(METADATA_CACHE_BYTES),
            },
            statistics: Pages {
                store: store.clone(),
                cache: page_cache(METADATA_CACHE_BYTES / 4),
            },
            trees: Trees::new(store.clone(), METADATA_CACHE_BYTES / 4),
            documents: document_cache(METADATA_CACHE_BYTES / 4),
            queue: Queue::default(),
            summarize: OnceLock::new(),
            store,
        })))
    }

    /// Whether this repository is still the one at its place in the store. Costs one request.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is something else than a repository; [`Error::Store`] if the
    /// store failed.
    pub async fn is_stored(&self) -> Result<bool, Error> {
        let Some(bytes) = self.store().get(REPO_KEY).await? else {
            return Ok(false);
        };
        let (hash, _) = log::check_self(Kind::Repo, &bytes)
            .map_err(|reason| Error::corrupt(REPO_KEY, reason))?;
        Ok(hash == self.log_cache().repository())
    }

    /// The repository's part of the object store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The repository's id.
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// When it was created.
    pub fn created(&self) -> DateTime<Utc> {
        self.0.created
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// What is known of its log.
    pub(crate) fn log_cache(&self) -> &Log {
        &self.0.log
    }

    pub(crate) fn manifests(&self) -> &Pages<ManifestRow> {
        &self.0.manifests
    }

    pub(crate) fn statistics(&self) -> &Pages<StatisticsRow> {
        &self.0.statistics
    }

    pub(crate) fn trees(&self) -> &Trees {
        &self.0.trees
    }

    pub(crate) fn documents(&self) -> &DocumentCache {
        &self.0.documents
    }

    /// The document of a commit that a ref or another commit names.
    ///
    /// # Errors
    /// [`Error::Missing`] if it is not there; [`Error::Expired`] if it may be gone;
    /// [`Error::Corrupt`] if its bytes are others.
    pub async fn commit(&self, id: CommitId) -> Result<Arc<Commit>, Error> {
        match self.known_or_stored(id).await? {
            Some(commit) => Ok(commit),
            // Perhaps it is gone because nothing needs it any more.
            None if Box::pin(self.is_over(id)).await? => Err(Error::Expired {
                commit: id.to_string(),
            }),
            None => Err(Error::Missing {
                key: object_key(&id.0),
            }),
        }
    }

    /// The bytes of a chunk, or of `range` of it. Not verified: that is the reader's.
    ///
    /// # Errors
    /// [`Error::Missing`] if the object is gone; [`Error::Corrupt`] if it is shorter than its row
    /// says; as [`Externals::get_range`](crate::Externals::get_range) if it lies outside the
    /// repository.
    pub(crate) async fn chunk_bytes(
        &self,
        row: &ChunkRow,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, Error> {
        match &row.location {
            Location::Inline(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Location::Stored => {
                let key = shard_key(&row.id);
                if range == (0..row.length) {
                    let bytes = self.store().get_existing(&key).await?;
                    if bytes.len() as u64 != row.length {
                        let reason =
                            format!("it has {} bytes instead of {}", bytes.len(), row.length);
                        return Err(Error::corrupt(key, reason));
                    }
                    return Ok(bytes);
                }
                self.store().get_range(&key, range).await
            }
            Location::External { url, offset, etag } => {
                let range = external_range(*offset, &range)
                    .ok_or_else(|| Error::corrupt(url, "a chunk past the end of any file"))?;
                self.store().externals().get_range(url, etag, range).await
            }
        }
    }

    /// A commit's document; `None` if it is not there.
    pub(crate) async fn known_or_stored(&self, id: CommitId) -> Result<Option<Arc<Commit>>, Error> {
        let key = object_key(&id.0);
        let read = async {
            let bytes = self.store().get_existing(&key).await?;
            let commit = Commit::decode(&id, &bytes);
            Ok(Arc::new(
                commit.map_err(|reason| Error::corrupt(&key, reason))?,
            ))
        };
        match self.0.commits.get_or(&id, read).await {
            Ok(commit) => Ok(Some(commit)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The parents of a commit that have not expired, as far as this process knows.
    pub(crate) async fn parents(&self, id: CommitId) -> Result<Vec<CommitId>, Error> {
        let commit = self.commit(id).await?;
        let log = self.log_cache();
        let parents = commit.parents.iter().copied();
        Ok(parents.filter(|parent| !log.has_expired(parent)).collect())
    }

    /// Starts uploading a commit that no ref names yet.
    pub(crate) async fn upload_commit(
        &self,
        commit: Commit,
        uploads: &Uploads,
    ) -> Result<CommitId, Error> {
        let (id, bytes) = commit.encode();
        self.0.commits.insert(id, Arc::new(commit));
        uploads.object(&id.0, bytes.into()).await?;
        Ok(id)
    }

    /// The statistics of a chunk with these bytes; `None` if nobody here can compute them.
    ///
    /// # Errors
    /// [`Error::Invalid`] if computing them was stopped.
    pub(crate) async fn summarize(
        &self,
        metadata: &Arc<ArrayMetadata>,
        index: &ChunkIndex,
        bytes: Bytes,
    ) -> Result<Option<Statistics>, Error> {
        let Some(summarize) = self.0.summarize.get().cloned() else {
            return Ok(None);
        };
        let (metadata, index) = (metadata.clone(), index.clone());
        tokio::task::spawn_blocking(move || (summarize.0)(&metadata, &index, &bytes))
            .await
            .map_err(|error| Error::invalid("statistics", error.to_string()))
    }

    /// Sets how the statistics of merged chunks are computed, which takes their codecs. Without it
    /// an array loses its statistics when two commits to one of its shards merge. The first call
    /// counts.
    pub fn set_summarize(&self, summarize: Summarize) {
        let _ = self.0.summarize.set(summarize);
    }

    /// The state of the hierarchy at a commit.
    ///
    /// # Errors
    /// As [`Repository::commit`].
    pub async fn snapshot(&self, id: CommitId) -> Result<Snapshot, Error> {
        Ok(Snapshot::new(self.clone(), id, self.commit(id).await?))
    }

    /// Deletes the repository: first the file that makes it one, then everything else.
    ///
    /// # Errors
    /// [`Error::Store`] if the store failed; deleting again goes on.
    pub async fn delete(self) -> Result<(), Error> {
        self.store().delete(vec![REPO_KEY.to_owned()]).await?;
        // A writer that has not noticed yet may still have added something.
        for _ in 0..DELETION_ROUNDS {
            let found = self.store().list("").await?;
            if found.is_empty() {
                break;
            }
            let keys = found.into_iter().map(|(key, _)| key).collect();
            self.store().delete(keys).await?;
        }
        Ok(())
    }
}

/// Where `range` of a chunk at `offset` of a file is.
fn external_range(offset: u64, range: &std::ops::Range<u64>) -> Option<std::ops::Range<u64>> {
    Some(offset.checked_add(range.start)?..offset.checked_add(range.end)?)
}

/// Names of the repositories directly under `store`.
///
/// # Errors
/// [`Error::Store`] if the store failed.
pub async fn list_repositories(store: &Store) -> Result<Vec<String>, Error> {
    let mut folders = store.folders().await?;
    folders.retain(|name| name.parse::<RepoName>().is_ok());
    let mut names: Vec<String> = futures::stream::iter(folders)
        .map(|name| async move {
            let found = store.under(&name).get(REPO_KEY).await?;
            Ok::<_, Error>(found.map(|_| name))
        })
        .buffered(CONCURRENT_REQUESTS)
        .try_filter_map(|name| async move { Ok(name) })
        .try_collect()
        .await?;
    names.sort();
    Ok(names)
}
