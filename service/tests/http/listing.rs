//! Lists of keys below a prefix, and their deletion.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{MAIN, Service, requests};

/// Every page of a list, together: keys and prefixes.
async fn pages(service: &Service, url: &str, list: &str, limit: usize) -> (Vec<Value>, Vec<Value>) {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    let mut after = String::new();
    loop {
        let query = format!("?list={list}&limit={limit}{after}");
        let page = service.json(&format!("{url}{query}")).await;
        let both =
            ["keys", "prefixes"].map(|name| page[name].as_array().cloned().unwrap_or_default());
        let count = both[0].len() + both[1].len();
        assert!(
            count <= limit && (count == limit || page["next"].is_null()),
            "{page}"
        );
        let [more_keys, more_prefixes] = both;
        keys.extend(more_keys);
        prefixes.extend(more_prefixes);
        let Some(next) = page["next"].as_str() else {
            return (keys, prefixes);
        };
        let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        after = format!("&after={next}");
    }
}

async fn all(service: &Service, url: &str, limit: usize) -> Vec<String> {
    let (keys, _) = pages(service, url, "all", limit).await;
    keys.iter()
        .map(|key| key.as_str().unwrap().to_owned())
        .collect()
}

async fn begin(service: &Service, isolation: &str) -> String {
    let body = json!({ "isolation": isolation }).to_string();
    let url = "/v1/repos/demo/transactions";
    let answer = service.ask("POST", url, &[], &body).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    format!("/v1/transactions/{}", answer.json()["id"].as_str().unwrap())
}

async fn done(service: &Service, method: &str, url: &str, body: &str) {
    let answer = service.ask(method, url, &[], body).await;
    assert!(
        answer.status.is_success(),
        "{method} {url}: {:?}",
        answer.body
    );
}

fn array(shape: &[u64], chunks: &[u64], encoding: (&str, &str)) -> String {
    json!({ "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "uint8",
        "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": chunks } },
        "chunk_key_encoding": { "name": encoding.0, "configuration": { "separator": encoding.1 } },
        "fill_value": 0, "codecs": [{ "name": "bytes" }], "attributes": {} })
    .to_string()
}

#[tokio::test]
async fn commits_list_what_they_have() {
    let service = Service::new().await;
    let zarr = format!("{MAIN}/zarr");
    let everything = all(&service, &zarr, 1000).await;
    let expected = [
        "big/c/0",
        "big/c/1",
        "big/c/2",
        "big/c/3",
        "big/c/4",
        "big/zarr.json",
        "g/f/c/0/0",
        "g/f/c/1/0",
        "g/f/zarr.json",
        "g/zarr.json",
        "hostile/flat/zarr.json",
        "hostile/long/zarr.json",
        "hostile/zarr.json",
        "names/c/0",
        "names/c/1",
        "names/zarr.json",
        "packed/c/0",
        "packed/zarr.json",
        "sparse/c/0",
        "sparse/zarr.json",
        "zarr.json",
    ];
    assert_eq!(everything, expected);
    for limit in [1, 2, 3, 7] {
        assert_eq!(all(&service, &zarr, limit).await, expected, "{limit}");
    }
    // What is listed is there, and what is not is not.
    for key in &everything {
        assert_eq!(
            service.get(&format!("{zarr}/{key}")).await.status,
            200,
            "{key}"
        );
    }
    for (prefix, keys, prefixes) in [
        (
            "",
            json!(["zarr.json"]),
            json!(["big", "g", "hostile", "names", "packed", "sparse"]),
        ),
        ("/g", json!(["zarr.json"]), json!(["f"])),
        ("/g/f", json!(["zarr.json"]), json!(["c"])),
        ("/g/f/c", json!([]), json!(["0", "1"])),
        ("//g//f/c/1/", json!(["0"]), json!([])),
        ("/g/f/c/2", json!([]), json!([])),
        ("/g/f/c/1/0", json!([]), json!([])),
        ("/g/f/d", json!([]), json!([])),
        ("/hostile/long", json!(["zarr.json"]), json!([])),
        ("/hostile/long/c", json!([]), json!([])),
        ("/nothing/here", json!([]), json!([])),
        ("/zarr.json", json!([]), json!([])),
    ] {
        for limit in [1, 1000] {
            let found = pages(&service, &format!("{zarr}{prefix}"), "children", limit).await;
            assert_eq!(json!(found), json!([keys, prefixes]), "{prefix}");
        }
    }
}

#[tokio::test]
async fn pages_are_in_the_order_of_the_text_for_every_spelling() {
    let service = Service::new().await;
    let zarr = format!("{}/zarr", begin(&service, "snapshot").await);
    let (rows, columns) = (12, 103);
    // Every chunk but those of one column; more than are looked at together.
    let is_stored = |row: u64, column: u64| column != 7 && (row != 3 || column > 99);
    for (name, encoding) in [
        ("slash", ("default", "/")),
        ("point", ("default", ".")),
        ("old", ("v2", "/")),
        ("old.point", ("v2", ".")),
    ] {
        let document = array(&[rows, columns], &[1, 1], encoding);
        done(
            &service,
            "PUT",
            &format!("{zarr}/{name}/zarr.json"),
            &document,
        )
        .await;
        let values: Vec<Vec<u8>> = (0..rows)
            .map(|row| {
                (0..columns)
                    .map(|column| u8::from(is_stored(row, column)))
                    .collect()
            })
            .collect();
        let data = format!("{}/data/{name}", zarr.trim_end_matches("/zarr"));
        done(&service, "PUT", &data, &json!(values).to_string()).await;
        let lead = if encoding.0 == "default" {
            format!("c{}", encoding.1)
        } else {
            String::new()
        };
        let mut expected: BTreeSet<String> = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .filter(|&(row, column)| is_stored(row, column))
            .map(|(row, column)| format!("{lead}{row}{}{column}", encoding.1))
            .collect();
        expected.insert("zarr.json".to_owned());
        let expected: Vec<String> = expected.into_iter().collect();
        for limit in [97, 10_000] {
            assert_eq!(
                all(&service, &format!("{zarr}/{name}"), limit).await,
                expected,
                "{name}"
            );
        }
        let children = |directory: &str| format!("{zarr}/{name}{directory}");
        if encoding.1 == "/" {
            let directory = format!("/{lead}");
            let (_, prefixes) = pages(&service, &children(&directory), "children", 5).await;
            let expected = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"];
            assert_eq!(prefixes, expected, "{name}");
            let url = children(&format!("{directory}/3"));
            let (keys, _) = pages(&service, &url, "children", 2).await;
            assert_eq!(keys, ["100", "101", "102"], "{name}");
        } else {
            let (keys, prefixes) = pages(&service, &children(""), "children", 1000).await;
            assert_eq!((keys.len(), prefixes.len()), (expected.len(), 0), "{name}");
        }
    }
    // A point sorts before a slash.
    let names: Vec<String> = all(&service, &zarr, 10_000).await;
    assert!(names.is_sorted() && names.len() > 4000);
}

#[tokio::test]
async fn parameters_of_lists_are_checked() {
    let service = Service::new().await;
    let transaction = begin(&service, "snapshot").await;
    for zarr in [format!("{MAIN}/zarr"), format!("{transaction}/zarr")] {
        for (query, parameter) in [
            ("list=some", "list"),
            ("list=", "list"),
            ("list=all&limit=0", "limit"),
            ("list=all&limit=10001", "limit"),
            ("list=children&limit=-1", "limit"),
            ("list=all&limit=ten", "limit"),
            ("list=all&list=all", "list"),
            ("after=a", "after"),
            ("limit=3", "limit"),
            ("lists=all", "lists"),
        ] {
            for key in ["", "/", "/g", "/zarr.json"] {
                let problem = service
                    .refused("GET", &format!("{zarr}{key}?{query}"), 400)
                    .await;
                assert_eq!(problem["parameter"], parameter, "{query}");
            }
        }
    }
    for query in ["recursive=yes", "recursive", "all=true"] {
        service
            .refused("DELETE", &format!("{transaction}/zarr/g?{query}"), 400)
            .await;
    }
}

#[tokio::test]
async fn a_list_of_a_commit_can_be_cached() {
    let service = Service::new().await;
    let head = service.json(MAIN).await["commit"]
        .as_str()
        .unwrap()
        .to_owned();
    let url = format!("/v1/repos/demo/refs/{head}/zarr/g?list=all");
    let first = service.get(&url).await;
    assert!(first.header("cache-control").contains("immutable"));
    let tag = [("if-none-match", first.header("etag"))];
    assert_eq!(service.ask("GET", &url, &tag, "").await.status, 304);
    for other in ["list=children", "list=all&limit=1", "list=all&after=f"] {
        let url = format!("/v1/repos/demo/refs/{head}/zarr/g?{other}");
        assert_eq!(
            service.ask("GET", &url, &tag, "").await.status,
            200,
            "{other}"
        );
    }
}

#[tokio::test]
async fn a_prefix_goes_with_everything_below_it() {
    let service = Service::new().await;
    let transaction = begin(&service, "snapshot").await;
    let zarr = format!("{transaction}/zarr");
    let keys = async || all(&service, &zarr, 1000).await;
    let before = keys().await;
    let without = |all: &[String], prefix: &str| -> Vec<String> {
        all.iter()
            .filter(|key| !key.starts_with(prefix))
            .cloned()
            .collect()
    };
    let delete = async |what: &str| done(&service, "DELETE", &format!("{zarr}/{what}"), "").await;
    for nothing in [
        "nothing",
        "g/f/c/9",
        "g/f/x",
        "sparse/c/1",
        "nothing/zarr.json",
    ] {
        delete(&format!("{nothing}?recursive=true")).await;
        delete(nothing).await;
        assert_eq!(keys().await, before, "{nothing}");
    }
    // Without the parameter a directory stays.
    delete("g").await;
    delete("g?recursive=false").await;
    assert_eq!(keys().await, before);
    let mut left = before;
    for (what, prefix) in [
        ("g/f/c/1?recursive=true", "g/f/c/1/"),
        ("big/c/3", "big/c/3"),
        ("big/c?recursive=true", "big/c/"),
        ("names?recursive=true", "names/"),
        ("packed/zarr.json?recursive=true", "packed/"),
        ("sparse/zarr.json", "sparse/"),
        ("g?recursive=true", "g/"),
    ] {
        delete(what).await;
        left = without(&left, prefix);
        assert_eq!(keys().await, left, "{what}");
    }
    assert_eq!(
        left,
        [
            "big/zarr.json",
            "hostile/flat/zarr.json",
            "hostile/long/zarr.json",
            "hostile/zarr.json",
            "zarr.json"
        ]
    );
    let attributes = json!({ "zarr_format": 3, "node_type": "group", "attributes": { "a": 1 } });
    for root in ["?recursive=true", "/?recursive=true", "/zarr.json"] {
        let document = array(&[2], &[1], ("default", "/"));
        done(&service, "PUT", &format!("{zarr}/new/zarr.json"), &document).await;
        done(
            &service,
            "PUT",
            &format!("{zarr}/zarr.json"),
            &attributes.to_string(),
        )
        .await;
        done(&service, "DELETE", &format!("{zarr}{root}"), "").await;
        assert_eq!(keys().await, ["zarr.json"], "{root}");
        let root = service.json(&format!("{zarr}/zarr.json")).await;
        assert_eq!(root["attributes"], json!({}));
    }
    done(&service, "POST", &format!("{transaction}/commit"), "{}").await;
    assert_eq!(
        all(&service, &format!("{MAIN}/zarr"), 1000).await,
        ["zarr.json"]
    );
}

#[tokio::test]
async fn deleting_more_chunks_than_are_staged_together_deletes_all() {
    let service = Service::new().await;
    let transaction = begin(&service, "snapshot").await;
    let zarr = format!("{transaction}/zarr");
    let count = 10_500;
    done(
        &service,
        "PUT",
        &format!("{zarr}/a/zarr.json"),
        &array(&[2, count], &[1, 1], ("v2", "/")),
    )
    .await;
    for start in (0..count).step_by(3500) {
        let url = format!("{transaction}/data/a?slice=:,{start}:{}", start + 3500);
        let headers = [("content-type", "application/octet-stream")];
        for row in 0..2 {
            let url = url.replace(":,", &format!("{row},"));
            let body = "x".repeat(3500);
            let answer = service.ask("PUT", &url, &headers, &body).await;
            assert_eq!(answer.status, 204, "{:?}", answer.body);
        }
    }
    assert_eq!(
        all(&service, &format!("{zarr}/a"), 10_000).await.len() as u64,
        2 * count + 1
    );
    done(
        &service,
        "DELETE",
        &format!("{zarr}/a/1?recursive=true"),
        "",
    )
    .await;
    let left = all(&service, &format!("{zarr}/a"), 10_000).await;
    assert_eq!(left.len() as u64, count + 1);
    assert!(left.iter().all(|key| !key.starts_with("1/")));
    done(&service, "POST", &format!("{transaction}/commit"), "{}").await;
    let fresh = service.restarted();
    let zarr = format!("{MAIN}/zarr");
    // A page of names needs a few pages of the manifest, of which there are 21.
    for query in ["all&limit=3", "all&limit=3&after=5000", "children&limit=3"] {
        let fresh = service.restarted();
        fresh.json(&format!("{zarr}/a?list=children")).await;
        requests(&fresh.objects);
        fresh.json(&format!("{zarr}/a/0?list={query}")).await;
        let read = requests(&fresh.objects).len();
        assert!(read <= 6, "{query}: {read} requests");
    }
    assert_eq!(all(&fresh, &format!("{zarr}/a"), 10_000).await, left);
}

#[tokio::test]
async fn a_serializable_transaction_fails_if_what_it_listed_changed() {
    for (list, change, conflicts) in [
        ("?list=all", ("PUT", "nodes/other", "{}"), true),
        ("?list=children", ("PUT", "nodes/other", "{}"), true),
        ("/g?list=children", ("PUT", "nodes/other", "{}"), false),
        (
            "/sparse?list=all",
            ("PUT", "data/sparse?slice=5", "1"),
            true,
        ),
        (
            "/sparse/c?list=children",
            ("PUT", "data/sparse?slice=5", "1"),
            true,
        ),
        (
            "/g/f/c/0?list=all",
            ("PUT", "data/g/f?slice=3,5", "1"),
            false,
        ),
        (
            "/g/f/c/1?list=all",
            ("PUT", "data/g/f?slice=3,5", "1"),
            true,
        ),
        (
            "/sparse?list=all",
            ("PUT", "data/g/f?slice=3,5", "1"),
            false,
        ),
        ("/nothing?list=all", ("PUT", "nodes/nothing", "{}"), true),
    ] {
        let service = Service::new().await;
        let transaction = begin(&service, "serializable").await;
        service.json(&format!("{transaction}/zarr{list}")).await;
        done(&service, "PUT", &format!("{transaction}/nodes/mine"), "{}").await;
        let (method, path, body) = change;
        done(&service, method, &format!("{MAIN}/{path}"), body).await;
        let answer = service
            .ask("POST", &format!("{transaction}/commit"), &[], "{}")
            .await;
        let expected = if conflicts { 409 } else { 200 };
        assert_eq!(answer.status, expected, "{list} {path}: {:?}", answer.body);
    }
}
