//! Who may do what: credentials, roles, denials, and what the audit log says of them.

use serde_json::{Value, json};
use service::auth::routes::{self, Need};
use service::auth::{Action, Settings};
use service::http::openapi_document;
use tempfile::TempDir;

use crate::support::{Answer, MAIN, Service};

/// A service that asks who its clients are, over the samples, with an audit log and an admin.
pub(crate) struct Guarded {
    pub(crate) service: Service,
    pub(crate) admin: String,
    folder: TempDir,
}

impl Guarded {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// With these settings beside those that ask everyone and keep an audit log.
    pub(crate) async fn with(settings: Settings) -> Self {
        let open = Service::new().await;
        let body = json!({ "name": "root", "grants": [{ "role": "admin" }] });
        let made = open
            .ask("POST", "/v1/auth/keys", &[], &body.to_string())
            .await;
        assert_eq!(made.status, 201, "{:?}", made.body);
        let folder = tempfile::tempdir().unwrap();
        let service = open.guarded(Settings {
            is_required: true,
            audit_log: Some(folder.path().join("audit.log")),
            ..settings
        });
        Self {
            service,
            admin: made.json()["token"].as_str().unwrap().to_owned(),
            folder,
        }
    }

    /// The answer to a request of whoever has the token; of nobody if it is empty.
    pub(crate) async fn ask(&self, token: &str, method: &str, url: &str, body: &str) -> Answer {
        self.ask_with(token, method, url, &[], body).await
    }

    pub(crate) async fn ask_with(
        &self,
        token: &str,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = headers.to_vec();
        if !token.is_empty() {
            headers.push(("authorization", &bearer));
        }
        self.service.ask(method, url, &headers, body).await
    }

    pub(crate) async fn status(&self, token: &str, method: &str, url: &str, body: &str) -> u16 {
        self.ask(token, method, url, body).await.status.as_u16()
    }

    /// A token with these grants, written `role[:repository[:prefix]]`.
    pub(crate) async fn token(&self, name: &str, grants: &[&str]) -> String {
        let grants: Vec<Value> = grants
            .iter()
            .map(|text| {
                let grant: service::auth::Grant = text.parse().unwrap();
                serde_json::to_value(grant).unwrap()
            })
            .collect();
        let body = json!({ "name": name, "grants": grants }).to_string();
        let made = self.ask(&self.admin, "POST", "/v1/auth/keys", &body).await;
        assert_eq!(made.status, 201, "{:?}", made.body);
        made.json()["token"].as_str().unwrap().to_owned()
    }

    /// The lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Asserts that the last line of the audit log denies, for this reason.
    pub(crate) fn assert_denied(&self, reason: &str, what: &str) {
        let lines = self.audit();
        let last = lines.last().unwrap();
        assert_eq!(
            (&last["outcome"], &last["reason"]),
            (&json!("denied"), &json!(reason)),
            "{what}: {last}"
        );
    }
}

/// A path of the documentation with names that are there.
fn url_of(path: &str) -> String {
    path.replace("/keys/{key}", "/keys/some")
        .replace("{rest}", "index.html")
        .replace("{repository}", "demo")
        .replace("{reference}", "main")
        .replace("{name}", "other")
        .replace("{key}", "g/f/c/0/0")
        .replace("{path}", "g/f")
        .replace("{from}", "main~1")
        .replace("{to}", "main")
        .replace("{sequence}", "1")
        .replace("{tile}", "checkpoint")
        .replace("/jobs/{id}", "/jobs/00000000-0000-4000-8000-000000000000")
        .replace(
            "/uploads/{id}",
            "/uploads/00000000-0000-4000-8000-000000000000",
        )
        .replace("{id}", "demo:00000000000040008000000000000000")
}

#[test]
fn every_documented_operation_declares_what_it_needs_and_nothing_else_does() {
    let document = openapi_document();
    let mut documented = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let declared = routes::need(&method.parse().unwrap(), path);
            let routes::Declared::Needs(need) = declared else {
                panic!("{method} {path} declares nothing");
            };
            let operation = &document["paths"][path][method.to_lowercase()];
            assert_eq!(
                operation["security"].is_array(),
                need != Need::Open,
                "{method} {path}"
            );
            for status in ["401", "403", "429"] {
                let is_told = operation["responses"][status].is_object();
                assert_eq!(is_told, need != Need::Open, "{method} {path} {status}");
            }
            documented.push((path.clone(), method));
        }
    }
    let undocumented: Vec<_> = routes::all()
        .filter(|(path, method, _)| {
            !documented.contains(&((*path).to_owned(), (*method).to_owned()))
        })
        .filter(|(path, method, _)| {
            let is_page = ["/", "/docs", "/docs/{rest}", "/openapi.json"].contains(path);
            !is_page && !matches!(*method, "PROPFIND" | "MKCOL")
        })
        .collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[tokio::test]
async fn without_credentials_all_but_the_open_routes_ask_for_them() {
    let guarded = Guarded::new().await;
    for (path, method, need) in routes::all() {
        let url = url_of(path);
        let answer = guarded.ask("", method, &url, "").await;
        if need == Need::Open {
            assert_ne!(answer.status, 401, "{method} {url}");
            continue;
        }
        assert_eq!(answer.status, 401, "{method} {url}: {:?}", answer.body);
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"quarr\"");
        assert_eq!(answer.header("cache-control"), "no-store");
        guarded.assert_denied("no-credentials", &url);
    }
    // What is there and what is not look the same.
    let there = guarded.ask("", "GET", "/v1/repos/demo", "").await;
    let nowhere = guarded.ask("", "GET", "/v1/repos/none", "").await;
    assert_eq!(
        (there.status, there.told()),
        (nowhere.status, nowhere.told())
    );
}

#[tokio::test]
async fn a_principal_without_grants_may_do_nothing_on_any_route() {
    let guarded = Guarded::new().await;
    let other = guarded.token("other", &["admin:elsewhere"]).await;
    for (path, method, need) in routes::all() {
        if matches!(need, Need::Open | Need::SignedIn | Need::Somewhere(_)) {
            continue;
        }
        let url = url_of(path);
        let status = guarded.status(&other, method, &url, "").await;
        assert!(matches!(status, 403 | 404), "{method} {url}: {status}");
        let lines = guarded.audit();
        assert_eq!(lines.last().unwrap()["outcome"], "denied", "{method} {url}");
        assert_eq!(lines.last().unwrap()["name"], "other");
    }
}

#[tokio::test]
async fn a_reader_changes_nothing_on_any_route() {
    let guarded = Guarded::new().await;
    let reader = guarded.token("reader", &["reader:demo"]).await;
    let head = guarded.ask(&reader, "GET", MAIN, "").await.json()["commit"].clone();
    for (path, method, need) in routes::all() {
        let needs_more = match need {
            Need::Part(action) | Need::Whole(action) | Need::Node(action) | Need::Key(action) => {
                action > Action::Read
            }
            Need::Create | Need::Store => true,
            Need::Somewhere(action) => action > Action::Read,
            _ => false,
        };
        if !needs_more {
            continue;
        }
        let url = url_of(path);
        assert_eq!(
            guarded.status(&reader, method, &url, "").await,
            403,
            "{method} {url}"
        );
        guarded.assert_denied("not-permitted", &url);
    }
    let export = r#"{"kind": "export", "repository": "demo", "destination": "/tmp/x"}"#;
    assert_eq!(
        guarded.status(&reader, "POST", "/v1/jobs", export).await,
        403
    );
    guarded.assert_denied("not-permitted", "a job");
    assert_eq!(
        guarded.ask(&reader, "GET", MAIN, "").await.json()["commit"],
        head
    );
    assert_eq!(
        guarded
            .status(&reader, "GET", &format!("{MAIN}/data/g/f"), "")
            .await,
        200
    );
}

#[tokio::test]
async fn a_writer_adds_and_only_an_admin_takes_away() {
    let guarded = Guarded::new().await;
    let writer = guarded.token("wanda", &["writer:demo"]).await;
    let admin = guarded.token("adele", &["admin:demo"]).await;
    let demo = "/v1/repos/demo";
    let group = format!("{MAIN}/nodes/new");
    let made = guarded.ask(&writer, "PUT", &group, "{}").await;
    assert_eq!(made.status, 200, "{:?}", made.body);
    let commit = made.json()["commit"].as_str().unwrap().to_owned();
    let shown = guarded.ask(&writer, "GET", MAIN, "").await.json();
    assert_eq!(
        (&shown["author"], &shown["commit"]),
        (&json!("wanda"), &json!(commit))
    );
    let line = guarded.audit().pop().unwrap();
    assert_eq!(
        (&line["outcome"], &line["commit"], &line["name"]),
        (&json!("done"), &json!(commit), &json!("wanda"))
    );
    assert_eq!(
        (&line["repository"], &line["path"]),
        (&json!("demo"), &json!("main new"))
    );
    for (method, url, body) in [
        ("PUT", format!("{demo}/branches/side"), ""),
        ("PUT", format!("{demo}/tags/v1"), ""),
        (
            "POST",
            format!("{demo}/branches/main/revert"),
            r#"{"commit": "main"}"#,
        ),
        (
            "POST",
            format!("{demo}/merge"),
            r#"{"from": "side", "into": "main"}"#,
        ),
    ] {
        let answer = guarded.ask(&writer, method, &url, body).await;
        assert!(answer.status.is_success(), "{url}: {:?}", answer.body);
    }
    for (method, url, body) in [
        (
            "POST",
            format!("{demo}/branches/main/reset"),
            r#"{"to": "main~1"}"#,
        ),
        ("DELETE", format!("{demo}/branches/side"), ""),
        ("DELETE", format!("{demo}/tags/v1"), ""),
        ("DELETE", demo.to_owned(), ""),
    ] {
        assert_eq!(
            guarded.status(&writer, method, &url, body).await,
            403,
            "{url}"
        );
        let answer = guarded.ask(&admin, method, &url, body).await;
        assert!(answer.status.is_success(), "{url}: {:?}", answer.body);
    }
    assert_eq!(guarded.status(&writer, "PUT", demo, "").await, 403);
    assert_eq!(
        guarded.status(&admin, "PUT", "/v1/repos/other", "").await,
        403
    );
    assert_eq!(guarded.status(&admin, "PUT", demo, "").await, 201);
    assert_eq!(
        guarded.status(&admin, "GET", "/v1/auth/keys", "").await,
        403
    );
}

#[tokio::test]
async fn authors_are_who_asks_whoever_they_say_they_are() {
    let guarded = Guarded::new().await;
    let writer = guarded.token("wanda", &["writer:demo"]).await;
    let opened = guarded
        .ask(
            &writer,
            "POST",
            "/v1/repos/demo/transactions",
            r#"{"author": "mallory"}"#,
        )
        .await
        .json();
    assert_eq!(opened["author"], "wanda");
    let transaction = format!("/v1/transactions/{}", opened["id"].as_str().unwrap());
    guarded
        .ask(&writer, "PUT", &format!("{transaction}/nodes/new"), "{}")
        .await;
    let commit = format!("{transaction}/commit");
    let made = guarded
        .ask(&writer, "POST", &commit, r#"{"author": "mallory"}"#)
        .await;
    assert_eq!(made.status, 200, "{:?}", made.body);
    assert_eq!(
        guarded.ask(&writer, "GET", MAIN, "").await.json()["author"],
        "wanda"
    );
    // Writes that share a commit are of one principal.
    let other = guarded.token("otto", &["writer:demo"]).await;
    let group = r#"{"zarr_format": 3, "node_type": "group"}"#;
    let url = |name: &str| format!("{MAIN}/zarr/{name}/zarr.json");
    let (url_a, url_b) = (url("a"), url("b"));
    let (a, b) = tokio::join!(
        guarded.ask(&writer, "PUT", &url_a, group),
        guarded.ask(&other, "PUT", &url_b, group),
    );
    for (answer, author) in [(a, "wanda"), (b, "otto")] {
        let commit = answer.json()["commit"].as_str().unwrap().to_owned();
        let shown = guarded
            .ask(&writer, "GET", &format!("/v1/repos/demo/refs/{commit}"), "")
            .await;
        assert_eq!(shown.json()["author"], author);
    }
    let log = guarded
        .ask(&writer, "GET", "/v1/repos/demo/log", "")
        .await
        .json();
    let actors: Vec<&str> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["actor"].as_str())
        .collect();
    assert!(
        actors.contains(&"wanda") && !actors.contains(&"mallory"),
        "{actors:?}"
    );
}

#[tokio::test]
async fn repositories_that_may_not_be_seen_are_like_none() {
    let guarded = Guarded::new().await;
    assert_eq!(
        guarded
            .status(&guarded.admin, "PUT", "/v1/repos/demo-2", "")
            .await,
        201
    );
    let reader = guarded.token("reader", &["reader:demo"]).await;
    let listed = guarded.ask(&reader, "GET", "/v1/repos", "").await.json();
    let names: Vec<&Value> = listed["repositories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|repository| &repository["name"])
        .collect();
    assert_eq!(names, ["demo"]);
    for route in [
        "",
        "/branches",
        "/refs/main",
        "/refs/main/data/g/f",
        "/refs/main/zarr/zarr.json",
        "/log",
    ] {
        let hidden = guarded
            .ask(&reader, "GET", &format!("/v1/repos/demo-2{route}"), "")
            .await;
        let missing = guarded
            .ask(&reader, "GET", &format!("/v1/repos/demo-3{route}"), "")
            .await;
        assert_eq!(
            (hidden.status.as_u16(), missing.status.as_u16()),
            (404, 404),
            "{route}"
        );
        let told = hidden.told().to_string().replace("demo-2", "demo-3");
        assert_eq!(told, missing.told().to_string());
        guarded.assert_denied("hidden", route);
    }
    // Nor are they suggested to whoever mistypes the name of one that may be seen.
    let close = guarded
        .ask(&guarded.admin, "GET", "/v1/repos/demo-4", "")
        .await
        .json();
    assert_eq!(close["suggestions"].as_array().unwrap().len(), 2);
    let all = guarded
        .token("all", &["reader:demo-4", "reader:demo"])
        .await;
    let close = guarded
        .ask(&all, "GET", "/v1/repos/demo-4", "")
        .await
        .json();
    assert_eq!(close["suggestions"], json!(["demo"]));
    let verify = |name: &str| format!(r#"{{"kind": "verify", "repository": "{name}"}}"#);
    let hidden = guarded
        .ask(&reader, "POST", "/v1/jobs", &verify("demo-2"))
        .await;
    let missing = guarded
        .ask(&reader, "POST", "/v1/jobs", &verify("demo-3"))
        .await;
    assert_eq!(
        (hidden.status.as_u16(), missing.status.as_u16()),
        (403, 403)
    );
}

#[tokio::test]
async fn names_and_paths_that_are_tricks_are_denied_and_told_of() {
    let guarded = Guarded::new().await;
    let reader = guarded.token("reader", &["reader:demo"]).await;
    for url in [
        "/v1/repos/..",
        "/v1/repos/demo/refs/main/zarr/../../../../../v1/auth/keys",
        "/v1/repos/demo%2f..%2fdemo-2",
        "/v1/repos/demo/refs/main/nodes/g%2Ff",
        "/v1/repos/demo/refs/main/nodes/%2e%2e/demo-2",
        "/v1/repos/demo/refs/main/data/g/%00",
        "/v1/repos/Demo",
        "/v1/repos/.quarr",
        "/v1/repos/.quarr/refs/main/zarr/auth",
        "/v1/repos/demo%20",
        "/v1/repos/demo%ff",
        "/v1/transactions/demo",
        "/v1/transactions/..:00000000-0000-4000-8000-000000000000",
    ] {
        let status = guarded.status(&reader, "GET", url, "").await;
        assert!(matches!(status, 400 | 404), "{url}: {status}");
        let lines = guarded.audit();
        let last = lines.last().unwrap();
        assert_eq!(last["outcome"], "denied", "{url}: {last}");
    }
    let long = format!("/v1/repos/{}", "a".repeat(5000));
    assert_eq!(guarded.status(&reader, "GET", &long, "").await, 400);
    assert!(guarded.audit().last().unwrap().to_string().len() < 2000);
}

#[tokio::test]
async fn public_repositories_are_read_by_anyone_and_written_by_nobody() {
    let settings = Settings {
        public: vec!["demo".parse().unwrap()],
        ..Settings::default()
    };
    let guarded = Guarded::with(settings).await;
    let slice = format!("{MAIN}/data/g/f?slice=0,0");
    let answer = guarded.ask("", "GET", &slice, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        guarded.ask("", "GET", "/v1/repos", "").await.json()["repositories"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        guarded
            .status("", "PUT", &format!("{MAIN}/nodes/new"), "{}")
            .await,
        401
    );
    assert_eq!(guarded.status("", "GET", "/v1/repos/none", "").await, 401);
    assert_eq!(guarded.status("", "GET", "/metrics", "").await, 401);
    let other = guarded.token("other", &["writer:elsewhere"]).await;
    assert_eq!(guarded.status(&other, "GET", &slice, "").await, 200);
    assert_eq!(
        guarded
            .status(&other, "PUT", &format!("{MAIN}/nodes/new"), "{}")
            .await,
        403
    );
    // Wrong credentials are not none.
    assert_eq!(guarded.status("nonsense", "GET", &slice, "").await, 401);
}

#[tokio::test]
async fn answers_to_someone_are_for_nobody_else() {
    let settings = Settings {
        public: vec!["demo".parse().unwrap()],
        ..Settings::default()
    };
    let guarded = Guarded::with(settings).await;
    let commit = guarded.ask("", "GET", MAIN, "").await.json()["commit"]
        .as_str()
        .unwrap()
        .to_owned();
    let pinned = format!("/v1/repos/demo/refs/{commit}/zarr/zarr.json");
    let own = guarded.ask(&guarded.admin, "GET", &pinned, "").await;
    assert_eq!(
        own.header("cache-control"),
        "private, max-age=31536000, immutable"
    );
    assert!(
        own.headers
            .get_all("vary")
            .iter()
            .any(|value| value == "Authorization")
    );
    let anyones = guarded.ask("", "GET", &pinned, "").await;
    assert_eq!(
        anyones.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    let branch = guarded
        .ask(&guarded.admin, "GET", &format!("{MAIN}/zarr/zarr.json"), "")
        .await;
    assert_eq!(branch.header("cache-control"), "private, no-cache");
}

#[tokio::test]
async fn browsers_of_other_origins_may_send_credentials_and_read_refusals() {
    let guarded = Guarded::new().await;
    let origin = ("origin", "https://app.example");
    let preflight = [
        origin,
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = guarded.ask_with("", "OPTIONS", MAIN, &preflight, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "authorization"
    );
    assert!(
        !answer
            .header("access-control-allow-methods")
            .contains("PUT")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let refused = guarded.ask_with("", "GET", MAIN, &[origin], "").await;
    assert_eq!(
        (
            refused.status.as_u16(),
            refused.header("access-control-allow-origin")
        ),
        (401, "*")
    );
}

#[tokio::test]
async fn metrics_are_for_admins_unless_they_are_open() {
    let guarded = Guarded::new().await;
    let reader = guarded.token("reader", &["reader"]).await;
    assert_eq!(guarded.status(&reader, "GET", "/metrics", "").await, 403);
    assert_eq!(
        guarded.status(&guarded.admin, "GET", "/metrics", "").await,
        200
    );
    let open = Guarded::with(Settings {
        open_metrics: true,
        ..Settings::default()
    });
    assert_eq!(open.await.status("", "GET", "/metrics", "").await, 200);
}

#[tokio::test]
async fn methods_that_a_route_does_not_have_are_refused_with_those_it_has() {
    let guarded = Guarded::new().await;
    let answer = guarded
        .ask(&guarded.admin, "PATCH", "/v1/repos/demo", "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "GET,HEAD,PUT,DELETE")
    );
    assert_eq!(
        guarded
            .status(&guarded.admin, "GET", "/v1/nothing", "")
            .await,
        404
    );
}

#[tokio::test]
async fn every_answer_names_its_request_and_the_log_does_too() {
    let guarded = Guarded::new().await;
    let own = [("x-request-id", "abc-1")];
    let answer = guarded.ask_with("", "GET", MAIN, &own, "").await;
    assert_eq!(answer.header("x-request-id"), "abc-1");
    assert_eq!(guarded.audit().last().unwrap()["request_id"], "abc-1");
    let odd = [("x-request-id", "a b\"")];
    let answer = guarded.ask_with("", "GET", MAIN, &odd, "").await;
    assert_eq!(answer.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn changes_of_an_open_service_are_told_of_where_there_is_an_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let open = Service::new().await.guarded(Settings {
        audit_log: Some(path.clone()),
        ..Settings::default()
    });
    assert_eq!(
        open.ask("PUT", "/v1/repos/other", &[], "").await.status,
        201
    );
    open.get("/v1/repos/other").await;
    let text = std::fs::read_to_string(path).unwrap();
    let line: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(
        (&line["principal"], &line["method"], &line["status"]),
        (&json!("anonymous"), &json!("PUT"), &json!(201))
    );
}
