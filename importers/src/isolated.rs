//! Files read by a child process, because the library that reads them is written in C and the files
//! are anybody's: what crashes, hangs or eats memory is then the child.
//!
//! ```text
//! parent ── request: box or places of a variable ─► child: `quarr` again, with this file open
//!        ◄─ answer: elements, or error ──
//! ```
//!
//! Each frame is a length of eight bytes, little-endian, and as many bytes. The child describes the
//! file first, unasked. Nothing it says is taken without a check.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use array::{CodecMetadata, DataType, Elements, Region, VariableElements, shape};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal, getpid, getppid, kill_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::located::Located;
use crate::pieces::{CUT_BYTES, Piece, Pieces};
use crate::source::{Group, Reader, Source, Storage, Variable};

/// Longest description of a file.
const MAX_DESCRIPTION_BYTES: u64 = 256 << 20;
/// Longest request.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// Longest error.
const MAX_ERROR_BYTES: u64 = 1 << 20;
/// Most bytes of elements of variable length in one answer.
const MAX_VARIABLE_BYTES: u64 = 1 << 30;
/// Most bytes of the list of a variable's chunks.
const MAX_PIECES_BYTES: u64 = 1 << 30;
/// Address space of a child: several times the largest shard, and its chunk in the file.
const MEMORY_BYTES: u64 = 4 << 30;
/// What a child may allocate of that, beyond what it begins with, whatever it is asked for …
const BASE_MEMORY_BYTES: u64 = 768 << 20;
/// … and besides, so many times what a request gives and the chunk of the file it is from.
const MEMORY_FACTOR: u64 = 3;
/// A child from which nothing comes for so long is given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Processor time that opening a file or answering a request may take: the library goes round in
/// circles in some damaged files …
const BUSY_MOST: Duration = Duration::from_secs(40);
/// … and more by the length of the file, in bytes a second.
const BUSY_BYTES_PER_SECOND: u64 = 5 << 20;
/// How often a child looks at that, and whether its parent is there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Values of variables of at least so many chunks are taken from where they lie, if that is known: finding
/// out takes a question and two chunks, and then nothing goes through the pipe.
const MIN_LOCATED_CHUNKS: u64 = 4;
/// A pipe this long needs fewer turns.
const PIPE_BYTES: usize = 1 << 20;

/// How a process that reads a file is started.
#[derive(Clone, Debug)]
pub struct ReaderCommand {
    /// The program.
    pub program: PathBuf,
    /// What comes before the path of the file; it must lead to [`serve_reader`].
    pub arguments: Vec<String>,
}

static COMMAND: OnceLock<ReaderCommand> = OnceLock::new();

/// From now on files whose library may crash are read by processes of their own. The first call
/// counts.
pub fn isolate_readers(command: ReaderCommand) {
    let _ = COMMAND.set(command);
}

/// How to start a process that reads a file, if files are read so.
pub(crate) fn command() -> Option<&'static ReaderCommand> {
    COMMAND.get()
}

/// What the child says of a file.
#[derive(Serialize, Deserialize)]
struct Description {
    format: String,
    groups: Vec<Group>,
    /// How each of all variables is stored, in order.
    storage: Vec<Storage>,
}

/// What is asked about a variable, by its number among all in the order of the description.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    /// The elements of a box.
    Box {
        variable: usize,
        start: Vec<u64>,
        shape: Vec<u64>,
    },
    /// Where its values lie.
    Pieces { variable: usize },
}

/// [`Pieces`], as they go through a pipe.
#[derive(Serialize, Deserialize)]
struct ToldPieces {
    chunk_shape: Vec<u64>,
    codecs: Vec<Value>,
    fill: Option<Vec<u8>>,
    /// Place, offset and length of each.
    found: Vec<[u64; 3]>,
    to_copy: Vec<u64>,
    user_block: u64,
}

impl From<Pieces> for ToldPieces {
    fn from(pieces: Pieces) -> Self {
        let told = |piece: &Piece| [piece.place, piece.offset, piece.length];
        Self {
            codecs: pieces.codecs.iter().map(CodecMetadata::to_json).collect(),
            found: pieces.found.iter().map(told).collect(),
            chunk_shape: pieces.chunk_shape,
            fill: pieces.fill,
            to_copy: pieces.to_copy,
            user_block: pieces.user_block,
        }
    }
}

impl ToldPieces {
    fn into_pieces(self) -> Result<Pieces, array::Error> {
        let codecs = self.codecs.iter().map(CodecMetadata::parse);
        let piece = |[place, offset, length]: [u64; 3]| Piece {
            place,
            offset,
            length,
        };
        Ok(Pieces {
            codecs: codecs.collect::<Result<_, _>>()?,
            found: self.found.into_iter().map(piece).collect(),
            chunk_shape: self.chunk_shape,
            fill: self.fill,
            to_copy: self.to_copy,
            user_block: self.user_block,
        })
    }
}

/// An error, as it goes through a pipe.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Told {
    Malformed(String),
    Unsupported { what: String, reason: String },
    System(i32),
    Other(String),
}

impl Told {
    fn of(error: &Error) -> Self {
        match error {
            Error::Malformed { reason, .. } => Self::Malformed(reason.clone()),
            Error::Unsupported { what, reason } => Self::Unsupported {
                what: what.clone(),
                reason: reason.clone(),
            },
            Error::Read { source, .. } => match source.raw_os_error() {
                Some(code) => Self::System(code),
                None => Self::Other(source.to_string()),
            },
            other => Self::Other(other.to_string()),
        }
    }

    fn into_error(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Malformed(reason) | Self::Other(reason) => Error::Malformed { path, reason },
            Self::Unsupported { what, reason } => Error::Unsupported { what, reason },
            Self::System(code) => Error::Read {
                path,
                source: io::Error::from_raw_os_error(code),
            },
        }
    }
}

// The first byte of an answer.
const FIXED: u8 = 0;
const VARIABLE: u8 = 1;
const FAILED: u8 = 2;
const PIECES: u8 = 3;

/// A file that a child process reads.
#[derive(Debug)]
pub(crate) struct IsolatedFile {
    path: PathBuf,
    format: &'static str,
    /// How each variable is stored, by its handle.
    storage: Vec<Storage>,
    file: File,
    file_bytes: u64,
    /// Variables whose chunks are decoded here, by their handles; `None` for those the child has to read.
    located: Mutex<HashMap<usize, Option<Arc<Located>>>>,
    child: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
    /// Why it answers no more.
    over: Option<String>,
}

impl IsolatedFile {
    /// Has a child open a file. Blocks.
    ///
    /// # Errors
    /// As [`Source::open`]; [`Error::Malformed`] too if the child dies of it.
    pub(crate) fn open(path: &Path, command: &ReaderCommand) -> Result<(Self, Vec<Group>), Error> {
        let worker = |error: io::Error| Error::Worker {
            reason: format!("cannot start {}: {error}", command.program.display()),
        };
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let file_bytes = file.metadata().map_err(read)?.len();
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(worker)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let Some((requests, answers)) = pipes else {
            return Err(worker(io::ErrorKind::BrokenPipe.into()));
        };
        let _ = rustix::pipe::fcntl_setpipe_size(&answers, PIPE_BYTES);
        let mut running = Running {
            child,
            requests,
            answers,
            over: None,
        };
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let (kind, bytes) = running
            .answer(|kind| match kind {
                FAILED => MAX_ERROR_BYTES,
                _ => MAX_DESCRIPTION_BYTES,
            })
            .map_err(malformed)?;
        if kind == FAILED {
            return Err(told(&bytes).into_error(path));
        }
        let description: Description = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(format!("its description makes no sense: {error}")))?;
        let format = match description.format.as_str() {
            "NetCDF-4" => "NetCDF-4",
            _ => "HDF5",
        };
        let mut groups = description.groups;
        let variables = groups.iter_mut().flat_map(|group| &mut group.variables);
        for (at, variable) in variables.enumerate() {
            variable.handle = at;
        }
        let opened = Self {
            path: path.to_owned(),
            format,
            storage: description.storage,
            file,
            file_bytes,
            located: Mutex::default(),
            child: Mutex::new(running),
        };
        Ok((opened, groups))
    }
}

fn told(bytes: &[u8]) -> Told {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Told::Other("its reader failed without a word".into()))
}

impl Reader for IsolatedFile {
    fn format(&self) -> &'static str {
        self.format
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let read = |part: &Region| self.read_by_child(variable, part);
        match self.located(variable) {
            Some(located) => located.read(&self.file, region, &read),
            None => read(region),
        }
    }

    fn storage(&self, variable: &Variable) -> Storage {
        self.storage
            .get(variable.handle)
            .cloned()
            .unwrap_or_default()
    }

    fn pieces(&self, variable: &Variable) -> Result<Pieces, String> {
        // Whoever asks refers to chunks, and reads a few at most.
        self.known().entry(variable.handle).or_insert(None);
        self.ask_pieces(variable)
    }
}

impl IsolatedFile {
    fn ask_pieces(&self, variable: &Variable) -> Result<Pieces, String> {
        let request = Request::Pieces {
            variable: variable.handle,
        };
        let most = |kind: u8| match kind {
            FAILED => MAX_ERROR_BYTES,
            PIECES => MAX_PIECES_BYTES,
            _ => 0,
        };
        let mut running = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let (kind, bytes) = running.ask(&request, most)?;
        drop(running);
        if kind == FAILED {
            return Err(match told(&bytes) {
                Told::Other(reason) | Told::Malformed(reason) => reason,
                other => other.into_error(&self.path).to_string(),
            });
        }
        let told: ToldPieces = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        told.into_pieces().map_err(|error| error.to_string())
    }

    /// The chunks of a variable of several; `None` if the child has to read it.
    fn located(&self, variable: &Variable) -> Option<Arc<Located>> {
        if chunk_count(variable) < MIN_LOCATED_CHUNKS {
            return None;
        }
        let mut known = self.known();
        let found = known.entry(variable.handle).or_insert_with(|| {
            let has_failed = Cell::new(false);
            let read = |part: &Region| {
                let read = self.read_by_child(variable, part);
                has_failed.set(has_failed.get() || read.is_err());
                read
            };
            let pieces = self.ask_pieces(variable).ok()?;
            let file = (&self.file, self.file_bytes);
            let located = Located::of_variable(variable, pieces, file, &read).ok()?;
            // What the child does not give is an error, whatever can be decoded.
            (!has_failed.get()).then(|| Arc::new(located))
        });
        found.clone()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<usize, Option<Arc<Located>>>> {
        self.located.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_by_child(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let malformed = |reason: String| Error::Malformed {
            path: self.path.clone(),
            reason: format!("variable {:?}: {reason}", variable.name),
        };
        let request = Request::Box {
            variable: variable.handle,
            start: region.start().to_vec(),
            shape: region.shape().to_vec(),
        };
        let count = usize::try_from(shape::elements(region.shape())?)
            .map_err(|_| array::Error::TooLarge { what: "a region" })?;
        let size = match variable.data_type.is_variable_length() {
            true => None,
            false => Some(shape::size_bytes(region.shape(), &variable.data_type)?),
        };
        let most = |kind: u8| match (kind, size) {
            (FAILED, _) => MAX_ERROR_BYTES,
            (FIXED, Some(size)) => size as u64,
            (VARIABLE, None) => MAX_VARIABLE_BYTES.saturating_add(8 * (count as u64 + 1)),
            _ => 0,
        };
        let mut running = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let (kind, bytes) = running.ask(&request, most).map_err(malformed)?;
        drop(running);
        match (kind, size) {
            (FAILED, _) => Err(told(&bytes).into_error(&self.path)),
            (FIXED, Some(size)) if bytes.len() == size => Ok(Elements::Fixed(bytes)),
            (VARIABLE, None) => {
                let elements = variable_elements(&bytes, count);
                elements.ok_or_else(|| malformed("its reader gave other elements".into()))
            }
            _ => Err(malformed("its reader gave other elements".into())),
        }
    }
}

impl Running {
    fn ask(
        &mut self,
        request: &Request,
        most: impl Fn(u8) -> u64,
    ) -> Result<(u8, Vec<u8>), String> {
        if let Some(over) = &self.over {
            return Err(over.clone());
        }
        let frame = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let sent = write_frame(&mut self.requests, &[&frame]);
        // One that died says more by how it died.
        let _ = sent;
        self.answer(most)
    }

    /// The next answer: its kind and the rest of it, of which there may be as much as `most` says.
    fn answer(&mut self, most: impl Fn(u8) -> u64) -> Result<(u8, Vec<u8>), String> {
        let read = self.read_answer(most);
        read.map_err(|error| {
            let over = self.stop(&error);
            self.over = Some(over.clone());
            over
        })
    }

    fn read_answer(&mut self, most: impl Fn(u8) -> u64) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.read_exact(&mut head)?;
        let (length, kind) = head.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        let kind = kind[0];
        let length = length.checked_sub(1).filter(|length| *length <= most(kind));
        let length = length.and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or_else(|| io::Error::other("its answer has another length"))?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        bytes.resize(length, 0);
        self.read_exact(&mut bytes)?;
        Ok((kind, bytes))
    }

    /// Reads as much, unless nothing comes for too long.
    fn read_exact(&mut self, mut out: &mut [u8]) -> io::Result<()> {
        let patience = Timespec {
            tv_sec: PATIENCE.as_secs() as _,
            tv_nsec: 0,
        };
        while !out.is_empty() {
            let mut waiting = [PollFd::from_borrowed_fd(
                self.answers.as_fd(),
                PollFlags::IN,
            )];
            match poll(&mut waiting, Some(&patience)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            match self.answers.read(out) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => out = &mut out[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the child; gives why it answers no more.
    fn stop(&mut self, error: &io::Error) -> String {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            let _ = self.child.kill();
        }
        let status = self.child.wait();
        match (error.kind(), status) {
            (io::ErrorKind::TimedOut, _) => format!(
                "the process that reads it gave nothing for {} s and was stopped",
                PATIENCE.as_secs()
            ),
            (io::ErrorKind::UnexpectedEof, Ok(status))
                if status.signal() == Some(Signal::XCPU.as_raw()) =>
            {
                "the process that reads it found no end and was stopped: the file is damaged".into()
            }
            (io::ErrorKind::UnexpectedEof, Ok(status)) => format!(
                "the process that reads it stopped ({status}): the file is damaged, or needs more memory than its values explain"
            ),
            _ => format!("the process that reads it cannot be understood: {error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It would end by itself, were it not busy.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_frame(out: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
    out.write_all(&length.to_le_bytes())?;
    for part in parts {
        out.write_all(part)?;
    }
    out.flush()
}

/// Offsets of the ends, then the bytes.
fn variable_elements(bytes: &[u8], count: usize) -> Option<Elements> {
    let (ends, bytes) = bytes.split_at_checked(count.checked_mul(8)?)?;
    let end = |end: &[u8]| {
        let end = u64::from_le_bytes(end.try_into().ok()?);
        usize::try_from(end).ok()
    };
    let ends = ends.chunks_exact(8).map(end);
    let offsets = [Some(0)]
        .into_iter()
        .chain(ends)
        .collect::<Option<Vec<usize>>>()?;
    let elements = VariableElements::new(offsets, bytes.to_vec()).ok()?;
    Some(Elements::Variable(elements))
}

/// Reads a file for the process that started this one, which asks over the standard streams, until it
/// asks no more.
///
/// # Errors
/// If the streams fail: there is nobody to tell then.
pub fn serve_reader(path: &Path) -> io::Result<()> {
    let mut memory = Memory::limited();
    let length_bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let allowance = BUSY_MOST + Duration::from_secs(length_bytes / BUSY_BYTES_PER_SECOND);
    let busy = Arc::new(AtomicU64::new(processor_time_ms()));
    end_when_stuck(busy.clone(), allowance);
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let source = match Source::open_hdf5_here(path) {
        Ok(source) => source,
        Err(error) => return answer_error(&mut answers, &error),
    };
    let variables: Vec<Variable> = source
        .groups()
        .iter()
        .flat_map(|group| group.variables.iter().cloned())
        .collect();
    let description = serde_json::to_vec(&Description {
        format: source.format().to_owned(),
        groups: source.groups().to_vec(),
        storage: variables
            .iter()
            .map(|variable| source.storage(variable))
            .collect(),
    })?;
    write_frame(&mut answers, &[&[FIXED], &description])?;
    drop(description);
    loop {
        busy.store(IDLE, Ordering::Relaxed);
        let mut length = [0; 8];
        match requests.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let length = u64::from_le_bytes(length);
        if length > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut request = vec![0; length as usize];
        requests.read_exact(&mut request)?;
        busy.store(processor_time_ms(), Ordering::Relaxed);
        let request: Request = serde_json::from_slice(&request)?;
        let (Request::Box { variable, .. } | Request::Pieces { variable }) = &request;
        let Some(variable) = variables.get(*variable) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Request::Box { start, shape, .. } = request else {
            // A list of places, as long as the file has room for.
            memory.allow(length_bytes);
            match source.pieces(variable) {
                Ok(pieces) => {
                    let told = serde_json::to_vec(&ToldPieces::from(pieces))?;
                    write_frame(&mut answers, &[&[PIECES], &told])?;
                }
                Err(reason) => {
                    let told = serde_json::to_vec(&Told::Other(reason))?;
                    write_frame(&mut answers, &[&[FAILED], &told])?;
                }
            }
            continue;
        };
        memory.allow(variable_bytes(variable, &shape));
        let read = Region::new(start, shape)
            .map_err(Error::from)
            .and_then(|region| source.read(variable, &region));
        match read {
            Ok(Elements::Fixed(bytes)) => write_frame(&mut answers, &[&[FIXED], &bytes])?,
            Ok(Elements::Variable(elements)) => {
                let ends = elements.offsets().iter().skip(1);
                let ends: Vec<u8> = ends.flat_map(|&end| (end as u64).to_le_bytes()).collect();
                write_frame(&mut answers, &[&[VARIABLE], &ends, elements.bytes()])?;
            }
            Err(error) => answer_error(&mut answers, &error)?,
        }
    }
}

fn answer_error(answers: &mut impl Write, error: &Error) -> io::Result<()> {
    let told = serde_json::to_vec(&Told::of(error))?;
    write_frame(answers, &[&[FAILED], &told])
}

/// What this process may allocate. A file may ask for as much as it likes, and gets no more.
struct Memory {
    /// What it began with, much of which is only reserved; `None` if that is not to be known.
    first: Option<u64>,
    allowed: u64,
}

impl Memory {
    fn limited() -> Self {
        let limit = |most: u64| Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        let _ = setrlimit(Resource::As, limit(MEMORY_BYTES));
        let _ = setrlimit(Resource::Core, limit(0));
        let mut memory = Self {
            first: data_bytes(),
            allowed: 0,
        };
        memory.allow(0);
        memory
    }

    /// Raises the limit to what a request for `bytes` may take.
    fn allow(&mut self, bytes: u64) {
        let Some(first) = self.first else { return };
        let allowed = bytes
            .saturating_mul(MEMORY_FACTOR)
            .saturating_add(BASE_MEMORY_BYTES + first)
            .min(MEMORY_BYTES);
        // Less would fail what is allocated already.
        if allowed > self.allowed {
            self.allowed = allowed;
            let limit = Rlimit {
                current: Some(allowed),
                maximum: Some(MEMORY_BYTES),
            };
            let _ = setrlimit(Resource::Data, limit);
        }
    }
}

/// Bytes of this process that count as data.
fn data_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1 << 10)
}

/// Bytes of a box of this shape and of a chunk of the file.
fn variable_bytes(variable: &Variable, shape: &[u64]) -> u64 {
    let chunk = variable.chunk_shape.as_deref().unwrap_or_default();
    let element = variable.data_type.size_bytes().unwrap_or(1) as u64;
    let bytes = |shape: &[u64]| {
        let multiply = |bytes: u64, &length: &u64| bytes.saturating_mul(length);
        shape.iter().fold(element, multiply)
    };
    bytes(shape).saturating_add(bytes(chunk))
}

/// How many chunks the values of a variable are in; of those in one run, how many they are cut into.
fn chunk_count(variable: &Variable) -> u64 {
    let Some(chunk) = &variable.chunk_shape else {
        return variable_bytes(variable, &variable.shape) / CUT_BYTES;
    };
    let lengths = variable.shape.iter().zip(chunk);
    let counts = lengths.map(|(length, chunk)| length.div_ceil((*chunk).max(1)));
    counts.fold(1, u64::saturating_mul)
}

/// The processor time at which a child began with what it is at, if it is at nothing.
const IDLE: u64 = u64::MAX;

/// Processor time this process took, in milliseconds.
fn processor_time_ms() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Ends this process by a signal: what the library has to do at the end of one it may not get to.
fn end(signal: Signal) -> ! {
    let _ = kill_process(getpid(), signal);
    // It may take a moment to arrive.
    std::thread::sleep(LOOK_INTERVAL);
    std::process::abort()
}

/// Ends this process once its parent is gone, which cannot end a child any more, and once what it began
/// at the processor time `busy` takes more than `allowance`.
fn end_when_stuck(busy: Arc<AtomicU64>, allowance: Duration) {
    let allowance_ms = allowance.as_millis() as u64;
    let parent = getppid();
    let look = move || {
        while getppid() == parent {
            let since = busy.load(Ordering::Relaxed);
            if processor_time_ms().saturating_sub(since) > allowance_ms {
                end(Signal::XCPU);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        end(Signal::KILL);
    };
    let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(look);
}

/// Data types as `zarr.json` has them.
pub(crate) mod data_type {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};
    use serde_json::Value;

    use super::DataType;

    pub(crate) fn serialize<S: Serializer>(
        data_type: &DataType,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        data_type.to_json().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DataType, D::Error> {
        let value = Value::deserialize(deserializer)?;
        DataType::parse(&value).map_err(de::Error::custom)
    }
}

/// Floats by their bits, which JSON would not keep of all.
pub(crate) mod bits {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        values: &[f64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| value.to_bits()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f64>, D::Error> {
        let bits = Vec::<u64>::deserialize(deserializer)?;
        Ok(bits.into_iter().map(f64::from_bits).collect())
    }
}

/// Integers as text: JSON readers keep no more than 64 bits of them.
pub(crate) mod digits {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        values: &[i128],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<i128>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parse = |text: &String| text.parse().map_err(de::Error::custom);
        texts.iter().map(parse).collect()
    }
}
