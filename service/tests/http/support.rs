//! A service over a small repository in memory, and requests to it.

use std::sync::Arc;

use array::{ArrayMetadata, CodecMetadata, DataType, RegularGrid};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use quarr_tests::arrays::SampleArray;
use quarr_tests::watched::{Request as Watch, Watched};
use query::{Costs, Engine, Settings};
use serde_json::{Value, json};
use service::auth::Auth;
use service::http::router;
use service::s3::{Access, Gateway};
use service::signing::Signing;
use service::state::{Limits, State};
use storage::{CommitOptions, Repository, Store, Transaction};
use tower::ServiceExt as _;

/// Where the arrays of branch `main` are.
pub(crate) const MAIN: &str = "/v1/repos/demo/refs/main";
/// Most bytes in one answer of the service under test.
pub(crate) const ANSWER_BYTES: u64 = 4096;

/// Arrays that are empty, but whose shapes are made to exhaust whoever counts with them.
pub(crate) const HOSTILE: [(&str, &[u64]); 2] = [
    ("hostile/long", &[1 << 60]),
    ("hostile/flat", &[1 << 60, 0]),
];

/// A service and the store below it.
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) objects: Watched,
    signing: Option<Signing>,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// A problem, without what tells its request from others.
    pub(crate) fn told(&self) -> Value {
        let mut problem = self.json();
        problem.as_object_mut().unwrap().remove("trace_id");
        problem
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Service {
    /// A service over a repository `demo`.
    ///
    /// `g/f`: float32, shape (4, 6), dimensions (x, y), values 0 to 23, 5 is NaN. `packed`: int16,
    /// shape (4), values 0 to 3 with scale 0.5 and offset 10, fill value 3. `names`: strings.
    /// `big`: bytes, shape (5000), noise in shards of
    /// their own. `sparse`: float32, shape (8), its second half fill value.
    pub(crate) async fn new() -> Self {
        let objects = Watched::new(Arc::new(InMemory::new()));
        let store = Store::from_objects(Arc::new(objects.clone()), "test");
        let repository = Repository::create(store.under("demo"), "test")
            .await
            .unwrap();
        let branch = "main".parse().unwrap();
        let transaction = Transaction::begin(&repository, &branch).await.unwrap();
        for sample in samples() {
            sample.store(&transaction).await.unwrap();
        }
        for (path, shape) in HOSTILE {
            let ones = vec![1; shape.len()];
            let grid = RegularGrid::new(shape.to_vec(), ones).unwrap();
            let codecs = vec![CodecMetadata::new("bytes", json!({}))];
            let metadata = ArrayMetadata::new(grid, DataType::UInt8, codecs);
            let path = path.parse().unwrap();
            transaction.create_array(&path, metadata).await.unwrap();
        }
        let options = CommitOptions {
            author: "ada".into(),
            message: "samples".into(),
            ..CommitOptions::default()
        };
        transaction.commit(options).await.unwrap();
        Self::over(objects)
    }

    /// A service over a store, with nothing cached.
    pub(crate) fn over(objects: Watched) -> Self {
        Self {
            router: router(state_over(&objects)),
            objects,
            signing: None,
        }
    }

    /// A service that is there already.
    pub(crate) fn of(router: Router) -> Self {
        Self {
            router,
            objects: Watched::new(Arc::new(InMemory::new())),
            signing: None,
        }
    }

    /// A service over the same store with answers of up to so many bytes.
    pub(crate) fn with_answers_of(&self, bytes: u64) -> Self {
        self.with(state_with(&self.objects, bytes, Costs::LOCAL))
    }

    /// A service that takes the same store for one in a cloud.
    pub(crate) fn remote(&self) -> Self {
        self.with(state_with(&self.objects, ANSWER_BYTES, Costs::REMOTE))
    }

    /// A service over the same store that asks who its clients are.
    pub(crate) fn guarded(&self, settings: service::auth::Settings) -> Self {
        let state = state_over(&self.objects);
        let auth = Auth::new(state.store(), settings).unwrap();
        self.with(state.with_auth(auth))
    }

    fn with(&self, state: State) -> Self {
        Self {
            router: router(state),
            objects: self.objects.clone(),
            signing: None,
        }
    }

    /// The same, which also signs logs.
    pub(crate) async fn signed(signing: Signing) -> Self {
        let mut service = Self::new().await;
        service.signing = Some(signing);
        service.restarted()
    }

    /// The same service with nothing cached.
    pub(crate) fn restarted(&self) -> Self {
        let state = state_over(&self.objects);
        let state = match &self.signing {
            Some(signing) => state.signed(signing.clone()),
            None => state,
        };
        Self {
            router: router(state),
            objects: self.objects.clone(),
            signing: self.signing.clone(),
        }
    }

    /// The S3 gateway over the same store, with nothing cached.
    pub(crate) fn gateway(&self, access: Access) -> Self {
        let gateway = Gateway {
            state: state_over(&self.objects),
            access,
            domain: None,
            only_this_machine: false,
        };
        Self {
            router: service::s3::router(gateway),
            objects: self.objects.clone(),
            signing: None,
        }
    }

    /// Loses the objects whose keys begin so.
    pub(crate) async fn lose(&self, prefix: &str) {
        let mut listed = self.objects.list(None);
        let mut lost = 0;
        while let Some(found) = listed.next().await {
            let location = found.unwrap().location;
            if location.as_ref().starts_with(prefix) {
                self.objects.delete(&location).await.unwrap();
                lost += 1;
            }
        }
        assert!(lost > 0, "there is no {prefix}");
    }

    /// The answer to a request; a body is JSON unless a header says otherwise.
    pub(crate) async fn ask(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }

    /// The answer to a PUT of bytes.
    pub(crate) async fn put(&self, url: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method("PUT").uri(url);
        self.send(request.body(Body::from(body.into())).unwrap())
            .await
    }

    /// The answer to a PUT of bytes that have a media type.
    pub(crate) async fn put_as(
        &self,
        url: &str,
        (name, value): (&str, &str),
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = Request::builder()
            .method("PUT")
            .uri(url)
            .header(name, value);
        self.send(request.body(Body::from(body.into())).unwrap())
            .await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    /// The answer to a GET.
    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.ask("GET", url, &[], "").await
    }

    /// The JSON a GET answers with; it must be a 200.
    pub(crate) async fn json(&self, url: &str) -> Value {
        let answer = self.get(url).await;
        assert_eq!(answer.status, 200, "{url}: {:?}", answer.body);
        answer.json()
    }

    /// Asserts that a request is refused with this status and as problem details, and returns them.
    pub(crate) async fn refused(&self, method: &str, url: &str, status: u16) -> Value {
        let answer = self.ask(method, url, &[], "").await;
        assert_eq!(answer.status, status, "{method} {url}: {:?}", answer.body);
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{method} {url}"
        );
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {url}");
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(
                problem[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{problem}"
            );
        }
        problem
    }
}

/// The requests that reached the store since the last call, but for the check that the repository
/// is still the same.
pub(crate) fn requests(objects: &Watched) -> Vec<Watch> {
    let mut requests = objects.take_requests();
    requests.retain(|request| !matches!(request, Watch::Get(key, _) if key.ends_with("repo.json")));
    requests
}

/// The state of a service with nothing cached.
pub(crate) fn state_over(objects: &Watched) -> State {
    state_with(objects, ANSWER_BYTES, Costs::LOCAL)
}

fn state_with(objects: &Watched, answer_bytes: u64, costs: Costs) -> State {
    let settings = Settings {
        threads: 1,
        costs,
        ..Settings::default()
    };
    let limits = Limits {
        answer_bytes,
        ..Limits::default()
    };
    let store = Store::from_objects(Arc::new(objects.clone()), "test");
    State::new(store, Engine::new(settings).unwrap(), limits)
}

fn samples() -> Vec<SampleArray> {
    let float = |index: u64| {
        let value = if index == 5 { f32::NAN } else { index as f32 };
        value.to_le_bytes().to_vec()
    };
    let mut grid =
        SampleArray::sharded("g/f", DataType::Float32, [&[4, 6], &[2, 6], &[2, 3]], float).unwrap();
    let names = vec![Some("x".into()), Some("y".into())];
    grid.metadata.set_dimension_names(names).unwrap();
    let integer = |index: u64| (index as i16).to_le_bytes().to_vec();
    let mut packed =
        SampleArray::sharded("packed", DataType::Int16, [&[4], &[4], &[2]], integer).unwrap();
    packed.metadata.attributes.extend(
        [
            ("scale_factor", json!(0.5)),
            ("add_offset", json!(10.0)),
            ("_FillValue", json!(3)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let word = |index: u64| ["wind", "", "größe"][index as usize].as_bytes().to_vec();
    let names = SampleArray::sharded("names", DataType::String, [&[3], &[2], &[2]], word).unwrap();
    let noise = |index: u64| vec![(index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8];
    let big =
        SampleArray::sharded("big", DataType::UInt8, [&[5000], &[1000], &[100]], noise).unwrap();
    let half = |index: u64| {
        let value = if index < 4 { 1.0_f32 } else { 0.0 };
        value.to_le_bytes().to_vec()
    };
    let sparse =
        SampleArray::sharded("sparse", DataType::Float32, [&[8], &[4], &[2]], half).unwrap();
    vec![grid, packed, names, big, sparse]
}
