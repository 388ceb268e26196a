//! How a chunk that was decoded only partly has its elements.
//!
//! What a [`Layout`] leaves to do is a gather that a device does while it reads: each element can be
//! found by itself. `codecs::undo` does it on the CPU, and kernels agree with that bit by bit.
//!
//! Source: HDF5 `H5Z_FILTER_SHUFFLE` and `H5Pset_nbit`; c-blosc 1.21 `shuffle.c` and
//! `bitshuffle-generic.c`; `packbits` of zarr-extensions, as zarrs 0.23 decodes it.

/// What is left to undo of a chunk's encoding: first the packing, then the byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the bits of the elements are.
    pub packing: Packing,
    /// Whether the bytes of each element, as the packing gives them, are the other way round. Never
    /// with [`Packing::Bits`].
    pub is_big_endian: bool,
}

/// Where the bits of elements are.
///
/// The decoded bytes are numbered through the whole chunk, in C order of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Every byte is in its place.
    Plain,
    /// Byte shuffle. In a block of `length` bytes, with `n = length / unit_bytes` (rounded down), byte
    /// `i * unit_bytes + b` of the decoded block, for `i < n` and `b < unit_bytes`, is byte `b * n + i`.
    /// Bytes from `n * unit_bytes` on are in their place.
    Shuffled(Blocks),
    /// Bit shuffle. In a block of `length` bytes, with `n = length / unit_bytes` (rounded down), if `n`
    /// is a multiple of 8: bit `k` (0 the lowest) of byte `i * unit_bytes + b` of the decoded block, for
    /// `i < n` and `b < unit_bytes`, is bit `i % 8` of byte `(8 * b + k) * (n / 8) + i / 8`; bytes from
    /// `n * unit_bytes` on are in their place. If `n` is not a multiple of 8, all bytes of the block
    /// are in their place.
    BitShuffled(Blocks),
    /// Values of so many bits, without space between them.
    Bits(Bits),
}

/// Blocks that are shuffled each by itself. They start at multiples of `block_bytes`; the last one is
/// shorter where the chunk's decoded size is no such multiple. Neither number need be a multiple of
/// the size of an element, or of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes of what is shuffled: at least 1.
    pub unit_bytes: usize,
    /// Bytes of a block: at least 1; the decoded size where the whole chunk is one.
    pub block_bytes: usize,
}

/// Values without space between them: that of element `i` is in the bits from `i * width_bits` on,
/// counted from the start of the bytes. Bits after the last value mean nothing.
///
/// Elements are little-endian integers of these bits, from the lowest: `offset_bits` zeros, the value,
/// copies of the value's highest bit below bit `filled_bits`, zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Bits of a value: at least 1.
    pub width_bits: u32,
    /// Zeros below it.
    pub offset_bits: u32,
    /// Where the copies of its highest bit end: at least `offset_bits + width_bits`, where there are
    /// none, and at most the bits of an element.
    pub filled_bits: u32,
    /// Which way bits are counted. If true, bit `j` of the bytes is bit `7 - j % 8` of byte `j / 8`, and
    /// the first bit of a value is its highest. If false, it is bit `j % 8`, and the first bit of a
    /// value is its lowest.
    pub is_highest_first: bool,
}

impl Layout {
    /// Little-endian elements in C order: nothing is left to undo.
    pub const ELEMENTS: Self = Self {
        packing: Packing::Plain,
        is_big_endian: false,
    };

    /// Bytes of a chunk in this layout that decodes to `decoded_bytes` of elements of `element_bytes`:
    /// never more than `decoded_bytes`.
    pub fn length_bytes(&self, decoded_bytes: usize, element_bytes: usize) -> usize {
        match self.packing {
            Packing::Plain | Packing::Shuffled(_) | Packing::BitShuffled(_) => decoded_bytes,
            Packing::Bits(bits) => bits.length_bytes(decoded_bytes / element_bytes.max(1)),
        }
    }

    /// Whether its numbers mean something for elements of `element_bytes`.
    pub fn is_valid(&self, element_bytes: usize) -> bool {
        self.packing.is_valid(element_bytes)
    }
}

impl Packing {
    fn is_valid(&self, element_bytes: usize) -> bool {
        match self {
            Self::Plain => true,
            Self::Shuffled(blocks) | Self::BitShuffled(blocks) => {
                blocks.unit_bytes > 0 && blocks.block_bytes > 0
            }
            Self::Bits(bits) => bits.is_valid(element_bytes),
        }
    }
}

impl Bits {
    /// Bytes that so many values take.
    pub fn length_bytes(&self, values: usize) -> usize {
        values.saturating_mul(self.width_bits as usize).div_ceil(8)
    }

    /// Whether they fit elements of `element_bytes`.
    pub fn is_valid(&self, element_bytes: usize) -> bool {
        let end = self.offset_bits.checked_add(self.width_bits);
        self.width_bits > 0
            && end.is_some_and(|end| end <= self.filled_bits)
            && self.filled_bits as usize <= 8 * element_bytes
    }
}
