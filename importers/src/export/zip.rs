//! NumPy's file of several arrays: a ZIP archive of `.npy` files, not compressed, as `numpy.savez`
//! writes it.
//!
//! ```text
//! (local header, NAME.npy) … central directory, ZIP64 end where needed, end
//! ```
//!
//! Sizes are known before the cells are read, so what is 4 GiB or larger gets the ZIP64 fields at
//! once; the checksum is filled in behind. Arrays in groups are named by their path.
//!
//! Source: PKWARE APPNOTE 6.3, §4.3 and §4.5.3.

use std::path::Path;

use flate2::Crc;
use futures::StreamExt as _;
use query::Engine;

use super::npy::{Member, Out};
use super::tally::Tally;
use super::view::View;
use crate::Error;

/// What fits the 32 bits of the fields without ZIP64; one less than what says "look there".
const SMALL_MAX: u64 = u32::MAX as u64 - 1;
/// Names are UTF-8.
const FLAG_UTF8: u16 = 1 << 11;
/// 1980-01-01: the same arrays are always the same bytes.
const DATE: u16 = 1 << 5 | 1;

/// Writes every array of `view` to a file.
///
/// # Errors
/// [`Error::NoPlace`] for bytes of any length; [`Error::Write`] if the file cannot be written; as
/// [`Engine::read`].
pub(super) async fn write(
    engine: &Engine,
    view: &View,
    path: &Path,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    let mut members = Vec::new();
    for array in view.arrays() {
        members.push(Member::new(engine, array).await?);
    }
    let bytes = members.iter().map(|member| member.bytes);
    tally.expect(members.len() as u64, bytes.fold(0, u64::saturating_add));
    let mut out = Out::open(path).await?;
    let mut entries = Vec::new();
    for member in &members {
        tally.begin(&member.array.path());
        let mut entry = Entry {
            name: format!("{}.npy", member.array.below),
            length: member.bytes.saturating_add(member.header.len() as u64),
            start: out.position(),
            crc: 0,
        };
        out.write(&entry.local()).await?;
        out.write(&member.header).await?;
        let mut crc = Crc::new();
        crc.update(&member.header);
        let mut written = member.header.len() as u64;
        let mut pieces = member.pieces(engine).await?;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            crc.update(&piece);
            out.write(&piece).await?;
            written += piece.len() as u64;
            tally.chunk(piece.len() as u64);
        }
        drop(pieces);
        if written != entry.length {
            return Err(Error::Worker {
                reason: format!("{} gave {written} of {} bytes", entry.name, entry.length),
            });
        }
        entry.crc = crc.sum();
        out.write_at(entry.start + CRC_AT, &entry.crc.to_le_bytes())
            .await?;
        entries.push(entry);
    }
    let start = out.position();
    for entry in &entries {
        out.write(&entry.central()).await?;
    }
    let end = end(entries.len() as u64, start, out.position() - start);
    out.write(&end).await?;
    out.finish().await
}

/// Where the checksum is in a local header.
const CRC_AT: u64 = 14;

/// A file in the archive.
struct Entry {
    name: String,
    length: u64,
    /// Where its local header is.
    start: u64,
    crc: u32,
}

impl Entry {
    fn is_large(&self) -> bool {
        self.length > SMALL_MAX
    }

    /// Fields that both headers have, from the version needed to the length of the name.
    fn common(&self) -> Vec<u8> {
        let version: u16 = if self.is_large() || self.start > SMALL_MAX {
            45
        } else {
            20
        };
        let mut bytes = version.to_le_bytes().to_vec();
        bytes.extend(FLAG_UTF8.to_le_bytes());
        // Stored as it is, at midnight.
        bytes.extend([0; 4]);
        bytes.extend(DATE.to_le_bytes());
        bytes.extend(self.crc.to_le_bytes());
        let length = if self.is_large() {
            u32::MAX
        } else {
            self.length as u32
        };
        bytes.extend(length.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend((self.name.len() as u16).to_le_bytes());
        bytes
    }

    fn local(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.is_large() {
            extra.extend([1, 0, 16, 0]);
            extra.extend(self.length.to_le_bytes());
            extra.extend(self.length.to_le_bytes());
        }
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend(self.common());
        bytes.extend((extra.len() as u16).to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(extra);
        bytes
    }

    fn central(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        if self.is_large() {
            fields.extend(self.length.to_le_bytes());
            fields.extend(self.length.to_le_bytes());
        }
        if self.start > SMALL_MAX {
            fields.extend(self.start.to_le_bytes());
        }
        let mut extra = Vec::new();
        if !fields.is_empty() {
            extra.extend([1, 0, fields.len() as u8, 0]);
            extra.extend(fields);
        }
        let mut bytes = b"PK\x01\x02".to_vec();
        // Made by version 4.5 on a system without attributes.
        bytes.extend([45, 0]);
        bytes.extend(self.common());
        bytes.extend((extra.len() as u16).to_le_bytes());
        // No comment, on the first disk, no attributes.
        bytes.extend([0; 10]);
        let start = self.start.min(u64::from(u32::MAX)) as u32;
        bytes.extend(start.to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(extra);
        bytes
    }
}

/// What comes after the central directory of so many entries.
fn end(count: u64, start: u64, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let is_large = count >= u64::from(u16::MAX) || start > SMALL_MAX || length > SMALL_MAX;
    if is_large {
        bytes.extend(b"PK\x06\x06");
        bytes.extend(44u64.to_le_bytes());
        bytes.extend([45, 0, 45, 0]);
        bytes.extend([0; 8]);
        for field in [count, count, length, start] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(b"PK\x06\x07");
        bytes.extend([0; 4]);
        bytes.extend((start + length).to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
    }
    bytes.extend(b"PK\x05\x06");
    bytes.extend([0; 4]);
    let entries = count.min(u64::from(u16::MAX)) as u16;
    bytes.extend(entries.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    let narrow = |field: u64| (field.min(u64::from(u32::MAX)) as u32).to_le_bytes();
    bytes.extend(narrow(length));
    bytes.extend(narrow(start));
    bytes.extend([0; 2]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_members_have_their_sizes_in_the_extra_field() {
        let mut entry = Entry {
            name: "a.npy".into(),
            length: 1 << 33,
            start: 1 << 34,
            crc: 7,
        };
        let local = entry.local();
        assert_eq!(local.len(), 30 + 5 + 20);
        assert_eq!(local[18..26], [0xff; 8]);
        assert_eq!(local[39..47], (1u64 << 33).to_le_bytes());
        let central = entry.central();
        assert_eq!(central.len(), 46 + 5 + 28);
        assert_eq!(central[central.len() - 8..], (1u64 << 34).to_le_bytes());
        assert_eq!(end(2, 1 << 34, 100).len(), 56 + 20 + 22);
        entry.length = 100;
        entry.start = 0;
        assert_eq!(entry.local().len(), 30 + 5);
        assert_eq!(entry.central().len(), 46 + 5);
        assert_eq!(end(2, 1000, 100).len(), 22);
    }
}
