//! `quarr export` and `quarr publish`: what a commit holds, in the formats of other programs.
#![expect(clippy::print_stderr, reason = "progress is printed")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use compute::cf::Decode;
use importers::export::{
    self, Destination, ExportFormat, ExportProgress, PublishOptions, PublishProgress, Published,
};
use serde_json::json;
use storage::{Node, Outbox, Snapshot};

use super::client::Client;
use super::get::assignment;
use super::meter::Meter;
use super::{Failed, print, ref_path};
use crate::error::Failure;
use crate::jobs::{ExportSpec, outbox};
use crate::state::State;
use crate::target::Target;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[arg(help = "REPO[@REF][/PATH][SLICE], for instance 'climate@v1/t2m[0:24]'")]
    target: Target,
    /// A file, a directory or the URL of one in a bucket: s3://…, gs://…, az://… The end of its name
    /// tells the format: .nc, .npy, .npz, .safetensors, .parquet, .csv; Zarr v3 otherwise
    destination: String,
    /// The format whatever the name: zarr, zarr2, netcdf, npy, npz, safetensors, parquet, csv
    #[arg(long)]
    format: Option<ExportFormat>,
    /// Replace what is there.
    #[arg(long)]
    overwrite: bool,
    /// Arrays of a group to export, comma separated; their coordinates come along
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    vars: Vec<String>,
    /// Labels along a dimension, by its coordinate: time=2020-01/2020-03, lat=nearest::47.4
    #[arg(long, value_name = "DIM=LABELS", value_parser = assignment, allow_hyphen_values = true)]
    sel: Vec<(String, String)>,
    /// Positions along a dimension: time=0:24, level=-1
    #[arg(long, value_name = "DIM=SLICE", value_parser = assignment, allow_hyphen_values = true)]
    isel: Vec<(String, String)>,
    /// Missing and packed values: raw, mask, cf (masked and scaled)
    /// [default: cf for tables, else raw]
    #[arg(long, value_parser = ["cf", "mask", "raw"])]
    decode: Option<String>,
    /// Dimensions that a NetCDF file can grow along
    #[arg(long, value_delimiter = ',', value_name = "DIM,…")]
    unlimited: Vec<String>,
    /// How hard a NetCDF file is compressed: 0 (not at all) to 9
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=9), value_name = "LEVEL")]
    deflate: u8,
}

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    #[arg(help = "REPO[@BRANCH][/PATH]")]
    target: Target,
    /// An empty directory or prefix of a bucket, or a mirror made before: s3://…, gs://…, az://…
    destination: String,
    /// Delete whatever else is there, and copy everything anew.
    #[arg(long)]
    force: bool,
    /// Go on, and update the mirror whenever the branch moves.
    #[arg(long)]
    watch: bool,
    /// How often --watch looks, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    interval: u64,
}

async fn open(state: &State, target: &Target) -> Result<(Snapshot, Node), Failed> {
    let name = target.repository.as_str();
    let snapshot = state.snapshot(name, &target.reference).await?.snapshot;
    let node = snapshot.node(&target.path).await.map_err(Failure::from)?;
    Ok((snapshot, node))
}

impl ExportArgs {
    /// The same as a job has it.
    fn spec(&self) -> Result<ExportSpec, Failed> {
        Ok(ExportSpec {
            repository: self.target.repository.to_string(),
            destination: self.destination.clone(),
            slice: self.target.slice.clone(),
            format: self.format.map(|format| format.name().to_owned()),
            overwrite: self.overwrite,
            variables: self.vars.clone(),
            sel: by_dimension("--sel", &self.sel)?,
            isel: by_dimension("--isel", &self.isel)?,
            decode: self.decode.clone(),
            unlimited: self.unlimited.clone(),
            deflate: Some(self.deflate),
            ..ExportSpec::default()
        })
    }
}

/// What is selected of each dimension.
fn by_dimension(
    option: &str,
    selected: &[(String, String)],
) -> Result<BTreeMap<String, String>, Failed> {
    let mut found = BTreeMap::new();
    for (dimension, text) in selected {
        if found.insert(dimension.clone(), text.clone()).is_some() {
            return Err(Failed(format!("{option} is given twice for {dimension}")));
        }
    }
    Ok(found)
}

pub(super) async fn export(state: &State, args: &ExportArgs, as_json: bool) -> Result<(), Failed> {
    let destination = Destination::parse(&args.destination)?;
    let options = args.spec()?.options(&destination)?;
    let (snapshot, node) = open(state, &args.target).await?;
    let (meter, started) = (Meter::new(), Instant::now());
    let show = |progress: &ExportProgress| {
        let what = format!(
            "{} of {} arrays  {}",
            progress.arrays, progress.total_arrays, progress.array
        );
        meter.show(progress.bytes, progress.total_bytes, &what);
    };
    let engine = state.engine();
    let exported = export::export(engine, &snapshot, node, &options, &destination, &show).await;
    meter.done();
    let exported = exported?;
    let seconds = started.elapsed().as_secs_f64();
    if as_json {
        let body = json!({
            "arrays": exported.arrays,
            "chunks": exported.chunks,
            "bytes": exported.bytes,
            "commit": snapshot.id(),
            "format": options.format.name(),
            "seconds": seconds,
        });
        out!("{body}");
    } else {
        out!(
            "exported {} arrays, {} chunks, {} in {seconds:.1} s to {}",
            exported.arrays,
            exported.chunks,
            print::size(exported.bytes),
            args.destination
        );
    }
    Ok(())
}

/// Exports what a service gives as one answer.
pub(super) async fn export_over(
    client: &Client,
    args: &ExportArgs,
    as_json: bool,
) -> Result<(), Failed> {
    let destination = Destination::parse(&args.destination)?;
    let options = args.spec()?.options(&destination)?;
    let format = match options.format {
        ExportFormat::Npy => "npy",
        ExportFormat::Csv => "csv",
        ExportFormat::Netcdf4 => "netcdf",
        other => {
            return Err(Failed(format!(
                "a service gives arrays as npy, csv or netcdf; for {} give --store instead of --server",
                other.name()
            )));
        }
    };
    if !args.vars.is_empty() || !args.isel.is_empty() || !args.unlimited.is_empty() {
        let reason = "--vars, --isel and --unlimited work on a store: give --store instead of --server, or name one array, with a slice";
        return Err(Failed(reason.into()));
    }
    let decode = match options.decode {
        Decode::Cf => "cf",
        Decode::Mask => "mask",
        Decode::Raw => "raw",
    };
    let mut query = vec![
        ("f".to_owned(), format.to_owned()),
        ("decode".to_owned(), decode.to_owned()),
    ];
    query.extend(
        args.target
            .slice
            .clone()
            .map(|slice| ("slice".to_owned(), slice)),
    );
    for (dimension, labels) in &args.sel {
        query.push((format!("sel.{dimension}"), labels.clone()));
    }
    let query: Vec<(&str, String)> = query
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    let path = ref_path(&args.target, "data");
    let bytes = client.bytes("GET", &path, &query, None).await?;
    let length = bytes.len() as u64;
    export::write_file(&destination, args.overwrite, bytes).await?;
    if as_json {
        let body = json!({ "arrays": 1, "bytes": length, "format": options.format.name() });
        out!("{body}");
    } else {
        out!(
            "exported 1 array, {} to {}",
            print::size(length),
            args.destination
        );
    }
    Ok(())
}

pub(super) async fn publish(
    state: &State,
    args: &PublishArgs,
    as_json: bool,
) -> Result<(), Failed> {
    if args.target.slice.is_some() {
        return Err(Failed(
            "a mirror is of whole arrays: leave out the slice".into(),
        ));
    }
    let outbox = outbox(&args.destination)?;
    let mut options = PublishOptions {
        branch: args.target.reference.clone(),
        path: args.target.path.clone(),
        force: args.force,
    };
    let mut last = None;
    loop {
        let (snapshot, _) = open(state, &args.target).await?;
        if last != Some(snapshot.id()) {
            let published = publish_once(state, &snapshot, &options, &outbox).await?;
            tell(&published, args, as_json);
            last = Some(snapshot.id());
            // Once taken over, it is a mirror like others.
            options.force = false;
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(args.interval)).await;
    }
}

async fn publish_once(
    state: &State,
    snapshot: &Snapshot,
    options: &PublishOptions,
    outbox: &Outbox,
) -> Result<Published, Failed> {
    let meter = Meter::new();
    let show = |progress: &PublishProgress| {
        let what = format!("{} chunks  {}", progress.chunks, progress.array);
        meter.show(progress.bytes, progress.total_bytes, &what);
    };
    let published = export::publish(state.engine(), snapshot, options, outbox, &show).await;
    meter.done();
    Ok(published?)
}

fn tell(published: &Published, args: &PublishArgs, as_json: bool) {
    if as_json {
        let body = json!({
            "commit": published.commit,
            "chunks": published.chunks,
            "bytes": published.bytes,
            "documents": published.documents,
            "deleted": published.deleted,
        });
        out!("{body}");
        return;
    }
    let nothing = published.chunks + published.documents + published.deleted == 0;
    match nothing {
        true => out!(
            "{} is at commit {} already",
            args.destination,
            published.commit
        ),
        false => out!(
            "published commit {} to {}: {} chunks, {}; {} documents; {} objects deleted",
            published.commit,
            args.destination,
            published.chunks,
            print::size(published.bytes),
            published.documents,
            published.deleted
        ),
    }
    if args.watch {
        eprintln!("watching {}", args.target.reference);
    }
}
