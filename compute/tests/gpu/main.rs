//! Devices find what the processor finds, bit by bit.
//!
//! Where there is a CUDA device, these tests use it. Elsewhere they build an emulated one
//! (`compute/emulator`), which runs the same kernels on the processor; without a C++ compiler they
//! say so and pass.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unsafe_code,
    reason = "tests"
)]

mod cases;
mod decompress;
mod device;
mod faults;
mod layouts;
mod reductions;
mod stress;
mod vectors;
