//! Runs jobs of any kind: the queue, ownership, saving, cancelling, taking over.
//!
//! One process works on a job: the owner its record names. One that reads another owner there, or
//! that the job was cancelled, stops. Jobs beyond the most that may run wait in the queue of the
//! server that was asked; another server with nothing to do may take them from there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use array::hash::{Kind as Hashed, hash};
use chrono::{TimeDelta, Utc};
use serde_json::Value;
use storage::{AllowList, Put};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::kind::Work;
use super::records::{self, Process, Record, encode, key, stored};
use super::{Job, JobSpec, JobState, Origin, ProgressInfo};
use crate::error::Failure;
use crate::requests;
use crate::state::State;
use crate::uploads;

/// Longest time between two saves of a running job.
const SAVE_INTERVAL: Duration = Duration::from_secs(3);
/// Longest time between two looks for jobs that nobody works on.
const ADOPT_INTERVAL: Duration = Duration::from_secs(10);
/// How long the records of finished jobs are kept.
const KEPT_FOR: TimeDelta = TimeDelta::days(30);
/// How often work whose outcome is unclear is done again.
const MAX_ATTEMPTS: usize = 3;
/// How long whoever cancels a job waits until it has stopped.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// How a process works on jobs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most jobs it works on at once.
    pub running_most: usize,
    /// Most jobs that wait.
    pub queued_most: usize,
    /// How long a record stands still before another process takes its job over.
    pub stale_after: Duration,
    /// Whose rights jobs have that are asked for over HTTP.
    pub origin: Origin,
    /// Most bytes of an upload.
    pub upload_limit: u64,
    /// Where jobs that are asked for over HTTP may write.
    pub exports: AllowList,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            running_most: 2,
            queued_most: 64,
            stale_after: Duration::from_secs(20),
            origin: Origin::Service,
            upload_limit: 64 << 30,
            exports: AllowList::nothing(),
        }
    }
}

impl Settings {
    /// Several times within the time after which a record is stale.
    fn save_interval(&self) -> Duration {
        SAVE_INTERVAL.min(self.stale_after / 5)
    }

    fn adopt_interval(&self) -> Duration {
        ADOPT_INTERVAL.min(self.stale_after / 2)
    }
}

/// The jobs of this process.
#[derive(Debug)]
pub struct Jobs {
    /// This process, as records name it.
    owner: Uuid,
    settings: OnceLock<Settings>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    running: HashMap<Uuid, Running>,
    queue: VecDeque<Record>,
    /// Whether this process takes no more jobs.
    is_closed: bool,
}

/// Jobs of one kind that a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// What they do.
    pub kind: &'static str,
    /// Those that are worked on.
    pub running: u64,
    /// Those that wait.
    pub queued: u64,
    /// Bytes that those worked on have done.
    pub done_bytes: u64,
    /// Bytes of those worked on.
    pub total_bytes: u64,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("running", &self.running.len())
            .field("queue", &self.queue.len())
            .finish()
    }
}

/// A job this process works on.
#[derive(Clone)]
struct Running {
    work: Arc<Work>,
    stop: watch::Sender<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// Somebody cancelled it here.
    Cancelled,
    /// Its record is another process', or says that it was cancelled.
    Lost,
    /// This process ends: any other may go on with it.
    Free,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            owner: Uuid::new_v4(),
            settings: OnceLock::new(),
            table: Mutex::default(),
        }
    }
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, id: Uuid) -> Option<Running> {
        self.table().running.get(&id).cloned()
    }

    /// Whether the job is worked on or waits here.
    pub fn knows(&self, id: Uuid) -> bool {
        let table = self.table();
        table.running.contains_key(&id) || table.queue.iter().any(|record| record.job.id == id)
    }

    /// The jobs of this process, by kind.
    pub fn here(&self) -> Vec<Here> {
        let mut found: BTreeMap<&'static str, Here> = BTreeMap::new();
        let mut of = |kind: &'static str, add: &dyn Fn(&mut Here)| {
            let here = found.entry(kind).or_insert(Here {
                kind,
                running: 0,
                queued: 0,
                done_bytes: 0,
                total_bytes: 0,
            });
            add(here);
        };
        let table = self.table();
        for running in table.running.values() {
            let record = running.work.record.borrow();
            let progress = &record.job.progress;
            of(record.job.spec.name(), &|here| {
                here.running += 1;
                here.done_bytes += progress.bytes;
                here.total_bytes += progress.total_bytes;
            });
        }
        for record in &table.queue {
            of(record.job.spec.name(), &|here| here.queued += 1);
        }
        found.into_values().collect()
    }

    /// This process, as records name it.
    pub fn owner(&self) -> Uuid {
        self.owner
    }

    /// Sets how this process works on jobs. The first call counts.
    pub fn set(&self, settings: Settings) {
        let _ = self.settings.set(settings);
    }

    /// How this process works on jobs.
    pub fn settings(&self) -> &Settings {
        self.settings.get_or_init(Settings::default)
    }
}

/// Bytes a second over the last while.
#[derive(Debug, Default)]
pub(crate) struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// What the rate is taken over.
    const WINDOW: Duration = Duration::from_secs(10);
    /// Between two samples.
    const STEP: Duration = Duration::from_millis(200);

    /// Adds what is done by now; gives the rate once there is one.
    pub(crate) fn add(&mut self, bytes: u64) -> Option<f64> {
        let now = Instant::now();
        if self.0.back().is_none_or(|(at, _)| now - *at >= Self::STEP) {
            self.0.push_back((now, bytes));
        }
        while self.0.len() > 2 && now - self.0[1].0 >= Self::WINDOW {
            self.0.pop_front();
        }
        let (first, before) = self.0.front()?;
        let seconds = (now - *first).as_secs_f64();
        let done = bytes.saturating_sub(*before) as f64;
        (seconds >= Self::STEP.as_secs_f64()).then(|| done / seconds)
    }
}

/// Begins a job, or finds the one that was asked for under the same idempotency key.
///
/// # Errors
/// What is wrong with the job; 422 if the key was used for another job, 503 if there are too many.
pub async fn begin(
    state: &State,
    spec: JobSpec,
    origin: Origin,
    request: Option<&str>,
) -> Result<Job, Failure> {
    let id = match request {
        None => Uuid::new_v4(),
        Some(request) => {
            let digest = hash(Hashed::Request, request.as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest.as_bytes()[..16]);
            let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
            // What the first request needed may be gone by now.
            if let Some(first) = stored(state, id).await? {
                return same(first, &spec, request);
            }
            id
        }
    };
    spec.kind().check(state, origin).await?;
    let jobs = state.jobs();
    let settings = jobs.settings();
    let (known, is_closed) = {
        let table = jobs.table();
        (table.running.len() + table.queue.len(), table.is_closed)
    };
    if is_closed {
        return Err(Failure::draining());
    }
    if known >= settings.running_most.saturating_add(settings.queued_most) {
        return Err(Failure::busy(format!(
            "{known} jobs are running or waiting: wait until some have ended, or cancel them"
        )));
    }
    let now = Utc::now();
    let job = Job {
        id,
        spec,
        state: JobState::Queued,
        begun_by: origin,
        created: now,
        updated: now,
        owner: jobs.owner,
        progress: ProgressInfo::default(),
        report: None,
        warnings: Vec::new(),
        error: None,
    };
    let record = Record {
        job,
        resume: Value::Null,
        process: Process::this(),
        is_free: false,
    };
    let bytes = encode(&record)?;
    let put = state.store().put_if_absent(&key(id), bytes).await?;
    if put == Put::AlreadyThere
        && let Some(first) = stored(state, id).await?
    {
        return same(first, &record.job.spec, request.unwrap_or_default());
    }
    let job = record.job.clone();
    if origin == Origin::Command {
        records::remember(state, &job).await?;
    }
    enqueue(state, record);
    Ok(jobs
        .running(id)
        .map_or(job, |running| running.work.record.borrow().job.clone()))
}

fn same(first: Record, spec: &JobSpec, request: &str) -> Result<Job, Failure> {
    match first.job.spec == *spec {
        true => Ok(first.job),
        false => Err(Failure::key_reused(request)),
    }
}

/// The job `id`.
///
/// # Errors
/// 404 if there is none.
pub async fn show(state: &State, id: Uuid) -> Result<Job, Failure> {
    Ok(record(state, id).await?.job)
}

async fn record(state: &State, id: Uuid) -> Result<Record, Failure> {
    if let Some(running) = state.jobs().running(id) {
        return Ok(running.work.record.borrow().clone());
    }
    let found = stored(state, id).await?;
    found.ok_or_else(|| Failure::not_found(format!("there is no job {id}")))
}

/// All jobs, the newest first.
///
/// # Errors
/// 503 if the store failed.
pub async fn list(state: &State) -> Result<Vec<Job>, Failure> {
    let found = records::all(state).await?.into_iter().rev();
    Ok(found.map(|record| record.job).collect())
}

/// Cancels a job; one that has ended, or is past what can be undone, stays as it is.
///
/// # Errors
/// 404 if there is none.
pub async fn cancel(state: &State, id: Uuid) -> Result<Job, Failure> {
    let jobs = state.jobs();
    if let Some(running) = jobs.running(id) {
        let mut record = running.work.record.subscribe();
        running.stop.send_replace(Stop::Cancelled);
        let ended = record.wait_for(|record| record.job.state.has_ended());
        let _ = tokio::time::timeout(STOP_WAIT, ended).await;
        return Ok(running.work.record.borrow().job.clone());
    }
    jobs.table().queue.retain(|record| record.job.id != id);
    let mut record = record(state, id).await?;
    let spec = record.job.spec.clone();
    if record.job.state.has_ended() || !spec.kind().give_up(state, &record.resume).await? {
        return Ok(record.job);
    }
    record.job.state = JobState::Cancelled;
    overwrite(state, &mut record).await?;
    clear_away(state, &record.job).await;
    Ok(record.job)
}

/// Deletes what only a job needed that has ended.
async fn clear_away(state: &State, job: &Job) {
    for upload in job.spec.kind().uploads() {
        uploads::delete(state, upload).await;
    }
    if job.begun_by == Origin::Command {
        records::forget(state, job).await;
    }
}

/// The job a command began for this work and did not bring to its end, if there is one.
///
/// # Errors
/// 503 if the store failed.
pub async fn unfinished(state: &State, spec: &JobSpec) -> Result<Option<Job>, Failure> {
    let found = records::remembered(state, spec).await?;
    let is_it =
        |job: &Job| job.spec == *spec && job.begun_by == Origin::Command && !job.state.has_ended();
    Ok(found.map(|record| record.job).filter(is_it))
}

/// Goes on with a job that nobody works on.
///
/// # Errors
/// 404 if there is none, 409 if it has ended or somebody works on it, 403 if `origin` is the service
/// and a command began it.
pub async fn resume(state: &State, id: Uuid, origin: Origin) -> Result<Job, Failure> {
    let jobs = state.jobs();
    let first = record(state, id).await?;
    let job = &first.job;
    if jobs.knows(id) {
        return Ok(first.job);
    }
    if job.state.has_ended() {
        return Err(Failure::conflict(format!(
            "job {id} has ended: begin a new one"
        )));
    }
    if job.begun_by == Origin::Command && origin == Origin::Service {
        return Err(Failure::forbidden(format!(
            "job {id} was begun by a command, whose rights a service does not have: \
             go on with quarr jobs resume {id} --store"
        )));
    }
    let mut record = first.clone();
    while !is_abandoned(&record, jobs.settings()) {
        tokio::time::sleep(jobs.settings().save_interval()).await;
        let now = stored(state, id).await?;
        record = now.ok_or_else(|| Failure::not_found(format!("there is no job {id}")))?;
        if record != first {
            return Err(Failure::conflict(format!(
                "another process works on job {id}: quarr jobs show {id} tells how far it is"
            )));
        }
    }
    take_over(state, &mut record).await?;
    Ok(record.job)
}

/// Whether nobody works on a job that has not ended.
fn is_abandoned(record: &Record, settings: &Settings) -> bool {
    let idle = (Utc::now() - record.job.updated).to_std();
    let is_gone = record.process.as_ref().is_some_and(Process::is_gone);
    record.is_free || is_gone || idle.is_ok_and(|idle| idle >= settings.stale_after)
}

/// Makes a job that nobody works on this process'.
async fn take_over(state: &State, record: &mut Record) -> Result<(), Failure> {
    if state.jobs().table().is_closed {
        return Err(Failure::draining());
    }
    info!(job = %record.job.id, "going on with a job that nobody works on");
    record.job.owner = state.jobs().owner;
    record.process = Process::this();
    record.is_free = false;
    overwrite(state, record).await?;
    enqueue(state, record.clone());
    Ok(())
}

/// Waits until a job may have got on: until it has, if it is one of this process', but not for
/// longer than `most`.
pub async fn wait(state: &State, id: Uuid, most: Duration) {
    match state.jobs().running(id) {
        Some(running) => {
            let mut record = running.work.record.subscribe();
            let _ = tokio::time::timeout(most, record.changed()).await;
        }
        None => tokio::time::sleep(most).await,
    }
}

/// Waits until a job of this process has ended; for ever if it is none of its.
pub async fn ended(state: &State, id: Uuid) {
    match state.jobs().running(id) {
        Some(running) => {
            let mut record = running.work.record.subscribe();
            let _ = record.wait_for(|record| record.job.state.has_ended()).await;
        }
        None => std::future::pending().await,
    }
}

/// Has a job wait its turn, which may be now.
fn enqueue(state: &State, record: Record) {
    state.jobs().table().queue.push_back(record);
    start_next(state);
}

/// Starts the jobs whose turn it is.
fn start_next(state: &State) {
    let jobs = state.jobs();
    let mut table = jobs.table();
    while !table.is_closed
        && table.running.len() < jobs.settings().running_most
        && let Some(mut record) = table.queue.pop_front()
    {
        record.job.state = JobState::Running;
        let id = record.job.id;
        let running = Running {
            work: Arc::new(Work {
                state: state.clone(),
                record: watch::Sender::new(record),
                rate: Mutex::default(),
                saving: tokio::sync::Mutex::default(),
            }),
            stop: watch::Sender::new(Stop::No),
        };
        table.running.insert(id, running.clone());
        tokio::spawn(work(running));
    }
}

/// Works on a job until it ends, and writes down how far it is.
async fn work(running: Running) {
    let state = running.work.state.clone();
    let id = running.work.id();
    let saver = tokio::spawn(keep_saving(running.clone()));
    let last = match running.work.save().await {
        Ok(()) => until_the_end(&running).await,
        // It was cancelled or taken while it waited, or nothing can be stored.
        Err(failure) => {
            let reason = &failure.problem().detail;
            warn!(job = %id, %reason, "a job does not begin here");
            None
        }
    };
    saver.abort();
    let last = match last {
        Some(mut last) => {
            // One that was taken over elsewhere has a record of its own.
            if let Err(failure) = write_end(&state, &mut last).await {
                let reason = &failure.problem().detail;
                warn!(job = %id, %reason, "the end of a job is not written down: it will be done again");
            }
            let (kind, ended) = (last.job.spec.name(), last.job.state.name());
            state.telemetry().job_ended(kind, ended);
            clear_away(&state, &last.job).await;
            last
        }
        None if *running.stop.borrow() == Stop::Free => {
            let last = running.work.record.borrow().clone();
            free(&state, last).await
        }
        None => {
            let mut last = running.work.record.borrow().clone();
            if let Ok(Some(other)) = stored(&state, id).await {
                last = other;
            }
            last
        }
    };
    running.work.record.send_replace(last);
    state.jobs().table().running.remove(&id);
    start_next(&state);
}

/// The record of a job at its end; `None` if it is not this process' any more.
async fn until_the_end(running: &Running) -> Option<Record> {
    let work = &running.work;
    let mut stop = running.stop.subscribe();
    let mut listens = true;
    for attempt in 1.. {
        let spec = work.record.borrow().job.spec.clone();
        let doing = work.clone();
        let mut task = tokio::spawn(async move { spec.kind().run(&doing).await });
        let result = tokio::select! {
            result = &mut task => Some(result),
            _ = stop.wait_for(|stop| *stop != Stop::No), if listens => None,
        };
        let stopped = *stop.borrow();
        if stopped == Stop::Lost {
            task.abort();
            return None;
        }
        if stopped == Stop::Free && result.is_none() {
            task.abort();
            let _ = task.await;
            return None;
        }
        let failure = match result {
            Some(Ok(Ok(report))) => {
                let mut record = work.record.borrow().clone();
                record.job.state = JobState::Done;
                record.job.report = Some(report);
                return Some(record);
            }
            Some(Ok(Err(failure))) => Some(failure),
            Some(Err(error)) => Some(Failure::broken(format!("a job stopped: {error}"))),
            None => {
                task.abort();
                let _ = task.await;
                None
            }
        };
        let mut record = work.record.borrow().clone();
        let spec = record.job.spec.clone();
        let in_time = spec.kind().give_up(&work.state, &record.resume).await;
        let is_unclear = failure.as_ref().is_none_or(Failure::is_unclear);
        match in_time {
            // What was cancelled, or seemed to fail, may have come to its end.
            Ok(false) if is_unclear && attempt < MAX_ATTEMPTS => {
                listens = false;
                continue;
            }
            Err(error) => {
                let reason = &error.problem().detail;
                warn!(job = %record.job.id, %reason, "what a job left behind is not cleared away");
            }
            Ok(_) => {}
        }
        match failure {
            None => record.job.state = JobState::Cancelled,
            Some(failure) => {
                record.job.state = JobState::Failed;
                record.job.error = Some(failure.into_problem().detail);
            }
        }
        return Some(record);
    }
    None
}

/// Ends the work on all jobs where it is, for any other process to go on with at once. None begins
/// here from then on.
pub async fn hand_over(state: &State) {
    let jobs = state.jobs();
    let (running, queued) = {
        let mut table = jobs.table();
        table.is_closed = true;
        let running: Vec<Running> = table.running.values().cloned().collect();
        (running, std::mem::take(&mut table.queue))
    };
    for running in &running {
        running.stop.send_if_modified(|stop| {
            let is_running = *stop == Stop::No;
            if is_running {
                *stop = Stop::Free;
            }
            is_running
        });
    }
    for record in queued {
        free(state, record).await;
    }
    // The table is empty when all of them are written down.
    let deadline = Instant::now() + STOP_WAIT;
    while !jobs.table().running.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes down that any process may go on with a job, if it is still this one's.
async fn free(state: &State, mut record: Record) -> Record {
    record.is_free = true;
    record.process = None;
    let id = record.job.id;
    let written = match check_own(state, &record).await {
        Ok(()) => overwrite(state, &mut record).await,
        Err(failure) => Err(failure),
    };
    match written {
        Ok(()) => info!(job = %id, "another server may go on with a job"),
        Err(failure) => {
            let reason = &failure.problem().detail;
            warn!(job = %id, %reason, "a job is not handed over: it goes on when its record is old");
        }
    }
    record
}

/// Writes down how a job ended, unless it is another process' by now.
async fn write_end(state: &State, last: &mut Record) -> Result<(), Failure> {
    check_own(state, last).await?;
    overwrite(state, last).await
}

async fn overwrite(state: &State, record: &mut Record) -> Result<(), Failure> {
    record.job.updated = Utc::now();
    let key = key(record.job.id);
    Ok(state.store().overwrite(&key, encode(record)?).await?)
}

/// Fails if the stored record of a job says that somebody else decides on it.
async fn check_own(state: &State, record: &Record) -> Result<(), Failure> {
    let id = record.job.id;
    match stored(state, id).await? {
        Some(Record { job, .. }) if job.owner == record.job.owner && !job.state.has_ended() => {
            Ok(())
        }
        _ => Err(Failure::conflict(format!(
            "job {id} was cancelled, or another process works on it"
        ))),
    }
}

/// Writes the record of a running job, if it is still this process'.
pub(super) async fn save_own(state: &State, sender: &watch::Sender<Record>) -> Result<(), Failure> {
    let mut record = sender.borrow().clone();
    let checked = check_own(state, &record).await;
    if let Err(failure) = checked {
        if failure.problem().status == 409
            && let Some(running) = state.jobs().running(record.job.id)
        {
            running.stop.send_if_modified(|stop| {
                let is_running = *stop == Stop::No;
                if is_running {
                    *stop = Stop::Lost;
                }
                is_running
            });
        }
        return Err(failure);
    }
    overwrite(state, &mut record).await?;
    let updated = record.job.updated;
    sender.send_if_modified(|record| {
        record.job.updated = updated;
        false
    });
    Ok(())
}

/// Writes the record of a running job again and again; stops the job if somebody else did.
async fn keep_saving(running: Running) {
    let work = &running.work;
    loop {
        tokio::time::sleep(work.state.jobs().settings().save_interval()).await;
        if let Err(failure) = work.save().await {
            let reason = &failure.problem().detail;
            warn!(job = %work.id(), %reason, "how far a job is cannot be written down");
            if *running.stop.borrow() != Stop::No {
                return;
            }
        }
    }
}

/// Takes up jobs whose process is gone, and forgets old ones, as long as this server runs.
pub async fn keep_adopting(state: State) {
    loop {
        if let Err(failure) = adopt(&state).await {
            let reason = &failure.problem().detail;
            warn!(%reason, "jobs of other servers are not looked after");
        }
        tokio::time::sleep(state.jobs().settings().adopt_interval()).await;
    }
}

async fn adopt(state: &State) -> Result<(), Failure> {
    let jobs = state.jobs();
    if jobs.table().is_closed {
        return Ok(());
    }
    let records = records::all(state).await?;
    let open = records.iter().map(|record| &record.job);
    let open = open.filter(|job| !job.state.has_ended());
    let in_use: Vec<Uuid> = open.flat_map(|job| job.spec.kind().uploads()).collect();
    uploads::delete_old(state, &in_use).await?;
    if let Err(failure) = requests::delete_old(state).await {
        let reason = &failure.problem().detail;
        debug!(%reason, "what old requests led to cannot be deleted");
    }
    for mut record in records {
        let job = &record.job;
        let idle = Utc::now() - job.updated;
        // What a command began and did not end is somebody's to go on with.
        if job.state.has_ended() || job.begun_by == Origin::Command {
            // Who may not delete leaves it there, and goes on to the jobs that are to be taken up.
            if idle > KEPT_FOR
                && let Err(error) = state.store().delete(vec![key(job.id)]).await
            {
                debug!(job = %job.id, %error, "the record of an old job cannot be deleted");
            }
            continue;
        }
        let has_room = {
            let table = jobs.table();
            table.running.len() + table.queue.len() < jobs.settings().running_most
        };
        if has_room && !jobs.knows(job.id) && is_abandoned(&record, jobs.settings()) {
            take_over(state, &mut record).await?;
        }
    }
    Ok(())
}
