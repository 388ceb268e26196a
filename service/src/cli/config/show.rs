//! `quarr config show`: what the settings are and where they are from.

use std::io::Write as _;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::{Configured, Values, is_place, is_secret, settings, text, variable};
use crate::cli::environment;
use crate::http::without_secrets;

/// A setting and where it is from.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) flag: String,
    pub(super) values: Vec<String>,
    pub(super) source: String,
}

/// What the settings of a command line are. None of commands that have others.
pub(super) fn rows(command: &Command, matches: &ArgMatches, values: &Values) -> Vec<Row> {
    let Some(matches) = matches
        .subcommand_matches("config")
        .and_then(|config| config.subcommand_matches("show"))
    else {
        return Vec::new();
    };
    let known = settings(command);
    known.iter().map(|arg| row(arg, matches, values)).collect()
}

fn row(arg: &Arg, matches: &ArgMatches, values: &Values) -> Row {
    let flag = arg.get_long().unwrap_or_default().to_owned();
    let id = arg.get_id().as_str();
    let raw = matches.get_raw(id).into_iter().flatten();
    let mut shown: Vec<String> = raw.map(text).collect();
    let of_file = values.get(&flag);
    let source = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => format!("--{flag}"),
        Some(ValueSource::EnvVariable) => variable(arg),
        Some(_) if of_file.is_none() => "default".to_owned(),
        _ => {
            let variable = variable(arg);
            let named = environment(&variable).filter(|_| is_place(arg));
            match (named, of_file) {
                (Some(value), _) => {
                    shown = vec![value];
                    variable
                }
                (None, Some(setting)) => {
                    shown.clone_from(&setting.values);
                    values.place(setting)
                }
                (None, None) => "not set".to_owned(),
            }
        }
    };
    let shown = shown.into_iter().map(|value| match is_secret(arg) {
        true => "(secret)".to_owned(),
        false => without_secrets(&value),
    });
    Row {
        flag,
        values: shown.collect(),
        source,
    }
}

/// Prints the settings.
pub(in crate::cli) fn show(configured: &Configured, as_json: bool) {
    if as_json {
        let setting =
            |row: &Row| json!({ "setting": row.flag, "values": row.values, "source": row.source });
        let settings: Vec<_> = configured.rows.iter().map(setting).collect();
        out!("{}", json!({ "settings": settings }));
        return;
    }
    let width = configured.rows.iter().map(|row| row.flag.len()).max();
    let width = width.unwrap_or(0);
    for row in &configured.rows {
        let value = match row.values.is_empty() {
            true => "-".to_owned(),
            false => row.values.join(", "),
        };
        out!("{:width$}  {value}  ({})", row.flag, row.source);
    }
}
