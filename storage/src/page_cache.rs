//! Reads of local files that the system has in memory.
//!
//! Such a read takes less time than handing it to another thread and back. One that would wait for
//! the disk is not done here.

use std::fs::Metadata;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

/// Most bytes read at once: copying them takes about 100 µs.
#[cfg(target_os = "linux")]
const MAX_BYTES: u64 = 1 << 20;

/// A range of a file, and what the system knows of the file, if neither has to be waited for; `None`
/// does not say why.
#[cfg(target_os = "linux")]
pub(crate) fn read(path: &Path, range: &Range<u64>) -> Option<(Bytes, Metadata)> {
    let length = range.end.checked_sub(range.start)?;
    if length > MAX_BYTES {
        return None;
    }
    let file = std::fs::File::open(path).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).ok()?);
    while (bytes.len() as u64) < length {
        let missing = (length - bytes.len() as u64) as usize;
        let offset = range.start.checked_add(bytes.len() as u64)?;
        match append_at_once(&file, &mut bytes, missing, offset) {
            // The file ends here: whoever reads it the other way says so.
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some((bytes.into(), metadata))
}

/// Appends up to `count` bytes at `offset` of a file, if they need not be waited for. Into memory that
/// was not zeroed: that would take as long as copying them.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library reads into zeroed memory")]
fn append_at_once(
    file: &std::fs::File,
    bytes: &mut Vec<u8>,
    count: usize,
    offset: u64,
) -> std::io::Result<usize> {
    use std::os::fd::AsRawFd as _;

    let offset = libc::off_t::try_from(offset).map_err(std::io::Error::other)?;
    bytes.reserve(count);
    let room = &mut bytes.spare_capacity_mut()[..count];
    let slice = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    // SAFETY: the slice is `room`, which nothing else has.
    let read = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const slice,
            1,
            offset,
            libc::RWF_NOWAIT,
        )
    };
    let read = usize::try_from(read).map_err(|_| std::io::Error::last_os_error())?;
    // SAFETY: the system has written so many bytes, at most `count`.
    unsafe { bytes.set_len(bytes.len() + read) };
    Ok(read)
}

/// Other systems do not tell whether a read would wait.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read(_path: &Path, _range: &Range<u64>) -> Option<(Bytes, Metadata)> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_just_now_is_read_and_nothing_past_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let written: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &written).unwrap();
        for range in [0..10, 70_000..100_000, 5..5] {
            let (start, end) = (range.start as usize, range.end as usize);
            // A file system may have no such reads.
            if let Some((found, metadata)) = read(&path, &range) {
                assert_eq!(found, written[start..end]);
                assert_eq!(metadata.len(), 100_000);
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
        for range in [99_999..100_001, 200_000..200_001, 10..5] {
            assert!(read(&path, &range).is_none(), "{range:?}");
        }
        assert!(read(&folder.path().join("other"), &(0..1)).is_none());
        assert!(read(folder.path(), &(0..0)).is_none());
    }
}
