//! Principals who may see, or write, a part of a repository alone.

use serde_json::{Value, json};

use crate::auth::Guarded;
use crate::support::MAIN;

const GROUP: &str = r#"{"zarr_format": 3, "node_type": "group", "attributes": {"secret": "x"}}"#;
const ARRAY: &str = r#"{"shape": [4], "data_type": "uint8", "dimension_names": ["x"]}"#;

/// The samples, and groups `a`, `ab`, `A` and `a/in` with arrays `f` in them, a coordinate `x` above.
async fn guarded() -> Guarded {
    let guarded = Guarded::new().await;
    let opened = guarded
        .ask(&guarded.admin, "POST", "/v1/repos/demo/transactions", "{}")
        .await;
    let transaction = format!("/v1/transactions/{}", opened.json()["id"].as_str().unwrap());
    for (group, document) in [
        ("", GROUP),
        ("/a", GROUP),
        ("/ab", GROUP),
        ("/A", GROUP),
        ("/a/in", "{}"),
    ] {
        let url = format!("{transaction}/nodes{group}");
        let status = guarded.status(&guarded.admin, "PUT", &url, document).await;
        assert_eq!(status, 204, "{group}");
    }
    for array in ["a/f", "ab/f", "A/f", "a/in/f", "x"] {
        let status = guarded
            .status(
                &guarded.admin,
                "PUT",
                &format!("{transaction}/nodes/{array}"),
                ARRAY,
            )
            .await;
        assert_eq!(status, 204, "{array}");
        let url = format!("{transaction}/data/{array}");
        let answer = guarded.ask(&guarded.admin, "PUT", &url, "[1,2,3,4]").await;
        assert_eq!(answer.status, 204, "{array}: {:?}", answer.body);
    }
    let commit = r#"{"message": "a secret message", "properties": {"secret": 1}}"#;
    let answer = guarded
        .ask(
            &guarded.admin,
            "POST",
            &format!("{transaction}/commit"),
            commit,
        )
        .await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    guarded
}

#[tokio::test]
async fn a_reader_of_a_part_reads_that_and_nothing_beside() {
    let guarded = guarded().await;
    let reader = guarded.token("reader", &["reader:demo:/a"]).await;
    let post = |path: &str| {
        (
            "POST",
            format!("{MAIN}/points/{path}"),
            r#"{"positions": {"x": [0]}}"#,
        )
    };
    let get = |path: String| ("GET", format!("{MAIN}/{path}"), "");
    for inside in ["a/f", "a/in/f"] {
        for (method, url, body) in [
            get(format!("nodes/{inside}")),
            get(format!("data/{inside}")),
            get(format!("data/{inside}/")),
            get(format!("data//{inside}")),
            get(format!("reduce/{inside}?reduce=sum")),
            get(format!("explain/{inside}")),
            get(format!("zarr/{inside}/zarr.json")),
            get(format!("zarr//{inside}//zarr.json")),
            get(format!("zarr/{inside}/c/0")),
            get(format!("zarr/{inside}?list=all")),
            post(inside),
        ] {
            let answer = guarded.ask(&reader, method, &url, body).await;
            assert_eq!(answer.status, 200, "{url}: {:?}", answer.body);
        }
    }
    for outside in [
        "ab/f", "A/f", "x", "g/f", "none", "a%20/f", "ab", "a%2e/f", "%C3%A1/f",
    ] {
        for (method, url, body) in [
            get(format!("nodes/{outside}")),
            get(format!("data/{outside}")),
            get(format!("reduce/{outside}?reduce=sum")),
            get(format!("explain/{outside}")),
            get(format!("zarr/{outside}/zarr.json")),
            get(format!("zarr/{outside}/c/0")),
            get(format!("zarr/{outside}?list=all")),
            ("PROPFIND", format!("{MAIN}/zarr/{outside}"), ""),
            post(outside),
        ] {
            let answer = guarded.ask(&reader, method, &url, body).await;
            assert_eq!(answer.status, 403, "{url}: {:?}", answer.body);
            guarded.assert_denied("not-permitted", &url);
        }
    }
    for escape in [
        "data/a/../x",
        "data/a/%2e%2e/x",
        "data/a%2f..%2fx",
        "data/a/./f",
        "zarr/a/../x/zarr.json",
    ] {
        assert_eq!(
            guarded
                .status(&reader, "GET", &format!("{MAIN}/{escape}"), "")
                .await,
            400,
            "{escape}"
        );
        guarded.assert_denied("ambiguous-path", escape);
    }
    // What would tell of other parts.
    for whole in [
        "log",
        "log/1",
        "diff/main~1/main",
        "tlog/checkpoint",
        "refs/main/receipt",
        "refs/main/proof/a/f",
    ] {
        assert_eq!(
            guarded
                .status(&reader, "GET", &format!("/v1/repos/demo/{whole}"), "")
                .await,
            403,
            "{whole}"
        );
    }
    for part in ["", "/branches", "/tags"] {
        assert_eq!(
            guarded
                .status(&reader, "GET", &format!("/v1/repos/demo{part}"), "")
                .await,
            200,
            "{part}"
        );
    }
}

#[tokio::test]
async fn groups_on_the_way_show_the_way_alone() {
    let guarded = guarded().await;
    let reader = guarded
        .token("reader", &["reader:demo:/a/in", "reader:demo:/packed"])
        .await;
    let seen = async |url: &str| {
        let answer = guarded.ask(&reader, "GET", url, "").await;
        assert_eq!(answer.status, 200, "{url}: {:?}", answer.body);
        let text = answer.text().to_owned();
        for hidden in [
            "secret",
            "ab/",
            "\"ab\"",
            "\"A",
            "/A",
            "\"names\"",
            "names/",
            "big",
            "sparse",
            "hostile",
        ] {
            assert!(!text.contains(hidden), "{hidden} in {url}: {text}");
        }
        text
    };
    let root: Value = serde_json::from_str(&seen(&format!("{MAIN}/zarr/zarr.json")).await).unwrap();
    assert_eq!(root["attributes"], json!({}));
    let members = root["consolidated_metadata"]["metadata"]
        .as_object()
        .unwrap();
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "a/in", "a/in/f", "packed"]);
    assert_eq!(members["a"]["attributes"], json!({}));
    assert_eq!(members["packed"]["attributes"]["scale_factor"], 0.5);
    let nodes: Value = serde_json::from_str(&seen(&format!("{MAIN}/nodes")).await).unwrap();
    assert_eq!(nodes["members"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&nodes["stored_bytes"], &nodes["members"][0]["stored_bytes"]),
        (&json!(0), &json!(0))
    );
    let list: Value =
        serde_json::from_str(&seen(&format!("{MAIN}/zarr?list=children")).await).unwrap();
    assert_eq!(list["prefixes"], json!(["a", "packed"]));
    let all: Value = serde_json::from_str(&seen(&format!("{MAIN}/zarr?list=all")).await).unwrap();
    let keys = all["keys"].as_array().unwrap();
    assert!(
        keys.iter()
            .all(|key| ["a/in/", "packed/", "zarr.json", "a/zarr.json"]
                .iter()
                .any(|lead| key.as_str().unwrap().starts_with(lead))),
        "{keys:?}"
    );
    seen(&format!("{MAIN}/nodes/a")).await;
    seen(&format!("{MAIN}/zarr")).await;
    let listed = guarded
        .ask(&reader, "PROPFIND", &format!("{MAIN}/zarr"), "")
        .await;
    assert_eq!(listed.status, 207);
    assert!(!listed.text().contains("/ab") && !listed.text().contains("names"));
    let shown = guarded.ask(&reader, "GET", MAIN, "").await.json();
    assert_eq!(
        (
            &shown["message"],
            &shown["properties"],
            &shown["stored_bytes"]
        ),
        (&json!(""), &json!({}), &json!(0))
    );
    // Who may see more has another answer, and another tag.
    let url = format!(
        "/v1/repos/demo/refs/{}/zarr/zarr.json",
        shown["commit"].as_str().unwrap()
    );
    let (part, whole) = (
        guarded.ask(&reader, "GET", &url, "").await,
        guarded.ask(&guarded.admin, "GET", &url, "").await,
    );
    assert!(whole.text().contains("secret") && !part.text().contains("secret"));
    assert_ne!(part.header("etag"), whole.header("etag"));
    let known = [("if-none-match", whole.header("etag"))];
    assert_eq!(
        guarded
            .ask_with(&reader, "GET", &url, &known, "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn other_arrays_are_named_by_parameters_only_where_they_may_be_seen() {
    let guarded = guarded().await;
    let reader = guarded.token("reader", &["reader:demo:/a"]).await;
    for (url, whole, part) in [
        ("data/a/f?sel.x=1", 200, 400),
        ("data/a/f?where=f%3E1", 200, 200),
        ("data/a/f?where=/x%3E1", 200, 400),
        ("reduce/a/f?reduce=mean&weights=/x", 200, 400),
        ("product/a/f?with=f", 200, 200),
        ("product/a/f?with=/x", 200, 400),
        ("reduce/a/f?reduce=mean&groupby=x", 200, 400),
    ] {
        let url = format!("{MAIN}/{url}");
        let answer = guarded.ask(&guarded.admin, "GET", &url, "").await;
        assert!(
            answer.status == whole || answer.status == 400,
            "{url}: {:?}",
            answer.body
        );
        let answer = guarded.ask(&reader, "GET", &url, "").await;
        assert_eq!(answer.status, part, "{url}: {:?}", answer.body);
    }
    let json = guarded
        .ask(&reader, "GET", &format!("{MAIN}/data/a/f?f=json"), "")
        .await
        .json();
    assert!(
        json.get("coordinates")
            .is_none_or(|found| found.as_object().is_none_or(serde_json::Map::is_empty)),
        "{json}"
    );
}

#[tokio::test]
async fn a_writer_of_a_part_writes_that_and_nothing_beside() {
    let guarded = guarded().await;
    let writer = guarded
        .token("writer", &["writer:demo:/a", "reader:demo"])
        .await;
    for (method, url, body) in [
        ("PUT", "nodes/a/new", "{}"),
        ("PUT", "data/a/f?slice=0:2", "[7,8]"),
        ("PUT", "zarr/a/other/zarr.json", GROUP),
        ("DELETE", "zarr/a/other/zarr.json", ""),
        ("DELETE", "nodes/a/new", ""),
    ] {
        let answer = guarded
            .ask(&writer, method, &format!("{MAIN}/{url}"), body)
            .await;
        assert_eq!(answer.status, 200, "{method} {url}: {:?}", answer.body);
    }
    let head = guarded.ask(&writer, "GET", MAIN, "").await.json()["commit"].clone();
    for (method, url, body) in [
        ("PUT", "nodes/ab/new", "{}"),
        ("PUT", "nodes/A/new", "{}"),
        ("PUT", "data/x", "[1,2,3,4]"),
        ("PUT", "zarr/zarr.json", GROUP),
        ("PUT", "zarr/x/c/0", "x"),
        ("PUT", "zarr//ab/zarr.json", GROUP),
        ("DELETE", "zarr/ab/zarr.json", ""),
        ("DELETE", "zarr", ""),
        ("DELETE", "zarr?recursive=true", ""),
        ("DELETE", "zarr/ab?recursive=true", ""),
        ("MKCOL", "zarr/ab", ""),
    ] {
        let answer = guarded
            .ask(&writer, method, &format!("{MAIN}/{url}"), body)
            .await;
        assert_eq!(answer.status, 403, "{method} {url}: {:?}", answer.body);
        guarded.assert_denied("not-permitted", url);
    }
    // The groups above are there already: clients that make them first go on.
    let new = [("if-none-match", "*")];
    let answer = guarded
        .ask_with(
            &writer,
            "PUT",
            &format!("{MAIN}/zarr/zarr.json"),
            &new,
            GROUP,
        )
        .await;
    assert_eq!(answer.status, 412);
    for (url, body) in [
        ("merge", r#"{"from": "main~1", "into": "main"}"#),
        ("branches/main/revert", r#"{"commit": "main"}"#),
        ("branches/main/cherry-pick", r#"{"commit": "main"}"#),
        ("branches/main/reset", r#"{"to": "main~1"}"#),
    ] {
        assert_eq!(
            guarded
                .status(&writer, "POST", &format!("/v1/repos/demo/{url}"), body)
                .await,
            403,
            "{url}"
        );
    }
    let import = r#"{"kind": "import", "repository": "demo", "group": "ab", "sources": ["x.nc"]}"#;
    assert_eq!(
        guarded.status(&writer, "POST", "/v1/jobs", import).await,
        403
    );
    assert_eq!(
        guarded.ask(&writer, "GET", MAIN, "").await.json()["commit"],
        head
    );
}

#[tokio::test]
async fn a_transaction_is_committed_by_who_opened_it_or_writes_everywhere() {
    let guarded = guarded().await;
    let writer = guarded.token("writer", &["writer:demo:/a"]).await;
    let open = async |token: &str| {
        let opened = guarded
            .ask(token, "POST", "/v1/repos/demo/transactions", "{}")
            .await;
        assert_eq!(opened.status, 201, "{:?}", opened.body);
        format!("/v1/transactions/{}", opened.json()["id"].as_str().unwrap())
    };
    let own = open(&writer).await;
    assert_eq!(
        guarded
            .status(&writer, "PUT", &format!("{own}/nodes/a/deep/er"), "{}")
            .await,
        204
    );
    for (method, url, body) in [
        ("PUT", "nodes/ab/new", "{}"),
        ("GET", "nodes/ab", ""),
        ("GET", "data/x", ""),
        ("GET", "zarr/ab/zarr.json", ""),
        ("PUT", "zarr/ab/f/c/0", "x"),
        ("DELETE", "zarr?recursive=true", ""),
        ("POST", "move", r#"{"from": "a/f", "to": "ab/g"}"#),
        ("POST", "move", r#"{"from": "ab/f", "to": "a/g"}"#),
    ] {
        let answer = guarded
            .ask(&writer, method, &format!("{own}/{url}"), body)
            .await;
        assert_eq!(
            answer.status, 403,
            "{method} {url} {body}: {:?}",
            answer.body
        );
    }
    assert_eq!(
        guarded
            .status(
                &writer,
                "POST",
                &format!("{own}/move"),
                r#"{"from": "a/f", "to": "a/g"}"#
            )
            .await,
        204
    );
    let root = guarded
        .ask(&writer, "GET", &format!("{own}/zarr/zarr.json"), "")
        .await;
    assert!(
        root.json()["attributes"] == json!({}) && root.text().contains("a/g"),
        "{}",
        root.text()
    );
    let done = guarded
        .ask(&writer, "POST", &format!("{own}/commit"), "{}")
        .await;
    assert_eq!(done.status, 200, "{:?}", done.body);
    // What others opened is not his to publish or to give up.
    let others = open(&guarded.admin).await;
    assert_eq!(
        guarded
            .status(&guarded.admin, "PUT", &format!("{others}/nodes/b"), "{}")
            .await,
        204
    );
    assert_eq!(
        guarded
            .status(&writer, "POST", &format!("{others}/commit"), "{}")
            .await,
        403
    );
    assert_eq!(guarded.status(&writer, "DELETE", &others, "").await, 403);
    assert_eq!(
        guarded
            .status(&guarded.admin, "POST", &format!("{others}/commit"), "{}")
            .await,
        200
    );
}

#[tokio::test]
async fn chunks_of_an_array_are_no_part_of_what_a_prefix_below_it_names() {
    let guarded = guarded().await;
    // There is an array at a/f: nothing is below it.
    let reader = guarded.token("reader", &["writer:demo:/a/f/c"]).await;
    assert_eq!(
        guarded
            .status(&reader, "GET", &format!("{MAIN}/zarr/a/f/c/0"), "")
            .await,
        404
    );
    let put = guarded
        .ask(&reader, "PUT", &format!("{MAIN}/zarr/a/f/c/0"), "x")
        .await;
    assert_eq!(put.status, 404, "{:?}", put.body);
    assert_ne!(
        guarded
            .status(&reader, "GET", &format!("{MAIN}/zarr/a/f/zarr.json"), "")
            .await,
        200
    );
    assert_ne!(
        guarded
            .status(&reader, "GET", &format!("{MAIN}/nodes/a/f"), "")
            .await,
        200
    );
}

#[tokio::test]
async fn jobs_are_seen_by_who_might_have_begun_them() {
    let guarded = guarded().await;
    let reader = guarded.token("reader", &["reader:demo"]).await;
    let part = guarded.token("part", &["writer:demo:/a"]).await;
    let verify = r#"{"kind": "verify", "repository": "demo"}"#;
    let begun = guarded.ask(&reader, "POST", "/v1/jobs", verify).await;
    assert_eq!(begun.status, 202, "{:?}", begun.body);
    let line = guarded.audit().pop().unwrap();
    assert_eq!(line["location"], begun.header("location"));
    let url = begun.header("location").to_owned();
    assert_eq!(guarded.status(&reader, "GET", &url, "").await, 200);
    let none = url.replace(|c: char| c.is_ascii_digit(), "0");
    for (method, url) in [
        ("GET", url.clone()),
        ("DELETE", url.clone()),
        ("GET", format!("{url}/events")),
        ("POST", format!("{url}/resume")),
    ] {
        let hidden = guarded.ask(&part, method, &url, "").await;
        assert_eq!(hidden.status, 404, "{url}");
        guarded.assert_denied("hidden", &url);
    }
    assert_eq!(guarded.status(&part, "GET", &none, "").await, 404);
    assert_eq!(
        guarded.ask(&part, "GET", "/v1/jobs", "").await.json()["jobs"],
        json!([])
    );
    assert_eq!(guarded.status(&part, "POST", "/v1/jobs", verify).await, 403);
    let missing = r#"{"kind": "import", "repository": "fresh", "sources": ["x.nc"]}"#;
    let all = guarded.token("all", &["writer"]).await;
    assert_eq!(guarded.status(&all, "POST", "/v1/jobs", missing).await, 403);
}
