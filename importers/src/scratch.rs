//! Files for what must be unpacked or fetched before it can be read.

use std::fs::File;
use std::io::{self, Read, Write};

/// What is left free on the disk.
const SPARE_BYTES: u64 = 256 << 20;

/// Checks that there is room for `bytes` where scratch files are.
///
/// # Errors
/// If there is not.
pub(crate) fn check_room(bytes: u64) -> io::Result<()> {
    let folder = std::env::temp_dir();
    let disk = rustix::fs::statvfs(&folder)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes.saturating_add(SPARE_BYTES) <= free {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        format!(
            "{bytes} bytes are needed in {}, where {free} are free: set TMPDIR to a larger disk",
            folder.display()
        ),
    ))
}

/// A file without a name, gone with its last handle, for `bytes`.
///
/// # Errors
/// If there is no room for it.
pub(crate) fn scratch_file(bytes: u64) -> io::Result<File> {
    check_room(bytes)?;
    tempfile::tempfile()
}

/// Copies exactly `bytes` of `from`, and finds its end there.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is longer or shorter.
pub(crate) fn copy_exactly(from: impl Read, to: &mut impl Write, bytes: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(bytes.saturating_add(1)), to)?;
    if copied == bytes {
        return Ok(());
    }
    let than = if copied > bytes { "more" } else { "fewer" };
    let message = format!("it unpacks to {than} than the {bytes} bytes it claims");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
