//! Encoded chunk bytes to elements and back.
//!
//! Synchronous, and the only crate that names `zarrs`. Two things are Quarr's own: the canonical
//! shard, which makes every inner chunk verifiable on its own and equal data equal bytes
//! ([`shard`]), and the bounds on what decoding may allocate ([`ArrayCodec`]).
//!
//! Invariant: bytes are decoded only after their hash was checked; callers do that with
//! [`ShardEntry::verify`], [`verify_shard`] or [`verify_plain`].

mod array_codec;
mod chain;
mod copy;
mod error;
pub mod shard;

pub use array_codec::{ArrayCodec, ChunkKind, EncodedChunk};
pub use chain::MAX_CHUNK_BYTES;
pub use error::Error;
pub use shard::{ShardEntry, ShardFooter, verify_plain, verify_shard};
