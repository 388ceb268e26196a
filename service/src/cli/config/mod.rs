//! Settings from `quarr.toml`, the environment and the command line, the later over the earlier.
//!
//! ```text
//! clap's arguments ─► settings: flag, key, variable ◄─ quarr.toml, with lines
//!                        └─► the same arguments, with variables, and the file's values as defaults
//! ```
//!
//! Architecture invariant: nothing is registered here. Every argument that all commands take, and
//! every one of `quarr serve`, is a setting; its key is its flag, and where it names no variable
//! itself, that is made of the flag.

mod file;
mod show;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _, Subcommand};

use super::serve::ServeArgs;
use super::{Cli, Failed, environment};
pub(super) use file::Values;
pub(super) use show::show;

/// Arguments that say what one command does, not how the program is set up.
const NO_SETTINGS: [&str; 4] = ["config", "help", "json", "version"];
/// Places exclude each other, so that their variables and keys come after both flags: see
/// [`super::Place`].
const PLACES: [&str; 2] = ["store", "server"];

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings `quarr serve` has when it is given the same flags, and where each is from.
    Show(Box<ServeArgs>),
    /// Print the table of all settings, as Markdown.
    #[command(hide = true)]
    Table,
}

/// What a command line was read with.
#[derive(Clone, Debug, Default)]
pub(super) struct Configured {
    /// The file's settings.
    pub(super) values: Values,
    /// What `quarr config show` prints.
    rows: Vec<show::Row>,
}

impl Configured {
    /// A place that the file names.
    pub(super) fn place(&self, flag: &str) -> Option<String> {
        let setting = self.values.get(flag)?;
        setting.values.first().cloned()
    }
}

/// Reads the command line, the environment and the file of settings.
///
/// # Errors
/// The exit code, once it is said what is wrong, or what was asked for is printed.
pub fn parse() -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match read(&arguments) {
        Ok(Ok(cli)) => Ok(cli),
        // Help is no error, and goes to standard output.
        Ok(Err(error)) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            Err(ExitCode::from(code))
        }
        Err(Failed(reason)) => {
            eprintln!("error: {reason}");
            Err(ExitCode::from(2))
        }
    }
}

/// The command line as it is understood, or what clap says to it.
fn read(arguments: &[OsString]) -> Result<Result<Cli, clap::Error>, Failed> {
    let values = match file_named(arguments) {
        Some(path) => Values::read(&path, &settings(&Cli::command()))?,
        None => Values::default(),
    };
    let command = with_values(&with_variables(Cli::command()), &values);
    let parsed = command.clone().try_get_matches_from(arguments);
    let read = parsed.and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        let rows = show::rows(&command, &matches, &values);
        cli.place.configured = Configured { values, rows };
        Ok(cli)
    });
    Ok(read)
}

/// The file that `--config` or the environment names. It is needed before the rest is understood.
fn file_named(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().skip(1);
    let mut named = None;
    while let Some(argument) = arguments.next().filter(|argument| *argument != "--") {
        if argument == "--config" {
            named = arguments.next().map(PathBuf::from);
        } else if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            named = Some(path.into());
        }
    }
    named.or_else(|| environment("QUARR_CONFIG").map(PathBuf::from))
}

/// The arguments that are settings: of every command, then of `quarr serve`, in their order.
pub(super) fn settings(command: &Command) -> Vec<Arg> {
    let of_all = command.get_arguments().filter(|arg| arg.is_global_set());
    let serve = command.find_subcommand("serve");
    let of_serve = serve.into_iter().flat_map(Command::get_arguments);
    of_all
        .chain(of_serve)
        .filter(|arg| is_setting(arg))
        .cloned()
        .collect()
}

fn is_setting(arg: &Arg) -> bool {
    let is_named = |long: &str| !NO_SETTINGS.contains(&long);
    arg.get_long().is_some_and(is_named) && !arg.is_hide_set()
}

/// The variable of a setting.
pub(super) fn variable(arg: &Arg) -> String {
    match arg.get_env() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => {
            let flag = arg.get_long().unwrap_or_default();
            format!("QUARR_{}", flag.replace('-', "_").to_uppercase())
        }
    }
}

fn is_place(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| PLACES.contains(&long))
}

/// Changes every setting, wherever it is an argument.
fn map_settings(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    let change_one = |arg: Arg| match is_setting(&arg) && !is_place(&arg) {
        true => change(arg),
        false => arg,
    };
    let of_serve = |command: Command| command.mut_args(change_one);
    let command = command.mut_args(|arg| match arg.is_global_set() {
        true => change_one(arg),
        false => arg,
    });
    command
        .mut_subcommand("serve", of_serve)
        .mut_subcommand("config", |config| config.mut_subcommand("show", of_serve))
}

/// The command, whose settings all have a variable.
fn with_variables(command: Command) -> Command {
    map_settings(command, &|arg| {
        let variable = variable(&arg);
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = match arg.get_env() {
            Some(_) => arg,
            None => arg.env(variable),
        };
        match is_switch {
            true => arg.value_parser(BoolishValueParser::new()),
            false => arg,
        }
    })
}

/// The command, with these values instead of its own defaults.
fn with_values(command: &Command, values: &Values) -> Command {
    map_settings(command.clone(), &|arg| {
        let setting = arg.get_long().and_then(|long| values.get(long));
        match setting {
            Some(setting) => arg.default_values(setting.values.clone()),
            None => arg,
        }
    })
}

/// Whether a setting's value is not to be shown.
fn is_secret(arg: &Arg) -> bool {
    let flag = arg.get_long().unwrap_or_default();
    let words = ["secret", "password", "token"];
    arg.is_hide_env_values_set() || words.iter().any(|word| flag.contains(word))
}

/// Settings as a table, one row each.
pub(super) fn table() -> String {
    let command = with_variables(Cli::command());
    let mut text = "| flag and key | variable | default | what |\n|---|---|---|---|\n".to_owned();
    for arg in settings(&command) {
        let flag = arg.get_long().unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (help, mut default) = split_default(&help);
        let defaults = arg.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() && default.is_empty() {
            default = format!("`{}`", defaults.join(","));
        }
        let variable = variable(&arg);
        let row = format!("| `{flag}` | `{variable}` | {default} | {help} |\n");
        text.push_str(&row);
    }
    text
}

/// The help of an argument without the notes in brackets that clap cannot write itself, and the
/// default that one of them tells.
fn split_default(help: &str) -> (String, String) {
    let help = help.replace('\n', " ").replace('|', "\\|");
    let mut default = String::new();
    let mut rest = help.as_str();
    let mut kept = String::new();
    while let Some(start) = rest.find(" [") {
        let Some(length) = rest[start..].find(']') else {
            break;
        };
        let note = &rest[start + 2..start + length];
        kept.push_str(&rest[..start]);
        match note.strip_prefix("default: ") {
            Some(text) => default = text.to_owned(),
            None if note.starts_with("env: ") => {}
            None => kept.push_str(&rest[start..=start + length]),
        }
        rest = &rest[start + length + 1..];
    }
    kept.push_str(rest);
    (kept.trim().trim_end_matches('.').to_owned(), default)
}

/// Text of an argument.
fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line is understood as, with this file.
    fn with_file(file: &str, arguments: &[&str]) -> Result<Result<Cli, clap::Error>, Failed> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("quarr.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let whole = [&["quarr", "--config", &path][..], arguments].concat();
        let whole: Vec<OsString> = whole.iter().map(OsString::from).collect();
        read(&whole)
    }

    fn shown(file: &str, arguments: &[&str], flag: &str) -> (String, String) {
        let arguments = [&["config", "show"], arguments].concat();
        let cli = with_file(file, &arguments).ok().unwrap().unwrap();
        let mut rows = cli.place.configured.rows.into_iter();
        let row = rows.find(|row| row.flag == flag).unwrap();
        let source = row.source.split(" (").next().unwrap().to_owned();
        (row.values.join(","), source)
    }

    fn refused(file: &str) -> String {
        with_file(file, &["serve"]).unwrap_err().0
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let file = "jobs = 5\n[import]\nallow = [\"/a\", \"https://x.example\"]\n";
        let row = |arguments: &[&str], flag: &str| {
            let (value, source) = shown(file, arguments, flag);
            (value, source.split(':').next().unwrap().to_owned())
        };
        assert_eq!(row(&[], "jobs").0, "5");
        assert_eq!(row(&["--jobs", "7"], "jobs"), ("7".into(), "--jobs".into()));
        assert_eq!(row(&[], "import-allow").0, "/a,https://x.example");
        assert_eq!(row(&["--import-allow", "/b"], "import-allow").0, "/b");
        assert_eq!(row(&[], "export-allow").1, "not set");
        assert_eq!(
            row(&[], "listen"),
            ("127.0.0.1:8686".into(), "default".into())
        );
    }

    #[test]
    fn a_key_is_a_flag_and_a_table_its_first_words() {
        for file in [
            "import-allow = [\"/a\"]",
            "[import]\nallow = [\"/a\"]",
            "import = { allow = [\"/a\"] }",
            "import.allow = \"/a\"",
            "import_allow = [\"/a\"]",
        ] {
            assert_eq!(shown(file, &[], "import-allow").0, "/a", "{file}");
        }
        assert_eq!(shown("insecure = true", &[], "insecure").0, "true");
        assert_eq!(
            shown("memory-limit = \"1GiB\"", &[], "memory-limit").0,
            "1GiB"
        );
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for (file, parts) in [
            (
                "\n\nlisten = \"x\"",
                &["quarr.toml:3:", "listen", "\"x\""][..],
            ),
            (
                "lisen = \"127.0.0.1:1\"",
                &[":1:", "lisen", "did you mean listen"],
            ),
            (
                "[import]\n\nalow = [\"/a\"]",
                &[":3:", "did you mean import-allow"],
            ),
            ("jobs = 0", &[":1:", "jobs"]),
            ("jobs = [1, 2]", &[":1:", "jobs", "one value"]),
            ("insecure = \"yes\"", &[":1:", "insecure", "true or false"]),
            ("jobs = 1\n[jobs]\nx = 1", &[":2:"]),
            ("jobs = 1979-05-27", &[":1:", "jobs"]),
            (
                "import-allow = [\"/a,b\"]",
                &[":1:", "import-allow", "\",\""],
            ),
            (
                "import-allow = \"/a\"\nimport.allow = \"/b\"",
                &[":2:", "twice"],
            ),
            ("config = \"x\"", &[":1:", "config"]),
            ("jobs = ", &[":1:"]),
        ] {
            let reason = refused(file);
            for part in parts {
                assert!(reason.contains(part), "{file:?}: {reason}");
            }
        }
    }

    #[test]
    fn the_file_names_a_place_unless_something_nearer_does() {
        let place = |file: &str, arguments: &[&str]| {
            let arguments = [arguments, &["repo", "list"]].concat();
            let cli = with_file(file, &arguments).ok().unwrap().unwrap();
            (cli.place.server(), cli.place.store())
        };
        assert_eq!(place("store = \"./there\"", &[]), (None, "./there".into()));
        assert_eq!(
            place("store = \"./there\"", &["--store", "./here"]),
            (None, "./here".into())
        );
        let (server, _) = place("server = \"http://a\"", &[]);
        assert_eq!(server.as_deref(), Some("http://a"));
        assert_eq!(
            place("server = \"http://a\"", &["--store", "s"]),
            (None, "s".into())
        );
    }

    #[test]
    fn the_documents_have_the_table_of_all_settings() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let document = std::fs::read_to_string(path).unwrap();
        let table = table();
        assert!(
            document.contains(&table),
            "docs/configuration.md needs the table that `quarr config table` prints:\n{table}"
        );
    }
}
