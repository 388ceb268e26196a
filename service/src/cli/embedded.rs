//! A service inside another program, set up as the command line sets one up.

use std::path::PathBuf;

use clap::Parser;
use storage::Store;

use super::Failed;
use super::gpu::{GpuArgs, When};
use super::keys::SigningArgs;
use super::sizes::{self, SizeArgs};
use crate::jobs::{Origin, Settings};
use crate::state::State;

/// How much a service inside another program may take.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Memory for caches and the work of all requests together, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Threads that decode and compute.
    pub threads: Option<usize>,
    /// Where chunks of a remote store are kept as well.
    pub cache_dir: Option<PathBuf>,
    /// Most bytes there.
    pub cache_disk_bytes: Option<u64>,
}

/// What the environment says.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    sizes: SizeArgs,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// The state over the store at `url`, with these settings of the store over those of the
/// environment. What `sizes` leaves out is as the environment says, or as `quarr` has it.
///
/// # Errors
/// [`Failed`] if the URL, a setting or a variable of the environment is not understood.
pub fn open_embedded(url: &str, settings: &[(&str, &str)], sizes: &Sizes) -> Result<State, Failed> {
    let store = Store::open_with(url, settings)?.with_externals(super::reference::of_caller());
    let environment = Environment::try_parse_from(["quarr"])?;
    let chosen = environment.sizes.with(sizes);
    let (engine, limits) = chosen.engine(sizes::usual_costs(&store))?;
    let engine = engine.with_devices(environment.gpu.open(When::Never).devices);
    // Whoever asks is the process itself: jobs have its rights, and only it goes on with them.
    let jobs = Settings {
        origin: Origin::Command,
        ..Settings::default()
    };
    let state = State::new(store, engine, limits).with_jobs(jobs);
    Ok(match environment.signing.open()? {
        Some(signing) => state.signed(signing),
        None => state,
    })
}
