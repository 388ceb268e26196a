//! Requests that are sent again under one `Idempotency-Key`, as clients do when an answer is lost.

use serde_json::json;

use crate::support::{MAIN, Service};

const REPO: &str = "/v1/repos/demo";

/// Sends a request twice to two servers over one store, and gives both answers' status and body.
async fn twice(
    service: &Service,
    (method, url, body): (&str, &str, &str),
    key: &str,
) -> [(u16, String); 2] {
    let headers = [
        ("idempotency-key", key),
        ("content-type", content_type(url)),
    ];
    let first = service.ask(method, url, &headers, body).await;
    let other = service.restarted();
    let second = other.ask(method, url, &headers, body).await;
    [first, second].map(|answer| (answer.status.as_u16(), answer.text().to_owned()))
}

fn content_type(url: &str) -> &'static str {
    match url.contains("/uploads") || url.contains("/data/") || url.contains("/zarr/") {
        true => "application/octet-stream",
        false => "application/json",
    }
}

#[tokio::test]
async fn a_repeated_request_changes_nothing_and_has_the_first_answer() {
    let service = Service::new().await;
    let before = service.json(MAIN).await["commit"].clone();
    let earlier = json!({ "to": before }).to_string();
    let requests = [
        (("PUT", "/v1/repos/other", ""), 201),
        (("PUT", "/v1/repos/demo/branches/dev", ""), 201),
        (("PUT", "/v1/repos/demo/tags/v1", ""), 201),
        (("DELETE", "/v1/repos/demo/tags/v1", ""), 204),
        (("POST", "/v1/repos/demo/transactions", "{}"), 201),
        (("POST", "/v1/uploads?name=a.nc", "bytes"), 201),
    ];
    for (number, (request, status)) in requests.into_iter().enumerate() {
        let [first, second] = twice(&service, request, &format!("k{number}")).await;
        assert_eq!(first.0, status, "{request:?}: {first:?}");
        assert_eq!(first, second, "{request:?}");
    }
    // Of these the first answer says more: where the branch was.
    let reset = (
        "POST",
        "/v1/repos/demo/branches/dev/reset",
        earlier.as_str(),
    );
    let [first, second] = twice(&service, reset, "reset").await;
    assert_eq!([first.0, second.0], [200, 200]);
    let log = service.json(&format!("{REPO}/log")).await;
    let moved: Vec<_> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["operations"].as_array().unwrap())
        .filter(|operation| operation["branch"] == "dev" || operation["tag"] == "v1")
        .collect();
    assert_eq!(moved.len(), 4, "each took effect once: {moved:?}");
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let service = Service::new().await;
    for (method, url, body, other) in [
        (
            "PUT",
            "/v1/repos/demo/branches/dev",
            "{}",
            r#"{"from": "main~1"}"#,
        ),
        (
            "POST",
            "/v1/repos/demo/transactions",
            "{}",
            r#"{"isolation": "serializable"}"#,
        ),
    ] {
        let key = [("idempotency-key", "k")];
        let first = service.ask(method, url, &key, body).await;
        assert!(first.status.is_success(), "{url}: {:?}", first.body);
        let second = service.ask(method, url, &key, other).await;
        assert_eq!(second.status, 422, "{url}: {:?}", second.body);
        assert_eq!(second.json()["parameter"], "Idempotency-Key", "{url}");
    }
}

#[tokio::test]
async fn a_repeated_deletion_spares_the_next_repository_of_the_name() {
    let service = Service::new().await;
    let key = [("idempotency-key", "k")];
    let url = "/v1/repos/other";
    assert_eq!(service.ask("PUT", url, &[], "").await.status, 201);
    for _ in 0..2 {
        assert_eq!(service.ask("DELETE", url, &key, "").await.status, 204);
    }
    let again = service.ask("PUT", url, &[], "").await.json();
    assert_eq!(service.ask("DELETE", url, &key, "").await.status, 204);
    assert_eq!(service.json(url).await, again);
    let other_key = [("idempotency-key", "another")];
    assert_eq!(service.ask("DELETE", url, &other_key, "").await.status, 204);
    service.refused("GET", url, 404).await;
}

#[tokio::test]
async fn repeated_steps_of_a_transaction_are_one_step() {
    let service = Service::new().await;
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let id = opened.json()["id"].as_str().unwrap().to_owned();
    let at = |rest: &str| format!("/v1/transactions/{id}/{rest}");
    let array = r#"{"shape": [4], "data_type": "uint8", "chunks": [4]}"#;
    let (node, moved) = (at("nodes/new"), at("move"));
    for (key, request) in [
        ("a", ("PUT", node.as_str(), array)),
        ("b", ("PUT", &at("data/new"), "abcd")),
        ("c", ("POST", &moved, r#"{"from": "new", "to": "newer"}"#)),
        ("d", ("DELETE", &at("nodes/packed"), "")),
    ] {
        let [first, second] = twice(&service, request, key).await;
        assert_eq!((first.0, &first), (204, &second), "{request:?}");
    }
    // What only makes new things is not told that they are there by what it made.
    let headers = [("idempotency-key", "e"), ("if-none-match", "*")];
    let group = at("nodes/group");
    for _ in 0..2 {
        let made = service.ask(
            "PUT",
            &group,
            &headers,
            r#"{"node_type": "group", "zarr_format": 3}"#,
        );
        assert_eq!(made.await.status, 204);
    }
    let commit = service.ask("POST", &at("commit"), &[], "{}").await;
    assert_eq!(commit.status, 200, "{:?}", commit.body);
    let values = service.json(&format!("{MAIN}/data/newer?f=json")).await;
    assert_eq!(values["values"], json!([97, 98, 99, 100]));
}
