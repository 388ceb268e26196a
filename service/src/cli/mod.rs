//! The command line.
//!
//! Reading commands are HTTP requests to the service's own router, in the process for `--store` and
//! over the network for `--server`; importing, exporting and upkeep work on a store directly, and
//! verifying either way. What a command appended to a log is signed before it ends.
#![expect(clippy::print_stderr, reason = "a command line prints its errors")]

/// Prints a line. A reader that went away, as `head` does, ends the command without a word.
macro_rules! out {
    ($($part:tt)*) => {
        if writeln!(std::io::stdout().lock(), $($part)*).is_err() {
            std::process::exit(0);
        }
    };
}

mod access;
mod audit;
mod auth;
mod check;
mod client;
mod config;
mod doctor;
mod embedded;
mod export;
mod get;
mod gpu;
mod jobs;
mod keys;
mod limits;
mod meter;
mod print;
mod proofs;
mod reference;
mod s3;
mod serve;
mod sizes;
mod store;
mod transfer;
mod upkeep;
mod verify;
mod versions;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use storage::Store;

use crate::error::{Failure, Problem};
use crate::http;
use crate::state::State;
use crate::target::Target;
use client::Client;

pub use config::parse;
pub use embedded::{Sizes, open_embedded};

/// A failed command: one line saying what, where and what to do.
#[derive(Debug)]
pub struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(crate::error::chain(&error))
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::from(failure.problem())
    }
}

impl From<&Problem> for Failed {
    /// What is wrong, and what to do about a name that does not exist.
    fn from(problem: &Problem) -> Self {
        let detail = &problem.detail;
        if !problem.suggestions.is_empty() {
            let names = problem.suggestions.join(" or ");
            return Self(format!("{detail}; did you mean {names}?"));
        }
        let lists = [
            ("repository", "quarr repo list"),
            ("branch", "quarr branch list"),
            ("tag", "quarr tag list"),
            ("group or array", "quarr ls"),
        ];
        let list = lists
            .iter()
            .find(|(what, _)| problem.status == 404 && detail.starts_with(what));
        Self(match list {
            Some((_, command)) => format!("{detail}; {command} shows what exists"),
            None => detail.clone(),
        })
    }
}

/// An array object store: versions, verified reads, slices and reductions near the data.
#[derive(Debug, Parser)]
#[command(
    name = "quarr",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Place {
    /// The store: a directory, s3://bucket/prefix, gs://… or az://…
    /// [default: ./quarr-data] [env: QUARR_STORE]
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// A running service to ask instead of a store, for instance http://localhost:8686
    /// [env: QUARR_SERVER]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "store")]
    server: Option<String>,
    /// An API key or token for --server.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "QUARR_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// A certificate, PEM, that --server may be signed with besides those of the web.
    #[arg(long, global = true, value_name = "FILE", env = "QUARR_SERVER_CA")]
    server_ca: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// A file of settings, quarr.toml [env: QUARR_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What that file says.
    #[arg(skip)]
    configured: config::Configured,
    #[command(flatten)]
    signing: keys::SigningArgs,
    #[command(flatten)]
    sizes: sizes::SizeArgs,
    #[command(flatten)]
    gpu: gpu::GpuArgs,
    /// How long a job stands still before another process takes it over, in seconds.
    #[arg(long, global = true, hide = true, value_parser = parse_seconds, env = "QUARR_JOB_STALE_AFTER")]
    job_stale_after: Option<Duration>,
}

/// A positive number of seconds.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.1..1e6).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("{text:?} is no number of seconds"))?;
    Ok(Duration::from_secs_f64(seconds))
}

impl Place {
    /// How this process works on jobs.
    fn job_settings(&self) -> crate::jobs::Settings {
        let defaults = crate::jobs::Settings::default();
        crate::jobs::Settings {
            stale_after: self.job_stale_after.unwrap_or(defaults.stale_after),
            ..defaults
        }
    }

    /// What requests to others are sent with.
    fn http(&self) -> Result<reqwest::Client, Failed> {
        client::http(self.token.as_deref(), self.server_ca.as_deref())
    }

    /// A service to ask, as whoever has the token.
    fn client(&self, url: &str) -> Result<Client, Failed> {
        Client::remote(url, self.token.as_deref(), self.server_ca.as_deref())
    }

    /// The service to ask, if any: one that is named here goes before a store, what is named here
    /// before the environment, and that before the file of settings.
    fn server(&self) -> Option<String> {
        let named = self.store.is_some();
        let elsewhere = || environment("QUARR_SERVER").filter(|_| !named);
        let in_environment = named || environment("QUARR_STORE").is_some();
        let configured = || self.configured.place("server").filter(|_| !in_environment);
        self.server.clone().or_else(elsewhere).or_else(configured)
    }

    fn store(&self) -> String {
        let elsewhere = || environment("QUARR_STORE");
        let configured = || self.configured.place("store");
        let named = self.store.clone().or_else(elsewhere).or_else(configured);
        named.unwrap_or_else(|| "./quarr-data".to_owned())
    }
}

/// A variable of the environment that is set to something.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the repositories of a store over HTTP.
    Serve(Box<serve::ServeArgs>),
    /// Import files of many formats as one commit; creates the repository if it is missing. One that
    /// was stopped goes on when the command is given again.
    Import(Box<transfer::ImportArgs>),
    /// Copy in the values that arrays refer to elsewhere, as one commit.
    Materialize(reference::MaterializeArgs),
    /// Export a group, an array or parts of them: Zarr v3 and v2, NetCDF-4, NumPy, safetensors,
    /// Parquet, CSV.
    Export(Box<export::ExportArgs>),
    /// Keep a plain Zarr v3 mirror of a branch in a directory or bucket, updated by what changed.
    Publish(export::PublishArgs),
    /// Check a source: units, times, coordinates, references, missing values, chunks.
    Check(check::CheckArgs),
    #[command(flatten)]
    Service(ServiceCommand),
    /// End the history at commits older than some age; gc deletes what only they need.
    Expire(upkeep::ExpireArgs),
    /// Delete what no branch, tag, recent commit or open transaction needs.
    Gc(upkeep::GcArgs),
    /// Compute the statistics that arrays lack, as one commit.
    RewriteManifest(upkeep::RewriteArgs),
    /// List, show, cancel and resume long work.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Check every byte of a commit, or of a whole repository if no ref is given.
    Verify(verify::VerifyArgs),
    /// Check a proof or a receipt; needs neither store nor service.
    CheckProof(proofs::CheckArgs),
    /// Make and show the keys that sign a repository's log.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Check a service from outside: its signatures, that its log only grows, and some of its data.
    Audit(audit::AuditArgs),
    /// Make and check stores.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Say what a server or a store is doing, what is wrong with it, and what to do.
    Doctor(doctor::DoctorArgs),
    /// Show settings and where they are from.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the OpenAPI document.
    #[command(hide = true)]
    Openapi,
}

/// Commands that are requests to a service.
#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Create, list, show and delete repositories.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// List, create and delete branches.
    #[command(subcommand)]
    Branch(RefCommand),
    /// List, create and delete tags.
    #[command(subcommand)]
    Tag(RefCommand),
    /// List the members of a group.
    Ls(TargetArgs),
    /// Show a group or array: metadata, storage, statistics.
    Show(TargetArgs),
    /// Show the log of a repository, oldest first.
    Log(LogArgs),
    /// Read a slice of an array, or reduce it.
    Get(Box<get::GetArgs>),
    /// Say what reading or reducing a slice would cost; runs nothing.
    Explain(Box<get::ExplainArgs>),
    /// Work on a transaction: begin, put, rm, mv, show, commit, abort.
    #[command(subcommand)]
    Tx(versions::TxCommand),
    /// Merge a branch or commit into a branch.
    Merge(versions::MergeArgs),
    /// Show what differs between two commits.
    Diff(versions::DiffArgs),
    /// Undo a commit on a branch.
    Revert(versions::PickArgs),
    /// Make the changes of a commit on a branch.
    CherryPick(versions::PickArgs),
    /// Move a branch to another commit.
    Reset(versions::ResetArgs),
    /// Prove what a slice holds, for someone who has neither the store nor the service.
    Prove(proofs::ProveArgs),
    /// Make, list, rotate and revoke API keys; show who one is.
    #[command(subcommand)]
    Auth(auth::AuthCommand),
}

#[derive(Debug, Subcommand)]
enum RepoCommand {
    /// Create an empty repository.
    Create {
        /// Its name.
        name: String,
    },
    /// List the repositories of the store.
    List,
    /// Show a repository.
    Show {
        /// Its name.
        name: String,
    },
    /// Delete a repository and everything in it.
    Delete {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum RefCommand {
    /// List them.
    List {
        /// The repository.
        repository: String,
    },
    /// Create one.
    Create {
        /// The repository.
        repository: String,
        /// The new name.
        name: String,
        /// Where it starts: a branch, tag, commit, x~n or x@time.
        #[arg(long, default_value = "main")]
        from: String,
    },
    /// Delete one; the commits stay.
    Delete {
        /// The repository.
        repository: String,
        /// The name.
        name: String,
    },
}

#[derive(Debug, Args)]
struct TargetArgs {
    #[arg(help = "REPO[@REF][/PATH]")]
    target: Target,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// The repository.
    repository: String,
    /// Entries after this number.
    #[arg(long)]
    after: Option<u64>,
    /// Most entries to print.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// What the program is called with to read a file for another process of it.
const READ_FILE: &str = "_read-file";

/// Reads a file for another process, if this one was started for that.
pub fn serve_reader() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != READ_FILE {
        return None;
    }
    let path = PathBuf::from(arguments.next()?);
    Some(match importers::serve_reader(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Has files whose library may crash read by this program, as processes of their own.
fn isolate_readers() {
    // Leads to this program even after another was put in its place.
    let this = PathBuf::from("/proc/self/exe");
    let program = match this.exists() {
        true => Some(this),
        false => std::env::current_exe().ok(),
    };
    if let Some(program) = program {
        importers::isolate_readers(importers::ReaderCommand {
            program,
            arguments: vec![READ_FILE.to_owned()],
        });
    }
}

/// Runs a command; prints one line and fails if it fails.
pub async fn run(cli: Cli) -> ExitCode {
    isolate_readers();
    match execute(cli).await {
        Ok(code) => code,
        Err(Failed(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The state over the store a command works on.
fn open_state(place: &Place) -> Result<State, Failed> {
    let store = Store::open(&place.store())?.with_externals(reference::of_caller());
    let (engine, limits) = place.sizes.engine(sizes::usual_costs(&store))?;
    let engine = engine.with_devices(place.gpu.open(gpu::When::Never).devices);
    let state = State::new(store, engine, limits).with_jobs(place.job_settings());
    with_signing(place, state)
}

fn with_signing(place: &Place, state: State) -> Result<State, Failed> {
    Ok(match place.signing.open()? {
        Some(signing) => state.signed(signing),
        None => state,
    })
}

/// The store, for commands that need one.
fn local_state(place: &Place, command: &str) -> Result<State, Failed> {
    if let Some(server) = place.server() {
        let reason =
            format!("{command} works on a store: give --store instead of --server {server}");
        return Err(Failed(reason));
    }
    open_state(place)
}

/// Runs a command over a service, here or elsewhere, and signs what it appended here.
async fn over_service<F>(place: &Place, command: F) -> Result<(), Failed>
where
    F: AsyncFnOnce(&Client) -> Result<(), Failed>,
{
    if let Some(url) = place.server() {
        return command(&place.client(&url)?).await;
    }
    let state = open_state(place)?;
    let result = command(&Client::in_process(http::router(state.clone()))).await;
    sign(&state).await;
    result
}

/// Runs a command over a store, and signs what it appended.
async fn over_store<F, T>(place: &Place, name: &str, command: F) -> Result<T, Failed>
where
    F: AsyncFnOnce(&State) -> Result<T, Failed>,
{
    let state = local_state(place, name)?;
    let result = command(&state).await;
    sign(&state).await;
    result
}

/// Signs what was appended. What is committed stays so if that fails.
async fn sign(state: &State) {
    for warning in state.sign_appended().await {
        eprintln!("warning: {warning}");
    }
}

async fn execute(cli: Cli) -> Result<ExitCode, Failed> {
    let place = &cli.place;
    let as_json = place.json;
    match cli.command {
        Command::Serve(args) => {
            if let Some(server) = place.server() {
                let reason =
                    format!("serve works on a store: give --store instead of --server {server}");
                return Err(Failed(reason));
            }
            let store = Store::open(&place.store())?.with_externals(args.externals()?);
            // A driver takes its time to begin, and so may a store.
            let settings = place.gpu.clone();
            let opening = tokio::task::spawn_blocking(move || settings.open(gpu::When::Auto));
            let store = store::fit_to_serve(store, args.is_read_only()).await?;
            let costs = sizes::measured_costs(&store).await;
            let (engine, limits) = place.sizes.engine(costs)?;
            let opened = opening.await?;
            let engine = engine.with_devices(opened.devices.clone());
            let auth = args.auth(&store).await?;
            let state = State::new(store, engine, limits).with_auth(auth);
            let state = state.with_jobs(args.job_settings(place.job_settings())?);
            let state = with_signing(place, state)?;
            serve::serve(state, &args, &opened).await?;
        }
        Command::Import(args) => {
            if let Some(url) = place.server() {
                transfer::import_over(&place.client(&url)?, &args, as_json).await?;
            } else {
                let import = async |state: &State| transfer::import(state, &args, as_json).await;
                over_store(place, "import", import).await?;
            }
        }
        Command::Materialize(args) => {
            let materialize = async |state: &State| {
                let author = transfer::author();
                reference::materialize(state, &args, &author, as_json).await
            };
            over_store(place, "materialize", materialize).await?;
        }
        Command::Jobs(command) => match place.server() {
            Some(url) => {
                let client = place.client(&url)?;
                jobs::jobs(&jobs::Where::There(&client), command, as_json).await?;
            }
            None => {
                let run = async |state: &State| {
                    jobs::jobs(&jobs::Where::Here(state), command, as_json).await
                };
                over_store(place, "jobs", run).await?;
            }
        },
        Command::Export(args) => match place.server() {
            Some(url) => export::export_over(&place.client(&url)?, &args, as_json).await?,
            None => export::export(&open_state(place)?, &args, as_json).await?,
        },
        Command::Publish(args) => {
            export::publish(&local_state(place, "publish")?, &args, as_json).await?;
        }
        Command::Verify(args) => {
            return match place.server() {
                Some(url) => verify::verify_over(&place.client(&url)?, &args, as_json).await,
                None => verify::verify(&open_state(place)?, &args, as_json).await,
            };
        }
        Command::Expire(args) => {
            let expire = async |state: &State| upkeep::expire(state, &args, as_json).await;
            over_store(place, "expire", expire).await?;
        }
        Command::Gc(args) => {
            let gc = async |state: &State| upkeep::gc(state, &args, as_json).await;
            over_store(place, "gc", gc).await?;
        }
        Command::RewriteManifest(args) => {
            let rewrite = async |state: &State| upkeep::rewrite(state, &args, as_json).await;
            over_store(place, "rewrite-manifest", rewrite).await?;
        }
        Command::Key(keys::KeyCommand::Show { repository }) => {
            let show =
                async |client: &Client| keys::show(client, repository.as_ref(), as_json).await;
            over_service(place, show).await?;
        }
        Command::Key(command) => {
            keys::change(&local_state(place, "key")?, &command, as_json).await?;
        }
        Command::Check(args) => return check::check(args, as_json).await,
        Command::CheckProof(args) => proofs::check_proof(&args, as_json)?,
        Command::Audit(args) => audit::audit(&args, place.http()?, as_json).await?,
        Command::Openapi => out!(
            "{}",
            serde_json::to_string_pretty(&http::openapi_document())?
        ),
        Command::Store(command) => return store::run(command, as_json).await,
        Command::Doctor(args) => match place.server() {
            Some(url) => return doctor::of_server(&place.client(&url)?, &url, as_json).await,
            None => return doctor::of_store(&open_state(place)?, &args, place, as_json).await,
        },
        Command::Config(config::ConfigCommand::Show(_)) => config::show(&place.configured, as_json),
        Command::Config(config::ConfigCommand::Table) => out!("{}", config::table().trim_end()),
        Command::Service(command) => {
            let run = async |client: &Client| request(client, command, as_json).await;
            over_service(place, run).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn request(client: &Client, command: ServiceCommand, as_json: bool) -> Result<(), Failed> {
    match command {
        ServiceCommand::Auth(command) => auth::auth(client, command, as_json).await?,
        ServiceCommand::Prove(args) => proofs::prove(client, &args, as_json).await?,
        ServiceCommand::Repo(command) => repo(client, command, as_json).await?,
        ServiceCommand::Branch(command) => refs(client, "branches", command, as_json).await?,
        ServiceCommand::Tag(command) => refs(client, "tags", command, as_json).await?,
        ServiceCommand::Ls(args) => print::members(&node(client, &args.target).await?, as_json),
        ServiceCommand::Show(args) => print::node(&node(client, &args.target).await?, as_json),
        ServiceCommand::Log(args) => log(client, &args, as_json).await?,
        ServiceCommand::Get(args) => get::get(client, &args, as_json).await?,
        ServiceCommand::Explain(args) => get::explain(client, &args, as_json).await?,
        ServiceCommand::Tx(command) => versions::tx(client, command, as_json).await?,
        ServiceCommand::Merge(args) => versions::merge(client, &args, as_json).await?,
        ServiceCommand::Diff(args) => versions::diff(client, &args, as_json).await?,
        ServiceCommand::Revert(args) => versions::pick(client, "revert", &args, as_json).await?,
        ServiceCommand::CherryPick(args) => {
            versions::pick(client, "cherry-pick", &args, as_json).await?;
        }
        ServiceCommand::Reset(args) => versions::reset(client, &args, as_json).await?,
    }
    Ok(())
}

async fn repo(client: &Client, command: RepoCommand, as_json: bool) -> Result<(), Failed> {
    match command {
        RepoCommand::Create { name } => {
            let made = client
                .json("PUT", &["v1", "repos", &name], &[], None)
                .await?;
            print::line(
                &made,
                as_json,
                &format!("created repository {name} with branch main"),
            );
        }
        RepoCommand::List => {
            let found = client.list(&["v1", "repos"], "repositories").await?;
            print::table(&found, "repositories", &["name", "created", "id"], as_json);
        }
        RepoCommand::Show { name } => {
            let found = client
                .json("GET", &["v1", "repos", &name], &[], None)
                .await?;
            print::fields(&found, as_json);
        }
        RepoCommand::Delete { name, yes } => {
            if !yes {
                return Err(Failed(format!(
                    "deleting {name} cannot be undone: repeat the command with --yes"
                )));
            }
            client
                .json("DELETE", &["v1", "repos", &name], &[], None)
                .await?;
            print::line(
                &json!({ "deleted": name }),
                as_json,
                &format!("deleted repository {name}"),
            );
        }
    }
    Ok(())
}

async fn refs(
    client: &Client,
    kind: &str,
    command: RefCommand,
    as_json: bool,
) -> Result<(), Failed> {
    match command {
        RefCommand::List { repository } => {
            let path = ["v1", "repos", repository.as_str(), kind];
            let found = client.list(&path, "refs").await?;
            print::table(&found, "refs", &["name", "commit"], as_json);
        }
        RefCommand::Create {
            repository,
            name,
            from,
        } => {
            let body = json!({ "from": from });
            let path = ["v1", "repos", &repository, kind, &name];
            let made = client.json("PUT", &path, &[], Some(&body)).await?;
            let commit = made["commit"].as_str().unwrap_or_default().to_owned();
            print::line(&made, as_json, &format!("created {name} at {commit}"));
        }
        RefCommand::Delete { repository, name } => {
            client
                .json(
                    "DELETE",
                    &["v1", "repos", &repository, kind, &name],
                    &[],
                    None,
                )
                .await?;
            print::line(
                &json!({ "deleted": name }),
                as_json,
                &format!("deleted {name}"),
            );
        }
    }
    Ok(())
}

pub(super) fn ref_path<'a>(target: &'a Target, what: &'a str) -> Vec<&'a str> {
    let mut path = vec![
        "v1",
        "repos",
        target.repository.as_str(),
        "refs",
        &target.reference,
        what,
    ];
    path.extend(target.path.names());
    path
}

async fn node(client: &Client, target: &Target) -> Result<Value, Failed> {
    if target.slice.is_some() {
        return Err(Failed(
            "a slice goes with get, not with this command".into(),
        ));
    }
    client
        .json("GET", &ref_path(target, "nodes"), &[], None)
        .await
}

async fn log(client: &Client, args: &LogArgs, as_json: bool) -> Result<(), Failed> {
    let mut entries: Vec<Value> = Vec::new();
    let mut after = args.after;
    let limit = args.limit.map(|limit| limit as usize);
    loop {
        let mut query = Vec::new();
        if let Some(after) = after {
            query.push(("after", after.to_string()));
        }
        let left = limit.map(|limit| limit.saturating_sub(entries.len()));
        if let Some(left) = left {
            query.push(("limit", left.to_string()));
        }
        let page = client
            .json(
                "GET",
                &["v1", "repos", &args.repository, "log"],
                &query,
                None,
            )
            .await?;
        entries.extend(page["entries"].as_array().cloned().unwrap_or_default());
        after = page["next"].as_u64();
        if after.is_none() || limit.is_some_and(|limit| entries.len() >= limit) {
            break;
        }
    }
    print::log(&entries, as_json);
    Ok(())
}
