//! `quarr doctor`: what is wrong with a server or a store, and what to do about it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use array::{NodePath, Region};
use chrono::{TimeDelta, Utc};
use clap::Args;
use serde_json::{Value, json};
use storage::{Location, Node, Put, RepoName, Repository, Snapshot, Store};

use super::client::Client;
use super::{Failed, Place, print};
use crate::jobs;
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Do not write to the store: what needs a write to be known is left out.
    #[arg(long)]
    read_only: bool,
}

/// How a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Wrong.
    Wrong,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Notable => "note",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    health: Health,
    what: String,
    /// What to do about it.
    advice: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, what: impl Into<String>) {
        self.add(Health::Good, what, None);
    }

    fn note(&mut self, what: impl Into<String>, advice: &str) {
        self.add(Health::Notable, what, Some(advice));
    }

    fn wrong(&mut self, what: impl Into<String>, advice: &str) {
        self.add(Health::Wrong, what, Some(advice));
    }

    fn add(&mut self, health: Health, what: impl Into<String>, advice: Option<&str>) {
        self.0.push(Finding {
            health,
            what: what.into(),
            advice: advice.map(str::to_owned),
        });
    }

    /// Prints them; the exit code says whether something is wrong.
    fn report(&self, as_json: bool) -> ExitCode {
        let is_wrong = self.0.iter().any(|found| found.health == Health::Wrong);
        if as_json {
            let finding = |found: &Finding| json!({ "health": found.health.name(), "what": found.what, "advice": found.advice });
            let findings: Vec<Value> = self.0.iter().map(finding).collect();
            out!("{}", json!({ "healthy": !is_wrong, "findings": findings }));
        } else {
            for found in &self.0 {
                out!("{:5}  {}", found.health.name(), found.what);
                if let Some(advice) = &found.advice {
                    out!("       {advice}");
                }
            }
        }
        match is_wrong {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }
}

/// A request that has run for longer is worth a look, in seconds.
const LONG_REQUEST_SECONDS: f64 = 60.0;
/// One part in so many failing requests to the object store is worth a look.
const MOST_ERRORS_SHARE: f64 = 0.01;
/// The mean time of a request to the object store that is worth a look.
const SLOW_STORE_MS: f64 = 1000.0;
/// Part of a limit that is taken before it is worth a look.
const FULL_SHARE: f64 = 0.9;

/// Looks at a server.
pub(super) async fn of_server(
    client: &Client,
    url: &str,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    let mut findings = Findings::default();
    let status = match client.json("GET", &["v1", "status"], &[], None).await {
        Ok(status) => status,
        Err(Failed(reason)) => {
            findings.wrong(
                format!("{url} does not say how it is: {reason}"),
                "is a quarr server running there, and may this machine reach it?",
            );
            return Ok(findings.report(as_json));
        }
    };
    let limits = client.json("GET", &["v1", "limits"], &[], None).await?;
    match client.bytes("GET", &["readyz"], &[], None).await {
        Ok(_) => findings.good("it is ready"),
        Err(Failed(reason)) if status["phase"] == "serving" => findings.wrong(
            format!("it is not ready: {reason}"),
            "its log says why the object store does not answer",
        ),
        Err(Failed(reason)) => findings.wrong(
            format!("it is not ready: {reason}"),
            "it was asked to end: start another one, or wait for it",
        ),
    }
    judge_status(&status, &limits, &mut findings);
    Ok(findings.report(as_json))
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or(0.0)
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    let found = value.pointer(path).and_then(Value::as_array);
    found.into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("?")
}

/// What a server's account of itself means.
fn judge_status(status: &Value, limits: &Value, findings: &mut Findings) {
    findings.good(format!(
        "version {}, up for {}, over {}",
        text(status, "version"),
        humantime::format_duration(Duration::from_secs(number(status, "/uptime_seconds") as u64)),
        text(status, "store"),
    ));
    let running = number(status, "/requests/running");
    findings.good(format!("{running} requests are being answered"));
    for request in list(status, "/requests/oldest") {
        let seconds = number(request, "/seconds");
        if seconds > LONG_REQUEST_SECONDS && !text(request, "route").ends_with("/events") {
            let (method, route) = (text(request, "method"), text(request, "route"));
            findings.note(
                format!("{method} {route} has run for {seconds:.0} s"),
                &format!("its trace is {}", text(request, "trace_id")),
            );
        }
    }
    let waiting = number(status, "/requests/waiting");
    if waiting > 0.0 {
        findings.note(
            format!("{waiting} requests wait for others to end"),
            "more servers on the same store, or a larger --max-requests, take more at once",
        );
    }
    let (connections, most) = (
        number(status, "/requests/connections"),
        number(limits, "/serving/connections"),
    );
    if most > 0.0 && connections >= most * FULL_SHARE {
        findings.wrong(
            format!("{connections} of {most} connections are taken"),
            "clients are refused soon: raise --max-connections, or add servers",
        );
    }
    for refused in list(status, "/requests/refused") {
        let count = number(refused, "/count");
        if count > 0.0 {
            let limit = text(refused, "limit");
            findings.note(
                format!("{count} times a client passed the limit {limit}"),
                "docs/operations.md says what the limits are for",
            );
        }
    }
    judge_work(status, findings);
    judge_object_store(status, findings);
    let (open, most) = (
        number(status, "/process/open_files"),
        number(status, "/process/open_files_most"),
    );
    if most > 0.0 && open >= most * FULL_SHARE {
        findings.wrong(
            format!("{open} of {most} files are open"),
            "raise the limit of open files of the process (ulimit -n)",
        );
    }
}

fn judge_work(status: &Value, findings: &mut Findings) {
    let (used, limit) = (
        number(status, "/memory/used_bytes"),
        number(status, "/memory/limit_bytes"),
    );
    let taken = format!("{} of {} of memory are taken", size(used), size(limit));
    match number(status, "/memory/waiting") {
        0.0 => findings.good(taken),
        waiting => findings.note(
            format!("{taken}, and {waiting} requests wait for some"),
            "raise --memory-limit, or ask for less at once",
        ),
    }
    let refused = number(status, "/memory/refused");
    if refused > 0.0 {
        findings.wrong(
            format!("{refused} requests were refused for want of memory"),
            "raise --memory-limit, or add servers",
        );
    }
    judge_devices(status, findings);
    for jobs in list(status, "/jobs") {
        findings.good(format!(
            "{} {} jobs run ({} of {}), {} wait",
            number(jobs, "/running"),
            text(jobs, "kind"),
            size(number(jobs, "/done_bytes")),
            size(number(jobs, "/total_bytes")),
            number(jobs, "/queued"),
        ));
    }
}

fn judge_devices(status: &Value, findings: &mut Findings) {
    if let Some(reason) = status.pointer("/gpu/unavailable").and_then(Value::as_str)
        && status["gpu"]["use"] == "always"
    {
        findings.wrong(
            format!("there is no CUDA device to use: {reason}"),
            "docs/gpu.md says what is needed; reductions are right without one",
        );
    }
    for (nth, device) in list(status, "/gpu/devices").enumerate() {
        let what = format!("the CUDA device {nth}, {}", text(device, "name"));
        match device["broken"] == true {
            true => findings.wrong(
                format!("{what}, failed too often to be asked again"),
                "look at it with nvidia-smi and start the server again; until then the processor reduces",
            ),
            false => findings.good(format!(
                "{what}, has reduced {} inner chunks",
                number(device, "/chunks")
            )),
        }
    }
}

fn judge_object_store(status: &Value, findings: &mut Findings) {
    let mut is_well = true;
    for of in list(status, "/store_operations") {
        let (name, requests) = (text(of, "operation"), number(of, "/requests"));
        let (errors, mean) = (number(of, "/errors"), number(of, "/mean_ms"));
        if errors > requests * MOST_ERRORS_SHARE {
            is_well = false;
            findings.wrong(
                format!("of {requests} {name} requests, the object store failed {errors}"),
                "the server's log has the errors; look at the store's limits and credentials",
            );
        }
        if mean > SLOW_STORE_MS {
            is_well = false;
            findings.note(
                format!("a {name} request takes {mean:.0} ms"),
                "is the store far away, or does it hold requests back?",
            );
        }
    }
    if is_well {
        findings.good("the object store answers");
    }
}

fn size(bytes: f64) -> String {
    print::size(bytes as u64)
}

/// Where a probe is written; it is deleted at once.
const PROBE: &str = ".quarr/doctor";
/// A clock that is further off than this is worth a look; writers refuse to write at five minutes.
const NOTABLE_SKEW: TimeDelta = TimeDelta::seconds(30);
/// From then on no writer writes.
const MOST_SKEW: TimeDelta = TimeDelta::minutes(5);
/// Less room than this is worth a look.
const LITTLE_SPACE_BYTES: u64 = 5 << 30;
/// Less is wrong.
const NO_SPACE_BYTES: u64 = 256 << 20;

/// Looks at a store.
pub(super) async fn of_store(
    state: &State,
    args: &DoctorArgs,
    place: &Place,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    let mut findings = Findings::default();
    if probe_reading(state.store(), &mut findings).await {
        if !args.read_only {
            probe_writing(state.store(), &mut findings).await;
        }
        judge_clock(state.store(), &mut findings);
        judge_repositories(state, &mut findings).await;
        judge_jobs(state, &mut findings).await;
    }
    judge_disks(state.store(), place, &mut findings);
    Ok(findings.report(as_json))
}

async fn probe_reading(store: &Store, findings: &mut Findings) -> bool {
    let started = Instant::now();
    let url = crate::http::without_secrets(store.url());
    match store.folders().await {
        Ok(_) => {
            let time = started.elapsed().as_secs_f64() * 1e3;
            findings.good(format!("{url} can be listed, in {time:.1} ms"));
            true
        }
        Err(error) => {
            findings.wrong(
                format!("{url} cannot be listed: {}", crate::error::chain(&error)),
                "check its name, its endpoint, the credentials, and their right to list",
            );
            false
        }
    }
}

/// Whether the store creates an object once, gives it back, and deletes it.
async fn probe_writing(store: &Store, findings: &mut Findings) {
    let key = format!("{PROBE}/{}", uuid::Uuid::new_v4());
    let (first, second) = (b"first".as_slice(), b"second".as_slice());
    let probed = async {
        let created = store.put_if_absent(&key, first.into()).await?;
        let again = store.put_if_absent(&key, second.into()).await?;
        let found = store.get(&key).await?;
        Ok::<_, storage::Error>((created, again, found))
    };
    match probed.await {
        Ok((Put::Created, Put::AlreadyThere, Some(found))) if found == first => {
            findings.good("objects are created once, and read back");
        }
        Ok(_) => findings.wrong(
            "a second writer of the same object is not refused",
            "the store has no conditional writes (If-None-Match: *): commits would be lost, use another",
        ),
        Err(error) => findings.wrong(
            format!("nothing can be written: {}", crate::error::chain(&error)),
            "check the credentials' right to write; with --read-only this is not tried",
        ),
    }
    if let Err(error) = store.delete(vec![key]).await {
        findings.note(
            format!("nothing can be deleted: {}", crate::error::chain(&error)),
            "gc needs the right to delete",
        );
    }
}

fn judge_clock(store: &Store, findings: &mut Findings) {
    let Some(ahead) = store.clock_ahead() else {
        return;
    };
    let seconds = ahead.num_seconds();
    let what = format!("the clock of the store is {seconds} s ahead of this machine's");
    let advice = "set this machine's clock by NTP";
    if ahead.abs() > MOST_SKEW {
        findings.wrong(what, advice);
    } else if ahead.abs() > NOTABLE_SKEW {
        findings.note(what, advice);
    } else {
        findings.good("the clocks agree");
    }
}

async fn judge_repositories(state: &State, findings: &mut Findings) {
    let names = match storage::list_repositories(state.store()).await {
        Ok(names) => names,
        Err(error) => {
            let what = format!(
                "repositories cannot be listed: {}",
                crate::error::chain(&error)
            );
            return findings.wrong(what, "check the credentials' right to list");
        }
    };
    findings.good(format!("{} repositories", names.len()));
    for name in names
        .iter()
        .filter_map(|name| name.parse::<RepoName>().ok())
    {
        let opened = match state.repository(&name).await {
            Ok(repository) => repository
                .head()
                .await
                .map(|_| repository)
                .map_err(Into::into),
            Err(failure) => Err(failure),
        };
        match opened {
            Err(failure) => findings.wrong(
                format!("{name} cannot be opened: {}", failure.problem().detail),
                "quarr verify tells what of it is damaged",
            ),
            Ok(repository) => {
                judge_branches(&name, &repository, findings).await;
                judge_signature(state, &name, &repository, findings).await;
            }
        }
    }
}

/// Whether what the branches and tags name is there.
async fn judge_branches(name: &RepoName, repository: &Repository, findings: &mut Findings) {
    let Ok(head) = repository.head().await else {
        return;
    };
    for (reference, commit) in &head.refs {
        let place = format!("{name}@{}", reference.name);
        let judged = match repository.snapshot(*commit).await {
            Ok(snapshot) => judge_originals(&place, &snapshot, findings).await,
            Err(error) => Err(error),
        };
        if let Err(error) = judged {
            findings.wrong(
                format!("{place} cannot be read: {}", crate::error::chain(&error)),
                &format!("quarr verify {name} tells what is lost"),
            );
        }
    }
}

/// Arrays of a commit whose files elsewhere are looked for.
const LOOKED_FOR: usize = 256;

/// Whether files elsewhere that arrays refer to are there: that of the first chunk of each.
async fn judge_originals(
    place: &str,
    snapshot: &Snapshot,
    findings: &mut Findings,
) -> Result<(), storage::Error> {
    let nodes = snapshot
        .walk(snapshot.node(&NodePath::root()).await?)
        .await?;
    let arrays = nodes.into_iter().filter_map(|node| match node {
        Node::Array(array) => Some(array),
        Node::Group(_) => None,
    });
    for array in arrays.take(LOOKED_FOR) {
        let rank = array.metadata().shape().len();
        let first = Region::new(vec![0; rank], vec![1; rank])?;
        for row in array.chunks(&first).await? {
            if !matches!(row.location, Location::External { .. }) || row.length == 0 {
                continue;
            }
            if let Err(error) = array.chunk_bytes(&row, 0..1).await {
                let what = crate::error::chain(&error);
                findings.wrong(
                    format!("{place}/{}: {what}", array.path()),
                    "put the file back as it was, or import it again; a server needs --import-allow for it",
                );
            }
        }
    }
    Ok(())
}

/// Whether the newest entry of a log that is signed has been.
async fn judge_signature(
    state: &State,
    name: &RepoName,
    repository: &Repository,
    findings: &mut Findings,
) {
    let has_key = match state.signing() {
        Some(signing) => signing
            .keys_of(repository)
            .is_ok_and(|keys| !keys.verifiers().is_empty()),
        None => false,
    };
    let Ok(head) = repository.head().await else {
        return;
    };
    let entries = head.next_sequence();
    let published = repository.published().await;
    match published.map(|checkpoint| checkpoint.map(|checkpoint| checkpoint.head.size)) {
        Ok(Some(signed)) if signed < entries => findings.note(
            format!(
                "{name}: {} of {entries} log entries are not signed",
                entries - signed
            ),
            match has_key {
                true => "a server with this key signs them when it runs",
                false => "they are signed by whoever has the key: run a server there",
            },
        ),
        Ok(None) if has_key => findings.note(
            format!("{name}: its log is not signed yet, though its key is here"),
            "a server with this key signs it when it runs",
        ),
        Ok(_) => {}
        Err(error) => findings.wrong(
            format!(
                "{name}: its signed head cannot be read: {}",
                crate::error::chain(&error)
            ),
            "quarr verify tells what of the log is damaged",
        ),
    }
}

/// Whether jobs stand still.
async fn judge_jobs(state: &State, findings: &mut Findings) {
    let all = match jobs::list(state).await {
        Ok(all) => all,
        Err(failure) => {
            let what = format!("jobs cannot be listed: {}", failure.problem().detail);
            return findings.wrong(what, "check the credentials' right to list and read");
        }
    };
    let open = all.iter().filter(|job| !job.state.has_ended());
    for job in open {
        let idle = (Utc::now() - job.updated).to_std().unwrap_or_default();
        let (id, kind) = (job.id, job.spec.name());
        if idle > state.jobs().settings().stale_after * 3 {
            let idle = humantime::format_duration(Duration::from_secs(idle.as_secs()));
            findings.note(
                format!("{kind} job {id} has stood still for {idle}"),
                &format!("quarr jobs resume {id} goes on with it, quarr jobs cancel {id} ends it"),
            );
        } else {
            findings.good(format!("{kind} job {id} is {}", job.state.name()));
        }
    }
}

/// Whether local stores and caches have room.
fn judge_disks(store: &Store, place: &Place, findings: &mut Findings) {
    let local = (!store.is_remote() && !store.url().contains("://")).then(|| store.url());
    let local = local.or_else(|| store.url().strip_prefix("file://"));
    let store = local.map(|path| ("the store", PathBuf::from(path)));
    let cache = place
        .sizes
        .cache_dir()
        .map(|path| ("the cache", path.to_owned()));
    for (what, path) in store.into_iter().chain(cache) {
        match free_bytes(&path) {
            None => {}
            Some(free) if free < NO_SPACE_BYTES => findings.wrong(
                format!("the disk of {what} has {} left", print::size(free)),
                "make room: nothing can be written soon",
            ),
            Some(free) if free < LITTLE_SPACE_BYTES => findings.note(
                format!("the disk of {what} has {} left", print::size(free)),
                "make room in time",
            ),
            Some(free) => {
                findings.good(format!("the disk of {what} has {} left", print::size(free)));
            }
        }
    }
}

/// Room on the disk that has `path`, or will have it.
fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|path| path.exists())?;
    let system = rustix::fs::statvfs(existing).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: &Value) -> Vec<(Health, String)> {
        let mut findings = Findings::default();
        let limits = json!({ "serving": { "connections": 10 } });
        judge_status(status, &limits, &mut findings);
        let found = findings.0.into_iter();
        found.map(|found| (found.health, found.what)).collect()
    }

    #[test]
    fn what_a_busy_server_lacks_is_said() {
        let calm = json!({ "version": "1", "store": "s", "uptime_seconds": 3.0 });
        assert!(
            judged(&calm)
                .iter()
                .all(|(health, _)| *health == Health::Good)
        );
        for (status, health, part) in [
            (
                json!({ "requests": { "connections": 9 } }),
                Health::Wrong,
                "9 of 10",
            ),
            (
                json!({ "memory": { "refused": 2 } }),
                Health::Wrong,
                "2 requests",
            ),
            (
                json!({ "memory": { "waiting": 1 } }),
                Health::Notable,
                "1 requests wait",
            ),
            (
                json!({ "store_operations": [{ "operation": "get", "requests": 50, "errors": 1 }] }),
                Health::Wrong,
                "failed 1",
            ),
            (
                json!({ "requests": { "oldest": [{ "route": "/x", "seconds": 90.0 }] } }),
                Health::Notable,
                "/x has run for 90 s",
            ),
            (
                json!({ "process": { "open_files": 99, "open_files_most": 100 } }),
                Health::Wrong,
                "99 of 100 files",
            ),
        ] {
            let found = judged(&status);
            let is_it = |(of, what): &(Health, String)| *of == health && what.contains(part);
            assert!(found.iter().any(is_it), "{part}: {found:?}");
        }
    }

    #[test]
    fn a_disk_that_will_have_a_folder_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let here = free_bytes(directory.path()).unwrap();
        assert!(here > 0);
        assert!(free_bytes(&directory.path().join("not/yet")).is_some());
    }
}
