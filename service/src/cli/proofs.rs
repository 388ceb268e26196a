//! `quarr prove` and `quarr check-proof`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use array::{Hash, Scalar, Statistics};
use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::PossibleValuesParser;
use query::{proven_reduction, proven_statistics, proven_values};
use serde_json::{Value, json};
use storage::proof::{Contents, Proven, REDUCERS, check};
use storage::tlog::{Checkpoint, Receipt, VerifierKey};
use storage::{LogEntry, Operation};

use super::client::Client;
use super::{Failed, print, ref_path};
use crate::format::{Format, float_json};
use crate::target::Target;

/// Largest proof that is read, in bytes.
const MAX_PROOF_BYTES: u64 = 1 << 30;
/// How a receipt begins.
const RECEIPT_START: &[u8] = b"c2sp.org/tlog-proof@";

#[derive(Debug, Args)]
pub(super) struct ProveArgs {
    #[arg(help = "REPO[@REF]/PATH[SLICE], for instance 'eraint/z[0,1,:,10:20]'")]
    target: Target,
    /// Write the proof to this file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Prove what the slice, made of whole chunks, comes to instead of its values, from the
    /// statistics the array is stored with.
    #[arg(long, value_name = "REDUCER", conflicts_with = "receipt",
        value_parser = PossibleValuesParser::new(REDUCERS))]
    reduce: Option<String>,
    /// Write the receipt of the commit instead: the proof that it is in the signed log, in the
    /// format tlog-proof.
    #[arg(long)]
    receipt: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Proofs and receipts.
    #[arg(required = true)]
    proofs: Vec<PathBuf>,
    /// The key the log is signed with, as quarr key show prints it. Those of witnesses may be given
    /// too: each of them must have signed.
    #[arg(
        long,
        value_name = "VKEY",
        required_unless_present = "no_signature",
        conflicts_with = "no_signature"
    )]
    key: Vec<VerifierKey>,
    /// Check everything but who vouches for the log entry: compare its hash with another copy of
    /// the log.
    #[arg(long)]
    no_signature: bool,
    /// Print the values that are proven, as stored.
    #[arg(long)]
    values: bool,
}

pub(super) async fn prove(client: &Client, args: &ProveArgs, as_json: bool) -> Result<(), Failed> {
    let write = |bytes: &[u8]| {
        let output = args.output.display();
        std::fs::write(&args.output, bytes)
            .map_err(|error| Failed(format!("cannot write {output}: {error}")))
    };
    let output = args.output.display();
    if args.receipt {
        if !args.target.path.is_root() || args.target.slice.is_some() {
            return Err(Failed(
                "a receipt is of a commit: give REPO or REPO@REF".into(),
            ));
        }
        let path = ref_path(&args.target, "receipt");
        let bytes = client.bytes("GET", &path, &[], None).await?;
        let (hash, receipt, entry) = read_receipt(&bytes)?;
        write(&bytes)?;
        let told = format!(
            "wrote {output}: log entry {} is in the log {} of {} entries",
            entry.sequence, receipt.checkpoint.head.origin, receipt.checkpoint.head.size
        );
        print::line(&receipt_json(hash, &receipt, &entry), as_json, &told);
        return Ok(());
    }
    if args.target.path.is_root() {
        return Err(Failed(
            "name the array: REPO[@REF]/PATH[SLICE]; quarr ls shows them, --receipt is of a commit"
                .into(),
        ));
    }
    let slice = args.target.slice.clone();
    let mut query: Vec<(&str, String)> = slice.into_iter().map(|slice| ("slice", slice)).collect();
    query.extend(args.reduce.clone().map(|reduce| ("reduce", reduce)));
    let path = ref_path(&args.target, "proof");
    let proof = client.bytes("GET", &path, &query, None).await?;
    // What is handed on should hold.
    let proven = check(&proof)?;
    write(&proof)?;
    let signed = match &proven.checkpoint {
        Some(checkpoint) => format!(
            "in the signed log {} of {} entries",
            checkpoint.head.origin, checkpoint.head.size
        ),
        None => "not signed: the log has no key, quarr key create makes one".to_owned(),
    };
    let told = format!(
        "wrote {output}: {} bytes, {} of them rows and hashes; proves {}; {signed}",
        proof.len(),
        proven.path_bytes,
        describe(&proven)?
    );
    print::line(&to_json(&proven)?, as_json, &told);
    Ok(())
}

/// Reads a file that is no larger than a proof may be.
fn read_proof(path: &Path) -> Result<Vec<u8>, Failed> {
    let unreadable =
        |error: std::io::Error| Failed(format!("cannot read {}: {error}", path.display()));
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_PROOF_BYTES {
        return Err(Failed(format!(
            "{} has {length} bytes, a proof has at most {MAX_PROOF_BYTES}",
            path.display()
        )));
    }
    std::fs::read(path).map_err(unreadable)
}

pub(super) fn check_proof(args: &CheckArgs, as_json: bool) -> Result<(), Failed> {
    if let [path] = args.proofs.as_slice() {
        let checked = check_file(args, path)?;
        if let Some(values) = checked.values.as_ref().filter(|_| !as_json) {
            print::tensor(values, false);
        }
        print::line(&checked.facts, as_json, &checked.told);
        return Ok(());
    }
    if args.values {
        return Err(Failed("--values takes one proof".into()));
    }
    let mut failures = 0;
    for path in &args.proofs {
        let name = path.display();
        let (facts, told) = match check_file(args, path) {
            Ok(Checked {
                mut facts, told, ..
            }) => {
                facts["proof"] = json!(path);
                facts["holds"] = json!(true);
                (facts, format!("{name}: {}", told.replace('\n', "; ")))
            }
            Err(Failed(reason)) => {
                failures += 1;
                let facts = json!({ "proof": path, "holds": false, "error": reason });
                (facts, format!("{name}: does not hold: {reason}"))
            }
        };
        // One a line, so that programs can follow along.
        match as_json {
            true => out!("{facts}"),
            false => out!("{told}"),
        }
    }
    match failures {
        0 => Ok(()),
        _ => Err(Failed(format!(
            "{failures} of {} proofs do not hold",
            args.proofs.len()
        ))),
    }
}

/// What a file proves.
struct Checked {
    facts: Value,
    told: String,
    /// The values, if they are asked for.
    values: Option<Value>,
}

fn check_file(args: &CheckArgs, path: &Path) -> Result<Checked, Failed> {
    let proof = read_proof(path)?;
    if proof.starts_with(RECEIPT_START) {
        return check_receipt(args, &proof);
    }
    let proven = check(&proof)?;
    let signed = check_signatures(&args.key, proven.checkpoint.as_ref())?;
    let mut facts = to_json(&proven)?;
    facts["signed_by"] = json!(signed);
    let mut shown = None;
    if args.values {
        let tensor = proven_values(&proven)?;
        let names = proven.metadata.dimension_names();
        let names = names.map_or_else(|| vec![None; tensor.shape.len()], <[_]>::to_vec);
        let values: Value = serde_json::from_slice(&Format::Json.encode_tensor(tensor, &names)?)?;
        facts["values"] = values["values"].clone();
        shown = Some(values);
    }
    let told = format!(
        "holds: {}\n{}",
        describe(&proven)?,
        vouched(&signed, proven.sequence, proven.entry)
    );
    Ok(Checked {
        facts,
        told,
        values: shown,
    })
}

fn check_receipt(args: &CheckArgs, bytes: &[u8]) -> Result<Checked, Failed> {
    if args.values {
        return Err(Failed("a receipt has no values".into()));
    }
    let (hash, receipt, entry) = read_receipt(bytes)?;
    let signed = check_signatures(&args.key, Some(&receipt.checkpoint))?;
    let mut facts = receipt_json(hash, &receipt, &entry);
    facts["signed_by"] = json!(signed);
    let told = format!(
        "holds: log entry {} of {} is in the log {}\n{}",
        entry.sequence,
        time(entry.time),
        receipt.checkpoint.head.origin,
        vouched(&signed, entry.sequence, hash)
    );
    Ok(Checked {
        facts,
        told,
        values: None,
    })
}

fn read_receipt(bytes: &[u8]) -> Result<(Hash, Receipt, LogEntry), Failed> {
    let wrong = |reason: String| Failed(format!("the receipt does not hold: {reason}"));
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    let receipt: Receipt = text.parse().map_err(wrong)?;
    let (hash, entry) = receipt.check_entry().map_err(wrong)?;
    Ok((hash, receipt, entry))
}

/// The names of all whose keys are given; none if no key is.
pub(super) fn check_signatures(
    keys: &[VerifierKey],
    checkpoint: Option<&Checkpoint>,
) -> Result<Vec<String>, Failed> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let checkpoint = checkpoint.ok_or_else(|| {
        Failed("the proof has no signed checkpoint: the log was not signed when it was made".into())
    })?;
    let signed = checkpoint
        .verify(keys)
        .map_err(|reason| Failed(format!("the checkpoint does not hold: {reason}")))?;
    let mut names: Vec<String> = signed.into_iter().map(|signed| signed.name).collect();
    if let Some(missing) = keys
        .iter()
        .find(|key| !names.iter().any(|n| n == key.name()))
    {
        return Err(Failed(format!("{} has not signed it", missing.name())));
    }
    names.sort();
    Ok(names)
}

fn vouched(signed: &[String], sequence: u64, entry: Hash) -> String {
    match signed {
        [] => format!("not checked, who vouches for log entry {sequence} {entry}"),
        names => format!("signed by {}", names.join(", ")),
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn receipt_json(hash: Hash, receipt: &Receipt, entry: &LogEntry) -> Value {
    let operations = entry.operations.iter().map(Operation::to_json);
    json!({
        "origin": receipt.checkpoint.head.origin,
        "size": receipt.checkpoint.head.size.to_string(),
        "root": receipt.checkpoint.head.root.to_string(),
        "sequence": entry.sequence.to_string(),
        "entry": hash,
        "time": time(entry.time),
        "actor": entry.actor,
        "operations": operations.collect::<Vec<Value>>(),
    })
}

fn describe(proven: &Proven) -> Result<String, Failed> {
    let what = match &proven.content {
        Contents::Chunks(chunks) => {
            let inner = chunks.iter().flat_map(|chunk| &chunk.inner);
            let all = inner.clone().count();
            let absent = inner.filter(|(_, bytes)| bytes.is_none()).count();
            format!("{all} inner chunks, {absent} of them fill value")
        }
        Contents::Statistics(statistics) => match proven_reduction(proven) {
            Ok(_) => format!(
                "{} is {}, by the statistics its writer claimed",
                statistics.reduce,
                reduction(proven)?
            ),
            Err(error) => format!("statistics, but {error}"),
        },
    };
    Ok(format!(
        "{}[{}] at commit {} ({} at log entry {}, {}): {what}",
        proven.path,
        proven.region,
        proven.commit,
        proven.reference,
        proven.sequence,
        time(proven.time),
    ))
}

/// What a proof of statistics comes to, as JSON has it.
fn reduction(proven: &Proven) -> Result<Value, Failed> {
    match proven_reduction(proven)? {
        None => Ok(Value::Null),
        Some(tensor) => {
            let answer: Value = serde_json::from_slice(&Format::Json.encode_tensor(tensor, &[])?)?;
            Ok(answer["values"].clone())
        }
    }
}

/// Statistics as stored, for people and programs.
fn statistics_json(statistics: &Statistics) -> Value {
    let scalar = |scalar: Scalar| match scalar {
        Scalar::Int(value) => json!(value),
        Scalar::UInt(value) => json!(value),
        Scalar::Float(value) => float_json(value),
    };
    let count = statistics.valid as f64;
    let moments = statistics.moments;
    json!({
        "valid": statistics.valid,
        "missing": statistics.missing,
        "min": moments.map(|moments| scalar(moments.min)),
        "max": moments.map(|moments| scalar(moments.max)),
        "mean": moments.map(|moments| float_json(moments.sum.to_f64() / count)),
        "std": moments.map(|moments| float_json((moments.m2.to_f64() / count).sqrt())),
    })
}

fn to_json(proven: &Proven) -> Result<Value, Failed> {
    let log = proven.checkpoint.as_ref().map(|checkpoint| {
        let head = &checkpoint.head;
        json!({ "origin": head.origin, "size": head.size.to_string(), "root": head.root.to_string() })
    });
    let mut facts = json!({
        "path": proven.path.as_str(),
        "slice": proven.region.to_string(),
        "commit": proven.commit,
        "ref": proven.reference,
        "sequence": proven.sequence.to_string(),
        "entry": proven.entry,
        "time": time(proven.time),
        "log": log,
    });
    if let (Contents::Statistics(content), Some(statistics)) =
        (&proven.content, proven_statistics(proven)?)
    {
        facts["reduce"] = json!(content.reduce);
        facts["value"] = reduction(proven).unwrap_or_default();
        facts["statistics"] = statistics_json(&statistics);
    }
    Ok(facts)
}
