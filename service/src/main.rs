//! The `quarr` binary.

fn main() {}
