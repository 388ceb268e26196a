//! Object stores of every kind, for tests that must hold on all of them: real servers where they are
//! installed, started on a free port and stopped when dropped.

mod azurite;
mod gcs;
mod process;
mod s3;

use std::io;

use storage::Store;
use tempfile::TempDir;

pub use azurite::Azurite;
pub use gcs::GoogleFake;
pub use s3::S3Server;

/// The bucket every server has.
const BUCKET: &str = "quarr-tests";

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Local,
    /// The S3 of moto.
    Moto,
    /// The S3 of MinIO.
    Minio,
    /// The Azure Blob Storage of Azurite.
    Azurite,
    /// The Google Cloud Storage of [`GoogleFake`].
    Google,
}

/// A store of some kind.
#[derive(Debug)]
pub enum Server {
    /// A directory.
    Local(TempDir),
    /// Something with an S3 interface.
    S3(S3Server),
    /// Something with Azure's interface.
    Azure(Azurite),
    /// Something with Google's interface.
    Google(GoogleFake),
}

impl Server {
    /// Starts one; `None` if its program is not installed.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(kind: Kind) -> io::Result<Option<Self>> {
        Ok(match kind {
            Kind::Local => Some(Self::Local(TempDir::new()?)),
            Kind::Moto => S3Server::moto()?.map(Self::S3),
            Kind::Minio => S3Server::minio()?.map(Self::S3),
            Kind::Azurite => Azurite::start()?.map(Self::Azure),
            Kind::Google => Some(Self::Google(GoogleFake::start().await?)),
        })
    }

    /// An empty part of it.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn store(&self, name: &str) -> Result<Store, storage::Error> {
        open(&self.url(name), &self.settings())
    }

    /// What the part of it of this name is opened as.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        match self {
            Self::Local(folder) => folder.path().join(name).display().to_string(),
            Self::S3(_) => S3Server::url(name),
            Self::Azure(_) => Azurite::url(name),
            Self::Google(_) => GoogleFake::url(name),
        }
    }

    /// What [`Store::open_with`] takes for it.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Local(_) => Vec::new(),
            Self::S3(server) => server.settings().to_vec(),
            Self::Azure(server) => server.settings().to_vec(),
            Self::Google(server) => server.settings().to_vec(),
        }
    }
}

/// A store, by settings that own their values.
///
/// # Errors
/// As [`Store::open_with`].
pub fn open(url: &str, settings: &[(&str, String)]) -> Result<Store, storage::Error> {
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Store::open_with(url, &settings)
}
