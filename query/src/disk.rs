//! Verified bytes kept on a local disk: bounded, and there after a restart.
//!
//! A file is named by the hash of what it holds, and whoever reads it checks that hash: what a disk
//! gives back is trusted as little as what a store does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use array::Hash;
use bytes::Bytes;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use tokio::sync::Semaphore;

/// Files written at once; what comes meanwhile is not kept.
const CONCURRENT_WRITES: usize = 4;
/// Files are counted in these, as disks do.
const BLOCK_BYTES: u64 = 4096;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// An encoded inner chunk, or a plain chunk.
    Chunk,
    /// The footer of a shard.
    Footer,
}

type Key = (Kind, Hash);

/// Files in a directory. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct DiskCache {
    directory: Arc<Path>,
    /// Bytes of each file.
    files: Cache<Key, u64>,
    writes: Arc<Semaphore>,
}

fn path_of(directory: &Path, (kind, hash): &Key) -> PathBuf {
    let digits = hash.to_string();
    let kind = match kind {
        Kind::Chunk => "chunk",
        Kind::Footer => "footer",
    };
    directory
        .join(&digits[..2])
        .join(format!("{digits}.{kind}"))
}

fn key_of(name: &str) -> Option<Key> {
    let (digits, kind) = name.split_once('.')?;
    let kind = match kind {
        "chunk" => Kind::Chunk,
        "footer" => Kind::Footer,
        _ => return None,
    };
    Some((kind, digits.parse().ok()?))
}

impl DiskCache {
    /// The cache in `directory`, of at most so many bytes. What is there is taken over, the newest
    /// first; what is no file of a cache and sits among them is deleted.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub(crate) fn open(directory: &Path, capacity_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory: Arc<Path> = directory.into();
        let evicted = {
            let directory = directory.clone();
            move |key: Arc<Key>, _: u64, cause: RemovalCause| {
                if cause != RemovalCause::Replaced {
                    // Gone already is gone as well.
                    let _ = fs::remove_file(path_of(&directory, &key));
                }
            }
        };
        let blocks = |bytes: u64| u32::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX);
        let cache = Self {
            files: Cache::builder()
                .max_capacity(capacity_bytes / BLOCK_BYTES)
                .weigher(move |_, &bytes: &u64| blocks(bytes))
                .eviction_listener(evicted)
                .build(),
            directory,
            writes: Arc::new(Semaphore::new(CONCURRENT_WRITES)),
        };
        cache.take_over()?;
        Ok(cache)
    }

    fn take_over(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.directory)? {
            let folder = folder?;
            let is_ours = folder.file_name().len() == 2 && folder.file_type()?.is_dir();
            if !is_ours {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let metadata = file.metadata()?;
                match file.file_name().to_str().and_then(key_of) {
                    Some(key) => found.push((metadata.modified()?, key, metadata.len())),
                    None => fs::remove_file(file.path())?,
                }
            }
        }
        found.sort_by_key(|(modified, _, _)| *modified);
        for (_, key, bytes) in found {
            self.files.insert(key, bytes);
        }
        self.files.run_pending_tasks();
        Ok(())
    }

    /// Whether there is such a file.
    pub(crate) fn contains(&self, kind: Kind, hash: Hash) -> bool {
        self.files.contains_key(&(kind, hash))
    }

    /// What a file holds, to be verified; `None` if there is none.
    pub(crate) async fn get(&self, kind: Kind, hash: Hash) -> Option<Bytes> {
        let key = (kind, hash);
        self.files.get(&key)?;
        let path = path_of(&self.directory, &key);
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
        match read {
            Ok(Ok(bytes)) => Some(bytes.into()),
            _ => {
                self.remove(kind, hash);
                None
            }
        }
    }

    /// Deletes a file that is not what its name says.
    pub(crate) fn remove(&self, kind: Kind, hash: Hash) {
        self.files.invalidate(&(kind, hash));
    }

    /// Keeps verified bytes, in the background; not while much else is being written.
    pub(crate) fn put(&self, kind: Kind, hash: Hash, bytes: Bytes) {
        let Ok(permit) = self.writes.clone().try_acquire_owned() else {
            return;
        };
        let cache = self.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let key = (kind, hash);
            // A full or broken disk costs time, not answers.
            if write(&path_of(&cache.directory, &key), &bytes).is_ok() {
                cache.files.insert(key, bytes.len() as u64);
                cache.files.run_pending_tasks();
            }
        });
    }

    /// Bytes kept, in whole blocks.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.weighted_size() * BLOCK_BYTES
    }
}

/// Not synced: a file that a crash cuts short fails its check.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("part{}", std::process::id()));
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use array::hash;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("quarr-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn content(number: u8) -> (Hash, Bytes) {
        let bytes = Bytes::from(vec![number; 5000]);
        (hash::hash(hash::Kind::PlainChunk, &bytes), bytes)
    }

    async fn put(cache: &DiskCache, number: u8) -> Hash {
        let (hash, bytes) = content(number);
        cache.put(Kind::Chunk, hash, bytes);
        while cache.writes.available_permits() < CONCURRENT_WRITES {
            tokio::task::yield_now().await;
        }
        hash
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart_and_no_more_than_fits() {
        let folder = folder("disk-cache");
        let cache = DiskCache::open(&folder, 1 << 20).unwrap();
        let first = put(&cache, 1).await;
        assert_eq!(cache.get(Kind::Chunk, first).await, Some(content(1).1));
        assert_eq!(cache.get(Kind::Footer, first).await, None);
        fs::write(folder.join(&first.to_string()[..2]).join("unknown"), "x").unwrap();
        drop(cache);
        let cache = DiskCache::open(&folder, 5 * 2 * BLOCK_BYTES).unwrap();
        assert_eq!(cache.get(Kind::Chunk, first).await, Some(content(1).1));
        for number in 2..20 {
            put(&cache, number).await;
        }
        cache.files.run_pending_tasks();
        assert!(cache.size_bytes() <= 5 * 2 * BLOCK_BYTES);
        let files = fs::read_dir(&folder)
            .unwrap()
            .map(|folder| folder.unwrap().path());
        let files: usize = files
            .map(|folder| fs::read_dir(folder).unwrap().count())
            .sum();
        assert!((1..=5).contains(&files), "{files} files");
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_went_is_no_hit() {
        let folder = folder("disk-cache-gone");
        let cache = DiskCache::open(&folder, 1 << 20).unwrap();
        let hash = put(&cache, 1).await;
        fs::remove_dir_all(folder.join(&hash.to_string()[..2])).unwrap();
        assert_eq!(cache.get(Kind::Chunk, hash).await, None);
        assert!(!cache.contains(Kind::Chunk, hash));
        fs::remove_dir_all(folder).unwrap();
    }
}
