//! What clients of file servers ask for: PROPFIND and MKCOL.

use crate::support::{Answer, MAIN, Service};

/// The resources of an answer: path below `base`, and size unless it is a directory.
fn resources(answer: &Answer, base: &str) -> Vec<(String, Option<u64>)> {
    assert_eq!(answer.status, 207, "{:?}", answer.body);
    assert!(answer.header("content-type").starts_with("application/xml"));
    let text = answer.text();
    let between = |text: &str, name: &str| {
        let (open, close) = (format!("<D:{name}>"), format!("</D:{name}>"));
        let start = text.find(&open)? + open.len();
        Some(text[start..start + text[start..].find(&close)?].to_owned())
    };
    let each = text.split("<D:response>").skip(1).map(|response| {
        let href = between(response, "href").unwrap();
        let size = between(response, "getcontentlength").map(|size| size.parse().unwrap());
        assert_eq!(
            response.contains("<D:collection/>"),
            size.is_none(),
            "{response}"
        );
        assert!(response.contains("<D:status>HTTP/1.1 200 OK</D:status>"));
        assert!(
            between(response, "getlastmodified")
                .unwrap()
                .ends_with(" GMT")
        );
        let below = href.strip_prefix(base).unwrap_or_else(|| panic!("{href}"));
        assert_eq!(
            below.is_empty() || below.ends_with('/'),
            size.is_none(),
            "{below}"
        );
        (below.trim_start_matches('/').to_owned(), size)
    });
    each.collect()
}

#[tokio::test]
async fn propfind_tells_what_get_gives() {
    let service = Service::new().await;
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let staged = format!(
        "/v1/transactions/{}/zarr",
        opened.json()["id"].as_str().unwrap()
    );
    for zarr in [format!("{MAIN}/zarr"), staged] {
        let find = async |key: &str, depth: &str| {
            let url = format!("{zarr}{key}");
            let answer = service.ask("PROPFIND", &url, &[("depth", depth)], "").await;
            resources(&answer, &zarr)
        };
        let names = async |key: &str, depth: &str| -> Vec<String> {
            find(key, depth)
                .await
                .into_iter()
                .map(|(name, _)| name)
                .collect()
        };
        assert_eq!(names("", "0").await, [""]);
        let root = [
            "",
            "big/",
            "g/",
            "hostile/",
            "names/",
            "packed/",
            "sparse/",
            "zarr.json",
        ];
        assert_eq!(names("", "1").await, root);
        assert_eq!(names("/", "1").await, root);
        let below = [
            "g/f/",
            "g/f/c/",
            "g/f/c/0/",
            "g/f/c/0/0",
            "g/f/c/1/",
            "g/f/c/1/0",
            "g/f/zarr.json",
        ];
        assert_eq!(names("/g/f", "infinity").await, below);
        assert_eq!(names("/g/f/c/0", "1").await, ["g/f/c/0/", "g/f/c/0/0"]);
        assert_eq!(names("/g/f/c/0/0", "1").await, ["g/f/c/0/0"]);
        for (key, size) in find("", "infinity").await {
            let answer = service.get(&format!("{zarr}/{key}")).await;
            assert_eq!(answer.status, 200, "{key}");
            if let Some(size) = size {
                assert_eq!(answer.body.len() as u64, size, "{key}");
            }
        }
        for key in ["/nothing", "/g/f/c/7", "/sparse/c/1", "/g/x/zarr.json"] {
            service
                .refused("PROPFIND", &format!("{zarr}{key}"), 404)
                .await;
        }
        let answer = service.ask("PROPFIND", &zarr, &[("depth", "2")], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["parameter"].as_str()),
            (400, Some("Depth"))
        );
    }
}

#[tokio::test]
async fn directories_need_not_be_made_and_other_methods_are_refused() {
    let service = Service::new().await;
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let staged = format!(
        "/v1/transactions/{}/zarr",
        opened.json()["id"].as_str().unwrap()
    );
    for zarr in [format!("{MAIN}/zarr"), staged] {
        let before = service.get(&format!("{zarr}?list=all")).await.body;
        for key in ["", "/", "/new", "/new/below", "/g", "/g/f/c/0"] {
            let answer = service.ask("MKCOL", &format!("{zarr}{key}"), &[], "").await;
            assert_eq!(answer.status, 201, "{key}: {:?}", answer.body);
        }
        service
            .refused("MKCOL", &format!("{zarr}/g/zarr.json"), 422)
            .await;
        assert_eq!(service.get(&format!("{zarr}?list=all")).await.body, before);
        for method in ["POST", "COPY", "LOCK"] {
            for key in ["", "/", "/g/zarr.json"] {
                let answer = service.ask(method, &format!("{zarr}{key}"), &[], "").await;
                assert_eq!(answer.status, 405, "{method} {key}");
                assert!(
                    answer.header("allow").contains("PROPFIND"),
                    "{}",
                    answer.header("allow")
                );
            }
        }
    }
}

#[tokio::test]
async fn a_transaction_answers_conditions_and_ranges_as_a_commit_does() {
    let service = Service::new().await;
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let staged = format!(
        "/v1/transactions/{}/zarr",
        opened.json()["id"].as_str().unwrap()
    );
    for key in [
        "zarr.json",
        "g/f/zarr.json",
        "g/f/c/0/0",
        "packed/c/0",
        "big/c/3",
    ] {
        let url = format!("{staged}/{key}");
        let whole = service.get(&url).await;
        assert_eq!(
            whole.body,
            service.get(&format!("{MAIN}/zarr/{key}")).await.body,
            "{key}"
        );
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert_eq!(whole.header("cache-control"), "no-store");
        let (length, tag) = (whole.body.len(), whole.header("etag"));
        assert!(tag.len() > 10, "{key}");
        let head = service
            .ask("HEAD", &url, &[("range", "bytes=0-1")], "")
            .await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        for name in ["content-length", "etag", "accept-ranges", "content-type"] {
            assert_eq!(
                head.header(name),
                if name == "content-length" {
                    length.to_string()
                } else {
                    whole.header(name).to_owned()
                },
                "{key} {name}"
            );
        }
        let asked = [("if-none-match", tag)];
        assert_eq!(
            service.ask("GET", &url, &asked, "").await.status,
            304,
            "{key}"
        );
        for (range, from, to) in [
            ("bytes=1-2", 1, 3),
            ("bytes=-999999", 0, length),
            ("bytes=2-", 2, length),
        ] {
            for (condition, status) in [(tag, 206), ("\"other\"", 200)] {
                let headers = [("range", range), ("if-range", condition)];
                let part = service.ask("GET", &url, &headers, "").await;
                let expected = if status == 206 {
                    whole.body.slice(from..to)
                } else {
                    whole.body.clone()
                };
                assert_eq!(
                    (part.status.as_u16(), &part.body),
                    (status, &expected),
                    "{key} {range}"
                );
            }
        }
        let several = service
            .ask("GET", &url, &[("range", "bytes=0-1,3-4")], "")
            .await;
        assert_eq!(
            (several.status.as_u16(), several.body),
            (200, whole.body.clone())
        );
        for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
            let answer = service.ask("GET", &url, &[("range", &range)], "").await;
            assert_eq!(answer.status, 416, "{key} {range}");
            assert_eq!(answer.header("content-range"), format!("bytes */{length}"));
        }
    }
    // Other content, other tag.
    let url = format!("{staged}/sparse/zarr.json");
    let before = service.get(&url).await;
    let data = staged.replace("/zarr", "/nodes/sparse");
    service
        .ask("PUT", &data, &[], r#"{"attributes": {"a": 1}}"#)
        .await;
    assert_ne!(
        service.get(&url).await.header("etag"),
        before.header("etag")
    );
}
