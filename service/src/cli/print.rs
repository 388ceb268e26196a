//! Answers for people, or as JSON.

use std::io::Write as _;

use serde_json::Value;

/// Elements printed of a tensor before it is cut short.
const MAX_ELEMENTS: usize = 1000;

fn pretty(value: &Value) {
    out!(
        "{}",
        serde_json::to_string_pretty(value).unwrap_or_default()
    );
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Text of somebody else's, which must not move the cursor, or pass for other lines.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// So many bytes, in the unit that fits.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.iter().find(|(_, unit)| bytes as f64 >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} bytes"),
    }
}

/// One line, or the JSON.
pub(super) fn line(value: &Value, as_json: bool, line: &str) {
    if as_json {
        pretty(value);
    } else {
        out!("{line}");
    }
}

/// A list of objects as a table.
pub(super) fn table(value: &Value, list: &str, columns: &[&str], as_json: bool) {
    if as_json {
        return pretty(value);
    }
    let rows: Vec<Vec<String>> = value[list]
        .as_array()
        .map(|items| {
            items
                .iter()
                .map(|item| columns.iter().map(|c| text(&item[c])).collect())
                .collect()
        })
        .unwrap_or_default();
    print_rows(&rows);
}

fn print_rows(rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out!("{}", cells.join("  ").trim_end());
    }
}

/// The members of an object, one a line.
pub(super) fn fields(value: &Value, as_json: bool) {
    if as_json {
        return pretty(value);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        out!("{name}: {}", text(value));
    }
}

/// The members of a group.
pub(super) fn members(node: &Value, as_json: bool) {
    if as_json {
        return pretty(&node["members"]);
    }
    let row = |member: &Value| {
        let shape = match (&member["dimensions"], &member["shape"]) {
            (Value::Array(names), Value::Array(lengths)) => {
                let pair = |(name, length): (&Value, &Value)| format!("{}={length}", text(name));
                names
                    .iter()
                    .zip(lengths)
                    .map(pair)
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            (_, Value::Array(lengths)) => lengths.iter().map(text).collect::<Vec<_>>().join(", "),
            _ => String::new(),
        };
        let name = text(&member["name"]);
        let name = if member["kind"] == "group" {
            format!("{name}/")
        } else {
            name
        };
        vec![
            name,
            text(&member["data_type"]),
            format!("({shape})"),
            bytes(&member["stored_bytes"]),
        ]
    };
    let mut rows: Vec<Vec<String>> = node["members"]
        .as_array()
        .map(|members| members.iter().map(row).collect())
        .unwrap_or_default();
    if node["kind"] == "array" {
        rows = vec![row(node)];
    }
    print_rows(&rows);
}

fn bytes(value: &Value) -> String {
    let mut amount = value.as_f64().unwrap_or(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            let decimals = usize::from(unit != "B");
            return format!("{amount:.decimals$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// A group or an array.
pub(super) fn node(node: &Value, as_json: bool) {
    if as_json {
        return pretty(node);
    }
    out!("{} {}", text(&node["kind"]), text(&node["path"]));
    if node["kind"] == "array" {
        out!("data type: {}", text(&node["data_type"]));
        out!("shape: {}", node["shape"]);
        out!("dimensions: {}", node["dimensions"]);
        out!(
            "stored: {} in {} chunks",
            bytes(&node["stored_bytes"]),
            node["stored_chunks"]
        );
        if let Value::Object(statistics) = &node["statistics"] {
            let shown: Vec<String> = statistics
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            out!("statistics of stored values: {}", shown.join(", "));
        }
        out!(
            "chunk grid: {}",
            node["zarr_json"]["chunk_grid"]["configuration"]
        );
        out!("codecs: {}", node["zarr_json"]["codecs"]);
    } else {
        out!("stored: {}", bytes(&node["stored_bytes"]));
    }
    if let Value::Object(attributes) = &node["zarr_json"]["attributes"] {
        for (name, value) in attributes {
            out!("  {name}: {}", text(value));
        }
    }
    if node["kind"] == "group" {
        members(node, false);
    }
}

/// Log entries, one line an operation.
pub(super) fn log(entries: &[Value], as_json: bool) {
    if as_json {
        return pretty(&Value::Array(entries.to_vec()));
    }
    for entry in entries {
        for operation in entry["operations"].as_array().into_iter().flatten() {
            let name = match (&operation["branch"], &operation["tag"]) {
                (Value::String(name), _) => name.clone(),
                (_, Value::String(name)) => format!("tag {name}"),
                _ => text(&operation["operation"]),
            };
            let commit = match &operation["to"] {
                Value::String(commit) => commit.chars().take(12).collect(),
                _ => "deleted".to_owned(),
            };
            let (sequence, time, actor) = (
                &entry["sequence"],
                text(&entry["time"]),
                text(&entry["actor"]),
            );
            out!(
                "{sequence:>5}  {time}  {commit:12}  {name}  {actor}  {}",
                text(&operation["message"])
            );
        }
    }
}

/// A tensor.
pub(super) fn tensor(tensor: &Value, as_json: bool) {
    if as_json {
        out!("{tensor}");
        return;
    }
    let lengths = tensor["shape"].as_array().cloned().unwrap_or_default();
    let count: u64 = lengths.iter().filter_map(Value::as_u64).product();
    if !lengths.is_empty() {
        out!("{} {}", text(&tensor["data_type"]), tensor["shape"]);
    }
    if count as usize > MAX_ELEMENTS {
        out!("{count} values: use --json to print them or -o FILE.npy to write them");
    } else {
        out!("{}", tensor["values"]);
    }
}
