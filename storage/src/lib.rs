//! Versions of a hierarchy of arrays in an object store.
//!
//! ```text
//! log entry ─► commit ─► tree ─► tree … ─► manifest page … ─► chunk row ─► shard
//!  (refs)      (root)   (group members)    (chunk grid)       (id, length)
//! ```
//!
//! Everything but the log is immutable and named by its hash, so it is cached freely; the only
//! mutable fact is which log entry is the newest. Objects are only ever created, by put-if-absent.
//!
//! Architecture invariants: creating the next log entry is the only commit point ([`Repository`]);
//! bytes read from the store are checked against their hash and schema before they mean anything,
//! and only a row's absence from a verified page means fill value ([`ArrayNode::chunk`]). Chunk
//! bytes are the exception: checking them takes codecs, which this crate does not know.
//!
//! Spec: `docs/format.md`.

mod advice;
mod append;
mod backend;
mod bucket;
mod build;
mod changes;
mod chunk_changes;
mod clock;
mod commit;
mod committer;
mod concurrent;
mod conflict;
mod diff;
mod documents;
mod durable;
mod error;
mod external;
mod flights;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod head;
mod history;
mod inline;
mod journal;
mod layout;
mod log;
mod looks;
mod mark;
mod metered;
pub mod metrics;
mod names;
mod object;
pub mod observation;
mod outbox;
mod page;
mod page_cache;
mod probe;
pub mod proof;
mod radix;
mod reads;
mod rebase;
mod refs;
mod repository;
mod row_file;
mod shared;
mod snapshot;
mod splice;
mod store;
mod summary;
mod sweep;
pub mod tlog;
mod transaction;
mod tree;
mod turns;
mod uploads;
mod verify;
mod versions;

pub use advice::advice;
pub use array::ChunkKind;
pub use bucket::{Finding, InitOptions, Outcome, check_store, init_store};
pub use commit::Commit;
pub use conflict::{Conflict, ConflictKind, OnConflict, Policies};
pub use error::Error;
pub use external::{AllowList, ExternalFile, Externals};
pub use flights::{Claim, Flight, Flights, Waiting};
pub use log::{Asked, Idempotency, LogEntry, LogState, Operation, Ref, RefKind, Sweep};
pub use names::{RefBase, RefExpression, RefName, RepoName};
pub use object::{CommitId, object_key, shard_key};
pub use outbox::Outbox;
pub use page::{ChunkRow, Location};
pub use probe::Probe;
pub use refs::{Moved, Resolved};
pub use repository::{Repository, Summarize, list_repositories};
pub use shared::{SharedTransaction, TransactionId, TransactionState};
pub use snapshot::{ArrayNode, GroupNode, Node, Snapshot, statistics_metadata};
pub use store::{Put, Store};
pub use summary::{Covered, Merging};
pub use sweep::{GcOptions, GcReport};
pub use transaction::{CommitOptions, Isolation, Transaction};
pub use tree::{NodeKind, StatisticsRoot, TreeRow};
pub use verify::{Damage, Found, Scope, check_unreferenced};
pub use versions::{Difference, DifferenceKind, NodePair};

/// Target of the spans that make up traces: apart from those of libraries and of the log.
pub const TRACE: &str = "quarr::trace";
