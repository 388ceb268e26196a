//! `quarr auth`: API keys, and who one is.

use std::io::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use storage::RepoName;

use super::client::Client;
use super::{Failed, print};
use crate::auth::{Grant, GrantInfo, Role};

#[derive(Debug, Subcommand)]
pub(super) enum AuthCommand {
    /// Make, list, rotate and revoke API keys.
    #[command(subcommand)]
    Key(AuthKeyCommand),
    /// Show who a service takes you for, and what you may do.
    Whoami,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuthKeyCommand {
    /// Make a key, and print its token, which is not shown again.
    Create(CreateArgs),
    /// List the keys, also those that work no more.
    List,
    /// Give a key a new token, and print it; the one before works for a while.
    Rotate {
        /// Its name or id.
        key: String,
        /// For how long the token before works as well, at most 30d.
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_time)]
        overlap: Duration,
    },
    /// Have a key not work any more, on any node, within seconds.
    Revoke {
        /// Its name or id.
        key: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// What commits and the audit log call whoever uses it.
    name: String,
    /// What it may do: reader, writer or admin.
    #[arg(long, value_name = "ROLE", required_unless_present = "grant")]
    role: Option<Role>,
    /// In which repository; in all of them if left out.
    #[arg(long, value_name = "REPO", requires = "role")]
    repository: Option<RepoName>,
    /// To which node of it and what is below; to all of it if left out.
    #[arg(long, value_name = "PATH", requires = "repository")]
    prefix: Option<String>,
    /// More that it may do; may be repeated.
    #[arg(long, value_name = "ROLE[:REPO[:PREFIX]]")]
    grant: Vec<Grant>,
    /// When it ends: 90d, 12h.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<Duration>,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

impl CreateArgs {
    fn grants(&self) -> Result<Vec<GrantInfo>, Failed> {
        let own = self.role.map(|role| {
            Grant::try_from(GrantInfo {
                role,
                repository: self.repository.as_ref().map(ToString::to_string),
                prefix: self.prefix.clone(),
            })
        });
        let own = own.transpose().map_err(Failed)?;
        let all = own.into_iter().chain(self.grant.iter().cloned());
        Ok(all.map(GrantInfo::from).collect())
    }
}

pub(super) async fn auth(
    client: &Client,
    command: AuthCommand,
    as_json: bool,
) -> Result<(), Failed> {
    const KEYS: [&str; 3] = ["v1", "auth", "keys"];
    match command {
        AuthCommand::Whoami => {
            let me = client.json("GET", &["v1", "auth", "me"], &[], None).await?;
            let grants = grants(&me);
            let may = match me["authenticated"].as_bool() {
                Some(true) if grants.is_empty() => "nothing is granted".to_owned(),
                Some(true) => grants,
                _ => "everyone may do everything".to_owned(),
            };
            let line = format!("{}: {may}", me["name"].as_str().unwrap_or_default());
            print::line(&me, as_json, &line);
        }
        AuthCommand::Key(AuthKeyCommand::Create(args)) => {
            let mut body = json!({ "name": args.name, "grants": args.grants()? });
            if let Some(life) = args.expires {
                body["expires_in"] = json!(life.as_secs());
            }
            let made = client.json("POST", &KEYS, &[], Some(&body)).await?;
            show_token(&made, as_json)?;
        }
        AuthCommand::Key(AuthKeyCommand::List) => {
            let mut found = client.json("GET", &KEYS, &[], None).await?;
            if !as_json {
                for key in found["keys"].as_array_mut().into_iter().flatten() {
                    key["grants"] = json!(grants(key));
                }
            }
            let columns = ["id", "name", "state", "grants", "created", "expires"];
            print::table(&found, "keys", &columns, as_json);
        }
        AuthCommand::Key(AuthKeyCommand::Rotate { key, overlap }) => {
            let path = [&KEYS[..], &[&key, "rotate"]].concat();
            let body = json!({ "overlap": overlap.as_secs() });
            let made = client.json("POST", &path, &[], Some(&body)).await?;
            show_token(&made, as_json)?;
        }
        AuthCommand::Key(AuthKeyCommand::Revoke { key }) => {
            let path = [&KEYS[..], &[key.as_str()]].concat();
            let revoked = client.json("DELETE", &path, &[], None).await?;
            print::line(&revoked, as_json, &format!("revoked {key}"));
        }
    }
    Ok(())
}

/// The token alone on the output, so that it can be kept as it is.
fn show_token(made: &Value, as_json: bool) -> Result<(), Failed> {
    print::line(made, as_json, made["token"].as_str().unwrap_or_default());
    if !as_json {
        let key = &made["key"];
        let (name, id) = (key["name"].as_str(), key["id"].as_str());
        writeln!(
            std::io::stderr(),
            "API key {} ({}), {}: its token is not shown again. Servers that run without authentication ask for it once they are started again.",
            name.unwrap_or_default(),
            id.unwrap_or_default(),
            grants(key)
        )?;
    }
    Ok(())
}

/// Grants as they are given on the command line.
fn grants(of: &Value) -> String {
    let grant = |grant: &Value| {
        let parts = ["role", "repository", "prefix"].map(|name| grant[name].as_str());
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        parts.join(":")
    };
    let grants = of["grants"].as_array().into_iter().flatten();
    grants.map(grant).collect::<Vec<_>>().join(" ")
}
