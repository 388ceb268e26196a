//! What Quarr uses of Google Cloud Storage's XML API, in this process. Unlike other fakes it honours
//! `x-goog-if-generation-match: 0`, the condition that commits rest on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use storage::Store;

use super::{BUCKET, open};

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    generation: u64,
    modified: DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    generations: u64,
}

type Shared = Arc<Mutex<Bucket>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Bucket> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bucket on a free port, for as long as the runtime that started it.
#[derive(Debug)]
pub struct GoogleFake {
    url: String,
}

impl GoogleFake {
    /// Starts it on the current runtime.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let object = get(read).put(write).delete(remove);
        let router = Router::new()
            // The client escapes the name of the bucket.
            .route("/{bucket}", get(list))
            .route("/{bucket}/{*key}", object)
            .with_state(Shared::default());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url })
    }

    /// An empty part of its bucket.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn store(&self, name: &str) -> Result<Store, storage::Error> {
        open(&Self::url(name), &self.settings())
    }

    /// What the part of its bucket of this name is opened as.
    #[must_use]
    pub fn url(name: &str) -> String {
        format!("gs://{BUCKET}/{name}")
    }

    /// What [`Store::open_with`] takes for it.
    #[must_use]
    pub fn settings(&self) -> [(&'static str, String); 2] {
        // A key that says where the store is and that it wants no token.
        let key = json!({
            "client_email": "",
            "disable_oauth": true,
            "gcs_base_url": self.url,
            "private_key": "",
            "private_key_id": "",
        });
        [
            ("google_service_account_key", key.to_string()),
            ("allow_http", "true".into()),
        ]
    }
}

fn described(object: &Object) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let modified = object.modified.format("%a, %d %b %Y %H:%M:%S GMT");
    let generation = object.generation.to_string();
    for (name, value) in [
        ("x-goog-generation", generation.clone()),
        (header::ETAG.as_str(), format!("\"{generation}\"")),
        (header::LAST_MODIFIED.as_str(), modified.to_string()),
    ] {
        if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    headers
}

async fn write(
    State(shared): State<Shared>,
    Path((_, key)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let mut bucket = lock(&shared);
    let found = bucket
        .objects
        .get(&key)
        .map_or(0, |object| object.generation);
    let wanted = headers.get("x-goog-if-generation-match");
    if wanted.is_some_and(|wanted| wanted.as_bytes() != found.to_string().as_bytes()) {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    bucket.generations += 1;
    let object = Object {
        bytes,
        generation: bucket.generations,
        modified: Utc::now(),
    };
    let answer = described(&object).into_response();
    bucket.objects.insert(key, object);
    answer
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n` of an object of `length` bytes.
fn range(text: &str, length: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) => first..length,
        (Err(_), Ok(count)) => length.saturating_sub(count)..length,
        (Err(_), Err(_)) => return None,
    };
    (range.start < range.end).then_some(range)
}

async fn read(
    State(shared): State<Shared>,
    Path((_, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let bucket = lock(&shared);
    let Some(object) = bucket.objects.get(&key) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let length = object.bytes.len();
    let Some(wanted) = headers.get(header::RANGE) else {
        return (described(object), object.bytes.clone()).into_response();
    };
    let Some(range) = wanted.to_str().ok().and_then(|text| range(text, length)) else {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    };
    let within = format!("bytes {}-{}/{length}", range.start, range.end - 1);
    (
        StatusCode::PARTIAL_CONTENT,
        described(object),
        [(header::CONTENT_RANGE, within)],
        object.bytes.slice(range),
    )
        .into_response()
}

async fn remove(
    State(shared): State<Shared>,
    Path((_, key)): Path<(String, String)>,
) -> StatusCode {
    match lock(&shared).objects.remove(&key) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

/// One page with everything: the names are the tests' own and need no escapes.
async fn list(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let parameter = |name| query.get(name).map_or("", String::as_str);
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let mut folders = BTreeSet::new();
    let mut xml = String::from("<ListBucketResult>");
    let bucket = lock(&shared);
    for (key, object) in &bucket.objects {
        let after = key.as_str() > parameter("start-after");
        let Some(rest) = key.strip_prefix(prefix).filter(|_| after) else {
            continue;
        };
        if let Some(end) = rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            folders.insert(&key[..prefix.len() + end + delimiter.len()]);
            continue;
        }
        let modified = object.modified.to_rfc3339_opts(SecondsFormat::Millis, true);
        // Writing to a string does not fail.
        let _ = write!(
            xml,
            "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
            object.generation,
            object.bytes.len()
        );
    }
    for folder in folders {
        let _ = write!(
            xml,
            "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
        );
    }
    xml.push_str("</ListBucketResult>");
    ([(header::CONTENT_TYPE, "application/xml")], xml).into_response()
}
