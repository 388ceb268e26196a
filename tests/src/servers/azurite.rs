//! Azurite, Microsoft's own stand-in for Azure Blob Storage. It checks signatures.

use std::io;
use std::path::Path;
use std::process::Command;

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use storage::Store;
use tempfile::TempDir;

use super::process::{Process, free_address, on_path, program, request};
use super::{BUCKET, open};

const ACCOUNT: &str = "quarrtests";
/// In base 64, as keys of accounts are.
const KEY: &str = "cXVhcnItdGVzdHM=";

/// A server with the interface of Azure Blob Storage.
#[derive(Debug)]
pub struct Azurite(Process);

impl Azurite {
    /// Azurite, as `scripts/setup.sh` installs it, or on the path; `None` if it is not there.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start() -> io::Result<Option<Self>> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = installed.join("azurite/node_modules/.bin/azurite-blob");
        let Some(program) = program([installed].into_iter().chain(on_path("azurite-blob"))) else {
            return Ok(None);
        };
        let (address, folder) = (free_address()?, TempDir::new()?);
        let mut command = Command::new(program);
        command
            .args(["--blobHost", "127.0.0.1", "--blobPort"])
            .arg(address.port().to_string())
            .args(["--inMemoryPersistence", "--skipApiVersionCheck", "--silent"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
            .current_dir(folder.path());
        let server = Self(Process::start(command, address, folder, "/")?);
        server.create_container()?;
        Ok(Some(server))
    }

    fn create_container(&self) -> io::Result<()> {
        let address = self.0.address;
        let path = format!("/{ACCOUNT}/{BUCKET}?restype=container");
        let mut wanted = HttpRequest::new(HttpRequestBody::empty());
        *wanted.method_mut() = "PUT".parse().map_err(io::Error::other)?;
        let uri = format!("http://{address}{path}").parse();
        *wanted.uri_mut() = uri.map_err(io::Error::other)?;
        let key = AzureAccessKey::try_new(KEY).map_err(io::Error::other)?;
        let credential = AzureCredential::AccessKey(key);
        AzureAuthorizer::new(&credential, ACCOUNT).authorize(&mut wanted);
        let headers: Vec<(String, String)> = wanted
            .headers()
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.to_string(), value.into_owned())
            })
            .collect();
        let answer = request(address, &format!("PUT {path}"), &headers)?;
        match answer.contains(" 201 ") {
            true => Ok(()),
            false => Err(io::Error::other(format!("no container: {answer}"))),
        }
    }

    /// An empty part of its container.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn store(&self, name: &str) -> Result<Store, storage::Error> {
        open(&Self::url(name), &self.settings())
    }

    /// What the part of its container of this name is opened as.
    #[must_use]
    pub fn url(name: &str) -> String {
        format!("az://{BUCKET}/{name}")
    }

    /// What [`Store::open_with`] takes for it; in upper case, variables of the environment.
    #[must_use]
    pub fn settings(&self) -> [(&'static str, String); 4] {
        let endpoint = format!("http://{}/{ACCOUNT}", self.0.address);
        [
            ("azure_storage_account_name", ACCOUNT.into()),
            ("azure_storage_account_key", KEY.into()),
            ("azure_storage_endpoint", endpoint),
            ("azure_allow_http", "true".into()),
        ]
    }
}
