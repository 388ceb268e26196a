//! Reductions and kernels over decoded elements. Synchronous; knows neither storage nor codecs.
//!
//! Elements are little-endian bytes in C order. The data type is looked at once, in
//! `element::with_real`; everything below it is generic.
//!
//! | module | what |
//! |---|---|
//! | [`cf`] | missing and packed values, as CF attributes describe them |
//! | [`gather`] | copies of selected cells |
//! | `reduction` | what to reduce to, and the type of the answer |
//! | `block`, `accumulators` | the walk over one box of elements, and what it adds up |
//! | `partial`, `combiner` | what is known of some boxes, and the one order of merging |
//! | `statistics` | what is kept beside the manifest |

mod accumulators;
mod block;
pub mod cf;
mod combiner;
mod double;
mod element;
mod error;
pub mod gather;
mod partial;
mod reduction;
mod statistics;

pub use block::Block;
pub use combiner::Combiner;
pub use error::Error;
pub use partial::Partial;
pub use reduction::{Reducer, Reduction};
pub use statistics::statistics;
