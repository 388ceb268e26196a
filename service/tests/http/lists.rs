//! Lists in pages, and the log as events.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use tower::ServiceExt as _;

use crate::support::Service;

/// The URL that `Link` has for the next page.
fn next(link: &str) -> Option<String> {
    let url = link.strip_suffix(">; rel=\"next\"")?.strip_prefix('<')?;
    Some(url.to_owned())
}

#[tokio::test]
async fn following_links_gives_every_entry_once_in_order() {
    let service = Service::new().await;
    for name in ["a", "b-c", "z"] {
        for kind in ["branches", "tags"] {
            let url = format!("/v1/repos/demo/{kind}/{kind}{name}");
            assert_eq!(service.ask("PUT", &url, &[], "").await.status, 201);
        }
        let url = format!("/v1/repos/{name}");
        assert_eq!(service.ask("PUT", &url, &[], "").await.status, 201);
        let job = r#"{"kind": "verify", "repository": "demo"}"#;
        assert_eq!(service.ask("POST", "/v1/jobs", &[], job).await.status, 202);
    }
    for (list, member, name, count) in [
        ("/v1/repos", "repositories", "name", 4),
        ("/v1/repos/demo/branches", "refs", "name", 4),
        ("/v1/repos/demo/tags", "refs", "name", 3),
        ("/v1/repos/demo/log", "entries", "sequence", 8),
        ("/v1/jobs", "jobs", "id", 3),
    ] {
        let names = |page: &serde_json::Value| -> Vec<String> {
            let entries = page[member].as_array().unwrap();
            entries
                .iter()
                .map(|entry| entry[name].to_string())
                .collect()
        };
        let whole = service.get(list).await;
        assert_eq!(whole.header("link"), "", "{list}");
        let whole = names(&whole.json());
        assert_eq!(whole.len(), count, "{list}: {whole:?}");
        let mut found = Vec::new();
        let mut url = Some(format!("{list}?limit=2"));
        while let Some(page) = url {
            let answer = service.get(&page).await;
            assert_eq!(answer.status, 200, "{page}: {:?}", answer.body);
            assert!(names(&answer.json()).len() <= 2);
            found.extend(names(&answer.json()));
            url = next(answer.header("link"));
        }
        assert_eq!(found, whole, "{list}");
        service
            .refused("GET", &format!("{list}?limit=0"), 400)
            .await;
    }
}

/// Reads events until `count` have come, or for ten seconds.
async fn events(service: &Service, headers: &[(&str, &str)], count: usize) -> Vec<String> {
    let mut request = Request::get("/v1/repos/demo/log").header("accept", "text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut parts = response.into_body().into_data_stream();
    let mut text = String::new();
    let read = async {
        while text.matches("\n\n").count() < count {
            let part = parts.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&part).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn the_log_is_followed_from_the_last_entry_that_was_seen() {
    let service = Service::new().await;
    assert_eq!(events(&service, &[], 2).await, ["0", "1"]);
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let url = "/v1/repos/demo/branches/later";
        assert_eq!(
            service.restarted().ask("PUT", url, &[], "").await.status,
            201
        );
    };
    let (found, ()) = tokio::join!(events(&service, &[("last-event-id", "0")], 2), later);
    assert_eq!(found, ["1", "2"]);
    let headers = [("accept", "text/event-stream"), ("last-event-id", "x")];
    let answer = service.ask("GET", "/v1/repos/demo/log", &headers, "").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["parameter"], "Last-Event-ID");
}
