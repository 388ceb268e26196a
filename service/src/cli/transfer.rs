//! `quarr import`, `quarr export` and `quarr verify`: long work on a store.
#![expect(clippy::print_stderr, reason = "progress and warnings are printed")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use array::{ResolvedSelection, Selection};
use clap::Args;
use compute::cf::Decode;
use importers::{Access, Exported, ImportOptions, Lengths, Progress, default_codecs};
use serde_json::json;
use storage::{Node, Repository};

use super::meter::Meter;
use super::{Failed, print};
use crate::error::Failure;
use crate::format::Format;
use crate::state::State;
use crate::target::Target;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The NetCDF-3, NetCDF-4 or HDF5 file.
    source: PathBuf,
    /// Where to: REPO[/GROUP]
    #[arg(long, value_name = "REPO[/GROUP]")]
    to: Target,
    /// The branch to commit to.
    #[arg(long, default_value = "main")]
    branch: String,
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
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[arg(help = "REPO[@REF][/PATH]")]
    target: Target,
    /// A new Zarr directory, or for an array a file ending in .npy
    destination: PathBuf,
}

fn author() -> String {
    std::env::var("QUARR_AUTHOR")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "quarr".into())
}

pub(super) async fn import(state: &State, args: ImportArgs, as_json: bool) -> Result<(), Failed> {
    if args.to.has_reference || args.to.slice.is_some() {
        return Err(Failed(
            "--to takes REPO[/GROUP]; the branch goes with --branch".into(),
        ));
    }
    let options = ImportOptions {
        source: args.source.clone(),
        group: args.to.path.clone(),
        branch: args.branch.parse()?,
        author: author(),
        message: args.message,
        access: args.access,
        inner_lengths: args.chunks,
        shard_lengths: args.shards,
        codecs: default_codecs(),
        skip: args.skip.into_iter().collect::<BTreeSet<_>>(),
        memory_bytes: args.memory_mib.max(1) << 20,
    };
    // Before a repository is made for it: the file must be good.
    let wanted = options.clone();
    tokio::task::spawn_blocking(move || importers::check(&wanted)).await??;
    let store = state.store().under(args.to.repository.as_str());
    let repository = match Repository::open(store.clone()).await {
        Err(storage::Error::NotFound { .. }) => Repository::create(store, &author()).await?,
        other => other?,
    };
    let (meter, started) = (Meter::new(), Instant::now());
    let show = |progress: &Progress| {
        let Progress {
            shards,
            total_shards,
            variable,
            ..
        } = progress;
        let what = format!("{shards} of {total_shards} chunks  {variable}");
        meter.show(progress.bytes, progress.total_bytes, &what);
    };
    let imported = importers::import(&repository, &options, &show).await?;
    meter.done();
    for dropped in &imported.dropped {
        eprintln!(
            "warning: {} {} = {} is left out: {} (kept in the commit's properties)",
            dropped.variable, dropped.attribute, dropped.value, dropped.reason
        );
    }
    let seconds = started.elapsed().as_secs_f64();
    if as_json {
        let body = json!({
            "commit": imported.commit,
            "arrays": imported.arrays.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "bytes": imported.bytes,
            "seconds": seconds,
        });
        out!("{body}");
    } else {
        out!(
            "imported {} arrays, {} in {seconds:.1} s, as commit {}",
            imported.arrays.len(),
            print::size(imported.bytes),
            imported.commit
        );
    }
    Ok(())
}

async fn open(state: &State, target: &Target) -> Result<(storage::Snapshot, Node), Failed> {
    let name = target.repository.as_str();
    let snapshot = state.snapshot(name, &target.reference).await?.snapshot;
    let node = snapshot.node(&target.path).await.map_err(Failure::from)?;
    Ok((snapshot, node))
}

pub(super) async fn export(state: &State, args: &ExportArgs, as_json: bool) -> Result<(), Failed> {
    if args.target.slice.is_some() {
        return Err(Failed(
            "export takes whole arrays; use get for a slice".into(),
        ));
    }
    let (snapshot, node) = open(state, &args.target).await?;
    let is_npy = args
        .destination
        .extension()
        .is_some_and(|extension| extension == "npy");
    let exported = match (node, is_npy) {
        (Node::Array(array), true) => export_npy(state, array, &args.destination).await?,
        (Node::Group(_), true) => {
            return Err(Failed("an .npy file holds one array: name one".into()));
        }
        (node, false) => {
            importers::export_zarr(state.engine(), &snapshot, node, &args.destination, &|_| {})
                .await?
        }
    };
    if as_json {
        let body = json!({ "arrays": exported.arrays, "chunks": exported.chunks, "bytes": exported.bytes });
        out!("{body}");
    } else {
        out!(
            "exported {} arrays, {} chunks, {} to {}",
            exported.arrays,
            exported.chunks,
            print::size(exported.bytes),
            args.destination.display()
        );
    }
    Ok(())
}

async fn export_npy(
    state: &State,
    array: storage::ArrayNode,
    path: &Path,
) -> Result<Exported, Failed> {
    let reader = state.engine().open(array)?;
    let selection: ResolvedSelection =
        Selection::all().resolve(reader.metadata().shape(), array::Bounds::Clamp)?;
    let tensor = state
        .engine()
        .read(&reader, &selection, Decode::Raw)
        .await?;
    let bytes = Format::Npy.encode_tensor(tensor, &[])?;
    std::fs::write(path, &bytes)
        .map_err(|error| Failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(Exported {
        arrays: 1,
        chunks: 0,
        bytes: bytes.len() as u64,
    })
}
