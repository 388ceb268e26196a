//! `quarr verify`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use query::Progress;
use serde_json::{Value, json};

use super::client::Client;
use super::meter::Meter;
use super::{Failed, print};
use crate::jobs::{self, ReportInfo, VerifySpec};
use crate::state::State;
use crate::target::Target;

/// How often progress is written down.
const SAVE_INTERVAL: Duration = Duration::from_secs(2);
/// How often a job elsewhere is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[arg(help = "REPO[@REF]; without a ref the whole history and every object")]
    target: Target,
    /// Decode every chunk and recompute the statistics too.
    #[arg(long)]
    deep: bool,
    /// Check only what came after this commit, which is taken to be verified: a branch, tag, commit,
    /// x~n or x@time.
    #[arg(long, value_name = "COMMIT")]
    since: Option<String>,
    /// Write down in this file how far it is, and go on from there if there is one. It is deleted
    /// at the end.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

impl VerifyArgs {
    fn spec(&self) -> Result<VerifySpec, Failed> {
        if !self.target.path.is_root() || self.target.slice.is_some() {
            return Err(Failed("verify takes REPO or REPO@REF".into()));
        }
        let target = &self.target;
        Ok(VerifySpec {
            repository: target.repository.to_string(),
            reference: target.has_reference.then(|| target.reference.clone()),
            since: self.since.clone(),
            deep: self.deep,
        })
    }
}

/// Verifies a store.
pub(super) async fn verify(
    state: &State,
    args: &VerifyArgs,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    let spec = args.spec()?;
    let started = Instant::now();
    let mut progress = match &args.resume {
        Some(path) => read_progress(path)?,
        None => Progress::default(),
    };
    let meter = Meter::new();
    let mut saved = Instant::now();
    let mut observe = |progress: &Progress| {
        let chunks = format!("{} chunks", progress.chunks);
        meter.show(progress.chunk_bytes, progress.total_bytes, &chunks);
        if let Some(path) = &args.resume
            && saved.elapsed() > SAVE_INTERVAL
        {
            saved = Instant::now();
            // It is only for those who may want to go on.
            let _ = write_progress(path, progress);
        }
        true
    };
    let report = jobs::verify(state, &spec, &mut progress, &mut observe).await;
    meter.done();
    let report = match report {
        Ok(report) => report,
        Err(failure) => {
            if let Some(path) = &args.resume {
                write_progress(path, &progress)?;
            }
            return Err(failure.into());
        }
    };
    if let Some(path) = &args.resume
        && path.exists()
    {
        std::fs::remove_file(path)?;
    }
    tell(args, &report, started, as_json)
}

/// Has a service verify, as a job.
pub(super) async fn verify_over(
    client: &Client,
    args: &VerifyArgs,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    if args.resume.is_some() {
        return Err(Failed(
            "--resume is for stores: a service goes on with its jobs by itself".into(),
        ));
    }
    let started = Instant::now();
    let mut spec = serde_json::to_value(args.spec()?)?;
    spec["kind"] = json!("verify");
    let jobs = ["v1", "jobs"];
    let job = client.json("POST", &jobs, &[], Some(&spec)).await?;
    let id = job["id"].as_str().unwrap_or_default().to_owned();
    let meter = Meter::new();
    loop {
        let job = client.json("GET", &["v1", "jobs", &id], &[], None).await?;
        let number = |name: &str| job["progress"][name].as_u64().unwrap_or(0);
        let chunks = format!("{} chunks", number("chunks"));
        meter.show(number("bytes"), number("total_bytes"), &chunks);
        match job["state"].as_str() {
            Some("queued" | "running") => tokio::time::sleep(POLL_INTERVAL).await,
            Some("done") => {
                meter.done();
                let report: ReportInfo = serde_json::from_value(job["report"].clone())?;
                return tell(args, &report, started, as_json);
            }
            _ => {
                meter.done();
                let error = job["error"].as_str().unwrap_or("it was cancelled");
                return Err(Failed(format!("job {id}: {error}")));
            }
        }
    }
}

fn tell(
    args: &VerifyArgs,
    report: &ReportInfo,
    started: Instant,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    if as_json {
        let mut body: Value = serde_json::to_value(report)?;
        body["ok"] = json!(report.damage.is_empty() && report.originals.is_empty());
        out!("{body}");
    } else {
        for damage in &report.damage {
            out!("damaged: {}: {}", damage.object, damage.reason);
        }
        for original in &report.originals {
            out!("original: {}: {}", original.object, original.reason);
        }
        let after = match &args.since {
            Some(since) => format!("since {since}: "),
            None => String::new(),
        };
        out!(
            "{}: {after}{} log entries, {} commits, {} objects, {} chunks ({}) in {:.1} s; {} unreferenced",
            if report.damage.is_empty() {
                "verified"
            } else {
                "DAMAGED"
            },
            report.entries,
            report.commits,
            report.objects,
            report.chunks,
            print::size(report.chunk_bytes),
            started.elapsed().as_secs_f64(),
            report.unreferenced
        );
    }
    if report.damage.is_empty() && report.originals.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if report.damage.is_empty() {
        return Err(Failed(format!(
            "{} is as it was written, but {} of its chunks refer to originals that changed or cannot \
             be read: put them back, or import them again",
            args.target.repository,
            report.originals.len()
        )));
    }
    Err(Failed(format!(
        "{} of {} is damaged",
        report.damage.len(),
        args.target.repository
    )))
}

fn read_progress(path: &Path) -> Result<Progress, Failed> {
    let wrong = |reason: String| Failed(format!("{}: {reason}", path.display()));
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("not the progress of a verification: {error}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Progress::default()),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn write_progress(path: &Path, progress: &Progress) -> Result<(), Failed> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(progress)?)?;
    Ok(std::fs::rename(&new, path)?)
}
