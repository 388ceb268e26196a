//! Encoded chunk bytes to elements and back.
//!
//! Synchronous, and the only crate that names `zarrs`. Two things are Quarr's own: the canonical
//! encoding, by which equal data has equal bytes, and the bounds on what decoding may allocate
//! ([`ArrayCodec`]).
//!
//! Invariant: bytes are decoded only after their hash was checked; callers do that with
//! [`array::shard`].

mod array_codec;
mod blosc;
mod chain;
mod compressed;
mod contexts;
mod copy;
mod error;
pub mod hdf5;
mod inflate;
mod served;
mod stages;
mod undo;

pub use array_codec::{ArrayCodec, Cells, EncodedChunk};
pub use chain::MAX_CHUNK_BYTES;
pub use compressed::{Checksum, Compressed, Method, Stream};
pub use error::Error;
pub use served::{served, stored_as};
pub use undo::undo;
