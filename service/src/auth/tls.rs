//! TLS: handshakes, and certificates that are read again when their files change.
//!
//! Connections keep what they began with; new ones get what was read last. Files that make no sense
//! leave the ones before in place, and are told of in the log.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What a server shows who it is with. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
    /// What the files were like when they were read.
    seen: RwLock<Option<Seen>>,
}

type Seen = [(SystemTime, u64); 2];

impl Tls {
    /// Reads a certificate with its chain and its key, both PEM.
    ///
    /// # Errors
    /// In words, if they cannot be read, make no sense, or do not belong together.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let seen = seen(&certificate, &key);
        let config = read(&certificate, &key)?;
        Ok(Self(Arc::new(Inner {
            certificate,
            key,
            config: RwLock::new(config),
            seen: RwLock::new(seen),
        })))
    }

    /// Reads the files again; those before stay if that fails.
    pub fn reload(&self) {
        let inner = &self.0;
        // Looked at before they are read: what changes meanwhile is seen the next time.
        *inner.seen.write().unwrap_or_else(PoisonError::into_inner) =
            seen(&inner.certificate, &inner.key);
        match read(&inner.certificate, &inner.key) {
            Ok(config) => {
                *inner.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                info!(certificate = %inner.certificate.display(), "certificate read again");
            }
            Err(reason) => {
                error!(%reason, "the certificate is not replaced: the one before stays");
            }
        }
    }

    /// Reads the files again if they changed since.
    pub fn reload_if_changed(&self) {
        let inner = &self.0;
        let now = seen(&inner.certificate, &inner.key);
        let before = *inner.seen.read().unwrap_or_else(PoisonError::into_inner);
        // Files that are not there are about to be replaced.
        if now.is_some() && now != before {
            self.reload();
        }
    }

    /// The handshake of a connection.
    ///
    /// # Errors
    /// If it fails, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self
            .0
            .config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let handshake = TlsAcceptor::from(config).accept(stream);
        let done = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Looks at the files for as long as the process runs.
pub async fn keep_reading(tls: Tls) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let tls = tls.clone();
        let _ = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await;
    }
}

fn seen(certificate: &PathBuf, key: &PathBuf) -> Option<Seen> {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    Some([of(certificate)?, of(key)?])
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Arc<ServerConfig>, String> {
    let wrong = |path: &PathBuf, reason: String| format!("{}: {reason}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "there is no certificate in it".into()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(|error| wrong(certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
