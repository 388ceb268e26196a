//! Files elsewhere on the command line: what may be read, imports by reference, `quarr materialize`.

use std::io::Write as _;
use std::time::Instant;

use clap::Args;
use importers::Progress;
use serde_json::json;
use storage::{AllowList, Externals};

use super::meter::Meter;
use super::{Failed, print};
use crate::state::State;
use crate::target::Target;

/// How an import refers to its source.
#[derive(Clone, Debug, Args)]
pub(super) struct ReferenceArgs {
    /// Leave chunks where they are and refer to them. The source must stay as it is.
    #[arg(long)]
    by_reference: bool,
    /// Compute the statistics of referred chunks, which takes decoding them.
    #[arg(long, requires = "by_reference")]
    statistics: bool,
}

impl ReferenceArgs {
    /// Whether to refer to chunks, and whether to compute their statistics.
    pub(super) fn chosen(&self) -> (bool, bool) {
        (self.by_reference, self.statistics)
    }
}

/// What a service may read and write outside its store.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AllowArgs {
    /// Folder, file or URL outside the store that the service may read, for imports and for chunks
    /// that refer to it. https:// alone stands for any public host. May be repeated.
    #[arg(
        long = "import-allow",
        value_name = "PREFIX",
        env = "QUARR_IMPORT_ALLOW",
        value_delimiter = ','
    )]
    allowed: Vec<String>,
    /// Folder or URL that jobs may write to, for exports and mirrors. May be repeated.
    #[arg(
        long = "export-allow",
        value_name = "PREFIX",
        env = "QUARR_EXPORT_ALLOW",
        value_delimiter = ','
    )]
    writable: Vec<String>,
}

impl AllowArgs {
    /// Reads what is allowed here.
    pub(super) fn externals(&self) -> Result<Externals, Failed> {
        Ok(Externals::new(under(&self.allowed)?))
    }

    /// Where jobs may write.
    pub(super) fn exports(&self) -> Result<AllowList, Failed> {
        under(&self.writable)
    }
}

fn under(prefixes: &[String]) -> Result<AllowList, Failed> {
    let prefixes = prefixes.iter().filter(|prefix| !prefix.is_empty());
    Ok(AllowList::under(prefixes)?)
}

/// A command may read what its caller may.
pub(super) fn of_caller() -> Externals {
    Externals::new(AllowList::everything())
}

#[derive(Debug, Args)]
pub(super) struct MaterializeArgs {
    #[arg(help = "REPO[@BRANCH][/PATH]")]
    target: Target,
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

/// Copies in the chunks that arrays refer to elsewhere.
pub(super) async fn materialize(
    state: &State,
    args: &MaterializeArgs,
    author: &str,
    as_json: bool,
) -> Result<(), Failed> {
    let target = &args.target;
    if target.slice.is_some() {
        return Err(Failed("materialize takes whole arrays and groups".into()));
    }
    let repository = state.repository(&target.repository).await?;
    let branch = target.reference.parse()?;
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
    let done = importers::materialize(
        state.engine(),
        &repository,
        (&branch, &target.path),
        (author, &args.message),
        args.memory_mib.max(1) << 20,
        &show,
    )
    .await;
    meter.done();
    let done = done?;
    if as_json {
        let body = json!({
            "commit": done.commit,
            "arrays": done.arrays.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "bytes": done.bytes,
        });
        out!("{body}");
        return Ok(());
    }
    match done.commit {
        Some(commit) => out!(
            "copied {} arrays, {} in {:.1} s, as commit {commit}",
            done.arrays.len(),
            print::size(done.bytes),
            started.elapsed().as_secs_f64()
        ),
        None => out!("nothing at {} is elsewhere", target.path),
    }
    Ok(())
}
