//! The S3 gateway of `quarr serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Failed;
use crate::s3::{self, Access, Gateway};
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct S3Args {
    /// Address to serve all refs at to S3 clients, read-only: s3://REPO/REF/KEY.
    #[arg(long, value_name = "ADDRESS", env = "QUARR_S3_LISTEN")]
    s3_listen: Option<SocketAddr>,
    /// A host name whose subdomains are buckets, beside the path: REPO.DOMAIN.
    #[arg(long, value_name = "DOMAIN", env = "QUARR_S3_DOMAIN")]
    s3_domain: Option<String>,
    /// A JSON file with the access keys that requests to the S3 address must be signed with.
    #[arg(long, value_name = "FILE", env = "QUARR_S3_CREDENTIALS")]
    s3_credentials: Option<PathBuf>,
}

/// A gateway that has its address, but does not answer yet.
pub(super) struct Bound {
    listener: TcpListener,
    gateway: Gateway,
}

impl S3Args {
    /// Takes the address of the gateway, if there is to be one. `insecure` has anyone read who reaches
    /// it, from anywhere.
    pub(super) async fn bind(
        &self,
        state: &State,
        insecure: bool,
    ) -> Result<Option<Bound>, Failed> {
        let Some(address) = self.s3_listen else {
            return Ok(None);
        };
        let is_open = insecure || self.s3_credentials.is_none();
        if is_open && !insecure && !address.ip().is_loopback() {
            let reason = format!(
                "serving S3 on {address} would let anyone read the data: use a loopback address, --s3-credentials, or --insecure"
            );
            return Err(Failed(reason));
        }
        let access = match &self.s3_credentials {
            None => Access::open(),
            Some(path) => {
                let known = s3::read_credentials(path).map_err(Failed)?;
                let find = move |key: &str| known.get(key).cloned();
                Access::checked(find, move |who, _, _| is_open || who.is_some())
            }
        };
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.map_err(|error| Failed(format!("cannot listen on {address}: {error}")))?;
        Ok(Some(Bound {
            listener,
            gateway: Gateway {
                state: state.clone(),
                access,
                domain: self.s3_domain.clone(),
                only_this_machine: is_open && !insecure,
            },
        }))
    }
}

impl Bound {
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the sender of `stopped` is gone, and then what it has begun.
    pub(super) fn serve(self, mut stopped: watch::Receiver<()>) -> JoinHandle<std::io::Result<()>> {
        let router = s3::router(self.gateway);
        let stopped = async move { while stopped.changed().await.is_ok() {} };
        tokio::spawn(
            axum::serve(self.listener, router)
                .with_graceful_shutdown(stopped)
                .into_future(),
        )
    }
}
