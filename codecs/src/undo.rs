//! The rest of decoding a chunk that was decoded only partly: the definition of layouts on the CPU.

use array::{Bits, Layout, Packing};

use crate::Error;
use crate::hdf5::shuffle;

/// Turns a chunk in a layout into little-endian elements of `element_bytes` each, in C order: as many
/// as `out` takes. What devices do as well, this says how.
///
/// # Errors
/// [`Error::Elements`] if `bytes` or `out` have other sizes than the layout and whole elements
/// have, or its numbers are out of range.
pub fn undo(
    layout: &Layout,
    bytes: &[u8],
    element_bytes: usize,
    out: &mut [u8],
) -> Result<(), Error> {
    let fits = (1..=8).contains(&element_bytes)
        && out.len().is_multiple_of(element_bytes)
        && bytes.len() == layout.length_bytes(out.len(), element_bytes)
        && layout.is_valid(element_bytes);
    if !fits {
        return Err(Error::Elements {
            reason: format!("{} bytes in {layout:?}", bytes.len()),
        });
    }
    match layout.packing {
        Packing::Plain => out.copy_from_slice(bytes),
        Packing::Shuffled(blocks) => {
            let parts = bytes.chunks(blocks.block_bytes);
            for (block, out) in parts.zip(out.chunks_mut(blocks.block_bytes)) {
                shuffle::undo(block, out, blocks.unit_bytes);
            }
        }
        Packing::BitShuffled(blocks) => {
            let parts = bytes.chunks(blocks.block_bytes);
            for (block, out) in parts.zip(out.chunks_mut(blocks.block_bytes)) {
                undo_bits(block, out, blocks.unit_bytes);
            }
        }
        Packing::Bits(bits) => {
            for (nth, element) in out.chunks_exact_mut(element_bytes).enumerate() {
                let value = element_of_bits(&bits, bytes, nth);
                element.copy_from_slice(&value.to_le_bytes()[..element_bytes]);
            }
        }
    }
    if layout.is_big_endian {
        out.chunks_exact_mut(element_bytes)
            .for_each(<[u8]>::reverse);
    }
    Ok(())
}

/// Element `nth`, whose bits are all in `bytes`.
fn element_of_bits(bits: &Bits, bytes: &[u8], nth: usize) -> u64 {
    let width = bits.width_bits;
    let start = nth * width as usize;
    let skipped = (start % 8) as u32;
    let parts = &bytes[start / 8..(start + width as usize).div_ceil(8)];
    // At most nine bytes.
    let value = match bits.is_highest_first {
        true => {
            let wide = parts.iter().fold(0, |wide, &b| wide << 8 | u128::from(b));
            wide >> (8 * parts.len() as u32 - skipped - width)
        }
        false => {
            let parts = parts.iter().rev();
            parts.fold(0, |wide, &b| wide << 8 | u128::from(b)) >> skipped
        }
    };
    // The value goes to the top and comes down with copies of its highest bit.
    let unused = 64 - width;
    let top = (value as u64) << unused;
    let repeated = (top as i64 >> unused) as u64;
    let kept = u64::MAX >> (64 - (bits.filled_bits - bits.offset_bits));
    (repeated & kept) << bits.offset_bits
}

/// Undoes the bit shuffle of one block.
fn undo_bits(block: &[u8], out: &mut [u8], unit_bytes: usize) {
    let units = block.len() / unit_bytes;
    if !units.is_multiple_of(8) {
        out.copy_from_slice(block);
        return;
    }
    let row_bytes = units / 8;
    for byte in 0..unit_bytes {
        for group in 0..row_bytes {
            let rows: [u8; 8] =
                std::array::from_fn(|bit| block[(8 * byte + bit) * row_bytes + group]);
            for unit in 0..8 {
                let bits = rows.iter().rev();
                let value = bits.fold(0, |value, row| value << 1 | (row >> unit & 1));
                out[(8 * group + unit) * unit_bytes + byte] = value;
            }
        }
    }
    let whole = units * unit_bytes;
    out[whole..].copy_from_slice(&block[whole..]);
}

#[cfg(test)]
mod tests {
    use array::Blocks;

    use super::*;

    fn bits(width_bits: u32, offset_bits: u32, filled_bits: u32, is_highest_first: bool) -> Layout {
        Layout {
            packing: Packing::Bits(Bits {
                width_bits,
                offset_bits,
                filled_bits,
                is_highest_first,
            }),
            is_big_endian: false,
        }
    }

    #[test]
    fn bits_are_counted_from_either_end() {
        // 1, 2, 7 and 4 in three bits each.
        let mut out = [0; 4];
        let lowest_first = [0b1101_0001, 0b1111_1001];
        undo(&bits(3, 0, 3, false), &lowest_first, 1, &mut out).unwrap();
        assert_eq!(out, [1, 2, 7, 4]);
        let highest_first = [0b0010_1011, 0b1100_1111];
        undo(&bits(3, 0, 3, true), &highest_first, 1, &mut out).unwrap();
        assert_eq!(out, [1, 2, 7, 4]);
    }

    #[test]
    fn the_highest_bit_fills_the_bits_above_it_up_to_a_limit() {
        // 7 and 1 in three bits, two bits up.
        for (filled, wanted) in [
            (5, [0x001c, 0x0004]),
            (8, [0x00fc, 0x0004]),
            (16, [0xfffc, 0x0004]),
        ] {
            let mut out = [0; 4];
            let layout = bits(3, 2, filled, false);
            undo(&layout, &[0b0000_1111], 2, &mut out).unwrap();
            let found = [[out[0], out[1]], [out[2], out[3]]].map(u16::from_le_bytes);
            assert_eq!(found, wanted, "{filled}");
        }
        let mut out = [0; 8];
        let whole = 0x8123_4567_89ab_cdefu64;
        let layout = bits(64, 0, 64, true);
        undo(&layout, &whole.to_be_bytes(), 8, &mut out).unwrap();
        assert_eq!(u64::from_le_bytes(out), whole);
    }

    #[test]
    fn bits_are_transposed_only_in_blocks_of_whole_eights() {
        let layout = |block_bytes| Layout {
            packing: Packing::BitShuffled(Blocks {
                unit_bytes: 2,
                block_bytes,
            }),
            is_big_endian: false,
        };
        // One block of eight units and a byte: the lowest bits of all first bytes come first.
        let mut shuffled = [0; 17];
        shuffled[0] = 0b0010_0101;
        shuffled[8] = 0b1000_0000;
        shuffled[16] = 77;
        let mut wanted = [0; 17];
        for (unit, byte) in [(0, 0), (2, 0), (5, 0), (7, 1)] {
            wanted[2 * unit + byte] = 1;
        }
        wanted[16] = 77;
        let mut out = [0; 17];
        undo(&layout(17), &shuffled, 1, &mut out).unwrap();
        assert_eq!(out, wanted);
        // Seven units are left as they are, the last block of one byte is none.
        undo(&layout(15), &shuffled, 1, &mut out).unwrap();
        assert_eq!(out, shuffled);
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let mut out = [0; 4];
        assert!(undo(&bits(3, 0, 3, false), &[0; 3], 1, &mut out).is_err());
        assert!(undo(&bits(3, 0, 3, false), &[0; 1], 1, &mut out).is_err());
        assert!(undo(&bits(3, 0, 2, false), &[0; 2], 1, &mut out).is_err());
        assert!(undo(&bits(3, 0, 9, false), &[0; 2], 1, &mut out).is_err());
        assert!(undo(&bits(0, 0, 3, false), &[], 1, &mut out).is_err());
        assert!(undo(&bits(3, u32::MAX, 3, true), &[0; 2], 1, &mut out).is_err());
        assert!(undo(&Layout::ELEMENTS, &[0; 4], 3, &mut out).is_err());
        assert!(undo(&Layout::ELEMENTS, &[0; 3], 1, &mut out).is_err());
        let empty = Packing::Shuffled(Blocks {
            unit_bytes: 2,
            block_bytes: 0,
        });
        let layout = Layout {
            packing: empty,
            is_big_endian: false,
        };
        assert!(undo(&layout, &[0; 4], 2, &mut out).is_err());
    }
}
