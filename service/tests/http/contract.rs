//! The OpenAPI document: committed, generated, and true.

use service::http::openapi_document;
use service::keys::KeyDirectory;
use service::signing::Signing;

use crate::support::Service;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/quarr.json");

/// `UPDATE=1 cargo test -p service --test http contract` writes the document anew.
#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = serde_json::to_string_pretty(&openapi_document()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap();
    assert!(
        committed == generated,
        "the API changed: UPDATE=1 cargo test -p service --test http contract"
    );
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(folder.path().to_owned());
    let service = Service::signed(Signing::new(keys.clone(), Vec::new(), 0)).await;
    let repository = service.json("/v1/repos/demo").await;
    let id = repository["id"].as_str().unwrap().parse().unwrap();
    keys.create(id, "log.example/demo").unwrap();
    // It publishes the log.
    service.get("/v1/repos/demo/refs/main/receipt").await;
    let new = r#"{"name": "ada", "grants": [{"role": "reader"}]}"#;
    let key = service.ask("POST", "/v1/auth/keys", &[], new).await.json();
    let key = key["key"]["id"].as_str().unwrap_or_else(|| panic!("{key}"));
    let verify = r#"{"kind": "verify", "repository": "demo"}"#;
    let job = service.ask("POST", "/v1/jobs", &[], verify).await;
    let job = job.json()["id"].as_str().unwrap().to_owned();
    let opened = service
        .ask("POST", "/v1/repos/demo/transactions", &[], "{}")
        .await;
    let transaction = opened.json()["id"].as_str().unwrap().to_owned();
    let document = openapi_document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 12);
    for (path, operations) in paths {
        let url = path
            .replace("/keys/{key}", &format!("/keys/{key}"))
            .replace("{repository}", "demo")
            .replace("{reference}", "main")
            .replace("{name}", "some")
            .replace("{key}", "zarr.json")
            .replace("{path}", "g/f")
            .replace("{from}", "main~1")
            .replace("{to}", "main")
            .replace("{sequence}", "1")
            .replace("{tile}", "checkpoint")
            .replace("/jobs/{id}", &format!("/jobs/{job}"))
            .replace("{id}", &transaction);
        for method in operations.as_object().unwrap().keys() {
            // Other methods would change what the next request finds.
            if method != "get" {
                continue;
            }
            let query = match () {
                () if url.contains("/reduce/") => "?reduce=sum",
                () if url.contains("/product/") => "?with=f&slice=:,:4",
                () => "",
            };
            let answer = service.get(&format!("{url}{query}")).await;
            assert_eq!(answer.status, 200, "{url}: {:?}", answer.body);
        }
    }
}

#[tokio::test]
async fn every_route_is_documented() {
    let document = openapi_document();
    for (path, methods) in [
        ("/v1/repos", vec!["get"]),
        ("/v1/repos/{repository}", vec!["get", "put", "delete"]),
        ("/v1/repos/{repository}/branches", vec!["get"]),
        (
            "/v1/repos/{repository}/branches/{name}",
            vec!["put", "delete"],
        ),
        ("/v1/repos/{repository}/tags", vec!["get"]),
        ("/v1/repos/{repository}/tags/{name}", vec!["put", "delete"]),
        ("/v1/repos/{repository}/log", vec!["get"]),
        ("/v1/repos/{repository}/refs/{reference}", vec!["get"]),
        ("/v1/repos/{repository}/refs/{reference}/nodes", vec!["get"]),
        (
            "/v1/repos/{repository}/refs/{reference}/nodes/{path}",
            vec!["get", "put", "delete"],
        ),
        (
            "/v1/repos/{repository}/refs/{reference}/data/{path}",
            vec!["get", "put"],
        ),
        (
            "/v1/repos/{repository}/refs/{reference}/reduce/{path}",
            vec!["get"],
        ),
        ("/v1/repos/{repository}/refs/{reference}/zarr", vec!["get"]),
        (
            "/v1/repos/{repository}/refs/{reference}/zarr/{key}",
            vec!["get", "head"],
        ),
        ("/v1/repos/{repository}/merge", vec!["post"]),
        ("/v1/repos/{repository}/diff/{from}/{to}", vec!["get"]),
        ("/v1/repos/{repository}/branches/{name}/reset", vec!["post"]),
        (
            "/v1/repos/{repository}/branches/{name}/revert",
            vec!["post"],
        ),
        (
            "/v1/repos/{repository}/branches/{name}/cherry-pick",
            vec!["post"],
        ),
        ("/v1/repos/{repository}/transactions", vec!["post"]),
        ("/v1/transactions/{id}", vec!["get", "delete"]),
        ("/v1/transactions/{id}/commit", vec!["post"]),
        ("/v1/transactions/{id}/move", vec!["post"]),
        ("/v1/transactions/{id}/nodes", vec!["get", "put"]),
        (
            "/v1/transactions/{id}/nodes/{path}",
            vec!["get", "put", "delete"],
        ),
        ("/v1/transactions/{id}/data/{path}", vec!["get", "put"]),
        ("/v1/transactions/{id}/zarr", vec!["get"]),
        (
            "/v1/transactions/{id}/zarr/{key}",
            vec!["get", "head", "put", "delete"],
        ),
        ("/v1/limits", vec!["get"]),
        ("/livez", vec!["get"]),
        ("/readyz", vec!["get"]),
    ] {
        for method in methods {
            let operation = &document["paths"][path][method];
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
}
