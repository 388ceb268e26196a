//! Long work in the service: durable in the store, so that it goes on after a restart.
//!
//! ```text
//! POST ─► record, put-if-absent ─► task ─► record overwritten every few seconds ─► done
//!                                   ▲                    │ its server is gone
//!                                   └──── another one ◄──┘
//! ```
//!
//! Records lie beside the repositories, under `.quarr/jobs/`. One server works on a job: the owner
//! its record names. A server that reads another owner there, or that the job was cancelled, stops.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use array::hash::{Kind, hash};
use chrono::{DateTime, TimeDelta, Utc};
use query::{Progress, Report};
use serde::{Deserialize, Serialize};
use storage::{Damage, Put, Repository, Scope};
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::Failure;
use crate::state::State;

/// Folder of the records in a store.
const FOLDER: &str = ".quarr/jobs";
/// How often the record of a running job is written.
const SAVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a record stands still before another server takes its job over.
const STALE_AFTER: TimeDelta = TimeDelta::seconds(20);
/// How often a server looks for jobs that nobody works on.
const ADOPT_INTERVAL: Duration = Duration::from_secs(10);
/// How long the records of finished jobs are kept.
const KEPT_FOR: TimeDelta = TimeDelta::days(30);
/// Most jobs a server works on at once.
const MAX_RUNNING: usize = 8;

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifySpec {
    /// The repository.
    pub repository: String,
    /// A branch, tag, commit, `x~n` or `x@time`; everything the repository stores if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Check only what came after this commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Decode every chunk and recompute the statistics too.
    #[serde(default)]
    pub deep: bool,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobSpec {
    /// Checks stored bytes.
    Verify(VerifySpec),
}

/// How a job is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It is being worked on, or will be.
    Running,
    /// It came to its end, which `report` tells.
    Done,
    /// It could not, for the reason `error` tells.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DamageInfo {
    /// Key of the object, or the place in the hierarchy.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReportInfo {
    /// Everything that is not as it was written.
    pub damage: Vec<DamageInfo>,
    /// Log entries checked.
    pub entries: u64,
    /// Commits checked.
    pub commits: u64,
    /// Objects checked.
    pub objects: u64,
    /// Stored chunks whose bytes were checked.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub chunk_bytes: u64,
    /// Objects that nothing refers to.
    pub unreferenced: u64,
}

impl From<Report> for ReportInfo {
    fn from(report: Report) -> Self {
        let info = |Damage { object, reason }| DamageInfo { object, reason };
        Self {
            damage: report.damage.into_iter().map(info).collect(),
            entries: report.entries,
            commits: report.commits,
            objects: report.objects,
            chunks: report.chunks,
            chunk_bytes: report.chunk_bytes,
            unreferenced: report.unreferenced,
        }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProgressInfo {
    /// Stored chunks whose bytes were checked.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub chunk_bytes: u64,
    /// Bytes of all chunks there are to check.
    pub total_bytes: u64,
}

/// A job, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// What it does.
    pub spec: JobSpec,
    /// How it is going.
    pub state: JobState,
    /// When it was asked for.
    #[schema(value_type = String)]
    pub created: DateTime<Utc>,
    /// When this was written.
    #[schema(value_type = String)]
    pub updated: DateTime<Utc>,
    /// The server that works on it.
    #[schema(value_type = String)]
    pub owner: Uuid,
    /// How far it is.
    pub progress: ProgressInfo,
    /// What it came to.
    pub report: Option<ReportInfo>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A job, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    job: Job,
    /// From where another server goes on.
    resume: Progress,
}

impl Record {
    fn take_in(&mut self, progress: &Progress) {
        self.resume.clone_from(progress);
        self.job.progress = ProgressInfo {
            chunks: progress.chunks,
            chunk_bytes: progress.chunk_bytes,
            total_bytes: progress.total_bytes,
        };
    }
}

/// A job this server works on.
#[derive(Clone, Debug)]
struct Running {
    record: watch::Sender<Record>,
    is_cancelled: Arc<AtomicBool>,
}

/// The jobs of this server.
#[derive(Debug)]
pub struct Jobs {
    /// This server, as records name it.
    owner: Uuid,
    running: Mutex<HashMap<Uuid, Running>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            owner: Uuid::new_v4(),
            running: Mutex::default(),
        }
    }
}

impl Jobs {
    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(id: Uuid) -> String {
    format!("{FOLDER}/{id}.json")
}

fn encode(record: &Record) -> Result<bytes::Bytes, Failure> {
    let bytes = serde_json::to_vec(record);
    Ok(bytes
        .map_err(|error| Failure::bad_request("body", error.to_string()))?
        .into())
}

async fn stored(state: &State, id: Uuid) -> Result<Option<Record>, Failure> {
    let key = key(id);
    let Some(bytes) = state.store().get(&key).await? else {
        return Ok(None);
    };
    let reason = |error: serde_json::Error| storage::Error::Corrupt {
        key,
        reason: error.to_string(),
    };
    Ok(Some(serde_json::from_slice(&bytes).map_err(reason)?))
}

/// Verifies what is asked for.
///
/// # Errors
/// 404 if there is no such repository or commit, 400 if the scope is not valid, 503 if the store
/// failed. Damage is part of the report.
pub async fn verify(
    state: &State,
    spec: &VerifySpec,
    progress: &mut Progress,
    observe: &mut (dyn FnMut(&Progress) -> bool + Send),
) -> Result<ReportInfo, Failure> {
    let repository = state.repository(&spec.repository.parse()?).await?;
    let of = format!("{} {}", repository.id(), describe(spec));
    if progress.of.is_empty() {
        *progress = Progress::new(&of, spec.deep);
    }
    if progress.of != of {
        return Err(Failure::bad_request(
            "resume",
            format!("this is how far another verification got ({})", progress.of),
        ));
    }
    let resolve = async |text: &str| {
        let resolved = repository.resolve(&text.parse()?).await?;
        Ok::<_, Failure>(resolved.commit)
    };
    let scope = match (&spec.reference, &spec.since) {
        (None, None) => Scope::Everything,
        (Some(reference), None) => Scope::Commit(resolve(reference).await?),
        (reference, Some(since)) => Scope::Since {
            heads: match reference {
                Some(reference) => vec![resolve(reference).await?],
                None => repository.head().await?.refs.into_values().collect(),
            },
            since: resolve(since).await?,
        },
    };
    let engine = state.engine();
    let mut report = engine
        .verify(&repository, &scope, progress, observe)
        .await?;
    if scope == Scope::Everything {
        report
            .damage
            .extend(check_signatures(state, &repository).await?);
    }
    Ok(report.into())
}

/// What is verified, in words.
fn describe(spec: &VerifySpec) -> String {
    let reference = spec.reference.as_deref().unwrap_or("everything");
    let since = spec.since.as_ref().map(|since| format!(" since {since}"));
    let deep = if spec.deep { " deep" } else { "" };
    format!("{reference}{}{deep}", since.unwrap_or_default())
}

/// What is wrong with the signatures of the published log, if its keys are here.
async fn check_signatures(
    state: &State,
    repository: &Repository,
) -> Result<Option<Damage>, Failure> {
    let Some(signing) = state.signing() else {
        return Ok(None);
    };
    let keys = signing.keys_of(repository)?.known();
    let published = match repository.published().await {
        Ok(published) => published.filter(|_| !keys.is_empty()),
        // It is damaged, and that was found already.
        Err(storage::Error::Corrupt { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let wrong = |reason| Damage {
        object: "tlog/checkpoint".to_owned(),
        reason,
    };
    Ok(published
        .and_then(|published| published.verify(&keys).err())
        .map(wrong))
}

/// Begins a job, or finds the one that was asked for under the same idempotency key.
///
/// # Errors
/// 404 if there is no such repository or commit, 422 if the key was used for another job, 503 if there are
/// too many.
pub async fn begin(state: &State, spec: JobSpec, request: Option<&str>) -> Result<Job, Failure> {
    let JobSpec::Verify(verify) = &spec;
    let repository = state.repository(&verify.repository.parse()?).await?;
    for text in verify.reference.iter().chain(&verify.since) {
        repository.resolve(&text.parse()?).await?;
    }
    let jobs = state.jobs();
    if jobs.running().len() >= MAX_RUNNING {
        return Err(Failure::busy(format!(
            "{MAX_RUNNING} jobs are running: wait for one of them, or cancel it"
        )));
    }
    let id = match request {
        None => Uuid::new_v4(),
        Some(request) => {
            let digest = hash(Kind::Request, request.as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest.as_bytes()[..16]);
            uuid::Builder::from_custom_bytes(bytes).into_uuid()
        }
    };
    let now = Utc::now();
    let job = Job {
        id,
        spec,
        state: JobState::Running,
        created: now,
        updated: now,
        owner: jobs.owner,
        progress: ProgressInfo::default(),
        report: None,
        error: None,
    };
    let record = Record {
        job,
        resume: Progress::default(),
    };
    let bytes = encode(&record)?;
    let put = state.store().put_if_absent(&key(id), bytes).await?;
    if put == Put::AlreadyThere
        && let Some(first) = stored(state, id).await?
    {
        return match first.job.spec == record.job.spec {
            true => Ok(first.job),
            false => Err(Failure::key_reused(request.unwrap_or_default())),
        };
    }
    let job = record.job.clone();
    start(state, record);
    Ok(job)
}

/// The job `id`.
///
/// # Errors
/// 404 if there is none.
pub async fn show(state: &State, id: Uuid) -> Result<Job, Failure> {
    Ok(record(state, id).await?.job)
}

async fn record(state: &State, id: Uuid) -> Result<Record, Failure> {
    let running = state.jobs().running().get(&id).cloned();
    if let Some(running) = running {
        return Ok(running.record.borrow().clone());
    }
    let found = stored(state, id).await?;
    found.ok_or_else(|| Failure::not_found(format!("there is no job {id}")))
}

/// All jobs, the newest first.
///
/// # Errors
/// 503 if the store failed.
pub async fn list(state: &State) -> Result<Vec<Job>, Failure> {
    let mut found = Vec::new();
    for id in ids(state).await? {
        match stored(state, id).await {
            Ok(record) => found.extend(record.map(|record| record.job)),
            Err(failure) if failure.is_damage() => {
                let reason = &failure.problem().detail;
                warn!(job = %id, %reason, "left out of the list");
            }
            Err(failure) => return Err(failure),
        }
    }
    found.sort_by_key(|job| std::cmp::Reverse(job.created));
    Ok(found)
}

async fn ids(state: &State) -> Result<Vec<Uuid>, Failure> {
    let listed = state.store().list(FOLDER).await?;
    let id = |(key, _): &(String, u64)| {
        let name = key.strip_prefix(FOLDER)?.strip_prefix('/')?;
        name.strip_suffix(".json")?.parse().ok()
    };
    Ok(listed.iter().filter_map(id).collect())
}

/// Cancels a job; one that has ended stays as it is.
///
/// # Errors
/// 404 if there is none.
pub async fn cancel(state: &State, id: Uuid) -> Result<Job, Failure> {
    let mut record = record(state, id).await?;
    if record.job.state != JobState::Running {
        return Ok(record.job);
    }
    record.job.state = JobState::Cancelled;
    save(state, &mut record).await?;
    let running = state.jobs().running().get(&id).cloned();
    if let Some(running) = running {
        running.is_cancelled.store(true, Ordering::Relaxed);
    }
    Ok(record.job)
}

/// Waits until a job may have got on: until it has, if it is one of this server's, but not for
/// longer than `most`.
pub async fn wait(state: &State, id: Uuid, most: Duration) {
    let running = state.jobs().running().get(&id).cloned();
    match running {
        Some(running) => {
            let mut record = running.record.subscribe();
            let _ = tokio::time::timeout(most, record.changed()).await;
        }
        None => tokio::time::sleep(most).await,
    }
}

/// Works on a job until it ends, and writes down how far it is.
fn start(state: &State, record: Record) {
    let running = Running {
        record: watch::Sender::new(record.clone()),
        is_cancelled: Arc::default(),
    };
    let id = record.job.id;
    state.jobs().running().insert(id, running.clone());
    let state = state.clone();
    tokio::spawn(async move {
        let saver = tokio::spawn(keep_saving(state.clone(), running.clone()));
        let JobSpec::Verify(spec) = &record.job.spec;
        let mut progress = record.resume.clone();
        let mut observe = |progress: &Progress| {
            running
                .record
                .send_modify(|record| record.take_in(progress));
            !running.is_cancelled.load(Ordering::Relaxed)
        };
        let result = verify(&state, spec, &mut progress, &mut observe).await;
        saver.abort();
        let mut last = running.record.borrow().clone();
        last.take_in(&progress);
        let job = &mut last.job;
        match result {
            _ if running.is_cancelled.load(Ordering::Relaxed) => job.state = JobState::Cancelled,
            Ok(report) => (job.state, job.report) = (JobState::Done, Some(report)),
            Err(failure) => {
                let reason = failure.problem().detail.clone();
                (job.state, job.error) = (JobState::Failed, Some(reason));
            }
        }
        // One that was cancelled or taken over elsewhere has a record of its own.
        if job.state != JobState::Cancelled
            && let Err(failure) = save(&state, &mut last).await
        {
            let reason = &failure.problem().detail;
            warn!(job = %id, %reason, "the end of a job is not written down: it will be done again");
        }
        running.record.send_replace(last);
        state.jobs().running().remove(&id);
    });
}

async fn save(state: &State, record: &mut Record) -> Result<(), Failure> {
    record.job.updated = Utc::now();
    let key = key(record.job.id);
    Ok(state.store().overwrite(&key, encode(record)?).await?)
}

/// Writes the record of a running job again and again; stops the job if somebody else did.
async fn keep_saving(state: State, running: Running) {
    loop {
        tokio::time::sleep(SAVE_INTERVAL).await;
        let mut record = running.record.borrow().clone();
        let id = record.job.id;
        match stored(&state, id).await {
            Ok(Some(Record { job, .. }))
                if job.state == JobState::Running && job.owner == record.job.owner => {}
            Err(_) => continue,
            Ok(_) => {
                running.is_cancelled.store(true, Ordering::Relaxed);
                return;
            }
        }
        if let Err(failure) = save(&state, &mut record).await {
            let reason = &failure.problem().detail;
            warn!(job = %id, %reason, "how far a job is cannot be written down");
        }
    }
}

/// Takes up jobs whose server is gone, and forgets old ones, as long as this server runs.
pub async fn keep_adopting(state: State) {
    loop {
        if let Err(failure) = adopt(&state).await {
            let reason = &failure.problem().detail;
            warn!(%reason, "jobs of other servers are not looked after");
        }
        tokio::time::sleep(ADOPT_INTERVAL).await;
    }
}

async fn adopt(state: &State) -> Result<(), Failure> {
    let now = Utc::now();
    for id in ids(state).await? {
        let known = state.jobs().running().contains_key(&id);
        let Ok(Some(mut record)) = stored(state, id).await else {
            continue;
        };
        let job = &mut record.job;
        let idle = now - job.updated;
        if job.state != JobState::Running {
            if idle > KEPT_FOR {
                state.store().delete(vec![key(id)]).await?;
            }
            continue;
        }
        let is_full = state.jobs().running().len() >= MAX_RUNNING;
        if known || idle < STALE_AFTER || is_full {
            continue;
        }
        info!(job = %id, "going on with a job that nobody works on");
        job.owner = state.jobs().owner;
        save(state, &mut record).await?;
        start(state, record);
    }
    Ok(())
}
