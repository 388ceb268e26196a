//! Transactions, single writes and work on whole commits, as clients see them.

use std::sync::Arc;
use std::time::Duration;

use object_store::throttle::{ThrottleConfig, ThrottledStore};
use quarr_tests::unreliable::{Outage, PutFault};
use quarr_tests::watched::Watched;
use serde_json::{Value, json};

use crate::branch_writes::over_unreliable;
use crate::support::{ANSWER_BYTES, Answer, MAIN, Service};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A service, and what its requests have in common.
struct Client(Service);

impl Client {
    async fn new() -> Self {
        Self(Service::new().await)
    }

    async fn send(&self, method: &str, url: &str, body: &Value) -> Answer {
        self.0.ask(method, url, &[JSON], &body.to_string()).await
    }

    /// The JSON of an answer that must be a success.
    async fn ok(&self, method: &str, url: &str, body: Value) -> Value {
        let answer = self.send(method, url, &body).await;
        assert!(
            answer.status.is_success(),
            "{method} {url}: {:?}",
            answer.body
        );
        if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        }
    }

    /// The problem of an answer that must have this status.
    async fn refused(&self, method: &str, url: &str, body: Value, status: u16) -> Value {
        let answer = self.send(method, url, &body).await;
        assert_eq!(answer.status, status, "{method} {url}: {:?}", answer.body);
        answer.json()
    }

    /// The URL of a new transaction on `main`.
    async fn begin(&self, isolation: &str) -> String {
        let new = json!({ "branch": "main", "isolation": isolation });
        let opened = self.ok("POST", "/v1/repos/demo/transactions", new).await;
        assert_eq!(opened["state"], "open");
        format!("/v1/transactions/{}", opened["id"].as_str().unwrap())
    }

    async fn commit(&self, transaction: &str) -> String {
        let url = format!("{transaction}/commit");
        let commit = self.ok("POST", &url, json!({ "message": "test" })).await;
        commit["commit"].as_str().unwrap().to_owned()
    }

    async fn values(&self, url: &str) -> Value {
        let url = format!("{url}{}f=json", if url.contains('?') { "&" } else { "?" });
        self.0.json(&url).await["values"].clone()
    }

    async fn head(&self) -> String {
        let shown = self.0.json(MAIN).await;
        shown["commit"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_transaction_is_seen_by_itself_until_it_is_committed() {
    let client = Client::new().await;
    let transaction = client.begin("snapshot").await;
    let array = json!({ "shape": [3, 4], "data_type": "int32", "chunks": [1, 2], "shards": [2, 4],
        "dimension_names": ["y", "x"], "attributes": { "units": "K" }, "fill_value": 7 });
    client
        .ok("PUT", &format!("{transaction}/nodes/new/t"), array)
        .await;
    let url = format!("{transaction}/data/new/t");
    client
        .ok(
            "PUT",
            &format!("{url}?slice=1:3,1:3"),
            json!([[1, 2], [3, 4]]),
        )
        .await;
    client
        .ok(
            "PUT",
            &format!("{url}?slice=0,::-1"),
            json!([10, 11, 12, 13]),
        )
        .await;
    let expected = json!([[13, 12, 11, 10], [7, 1, 2, 7], [7, 3, 4, 7]]);
    assert_eq!(client.values(&url).await, expected);
    client
        .0
        .refused("GET", &format!("{MAIN}/data/new/t"), 404)
        .await;
    let metadata = client
        .0
        .json(&format!("{transaction}/zarr/new/t/zarr.json"))
        .await;
    assert_eq!(metadata["dimension_names"], json!(["y", "x"]));

    let commit = client.commit(&transaction).await;
    assert_eq!(client.head().await, commit);
    assert_eq!(client.values(&format!("{MAIN}/data/new/t")).await, expected);
    let shown = client.0.json(&transaction).await;
    assert_eq!(
        (&shown["state"], &shown["commit"]),
        (&json!("committed"), &json!(commit))
    );
    // A second committer gets the first one's commit; changes come too late.
    assert_eq!(client.commit(&transaction).await, commit);
    client
        .refused("PUT", &format!("{url}?slice=0,0"), json!(1), 409)
        .await;
}

#[tokio::test]
async fn processes_share_a_transaction_through_the_store() {
    let client = Client::new().await;
    let other = Client(client.0.restarted());
    let transaction = client.begin("snapshot").await;
    let array = json!({ "shape": [4], "data_type": "uint8", "chunks": [1], "shards": [4] });
    client
        .ok("PUT", &format!("{transaction}/nodes/shared"), array)
        .await;
    // All of it is one shard: each has to see what the other wrote.
    let url = format!("{transaction}/data/shared");
    client.ok("PUT", &format!("{url}?slice=0"), json!(1)).await;
    other.ok("PUT", &format!("{url}?slice=1"), json!(2)).await;
    client.ok("PUT", &format!("{url}?slice=2"), json!(3)).await;
    other.ok("PUT", &format!("{url}?slice=3"), json!(4)).await;
    assert_eq!(client.values(&url).await, json!([1, 2, 3, 4]));
    // A process that knows nothing of it commits it.
    let third = Client(client.0.restarted());
    let commit = third.commit(&transaction).await;
    assert_eq!(client.commit(&transaction).await, commit);
    assert_eq!(
        client.values(&format!("{MAIN}/data/shared")).await,
        json!([1, 2, 3, 4])
    );
}

#[tokio::test]
async fn an_aborted_transaction_leaves_nothing() {
    let client = Client::new().await;
    let head = client.head().await;
    let transaction = client.begin("snapshot").await;
    client
        .ok("DELETE", &format!("{transaction}/nodes/g"), Value::Null)
        .await;
    client.ok("DELETE", &transaction, Value::Null).await;
    assert_eq!(client.0.json(&transaction).await["state"], "aborted");
    let commit = format!("{transaction}/commit");
    client.refused("POST", &commit, json!({}), 409).await;
    client
        .refused("PUT", &format!("{transaction}/data/g/f"), json!(1), 409)
        .await;
    assert_eq!(client.head().await, head);
    // Aborting again is no error; a committed one cannot be aborted.
    client.ok("DELETE", &transaction, Value::Null).await;
    let committed = client.begin("snapshot").await;
    client.commit(&committed).await;
    client.refused("DELETE", &committed, Value::Null, 409).await;
}

#[tokio::test]
async fn inner_chunks_of_one_shard_merge_and_the_same_one_conflicts() {
    let client = Client::new().await;
    // Shards of (2, 6), inner chunks of (2, 3).
    let [left, right, same] = [
        client.begin("snapshot").await,
        client.begin("snapshot").await,
        client.begin("snapshot").await,
    ];
    let write = |transaction: &str, slice: &str| format!("{transaction}/data/g/f?slice={slice}");
    client.ok("PUT", &write(&left, "0,0"), json!(100)).await;
    client.ok("PUT", &write(&right, "1,5"), json!(200)).await;
    client.ok("PUT", &write(&same, "1,1"), json!(300)).await;
    client.commit(&left).await;
    client.commit(&right).await;
    let url = format!("{MAIN}/data/g/f?slice=0:2,:");
    let merged = json!([
        [100.0, 1.0, 2.0, 3.0, 4.0, "NaN"],
        [6.0, 7.0, 8.0, 9.0, 10.0, 200.0]
    ]);
    assert_eq!(client.values(&url).await, merged);
    let statistics = client.0.json(&format!("{MAIN}/nodes/g/f")).await["statistics"].clone();
    assert_eq!(
        (&statistics["valid"], &statistics["max"]),
        (&json!(23), &json!(200.0))
    );

    let commit = format!("{same}/commit");
    let problem = client.refused("POST", &commit, json!({}), 409).await;
    let conflict = json!({ "path": "g/f", "kind": "data", "slice": "0:2,0:3" });
    assert_eq!(problem["conflicts"], json!([conflict]));
    assert_eq!(client.values(&url).await, merged);
    let theirs = json!({ "on_conflict": { "": "fail", "g": "theirs" } });
    client.ok("POST", &commit, theirs).await;
    assert_eq!(client.values(&url).await, merged);

    let again = client.begin("snapshot").await;
    client.ok("PUT", &write(&again, "0,0"), json!(1)).await;
    client
        .ok("PUT", &format!("{MAIN}/data/g/f?slice=0,1"), json!(2))
        .await;
    let ours = json!({ "on_conflict": "ours" });
    client.ok("POST", &format!("{again}/commit"), ours).await;
    assert_eq!(
        client.values(&format!("{MAIN}/data/g/f?slice=0,0:2")).await,
        json!([1.0, 1.0])
    );
}

#[tokio::test]
async fn a_serializable_transaction_fails_if_what_it_read_changed() {
    let client = Client::new().await;
    for (isolation, status) in [("snapshot", 200), ("serializable", 409)] {
        let transaction = client.begin(isolation).await;
        client
            .values(&format!("{transaction}/data/g/f?slice=0,0"))
            .await;
        client
            .ok(
                "PUT",
                &format!("{transaction}/data/sparse?slice=0"),
                json!(5),
            )
            .await;
        client
            .ok("PUT", &format!("{MAIN}/data/g/f?slice=0,0"), json!(status))
            .await;
        let commit = format!("{transaction}/commit");
        let answer = client.send("POST", &commit, &json!({})).await;
        assert_eq!(answer.status, status, "{isolation}: {:?}", answer.body);
        if status == 409 {
            let conflict = &answer.json()["conflicts"][0];
            assert_eq!(
                (&conflict["kind"], &conflict["path"]),
                (&json!("read"), &json!("g/f"))
            );
        }
    }
}

#[tokio::test]
async fn a_single_write_is_one_commit_under_its_conditions() {
    let client = Client::new().await;
    let url = format!("{MAIN}/data/g/f?slice=0,0");
    let head = client.head().await;
    let ask = async |key: &str, head: &str, value: &str| {
        let headers = [JSON, ("idempotency-key", key), ("if-match", head)];
        client.0.ask("PUT", &url, &headers, value).await
    };
    let quoted = format!("\"{head}\"");
    let first = ask("one", &quoted, "1").await;
    assert_eq!(first.status, 200, "{:?}", first.body);
    // The same request again has the same result, though the branch moved.
    assert_eq!(ask("one", &quoted, "1").await.json(), first.json());
    assert_eq!(ask("one", &quoted, "2").await.status, 422);
    assert_eq!(ask("two", &quoted, "2").await.status, 412);
    assert_eq!(ask("three", "nonsense", "2").await.status, 400);
    assert_eq!(ask("", "*", "2").await.status, 400);
    assert_eq!(client.values(&url).await, json!(1.0));
    let log = client.0.json("/v1/repos/demo/log").await;
    assert_eq!(log["entries"].as_array().unwrap().len(), 3);

    client
        .ok(
            "PUT",
            &format!("{MAIN}/nodes/made"),
            json!({ "attributes": { "a": 1 } }),
        )
        .await;
    client
        .ok("DELETE", &format!("{MAIN}/nodes/made"), Value::Null)
        .await;
    client
        .0
        .refused("GET", &format!("{MAIN}/nodes/made"), 404)
        .await;
    let commit = client.head().await;
    let url = format!("/v1/repos/demo/refs/{commit}/data/g/f");
    client.refused("PUT", &url, json!(0), 400).await;
}

#[tokio::test]
async fn resizing_drops_values_for_good() {
    let client = Client::new().await;
    let transaction = client.begin("snapshot").await;
    let node = format!("{transaction}/nodes/g/f");
    for shape in [[3, 4], [4, 6]] {
        client.ok("PUT", &node, json!({ "shape": shape })).await;
    }
    let row = json!([12.0, 13.0, 14.0, 15.0, 0.0, 0.0]);
    let end = json!([0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let expected = json!([row, end]);
    assert_eq!(
        client
            .values(&format!("{transaction}/data/g/f?slice=2:"))
            .await,
        expected
    );
    client.commit(&transaction).await;
    assert_eq!(
        client.values(&format!("{MAIN}/data/g/f?slice=2:")).await,
        expected
    );
    for bad in [
        json!({ "shape": [4] }),
        json!({ "data_type": "int8" }),
        json!({ "chunks": [1, 1] }),
    ] {
        client
            .refused("PUT", &format!("{MAIN}/nodes/g/f"), bad, 400)
            .await;
    }
}

#[tokio::test]
async fn nodes_move_without_their_data() {
    let client = Client::new().await;
    let before = client.0.json(&format!("{MAIN}/nodes/g/f")).await;
    let transaction = client.begin("snapshot").await;
    let url = format!("{transaction}/move");
    client
        .ok("POST", &url, json!({ "from": "g", "to": "moved/here" }))
        .await;
    let read = format!("{transaction}/data/moved/here/f?slice=0,0:2");
    client.ok("PUT", &read, json!([8, 9])).await;
    for (from, to, status) in [
        ("g", "x", 404),
        ("packed", "big", 409),
        ("moved", "moved/in", 400),
    ] {
        client
            .refused("POST", &url, json!({ "from": from, "to": to }), status)
            .await;
    }
    client.0.objects.take_requests();
    client.commit(&transaction).await;
    client
        .0
        .refused("GET", &format!("{MAIN}/nodes/g"), 404)
        .await;
    let after = client.0.json(&format!("{MAIN}/nodes/moved/here/f")).await;
    assert_eq!(after["zarr_json"], before["zarr_json"]);
    assert_eq!(
        client
            .values(&format!("{MAIN}/data/moved/here/f?slice=0,0:3"))
            .await,
        json!([8.0, 9.0, 2.0])
    );
}

#[tokio::test]
async fn branches_merge_and_commits_are_repeated_undone_and_left() {
    let client = Client::new().await;
    client
        .ok("PUT", "/v1/repos/demo/branches/dev", json!({}))
        .await;
    let dev = "/v1/repos/demo/refs/dev";
    let write = |reference: &str, slice: &str| format!("{reference}/data/g/f?slice={slice}");
    client.ok("PUT", &write(dev, "0,0"), json!(1000)).await;
    let picked = client.ok("PUT", &write(dev, "3,5"), json!(2000)).await["commit"].clone();
    client.ok("PUT", &write(MAIN, "1,4"), json!(3000)).await;
    let merge = json!({ "from": "dev", "into": "main" });
    let merged = client
        .ok("POST", "/v1/repos/demo/merge", merge.clone())
        .await;
    let shown = client.0.json(MAIN).await;
    assert_eq!(shown["commit"], merged["commit"]);
    assert_eq!(shown["parents"].as_array().unwrap().len(), 2);
    for (slice, value) in [("0,0", 1000.0), ("3,5", 2000.0), ("1,4", 3000.0)] {
        assert_eq!(
            client.values(&write(MAIN, slice)).await,
            json!(value),
            "{slice}"
        );
    }
    // Nothing is left to merge.
    let again = client
        .ok("POST", "/v1/repos/demo/merge", merge.clone())
        .await;
    assert_eq!(again, merged);

    let diff = client.0.json("/v1/repos/demo/diff/main~1/main").await;
    let node = json!({ "path": "g/f", "kind": "array", "change": "changed",
        "slices": ["0:4,0:6"], "chunks": 2 });
    assert_eq!(diff["nodes"], json!([node]));

    let revert = "/v1/repos/demo/branches/main/revert";
    client.ok("POST", revert, json!({ "commit": picked })).await;
    assert_eq!(client.values(&write(MAIN, "3,5")).await, json!(23.0));
    let pick = "/v1/repos/demo/branches/main/cherry-pick";
    client.ok("POST", pick, json!({ "commit": picked })).await;
    assert_eq!(client.values(&write(MAIN, "3,5")).await, json!(2000.0));
    // It has been made already: both sides changed the same.
    let problem = client
        .refused("POST", pick, json!({ "commit": picked }), 409)
        .await;
    assert_eq!(problem["conflicts"][0]["kind"], "data");

    let head = client.head().await;
    let reset = client
        .ok(
            "POST",
            "/v1/repos/demo/branches/main/reset",
            json!({ "to": "main~1" }),
        )
        .await;
    assert_eq!(reset["from"], json!(head));
    assert_eq!(client.values(&write(MAIN, "3,5")).await, json!(23.0));

    client.ok("PUT", &write(dev, "0,0"), json!(1)).await;
    client.ok("PUT", &write(MAIN, "0,1"), json!(2)).await;
    client
        .refused("POST", "/v1/repos/demo/merge", merge, 409)
        .await;
    let theirs = json!({ "from": "dev", "into": "main", "on_conflict": "theirs" });
    client.ok("POST", "/v1/repos/demo/merge", theirs).await;
    assert_eq!(
        client.values(&write(MAIN, "0,0:2")).await,
        json!([1.0, 1.0])
    );
}

#[tokio::test]
async fn a_zarr_client_writes_into_a_transaction() {
    let client = Client::new().await;
    let transaction = client.begin("snapshot").await;
    let zarr = format!("{transaction}/zarr");
    let metadata = json!({ "zarr_format": 3, "node_type": "array", "shape": [4], "data_type": "uint8",
        "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": [2] } },
        "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
        "fill_value": 0, "codecs": [{ "name": "bytes" }], "attributes": {} });
    client
        .ok("PUT", &format!("{zarr}/plain/zarr.json"), metadata)
        .await;
    let put = async |key: &str, body: &str| {
        let url = format!("{zarr}/{key}");
        client.0.ask("PUT", &url, &[], body).await.status.as_u16()
    };
    assert_eq!(put("plain/c/0", "ab").await, 204);
    assert_eq!(put("plain/c/1", "cd").await, 204);
    assert_eq!(put("plain/c/1", "too long").await, 422);
    assert_eq!(put("plain/c/2", "ef").await, 422);
    assert_eq!(put("plain/d", "ef").await, 400);
    assert_eq!(put("nowhere/c/0", "ab").await, 404);
    assert_eq!(put("plain/zarr.json", "{").await, 400);
    client
        .ok("DELETE", &format!("{zarr}/plain/c/1"), Value::Null)
        .await;
    client
        .ok("DELETE", &format!("{zarr}/packed/zarr.json"), Value::Null)
        .await;
    assert_eq!(client.0.get(&format!("{zarr}/plain/c/0")).await.body, "ab");
    client
        .0
        .refused("GET", &format!("{zarr}/plain/c/1"), 404)
        .await;
    let root = client.0.json(&format!("{zarr}/zarr.json")).await;
    let members = root["consolidated_metadata"]["metadata"]
        .as_object()
        .unwrap();
    assert!(members.contains_key("plain") && !members.contains_key("packed"));
    client.commit(&transaction).await;
    assert_eq!(
        client.values(&format!("{MAIN}/data/plain")).await,
        json!([97, 98, 0, 0])
    );
    client
        .0
        .refused("GET", &format!("{MAIN}/nodes/packed"), 404)
        .await;
}

#[tokio::test]
async fn requests_that_make_no_sense_change_nothing() {
    let client = Client::new().await;
    let head = client.head().await;
    let transaction = client.begin("snapshot").await;
    let unknown = format!("demo:{}", "0".repeat(32));
    for (method, url, body, status) in [
        (
            "POST",
            "/v1/repos/demo/transactions",
            json!({ "branch": "mian" }),
            404,
        ),
        (
            "POST",
            "/v1/repos/demo/transactions",
            json!({ "isolation": "none" }),
            400,
        ),
        (
            "POST",
            "/v1/repos/demo/transactions",
            json!({ "what": 1 }),
            400,
        ),
        ("GET", "/v1/transactions/nonsense", Value::Null, 400),
        (
            "GET",
            &format!("/v1/transactions/{unknown}"),
            Value::Null,
            404,
        ),
        (
            "POST",
            "/v1/repos/demo/merge",
            json!({ "from": "nothing", "into": "main" }),
            404,
        ),
        (
            "POST",
            "/v1/repos/demo/merge",
            json!({ "from": "main" }),
            400,
        ),
        (
            "POST",
            "/v1/repos/demo/branches/main/reset",
            json!({ "to": "main~9" }),
            404,
        ),
        (
            "POST",
            "/v1/repos/demo/branches/main/revert",
            json!({ "commit": "main~1" }),
            400,
        ),
        (
            "PUT",
            &format!("{transaction}/data/g/f"),
            json!([1, 2]),
            400,
        ),
        (
            "PUT",
            &format!("{transaction}/data/g/f?slice=9,9"),
            json!(1),
            400,
        ),
        (
            "PUT",
            &format!("{transaction}/data/g/f?slice=0:9,0"),
            json!(1),
            400,
        ),
        ("PUT", &format!("{transaction}/data/g"), json!(1), 400),
        ("PUT", &format!("{transaction}/data/none"), json!(1), 404),
        (
            "PUT",
            &format!("{transaction}/nodes/g/f/below"),
            json!({}),
            400,
        ),
        (
            "PUT",
            &format!("{transaction}/nodes/a"),
            json!({ "shape": [1] }),
            400,
        ),
        (
            "PUT",
            &format!("{transaction}/nodes/a"),
            json!({ "shape": [1], "data_type": "int99" }),
            422,
        ),
        (
            "PUT",
            &format!("{transaction}/nodes/a"),
            json!({ "shape": [1_u64 << 60, 1_u64 << 60], "data_type": "int8" }),
            413,
        ),
        (
            "DELETE",
            &format!("{transaction}/nodes/none"),
            Value::Null,
            404,
        ),
        (
            "POST",
            &format!("{transaction}/commit"),
            json!({ "on_conflict": "maybe" }),
            400,
        ),
    ] {
        client.refused(method, url, body, status).await;
    }
    let long = "1".repeat(ANSWER_BYTES as usize + 1);
    let url = format!("{transaction}/data/g/f");
    let answer = client.0.ask("PUT", &url, &[JSON], &long).await;
    assert_eq!(answer.status, 413, "{:?}", answer.body);
    assert_eq!(client.head().await, head);
}

#[tokio::test]
async fn writes_that_come_together_share_a_log_entry_from_the_first_on() {
    let client = Client::new().await;
    let array = json!({ "shape": [24], "data_type": "int8", "shards": [1], "chunks": [1] });
    client.ok("PUT", &format!("{MAIN}/nodes/many"), array).await;
    let log = "/v1/repos/demo/log?limit=1000";
    let length = async || client.0.json(log).await["entries"].as_array().map(Vec::len);
    let before = length().await.unwrap();
    // Requests take time, so that all of them find the repository not yet open.
    let service = slow(&client);
    let writes = (0..24).map(|cell| {
        let url = format!("{MAIN}/data/many?slice={cell}");
        let service = &service;
        async move { service.ask("PUT", &url, &[JSON], "7").await.status }
    });
    let answers = futures::future::join_all(writes).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    let entries = length().await.unwrap() - before;
    assert!(entries <= 4, "{entries} entries for 24 commits");
    let values = client.values(&format!("{MAIN}/data/many")).await;
    assert_eq!(values, json!(vec![7; 24]));
}

/// A service with nothing in memory, which takes a while for each object.
fn slow(client: &Client) -> Service {
    let slow = ThrottleConfig {
        wait_get_per_call: Duration::from_millis(2),
        wait_list_per_call: Duration::from_millis(2),
        wait_put_per_call: Duration::from_millis(2),
        ..ThrottleConfig::default()
    };
    let objects = ThrottledStore::new(client.0.objects.clone(), slow);
    Service::over(Watched::new(Arc::new(objects)))
}

/// A transaction that has made the array `one_chunk`.
async fn one_chunk(client: &Client, cells: usize) -> String {
    let transaction = client.begin("snapshot").await;
    let array = json!({ "shape": [cells], "data_type": "int32" });
    let node = format!("{transaction}/nodes/one_chunk");
    client.ok("PUT", &node, array).await;
    transaction
}

#[tokio::test]
async fn requests_of_a_transaction_know_of_each_other() {
    const CELLS: usize = 32;
    let client = Client::new().await;
    let transaction = one_chunk(&client, CELLS).await;

    // Each reads the transaction from the store, or finds it read. While it is looked at, too.
    let service = slow(&client);
    let writes = (0..CELLS).map(async |cell| {
        if cell % 4 == 1 {
            tokio::time::sleep(Duration::from_millis(cell as u64)).await;
            let shown = service.ask("GET", &transaction, &[], "").await;
            assert_eq!(shown.json()["state"], "open");
        }
        let url = format!("{transaction}/data/one_chunk?slice={cell}");
        service.ask("PUT", &url, &[JSON], "7").await.status
    });
    let answers = futures::future::join_all(writes).await;
    assert!(answers.iter().all(|status| *status == 204), "{answers:?}");
    client.commit(&transaction).await;
    let values = client.values(&format!("{MAIN}/data/one_chunk")).await;
    assert_eq!(values, json!(vec![7; CELLS]));
}

#[tokio::test]
async fn a_transaction_others_crowd_out_is_still_one() {
    const CELLS: usize = 8;
    let client = Client::new().await;
    let transaction = one_chunk(&client, CELLS).await;
    let service = slow(&client);
    let write = async |cell: usize| {
        let url = format!("{transaction}/data/one_chunk?slice={cell}");
        service.ask("PUT", &url, &[JSON], "7").await.status
    };
    let crowd = async |_| {
        let new = json!({ "branch": "main" }).to_string();
        let url = "/v1/repos/demo/transactions";
        service.ask("POST", url, &[JSON], &new).await.status
    };
    let (written, _, later) = tokio::join!(
        futures::future::join_all((0..CELLS / 2).map(write)),
        futures::future::join_all((0..600).map(crowd)),
        async {
            tokio::time::sleep(Duration::from_millis(6)).await;
            futures::future::join_all((CELLS / 2..CELLS).map(write)).await
        }
    );
    assert!(written.iter().chain(&later).all(|status| *status == 204));
    client.commit(&transaction).await;
    let values = client.values(&format!("{MAIN}/data/one_chunk")).await;
    assert_eq!(values, json!(vec![7; CELLS]));
}

#[tokio::test]
async fn what_is_acknowledged_is_staged_whatever_fails_beside_it() {
    const AT_ONCE: usize = 8;
    const ROUNDS: usize = 12;
    let (service, store) = over_unreliable().await;
    let new = json!({ "branch": "main" }).to_string();
    let opened = service.ask("POST", "/v1/repos/demo/transactions", &[JSON], &new);
    let opened = opened.await.json();
    let transaction = format!("/v1/transactions/{}", opened["id"].as_str().unwrap());
    let array = json!({ "shape": [AT_ONCE * ROUNDS], "data_type": "int32" }).to_string();
    let node = format!("{transaction}/nodes/cells");
    let created = service.ask("PUT", &node, &[JSON], &array).await;
    assert_eq!(created.status, 204, "{:?}", created.body);

    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        // Every other round nothing fails; in the others it ends while writes are under way.
        let refused = (round % 2 * (1 + round / 2)) as u64;
        store.set_outage((refused > 0).then_some(Outage {
            prefix: "demo/staging",
            fault: PutFault::Forbidden,
            cuts_off: false,
            writes: Some(refused),
        }));
        let writes = (round * AT_ONCE..(round + 1) * AT_ONCE).map(async |cell| {
            let url = format!("{transaction}/data/cells?slice={cell}");
            let answer = service.ask("PUT", &url, &[JSON], "7").await;
            answer.status.is_success().then_some(cell)
        });
        acknowledged.extend(
            futures::future::join_all(writes)
                .await
                .into_iter()
                .flatten(),
        );
        store.set_outage(None);
    }
    let all = AT_ONCE * ROUNDS;
    assert!(
        (all / 2..all).contains(&acknowledged.len()),
        "{acknowledged:?}"
    );
    let url = format!("{transaction}/commit");
    let committed = service
        .ask("POST", &url, &[JSON], r#"{"message":"all"}"#)
        .await;
    assert_eq!(committed.status, 200, "{:?}", committed.body);
    let values = service.json(&format!("{MAIN}/data/cells?f=json")).await;
    for cell in acknowledged {
        assert_eq!(values["values"][cell], 7, "{cell}");
    }
}

#[tokio::test]
async fn an_array_may_be_created_by_many_at_once() {
    let client = Client::new().await;
    let transaction = client.begin("snapshot").await;
    let array = json!({ "shape": [4], "data_type": "int32" }).to_string();
    let url = format!("{transaction}/nodes/new");
    let service = slow(&client);
    let puts = (0..8).map(async |_| service.ask("PUT", &url, &[JSON], &array).await);
    for answer in futures::future::join_all(puts).await {
        assert_eq!(answer.status, 204, "{:?}", answer.body);
    }
}

#[tokio::test]
async fn what_a_web_page_can_send_unasked_changes_nothing() {
    let client = Client::new().await;
    let url = "/v1/repos/demo/branches/main/reset";
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ] {
        let kind = [("content-type", kind)];
        let answer = client.0.ask("POST", url, &kind, r#"{"to":"main~1"}"#).await;
        assert_eq!(answer.status, 415, "{kind:?}: {:?}", answer.body);
    }
    let zipped = [JSON, ("content-encoding", "gzip")];
    let data = format!("{MAIN}/data/g/f?slice=0,0");
    for (method, url) in [("POST", url), ("PUT", &data)] {
        let answer = client.0.ask(method, url, &zipped, "1").await;
        assert_eq!(answer.status, 415, "{method}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn conditions_and_members_are_never_ignored() {
    let client = Client::new().await;
    let node = format!("{MAIN}/nodes/new");
    let put = async |condition: &str| {
        let headers = [JSON, ("if-none-match", condition)];
        client.0.ask("PUT", &node, &headers, "{}").await.status
    };
    assert_eq!(put("*").await, 200);
    assert_eq!(put("*").await, 412);
    assert_eq!(put("\"abc\"").await, 400);

    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let answer = client.0.ask("PUT", &node, &twice, "{}").await;
    assert_eq!(answer.status, 400);

    let pick = json!({ "commit": "main", "x": 1 });
    for what in ["revert", "cherry-pick"] {
        let url = format!("/v1/repos/demo/branches/main/{what}");
        client.refused("POST", &url, pick.clone(), 400).await;
    }
    let merge = json!({ "from": "main", "into": "main", "on_conflicts": "theirs" });
    client
        .refused("POST", "/v1/repos/demo/merge", merge, 400)
        .await;

    let data = format!("{MAIN}/data/g/f?slice=0,0:2");
    for wrong in [
        json!({ "values": [1, 2], "shape": [3] }),
        json!({ "values": [1, 2], "data_type": "int64" }),
        json!([1e39, 1]),
    ] {
        client.refused("PUT", &data, wrong, 400).await;
    }
    let right = json!({ "values": [1, 2], "shape": [2], "data_type": "float32" });
    client.ok("PUT", &data, right).await;
}
