//! TLS: real handshakes, and certificates that are replaced while connections are open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use object_store::memory::InMemory;
use quarr_tests::watched::Watched;
use service::auth::tls::Tls;
use service::serving::{self, Limits};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::state_over;

/// Certificates for localhost, each of them its own authority; for these tests alone.
const FIRST: [&str; 2] = [
    include_str!("fixtures/first-cert.pem"),
    include_str!("fixtures/first-key.pem"),
];
const SECOND: [&str; 2] = [
    include_str!("fixtures/second-cert.pem"),
    include_str!("fixtures/second-key.pem"),
];

struct Server {
    folder: TempDir,
    tls: Tls,
    url: String,
    address: std::net::SocketAddr,
}

fn write(folder: &Path, [certificate, key]: [&str; 2]) {
    std::fs::write(folder.join("cert.pem"), certificate).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), FIRST);
        let tls = Tls::open(
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/",
            get(|version: axum::http::Version| async move { format!("{version:?}") }),
        );
        let secure = {
            let tls = tls.clone();
            move |stream| {
                let tls = tls.clone();
                async move { tls.accept(stream).await }
            }
        };
        let state = state_over(&Watched::new(Arc::new(InMemory::new())));
        let serving = serving::serve(listener, secure, router, state, Limits::default());
        tokio::spawn(serving);
        Self {
            folder,
            tls,
            url: format!("https://localhost:{}", address.port()),
            address,
        }
    }
}

/// A client that trusts this certificate alone, with connections of its own.
fn client([certificate, _]: [&str; 2]) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap())
        .build()
        .unwrap()
}

#[tokio::test]
async fn connections_are_served_while_others_are_slow_with_their_handshake() {
    let server = Server::start().await;
    // They say nothing, or nothing that makes sense.
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let trusting = client(FIRST);
    let answer = tokio::time::timeout(Duration::from_secs(5), trusting.get(&server.url).send());
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut rest = Vec::new();
    plain.read_to_end(&mut rest).await.ok();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert!(client(SECOND).get(&server.url).send().await.is_err());
}

#[tokio::test]
async fn a_certificate_is_replaced_under_open_connections_and_a_bad_one_is_not_taken() {
    let server = Server::start().await;
    let folder = server.folder.path();
    let ask = async |client: &reqwest::Client| client.get(&server.url).send().await;
    let open = client(FIRST);
    assert_eq!(ask(&open).await.unwrap().status(), 200);
    // Nothing of it can be used, or not together, or it is gone.
    for bad in [
        ["nonsense", "nonsense"],
        [SECOND[0], FIRST[1]],
        ["", ""],
        [FIRST[1], FIRST[0]],
    ] {
        write(folder, bad);
        server.tls.reload();
        assert_eq!(ask(&client(FIRST)).await.unwrap().status(), 200);
    }
    std::fs::remove_file(folder.join("cert.pem")).unwrap();
    server.tls.reload_if_changed();
    server.tls.reload();
    assert_eq!(ask(&client(FIRST)).await.unwrap().status(), 200);
    write(folder, SECOND);
    server.tls.reload_if_changed();
    assert!(ask(&client(FIRST)).await.is_err());
    assert_eq!(ask(&client(SECOND)).await.unwrap().status(), 200);
    // The connection from before is still there.
    assert_eq!(ask(&open).await.unwrap().status(), 200);
}

#[tokio::test]
async fn clients_that_speak_http_2_are_offered_it() {
    let server = Server::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let stream = handshake(stream, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let stream = handshake(stream, &[b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

async fn handshake(
    stream: TcpStream,
    protocols: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    use std::sync::Arc;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(FIRST[0].as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap()
}
