//! Server programs: found, started on a free port, stopped when dropped.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest time a server takes to listen: the first start of a Python one compiles it.
const START: Duration = Duration::from_secs(60);

/// A running server, and the folder it keeps its objects in.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
    _folder: TempDir,
}

/// An address nobody listens at.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The first of `candidates` that is a file.
pub(super) fn program(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.into_iter().find(|path| path.is_file())
}

/// Where a program may be by this name.
pub(super) fn on_path(name: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter().map(move |folder| folder.join(name))
}

impl Process {
    /// Starts a server, and waits until a request for `path` is answered.
    pub(super) fn start(
        mut command: Command,
        address: SocketAddr,
        folder: TempDir,
        path: &str,
    ) -> io::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self {
            child,
            address,
            _folder: folder,
        };
        let started = Instant::now();
        while !is_ready(address, path) {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("it stopped with {status}")));
            }
            if started.elapsed() > START {
                return Err(io::Error::other("it does not listen"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a request without a body; its first bytes are enough.
pub(super) fn request(
    address: SocketAddr,
    head: &str,
    headers: &[(String, String)],
) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request =
        format!("{head} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Whether it answers, if only that it asks for a signature. MinIO says 503 while it sets up.
fn is_ready(address: SocketAddr, path: &str) -> bool {
    let answer = request(address, &format!("GET {path}"), &[]);
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.") && !answer.contains(" 503 "))
}
