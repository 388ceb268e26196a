//! API keys over HTTP: made, rotated, revoked, and tokens that are none.

use axum::http::HeaderName;
use serde_json::{Value, json};

use crate::auth::Guarded;
use crate::support::MAIN;

#[tokio::test]
async fn tokens_that_do_not_work_are_all_answered_alike() {
    let guarded = Guarded::new().await;
    let live = guarded.token("live", &["reader:demo"]).await;
    let revoked = guarded.token("revoked", &["reader:demo"]).await;
    assert_eq!(
        guarded
            .status(&guarded.admin, "DELETE", "/v1/auth/keys/revoked", "")
            .await,
        200
    );
    let rotated = guarded.token("rotated", &["reader:demo"]).await;
    let rotate = "/v1/auth/keys/rotated/rotate";
    assert_eq!(
        guarded
            .status(&guarded.admin, "POST", rotate, r#"{"overlap": 0}"#)
            .await,
        200
    );
    let short = json!({ "name": "short", "grants": [{ "role": "reader" }], "expires_in": 1 });
    let expired = guarded
        .ask(&guarded.admin, "POST", "/v1/auth/keys", &short.to_string())
        .await;
    let expired = expired.json()["token"].as_str().unwrap().to_owned();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let other = guarded.token("unknown", &["reader:demo"]).await;
    let unknown = token_of(&other[6..22], "0123456789abcdef", &other);
    // The secret of another key.
    let wrong = token_of(&other[6..22], &live[6..22], &other);
    let mut answers = Vec::new();
    for (token, reason, name) in [
        (revoked.as_str(), "revoked-key", "revoked"),
        (rotated.as_str(), "wrong-secret", "rotated"),
        (expired.as_str(), "expired-key", "short"),
        (unknown.as_str(), "unknown-key", "anonymous"),
        (wrong.as_str(), "wrong-secret", "live"),
        (&live[..live.len() - 1], "unknown-key", "anonymous"),
        (live.to_uppercase().as_str(), "unknown-key", "anonymous"),
        ("quarr_", "unknown-key", "anonymous"),
        ("a.b.c", "unknown-key", "anonymous"),
    ] {
        guarded.service.objects.take_requests();
        let answer = guarded.ask(token, "GET", MAIN, "").await;
        assert_eq!(answer.status, 401, "{reason}");
        let lines = guarded.audit();
        let last = lines.last().unwrap();
        assert_eq!(
            (&last["reason"], &last["name"]),
            (&json!(reason), &json!(name)),
            "{last}"
        );
        let text = last.to_string();
        assert!(
            !text.contains(token) && !text.contains(&live[23..]),
            "{text}"
        );
        // No look into the store, whose time would tell.
        assert!(
            guarded.service.objects.take_requests().is_empty(),
            "{reason}"
        );
        let mut headers = answer.headers.clone();
        for own in ["x-request-id", "traceparent"] {
            headers.remove(HeaderName::from_static(own));
        }
        answers.push((answer.told(), headers));
    }
    let first = answers[0].clone();
    assert!(answers.iter().all(|answer| *answer == first));
    assert!(
        first.1["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(guarded.status(&live, "GET", MAIN, "").await, 200);
}

/// The token with another id, and the checksum that goes with it.
fn token_of(id: &str, other: &str, token: &str) -> String {
    let text = token[..token.len() - 8].replace(id, other);
    let sum = crc32c(text.as_bytes());
    format!("{text}{sum:08x}")
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 };
    let byte = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum));
    !bytes.iter().fold(!0, byte)
}

#[tokio::test]
async fn keys_are_made_listed_rotated_and_revoked() {
    let guarded = Guarded::new().await;
    let body = json!({
        "name": "ada", "expires_in": 3600,
        "grants": [{ "role": "reader" }, { "role": "writer", "repository": "demo", "prefix": "/g" }],
    });
    let made = guarded
        .ask(&guarded.admin, "POST", "/v1/auth/keys", &body.to_string())
        .await;
    assert_eq!(
        (made.status.as_u16(), made.header("cache-control")),
        (201, "no-store")
    );
    let key = &made.json()["key"];
    let id = key["id"].as_str().unwrap();
    assert_eq!(made.header("location"), format!("/v1/auth/keys/{id}"));
    assert_eq!(
        (&key["state"], &key["created_by"]),
        (&json!("live"), &json!("root"))
    );
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let me = guarded.ask(&token, "GET", "/v1/auth/me", "").await.json();
    assert_eq!(me["grants"], body["grants"]);
    assert_eq!(me["id"], format!("key:{id}"));
    let again = guarded
        .ask(&guarded.admin, "POST", "/v1/auth/keys", &body.to_string())
        .await;
    assert_eq!(again.status, 409);
    let rotated = guarded
        .ask(
            &guarded.admin,
            "POST",
            &format!("/v1/auth/keys/{id}/rotate"),
            "",
        )
        .await
        .json();
    let second = rotated["token"].as_str().unwrap();
    assert!(rotated["key"]["overlap_until"].is_string());
    for token in [token.as_str(), second] {
        assert_eq!(guarded.status(token, "GET", MAIN, "").await, 200);
    }
    let revoked = guarded
        .ask(&guarded.admin, "DELETE", "/v1/auth/keys/ada", "")
        .await
        .json();
    assert_eq!(revoked["state"], "revoked");
    for token in [token.as_str(), second] {
        assert_eq!(guarded.status(token, "GET", MAIN, "").await, 401);
    }
    assert_eq!(
        guarded
            .status(&guarded.admin, "DELETE", "/v1/auth/keys/ada", "")
            .await,
        404
    );
    let list = guarded
        .ask(&guarded.admin, "GET", "/v1/auth/keys", "")
        .await;
    let names: Vec<Value> = list.json()["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names, ["root", "ada"]);
    assert!(!list.text().contains(&token[23..87]) && !list.text().contains("hash"));
    let audit: String = guarded.audit().iter().map(Value::to_string).collect();
    assert!(!audit.contains(&token[23..87]) && !audit.contains(&second[23..87]));
    assert!(audit.contains("/v1/auth/keys/{key}/rotate"));
}

#[tokio::test]
async fn keys_that_mean_nothing_are_refused() {
    let guarded = Guarded::new().await;
    for body in [
        json!({ "name": "x", "grants": [] }),
        json!({ "name": "x", "grants": [{ "role": "owner" }] }),
        json!({ "name": "x", "grants": [{ "role": "reader", "prefix": "/g" }] }),
        json!({ "name": "x", "grants": [{ "role": "admin", "repository": "demo", "prefix": "/g" }] }),
        json!({ "name": "x", "grants": [{ "role": "reader", "repository": "../demo" }] }),
        json!({ "name": "x", "grants": [{ "role": "reader", "repository": "demo", "prefix": "/g/../h" }] }),
        json!({ "name": "x", "grants": [{ "role": "reader", "repo": "demo" }] }),
        json!({ "name": "", "grants": [{ "role": "reader" }] }),
        json!({ "name": "x", "grants": [{ "role": "reader" }], "expires_in": 0 }),
        json!({ "name": "x", "grants": [{ "role": "reader" }], "expires_in": i64::MAX }),
        json!({ "name": "x" }),
    ] {
        let answer = guarded
            .ask(&guarded.admin, "POST", "/v1/auth/keys", &body.to_string())
            .await;
        assert_eq!(answer.status, 400, "{body}: {:?}", answer.body);
    }
    let key = guarded.token("ada", &["reader"]).await;
    for overlap in [-1, i64::MAX, 31 * 86_400] {
        let body = json!({ "overlap": overlap }).to_string();
        assert_eq!(
            guarded
                .status(&guarded.admin, "POST", "/v1/auth/keys/ada/rotate", &body)
                .await,
            400
        );
    }
    assert_eq!(guarded.status(&key, "GET", MAIN, "").await, 200);
}

#[tokio::test]
async fn a_token_comes_as_a_password_too_and_not_in_two_ways_at_once() {
    use base64::Engine as _;
    let guarded = Guarded::new().await;
    let basic = |text: String| {
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(text)
        )
    };
    let token = &guarded.admin;
    for (value, status) in [
        (format!("bearer {token}"), 200),
        (basic(format!("anyone:{token}")), 200),
        (basic(format!("{token}:")), 200),
        (basic(token.clone()), 401),
        (basic("root:password".into()), 401),
        ("Basic %%%".into(), 401),
        (format!("Token {token}"), 401),
        (token.clone(), 401),
        ("Bearer".into(), 401),
        ("Bearer ".into(), 401),
    ] {
        let header = [("authorization", value.as_str())];
        let answer = guarded.service.ask("GET", MAIN, &header, "").await;
        assert_eq!(answer.status, status, "{value}");
        assert!(!answer.header("www-authenticate").contains("Basic"));
    }
    let twice = [("authorization", "Bearer x"), ("authorization", "Bearer y")];
    assert_eq!(
        guarded.service.ask("GET", MAIN, &twice, "").await.status,
        401
    );
}

#[tokio::test]
async fn keys_are_those_of_all_nodes() {
    let guarded = Guarded::new().await;
    let token = guarded.token("ada", &["reader:demo"]).await;
    let other = guarded.service.guarded(service::auth::Settings {
        is_required: true,
        ..Default::default()
    });
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(other.ask("GET", MAIN, &headers, "").await.status, 200);
}
