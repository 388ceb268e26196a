//! Undoing the filters of a chunk but for the one that is undone last, where a device does as well.

use std::borrow::Cow;

use array::{Bits, Layout, Packing};

use super::{Kind, OWN, Pipeline, Precision, check_length, corrupt, limit, nbit, undo};
use crate::Error;
use crate::blosc::Frame;
use crate::compressed::{Compressed, Format, Step, shuffled};

/// The filter that is undone last, if it is left.
enum Last {
    Shuffle(Packing),
    Blosc,
    Bits(Bits),
}

impl Pipeline {
    /// Decodes a chunk into `out`, which has its decoded size, as far as the layout says. Elements have
    /// `element_bytes`, and after all filters are big-endian or not.
    ///
    /// # Errors
    /// As [`Pipeline::decode`].
    pub(crate) fn decode_partly(
        &self,
        stored: &[u8],
        element_bytes: usize,
        is_big_endian: bool,
        out: &mut [u8],
    ) -> Result<Layout, Error> {
        let decoded = out.len();
        let plain = Layout {
            packing: Packing::Plain,
            is_big_endian,
        };
        let last = match stored.starts_with(&OWN) {
            true => None,
            false => self.last(decoded, element_bytes, is_big_endian),
        };
        let (Some(last), Some((first, others))) = (last, self.filters.split_first()) else {
            out.copy_from_slice(&self.decode(stored, decoded)?);
            return Ok(plain);
        };
        let mut bytes = Cow::Borrowed(stored);
        for filter in others.iter().rev() {
            bytes = undo(filter, bytes, limit(decoded), decoded)?;
        }
        match last {
            Last::Shuffle(packing) if bytes.len() == decoded => {
                out.copy_from_slice(&bytes);
                return Ok(Layout { packing, ..plain });
            }
            Last::Blosc => {
                if let Some(frame) = Frame::parse(&bytes, decoded) {
                    frame.decompress(&bytes, out)?;
                    let packing = frame.packing;
                    return Ok(Layout { packing, ..plain });
                }
            }
            Last::Bits(bits) => {
                let length = bits.length_bytes(decoded / element_bytes.max(1));
                let bytes = bytes.get(..length);
                let bytes = bytes.ok_or_else(|| corrupt("its n-bit data end early"))?;
                out[..length].copy_from_slice(bytes);
                return Ok(Layout {
                    packing: Packing::Bits(bits),
                    is_big_endian: false,
                });
            }
            Last::Shuffle(_) => {}
        }
        // Chunks may have more bytes than their elements.
        let mut bytes = undo(first, bytes, limit(decoded), decoded)?.into_owned();
        bytes.truncate(decoded);
        out.copy_from_slice(&check_length(bytes, decoded)?);
        Ok(plain)
    }

    /// The first filter, if a device can undo it, and what comes after it.
    fn last(&self, decoded: usize, element_bytes: usize, is_big_endian: bool) -> Option<Last> {
        let first = self.filters.first()?;
        let parameters = first.parameters.as_slice();
        match (Kind::of(first.id)?, &self.precision) {
            (Kind::Shuffle, None) => {
                let unit_bytes = parameters.first().copied().unwrap_or(0) as usize;
                Some(Last::Shuffle(shuffled(unit_bytes, decoded)))
            }
            (Kind::Blosc, None) => Some(Last::Blosc),
            (Kind::Nbit, precision) => {
                let (bits, order) = nbit::packed_bits(parameters, decoded)?;
                let size = *parameters.get(4)? as usize;
                let bits = match precision {
                    None => bits,
                    Some(precision) => extended(bits, precision, size, is_big_endian)?,
                };
                (size == element_bytes && order == is_big_endian).then_some(Last::Bits(bits))
            }
            _ => None,
        }
    }

    /// Where the compressed streams of a chunk are, if it was in `layout` before the filters.
    pub(crate) fn compression(
        &self,
        stored: &[u8],
        decoded_bytes: usize,
        layout: Layout,
    ) -> Option<Compressed> {
        if let Some(own) = stored.strip_prefix(&OWN) {
            let steps = [Step::Compress(Format::Zstd)];
            let mut found = Compressed::find(&steps, own, decoded_bytes, layout)?;
            for stream in &mut found.streams {
                stream.encoded.start += OWN.len();
                stream.encoded.end += OWN.len();
            }
            return Some(found);
        }
        if self.precision.is_some() {
            return None;
        }
        let steps = self.filters.iter().map(|filter| {
            let unit_bytes = filter.parameters.first().copied().unwrap_or(0) as usize;
            match Kind::of(filter.id) {
                Some(Kind::Shuffle) => Step::Shuffle(unit_bytes),
                Some(Kind::Fletcher32) => Step::Fletcher32,
                Some(Kind::Deflate) => Step::Compress(Format::Zlib),
                Some(Kind::Zstd) => Step::Compress(Format::Zstd),
                Some(Kind::Blosc) => Step::Compress(Format::Blosc),
                Some(Kind::Szip | Kind::Nbit | Kind::ScaleOffset | Kind::Lzf) | None => Step::Other,
            }
        });
        let steps: Vec<Step> = steps.collect();
        Compressed::find(&steps, stored, decoded_bytes, layout)
    }
}

/// Packed values that become integers; `None` if they are not of the same bits.
fn extended(bits: Bits, precision: &Precision, size: usize, is_big_endian: bool) -> Option<Bits> {
    let is_same = precision.size as usize == size
        && precision.bits == bits.width_bits
        && precision.offset == bits.offset_bits
        && precision.is_big_endian == is_big_endian;
    let filled_bits = match precision.is_signed {
        true => 8 * precision.size,
        false => bits.width_bits,
    };
    is_same.then_some(Bits {
        offset_bits: 0,
        filled_bits,
        ..bits
    })
}
