//! The log under every order of two or three writers' requests, and everything that can become of
//! them: what is acknowledged is there, once; what failed is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use array::hash::Kind;
use array::{ArrayMetadata, ChunkIndex, CodecMetadata, DataType, NodePath, RegularGrid, hash};
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use quarr_tests::schedule::{Ended, Prepared, Writer, explore};
use serde_json::json;
use storage::{
    ChunkKind, CommitId, CommitOptions, Error, Idempotency, Isolation, Operation, RefKind,
    Repository, Scope, Snapshot, Store, Transaction,
};

use crate::support::open;

/// What a writer heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged(CommitId),
    Failed(String),
    Unknown,
}

impl From<Result<CommitId, Error>> for Outcome {
    fn from(result: Result<CommitId, Error>) -> Self {
        match result {
            Ok(commit) => Self::Acknowledged(commit),
            Err(Error::Unknown { .. }) => Self::Unknown,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

fn path() -> NodePath {
    "a".parse().unwrap()
}

fn int64(length: u64) -> ArrayMetadata {
    let codecs = vec![CodecMetadata::new("bytes", json!({ "endian": "little" }))];
    let grid = RegularGrid::new(vec![length], vec![1]).unwrap();
    ArrayMetadata::new(grid, DataType::Int64, codecs)
}

/// A repository with an array of numbers and `tags` tags more than that in its log.
fn base(tags: usize) -> InMemory {
    let objects = Arc::new(InMemory::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::from_objects(objects.clone(), "test");
        let repository = Repository::create(store, "test").await.unwrap();
        let transaction = Transaction::begin(&repository, &"main".parse().unwrap())
            .await
            .unwrap();
        transaction.create_array(&path(), int64(8)).await.unwrap();
        let commit = transaction.commit(CommitOptions::default()).await.unwrap();
        for number in 0..tags {
            let name = format!("tag-{number}").parse().unwrap();
            repository
                .create_ref(RefKind::Tag, &name, commit, "test")
                .await
                .unwrap();
        }
    });
    objects.fork()
}

/// A commit to branch main.
#[derive(Clone)]
struct Write {
    name: &'static str,
    /// Chunks that are read.
    reads: &'static [u64],
    /// The chunk that is written, with `value`.
    index: u64,
    value: i64,
    isolation: Isolation,
    key: Option<&'static str>,
}

fn write(name: &'static str, index: u64, value: i64) -> Write {
    Write {
        name,
        reads: &[],
        index,
        value,
        isolation: Isolation::Snapshot,
        key: None,
    }
}

impl Write {
    async fn prepare(&self, objects: Arc<dyn ObjectStore>) -> (Transaction, CommitOptions) {
        let repository = open(objects).await.unwrap();
        let main = "main".parse().unwrap();
        let transaction = Transaction::begin_with(&repository, &main, self.isolation)
            .await
            .unwrap();
        for &index in self.reads {
            let index = ChunkIndex::new(vec![index]);
            transaction.chunk(&path(), &index).await.unwrap();
        }
        let bytes = self.value.to_le_bytes().to_vec();
        let id = hash::hash(Kind::PlainChunk, &bytes);
        let index = ChunkIndex::new(vec![self.index]);
        transaction
            .put_chunk(&path(), index, ChunkKind::Plain, id, bytes.into(), None)
            .await
            .unwrap();
        let request = hash::hash(Kind::Request, b"the same");
        let options = CommitOptions {
            message: self.name.into(),
            idempotency: self.key.map(|key| Idempotency::new(key, request).unwrap()),
            ..CommitOptions::default()
        };
        (transaction, options)
    }

    /// A writer that has prepared its commit when the schedule begins.
    fn writer(self) -> Writer<Outcome> {
        Box::new(move |objects| {
            let write = self.clone();
            Box::pin(async move {
                let (transaction, options) = write.prepare(objects).await;
                Prepared::new(async move { transaction.commit(options).await.into() })
            })
        })
    }
}

/// A writer that changes a ref.
fn ref_writer<F>(change: F) -> Writer<Outcome>
where
    F: Fn(Repository, CommitId) -> BoxFuture<'static, Result<(), Error>> + Copy + Send + 'static,
{
    Box::new(move |objects| {
        Box::pin(async move {
            let repository = open(objects).await.unwrap();
            let head = repository.resolve(&"main".parse().unwrap()).await.unwrap();
            let commit = head.commit;
            Prepared::new(async move { change(repository, commit).await.map(|()| commit).into() })
        })
    })
}

/// What is found by someone who opens the repository afterwards.
struct After {
    repository: Repository,
    /// Commits of branch main, by message.
    commits: BTreeMap<String, Vec<CommitId>>,
    head: Snapshot,
}

impl After {
    async fn open(objects: &Arc<InMemory>) -> Result<Self, Error> {
        let repository = open(objects.clone()).await?;
        let head = repository.resolve(&"main".parse()?).await?;
        let head = repository.snapshot(head.commit).await?;
        let mut commits: BTreeMap<String, Vec<CommitId>> = BTreeMap::new();
        let mut next = Some(head.id());
        while let Some(id) = next {
            let commit = repository.commit(id).await?;
            commits.entry(commit.message.clone()).or_default().push(id);
            next = commit.parents.first().copied();
        }
        Ok(Self {
            repository,
            commits,
            head,
        })
    }

    fn of(&self, name: &str) -> &[CommitId] {
        self.commits.get(name).map_or(&[], Vec::as_slice)
    }

    async fn value(&self, index: u64) -> Result<Option<i64>, Error> {
        let array = self.head.array(&path()).await?;
        let Some(row) = array.chunk(&ChunkIndex::new(vec![index])).await? else {
            return Ok(None);
        };
        let bytes = array.chunk_bytes(&row, 0..8).await?;
        Ok(bytes[..].try_into().ok().map(i64::from_le_bytes))
    }
}

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

/// Opens what a schedule left, and checks what always holds: each commit is there as often as its
/// writer was told, with its value, and all of it verifies.
async fn check_commits(writes: &[Write], ended: &Ended<Outcome>) -> Result<After, String> {
    let after = After::open(&ended.objects).await;
    let after = after.map_err(|error| format!("{error:?}"))?;
    for (write, outcome) in writes.iter().zip(&ended.outcomes) {
        let found = after.of(write.name);
        let is_right = match outcome {
            Some(Outcome::Acknowledged(commit)) => found == [*commit],
            Some(Outcome::Failed(_)) => found.is_empty(),
            Some(Outcome::Unknown) | None => found.len() <= 1,
        };
        ensure(is_right, || {
            format!("{} heard {outcome:?}, found {found:?}", write.name)
        })?;
    }
    let verified = after.repository.verify(&Scope::Everything).await;
    let verified = verified.map_err(|error| format!("{error:?}"))?;
    ensure(verified.damage.is_empty(), || {
        format!("{:?}", verified.damage)
    })?;
    Ok(after)
}

/// Explores commits of which each writes a chunk of its own.
fn explore_disjoint(base: &InMemory, writes: &[Write], faults: usize) {
    let writers: Vec<_> = writes.iter().cloned().map(Write::writer).collect();
    let searched = explore(base, &writers, faults, async |ended| {
        let after = check_commits(writes, ended).await?;
        for write in writes {
            let value = after.value(write.index).await;
            let value = value.map_err(|error| format!("{error:?}"))?;
            let is_there = !after.of(write.name).is_empty();
            let expected = is_there.then_some(write.value);
            ensure(value == expected, || {
                format!("{}: {value:?}, not {expected:?}", write.name)
            })?;
        }
        let all = ended.outcomes.iter().flatten();
        let conflicts = all
            .filter(|outcome| matches!(outcome, Outcome::Failed(why) if why.contains("conflict")));
        ensure(conflicts.count() == 0, || "a conflict".into())
    })
    .unwrap();
    println!("{} writers, {faults} faults: {searched:?}", writes.len());
    assert!(searched.schedules > writes.len());
}

/// Explores commits of which at most one can be.
fn explore_exclusive(writes: &[Write], faults: usize) {
    let writers: Vec<_> = writes.iter().cloned().map(Write::writer).collect();
    let searched = explore(&base(0), &writers, faults, async |ended| {
        let after = check_commits(writes, ended).await?;
        let there = writes
            .iter()
            .filter(|write| !after.of(write.name).is_empty());
        let there = there.count();
        ensure(there <= 1, || "both are there".into())?;
        let is_told = |outcome: &Option<Outcome>| {
            matches!(outcome, Some(Outcome::Failed(why)) if why.contains("conflict"))
        };
        let conflicts = ended.outcomes.iter().filter(|o| is_told(o)).count();
        ensure(conflicts <= there, || "a conflict with nothing".into())
    })
    .unwrap();
    println!("exclusive, {faults} faults: {searched:?}");
    assert!(searched.schedules > writes.len());
}

fn disjoint() -> [Write; 3] {
    [
        write("first", 1, 11),
        write("second", 2, 12),
        write("third", 3, 13),
    ]
}

#[test]
fn two_writers_with_two_faults() {
    explore_disjoint(&base(0), &disjoint()[..2], 2);
}

#[test]
fn three_writers_without_faults() {
    explore_disjoint(&base(0), &disjoint(), 0);
}

#[test]
#[ignore = "long"]
fn three_writers_with_one_fault() {
    explore_disjoint(&base(0), &disjoint(), 1);
}

#[test]
#[ignore = "long"]
fn three_writers_with_two_faults() {
    explore_disjoint(&base(0), &disjoint(), 2);
}

#[test]
#[ignore = "long"]
fn two_writers_with_four_faults() {
    explore_disjoint(&base(0), &disjoint()[..2], 4);
}

#[test]
fn two_writers_at_a_checkpoint() {
    // Entries 0 and 1 are there before the tags; the writers make 127 and 128.
    explore_disjoint(&base(125), &disjoint()[..2], 1);
}

#[test]
fn two_writers_of_one_chunk() {
    explore_exclusive(&[write("first", 1, 11), write("second", 1, 12)], 2);
}

#[test]
fn two_writers_each_of_what_the_other_reads() {
    let serializable = |name, reads, index, value| Write {
        reads,
        isolation: Isolation::Serializable,
        ..write(name, index, value)
    };
    let writes = [
        serializable("first", &[2], 1, 11),
        serializable("second", &[1], 2, 12),
    ];
    explore_exclusive(&writes, 2);
}

#[test]
fn one_request_sent_twice_is_one_commit() {
    let same = Write {
        key: Some("key"),
        ..write("once", 1, 11)
    };
    let writers: Vec<_> = [same.clone(), same].map(Write::writer).into();
    let searched = explore(&base(0), &writers, 2, async |ended| {
        let after = After::open(&ended.objects).await;
        let after = after.map_err(|error| format!("{error:?}"))?;
        let found = after.of("once");
        ensure(found.len() <= 1, || format!("{found:?}"))?;
        for outcome in ended.outcomes.iter().flatten() {
            if let Outcome::Acknowledged(commit) = outcome {
                ensure(found == [*commit], || format!("{outcome:?}, {found:?}"))?;
            }
        }
        Ok(())
    })
    .unwrap();
    println!("one request twice: {searched:?}");
    assert!(searched.schedules > 2);
}

/// The operations of the log about the ref of this name: whether each creates it.
async fn ref_operations(repository: &Repository, name: &str) -> Result<Vec<bool>, Error> {
    let entries = repository.log(None, usize::MAX).await?;
    let operations = entries.into_iter().flat_map(|entry| entry.operations);
    Ok(operations
        .filter_map(|operation| match operation {
            Operation::UpdateRef {
                name: found, to, ..
            } if found.name.as_str() == name => Some(to.is_some()),
            _ => None,
        })
        .collect())
}

#[test]
fn a_tag_is_created_once() {
    let create = || {
        ref_writer(|repository, commit| {
            Box::pin(async move {
                let name = "v1".parse()?;
                repository
                    .create_ref(RefKind::Tag, &name, commit, "test")
                    .await
                    .map(drop)
            })
        })
    };
    let searched = explore(&base(0), &[create(), create()], 2, async |ended| {
        let after = After::open(&ended.objects).await;
        let after = after.map_err(|error| format!("{error:?}"))?;
        let operations = ref_operations(&after.repository, "v1").await;
        let created = operations.map_err(|error| format!("{error:?}"))?.len();
        let told = |outcome: &&Option<Outcome>| matches!(outcome, Some(Outcome::Acknowledged(_)));
        let acknowledged = ended.outcomes.iter().filter(told).count();
        ensure(created <= 1 && acknowledged <= created, || {
            format!("{:?}, created {created} times", ended.outcomes)
        })
    })
    .unwrap();
    println!("one tag: {searched:?}");
    assert!(searched.schedules > 2);
}

#[test]
fn a_commit_to_a_branch_that_is_deleted_came_before_or_fails() {
    let delete = ref_writer(|repository, _| {
        Box::pin(async move {
            let name = "main".parse()?;
            repository.delete_ref(RefKind::Branch, &name, "test").await
        })
    });
    let writers = [write("first", 1, 11).writer(), delete];
    let searched = explore(&base(0), &writers, 2, async |ended| {
        let repository = open(ended.objects.clone()).await;
        let repository = repository.map_err(|error| format!("{error:?}"))?;
        let operations = ref_operations(&repository, "main").await;
        // The two of the base come first.
        let operations = operations.map_err(|error| format!("{error:?}"))?[2..].to_vec();
        let commits = operations.iter().filter(|&&creates| creates).count();
        let deletions = operations.len() - commits;
        let is_possible = [&[][..], &[true], &[false], &[true, false]]
            .iter()
            .any(|possible| *possible == operations);
        ensure(is_possible, || format!("{operations:?}"))?;
        for (outcome, count) in ended.outcomes.iter().zip([commits, deletions]) {
            let is_right = match outcome {
                Some(Outcome::Acknowledged(_)) => count == 1,
                Some(Outcome::Failed(_)) => count == 0,
                Some(Outcome::Unknown) | None => true,
            };
            ensure(is_right, || format!("{outcome:?}: {operations:?}"))?;
        }
        Ok(())
    })
    .unwrap();
    println!("a commit and a deletion: {searched:?}");
    assert!(searched.schedules > 2);
}
