//! Byte shuffle: the first bytes of all elements, then the second ones, and so on; what is left over
//! at the end stays as it is.
//!
//! Source: HDF5 `H5Z_FILTER_SHUFFLE`; numcodecs `shuffle`.

/// Elements whose bytes are gathered at once: as many stay in the first cache.
const BLOCK: usize = 512;

/// Undoes it. `out` is as long as `bytes`; `size` is over 0.
pub(crate) fn undo(bytes: &[u8], out: &mut [u8], size: usize) {
    match size {
        2 => undo_of::<2>(bytes, out),
        4 => undo_of::<4>(bytes, out),
        8 => undo_of::<8>(bytes, out),
        _ => {
            let count = bytes.len() / size;
            for (at, element) in out.chunks_exact_mut(size).enumerate() {
                for (place, byte) in element.iter_mut().enumerate() {
                    *byte = bytes[place * count + at];
                }
            }
            let whole = count * size;
            out[whole..].copy_from_slice(&bytes[whole..]);
        }
    }
}

fn undo_of<const SIZE: usize>(bytes: &[u8], out: &mut [u8]) {
    let count = bytes.len() / SIZE;
    let (elements, rest) = out.as_chunks_mut::<SIZE>();
    for (nth, block) in elements.chunks_mut(BLOCK).enumerate() {
        let start = nth * BLOCK;
        let planes: [&[u8]; SIZE] =
            std::array::from_fn(|place| &bytes[place * count + start..][..block.len()]);
        for (at, element) in block.iter_mut().enumerate() {
            *element = std::array::from_fn(|place| planes[place][at]);
        }
    }
    rest.copy_from_slice(&bytes[count * SIZE..]);
}

/// Does it. `size` is over 0.
pub(crate) fn apply(bytes: &[u8], size: usize) -> Vec<u8> {
    let count = bytes.len() / size;
    let mut out = Vec::with_capacity(bytes.len());
    for place in 0..size {
        out.extend((0..count).map(|at| bytes[at * size + place]));
    }
    out.extend_from_slice(&bytes[count * size..]);
    out
}
