//! `quarr store`: make a store, check one; and what `quarr serve` asks of its own.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::{Args, Subcommand};
use serde_json::json;
use storage::{Finding, InitOptions, Outcome, Probe, Store};

use super::Failed;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Make a store: a directory, or an S3 bucket with public access blocked and encryption on.
    /// What is there already is checked and never made weaker; again changes nothing more.
    Init(InitArgs),
    /// Check a store: that it can be read and written, that it honours put-if-absent, and how its
    /// bucket is set up. Changes nothing; writes one object and deletes it.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The store: a directory, s3://bucket/prefix, gs://… or az://…
    url: String,
    /// Encrypt objects by this KMS key (id, ARN or alias) unless they say otherwise; S3 only
    #[arg(long, value_name = "KEY")]
    kms_key: Option<String>,
    /// The region a new bucket is made in [default: that of the environment]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The store: a directory, s3://bucket/prefix, gs://… or az://…
    url: String,
    /// Write nothing, so as not to try put-if-absent either.
    #[arg(long)]
    read_only: bool,
}

/// Prints each finding as it is made; fails if one is wrong.
pub(super) async fn run(command: StoreCommand, as_json: bool) -> Result<ExitCode, Failed> {
    let report = Report {
        as_json,
        findings: Mutex::default(),
    };
    let tell = |finding: Finding| report.add(finding);
    let url = match &command {
        StoreCommand::Init(args) => {
            let options = InitOptions {
                kms_key: args.kms_key.clone(),
                region: args.region.clone(),
            };
            storage::init_store(&args.url, &[], &options, &tell).await?;
            &args.url
        }
        StoreCommand::Check(args) => {
            storage::check_store(&args.url, &[], !args.read_only, &tell).await?;
            &args.url
        }
    };
    Ok(report.finish(url))
}

struct Report {
    as_json: bool,
    findings: Mutex<Vec<Finding>>,
}

impl Report {
    fn add(&self, finding: Finding) {
        if !self.as_json {
            let (outcome, check) = (finding.outcome.name(), finding.check);
            out!("{outcome:8} {check}: {}", finding.detail);
        }
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(finding);
    }

    fn finish(self, url: &str) -> ExitCode {
        let findings = self.findings.into_inner();
        let findings = findings.unwrap_or_else(PoisonError::into_inner);
        let of = |outcome| findings.iter().filter(|f| f.outcome == outcome).count();
        let (wrong, advice) = (of(Outcome::Wrong), of(Outcome::Advice));
        if self.as_json {
            let to_json = |finding: &Finding| {
                json!({
                    "check": finding.check,
                    "outcome": finding.outcome.name(),
                    "detail": finding.detail,
                })
            };
            let body = json!({
                "url": url,
                "usable": wrong == 0,
                "findings": findings.iter().map(to_json).collect::<Vec<_>>(),
            });
            out!("{body}");
        } else {
            out!("{url}: {wrong} wrong, {advice} to improve");
        }
        match wrong {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// The store, if a service may rest on it: it honours put-if-absent, or is served for reading alone.
pub(super) async fn fit_to_serve(store: Store, is_read_only: bool) -> Result<Store, Failed> {
    let url = store.url().to_owned();
    let failed = |error: storage::Error| {
        let advice = storage::advice(&error).map_or(String::new(), |advice| format!("{advice}: "));
        Failed(format!("{url}: {advice}{}", crate::error::chain(&error)))
    };
    if is_read_only {
        store.folders().await.map_err(failed)?;
        return Ok(store.read_only());
    }
    match store.probe().await.map_err(failed)? {
        Probe::Sound { left } => {
            if let Some(key) = left {
                eprintln!("warning: object {key} of the start-up probe could not be deleted");
            }
            Ok(store)
        }
        Probe::ReadOnly => Err(Failed(format!(
            "{url}: these credentials may read and not write: give others, or --read-only"
        ))),
        Probe::Unsound { reason } => Err(Failed(format!(
            "{url} does not honour put-if-absent, which commits rest on: {reason}; use another store"
        ))),
    }
}
