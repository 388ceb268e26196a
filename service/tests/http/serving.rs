//! A server on a real socket: clients that take too much, and its end.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use array::DataType;
use axum::Router;
use axum::extract::State as Shared;
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use quarr_tests::arrays::SampleArray;
use query::Engine;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use service::auth::{Auth, Settings};
use service::http::router;
use service::serving::{self, Limits};
use service::state::State;
use service::telemetry::Phase;
use storage::{CommitOptions, Repository, Store, Transaction};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Small limits, so that tests are short.
fn small() -> Limits {
    Limits {
        connections: 8,
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(900),
        progress_timeout: Duration::from_millis(300),
        progress_bytes: 1000,
        url_bytes: 2000,
        header_bytes: 4000,
        headers: 20,
        ..Limits::default()
    }
}

struct Server {
    address: SocketAddr,
    state: State,
    /// With its audit log.
    folder: tempfile::TempDir,
    ended: tokio::task::JoinHandle<()>,
}

impl Server {
    /// A server over a repository `demo` in memory with an array `x` of 4 MiB.
    async fn start(limits: Limits) -> Self {
        Self::over(4 << 20, limits).await
    }

    /// The same, of so many bytes.
    async fn over(bytes: u64, limits: Limits) -> Self {
        let store = Store::from_objects(Arc::new(object_store::memory::InMemory::new()), "test");
        fill(&store, bytes).await;
        let engine = Engine::new(query::Settings {
            threads: 1,
            ..query::Settings::default()
        })
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            audit_log: Some(folder.path().join("audit.log")),
            ..Settings::default()
        };
        let auth = Auth::new(&store, settings).unwrap();
        let state = State::new(store, engine, service::state::Limits::default());
        let state = state.with_auth(auth).serving_within(limits.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = |stream| std::future::ready(Ok(stream));
        let serving = serving::serve(
            listener,
            plain,
            router(state.clone()),
            state.clone(),
            limits,
        );
        Self {
            address,
            state,
            folder,
            ended: tokio::spawn(serving),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What is answered until the server closes the connection.
    async fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        rest(&mut stream).await
    }

    async fn is_alive(&self) -> bool {
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        self.answer(request).await.starts_with("HTTP/1.1 200")
    }

    /// Whether the audit log tells of a denial for this reason, and by whose address.
    fn tells_of(&self, reason: &str) -> bool {
        let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.any(|line| {
            let is_local = line["remote"]
                .as_str()
                .is_some_and(|by| by.starts_with("127.0.0.1:"));
            line["outcome"] == "denied" && line["reason"] == reason && is_local
        })
    }

    fn refused(&self, limit: &str) -> u64 {
        let all = service::telemetry::Refused::ALL;
        let why = all.into_iter().find(|why| why.name() == limit).unwrap();
        self.state.telemetry().refused(why)
    }
}

/// Everything until the end of a stream, however it ends. Fails if it does not.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("it ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn fill(store: &Store, bytes: u64) {
    let repository = Repository::create(store.under("demo"), "test")
        .await
        .unwrap();
    let branch = "main".parse().unwrap();
    let transaction = Transaction::begin(&repository, &branch).await.unwrap();
    let noise = |index: u64| {
        let bits = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits.to_le_bytes().to_vec()
    };
    // Of 8 bytes a cell: shards of 1 MiB, inner chunks of 64 KiB.
    let shape: [&[u64]; 3] = [&[bytes / 8], &[1 << 17], &[1 << 13]];
    let sample = SampleArray::sharded("x", DataType::UInt64, shape, noise).unwrap();
    sample.store(&transaction).await.unwrap();
    let options = CommitOptions {
        author: "ada".into(),
        ..CommitOptions::default()
    };
    transaction.commit(options).await.unwrap();
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_and_others_are_answered() {
    let server = Server::start(small()).await;
    for start in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let mut stream = server.connect().await;
        stream.write_all(start).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let trickle = tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        });
        assert!(server.is_alive().await);
        let mut bytes = Vec::new();
        let cut = tokio::time::timeout(Duration::from_secs(5), read.read_to_end(&mut bytes)).await;
        assert!(cut.is_ok(), "{start:?}");
        trickle.abort();
    }
    assert!(server.refused("header-timeout") >= 2);
    assert!(server.tells_of("header-timeout"));
}

#[tokio::test]
async fn a_connection_that_was_used_may_idle_for_a_while() {
    let server = Server::start(small()).await;
    let mut stream = server.connect().await;
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        // Longer than a head may take, shorter than a connection may idle.
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(server.refused("header-timeout"), 0);
}

#[tokio::test]
async fn a_body_that_trickles_in_is_refused() {
    let server = Server::start(small()).await;
    let mut stream = server.connect().await;
    let head = "PUT /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/octet-stream\r\nContent-Length: 4194304\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(server.is_alive().await);
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(5), read.read_exact(&mut answer)).await;
    assert!(server.tells_of("slow-body"));
    assert!(read.unwrap().is_ok());
    assert_eq!(&answer, b"HTTP/1.1 408");
    trickle.abort();
    assert_eq!(server.refused("slow-body"), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_cut() {
    let server = Server::start(small()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    // More than the system keeps of it on both sides.
    let request = b"GET /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..8 {
        stream.write_all(request).await.unwrap();
    }
    for _ in 0..100 {
        if server.refused("slow-reader") > 0 && server.tells_of("slow-reader") {
            assert!(server.is_alive().await);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the reader keeps its connection, or nothing tells of it");
}

#[tokio::test]
async fn heads_beyond_their_limits_are_refused() {
    let server = Server::start(small()).await;
    let line = |name: usize| format!("X-{name}: y\r\n");
    let many: String = (0..18).map(line).collect();
    let flood: String = (0..5000).map(line).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(4000));
    let endless = format!("X-Long: {}\r\n", "y".repeat(1 << 20));
    let url = format!("/livez?{}", "y".repeat(2000));
    for (path, headers, status) in [
        ("/livez", "", "200"),
        (&url, "", "414"),
        ("/livez", &long, "431"),
        ("/livez", &many, "200"),
        ("/livez", &flood, "431"),
        ("/livez", &endless, "431"),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let mut stream = server.connect().await;
        let request = format!("{head}{headers}\r\n");
        // The server may close before it has all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        let read = stream.read_exact(&mut answer).await;
        if read.is_ok() || status == "200" {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(answer, format!("HTTP/1.1 {status}"), "{}", headers.len());
        }
        assert!(server.is_alive().await);
    }
    assert!(server.tells_of("headers") && server.tells_of("url"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_those_there_are_served() {
    let limits = Limits {
        connections: 3,
        header_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        ..small()
    };
    let server = Server::start(limits).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        open.push(stream);
    }
    let mut fourth = server.connect().await;
    let refused = rest(&mut fourth).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let body = refused.split("\r\n\r\n").nth(1).unwrap();
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], 503);
    assert!(refused.contains("\r\nRetry-After: "));
    assert_eq!(server.refused("connections"), 1);
    assert!(server.tells_of("connections"));
    // One that is open is answered, and one that closes makes room.
    let mut one = open.pop().unwrap();
    let last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    one.write_all(last).await.unwrap();
    assert!(rest(&mut one).await.contains("HTTP/1.1 200"));
    for _ in 0..100 {
        if server.is_alive().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there is room again");
}

#[tokio::test]
async fn requests_beyond_the_queue_are_refused_while_others_wait() {
    let limits = Limits {
        requests: 1,
        queued_requests: 1,
        queue_timeout: Duration::from_millis(300),
        progress_timeout: Duration::from_secs(20),
        ..small()
    };
    let server = Server::start(limits).await;
    // One that is worked on until its body has come.
    let mut holding = server.connect().await;
    let head = "PUT /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/octet-stream\r\nContent-Length: 4194304\r\n\r\n";
    holding.write_all(head.as_bytes()).await.unwrap();
    while server.state.telemetry().requests().running_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let request = b"GET /v1/repos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (one, other) = tokio::join!(server.answer(request), server.answer(request));
    for answer in [&one, &other] {
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.to_lowercase().contains("\r\nretry-after: "),
            "{answer}"
        );
    }
    let waited = [&one, &other].map(|answer| answer.contains("took longer"));
    assert!(
        waited[0] != waited[1],
        "one waits, the other is refused at once"
    );
    assert!(server.is_alive().await);
    drop(holding);
    for _ in 0..100 {
        if server.answer(request).await.starts_with("HTTP/1.1 200") {
            return;
        }
    }
    panic!("the place is free again");
}

#[tokio::test]
async fn a_request_ends_at_its_deadline() {
    let limits = Limits {
        request_timeout: Duration::from_millis(200),
        progress_timeout: Duration::from_secs(20),
        ..small()
    };
    let server = Server::start(limits).await;
    let head = "PUT /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/octet-stream\r\nContent-Length: 4194304\r\n\r\n";
    let answer = server.answer(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert_eq!(server.refused("deadline"), 1);
}

#[tokio::test]
async fn a_body_that_would_inflate_is_refused_as_it_is() {
    let server = Server::start(small()).await;
    for coding in ["gzip", "zstd", "br", "gzip, gzip"] {
        let head = format!(
            "PUT /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\
             Connection: close\r\nContent-Type: application/octet-stream\r\n\
             Content-Encoding: {coding}\r\nContent-Length: 4\r\n\r\nbomb"
        );
        let answer = server.answer(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 415"), "{coding}: {answer}");
    }
}

#[tokio::test]
async fn what_was_begun_is_finished_when_a_server_ends() {
    let limits = Limits {
        progress_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        header_timeout: Duration::from_secs(20),
        ..small()
    };
    // More than the system keeps of it on both sides.
    let server = Server::over(32 << 20, limits).await;
    let mut idle = server.connect().await;
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    idle.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut slow = server.connect().await;
    let request = b"GET /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    slow.write_all(request).await.unwrap();
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    server.state.telemetry().enter(Phase::Draining);
    let ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let ready = server.answer(ready).await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(
        server.is_alive().await,
        "it goes on for those who have not noticed"
    );

    server.state.telemetry().enter(Phase::Stopping);
    rest(&mut idle).await;
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!server.ended.is_finished());
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).await.unwrap();
    let head = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    assert_eq!(bytes.len() - head - 4, 32 << 20);
    let ended = tokio::time::timeout(Duration::from_secs(10), server.ended).await;
    ended.expect("it ends with its last answer").unwrap();
}

/// `quarr serve` as a process over a store in `directory`, killed when dropped.
struct Process {
    child: Child,
    address: String,
    logged: Option<JoinHandle<String>>,
}

impl Process {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_quarr"))
            .args(["serve", "--listen", "127.0.0.1:0", "--store"])
            .arg(directory)
            .args(arguments)
            .env("RUST_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let logged = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap();
        let address = address.split(' ').next().unwrap().to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        Self {
            child,
            address,
            logged: Some(logged),
        }
    }

    fn signal(&self) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    /// Its exit code and what it logged, once it has ended.
    async fn end(mut self) -> (Option<i32>, String) {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.logged.take().unwrap().join().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn stored(bytes: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap()).unwrap();
    fill(&store, bytes).await;
    directory
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn one_trace_goes_through_the_pool_to_the_collector() {
    let collected = Arc::<Mutex<Vec<Bytes>>>::default();
    let take = |Shared(collected): Shared<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| async move {
        collected.lock().unwrap().push(body);
    };
    let collector = Router::new()
        .route("/v1/traces", post(take))
        .with_state(collected.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, collector).await });
    let directory = stored(1 << 20).await;
    let arguments = ["--otlp-endpoint", &endpoint, "--slow-query-ms", "0"];
    let process = Process::start(directory.path(), &arguments);
    let above = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n");
    let path = "/v1/repos/demo/refs/main/data/x?slice=0:12500&token=s3cret";
    let answer = process.get(path, &above).await;
    assert!(
        answer.starts_with("HTTP/1.1 400"),
        "no such parameter: {answer}"
    );
    let path = "/v1/repos/demo/refs/main/data/x?slice=0:12500";
    let answer = process.get(path, &above).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..100]);
    assert!(answer.contains(&format!("traceparent: 00-{TRACE}-")));
    // What was not sent is sent before the process ends.
    process.signal();
    let (code, logged) = process.end().await;
    assert_eq!(code, Some(0), "{logged}");

    let mut spans: Vec<Span> = Vec::new();
    for body in collected.lock().unwrap().iter() {
        let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
        let scopes = request
            .resource_spans
            .into_iter()
            .flat_map(|of| of.scope_spans);
        spans.extend(scopes.flat_map(|of| of.spans));
    }
    spans.retain(|span| hex(&span.trace_id) == TRACE);
    let attribute = |span: &Span, name: &str| {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key == name);
        found.map(|attribute| format!("{:?}", attribute.value))
    };
    let route = "GET /v1/repos/{repository}/refs/{reference}/data/{*path}";
    let is_answered = |span: &&Span| {
        let status = attribute(span, "http.response.status_code");
        span.name == route && status.is_some_and(|status| status.contains("200"))
    };
    let request = spans.iter().find(is_answered).expect("the request");
    assert_eq!(hex(&request.parent_span_id), "b7ad6b7169203331");
    let is_below = |span: &Span| {
        let mut at = span;
        while let Some(above) = spans
            .iter()
            .find(|above| above.span_id == at.parent_span_id)
        {
            at = above;
        }
        at.span_id == request.span_id
    };
    for name in ["plan", "fetch", "store", "compute"] {
        let found = spans.iter().any(|span| span.name == name && is_below(span));
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert!(found, "{name}: {names:?}");
    }
    let compute = spans.iter().find(|span| span.name == "compute").unwrap();
    let thread = attribute(compute, "thread.name").unwrap();
    assert!(thread.contains("quarr-cpu-"), "{thread}");

    // The log has the same trace, and nothing that may be a secret.
    let lines = logged
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let slow: Vec<Value> = lines
        .filter(|line| line["fields"]["message"] == "slow request")
        .collect();
    let line = slow
        .iter()
        .find(|line| line["fields"]["status"] == 200)
        .expect("it was slow");
    assert_eq!(line["fields"]["trace_id"], TRACE);
    assert_eq!(line["fields"]["selection"], "slice=0:12500");
    assert_eq!(line["fields"]["chunks"], 2);
    assert_eq!(line["fields"]["complete"], true);
    assert!(
        line["fields"]["store_requests"].as_u64().unwrap() > 0,
        "{line}"
    );
    assert!(!logged.contains("s3cret"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_process_that_is_asked_to_end_finishes_a_download() {
    let directory = stored(32 << 20).await;
    let process = Process::start(directory.path(), &["--drain-delay", "600ms"]);
    let mut slow = TcpStream::connect(&process.address).await.unwrap();
    let request = b"GET /v1/repos/demo/refs/main/data/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    slow.write_all(request).await.unwrap();
    let mut begun = vec![0; 100_000];
    slow.read_exact(&mut begun).await.unwrap();
    process.signal();
    let mut ready = String::new();
    for _ in 0..40 {
        ready = process.get("/readyz", "").await;
        if !ready.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    while TcpStream::connect(&process.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut bytes = begun;
    slow.read_to_end(&mut bytes).await.unwrap();
    let head = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    assert_eq!(bytes.len() - head - 4, 32 << 20);
    let (code, logged) = process.end().await;
    assert_eq!(code, Some(0), "{logged}");
}

#[tokio::test]
async fn a_process_that_is_asked_twice_ends_at_once() {
    let directory = stored(1 << 20).await;
    let process = Process::start(directory.path(), &["--drain-delay", "1h"]);
    process.signal();
    while !process.get("/readyz", "").await.starts_with("HTTP/1.1 503") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.signal();
    assert_eq!(process.end().await.0, Some(1));
}
