//! Jobs.

use std::time::Duration;

use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};

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
