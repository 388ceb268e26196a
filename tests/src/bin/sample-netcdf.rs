//! Writes a sample NetCDF file: the demo's, or a large one of so many MiB.
//!
//! `sample-netcdf PATH [MEGABYTES]`

use std::fs::File;
use std::io::{self, BufWriter, Write};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || io::Error::other("usage: sample-netcdf PATH [MEGABYTES]");
    let path = arguments.next().ok_or_else(usage)?;
    let file = match arguments.next() {
        None => quarr_tests::sample::weather(),
        Some(megabytes) => quarr_tests::sample::large(megabytes.parse().map_err(|_| usage())?),
    };
    let mut out = BufWriter::new(File::create(path)?);
    file.write(&mut out)?;
    out.flush()
}
