//! Imports: source files become one commit.
//!
//! ```text
//! find ─► open, join ─► stage groups and arrays ─► every shard read, encoded, stored ─► commit
//!                                                └► or its place and hash noted
//! ```
//!
//! [`import()`] does all of it in one go. Whoever may be interrupted takes the steps of an [`Import`]
//! in a shared transaction, and goes on with one that has been staged.
//!
//! Nothing is visible before the commit, so a failed import leaves the log as it was. Nothing of
//! the file is lost silently: what has no place in Zarr fails the import unless the user names it
//! to be skipped.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use array::{DataType, NodePath};
use serde_json::{Map, Value, json};
use storage::{CommitId, CommitOptions, Externals, RefName, Repository, Snapshot, Transaction};

use crate::Error;
use crate::blocking::blocking;
use crate::chunking::{Access, Lengths};
use crate::compression::{Codec, Trial};
use crate::fill_arrays::{Progress, Staging, fill_arrays};
use crate::joined::JoinOptions;
use crate::origin::{self, Origins, Stamp};
use crate::plan::Plan;
use crate::reference::{Copied, Original, refer};
use crate::zarr::Dropped;

/// Names of files that a commit lists; the others are counted.
const MAX_LISTED_FILES: usize = 256;

/// What to import, where to, and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Paths, URLs and patterns of the sources, in order.
    pub sources: Vec<String>,
    /// How several are joined, and whether arrays that exist are appended to.
    pub join: JoinOptions,
    /// The group to import into; created if it is missing.
    pub group: NodePath,
    /// The branch to commit to.
    pub branch: RefName,
    /// Who commits.
    pub author: String,
    /// The commit's message; one that names the file if empty.
    pub message: String,
    /// How the arrays will be read.
    pub access: Access,
    /// Lengths of inner chunks by dimension name.
    pub inner_lengths: Lengths,
    /// Lengths of shards by dimension name.
    pub shard_lengths: Lengths,
    /// What compresses inner chunks of new arrays; the default codec, or that of a Zarr source, if
    /// `None`.
    pub codec: Option<Codec>,
    /// Whether to tell how codecs do on a sample of each variable, also where none is chosen by it.
    pub explain_codec: bool,
    /// What to leave out: variables by path or name, attributes by `path@name`.
    pub skip: BTreeSet<String>,
    /// Bytes of shards in memory at once.
    pub memory_bytes: u64,
    /// Refers to chunks where they are instead of copying them.
    pub by_reference: Option<ByReference>,
}

impl ImportOptions {
    /// All of the sources into the root of a branch, copied, as `quarr` with 192 MiB.
    pub fn new(sources: Vec<String>, branch: RefName) -> Self {
        Self {
            sources,
            join: JoinOptions::default(),
            group: NodePath::root(),
            branch,
            author: "quarr".into(),
            message: String::new(),
            access: Access::default(),
            inner_lengths: Lengths::default(),
            shard_lengths: Lengths::default(),
            codec: None,
            explain_codec: false,
            skip: BTreeSet::new(),
            memory_bytes: 192 << 20,
            by_reference: None,
        }
    }
}

/// How chunks are referred to.
#[derive(Clone, Debug, Default)]
pub struct ByReference {
    /// Computes the statistics of chunks, which takes decoding them.
    pub statistics: bool,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The commit.
    pub commit: CommitId,
    /// Paths of the arrays.
    pub arrays: Vec<NodePath>,
    /// Uncompressed bytes read.
    pub bytes: u64,
    /// Attributes that were left out.
    pub dropped: Vec<Dropped>,
    /// Of an import by reference, arrays whose values were copied.
    pub copied: Vec<Copied>,
    /// What else was left out, one sentence each.
    pub warnings: Vec<String>,
    /// How codecs did on samples of new arrays, where that was looked at.
    pub trials: Vec<(NodePath, Vec<Trial>)>,
}

/// An array as an import would leave it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its path.
    pub path: NodePath,
    /// Type of its elements.
    pub data_type: DataType,
    /// Its shape, after the import.
    pub shape: Vec<u64>,
    /// Shape of inner chunks.
    pub inner: Vec<u64>,
    /// Shape of shards.
    pub shard: Vec<u64>,
    /// Stored objects that are written, those that are all fill value included.
    pub objects: u64,
    /// Dimension and length before, of an array that is appended to.
    pub appended: Option<(usize, u64)>,
    /// What compresses inner chunks; `None` for an array that exists or is taken over from Zarr, which
    /// keeps its own.
    pub codec: Option<String>,
    /// Uncompressed bytes that are written.
    pub bytes: u64,
    /// What they are compressed to, by a sample; `None` if nothing was sampled.
    pub estimated_bytes: Option<u64>,
    /// How codecs did on a sample.
    pub trials: Vec<Trial>,
}

/// Checks whatever can be checked without a repository: that the files can be read and joined, that
/// the options fit them, and that everything in them has a place.
///
/// # Errors
/// Those of [`import()`] that do not come from the repository or from values.
pub async fn check(options: &ImportOptions, files: &Externals) -> Result<(), Error> {
    // Which codec is best is for the import to find out.
    let options = ImportOptions {
        codec: None,
        explain_codec: false,
        ..options.clone()
    };
    let sources = Sources::find(&options, files, &|_, _| {}).await?;
    blocking(move || Plan::new(sources.origins, &options, None).map(drop)).await
}

/// What an import would make; nothing is written. Without a repository, what it would make in an
/// empty one.
///
/// # Errors
/// Those of [`import()`] that do not come from values or from the commit.
pub async fn dry_run(
    repository: Option<&Repository>,
    options: &ImportOptions,
    files: &Externals,
) -> Result<Vec<Planned>, Error> {
    let mut wanted = options.clone();
    // The sample says how large the arrays will be.
    wanted.explain_codec = true;
    let sources = Sources::find(&wanted, files, &|_, _| {}).await?;
    let import = match repository {
        None => Import::plan(sources, &wanted, None).await?,
        Some(repository) => {
            let transaction = Transaction::begin(repository, &options.branch).await?;
            Import::plan(sources, &wanted, Some(transaction.base())).await?
        }
    };
    import.plan.planned()
}

/// Imports files into `repository`.
///
/// # Errors
/// What is wrong with the files or the options; [`Error::Misfit`] for a file that does not go
/// together with the others or with what is there; [`Error::Storage`] if the commit failed. The
/// branch is unchanged then.
pub async fn import(
    repository: &Repository,
    options: &ImportOptions,
    files: &Externals,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<Imported, Error> {
    let sources = Sources::find(options, files, &|_, _| {}).await?;
    let transaction = Arc::new(Transaction::begin(repository, &options.branch).await?);
    let import = Import::plan(sources, options, Some(transaction.base())).await?;
    import.stage(&transaction).await?;
    let staging = Staging::Own(transaction.clone());
    let bytes = import.fill(&staging, progress).await?;
    drop(staging);
    let transaction = Arc::into_inner(transaction).ok_or(Error::Cancelled)?;
    let commit = transaction.commit(import.commit_options()).await?;
    Ok(Imported {
        commit,
        arrays: import.arrays().cloned().collect(),
        bytes,
        warnings: import.warnings(),
        dropped: import.plan.dropped,
        copied: import.plan.copied,
        trials: import.plan.trials,
    })
}

/// The sources of an import, found.
#[derive(Clone, Debug)]
pub struct Sources {
    origins: Origins,
    files: Externals,
}

impl Sources {
    /// Finds what the sources of an import name, and fetches it where it has to be. `fetched` is
    /// called with bytes fetched so far and in all.
    ///
    /// # Errors
    /// [`Error::Option`] if they name nothing; [`Error::Storage`] if one may not be read or cannot
    /// be; [`Error::Read`] and [`Error::Malformed`] for a source that is not what it should be.
    pub async fn find(
        options: &ImportOptions,
        files: &Externals,
        fetched: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Self, Error> {
        Ok(Self {
            origins: origin::find(&options.sources, files, fetched).await?,
            files: files.clone(),
        })
    }

    /// What each was when it was found, in order.
    pub fn stamps(&self) -> &[Stamp] {
        &self.origins.stamps
    }
}

/// An import whose sources were found good, to be done in steps.
pub struct Import {
    options: ImportOptions,
    plan: Plan,
    /// Of an import by reference.
    original: Option<Original>,
    files: Externals,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Import {
    /// Plans what becomes of the sources over what is in `base`, or nothing. The same sources,
    /// options and base give the same plan.
    ///
    /// # Errors
    /// What is wrong with the sources or the options; [`Error::Misfit`] for a file that does not go
    /// together with the others or with what is there.
    pub async fn plan(
        sources: Sources,
        options: &ImportOptions,
        base: Option<&Snapshot>,
    ) -> Result<Self, Error> {
        let Sources { origins, files } = sources;
        let location = match (origins.stamps.as_slice(), &options.by_reference) {
            (_, None) => None,
            ([one], Some(_)) if options.join.append.is_none() => Some(one.source.clone()),
            _ => {
                return Err(Error::Option {
                    option: "--by-reference",
                    reason:
                        "it takes one source, and new arrays: import each into a group of its own, \
                             or join copies"
                            .into(),
                });
            }
        };
        let mut plan = Plan::checked(base, origins, options.clone()).await?;
        let mut original = None;
        if let (true, Some(how)) = (plan.is_of_objects(), &options.by_reference) {
            plan.refer_to_objects(&files, how)?;
        } else if let Some(location) = location {
            let (local, url) = match plan.joined.source.reader().copy() {
                Some((local, url)) => (local.to_owned(), url.to_owned()),
                None => (PathBuf::from(&location), location),
            };
            let opened = Original::open(&files, &url, &local).await?;
            let (divided, file) = blocking(move || {
                plan.refer_to(&opened);
                Ok((plan, opened))
            })
            .await?;
            plan = divided;
            original = Some(file);
        }
        Ok(Self {
            options: options.clone(),
            plan,
            original,
            files,
        })
    }

    /// Paths of the arrays.
    pub fn arrays(&self) -> impl Iterator<Item = &NodePath> {
        self.plan.paths.iter()
    }

    /// Attributes that are left out.
    pub fn dropped(&self) -> &[Dropped] {
        &self.plan.dropped
    }

    /// Of an import by reference, arrays whose values are copied.
    pub fn copied(&self) -> &[Copied] {
        &self.plan.copied
    }

    /// What else is left out, one sentence each; complete when all was read.
    pub fn warnings(&self) -> Vec<String> {
        self.plan.joined.source.warnings()
    }

    /// How codecs did on samples of new arrays, where that was looked at.
    pub fn trials(&self) -> &[(NodePath, Vec<Trial>)] {
        &self.plan.trials
    }

    /// Stages the groups and the arrays, still without chunks.
    ///
    /// # Errors
    /// [`Error::Storage`] if a node of the same name is there.
    pub async fn stage(&self, transaction: &Transaction) -> Result<(), Error> {
        self.plan.stage(transaction).await
    }

    /// Checks that `transaction` has staged the arrays of this import and not others.
    ///
    /// # Errors
    /// [`Error::BegunOtherwise`].
    pub async fn check_staged(&self, transaction: &Transaction) -> Result<(), Error> {
        for (path, metadata) in self.plan.new_metadata() {
            let staged = transaction.array(path).await;
            let staged = staged.map_err(|error| Error::BegunOtherwise {
                reason: error.to_string(),
            })?;
            if staged.metadata().to_json() != metadata.to_json() {
                let reason = format!("array {path} has other metadata");
                return Err(Error::BegunOtherwise { reason });
            }
        }
        Ok(())
    }

    /// Reads, encodes and stores every shard that is not there yet; gives the uncompressed bytes of
    /// all. It can be dropped at any time; what a shared transaction has staged stays.
    ///
    /// # Errors
    /// What is wrong with the values of the sources; [`Error::Storage`] if the store failed.
    pub async fn fill(
        &self,
        staging: &Staging,
        progress: &(dyn Fn(&Progress) + Send + Sync),
    ) -> Result<u64, Error> {
        let plan = &self.plan;
        let source = &plan.joined.source;
        let memory = self.options.memory_bytes;
        let mut bytes = fill_arrays(source, staging, &plan.arrays, memory, progress).await?;
        if let (Some(original), Some(how)) = (&self.original, &self.options.by_reference) {
            let referring = plan.referring.clone();
            bytes += refer(
                source,
                staging,
                referring,
                original,
                how.statistics,
                progress,
            )
            .await?;
            original.check(&self.files).await?;
        }
        Ok(bytes)
    }

    /// What to commit with.
    pub fn commit_options(&self) -> CommitOptions {
        commit_options(&self.options, &self.plan)
    }
}

fn commit_options(options: &ImportOptions, plan: &Plan) -> CommitOptions {
    let joined = &plan.joined;
    let mut properties = Map::new();
    properties.insert(
        "importer".into(),
        json!(format!("quarr {}", env!("CARGO_PKG_VERSION"))),
    );
    let first = joined.files.first().cloned().unwrap_or_default();
    let others = joined.files.len().saturating_sub(1);
    if others == 0 {
        properties.insert("source".into(), json!(first));
    } else {
        let listed = &joined.files[..joined.files.len().min(MAX_LISTED_FILES)];
        properties.insert("sources".into(), json!(listed));
        properties.insert("source_count".into(), json!(joined.files.len()));
    }
    properties.insert("source_format".into(), json!(joined.source.format()));
    if let Some(dimension) = &joined.dimension {
        properties.insert("joined_along".into(), json!(dimension));
    }
    if !joined.differences.is_empty() {
        let differences = Value::Array(joined.differences.clone());
        properties.insert("differing_attributes".into(), differences);
    }
    if joined.other_differences > 0 {
        let others = json!(joined.other_differences);
        properties.insert("differing_attributes_not_listed".into(), others);
    }
    if !plan.dropped.is_empty() {
        let entry = |dropped: &Dropped| {
            json!({
                "attribute": dropped.attribute,
                "reason": dropped.reason,
                "value": dropped.value,
                "variable": dropped.variable,
            })
        };
        properties.insert(
            "dropped_attributes".into(),
            Value::Array(plan.dropped.iter().map(entry).collect()),
        );
    }
    let message = if !options.message.is_empty() {
        options.message.clone()
    } else if others == 0 {
        format!("import {first}")
    } else {
        format!("import {first} and {others} more")
    };
    CommitOptions {
        author: options.author.clone(),
        message,
        properties,
        ..CommitOptions::default()
    }
}
