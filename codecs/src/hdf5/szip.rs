//! SZIP, which is the lossless coder of CCSDS, in the framing of HDF5.
//!
//! ```text
//! decoded length (u32) ‖ blocks of samples, each by the shortest of several codes
//! ```
//!
//! Samples are predicted by the one before them, but for the first of each row of blocks. Elements of
//! four and eight bytes are taken apart into their bytes first: all first bytes, all second ones, and
//! so on. Rows are padded to whole blocks. Parameters: options, samples of a block, bits of a sample,
//! samples of a row.
//!
//! Source: CCSDS 121.0-B-3; HDF5 `H5Z_FILTER_SZIP`; the behaviour of libaec's SZIP interface.

use super::bits::Bits;
use super::{corrupt, invalid};
use crate::Error;

const PREDICT: u32 = 32;
const HIGH_BYTE_FIRST: u32 = 16;
/// Most samples of a block and of a row, as HDF5 allows them.
const MAX_BLOCK: u32 = 64;
const MAX_ROW: u32 = 4096;
/// A run of this many blocks of zeros stands for the rest of a segment.
const REST_OF_SEGMENT: u32 = 5;
/// Blocks of a segment.
const SEGMENT: usize = 64;

/// How samples are coded.
struct Coding {
    bits: u32,
    block: usize,
    /// Blocks of a row.
    row: usize,
    predicts: bool,
}

pub(super) fn decode(bytes: &[u8], parameters: &[u32], limit: usize) -> Result<Vec<u8>, Error> {
    let &[options, block, bits, row] = parameters
        .first_chunk::<4>()
        .ok_or_else(|| invalid("too few parameters of SZIP"))?;
    let is_whole = bits == 32 || bits == 64;
    let fits = (1..=MAX_BLOCK).contains(&block)
        && (1..=MAX_ROW).contains(&row)
        && ((1..=24).contains(&bits) || is_whole);
    if !fits {
        return Err(invalid("parameters of SZIP that do not fit"));
    }
    let (length, stream) = bytes
        .split_first_chunk::<4>()
        .ok_or_else(|| corrupt("its SZIP data end early"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > limit {
        return Err(corrupt(format!("it claims {length} decoded bytes")));
    }
    let coding = Coding {
        bits: if is_whole { 8 } else { bits },
        block: block as usize,
        row: row.div_ceil(block) as usize,
        predicts: options & PREDICT != 0,
    };
    let sample_bytes = match coding.bits {
        1..=8 => 1,
        9..=16 => 2,
        _ => 4,
    };
    // Rows as they are, and with their padding.
    let (row, padded) = (row as usize, coding.row * coding.block);
    let samples = length.div_ceil(sample_bytes);
    let wanted = samples / row * padded + (samples % row);
    let decoded = coding.samples(stream, wanted)?;
    let mut out = Vec::with_capacity(samples * sample_bytes);
    for part in decoded.chunks(padded) {
        for sample in &part[..part.len().min(row)] {
            match (sample_bytes, options & HIGH_BYTE_FIRST != 0) {
                (1, _) => out.push(*sample as u8),
                (2, false) => out.extend_from_slice(&(*sample as u16).to_le_bytes()),
                (2, true) => out.extend_from_slice(&(*sample as u16).to_be_bytes()),
                (_, false) => out.extend_from_slice(&sample.to_le_bytes()),
                (_, true) => out.extend_from_slice(&sample.to_be_bytes()),
            }
        }
    }
    out.truncate(length);
    if is_whole {
        let mut elements = vec![0; out.len()];
        super::shuffle::undo(&out, &mut elements, bits as usize / 8);
        return Ok(elements);
    }
    Ok(out)
}

impl Coding {
    /// The first `wanted` samples of a stream.
    fn samples(&self, stream: &[u8], wanted: usize) -> Result<Vec<u32>, Error> {
        let mut bits = Bits::new(stream);
        let row = self.row * self.block;
        let mut out: Vec<u32> = Vec::with_capacity(wanted);
        let mut coded: Vec<u32> = Vec::with_capacity(row);
        while out.len() < wanted {
            coded.clear();
            let needed = row.min(wanted - out.len());
            while coded.len() < needed {
                self.block(&mut bits, &mut coded)?;
            }
            if self.predicts {
                self.unpredict(&mut coded);
            }
            out.extend_from_slice(&coded[..needed]);
        }
        Ok(out)
    }

    /// Reads the next block of a row, or several of zeros.
    fn block(&self, bits: &mut Bits<'_>, coded: &mut Vec<u32>) -> Result<(), Error> {
        let short = || corrupt("its SZIP data end early");
        let id_bits = match self.bits {
            1..=8 => 3,
            9..=16 => 4,
            _ => 5,
        };
        let uncoded = (1 << id_bits) - 1;
        let has_reference = self.predicts && coded.is_empty();
        let start = coded.len();
        let id = bits.take(id_bits).ok_or_else(short)?;
        if id == uncoded {
            for _ in 0..self.block {
                coded.push(bits.take(self.bits).ok_or_else(short)? as u32);
            }
            return Ok(());
        }
        // Short codes have a bit more in their name.
        let is_pairs = match id {
            0 => bits.take(1).ok_or_else(short)? == 1,
            _ => false,
        };
        if has_reference {
            coded.push(bits.take(self.bits).ok_or_else(short)? as u32);
        }
        match id {
            0 if is_pairs => {
                while coded.len() < start + self.block {
                    let (first, second) = pair(bits.zeros().ok_or_else(short)?)?;
                    // The reference stands for the first of the first pair.
                    if (coded.len() - start).is_multiple_of(2) {
                        coded.push(first);
                    }
                    coded.push(second);
                }
            }
            0 => {
                let blocks_before = start / self.block;
                let left = self.row - blocks_before;
                let zeros = bits.zeros().ok_or_else(short)?;
                let run = zeros.checked_add(1).ok_or_else(short)?;
                let run = match run {
                    REST_OF_SEGMENT => left.min(SEGMENT - blocks_before % SEGMENT),
                    run if run > REST_OF_SEGMENT => run as usize - 1,
                    run => run as usize,
                };
                if run > left {
                    return Err(corrupt("its SZIP data have zeros past the end of a row"));
                }
                coded.resize(start + run * self.block, 0);
            }
            id => {
                let low_bits = id as u32 - 1;
                let first = coded.len();
                for _ in first..start + self.block {
                    let high = bits.zeros().ok_or_else(short)?;
                    let value = u64::from(high) << low_bits;
                    coded.push(u32::try_from(value).map_err(|_| short())?);
                }
                if low_bits > 0 {
                    for value in &mut coded[first..] {
                        *value |= bits.take(low_bits).ok_or_else(short)? as u32;
                    }
                }
            }
        }
        Ok(())
    }

    /// From the differences of a row, whose first is a sample itself, to the samples.
    fn unpredict(&self, row: &mut [u32]) {
        let most = u32::MAX >> (32 - self.bits);
        let middle = most / 2 + 1;
        let Some((&mut mut sample, differences)) = row.split_first_mut() else {
            return;
        };
        for value in differences {
            let coded = *value;
            let is_high = sample >= middle;
            // How far a difference can go both ways.
            let reach = if is_high { most - sample } else { sample };
            let half = coded / 2 + coded % 2;
            let next = if half <= reach {
                match coded % 2 {
                    0 => sample.wrapping_add(coded / 2),
                    _ => sample.wrapping_sub(half),
                }
            } else if is_high {
                most.wrapping_sub(coded)
            } else {
                coded
            };
            sample = next & most;
            *value = sample;
        }
    }
}

/// The two values that one number stands for: pairs are counted by their sums.
fn pair(number: u32) -> Result<(u32, u32), Error> {
    /// Sums up to 12 have codes.
    const PAIRS: u32 = 91;
    if number >= PAIRS {
        return Err(corrupt("its SZIP data have a pair that does not exist"));
    }
    let mut sum = 0;
    let mut first_of_sum = 0;
    while first_of_sum + sum < number {
        first_of_sum += sum + 1;
        sum += 1;
    }
    let second = number - first_of_sum;
    Ok((sum - second, second))
}
