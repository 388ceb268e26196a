//! Behaviour through the public surface of the crates.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests; Clippy exempts only the functions marked so, not their helpers"
)]

mod bad_files;
mod concurrent_changes;
mod contention;
mod damage;
mod documents;
mod every_store;
mod garbage;
mod histories;
mod imports;
mod killed_writers;
mod mirrors;
mod proofs;
mod read_path;
mod reductions;
mod refs_and_log;
mod requests;
mod scale;
mod schedules;
mod staged_changes;
mod store_promises;
mod store_settings;
mod store_uses;
mod support;
mod transparency_log;
mod unclear_outcomes;
