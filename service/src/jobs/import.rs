//! Imports as jobs.
//!
//! ```text
//! open the sources ─► shared transaction, noted ─► shards, staged as they come ─► noted ─► commit
//!        └ on the way again: the same sources?            └ those staged are left out      │
//!                                                          found in the log by its write id ┘
//! ```
//!
//! Everything an import has done is in its transaction, so any process can go on with it, and at any
//! point the end is the same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use array::NodePath;
use futures::future::BoxFuture;
use importers::{
    Access, ByReference, Codec, Copied, Import, ImportOptions, JoinOptions, Lengths, NewDim, Order,
    Progress, Sources, Staging, Stamp, Trial,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::{
    AllowList, ArrayNode, CommitId, CommitOptions, Externals, Isolation, Node, Ref, RefName,
    RepoName, Repository, SharedTransaction, TransactionState,
};
use uuid::Uuid;

use super::{JobReport, Kind, Origin, ProgressInfo, Work};
use crate::error::Failure;
use crate::state::State;
use crate::uploads::{self, Scratch, Upload, upload_id};

/// Memory for shards being written.
const MEMORY_MIB: u64 = 192;
/// Most sources of one import.
const MAX_SOURCES: usize = 100_000;

/// What to import, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportSpec {
    /// The source files.
    #[schema(min_items = 1)]
    pub sources: Vec<String>,
    /// The repository; made if there is none.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub repository: String,
    /// The group to import into, made if it is missing; the root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The branch to commit to; `main` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    pub branch: Option<String>,
    /// The commit's message; one that names the source if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// How the data will be read: `series`, `maps`, `both` or `ml`. Decides chunk shapes.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// Lengths of inner chunks by dimension name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chunks: BTreeMap<String, u64>,
    /// Lengths of shards by dimension name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<String, u64>,
    /// What compresses inner chunks: `auto`, `none`, `zstd:3`, `zstd+shuffle` and the like; `zstd:1`,
    /// or that of a Zarr source, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Report how codecs do on a sample of each variable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain_codec: bool,
    /// The dimension along which the sources follow each other, and what is in the group already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
    /// The new first dimension along which the sources are stacked: `member`, or with its coordinate
    /// `member=r1,r2`, `member=0..7`, or `member=@` for what differs in their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_dim: Option<String>,
    /// How the sources follow each other: as `given`, `sorted` by their coordinate, or `unchecked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Leave chunks where they are and refer to them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_reference: bool,
    /// Compute the statistics of chunks that are referred to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub statistics: bool,
    /// What to leave out: variables, or attributes as `variable@attribute`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skip: BTreeSet<String>,
    /// Memory for shards being written, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// What an import made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportReport {
    /// The commit.
    pub commit: String,
    /// Uncompressed bytes of all arrays.
    pub bytes: u64,
    /// Their bytes in the store.
    pub stored_bytes: u64,
    /// The arrays.
    pub arrays: Vec<ImportedArray>,
    /// How codecs did on samples of new arrays, by path, where that was looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trials: BTreeMap<String, Vec<TrialInfo>>,
    /// Of an import by reference, arrays whose values were copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<CopiedInfo>,
}

/// An array that was to refer to its source but was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CopiedInfo {
    /// Its path.
    pub array: String,
    /// Why.
    pub reason: String,
}

/// How a codec did on a sample of an array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TrialInfo {
    /// The codec.
    pub codec: String,
    /// How many times smaller the sample became.
    pub ratio: f64,
    /// How fast it was encoded here, in megabytes a second.
    pub encode_mb_s: f64,
    /// How fast it was decoded here, in megabytes a second.
    pub decode_mb_s: f64,
    /// Whether the array got this one.
    pub chosen: bool,
}

/// An array an import made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportedArray {
    /// Its path.
    pub path: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its dimensions.
    pub dimensions: Vec<Option<String>>,
    /// Type of its elements.
    pub data_type: String,
    /// Shape of its shards, which are its chunks where it has none.
    pub shard_shape: Vec<u64>,
    /// Shape of the chunks that are read one by one.
    pub chunk_shape: Vec<u64>,
    /// What encodes those chunks, as in `zarr.json`.
    #[schema(value_type = Vec<Object>)]
    pub codecs: Vec<Value>,
    /// Uncompressed bytes; 0 where elements have no size of their own.
    pub bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// From where an import goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    transaction: String,
    /// What the sources were.
    stamps: Vec<Stamp>,
    /// Paths of the arrays.
    arrays: Vec<String>,
    /// How codecs did on samples.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    trials: BTreeMap<String, Vec<TrialInfo>>,
    /// Arrays that were to refer to their source but are copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    copied: Vec<CopiedInfo>,
    /// What to commit with, once everything is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<NotedCommit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct NotedCommit {
    author: String,
    message: String,
    properties: Map<String, Value>,
}

impl From<CommitOptions> for NotedCommit {
    fn from(options: CommitOptions) -> Self {
        Self {
            author: options.author,
            message: options.message,
            properties: options.properties,
        }
    }
}

impl From<NotedCommit> for CommitOptions {
    fn from(noted: NotedCommit) -> Self {
        Self {
            author: noted.author,
            message: noted.message,
            properties: noted.properties,
            ..Self::default()
        }
    }
}

/// A parameter that is given as text.
fn parsed<T: FromStr<Err = String>>(
    parameter: &str,
    text: Option<&String>,
) -> Result<Option<T>, Failure> {
    let parsed = text.map(|text| text.parse()).transpose();
    parsed.map_err(|reason| Failure::bad_request(parameter, reason))
}

impl ImportSpec {
    /// What importers are to do; `sources` are where they find the sources.
    ///
    /// # Errors
    /// 400 if a name or an option makes no sense.
    pub(crate) fn options(&self, sources: Vec<String>) -> Result<ImportOptions, Failure> {
        if sources.is_empty() || sources.len() > MAX_SOURCES {
            let detail = format!("there are {} sources: give at least one", sources.len());
            return Err(Failure::bad_request("sources", detail));
        }
        let access = parsed::<Access>("for", self.access.as_ref())?;
        let lengths = |name: &str, lengths: &BTreeMap<String, u64>| match lengths
            .iter()
            .find(|(_, length)| **length == 0)
        {
            None => Ok(Lengths(lengths.clone())),
            Some((dimension, _)) => Err(Failure::bad_request(
                name,
                format!("{dimension}=0: the length must be a positive integer"),
            )),
        };
        let memory_mib = self.memory_mib.unwrap_or(MEMORY_MIB);
        Ok(ImportOptions {
            sources,
            group: self.group()?,
            branch: self.branch()?,
            author: self.author.clone().unwrap_or_else(|| "quarr".into()),
            message: self.message.clone().unwrap_or_default(),
            access: access.unwrap_or_default(),
            inner_lengths: lengths("chunks", &self.chunks)?,
            shard_lengths: lengths("shards", &self.shards)?,
            join: JoinOptions {
                append: self.append.clone(),
                new_dim: parsed::<NewDim>("new_dim", self.new_dim.as_ref())?,
                order: parsed::<Order>("order", self.order.as_ref())?.unwrap_or_default(),
            },
            codec: parsed::<Codec>("codec", self.codec.as_ref())?,
            explain_codec: self.explain_codec,
            by_reference: self.by_reference.then_some(ByReference {
                statistics: self.statistics,
            }),
            skip: self.skip.clone(),
            memory_bytes: memory_mib.clamp(1, 1 << 20) << 20,
        })
    }

    fn group(&self) -> Result<NodePath, Failure> {
        match self.group.as_deref().map(|group| group.trim_matches('/')) {
            None | Some("") => Ok(NodePath::root()),
            Some(group) => Ok(group.parse()?),
        }
    }

    fn branch(&self) -> Result<RefName, Failure> {
        Ok(self.branch.as_deref().unwrap_or("main").parse()?)
    }

    fn name(&self) -> Result<RepoName, Failure> {
        Ok(self.repository.parse()?)
    }

    /// The repository, if there is one.
    async fn existing(&self, state: &State) -> Result<Option<Repository>, Failure> {
        match state.repository(&self.name()?).await {
            // One without a log was left before its first commit: making it goes on with that.
            Ok(found) => Ok(found.head().await?.sequence.map(|_| found)),
            Err(failure) if failure.problem().status == 404 => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn make_repository(&self, state: &State) -> Result<Repository, Failure> {
        let name = self.name()?;
        let author = self.author.as_deref().unwrap_or("quarr");
        match Repository::create(state.store().under(name.as_str()), author).await {
            // Somebody else made it meanwhile.
            Ok(_) | Err(storage::Error::AlreadyExists { .. }) => state.repository(&name).await,
            Err(error) => Err(error.into()),
        }
    }
}

/// Where the sources of an import are, for as long as it takes.
struct Located {
    sources: Vec<String>,
    /// What may be read for it.
    files: Externals,
    /// Uploads, by the local files they were written to.
    uploads: BTreeMap<String, Upload>,
    _scratch: Vec<Scratch>,
}

/// What a job may read outside the store: what its caller may, or what the service was told.
fn readable(state: &State, origin: Origin) -> AllowList {
    match origin {
        Origin::Command => AllowList::everything(),
        Origin::Service => state.store().externals().allowed().clone(),
    }
}

/// Fails unless `source` may be read.
async fn check_allowed(source: &str, allowed: &AllowList) -> Result<(), Failure> {
    let refused = |reason: String| {
        Failure::forbidden(format!(
            "{reason}: send the file with POST /v1/uploads, \
             or have it served with --import-allow PREFIX"
        ))
        .about("sources")
    };
    if !allowed.is_everything() && !source.contains("://") && !source.starts_with('/') {
        return Err(refused(format!(
            "{source:?} is no absolute path and no URL"
        )));
    }
    // Resolving links takes system calls.
    let (allowed, wanted) = (allowed.clone(), source.to_owned());
    let checked = tokio::task::spawn_blocking(move || allowed.check_url(&wanted)).await;
    match checked.map_err(|error| Failure::broken(error.to_string()))? {
        Err(error @ storage::Error::Forbidden { .. }) => Err(refused(error.to_string())),
        Err(error) => Err(Failure::bad_request("sources", error.to_string())),
        Ok(()) => Ok(()),
    }
}

impl Located {
    /// Finds the sources. A service reads no more than it may.
    async fn of(spec: &ImportSpec, work: &Work) -> Result<Self, Failure> {
        let state = work.state();
        let mut allowed = readable(state, work.origin());
        let mut located = Self {
            sources: Vec::with_capacity(spec.sources.len()),
            files: Externals::default(),
            uploads: BTreeMap::new(),
            _scratch: Vec::new(),
        };
        for source in &spec.sources {
            let Some(id) = upload_id(source)? else {
                check_allowed(source, &allowed).await?;
                located.sources.push(source.clone());
                continue;
            };
            let (upload, scratch) = uploads::fetch(state, id).await?;
            let path = scratch.path.canonicalize();
            let path = path.map_err(|error| Failure::broken(error.to_string()))?;
            allowed = allowed.with_path(&path);
            let path = path.to_string_lossy().into_owned();
            located.uploads.insert(path.clone(), upload);
            located._scratch.push(scratch);
            located.sources.push(path);
        }
        located.files = Externals::new(allowed);
        Ok(located)
    }

    /// What the sources are. An upload is the same wherever it is written to.
    fn stamps(&self, sources: &Sources) -> Vec<Stamp> {
        let stamp = |stamp: &Stamp| match self.uploads.get(&stamp.source) {
            None => stamp.clone(),
            Some(upload) => Stamp {
                source: upload.source.clone(),
                length: stamp.length,
                modified_ns: None,
                etag: Some(upload.sha256.clone()),
            },
        };
        sources.stamps().iter().map(stamp).collect()
    }
}

impl Kind for ImportSpec {
    fn check<'a>(&'a self, state: &'a State, origin: Origin) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let options = self.options(self.sources.clone())?;
            let allowed = readable(state, origin);
            for source in &self.sources {
                match upload_id(source)? {
                    Some(id) => drop(uploads::find(state, id).await?),
                    None => check_allowed(source, &allowed).await?,
                }
            }
            if self.by_reference && !self.uploads().is_empty() {
                let detail = "an upload is gone when it was imported: it cannot be referred to";
                return Err(Failure::bad_request("by_reference", detail));
            }
            let is_local = |source: &String| !source.contains("://");
            let is_here = self.uploads().is_empty() && self.sources.iter().all(is_local);
            if origin == Origin::Command && is_here {
                // A command says at once what is wrong with its files, and leaves nothing behind.
                importers::check(&options, &Externals::new(allowed)).await?;
            }
            if let Some(repository) = self.existing(state).await? {
                let (refs, branch) = (repository.head().await?.refs, options.branch);
                if !refs.contains_key(&Ref::branch(branch.clone())) {
                    let known = refs.keys().map(|name| name.name.as_str());
                    let missing = storage::Error::not_found("branch", branch.as_str(), known);
                    return Err(missing.into());
                }
            }
            Ok(())
        })
    }

    fn run<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<JobReport, Failure>> {
        Box::pin(async move { Ok(JobReport::Import(run(self, work).await?)) })
    }

    fn give_up<'a>(
        &'a self,
        state: &'a State,
        noted: &'a Value,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async move {
            let Ok(noted) = serde_json::from_value::<Noted>(noted.clone()) else {
                return Ok(true);
            };
            let Some(repository) = self.existing(state).await? else {
                return Ok(true);
            };
            let id = noted.transaction.parse()?;
            let shared = match repository.shared_transaction(id).await {
                Err(storage::Error::NotFound { .. }) => return Ok(true),
                other => other?,
            };
            if shared.state().await? == TransactionState::Open {
                match shared.abort().await {
                    Ok(()) => return Ok(true),
                    Err(storage::Error::Closed { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(shared.state().await? == TransactionState::Aborted)
        })
    }

    fn uploads(&self) -> Vec<Uuid> {
        let ids = self.sources.iter().map(|source| upload_id(source));
        ids.filter_map(|id| id.ok().flatten()).collect()
    }
}

async fn run(spec: &ImportSpec, work: &Work) -> Result<ImportReport, Failure> {
    let state = work.state();
    let begun = match work.noted::<Noted>() {
        Some(noted) => {
            let repository = state.repository(&spec.name()?).await?;
            let shared = repository
                .shared_transaction(noted.transaction.parse()?)
                .await?;
            match (shared.state().await?, &noted.commit) {
                (TransactionState::Committed(commit), _) => {
                    return report(&repository, commit, &noted).await;
                }
                (TransactionState::Closing, Some(options)) => {
                    let commit = shared.commit(options.clone().into()).await?;
                    return report(&repository, commit, &noted).await;
                }
                (TransactionState::Closing, None) | (TransactionState::Aborted, _) => {
                    return Err(Failure::conflict(
                        "the transaction of the import was closed by somebody else, \
                         or by garbage collection after a week without progress",
                    ));
                }
                (TransactionState::Open, _) => {}
            }
            Some((noted, repository, shared))
        }
        None => None,
    };
    let located = Located::of(spec, work).await?;
    let options = spec.options(located.sources.clone())?;
    let fetched = |bytes, total_bytes| {
        work.show(ProgressInfo {
            bytes,
            total_bytes,
            current: Some("fetching".to_owned()),
            ..ProgressInfo::default()
        });
    };
    let sources = Sources::find(&options, &located.files, &fetched).await?;
    let stamps = located.stamps(&sources);
    let (import, mut noted, repository, shared) = match begun {
        Some((noted, repository, shared)) => {
            importers::check_same(&noted.stamps, &stamps)?;
            let base = shared.transaction().base();
            let import = Import::plan(sources, &options, Some(base)).await?;
            import.check_staged(shared.transaction()).await?;
            (import, noted, repository, shared)
        }
        None => begin(spec, work, sources, &options, stamps).await?,
    };
    for dropped in import.dropped() {
        work.warn(format!(
            "{} {} = {} is left out: {} (kept in the commit's properties)",
            dropped.variable, dropped.attribute, dropped.value, dropped.reason
        ));
    }
    for copied in import.copied() {
        work.warn(format!("{} was copied: {}", copied.array, copied.reason));
    }
    let shared = Arc::new(shared);
    let name = located
        .sources
        .first()
        .and_then(|source| source.rsplit('/').next());
    let name = name.unwrap_or_default();
    let show = |progress: &Progress| work.show(progress_info(progress, name));
    import.fill(&Staging::Shared(shared.clone()), &show).await?;
    for warning in import.warnings() {
        work.warn(warning);
    }
    let options = import.commit_options();
    noted.commit = Some(options.clone().into());
    work.note(&noted);
    work.save().await?;
    let shared = Arc::into_inner(shared);
    let shared = shared.ok_or_else(|| Failure::broken("an import is still being written"))?;
    let commit = shared.commit(options).await?;
    report(&repository, commit, &noted).await
}

/// Plans an import, opens its transaction and stages what does not depend on values. Only then it is
/// noted, so that whoever goes on with it finds the arrays in it.
async fn begin(
    spec: &ImportSpec,
    work: &Work,
    sources: Sources,
    options: &ImportOptions,
    stamps: Vec<Stamp>,
) -> Result<(Import, Noted, Repository, SharedTransaction), Failure> {
    let open = async |repository: &Repository| {
        let (branch, author) = (&options.branch, &options.author);
        repository
            .open_transaction(branch, Isolation::Snapshot, author.as_str())
            .await
    };
    let (import, repository, shared) = match spec.existing(work.state()).await? {
        Some(repository) => {
            // It says what the plan starts from.
            let shared = open(&repository).await?;
            let base = shared.transaction().base();
            match Import::plan(sources, options, Some(base)).await {
                Ok(import) => (import, repository, shared),
                Err(error) => {
                    let _ = shared.abort().await;
                    return Err(error.into());
                }
            }
        }
        None => {
            // None is made for sources that are no good.
            let import = Import::plan(sources, options, None).await?;
            let repository = spec.make_repository(work.state()).await?;
            let shared = open(&repository).await?;
            (import, repository, shared)
        }
    };
    let noted = Noted {
        transaction: shared.id().to_string(),
        stamps,
        arrays: import
            .arrays()
            .map(|path| path.as_str().to_owned())
            .collect(),
        trials: trials(import.trials()),
        copied: import.copied().iter().map(copied_info).collect(),
        commit: None,
    };
    let staged = async {
        import.stage(shared.transaction()).await?;
        shared.flush().await?;
        Ok::<_, Failure>(())
    };
    if let Err(failure) = staged.await {
        let _ = shared.abort().await;
        return Err(failure);
    }
    work.note(&noted);
    if let Err(failure) = work.save().await {
        let _ = shared.abort().await;
        return Err(failure);
    }
    Ok((import, noted, repository, shared))
}

fn copied_info(copied: &Copied) -> CopiedInfo {
    CopiedInfo {
        array: copied.array.to_string(),
        reason: copied.reason.clone(),
    }
}

/// How codecs did on samples, by array.
fn trials(found: &[(NodePath, Vec<Trial>)]) -> BTreeMap<String, Vec<TrialInfo>> {
    let array = |(path, trials): &(NodePath, Vec<Trial>)| (path.to_string(), trial_infos(trials));
    found.iter().map(array).collect()
}

/// How codecs did on a sample, as it is shown.
pub fn trial_infos(trials: &[Trial]) -> Vec<TrialInfo> {
    let rate = |trial: &Trial, seconds: f64| trial.bytes as f64 / 1e6 / seconds.max(1e-9);
    let one = |trial: &Trial| TrialInfo {
        codec: trial.codec.to_string(),
        ratio: trial.ratio(),
        encode_mb_s: rate(trial, trial.encode_seconds),
        decode_mb_s: rate(trial, trial.decode_seconds),
        chosen: trial.chosen,
    };
    trials.iter().map(one).collect()
}

fn progress_info(progress: &Progress, source: &str) -> ProgressInfo {
    ProgressInfo {
        bytes: progress.bytes,
        total_bytes: progress.total_bytes,
        chunks: progress.shards,
        total_chunks: Some(progress.total_shards),
        current: Some(format!("{source} {}", progress.variable)),
        ..ProgressInfo::default()
    }
}

/// What the arrays are in a commit.
async fn report(
    repository: &Repository,
    commit: CommitId,
    noted: &Noted,
) -> Result<ImportReport, Failure> {
    let snapshot = repository.snapshot(commit).await?;
    let mut arrays = Vec::with_capacity(noted.arrays.len());
    for path in &noted.arrays {
        let node = snapshot.node(&path.parse()?).await?;
        if let Node::Array(array) = &node {
            arrays.push(imported_array(array, node.row().stored_bytes)?);
        }
    }
    let sum =
        |size: fn(&ImportedArray) -> u64| arrays.iter().map(size).fold(0, u64::saturating_add);
    Ok(ImportReport {
        commit: commit.to_string(),
        bytes: sum(|array| array.bytes),
        stored_bytes: sum(|array| array.stored_bytes),
        arrays,
        trials: noted.trials.clone(),
        copied: noted.copied.clone(),
    })
}

fn imported_array(array: &ArrayNode, stored_bytes: u64) -> Result<ImportedArray, Failure> {
    let metadata = array.metadata();
    let codec = codecs::ArrayCodec::new(metadata).map_err(importers::Error::from)?;
    let element = metadata.data_type.size_bytes().unwrap_or(0) as u64;
    let multiply = |bytes: u64, &length: &u64| bytes.saturating_mul(length);
    let document = metadata.to_json();
    let codecs = &document["codecs"];
    let inner = &codecs[0]["configuration"]["codecs"];
    let shown = if inner.is_array() { inner } else { codecs };
    Ok(ImportedArray {
        path: array.path().to_string(),
        shape: metadata.shape().to_vec(),
        dimensions: match metadata.dimension_names() {
            Some(names) => names.to_vec(),
            None => vec![None; metadata.shape().len()],
        },
        data_type: metadata.data_type.to_string(),
        shard_shape: codec.chunk_shape().to_vec(),
        chunk_shape: codec.inner_shape().to_vec(),
        codecs: shown.as_array().cloned().unwrap_or_default(),
        bytes: metadata.shape().iter().fold(element, multiply),
        stored_bytes,
    })
}
