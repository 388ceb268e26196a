//! The command line.
//!
//! Reading commands are HTTP requests to the service's own router, in the process for `--store` and
//! over the network for `--server`; importing, exporting and verifying work on a store directly.
#![expect(clippy::print_stderr, reason = "a command line prints its errors")]

/// Prints a line. A reader that went away, as `head` does, ends the command without a word.
macro_rules! out {
    ($($part:tt)*) => {
        if writeln!(std::io::stdout().lock(), $($part)*).is_err() {
            std::process::exit(0);
        }
    };
}

mod client;
mod print;
mod proofs;
mod serve;
mod transfer;
mod upkeep;
mod versions;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use compute::Reducer;
use query::{Engine, Settings};
use serde_json::{Value, json};
use storage::Store;

use crate::error::{Failure, Problem};
use crate::http;
use crate::state::{Limits, State};
use crate::target::Target;
use client::Client;

/// A failed command: one line saying what, where and what to do.
#[derive(Debug)]
pub struct Failed(String);

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
    #[arg(
        long,
        global = true,
        env = "QUARR_STORE",
        default_value = "./quarr-data",
        value_name = "URL"
    )]
    store: String,
    /// A running service to ask instead of a store, for instance http://localhost:8686
    #[arg(
        long,
        global = true,
        env = "QUARR_SERVER",
        value_name = "URL",
        conflicts_with = "store"
    )]
    server: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the repositories of a store over HTTP.
    Serve(serve::ServeArgs),
    /// Import a NetCDF or HDF5 file as one commit; creates the repository if it is missing.
    Import(Box<transfer::ImportArgs>),
    /// Export a group or array to a plain Zarr v3 directory, or an array to an .npy file.
    Export(transfer::ExportArgs),
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
    Get(GetArgs),
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
    /// End the history at commits older than some age; gc deletes what only they need.
    Expire(upkeep::ExpireArgs),
    /// Delete what no branch, tag, recent commit or open transaction needs.
    Gc(upkeep::GcArgs),
    /// Compute the statistics that arrays lack, as one commit.
    RewriteManifest(upkeep::RewriteArgs),
    /// Check every byte of a commit, or of a whole repository if no ref is given.
    Verify(transfer::VerifyArgs),
    /// Prove what a slice holds, for someone who has neither the store nor the service.
    Prove(proofs::ProveArgs),
    /// Check a proof; needs neither store nor service.
    CheckProof(proofs::CheckArgs),
    /// Print the OpenAPI document.
    #[command(hide = true)]
    Openapi,
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
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
struct GetArgs {
    #[arg(help = "REPO[@REF]/PATH[SLICE], for instance 'eraint/z[0,1,:,10:20]'")]
    target: Target,
    /// What to reduce it to.
    #[arg(long, value_name = "REDUCER", value_parser = PossibleValuesParser::new(Reducer::NAMES))]
    reduce: Option<String>,
    /// Dimensions to reduce over, comma separated; all if left out.
    #[arg(long, requires = "reduce")]
    over: Option<String>,
    /// Keep reduced dimensions with length 1.
    #[arg(long, requires = "reduce")]
    keepdims: bool,
    /// Leave out NaN; by default for floats.
    #[arg(long, requires = "reduce", value_name = "true|false")]
    skipna: Option<bool>,
    /// Delta degrees of freedom of std and var.
    #[arg(long, requires = "reduce")]
    ddof: Option<u32>,
    /// Fewest valid values a sum needs.
    #[arg(long, requires = "reduce")]
    min_count: Option<u64>,
    /// float64 gives the accumulator whatever the array's type.
    #[arg(long, requires = "reduce", value_parser = ["float64"])]
    dtype: Option<String>,
    /// Missing and packed values: cf (masked and scaled), mask, raw.
    #[arg(long, default_value = "cf", value_parser = ["cf", "mask", "raw"])]
    decode: String,
    /// Refuse slices that reach past the array instead of cutting them off.
    #[arg(long)]
    strict: bool,
    /// Write to this file: .npy, .json or .bin (raw, little-endian).
    #[arg(short, long, value_name = "FILE", value_parser = output_file)]
    output: Option<PathBuf>,
}

/// The name of a file that can be written.
fn output_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy" | "json" | "bin") => Ok(path),
        _ => Err("the name ends in none of .npy, .json, .bin".into()),
    }
}

/// Runs a command; prints one line and fails if it fails.
pub async fn run(cli: Cli) -> ExitCode {
    match execute(cli).await {
        Ok(code) => code,
        Err(Failed(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The state over the store a command works on.
fn open_state(store: &str) -> Result<State, Failed> {
    Ok(State::new(
        Store::open(store)?,
        Engine::new(Settings::default())?,
        Limits::default(),
    ))
}

fn client(place: &Place) -> Result<Client, Failed> {
    match &place.server {
        Some(url) => Ok(Client::remote(url)),
        None => Ok(Client::in_process(http::router(open_state(&place.store)?))),
    }
}

/// The store, for commands that need one.
fn local_state(place: &Place, command: &str) -> Result<State, Failed> {
    if let Some(server) = &place.server {
        let reason =
            format!("{command} works on a store: give --store instead of --server {server}");
        return Err(Failed(reason));
    }
    open_state(&place.store)
}

async fn execute(cli: Cli) -> Result<ExitCode, Failed> {
    let place = &cli.place;
    match cli.command {
        Command::Serve(args) => {
            serve::serve(local_state(place, "serve")?, &args).await?;
        }
        Command::Import(args) => {
            transfer::import(&local_state(place, "import")?, *args, place.json).await?;
        }
        Command::Export(args) => {
            transfer::export(&local_state(place, "export")?, &args, place.json).await?;
        }
        Command::Verify(args) => {
            return transfer::verify(&local_state(place, "verify")?, &args, place.json).await;
        }
        Command::Expire(args) => {
            upkeep::expire(&local_state(place, "expire")?, &args, place.json).await?;
        }
        Command::Gc(args) => {
            upkeep::gc(&local_state(place, "gc")?, &args, place.json).await?;
        }
        Command::RewriteManifest(args) => {
            let state = local_state(place, "rewrite-manifest")?;
            upkeep::rewrite(&state, &args, place.json).await?;
        }
        Command::Prove(args) => proofs::prove(&client(place)?, &args, place.json).await?,
        Command::CheckProof(args) => proofs::check_proof(&args, place.json)?,
        Command::Openapi => out!("{}", http::openapi_document().to_pretty_json()?),
        Command::Repo(command) => repo(&client(place)?, command, place.json).await?,
        Command::Branch(command) => refs(&client(place)?, "branches", command, place.json).await?,
        Command::Tag(command) => refs(&client(place)?, "tags", command, place.json).await?,
        Command::Ls(args) => {
            let node = node(&client(place)?, &args.target).await?;
            print::members(&node, place.json);
        }
        Command::Show(args) => {
            let node = node(&client(place)?, &args.target).await?;
            print::node(&node, place.json);
        }
        Command::Log(args) => log(&client(place)?, &args, place.json).await?,
        Command::Get(args) => get(&client(place)?, &args, place.json).await?,
        Command::Tx(command) => versions::tx(&client(place)?, command, place.json).await?,
        Command::Merge(args) => versions::merge(&client(place)?, &args, place.json).await?,
        Command::Diff(args) => versions::diff(&client(place)?, &args, place.json).await?,
        Command::Revert(args) => {
            versions::pick(&client(place)?, "revert", &args, place.json).await?;
        }
        Command::CherryPick(args) => {
            versions::pick(&client(place)?, "cherry-pick", &args, place.json).await?;
        }
        Command::Reset(args) => versions::reset(&client(place)?, &args, place.json).await?,
    }
    Ok(ExitCode::SUCCESS)
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
            let found = client.json("GET", &["v1", "repos"], &[], None).await?;
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
            let found = client
                .json("GET", &["v1", "repos", &repository, kind], &[], None)
                .await?;
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

fn ref_path<'a>(target: &'a Target, what: &'a str) -> Vec<&'a str> {
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
    loop {
        let mut query = Vec::new();
        if let Some(after) = after {
            query.push(("after", after.to_string()));
        }
        let left = args.limit.map(|limit| limit.saturating_sub(entries.len()));
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
        if after.is_none() || args.limit.is_some_and(|limit| entries.len() >= limit) {
            break;
        }
    }
    print::log(&entries, as_json);
    Ok(())
}

async fn get(client: &Client, args: &GetArgs, as_json: bool) -> Result<(), Failed> {
    let extension = args
        .output
        .as_ref()
        .and_then(|path| path.extension()?.to_str());
    let format = match extension {
        Some("npy") => "npy",
        Some("bin") => "octet-stream",
        _ => "json",
    };
    let mut query = vec![("f", format.to_owned()), ("decode", args.decode.clone())];
    if let Some(slice) = &args.target.slice {
        query.push(("slice", slice.clone()));
    }
    if args.strict {
        query.push(("strict", "true".into()));
    }
    let what = if let Some(reducer) = &args.reduce {
        query.push(("reduce", reducer.clone()));
        query.extend(args.over.clone().map(|over| ("over", over)));
        query.extend(args.skipna.map(|skip| ("skipna", skip.to_string())));
        query.extend(args.ddof.map(|ddof| ("ddof", ddof.to_string())));
        query.extend(args.min_count.map(|count| ("min_count", count.to_string())));
        query.extend(args.dtype.clone().map(|dtype| ("dtype", dtype)));
        query.push(("keepdims", args.keepdims.to_string()));
        "reduce"
    } else {
        "data"
    };
    let bytes = client
        .bytes("GET", &ref_path(&args.target, what), &query, None)
        .await?;
    match &args.output {
        Some(path) => {
            std::fs::write(path, &bytes)
                .map_err(|error| Failed(format!("cannot write {}: {error}", path.display())))?;
            eprintln!("wrote {} bytes to {}", bytes.len(), path.display());
        }
        None => print::tensor(&serde_json::from_slice(&bytes)?, as_json),
    }
    Ok(())
}
