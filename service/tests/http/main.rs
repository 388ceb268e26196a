//! The HTTP service, through its router and without a socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests; Clippy exempts only the functions marked so, not their helpers"
)]

mod ahead;
mod auth;
mod auth_jwt;
mod auth_keys;
mod auth_limits;
mod auth_scope;
mod auth_tls;
mod branch_writes;
mod contract;
mod dav;
mod formats;
mod gpu;
mod imports;
mod jobs;
mod listing;
mod lists;
mod products;
mod reads;
mod refusals;
mod repeats;
mod repositories;
mod s3;
mod serving;
mod support;
mod telemetry;
mod tlog;
mod transactions;
mod zarr;
