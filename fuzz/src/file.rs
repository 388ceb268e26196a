//! Files for importers, which open them by their path.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;

use array::Region;
use importers::Source;
use rustix::fs::{MemfdFlags, memfd_create};

/// Most elements read of a variable.
const MAX_ELEMENTS: u64 = 4096;

/// Opens a file with these bytes, reads the first elements of each of its variables, and asserts that
/// there are as many as asked for.
pub fn import(bytes: &[u8]) {
    let Ok(handle) = memfd_create("fuzz", MemfdFlags::CLOEXEC) else {
        return;
    };
    let mut file = File::from(handle);
    if file.write_all(bytes).is_err() {
        return;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Ok(source) = Source::open(path.as_ref()) else {
        return;
    };
    for variable in source.groups().iter().flat_map(|group| &group.variables) {
        let mut left = MAX_ELEMENTS;
        let mut lengths = Vec::new();
        for &length in &variable.shape {
            let taken = length.min(left);
            left /= taken.max(1);
            lengths.push(taken);
        }
        let elements: u64 = lengths.iter().product();
        let start = vec![0; lengths.len()];
        let Ok(region) = Region::new(start, lengths) else {
            continue;
        };
        let Ok(read) = source.read(variable, &region) else {
            continue;
        };
        if let (array::Elements::Fixed(bytes), Some(size)) =
            (&read, variable.data_type.size_bytes())
        {
            assert_eq!(bytes.len() as u64, elements * size as u64);
        }
    }
}
