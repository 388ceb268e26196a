//! Footers of shards: where each inner chunk is, and its hash.

use std::sync::Arc;

use array::Hash;
use array::shard::{ShardEntry, ShardFooter, footer_range, verify_shard};
use bytes::Bytes;
use storage::{ChunkRow, Claim};

use super::{ArrayReader, Fetcher, slice};
use crate::Error;
use crate::counters::Tier;
use crate::disk::Kind;

/// A shard's footer, read and as stored.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(super) parsed: ShardFooter,
    pub(super) bytes: Bytes,
}

impl Footer {
    pub(crate) fn entries(&self) -> &[Option<ShardEntry>] {
        self.parsed.entries()
    }
}

impl Fetcher {
    /// The footer of a shard.
    pub(crate) async fn footer(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
    ) -> Result<Arc<Footer>, Error> {
        Ok(self.footer_or_whole(array, row, false).await?.0)
    }

    /// The footer of a shard, by reading all of it if it is not known and `whole` says so: then all
    /// of it, verified, as well.
    pub(super) async fn footer_or_whole(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        whole: bool,
    ) -> Result<(Arc<Footer>, Option<Bytes>), Error> {
        let key = (row.id, array.codec.inner_chunks());
        loop {
            if let Some(footer) = self.footers.get(&key) {
                self.counters.hit(Tier::Footer);
                return Ok((footer, None));
            }
            match self.reading_footers.claim(&row.id) {
                Claim::Other(other) => {
                    // The same shard under other codecs has another number of inner chunks.
                    if let Some(footer) = other.result().await
                        && footer.entries().len() == key.1
                    {
                        return Ok((footer, None));
                    }
                }
                Claim::Own(flight) => {
                    if let Some(footer) = self.footers.get(&key) {
                        flight.finish(footer.clone());
                        return Ok((footer, None));
                    }
                    let (footer, bytes) = match self.footer_on_disk(row, key).await {
                        Some(footer) => (footer, None),
                        None if whole => {
                            let (footer, bytes) = self.whole_shard(array, row, true).await?;
                            (footer, Some(bytes))
                        }
                        None => (self.read_footer(array, row, key).await?, None),
                    };
                    self.footers.insert(key, footer.clone());
                    flight.finish(footer.clone());
                    return Ok((footer, bytes));
                }
            }
        }
    }

    async fn footer_on_disk(&self, row: &ChunkRow, key: (Hash, usize)) -> Option<Arc<Footer>> {
        let disk = self.disk.as_ref()?;
        let bytes = disk.get(Kind::Footer, row.id).await?;
        match ShardFooter::parse(&bytes, &row.id, row.length, key.1) {
            Ok(parsed) => {
                self.counters.hit(Tier::Disk);
                Some(Arc::new(Footer { parsed, bytes }))
            }
            Err(_) => {
                self.counters.miss(Tier::Disk);
                disk.remove(Kind::Footer, row.id);
                None
            }
        }
    }

    async fn read_footer(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        key: (Hash, usize),
    ) -> Result<Arc<Footer>, Error> {
        self.counters.miss(Tier::Footer);
        let corrupt = |error| array.corrupt(row, error);
        let range = footer_range(row.length, key.1).map_err(corrupt)?;
        let bytes = self.request(array, row, range).await?;
        let parsed = ShardFooter::parse(&bytes, &row.id, row.length, key.1).map_err(corrupt)?;
        if let Some(disk) = &self.disk {
            disk.put(Kind::Footer, row.id, bytes.clone());
        }
        Ok(Arc::new(Footer { parsed, bytes }))
    }

    /// All of a shard, verified; its inner chunks go into the caches if they are to be kept.
    pub(super) async fn whole_shard(
        &self,
        array: &ArrayReader,
        row: &ChunkRow,
        is_kept: bool,
    ) -> Result<(Arc<Footer>, Bytes), Error> {
        let key = (row.id, array.codec.inner_chunks());
        let bytes = self.request(array, row, 0..row.length).await?;
        let corrupt = |error| array.corrupt(row, error);
        let parsed = verify_shard(&bytes, &row.id, key.1).map_err(corrupt)?;
        let range = footer_range(row.length, key.1).map_err(corrupt)?;
        let stored = Bytes::copy_from_slice(&bytes[range.start as usize..]);
        if let Some(disk) = &self.disk {
            disk.put(Kind::Footer, row.id, stored.clone());
        }
        let footer = Arc::new(Footer {
            parsed,
            bytes: stored,
        });
        self.footers.insert(key, footer.clone());
        for entry in footer.parsed.entries().iter().flatten() {
            self.counters.miss(Tier::Encoded);
            if is_kept {
                let chunk = Bytes::copy_from_slice(&slice(&bytes, entry.range()));
                self.keep(entry.hash, &chunk);
            }
        }
        Ok((footer, bytes))
    }
}
