//! `quarr import`: files of other formats into a store.
#![expect(clippy::print_stderr, reason = "progress and warnings are printed")]

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use clap::Args;
use importers::{Access, Codec, ImportOptions, Lengths, NewDim, Order, Planned};
use serde_json::json;
use storage::Repository;
use tokio::signal::unix::Signal;
use uuid::Uuid;

use super::client::Client;
use super::jobs::{Where, follow, interrupts, outcome, print_import, print_trials};
use super::reference::{ReferenceArgs, of_caller};
use super::{Failed, print};
use crate::jobs::{self, ImportSpec, Job, JobReport, JobSpec, Origin, trial_infos};
use crate::state::State;
use crate::target::Target;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Files (NetCDF, HDF5, npy, npz, safetensors, Parquet, CSV, GeoTIFF, GRIB2), Zarr directories,
    /// URLs (http, https, s3, gs, az) or patterns of them; of a service also upload:ID. Several go
    /// with --append or --new-dim.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Where to: REPO[/GROUP]
    #[arg(long, value_name = "REPO[/GROUP]")]
    to: Target,
    /// The branch to commit to.
    #[arg(long, default_value = "main")]
    branch: String,
    #[command(flatten)]
    join: JoinArgs,
    /// What compresses inner chunks: none, gzip, zstd, zstd+shuffle, zstd+bitshuffle, lz4+shuffle and
    /// the like, with :LEVEL, or auto for what suits a sample of each variable best. zstd:1 if left
    /// out; a Zarr source keeps its own then.
    #[arg(long, value_name = "CODEC")]
    codec: Option<Codec>,
    /// Tell how small and how fast codecs make a sample of each variable.
    #[arg(long)]
    explain_codec: bool,
    /// Print the arrays that would be made, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How the data will be read: series, maps, both or ml. Decides chunk shapes.
    #[arg(long = "for", default_value = "both", value_name = "ACCESS")]
    access: Access,
    /// Lengths of inner chunks by dimension, like time=24,lat=90.
    #[arg(
        long,
        default_value = "",
        value_name = "DIM=N,…",
        hide_default_value = true
    )]
    chunks: Lengths,
    /// Lengths of shards by dimension.
    #[arg(
        long,
        default_value = "",
        value_name = "DIM=N,…",
        hide_default_value = true
    )]
    shards: Lengths,
    /// What to leave out: variables, or attributes as VARIABLE@ATTRIBUTE, comma separated.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    skip: Vec<String>,
    /// What the commit is for.
    #[arg(
        short,
        long,
        default_value = "",
        value_name = "MSG",
        hide_default_value = true
    )]
    message: String,
    /// Memory for shards being written, in MiB.
    #[arg(long, default_value_t = 192, value_name = "MIB")]
    memory_mib: u64,
    #[command(flatten)]
    reference: ReferenceArgs,
}

/// How several files, and arrays that exist, go together.
#[derive(Debug, Args)]
struct JoinArgs {
    /// Join files along this dimension, which they have, and put them behind what is in the group.
    #[arg(long, value_name = "DIM")]
    append: Option<String>,
    /// Stack files along a new first dimension of this name; with a coordinate: NAME=r1,r2,…,
    /// NAME=0..7, or NAME=@ for what differs in the names of the files.
    #[arg(long, value_name = "NAME[=VALUES]")]
    new_dim: Option<NewDim>,
    /// Take the files in the order of their coordinate along --append.
    #[arg(long, requires = "append")]
    sort: bool,
    /// Take the files as given even if their coordinate along --append does not ascend or descend
    /// all the way.
    #[arg(long, requires = "append", conflicts_with = "sort")]
    unordered: bool,
}

impl JoinArgs {
    fn order(&self) -> Option<String> {
        let order = match (self.sort, self.unordered) {
            (true, _) => Order::Sorted,
            (false, true) => Order::Unchecked,
            (false, false) => return None,
        };
        Some(order.to_string())
    }
}

pub(super) fn author() -> String {
    std::env::var("QUARR_AUTHOR")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "quarr".into())
}

impl ImportArgs {
    /// The job, but for where its sources are.
    fn spec(&self, sources: Vec<String>) -> Result<ImportSpec, Failed> {
        if self.to.has_reference || self.to.slice.is_some() {
            return Err(Failed(
                "--to takes REPO[/GROUP]; the branch goes with --branch".into(),
            ));
        }
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (by_reference, statistics) = self.reference.chosen();
        Ok(ImportSpec {
            sources,
            repository: self.to.repository.to_string(),
            group: given(self.to.path.as_str()),
            branch: Some(self.branch.clone()),
            message: given(&self.message),
            author: Some(author()),
            access: Some(self.access.to_string()),
            chunks: self.chunks.0.clone(),
            shards: self.shards.0.clone(),
            codec: self.codec.map(|codec| codec.to_string()),
            explain_codec: self.explain_codec,
            append: self.join.append.clone(),
            new_dim: self.join.new_dim.as_ref().map(ToString::to_string),
            order: self.join.order(),
            by_reference,
            statistics,
            skip: self.skip.iter().cloned().collect(),
            memory_mib: Some(self.memory_mib.max(1)),
        })
    }
}

/// Imports in this process, as a job of the store: one that was killed goes on when the command is
/// given again.
pub(super) async fn import(state: &State, args: &ImportArgs, as_json: bool) -> Result<(), Failed> {
    // The job may go on in another directory.
    let absolute = |source: &String| match is_elsewhere(source) {
        true => Ok(source.clone()),
        false => Ok(std::path::absolute(source)?.to_string_lossy().into_owned()),
    };
    let sources = args.sources.iter().map(absolute);
    let spec = args.spec(sources.collect::<Result<_, Failed>>()?)?;
    if args.dry_run {
        let options = spec.options(spec.sources.clone())?;
        return dry_run(state, &args.to, &options, as_json).await;
    }
    let interrupts = interrupts()?;
    let spec = JobSpec::Import(Box::new(spec));
    let started = Instant::now();
    let job = match jobs::unfinished(state, &spec).await? {
        Some(job) => {
            eprintln!("going on with job {}, which was stopped", job.id);
            jobs::resume(state, job.id, Origin::Command).await?
        }
        None => jobs::begin(state, spec, Origin::Command, None).await?,
    };
    finish_import(&Where::Here(state), job.id, interrupts, started, as_json).await
}

/// Whether a source is named by a URL or is an upload, not by a path.
fn is_elsewhere(source: &str) -> bool {
    source.starts_with("upload:") || source.contains("://")
}

/// Has a service import, as a job; local files are sent to it.
pub(super) async fn import_over(
    client: &Client,
    args: &ImportArgs,
    as_json: bool,
) -> Result<(), Failed> {
    if args.dry_run {
        return Err(Failed(
            "--dry-run reads the files here: give --store".into(),
        ));
    }
    let started = Instant::now();
    args.spec(Vec::new())?;
    let mut sources = Vec::with_capacity(args.sources.len());
    for source in &args.sources {
        sources.push(match is_elsewhere(source) {
            true => source.clone(),
            false => client.upload(Path::new(source)).await?,
        });
    }
    let spec = serde_json::to_value(JobSpec::Import(Box::new(args.spec(sources)?)))?;
    let interrupts = interrupts()?;
    let job = client
        .json("POST", &["v1", "jobs"], &[], Some(&spec))
        .await?;
    let job: Job = serde_json::from_value(job)?;
    finish_import(&Where::There(client), job.id, interrupts, started, as_json).await
}

async fn finish_import(
    place: &Where<'_>,
    id: Uuid,
    mut interrupts: Signal,
    started: Instant,
    as_json: bool,
) -> Result<(), Failed> {
    match outcome(follow(place, id, &mut interrupts).await?)? {
        JobReport::Import(report) => {
            print_import(id, &report, started.elapsed().as_secs_f64(), as_json);
            Ok(())
        }
        _ => Err(Failed(format!("job {id} is no import"))),
    }
}

/// Prints what an import would make.
async fn dry_run(
    state: &State,
    to: &Target,
    options: &ImportOptions,
    as_json: bool,
) -> Result<(), Failed> {
    let store = state.store().under(to.repository.as_str());
    let repository = match Repository::open(store).await {
        Err(storage::Error::NotFound { .. }) => None,
        other => Some(other?),
    };
    let planned = importers::dry_run(repository.as_ref(), options, &of_caller()).await?;
    if as_json {
        let array = |array: &Planned| {
            json!({
                "path": array.path.to_string(),
                "data_type": array.data_type.to_json(),
                "shape": array.shape,
                "chunks": array.inner,
                "shards": array.shard,
                "objects": array.objects,
                "append": array.appended.map(|(axis, start)| json!({ "axis": axis, "from": start })),
                "codec": array.codec,
                "bytes": array.bytes,
                "estimated_bytes": array.estimated_bytes,
                "trials": trial_infos(&array.trials),
            })
        };
        let body = json!({ "arrays": planned.iter().map(array).collect::<Vec<_>>() });
        out!("{body}");
        return Ok(());
    }
    for array in &planned {
        let stored = match array.estimated_bytes {
            Some(estimated) => format!("about {}", print::size(estimated)),
            None => "size not sampled".to_owned(),
        };
        let how = match (&array.appended, &array.codec) {
            (Some((_, start)), _) => format!("appended from {start}"),
            (None, Some(codec)) => codec.clone(),
            (None, None) => String::new(),
        };
        out!(
            "{} {} {:?}, chunks {:?}, shards {:?}, {} objects, {how}, {} as {stored}",
            array.path,
            array.data_type,
            array.shape,
            array.inner,
            array.shard,
            array.objects,
            print::size(array.bytes),
        );
        if options.explain_codec {
            print_trials(array.path.as_str(), &trial_infos(&array.trials));
        }
    }
    out!("nothing was written");
    Ok(())
}
