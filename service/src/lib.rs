//! The `quarr` binary: HTTP service and command line over the same handlers.
//!
//! A handler parses, calls one library function and encodes. Commands that read go through the same
//! router as HTTP requests, in the process or over the network, so both give the same answers.

pub mod auth;
pub mod cli;
pub mod error;
pub mod format;
pub mod http;
pub mod jobs;
pub mod keys;
pub mod open_transactions;
mod requests;
pub mod s3;
pub mod serving;
pub mod signing;
pub mod state;
pub mod target;
pub mod telemetry;
pub mod uploads;
pub mod values;
pub mod view;
pub mod witness;
