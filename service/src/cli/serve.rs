//! `quarr serve`.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use axum::middleware;
use clap::Args;
use storage::Externals;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::Failed;
use super::reference::AllowArgs;
use super::s3::S3Args;
use super::sizes::parse_bytes;
use crate::http;
use crate::jobs::{Settings, keep_adopting};
use crate::signing::keep_publishing;
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on. Anything but loopback needs --insecure while there is no
    /// authentication.
    #[arg(long, default_value = "127.0.0.1:8686", env = "QUARR_LISTEN")]
    listen: SocketAddr,
    /// Serve anyone who reaches the address, under any host name, without authentication.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    allow: AllowArgs,
    /// Most jobs, such as imports, that are worked on at once; others wait.
    #[arg(long, default_value_t = 2, value_name = "N", env = "QUARR_JOBS", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Largest file that may be sent to be imported.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, env = "QUARR_UPLOAD_LIMIT", default_value = "64GiB")]
    upload_limit: u64,
    #[command(flatten)]
    s3: S3Args,
}

impl ServeArgs {
    /// Reads what the service may read outside its store.
    pub(super) fn externals(&self) -> Result<Externals, Failed> {
        self.allow.externals()
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
    if !args.listen.ip().is_loopback() && !args.insecure {
        let reason = format!(
            "listening on {} would let anyone read and change the data: use a loopback address, or --insecure",
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
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| Failed(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr()?;
    let gateway = args.s3.bind(&state, args.insecure).await?;
    // Whoever reads the line below may stop the process at once.
    let stop = StopSignals::listen()?;
    out!("Quarr serves {} at http://{address}", state.store().url());
    let (stopping, stopped) = watch::channel(());
    let gateway = match gateway {
        Some(bound) => {
            out!("S3 clients read it at http://{}", bound.address()?);
            Some(bound.serve(stopped))
        }
        None => None,
    };
    tokio::spawn(keep_publishing(state.clone()));
    tokio::spawn(keep_adopting(state.clone()));
    let router = http::router(state);
    let router = match args.insecure {
        true => router,
        false => router.layer(middleware::from_fn(http::refuse_foreign_hosts)),
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(async {
            stop.stopped().await;
            drop(stopping);
        })
        .await?;
    if let Some(gateway) = gateway {
        gateway.await??;
    }
    Ok(())
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
