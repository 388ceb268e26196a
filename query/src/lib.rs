//! The read path: a selection becomes few, parallel, verified reads, and these become a tensor.
//!
//! ```text
//! selection ─► plan (pure) ─► fetch (ranged reads, hashes checked, cached) ─► decode on the pool
//!                                                                            ├► places in the output
//!                                                                            └► partials, merged in order
//! ```
//!
//! Architecture invariants: the reads of a [`Plan`] cover every selected element exactly once; bytes
//! that leave `fetch` were verified; caches hold immutable things only.

mod chunk_statistics;
mod engine;
mod error;
mod fetch;
mod output;
mod plan;
mod pool;
mod proven;
mod rewrite;
mod verify;
mod write;

pub use engine::{Engine, Settings};
pub use error::Error;
pub use fetch::ArrayReader;
pub use plan::{ChunkRead, Plan};
pub use proven::proven_values;
pub use rewrite::Rewritten;
pub use verify::Report;
pub use write::summarize;
