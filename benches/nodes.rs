//! Servers under many clients: small slices from one, then two on one store behind a proxy, each of which
//! is killed once.
//!
//! `nodes BINARIES [STORE] [--seconds 300] [--clients 200]`: the folder of the `quarr` binary; a folder
//! or URL for the store, a temporary folder if left out.
//!
//! The proxy hands on connections by turns, and answers 502 for a server it does not reach. Each client
//! has a cell of an array for itself: it adds one to it, reads it back, and reads boxes of a second array
//! whose values are known. What must hold:
//!
//! - a write that was acknowledged is read from then on, by whichever server;
//! - a write that was not is sent again with its idempotency key, and done once;
//! - nothing else is ever read, and no status seen but success, 502 and 503.
//!
//! The last line of the output is a report in JSON; the exit status is 1 if something did not hold.

#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Rows and columns of the array whose values are known.
const SIDE: u64 = 1024;
/// Rows and columns of a box that is read of it.
const BOX: u64 = 8;
/// Clients of the first part, and how long it takes for each kind of address.
const SLICE_CLIENTS: usize = 16;
const SLICE_TIME: Duration = Duration::from_secs(15);
/// How long a server stays away after it was killed.
const AWAY: Duration = Duration::from_secs(10);
/// A request without an answer for so long is sent again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wrong answers that are printed.
const MAX_PRINTED: usize = 10;

/// A server, which is stopped when this is dropped.
struct Node {
    binary: PathBuf,
    store: String,
    address: SocketAddr,
    child: Child,
}

impl Node {
    fn start(binary: &Path, store: &str) -> Result<Self, Error> {
        // Free a moment ago, and the same after a restart.
        let address = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = spawn(binary, store, address)?;
        let (binary, store) = (binary.to_owned(), store.to_owned());
        Ok(Self {
            binary,
            store,
            address,
            child,
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.child = spawn(&self.binary, &self.store, self.address)?;
        Ok(())
    }

    /// Seconds of processor time so far.
    fn processor_seconds(&self) -> Result<f64, Error> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').ok_or("no process")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |nth: usize| {
            fields
                .get(nth)
                .map_or(Ok(0.0), |field| field.parse::<f64>())
        };
        // `USER_HZ` is 100 wherever Linux runs.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(binary: &Path, store: &str, address: SocketAddr) -> std::io::Result<Child> {
    Command::new(binary)
        .args(["serve", "--store", store, "--listen", &address.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

async fn wait_until_ready(url: &str) -> Result<(), Error> {
    let (client, began) = (Client::new(), Instant::now());
    while began.elapsed() < PATIENCE {
        if let Ok(answer) = client.get(format!("{url}/v1/repos")).send().await
            && answer.status().is_success()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{url} does not answer").into())
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    /// Milliseconds of requests that succeeded, by kind.
    times: BTreeMap<&'static str, Vec<f64>>,
    /// Other answers, by status; 0 for connections that broke.
    troubles: BTreeMap<u16, u64>,
    wrong: Vec<String>,
}

#[derive(Clone, Default)]
struct Record(Arc<Mutex<Seen>>);

impl Record {
    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn took(&self, kind: &'static str, time: Duration) {
        let milliseconds = time.as_secs_f64() * 1e3;
        self.with(|seen| seen.times.entry(kind).or_default().push(milliseconds));
    }

    fn wrong(&self, what: String) {
        self.with(|seen| seen.wrong.push(what));
    }

    fn report(&self, elapsed: Duration) -> serde_json::Value {
        self.with(|seen| {
            let mut kinds = serde_json::Map::new();
            for (kind, times) in &mut seen.times {
                times.sort_by(f64::total_cmp);
                let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
                let per_second = times.len() as f64 / elapsed.as_secs_f64();
                kinds.insert(
                    (*kind).to_owned(),
                    json!({
                        "requests": times.len(),
                        "per_second": per_second.round(),
                        "p50_ms": at(0.5),
                        "p99_ms": at(0.99),
                        "longest_ms": at(1.0),
                    }),
                );
            }
            json!({ "answered": kinds, "troubles": seen.troubles, "wrong": seen.wrong.len() })
        })
    }
}

/// A client's way to a server, or to the proxy.
#[derive(Clone)]
struct Way {
    http: Client,
    url: String,
    record: Record,
}

impl Way {
    fn new(url: &str, record: &Record) -> Result<Self, Error> {
        let http = Client::builder().timeout(PATIENCE).no_proxy().build()?;
        Ok(Self {
            http,
            url: url.to_owned(),
            record: record.clone(),
        })
    }

    /// Asks until there is an answer that counts; `None` for a status that there must not be.
    async fn ask(
        &self,
        kind: &'static str,
        request: impl Fn(&Client, &str) -> reqwest::RequestBuilder,
    ) -> Option<Vec<u8>> {
        loop {
            let began = Instant::now();
            let answer = match request(&self.http, &self.url).send().await {
                Ok(answer) => {
                    let status = answer.status();
                    answer.bytes().await.map(|body| (status, body))
                }
                Err(error) => Err(error),
            };
            let trouble = match answer {
                Ok((status, body)) if status.is_success() => {
                    self.record.took(kind, began.elapsed());
                    return Some(body.to_vec());
                }
                Ok((StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE, _)) => 503,
                Ok((status, body)) => {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    self.record.wrong(format!("{kind}: {status} {text}"));
                    return None;
                }
                Err(_) => 0,
            };
            self.record
                .with(|seen| *seen.troubles.entry(trouble).or_default() += 1);
            tokio::time::sleep(Duration::from_millis(rand_below(200) + 50)).await;
        }
    }

    /// Reads a box of the known array and checks it.
    async fn read_box(&self, kind: &'static str, reference: &str) {
        let (row, column) = (rand_below(SIDE - BOX), rand_below(SIDE - BOX));
        let slice = format!("{row}:{},{column}:{}", row + BOX, column + BOX);
        let found = self.ask(kind, |http, url| {
            http.get(format!(
                "{url}/v1/repos/demo/refs/{reference}/data/known?slice={slice}"
            ))
            .header("accept", "application/octet-stream")
        });
        let Some(found) = found.await else { return };
        let rows = (row..row + BOX).flat_map(|r| (column..column + BOX).map(move |c| (r, c)));
        let expected: Vec<u8> = rows.flat_map(|(r, c)| known(r, c).to_le_bytes()).collect();
        if found != expected {
            self.record
                .wrong(format!("{kind}: {slice} has other values"));
        }
    }

    async fn read_cell(&self, cell: usize) -> Option<i64> {
        let found = self.ask("read own cell", |http, url| {
            http.get(format!(
                "{url}/v1/repos/demo/refs/main/data/cells?slice={cell}"
            ))
            .header("accept", "application/octet-stream")
        });
        let found = found.await?;
        Some(i64::from_le_bytes(found.try_into().ok()?))
    }

    async fn write_cell(&self, cell: usize, value: i64) -> Option<()> {
        let written = self.ask("write", |http, url| {
            http.put(format!(
                "{url}/v1/repos/demo/refs/main/data/cells?slice={cell}"
            ))
            .header("content-type", "application/octet-stream")
            .header("idempotency-key", format!("{cell}-{value}"))
            .body(value.to_le_bytes().to_vec())
        });
        written.await.map(drop)
    }
}

/// The value of a cell of the known array.
fn known(row: u64, column: u64) -> f32 {
    (row * SIDE + column) as f32
}

fn rand_below(end: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // Each state has keys of its own.
    RandomState::new().hash_one(end) % end
}

/// Makes the repository with both arrays; gives the commit.
async fn fill(url: &str, clients: usize) -> Result<String, Error> {
    let http = Client::new();
    let of_branch = format!("{url}/v1/repos/demo/refs/main");
    let repository = http.put(format!("{url}/v1/repos/demo")).send().await?;
    repository.error_for_status()?;
    for (path, array) in [
        (
            "known",
            json!({ "shape": [SIDE, SIDE], "data_type": "float32", "chunks": [64, 64], "shards": [512, 512] }),
        ),
        (
            "cells",
            json!({ "shape": [clients], "data_type": "int64", "chunks": [1], "shards": [1] }),
        ),
    ] {
        let made = http
            .put(format!("{of_branch}/nodes/{path}"))
            .header("content-type", "application/json")
            .body(array.to_string())
            .send();
        made.await?.error_for_status()?;
    }
    let rows = (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (row, column)));
    let values: Vec<u8> = rows.flat_map(|(r, c)| known(r, c).to_le_bytes()).collect();
    let written = http
        .put(format!("{of_branch}/data/known"))
        .header("content-type", "application/octet-stream")
        .body(values)
        .send()
        .await?;
    written.error_for_status()?;
    let head = http.get(of_branch).send().await?.error_for_status()?;
    let head: serde_json::Value = serde_json::from_slice(&head.bytes().await?)?;
    Ok(head["commit"].as_str().ok_or("no commit")?.to_owned())
}

/// Reads boxes from one server by way of `reference` as fast as it answers.
async fn read_boxes(
    node: &Node,
    kind: &'static str,
    reference: &str,
) -> Result<serde_json::Value, Error> {
    let record = Record::default();
    let (began, before) = (Instant::now(), node.processor_seconds()?);
    let mut clients = JoinSet::new();
    for _ in 0..SLICE_CLIENTS {
        let way = Way::new(&node.url(), &record)?;
        let reference = reference.to_owned();
        clients.spawn(async move {
            while began.elapsed() < SLICE_TIME {
                way.read_box(kind, &reference).await;
            }
        });
    }
    while clients.join_next().await.is_some() {}
    let elapsed = began.elapsed();
    let used = node.processor_seconds()? - before;
    let mut report = record.report(elapsed);
    let requests = report["answered"][kind]["requests"].as_f64().unwrap_or(0.0);
    report["per_processor_second"] = json!((requests / used).round());
    Ok(report)
}

/// Hands connections to servers by turns.
async fn proxy(servers: Vec<SocketAddr>) -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let next = AtomicUsize::new(0);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = servers[next.fetch_add(1, Ordering::Relaxed) % servers.len()];
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(server).await else {
                    let answer =
                        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = client.write_all(answer).await;
                    return;
                };
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    Ok(address)
}

/// Many clients of two servers, each of which is killed once.
async fn two_nodes(
    nodes: &mut [Node; 2],
    clients: usize,
    time: Duration,
) -> Result<serde_json::Value, Error> {
    let url = format!(
        "http://{}",
        proxy(nodes.iter().map(|node| node.address).collect()).await?
    );
    let (record, began) = (Record::default(), Instant::now());
    let mut running = JoinSet::new();
    for cell in 0..clients {
        let way = Way::new(&url, &record)?;
        running.spawn(async move {
            let mut value = 0;
            while began.elapsed() < time {
                match rand_below(10) {
                    0 => {
                        if way.write_cell(cell, value + 1).await.is_some() {
                            value += 1;
                        }
                    }
                    1 | 2 => {
                        let found = way.read_cell(cell).await;
                        if found != Some(value) {
                            let text = format!("cell {cell} is {found:?} and not {value}");
                            way.record.wrong(text);
                        }
                    }
                    _ => way.read_box("read box", "main").await,
                }
            }
            (cell, value)
        });
    }
    for node in nodes.iter_mut() {
        tokio::time::sleep(time / 4).await;
        node.kill();
        println!("{:.0} s: killed a server", began.elapsed().as_secs_f64());
        tokio::time::sleep(AWAY.min(time / 8)).await;
        node.restart()?;
    }
    let mut last = vec![0; clients];
    while let Some(done) = running.join_next().await {
        let (cell, value) = done?;
        last[cell] = value;
    }
    let mut report = record.report(began.elapsed());
    for node in nodes.iter() {
        let way = Way::new(&node.url(), &record)?;
        for (cell, value) in last.iter().enumerate() {
            let found = way.read_cell(cell).await;
            if found != Some(*value) {
                record.wrong(format!(
                    "in the end, cell {cell} is {found:?} and not {value}"
                ));
            }
        }
    }
    report["acknowledged_writes"] = json!(last.iter().sum::<i64>());
    report["wrong"] = json!(record.with(|seen| {
        for text in seen.wrong.iter().take(MAX_PRINTED) {
            println!("wrong: {text}");
        }
        seen.wrong.len()
    }));
    Ok(report)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let (mut places, mut settings) = (
        Vec::new(),
        BTreeMap::from([("seconds", 300), ("clients", 200)]),
    );
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name) => {
                let setting = settings.get_mut(name).ok_or("--seconds or --clients")?;
                *setting = arguments.next().ok_or("a number is missing")?.parse()?;
            }
            None => places.push(argument),
        }
    }
    let Some(binaries) = places.first() else {
        return Err("usage: nodes BINARIES [STORE] [--seconds N] [--clients N]".into());
    };
    let folder = tempfile::tempdir()?;
    let store = match places.get(1) {
        Some(store) => store.clone(),
        None => folder.path().join("store").display().to_string(),
    };
    let binary = Path::new(binaries).join("quarr");
    let clients = settings["clients"] as usize;
    let mut nodes = [Node::start(&binary, &store)?, Node::start(&binary, &store)?];
    for node in &nodes {
        wait_until_ready(&node.url()).await?;
    }
    let commit = fill(&nodes[0].url(), clients).await?;
    let by_commit = read_boxes(&nodes[0], "small slice of a commit", &commit).await?;
    println!("{by_commit}");
    let by_branch = read_boxes(&nodes[0], "small slice of a branch", "main").await?;
    println!("{by_branch}");
    let two = two_nodes(
        &mut nodes,
        clients,
        Duration::from_secs(settings["seconds"]),
    )
    .await?;
    let wrong = [&by_commit, &by_branch, &two].map(|report| report["wrong"].as_u64());
    println!(
        "{}",
        json!({ "by_commit": by_commit, "by_branch": by_branch, "two_nodes": two })
    );
    Ok(match wrong {
        [Some(0), Some(0), Some(0)] => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
