//! LZF, as h5py writes it.
//!
//! A control byte below 32 is followed by that many bytes and one more; others copy from what is
//! there: three bits of length, thirteen of distance.
//!
//! Source: liblzf's format; h5py `lzf_filter.c` (the parameters: the third is the decoded length).

use super::corrupt;
use crate::Error;

pub(super) fn decode(bytes: &[u8], parameters: &[u32], limit: usize) -> Result<Vec<u8>, Error> {
    let expected = parameters.get(2).copied().unwrap_or(0) as usize;
    let mut out: Vec<u8> = Vec::with_capacity(expected.min(limit));
    let mut rest = bytes;
    let short = || corrupt("its LZF data end early");
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        let control = usize::from(control);
        if control < 32 {
            let (literal, after) = rest.split_at_checked(control + 1).ok_or_else(short)?;
            out.extend_from_slice(literal);
            rest = after;
        } else {
            let mut next = || -> Result<usize, Error> {
                let (&byte, after) = rest.split_first().ok_or_else(short)?;
                rest = after;
                Ok(usize::from(byte))
            };
            let mut length = control >> 5;
            if length == 7 {
                length += next()?;
            }
            length += 2;
            let low = next()?;
            let distance = ((control & 31) << 8 | low) + 1;
            let start = out.len().checked_sub(distance);
            let start = start.ok_or_else(|| corrupt("its LZF data refer to before the start"))?;
            // The copy may reach into what it writes.
            for at in start..start + length {
                out.push(out[at]);
            }
        }
        if out.len() > limit {
            return Err(corrupt(format!("it decodes to more than {limit} bytes")));
        }
    }
    Ok(out)
}
