//! Chunks of the usual filters, decoded here and not by the HDF5 library.
//!
//! ```text
//! stored bytes (one thread at a time, in the library) ─► filters undone, bounded (many) ─► box
//! ```
//!
//! The library inflates a chunk to whatever it claims, takes a chunk that is too short for a whole
//! one, and lets one thread work at a time. Here a chunk is exactly as long as it must be, what it
//! takes on the way is bounded by that, and several are decoded at once.
//!
//! Left to the library: filters not listed in [`Step`], types it converts in another way than by
//! swapping bytes, and chunks that are not there.
//!
//! Source: HDF5 "File Format Specification", "Filter Pipeline"; `H5Zshuffle.c`, `H5Zfletcher32.c`
//! and `H5checksum.c` for what the filters do.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use array::{Region, shape};
use flate2::read::ZlibDecoder;
use hdf5_metno::{Dataset, Datatype};

use super::{filters, raw};
use crate::boxes;

/// Largest chunk with filters that is read: it is in memory whole, before and after they are undone.
pub(super) const MAX_CHUNK_BYTES: u64 = 512 << 20;
/// Chunks being decoded at once take at most this much, unless it is one.
const MAX_DECODING_BYTES: u64 = 128 << 20;
/// What filters may add to a chunk that does not compress, besides an eighth of it.
const SLACK_BYTES: u64 = 64 << 10;
const DEFLATE: i32 = 1;
const SHUFFLE: i32 = 2;
const FLETCHER32: i32 = 3;

/// A filter that is undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Deflate,
    /// Bytes of an element as the filter takes it.
    Shuffle(usize),
    Fletcher32,
    Lzf,
    Blosc,
    Zstd,
}

/// Refuses chunks with filters that are too large to be in memory whole.
pub(super) fn check_size(dataset: &Dataset) -> Result<(), String> {
    let Some(chunk) = dataset.chunk().filter(|_| !dataset.filters().is_empty()) else {
        return Ok(());
    };
    let element = dataset.dtype().map_or(1, |dtype| dtype.size()) as u64;
    let multiply = |bytes: u64, &length: &usize| bytes.saturating_mul(length as u64);
    let bytes = chunk.iter().fold(element, multiply);
    if bytes > MAX_CHUNK_BYTES {
        return Err(format!(
            "its chunks are of {} MiB, the most is {}; rewrite it with smaller ones, as nccopy -c does",
            bytes >> 20,
            MAX_CHUNK_BYTES >> 20
        ));
    }
    Ok(())
}

/// How the chunks of a dataset are decoded.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    steps: Vec<Step>,
    chunk_shape: Vec<u64>,
    chunk_bytes: usize,
    element_bytes: usize,
    /// Bytes of one number in an element, if they are in the other order.
    swap: Option<usize>,
}

impl Chunks {
    /// How to decode the chunks of a dataset read as `memory`; `None` if the library has to.
    pub(super) fn of(dataset: &Dataset, memory: &Datatype) -> Option<Self> {
        let properties = dataset.dcpl().ok()?;
        let chunk = dataset.chunk()?;
        let chunk_shape: Vec<u64> = chunk.iter().map(|&length| length as u64).collect();
        let steps = raw::pipeline(&properties)?.into_iter();
        let steps: Vec<Step> = steps
            .map(|(id, values)| step(id, &values))
            .collect::<Option<_>>()?;
        let swap = raw::conversion(&dataset.dtype().ok()?, memory)?;
        let element_bytes = memory.size();
        let count = shape::elements(&chunk_shape).ok()?;
        let chunk_bytes = count.checked_mul(element_bytes as u64)?;
        let is_usual = !steps.is_empty() && chunk_bytes > 0 && chunk_bytes <= MAX_CHUNK_BYTES;
        is_usual.then_some(Self {
            steps,
            chunk_shape,
            chunk_bytes: chunk_bytes as usize,
            element_bytes,
            swap,
        })
    }

    /// Reads a box of `dataset` into `out`, which takes exactly it, in C order and little-endian.
    pub(super) fn read(
        &self,
        dataset: &Dataset,
        memory: &Datatype,
        region: &Region,
        out: &mut [u8],
    ) -> Result<(), String> {
        if region.is_empty() {
            return Ok(());
        }
        let origins = self.origins(region);
        let room = MAX_DECODING_BYTES / (3 * self.chunk_bytes as u64);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(room as usize).min(origins.len());
        if threads < 2 {
            for origin in &origins {
                self.put(
                    self.decoded(dataset, origin)?,
                    dataset,
                    memory,
                    origin,
                    region,
                    out,
                )?;
            }
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            // As many as threads wait at most: a chunk each is being copied or decoded.
            let (sender, receiver) = mpsc::sync_channel(1);
            for _ in 0..threads {
                let (sender, next, origins) = (sender.clone(), &next, &origins);
                scope.spawn(move || {
                    while let Some(origin) = origins.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if sender
                            .send((origin, self.decoded(dataset, origin)))
                            .is_err()
                        {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (origin, decoded) in receiver {
                self.put(decoded?, dataset, memory, origin, region, out)?;
            }
            Ok(())
        })
    }

    /// Corners of the chunks that have a part of `region`, in C order.
    fn origins(&self, region: &Region) -> Vec<Vec<u64>> {
        let axes = 0..self.chunk_shape.len();
        let first = axes
            .clone()
            .map(|axis| region.start()[axis] / self.chunk_shape[axis]);
        let first: Vec<u64> = first.collect();
        let count =
            axes.map(|axis| region.range(axis).end.div_ceil(self.chunk_shape[axis]) - first[axis]);
        let grid = Region::whole(&count.collect::<Vec<u64>>());
        let corner = |at: Vec<u64>| -> Vec<u64> {
            let places = at.iter().zip(&first).zip(&self.chunk_shape);
            places
                .map(|((at, first), length)| (first + at) * length)
                .collect()
        };
        grid.positions().map(corner).collect()
    }

    /// The elements of a chunk; `None` if it was never written.
    fn decoded(&self, dataset: &Dataset, origin: &[u64]) -> Result<Option<Vec<u8>>, String> {
        let limit = self.chunk_bytes as u64 / 8 * 9 + SLACK_BYTES;
        let Some((mask, stored)) = raw::stored_chunk(dataset, origin, limit)? else {
            return Ok(None);
        };
        let mut bytes = stored;
        for (number, step) in self.steps.iter().enumerate().rev() {
            if mask & (1 << number) == 0 {
                let undone = undo(*step, bytes, limit);
                bytes = undone.map_err(|reason| format!("its chunk at {origin:?}: {reason}"))?;
            }
        }
        if bytes.len() < self.chunk_bytes {
            let (found, wanted) = (bytes.len(), self.chunk_bytes);
            return Err(format!(
                "its chunk at {origin:?} has {found} bytes instead of {wanted}"
            ));
        }
        bytes.truncate(self.chunk_bytes);
        if let Some(size) = self.swap {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(Some(bytes))
    }

    fn put(
        &self,
        decoded: Option<Vec<u8>>,
        dataset: &Dataset,
        memory: &Datatype,
        origin: &[u64],
        region: &Region,
        out: &mut [u8],
    ) -> Result<(), String> {
        let chunk = Region::new(origin.to_vec(), self.chunk_shape.clone());
        let chunk = chunk.map_err(|error| error.to_string())?;
        if let Some(decoded) = decoded {
            boxes::copy(self.element_bytes, &decoded, &chunk, out, region);
            return Ok(());
        }
        // The library knows what fills it.
        let part = chunk.intersect(region);
        let length = shape::elements(part.shape()).map_err(|error| error.to_string())?;
        let mut filled = vec![0; length as usize * self.element_bytes];
        raw::read_dataset(dataset, memory, &part, &mut filled)?;
        boxes::copy(self.element_bytes, &filled, &part, out, region);
        Ok(())
    }
}

fn step(id: i32, values: &[u32]) -> Option<Step> {
    Some(match id {
        DEFLATE => Step::Deflate,
        SHUFFLE => Step::Shuffle(*values.first()? as usize),
        FLETCHER32 => Step::Fletcher32,
        filters::LZF => Step::Lzf,
        filters::BLOSC => Step::Blosc,
        filters::ZSTD => Step::Zstd,
        _ => return None,
    })
}

/// What a filter was given, at most `limit` bytes.
fn undo(step: Step, bytes: Vec<u8>, limit: u64) -> Result<Vec<u8>, String> {
    match step {
        Step::Deflate => inflate(&bytes, limit),
        Step::Shuffle(size) => Ok(unshuffle(bytes, size)),
        Step::Fletcher32 => without_checksum(bytes),
        Step::Lzf => filters::decode_lzf(&bytes, limit).ok_or_else(|| not("LZF", limit)),
        Step::Blosc => filters::decode_blosc(&bytes, limit).ok_or_else(|| not("Blosc", limit)),
        Step::Zstd => filters::decode_zstd(&bytes, limit).ok_or_else(|| not("Zstandard", limit)),
    }
}

fn not(filter: &str, limit: u64) -> String {
    format!("it is not what {filter} gives for at most {limit} bytes")
}

fn inflate(bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    // Memory that is not written to is not taken either.
    let mut out = Vec::with_capacity(limit as usize);
    ZlibDecoder::new(bytes)
        .take(limit + 1)
        .read_to_end(&mut out)
        .map_err(|error| format!("it is not what deflate gives: {error}"))?;
    if out.len() as u64 > limit {
        return Err(format!("it inflates to more than {limit} bytes"));
    }
    Ok(out)
}

/// The first bytes of all elements come first, then the second ones …; what is left over at the end
/// stays there.
fn unshuffle(bytes: Vec<u8>, size: usize) -> Vec<u8> {
    if size < 2 {
        return bytes;
    }
    let count = bytes.len() / size;
    let mut out = vec![0; bytes.len()];
    let (shuffled, rest) = bytes.split_at(count * size);
    if count > 0 {
        for (nth, plane) in shuffled.chunks_exact(count).enumerate() {
            for (element, &byte) in out.chunks_exact_mut(size).zip(plane) {
                element[nth] = byte;
            }
        }
    }
    out[count * size..].copy_from_slice(rest);
    out
}

/// Checks the checksum that the last four bytes are, and takes it off.
fn without_checksum(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let data = bytes
        .len()
        .checked_sub(4)
        .ok_or("it is too short for its checksum")?;
    let stored = bytes[data..]
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u32::from(byte));
    let sum = fletcher32(&bytes[..data]);
    // HDF5 before 1.6.3 wrote it with the bytes of each half in the other order.
    let swapped = (sum & 0x00FF_00FF) << 8 | (sum & 0xFF00_FF00) >> 8;
    if stored != sum && stored != swapped {
        return Err("it does not have its checksum".into());
    }
    bytes.truncate(data);
    Ok(bytes)
}

/// Fletcher's checksum of big-endian words of 16 bits, as HDF5 has it.
fn fletcher32(data: &[u8]) -> u32 {
    let fold = |sum: u32| (sum & 0xFFFF) + (sum >> 16);
    let (mut first, mut second) = (0u32, 0u32);
    let (words, odd) = data.as_chunks::<2>();
    // So many words that the sums do not overflow. When they are folded decides whether a zero is
    // written as 0 or as 0xFFFF.
    for block in words.chunks(360) {
        for &word in block {
            first += u32::from(u16::from_be_bytes(word));
            second += first;
        }
        (first, second) = (fold(first), fold(second));
    }
    if let [last] = odd {
        first += u32::from(*last) << 8;
        second += first;
        (first, second) = (fold(first), fold(second));
    }
    (first, second) = (fold(first), fold(second));
    second << 16 | first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_bytes_go_back_to_their_elements() {
        assert_eq!(unshuffle(b"adgbehcfi!".to_vec(), 3), b"abcdefghi!");
        assert_eq!(unshuffle(b"ab".to_vec(), 1), b"ab");
        assert_eq!(unshuffle(b"ab".to_vec(), 5), b"ab");
        assert_eq!(unshuffle(Vec::new(), 4), b"");
    }

    #[test]
    fn a_checksum_is_checked_and_taken_off() {
        let mut bytes = b"some data, odd".to_vec();
        let sum = fletcher32(&bytes);
        bytes.extend(sum.to_le_bytes());
        assert_eq!(without_checksum(bytes.clone()).unwrap(), b"some data, odd");
        bytes[3] ^= 1;
        assert!(without_checksum(bytes).is_err());
        assert!(without_checksum(vec![1, 2, 3]).is_err());
        assert_eq!(fletcher32(&[]), 0);
        assert_eq!(fletcher32(&[1]), 0x0100_0100);
    }

    #[test]
    fn what_inflates_to_more_than_the_limit_is_refused() {
        use std::io::Write as _;
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(9));
        packer.write_all(&vec![0; 1 << 20]).unwrap();
        let bomb = packer.finish().unwrap();
        assert!(inflate(&bomb, 1 << 19).is_err());
        assert_eq!(inflate(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        assert!(inflate(&bomb[..20], 1 << 20).is_err());
        assert!(inflate(b"not deflate", 100).is_err());
    }
}
