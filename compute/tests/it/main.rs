//! Reductions and decoding through the public surface: against NumPy's and xarray's answers, and
//! against plain loops.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod chunked;
mod golden;
mod histogram;
mod labels;
mod masks;
mod order;
mod properties;
mod weighted;
