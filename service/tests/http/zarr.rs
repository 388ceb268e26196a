//! The Zarr view: what clients that know nothing of Quarr see.

use axum::http::StatusCode;
use quarr_tests::watched::{Damage, Request};
use serde_json::json;

use crate::support::{MAIN, Service};

#[tokio::test]
async fn groups_carry_the_metadata_of_their_members() {
    let service = Service::new().await;
    let root = service.json(&format!("{MAIN}/zarr/zarr.json")).await;
    assert_eq!(root["node_type"], "group");
    let members = &root["consolidated_metadata"]["metadata"];
    let names: Vec<&String> = members.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "big",
            "g",
            "g/f",
            "hostile",
            "hostile/flat",
            "hostile/long",
            "names",
            "packed",
            "sparse"
        ]
    );
    assert_eq!(members["g/f"]["dimension_names"], json!(["x", "y"]));
    let array = service.json(&format!("{MAIN}/zarr/g/f/zarr.json")).await;
    assert_eq!(array, members["g/f"]);
    let group = service.json(&format!("{MAIN}/zarr/g/zarr.json")).await;
    assert!(group["consolidated_metadata"]["metadata"]["f"].is_object());
}

#[tokio::test]
async fn slashes_collapse_and_directories_list_their_members() {
    let service = Service::new().await;
    let document = service.get(&format!("{MAIN}/zarr/g/f/zarr.json")).await;
    for key in ["/zarr//g/f/zarr.json", "/zarr///g//f///zarr.json"] {
        assert_eq!(
            service.get(&format!("{MAIN}{key}")).await.body,
            document.body,
            "{key}"
        );
    }
    for (directory, links) in [
        ("zarr", vec!["zarr.json", "g/", "packed/"]),
        ("zarr/", vec!["zarr.json", "g/", "packed/"]),
        ("zarr/g", vec!["zarr.json", "f/"]),
        ("zarr/g/f/", vec!["zarr.json", "c/"]),
        ("zarr/g/f/c", vec!["0/", "1/"]),
        ("zarr/g/f/c/1", vec!["0"]),
    ] {
        let page = service.get(&format!("{MAIN}/{directory}")).await;
        assert_eq!(page.status, 200, "{directory}");
        assert!(
            page.header("content-type").starts_with("text/html"),
            "{directory}"
        );
        for link in links {
            assert!(
                page.text().contains(&format!("href=\"{link}\"")),
                "{directory} {link}"
            );
        }
        let base = format!(
            "<base href=\"{MAIN}/{}/\">",
            directory.trim_end_matches('/')
        );
        assert!(page.text().contains(&base), "{}", page.text());
    }
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_404() {
    let service = Service::new().await;
    for key in [
        "x/zarr.json",
        "g/x/zarr.json",
        "g/f/c/0/0/0",
        "g/f/c/2",
        "sparse/c/1",
        "g/f/c/2/0",
        "g/f/c/00/0",
        "g/f/c/-1/0",
        "g/f/c/99999999999999999999/0",
        "g/f/d/0/0",
        "g/f/zarr.json/x",
        "hostile/long/c",
    ] {
        service
            .refused("GET", &format!("{MAIN}/zarr/{key}"), 404)
            .await;
    }
    service.objects.take_requests();
    for name in [".zgroup", ".zarray", ".zattrs", ".zmetadata", "g/f/.zarray"] {
        service
            .refused("GET", &format!("{MAIN}/zarr/{name}"), 404)
            .await;
    }
    assert_eq!(service.objects.take_requests(), []);
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_never_404() {
    let service = Service::new().await;
    let keys = [
        "zarr.json",
        "g/f/zarr.json",
        "g/f/c/0/0",
        "packed/c/0",
        "big/c/3",
    ];
    service.objects.take_requests();
    for key in keys {
        assert_eq!(
            service.get(&format!("{MAIN}/zarr/{key}")).await.status,
            200,
            "{key}"
        );
    }
    let mut touched: Vec<String> = service
        .objects
        .take_requests()
        .into_iter()
        .filter_map(|request| match request {
            Request::Get(key, _) if !key.ends_with("_hint.json") => Some(key),
            _ => None,
        })
        .collect();
    touched.sort();
    touched.dedup();
    let mut failures = 0;
    for object in touched
        .iter()
        .filter(|key| !key.ends_with("/repo.json") && !key.contains("/log/"))
    {
        for damage in [Damage::Flip(0, 1), Damage::Remove] {
            service.objects.set_damage(Some((object, damage)));
            let fresh = service.restarted();
            for key in keys {
                let answer = fresh.get(&format!("{MAIN}/zarr/{key}")).await;
                assert_ne!(answer.status, 404, "{object} {key}");
                failures += usize::from(answer.status.is_server_error());
            }
        }
    }
    assert!(failures >= 6, "{touched:?}");
}

#[tokio::test]
async fn ranges_are_parts_of_the_whole() {
    let service = Service::new().await;
    for key in ["zarr.json", "g/f/c/0/0", "packed/c/0"] {
        let url = format!("{MAIN}/zarr/{key}");
        let whole = service.get(&url).await;
        assert_eq!(whole.header("accept-ranges"), "bytes");
        let length = whole.body.len();
        for (range, from, to) in [
            ("bytes=0-0", 0, 1),
            ("bytes=3-", 3, length),
            ("bytes=-4", length - 4, length),
            ("bytes=-999999", 0, length),
            ("bytes=2-999999", 2, length),
            ("bytes=5-18446744073709551615", 5, length),
        ] {
            let part = service.ask("GET", &url, &[("range", range)], "").await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{key} {range}");
            assert_eq!(part.body, whole.body.slice(from..to), "{key} {range}");
            let expected = format!("bytes {from}-{}/{length}", to - 1);
            assert_eq!(part.header("content-range"), expected);
        }
        for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
            let answer = service.ask("GET", &url, &[("range", &range)], "").await;
            assert_eq!(answer.status, 416, "{key} {range}");
            assert_eq!(answer.header("content-range"), format!("bytes */{length}"));
        }
        let etag = whole.header("etag");
        for (condition, status) in [(etag, 206), ("\"other\"", 200)] {
            let headers = [("range", "bytes=0-1"), ("if-range", condition)];
            assert_eq!(service.ask("GET", &url, &headers, "").await.status, status);
        }
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let service = Service::new().await;
    for key in [
        "zarr.json",
        "g/zarr.json",
        "g/f/zarr.json",
        "g/f/c/0/0",
        "packed/c/0",
    ] {
        let url = format!("{MAIN}/zarr/{key}");
        let get = service.get(&url).await;
        let head = service.ask("HEAD", &url, &[], "").await;
        assert_eq!(head.status, 200, "{key}");
        assert!(head.body.is_empty());
        assert_eq!(
            head.header("content-length"),
            get.body.len().to_string(),
            "{key}"
        );
        assert_eq!(head.header("etag"), get.header("etag"));
    }
    assert_eq!(
        service
            .ask("HEAD", &format!("{MAIN}/zarr/nope"), &[], "")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn browsers_may_read_from_anywhere() {
    let service = Service::new().await;
    let headers = [("origin", "https://example.org")];
    let answer = service
        .ask("GET", &format!("{MAIN}/zarr/g/f/c/0/0"), &headers, "")
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("content-range")
    );
    // Changing anything from a page of another origin stays impossible.
    let preflight = [
        ("origin", "https://example.org"),
        ("access-control-request-method", "DELETE"),
    ];
    let answer = service
        .ask("OPTIONS", "/v1/repos/demo", &preflight, "")
        .await;
    assert!(
        !answer
            .header("access-control-allow-methods")
            .contains("DELETE")
    );
}

#[tokio::test]
async fn a_chunk_of_no_store_is_not_taken_for_fill_value() {
    let service = Service::new().await;
    let commit = "0".repeat(64);
    let unknown = [
        "/v1/repos/demo/refs/none/zarr".to_owned(),
        "/v1/repos/none/refs/main/zarr".to_owned(),
        format!("/v1/repos/demo/refs/{commit}/zarr"),
        format!("/v1/transactions/demo:{}/zarr", "0".repeat(32)),
    ];
    for store in unknown {
        service
            .refused("GET", &format!("{store}/g/f/c/0/0"), 410)
            .await;
        service
            .refused("GET", &format!("{store}/g/f/zarr.json"), 404)
            .await;
        service.refused("GET", &store, 404).await;
    }
    service
        .refused("GET", &format!("{MAIN}/zarr/g/f/c/9/9"), 404)
        .await;
}
