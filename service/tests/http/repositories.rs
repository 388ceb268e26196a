//! Repositories, branches, tags, the log, commits and nodes.

use serde_json::json;

use crate::support::{MAIN, Service};

#[tokio::test]
async fn repositories_come_and_go() {
    let service = Service::new().await;
    let made = service.ask("PUT", "/v1/repos/other", &[], "").await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["name"], "other");
    service.refused("PUT", "/v1/repos/other", 409).await;
    assert_eq!(service.json("/v1/repos/other").await, made.json());
    let listed = service.json("/v1/repos").await;
    let names: Vec<_> = listed["repositories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["name"])
        .collect();
    assert_eq!(names, ["demo", "other"]);
    assert_eq!(
        service
            .ask("DELETE", "/v1/repos/other", &[], "")
            .await
            .status,
        204
    );
    service.refused("GET", "/v1/repos/other", 404).await;
    service.refused("DELETE", "/v1/repos/other", 404).await;
    // A new one of the same name starts empty.
    assert_eq!(
        service.ask("PUT", "/v1/repos/other", &[], "").await.status,
        201
    );
    let root = service.json("/v1/repos/other/refs/main/nodes").await;
    assert_eq!(root["members"], json!([]));
}

#[tokio::test]
async fn a_repository_another_process_replaced_is_noticed() {
    let service = Service::new().await;
    let other = service.restarted();
    let old = service.json(MAIN).await["commit"].clone();
    assert_eq!(
        other.ask("DELETE", "/v1/repos/demo", &[], "").await.status,
        204
    );
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    service.refused("GET", MAIN, 404).await;
    assert_eq!(
        other.ask("PUT", "/v1/repos/demo", &[], "").await.status,
        201
    );
    let new = service.json(MAIN).await["commit"].clone();
    assert_ne!(new, old);
    assert_eq!(new, other.json(MAIN).await["commit"]);
}

#[tokio::test]
async fn branches_and_tags_share_one_namespace() {
    let service = Service::new().await;
    let main = service.json(MAIN).await["commit"].clone();
    for (kind, name) in [("branches", "dev"), ("tags", "v1")] {
        let url = format!("/v1/repos/demo/{kind}/{name}");
        let made = service.ask("PUT", &url, &[], "{\"from\":\"main\"}").await;
        assert_eq!((made.status.as_u16(), &made.json()["commit"]), (201, &main));
        service.refused("PUT", &url, 409).await;
    }
    service
        .refused("PUT", "/v1/repos/demo/branches/v1", 409)
        .await;
    service.refused("PUT", "/v1/repos/demo/tags/dev", 409).await;
    service
        .refused("PUT", "/v1/repos/demo/tags/deadbeef", 400)
        .await;
    let branches = service.json("/v1/repos/demo/branches").await;
    assert_eq!(
        branches["refs"],
        json!([{"name": "dev", "commit": main}, {"name": "main", "commit": main}])
    );
    assert_eq!(
        service.json("/v1/repos/demo/tags").await["refs"],
        json!([{"name": "v1", "commit": main}])
    );
    assert_eq!(
        service.json("/v1/repos/demo/refs/v1").await["branch"],
        json!(null)
    );
    let old = service
        .ask(
            "PUT",
            "/v1/repos/demo/branches/old",
            &[],
            "{\"from\":\"main~1\"}",
        )
        .await;
    assert_ne!(old.json()["commit"], main);
    for url in ["/v1/repos/demo/branches/dev", "/v1/repos/demo/tags/v1"] {
        assert_eq!(service.ask("DELETE", url, &[], "").await.status, 204);
        service.refused("DELETE", url, 404).await;
    }
}

#[tokio::test]
async fn the_log_is_paged_oldest_first() {
    let service = Service::new().await;
    for number in 0..3 {
        let url = format!("/v1/repos/demo/tags/t{number}");
        assert_eq!(service.ask("PUT", &url, &[], "").await.status, 201);
    }
    let whole = service.json("/v1/repos/demo/log").await;
    let entries = whole["entries"].as_array().unwrap();
    let numbers: Vec<u64> = entries
        .iter()
        .map(|e| e["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(entries[1]["operations"][0]["branch"], "main");
    assert_eq!(entries[1]["operations"][0]["message"], "samples");
    assert_eq!(entries[4]["operations"][0]["tag"], "t2");
    assert!(whole.get("next").is_none());
    let page = service.json("/v1/repos/demo/log?after=0&limit=2").await;
    assert_eq!(page["entries"], json!(entries[1..3]));
    assert_eq!(page["next"], 2);
    let end = service.json("/v1/repos/demo/log?after=4").await;
    assert_eq!(end["entries"], json!([]));
    for after in ["99", "18446744073709551615"] {
        let past = service
            .json(&format!("/v1/repos/demo/log?after={after}"))
            .await;
        assert_eq!(past["entries"], json!([]));
    }
    service
        .refused("GET", "/v1/repos/demo/log?limit=many", 400)
        .await;
}

#[tokio::test]
async fn a_ref_names_its_commit_and_a_url_that_stays() {
    let service = Service::new().await;
    let headers = [("host", "data.example:8686")];
    let answer = service.ask("GET", MAIN, &headers, "").await.json();
    let commit = answer["commit"].as_str().unwrap();
    let expected = format!("http://data.example:8686/v1/repos/demo/refs/{commit}/zarr");
    assert_eq!(answer["zarr_url"], expected);
    assert_eq!(
        (&answer["branch"], &answer["author"]),
        (&json!("main"), &json!("ada"))
    );
    let parent = service.json("/v1/repos/demo/refs/main~1").await;
    assert_eq!(answer["parents"], json!([parent["commit"]]));
    let short = service
        .json(&format!("/v1/repos/demo/refs/{}", &commit[..8]))
        .await;
    assert_eq!(short["commit"], commit);
}

#[tokio::test]
async fn nodes_tell_what_is_stored() {
    let service = Service::new().await;
    for root in ["nodes", "nodes/"] {
        let root = service.json(&format!("{MAIN}/{root}")).await;
        assert_eq!(root["kind"], "group");
        assert_eq!(root["members"].as_array().unwrap().len(), 6);
    }
    let array = service.json(&format!("{MAIN}/nodes/g/f")).await;
    assert_eq!(array["shape"], json!([4, 6]));
    assert_eq!(array["dimensions"], json!(["x", "y"]));
    assert_eq!(array["stored_chunks"], 2);
    let statistics = &array["statistics"];
    assert_eq!(
        (&statistics["min"], &statistics["max"]),
        (&json!(0.0), &json!(23.0))
    );
    assert_eq!(
        (&statistics["valid"], &statistics["missing"]),
        (&json!(23), &json!(1))
    );
    let sparse = service.json(&format!("{MAIN}/nodes/sparse")).await;
    assert_eq!(sparse["stored_chunks"], 1);
}

#[tokio::test]
async fn health_and_pages_answer() {
    let service = Service::new().await;
    for (url, media_type) in [
        ("/livez", "text/plain"),
        ("/readyz", "text/plain"),
        ("/", "text/html"),
        ("/docs/", "text/html"),
        ("/openapi.json", "application/json"),
    ] {
        let answer = service.get(url).await;
        assert_eq!(answer.status, 200, "{url}");
        assert!(
            answer.header("content-type").starts_with(media_type),
            "{url}"
        );
    }
    // The assets of the documentation come from the binary, not from elsewhere.
    assert!(!service.get("/docs/").await.text().contains("https://"));
    assert!(service.get("/docs").await.status.is_redirection());
}
