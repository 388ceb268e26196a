//! What the integration tests, the demo and the benchmarks share: sample files and wrapped stores.

pub mod netcdf3;
pub mod sample;
