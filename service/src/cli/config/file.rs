//! The file of settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml_edit::{Document, Item, TableLike, Value};

use super::text;
use crate::cli::Failed;

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// A setting in a file.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Setting {
    /// Its values, as the command line would have them.
    pub(in crate::cli) values: Vec<String>,
    /// The line of its key, from 1.
    pub(in crate::cli) line: usize,
}

/// The settings of a file, by flag.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Values {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
}

impl Values {
    /// The value of a flag.
    pub(in crate::cli) fn get(&self, flag: &str) -> Option<&Setting> {
        self.settings.get(flag)
    }

    /// Where a setting is.
    pub(super) fn place(&self, setting: &Setting) -> String {
        format!("{}:{}", self.path.display(), setting.line)
    }

    /// Reads a file, which may have the settings `known`.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub(super) fn read(path: &Path, known: &[Arg]) -> Result<Self, Failed> {
        let name = path.display();
        let failed = |error: std::io::Error| Failed(format!("cannot read {name}: {error}"));
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MAX_BYTES {
            return Err(Failed(format!(
                "{name} is no file of settings: it has {length} bytes"
            )));
        }
        let source = std::fs::read_to_string(path).map_err(failed)?;
        let at = |offset: usize| {
            let before = source.get(..offset).unwrap_or(&source);
            1 + before.matches('\n').count()
        };
        let document = Document::parse(source.as_str()).map_err(|error| {
            let line = at(error.span().map_or(0, |span| span.start));
            let reason = error.message().lines().collect::<Vec<_>>().join(" ");
            Failed(format!("{name}:{line}: {reason}"))
        })?;
        let mut found = Vec::new();
        if let Some(table) = document.as_item().as_table_like() {
            flatten(table, "", 0, &mut found);
        }
        let mut values = Self {
            path: path.to_owned(),
            settings: BTreeMap::new(),
        };
        for (key, offset, item) in found {
            let line = at(offset);
            let refused = |reason: String| Failed(format!("{name}:{line}: {reason}"));
            let flag = key.replace(['.', '_'], "-");
            let is_it = |arg: &&Arg| arg.get_long() == Some(&flag);
            let arg = known
                .iter()
                .find(is_it)
                .ok_or_else(|| refused(unknown(&key, &flag, known)))?;
            let given = strings(arg, item).map_err(|reason| refused(format!("{key}: {reason}")))?;
            check(arg, &given).map_err(|reason| refused(format!("{key}: {reason}")))?;
            let setting = Setting {
                values: given,
                line,
            };
            if values.settings.insert(flag, setting).is_some() {
                return Err(refused(format!("{key} is given twice")));
            }
        }
        let both = ["store", "server"].map(|flag| values.get(flag));
        if let [Some(_), Some(server)] = both {
            let place = values.place(server);
            return Err(Failed(format!(
                "{place}: give a store or a server, not both"
            )));
        }
        Ok(values)
    }
}

/// What says that there is no such setting.
fn unknown(key: &str, flag: &str, known: &[Arg]) -> String {
    let flags = known.iter().filter_map(Arg::get_long);
    let alike = storage::Error::not_found("setting", flag, flags);
    let names = match alike {
        storage::Error::NotFound { suggestions, .. } => suggestions,
        _ => Vec::new(),
    };
    match names.is_empty() {
        true => format!("{key} is no setting; quarr config show lists them"),
        false => format!("{key} is no setting; did you mean {}?", names.join(" or ")),
    }
}

/// The values below a table, each with its key and where that is.
fn flatten<'a>(
    table: &'a dyn TableLike,
    above: &str,
    offset: usize,
    found: &mut Vec<(String, usize, &'a Item)>,
) {
    for (name, item) in table.iter() {
        let key = match above {
            "" => name.to_owned(),
            above => format!("{above}.{name}"),
        };
        let span = table.key(name).and_then(toml_edit::Key::span);
        let offset = span.map_or(offset, |span| span.start);
        match item.as_table_like() {
            Some(below) => flatten(below, &key, offset, found),
            None => found.push((key, offset, item)),
        }
    }
}

/// A value as the command line would have it.
fn strings(arg: &Arg, item: &Item) -> Result<Vec<String>, String> {
    let value = item.as_value().ok_or("it is no value")?;
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let values: Vec<&Value> = match value.as_array() {
        Some(_) if !is_list => return Err("it takes one value, not a list".into()),
        Some(list) => list.iter().collect(),
        None => vec![value],
    };
    let string = |value: &Value| match value {
        Value::Boolean(value) => Ok(value.value().to_string()),
        _ if is_switch => Err("it is true or false".to_owned()),
        Value::String(value) => Ok(value.value().clone()),
        Value::Integer(value) => Ok(value.value().to_string()),
        Value::Float(value) => Ok(value.value().to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => {
            Err("it takes text and numbers".to_owned())
        }
    };
    let strings = values
        .into_iter()
        .map(string)
        .collect::<Result<Vec<_>, _>>()?;
    let delimiter = arg.get_value_delimiter();
    let parted = strings
        .iter()
        .find(|text| delimiter.is_some_and(|d| text.contains(d)));
    match (parted, delimiter) {
        (Some(text), Some(delimiter)) => {
            let delimiter = delimiter.to_string();
            Err(format!(
                "{text:?} has {delimiter:?} in it, which parts values"
            ))
        }
        _ => Ok(strings),
    }
}

/// Whether the argument takes these values: asks its own parser.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Ok(());
    }
    let flag = arg.get_long().unwrap_or_default().to_owned();
    let alone = Arg::new("value")
        .long(flag.clone())
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone());
    let alone = Command::new("settings").no_binary_name(true).arg(alone);
    let arguments = values.iter().map(|value| format!("--{flag}={value}"));
    let parsed = alone.try_get_matches_from(arguments.map(std::ffi::OsString::from));
    let Err(error) = parsed else {
        return Ok(());
    };
    // The first line says what is wrong; the others, how to get help.
    let said = error.to_string();
    let line = said.lines().next().unwrap_or_default();
    let reason = line.strip_prefix("error: ").unwrap_or(line);
    let own = values.iter().map(|value| text(value.as_ref()));
    let own: Vec<String> = own.map(|value| format!("{value:?}")).collect();
    Err(format!("{} is refused: {reason}", own.join(", ")))
}
