//! Imports as jobs, and what is sent for them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use quarr_tests::sample;
use quarr_tests::stopping::Stopping;
use query::{Engine, Settings as EngineSettings};
use serde_json::{Value, json};
use service::http::router;
use service::jobs::{self, ImportSpec, Job, JobReport, JobSpec, JobState, Origin, Settings};
use service::state::{Limits, State};
use storage::{AllowList, CommitId, Externals, Scope, Store};
use tower::ServiceExt as _;

/// How long a job stands still before another process takes it.
const STALE_AFTER: Duration = Duration::from_millis(200);

/// A service over a store, which reads below `allowed`.
fn state(objects: &Arc<dyn ObjectStore>, allowed: &[&str], settings: Settings) -> State {
    let externals = Externals::new(AllowList::under(allowed).unwrap());
    let store = Store::from_objects(objects.clone(), "test").with_externals(externals);
    let engine = EngineSettings {
        threads: 1,
        ..EngineSettings::default()
    };
    let engine = Engine::new(engine).unwrap();
    State::new(store, engine, Limits::default()).with_jobs(settings)
}

fn settings() -> Settings {
    Settings {
        stale_after: STALE_AFTER,
        ..Settings::default()
    }
}

/// A folder with the made-up day, whose name is `day.nc`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("day.nc")).unwrap();
    sample::weather().write(&mut file).unwrap();
    folder
}

fn spec(folder: &tempfile::TempDir) -> ImportSpec {
    let source = folder.path().canonicalize().unwrap().join("day.nc");
    ImportSpec {
        sources: vec![source.to_str().unwrap().to_owned()],
        repository: "days".into(),
        chunks: [("time".to_owned(), 1), ("latitude".to_owned(), 13)].into(),
        shards: [("time".to_owned(), 1), ("latitude".to_owned(), 13)].into(),
        ..ImportSpec::default()
    }
}

async fn ended(state: &State, id: uuid::Uuid) -> Job {
    loop {
        let job = jobs::show(state, id).await.unwrap();
        if job.state.has_ended() {
            return job;
        }
        jobs::wait(state, id, Duration::from_millis(20)).await;
    }
}

/// The root tree of the newest commit, and how many commits there are.
async fn result(objects: &Arc<dyn ObjectStore>) -> (String, usize) {
    let state = state(objects, &[], settings());
    let repository = state.repository(&"days".parse().unwrap()).await.unwrap();
    let head = repository.resolve(&"main".parse().unwrap()).await.unwrap();
    let snapshot = repository.snapshot(head.commit).await.unwrap();
    let found = repository.verify(&Scope::Everything).await.unwrap();
    assert_eq!(found.damage, []);
    let entries = repository.log(None, usize::MAX).await.unwrap();
    (snapshot.commit().tree().to_string(), entries.len())
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// Waits until a process has stopped working on a job, which may not have ended.
async fn stopped(state: &State, id: uuid::Uuid) {
    while state.jobs().knows(id) {
        jobs::wait(state, id, Duration::from_millis(20)).await;
    }
}

/// An import whose process was killed when it had begun to store chunks: the store, that process, and
/// the job.
async fn interrupted(
    spec: &ImportSpec,
    allowed: &[&str],
    origin: Origin,
) -> (Arc<dyn ObjectStore>, State, uuid::Uuid) {
    let mut changes = 2;
    loop {
        let objects = memory();
        let stopping: Arc<dyn ObjectStore> = Arc::new(Stopping::after(objects.clone(), changes));
        let first = state(&stopping, allowed, settings());
        let spec = JobSpec::Import(Box::new(spec.clone()));
        if let Ok(job) = jobs::begin(&first, spec, origin, None).await {
            stopped(&first, job.id).await;
            let store = Store::from_objects(objects.clone(), "test");
            let record = store.get(&format!(".quarr/jobs/{}.json", job.id)).await;
            let record: Value = serde_json::from_slice(&record.unwrap().unwrap()).unwrap();
            assert_ne!(record["state"], "done", "it is never interrupted");
            if record["resume"]["transaction"].is_string() {
                return (objects, first, job.id);
            }
        }
        changes += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_stopped_after_any_write_ends_with_the_same_tree() {
    let folder = folder();
    let allowed = [folder.path().to_str().unwrap()];
    let spec = JobSpec::Import(Box::new(spec(&folder)));
    let undisturbed = memory();
    let whole = state(&undisturbed, &allowed, settings());
    let begun = jobs::begin(&whole, spec.clone(), Origin::Service, None).await;
    let job = ended(&whole, begun.unwrap().id).await;
    assert_eq!(job.state, JobState::Done, "{:?}", job.error);
    let Some(JobReport::Import(expected)) = job.report else {
        panic!("an import reports as one");
    };
    let (tree, entries) = result(&undisturbed).await;
    assert_eq!(entries, 2);

    // The first write makes the record.
    let mut changes = 1;
    let mut gone_on = 0;
    loop {
        let objects = memory();
        let stopping = Arc::new(Stopping::after(objects.clone(), changes));
        let shared: Arc<dyn ObjectStore> = stopping.clone();
        let first = state(&shared, &allowed, settings());
        let begun = jobs::begin(&first, spec.clone(), Origin::Service, None).await;
        let id = begun.unwrap().id;
        stopped(&first, id).await;
        // Another process: nothing is known but what is stored.
        let second = state(&objects, &allowed, settings());
        if !jobs::show(&second, id).await.unwrap().state.has_ended() {
            let begun = jobs::resume(&second, id, Origin::Service).await;
            begun.unwrap_or_else(|failure| panic!("{changes} changes: {failure:?}"));
            gone_on += 1;
        }
        let job = ended(&second, id).await;
        assert_eq!(
            job.state,
            JobState::Done,
            "{changes} changes: {:?}",
            job.error
        );
        let Some(JobReport::Import(report)) = job.report else {
            panic!("{changes} changes: no report");
        };
        assert_eq!(report.arrays, expected.arrays, "{changes} changes");
        let found = result(&objects).await;
        assert_eq!(found, (tree.clone(), entries), "{changes} changes");
        if !stopping.has_stopped() {
            break;
        }
        // Every write of the protocol, and some of the many of chunks.
        changes += if (24..200).contains(&changes) { 17 } else { 1 };
    }
    assert!(gone_on > 10, "{gone_on}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_with_an_import_checks_that_its_source_is_the_same() {
    let folder = folder();
    let allowed = [folder.path().to_str().unwrap()];
    let (objects, _, id) = interrupted(&spec(&folder), &allowed, Origin::Service).await;
    let path = folder.path().join("day.nc");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"more");
    std::fs::write(&path, bytes).unwrap();
    let second = state(&objects, &allowed, settings());
    jobs::resume(&second, id, Origin::Service).await.unwrap();
    let job = ended(&second, id).await;
    assert_eq!(job.state, JobState::Failed);
    let error = job.error.unwrap();
    assert!(
        error.contains("has changed since the import began"),
        "{error}"
    );
    assert_eq!(result(&objects).await.1, 1);
    assert_given_up(&second).await;
}

/// Nothing of what was staged can be committed any more.
async fn assert_given_up(state: &State) {
    let repository = state.repository(&"days".parse().unwrap()).await.unwrap();
    let staged = repository.staged_transactions().await.unwrap();
    assert_eq!(staged.len(), 1);
    let staged = repository.shared_transaction(staged[0]).await.unwrap();
    let found = staged.state().await.unwrap();
    assert_eq!(found, storage::TransactionState::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_import_leaves_no_commit() {
    let folder = folder();
    let allowed = [folder.path().to_str().unwrap()];
    let (objects, _, id) = interrupted(&spec(&folder), &allowed, Origin::Service).await;
    // By a process that does not work on it.
    let second = state(&objects, &allowed, settings());
    let job = jobs::cancel(&second, id).await.unwrap();
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(result(&objects).await.1, 1);
    assert_given_up(&second).await;
    let again = jobs::resume(&second, id, Origin::Service).await;
    assert_eq!(again.unwrap_err().problem().status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leaves_the_jobs_of_commands_alone() {
    let folder = folder();
    let spec = spec(&folder);
    // A command may read whatever its caller may.
    let (objects, first, id) = interrupted(&spec, &[], Origin::Command).await;
    let spec = JobSpec::Import(Box::new(spec));
    let server = state(&objects, &[], settings());
    let refused = jobs::resume(&server, id, Origin::Service).await;
    assert_eq!(refused.unwrap_err().problem().status, 403);
    // Long enough that it would be taken up if it could be.
    let adopting = tokio::spawn(jobs::keep_adopting(server.clone()));
    tokio::time::sleep(STALE_AFTER * 3).await;
    adopting.abort();
    let owner = jobs::show(&server, id).await.unwrap().owner;
    assert_eq!(owner, first.jobs().owner());
    // The same command finds it.
    let again = state(&objects, &[], settings());
    let found = jobs::unfinished(&again, &spec).await.unwrap();
    assert_eq!(found.map(|job| job.id), Some(id));
    jobs::resume(&again, id, Origin::Command).await.unwrap();
    assert_eq!(ended(&again, id).await.state, JobState::Done);
    assert_eq!(jobs::unfinished(&again, &spec).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_server_that_is_gone_are_taken_up() {
    let folder = folder();
    let allowed = [folder.path().to_str().unwrap()];
    let (objects, first, id) = interrupted(&spec(&folder), &allowed, Origin::Service).await;
    let server = state(&objects, &allowed, settings());
    let adopting = tokio::spawn(jobs::keep_adopting(server.clone()));
    let job = ended(&server, id).await;
    assert_eq!(job.state, JobState::Done, "{:?}", job.error);
    assert_ne!(job.owner, first.jobs().owner());
    adopting.abort();
}

/// A service over HTTP.
struct Http(State);

impl Http {
    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = router(self.0.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        let body = body.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn post(&self, url: &str, body: &Value) -> (u16, Value) {
        let request = Request::post(url).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    async fn upload(&self, query: &str, bytes: Vec<u8>) -> (u16, Value) {
        let request = Request::post(format!("/v1/uploads{query}"))
            .header("content-type", "application/octet-stream");
        self.send(request.body(Body::from(bytes)).unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_sent_are_imported_once() {
    let folder = folder();
    let objects = memory();
    let http = Http(state(&objects, &[], settings()));
    let bytes = std::fs::read(folder.path().join("day.nc")).unwrap();
    let (status, upload) = http.upload("?name=day.nc", bytes.clone()).await;
    assert_eq!(status, 201, "{upload}");
    assert_eq!(upload["bytes"], bytes.len());
    let spec = json!({ "kind": "import", "sources": [upload["source"]], "repository": "days" });
    let (status, job) = http.post("/v1/jobs", &spec).await;
    assert_eq!(status, 202, "{job}");
    let id = job["id"].as_str().unwrap().parse().unwrap();
    let job = ended(&http.0, id).await;
    assert_eq!(job.state, JobState::Done, "{:?}", job.error);
    let Some(JobReport::Import(report)) = job.report else {
        panic!("no report");
    };
    let t2m = report
        .arrays
        .iter()
        .find(|array| array.path == "/t2m")
        .unwrap();
    assert_eq!(t2m.shape, [24, 91, 180]);
    assert_eq!(t2m.data_type, "int16");
    assert!(t2m.stored_bytes > 0 && t2m.stored_bytes < t2m.bytes);
    assert_eq!(job.progress.bytes, job.progress.total_bytes);
    assert_eq!(Some(job.progress.chunks), job.progress.total_chunks);
    let repository = http.0.repository(&"days".parse().unwrap()).await.unwrap();
    let commit: CommitId = report.commit.parse().unwrap();
    let commit = repository.commit(commit).await.unwrap();
    assert_eq!(commit.message, "import day.nc");
    // It is gone with its job.
    let left = http.0.store().list(".quarr/uploads").await.unwrap();
    assert_eq!(left, []);
    let (status, _) = http.post("/v1/jobs", &spec).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_checked_and_bounded() {
    let objects = memory();
    let http = Http(state(
        &objects,
        &[],
        Settings {
            upload_limit: 1000,
            ..settings()
        },
    ));
    let (status, problem) = http.upload("", vec![0; 1001]).await;
    assert_eq!((status, &problem["limit"]), (413, &json!(1000)));
    let (status, _) = http.upload("?sha256=00", vec![0; 10]).await;
    assert_eq!(status, 400);
    for name in ["..%2fx", "%2e%2e", "a%00b", ""] {
        let (status, _) = http.upload(&format!("?name={name}"), vec![0; 10]).await;
        assert_eq!(status, 400, "{name}");
    }
    let request = Request::post("/v1/uploads").body(Body::from("x")).unwrap();
    assert_eq!(http.send(request).await.0, 415);
    assert_eq!(http.0.store().list(".quarr").await.unwrap(), []);
    let hash = "01d448afd928065458cf670b60f5a594d735af0172c8d67f22a81680132681ca";
    let (status, upload) = http.upload(&format!("?sha256={hash}"), vec![0; 10]).await;
    assert_eq!((status, &upload["sha256"]), (201, &json!(hash)));
    let url = format!("/v1/uploads/{}", upload["id"].as_str().unwrap());
    for wanted in [204, 404] {
        let request = Request::delete(&url).body(Body::empty()).unwrap();
        assert_eq!(http.send(request).await.0, wanted);
    }
    assert_eq!(http.0.store().list(".quarr").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reads_only_what_it_may() {
    let folder = folder();
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    for made in [&inside, &outside] {
        std::fs::create_dir(made).unwrap();
        std::fs::copy(folder.path().join("day.nc"), made.join("day.nc")).unwrap();
    }
    std::os::unix::fs::symlink(outside.join("day.nc"), inside.join("link.nc")).unwrap();
    let objects = memory();
    let http = Http(state(&objects, &[inside.to_str().unwrap()], settings()));
    let inside = inside.to_str().unwrap();
    for refused in [
        outside.join("day.nc").to_str().unwrap(),
        &format!("{inside}/link.nc"),
        &format!("{inside}/../out/day.nc"),
        &format!("{inside}x"),
        "day.nc",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
    ] {
        let spec = json!({ "kind": "import", "sources": [refused], "repository": "days" });
        let (status, problem) = http.post("/v1/jobs", &spec).await;
        assert_eq!(status, 403, "{refused}: {problem}");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("--import-allow")
        );
    }
    assert_eq!(http.0.store().list("").await.unwrap(), []);
    let fine = format!("{inside}/day.nc");
    let spec = json!({ "kind": "import", "sources": [fine], "repository": "days" });
    let (status, job) = http.post("/v1/jobs", &spec).await;
    assert_eq!(status, 202, "{job}");
    let id = job["id"].as_str().unwrap().parse().unwrap();
    let job = ended(&http.0, id).await;
    assert_eq!(job.state, JobState::Done, "{:?}", job.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_make_no_sense_are_refused() {
    let folder = folder();
    let allowed = folder.path().to_str().unwrap().to_owned();
    let objects = memory();
    let http = Http(state(&objects, &[&allowed], settings()));
    let source = format!("{allowed}/day.nc");
    for (changed, status) in [
        (json!({ "sources": [] }), 400),
        (json!({ "repository": "../x" }), 400),
        (json!({ "group": "a//b" }), 400),
        (json!({ "for": "fun" }), 400),
        (json!({ "chunks": { "time": 0 } }), 400),
        (json!({ "colour": "red" }), 400),
        (json!({ "sources": ["upload:x"] }), 400),
        (
            json!({ "sources": ["upload:00000000-0000-4000-8000-000000000000"] }),
            404,
        ),
    ] {
        let mut spec = json!({ "kind": "import", "sources": [source], "repository": "days" });
        for (name, value) in changed.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let (found, problem) = http.post("/v1/jobs", &spec).await;
        assert_eq!(found, status, "{changed}: {problem}");
    }
    assert_eq!(http.0.store().list("").await.unwrap(), []);
    // What is wrong with the file or does not fit it shows when it is read, and makes no repository.
    std::fs::write(folder.path().join("junk.nc"), "junk").unwrap();
    for (source, member, told) in [
        ("junk.nc", json!({}), "is malformed"),
        ("none.nc", json!({}), "none.nc"),
        ("day.nc", json!({ "height": 3 }), "height"),
    ] {
        let spec = json!({
            "kind": "import", "sources": [format!("{allowed}/{source}")], "repository": "days",
            "chunks": member,
        });
        let (status, job) = http.post("/v1/jobs", &spec).await;
        assert_eq!(status, 202, "{job}");
        let id = job["id"].as_str().unwrap().parse().unwrap();
        let job = ended(&http.0, id).await;
        assert_eq!(job.state, JobState::Failed);
        assert!(
            job.error.as_ref().unwrap().contains(told),
            "{:?}",
            job.error
        );
    }
    assert_eq!(http.0.store().list("days").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_beyond_the_most_that_may_run_wait_and_are_bounded() {
    let folder = folder();
    let allowed = [folder.path().to_str().unwrap()];
    let objects = memory();
    let idle = Settings {
        running_most: 0,
        queued_most: 3,
        ..settings()
    };
    let idle = state(&objects, &allowed, idle);
    let mut spec = spec(&folder);
    let mut ids = Vec::new();
    for at in 0..3 {
        spec.group = Some(format!("g{at}"));
        let begun = jobs::begin(
            &idle,
            JobSpec::Import(Box::new(spec.clone())),
            Origin::Service,
            None,
        );
        let job = begun.await.unwrap();
        assert_eq!(job.state, JobState::Queued);
        ids.push(job.id);
    }
    spec.group = Some("more".into());
    let refused = jobs::begin(
        &idle,
        JobSpec::Import(Box::new(spec)),
        Origin::Service,
        None,
    )
    .await;
    assert_eq!(refused.unwrap_err().problem().status, 503);
    let cancelled = jobs::cancel(&idle, ids[1]).await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    // Another server has time for them, one after the other.
    let busy = Settings {
        running_most: 1,
        ..settings()
    };
    let busy = state(&objects, &allowed, busy);
    let adopting = tokio::spawn(jobs::keep_adopting(busy.clone()));
    for id in [ids[0], ids[2]] {
        loop {
            let jobs = jobs::list(&busy).await.unwrap();
            let running = jobs.iter().filter(|job| job.state == JobState::Running);
            assert!(running.count() <= 1);
            if jobs.iter().any(|job| job.id == id && job.state.has_ended()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let job = jobs::show(&busy, id).await.unwrap();
        assert_eq!(job.state, JobState::Done, "{:?}", job.error);
    }
    adopting.abort();
    assert_eq!(result(&objects).await.1, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_show_how_an_import_gets_on() {
    let folder = folder();
    let allowed = [folder.path().to_str().unwrap()];
    let http = Http(state(&memory(), &allowed, settings()));
    let spec = serde_json::to_value(JobSpec::Import(Box::new(spec(&folder)))).unwrap();
    let (_, job) = http.post("/v1/jobs", &spec).await;
    let url = format!("/v1/jobs/{}/events", job["id"].as_str().unwrap());
    let request = Request::get(url).body(Body::empty()).unwrap();
    let response = router(http.0.clone()).oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    let events: Vec<Job> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(events.iter().map(|job| job.progress.chunks).is_sorted());
    let last = events.last().unwrap();
    assert_eq!(last.state, JobState::Done, "{:?}", last.error);
    assert_eq!(Some(last.progress.chunks), last.progress.total_chunks);
    assert!(
        last.progress
            .current
            .as_ref()
            .unwrap()
            .starts_with("day.nc /")
    );
}
