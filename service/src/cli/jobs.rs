//! `quarr jobs`, and following a job until it ends.
#![expect(clippy::print_stderr, reason = "what happens to a job is not output")]

use std::io::Write as _;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::client::Client;
use super::meter::Meter;
use super::{Failed, print};
use crate::jobs::{self, ImportReport, Job, JobReport, JobState, Origin, TrialInfo};
use crate::state::State;

/// How often a job is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List the jobs, the newest first.
    List,
    /// Show a job.
    Show {
        /// Its id.
        id: Uuid,
    },
    /// Cancel a job.
    Cancel {
        /// Its id.
        id: Uuid,
    },
    /// Go on with a job that nobody works on, and wait until it ends.
    Resume {
        /// Its id.
        id: Uuid,
    },
}

/// Where jobs are worked on.
pub(super) enum Where<'a> {
    /// In this process, over a store.
    Here(&'a State),
    /// In a service.
    There(&'a Client),
}

impl Where<'_> {
    async fn ask(&self, client: &Client, method: &str, path: &[&str]) -> Result<Job, Failed> {
        let path: Vec<&str> = ["v1", "jobs"]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        let job = client.json(method, &path, &[], None).await?;
        Ok(serde_json::from_value(job)?)
    }

    async fn list(&self) -> Result<Vec<Job>, Failed> {
        match self {
            Self::Here(state) => Ok(jobs::list(state).await?),
            Self::There(client) => {
                let found = client.list(&["v1", "jobs"], "jobs").await?;
                Ok(serde_json::from_value(found["jobs"].clone())?)
            }
        }
    }

    pub(super) async fn show(&self, id: Uuid) -> Result<Job, Failed> {
        match self {
            Self::Here(state) => Ok(jobs::show(state, id).await?),
            Self::There(client) => self.ask(client, "GET", &[&id.to_string()]).await,
        }
    }

    async fn cancel(&self, id: Uuid) -> Result<Job, Failed> {
        match self {
            Self::Here(state) => Ok(jobs::cancel(state, id).await?),
            Self::There(client) => self.ask(client, "DELETE", &[&id.to_string()]).await,
        }
    }

    pub(super) async fn resume(&self, id: Uuid) -> Result<Job, Failed> {
        match self {
            Self::Here(state) => Ok(jobs::resume(state, id, Origin::Command).await?),
            Self::There(client) => self.ask(client, "POST", &[&id.to_string(), "resume"]).await,
        }
    }
}

/// From now on interrupts do not end the process: [`follow`] cancels the job.
pub(super) fn interrupts() -> Result<Signal, Failed> {
    Ok(signal(SignalKind::interrupt())?)
}

/// Shows how a job gets on until it has ended; an interrupt cancels it.
pub(super) async fn follow(
    place: &Where<'_>,
    id: Uuid,
    interrupts: &mut Signal,
) -> Result<Job, Failed> {
    let meter = Meter::new();
    let mut is_cancelled = false;
    loop {
        let job = place.show(id).await?;
        let progress = &job.progress;
        let of = progress.total_chunks.map(|total| format!(" of {total}"));
        let of = of.unwrap_or_default();
        let current = progress.current.as_deref().unwrap_or_default();
        let what = match job.state {
            JobState::Queued => "waiting for other jobs".to_owned(),
            _ => format!("{}{of} chunks  {current}", progress.chunks),
        };
        meter.show(progress.bytes, progress.total_bytes, &what);
        if job.state.has_ended() {
            meter.done();
            return Ok(job);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = changed(place, &job) => {}
            _ = interrupts.recv(), if !is_cancelled => {
                is_cancelled = true;
                eprintln!("cancelling job {id}");
                place.cancel(id).await?;
            }
        }
    }
}

/// Resolves when a job of this process has ended.
async fn changed(place: &Where<'_>, job: &Job) {
    match place {
        Where::Here(state) => jobs::ended(state, job.id).await,
        Where::There(_) => std::future::pending().await,
    }
}

/// What a job that has ended came to; one that did not is an error.
pub(super) fn outcome(job: Job) -> Result<JobReport, Failed> {
    for warning in &job.warnings {
        eprintln!("warning: {warning}");
    }
    match (job.state, job.report) {
        (JobState::Done, Some(report)) => Ok(report),
        (JobState::Cancelled, _) => Err(Failed(format!(
            "job {} was cancelled: nothing was committed",
            job.id
        ))),
        _ => Err(Failed(
            job.error
                .unwrap_or_else(|| "the job ended without a word".into()),
        )),
    }
}

/// Prints how codecs did on a sample of an array.
pub(super) fn print_trials(path: &str, trials: &[TrialInfo]) {
    for trial in trials {
        out!(
            "{} {path} {:<18} {:>7.2} times smaller, written at {:>6.0} MB/s, read at {:>6.0} MB/s",
            if trial.chosen { "*" } else { " " },
            trial.codec,
            trial.ratio,
            trial.encode_mb_s,
            trial.decode_mb_s,
        );
    }
}

/// Prints what an import made.
pub(super) fn print_import(id: Uuid, report: &ImportReport, seconds: f64, as_json: bool) {
    if as_json {
        let paths: Vec<&str> = report
            .arrays
            .iter()
            .map(|array| array.path.as_str())
            .collect();
        let body = json!({
            "job": id,
            "commit": report.commit,
            "arrays": paths,
            "variables": report.arrays,
            "bytes": report.bytes,
            "stored_bytes": report.stored_bytes,
            "codecs": report.trials,
            "copied": report.copied,
            "seconds": seconds,
        });
        out!("{body}");
    } else {
        for (path, trials) in &report.trials {
            print_trials(path, trials);
        }
        out!(
            "imported {} arrays, {} in {seconds:.1} s, as commit {}",
            report.arrays.len(),
            print::size(report.bytes),
            report.commit
        );
    }
}

pub(super) async fn jobs(
    place: &Where<'_>,
    command: JobsCommand,
    as_json: bool,
) -> Result<(), Failed> {
    match command {
        JobsCommand::List => {
            let mut found: Vec<Value> = Vec::new();
            for job in place.list().await? {
                let mut shown = serde_json::to_value(&job)?;
                if !as_json {
                    shown["kind"] = shown["spec"]["kind"].clone();
                    shown["repository"] = shown["spec"]["repository"].clone();
                }
                found.push(shown);
            }
            let columns = ["id", "kind", "repository", "state", "created", "updated"];
            print::table(&json!({ "jobs": found }), "jobs", &columns, as_json);
        }
        JobsCommand::Show { id } => {
            print::fields(&serde_json::to_value(place.show(id).await?)?, as_json);
        }
        JobsCommand::Cancel { id } => {
            print::fields(&serde_json::to_value(place.cancel(id).await?)?, as_json);
        }
        JobsCommand::Resume { id } => {
            let started = std::time::Instant::now();
            let mut interrupts = interrupts()?;
            place.resume(id).await?;
            let job = follow(place, id, &mut interrupts).await?;
            if let JobReport::Import(report) = outcome(job.clone())? {
                let seconds = started.elapsed().as_secs_f64();
                print_import(id, &report, seconds, as_json);
            } else {
                print::fields(&serde_json::to_value(job)?, as_json);
            }
        }
    }
    Ok(())
}
