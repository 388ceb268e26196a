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

mod budget;
mod chunk_statistics;
mod concurrent;
mod costs;
mod counters;
mod cuts;
mod devices;
mod disk;
mod engine;
mod error;
mod explain;
mod fetch;
mod measure;
mod nearest;
mod output;
mod plan;
mod points;
mod pool;
mod product;
mod proven;
mod read;
mod reduce;
mod rewrite;
mod stream;
mod summary;
mod taken;
mod verify;
mod work;
mod write;

pub use budget::Reservation;
pub use chunk_statistics::{chunk_statistics, encode_with_statistics};
pub use costs::Costs;
pub use counters::{Counters, Tier};
pub use devices::{Decision, DeviceUse, Devices};
pub use engine::{Engine, Settings};
pub use error::Error;
pub use explain::{Computation, Explanation, Requests};
pub use fetch::ArrayReader;
pub use measure::{Aggregation, AxisWeights, Grouping, Measure, Role};
pub use plan::{ChunkRead, Plan};
pub use points::Points;
pub use product::{Factor, Product};
pub use proven::{proven_reduction, proven_statistics, proven_values};
pub use reduce::Approximation;
pub use rewrite::Rewritten;
pub use stream::Pieces;
pub use taken::take_over;
pub use verify::{Progress, Report};
pub use write::summarize;
