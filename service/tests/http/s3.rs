//! The S3 gateway: what a page costs, who sees what, and what is never 404. What clients make of it is
//! tested in Python.

use std::collections::HashMap;

use serde_json::json;
use service::auth::Principal;
use service::s3::Access;

use crate::support::{MAIN, Service, requests};

/// The texts of the elements of this name in a document.
fn elements<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = document.split(open.as_str()).skip(1);
    parts
        .filter_map(|part| part.split(close.as_str()).next())
        .collect()
}

#[tokio::test]
async fn a_page_costs_what_is_on_it() {
    let service = Service::new().await;
    let answer = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let transaction = format!("/v1/transactions/{}", answer.json()["id"].as_str().unwrap());
    let count = 16_000;
    let array =
        json!({ "shape": [count], "data_type": "uint8", "chunks": [1], "shards": [1] }).to_string();
    let made = service
        .ask("PUT", &format!("{transaction}/nodes/a"), &[], &array)
        .await;
    assert!(made.status.is_success(), "{}", made.text());
    let headers = [("content-type", "application/octet-stream")];
    for start in (0..count).step_by(4000) {
        let url = format!("{transaction}/data/a?slice={start}:{}", start + 4000);
        let answer = service.ask("PUT", &url, &headers, &"x".repeat(4000)).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    let done = service
        .ask("POST", &format!("{transaction}/commit"), &[], "{}")
        .await;
    assert!(done.status.is_success(), "{}", done.text());
    // Of the manifest's 16 pages, only those that the names are in.
    for query in [
        "prefix=main/a/c/&max-keys=3",
        "prefix=main/a/c/12&max-keys=3",
        "prefix=main/&delimiter=/&max-keys=3",
        "start-after=main/a/c/5000&max-keys=3",
        "max-keys=3",
    ] {
        let gateway = service.gateway(Access::open());
        gateway.get("/demo?list-type=2&prefix=none/").await;
        requests(&gateway.objects);
        let answer = gateway.get(&format!("/demo?list-type=2&{query}")).await;
        let text = answer.text();
        let found = elements(text, "Contents").len() + elements(text, "CommonPrefixes").len();
        assert_eq!(found, 3, "{query}: {text}");
        let read = requests(&gateway.objects).len();
        assert!(read <= 10, "{query}: {read} requests");
    }
    let gateway = service.gateway(Access::open());
    let (mut known, mut token) = (0, String::new());
    loop {
        let url = format!("/demo?list-type=2&prefix=main/a/{token}");
        let answer = gateway.get(&url).await;
        known += elements(answer.text(), "Key").len();
        match elements(answer.text(), "NextContinuationToken").first() {
            Some(next) => token = format!("&continuation-token={next}"),
            None => break,
        }
    }
    assert_eq!(known, count + 1);
}

#[tokio::test]
async fn who_may_read_a_part_sees_that_part() {
    let service = Service::new().await;
    let anyone = Principal::anonymous(vec!["reader:demo:g".parse().unwrap()]);
    let access = Access::checked(HashMap::new(), Some(anyone));
    let gateway = service.gateway(access);
    for (url, status) in [
        ("/demo/main/g/zarr.json", 200),
        ("/demo/main/g/f/c/0/0", 200),
        ("/demo/main/g/none", 404),
        ("/demo?prefix=main/g/", 200),
        ("/demo/main/zarr.json", 403),
        ("/demo/main/g%2F..%2Fpacked/c/0", 403),
        ("/demo/main/packed/c/0", 403),
        ("/demo/none/zarr.json", 403),
        ("/demo?prefix=main/", 403),
        ("/demo?prefix=main/p", 403),
        ("/demo?prefix=main/gg", 403),
        // As much the beginning of other names.
        ("/demo?prefix=main/g", 403),
        ("/demo", 403),
        ("/other/main/g/zarr.json", 403),
        ("/other?location", 403),
        ("/demo?location", 200),
        ("/", 200),
    ] {
        let answer = gateway.get(url).await;
        assert_eq!(answer.status, status, "{url}: {}", answer.text());
    }
    let listed = gateway.get("/demo?prefix=main/g/").await;
    let keys = elements(listed.text(), "Key");
    assert_eq!(
        keys,
        [
            "main/g/f/c/0/0",
            "main/g/f/c/1/0",
            "main/g/f/zarr.json",
            "main/g/zarr.json"
        ]
    );
}

#[tokio::test]
async fn what_is_lost_is_an_error_and_not_absent() {
    let service = Service::new().await;
    let whole = service.get(&format!("{MAIN}/zarr/big/c/0")).await;
    let gateway = service.gateway(Access::open());
    let found = gateway.get("/demo/main/big/c/0").await;
    assert_eq!(found.body, whole.body);
    service.lose("demo/shards").await;
    let gateway = service.gateway(Access::open());
    let answer = gateway.get("/demo/main/big/c/0").await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(elements(answer.text(), "Code"), ["InternalError"]);
    // Its length is in the manifest.
    assert_eq!(
        gateway
            .ask("HEAD", "/demo/main/big/c/0", &[], "")
            .await
            .status,
        200
    );
    assert_eq!(gateway.get("/demo/main/big/c/5").await.status, 404);
}
