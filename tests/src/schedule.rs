//! Every order in which the requests of a few writers can reach an object store, and everything that
//! can become of them.
//!
//! Only requests for log entries depend on each other: a put, and a get of an entry that is not
//! there yet. They wait for [`explore`], which lets them through one at a time; everything else is
//! immutable, so its order changes nothing, and it is done at once. Time is the runtime's, paused,
//! so a pause of a writer costs none.
//!
//! The search is depth first, by running the writers again from the start with other choices. A
//! writer's state follows from the answers it got, so a state that was reached before, of all
//! writers and the log, is not searched again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What becomes of a request for a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It is done and answered.
    Done,
    /// It is done, but the answer is lost.
    AnswerLost,
    /// It is done, repeated inside the client library, and meets its own object.
    MeetsItself,
    /// It is not done, and the writer is told that something failed.
    Failed,
    /// It is not done, because another write of the object seems to be under way.
    TurnedDown,
    /// It seems to have timed out and arrives later.
    Late,
    /// The writer dies; the request arrives later.
    Crash,
}

/// What may become of a put, the first of which is no fault.
const PUT_FATES: [Fate; 7] = [
    Fate::Done,
    Fate::AnswerLost,
    Fate::MeetsItself,
    Fate::Failed,
    Fate::TurnedDown,
    Fate::Late,
    Fate::Crash,
];
const GET_FATES: [Fate; 2] = [Fate::Done, Fate::Failed];

/// One writer's nth put of a log entry.
type PutName = (usize, usize);

/// An answer that a writer got about a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Entry(PutName),
    Nothing,
    Put(Fate),
    Failed,
}

enum Action {
    Get(GetOptions, oneshot::Sender<Result<GetResult>>),
    Put(
        PutName,
        PutPayload,
        PutOptions,
        oneshot::Sender<Result<PutResult>>,
    ),
}

/// A request for a log entry that waits.
struct Waiting {
    writer: usize,
    location: Path,
    action: Action,
}

/// A put that its writer gave up.
struct LatePut {
    name: PutName,
    location: Path,
    payload: PutPayload,
    options: PutOptions,
}

/// What tells two states of the writers and the log apart.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct State {
    heard: Vec<Vec<(Path, Answer)>>,
    waiting: BTreeSet<(usize, Path, bool)>,
    entries: BTreeMap<Path, PutName>,
    late: BTreeSet<PutName>,
    crashed: BTreeSet<usize>,
    faults_left: usize,
}

#[derive(Default)]
struct Board {
    waiting: Vec<Waiting>,
    late: Vec<LatePut>,
    state: State,
    puts: Vec<usize>,
}

/// The store as one writer sees it.
#[derive(Clone)]
struct Controlled {
    inner: Arc<InMemory>,
    writer: usize,
    board: Arc<Mutex<Board>>,
    /// Whether requests wait; until then they are done at once.
    is_on: Arc<AtomicBool>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_log_entry(location: &Path) -> bool {
    let name = location.as_ref();
    name.starts_with("log/") && !name.contains("_hint")
}

fn failure(what: &'static str) -> Error {
    Error::Generic {
        store: "schedule",
        source: what.into(),
    }
}

fn exists(location: &Path) -> Error {
    Error::AlreadyExists {
        path: location.to_string(),
        source: "by the schedule".into(),
    }
}

impl Controlled {
    /// Never, for a writer that died.
    async fn live(&self) {
        if lock(&self.board).state.crashed.contains(&self.writer) {
            futures::future::pending::<()>().await;
        }
    }

    fn waits(&self, location: &Path) -> bool {
        self.is_on.load(Ordering::SeqCst) && is_log_entry(location)
    }

    fn queue(&self, location: &Path, action: Action) {
        lock(&self.board).waiting.push(Waiting {
            writer: self.writer,
            location: location.clone(),
            action,
        });
    }
}

impl fmt::Debug for Controlled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of writer {}", self.writer)
    }
}

impl fmt::Display for Controlled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait]
impl ObjectStore for Controlled {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.live().await;
        if !self.waits(location) || options.mode != PutMode::Create {
            return self.inner.put_opts(location, payload, options).await;
        }
        let name = {
            let mut board = lock(&self.board);
            let number = board.puts[self.writer];
            board.puts[self.writer] += 1;
            (self.writer, number)
        };
        let (answer, heard) = oneshot::channel();
        self.queue(location, Action::Put(name, payload, options, answer));
        match heard.await {
            Ok(answer) => answer,
            Err(_) => futures::future::pending().await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.live().await;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.live().await;
        if !self.waits(location) {
            return self.inner.get_opts(location, options).await;
        }
        let found = self.inner.get_opts(location, options.clone()).await;
        if found.is_ok() {
            // An entry that is there stays: nothing can come between.
            let mut board = lock(&self.board);
            if let Some(&name) = board.state.entries.get(location) {
                let answer = Answer::Entry(name);
                board.state.heard[self.writer].push((location.clone(), answer));
            }
            return found;
        }
        let (answer, heard) = oneshot::channel();
        self.queue(location, Action::Get(options, answer));
        match heard.await {
            Ok(answer) => answer,
            Err(_) => futures::future::pending().await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.live().await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.live().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.live().await;
        self.inner.copy_opts(from, to, options).await
    }
}

/// What one writer does: given its store, it prepares; what that gives is then run against that of
/// the others.
pub type Writer<T> = Box<dyn Fn(Arc<dyn ObjectStore>) -> BoxFuture<'static, Prepared<T>>>;
/// What a writer does once it is prepared.
pub struct Prepared<T>(BoxFuture<'static, T>);

impl<T> Prepared<T> {
    /// This.
    pub fn new(what: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Box::pin(what))
    }
}

/// What there is after one schedule.
pub struct Ended<T> {
    /// The store.
    pub objects: Arc<InMemory>,
    /// What each writer ended with; `None` for one that died.
    pub outcomes: Vec<Option<T>>,
    /// What was done, in order, for messages.
    pub schedule: Vec<String>,
}

/// How much was searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Schedules run to their end.
    pub schedules: usize,
    /// Schedules that met a state searched before.
    pub repeats: usize,
}

/// One thing that can happen next.
#[derive(Clone, Debug)]
enum Choice {
    /// To a waiting request, by its place.
    Request(usize, Fate),
    /// A late put arrives.
    Arrival(usize),
}

/// Runs `writers` on copies of `base` in every order of their requests for log entries, with up to
/// `faults` faults in each run, and checks each end.
///
/// # Errors
/// What `check` fails with, and the schedule that led to it.
///
/// # Panics
/// If the runtime cannot be made, or a writer panics.
pub fn explore<T, C>(
    base: &InMemory,
    writers: &[Writer<T>],
    faults: usize,
    mut check: C,
) -> std::result::Result<Searched, String>
where
    T: Send + 'static,
    C: AsyncFnMut(&Ended<T>) -> std::result::Result<(), String>,
{
    let mut seen: HashSet<State> = HashSet::new();
    let mut searched = Searched::default();
    // The choices of a run, each with the number of those there were.
    let mut path: Vec<(usize, usize)> = Vec::new();
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| error.to_string())?;
        let ended = runtime.block_on(run(base, writers, faults, &mut path, &mut seen));
        match ended {
            Some(ended) => {
                searched.schedules += 1;
                runtime
                    .block_on(check(&ended))
                    .map_err(|error| format!("{error}, after {:#?}", ended.schedule))?;
            }
            None => searched.repeats += 1,
        }
        while let Some((choice, count)) = path.pop() {
            if choice + 1 < count {
                path.push((choice + 1, count));
                break;
            }
        }
        if path.is_empty() {
            return Ok(searched);
        }
    }
}

/// One run: takes the choices of `path` and after them the first of each, which it adds. `None` if
/// it met a state in `seen`.
async fn run<T: Send + 'static>(
    base: &InMemory,
    writers: &[Writer<T>],
    faults: usize,
    path: &mut Vec<(usize, usize)>,
    seen: &mut HashSet<State>,
) -> Option<Ended<T>> {
    let objects = Arc::new(base.fork());
    let board = Arc::new(Mutex::new(Board {
        puts: vec![0; writers.len()],
        state: State {
            heard: vec![Vec::new(); writers.len()],
            faults_left: faults,
            ..State::default()
        },
        ..Board::default()
    }));
    let is_on = Arc::new(AtomicBool::new(false));
    let mut prepared = Vec::new();
    for (number, writer) in writers.iter().enumerate() {
        let store = Controlled {
            inner: objects.clone(),
            writer: number,
            board: board.clone(),
            is_on: is_on.clone(),
        };
        prepared.push(writer(Arc::new(store)).await);
    }
    is_on.store(true, Ordering::SeqCst);
    let tasks: Vec<JoinHandle<T>> = prepared
        .into_iter()
        .map(|Prepared(rest)| tokio::spawn(rest))
        .collect();
    let mut controller = Controller {
        objects,
        board,
        tasks,
        schedule: Vec::new(),
    };
    let mut step = 0;
    loop {
        controller.settle().await;
        let choices = controller.choices();
        if choices.is_empty() {
            break;
        }
        let choice = match path.get(step) {
            Some(&(choice, count)) => {
                assert_eq!(
                    count,
                    choices.len(),
                    "the same choices lead to another state"
                );
                choice
            }
            None => {
                if !seen.insert(controller.state()) {
                    controller.stop();
                    return None;
                }
                path.push((0, choices.len()));
                0
            }
        };
        controller.take(&choices[choice]).await;
        step += 1;
    }
    Some(controller.end().await)
}

struct Controller<T> {
    objects: Arc<InMemory>,
    board: Arc<Mutex<Board>>,
    tasks: Vec<JoinHandle<T>>,
    schedule: Vec<String>,
}

impl<T> Controller<T> {
    /// Waits until every writer waits for an answer, has ended or is dead.
    async fn settle(&self) {
        loop {
            // The clock moves once nothing else can.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let board = lock(&self.board);
            let waits = |writer| board.waiting.iter().any(|request| request.writer == writer);
            let is_settled = |(writer, task): (usize, &JoinHandle<T>)| {
                task.is_finished() || waits(writer) || board.state.crashed.contains(&writer)
            };
            if self.tasks.iter().enumerate().all(is_settled) {
                return;
            }
        }
    }

    fn choices(&self) -> Vec<Choice> {
        let mut board = lock(&self.board);
        let Board {
            waiting,
            late,
            state,
            ..
        } = &mut *board;
        waiting.sort_by_key(|request| (request.writer, request.location.to_string()));
        late.sort_by_key(|put| put.name);
        let mut choices = Vec::new();
        for (at, request) in waiting.iter().enumerate() {
            // Entries only ever come up in order, so answers to one writer's gets that are under
            // way together need no other order than that of the entries.
            if at > 0 && waiting[at - 1].writer == request.writer {
                continue;
            }
            let fates = match request.action {
                Action::Get(..) => &GET_FATES[..],
                Action::Put(..) => &PUT_FATES[..],
            };
            let possible = if state.faults_left > 0 {
                fates
            } else {
                &fates[..1]
            };
            choices.extend(possible.iter().map(|&fate| Choice::Request(at, fate)));
        }
        choices.extend((0..late.len()).map(Choice::Arrival));
        choices
    }

    fn state(&self) -> State {
        let board = lock(&self.board);
        let mut state = board.state.clone();
        state.waiting = board
            .waiting
            .iter()
            .map(|request| {
                let is_put = matches!(request.action, Action::Put(..));
                (request.writer, request.location.clone(), is_put)
            })
            .collect();
        state.late = board.late.iter().map(|put| put.name).collect();
        state
    }

    async fn take(&mut self, choice: &Choice) {
        match *choice {
            Choice::Arrival(at) => {
                let late = lock(&self.board).late.remove(at);
                self.schedule
                    .push(format!("{:?} arrives at {}", late.name, late.location));
                let _ = self
                    .put(late.name, &late.location, late.payload, late.options)
                    .await;
            }
            Choice::Request(at, fate) => {
                let request = lock(&self.board).waiting.remove(at);
                if fate != Fate::Done {
                    lock(&self.board).state.faults_left -= 1;
                }
                self.decide(request, fate).await;
            }
        }
    }

    async fn decide(&mut self, request: Waiting, fate: Fate) {
        let Waiting {
            writer,
            location,
            action,
        } = request;
        match action {
            Action::Get(options, answer) => {
                self.schedule
                    .push(format!("writer {writer} gets {location}: {fate:?}"));
                let found = match fate {
                    Fate::Done => self.objects.get_opts(&location, options).await,
                    _ => Err(failure("connection reset")),
                };
                let heard = match (&found, fate) {
                    (_, Fate::Failed) => Answer::Failed,
                    (Ok(_), _) => lock(&self.board)
                        .state
                        .entries
                        .get(&location)
                        .map_or(Answer::Nothing, |&name| Answer::Entry(name)),
                    (Err(_), _) => Answer::Nothing,
                };
                self.note(writer, location, heard);
                // A writer that gave up one of several gets does not want to know.
                let _ = answer.send(found);
            }
            Action::Put(name, payload, options, answer) => {
                self.schedule
                    .push(format!("writer {writer} puts {location}: {fate:?}"));
                let is_done = matches!(fate, Fate::Done | Fate::AnswerLost | Fate::MeetsItself);
                let done = if is_done {
                    self.put(name, &location, payload, options).await
                } else {
                    if matches!(fate, Fate::Late | Fate::Crash) {
                        lock(&self.board).late.push(LatePut {
                            name,
                            location: location.clone(),
                            payload,
                            options,
                        });
                    }
                    Err(failure("503 slow down"))
                };
                let result = match fate {
                    Fate::AnswerLost => Err(failure("connection reset")),
                    Fate::MeetsItself | Fate::TurnedDown => Err(exists(&location)),
                    _ => done,
                };
                let heard = match (&result, fate) {
                    (Err(Error::AlreadyExists { .. }), _) => Answer::Put(Fate::MeetsItself),
                    (Ok(_), _) => Answer::Put(Fate::Done),
                    (Err(_), _) => Answer::Failed,
                };
                self.note(writer, location, heard);
                if fate == Fate::Crash {
                    lock(&self.board).state.crashed.insert(writer);
                    lock(&self.board)
                        .waiting
                        .retain(|request| request.writer != writer);
                } else {
                    let _ = answer.send(result);
                }
            }
        }
    }

    fn note(&self, writer: usize, location: Path, answer: Answer) {
        lock(&self.board).state.heard[writer].push((location, answer));
    }

    async fn put(
        &self,
        name: PutName,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let done = self.objects.put_opts(location, payload, options).await;
        if done.is_ok() {
            let mut board = lock(&self.board);
            board.state.entries.insert(location.clone(), name);
        }
        done
    }

    fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    async fn end(self) -> Ended<T> {
        let crashed = lock(&self.board).state.crashed.clone();
        let mut outcomes = Vec::new();
        for (writer, task) in self.tasks.into_iter().enumerate() {
            outcomes.push(if crashed.contains(&writer) && !task.is_finished() {
                task.abort();
                None
            } else {
                match task.await {
                    Ok(outcome) => Some(outcome),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            });
        }
        Ended {
            objects: self.objects,
            outcomes,
            schedule: self.schedule,
        }
    }
}
