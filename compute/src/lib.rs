//! Reductions and kernels over decoded elements. Synchronous; knows neither storage nor codecs.
//!
//! Elements are little-endian bytes in C order. The data type is looked at once, in
//! `element::with_real`; everything below it is generic.
//!
//! | module | what |
//! |---|---|
//! | [`cf`] | missing and packed values and times, as CF attributes describe them |
//! | [`labels`] | selection and groups by the values of a coordinate |
//! | [`gather`] | copies of selected cells |
//! | `reduction` | what to reduce to, and the type of the answer |
//! | `block`, `accumulators` | the walk over one box of elements, and what it adds up |
//! | [`order`] | medians and quantiles |
//! | [`histogram`], [`weighted`] | what their names say |
//! | [`predicate`], `condition` | comparisons, and masks of cells that do not satisfy them |
//! | [`product`], [`nearest`], [`lanes`] | products of matrices, the nearest of vectors, and the one order of their sums |
//! | `partial`, `combiner` | what is known of some boxes, and the one order of merging |
//! | [`simd`] | one kernel, compiled for several vector units |
//! | `statistics` | what is kept beside the manifest |

mod accumulators;
mod block;
pub mod cf;
mod combiner;
mod condition;
mod double;
mod element;
mod error;
pub mod gather;
#[cfg(feature = "gpu")]
pub mod gpu;
mod halves;
pub mod histogram;
pub mod labels;
pub mod lanes;
pub mod nearest;
mod numbers;
pub mod order;
mod partial;
pub mod predicate;
pub mod product;
mod reduction;
pub mod simd;
mod statistics;
pub mod weighted;

pub use block::Block;
pub use combiner::{Combiner, Merge};
pub use condition::Condition;
pub use error::Error;
pub use numbers::numbers;
pub use partial::Partial;
pub use reduction::{Reducer, Reduction};
pub use statistics::{Summary, reduce_statistics, statistics};
