//! TLS: handshakes beside each other, and certificates that are read again when their files change.
//!
//! Connections keep what they began with; new ones get what was read last. Files that make no sense
//! leave the ones before in place, and are told of in the log.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, info};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at once; others wait to be accepted.
const MAX_HANDSHAKES: usize = 256;
/// How often the files are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after the system could not accept a connection, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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

/// Connections whose handshake is done.
#[derive(Debug)]
pub struct TlsListener {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    /// Accepts connections from now on.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn new(listener: TcpListener, tls: Tls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (send, done) = mpsc::channel(MAX_HANDSHAKES);
        tokio::spawn(shake_hands(listener, tls, send));
        Ok(Self { done, address })
    }
}

/// One slow client must not keep the others waiting.
async fn shake_hands(
    listener: TcpListener,
    tls: Tls,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = done.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, done) = (tls.clone(), done.clone());
        tokio::spawn(async move {
            match tls.accept(stream).await {
                Ok(stream) => {
                    let _ = done.send((stream, address)).await;
                }
                Err(error) => debug!(%address, %error, "a TLS handshake failed"),
            }
            drop(place);
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.done.recv().await {
            Some(accepted) => accepted,
            // Only with the runtime does the task that sends end.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// Where a connection comes from, with or without TLS.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub SocketAddr);

impl Connected<IncomingStream<'_, TlsListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}
