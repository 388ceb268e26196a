//! Random transactions of clients that know nothing of each other, over stores that lose answers
//! and processes that die, and a check of everything the clients saw against the log.
//!
//! The state is a number of registers: elements of an array, several in each shard, and attributes,
//! several in each group. A transaction reads some of them and writes some, always a number that no
//! other transaction writes. The commits of the branch are the order in which it all must have
//! happened:
//!
//! - an acknowledged commit is there once, one that failed is not there, one of which the client
//!   knows nothing is there at most once, and there is no other;
//! - a transaction starts from a commit no older than what was acknowledged before it began, and
//!   every register it reads is as of that commit;
//! - no commit between that one and its own writes what it writes, nor, if it is serializable, what
//!   it reads: so serializable transactions are as if they ran one by one, in the order of the log;
//! - what is stored is what the commits up to then wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use array::{
    ArrayMetadata, ChunkIndex, CodecMetadata, DataType, Elements, GroupMetadata, NodeMetadata,
    NodePath, Region, RegularGrid,
};
use codecs::ArrayCodec;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use storage::{
    ArrayNode, CommitId, CommitOptions, Isolation, Node, Repository, Scope, Snapshot, Store,
    Transaction,
};

use crate::arrays::Error;
use crate::unreliable::{Rates, Unreliable};

const ELEMENTS: u64 = 24;
const SHARD: u64 = 4;
const GROUPS: u64 = 3;
const ATTRIBUTES: u64 = 2;
/// Most registers a transaction reads, and most it writes.
const MAX_REGISTERS: usize = 3;
/// How many clients each process has; those of one process share its commits.
const PROCESSES: [usize; 5] = [3, 2, 1, 1, 1];
/// A process dies after at most so many beginnings and ends of requests.
const LONGEST_LIFE: u64 = 4_000;
/// The stored state is compared after every so many commits.
const COMPARED_EVERY: usize = 250;
const RATES: Rates = Rates {
    put: 0.08,
    get: 0.004,
};

/// What a transaction may read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Register {
    /// An element of the array.
    Element(u64),
    /// An attribute of a group.
    Attribute(u64, u64),
}
use Register::{Attribute, Element};

fn all_registers() -> impl Iterator<Item = Register> {
    let attributes =
        (0..GROUPS).flat_map(|group| (0..ATTRIBUTES).map(move |name| Attribute(group, name)));
    (0..ELEMENTS).map(Element).chain(attributes)
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Transactions of all clients together.
    pub transactions: usize,
    /// Whether all that was committed is read and verified at the end, not only the newest commit.
    pub verifies_history: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Transactions that were acknowledged.
    pub acknowledged: usize,
    /// Of these, serializable ones.
    pub serializable: usize,
    /// Of these, those that were applied to another commit than they started from.
    pub rebased: usize,
    /// Transactions that met a conflict.
    pub conflicts: usize,
    /// Transactions that failed because of the store.
    pub failed: usize,
    /// Transactions of which the client knows nothing.
    pub unknown: usize,
    /// Of these, those that are in the log.
    pub unknown_committed: usize,
    /// Processes that died.
    pub deaths: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged(CommitId),
    Conflict,
    Failed,
    Unknown,
}

/// What a client saw of one transaction.
#[derive(Clone, Debug)]
struct Attempt {
    is_serializable: bool,
    base: Option<CommitId>,
    reads: Vec<(Register, i64)>,
    writes: BTreeSet<Register>,
    /// What the transaction saw of its own writes.
    rereads: Vec<(Register, i64)>,
    /// Counts the events of all clients.
    began: u64,
    ended: u64,
    outcome: Outcome,
}

/// What all clients saw.
#[derive(Debug, Default)]
struct Record {
    attempts: Vec<Attempt>,
    clock: u64,
    deaths: usize,
}

impl Record {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn array_path() -> Result<NodePath, Error> {
    Ok("a".parse()?)
}

fn group_path(group: u64) -> Result<NodePath, Error> {
    Ok(format!("g{group}").parse()?)
}

fn attribute_name(name: u64) -> String {
    format!("value{name}")
}

fn metadata() -> Result<ArrayMetadata, Error> {
    let bytes = json!({ "name": "bytes", "configuration": { "endian": "little" } });
    let sharding = CodecMetadata::new(
        "sharding_indexed",
        json!({
            "chunk_shape": [1],
            "codecs": [bytes],
            "index_codecs": [bytes, { "name": "crc32c" }],
            "index_location": "end",
        }),
    );
    let grid = RegularGrid::new(vec![ELEMENTS], vec![SHARD])?;
    Ok(ArrayMetadata::new(grid, DataType::Int64, vec![sharding]))
}

fn open(objects: &Unreliable) -> Store {
    Store::from_objects(Arc::new(objects.clone()), "histories")
}

/// A running process: its store and its repository, which its clients share.
#[derive(Clone)]
struct Process {
    objects: Unreliable,
    repository: Repository,
}

impl Process {
    /// Starts, however often that takes.
    async fn start(memory: &Arc<InMemory>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let objects = Unreliable::new(memory.clone(), seed, RATES);
        loop {
            if let Ok(repository) = Repository::open(open(&objects)).await {
                objects.die_after(rng.random_range(1..LONGEST_LIFE));
                return Self {
                    objects,
                    repository,
                };
            }
        }
    }
}

/// Where the process of some clients is started again once it died.
struct Place {
    memory: Arc<InMemory>,
    process: tokio::sync::Mutex<Process>,
    seeds: Mutex<StdRng>,
    record: Arc<Mutex<Record>>,
}

impl Place {
    async fn process(&self) -> Process {
        let mut process = self.process.lock().await;
        if process.objects.is_dead() {
            let seed = lock(&self.seeds).random();
            *process = Process::start(&self.memory, seed).await;
            lock(&self.record).deaths += 1;
        }
        process.clone()
    }
}

/// The value of an attribute or element of which nothing was written is 0.
fn attribute(metadata: &GroupMetadata, name: u64) -> i64 {
    let value = metadata.attributes.get(&attribute_name(name));
    value.and_then(Value::as_i64).unwrap_or(0)
}

/// The inner chunks of a shard, and its row.
async fn shard(
    array: &ArrayNode,
    codec: &ArrayCodec,
    index: &ChunkIndex,
) -> Result<(Vec<Option<bytes::Bytes>>, Option<storage::ChunkRow>), Error> {
    let Some(row) = array.chunk(index).await? else {
        return Ok((vec![None; codec.inner_chunks()], None));
    };
    let bytes = array.chunk_bytes(&row, 0..row.length).await?;
    Ok((codec.split(&bytes)?, Some(row)))
}

fn decode(codec: &ArrayCodec, inner: Option<&bytes::Bytes>) -> Result<i64, Error> {
    match codec.decode_or_fill(inner)? {
        Elements::Fixed(bytes) => Ok(i64::from_le_bytes(bytes.as_slice().try_into()?)),
        Elements::Variable(_) => Err("numbers have a fixed length".into()),
    }
}

async fn element_of(array: &ArrayNode, at: u64) -> Result<i64, Error> {
    let codec = ArrayCodec::new(array.metadata())?;
    let index = ChunkIndex::new(vec![at / SHARD]);
    let (inner, _) = shard(array, &codec, &index).await?;
    decode(&codec, inner[(at % SHARD) as usize].as_ref())
}

fn group_of(node: Node) -> Result<GroupMetadata, Error> {
    match node {
        Node::Group(group) => Ok(group.metadata().clone()),
        Node::Array(array) => Err(format!("{} is an array", array.path()).into()),
    }
}

async fn read(transaction: &Transaction, register: Register) -> Result<i64, Error> {
    match register {
        Element(at) => {
            let path = array_path()?;
            transaction.note_region(&path, Region::new(vec![at], vec![1])?);
            element_of(&transaction.array(&path).await?, at).await
        }
        Attribute(group, name) => {
            let node = transaction.node(&group_path(group)?).await?;
            Ok(attribute(&group_of(node)?, name))
        }
    }
}

async fn write(transaction: &Transaction, register: Register, value: i64) -> Result<(), Error> {
    match register {
        Element(at) => {
            let path = array_path()?;
            let array = transaction.array(&path).await?;
            let codec = ArrayCodec::new(array.metadata())?;
            let index = ChunkIndex::new(vec![at / SHARD]);
            let (mut inner, seen) = shard(&array, &codec, &index).await?;
            let place = at % SHARD;
            let elements = Elements::Fixed(value.to_le_bytes().to_vec());
            let encoded = codec.encode_inner(&elements, &[1])?;
            inner[place as usize] = encoded.map(Into::into);
            let chunk = codec.assemble(&inner).ok_or("a shard of nothing")?;
            let written = vec![place as u32];
            let chunk = (index, chunk.kind, chunk.id, chunk.bytes);
            let seen = seen.as_ref();
            transaction
                .put_inner_chunks(&path, chunk, None, written, seen)
                .await?;
        }
        Attribute(group, name) => {
            let path = group_path(group)?;
            let node = transaction.find(&path).await?.ok_or("no group")?;
            let mut metadata = group_of(node)?;
            metadata
                .attributes
                .insert(attribute_name(name), json!(value));
            transaction.put_group(&path, metadata).await?;
        }
    }
    Ok(())
}

/// The registers at a commit.
async fn state_of(snapshot: &Snapshot) -> Result<BTreeMap<Register, i64>, Error> {
    let array = snapshot.array(&array_path()?).await?;
    let mut state = BTreeMap::new();
    for register in all_registers() {
        let value = match register {
            Element(at) => element_of(&array, at).await?,
            Attribute(group, name) => {
                let node = snapshot.node(&group_path(group)?).await?;
                match node.metadata() {
                    NodeMetadata::Group(metadata) => attribute(metadata, name),
                    NodeMetadata::Array(_) => return Err("an array".into()),
                }
            }
        };
        state.insert(register, value);
    }
    Ok(state)
}

fn pick(rng: &mut StdRng) -> BTreeSet<Register> {
    let all: Vec<Register> = all_registers().collect();
    let count = rng.random_range(0..=MAX_REGISTERS);
    (0..count)
        .map(|_| all[rng.random_range(0..all.len())])
        .collect()
}

/// One client's transactions, one after another, until there are enough of them all.
async fn client(place: Arc<Place>, record: Arc<Mutex<Record>>, seed: u64, transactions: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        let process = place.process().await;
        let number = {
            let mut record = lock(&record);
            if record.attempts.len() >= transactions {
                return;
            }
            let began = record.tick();
            record.attempts.push(Attempt {
                is_serializable: rng.random(),
                base: None,
                reads: Vec::new(),
                writes: BTreeSet::new(),
                rereads: Vec::new(),
                began,
                ended: u64::MAX,
                outcome: Outcome::Unknown,
            });
            record.attempts.len() - 1
        };
        let noted = Noted {
            record: record.clone(),
            number,
        };
        let outcome = tokio::select! {
            outcome = transact(&process.repository, &noted, &mut rng) => outcome,
            () = process.objects.died() => Outcome::Unknown,
        };
        noted.note(|attempt| attempt.outcome = outcome);
        let ended = lock(&record).tick();
        noted.note(|attempt| attempt.ended = ended);
    }
}

/// One attempt in the record.
struct Noted {
    record: Arc<Mutex<Record>>,
    number: usize,
}

impl Noted {
    fn note<T>(&self, note: impl FnOnce(&mut Attempt) -> T) -> T {
        note(&mut lock(&self.record).attempts[self.number])
    }
}

async fn transact(repository: &Repository, noted: &Noted, rng: &mut StdRng) -> Outcome {
    let Ok(transaction) = prepare(repository, noted, rng).await else {
        // Nothing was to be committed yet.
        return Outcome::Failed;
    };
    let options = CommitOptions {
        message: noted.number.to_string(),
        ..CommitOptions::default()
    };
    match transaction.commit(options).await {
        Ok(commit) => Outcome::Acknowledged(commit),
        Err(storage::Error::Unknown { .. }) => Outcome::Unknown,
        Err(storage::Error::Conflict { .. }) => Outcome::Conflict,
        Err(_) => Outcome::Failed,
    }
}

async fn prepare(
    repository: &Repository,
    noted: &Noted,
    rng: &mut StdRng,
) -> Result<Transaction, Error> {
    let isolation = match noted.note(|attempt| attempt.is_serializable) {
        true => Isolation::Serializable,
        false => Isolation::Snapshot,
    };
    let transaction = Transaction::begin_with(repository, &"main".parse()?, isolation).await?;
    let base = transaction.base().id();
    noted.note(|attempt| attempt.base = Some(base));
    for register in pick(rng) {
        let value = read(&transaction, register).await?;
        noted.note(|attempt| attempt.reads.push((register, value)));
    }
    for register in pick(rng) {
        write(&transaction, register, noted.number as i64 + 1).await?;
        noted.note(|attempt| attempt.writes.insert(register));
        if rng.random_bool(0.2) {
            let value = read(&transaction, register).await?;
            noted.note(|attempt| attempt.rereads.push((register, value)));
        }
    }
    Ok(transaction)
}

/// Runs random transactions and checks what their clients saw. The clock must be paused.
///
/// # Errors
/// The first rule that does not hold, with the seed.
pub async fn run(settings: Settings) -> Result<Report, Error> {
    let checked = run_and_check(settings).await;
    checked.map_err(|error| format!("seed {}: {error}", settings.seed).into())
}

async fn run_and_check(settings: Settings) -> Result<Report, Error> {
    let memory = Arc::new(InMemory::new());
    let store = Store::from_objects(memory.clone(), "histories");
    let repository = Repository::create(store, "test").await?;
    let transaction = Transaction::begin(&repository, &"main".parse()?).await?;
    transaction
        .create_array(&array_path()?, metadata()?)
        .await?;
    for group in 0..GROUPS {
        transaction
            .put_group(&group_path(group)?, GroupMetadata::default())
            .await?;
    }
    let first = transaction.commit(CommitOptions::default()).await?;

    let mut rng = StdRng::seed_from_u64(settings.seed);
    let record = Arc::new(Mutex::new(Record::default()));
    let mut clients = Vec::new();
    for count in PROCESSES {
        let process = Process::start(&memory, rng.random()).await;
        let place = Arc::new(Place {
            memory: memory.clone(),
            process: tokio::sync::Mutex::new(process),
            seeds: Mutex::new(StdRng::seed_from_u64(rng.random())),
            record: record.clone(),
        });
        for _ in 0..count {
            let client = client(
                place.clone(),
                record.clone(),
                rng.random(),
                settings.transactions,
            );
            clients.push(tokio::spawn(client));
        }
    }
    futures::future::try_join_all(clients).await?;
    // Requests that timed out have arrived.
    tokio::time::sleep(Duration::from_secs(10)).await;

    let store = Store::from_objects(memory, "histories");
    let repository = Repository::open(store).await?;
    let record = std::mem::take(&mut *lock(&record));
    let report = check(&repository, &record, first).await?;
    let head = repository.resolve(&"main".parse()?).await?.commit;
    let scope = match settings.verifies_history {
        true => Scope::Everything,
        false => Scope::Commit(head),
    };
    let verified = repository.verify(&scope).await?;
    match verified.damage.is_empty() {
        true => Ok(report),
        false => Err(format!("{:?}", verified.damage).into()),
    }
}

/// The commits of branch main after `first`, oldest first, each with the attempt it names.
async fn commits_after(
    repository: &Repository,
    first: CommitId,
) -> Result<Vec<(CommitId, usize)>, Error> {
    let mut next = repository.resolve(&"main".parse()?).await?.commit;
    let mut commits = Vec::new();
    while next != first {
        let commit = repository.commit(next).await?;
        commits.push((next, commit.message.parse()?));
        next = *commit.parents.first().ok_or("the first commit is gone")?;
    }
    commits.reverse();
    Ok(commits)
}

/// When each register was last written, up to some commit.
struct Model {
    values: BTreeMap<Register, i64>,
    /// Positions of the commits that wrote each register, ascending, with what they wrote.
    writes: HashMap<Register, Vec<(usize, i64)>>,
}

impl Model {
    /// What `register` held after the commit at `position`.
    fn value_at(&self, register: Register, position: usize) -> i64 {
        let writes = self.writes.get(&register).map_or(&[][..], Vec::as_slice);
        match writes.partition_point(|(at, _)| *at <= position) {
            0 => 0,
            count => writes[count - 1].1,
        }
    }

    /// Whether a commit after `base` and before `position` wrote `register`.
    fn is_written_between(&self, register: Register, base: usize, position: usize) -> bool {
        let writes = self.writes.get(&register).map_or(&[][..], Vec::as_slice);
        let after = writes.partition_point(|(at, _)| *at <= base);
        writes.get(after).is_some_and(|(at, _)| *at < position)
    }
}

async fn check(repository: &Repository, record: &Record, first: CommitId) -> Result<Report, Error> {
    let commits = commits_after(repository, first).await?;
    // Position 0 is the first commit, before all attempts.
    let mut positions = HashMap::from([(first, 0)]);
    let mut committed: HashMap<usize, CommitId> = HashMap::new();
    let mut model = Model {
        values: all_registers().map(|register| (register, 0)).collect(),
        writes: HashMap::new(),
    };
    for (position, &(commit, number)) in (1..).zip(&commits) {
        positions.insert(commit, position);
        if committed.insert(number, commit).is_some() {
            return Err(format!("transaction {number} is committed twice").into());
        }
        let attempt = record.attempts.get(number).ok_or("an invented commit")?;
        for &register in &attempt.writes {
            let value = number as i64 + 1;
            model.values.insert(register, value);
            let writes = model.writes.entry(register).or_default();
            writes.push((position, value));
        }
        if position % COMPARED_EVERY == 0 || position == commits.len() {
            let stored = state_of(&repository.snapshot(commit).await?).await?;
            if stored != model.values {
                let differences: Vec<_> = stored
                    .iter()
                    .filter(|(register, value)| model.values.get(register) != Some(*value))
                    .collect();
                return Err(
                    format!("{commit} does not hold what was written: {differences:?}").into(),
                );
            }
        }
    }
    let mut report = Report {
        deaths: record.deaths,
        ..Report::default()
    };
    for (number, attempt) in record.attempts.iter().enumerate() {
        let wrong = |what: String| format!("transaction {number}: {what}: {attempt:?}");
        let commit = committed.get(&number);
        match attempt.outcome {
            Outcome::Acknowledged(id) => {
                report.acknowledged += 1;
                report.serializable += usize::from(attempt.is_serializable);
                if commit != Some(&id) {
                    return Err(wrong(format!("the log has {commit:?}")).into());
                }
            }
            Outcome::Conflict => report.conflicts += 1,
            Outcome::Failed => report.failed += 1,
            Outcome::Unknown => {
                report.unknown += 1;
                report.unknown_committed += usize::from(commit.is_some());
            }
        }
        let is_over = matches!(attempt.outcome, Outcome::Conflict | Outcome::Failed);
        if is_over && commit.is_some() {
            return Err(wrong("it failed and is in the log".into()).into());
        }
        let Some(base) = attempt.base else {
            continue;
        };
        let &base = positions
            .get(&base)
            .ok_or_else(|| wrong("it began at a commit that was never made".into()))?;
        for &(register, value) in &attempt.reads {
            let expected = model.value_at(register, base);
            if value != expected {
                return Err(wrong(format!("{register:?} was {expected}")).into());
            }
        }
        let own = number as i64 + 1;
        if attempt.rereads.iter().any(|(_, value)| *value != own) {
            return Err(wrong("it does not see its own writes".into()).into());
        }
        let Some(&position) = commit.and_then(|commit| positions.get(commit)) else {
            continue;
        };
        report.rebased += usize::from(position > base + 1);
        let read = attempt.reads.iter().map(|(register, _)| register);
        let held = read.filter(|_| attempt.is_serializable);
        for &register in attempt.writes.iter().chain(held) {
            if model.is_written_between(register, base, position) {
                return Err(wrong(format!("{register:?} was written meanwhile")).into());
            }
        }
    }
    check_recency(record, &positions)?;
    Ok(report)
}

/// Checks that every transaction began at a commit no older than those acknowledged before.
fn check_recency(record: &Record, positions: &HashMap<CommitId, usize>) -> Result<(), Error> {
    // Every beginning and end: an end raises what later beginnings must see.
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for attempt in &record.attempts {
        if let Some(base) = attempt.base.and_then(|base| positions.get(&base)) {
            events.push((attempt.began, false, *base));
        }
        if let Outcome::Acknowledged(commit) = attempt.outcome
            && let Some(position) = positions.get(&commit)
        {
            events.push((attempt.ended, true, *position));
        }
    }
    events.sort_unstable();
    let mut newest = 0;
    for (time, is_end, position) in events {
        if is_end {
            newest = newest.max(position);
        } else if position < newest {
            return Err(format!(
                "at {time} a transaction began at commit {position}, after {newest} was acknowledged"
            )
            .into());
        }
    }
    Ok(())
}
