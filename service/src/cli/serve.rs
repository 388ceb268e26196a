//! `quarr serve`.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use axum::middleware;
use clap::Args;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use super::Failed;
use crate::http;
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
    out!("Quarr serves {} at http://{address}", state.store().url());
    let router = http::router(state);
    let router = match args.insecure {
        true => router,
        false => router.layer(middleware::from_fn(http::refuse_foreign_hosts)),
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped())
        .await?;
    Ok(())
}

/// How long requests in flight may take after the process was asked to stop.
const GRACE: Duration = Duration::from_secs(30);

/// Resolves when the process is asked to stop. Requests in flight are then finished, until the
/// grace period is over or it is asked again.
async fn stopped() {
    asked_to_stop().await;
    tokio::spawn(async {
        tokio::time::timeout(GRACE, asked_to_stop()).await.ok();
        std::process::exit(1);
    });
}

async fn asked_to_stop() {
    let interrupted = tokio::signal::ctrl_c();
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupted => {}
        () = terminated => {}
    }
}
