//! `quarr audit`: a service as somebody sees it who trusts nothing but the log's key.
//!
//! ```text
//! head seen before ─► its last tiles ─► all records since ─► root of the signed head
//!                                            └► some log entries, some proofs, the data they prove
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use query::proven_values;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use storage::proof::check;
use storage::tlog::{
    Checkpoint, Edge, Head, TILE_WIDTH, Tile, Tiles, TreeHash, VerifierKey, check_consistency,
    consistency_ranges, entry_hash, record, root, tiles_for,
};
use uuid::Uuid;

use super::proofs::check_signatures;
use super::upkeep::age;
use super::{Failed, print};

/// Requests at once.
const CONCURRENT_REQUESTS: usize = 8;
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Groups gone through on the way to an array.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[arg(
        help = "The service, like https://data.example, or one of its repositories, like https://data.example/v1/repos/climate"
    )]
    url: String,
    /// The key the log is signed with, from whoever runs the service. Those of witnesses may be
    /// given too: each of them must have signed.
    #[arg(long, required = true, value_name = "VKEY")]
    key: Vec<VerifierKey>,
    /// Where the last head seen is kept, by default in the user's state directory.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Log entries and inner chunks to pick at random and check.
    #[arg(long, default_value_t = 8, value_name = "COUNT")]
    samples: usize,
    /// Audit again and again, with this pause.
    #[arg(long, value_name = "TIME", value_parser = age)]
    every: Option<chrono::TimeDelta>,
}

/// What was found in order.
#[derive(Debug)]
struct Audited {
    head: Head,
    signed_by: Vec<String>,
    /// Entries of the head seen before.
    before: Option<u64>,
    entries: usize,
    proofs: usize,
}

pub(super) async fn audit(
    args: &AuditArgs,
    http: reqwest::Client,
    as_json: bool,
) -> Result<(), Failed> {
    let log = args.key[0].name().to_owned();
    let state = match &args.state {
        Some(path) => path.clone(),
        None => state_file(&log)?,
    };
    let mut service = Outsider::new(http);
    service.find_repository(&args.url, &log).await?;
    loop {
        let audited = match (once(&service, args, &state).await, args.every) {
            (Ok(audited), _) => audited,
            (Err(failed), None) => return Err(failed),
            (Err(Failed(reason)), Some(pause)) => {
                writeln!(std::io::stderr(), "error: {reason}")?;
                tokio::time::sleep(pause.to_std()?).await;
                continue;
            }
        };
        let before = match audited.before {
            Some(size) => format!("continues the {size} seen before"),
            None => "seen for the first time".to_owned(),
        };
        let told = format!(
            "in order: {log} has {} entries, {before}; signed by {}; {} entries and {} inner chunks checked",
            audited.head.size,
            audited.signed_by.join(", "),
            audited.entries,
            audited.proofs
        );
        let facts = json!({
            "log": log,
            "size": audited.head.size.to_string(),
            "root": audited.head.root.to_string(),
            "signed_by": audited.signed_by,
            "seen_before": audited.before.map(|size| size.to_string()),
            "entries_checked": audited.entries,
            "proofs_checked": audited.proofs,
        });
        print::line(&facts, as_json, &told);
        match args.every {
            Some(pause) => tokio::time::sleep(pause.to_std()?).await,
            None => return Ok(()),
        }
    }
}

/// The file for what was seen of a log.
fn state_file(log: &str) -> Result<PathBuf, Failed> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = variable("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let state = state.ok_or_else(|| Failed("there is no home directory: give --state".into()))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain: String = log
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    // Names that look the same without their special characters are told apart.
    let tail = TreeHash::leaf(log.as_bytes()).0;
    let tail = u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]);
    Ok(state
        .join("quarr/audit")
        .join(format!("{plain}-{tail:08x}")))
}

async fn once(service: &Outsider, args: &AuditArgs, state: &Path) -> Result<Audited, Failed> {
    let before = read_state(state, &args.key)?;
    let (checkpoint, signed_by) = service.checkpoint(&args.key).await?;
    let head = &checkpoint.head;
    let evidence = |reason: &str| match &before {
        Some(before) => keep_evidence(state, &[before, &checkpoint], reason),
        None => Failed(reason.to_owned()),
    };
    if let Some(before) = &before {
        let contradicts = match head.size.cmp(&before.head.size) {
            std::cmp::Ordering::Less => Some(format!(
                "the log had {} entries and now has {}: it was rolled back, or an old copy is served",
                before.head.size, head.size
            )),
            std::cmp::Ordering::Equal if head.root != before.head.root => Some(format!(
                "two heads of {} entries with different roots are signed",
                head.size
            )),
            _ => None,
        };
        if let Some(reason) = contradicts {
            return Err(evidence(&reason));
        }
    }
    let start = before.as_ref().map(|before| &before.head);
    let records = match service.records(start, head).await? {
        Ok(records) => records,
        Err(reason) => return Err(evidence(&reason)),
    };
    let entries = service.sample_entries(&records, args.samples).await?;
    let mut proofs = 0;
    for _ in 0..args.samples {
        proofs += usize::from(service.sample_proof(args, state, &checkpoint).await?);
    }
    write_state(state, &checkpoint)?;
    Ok(Audited {
        head: head.clone(),
        signed_by,
        before: before.map(|before| before.head.size),
        entries,
        proofs,
    })
}

/// The head seen before.
fn read_state(path: &Path, keys: &[VerifierKey]) -> Result<Option<Checkpoint>, Failed> {
    let wrong = |reason: String| Failed(format!("{}: {reason}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let checkpoint: Checkpoint = text.parse().map_err(wrong)?;
    checkpoint.verify(keys).map_err(|reason| {
        wrong(format!(
            "the head seen before: {reason}; give the key of then as well, or delete the file to start anew"
        ))
    })?;
    Ok(Some(checkpoint))
}

fn write_state(path: &Path, checkpoint: &Checkpoint) -> Result<(), Failed> {
    let wrong = |error: std::io::Error| Failed(format!("{}: {error}", path.display()));
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, checkpoint.to_string()).map_err(wrong)?;
    std::fs::rename(&new, path).map_err(wrong)
}

/// A failure, with the signed heads that do not go together kept beside the state.
fn keep_evidence(state: &Path, heads: &[&Checkpoint], reason: &str) -> Failed {
    let mut kept = Vec::new();
    for checkpoint in heads {
        let Head { size, root, .. } = &checkpoint.head;
        let [a, b, c, d, ..] = root.0;
        let name = format!("{size}-{a:02x}{b:02x}{c:02x}{d:02x}");
        let path = state.with_extension(format!("head-{name}"));
        if std::fs::write(&path, checkpoint.to_string()).is_ok() {
            kept.push(path.display().to_string());
        }
    }
    match kept.is_empty() {
        true => Failed(reason.to_owned()),
        false => Failed(format!(
            "{reason}; the signed heads in question are kept: {}",
            kept.join(" and ")
        )),
    }
}

/// A service, seen from outside.
struct Outsider {
    http: reqwest::Client,
    /// Of the repository.
    url: String,
}

impl Outsider {
    fn new(http: reqwest::Client) -> Self {
        Self {
            http,
            url: String::new(),
        }
    }

    /// The repository at `url`, or the one of the service there that has this log.
    async fn find_repository(&mut self, url: &str, log: &str) -> Result<(), Failed> {
        let url = url.trim_end_matches('/');
        if url.contains("/v1/repos/") {
            url.clone_into(&mut self.url);
            return Ok(());
        }
        let mut list = format!("{url}/v1/repos");
        loop {
            let found = self.get(&list).await?;
            let found = parse(&list, &found.ok_or_else(|| missing(&list))?)?;
            for repository in found["repositories"].as_array().into_iter().flatten() {
                let name = repository["name"].as_str().unwrap_or_default();
                self.url = format!("{url}/v1/repos/{name}");
                let checkpoint = self.get(&format!("{}/tlog/checkpoint", self.url)).await?;
                let text = checkpoint.as_deref().map(std::str::from_utf8);
                if let Some(Ok(text)) = text
                    && text.split('\n').next() == Some(log)
                {
                    return Ok(());
                }
            }
            let Some(next) = found["next"].as_str() else {
                return Err(Failed(format!("{url} publishes no log {log}")));
            };
            list = format!("{url}/v1/repos?after={next}");
        }
    }

    /// The bytes at a URL; `None` if there is nothing.
    async fn get(&self, url: &str) -> Result<Option<Bytes>, Failed> {
        let mut response = self.http.get(url).timeout(TIMEOUT).send().await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(Failed(format!("{url}: the service answered {status}")));
        }
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await? {
            answer.extend_from_slice(&part);
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(Failed(format!("{url}: the answer is too long")));
            }
        }
        Ok(Some(answer.into()))
    }

    async fn existing(&self, path: &str) -> Result<Bytes, Failed> {
        let url = format!("{}/{path}", self.url);
        self.get(&url).await?.ok_or_else(|| missing(&url))
    }

    async fn json(&self, path: &str) -> Result<Value, Failed> {
        parse(path, &self.existing(path).await?)
    }

    /// The newest signed head, and who signed it.
    async fn checkpoint(&self, keys: &[VerifierKey]) -> Result<(Checkpoint, Vec<String>), Failed> {
        let bytes = self.existing("tlog/checkpoint").await?;
        let wrong = |reason: String| Failed(format!("tlog/checkpoint: {reason}"));
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        let checkpoint: Checkpoint = text.parse().map_err(wrong)?;
        let signed = check_signatures(keys, Some(&checkpoint))?;
        Ok((checkpoint, signed))
    }

    async fn tiles(&self, tiles: impl IntoIterator<Item = Tile>) -> Result<Tiles, Failed> {
        let tiles: Vec<Tile> = tiles.into_iter().collect();
        futures::stream::iter(tiles)
            .map(|tile| async move {
                let bytes = self.existing(&format!("tlog/{tile}")).await?;
                let hashes = tile.hashes(&bytes);
                let wrong = |reason| Failed(format!("{tile}: {reason}"));
                Ok((tile, hashes.map_err(wrong)?))
            })
            .buffer_unordered(CONCURRENT_REQUESTS)
            .try_collect()
            .await
    }

    /// The records of the entries after `before`, which lead from its root to that of `head`; or
    /// why they do not.
    async fn records(
        &self,
        before: Option<&Head>,
        head: &Head,
    ) -> Result<Result<Vec<Record>, String>, Failed> {
        let mut edge = Edge::default();
        if let Some(before) = before {
            let tiles = self.tiles(Edge::tiles(before.size)).await?;
            let found = Edge::new(before.size, &tiles).map_err(Failed)?;
            if found.root() != before.root {
                return Ok(Err(format!(
                    "the first {} entries are not those seen before",
                    before.size
                )));
            }
            edge = found;
        }
        let first = edge.size() / TILE_WIDTH * TILE_WIDTH;
        let bundles = (first..head.size).step_by(TILE_WIDTH as usize);
        let bundles: Vec<Tile> = bundles.map(|at| Tile::bundle(at, head.size)).collect();
        let bundles: Vec<Tile> = match edge.size() == head.size {
            true => Vec::new(),
            false => bundles,
        };
        let mut read = futures::stream::iter(bundles)
            .map(|tile| async move {
                let bytes = self.existing(&format!("tlog/{tile}")).await?;
                let wrong = |reason| Failed(format!("{tile}: {reason}"));
                tile.records(&bytes).map_err(wrong)
            })
            .buffered(CONCURRENT_REQUESTS);
        let mut found = Vec::new();
        let (mut sequence, mut full) = (first, Vec::new());
        while let Some(records) = read.try_next().await? {
            for bytes in records {
                let record = Record::parse(sequence, &bytes)
                    .ok_or_else(|| Failed(format!("entry {sequence} of the log is no record")))?;
                if sequence >= edge.size() {
                    edge.push(TreeHash::leaf(&bytes), &mut full);
                    full.clear();
                    found.push(record);
                }
                sequence += 1;
            }
        }
        Ok(match edge.root() == head.root {
            true => Ok(found),
            false => Err(format!(
                "the entries of the log do not lead to the signed root of {} entries",
                head.size
            )),
        })
    }

    /// Checks the newest of these log entries and some others; says how many.
    async fn sample_entries(&self, records: &[Record], count: usize) -> Result<usize, Failed> {
        let mut picked: Vec<&Record> = records.sample(&mut rand::rng(), count).collect();
        picked.extend(records.last().filter(|_| count > 0));
        picked.sort_by_key(|record| record.sequence);
        picked.dedup_by_key(|record| record.sequence);
        for record in &picked {
            let sequence = record.sequence;
            let bytes = self.existing(&format!("log/{sequence}")).await?;
            let wrong = |reason| Failed(format!("log entry {sequence}: {reason}"));
            if entry_hash(sequence, &bytes).map_err(wrong)? != record.entry {
                return Err(wrong("it is not the one that was signed".into()));
            }
        }
        Ok(picked.len())
    }

    /// Checks that a signed head is a beginning or a continuation of `head`.
    async fn check_head(&self, head: &Head, other: &Head) -> Result<(), Failed> {
        let (old, new) = match head.size <= other.size {
            true => (head, other),
            false => (other, head),
        };
        let ranges = consistency_ranges(old.size, new.size);
        let tiles = self.tiles(tiles_for(&ranges, new.size)).await?;
        let hash = |range: &std::ops::Range<u64>| root(range.clone(), new.size, &tiles);
        let proof: Result<Vec<TreeHash>, String> = ranges.iter().map(hash).collect();
        let proof = proof.map_err(Failed)?;
        check_consistency((old.size, old.root), (new.size, new.root), &proof).map_err(Failed)
    }

    /// Checks the proof of an inner chunk picked at random, and that the service gives the same
    /// values; says whether there was one.
    async fn sample_proof(
        &self,
        args: &AuditArgs,
        state: &Path,
        seen: &Checkpoint,
    ) -> Result<bool, Failed> {
        let branches = self.json("branches").await?;
        let branches = branches["refs"].as_array().cloned().unwrap_or_default();
        let Some(branch) = branches.choose(&mut rand::rng()) else {
            return Ok(false);
        };
        let commit = branch["commit"].as_str().unwrap_or_default().to_owned();
        let Some((path, shape)) = self.pick_array(&commit).await? else {
            return Ok(false);
        };
        let mut rng = rand::rng();
        let at: Vec<String> = shape
            .iter()
            .map(|&length| rng.random_range(0..length).to_string())
            .map(|at| format!("{at}:{}", at.parse::<u64>().unwrap_or(0) + 1))
            .collect();
        let query = format!("slice={}", at.join(","));
        let bytes = self
            .existing(&format!("refs/{commit}/proof/{path}?{query}"))
            .await?;
        let proven = check(&bytes)?;
        let place = format!("{path}[{}] at {commit}", at.join(","));
        let asked = (proven.path.as_str(), proven.commit.to_string());
        let region = proven.region.to_string();
        if asked != (path.as_str(), commit.clone()) || region != at.join(",") {
            return Err(Failed(format!("the proof of {place} is of something else")));
        }
        check_signatures(&args.key, proven.checkpoint.as_ref())?;
        if let Some(checkpoint) = &proven.checkpoint {
            let checked = self.check_head(&seen.head, &checkpoint.head).await;
            checked.map_err(|Failed(reason)| keep_evidence(state, &[seen, checkpoint], &reason))?;
        }
        let values = proven_values(&proven)?;
        let query = format!("{query}&decode=raw&f=json");
        let served = self
            .existing(&format!("refs/{commit}/data/{path}?{query}"))
            .await?;
        let names = vec![None; values.shape.len()];
        let proven = crate::format::Format::Json.encode_tensor(values, &names)?;
        let served = parse(&place, &served)?;
        let proven = parse(&place, &proven)?;
        match served["values"] == proven["values"] {
            true => Ok(true),
            false => Err(Failed(format!(
                "the service gives {} for {place}, and proves {}",
                served["values"], proven["values"]
            ))),
        }
    }

    /// An array with elements, picked at random, and its shape.
    async fn pick_array(&self, commit: &str) -> Result<Option<(String, Vec<u64>)>, Failed> {
        let mut path = String::new();
        for _ in 0..MAX_DEPTH {
            let node = self.json(&format!("refs/{commit}/nodes/{path}")).await?;
            let members = node["members"].as_array().cloned().unwrap_or_default();
            let Some(member) = members.choose(&mut rand::rng()) else {
                return Ok(None);
            };
            let name = member["name"].as_str().unwrap_or_default();
            path = match path.as_str() {
                "" => name.to_owned(),
                above => format!("{above}/{name}"),
            };
            if let Some(shape) = member["shape"].as_array() {
                let shape: Vec<u64> = shape.iter().filter_map(Value::as_u64).collect();
                let is_empty = shape.contains(&0);
                return Ok((!is_empty).then_some((path, shape)));
            }
        }
        Ok(None)
    }
}

/// JSON, or what it is not the answer to.
fn parse(what: &str, bytes: &[u8]) -> Result<Value, Failed> {
    serde_json::from_slice(bytes).map_err(|error| Failed(format!("{what}: not JSON: {error}")))
}

fn missing(url: &str) -> Failed {
    Failed(format!("{url}: there is nothing"))
}

/// What the transparency log says of an entry.
struct Record {
    sequence: u64,
    entry: array::Hash,
}

impl Record {
    fn parse(sequence: u64, bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split('\n').skip(1);
        let repository: Uuid = lines.next()?.parse().ok()?;
        let entry = lines.nth(1)?.parse().ok()?;
        (record(repository, sequence, entry) == text).then_some(Self { sequence, entry })
    }
}
