//! Servers with an S3 interface.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use storage::Store;
use tempfile::TempDir;

use super::process::{Process, free_address, on_path, program, request};
use super::{BUCKET, open};

/// Runs moto with one thread. It looks for an object and puts it in two steps, between which another
/// thread may have put it: two writers would win.
const MOTO: &str = "\
import moto.server as server
run = server.run_simple
server.run_simple = lambda *args, **settings: run(*args, **settings | {'threaded': False})
server.main()
";

/// A server with an S3 interface.
#[derive(Debug)]
pub struct S3Server(Process);

impl S3Server {
    /// moto, from the Python environments of the interoperability tests; `None` if it is not
    /// installed. It does not check signatures.
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
        // The interpreter that has the package.
        let beside = program.with_file_name("python");
        let mut command = Command::new(if beside.exists() {
            &beside
        } else {
            Path::new("python3")
        });
        command.args(["-c", MOTO, "-H", "127.0.0.1", "-p", &port]);
        let server = Process::start(command, address, TempDir::new()?, "/")?;
        create_bucket(address)?;
        Ok(Some(Self(server)))
    }

    /// MinIO, if it is on the path or where Go installs it; `None` if it is not. It checks
    /// signatures.
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
        let ready = format!("/{BUCKET}");
        Process::start(command, address, folder, &ready).map(|server| Some(Self(server)))
    }

    /// An empty part of its bucket.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn store(&self, name: &str) -> Result<Store, storage::Error> {
        open(&Self::url(name), &self.settings())
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
            ("aws_endpoint", format!("http://{}", self.0.address)),
            ("aws_allow_http", "true".into()),
            ("aws_region", "us-east-1".into()),
            ("aws_access_key_id", "quarr-tests".into()),
            ("aws_secret_access_key", "quarr-tests".into()),
        ]
    }
}

fn create_bucket(address: SocketAddr) -> io::Result<()> {
    let answer = request(address, &format!("PUT /{BUCKET}"), &[])?;
    match answer.contains(" 200 ") {
        true => Ok(()),
        false => Err(io::Error::other(format!("no bucket: {answer}"))),
    }
}
