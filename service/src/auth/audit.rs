//! The audit log: one line of JSON for every change and every denial.
//!
//! What cannot be written is not lost silently. The line is kept, in memory, the failure is logged as
//! an error, and from then on changes are refused with 503 until all lines kept could be written; reads
//! go on. So no more changes go unlogged than were under way when the disk filled up.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{SecondsFormat, Utc};
use serde::Serialize;
use tracing::{error, info};

/// Most lines kept while none can be written, of which half are for changes alone. Those beyond are
/// only counted.
const MAX_KEPT: usize = 4096;
/// Longest text of a request that is written.
const MAX_TEXT_CHARS: usize = 512;

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, RFC 3339.
    pub time: String,
    /// `done`, `denied`, or `failed` for any other reason.
    pub outcome: &'static str,
    /// Who: the id, which never changes its meaning.
    pub principal: String,
    /// Who, by name.
    pub name: String,
    /// The method.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The route, as the API documentation writes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// What of it: a node, a key, a branch, a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The HTTP status, if anything was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was denied, as a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The commit that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What else was made: where a job or a transaction is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How many denials this line stands for, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The id of the request, which its answer has as `X-Request-Id`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// The time as lines have it.
pub fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A text of a request, cut if it is long.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    /// To the log of the process, under the target `audit`.
    Log,
    File {
        path: PathBuf,
        file: File,
        /// Whether the last line may be there in part.
        is_torn: bool,
    },
}

/// The audit log. Writing a line is one small write to a file, done where it happens: a queue would
/// say that a line is written when it is not.
#[derive(Debug)]
pub struct Audit {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sink: Sink,
    kept: VecDeque<String>,
    /// Lines that could not even be kept.
    lost: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self::new(Sink::Log)
    }
}

impl Audit {
    fn new(sink: Sink) -> Self {
        Self {
            state: Mutex::new(State {
                sink,
                kept: VecDeque::new(),
                lost: 0,
            }),
        }
    }

    /// Appends to a file, which is made if it is not there, for its owner alone.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn to_file(path: &Path) -> std::io::Result<Self> {
        let file = open(path)?;
        Ok(Self::new(Sink::File {
            path: path.to_owned(),
            file,
            // The process that wrote to it before may have been stopped.
            is_torn: ends_torn(path),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an event.
    pub fn write(&self, event: &Event) {
        let line = serde_json::to_string(event).unwrap_or_default();
        let mut state = self.state();
        let most = match event.outcome {
            "denied" => MAX_KEPT / 2,
            _ => MAX_KEPT,
        };
        if state.kept.len() < most {
            state.kept.push_back(line);
        } else {
            state.lost += 1;
        }
        let _ = state.flush();
    }

    /// Whether lines can be written: those kept are, first. Changes wait for that.
    ///
    /// # Errors
    /// In words, if they cannot.
    pub fn ready(&self) -> Result<(), String> {
        let mut state = self.state();
        match state.kept.is_empty() {
            true => Ok(()),
            false => state.flush(),
        }
    }

    /// Opens the file anew, after it was renamed for instance. If that fails, the old one stays.
    pub fn reopen(&self) {
        let mut state = self.state();
        if let Sink::File {
            path,
            file,
            is_torn,
        } = &mut state.sink
        {
            match open(path) {
                Ok(opened) => {
                    *file = opened;
                    *is_torn = false;
                }
                Err(error) => {
                    error!(path = %path.display(), %error, "the audit log cannot be opened anew");
                }
            }
        }
    }
}

impl State {
    /// Writes all lines kept.
    fn flush(&mut self) -> Result<(), String> {
        while let Some(line) = self.kept.front() {
            if let Err(reason) = self.sink.write(line) {
                let (kept, lost) = (self.kept.len(), self.lost);
                error!(target: "audit", %reason, kept, lost, "the audit log cannot be written: changes are refused");
                return Err(reason);
            }
            self.kept.pop_front();
        }
        if self.lost > 0 {
            error!(target: "audit", lost = self.lost, "lines of the audit log were lost");
            self.lost = 0;
        }
        Ok(())
    }
}

impl Sink {
    fn write(&mut self, line: &str) -> Result<(), String> {
        match self {
            Self::Log => {
                info!(target: "audit", event = %line, "audit");
                Ok(())
            }
            Self::File {
                path,
                file,
                is_torn,
            } => {
                let start = if *is_torn { "\n" } else { "" };
                let written = file.write_all(format!("{start}{line}\n").as_bytes());
                *is_torn = written.is_err();
                written.map_err(|error| format!("{}: {error}", path.display()))
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Whether a file ends without the end of a line.
fn ends_torn(path: &Path) -> bool {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let last = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        std::io::Result::Ok(last[0])
    };
    // An empty file has no last byte.
    last().is_ok_and(|last| last != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(path: &str) -> Event {
        Event {
            time: now(),
            outcome: "done",
            principal: "key:1".into(),
            name: "ada".into(),
            method: "PUT".into(),
            route: "/".into(),
            repository: None,
            path: Some(cut(path)),
            status: Some(200),
            reason: None,
            commit: None,
            location: None,
            count: None,
            remote: None,
            request_id: "1".into(),
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn each_event_is_a_line_whatever_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::to_file(&path).unwrap();
        audit.write(&event("a\nb\"\u{7}"));
        audit.write(&event(&"ü".repeat(1000)));
        let lines = lines(&path);
        assert_eq!(lines[0]["path"], "a\nb\"\u{7}");
        assert_eq!(lines[1]["path"].as_str().unwrap().chars().count(), 513);
    }

    #[test]
    fn a_renamed_file_is_left_when_it_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (
            folder.path().join("audit.log"),
            folder.path().join("audit.1"),
        );
        let audit = Audit::to_file(&path).unwrap();
        audit.write(&event("a"));
        std::fs::rename(&path, &old).unwrap();
        audit.write(&event("b"));
        audit.reopen();
        audit.write(&event("c"));
        assert_eq!((lines(&old).len(), lines(&path).len()), (2, 1));
    }

    #[test]
    fn lines_that_cannot_be_written_are_kept_and_refuse_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::to_file(&path).unwrap();
        // As full as a disk can be.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let good = match &mut audit.state().sink {
            Sink::File { file, .. } => std::mem::replace(file, full),
            Sink::Log => unreachable!(),
        };
        assert!(audit.ready().is_ok());
        audit.write(&event("a"));
        audit.write(&event("b"));
        assert!(audit.ready().is_err());
        assert_eq!(audit.state().kept.len(), 2);
        if let Sink::File { file, .. } = &mut audit.state().sink {
            *file = good;
        }
        assert!(audit.ready().is_ok());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("\"path\""))
                .count(),
            2
        );
    }

    #[test]
    fn a_torn_line_is_ended_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        std::fs::write(&path, "{\"torn").unwrap();
        Audit::to_file(&path).unwrap().write(&event("a"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"torn\n{"), "{text}");
    }
}
