//! Object stores of every kind, for tests that must hold on all of them: real servers where they are
//! installed, started on a free port and stopped when dropped.

mod gcs;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use storage::Store;
use tempfile::TempDir;

pub use gcs::GoogleFake;

/// The bucket every server has.
const BUCKET: &str = "quarr-tests";
/// Longest time a server takes to listen: the first start of a Python one compiles it.
const START: Duration = Duration::from_secs(60);

/// A server with an S3 interface, and the folder it keeps its objects in.
#[derive(Debug)]
pub struct S3Server {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// An address nobody listens at.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The first of `candidates` that is a file.
fn program(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.into_iter().find(|path| path.is_file())
}

fn on_path(name: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter().map(move |folder| folder.join(name))
}

impl S3Server {
    /// moto, from the Python environments of the interoperability tests; `None` if it is not
    /// installed.
    ///
    /// # Errors
    /// If it does not start.
    pub fn moto() -> io::Result<Option<Self>> {
        let environments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv");
        let versions = ["3.13", "3.12", "3.11"];
        let installed = versions.map(|version| environments.join(version).join("bin/moto_server"));
        let Some(program) = program(installed.into_iter().chain(on_path("moto_server"))) else {
            return Ok(None);
        };
        let address = free_address()?;
        let port = address.port().to_string();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port]);
        let server = Self::start(command, address, TempDir::new()?)?;
        create_bucket(address)?;
        Ok(Some(server))
    }

    /// MinIO, if it is on the path or where Go installs it; `None` if it is not.
    ///
    /// # Errors
    /// If it does not start.
    pub fn minio() -> io::Result<Option<Self>> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let gos = home.map(|home| home.join("go/bin/minio"));
        let Some(program) = program(on_path("minio").chain(gos)) else {
            return Ok(None);
        };
        let folder = TempDir::new()?;
        // A folder is a bucket.
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .args(["server", "--quiet", "--address", &address.to_string()])
            .arg(folder.path())
            .env("MINIO_ROOT_USER", "quarr-tests")
            .env("MINIO_ROOT_PASSWORD", "quarr-tests");
        Self::start(command, address, folder).map(Some)
    }

    fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> io::Result<Self> {
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self {
            process,
            address,
            _folder: folder,
        };
        let started = Instant::now();
        while !is_ready(address) {
            if let Some(status) = server.process.try_wait()? {
                return Err(io::Error::other(format!("it stopped with {status}")));
            }
            if started.elapsed() > START {
                return Err(io::Error::other("it does not listen"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// An empty part of its bucket.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn store(&self, name: &str) -> Result<Store, storage::Error> {
        let settings = self.settings();
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Store::open_with(&Self::url(name), &settings)
    }

    /// What the part of its bucket of this name is opened as.
    #[must_use]
    pub fn url(name: &str) -> String {
        format!("s3://{BUCKET}/{name}")
    }

    /// What [`Store::open_with`] takes for it; in upper case, variables of the environment.
    #[must_use]
    pub fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("aws_endpoint", format!("http://{}", self.address)),
            ("aws_allow_http", "true".into()),
            ("aws_region", "us-east-1".into()),
            ("aws_access_key_id", "quarr-tests".into()),
            ("aws_secret_access_key", "quarr-tests".into()),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The answer to a request without a body; its first bytes are enough.
fn request(address: SocketAddr, head: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Whether it answers, if only that it asks for a signature. MinIO says 503 while it sets up.
fn is_ready(address: SocketAddr) -> bool {
    let answer = request(address, &format!("GET /{BUCKET}"));
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1") && !answer.contains(" 503 "))
}

fn create_bucket(address: SocketAddr) -> io::Result<()> {
    let answer = request(address, &format!("PUT /{BUCKET}"))?;
    match answer.contains(" 200 ") {
        true => Ok(()),
        false => Err(io::Error::other(format!("no bucket: {answer}"))),
    }
}
