//! Objects written to a branch over plain HTTP, without a transaction.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use quarr_tests::unreliable::{Outage, PutFault, Rates, Unreliable};
use quarr_tests::watched::Watched;
use serde_json::json;
use storage::{Repository, Store};

use crate::support::{Answer, MAIN, Service};

const ZARR: &str = "/v1/repos/demo/refs/main/zarr";

/// `zarr.json` of an array of bytes, which are its chunks.
fn array(shape: &[u64], chunks: &[u64]) -> String {
    json!({ "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "uint8",
        "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": chunks } },
        "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
        "fill_value": 0, "codecs": [{ "name": "bytes" }] })
    .to_string()
}

fn commit(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["branch"], "main");
    answer["commit"].as_str().unwrap().to_owned()
}

/// Commits of the branch, newest first.
async fn history(service: &Service) -> Vec<String> {
    let log = service.json("/v1/repos/demo/log?limit=1000").await;
    let entries = log["entries"].as_array().unwrap().iter();
    let operations = entries.flat_map(|entry| entry["operations"].as_array().unwrap().clone());
    let mut commits: Vec<String> = operations
        .filter_map(|operation| Some(operation["to"].as_str()?.to_owned()))
        .collect();
    commits.reverse();
    commits
}

/// The same store, but every request to it takes some time.
fn slow(service: &Service) -> Service {
    let wait = Duration::from_millis(3);
    let slow = ThrottleConfig {
        wait_get_per_call: wait,
        wait_put_per_call: wait,
        ..ThrottleConfig::default()
    };
    let objects = ThrottledStore::new(service.objects.clone(), slow);
    Service::over(Watched::new(Arc::new(objects)))
}

#[tokio::test]
async fn every_write_is_committed_and_can_be_read() {
    let service = Service::new().await;
    let before = history(&service).await.len();
    let mut commits = Vec::new();
    for (key, body) in [
        ("a/b/zarr.json", array(&[4], &[2])),
        ("a/b/c/1", "xy".to_owned()),
        ("//a//b/c/0", "uv".to_owned()),
    ] {
        commits.push(commit(&service.put(&format!("{ZARR}/{key}"), body).await));
        let fresh = service.restarted();
        assert_eq!(
            fresh.get(&format!("{ZARR}/{key}")).await.status,
            200,
            "{key}"
        );
        assert_eq!(
            service.json(MAIN).await["commit"].as_str(),
            commits.last().map(String::as_str)
        );
    }
    assert_eq!(service.get(&format!("{ZARR}/a/b/c/0")).await.body, "uv");
    // A version from before does not change.
    let url = format!("/v1/repos/demo/refs/{}/zarr/a/b/c/0", commits[1]);
    service.refused("GET", &url, 404).await;
    for key in ["a/b/c/1", "a/b/c/1", "a/b/c/9", "nothing/at/all"] {
        let answer = service
            .ask("DELETE", &format!("{ZARR}/{key}"), &[], "")
            .await;
        commits.push(commit(&answer));
    }
    service
        .refused("GET", &format!("{ZARR}/a/b/c/1"), 404)
        .await;
    let url = format!("{ZARR}/a?recursive=true");
    commits.push(commit(&service.ask("DELETE", &url, &[], "").await));
    service
        .refused("GET", &format!("{ZARR}/a/zarr.json"), 404)
        .await;
    commits.push(commit(
        &service
            .ask("DELETE", &format!("{ZARR}?recursive=true"), &[], "")
            .await,
    ));
    let list = service.json(&format!("{ZARR}?list=all")).await;
    assert_eq!(list["keys"], json!(["zarr.json"]));
    // Absent keys make no commit.
    commits.dedup();
    let made = history(&service).await;
    assert!(commits.iter().all(|commit| made.contains(commit)));
    assert!(made.len() - before <= commits.len(), "{made:?} {commits:?}");
}

#[tokio::test]
async fn writes_that_come_together_are_one_commit_and_fail_alone() {
    let service = Service::new().await;
    commit(
        &service
            .put(&format!("{ZARR}/many/zarr.json"), array(&[120], &[2]))
            .await,
    );
    let before = history(&service).await.len();
    let slow = slow(&service);
    let put = |key: String, body: &'static str| {
        let (url, slow) = (format!("{ZARR}/{key}"), &slow);
        async move { slow.put(&url, body).await }
    };
    let good = (0..60).map(|chunk| put(format!("many/c/{chunk}"), "ab"));
    let bad = [
        ("many/c/0", "too long", 422),
        ("many/c/60", "ab", 422),
        ("many/d", "ab", 400),
        ("nothing/c/0", "ab", 404),
        ("other/zarr.json", "{", 400),
    ];
    let refused = bad.map(|(key, body, _)| put(key.to_owned(), body));
    let (good, refused) = futures::future::join(join_all(good), join_all(refused)).await;
    let mut commits: Vec<String> = good.iter().map(commit).collect();
    for (answer, (key, _, status)) in refused.iter().zip(bad) {
        assert_eq!(answer.status, status, "{key}: {:?}", answer.body);
    }
    commits.sort();
    commits.dedup();
    let made = history(&service).await;
    assert_eq!(made.len() - before, commits.len());
    assert!(
        commits.len() <= 6,
        "{} commits for 60 writes",
        commits.len()
    );
    assert!(commits.iter().all(|commit| made.contains(commit)));
    let fresh = service.restarted();
    let data = fresh.json(&format!("{MAIN}/data/many?f=json")).await;
    assert_eq!(data["values"], json!([97, 98].repeat(60)));
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_between_processes() {
    let service = Service::new().await;
    commit(
        &service
            .put(&format!("{ZARR}/many/zarr.json"), array(&[80], &[1]))
            .await,
    );
    let processes = [slow(&service), slow(&service)];
    let mut writes = Vec::new();
    for (nth, process) in processes.iter().enumerate() {
        // Half of the chunks each, one that both write, and metadata.
        for chunk in (nth..80).step_by(2).chain([79]) {
            let url = format!("{ZARR}/many/c/{chunk}");
            writes.push(async move { process.put(&url, if nth == 0 { "x" } else { "y" }).await });
        }
    }
    for answer in join_all(writes).await {
        commit(&answer);
    }
    let fresh = service.restarted();
    let data = fresh.json(&format!("{MAIN}/data/many?f=json")).await;
    let values: Vec<u64> = serde_json::from_value(data["values"].clone()).unwrap();
    for (chunk, value) in values.iter().enumerate().take(79) {
        assert_eq!(*value, [120, 121][chunk % 2], "{chunk}");
    }
    assert!([120, 121].contains(&values[79]));
}

#[tokio::test]
async fn only_one_of_many_creates_a_key() {
    let service = Service::new().await;
    commit(
        &service
            .put(&format!("{ZARR}/a/zarr.json"), array(&[4], &[2]))
            .await,
    );
    let slow = slow(&service);
    for key in ["a/c/0", "b/zarr.json"] {
        let url = format!("{ZARR}/{key}");
        let body = if key == "a/c/0" {
            "ab".to_owned()
        } else {
            array(&[1], &[1])
        };
        let headers = [("if-none-match", "*")];
        let create = (0..8).map(|_| slow.ask("PUT", &url, &headers, &body));
        let answers = join_all(create).await;
        let mut statuses: Vec<u16> = answers
            .iter()
            .map(|answer| answer.status.as_u16())
            .collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![200], vec![412; 7]].concat(), "{key}");
        let fail = slow
            .ask("PUT", &url, &[("if-none-match", "\"tag\"")], &body)
            .await;
        assert_eq!(fail.status, 400);
    }
    // The same in a transaction.
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let staged = format!(
        "/v1/transactions/{}/zarr",
        opened.json()["id"].as_str().unwrap()
    );
    for (key, body, status) in [
        ("a/c/0", "ab", 412),
        ("a/c/1", "ab", 204),
        ("a/c/1", "ab", 412),
        ("a/zarr.json", "{}", 412),
    ] {
        let url = format!("{staged}/{key}");
        let answer = service
            .ask("PUT", &url, &[("if-none-match", "*")], body)
            .await;
        assert_eq!(answer.status, status, "{key}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn writes_with_conditions_are_commits_of_their_own() {
    let service = Service::new().await;
    let head = commit(
        &service
            .put(&format!("{ZARR}/a/zarr.json"), array(&[4], &[2]))
            .await,
    );
    let url = format!("{ZARR}/a/c/0");
    let put = async |key: &str, head: &str, body: &str| {
        let headers = [("idempotency-key", key), ("if-match", head)];
        service.ask("PUT", &url, &headers, body).await
    };
    let quoted = format!("\"{head}\"");
    let first = put("one", &quoted, "ab").await;
    let first_commit = commit(&first);
    assert_eq!(commit(&put("one", &quoted, "ab").await), first_commit);
    assert_eq!(put("one", &quoted, "cd").await.status, 422);
    assert_eq!(put("two", &quoted, "cd").await.status, 412);
    assert_eq!(put("two", "nonsense", "cd").await.status, 400);
    assert_eq!(service.get(&url).await.body, "ab");
    let delete = async |url: &str| {
        let headers = [("idempotency-key", "gone")];
        service.ask("DELETE", url, &headers, "").await
    };
    let gone = commit(&delete(&url).await);
    commit(&service.put(&url, "ef").await);
    assert_eq!(commit(&delete(&url).await), gone);
    assert_eq!(service.get(&url).await.body, "ef");
    assert_eq!(delete(&format!("{url}?recursive=true")).await.status, 422);
    // Only branches can be written to.
    for (reference, status) in [(head.as_str(), 400), ("main~1", 400), ("nothing", 404)] {
        let url = format!("/v1/repos/demo/refs/{reference}/zarr/a/c/0");
        for method in ["PUT", "DELETE"] {
            service.refused(method, &url, status).await;
        }
        let url = format!("/v1/repos/demo/refs/{reference}/zarr");
        service
            .refused("DELETE", &format!("{url}?recursive=true"), status)
            .await;
        service.refused("MKCOL", &url, status).await;
    }
    service
        .refused("PUT", "/v1/repos/none/refs/main/zarr/a/c/0", 404)
        .await;
}

/// A service over a repository `demo` with an array `a` whose chunks are objects, and its store.
pub(crate) async fn over_unreliable() -> (Service, Unreliable) {
    let store = Unreliable::new(Arc::new(InMemory::new()), 7, Rates::default());
    let objects = Watched::new(Arc::new(store.clone()));
    let root = Store::from_objects(Arc::new(objects.clone()), "test");
    Repository::create(root.under("demo"), "test")
        .await
        .unwrap();
    let service = Service::over(objects);
    commit(
        &service
            .put(&format!("{ZARR}/a/zarr.json"), array(&[6000], &[2000]))
            .await,
    );
    commit(
        &service
            .put(&format!("{ZARR}/b/zarr.json"), array(&[40], &[1]))
            .await,
    );
    (service, store)
}

fn noise(seed: u64) -> Vec<u8> {
    let byte = |at: u64| ((at + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    (0..2000).map(byte).collect()
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_store_fails_does_not_fail_the_others() {
    let (service, store) = over_unreliable().await;
    let outage = |prefix| Outage {
        prefix,
        fault: PutFault::Forbidden,
        cuts_off: false,
        writes: None,
    };
    // Large chunks are objects of their own; small ones are kept in the pages of the commit.
    store.set_outage(Some(outage("demo/shards")));
    let url = |array: &str, chunk: u64| format!("{ZARR}/{array}/c/{chunk}");
    let (large_url, urls) = (url("a", 1), (0..30).map(|chunk| url("b", chunk)));
    let small = urls.map(|url| {
        let service = &service;
        async move { service.put(&url, "x").await }
    });
    let (small, large) =
        futures::future::join(join_all(small), service.put(&large_url, noise(1))).await;
    assert!(large.status.is_server_error(), "{}", large.status);
    for answer in &small {
        commit(answer);
    }
    // Without a log nothing is acknowledged.
    store.set_outage(Some(outage("demo/log")));
    let answer = service.put(&url("b", 35), "x").await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    store.set_outage(None);
    commit(&service.put(&large_url, noise(1)).await);
    assert_eq!(service.restarted().get(&large_url).await.body, noise(1));
    service.refused("GET", &url("b", 35), 404).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_store_fails_to_read_is_never_said_to_be_absent() {
    let (service, _) = over_unreliable().await;
    let keys = [
        "zarr.json",
        "a/zarr.json",
        "a/c/0",
        "a?list=all",
        "a/c?list=children",
        "?list=all",
        "a/",
        "",
    ];
    commit(&service.put(&format!("{ZARR}/a/c/0"), noise(0)).await);
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let staged = format!(
        "/v1/transactions/{}/zarr",
        opened.json()["id"].as_str().unwrap()
    );
    let mut failures = 0;
    for seed in 0..12 {
        let rates = Rates {
            get: 0.35,
            put: 0.0,
        };
        let store = Unreliable::new(Arc::new(service.objects.clone()), seed, rates);
        let failing = Service::over(Watched::new(Arc::new(store)));
        for zarr in [ZARR, &staged] {
            for key in keys {
                for method in ["GET", "HEAD", "PROPFIND"] {
                    let url = match key.chars().next() {
                        None | Some('?') => format!("{zarr}{key}"),
                        _ => format!("{zarr}/{key}"),
                    };
                    let answer = failing.ask(method, &url, &[("depth", "1")], "").await;
                    let is_fine = answer.status.is_success() || answer.status.is_server_error();
                    assert!(is_fine, "{method} {url}: {}", answer.status);
                    failures += u32::from(answer.status.is_server_error());
                }
            }
        }
        // A write that could not look is not done.
        for (method, key) in [("PUT", "a/c/2"), ("DELETE", "b/c/3"), ("DELETE", "b")] {
            let url = format!("{staged}/{key}");
            let body = if method == "PUT" {
                String::from_utf8(vec![b'x'; 2000]).unwrap()
            } else {
                String::new()
            };
            let answer = failing.ask(method, &url, &[], &body).await;
            let is_fine = answer.status.is_success() || answer.status.is_server_error();
            assert!(is_fine, "{method} {url}: {}", answer.status);
        }
    }
    assert!(failures > 20, "{failures}");
}
