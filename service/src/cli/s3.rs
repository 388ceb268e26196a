//! The S3 gateway of `quarr serve`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::Failed;
use crate::s3::{self, Access, Gateway};
use crate::serving::{self, Limits};
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct S3Args {
    /// Address to serve all refs at to S3 clients, read-only: s3://REPO/REF/KEY.
    #[arg(long, value_name = "ADDRESS", env = "QUARR_S3_LISTEN")]
    s3_listen: Option<SocketAddr>,
    /// A host name whose subdomains are buckets, beside the path: REPO.DOMAIN.
    #[arg(long, value_name = "DOMAIN", env = "QUARR_S3_DOMAIN")]
    s3_domain: Option<String>,
    /// A JSON file with the access keys that requests to the S3 address are signed with, and what each
    /// may read; without one, only repositories that anyone may read.
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
        let auth = state.auth();
        let is_open = insecure || (self.s3_credentials.is_none() && !auth.is_required());
        if is_open && !insecure && !address.ip().is_loopback() {
            let reason = format!(
                "serving S3 on {address} would let anyone read the data: use a loopback address, --s3-credentials, or --insecure"
            );
            return Err(Failed(reason));
        }
        let known = match &self.s3_credentials {
            Some(path) => s3::read_credentials(path).map_err(Failed)?,
            None => HashMap::new(),
        };
        let access = match is_open && known.is_empty() {
            true => Access::open(),
            false => Access::checked(known, (!is_open).then(|| auth.anonymous())),
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
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers as long as the server does, within the same limits. `secure` makes what HTTP is spoken
    /// over of a connection.
    pub(super) async fn serve<S, F>(
        self,
        secure: impl Fn(TcpStream) -> F + Clone + Send + 'static,
        limits: Limits,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let state = self.gateway.state.clone();
        serving::serve(
            self.listener,
            secure,
            s3::router(self.gateway),
            state,
            limits,
        )
        .await;
    }
}
