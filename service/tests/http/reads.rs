//! Slices, reductions and how they are cached.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::TimeDelta;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use quarr_tests::watched::Watched;
use serde_json::json;
use storage::{GcOptions, Repository, Store};
use tokio::sync::Barrier;

use crate::support::{ANSWER_BYTES, MAIN, Service, requests};

#[tokio::test]
async fn slices_come_as_bytes_npy_or_json() {
    let service = Service::new().await;
    let url = format!("{MAIN}/data/g/f?slice=1,2:5");
    let expected: Vec<u8> = [8.0_f32, 9.0, 10.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();

    let bytes = service.get(&url).await;
    assert_eq!(bytes.status, 200);
    assert_eq!(bytes.header("content-type"), "application/octet-stream");
    assert_eq!(bytes.header("tensor"), "dtype=\"<f4\", shape=(3)");
    assert_eq!(bytes.body, expected);

    let npy = service
        .ask("GET", &url, &[("accept", "application/x-npy")], "")
        .await;
    assert_eq!(npy.header("content-type"), "application/x-npy");
    assert!(npy.body.starts_with(b"\x93NUMPY\x01\x00"));
    assert_eq!(npy.body.len() % 64, expected.len());
    assert!(npy.body.ends_with(&expected));

    let answer = service.json(&format!("{url}&f=json")).await;
    let expected = json!({"data_type": "float32", "dimensions": ["y"], "shape": [3], "values": [8.0, 9.0, 10.0]});
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn slices_are_numpys() {
    let service = Service::new().await;
    for (slice, shape, values) in [
        (
            "3,...",
            json!([6]),
            json!([18.0, 19.0, 20.0, 21.0, 22.0, 23.0]),
        ),
        ("::-2,0", json!([2]), json!([18.0, 6.0])),
        ("-1,-1", json!([]), json!(23.0)),
        ("0,5:99", json!([1]), json!(["NaN"])),
        (
            "[3,0],[1,1]",
            json!([2, 2]),
            json!([[19.0, 19.0], [1.0, 1.0]]),
        ),
        ("newaxis,0,:1", json!([1, 1]), json!([[0.0]])),
        ("2:2", json!([0, 6]), json!([])),
    ] {
        let url = format!("{MAIN}/data/g/f?f=json&slice={slice}");
        let mut answer = service.json(&url).await;
        if slice.starts_with("0,5") {
            // One past the slice of the others: the NaN is at (0, 5).
            assert_eq!(answer["values"], values, "{slice}");
            answer["values"] = values.clone();
        }
        assert_eq!(
            (&answer["shape"], &answer["values"]),
            (&shape, &values),
            "{slice}"
        );
    }
    let names = service.json(&format!("{MAIN}/data/names?f=json")).await;
    assert_eq!(names["values"], json!(["wind", "", "größe"]));
}

#[tokio::test]
async fn packed_values_are_decoded_as_asked() {
    let service = Service::new().await;
    for (decode, values) in [
        ("cf", json!([10.0, 10.5, 11.0, "NaN"])),
        ("raw", json!([0, 1, 2, 3])),
        ("mask", json!([0.0, 1.0, 2.0, "NaN"])),
    ] {
        let answer = service
            .json(&format!("{MAIN}/data/packed?f=json&decode={decode}"))
            .await;
        assert_eq!(answer["values"], values, "{decode}");
    }
}

#[tokio::test]
async fn reductions_take_names_or_numbers() {
    let service = Service::new().await;
    let reduce = format!("{MAIN}/reduce/g/f?f=json");
    for (query, shape, values) in [
        ("reduce=sum", json!([]), json!(271.0)),
        ("reduce=sum&skipna=false", json!([]), json!("NaN")),
        ("reduce=count", json!([]), json!(23)),
        (
            "reduce=max&over=y",
            json!([4]),
            json!([4.0, 11.0, 17.0, 23.0]),
        ),
        (
            "reduce=max&over=1",
            json!([4]),
            json!([4.0, 11.0, 17.0, 23.0]),
        ),
        (
            "reduce=max&over=-1&keepdims=true&slice=:2",
            json!([2, 1]),
            json!([[4.0], [11.0]]),
        ),
        ("reduce=mean&over=y,x&slice=1:3,:2", json!([]), json!(9.5)),
        // An index drops its dimension, so 0 is y.
        ("reduce=argmax&over=0&slice=1", json!([]), json!(5)),
        ("reduce=min&over=&slice=0,:2", json!([2]), json!([0.0, 1.0])),
        ("reduce=sum&slice=0,5&min_count=1", json!([]), json!("NaN")),
        (
            "reduce=std&slice=0,:2&ddof=1",
            json!([]),
            json!(0.707_106_77),
        ),
    ] {
        let answer = service.json(&format!("{reduce}&{query}")).await;
        assert_eq!(
            (&answer["shape"], &answer["values"]),
            (&shape, &values),
            "{query}"
        );
    }
    let double = service
        .json(&format!("{reduce}&reduce=mean&dtype=float64"))
        .await;
    assert_eq!(double["data_type"], "float64");
    let packed = service
        .json(&format!("{MAIN}/reduce/packed?f=json&reduce=mean"))
        .await;
    assert_eq!(packed["values"], 10.5);
}

#[tokio::test]
async fn an_answer_too_large_is_refused_before_anything_is_read() {
    let service = Service::new().await;
    service.get(&format!("{MAIN}/nodes/big")).await;
    service.objects.take_requests();
    let problem = service
        .refused("GET", &format!("{MAIN}/data/big"), 413)
        .await;
    assert_eq!(problem["limit"], ANSWER_BYTES);
    // One request may look for a newer log entry.
    assert!(requests(&service.objects).len() <= 1);
    assert_eq!(
        service
            .get(&format!("{MAIN}/data/big?slice=:4096"))
            .await
            .status,
        200
    );
    // JSON is larger than what it stands for.
    service
        .refused("GET", &format!("{MAIN}/data/big?slice=:4096&f=json"), 413)
        .await;
    assert_eq!(
        service.json("/v1/limits").await["answer_bytes"],
        ANSWER_BYTES
    );
}

#[tokio::test]
async fn guards_of_the_request_hold() {
    let service = Service::new().await;
    let data = format!("{MAIN}/data/g/f");
    for (query, status) in [
        ("expected_shape=4,6", 200),
        ("expected_shape=4,7", 412),
        ("expected_shape=4,x", 400),
        ("slice=0:99", 200),
        ("slice=0:99&strict=true", 400),
        ("slice=0:4&strict=true", 200),
        ("slice=9", 400),
    ] {
        let answer = service.get(&format!("{data}?{query}")).await;
        assert_eq!(answer.status, status, "{query}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn only_a_whole_commit_id_is_cached_for_ever() {
    let service = Service::new().await;
    let commit = service.json(MAIN).await["commit"]
        .as_str()
        .unwrap()
        .to_owned();
    let pinned = format!("/v1/repos/demo/refs/{commit}");
    let tag = service.ask("PUT", "/v1/repos/demo/tags/v1", &[], "").await;
    assert_eq!(tag.status, StatusCode::CREATED);
    for below in [
        "",
        "/nodes/g",
        "/data/g/f?slice=0,:2&f=json",
        "/reduce/g/f?reduce=sum",
        "/zarr/zarr.json",
        "/zarr/g/f/c/0/0",
        "/zarr/g/",
    ] {
        let url = format!("{pinned}{below}");
        let first = service.get(&url).await;
        assert_eq!(first.status, 200, "{url}");
        assert!(first.header("cache-control").contains("immutable"), "{url}");
        assert_eq!(first.header("content-location"), "", "{url}");
        let etag = first.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");

        let prefix = &commit[..12];
        for moving in ["main", "v1", "main~0", "main@2999-01-01T00:00:00Z", prefix] {
            let answer = service
                .get(&format!("/v1/repos/demo/refs/{moving}{below}"))
                .await;
            assert_eq!(
                answer.header("cache-control"),
                "no-cache",
                "{moving} {below}"
            );
            assert_eq!(answer.header("content-location"), url, "{moving}");
            assert_eq!(answer.header("etag"), etag, "{moving} {below}");
        }
        if !url.ends_with('/') {
            service.objects.take_requests();
            let again = service
                .ask("GET", &url, &[("if-none-match", &etag)], "")
                .await;
            assert_eq!(again.status, 304, "{url}");
            assert!(
                again.body.is_empty() && again.header("etag") == etag,
                "{url}"
            );
            assert_eq!(requests(&service.objects), [], "{url}");
        }
    }
}

#[tokio::test]
async fn answers_that_differ_have_different_tags() {
    let service = Service::new().await;
    let mut seen = std::collections::BTreeMap::new();
    for below in [
        "data/g/f",
        "data/g/f?slice=0",
        "data/g/f?slice=0:1",
        "data/g/f?f=json",
        "data/g/f?decode=raw",
        "data/sparse",
        "reduce/g/f?reduce=sum",
        "reduce/g/f?reduce=sum&over=x",
        "reduce/g/f?reduce=sum&over=x&keepdims=true",
        "reduce/g/f?reduce=sum&skipna=false",
        "reduce/g/f?reduce=sum&dtype=float64",
        "reduce/g/f?reduce=mean",
        "nodes/g/f",
        "zarr/g/f/zarr.json",
    ] {
        let answer = service.get(&format!("{MAIN}/{below}")).await;
        assert_eq!(answer.status, 200, "{below}");
        let other = seen.insert(answer.header("etag").to_owned(), below);
        assert_eq!(other, None, "{below}");
    }
    // The same selection in other words is the same answer.
    let one = service.get(&format!("{MAIN}/data/g/f?slice=0:4")).await;
    assert_eq!(seen.get(one.header("etag")), Some(&"data/g/f"));
}

#[tokio::test]
async fn what_was_collected_is_gone_and_not_damaged() {
    let service = Service::new().await;
    let commit = service.json(MAIN).await["commit"].clone();
    let old = format!("/v1/repos/demo/refs/{}", commit.as_str().unwrap());
    // The commit and the way to its arrays are cached now.
    service.json(&format!("{old}/nodes/big")).await;
    let deleted = service
        .ask("DELETE", &format!("{MAIN}/nodes/big"), &[], "")
        .await;
    assert_eq!(deleted.status, 200, "{:?}", deleted.body);

    let store = Store::from_objects(Arc::new(service.objects.clone()), "test");
    let repository = Repository::open(store.under("demo")).await.unwrap();
    repository.expire(chrono::Utc::now(), "test").await.unwrap();
    let at_once = GcOptions {
        retention: TimeDelta::zero(),
        grace: TimeDelta::zero(),
        ..GcOptions::default()
    };
    let report = repository.gc(&at_once, "test").await.unwrap();
    assert!(report.deleted > 0);
    for url in [
        format!("{old}/data/big?decode=raw&slice=0:10"),
        format!("{old}/reduce/big?reduce=argmax"),
        format!("{old}/zarr/big/c/0"),
    ] {
        let problem = service.refused("GET", &url, 410).await;
        assert_eq!(problem["type"], "/problems/expired", "{url}");
    }
}

/// `service` with nothing cached, over a store whose every answer takes a while.
fn slow(service: &Service) -> Service {
    let times = ThrottleConfig {
        wait_get_per_call: Duration::from_millis(30),
        ..ThrottleConfig::default()
    };
    let slow = ThrottledStore::new(service.objects.clone(), times);
    Service::over(Watched::new(Arc::new(slow)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_requests_of_many_clients_cost_no_more_than_one() {
    let service = Service::new().await;
    for what in [
        "data/big?slice=0:4000",
        "reduce/g/f?reduce=median",
        "zarr/zarr.json",
    ] {
        let url = format!("{MAIN}/{what}");
        let alone = slow(&service);
        let wanted = alone.get(&url).await;
        assert_eq!(wanted.status, StatusCode::OK, "{what}");
        let together = Arc::new(slow(&service));
        let ready = Arc::new(Barrier::new(32));
        let asked: Vec<_> = (0..32)
            .map(|_| {
                let (together, ready, url) = (together.clone(), ready.clone(), url.clone());
                tokio::spawn(async move {
                    ready.wait().await;
                    // A copy: the body itself holds memory that the others wait for.
                    together.get(&url).await.body.to_vec()
                })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), wanted.body, "{what}");
        }
        let count = |service: &Service| service.objects.take_requests().len();
        assert_eq!(count(&together), count(&alone), "{what}");
    }
}
