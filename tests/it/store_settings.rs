//! What settings of S3 do to requests, as a server sees them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use quarr_tests::servers::open;
use storage::{Store, object_key, shard_key};

type Seen = Arc<Mutex<Vec<(Method, String, HeaderMap)>>>;

/// An S3 server with one object of each name, which notes what it is asked.
async fn recorder() -> (String, Seen) {
    let seen = Seen::default();
    let objects = Arc::new(Mutex::new(HashMap::<String, Bytes>::new()));
    let noted = seen.clone();
    let answer = move |request: Request| {
        let (noted, objects) = (noted.clone(), objects.clone());
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path().to_owned();
            let request = (head.method.clone(), path.clone(), head.headers.clone());
            noted.lock().unwrap().push(request);
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut objects = objects.lock().unwrap();
            let answer: Response = match (head.method, objects.get(&path)) {
                (Method::PUT, None) => {
                    objects.insert(path, body);
                    [("etag", "\"1\"")].into_response()
                }
                (Method::PUT, Some(_)) => StatusCode::PRECONDITION_FAILED.into_response(),
                (_, Some(found)) => ([("etag", "\"1\"")], found.clone()).into_response(),
                (_, None) => StatusCode::NOT_FOUND.into_response(),
            };
            answer
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, seen)
}

fn store(url: &str, settings: &[(&'static str, &str)]) -> Store {
    let own = [
        ("aws_endpoint", url),
        ("aws_allow_http", "true"),
        ("aws_region", "eu-central-1"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "secret"),
    ];
    let all: Vec<(&str, String)> = own
        .iter()
        .chain(settings)
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    open("s3://bucket/prefix", &all).unwrap()
}

/// A header of the only request to a path, and whether it was signed.
fn header(seen: &Seen, path: &str, name: &str) -> Option<String> {
    let seen = seen.lock().unwrap();
    let (_, _, headers) = seen.iter().find(|(_, found, _)| found == path).unwrap();
    let value = headers.get(name)?.to_str().unwrap().to_owned();
    let authorization = headers["authorization"].to_str().unwrap();
    let signed = authorization.split("SignedHeaders=").nth(1).unwrap();
    let signed = signed.split(',').next().unwrap();
    assert!(signed.split(';').any(|signed| signed == name), "{signed}");
    Some(value)
}

#[tokio::test]
async fn encryption_checksums_and_classes_are_sent_and_signed() {
    let id = array::hash::hash(array::hash::Kind::PlainChunk, b"x");
    let (url, seen) = recorder().await;
    let store = store(
        &url,
        &[
            ("aws_server_side_encryption", "aws:kms"),
            ("aws_sse_kms_key_id", "arn:aws:kms:eu-central-1:1:key/k"),
            ("aws_sse_bucket_key_enabled", "true"),
            ("aws_checksum_algorithm", "SHA256"),
            ("quarr_shard_storage_class", "STANDARD_IA"),
        ],
    );
    for key in [shard_key(&id), object_key(&id)] {
        store.put_immutable(&key, Bytes::from("x")).await.unwrap();
        let path = format!("/bucket/prefix/{key}");
        let header = |name| header(&seen, &path, name);
        assert_eq!(header("x-amz-server-side-encryption").unwrap(), "aws:kms");
        assert_eq!(
            header("x-amz-server-side-encryption-aws-kms-key-id").unwrap(),
            "arn:aws:kms:eu-central-1:1:key/k"
        );
        let by_bucket = header("x-amz-server-side-encryption-bucket-key-enabled");
        assert_eq!(by_bucket.unwrap(), "true");
        // Of "x", in base 64.
        let sum = header("x-amz-checksum-sha256").unwrap();
        assert_eq!(sum, "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=");
        let class = header("x-amz-storage-class");
        let is_shard = key.starts_with("shards/");
        assert_eq!(class.as_deref(), is_shard.then_some("STANDARD_IA"), "{key}");
    }
}

#[tokio::test]
async fn without_settings_nothing_is_asked_for() {
    let (url, seen) = recorder().await;
    let store = store(&url, &[]);
    store
        .put_immutable("shards/a", Bytes::from("x"))
        .await
        .unwrap();
    let path = "/bucket/prefix/shards/a";
    assert_eq!(header(&seen, path, "x-amz-server-side-encryption"), None);
    assert_eq!(header(&seen, path, "x-amz-storage-class"), None);
    // What the signature covers is checked by the server without it.
    assert!(header(&seen, path, "x-amz-content-sha256").is_some());
}

#[tokio::test]
async fn keys_of_s3_encrypt_when_asked() {
    let (url, seen) = recorder().await;
    let store = store(&url, &[("aws_server_side_encryption", "AES256")]);
    store.put_immutable("a", Bytes::from("x")).await.unwrap();
    let found = header(&seen, "/bucket/prefix/a", "x-amz-server-side-encryption");
    assert_eq!(found.unwrap(), "AES256");
}
