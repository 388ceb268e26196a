//! Queries of the HTTP service over a small array: nothing that is asked for breaks it.
#![no_main]

use std::sync::Arc;
use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Uri};
use libfuzzer_sys::fuzz_target;
use object_store::memory::InMemory;
use quarr_fuzz::steered;
use query::{Engine, Settings};
use service::state::{Limits, State};
use storage::Store;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

const PLACES: [&str; 9] = [
    "data/a",
    "reduce/a",
    "explain/a",
    "zarr/a",
    "zarr",
    "nodes/a",
    "proof/a",
    "reduce/x",
    "data/x",
];
/// Most bytes of one answer.
const ANSWER_BYTES: u64 = 1 << 20;

struct Service {
    runtime: Runtime,
    router: Router,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let store = Store::from_objects(Arc::new(InMemory::new()), "fuzz");
    let settings = Settings {
        threads: 1,
        work_bytes: 64 << 20,
        cache_bytes: 16 << 20,
        ..Settings::default()
    };
    let engine = Engine::new(settings).unwrap_or_else(|error| panic!("no engine: {error}"));
    let limits = Limits {
        answer_bytes: ANSWER_BYTES,
        streamed_bytes: ANSWER_BYTES,
        chunks: 1 << 12,
    };
    let router = runtime.block_on(async {
        let router = service::http::router(State::new(store, engine, limits));
        for (method, path, body) in SETUP {
            let status = ask(&router, method, path, body).await.0;
            assert!(status < 300, "{method} {path}: {status}");
        }
        router
    });
    Service { runtime, router }
});

/// Two arrays: `a` of 4 by 6 numbers over dimensions x and y, and `x`, the coordinate of one of them.
const SETUP: [(&str, &str, &str); 3] = [
    ("PUT", "/v1/repos/demo", ""),
    (
        "PUT",
        "/v1/repos/demo/refs/main/nodes/a",
        r#"{"shape":[4,6],"data_type":"float32","chunks":[2,3],"dimension_names":["x","y"],"fill_value":1.5}"#,
    ),
    (
        "PUT",
        "/v1/repos/demo/refs/main/nodes/x",
        r#"{"shape":[4],"data_type":"int16","dimension_names":["x"],"attributes":{"units":"days since 2000-01-01"}}"#,
    ),
];

/// The status and the length of an answer.
async fn ask(router: &Router, method: &str, path: &str, body: &str) -> (u16, usize) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()));
    let Ok(request) = request else { return (0, 0) };
    let Ok(answer) = router.clone().oneshot(request).await;
    let status = answer.status().as_u16();
    let most = 4 * ANSWER_BYTES as usize;
    match to_bytes(answer.into_body(), most).await {
        Ok(bytes) => (status, bytes.len()),
        Err(error) => panic!("{method} {path} answers {status} and breaks off: {error}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((steer, text)) = steered(data) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let place = PLACES[steer % PLACES.len()];
    let path = format!("/v1/repos/demo/refs/main/{place}?{text}");
    if path.parse::<Uri>().is_err() {
        return;
    }
    let service = &*SERVICE;
    let (status, _) = service
        .runtime
        .block_on(ask(&service.router, "GET", &path, ""));
    assert!(status < 500, "{path} answers {status}");
});
