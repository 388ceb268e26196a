//! `quarr get` and `quarr explain`.
#![expect(clippy::print_stderr, reason = "a command line says what it wrote")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use compute::Reducer;
use serde_json::Value;

use super::client::Client;
use super::{Failed, print, ref_path};
use crate::target::Target;

/// What is read, and what is made of it.
#[derive(Debug, Args)]
struct Reading {
    #[arg(help = "REPO[@REF]/PATH[SLICE], for instance 'eraint/z[0,1,:,10:20]'")]
    target: Target,
    /// Labels along a dimension, by its coordinate: time=2020-01/2020-03, lat=nearest::47.4
    #[arg(long, value_name = "DIM=LABELS", value_parser = assignment, allow_hyphen_values = true)]
    sel: Vec<(String, String)>,
    /// What cells must satisfy to count, for instance 't2m>=300 and rain<5'
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// What to reduce it to, several comma separated: sum, prod, mean, min, max, count, std, var,
    /// any, all, argmin, argmax, median, quantile, histogram
    #[arg(long, value_name = "REDUCERS", value_parser = reducers)]
    reduce: Option<String>,
    /// Dimensions to reduce over, comma separated; all if left out
    #[arg(long, requires = "reduce")]
    over: Option<String>,
    /// Keep reduced dimensions with length 1.
    #[arg(long, requires = "reduce")]
    keepdims: bool,
    /// Leave out NaN; by default for floats
    #[arg(long, requires = "reduce", value_name = "true|false")]
    skipna: Option<bool>,
    /// Delta degrees of freedom of std and var
    #[arg(long, requires = "reduce")]
    ddof: Option<u32>,
    /// Fewest valid values a sum needs
    #[arg(long, requires = "reduce")]
    min_count: Option<u64>,
    /// float64 gives the accumulator whatever the array's type
    #[arg(long, requires = "reduce", value_parser = ["float64"])]
    dtype: Option<String>,
    /// Quantiles, from 0 to 1, comma separated
    #[arg(long, requires = "reduce")]
    q: Option<String>,
    /// How quantiles between two values are found, as NumPy names it [default: linear]
    #[arg(long, requires = "reduce")]
    method: Option<String>,
    /// Number of bins of a histogram, or their edges, comma separated [default: 10]
    #[arg(long, requires = "reduce", allow_hyphen_values = true)]
    bins: Option<String>,
    /// Weights: an array, or area for the cosine of the latitude
    #[arg(long, requires = "reduce")]
    weights: Option<String>,
    /// Groups along a dimension, for instance time.month
    #[arg(long, requires = "reduce")]
    groupby: Option<String>,
    /// Windows of so many cells along a dimension
    #[arg(long, requires = "reduce", value_name = "DIM=CELLS", value_parser = assignment)]
    coarsen: Vec<(String, String)>,
    /// What becomes of a last window that is too short [default: exact]
    #[arg(long, requires = "coarsen", value_parser = ["exact", "trim", "pad"])]
    boundary: Option<String>,
    /// Missing and packed values: cf (masked and scaled), mask, raw
    #[arg(long, default_value = "cf", value_parser = ["cf", "mask", "raw"])]
    decode: String,
    /// Refuse slices that reach past the array instead of cutting them off.
    #[arg(long)]
    strict: bool,
    /// The values that the first and the last colour of a .png stand for, or the ends of a
    /// histogram's bins
    #[arg(long, value_name = "MIN,MAX", allow_hyphen_values = true)]
    range: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    reading: Reading,
    /// Colours of a .png, for instance viridis, magma, gray or RdBu
    #[arg(long, requires = "output")]
    colormap: Option<String>,
    /// Write to this file: .npy, .json, .bin (raw, little-endian), .arrow, .csv, .nc or .png
    #[arg(short, long, value_name = "FILE", value_parser = output_file)]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    reading: Reading,
}

/// Names of reducers, comma separated.
fn reducers(text: &str) -> Result<String, String> {
    let others = [
        "median",
        "quantile",
        "histogram",
        "sum_of_weights",
        "sum_of_squares",
    ];
    let is_known = |name: &str| Reducer::NAMES.contains(&name) || others.contains(&name);
    match text.split(',').map(str::trim).find(|name| !is_known(name)) {
        Some(unknown) => {
            let known = [&Reducer::NAMES[..], &others].concat().join(", ");
            Err(format!("{unknown:?} is none of {known}"))
        }
        None => Ok(text.to_owned()),
    }
}

/// `NAME=VALUE`.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form DIM=VALUE")),
    }
}

/// The name of a file that can be written.
fn output_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match output_format(&path) {
        Some(_) => Ok(path),
        None => {
            let known: Vec<String> = OUTPUTS.iter().map(|(end, _)| format!(".{end}")).collect();
            Err(format!("the name ends in none of {}", known.join(", ")))
        }
    }
}

/// Endings of files, and the formats of the service they stand for.
const OUTPUTS: [(&str, &str); 7] = [
    ("npy", "npy"),
    ("json", "json"),
    ("bin", "octet-stream"),
    ("arrow", "arrow"),
    ("csv", "csv"),
    ("nc", "netcdf"),
    ("png", "png"),
];

fn output_format(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?;
    let found = OUTPUTS.iter().find(|(known, _)| *known == ending);
    found.map(|(_, format)| *format)
}

impl Reading {
    /// As query parameters.
    fn query(&self) -> Vec<(String, String)> {
        let mut query: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            query.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("decode", Some(self.decode.clone()));
        add("slice", self.target.slice.clone());
        add("strict", self.strict.then(|| "true".to_owned()));
        add("where", self.condition.clone());
        add("range", self.range.clone());
        for (dimension, labels) in &self.sel {
            add(&format!("sel.{dimension}"), Some(labels.clone()));
        }
        if self.reduce.is_none() {
            return query;
        }
        add("reduce", self.reduce.clone());
        add("over", self.over.clone());
        add("skipna", self.skipna.map(|skip| skip.to_string()));
        add("ddof", self.ddof.map(|ddof| ddof.to_string()));
        add("min_count", self.min_count.map(|count| count.to_string()));
        add("dtype", self.dtype.clone());
        add("keepdims", self.keepdims.then(|| "true".to_owned()));
        add("q", self.q.clone());
        add("method", self.method.clone());
        add("bins", self.bins.clone());
        add("weights", self.weights.clone());
        add("groupby", self.groupby.clone());
        add("boundary", self.boundary.clone());
        for (dimension, cells) in &self.coarsen {
            add(&format!("coarsen.{dimension}"), Some(cells.clone()));
        }
        query
    }
}

fn borrowed(query: &[(String, String)]) -> Vec<(&str, String)> {
    let pairs = query.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect()
}

/// Reads a slice of an array, or reduces it.
pub(super) async fn get(client: &Client, args: &GetArgs, as_json: bool) -> Result<(), Failed> {
    let format = args
        .output
        .as_deref()
        .and_then(output_format)
        .unwrap_or("json");
    let mut query = args.reading.query();
    query.push(("f".to_owned(), format.to_owned()));
    query.extend(
        args.colormap
            .clone()
            .map(|name| ("colormap".to_owned(), name)),
    );
    let what = match args.reading.reduce {
        Some(_) => "reduce",
        None => "data",
    };
    let path = ref_path(&args.reading.target, what);
    let bytes = client.bytes("GET", &path, &borrowed(&query), None).await?;
    let Some(path) = &args.output else {
        print_answer(&serde_json::from_slice(&bytes)?, as_json);
        return Ok(());
    };
    std::fs::write(path, &bytes)
        .map_err(|error| Failed(format!("cannot write {}: {error}", path.display())))?;
    eprintln!("wrote {} bytes to {}", bytes.len(), path.display());
    Ok(())
}

fn print_answer(answer: &Value, as_json: bool) {
    match answer["variables"].as_object() {
        Some(variables) if !as_json => {
            for (name, tensor) in variables {
                out!("{name}:");
                print::tensor(tensor, false);
            }
        }
        _ => print::tensor(answer, as_json),
    }
}

/// Says what reading or reducing a slice would cost.
pub(super) async fn explain(
    client: &Client,
    args: &ExplainArgs,
    as_json: bool,
) -> Result<(), Failed> {
    let query = args.reading.query();
    let path = ref_path(&args.reading.target, "explain");
    let plan = client.json("GET", &path, &borrowed(&query), None).await?;
    if as_json {
        out!("{plan}");
        return Ok(());
    }
    let number = |name: &str| plan[name].as_u64().unwrap_or(0);
    let requests = |name: &str| {
        let (count, bytes) = (plan[name]["count"].as_u64(), plan[name]["bytes"].as_u64());
        format!("{} reads, {} bytes", count.unwrap_or(0), bytes.unwrap_or(0))
    };
    out!("shape            {}", plan["shape"]);
    out!(
        "stored chunks    {}, {} of them absent, {} answered by statistics",
        number("chunks"),
        number("absent_chunks"),
        number("chunks_in_statistics")
    );
    out!(
        "inner chunks     {}, {} bytes encoded, {} decoded",
        number("inner_chunks"),
        number("needed_bytes"),
        number("decoded_bytes")
    );
    let cached = &plan["cached"];
    out!(
        "cached           {} decoded, {} encoded, {} on disk",
        cached["decoded"],
        cached["encoded"],
        cached["disk"]
    );
    out!("store            {}", requests("requests"));
    out!("store, if cold   {}", requests("cold_requests"));
    out!("memory           {} bytes", number("memory_bytes"));
    let compute = &plan["compute"];
    if let (Some(on), Some(reason)) = (compute["on"].as_str(), compute["reason"].as_str()) {
        let times = match (compute["gpu_ms"].as_f64(), compute["cpu_ms"].as_f64()) {
            (Some(gpu), Some(cpu)) => format!(" (gpu {gpu:.3} ms, cpu {cpu:.3} ms)"),
            _ => String::new(),
        };
        out!("computed by      {on}: {reason}{times}");
    }
    Ok(())
}
