//! `quarr key`: the keys that sign a repository's log.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage::{RepoName, list_repositories};

use super::Failed;
use super::client::Client;
use crate::keys::KeyDirectory;
use crate::signing::Signing;
use crate::state::State;
use crate::witness::Witness;

/// How the log is signed, for every command that appends to it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub(super) struct SigningArgs {
    /// Directory with the private keys of logs, by default quarr/keys in the user's configuration
    /// directory.
    #[arg(long, global = true, env = "QUARR_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
    /// A witness that signs every head of a log, and where it takes them; may be repeated.
    #[arg(
        long,
        global = true,
        env = "QUARR_WITNESS",
        value_delimiter = ' ',
        value_name = "VKEY,URL"
    )]
    witness: Vec<Witness>,
    /// How many witnesses must sign a head before it is published.
    #[arg(
        long,
        global = true,
        env = "QUARR_WITNESS_QUORUM",
        default_value_t = 0,
        value_name = "COUNT"
    )]
    witness_quorum: usize,
}

impl SigningArgs {
    /// Signing as asked for; `None` if there is no place for keys.
    pub(super) fn open(&self) -> Result<Option<Signing>, Failed> {
        if self.witness_quorum > self.witness.len() {
            return Err(Failed(format!(
                "--witness-quorum {}: only {} witnesses are given",
                self.witness_quorum,
                self.witness.len()
            )));
        }
        let mut names: Vec<String> = self.witness.iter().map(|w| w.key().to_string()).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Failed(format!("--witness {} is given twice", twice[0])));
        }
        let directory = self.keys.clone().or_else(KeyDirectory::of_user);
        Ok(directory.map(|path| {
            let witnesses = self.witness.clone();
            Signing::new(KeyDirectory::new(path), witnesses, self.witness_quorum)
        }))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Print the public keys that logs are signed with, to be given to whoever checks proofs.
    Show {
        /// The repository; all if left out.
        repository: Option<RepoName>,
    },
    /// Make the key of a log and publish its first signed head.
    Create {
        /// The repository; all without a key if left out.
        repository: Option<RepoName>,
        /// What the log is called, by custom an address without https://. Unique, and for ever.
        /// [default: quarr/ and the repository's id]
        #[arg(long, value_name = "NAME", requires = "repository")]
        origin: Option<String>,
    },
    /// Make another key; from now on it signs too.
    Rotate {
        /// The repository; all with a key if left out.
        repository: Option<RepoName>,
        /// The keys before it sign no more: whoever trusts only them must be told the new one.
        #[arg(long)]
        retire: bool,
    },
}

pub(super) async fn show(
    client: &Client,
    repository: Option<&RepoName>,
    as_json: bool,
) -> Result<(), Failed> {
    let repositories = match repository {
        Some(name) => {
            let path = ["v1", "repos", name.as_str()];
            vec![client.json("GET", &path, &[], None).await?]
        }
        None => {
            let all = client.list(&["v1", "repos"], "repositories").await?;
            all["repositories"].as_array().cloned().unwrap_or_default()
        }
    };
    let mut keys = Vec::new();
    for found in &repositories {
        for key in found["log_keys"].as_array().into_iter().flatten() {
            keys.push(json!({ "repository": found["name"], "vkey": key }));
        }
    }
    if let (Some(name), true) = (repository, keys.is_empty()) {
        return Err(Failed(format!(
            "the log of {name} is not signed here: quarr key create {name} makes a key"
        )));
    }
    print_keys(&keys, repository.is_none(), as_json);
    Ok(())
}

fn print_keys(keys: &[Value], with_names: bool, as_json: bool) {
    if as_json {
        out!("{}", json!({ "keys": keys }));
        return;
    }
    for key in keys {
        let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        match with_names {
            true => out!("{} {}", text("repository"), text("vkey")),
            false => out!("{}", text("vkey")),
        }
    }
}

/// Makes keys, and publishes what they sign.
pub(super) async fn change(
    state: &State,
    command: &KeyCommand,
    as_json: bool,
) -> Result<(), Failed> {
    let signing = state
        .signing()
        .ok_or_else(|| Failed("there is no home directory: give --keys DIR".into()))?;
    let (KeyCommand::Show { repository }
    | KeyCommand::Create { repository, .. }
    | KeyCommand::Rotate { repository, .. }) = command;
    let names: Vec<RepoName> = match repository {
        Some(name) => vec![name.clone()],
        None => {
            let all = list_repositories(state.store()).await?;
            all.iter().filter_map(|name| name.parse().ok()).collect()
        }
    };
    let directory = signing.keys();
    let mut made = Vec::new();
    for name in &names {
        let opened = state.repository(name).await?;
        let has_key = !directory
            .keys(opened.id())
            .map_err(Failed)?
            .signing
            .is_empty();
        let keys = match command {
            KeyCommand::Show { .. } => continue,
            KeyCommand::Create { .. } if has_key && repository.is_none() => continue,
            KeyCommand::Create { origin, .. } => {
                if let Some(published) = opened.published().await?.filter(|_| !has_key) {
                    return Err(Failed(format!(
                        "the log of {name} is signed already, as {}: bring the files of its key to this machine, or delete tlog/checkpoint and tlog/heads from the store if that key is lost",
                        published.head.origin
                    )));
                }
                let origin = origin.clone();
                let origin = origin.unwrap_or_else(|| format!("quarr/{}", opened.id()));
                let key = directory.create(opened.id(), &origin).map_err(Failed)?;
                vec![key.verifier()]
            }
            KeyCommand::Rotate { .. } if !has_key && repository.is_none() => continue,
            KeyCommand::Rotate { retire, .. } => {
                let keys = directory.rotate(opened.id(), *retire).map_err(Failed)?;
                keys.verifiers()
            }
        };
        let published = signing.publish(&opened).await?;
        for warning in published
            .into_iter()
            .flat_map(|published| published.without)
        {
            writeln!(std::io::stderr(), "warning: {warning}")?;
        }
        for key in keys {
            made.push(json!({
                "repository": name.as_str(),
                "vkey": key.to_string(),
                "file": directory.key_file(opened.id()),
            }));
        }
    }
    print_keys(&made, repository.is_none(), as_json);
    if let (false, Some(first)) = (as_json, made.first()) {
        let file = first["file"].as_str().unwrap_or_default();
        let told = format!(
            "private key in {file}: let nobody read it, and keep it together with the .head file beside it"
        );
        writeln!(std::io::stderr(), "{told}")?;
    }
    Ok(())
}
