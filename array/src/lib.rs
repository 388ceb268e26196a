//! The words everything else is written in: shapes, data types, selections, chunk grids,
//! `zarr.json`, hashes, the layout of shards, statistics.
//!
//! Pure: no I/O, no threads. Sizes that come from outside are checked where they enter; arithmetic
//! on them cannot overflow afterwards, and nothing allocates by an unchecked one.

#[cfg(target_endian = "big")]
compile_error!("elements are held in little-endian order, which must be the native one");

mod double;
mod dtype;
mod elements;
mod error;
mod fill;
mod grid;
pub mod hash;
pub mod json;
mod layout;
mod metadata;
mod path;
mod runs;
mod selection;
pub mod shape;
pub mod shard;
mod sharding;
mod statistics;

pub use double::Double;
pub use dtype::{DataType, MAX_ELEMENT_BYTES, TimeUnit};
pub use elements::{Elements, Tensor, VariableElements};
pub use error::Error;
pub use fill::FillValue;
pub use grid::{ChunkIndex, Positions, Region, RegularGrid};
pub use hash::Hash;
pub use layout::{Bits, Blocks, Layout, Packing};
pub use metadata::{
    ArrayMetadata, ChunkKeyEncoding, CodecMetadata, GroupMetadata, MAX_DOCUMENT_BYTES, NodeMetadata,
};
pub use path::NodePath;
pub use runs::Runs;
pub use selection::{AxisSelection, Bounds, OutputAxis, ResolvedSelection, Selection, Selector};
pub use shard::ChunkKind;
pub use sharding::Sharding;
pub use statistics::{Moments, Scalar, Statistics, Sum};
