//! `quarr expire`, `gc` and `rewrite-manifest`: what keeps a repository small and fast.

use std::io::Write as _;

use chrono::{TimeDelta, Utc};
use clap::Args;
use serde_json::json;
use storage::{GcOptions, RepoName};

use super::versions::author;
use super::{Failed, print};
use crate::state::State;
use crate::target::Target;

#[derive(Debug, Args)]
pub(super) struct ExpireArgs {
    /// The repository.
    repository: RepoName,
    /// Age from which commits expire, like 30d, 12h or 1y; heads of branches and tags never do.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: TimeDelta,
    /// Only say at which commits the history would end.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// The repository.
    repository: RepoName,
    /// Only say what would go, and how many bytes.
    #[arg(long)]
    dry_run: bool,
    /// How long what refs left behind, and what expired, stays.
    #[arg(long, default_value = "7d", value_name = "AGE", value_parser = age)]
    retention: TimeDelta,
    /// How long objects nothing refers to stay: a commit that needs them may be under way.
    #[arg(long, default_value = "24h", value_name = "AGE", value_parser = age)]
    grace: TimeDelta,
    /// How long a transaction nobody touches stays open.
    #[arg(long, default_value = "7d", value_name = "AGE", value_parser = age)]
    transaction_idle: TimeDelta,
    /// How old a collection by another process must be to be taken over.
    #[arg(long, default_value = "1h", value_name = "AGE", value_parser = age)]
    take_over_after: TimeDelta,
}

#[derive(Debug, Args)]
pub(super) struct RewriteArgs {
    #[arg(help = "REPO[@BRANCH][/PATH]")]
    target: Target,
}

/// A time like `30d`, `12h`, `90m`.
pub(super) fn age(text: &str) -> Result<TimeDelta, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    TimeDelta::from_std(parsed).map_err(|error| error.to_string())
}

pub(super) async fn expire(state: &State, args: &ExpireArgs, as_json: bool) -> Result<(), Failed> {
    let repository = state.repository(&args.repository).await?;
    let cutoff = Utc::now()
        .checked_sub_signed(args.older_than)
        .ok_or_else(|| Failed("--older-than: before the beginning of time".into()))?;
    let commits = if args.dry_run {
        repository.expirable(cutoff).await?
    } else {
        repository.expire(cutoff, &author()).await?
    };
    let verb = if args.dry_run { "would end" } else { "ends" };
    let line = match commits.len() {
        0 => "nothing is that old".to_owned(),
        1 => format!("the history {verb} at {}", commits[0]),
        count => format!("the history {verb} at {count} commits"),
    };
    let body = json!({ "dry_run": args.dry_run, "expired": commits });
    print::line(&body, as_json, &line);
    Ok(())
}

pub(super) async fn gc(state: &State, args: &GcArgs, as_json: bool) -> Result<(), Failed> {
    let repository = state.repository(&args.repository).await?;
    let options = GcOptions {
        retention: args.retention,
        grace: args.grace,
        transaction_idle: args.transaction_idle,
        take_over_after: args.take_over_after,
        dry_run: args.dry_run,
        ..GcOptions::default()
    };
    let report = repository.gc(&options, &author()).await?;
    if as_json {
        let body = json!({
            "dry_run": args.dry_run,
            "kept": report.kept,
            "kept_bytes": report.kept_bytes,
            "young": report.young,
            "deleted": report.deleted,
            "deleted_bytes": report.deleted_bytes,
        });
        out!("{body}");
        return Ok(());
    }
    let size = print::size;
    out!(
        "{} {} objects ({}); {} are needed ({}), {} nothing refers to are younger than the grace period",
        if args.dry_run {
            "would delete"
        } else {
            "deleted"
        },
        report.deleted,
        size(report.deleted_bytes),
        report.kept,
        size(report.kept_bytes),
        report.young,
    );
    Ok(())
}

pub(super) async fn rewrite(
    state: &State,
    args: &RewriteArgs,
    as_json: bool,
) -> Result<(), Failed> {
    let target = &args.target;
    if target.slice.is_some() {
        return Err(Failed(
            "rewrite-manifest takes whole groups and arrays".into(),
        ));
    }
    let repository = state.repository(&target.repository).await?;
    let branch = target.reference.parse()?;
    let rewritten = state
        .engine()
        .rewrite_manifests(&repository, &branch, &target.path, &author())
        .await?;
    let body = json!({
        "arrays": rewritten.arrays,
        "chunks": rewritten.chunks,
        "commit": rewritten.commit.map(|commit| commit.to_string()),
    });
    let line = match rewritten.commit {
        Some(commit) => format!(
            "computed the statistics of {} chunks of {} arrays: {branch} is at {commit}",
            rewritten.chunks, rewritten.arrays
        ),
        None => "all manifests are complete".to_owned(),
    };
    print::line(&body, as_json, &line);
    Ok(())
}
