//! `quarr tx`, `merge`, `diff`, `revert`, `cherry-pick` and `reset`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use array::NodePath;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage::RepoName;

use super::client::Client;
use super::{Failed, print};
use crate::values::NpyHeader;

#[derive(Debug, Subcommand)]
pub(super) enum TxCommand {
    /// Open a transaction and print its id.
    Begin {
        /// The repository.
        repository: RepoName,
        /// The branch it starts from and is committed to.
        #[arg(long, default_value = "main")]
        branch: String,
        /// Commit only if nothing it read has changed.
        #[arg(long)]
        serializable: bool,
    },
    /// Write a file to an array or a region of it, or to the metadata of a node.
    Put {
        /// The transaction.
        id: String,
        #[arg(help = "PATH[SLICE], for instance 'era5/t2m[0:24,:,:]'")]
        target: Place,
        /// Values in an .npy file, or metadata in a .json file (a zarr.json or its short form). An
        /// array that does not exist is created as the .npy file is.
        file: PathBuf,
    },
    /// Delete a group or array, with everything below it.
    Rm {
        /// The transaction.
        id: String,
        /// The node.
        path: NodePath,
    },
    /// Move a group or array without touching its data.
    Mv {
        /// The transaction.
        id: String,
        /// The node.
        from: NodePath,
        /// Where it goes; groups above are created.
        to: NodePath,
    },
    /// Show a transaction.
    Show {
        /// The transaction.
        id: String,
    },
    /// Commit a transaction.
    Commit {
        /// The transaction.
        id: String,
        #[command(flatten)]
        how: CommitArgs,
    },
    /// Give a transaction up.
    Abort {
        /// The transaction.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct CommitArgs {
    /// What the commit is for.
    #[arg(short, long, value_name = "MSG")]
    message: Option<String>,
    /// What to do where both sides changed the same thing. For a merge, ours is what the branch
    /// has.
    #[arg(long, default_value = "fail", value_parser = PossibleValuesParser::new(["fail", "ours", "theirs"]))]
    on_conflict: String,
}

impl CommitArgs {
    fn body(&self) -> Value {
        let mut body = json!({ "author": author(), "on_conflict": self.on_conflict });
        if let Some(message) = &self.message {
            body["message"] = json!(message);
        }
        body
    }
}

/// Who works on this terminal.
pub(super) fn author() -> String {
    ["QUARR_AUTHOR", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "quarr".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// The repository.
    repository: RepoName,
    /// What is merged: a branch, tag, commit, x~n or x@time.
    from: String,
    /// The branch that gets the changes.
    #[arg(default_value = "main")]
    into: String,
    #[command(flatten)]
    how: CommitArgs,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The repository.
    repository: RepoName,
    /// The earlier commit: a branch, tag, commit, x~n or x@time.
    from: String,
    /// The later one.
    #[arg(default_value = "main")]
    to: String,
}

#[derive(Debug, Args)]
pub(super) struct PickArgs {
    /// The repository.
    repository: RepoName,
    /// The commit: a branch, tag, commit, x~n or x@time.
    commit: String,
    /// The branch to commit to.
    #[arg(long, default_value = "main")]
    branch: String,
    #[command(flatten)]
    how: CommitArgs,
}

#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    /// The repository.
    repository: RepoName,
    /// The branch.
    branch: String,
    /// Where to: a branch, tag, commit, x~n or x@time.
    to: String,
}

/// A node and a slice of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: NodePath,
    slice: Option<String>,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, slice) = match text.split_once('[') {
            Some((path, slice)) => {
                let slice = slice.strip_suffix(']');
                (path, Some(slice.ok_or("\"[\" without \"]\" at the end")?))
            }
            None => (text, None),
        };
        Ok(Self {
            path: path
                .parse()
                .map_err(|error: array::Error| error.to_string())?,
            slice: slice.map(str::to_owned),
        })
    }
}

/// The URL of something of a transaction.
fn url<'a>(id: &'a str, what: &'a str, path: &'a NodePath) -> Vec<&'a str> {
    let mut url = vec!["v1", "transactions", id, what];
    url.extend(path.names());
    url
}

pub(super) async fn tx(client: &Client, command: TxCommand, as_json: bool) -> Result<(), Failed> {
    match command {
        TxCommand::Begin {
            repository,
            branch,
            serializable,
        } => {
            let isolation = if serializable {
                "serializable"
            } else {
                "snapshot"
            };
            let body = json!({ "branch": branch, "isolation": isolation, "author": author() });
            let path = ["v1", "repos", repository.as_str(), "transactions"];
            let opened = client.json("POST", &path, &[], Some(&body)).await?;
            print::line(&opened, as_json, opened["id"].as_str().unwrap_or_default());
        }
        TxCommand::Put { id, target, file } => put(client, &id, &target, &file, as_json).await?,
        TxCommand::Rm { id, path } => {
            client
                .json("DELETE", &url(&id, "nodes", &path), &[], None)
                .await?;
            print::line(
                &json!({ "deleted": path.as_str() }),
                as_json,
                &format!("deleted {path}"),
            );
        }
        TxCommand::Mv { id, from, to } => {
            let body = json!({ "from": from.as_str(), "to": to.as_str() });
            let path = ["v1", "transactions", &id, "move"];
            client.json("POST", &path, &[], Some(&body)).await?;
            print::line(&body, as_json, &format!("moved {from} to {to}"));
        }
        TxCommand::Show { id } => {
            let shown = client
                .json("GET", &["v1", "transactions", &id], &[], None)
                .await?;
            print::fields(&shown, as_json);
        }
        TxCommand::Commit { id, how } => {
            let path = ["v1", "transactions", &id, "commit"];
            let made = client.json("POST", &path, &[], Some(&how.body())).await?;
            committed(&made, as_json);
        }
        TxCommand::Abort { id } => {
            client
                .json("DELETE", &["v1", "transactions", &id], &[], None)
                .await?;
            print::line(&json!({ "aborted": id }), as_json, &format!("gave up {id}"));
        }
    }
    Ok(())
}

fn committed(made: &Value, as_json: bool) {
    let text = |name: &str| made[name].as_str().unwrap_or_default();
    let line = format!("{} is at {}", text("branch"), text("commit"));
    print::line(made, as_json, &line);
}

async fn put(
    client: &Client,
    id: &str,
    target: &Place,
    file: &Path,
    as_json: bool,
) -> Result<(), Failed> {
    let body = std::fs::read(file)
        .map_err(|error| Failed(format!("cannot read {}: {error}", file.display())))?;
    let Place { path, slice } = target;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") => {
            let body = ("application/json", body.into());
            client
                .send("PUT", &url(id, "nodes", path), &[], body)
                .await?;
        }
        Some("npy") => {
            let header = NpyHeader::parse(&body)?;
            if slice.is_none() && !exists(client, id, path).await? {
                create(client, id, path, &header).await?;
            }
            let query: Vec<(&str, String)> = slice.iter().map(|s| ("slice", s.clone())).collect();
            let body = ("application/x-npy", body.into());
            client
                .send("PUT", &url(id, "data", path), &query, body)
                .await?;
        }
        _ => {
            return Err(Failed(format!(
                "{}: the name ends in neither .npy nor .json",
                file.display()
            )));
        }
    }
    let line = format!("wrote {} to {path}", file.display());
    print::line(&json!({ "written": path.as_str() }), as_json, &line);
    Ok(())
}

async fn exists(client: &Client, id: &str, path: &NodePath) -> Result<bool, Failed> {
    let parent = path.parent().unwrap_or_default();
    let found = client
        .json("GET", &url(id, "nodes", &parent), &[], None)
        .await;
    let Ok(found) = found else {
        // Groups above are created with the array.
        return Ok(false);
    };
    let members = found["members"].as_array();
    let is_it = |member: &Value| member["name"] == path.name();
    Ok(members.is_some_and(|members| members.iter().any(is_it)))
}

/// Creates an array that holds what an npy file holds.
async fn create(
    client: &Client,
    id: &str,
    path: &NodePath,
    header: &NpyHeader,
) -> Result<(), Failed> {
    let names = [
        ("b1", "bool"),
        ("i1", "int8"),
        ("i2", "int16"),
        ("i4", "int32"),
        ("i8", "int64"),
        ("u1", "uint8"),
        ("u2", "uint16"),
        ("u4", "uint32"),
        ("u8", "uint64"),
        ("f2", "float16"),
        ("f4", "float32"),
        ("f8", "float64"),
        ("c8", "complex64"),
        ("c16", "complex128"),
    ];
    let kind = header.descr.trim_start_matches(['<', '>', '|', '=']);
    let Some((_, data_type)) = names.iter().find(|(descr, _)| *descr == kind) else {
        let reason = format!(
            "{path} does not exist, and an array of type {} has to be created with a .json file first",
            header.descr
        );
        return Err(Failed(reason));
    };
    let body = json!({ "shape": header.shape, "data_type": data_type });
    client
        .json("PUT", &url(id, "nodes", path), &[], Some(&body))
        .await?;
    Ok(())
}

pub(super) async fn merge(client: &Client, args: &MergeArgs, as_json: bool) -> Result<(), Failed> {
    let mut body = args.how.body();
    body["from"] = json!(args.from);
    body["into"] = json!(args.into);
    let path = ["v1", "repos", args.repository.as_str(), "merge"];
    committed(
        &client.json("POST", &path, &[], Some(&body)).await?,
        as_json,
    );
    Ok(())
}

pub(super) async fn pick(
    client: &Client,
    what: &str,
    args: &PickArgs,
    as_json: bool,
) -> Result<(), Failed> {
    let mut body = args.how.body();
    body["commit"] = json!(args.commit);
    let path = [
        "v1",
        "repos",
        args.repository.as_str(),
        "branches",
        &args.branch,
        what,
    ];
    committed(
        &client.json("POST", &path, &[], Some(&body)).await?,
        as_json,
    );
    Ok(())
}

pub(super) async fn reset(client: &Client, args: &ResetArgs, as_json: bool) -> Result<(), Failed> {
    let body = json!({ "to": args.to });
    let path = [
        "v1",
        "repos",
        args.repository.as_str(),
        "branches",
        &args.branch,
        "reset",
    ];
    let moved = client.json("POST", &path, &[], Some(&body)).await?;
    let text = |name: &str| moved[name].as_str().unwrap_or_default();
    let line = format!(
        "{} is at {}, it was at {}",
        args.branch,
        text("to"),
        text("from")
    );
    print::line(&moved, as_json, &line);
    Ok(())
}

pub(super) async fn diff(client: &Client, args: &DiffArgs, as_json: bool) -> Result<(), Failed> {
    let path = [
        "v1",
        "repos",
        args.repository.as_str(),
        "diff",
        &args.from,
        &args.to,
    ];
    let found = client.json("GET", &path, &[], None).await?;
    if as_json {
        out!("{found}");
        return Ok(());
    }
    for node in found["nodes"].as_array().into_iter().flatten() {
        let text = |name: &str| node[name].as_str().unwrap_or_default();
        let list = |name: &str| -> Vec<&str> {
            node[name]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect()
        };
        let mut details = Vec::new();
        for (name, label) in [("metadata", "metadata"), ("attributes", "attributes")] {
            if !list(name).is_empty() {
                details.push(format!("{label} {}", list(name).join(", ")));
            }
        }
        if !list("slices").is_empty() {
            details.push(format!(
                "{} chunks in [{}]",
                node["chunks"],
                list("slices").join("] [")
            ));
        }
        let path = if text("path").is_empty() {
            "/"
        } else {
            text("path")
        };
        out!(
            "{:8} {:5} {path}  {}",
            text("change"),
            text("kind"),
            details.join("; ")
        );
    }
    Ok(())
}
