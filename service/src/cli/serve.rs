//! `quarr serve`.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use axum::middleware;
use clap::Args;
use storage::{Externals, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::Failed;
use super::access::AccessArgs;
use super::reference::AllowArgs;
use super::sizes::parse_bytes;
use crate::auth::Auth;
use crate::auth::tls::{Remote, Tls, TlsListener, keep_reading};
use crate::http;
use crate::jobs::{Settings, keep_adopting};
use crate::signing::keep_publishing;
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on. Anything but loopback needs authentication, or --insecure.
    #[arg(long, default_value = "127.0.0.1:8686", env = "QUARR_LISTEN")]
    listen: SocketAddr,
    #[command(flatten)]
    allow: AllowArgs,
    /// Most jobs, such as imports, that are worked on at once; others wait.
    #[arg(long, default_value_t = 2, value_name = "N", env = "QUARR_JOBS", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Largest file that may be sent to be imported.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, env = "QUARR_UPLOAD_LIMIT", default_value = "64GiB")]
    upload_limit: u64,
    #[command(flatten)]
    access: AccessArgs,
}

impl ServeArgs {
    /// Reads what the service may read outside its store.
    pub(super) fn externals(&self) -> Result<Externals, Failed> {
        self.allow.externals()
    }

    /// Who may do what.
    pub(super) async fn auth(&self, store: &Store) -> Result<Auth, Failed> {
        self.access.auth(store).await
    }

    /// How the server works on jobs.
    pub(super) fn job_settings(&self, mut settings: Settings) -> Result<Settings, Failed> {
        settings.running_most = self.jobs.into();
        settings.upload_limit = self.upload_limit;
        settings.exports = self.allow.exports()?;
        Ok(settings)
    }
}

pub(super) async fn serve(state: State, args: &ServeArgs) -> Result<(), Failed> {
    let is_open = !state.auth().is_required();
    let is_insecure = args.access.is_insecure();
    let is_loopback = args.listen.ip().is_loopback();
    if !is_loopback && is_open && !is_insecure {
        let reason = format!(
            "listening on {} would let anyone read and change the data: use a loopback address, make an API key (quarr auth key create), or --insecure",
            args.listen
        );
        return Err(Failed(reason));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Lines for people on a terminal, JSON for collectors elsewhere.
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().init();
    }
    let tls = args.access.tls()?;
    if !is_open && !is_loopback && tls.is_none() {
        warn!(
            "tokens and data cross the network in the clear: use --tls-cert and --tls-key, or a proxy with TLS"
        );
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| Failed(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr()?;
    // Whoever reads the line below may stop the process at once.
    let stop = StopSignals::listen()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = state.store().url();
    let how = if is_open {
        "without authentication"
    } else {
        "with authentication"
    };
    out!("Quarr serves {url} at {scheme}://{address} {how}");
    tokio::spawn(keep_fresh(
        state.clone(),
        tls.clone(),
        signal(SignalKind::hangup())?,
    ));
    tokio::spawn(keep_publishing(state.clone()));
    tokio::spawn(keep_adopting(state.clone()));
    let router = http::router(state);
    // Credentials are what a page of another host does not have.
    let router = match is_open && !is_insecure {
        true => router.layer(middleware::from_fn(http::refuse_foreign_hosts)),
        false => router,
    };
    let service = router.into_make_service_with_connect_info::<Remote>();
    match tls {
        Some(tls) => {
            let listener = TlsListener::new(listener, tls)?;
            let serving = axum::serve(listener, service);
            serving.with_graceful_shutdown(stop.stopped()).await?;
        }
        None => {
            let serving = axum::serve(listener, service);
            serving.with_graceful_shutdown(stop.stopped()).await?;
        }
    }
    Ok(())
}

/// Opens the audit log anew and reads the certificate again on SIGHUP, and the certificate when its
/// files change.
async fn keep_fresh(state: State, tls: Option<Tls>, mut hangup: Signal) {
    if let Some(tls) = tls.clone() {
        tokio::spawn(keep_reading(tls));
    }
    while hangup.recv().await.is_some() {
        let (state, tls) = (state.clone(), tls.clone());
        let refreshed = tokio::task::spawn_blocking(move || {
            state.auth().audit().reopen();
            if let Some(tls) = tls {
                tls.reload();
            }
        });
        let _ = refreshed.await;
    }
}

/// How long requests in flight may take after the process was asked to stop.
const GRACE: Duration = Duration::from_secs(30);

/// The signals that ask the process to stop.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on they do not kill the process.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Resolves when the process is asked to stop. Requests in flight are then finished, until the
    /// grace period is over or it is asked again.
    async fn stopped(mut self) {
        self.received().await;
        tokio::spawn(async move {
            tokio::time::timeout(GRACE, self.received()).await.ok();
            std::process::exit(1);
        });
    }
}
