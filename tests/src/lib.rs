//! What the integration tests, the demo and the benchmarks share: sample files and arrays, and a
//! store that watches and damages, and one whose answers are unreliable.

pub mod arrays;
pub mod histories;
pub mod netcdf3;
pub mod sample;
pub mod schedule;
pub mod servers;
pub mod stopping;
pub mod unreliable;
pub mod watched;
