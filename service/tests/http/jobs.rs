//! Jobs.

use std::time::Duration;

use object_store::ObjectStoreExt as _;
use query::Engine;
use serde_json::{Value, json};
use service::http::router;
use service::jobs::{self, Settings};
use service::state::{Limits, State};
use service::telemetry::Phase;
use storage::{Repository, Store};

use crate::support::Service;

const VERIFY: &str = r#"{"kind": "verify", "repository": "demo", "deep": true}"#;

/// The record of a job once it has ended.
async fn end_of(service: &Service, id: &str) -> Value {
    for _ in 0..600 {
        let job = service.json(&format!("/v1/jobs/{id}")).await;
        if job["state"] != "running" && job["state"] != "queued" {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("job {id} does not end");
}

async fn begin(service: &Service, headers: &[(&str, &str)], body: &str) -> String {
    let answer = service.ask("POST", "/v1/jobs", headers, body).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    id
}

#[tokio::test]
async fn a_verification_runs_as_a_job_and_its_record_stays() {
    let service = Service::new().await;
    let id = begin(&service, &[], VERIFY).await;
    let job = end_of(&service, &id).await;
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(job["report"]["damage"], json!([]));
    assert_eq!(job["report"]["entries"], 2);
    let bytes = &job["progress"]["bytes"];
    assert!(bytes.as_u64().unwrap() > 0);
    assert_eq!(&job["report"]["chunk_bytes"], bytes);
    let again = service.restarted();
    assert_eq!(again.json(&format!("/v1/jobs/{id}")).await, job);
    let listed = again.json("/v1/jobs").await;
    assert_eq!(listed["jobs"], json!([job]));
    // What has ended stays as it is.
    let cancelled = again
        .ask("DELETE", &format!("/v1/jobs/{id}"), &[], "")
        .await;
    assert_eq!(cancelled.json()["state"], "done");
    let events = again.get(&format!("/v1/jobs/{id}/events")).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    let data = events
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("data: "));
    assert_eq!(serde_json::from_str::<Value>(data.unwrap()).unwrap(), job);
}

#[tokio::test]
async fn damage_is_told_and_not_an_error() {
    let service = Service::new().await;
    service.lose("demo/shards").await;
    let id = begin(&service, &[], VERIFY).await;
    let job = end_of(&service, &id).await;
    assert_eq!(job["state"], "done");
    let damage = job["report"]["damage"].as_array().unwrap();
    assert!(!damage.is_empty());
    assert!(
        damage
            .iter()
            .all(|d| d["object"].as_str().unwrap().starts_with("shards/"))
    );
}

#[tokio::test]
async fn a_job_asked_for_twice_is_one() {
    let service = Service::new().await;
    let key = [("idempotency-key", "k1")];
    let first = begin(&service, &key, VERIFY).await;
    assert_eq!(begin(&service, &key, VERIFY).await, first);
    end_of(&service, &first).await;
    assert_eq!(begin(&service, &key, VERIFY).await, first);
    let other = r#"{"kind": "verify", "repository": "demo"}"#;
    let answer = service.ask("POST", "/v1/jobs", &key, other).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        service.json("/v1/jobs").await["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn jobs_that_make_no_sense_are_refused() {
    let service = Service::new().await;
    for (body, status) in [
        ("{}", 400),
        (r#"{"kind": "dance", "repository": "demo"}"#, 400),
        (r#"{"kind": "verify"}"#, 400),
        (
            r#"{"kind": "verify", "repository": "demo", "deeper": true}"#,
            400,
        ),
        (r#"{"kind": "verify", "repository": "../x"}"#, 400),
        (r#"{"kind": "verify", "repository": "nothing"}"#, 404),
    ] {
        let answer = service.ask("POST", "/v1/jobs", &[], body).await;
        assert_eq!(answer.status, status, "{body}: {:?}", answer.body);
    }
    service.refused("GET", "/v1/jobs/x", 400).await;
    let none = "/v1/jobs/00000000-0000-4000-8000-000000000000";
    service.refused("GET", none, 404).await;
    service.refused("DELETE", none, 404).await;
    service.refused("GET", &format!("{none}/events"), 404).await;
    for member in ["reference", "since"] {
        let body = json!({ "kind": "verify", "repository": "demo", member: "nowhere" });
        let answer = service
            .ask("POST", "/v1/jobs", &[], &body.to_string())
            .await;
        assert_eq!(answer.status, 404);
    }
    // A record that is damaged is not in the way of the others.
    let path = ".quarr/jobs/11111111-1111-4111-8111-111111111111.json".into();
    service.objects.put(&path, "junk".into()).await.unwrap();
    assert_eq!(service.json("/v1/jobs").await["jobs"], json!([]));
    let url = "/v1/jobs/11111111-1111-4111-8111-111111111111";
    service.refused("GET", url, 500).await;
}

#[tokio::test]
async fn only_what_came_since_a_commit_is_checked() {
    let service = Service::new().await;
    let since = service.json("/v1/repos/demo/refs/main").await["commit"].clone();
    let since = since.as_str().unwrap();
    let slice = "/v1/repos/demo/refs/main/data/sparse?slice=0:1";
    let octets = [("content-type", "application/octet-stream")];
    let answer = service.ask("PUT", slice, &octets, "\0\0\0A").await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let body = json!({ "kind": "verify", "repository": "demo", "since": since, "deep": true });
    let job = end_of(&service, &begin(&service, &[], &body.to_string()).await).await;
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(job["report"]["damage"], json!([]));
    assert_eq!(
        (&job["report"]["commits"], &job["report"]["chunks"]),
        (&json!(1), &json!(1))
    );
    // The other way round there is no way.
    let body =
        json!({ "kind": "verify", "repository": "demo", "reference": since, "since": "main" });
    let job = end_of(&service, &begin(&service, &[], &body.to_string()).await).await;
    assert_eq!(job["state"], "failed");
    assert!(
        job["error"]
            .as_str()
            .unwrap()
            .contains("does not come from")
    );
}

#[tokio::test]
async fn what_a_server_leaves_another_goes_on_with_at_once() {
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    let node = |running_most: usize| {
        let store = Store::from_objects(objects.clone(), "test");
        let engine = Engine::new(Default::default()).unwrap();
        let settings = Settings {
            running_most,
            stale_after: Duration::from_secs(100_000),
            ..Settings::default()
        };
        State::new(store, engine, Limits::default()).with_jobs(settings)
    };
    let (one, other) = (node(0), node(1));
    let made = Repository::create(one.store().under("demo"), "test").await;
    made.unwrap();
    let ask_one = Service::of(router(one.clone()));
    let id = begin(&ask_one, &[], VERIFY).await;
    jobs::hand_over(&one).await;
    let url = format!("/v1/jobs/{id}");
    assert_eq!(ask_one.json(&url).await["state"], "queued");
    let refused = ask_one.ask("POST", "/v1/jobs", &[], VERIFY).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "2");
    // The one that ends does not take it back.
    let ending = tokio::spawn(jobs::keep_adopting(one));
    tokio::spawn(jobs::keep_adopting(other.clone()));
    let ask_other = Service::of(router(other));
    assert_eq!(end_of(&ask_other, &id).await["state"], "done");
    ending.abort();
}

#[tokio::test]
async fn who_follows_a_job_is_told_to_connect_again() {
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    let store = Store::from_objects(objects, "test");
    let engine = Engine::new(Default::default()).unwrap();
    let settings = Settings {
        running_most: 0,
        ..Settings::default()
    };
    let state = State::new(store, engine, Limits::default()).with_jobs(settings);
    let made = Repository::create(state.store().under("demo"), "test").await;
    made.unwrap();
    let service = Service::of(router(state.clone()));
    let id = begin(&service, &[], VERIFY).await;
    state.telemetry().enter(Phase::Stopping);
    let events = service.get(&format!("/v1/jobs/{id}/events")).await;
    assert!(events.text().contains("retry: 1000"), "{}", events.text());
}
