//! What each principal may ask for.

use serde_json::json;
use service::auth::{RateLimits, Settings};

use crate::auth::Guarded;
use crate::support::{MAIN, Service};

fn limits(per_second: Option<f64>, at_once: Option<u32>) -> Settings {
    Settings {
        limits: RateLimits {
            per_second,
            at_once,
        },
        ..Settings::default()
    }
}

#[tokio::test]
async fn too_many_requests_of_one_principal_are_refused_and_not_those_of_others() {
    // One in a thousand seconds, and twice as many, but at least one, at once.
    let guarded = Guarded::with(limits(Some(0.001), None)).await;
    assert_eq!(guarded.status(&guarded.admin, "GET", MAIN, "").await, 200);
    let refused = guarded.ask(&guarded.admin, "GET", MAIN, "").await;
    assert_eq!(refused.status, 429);
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((990..=1000).contains(&after), "{after}");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    guarded.assert_denied("too-many", "the second");
    let lines = guarded.audit().len();
    guarded.ask(&guarded.admin, "GET", MAIN, "").await;
    assert_eq!(guarded.audit().len(), lines, "one line a second");
    assert_eq!(guarded.status("", "GET", MAIN, "").await, 401);
    assert_eq!(guarded.status("", "GET", MAIN, "").await, 429);
    assert_eq!(guarded.status("", "GET", "/livez", "").await, 200);
    let shown = guarded.ask("", "GET", "/v1/limits", "").await.json();
    assert_eq!(shown["requests_per_second"], json!(0.001));
}

#[tokio::test]
async fn a_request_is_under_way_until_its_answer_is_sent() {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;
    let open = Service::new().await.guarded(limits(None, Some(1)));
    let url = format!("{MAIN}/data/g/f");
    let request = || Request::get(&url).body(Body::empty()).unwrap();
    let first = open.router.clone().oneshot(request()).await.unwrap();
    assert_eq!(first.status(), 200);
    let second = open.get(&url).await;
    assert_eq!(
        (second.status.as_u16(), second.header("retry-after")),
        (429, "1")
    );
    drop(first);
    assert_eq!(open.get(&url).await.status, 200);
}
