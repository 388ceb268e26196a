//! `quarr serve`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::middleware;
use clap::Args;
use storage::{Externals, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::either::Either;
use tracing::{info, warn};

use super::Failed;
use super::access::AccessArgs;
use super::gpu::Opened;
use super::limits::LimitArgs;
use super::reference::AllowArgs;
use super::s3::S3Args;
use super::sizes::parse_bytes;
use crate::auth::Auth;
use crate::auth::tls::{Tls, keep_reading};
use crate::jobs::{Settings, hand_over, keep_adopting};
use crate::signing::keep_publishing;
use crate::state::State;
use crate::telemetry::otlp::{self, Traces};
use crate::telemetry::{Phase, logs};
use crate::{http, serving};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on. Anything but loopback needs authentication, or --insecure.
    #[arg(long, default_value = "127.0.0.1:8686", env = "QUARR_LISTEN")]
    listen: SocketAddr,
    /// Serve reads alone, with credentials that need not allow anything else; writes and jobs are
    /// refused.
    #[arg(long, env = "QUARR_READ_ONLY")]
    read_only: bool,
    #[command(flatten)]
    allow: AllowArgs,
    /// Most jobs, such as imports, that are worked on at once; others wait.
    #[arg(long, default_value_t = 2, value_name = "N", env = "QUARR_JOBS", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Largest file that may be sent to be imported.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, env = "QUARR_UPLOAD_LIMIT", default_value = "64GiB")]
    upload_limit: u64,
    /// Requests that take so many milliseconds or more are logged with what they cost
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    slow_query_ms: u64,
    /// Collector of traces, for instance http://localhost:4318: OTLP over HTTP [default: that of
    /// OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    s3: S3Args,
    #[command(flatten)]
    access: AccessArgs,
}

impl ServeArgs {
    /// Reads what the service may read outside its store.
    pub(super) fn externals(&self) -> Result<Externals, Failed> {
        self.allow.externals()
    }

    /// Whether nothing is written.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
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

/// Serves until it is asked to end; `opened` are the devices of the state's engine.
pub(super) async fn serve(state: State, args: &ServeArgs, opened: &Opened) -> Result<(), Failed> {
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
    let traces = otlp::endpoint(args.otlp_endpoint.as_deref());
    let traces = traces.map(|endpoint| Traces::to(&endpoint)).transpose();
    let traces = traces.map_err(|reason| Failed(format!("traces cannot be sent: {reason}")))?;
    logs::begin(traces.as_ref()).map_err(Failed)?;
    opened.log();
    let limits = args.limits.limits();
    let state = state.serving_within(limits.clone());
    let slow = Duration::from_millis(args.slow_query_ms);
    state.telemetry().set_slow(slow);
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
    let gateway = args.s3.bind(&state, is_insecure).await?;
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
    if !state.store().is_read_only() {
        tokio::spawn(keep_publishing(state.clone()));
        tokio::spawn(keep_adopting(state.clone()));
    }
    let secure = move |stream| {
        let tls = tls.clone();
        async move {
            match tls {
                Some(tls) => Ok(Either::Left(tls.accept(stream).await?)),
                None => Ok(Either::Right(stream)),
            }
        }
    };
    let gateway = match gateway {
        Some(bound) => {
            out!("S3 clients read it at {scheme}://{}", bound.address()?);
            Some(tokio::spawn(bound.serve(secure.clone(), limits.clone())))
        }
        None => None,
    };
    let router = http::router(state.clone());
    // Credentials are what a page of another host does not have.
    let router = match is_open && !is_insecure {
        true => router.layer(middleware::from_fn(http::refuse_foreign_hosts)),
        false => router,
    };
    let ending = tokio::spawn(end(state.clone(), stop, args.limits.drain()));
    serving::serve(listener, secure, router, state, limits).await;
    if let Some(gateway) = gateway {
        gateway.await?;
    }
    // Jobs may take longer to hand over than requests to end.
    ending.await?;
    if let Some(traces) = traces
        && let Some(reason) = traces.end().await
    {
        warn!(%reason, "the last traces are lost");
    }
    Ok(())
}

/// Waits until the process is asked to end, and has it end: it says that it is not ready, goes on for
/// a while, takes nothing new, hands its jobs over, and finishes what was begun. Asked again, it ends
/// at once.
async fn end(state: State, mut stop: StopSignals, (delay, timeout): (Duration, Duration)) {
    let signal = stop.received().await;
    tokio::spawn(async move {
        stop.received().await;
        std::process::exit(1);
    });
    info!(?delay, "asked to end: not ready any more");
    state.telemetry().enter(Phase::Draining);
    // Whoever sits at a terminal has no balancer that would have to notice.
    if signal == SignalKind::terminate() {
        tokio::time::sleep(delay).await;
    }
    state.telemetry().enter(Phase::Stopping);
    tokio::spawn(async move {
        tokio::time::sleep(timeout).await;
        warn!(?timeout, "requests that have not ended are cut");
        std::process::exit(1);
    });
    hand_over(&state).await;
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

    /// The next of them.
    async fn received(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}
