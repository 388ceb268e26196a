//! Reductions and kernels over decoded elements. Synchronous; knows neither storage nor codecs.
//!
//! Elements are little-endian bytes in C order. The data type is looked at once, in
//! `element::with_real`; everything below it is generic.

pub mod cf;
mod double;
mod element;
mod error;
pub mod gather;
mod reduce;
mod statistics;

pub use error::Error;
pub use reduce::{Block, Combiner, Partial, Reducer, Reduction};
pub use statistics::statistics;
