//! Commits per second to one branch: from many processes that know nothing of each other, and from
//! as many clients of one service, which commits what waits at the same time together. Each writer
//! has an array of its own.
//!
//! `cargo bench -p quarr-benches --bench commits` prints a table, for a local disk and for MinIO if
//! it is installed. It needs the optimised binaries (`make bench` builds them). `QUARR_BENCH_WRITERS`
//! sets the number of writers.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use array::{ArrayMetadata, CodecMetadata, DataType, RegularGrid};
use quarr_tests::servers::S3Server;
use serde_json::json;
use storage::{CommitOptions, Repository, Store, Transaction};

type Error = Box<dyn std::error::Error + Send + Sync>;

const WRITERS: u64 = 64;
/// Commits of each process; of each client, more, as they are faster.
const COMMITS_OF_A_PROCESS: u64 = 10;
const COMMITS_OF_A_CLIENT: u64 = 60;

/// A store that several processes can open.
struct Place {
    name: &'static str,
    store: Store,
    variables: Vec<(String, String)>,
}

/// How long each commit took, and all of them together.
struct Commits {
    latencies: Vec<Duration>,
    elapsed: Duration,
    /// When the first writer was done, and so no longer in the way of the others.
    first_done: Duration,
}

impl Commits {
    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the commits did not exceed.
    fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at = (share * sorted.len() as f64).ceil() as usize;
        let at = at.saturating_sub(1).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let writers = match std::env::var("QUARR_BENCH_WRITERS") {
        Ok(text) => text.parse()?,
        Err(_) => WRITERS,
    };
    let binaries = binaries()?;
    println!("{writers} writers, each with an array of its own, on one branch\n");
    println!(
        "{:<34} {:>9} {:>10} {:>10} {:>10} {:>12}",
        "", "commits/s", "median", "p99", "longest", "first done"
    );
    let folder = tempfile::tempdir()?;
    let disk = Place {
        name: "local disk",
        store: Store::open(&folder.path().join("store").to_string_lossy())?,
        variables: Vec::new(),
    };
    compare(&disk, writers, &binaries).await?;
    let Some(minio) = S3Server::minio()? else {
        println!("MinIO is not installed: skipped");
        return Ok(());
    };
    let settings = minio.settings().into_iter();
    let bucket = Place {
        name: "MinIO",
        store: minio.store("commits")?,
        variables: settings
            .map(|(name, value)| (name.to_uppercase(), value))
            .collect(),
    };
    compare(&bucket, writers, &binaries).await
}

async fn compare(place: &Place, writers: u64, binaries: &Path) -> Result<(), Error> {
    let alone = processes(place, writers, binaries).await?;
    print(&alone, &format!("{}, {writers} processes", place.name));
    let together = clients(place, writers, binaries).await?;
    print(&together, &format!("{}, one service", place.name));
    let ratio = together.per_second() / alone.per_second();
    println!("{:<34} {ratio:>8.1}×", "");
    Ok(())
}

fn print(commits: &Commits, name: &str) {
    let milliseconds = |duration: Duration| format!("{:.0} ms", duration.as_secs_f64() * 1e3);
    println!(
        "{name:<34} {:>9.1} {:>10} {:>10} {:>10} {:>12}",
        commits.per_second(),
        milliseconds(commits.quantile(0.5)),
        milliseconds(commits.quantile(0.99)),
        milliseconds(commits.quantile(1.0)),
        milliseconds(commits.first_done),
    );
}

/// Where cargo put the other programs of this build.
fn binaries() -> Result<PathBuf, Error> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).ok_or("no build folder")?.to_owned();
    for name in ["append-commits", "quarr"] {
        if !folder.join(name).is_file() {
            return Err(format!("{name} is not in {}: use `make bench`", folder.display()).into());
        }
    }
    Ok(folder)
}

fn array_name(writer: u64) -> String {
    format!("array-{writer}")
}

/// Creates a repository with an array for each writer.
async fn create(place: &Place, name: &str, writers: u64, length: u64) -> Result<(), Error> {
    let repository = Repository::create(place.store.under(name), "bench").await?;
    let transaction = Transaction::begin(&repository, &"main".parse()?).await?;
    for writer in 0..writers {
        let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
        let grid = RegularGrid::new(vec![length], vec![1])?;
        let metadata = ArrayMetadata::new(grid, DataType::Int64, codecs);
        let path = array_name(writer).parse()?;
        transaction.create_array(&path, metadata).await?;
    }
    transaction.commit(CommitOptions::default()).await?;
    Ok(())
}

/// Commits of as many processes as there are writers.
async fn processes(place: &Place, writers: u64, binaries: &Path) -> Result<Commits, Error> {
    create(place, "processes", writers, COMMITS_OF_A_PROCESS + 1).await?;
    let url = format!("{}/processes", place.store.url());
    let started = Instant::now();
    let mut readers = Vec::new();
    for writer in 0..writers {
        let mut process = Command::new(binaries.join("append-commits"))
            .args([&url, &array_name(writer), "1"])
            .arg((COMMITS_OF_A_PROCESS + 1).to_string())
            .envs(place.variables.iter().cloned())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().ok_or("no output")?;
        readers.push(std::thread::spawn(move || {
            let mut times = vec![started.elapsed()];
            for line in BufReader::new(out).lines() {
                line?;
                times.push(started.elapsed());
            }
            process.wait()?;
            Ok::<_, std::io::Error>(times)
        }));
    }
    let mut times = Vec::new();
    for reader in readers {
        times.push(reader.join().map_err(|_| "a reader panicked")??);
    }
    commits_at(&times, COMMITS_OF_A_PROCESS)
}

/// The commits whose acknowledgements came at these times, after the time each writer began.
fn commits_at(times: &[Vec<Duration>], each: u64) -> Result<Commits, Error> {
    if times.iter().any(|times| times.len() as u64 != each + 1) {
        return Err("a writer stopped early".into());
    }
    let latencies = times
        .iter()
        .flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]))
        .collect();
    let ends = times.iter().filter_map(|times| times.last().copied());
    Ok(Commits {
        latencies,
        elapsed: ends.clone().max().unwrap_or_default(),
        first_done: ends.min().unwrap_or_default(),
    })
}

/// A service that is stopped when dropped.
struct Service {
    process: Child,
    url: String,
}

impl Service {
    fn start(place: &Place, binaries: &Path) -> Result<Self, Error> {
        let mut process = Command::new(binaries.join("quarr"))
            .args(["serve", "--listen", "127.0.0.1:0", "--store"])
            .arg(place.store.url())
            .envs(place.variables.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = process.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let at = line.find("http://").ok_or("it does not say its address")?;
        let url = line[at..].trim().to_owned();
        Ok(Self { process, url })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Commits of as many clients of one service as there are writers.
async fn clients(place: &Place, writers: u64, binaries: &Path) -> Result<Commits, Error> {
    create(place, "service", writers, COMMITS_OF_A_CLIENT + 1).await?;
    let service = Service::start(place, binaries)?;
    let client = reqwest::Client::new();
    let started = Instant::now();
    let clients = (0..writers).map(|writer| {
        let (client, url) = (client.clone(), service.url.clone());
        let array = array_name(writer);
        tokio::spawn(async move {
            let mut times = vec![started.elapsed()];
            for number in 1..=COMMITS_OF_A_CLIENT {
                let target =
                    format!("{url}/v1/repos/service/refs/main/data/{array}?slice={number}");
                let answer = client
                    .put(target)
                    .header("content-type", "application/octet-stream")
                    .body(number.to_le_bytes().to_vec())
                    .send()
                    .await?;
                if !answer.status().is_success() {
                    return Err(answer.text().await?.into());
                }
                answer.bytes().await?;
                times.push(started.elapsed());
            }
            Ok::<_, Error>(times)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut times = Vec::new();
    for client in clients {
        times.push(client.await??);
    }
    commits_at(&times, COMMITS_OF_A_CLIENT)
}
