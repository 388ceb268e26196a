//! `quarr prove` and `quarr check-proof`.

use std::path::PathBuf;

use clap::Args;
use query::proven_values;
use serde_json::{Value, json};
use storage::proof::{Proven, check};

use super::client::Client;
use super::{Failed, print, ref_path};
use crate::format::Format;
use crate::target::Target;

/// Largest proof that is read, in bytes.
const MAX_PROOF_BYTES: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct ProveArgs {
    #[arg(help = "REPO[@REF]/PATH[SLICE], for instance 'eraint/z[0,1,:,10:20]'")]
    target: Target,
    /// Write the proof to this file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The proof.
    proof: PathBuf,
    /// Check everything but who vouches for the log entry: compare its hash with another copy of
    /// the log.
    #[arg(long, required = true)]
    no_signature: bool,
    /// Print the values that are proven, as stored.
    #[arg(long)]
    values: bool,
}

pub(super) async fn prove(client: &Client, args: &ProveArgs, as_json: bool) -> Result<(), Failed> {
    let slice = args.target.slice.clone();
    let query: Vec<(&str, String)> = slice.into_iter().map(|slice| ("slice", slice)).collect();
    let path = ref_path(&args.target, "proof");
    let proof = client.bytes("GET", &path, &query, None).await?;
    // What is handed on should hold.
    let proven = check(&proof)?;
    std::fs::write(&args.output, &proof)
        .map_err(|error| Failed(format!("cannot write {}: {error}", args.output.display())))?;
    let told = format!(
        "wrote {}: {} bytes, {} of them rows and hashes; proves {}",
        args.output.display(),
        proof.len(),
        proven.path_bytes,
        describe(&proven)
    );
    print::line(&to_json(&proven), as_json, &told);
    Ok(())
}

pub(super) fn check_proof(args: &CheckArgs, as_json: bool) -> Result<(), Failed> {
    let unreadable =
        |error: std::io::Error| Failed(format!("cannot read {}: {error}", args.proof.display()));
    let length = std::fs::metadata(&args.proof).map_err(unreadable)?.len();
    if length > MAX_PROOF_BYTES {
        return Err(Failed(format!(
            "{} has {length} bytes, a proof has at most {MAX_PROOF_BYTES}",
            args.proof.display()
        )));
    }
    let proof = std::fs::read(&args.proof).map_err(unreadable)?;
    let proven = check(&proof)?;
    let mut facts = to_json(&proven);
    if args.values {
        let tensor = proven_values(&proven)?;
        let names = proven.metadata.dimension_names();
        let names = names.map_or_else(|| vec![None; tensor.shape.len()], <[_]>::to_vec);
        let values: Value = serde_json::from_slice(&Format::Json.encode(&tensor, &names)?)?;
        facts["values"] = values["values"].clone();
        if !as_json {
            print::tensor(&values, false);
        }
    }
    let told = format!(
        "holds: {}\nnot checked, who vouches for log entry {} {}",
        describe(&proven),
        proven.sequence,
        proven.entry
    );
    print::line(&facts, as_json, &told);
    Ok(())
}

fn describe(proven: &Proven) -> String {
    let inner = proven.chunks.iter().flat_map(|chunk| &chunk.inner);
    let all = inner.clone().count();
    let absent = inner.filter(|(_, bytes)| bytes.is_none()).count();
    format!(
        "{}[{}] at commit {} ({} at log entry {}, {}): {all} inner chunks, {absent} of them fill value",
        proven.path,
        proven.region,
        proven.commit,
        proven.reference,
        proven.sequence,
        proven
            .time
            .to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
    )
}

fn to_json(proven: &Proven) -> Value {
    json!({
        "path": proven.path.as_str(),
        "slice": proven.region.to_string(),
        "commit": proven.commit,
        "ref": proven.reference,
        "sequence": proven.sequence.to_string(),
        "entry": proven.entry,
        "time": proven.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        "signature": "not checked",
    })
}
